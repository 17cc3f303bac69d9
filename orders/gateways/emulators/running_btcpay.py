"""The emulator of BTCPay Server within this process, for tests.

with running_btcpay(key="key", store_id="store", secret="secret", webhook_url="http://…/webhooks/btcpay/") as server:
    settings.BTCPAY_URL = server.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from decimal import Decimal

import httpx

from emulators.running import SHORT_BACKOFF, Running
from emulators.server import Listening
from orders.gateways.emulators.btcpay import Btcpay
from orders.gateways.emulators.chain import Deed


class RunningBtcpay(Running):
    """BTCPay Server."""

    __slots__ = ()

    def credentials(self) -> dict[str, str]:
        return {"Authorization": f"token {self.key}"}

    def do(self, invoice_id: str, deed: Deed, coins: str = "") -> httpx.Response:
        """Press a button of the checkout page; `coins` is how many are sent, if not what the button says."""
        data = {"deed": deed.value, "coins": coins}
        return httpx.post(f"{self.url}/i/{invoice_id}", data=data, trust_env=False)

    def decide_claim(self, claim_id: str, deed: str) -> httpx.Response:
        """Press a button of a refund's page: claim, pay, cancel or archive."""
        return httpx.post(f"{self.url}/pull-payments/{claim_id}", data={"deed": deed}, trust_env=False)


@contextmanager
def running_btcpay(
    *,
    key: str,
    store_id: str,
    secret: str,
    webhook_url: str,
    books: str = ":memory:",
    backoff: Sequence[float] = SHORT_BACKOFF,
    claims_at_once: bool = False,
    fee: str = "0",
) -> Iterator[RunningBtcpay]:
    """The server on a free port of the loopback interface."""
    emulator = Btcpay(
        key=key,
        store_id=store_id,
        secret=secret,
        webhook_url=webhook_url,
        books=books,
        backoff=backoff,
        claims_at_once=claims_at_once,
        fee=Decimal(fee),
    )
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningBtcpay(listening.url, key, emulator)
