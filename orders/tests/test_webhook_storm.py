"""A storm: hundreds of payments, a thousand webhooks out of order and many times over, some lost, a worker killed.

In the end the ledger says of every payment exactly what the provider's books say.
"""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from itertools import accumulate
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import httpx
import pytest
from django.db import connection

from accounts.models import User
from emulators.running import NO_TLS
from inventory.models import Fee
from inventory.money import Money
from orders.checkout import cancel_order
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.models import (
    LedgerEntry,
    Order,
    OrderLine,
    PaymentAttempt,
    QueueEvent,
    QueueEventKind,
    ReviewItem,
    WebhookEvent,
)
from orders.payments import poll_payments, refresh_attempt
from orders.queue import segments, units_ahead
from orders.reconciliation import reconcile
from orders.returns import send_returns
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Listener, Request
from orders.tests.paying import PAID, UNPAID, Door, Standing, begin, hand_on, standing_of, told_by
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
WEBHOOKS = 1_000
LOST = 0.05
# What becomes of how many orders.
FATES: Mapping[str, int] = {
    "paid": 96,
    "declined": 10,
    "paid at the second try": 16,
    "too little": 14,
    "too much": 14,
    "twice": 14,
    "another currency": 8,
    "given back at the desk": 8,
    "cancelled and paid": 6,
    "cancelled, sold and paid": 6,
    "undecided": 8,
}
DECISIONS: Mapping[str, Outcome] = {
    "declined": Outcome.DECLINE,
    "paid at the second try": Outcome.DECLINE,
    "too little": Outcome.PAY_LESS,
    "too much": Outcome.PAY_MORE,
    "twice": Outcome.PAY_TWICE,
    "another currency": Outcome.PAY_OTHER_CURRENCY,
}
WORKER = """
import time
from django.utils import timezone
from orders.payments import process_webhooks
print("at work", flush=True)
while True:
    process_webhooks(now=timezone.now())
    time.sleep(0.05)
"""
# Kind, the provider's id, minor units with our ledger's sign, currency.
Booked = tuple[str, str, int, str]


@dataclass(frozen=True, slots=True)
class Sale:
    """An order, and what is to become of it: one of FATES."""

    order: Order
    fate: str


@pytest.fixture
def dice() -> random.Random:
    return random.Random(20261123)


def test_after_a_storm_of_webhooks_the_ledger_equals_the_providers_books(
    shop: Listener, sandbox: RunningSandbox, door: Door, dice: random.Random
) -> None:
    sales = order_and_pay(sandbox, dice)
    events = told_by(sandbox, shop)
    lost = dice.sample(events, round(len(events) * LOST))
    kept = [event for event in events if event not in lost]
    # Each comes at least once; which come several times is chance.
    storm = [*kept, *dice.choices(kept, k=WEBHOOKS - len(kept))]
    dice.shuffle(storm)

    with worker(sandbox) as doomed, worker(sandbox) as survivor, worker(sandbox):
        answers = in_background(lambda: delivered(door, storm))
        wait_until(lambda: processed() >= len(kept) // 4)
        doomed.send_signal(signal.SIGKILL)
        assert doomed.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        assert processed() < len(kept)  # in the middle of it
        assert answers.result(DEADLINE_SECONDS) == {200: WEBHOOKS}
        wait_until(lambda: processed() == len(kept))
        assert survivor.poll() is None
    assert WebhookEvent.objects.count() == len(kept)

    # The control: without the poller, what only lost webhooks told of is missing, and nothing else.
    untold = {reference_of(event) for event in lost} - {reference_of(event) for event in kept}
    without_untold = [booked for reference, booked in books_of(sandbox) if reference not in untold]
    assert ledger() == sorted(without_untold)
    assert len(without_untold) < len(books_of(sandbox))

    now = datetime.now(UTC)
    poll_payments(now=now + timedelta(seconds=31))
    assert send_returns(now=now) == FATES["twice"] + FATES["cancelled, sold and paid"]
    hand_on(sandbox, shop, door, now=now)

    assert ledger() == sorted(booked for _reference, booked in books_of(sandbox))
    for sale in sales:
        reviews = sorted(sale.order.review_items.values_list("kind", flat=True))
        standing = replace(standing_of(sale.order), reviews=tuple(reviews))
        assert standing == what_follows(sale), sale.fate
    assert not ReviewItem.objects.filter(order=None).exists()
    assert_the_paid_stand_in_line(sandbox)
    assert not WebhookEvent.objects.filter(processed_at=None).exists()
    assert reconcile(now=now + timedelta(days=1)) == 0


def order_and_pay(provider: RunningSandbox, dice: random.Random) -> Sequence[Sale]:
    """Orders of one to three phones, and what their buyers do at the provider's page, all before anybody hears of it."""
    fee, scarce = make_fee(make_plan(cap=10_000), minor=4_990), make_fee(make_plan(cap=1), minor=4_990)
    buyers = [make_user() for _ in range(20)]
    fates = [fate for fate, orders in FATES.items() for _ in range(orders)]
    dice.shuffle(fates)
    sales = []
    for fate in fates:
        wanted = scarce if fate == "cancelled, sold and paid" else fee
        sales.append(Sale(place(wanted, dice.randint(1, 3), customer=dice.choice(buyers)), fate))
    # Somebody else has the scarce phone.
    sales.append(Sale(place(scarce, 1, customer=buyers[0]), "undecided"))
    for sale in sales:
        pay(sale, provider)
    return sales


def place(fee: Fee, units: int, *, customer: User) -> Order:
    return make_order([(fee, units)], customer=customer, placed_at=datetime.now(UTC))


def pay(sale: Sale, provider: RunningSandbox) -> None:
    """Do what the buyer of `sale` does, once and in his order."""
    now = datetime.now(UTC)
    attempt = begin(sale.order, now=now)
    if sale.fate == "undecided":
        return
    if sale.fate.startswith("cancelled"):
        cancel_order(order_id=sale.order.pk, now=now)
    provider.decide(attempt.pay_url, DECISIONS.get(sale.fate, Outcome.APPROVE))
    if sale.fate == "paid at the second try":
        refresh_attempt(attempt_id=attempt.pk, now=now)  # back in the shop, he chooses anew
        provider.decide(begin(sale.order, now=now).pay_url)
    if sale.fate == "given back at the desk":
        give_back_at_the_desk(attempt, provider)


def give_back_at_the_desk(attempt: PaymentAttempt, provider: RunningSandbox) -> None:
    """All of a payment, without the shop."""
    httpx.post(
        f"{provider.url}/v1/refunds",
        headers={**provider.credentials(), "Idempotency-Key": f"desk-{attempt}"},
        json={
            "payment": attempt.provider_id,
            "reference": f"DESK-{attempt}",
            "amount": attempt.amount.written(),
            "currency": attempt.currency,
        },
        verify=NO_TLS,
        trust_env=False,
    ).raise_for_status()


def what_follows(sale: Sale) -> Standing:
    """All that must have become of an order in the end."""
    total = sale.order.total_minor
    captured = ("capture", total, "USD")
    gone = ("refund", -total, "USD")
    paid, cancelled = replace(PAID, ledger=(captured,)), replace(UNPAID, state="cancelled")
    return {
        "paid": paid,
        "declined": UNPAID,
        "paid at the second try": paid,
        "too little": replace(UNPAID, ledger=(("capture", total - 1, "USD"),), reviews=("underpaid",)),
        "too much": replace(paid, ledger=(("capture", total + 100, "USD"),), reviews=("surplus",)),
        "twice": replace(
            paid,
            ledger=(captured, captured, gone),
            returns=(("duplicate", total, "paid"),),
            told=(*paid.told, "money-returned"),
        ),
        "another currency": replace(UNPAID, ledger=(("capture", total, "JPY"),), reviews=("wrong-currency",)),
        "given back at the desk": replace(
            UNPAID, ledger=(captured, gone), reviews=("external-refund", "underpaid")
        ),
        "cancelled and paid": paid,
        "cancelled, sold and paid": replace(
            cancelled,
            ledger=(captured, gone),
            returns=(("late", total, "paid"),),
            told=("money-returned",),
        ),
        "undecided": UNPAID,
    }[sale.fate]


def assert_the_paid_stand_in_line(provider: RunningSandbox) -> None:
    """Once each, in the order of the captures in the provider's books, whoever was heard of first."""
    paid_at: dict[int, datetime] = {}
    orders = dict(PaymentAttempt.objects.values_list("reference", "order_id"))
    for payment in provider.books()["payments"]:
        for capture in payment["captures"]:
            paid_at.setdefault(orders[payment["reference"]], datetime.fromisoformat(capture["at"]))
    line = list(OrderLine.objects.in_queue().order_by("paid_at", "pk"))
    assert [each.paid_at for each in line] == [paid_at[each.order_id] for each in line]
    *ahead, _all = accumulate((each.quantity for each in line), initial=0)
    assert [units_ahead(each) for each in line] == ahead
    joined = QueueEvent.objects.filter(kind=QueueEventKind.JOINED).values_list("line_id", "units")
    assert sorted(joined) == sorted((each.pk, each.quantity) for each in line)
    assert QueueEvent.objects.count() == len(line)
    assert list(segments.wrong_counts()) == []


def delivered(door: Door, storm: Sequence[Request]) -> Mapping[int, int]:
    """How often which status was answered, by four senders at once."""
    with ThreadPoolExecutor(4) as senders:
        return Counter(status for [status] in senders.map(door.deliver, storm))


def processed() -> int:
    return WebhookEvent.objects.exclude(processed_at=None).count()


@contextmanager
def worker(provider: RunningSandbox) -> Iterator[subprocess.Popen[bytes]]:
    """A process of its own that is at work on the inbox until it is ended."""
    server = urlsplit(os.environ["DATABASE_URL"])
    with subprocess.Popen(
        [sys.executable, "manage.py", "shell", "--no-imports", "-c", WORKER],
        cwd=PROJECT,
        stdout=subprocess.PIPE,
        env=os.environ
        | {
            "DATABASE_URL": urlunsplit(server._replace(path=f"/{connection.settings_dict['NAME']}")),
            "SANDBOX_GATEWAY_URL": provider.url,
            "SANDBOX_GATEWAY_KEY": SANDBOX_KEY,
            "SANDBOX_WEBHOOK_SECRET": SANDBOX_SECRET,
            "ALLOW_EMULATORS": "true",
        },
    ) as process:
        assert process.stdout
        try:
            assert process.stdout.readline() == b"at work\n"
            yield process
        finally:
            process.kill()


def wait_until(is_so: Callable[[], bool]) -> None:
    deadline = time.monotonic() + DEADLINE_SECONDS
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def reference_of(event: Request) -> str:
    """Of the payment that the event is about."""
    reference: str = json.loads(event.body)["data"]["reference"]
    return reference


def books_of(provider: RunningSandbox) -> list[tuple[str, Booked]]:
    """Every movement of money in the provider's books: the payment it belongs to, and how our ledger writes it."""
    found = []
    for payment in provider.books()["payments"]:
        for kind, sign, moves in (("capture", 1, payment["captures"]), ("refund", -1, payment["refunds"])):
            for move in moves:
                money = Money.parse(move["amount"], move["currency"])
                found.append((payment["reference"], (kind, move["id"], sign * money.minor, money.currency)))
    return found


def ledger() -> list[Booked]:
    return sorted(LedgerEntry.objects.values_list("kind", "transaction_id", "minor", "currency"))
