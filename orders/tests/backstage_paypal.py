"""PayPal's side of a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.paypal import Outcome
from orders.gateways.emulators.running_paypal import RunningPayPal, running_paypal
from orders.gateways.paypal import PayPalGateway
from orders.tests.gateway_contract import Backstage

PAYPAL_CLIENT_ID = "client-of-the-tests"
PAYPAL_CLIENT_SECRET = "client-secret-of-the-tests"
PAYPAL_WEBHOOK_ID = "0WEBHOOK0OF0TESTS"


class PayPalBackstage(Backstage):
    amount = Money(4990, "USD")
    unknown_id = "0000000000000000A"

    def __init__(self, paypal: RunningPayPal, settings: Settings) -> None:
        self._paypal = paypal
        self._settings = settings

    def pay(self, pay_url: str) -> None:
        """Approve and go back to the shop, which asks what became of the order, and so collects the money."""
        self._come_back(pay_url, Outcome.APPROVE)

    def decline(self, pay_url: str) -> None:
        self._come_back(pay_url, Outcome.DECLINE)

    def payments(self) -> int:
        return len(self._paypal.books()["orders"])

    def fail_next(self, times: int) -> None:
        self._paypal.set_faults(errors=times)

    def lose_next_answer(self) -> None:
        self._paypal.set_faults(lost_answers=1)

    def refuse_us(self) -> None:
        self._settings.PAYPAL_CLIENT_SECRET = "not-the-secret"

    def _come_back(self, pay_url: str, outcome: Outcome) -> None:
        self._paypal.decide(pay_url, outcome)
        PayPalGateway().fetch(reference="", provider_id=pay_url.rpartition("token=")[2])


@contextmanager
def configured_paypal(settings: Settings, *, books: str = ":memory:") -> Iterator[RunningPayPal]:
    """PayPal, running, and settings that lead to it. Webhooks go to what SITE_URL is now."""
    with running_paypal(
        client_id=PAYPAL_CLIENT_ID,
        client_secret=PAYPAL_CLIENT_SECRET,
        webhook_id=PAYPAL_WEBHOOK_ID,
        webhook_url=f"{settings.SITE_URL}/webhooks/paypal/",
        books=books,
    ) as paypal:
        settings.ALLOW_EMULATORS = True
        settings.PAYPAL_URL = paypal.url
        settings.PAYPAL_CLIENT_ID = PAYPAL_CLIENT_ID
        settings.PAYPAL_CLIENT_SECRET = PAYPAL_CLIENT_SECRET
        settings.PAYPAL_WEBHOOK_ID = PAYPAL_WEBHOOK_ID
        yield paypal


@contextmanager
def paypal_backstage(settings: Settings) -> Iterator[Backstage]:
    with configured_paypal(settings) as paypal:
        yield PayPalBackstage(paypal, settings)
