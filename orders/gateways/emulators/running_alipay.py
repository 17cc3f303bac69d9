"""Alipay's emulator within this process, for tests.

with running_alipay(app_id="…", seller_id="2088…", app_public_key="…", private_key="…") as alipay:
    settings.ALIPAY_URL = alipay.gateway_url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from orders.gateways.emulators.alipay import Alipay, Outcome
from orders.gateways.emulators.running import SHORT_BACKOFF
from orders.gateways.emulators.server import Listening

KEY = "key-of-the-testers"


@dataclass(frozen=True, slots=True)
class RunningAlipay:
    """The emulator at `url`, and what a tester does with it, by the same HTTP that anybody else would use."""

    url: str
    _emulator: Alipay

    @property
    def gateway_url(self) -> str:
        return f"{self.url}/gateway.do"

    def arrive(self, pay_url: str) -> httpx.Response:
        """Follow the shop's address to the cashier, and decide nothing yet."""
        return httpx.get(pay_url, follow_redirects=True, trust_env=False)

    def decide(self, pay_url: str, outcome: Outcome = Outcome.PAY) -> httpx.Response:
        """Arrive and press a button; the answer is a redirect, not followed. What is refused at the door ends there."""
        cashier = self.arrive(pay_url)
        if not cashier.is_success:
            return cashier
        return httpx.post(cashier.url.copy_with(query=None), data={"outcome": outcome.value}, trust_env=False)

    def set_faults(self, **faults: float) -> None:
        """See `faults.Faults`. The cashier and the bills have none."""
        self._ask("POST", "/_faults", json=faults)

    def books(self) -> Any:
        """All trades and refunds, and all deliveries of notices."""
        return self._ask("GET", "/_books").json()

    def wait_for_webhooks(self, seconds: float = 10) -> None:
        """Wait until none is on its way, retries included. Raises TimeoutError."""
        if not self._emulator.deliveries.wait_until_idle(seconds):
            raise TimeoutError(f"Notices are still on their way after {seconds} s.")

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        headers = {"Authorization": f"Bearer {KEY}"}
        with httpx.Client(trust_env=False, timeout=70) as client:
            return client.request(method, self.url + path, headers=headers, **arguments).raise_for_status()


@contextmanager
def running_alipay(
    *,
    app_id: str,
    seller_id: str,
    app_public_key: str,
    private_key: str,
    books: str = ":memory:",
    backoff: Sequence[float] = SHORT_BACKOFF,
) -> Iterator[RunningAlipay]:
    """Alipay on a free port of the loopback interface."""
    emulator = Alipay(
        key=KEY,
        app_id=app_id,
        seller_id=seller_id,
        app_public_key=app_public_key,
        private_key=private_key,
        books=books,
        backoff=backoff,
    )
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningAlipay(listening.url, emulator)
