"""The provider behind `gateways.nowpayments`: its API, its notifications, and the wallet of a buyer.

    POST /v1/auth                     {email, password} → {token}, good for five minutes
    POST /v1/payment                  x-api-key; {price_amount, price_currency, pay_currency, order_id,
                                      order_description, ipn_callback_url} → 201 and the payment: a new one each time
    GET  /v1/payment/{id}             x-api-key
    GET  /v1/payment/?limit=…&page=…  x-api-key and Authorization: Bearer; {data: […], limit, page, pagesCount, total}
    GET  /                            the payments, for the tester
    GET  /pay/{id}                    where the tester sends coins

A payment is waiting, then confirming and finished, partially_paid or failed; or expired; and perhaps refunded. What
comes to its address after that is a payment of its own, with the first as `parent_payment_id`.
"""

import hmac
import json
import re
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from datetime import UTC, datetime, timedelta
from decimal import Decimal

from cryptography.hazmat.primitives.hashes import SHA512
from cryptography.hazmat.primitives.hmac import HMAC
from django.utils.translation import override
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import JSON, Emulator, Refused, View, page, read_object
from inventory.money import Money
from orders.gateways.emulators import chain
from orders.gateways.emulators.chain import LABELS, Deed

MERCHANT = "VMOS Cloud"
COINS = {"btc": "BTC", "eth": "ETH"}
WRONG_COIN = "usdterc20"
MINIMUM = {"btc": Decimal("0.00005"), "eth": Decimal("0.001")}
OPEN_FOR = timedelta(days=7)
TOKEN_LIFE = timedelta(minutes=5)
UNDER_WAY = ("confirming", "confirmed", "sending")

PRICE = re.compile(r"[0-9]{1,12}(\.[0-9]{1,4})?")
WEB_ADDRESS = re.compile(r"https?://[!-~]{1,490}")
DATE = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}(T[0-9:.]{8,15}Z)?")

SCHEMA = """
CREATE TABLE IF NOT EXISTS payment (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    parent TEXT REFERENCES payment (id),
    purchase_id TEXT NOT NULL,
    order_id TEXT,
    order_description TEXT,
    ipn_callback_url TEXT NOT NULL,
    price_amount TEXT NOT NULL,
    price_currency TEXT NOT NULL,
    pay_currency TEXT NOT NULL,
    pay_address TEXT NOT NULL,
    pay_amount TEXT NOT NULL,
    actually_paid TEXT NOT NULL DEFAULT '0',
    status TEXT NOT NULL CHECK (status IN ('waiting', 'confirming', 'confirmed', 'sending', 'partially_paid',
                                           'finished', 'failed', 'refunded', 'expired')),
    created_at TEXT NOT NULL,
    updated_at TEXT NOT NULL
);
CREATE INDEX IF NOT EXISTS payment_parent ON payment (parent);
"""


class Nowpayments(Emulator):
    """`secret` signs the notifications; `email` and `password` are those of the account."""

    schema = SCHEMA

    def __init__(
        self,
        *,
        key: str,
        secret: str,
        email: str,
        password: str,
        books: str,
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        """Raises ValueError when one of the credentials is empty."""
        if not (key and secret and email and password):
            raise ValueError("NOWPayments wants a key, a secret, an e-mail address and a password.")
        self._secret = secret
        self._account = (email, password)
        self._tokens: dict[str, datetime] = {}
        super().__init__(key=key, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        return [
            Rule("/v1/auth", methods=["POST"], endpoint=self._worded(self._unlost(self.log_in))),
            Rule("/v1/payment", methods=["POST"], endpoint=self._worded(self.api(self.open_payment))),
            Rule("/v1/payment/", methods=["GET"], endpoint=self._reading(self.list_payments)),
            Rule("/v1/payment/<payment_id>", methods=["GET"], endpoint=self._reading(self.show_payment)),
            Rule("/", methods=["GET"], endpoint=self.show_all),
            Rule("/pay/<payment_id>", methods=["GET"], endpoint=self.show_page),
            Rule("/pay/<payment_id>", methods=["POST"], endpoint=self.do),
        ]

    def sign(self, _webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        authentication = HMAC((self._secret if is_right else f"not {self._secret}").encode(), SHA512())
        authentication.update(_sorted_as_by_node(json.loads(body, parse_int=_Raw, parse_float=_Raw)).encode())
        return {"x-nowpayments-sig": authentication.finalize().hex()}

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            self._expire(db)
            return {"payments": [dict(row) for row in db.execute("SELECT * FROM payment ORDER BY number")]}

    def guarded(self, view: View) -> View:
        def with_key(request: Request, **arguments: str) -> Response:
            key = request.headers.get("x-api-key", "")
            if not hmac.compare_digest(key.encode(), self._key.encode()):
                raise Refused(403, "INVALID_API_KEY", "Invalid api key")
            return view(request, **arguments)

        return with_key

    def _reading(self, view: View) -> View:
        return self._worded(self.guarded(self._unlost(view)))

    def _unlost(self, view: View) -> View:
        """`view` with the faults that are set, but for lost answers: those are for what changes something."""

        def with_faults(request: Request, **arguments: str) -> Response:
            if self.faults.happens("errors"):
                raise Refused(500, "INTERNAL_ERROR", "Internal error")
            try:
                return view(request, **arguments)
            finally:
                self._stopping.wait(self.faults.now().delay_seconds)

        return with_faults

    def _worded(self, view: View) -> View:
        """`view`, with refusals in the provider's words."""

        def in_their_words(request: Request, **arguments: str) -> Response:
            try:
                return view(request, **arguments)
            except Refused as no:
                fields = {"status": False, "statusCode": no.status, "code": no.code, "message": no.message}
                return Response(json.dumps(fields), no.status, content_type="application/json")

        return in_their_words

    # --- the API -------------------------------------------------------------------------------------

    def log_in(self, request: Request) -> Response:
        match read_object(request):
            case {"email": str(email), "password": str(password)}:
                given = f"{email}\n{password}".encode()
                if hmac.compare_digest(given, "\n".join(self._account).encode()):
                    token = secrets.token_urlsafe(48)
                    self._tokens[token] = _now() + TOKEN_LIFE
                    return Response(json.dumps({"token": token}), content_type="application/json")
        raise Refused(401, "AUTH_REQUIRED", "Email or password is wrong")

    def open_payment(self, request: Request) -> Response:
        read_object(request)
        asked = json.loads(request.get_data(), parse_int=_Raw, parse_float=_Raw)
        match asked:
            case {
                "price_amount": _Raw() as amount,
                "price_currency": str(currency),
                "pay_currency": str(coin),
                "order_id": str(order_id),
                "order_description": str(description),
                "ipn_callback_url": str(url),
                **rest,
            } if (
                not rest
                and not any(
                    isinstance(value, _Raw) for name, value in asked.items() if name != "price_amount"
                )
                and PRICE.fullmatch(amount)
                and WEB_ADDRESS.fullmatch(url)
            ):
                pass
            case _:
                raise Refused(400, "BAD_CREATE_PAYMENT_REQUEST", "A field is missing, unknown or malformed")
        if coin not in COINS:
            raise Refused(400, "INVALID_REQUEST_PARAMS", f"Currency {coin} was not found")
        try:
            price = Money.parse(amount, currency.upper())
            due = chain.coins_for(price, COINS[coin])
        except (ValueError, KeyError):
            raise Refused(400, "INVALID_REQUEST_PARAMS", f"{amount} {currency} is no price") from None
        if due < MINIMUM[coin]:
            raise Refused(400, "AMOUNT_MINIMAL_ERROR", "Crypto amount is less than minimal")
        with self.books.transaction() as db:
            payment_id = self._insert(
                db,
                order_id=order_id,
                order_description=description,
                ipn_callback_url=url,
                price_amount=price.written(),
                price_currency=currency.lower(),
                pay_currency=coin,
                pay_address=chain.new_address(COINS[coin]),
                pay_amount=chain.shown(due),
                status="waiting",
            )
            fields = self._fields(db, _row(db, payment_id))
        # Created, it has its number in a string; asked for later, as a number.
        return _answer({**fields, "payment_id": json.dumps(payment_id)}, 201)

    def show_payment(self, _request: Request, payment_id: str) -> Response:
        with self.books.transaction() as db:
            self._expire(db)
            return _answer(self._fields(db, _row(db, payment_id)))

    def list_payments(self, request: Request) -> Response:
        authorization = request.authorization
        token = (authorization.token if authorization and authorization.type == "bearer" else None) or ""
        if self._tokens.get(token, datetime.min.replace(tzinfo=UTC)) <= _now():
            raise Refused(401, "AUTH_REQUIRED", "Authorization header is empty (Bearer JWTtoken is required)")
        limit, number = request.args.get("limit", 10, type=int), request.args.get("page", 0, type=int)
        since, until = request.args.get("dateFrom", "0001-01-01"), request.args.get("dateTo", "9999-01-01")
        if not 1 <= limit <= 500 or number < 0 or not (DATE.fullmatch(since) and DATE.fullmatch(until)):
            raise Refused(400, "BAD_REQUEST", "A parameter is out of range")
        descending = request.args.get("orderBy", "asc") == "desc"
        with self.books.transaction() as db:
            self._expire(db)
            rows = db.execute(
                "SELECT * FROM payment WHERE created_at >= ? AND created_at <= ? ORDER BY number",
                (since, until),
            ).fetchall()
            if descending:
                rows.reverse()
            listed = []
            for row in rows[number * limit : (number + 1) * limit]:
                fields = self._fields(db, row)
                # What its lists leave out.
                for name in ("created_at", "updated_at", "payment_extra_ids"):
                    del fields[name]
                listed.append(_written_object(fields))
        pages = -(-len(rows) // limit)
        return _answer(
            {
                "data": f"[{','.join(listed)}]",
                "limit": str(limit),
                "page": str(number),
                "pagesCount": str(pages),
                "total": str(len(rows)),
            }
        )

    # --- the tester's pages --------------------------------------------------------------------------

    def show_all(self, request: Request) -> Response:
        with self.books.transaction() as db:
            self._expire(db)
            rows = db.execute("SELECT * FROM payment WHERE parent IS NULL ORDER BY number DESC LIMIT 50")
            payments = [{**dict(row), "page": f"{self.public_url}/pay/{row['id']}"} for row in rows]
        language = chain.language_of(request)
        with override(language):
            return page("emulators/nowpayments/all.html", {"payments": payments, "language": language})

    def show_page(self, request: Request, payment_id: str) -> Response:
        language = chain.language_of(request)
        with self.books.transaction() as db:
            self._expire(db)
            row = db.execute(
                "SELECT * FROM payment WHERE id = ? AND parent IS NULL", (payment_id,)
            ).fetchone()
            if not row:
                with override(language):
                    return page("emulators/nowpayments/unknown.html", {"language": language}, 404)
            deposits = [each for each in self._family(db, row) if each["actually_paid"] != "0"]
            missing = self._missing(db, row)
            is_covered = self._sent(db, row) >= Decimal(row["pay_amount"])
        coin = COINS[row["pay_currency"]]
        scheme = {"BTC": "bitcoin", "ETH": "ethereum"}[coin]
        price = Money.parse(row["price_amount"], row["price_currency"].upper())
        with override(language):
            return page(
                "emulators/nowpayments/pay.html",
                {
                    "merchant": MERCHANT,
                    "language": language,
                    "payment": row,
                    "coin": coin,
                    "price": price.localised(),
                    "deposits": deposits,
                    "is_covered": is_covered,
                    "is_moving": any(each["status"] in UNDER_WAY for each in deposits),
                    "missing": chain.shown(missing),
                    "all_payments": f"{self.public_url}/",
                    "code": chain.code_of(f"{scheme}:{row['pay_address']}"),
                    "deeds": [
                        (deed.value, label)
                        for deed, label in LABELS.items()
                        if deed not in (Deed.PAY, Deed.FAIL)
                    ],
                },
            )

    def do(self, request: Request, payment_id: str) -> Response:
        deed, coins = chain.deed_of(request)
        with self.books.transaction() as db:
            self._expire(db)
            row = db.execute(
                "SELECT * FROM payment WHERE id = ? AND parent IS NULL", (payment_id,)
            ).fetchone()
            if not row:
                raise Refused(404, "PAYMENT_NOT_FOUND", "Payment not found")
            sent = deed.sends(self._missing(db, row)) if coins is None else coins
            if deed.sends(Decimal(1)) and sent:
                self._send(db, row, sent, deed)
            if deed.confirms():
                self._confirm(db, payment_id, deed)
            elif deed is Deed.DROP:
                self._drop(db, payment_id)
            elif (deed, row["status"]) in ((Deed.FAIL, "waiting"), (Deed.EXPIRE, "waiting")):
                self._settle(db, row, "failed" if deed is Deed.FAIL else "expired")
            elif deed is Deed.REFUND:
                for deposit in self._family(db, row):
                    if deposit["status"] in ("finished", "partially_paid"):
                        self._settle(db, deposit, "refunded")
        return redirect(f"{self.public_url}/pay/{payment_id}", 303)

    # --- what happens to a payment -------------------------------------------------------------------

    def _send(self, db: sqlite3.Connection, root: sqlite3.Row, coins: Decimal, deed: Deed) -> None:
        """Coins appear on the chain. The first to an address are the payment's, the next a child's."""
        is_wrong = deed is Deed.SEND_WRONG_COIN
        if root["status"] in ("waiting", "expired") and not is_wrong:
            self._settle(db, root, "confirming", paid=coins, copies=deed.copies())
            return
        child_id = self._insert(
            db,
            parent=root["id"],
            order_id=root["order_id"],
            order_description=root["order_description"],
            ipn_callback_url=root["ipn_callback_url"],
            price_amount=root["price_amount"],
            price_currency=root["price_currency"],
            pay_currency=WRONG_COIN if is_wrong else root["pay_currency"],
            pay_address=root["pay_address"],
            pay_amount=chain.shown(coins),
            actually_paid=chain.shown(coins),
            # A wrong coin that is processed at all is finished, whatever it is worth.
            status="finished" if is_wrong else "confirming",
        )
        self._tell(db, _row(db, child_id), copies=deed.copies())

    def _confirm(self, db: sqlite3.Connection, root_id: str, deed: Deed) -> None:
        for deposit in self._family(db, _row(db, root_id)):
            if deposit["status"] in UNDER_WAY:
                root = _row(db, root_id)
                is_enough = deposit["parent"] or Decimal(deposit["actually_paid"]) >= Decimal(
                    root["pay_amount"]
                )
                self._settle(db, deposit, "finished" if is_enough else "partially_paid", copies=deed.copies())

    def _drop(self, db: sqlite3.Connection, root_id: str) -> None:
        for deposit in self._family(db, _row(db, root_id)):
            if deposit["status"] in UNDER_WAY:
                self._settle(db, deposit, "failed" if deposit["parent"] else "waiting", paid=Decimal(0))

    def _expire(self, db: sqlite3.Connection) -> None:
        """Let time have passed: nothing else notices it, so this comes before every look at a payment."""
        due = db.execute(
            "SELECT * FROM payment WHERE status = 'waiting' AND created_at <= ?",
            (_written(_now() - OPEN_FOR),),
        ).fetchall()
        for row in due:
            self._settle(db, row, "expired")

    def _settle(
        self,
        db: sqlite3.Connection,
        row: sqlite3.Row,
        status: str,
        *,
        paid: Decimal | None = None,
        copies: int = 1,
    ) -> None:
        db.execute(
            "UPDATE payment SET status = ?, actually_paid = ?, updated_at = ? WHERE id = ?",
            (
                status,
                row["actually_paid"] if paid is None else chain.shown(paid),
                _written(_now()),
                row["id"],
            ),
        )
        self._tell(db, _row(db, row["id"]), copies=copies)

    def _tell(self, db: sqlite3.Connection, row: sqlite3.Row, *, copies: int) -> None:
        fields = self._fields(db, row)
        for name in ("created_at", "updated_at"):
            del fields[name]
        fee = {"currency": json.dumps(row["pay_currency"]), "depositFee": "4.4e-7", "serviceFee": "0"}
        fields |= {"invoice_id": "null", "actually_paid_at_fiat": "0", "fee": _written_object(fee)}
        self.deliveries.announce(db, url=row["ipn_callback_url"], body=_written_object(fields), copies=copies)

    def _insert(self, db: sqlite3.Connection, **columns: str | None) -> str:
        now = _written(_now())
        values: dict[str, str | None] = {
            "id": str(5_000_000_000 + secrets.randbelow(1_000_000_000)),
            "purchase_id": str(5_000_000_000 + secrets.randbelow(1_000_000_000)),
            "created_at": now,
            "updated_at": now,
            **columns,
        }
        names = ", ".join(values)
        places = ", ".join(f":{name}" for name in values)
        db.execute(f"INSERT INTO payment ({names}) VALUES ({places})", values)  # noqa: S608 (names of ours)
        return str(values["id"])

    def _family(self, db: sqlite3.Connection, root: sqlite3.Row) -> list[sqlite3.Row]:
        return db.execute(
            "SELECT * FROM payment WHERE id = :id OR parent = :id ORDER BY number", {"id": root["id"]}
        ).fetchall()

    def _missing(self, db: sqlite3.Connection, root: sqlite3.Row) -> Decimal:
        """What has not been sent yet; all of it anew when nothing is missing."""
        sent, due = self._sent(db, root), Decimal(root["pay_amount"])
        return due - sent if sent < due else due

    def _sent(self, db: sqlite3.Connection, root: sqlite3.Row) -> Decimal:
        """What has come to the address in the right coin, confirmed or not."""
        coins = (
            Decimal(each["actually_paid"])
            for each in self._family(db, root)
            if each["pay_currency"] == root["pay_currency"]
        )
        return sum(coins, Decimal(0))

    def _fields(self, db: sqlite3.Connection, row: sqlite3.Row) -> dict[str, str]:
        """The payment, each value written as JSON."""
        extra = [each["id"] for each in self._family(db, row) if each["parent"]]
        return {
            "payment_id": row["id"],
            "parent_payment_id": row["parent"] or "null",
            "payment_status": json.dumps(row["status"]),
            "pay_address": json.dumps(row["pay_address"]),
            "payin_extra_id": "null",
            "price_amount": _javascript_number(Decimal(row["price_amount"])),
            "price_currency": json.dumps(row["price_currency"]),
            "pay_amount": _javascript_number(Decimal(row["pay_amount"])),
            "actually_paid": _javascript_number(Decimal(row["actually_paid"])),
            "pay_currency": json.dumps(row["pay_currency"]),
            "order_id": json.dumps(row["order_id"], ensure_ascii=False),
            "order_description": json.dumps(row["order_description"], ensure_ascii=False),
            "purchase_id": json.dumps(row["purchase_id"]),
            "outcome_amount": _javascript_number(Decimal(row["actually_paid"]) * 995 / 1000),
            "outcome_currency": json.dumps(row["pay_currency"]),
            "payment_extra_ids": f"[{','.join(extra)}]" if extra else "null",
            "created_at": json.dumps(row["created_at"]),
            "updated_at": json.dumps(row["updated_at"]),
        }


class _Raw(str):
    """A number as it was written."""

    __slots__ = ()


def _sorted_as_by_node(content: object) -> str:
    """What its documentation signs: every object and every list turned into an object with its keys in order."""
    if isinstance(content, _Raw):
        return content
    if isinstance(content, list):
        content = dict(zip(map(str, range(len(content))), content, strict=True))
    if isinstance(content, dict):
        return _written_object({name: _sorted_as_by_node(content[name]) for name in sorted(content)})
    return json.dumps(content, ensure_ascii=False)


def _javascript_number(number: Decimal) -> str:
    """As JavaScript writes it: "49.9", and "4.4e-7" for what is small."""
    if not 0 < number < Decimal("0.000001"):
        return chain.shown(number)
    _sign, digits, _exponent = number.normalize().as_tuple()
    mantissa = "".join(map(str, digits))
    return f"{mantissa[0]}{'.' + mantissa[1:] if mantissa[1:] else ''}e{number.adjusted()}"


def _written_object(fields: Mapping[str, str]) -> str:
    """An object of values that are JSON already."""
    return "{" + ",".join(f"{json.dumps(name)}:{value}" for name, value in fields.items()) + "}"


def _answer(fields: Mapping[str, str], status: int = 200) -> Response:
    return Response(_written_object(fields), status, content_type="application/json")


def _row(db: sqlite3.Connection, payment_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute("SELECT * FROM payment WHERE id = ?", (payment_id,)).fetchone()
    if not row:
        raise Refused(404, "PAYMENT_NOT_FOUND", "Payment not found")
    return row


def _written(at: datetime) -> str:
    """Of one length, so that the order of the strings is that of the times."""
    return at.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _now() -> datetime:
    return datetime.now(UTC)
