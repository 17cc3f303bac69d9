"""What an emulator remembers: one SQLite file, written by one thread at a time."""

import sqlite3
import threading
from collections.abc import Iterator
from contextlib import contextmanager

IN_MEMORY = ":memory:"  # as SQLite names it


def books_beside(path: str, name: str) -> str:
    """Where the books of `name` are kept beside those in `path`: a file next to it, or in memory too."""
    return path if path == IN_MEMORY else f"{path}-{name}"


class Books:
    """The tables of `schemas` (CREATE TABLE IF NOT EXISTS …) in the file `path`, or in memory for ":memory:"."""

    def __init__(self, path: str, *schemas: str) -> None:
        self._lock = threading.Lock()
        self._connection = sqlite3.connect(path, check_same_thread=False, isolation_level=None)
        self._connection.row_factory = sqlite3.Row
        for schema in schemas:
            self._connection.executescript(schema)

    @contextmanager
    def transaction(self) -> Iterator[sqlite3.Connection]:
        """All that is done inside, or nothing; meanwhile nobody else reads or writes. Does not nest."""
        with self._lock:
            self._connection.execute("BEGIN IMMEDIATE")
            try:
                yield self._connection
            except BaseException:
                self._connection.execute("ROLLBACK")
                raise
            self._connection.execute("COMMIT")

    def close(self) -> None:
        with self._lock:
            self._connection.close()
