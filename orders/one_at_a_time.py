"""Jobs of which one per plan is enough: whoever finds that it runs already has nothing to do.

A job that goes through a long queue lasts for minutes, and is asked for every few seconds. The plan's lock would make
the second wait for the first, the third for the second, until no worker is left for the other plans.
"""

import enum
import threading
from collections import defaultdict
from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection


class Job(enum.IntEnum):
    """What is guarded. Its number is the class of PostgreSQL's advisory locks; no other lock may bear it."""

    SWEEP = 20261124
    ESTIMATES = 20261125
    FIGURES = 20261126


# For SQLite, whose shop has one worker with several threads.
_of_this_process: defaultdict[tuple[Job, int], threading.Lock] = defaultdict(threading.Lock)


@contextmanager
def alone(job: Job, *, plan_id: int) -> Iterator[bool]:
    """Whether nobody else does `job` for the plan just now; if so, nobody else will until the block ends.

    It never waits, and belongs around transactions, not into one. It spares work and protects nothing: what must not
    happen twice is for row locks to prevent. PostgreSQL lets go of it when a worker dies.
    """
    is_free = _take(job, plan_id)
    try:
        yield is_free
    finally:
        if is_free:
            _give_back(job, plan_id)


def _take(job: Job, plan_id: int) -> bool:
    if connection.vendor != "postgresql":
        return _of_this_process[job, plan_id].acquire(blocking=False)
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_try_advisory_lock(%s, %s)", [job.value, plan_id])
        return bool(cursor.fetchone()[0])


def _give_back(job: Job, plan_id: int) -> None:
    if connection.vendor != "postgresql":
        _of_this_process[job, plan_id].release()
        return
    with connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_unlock(%s, %s)", [job.value, plan_id])
