"""Sending money back: what a refund takes back, and what was paid for nothing.

A return stays due until a snapshot of its payment shows the money gone (`orders.ledger`), so it is asked for
again by the same key, which the gateway answers with the return that is there. No gateway is called inside a
transaction.
"""

import logging
from collections.abc import Iterator
from datetime import datetime

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _

from inventory.money import Money
from notices.outbox import tell
from orders.gateways import gateway_named
from orders.gateways.protocol import Declined, Return, Unavailable
from orders.models import (
    MoneyReturn,
    Order,
    PaymentAttempt,
    Refund,
    RefundState,
    ReturnReason,
    ReturnState,
    ReviewKind,
)
from orders.reviews import open_review_item
from orders.telling import about_return

logger = logging.getLogger(__name__)


class CannotReturn(Exception):
    """The money cannot be given back as asked; the message tells staff why."""


def send_returns(*, now: datetime) -> int:
    """Ask the gateways to give back all that is due; return how much they took on.

    What goes wrong with one is raised when the others are sent.
    """
    asked = 0
    unreachable: set[str] = set()
    faults: list[Exception] = []
    for due in _due():
        if due.attempt.gateway in unreachable:
            continue
        amount = due.amount if isinstance(due, Refund) else due.money
        back = Return(reference=due.key, provider_id=due.attempt.provider_id, amount=amount)
        try:
            gateway_named(due.attempt.gateway).give_back(back)
        except Unavailable as problem:
            logger.warning("Return %s waits: %s", due, problem)
            unreachable.add(due.attempt.gateway)
            continue
        except Declined as no:
            _fail(due, amount=amount, problem=str(no), now=now)
            continue
        except Exception as fault:  # noqa: BLE001 (raised below, with the others)
            fault.add_note(f"Return {due}")
            faults.append(fault)
            continue
        # Fetched by the next poll, like any other news of the payment.
        PaymentAttempt.objects.filter(pk=due.attempt_id).update(next_poll_at=now)
        asked += 1
    if faults:
        raise ExceptionGroup("Returns that could not be sent", faults)
    return asked


def try_again(due: Refund | MoneyReturn) -> None:
    """Have a return sent once more that the gateway refused, by a new key. Raises CannotReturn."""
    if isinstance(due, Refund):
        failed = Refund.objects.filter(pk=due.pk, state=RefundState.FAILED)
        again = failed.update(state=RefundState.APPROVED, problem="", tries=F("tries") + 1)
    else:
        failed_return = MoneyReturn.objects.filter(pk=due.pk, state=ReturnState.FAILED)
        again = failed_return.update(state=ReturnState.DUE, problem="", tries=F("tries") + 1)
    if not again:
        raise CannotReturn(_("%(reference)s was not refused by the gateway.") % {"reference": due})


def give_back(
    *, attempt_id: int, amount: Money, reason: ReturnReason, decided_by_id: int, now: datetime
) -> MoneyReturn:
    """Have money that belongs to no sale sent back: more than the order costs, or too little for it.

    Raises CannotReturn for money that is needed for the order, or is not there.
    """
    with transaction.atomic(durable=True):
        order_id = PaymentAttempt.objects.values_list("order_id", flat=True).get(pk=attempt_id)
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        attempt = PaymentAttempt.objects.get(pk=attempt_id)
        free = free_to_return(order, attempt, currency=amount.currency)
        if not 0 < amount.minor <= free.minor:
            raise CannotReturn(
                _("Of this payment %(free)s belong to no sale and can be given back.")
                % {"free": free.localised()}
            )
        back = MoneyReturn.objects.create(
            order=order,
            attempt=attempt,
            reference=f"{order.reference}-B{order.money_returns.count() + 1}",
            reason=reason,
            minor=amount.minor,
            currency=amount.currency,
            due_at=now,
            decided_by_id=decided_by_id,
        )
        tell([about_return(order, back)], now=now)
    return back


def free_to_return(order: Order, attempt: PaymentAttempt, *, currency: str) -> Money:
    """What one payment holds that the order does not need: all of another currency, all of an unpaid order,
    what is over the total of a paid one. Returns and refunds on their way are deducted.
    """
    held = _held(order, currency) - _on_its_way(order, currency)
    needed = 0
    if currency == order.currency and order.paid_at is not None:
        needed = order.total_minor - _refunded(order)
    over = held - needed
    in_attempt = sum(entry.minor for entry in attempt.ledger.filter(currency=currency))
    in_attempt -= sum(back.minor for back in attempt.money_returns.filter(state=ReturnState.DUE))
    return Money(max(0, min(over, in_attempt)), currency)


def _due() -> Iterator[Refund | MoneyReturn]:
    yield from (
        Refund.objects.filter(state=RefundState.APPROVED).select_related("order", "attempt").order_by("pk")
    )
    yield from MoneyReturn.objects.filter(state=ReturnState.DUE).select_related("attempt").order_by("pk")


def _held(order: Order, currency: str) -> int:
    return sum(entry.minor for entry in order.ledger.all() if entry.currency == currency)


def _on_its_way(order: Order, currency: str) -> int:
    """Asked to be given back, and not gone yet."""
    return sum(back.minor for back in order.money_returns.filter(currency=currency, state=ReturnState.DUE))


def _refunded(order: Order) -> int:
    """What refunds have taken out of the sale, gone or not: it is not needed, but not free either."""
    gone = order.refunds.filter(state=RefundState.PAID)
    return sum(refund.minor for refund in gone)


def _fail(due: Refund | MoneyReturn, *, amount: Money, problem: str, now: datetime) -> None:
    with transaction.atomic(durable=True):
        if isinstance(due, Refund):
            kind, order = ReviewKind.REFUND_FAILED, due.order
            failed = Refund.objects.filter(pk=due.pk, state=RefundState.APPROVED).update(
                state=RefundState.FAILED, problem=problem[:300]
            )
        else:
            kind, order = ReviewKind.RETURN_FAILED, due.order
            failed = MoneyReturn.objects.filter(pk=due.pk, state=ReturnState.DUE).update(
                state=ReturnState.FAILED, problem=problem[:300]
            )
        if failed:
            open_review_item(
                kind=kind,
                key=due.key,
                order=order,
                detail=f"{due.reference} over {amount} was refused: {problem}",
                now=now,
            )
