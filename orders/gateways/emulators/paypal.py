"""The provider behind `gateways.paypal`: of PayPal's REST API what the shop uses, its approval page and its webhooks.

    POST  /v1/oauth2/token                      client credentials for an access token, which all but this one want
    POST  /v2/checkout/orders                   PayPal-Request-Id; 201, or 200 when the key made an order before
    GET   /v2/checkout/orders/{id}
    PATCH /v2/checkout/orders/{id}              of all that can be changed, the intent
    POST  /v2/checkout/orders/{id}/capture      PayPal-Request-Id; of an approved order
    GET   /v2/payments/captures/{id}
    POST  /v2/payments/captures/{id}/refund     PayPal-Request-Id
    GET   /v1/customer/disputes[/{id}]
    GET   /v1/reporting/transactions
    POST  /v1/notifications/verify-webhook-signature
    GET   /v1/notifications/certs/{id}          for everybody
    GET   /checkoutnow?token=…                  where the buyer decides, and the tester what becomes of it

Webhooks go to one address, as at PayPal, where it is registered beforehand. Beside them a tester has /_tokens, which
takes all access tokens back.
"""

import base64
import binascii
import enum
import hashlib
import hmac
import json
import re
import secrets
import socket
import sqlite3
import uuid
import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from functools import cache
from urllib.parse import urlencode, urlsplit

from cryptography import x509
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from django.utils.translation import override
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import JSON, POLICY, Emulator, Refused, View, answer, page
from inventory.money import Money, exponent_of

MERCHANT = "VMOS Cloud"
CURRENCIES = ("USD", "HKD", "EUR", "JPY")
LANGUAGES = {"zh-CN": "zh-hans", "zh-HK": "zh-hant"}
TOKEN_SECONDS = 32_400
# How long the key of a request is remembered.
ORDER_KEYS = timedelta(hours=6)
REFUND_KEYS = timedelta(days=45)
# An approval that is not used within this time is taken back.
APPROVAL = timedelta(hours=3)

REFERENCE = re.compile(r"[!-~]{1,127}")
REQUEST_ID = re.compile(r"[!-~]{1,108}")
WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\-]+(:[0-9]{1,5})?([/?][!-~]*)?")
ALPHABET = "ABCDEFGHJKLMNPRSTUVWXY0123456789"


class Outcome(enum.StrEnum):
    """What the buyer can decide on the approval page, and the tester after it."""

    APPROVE = "approve"
    APPROVE_AND_LEAVE = "approve-and-leave"
    CANCEL = "cancel"
    REFUSE_CARD = "refuse-card"
    DECLINE = "decline"
    HOLD = "hold"
    RELEASE = "release"
    DENY = "deny"
    DELAY_REFUNDS = "delay-refunds"
    COMPLETE_REFUNDS = "complete-refunds"
    FAIL_REFUNDS = "fail-refunds"
    REFUND_HERE = "refund-here"
    INQUIRE = "inquire"
    CHARGE_BACK = "charge-back"
    WIN = "win"
    LOSE = "lose"


LABELS: dict[Outcome, str | Promise] = {
    Outcome.APPROVE_AND_LEAVE: _("Approve, but never come back to the shop"),
    Outcome.REFUSE_CARD: _("Approve with a card that is refused (another one may do)"),
    Outcome.DECLINE: _("Approve, but the payment is declined in the end"),
    Outcome.HOLD: _("Approve, but the payment is held for a review"),
    Outcome.RELEASE: _("End the review: the payment is good"),
    Outcome.DENY: _("End the review: the payment is denied"),
    Outcome.DELAY_REFUNDS: _("Let refunds wait from now on"),
    Outcome.COMPLETE_REFUNDS: _("Complete the refunds that wait"),
    Outcome.FAIL_REFUNDS: _("Let the refunds that wait fail"),
    Outcome.REFUND_HERE: _("Refund what is left, outside the shop"),
    Outcome.INQUIRE: _("Open a dispute: an inquiry, which takes no money"),
    Outcome.CHARGE_BACK: _("Open a dispute: a chargeback, which takes the money"),
    Outcome.WIN: _("Decide the dispute for the shop"),
    Outcome.LOSE: _("Decide the dispute for the buyer"),
}
# How the capture of an order ends that was approved in this way.
APPROVALS = {
    Outcome.APPROVE: "COMPLETED",
    Outcome.APPROVE_AND_LEAVE: "COMPLETED",
    Outcome.REFUSE_CARD: "INSTRUMENT_DECLINED",
    Outcome.DECLINE: "DECLINED",
    Outcome.HOLD: "PENDING",
}

SCHEMA = """
CREATE TABLE IF NOT EXISTS token (secret TEXT PRIMARY KEY, expires_at TEXT NOT NULL);
CREATE TABLE IF NOT EXISTS purchase (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT NOT NULL,
    reference_id TEXT NOT NULL,
    custom_id TEXT NOT NULL,
    invoice_id TEXT NOT NULL,
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    description TEXT NOT NULL,
    return_url TEXT NOT NULL,
    cancel_url TEXT NOT NULL,
    locale TEXT NOT NULL,
    intent TEXT NOT NULL CHECK (intent IN ('CAPTURE', 'AUTHORIZE')),
    status TEXT NOT NULL CHECK (status IN ('PAYER_ACTION_REQUIRED', 'APPROVED', 'COMPLETED', 'VOIDED')),
    ending TEXT NOT NULL DEFAULT '',  -- how its capture will end
    delays_refunds INTEGER NOT NULL DEFAULT 0,
    created_at TEXT NOT NULL,
    approved_at TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS purchase_request ON purchase (request_id);
CREATE TABLE IF NOT EXISTS capture (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    purchase TEXT NOT NULL UNIQUE REFERENCES purchase (id),
    status TEXT NOT NULL CHECK (status IN ('COMPLETED', 'PENDING', 'DECLINED')),
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS refund (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    request_id TEXT NOT NULL,
    capture TEXT NOT NULL REFERENCES capture (id),
    status TEXT NOT NULL CHECK (status IN ('COMPLETED', 'PENDING', 'FAILED')),
    invoice_id TEXT NOT NULL,
    custom_id TEXT NOT NULL,
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS refund_capture ON refund (capture);
CREATE TABLE IF NOT EXISTS dispute (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    capture TEXT NOT NULL REFERENCES capture (id),
    stage TEXT NOT NULL CHECK (stage IN ('INQUIRY', 'CHARGEBACK')),
    outcome TEXT NOT NULL DEFAULT '',
    at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
"""


@dataclass(frozen=True, slots=True)
class _Signer:
    key: rsa.RSAPrivateKey
    certificate: bytes
    certificate_id: str


class PayPal(Emulator):
    """`webhook_url` is where it is registered to send the webhooks of `webhook_id`; none are sent if it is empty."""

    schema = SCHEMA

    def __init__(
        self,
        *,
        client_id: str,
        client_secret: str,
        webhook_id: str,
        webhook_url: str,
        books: str,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self._client_id = client_id
        self._client_secret = client_secret
        self._webhook_id = webhook_id
        self._webhook_url = webhook_url
        # The second is only for signing wrongly.
        self._signers = (_signer("right"), _signer("wrong"))
        super().__init__(key=client_secret, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        order = "/v2/checkout/orders/<order_id>"
        capture = "/v2/payments/captures/<capture_id>"
        return [
            Rule("/v1/oauth2/token", methods=["POST"], endpoint=self.give_token),
            Rule("/_tokens", methods=["DELETE"], endpoint=self.guarded(self.take_tokens_back)),
            Rule("/v2/checkout/orders", methods=["POST"], endpoint=self.api(self.create_order)),
            Rule(order, methods=["GET"], endpoint=self.api(self.show_order)),
            Rule(order, methods=["PATCH"], endpoint=self.api(self.change_order)),
            Rule(f"{order}/capture", methods=["POST"], endpoint=self.api(self.capture_order)),
            Rule(capture, methods=["GET"], endpoint=self.api(self.show_capture)),
            Rule(f"{capture}/refund", methods=["POST"], endpoint=self.api(self.refund_capture)),
            Rule("/v1/customer/disputes", methods=["GET"], endpoint=self.api(self.list_disputes)),
            Rule("/v1/customer/disputes/<dispute_id>", methods=["GET"], endpoint=self.api(self.show_dispute)),
            Rule("/v1/reporting/transactions", methods=["GET"], endpoint=self.api(self.list_transactions)),
            Rule(
                "/v1/notifications/verify-webhook-signature",
                methods=["POST"],
                endpoint=self.api(self.verify_webhook),
            ),
            Rule("/v1/notifications/certs/<certificate_id>", methods=["GET"], endpoint=self.show_certificate),
            Rule("/checkoutnow", methods=["GET"], endpoint=self.show_page),
            Rule("/checkoutnow", methods=["POST"], endpoint=self.decide),
        ]

    def api(self, view: View) -> View:
        """`view` for those who have an access token, with the faults that are set and errors as PayPal writes them."""

        def with_token(request: Request, **arguments: str) -> Response:
            if self.faults.happens("errors"):
                return _error(500, "INTERNAL_SERVER_ERROR", "An internal server error occurred.")
            try:
                self._check_token(request)
                response = view(request, **arguments)
            except Refused as refused:
                response = _error(refused.status, refused.code, refused.message)
            finally:
                self._stopping.wait(self.faults.now().delay_seconds)
            # Only an answer to something that was done is worth losing.
            if request.method != "GET" and self.faults.happens("lost_answers"):
                request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return response

        return with_token

    def sign(self, webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        right, wrong = self._signers
        transmission_id = str(uuid.uuid5(uuid.NAMESPACE_URL, webhook_id))
        time = _written(_now())
        signature = (right if is_right else wrong).key.sign(
            _signed(transmission_id, time, self._webhook_id, body.encode()), padding.PKCS1v15(), SHA256()
        )
        return {
            "Paypal-Auth-Algo": "SHA256withRSA",
            "Paypal-Cert-Url": self._certificate_url(),
            "Paypal-Transmission-Id": transmission_id,
            "Paypal-Transmission-Sig": base64.b64encode(signature).decode(),
            "Paypal-Transmission-Time": time,
        }

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            rows = db.execute("SELECT * FROM purchase ORDER BY number").fetchall()
            disputes = db.execute("SELECT * FROM dispute ORDER BY number").fetchall()
            return {
                "orders": [self._order(db, row) for row in rows],
                "disputes": [self._dispute(db, row) for row in disputes],
            }

    # --- access tokens -------------------------------------------------------------------------------

    def give_token(self, request: Request) -> Response:
        authorization = request.authorization
        shown = (
            f"{authorization.username}:{authorization.password}"
            if authorization and authorization.type == "basic"
            else ""
        )
        if not hmac.compare_digest(shown.encode(), f"{self._client_id}:{self._client_secret}".encode()):
            return answer(
                {"error": "invalid_client", "error_description": "Client Authentication failed"}, 401
            )
        # What is meant for another request has no business here.
        if "PayPal-Request-Id" in request.headers or request.form.get("grant_type") != "client_credentials":
            return answer({"error": "invalid_request"}, 400)
        secret = secrets.token_urlsafe(40)
        with self.books.transaction() as db:
            expires_at = _now() + timedelta(seconds=TOKEN_SECONDS)
            db.execute("INSERT INTO token VALUES (?, ?)", (secret, _written(expires_at)))
        return answer(
            {
                "scope": "https://uri.paypal.com/services/payments/payment",
                "access_token": secret,
                "token_type": "Bearer",
                "expires_in": TOKEN_SECONDS,
            }
        )

    def take_tokens_back(self, _request: Request) -> Response:
        with self.books.transaction() as db:
            db.execute("DELETE FROM token")
        return Response(status=204)

    def _check_token(self, request: Request) -> None:
        authorization = request.authorization
        token = authorization.token if authorization and authorization.type == "bearer" else None
        with self.books.transaction() as db:
            row = db.execute("SELECT expires_at FROM token WHERE secret = ?", (token or "",)).fetchone()
        if not row or row["expires_at"] <= _written(_now()):
            raise Refused(401, "invalid_token", "Token signature verification failed")

    # --- orders --------------------------------------------------------------------------------------

    def create_order(self, request: Request) -> Response:
        key, asked = _request_id(request), _read_json(request)
        with self.books.transaction() as db:
            self._pass_time(db)
            remembered = db.execute(
                "SELECT * FROM purchase WHERE request_id = ? AND created_at > ?",
                (key, _written(_now() - ORDER_KEYS)),
            ).fetchone()
            if remembered:
                return answer(self._order(db, remembered))
            order_id = _new_id()
            db.execute(
                """
                INSERT INTO purchase (
                    id, request_id, reference_id, custom_id, invoice_id, minor, currency, description, return_url,
                    cancel_url, locale, intent, status, created_at
                ) VALUES (
                    :id, :request_id, :reference_id, :custom_id, :invoice_id, :minor, :currency, :description,
                    :return_url, :cancel_url, :locale, 'CAPTURE', 'PAYER_ACTION_REQUIRED', :created_at
                )
                """,
                {
                    **_new_order(asked),
                    "id": order_id,
                    "request_id": key,
                    "created_at": _written(_now()),
                },
            )
            return answer(self._order(db, _row(db, "purchase", order_id)), 201)

    def show_order(self, _request: Request, order_id: str) -> Response:
        with self.books.transaction() as db:
            self._pass_time(db)
            return answer(self._order(db, _row(db, "purchase", order_id)))

    def change_order(self, request: Request, order_id: str) -> Response:
        asked = _read_json(request)
        with self.books.transaction() as db:
            self._pass_time(db)
            row = _row(db, "purchase", order_id)
            match asked:
                case [{"op": "replace", "path": "/intent", "value": "CAPTURE" | "AUTHORIZE" as intent}]:
                    pass
                case _:
                    raise Refused(422, "NOT_PATCHABLE", "Cannot be patched.")
            if row["status"] == "COMPLETED":
                raise Refused(
                    422, "ORDER_ALREADY_COMPLETED", "The order cannot be patched after it is completed."
                )
            db.execute("UPDATE purchase SET intent = ? WHERE id = ?", (intent, order_id))
        return Response(status=204)

    def capture_order(self, request: Request, order_id: str) -> Response:
        _request_id(request)
        _read_json(request)
        with self.books.transaction() as db:
            self._pass_time(db)
            row = _row(db, "purchase", order_id)
            if row["status"] == "COMPLETED":
                raise Refused(
                    422,
                    "ORDER_ALREADY_CAPTURED",
                    "Order already captured. If 'intent=CAPTURE' only one capture per order is allowed.",
                )
            if row["intent"] != "CAPTURE":
                raise Refused(
                    422,
                    "ACTION_DOES_NOT_MATCH_INTENT",
                    "Order was created with an intent to 'AUTHORIZE'. Please use v2/checkout/orders/order_id/authorize.",
                )
            if row["status"] != "APPROVED":
                raise Refused(422, "ORDER_NOT_APPROVED", "Payer has not yet approved the Order for payment.")
            is_refused = row["ending"] == "INSTRUMENT_DECLINED"
            if is_refused:
                db.execute("UPDATE purchase SET status = 'PAYER_ACTION_REQUIRED' WHERE id = ?", (order_id,))
            else:
                self._take(db, row, row["ending"])
            content = self._order(db, _row(db, "purchase", order_id))
        if is_refused:
            raise Refused(
                422,
                "INSTRUMENT_DECLINED",
                "The instrument presented was either declined by the processor or bank, or it can't be used for this payment.",
            )
        return answer(content, 201)

    def _take(self, db: sqlite3.Connection, row: sqlite3.Row, status: str) -> None:
        capture_id = _new_id()
        db.execute(
            "INSERT INTO capture (id, purchase, status, minor, currency, at) VALUES (?, ?, ?, ?, ?, ?)",
            (capture_id, row["id"], status, row["minor"], row["currency"], _written(_now())),
        )
        db.execute("UPDATE purchase SET status = 'COMPLETED' WHERE id = ?", (row["id"],))
        self._tell_capture(db, capture_id)

    # --- captures and refunds ------------------------------------------------------------------------

    def show_capture(self, _request: Request, capture_id: str) -> Response:
        with self.books.transaction() as db:
            return answer(self._capture(db, _row(db, "capture", capture_id)))

    def refund_capture(self, request: Request, capture_id: str) -> Response:
        key, asked = _request_id(request), _read_json(request)
        with self.books.transaction() as db:
            capture = _row(db, "capture", capture_id)
            remembered = db.execute(
                "SELECT * FROM refund WHERE request_id = ? AND at > ?",
                (key, _written(_now() - REFUND_KEYS)),
            ).fetchone()
            if remembered:
                return answer(self._refund(remembered))
            match asked:
                case {
                    "amount": {"currency_code": str(currency), "value": str(value)},
                    "invoice_id": str(invoice_id),
                    "custom_id": str(custom_id),
                } if REFERENCE.fullmatch(invoice_id) and REFERENCE.fullmatch(custom_id):
                    back = _amount(value, currency)
                case _:
                    raise Refused(400, "INVALID_PARAMETER_SYNTAX", "The request is not that of a refund.")
            if capture["status"] != "COMPLETED":
                raise Refused(422, "INVALID_RESOURCE_STATE", "The capture has not been completed.")
            if currency != capture["currency"]:
                raise Refused(
                    422,
                    "REFUND_CAPTURE_CURRENCY_MISMATCH",
                    "Refund must be in the same currency as the capture.",
                )
            left = _left(db, capture)
            if not left:
                raise Refused(422, "CAPTURE_FULLY_REFUNDED", "The capture has already been fully refunded")
            if back.minor > left:
                raise Refused(
                    422,
                    "REFUND_AMOUNT_EXCEEDED",
                    "The refund amount must be less than or equal to the capture amount that has not yet been refunded.",
                )
            waits = _row(db, "purchase", capture["purchase"])["delays_refunds"]
            refund_id = self._give_back(
                db, capture, back.minor, key, invoice_id, custom_id, "PENDING" if waits else "COMPLETED"
            )
            return answer(self._refund(_row(db, "refund", refund_id)), 201)

    def _give_back(
        self,
        db: sqlite3.Connection,
        capture: sqlite3.Row,
        minor: int,
        key: str,
        invoice_id: str,
        custom_id: str,
        status: str,
    ) -> str:
        refund_id = _new_id()
        db.execute(
            """
            INSERT INTO refund (id, request_id, capture, status, invoice_id, custom_id, minor, currency, at)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                refund_id,
                key,
                capture["id"],
                status,
                invoice_id,
                custom_id,
                minor,
                capture["currency"],
                _written(_now()),
            ),
        )
        self._tell_refund(db, refund_id)
        return refund_id

    # --- disputes and the books ----------------------------------------------------------------------

    def list_disputes(self, request: Request) -> Response:
        with self.books.transaction() as db:
            rows = db.execute("SELECT * FROM dispute ORDER BY number").fetchall()
            about, since = (
                request.args.get("disputed_transaction_id"),
                request.args.get("update_time_after", ""),
            )
            found = [
                row
                for row in rows
                if (about is None or row["capture"] == about) and row["updated_at"] >= since[:19]
            ]
            # The summary of each; the outcome is among the details.
            summaries = [
                {
                    name: value
                    for name, value in self._dispute(db, row).items()
                    if name not in ("disputed_transactions", "dispute_outcome")
                }
                for row in found
            ]
        return answer({"items": summaries, "links": []})

    def show_dispute(self, _request: Request, dispute_id: str) -> Response:
        with self.books.transaction() as db:
            return answer(self._dispute(db, _row(db, "dispute", dispute_id)))

    def list_transactions(self, request: Request) -> Response:
        try:
            start, end = (
                datetime.fromisoformat(request.args.get(name, "")) for name in ("start_date", "end_date")
            )
            number, length = int(request.args.get("page", "1")), int(request.args.get("page_size", "100"))
        except ValueError:
            raise Refused(400, "INVALID_REQUEST", "Request is not well-formed.") from None
        if end - start > timedelta(days=31) or not 1 <= length <= 500:
            raise Refused(400, "INVALID_REQUEST", "Date range is greater than 31 days.")
        with self.books.transaction() as db:
            lines = [line for line in self._transactions(db) if _written(start) <= line[0] <= _written(end)]
        shown = lines[(number - 1) * length : number * length]
        return answer(
            {
                "transaction_details": [{"transaction_info": info} for _at, info in shown],
                "page": number,
                "total_items": len(lines),
                "total_pages": -(-len(lines) // length),
            }
        )

    def _transactions(self, db: sqlite3.Connection) -> list[tuple[str, JSON]]:
        """The lines of the books and their times: captures, refunds, and what disputes moved."""
        lines: list[tuple[str, JSON]] = []

        def add(
            line_id: str, code: str, status: str, sign: str, row: sqlite3.Row, capture: sqlite3.Row
        ) -> None:
            purchase = _row(db, "purchase", capture["purchase"])
            is_payment = code == "T0006"
            at = row["updated_at"] if code == "T1202" else row["at"]
            moved = row if code in ("T0006", "T1107") else capture
            info = {
                "transaction_id": line_id,
                "paypal_reference_id": purchase["id"] if is_payment else capture["id"],
                "paypal_reference_id_type": "ODR" if is_payment else "TXN",
                "transaction_event_code": code,
                # Written as the reports do, without a colon in the zone.
                "transaction_initiation_date": at.replace("Z", "+0000"),
                "transaction_amount": {
                    "currency_code": moved["currency"],
                    "value": sign + Money(moved["minor"], moved["currency"]).written(),
                },
                "transaction_status": status,
                "custom_field": purchase["custom_id"],
            }
            lines.append((at, info))

        states = {"COMPLETED": "S", "PENDING": "P", "DECLINED": "D", "FAILED": "D"}
        for capture in db.execute("SELECT * FROM capture ORDER BY number").fetchall():
            add(capture["id"], "T0006", states[capture["status"]], "", capture, capture)
        for refund in db.execute("SELECT * FROM refund ORDER BY number").fetchall():
            capture = _row(db, "capture", refund["capture"])
            add(refund["id"], "T1107", states[refund["status"]], "-", refund, capture)
        for dispute in db.execute("SELECT * FROM dispute WHERE stage = 'CHARGEBACK'").fetchall():
            capture = _row(db, "capture", dispute["capture"])
            add(_new_id(), "T1201", "S", "-", dispute, capture)
            if dispute["outcome"] == "RESOLVED_SELLER_FAVOUR":
                add(_new_id(), "T1202", "S", "", dispute, capture)
        return sorted(lines, key=lambda line: line[0])

    # --- webhooks ------------------------------------------------------------------------------------

    def verify_webhook(self, request: Request) -> Response:
        asked, event = _read_json(request), _raw_event(request.get_data())
        match asked:
            case {
                "auth_algo": "SHA256withRSA",
                "cert_url": str(certificate_url),
                "transmission_id": str(transmission_id),
                "transmission_sig": str(signature),
                "transmission_time": str(time),
                "webhook_id": str(webhook_id),
                "webhook_event": dict(),
            }:
                signed = _signed(transmission_id, time, webhook_id, event)
                is_good = (
                    webhook_id == self._webhook_id
                    and certificate_url == self._certificate_url()
                    and self._is_signature(signature, signed)
                )
                return answer({"verification_status": "SUCCESS" if is_good else "FAILURE"})
        raise Refused(400, "VALIDATION_ERROR", "Invalid request - see details.")

    def show_certificate(self, _request: Request, certificate_id: str) -> Response:
        right, _wrong = self._signers
        if certificate_id != right.certificate_id:
            return _error(404, "RESOURCE_NOT_FOUND", "The specified resource does not exist.")
        return Response(right.certificate, content_type="application/x-pem-file")

    def _certificate_url(self) -> str:
        return f"{self.public_url}/v1/notifications/certs/{self._signers[0].certificate_id}"

    def _is_signature(self, written: str, signed: bytes) -> bool:
        try:
            signature = base64.b64decode(written, validate=True)
            self._signers[0].key.public_key().verify(signature, signed, padding.PKCS1v15(), SHA256())
        except (binascii.Error, InvalidSignature):
            return False
        return True

    def _tell(self, db: sqlite3.Connection, event_type: str, resource_type: str, resource: JSON) -> None:
        if not self._webhook_url:
            return
        event = {
            "id": f"WH-{_new_id()}-{_new_id()}",
            "event_version": "1.0",
            "create_time": _written(_now()),
            "resource_type": resource_type,
            "resource_version": "2.0",
            "event_type": event_type,
            "summary": "Zoë's payment",
            "resource": resource,
            "links": [],
        }
        # Not as a library of today would write it again: whoever verifies must keep the bytes.
        body = json.dumps(event, ensure_ascii=False, separators=(",", ":  "))
        self.deliveries.announce(db, url=self._webhook_url, body=body)

    def _tell_order(self, db: sqlite3.Connection, event_type: str, order_id: str) -> None:
        self._tell(db, event_type, "checkout-order", self._order(db, _row(db, "purchase", order_id)))

    def _tell_capture(self, db: sqlite3.Connection, capture_id: str) -> None:
        row = _row(db, "capture", capture_id)
        event = "DENIED" if row["status"] == "DECLINED" else row["status"]
        self._tell(db, f"PAYMENT.CAPTURE.{event}", "capture", self._capture(db, row))

    def _tell_refund(self, db: sqlite3.Connection, refund_id: str) -> None:
        row = _row(db, "refund", refund_id)
        event = {"COMPLETED": "PAYMENT.CAPTURE.REFUNDED", "PENDING": "PAYMENT.REFUND.PENDING"}.get(
            row["status"], "PAYMENT.REFUND.FAILED"
        )
        self._tell(db, event, "refund", self._refund(row))

    def _tell_dispute(self, db: sqlite3.Connection, event_type: str, dispute_id: str) -> None:
        self._tell(db, event_type, "dispute", self._dispute(db, _row(db, "dispute", dispute_id)))

    # --- the approval page ---------------------------------------------------------------------------

    def show_page(self, request: Request) -> Response:
        with self.books.transaction() as db:
            self._pass_time(db)
            row = db.execute(
                "SELECT * FROM purchase WHERE id = ?", (request.args.get("token", ""),)
            ).fetchone()
            if not row:
                return page("emulators/paypal/unknown.html", {}, 404)
            outcomes = self._outcomes(db, row)
            capture = db.execute("SELECT * FROM capture WHERE purchase = ?", (row["id"],)).fetchone()
        language = LANGUAGES.get(row["locale"], "en")
        with override(language):
            response = page(
                "emulators/paypal/pay.html",
                {
                    "merchant": MERCHANT,
                    "order": row,
                    "capture": capture,
                    "language": language,
                    "amount": Money(row["minor"], row["currency"]).localised(),
                    "can_decide": Outcome.APPROVE in outcomes,
                    "back": _with_token(row["return_url"], row["id"]),
                    "more_outcomes": [
                        (outcome.value, LABELS[outcome]) for outcome in outcomes if outcome in LABELS
                    ],
                },
            )
        # Browsers hold the redirect that follows a form to the policy as well.
        shops = {"{0.scheme}://{0.netloc}".format(urlsplit(row[url])) for url in ("return_url", "cancel_url")}
        response.headers["Content-Security-Policy"] = " ".join((POLICY, *sorted(shops)))
        return response

    def decide(self, request: Request) -> Response:
        try:
            outcome = Outcome(request.form.get("outcome", ""))
        except ValueError:
            raise BadRequest from None
        with self.books.transaction() as db:
            self._pass_time(db)
            row = _row(db, "purchase", request.args.get("token", ""))
            if outcome in self._outcomes(db, row):
                self._apply(db, row, outcome)
        if outcome is Outcome.CANCEL:
            return redirect(_with_token(row["cancel_url"], row["id"]), 303)
        if outcome in APPROVALS and outcome is not Outcome.APPROVE_AND_LEAVE:
            return redirect(_with_token(row["return_url"], row["id"]), 303)
        return redirect(f"{self.public_url}/checkoutnow?token={row['id']}", 303)

    def _outcomes(self, db: sqlite3.Connection, row: sqlite3.Row) -> list[Outcome]:
        """What can happen next. Approving again changes nothing, so it is not among it."""
        if row["status"] == "PAYER_ACTION_REQUIRED":
            return [*APPROVALS, Outcome.CANCEL]
        capture = db.execute("SELECT * FROM capture WHERE purchase = ?", (row["id"],)).fetchone()
        if not capture:
            return []
        if capture["status"] == "PENDING":
            return [Outcome.RELEASE, Outcome.DENY]
        if capture["status"] != "COMPLETED":
            return []
        outcomes = [] if row["delays_refunds"] else [Outcome.DELAY_REFUNDS]
        if db.execute(
            "SELECT 1 FROM refund WHERE capture = ? AND status = 'PENDING'", (capture["id"],)
        ).fetchone():
            outcomes += [Outcome.COMPLETE_REFUNDS, Outcome.FAIL_REFUNDS]
        if _left(db, capture):
            outcomes.append(Outcome.REFUND_HERE)
        dispute = db.execute(
            "SELECT * FROM dispute WHERE capture = ? ORDER BY number DESC", (capture["id"],)
        ).fetchone()
        if not dispute:
            outcomes += [Outcome.INQUIRE, Outcome.CHARGE_BACK]
        elif not dispute["outcome"]:
            outcomes += [Outcome.WIN, Outcome.LOSE]
            if dispute["stage"] == "INQUIRY":
                outcomes.append(Outcome.CHARGE_BACK)
        return outcomes

    def _apply(self, db: sqlite3.Connection, row: sqlite3.Row, outcome: Outcome) -> None:
        if outcome in APPROVALS:
            db.execute(
                "UPDATE purchase SET status = 'APPROVED', ending = ?, approved_at = ? WHERE id = ?",
                (APPROVALS[outcome], _written(_now()), row["id"]),
            )
            self._tell_order(db, "CHECKOUT.ORDER.APPROVED", row["id"])
            return
        if outcome is Outcome.CANCEL:
            return
        capture = db.execute("SELECT * FROM capture WHERE purchase = ?", (row["id"],)).fetchone()
        match outcome:
            case Outcome.RELEASE | Outcome.DENY:
                status = "COMPLETED" if outcome is Outcome.RELEASE else "DECLINED"
                db.execute("UPDATE capture SET status = ? WHERE id = ?", (status, capture["id"]))
                self._tell_capture(db, capture["id"])
            case Outcome.DELAY_REFUNDS:
                db.execute("UPDATE purchase SET delays_refunds = 1 WHERE id = ?", (row["id"],))
            case Outcome.COMPLETE_REFUNDS | Outcome.FAIL_REFUNDS:
                waiting = db.execute(
                    "SELECT id FROM refund WHERE capture = ? AND status = 'PENDING'", (capture["id"],)
                ).fetchall()
                status = "COMPLETED" if outcome is Outcome.COMPLETE_REFUNDS else "FAILED"
                for refund in waiting:
                    db.execute("UPDATE refund SET status = ? WHERE id = ?", (status, refund["id"]))
                    self._tell_refund(db, refund["id"])
            case Outcome.REFUND_HERE:
                # At the desk a refund bears the invoice of the payment, and no words of the shop's program.
                self._give_back(db, capture, _left(db, capture), "", row["invoice_id"], "", "COMPLETED")
            case Outcome.INQUIRE | Outcome.CHARGE_BACK:
                self._dispute_capture(db, capture, "INQUIRY" if outcome is Outcome.INQUIRE else "CHARGEBACK")
            case Outcome.WIN | Outcome.LOSE:
                code = "RESOLVED_SELLER_FAVOUR" if outcome is Outcome.WIN else "RESOLVED_BUYER_FAVOUR"
                dispute = db.execute(
                    "SELECT id FROM dispute WHERE capture = ? AND outcome = ''", (capture["id"],)
                ).fetchone()
                db.execute(
                    "UPDATE dispute SET outcome = ?, updated_at = ? WHERE id = ?",
                    (code, _written(_now()), dispute["id"]),
                )
                self._tell_dispute(db, "CUSTOMER.DISPUTE.RESOLVED", dispute["id"])

    def _dispute_capture(self, db: sqlite3.Connection, capture: sqlite3.Row, stage: str) -> None:
        """Open a dispute, or take the one that is there to the next stage."""
        there = db.execute("SELECT id FROM dispute WHERE capture = ?", (capture["id"],)).fetchone()
        if there:
            db.execute(
                "UPDATE dispute SET stage = ?, updated_at = ? WHERE id = ?",
                (stage, _written(_now()), there["id"]),
            )
            self._tell_dispute(db, "CUSTOMER.DISPUTE.UPDATED", there["id"])
            return
        dispute_id = f"PP-D-{secrets.randbelow(10**6):06}"
        db.execute(
            "INSERT INTO dispute (id, capture, stage, at, updated_at) VALUES (?, ?, ?, ?, ?)",
            (dispute_id, capture["id"], stage, _written(_now()), _written(_now())),
        )
        self._tell_dispute(db, "CUSTOMER.DISPUTE.CREATED", dispute_id)

    def _pass_time(self, db: sqlite3.Connection) -> None:
        """Take approvals back that nobody used: nothing else notices the time, so this comes before every look."""
        due = db.execute(
            "SELECT id FROM purchase WHERE status = 'APPROVED' AND approved_at <= ?",
            (_written(_now() - APPROVAL),),
        ).fetchall()
        for row in due:
            db.execute("UPDATE purchase SET status = 'VOIDED' WHERE id = ?", (row["id"],))
            self._tell_order(db, "CHECKOUT.PAYMENT-APPROVAL.REVERSED", row["id"])

    # --- how things are shown ------------------------------------------------------------------------

    def _order(self, db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
        unit: dict[str, object] = {
            "reference_id": row["reference_id"],
            "amount": _shown(row),
            "description": row["description"],
            "custom_id": row["custom_id"],
            "invoice_id": row["invoice_id"],
        }
        capture = db.execute("SELECT * FROM capture WHERE purchase = ?", (row["id"],)).fetchone()
        if capture:
            refunds = db.execute(
                "SELECT * FROM refund WHERE capture = ? ORDER BY number", (capture["id"],)
            ).fetchall()
            unit["payments"] = {
                "captures": [self._capture(db, capture)],
                **({"refunds": [self._refund(refund) for refund in refunds]} if refunds else {}),
            }
        links = [_link(f"{self.public_url}/v2/checkout/orders/{row['id']}", "self", "GET")]
        if row["status"] == "PAYER_ACTION_REQUIRED":
            links.append(_link(f"{self.public_url}/checkoutnow?token={row['id']}", "payer-action", "GET"))
        return {
            "id": row["id"],
            "intent": row["intent"],
            "status": row["status"],
            "purchase_units": [unit],
            "payer": {"name": {"given_name": "Zoë"}},
            "create_time": row["created_at"],
            "links": links,
        }

    def _capture(self, db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
        purchase = _row(db, "purchase", row["purchase"])
        status = row["status"]
        if status == "COMPLETED":
            (back,) = db.execute(
                "SELECT coalesce(sum(minor), 0) FROM refund WHERE capture = ? AND status = 'COMPLETED'",
                (row["id"],),
            ).fetchone()
            status = "REFUNDED" if back == row["minor"] else "PARTIALLY_REFUNDED" if back else status
        shown = {
            "id": row["id"],
            "status": status,
            "amount": _shown(row),
            "final_capture": True,
            "custom_id": purchase["custom_id"],
            "invoice_id": purchase["invoice_id"],
            "create_time": row["at"],
            "update_time": row["at"],
            "links": [
                _link(f"{self.public_url}/v2/payments/captures/{row['id']}", "self", "GET"),
                _link(f"{self.public_url}/v2/checkout/orders/{purchase['id']}", "up", "GET"),
            ],
        }
        reason = {"PENDING": "PENDING_REVIEW", "DECLINED": "DECLINED_BY_RISK_FRAUD_FILTERS"}.get(status)
        return {**shown, "status_details": {"reason": reason}} if reason else shown

    def _refund(self, row: sqlite3.Row) -> JSON:
        shown = {
            "id": row["id"],
            "status": row["status"],
            "amount": _shown(row),
            "invoice_id": row["invoice_id"],
            "create_time": row["at"],
            "update_time": row["at"],
            "links": [
                _link(f"{self.public_url}/v2/payments/refunds/{row['id']}", "self", "GET"),
                _link(f"{self.public_url}/v2/payments/captures/{row['capture']}", "up", "GET"),
            ],
        }
        if row["status"] == "PENDING":
            shown["status_details"] = {"reason": "ECHECK"}
        return {**shown, "custom_id": row["custom_id"]} if row["custom_id"] else shown

    def _dispute(self, db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
        capture = _row(db, "capture", row["capture"])
        purchase = _row(db, "purchase", capture["purchase"])
        shown = {
            "dispute_id": row["id"],
            "create_time": row["at"],
            "update_time": row["updated_at"],
            "disputed_transactions": [
                {
                    "seller_transaction_id": capture["id"],
                    "invoice_number": purchase["invoice_id"],
                    "custom": purchase["custom_id"],
                }
            ],
            "reason": "MERCHANDISE_OR_SERVICE_NOT_RECEIVED",
            "status": "RESOLVED" if row["outcome"] else "WAITING_FOR_SELLER_RESPONSE",
            "dispute_amount": _shown(capture),
            "dispute_life_cycle_stage": row["stage"],
            "dispute_channel": "INTERNAL",
        }
        if row["outcome"]:
            shown["dispute_outcome"] = {"outcome_code": row["outcome"]}
        return shown


@cache
def _signer(name: str) -> _Signer:
    """A key and its certificate, made once in a process: it takes a while."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=2048)
    subject = x509.Name(
        [x509.NameAttribute(x509.NameOID.COMMON_NAME, f"{name}.messageverificationcerts.paypal.test")]
    )
    today = _now()
    certificate = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(today - timedelta(days=1))
        .not_valid_after(today + timedelta(days=365))
        .sign(key, SHA256())
    )
    pem = certificate.public_bytes(Encoding.PEM)
    return _Signer(key, pem, f"CERT-{hashlib.sha256(pem).hexdigest()[:16]}")


def _signed(transmission_id: str, time: str, webhook_id: str, event: bytes) -> bytes:
    return f"{transmission_id}|{time}|{webhook_id}|{zlib.crc32(event)}".encode()


def _raw_event(body: bytes) -> bytes:
    """The bytes of `webhook_event` as they stand in a request that is JSON."""
    text = body.decode()
    _before, marker, rest = text.partition('"webhook_event":')
    if not marker:
        return b""
    rest = rest.lstrip()
    _event, end = json.JSONDecoder().raw_decode(rest)
    return rest[:end].encode()


def _new_order(asked: object) -> dict[str, object]:
    """The columns that the request decides. Raises Refused."""
    match asked:
        case {
            "intent": "CAPTURE",
            "purchase_units": [
                {
                    "reference_id": str(reference_id),
                    "custom_id": str(custom_id),
                    "invoice_id": str(invoice_id),
                    "description": str(description),
                    "amount": {"currency_code": str(currency), "value": str(value)},
                }
            ],
            "payment_source": {
                "paypal": {
                    "experience_context": {
                        "return_url": str(return_url),
                        "cancel_url": str(cancel_url),
                        "user_action": "PAY_NOW",
                        "shipping_preference": "NO_SHIPPING",
                        "locale": str(locale),
                    }
                }
            },
        }:
            price = _amount(value, currency)
        case _:
            raise Refused(
                400,
                "MISSING_REQUIRED_PARAMETER",
                "A required field / parameter is missing, or is not of the right type.",
            )
    if not all(REFERENCE.fullmatch(reference) for reference in (reference_id, custom_id, invoice_id)):
        raise Refused(400, "INVALID_PARAMETER_SYNTAX", "An id is not well-formed.")
    if not 1 <= len(description) <= 127:
        raise Refused(400, "INVALID_STRING_LENGTH", "description has 1 to 127 characters.")
    if not all(len(url) <= 500 and WEB_ADDRESS.fullmatch(url) for url in (return_url, cancel_url)):
        raise Refused(400, "INVALID_PARAMETER_SYNTAX", "An address is not one of the web.")
    return {
        "reference_id": reference_id,
        "custom_id": custom_id,
        "invoice_id": invoice_id,
        "minor": price.minor,
        "currency": currency,
        "description": description,
        "return_url": return_url,
        "cancel_url": cancel_url,
        "locale": locale,
    }


def _amount(written: str, currency: str) -> Money:
    if currency not in CURRENCIES:
        raise Refused(422, "CURRENCY_NOT_SUPPORTED", "Currency code is not currently supported.")
    if "." in written and not exponent_of(currency):
        raise Refused(422, "DECIMALS_NOT_SUPPORTED", "Currency does not support decimals.")
    try:
        amount = Money.parse(written, currency)
    except ValueError:
        raise Refused(422, "DECIMAL_PRECISION", "The value is not an amount of this currency.") from None
    if not amount:
        raise Refused(422, "CANNOT_BE_ZERO_OR_NEGATIVE", "Must be greater than zero.")
    return amount


def _left(db: sqlite3.Connection, capture: sqlite3.Row) -> int:
    """What can still be refunded, in minor units; what waits counts as refunded."""
    (left,) = db.execute(
        "SELECT ? - coalesce(sum(minor), 0) FROM refund WHERE capture = ? AND status <> 'FAILED'",
        (capture["minor"], capture["id"]),
    ).fetchone()
    return int(left)


def _row(db: sqlite3.Connection, table: str, row_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        f"SELECT * FROM {table} WHERE id = ?",  # noqa: S608 (one of our tables)
        (row_id,),
    ).fetchone()
    if not row:
        raise Refused(404, "INVALID_RESOURCE_ID", "Specified resource ID does not exist.")
    return row


def _read_json(request: Request) -> object:
    if request.mimetype != "application/json":
        raise Refused(415, "UNSUPPORTED_MEDIA_TYPE", "The server does not support the media type.")
    try:
        return json.loads(request.get_data())
    except (ValueError, RecursionError):
        raise Refused(400, "MALFORMED_REQUEST_JSON", "The request is not well formed.") from None


def _request_id(request: Request) -> str:
    key = request.headers.get("PayPal-Request-Id", "")
    if not REQUEST_ID.fullmatch(key):
        raise Refused(400, "PAYPAL_REQUEST_ID_REQUIRED", "A PayPal-Request-Id is required.")
    return key


def _error(status: int, issue: str, description: str) -> Response:
    names = {
        400: "INVALID_REQUEST",
        401: "AUTHENTICATION_FAILURE",
        404: "RESOURCE_NOT_FOUND",
        422: "UNPROCESSABLE_ENTITY",
    }
    content = {
        "name": names.get(status, issue),
        "message": description,
        "debug_id": secrets.token_hex(7),
        "details": [{"issue": issue, "description": description}],
    }
    return answer(content, status)


def _link(href: str, rel: str, method: str) -> dict[str, str]:
    return {"href": href, "rel": rel, "method": method}


def _shown(row: sqlite3.Row) -> dict[str, str]:
    return {
        "currency_code": row["currency"],
        "value": Money(row["minor"], row["currency"]).written(),
    }


def _with_token(url: str, order_id: str) -> str:
    return f"{url}{'&' if '?' in url else '?'}{urlencode({'token': order_id})}"


def _new_id() -> str:
    return "".join(secrets.choice(ALPHABET) for _letter in range(17))


def _written(at: datetime) -> str:
    """In whole seconds, as PayPal has it."""
    return at.astimezone(UTC).isoformat(timespec="seconds").replace("+00:00", "Z")


def _now() -> datetime:
    return datetime.now(UTC)
