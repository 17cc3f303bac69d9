"""The life of one delivery, step by step.

    queued → leased → sending → sent
       ↑        |        |  ↘ dead       refused, or tried too often
       |        |        |  ↘ uncertain  no answer
       └────────┴────────┘    not taken: again later

Every step is an UPDATE that names the state it leaves, so of two workers one takes it. The functions run
inside the caller's transaction: `outbox` decides what is committed together.
"""

import random
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.db.models import F

from notices.channels.protocol import Accepted, Outcome, Refused, Unavailable, Uncertain
from notices.models import Delivery, DeliveryEvent, DeliveryState, DeliveryStep, Message

# A worker that has claimed a delivery begins it within this time, or another may.
LEASE = timedelta(minutes=5)
# After this time without an answer nobody expects one.
SILENCE = timedelta(minutes=5)
# Pauses between attempts double from the first to the longest; all attempts together take a day and a half.
FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(hours=1)
MOST_ATTEMPTS = 40
# How many silent deliveries one call gives up on.
CHUNK = 200


@dataclass(frozen=True, slots=True)
class Attempt:
    """One begun attempt at a delivery: what went out, and to where. Numbered from 1."""

    delivery_id: int
    number: int
    address: str
    message: Message


def claim(*, channel: str, limit: int, now: datetime) -> list[Delivery]:
    """Take up to `limit` due deliveries of `channel`, the urgent first, then the longest due, each with notice and recipient.

    Skips what another worker is taking at the moment.
    """
    due = Delivery.objects.filter(channel=channel, state=DeliveryState.QUEUED, due_at__lte=now)
    ids = list(
        due.order_by("priority", "due_at", "id")
        .select_for_update(skip_locked=True)
        .values_list("pk", flat=True)[:limit]
    )
    Delivery.objects.filter(pk__in=ids, state=DeliveryState.QUEUED).update(
        state=DeliveryState.LEASED, lease_until=now + LEASE
    )
    return list(
        Delivery.objects.filter(pk__in=ids)
        .select_related("notice__recipient", "message", "contact_point")
        .order_by("priority", "due_at", "id")
    )


def begin(delivery: Delivery, *, message: Message, now: datetime) -> Attempt | None:
    """Put on record that `message` is about to go out. None: another worker has the delivery now.

    `message` is that of the first attempt, if there was one: a delivery never changes its words.
    """
    number = delivery.attempts + 1
    taken = Delivery.objects.filter(
        pk=delivery.pk, state=DeliveryState.LEASED, attempts=delivery.attempts
    ).update(state=DeliveryState.SENDING, attempts=number, message=message, lease_until=now + SILENCE)
    if not taken:
        return None
    attempt = Attempt(delivery.pk, number, delivery.address, message)
    _put_on_record(attempt, DeliveryStep.BEGUN, now=now)
    return attempt


def record(attempt: Attempt, outcome: Outcome, *, now: datetime) -> None:
    """Write down how `attempt` ended.

    An answer that comes after the silence was given up on still counts. One for an attempt that another
    has followed is evidence only.
    """
    current = Delivery.objects.filter(
        pk=attempt.delivery_id,
        attempts=attempt.number,
        state__in=(DeliveryState.SENDING, DeliveryState.UNCERTAIN),
    )
    problem = _short(str(outcome))
    match outcome:
        case Accepted():
            reference = outcome.provider_reference[:200]
            current.update(
                state=DeliveryState.SENT,
                sent_at=now,
                lease_until=None,
                provider_reference=reference,
                problem="",
            )
            _put_on_record(attempt, DeliveryStep.ACCEPTED, now=now, provider_reference=reference)
        case Unavailable():
            current.update(
                state=_after_failures(attempt.number),
                due_at=now + pause_after(attempt.number),
                lease_until=None,
                problem=problem,
            )
            _put_on_record(attempt, DeliveryStep.FAILED, now=now, detail=problem)
        case Refused():
            current.update(state=DeliveryState.DEAD, lease_until=None, problem=problem)
            _put_on_record(attempt, DeliveryStep.REFUSED, now=now, detail=problem)
        case Uncertain():
            sending = current.filter(state=DeliveryState.SENDING)
            # Otherwise the silence was given up on before, and "unknown" stands on record.
            if sending.update(state=DeliveryState.UNCERTAIN, lease_until=None, problem=problem):
                _put_on_record(attempt, DeliveryStep.UNKNOWN, now=now, detail=problem)


def put_off(delivery: Delivery, *, reason: str, now: datetime) -> None:
    """Try a claimed delivery again later, because a mistake of ours kept it from being begun.

    It counts as an attempt, or a notice that can never be written would be tried for ever.
    """
    Delivery.objects.filter(pk=delivery.pk, state=DeliveryState.LEASED, attempts=delivery.attempts).update(
        state=_after_failures(delivery.attempts + 1),
        attempts=F("attempts") + 1,
        due_at=now + pause_after(delivery.attempts + 1),
        lease_until=None,
        problem=_short(reason),
    )


def recover(*, now: datetime) -> None:
    """Take up what workers that died have left.

    What was only claimed goes back into the queue, for nothing of it went out. What was begun may have
    gone out: nobody knows, and it is said so.
    """
    Delivery.objects.filter(state=DeliveryState.LEASED, lease_until__lt=now).update(
        state=DeliveryState.QUEUED, lease_until=None
    )
    silent = list(
        Delivery.objects.filter(state=DeliveryState.SENDING, lease_until__lt=now)
        .select_for_update(skip_locked=True)
        .order_by("lease_until")[:CHUNK]
    )
    reason = "No answer was recorded: the worker died."
    Delivery.objects.filter(pk__in=[delivery.pk for delivery in silent], state=DeliveryState.SENDING).update(
        state=DeliveryState.UNCERTAIN, lease_until=None, problem=reason
    )
    DeliveryEvent.objects.bulk_create(
        DeliveryEvent(
            delivery=delivery,
            attempt=delivery.attempts,
            step=DeliveryStep.UNKNOWN,
            at=now,
            address=delivery.address,
            message_id=delivery.message_id,
            detail=reason,
        )
        for delivery in silent
        if delivery.message_id  # for the type checker: begin() has set it
    )


def pause_after(failures: int) -> timedelta:
    """How long to wait after that many failures in a row: doubling, and spread so that not all come back at once."""
    pause = min(FIRST_PAUSE * (1 << min(failures - 1, 16)), LONGEST_PAUSE)
    return timedelta(seconds=pause.total_seconds() * random.uniform(0.5, 1))  # noqa: S311 (no secret)


def _after_failures(failures: int) -> DeliveryState:
    return DeliveryState.DEAD if failures >= MOST_ATTEMPTS else DeliveryState.QUEUED


def _put_on_record(
    attempt: Attempt, step: DeliveryStep, *, now: datetime, provider_reference: str = "", detail: str = ""
) -> None:
    DeliveryEvent.objects.create(
        delivery_id=attempt.delivery_id,
        attempt=attempt.number,
        step=step,
        at=now,
        address=attempt.address,
        message=attempt.message,
        provider_reference=provider_reference,
        detail=detail,
    )


def _short(problem: str) -> str:
    return problem if len(problem) <= 300 else f"{problem[:299]}…"
