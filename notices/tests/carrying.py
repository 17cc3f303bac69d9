"""What the tests of the channels to phones share: messages on their way, and providers that answer as they are told."""

import json
import queue
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, NamedTuple

from django.test import Client
from pytest_django import Settings

from accounts.models import User
from notices.channels.emulators.app import AppServer
from notices.channels.emulators.push import PushService
from notices.channels.emulators.running import KEY, SHORT_BACKOFF, RunningCarrier, running
from notices.channels.emulators.sms import AlibabaShaped, TwilioShaped
from notices.channels.emulators.wechat import WechatAccount
from notices.channels.protocol import Accepted, Channel, Outgoing
from notices.channels.push import public_key
from notices.kinds import PAYMENT_RECEIVED
from notices.models import ContactPoint
from notices.tests.samples import NOW

SUBJECT = "Payment received for order VP-7K2M"
VAPID_KEY = "q1dXpw3UpT5VOmu_cf_v6ih07Aems3njxI-JWgLcM94"
APP_SECRET = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"
APP_ID = "wx0123456789abcdef"
AES_KEY = "abcdefghijklmnopqrstuvwxyz0123456789ABCDEFG"
TEMPLATE = "template-1"
ALIBABA_TOKEN = "token-of-the-reports"


def outgoing(address: str, **fields: Any) -> Outgoing:
    return Outgoing(
        **{
            "delivery_id": 17,
            "message_id": 1,
            "recipient_id": 1,
            "address": address,
            "details": {},
            "about": "VP-7K2M",
            "kind": PAYMENT_RECEIVED,
            "language": "en",
            "subject": SUBJECT,
            "body": SUBJECT,
            "url": "/orders/VP-7K2M/",
            **fields,
        }
    )


def hand_over(channel: Channel, message: Outgoing) -> Accepted:
    """As the outbox does it: the words are fitted, then sent as they are."""
    return channel.send(channel.fitted(message), now=NOW)


def proved_phone(owner: User, number: str = "+85251234567") -> ContactPoint:
    point: ContactPoint = ContactPoint.objects.create(
        customer=owner, channel="sms", address=number, created_at=NOW, verified_at=NOW
    )
    return point


# --- emulators ---------------------------------------------------------------------------------------


@contextmanager
def running_push(settings: Settings) -> Iterator[RunningCarrier]:
    settings.ALLOW_EMULATORS = True
    settings.PUSH_VAPID_PRIVATE_KEY, settings.PUSH_VAPID_SUBJECT = VAPID_KEY, "mailto:push@shop.example"
    with running(PushService(key=KEY, books=":memory:")) as carrier:
        settings.PUSH_HOSTS = [f"{carrier.url}/push"]
        yield carrier


def subscribe(push_service: RunningCarrier) -> dict[str, Any]:
    """A browser's subscription for the shop's key."""
    subscription: dict[str, Any] = push_service.ask(
        "POST", "/subscriptions", json={"applicationServerKey": public_key()}
    )
    return subscription


@contextmanager
def running_app(settings: Settings, *, shop: str = "http://127.0.0.1:9") -> Iterator[RunningCarrier]:
    settings.ALLOW_EMULATORS = True
    settings.APP_PUSH_SECRET = APP_SECRET
    server = AppServer(key=KEY, secret=APP_SECRET, shop=shop, books=":memory:", backoff=SHORT_BACKOFF)
    with running(server) as carrier:
        settings.APP_PUSH_URL, settings.APP_BIND_URL = f"{carrier.url}/messages", f"{carrier.url}/bind"
        yield carrier


@contextmanager
def running_wechat(settings: Settings, *, shop: str = "http://127.0.0.1:9") -> Iterator[RunningCarrier]:
    settings.ALLOW_EMULATORS = True
    settings.WECHAT_OA_APP_ID, settings.WECHAT_OA_SECRET = APP_ID, "secret"
    settings.WECHAT_OA_TOKEN, settings.WECHAT_OA_AES_KEY = "token", AES_KEY
    settings.WECHAT_OA_TEMPLATE_ID = TEMPLATE
    account = WechatAccount(
        key=KEY,
        app_id=APP_ID,
        secret="secret",
        template_id=TEMPLATE,
        token="token",
        aes_key=AES_KEY,
        message_server=f"{shop}/messages/callbacks/wechat/",
        books=":memory:",
        backoff=SHORT_BACKOFF,
    )
    with running(account) as carrier:
        settings.WECHAT_OA_URL = settings.WECHAT_OA_CONNECT_URL = carrier.url
        yield carrier


@contextmanager
def running_twilio(settings: Settings, *, shop: str = "http://127.0.0.1:9") -> Iterator[RunningCarrier]:
    settings.ALLOW_EMULATORS, settings.SITE_URL = True, shop
    settings.SMS_PROVIDER, settings.SMS_SENDER = "twilio", "+15005550006"
    settings.SMS_ACCOUNT, settings.SMS_SECRET = "AC1", "auth-token"
    texts = TwilioShaped(key=KEY, account="AC1", secret="auth-token", books=":memory:", backoff=SHORT_BACKOFF)
    with running(texts) as carrier:
        settings.SMS_URL = carrier.url
        yield carrier


@contextmanager
def running_alibaba(settings: Settings, *, shop: str = "http://127.0.0.1:9") -> Iterator[RunningCarrier]:
    settings.ALLOW_EMULATORS, settings.SITE_URL = True, shop
    settings.SMS_PROVIDER, settings.SMS_SENDER = "alibaba", "云手机"
    settings.SMS_ACCOUNT, settings.SMS_SECRET = "LTAI1", "access-key-secret"
    settings.SMS_TEMPLATE, settings.SMS_CODE_TEMPLATE = "SMS_1", "SMS_2"
    settings.SMS_REPORT_TOKEN = ALIBABA_TOKEN
    texts = AlibabaShaped(
        key=KEY,
        account="LTAI1",
        secret="access-key-secret",
        sign_name="云手机",
        templates={"SMS_1": "text", "SMS_2": "code"},
        reports_url=f"{shop}/messages/callbacks/sms/{ALIBABA_TOKEN}/",
        books=":memory:",
        backoff=SHORT_BACKOFF,
    )
    with running(texts) as carrier:
        settings.SMS_URL = carrier.url
        yield carrier


# --- a provider that answers as it is told ---------------------------------------------------------


class Scripted(HTTPServer):
    """Answers everything with `status`, `headers` and `content`; None for a status: it hangs up."""

    status: int | None = 200
    headers: Mapping[str, str] = {}
    content: object = None

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(BaseHTTPRequestHandler):
    server: Scripted

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", "0")))
        if self.server.status is None:
            return
        body = b"" if self.server.content is None else json.dumps(self.server.content).encode()
        self.send_response(self.server.status)
        for name, value in self.server.headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def scripted() -> Iterator[Scripted]:
    with Scripted(("127.0.0.1", 0), _Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def nobody_there() -> str:
    """An address at which nothing listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return f"http://127.0.0.1:{probe.getsockname()[1]}"


# --- what providers tell us --------------------------------------------------------------------------


class Told(NamedTuple):
    path: str
    headers: Mapping[str, str]
    body: bytes

    def to(self, client: Client) -> Any:
        """Bring it to the shop's door, as it came."""
        return client.post(
            self.path, self.body, content_type=self.headers["Content-Type"], headers=self.headers
        )


class Listener(HTTPServer):
    """Stands where the shop is, and keeps what it is told."""

    told: "queue.SimpleQueue[Told]"

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Ear(BaseHTTPRequestHandler):
    server: Listener

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", "0")))
        self.server.told.put(Told(self.path, dict(self.headers.items()), body))
        self.send_response(200)
        self.send_header("Content-Length", "0")
        self.end_headers()

    def log_message(self, *_: object) -> None:
        pass


@contextmanager
def listening() -> Iterator[Listener]:
    with Listener(("127.0.0.1", 0), _Ear) as server:
        server.told = queue.SimpleQueue()
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.02})
        thread.start()
        yield server
        server.shutdown()
        thread.join()
