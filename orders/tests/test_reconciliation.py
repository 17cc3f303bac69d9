"""Our ledger against the sandbox's books, over real HTTP."""

from datetime import UTC, datetime, timedelta

import pytest

from inventory.money import Money
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.models import EntryKind, LedgerEntry, Order, PaymentAttempt, ReviewItem
from orders.payments import Payer, begin_payment, refresh_attempt
from orders.reconciliation import compare, reconcile
from orders.tests.gateway_servers import Listener
from tests.builders import make_fee, make_order, make_plan

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("shop")]


@pytest.fixture
def now() -> datetime:
    """The gateway lives in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def paid(sandbox: RunningSandbox, shop: Listener, now: datetime) -> PaymentAttempt:
    """A payment of 49.90 USD that both sides know."""
    attempt = begun(now)
    sandbox.decide(attempt.pay_url, Outcome.PAY_UNTOLD)
    return refresh_attempt(attempt_id=attempt.pk, now=now)


def begun(now: datetime) -> PaymentAttempt:
    order: Order = make_order([(make_fee(make_plan(), minor=4_990), 1)], placed_at=now)
    payer = Payer("http://127.0.0.1/back", "en")
    return begin_payment(order_id=order.pk, method="sandbox", payer=payer, now=now)


def said() -> list[str]:
    return list(ReviewItem.objects.order_by("pk").values_list("detail", flat=True))


def test_the_same_books_have_no_differences(paid: PaymentAttempt, now: datetime) -> None:
    day = LedgerEntry.objects.get().occurred_at.date()

    assert compare(gateway="sandbox", day=day, now=now) == 0
    assert said() == []


def test_money_that_only_the_gateway_knows_comes_up_for_review_once(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime
) -> None:
    unheard = begun(now)
    sandbox.decide(unheard.pay_url, Outcome.PAY_UNTOLD)
    day = datetime.now(UTC).date()

    for _ in range(2):
        assert compare(gateway="sandbox", day=day, now=now) == 1

    (detail,) = said()
    transaction = sandbox.books()["payments"][1]["captures"][0]["id"]
    assert detail == (
        f"sandbox, {day}: capture {transaction} of 49.90 USD for {unheard.reference} is in the gateway's books "
        "and not in our ledger."
    )


def test_money_that_only_we_know_and_another_amount_come_up(paid: PaymentAttempt, now: datetime) -> None:
    entry = LedgerEntry.objects.get()
    LedgerEntry.objects.create(
        order=paid.order,
        attempt=paid,
        gateway="sandbox",
        kind=EntryKind.REFUND,
        transaction_id="ref_x",
        minor=-100,
        currency="USD",
        occurred_at=entry.occurred_at,
        recorded_at=now,
    )
    day = entry.occurred_at.date()

    assert compare(gateway="sandbox", day=day, now=now) == 1
    assert said() == [
        f"sandbox, {day}: refund ref_x of 1.00 USD is in our ledger and not in the gateway's books."
    ]


def test_a_gateway_that_is_silent_is_asked_again_tomorrow(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime
) -> None:
    sandbox.set_faults(errors=100)

    assert reconcile(now=now + timedelta(days=1)) == 0
    assert said() == []


def test_the_last_days_are_compared_each_night(paid: PaymentAttempt, now: datetime) -> None:
    LedgerEntry.objects.create(
        order=paid.order,
        attempt=paid,
        gateway="sandbox",
        kind=EntryKind.CAPTURE,
        transaction_id="cap_x",
        minor=Money(4_990, "USD").minor,
        currency="USD",
        occurred_at=now - timedelta(days=2),
        recorded_at=now,
    )

    assert reconcile(now=now) == 1
    assert reconcile(now=now + timedelta(days=2)) == 0


def test_a_day_whose_books_are_not_there_yet_keeps_no_other_from_being_compared(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime
) -> None:
    LedgerEntry.objects.create(
        order=paid.order,
        attempt=paid,
        gateway="sandbox",
        kind=EntryKind.CAPTURE,
        transaction_id="cap_x",
        minor=4_990,
        currency="USD",
        occurred_at=now - timedelta(days=2),
        recorded_at=now,
    )
    sandbox.set_faults(errors=1)  # meets yesterday's

    assert reconcile(now=now) == 1
    day = (now - timedelta(days=2)).date()
    assert said() == [
        f"sandbox, {day}: capture cap_x of 49.90 USD is in our ledger and not in the gateway's books."
    ]
