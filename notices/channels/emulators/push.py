"""A push service, and the browser behind it.

    POST /subscriptions        with the key: a browser subscribes; answers what it tells a page
    DELETE /subscriptions/{id} with the key: it has given up
    POST /push/{id}            a message, as RFC 8030 has it

The message is decrypted as a browser would (RFC 8291 over RFC 8188) and its sender's token is verified (RFC 8292), by
`cryptography` alone.
"""

import base64
import binascii
import json
import re
import secrets
import struct
import time
from collections.abc import Mapping
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature, InvalidTag
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.asymmetric.utils import encode_dss_signature
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from werkzeug.routing import Rule
from werkzeug.wrappers import Request, Response

from emulators.server import Refused, answer, read_object
from notices.channels.emulators.carrier import Carrier

LARGEST = 4096
URGENCIES = ("very-low", "low", "normal", "high")
TOPIC = re.compile(r"[A-Za-z0-9_-]{1,32}")
DAY = 86_400


class PushService(Carrier):
    extra = """
    CREATE TABLE IF NOT EXISTS subscription (
        id TEXT PRIMARY KEY, private TEXT NOT NULL, auth TEXT NOT NULL, sender TEXT NOT NULL, gone INTEGER NOT NULL
    );
    """

    def routes(self) -> list[Rule]:
        return [
            Rule("/subscriptions", methods=["POST"], endpoint=self.guarded(self.subscribe)),
            Rule("/subscriptions/<subscription>", methods=["DELETE"], endpoint=self.guarded(self.give_up)),
            Rule("/push/<subscription>", methods=["POST"], endpoint=self.push),
        ]

    def sign(self, _webhook_id: str, _body: str, _is_right: bool, /) -> Mapping[str, str]:
        raise NotImplementedError("A push service reports nothing.")

    def subscribe(self, request: Request) -> Response:
        """A browser takes a subscription for the sender whose key it is given."""
        sender = read_object(request).get("applicationServerKey", "")
        key = ec.generate_private_key(ec.SECP256R1())
        subscription, auth = secrets.token_urlsafe(18), secrets.token_bytes(16)
        with self.books.transaction() as db:
            db.execute(
                "INSERT INTO subscription VALUES (?, ?, ?, ?, 0)",
                (subscription, str(key.private_numbers().private_value), _text(auth), str(sender)),
            )
        keys = {"p256dh": _text(_point(key.public_key())), "auth": _text(auth)}
        return answer({"endpoint": f"{self.public_url}/push/{subscription}", "keys": keys}, 201)

    def give_up(self, _request: Request, subscription: str) -> Response:
        with self.books.transaction() as db:
            db.execute("UPDATE subscription SET gone = 1 WHERE id = ?", (subscription,))
        return Response(status=204)

    def push(self, request: Request, subscription: str) -> Response:
        if self.goes_wrong():
            raise Refused(503, "busy", "Come back later.")
        with self.books.transaction() as db:
            row = db.execute("SELECT * FROM subscription WHERE id = ?", (subscription,)).fetchone()
            if not row:
                raise Refused(404, "unknown", "There is no such subscription.")
            if row["gone"]:
                raise Refused(410, "gone", "The browser has unsubscribed.")
            self._check(request, sender=row["sender"])
            message = _decrypted(request.get_data(), private=int(row["private"]), auth=_raw(row["auth"]))
            content = json.loads(message)
            reference = self.keep(
                db,
                recipient=subscription,
                title=content["title"],
                text=content["body"],
                url=content["url"],
                thread=content["tag"],
                details={
                    "lang": content["lang"],
                    "bytes": len(message),
                    "ttl": int(request.headers["TTL"]),
                    "urgency": request.headers.get("Urgency", "normal"),
                    "topic": request.headers.get("Topic", ""),
                },
            )
        self._stopping.wait(self.faults.now().delay_seconds)
        return Response(status=201, headers={"Location": f"{self.public_url}/message/{reference}"})

    def _check(self, request: Request, *, sender: str) -> None:
        """Raises Refused as a real one would, or would not always."""
        if len(request.get_data()) > LARGEST:
            raise Refused(413, "too_large", "At most 4,096 bytes.")
        if request.headers.get("Content-Encoding") != "aes128gcm":
            raise Refused(400, "encoding", "It must be encrypted as aes128gcm.")
        if not request.headers.get("TTL", "").isdecimal():
            raise Refused(400, "ttl", "It must say how long it is to be kept.")
        if request.headers.get("Urgency", "normal") not in URGENCIES:
            raise Refused(400, "urgency", "There is no such urgency.")
        if not TOPIC.fullmatch(request.headers.get("Topic", "x")):
            raise Refused(400, "topic", "A topic has at most 32 characters of base64url.")
        found = re.fullmatch(
            r"vapid t=([\w-]+)\.([\w-]+)\.([\w-]+), ?k=([\w-]+)", request.headers.get("Authorization", "")
        )
        if not found:
            raise Refused(401, "unauthorized", "There is no VAPID token.")
        header, claims, signature, key = found.groups()
        if key != sender:
            raise Refused(403, "forbidden", "The subscription is for another sender.")
        try:
            r, s = (int.from_bytes(_raw(signature)[at : at + 32]) for at in (0, 32))
            public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), _raw(key))
            public.verify(encode_dss_signature(r, s), f"{header}.{claims}".encode(), ec.ECDSA(SHA256()))
            said, algorithm = json.loads(_raw(claims)), json.loads(_raw(header))["alg"]
        except (InvalidSignature, ValueError, binascii.Error):
            raise Refused(403, "forbidden", "The VAPID token is not signed by that key.") from None
        origin = "{0.scheme}://{0.netloc}".format(urlsplit(self.public_url))
        lives = said.get("exp", 0) - time.time()
        if algorithm != "ES256" or said.get("aud") != origin or not 0 < lives <= DAY:
            raise Refused(403, "forbidden", "The VAPID token is for another service, or its time is over.")
        if not re.match(r"(mailto:.+@|https://)", said.get("sub", "")):
            raise Refused(403, "forbidden", "The VAPID token does not say whom to write to.")


def _decrypted(body: bytes, *, private: int, auth: bytes) -> bytes:
    """RFC 8188's header of salt, record size and key; then one record, for the key that RFC 8291 derives."""
    salt, (record_size, length) = body[:16], struct.unpack("!LB", body[16:21])
    theirs, sealed = body[21 : 21 + length], body[21 + length :]
    if len(sealed) > record_size:
        raise Refused(400, "encryption", "A push message is one record.")
    ours = ec.derive_private_key(private, ec.SECP256R1())
    try:
        shared = ours.exchange(
            ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs)
        )
        info = b"WebPush: info\0" + _point(ours.public_key()) + theirs
        secret = HKDF(SHA256(), 32, salt=auth, info=info).derive(shared)
        key = HKDF(SHA256(), 16, salt=salt, info=b"Content-Encoding: aes128gcm\0").derive(secret)
        nonce = HKDF(SHA256(), 12, salt=salt, info=b"Content-Encoding: nonce\0").derive(secret)
        plain = AESGCM(key).decrypt(nonce, sealed, None)
    except (ValueError, InvalidTag):
        raise Refused(400, "encryption", "It is not encrypted for this browser.") from None
    message, end, padding = plain.rpartition(b"\x02")
    if not end or padding.strip(b"\0"):
        raise Refused(400, "encryption", "The last record does not end as it must.")
    return message


def _point(key: ec.EllipticCurvePublicKey) -> bytes:
    return key.public_bytes(Encoding.X962, PublicFormat.UncompressedPoint)


def _text(raw: bytes) -> str:
    return base64.urlsafe_b64encode(raw).decode().rstrip("=")


def _raw(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
