"""The sweep: devices that are free go to the units that wait, strictly in the order of payment.

Clause 1.1 and 3.3 of the agreement. One transaction per chunk: the plan is locked (one sweep of a plan at a
time; SKIP LOCKED at the head of the queue would let a later payer overtake), then its waiting lines (a refund
in flight is waited for). Whoever changes a *free* device's state must hold the plan's lock too.
"""

import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef, QuerySet
from django.urls import reverse

from evidence.clock import ticking
from evidence.setwise import as_written, given, write
from inventory.models import Device, DeviceState, Plan
from notices import kinds
from notices.outbox import Draft, tell
from orders.fifo import Claim, Gift, hand_out
from orders.models import LineState, OrderLine, QueueEventKind
from orders.queue import lock_plans, plans_with_a_queue
from orders.queue.fairness import head_of

# Devices and lines that one transaction looks at: half a second's work. A line has two units on average.
CHUNK = 10_000
CHUNK_LINES = 5_000
# SQLite has one writer: its chunks are shorter, and between them the payers get their turn.
SQLITE_CHUNK = 2_000
SQLITE_PAUSE_SECONDS = 0.02


def allocate_devices(*, plan_id: int, now: datetime) -> int:
    """Hand out every free device of the plan that somebody waits for; return how many.

    Lines captured less than the hold-back before `now` are not served yet: their rank may still change by a
    webhook that is under way. Safe to run at any time, twice, and by several workers; a run that dies leaves
    whole chunks behind, and the next one goes on. Each chunk has its own time: the sweep of a long queue lasts.
    """
    clock, total = ticking(now), 0
    while units := _allocate_chunk(plan_id=plan_id, now=clock()):
        total += units
        if connection.vendor == "sqlite":
            time.sleep(SQLITE_PAUSE_SECONDS)
    return total


@dataclass(frozen=True, slots=True)
class Turn:
    """What a line would get: devices by their codes, of the units that it waits for the first ones."""

    line_id: int
    reference: str
    customer_id: int
    waiting: int
    codes: tuple[str, ...]


def plan_of_sweep(*, plan_id: int, now: datetime, units: int) -> list[Turn]:
    """Who would get what if the sweep ran at `now`: its first `units` devices. Reads only, and locks nothing."""
    codes = dict(_free(plan_id).values_list("pk", "code")[:units])
    lines = _read(_due(plan_id, now=now)[: len(codes)])
    gifts = hand_out(devices=list(codes), claims=[line.claim for line in lines])
    given_to: dict[int, list[str]] = {}
    for gift in gifts:
        given_to.setdefault(gift.line_id, []).append(codes[gift.device_id])
    return [
        Turn(claim.line_id, line.reference, line.customer_id, claim.units, tuple(given_to[claim.line_id]))
        for line in lines
        if (claim := line.claim).line_id in given_to
    ]


def plans_to_sweep() -> list[int]:
    """Plans that have both a free device and a waiting line."""
    free = Device.objects.filter(plan=OuterRef("pk"), state=DeviceState.FREE)
    return list(plans_with_a_queue().filter(Exists(free)).values_list("pk", flat=True))


class _Waiting(NamedTuple):
    """A line of the queue, with what its allocation and the notice of it need. `days` are those of its service."""

    claim: Claim
    paid_at: datetime | None  # (for the type checker: who waits has paid)
    days: int
    reference: str
    customer_id: int


def _allocate_chunk(*, plan_id: int, now: datetime) -> int:
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                # Compiling these short statements costs up to half the sweep.
                cursor.execute("SET LOCAL jit = off")
        plan = lock_plans([plan_id])[plan_id]
        # Read before the lines: whatever is sealed by now, this sweep sees.
        seen = head_of(plan_id).number
        chunk = min(CHUNK, SQLITE_CHUNK) if connection.vendor == "sqlite" else CHUNK
        devices = list(_free(plan_id).values_list("pk", flat=True)[:chunk])
        if not devices:
            return 0
        due = _due(plan_id, now=now).select_for_update(no_key=True, of=("self",))
        lines = _read(due[: min(len(devices), CHUNK_LINES)])
        gifts = hand_out(devices=devices, claims=[line.claim for line in lines])
        if gifts:
            _record(plan=plan, lines=lines, gifts=gifts, seen=seen, now=now)
        return len(gifts)


def _free(plan_id: int) -> QuerySet[Device]:
    """Devices that can be given, the next one first."""
    return Device.objects.filter(plan_id=plan_id, state=DeviceState.FREE).order_by("pk")


def _due(plan_id: int, *, now: datetime) -> QuerySet[OrderLine]:
    """Lines that may be served at `now`, the next one first."""
    return OrderLine.objects.waiting(plan_id=plan_id).filter(paid_at__lte=now - settings.ALLOCATION_HOLD_BACK)


def _read(lines: QuerySet[OrderLine]) -> list[_Waiting]:
    rows = lines.values_list(
        "pk",
        "quantity",
        "allocated",
        "withdrawn",
        "returned",
        "paid_at",
        "term__days",
        "bonus_days",
        "order__reference",
        "order__customer_id",
    )
    return [
        _Waiting(
            Claim(line_id, quantity - allocated - withdrawn, allocated + withdrawn + returned + 1),
            paid_at,
            days + bonus_days,
            reference,
            customer_id,
        )
        for line_id, quantity, allocated, withdrawn, returned, paid_at, days, bonus_days, reference, customer_id in rows
    ]


def _record(
    *, plan: Plan, lines: Sequence[_Waiting], gifts: Sequence[Gift], seen: int, now: datetime
) -> None:
    """Write one chunk: allocations, devices, lines, the fairness ledger and the notices, a statement each."""
    units = Counter(gift.line_id for gift in gifts)
    served = [line for line in lines if line.claim.line_id in units]
    ends_at = {days: now + timedelta(days=days) for days in {line.days for line in served}}
    days_of = {line.claim.line_id: line.days for line in served}
    began, ends = as_written(now), {days: as_written(moment) for days, moment in ends_at.items()}
    with connection.cursor() as cursor:
        table = given(
            ("line_id", "bigint", [gift.line_id for gift in gifts]),
            ("unit", "integer", [gift.unit for gift in gifts]),
            ("device_id", "bigint", [gift.device_id for gift in gifts]),
            ("ends_at", "timestamptz", [ends[days_of[gift.line_id]] for gift in gifts]),
        )
        write(
            cursor,
            f"INSERT INTO orders_allocation (line_id, unit, device_id, starts_at, ends_at) "  # noqa: S608
            f"SELECT line_id, unit, device_id, %s, ends_at FROM {table.sql} ORDER BY n",
            [began, *table.params],
            rows=len(gifts),
        )
        table = given(("device_id", "bigint", [gift.device_id for gift in gifts]))
        # (Without the range the database would read all devices there are, for every chunk.)
        write(
            cursor,
            f"UPDATE inventory_device SET state = %s FROM {table.sql} "  # noqa: S608
            "WHERE inventory_device.id = given.device_id AND inventory_device.state = %s "
            "AND inventory_device.id BETWEEN %s AND %s",
            [
                DeviceState.ALLOCATED,
                *table.params,
                DeviceState.FREE,
                gifts[0].device_id,
                gifts[-1].device_id,
            ],
            rows=len(gifts),
        )
        table = given(
            ("line_id", "bigint", [line.claim.line_id for line in served]),
            ("units", "integer", [units[line.claim.line_id] for line in served]),
            ("paid_at", "timestamptz", [line.paid_at for line in served]),
        )
        write(
            cursor,
            f"UPDATE orders_orderline SET allocated = allocated + given.units, "  # noqa: S608
            f"state = CASE WHEN allocated + given.units + withdrawn = quantity THEN %s ELSE %s END "
            f"FROM {table.sql} WHERE orders_orderline.id = given.line_id AND orders_orderline.state = %s",
            [LineState.ALLOCATED, LineState.WAITING, *table.params, LineState.WAITING],
            rows=len(served),
        )
        write(
            cursor,
            "INSERT INTO orders_queueevent (plan_id, line_id, kind, units, paid_at, at, behind, seen) "  # noqa: S608
            f"SELECT %s, line_id, %s, units, paid_at, %s, 0, %s FROM {table.sql} ORDER BY n",
            [plan.pk, QueueEventKind.ALLOCATED, began, seen, *table.params],
            rows=len(served),
        )
    # The address of an order is made once: the resolver would take longer than all the rest.
    url, plan_name = reverse("orders:order", args=["REFERENCE"]), str(plan)
    starts, until = now.isoformat(), {days: moment.isoformat() for days, moment in ends_at.items()}
    tell(
        (
            Draft(
                recipient_id=line.customer_id,
                kind=kinds.ALLOCATED,
                about=line.reference,
                url=url.replace("REFERENCE", line.reference),
                facts={
                    "reference": line.reference,
                    "plan": plan_name,
                    "units": units[line.claim.line_id],
                    "remaining": line.claim.units - units[line.claim.line_id],
                    "starts_at": starts,
                    "ends_at": until[line.days],
                },
                dedupe_key=f"allocated:{line.claim.line_id}:{line.claim.next_unit}",
            )
            for line in served
        ),
        now=now,
    )
