"""The emulator of NOWPayments within this process, for tests.

with running_nowpayments(key="key", secret="secret", email="shop@example.com", password="password") as provider:
    settings.NOWPAYMENTS_URL = provider.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from emulators.running import SHORT_BACKOFF, Running
from emulators.server import Listening
from orders.gateways.emulators.chain import Deed
from orders.gateways.emulators.nowpayments import Nowpayments


class RunningNowpayments(Running):
    """NOWPayments."""

    __slots__ = ()

    def credentials(self) -> dict[str, str]:
        return {"x-api-key": self.key}

    def do(self, payment_id: str, deed: Deed, coins: str = "") -> httpx.Response:
        """Press a button of the payment's page; `coins` is how many are sent, if not what the button says."""
        data = {"deed": deed.value, "coins": coins}
        return httpx.post(f"{self.url}/pay/{payment_id}", data=data, trust_env=False)


@contextmanager
def running_nowpayments(
    *,
    key: str,
    secret: str,
    email: str,
    password: str,
    books: str = ":memory:",
    backoff: Sequence[float] = SHORT_BACKOFF,
) -> Iterator[RunningNowpayments]:
    """The provider on a free port of the loopback interface."""
    emulator = Nowpayments(
        key=key, secret=secret, email=email, password=password, books=books, backoff=backoff
    )
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningNowpayments(listening.url, key, emulator)
