"""The sandbox within this process, for tests.

with running_sandbox(key="key", secret="whsec_…") as sandbox:
    settings.SANDBOX_GATEWAY_URL = sandbox.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import httpx

from emulators.running import NO_TLS, SHORT_BACKOFF, Running
from emulators.server import Listening
from orders.gateways.emulators.sandbox import Outcome, Sandbox


class RunningSandbox(Running):
    """The sandbox."""

    __slots__ = ()

    def decide(self, pay_url: str, outcome: Outcome = Outcome.APPROVE) -> httpx.Response:
        """Press a button on the payment page; the answer is the redirect back to the shop, not followed."""
        return httpx.post(pay_url, data={"outcome": outcome.value}, verify=NO_TLS, trust_env=False)


@contextmanager
def running_sandbox(
    *, key: str, secret: str, books: str = ":memory:", backoff: Sequence[float] = SHORT_BACKOFF
) -> Iterator[RunningSandbox]:
    """The sandbox on a free port of the loopback interface."""
    emulator = Sandbox(key=key, secret=secret, books=books, backoff=backoff)
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningSandbox(listening.url, key, emulator)
