"""The jobs of the outbox. Beat starts them every few seconds; any number may run at once."""

import time

from celery import shared_task
from django.utils import timezone

from notices import broadcasts, outbox
from notices.deliveries import Place

# After this many seconds the worker looks after other jobs; the next tick goes on.
TURN = 20.0


@shared_task(name="notices.drain", acks_late=True)
def drain() -> None:
    """Hand over what is due, until nothing is or the turn is over."""
    ends = time.monotonic() + TURN
    places: dict[str, Place] = {}
    while outbox.drain(now=timezone.now(), places=places) and time.monotonic() < ends:
        pass


@shared_task(name="notices.broadcast")
def broadcast() -> None:
    """Go on with the messages to many that are under way, until the turn is over."""
    ends = time.monotonic() + TURN
    while broadcasts.go_on(now=timezone.now()) and time.monotonic() < ends:
        pass
