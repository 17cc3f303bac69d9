"""The queue of a plan: its paid lines by (`paid_at`, id), counted in units.

Every answer is exact, and read from the rows at the moment of asking. On PostgreSQL positions come from counted
segments (`segments.py`), so that they cost the same in a queue of a million lines; on SQLite from the plain sum.
"""

import json
from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.query import RawQuerySet

from inventory.models import Device, DeviceState, Plan
from orders.models import Estimate, LineState, Order, OrderLine, OrderState
from orders.models.order import WAITING_UNITS


def units_waiting(*, plan_id: int) -> int:
    """Paid units of the plan that wait for a device."""
    return units_waiting_by_plan([plan_id]).get(plan_id, 0)


def units_ahead(line: OrderLine) -> int:
    """Units that are served before the first waiting unit of `line`. The line must be in the queue."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT orders_units_before(%s, %s, %s)", [line.plan_id, line.paid_at, line.pk])
            return int(cursor.fetchone()[0])
    ahead = Q(paid_at__lt=line.paid_at) | Q(paid_at=line.paid_at, id__lt=line.pk)
    return OrderLine.objects.waiting(plan_id=line.plan_id).filter(ahead).units()


@dataclass(frozen=True, slots=True)
class Place:
    """Where a line stands: units served before it, and units served after it."""

    ahead: int
    behind: int


def place_of(line: OrderLine) -> Place:
    """Both sides of `line`, from one look at the queue. The line must be in it."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT orders_units_before(%s, %s, %s), orders_units_waiting(%s)",
                [line.plan_id, line.paid_at, line.pk, line.plan_id],
            )
            ahead, waiting = cursor.fetchone()
    else:
        ahead, waiting = units_ahead(line), units_waiting(plan_id=line.plan_id)
    return Place(ahead, waiting - ahead - line.waiting_units)


@dataclass(frozen=True, slots=True)
class Standing:
    """What a customer wants to know of a line that waits: units ahead of it, and what he was promised last."""

    ahead: int
    estimate: Estimate | None


_ESTIMATE = ", ".join(
    f"(estimate).{field.column} AS {field.column}" for field in Estimate._meta.concrete_fields
)
_STANDINGS = f"SELECT waiting_line, ahead, {_ESTIMATE} FROM orders_standings(%s::bigint[])"  # noqa: S608
_STANDINGS_BY_PLAIN_SUM = """
    SELECT line.id AS waiting_line, estimate.*, (
        SELECT coalesce(sum(quantity - allocated - withdrawn), 0) FROM orders_orderline AS other
        WHERE other.plan_id = line.plan_id AND other.state = 'waiting'
          AND (other.paid_at, other.id) < (line.paid_at, line.id)
    ) AS ahead
    FROM orders_orderline AS line LEFT JOIN orders_estimate AS estimate ON estimate.id = (
        SELECT id FROM orders_estimate WHERE line_id = line.id ORDER BY number DESC LIMIT 1
    )
    WHERE line.state = 'waiting' AND line.id IN (SELECT value FROM json_each(%s))
"""


def standings(line_ids: Iterable[int]) -> dict[int, Standing]:
    """Place and estimate in force of each line, by line id, of one moment; who does not wait is missing.

    One statement, which is all that a page, the admin and the bench ask about places that are shown.
    """
    wanted = list(line_ids)
    rows: RawQuerySet[Any] = (
        Estimate.objects.raw(_STANDINGS, [wanted])
        if connection.vendor == "postgresql"
        else Estimate.objects.raw(_STANDINGS_BY_PLAIN_SUM, [json.dumps(wanted)])
    )
    return {row.waiting_line: Standing(row.ahead, row if row.pk else None) for row in rows}


def units_waiting_by_plan(plan_ids: Iterable[int]) -> dict[int, int]:
    """`units_waiting` for several plans in one query; a plan with no queue is missing."""
    wanted = list(plan_ids)
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT plan, orders_units_waiting(plan) FROM unnest(%s::bigint[]) AS plan", [wanted]
            )
            return {plan_id: int(units) for plan_id, units in cursor.fetchall() if units}
    waiting = OrderLine.objects.filter(plan_id__in=wanted, state=LineState.WAITING)
    return dict(waiting.values_list("plan_id").annotate(units=Sum(WAITING_UNITS)))


def units_held_by_plan(plan_ids: Iterable[int]) -> dict[int, int]:
    """Units kept for orders that may still be paid, or are on hold, by plan; a plan with none is missing."""
    kept = Q(state=LineState.UNPAID, order__state__in=OrderState.open()) | Q(state=LineState.HELD)
    held = OrderLine.objects.filter(kept, plan_id__in=list(plan_ids))
    return dict(held.values_list("plan_id").annotate(units=Sum(WAITING_UNITS)))


def units_of_customer(customer_id: int, plan_ids: Iterable[int]) -> dict[int, int]:
    """Units a customer has on order, paid or not, and not allocated yet, by plan; a plan with none is missing."""
    on_order = Q(state=LineState.UNPAID, order__state__in=OrderState.open()) | Q(
        state__in=(LineState.WAITING, LineState.HELD)
    )
    lines = OrderLine.objects.filter(on_order, order__customer_id=customer_id, plan_id__in=list(plan_ids))
    return dict(lines.order_by().values_list("plan_id").annotate(units=Sum(WAITING_UNITS)))


def free_devices_by_plan(plan_ids: Iterable[int]) -> dict[int, int]:
    """Devices in stock, by plan; a plan with none is missing."""
    free = Device.objects.filter(plan_id__in=list(plan_ids), state=DeviceState.FREE)
    return dict(free.values_list("plan_id").annotate(devices=Count("pk")))


def plans_with_a_queue() -> QuerySet[Plan]:
    """Plans with a waiting line, found by one look into the index per plan however long the queues are."""
    waiting = OrderLine.objects.filter(plan=OuterRef("pk"), state=LineState.WAITING)
    return Plan.objects.filter(Exists(waiting)).order_by("pk")


def lock_lines(order: Order) -> list[OrderLine]:
    """Lock all lines of an order, in the order in which a sweep locks them, and read them as they are then."""
    lines = OrderLine.objects.select_for_update(no_key=True).filter(order=order)
    return list(lines.order_by("paid_at", "pk"))


def lock_plans(plan_ids: Iterable[int]) -> dict[int, Plan]:
    """Lock plans in id order, for whoever sells their units or hands out their devices.

    NO KEY, so that payments (whose rows point at the plan) go on meanwhile. Call inside a transaction.
    """
    plans = Plan.objects.select_for_update(no_key=True).filter(pk__in=set(plan_ids)).order_by("pk")
    return {plan.pk: plan for plan in plans}
