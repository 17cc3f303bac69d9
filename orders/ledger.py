"""What happens when a gateway reports money: it is booked, and then decided what it means.

`apply_snapshot` is the only writer of money, but for what staff send by hand (`returns.confirm_payout`). Everything that is owed to an order is a sum of its ledger.
"""

import dataclasses
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Sum

from inventory.money import Money
from notices import kinds
from notices.kinds import JSONValue
from notices.outbox import tell
from orders.documents import issue_credit_note, issue_invoice
from orders.estimates import record_first_estimate
from orders.gateways import gateway_named
from orders.gateways.protocol import Claim, MoneyMoved, RefusedReturn, Snapshot
from orders.models import (
    AttemptState,
    EntryKind,
    LedgerEntry,
    LineState,
    MoneyReturn,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    QueueEventKind,
    Refund,
    RefundState,
    ReturnReason,
    ReturnState,
    ReviewKind,
)
from orders.offers import stocks
from orders.queue import fairness, lock_lines, lock_plans, place_of
from orders.returns import free_to_return, is_short, owe_back, owed_back, sendable_from
from orders.reviews import open_review_item
from orders.telling import about_bounce, about_claim, about_order, about_refund

logger = logging.getLogger(__name__)

# Money that comes to us is positive in the ledger, money that leaves us negative.
SIGNS = {
    EntryKind.CAPTURE: 1,
    EntryKind.REFUND: -1,
    EntryKind.CHARGEBACK: -1,
    EntryKind.REVERSAL: 1,
    EntryKind.BOUNCE: 1,
}


def apply_snapshot(*, attempt_id: int, snapshot: Snapshot, now: datetime) -> PaymentAttempt:
    """Book the money a gateway reports and, if it covers the order, put the order's lines into their queues.

    Safe to call again with the same snapshot, or an older one. Money that does not fit is booked all the same,
    and either given back at once or put before a person: raising here would roll back the only record of it.
    Locks the order, then the attempt; the plans when the order had given up its units; all lines of the order when
    it is disputed; and last the chain of documents when one is issued.
    """
    with transaction.atomic(durable=True):
        order_id = PaymentAttempt.objects.values_list("order_id", flat=True).get(pk=attempt_id)
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        attempt = PaymentAttempt.objects.select_for_update(no_key=True).get(pk=attempt_id)
        seen_at, was_captured = attempt.confirming_since, attempt.state == AttemptState.CAPTURED
        captured = _book_all(attempt, EntryKind.CAPTURE, snapshot.captures, now=now)
        refunded = _book_all(attempt, EntryKind.REFUND, snapshot.refunds, now=now)
        disputed = [
            *_book_all(attempt, EntryKind.CHARGEBACK, snapshot.chargebacks, now=now),
            *_book_all(attempt, EntryKind.REVERSAL, snapshot.reversals, now=now),
        ]
        _advance(attempt, snapshot, now=now)
        gone = [(entry, _close_return(order, move, entry, now=now)) for move, entry in refunded]
        for refused in snapshot.refused_returns:
            _fail_return(order, attempt, refused, now=now)
        if was_captured:
            _offer_claims(attempt, snapshot.claims, order=order, now=now)
        if captured:
            _settle(order, new=[entry for _move, entry in captured], seen_at=seen_at, now=now)
        elif disputed and order.state != OrderState.PAID and missing_of(order).minor <= 0:
            # A bank had taken it back before it could pay the order, and has returned it now.
            came = attempt.ledger.filter(kind=EntryKind.CAPTURE)
            _settle(order, new=list(came), seen_at=None, now=now)
            order.refresh_from_db()
        if disputed:
            _dispute(order, new=[entry for _move, entry in disputed], now=now)
        attempt.refresh_from_db()
        _review_uncounted(order, attempt, snapshot, now=now)
        if captured or disputed or gone:
            _issue_documents(order, gone, now=now)
    return attempt


def _book_all(
    attempt: PaymentAttempt, kind: EntryKind, moves: Sequence[MoneyMoved], *, now: datetime
) -> list[tuple[MoneyMoved, LedgerEntry]]:
    """Write what the ledger does not have yet; an order's entries are written under its lock.

    An entry that stands under another payment is never moved: a person has to look at it.
    """
    booked = []
    refundable_for = None
    if kind == EntryKind.CAPTURE:
        refundable_for = gateway_named(attempt.gateway).refundable_for(attempt.method)
    for move in moves:
        entry, is_new = LedgerEntry.objects.get_or_create(
            gateway=attempt.gateway,
            kind=kind,
            transaction_id=move.transaction_id,
            defaults={
                "order_id": attempt.order_id,
                "attempt": attempt,
                "minor": SIGNS[kind] * move.amount.minor,
                "currency": move.amount.currency,
                "occurred_at": move.at,
                "recorded_at": now,
                "refundable_until": move.at + refundable_for if refundable_for is not None else None,
            },
        )
        if is_new:
            booked.append((move, entry))
        elif entry.attempt_id != attempt.pk:
            open_review_item(
                kind=ReviewKind.ALREADY_BOOKED,
                key=f"{attempt.reference}:{move.transaction_id}",
                order=attempt.order,
                detail=f"{attempt} reports {kind} {move.transaction_id}, which is booked for {entry.attempt}.",
                now=now,
            )
    return booked


def _advance(attempt: PaymentAttempt, snapshot: Snapshot, *, now: datetime) -> None:
    """Move the attempt's state forward: what is captured stays so, and an end is not undone by an older report.

    What ended is asked about no more, but for the addresses that take money at any time.
    """
    told = PaymentAttempt.objects.filter(pk=attempt.pk)
    state = AttemptState.CAPTURED if snapshot.captures else AttemptState(snapshot.state)
    is_open = state in AttemptState.open()
    if attempt.state == AttemptState.CAPTURED or (is_open and attempt.state not in AttemptState.open()):
        told.update(problem=snapshot.problem[:300])
        return
    is_confirming = state == AttemptState.CONFIRMING
    told.update(
        state=state,
        provider_id=snapshot.provider_id,
        problem=snapshot.problem[:300],
        progress=dataclasses.asdict(snapshot.progress) if snapshot.progress else None,
        confirming_since=(attempt.confirming_since or now) if is_confirming else None,
        next_poll_at=attempt.next_poll_at if is_open or gateway_named(attempt.gateway).late_for else None,
    )


def _issue_documents(
    order: Order, gone: Sequence[tuple[LedgerEntry, Refund | None]], *, now: datetime
) -> None:
    """Invoice the order if it has become paid, and credit what has gone back of it, by the refund if it is ours."""
    try:
        with transaction.atomic():
            issue_invoice(order, now=now)
            for entry, refund in gone:
                issue_credit_note(order, entry=entry, refund=refund, now=now)
    except Exception:
        # A document never vetoes money: a missing invoice is written later, a missing credit note is found.
        logger.exception("No document was issued for order %s.", order)


def _review_uncounted(order: Order, attempt: PaymentAttempt, snapshot: Snapshot, *, now: datetime) -> None:
    """Put before a person what came and is in no ledger: wrong coins, and too few when the time to pay is over."""
    for stray in snapshot.strays:
        open_review_item(
            kind=ReviewKind.WRONG_CURRENCY,
            key=f"{attempt.gateway}:{stray.transaction_id}",
            order=order,
            detail=f"Order {order.reference}, payment {attempt}: {stray.detail}",
            now=now,
        )
    progress = snapshot.progress
    is_over = attempt.expires_at + settings.PAYMENT_GRACE <= now
    if (
        progress
        and progress.missing
        and is_over
        and attempt.state not in (AttemptState.CONFIRMING, AttemptState.CAPTURED)
    ):
        open_review_item(
            kind=ReviewKind.UNDERPAID,
            key=f"{attempt.gateway}:{attempt.reference}",
            order=order,
            detail=(
                f"Order {order.reference}, payment {attempt}: {progress.received} of {progress.due} "
                f"{progress.coin} have come, and the time to pay is over."
            ),
            now=now,
        )


def _settle(order: Order, *, new: Sequence[LedgerEntry], seen_at: datetime | None, now: datetime) -> None:
    """Decide what newly captured money means for its order. `seen_at` is when it was first seen on its way."""
    fitting = [entry for entry in new if entry.currency == order.currency]
    for entry in new:
        if entry.currency != order.currency:
            _review(
                order, ReviewKind.WRONG_CURRENCY, entry, f"Captured {entry.money} for {order.total}.", now=now
            )
    if not fitting:
        return
    if order.state == OrderState.PAID:
        for entry in fitting:
            _give_back(order, entry, reason=ReturnReason.DUPLICATE, now=now)
        return
    entries = [entry for entry in order.ledger.all() if entry.currency == order.currency]
    balance = order.total - missing_of(order)
    latest = fitting[-1]
    if balance < order.total:
        _review(order, ReviewKind.UNDERPAID, latest, f"{order.total - balance} are missing.", now=now)
        if order.state == OrderState.UNPAID:
            # What else is open at a gateway is over too much by now, and closed by the poller.
            order.attempts.filter(state=AttemptState.PENDING).update(next_poll_at=now)
            return
        for entry in fitting:
            _give_back(order, entry, reason=ReturnReason.INCOMPLETE, now=now)
        return
    if order.state != OrderState.UNPAID and not _has_room(order):
        for entry in fitting:
            _give_back(order, entry, reason=ReturnReason.LATE, now=now)
        return
    seen = {entry.pk: seen_at for entry in fitting} if seen_at else {}
    _join_queues(order, paid_at=_covered_at(entries, seen=seen, total=order.total), now=now)
    surplus = balance - order.total
    if surplus:
        # Two whole payments are a duplicate; a little more than asked is for a person to look at.
        twice = next((entry for entry in fitting if entry.minor == surplus.minor), None)
        if twice:
            _give_back(order, twice, reason=ReturnReason.DUPLICATE, now=now)
        else:
            _review(order, ReviewKind.SURPLUS, latest, f"{surplus} more than the order costs.", now=now)


def missing_of(order: Order) -> Money:
    """What an order lacks that is not covered; money that is owed back covers nothing."""
    held = sum(entry.minor for entry in order.ledger.filter(currency=order.currency))
    return order.total - (Money(held, order.currency) - owed_back(order, currency=order.currency))


def _give_back(order: Order, entry: LedgerEntry, *, reason: ReturnReason, now: datetime) -> None:
    """Owe what was captured for no sale, as far as it is there: a bank may have been faster."""
    there = sendable_from(entry.attempt, currency=entry.currency)
    if there.minor > 0:
        owe_back(entry.attempt, min(entry.money, there), order=order, reason=reason, now=now)


def _dispute(order: Order, *, new: Sequence[LedgerEntry], now: datetime) -> None:
    """Hold the order's units while a bank has its money, and let them back to their place when it is returned.

    The lines are looked at under their locks, so that a unit is either allocated or held.
    """
    entries = list(order.ledger.all())
    held = is_disputed(order)
    was, becomes = (LineState.WAITING, LineState.HELD) if held else (LineState.HELD, LineState.WAITING)
    lines = [line for line in lock_lines(order) if line.state == was]
    OrderLine.objects.filter(pk__in=[line.pk for line in lines]).update(state=becomes)
    fairness.record(
        QueueEventKind.HELD if held else QueueEventKind.RELEASED,
        [(line, line.waiting_units) for line in lines],
        now=now,
    )
    for entry in new:
        if entry.kind == EntryKind.CHARGEBACK:
            _review(
                order,
                ReviewKind.CHARGEBACK,
                entry,
                f"{Money(-entry.minor, entry.currency)} were taken back.",
                now=now,
            )
        elif order.state != OrderState.UNPAID:
            over = free_to_return(order, entry.attempt, currency=entry.currency)
            if over:
                _review(order, ReviewKind.SURPLUS, entry, f"{over} belong to no sale.", now=now)
    if sum(entry.minor for entry in entries if entry.currency == order.currency) < 0:
        _review(
            order,
            ReviewKind.DISPUTE_AFTER_REFUND,
            new[-1],
            "More has left than ever came: dispute it, it was paid back before.",
            now=now,
        )
    if not held and all(entry.kind == EntryKind.CHARGEBACK for entry in new):
        # Of a second payment, which the order does not need.
        return
    kind = kinds.PAYMENT_DISPUTED if held else kinds.DISPUTE_ENDED
    tell([about_order(order, kind, {}, key=f"{kind.slug}:{order.reference}:{new[-1].pk}")], now=now)


def is_disputed(order: Order) -> bool:
    """Whether a bank took back what the order needs. Who is to hold a line by it has locked the line."""
    disputes = order.ledger.filter(kind__in=(EntryKind.CHARGEBACK, EntryKind.REVERSAL))
    return (disputes.aggregate(minor=Sum("minor"))["minor"] or 0) < 0 and is_short(order)


def _covered_at(entries: Sequence[LedgerEntry], *, seen: Mapping[int, datetime], total: Money) -> datetime:
    """Since when the money covers `total` without a break: money given back in between does not count.

    What had been `seen` on its way counts from then: some chains and banks take long, and some providers tell
    only when they were done.
    """

    def counts_from(entry: LedgerEntry) -> datetime:
        return min(entry.occurred_at, seen.get(entry.pk, entry.occurred_at))

    balance, covered_at = 0, None
    for entry in sorted(entries, key=lambda entry: (counts_from(entry), entry.pk)):
        balance += entry.minor
        if balance < total.minor:
            covered_at = None
        elif covered_at is None:
            covered_at = counts_from(entry)
    if covered_at is None:
        raise ValueError(f"{total} is not covered.")
    return covered_at


def _has_room(order: Order) -> bool:
    """Whether an order that had given up its units can have them back. Locks the plans."""
    wanted: dict[int, int] = {}
    for line in order.lines.all():
        wanted[line.plan_id] = wanted.get(line.plan_id, 0) + line.quantity
    plans = lock_plans(wanted)
    stock = stocks(list(plans.values()))
    return all(stock[plan_id].left >= units for plan_id, units in wanted.items())


def _join_queues(order: Order, *, paid_at: datetime, now: datetime) -> None:
    """Mark the order paid and stand its lines in their queues, at the place of the capture time."""
    Order.objects.filter(pk=order.pk).update(state=OrderState.PAID, paid_at=paid_at)
    OrderLine.objects.filter(order=order, state=LineState.UNPAID).update(
        state=LineState.WAITING, paid_at=paid_at
    )
    # What else is open at a gateway is closed by the poller.
    order.attempts.filter(state=AttemptState.PENDING).update(next_poll_at=now)
    facts: Mapping[str, JSONValue] = {
        "total": {"minor": order.total_minor, "currency": order.currency},
        "paid_at": paid_at.isoformat(),
    }
    tell([about_order(order, kinds.PAYMENT_RECEIVED, facts)], now=now)
    for line in order.lines.select_related("order", "plan"):
        place = place_of(line)
        fairness.record(QueueEventKind.JOINED, [(line, line.quantity)], now=now, behind=place.behind)
        try:
            with transaction.atomic():
                record_first_estimate(line, ahead=place.ahead, now=now)
        except Exception:
            # An estimate never vetoes money: the next refresh makes the first one.
            logger.exception("Line %s of order %s was paid for, but could not be estimated.", line.pk, order)


def _close_return(order: Order, move: MoneyMoved, entry: LedgerEntry, *, now: datetime) -> Refund | None:
    """Mark as paid what we had asked to be given back; what is not exactly one of ours is for a person.

    Returns the refund of the sale that is paid by this.
    """
    if not move.reference:
        _review_external(order, move, entry, "outside the shop", now=now)
        return None
    refund = next((each for each in order.refunds.all() if move.reference in each.keys), None)
    back = next((each for each in order.money_returns.all() if move.reference in each.keys), None)
    asked = Money(refund.minor, order.currency) if refund else back.money if back else None
    if asked is None:
        _review_external(order, move, entry, "outside the shop", now=now)
    elif move.amount != asked:
        _review_external(order, move, entry, f"for {move.reference}, which is over {asked}", now=now)
    elif back:
        unpaid = MoneyReturn.objects.filter(pk=back.pk).exclude(state=ReturnState.PAID)
        if not unpaid.update(state=ReturnState.PAID, paid_at=move.at, problem=""):
            _review_external(order, move, entry, f"for {move.reference}, which was paid before", now=now)
    elif refund:
        # The answer to our asking may have been lost or refused: what counts is that the money has gone.
        on_its_way = Refund.objects.filter(pk=refund.pk, state__in=(RefundState.APPROVED, RefundState.FAILED))
        if on_its_way.update(state=RefundState.PAID, paid_at=move.at, problem=""):
            tell([about_refund(order, refund, kinds.REFUND_PAID, entry=entry)], now=now)
            return refund
        _review_external(order, move, entry, f"for {move.reference}, which was paid before", now=now)
    return None


def _review_external(
    order: Order, move: MoneyMoved, entry: LedgerEntry, known_as: str, *, now: datetime
) -> None:
    open_review_item(
        kind=ReviewKind.EXTERNAL_REFUND,
        key=f"{order.reference}:{move.transaction_id}",
        order=order,
        entry=entry,
        detail=f"{move.amount} were given back as {move.transaction_id}, {known_as}.",
        now=now,
    )


def _fail_return(order: Order, attempt: PaymentAttempt, refused: RefusedReturn, *, now: datetime) -> None:
    """A refund that the gateway had accepted has failed: what it kept is free again, and staff are told.

    Had it been made, then its money has come back: that is booked, and the customer is told as well.
    """
    problem = refused.problem[:300]
    bounce = _book_bounce(attempt, refused, now=now)
    refunds = [each.pk for each in order.refunds.all() if _fails(each, refused, bounce)]
    returns = [each.pk for each in order.money_returns.all() if _fails(each, refused, bounce)]
    Refund.objects.filter(pk__in=refunds).update(state=RefundState.FAILED, problem=problem, paid_at=None)
    MoneyReturn.objects.filter(pk__in=returns).update(state=ReturnState.FAILED, problem=problem, paid_at=None)
    if bounce:
        tell([about_bounce(order, bounce)], now=now)
    if refunds or returns or bounce:
        known_as = refused.reference or f"{refused.transaction_id}, made outside the shop,"
        after = "after it had been made" if bounce else "after it had been accepted"
        open_review_item(
            kind=ReviewKind.RETURN_FAILED if returns else ReviewKind.REFUND_FAILED,
            key=f"{refused.reference or refused.transaction_id}:{now.isoformat()}",  # tried again, it can fail again
            order=order,
            detail=f"{known_as} was refused by the gateway {after}: {problem}",
            now=now,
        )


def _offer_claims(attempt: PaymentAttempt, claims: Sequence[Claim], *, order: Order, now: datetime) -> None:
    """Show the customer where he takes up what waits for him, as long as it does; he is told once."""
    links = {claim.reference: claim.link for claim in claims}
    returns: list[Refund | MoneyReturn] = [*attempt.refunds.all(), *attempt.money_returns.all()]
    for due in returns:
        is_on_its_way = due.state in (RefundState.APPROVED, ReturnState.DUE)
        link = links.get(due.key, "") if is_on_its_way else ""
        if link == due.claim_url:
            continue
        due.claim_url = link
        due.save(update_fields=["claim_url"])
        if link:
            tell([about_claim(order, due)], now=now)


def _book_bounce(attempt: PaymentAttempt, refused: RefusedReturn, *, now: datetime) -> LedgerEntry | None:
    """Take a refund that is in the ledger back into it, once; no gateway says when that was."""
    made = LedgerEntry.objects.filter(
        attempt=attempt,
        gateway=attempt.gateway,
        kind=EntryKind.REFUND,
        transaction_id=refused.transaction_id,
    ).first()
    if made is None:
        return None
    back = MoneyMoved(made.transaction_id, Money(-made.minor, made.currency), now)
    return next((entry for _move, entry in _book_all(attempt, EntryKind.BOUNCE, (back,), now=now)), None)


def has_come_back(entry: LedgerEntry) -> bool:
    """Whether the money of a refund came back after it had been made."""
    bounces = LedgerEntry.objects.filter(gateway=entry.gateway, kind=EntryKind.BOUNCE)
    return bounces.filter(transaction_id=entry.transaction_id).exists()


def _fails(due: Refund | MoneyReturn, refused: RefusedReturn, bounce: LedgerEntry | None) -> bool:
    """Whether it is `due` that was refused. What failed of an earlier try is told again with every snapshot."""
    if due.state in (RefundState.APPROVED, ReturnState.DUE):
        return due.key == refused.reference
    if bounce is None or due.state not in (RefundState.PAID, ReturnState.PAID):
        return False
    if isinstance(due, Refund) and due.entry:
        return due.entry.transaction_id == bounce.transaction_id
    return refused.reference in due.keys and not due.payouts.filter(is_confirmed=True).exists()


def _review(order: Order, kind: ReviewKind, entry: LedgerEntry, detail: str, *, now: datetime) -> None:
    open_review_item(
        kind=kind,
        key=f"{entry.gateway}:{entry.transaction_id}",
        order=order,
        detail=f"Order {order.reference}, capture {entry.transaction_id}: {detail}",
        now=now,
    )
