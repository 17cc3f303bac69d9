"""Run the demo's phone: the emulators of all who carry messages to one, as far as the settings lead there."""

import secrets
import signal
import sqlite3
import threading
from argparse import ArgumentParser
from types import FrameType

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from emulators.books import books_beside
from emulators.server import Listening, is_loopback
from emulators.together import Together
from notices.channels import CHANNELS
from notices.channels.emulators.app import AppServer
from notices.channels.emulators.carrier import Carrier
from notices.channels.emulators.phone import Phone
from notices.channels.emulators.push import PushService
from notices.channels.emulators.sms import AlibabaShaped, TwilioShaped
from notices.channels.emulators.wechat import WechatAccount


class Command(BaseCommand):
    help = (
        "Run a phone that gets what the shop sends by push, app, WeChat and text message: emulators of those who "
        "carry it, for the demo and for tests, and a page that shows what arrived."
    )
    # It shares nothing with the shop but the settings.
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8002, help="port to listen on (default: %(default)s)")
        parser.add_argument(
            "--books",
            default=str(settings.VAR_DIR / "phone.sqlite3"),
            help="file whose name the files of all emulators begin with, or :memory: (default: %(default)s)",
        )
        parser.add_argument(
            "--any-host",
            action="store_true",
            help="allow a host that other machines can reach, as in a container",
        )

    def handle(
        self, *_args: object, host: str, port: int, books: str, any_host: bool, **_options: object
    ) -> None:
        if not (is_loopback(host) or any_host):
            raise CommandError(
                f"{host} can be reached from other machines. If that is wanted, say --any-host."
            )
        if not settings.PHONE_URL:
            raise CommandError("PHONE_URL is missing: the address of this phone.")
        try:
            carriers = _carriers(books)
            phone = Phone(key=_key(), books=books, shop=settings.SITE_URL, carriers=carriers)
        except sqlite3.Error as error:
            raise CommandError(f"Cannot keep books in {books}: {error}.") from None
        try:
            listening = Listening(
                Together(phone, carriers), host=host, port=port, public_url=settings.PHONE_URL
            )
        except (OSError, OverflowError) as error:
            raise CommandError(f"Cannot listen on {host}, port {port}: {error}.") from None

        stopping = threading.Event()

        def stop(_signal: int, _frame: FrameType | None) -> None:
            stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        with listening:
            self.stdout.write(f"The phone listens on {listening.url}: {', '.join(carriers) or 'nothing'}.")
            self.stdout.flush()
            stopping.wait()
        self.stdout.write("The phone has stopped.")


def _carriers(books: str) -> dict[str, Carrier]:
    """Those whose settings lead to the phone, by the name below which they are reached."""
    base, shop = settings.PHONE_URL, settings.SITE_URL
    carriers: dict[str, Carrier] = {}

    def leads_here(name: str, url: str) -> bool:
        return url.startswith(f"{base}/{name}") and not CHANNELS[name].missing()

    if any(leads_here("push", host) for host in settings.PUSH_HOSTS):
        carriers["push"] = PushService(key=_key(), books=books_beside(books, "push"))
    if leads_here("app", settings.APP_PUSH_URL):
        carriers["app"] = AppServer(
            key=_key(), secret=settings.APP_PUSH_SECRET, shop=shop, books=books_beside(books, "app")
        )
    if leads_here("wechat", settings.WECHAT_OA_URL):
        carriers["wechat"] = WechatAccount(
            key=_key(),
            app_id=settings.WECHAT_OA_APP_ID,
            secret=settings.WECHAT_OA_SECRET,
            template_id=settings.WECHAT_OA_TEMPLATE_ID,
            token=settings.WECHAT_OA_TOKEN,
            aes_key=settings.WECHAT_OA_AES_KEY,
            message_server=f"{shop}/messages/callbacks/wechat/",
            books=books_beside(books, "wechat"),
        )
    if leads_here("sms", settings.SMS_URL):
        account, secret = settings.SMS_ACCOUNT, settings.SMS_SECRET
        if settings.SMS_PROVIDER == "twilio":
            carriers["sms"] = TwilioShaped(
                key=_key(), account=account, secret=secret, books=books_beside(books, "sms")
            )
        else:
            carriers["sms"] = AlibabaShaped(
                key=_key(),
                account=account,
                secret=secret,
                sign_name=settings.SMS_SENDER,
                templates={settings.SMS_TEMPLATE: "text", settings.SMS_CODE_TEMPLATE: "code"},
                reports_url=f"{shop}/messages/callbacks/sms/{settings.SMS_REPORT_TOKEN}/",
                books=books_beside(books, "sms"),
            )
    return carriers


def _key() -> str:
    """What opens the emulators' knobs; without one, nothing does."""
    return settings.PHONE_KEY or secrets.token_urlsafe(24)
