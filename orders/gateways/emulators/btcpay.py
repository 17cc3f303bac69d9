"""The server behind `gateways.btcpay`: BTCPay's Greenfield API, its checkout page and its webhooks.

All under /api/v1, with `Authorization: token …`:

    POST /stores/{store}/invoices                   {amount, currency, metadata, checkout}: a new one each time
    GET  /stores/{store}/invoices                   ?orderId=…, or ?startDate=…&endDate=…&skip=…&take=…
    GET  /stores/{store}/invoices/{id}
    GET  /stores/{store}/invoices/{id}/payment-methods
    POST /stores/{store}/invoices/{id}/status       {status: "Invalid"}
    POST /stores/{store}/invoices/{id}/refund       {name, payoutMethodId, refundVariant: "Custom", customAmount,
                                                    customCurrency} → the pull payment: a new one each time
    GET  /stores/{store}/pull-payments              ?includeArchived=true
    GET  /pull-payments/{id}/payouts
    GET  /i/{id}                                    where the buyer, or rather the tester, sends coins
    GET  /pull-payments/{id}                        where the buyer claims his refund, and the tester is the staff

An invoice is New, Processing, Settled, Expired or Invalid. The state of its deposits and not its own says what is there.
"""

import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime
from decimal import Decimal
from urllib.parse import urlsplit

from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.hmac import HMAC
from django.utils.translation import override
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import JSON, POLICY, Emulator, Refused, View, page, read_object
from inventory.money import Money
from orders.gateways.emulators import chain
from orders.gateways.emulators.chain import LABELS, Deed

MERCHANT = "VMOS Cloud"
ON_CHAIN = "BTC-CHAIN"
COIN = "BTC"
ALPHABET = "123456789ABCDEFGHJKLMNPQRSTUVWXYZabcdefghijkmnopqrstuvwxyz"
# What does not come about on a chain of bitcoin, or not at this provider's.
ELSEWHERE = (Deed.SEND_WRONG_COIN, Deed.REFUND)

AMOUNT = re.compile(r"[0-9]{1,12}(\.[0-9]{1,8})?")
WEB_ADDRESS = re.compile(r"https?://[!-~]{1,490}")

SCHEMA = """
CREATE TABLE IF NOT EXISTS invoice (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    order_id TEXT,
    metadata TEXT NOT NULL,
    amount TEXT NOT NULL,
    currency TEXT NOT NULL,
    rate TEXT NOT NULL,
    quote TEXT NOT NULL,  -- what is due in coins, without fees
    address TEXT NOT NULL,
    redirect_url TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('New', 'Processing', 'Settled', 'Expired', 'Invalid')),
    additional_status TEXT NOT NULL,
    created INTEGER NOT NULL,  -- seconds since 1970, as everywhere here
    expires INTEGER NOT NULL,
    monitored_until INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS invoice_order ON invoice (order_id);
CREATE TABLE IF NOT EXISTS deposit (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    invoice TEXT NOT NULL REFERENCES invoice (id),
    value TEXT NOT NULL,
    fee TEXT NOT NULL,
    status TEXT NOT NULL CHECK (status IN ('Processing', 'Settled', 'Invalid')),
    received INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS deposit_invoice ON deposit (invoice);
CREATE TABLE IF NOT EXISTS pull_payment (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    invoice TEXT NOT NULL REFERENCES invoice (id),
    name TEXT NOT NULL,
    amount TEXT NOT NULL,
    currency TEXT NOT NULL,
    archived INTEGER NOT NULL DEFAULT 0
);
CREATE TABLE IF NOT EXISTS payout (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    pull_payment TEXT NOT NULL REFERENCES pull_payment (id),
    amount TEXT NOT NULL,
    currency TEXT NOT NULL,
    state TEXT NOT NULL,
    date INTEGER NOT NULL
);
"""


class Btcpay(Emulator):
    """`webhook_url` is what the owner of the store has entered there, and `secret` signs what is sent to it.

    With `claims_at_once`, buyers claim their refunds and staff pay them in the moment in which they are made.
    `fee` is taken off each transaction to an invoice but the first.
    """

    schema = SCHEMA

    def __init__(
        self,
        *,
        key: str,
        store_id: str,
        secret: str,
        webhook_url: str,
        books: str,
        backoff: Sequence[float] = BACKOFF,
        claims_at_once: bool = False,
        fee: Decimal = Decimal(0),
    ) -> None:
        """Raises ValueError when one of the credentials is empty."""
        if not (key and store_id and secret):
            raise ValueError("BTCPay Server wants a key, a store and a secret.")
        self._store_id = store_id
        self._secret = secret
        self._webhook_url = webhook_url
        self._claims_at_once = claims_at_once
        self._fee = fee
        super().__init__(key=key, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        store = "/api/v1/stores/<store_id>"
        return [
            Rule(f"{store}/invoices", methods=["POST"], endpoint=self._changing(self.open_invoice)),
            Rule(f"{store}/invoices", methods=["GET"], endpoint=self._reading(self.list_invoices)),
            Rule(
                f"{store}/invoices/<invoice_id>", methods=["GET"], endpoint=self._reading(self.show_invoice)
            ),
            Rule(
                f"{store}/invoices/<invoice_id>/payment-methods",
                methods=["GET"],
                endpoint=self._reading(self.show_payment_methods),
            ),
            Rule(
                f"{store}/invoices/<invoice_id>/status",
                methods=["POST"],
                endpoint=self._changing(self.mark_invoice),
            ),
            Rule(
                f"{store}/invoices/<invoice_id>/refund",
                methods=["POST"],
                endpoint=self._changing(self.refund_invoice),
            ),
            Rule(f"{store}/pull-payments", methods=["GET"], endpoint=self._reading(self.list_pull_payments)),
            Rule(
                "/api/v1/pull-payments/<claim_id>/payouts",
                methods=["GET"],
                endpoint=self._reading(self.list_payouts),
            ),
            Rule("/i/<invoice_id>", methods=["GET"], endpoint=self.show_checkout),
            Rule("/i/<invoice_id>", methods=["POST"], endpoint=self.do),
            Rule("/pull-payments/<claim_id>", methods=["GET"], endpoint=self.show_claim),
            Rule("/pull-payments/<claim_id>", methods=["POST"], endpoint=self.decide_claim),
        ]

    def sign(self, _webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        authentication = HMAC((self._secret if is_right else f"not {self._secret}").encode(), SHA256())
        authentication.update(body.encode())
        return {"BTCPay-Sig": f"sha256={authentication.finalize().hex()}"}

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            self._expire(db)
            return {
                name: [dict(row) for row in db.execute(f"SELECT * FROM {table} ORDER BY number")]  # noqa: S608 (constants)
                for name, table in (
                    ("invoices", "invoice"),
                    ("deposits", "deposit"),
                    ("pull_payments", "pull_payment"),
                    ("payouts", "payout"),
                )
            }

    def guarded(self, view: View) -> View:
        def with_key(request: Request, **arguments: str) -> Response:
            scheme, _space, key = request.headers.get("Authorization", "").partition(" ")
            if scheme != "token" or not hmac.compare_digest(key.encode(), self._key.encode()):
                raise Refused(
                    401, "unauthenticated", "Authentication is required for accessing this endpoint"
                )
            store_id = arguments.pop("store_id", self._store_id)
            if store_id != self._store_id:
                raise Refused(403, "missing-permission", "The key has no permission in this store")
            return view(request, **arguments)

        return with_key

    def _changing(self, view: View) -> View:
        return self._worded(self.api(view))

    def _reading(self, view: View) -> View:
        """As `_changing`, but for lost answers: those are for what changes something."""

        def with_faults(request: Request, **arguments: str) -> Response:
            if self.faults.happens("errors"):
                raise Refused(500, "internal", "Something went wrong")
            try:
                return view(request, **arguments)
            finally:
                self._stopping.wait(self.faults.now().delay_seconds)

        return self._worded(self.guarded(with_faults))

    def _worded(self, view: View) -> View:
        """`view`, with refusals in the provider's words."""

        def in_their_words(request: Request, **arguments: str) -> Response:
            try:
                return view(request, **arguments)
            except Refused as no:
                problem = {"code": no.code, "message": no.message}
                if no.status == 422:
                    return _answer([{"path": no.code, "message": no.message}], 422)
                return _answer(problem, no.status)

        return in_their_words

    # --- the API -------------------------------------------------------------------------------------

    def open_invoice(self, request: Request) -> Response:
        asked = read_object(request)
        match asked:
            case {
                "amount": str(amount),
                "currency": str(currency),
                "metadata": {**metadata},
                "checkout": {
                    "speedPolicy": "HighSpeed" | "MediumSpeed" | "LowMediumSpeed" | "LowSpeed",
                    "paymentMethods": ["BTC-CHAIN"],
                    "expirationMinutes": int(minutes),
                    "monitoringMinutes": int(monitoring),
                    "paymentTolerance": 0,
                    "redirectURL": str(redirect_url),
                    **more,
                },
                **rest,
            } if not rest and not more and AMOUNT.fullmatch(amount) and minutes > 0 and monitoring > 0:
                pass
            case _:
                raise Refused(422, "checkout", "A field is missing, unknown or malformed")
        if not WEB_ADDRESS.fullmatch(redirect_url):
            raise Refused(422, "checkout.redirectURL", "The address is not one of the web")
        try:
            price = Money.parse(amount, currency)
            rate, quote = chain.price_of(COIN, currency), chain.coins_for(price, COIN)
        except (ValueError, KeyError):
            raise Refused(422, "currency", f"{amount} {currency} is no price") from None
        order_id = metadata.get("orderId")
        now = _now()
        with self.books.transaction() as db:
            invoice_id = _new_id(22)
            db.execute(
                "INSERT INTO invoice VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?, ?, 'New', 'None', ?, ?, ?)",
                (
                    invoice_id,
                    order_id if isinstance(order_id, str) else None,
                    json.dumps(metadata, ensure_ascii=False),
                    price.written(),
                    currency,
                    str(rate),
                    str(quote),
                    chain.new_address(COIN),
                    redirect_url,
                    now,
                    now + 60 * minutes,
                    now + 60 * (minutes + monitoring),
                ),
            )
            row = self._row(db, invoice_id)
            self._tell(db, row, "InvoiceCreated")
            return _answer(self._invoice(row))

    def list_invoices(self, request: Request) -> Response:
        order_ids = request.args.getlist("orderId")
        since = request.args.get("startDate", 0, type=int)
        until = request.args.get("endDate", 2**40, type=int)
        skip, take = request.args.get("skip", 0, type=int), request.args.get("take", 50, type=int)
        with self.books.transaction() as db:
            self._expire(db)
            rows = db.execute(
                "SELECT * FROM invoice WHERE created BETWEEN ? AND ? ORDER BY number DESC", (since, until)
            ).fetchall()
        found = [row for row in rows if not order_ids or row["order_id"] in order_ids]
        return _answer([self._invoice(row) for row in found[skip : skip + take]])

    def show_invoice(self, _request: Request, invoice_id: str) -> Response:
        with self.books.transaction() as db:
            self._expire(db)
            return _answer(self._invoice(self._row(db, invoice_id)))

    def show_payment_methods(self, _request: Request, invoice_id: str) -> Response:
        with self.books.transaction() as db:
            self._expire(db)
            row = self._row(db, invoice_id)
            deposits = [each for each in self._deposits(db, row) if each["status"] != "Invalid"]
        paid = sum((Decimal(each["value"]) for each in deposits), Decimal(0))
        due = self._due(row, deposits)
        method = {
            "paymentMethodId": ON_CHAIN,
            "currency": COIN,
            "destination": row["address"],
            "paymentLink": f"bitcoin:{row['address']}?amount={chain.shown(max(due - paid, Decimal(0)))}",
            "rate": row["rate"],
            "paymentMethodPaid": str(paid),
            "totalPaid": str(paid),
            "due": str(due - paid),
            "amount": str(due),
            "paymentMethodFee": str(self._fee if deposits else 0),
            "payments": [
                {
                    "id": each["id"],
                    "receivedDate": each["received"],
                    "value": each["value"],
                    "fee": each["fee"],
                    "status": each["status"],
                    "destination": row["address"],
                }
                for each in deposits
            ],
            "activated": True,
            "additionalData": {"keyPath": "0/1", "payjoinEnabled": False},
        }
        return _answer([method])

    def mark_invoice(self, request: Request, invoice_id: str) -> Response:
        status = read_object(request).get("status")
        if status not in ("Invalid", "Settled"):
            raise Refused(422, "status", "An invoice is marked Invalid or Settled")
        with self.books.transaction() as db:
            self._expire(db)
            row = self._row(db, invoice_id)
            is_open = row["status"] in ("New", "Processing", "Expired")
            is_marked = row["additional_status"] == "Marked" and row["status"] != status
            if not (is_open or is_marked or (status, row["status"]) == ("Settled", "Invalid")):
                message = "Status can only be marked to invalid or settled within certain conditions."
                raise Refused(422, "status", message)
            self._settle(db, row, str(status), "Marked")
            return _answer(self._invoice(self._row(db, invoice_id)))

    def refund_invoice(self, request: Request, invoice_id: str) -> Response:
        match read_object(request):
            case {
                "name": str(name),
                "payoutMethodId": "BTC-CHAIN",
                "refundVariant": "Custom",
                "customAmount": str(amount),
                "customCurrency": str(currency),
                **rest,
            } if not rest and 0 < len(name) <= 100 and AMOUNT.fullmatch(amount) and Decimal(amount):
                pass
            case _:
                raise Refused(422, "refundVariant", "A field is missing, unknown or malformed")
        with self.books.transaction() as db:
            self._expire(db)
            row = self._row(db, invoice_id)
            is_paid_somehow = row["additional_status"] in ("PaidLate", "PaidOver", "PaidPartial")
            if row["status"] not in ("Settled", "Invalid") and not (
                row["status"] == "Expired" and is_paid_somehow
            ):
                raise Refused(400, "non-refundable", "Cannot refund this invoice")
            claim_id = _new_id(27)
            db.execute(
                "INSERT INTO pull_payment (id, invoice, name, amount, currency) VALUES (?, ?, ?, ?, ?)",
                (claim_id, invoice_id, name, amount, currency),
            )
            claim = self._claim_row(db, claim_id)
            if self._claims_at_once:
                self._claim(db, claim, "Completed")
            return _answer(self._pull_payment(claim))

    def list_pull_payments(self, request: Request) -> Response:
        archived = request.args.get("includeArchived", "false") == "true"
        with self.books.transaction() as db:
            rows = db.execute("SELECT * FROM pull_payment ORDER BY number").fetchall()
        return _answer([self._pull_payment(row) for row in rows if archived or not row["archived"]])

    def list_payouts(self, _request: Request, claim_id: str) -> Response:
        with self.books.transaction() as db:
            self._claim_row(db, claim_id)
            rows = self._payouts(db, claim_id)
        return _answer(
            [
                {
                    "id": row["id"],
                    "revision": 0,
                    "pullPaymentId": claim_id,
                    "date": row["date"],
                    "destination": "bcrt1qqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqqq",
                    "originalCurrency": row["currency"],
                    "originalAmount": row["amount"],
                    "payoutCurrency": COIN,
                    "payoutAmount": None,
                    "payoutMethodId": ON_CHAIN,
                    "state": row["state"],
                }
                for row in rows
                if row["state"] != "Cancelled"
            ]
        )

    # --- the tester's pages --------------------------------------------------------------------------

    def show_checkout(self, request: Request, invoice_id: str) -> Response:
        language = chain.language_of(request)
        with self.books.transaction() as db:
            self._expire(db)
            row = db.execute("SELECT * FROM invoice WHERE id = ?", (invoice_id,)).fetchone()
            if not row:
                with override(language):
                    return page("emulators/btcpay/unknown.html", {"language": language}, 404)
            deposits = self._deposits(db, row)
        missing = self._missing(row, deposits)
        price = Money.parse(row["amount"], row["currency"])
        with override(language):
            response = page(
                "emulators/btcpay/checkout.html",
                {
                    "merchant": MERCHANT,
                    "language": language,
                    "invoice": row,
                    "coin": COIN,
                    "description": json.loads(row["metadata"]).get("itemDesc", ""),
                    "price": price.localised(),
                    "due": chain.shown(self._due(row, [])),
                    "deposits": [
                        {"value": chain.shown(Decimal(each["value"])), "status": each["status"]}
                        for each in deposits
                    ],
                    "missing": chain.shown(missing),
                    "code": chain.code_of(f"bitcoin:{row['address']}?amount={chain.shown(missing)}"),
                    "deeds": [
                        (deed.value, label)
                        for deed, label in LABELS.items()
                        if deed not in (Deed.PAY, Deed.FAIL, *ELSEWHERE)
                    ],
                },
            )
        shop = "{0.scheme}://{0.netloc}".format(urlsplit(row["redirect_url"]))
        response.headers["Content-Security-Policy"] = f"{POLICY} {shop}"
        return response

    def do(self, request: Request, invoice_id: str) -> Response:
        deed, coins = chain.deed_of(request)
        if deed in ELSEWHERE:
            raise BadRequest
        with self.books.transaction() as db:
            self._expire(db)
            row = self._row(db, invoice_id)
            # Who looks at the checkout of an invoice that was called off is shown no address any more.
            is_shown = row["status"] != "Invalid" or coins is not None
            sent = deed.sends(self._missing(row, self._deposits(db, row))) if coins is None else coins
            if deed.sends(Decimal(1)) and is_shown:
                self._send(db, row, sent, deed)
            if deed.confirms():
                self._confirm(db, invoice_id, deed)
            elif deed is Deed.DROP:
                self._drop(db, row)
            elif deed is Deed.FAIL and row["status"] in ("New", "Processing"):
                self._settle(db, row, "Invalid", "None")
            elif deed is Deed.EXPIRE and row["status"] == "New":
                db.execute("UPDATE invoice SET expires = ? WHERE id = ?", (_now(), invoice_id))
                self._expire(db)
        # Paid, the buyer is led back to the shop.
        return redirect(row["redirect_url"] if deed.confirms() else f"{self.public_url}/i/{invoice_id}", 303)

    def show_claim(self, request: Request, claim_id: str) -> Response:
        language = chain.language_of(request)
        with self.books.transaction() as db:
            row = db.execute("SELECT * FROM pull_payment WHERE id = ?", (claim_id,)).fetchone()
            payouts = self._payouts(db, claim_id)
        with override(language):
            if not row:
                return page("emulators/btcpay/unknown.html", {"language": language}, 404)
            return page(
                "emulators/btcpay/claim.html",
                {"merchant": MERCHANT, "language": language, "claim": row, "payouts": payouts},
            )

    def decide_claim(self, request: Request, claim_id: str) -> Response:
        """`deed` is claim (the buyer names an address), pay (staff pay it), cancel (they do not) or archive."""
        deed = request.form.get("deed", "")
        with self.books.transaction() as db:
            claim = self._claim_row(db, claim_id)
            if deed == "claim" and not claim["archived"] and not self._payouts(db, claim_id):
                self._claim(db, claim, "AwaitingApproval")
            elif deed in ("pay", "cancel"):
                db.execute(
                    "UPDATE payout SET state = ?, date = ? WHERE pull_payment = ? AND state = 'AwaitingApproval'",
                    ("Completed" if deed == "pay" else "Cancelled", _now(), claim_id),
                )
            elif deed == "archive":
                db.execute("UPDATE pull_payment SET archived = 1 WHERE id = ?", (claim_id,))
        return redirect(f"{self.public_url}/pull-payments/{claim_id}", 303)

    # --- what happens to an invoice ------------------------------------------------------------------

    def _send(self, db: sqlite3.Connection, row: sqlite3.Row, coins: Decimal, deed: Deed) -> None:
        before = [each for each in self._deposits(db, row) if each["status"] != "Invalid"]
        deposit_id = f"{secrets.token_hex(32)}-0"
        db.execute(
            "INSERT INTO deposit (id, invoice, value, fee, status, received)"
            " VALUES (?, ?, ?, ?, 'Processing', ?)",
            (deposit_id, row["id"], str(coins), str(self._fee if before else 0), _now()),
        )
        self._tell(
            db,
            row,
            "InvoiceReceivedPayment",
            copies=deed.copies(),
            afterExpiration=row["status"] == "Expired",
            paymentMethodId=ON_CHAIN,
        )
        deposits = [each for each in self._deposits(db, row) if each["status"] != "Invalid"]
        paid, due = sum(Decimal(each["value"]) for each in deposits), self._due(row, deposits)
        if row["status"] == "New" and paid >= due:
            self._settle(db, row, "Processing", "PaidOver" if paid > due else "None", copies=deed.copies())
        elif row["status"] in ("New", "Expired"):
            late = "PaidLate" if row["status"] == "Expired" and paid >= due else "PaidPartial"
            db.execute("UPDATE invoice SET additional_status = ? WHERE id = ?", (late, row["id"]))
        elif row["status"] in ("Processing", "Settled") and paid > due:
            db.execute("UPDATE invoice SET additional_status = 'PaidOver' WHERE id = ?", (row["id"],))

    def _confirm(self, db: sqlite3.Connection, invoice_id: str, deed: Deed) -> None:
        for deposit in self._deposits(db, self._row(db, invoice_id)):
            if deposit["status"] == "Processing":
                db.execute("UPDATE deposit SET status = 'Settled' WHERE id = ?", (deposit["id"],))
                self._tell(
                    db,
                    self._row(db, invoice_id),
                    "InvoicePaymentSettled",
                    copies=deed.copies(),
                    paymentMethodId=ON_CHAIN,
                )
        row = self._row(db, invoice_id)
        deposits = [each for each in self._deposits(db, row) if each["status"] == "Settled"]
        paid = sum((Decimal(each["value"]) for each in deposits), Decimal(0))
        if row["status"] == "Processing" and paid >= self._due(row, deposits):
            self._settle(db, row, "Settled", row["additional_status"], copies=deed.copies())

    def _drop(self, db: sqlite3.Connection, row: sqlite3.Row) -> None:
        """The server says nothing of it; an invoice that had its coins waits for them until it is given up."""
        db.execute(
            "UPDATE deposit SET status = 'Invalid' WHERE invoice = ? AND status = 'Processing'", (row["id"],)
        )

    def _expire(self, db: sqlite3.Connection) -> None:
        """Let time have passed: nothing else notices it, so this comes before every look at an invoice."""
        now = _now()
        for row in db.execute(
            "SELECT * FROM invoice WHERE status = 'New' AND expires <= ?", (now,)
        ).fetchall():
            self._settle(db, row, "Expired", row["additional_status"])
        for row in db.execute(
            "SELECT * FROM invoice WHERE status = 'Processing' AND monitored_until <= ?", (now,)
        ).fetchall():
            self._settle(db, row, "Invalid", row["additional_status"])

    def _settle(
        self, db: sqlite3.Connection, row: sqlite3.Row, status: str, additional: str, *, copies: int = 1
    ) -> None:
        db.execute(
            "UPDATE invoice SET status = ?, additional_status = ? WHERE id = ?",
            (status, additional, row["id"]),
        )
        more: dict[str, object] = {"manuallyMarked": additional == "Marked"}
        if status in ("Processing", "Settled"):
            more["overPaid"] = additional == "PaidOver"
        elif status == "Expired":
            more["partiallyPaid"] = additional == "PaidPartial"
        self._tell(db, row, f"Invoice{status}", copies=copies, **more)

    def _claim(self, db: sqlite3.Connection, claim: sqlite3.Row, state: str) -> None:
        db.execute(
            "INSERT INTO payout (id, pull_payment, amount, currency, state, date) VALUES (?, ?, ?, ?, ?, ?)",
            (_new_id(27), claim["id"], claim["amount"], claim["currency"], state, _now()),
        )

    def _tell(
        self, db: sqlite3.Connection, row: sqlite3.Row, event: str, *, copies: int = 1, **more: object
    ) -> None:
        delivery_id = _new_id(22)
        body = {
            "deliveryId": delivery_id,
            "webhookId": "2N7AzvnLkvdUyEXAMPLE01",
            "originalDeliveryId": delivery_id,
            "isRedelivery": False,
            "type": event,
            "timestamp": _now(),
            "storeId": self._store_id,
            "invoiceId": row["id"],
            "metadata": json.loads(row["metadata"]),
            **more,
        }
        self.deliveries.announce(
            db, url=self._webhook_url, body=json.dumps(body, ensure_ascii=False, indent=2), copies=copies
        )

    def _row(self, db: sqlite3.Connection, invoice_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute("SELECT * FROM invoice WHERE id = ?", (invoice_id,)).fetchone()
        if not row:
            raise Refused(404, "invoice-not-found", "The invoice was not found")
        return row

    def _claim_row(self, db: sqlite3.Connection, claim_id: str) -> sqlite3.Row:
        row: sqlite3.Row | None = db.execute(
            "SELECT * FROM pull_payment WHERE id = ?", (claim_id,)
        ).fetchone()
        if not row:
            raise Refused(404, "pullpayment-not-found", "The pull payment was not found")
        return row

    def _payouts(self, db: sqlite3.Connection, claim_id: str) -> list[sqlite3.Row]:
        return db.execute(
            "SELECT * FROM payout WHERE pull_payment = ? ORDER BY number", (claim_id,)
        ).fetchall()

    def _deposits(self, db: sqlite3.Connection, row: sqlite3.Row) -> list[sqlite3.Row]:
        return db.execute("SELECT * FROM deposit WHERE invoice = ? ORDER BY number", (row["id"],)).fetchall()

    def _due(self, row: sqlite3.Row, deposits: Sequence[sqlite3.Row]) -> Decimal:
        """The price in coins and the fees of the transactions so far, and of one more while it is not covered."""
        due = Decimal(row["quote"]) + sum((Decimal(each["fee"]) for each in deposits), Decimal(0))
        paid = sum((Decimal(each["value"]) for each in deposits), Decimal(0))
        return due + self._fee if deposits and paid < due else due

    def _missing(self, row: sqlite3.Row, deposits: Sequence[sqlite3.Row]) -> Decimal:
        """What has not been sent yet; all of it anew when nothing is missing."""
        counted = [each for each in deposits if each["status"] != "Invalid"]
        missing = self._due(row, counted) - sum((Decimal(each["value"]) for each in counted), Decimal(0))
        return missing if missing > 0 else Decimal(row["quote"])

    def _invoice(self, row: sqlite3.Row) -> JSON:
        return {
            "id": row["id"],
            "storeId": self._store_id,
            "amount": row["amount"],
            "currency": row["currency"],
            "type": "Standard",
            "checkoutLink": f"{self.public_url}/i/{row['id']}",
            "createdTime": row["created"],
            "expirationTime": row["expires"],
            "monitoringExpiration": row["monitored_until"],
            "status": row["status"],
            "additionalStatus": row["additional_status"],
            "archived": False,
            "metadata": json.loads(row["metadata"]),
        }

    def _pull_payment(self, row: sqlite3.Row) -> JSON:
        return {
            "id": row["id"],
            "name": row["name"],
            "description": "",
            "currency": row["currency"],
            "amount": row["amount"],
            "autoApproveClaims": False,
            "archived": bool(row["archived"]),
            "viewLink": f"{self.public_url}/pull-payments/{row['id']}",
        }


def _answer(content: object, status: int = 200) -> Response:
    return Response(json.dumps(content), status, content_type="application/json")


def _new_id(length: int) -> str:
    return "".join(secrets.choice(ALPHABET) for _letter in range(length))


def _now() -> int:
    return int(datetime.now(UTC).timestamp())
