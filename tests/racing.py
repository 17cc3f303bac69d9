"""Threads that race, each with a database connection of its own, and what became of them."""

import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any

from django.db import connection, connections

DEADLINE_SECONDS = 60


def race(*contestants: Callable[[], Any]) -> list[Any]:
    """Run all at once; return what each returned, or the exception it raised, in their order."""
    start = threading.Barrier(len(contestants))

    def run(contestant: Callable[[], Any]) -> Any:
        try:
            start.wait(DEADLINE_SECONDS)
            return contestant()
        except Exception as outcome:  # noqa: BLE001 (whatever a contestant raises is his result)
            return outcome
        finally:
            connections.close_all()

    with ThreadPoolExecutor(len(contestants)) as pool:
        return [
            future.result(DEADLINE_SECONDS) for future in [pool.submit(run, each) for each in contestants]
        ]


def in_background(work: Callable[[], Any]) -> "Future[Any]":
    """Start `work` in a thread; `.result()` raises what it raised."""

    def run() -> Any:
        try:
            return work()
        finally:
            connections.close_all()

    pool = ThreadPoolExecutor(1)
    future = pool.submit(run)
    pool.shutdown(wait=False)
    return future


def wait_until_blocked(sessions: int = 1) -> None:
    """Wait until that many other sessions of this database wait for a lock. Raises TimeoutError."""
    for _ in range(DEADLINE_SECONDS * 100):
        with connection.cursor() as cursor:
            # Within a transaction the view would show the same picture again and again.
            cursor.execute("SELECT pg_stat_clear_snapshot()")
            cursor.execute(
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
            )
            if cursor.fetchone()[0] >= sessions:
                return
        threading.Event().wait(0.01)
    raise TimeoutError("Nobody is waiting for a lock.")


def failures(outcomes: Sequence[Any]) -> list[Exception]:
    """The exceptions among the outcomes of a race."""
    return [outcome for outcome in outcomes if isinstance(outcome, Exception)]
