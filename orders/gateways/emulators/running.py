"""An emulator within this process, for tests.

with running_sandbox(key="key", secret="whsec_…") as sandbox:
    settings.SANDBOX_GATEWAY_URL = sandbox.url
"""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from orders.gateways.emulators.sandbox import Outcome, Sandbox
from orders.gateways.emulators.server import Emulator, Listening

# Retries of webhooks come fast enough to wait for.
SHORT_BACKOFF = (0.05, 0.1, 0.2)


@dataclass(frozen=True, slots=True)
class Running:
    """An emulator at `url`, and what a tester does with any of them, by the same HTTP that anybody else would use.

    `key` opens what is the tester's alone.
    """

    url: str
    key: str
    _emulator: Emulator

    def set_faults(self, **faults: float) -> None:
        """See `faults.Faults`."""
        self._ask("POST", "/_faults", json=faults)

    def books(self) -> Any:
        """Everything the provider knows, and all webhook deliveries."""
        return self._ask("GET", "/_books").json()

    def wait_for_webhooks(self, seconds: float = 10) -> None:
        """Wait until none is on its way, retries included. Raises TimeoutError."""
        if not self._emulator.deliveries.wait_until_idle(seconds):
            raise TimeoutError(f"Webhooks are still on their way after {seconds} s.")

    def credentials(self) -> dict[str, str]:
        """The header that shows the key."""
        return {"Authorization": f"Bearer {self.key}"}

    def _ask(self, method: str, path: str, **arguments: Any) -> httpx.Response:
        with httpx.Client(trust_env=False, timeout=70) as client:
            return client.request(
                method, self.url + path, headers=self.credentials(), **arguments
            ).raise_for_status()


class RunningSandbox(Running):
    """The sandbox."""

    __slots__ = ()

    def decide(self, pay_url: str, outcome: Outcome = Outcome.APPROVE) -> httpx.Response:
        """Press a button on the payment page; the answer is the redirect back to the shop, not followed."""
        return httpx.post(pay_url, data={"outcome": outcome.value}, trust_env=False)


@contextmanager
def running_sandbox(
    *, key: str, secret: str, books: str = ":memory:", backoff: Sequence[float] = SHORT_BACKOFF
) -> Iterator[RunningSandbox]:
    """The sandbox on a free port of the loopback interface."""
    emulator = Sandbox(key=key, secret=secret, books=books, backoff=backoff)
    with Listening(emulator, host="127.0.0.1", port=0) as listening:
        yield RunningSandbox(listening.url, key, emulator)
