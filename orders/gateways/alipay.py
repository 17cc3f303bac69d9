"""Alipay: the buyer scans a code with Alipay's app, or pays on Alipay's own page, to which a signed address leads.

`python-alipay-sdk` signs and verifies; the connection is ours. What is peculiar to Alipay:

- A trade exists from the moment when its buyer comes, by the code or to the page, not from ours of asking for the code
  or signing the address. Before that `fetch` answers None and there is nothing to close; code and address say
  themselves until when they can be paid. Both are of one trade, since they bear one number: nobody pays it twice.
- It cannot list the refunds of a trade: each is asked for by its own number, so `fetch` wants to know ours.
  One that was made at Alipay's desk is found in its bills.
- A card that is refused leaves the trade open, and closing does not say why: no payment is ever declined or expired,
  only cancelled.
- Its numbers have no hyphens, so ours are sent with underscores. Its times are Beijing's, without saying so.
"""

import base64
import binascii
import csv
import io
import json
import re
import ssl
import time
import zipfile
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from urllib.parse import parse_qsl, urlsplit
from zoneinfo import ZoneInfo

import httpx
from alipay import AliPay
from alipay.exceptions import AliPayException
from Cryptodome.PublicKey import RSA
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _

from inventory.money import Money
from orders.gateways.origins import origin_of
from orders.gateways.protocol import (
    BadSignature,
    Booking,
    Charge,
    CredentialsRefused,
    Declined,
    Event,
    Instructions,
    MoneyMoved,
    Opened,
    Return,
    Snapshot,
    Unavailable,
    Unreachable,
    WebhookAnswer,
)

# For all that one call of ours asks of Alipay. Connecting takes a part of it, and so does a wait for an answer.
CALL_SECONDS = 14.0
CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
ANSWER_BYTES = 1_000_000
WEBHOOK_BYTES = 100_000
# Of a day's bill, packed and unpacked.
BILL_BYTES = 50_000_000
# How far the time of a notification may be from ours.
WEBHOOK_AGE = timedelta(seconds=300)
WEBHOOK_PATH = "/webhooks/alipay/"

CURRENCY = "CNY"
BEIJING = ZoneInfo("Asia/Shanghai")
# A bill is there in the forenoon of the next day. If there is none at noon, nothing happened on that day.
BILL_AFTER = timedelta(days=1, hours=12)
CODE_HOST = "qr.alipay.com"
BILL_HOST = "dwbillcenter.alipay.com"
# Alipay's, and that of its sandbox.
HOUSES = ("alipay.com", "alipaydev.com")
LEAST_KEY_BITS = 2048

URL = re.compile(r"https?://[!\"$-;=@-~]{1,200}")
APP_ID = re.compile(r"[0-9]{10,32}")
SELLER_ID = re.compile(r"2088[0-9]{12}")
REFERENCE = re.compile(r"[A-Za-z0-9-]{1,32}")
TRADE_NUMBER = re.compile(r"[0-9]{16,32}")
# Of a refund that we know nothing of.
REQUEST_NUMBER = re.compile(r"[!-~]{1,64}")
# What a code holds: an address that Alipay's app knows what to do with.
CODE = re.compile(r"https?://[A-Za-z0-9.:-]{1,100}(/[A-Za-z0-9_-]{1,100}){1,4}")
NOTIFICATION_ID = re.compile(r"[A-Za-z0-9_-]{1,100}")
SIGNATURE = re.compile(r"[A-Za-z0-9+/]{1,1000}={0,2}")
FORM = re.compile(rb"[!-~]+")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}(\.[0-9]{1,6})?")
# What Alipay does not want in the title of a trade.
UNTITLED = re.compile(r"[/=&<>\"'\\\x00-\x1f\x7f]+")

PAID = ("TRADE_SUCCESS", "TRADE_FINISHED")
# Words by which the gateway says that it does not know us; others come with the codes below.
STRANGERS = (
    "isv.invalid-app-id",
    "isv.missing-app-id",
    "isv.invalid-signature",
    "isv.missing-signature",
    "isv.missing-signature-config",
)
# 20001: not authorised; 40006: not permitted.
STRANGERS_CODES = ("20001", "40006")
# Words by which it says that the seller has not subscribed to a product.
NO_PRODUCT = ("ACQ.ACCESS_FORBIDDEN", "ACQ.PRODUCT_NOT_ALLOWED")
# 20000: the service is not available; 40005: too many calls.
TROUBLES_CODES = ("20000", "40005")
TROUBLE = re.compile(r".*(SYSTEM_ERROR|unknow-error|call-limited)")


class _Refused(Declined):
    """Alipay understood and said no. `code` is its word for why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(gettext("Alipay refused: %(reason)s") % {"reason": f"{reason} ({code})"})
        self.code = code


@dataclass(frozen=True, slots=True)
class _Trade:
    """What Alipay calls a payment. `paid_at` is set in a trade that was paid, and perhaps in others."""

    number: str
    reference: str
    status: str
    amount: Money
    paid_at: datetime | None


class AlipayGateway:
    """Settings: ALIPAY_URL, ALIPAY_APP_ID, ALIPAY_SELLER_ID, ALIPAY_PRIVATE_KEY and ALIPAY_PUBLIC_KEY.

    The seller's id is his account's (2088…). The private key is the application's, the public one is Alipay's, not
    the application's: both as PEM or as the bare base64 that Alipay's tools give. The application needs the products
    "computer website payment" and "mobile website payment"; without "face-to-face payment" there are no codes to scan.
    http needs ALLOW_EMULATORS.
    """

    slug: str = "alipay"
    label: str | Promise = _("Alipay")
    methods: frozenset[str] = frozenset({"alipay"})
    currencies: frozenset[str] = frozenset({CURRENCY})
    webhook_answer: WebhookAnswer = WebhookAnswer(body=b"success")
    # The signature is in the body.
    kept_headers: tuple[str, ...] = ()
    late_for: timedelta = timedelta(0)

    def missing(self) -> list[str]:
        forms = {"ALIPAY_URL": URL, "ALIPAY_APP_ID": APP_ID, "ALIPAY_SELLER_ID": SELLER_ID}
        missing = [name for name, form in forms.items() if not form.fullmatch(getattr(settings, name))]
        ours, theirs = _key(settings.ALIPAY_PRIVATE_KEY), _key(settings.ALIPAY_PUBLIC_KEY)
        if not (ours and ours.has_private()):
            missing.append("ALIPAY_PRIVATE_KEY")
        # Alipay's pages show two public keys, and ours is often taken for theirs.
        if not theirs or theirs.has_private() or (ours and ours.has_private() and ours.n == theirs.n):
            missing.append("ALIPAY_PUBLIC_KEY")
        if settings.ALIPAY_URL and not (_is_https() or settings.ALLOW_EMULATORS):
            missing.append("ALLOW_EMULATORS")
        return missing

    def pay_origins(self) -> tuple[str, ...]:
        """The gateway leads on to cashiers on other hosts of the same house."""
        houses = (house for house in HOUSES if _host().endswith(f".{house}"))
        return tuple(f"https://*.{house}" for house in houses) or (origin_of(settings.ALIPAY_URL),)

    def refundable_for(self, method: str) -> timedelta | None:
        return timedelta(days=365)

    def open(self, charge: Charge) -> Opened:
        """Sign the address of Alipay's page for a phone; for a computer that of the other page, and ask for a code.

        Nothing else happens at Alipay but a look at whether the buyer has come before.
        """
        if charge.amount.currency != CURRENCY:
            raise Declined(gettext("Alipay takes yuan only."))
        if not REFERENCE.fullmatch(charge.reference):
            raise Declined(gettext("Alipay cannot take this payment's number."))
        api = _Api()
        trade = _trade(api, charge.reference)
        if trade and trade.amount != charge.amount:
            raise Declined(gettext("Alipay has this payment with another amount."))
        if trade and trade.status == "TRADE_CLOSED":
            raise Declined(gettext("Alipay has closed this payment."))
        facts = {
            "subject": UNTITLED.sub(" ", charge.description).strip()[:128],
            "out_trade_no": _number(charge.reference),
            "total_amount": charge.amount.written(),
            "time_expire": _written(charge.expires_at),
        }
        of_page = {"return_url": charge.return_url, "passback_params": charge.reference}
        if charge.is_phone:
            # The SDK's product code is an old one.
            query = api.api_alipay_trade_wap_pay(
                **facts, **of_page, product_code="QUICK_WAP_WAY", quit_url=charge.return_url
            )
            return Opened(provider_id=charge.reference, pay_url=f"{settings.ALIPAY_URL}?{query}")
        code = "" if trade and trade.status in PAID else _code(api, charge.reference, facts)
        query = api.api_alipay_trade_page_pay(**facts, **of_page)
        return Opened(
            provider_id=charge.reference,
            pay_url=f"{settings.ALIPAY_URL}?{query}",
            instructions=Instructions(qr=code) if code else None,
        )

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        """Ask for the trade, and for each of the refunds in `returns`: the references of those that we asked for."""
        if reference and provider_id and reference != provider_id:
            return None
        known_as = reference or provider_id
        if not REFERENCE.fullmatch(known_as):
            return None
        api = _Api()
        trade = _trade(api, known_as)
        if trade is None:
            return None
        refunds = () if trade.status == "WAIT_BUYER_PAY" else _refunds(api, trade, returns)
        return _snapshot(trade, refunds)

    def close(self, *, provider_id: str) -> None:
        reference = _known(provider_id)
        api = _Api()
        # Closing a paid trade is said to reverse it: it is not even asked for.
        trade = _trade(api, reference)
        if trade is None:
            raise Declined(gettext("Alipay has no such payment; its buyer has not come there yet."))
        if trade.status in PAID:
            raise Declined(gettext("Alipay refused: this payment has been paid."))
        if trade.status == "WAIT_BUYER_PAY":
            _check_number(api.api_alipay_trade_close(out_trade_no=_number(reference)), reference)

    def give_back(self, refund: Return) -> None:
        reference = _known(refund.provider_id)
        if refund.amount.currency != CURRENCY or not REFERENCE.fullmatch(refund.reference):
            raise Declined(gettext("Alipay cannot give this back."))
        content = _Api().api_alipay_trade_refund(
            refund.amount.written(),
            out_trade_no=_number(reference),
            out_request_no=_number(refund.reference),
        )
        # Whether money has moved by it or will yet, is what `fetch` asks for.
        _check_number(content, reference)

    def bookings(self, *, day: date) -> Iterator[Booking]:
        """By the bills of the two days of Beijing that a day of UTC lies in.

        The second is not there before its day is over: Unavailable until the forenoon of the day after next.
        """
        booked = [booking for when in (day, day + timedelta(days=1)) for booking in _bill(when)]
        yield from (booking for booking in booked if booking.at.date() == day)

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        """Verify a notification. All that proves it is in its body.

        Alipay signs the fields, not the bytes: to leave nothing to reading, the body has to be a plain form.
        """
        if self.missing():
            raise BadSignature("Alipay is not configured.")
        fields = _read_form(body)
        signature = fields.pop("sign", "")
        if not _is_signed(fields, signature):
            raise BadSignature("The signature is not good.")
        if (fields.get("app_id"), fields.get("seller_id")) != (
            settings.ALIPAY_APP_ID,
            settings.ALIPAY_SELLER_ID,
        ):
            raise BadSignature("The notification is for another application or seller.")
        try:
            sent_at = _read_time(fields.get("notify_time"))
            _read_amount(fields.get("total_amount"))
        except Unavailable:
            raise BadSignature("The notification has no time, or no amount.") from None
        if abs(datetime.now(UTC) - sent_at) > WEBHOOK_AGE:
            raise BadSignature("The notification is too old, or of the future.")
        notification_id = fields.get("notify_id", "")
        reference = _reference(fields.get("out_trade_no", ""))
        if not NOTIFICATION_ID.fullmatch(notification_id) or not reference:
            raise BadSignature("The body is not that of a notification.")
        if fields.get("passback_params", reference) != reference:
            raise BadSignature("The notification contradicts itself.")
        return Event(dedupe_key=notification_id, attempt_reference=reference)


# --- the connection ----------------------------------------------------------------------------------


class _Api(AliPay):  # type: ignore[misc]  # the SDK has no types
    """The SDK's client for one call of ours.

    As it comes it knows two addresses only, goes by the zone of this machine, follows redirects, reads answers of
    any length, and counts braces to find what is signed. Raises Unavailable when a setting is missing.
    """

    def __init__(self) -> None:
        if missing := AlipayGateway().missing():
            raise Unreachable(f"Alipay is not configured: {', '.join(missing)}.")
        super().__init__(
            appid=settings.ALIPAY_APP_ID, app_notify_url=settings.SITE_URL + WEBHOOK_PATH, sign_type="RSA2"
        )
        self._gateway = settings.ALIPAY_URL
        self._deadline = time.monotonic() + CALL_SECONDS

    def _load_key(self) -> None:
        self._app_private_key = _key(settings.ALIPAY_PRIVATE_KEY)
        self._alipay_public_key = _key(settings.ALIPAY_PUBLIC_KEY)

    def build_body(self, *arguments: object, **options: object) -> dict[str, object]:
        return {**super().build_body(*arguments, **options), "timestamp": _written(datetime.now(UTC))}

    def verified_sync_response(self, data: dict[str, object], response_type: str) -> Mapping[str, object]:
        """What Alipay answers to a request, if it has signed it.

        Raises _Refused for what it refuses, CredentialsRefused, or Unavailable without an answer that makes sense.
        """
        signed = self.sign_data(data).split("&")
        # As Alipay's own SDKs do: what is asked goes into the body, all about it into the address.
        facts = "&".join(field for field in signed if not field.startswith("biz_content="))
        body = "&".join(field for field in signed if field.startswith("biz_content="))
        with self._client() as client:
            request = client.build_request(
                "POST",
                f"{self._gateway}?{facts}",
                content=body,
                headers={"Content-Type": "application/x-www-form-urlencoded;charset=utf-8"},
            )
            raw = self._send(client, request, longest=ANSWER_BYTES)
        return self._read(raw, response_type)

    def download(self, url: str) -> bytes:
        with self._client() as client:
            return self._send(client, client.build_request("GET", url), longest=BILL_BYTES)

    def _client(self) -> httpx.Client:
        return httpx.Client(
            verify=_trust(),
            # A few compressed bytes may be a great many.
            headers={"Accept-Encoding": "identity"},
            trust_env=False,
        )

    def _send(self, client: httpx.Client, request: httpx.Request, *, longest: int) -> bytes:
        """The body of an answer with status 200."""
        try:
            try:
                return self._send_once(client, request, longest)
            except httpx.ConnectError:
                return self._send_once(client, request, longest)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"Alipay did not answer ({type(error).__name__}).") from None

    def _send_once(self, client: httpx.Client, request: httpx.Request, longest: int) -> bytes:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Unreachable("Alipay answers too slowly.")
        wait = min(READ_SECONDS, left / 2)
        timeout = httpx.Timeout(wait, connect=min(CONNECT_SECONDS, left / 4))
        request.extensions = {**request.extensions, "timeout": timeout.as_dict()}
        response = client.send(request, stream=True, follow_redirects=False)
        body = bytearray()
        try:
            if response.status_code != 200:
                raise Unreachable(f"Alipay answered with status {response.status_code}.")
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > longest:
                    raise _no_sense("too much")
                # One more wait for a chunk has to fit in.
                if time.monotonic() > self._deadline - wait:
                    raise Unreachable("Alipay answers too slowly.")
        finally:
            response.close()
        return bytes(body)

    def _read(self, raw: bytes, response_type: str) -> Mapping[str, object]:
        try:
            text = raw.decode()
            answer = _read_json(text)
        except ValueError:
            raise _no_sense("something that is not JSON") from None
        content, is_signed = None, False
        match answer:
            case {"sign": str(signature), **rest} if isinstance(rest.get(response_type), dict):
                signed = _part_of(text, response_type)
                if not (SIGNATURE.fullmatch(signature) and self._is_signed(signed, signature)):
                    raise Unreachable("Alipay's answer is signed with another key.")
                # Nothing but what was signed is read.
                content, is_signed = _read_json(signed), True
            case {"error_response": dict(refusal)}:
                content = refusal
            case {**parts}:
                content = parts.get(response_type)
        if not isinstance(content, dict):
            raise _no_sense("something else than was asked for")
        return _accepted(content, is_signed=is_signed)

    def _is_signed(self, text: str, signature: str) -> bool:
        try:
            return bool(self._verify(text, signature))
        except (ValueError, binascii.Error):
            return False


def _accepted(content: dict[str, object], *, is_signed: bool) -> Mapping[str, object]:
    """`content`, if it is not a refusal. What is not signed may only say that Alipay does not know us."""
    code, sub_code = str(content.get("code", "")), str(content.get("sub_code", ""))
    if code in STRANGERS_CODES or sub_code in STRANGERS:
        raise CredentialsRefused(
            gettext("Alipay refuses our credentials: %(reason)s") % {"reason": _printable(sub_code)}
        )
    if not is_signed:
        raise Unavailable(f"Alipay's answer is not signed ({_printable(sub_code or code)}).")
    if code == "10000":
        return content
    if code in TROUBLES_CODES or TROUBLE.fullmatch(sub_code):
        raise Unreachable(f"Alipay is in trouble ({_printable(sub_code or code)}).")
    raise _Refused(_printable(sub_code or code), _printable(content.get("sub_msg") or content.get("msg")))


def _read_json(text: str) -> object:
    """Numbers stay as they are written. Raises ValueError."""
    try:
        content: object = json.loads(text, parse_int=str, parse_float=str, parse_constant=str)
    except RecursionError:
        raise ValueError("The JSON is too deep.") from None
    return content


def _part_of(text: str, name: str) -> str:
    """The value of `name` in a JSON object, letter for letter: this is what Alipay signs."""
    found = re.search(rf'"{re.escape(name)}"\s*:\s*', text)
    if not found:
        raise _no_sense("something else than was asked for")
    try:
        _value, end = json.JSONDecoder().raw_decode(text, found.end())
    except ValueError:
        raise _no_sense("something that is not JSON") from None
    return text[found.end() : end]


@cache
def _trust() -> ssl.SSLContext:
    """Reading the root certificates takes 20 ms: once is enough."""
    return httpx.create_ssl_context(trust_env=False)


def _is_https() -> bool:
    url: str = settings.ALIPAY_URL
    return url.startswith("https://")


def _host() -> str:
    return urlsplit(settings.ALIPAY_URL).hostname or ""


@cache
def _key(written: str) -> RSA.RsaKey | None:
    """An RSA key in PEM, or in base64 only; None for anything else. Checking a private key takes a while."""
    try:
        if "-----" in written:
            key = RSA.import_key(written)
        else:
            key = RSA.import_key(base64.b64decode("".join(written.split()), validate=True))
    except (ValueError, IndexError, TypeError):
        return None
    return key if key.size_in_bits() >= LEAST_KEY_BITS else None


# --- codes, trades and refunds ------------------------------------------------------------------------------


def _code(api: _Api, reference: str, facts: Mapping[str, str]) -> str:
    """What a code to scan holds; empty where the seller has no product for codes, and the page has to do."""
    try:
        content = api.api_alipay_trade_precreate(**facts)
    except CredentialsRefused:
        # It has just told us of the trade: it knows us.
        return ""
    except _Refused as refused:
        if refused.code in NO_PRODUCT:
            return ""
        if refused.code == "ACQ.TRADE_HAS_SUCCESS":
            raise Unavailable("Alipay has this payment already, and it is paid.") from None
        raise
    _check_number(content, reference)
    match content:
        case {"qr_code": str(code)} if _is_code(code):
            return code
    raise _no_sense("something that is not a code to scan")


def _is_code(code: str) -> bool:
    """Whether the app that scans it stays at Alipay."""
    if not CODE.fullmatch(code):
        return False
    parts = urlsplit(code)
    if settings.ALLOW_EMULATORS and parts.netloc == urlsplit(settings.ALIPAY_URL).netloc:
        return True
    return (parts.scheme, parts.netloc) == ("https", CODE_HOST)


def _trade(api: _Api, reference: str) -> _Trade | None:
    try:
        content = api.api_alipay_trade_query(out_trade_no=_number(reference))
    except _Refused as refused:
        if refused.code == "ACQ.TRADE_NOT_EXIST":
            return None
        raise
    _check_number(content, reference)
    match content:
        case {
            "trade_no": str(number),
            "trade_status": (
                "WAIT_BUYER_PAY" | "TRADE_CLOSED" | "TRADE_SUCCESS" | "TRADE_FINISHED"
            ) as status,
        } if TRADE_NUMBER.fullmatch(number):
            paid_at = content.get("send_pay_date")
            return _Trade(
                number=number,
                reference=reference,
                status=status,
                amount=_read_amount(content.get("total_amount"), content.get("trans_currency", CURRENCY)),
                paid_at=_read_time(paid_at) if paid_at else None,
            )
    raise _no_sense("something that is not a trade")


def _refunds(api: _Api, trade: _Trade, returns: Sequence[str]) -> tuple[MoneyMoved, ...]:
    """Those of `returns` that have been made. A trade that is closed without them may have one of Alipay's desk."""
    refunds = [
        refund
        for reference in dict.fromkeys(returns)
        if REFERENCE.fullmatch(reference)
        and (refund := _refund(api, trade, _number(reference), reference=reference))
    ]
    if trade.status == "TRADE_CLOSED" and _left(trade, refunds):
        # A refund that was asked for without a number has the trade's.
        whole = _refund(api, trade, _number(trade.reference), reference="")
        refunds += [whole] if whole else []
    if _left(trade, refunds) < 0:
        raise _no_sense("more refunds than were paid")
    return tuple(refunds)


def _refund(api: _Api, trade: _Trade, number: str, *, reference: str) -> MoneyMoved | None:
    """A refund that has been made. One on its way, and one that Alipay has never heard of, look alike."""
    content = api.server_api(
        "alipay.trade.fastpay.refund.query",
        {
            "out_trade_no": _number(trade.reference),
            "out_request_no": number,
            "query_options": ["gmt_refund_pay"],
        },
    )
    if content.get("refund_status") != "REFUND_SUCCESS":
        return None
    if (content.get("out_request_no"), content.get("trade_no")) != (number, trade.number):
        raise _no_sense("another refund than was asked for")
    _check_number(content, trade.reference)
    at = content.get("gmt_refund_pay")
    return MoneyMoved(
        transaction_id=_refund_id(trade.number, number),
        amount=_read_amount(content.get("refund_amount"), trade.amount.currency),
        # Alipay may leave the time out: then it is that of our first sight, for the ledger is written once.
        at=_read_time(at) if at else datetime.now(UTC),
        reference=reference,
    )


def _snapshot(trade: _Trade, refunds: tuple[MoneyMoved, ...]) -> Snapshot:
    """A closed trade has been paid if there is a refund to show for it: nothing else in it says so for sure."""
    if trade.status == "WAIT_BUYER_PAY":
        return Snapshot(provider_id=trade.reference, state="pending")
    if trade.status == "TRADE_CLOSED" and not refunds:
        problem = gettext("Closed by Alipay: not paid in time, or given back in full outside the shop.")
        return Snapshot(
            provider_id=trade.reference, state="cancelled", problem=problem if trade.paid_at else ""
        )
    if trade.paid_at is None:
        raise _no_sense("a paid trade without a time")
    problem = ""
    if trade.status == "TRADE_CLOSED" and (left := _left(trade, refunds)):
        problem = gettext("Alipay has given back all of it, %(amount)s outside the shop.") % {
            "amount": Money(left, trade.amount.currency)
        }
    return Snapshot(
        provider_id=trade.reference,
        state="captured",
        captures=(MoneyMoved(trade.number, trade.amount, trade.paid_at),),
        refunds=refunds,
        problem=problem,
    )


def _refund_id(trade_number: str, request_number: str) -> str:
    """A refund has no number of Alipay's own: within its trade it is known by the one that it was asked for with."""
    return f"{trade_number}-{request_number}"


def _left(trade: _Trade, refunds: Sequence[MoneyMoved]) -> int:
    """How much of a trade was not given back, in minor units. Refunds are read in the trade's currency."""
    return trade.amount.minor - sum(refund.amount.minor for refund in refunds)


def _number(reference: str) -> str:
    return reference.replace("-", "_")


def _reference(number: str) -> str:
    """Ours, of one of Alipay's numbers; empty for one that cannot be ours."""
    reference = number.replace("_", "-")
    return reference if "-" not in number and REFERENCE.fullmatch(reference) else ""


def _known(provider_id: str) -> str:
    """Raises Declined for an id that Alipay cannot have."""
    if not REFERENCE.fullmatch(provider_id):
        raise Declined(gettext("Alipay has no such payment."))
    return provider_id


def _check_number(content: Mapping[str, object], reference: str) -> None:
    if content.get("out_trade_no") != _number(reference):
        raise _no_sense("another payment than was asked for")


# --- bills -------------------------------------------------------------------------------------------


def _bill(day: date) -> Iterator[Booking]:
    """What was paid and refunded on a day of Beijing."""
    now = datetime.now(UTC)
    midnight = datetime(day.year, day.month, day.day, tzinfo=BEIJING)
    if now < midnight + timedelta(days=1):
        raise Unavailable(f"Alipay has no bill of {day} before that day is over in Beijing.")
    api = _Api()
    try:
        content = api.server_api(
            "alipay.data.dataservice.bill.downloadurl.query", {"bill_type": "trade", "bill_date": f"{day}"}
        )
    except _Refused as refused:
        if refused.code != "isp.bill_not_exist":
            raise
        if now < midnight + BILL_AFTER:
            raise Unavailable(f"Alipay has no bill of {day} yet.") from None
        return
    archive = api.download(_bill_address(content.get("bill_download_url")))
    lines = [line for text in _unpacked(archive) for line in text.splitlines() if not line.startswith("#")]
    try:
        for row in csv.DictReader(lines, strict=True):
            yield _read_booking({(name or "").strip(): value for name, value in row.items()})
    except csv.Error:
        raise _no_sense("a bill that cannot be read") from None


def _bill_address(url: object) -> str:
    """Where the bill may be fetched: from Alipay's own host, whose addresses come with http, and from no other."""
    try:
        parts = urlsplit(url) if isinstance(url, str) else None
    except ValueError:
        parts = None
    if parts and parts.scheme in ("http", "https"):
        if settings.ALLOW_EMULATORS and parts.netloc == urlsplit(settings.ALIPAY_URL).netloc:
            return parts.geturl()
        if parts.netloc == BILL_HOST:
            return parts._replace(scheme="https").geturl()
    raise _no_sense("a bill in a place that is not its own")


def _unpacked(archive: bytes) -> list[str]:
    """The texts of the bill without its summary: a long one is in parts."""
    left = BILL_BYTES
    texts = []
    try:
        with zipfile.ZipFile(io.BytesIO(archive), metadata_encoding="gbk") as files:
            for entry in files.infolist():
                if "业务明细" not in entry.filename or "汇总" in entry.filename:
                    continue
                if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                    raise _no_sense("a bill that cannot be unpacked")
                with files.open(entry) as file:
                    raw = file.read(left + 1)
                left -= len(raw)
                if left < 0:
                    raise _no_sense("too long a bill")
                texts.append(raw.decode("gb18030"))
    except (zipfile.BadZipFile, zlib.error, EOFError, RuntimeError, ValueError):
        raise _no_sense("a bill that cannot be unpacked") from None
    if not texts:
        raise _no_sense("a bill with nothing in it")
    return texts


def _read_booking(row: Mapping[str, object]) -> Booking:
    """A line of the bill. Its columns have tabs behind long numbers, lest a spreadsheet round them."""
    columns = ("支付宝交易号", "商户订单号", "业务类型", "完成时间", "订单金额（元）", "退款批次号/请求号")
    cells = [value.strip() for name in columns if isinstance(value := row.get(name), str)]
    if len(cells) != len(columns):
        raise _no_sense("a bill that cannot be read")
    number, order, kind, at, amount, request = cells
    # A refund without a number of its own has the trade's.
    request = request or order
    if (
        not TRADE_NUMBER.fullmatch(number)
        or kind not in ("交易", "退款")
        or not REQUEST_NUMBER.fullmatch(request)
    ):
        raise _no_sense("a bill that cannot be read")
    is_refund = kind == "退款"
    return Booking(
        kind="refund" if is_refund else "capture",
        transaction_id=_refund_id(number, request) if is_refund else number,
        amount=_read_amount(amount.removeprefix("-") if is_refund else amount),
        at=_read_time(at),
        reference=_reference(order),
    )


# --- notifications -----------------------------------------------------------------------------------


def _read_form(body: bytes) -> dict[str, str]:
    if len(body) > WEBHOOK_BYTES:
        raise BadSignature("The body is too long.")
    if not FORM.fullmatch(body):
        raise BadSignature("The body is not a form.")
    try:
        pairs = parse_qsl(
            body.decode("ascii"),
            keep_blank_values=True,
            strict_parsing=True,
            errors="strict",
            max_num_fields=100,
        )
    except ValueError:
        raise BadSignature("The body is not a form.") from None
    fields = dict(pairs)
    if len(fields) != len(pairs):
        raise BadSignature("The body says something twice.")
    return fields


def _is_signed(fields: Mapping[str, str], signature: str) -> bool:
    if not SIGNATURE.fullmatch(signature):
        return False
    try:
        # One way of writing it only. The SDK takes the type of the signature out of what it is given.
        if base64.b64encode(base64.b64decode(signature, validate=True)).decode() != signature:
            return False
        return bool(_Api().verify(dict(fields), signature))
    except (ValueError, AliPayException):
        return False


# --- values ------------------------------------------------------------------------------------------


def _read_amount(written: object, currency: object = CURRENCY) -> Money:
    try:
        if isinstance(written, str) and isinstance(currency, str):
            amount = Money.parse(written, currency)
            if amount:
                return amount
    except ValueError:
        pass
    raise _no_sense("an amount that cannot be read")


def _read_time(written: object) -> datetime:
    try:
        if isinstance(written, str) and TIME.fullmatch(written):
            return datetime.fromisoformat(written).replace(tzinfo=BEIJING).astimezone(UTC)
    except ValueError:
        pass
    raise _no_sense("a time that cannot be read")


def _written(at: datetime) -> str:
    return at.astimezone(BEIJING).strftime("%Y-%m-%d %H:%M:%S")


def _printable(said: object) -> str:
    return "".join(letter for letter in str(said or "")[:150] if letter.isprintable())


def _no_sense(what: str) -> Unavailable:
    return Unavailable(f"Alipay answered {what}.")
