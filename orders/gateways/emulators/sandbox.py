"""The provider behind `gateways.sandbox`: its API, its payment page and its webhooks.

    POST /v1/payments                 Idempotency-Key; {reference, amount: "49.90", currency, description, return_url,
                                      webhook_url?, expires_at, language} → 201 and the payment; 200 when it was there
    GET  /v1/payments/{id}
    GET  /v1/payments?reference=…     {payments: […], next}: `next` goes into ?after= for the rest of a long list
    GET  /v1/payments?moved_on=…      those with a capture or a refund on that day of UTC
    POST /v1/payments/{id}/cancel     409 when it has been paid
    POST /v1/refunds                  Idempotency-Key; {payment, reference, amount, currency} → 201 and the refund
    GET  /pay/{id}                    where the buyer decides

A payment is pending, then captured, declined, cancelled or expired. Amounts are decimal strings, times ISO 8601 in
UTC. Webhooks follow the Standard Webhooks specification and say which payment to ask about, no more.
"""

import base64
import binascii
import enum
import hashlib
import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit

from django.utils.functional import Promise
from django.utils.text import format_lazy
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import JSON, POLICY, Emulator, Refused, answer, page, read_object
from inventory.money import Money, exponent_of

MERCHANT = "VMOS Cloud"
LANGUAGES = ("en", "zh-hans", "zh-hant")
PAGE_LENGTH = 100

REFERENCE = re.compile(r"[A-Za-z0-9][A-Za-z0-9-]{0,31}")
IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
# Nothing that could end a directive of the content security policy, which names the address's host.
WEB_ADDRESS = re.compile(
    r"https?://[A-Za-z0-9._\-]+(:[0-9]{1,5})?([/?][!-~]*)?|https?://\[[0-9a-f:]+\](:[0-9]{1,5})?([/?][!-~]*)?"
)


class Status(enum.StrEnum):
    PENDING = "pending"
    CAPTURED = "captured"
    DECLINED = "declined"
    CANCELLED = "cancelled"
    EXPIRED = "expired"


class Outcome(enum.StrEnum):
    """What the buyer, or rather the tester, can decide on the payment page."""

    APPROVE = "approve"
    DECLINE = "decline"
    PAY_LESS = "pay-less"
    PAY_MORE = "pay-more"
    PAY_TWICE = "pay-twice"
    PAY_OTHER_CURRENCY = "pay-other-currency"
    PAY_UNTOLD = "pay-untold"
    PAY_TOLD_TWICE = "pay-told-twice"
    PAY_LATE = "pay-late"

    def fits(self, status: str) -> bool:
        """Whether it can be chosen for a payment in `status`; what does not fit any more changes nothing."""
        if self is Outcome.PAY_LATE:
            return status in (Status.EXPIRED, Status.CANCELLED)
        return status == Status.PENDING


SCHEMA = """
CREATE TABLE IF NOT EXISTS payment (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT NOT NULL UNIQUE,
    asked TEXT NOT NULL,  -- the request, to tell a repetition from another one with the same key
    reference TEXT NOT NULL UNIQUE,
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    description TEXT NOT NULL,
    return_url TEXT NOT NULL,
    webhook_url TEXT NOT NULL,
    language TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('pending', 'captured', 'declined', 'cancelled', 'expired')),
    created_at TEXT NOT NULL,
    expires_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS payment_open ON payment (expires_at) WHERE status = 'pending';
CREATE TABLE IF NOT EXISTS capture (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    payment TEXT NOT NULL REFERENCES payment (id),
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS capture_payment ON capture (payment);
CREATE INDEX IF NOT EXISTS capture_at ON capture (at);
CREATE TABLE IF NOT EXISTS refund (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    idempotency_key TEXT NOT NULL UNIQUE,
    asked TEXT NOT NULL,
    payment TEXT NOT NULL REFERENCES payment (id),
    reference TEXT NOT NULL,
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS refund_payment ON refund (payment);
"""


class Sandbox(Emulator):
    """`secret` is one or, while it is being changed, several `whsec_…` with spaces between them: all of them sign."""

    schema = SCHEMA

    def __init__(self, *, key: str, secret: str, books: str, backoff: Sequence[float] = BACKOFF) -> None:
        """Raises ValueError when `secret` is no secret of the Standard Webhooks specification."""
        self._secrets = [_secret_bytes(written) for written in secret.split() or [""]]
        super().__init__(key=key, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        return [
            Rule("/v1/payments", methods=["POST"], endpoint=self.api(self.open_payment)),
            Rule("/v1/payments", methods=["GET"], endpoint=self.api(self.list_payments)),
            Rule("/v1/payments/<payment_id>", methods=["GET"], endpoint=self.api(self.show_payment)),
            Rule(
                "/v1/payments/<payment_id>/cancel", methods=["POST"], endpoint=self.api(self.cancel_payment)
            ),
            Rule("/v1/refunds", methods=["POST"], endpoint=self.api(self.refund_payment)),
            Rule("/pay/<payment_id>", methods=["GET"], endpoint=self.show_page),
            Rule("/pay/<payment_id>", methods=["POST"], endpoint=self.decide),
        ]

    def sign(self, webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        timestamp = int(_now().timestamp())
        signed = f"{webhook_id}.{timestamp}.{body}".encode()
        signatures = []
        for secret in self._secrets:
            key = secret if is_right else hashlib.sha256(secret).digest()
            signatures.append("v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode())
        return {
            "webhook-id": webhook_id,
            "webhook-timestamp": str(timestamp),
            "webhook-signature": " ".join(signatures),
        }

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            self._expire(db)
            rows = db.execute("SELECT * FROM payment ORDER BY number").fetchall()
            return {"payments": [self._payment(db, row) for row in rows]}

    # --- the API -------------------------------------------------------------------------------------

    def open_payment(self, request: Request) -> Response:
        key, asked = _idempotency_key(request), read_object(request)
        with self.books.transaction() as db:
            self._expire(db)
            row = _repeated(db, "payment", key, asked)
            if row:
                return answer(self._payment(db, row))
            payment_id = f"pay_{secrets.token_hex(12)}"
            try:
                db.execute(
                    """
                    INSERT INTO payment VALUES (
                        NULL, :id, :idempotency_key, :asked, :reference, :minor, :currency, :description,
                        :return_url, :webhook_url, :language, 'pending', :created_at, :expires_at
                    )
                    """,
                    {
                        **_new_payment(asked),
                        "id": payment_id,
                        "idempotency_key": key,
                        "asked": _canonical(asked),
                        "created_at": _written(_now()),
                    },
                )
            except sqlite3.IntegrityError:
                raise Refused(409, "reference_taken", "Another payment has this reference.") from None
            return answer(self._payment(db, _row(db, payment_id)), 201)

    def list_payments(self, request: Request) -> Response:
        conditions = ["number > ?"]
        parameters: list[object] = [request.args.get("after", 0, type=int)]
        if "reference" in request.args:
            conditions.append("reference = ?")
            parameters.append(request.args["reference"])
        if "moved_on" in request.args:
            try:
                day = date.fromisoformat(request.args["moved_on"])
            except ValueError:
                raise Refused(422, "invalid", "moved_on is a day, as in 2026-11-23.") from None
            conditions.append(
                "id IN (SELECT payment FROM capture WHERE at >= ? AND at < ?"
                " UNION SELECT payment FROM refund WHERE at >= ? AND at < ?)"
            )
            parameters += [f"{day}T", f"{day + timedelta(days=1)}T"] * 2
        with self.books.transaction() as db:
            self._expire(db)
            query = f"SELECT * FROM payment WHERE {' AND '.join(conditions)} ORDER BY number LIMIT {PAGE_LENGTH + 1}"  # noqa: S608 (constants)
            rows = db.execute(query, parameters).fetchall()
            shown = rows[:PAGE_LENGTH]
            return answer(
                {
                    "payments": [self._payment(db, row) for row in shown],
                    "next": shown[-1]["number"] if len(rows) > PAGE_LENGTH else None,
                }
            )

    def show_payment(self, _request: Request, payment_id: str) -> Response:
        with self.books.transaction() as db:
            self._expire(db)
            return answer(self._payment(db, _row(db, payment_id)))

    def cancel_payment(self, _request: Request, payment_id: str) -> Response:
        with self.books.transaction() as db:
            self._expire(db)
            row = _row(db, payment_id)
            if row["status"] == Status.CAPTURED:
                raise Refused(409, "already_captured", "The payment has been paid.")
            if row["status"] == Status.PENDING:
                self._settle(db, row, Status.CANCELLED)
            return answer(self._payment(db, _row(db, payment_id)))

    def refund_payment(self, request: Request) -> Response:
        key, asked = _idempotency_key(request), read_object(request)
        with self.books.transaction() as db:
            repeated = _repeated(db, "refund", key, asked)
            if repeated:
                return answer(_refund(repeated))
            match asked:
                case {
                    "payment": str(payment_id),
                    "reference": str(reference),
                    "amount": str(amount),
                    "currency": str(currency),
                    **rest,
                } if not rest and REFERENCE.fullmatch(reference):
                    back = _amount(amount, currency)
                case _:
                    raise Refused(422, "invalid", "A refund has payment, reference, amount and currency.")
            row = _row(db, payment_id)
            (left,) = db.execute(
                """
                SELECT (SELECT coalesce(sum(minor), 0) FROM capture WHERE payment = :id AND currency = :currency)
                     - (SELECT coalesce(sum(minor), 0) FROM refund WHERE payment = :id AND currency = :currency)
                """,
                {"id": payment_id, "currency": currency},
            ).fetchone()
            if back.minor > left:
                raise Refused(422, "exceeds_captured", f"Only {Money(left, currency)} can be refunded.")
            refund_id = f"ref_{secrets.token_hex(12)}"
            db.execute(
                "INSERT INTO refund VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
                (
                    refund_id,
                    key,
                    _canonical(asked),
                    payment_id,
                    reference,
                    back.minor,
                    currency,
                    _written(_now()),
                ),
            )
            self._tell(db, row, "payment.refunded")
            return answer(
                _refund(db.execute("SELECT * FROM refund WHERE id = ?", (refund_id,)).fetchone()), 201
            )

    # --- the payment page ----------------------------------------------------------------------------

    def show_page(self, _request: Request, payment_id: str) -> Response:
        with self.books.transaction() as db:
            self._expire(db)
            row = db.execute("SELECT * FROM payment WHERE id = ?", (payment_id,)).fetchone()
        if not row:
            return page("emulators/sandbox/unknown.html", {}, 404)
        amount = Money(row["minor"], row["currency"])
        with override(row["language"]):
            response = page(
                "emulators/sandbox/pay.html",
                {
                    "merchant": MERCHANT,
                    "payment": row,
                    "language": row["language"],
                    "amount": amount.localised(),
                    "expires_at": datetime.fromisoformat(row["expires_at"]),
                    "more_outcomes": [
                        (outcome.value, label)
                        for outcome, label in _more_outcomes(amount).items()
                        if outcome.fits(row["status"])
                    ],
                },
            )
        # Browsers hold the redirect that follows a form to the policy as well.
        shop = "{0.scheme}://{0.netloc}".format(urlsplit(row["return_url"]))
        response.headers["Content-Security-Policy"] = f"{POLICY} {shop}"
        return response

    def decide(self, request: Request, payment_id: str) -> Response:
        try:
            outcome = Outcome(request.form.get("outcome", ""))
        except ValueError:
            raise BadRequest from None
        with self.books.transaction() as db:
            self._expire(db)
            row = _row(db, payment_id)
            if outcome.fits(row["status"]):
                self._apply(db, row, outcome)
        return redirect(row["return_url"], 303)

    def _apply(self, db: sqlite3.Connection, row: sqlite3.Row, outcome: Outcome) -> None:
        if outcome is Outcome.DECLINE:
            self._settle(db, row, Status.DECLINED)
            return
        captures = _captures(outcome, Money(row["minor"], row["currency"]))
        db.execute("UPDATE payment SET status = 'captured' WHERE id = ?", (row["id"],))
        for capture in captures:
            db.execute(
                "INSERT INTO capture VALUES (NULL, ?, ?, ?, ?, ?)",
                (
                    f"cap_{secrets.token_hex(12)}",
                    row["id"],
                    capture.minor,
                    capture.currency,
                    _written(_now()),
                ),
            )
            copies = {Outcome.PAY_UNTOLD: 0, Outcome.PAY_TOLD_TWICE: 2}.get(outcome, 1)
            self._tell(db, row, "payment.captured", copies=copies)

    # --- what happens to a payment -------------------------------------------------------------------

    def _expire(self, db: sqlite3.Connection) -> None:
        """Let time have passed: nothing else notices it, so this comes before every look at a payment."""
        due = db.execute(
            "SELECT * FROM payment WHERE status = 'pending' AND expires_at <= ?", (_written(_now()),)
        ).fetchall()
        for row in due:
            self._settle(db, row, Status.EXPIRED)

    def _settle(self, db: sqlite3.Connection, row: sqlite3.Row, status: Status) -> None:
        db.execute("UPDATE payment SET status = ? WHERE id = ?", (status.value, row["id"]))
        self._tell(db, row, f"payment.{status.value}")

    def _tell(self, db: sqlite3.Connection, row: sqlite3.Row, event: str, *, copies: int = 1) -> None:
        if row["webhook_url"]:
            body = {
                "type": event,
                "timestamp": _written(_now()),
                "data": {"payment": row["id"], "reference": row["reference"]},
            }
            self.deliveries.announce(db, url=row["webhook_url"], body=json.dumps(body), copies=copies)

    def _payment(self, db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
        captures = db.execute(
            "SELECT * FROM capture WHERE payment = ? ORDER BY number", (row["id"],)
        ).fetchall()
        refunds = db.execute(
            "SELECT * FROM refund WHERE payment = ? ORDER BY number", (row["id"],)
        ).fetchall()
        return {
            "id": row["id"],
            "reference": row["reference"],
            "status": row["status"],
            **_shown(row),
            "description": row["description"],
            "language": row["language"],
            "return_url": row["return_url"],
            "pay_url": f"{self.public_url}/pay/{row['id']}",
            "created_at": row["created_at"],
            "expires_at": row["expires_at"],
            "captures": [
                {"id": capture["id"], **_shown(capture), "at": capture["at"]} for capture in captures
            ],
            "refunds": [_refund(refund) for refund in refunds],
        }


def _captures(outcome: Outcome, amount: Money) -> list[Money]:
    """The money that moves when a payment of `amount` is paid in this way."""
    if outcome is Outcome.PAY_LESS:
        return [amount - Money(1, amount.currency)]
    if outcome is Outcome.PAY_MORE:
        return [amount + _one(amount.currency)]
    if outcome is Outcome.PAY_TWICE:
        return [amount, amount]
    if outcome is Outcome.PAY_OTHER_CURRENCY:
        return [Money(amount.minor, _other_currency(amount.currency))]
    return [amount]


def _more_outcomes(amount: Money) -> dict[Outcome, str | Promise]:
    """What can be chosen beside approving and declining, in words of the active language."""
    less = Money(1, amount.currency)
    outcomes: dict[Outcome, str | Promise] = {
        Outcome.PAY_LESS: format_lazy(_("Pay {amount} less"), amount=less.localised()),
        Outcome.PAY_MORE: format_lazy(_("Pay {amount} more"), amount=_one(amount.currency).localised()),
        Outcome.PAY_TWICE: _("Pay twice (two captures)"),
        Outcome.PAY_OTHER_CURRENCY: format_lazy(
            _("Pay in another currency ({amount})"),
            amount=Money(amount.minor, _other_currency(amount.currency)).localised(),
        ),
        Outcome.PAY_UNTOLD: _("Pay, but lose the webhook"),
        Outcome.PAY_TOLD_TWICE: _("Pay and send the webhook twice"),
        Outcome.PAY_LATE: _("Pay all the same, too late"),
    }
    if amount == less:
        del outcomes[Outcome.PAY_LESS]
    return outcomes


def _one(currency: str) -> Money:
    return Money(10 ** exponent_of(currency), currency)


def _other_currency(currency: str) -> str:
    return "USD" if currency == "JPY" else "JPY"


def _new_payment(asked: JSON) -> dict[str, object]:
    """The columns that the request decides. Raises Refused."""
    match asked:
        case {
            "reference": str(reference),
            "amount": str(amount),
            "currency": str(currency),
            "description": str(description),
            "return_url": str(return_url),
            "expires_at": str(expires_at),
            "language": str(language),
            **rest,
        } if rest.keys() <= {"webhook_url"}:
            price = _amount(amount, currency)
        case _:
            raise Refused(422, "invalid", "A field is missing, unknown or of the wrong type.")
    webhook_url = rest.get("webhook_url", "")
    if not REFERENCE.fullmatch(reference):
        raise Refused(422, "invalid", "reference has 1 to 32 letters, digits and hyphens.")
    if not 1 <= len(description) <= 200:
        raise Refused(422, "invalid", "description has 1 to 200 characters.")
    if not _is_web_address(return_url) or not (webhook_url == "" or _is_web_address(webhook_url)):
        raise Refused(422, "invalid", "An address is not one of the web.")
    expires = _time(expires_at)
    if expires <= _now():
        raise Refused(422, "invalid", "expires_at has passed.")
    return {
        "reference": reference,
        "minor": price.minor,
        "currency": currency,
        "description": description,
        "return_url": return_url,
        "webhook_url": webhook_url,
        "language": language if language in LANGUAGES else LANGUAGES[0],
        "expires_at": _written(expires),
    }


def _repeated(db: sqlite3.Connection, table: str, key: str, asked: JSON) -> sqlite3.Row | None:
    """What was made when `key` came first. Raises Refused when something else was asked for then."""
    row: sqlite3.Row | None = db.execute(
        f"SELECT * FROM {table} WHERE idempotency_key = ?",  # noqa: S608 (one of two constants)
        (key,),
    ).fetchone()
    if row and row["asked"] != _canonical(asked):
        raise Refused(409, "idempotency_conflict", "This key has come with another request.")
    return row


def _row(db: sqlite3.Connection, payment_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM payment WHERE id = ?", (payment_id,)).fetchone()
    if not row:
        raise Refused(404, "not_found", "There is no such payment.")
    return row


def _refund(row: sqlite3.Row) -> JSON:
    return {
        "id": row["id"],
        "payment": row["payment"],
        "reference": row["reference"],
        **_shown(row),
        "at": row["at"],
    }


def _shown(row: sqlite3.Row) -> dict[str, str]:
    return {"amount": Money(row["minor"], row["currency"]).written(), "currency": row["currency"]}


def _idempotency_key(request: Request) -> str:
    key = request.headers.get("Idempotency-Key", "")
    if not IDEMPOTENCY_KEY.fullmatch(key):
        raise Refused(400, "idempotency_key_missing", "The Idempotency-Key header is missing.")
    return key


def _canonical(asked: JSON) -> str:
    return json.dumps(asked, sort_keys=True)


def _amount(written: str, currency: str) -> Money:
    try:
        amount = Money.parse(written, currency)
    except ValueError as error:
        raise Refused(422, "invalid", str(error)) from None
    if not amount:
        raise Refused(422, "invalid", "The amount is 0.")
    return amount


def _is_web_address(address: object) -> bool:
    return isinstance(address, str) and len(address) <= 500 and bool(WEB_ADDRESS.fullmatch(address))


def _time(written: str) -> datetime:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise Refused(422, "invalid", "expires_at is not a time.") from None
    if at.tzinfo is None:
        raise Refused(422, "invalid", "expires_at has no zone.")
    return at.astimezone(UTC)


def _written(at: datetime) -> str:
    """Of one length, so that the order of the strings is that of the times."""
    return at.isoformat(timespec="microseconds").replace("+00:00", "Z")


def _now() -> datetime:
    return datetime.now(UTC)


def _secret_bytes(written: str) -> bytes:
    prefix, encoded = written[:6], written[6:]
    try:
        secret = base64.b64decode(encoded, validate=True)
    except binascii.Error:
        secret = b""
    if prefix != "whsec_" or not secret:
        raise ValueError("A webhook secret is whsec_ and base64.")
    return secret
