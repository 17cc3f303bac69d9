"""What the emulated carriers share: the messages that arrived."""

import json
import secrets
import sqlite3
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime

from werkzeug.wrappers import Request

from emulators.server import JSON, Emulator

SCHEMA = """
CREATE TABLE IF NOT EXISTS message (
    id INTEGER PRIMARY KEY,
    at TEXT NOT NULL,
    reference TEXT NOT NULL UNIQUE,
    recipient TEXT NOT NULL,
    title TEXT NOT NULL,
    text TEXT NOT NULL,
    url TEXT NOT NULL,
    thread TEXT NOT NULL DEFAULT '',  -- of those with one, the newest is shown
    details TEXT NOT NULL DEFAULT '{}'
);
"""


@dataclass(frozen=True, slots=True)
class Arrived:
    """A message as the phone shows it."""

    at: datetime
    recipient: str
    title: str
    text: str
    url: str
    details: Mapping[str, object]


class Carrier(Emulator):
    """An emulator that takes messages; `extra` has its other tables."""

    extra = ""

    @property
    def schema(self) -> str:  # type: ignore[override]
        return SCHEMA + self.extra

    def everything(self) -> JSON:
        with self.books.transaction() as db:
            rows = [dict(row) for row in db.execute("SELECT * FROM message ORDER BY id")]
        return {"messages": [{**row, "details": json.loads(row["details"])} for row in rows]}

    def arrived(self) -> Sequence[Arrived]:
        """What the phone shows, newest first."""
        with self.books.transaction() as db:
            rows = db.execute(
                """
                SELECT * FROM message WHERE id IN
                    (SELECT max(id) FROM message GROUP BY recipient, coalesce(nullif(thread, ''), id))
                ORDER BY id DESC LIMIT 50
                """
            ).fetchall()
        return [
            Arrived(
                datetime.fromisoformat(row["at"]),
                row["recipient"],
                row["title"],
                row["text"],
                row["url"],
                json.loads(row["details"]),
            )
            for row in rows
        ]

    def keep(
        self,
        db: sqlite3.Connection,
        *,
        recipient: str,
        text: str,
        title: str = "",
        url: str = "",
        thread: str = "",
        reference: str = "",
        details: Mapping[str, object],
    ) -> str:
        """Take a message and return the name it is known by here: `reference`, or a new one."""
        reference = reference or secrets.token_hex(16)
        db.execute(
            """
            INSERT INTO message (at, reference, recipient, title, text, url, thread, details)
            VALUES (?, ?, ?, ?, ?, ?, ?, ?)
            """,
            (
                datetime.now(UTC).isoformat(timespec="microseconds"),
                reference,
                recipient,
                title,
                text,
                url,
                thread,
                json.dumps(details),
            ),
        )
        return reference

    def goes_wrong(self) -> bool:
        """Whether an API whose errors have a form of their own shall answer with one this time."""
        return self.faults.happens("errors")


def form_of(request: Request) -> dict[str, str]:
    return {name: request.form[name] for name in request.form}
