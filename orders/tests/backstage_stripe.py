"""Stripe's side of a test."""

from collections.abc import Iterator
from contextlib import contextmanager

from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.running_stripe import RunningStripe, running_stripe
from orders.gateways.emulators.stripe import Outcome
from orders.tests.gateway_contract import Backstage

STRIPE_KEY = "sk_test_keyOfTheTests0123456789"
STRIPE_SECRET = "whsec_secretOfTheStripeTests0123456789"


class StripeBackstage(Backstage):
    amount = Money(4990, "USD")
    unknown_id = "cs_test_" + "0" * 48

    def __init__(self, stripe: RunningStripe, settings: Settings) -> None:
        self._stripe = stripe
        self._settings = settings

    def pay(self, pay_url: str) -> None:
        self._stripe.decide(pay_url)

    def decline(self, pay_url: str) -> None:
        """Fail for good. A card that is declined decides nothing at Stripe: the buyer may try another one."""
        self._stripe.decide(pay_url, Outcome.FAIL)

    def payments(self) -> int:
        return len(self._stripe.books()["sessions"])

    def fail_next(self, times: int) -> None:
        self._stripe.set_faults(errors=times)

    def lose_next_answer(self) -> None:
        self._stripe.set_faults(lost_answers=1)

    def refuse_us(self) -> None:
        self._settings.STRIPE_SECRET_KEY = "sk_test_notTheKeyOfTheTests"


@contextmanager
def configured_stripe(settings: Settings, *, books: str = ":memory:") -> Iterator[RunningStripe]:
    """Stripe, running, and settings that lead to it. Webhooks go to what SITE_URL is now."""
    with running_stripe(
        key=STRIPE_KEY,
        secret=STRIPE_SECRET,
        webhook_url=f"{settings.SITE_URL}/webhooks/stripe/",
        books=books,
    ) as stripe:
        settings.ALLOW_EMULATORS = True
        settings.STRIPE_URL = stripe.url
        settings.STRIPE_SECRET_KEY = STRIPE_KEY
        settings.STRIPE_WEBHOOK_SECRET = STRIPE_SECRET
        yield stripe


@contextmanager
def stripe_backstage(settings: Settings) -> Iterator[Backstage]:
    with configured_stripe(settings) as stripe:
        yield StripeBackstage(stripe, settings)
