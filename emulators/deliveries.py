"""Webhooks on their way: kept in the books until the shop has answered, so that a restart loses none."""

import logging
import secrets
import sqlite3
import threading
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime

import httpx

from emulators.books import Books
from emulators.faults import FaultBoard

logger = logging.getLogger(__name__)

SCHEMA = """
CREATE TABLE IF NOT EXISTS delivery (
    id INTEGER PRIMARY KEY,
    webhook_id TEXT NOT NULL,  -- the same in every sending of one event
    url TEXT NOT NULL,
    body TEXT NOT NULL,
    state TEXT NOT NULL CHECK (state IN ('due', 'held', 'dropped', 'delivered', 'abandoned')),
    due REAL NOT NULL,  -- seconds since 1970
    tries INTEGER NOT NULL DEFAULT 0,
    last_answer TEXT NOT NULL DEFAULT ''
);
CREATE INDEX IF NOT EXISTS delivery_due ON delivery (due, id) WHERE state = 'due';
"""

# Seconds before the second try, the third, …; after the last the shop has to ask.
BACKOFF = (1, 5, 25, 125, 625)
TIMEOUT = httpx.Timeout(5, connect=3)


class Deliveries:
    """Sends webhooks from a thread of its own, one at a time, until each is answered with 2xx.

    `sign` makes the headers for a webhook id and a body, with the right key or, if False, a wrong one.
    """

    def __init__(
        self,
        books: Books,
        faults: FaultBoard,
        *,
        sign: Callable[[str, str, bool], Mapping[str, str]],
        backoff: Sequence[float] = BACKOFF,
    ) -> None:
        self._books = books
        self._faults = faults
        self._sign = sign
        self._backoff = backoff
        self._stopping = False
        self._something_new = threading.Event()
        self._sent = threading.Condition()
        self._thread = threading.Thread(target=self._run, name="webhooks")

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        """Returns when the sending that is under way, if any, has ended; the rest waits for the next start."""
        self._stopping = True
        self._something_new.set()
        self._thread.join()

    def announce(self, db: sqlite3.Connection, *, url: str, body: str, copies: int = 1) -> None:
        """Have a webhook sent once the transaction that `db` is in has been committed.

        `copies` is how often the event is told: 0 keeps it as dropped.
        """
        if self._faults.happens("drop"):
            copies = 0
        if self._faults.happens("duplicate"):
            copies *= 2
        holds_back = self._faults.happens("reorder")
        webhook_id = f"msg_{secrets.token_hex(12)}"
        state = "dropped" if copies == 0 else "held" if holds_back else "due"
        now = _now()
        for _copy in range(max(copies, 1)):
            db.execute(
                "INSERT INTO delivery (webhook_id, url, body, state, due) VALUES (?, ?, ?, ?, ?)",
                (webhook_id, url, body, state, now),
            )
        if state == "due":
            # What was held back goes out behind this one.
            db.execute("UPDATE delivery SET state = 'due', due = ? WHERE state = 'held'", (now + 0.001,))
            self._something_new.set()

    def prepared(
        self, webhook_id: str, body: str, is_right: bool, /
    ) -> tuple[str | bytes, Mapping[str, str]]:
        """What is sent of an event this time, and its headers."""
        return body.encode(), {"Content-Type": "application/json", **self._sign(webhook_id, body, is_right)}

    def is_accepted(self, response: httpx.Response) -> bool:
        return response.is_success

    def wait_until_idle(self, seconds: float) -> bool:
        """Wait until nothing is left to send, retries included. False if that takes longer than `seconds`."""
        with self._sent:
            return self._sent.wait_for(self._is_idle, seconds)

    def _is_idle(self) -> bool:
        with self._books.transaction() as db:
            return not db.execute("SELECT 1 FROM delivery WHERE state = 'due'").fetchone()

    def _run(self) -> None:
        with httpx.Client(timeout=TIMEOUT, trust_env=False) as client:
            while not self._stopping:
                delivery = self._next()
                if delivery and delivery["due"] <= _now():
                    self._send(client, delivery)
                    continue
                # A clock that is set while we wait is noticed within a second.
                self._something_new.wait(min(1.0, delivery["due"] - _now()) if delivery else None)
                self._something_new.clear()

    def _next(self) -> sqlite3.Row | None:
        with self._books.transaction() as db:
            row: sqlite3.Row | None = db.execute(
                "SELECT * FROM delivery WHERE state = 'due' ORDER BY due, id LIMIT 1"
            ).fetchone()
            return row

    def _send(self, client: httpx.Client, delivery: sqlite3.Row) -> None:
        content, headers = self.prepared(
            delivery["webhook_id"], delivery["body"], not self._faults.happens("wrong_key")
        )
        try:
            response = client.post(delivery["url"], content=content, headers=headers, follow_redirects=False)
        except (httpx.HTTPError, httpx.InvalidURL) as error:
            accepted, answer = False, type(error).__name__
        else:
            accepted, answer = self.is_accepted(response), str(response.status_code)
        tries = delivery["tries"] + 1
        due = delivery["due"]
        if accepted:
            state = "delivered"
        elif tries > len(self._backoff):
            state = "abandoned"
        else:
            state, due = "due", _now() + self._backoff[tries - 1]
        logger.info("Webhook %s to %s: %s, %s", delivery["webhook_id"], delivery["url"], answer, state)
        with self._books.transaction() as db:
            db.execute(
                "UPDATE delivery SET state = ?, due = ?, tries = ?, last_answer = ? WHERE id = ?",
                (state, due, tries, answer, delivery["id"]),
            )
        with self._sent:
            self._sent.notify_all()


def _now() -> float:
    return datetime.now(UTC).timestamp()
