"""Web Push: a message to a browser, encrypted for it alone (RFC 8291) and carried by its maker's push service.

`pywebpush` encrypts and `py_vapid` signs; the connection is ours.
"""

import base64
import binascii
import hashlib
import ipaddress
import json
import re
import time
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from functools import cache
from urllib.parse import urlsplit

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat, load_pem_private_key
from django.conf import settings
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _
from py_vapid import Vapid
from pywebpush import WebPusher

from accounts.models import User
from notices.channels.addresses import addresses_of
from notices.channels.asking import hand_over, is_reachable, refusal
from notices.channels.protocol import (
    Accepted,
    Address,
    Gone,
    Outgoing,
    Refused,
    Unavailable,
    text_beside_title,
)
from notices.kinds import Form, Urgency

# Push services need take no more than 4,096 bytes, encrypted; that is a little below.
LONGEST_PAYLOAD = 3_900
TOKEN_AGE = timedelta(hours=12)
# What a service is told of a message, and how long it shall keep it for a browser that is off.
URGENCIES: Mapping[Urgency, tuple[str, timedelta]] = {
    Urgency.URGENT: ("high", timedelta(days=3)),
    Urgency.NORMAL: ("normal", timedelta(days=7)),
    Urgency.BULK: ("low", timedelta(days=14)),
}
SUBJECT = re.compile(r"(mailto:[^@\s]+@[^@\s]+|https://\S+)")


class Push:
    """Settings: PUSH_VAPID_PRIVATE_KEY and PUSH_VAPID_SUBJECT; PUSH_HOSTS are the push services we speak to.

    The address is the endpoint of a browser's subscription, the details are its keys: {"p256dh": …, "auth": …}.
    """

    slug = "push"
    label: str | Promise = _("Browser notification")
    is_ours = False
    is_by_hand = False
    is_repeatable = False
    form = Form.SHORT
    rings = True
    per_second: float | None = settings.PUSH_PER_SECOND
    claimed_at_once = 10

    def missing(self) -> Sequence[str]:
        missing = [] if _private_key(settings.PUSH_VAPID_PRIVATE_KEY) else ["PUSH_VAPID_PRIVATE_KEY"]
        return missing if SUBJECT.fullmatch(settings.PUSH_VAPID_SUBJECT) else [*missing, "PUSH_VAPID_SUBJECT"]

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return addresses_of(self.slug, recipients)

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        """With as much of the text as there is room for."""
        message = replace(outgoing, body=text_beside_title(outgoing))
        while message.body and (excess := len(payload(message)) - LONGEST_PAYLOAD) > 0:
            # No character takes more than 6 bytes, so this never cuts off more than must be, nor for ever.
            text = message.body[: -max(excess // 6, 2)].rstrip()
            message = replace(message, body=f"{text}…" if text else "")
        return message

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        # Asked again: what is allowed may have changed since the browser subscribed.
        if not may_be_endpoint(outgoing.address):
            raise Gone("The endpoint is not one of a push service that we speak to.")
        if not are_keys(outgoing.details):
            raise Gone("The subscription has no keys.")
        if len(payload(outgoing)) > LONGEST_PAYLOAD:
            raise Refused("Title and address alone are too long for a push message.")
        urgency, kept_for = URGENCIES[outgoing.kind.urgency]
        headers = {
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(int(kept_for.total_seconds())),
            "Urgency": urgency,
            **_vapid(outgoing.address),
        }
        if outgoing.thread:
            # What waits for a browser that is off is replaced by what is newer (RFC 8030, 5.4).
            headers["Topic"] = _topic(outgoing)
        answer = hand_over(outgoing.address, content=_encrypted(outgoing), headers=headers)
        if 200 <= answer.status < 300:
            return Accepted(provider_reference=answer.headers.get("location", ""))
        if answer.status in (404, 410):
            raise Gone(answer.said)
        raise refusal(answer, now=now)


def public_key() -> str:
    """What a browser subscribes with: base64url without padding, or empty where there is no key."""
    key = _private_key(settings.PUSH_VAPID_PRIVATE_KEY)
    if not key:
        return ""
    point = key.public_key().public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)
    return base64.urlsafe_b64encode(point).decode().rstrip("=")


def may_be_endpoint(url: str) -> bool:
    """Whether we would send to `url`. It comes from a browser: it may name a host within our own network."""
    try:
        parts = urlsplit(url)
        host, port = parts.hostname or "", parts.port
    except ValueError:
        return False
    if not is_reachable(url) or parts.username or parts.password or parts.fragment:
        return False
    for allowed in settings.PUSH_HOSTS:
        if allowed.startswith("http://"):
            # An emulator; `is_reachable` has asked whether there may be any.
            if url.startswith(f"{allowed}/"):
                return True
        elif (host == allowed or (allowed.startswith(".") and host.endswith(allowed))) and not _is_number(
            host
        ):
            return parts.scheme == "https" and port in (None, 443)
    return False


def are_keys(details: Mapping[str, object]) -> bool:
    """Whether a browser can be encrypted for with these: a point on P-256, and 16 bytes."""
    match details:
        case {"p256dh": str(p256dh), "auth": str(auth)}:
            try:
                ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _bytes(p256dh))
                return len(_bytes(auth)) == 16
            except (ValueError, binascii.Error):
                return False
    return False


def payload(outgoing: Outgoing) -> bytes:
    """What the service worker gets: JSON."""
    content = {
        "title": outgoing.subject,
        "body": outgoing.body,
        "url": outgoing.url,
        "tag": _topic(outgoing),
        "lang": outgoing.language,
    }
    return json.dumps(content, ensure_ascii=False).encode()


def _topic(outgoing: Outgoing) -> str:
    """The same for all that supersede each other: at most 32 characters of base64url."""
    digest = hashlib.sha256(
        f"{outgoing.recipient_id} {outgoing.thread or outgoing.reference}".encode()
    ).digest()
    return base64.urlsafe_b64encode(digest[:24]).decode()


def _encrypted(outgoing: Outgoing) -> bytes:
    keys = {name: outgoing.details[name] for name in ("p256dh", "auth")}
    pusher = WebPusher({"endpoint": outgoing.address, "keys": keys})
    encrypted: bytes = pusher.encode(payload(outgoing))["body"]
    return encrypted


def _vapid(endpoint: str) -> Mapping[str, str]:
    """The header by which a push service knows the sender (RFC 8292). Raises Unavailable without a key."""
    key = _private_key(settings.PUSH_VAPID_PRIVATE_KEY)
    if not key:
        raise Unavailable("There is no key to sign with.")
    parts = urlsplit(endpoint)
    claims: dict[str, str | int] = {
        "aud": f"{parts.scheme}://{parts.netloc}",
        # Real time, whatever the caller's clock says: the service compares it with its own.
        "exp": int(time.time() + TOKEN_AGE.total_seconds()),
        "sub": settings.PUSH_VAPID_SUBJECT,
    }
    headers: dict[str, str] = Vapid(private_key=key).sign(claims)
    return headers


@cache
def _private_key(written: str) -> ec.EllipticCurvePrivateKey | None:
    """The key in `written`: PEM, or the number alone in base64url."""
    try:
        if "-----BEGIN" in written:
            read = load_pem_private_key(written.encode(), password=None)
            key = read if isinstance(read, ec.EllipticCurvePrivateKey) else None
        else:
            raw = _bytes(written)
            key = ec.derive_private_key(int.from_bytes(raw), ec.SECP256R1()) if len(raw) == 32 else None
    except (ValueError, TypeError, binascii.Error, UnsupportedAlgorithm):
        return None
    return key if key and isinstance(key.curve, ec.SECP256R1) else None


def _bytes(written: str) -> bytes:
    return base64.b64decode(written + "=" * (-len(written) % 4), altchars=b"-_", validate=True)


def _is_number(host: str) -> bool:
    try:
        return bool(ipaddress.ip_address(host))
    except ValueError:
        return False
