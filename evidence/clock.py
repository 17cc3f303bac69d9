"""The time within a job that lasts: what it records is of the moment, and not of the job's beginning."""

import time
from collections.abc import Callable
from datetime import datetime, timedelta
from typing import TypeAlias

Clock: TypeAlias = Callable[[], datetime]


def ticking(now: datetime) -> Clock:
    """A clock that shows `now` when it is first asked, and goes on from there."""
    began: float | None = None

    def clock() -> datetime:
        nonlocal began
        tick = time.monotonic()
        began = tick if began is None else began
        return now + timedelta(seconds=tick - began)

    return clock
