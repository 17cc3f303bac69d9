"""The embedded installation's message broker: kombu's folder of files, without its one race.

kombu creates a message's file and then fills it; a worker that looks in between reads an empty message and
dies of it. Here a message gets the name by which workers find it only when it is whole.
"""

import uuid
from pathlib import Path
from time import monotonic
from typing import Any

from kombu.transport import TRANSPORT_ALIASES, filesystem
from kombu.utils.json import dumps


class Channel(filesystem.Channel):
    def _put(self, queue: str, payload: Any, **_: Any) -> None:  # type: ignore[override]
        # Sorted by name, messages are in the order of their sending, as kombu's own are.
        message = Path(self.data_folder_out) / f"{round(monotonic() * 1000)}_{uuid.uuid4()}.{queue}.msg"
        unfinished = message.with_suffix(".part")
        unfinished.write_text(dumps(payload))
        unfinished.rename(message)


class Transport(filesystem.Transport):
    Channel = Channel


def register() -> None:
    """Make `filesystem://` mean this transport."""
    TRANSPORT_ALIASES["filesystem"] = f"{__name__}:Transport"
