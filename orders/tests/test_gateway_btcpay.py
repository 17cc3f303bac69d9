"""The BTCPay gateway against its emulator's chain, and against a server that answers nonsense."""

import dataclasses
import json
import logging
import socket
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from decimal import Decimal

import httpx
import pytest
import time_machine
from cryptography.hazmat.primitives import hashes, hmac
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import asking
from orders.gateways.btcpay import BtcpayGateway
from orders.gateways.emulators.chain import COIN_PRICES, Deed
from orders.gateways.emulators.running_btcpay import RunningBtcpay
from orders.gateways.protocol import (
    BadSignature,
    Booking,
    Charge,
    Claim,
    CoinProgress,
    CredentialsRefused,
    Declined,
    Event,
    Instructions,
    MoneyMoved,
    RefusedReturn,
    Return,
    Snapshot,
    Unavailable,
)
from orders.models import AttemptState
from orders.tests.backstage_btcpay import KEY, SECRET, STORE_ID, configure, configured_btcpay
from orders.tests.gateway_servers import Answer, Listener, listening

# At 97 000 USD for a bitcoin.
IN_BITCOIN = "0.00051444"
INVOICE_ID = "NmqLCcbB4EZSpJuNmqLCcb"
CHARGE = Charge(
    reference="T-1",
    amount=Money(4990, "USD"),
    description="2 × VIP, 30 days",
    return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
    expires_at=datetime.now(UTC) + timedelta(hours=1),
    language="en",
    method="bitcoin",
)


@pytest.fixture
def chain(settings: Settings) -> Iterator[RunningBtcpay]:
    with configured_btcpay(settings) as running:
        yield running


@pytest.fixture
def server(settings: Settings) -> Iterator[Listener]:
    """A server that answers whatever the test wants."""
    with listening() as listener:
        configure(settings, listener.url)
        yield listener


@pytest.fixture
def gateway() -> BtcpayGateway:
    return BtcpayGateway()


def snapshot_of(gateway: BtcpayGateway, provider_id: str = "") -> Snapshot:
    snapshot = gateway.fetch(reference="T-1", provider_id=provider_id)
    assert snapshot
    return snapshot


def amounts(snapshot: Snapshot) -> list[int]:
    return [capture.amount.minor for capture in snapshot.captures]


# --- opening -----------------------------------------------------------------------------------------


def test_buyer_is_shown_address_and_exact_amount_and_may_go_to_the_checkout(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    opened = gateway.open(CHARGE)
    (invoice,) = chain.books()["invoices"]
    address = invoice["address"]
    assert (opened.provider_id, opened.pay_url) == (invoice["id"], f"{chain.url}/i/{invoice['id']}")
    assert opened.instructions == Instructions(
        qr=f"bitcoin:{address}?amount={IN_BITCOIN}", coin="BTC", coin_amount=IN_BITCOIN, address=address
    )


def test_invoice_expires_with_the_attempt_and_is_watched_for_a_week_after(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    gateway.open(dataclasses.replace(CHARGE, expires_at=datetime.now(UTC) + timedelta(seconds=1830)))
    (invoice,) = chain.books()["invoices"]
    assert invoice["expires"] - invoice["created"] == 30 * 60
    assert invoice["monitored_until"] - invoice["expires"] == 7 * 24 * 60 * 60


def test_other_ways_to_pay_are_declined_and_nothing_is_asked(
    server: Listener, gateway: BtcpayGateway
) -> None:
    with pytest.raises(Declined):
        gateway.open(dataclasses.replace(CHARGE, method="ethereum"))
    assert server.rest() == []


@pytest.mark.payment_case(16)
@pytest.mark.parametrize(
    ("currency", "minor", "coins"),
    [
        ("JPY", 499, "0.0000343"),
        ("EUR", 4990, "0.00055917"),
        ("HKD", 39000, "0.00051547"),
        ("CNY", 36000, "0.00051547"),
    ],
)
def test_prices_in_all_our_currencies_are_understood_to_the_minor_unit(
    chain: RunningBtcpay, gateway: BtcpayGateway, currency: str, minor: int, coins: str
) -> None:
    """499 yen are 499 yen."""
    charge = dataclasses.replace(CHARGE, amount=Money(minor, currency))
    opened = gateway.open(charge)
    chain.do(opened.provider_id, Deed.PAY)
    assert [capture.amount for capture in snapshot_of(gateway).captures] == [charge.amount]
    assert currency in gateway.currencies
    assert opened.instructions
    assert opened.instructions.coin_amount == coins


@pytest.mark.payment_case(27, 30)
def test_creation_that_timed_out_is_found_again_and_not_repeated(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    """Without an idempotency key, the order id finds it."""
    chain.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        gateway.open(CHARGE)
    opened = gateway.open(CHARGE)
    (invoice,) = chain.books()["invoices"]
    assert opened.provider_id == invoice["id"]


@pytest.mark.payment_case(30)
@pytest.mark.parametrize("place", [0, 1])
def test_either_address_of_an_order_with_two_invoices_credits_it(
    chain: RunningBtcpay, gateway: BtcpayGateway, place: int
) -> None:
    """Two creations at one moment make two invoices."""
    first = gateway.open(CHARGE).provider_id
    asked = {
        "amount": "49.90",
        "currency": "USD",
        "metadata": {"orderId": "T-1"},
        "checkout": {
            "speedPolicy": "MediumSpeed",
            "paymentMethods": ["BTC-CHAIN"],
            "expirationMinutes": 30,
            "monitoringMinutes": 60,
            "paymentTolerance": 0,
            "redirectURL": "http://127.0.0.1:8000/",
        },
    }
    second = httpx.post(
        f"{chain.url}/api/v1/stores/{STORE_ID}/invoices",
        json=asked,
        headers={"Authorization": f"token {KEY}"},
        trust_env=False,
    ).json()["id"]
    chain.do((first, second)[place], Deed.PAY)
    snapshot = snapshot_of(gateway, first)
    assert (snapshot.provider_id, snapshot.state, amounts(snapshot)) == (first, AttemptState.CAPTURED, [4990])


# --- what happens on the chain -----------------------------------------------------------------------


@pytest.mark.payment_case(34)
def test_coins_seen_without_confirmation_are_confirming_and_no_capture(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.SEND)
    assert snapshot_of(gateway, opened.provider_id) == Snapshot(
        provider_id=opened.provider_id,
        state=AttemptState.CONFIRMING,
        progress=CoinProgress("BTC", due=IN_BITCOIN, received=IN_BITCOIN, confirmations=0, needed=1),
    )


@pytest.mark.payment_case(37, 5)
def test_confirmed_coins_are_the_price_whatever_a_coin_costs_now(
    chain: RunningBtcpay, gateway: BtcpayGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The locked quote decides, and asking suffices without any webhook."""
    opened = gateway.open(CHARGE)
    monkeypatch.setitem(COIN_PRICES, "BTC", Decimal(10_000))
    chain.set_faults(drop=10)
    chain.do(opened.provider_id, Deed.PAY)
    snapshot = snapshot_of(gateway, opened.provider_id)
    (deposit,) = chain.books()["deposits"]
    assert (snapshot.state, amounts(snapshot), snapshot.problem) == (AttemptState.CAPTURED, [4990], "")
    assert snapshot.captures[0].transaction_id == deposit["id"]
    assert snapshot.progress == CoinProgress(
        "BTC", due=IN_BITCOIN, received=IN_BITCOIN, confirmations=1, needed=1
    )


@pytest.mark.payment_case(18)
def test_capture_is_dated_by_when_the_coins_were_seen(chain: RunningBtcpay, gateway: BtcpayGateway) -> None:
    """Seen in time and confirmed later is in time."""
    opened = gateway.open(CHARGE)
    seen = datetime.now(UTC).replace(microsecond=0)
    with time_machine.travel(seen, tick=False):
        chain.do(opened.provider_id, Deed.SEND)
    with time_machine.travel(seen + timedelta(minutes=30), tick=False):
        chain.do(opened.provider_id, Deed.CONFIRM)
    assert [capture.at for capture in snapshot_of(gateway).captures] == [seen]


@pytest.mark.payment_case(31)
def test_too_few_coins_are_progress_and_no_capture(chain: RunningBtcpay, gateway: BtcpayGateway) -> None:
    opened = gateway.open(CHARGE)
    assert opened.instructions
    address = opened.instructions.address
    chain.do(opened.provider_id, Deed.SEND, "0.0005")
    chain.do(opened.provider_id, Deed.CONFIRM)
    assert snapshot_of(gateway, opened.provider_id) == Snapshot(
        provider_id=opened.provider_id,
        state=AttemptState.PENDING,
        progress=CoinProgress(
            "BTC",
            due=IN_BITCOIN,
            received="0.0005",
            confirmations=1,
            needed=1,
            missing="0.00001444",
            qr=f"bitcoin:{address}?amount=0.00001444",
        ),
        problem=f"Only 0.0005 of {IN_BITCOIN} BTC have come.",
    )
    chain.do(opened.provider_id, Deed.EXPIRE)
    expired = snapshot_of(gateway, opened.provider_id)
    assert (expired.state, expired.captures) == (AttemptState.EXPIRED, ())
    assert expired.problem == f"Only 0.0005 of {IN_BITCOIN} BTC have come."


@pytest.mark.payment_case(32)
def test_second_deposit_completes_the_first_when_both_are_confirmed(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    """60 % and then 40 %."""
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.SEND_PART)
    chain.do(opened.provider_id, Deed.CONFIRM)
    # Times are whole seconds, and of two deposits in one second either may be the first.
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=1), tick=False):
        chain.do(opened.provider_id, Deed.SEND)
    halfway = snapshot_of(gateway, opened.provider_id)
    assert (halfway.state, halfway.captures) == (AttemptState.CONFIRMING, ())
    assert halfway.progress == CoinProgress(
        "BTC", due=IN_BITCOIN, received=IN_BITCOIN, confirmations=0, needed=1
    )
    chain.do(opened.provider_id, Deed.CONFIRM)
    snapshot = snapshot_of(gateway, opened.provider_id)
    assert (snapshot.state, amounts(snapshot)) == (AttemptState.CAPTURED, [2993, 1997])


def test_fee_for_a_second_transaction_is_no_part_of_the_price(
    settings: Settings, gateway: BtcpayGateway
) -> None:
    """A store may charge for each transaction but the first: it is due on top, and not ours to book."""
    with configured_btcpay(settings, fee="0.00000500") as chain:
        opened = gateway.open(CHARGE)
        chain.do(opened.provider_id, Deed.SEND_PART)
        chain.do(opened.provider_id, Deed.SEND)
        chain.do(opened.provider_id, Deed.CONFIRM)
        sent = sum(Decimal(deposit["value"]) for deposit in chain.books()["deposits"])
        snapshot = snapshot_of(gateway)
    assert sent == Decimal(IN_BITCOIN) + Decimal("0.00000500")
    assert (snapshot.state, sum(amounts(snapshot))) == (AttemptState.CAPTURED, 4990)


@pytest.mark.payment_case(33)
def test_overpaid_coins_are_captured_with_their_surplus_rounded_down(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    """0.00056588 of 0.00051444 BTC for 49.90 are 54.8896…"""
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.SEND_MORE)
    chain.do(opened.provider_id, Deed.CONFIRM)
    snapshot = snapshot_of(gateway, opened.provider_id)
    assert (snapshot.state, amounts(snapshot)) == (AttemptState.CAPTURED, [5488])


@pytest.mark.payment_case(35)
def test_dropped_coins_leave_the_payment_unpaid_and_payable(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    """The server keeps such an invoice in Processing, and says nothing."""
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.SEND)
    chain.do(opened.provider_id, Deed.DROP)
    assert chain.books()["invoices"][0]["status"] == "Processing"
    assert snapshot_of(gateway, opened.provider_id) == Snapshot(opened.provider_id, AttemptState.PENDING)
    chain.do(opened.provider_id, Deed.PAY)
    assert amounts(snapshot_of(gateway, opened.provider_id)) == [4990]


@pytest.mark.payment_case(36)
def test_payment_that_nobody_paid_in_time_is_expired_and_captured_when_coins_come_late(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    """What it means that they are late is the shop's to decide."""
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.EXPIRE)
    assert snapshot_of(gateway) == Snapshot(opened.provider_id, AttemptState.EXPIRED)
    chain.do(opened.provider_id, Deed.SEND)
    assert snapshot_of(gateway).state == AttemptState.CONFIRMING
    chain.do(opened.provider_id, Deed.CONFIRM)
    assert chain.books()["invoices"][0]["additional_status"] == "PaidLate"
    assert (snapshot_of(gateway).state, amounts(snapshot_of(gateway))) == (AttemptState.CAPTURED, [4990])


@pytest.mark.payment_case(53)
def test_coins_to_an_invoice_that_was_called_off_are_captured_all_the_same(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    """The buyer may have had the address already; what came has come."""
    opened = gateway.open(CHARGE)
    gateway.close(provider_id=opened.provider_id)
    assert snapshot_of(gateway) == Snapshot(opened.provider_id, AttemptState.CANCELLED)
    chain.do(opened.provider_id, Deed.SEND, IN_BITCOIN)
    assert snapshot_of(gateway).state == AttemptState.CONFIRMING
    chain.do(opened.provider_id, Deed.CONFIRM)
    assert (snapshot_of(gateway).state, amounts(snapshot_of(gateway))) == (AttemptState.CAPTURED, [4990])


@pytest.mark.payment_case(53)
def test_closing_is_declined_while_coins_are_on_their_way(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    """The server itself would call the invoice off."""
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.SEND)
    with pytest.raises(Declined):
        gateway.close(provider_id=opened.provider_id)
    assert chain.books()["invoices"][0]["status"] == "Processing"


# --- refunds -----------------------------------------------------------------------------------------


def paid(chain: RunningBtcpay, gateway: BtcpayGateway) -> str:
    invoice_id = gateway.open(CHARGE).provider_id
    chain.do(invoice_id, Deed.PAY)
    return invoice_id


@pytest.mark.payment_case(41)
def test_refund_is_shown_only_when_its_claim_has_been_paid_and_until_it_is_taken_up_where_that_is_done(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    invoice_id = paid(chain, gateway)
    gateway.give_back(Return("R-1", invoice_id, Money(3000, "USD")))
    (claim,) = chain.books()["pull_payments"]
    link = f"{chain.url}/pull-payments/{claim['id']}"
    assert (claim["name"], claim["amount"], claim["currency"]) == (f"Refund {invoice_id} R-1", "30.00", "USD")
    waiting = snapshot_of(gateway)
    assert (waiting.claims, waiting.problem) == ((Claim("R-1", link),), "")
    chain.decide_claim(claim["id"], "claim")
    claimed = snapshot_of(gateway)
    assert (claimed.refunds, claimed.claims, claimed.problem) == ((), (), "")
    chain.decide_claim(claim["id"], "pay")
    (refund,) = snapshot_of(gateway).refunds
    (payout,) = chain.books()["payouts"]
    assert (refund.transaction_id, refund.amount, refund.reference) == (
        payout["id"],
        Money(3000, "USD"),
        "R-1",
    )


@pytest.mark.payment_case(41)
def test_refund_whose_claim_was_withdrawn_is_refused(chain: RunningBtcpay, gateway: BtcpayGateway) -> None:
    """What was reserved for it is free again."""
    invoice_id = paid(chain, gateway)
    gateway.give_back(Return("R-1", invoice_id, CHARGE.amount))
    (claim,) = chain.books()["pull_payments"]
    chain.decide_claim(claim["id"], "archive")
    assert snapshot_of(gateway).refused_returns == (
        RefusedReturn("R-1", "The claim was withdrawn in BTCPay Server."),
    )
    with pytest.raises(Declined):
        gateway.give_back(Return("R-1", invoice_id, CHARGE.amount))
    gateway.give_back(Return("R-2", invoice_id, CHARGE.amount))
    assert len(chain.books()["pull_payments"]) == 2


def test_payout_that_staff_cancelled_leaves_the_claim_open(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    invoice_id = paid(chain, gateway)
    gateway.give_back(Return("R-1", invoice_id, CHARGE.amount))
    (claim,) = chain.books()["pull_payments"]
    chain.decide_claim(claim["id"], "claim")
    chain.decide_claim(claim["id"], "cancel")
    snapshot = snapshot_of(gateway)
    assert (snapshot.refunds, snapshot.refused_returns) == ((), ())
    assert [waiting.reference for waiting in snapshot.claims] == ["R-1"]


@pytest.mark.payment_case(39, 40)
def test_claims_never_promise_more_than_was_captured(chain: RunningBtcpay, gateway: BtcpayGateway) -> None:
    """The server would."""
    invoice_id = paid(chain, gateway)
    for _time in range(2):
        gateway.give_back(Return("R-1", invoice_id, Money(3000, "USD")))
    with pytest.raises(Declined, match=r"Only \$19\.90 of this payment"):
        gateway.give_back(Return("R-2", invoice_id, Money(3000, "USD")))
    gateway.give_back(Return("R-3", invoice_id, Money(1990, "USD")))
    assert [claim["amount"] for claim in chain.books()["pull_payments"]] == ["30.00", "19.90"]


def test_one_reference_for_another_amount_is_declined(chain: RunningBtcpay, gateway: BtcpayGateway) -> None:
    invoice_id = paid(chain, gateway)
    gateway.give_back(Return("R-1", invoice_id, Money(1000, "USD")))
    with pytest.raises(Declined):
        gateway.give_back(Return("R-1", invoice_id, Money(1001, "USD")))


def test_refund_in_another_currency_is_declined(chain: RunningBtcpay, gateway: BtcpayGateway) -> None:
    with pytest.raises(Declined):
        gateway.give_back(Return("R-1", paid(chain, gateway), Money(100, "JPY")))


@pytest.mark.payment_case(20)
def test_late_payment_can_be_given_back(chain: RunningBtcpay, gateway: BtcpayGateway) -> None:
    """An invoice that was paid after its expiry is refundable."""
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.EXPIRE)
    chain.do(opened.provider_id, Deed.PAY)
    gateway.give_back(Return("R-1", opened.provider_id, CHARGE.amount))
    assert len(chain.books()["pull_payments"]) == 1


@pytest.mark.payment_case(42)
@pytest.mark.parametrize(("amount", "currency", "minor"), [("10.00", "USD", 1000), (IN_BITCOIN, "BTC", 4990)])
def test_refund_made_in_the_servers_own_pages_is_one_without_our_reference(
    chain: RunningBtcpay, gateway: BtcpayGateway, amount: str, currency: str, minor: int
) -> None:
    """What was given back in coins is money at the invoice's quote (37)."""
    invoice_id = paid(chain, gateway)
    asked = {
        "name": f"Refund {invoice_id}",
        "payoutMethodId": "BTC-CHAIN",
        "refundVariant": "Custom",
        "customAmount": amount,
        "customCurrency": currency,
    }
    claim_id = httpx.post(
        f"{chain.url}/api/v1/stores/{STORE_ID}/invoices/{invoice_id}/refund",
        json=asked,
        headers={"Authorization": f"token {KEY}"},
        trust_env=False,
    ).json()["id"]
    chain.decide_claim(claim_id, "claim")
    chain.decide_claim(claim_id, "pay")
    assert [(moved.amount.minor, moved.reference) for moved in snapshot_of(gateway).refunds] == [(minor, "")]


# --- bookings ----------------------------------------------------------------------------------------


def test_bookings_are_what_was_captured_and_given_back_on_that_day(
    chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    invoice_id = paid(chain, gateway)
    gateway.open(dataclasses.replace(CHARGE, reference="T-2"))
    gateway.give_back(Return("R-1", invoice_id, Money(1000, "USD")))
    (claim,) = chain.books()["pull_payments"]
    chain.decide_claim(claim["id"], "claim")
    chain.decide_claim(claim["id"], "pay")
    snapshot = snapshot_of(gateway)
    today = datetime.now(UTC).date()
    assert list(gateway.bookings(day=today)) == [
        Booking(kind, moved.transaction_id, moved.amount, moved.at, "T-1")
        for kind, (moved,) in (("capture", snapshot.captures), ("refund", snapshot.refunds))
    ]
    assert list(gateway.bookings(day=today - timedelta(days=1))) == []
    assert list(gateway.bookings(day=today + timedelta(days=1))) == []


def test_bookings_of_a_long_list_are_read_to_their_end(
    chain: RunningBtcpay, gateway: BtcpayGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("orders.gateways.btcpay.PAGE_LENGTH", 2)
    for number in range(5):
        charge = dataclasses.replace(CHARGE, reference=f"T-{number}")
        chain.do(gateway.open(charge).provider_id, Deed.PAY)
    booked = {booking.reference for booking in gateway.bookings(day=datetime.now(UTC).date())}
    assert booked == {f"T-{number}" for number in range(5)}


# --- answers that make no sense ----------------------------------------------------------------------


def an_invoice(server: Listener, **changes: object) -> dict[str, object]:
    return {
        "id": INVOICE_ID,
        "storeId": STORE_ID,
        "amount": "49.90",
        "currency": "USD",
        "checkoutLink": f"{server.url}/i/{INVOICE_ID}",
        "createdTime": 1795420800,
        "status": "Settled",
        "additionalStatus": "None",
        "metadata": {"orderId": "T-1"},
        **changes,
    }


def a_method(**changes: object) -> dict[str, object]:
    return {
        "paymentMethodId": "BTC-CHAIN",
        "currency": "BTC",
        "destination": "bc1qar0srrr7xfkvy5l643lydnw9re59gtzzwf5mdq",
        "amount": "0.01030000",
        "payments": [a_deposit()],
        **changes,
    }


def a_deposit(**changes: object) -> dict[str, object]:
    return {
        "id": "b5ae4b9d-0",
        "receivedDate": 1795420800,
        "value": "0.01030000",
        "fee": "0.0",
        "status": "Settled",
        **changes,
    }


def answer_with(server: Listener, invoice: object, methods: object, claims: object = ()) -> None:
    for content in ([invoice], methods, claims):
        server.answers.put(Answer(body=json.dumps(content).encode()))


def test_answer_is_read_to_the_minor_unit_and_in_utc(server: Listener, gateway: BtcpayGateway) -> None:
    answer_with(server, an_invoice(server), [a_method()])
    assert snapshot_of(gateway, INVOICE_ID).captures == (
        MoneyMoved("b5ae4b9d-0", Money(4990, "USD"), datetime(2026, 11, 23, 8, tzinfo=UTC)),
    )


@pytest.mark.parametrize("amount", ["49.9", "49.900000", 49.9])
def test_amount_is_read_however_many_zeros_it_ends_with(
    server: Listener, gateway: BtcpayGateway, amount: str
) -> None:
    answer_with(server, an_invoice(server, amount=amount), [a_method()])
    assert amounts(snapshot_of(gateway, INVOICE_ID)) == [4990]


@pytest.mark.payment_case(14)
def test_capture_is_in_the_currency_that_the_server_names(server: Listener, gateway: BtcpayGateway) -> None:
    """4990 yen instead of dollars are told as yen."""
    answer_with(server, an_invoice(server, amount="4990", currency="JPY"), [a_method()])
    assert [capture.amount for capture in snapshot_of(gateway, INVOICE_ID).captures] == [Money(4990, "JPY")]


@pytest.mark.payment_case(13)
@pytest.mark.parametrize(
    ("deposits", "captured"), [([], []), ([a_deposit(value="0.00515")], [2495])], ids=["nothing", "half"]
)
def test_invoice_that_was_marked_as_settled_is_worth_the_coins_that_came(
    server: Listener, gateway: BtcpayGateway, deposits: list[object], captured: list[int]
) -> None:
    """A person may call it paid; the ledger tells of money."""
    answer_with(server, an_invoice(server, additionalStatus="Marked"), [a_method(payments=deposits)])
    snapshot = snapshot_of(gateway, INVOICE_ID)
    assert amounts(snapshot) == captured
    assert "marked as settled by hand" in snapshot.problem


@pytest.mark.payment_case(35)
def test_deposit_that_was_spent_elsewhere_does_not_count(server: Listener, gateway: BtcpayGateway) -> None:
    answer_with(server, an_invoice(server, status="New"), [a_method(payments=[a_deposit(status="Invalid")])])
    assert snapshot_of(gateway, INVOICE_ID) == Snapshot(INVOICE_ID, AttemptState.PENDING)


@pytest.mark.payment_case(11)
@pytest.mark.parametrize(
    "changes",
    [
        {"id": "../x"},
        {"id": 5},
        {"storeId": "another"},
        {"metadata": {"orderId": "T-2"}},
        {"metadata": {}},
        {"metadata": None},
        {"status": "Paid"},
        {"status": None},
        {"amount": "49.901"},
        {"amount": True},
        {"amount": "-49.90"},
        {"amount": "1e3"},
        {"currency": None},
        {"createdTime": "2026-11-23"},
        {"createdTime": -1},
        {"checkoutLink": "https://evil.example/i/1"},
        {"checkoutLink": "javascript:alert(1)"},
        {"checkoutLink": None},
    ],
    ids=repr,
)
def test_invoice_that_makes_no_sense_is_unavailable(
    server: Listener, gateway: BtcpayGateway, changes: dict[str, object]
) -> None:
    """An invoice of another store is none."""
    answer_with(server, an_invoice(server, **changes), [a_method()])
    with pytest.raises(Unavailable):
        gateway.fetch(reference="T-1", provider_id=INVOICE_ID)


@pytest.mark.parametrize(
    "methods",
    [
        None,
        {},
        [],
        [None],
        [a_method(paymentMethodId="BTC-LN")],
        [a_method(currency="LTC")],
        [a_method(destination="javascript:alert(1)")],
        [a_method(destination="0x52908400098527886E0F7030069857D2E4169EE7")],
        [a_method(amount="0")],
        [a_method(amount="-1")],
        [a_method(amount=True)],
        [a_method(payments=None)],
        [a_method(payments=[None])],
        [a_method(payments=[a_deposit(status="Confirmed")])],
        [a_method(payments=[a_deposit(value="-1")])],
        [a_method(payments=[a_deposit(value="1e9999")])],
        [a_method(payments=[a_deposit(fee="0.0103")])],
        [a_method(payments=[a_deposit(id="")])],
        [a_method(payments=[a_deposit(receivedDate="now")])],
        [a_method(payments=[a_deposit(receivedDate=10**30)])],
    ],
    ids=lambda methods: repr(methods)[-60:],
)
def test_way_to_pay_that_makes_no_sense_is_unavailable(
    server: Listener, gateway: BtcpayGateway, methods: object
) -> None:
    answer_with(server, an_invoice(server), methods)
    with pytest.raises(Unavailable):
        gateway.fetch(reference="T-1", provider_id=INVOICE_ID)


@pytest.mark.parametrize(
    "claim",
    [None, {}, {"id": "../x", "name": "Refund A", "amount": "1", "currency": "USD", "archived": False}],
)
def test_refund_that_makes_no_sense_is_unavailable(
    server: Listener, gateway: BtcpayGateway, claim: object
) -> None:
    answer_with(server, an_invoice(server), [a_method()], [claim])
    with pytest.raises(Unavailable):
        gateway.fetch(reference="T-1", provider_id=INVOICE_ID)


def test_pull_payment_that_is_no_refund_is_passed_over(server: Listener, gateway: BtcpayGateway) -> None:
    wage = {
        "id": "wage",
        "name": "Wages",
        "amount": "1",
        "currency": "USD",
        "archived": False,
        "viewLink": "https://x/",
    }
    other = {**wage, "id": "other", "name": "Refund AnotherInvoice R-1"}
    answer_with(server, an_invoice(server), [a_method()], [wage, other])
    assert snapshot_of(gateway).refunds == ()
    assert [request.path.rpartition("/")[2] for request in server.rest()] == [
        "invoices?orderId=T-1&take=100",
        "payment-methods",
        "pull-payments?includeArchived=true",
    ]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b""),
        Answer(body=b"<html>"),
        Answer(body=b"{}"),
        Answer(body=b"\xff"),
        Answer(body=b"[" * 100_000),
        Answer(status=404, body=b"<html>"),
        Answer(status=429),
        Answer(status=503),
        Answer(status=301, headers={"Location": "/elsewhere"}),
    ],
)
def test_answer_that_is_none_is_unavailable_and_asked_for_once(
    server: Listener, gateway: BtcpayGateway, answer: Answer
) -> None:
    server.answers.put(answer)
    with pytest.raises(Unavailable):
        gateway.fetch(reference="T-1", provider_id="")
    assert len(server.rest()) == 1


def test_answer_that_is_too_long_is_unavailable(
    server: Listener, gateway: BtcpayGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(asking, "ANSWER_BYTES", 1000)
    server.answers.put(Answer(body=b" " * 1001))
    with pytest.raises(Unavailable, match="too much"):
        gateway.fetch(reference="T-1", provider_id="")


def test_reference_is_escaped_in_the_address(server: Listener, gateway: BtcpayGateway) -> None:
    server.answers.put(Answer(body=b"[]"))
    assert gateway.fetch(reference="T-1&take=0#y", provider_id="") is None
    assert server.next().path == f"/api/v1/stores/{STORE_ID}/invoices?orderId=T-1%26take%3D0%23y&take=100"


def test_refusal_says_the_servers_reason_without_what_could_not_be_stored(
    server: Listener, gateway: BtcpayGateway
) -> None:
    server.answers.put(Answer(body=b"[]"))
    body = json.dumps([{"path": "amount", "message": "No\x00 such\ud800 day."}]).encode()
    server.answers.put(Answer(status=422, body=body))
    with pytest.raises(Declined, match=r"^BTCPay Server refused: No such day\.$"):
        gateway.open(CHARGE)


@pytest.mark.payment_case(48)
@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_known_as_such_whatever_the_body(
    server: Listener, gateway: BtcpayGateway, status: int
) -> None:
    server.answers.put(Answer(status=status, body=b"<html>"))
    with pytest.raises(CredentialsRefused, match=r"^BTCPay Server refuses our credentials\.$"):
        gateway.open(CHARGE)


@pytest.mark.payment_case(47)
def test_late_answer_is_unavailable(
    chain: RunningBtcpay, gateway: BtcpayGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No worker waits long."""
    chain.set_faults(delay_seconds=30)
    monkeypatch.setattr(asking, "WAIT_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="ReadTimeout"):
        gateway.open(CHARGE)


def test_server_that_is_down_is_unavailable(
    server: Listener, settings: Settings, gateway: BtcpayGateway
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    settings.BTCPAY_URL = f"http://127.0.0.1:{port}"
    with pytest.raises(Unavailable, match="ConnectError"):
        gateway.open(CHARGE)


# --- settings ----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["BTCPAY_URL", "BTCPAY_API_KEY", "BTCPAY_STORE_ID", "BTCPAY_WEBHOOK_SECRET"])
def test_missing_setting_is_named_and_nothing_is_asked(
    server: Listener, settings: Settings, gateway: BtcpayGateway, name: str
) -> None:
    setattr(settings, name, "")
    assert gateway.missing() == [name]
    with pytest.raises(Unavailable, match=name):
        gateway.open(CHARGE)
    assert server.rest() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("BTCPAY_API_KEY", "two words"),
        ("BTCPAY_API_KEY", "é"),
        ("BTCPAY_STORE_ID", "../x"),
        ("BTCPAY_WEBHOOK_SECRET", " "),
    ],
)
def test_malformed_setting_counts_as_missing(
    server: Listener, settings: Settings, gateway: BtcpayGateway, name: str, value: str
) -> None:
    setattr(settings, name, value)
    assert gateway.missing() == [name]


def test_plain_http_is_refused_unless_emulators_are_allowed(
    server: Listener, settings: Settings, gateway: BtcpayGateway
) -> None:
    settings.ALLOW_EMULATORS = False
    assert gateway.missing() == ["ALLOW_EMULATORS"]
    with pytest.raises(Unavailable, match="ALLOW_EMULATORS"):
        gateway.open(CHARGE)
    assert server.rest() == []
    settings.BTCPAY_URL = "https://btcpay.example"
    assert gateway.missing() == []


@pytest.mark.payment_case(54)
def test_secrets_are_never_logged(
    chain: RunningBtcpay, settings: Settings, gateway: BtcpayGateway, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        paid(chain, gateway)
        snapshot_of(gateway)
        settings.BTCPAY_API_KEY = "another-key-of-ours"
        with pytest.raises(CredentialsRefused) as problem:
            gateway.open(CHARGE)
    assert "/invoices" in caplog.text
    for secret in (KEY, SECRET, "another-key-of-ours"):
        assert secret not in caplog.text + str(problem.value)


# --- webhooks ----------------------------------------------------------------------------------------


def a_body(*, seconds: float = 0, **changes: object) -> bytes:
    """A webhook made `seconds` from now."""
    return json.dumps(
        {
            "deliveryId": "delivery2",
            "webhookId": "webhook1",
            "originalDeliveryId": "delivery1",
            "isRedelivery": False,
            "type": "InvoiceSettled",
            "timestamp": int(time.time() + seconds),
            "storeId": STORE_ID,
            "invoiceId": INVOICE_ID,
            "metadata": {"orderId": "T-1"},
            **changes,
        }
    ).encode()


def signed(body: bytes, secret: str = SECRET) -> dict[str, str]:
    authentication = hmac.HMAC(secret.encode(), hashes.SHA256())
    authentication.update(body)
    return {"btcpay-sig": f"sha256={authentication.finalize().hex()}"}


@pytest.mark.payment_case(1, 4)
def test_signed_webhook_is_an_event_with_the_first_delivery_as_its_key(
    server: Listener, gateway: BtcpayGateway
) -> None:
    body = a_body()
    assert gateway.read_webhook(headers=signed(body), body=body) == Event("delivery1", "T-1")
    first = a_body(originalDeliveryId=None)
    assert gateway.read_webhook(headers=signed(first), body=first) == Event("delivery2", "T-1")


@pytest.mark.payment_case(7)
@pytest.mark.parametrize("metadata", [None, {}, {"orderId": None}, {"orderId": "a b"}, {"orderId": 5}])
def test_event_of_an_invoice_that_is_not_ours_is_one_for_a_person(
    server: Listener, gateway: BtcpayGateway, metadata: object
) -> None:
    """Well signed, so it is stored."""
    body = a_body(metadata=metadata)
    assert gateway.read_webhook(headers=signed(body), body=body) == Event("delivery1", "")


@pytest.mark.parametrize("seconds", [-290, 290])
def test_webhook_of_the_last_or_next_five_minutes_is_read(
    server: Listener, gateway: BtcpayGateway, seconds: float
) -> None:
    body = a_body(seconds=seconds)
    assert gateway.read_webhook(headers=signed(body), body=body).attempt_reference == "T-1"


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("seconds", [-310, 310])
def test_webhook_older_or_newer_than_five_minutes_is_refused(
    server: Listener, gateway: BtcpayGateway, seconds: float
) -> None:
    body = a_body(seconds=seconds)
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=signed(body), body=body)


@pytest.mark.parametrize(("seconds", "is_read"), [(-3600, True), (-7300, False), (310, False)])
def test_webhook_that_is_sent_again_bears_its_first_time_for_an_hour(
    server: Listener, gateway: BtcpayGateway, seconds: float, is_read: bool
) -> None:
    body = a_body(seconds=seconds, isRedelivery=True)
    if is_read:
        assert gateway.read_webhook(headers=signed(body), body=body) == Event("delivery1", "T-1")
    else:
        with pytest.raises(BadSignature):
            gateway.read_webhook(headers=signed(body), body=body)


@pytest.mark.payment_case(6)
def test_webhook_without_a_good_signature_is_refused(server: Listener, gateway: BtcpayGateway) -> None:
    body = a_body()
    good = signed(body)["btcpay-sig"]
    for header in ("", good[7:], good[:-1], "sha1=" + good[7:], "sha256=" + "0" * 64, "sha256=" + "é" * 64):
        with pytest.raises(BadSignature):
            gateway.read_webhook(headers={"btcpay-sig": header}, body=body)
    for headers in ({}, signed(body, "another secret"), signed(body, ""), signed(body + b" ")):
        with pytest.raises(BadSignature):
            gateway.read_webhook(headers=headers, body=body)


@pytest.mark.payment_case(10, 11)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"[" * 100_000,
        a_body(storeId="another"),
        a_body(invoiceId=None),
        a_body(timestamp=None),
        a_body(timestamp="soon"),
        a_body(timestamp=10**30),
        a_body(timestamp=-5),
        a_body(deliveryId=None),
        a_body(originalDeliveryId="a b"),
        a_body(originalDeliveryId="a" * 101),
        a_body() + b" " * 2_000_000,
    ],
    ids=lambda body: repr(body[:20]) + str(len(body)),
)
def test_body_that_is_no_event_of_our_store_is_refused_however_well_signed(
    server: Listener, gateway: BtcpayGateway, body: bytes
) -> None:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=signed(body), body=body)


@pytest.mark.payment_case(12)
def test_while_the_secret_is_being_changed_both_are_good(
    server: Listener, settings: Settings, gateway: BtcpayGateway
) -> None:
    settings.BTCPAY_WEBHOOK_SECRET = f"{SECRET} old-secret"
    body = a_body()
    for secret in (SECRET, "old-secret"):
        assert gateway.read_webhook(headers=signed(body, secret), body=body).dedupe_key == "delivery1"


def test_webhooks_of_the_server_are_read(
    shop: Listener, chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    opened = gateway.open(CHARGE)
    chain.do(opened.provider_id, Deed.PAY)
    chain.wait_for_webhooks()
    requests = shop.rest()
    events = [gateway.read_webhook(headers=request.headers, body=request.body) for request in requests]
    assert [json.loads(request.body)["type"] for request in requests] == [
        "InvoiceCreated",
        "InvoiceReceivedPayment",
        "InvoiceProcessing",
        "InvoicePaymentSettled",
        "InvoiceSettled",
    ]
    assert [event.attempt_reference for event in events] == ["T-1"] * 5
    assert len({event.dedupe_key for event in events}) == 5


@pytest.mark.payment_case(49)
def test_wrongly_signed_webhook_is_refused_and_signed_well_the_next_time(
    shop: Listener, chain: RunningBtcpay, gateway: BtcpayGateway
) -> None:
    chain.set_faults(wrong_key=1)
    shop.answers.put(Answer(status=400))
    gateway.open(CHARGE)
    chain.wait_for_webhooks()
    first, second = shop.rest()
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=first.headers, body=first.body)
    assert gateway.read_webhook(headers=second.headers, body=second.body).attempt_reference == "T-1"
