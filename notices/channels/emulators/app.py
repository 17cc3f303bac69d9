"""The server of the platform's mobile app, with one phone that has the app.

POST /messages          signed as Standard Webhooks prescribe: a message to a device
GET|POST /bind?token=…  what the app shows when it has scanned the shop's code
POST /uninstall         the phone loses the app
"""

import base64
import hashlib
import hmac
import json
import secrets
import time
from collections.abc import Mapping, Sequence

from django.utils.translation import override
from werkzeug.exceptions import BadRequest
from werkzeug.routing import Rule
from werkzeug.utils import redirect
from werkzeug.wrappers import Request, Response

from emulators.deliveries import BACKOFF
from emulators.server import POLICY, Refused, answer, page, read_object
from notices.channels.emulators.carrier import Carrier
from notices.channels.emulators.languages import language_of

PHONE_NAME = "Demo phone"
AGE = 300


class AppServer(Carrier):
    """`secret` is what both sides sign with (whsec_ and base64); `shop` where devices are bound."""

    extra = """
    CREATE TABLE IF NOT EXISTS device (token TEXT PRIMARY KEY, gone INTEGER NOT NULL);
    """

    def __init__(
        self, *, key: str, secret: str, shop: str, books: str, backoff: Sequence[float] = BACKOFF
    ) -> None:
        self._secret = base64.b64decode(secret.removeprefix("whsec_"))
        self._shop = shop
        super().__init__(key=key, books=books, backoff=backoff)

    def routes(self) -> list[Rule]:
        return [
            Rule("/messages", methods=["POST"], endpoint=self.message),
            Rule("/bind", methods=["GET"], endpoint=self.ask),
            Rule("/bind", methods=["POST"], endpoint=self.bind),
            Rule("/uninstall", methods=["POST"], endpoint=self.uninstall),
        ]

    def sign(self, webhook_id: str, body: str, is_right: bool, /) -> Mapping[str, str]:
        at = str(int(time.time()))
        return {
            "Webhook-Id": webhook_id,
            "Webhook-Timestamp": at,
            "Webhook-Signature": f"v1,{self._signature(webhook_id, at, body.encode() if is_right else b'')}",
        }

    def message(self, request: Request) -> Response:
        if self.goes_wrong():
            raise Refused(500, "internal_error", "Something went wrong.")
        body = request.get_data()
        webhook_id, at = request.headers.get("Webhook-Id", ""), request.headers.get("Webhook-Timestamp", "")
        given = request.headers.get("Webhook-Signature", "").removeprefix("v1,")
        if not hmac.compare_digest(given, self._signature(webhook_id, at, body)):
            raise Refused(401, "unauthorized", "The signature is not the shop's.")
        if not at.isdecimal() or abs(int(at) - time.time()) > AGE:
            raise Refused(401, "unauthorized", "The signature is too old.")
        content = read_object(request)
        with self.books.transaction() as db:
            device = db.execute("SELECT * FROM device WHERE token = ?", (content.get("device"),)).fetchone()
            if not device or device["gone"]:
                raise Refused(410, "gone", "There is no such device.")
            known = db.execute("SELECT 1 FROM message WHERE reference = ?", (webhook_id,)).fetchone()
            if not known:  # what comes again is not shown again
                self.keep(
                    db,
                    recipient=device["token"],
                    title=str(content["title"]),
                    text=str(content["text"]),
                    url=str(content["url"]),
                    thread=str(content["thread"]),
                    reference=webhook_id,
                    details={name: content[name] for name in ("kind", "about", "language")},
                )
        self._stopping.wait(self.faults.now().delay_seconds)
        if self.faults.happens("lost_answers"):
            raise Refused(504, "timeout", "It was taken, but nobody says so.")
        return answer({"id": f"app-{webhook_id}"})

    def ask(self, request: Request) -> Response:
        language = language_of(request)
        with override(language):
            response = page(
                "emulators/phone/bind.html", {"language": language, "token": request.args.get("token", "")}
            )
        # Browsers hold the redirect that follows a form to the policy as well.
        response.headers["Content-Security-Policy"] = f"{POLICY} {self._shop}"
        return response

    def bind(self, request: Request) -> Response:
        """The app's user wants the shop's messages on this phone."""
        token = request.form.get("token", "")
        if not token:
            raise BadRequest
        with self.books.transaction() as db:
            row = db.execute("SELECT token FROM device WHERE gone = 0").fetchone()
            device = row["token"] if row else f"device-{secrets.token_hex(12)}"
            db.execute("INSERT OR IGNORE INTO device VALUES (?, 0)", (device,))
            self._tell(db, {"device": device, "token": token, "label": PHONE_NAME})
        return redirect(f"{self._shop}/messages/contacts/", 303)

    def uninstall(self, _request: Request) -> Response:
        with self.books.transaction() as db:
            db.execute("UPDATE device SET gone = 1")
        return redirect(f"{self.public_url.removesuffix('/app')}/", 303)

    def _tell(self, db: object, content: Mapping[str, str]) -> None:
        url = f"{self._shop}/messages/callbacks/app/"
        self.deliveries.announce(db, url=url, body=json.dumps(content))  # type: ignore[arg-type]

    def _signature(self, webhook_id: str, at: str, body: bytes) -> str:
        said = f"{webhook_id}.{at}.".encode() + body
        return base64.b64encode(hmac.new(self._secret, said, hashlib.sha256).digest()).decode()
