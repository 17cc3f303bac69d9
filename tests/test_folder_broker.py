"""The embedded broker's messages appear whole."""

from pathlib import Path
from typing import Any

import pytest
from kombu import Connection
from kombu.transport import filesystem

from vmos_presale import folder_broker


class Witness:
    """A part of a message that looks, at the moment it is written down, which messages a worker would find."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seen: list[str] = []

    def __json__(self) -> str:
        self.seen += [path.read_text() for path in self.folder.glob("*.msg")]
        return "whole"


def put(transport: type[filesystem.Transport], folder: Path) -> Witness:
    options = {
        "data_folder_in": str(folder),
        "data_folder_out": str(folder),
        "control_folder": str(folder / "control"),
    }
    witness = Witness(folder)
    with Connection(transport=transport, transport_options=options) as connection:
        channel: Any = connection.channel()
        channel._put("jobs", {"body": witness})
        assert channel._get("jobs") == {"body": "whole"}
    return witness


def test_message_is_not_found_before_it_is_whole(tmp_path: Path) -> None:
    assert put(folder_broker.Transport, tmp_path).seen == []


def test_control_kombus_own_message_is_found_empty(tmp_path: Path) -> None:
    assert put(filesystem.Transport, tmp_path).seen == [""]


def test_messages_come_in_the_order_of_their_sending(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    moments = iter((7.0, 8.0, 9.0))
    monkeypatch.setattr(folder_broker, "monotonic", lambda: next(moments))
    options = {
        "data_folder_in": str(tmp_path),
        "data_folder_out": str(tmp_path),
        "control_folder": str(tmp_path / "c"),
    }
    with Connection(transport=folder_broker.Transport, transport_options=options) as connection:
        channel: Any = connection.channel()
        for number in range(3):
            channel._put("jobs", number)

        assert [channel._get("jobs") for _ in range(3)] == [0, 1, 2]
