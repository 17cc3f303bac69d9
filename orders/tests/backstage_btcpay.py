"""BTCPay Server behind the scenes of the contract test."""

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.chain import Deed
from orders.gateways.emulators.running_btcpay import RunningBtcpay, running_btcpay
from orders.tests.gateway_contract import Backstage

KEY = "btcpay-key-of-the-tests"
STORE_ID = "9CiNzKoANXxmk5ayZngSXrHTiVvvgCrwrpFQd4m2K776"
SECRET = "btcpay-secret-of-the-tests"


class BtcpayBackstage(Backstage):
    amount = Money(4990, "USD")
    unknown_id = "1111111111111111111111"

    def __init__(self, server: RunningBtcpay, settings: Settings) -> None:
        self._server = server
        self._settings = settings

    def pay(self, pay_url: str) -> None:
        self._server.do(pay_url.rpartition("/")[2], Deed.PAY)

    def decline(self, pay_url: str) -> None:
        self._server.do(pay_url.rpartition("/")[2], Deed.FAIL)

    def payments(self) -> int:
        return len(self._server.books()["invoices"])

    def fail_next(self, times: int) -> None:
        self._server.set_faults(errors=times)

    def lose_next_answer(self) -> None:
        self._server.set_faults(lost_answers=1)

    def refuse_us(self) -> None:
        self._settings.BTCPAY_API_KEY = "not-the-key"


@contextmanager
def configured_btcpay(
    settings: Settings, *, books: str = ":memory:", claims_at_once: bool = False, fee: str = "0"
) -> Iterator[RunningBtcpay]:
    """A running server whose webhooks go to SITE_URL as it is now, and settings that lead to it."""
    with running_btcpay(
        key=KEY,
        store_id=STORE_ID,
        secret=SECRET,
        webhook_url=f"{settings.SITE_URL}/webhooks/btcpay/",
        books=books,
        claims_at_once=claims_at_once,
        fee=fee,
    ) as server:
        configure(settings, server.url)
        yield server


def configure(settings: Settings, url: str) -> None:
    """Settings that lead to a server at `url`."""
    settings.ALLOW_EMULATORS = True
    settings.BTCPAY_URL = url
    settings.BTCPAY_API_KEY = KEY
    settings.BTCPAY_STORE_ID = STORE_ID
    settings.BTCPAY_WEBHOOK_SECRET = SECRET


@contextmanager
def btcpay_backstage(settings: Settings) -> Iterator[Backstage]:
    """Buyers claim their refunds at once: the contract wants to see them."""
    with configured_btcpay(settings, claims_at_once=True) as server:
        yield BtcpayBackstage(server, settings)
