"""Where customers are reached by the channels that write to contact points."""

from collections.abc import Mapping, Sequence

from accounts.models import User
from notices.channels.protocol import Address
from notices.models import ContactPoint


def addresses_of(channel: str, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
    """The proved contact points of each at `channel`, by id, oldest first. One query, however many there are."""
    found: dict[int, list[Address]] = {}
    points = ContactPoint.objects.filter(
        customer__in=[recipient.pk for recipient in recipients],
        channel=channel,
        verified_at__isnull=False,
        removed_at=None,
    ).order_by("id")
    for customer_id, address, pk in points.values_list("customer_id", "address", "pk"):
        found.setdefault(customer_id, []).append(Address(address, contact_point_id=pk))
    return found
