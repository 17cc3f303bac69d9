"""What happens when a payment is begun, reported, and applied.

A webhook, the buyer's return and the poller never set money: each only makes us `fetch` what the gateway
knows, and `apply_snapshot` is the only writer of money. It locks the order, then the attempt. No gateway is
called inside a transaction.
"""

import contextlib
import logging
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from inventory.money import Money
from notices import kinds
from notices.outbox import JSONValue, tell
from orders.estimates import record_first_estimate
from orders.gateways import gateway_named, methods_on_offer
from orders.gateways.protocol import (
    Charge,
    CredentialsRefused,
    Declined,
    MoneyMoved,
    Snapshot,
    Unavailable,
)
from orders.models import (
    AttemptState,
    EntryKind,
    LedgerEntry,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    Refund,
    RefundState,
    ReviewKind,
    WebhookEvent,
)
from orders.offers import stocks
from orders.queue import lock_plans
from orders.reviews import open_review_item
from orders.telling import about_order, about_refund

logger = logging.getLogger(__name__)

# When a payment nobody reports on is asked about: after its creation, then hourly until a day past expiry.
POLL_AFTER = (
    timedelta(seconds=30),
    timedelta(minutes=2),
    timedelta(minutes=5),
    timedelta(minutes=15),
    timedelta(hours=1),
)
POLL_UNTIL = timedelta(hours=24)
# As many as are counted: the intervals have long stopped growing.
MOST_POLLS = 1_000


class NotPayable(Exception):
    """The order cannot be paid now, or not by this method; the message tells the buyer why."""


def begin_payment(
    *, order_id: int, method: str, return_url: str, language: str, now: datetime
) -> PaymentAttempt:
    """Open a payment at the method's gateway and answer the attempt with the address to pay at.

    A second click finds the first one's attempt; a retry after a lost answer uses the same key, so that the
    gateway has one payment. Raises NotPayable; Declined (the attempt is over, another method may do);
    Unavailable (try again, or another method).

    The poller may have found the payment while the answer to its opening was lost: it is then pending, and
    its address still has to be asked for.
    """
    attempt = _attempt_at(order_id=order_id, method=method, now=now)
    if attempt.pay_url:
        return attempt
    charge = Charge(
        reference=attempt.reference,
        amount=attempt.amount,
        description=_("VMOS Cloud order %(reference)s") % {"reference": attempt.order.reference},
        return_url=return_url,
        expires_at=attempt.expires_at,
        language=language,
    )
    open_here = PaymentAttempt.objects.filter(
        pk=attempt.pk, state__in=(AttemptState.CREATED, AttemptState.PENDING), pay_url=""
    )
    try:
        opened = gateway_named(attempt.gateway).open(charge)
    except CredentialsRefused as refusal:
        _report_refusal(attempt, refusal, now=now)
        raise
    except Declined as no:
        logger.warning("Payment %s was declined at its opening: %s", attempt.reference, no)
        open_here.update(state=AttemptState.DECLINED, problem=str(no)[:300], next_poll_at=None)
        raise
    open_here.update(state=AttemptState.PENDING, provider_id=opened.provider_id, pay_url=opened.pay_url)
    begun = PaymentAttempt.objects.get(pk=attempt.pk)
    if not begun.pay_url:
        raise NotPayable(_("This payment has ended in the meantime. Please look at your order."))
    return begun


def _attempt_at(*, order_id: int, method: str, now: datetime) -> PaymentAttempt:
    offered = {offer.slug: offer for offer in methods_on_offer()}
    if method not in offered:
        raise NotPayable(_("This way to pay is not available. Please choose another one."))
    with transaction.atomic(durable=True):
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        if order.state == OrderState.PAID:
            raise NotPayable(_("This order is paid."))
        if not order.is_payable(now):
            raise NotPayable(_("The time to pay this order is over. Please order again."))
        attempts = order.attempts.select_related("order")
        # A captured attempt of an unpaid order was too small; a person looks at it, the buyer may pay again.
        attempt = attempts.filter(
            method=method, state__in=(AttemptState.CREATED, AttemptState.PENDING)
        ).first()
        if attempt is None:
            attempt = PaymentAttempt.objects.create(
                order=order,
                reference=f"{order.reference}-{order.attempts.count() + 1}",
                method=method,
                gateway=offered[method].gateway,
                amount_minor=order.total_minor,
                currency=order.currency,
                created_at=now,
                expires_at=order.pay_until,
                next_poll_at=now + POLL_AFTER[0],
            )
    return attempt


def receive_webhook(*, gateway: str, headers: Mapping[str, str], body: bytes, now: datetime) -> None:
    """Put a webhook into the inbox, exactly as it came. Header names are lower case.

    Raises BadSignature, and then stores nothing. The same event again changes nothing.
    """
    event = gateway_named(gateway).read_webhook(headers=headers, body=body)
    kept = {
        name: value
        for name, value in headers.items()
        if name.startswith("webhook-") or name == "content-type"
    }
    WebhookEvent.objects.bulk_create(
        [
            WebhookEvent(
                gateway=gateway,
                dedupe_key=event.dedupe_key,
                attempt_reference=event.attempt_reference,
                headers=kept,
                body=body,
                received_at=now,
            )
        ],
        ignore_conflicts=True,
    )


def process_webhooks(*, now: datetime) -> int:
    """Work the inbox off: fetch and apply each payment it names. Return how many events were dealt with.

    An event whose gateway cannot be reached stays for the next run, and so do that gateway's others. What
    goes wrong with one event does not keep the rest waiting: it is raised when they are done.
    """
    waiting = WebhookEvent.objects.filter(processed_at=None).order_by("pk")
    done = 0
    unreachable: set[str] = set()
    faults: list[Exception] = []
    for event in waiting.defer("body"):
        if event.gateway in unreachable:
            continue
        attempt = PaymentAttempt.objects.filter(
            reference=event.attempt_reference, gateway=event.gateway
        ).first()
        if attempt is None:
            open_review_item(
                kind=ReviewKind.UNKNOWN_REFERENCE,
                key=f"{event.gateway}:{event.dedupe_key}",
                order=None,
                detail=f"A webhook of {event.gateway} names the payment {event.attempt_reference!r}, which is not ours.",
                now=now,
            )
        else:
            try:
                refresh_attempt(attempt_id=attempt.pk, now=now)
            except Unavailable as problem:
                logger.warning("Webhooks of %s wait: %s", event.gateway, problem)
                unreachable.add(event.gateway)
                continue
            except Exception as fault:  # noqa: BLE001 (raised below, with the others)
                fault.add_note(f"Webhook {event}, payment {attempt}")
                faults.append(fault)
                continue
        done += WebhookEvent.objects.filter(pk=event.pk, processed_at=None).update(processed_at=now)
    if faults:
        raise ExceptionGroup("Webhooks that could not be processed", faults)
    return done


def poll_payments(*, now: datetime) -> int:
    """Ask about payments that nobody reported on (lost webhooks, closed tabs). Return how many were asked.

    A gateway that cannot be reached is left alone for this run, and what goes wrong with one payment is raised
    when the others are done.
    """
    asked = 0
    unreachable: set[str] = set()
    faults: list[Exception] = []
    for attempt in PaymentAttempt.objects.filter(next_poll_at__lte=now).order_by("next_poll_at"):
        if attempt.gateway in unreachable:
            continue
        # Whoever moves the date asks: two pollers at once do not.
        claimed = PaymentAttempt.objects.filter(pk=attempt.pk, next_poll_at=attempt.next_poll_at)
        if not claimed.update(
            next_poll_at=_next_poll(attempt, now=now), polls=min(attempt.polls + 1, MOST_POLLS)
        ):
            continue
        asked += 1
        try:
            refresh_attempt(attempt_id=attempt.pk, now=now)
        except Unavailable as problem:
            logger.warning("Payment %s was not answered for: %s", attempt, problem)
            unreachable.add(attempt.gateway)
        except Exception as fault:  # noqa: BLE001 (raised below, with the others)
            fault.add_note(f"Payment {attempt}")
            faults.append(fault)
    if faults:
        raise ExceptionGroup("Payments that could not be refreshed", faults)
    return asked


def _next_poll(attempt: PaymentAttempt, *, now: datetime) -> datetime | None:
    polls = attempt.polls + 1
    later = attempt.created_at + POLL_AFTER[polls] if polls < len(POLL_AFTER) else now + POLL_AFTER[-1]
    return max(later, now) if later <= attempt.expires_at + POLL_UNTIL else None


def refresh_attempt(*, attempt_id: int, now: datetime) -> PaymentAttempt:
    """Fetch what the gateway knows of a payment and apply it. Raises Unavailable.

    A payment whose order has ended, or is paid by another, is closed first, so that nobody pays it by an old
    tab; if the buyer was faster, the gateway says so.
    """
    attempt = PaymentAttempt.objects.select_related("order").get(pk=attempt_id)
    gateway = gateway_named(attempt.gateway)
    try:
        if attempt.state == AttemptState.PENDING and attempt.order.state != OrderState.UNPAID:
            with contextlib.suppress(Declined):
                gateway.close(provider_id=attempt.provider_id)
        snapshot = gateway.fetch(reference=attempt.reference, provider_id=attempt.provider_id)
    except CredentialsRefused as refusal:
        _report_refusal(attempt, refusal, now=now)
        raise
    except Declined as no:
        raise Unavailable(f"{attempt.gateway} does not say what became of {attempt.reference}: {no}") from no
    if snapshot is not None:
        return apply_snapshot(attempt_id=attempt_id, snapshot=snapshot, now=now)
    if attempt.expires_at + settings.PAYMENT_GRACE <= now:
        # The gateway never heard of it, and it cannot be opened any more.
        PaymentAttempt.objects.filter(pk=attempt.pk, state=AttemptState.CREATED).update(
            state=AttemptState.EXPIRED, next_poll_at=None
        )
        attempt.refresh_from_db()
    return attempt


def _report_refusal(attempt: PaymentAttempt, refusal: CredentialsRefused, *, now: datetime) -> None:
    """Tell staff, once a day, that a gateway does not know us."""
    open_review_item(
        kind=ReviewKind.GATEWAY_REFUSES_US,
        key=f"{attempt.gateway}:{now:%Y-%m-%d}",
        order=None,
        detail=f"{refusal} Asked about {attempt.reference}; nothing is lost, and it is asked again.",
        now=now,
    )


def apply_snapshot(*, attempt_id: int, snapshot: Snapshot, now: datetime) -> PaymentAttempt:
    """Book the money a gateway reports and, if it covers the order, put the order's lines into their queues.

    The only writer of money. Safe to call again with the same snapshot, or an older one. Money that does not
    fit is booked all the same, with a review item for a person: raising here would roll back the only
    record of it.
    """
    with transaction.atomic(durable=True):
        order_id = PaymentAttempt.objects.values_list("order_id", flat=True).get(pk=attempt_id)
        order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
        attempt = PaymentAttempt.objects.select_for_update(no_key=True).get(pk=attempt_id)
        captured = [
            entry for move in snapshot.captures if (entry := _book(attempt, EntryKind.CAPTURE, move, now=now))
        ]
        refunded = [move for move in snapshot.refunds if _book(attempt, EntryKind.REFUND, move, now=now)]
        _advance(attempt, snapshot)
        if captured:
            _settle(order, new=captured, now=now)
        for move in refunded:
            _close_refund(order, move, now=now)
    attempt.refresh_from_db()
    return attempt


def _book(attempt: PaymentAttempt, kind: EntryKind, move: MoneyMoved, *, now: datetime) -> LedgerEntry | None:
    """Write the ledger entry; None when the ledger has it (an order's entries are written under its lock).

    An entry that stands under another payment is never moved: a person has to look at it.
    """
    minor = move.amount.minor if kind == EntryKind.CAPTURE else -move.amount.minor
    entry, is_new = LedgerEntry.objects.get_or_create(
        gateway=attempt.gateway,
        kind=kind,
        transaction_id=move.transaction_id,
        defaults={
            "order_id": attempt.order_id,
            "attempt": attempt,
            "minor": minor,
            "currency": move.amount.currency,
            "occurred_at": move.at,
            "recorded_at": now,
        },
    )
    if not is_new and entry.attempt_id != attempt.pk:
        open_review_item(
            kind=ReviewKind.ALREADY_BOOKED,
            key=f"{attempt.reference}:{move.transaction_id}",
            order=attempt.order,
            detail=f"{attempt} reports {kind} {move.transaction_id}, which is booked for {entry.attempt}.",
            now=now,
        )
    return entry if is_new else None


def _advance(attempt: PaymentAttempt, snapshot: Snapshot) -> None:
    """Move the attempt's state forward: what is captured stays so, and an end is not undone by an older report."""
    state = AttemptState.CAPTURED if snapshot.captures else AttemptState(snapshot.state)
    is_open = state in AttemptState.open()
    if attempt.state == AttemptState.CAPTURED or (is_open and attempt.state not in AttemptState.open()):
        return
    PaymentAttempt.objects.filter(pk=attempt.pk).update(
        state=state,
        provider_id=snapshot.provider_id,
        problem=snapshot.problem[:300],
        next_poll_at=attempt.next_poll_at if is_open else None,
    )


def _settle(order: Order, *, new: Sequence[LedgerEntry], now: datetime) -> None:
    """Decide what newly captured money means for its order."""
    for entry in new:
        if entry.currency != order.currency:
            _review(
                order, ReviewKind.WRONG_CURRENCY, entry, f"Captured {entry.money} for {order.total}.", now=now
            )
    entries = [entry for entry in order.ledger.all() if entry.currency == order.currency]
    balance = Money(sum(entry.minor for entry in entries), order.currency)
    latest = new[-1]
    if order.state == OrderState.PAID:
        for entry in new:
            if entry.currency == order.currency:
                _review(order, ReviewKind.DUPLICATE, entry, f"{entry.money} came for a paid order.", now=now)
        return
    if balance < order.total:
        if latest.currency == order.currency:
            _review(order, ReviewKind.UNDERPAID, latest, f"{order.total - balance} are missing.", now=now)
        return
    if order.state != OrderState.UNPAID and not _has_room(order):
        _review(
            order, ReviewKind.LATE_WITHOUT_CAP, latest, f"{balance} came after the order had ended.", now=now
        )
        return
    _join_queues(order, paid_at=_covered_at(entries, total=order.total), now=now)
    surplus = balance - order.total
    if surplus:
        # Two whole payments are a duplicate; a little more than asked is a surplus.
        is_duplicate = any(entry.minor == surplus.minor for entry in entries)
        kind = ReviewKind.DUPLICATE if is_duplicate else ReviewKind.SURPLUS
        _review(order, kind, latest, f"{surplus} more than the order costs.", now=now)


def _covered_at(entries: Sequence[LedgerEntry], *, total: Money) -> datetime:
    """Since when the money covers `total` without a break: money given back in between does not count."""
    balance, covered_at = 0, None
    for entry in sorted(entries, key=lambda entry: (entry.occurred_at, entry.pk)):
        balance += entry.minor
        if balance < total.minor:
            covered_at = None
        elif covered_at is None:
            covered_at = entry.occurred_at
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
        try:
            with transaction.atomic():
                record_first_estimate(line, now=now)
        except Exception:
            # An estimate never vetoes money: the next refresh makes the first one.
            logger.exception("Line %s of order %s was paid for, but could not be estimated.", line.pk, order)


def _close_refund(order: Order, move: MoneyMoved, *, now: datetime) -> None:
    """Mark the refund paid that the gateway reports; what is not exactly one of ours is for a person."""
    refund = Refund.objects.filter(order=order, reference=move.reference).first() if move.reference else None
    if refund is None or move.amount != Money(refund.minor, order.currency):
        known_as = f"for refund {refund}, which is over another amount" if refund else "outside the shop"
        open_review_item(
            kind=ReviewKind.EXTERNAL_REFUND,
            key=f"{order.reference}:{move.transaction_id}",
            order=order,
            detail=f"{move.amount} were given back as {move.transaction_id}, {known_as}.",
            now=now,
        )
        return
    # The answer to our asking may have been lost or refused: what counts is that the money has gone.
    on_its_way = Refund.objects.filter(pk=refund.pk, state__in=(RefundState.APPROVED, RefundState.FAILED))
    if not on_its_way.update(state=RefundState.PAID, paid_at=move.at):
        return
    tell([about_refund(order, refund, kinds.REFUND_PAID)], now=now)


def _review(order: Order, kind: ReviewKind, entry: LedgerEntry, detail: str, *, now: datetime) -> None:
    open_review_item(
        kind=kind,
        key=f"{entry.gateway}:{entry.transaction_id}",
        order=order,
        detail=f"Order {order.reference}, capture {entry.transaction_id}: {detail}",
        now=now,
    )
