"""In-site messages: the inbox on the site."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from notices.channels.protocol import Accepted, Address, Outgoing
from notices.kinds import Form
from notices.models import InboxMessage


class InSite:
    """Writes to the customer's inbox. The address is the account's id."""

    slug = "in-site"
    label: str | Promise = _("In-site message")
    is_ours = True
    is_by_hand = False
    is_repeatable = False
    form = Form.FULL
    rings = False
    per_second: float | None = None
    claimed_at_once = 500

    def missing(self) -> Sequence[str]:
        return ()

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return {recipient.pk: (Address(str(recipient.pk)),) for recipient in recipients}

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        return outgoing

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        self.send_all([outgoing], now=now)
        return Accepted()

    def send_all(self, outgoings: Sequence[Outgoing], *, now: datetime) -> None:
        """Write many in one statement, in the transaction that records them."""
        InboxMessage.objects.bulk_create(
            InboxMessage(
                recipient_id=outgoing.recipient_id,
                delivery_id=outgoing.delivery_id,
                message_id=outgoing.message_id,
                url=outgoing.url,
                created_at=now,
            )
            for outgoing in outgoings
        )
