"""WeChat Pay's emulator within this process, for tests.

with running_wechat(merchant_id="…", app_id="wx…", …) as wechat:
    settings.WECHAT_URL = wechat.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from emulators.running import SHORT_BACKOFF, Running
from emulators.server import Listening
from orders.gateways.emulators.wechat import Outcome, Wechat

KEY = "key-of-the-testers"


class RunningWechat(Running):
    """WeChat Pay. Its pages have no faults."""

    __slots__ = ()

    def arrive(self, pay_url: str) -> httpx.Response:
        """Follow the shop's address on a phone, and decide nothing yet."""
        return httpx.get(pay_url, follow_redirects=True, trust_env=False)

    def decide(self, out_trade_no: str, outcome: Outcome = Outcome.PAY) -> httpx.Response:
        """Press a button of a payment's page, as who has scanned its code; the answer is a redirect, not followed."""
        (token,) = (
            trade["token"] for trade in self.books()["trades"] if trade["out_trade_no"] == out_trade_no
        )
        return httpx.post(f"{self.url}/pay/{token}", data={"outcome": outcome.value}, trust_env=False)


@contextmanager
def running_wechat(
    *,
    merchant_id: str,
    app_id: str,
    certificate_serial: str,
    merchant_public_key: str,
    api_v3_key: str,
    private_key: str,
    public_key_id: str,
    books: str = ":memory:",
    backoff: Sequence[float] = SHORT_BACKOFF,
) -> Iterator[RunningWechat]:
    """WeChat Pay on a free port of the loopback interface."""
    emulator = Wechat(
        key=KEY,
        merchant_id=merchant_id,
        app_id=app_id,
        certificate_serial=certificate_serial,
        merchant_public_key=merchant_public_key,
        api_v3_key=api_v3_key,
        private_key=private_key,
        public_key_id=public_key_id,
        books=books,
        backoff=backoff,
    )
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningWechat(listening.url, KEY, emulator)
