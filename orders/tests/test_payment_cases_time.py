"""Cases 18 to 24 of docs/payment-cases.md: money that comes at the edge of its time, or is not there yet.

Shop and providers live in this process and go by one clock, which the tests set.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
import time_machine

from orders.checkout import expire_orders
from orders.gateways.emulators import paypal as paypals
from orders.gateways.emulators import stripe as stripes
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.emulators.sandbox import Outcome
from orders.models import Order
from orders.payments import poll_payments, process_webhooks
from orders.queue import units_waiting
from orders.returns import send_returns
from orders.tests.gateway_servers import Answer, Listener
from orders.tests.paying import PAID, UNPAID, Door, begin, hand_on, standing_of, told_by
from tests.builders import NOW, make_fee, make_order, make_plan

pytestmark = pytest.mark.django_db(transaction=True)

EXPIRED = replace(UNPAID, state="expired", told=("order-expired",))
PAID_LATE = replace(PAID, told=("order-expired", *PAID.told))


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def order(clock: time_machine.Traveller) -> Order:
    """The only unit that there is, to be paid by 4:30."""
    return make_order([(make_fee(make_plan(cap=1), minor=4_990), 1)], placed_at=NOW)


def paid_at(order: Order) -> datetime | None:
    return Order.objects.get(pk=order.pk).paid_at


def sell_the_last_unit(order: Order) -> None:
    """To somebody else."""
    make_order([(order.lines.get().fee, 1)], paid_at=order.pay_until)


# --- 18, 19, 20: around the deadline --------------------------------------------------------------------


@pytest.mark.payment_case(18)
def test_captured_a_second_before_the_deadline_and_reported_ten_minutes_after_it_is_in_time(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW)
    captured_at = order.pay_until - timedelta(seconds=1)
    clock.move_to(captured_at)
    shop.answers.put(Answer(500))
    sandbox.decide(attempt.pay_url)
    assert shop.next().path == "/webhooks/sandbox/"  # refused: it comes again, signed anew
    reported_at = order.pay_until + timedelta(minutes=10)
    clock.move_to(reported_at, tick=True)
    assert expire_orders(now=reported_at) == 0

    hand_on(sandbox, shop, door, now=reported_at)

    assert (standing_of(order), paid_at(order)) == (PAID, captured_at)
    assert list(order.lines.values_list("paid_at", flat=True)) == [captured_at]
    assert expire_orders(now=reported_at + timedelta(days=1)) == 0


@pytest.mark.payment_case(19)
def test_captured_late_while_the_units_are_still_free_is_accepted_at_its_late_time(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW)
    over = order.pay_until + timedelta(hours=1)
    clock.move_to(over)
    assert expire_orders(now=over) == 1
    hand_on(sandbox, shop, door, now=over)
    assert standing_of(order) == EXPIRED

    sandbox.decide(attempt.pay_url, Outcome.PAY_LATE)
    hand_on(sandbox, shop, door, now=over)

    assert (standing_of(order), paid_at(order)) == (PAID_LATE, over)
    # That it was late is on record for good: both times are written once.
    assert order.pay_until < over


@pytest.mark.payment_case(20)
def test_captured_late_when_the_units_are_gone_goes_back_in_full_by_itself_and_the_buyer_is_told(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW)
    over = order.pay_until + timedelta(hours=1)
    clock.move_to(over)
    expire_orders(now=over)
    sell_the_last_unit(order)

    sandbox.decide(attempt.pay_url, Outcome.PAY_LATE)
    hand_on(sandbox, shop, door, now=over)
    due = replace(
        EXPIRED,
        ledger=(("capture", 4_990, "USD"),),
        returns=(("late", 4_990, "due"),),
        told=("order-expired", "money-returned"),
    )
    assert standing_of(order) == due
    assert send_returns(now=over) == 1
    hand_on(sandbox, shop, door, now=over)

    assert standing_of(order) == replace(
        due,
        ledger=(("capture", 4_990, "USD"), ("refund", -4_990, "USD")),
        returns=(("late", 4_990, "paid"),),
    )
    assert [refund["amount"] for refund in sandbox.books()["payments"][0]["refunds"]] == ["49.90"]


# --- 21: Stripe's half hour ------------------------------------------------------------------------------


@pytest.mark.payment_case(21)
def test_stripes_session_that_outlives_the_order_is_closed_by_us(
    stripe: RunningStripe, shop: Listener, order: Order, clock: time_machine.Traveller
) -> None:
    clock.move_to(order.pay_until - timedelta(minutes=1))
    attempt = begin(order, now=order.pay_until - timedelta(minutes=1), method="card")
    [session] = stripe.books()["sessions"]
    lives_until = datetime.fromtimestamp(session["expires_at"], UTC)
    over = order.pay_until + timedelta(minutes=15)
    assert over < lives_until
    clock.move_to(over)

    assert expire_orders(now=over) == 1
    assert poll_payments(now=over) == 1

    stripe.decide(attempt.pay_url)
    assert [session["status"] for session in stripe.books()["sessions"]] == ["expired"]
    attempt.refresh_from_db()
    assert (standing_of(order), attempt.state) == (EXPIRED, "cancelled")


@pytest.mark.payment_case(21)
@pytest.mark.parametrize("units", ["free", "gone"])
def test_stripes_session_that_is_paid_when_we_close_it_is_late_money(
    stripe: RunningStripe,
    shop: Listener,
    order: Order,
    door: Door,
    clock: time_machine.Traveller,
    units: str,
) -> None:
    clock.move_to(order.pay_until - timedelta(minutes=1))
    attempt = begin(order, now=order.pay_until - timedelta(minutes=1), method="card")
    over = order.pay_until + timedelta(minutes=15)
    clock.move_to(over)
    assert expire_orders(now=over) == 1
    if units == "gone":
        sell_the_last_unit(order)
    stripe.decide(attempt.pay_url, stripes.Outcome.PAY_UNTOLD)

    assert poll_payments(now=over) == 1

    if units == "free":
        assert (standing_of(order), paid_at(order)) == (PAID_LATE, over)
        return
    assert send_returns(now=over) == 1
    hand_on(stripe, shop, door, now=over)
    assert standing_of(order) == replace(
        EXPIRED,
        ledger=(("capture", 4_990, "USD"), ("refund", -4_990, "USD")),
        returns=(("late", 4_990, "paid"),),
        told=("order-expired", "money-returned"),
    )
    assert [refund["amount"] for refund in stripe.books()["refunds"]] == [4_990]


# --- 22, 23: PayPal has it, or nearly ------------------------------------------------------------------------


@pytest.mark.payment_case(22)
def test_paypal_that_was_approved_by_a_buyer_who_never_came_back_is_captured_on_the_webhook(
    paypal: RunningPayPal, shop: Listener, order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW, method="paypal")
    paypal.decide(attempt.pay_url, paypals.Outcome.APPROVE_AND_LEAVE)
    assert paypal.books()["orders"][0]["status"] == "APPROVED"
    captured_at = NOW + timedelta(minutes=3)
    clock.move_to(captured_at)

    hand_on(paypal, shop, door, now=captured_at)

    assert (standing_of(order), paid_at(order)) == (PAID, captured_at)
    assert paypal.books()["orders"][0]["status"] == "COMPLETED"


@pytest.mark.payment_case(23)
def test_capture_that_paypal_holds_gives_no_place_in_the_queue_until_it_is_released(
    paypal: RunningPayPal, shop: Listener, order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW, method="paypal")
    paypal.decide(attempt.pay_url, paypals.Outcome.HOLD)
    for _event in ("approved", "capture pending"):
        hand_on(paypal, shop, door, now=NOW)

    attempt.refresh_from_db()
    assert (standing_of(order), attempt.state) == (UNPAID, "confirming")
    assert units_waiting(plan_id=order.lines.get().plan_id) == 0
    # Nor does it lose its units while PayPal decides.
    later = NOW + timedelta(hours=2)
    clock.move_to(later)
    assert expire_orders(now=later) == 0

    paypal.decide(attempt.pay_url, paypals.Outcome.RELEASE)
    hand_on(paypal, shop, door, now=later)

    assert (standing_of(order), paid_at(order)) == (PAID, NOW)
    assert units_waiting(plan_id=order.lines.get().plan_id) == 1


@pytest.mark.payment_case(23)
def test_capture_that_paypal_held_and_denied_leaves_the_order_payable(
    paypal: RunningPayPal, shop: Listener, order: Order, door: Door, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW, method="paypal")
    paypal.decide(attempt.pay_url, paypals.Outcome.HOLD)
    hand_on(paypal, shop, door, now=NOW)

    paypal.decide(attempt.pay_url, paypals.Outcome.DENY)
    hand_on(paypal, shop, door, now=NOW)

    attempt.refresh_from_db()
    assert (standing_of(order), attempt.state) == (UNPAID, "declined")
    paypal.decide(begin(order, now=NOW, method="paypal").pay_url)
    hand_on(paypal, shop, door, now=NOW)
    assert standing_of(order) == PAID


# --- 24: Beijing ---------------------------------------------------------------------------------------------


@pytest.mark.payment_case(24)
def test_alipays_time_is_read_as_beijings_whatever_day_it_is_there(
    alipay: RunningAlipay, shop: Listener, door: Door, clock: time_machine.Traveller
) -> None:
    begun_at = datetime(2026, 11, 23, 15, 50, tzinfo=UTC)
    clock.move_to(begun_at)
    fee = make_fee(make_plan(), minor=4_990, currency="CNY")
    order = make_order([(fee, 1)], placed_at=begun_at)
    attempt = begin(order, now=begun_at, method="alipay")
    captured_at = begun_at + timedelta(minutes=20)
    clock.move_to(captured_at)
    shop.answers.put(Answer(body=b"success"))
    alipay.decide(attempt.pay_url)
    [webhook] = told_by(alipay, shop)
    assert b"2026-11-24+00%3A10%3A00" in webhook.body

    assert door.deliver(webhook) == [200]
    process_webhooks(now=captured_at)

    assert (standing_of(order), paid_at(order)) == (
        replace(PAID, ledger=(("capture", 4_990, "CNY"),)),
        captured_at,
    )
