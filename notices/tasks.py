"""The job that empties the outbox. Beat starts it every second; any number may run at once."""

import time

from celery import shared_task
from django.utils import timezone

from notices import outbox

# After this many seconds the worker looks after other jobs; the next tick goes on.
TURN = 20.0


@shared_task(name="notices.drain", acks_late=True)
def drain() -> None:
    """Hand over what is due, until nothing is or the turn is over."""
    ends = time.monotonic() + TURN
    while outbox.drain(now=timezone.now()) and time.monotonic() < ends:
        pass
