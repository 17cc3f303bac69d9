"""The fairness ledger: one chain of sealed entries per plan, which anybody can download and check.

Whoever moves units in a queue writes the events of it in the same transaction (`record`). A job seals them, plan
by plan, seconds later, and once a day the last seal is published. An entry is sealed after all it depends on: of two
transactions that locked the same line, the second commits, and is read, after the first.

`verify_queue_ledger.py` is what we give to everybody for checking, and what `verify_queue` runs itself.
"""

import json
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta

from django.db import connection, transaction
from django.db.models import Aggregate, Count, Exists, F, Max, OuterRef, Q, Subquery, Sum
from django.db.models.expressions import CombinedExpression
from django.db.models.functions import Coalesce

from evidence.contract_time import contract_date, contract_midnight
from evidence.models import ChainHead
from evidence.setwise import given, write
from inventory.models import Device, DeviceState, Plan, Quarantine
from orders.models import Allocation, LineState, OrderLine, PublishedHead, QueueEvent, QueueEventKind
from orders.queue.verify_queue_ledger import check, seal_of

NOTHING_BEFORE = "0" * 64
SEALED_AT_ONCE = 5_000
READ_AT_ONCE = 5_000
# An event that is older and not sealed was put in by other means, or the sealing stands still.
SEALED_WITHIN = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Head:
    """The last entry of a ledger: how many there are, and the seal over all of them."""

    number: int
    sha256: str


NOTHING_SEALED = Head(0, NOTHING_BEFORE)


def record(
    kind: QueueEventKind,
    units: Iterable[tuple[OrderLine, int]],
    *,
    now: datetime,
    behind: int = 0,
    seen: int | None = None,
) -> None:
    """Write what happened to so many units of lines, in the transaction in which it happens.

    Of an allocation, `seen` is how many entries were sealed before the queue was looked at; without it, it is refused.
    """
    events = []
    for line, count in units:
        if line.paid_at is None:
            raise ValueError(f"{line} is in no queue.")
        events.append(
            QueueEvent(
                plan_id=line.plan_id,
                line=line,
                kind=kind,
                units=count,
                paid_at=line.paid_at,
                at=now,
                behind=behind,
                seen=seen,
            )
        )
    QueueEvent.objects.bulk_create(events)


def head_of(plan_id: int) -> Head:
    """The last sealed entry of the plan's ledger."""
    return heads_of([plan_id]).get(plan_id, NOTHING_SEALED)


def heads_of(plan_ids: Iterable[int]) -> dict[int, Head]:
    """The last sealed entry of each ledger, by plan; a plan without entries is missing."""
    plans = {_chain(plan_id): plan_id for plan_id in plan_ids}
    return {
        plans[head.pk]: Head(head.chain_number, head.chain_sha256)
        for head in ChainHead.objects.filter(pk__in=plans)
    }


def seal_events(*, plan_id: int) -> int:
    """Seal what has been recorded of the plan since the last time; return how many entries.

    Safe to run by several workers at once: the head of the ledger is the lock.
    """
    total = 0
    while sealed := _seal_some(plan_id):
        total += sealed
        if sealed < SEALED_AT_ONCE:
            break
    return total


def plans_to_seal() -> list[int]:
    """Plans with an event that is not sealed yet."""
    unsealed = QueueEvent.objects.filter(number=None).order_by()
    return sorted(unsealed.values_list("plan_id", flat=True).distinct())


def publish_heads(*, now: datetime) -> int:
    """Publish the head of every plan's ledger for the day that has ended last; return how many.

    Days are contract days (Asia/Hong_Kong). What is published stays: nobody can write the days before anew. Days on
    which the job did not run are made up for; that they come late, they say themselves.
    """
    yesterday = contract_date(now) - timedelta(days=1)
    published = 0
    for plan in Plan.objects.annotate(last=Max("published_heads__day")).order_by("pk"):
        day = plan.last + timedelta(days=1) if plan.last else yesterday
        while day <= yesterday:
            head = head_of(plan.pk) if day == yesterday else _head_at_the_end_of(day, plan_id=plan.pk)
            if head.number:
                _row, is_new = PublishedHead.objects.get_or_create(
                    plan=plan,
                    day=day,
                    defaults={"number": head.number, "sha256": head.sha256, "published_at": now},
                )
                published += is_new
            day += timedelta(days=1)
    return published


def _head_at_the_end_of(day: date, *, plan_id: int) -> Head:
    """The last entry that was recorded before the day was over."""
    sealed = QueueEvent.objects.filter(plan_id=plan_id, number__isnull=False)
    last = sealed.filter(at__lt=contract_midnight(day + timedelta(days=1))).order_by("number").last()
    return Head(last.number, last.sha256) if last and last.number and last.sha256 else NOTHING_SEALED


def ledger_lines(plan_id: int, *, until: int | None = None) -> Iterator[str]:
    """The sealed entries of the plan as they are downloaded: "SEAL [number, …]", each with its newline.

    All there are, or those up to the entry `until`.
    """
    entries = QueueEvent.objects.filter(plan_id=plan_id, number__isnull=False).order_by("number")
    if until is not None:
        entries = entries.filter(number__lte=until)
    for event in entries.iterator(READ_AT_ONCE):
        yield f"{event.sha256} {entry_text(event)}\n"


def entry_text(event: QueueEvent) -> str:
    """What is sealed of an event, and published: nothing of who the customer is."""
    return json.dumps(
        [
            event.number,
            str(event.kind),
            event.line_id,
            event.units,
            _stamp(event.paid_at),
            _stamp(event.at),
            event.behind,
            event.seen,
        ],
        separators=(",", ":"),
    )


def faults_of(plan: Plan, *, now: datetime) -> Iterator[str]:
    """Re-play the ledger of `plan` and compare it with the tables; yield a sentence for everything wrong.

    The shop goes on meanwhile, and the ledger grows: what is asked of it is what its head covers when we begin.
    """
    published = list(PublishedHead.objects.filter(plan=plan).order_by("day"))
    last = _last_entry(plan)
    head = head_of(plan.pk)
    for fault in check(ledger_lines(plan.pk, until=head.number), [head.sha256] if head.number else []):
        yield f"Ledger of {plan}: {fault}"
    ends = max(last, _last_entry(plan, until=head.number))
    if ends != head.number:
        yield f"Ledger of {plan}: it ends at entry {ends}, its head says {head.number}."
    for each in published:
        sealed = QueueEvent.objects.filter(plan=plan, number=each.number).values_list("sha256", flat=True)
        if list(sealed) != [each.sha256]:
            yield f"Ledger of {plan}: entry {each.number} is not the one published for {each.day}."
    for event in QueueEvent.objects.filter(plan=plan, number=None, at__lt=now - SEALED_WITHIN).order_by("pk"):
        yield f"Ledger of {plan}: event {event.pk} of {event.at.isoformat()} was never sealed."
    yield from _faults_of_lines(plan)
    yield from _faults_of_devices(plan)


def _last_entry(plan: Plan, *, until: int | None = None) -> int:
    entries = QueueEvent.objects.filter(plan=plan)
    if until is not None:
        entries = entries.filter(number__lte=until)
    return entries.aggregate(number=Max("number"))["number"] or 0


def _faults_of_lines(plan: Plan) -> Iterator[str]:
    """Lines whose rows do not say what the ledger says of them. (One statement: rows and ledger are of one moment.)"""

    def of(*kinds: QueueEventKind) -> Sum:
        return Sum("queue_events__units", filter=Q(queue_events__kind__in=kinds), default=0)

    def times(condition: Q) -> Count:
        return Count("queue_events", filter=condition)

    of_ledger: dict[str, Aggregate | CombinedExpression] = {
        "joined": of(QueueEventKind.JOINED),
        "times_joined": times(Q(queue_events__kind=QueueEventKind.JOINED)),
        "served": of(QueueEventKind.ALLOCATED) - of(QueueEventKind.RETURNED, QueueEventKind.REFUNDED),
        "left": of(QueueEventKind.LEFT, QueueEventKind.REFUNDED),
        "holds": times(Q(queue_events__kind=QueueEventKind.HELD))
        - times(Q(queue_events__kind=QueueEventKind.RELEASED)),
        "misdated": times(~Q(queue_events__paid_at=F("paid_at"))),
        "misplaced": times(~Q(queue_events__plan=F("plan"))),
    }
    lines = (
        OrderLine.objects.filter(plan=plan, paid_at__isnull=False)
        .annotate(**of_ledger)
        .order_by("pk")
        .values("pk", "quantity", "allocated", "withdrawn", "state", *of_ledger)
    )
    for line in lines.iterator(READ_AT_ONCE):
        what = f"Line {line['pk']} of {plan}"
        if (line["times_joined"], line["joined"]) != (1, line["quantity"]):
            yield f"{what} has {line['quantity']} units; {line['joined']} joined the queue."
        if line["served"] != line["allocated"]:
            yield f"{what} has {line['allocated']} units allocated, in the ledger {line['served']}."
        if line["left"] != line["withdrawn"]:
            yield f"{what} has {line['withdrawn']} units refunded, in the ledger {line['left']}."
        if line["holds"] != (line["state"] == LineState.HELD):
            yield f"{what} is {line['state']}, in the ledger it was held {line['holds']} times."
        if line["misdated"]:
            yield f"{what} has another time of payment in the ledger."
        if line["misplaced"]:
            yield f"{what} is in the ledger of another plan."


def _faults_of_devices(plan: Plan) -> Iterator[str]:
    """Lines that have other devices than they count, and devices that are not where their rows say they are."""
    taken_back = Quarantine.objects.filter(device=OuterRef("device"), since=OuterRef("ended_at"))
    given = Allocation.objects.filter(line=OuterRef("pk")).exclude(Exists(taken_back)).order_by()
    counted = given.values("line").annotate(units=Count("unit", distinct=True)).values("units")
    lines = OrderLine.objects.filter(plan=plan).annotate(devices=Coalesce(Subquery(counted), 0))
    wrong = lines.exclude(devices=F("allocated")).order_by("pk")
    for line_id, allocated, devices in wrong.values_list("pk", "allocated", "devices").iterator(READ_AT_ONCE):
        yield f"Line {line_id} of {plan} has {allocated} units allocated, and {devices} of them a device."
    in_use = Allocation.objects.filter(device=OuterRef("pk"), ended_at=None)
    stray = Device.objects.filter(plan=plan).exclude(
        Q(Exists(in_use), state=DeviceState.ALLOCATED) | ~Q(Exists(in_use)) & ~Q(state=DeviceState.ALLOCATED)
    )
    for device in stray.order_by("pk").iterator(READ_AT_ONCE):
        yield f"Device {device} of {plan} is {device.state}, and its allocations say something else."
    elsewhere = Allocation.objects.filter(line__plan=plan).exclude(device__plan=plan)
    for allocation in elsewhere.select_related("device").order_by("pk").iterator(READ_AT_ONCE):
        yield f"Line {allocation.line_id} of {plan} has the device {allocation.device}, which is of another plan."


def _seal_some(plan_id: int) -> int:
    with transaction.atomic(durable=True):
        head = _locked_head(plan_id)
        events = list(QueueEvent.objects.filter(plan_id=plan_id, number=None).order_by("pk")[:SEALED_AT_ONCE])
        number, seal = head.chain_number, head.chain_sha256
        for event in events:
            number += 1
            event.number = number
            event.sha256 = seal = seal_of(seal, entry_text(event))
        if events:
            table = given(
                ("id", "bigint", [event.pk for event in events]),
                ("number", "bigint", [event.number for event in events]),
                ("sha256", "text", [event.sha256 for event in events]),
            )
            with connection.cursor() as cursor:
                write(
                    cursor,
                    "UPDATE orders_queueevent SET number = given.number, sha256 = given.sha256 "  # noqa: S608
                    f"FROM {table.sql} WHERE orders_queueevent.id = given.id",
                    table.params,
                    rows=len(events),
                )
            ChainHead.objects.filter(pk=head.pk).update(chain_number=number, chain_sha256=seal)
    return len(events)


def _locked_head(plan_id: int) -> ChainHead:
    heads = ChainHead.objects.select_for_update()
    ChainHead.objects.bulk_create(
        [ChainHead(name=_chain(plan_id), chain_number=0, chain_sha256=NOTHING_BEFORE)], ignore_conflicts=True
    )
    return heads.get(pk=_chain(plan_id))


def _chain(plan_id: int) -> str:
    return f"orders.queueevent:{plan_id}"


def _stamp(moment: datetime) -> str:
    """UTC, always with microseconds: as texts they sort as the times do."""
    return moment.astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.%fZ")
