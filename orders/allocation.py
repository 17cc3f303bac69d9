"""The sweep: devices that are free go to the units that wait, strictly in the order of payment.

Clause 1.1 and 3.3 of the agreement. One transaction per chunk: the plan is locked (one sweep of a plan at a
time; SKIP LOCKED at the head of the queue would let a later payer overtake), then its waiting lines (a refund
in flight is waited for). Whoever changes a *free* device's state must hold the plan's lock too.
"""

import time
from collections.abc import Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import connection, transaction
from django.db.models import Exists, OuterRef

from inventory.models import Device, DeviceState, Plan
from notices import kinds
from notices.outbox import tell
from orders.fifo import Claim, Gift, hand_out
from orders.models import LineState, OrderLine, QueueEventKind
from orders.queue import lock_plans, plans_with_a_queue
from orders.queue.fairness import head_of
from orders.queue.setwise import given, write
from orders.telling import about_order

CHUNK = 2_000
# SQLite has one writer: between chunks the payers get their turn.
SQLITE_PAUSE_SECONDS = 0.02


def allocate_devices(*, plan_id: int, now: datetime) -> int:
    """Hand out every free device of the plan that somebody waits for; return how many.

    Lines captured less than the hold-back before `now` are not served yet: their rank may still change by a
    webhook that is under way. Safe to run at any time, twice, and by several workers; a run that dies leaves
    whole chunks behind, and the next one goes on.
    """
    total = 0
    while units := _allocate_chunk(plan_id=plan_id, now=now):
        total += units
        if connection.vendor == "sqlite":
            time.sleep(SQLITE_PAUSE_SECONDS)
    return total


def plans_to_sweep() -> list[int]:
    """Plans that have both a free device and a waiting line."""
    free = Device.objects.filter(plan=OuterRef("pk"), state=DeviceState.FREE)
    return list(plans_with_a_queue().filter(Exists(free)).values_list("pk", flat=True))


def _allocate_chunk(*, plan_id: int, now: datetime) -> int:
    with transaction.atomic(durable=True):
        with connection.cursor() as cursor:
            if connection.vendor == "postgresql":
                # Compiling these short statements costs up to half the sweep.
                cursor.execute("SET LOCAL jit = off")
        plan = lock_plans([plan_id])[plan_id]
        # Read before the lines: whatever is sealed by now, this sweep sees.
        seen = head_of(plan_id).number
        free = Device.objects.filter(plan=plan, state=DeviceState.FREE).order_by("pk")
        devices = list(free.values_list("pk", flat=True)[:CHUNK])
        if not devices:
            return 0
        lines = list(
            OrderLine.objects.waiting(plan_id=plan_id)
            .filter(paid_at__lte=now - settings.ALLOCATION_HOLD_BACK)
            .select_related("order", "term")
            .select_for_update(no_key=True, of=("self",))[: len(devices)]
        )
        gifts = hand_out(
            devices=devices,
            claims=[
                Claim(line.pk, line.waiting_units, line.allocated + line.withdrawn + 1) for line in lines
            ],
        )
        if gifts:
            _record(plan=plan, lines=lines, gifts=gifts, seen=seen, now=now)
        return len(gifts)


def _record(
    *, plan: Plan, lines: Sequence[OrderLine], gifts: Sequence[Gift], seen: int, now: datetime
) -> None:
    """Write one chunk: allocations, devices, lines, the fairness ledger and the notices, a statement each."""
    ends_at = {line.pk: now + timedelta(days=line.term.days + line.bonus_days) for line in lines}
    units: dict[int, int] = {}
    for gift in gifts:
        units[gift.line_id] = units.get(gift.line_id, 0) + 1
    moment = connection.ops.adapt_datetimefield_value
    with connection.cursor() as cursor:
        table = given(
            ("line_id", "bigint", [gift.line_id for gift in gifts]),
            ("unit", "integer", [gift.unit for gift in gifts]),
            ("device_id", "bigint", [gift.device_id for gift in gifts]),
            ("ends_at", "timestamptz", [moment(ends_at[gift.line_id]) for gift in gifts]),
        )
        write(
            cursor,
            f"INSERT INTO orders_allocation (line_id, unit, device_id, starts_at, ends_at) "  # noqa: S608
            f"SELECT line_id, unit, device_id, %s, ends_at FROM {table.sql}",
            [moment(now), *table.params],
            rows=len(gifts),
        )
        table = given(("device_id", "bigint", [gift.device_id for gift in gifts]))
        write(
            cursor,
            f"UPDATE inventory_device SET state = %s FROM {table.sql} "  # noqa: S608
            f"WHERE inventory_device.id = given.device_id AND inventory_device.state = %s",
            [DeviceState.ALLOCATED, *table.params, DeviceState.FREE],
            rows=len(gifts),
        )
        table = given(
            ("line_id", "bigint", list(units)),
            ("units", "integer", list(units.values())),
        )
        write(
            cursor,
            f"UPDATE orders_orderline SET allocated = allocated + given.units, "  # noqa: S608
            f"state = CASE WHEN allocated + given.units + withdrawn = quantity THEN %s ELSE %s END "
            f"FROM {table.sql} WHERE orders_orderline.id = given.line_id AND orders_orderline.state = %s",
            [LineState.ALLOCATED, LineState.WAITING, *table.params, LineState.WAITING],
            rows=len(units),
        )
        # In the order in which they were served, which is the order of their ids.
        served = [line for line in lines if line.pk in units]
        table = given(
            ("line_id", "bigint", [line.pk for line in served]),
            ("units", "integer", [units[line.pk] for line in served]),
            ("paid_at", "timestamptz", [moment(line.paid_at) for line in served]),
        )
        write(
            cursor,
            "INSERT INTO orders_queueevent (plan_id, line_id, kind, units, paid_at, at, behind, seen) "  # noqa: S608
            f"SELECT %s, line_id, %s, units, paid_at, %s, 0, %s FROM {table.sql}",
            [plan.pk, QueueEventKind.ALLOCATED, moment(now), seen, *table.params],
            rows=len(served),
        )
    tell(
        (
            about_order(
                line.order,
                kinds.ALLOCATED,
                {
                    "plan": str(plan),
                    "units": units[line.pk],
                    "remaining": line.waiting_units - units[line.pk],
                    "starts_at": now.isoformat(),
                    "ends_at": ends_at[line.pk].isoformat(),
                },
                key=f"allocated:{line.pk}:{line.allocated}",
            )
            for line in served
        ),
        now=now,
    )
