"""Letters: people print and post them (`notices.letters`), so no worker ever takes one."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from notices.channels.addresses import addresses_of
from notices.channels.protocol import Accepted, Address, Outgoing, Refused
from notices.kinds import Form


class Letter:
    """Regular mail, to the postal address that a customer has given."""

    slug = "letter"
    label: str | Promise = _("Letter")
    is_ours = False
    is_by_hand = True
    is_repeatable = False
    form = Form.FULL
    rings = False
    per_second: float | None = None
    claimed_at_once = 200

    def missing(self) -> Sequence[str]:
        """Without our own address a letter cannot come back."""
        return () if settings.SELLER_ADDRESS else ("SELLER_ADDRESS",)

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return addresses_of(self.slug, recipients)

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        return outgoing

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        raise Refused("A letter is printed and posted by staff.")
