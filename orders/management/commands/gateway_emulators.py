"""Run the providers that the demo pays with: the sandbox, and the emulators of real ones that are configured."""

import signal
import sqlite3
import threading
from argparse import ArgumentParser
from types import FrameType

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError

from emulators.books import books_beside
from emulators.keys import public_half
from emulators.server import Emulator, Listening, is_loopback
from emulators.together import Together
from orders.gateways.alipay import AlipayGateway
from orders.gateways.btcpay import BtcpayGateway
from orders.gateways.emulators.alipay import Alipay
from orders.gateways.emulators.btcpay import Btcpay
from orders.gateways.emulators.nowpayments import Nowpayments
from orders.gateways.emulators.paypal import PayPal
from orders.gateways.emulators.sandbox import Sandbox
from orders.gateways.emulators.stripe import Stripe
from orders.gateways.emulators.wechat import Wechat
from orders.gateways.nowpayments import NowpaymentsGateway
from orders.gateways.paypal import PayPalGateway
from orders.gateways.sandbox import SandboxGateway
from orders.gateways.stripe import StripeGateway
from orders.gateways.wechat import WechatGateway


class Command(BaseCommand):
    help = (
        "Run the payment provider of the sandbox gateway, and below it the emulators of the real providers whose "
        "settings lead there: payments without money, for the demo and for tests."
    )
    # It shares nothing with the shop but the settings.
    requires_system_checks: tuple[str, ...] = ()

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument("--host", default="127.0.0.1", help="address to listen on (default: %(default)s)")
        parser.add_argument("--port", type=int, default=8001, help="port to listen on (default: %(default)s)")
        parser.add_argument(
            "--books",
            default=str(settings.VAR_DIR / "sandbox-gateway.sqlite3"),
            help="file that keeps the sandbox's payments, or :memory:; the others have files beside it "
            "(default: %(default)s)",
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
        if missing := SandboxGateway().missing():
            raise CommandError(f"These settings are missing or of no use: {', '.join(missing)}.")
        try:
            emulator = Together(
                Sandbox(
                    key=settings.SANDBOX_GATEWAY_KEY, secret=settings.SANDBOX_WEBHOOK_SECRET, books=books
                ),
                _others(books),
            )
        except ValueError as error:
            raise CommandError(f"SANDBOX_WEBHOOK_SECRET or EMULATOR_PRIVATE_KEY: {error}") from None
        except sqlite3.Error as error:
            raise CommandError(f"Cannot keep books in {books}: {error}.") from None
        try:
            listening = Listening(emulator, host=host, port=port, public_url=settings.SANDBOX_GATEWAY_URL)
        except (OSError, OverflowError) as error:
            raise CommandError(f"Cannot listen on {host}, port {port}: {error}.") from None

        stopping = threading.Event()

        def stop(_signal: int, _frame: FrameType | None) -> None:
            stopping.set()

        signal.signal(signal.SIGTERM, stop)
        signal.signal(signal.SIGINT, stop)
        with listening:
            self.stdout.write(
                f"The sandbox gateway listens on {listening.url} and keeps its books in {books}."
            )
            self.stdout.flush()
            stopping.wait()
        self.stdout.write("The sandbox gateway has stopped.")


def _others(books: str) -> dict[str, Emulator]:
    """The emulators of real providers, by the name below which their settings lead to the sandbox's address."""
    base = settings.SANDBOX_GATEWAY_URL
    emulators: dict[str, Emulator] = {}
    if f"{base}/paypal" == settings.PAYPAL_URL and not PayPalGateway().missing():
        emulators["paypal"] = PayPal(
            client_id=settings.PAYPAL_CLIENT_ID,
            client_secret=settings.PAYPAL_CLIENT_SECRET,
            webhook_id=settings.PAYPAL_WEBHOOK_ID,
            webhook_url=f"{settings.SITE_URL}/webhooks/paypal/",
            books=books_beside(books, "paypal"),
        )
    if f"{base}/stripe" == settings.STRIPE_URL and not StripeGateway().missing():
        emulators["stripe"] = Stripe(
            key=settings.STRIPE_SECRET_KEY,
            secret=settings.STRIPE_WEBHOOK_SECRET,
            webhook_url=f"{settings.SITE_URL}/webhooks/stripe/",
            books=books_beside(books, "stripe"),
        )
    if f"{base}/nowpayments" == settings.NOWPAYMENTS_URL and not NowpaymentsGateway().missing():
        emulators["nowpayments"] = Nowpayments(
            key=settings.NOWPAYMENTS_API_KEY,
            secret=settings.NOWPAYMENTS_IPN_SECRET,
            email=settings.NOWPAYMENTS_EMAIL,
            password=settings.NOWPAYMENTS_PASSWORD,
            books=books_beside(books, "nowpayments"),
        )
    if f"{base}/btcpay" == settings.BTCPAY_URL and not BtcpayGateway().missing():
        emulators["btcpay"] = Btcpay(
            key=settings.BTCPAY_API_KEY,
            store_id=settings.BTCPAY_STORE_ID,
            secret=settings.BTCPAY_WEBHOOK_SECRET,
            webhook_url=f"{settings.SITE_URL}/webhooks/btcpay/",
            books=books_beside(books, "btcpay"),
        )
    if f"{base}/alipay/gateway.do" == settings.ALIPAY_URL and not AlipayGateway().missing():
        emulators["alipay"] = Alipay(
            key=settings.SANDBOX_GATEWAY_KEY,
            app_id=settings.ALIPAY_APP_ID,
            seller_id=settings.ALIPAY_SELLER_ID,
            app_public_key=public_half(settings.ALIPAY_PRIVATE_KEY),
            private_key=settings.EMULATOR_PRIVATE_KEY,
            books=books_beside(books, "alipay"),
        )
    if f"{base}/wechat" == settings.WECHAT_URL and not WechatGateway().missing():
        emulators["wechat"] = Wechat(
            key=settings.SANDBOX_GATEWAY_KEY,
            merchant_id=settings.WECHAT_MERCHANT_ID,
            app_id=settings.WECHAT_APP_ID,
            certificate_serial=settings.WECHAT_CERTIFICATE_SERIAL,
            merchant_public_key=public_half(settings.WECHAT_PRIVATE_KEY),
            api_v3_key=settings.WECHAT_API_V3_KEY,
            private_key=settings.EMULATOR_PRIVATE_KEY,
            public_key_id=settings.WECHAT_PUBLIC_KEY_ID,
            books=books_beside(books, "wechat"),
        )
    return emulators
