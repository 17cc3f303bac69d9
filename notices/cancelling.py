"""What waits to be sent and is not, because its address was given up or staff want it so.

It stands on record who wanted it, or why. A notice that loses its last hope by it goes by the fallbacks of its kind.
"""

from collections.abc import Callable, Iterable, Sequence
from datetime import datetime

from django.db import transaction
from django.db.models import Q, QuerySet

from accounts.models import User
from notices.expansion import fall_back, redirect
from notices.models import ContactPoint, Delivery, DeliveryEvent, DeliveryState, DeliveryStep, Notice

# Of these nothing went out, and nobody can begin them once they are cancelled.
WAITING = (DeliveryState.QUEUED, DeliveryState.LEASED)
# Of these something may still go out: they wait, are being sent and may fail, or are sent once more when no report comes.
# Nothing can be done about a letter that is printed.
TO_COME = (
    Q(state=DeliveryState.QUEUED),
    Q(
        state__in=(DeliveryState.LEASED, DeliveryState.SENDING, DeliveryState.UNCERTAIN),
        lease_until__isnull=False,
    ),
)


def cancel(*, delivery_ids: Iterable[int], by: User, now: datetime) -> int:
    """Do not send what has not begun to be sent; return how many."""
    with transaction.atomic(durable=True):
        waiting = _cancelled(
            Delivery.objects.filter(pk__in=list(delivery_ids)), reason=f"Cancelled by {by}.", now=now
        )
        fall_back({delivery.notice_id for delivery in waiting}, now=now)
    return len(waiting)


def call_back(notice_ids: Sequence[int], *, reason: str, now: datetime) -> None:
    """Have these notices go no way that they have not gone, in the caller's transaction.

    What is being sent at the moment goes out, or not; it is not sent once more (`called_back`).
    """
    _keep_back(notice_ids, reason=reason, now=now)
    Notice.objects.filter(pk__in=notice_ids, called_back_at=None).update(called_back_at=now, is_expanded=True)
    # What was handed to the channels, or back into the queue, until the notices were ours.
    _keep_back(notice_ids, reason=reason, now=now)


def called_back(notice_ids: Iterable[int]) -> set[int]:
    """Which of these notices were called back. To be asked when something of theirs is to be sent once more.

    It locks them: whoever calls one back at the same moment waits, and finds what went back into the queue.
    """
    notices = Notice.objects.filter(pk__in=set(notice_ids)).select_for_update(no_key=True).order_by("pk")
    return {pk for pk, at in notices.values_list("pk", "called_back_at") if at}


def drop(delivery_ids: Iterable[int], *, reason: str, now: datetime) -> None:
    """Cancel what a worker has claimed, or puts back into the queue, in its transaction."""
    waiting = _cancelled(Delivery.objects.filter(pk__in=list(delivery_ids)), reason=reason, now=now)
    fall_back({delivery.notice_id for delivery in waiting}, now=now)


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


def _keep_back(notice_ids: Sequence[int], *, reason: str, now: datetime) -> None:
    theirs = Delivery.objects.filter(notice__in=notice_ids)
    _cancelled(theirs, reason=reason, now=now)
    # What may have gone out is not sent once more.
    theirs.filter(state=DeliveryState.UNCERTAIN).update(lease_until=None)


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
        DeliveryEvent.of(delivery, DeliveryStep.CANCELLED, at=now, detail=reason) for delivery in waiting
    )
    return waiting
