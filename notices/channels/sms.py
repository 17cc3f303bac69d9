"""Text messages, by a provider that speaks like Twilio or one that speaks like Alibaba's Dysms.

A text is paid for by the segment: 160 characters of GSM-7, 70 of anything else. One curly quote makes the whole text
the latter, so in English there are none. To the mainland no link goes out: operators drop a message that has one.
"""

import base64
import binascii
import hashlib
import hmac
import json
import secrets
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Protocol
from urllib.parse import parse_qsl, quote, urlencode, urlsplit

import smsutil
from django.conf import settings
from django.urls import reverse
from django.utils.crypto import constant_time_compare
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from notices import codes
from notices.channels.addresses import addresses_of
from notices.channels.asking import Answer, hand_over, is_reachable, refusal
from notices.channels.protocol import (
    Accepted,
    Address,
    Deferred,
    Gone,
    NotProven,
    Outgoing,
    Refused,
    Report,
    Unavailable,
    Uncertain,
)
from notices.kinds import CONTACT_CODE, Form

BRAND = "VMOS Cloud"
MAINLAND = "+86"
# For what GSM-7 has no shape.
PLAIN = str.maketrans(
    {
        "‘": "'",
        "’": "'",
        "“": '"',
        "”": '"',
        "–": "-",
        "—": "-",
        "…": "...",
        "•": "*",
        "·": "-",
        "→": "->",
        "\u00a0": " ",
        "\u2007": " ",
        "\u2009": " ",
        "\u2011": "-",
        "\u202f": " ",
    }
)
# Characters of a text that a link may not drive out.
WORDS_BESIDE_LINK = 30
# How long to wait where a provider counts what one number gets in a minute, an hour, a day, and says no more.
PAUSE = timedelta(hours=1)


# What operators of the mainland say of a number that is not in use.
NO_SUCH_NUMBER = "空号"


class Provider(Protocol):
    """How one kind of provider is spoken to."""

    def missing(self) -> Sequence[str]: ...

    def send(self, outgoing: Outgoing, text: str, *, code: str, now: datetime) -> Accepted:
        """Hand over `text`; `code` is the one in it, if it is there for that."""
        ...

    def read_reports(
        self, body: bytes, form: Mapping[str, str], headers: Mapping[str, str], url: str
    ) -> Sequence[Report]:
        """What the provider tells of messages at `url`. Raises NotProven."""
        ...


class Sms:
    """Settings: SMS_PROVIDER, SMS_URL, SMS_ACCOUNT, SMS_SECRET and SMS_SENDER; with Alibaba the templates too.

    The address is a number as in E.164.
    """

    slug = "sms"
    label: str | Promise = _("Text message")
    is_ours = False
    is_by_hand = False
    is_repeatable = False
    form = Form.SHORT
    rings = True
    per_second: float | None = settings.SMS_PER_SECOND
    claimed_at_once = 10

    def missing(self) -> Sequence[str]:
        provider = PROVIDERS.get(settings.SMS_PROVIDER)
        if not provider:
            return ["SMS_PROVIDER"]
        missing = [] if is_reachable(settings.SMS_URL) else ["SMS_URL"]
        missing += [
            name for name in ("SMS_ACCOUNT", "SMS_SECRET", "SMS_SENDER") if not getattr(settings, name)
        ]
        return [*missing, *provider.missing()]

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return addresses_of(self.slug, recipients)

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        """In one paragraph, with who sends it and a link, in as many segments as are paid for at most. It has no subject."""
        return replace(outgoing, subject="", body=fitted(outgoing))

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        provider = PROVIDERS.get(settings.SMS_PROVIDER)
        if not provider:
            raise Unavailable("SMS_PROVIDER is not set.")
        text, code = outgoing.body, ""
        if outgoing.kind is CONTACT_CODE:
            current = codes.current(
                customer_id=outgoing.recipient_id, channel=self.slug, address=outgoing.address, now=now
            )
            if current is None:
                raise Refused("There is nothing to prove any more: the code is too old, or was used.")
            text, code = text.replace(codes.PLACEHOLDER, current), current
        return provider.send(outgoing, text, code=code, now=now)


def fitted(outgoing: Outgoing) -> str:
    """The text of a message as it goes out, but for a code that is put into its place. A link for which there is no room
    beside the first words is left out.
    """
    text = " ".join(outgoing.body.split())
    if BRAND not in text:
        text = f"{BRAND}: {text}"
    cut_off = "…"
    if outgoing.language == "en":
        cut_off = "..."
        text = codes.PLACEHOLDER.join(part.translate(PLAIN) for part in text.split(codes.PLACEHOLDER))
    if outgoing.url and not outgoing.address.startswith(MAINLAND):
        end = f" {settings.SITE_URL}{outgoing.url}"
        if segments(text[:WORDS_BESIDE_LINK] + cut_off + end) <= settings.SMS_MOST_SEGMENTS:
            return _cut(text, cut_off, end)
    return _cut(text, cut_off, "")


def segments(text: str) -> int:
    """How many messages the operators make of it, and bill, when its code is in its place."""
    return len(smsutil.split(text.replace(codes.PLACEHOLDER, "0" * codes.DIGITS)).parts)


def _cut(text: str, cut_off: str, end: str) -> str:
    written = text + end
    while segments(written) > settings.SMS_MOST_SEGMENTS and text:
        text = text[:-1]
        written = text.rstrip() + cut_off + end
    return written


def read_reports(
    body: bytes, form: Mapping[str, str], headers: Mapping[str, str], path: str
) -> Sequence[Report]:
    """What the provider says at our `path` (with its query) of messages it has taken. Raises NotProven."""
    provider = PROVIDERS.get(settings.SMS_PROVIDER)
    if not provider:
        raise NotProven("No provider is set.")
    return provider.read_reports(body, form, headers, settings.SITE_URL + path)


class Twilio:
    """Basic authentication, a form; what becomes of a message is told to its own StatusCallback, signed."""

    # There is no such number, or it takes no text messages.
    # Or its owner has said STOP.
    GONE = (21211, 21214, 21217, 21610, 21614, 30005, 30006)
    # The region is not ours to send to; the text is refused.
    REFUSED = (21408, 21612, 21602, 21617, 30004, 30007)
    THROTTLED = (20429, 30001, 63038)
    # Too many to one number.
    NUMBER_THROTTLED = (14107,)
    ARRIVED = "delivered"
    RETURNED = ("undelivered", "failed")

    def missing(self) -> Sequence[str]:
        return ()

    def send(self, outgoing: Outgoing, text: str, *, code: str, now: datetime) -> Accepted:
        reports_path = reverse("notices:sms-reports", args=["twilio"])
        sender = "MessagingServiceSid" if settings.SMS_SENDER.startswith("MG") else "From"
        answer = hand_over(
            f"{settings.SMS_URL}/2010-04-01/Accounts/{quote(settings.SMS_ACCOUNT)}/Messages.json",
            content=urlencode(
                {
                    "To": outgoing.address,
                    sender: settings.SMS_SENDER,
                    "Body": text,
                    # With our own name for the message: what becomes of it may be told before we know Twilio's.
                    "StatusCallback": f"{settings.SITE_URL}{reports_path}?reference={outgoing.reference}",
                }
            ).encode(),
            headers={
                "Content-Type": "application/x-www-form-urlencoded",
                "Authorization": "Basic "
                + base64.b64encode(f"{settings.SMS_ACCOUNT}:{settings.SMS_SECRET}".encode()).decode(),
            },
        )
        content = _object(answer.body)
        if 200 <= answer.status < 300:
            match content:
                case {"sid": str(reference)}:
                    return Accepted(provider_reference=reference)
            raise Uncertain(f"It was taken, but not by what name: {answer.said}")
        raise self._failure(answer, content, now=now)

    def _failure(
        self, answer: Answer, content: Mapping[str, object], *, now: datetime
    ) -> Unavailable | Refused | Uncertain:
        match content.get("code"):
            case int(code) if code in self.GONE:
                return Gone(answer.said)
            case int(code) if code in self.REFUSED:
                return Refused(answer.said)
            case int(code) if code in self.NUMBER_THROTTLED:
                return Deferred(answer.said, retry_after=answer.retry_after(now))
            case int(code) if code in self.THROTTLED:
                return Unavailable(answer.said, retry_after=answer.retry_after(now))
        return refusal(answer, now=now)

    def read_reports(
        self, body: bytes, form: Mapping[str, str], headers: Mapping[str, str], url: str
    ) -> Sequence[Report]:
        said = url + "".join(f"{name}{form[name]}" for name in sorted(form))
        expected = hmac.digest(settings.SMS_SECRET.encode(), said.encode(), "sha1")
        try:
            given = base64.b64decode(headers.get("x-twilio-signature", ""), validate=True)
        except (ValueError, binascii.Error):
            given = b""
        if not settings.SMS_SECRET or not hmac.compare_digest(given, expected):
            raise NotProven("The signature is not Twilio's.")
        status = form.get("MessageStatus", "")
        reference = dict(parse_qsl(urlsplit(url).query)).get("reference") or form.get("MessageSid", "")
        if not reference or status not in (self.ARRIVED, *self.RETURNED):
            return ()
        problem = form.get("ErrorCode", "")
        return [
            Report(
                reference,
                has_arrived=status == self.ARRIVED,
                detail=f"{status} {problem}".strip()[:300],
                is_gone=problem in map(str, self.GONE),
            )
        ]


class Alibaba:
    """Dysms: requests signed by ACS3-HMAC-SHA256, approved templates only, reports in batches without a signature."""

    VERSION = "2017-05-25"
    ALGORITHM = "ACS3-HMAC-SHA256"
    GONE = ("isv.MOBILE_NUMBER_ILLEGAL",)
    # Enough for this number, in a minute, an hour or a day.
    NUMBER_THROTTLED = ("isv.BUSINESS_LIMIT_CONTROL",)
    REFUSED = (
        "isv.BLACK_KEY_CONTROL_LIMIT",
        "isv.PARAM_LENGTH_LIMIT",
        "isv.PARAM_NOT_SUPPORT_URL",
        "isv.INVALID_PARAMETERS",
        "isv.SMS_CONTENT_ILLEGAL",
        "MOBILE_IN_BLACK",
    )

    def missing(self) -> Sequence[str]:
        names = ("SMS_TEMPLATE", "SMS_CODE_TEMPLATE", "SMS_REPORT_TOKEN")
        return [name for name in names if not getattr(settings, name)]

    def send(self, outgoing: Outgoing, text: str, *, code: str, now: datetime) -> Accepted:
        # Numbers of the mainland go without +86, others without the plus.
        number = outgoing.address.removeprefix(MAINLAND).removeprefix("+")
        if code:
            template, variables = settings.SMS_CODE_TEMPLATE, {"code": code}
        else:
            template, variables = settings.SMS_TEMPLATE, {"text": text}
        query = {
            "PhoneNumbers": number,
            "SignName": settings.SMS_SENDER,
            "TemplateCode": template,
            "TemplateParam": json.dumps(variables, ensure_ascii=False),
            "OutId": outgoing.reference,
        }
        written = "&".join(f"{_encoded(name)}={_encoded(query[name])}" for name in sorted(query))
        answer = hand_over(
            f"{settings.SMS_URL}/?{written}", content=b"", headers=self._signed("SendSms", written)
        )
        match _object(answer.body):
            case {"Code": "OK", "BizId": str(reference)}:
                return Accepted(provider_reference=reference)
            case {"Code": "OK"}:
                raise Uncertain(f"It was taken, but not by what name: {answer.said}")
            case {"Code": str(problem)} if problem in self.GONE:
                raise Gone(answer.said)
            case {"Code": str(problem)} if problem in self.REFUSED:
                raise Refused(answer.said)
            case {"Code": str(problem)} if problem == "isp.SYSTEM_ERROR" or answer.status >= 500:
                # It failed while it was at work.
                raise Uncertain(answer.said)
            case {"Code": str(problem)} if problem.startswith("Throttling"):
                raise Unavailable(answer.said, retry_after=answer.retry_after(now))
            case {"Code": str(problem)} if problem in self.NUMBER_THROTTLED:
                raise Deferred(answer.said, retry_after=PAUSE)
            case {"Code": str()}:
                # Enough for our account today, or that, the key or the templates are at fault.
                raise Unavailable(answer.said, retry_after=PAUSE)
        raise Uncertain(answer.said) if answer.status < 400 else refusal(answer, now=now)

    def _signed(self, action: str, query: str) -> dict[str, str]:
        """The headers of a POST without a body to the root."""
        headers = {
            "host": urlsplit(settings.SMS_URL).netloc,
            "x-acs-action": action,
            "x-acs-content-sha256": hashlib.sha256(b"").hexdigest(),
            "x-acs-date": datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ"),
            "x-acs-signature-nonce": secrets.token_hex(16),
            "x-acs-version": self.VERSION,
        }
        names = ";".join(sorted(headers))
        lines = "".join(f"{name}:{headers[name]}\n" for name in sorted(headers))
        canonical = f"POST\n/\n{query}\n{lines}\n{names}\n{headers['x-acs-content-sha256']}"
        said = f"{self.ALGORITHM}\n{hashlib.sha256(canonical.encode()).hexdigest()}"
        signature = hmac.digest(settings.SMS_SECRET.encode(), said.encode(), "sha256").hex()
        return headers | {
            "authorization": f"{self.ALGORITHM} Credential={settings.SMS_ACCOUNT},SignedHeaders={names},"
            f"Signature={signature}"
        }

    def read_reports(
        self, body: bytes, form: Mapping[str, str], headers: Mapping[str, str], url: str
    ) -> Sequence[Report]:
        """The address itself is the proof: it has a token in it that only the provider was told."""
        token = urlsplit(url).path.rstrip("/").rpartition("/")[2]
        if not settings.SMS_REPORT_TOKEN or not constant_time_compare(token, settings.SMS_REPORT_TOKEN):
            raise NotProven("The address of the report is not the one that was agreed.")
        try:
            content = json.loads(body)
        except (ValueError, RecursionError):
            raise NotProven("The report is not JSON.") from None
        found = []
        for each in content if isinstance(content, list) else ():
            match each:
                case {"out_id": str(reference), "success": bool(success), **rest}:
                    said = f"{rest.get('err_code', '')} {rest.get('err_msg', '')}".strip()[:300]
                    found.append(
                        Report(reference, has_arrived=success, detail=said, is_gone=NO_SUCH_NUMBER in said)
                    )
        return found


PROVIDERS: Mapping[str, Provider] = {"twilio": Twilio(), "alibaba": Alibaba()}


def _encoded(text: str) -> str:
    """As RFC 3986 has it."""
    return quote(text, safe="-_.~")


def _object(body: str) -> Mapping[str, object]:
    try:
        content = json.loads(body)
    except (ValueError, RecursionError):
        return {}
    return content if isinstance(content, dict) else {}
