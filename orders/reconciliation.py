"""Comparing our ledger with the gateways' own books, day by day: nothing is lost without somebody noticing.

What a gateway's books know of a payment of ours and we do not is fetched first. Some gateways list the refunds of
their own desk nowhere but in their books: those are booked from there.
"""

import logging
from collections.abc import Collection, Iterable, Iterator, Mapping
from datetime import UTC, date, datetime, time, timedelta

from inventory.money import Money
from orders.gateways import GATEWAYS, gateway_named
from orders.gateways.protocol import Booking, CredentialsRefused, Declined, MoneyMoved, Snapshot, Unavailable
from orders.ledger import apply_snapshot
from orders.models import EntryKind, LedgerEntry, PaymentAttempt, RefundState, ReturnState, ReviewKind
from orders.payments import refresh_attempt
from orders.reviews import open_review_item
from orders.unanswered import report_silence

logger = logging.getLogger(__name__)

# Each day is compared on the days after it as well: a provider may book late, and we may hear late.
DAYS = 3

# (kind, the gateway's transaction) → (amount as written, reference of our payment or empty).
Books = Mapping[tuple[str, str], tuple[str, str]]


def reconcile(*, now: datetime) -> int:
    """Compare the last days with every gateway that is configured; return how many differences there are.

    Each difference comes up for review once, and so does a day that could not be compared and is not asked for
    again. What goes wrong with one day does not keep the others from being compared: it is raised at the end.
    """
    differences = 0
    faults: list[Exception] = []
    for slug in GATEWAYS:
        if gateway_named(slug).missing():
            continue
        for back in range(1, DAYS + 1):
            day = now.astimezone(UTC).date() - timedelta(days=back)
            try:
                differences += compare(gateway=slug, day=day, now=now)
            except (Unavailable, Declined) as problem:
                # Of a provider that keeps Beijing days, the last one is not closed yet.
                logger.warning("The books of %s for %s cannot be compared: %s", slug, day, problem)
                if isinstance(problem, CredentialsRefused):
                    report_silence(problem, gateway=slug, about=f"{day}", order=None, since=now, now=now)
                if back == DAYS:
                    _report_unseen(slug, day, str(problem), now=now)
            except Exception as fault:  # noqa: BLE001 (raised below, with the others)
                fault.add_note(f"Books of {slug} for {day}")
                faults.append(fault)
                if back == DAYS:
                    _report_unseen(slug, day, type(fault).__name__, now=now)
    if faults:
        raise ExceptionGroup("Books that could not be compared", faults)
    return differences


def compare(*, gateway: str, day: date, now: datetime) -> int:
    """Compare one day of UTC with one gateway; return how many differences there are.

    Raises Unavailable or Declined when the gateway does not show its books.
    """
    bookings = list(gateway_named(gateway).bookings(day=day))
    ours = _ours(gateway, day)
    unknown = [booking for booking in bookings if (booking.kind, booking.transaction_id) not in ours]
    if unknown:
        _catch_up(gateway, unknown, now=now)
        ours = _ours(gateway, day)
    theirs: Books = {
        (booking.kind, booking.transaction_id): (str(booking.amount), booking.reference)
        for booking in bookings
    }
    forgotten = _forgotten(gateway, ours, theirs)
    found = list(_differences({key: ours[key] for key in ours if key not in forgotten}, theirs))
    for kind, transaction, detail in found:
        open_review_item(
            kind=ReviewKind.BOOKS_DIFFER,
            key=f"{gateway}:{kind}:{transaction}",
            order=None,
            detail=f"{gateway}, {day}: {kind} {transaction} {detail}",
            now=now,
        )
    return len(found)


def _report_unseen(gateway: str, day: date, why: str, *, now: datetime) -> None:
    """Nobody asks for this day again."""
    open_review_item(
        kind=ReviewKind.BOOKS_UNSEEN,
        key=f"{gateway}:{day}",
        order=None,
        detail=f"The books of {gateway} for {day} could not be compared on any of {DAYS} nights, last: {why}",
        now=now,
    )


def _catch_up(gateway: str, unknown: Iterable[Booking], *, now: datetime) -> None:
    """Have what the books know of our payments, and we do not, booked as far as it can be."""
    of_payment: dict[str, list[Booking]] = {}
    for booking in unknown:
        of_payment.setdefault(booking.reference, []).append(booking)
    attempts = PaymentAttempt.objects.filter(gateway=gateway, reference__in=of_payment)
    for attempt in attempts.order_by("pk"):
        try:
            refresh_attempt(attempt_id=attempt.pk, now=now)
        except Unavailable as problem:
            logger.warning("Payment %s was not answered for: %s", attempt, problem)
            continue
        refunds = tuple(_of_the_desk(attempt, of_payment[attempt.reference]))
        if refunds:
            snapshot = Snapshot(provider_id=attempt.provider_id, state="captured", refunds=refunds)
            apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=now)


def _of_the_desk(attempt: PaymentAttempt, bookings: Iterable[Booking]) -> Iterator[MoneyMoved]:
    """The refunds that the gateway, asked about the payment, has not told of.

    One that may be ours, on its way, is left for a later night: its own report closes it. So is one of money
    that is not there.
    """
    left: dict[str, int] = {}
    for entry in attempt.ledger.all():
        left[entry.currency] = left.get(entry.currency, 0) + entry.minor
    for booking in bookings:
        minor, currency = booking.amount.minor, booking.amount.currency
        is_ours = (
            attempt.refunds.filter(state=RefundState.APPROVED, minor=minor).exists()
            or attempt.money_returns.filter(state=ReturnState.DUE, minor=minor).exists()
        )
        is_booked = LedgerEntry.objects.filter(
            gateway=attempt.gateway, kind=booking.kind, transaction_id=booking.transaction_id
        ).exists()
        if (
            booking.kind == EntryKind.REFUND
            and minor <= left.get(currency, 0)
            and not is_ours
            and not is_booked
        ):
            left[currency] -= minor
            yield MoneyMoved(booking.transaction_id, booking.amount, booking.at)


def _ours(gateway: str, day: date) -> Books:
    midnight = datetime.combine(day, time.min, UTC)
    entries = LedgerEntry.objects.filter(
        gateway=gateway, occurred_at__gte=midnight, occurred_at__lt=midnight + timedelta(days=1)
    )
    return {
        (entry.kind, entry.transaction_id): (
            str(Money(abs(entry.minor), entry.currency)),
            entry.attempt.reference,
        )
        for entry in entries.exclude(kind=EntryKind.BOUNCE).select_related("attempt").iterator(2_000)
    }


def _forgotten(gateway: str, ours: Books, theirs: Books) -> Collection[tuple[str, str]]:
    """Our refunds that came back and are no longer in the gateway's books: some take them out again."""
    missing = [transaction for kind, transaction in ours.keys() - theirs.keys() if kind == EntryKind.REFUND]
    bounces = LedgerEntry.objects.filter(gateway=gateway, kind=EntryKind.BOUNCE, transaction_id__in=missing)
    return [
        (EntryKind.REFUND, transaction) for transaction in bounces.values_list("transaction_id", flat=True)
    ]


def _differences(ours: Books, theirs: Books) -> Iterable[tuple[str, str, str]]:
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in theirs:
            yield *key, f"of {ours[key][0]} is in our ledger and not in the gateway's books."
        elif key not in ours:
            reference = f" for {theirs[key][1]}" if theirs[key][1] else ""
            yield *key, f"of {theirs[key][0]}{reference} is in the gateway's books and not in our ledger."
        elif ours[key][0] != theirs[key][0]:
            yield *key, f"is {ours[key][0]} in our ledger and {theirs[key][0]} in the gateway's books."
