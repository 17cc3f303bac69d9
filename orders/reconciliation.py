"""Comparing our ledger with the gateways' own books, day by day: nothing is lost without somebody noticing."""

import logging
from collections.abc import Iterable, Mapping
from datetime import UTC, date, datetime, time, timedelta

from inventory.money import Money
from orders.gateways import GATEWAYS, gateway_named
from orders.gateways.protocol import Declined, Unavailable
from orders.models import EntryKind, LedgerEntry, ReviewKind
from orders.reviews import open_review_item

logger = logging.getLogger(__name__)

# Each day is compared on the days after it as well: a provider may book late, and we may hear late.
DAYS = 3

# (kind, the gateway's transaction) → (amount as written, reference of our payment or empty).
Books = Mapping[tuple[str, str], tuple[str, str]]


def reconcile(*, now: datetime) -> int:
    """Compare the last days with every gateway that is configured; return how many differences there are.

    Each difference comes up for review once. A gateway that cannot be reached is asked again tomorrow.
    """
    differences = 0
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
    return differences


def compare(*, gateway: str, day: date, now: datetime) -> int:
    """Compare one day of UTC with one gateway; return how many differences there are.

    Raises Unavailable or Declined when the gateway does not show its books.
    """
    theirs: Books = {
        (booking.kind, booking.transaction_id): (str(booking.amount), booking.reference)
        for booking in gateway_named(gateway).bookings(day=day)
    }
    ours = _ours(gateway, day)
    found = [
        (kind, transaction, detail)
        for kind, transaction, detail in _differences(ours, theirs)
        if (kind, transaction) in theirs or not _is_undone(gateway, kind, transaction)
    ]
    for kind, transaction, detail in found:
        open_review_item(
            kind=ReviewKind.BOOKS_DIFFER,
            key=f"{gateway}:{kind}:{transaction}",
            order=None,
            detail=f"{gateway}, {day}: {kind} {transaction} {detail}",
            now=now,
        )
    return len(found)


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
        for entry in entries.select_related("attempt").iterator(2_000)
    }


def _is_undone(gateway: str, kind: str, transaction: str) -> bool:
    """Whether it is a refund that came back, or its coming back: some gateways' books forget both."""
    return kind in (EntryKind.REFUND, EntryKind.BOUNCE) and (
        LedgerEntry.objects.filter(
            gateway=gateway, kind=EntryKind.BOUNCE, transaction_id=transaction
        ).exists()
    )


def _differences(ours: Books, theirs: Books) -> Iterable[tuple[str, str, str]]:
    for key in sorted(ours.keys() | theirs.keys()):
        if key not in theirs:
            yield *key, f"of {ours[key][0]} is in our ledger and not in the gateway's books."
        elif key not in ours:
            reference = f" for {theirs[key][1]}" if theirs[key][1] else ""
            yield *key, f"of {theirs[key][0]}{reference} is in the gateway's books and not in our ledger."
        elif ours[key][0] != theirs[key][0]:
            yield *key, f"is {ours[key][0]} in our ledger and {theirs[key][0]} in the gateway's books."
