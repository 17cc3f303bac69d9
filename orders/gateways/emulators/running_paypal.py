"""PayPal's emulator within this process, for tests.

with running_paypal(webhook_url="http://127.0.0.1:8000/webhooks/paypal/", …) as paypal:
    settings.PAYPAL_URL = paypal.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from emulators.running import SHORT_BACKOFF, Running
from emulators.server import Listening
from orders.gateways.emulators.paypal import Outcome, PayPal


class RunningPayPal(Running):
    """PayPal, whose key is the client's secret. Its token endpoint has no faults."""

    __slots__ = ()

    def decide(self, pay_url: str, outcome: Outcome = Outcome.APPROVE) -> httpx.Response:
        """Press a button on the approval page; the answer is a redirect, not followed."""
        return httpx.post(pay_url, data={"outcome": outcome.value}, trust_env=False)

    def take_tokens_back(self) -> None:
        """Let every access token be refused from now on."""
        self._ask("DELETE", "/_tokens")


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
