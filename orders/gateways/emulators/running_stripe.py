"""Stripe's emulator within this process, for tests.

with running_stripe(key="sk_test_…", secret="whsec_…", webhook_url="http://…/webhooks/stripe/") as stripe:
    settings.STRIPE_URL = stripe.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from orders.gateways.emulators.running import SHORT_BACKOFF
from orders.gateways.emulators.server import Listening
from orders.gateways.emulators.stripe import Outcome, Stripe


@dataclass(frozen=True, slots=True)
class RunningStripe:
    """The emulator at `url`, and what a tester does with it, by the same HTTP that anybody else would use."""

    url: str
    key: str
    _emulator: Stripe

    def decide(self, pay_url: str, outcome: Outcome = Outcome.PAY) -> httpx.Response:
        """Press a button on the payment page; the answer is a redirect, not followed."""
        return httpx.post(pay_url, data={"outcome": outcome.value}, trust_env=False)

    def set_faults(self, **faults: float) -> None:
        """See `faults.Faults`."""
        self._ask("POST", "/_faults", json=faults)

    def books(self) -> Any:
        """All sessions, charges, refunds, disputes, lines of the balance and webhook deliveries."""
        return self._ask("GET", "/_books").json()

    def wait_for_webhooks(self, seconds: float = 10) -> None:
        """Wait until none is on its way, retries included. Raises TimeoutError."""
        if not self._emulator.deliveries.wait_until_idle(seconds):
            raise TimeoutError(f"Webhooks are still on their way after {seconds} s.")

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {self.key}"}
        with httpx.Client(trust_env=False, timeout=70) as client:
            return client.request(method, self.url + path, headers=headers, **arguments).raise_for_status()


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
