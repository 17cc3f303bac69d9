"""Stripe's emulator within this process, for tests.

with running_stripe(key="sk_test_…", secret="whsec_…", webhook_url="http://…/webhooks/stripe/") as stripe:
    settings.STRIPE_URL = stripe.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from emulators.running import SHORT_BACKOFF, Running
from emulators.server import Listening
from orders.gateways.emulators.stripe import Outcome, Stripe


class RunningStripe(Running):
    """Stripe."""

    __slots__ = ()

    def decide(self, pay_url: str, outcome: Outcome = Outcome.PAY) -> httpx.Response:
        """Press a button on the payment page; the answer is a redirect, not followed."""
        return httpx.post(pay_url, data={"outcome": outcome.value}, trust_env=False)


@contextmanager
def running_stripe(
    *,
    key: str,
    secret: str,
    webhook_url: str,
    books: str = ":memory:",
    backoff: Sequence[float] = SHORT_BACKOFF,
) -> Iterator[RunningStripe]:
    """Stripe on a free port of the loopback interface."""
    emulator = Stripe(key=key, secret=secret, webhook_url=webhook_url, books=books, backoff=backoff)
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningStripe(listening.url, key, emulator)
