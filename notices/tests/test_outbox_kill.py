"""Workers that are killed while they send: nothing is lost, and what comes twice is known and said."""

import asyncio
import os
import queue
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from django.db import connection, transaction
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from notices import deliveries
from notices.kinds import ORDER_PLACED, PAYMENT_RECEIVED
from notices.models import Delivery, DeliveryEvent, DeliveryState, InboxMessage
from notices.outbox import drain, tell
from notices.tests.samples import draft
from notices.tests.test_email import free_port

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True), pytest.mark.clause("VIII")]

PROJECT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120
# 10,000 deliveries: who gets a mail gets an in-site message as well.
MAILS = 1_500
MESSAGES = 7_000
KILLS = 6
WORKER = """
import time
from django.utils import timezone
from pytest_django import Settings
from notices.outbox import drain
while True:
    drain(now=timezone.now()) or time.sleep(0.05)
"""


class Receiver:
    """A mail server that takes everything, and now and then leaves who has handed it a mail without an answer."""

    def __init__(self) -> None:
        # How often each delivery's mail has come.
        self.taken: Counter[int] = Counter()
        # The sender of a mail that was taken and is not answered.
        self.unanswered: queue.SimpleQueue[str] = queue.SimpleQueue()
        self._every = MAILS // (2 * KILLS)
        self._left = KILLS

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        assert isinstance(envelope.content, bytes)
        reference = envelope.content.split(b"<delivery-")[1].split(b"@")[0]
        self.taken[int(reference)] += 1
        if self._left and self.taken.total() % self._every == 0:
            self._left -= 1
            self.unanswered.put(str(envelope.mail_from))
            await asyncio.sleep(DEADLINE_SECONDS)
        return "250 OK"


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def receiver(settings: Settings, port: int) -> Iterator[Receiver]:
    """Running, for workers at `port` and for this process."""
    receiver = Receiver()
    controller = Controller(receiver, hostname="127.0.0.1", port=port)
    controller.start()
    settings.EMAIL_BACKEND = "notices.channels.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = controller.hostname, port
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    yield receiver
    controller.stop()


class Workers:
    """Processes that empty the outbox; each is known by the address it sends from."""

    def __init__(self, port: int) -> None:
        self._port = port
        self._started = 0
        self._running: dict[str, subprocess.Popen[bytes]] = {}

    def start(self) -> None:
        self._started += 1
        name = f"worker-{self._started}@example.com"
        server = urlsplit(os.environ["DATABASE_URL"])
        self._running[name] = subprocess.Popen(
            [sys.executable, "manage.py", "shell", "--no-imports", "-c", WORKER],
            cwd=PROJECT,
            env=os.environ
            | {
                "DATABASE_URL": urlunsplit(server._replace(path=f"/{connection.settings_dict['NAME']}")),
                "DEMO": "0",
                "EMAIL_URL": f"smtp://127.0.0.1:{self._port}",
                "EMAIL_PER_SECOND": "100000",
                "DEFAULT_FROM_EMAIL": name,
            },
        )

    def kill(self, name: str) -> None:
        worker = self._running.pop(name)
        worker.kill()
        worker.wait()

    def kill_all(self) -> None:
        for name in list(self._running):
            self.kill(name)


def tell_everybody() -> None:
    crowd = User.objects.bulk_create(
        User(email=f"{number}@example.com") for number in range(MAILS + MESSAGES)
    )
    now = timezone.now()
    with transaction.atomic():
        tell((draft(user, kind=PAYMENT_RECEIVED, key=f"p-{user.pk}") for user in crowd[:MAILS]), now=now)
        tell((draft(user, kind=ORDER_PLACED, key=f"o-{user.pk}") for user in crowd[MAILS:]), now=now)


def states(channel: str) -> dict[str, int]:
    found: Any = Delivery.objects.filter(channel=channel).values_list("state")
    return dict(Counter(state for (state,) in found))


def finish(now: datetime) -> None:
    """Hand over what is left, with a clock that runs as fast as the channel's pace wants it to."""
    left = Delivery.objects.filter(
        state__in=(DeliveryState.QUEUED, DeliveryState.LEASED, DeliveryState.SENDING)
    )
    for seconds in range(100):
        while drain(now=now + timedelta(seconds=seconds)):
            pass
        if not left.exists():
            return
    raise TimeoutError(f"{left.count()} deliveries are left.")


def test_workers_killed_between_the_wire_and_the_record_lose_nothing_and_repeat_nothing_unsaid(
    receiver: Receiver, port: int, settings: Settings
) -> None:
    tell_everybody()
    workers = Workers(port)
    try:
        for _ in range(2):
            workers.start()
        for _ in range(KILLS):
            # It has handed over a mail, and dies before it can write that down.
            workers.kill(receiver.unanswered.get(timeout=DEADLINE_SECONDS))
            workers.start()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while Delivery.objects.filter(state=DeliveryState.QUEUED).exists():
            assert time.monotonic() < deadline
            time.sleep(0.1)
    finally:
        workers.kill_all()
    # The control: six deaths have left something behind, which only the leases bring back.
    assert states("email")["sending"] >= KILLS
    later = timezone.now() + deliveries.LEASE + deliveries.SILENCE
    finish(later)

    assert states("in-site") == {"sent": MESSAGES + MAILS}
    assert InboxMessage.objects.count() == MESSAGES + MAILS
    uncertain = set(Delivery.objects.filter(state="uncertain").values_list("pk", flat=True))
    assert states("email") == {"sent": MAILS - len(uncertain), "uncertain": len(uncertain)}
    # Two more may have died in the middle of something, when all were stopped.
    assert KILLS <= len(uncertain) <= KILLS + 2
    # Nobody was written to twice, and nobody is without his mail but perhaps some of whom it is said that nobody knows.
    assert set(receiver.taken.values()) == {1}
    have_come = set(receiver.taken)
    mails = set(Delivery.objects.filter(channel="email").values_list("pk", flat=True))
    assert mails - set(receiver.taken) <= uncertain
    accepted = DeliveryEvent.objects.filter(step="accepted", delivery__channel="email")
    assert set(accepted.values_list("delivery_id", flat=True)) == mails - uncertain

    finish(later + timedelta(minutes=settings.NOTICE_REPEAT_MINUTES, seconds=100))

    # Everybody has his mail. Twice have it those of whom nobody knew, had it come before; so says the record.
    assert states("email") == {"sent": MAILS}
    assert set(receiver.taken) == mails
    assert {pk: times for pk, times in receiver.taken.items() if times > 1} == dict.fromkeys(
        uncertain & have_come, 2
    )
    assert len(uncertain & have_come) >= KILLS
    said = DeliveryEvent.objects.filter(step="repeated", detail="No report has come. It may arrive twice.")
    assert set(said.values_list("delivery_id", flat=True)) == uncertain
