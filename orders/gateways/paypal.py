"""PayPal: the buyer approves an order on PayPal's site, and we capture it.

Orders v2, spoken through `paypalrestsdk.Api` with its defects closed. What PayPal cannot do is done with what it can:

- It moves no money until we capture, so `fetch` captures an order that it finds approved: the one thing that
  `fetch` does besides asking. Webhook, return page and poller all lead there; PayPal captures once.
- It cannot cancel an order. `close` changes what the order is for, from a capture to an authorisation that nobody
  will ask for: PayPal then refuses to capture it, whoever was about to.
- It cannot look for an order by our reference. Creating it again with the same key answers the one that is there.
"""

import base64
import binascii
import functools
import json
import re
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import requests
import urllib3
from Cryptodome.Hash import SHA256
from Cryptodome.PublicKey import RSA
from Cryptodome.Signature import pkcs1_15
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from paypalrestsdk import Api, exceptions

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

# For all that one call of ours asks of PayPal. Connecting takes a part of it, and so does a wait for an answer.
CALL_SECONDS = 14.0
CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
ANSWER_BYTES = 1_000_000
WEBHOOK_BYTES = 1_000_000
PAGE_LENGTH = 100
MOST_PAGES = 1_000
# How far a webhook's time may be from ours.
WEBHOOK_AGE = timedelta(seconds=300)

PROVIDER_ID = re.compile(r"[A-Z0-9-]{1,36}")
DISPUTE_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
REFERENCE = re.compile(r"[A-Za-z0-9-]{1,32}")
URL = re.compile(r"[!-~]{1,500}")
PAGE_TOKEN = re.compile(r"[A-Za-z0-9_=-]{1,500}")
ACCESS_TOKEN = re.compile(r"[!-~]{1,4000}")
# Colons divide what is shown for a token.
CLIENT_ID = re.compile(r"[!-9;-~]{1,200}")
CLIENT_SECRET = re.compile(r"[!-~]{1,200}")
WEBHOOK_ID = re.compile(r"[A-Za-z0-9]{1,50}")
EVENT_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
TRANSMISSION_ID = re.compile(r"[A-Za-z0-9-]{1,100}")
TRANSMISSION_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?Z")
CERTIFICATE = re.compile(r"/v1/notifications/certs/[A-Za-z0-9-]{1,100}")
LOCALES = {"zh-hans": "zh-CN", "zh-hant": "zh-HK"}

# What an order is before its buyer has approved it.
UNDECIDED = ("CREATED", "SAVED", "PAYER_ACTION_REQUIRED")
# A capture keeps its money whatever is refunded of it.
MOVED = ("COMPLETED", "PARTIALLY_REFUNDED", "REFUNDED")
# Outcomes of a dispute by which the buyer keeps what he was given back.
LOST = ("RESOLVED_BUYER_FAVOUR", "ACCEPTED")

# Access tokens live for hours, and PayPal counts how often one is asked for. One for each (address, client, secret).
_tokens: dict[tuple[str, str, str], tuple[object, datetime | None]] = {}


class _Refused(Declined):
    """PayPal understood and said no. `issue` is its word for why."""

    def __init__(self, status: int, issue: str, reason: str) -> None:
        super().__init__(
            gettext("PayPal refused: %(reason)s") % {"reason": reason or issue or f"status {status}"}
        )
        self.status = status
        self.issue = issue


@dataclass(frozen=True, slots=True)
class _Movement:
    """A capture or a refund, whatever its state."""

    status: str
    moved: MoneyMoved
    problem: str


@dataclass(frozen=True, slots=True)
class _Order:
    provider_id: str
    reference: str
    status: str
    intent: str
    amount: Money
    captures: tuple[_Movement, ...]
    refunds: tuple[_Movement, ...]

    def is_paid(self) -> bool:
        return any(capture.status in MOVED for capture in self.captures)


@dataclass(frozen=True, slots=True)
class _Dispute:
    """What a dispute took from us, and what of it we were given again."""

    reference: str
    taken: MoneyMoved | None
    returned: MoneyMoved | None


class PayPalGateway:
    """Settings: PAYPAL_URL, PAYPAL_CLIENT_ID, PAYPAL_CLIENT_SECRET and PAYPAL_WEBHOOK_ID.

    The application at PayPal needs the features "Transaction search" and "Disputes" beside the payments, and a
    webhook to /webhooks/paypal/ for CHECKOUT.ORDER.APPROVED, CHECKOUT.PAYMENT-APPROVAL.REVERSED,
    PAYMENT.CAPTURE.* and CUSTOMER.DISPUTE.*. http needs ALLOW_EMULATORS.
    """

    slug: str = "paypal"
    label: str | Promise = "PayPal"
    methods: frozenset[str] = frozenset({"paypal"})
    # It has yuan for accounts in China only.
    currencies: frozenset[str] = frozenset({"USD", "HKD", "EUR", "JPY"})
    webhook_answer: WebhookAnswer = WebhookAnswer()
    kept_headers: tuple[str, ...] = ("paypal-",)
    late_for: timedelta = timedelta(0)

    def missing(self) -> list[str]:
        forms = {
            "PAYPAL_URL": URL,
            "PAYPAL_CLIENT_ID": CLIENT_ID,
            "PAYPAL_CLIENT_SECRET": CLIENT_SECRET,
            "PAYPAL_WEBHOOK_ID": WEBHOOK_ID,
        }
        missing = [name for name, form in forms.items() if not form.fullmatch(getattr(settings, name))]
        if settings.PAYPAL_URL and not (_is_https() or settings.ALLOW_EMULATORS):
            missing.append("ALLOW_EMULATORS")
        return missing

    def pay_origins(self) -> tuple[str, ...]:
        return (origin_of(_site("www")),)

    def refundable_for(self, method: str) -> timedelta | None:
        return timedelta(days=180)

    def open(self, charge: Charge) -> Opened:
        content = _Api().ask(
            "POST",
            "v2/checkout/orders",
            key=f"{charge.reference}:create",
            content={
                "intent": "CAPTURE",
                "purchase_units": [
                    {
                        "reference_id": charge.reference,
                        "custom_id": charge.reference,
                        "invoice_id": charge.reference,
                        "description": charge.description[:127],
                        "amount": _written(charge.amount),
                    }
                ],
                "payment_source": {
                    "paypal": {
                        "experience_context": {
                            "brand_name": "VMOS Cloud",
                            "locale": LOCALES.get(charge.language, "en-US"),
                            "return_url": charge.return_url,
                            "cancel_url": charge.return_url,
                            "user_action": "PAY_NOW",
                            "shipping_preference": "NO_SHIPPING",
                        }
                    }
                },
            },
        )
        order = _read_order(content)
        if order.reference != charge.reference:
            raise _no_sense("another payment than was asked for")
        if order.amount != charge.amount:
            raise Declined(gettext("PayPal has this payment with another amount."))
        return Opened(provider_id=order.provider_id, pay_url=_read_pay_url(content))

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        """Capture the order if it is approved, and say what became of it.

        An order without `provider_id` is found for the six hours in which PayPal remembers the key of its
        creation. After that the answer is None, which harms nobody: only that creation told where to pay.
        """
        api = _Api()
        order = _order(api, provider_id) if provider_id else _order_by_key(api, reference)
        if order is None:
            return None
        if (reference and order.reference != reference) or (provider_id and order.provider_id != provider_id):
            raise _no_sense("another payment than was asked for")
        problem = ""
        if order.status == "APPROVED" and order.intent == "CAPTURE":
            problem = _capture(api, order)
            # What the order says now counts, however the capture was answered.
            order = _order(api, order.provider_id)
            if order is None:
                raise _no_sense("no order where one was a moment ago")
        disputes = _disputes_about(api, order.captures) if order.is_paid() else []
        return _snapshot(order, disputes, problem)

    def close(self, *, provider_id: str) -> None:
        _Api().ask(
            "PATCH",
            f"v2/checkout/orders/{_known(provider_id)}",
            content=[{"op": "replace", "path": "/intent", "value": "AUTHORIZE"}],
        )

    def give_back(self, refund: Return) -> None:
        """Ask for a refund, unless the order has one with this reference: PayPal forgets the key after 45 days."""
        _known(refund.provider_id)
        api = _Api()
        order = _order(api, refund.provider_id)
        if order is None:
            raise Declined(gettext("PayPal has no such payment."))
        if any(back.moved.reference == refund.reference for back in order.refunds):
            return
        captured = next(
            (capture.moved.transaction_id for capture in order.captures if capture.status in MOVED), None
        )
        if captured is None:
            raise Declined(gettext("Nothing of this payment was captured."))
        content = api.ask(
            "POST",
            f"v2/payments/captures/{captured}/refund",
            key=refund.reference,
            content={
                "amount": _written(refund.amount),
                "invoice_id": refund.reference,
                "custom_id": order.reference,
            },
        )
        match content:
            case {"id": str(), "invoice_id": refund.reference}:
                return
        raise _no_sense("another refund than was asked for")

    def bookings(self, *, day: date) -> Iterator[Booking]:
        """By the transaction search, which is up to three hours late, and the disputes, which go back 180 days."""
        yield from _transactions_of(day)
        since = urlencode({"update_time_after": f"{day}T00:00:00.000Z", "page_size": "50"})
        for dispute in _disputes(since):
            for kind, moved in (("chargeback", dispute.taken), ("reversal", dispute.returned)):
                if moved and moved.at.date() == day:
                    yield Booking(kind, moved.transaction_id, moved.amount, moved.at, dispute.reference)

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        """Verify the signature here, then let PayPal confirm that the webhook is ours.

        The first keeps strangers from making us call PayPal; the second knows which certificates PayPal still
        stands by. Raises Unavailable when PayPal cannot be asked: then nothing is to be stored, and PayPal is to
        send the webhook again.
        """
        if self.missing():
            raise BadSignature("PayPal is not configured.")
        if len(body) > WEBHOOK_BYTES:
            raise BadSignature("The body is too long.")
        transmission = _read_transmission(headers)
        _verify_here(transmission, body)
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise BadSignature("The body is not JSON.") from None
        match content:
            case {"id": str(event_id), "resource": {} as resource} if EVENT_ID.fullmatch(event_id):
                # The certificate may have taken the other half.
                api = _Api(share=0.5)
                _confirm_there(api, transmission, body)
                return Event(dedupe_key=event_id, attempt_reference=_reference_of(api, resource))
        raise BadSignature("The body is not that of an event.")


# --- the connection ----------------------------------------------------------------------------------


class _Api(Api):  # type: ignore[misc]  # the SDK has no types
    """The SDK's client for one call of ours, without its defects.

    As it comes it waits for ever, repeats a refused request until the stack ends, passes HTTP 400 off as an
    answer, sends the headers of a request with its token too, sends the body `null` with a GET, and logs bodies
    and tokens in every mode but "live". Raises Unavailable when a setting is missing.
    """

    def __init__(self, *, share: float = 1) -> None:
        """`share` is how much of the time for a call of ours is left."""
        if missing := PayPalGateway().missing():
            raise Unreachable(f"PayPal is not configured: {', '.join(missing)}.")
        super().__init__(
            mode="live",
            endpoint=settings.PAYPAL_URL,
            client_id=settings.PAYPAL_CLIENT_ID,
            client_secret=settings.PAYPAL_CLIENT_SECRET,
        )
        self._account = (settings.PAYPAL_URL, settings.PAYPAL_CLIENT_ID, settings.PAYPAL_CLIENT_SECRET)
        self._deadline = time.monotonic() + CALL_SECONDS * share
        self.token_hash: object
        self.token_request_at: datetime | None
        self.token_hash, self.token_request_at = _tokens.get(self._account, (None, None))

    def ask(self, method: str, path: str, *, key: str = "", content: object = None) -> object:
        """Put one question; bytes are sent as they are, and None is no body.

        Raises _Refused for what PayPal refuses, CredentialsRefused, or Unavailable without an answer that makes sense.
        """
        headers = {"Prefer": "return=representation", **({"PayPal-Request-Id": key} if key else {})}
        try:
            return self.request(f"{settings.PAYPAL_URL}/{path}", method, content, headers)
        except (exceptions.UnauthorizedAccess, exceptions.ForbiddenAccess):
            raise CredentialsRefused(
                gettext("PayPal refuses our credentials, or they do not allow %(path)s.")
                % {"path": path.partition("?")[0]}
            ) from None
        except (exceptions.BadRequest, exceptions.ResourceNotFound, exceptions.ResourceInvalid) as refusal:
            raise _read_refusal(refusal.response.status_code, refusal.content) from None
        except exceptions.ConnectionError as error:
            raise Unreachable(f"PayPal answered with status {error.response.status_code}.") from None
        except (ValueError, RecursionError):
            raise _no_sense("something that is not JSON") from None

    def request(
        self,
        url: str,
        method: str,
        body: object = None,
        headers: Mapping[str, str] | None = None,
        refresh_token: object = None,
    ) -> object:
        """As the SDK's, but a token that is refused is replaced once, and is asked for without these headers."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body)
        try:
            return self.http_call(url, method, data=data, headers={**self.headers(), **(headers or {})})
        except exceptions.UnauthorizedAccess:
            _tokens.pop(self._account, None)
            self.token_hash = None
        return self.http_call(url, method, data=data, headers={**self.headers(), **(headers or {})})

    def get_token_hash(
        self, authorization_code: object = None, refresh_token: object = None, headers: object = None
    ) -> object:
        """The token that is there, or a new one, which is kept for the next call of ours."""
        token = super().get_token_hash()
        match token:
            case {"access_token": str(secret), "token_type": "Bearer", "expires_in": int()}:
                if ACCESS_TOKEN.fullmatch(secret):
                    _tokens[self._account] = (token, self.token_request_at)
                    return token
        raise _no_sense("a token that is none")

    def http_call(self, url: str, method: str, **kwargs: Any) -> object:
        response, body = _exchange(method, url, deadline=self._deadline, **kwargs)
        return self.handle_response(response, body.decode())


def _exchange(
    method: str, url: str, *, deadline: float, headers: Mapping[str, str], data: str | bytes | None = None
) -> tuple[requests.Response, bytes]:
    """The answer and its body. Raises Unavailable when there is none, or it is too long, or too slow."""
    left = deadline - time.monotonic()
    if left <= 0:
        raise Unreachable("PayPal answers too slowly.")
    connecting = min(CONNECT_SECONDS, left / 4)
    body = b""
    try:
        with requests.Session() as session:
            # Neither a proxy nor a .netrc of the environment: the latter would replace our token.
            session.trust_env = False
            with session.request(
                method,
                url,
                data=data,
                # A few compressed bytes may be a great many.
                headers={**headers, "Accept-Encoding": "identity"},
                timeout=(connecting, min(READ_SECONDS, left - connecting)),
                allow_redirects=False,
                stream=True,
            ) as response:
                while chunk := response.raw.read1(65_536, decode_content=False):
                    body += chunk
                    if len(body) > ANSWER_BYTES:
                        raise _no_sense("too much")
                    if time.monotonic() > deadline:
                        raise Unreachable("PayPal answers too slowly.")
                return response, body
    except (requests.RequestException, urllib3.exceptions.HTTPError) as error:
        raise Unreachable(f"PayPal did not answer ({type(error).__name__}).") from None


def _read_refusal(status: int, written: str) -> Exception:
    """What a 400, 404 or 422 means: a refusal if it is PayPal's, else nothing."""
    try:
        content = json.loads(written)
    except (ValueError, RecursionError):
        return _no_sense("something that is not JSON")
    match content:
        case {"name": str(name), "details": [{"issue": str(issue), **detail}, *_]}:
            reason = detail.get("description")
        case {"name": str(name), **more}:
            issue, reason = name, more.get("message")
        case _:
            return _no_sense("a refusal that cannot be read")
    return _Refused(status, _printable(issue), _printable(reason) if isinstance(reason, str) else "")


# --- orders ------------------------------------------------------------------------------------------


def _order(api: _Api, provider_id: str) -> _Order | None:
    if not PROVIDER_ID.fullmatch(provider_id):
        return None
    try:
        return _read_order(api.ask("GET", f"v2/checkout/orders/{provider_id}"))
    except _Refused as refusal:
        if refusal.status == 404:
            return None
        raise


def _order_by_key(api: _Api, reference: str) -> _Order | None:
    """The order that was created with this reference.

    An empty request makes no order: PayPal either remembers the key and answers what it made, or refuses.
    """
    try:
        return _read_order(api.ask("POST", "v2/checkout/orders", key=f"{reference}:create", content={}))
    except _Refused:
        return None


def _capture(api: _Api, order: _Order) -> str:
    """Take the money of an approved order, once. Return why PayPal would not, empty if it did.

    After a refusal the buyer may choose another card or account at the same address, so it decides nothing.
    """
    try:
        api.ask(
            "POST",
            f"v2/checkout/orders/{order.provider_id}/capture",
            key=f"{order.reference}:capture",
            content={},
        )
    except _Refused as refusal:
        return "" if refusal.issue in ("ORDER_ALREADY_CAPTURED", "ORDER_NOT_APPROVED") else str(refusal)
    return ""


def _snapshot(order: _Order, disputes: list[_Dispute], problem: str) -> Snapshot:
    state, problem = _state_of(order, problem)
    taken = tuple(dispute.taken for dispute in disputes if dispute.taken)
    back = [refund for refund in order.refunds if refund.status == "COMPLETED"]
    for chargeback in taken:
        # PayPal may list what a dispute took among the refunds as well; it is the same money.
        same = next(
            (
                refund
                for refund in back
                if not refund.moved.reference
                and refund.moved.amount == chargeback.amount
                and refund.moved.at >= chargeback.at
            ),
            None,
        )
        if same:
            back.remove(same)
    return Snapshot(
        provider_id=order.provider_id,
        state=state,
        captures=tuple(capture.moved for capture in order.captures if capture.status in MOVED),
        refunds=tuple(refund.moved for refund in back),
        chargebacks=taken,
        reversals=tuple(dispute.returned for dispute in disputes if dispute.returned),
        refused_returns=tuple(
            RefusedReturn(
                refund.moved.reference, refund.problem or refund.status, refund.moved.transaction_id
            )
            for refund in order.refunds
            if refund.status in ("FAILED", "CANCELLED")
        ),
        problem=problem,
    )


def _state_of(order: _Order, problem: str) -> tuple[str, str]:
    """The state of the payment and what is wrong with it. The captures decide: a completed order need not be paid."""
    if order.is_paid():
        return "captured", ""
    for capture in order.captures:
        if capture.status == "PENDING":
            return "confirming", capture.problem
    if order.captures:
        return "declined", order.captures[-1].problem or order.captures[-1].status
    if order.status == "VOIDED" or order.intent == "AUTHORIZE":
        return "cancelled", problem
    if order.status in (*UNDECIDED, "APPROVED"):
        return "pending", problem
    raise _no_sense("an order that is complete without a capture")


def _known(provider_id: str) -> str:
    """An id that may stand in an address. Raises Declined for one that PayPal cannot have given."""
    if not PROVIDER_ID.fullmatch(provider_id):
        raise Declined(gettext("PayPal has no such payment."))
    return provider_id


def _read_order(content: object) -> _Order:
    match content:
        case {
            "id": str(provider_id),
            "status": str(status),
            "intent": str("CAPTURE" | "AUTHORIZE" as intent),
            "purchase_units": [{"custom_id": str(reference), "amount": amount, **unit}],
        } if PROVIDER_ID.fullmatch(provider_id) and REFERENCE.fullmatch(reference):
            return _Order(
                provider_id=provider_id,
                reference=reference,
                status=status,
                intent=intent,
                amount=_read_amount(amount),
                captures=tuple(
                    _read_movement(capture, reference="") for capture in _payments(unit, "captures")
                ),
                refunds=tuple(
                    _read_movement(refund, reference=_refund_reference(refund, payment=reference))
                    for refund in _payments(unit, "refunds")
                ),
            )
    raise _no_sense("something that is not an order")


def _payments(unit: Mapping[object, object], kind: str) -> list[object]:
    """The captures or the refunds of a purchase unit; there is no such list before the first one."""
    payments = unit.get("payments", {})
    listed = payments.get(kind, []) if isinstance(payments, dict) else None
    if not isinstance(listed, list):
        raise _no_sense("something that is not an order")
    return listed


def _refund_reference(refund: object, *, payment: str) -> str:
    """Ours, of a refund that we asked for. One made at PayPal's desk bears that of the payment, or none."""
    match refund:
        case {"invoice_id": str(reference)} if REFERENCE.fullmatch(reference) and reference != payment:
            return reference
    return ""


def _read_movement(content: object, *, reference: str) -> _Movement:
    match content:
        case {
            "id": str(transaction_id),
            "status": str(status),
            "amount": amount,
            "create_time": str(at),
            **more,
        } if PROVIDER_ID.fullmatch(transaction_id):
            match more:
                case {"status_details": {"reason": str(reason)}}:
                    problem = _printable(reason)
                case _:
                    problem = ""
            moved = MoneyMoved(transaction_id, _read_moving(amount), _read_time(at), reference)
            return _Movement(status, moved, problem)
    raise _no_sense("a movement of money that cannot be read")


def _read_pay_url(content: object) -> str:
    """Where the buyer is sent: to PayPal's own site and nowhere else."""
    match content:
        case {"links": [*links]}:
            for link in links:
                match link:
                    case {"rel": "payer-action", "href": str(url)}:
                        if URL.fullmatch(url) and url.startswith(f"{_site('www')}/"):
                            return url
    raise _no_sense("no address to pay at")


# --- disputes ----------------------------------------------------------------------------------------


def _disputes_about(api: _Api, captures: tuple[_Movement, ...]) -> list[_Dispute]:
    return [
        dispute
        for capture in captures
        for dispute in _disputes(
            urlencode({"disputed_transaction_id": capture.moved.transaction_id}), api=api
        )
    ]


def _disputes(query: str, *, api: _Api | None = None) -> Iterator[_Dispute]:
    """The disputes that a query finds. Without `api`, each request has its own time."""
    for _page in range(MOST_PAGES):
        answer = (api or _Api()).ask("GET", f"v1/customer/disputes?{query}")
        match answer:
            case {"items": [*items], **more}:
                for item in items:
                    match item:
                        case {"dispute_id": str(dispute_id)} if DISPUTE_ID.fullmatch(dispute_id):
                            details = (api or _Api()).ask("GET", f"v1/customer/disputes/{dispute_id}")
                            yield _read_dispute(dispute_id, details)
                        case _:
                            raise _no_sense("a dispute that cannot be read")
                token = _next_page(more.get("links"))
                if not token:
                    return
                query = urlencode({"next_page_token": token})
            case _:
                raise _no_sense("something that is not a list of disputes")
    raise _no_sense("a list without an end")


def _next_page(links: object) -> str:
    match links:
        case [*links]:
            for link in links:
                match link:
                    case {"rel": "next", "href": str(url)}:
                        token = parse_qs(urlsplit(url).query).get("next_page_token", [""])[0]
                        if not PAGE_TOKEN.fullmatch(token):
                            raise _no_sense("a list that does not go on")
                        return token
    return ""


def _read_dispute(dispute_id: str, content: object) -> _Dispute:
    """What a dispute means for our money.

    An inquiry takes nothing unless it ends against us. From the next stage on PayPal holds the amount; what is
    not refunded to the buyer in the end, we have again.
    """
    match content:
        case {
            "dispute_id": str(found),
            "status": str(status),
            "dispute_life_cycle_stage": str(stage),
            "dispute_amount": amount,
            "create_time": str(created),
            "update_time": str(updated),
            **more,
        } if found == dispute_id:
            disputed, since = _read_moving(amount), _read_time(created)
        case _:
            raise _no_sense("a dispute that cannot be read")
    is_lost, kept = False, disputed
    if status == "RESOLVED":
        match more:
            case {"dispute_outcome": {"outcome_code": str(code), **outcome}}:
                is_lost = code in LOST
                if is_lost:
                    refunded = outcome.get("amount_refunded")
                    lost = disputed if refunded is None else _read_amount(refunded)
                    if lost.currency != disputed.currency:
                        raise _no_sense("a dispute in two currencies")
                    kept = disputed - lost
            case _:
                raise _no_sense("a dispute without its outcome")
    taken = returned = None
    if stage != "INQUIRY" or is_lost:
        taken = MoneyMoved(dispute_id, disputed, since)
        if status == "RESOLVED" and kept.minor > 0:
            returned = MoneyMoved(dispute_id, kept, _read_time(updated))
    match more:
        case {"disputed_transactions": [{"custom": str(reference)}, *_]} if REFERENCE.fullmatch(reference):
            return _Dispute(reference, taken, returned)
    return _Dispute("", taken, returned)


# --- bookings ----------------------------------------------------------------------------------------


def _transactions_of(day: date) -> Iterator[Booking]:
    for page in range(1, MOST_PAGES + 1):
        query = urlencode(
            {
                "start_date": f"{day}T00:00:00Z",
                "end_date": f"{day + timedelta(days=1)}T00:00:00Z",
                "fields": "transaction_info",
                "page_size": str(PAGE_LENGTH),
                "page": str(page),
            }
        )
        match _Api().ask("GET", f"v1/reporting/transactions?{query}"):
            case {"transaction_details": [*lines], "total_pages": int(pages)}:
                for line in lines:
                    booking = _read_transaction(line)
                    if booking and booking.at.date() == day:
                        yield booking
                if page >= pages:
                    return
            case _:
                raise _no_sense("something that is not a list of transactions")
    raise _no_sense("a list without an end")


def _read_transaction(content: object) -> Booking | None:
    """A capture or a refund; None for what is neither, or has not come about, or belongs to a dispute."""
    match content:
        case {
            "transaction_info": {
                "transaction_id": str(transaction_id),
                "transaction_event_code": str(code),
                "transaction_status": str(status),
                "transaction_initiation_date": str(at),
                "transaction_amount": {"currency_code": str(currency), "value": str(value)},
                **more,
            }
        } if PROVIDER_ID.fullmatch(transaction_id):
            is_debit = value.startswith("-")
        case _:
            raise _no_sense("a transaction that cannot be read")
    # S has succeeded; V has succeeded and was given back later.
    if status not in ("S", "V"):
        return None
    if code.startswith("T00") and not is_debit:
        kind = "capture"
    elif code in ("T1106", "T1107") and is_debit:
        # T1106 is PayPal's own doing: the end of a dispute, or of a payment that its bank took back.
        if code == "T1106" and _is_disputed(more.get("paypal_reference_id")):
            return None
        kind = "refund"
    else:
        return None
    reference = more.get("custom_field")
    return Booking(
        kind=kind,
        transaction_id=transaction_id,
        amount=_read_moving({"currency_code": currency, "value": value.removeprefix("-")}),
        at=_read_time(at),
        reference=reference if isinstance(reference, str) and REFERENCE.fullmatch(reference) else "",
    )


def _is_disputed(transaction_id: object) -> bool:
    if not (isinstance(transaction_id, str) and PROVIDER_ID.fullmatch(transaction_id)):
        return False
    about = _disputes(urlencode({"disputed_transaction_id": transaction_id}), api=_Api())
    return any(dispute.taken for dispute in about)


# --- webhooks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Transmission:
    transmission_id: str
    written_time: str
    certificate_url: str
    signature: str


def _read_transmission(headers: Mapping[str, str]) -> _Transmission:
    transmission = _Transmission(
        transmission_id=headers.get("paypal-transmission-id", ""),
        written_time=headers.get("paypal-transmission-time", ""),
        certificate_url=headers.get("paypal-cert-url", ""),
        signature=headers.get("paypal-transmission-sig", ""),
    )
    if headers.get("paypal-auth-algo") != "SHA256withRSA":
        raise BadSignature("The signature is not of the kind that PayPal makes.")
    if not (
        TRANSMISSION_ID.fullmatch(transmission.transmission_id)
        and TRANSMISSION_TIME.fullmatch(transmission.written_time)
    ):
        raise BadSignature("The headers are not those of a webhook.")
    try:
        sent_at = datetime.fromisoformat(transmission.written_time)
    except ValueError:
        raise BadSignature("The headers are not those of a webhook.") from None
    if abs(datetime.now(UTC) - sent_at) > WEBHOOK_AGE:
        raise BadSignature("The webhook is not of now.")
    # Nothing is asked of an address that a stranger may have chosen.
    if not any(
        transmission.certificate_url.startswith(f"{site}/")
        and CERTIFICATE.fullmatch(transmission.certificate_url.removeprefix(site))
        for site in (_site("api"), settings.PAYPAL_URL)
    ):
        raise BadSignature("The certificate is not PayPal's.")
    return transmission


def _verify_here(transmission: _Transmission, body: bytes) -> None:
    signed = "|".join(
        (
            transmission.transmission_id,
            transmission.written_time,
            settings.PAYPAL_WEBHOOK_ID,
            str(zlib.crc32(body)),
        )
    )
    try:
        signature = base64.b64decode(transmission.signature, validate=True)
    except (ValueError, binascii.Error):
        raise BadSignature("The signature is not base64.") from None
    key = _certified_key(transmission.certificate_url)
    try:
        pkcs1_15.new(key).verify(SHA256.new(signed.encode()), signature)
    except ValueError:
        raise BadSignature("The signature is not good.") from None


@functools.lru_cache(maxsize=16)
def _certified_key(url: str) -> RSA.RsaKey:
    """The key in a certificate of PayPal's, which its host vouches for. Raises BadSignature or Unavailable."""
    response, body = _exchange("GET", url, deadline=time.monotonic() + CALL_SECONDS / 2, headers={})
    if response.status_code in (400, 404):
        raise BadSignature("PayPal has no such certificate.")
    if response.status_code != 200:
        raise Unreachable(f"PayPal answered with status {response.status_code}.")
    try:
        key = RSA.import_key(body)
    except (ValueError, IndexError, TypeError):
        raise _no_sense("a certificate that cannot be read") from None
    if key.size_in_bits() < 2048:
        raise _no_sense("a certificate whose key is too short")
    return key


def _confirm_there(api: _Api, transmission: _Transmission, body: bytes) -> None:
    """Ask PayPal. The event goes back as the very bytes that came: written anew it would be another one."""
    parts = {
        "auth_algo": "SHA256withRSA",
        "cert_url": transmission.certificate_url,
        "transmission_id": transmission.transmission_id,
        "transmission_sig": transmission.signature,
        "transmission_time": transmission.written_time,
        "webhook_id": settings.PAYPAL_WEBHOOK_ID,
    }
    question = json.dumps(parts)[:-1].encode() + b', "webhook_event": ' + body + b"}"
    try:
        answer = api.ask("POST", "v1/notifications/verify-webhook-signature", content=question)
    except _Refused:
        raise BadSignature("PayPal does not know this webhook.") from None
    match answer:
        case {"verification_status": "SUCCESS"}:
            return
        case {"verification_status": "FAILURE"}:
            raise BadSignature("PayPal does not confirm this webhook.")
    raise _no_sense("neither yes nor no to a webhook")


def _reference_of(api: _Api, resource: Mapping[str, object]) -> str:
    """Our reference of the payment that an event is about; empty when it is none of ours.

    A dispute, or a refund made at PayPal's desk, may name only the capture.
    """
    captured = ""
    match resource:
        case {"custom_id": str(reference)} | {"purchase_units": [{"custom_id": str(reference)}, *_]}:
            return reference if REFERENCE.fullmatch(reference) else ""
        case {"disputed_transactions": [{"seller_transaction_id": str(captured)}, *_]}:
            pass
        case {"links": [*links]}:
            for link in links:
                match link:
                    case {"rel": "up", "href": str(url)}:
                        captured = urlsplit(url).path.partition("/v2/payments/captures/")[2]
    if not PROVIDER_ID.fullmatch(captured):
        return ""
    try:
        capture = api.ask("GET", f"v2/payments/captures/{captured}")
    except _Refused:
        return ""
    match capture:
        case {"custom_id": str(reference)} if REFERENCE.fullmatch(reference):
            return reference
    return ""


# --- what is common to all ---------------------------------------------------------------------------


def _is_https() -> bool:
    url: str = settings.PAYPAL_URL
    return url.startswith("https://")


def _site(host: str) -> str:
    """PayPal's other hosts: for api-m.sandbox.paypal.com and "www", www.sandbox.paypal.com. An emulator has one."""
    url: str = settings.PAYPAL_URL
    return url.replace("://api-m.", f"://{host}.", 1)


def _written(amount: Money) -> dict[str, str]:
    return {"currency_code": amount.currency, "value": amount.written()}


def _read_amount(content: object) -> Money:
    match content:
        case {"currency_code": str(currency), "value": str(value)}:
            try:
                return Money.parse(value, currency)
            except ValueError:
                pass
    raise _no_sense("an amount that cannot be read")


def _read_moving(content: object) -> Money:
    amount = _read_amount(content)
    if not amount:
        raise _no_sense("a movement of no money")
    return amount


def _read_time(written: str) -> datetime:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise _no_sense("a time that cannot be read") from None
    if at.tzinfo is None:
        raise _no_sense("a time without a zone")
    return at.astimezone(UTC)


def _printable(text: str) -> str:
    return "".join(letter for letter in text[:200] if letter.isprintable())


def _no_sense(what: str) -> Unavailable:
    return Unavailable(f"PayPal answered {what}.")
