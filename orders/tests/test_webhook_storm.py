"""A storm: hundreds of payments, a thousand webhooks out of order and many times over, some lost, a worker killed.

In the end the ledger says of every payment exactly what the provider's books say.
"""

import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from django.db import connection
from django.db.models import Sum

from inventory.money import Money
from notices.models import Notice
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.models import (
    LedgerEntry,
    LineState,
    MoneyReturn,
    Order,
    OrderLine,
    OrderState,
    QueueEvent,
    QueueEventKind,
    ReviewItem,
    WebhookEvent,
)
from orders.payments import poll_payments, process_webhooks
from orders.queue import segments
from orders.reconciliation import reconcile
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Listener, Request
from orders.tests.paying import Door, begin, told_by
from tests.builders import make_fee, make_order, make_plan, make_user
from tests.racing import in_background

pytestmark = [
    pytest.mark.postgres,
    pytest.mark.django_db(transaction=True),
    pytest.mark.clause("3.1"),
    pytest.mark.payment_case(1),
    pytest.mark.payment_case(3),
    pytest.mark.payment_case(5),
    pytest.mark.payment_case(8),
]

PROJECT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 120
ORDERS = 200
WEBHOOKS = 1_000
LOST = 0.05
# What becomes of an order's payment, and how often of a hundred times.
FATES: Mapping[str, int] = {
    Outcome.APPROVE: 60,
    Outcome.DECLINE: 8,
    Outcome.PAY_LESS: 8,
    Outcome.PAY_MORE: 8,
    Outcome.PAY_TWICE: 8,
    Outcome.PAY_OTHER_CURRENCY: 4,
    "undecided": 4,
}
WORKER = """
import time
from django.utils import timezone
from orders.payments import process_webhooks
while True:
    process_webhooks(now=timezone.now())
    time.sleep(0.05)
"""
Booked = tuple[str, str, int, str]


@pytest.fixture
def dice() -> random.Random:
    return random.Random(20261123)


def test_after_a_storm_of_webhooks_the_ledger_equals_the_providers_books(
    shop: Listener,
    sandbox: RunningSandbox,
    door: Door,
    dice: random.Random,
) -> None:
    orders = order_and_pay(sandbox, dice)
    events = told_by(sandbox, shop)
    lost = {webhook_id(event) for event in dice.sample(events, round(len(events) * LOST))}
    kept = [event for event in events if webhook_id(event) not in lost]
    # Each comes at least once; which come several times is chance.
    storm = [*kept, *dice.choices(kept, k=WEBHOOKS - len(kept))]
    dice.shuffle(storm)

    with worker(sandbox) as doomed, worker(sandbox):
        answers = in_background(lambda: delivered(door, storm))
        wait_until(lambda: WebhookEvent.objects.exclude(processed_at=None).count() >= len(kept) // 4)
        doomed.send_signal(signal.SIGKILL)
        assert doomed.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        assert not answers.done()  # in the middle of it
        assert answers.result(DEADLINE_SECONDS) == {200: WEBHOOKS}
        wait_until(lambda: not WebhookEvent.objects.filter(processed_at=None).exists())

    # The control: without the poller, what was told of by lost webhooks only is missing, and nothing else.
    books = booked_by(sandbox)
    untold = unmentioned(sandbox, kept)
    assert untold
    assert ledger() == [entry for entry, reference in books if reference not in untold]

    assert poll_payments(now=datetime.now(UTC) + timedelta(seconds=31)) >= len(untold)

    assert ledger() == [entry for entry, _ in books]
    assert_every_order_stands_as_its_money_does(orders)
    assert process_webhooks(now=datetime.now(UTC)) == 0
    before = ReviewItem.objects.count()
    reconcile(now=datetime.now(UTC))
    reconcile(now=datetime.now(UTC) + timedelta(days=1))
    assert ReviewItem.objects.count() == before


def order_and_pay(provider: RunningSandbox, dice: random.Random) -> Sequence[Order]:
    """Orders of one to three phones, and what their buyers do at the provider's page."""
    now = datetime.now(UTC)
    fee = make_fee(make_plan(cap=10_000), minor=4_990)
    buyers = [make_user() for _ in range(20)]
    orders = [
        make_order([(fee, 1 + number % 3)], customer=buyers[number % len(buyers)], placed_at=now)
        for number in range(ORDERS)
    ]
    fates = dice.choices(list(FATES), weights=list(FATES.values()), k=ORDERS)
    for order, fate in zip(orders, fates, strict=True):
        attempt = begin(order, now=now)
        if fate == "undecided":
            continue
        provider.decide(attempt.pay_url, Outcome(fate))
        if fate == Outcome.APPROVE and dice.random() < 0.1:
            refund_at_the_desk(provider, attempt.reference, order.total)
    return orders


def refund_at_the_desk(provider: RunningSandbox, reference: str, amount: Money) -> None:
    """Give all of a payment back at the provider's own desk, without the shop."""
    [payment] = [each for each in provider.books()["payments"] if each["reference"] == reference]
    httpx.post(
        f"{provider.url}/v1/refunds",
        headers={**provider.credentials(), "Idempotency-Key": f"desk-{reference}"},
        json={
            "payment": payment["id"],
            "reference": f"D-{reference}",
            "amount": payment["amount"],
            "currency": amount.currency,
        },
        trust_env=False,
    ).raise_for_status()


def webhook_id(event: Request) -> str:
    return event.headers["webhook-id"]


def delivered(door: Door, storm: Sequence[Request]) -> Mapping[int, int]:
    """How often which status was answered, by four senders at once."""
    statuses: dict[int, int] = {}
    with ThreadPoolExecutor(4) as senders:
        for status in senders.map(lambda event: door.deliver(event)[0], storm):
            statuses[status] = statuses.get(status, 0) + 1
    return statuses


@contextmanager
def worker(provider: RunningSandbox) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that works the inbox off until it is ended."""
    server = urlsplit(os.environ["DATABASE_URL"])
    process = subprocess.Popen(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", WORKER],
        cwd=PROJECT,
        env=os.environ
        | {
            "DATABASE_URL": urlunsplit(server._replace(path=f"/{connection.settings_dict['NAME']}")),
            "SANDBOX_GATEWAY_URL": provider.url,
            "SANDBOX_GATEWAY_KEY": SANDBOX_KEY,
            "SANDBOX_WEBHOOK_SECRET": SANDBOX_SECRET,
            "ALLOW_EMULATORS": "true",
        },
    )
    try:
        yield process
    finally:
        process.kill()
        process.wait()


def wait_until(is_so: Any) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def booked_by(provider: RunningSandbox) -> list[tuple[Booked, str]]:
    """Every movement of money in the provider's books, as our ledger writes it, and the payment it belongs to."""
    found = []
    for payment in provider.books()["payments"]:
        for kind, sign, moves in (("capture", 1, payment["captures"]), ("refund", -1, payment["refunds"])):
            for move in moves:
                money = Money.parse(move["amount"], move["currency"])
                found.append(((kind, move["id"], sign * money.minor, money.currency), payment["reference"]))
    return sorted(found)


def ledger() -> list[Booked]:
    return sorted(LedgerEntry.objects.values_list("kind", "transaction_id", "minor", "currency"))


def unmentioned(provider: RunningSandbox, kept: Sequence[Request]) -> set[str]:
    """The payments in which money moved and of which no webhook came."""
    mentioned = {event.body.decode().split('"reference": "')[1].split('"')[0] for event in kept}
    return {reference for _, reference in booked_by(provider)} - mentioned


def assert_every_order_stands_as_its_money_does(orders: Sequence[Order]) -> None:
    """Paid is who paid enough and has not got it back; he stands in the queue once, at his time, and was told once."""
    balances = dict(
        LedgerEntry.objects.filter(currency="USD").values_list("order_id").annotate(minor=Sum("minor"))
    )
    paid = {order.pk for order in orders if balances.get(order.pk, 0) >= order.total_minor}
    assert set(Order.objects.exclude(state=OrderState.UNPAID).values_list("pk", flat=True)) == paid
    joined = QueueEvent.objects.filter(kind=QueueEventKind.JOINED)
    assert sorted(joined.values_list("line__order_id", flat=True)) == sorted(paid)
    told = Notice.objects.filter(kind="payment-received").values_list("about", flat=True)
    assert sorted(told) == sorted(order.reference for order in orders if order.pk in paid)
    queue = OrderLine.objects.filter(state=LineState.WAITING).order_by("paid_at", "pk")
    times = [line.paid_at for line in queue.select_related("order")]
    assert times == [line.order.paid_at for line in queue.select_related("order")]
    # What was paid too much, twice or in vain goes back, or waits for a person's word: none of it is lost.
    assert MoneyReturn.objects.exists()
    assert ReviewItem.objects.exists()
    assert list(segments.wrong_counts()) == []
