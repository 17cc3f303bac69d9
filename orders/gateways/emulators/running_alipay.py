"""Alipay's emulator within this process, for tests.

with running_alipay(app_id="…", seller_id="2088…", app_public_key="…", private_key="…") as alipay:
    settings.ALIPAY_URL = alipay.gateway_url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from emulators.running import SHORT_BACKOFF, Running
from emulators.server import Listening
from orders.gateways.emulators.alipay import Alipay, Outcome

KEY = "key-of-the-testers"


class RunningAlipay(Running):
    """Alipay. Its cashier and its bills have no faults."""

    __slots__ = ()

    @property
    def gateway_url(self) -> str:
        return f"{self.url}/gateway.do"

    def arrive(self, pay_url: str) -> httpx.Response:
        """Follow the shop's address, or what a code holds, to the cashier, and decide nothing yet."""
        return httpx.get(pay_url, follow_redirects=True, trust_env=False)

    def decide(self, pay_url: str, outcome: Outcome = Outcome.PAY) -> httpx.Response:
        """Arrive and press a button; the answer is a redirect, not followed. What is refused at the door ends there."""
        cashier = self.arrive(pay_url)
        if not cashier.is_success:
            return cashier
        return httpx.post(cashier.url.copy_with(query=None), data={"outcome": outcome.value}, trust_env=False)


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
        yield RunningAlipay(listening.url, KEY, emulator)
