"""NOWPayments behind the scenes of the contract test."""

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.chain import Deed
from orders.gateways.emulators.running_nowpayments import RunningNowpayments, running_nowpayments
from orders.tests.gateway_contract import Backstage

KEY = "nowpayments-key-of-the-tests"
SECRET = "nowpayments-secret-of-the-tests"
EMAIL = "shop@example.com"
PASSWORD = "nowpayments-password-of-the-tests"


class NowpaymentsBackstage(Backstage):
    """Coins are sent to the payment that was opened last: there is no page with an address of its own."""

    amount = Money(4990, "USD")
    unknown_id = "4000000000"

    def __init__(self, provider: RunningNowpayments, settings: Settings) -> None:
        self._provider = provider
        self._settings = settings

    def pay(self, pay_url: str) -> None:
        self._provider.do(self._last(), Deed.PAY)

    def decline(self, pay_url: str) -> None:
        self._provider.do(self._last(), Deed.FAIL)

    def payments(self) -> int:
        return len(self._provider.books()["payments"])

    def fail_next(self, times: int) -> None:
        self._provider.set_faults(errors=times)

    def lose_next_answer(self) -> None:
        self._provider.set_faults(lost_answers=1)

    def refuse_us(self) -> None:
        self._settings.NOWPAYMENTS_API_KEY = "not-the-key"

    def _last(self) -> str:
        payments = [payment for payment in self._provider.books()["payments"] if not payment["parent"]]
        return str(payments[-1]["id"])


@contextmanager
def configured_nowpayments(settings: Settings, *, books: str = ":memory:") -> Iterator[RunningNowpayments]:
    """A running provider, and settings that lead to it."""
    with running_nowpayments(key=KEY, secret=SECRET, email=EMAIL, password=PASSWORD, books=books) as provider:
        configure(settings, provider.url)
        yield provider


def configure(settings: Settings, url: str) -> None:
    """Settings that lead to a provider at `url`."""
    settings.ALLOW_EMULATORS = True
    settings.NOWPAYMENTS_URL = url
    settings.NOWPAYMENTS_API_KEY = KEY
    settings.NOWPAYMENTS_IPN_SECRET = SECRET
    settings.NOWPAYMENTS_EMAIL = EMAIL
    settings.NOWPAYMENTS_PASSWORD = PASSWORD


@contextmanager
def nowpayments_backstage(settings: Settings) -> Iterator[Backstage]:
    with configured_nowpayments(settings) as provider:
        yield NowpaymentsBackstage(provider, settings)
