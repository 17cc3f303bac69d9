"""The life of one delivery, step by step.

    queued → leased → sending → sent
       ↑        |        |  ↘ dead       refused, or tried too often
       |        |        |  ↘ uncertain  no answer
       └────────┴────────┘    not taken: again later; uncertain: once more, when no report has come

    queued, leased → superseded (something newer tells it better)
    queued, leased → cancelled (see `cancelling`)
    dead, uncertain → queued (staff have it sent again)

Every step is an UPDATE that names the state it leaves, so of two workers one takes it. The functions run
inside the caller's transaction: `outbox` decides what is committed together.
"""

import json
import random
import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.conf import settings
from django.db import connection, transaction
from django.db.models import F, OuterRef, QuerySet

from accounts.models import User
from evidence.setwise import Given, as_written, given, write
from notices.cancelling import called_back, drop, give_up
from notices.channels import CHANNELS
from notices.channels.protocol import Accepted, Gone, Outcome, Refused, Report, Unavailable, Uncertain
from notices.expansion import fall_back
from notices.kinds import KINDS
from notices.models import (
    ContactPoint,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    DeliveryStep,
    Message,
    Notice,
)
from notices.preferences import end_of_quiet, quiet_hours_of

# A worker that has claimed a delivery begins it within this time, or another may.
LEASE = timedelta(minutes=5)
# After this time without an answer nobody expects one.
SILENCE = timedelta(minutes=5)
# Pauses between attempts double from the first to the longest; all attempts together take a day and a half.
FIRST_PAUSE = timedelta(seconds=15)
LONGEST_PAUSE = timedelta(hours=1)
MOST_ATTEMPTS = 40
# How many deliveries of one kind one call takes up.
CHUNK = 200
DIED = "No answer was recorded: the worker died."
# Nothing went out yet, or nobody knows: what is heard of its last attempt counts.
OPEN = (DeliveryState.QUEUED, DeliveryState.LEASED, DeliveryState.SENDING, DeliveryState.UNCERTAIN)


@dataclass(frozen=True, slots=True)
class Attempt:
    """One begun attempt at a delivery: what went out, and to where. Numbered from 1."""

    delivery_id: int
    number: int
    address: str
    message: Message


@dataclass(frozen=True, slots=True)
class Claimed:
    """A delivery that a worker has claimed, with all that it takes to write and send it. `facts` is JSON.

    No model: making one of the three tables' rows takes longer than all that the database does.
    """

    id: int
    notice_id: int
    channel: str
    address: str
    contact_point_id: int | None
    attempts: int
    message_id: int | None
    recipient_id: int
    kind: str
    about: str
    url: str
    facts: str
    thread: str
    language: str
    time_zone: str

    def read_facts(self) -> dict[str, Any]:
        """What it tells of."""
        told: dict[str, Any] = json.loads(self.facts)
        return told


@dataclass(slots=True)
class Place:
    """How far one worker has come in the queue of a channel: priority, time and id of what it claimed last.

    Whoever begins at the head each time steps over all that was claimed before, for its entries stay in the index
    until they are swept. For one turn: what comes back to the head is found when the queue is through, or by the next.
    """

    after: tuple[int, str, int] | None = None


def claim(*, channel: str, limit: int, now: datetime, place: Place | None = None) -> list[Claimed]:
    """Take up to `limit` due deliveries of `channel`, the urgent first, then the longest due.

    Skips what another worker is taking at the moment. With a `place` it goes on behind that, and moves it; what is more
    urgent gets in all the same.
    """
    place = place or Place()
    was_on_the_way = place.after is not None
    claimed = _claim(channel=channel, limit=limit, now=now, place=place)
    if was_on_the_way and len(claimed) < limit:
        place.after = None
        claimed += _claim(channel=channel, limit=limit - len(claimed), now=now, place=place)
    return claimed


def _claim(*, channel: str, limit: int, now: datetime, place: Place) -> list[Claimed]:
    lock = "FOR UPDATE SKIP LOCKED" if connection.features.has_select_for_update_skip_locked else ""

    def first(narrowed: str) -> str:
        # The limit is literal: with a parameter, PostgreSQL reads the whole table.
        return (
            "AS MATERIALIZED (SELECT id AS due_id FROM notices_delivery WHERE channel = %s AND state = 'queued' "  # noqa: S608
            f"AND due_at <= %s {narrowed} ORDER BY priority, due_at, id LIMIT {int(limit)} {lock})"
        )

    params: list[Any] = [channel, as_written(now)]
    due = f"WITH due {first('')}"
    if place.after:
        due = (
            f"WITH urgent {first('AND priority < %s')}, behind {first('AND (priority, due_at, id) > (%s, %s, %s)')}, "  # noqa: S608
            "due AS (SELECT due_id FROM urgent UNION ALL SELECT due_id FROM "
            f"(SELECT due_id FROM behind LIMIT {int(limit)} - (SELECT count(*) FROM urgent)) AS rest)"
        )
        params = [*params, place.after[0], *params, *place.after]
    taken = (
        "UPDATE notices_delivery SET state = 'leased', lease_until = %s WHERE id IN (SELECT due_id FROM due) "  # noqa: S608
        f"RETURNING {OWN}"
    )
    params.append(as_written(now + LEASE))
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute(f"{due}, delivery AS ({taken}) {_joined('delivery')}", params)
        else:
            cursor.execute(f"{due} {taken}", params)
            table = given(("delivery_id", "bigint", [row[0] for row in cursor.fetchall()]))
            cursor.execute(_joined(_own_of(table)), table.params)
        rows = cursor.fetchall()
    if rows:
        *_, priority, due_at = rows[-1]
        # Not if only what is more urgent has come.
        if place.after is None or priority >= place.after[0]:
            place.after = (priority, due_at, rows[-1][0])
    return [Claimed(*row[:-2]) for row in rows]


def read(ids: Sequence[int]) -> list[Claimed]:
    """What is to be done for these deliveries, in the order in which it is."""
    if not ids:
        return []
    table = given(("delivery_id", "bigint", ids))
    with connection.cursor() as cursor:
        cursor.execute(_joined(_own_of(table)), table.params)
        return [Claimed(*row[:-2]) for row in cursor.fetchall()]


# What a worker needs of the delivery itself, and what its place in the queue was.
OWN = "id, notice_id, channel, address, contact_point_id, attempts, message_id, priority, due_at"


def _own_of(table: Given) -> str:
    return f"(SELECT {OWN} FROM {table.sql} JOIN notices_delivery ON notices_delivery.id = delivery_id) AS delivery"  # noqa: S608


def _joined(deliveries: str) -> str:
    """The fields of `Claimed`, in their order, then priority and time, as text: reading it takes longer than a join.

    `deliveries` is a table `delivery` with what OWN names.
    """
    is_postgresql = connection.vendor == "postgresql"
    facts, due_at = ("facts::text", "due_at::text") if is_postgresql else ("facts", "due_at")
    return (
        "SELECT delivery.id, notice_id, channel, address, contact_point_id, attempts, message_id, recipient_id, "  # noqa: S608
        f"kind, about, url, {facts}, thread, language, time_zone, priority, {due_at} FROM {deliveries} "
        "JOIN notices_notice AS notice ON notice.id = notice_id "
        "JOIN accounts_user ON accounts_user.id = recipient_id ORDER BY priority, delivery.due_at, delivery.id"
    )


def begin(delivery: Claimed, *, message: Message, now: datetime) -> Attempt | None:
    """Put on record that `message` is about to go out. None: another worker has the delivery now, or it is superseded.

    `message` is that of the first attempt, if there was one: a delivery never changes its words.
    """
    number = delivery.attempts + 1
    mine = Delivery.objects.filter(pk=delivery.id, state=DeliveryState.LEASED, attempts=delivery.attempts)
    if _is_superseded(delivery):
        mine.update(state=DeliveryState.SUPERSEDED, lease_until=None)
        return None
    taken = mine.update(
        state=DeliveryState.SENDING, attempts=number, message=message, lease_until=now + SILENCE
    )
    if not taken:
        return None
    attempt = Attempt(delivery.id, number, delivery.address, message)
    _put_on_record(attempt, DeliveryStep.BEGUN, now=now)
    return attempt


def record(attempt: Attempt, outcome: Outcome, *, now: datetime) -> None:
    """Write down how `attempt` ended.

    An answer that comes after the silence was given up on still counts. One for an attempt that another
    has followed is evidence only.
    """
    current = Delivery.objects.filter(pk=attempt.delivery_id, attempts=attempt.number, state__in=OPEN)
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
            _put_on_record(attempt, DeliveryStep.FAILED, now=now, detail=problem)
            fall_back(_fail(current, problem=problem, pause=outcome.retry_after, now=now), now=now)
        case Refused():
            current.update(state=DeliveryState.DEAD, lease_until=None, problem=problem)
            _put_on_record(attempt, DeliveryStep.REFUSED, now=now, detail=problem)
            if isinstance(outcome, Gone):
                give_up_address(attempt.delivery_id, reason=problem, now=now)
            fall_back(
                Notice.objects.filter(deliveries=attempt.delivery_id).values_list("pk", flat=True), now=now
            )
        case Uncertain():
            # Otherwise the silence was given up on before, and "unknown" stands on record.
            if current.filter(state=DeliveryState.SENDING).exists():
                _put_on_record(attempt, DeliveryStep.UNKNOWN, now=now, detail=problem)
                fall_back(_doubt([attempt.delivery_id], reason=problem, now=now), now=now)


def newest(claimed: Sequence[Claimed]) -> list[Claimed]:
    """Supersede what has something newer in its thread; return the others. For many at once what `begin` does for one.

    Two workers may hand out the notices of a thread in any order, and what is older then comes second.
    """
    threaded = [delivery for delivery in claimed if delivery.thread]
    if not threaded:
        return list(claimed)
    table = given(
        ("delivery_id", "bigint", [delivery.id for delivery in threaded]),
        ("notice_id", "bigint", [delivery.notice_id for delivery in threaded]),
        ("recipient_id", "bigint", [delivery.recipient_id for delivery in threaded]),
        ("thread", "text", [delivery.thread for delivery in threaded]),
        ("channel", "text", [delivery.channel for delivery in threaded]),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notices_delivery SET state = 'superseded', lease_until = NULL WHERE id IN (SELECT delivery_id FROM "  # noqa: S608
            f"{table.sql} JOIN notices_notice AS newer ON newer.recipient_id = given.recipient_id "
            "AND newer.thread = given.thread AND newer.thread <> '' AND newer.id > given.notice_id "
            "JOIN notices_delivery AS another ON another.notice_id = newer.id AND another.channel = given.channel) "
            "AND state = 'leased' RETURNING id",
            table.params,
        )
        superseded = {row[0] for row in cursor.fetchall()}
    return [delivery for delivery in claimed if delivery.id not in superseded]


def record_all(written: Sequence[tuple[Claimed, Message]], *, now: datetime) -> None:
    """Write down for many claimed deliveries at once that we have delivered them ourselves: begun, and accepted."""
    if not written:
        return
    table = given(
        ("delivery_id", "bigint", [delivery.id for delivery, _ in written]),
        ("message_id", "bigint", [message.pk for _, message in written]),
        ("attempt", "integer", [delivery.attempts + 1 for delivery, _ in written]),
        ("address", "text", [delivery.address for delivery, _ in written]),
    )
    with connection.cursor() as cursor:
        write(
            cursor,
            "UPDATE notices_delivery SET state = 'sent', attempts = given.attempt, message_id = given.message_id, "  # noqa: S608
            f"sent_at = %s, lease_until = NULL, problem = '' FROM {table.sql} "
            "WHERE notices_delivery.id = given.delivery_id AND notices_delivery.state = 'leased'",
            [as_written(now), *table.params],
            rows=len(written),
        )
        for step in (DeliveryStep.BEGUN, DeliveryStep.ACCEPTED):
            write(
                cursor,
                "INSERT INTO notices_deliveryevent (delivery_id, attempt, step, at, address, message_id, "  # noqa: S608
                "provider_reference, detail) SELECT delivery_id, attempt, %s, %s, address, message_id, '', '' "
                f"FROM {table.sql} WHERE true ORDER BY n",
                [step.value, as_written(now), *table.params],
                rows=len(written),
            )


def still_reached(claimed: Sequence[Claimed], *, now: datetime) -> list[Claimed]:
    """Cancel those whose contact point was given up; return the others.

    Whoever gives one up cancels what waits for it, but not what is being written for it at that moment: the number, or the
    browser, may be somebody else's by now.
    """
    points = {delivery.contact_point_id for delivery in claimed if delivery.contact_point_id}
    if not points:
        return list(claimed)
    gone = dict(
        ContactPoint.objects.filter(pk__in=points, removed_at__isnull=False).values_list("pk", "removal")
    )
    for delivery in claimed:
        if delivery.contact_point_id in gone:
            drop([delivery.id], reason=gone[delivery.contact_point_id], now=now)
    return [delivery for delivery in claimed if delivery.contact_point_id not in gone]


def wait_for_morning(claimed: Sequence[Claimed], *, now: datetime) -> list[Claimed]:
    """Put those back whose readers keep quiet hours now, until these end; return the others.

    Asked when they are about to ring: what was due before has waited for its channel, or to be tried again, and a reader may
    have set his hours meanwhile. It is no attempt.
    """
    quiet = quiet_hours_of({delivery.recipient_id for delivery in claimed})
    ends = {
        delivery.id: end_of_quiet(
            quiet[delivery.recipient_id],
            time_zone=delivery.time_zone,
            urgency=KINDS[delivery.kind].urgency,
            now=now,
        )
        for delivery in claimed
        if delivery.recipient_id in quiet
    }
    later = {delivery_id: end for delivery_id, end in ends.items() if end > now}
    if later:
        table = given(("delivery_id", "bigint", list(later)), ("until", "timestamptz", list(later.values())))
        with connection.cursor() as cursor:
            cursor.execute(
                "UPDATE notices_delivery SET state = 'queued', due_at = given.until, lease_until = NULL "  # noqa: S608
                f"FROM {table.sql} WHERE notices_delivery.id = given.delivery_id AND state = 'leased'",
                table.params,
            )
    return [delivery for delivery in claimed if delivery.id not in later]


def release(claimed: Sequence[Claimed]) -> None:
    """Put back what was claimed and not begun, for whoever has time. It is no attempt."""
    Delivery.objects.filter(pk__in=[delivery.id for delivery in claimed], state=DeliveryState.LEASED).update(
        state=DeliveryState.QUEUED, lease_until=None
    )


def put_off(delivery: Claimed, *, reason: str, now: datetime) -> None:
    """Try a claimed delivery again later, because a mistake of ours kept it from being begun.

    It counts as an attempt, or a notice that can never be written would be tried for ever.
    """
    mine = Delivery.objects.filter(pk=delivery.id, state=DeliveryState.LEASED, attempts=delivery.attempts)
    if mine.update(attempts=F("attempts") + 1):
        mine = Delivery.objects.filter(pk=delivery.id)
        fall_back(_fail(mine, problem=_short(reason), pause=None, now=now), now=now)


def recover(*, now: datetime) -> None:
    """Take up what workers that died have left, and what no report has come of.

    What was only claimed goes back into the queue, for nothing of it went out. What was begun may have
    gone out: nobody knows, and it is said so. It is sent again soon where its provider knows it again; elsewhere
    when a report was waited for in vain, and not a second time.
    """
    Delivery.objects.filter(state=DeliveryState.LEASED, lease_until__lt=now).update(
        state=DeliveryState.QUEUED, lease_until=None
    )
    silent = _over(DeliveryState.SENDING, now=now)
    _put_all_on_record(silent, DeliveryStep.UNKNOWN, now=now, detail=DIED)
    repeatable = [delivery.pk for delivery in silent if CHANNELS[delivery.channel].is_repeatable]
    lost = _doubt([delivery.pk for delivery in silent if delivery.pk not in repeatable], reason=DIED, now=now)
    for delivery_id in repeatable:
        lost += _fail(Delivery.objects.filter(pk=delivery_id), problem=DIED, pause=None, now=now)
    fall_back(lost, now=now)

    unreported = _over(DeliveryState.UNCERTAIN, now=now)
    _put_all_on_record(
        unreported, DeliveryStep.REPEATED, now=now, detail="No report has come. It may arrive twice."
    )
    Delivery.objects.filter(pk__in=[delivery.pk for delivery in unreported]).update(
        state=DeliveryState.QUEUED, due_at=now, lease_until=None
    )


def resend(*, delivery_ids: Iterable[int], by: User, now: datetime) -> int:
    """Send again, with the same words, what was refused or whose end nobody knows; return how many. Nothing that was called back.

    Of the latter it stands on record that it may arrive twice, and who wanted it so. It is tried as often as the first time.
    """
    with transaction.atomic(durable=True):
        again = list(
            Delivery.objects.filter(
                pk__in=list(delivery_ids), state__in=(DeliveryState.DEAD, DeliveryState.UNCERTAIN)
            )
            .select_related("message")
            .select_for_update(of=("self",))
            .order_by("pk")
        )
        back = called_back(delivery.notice_id for delivery in again)
        again = [delivery for delivery in again if delivery.notice_id not in back]
        for delivery in again:
            if delivery.message:
                maybe = " It may arrive twice." if delivery.state == DeliveryState.UNCERTAIN else ""
                attempt = Attempt(delivery.pk, delivery.attempts, delivery.address, delivery.message)
                _put_on_record(attempt, DeliveryStep.RESENT, now=now, detail=f"Asked for by {by}.{maybe}")
        Delivery.objects.filter(pk__in=[delivery.pk for delivery in again]).update(
            state=DeliveryState.QUEUED, failures=0, due_at=now, lease_until=None, problem=""
        )
    return len(again)


def report(*, channel: str, told: Report, now: datetime) -> bool:
    """Write down what a provider tells later of a message it had taken; False if we know of none such.

    What has arrived, of which nobody knew whether it was sent, was sent when it was begun. What came back for good is
    not sent there again, and goes by the fallbacks of its kind. The same told twice is written once.
    """
    with transaction.atomic(durable=True):
        delivery = named(channel, told).select_for_update(of=("self",)).select_related("message").first()
        if delivery is None or delivery.message is None:
            return False
        attempt = Attempt(delivery.pk, delivery.attempts, delivery.address, delivery.message)
        step = DeliveryStep.RECEIVED if told.has_arrived else DeliveryStep.RETURNED
        if delivery.events.filter(attempt=attempt.number, step=step).exists():
            return True
        _put_on_record(
            attempt,
            step,
            now=now,
            provider_reference=told.provider_reference[:200],
            detail=_short(told.detail),
        )
        # Also if it waits to be sent once more. While it is being sent, its worker writes down the answer.
        if delivery.state in OPEN and delivery.state != DeliveryState.SENDING:
            _was_sent([delivery.pk])
        if not told.has_arrived:
            if told.is_gone:
                give_up_address(delivery.pk, reason=told.detail or "It came back.", now=now)
            fall_back([delivery.notice_id], now=now)
    return True


def give_up_address(delivery_id: int, *, reason: str, now: datetime) -> None:
    """Write no more to the contact point that a delivery went to."""
    points = ContactPoint.objects.filter(deliveries=delivery_id)
    give_up(list(points.values_list("pk", flat=True)), reason=reason, now=now)


def pause_after(failures: int) -> timedelta:
    """How long to wait after that many failures in a row: doubling, and spread so that not all come back at once."""
    pause = min(FIRST_PAUSE * (1 << min(failures - 1, 16)), LONGEST_PAUSE)
    return timedelta(seconds=pause.total_seconds() * random.uniform(0.5, 1))  # noqa: S311 (no secret)


def named(channel: str, told: Report) -> QuerySet[Delivery]:
    """The delivery that a provider means: by our reference where he was given it, else by his own."""
    known = Delivery.objects.filter(channel=channel).order_by("-pk")
    for reference in (told.our_reference, told.provider_reference):
        if ours := re.fullmatch(r"<?delivery-(\d{1,18})(@[^>]*)?>?", reference):
            return known.filter(pk=int(ours[1]))
    return known.filter(provider_reference=told.provider_reference).exclude(provider_reference="")


def _is_superseded(delivery: Claimed) -> bool:
    """Whether something newer in its thread goes to the same person by the same channel."""
    if not delivery.thread:
        return False
    newer = Notice.objects.filter(
        recipient_id=delivery.recipient_id,
        thread=delivery.thread,
        pk__gt=delivery.notice_id,
        deliveries__channel=delivery.channel,
    )
    return newer.exists()


def _over(state: DeliveryState, *, now: datetime) -> list[Delivery]:
    """Some in this state whose time is over, locked; not those that another worker is taking up."""
    return list(
        Delivery.objects.filter(state=state, lease_until__lt=now)
        .select_for_update(skip_locked=True, no_key=True)
        .order_by("lease_until")[:CHUNK]
    )


def _fail(mine: QuerySet[Delivery], *, problem: str, pause: timedelta | None, now: datetime) -> list[int]:
    """Have the delivery in `mine` tried again after a pause, that long at least; return its notice if it is lost,
    for it was tried too often. What was called back meanwhile is cancelled.
    """
    delivery = mine.select_for_update(no_key=True).first()
    if delivery is None:
        return []
    failures = delivery.failures + 1
    is_dead = failures >= MOST_ATTEMPTS
    mine.update(
        state=DeliveryState.DEAD if is_dead else DeliveryState.QUEUED,
        failures=failures,
        due_at=now + max(pause_after(failures), pause or timedelta(0)),
        lease_until=None,
        problem=problem,
    )
    if called_back([delivery.notice_id]):
        drop([delivery.pk], reason="It was called back meanwhile.", now=now)
    return [delivery.notice_id] if is_dead else []


def _doubt(delivery_ids: Sequence[int], *, reason: str, now: datetime) -> list[int]:
    """Say of deliveries that nobody knows whether they went out, unless a report has come meanwhile.

    Returns the notices of those that were sent once more already, and are not again. Nor is what was called back meanwhile.
    """
    known = _was_sent(delivery_ids)
    doubtful = Delivery.objects.filter(pk__in=set(delivery_ids) - known)
    notices = dict(doubtful.select_for_update(no_key=True).order_by("pk").values_list("pk", "notice_id"))
    twice = set(doubtful.filter(events__step=DeliveryStep.REPEATED).values_list("pk", flat=True))
    back = called_back(notices.values())
    last = [pk for pk, notice_id in notices.items() if pk in twice or notice_id in back]
    until = now + timedelta(minutes=settings.NOTICE_REPEAT_MINUTES)
    doubtful.exclude(pk__in=last).update(state=DeliveryState.UNCERTAIN, lease_until=until, problem=reason)
    doubtful.filter(pk__in=last).update(state=DeliveryState.UNCERTAIN, lease_until=None, problem=reason)
    return [notices[pk] for pk in twice]


def _was_sent(delivery_ids: Sequence[int]) -> set[int]:
    """Count as sent, when they were begun, those of whose last attempt the provider has reported; return which."""
    told = DeliveryEvent.objects.filter(
        delivery__in=delivery_ids,
        attempt=F("delivery__attempts"),
        step__in=(DeliveryStep.RECEIVED, DeliveryStep.RETURNED),
    )
    begun = DeliveryEvent.objects.filter(
        delivery=OuterRef("delivery"), attempt=OuterRef("attempt"), step=DeliveryStep.BEGUN
    )
    known = told.annotate(begun_at=begun.values("at")).exclude(begun_at=None)
    found = list(known.values_list("delivery", "provider_reference", "begun_at"))
    for delivery_id, reference, at in found:
        Delivery.objects.filter(pk=delivery_id).update(
            state=DeliveryState.SENT,
            sent_at=at,
            lease_until=None,
            provider_reference=reference,
            problem="",
        )
    return {delivery_id for delivery_id, _, _ in found}


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


def _put_all_on_record(
    deliveries: Iterable[Delivery], step: DeliveryStep, *, now: datetime, detail: str
) -> None:
    """A step of the last attempt of each."""
    DeliveryEvent.objects.bulk_create(
        DeliveryEvent.of(delivery, step, at=now, detail=detail) for delivery in deliveries
    )


def _short(problem: str) -> str:
    return problem if len(problem) <= 300 else f"{problem[:299]}…"
