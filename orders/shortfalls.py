"""Unable to supply (clause 3.3): units that wait for what will not come are refunded, many orders at once.

One member of staff declares it for a plan, or for a batch, and sees which units that concerns; another approves. A job
then refunds order by order, each in a transaction of its own. What is left to do is in the rows: a run that dies
leaves whole orders behind, and the next one goes on.
"""

import logging
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime

from django.db import transaction
from django.db.models import Count, Exists, F, OuterRef, QuerySet, Sum
from django.utils.text import capfirst
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from inventory.models import Plan, SupplyBatch
from inventory.money import Money
from inventory.supply import announced_by_plan, give_up_batch
from orders.models import (
    Order,
    OrderLine,
    Refund,
    RefundState,
    Shortfall,
    ShortfallLine,
    ShortfallLineState,
    ShortfallState,
)
from orders.queue import free_devices_by_plan, lock_lines, lock_plans, units_waiting
from orders.refunds import RefundRefused, refund_shortfall
from orders.returns import CannotReturn, try_again

logger = logging.getLogger(__name__)

# Lines that one run looks at: at some milliseconds for each order, it is over before the next is due.
CHUNK = 500
LINES_AT_ONCE = 5_000


class ShortfallRefused(Exception):
    """The shortfall cannot be declared or decided as asked; the message tells staff why."""


@dataclass(frozen=True, slots=True)
class Affected:
    """Units of one waiting line that are not supplied. `line` has its order and the order's customer loaded."""

    line: OrderLine
    units: int

    @property
    def money(self) -> Money:
        return self.line.unit_fee * self.units


def affected_by(*, plan_id: int, batch_id: int | None = None) -> list[Affected]:
    """What waits in vain: all units of the plan's queue, or, without the batch, the last ones that nothing covers.

    Free devices and the other announced batches serve the queue from its head. In the order of the queue.
    """
    waiting = OrderLine.objects.waiting(plan_id=plan_id).select_related("order__customer")
    if batch_id is None:
        return [Affected(line, line.waiting_units) for line in waiting]
    batch = SupplyBatch.objects.get(pk=batch_id)
    missing = batch.quantity - batch.received_units
    covered = free_devices_by_plan([plan_id]).get(plan_id, 0) + announced_by_plan([plan_id]).get(plan_id, 0)
    covered -= batch.outstanding
    return list(_last_units(plan_id, units=min(missing, max(0, units_waiting(plan_id=plan_id) - covered))))[
        ::-1
    ]


def sums_of(affected: list[Affected]) -> list[Money]:
    """What they were paid with, one sum per currency."""
    sums: dict[str, Money] = {}
    for each in affected:
        currency = each.money.currency
        sums[currency] = sums.get(currency, Money(0, currency)) + each.money
    return [sums[currency] for currency in sorted(sums)]


@dataclass(frozen=True, slots=True)
class Progress:
    """How far the refunds of a shortfall are: in words, by label, and in how many orders something `failed`."""

    rows: tuple[tuple[str, str], ...]
    failed: int


def progress_of(shortfall: Shortfall) -> Progress:
    """Counted from the rows, in three queries; what there is none of is left out."""
    listed = ShortfallLine.objects.filter(shortfall=shortfall).order_by()
    by_state = {
        row["state"]: row
        for row in listed.values("state").annotate(
            orders=Count("line__order", distinct=True), units_listed=Sum("units")
        )
    }
    paid = listed.values("line__order__currency").annotate(minor=Sum(F("units") * F("line__unit_minor")))
    sums = [
        Money(row["minor"], row["line__order__currency"]) for row in paid.order_by("line__order__currency")
    ]
    made = Refund.objects.filter(shortfall_lines__shortfall=shortfall).order_by()
    refunds = dict(made.values_list("state").annotate(n=Count("pk", distinct=True)))
    rows = [(_("All"), " + ".join(money.localised() for money in sums) or "–")]
    for state in ShortfallLineState:
        if found := by_state.get(state):
            orders, units = found["orders"], found["units_listed"]
            words = (
                ngettext("%(n)d order", "%(n)d orders", orders) % {"n": orders},
                ngettext("%(n)d unit", "%(n)d units", units) % {"n": units},
            )
            rows.append((str(capfirst(state.label)), ", ".join(words)))
    rows += [
        (str(_("Refunds, %(state)s") % {"state": state.label}), str(refunds[state]))
        for state in RefundState
        if state in refunds
    ]
    failed = by_state.get(ShortfallLineState.FAILED, {"orders": 0})["orders"]
    return Progress(tuple(rows), failed + refunds.get(RefundState.FAILED, 0))


def declare_shortfall(
    *, plan_id: int, reason: str, declared_by_id: int, now: datetime, batch_id: int | None = None
) -> Shortfall:
    """Declare that a plan, or a batch of it, will not be supplied, and write down which units are to be refunded.

    At once the plan is no longer on sale, or the batch no longer expected; nothing is refunded before a second person
    approves. Raises ShortfallRefused, for one, while another shortfall of the plan is not worked off: its units would
    be counted twice.
    """
    if not reason.strip():
        raise ShortfallRefused(_("Say why this will not be supplied. The customers' refunds rest on it."))
    with transaction.atomic(durable=True):
        # Before the plan, as everybody does who changes a batch.
        batch = None if batch_id is None else give_up_batch(batch_id)
        if batch and batch.plan_id != plan_id:
            raise ValueError(f"{batch} is no batch of plan {plan_id}.")
        plan = lock_plans([plan_id])[plan_id]
        if _unfinished().filter(plan=plan).exists():
            raise ShortfallRefused(
                _("Another shortfall of this plan is not worked off yet. Decide on it, or wait for it.")
            )
        if batch is None:
            Plan.objects.filter(pk=plan_id).update(on_sale=False)
        elif batch.quantity <= batch.received_units:
            raise ShortfallRefused(_("All of batch %(batch)s has come.") % {"batch": batch})
        affected = affected_by(plan_id=plan_id, batch_id=batch_id)
        shortfall: Shortfall = Shortfall.objects.create(
            plan=plan, batch=batch, reason=reason.strip(), declared_by_id=declared_by_id, declared_at=now
        )
        ShortfallLine.objects.bulk_create(
            [ShortfallLine(shortfall=shortfall, line=each.line, units=each.units) for each in affected],
            batch_size=LINES_AT_ONCE,
        )
    return shortfall


def approve_shortfall(*, shortfall_id: int, approved_by_id: int, now: datetime) -> Shortfall:
    """Approve: `work_off_shortfalls` begins to refund. Raises ShortfallRefused for whoever declared it."""
    return _decide(shortfall_id, ShortfallState.APPROVED, decided_by_id=approved_by_id, now=now)


def reject_shortfall(*, shortfall_id: int, rejected_by_id: int, now: datetime) -> Shortfall:
    """Reject: nothing is refunded. The plan stays off sale, and the batch cancelled. Raises ShortfallRefused."""
    return _decide(shortfall_id, ShortfallState.REJECTED, decided_by_id=rejected_by_id, now=now)


def work_off_shortfalls(*, now: datetime) -> int:
    """Refund some of what approved shortfalls list; return how many orders were looked at, 0 when none is left.

    Safe to run by several workers. What goes wrong with one order is raised when the others are refunded.
    """
    pending = ShortfallLine.objects.filter(
        state=ShortfallLineState.PENDING, shortfall__state=ShortfallState.APPROVED
    )
    due = pending.order_by("shortfall_id", "pk").values_list("shortfall_id", "line__order_id")[:CHUNK]
    orders = list(dict.fromkeys(due))
    faults: list[Exception] = []
    for shortfall_id, order_id in orders:
        try:
            _refund_order(shortfall_id, order_id, now=now)
        except Exception as fault:  # noqa: BLE001 (raised below, with the others)
            fault.add_note(f"Shortfall {shortfall_id}, order {order_id}")
            faults.append(fault)
    if faults:
        raise ExceptionGroup("Orders that could not be refunded", faults)
    return len(orders)


def retry_shortfall(*, shortfall_id: int) -> int:
    """Have what failed tried again, and sent again what the gateways refused; return of how many orders.

    A refund that cannot be sent again stays as it is, for its own page.
    """
    failed = ShortfallLine.objects.filter(shortfall_id=shortfall_id, state=ShortfallLineState.FAILED)
    orders = set(failed.values_list("line__order_id", flat=True))
    failed.update(state=ShortfallLineState.PENDING, problem="")
    refused = Refund.objects.filter(shortfall_lines__shortfall_id=shortfall_id, state=RefundState.FAILED)
    for refund in refused.distinct().order_by("pk"):
        try:
            try_again(refund)
        except CannotReturn as no:
            logger.info("Refund %s is not sent again: %s", refund, no)
        else:
            orders.add(refund.order_id)
    return len(orders)


def _last_units(plan_id: int, *, units: int) -> Iterator[Affected]:
    """So many units from the end of the queue, the last first."""
    queue = OrderLine.objects.waiting(plan_id=plan_id).select_related("order__customer")
    for line in queue.order_by("-paid_at", "-id").iterator(LINES_AT_ONCE):
        if not units:
            return
        taken = min(units, line.waiting_units)
        units -= taken
        yield Affected(line, taken)


def _unfinished() -> "QuerySet[Shortfall]":
    to_do = ShortfallLine.objects.filter(shortfall=OuterRef("pk"), state=ShortfallLineState.PENDING)
    return Shortfall.objects.exclude(state=ShortfallState.REJECTED).filter(Exists(to_do))


def _decide(shortfall_id: int, state: ShortfallState, *, decided_by_id: int, now: datetime) -> Shortfall:
    with transaction.atomic(durable=True):
        shortfall = Shortfall.objects.select_for_update(no_key=True).get(pk=shortfall_id)
        if shortfall.state != ShortfallState.DECLARED:
            raise ShortfallRefused(_("Somebody has decided on this shortfall already."))
        if shortfall.declared_by_id == decided_by_id:
            raise ShortfallRefused(
                _("A second member of staff has to decide on a shortfall that you declared.")
            )
        Shortfall.objects.filter(pk=shortfall_id).update(
            state=state, decided_by_id=decided_by_id, decided_at=now
        )
        shortfall.refresh_from_db()
    return shortfall


def _refund_order(shortfall_id: int, order_id: int, *, now: datetime) -> None:
    """One refund of all lines of an order that a shortfall lists; so its customer is told once."""
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        shortfall = Shortfall.objects.get(pk=shortfall_id)
        assert shortfall.decided_by_id is not None  # noqa: S101 (a constraint: it is approved)
        listed = ShortfallLine.objects.filter(
            shortfall=shortfall, line__order=order, state=ShortfallLineState.PENDING
        )
        # Locked here as the sweep locks them: nothing is served between the look and the refund.
        waiting = {line.pk: line.waiting_units for line in lock_lines(order)}
        units = {
            each.line_id: min(each.units, waiting[each.line_id]) for each in listed if waiting[each.line_id]
        }
        listed.exclude(line__in=units).update(state=ShortfallLineState.SERVED)
        if not units:
            return
        try:
            refund = refund_shortfall(
                order,
                units=units,
                reason=shortfall.reason,
                requested_by_id=shortfall.declared_by_id,
                approved_by_id=shortfall.decided_by_id,
                now=now,
            )
        except RefundRefused as no:
            listed.update(state=ShortfallLineState.FAILED, problem=str(no)[:300])
        else:
            listed.update(state=ShortfallLineState.REFUNDED, refund=refund)
