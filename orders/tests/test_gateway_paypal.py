"""The PayPal gateway against its emulator, and against a PayPal that answers nonsense, late, too much or nothing."""

import base64
import gzip
import json
import logging
import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import paypal as adapter
from orders.gateways.emulators.paypal import Outcome
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.gateways.paypal import PayPalGateway
from orders.gateways.protocol import (
    Booking,
    Charge,
    CredentialsRefused,
    Declined,
    MoneyMoved,
    Opened,
    Return,
    Snapshot,
    Unavailable,
)
from orders.tests.backstage_paypal import (
    PAYPAL_CLIENT_ID,
    PAYPAL_CLIENT_SECRET,
    PAYPAL_WEBHOOK_ID,
    configured_paypal,
)
from orders.tests.gateway_servers import Answer, Listener, listening

ORDER_ID = "5O190127TN364715T"
CAPTURE_ID = "3C679366HH908993F"
REFUND_ID = "1JU08902781691411"
CHARGE = Charge(
    reference="T-1",
    amount=Money(4990, "USD"),
    description="VIP, 30 days",
    return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
    expires_at=datetime(2099, 1, 1, tzinfo=UTC),
    language="en",
)
AT = "2026-11-23T08:00:00Z"
MOVED_AT = datetime(2026, 11, 23, 8, tzinfo=UTC)
TOKEN = Answer(
    body=b'{"access_token": "A21.token-of-the-tests", "token_type": "Bearer", "expires_in": 32400}'
)


@pytest.fixture
def paypal(shop: Listener, settings: Settings) -> Iterator[RunningPayPal]:
    """PayPal's emulator, running, and settings that lead to it. Webhooks go to `shop`."""
    with configured_paypal(settings) as running:
        yield running


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A PayPal that has given a token and answers whatever the test wants."""
    with listening() as listener:
        settings.ALLOW_EMULATORS = True
        settings.PAYPAL_URL = listener.url
        settings.PAYPAL_CLIENT_ID = PAYPAL_CLIENT_ID
        settings.PAYPAL_CLIENT_SECRET = PAYPAL_CLIENT_SECRET
        settings.PAYPAL_WEBHOOK_ID = PAYPAL_WEBHOOK_ID
        # Ports come again, and the tokens that are kept with them.
        adapter._tokens.clear()
        listener.answers.put(TOKEN)
        yield listener


def answering(provider: Listener, *contents: object) -> None:
    for content in contents:
        provider.answers.put(Answer(body=json.dumps(content).encode()))


def refusing(provider: Listener, status: int, issue: str) -> None:
    body = {
        "name": "REFUSED",
        "message": "No.",
        "details": [{"issue": issue, "description": "It cannot be."}],
    }
    provider.answers.put(Answer(status=status, body=json.dumps(body).encode()))


def usd(value: str) -> dict[str, str]:
    return {"currency_code": "USD", "value": value}


def a_capture(**changes: object) -> dict[str, object]:
    return {"id": CAPTURE_ID, "status": "COMPLETED", "amount": usd("49.90"), "create_time": AT, **changes}


def a_refund(**changes: object) -> dict[str, object]:
    return {
        "id": REFUND_ID,
        "status": "COMPLETED",
        "amount": usd("49.90"),
        "invoice_id": "R-1",
        "create_time": AT,
        **changes,
    }


def an_order(
    *, captures: object = None, refunds: object = None, unit: object = None, **changes: object
) -> dict[str, object]:
    payments = {
        name: value for name, value in (("captures", captures), ("refunds", refunds)) if value is not None
    }
    return {
        "id": ORDER_ID,
        "status": "COMPLETED" if captures else "PAYER_ACTION_REQUIRED",
        "intent": "CAPTURE",
        "purchase_units": [
            {
                "custom_id": "T-1",
                "invoice_id": "T-1",
                "amount": usd("49.90"),
                **({"payments": payments} if payments else {}),
                **(unit if isinstance(unit, dict) else {}),
            }
        ],
        **changes,
    }


NO_DISPUTES: dict[str, object] = {"items": []}


def fetched(reference: str = "T-1", provider_id: str = ORDER_ID) -> Snapshot:
    snapshot = PayPalGateway().fetch(reference=reference, provider_id=provider_id)
    assert snapshot
    return snapshot


def captured(paypal: RunningPayPal, reference: str = "T-1") -> Opened:
    """A payment that is paid."""
    opened = PayPalGateway().open(replace(CHARGE, reference=reference))
    paypal.decide(opened.pay_url)
    assert fetched(reference, opened.provider_id).state == "captured"
    return opened


# --- opening -----------------------------------------------------------------------------------------


def test_order_is_asked_for_in_paypals_words(provider: Listener) -> None:
    link = {"rel": "payer-action", "href": f"{provider.url}/checkoutnow?token={ORDER_ID}"}
    answering(provider, an_order(links=[{"rel": "self", "href": "x"}, link]))
    opened = PayPalGateway().open(replace(CHARGE, language="zh-hans"))
    assert opened == Opened(ORDER_ID, f"{provider.url}/checkoutnow?token={ORDER_ID}")
    provider.next()
    request = provider.next()
    assert (request.method, request.path) == ("POST", "/v2/checkout/orders")
    assert request.headers["paypal-request-id"] == "T-1:create"
    assert request.headers["prefer"] == "return=representation"
    assert request.headers["authorization"] == "Bearer A21.token-of-the-tests"
    assert json.loads(request.body) == {
        "intent": "CAPTURE",
        "purchase_units": [
            {
                "reference_id": "T-1",
                "custom_id": "T-1",
                "invoice_id": "T-1",
                "description": "VIP, 30 days",
                "amount": {"currency_code": "USD", "value": "49.90"},
            }
        ],
        "payment_source": {
            "paypal": {
                "experience_context": {
                    "brand_name": "VMOS Cloud",
                    "locale": "zh-CN",
                    "return_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
                    "cancel_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
                    "user_action": "PAY_NOW",
                    "shipping_preference": "NO_SHIPPING",
                }
            }
        },
    }


def test_long_description_is_cut_to_what_paypal_takes(paypal: RunningPayPal) -> None:
    PayPalGateway().open(replace(CHARGE, description="云" * 200))
    (order,) = paypal.books()["orders"]
    assert order["purchase_units"][0]["description"] == "云" * 127


@pytest.mark.parametrize(
    "url", ["https://evil.example/pay", "javascript:alert(1)", "/pay", "{}.evil.example/", "{}@evil.example/"]
)
def test_buyer_is_never_sent_to_another_site(provider: Listener, url: str) -> None:
    answering(provider, an_order(links=[{"rel": "payer-action", "href": url.format(provider.url)}]))
    with pytest.raises(Unavailable, match="address"):
        PayPalGateway().open(CHARGE)


@pytest.mark.parametrize(
    ("url", "site", "certificates"),
    [
        ("https://api-m.paypal.com", "https://www.paypal.com", "https://api.paypal.com"),
        (
            "https://api-m.sandbox.paypal.com",
            "https://www.sandbox.paypal.com",
            "https://api.sandbox.paypal.com",
        ),
        ("http://127.0.0.1:8007", "http://127.0.0.1:8007", "http://127.0.0.1:8007"),
    ],
)
def test_live_sandbox_and_emulator_each_have_their_own_hosts(
    settings: Settings, url: str, site: str, certificates: str
) -> None:
    settings.PAYPAL_URL = url
    assert (adapter._site("www"), adapter._site("api")) == (site, certificates)


@pytest.mark.parametrize(
    "order", [an_order(unit={"custom_id": "T-2"}), an_order(links=[]), an_order(id="5O190127tn"), {}]
)
def test_order_that_was_not_asked_for_is_unavailable(provider: Listener, order: object) -> None:
    answering(provider, order)
    with pytest.raises(Unavailable):
        PayPalGateway().open(CHARGE)


@pytest.mark.payment_case(27)
def test_creation_that_times_out_and_its_repetition_make_one_order(paypal: RunningPayPal) -> None:
    paypal.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        PayPalGateway().open(CHARGE)
    opened = PayPalGateway().open(CHARGE)
    assert [order["id"] for order in paypal.books()["orders"]] == [opened.provider_id]


def test_looking_for_an_order_by_reference_makes_none(paypal: RunningPayPal) -> None:
    assert PayPalGateway().fetch(reference="T-1", provider_id="") is None
    assert paypal.books()["orders"] == []
    opened = PayPalGateway().open(CHARGE)
    assert fetched("T-1", "").provider_id == opened.provider_id


def test_key_of_a_creation_is_good_for_six_hours(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=7)):
        assert PayPalGateway().fetch(reference="T-1", provider_id="") is None
        assert fetched("T-1", opened.provider_id).state == "pending"


def test_yuan_are_not_among_the_currencies_as_paypal_refuses_them(paypal: RunningPayPal) -> None:
    assert "CNY" not in PayPalGateway.currencies
    with pytest.raises(Declined, match="not currently supported"):
        PayPalGateway().open(replace(CHARGE, amount=Money(4990, "CNY")))


@pytest.mark.payment_case(16)
def test_yen_are_sent_and_read_without_decimals(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(replace(CHARGE, amount=Money(499, "JPY")))
    paypal.decide(opened.pay_url)
    assert [capture.amount for capture in fetched("T-1", opened.provider_id).captures] == [Money(499, "JPY")]


# --- capturing ---------------------------------------------------------------------------------------


@pytest.mark.payment_case(22)
def test_approved_order_is_captured_when_it_is_asked_about(paypal: RunningPayPal) -> None:
    """The browser died, and a webhook or the poller comes by."""
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url, Outcome.APPROVE_AND_LEAVE)
    assert paypal.books()["orders"][0]["status"] == "APPROVED"
    snapshot = fetched("T-1", opened.provider_id)
    assert (snapshot.state, [capture.amount for capture in snapshot.captures]) == (
        "captured",
        [Money(4990, "USD")],
    )


def test_order_is_captured_once_however_often_and_at_once_it_is_asked_about(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url)
    with ThreadPoolExecutor(6) as pool:
        snapshots = list(pool.map(lambda _number: fetched("T-1", opened.provider_id), range(6)))
    assert len({snapshot.captures for snapshot in snapshots}) == 1
    assert len(snapshots[0].captures) == 1


def test_capture_asks_with_its_own_key_and_believes_only_the_order(provider: Listener) -> None:
    answering(
        provider,
        an_order(status="APPROVED"),
        {"id": ORDER_ID, "status": "COMPLETED"},
        an_order(captures=[a_capture(amount=usd("49.89"))]),
        NO_DISPUTES,
    )
    # Case 13: the amount is as PayPal states it, to the cent.
    assert fetched().captures == (MoneyMoved(CAPTURE_ID, Money(4989, "USD"), MOVED_AT),)
    requests = provider.rest()
    assert [(request.method, request.path) for request in requests[1:]] == [
        ("GET", f"/v2/checkout/orders/{ORDER_ID}"),
        ("POST", f"/v2/checkout/orders/{ORDER_ID}/capture"),
        ("GET", f"/v2/checkout/orders/{ORDER_ID}"),
        ("GET", f"/v1/customer/disputes?disputed_transaction_id={CAPTURE_ID}"),
    ]
    assert [request.headers.get("paypal-request-id") for request in requests[1:]] == [
        None,
        "T-1:capture",
        None,
        None,
    ]


@pytest.mark.payment_case(14)
def test_currency_is_the_one_that_was_captured(provider: Listener) -> None:
    in_yen = a_capture(amount={"currency_code": "JPY", "value": "4990"})
    answering(provider, an_order(captures=[in_yen]), NO_DISPUTES)
    assert [capture.amount for capture in fetched().captures] == [Money(4990, "JPY")]


@pytest.mark.payment_case(28)
def test_lost_answer_to_a_capture_is_found_at_the_next_look(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url)
    paypal.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        PayPalGateway().fetch(reference="T-1", provider_id=opened.provider_id)
    assert len(fetched("T-1", opened.provider_id).captures) == 1
    assert len(paypal.books()["orders"][0]["purchase_units"][0]["payments"]["captures"]) == 1


@pytest.mark.payment_case(29)
def test_captured_order_is_only_looked_at_however_late(paypal: RunningPayPal) -> None:
    """The key of the capture is forgotten after six hours."""
    opened = captured(paypal)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=7)):
        assert len(fetched("T-1", opened.provider_id).captures) == 1


def test_capture_that_somebody_else_made_meanwhile_is_read(provider: Listener) -> None:
    answering(provider, an_order(status="APPROVED"))
    refusing(provider, 422, "ORDER_ALREADY_CAPTURED")
    answering(provider, an_order(captures=[a_capture()]), NO_DISPUTES)
    assert fetched().captures == (MoneyMoved(CAPTURE_ID, Money(4990, "USD"), MOVED_AT),)


@pytest.mark.payment_case(23)
@pytest.mark.parametrize(
    ("outcome", "state", "captures"),
    [(Outcome.RELEASE, "captured", [Money(4990, "USD")]), (Outcome.DENY, "declined", [])],
)
def test_capture_that_is_held_is_no_money_until_it_is_released(
    paypal: RunningPayPal, outcome: Outcome, state: str, captures: list[Money]
) -> None:
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url, Outcome.HOLD)
    assert fetched("T-1", opened.provider_id) == Snapshot(
        provider_id=opened.provider_id, state="confirming", problem="PENDING_REVIEW"
    )
    paypal.decide(opened.pay_url, outcome)
    snapshot = fetched("T-1", opened.provider_id)
    assert (snapshot.state, [capture.amount for capture in snapshot.captures]) == (state, captures)


def test_declined_capture_says_why(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url, Outcome.DECLINE)
    assert fetched("T-1", opened.provider_id) == Snapshot(
        provider_id=opened.provider_id, state="declined", problem="DECLINED_BY_RISK_FRAUD_FILTERS"
    )


@pytest.mark.payment_case(52)
def test_refused_card_leaves_the_order_payable_by_another(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url, Outcome.REFUSE_CARD)
    snapshot = fetched("T-1", opened.provider_id)
    assert (snapshot.state, snapshot.captures) == ("pending", ())
    assert "declined by the processor" in snapshot.problem
    paypal.decide(opened.pay_url)
    assert fetched("T-1", opened.provider_id).state == "captured"


def test_approval_that_nobody_used_is_taken_back_and_the_payment_cancelled(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url, Outcome.APPROVE_AND_LEAVE)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=4)):
        snapshot = fetched("T-1", opened.provider_id)
    assert (snapshot.state, snapshot.captures) == ("cancelled", ())


def test_buyer_who_cancels_has_decided_nothing(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    answer = paypal.decide(opened.pay_url, Outcome.CANCEL)
    assert answer.headers["location"] == f"{CHARGE.return_url}?token={opened.provider_id}"
    assert fetched("T-1", opened.provider_id).state == "pending"


@pytest.mark.payment_case(53)
def test_order_that_was_approved_and_then_closed_is_never_captured(paypal: RunningPayPal) -> None:
    """The shop was faster."""
    opened = PayPalGateway().open(CHARGE)
    paypal.decide(opened.pay_url, Outcome.APPROVE_AND_LEAVE)
    PayPalGateway().close(provider_id=opened.provider_id)
    assert fetched("T-1", opened.provider_id) == Snapshot(provider_id=opened.provider_id, state="cancelled")
    assert "payments" not in paypal.books()["orders"][0]["purchase_units"][0]


@pytest.mark.payment_case(53)
def test_closing_between_a_look_and_its_capture_keeps_the_money_where_it_is(provider: Listener) -> None:
    """At the same moment: PayPal refuses the capture."""
    answering(provider, an_order(status="APPROVED"))
    refusing(provider, 422, "ACTION_DOES_NOT_MATCH_INTENT")
    answering(provider, an_order(status="APPROVED", intent="AUTHORIZE"))
    assert fetched() == Snapshot(ORDER_ID, "cancelled", problem="PayPal refused: It cannot be.")


# --- giving back -------------------------------------------------------------------------------------


def test_refund_names_the_refund_and_the_payment(provider: Listener) -> None:
    answering(provider, an_order(captures=[a_capture()]), a_refund(amount=usd("10.00")))
    PayPalGateway().give_back(Return("R-1", ORDER_ID, Money(1000, "USD")))
    request = provider.rest()[-1]
    assert request.path == f"/v2/payments/captures/{CAPTURE_ID}/refund"
    assert request.headers["paypal-request-id"] == "R-1"
    assert json.loads(request.body) == {
        "amount": {"currency_code": "USD", "value": "10.00"},
        "invoice_id": "R-1",
        "custom_id": "T-1",
    }


def test_refund_confirmed_with_another_reference_is_unavailable(provider: Listener) -> None:
    answering(provider, an_order(captures=[a_capture()]), a_refund(invoice_id="R-2"))
    with pytest.raises(Unavailable):
        PayPalGateway().give_back(Return("R-1", ORDER_ID, Money(1000, "USD")))


@pytest.mark.payment_case(29, 39)
def test_refund_asked_for_again_after_its_key_is_forgotten_is_still_one(paypal: RunningPayPal) -> None:
    opened = captured(paypal)
    refund = Return("R-1", opened.provider_id, Money(1000, "USD"))
    PayPalGateway().give_back(refund)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=50)):
        PayPalGateway().give_back(refund)
        assert [back.amount for back in fetched("T-1", opened.provider_id).refunds] == [Money(1000, "USD")]


@pytest.mark.payment_case(40)
def test_two_refunds_at_once_never_exceed_the_capture(paypal: RunningPayPal) -> None:
    opened = captured(paypal)

    def give_back(reference: str) -> str:
        try:
            PayPalGateway().give_back(Return(reference, opened.provider_id, Money(3000, "USD")))
        except Declined as no:
            return str(no)
        return "accepted"

    with ThreadPoolExecutor(2) as pool:
        results = sorted(pool.map(give_back, ("R-1", "R-2")))
    assert results[1] == "accepted"
    assert results[0].startswith("PayPal refused: The refund amount must be less than or equal")
    assert [back.amount for back in fetched("T-1", opened.provider_id).refunds] == [Money(3000, "USD")]


@pytest.mark.payment_case(41)
def test_refund_that_waits_is_shown_when_it_is_complete(paypal: RunningPayPal) -> None:
    opened = captured(paypal)
    paypal.decide(opened.pay_url, Outcome.DELAY_REFUNDS)
    PayPalGateway().give_back(Return("R-1", opened.provider_id, Money(1000, "USD")))
    waiting = fetched("T-1", opened.provider_id)
    assert (waiting.refunds, waiting.refused_returns) == ((), ())
    paypal.decide(opened.pay_url, Outcome.COMPLETE_REFUNDS)
    assert [(back.amount, back.reference) for back in fetched("T-1", opened.provider_id).refunds] == [
        (Money(1000, "USD"), "R-1")
    ]


@pytest.mark.payment_case(41)
def test_refund_that_fails_in_the_end_is_reported_and_moved_nothing(paypal: RunningPayPal) -> None:
    opened = captured(paypal)
    paypal.decide(opened.pay_url, Outcome.DELAY_REFUNDS)
    PayPalGateway().give_back(Return("R-1", opened.provider_id, Money(4990, "USD")))
    paypal.decide(opened.pay_url, Outcome.FAIL_REFUNDS)
    snapshot = fetched("T-1", opened.provider_id)
    [refused] = snapshot.refused_returns
    assert snapshot.refunds == ()
    assert (refused.reference, refused.problem) == ("R-1", "FAILED")
    assert refused.transaction_id
    assert snapshot.state == "captured"


@pytest.mark.payment_case(42)
def test_refund_made_at_paypals_desk_is_none_that_we_asked_for(paypal: RunningPayPal) -> None:
    """It bears the invoice of the payment, which is no name of a refund."""
    opened = captured(paypal)
    PayPalGateway().give_back(Return("R-1", opened.provider_id, Money(1000, "USD")))
    paypal.decide(opened.pay_url, Outcome.REFUND_HERE)
    assert [(back.amount, back.reference) for back in fetched("T-1", opened.provider_id).refunds] == [
        (Money(1000, "USD"), "R-1"),
        (Money(3990, "USD"), ""),
    ]


@pytest.mark.payment_case(43)
def test_captures_can_be_given_back_for_180_days() -> None:
    assert PayPalGateway().refundable_for("paypal") == timedelta(days=180)


# --- disputes ----------------------------------------------------------------------------------------


def moved(movements: tuple[MoneyMoved, ...]) -> list[Money]:
    return [movement.amount for movement in movements]


@pytest.mark.payment_case(44)
def test_chargeback_takes_the_money_and_winning_it_gives_it_again(paypal: RunningPayPal) -> None:
    opened = captured(paypal)
    paypal.decide(opened.pay_url, Outcome.CHARGE_BACK)
    taken = fetched("T-1", opened.provider_id)
    assert (moved(taken.chargebacks), moved(taken.reversals)) == ([Money(4990, "USD")], [])
    paypal.decide(opened.pay_url, Outcome.WIN)
    won = fetched("T-1", opened.provider_id)
    assert won.chargebacks == taken.chargebacks
    assert moved(won.reversals) == [Money(4990, "USD")]
    assert won.reversals[0].transaction_id == won.chargebacks[0].transaction_id
    assert (won.state, won.refunds) == ("captured", ())


def test_lost_chargeback_stays_taken(paypal: RunningPayPal) -> None:
    opened = captured(paypal)
    paypal.decide(opened.pay_url, Outcome.CHARGE_BACK)
    paypal.decide(opened.pay_url, Outcome.LOSE)
    snapshot = fetched("T-1", opened.provider_id)
    assert (moved(snapshot.chargebacks), moved(snapshot.reversals)) == ([Money(4990, "USD")], [])


@pytest.mark.parametrize(
    ("outcome", "taken"),
    [(Outcome.WIN, []), (Outcome.LOSE, [Money(4990, "USD")]), (Outcome.CHARGE_BACK, [Money(4990, "USD")])],
)
def test_inquiry_takes_nothing_unless_it_is_lost_or_escalates(
    paypal: RunningPayPal, outcome: Outcome, taken: list[Money]
) -> None:
    opened = captured(paypal)
    paypal.decide(opened.pay_url, Outcome.INQUIRE)
    assert fetched("T-1", opened.provider_id).chargebacks == ()
    paypal.decide(opened.pay_url, outcome)
    snapshot = fetched("T-1", opened.provider_id)
    assert (moved(snapshot.chargebacks), snapshot.reversals) == (taken, ())


@pytest.mark.payment_case(45)
def test_dispute_after_a_full_refund_is_seen(paypal: RunningPayPal) -> None:
    opened = captured(paypal)
    PayPalGateway().give_back(Return("R-1", opened.provider_id, Money(4990, "USD")))
    paypal.decide(opened.pay_url, Outcome.CHARGE_BACK)
    snapshot = fetched("T-1", opened.provider_id)
    assert (moved(snapshot.refunds), moved(snapshot.chargebacks)) == ([Money(4990, "USD")],) * 2


def a_dispute(**changes: object) -> dict[str, object]:
    return {
        "dispute_id": "PP-D-1",
        "status": "UNDER_REVIEW",
        "dispute_life_cycle_stage": "CHARGEBACK",
        "dispute_amount": usd("49.90"),
        "create_time": AT,
        "update_time": "2026-11-24T08:00:00Z",
        "disputed_transactions": [{"seller_transaction_id": CAPTURE_ID, "custom": "T-1"}],
        **changes,
    }


def test_what_a_dispute_took_is_not_counted_as_a_refund_as_well(provider: Listener) -> None:
    reversal = a_refund(invoice_id="T-1")
    answering(
        provider,
        an_order(captures=[a_capture()], refunds=[reversal]),
        {"items": [{"dispute_id": "PP-D-1"}]},
        a_dispute(),
    )
    snapshot = fetched()
    assert snapshot.refunds == ()
    assert snapshot.chargebacks == (MoneyMoved("PP-D-1", Money(4990, "USD"), MOVED_AT),)


def test_reversal_without_a_dispute_is_a_refund_that_we_did_not_ask_for(provider: Listener) -> None:
    reversal = a_refund(invoice_id="T-1")
    answering(provider, an_order(captures=[a_capture()], refunds=[reversal]), NO_DISPUTES)
    assert fetched().refunds == (MoneyMoved(REFUND_ID, Money(4990, "USD"), MOVED_AT),)


def test_dispute_that_is_lost_in_part_gives_the_rest_again(provider: Listener) -> None:
    outcome = {"outcome_code": "RESOLVED_BUYER_FAVOUR", "amount_refunded": usd("20.00")}
    answering(
        provider,
        an_order(captures=[a_capture()]),
        {"items": [{"dispute_id": "PP-D-1"}]},
        a_dispute(status="RESOLVED", dispute_outcome=outcome),
    )
    snapshot = fetched()
    assert snapshot.reversals == (
        MoneyMoved("PP-D-1", Money(2990, "USD"), datetime(2026, 11, 24, 8, tzinfo=UTC)),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"dispute_id": "PP-D-2"},
        {"dispute_amount": usd("0.00")},
        {"status": "RESOLVED"},
        {"dispute_life_cycle_stage": None},
        {"create_time": "yesterday"},
        {
            "status": "RESOLVED",
            "dispute_outcome": {
                "outcome_code": "ACCEPTED",
                "amount_refunded": {"currency_code": "JPY", "value": "1"},
            },
        },
    ],
    ids=repr,
)
def test_dispute_that_makes_no_sense_is_unavailable(provider: Listener, changes: dict[str, object]) -> None:
    answering(
        provider,
        an_order(captures=[a_capture()]),
        {"items": [{"dispute_id": "PP-D-1"}]},
        a_dispute(**changes),
    )
    with pytest.raises(Unavailable):
        fetched()


@pytest.mark.parametrize("item", [None, {"dispute_id": "../../_books"}, {}])
def test_list_of_disputes_that_makes_no_sense_is_unavailable(provider: Listener, item: object) -> None:
    answering(provider, an_order(captures=[a_capture()]), {"items": [item]})
    with pytest.raises(Unavailable):
        fetched()


# --- bookings ----------------------------------------------------------------------------------------


def test_bookings_are_what_the_snapshots_say(paypal: RunningPayPal) -> None:
    first, second = captured(paypal, "T-1"), captured(paypal, "T-2")
    PayPalGateway().give_back(Return("R-1", first.provider_id, Money(1000, "USD")))
    paypal.decide(second.pay_url, Outcome.CHARGE_BACK)
    paypal.decide(second.pay_url, Outcome.WIN)
    expected = set()
    for reference, opened in (("T-1", first), ("T-2", second)):
        snapshot = fetched(reference, opened.provider_id)
        for kind, movements in (
            ("capture", snapshot.captures),
            ("refund", snapshot.refunds),
            ("chargeback", snapshot.chargebacks),
            ("reversal", snapshot.reversals),
        ):
            expected |= {Booking(kind, m.transaction_id, m.amount, m.at, reference) for m in movements}
    days = {booking.at.date() for booking in expected}
    found = {booking for day in days for booking in PayPalGateway().bookings(day=day)}
    assert found == expected
    assert sorted(booking.kind for booking in found) == [
        "capture",
        "capture",
        "chargeback",
        "refund",
        "reversal",
    ]


def test_bookings_of_other_days_are_none(paypal: RunningPayPal) -> None:
    opened = captured(paypal)
    paypal.decide(opened.pay_url, Outcome.CHARGE_BACK)
    day = fetched("T-1", opened.provider_id).captures[0].at.date()
    for other in (day - timedelta(days=1), day + timedelta(days=2)):
        assert list(PayPalGateway().bookings(day=other)) == []


def test_long_list_of_transactions_is_read_to_its_end(
    paypal: RunningPayPal, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "PAGE_LENGTH", 2)
    opened = [captured(paypal, f"T-{number}") for number in range(5)]
    days = {fetched("", payment.provider_id).captures[0].at.date() for payment in opened}
    found = [booking.reference for day in days for booking in PayPalGateway().bookings(day=day)]
    assert sorted(found) == ["T-0", "T-1", "T-2", "T-3", "T-4"]


def a_transaction(code: str, value: str, **changes: object) -> dict[str, object]:
    return {
        "transaction_info": {
            "transaction_id": REFUND_ID,
            "paypal_reference_id": CAPTURE_ID,
            "transaction_event_code": code,
            "transaction_status": "S",
            "transaction_initiation_date": "2026-11-23T16:00:00+0800",
            "transaction_amount": usd(value),
            **changes,
        }
    }


def transactions(*lines: object) -> dict[str, object]:
    return {"transaction_details": list(lines), "total_pages": 1}


DAY = date(2026, 11, 23)


@pytest.mark.parametrize(
    ("line", "kind", "reference"),
    [
        (a_transaction("T0006", "49.90", custom_field="T-1"), "capture", "T-1"),
        (a_transaction("T0006", "49.90", transaction_status="V"), "capture", ""),
        (a_transaction("T1107", "-49.90", custom_field="not ours!"), "refund", ""),
    ],
)
def test_transaction_is_booked_by_its_code(
    provider: Listener, line: object, kind: str, reference: str
) -> None:
    answering(provider, transactions(line), NO_DISPUTES)
    assert list(PayPalGateway().bookings(day=DAY)) == [
        Booking(kind, REFUND_ID, Money(4990, "USD"), MOVED_AT, reference)
    ]


@pytest.mark.parametrize(
    "line",
    [
        a_transaction("T0006", "49.90", transaction_status="P"),
        a_transaction("T0006", "49.90", transaction_status="D"),
        a_transaction("T0006", "-49.90"),
        a_transaction("T0400", "-500.00"),
        a_transaction("T1201", "-49.90"),
        a_transaction("T0006", "49.90", transaction_initiation_date="2026-11-24T00:00:00+0000"),
    ],
)
def test_transaction_that_is_no_movement_of_ours_is_left_out(provider: Listener, line: object) -> None:
    answering(provider, transactions(line), NO_DISPUTES)
    assert list(PayPalGateway().bookings(day=DAY)) == []


@pytest.mark.parametrize(
    ("disputes", "kinds"),
    [([NO_DISPUTES], ["refund"]), ([{"items": [{"dispute_id": "PP-D-1"}]}, a_dispute()], [])],
)
def test_reversal_is_a_refund_unless_a_dispute_accounts_for_it(
    provider: Listener, disputes: list[object], kinds: list[str]
) -> None:
    answering(provider, transactions(a_transaction("T1106", "-49.90")), *disputes, NO_DISPUTES)
    assert [booking.kind for booking in PayPalGateway().bookings(day=DAY)] == kinds


def test_disputes_of_a_day_are_read_to_the_end_of_their_list(provider: Listener) -> None:
    next_link = {
        "rel": "next",
        "href": "https://x.example/v1/customer/disputes?page_size=50&next_page_token=abc",
    }
    answering(
        provider,
        transactions(),
        {"items": [{"dispute_id": "PP-D-1"}], "links": [next_link]},
        a_dispute(),
        NO_DISPUTES,
    )
    assert list(PayPalGateway().bookings(day=DAY)) == [
        Booking("chargeback", "PP-D-1", Money(4990, "USD"), MOVED_AT, "T-1")
    ]
    assert provider.rest()[-1].path == "/v1/customer/disputes?next_page_token=abc"


@pytest.mark.parametrize(
    "answer",
    [
        {},
        {"transaction_details": None, "total_pages": 1},
        {"transaction_details": []},
        transactions(None),
        transactions(a_transaction("T0006", "49.901")),
        transactions(a_transaction("T0006", "0.00")),
        transactions(a_transaction("T0006", "49.90", transaction_id="../x")),
    ],
    ids=repr,
)
def test_list_of_transactions_that_makes_no_sense_is_unavailable(provider: Listener, answer: object) -> None:
    answering(provider, answer)
    with pytest.raises(Unavailable):
        list(PayPalGateway().bookings(day=DAY))


def test_missing_permission_is_a_matter_of_credentials_and_named(provider: Listener) -> None:
    refusing(provider, 403, "NOT_AUTHORIZED")
    with pytest.raises(CredentialsRefused, match=r"credentials.*v1/reporting/transactions"):
        list(PayPalGateway().bookings(day=DAY))


# --- the SDK's defects -------------------------------------------------------------------------------


@pytest.mark.payment_case(47)
def test_late_answer_is_unavailable(paypal: RunningPayPal, monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK has no timeout."""
    paypal.set_faults(delay_seconds=30)
    monkeypatch.setattr(adapter, "READ_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="ReadTimeout"):
        PayPalGateway().open(CHARGE)


@pytest.mark.payment_case(48)
def test_permanent_refusal_of_credentials_ends_after_two_tries(provider: Listener) -> None:
    """The SDK goes on for ever."""
    provider.answers.put(Answer(status=401))
    provider.answers.put(TOKEN)
    provider.answers.put(Answer(status=401, body=b"<html>"))
    with pytest.raises(CredentialsRefused, match="PayPal refuses our credentials"):
        fetched()
    assert [request.path for request in provider.rest()] == [
        "/v1/oauth2/token",
        f"/v2/checkout/orders/{ORDER_ID}",
    ] * 2


def test_bad_request_is_a_refusal(provider: Listener) -> None:
    """The SDK returns it as if it were an answer."""
    refusing(provider, 400, "INVALID_PARAMETER_SYNTAX")
    with pytest.raises(Declined, match=r"^PayPal refused: It cannot be\.$"):
        PayPalGateway().open(CHARGE)


def test_token_is_asked_for_without_the_headers_of_the_request(provider: Listener) -> None:
    """The SDK sends them along: the key of a payment would be used up by its token."""
    with pytest.raises(Unavailable):
        PayPalGateway().open(CHARGE)
    token, order = provider.rest()
    assert token.path == "/v1/oauth2/token"
    assert not {"paypal-request-id", "prefer"} & set(token.headers)
    assert token.body == b"grant_type=client_credentials"
    shown = f"{PAYPAL_CLIENT_ID}:{PAYPAL_CLIENT_SECRET}"
    assert token.headers["authorization"] == "Basic " + base64.b64encode(shown.encode()).decode()
    assert order.headers["paypal-request-id"] == "T-1:create"


def test_question_has_no_body(provider: Listener) -> None:
    """The SDK sends `null`."""
    answering(provider, an_order())
    fetched()
    assert provider.rest()[-1].body == b""


@pytest.mark.parametrize("capture_id", ["../../x", "3C679366HH908993F?x=y", "a", ""])
def test_id_in_an_answer_reaches_no_other_address(provider: Listener, capture_id: str) -> None:
    """The SDK escapes nothing."""
    answering(provider, an_order(captures=[a_capture(id=capture_id)]))
    with pytest.raises(Unavailable):
        PayPalGateway().give_back(Return("R-1", ORDER_ID, Money(1, "USD")))
    assert len(provider.rest()) == 2


@pytest.mark.payment_case(54)
def test_secrets_and_bodies_are_never_logged(
    paypal: RunningPayPal, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    """The SDK logs them in every mode but the live one."""
    with caplog.at_level(logging.DEBUG):
        captured(paypal)
        settings.PAYPAL_CLIENT_SECRET = "another-secret-of-ours"
        with pytest.raises(CredentialsRefused) as problem:
            PayPalGateway().open(CHARGE)
    assert "/v2/checkout/orders" in caplog.text
    (token,) = (token for (url, *_), (token, _at) in adapter._tokens.items() if url == paypal.url)
    assert isinstance(token, dict)
    secrets = [
        PAYPAL_CLIENT_SECRET,
        "another-secret-of-ours",
        token["access_token"],
        "VIP, 30 days",
        "Basic ",
    ]
    for secret in secrets:
        assert secret not in caplog.text + str(problem.value) + repr(problem.value)


def test_neither_a_proxy_nor_a_password_of_the_environment_comes_between(
    provider: Listener, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """Requests, which the SDK uses, would replace our token by what it finds in .netrc."""
    netrc = tmp_path / "netrc"
    netrc.write_text("machine 127.0.0.1 login a password b\n")
    monkeypatch.setenv("NETRC", str(netrc))
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    answering(provider, an_order())
    fetched()
    assert provider.rest()[-1].headers["authorization"] == "Bearer A21.token-of-the-tests"


# --- tokens ------------------------------------------------------------------------------------------


def test_one_token_serves_several_calls(provider: Listener) -> None:
    answering(provider, an_order(), an_order())
    fetched()
    fetched()
    assert [request.path for request in provider.rest()].count("/v1/oauth2/token") == 1


def test_token_that_was_taken_back_is_replaced_unseen(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    paypal.take_tokens_back()
    assert fetched("T-1", opened.provider_id).state == "pending"


def test_token_is_replaced_when_its_time_is_over(paypal: RunningPayPal) -> None:
    opened = PayPalGateway().open(CHARGE)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=10)):
        assert fetched("T-1", opened.provider_id).state == "pending"


@pytest.mark.parametrize(
    "token",
    [
        {},
        {"access_token": "a b", "token_type": "Bearer", "expires_in": 9},
        {"access_token": "a\r\nHost: x", "token_type": "Bearer", "expires_in": 9},
        {"access_token": "a", "token_type": "Basic", "expires_in": 9},
        {"access_token": "a", "token_type": "Bearer", "expires_in": "9"},
    ],
    ids=repr,
)
def test_token_that_is_none_is_unavailable_and_not_kept(settings: Settings, token: object) -> None:
    with listening() as listener:
        settings.ALLOW_EMULATORS, settings.PAYPAL_URL = True, listener.url
        settings.PAYPAL_CLIENT_ID, settings.PAYPAL_CLIENT_SECRET = PAYPAL_CLIENT_ID, PAYPAL_CLIENT_SECRET
        settings.PAYPAL_WEBHOOK_ID = PAYPAL_WEBHOOK_ID
        adapter._tokens.clear()
        answering(listener, token, token)
        for _time in range(2):
            with pytest.raises(Unavailable, match="token"):
                fetched()
        assert [request.path for request in listener.rest()] == ["/v1/oauth2/token"] * 2


# --- answers that make no sense ----------------------------------------------------------------------


@pytest.mark.parametrize(
    "order",
    [
        an_order(id="5O190127TN364715X"),
        an_order(id="../x"),
        an_order(id=5),
        an_order(status=None),
        an_order(status="PAID"),
        an_order(status="COMPLETED"),
        an_order(intent="SALE"),
        an_order(unit={"custom_id": "T-2"}),
        an_order(unit={"custom_id": None}),
        an_order(unit={"amount": "49.90"}),
        an_order(unit={"amount": usd("49.901")}),
        an_order(unit={"amount": {"currency_code": "USD", "value": 49.9}}),
        an_order(unit={"payments": []}),
        an_order(purchase_units=[]),
        an_order(captures={}),
        an_order(captures=[None]),
        an_order(captures=[a_capture(amount=usd("49.901"))]),
        an_order(captures=[a_capture(amount=usd("-49.90"))]),
        an_order(captures=[a_capture(amount=usd("0.00"))]),
        an_order(captures=[a_capture(amount={"currency_code": "XXXX", "value": "1"})]),
        an_order(captures=[a_capture(create_time="yesterday")]),
        an_order(captures=[a_capture(create_time="2026-11-23T08:00:00")]),
        an_order(captures=[a_capture()], refunds={"a": 1}),
        an_order(captures=[a_capture()], refunds=[a_refund(id="1?")]),
    ],
    ids=repr,
)
def test_order_that_makes_no_sense_is_unavailable(provider: Listener, order: object) -> None:
    answering(provider, order, NO_DISPUTES)
    with pytest.raises(Unavailable):
        fetched()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b""),
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        Answer(body=b"\xff"),
        Answer(body=b"[" * 100_000),
        Answer(body=b"9" * 10_000),
        Answer(status=400, body=b"[]"),
        Answer(status=404, body=b"<html>"),
        Answer(status=409),
        Answer(status=429),
        Answer(status=500),
        Answer(status=503),
        Answer(status=302, headers={"Location": "/elsewhere"}),
        Answer(status=308, headers={"Location": "/elsewhere"}),
    ],
    ids=repr,
)
def test_answer_that_is_none_is_unavailable_and_asked_for_once(provider: Listener, answer: Answer) -> None:
    provider.answers.put(answer)
    with pytest.raises(Unavailable) as problem:
        fetched()
    assert not isinstance(problem.value, CredentialsRefused)
    assert [request.path for request in provider.rest()] == [
        "/v1/oauth2/token",
        f"/v2/checkout/orders/{ORDER_ID}",
    ]


def test_answer_of_more_than_a_megabyte_is_unavailable(provider: Listener) -> None:
    provider.answers.put(Answer(body=json.dumps(an_order()).encode() + b" " * 1_000_000))
    with pytest.raises(Unavailable, match="too much"):
        fetched()


def test_compressed_answer_is_not_unpacked(provider: Listener) -> None:
    body = gzip.compress(json.dumps(an_order()).encode())
    provider.answers.put(Answer(body=body, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(Unavailable):
        fetched()
    assert provider.rest()[-1].headers["accept-encoding"] == "identity"


def test_time_that_is_used_up_is_given_up(provider: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "CALL_SECONDS", 0)
    with pytest.raises(Unavailable, match="too slowly"):
        fetched()


@pytest.mark.payment_case(47)
def test_paypal_that_is_down_is_unavailable(settings: Settings, provider: Listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    settings.PAYPAL_URL = f"http://127.0.0.1:{port}"
    with pytest.raises(Unavailable, match="ConnectionError"):
        PayPalGateway().open(CHARGE)


def test_refusal_says_the_reason_without_what_could_not_be_stored(provider: Listener) -> None:
    body = {"name": "X", "details": [{"issue": "Y", "description": "No\x00 such\ud800 day."}]}
    provider.answers.put(Answer(status=422, body=json.dumps(body).encode()))
    with pytest.raises(Declined, match=r"^PayPal refused: No such day\.$"):
        PayPalGateway().open(CHARGE)


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("PAYPAL_URL", ""),
        ("PAYPAL_CLIENT_ID", ""),
        ("PAYPAL_CLIENT_ID", "a:b"),
        ("PAYPAL_CLIENT_SECRET", ""),
        ("PAYPAL_CLIENT_SECRET", "a\nb"),
        ("PAYPAL_WEBHOOK_ID", ""),
        ("PAYPAL_WEBHOOK_ID", "https://shop.example/webhooks/paypal/"),
    ],
)
def test_setting_that_is_missing_or_malformed_is_named_and_nothing_is_asked(
    provider: Listener, settings: Settings, name: str, value: str
) -> None:
    setattr(settings, name, value)
    assert PayPalGateway().missing() == [name]
    with pytest.raises(Unavailable, match=name):
        PayPalGateway().open(CHARGE)
    assert provider.rest() == []


def test_plain_http_is_refused_unless_emulators_are_allowed(provider: Listener, settings: Settings) -> None:
    settings.ALLOW_EMULATORS = False
    assert PayPalGateway().missing() == ["ALLOW_EMULATORS"]
    with pytest.raises(Unavailable, match="ALLOW_EMULATORS"):
        PayPalGateway().open(CHARGE)
    assert provider.rest() == []
    settings.PAYPAL_URL = "https://api-m.paypal.com"
    assert PayPalGateway().missing() == []
