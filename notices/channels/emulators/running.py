"""The emulated carriers within this process, for tests.

with running(PushService(key=KEY, books=":memory:")) as push_service:
    settings.PUSH_HOSTS = [f"{push_service.url}/push"]
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from emulators.running import SHORT_BACKOFF, Running
from emulators.server import Listening
from notices.channels.emulators.carrier import Carrier

KEY = "key-of-the-testers"

__all__ = ["KEY", "SHORT_BACKOFF", "RunningCarrier", "running"]


class RunningCarrier(Running):
    """A carrier, and what arrived by it."""

    __slots__ = ()

    def messages(self) -> list[dict[str, Any]]:
        """Oldest first."""
        found: list[dict[str, Any]] = self.books()["messages"]
        return found

    def ask(self, method: str, path: str, **arguments: Any) -> Any:
        """What a tester asks; the answer's JSON, or None."""
        response = self._ask(method, path, **arguments)
        return response.json() if response.content else None


@contextmanager
def running(carrier: Carrier) -> Iterator[RunningCarrier]:
    """The carrier, whose key is KEY, on a free port of the loopback interface."""
    with Listening(carrier, host="127.0.0.1", port=0) as listening:
        yield RunningCarrier(listening.url, KEY, carrier)
