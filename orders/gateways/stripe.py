"""Stripe: the buyer pays on Stripe's page, by card or by what else the shop has configured.

Checkout Sessions through the `stripe` SDK. Three things that Stripe cannot do are done with what it can:

- It cannot find a session by our reference, and the search for payments knows only what a buyer has begun to pay,
  minutes later. Sessions live for a day, so those of the last day are looked through, newest first.
- It does not say who ended a session. `close` writes it onto the session, so that closed is not taken for overdue.
- A dispute does not bear our reference. `read_webhook` asks for the payment that it is about.
"""

import json
import re
import ssl
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache, partial
from typing import Any

import httpx
import stripe
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from stripe.params.checkout import SessionCreateParams

from inventory.money import Money
from orders.gateways.origins import origin_of
from orders.gateways.protocol import (
    BadSignature,
    Booking,
    Charge,
    CredentialsRefused,
    Declined,
    Event,
    MoneyMoved,
    Opened,
    RefusedReturn,
    Return,
    Snapshot,
    Unavailable,
    Unreachable,
    WebhookAnswer,
)

# The SDK tells Stripe about this machine otherwise, and leaves a file in the home directory.
stripe.enable_telemetry = False

# For everything that one call of ours asks of Stripe; connecting and one wait for an answer take these at most.
CALL_SECONDS = 14.0
CONNECT_SECONDS = 3.0
WAIT_SECONDS = 7.0
# A hundred payments with all that hangs on them.
ANSWER_BYTES = 4_000_000
WEBHOOK_BYTES = 1_000_000
WEBHOOK_SECONDS = 300
PAGE_LENGTH = 100
MOST_PAGES = 1_000
# Stripe wants between 30 minutes and 24 hours, by its own clock.
SHORTEST = timedelta(minutes=31)
LONGEST = timedelta(hours=23, minutes=59)
# In which a session of ours may still be open.
LIFETIME = timedelta(hours=25)

REAL_URL = "https://api.stripe.com"
REAL_PAGES = "https://checkout.stripe.com"

SESSION_ID = re.compile(r"cs_(test|live)_[A-Za-z0-9]{1,80}")
INTENT_ID = re.compile(r"pi_[A-Za-z0-9_]{1,90}")
OBJECT_ID = re.compile(r"[a-z]{2,6}_[A-Za-z0-9_]{1,90}")
EVENT_ID = re.compile(r"evt_[A-Za-z0-9_]{1,100}")
REFERENCE = re.compile(r"[A-Za-z0-9-]{1,32}")
# What stands behind the # of a page is long, and the page does not open without it.
URL = re.compile(r"[!-~]{1,2000}")
# Restricted keys (rk) do as well as secret ones.
SECRET_KEY = re.compile(r"[sr]k_(test|live)_[A-Za-z0-9]{10,250}")
WEBHOOK_SECRET = re.compile(r"whsec_[A-Za-z0-9+/=_-]{16,250}")
SIGNATURE_HEADER = re.compile(r"[!-~]{1,4000}")
TIMESTAMP = re.compile(r"[0-9]{1,11}")

LOCALES = {"zh-hans": "zh", "zh-hant": "zh-HK"}
# What Stripe calls the methods that the shop may have it process.
METHODS = {"": "card", "card": "card", "alipay": "alipay", "wechat": "wechat_pay"}
# A refund after that is refused or fails; a card's never is.
REFUNDABLE_FOR = {"alipay": timedelta(days=90), "wechat": timedelta(days=180)}
# The keys under which our references are written onto Stripe's objects, and who closed a session.
PAYMENT, REFUND, CLOSED_BY = "payment", "refund", "closed_by"


class _Refused(Declined):
    """Stripe understood and said no. A conflict: the idempotency key has come with another request."""

    def __init__(self, status: int, reason: str, *, is_conflict: bool = False) -> None:
        super().__init__(gettext("Stripe refused: %(reason)s") % {"reason": reason or f"status {status}"})
        self.status = status
        self.is_conflict = is_conflict


@dataclass(frozen=True, slots=True)
class _Payment:
    """A payment intent: what has happened since the buyer began to pay. `problem` is why it went no further."""

    intent_id: str
    status: str
    capture: MoneyMoved | None
    problem: str


@dataclass(frozen=True, slots=True)
class _Session:
    provider_id: str
    reference: str
    status: str
    is_paid: bool
    is_closed_by_us: bool
    amount: Money
    pay_url: str
    payment: _Payment | None


@dataclass(frozen=True, slots=True)
class _Refund:
    status: str
    moved: MoneyMoved
    payment_reference: str
    problem: str


@dataclass(frozen=True, slots=True)
class _DisputeEntry:
    """A line of Stripe's balance that a dispute is the reason of. `kind` is EntryKind's."""

    kind: str
    moved: MoneyMoved


class StripeGateway:
    """Settings: STRIPE_URL, STRIPE_SECRET_KEY and STRIPE_WEBHOOK_SECRET.

    The account at Stripe is the shop's alone, and sends to /webhooks/stripe/: checkout.session.completed,
    .async_payment_succeeded, .async_payment_failed and .expired, charge.refunded, refund.updated and .failed,
    charge.dispute.created, .funds_withdrawn, .funds_reinstated and .closed. A restricted key needs to write
    Checkout Sessions and refunds and to read payment intents, charges, disputes and balance transactions.

    While the webhook secret is being changed there may be several, with spaces between them. http, and keys of
    Stripe's test mode, with which nobody pays real money, need ALLOW_EMULATORS.
    """

    slug: str = "stripe"
    label: str | Promise = _("Stripe")
    methods: frozenset[str] = frozenset({"card", "alipay", "wechat"})
    currencies: frozenset[str] = frozenset({"USD", "HKD", "CNY", "EUR", "JPY"})
    webhook_answer: WebhookAnswer = WebhookAnswer()
    kept_headers: tuple[str, ...] = ("stripe-signature",)
    late_for: timedelta = timedelta(0)

    def missing(self) -> list[str]:
        missing = []
        if not URL.fullmatch(settings.STRIPE_URL):
            missing.append("STRIPE_URL")
        if not SECRET_KEY.fullmatch(settings.STRIPE_SECRET_KEY):
            missing.append("STRIPE_SECRET_KEY")
        if not _webhook_secrets():
            missing.append("STRIPE_WEBHOOK_SECRET")
        if not settings.ALLOW_EMULATORS and (
            (settings.STRIPE_URL and not settings.STRIPE_URL.startswith("https://"))
            or (settings.STRIPE_SECRET_KEY and not _is_live())
        ):
            missing.append("ALLOW_EMULATORS")
        return missing

    def pay_origins(self) -> tuple[str, ...]:
        return (origin_of(_site()),)

    def refundable_for(self, method: str) -> timedelta | None:
        return REFUNDABLE_FOR.get(method)

    def open(self, charge: Charge) -> Opened:
        """Open a session. It may live longer than the charge allows, for Stripe wants half an hour: close it then."""
        method = METHODS.get(charge.method)
        if method is None:
            raise Declined(gettext("Stripe is not set up for this way to pay."))
        api = _Api()
        try:
            content = api.ask(
                lambda v1: v1.checkout.sessions.create(
                    _asked(charge, method), {"idempotency_key": f"{charge.reference}:create"}
                )
            )
            session = _read_session(content)
        except _Refused as refusal:
            if not refusal.is_conflict:
                raise
            # Asked before in other words, perhaps from a page in another language, or later. The session is there.
            found = _find(api, charge.reference)
            if not found:
                raise _no_sense("a conflict with a payment that it does not have") from None
            session = found
        if session.reference != charge.reference:
            raise _no_sense("another payment than was asked for")
        if session.amount != charge.amount:
            raise Declined(gettext("Stripe has this payment with another amount."))
        if session.status == "expired":
            raise Declined(gettext("The time to pay at Stripe is over."))
        if not session.pay_url:
            raise Unavailable("Stripe has this payment already, and it is not open any more.")
        return Opened(provider_id=session.provider_id, pay_url=session.pay_url)

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        api = _Api()
        if not provider_id:
            found = _find(api, reference)
            if found is None:
                return None
            provider_id = found.provider_id
        session = _session(api, provider_id)
        if session is None:
            return None
        if session.provider_id != provider_id or (reference and session.reference != reference):
            raise _no_sense("another payment than was asked for")
        state, problem = _state_of(session)
        if not (session.payment and session.payment.capture):
            return Snapshot(provider_id=provider_id, state=state, problem=problem)
        refunds = list(_refunds_of(api, session.payment.intent_id))
        disputed = list(_disputed(api, session.payment.intent_id))
        return Snapshot(
            provider_id=provider_id,
            state=state,
            captures=(session.payment.capture,),
            refunds=tuple(refund.moved for refund in refunds if refund.status == "succeeded"),
            chargebacks=tuple(entry.moved for entry in disputed if entry.kind == "chargeback"),
            reversals=tuple(entry.moved for entry in disputed if entry.kind == "reversal"),
            refused_returns=tuple(
                RefusedReturn(
                    refund.moved.reference, refund.problem or refund.status, refund.moved.transaction_id
                )
                for refund in refunds
                if refund.status in ("failed", "canceled")
            ),
        )

    def close(self, *, provider_id: str) -> None:
        """Expire the session, having written onto it that it was us."""
        session_id = _known(provider_id)
        api = _Api()
        content = api.ask(
            lambda v1: v1.checkout.sessions.update(session_id, {"metadata": {CLOSED_BY: "shop"}})
        )
        session = _read_session(content)
        if session.provider_id != session_id:
            raise _no_sense("another payment than was asked for")
        if session.status == "complete":
            raise Declined(gettext("The buyer has paid at Stripe."))
        if session.status == "open":
            # Refused if the buyer has paid in the meantime.
            api.ask(lambda v1: v1.checkout.sessions.expire(session_id))

    def give_back(self, refund: Return) -> None:
        """Ask for a refund, unless there is one with this reference: Stripe forgets the key after a day."""
        session_id = _known(refund.provider_id)
        api = _Api()
        session = _session(api, session_id)
        if session is None:
            raise Declined(gettext("Stripe has no such payment."))
        payment = session.payment
        if payment is None or payment.capture is None:
            raise Declined(gettext("Nothing of this payment was captured."))
        # A refund at Stripe has no currency of its own.
        if payment.capture.amount.currency != refund.amount.currency:
            raise Declined(gettext("This payment was made in another currency."))
        intent_id = payment.intent_id
        if any(back.moved.reference == refund.reference for back in _refunds_of(api, intent_id)):
            return
        content = api.ask(
            lambda v1: v1.refunds.create(
                {
                    "payment_intent": intent_id,
                    "amount": refund.amount.minor,
                    "metadata": {PAYMENT: session.reference, REFUND: refund.reference},
                },
                {"idempotency_key": refund.reference},
            )
        )
        made = _read_refund(content)
        match content:
            case {"payment_intent": str(found)} if found == intent_id:
                if (made.moved.reference, made.moved.amount) == (refund.reference, refund.amount):
                    return
        raise _no_sense("another refund than was asked for")

    def bookings(self, *, day: date) -> Iterator[Booking]:
        """By the charges and the refunds of the day, and by its balance for what disputes moved."""
        start = datetime(day.year, day.month, day.day, tzinfo=UTC)
        within = {
            "gte": int(start.timestamp()),
            "lt": int((start + timedelta(days=1)).timestamp()),
        }
        for content in _pages(lambda page, v1: v1.charges.list({"created": within} | page)):
            capture = _read_charge(content)
            if capture:
                yield _booking("capture", capture, _reference_on(content))
        for content in _pages(
            lambda page, v1: v1.refunds.list({"created": within, "expand": ["data.charge"]} | page)
        ):
            refund = _read_refund(content)
            if refund.status == "succeeded":
                yield _booking("refund", refund.moved, refund.payment_reference)
        for content in _pages(
            lambda page, v1: v1.balance_transactions.list(
                {"created": within, "type": "adjustment", "expand": ["data.source.charge"]} | page
            )
        ):
            match content:
                case {"source": {"object": "dispute", "charge": charge, **dispute}}:
                    entry = _read_dispute_entry(content, disputed=_read_money(dispute))
                    if entry:
                        yield _booking(entry.kind, entry.moved, _reference_on(charge))

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        """Raises Unavailable when Stripe has to be asked which payment the webhook is about, and does not answer.

        Then nothing is to be stored, and Stripe is to send it again.
        """
        if self.missing():
            raise BadSignature("Stripe is not configured.")
        if len(body) > WEBHOOK_BYTES:
            raise BadSignature("The body is too long.")
        header = headers.get("stripe-signature", "")
        if not SIGNATURE_HEADER.fullmatch(header) or not _is_fresh(header):
            raise BadSignature("The header is not that of a webhook, or not of these minutes.")
        if not any(_is_signed(body, header, secret) for secret in _webhook_secrets()):
            raise BadSignature("No signature is good.")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise BadSignature("The body is not JSON.") from None
        match content:
            case {
                "object": "event",
                "id": str(event_id),
                "livemode": bool(is_live),
                "data": {"object": {} as about},
                **more,
            } if EVENT_ID.fullmatch(event_id):
                # An account that is connected to ours is not ours.
                if is_live != _is_live() or more.get("account") is not None:
                    raise BadSignature("The event is of another account or mode.")
                return Event(dedupe_key=event_id, attempt_reference=_reference_of(about))
        raise BadSignature("The body is not that of an event.")


# --- the connection ----------------------------------------------------------------------------------


class _Transport(stripe.HTTPClient):
    """How the SDK reaches Stripe for one call of ours: in time, without a proxy, and never twice.

    `content` is the answer. The SDK gets to see none, for it would log whom a payment is from and what his card
    is, and build objects that an answer without sense trips up; of a refusal it sees what it needs to name it.
    """

    name = "httpx"

    def __init__(self) -> None:
        super().__init__()
        self._deadline = time.monotonic() + CALL_SECONDS
        self.content: Mapping[Any, object] = {}

    def request(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        post_data: Any = None,
        *,
        _usage: list[str] | None = None,
    ) -> tuple[str, int, Mapping[str, str]]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Unreachable("Stripe answers too slowly.")
        wait = min(WAIT_SECONDS, left / 2)
        timeout = httpx.Timeout(wait, connect=min(CONNECT_SECONDS, left / 4))
        with httpx.Client(verify=_trust(), timeout=timeout, trust_env=False) as client:
            try:
                request = client.build_request(
                    method,
                    url,
                    content=post_data,
                    # A few compressed bytes may be a great many.
                    headers={**(headers or {}), "Accept-Encoding": "identity"},
                )
                # What is left after it suffices for waiting once more.
                last_start = self._deadline - wait
                try:
                    status, body = _send(client, request, last_start)
                except httpx.ConnectError:
                    status, body = _send(client, request, last_start)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Unreachable(f"Stripe did not answer ({type(error).__name__}).") from error
        return self._read(status, body), status, {}

    def close(self) -> None:
        """Nothing is kept open."""

    def _read(self, status: int, body: bytes) -> str:
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            content = None
        if 200 <= status < 300:
            if not isinstance(content, dict):
                raise _no_sense("something that is not a JSON object")
            self.content = content
            return "{}"
        match content:
            case {"error": {} as error}:
                named = {
                    name: _printable(value)
                    for name in ("type", "code", "message")
                    if isinstance(value := error.get(name), str)
                }
                return json.dumps({"error": named})
        if status in (400, 402, 404):
            raise _no_sense("a refusal that cannot be read")
        return '{"error": {}}'


class _Api:
    """The SDK for one call of ours. Raises Unavailable when a setting is missing."""

    def __init__(self) -> None:
        if missing := StripeGateway().missing():
            raise Unreachable(f"Stripe is not configured: {', '.join(missing)}.")
        self._transport = _Transport()
        self._v1 = stripe.StripeClient(
            settings.STRIPE_SECRET_KEY,
            base_addresses={"api": settings.STRIPE_URL},
            max_network_retries=0,
            http_client=self._transport,
        ).v1

    def ask(self, call: Callable[[stripe.V1Services], object]) -> Mapping[str, object]:
        """What Stripe answers to a call of the SDK.

        Raises _Refused for what Stripe refuses, CredentialsRefused, or Unavailable without an answer.
        """
        try:
            call(self._v1)
        except (stripe.AuthenticationError, stripe.PermissionError):
            raise CredentialsRefused(gettext("Stripe refuses our credentials.")) from None
        except (stripe.InvalidRequestError, stripe.IdempotencyError, stripe.CardError) as refusal:
            raise _Refused(
                refusal.http_status or 0,
                refusal.user_message or refusal.code or "",
                is_conflict=isinstance(refusal, stripe.IdempotencyError),
            ) from None
        except stripe.StripeError as error:
            raise Unreachable(f"Stripe answered with status {error.http_status}.") from None
        return self._transport.content


def _send(client: httpx.Client, request: httpx.Request, last_start: float) -> tuple[int, bytes]:
    """Status and body. Raises Unavailable when the body grows too long or comes too slowly."""
    body = b""
    response = client.send(request, stream=True, follow_redirects=False)
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > ANSWER_BYTES:
                raise _no_sense("too much")
            if time.monotonic() > last_start:
                raise Unreachable("Stripe answers too slowly.")
    finally:
        response.close()
    return response.status_code, body


@cache
def _trust() -> ssl.SSLContext:
    """Reading the root certificates takes 20 ms: once is enough."""
    return httpx.create_ssl_context(trust_env=False)


def _pages(
    list_page: Callable[[Any, stripe.V1Services], object], *, api: _Api | None = None
) -> Iterator[dict[object, object]]:
    """All objects of a list, newest first. Without `api`, each page has its own time.

    What `list_page` gets says which page; no type of the SDK's can be added to all of its queries.
    """
    page: dict[str, object] = {"limit": PAGE_LENGTH}
    for _number in range(MOST_PAGES):
        match (api or _Api()).ask(partial(list_page, page)):
            case {"object": "list", "data": [*contents], "has_more": bool(has_more)}:
                last = ""
                for content in contents:
                    match content:
                        case {"id": str(last), **rest} if OBJECT_ID.fullmatch(last):
                            yield {"id": last, **rest}
                        case _:
                            raise _no_sense("a list of what has no id")
                if not has_more:
                    return
                if not last or last == page.get("starting_after"):
                    raise _no_sense("a list that does not go on")
                page = {"limit": PAGE_LENGTH, "starting_after": last}
            case _:
                raise _no_sense("something that is not a list")
    raise _no_sense("a list without an end")


# --- sessions ----------------------------------------------------------------------------------------


def _asked(charge: Charge, method: str) -> SessionCreateParams:
    now = datetime.now(UTC)
    asked: SessionCreateParams = {
        "mode": "payment",
        "client_reference_id": charge.reference,
        "metadata": {PAYMENT: charge.reference},
        # These go on to the charge as well.
        "payment_intent_data": {
            "description": charge.description,
            "metadata": {PAYMENT: charge.reference},
        },
        "line_items": [
            {
                "quantity": 1,
                "price_data": {
                    "currency": charge.amount.currency.lower(),
                    "unit_amount": charge.amount.minor,
                    "product_data": {"name": charge.description},
                },
            }
        ],
        # Nobody else sets the price, and in no other currency.
        "adaptive_pricing": {"enabled": False},
        "allowed_payment_method_types": [method],
        "success_url": charge.return_url,
        "cancel_url": charge.return_url,
        "expires_at": int(min(max(charge.expires_at, now + SHORTEST), now + LONGEST).timestamp()),
        "locale": LOCALES.get(charge.language, "en"),
    }
    if method == "wechat_pay":
        asked["payment_method_options"] = {"wechat_pay": {"client": "web"}}
    return asked


def _session(api: _Api, provider_id: str) -> _Session | None:
    if not SESSION_ID.fullmatch(provider_id):
        return None
    try:
        content = api.ask(
            lambda v1: v1.checkout.sessions.retrieve(
                provider_id, {"expand": ["payment_intent.latest_charge"]}
            )
        )
    except _Refused as refusal:
        if refusal.status == 404:
            return None
        raise
    return _read_session(content)


def _find(api: _Api, reference: str) -> _Session | None:
    """The session with this reference: the newest, but one that can be paid or is paid before one that is over."""
    since = int((datetime.now(UTC) - LIFETIME).timestamp())
    over = None
    for content in _pages(
        lambda page, v1: v1.checkout.sessions.list({"created": {"gte": since}} | page), api=api
    ):
        # Sessions of others, made by hand or by another program, need not be readable.
        if content.get("client_reference_id") == reference:
            session = _read_session(content)
            if session.status != "expired":
                return session
            over = over or session
    return over


def _state_of(session: _Session) -> tuple[str, str]:
    """The state of the payment and what is wrong with it. Money that has moved goes before all that is said."""
    payment = session.payment
    if payment and payment.capture:
        return "captured", ""
    problem = payment.problem if payment else ""
    if session.status == "open":
        # After a card that was refused the buyer may take another one.
        return "pending", problem
    if session.status == "expired":
        return ("cancelled" if session.is_closed_by_us else "expired"), problem
    if session.is_paid or payment is None:
        raise _no_sense("a payment that is complete without a charge")
    if payment.status in ("processing", "requires_action", "requires_capture"):
        return "confirming", problem
    return "declined", problem or payment.status


def _known(provider_id: str) -> str:
    """An id that may stand in an address. Raises Declined for one that Stripe cannot have given."""
    if not SESSION_ID.fullmatch(provider_id):
        raise Declined(gettext("Stripe has no such payment."))
    return provider_id


def _read_session(content: Mapping[Any, object]) -> _Session:
    match content:
        case {
            "object": "checkout.session",
            "id": str(provider_id),
            "client_reference_id": str(reference),
            "status": str("open" | "complete" | "expired" as status),
            "payment_status": str(payment_status),
            "amount_total": amount,
            "currency": currency,
            "metadata": {} as metadata,
            "url": str() | None as url,
            "payment_intent": intent,
        } if SESSION_ID.fullmatch(provider_id) and REFERENCE.fullmatch(reference):
            if url is not None and not _is_pay_url(url):
                raise _no_sense("an address to pay at that is not Stripe's")
            return _Session(
                provider_id=provider_id,
                reference=reference,
                status=status,
                is_paid=payment_status == "paid",
                is_closed_by_us=CLOSED_BY in metadata,
                amount=_read_money({"amount": amount, "currency": currency}),
                pay_url=url or "",
                payment=_read_payment(intent) if isinstance(intent, dict) else None,
            )
    raise _no_sense("something that is not a session")


def _read_payment(content: Mapping[Any, object]) -> _Payment:
    match content:
        case {
            "object": "payment_intent",
            "id": str(intent_id),
            "status": str(status),
            "latest_charge": {} | None as charge,
            "last_payment_error": error,
        } if INTENT_ID.fullmatch(intent_id):
            match error:
                case {"message": str(message)}:
                    problem = _printable(message)
                case _:
                    problem = ""
            return _Payment(intent_id, _printable(status), _read_charge(charge) if charge else None, problem)
    raise _no_sense("something that is not a payment")


def _is_pay_url(url: str) -> bool:
    """Whether a buyer may be sent there: to Stripe's own pages and nowhere else."""
    return bool(URL.fullmatch(url)) and url.startswith(f"{_site()}/")


def _site() -> str:
    return REAL_PAGES if settings.STRIPE_URL == REAL_URL else str(settings.STRIPE_URL)


# --- money -------------------------------------------------------------------------------------------


def _refunds_of(api: _Api, intent_id: str) -> Iterator[_Refund]:
    for content in _pages(lambda page, v1: v1.refunds.list({"payment_intent": intent_id} | page), api=api):
        yield _read_refund(content)


def _disputed(api: _Api, intent_id: str) -> Iterator[_DisputeEntry]:
    """What the disputes about a payment took, and gave again. An inquiry moves no money."""
    for content in _pages(lambda page, v1: v1.disputes.list({"payment_intent": intent_id} | page), api=api):
        match content:
            case {"object": "dispute", "balance_transactions": [*lines]}:
                disputed = _read_money(content)
                for line in lines:
                    entry = _read_dispute_entry(line, disputed=disputed)
                    if entry:
                        yield entry
            case _:
                raise _no_sense("something that is not a dispute")


def _read_charge(content: object) -> MoneyMoved | None:
    """The money that a charge brought; None for one that brought none, or not yet."""
    match content:
        case {
            "object": "charge",
            "id": str(transaction_id),
            "status": str(status),
            "captured": bool(is_captured),
            "amount_captured": amount,
            "currency": currency,
            "created": created,
        } if OBJECT_ID.fullmatch(transaction_id):
            if status != "succeeded" or not is_captured:
                return None
            return MoneyMoved(
                transaction_id, _read_money({"amount": amount, "currency": currency}), _read_time(created)
            )
    raise _no_sense("a charge that cannot be read")


def _read_refund(content: Mapping[Any, object]) -> _Refund:
    match content:
        case {
            "object": "refund",
            "id": str(transaction_id),
            "status": str(status),
            "created": created,
            "metadata": {} as metadata,
            **more,
        } if OBJECT_ID.fullmatch(transaction_id):
            # A refund made in Stripe's dashboard bears none of ours.
            reference = metadata.get(REFUND)
            reason = more.get("failure_reason")
            return _Refund(
                status=_printable(status),
                moved=MoneyMoved(
                    transaction_id=transaction_id,
                    amount=_read_money(content),
                    at=_read_time(created),
                    reference=reference
                    if isinstance(reference, str) and REFERENCE.fullmatch(reference)
                    else "",
                ),
                payment_reference=_reference_on(content) or _reference_on(more.get("charge")),
                problem=_printable(reason) if isinstance(reason, str) else "",
            )
    raise _no_sense("a refund that cannot be read")


def _read_dispute_entry(content: object, *, disputed: Money) -> _DisputeEntry | None:
    """A line of the balance about a dispute; None for one that moves no money of the payment, such as a fee.

    The balance may be kept in another currency than the payment was made in: then it is what was disputed.
    """
    match content:
        case {
            "object": "balance_transaction",
            "id": str(transaction_id),
            "reporting_category": str(category),
            "amount": amount,
            "currency": str(currency),
            "created": created,
        } if OBJECT_ID.fullmatch(transaction_id) and type(amount) is int:
            kind = {"dispute": "chargeback", "dispute_reversal": "reversal"}.get(category)
            if kind is None or amount == 0:
                return None
            if (kind == "chargeback") != (amount < 0):
                raise _no_sense("a dispute that moves money the wrong way")
            if currency.upper() == disputed.currency:
                disputed = _read_money({"amount": abs(amount), "currency": currency})
            return _DisputeEntry(kind, MoneyMoved(transaction_id, disputed, _read_time(created)))
    raise _no_sense("a line of the balance that cannot be read")


def _booking(kind: str, moved: MoneyMoved, reference: str) -> Booking:
    return Booking(kind, moved.transaction_id, moved.amount, moved.at, reference)


def _reference_on(content: object) -> str:
    """Our reference of the payment that an object of Stripe's belongs to; empty where it bears none."""
    match content:
        case {"metadata": {"payment": str(reference)}} if REFERENCE.fullmatch(reference):
            return reference
    return ""


def _read_money(content: Mapping[Any, object]) -> Money:
    """An amount above zero. Stripe counts minor units as ISO 4217 does in the currencies that we take."""
    match content:
        case {"amount": int(minor), "currency": str(currency)}:
            if type(minor) is int and 0 < minor < 10**12 and currency.upper() in StripeGateway.currencies:
                return Money(minor, currency.upper())
    raise _no_sense("an amount that cannot be read")


def _read_time(seconds: object) -> datetime:
    if type(seconds) is not int or not 0 < seconds < 10**11:
        raise _no_sense("a time that cannot be read")
    return datetime.fromtimestamp(seconds, UTC)


def _printable(text: str) -> str:
    return "".join(letter for letter in text[:200] if letter.isprintable())


def _no_sense(what: str) -> Unavailable:
    return Unavailable(f"Stripe answered {what}.")


# --- webhooks ----------------------------------------------------------------------------------------


def _webhook_secrets() -> list[str]:
    """None when one of them is no secret."""
    secrets: list[str] = settings.STRIPE_WEBHOOK_SECRET.split()
    return secrets if all(WEBHOOK_SECRET.fullmatch(secret) for secret in secrets) else []


def _is_live() -> bool:
    key: str = settings.STRIPE_SECRET_KEY
    return "_live_" in key


def _is_fresh(header: str) -> bool:
    """Whether the header bears one time, not long ago and, what the SDK does not look at, not long hence."""
    times = [value for name, _, value in (part.partition("=") for part in header.split(",")) if name == "t"]
    return (
        len(times) == 1
        and bool(TIMESTAMP.fullmatch(times[0]))
        and abs(int(times[0]) - time.time()) <= WEBHOOK_SECONDS
    )


def _is_signed(body: bytes, header: str, secret: str) -> bool:
    try:
        stripe.WebhookSignature.verify_header(body, header, secret, WEBHOOK_SECONDS)
    except (ValueError, stripe.SignatureVerificationError):
        # ValueError: what the SDK lets out for a body that is no UTF-8.
        return False
    return True


def _reference_of(about: Mapping[object, object]) -> str:
    """Our reference of the payment that an event is about; empty if that is none of ours."""
    reference = _reference_on(about)
    match about:
        case {"payment_intent": str(intent_id)} if not reference and INTENT_ID.fullmatch(intent_id):
            api = _Api()
            try:
                return _reference_on(api.ask(lambda v1: v1.payment_intents.retrieve(intent_id)))
            except _Refused:
                return ""
    return reference
