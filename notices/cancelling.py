"""What waits to be sent and is not, because its address was given up or staff want it so.

It stands on record who wanted it, or why. A notice that loses its last hope by it goes by the fallbacks of its kind.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet

from accounts.models import User
from notices.expansion import fall_back, redirect
from notices.models import ContactPoint, Delivery, DeliveryEvent, DeliveryState, DeliveryStep, Notice

# Of these nothing went out, and nobody can begin them once they are cancelled.
WAITING = (DeliveryState.QUEUED, DeliveryState.LEASED)


def cancel(*, delivery_ids: Iterable[int], by: User, now: datetime) -> int:
    """Do not send what has not begun to be sent; return how many."""
    with transaction.atomic(durable=True):
        waiting = _cancelled(
            Delivery.objects.filter(pk__in=list(delivery_ids)), reason=f"Cancelled by {by}.", now=now
        )
        fall_back({delivery.notice_id for delivery in waiting}, now=now)
    return len(waiting)


def call_back(notice_ids: Sequence[int], *, reason: str, now: datetime) -> None:
    """Have these notices go no way that they have not gone, in the caller's transaction."""
    theirs = Delivery.objects.filter(notice__in=notice_ids)
    _cancelled(theirs, reason=reason, now=now)
    Notice.objects.filter(pk__in=notice_ids, called_back_at=None).update(called_back_at=now, is_expanded=True)
    # What was being handed to the channels meanwhile.
    _cancelled(theirs, reason=reason, now=now)
    # What may have gone out is not sent once more.
    theirs.filter(state=DeliveryState.UNCERTAIN).update(lease_until=None)


def give_up(contact_point_ids: Sequence[int], *, reason: str, now: datetime) -> None:
    """Write to these contact points no more, in the caller's transaction. `reason` is for whoever reads the record."""
    _remove(contact_point_ids, reason=reason, now=now)
    theirs = Delivery.objects.filter(contact_point__in=contact_point_ids)
    waiting = _cancelled(theirs, reason=reason, now=now)
    fall_back({delivery.notice_id for delivery in waiting}, now=now)


def replace(
    contact_point_ids: Sequence[int], *, by: Callable[[], ContactPoint], reason: str, now: datetime
) -> ContactPoint:
    """The same, for the one that `by` adds: what waits goes there, at the time when it would have gone."""
    _remove(contact_point_ids, reason=reason, now=now)
    new = by()
    # What would go to the very same address need not be written anew.
    theirs = Delivery.objects.filter(contact_point__in=contact_point_ids).exclude(address=new.address)
    waiting = _cancelled(theirs, reason=reason, now=now)
    redirect(waiting, to=new)
    fall_back({delivery.notice_id for delivery in waiting}, now=now)
    return new


def _remove(contact_point_ids: Sequence[int], *, reason: str, now: datetime) -> None:
    ContactPoint.objects.filter(pk__in=contact_point_ids, removed_at=None).update(
        removed_at=now, removal=reason[:200]
    )


def _cancelled(deliveries: QuerySet[Delivery], *, reason: str, now: datetime) -> list[Delivery]:
    waiting = list(
        deliveries.filter(state__in=WAITING).select_for_update(no_key=True, of=("self",)).order_by("pk")
    )
    Delivery.objects.filter(pk__in=[delivery.pk for delivery in waiting]).update(
        state=DeliveryState.CANCELLED, lease_until=None, problem=reason[:300]
    )
    DeliveryEvent.objects.bulk_create(
        DeliveryEvent(
            delivery=delivery,
            attempt=delivery.attempts,
            step=DeliveryStep.CANCELLED,
            at=now,
            address=delivery.address,
            message_id=delivery.message_id,
            detail=reason[:300],
        )
        for delivery in waiting
    )
    return waiting
