"""The demo's payments in the books of the sandbox gateway, so that money can be given back out of them."""

from datetime import UTC, datetime
from pathlib import Path

from django.conf import settings

from emulators.books import Books
from orders.gateways.emulators.sandbox import SCHEMA
from orders.models import AttemptState, EntryKind, LedgerEntry, PaymentAttempt

# Where `gateway_emulators` keeps them unless told otherwise.
FILE = settings.VAR_DIR / "sandbox-gateway.sqlite3"
STATES = (AttemptState.CAPTURED, AttemptState.DECLINED, AttemptState.EXPIRED)


def enter_payments(file: Path) -> None:
    """Enter every payment that is over. What the books have stays as it is."""
    attempts = PaymentAttempt.objects.filter(gateway="sandbox", state__in=STATES).exclude(provider_id="")
    captures = LedgerEntry.objects.filter(gateway="sandbox", kind=EntryKind.CAPTURE).select_related("attempt")
    books = Books(str(file), SCHEMA)
    try:
        with books.transaction() as db:
            db.executemany(
                "INSERT OR IGNORE INTO payment (id, idempotency_key, asked, reference, minor, currency, description, "
                "return_url, webhook_url, language, status, created_at, expires_at) "
                "VALUES (?, ?, '', ?, ?, ?, 'Demo', ?, '', 'en', ?, ?, ?)",
                [
                    (
                        attempt.provider_id,
                        attempt.reference,
                        attempt.reference,
                        attempt.amount_minor,
                        attempt.currency,
                        settings.SITE_URL,
                        attempt.state,
                        _written(attempt.created_at),
                        _written(attempt.expires_at),
                    )
                    for attempt in attempts
                ],
            )
            db.executemany(
                "INSERT OR IGNORE INTO capture (id, payment, minor, currency, at) VALUES (?, ?, ?, ?, ?)",
                [
                    (
                        entry.transaction_id,
                        entry.attempt.provider_id,
                        entry.minor,
                        entry.currency,
                        _written(entry.occurred_at),
                    )
                    for entry in captures
                ],
            )
    finally:
        books.close()


def _written(at: datetime) -> str:
    """As the sandbox writes times."""
    return at.astimezone(UTC).isoformat(timespec="microseconds").replace("+00:00", "Z")
