"""WeChat Pay: a code that the buyer scans with his phone, or on the phone a page that leads him into the app.

`wechatpayv3` signs, verifies and decrypts, in its public-key mode; the connection is ours. What is peculiar to
WeChat Pay:

- A payment is known by our own number until it is paid. It stays open when its time is over, unpayable, until it is
  closed.
- It is opened again only by the very same words; its refunds must say what the whole payment was.
- It cannot list the refunds of a payment: each is asked for by its own number, so `fetch` wants to know ours. One
  that was made at WeChat Pay's desk is found in its bills.
- A refund is taken from the seller when it is accepted, and that is its time, in the bills and here. The buyer has it
  minutes or days later, or never: then it may still be brought to an end at WeChat Pay's desk.
"""

import base64
import hashlib
import ipaddress
import json
import re
import ssl
import time
import zlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from functools import cache
from typing import TypeAlias
from urllib.parse import quote, urlsplit
from zoneinfo import ZoneInfo

import httpx
from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import rsa
from cryptography.hazmat.primitives.serialization import (
    load_der_private_key,
    load_der_public_key,
    load_pem_private_key,
    load_pem_public_key,
)
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext
from django.utils.translation import gettext_lazy as _
from wechatpayv3 import WeChatPay, WeChatPayType
from wechatpayv3.core import Core
from wechatpayv3.type import RequestType
from wechatpayv3.utils import build_authorization

from inventory.money import Money
from orders.gateways.asking import Number, read_json
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
    RefusedReturn,
    Return,
    Snapshot,
    Unavailable,
    Unreachable,
    WebhookAnswer,
)

# For all that one call of ours asks of WeChat Pay. Connecting takes a part of it, and so does a wait for an answer.
CALL_SECONDS = 14.0
CONNECT_SECONDS = 3.0
READ_SECONDS = 10.0
ANSWER_BYTES = 1_000_000
WEBHOOK_BYTES = 100_000
# Of a day's bill, packed and unpacked.
BILL_BYTES = 50_000_000
# How far the time of a signature may be from ours.
SIGNATURE_AGE = timedelta(seconds=300)
WEBHOOK_PATH = "/webhooks/wechat/"

CURRENCY = "CNY"
BEIJING = ZoneInfo("Asia/Shanghai")
# A bill is there in the forenoon of the next day. If there is none at noon, nothing happened on that day.
BILL_AFTER = timedelta(days=1, hours=12)
BILL_PATH = "/v3/billdownload/file?"
PAY_HOST = "wx.tenpay.com"
LEAST_KEY_BITS = 2048

URL = re.compile(r"https?://[!\"$-.0-;=@-~]{1,100}(/[A-Za-z0-9/_-]{0,98}[A-Za-z0-9_-])?")
MERCHANT_ID = re.compile(r"[0-9]{8,10}")
APP_ID = re.compile(r"wx[0-9a-z]{16}")
CERTIFICATE_SERIAL = re.compile(r"[0-9A-Fa-f]{16,40}")
API_V3_KEY = re.compile(r"[0-9A-Za-z]{32}")
PUBLIC_KEY_ID = re.compile(r"PUB_KEY_ID_[0-9A-Z]{8,64}")
REFERENCE = re.compile(r"[A-Za-z0-9-]{6,32}")
RETURN_REFERENCE = re.compile(r"[A-Za-z0-9-]{1,64}")
# Of a payment or a refund that we know nothing of.
ANY_NUMBER = re.compile(r"[A-Za-z0-9_|*@-]{1,64}")
TRANSACTION_ID = re.compile(r"[0-9]{16,32}")
NOTIFICATION_ID = re.compile(r"[A-Za-z0-9-]{1,64}")
SIGNATURE_TYPE = "WECHATPAY2-SHA256-RSA2048"
SIGNATURE = re.compile(r"[A-Za-z0-9+/]{1,1000}={0,2}")
SIGNED_AT = re.compile(r"[0-9]{10}")
NONCE = re.compile(r"[A-Za-z0-9]{1,64}")
TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}[+-][0-9]{2}:[0-9]{2}")
BILL_TIME = re.compile(r"[0-9]{4}-[0-9]{2}-[0-9]{2} [0-9]{2}:[0-9]{2}:[0-9]{2}")
MINOR = re.compile(r"[1-9][0-9]{0,14}")
CODE_URL = re.compile(r"weixin://[!-~]{1,500}")
PAY_URL = re.compile(r"https?://[!-~]{1,500}")
BILL_QUERY = re.compile(r"[A-Za-z0-9_.~%=&-]{1,2000}")
# What the title of a payment cannot hold: the grave begins every cell of a bill.
UNTITLED = re.compile(r"[`\x00-\x1f\x7f]+")

STATES = {
    "NOTPAY": "pending",
    "USERPAYING": "pending",
    "SUCCESS": "captured",
    "REFUND": "captured",
    "CLOSED": "cancelled",
    "REVOKED": "cancelled",
    "PAYERROR": "declined",
}
# Words for the same that older and newer parts of WeChat Pay use.
UNKNOWN = ("ORDER_NOT_EXIST", "ORDERNOTEXIST", "RESOURCE_NOT_EXISTS", "REFUND_NOT_EXISTS")
CLOSED = ("ORDER_CLOSED", "ORDERCLOSED")
PAID = ("ORDER_PAID", "ORDERPAID")
STRANGERS = ("SIGN_ERROR", "NO_AUTH", "MCH_NOT_EXISTS", "APPID_MCHID_NOT_MATCH")
TROUBLES = (
    "SYSTEM_ERROR",
    "SYSTEMERROR",
    "BANK_ERROR",
    "BANKERROR",
    "FREQUENCY_LIMITED",
    "RATELIMIT_EXCEEDED",
)

PrivateKey: TypeAlias = rsa.RSAPrivateKey
PublicKey: TypeAlias = rsa.RSAPublicKey


class _Refused(Declined):
    """WeChat Pay understood and said no. `code` is its word for why."""

    def __init__(self, code: str, reason: str) -> None:
        super().__init__(gettext("WeChat Pay refused: %(reason)s") % {"reason": f"{reason} ({code})"})
        self.code = code


class _Unproven(Exception):
    """What came is not surely WeChat Pay's. The message says why."""


@dataclass(frozen=True, slots=True)
class _Trade:
    """What became of a payment. `capture` is set in one that was paid, whatever was given back of it."""

    reference: str
    state: str
    capture: MoneyMoved | None


@dataclass(frozen=True, slots=True)
class _Refund:
    """A refund that WeChat Pay has accepted; `moved` says when. `status` is how far it has come."""

    status: str
    moved: MoneyMoved

    def problem(self) -> str:
        """Why the buyer does not have it and will not have it by itself; empty where he has it, or may yet."""
        if self.status == "ABNORMAL":
            return gettext(
                "The buyer's bank does not take it. It has to be settled at WeChat Pay's own desk."
            )
        if self.status == "CLOSED":
            return gettext("WeChat Pay has closed it, as when the seller's account was empty for too long.")
        return ""


class WechatGateway:
    """Settings: WECHAT_URL, WECHAT_MERCHANT_ID, WECHAT_APP_ID, WECHAT_PRIVATE_KEY and WECHAT_CERTIFICATE_SERIAL,
    WECHAT_API_V3_KEY, WECHAT_PUBLIC_KEY and WECHAT_PUBLIC_KEY_ID.

    The private key and the serial are those of the seller's API certificate. The public key is WeChat Pay's, not that
    of our certificate. Keys are PEM, or the bare base64 in it. The account needs the products Native and H5, and the
    site's host in its list for H5. http needs ALLOW_EMULATORS.
    """

    slug: str = "wechat"
    label: str | Promise = _("WeChat Pay")
    methods: frozenset[str] = frozenset({"wechat"})
    currencies: frozenset[str] = frozenset({CURRENCY})
    webhook_answer: WebhookAnswer = WebhookAnswer()
    kept_headers: tuple[str, ...] = ("wechatpay-",)
    late_for: timedelta = timedelta(0)

    def missing(self) -> list[str]:
        forms = {
            "WECHAT_URL": URL,
            "WECHAT_MERCHANT_ID": MERCHANT_ID,
            "WECHAT_APP_ID": APP_ID,
            "WECHAT_CERTIFICATE_SERIAL": CERTIFICATE_SERIAL,
            "WECHAT_API_V3_KEY": API_V3_KEY,
            "WECHAT_PUBLIC_KEY_ID": PUBLIC_KEY_ID,
        }
        missing = [name for name, form in forms.items() if not form.fullmatch(getattr(settings, name))]
        ours, theirs = _private_key(settings.WECHAT_PRIVATE_KEY), _public_key(settings.WECHAT_PUBLIC_KEY)
        if not ours:
            missing.append("WECHAT_PRIVATE_KEY")
        if not theirs or (ours and ours.public_key() == theirs):
            missing.append("WECHAT_PUBLIC_KEY")
        if settings.WECHAT_URL and not (_is_https() or settings.ALLOW_EMULATORS):
            missing.append("ALLOW_EMULATORS")
        return missing

    def pay_origins(self) -> tuple[str, ...]:
        emulator = (origin_of(settings.WECHAT_URL),) if settings.ALLOW_EMULATORS else ()
        return (f"https://{PAY_HOST}", *emulator)

    def refundable_for(self, method: str) -> timedelta | None:
        return timedelta(days=365)

    def open(self, charge: Charge) -> Opened:
        """Open a payment by a code to scan, or on a phone by a page.

        That page wants to know from which address the buyer comes: who has none is shown the code.
        """
        if charge.amount.currency != CURRENCY:
            raise Declined(gettext("WeChat Pay takes yuan only."))
        if not REFERENCE.fullmatch(charge.reference):
            raise Declined(gettext("WeChat Pay cannot take this payment's number."))
        asked: dict[str, object] = {
            "description": UNTITLED.sub(" ", charge.description).strip()[:127] or charge.reference,
            "out_trade_no": charge.reference,
            "amount": {"total": charge.amount.minor, "currency": CURRENCY},
            "time_expire": charge.expires_at.astimezone(BEIJING).isoformat(timespec="seconds"),
        }
        by_page = charge.is_phone and _is_address(charge.payer_address)
        if by_page:
            asked["pay_type"] = WeChatPayType.H5
            asked["scene_info"] = {"payer_client_ip": charge.payer_address, "h5_info": {"type": "Wap"}}
        try:
            _status, content = _Api().pay(**asked)
        except _Refused as refused:
            if refused.code in PAID:
                raise Unavailable("WeChat Pay has this payment already, and it is paid.") from None
            raise
        match content:
            case {"h5_url": str(url)} if by_page and _is_pay_page(url):
                back = quote(charge.return_url, safe="")
                return Opened(provider_id=charge.reference, pay_url=f"{url}&redirect_url={back}")
            case {"code_url": str(url)} if not by_page and CODE_URL.fullmatch(url):
                return Opened(provider_id=charge.reference, instructions=Instructions(qr=url))
        raise _no_sense("something else than a way to pay")

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        """Ask for the payment, and for each of the refunds in `returns`: the references of those that we asked for."""
        if reference and provider_id and reference != provider_id:
            return None
        known_as = reference or provider_id
        if not REFERENCE.fullmatch(known_as):
            return None
        api = _Api()
        trade = _trade(api, known_as)
        if trade is None:
            return None
        if trade.capture is None:
            return Snapshot(provider_id=trade.reference, state=STATES[trade.state])
        refunds = [
            refund
            for back in dict.fromkeys(returns)
            if RETURN_REFERENCE.fullmatch(back)
            and (refund := _refund(api, back, reference=trade.reference, capture=trade.capture))
        ]
        return _snapshot(trade, trade.capture, refunds)

    def close(self, *, provider_id: str) -> None:
        reference = _known(provider_id)
        try:
            _Api().close(out_trade_no=reference)
        except _Refused as refused:
            if refused.code not in CLOSED:
                raise

    def give_back(self, refund: Return) -> None:
        reference = _known(refund.provider_id)
        if refund.amount.currency != CURRENCY or not RETURN_REFERENCE.fullmatch(refund.reference):
            raise Declined(gettext("WeChat Pay cannot give this back."))
        api = _Api()
        trade = _trade(api, reference)
        if trade is None or trade.capture is None:
            raise Declined(gettext("WeChat Pay has no such payment that was paid."))
        _status, content = api.refund(
            out_refund_no=refund.reference,
            out_trade_no=reference,
            amount={
                "refund": refund.amount.minor,
                "total": trade.capture.amount.minor,
                "currency": CURRENCY,
            },
        )
        accepted = _read_refund(content, refund.reference, reference=reference, capture=trade.capture)
        if accepted.moved.amount != refund.amount:
            raise _no_sense("a refund of another amount")
        # One that has failed before is not begun anew by its number.
        if problem := accepted.problem():
            raise Declined(problem)

    def bookings(self, *, day: date) -> Iterator[Booking]:
        """By the bills of the two days of Beijing that a day of UTC lies in.

        The second is not there before its day is over: Unavailable until the forenoon of the day after next. A bill
        says of a refund that was under way then for ever that it is: for what became of it WeChat Pay is asked.
        """
        booked = [booking for when in (day, day + timedelta(days=1)) for booking in _bill(when)]
        yield from (booking for booking in booked if booking.at.date() == day)

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        """Verify and decrypt a notification, of a payment or of a refund out of one. Asks nobody."""
        if self.missing():
            raise BadSignature("WeChat Pay is not configured.")
        if len(body) > WEBHOOK_BYTES:
            raise BadSignature("The body is too long.")
        api = _Api()
        try:
            text = body.decode()
            proof = api.proof(headers, text)
            notification = _read_notification(api, proof, text)
        except _Unproven as problem:
            raise BadSignature(str(problem)) from None
        except (ValueError, RecursionError):
            raise BadSignature("The body is not that of a notification.") from None
        match notification:
            case {
                "id": str(notification_id),
                "event_type": str(event),
                "resource": {
                    "mchid": str(merchant_id),
                    "out_trade_no": str(reference),
                    "amount": {"total": int(total)} as amount,
                } as resource,
            } if NOTIFICATION_ID.fullmatch(notification_id) and REFERENCE.fullmatch(reference) and total > 0:
                # What tells of a refund names neither application nor currency.
                default = (settings.WECHAT_APP_ID, CURRENCY) if event.startswith("REFUND.") else ("", "")
                named = (resource.get("appid", default[0]), amount.get("currency", default[1]))
                if merchant_id != settings.WECHAT_MERCHANT_ID or named[0] != settings.WECHAT_APP_ID:
                    raise BadSignature("The notification is for another merchant or application.")
                if named[1] != CURRENCY:
                    raise BadSignature("The notification is in another currency.")
                return Event(dedupe_key=notification_id, attempt_reference=reference)
        raise BadSignature("The body is not that of a notification.")


# --- the connection ----------------------------------------------------------------------------------


class _Core(Core):  # type: ignore[misc]  # the SDK has no types
    """The SDK's signatures, over a connection of ours, for one call.

    As it comes it knows one address only, follows redirects, reads answers of any length in any time, and fetches
    certificates whenever somebody names one that it does not know. It reads the keys each time, which takes 100 ms.
    """

    def __init__(self) -> None:
        self._mchid = settings.WECHAT_MERCHANT_ID
        self._cert_serial_no = settings.WECHAT_CERTIFICATE_SERIAL
        self._private_key = _private_key(settings.WECHAT_PRIVATE_KEY)
        self._apiv3_key = settings.WECHAT_API_V3_KEY
        self._public_key = _public_key(settings.WECHAT_PUBLIC_KEY)
        self._public_key_id = settings.WECHAT_PUBLIC_KEY_ID
        self._gate_way = settings.WECHAT_URL
        self._certificates: list[object] = []
        self._logger = None
        self._deadline = time.monotonic() + CALL_SECONDS

    def request(
        self,
        path: str,
        method: RequestType = RequestType.GET,
        data: Mapping[str, object] | None = None,
        skip_verify: bool = False,
    ) -> tuple[int, object]:
        """Status and content of an answer that grants what was asked: bytes of a bill, JSON of all else.

        Raises _Refused, CredentialsRefused or Unavailable. A grant that is not signed is none; what else is not
        signed was perhaps said before our signature was looked at, and may refuse.
        """
        body = json.dumps(data) if data else ""
        authorization = build_authorization(
            path, method.value, self._mchid, self._cert_serial_no, self._private_key, data=body
        )
        headers = {
            "Accept": "application/json",
            # A few compressed bytes may be a great many.
            "Accept-Encoding": "identity",
            "Authorization": authorization,
            "User-Agent": "vmos-presale",
            "Wechatpay-Serial": self._public_key_id,
            **({"Content-Type": "application/json"} if body else {}),
        }
        with httpx.Client(verify=_trust(), trust_env=False) as client:
            request = client.build_request(
                method.value, self._gate_way + path, content=body or None, headers=headers
            )
            response, raw = self._send(client, request, longest=BILL_BYTES if skip_verify else ANSWER_BYTES)
        is_granted = response.is_success
        if is_granted and skip_verify:
            return response.status_code, raw
        if is_granted or "wechatpay-signature" in response.headers:
            try:
                self.proof(response.headers, raw.decode())
            except (ValueError, _Unproven) as problem:
                raise Unreachable(f"WeChat Pay's answer proves nothing: {problem}") from None
        try:
            content = read_json(raw) if raw else None
        except ValueError:
            content = None
        if is_granted and (raw and content is None):
            raise _no_sense("something that is not JSON")
        if not is_granted:
            raise _failure(response.status_code, content)
        return response.status_code, content

    def proof(self, headers: Mapping[str, str], text: str) -> Mapping[str, str]:
        """The headers that prove `text`, if it is WeChat Pay's and of these minutes. Raises _Unproven."""
        names = ("timestamp", "nonce", "serial", "signature", "signature-type")
        proof = {f"wechatpay-{name}": headers.get(f"wechatpay-{name}", "") for name in names}
        signed_at, nonce, serial, signature, kind = proof.values()
        if kind != SIGNATURE_TYPE or not (SIGNED_AT.fullmatch(signed_at) and NONCE.fullmatch(nonce)):
            raise _Unproven("It is not signed.")
        if serial != self._public_key_id:
            raise _Unproven("It is signed with a key that is not ours to know.")
        # One way of writing it only.
        if not SIGNATURE.fullmatch(signature) or _rewritten(signature) != signature:
            raise _Unproven("The signature is none.")
        if not self._verify_signature(proof, text):
            raise _Unproven("It is signed with another key.")
        if abs(datetime.now(UTC) - datetime.fromtimestamp(int(signed_at), UTC)) > SIGNATURE_AGE:
            raise _Unproven("The signature is too old, or of the future.")
        return proof

    def _send(
        self, client: httpx.Client, request: httpx.Request, *, longest: int
    ) -> tuple[httpx.Response, bytes]:
        try:
            try:
                return self._send_once(client, request, longest)
            except httpx.ConnectError:
                return self._send_once(client, request, longest)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            raise Unreachable(f"WeChat Pay did not answer ({type(error).__name__}).") from None

    def _send_once(
        self, client: httpx.Client, request: httpx.Request, longest: int
    ) -> tuple[httpx.Response, bytes]:
        left = self._deadline - time.monotonic()
        if left <= 0:
            raise Unreachable("WeChat Pay answers too slowly.")
        wait = min(READ_SECONDS, left / 2)
        timeout = httpx.Timeout(wait, connect=min(CONNECT_SECONDS, left / 4))
        request.extensions = {**request.extensions, "timeout": timeout.as_dict()}
        response = client.send(request, stream=True, follow_redirects=False)
        body = bytearray()
        try:
            for chunk in response.iter_raw():
                body += chunk
                if len(body) > longest:
                    raise _no_sense("too much")
                # One more wait for a chunk has to fit in.
                if time.monotonic() > self._deadline - wait:
                    raise Unreachable("WeChat Pay answers too slowly.")
        finally:
            response.close()
        return response, bytes(body)


class _Api(WeChatPay):  # type: ignore[misc]
    """The SDK's client for one call of ours. Raises Unavailable when a setting is missing."""

    def __init__(self) -> None:
        if missing := WechatGateway().missing():
            raise Unreachable(f"WeChat Pay is not configured: {', '.join(missing)}.")
        self._type = WeChatPayType.NATIVE
        self._mchid = settings.WECHAT_MERCHANT_ID
        self._appid = settings.WECHAT_APP_ID
        self._notify_url = settings.SITE_URL + WEBHOOK_PATH
        self._partner_mode = False
        self._core = _Core()

    def proof(self, headers: Mapping[str, str], text: str) -> Mapping[str, str]:
        """See `_Core.proof`."""
        return self._core.proof(headers, text)


def _failure(status: int, content: object) -> Exception:
    match content:
        case {"code": str(code), "message": str(message)}:
            code, message = _printable(code), _printable(message)
        case _:
            return Unreachable(f"WeChat Pay answered with status {status}.")
    if status == 401 or code in STRANGERS:
        return CredentialsRefused(
            gettext("WeChat Pay refuses our credentials: %(reason)s") % {"reason": f"{message} ({code})"}
        )
    if code in TROUBLES or status in (408, 425, 429) or not 400 <= status < 500:
        return Unreachable(f"WeChat Pay is in trouble ({code}).")
    return _Refused(code, message)


@cache
def _trust() -> ssl.SSLContext:
    """Reading the root certificates takes 20 ms: once is enough."""
    return httpx.create_ssl_context(trust_env=False)


def _is_https() -> bool:
    url: str = settings.WECHAT_URL
    return url.startswith("https://")


@cache
def _private_key(written: str) -> PrivateKey | None:
    """A private RSA key in PEM, or in base64 only; None for anything else. Checking one takes a while."""
    try:
        if "-----" in written:
            key = load_pem_private_key(written.encode(), None)
        else:
            key = load_der_private_key(base64.b64decode("".join(written.split()), validate=True), None)
    except (ValueError, TypeError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, rsa.RSAPrivateKey) and key.key_size >= LEAST_KEY_BITS else None


@cache
def _public_key(written: str) -> PublicKey | None:
    try:
        if "-----" in written:
            key = load_pem_public_key(written.encode())
        else:
            key = load_der_public_key(base64.b64decode("".join(written.split()), validate=True))
    except (ValueError, UnsupportedAlgorithm):
        return None
    return key if isinstance(key, rsa.RSAPublicKey) and key.key_size >= LEAST_KEY_BITS else None


def _rewritten(signature: str) -> str:
    try:
        return base64.b64encode(base64.b64decode(signature, validate=True)).decode()
    except ValueError:
        return ""


# --- payments and refunds ----------------------------------------------------------------------------


def _trade(api: _Api, reference: str) -> _Trade | None:
    try:
        _status, content = api.query(out_trade_no=reference)
    except _Refused as refused:
        if refused.code in UNKNOWN:
            return None
        raise
    match content:
        case {"mchid": str(merchant_id), "out_trade_no": str(number), "trade_state": str(state)} if (
            number == reference
            and merchant_id == settings.WECHAT_MERCHANT_ID
            and content.get("appid", settings.WECHAT_APP_ID) == settings.WECHAT_APP_ID
            and state in STATES
        ):
            is_paid = STATES[state] == "captured"
            return _Trade(reference, state, _capture(content) if is_paid else None)
    raise _no_sense("another payment than was asked for")


def _capture(content: Mapping[str, object]) -> MoneyMoved:
    match content:
        case {
            "transaction_id": str(number),
            "success_time": str(at),
            "amount": {"total": total, **more},
        } if TRANSACTION_ID.fullmatch(number):
            return MoneyMoved(
                transaction_id=number,
                amount=_read_minor(total, more.get("currency", CURRENCY)),
                at=_read_time(at),
            )
    raise _no_sense("a paid payment that says nothing of it")


def _refund(api: _Api, number: str, *, reference: str, capture: MoneyMoved) -> _Refund | None:
    try:
        # The SDK does not escape it.
        _status, content = api.query_refund(quote(number, safe=""))
    except _Refused as refused:
        if refused.code in UNKNOWN:
            return None
        raise
    return _read_refund(content, number, reference=reference, capture=capture)


def _read_refund(content: object, number: str, *, reference: str, capture: MoneyMoved) -> _Refund:
    match content:
        case {
            "refund_id": str(refund_id),
            "out_refund_no": str(of_refund),
            "out_trade_no": str(of_trade),
            "transaction_id": str(of_capture),
            "status": ("SUCCESS" | "PROCESSING" | "ABNORMAL" | "CLOSED") as status,
            "create_time": str(at),
            "amount": {"refund": minor, **more},
        } if TRANSACTION_ID.fullmatch(refund_id) and (of_refund, of_trade, of_capture) == (
            number,
            reference,
            capture.transaction_id,
        ):
            moved = MoneyMoved(
                transaction_id=refund_id,
                amount=_read_minor(minor, more.get("currency", CURRENCY)),
                at=_read_time(at),
                reference=number,
            )
            return _Refund(status, moved)
    raise _no_sense("another refund than was asked for")


def _snapshot(trade: _Trade, capture: MoneyMoved, refunds: Sequence[_Refund]) -> Snapshot:
    made = tuple(refund.moved for refund in refunds if refund.status == "SUCCESS")
    if sum(moved.amount.minor for moved in made) > capture.amount.minor:
        raise _no_sense("more refunds than were paid")
    problem = ""
    if trade.state == "REFUND" and not refunds:
        problem = gettext("WeChat Pay has given back some of it, or all, outside the shop.")
    return Snapshot(
        provider_id=trade.reference,
        state=STATES[trade.state],
        captures=(capture,),
        refunds=made,
        refused_returns=tuple(
            RefusedReturn(refund.moved.reference, refund.problem(), refund.moved.transaction_id)
            for refund in refunds
            if refund.problem()
        ),
        problem=problem,
    )


def _known(provider_id: str) -> str:
    """Raises Declined for an id that WeChat Pay cannot have."""
    if not REFERENCE.fullmatch(provider_id):
        raise Declined(gettext("WeChat Pay has no such payment."))
    return provider_id


def _is_address(payer_address: str | None) -> bool:
    try:
        return bool(payer_address and ipaddress.ip_address(payer_address))
    except ValueError:
        return False


def _is_pay_page(url: str) -> bool:
    """Whether a buyer may be led there, with something to follow in the query: to WeChat Pay's own host, by https."""
    if not PAY_URL.fullmatch(url):
        return False
    try:
        parts = urlsplit(url)
    except ValueError:
        return False
    if not parts.query or parts.fragment:
        return False
    if settings.ALLOW_EMULATORS and parts.netloc == urlsplit(settings.WECHAT_URL).netloc:
        return True
    return (parts.scheme, parts.netloc) == ("https", PAY_HOST)


# --- bills -------------------------------------------------------------------------------------------


def _bill(day: date) -> Iterator[Booking]:
    """What was paid on a day of Beijing, and given back of what was accepted on it."""
    now = datetime.now(UTC)
    midnight = datetime(day.year, day.month, day.day, tzinfo=BEIJING)
    if now < midnight + timedelta(days=1):
        raise Unavailable(f"WeChat Pay has no bill of {day} before that day is over in Beijing.")
    api = _Api()
    try:
        _status, content = api.trade_bill(f"{day}")
    except _Refused as refused:
        if refused.code not in ("NO_STATEMENT_EXIST", "STATEMENT_CREATING"):
            raise
        if refused.code == "STATEMENT_CREATING" or now < midnight + BILL_AFTER:
            raise Unavailable(f"WeChat Pay has no bill of {day} yet.") from None
        return
    match content:
        case {"download_url": str(url), "hash_type": "SHA1", "hash_value": str(digest)}:
            _status, packed = api.download_bill(_bill_address(url))
        case _:
            raise _no_sense("something else than a bill")
    for row in _rows(_unpacked(packed, digest)):
        if booking := _read_row(row):
            yield booking


def _bill_address(url: str) -> str:
    """Where the bill may be fetched: at the API itself, for the request is signed, and at no other place."""
    start = settings.WECHAT_URL + BILL_PATH
    if not url.startswith(start) or not BILL_QUERY.fullmatch(url.removeprefix(start)):
        raise _no_sense("a bill in a place that is not its own")
    return url


def _unpacked(packed: bytes, digest: str) -> str:
    """The text of the bill. What its digest is of comes out of the gzip; SHA-1 is WeChat Pay's choice."""
    unpacking = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)
    try:
        raw = unpacking.decompress(packed, BILL_BYTES)
        if unpacking.unconsumed_tail:
            raise _no_sense("too long a bill")
        if not unpacking.eof or unpacking.unused_data:
            raise _no_sense("a bill that cannot be unpacked")
        if hashlib.sha1(raw, usedforsecurity=False).hexdigest() != digest.lower():
            raise _no_sense("a bill that is not the one it promised")
        return raw.decode("utf-8-sig")
    except (zlib.error, UnicodeDecodeError):
        raise _no_sense("a bill that cannot be unpacked") from None


def _rows(text: str) -> Iterator[Mapping[str, str]]:
    """The lines of the bill down to its sums. Each of their cells begins with a grave, and is quoted in no other way."""
    header, *lines = re.split(r"\r?\n", text)
    columns = header.split(",")
    for line in lines:
        if line.startswith("总交易单数"):
            return
        cells = line.removeprefix("`").split(",`")
        if not line.startswith("`") or len(cells) != len(columns):
            raise _no_sense("a bill that cannot be read")
        yield dict(zip(columns, cells, strict=True))
    raise _no_sense("a bill without an end")


def _read_row(row: Mapping[str, str]) -> Booking | None:
    """A line of the bill; None for a refund that the buyer does not have."""
    try:
        at, state, currency = row["交易时间"], row["交易状态"], row["货币种类"]
        number, order = row["微信订单号"], row["商户订单号"]
        amount, refund_id, refund_no, asked_back, refund_status = (
            row["订单金额"],
            row["微信退款单号"],
            row["商户退款单号"],
            row["申请退款金额"],
            row["退款状态"],
        )
    except KeyError:
        raise _no_sense("a bill that cannot be read") from None
    if row.get("商户号") != settings.WECHAT_MERCHANT_ID or not TRANSACTION_ID.fullmatch(number):
        raise _no_sense("another seller's bill")
    reference = order if REFERENCE.fullmatch(order) else ""
    if state == "SUCCESS":
        return Booking("capture", number, _read_amount(amount, currency), _read_bill_time(at), reference)
    # What was paid at a till and revoked there: the shop has none.
    if state == "REVOKED":
        return None
    if state != "REFUND" or not TRANSACTION_ID.fullmatch(refund_id) or not ANY_NUMBER.fullmatch(refund_no):
        raise _no_sense("a bill that cannot be read")
    booked = Booking("refund", refund_id, _read_amount(asked_back, currency), _read_bill_time(at), reference)
    if refund_status != "SUCCESS":
        paid = MoneyMoved(number, booked.amount, booked.at)
        refund = _refund(_Api(), refund_no, reference=order, capture=paid)
        return booked if refund and refund.status == "SUCCESS" else None
    return booked


# --- values ------------------------------------------------------------------------------------------


def _read_notification(api: _Api, proof: Mapping[str, str], text: str) -> object:
    """What a notification says when it is decrypted. Raises ValueError or RecursionError for one that is none."""
    match json.loads(text):
        case {
            "resource_type": "encrypt-resource",
            "resource": {
                "algorithm": "AEAD_AES_256_GCM",
                "ciphertext": str(),
                "nonce": str(),
                "associated_data": str(),
            },
        }:
            notification: object = api.callback(proof, text)
            return notification
    raise ValueError("Nothing is encrypted in it.")


def _read_minor(minor: object, currency: object) -> Money:
    try:
        if isinstance(minor, Number) and MINOR.fullmatch(minor) and isinstance(currency, str):
            return Money(int(minor), currency)
    except ValueError:
        pass
    raise _no_sense("an amount that cannot be read")


def _read_amount(written: str, currency: str) -> Money:
    try:
        if amount := Money.parse(written, currency):
            return amount
    except ValueError:
        pass
    raise _no_sense("an amount that cannot be read")


def _read_time(written: str) -> datetime:
    try:
        if TIME.fullmatch(written):
            return datetime.fromisoformat(written).astimezone(UTC)
    except ValueError:
        pass
    raise _no_sense("a time that cannot be read")


def _read_bill_time(written: str) -> datetime:
    """Bills say Beijing's time, without saying so."""
    try:
        if BILL_TIME.fullmatch(written):
            return datetime.fromisoformat(written).replace(tzinfo=BEIJING).astimezone(UTC)
    except ValueError:
        pass
    raise _no_sense("a time that cannot be read")


def _printable(said: str) -> str:
    return "".join(letter for letter in said[:150] if letter.isprintable())


def _no_sense(what: str) -> Unavailable:
    return Unavailable(f"WeChat Pay answered {what}.")
