"""Refunds of the sale: on a ground the agreement knows (clause 3.3), approved by a second member of staff.

A unit that waits leaves the queue. A unit that has its phone gives it back: the allocation ends, and the device goes
into quarantine. What was allocated stays on record.

Surplus, duplicate and late captures are no refunds of the sale: they come up as review items.
"""

from collections.abc import Callable, Collection, Mapping
from datetime import datetime

from django.db import transaction
from django.db.models import Case, Exists, F, OuterRef, Q, Sum, Value, When
from django.utils.translation import gettext as _

from inventory.money import Money
from inventory.quarantine import quarantine_devices
from notices import kinds
from notices.outbox import tell
from orders.ledger import has_come_back
from orders.models import (
    Allocation,
    Ground,
    LedgerEntry,
    LineState,
    Matter,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    QueueEventKind,
    Refund,
    RefundLine,
    RefundState,
    ReturnState,
    ReviewItem,
    ReviewKind,
)
from orders.queue import fairness, lock_lines
from orders.returns import left_in, resolve_failure, sendable_from
from orders.reviews import settle
from orders.telling import about_refund


class RefundRefused(Exception):
    """The refund cannot be requested or decided as asked; the message tells staff why."""


def request_refund(
    *,
    order_id: int,
    ground: Ground,
    explanation: str,
    units: Mapping[int, int],
    requested_by_id: int,
    now: datetime,
    phones: Collection[int] = (),
    legal_basis: str = "",
    right_id: int | None = None,
    entry_id: int | None = None,
    case_id: int | None = None,
) -> Refund:
    """Ask for units to be taken back: `units` maps line ids to numbers of waiting units, `phones` are ids of
    allocations, each the phone of one unit more.

    A refund that the law requires names the rule, `legal_basis`; where it is the statutory right of the order,
    `right_id` names that. With `entry_id` the money has gone back already, at the gateway's own desk, and none is
    sent. `case_id` is where the customer withdrew or asked for it. Nothing leaves the queue yet, and no phone goes. Raises RefundRefused.
    """
    if not explanation.strip():
        raise RefundRefused(
            _("Explain the refund: why the law requires it, or why the platform cannot supply.")
        )
    if ground == Ground.LAW and not legal_basis.strip():
        raise RefundRefused(_("Name the rule of the law that requires this refund."))
    if ground != Ground.LAW and (legal_basis.strip() or right_id):
        raise RefundRefused(
            _("A rule of the law belongs to a refund that the law requires, and to no other.")
        )
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        if right_id is not None and right_id != order.right_id:
            raise RefundRefused(_("Order %(order)s was not placed under this right.") % {"order": order})
        if case_id is not None and not _asked_for_in(case_id, order):
            raise RefundRefused(_("In this case no refund of the order was asked for."))
        refund = Refund(
            case_id=case_id,
            ground=ground,
            legal_basis=legal_basis.strip(),
            right_id=right_id,
            explanation=explanation.strip(),
            requested_by_id=requested_by_id,
            requested_at=now,
            entry=None if entry_id is None else _unclaimed(entry_id, order),
        )
        _request(refund, order, units=units, phones=phones)
    return refund


def approve_refund(*, refund_id: int, approved_by_id: int, now: datetime) -> Refund:
    """Approve: the units leave the queue and the phones go into quarantine at once. The money is sent by the next
    `returns.send_returns`, unless the gateway's own desk has.

    All lines of the order are locked in the sweep's order before they are looked at again, so that a unit is
    either allocated or refunded. Raises RefundRefused: for whoever asked for it, for a refund that is decided,
    and for money that has left, units that have been allocated, or phones that have gone, since.
    """
    with transaction.atomic(durable=True):
        refund = _undecided(refund_id, decided_by_id=approved_by_id)
        order = Order.objects.select_for_update(no_key=True).get(pk=refund.order_id)
        _approve(refund, order, approved_by_id=approved_by_id, now=now)
    refund.refresh_from_db()
    return refund


def refund_shortfall(
    order: Order,
    *,
    units: Mapping[int, int],
    reason: str,
    requested_by_id: int,
    approved_by_id: int,
    now: datetime,
) -> Refund:
    """Refund waiting units that cannot be supplied, as two people have decided for many orders at once.

    Runs in the transaction of `orders.shortfalls`, which holds the order's lock. Raises RefundRefused, and has
    changed nothing.
    """
    with transaction.atomic():
        refund = Refund(
            ground=Ground.UNABLE_TO_SUPPLY,
            explanation=reason,
            requested_by_id=requested_by_id,
            requested_at=now,
        )
        _request(refund, order, units=units, phones=())
        _approve(refund, order, approved_by_id=approved_by_id, now=now)
    return refund


def settle_failed_refund(*, refund_id: int, entry_id: int, settled_by_id: int, now: datetime) -> Refund:
    """Note that a refund which the gateway refused was made at its own desk instead. No money moves.

    The items that reported the desk's refund and the failure are resolved by it. Raises RefundRefused.
    """
    with transaction.atomic(durable=True):
        refund = Refund.objects.get(pk=refund_id)
        order = Order.objects.select_for_update(no_key=True).get(pk=refund.order_id)
        entry = _unclaimed(entry_id, order)
        failed = Refund.objects.filter(pk=refund_id, state=RefundState.FAILED, entry=None)
        if -entry.minor != refund.minor or not failed.update(
            state=RefundState.PAID, entry=entry, paid_at=entry.occurred_at, problem=""
        ):
            raise RefundRefused(
                _("%(entry)s is not the money of refund %(refund)s, or that was paid.")
                % {"entry": entry.transaction_id, "refund": refund}
            )
        tell([about_refund(order, refund, kinds.REFUND_PAID, entry=entry)], now=now)
        _resolve_external(entry, refund, by_id=settled_by_id, now=now)
        said = f"It was made at the gateway's own desk, {entry.transaction_id}."
        resolve_failure(refund, said, resolved_by_id=settled_by_id, now=now)
    refund.refresh_from_db()
    return refund


def reject_refund(*, refund_id: int, rejected_by_id: int, now: datetime) -> Refund:
    """Reject: nothing changes for the order. Raises RefundRefused."""
    with transaction.atomic(durable=True):
        refund = _undecided(refund_id, decided_by_id=rejected_by_id)
        _decide(refund, state=RefundState.REJECTED, decided_by_id=rejected_by_id, now=now)
    refund.refresh_from_db()
    return refund


def _request(refund: Refund, order: Order, *, units: Mapping[int, int], phones: Collection[int]) -> None:
    """Store a refund of what is there to be refunded. The order must be locked."""
    wanted = {line_id: count for line_id, count in units.items() if count}
    if min(wanted.values(), default=1) < 0 or not (wanted or phones):
        raise RefundRefused(_("Say how many units are to be refunded."))
    if order.state != OrderState.PAID:
        raise RefundRefused(_("Order %(order)s is not paid.") % {"order": order})
    lines = {line.pk: line for line in lock_lines(order)}
    amount = Money(0, order.currency)
    for line_id, count in wanted.items():
        line = lines.get(line_id)
        if line is None or count + _units_in_open_requests(line_id) > line.waiting_units:
            raise RefundRefused(
                _("Fewer than %(count)d units of this line are waiting and not asked for yet.")
                % {"count": count}
            )
        amount += Money(line.unit_minor, order.currency) * count
    given = _phones_to_refund(order, phones)
    for phone in given:
        amount += Money(lines[phone.line_id].unit_minor, order.currency)
    if refund.entry:
        gone = Money(-refund.entry.minor, refund.entry.currency)
        if gone.currency != amount.currency or gone < amount:
            raise RefundRefused(
                _("%(gone)s have gone back, and these units cost %(amount)s.")
                % {"gone": gone.localised(), "amount": amount.localised()}
            )
        amount = gone
    refund.order = order
    refund.attempt = refund.entry.attempt if refund.entry else _attempt_that_holds(order, amount)
    refund.reference = f"{order.reference}-R{order.refunds.count() + 1}"
    refund.minor = amount.minor
    refund.save(force_insert=True)
    RefundLine.objects.bulk_create(
        [
            *(RefundLine(refund=refund, line_id=line_id, units=count) for line_id, count in wanted.items()),
            *(RefundLine(refund=refund, line_id=phone.line_id, allocation=phone, units=1) for phone in given),
        ]
    )


def _approve(refund: Refund, order: Order, *, approved_by_id: int, now: datetime) -> None:
    """Take the units back. Locks the lines, then the devices; refund and order must be locked."""
    _check_money(refund, order)
    lines = {line.pk: line for line in lock_lines(order)}
    taken = list(refund.lines.select_related("allocation"))
    for each in taken:
        if each.allocation is None and each.units > lines[each.line_id].waiting_units:
            raise RefundRefused(
                _("Units of this refund have been allocated since it was asked for. Reject it.")
            )
    phones = [each.allocation for each in taken if each.allocation]
    _take_phones_back(phones, reason=f"Refund {refund.reference}", now=now)
    for line_id in sorted({each.line_id for each in taken}):
        line = lines[line_id]
        waiting = sum(each.units for each in taken if each.line_id == line_id and not each.allocation_id)
        ended = sum(phone.line_id == line_id for phone in phones)
        _withdraw(line_id, waiting=waiting, ended=ended)
        if line.state == LineState.HELD and waiting == line.waiting_units:
            fairness.record(QueueEventKind.RELEASED, [(line, waiting)], now=now)
        if waiting:
            fairness.record(QueueEventKind.LEFT, [(line, waiting)], now=now)
        if ended:
            fairness.record(QueueEventKind.REFUNDED, [(line, ended)], now=now)
    _decide(
        refund,
        state=RefundState.PAID if refund.entry else RefundState.APPROVED,
        decided_by_id=approved_by_id,
        now=now,
    )
    if refund.entry:
        Refund.objects.filter(pk=refund.pk).update(paid_at=refund.entry.occurred_at)
        _resolve_external(refund.entry, refund, by_id=approved_by_id, now=now)
    tell([about_refund(order, refund, kinds.REFUND_APPROVED, phones=len(phones))], now=now)


def _units_in_open_requests(line_id: int) -> int:
    open_requests = RefundLine.objects.filter(
        line_id=line_id, allocation=None, refund__state=RefundState.REQUESTED
    )
    return open_requests.aggregate(units=Sum("units"))["units"] or 0


def _phones_to_refund(order: Order, phones: Collection[int]) -> list[Allocation]:
    """Those phones of the order, all of which are in use and in no other request."""
    asked = RefundLine.objects.filter(allocation=OuterRef("pk"), refund__state=RefundState.REQUESTED)
    in_use = Allocation.objects.filter(line__order=order, ended_at=None).exclude(Exists(asked))
    given = list(in_use.filter(pk__in=set(phones)).order_by("pk"))
    if len(given) != len(set(phones)):
        raise RefundRefused(_("A phone is not in use any more, or its refund is asked for already."))
    return given


def _take_phones_back(phones: Collection[Allocation], *, reason: str, now: datetime) -> None:
    """End allocations; their devices go to nobody before staff have looked at them."""
    live = Allocation.objects.filter(pk__in=[phone.pk for phone in phones], ended_at=None)
    if live.update(ended_at=now) != len(phones):
        raise RefundRefused(_("A phone of this refund is not in use any more. Reject it."))
    quarantine_devices([phone.device_id for phone in phones], reason=reason, now=now)


def _asked_for_in(case_id: int, order: Order) -> bool:
    return order.cases.filter(pk=case_id, matter__in=(Matter.WITHDRAWAL, Matter.REFUND)).exists()


def _unclaimed(entry_id: int, order: Order) -> LedgerEntry:
    """A refund of the order at the gateway's own desk that nobody has said yet what it was for."""
    items = ReviewItem.objects.filter(
        kind=ReviewKind.EXTERNAL_REFUND, entry_id=entry_id, order=order, resolved_at=None
    )
    taken = Refund.objects.filter(entry_id=entry_id).exclude(state=RefundState.REJECTED)
    if not items.exists() or taken.exists():
        raise RefundRefused(_("Somebody has said already what this money was given back for."))
    entry: LedgerEntry = LedgerEntry.objects.select_related("attempt").get(pk=entry_id)
    _check_it_stayed_away(entry)
    return entry


def _check_money(refund: Refund, order: Order) -> None:
    """What was there when the refund was asked for may have left otherwise since, or come back."""
    if refund.entry:
        _check_it_stayed_away(refund.entry)
        return
    amount = Money(refund.minor, order.currency)
    left = max(sendable_from(refund.attempt, currency=order.currency), _together(order, sendable_from))
    if left < amount:
        raise RefundRefused(
            _("The payment does not hold %(amount)s any more: they were taken back, or have gone. Reject it.")
            % {"amount": amount.localised()}
        )


def _check_it_stayed_away(entry: LedgerEntry) -> None:
    if has_come_back(entry):
        raise RefundRefused(_("The buyer's bank did not take this money: it has come back."))


def _resolve_external(entry: LedgerEntry, refund: Refund, *, by_id: int, now: datetime) -> None:
    items = ReviewItem.objects.filter(kind=ReviewKind.EXTERNAL_REFUND, entry=entry)
    settle(items, f"It was for refund {refund.reference}.", resolved_by_id=by_id, now=now)


def _attempt_that_holds(order: Order, amount: Money) -> PaymentAttempt:
    """The payment with enough money left in it for `amount`, what is on its way back deducted.

    Where only several together have it, since the first was short, the one that has most: its gateway will not be
    asked for what another has, and staff pay by hand.
    """
    attempts = list(order.attempts.order_by("pk"))
    for attempt in attempts:
        if left_in(attempt, currency=order.currency) >= amount:
            return attempt
    if _together(order, left_in) >= amount:
        return max(attempts, key=lambda attempt: left_in(attempt, currency=order.currency).minor)
    raise RefundRefused(
        _("No single payment of this order holds %(amount)s any more.") % {"amount": amount.localised()}
    )


def _together(order: Order, left: Callable[..., Money]) -> Money:
    """What all payments of an order have left, without what is owed back and was refused."""
    there = sum(left(attempt, currency=order.currency).minor for attempt in order.attempts.all())
    refused = order.money_returns.filter(currency=order.currency, state=ReturnState.FAILED)
    return Money(there - sum(back.minor for back in refused), order.currency)


def _undecided(refund_id: int, *, decided_by_id: int) -> Refund:
    refund = Refund.objects.select_for_update(no_key=True).get(pk=refund_id)
    if refund.state != RefundState.REQUESTED:
        raise RefundRefused(
            _("Refund %(refund)s is decided already: %(state)s.")
            % {"refund": refund, "state": refund.get_state_display()}
        )
    if refund.requested_by_id == decided_by_id:
        raise RefundRefused(_("A second member of staff has to decide on a refund you asked for."))
    return refund


def _decide(refund: Refund, *, state: RefundState, decided_by_id: int, now: datetime) -> None:
    Refund.objects.filter(pk=refund.pk).update(state=state, decided_by_id=decided_by_id, decided_at=now)


def _withdraw(line_id: int, *, waiting: int, ended: int) -> None:
    """Count units out of a line: so many that wait, and so many whose phone has gone."""
    gone = F("allocated") + F("withdrawn") + waiting
    OrderLine.objects.filter(pk=line_id).update(
        allocated=F("allocated") - ended,
        withdrawn=F("withdrawn") + waiting + ended,
        state=Case(
            When(Q(quantity__gt=gone), then=F("state")),  # waiting or on hold, as it was
            When(allocated=ended, then=Value(LineState.WITHDRAWN)),
            default=Value(LineState.ALLOCATED),
        ),
    )
