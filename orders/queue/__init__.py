"""The queue of a plan: its paid lines by (`paid_at`, id), counted in units.

Every answer is exact, and read from the rows at the moment of asking. On PostgreSQL positions come from counted
segments (`segments.py`), so that they cost the same in a queue of a million lines; on SQLite from the plain sum.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any, NamedTuple

from django.db import connection
from django.db.models import Count, Exists, OuterRef, Q, QuerySet, Sum, Window
from django.db.models.query import RawQuerySet

from inventory.models import Device, DeviceState, Plan
from orders.models import Estimate, LineState, Order, OrderLine, OrderState
from orders.models.order import WAITING_UNITS


def units_waiting(*, plan_id: int) -> int:
    """Paid units of the plan that wait for a device."""
    return units_waiting_by_plan([plan_id]).get(plan_id, 0)


def units_ahead(line: OrderLine) -> int:
    """Units that are served before the first waiting unit of `line`. The line must be in the queue."""
    if line.paid_at is None:
        raise ValueError(f"{line} is in no queue.")
    return units_before(Rank(line.paid_at, line.pk), plan_id=line.plan_id)


class Rank(NamedTuple):
    """A place in a queue, whether or not a line waits there any more."""

    paid_at: datetime
    line_id: int

    def and_behind(self) -> Q:
        """Lines at this place and behind it. (The first condition is for the index; the rest means the same.)"""
        return Q(paid_at__gte=self.paid_at) & (Q(paid_at__gt=self.paid_at) | Q(pk__gte=self.line_id))

    def before(self) -> Q:
        return Q(paid_at__lt=self.paid_at) | Q(paid_at=self.paid_at, pk__lt=self.line_id)


def units_before(rank: Rank, *, plan_id: int) -> int:
    """Units of the plan that are served before whoever stands at `rank`."""
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute("SELECT orders_units_before(%s, %s, %s)", [plan_id, rank.paid_at, rank.line_id])
            return int(cursor.fetchone()[0])
    return OrderLine.objects.waiting(plan_id=plan_id).filter(rank.before()).units()


@dataclass(frozen=True, slots=True)
class Cut:
    """The first line that some units do not cover whole, and the units that wait before it."""

    rank: Rank
    before: int


def cuts(reaches: Sequence[int], *, plan_id: int) -> list[Cut]:
    """Where the queue of the plan is cut if it is served so many units, for each of `reaches`, from one look at it.

    Reaches ascend; those that cover the whole queue have no cut, and come last.
    """
    if connection.vendor == "postgresql":
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT line_paid_at, line_id, units_before "
                "FROM unnest(%s::bigint[]) WITH ORDINALITY AS given (reach, n), orders_first_beyond(%s, reach) ORDER BY n",
                [list(reaches), plan_id],
            )
            return [
                Cut(Rank(paid_at, line_id), int(before)) for paid_at, line_id, before in cursor.fetchall()
            ]
    upto = Window(Sum(WAITING_UNITS), order_by=("paid_at", "id"))
    queue = OrderLine.objects.waiting(plan_id=plan_id).annotate(upto=upto, units=WAITING_UNITS)
    found = []
    for reach in reaches:
        for paid_at, line_id, last, units in queue.filter(upto__gt=reach).values_list(
            "paid_at", "pk", "upto", "units"
        )[:1]:
            if paid_at:  # for the type checker
                found.append(Cut(Rank(paid_at, line_id), last - units))
    return found


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
