"""Where customers are reached by the channels that write to contact points."""

from collections.abc import Mapping, Sequence
from datetime import datetime

from accounts.models import User
from notices.channels.protocol import Address
from notices.models import ContactPoint, Delivery, DeliveryState


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


def give_up(contact_point_ids: Sequence[int], *, reason: str, now: datetime) -> int:
    """Write to these contact points no more, in the caller's transaction; return how many were still in use.

    What waits to be sent there is cancelled. `reason` is for whoever reads the record.
    """
    gone = ContactPoint.objects.filter(pk__in=contact_point_ids, removed_at=None).update(
        removed_at=now, removal=reason[:200]
    )
    Delivery.objects.filter(contact_point__in=contact_point_ids, state=DeliveryState.QUEUED).update(
        state=DeliveryState.CANCELLED, problem="The contact point was removed."
    )
    return gone
