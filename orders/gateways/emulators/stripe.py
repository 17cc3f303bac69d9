"""The provider behind `gateways.stripe`: of Stripe's API what the shop uses, its payment page and its webhooks.

    POST /v1/checkout/sessions                  Idempotency-Key
    GET  /v1/checkout/sessions                  newest first, as all lists; ?created[gte]=…
    GET  /v1/checkout/sessions/{id}
    POST /v1/checkout/sessions/{id}             of all that can be changed, the metadata
    POST /v1/checkout/sessions/{id}/expire      400 unless it is open
    GET  /v1/payment_intents/{id}
    POST /v1/refunds                            Idempotency-Key
    GET  /v1/refunds, /v1/charges, /v1/disputes and /v1/balance_transactions
    GET  /c/pay/{session}                       where the buyer pays, and the tester decides what becomes of it

Requests are forms, `expand` works on all that has an id, and a parameter that nobody knows is refused. Webhooks go
to one address, as at Stripe, where it is registered beforehand.
"""

import enum
import hashlib
import hmac
import json
import re
import secrets
import socket
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
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
from emulators.server import JSON, POLICY, Emulator, Refused, View, answer, page
from inventory.money import Money, exponent_of

MERCHANT = "VMOS Cloud"
API_VERSION = "2026-10-28.endive"
CURRENCIES = ("usd", "hkd", "cny", "eur", "jpy")
LANGUAGES = {"zh": "zh-hans", "zh-HK": "zh-hant"}
METHODS: dict[str, str | Promise] = {"card": _("Card"), "alipay": "Alipay", "wechat_pay": "WeChat Pay"}
# Seconds that a session may live, and that the key of a request is remembered.
SHORTEST, LONGEST = 1800, 86_400
KEY_SECONDS = 86_400

IDEMPOTENCY_KEY = re.compile(r"[!-~]{1,255}")
WHOLE = re.compile(r"[0-9]{1,11}")
METADATA = re.compile(r"metadata\[([A-Za-z0-9_-]{1,40})\]")
INTENT_METADATA = re.compile(r"payment_intent_data\[metadata\]\[([A-Za-z0-9_-]{1,40})\]")
EXPAND = re.compile(r"expand\[[0-9]{1,2}\]")
CREATED = re.compile(r"created\[(gte|gt|lte|lt)\]")
WEB_ADDRESS = re.compile(r"https?://[A-Za-z0-9._\-]+(:[0-9]{1,5})?([/?][!-~]*)?")
WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,250}")
SESSION_PARAMETERS = {
    "mode",
    "client_reference_id",
    "success_url",
    "cancel_url",
    "expires_at",
    "locale",
    "adaptive_pricing[enabled]",
    "allowed_payment_method_types[0]",
    "payment_method_options[wechat_pay][client]",
    "payment_intent_data[description]",
    "line_items[0][quantity]",
    "line_items[0][price_data][currency]",
    "line_items[0][price_data][unit_amount]",
    "line_items[0][price_data][product_data][name]",
}

Form = Mapping[str, str]
Act = Callable[..., JSON]


class Outcome(enum.StrEnum):
    """What the buyer can decide on the payment page, and the tester after it."""

    PAY = "pay"
    REFUSE_CARD = "refuse-card"
    PAY_LESS = "pay-less"
    PAY_MORE = "pay-more"
    PAY_OTHER_CURRENCY = "pay-other-currency"
    PAY_UNTOLD = "pay-untold"
    PAY_TOLD_TWICE = "pay-told-twice"
    PROCESS = "process"
    SUCCEED = "succeed"
    FAIL = "fail"
    DELAY_REFUNDS = "delay-refunds"
    COMPLETE_REFUNDS = "complete-refunds"
    FAIL_REFUNDS = "fail-refunds"
    BOUNCE_REFUNDS = "bounce-refunds"
    REFUND_HERE = "refund-here"
    INQUIRE = "inquire"
    CHARGE_BACK = "charge-back"
    WIN = "win"
    LOSE = "lose"


# By which the buyer leaves the page for the shop's.
LEAVING = (
    Outcome.PAY,
    Outcome.PAY_LESS,
    Outcome.PAY_MORE,
    Outcome.PAY_OTHER_CURRENCY,
    Outcome.PAY_UNTOLD,
    Outcome.PAY_TOLD_TWICE,
    Outcome.PROCESS,
)

SCHEMA = """
CREATE TABLE IF NOT EXISTS answered (  -- what was answered to the request that first came with a key
    key TEXT PRIMARY KEY,
    asked TEXT NOT NULL,
    body TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS session (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('open', 'complete', 'expired')),
    intent TEXT,
    client_reference_id TEXT NOT NULL,
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    method TEXT NOT NULL,
    name TEXT NOT NULL,
    description TEXT NOT NULL,
    success_url TEXT NOT NULL,
    cancel_url TEXT NOT NULL,
    locale TEXT NOT NULL,
    metadata TEXT NOT NULL,
    intent_metadata TEXT NOT NULL,
    delays_refunds INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL,
    expires_at INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS session_open ON session (expires_at) WHERE status = 'open';
CREATE TABLE IF NOT EXISTS intent (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    status TEXT NOT NULL CHECK (status IN ('requires_payment_method', 'processing', 'succeeded', 'canceled')),
    minor INTEGER NOT NULL,
    currency TEXT NOT NULL,
    problem TEXT NOT NULL DEFAULT '',
    metadata TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE TABLE IF NOT EXISTS charge (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    intent TEXT NOT NULL REFERENCES intent (id),
    status TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    method TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS charge_intent ON charge (intent);
CREATE TABLE IF NOT EXISTS refund (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    intent TEXT NOT NULL REFERENCES intent (id),
    charge TEXT NOT NULL REFERENCES charge (id),
    status TEXT NOT NULL CHECK (status IN ('pending', 'succeeded', 'failed')),
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    metadata TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS refund_intent ON refund (intent);
CREATE TABLE IF NOT EXISTS dispute (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    intent TEXT NOT NULL REFERENCES intent (id),
    charge TEXT NOT NULL REFERENCES charge (id),
    status TEXT NOT NULL CHECK (
        status IN ('warning_needs_response', 'warning_closed', 'needs_response', 'won', 'lost')
    ),
    minor INTEGER NOT NULL CHECK (minor > 0),
    currency TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS dispute_intent ON dispute (intent);
CREATE TABLE IF NOT EXISTS balance (
    number INTEGER PRIMARY KEY,
    id TEXT NOT NULL UNIQUE,
    type TEXT NOT NULL,
    category TEXT NOT NULL,
    source TEXT NOT NULL,
    minor INTEGER NOT NULL,  -- negative when money leaves
    currency TEXT NOT NULL,
    created INTEGER NOT NULL
);
CREATE INDEX IF NOT EXISTS balance_source ON balance (source);
"""


class Stripe(Emulator):
    """`webhook_url` is where webhooks are registered to go; none are sent if it is empty.

    `secret` is one or, while it is being changed, several `whsec_…` with spaces between them: all of them sign.
    """

    schema = SCHEMA

    def __init__(
        self, *, key: str, secret: str, webhook_url: str, books: str, backoff: Sequence[float] = BACKOFF
    ) -> None:
        """Raises ValueError when `secret` is no webhook secret."""
        self._secrets = secret.split()
        if not self._secrets or not all(WEBHOOK_SECRET.fullmatch(one) for one in self._secrets):
            raise ValueError("A webhook secret is whsec_ and at least 16 letters and digits.")
        self._webhook_url = webhook_url
        self._mode = "live" if "_live_" in key else "test"
        super().__init__(key=key, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        sessions = "/v1/checkout/sessions"
        session = f"{sessions}/<session_id>"
        return [
            Rule(sessions, methods=["POST"], endpoint=self.api(self.doing(self.create_session))),
            Rule(sessions, methods=["GET"], endpoint=self.api(self.listing("session"))),
            Rule(session, methods=["GET"], endpoint=self.api(self.showing("session_id"))),
            Rule(session, methods=["POST"], endpoint=self.api(self.doing(self.update_session))),
            Rule(f"{session}/expire", methods=["POST"], endpoint=self.api(self.doing(self.expire_session))),
            Rule(
                "/v1/payment_intents/<intent_id>",
                methods=["GET"],
                endpoint=self.api(self.showing("intent_id")),
            ),
            Rule("/v1/refunds", methods=["POST"], endpoint=self.api(self.doing(self.create_refund))),
            Rule("/v1/refunds", methods=["GET"], endpoint=self.api(self.listing("refund", "intent"))),
            Rule("/v1/charges", methods=["GET"], endpoint=self.api(self.listing("charge", "intent"))),
            Rule("/v1/disputes", methods=["GET"], endpoint=self.api(self.listing("dispute", "intent"))),
            Rule(
                "/v1/balance_transactions",
                methods=["GET"],
                endpoint=self.api(self.listing("balance", "type")),
            ),
            Rule("/c/pay/<session_id>", methods=["GET"], endpoint=self.show_page),
            Rule("/c/pay/<session_id>", methods=["POST"], endpoint=self.decide),
        ]

    def api(self, view: View) -> View:
        """`view` for those who have the key, with the faults that are set and errors as Stripe writes them."""

        def with_faults(request: Request, **arguments: str) -> Response:
            try:
                if self.faults.happens("errors"):
                    raise Refused(500, "", "An unknown error occurred.")
                self._check(request)
                response = view(request, **arguments)
            except Refused as refused:
                response = _error(refused)
            finally:
                self._stopping.wait(self.faults.now().delay_seconds)
            # Only an answer to something that was done is worth losing.
            if request.method != "GET" and self.faults.happens("lost_answers"):
                request.environ["werkzeug.socket"].shutdown(socket.SHUT_RDWR)
            return response

        return with_faults

    def _check(self, request: Request) -> None:
        authorization = request.authorization
        token = (authorization.token if authorization and authorization.type == "bearer" else None) or ""
        if not hmac.compare_digest(token.encode(), self._key.encode()):
            raise Refused(401, "", f"Invalid API Key provided: {token[:8]}****")
        if request.headers.get("Stripe-Version") != API_VERSION:
            raise Refused(400, "", f"This emulator speaks the version {API_VERSION} of the API.")

    def sign(self, _webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        timestamp = _now()
        signatures = []
        for secret in self._secrets:
            key = secret.encode() if is_right else hashlib.sha256(secret.encode()).digest()
            signatures.append("v1=" + hmac.digest(key, f"{timestamp}.{body}".encode(), "sha256").hex())
        return {"Stripe-Signature": ",".join((f"t={timestamp}", *signatures))}

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            self._pass_time(db)
            return {
                f"{name}s": [
                    self._shown(db, name, row)
                    for row in db.execute(f"SELECT * FROM {name} ORDER BY number").fetchall()  # noqa: S608
                ]
                for name in ("session", "charge", "refund", "dispute", "balance")
            }

    # --- requests ------------------------------------------------------------------------------------

    def doing(self, act: Act) -> View:
        """A view of a request that changes something: once for each key, and all of it or nothing."""

        def view(request: Request, **arguments: str) -> Response:
            asked = _read_form(request)
            key = request.headers.get("Idempotency-Key", "")
            if not IDEMPOTENCY_KEY.fullmatch(key):
                raise Refused(400, "", "An idempotency key has 1 to 255 letters.")
            whole = json.dumps([request.path, asked], sort_keys=True)
            with self.books.transaction() as db:
                self._pass_time(db)
                db.execute("DELETE FROM answered WHERE created <= ?", (_now() - KEY_SECONDS,))
                before = db.execute("SELECT * FROM answered WHERE key = ?", (key,)).fetchone()
                if before:
                    if before["asked"] != whole:
                        raise Refused(
                            400,
                            "idempotency_error",
                            "Keys for idempotent requests can only be used with the same parameters they were first used with.",
                        )
                    body = before["body"]
                else:
                    content = act(
                        db, {k: v for k, v in asked.items() if not EXPAND.fullmatch(k)}, **arguments
                    )
                    body = json.dumps(self._expanded(db, content, _paths(asked)))
                    db.execute("INSERT INTO answered VALUES (?, ?, ?, ?)", (key, whole, body, _now()))
            response = Response(body, content_type="application/json")
            if before:
                response.headers["Idempotent-Replayed"] = "true"
            return response

        return view

    def showing(self, argument: str) -> View:
        def view(request: Request, **arguments: str) -> Response:
            asked = request.args.to_dict()
            _refuse_unknown(asked, set(), EXPAND)
            with self.books.transaction() as db:
                self._pass_time(db)
                return answer(self._expanded(db, self._with_id(db, arguments[argument]), _paths(asked)))

        return view

    def listing(self, table: str, *columns: str) -> View:
        """A view of the rows of `table`, newest first. They can be asked for by `columns`, and by their age."""
        parameters = {"payment_intent" if column == "intent" else column: column for column in columns}
        compared = {"gt": ">", "gte": ">=", "lt": "<", "lte": "<="}

        def view(request: Request) -> Response:
            asked = request.args.to_dict()
            _refuse_unknown(asked, {"limit", "starting_after", *parameters}, EXPAND, CREATED)
            conditions, values = ["1"], list[object]()
            for name, value in asked.items():
                if name in parameters:
                    conditions.append(f"{parameters[name]} = ?")
                    values.append(value)
                elif age := CREATED.fullmatch(name):
                    conditions.append(f"created {compared[age[1]]} ?")
                    values.append(_whole(asked, name))
            limit = _whole(asked, "limit") if "limit" in asked else 10
            if not 1 <= limit <= 100:
                raise Refused(400, "parameter_invalid_integer", "limit is between 1 and 100.")
            with self.books.transaction() as db:
                self._pass_time(db)
                if "starting_after" in asked:
                    conditions.append("number < ?")
                    values.append(_row(db, table, asked["starting_after"])["number"])
                query = f"SELECT * FROM {table} WHERE {' AND '.join(conditions)} ORDER BY number DESC LIMIT {limit + 1}"  # noqa: S608 (constants)
                rows = db.execute(query, values).fetchall()
                content = {
                    "object": "list",
                    "url": request.path,
                    "has_more": len(rows) > limit,
                    "data": [self._shown(db, table, row) for row in rows[:limit]],
                }
                return answer(self._expanded(db, content, _paths(asked)))

        return view

    # --- the API -------------------------------------------------------------------------------------

    def create_session(self, db: sqlite3.Connection, asked: Form) -> JSON:
        session_id = f"cs_{self._mode}_{secrets.token_hex(24)}"
        db.execute(
            """
            INSERT INTO session (
                id, status, client_reference_id, minor, currency, method, name, description, success_url,
                cancel_url, locale, metadata, intent_metadata, created, expires_at
            ) VALUES (
                :id, 'open', :client_reference_id, :minor, :currency, :method, :name, :description, :success_url,
                :cancel_url, :locale, :metadata, :intent_metadata, :created, :expires_at
            )
            """,
            {**_new_session(asked), "id": session_id, "created": _now()},
        )
        return self._with_id(db, session_id)

    def update_session(self, db: sqlite3.Connection, asked: Form, session_id: str) -> JSON:
        _refuse_unknown(asked, set(), METADATA)
        row = _row(db, "session", session_id)
        metadata = {**json.loads(row["metadata"]), **_matching(asked, METADATA)}
        db.execute("UPDATE session SET metadata = ? WHERE id = ?", (json.dumps(metadata), session_id))
        return self._with_id(db, session_id)

    def expire_session(self, db: sqlite3.Connection, asked: Form, session_id: str) -> JSON:
        _refuse_unknown(asked, set())
        row = _row(db, "session", session_id)
        if row["status"] != "open":
            raise Refused(
                400,
                "",
                'Only Checkout Sessions with a status in ["open"] can be expired. '
                f"This Checkout Session has a status of `{row['status']}`.",
            )
        self._expire(db, row)
        return self._with_id(db, session_id)

    def create_refund(self, db: sqlite3.Connection, asked: Form) -> JSON:
        _refuse_unknown(asked, {"payment_intent", "amount"}, METADATA)
        intent = _row(db, "intent", _text(asked, "payment_intent"))
        minor = _whole(asked, "amount")
        charge = db.execute(
            "SELECT * FROM charge WHERE intent = ? AND status = 'succeeded'", (intent["id"],)
        ).fetchone()
        if not charge:
            raise Refused(
                400, "", f"This PaymentIntent ({intent['id']}) does not have a successful charge to refund."
            )
        if db.execute(
            "SELECT 1 FROM dispute WHERE charge = ? AND status IN ('needs_response', 'lost')", (charge["id"],)
        ).fetchone():
            raise Refused(400, "charge_disputed", f"Charge {charge['id']} has been charged back.")
        left = _left(db, charge)
        if not left:
            raise Refused(400, "charge_already_refunded", f"Charge {charge['id']} has already been refunded.")
        if not 1 <= minor <= left:
            raise Refused(
                400, "", f"Refund amount ({minor}) is greater than unrefunded amount on charge ({left})"
            )
        session = db.execute("SELECT * FROM session WHERE intent = ?", (intent["id"],)).fetchone()
        return self._give_back(
            db,
            charge,
            minor,
            _matching(asked, METADATA),
            "pending" if session["delays_refunds"] else "succeeded",
        )

    def _give_back(
        self, db: sqlite3.Connection, charge: sqlite3.Row, minor: int, metadata: Form, status: str
    ) -> JSON:
        refund_id = _new_id("re")
        db.execute(
            "INSERT INTO refund VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                refund_id,
                charge["intent"],
                charge["id"],
                status,
                minor,
                charge["currency"],
                json.dumps(metadata),
                _now(),
            ),
        )
        # The money leaves the balance at once, whatever becomes of the refund.
        _move(db, "refund", "refund", refund_id, -minor, charge["currency"])
        self._tell(db, "charge.refunded", charge["id"])
        return self._with_id(db, refund_id)

    # --- the payment page ----------------------------------------------------------------------------

    def show_page(self, _request: Request, session_id: str) -> Response:
        with self.books.transaction() as db:
            self._pass_time(db)
            row = db.execute("SELECT * FROM session WHERE id = ?", (session_id,)).fetchone()
            if not row:
                return page("emulators/stripe/unknown.html", {}, 404)
            intent = db.execute("SELECT * FROM intent WHERE id = ?", (row["intent"],)).fetchone()
            outcomes = self._outcomes(db, row)
        amount = Money(row["minor"], row["currency"].upper())
        language = LANGUAGES.get(row["locale"], "en")
        with override(language):
            labels = _labels(amount)
            response = page(
                "emulators/stripe/pay.html",
                {
                    "merchant": MERCHANT,
                    "session": row,
                    "intent": intent,
                    "language": language,
                    "amount": amount.localised(),
                    "currency": amount.currency,
                    "method": METHODS[row["method"]],
                    "expires_at": datetime.fromtimestamp(row["expires_at"], UTC),
                    "success_url": _success_url(row),
                    "more_outcomes": [
                        (outcome.value, labels[outcome]) for outcome in outcomes if outcome in labels
                    ],
                },
            )
        # Browsers hold the redirect that follows a form to the policy as well.
        shops = {
            "{0.scheme}://{0.netloc}".format(urlsplit(row[url])) for url in ("success_url", "cancel_url")
        }
        response.headers["Content-Security-Policy"] = " ".join((POLICY, *sorted(shops)))
        return response

    def decide(self, request: Request, session_id: str) -> Response:
        try:
            outcome = Outcome(request.form.get("outcome", ""))
        except ValueError:
            raise BadRequest from None
        with self.books.transaction() as db:
            self._pass_time(db)
            row = _row(db, "session", session_id)
            happens = outcome in self._outcomes(db, row)
            if happens:
                self._apply(db, row, outcome)
        if happens and outcome in LEAVING:
            return redirect(_success_url(row), 303)
        return redirect(f"{self.public_url}/c/pay/{session_id}", 303)

    def _outcomes(self, db: sqlite3.Connection, row: sqlite3.Row) -> list[Outcome]:
        """What can happen next."""
        if row["status"] == "open":
            unfit = {Outcome.PAY_LESS} if row["minor"] == 1 else set()
            return [
                outcome for outcome in (*LEAVING, Outcome.REFUSE_CARD, Outcome.FAIL) if outcome not in unfit
            ]
        if row["status"] == "expired":
            return []
        intent = _row(db, "intent", row["intent"])
        if intent["status"] == "processing":
            return [Outcome.SUCCEED, Outcome.FAIL]
        if intent["status"] != "succeeded":
            return []
        charge = _charge_of(db, row)
        outcomes = [] if row["delays_refunds"] else [Outcome.DELAY_REFUNDS]
        if db.execute(
            "SELECT 1 FROM refund WHERE charge = ? AND status = 'pending'", (charge["id"],)
        ).fetchone():
            outcomes += [Outcome.COMPLETE_REFUNDS, Outcome.FAIL_REFUNDS]
        if db.execute(
            "SELECT 1 FROM refund WHERE charge = ? AND status = 'succeeded'", (charge["id"],)
        ).fetchone():
            outcomes.append(Outcome.BOUNCE_REFUNDS)
        dispute = _dispute_of(db, charge)
        if _left(db, charge) and not (dispute and dispute["status"] in ("needs_response", "lost")):
            outcomes.append(Outcome.REFUND_HERE)
        match dispute["status"] if dispute else "":
            case "":
                outcomes += [Outcome.INQUIRE, Outcome.CHARGE_BACK]
            case "warning_needs_response":
                outcomes += [Outcome.CHARGE_BACK, Outcome.WIN]
            case "needs_response":
                outcomes += [Outcome.WIN, Outcome.LOSE]
        return outcomes

    def _apply(self, db: sqlite3.Connection, row: sqlite3.Row, outcome: Outcome) -> None:
        match outcome:
            case Outcome.REFUSE_CARD:
                self._begin(db, row, "requires_payment_method", "failed", Money(row["minor"], _iso(row)))
            case Outcome.PROCESS:
                self._begin(db, row, "processing", "pending", Money(row["minor"], _iso(row)))
                self._complete(db, row["id"])
            case Outcome.SUCCEED | Outcome.FAIL:
                if row["status"] == "open":
                    self._apply(db, row, Outcome.PROCESS)
                    row = _row(db, "session", row["id"])
                self._end(db, row, succeeds=outcome is Outcome.SUCCEED)
            case _ if outcome in LEAVING:
                paid = _paid(outcome, Money(row["minor"], _iso(row)))
                self._begin(db, row, "succeeded", "succeeded", paid)
                copies = {Outcome.PAY_UNTOLD: 0, Outcome.PAY_TOLD_TWICE: 2}.get(outcome, 1)
                self._complete(db, row["id"], copies=copies)
            case Outcome.DELAY_REFUNDS:
                db.execute("UPDATE session SET delays_refunds = 1 WHERE id = ?", (row["id"],))
            case Outcome.COMPLETE_REFUNDS:
                self._end_refunds(db, _charge_of(db, row), "pending", "succeeded")
            case Outcome.FAIL_REFUNDS:
                self._end_refunds(db, _charge_of(db, row), "pending", "failed")
            case Outcome.BOUNCE_REFUNDS:
                self._end_refunds(db, _charge_of(db, row), "succeeded", "failed")
            case Outcome.REFUND_HERE:
                charge = _charge_of(db, row)
                # At the desk nobody writes the shop's references onto a refund.
                self._give_back(db, charge, _left(db, charge), {}, "succeeded")
            case _:
                self._dispute(db, _charge_of(db, row), outcome)

    def _begin(
        self, db: sqlite3.Connection, row: sqlite3.Row, status: str, charged: str, amount: Money
    ) -> None:
        """Make a charge. The payment intent begins with the first one, as it does at Stripe."""
        intent_id, problem = row["intent"], ""
        if charged == "failed":
            problem = "Your card was declined." if row["method"] == "card" else "The payment was declined."
        if intent_id is None:
            intent_id = _new_id("pi")
            db.execute(
                "INSERT INTO intent VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                (
                    intent_id,
                    status,
                    row["minor"],
                    row["currency"],
                    problem,
                    row["intent_metadata"],
                    _now(),
                ),
            )
            db.execute("UPDATE session SET intent = ? WHERE id = ?", (intent_id, row["id"]))
        db.execute("UPDATE intent SET status = ?, problem = ? WHERE id = ?", (status, problem, intent_id))
        charge_id = _new_id("ch" if row["method"] == "card" else "py")
        db.execute(
            "INSERT INTO charge VALUES (NULL, ?, ?, ?, ?, ?, ?, ?, ?)",
            (
                charge_id,
                intent_id,
                charged,
                amount.minor,
                amount.currency.lower(),
                row["method"],
                row["intent_metadata"],
                _now(),
            ),
        )
        if charged == "succeeded":
            _move(db, "charge", "charge", charge_id, amount.minor, amount.currency.lower())

    def _complete(self, db: sqlite3.Connection, session_id: str, *, copies: int = 1) -> None:
        db.execute("UPDATE session SET status = 'complete' WHERE id = ?", (session_id,))
        self._tell(db, "checkout.session.completed", session_id, copies=copies)

    def _end(self, db: sqlite3.Connection, row: sqlite3.Row, *, succeeds: bool) -> None:
        """What was being processed has an end."""
        charge = _charge_of(db, row)
        db.execute(
            "UPDATE charge SET status = ? WHERE id = ?", ("succeeded" if succeeds else "failed", charge["id"])
        )
        if succeeds:
            db.execute("UPDATE intent SET status = 'succeeded' WHERE id = ?", (row["intent"],))
            _move(db, "charge", "charge", charge["id"], charge["minor"], charge["currency"])
            self._tell(db, "checkout.session.async_payment_succeeded", row["id"])
        else:
            db.execute(
                "UPDATE intent SET status = 'requires_payment_method', problem = ? WHERE id = ?",
                ("The payment failed.", row["intent"]),
            )
            self._tell(db, "checkout.session.async_payment_failed", row["id"])

    def _end_refunds(self, db: sqlite3.Connection, charge: sqlite3.Row, status: str, becomes: str) -> None:
        refunds = db.execute(
            "SELECT * FROM refund WHERE charge = ? AND status = ?", (charge["id"], status)
        ).fetchall()
        for refund in refunds:
            db.execute("UPDATE refund SET status = ? WHERE id = ?", (becomes, refund["id"]))
            if becomes == "failed":
                _move(
                    db, "refund_failure", "refund_failure", refund["id"], refund["minor"], refund["currency"]
                )
            self._tell(db, "refund.updated" if becomes == "succeeded" else "refund.failed", refund["id"])

    def _dispute(self, db: sqlite3.Connection, charge: sqlite3.Row, outcome: Outcome) -> None:
        """An inquiry moves no money, a chargeback takes it at once, and gives it again if the shop wins."""
        there = _dispute_of(db, charge)
        if outcome in (Outcome.INQUIRE, Outcome.CHARGE_BACK):
            status = "warning_needs_response" if outcome is Outcome.INQUIRE else "needs_response"
        elif outcome is Outcome.LOSE:
            status = "lost"
        else:
            status = "warning_closed" if there and there["status"] == "warning_needs_response" else "won"
        if there:
            dispute_id = there["id"]
            db.execute("UPDATE dispute SET status = ? WHERE id = ?", (status, dispute_id))
        else:
            dispute_id = _new_id("du")
            db.execute(
                "INSERT INTO dispute VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
                (
                    dispute_id,
                    charge["intent"],
                    charge["id"],
                    status,
                    charge["minor"],
                    charge["currency"],
                    _now(),
                ),
            )
            self._tell(db, "charge.dispute.created", dispute_id)
        if status == "needs_response":
            _move(db, "adjustment", "dispute", dispute_id, -charge["minor"], charge["currency"])
            self._tell(db, "charge.dispute.funds_withdrawn", dispute_id)
        if status == "won":
            _move(db, "adjustment", "dispute_reversal", dispute_id, charge["minor"], charge["currency"])
            self._tell(db, "charge.dispute.funds_reinstated", dispute_id)
        if status in ("won", "lost", "warning_closed"):
            self._tell(db, "charge.dispute.closed", dispute_id)

    # --- what happens to a session -------------------------------------------------------------------

    def _pass_time(self, db: sqlite3.Connection) -> None:
        """Let time have passed: nothing else notices it, so this comes before every look."""
        for row in db.execute(
            "SELECT * FROM session WHERE status = 'open' AND expires_at <= ?", (_now(),)
        ).fetchall():
            self._expire(db, row)

    def _expire(self, db: sqlite3.Connection, row: sqlite3.Row) -> None:
        db.execute("UPDATE session SET status = 'expired' WHERE id = ?", (row["id"],))
        db.execute("UPDATE intent SET status = 'canceled' WHERE id = ?", (row["intent"],))
        self._tell(db, "checkout.session.expired", row["id"])

    def _tell(self, db: sqlite3.Connection, event: str, about: str, *, copies: int = 1) -> None:
        if not self._webhook_url:
            return
        body = {
            "id": _new_id("evt"),
            "object": "event",
            "api_version": API_VERSION,
            "created": _now(),
            "data": {"object": self._with_id(db, about)},
            "livemode": self._mode == "live",
            "pending_webhooks": 1,
            "request": {"id": None, "idempotency_key": None},
            "type": event,
        }
        # Stripe's own webhooks are laid out over many lines.
        self.deliveries.announce(db, url=self._webhook_url, body=json.dumps(body, indent=2), copies=copies)

    # --- how things are shown ------------------------------------------------------------------------

    def _with_id(self, db: sqlite3.Connection, object_id: str) -> JSON:
        tables = {
            "cs": "session",
            "pi": "intent",
            "ch": "charge",
            "py": "charge",
            "re": "refund",
            "du": "dispute",
            "txn": "balance",
        }
        table = tables.get(object_id.partition("_")[0], "session")
        return self._shown(db, table, _row(db, table, object_id))

    def _expanded(self, db: sqlite3.Connection, content: JSON, paths: list[str]) -> JSON:
        """`content` with what `paths` name in place of its ids."""
        for path in paths:
            if path.count(".") > 3:
                raise Refused(400, "", "You cannot expand more than 4 levels of a property.")
            content = self._expand(db, content, path)
        return content

    def _expand(self, db: sqlite3.Connection, content: JSON, path: str) -> JSON:
        name, _dot, rest = path.partition(".")
        if name not in content:
            raise Refused(400, "", f"This property cannot be expanded ({name}).")
        value = content[name]
        if isinstance(value, str):
            value = self._with_id(db, value)
        if isinstance(value, list):
            return {**content, name: [self._expand(db, one, rest) for one in value]}
        if rest and isinstance(value, dict):
            value = self._expand(db, value, rest)
        return {**content, name: value}

    def _shown(self, db: sqlite3.Connection, table: str, row: sqlite3.Row) -> JSON:
        shown: dict[str, object] = {"id": row["id"], "created": row["created"], "currency": row["currency"]}
        if table not in ("session", "balance"):
            shown["amount"] = row["minor"]
        if table != "balance":
            shown["status"] = row["status"]
        if table in ("session", "intent", "charge", "refund"):
            shown["metadata"] = json.loads(row["metadata"])
        if table in ("charge", "refund", "dispute"):
            shown["payment_intent"] = row["intent"]
        if table in ("session", "intent", "charge", "dispute"):
            shown["livemode"] = self._mode == "live"
        details = {
            "session": self._session_details,
            "intent": _intent_details,
            "charge": _charge_details,
            "refund": _refund_details,
            "dispute": _dispute_details,
            "balance": _balance_details,
        }
        return {**shown, **details[table](db, row)}

    def _session_details(self, db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
        paid = db.execute(
            "SELECT 1 FROM intent WHERE id = ? AND status = 'succeeded'", (row["intent"],)
        ).fetchone()
        return {
            "object": "checkout.session",
            "mode": "payment",
            "client_reference_id": row["client_reference_id"],
            "amount_subtotal": row["minor"],
            "amount_total": row["minor"],
            "payment_intent": row["intent"],
            "payment_status": "paid" if paid else "unpaid",
            "payment_method_types": [row["method"]],
            "success_url": row["success_url"],
            "cancel_url": row["cancel_url"],
            "locale": row["locale"],
            "expires_at": row["expires_at"],
            "customer_details": {"email": "zoe@example.com", "name": "Zoë"} if paid else None,
            "url": f"{self.public_url}/c/pay/{row['id']}" if row["status"] == "open" else None,
        }


def _intent_details(db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
    charge = db.execute("SELECT * FROM charge WHERE intent = ? ORDER BY number DESC", (row["id"],)).fetchone()
    problem = row["problem"]
    return {
        "object": "payment_intent",
        "latest_charge": charge["id"] if charge else None,
        "last_payment_error": {"type": "card_error", "code": "card_declined", "message": problem}
        if problem
        else None,
    }


def _charge_details(db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
    is_paid = row["status"] == "succeeded"
    back = row["minor"] - _left(db, row)
    return {
        "object": "charge",
        "amount_captured": row["minor"] if is_paid else 0,
        "amount_refunded": back,
        "captured": is_paid,
        "paid": is_paid,
        "refunded": back == row["minor"],
        "disputed": bool(_dispute_of(db, row)),
        "balance_transaction": _balance_of(db, row["id"]),
        "billing_details": {"email": "zoe@example.com", "name": "Zoë"},
        "payment_method_details": {
            "type": row["method"],
            row["method"]: {"brand": "visa", "last4": "4242"} if row["method"] == "card" else {},
        },
    }


def _refund_details(db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
    shown = {
        "object": "refund",
        "charge": row["charge"],
        "reason": None,
        "balance_transaction": _balance_of(db, row["id"]),
    }
    return {**shown, "failure_reason": "expired_or_canceled_card"} if row["status"] == "failed" else shown


def _dispute_details(db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
    lines = db.execute("SELECT * FROM balance WHERE source = ? ORDER BY number", (row["id"],)).fetchall()
    return {
        "object": "dispute",
        "charge": row["charge"],
        "reason": "product_not_received",
        "is_charge_refundable": row["status"].startswith("warning"),
        # The shop's references are on the charge, not on what a bank says about it.
        "metadata": {},
        "balance_transactions": [
            {
                "id": line["id"],
                "created": line["created"],
                "currency": line["currency"],
                **_balance_details(db, line),
            }
            for line in lines
        ],
    }


def _balance_details(_db: sqlite3.Connection, row: sqlite3.Row) -> JSON:
    return {
        "object": "balance_transaction",
        "amount": row["minor"],
        "fee": 0,
        "net": row["minor"],
        "type": row["type"],
        "reporting_category": row["category"],
        "source": row["source"],
        "status": "available",
    }


def _move(db: sqlite3.Connection, kind: str, category: str, source: str, minor: int, currency: str) -> None:
    """Write a line of the balance."""
    db.execute(
        "INSERT INTO balance VALUES (NULL, ?, ?, ?, ?, ?, ?, ?)",
        (_new_id("txn"), kind, category, source, minor, currency, _now()),
    )


def _balance_of(db: sqlite3.Connection, source: str) -> str | None:
    row = db.execute("SELECT id FROM balance WHERE source = ? ORDER BY number", (source,)).fetchone()
    return row["id"] if row else None


def _left(db: sqlite3.Connection, charge: sqlite3.Row) -> int:
    """How much of a charge can still be refunded: what is on its way cannot."""
    (back,) = db.execute(
        "SELECT coalesce(sum(minor), 0) FROM refund WHERE charge = ? AND status != 'failed'", (charge["id"],)
    ).fetchone()
    left: int = charge["minor"] - back
    return left


def _charge_of(db: sqlite3.Connection, session: sqlite3.Row) -> sqlite3.Row:
    row: sqlite3.Row = db.execute(
        "SELECT * FROM charge WHERE intent = ? ORDER BY number DESC", (session["intent"],)
    ).fetchone()
    return row


def _dispute_of(db: sqlite3.Connection, charge: sqlite3.Row) -> sqlite3.Row | None:
    row: sqlite3.Row | None = db.execute("SELECT * FROM dispute WHERE charge = ?", (charge["id"],)).fetchone()
    return row


def _paid(outcome: Outcome, amount: Money) -> Money:
    """The money that moves when a payment of `amount` is paid in this way."""
    if outcome is Outcome.PAY_LESS:
        return amount - Money(1, amount.currency)
    if outcome is Outcome.PAY_MORE:
        return amount + _one(amount.currency)
    if outcome is Outcome.PAY_OTHER_CURRENCY:
        return Money(amount.minor, _other_currency(amount.currency))
    return amount


def _labels(amount: Money) -> dict[Outcome, str | Promise]:
    """What can be chosen beside paying, in words of the active language."""
    return {
        Outcome.PAY_LESS: format_lazy(_("Pay {amount} less"), amount=Money(1, amount.currency).localised()),
        Outcome.PAY_MORE: format_lazy(_("Pay {amount} more"), amount=_one(amount.currency).localised()),
        Outcome.PAY_OTHER_CURRENCY: format_lazy(
            _("Pay in another currency ({amount})"),
            amount=Money(amount.minor, _other_currency(amount.currency)).localised(),
        ),
        Outcome.PAY_UNTOLD: _("Pay, but lose the webhook"),
        Outcome.PAY_TOLD_TWICE: _("Pay and send the webhook twice"),
        Outcome.PROCESS: _("Pay, but let it be processed for a while"),
        Outcome.SUCCEED: _("End the processing: the payment is good"),
        Outcome.FAIL: _("Let the payment fail for good"),
        Outcome.DELAY_REFUNDS: _("Let refunds wait from now on"),
        Outcome.COMPLETE_REFUNDS: _("Complete the refunds that wait"),
        Outcome.FAIL_REFUNDS: _("Let the refunds that wait fail"),
        Outcome.BOUNCE_REFUNDS: _("Let the refunds that were made come back"),
        Outcome.REFUND_HERE: _("Refund what is left, outside the shop"),
        Outcome.INQUIRE: _("Open a dispute: an inquiry, which takes no money"),
        Outcome.CHARGE_BACK: _("Open a dispute: a chargeback, which takes the money"),
        Outcome.WIN: _("Decide the dispute for the shop"),
        Outcome.LOSE: _("Decide the dispute for the buyer"),
    }


def _one(currency: str) -> Money:
    return Money(10 ** exponent_of(currency), currency)


def _other_currency(currency: str) -> str:
    return "USD" if currency == "JPY" else "JPY"


def _iso(row: sqlite3.Row) -> str:
    currency: str = row["currency"]
    return currency.upper()


def _success_url(row: sqlite3.Row) -> str:
    url: str = row["success_url"]
    return url.replace("{CHECKOUT_SESSION_ID}", row["id"])


def _new_session(asked: Form) -> dict[str, object]:
    """The columns that the request decides. Raises Refused."""
    _refuse_unknown(asked, SESSION_PARAMETERS, METADATA, INTENT_METADATA)
    for name, value in {
        "mode": "payment",
        "adaptive_pricing[enabled]": "false",
        "line_items[0][quantity]": "1",
    }.items():
        if _text(asked, name) != value:
            raise Refused(400, "", f"This emulator takes {name} {value} only.")
    currency = _text(asked, "line_items[0][price_data][currency]")
    if currency not in CURRENCIES:
        raise Refused(400, "", f"Invalid currency: {currency}.")
    minor = _whole(asked, "line_items[0][price_data][unit_amount]")
    if not minor:
        raise Refused(400, "amount_too_small", "The Checkout Session's total amount must be greater than 0.")
    method = _text(asked, "allowed_payment_method_types[0]")
    if method not in METHODS:
        raise Refused(
            400, "", f"Invalid allowed_payment_method_types[0]: must be one of {', '.join(METHODS)}."
        )
    if (method == "wechat_pay") != (asked.get("payment_method_options[wechat_pay][client]") == "web"):
        raise Refused(400, "", "payment_method_options[wechat_pay][client] is web, and for WeChat Pay only.")
    for name in ("success_url", "cancel_url"):
        if len(asked.get(name, "")) > 5000 or not WEB_ADDRESS.fullmatch(_text(asked, name)):
            raise Refused(400, "url_invalid", f"Not a valid URL ({name}).")
    expires_at = _whole(asked, "expires_at")
    if not _now() + SHORTEST <= expires_at <= _now() + LONGEST:
        raise Refused(
            400,
            "",
            "The `expires_at` timestamp must be between 30 minutes and 24 hours from Checkout Session creation.",
        )
    reference = _text(asked, "client_reference_id")
    if len(reference) > 200:
        raise Refused(400, "", "client_reference_id has 200 letters at most.")
    return {
        "client_reference_id": reference,
        "minor": minor,
        "currency": currency,
        "method": method,
        "name": _text(asked, "line_items[0][price_data][product_data][name]"),
        "description": asked.get("payment_intent_data[description]", ""),
        "success_url": asked["success_url"],
        "cancel_url": asked["cancel_url"],
        "locale": asked.get("locale", "auto"),
        "metadata": json.dumps(_matching(asked, METADATA)),
        "intent_metadata": json.dumps(_matching(asked, INTENT_METADATA)),
        "expires_at": expires_at,
    }


def _read_form(request: Request) -> dict[str, str]:
    if request.mimetype != "application/x-www-form-urlencoded" and request.content_length:
        raise Refused(400, "", "This emulator takes forms only.")
    return request.form.to_dict()


def _refuse_unknown(asked: Form, known: set[str], *forms: re.Pattern[str]) -> None:
    for name in asked:
        if name not in known and not any(form.fullmatch(name) for form in forms):
            raise Refused(400, "parameter_unknown", f"Received unknown parameter: {name}")


def _matching(asked: Form, form: re.Pattern[str]) -> dict[str, str]:
    return {found[1]: value for name, value in asked.items() if (found := form.fullmatch(name))}


def _paths(asked: Form) -> list[str]:
    return [value for name, value in asked.items() if EXPAND.fullmatch(name)]


def _text(asked: Form, name: str) -> str:
    value = asked.get(name, "")
    if not value:
        raise Refused(400, "parameter_missing", f"Missing required param: {name}.")
    return value


def _whole(asked: Form, name: str) -> int:
    value = _text(asked, name)
    if not WHOLE.fullmatch(value):
        raise Refused(400, "parameter_invalid_integer", f"Invalid integer: {value} ({name})")
    return int(value)


def _row(db: sqlite3.Connection, table: str, object_id: str) -> sqlite3.Row:
    row: sqlite3.Row | None = db.execute(
        f"SELECT * FROM {table} WHERE id = ?",  # noqa: S608 (a constant)
        (object_id,),
    ).fetchone()
    if not row:
        names = {"session": "checkout.session", "intent": "payment_intent", "balance": "balance transaction"}
        raise Refused(404, "resource_missing", f"No such {names.get(table, table)}: '{object_id}'")
    return row


def _new_id(prefix: str) -> str:
    return f"{prefix}_{secrets.token_hex(12)}"


def _error(refused: Refused) -> Response:
    kind = "api_error" if refused.status >= 500 else "invalid_request_error"
    error = {"message": refused.message, "type": kind}
    if refused.code == "idempotency_error":
        error["type"] = refused.code
    elif refused.code:
        error["code"] = refused.code
    return answer({"error": error}, refused.status)


def _now() -> int:
    """In seconds since 1970: Stripe knows no finer time."""
    return int(datetime.now(UTC).timestamp())
