"""Several processes that do the same work at the same time, and how long they take together."""

import multiprocessing
import time
from collections.abc import Callable
from threading import BrokenBarrierError

from django.db import connection, connections

from bench.databases import Failed

WORKERS = 4
DEADLINE_SECONDS = 900


def together(work: Callable[[int], None], *, workers: int = WORKERS) -> float:
    """Seconds from the moment when all workers begin `work(number)`, connected, until the last has done it.

    They are forks of this process: what was prepared here is theirs. Raises Failed if one does not come to its end.
    """
    processes = multiprocessing.get_context("fork")
    line = processes.Barrier(workers + 1)

    def run(number: int) -> None:
        try:
            connection.ensure_connection()
            line.wait(DEADLINE_SECONDS)
            work(number)
            line.wait(DEADLINE_SECONDS)
        except BaseException:
            line.abort()
            raise

    connections.close_all()
    started = [processes.Process(target=run, args=(number,)) for number in range(workers)]
    for process in started:
        process.start()
    try:
        line.wait(DEADLINE_SECONDS)
        began = time.perf_counter()
        line.wait(DEADLINE_SECONDS)
        return time.perf_counter() - began
    except BrokenBarrierError:
        raise Failed("A worker did not come to its end.") from None
    finally:
        for process in started:
            process.join(1)
            process.kill()
