"""Cases 25 to 29 of docs/payment-cases.md: what is asked for twice happens once, and what was paid twice goes back.

Case 30 is about coins: `test_payments_by_coins`.
"""

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import httpx
import pytest
import time_machine
from django.db import IntegrityError

from orders import ledger
from orders.gateways.emulators import paypal as paypals
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.paypal import PayPalGateway
from orders.gateways.protocol import Charge, Opened, Snapshot, Unavailable
from orders.gateways.sandbox import SandboxGateway
from orders.ledger import apply_snapshot
from orders.models import AttemptState, MoneyReturn, Order, PaymentAttempt
from orders.payments import NotPayable, poll_payments, process_webhooks, refresh_attempt
from orders.returns import send_returns
from orders.tests.gateway_servers import Listener
from orders.tests.paying import PAID, UNPAID, Door, begin, hand_on, standing_of, told_by
from tests.builders import NOW, make_attempt, make_fee, make_order, make_plan
from tests.racing import failures, in_background, race, wait_until_blocked

pytestmark = pytest.mark.django_db(transaction=True)

PAID_TWICE = replace(
    PAID,
    ledger=(("capture", 4_990, "USD"), ("capture", 4_990, "USD")),
    returns=(("duplicate", 4_990, "due"),),
    told=(*PAID.told, "money-returned"),
)
HALF_GIVEN_BACK = replace(
    PAID_TWICE,
    ledger=(*PAID_TWICE.ledger, ("refund", -4_990, "USD")),
    returns=(("duplicate", 4_990, "paid"),),
)


@pytest.fixture
def now() -> datetime:
    """The providers live in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def order(now: datetime) -> Order:
    return make_order([(make_fee(make_plan(), minor=4_990), 1)], placed_at=now)


def press_pay(door: Door, order: Order) -> httpx.Response:
    with door.browser_of(order) as browser:
        return browser.post(f"/orders/{order.reference}/pay/", data={"method": "sandbox"})


# --- 25: the button ----------------------------------------------------------------------------------


@pytest.mark.payment_case(25)
def test_second_click_on_pay_leads_to_the_first_ones_payment(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door
) -> None:
    answers = [press_pay(door, order) for _click in range(2)]

    [payment] = sandbox.books()["payments"]
    assert [(answer.status_code, answer.headers["Location"]) for answer in answers] == [
        (302, payment["pay_url"])
    ] * 2
    assert (order.attempts.count(), standing_of(order)) == (1, UNPAID)


@pytest.mark.postgres
@pytest.mark.payment_case(25)
def test_eight_clicks_on_pay_at_once_make_one_payment(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door
) -> None:
    answers = race(*[lambda: press_pay(door, order)] * 8)

    [payment] = sandbox.books()["payments"]
    assert [(answer.status_code, answer.headers["Location"]) for answer in answers] == [
        (302, payment["pay_url"])
    ] * 8
    assert (order.attempts.count(), standing_of(order)) == (1, UNPAID)


@pytest.mark.postgres
def test_control_without_the_orders_lock_the_database_refuses_the_second_payment(
    sandbox: RunningSandbox, shop: Listener, order: Order, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_looked, create = threading.Barrier(2), PaymentAttempt.objects.create

    def create_when_both_have_looked(**fields: Any) -> PaymentAttempt:
        both_have_looked.wait(60)
        return create(**fields)

    monkeypatch.setattr("django.db.models.query.QuerySet.select_for_update", lambda rows, **_: rows)
    monkeypatch.setattr(PaymentAttempt.objects, "create", create_when_both_have_looked)

    outcomes = race(*[lambda: begin(order, now=now)] * 2)

    assert [type(failure) for failure in failures(outcomes)] == [IntegrityError]
    assert order.attempts.count() == 1


# --- 25, 34: another way to pay, while the money of the first is on its way -----------------------------


def see_coming(attempt: PaymentAttempt, *, now: datetime) -> None:
    """Have the gateway report that the money of `attempt` is on its way."""
    apply_snapshot(attempt_id=attempt.pk, snapshot=Snapshot("pay_1", AttemptState.CONFIRMING), now=now)


@pytest.mark.payment_case(34)
def test_no_second_payment_is_begun_while_one_is_being_confirmed(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    first = make_attempt(order)
    see_coming(first, now=now)

    refused = press_pay(door, order)

    assert refused.status_code == 200
    assert "A payment of this order is being confirmed." in refused.text
    assert (sandbox.books()["payments"], order.attempts.count()) == ([], 1)

    # It never came: the order is paid in another way.
    apply_snapshot(attempt_id=first.pk, snapshot=Snapshot("pay_1", AttemptState.DECLINED), now=now)
    assert press_pay(door, order).status_code == 302


@pytest.mark.payment_case(34)
def test_nobody_is_led_to_a_payment_if_another_is_seen_while_it_is_being_opened(
    sandbox: RunningSandbox, shop: Listener, order: Order, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, open_at_gateway = make_attempt(order), SandboxGateway.open

    def open_slowly(gateway: SandboxGateway, charge: Charge) -> Opened:
        opened = open_at_gateway(gateway, charge)
        see_coming(first, now=now)
        return opened

    monkeypatch.setattr(SandboxGateway, "open", open_slowly)

    with pytest.raises(NotPayable, match="being confirmed"):
        begin(order, now=now)


def click_during_the_report(
    order: Order, *, now: datetime, monkeypatch: pytest.MonkeyPatch, meanwhile: Callable[["Future[Any]"], Any]
) -> "Future[Any]":
    """Press Pay when a report that another payment is on its way is written and not committed. `meanwhile` gets the
    click, and says when the report may go on.
    """
    first, advance = make_attempt(order), ledger._advance
    written, may_go_on = threading.Event(), threading.Event()

    def advance_and_wait(*what: Any, **when: Any) -> None:
        advance(*what, **when)
        written.set()
        assert may_go_on.wait(60)

    monkeypatch.setattr(ledger, "_advance", advance_and_wait)
    report = in_background(lambda: see_coming(first, now=now))
    assert written.wait(60)
    click = in_background(lambda: begin(order, now=now))
    try:
        meanwhile(click)
    finally:
        may_go_on.set()
    report.result(60)
    return click


@pytest.mark.postgres
@pytest.mark.payment_case(34)
def test_click_that_comes_with_the_report_of_another_payment_waits_for_it_and_is_refused(
    sandbox: RunningSandbox, shop: Listener, order: Order, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    click = click_during_the_report(
        order, now=now, monkeypatch=monkeypatch, meanwhile=lambda _click: wait_until_blocked()
    )

    with pytest.raises(NotPayable, match="being confirmed"):
        click.result(60)
    assert (sandbox.books()["payments"], order.attempts.count()) == ([], 1)


@pytest.mark.postgres
def test_control_without_the_orders_lock_the_click_overtakes_the_report_and_opens_a_second_payment(
    sandbox: RunningSandbox, shop: Listener, order: Order, now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("django.db.models.query.QuerySet.select_for_update", lambda rows, **_: rows)

    click_during_the_report(order, now=now, monkeypatch=monkeypatch, meanwhile=lambda click: click.result(60))

    states = order.attempts.order_by("pk").values_list("state", flat=True)
    assert (len(sandbox.books()["payments"]), list(states)) == (1, ["confirming", "pending"])


# --- 26: paid by two ways ------------------------------------------------------------------------------


def capture_by_both(order: Order, paypal: RunningPayPal, stripe: RunningStripe, now: datetime) -> None:
    """Have the money of two payments taken, before the shop knows of either."""
    by_paypal = begin(order, now=now, method="paypal")
    by_card = begin(order, now=now, method="card")
    paypal.decide(by_paypal.pay_url)
    # As by a worker of ours that is killed when PayPal has answered.
    PayPalGateway().fetch(reference=by_paypal.reference, provider_id=by_paypal.provider_id)
    stripe.decide(by_card.pay_url)


def given_back(paypal: RunningPayPal, stripe: RunningStripe) -> list[object]:
    """The amounts that both providers have given back."""
    units = [order["purchase_units"][0] for order in paypal.books()["orders"]]
    by_paypal = [
        refund["amount"]["value"] for unit in units for refund in unit["payments"].get("refunds", [])
    ]
    return [*by_paypal, *(refund["amount"] for refund in stripe.books()["refunds"])]


@pytest.mark.payment_case(26)
def test_order_paid_by_card_and_by_paypal_is_paid_once_and_the_second_goes_back_in_full(
    paypal: RunningPayPal,
    stripe: RunningStripe,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
) -> None:
    capture_by_both(order, paypal, stripe, now)
    paypal.wait_for_webhooks()
    hand_on(stripe, shop, door, now=now)
    assert standing_of(order) == PAID_TWICE
    back = MoneyReturn.objects.get()

    assert send_returns(now=now) == 1
    poll_payments(now=now)

    assert standing_of(order) == HALF_GIVEN_BACK
    assert given_back(paypal, stripe) == ["49.90" if back.attempt.gateway == "paypal" else 4_990]
    assert send_returns(now=now) == 0


@pytest.mark.postgres
@pytest.mark.payment_case(26)
def test_card_and_paypal_reported_at_the_same_moment_pay_once_and_the_other_goes_back_in_full(
    paypal: RunningPayPal,
    stripe: RunningStripe,
    shop: Listener,
    order: Order,
    now: datetime,
) -> None:
    capture_by_both(order, paypal, stripe, now)

    outcomes = race(
        *[
            lambda attempt=attempt: refresh_attempt(attempt_id=attempt.pk, now=now)
            for attempt in order.attempts.all()
            for _worker in range(4)
        ]
    )

    assert failures(outcomes) == []
    assert standing_of(order) == PAID_TWICE
    assert failures(race(*[lambda: send_returns(now=now)] * 4)) == []
    poll_payments(now=now)
    assert standing_of(order) == HALF_GIVEN_BACK
    assert len(given_back(paypal, stripe)) == 1


@pytest.mark.payment_case(26)
def test_paypal_that_was_approved_and_not_yet_captured_is_let_go_when_the_card_was_faster(
    paypal: RunningPayPal,
    stripe: RunningStripe,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
) -> None:
    by_paypal = begin(order, now=now, method="paypal")
    stripe.decide(begin(order, now=now, method="card").pay_url)
    hand_on(stripe, shop, door, now=now)
    paypal.decide(by_paypal.pay_url, paypals.Outcome.APPROVE_AND_LEAVE)

    hand_on(paypal, shop, door, now=now)

    assert standing_of(order) == PAID
    [unit] = paypal.books()["orders"][0]["purchase_units"]
    assert "payments" not in unit
    by_paypal.refresh_from_db()
    assert by_paypal.state == AttemptState.CANCELLED


# --- 27, 28, 29: lost answers ------------------------------------------------------------------------------


@pytest.mark.payment_case(27)
@pytest.mark.parametrize(
    ("gateway", "method", "objects"),
    [("sandbox", "sandbox", "payments"), ("stripe", "card", "sessions"), ("paypal", "paypal", "orders")],
)
def test_creation_whose_answer_is_lost_is_repeated_by_its_key_and_makes_one_payment(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    method: str,
    objects: str,
) -> None:
    provider = request.getfixturevalue(gateway)
    provider.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        begin(order, now=now, method=method)

    attempt = begin(order, now=now, method=method)

    assert [each["id"] for each in provider.books()[objects]] == [attempt.provider_id]
    assert order.attempts.count() == 1
    provider.decide(attempt.pay_url)
    hand_on(provider, shop, door, now=now)
    assert standing_of(order) == PAID


@pytest.mark.payment_case(28)
def test_capture_whose_answer_is_lost_is_found_by_asking_and_booked_once(
    paypal: RunningPayPal, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    paypal.decide(begin(order, now=now, method="paypal").pay_url)
    assert door.deliver(*told_by(paypal, shop)) == [200]
    paypal.set_faults(lost_answers=1)
    assert process_webhooks(now=now) == 0
    assert (standing_of(order), captures(paypal)) == (UNPAID, 1)

    assert process_webhooks(now=now + timedelta(minutes=1)) == 1
    hand_on(paypal, shop, door, now=now)

    assert (standing_of(order), captures(paypal)) == (PAID, 1)


def captures(paypal: RunningPayPal) -> int:
    units = [order["purchase_units"][0] for order in paypal.books()["orders"]]
    return sum(len(unit["payments"]["captures"]) for unit in units if "payments" in unit)


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def long_order(clock: time_machine.Traveller) -> Order:
    """An order that may be paid for a day, as after a guardian has confirmed."""
    fee = make_fee(make_plan(), minor=4_990)
    return make_order([(fee, 1)], placed_at=NOW, pay_until=NOW + timedelta(days=1))


@pytest.mark.payment_case(29)
def test_capture_is_looked_for_and_not_repeated_when_paypal_has_forgotten_its_key(
    paypal: RunningPayPal, shop: Listener, long_order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    paypal.decide(begin(long_order, now=NOW, method="paypal").pay_url)
    door.deliver(*told_by(paypal, shop))
    paypal.set_faults(lost_answers=1)
    assert process_webhooks(now=NOW) == 0
    later = NOW + timedelta(hours=7)
    clock.move_to(later)

    assert process_webhooks(now=later) == 1

    assert (standing_of(long_order), captures(paypal)) == (PAID, 1)
    assert Order.objects.get(pk=long_order.pk).paid_at == NOW


@pytest.mark.payment_case(29)
def test_creation_repeated_when_paypal_has_forgotten_its_key_is_paid_once(
    paypal: RunningPayPal, shop: Listener, long_order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    paypal.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        begin(long_order, now=NOW, method="paypal")
    later = NOW + timedelta(hours=7)
    clock.move_to(later)

    attempt = begin(long_order, now=later, method="paypal")

    # Nobody was told where to pay the first one.
    orphan, known = paypal.books()["orders"]
    assert (orphan["status"], known["id"]) == ("PAYER_ACTION_REQUIRED", attempt.provider_id)
    paypal.decide(attempt.pay_url)
    hand_on(paypal, shop, door, now=later)
    assert (standing_of(long_order), captures(paypal)) == (PAID, 1)
