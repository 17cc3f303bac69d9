"""An emulator within this process, for tests: see the `running_…` of each."""

import ssl
from dataclasses import dataclass
from typing import Any

import httpx

from emulators.server import Emulator

# Retries of webhooks come fast enough to wait for.
SHORT_BACKOFF = (0.05, 0.1, 0.2)
# All of it is plain HTTP: a client that trusts nobody saves the 25 ms of reading the root certificates.
NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)


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
        with httpx.Client(verify=NO_TLS, trust_env=False, timeout=70) as client:
            return client.request(
                method, self.url + path, headers=self.credentials(), **arguments
            ).raise_for_status()
