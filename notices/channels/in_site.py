"""In-site messages: the inbox on the site."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from accounts.models import User
from notices.channels.protocol import Accepted, Outgoing
from notices.models import InboxMessage


class InSite:
    """Writes to the customer's inbox. The address is the account's id."""

    slug = "in-site"
    is_ours = True
    claimed_at_once = 200

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[str]]:
        return {recipient.pk: (str(recipient.pk),) for recipient in recipients}

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        InboxMessage.objects.create(
            recipient_id=outgoing.recipient_id,
            delivery_id=outgoing.delivery_id,
            message_id=outgoing.message_id,
            url=outgoing.url,
            created_at=now,
        )
        return Accepted()
