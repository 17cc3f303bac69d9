"""Our ledger against the providers' books, over real HTTP."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
import time_machine
from pytest_django import Settings

from inventory.money import Money
from orders import gateways, reconciliation
from orders.gateways.emulators import alipay as alipays
from orders.gateways.emulators import wechat as wechats
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.gateways.protocol import Booking, Charge
from orders.gateways.sandbox import SandboxGateway
from orders.models import EntryKind, Ground, LedgerEntry, Order, PaymentAttempt, ReviewItem
from orders.payments import Payer, begin_payment, refresh_attempt
from orders.reconciliation import compare, reconcile
from orders.refunds import approve_refund, request_refund
from orders.tests.backstage_alipay import configured_alipay
from orders.tests.backstage_wechat import configured_wechat
from orders.tests.gateway_servers import Listener
from orders.tests.paying import PAID, begin, standing_of
from tests.builders import make_fee, make_order, make_plan, make_user

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


def test_money_of_a_payment_of_ours_that_only_the_gateway_knows_is_fetched(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime
) -> None:
    unheard = begun(now)
    sandbox.decide(unheard.pay_url, Outcome.PAY_UNTOLD)

    assert compare(gateway="sandbox", day=datetime.now(UTC).date(), now=now) == 0

    assert standing_of(unheard.order) == PAID
    assert said() == []


def test_money_of_a_payment_that_is_not_ours_comes_up_for_review_once(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime
) -> None:
    charge = Charge(
        reference="VM-NOBODY-1",
        amount=Money(4_990, "USD"),
        description="Nobody's",
        return_url="http://127.0.0.1/back",
        expires_at=now + timedelta(minutes=30),
        language="en",
    )
    sandbox.decide(SandboxGateway().open(charge).pay_url, Outcome.PAY_UNTOLD)
    day = datetime.now(UTC).date()

    for _ in range(2):
        assert compare(gateway="sandbox", day=day, now=now) == 1

    (detail,) = said()
    transaction = sandbox.books()["payments"][1]["captures"][0]["id"]
    assert detail == (
        f"sandbox, {day}: capture {transaction} of 49.90 USD for VM-NOBODY-1 is in the gateway's books "
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


def test_day_whose_books_a_gateway_never_shows_comes_up_for_review_when_nobody_asks_for_it_again(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime
) -> None:
    sandbox.set_faults(errors=1_000)

    for night in range(1, 4):
        assert reconcile(now=now + timedelta(days=night)) == 0

    lost = [(now + timedelta(days=night - 3)).date() for night in range(1, 4)]
    assert said() == [
        f"The books of sandbox for {day} could not be compared on any of 3 nights, last: "
        "The sandbox gateway answered with status 500."
        for day in lost
    ]


def test_refused_credentials_come_up_for_review_in_the_first_night(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime, settings: Settings
) -> None:
    settings.SANDBOX_GATEWAY_KEY = "wrong"

    reconcile(now=now + timedelta(days=1))

    assert {*ReviewItem.objects.values_list("kind", flat=True)} == {"gateway-refuses-us", "books-unseen"}


def test_what_goes_wrong_with_one_gateway_keeps_no_other_from_being_compared(
    paid: PaymentAttempt, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Broken(SandboxGateway):
        def bookings(self, *, day: date) -> Iterator[Booking]:
            raise ZeroDivisionError

    both = {"broken": Broken, "sandbox": SandboxGateway}
    for module in (gateways, reconciliation):
        monkeypatch.setattr(module, "GATEWAYS", both)
    make_entry(paid, "cap_x", at=now - timedelta(days=1))

    with pytest.raises(ExceptionGroup) as faults:
        reconcile(now=now)

    assert [type(fault) for fault in faults.value.exceptions] == [ZeroDivisionError] * 3
    assert [detail.split(" ")[:4] for detail in said()] == [
        ["The", "books", "of", "broken"],
        ["sandbox,", f"{(now - timedelta(days=1)).date()}:", "capture", "cap_x"],
    ]


def make_entry(paid: PaymentAttempt, transaction_id: str, *, at: datetime) -> LedgerEntry:
    entry: LedgerEntry = LedgerEntry.objects.create(
        order=paid.order,
        attempt=paid,
        gateway=paid.gateway,
        kind=EntryKind.CAPTURE,
        transaction_id=transaction_id,
        minor=4_990,
        currency="USD",
        occurred_at=at,
        recorded_at=at,
    )
    return entry


def test_the_last_days_are_compared_each_night(paid: PaymentAttempt, now: datetime) -> None:
    make_entry(paid, "cap_x", at=now - timedelta(days=2))

    assert reconcile(now=now) == 1
    assert reconcile(now=now + timedelta(days=2)) == 0


def test_a_day_whose_books_are_not_there_yet_keeps_no_other_from_being_compared(
    paid: PaymentAttempt, sandbox: RunningSandbox, now: datetime
) -> None:
    make_entry(paid, "cap_x", at=now - timedelta(days=2))
    sandbox.set_faults(errors=1)  # meets yesterday's

    assert reconcile(now=now) == 1
    day = (now - timedelta(days=2)).date()
    assert said() == [
        f"sandbox, {day}: capture cap_x of 49.90 USD is in our ledger and not in the gateway's books."
    ]


# --- refunds that only the books tell of -----------------------------------------------------------------

PAID_ON = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
BILLED_ON = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)


OUTCOMES: dict[str, Any] = {"alipay": alipays.Outcome, "wechat": wechats.Outcome}


@pytest.fixture(params=["alipay", "wechat"])
def provider(request: pytest.FixtureRequest, settings: Settings) -> Iterator[tuple[str, Any]]:
    """One of those that do not list the refunds of a payment, by its slug, and running."""
    slug = request.param
    settings.PAYMENT_METHODS = [f"{slug}:CNY={slug}"]
    configured: Any = {"alipay": configured_alipay, "wechat": configured_wechat}[slug]
    with configured(settings) as running:
        yield slug, running


@pytest.fixture
def half_given_back(provider: tuple[str, Any], shop: Listener) -> PaymentAttempt:
    """A payment of which the provider's desk has given a half back; asked about it, the provider does not say so."""
    slug, running = provider
    with time_machine.travel(PAID_ON, tick=False):
        order = make_order([(make_fee(make_plan(), minor=4_990, currency="CNY"), 2)], placed_at=PAID_ON)
        attempt = begin(order, now=PAID_ON, method=slug)
        for outcome in (OUTCOMES[slug].PAY_UNTOLD, OUTCOMES[slug].REFUND_HALF_HERE):
            running.decide(attempt.pay_url or attempt.reference, outcome)
        refreshed = refresh_attempt(attempt_id=attempt.pk, now=PAID_ON)
    assert standing_of(order) == replace(PAID, ledger=(("capture", 9_980, "CNY"),))
    return refreshed


@pytest.mark.payment_case(42)
def test_part_that_the_providers_desk_gave_back_is_booked_from_its_books_and_can_be_settled(
    half_given_back: PaymentAttempt,
) -> None:
    order = half_given_back.order
    with time_machine.travel(BILLED_ON, tick=False):
        for _night in range(2):
            assert reconcile(now=BILLED_ON) == 0

    assert standing_of(order) == replace(
        PAID,
        ledger=(("capture", 9_980, "CNY"), ("refund", -4_990, "CNY")),
        reviews=("external-refund",),
    )
    entry = LedgerEntry.objects.get(kind="refund")
    assert (entry.occurred_at, entry.attempt_id) == (PAID_ON, half_given_back.pk)
    # One of the two units was what it was for.
    line = order.lines.get()
    refund = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="The supplier has given up this model.",
        units={line.pk: 1},
        requested_by_id=make_user(is_staff=True).pk,
        entry_id=entry.pk,
        now=BILLED_ON,
    )
    approve_refund(refund_id=refund.pk, approved_by_id=make_user(is_staff=True).pk, now=BILLED_ON)
    line.refresh_from_db()
    assert (line.waiting_units, standing_of(order).refunds) == (1, ((4_990, "paid"),))


@pytest.mark.payment_case(42)
def test_refund_of_the_books_that_may_be_ours_and_on_its_way_is_left_to_its_own_report(
    half_given_back: PaymentAttempt,
) -> None:
    order = half_given_back.order
    ours = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="The supplier has given up this model.",
        units={order.lines.get().pk: 1},
        requested_by_id=make_user(is_staff=True).pk,
        now=PAID_ON,
    )
    approve_refund(refund_id=ours.pk, approved_by_id=make_user(is_staff=True).pk, now=PAID_ON)

    with time_machine.travel(BILLED_ON, tick=False):
        assert reconcile(now=BILLED_ON) == 1

    assert standing_of(order).ledger == (("capture", 9_980, "CNY"),)
    assert standing_of(order).reviews == ("books-differ",)


def test_books_are_not_followed_below_what_a_payment_holds(paid: PaymentAttempt, now: datetime) -> None:
    """Two refunds of one night, of which the money is there for one."""
    bookings = [
        Booking("refund", f"re-{number}", Money(minor, "USD"), now, paid.reference)
        for number, minor in enumerate((3_000, 3_000, 1_990))
    ]

    moves = list(reconciliation._of_the_desk(paid, bookings))

    assert [move.transaction_id for move in moves] == ["re-0", "re-2"]
