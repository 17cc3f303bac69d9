"""Cases 30 to 38: orders that are paid in coins, by each gateway that takes them, over real HTTP.

Shop and providers live in this process and go by one clock, which the tests set.
"""

from collections.abc import Iterator
from dataclasses import replace
from datetime import datetime, timedelta
from decimal import Decimal
from typing import TypeAlias

import httpx
import pytest
import time_machine
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from notices.models import Notice
from notices.rendering import render
from orders.checkout import CONFIRMING_HOLDS, expire_orders
from orders.gateways import nowpayments as nowpayments_gateway
from orders.gateways.emulators.chain import COIN_PRICES, Deed
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_btcpay import RunningBtcpay
from orders.gateways.emulators.running_nowpayments import RunningNowpayments
from orders.gateways.protocol import CoinProgress, Snapshot, Unavailable
from orders.ledger import apply_snapshot
from orders.models import AttemptState, Ground, Order, PaymentAttempt, Refund, ReviewItem
from orders.offers import stocks
from orders.payments import NotPayable, poll_payments, process_webhooks, refresh_attempt
from orders.refunds import approve_refund, request_refund
from orders.returns import send_returns
from orders.tests.backstage_btcpay import STORE_ID, configured_btcpay
from orders.tests.backstage_nowpayments import configured_nowpayments
from orders.tests.gateway_servers import Listener
from orders.tests.paying import PAID, UNPAID, Door, begin, hand_on, standing_of, told_by
from orders.tests.shopping import log_in
from tests.builders import NOW, make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db(transaction=True)

Chain: TypeAlias = RunningBtcpay | RunningNowpayments

# At 97 000 USD for a bitcoin, 49.90 USD are so many.
IN_BITCOIN = "0.00051444"
EXPIRED = replace(UNPAID, state="expired", told=("order-expired",))


@pytest.fixture
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture(params=["btcpay", "nowpayments"])
def chain(
    request: pytest.FixtureRequest,
    clock: time_machine.Traveller,
    shop: Listener,
    settings: Settings,
) -> Iterator[Chain]:
    """A chain of bitcoin behind either provider, and the method bitcoin by it. Webhooks go to `shop`."""
    # Ports come again, and what is remembered of an address with them.
    nowpayments_gateway._tokens.clear()
    settings.PAYMENT_METHODS = ["sandbox=sandbox", f"bitcoin={request.param}"]
    if request.param == "btcpay":
        with configured_btcpay(settings) as server:
            yield server
    else:
        with configured_nowpayments(settings) as provider:
            yield provider


@pytest.fixture
def nowpayments(
    clock: time_machine.Traveller, shop: Listener, settings: Settings
) -> Iterator[RunningNowpayments]:
    nowpayments_gateway._tokens.clear()
    with configured_nowpayments(settings) as running:
        yield running


@pytest.fixture
def order(clock: time_machine.Traveller) -> Order:
    """The only unit that there is, to be paid by 4:30."""
    return make_order([(make_fee(make_plan(cap=1), minor=4_990), 1)], placed_at=NOW)


def attempt_of(order: Order) -> PaymentAttempt:
    return order.attempts.get(method="bitcoin")


def paid_at(order: Order) -> datetime | None:
    return Order.objects.get(pk=order.pk).paid_at


def units_left(order: Order) -> int:
    plan = order.lines.get().plan
    return stocks([plan])[plan.pk].left


def pay_page(door: Door, order: Order) -> str:
    with door.browser_of(order) as browser:
        return browser.get(f"/orders/{order.reference}/pay/").raise_for_status().text


def order_page(door: Door, order: Order) -> str:
    with door.browser_of(order) as browser:
        return browser.get(order.get_absolute_url()).raise_for_status().text


# --- 30: an answer that is lost -------------------------------------------------------------------------


@pytest.mark.payment_case(30)
def test_creation_that_timed_out_is_found_by_the_next_click_and_its_address_pays(
    chain: Chain, shop: Listener, door: Door, order: Order
) -> None:
    chain.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        begin(order, now=NOW, method="bitcoin")
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.PAY)

    hand_on(chain, shop, door, now=NOW)

    assert (standing_of(order), order.attempts.count()) == (PAID, 1)


@pytest.mark.payment_case(30)
def test_either_address_credits_the_order_when_there_are_two(
    chain: Chain, shop: Listener, door: Door, order: Order
) -> None:
    """Two creations at one moment, each of which found nothing yet."""
    attempt = begin(order, now=NOW, method="bitcoin")
    second = created_again(chain, attempt, shop)
    chain.do(second, Deed.PAY)

    hand_on(chain, shop, door, now=NOW)

    attempt.refresh_from_db()
    assert second != attempt.provider_id
    assert (standing_of(order), attempt.state) == (PAID, AttemptState.CAPTURED)


def created_again(chain: Chain, attempt: PaymentAttempt, shop: Listener) -> str:
    """The id of one more payment with the reference of `attempt`."""
    if isinstance(chain, RunningBtcpay):
        path, name = f"/api/v1/stores/{STORE_ID}/invoices", "id"
        asked: dict[str, object] = {
            "amount": "49.90",
            "currency": "USD",
            "metadata": {"orderId": attempt.reference},
            "checkout": {
                "speedPolicy": "MediumSpeed",
                "paymentMethods": ["BTC-CHAIN"],
                "expirationMinutes": 30,
                "monitoringMinutes": 60,
                "paymentTolerance": 0,
                "redirectURL": "http://127.0.0.1/back",
            },
        }
    else:
        path, name = "/v1/payment", "payment_id"
        asked = {
            "price_amount": 49.9,
            "price_currency": "usd",
            "pay_currency": "btc",
            "order_id": attempt.reference,
            "order_description": "VIP",
            "ipn_callback_url": f"{shop.url}/webhooks/nowpayments/",
        }
    answer = httpx.post(chain.url + path, json=asked, headers=chain.credentials(), trust_env=False)
    return str(answer.raise_for_status().json()[name])


# --- 31, 32, 33: too few and too many -------------------------------------------------------------------


@pytest.mark.payment_case(31)
def test_too_few_coins_do_not_pay_and_the_page_says_what_is_missing_until_it_has_come(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND, "0.0005")
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=NOW)

    attempt.refresh_from_db()
    assert attempt.instructions
    assert (standing_of(order), attempt.state) == (UNPAID, AttemptState.PENDING)
    assert attempt.progress
    assert (attempt.progress["missing"], attempt.progress["qr"]) == (
        "0.00001444",
        f"bitcoin:{attempt.instructions['address']}?amount=0.00001444",
    )
    page = pay_page(door, order)
    assert "Send what is missing" in page
    assert '<dt>Still missing</dt><dd><span class="mono">0.00001444 BTC</span></dd>' in page
    assert '<dt>Received so far</dt><dd><span class="mono">0.0005 BTC</span></dd>' in page
    assert attempt.instructions["address"] in page

    topped_up_at = order.pay_until - timedelta(seconds=1)
    clock.move_to(topped_up_at)
    chain.do(attempt.provider_id, Deed.SEND, "0.00001444")
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=topped_up_at)

    paid = replace(PAID, ledger=(("capture", 4_849, "USD"), ("capture", 141, "USD")))
    assert (standing_of(order), paid_at(order)) == (paid, topped_up_at)


@pytest.mark.payment_case(31)
def test_too_few_coins_when_the_time_is_over_are_for_a_person_and_in_no_ledger(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND, "0.0005")
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=NOW)
    over = order.pay_until + settings.PAYMENT_GRACE
    clock.move_to(over)

    assert expire_orders(now=over) == 1
    for _again in range(2):
        refresh_attempt(attempt_id=attempt.pk, now=over)

    assert standing_of(order) == replace(EXPIRED, reviews=("underpaid",))
    assert ReviewItem.objects.get().detail == (
        f"Order {order.reference}, payment {attempt.reference}: 0.0005 of {IN_BITCOIN} BTC have come, "
        "and the time to pay is over."
    )


@pytest.mark.payment_case(32)
def test_sixty_and_forty_percent_pay_when_both_are_confirmed(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND_PART)
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=NOW)
    completed_at = NOW + timedelta(minutes=10)
    clock.move_to(completed_at)
    chain.do(attempt.provider_id, Deed.SEND)
    hand_on(chain, shop, door, now=completed_at)
    assert (standing_of(order), attempt_of(order).state) == (UNPAID, AttemptState.CONFIRMING)

    confirmed_at = NOW + timedelta(minutes=25)
    clock.move_to(confirmed_at)
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=confirmed_at)

    paid = replace(PAID, ledger=(("capture", 2_993, "USD"), ("capture", 1_997, "USD")))
    assert (standing_of(order), paid_at(order)) == (paid, completed_at)


@pytest.mark.payment_case(33)
def test_ten_percent_too_much_pays_and_a_person_sees_to_the_rest(
    chain: Chain, shop: Listener, door: Door, order: Order
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND_MORE)
    chain.do(attempt.provider_id, Deed.CONFIRM)

    hand_on(chain, shop, door, now=NOW)

    assert standing_of(order) == replace(PAID, ledger=(("capture", 5_488, "USD"),), reviews=("surplus",))
    assert "4.98" in ReviewItem.objects.get().detail


# --- 34, 35: seen, and perhaps never confirmed ----------------------------------------------------------


@pytest.mark.payment_case(34)
def test_coins_seen_in_time_hold_the_order_and_count_from_when_they_were_seen(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    hand_on(chain, shop, door, now=NOW)
    seen_at = order.pay_until - timedelta(minutes=1)
    clock.move_to(seen_at)
    chain.do(attempt.provider_id, Deed.SEND)
    hand_on(chain, shop, door, now=seen_at)
    attempt.refresh_from_db()
    assert (attempt.state, attempt.confirming_since) == (AttemptState.CONFIRMING, seen_at)
    page = pay_page(door, order)
    assert "Your payment is being confirmed." in page
    # Nothing invites to pay a second time.
    assert 'name="method"' not in page

    confirmed_at = order.pay_until + timedelta(hours=6)
    clock.move_to(confirmed_at)
    assert (expire_orders(now=confirmed_at), units_left(order)) == (0, 0)
    with door.browser_of(order) as browser:
        page = browser.get(order.get_absolute_url()).text
    assert "<strong>Your payment is being confirmed.</strong> Your units are held meanwhile." in page
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=confirmed_at)

    attempt.refresh_from_db()
    assert (standing_of(order), paid_at(order)) == (PAID, seen_at)
    assert (attempt.state, attempt.confirming_since) == (AttemptState.CAPTURED, None)


@pytest.mark.payment_case(34)
def test_coins_that_no_block_takes_up_hold_the_order_for_a_day_and_not_for_ever(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND)
    hand_on(chain, shop, door, now=NOW)
    over = order.pay_until + CONFIRMING_HOLDS

    assert expire_orders(now=over - timedelta(seconds=1)) == 0
    assert (expire_orders(now=over), units_left(order)) == (1, 1)

    # Confirmed after all, it is late money: there is room still.
    clock.move_to(over + timedelta(hours=1))
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=over + timedelta(hours=1))
    assert standing_of(order) == replace(PAID, told=("order-expired", *PAID.told))


@pytest.mark.payment_case(31, 34)
def test_part_that_is_seen_neither_holds_the_order_nor_gives_it_a_place(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND, "0.00001")
    hand_on(chain, shop, door, now=NOW)
    assert attempt_of(order).state == AttemptState.PENDING
    over = order.pay_until + settings.PAYMENT_GRACE
    clock.move_to(over)
    assert expire_orders(now=over) == 1

    completed_at = over + timedelta(hours=1)
    clock.move_to(completed_at)
    chain.do(attempt.provider_id, Deed.SEND)
    chain.do(attempt.provider_id, Deed.CONFIRM)
    hand_on(chain, shop, door, now=completed_at)

    assert (standing_of(order).state, paid_at(order)) == ("paid", completed_at)


@pytest.mark.payment_case(34)
def test_pay_page_counts_confirmations(door: Door, order: Order, nowpayments: RunningNowpayments) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    progress = CoinProgress("BTC", due=IN_BITCOIN, received=IN_BITCOIN, confirmations=1, needed=3)
    snapshot = Snapshot(attempt.provider_id, AttemptState.CONFIRMING, progress=progress)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=NOW)
    attempt.refresh_from_db()
    with door.browser_of(order) as browser:
        live = f"/orders/{order.reference}/pay/live/"
        assert "1 of 3 confirmations." in pay_page(door, order)
        shown = {"seen": attempt.seen_as, "offered": ""}
        assert browser.get(live, params=shown).status_code == 204
        two = replace(snapshot, progress=replace(progress, confirmations=2))
        apply_snapshot(attempt_id=attempt.pk, snapshot=two, now=NOW)
        assert "2 of 3 confirmations." in browser.get(live, params=shown).text


@pytest.mark.payment_case(35)
def test_coins_that_were_spent_elsewhere_leave_the_order_unpaid_and_payable(
    chain: Chain,
    sandbox: RunningSandbox,
    shop: Listener,
    door: Door,
    order: Order,
    clock: time_machine.Traveller,
) -> None:
    """Beside a second payment, which the buyer had begun before."""
    other = begin(order, now=NOW)
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND)
    hand_on(chain, shop, door, now=NOW)
    with pytest.raises(NotPayable):
        begin(order, now=NOW)
    chain.do(attempt.provider_id, Deed.DROP)

    refreshed = refresh_attempt(attempt_id=attempt.pk, now=NOW)

    assert (refreshed.state, refreshed.confirming_since, refreshed.progress) == (
        AttemptState.PENDING,
        None,
        None,
    )
    assert standing_of(order) == UNPAID
    assert begin(order, now=NOW, method="bitcoin") == attempt
    assert begin(order, now=NOW) == other
    sandbox.decide(other.pay_url)
    told_by(chain, shop)
    hand_on(sandbox, shop, door, now=NOW)
    refresh_attempt(attempt_id=other.pk, now=NOW)
    assert standing_of(order) == PAID


@pytest.mark.payment_case(35)
def test_coins_that_were_spent_elsewhere_hold_the_order_no_longer(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.SEND)
    hand_on(chain, shop, door, now=NOW)
    over = order.pay_until + settings.PAYMENT_GRACE
    clock.move_to(over)
    assert expire_orders(now=over) == 0
    chain.do(attempt.provider_id, Deed.DROP)
    refresh_attempt(attempt_id=attempt.pk, now=over)

    assert expire_orders(now=over) == 1

    assert standing_of(order) == EXPIRED


# --- 36, 37, 38: late, at another price, in another coin ------------------------------------------------


def paid_three_days_late(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> datetime:
    """Let the order expire and coins come when nobody is told of them; answer when they came."""
    attempt = begin(order, now=NOW, method="bitcoin")
    over = order.pay_until + settings.PAYMENT_GRACE
    clock.move_to(over)
    assert expire_orders(now=over) == 1
    poll_payments(now=over)
    late = order.pay_until + timedelta(days=3)
    clock.move_to(late)
    told_by(chain, shop)
    chain.do(attempt.provider_id, Deed.PAY_UNTOLD)
    assert told_by(chain, shop) == []
    return late


@pytest.mark.payment_case(36)
def test_coins_three_days_late_are_found_by_the_poller_and_accepted_while_there_is_room(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> None:
    late = paid_three_days_late(chain, shop, door, order, clock, settings)

    assert poll_payments(now=late) == 1

    assert standing_of(order) == replace(PAID, told=("order-expired", *PAID.told))
    assert paid_at(order) == late


@pytest.mark.payment_case(36)
def test_coins_three_days_late_go_back_when_there_is_no_room(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> None:
    """BTCPay Server makes a claim of it for the buyer; NOWPayments leaves it to a person."""
    late = paid_three_days_late(chain, shop, door, order, clock, settings)
    make_order([(order.lines.get().fee, 1)], paid_at=order.pay_until)

    assert poll_payments(now=late) == 1

    returned = replace(
        EXPIRED,
        ledger=(("capture", 4_990, "USD"),),
        returns=(("late", 4_990, "due"),),
        told=("order-expired", "money-returned"),
    )
    assert standing_of(order) == returned
    send_returns(now=late)
    if isinstance(chain, RunningNowpayments):
        assert standing_of(order) == replace(
            returned, returns=(("late", 4_990, "failed"),), reviews=("return-failed",)
        )
        return
    assert standing_of(order) == returned
    (claim,) = chain.books()["pull_payments"]
    for _again in range(2):
        poll_payments(now=late)
        refresh_attempt(attempt_id=attempt_of(order).pk, now=late)
    returned = replace(returned, told=(*returned.told, "money-to-claim"))
    assert standing_of(order) == returned
    link = f'href="{chain.url}/pull-payments/{claim["id"]}"'
    page = order_page(door, order)
    assert (link in page, "It is on its way." in page, 'hx-trigger="every 5s"' in page) == (True, False, True)
    # Who took it up is not asked to do so again.
    chain.decide_claim(claim["id"], "claim")
    refresh_attempt(attempt_id=attempt_of(order).pk, now=late)
    assert (link in order_page(door, order), "It is on its way." in order_page(door, order)) == (False, True)
    chain.decide_claim(claim["id"], "pay")
    refresh_attempt(attempt_id=attempt_of(order).pk, now=late)
    assert standing_of(order) == replace(
        returned, ledger=(*returned.ledger, ("refund", -4_990, "USD")), returns=(("late", 4_990, "paid"),)
    )


@pytest.mark.clause("3.3")
@pytest.mark.payment_case(54)
def test_refund_of_coins_is_claimed_by_a_link_that_only_its_customer_sees(
    shop: Listener, door: Door, order: Order, clock: time_machine.Traveller, settings: Settings
) -> None:
    settings.PAYMENT_METHODS = ["bitcoin=btcpay"]
    with configured_btcpay(settings) as chain:
        attempt = begin(order, now=NOW, method="bitcoin")
        chain.do(attempt.provider_id, Deed.PAY)
        hand_on(chain, shop, door, now=NOW)
        staff = [make_user(is_staff=True) for _person in range(2)]
        refund = request_refund(
            order_id=order.pk,
            ground=Ground.UNABLE_TO_SUPPLY,
            explanation="None will come.",
            units={order.lines.get().pk: 1},
            requested_by_id=staff[0].pk,
            now=NOW,
        )
        approve_refund(refund_id=refund.pk, approved_by_id=staff[1].pk, now=NOW)
        assert send_returns(now=NOW) == 1
        refresh_attempt(attempt_id=attempt.pk, now=NOW)
        (claim,) = chain.books()["pull_payments"]
        link = f"{chain.url}/pull-payments/{claim['id']}"

        page = order_page(door, order)
        assert (f'href="{link}"' in page, "Waits for you" in page) == (True, True)
        told = render(Notice.objects.get(kind="money-to-claim"))
        assert "$49.90 of order" in told.body
        desk = Client()
        log_in(desk, staff[0])
        seen = [desk.get(address).content.decode() for address in pages_about(refund, attempt)]
        assert "waits for the customer, who finds the link on the order" in seen[0]
        assert [text for text in (told.subject, told.body, *seen) if claim["id"] in text] == []


def pages_about(refund: Refund, attempt: PaymentAttempt) -> list[str]:
    return [
        reverse("admin:orders_refund_change", args=[refund.pk]),
        reverse("admin:orders_paymentattempt_change", args=[attempt.pk]),
        reverse("admin:orders_paymentattempt_changelist"),
        reverse("admin:orders_order_change", args=[refund.order_id]),
    ]


@pytest.mark.payment_case(26, 36)
def test_address_is_asked_about_daily_for_a_week_after_its_time_whatever_became_of_the_payment(
    chain: Chain, shop: Listener, door: Door, order: Order, clock: time_machine.Traveller
) -> None:
    """Coins to an address that has paid already are given back."""
    attempt = begin(order, now=NOW, method="bitcoin")
    chain.do(attempt.provider_id, Deed.PAY)
    hand_on(chain, shop, door, now=NOW)
    assert standing_of(order) == PAID
    asked: list[timedelta] = []
    at = NOW
    while (next_at := attempt_of(order).next_poll_at) is not None:
        at = next_at
        clock.move_to(at)
        if len(asked) == 32:
            chain.do(attempt.provider_id, Deed.PAY_UNTOLD, IN_BITCOIN)
        assert poll_payments(now=at) == 1
        asked.append(at - attempt.expires_at)
    assert sum(age <= timedelta(hours=24) for age in asked) == 28
    assert [age.days for age in asked if age > timedelta(hours=24)] == [1, 2, 3, 4, 5, 6]
    assert standing_of(order) == replace(
        PAID,
        ledger=(("capture", 4_990, "USD"),) * 2,
        returns=(("duplicate", 4_990, "due"),),
        told=(*PAID.told, "money-returned"),
    )


@pytest.mark.payment_case(37)
def test_locked_quote_decides_whatever_a_coin_costs_when_it_comes(
    chain: Chain, shop: Listener, door: Door, order: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    attempt = begin(order, now=NOW, method="bitcoin")
    monkeypatch.setitem(COIN_PRICES, "BTC", Decimal(10_000))
    chain.do(attempt.provider_id, Deed.PAY)

    hand_on(chain, shop, door, now=NOW)

    assert attempt.instructions
    assert attempt.instructions["coin_amount"] == IN_BITCOIN
    assert standing_of(order) == PAID


@pytest.mark.payment_case(38)
@pytest.mark.parametrize("method", ["bitcoin", "ethereum"])
def test_wrong_coin_is_for_a_person_once_and_never_credited(
    nowpayments: RunningNowpayments, shop: Listener, door: Door, order: Order, method: str
) -> None:
    """No other coin can come to an address of BTCPay Server, which is one of bitcoin's chain."""
    attempt = begin(order, now=NOW, method=method)
    nowpayments.do(attempt.provider_id, Deed.SEND_WRONG_COIN, "50")
    hand_on(nowpayments, shop, door, now=NOW)
    refresh_attempt(attempt_id=attempt.pk, now=NOW)

    assert standing_of(order) == replace(UNPAID, reviews=("wrong-currency",))
    assert "50 USDTERC20 came in a wrong coin and do not count" in ReviewItem.objects.get().detail
    # The buyer may still pay what was asked for.
    nowpayments.do(attempt.provider_id, Deed.PAY)
    hand_on(nowpayments, shop, door, now=NOW)
    assert standing_of(order) == replace(PAID, reviews=("wrong-currency",))


@pytest.mark.clause("3.1")
def test_ether_pays_like_bitcoin(
    nowpayments: RunningNowpayments, shop: Listener, door: Door, order: Order
) -> None:
    attempt = begin(order, now=NOW, method="ethereum")
    assert attempt.instructions
    assert attempt.instructions["coin"] == "ETH"
    nowpayments.do(attempt.provider_id, Deed.PAY)
    hand_on(nowpayments, shop, door, now=NOW)
    assert process_webhooks(now=NOW) == 0
    assert standing_of(order) == PAID
