"""PayPal's emulator within this process, for tests.

with running_paypal(webhook_url="http://127.0.0.1:8000/webhooks/paypal/", …) as paypal:
    settings.PAYPAL_URL = paypal.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from orders.gateways.emulators.paypal import Outcome, PayPal
from orders.gateways.emulators.running import SHORT_BACKOFF
from orders.gateways.emulators.server import Listening


@dataclass(frozen=True, slots=True)
class RunningPayPal:
    """The emulator at `url`, and what a tester does with it, by the same HTTP that anybody else would use."""

    url: str
    key: str
    _emulator: PayPal

    def decide(self, pay_url: str, outcome: Outcome = Outcome.APPROVE) -> httpx.Response:
        """Press a button on the approval page; the answer is a redirect, not followed."""
        return httpx.post(pay_url, data={"outcome": outcome.value}, trust_env=False)

    def set_faults(self, **faults: float) -> None:
        """See `faults.Faults`. The token endpoint has none."""
        self._ask("POST", "/_faults", json=faults)

    def take_tokens_back(self) -> None:
        """Let every access token be refused from now on."""
        self._ask("DELETE", "/_tokens")

    def books(self) -> Any:
        """All orders, with captures and refunds, all disputes and all webhook deliveries."""
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
def running_paypal(
    *,
    client_id: str,
    client_secret: str,
    webhook_id: str,
    webhook_url: str,
    books: str = ":memory:",
    backoff: Sequence[float] = SHORT_BACKOFF,
) -> Iterator[RunningPayPal]:
    """PayPal on a free port of the loopback interface."""
    emulator = PayPal(
        client_id=client_id,
        client_secret=client_secret,
        webhook_id=webhook_id,
        webhook_url=webhook_url,
        books=books,
        backoff=backoff,
    )
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningPayPal(listening.url, client_secret, emulator)
