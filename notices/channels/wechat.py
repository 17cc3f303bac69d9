"""The platform's WeChat Official Account: template messages to those who follow it and have bound their account.

A template has fields of 20 characters. So the message says what it is about, and leads to the page that has the rest.

Who follows is known by an "openid". A customer binds his by opening a page of ours in WeChat, which sends him through
WeChat's OAuth (`authorize_url`, `openid_of`). What happens afterwards WeChat tells our message server, encrypted
(`read_event`): a message was delivered, somebody follows no more.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from urllib.parse import urlencode
from zoneinfo import ZoneInfo

from cryptography.hazmat.primitives.ciphers import Cipher, algorithms, modes
from django.conf import settings
from django.core.cache import cache
from django.utils import translation
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from accounts.models import User
from notices.channels.addresses import addresses_of
from notices.channels.asking import hand_over, is_reachable
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
from notices.kinds import Form

APP_ID = re.compile(r"wx[0-9a-z]{16}")
AES_KEY = re.compile(r"[A-Za-z0-9]{43}")
FIELDS = ("kind", "text", "about")
# What one field of a template holds.
FIELD_LENGTH = 20
ABOUT_LENGTH = 32
BEIJING = ZoneInfo("Asia/Shanghai")

# A token lives two hours; it is not used in its last minutes.
TOKEN_MARGIN = 300
# One process fetches it, the others wait for it so long.
FETCH_SECONDS = 4.0

# The same words for "he follows no more", and for an openid that is none.
GONE = (43004, 40003, 50005)
# He takes no such messages; the words are refused.
REFUSED = (43101, 47003, 48002, 87009)
STALE_TOKEN = (40001, 40014, 41001, 42001)
DAILY_QUOTA = (45009,)
TOO_FAST = (45011,)
# Enough for this follower.
ENOUGH = (45047,)


@dataclass(frozen=True, slots=True)
class Event:
    """What WeChat tells our message server: of a message (`report`), or of who follows no more (`left`, an openid)."""

    report: Report | None = None
    left: str = ""


class Wechat:
    """Settings: WECHAT_OA_APP_ID, WECHAT_OA_SECRET, WECHAT_OA_TEMPLATE_ID and WECHAT_OA_FIELDS; WECHAT_OA_TOKEN and
    WECHAT_OA_AES_KEY of its message server. The address is an openid.
    """

    slug = "wechat"
    label: str | Promise = _("WeChat")
    is_ours = False
    is_by_hand = False
    is_repeatable = False
    form = Form.SHORT
    rings = True
    per_second: float | None = settings.WECHAT_OA_PER_SECOND
    claimed_at_once = 10

    def missing(self) -> Sequence[str]:
        forms = {"WECHAT_OA_APP_ID": APP_ID, "WECHAT_OA_AES_KEY": AES_KEY}
        missing = [name for name, form in forms.items() if not form.fullmatch(getattr(settings, name))]
        for name in ("WECHAT_OA_SECRET", "WECHAT_OA_TEMPLATE_ID", "WECHAT_OA_TOKEN"):
            missing += [] if getattr(settings, name) else [name]
        for name in ("WECHAT_OA_URL", "WECHAT_OA_CONNECT_URL"):
            missing += [] if is_reachable(getattr(settings, name)) else [name]
        return missing if set(settings.WECHAT_OA_FIELDS) == set(FIELDS) else [*missing, "WECHAT_OA_FIELDS"]

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return addresses_of(self.slug, recipients)

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        """The template's fields, each a line of the text in the order of FIELDS, and not too long. It has no subject."""
        with translation.override(outgoing.language):
            label = str(outgoing.kind.label)
        about = "".join(filter(str.isascii, outgoing.about))[:ABOUT_LENGTH] or "-"
        lines = (shortened(label, FIELD_LENGTH), shortened(outgoing.body, FIELD_LENGTH), about)
        return replace(outgoing, subject="", body="\n".join(lines))

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        content = {
            "touser": outgoing.address,
            "template_id": settings.WECHAT_OA_TEMPLATE_ID,
            **({"url": settings.SITE_URL + outgoing.url} if outgoing.url else {}),
            # Of two with one such number to one person WeChat sends one, if they come within minutes.
            "client_msg_id": outgoing.reference,
            "data": {name: {"value": value} for name, value in fields_of(outgoing).items()},
        }
        token = access_token()
        said = self._ask(content, token)
        if said["errcode"] in STALE_TOKEN:
            # It was made invalid before its time. Once, for if a new one is no better it is not the token.
            said = self._ask(content, access_token(instead_of=token))
        match said:
            case {"errcode": 0, "msgid": int(message_id) | str(message_id)}:
                return Accepted(provider_reference=str(message_id))
            case {"errcode": 0}:
                raise Uncertain("It was taken, but not by what name.")
        raise _failure(said, now=now)

    def _ask(self, content: Mapping[str, object], token: str) -> Mapping[str, object]:
        path = f"/cgi-bin/message/template/send?{urlencode({'access_token': token})}"
        return _ask("POST", path, content)


def fields_of(outgoing: Outgoing) -> dict[str, str]:
    """The lines of a fitted text by the names that they have in the template."""
    lines = zip(FIELDS, outgoing.body.split("\n"), strict=True)
    return {settings.WECHAT_OA_FIELDS[name]: line for name, line in lines}


def shortened(text: str, length: int) -> str:
    line = " ".join(text.split())
    return line if len(line) <= length else f"{line[: length - 1].rstrip()}…"


def access_token(*, instead_of: str = "") -> str:
    """The token of our calls, which all processes share; `instead_of` is one that turned out to be of no use.

    Raises Unavailable.
    """
    key = f"notices.wechat.token.{settings.WECHAT_OA_APP_ID}"
    lock = f"{key}.fetched"
    end = time.monotonic() + FETCH_SECONDS
    while True:
        token = cache.get(key)
        if isinstance(token, str) and token != instead_of:
            return token
        if cache.add(lock, "yes", timeout=FETCH_SECONDS * 4) or time.monotonic() > end:
            break
        time.sleep(0.05)
    try:
        # Two who ask are given the same one: no harm is done if a lock is lost.
        answer = _ask(
            "POST",
            "/cgi-bin/stable_token",
            {
                "grant_type": "client_credential",
                "appid": settings.WECHAT_OA_APP_ID,
                "secret": settings.WECHAT_OA_SECRET,
            },
            repeats=True,
        )
        match answer:
            case {"access_token": str(token), "expires_in": int(seconds)}:
                cache.set(key, token, timeout=max(seconds - TOKEN_MARGIN, 1))
                return token
        raise Unavailable(f"No token: {_words(answer)}")
    finally:
        cache.delete(lock)


# --- binding -----------------------------------------------------------------------------------------


def authorize_url(*, back_to: str, state: str) -> str:
    """Where somebody is sent, in WeChat, to tell us his openid. He is asked nothing (snsapi_base)."""
    # In the order that WeChat insists on.
    query = urlencode(
        {
            "appid": settings.WECHAT_OA_APP_ID,
            "redirect_uri": back_to,
            "response_type": "code",
            "scope": "snsapi_base",
            "state": state,
        }
    )
    return f"{settings.WECHAT_OA_CONNECT_URL}/connect/oauth2/authorize?{query}#wechat_redirect"


def openid_of(code: str) -> str:
    """Whose the code is that he came back with. Raises Refused for one that is not good (any more), or Unavailable."""
    query = urlencode(
        {
            "appid": settings.WECHAT_OA_APP_ID,
            "secret": settings.WECHAT_OA_SECRET,
            "code": code,
            "grant_type": "authorization_code",
        }
    )
    match answer := _ask("GET", f"/sns/oauth2/access_token?{query}", None, repeats=True):
        case {"openid": str(openid)} if 0 < len(openid) <= 100:
            return openid
        case {"errcode": 40029 | 40163 | 42003}:
            raise Refused(_words(answer))
    raise Unavailable(_words(answer))


# --- what WeChat tells us ----------------------------------------------------------------------------


def is_from_wechat(query: Mapping[str, str]) -> bool:
    """Whether the question for our message server's address is WeChat's."""
    return _is_signed(query.get("signature", ""), query)


def read_event(body: bytes, query: Mapping[str, str]) -> Event:
    """What it tells. Raises NotProven. What does not concern us is an empty event."""
    encrypted = _element(_tree(body), "Encrypt")
    if not _is_signed(query.get("msg_signature", ""), query, encrypted):
        raise NotProven("The signature is not WeChat's.")
    event = _tree(_decrypted(encrypted))
    match _element(event, "Event"):
        case "TEMPLATESENDJOBFINISH":
            status = _element(event, "Status")
            return Event(
                report=Report(
                    _element(event, "MsgID"),
                    has_arrived=status == "success",
                    detail=status[:300],
                    is_gone="block" in status,
                )
            )
        case "unsubscribe":
            return Event(left=_element(event, "FromUserName"))
    return Event()


def _is_signed(signature: str, query: Mapping[str, str], *more: str) -> bool:
    said = "".join(
        sorted([settings.WECHAT_OA_TOKEN, query.get("timestamp", ""), query.get("nonce", ""), *more])
    )
    expected = hashlib.sha1(said.encode()).hexdigest()  # noqa: S324 (WeChat's choice)
    return bool(settings.WECHAT_OA_TOKEN) and hmac.compare_digest(signature.encode(), expected.encode())


def _decrypted(encrypted: str) -> bytes:
    """16 random bytes, the length, the message, our application's id, padded to 32 bytes (AES-256-CBC)."""
    try:
        key = base64.b64decode(f"{settings.WECHAT_OA_AES_KEY}=")
        sealed = base64.b64decode(encrypted, validate=True)
        decryptor = Cipher(algorithms.AES(key), modes.CBC(key[:16])).decryptor()
        padded = decryptor.update(sealed) + decryptor.finalize()
    except (ValueError, binascii.Error) as failure:
        raise NotProven(f"It cannot be decrypted: {failure}") from None
    plain = padded[: -padded[-1]] if padded and 1 <= padded[-1] <= 32 else b""
    length = int.from_bytes(plain[16:20])
    message, app_id = plain[20 : 20 + length], plain[20 + length :]
    if app_id != settings.WECHAT_OA_APP_ID.encode():
        raise NotProven("It is for another application.")
    return message


def _tree(body: bytes) -> ET.Element:
    """The XML in `body`. Raises NotProven, also for one that declares anything: entities are how XML is abused."""
    try:
        text = body.decode()
        if "<!DOCTYPE" in text or "<!ENTITY" in text:
            raise NotProven("It declares entities.")
        return ET.fromstring(text)  # noqa: S314 (nothing is declared in it)
    except (UnicodeDecodeError, ET.ParseError) as failure:
        raise NotProven(f"It is not XML: {failure}") from None


def _element(tree: ET.Element, name: str) -> str:
    return (tree.findtext(name) or "").strip()


# --- speaking to WeChat ------------------------------------------------------------------------------


def _ask(
    method: str, path: str, content: Mapping[str, object] | None, *, repeats: bool = False
) -> Mapping[str, object]:
    """Its answer, always with an `errcode`: 0 where WeChat says none."""
    body = b"" if content is None else json.dumps(content, ensure_ascii=False).encode()
    answer = hand_over(
        settings.WECHAT_OA_URL + path,
        content=body,
        headers={"Content-Type": "application/json"},
        method=method,
        repeats=repeats,
    )
    if answer.status in (429, 503):
        raise Unavailable(answer.said)
    try:
        said = json.loads(answer.body)
    except (ValueError, RecursionError):
        said = None
    if not isinstance(said, dict) or not isinstance(said.get("errcode", 0), int):
        raise (Unavailable if repeats else Uncertain)(f"An answer that makes no sense: {answer.said}")
    return {"errcode": 0, **said}


def _failure(said: Mapping[str, object], *, now: datetime) -> Unavailable | Refused:
    code, words = said["errcode"], _words(said)
    if code in GONE:
        return Gone(words)
    if code in REFUSED:
        return Refused(words)
    if code in DAILY_QUOTA:
        # It is counted by Beijing's day.
        here = now.astimezone(BEIJING)
        midnight = (here + timedelta(days=1)).replace(hour=0, minute=0, second=0, microsecond=0)
        return Unavailable(words, retry_after=midnight - here)
    if code in ENOUGH:
        return Deferred(words, retry_after=timedelta(minutes=1))
    if code in TOO_FAST:
        return Unavailable(words, retry_after=timedelta(minutes=1))
    # Busy (-1), or our account, template or address is at fault. Nothing was sent.
    return Unavailable(words)


def _words(said: Mapping[str, object]) -> str:
    return f"{said['errcode']} {said.get('errmsg', '')}".strip()[:200]
