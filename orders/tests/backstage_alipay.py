"""Alipay's side of a test."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache

from pytest_django import Settings

from emulators.keys import new_keys
from inventory.money import Money
from orders.gateways.emulators.alipay import Outcome
from orders.gateways.emulators.running_alipay import RunningAlipay, running_alipay
from orders.models import AttemptState
from orders.tests.gateway_contract import Backstage

ALIPAY_APP_ID = "2021000000000001"
ALIPAY_SELLER_ID = "2088000000000001"


@cache
def shop_keys() -> tuple[str, str]:
    """Private and public. Made once: it takes a while."""
    return new_keys()


@cache
def alipay_keys() -> tuple[str, str]:
    return new_keys()


class AlipayBackstage(Backstage):
    amount = Money(4990, "CNY")
    unknown_id = "T-NOBODY"
    # A card that is refused leaves the payment open for another one.
    state_of_declined: str = AttemptState.PENDING

    def __init__(self, alipay: RunningAlipay, settings: Settings) -> None:
        self._alipay = alipay
        self._settings = settings

    def arrive(self, pay_url: str) -> None:
        """Be the buyer who comes to the page and decides nothing yet: with it the trade begins."""
        self._alipay.arrive(pay_url)

    def pay(self, pay_url: str) -> None:
        self._alipay.decide(pay_url)

    def decline(self, pay_url: str) -> None:
        self._alipay.decide(pay_url, Outcome.REFUSE_CARD)

    def payments(self) -> int:
        return len(self._alipay.books()["trades"])

    def fail_next(self, times: int) -> None:
        self._alipay.set_faults(errors=times)

    def lose_next_answer(self) -> None:
        self._alipay.set_faults(lost_answers=1)

    def refuse_us(self) -> None:
        self._settings.ALIPAY_APP_ID = "2021000000000002"


def alipay_settings(settings: Settings, url: str) -> None:
    settings.ALLOW_EMULATORS = True
    settings.ALIPAY_URL = url
    settings.ALIPAY_APP_ID = ALIPAY_APP_ID
    settings.ALIPAY_SELLER_ID = ALIPAY_SELLER_ID
    settings.ALIPAY_PRIVATE_KEY = shop_keys()[0]
    settings.ALIPAY_PUBLIC_KEY = alipay_keys()[1]


@contextmanager
def configured_alipay(settings: Settings, *, books: str = ":memory:") -> Iterator[RunningAlipay]:
    """Alipay, running, and settings that lead to it. Notices go to what SITE_URL is when a payment is opened."""
    with running_alipay(
        app_id=ALIPAY_APP_ID,
        seller_id=ALIPAY_SELLER_ID,
        app_public_key=shop_keys()[1],
        private_key=alipay_keys()[0],
        books=books,
    ) as alipay:
        alipay_settings(settings, alipay.gateway_url)
        yield alipay


@contextmanager
def alipay_backstage(settings: Settings) -> Iterator[Backstage]:
    with configured_alipay(settings) as alipay:
        yield AlipayBackstage(alipay, settings)
