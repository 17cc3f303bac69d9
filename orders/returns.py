"""Sending money back: what a refund takes back, and what was paid for nothing.

A return stays due until a snapshot of its payment shows the money gone (`orders.ledger`), so it is asked for
again by the same key, which the gateway answers with the return that is there. No gateway is called inside a
transaction.

What a gateway refuses is sent again, or paid by other means: one member of staff records how, another confirms.
"""

import logging
from collections.abc import Iterator
from datetime import date, datetime, timedelta

from django.db import transaction
from django.db.models import Exists, F, OuterRef, Q, QuerySet, Sum
from django.utils.translation import gettext as _

from evidence.contract_time import contract_date, contract_midnight
from inventory.money import Money
from notices import kinds
from notices.outbox import tell
from orders.documents import issue_credit_note
from orders.gateways import gateway_named
from orders.gateways.protocol import Declined, Return, Unavailable, Unreachable
from orders.models import (
    BY_HAND,
    EntryKind,
    LedgerEntry,
    MoneyReturn,
    Order,
    OrderLine,
    PaymentAttempt,
    Payout,
    Refund,
    RefundState,
    ReturnReason,
    ReturnState,
    ReviewItem,
    ReviewKind,
)
from orders.reviews import open_review_item, settle
from orders.telling import about_refund, about_return
from orders.unanswered import is_to_be_tried, next_try, report_silence

logger = logging.getLogger(__name__)

# So long before a gateway gives a payment back no more, staff hear of orders that still wait.
WINDOW_WARNING = timedelta(days=14)


class CannotReturn(Exception):
    """The money cannot be given back as asked; the message tells staff why."""


def send_returns(*, now: datetime) -> int:
    """Ask the gateways to give back all that is due; return how much they took on.

    What they took on is asked for again, ever more rarely, until it shows in a snapshot. What a payment does not
    hold is not asked of it: it fails, for staff to see. A gateway that cannot be reached is left alone for this run,
    and what goes wrong with one return is raised when the others are sent.
    """
    asked = 0
    unreachable: set[str] = set()
    faults: list[Exception] = []
    for due in _due(now):
        gateway = due.attempt.gateway
        if gateway in unreachable or not _claim(due, now=now):
            continue
        amount = due.amount if isinstance(due, Refund) else due.money
        left = sendable_from(due.attempt, currency=amount.currency)
        if due.next_try_at is None and left.minor < 0:
            _fail(due, amount=amount, problem="This payment alone does not hold so much (any more).", now=now)
            continue
        back = Return(reference=due.key, provider_id=due.attempt.provider_id, amount=amount)
        try:
            gateway_named(gateway).give_back(back)
        except Unavailable as problem:
            logger.warning("Return %s waits: %s", due, problem)
            if isinstance(problem, Unreachable):
                unreachable.add(gateway)
            report_silence(
                problem, gateway=gateway, about=due.key, order=due.order, since=due.owed_since, now=now
            )
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
    """Have a return sent once more that the gateway refused, by a new key.

    It had freed its money, so it has to find it again. Raises CannotReturn: also while it is being paid by hand.
    """
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=due.order_id)
        _check_refused(due)
        amount = money_of(due, order)
        left = left_in(due.attempt, currency=amount.currency)
        if left < amount:
            raise CannotReturn(
                _("Of this payment only %(left)s are left. Has it gone back otherwise already?")
                % {"left": left.localised()}
            )
        if isinstance(due, Refund):
            Refund.objects.filter(pk=due.pk).update(
                state=RefundState.APPROVED, problem="", tries=F("tries") + 1, next_try_at=None
            )
        else:
            MoneyReturn.objects.filter(pk=due.pk).update(
                state=ReturnState.DUE, problem="", tries=F("tries") + 1, next_try_at=None
            )


def record_payout(
    *,
    due: Refund | MoneyReturn,
    means: str,
    reference: str,
    paid_on: date,
    recorded_by_id: int,
    now: datetime,
) -> Payout:
    """Record that what the gateway refused was sent by other means. Nothing is booked before another confirms it.

    `paid_on` is a contract date, not before the one on which the money came to be owed. Raises CannotReturn.
    """
    if not means.strip() or not reference.strip():
        raise CannotReturn(_("Say how the money was sent, and the reference of the transfer."))
    if not contract_date(due.owed_since) <= paid_on <= contract_date(now):
        raise CannotReturn(_("The day of the transfer lies between the decision to give back and today."))
    with transaction.atomic(durable=True):
        Order.objects.select_for_update(no_key=True).get(pk=due.order_id)
        _check_refused(due)
        payout: Payout = Payout.objects.create(
            refund=due if isinstance(due, Refund) else None,
            money_return=None if isinstance(due, Refund) else due,
            means=means.strip(),
            reference=reference.strip(),
            paid_on=paid_on,
            recorded_by_id=recorded_by_id,
            recorded_at=now,
        )
    return payout


def confirm_payout(*, payout_id: int, confirmed_by_id: int, now: datetime) -> Payout:
    """Book money that was sent by hand, and close what it was sent for; the customer is told of a refund.

    Raises CannotReturn: for whoever recorded it, and for one that is decided.
    """
    with transaction.atomic(durable=True):
        payout = _undecided_payout(payout_id, decided_by_id=confirmed_by_id)
        if payout.due.state not in (RefundState.FAILED, ReturnState.FAILED):
            raise CannotReturn(_("The gateway has paid %(reference)s after all.") % {"reference": payout.due})
        due, order = payout.due, payout.due.order
        amount = money_of(due, order)
        # Of the transfer only the day is known.
        sent_at = max(contract_midnight(payout.paid_on), due.owed_since)
        entry: LedgerEntry = LedgerEntry.objects.create(
            order=order,
            attempt_id=due.attempt_id,
            gateway=BY_HAND,
            kind=EntryKind.REFUND,
            transaction_id=f"{due.reference}:{payout.reference}",
            minor=-amount.minor,
            currency=amount.currency,
            occurred_at=sent_at,
            recorded_at=now,
        )
        Payout.objects.filter(pk=payout.pk).update(
            is_confirmed=True, decided_by_id=confirmed_by_id, decided_at=now
        )
        said = f"It was paid by {payout.means}, {payout.reference}."
        resolve_failure(due, said, resolved_by_id=confirmed_by_id, now=now)
        if isinstance(due, Refund):
            Refund.objects.filter(pk=due.pk).update(state=RefundState.PAID, paid_at=sent_at, problem="")
            tell([about_refund(order, due, kinds.REFUND_PAID, entry=entry, means=payout.means)], now=now)
            issue_credit_note(order, entry=entry, refund=due, now=now)
        else:
            MoneyReturn.objects.filter(pk=due.pk).update(state=ReturnState.PAID, paid_at=sent_at, problem="")
    payout.refresh_from_db()
    return payout


def reject_payout(*, payout_id: int, rejected_by_id: int, now: datetime) -> Payout:
    """Say that no such money was sent: it can be sent again, or recorded anew. Raises CannotReturn."""
    with transaction.atomic(durable=True):
        payout = _undecided_payout(payout_id, decided_by_id=rejected_by_id)
        Payout.objects.filter(pk=payout.pk).update(
            is_confirmed=False, decided_by_id=rejected_by_id, decided_at=now
        )
    payout.refresh_from_db()
    return payout


def resolve_failure(
    due: Refund | MoneyReturn, resolution: str, *, resolved_by_id: int, now: datetime
) -> None:
    """Close what was reported of each time that the gateway refused, once the money has gone another way.

    Runs in the transaction of what has paid it.
    """
    kind = ReviewKind.REFUND_FAILED if isinstance(due, Refund) else ReviewKind.RETURN_FAILED
    of_a_try = Q()
    for key in due.keys:
        of_a_try |= Q(dedupe_key=f"{kind}:{key}") | Q(dedupe_key__startswith=f"{kind}:{key}:")
    settle(ReviewItem.objects.filter(of_a_try), resolution, resolved_by_id=resolved_by_id, now=now)


def report_closing_windows(*, now: datetime) -> int:
    """Put before staff, once, each payment that its gateway soon gives back no more while its order still waits.

    A gateway that gives nothing back at all is no news. Returns how many payments there are.
    """
    closing = (
        LedgerEntry.objects.filter(
            kind=EntryKind.CAPTURE,
            refundable_until__lte=now + WINDOW_WARNING,
            refundable_until__gt=F("occurred_at"),
        )
        .filter(Exists(OrderLine.objects.in_queue().filter(order=OuterRef("order"))))
        .exclude(review_items__kind=ReviewKind.REFUND_WINDOW)
    )
    reported = 0
    for entry in closing.select_related("order").order_by("refundable_until", "pk"):
        assert entry.refundable_until is not None  # noqa: S101 (filtered by it)
        with transaction.atomic(durable=True):
            open_review_item(
                kind=ReviewKind.REFUND_WINDOW,
                key=f"{entry.gateway}:{entry.transaction_id}",
                order=entry.order,
                entry=entry,
                detail=(
                    f"Order {entry.order.reference} waits, and {entry.gateway} gives {entry.money} back only until "
                    f"{entry.refundable_until:%Y-%m-%d %H:%M} UTC; after that a refund is paid by hand."
                ),
                now=now,
            )
        reported += 1
    return reported


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
        return owe_back(attempt, amount, order=order, reason=reason, now=now, decided_by_id=decided_by_id)


def give_back_all(order: Order, *, now: datetime) -> None:
    """Have all that an order holds sent back that has ended without being paid, and tell its buyer.

    Runs in the transaction that ends it, which holds its lock.
    """
    for attempt in order.attempts.order_by("pk"):
        for currency in sorted(set(attempt.ledger.values_list("currency", flat=True))):
            free = free_to_return(order, attempt, currency=currency)
            if free:
                is_other = currency != order.currency
                reason = ReturnReason.WRONG_CURRENCY if is_other else ReturnReason.INCOMPLETE
                owe_back(attempt, free, order=order, reason=reason, now=now)


def owe_back(
    attempt: PaymentAttempt,
    amount: Money,
    *,
    order: Order,
    reason: ReturnReason,
    now: datetime,
    decided_by_id: int | None = None,
) -> MoneyReturn:
    """Have money of a payment that belongs to no sale sent back the way it came, and tell the buyer.

    Returned is what was paid for nothing; the sale itself is refunded on the agreement's grounds only (3.3). Runs
    under the lock of the order.
    """
    back: MoneyReturn = MoneyReturn.objects.create(
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
    what is over the total of a paid one. Refunds on their way are deducted, and returns that are owed already.
    """
    needed = 0
    if currency == order.currency and order.paid_at is not None:
        needed = order.total_minor - _refunded(order)
    over = _sum(order.ledger.filter(currency=currency)) - owed_back(order, currency=currency).minor - needed
    refused = _sum(attempt.money_returns.filter(state=ReturnState.FAILED, currency=currency))
    return Money(max(0, min(over, sendable_from(attempt, currency=currency).minor - refused)), currency)


def owed_back(order: Order, *, currency: str) -> Money:
    """Money that belongs to no sale and is owed to the buyer, on its way or refused: it covers nothing any more."""
    return Money(_owed(order.money_returns.all(), currency), currency)


def is_short(order: Order) -> bool:
    """Whether its payments hold less than an order costs, what is refunded and what each owes back deducted."""
    held = 0
    for attempt in order.attempts.all():
        there = _sum(attempt.ledger.filter(currency=order.currency))
        owed = _owed(attempt.money_returns.all(), order.currency)
        held += there - max(0, min(owed, there))
    return held < order.total_minor - _refunded(order)


def left_in(attempt: PaymentAttempt, *, currency: str) -> Money:
    """What can still be asked for of one payment: what it holds without what was asked for, approved or is due."""
    asked = attempt.refunds.filter(state=RefundState.REQUESTED, entry=None, order__currency=currency)
    return sendable_from(attempt, currency=currency) - Money(_sum(asked), currency)


def sendable_from(attempt: PaymentAttempt, *, currency: str) -> Money:
    """What can still be sent out of one payment: what it holds without what is on its way. May be below nothing."""
    held = _sum(attempt.ledger.filter(currency=currency))
    held -= _sum(attempt.refunds.filter(state=RefundState.APPROVED, order__currency=currency))
    held -= _sum(attempt.money_returns.filter(state=ReturnState.DUE, currency=currency))
    return Money(held, currency)


def _owed(returns: QuerySet[MoneyReturn], currency: str) -> int:
    """Of these what has not gone yet, refused or not."""
    return _sum(returns.filter(currency=currency, state__in=(ReturnState.DUE, ReturnState.FAILED)))


def _sum(rows: QuerySet[LedgerEntry] | QuerySet[Refund] | QuerySet[MoneyReturn]) -> int:
    return rows.aggregate(minor=Sum("minor"))["minor"] or 0


def money_of(due: Refund | MoneyReturn, order: Order) -> Money:
    return Money(due.minor, order.currency if isinstance(due, Refund) else due.currency)


def _check_refused(due: Refund | MoneyReturn) -> None:
    """Only what the gateway refused, and nobody has paid by hand, can be sent again or by hand. Under the order's lock."""
    due.refresh_from_db()
    if due.state not in (RefundState.FAILED, ReturnState.FAILED):
        raise CannotReturn(_("%(reference)s was not refused by the gateway.") % {"reference": due})
    if due.payouts.filter(is_confirmed=None).exists():
        raise CannotReturn(
            _("A payout of %(reference)s by hand waits for a second member of staff.") % {"reference": due}
        )


def _undecided_payout(payout_id: int, *, decided_by_id: int) -> Payout:
    """The payout, once its order is locked and it is known that this person may decide on it."""
    payout = Payout.objects.select_related("refund", "money_return").get(pk=payout_id)
    Order.objects.select_for_update(no_key=True).get(pk=payout.due.order_id)
    payout = Payout.objects.select_related("refund__order", "money_return__order").get(pk=payout_id)
    if payout.is_confirmed is not None:
        raise CannotReturn(_("Somebody has decided on this payout already."))
    if payout.recorded_by_id == decided_by_id:
        raise CannotReturn(_("A second member of staff has to confirm a payout that you recorded."))
    return payout


def _due(now: datetime) -> Iterator[Refund | MoneyReturn]:
    refunds = Refund.objects.filter(is_to_be_tried(now), state=RefundState.APPROVED)
    yield from refunds.select_related("order", "attempt").order_by("pk")
    returns = MoneyReturn.objects.filter(is_to_be_tried(now), state=ReturnState.DUE)
    yield from returns.select_related("order", "attempt").order_by("pk")


def _claim(due: Refund | MoneyReturn, *, now: datetime) -> int:
    """Whoever moves the date asks: two runs at once do not. 0 for what another has, or is due no more."""
    later = next_try(since=due.owed_since, now=now)
    if isinstance(due, Refund):
        refunds = Refund.objects.filter(pk=due.pk, next_try_at=due.next_try_at, state=RefundState.APPROVED)
        return refunds.update(next_try_at=later)
    returns = MoneyReturn.objects.filter(pk=due.pk, next_try_at=due.next_try_at, state=ReturnState.DUE)
    return returns.update(next_try_at=later)


def _refunded(order: Order) -> int:
    """What refunds have taken out of the sale, gone or not: it is not needed, but not free either."""
    return _sum(order.refunds.filter(state=RefundState.PAID))


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
