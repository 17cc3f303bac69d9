"""The sandbox: a gateway without money, whose provider is `emulators.sandbox`.

It is spoken to as a real one would be, over HTTP, so the demo and the tests go the way of the real ones.
"""

import json
import re
import ssl
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache

import httpx
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from standardwebhooks.webhooks import EmptyWebhookSecretError, Webhook, WebhookVerificationError

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
    Return,
    Snapshot,
    Unavailable,
    Unreachable,
    WebhookAnswer,
)

# Connecting and waiting for an answer; with what ANSWER_SECONDS leaves for its body, 15 s at most.
TIMEOUT = httpx.Timeout(10, connect=3)
ANSWER_SECONDS = 12
ANSWER_BYTES = 1_000_000
WEBHOOK_BYTES = 1_000_000
WEBHOOK_PATH = "/webhooks/sandbox/"

PAYMENT_ID = re.compile(r"pay_[0-9a-f]{24}")
TRANSACTION_ID = re.compile(r"(cap|ref)_[0-9a-f]{24}")
REFERENCE = re.compile(r"[A-Za-z0-9-]{1,32}")
WEBHOOK_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
URL = re.compile(r"[!-~]{1,500}")
TIMESTAMP = re.compile(r"[0-9]{1,11}")
# Its states are named as ours are; those that an attempt has before it is known there are not among them.
STATES = ("pending", "captured", "declined", "cancelled", "expired")


@dataclass(frozen=True, slots=True)
class _Answer:
    status: int
    content: object

    def error(self) -> tuple[str, str]:
        """The code and the message of a refusal, empty where it has none."""
        match self.content:
            case {"error": {"code": str(code), "message": str(message)}}:
                return code, "".join(letter for letter in message[:200] if letter.isprintable())
        return "", ""


@dataclass(frozen=True, slots=True)
class _Payment:
    reference: str
    amount: Money
    pay_url: str
    snapshot: Snapshot


class SandboxGateway:
    """Settings: SANDBOX_GATEWAY_URL, SANDBOX_GATEWAY_KEY and SANDBOX_WEBHOOK_SECRET.

    The secret is one of the Standard Webhooks specification (`whsec_` and base64), or, while it is being
    changed, several with spaces between them. http needs ALLOW_EMULATORS.
    """

    slug: str = "sandbox"
    label: str | Promise = _("Sandbox")
    methods: frozenset[str] = frozenset({"sandbox"})
    currencies: frozenset[str] = frozenset(settings.SHOP_CURRENCIES)
    webhook_answer: WebhookAnswer = WebhookAnswer()
    kept_headers: tuple[str, ...] = ("webhook-",)
    late_for: timedelta = timedelta(0)

    def missing(self) -> list[str]:
        missing = [
            name for name in ("SANDBOX_GATEWAY_URL", "SANDBOX_GATEWAY_KEY") if not getattr(settings, name)
        ]
        if not _webhooks():
            missing.append("SANDBOX_WEBHOOK_SECRET")
        if settings.SANDBOX_GATEWAY_URL and not (_is_https() or settings.ALLOW_EMULATORS):
            missing.append("ALLOW_EMULATORS")
        return missing

    def pay_origins(self) -> tuple[str, ...]:
        return (origin_of(settings.SANDBOX_GATEWAY_URL),)

    def refundable_for(self, method: str) -> timedelta | None:
        return None

    def open(self, charge: Charge) -> Opened:
        answer = self._ask(
            "POST",
            "/v1/payments",
            key=charge.reference,
            content={
                "reference": charge.reference,
                "amount": charge.amount.written(),
                "currency": charge.amount.currency,
                "description": charge.description,
                "return_url": charge.return_url,
                "webhook_url": settings.SITE_URL + WEBHOOK_PATH,
                "expires_at": charge.expires_at.astimezone(UTC).isoformat(),
                "language": charge.language,
            },
        )
        if answer.status in (200, 201):
            payment = _read_payment(answer.content)
        elif answer.error()[0] == "idempotency_conflict":
            # Asked before in other words, perhaps from a page in another language. The payment is there.
            found = self._find(charge.reference)
            if not found:
                raise _no_sense("a conflict with a payment that it does not have")
            payment = found
        else:
            raise _refusal(answer)
        if payment.reference != charge.reference:
            raise _no_sense("another payment than was asked for")
        if payment.amount != charge.amount:
            raise Declined(gettext("The sandbox gateway has this payment with another amount."))
        return Opened(provider_id=payment.snapshot.provider_id, pay_url=payment.pay_url)

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        if not provider_id:
            payment = self._find(reference)
            return payment.snapshot if payment else None
        if not PAYMENT_ID.fullmatch(provider_id):
            return None
        answer = self._ask("GET", f"/v1/payments/{provider_id}")
        if answer.status == 404:
            return None
        if answer.status != 200:
            raise _refusal(answer)
        payment = _read_payment(answer.content)
        if payment.snapshot.provider_id != provider_id or (reference and payment.reference != reference):
            raise _no_sense("another payment than was asked for")
        return payment.snapshot

    def close(self, *, provider_id: str) -> None:
        answer = self._ask("POST", f"/v1/payments/{_known(provider_id)}/cancel", content={})
        if answer.status != 200:
            raise _refusal(answer)

    def give_back(self, refund: Return) -> None:
        answer = self._ask(
            "POST",
            "/v1/refunds",
            key=refund.reference,
            content={
                "payment": _known(refund.provider_id),
                "reference": refund.reference,
                "amount": refund.amount.written(),
                "currency": refund.amount.currency,
            },
        )
        if answer.status not in (200, 201):
            raise _refusal(answer)
        match answer.content:
            case {"reference": refund.reference, "payment": refund.provider_id}:
                return
        raise _no_sense("another refund than was asked for")

    def bookings(self, *, day: date) -> Iterator[Booking]:
        after: object = 0
        while after is not None:
            answer = self._ask("GET", "/v1/payments", query={"moved_on": f"{day}", "after": f"{after}"})
            match answer:
                case _Answer(200, {"payments": [*payments], "next": int() | None as after}):
                    for content in payments:
                        yield from _bookings_of(_read_payment(content), day=day)
                case _Answer(200):
                    raise _no_sense("something that is not a list of payments")
                case _:
                    raise _refusal(answer)

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        webhook_id = headers.get("webhook-id", "")
        if not WEBHOOK_ID.fullmatch(webhook_id) or not TIMESTAMP.fullmatch(
            headers.get("webhook-timestamp", "")
        ):
            raise BadSignature("The headers are not those of a webhook.")
        if len(body) > WEBHOOK_BYTES:
            raise BadSignature("The body is too long.")
        if not any(_is_signed(webhook, headers, body) for webhook in _webhooks()):
            raise BadSignature("No signature is good.")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise BadSignature("The body is not JSON.") from None
        match content:
            case {"data": {"reference": str(reference)}} if REFERENCE.fullmatch(reference):
                return Event(dedupe_key=webhook_id, attempt_reference=reference)
        raise BadSignature("The body is not that of an event.")

    def _find(self, reference: str) -> _Payment | None:
        answer = self._ask("GET", "/v1/payments", query={"reference": reference})
        if answer.status != 200:
            raise _refusal(answer)
        match answer.content:
            case {"payments": []}:
                return None
            case {"payments": [found]}:
                payment = _read_payment(found)
                if payment.reference == reference:
                    return payment
        raise _no_sense("other payments than were asked for")

    def _ask(
        self,
        method: str,
        path: str,
        *,
        key: str = "",
        content: Mapping[str, str] | None = None,
        query: Mapping[str, str] | None = None,
    ) -> _Answer:
        """Put one question. Raises CredentialsRefused, or Unavailable without an answer."""
        if missing := self.missing():
            raise Unreachable(f"The sandbox gateway is not configured: {', '.join(missing)}.")
        headers = {
            "Accept": "application/json",
            # A few compressed bytes may be a great many.
            "Accept-Encoding": "identity",
            "Authorization": f"Bearer {settings.SANDBOX_GATEWAY_KEY}",
        }
        if key:
            headers["Idempotency-Key"] = key
        # No proxy of the environment: the sandbox is on this machine or beside it.
        with httpx.Client(verify=_trust(), timeout=TIMEOUT, trust_env=False) as client:
            request = client.build_request(
                method, settings.SANDBOX_GATEWAY_URL + path, params=query, json=content, headers=headers
            )
            try:
                try:
                    status, body = _send(client, request)
                except httpx.ConnectError:
                    status, body = _send(client, request)
            except (httpx.HTTPError, httpx.InvalidURL) as error:
                raise Unreachable(f"The sandbox gateway did not answer ({type(error).__name__}).") from error
        if status in (401, 403):
            raise CredentialsRefused(gettext("The sandbox gateway refuses our credentials."))
        if status in (408, 425, 429) or not (200 <= status < 300 or 400 <= status < 500):
            raise Unreachable(f"The sandbox gateway answered with status {status}.")
        try:
            return _Answer(status, json.loads(body))
        except (ValueError, RecursionError):
            raise _no_sense("something that is not JSON") from None


def _send(client: httpx.Client, request: httpx.Request) -> tuple[int, bytes]:
    """Status and body. Raises Unavailable when the body grows too long or comes too slowly."""
    deadline = time.monotonic() + ANSWER_SECONDS
    body = b""
    response = client.send(request, stream=True, follow_redirects=False)
    try:
        for chunk in response.iter_raw():
            body += chunk
            if len(body) > ANSWER_BYTES:
                raise _no_sense("too much")
            if time.monotonic() > deadline:
                raise Unreachable("The sandbox gateway answers too slowly.")
    finally:
        response.close()
    return response.status_code, body


@cache
def _trust() -> ssl.SSLContext:
    """Reading the root certificates takes 20 ms: once is enough."""
    return httpx.create_ssl_context(trust_env=False)


def _is_https() -> bool:
    url: str = settings.SANDBOX_GATEWAY_URL
    return url.startswith("https://")


def _webhooks() -> list[Webhook]:
    """One verifier for each secret; none when one of them is no secret."""
    try:
        return [Webhook(secret) for secret in settings.SANDBOX_WEBHOOK_SECRET.split()]
    except (ValueError, EmptyWebhookSecretError):
        return []


def _is_signed(webhook: Webhook, headers: Mapping[str, str], body: bytes) -> bool:
    try:
        webhook.verify(body, dict(headers), json_parse=False)
    except (ValueError, WebhookVerificationError):
        # ValueError: what the library lets out for a body that is no UTF-8 and a signature that is no base64.
        return False
    return True


def _known(provider_id: str) -> str:
    """An id that may stand in an address. Raises Declined for one that the gateway cannot have given."""
    if not PAYMENT_ID.fullmatch(provider_id):
        raise Declined(gettext("The sandbox gateway has no such payment."))
    return provider_id


def _read_payment(content: object) -> _Payment:
    match content:
        case {
            "id": str(provider_id),
            "reference": str(reference),
            "status": str(state),
            "amount": str(amount),
            "currency": str(currency),
            "pay_url": str(pay_url),
            "captures": [*captures],
            "refunds": [*refunds],
        } if PAYMENT_ID.fullmatch(provider_id) and state in STATES and _is_pay_url(pay_url):
            return _Payment(
                reference=reference,
                amount=_read_amount(amount, currency),
                pay_url=pay_url,
                snapshot=Snapshot(
                    provider_id=provider_id,
                    state=state,
                    captures=tuple(_read_movement(capture) for capture in captures),
                    refunds=tuple(_read_movement(refund) for refund in refunds),
                ),
            )
    raise _no_sense("something that is not a payment")


def _bookings_of(payment: _Payment, *, day: date) -> Iterator[Booking]:
    for kind, movements in (("capture", payment.snapshot.captures), ("refund", payment.snapshot.refunds)):
        for moved in movements:
            if moved.at.date() == day:
                yield Booking(kind, moved.transaction_id, moved.amount, moved.at, payment.reference)


def _is_pay_url(url: str) -> bool:
    """Whether a buyer may be sent there: to the gateway and nowhere else."""
    return bool(URL.fullmatch(url)) and url.startswith(f"{settings.SANDBOX_GATEWAY_URL}/")


def _read_movement(content: object) -> MoneyMoved:
    match content:
        case {
            "id": str(transaction_id),
            "amount": str(amount),
            "currency": str(currency),
            "at": str(at),
            **more,
        } if TRANSACTION_ID.fullmatch(transaction_id):
            # Captures have no reference of their own, and refunds made at the gateway's desk have none of ours.
            reference = more.get("reference")
            return MoneyMoved(
                transaction_id=transaction_id,
                amount=_read_amount(amount, currency),
                at=_read_time(at),
                reference=reference if isinstance(reference, str) else "",
            )
    raise _no_sense("a movement of money that cannot be read")


def _read_amount(written: str, currency: str) -> Money:
    try:
        return Money.parse(written, currency)
    except ValueError:
        raise _no_sense("an amount that cannot be read") from None


def _read_time(written: str) -> datetime:
    try:
        at = datetime.fromisoformat(written)
    except ValueError:
        raise _no_sense("a time that cannot be read") from None
    if at.tzinfo is None:
        raise _no_sense("a time without a zone")
    return at.astimezone(UTC)


def _no_sense(what: str) -> Unavailable:
    return Unavailable(f"The sandbox gateway answered {what}.")


def _refusal(answer: _Answer) -> Declined:
    _code, message = answer.error()
    return Declined(
        gettext("The sandbox gateway refused: %(reason)s") % {"reason": message or f"status {answer.status}"}
    )
