"""Refunds of the sale: on a ground the agreement knows (clause 3.3), approved by a second member of staff.

Surplus, duplicate and late captures are no refunds of the sale: they come up as review items.
"""

import logging
from collections.abc import Mapping
from datetime import datetime

from django.db import transaction
from django.db.models import Case, F, Q, Sum, Value, When
from django.utils.translation import gettext as _

from inventory.money import Money
from notices import kinds
from notices.outbox import tell
from orders.models import (
    Ground,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    QueueEventKind,
    Refund,
    RefundLine,
    RefundState,
)
from orders.queue import fairness
from orders.telling import about_refund

logger = logging.getLogger(__name__)


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
    legal_basis: str = "",
    right_id: int | None = None,
) -> Refund:
    """Ask for waiting units to be taken back: `units` maps line ids to numbers of units.

    A refund that the law requires names the rule, `legal_basis`; where it is the statutory right of the order,
    `right_id` names that. Nothing leaves the queue yet. Raises RefundRefused.
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
    wanted = {line_id: count for line_id, count in units.items() if count}
    if not wanted or min(wanted.values()) < 0:
        raise RefundRefused(_("Say how many units are to be refunded."))
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        if order.state != OrderState.PAID:
            raise RefundRefused(_("Order %(order)s is not paid.") % {"order": order})
        if right_id is not None and right_id != order.right_id:
            raise RefundRefused(_("Order %(order)s was not placed under this right.") % {"order": order})
        lines = {line.pk: line for line in _locked_lines(order)}
        amount = Money(0, order.currency)
        for line_id, count in wanted.items():
            line = lines.get(line_id)
            asked = _units_in_open_requests(line_id)
            if line is None or count + asked > line.waiting_units:
                raise RefundRefused(
                    _("Fewer than %(count)d units of this line are waiting and not asked for yet.")
                    % {"count": count}
                )
            amount += Money(line.unit_minor, order.currency) * count
        refund = Refund.objects.create(
            order=order,
            attempt=_attempt_that_holds(order, amount),
            reference=f"{order.reference}-R{order.refunds.count() + 1}",
            ground=ground,
            legal_basis=legal_basis.strip(),
            right_id=right_id,
            explanation=explanation.strip(),
            minor=amount.minor,
            requested_by_id=requested_by_id,
            requested_at=now,
        )
        RefundLine.objects.bulk_create(
            [RefundLine(refund=refund, line_id=line_id, units=count) for line_id, count in wanted.items()]
        )
    return refund


def approve_refund(*, refund_id: int, approved_by_id: int, now: datetime) -> Refund:
    """Approve: the units leave the queue at once, and the money is sent by the next `returns.send_returns`.

    All lines of the order are locked in the sweep's order before they are looked at again, so that a unit is
    either allocated or refunded. Raises RefundRefused: for whoever asked for it, for a refund that is decided,
    and for units that have been allocated since.
    """
    with transaction.atomic(durable=True):
        refund = _undecided(refund_id, decided_by_id=approved_by_id)
        order = Order.objects.select_for_update(no_key=True).get(pk=refund.order_id)
        lines = {line.pk: line for line in _locked_lines(order)}
        for taken in refund.lines.all():
            if taken.units > lines[taken.line_id].waiting_units:
                raise RefundRefused(
                    _("Units of this refund have been allocated since it was asked for. Reject it.")
                )
            line = lines[taken.line_id]
            _withdraw(line.pk, units=taken.units)
            if line.state == LineState.HELD and taken.units == line.waiting_units:
                fairness.record(QueueEventKind.RELEASED, [(line, taken.units)], now=now)
            fairness.record(QueueEventKind.LEFT, [(line, taken.units)], now=now)
        _decide(refund, state=RefundState.APPROVED, decided_by_id=approved_by_id, now=now)
        tell([about_refund(order, refund, kinds.REFUND_APPROVED)], now=now)
    refund.refresh_from_db()
    return refund


def reject_refund(*, refund_id: int, rejected_by_id: int, now: datetime) -> Refund:
    """Reject: nothing changes for the order. Raises RefundRefused."""
    with transaction.atomic(durable=True):
        refund = _undecided(refund_id, decided_by_id=rejected_by_id)
        _decide(refund, state=RefundState.REJECTED, decided_by_id=rejected_by_id, now=now)
    refund.refresh_from_db()
    return refund


def _locked_lines(order: Order) -> list[OrderLine]:
    lines = OrderLine.objects.select_for_update(no_key=True).filter(order=order)
    return list(lines.order_by("paid_at", "pk"))


def _units_in_open_requests(line_id: int) -> int:
    open_requests = RefundLine.objects.filter(line_id=line_id, refund__state=RefundState.REQUESTED)
    return open_requests.aggregate(units=Sum("units"))["units"] or 0


def _attempt_that_holds(order: Order, amount: Money) -> PaymentAttempt:
    """The payment with enough money left in it for `amount`, refunds on their way deducted."""
    on_their_way = (RefundState.REQUESTED, RefundState.APPROVED)
    for attempt in order.attempts.order_by("pk"):
        held = attempt.ledger.filter(currency=order.currency).aggregate(minor=Sum("minor"))["minor"] or 0
        pending = attempt.refunds.filter(state__in=on_their_way).aggregate(minor=Sum("minor"))["minor"] or 0
        if held - pending >= amount.minor:
            return attempt
    raise RefundRefused(
        _("No single payment of this order holds %(amount)s any more.") % {"amount": amount.localised()}
    )


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


def _withdraw(line_id: int, *, units: int) -> None:
    gone = F("allocated") + F("withdrawn") + units
    OrderLine.objects.filter(pk=line_id).update(
        withdrawn=F("withdrawn") + units,
        state=Case(
            When(Q(quantity__gt=gone), then=F("state")),  # waiting or on hold, as it was
            When(allocated=0, then=Value(LineState.WITHDRAWN)),
            default=Value(LineState.ALLOCATED),
        ),
    )
