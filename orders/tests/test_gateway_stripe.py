"""The Stripe gateway against its emulator, and against a Stripe that answers nonsense, late, too much or nothing."""

import contextlib
import gzip
import json
import logging
import socket
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import time_machine
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import stripe as adapter
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.emulators.stripe import Outcome
from orders.gateways.protocol import (
    Booking,
    Charge,
    CredentialsRefused,
    Declined,
    MoneyMoved,
    RefusedReturn,
    Return,
    Snapshot,
    Unavailable,
)
from orders.gateways.stripe import StripeGateway
from orders.tests.backstage_stripe import STRIPE_KEY, STRIPE_SECRET, configured_stripe
from orders.tests.gateway_servers import Answer, Listener, listening

SESSION_ID = "cs_test_a1B2c3D4e5F6g7H8"
INTENT_ID = "pi_3PaymentOfTheTests"
LIVE_KEY = "sk_live_keyOfTheTests0123456789"
CHARGE = Charge(
    reference="T-1",
    amount=Money(4990, "USD"),
    description="2 × VIP, 30 days",
    return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
    expires_at=datetime(2026, 11, 23, 9, tzinfo=UTC),
    language="en",
    method="card",
)
NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
AT = int(NOW.timestamp())


@pytest.fixture
def stripe(shop: Listener, settings: Settings) -> Iterator[RunningStripe]:
    """Stripe's emulator, running, and settings that lead to it. Webhooks go to `shop`."""
    with configured_stripe(settings) as running:
        yield running


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A Stripe that answers whatever the test wants."""
    with listening() as listener:
        settings.ALLOW_EMULATORS = True
        settings.STRIPE_URL = listener.url
        settings.STRIPE_SECRET_KEY = STRIPE_KEY
        settings.STRIPE_WEBHOOK_SECRET = STRIPE_SECRET
        yield listener


def answering(provider: Listener, *contents: object) -> None:
    for content in contents:
        provider.answers.put(Answer(body=json.dumps(content).encode()))


def refusing(provider: Listener, status: int, message: str, kind: str = "invalid_request_error") -> None:
    body = {"error": {"type": kind, "message": message}}
    provider.answers.put(Answer(status=status, body=json.dumps(body).encode()))


def a_session(**changes: object) -> dict[str, object]:
    return {
        "object": "checkout.session",
        "id": SESSION_ID,
        "client_reference_id": "T-1",
        "status": "complete",
        "payment_status": "paid",
        "amount_total": 4990,
        "currency": "usd",
        "metadata": {"payment": "T-1"},
        "url": None,
        "payment_intent": an_intent(),
        **changes,
    }


def an_intent(**changes: object) -> dict[str, object]:
    return {
        "object": "payment_intent",
        "id": INTENT_ID,
        "status": "succeeded",
        "latest_charge": a_charge(),
        "last_payment_error": None,
        **changes,
    }


def a_charge(**changes: object) -> dict[str, object]:
    return {
        "object": "charge",
        "id": "ch_3ChargeOfTheTests",
        "status": "succeeded",
        "captured": True,
        "amount_captured": 4990,
        "currency": "usd",
        "created": AT,
        "metadata": {"payment": "T-1"},
        **changes,
    }


def a_refund(**changes: object) -> dict[str, object]:
    return {
        "object": "refund",
        "id": "re_3RefundOfTheTests",
        "status": "succeeded",
        "amount": 4990,
        "currency": "usd",
        "created": AT,
        "payment_intent": INTENT_ID,
        "metadata": {"payment": "T-1", "refund": "R-1"},
        **changes,
    }


def a_dispute(*lines: dict[str, object], **changes: object) -> dict[str, object]:
    return {
        "object": "dispute",
        "id": "du_1DisputeOfTheTests",
        "amount": 4990,
        "currency": "usd",
        "balance_transactions": list(lines),
        **changes,
    }


def a_line(**changes: object) -> dict[str, object]:
    return {
        "object": "balance_transaction",
        "id": "txn_1LineOfTheTests",
        "reporting_category": "dispute",
        "amount": -4990,
        "currency": "usd",
        "created": AT,
        **changes,
    }


def a_list(*contents: object, has_more: object = False) -> dict[str, object]:
    return {"object": "list", "data": list(contents), "has_more": has_more}


def opened(**changes: object) -> str:
    """Where a new payment is paid."""
    charge = replace(CHARGE, expires_at=datetime.now(UTC) + timedelta(hours=1), **changes)  # type: ignore[arg-type]
    return StripeGateway().open(charge).pay_url


def session_of(pay_url: str) -> str:
    return pay_url.rpartition("/")[2]


def fetched(pay_url: str) -> Snapshot:
    snapshot = StripeGateway().fetch(reference="T-1", provider_id=session_of(pay_url))
    assert snapshot
    return snapshot


def fetch() -> Snapshot | None:
    return StripeGateway().fetch(reference="T-1", provider_id=SESSION_ID)


def give_back(pay_url: str, minor: int = 4990, *, reference: str = "R-1") -> None:
    StripeGateway().give_back(Return(reference, session_of(pay_url), Money(minor, "USD")))


# --- opening -----------------------------------------------------------------------------------------


@time_machine.travel(NOW, tick=False)
def test_session_is_asked_for_as_stripe_wants_it_and_the_key_stays_in_its_header(provider: Listener) -> None:
    provider.answers.put(Answer(status=500))
    with pytest.raises(Unavailable) as problem:
        StripeGateway().open(CHARGE)
    request = provider.next()
    assert (request.method, request.path) == ("POST", "/v1/checkout/sessions")
    assert request.headers["authorization"] == f"Bearer {STRIPE_KEY}"
    assert request.headers["idempotency-key"] == "T-1:create"
    assert request.headers["stripe-version"] == "2026-10-28.endive"
    assert dict(parse_qsl(request.body.decode())) == {
        "mode": "payment",
        "client_reference_id": "T-1",
        "metadata[payment]": "T-1",
        "payment_intent_data[description]": "2 × VIP, 30 days",
        "payment_intent_data[metadata][payment]": "T-1",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "4990",
        "line_items[0][price_data][product_data][name]": "2 × VIP, 30 days",
        "adaptive_pricing[enabled]": "false",
        "allowed_payment_method_types[0]": "card",
        "success_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
        "cancel_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
        "expires_at": str(AT + 3600),
        "locale": "en",
    }
    assert STRIPE_KEY not in str(problem.value)


def test_nothing_is_told_about_this_machine(provider: Listener) -> None:
    provider.answers.put(Answer(status=500, headers={"Stripe-Notice": "Buy more."}))
    with pytest.raises(Unavailable):
        StripeGateway().open(CHARGE)
    headers = provider.next().headers
    told = json.loads(headers["x-stripe-client-user-agent"])
    assert "platform" not in told
    assert "telemetry_id" not in told
    assert "x-stripe-client-telemetry" not in headers


@pytest.mark.payment_case(21)
@pytest.mark.parametrize(
    ("expires_in", "seconds"),
    [
        (timedelta(minutes=-5), 1860),
        (timedelta(minutes=10), 1860),
        (timedelta(minutes=31), 1860),
        (timedelta(hours=5), 18_000),
        (timedelta(days=3), 86_340),
    ],
)
@time_machine.travel(NOW, tick=False)
def test_session_lives_no_shorter_and_no_longer_than_stripe_allows(
    provider: Listener, expires_in: timedelta, seconds: int
) -> None:
    provider.answers.put(Answer(status=500))
    with pytest.raises(Unavailable):
        StripeGateway().open(replace(CHARGE, expires_at=NOW + expires_in))
    assert parse_qs(provider.next().body.decode())["expires_at"] == [str(AT + seconds)]


@pytest.mark.payment_case(21)
def test_session_that_lives_longer_than_the_order_is_closed_before_its_time(stripe: RunningStripe) -> None:
    at_once = replace(CHARGE, expires_at=datetime.now(UTC) + timedelta(seconds=1))
    session = StripeGateway().open(at_once)
    StripeGateway().close(provider_id=session.provider_id)
    stripe.decide(session.pay_url)
    assert fetched(session.pay_url) == Snapshot(provider_id=session.provider_id, state="cancelled")


@pytest.mark.parametrize(
    ("method", "stripes"),
    [("", "card"), ("card", "card"), ("alipay", "alipay"), ("wechat", "wechat_pay")],
)
def test_buyer_gets_the_method_that_he_picked_and_no_other(
    stripe: RunningStripe, method: str, stripes: str
) -> None:
    pay_url = opened(method=method)
    (session,) = stripe.books()["sessions"]
    assert session["payment_method_types"] == [stripes]
    stripe.decide(pay_url)
    assert fetched(pay_url).state == "captured"


def test_method_that_is_not_stripes_is_declined_and_nothing_is_asked(provider: Listener) -> None:
    with pytest.raises(Declined):
        StripeGateway().open(replace(CHARGE, method="paypal"))
    assert provider.rest() == []


@pytest.mark.parametrize(("language", "locale"), [("en", "en"), ("zh-hans", "zh"), ("zh-hant", "zh-HK")])
def test_page_speaks_the_language_of_the_shop(stripe: RunningStripe, language: str, locale: str) -> None:
    opened(language=language)
    assert [session["locale"] for session in stripe.books()["sessions"]] == [locale]


@pytest.mark.payment_case(25, 27)
def test_asking_again_later_gives_the_same_session_although_it_would_expire_later(
    stripe: RunningStripe,
) -> None:
    charge = replace(CHARGE, expires_at=datetime.now(UTC))
    first = StripeGateway().open(charge)
    with time_machine.travel(datetime.now(UTC) + timedelta(minutes=2)):
        assert StripeGateway().open(charge) == first
    assert len(stripe.books()["sessions"]) == 1


@pytest.mark.payment_case(25)
def test_eight_requests_at_once_give_one_session(stripe: RunningStripe) -> None:
    charge = replace(CHARGE, expires_at=datetime.now(UTC) + timedelta(hours=1))
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(StripeGateway().open, [charge] * 8))
    assert len(set(answers)) == 1
    assert len(stripe.books()["sessions"]) == 1


def test_session_that_is_over_is_not_opened_again_in_other_words(stripe: RunningStripe) -> None:
    pay_url = opened()
    StripeGateway().close(provider_id=session_of(pay_url))
    with pytest.raises(Declined, match="time to pay"):
        opened(language="zh-hans")


def test_session_that_is_paid_is_not_opened_again_and_nothing_is_decided(stripe: RunningStripe) -> None:
    stripe.decide(opened())
    with pytest.raises(Unavailable):
        opened(language="zh-hans")


@pytest.mark.payment_case(51)
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/pay",
        "javascript:alert(1)",
        "/c/pay/1",
        "{}.evil.example/",
        "{}/c/pay/ 1",
        "{}/" + "a" * 2000,
    ],
)
def test_buyer_is_never_sent_to_another_site(provider: Listener, url: str) -> None:
    answering(provider, a_session(status="open", payment_intent=None, url=url.format(provider.url)))
    with pytest.raises(Unavailable):
        StripeGateway().open(CHARGE)


def test_buyer_of_the_real_stripe_is_sent_to_its_pages_only(settings: Settings) -> None:
    settings.STRIPE_URL = "https://api.stripe.com"
    assert adapter._is_pay_url("https://checkout.stripe.com/c/pay/cs_live_1#fidkdWxOYHwnPyd1" + "b" * 800)
    assert not adapter._is_pay_url("https://api.stripe.com/c/pay/cs_live_1")
    assert not adapter._is_pay_url("https://checkout.stripe.com.evil.example/c/pay/cs_live_1")


@pytest.mark.parametrize("changes", [{"client_reference_id": "T-2"}, {"url": None}])
def test_another_session_than_was_asked_for_is_unavailable(
    provider: Listener, changes: dict[str, object]
) -> None:
    content = a_session(status="open", payment_intent=None, url=f"{provider.url}/c/pay/1")
    answering(provider, {**content, **changes})
    with pytest.raises(Unavailable):
        StripeGateway().open(CHARGE)


def test_conflict_with_a_session_that_is_not_there_is_unavailable(provider: Listener) -> None:
    refusing(provider, 400, "Keys for idempotent requests …", "idempotency_error")
    answering(provider, a_list())
    with pytest.raises(Unavailable, match="conflict"):
        StripeGateway().open(CHARGE)


def test_key_that_is_in_use_at_this_moment_is_unavailable(provider: Listener) -> None:
    refusing(provider, 409, "There is another request in progress.", "idempotency_error")
    with pytest.raises(Unavailable, match="409"):
        StripeGateway().open(CHARGE)
    assert len(provider.rest()) == 1


# --- finding -----------------------------------------------------------------------------------------


@pytest.mark.payment_case(4, 27)
def test_payment_is_found_by_its_reference_before_our_request_was_answered(stripe: RunningStripe) -> None:
    stripe.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        opened()
    opened(reference="T-2")
    (session,) = (one for one in stripe.books()["sessions"] if one["client_reference_id"] == "T-1")
    stripe.decide(session["url"])
    snapshot = StripeGateway().fetch(reference="T-1", provider_id="")
    assert snapshot
    assert (snapshot.provider_id, snapshot.state) == (session["id"], "captured")


def test_payment_is_found_behind_a_hundred_others(stripe: RunningStripe) -> None:
    pay_url = opened()
    for number in range(2, 103):
        opened(reference=f"T-{number}")
    snapshot = StripeGateway().fetch(reference="T-1", provider_id="")
    assert snapshot
    assert snapshot.provider_id == session_of(pay_url)


def test_session_that_can_be_paid_is_found_before_one_that_is_over(provider: Listener) -> None:
    over = a_session(id="cs_test_over", status="expired", payment_intent=None, payment_status="unpaid")
    answering(provider, a_list(over, a_session(), over), a_session(), a_list(), a_list())
    snapshot = StripeGateway().fetch(reference="T-1", provider_id="")
    assert snapshot
    assert (snapshot.provider_id, snapshot.state) == (SESSION_ID, "captured")


def test_sessions_of_others_need_not_be_readable(provider: Listener) -> None:
    answering(provider, a_list({"id": "cs_test_other", "client_reference_id": None}))
    assert StripeGateway().fetch(reference="T-1", provider_id="") is None


@time_machine.travel(NOW, tick=False)
def test_no_session_is_looked_for_that_is_older_than_a_day(provider: Listener) -> None:
    answering(provider, a_list())
    assert StripeGateway().fetch(reference="T-1", provider_id="") is None
    query = parse_qs(urlsplit(provider.next().path).query)
    assert query == {"created[gte]": [str(AT - 25 * 3600)], "limit": ["100"]}


@pytest.mark.parametrize(
    "pages",
    [
        [a_list(a_session(client_reference_id="T-2"), has_more=True)] * 2,
        [a_list(has_more=True)],
        [a_list(has_more="no")],
        [a_list({"client_reference_id": "T-1"})],
        [a_list("cs_test_1")],
        [{**a_list(), "data": None}],
        [a_session()],
    ],
    ids=["goes in circles", "empty but more", "more is no answer", "no id", "text", "no data", "no list"],
)
def test_list_that_makes_no_sense_is_unavailable(provider: Listener, pages: list[object]) -> None:
    # A page that would end any list.
    answering(provider, *pages, a_list())
    with pytest.raises(Unavailable):
        StripeGateway().fetch(reference="T-1", provider_id="")


def test_id_that_is_none_of_stripes_is_never_asked_for(provider: Listener) -> None:
    for provider_id in ("pi_1", "cs_test_", "cs_test_1/expire", "cs_test_1\n", "cs_fest_1"):
        assert StripeGateway().fetch(reference="T-1", provider_id=provider_id) is None
    assert provider.rest() == []


# --- what became of it -------------------------------------------------------------------------------


@pytest.mark.payment_case(5, 13, 14, 15)
@pytest.mark.parametrize(
    ("outcome", "captured"),
    [
        (Outcome.PAY, Money(4990, "USD")),
        (Outcome.PAY_LESS, Money(4989, "USD")),
        (Outcome.PAY_MORE, Money(5090, "USD")),
        (Outcome.PAY_OTHER_CURRENCY, Money(4990, "JPY")),
        (Outcome.PAY_UNTOLD, Money(4990, "USD")),
        (Outcome.PAY_TOLD_TWICE, Money(4990, "USD")),
    ],
)
def test_snapshot_states_exactly_what_was_captured(
    stripe: RunningStripe, outcome: Outcome, captured: Money
) -> None:
    pay_url = opened()
    stripe.decide(pay_url, outcome)
    snapshot = fetched(pay_url)
    assert snapshot.state == "captured"
    assert [capture.amount for capture in snapshot.captures] == [captured]


@pytest.mark.payment_case(16)
def test_yen_are_sent_and_read_without_decimals(stripe: RunningStripe) -> None:
    pay_url = opened(amount=Money(499, "JPY"))
    stripe.decide(pay_url)
    assert [capture.amount for capture in fetched(pay_url).captures] == [Money(499, "JPY")]


@pytest.mark.payment_case(18)
def test_capture_is_of_the_moment_at_which_stripe_charged_and_not_of_the_question(
    stripe: RunningStripe,
) -> None:
    pay_url = opened()
    at = datetime.now(UTC).replace(microsecond=0) + timedelta(minutes=59)
    with time_machine.travel(at, tick=False):
        stripe.decide(pay_url)
    with time_machine.travel(at + timedelta(minutes=10)):
        assert [capture.at for capture in fetched(pay_url).captures] == [at]


@pytest.mark.payment_case(52)
def test_declined_card_leaves_the_payment_open_for_another_one(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url, Outcome.REFUSE_CARD)
    assert fetched(pay_url) == Snapshot(
        provider_id=session_of(pay_url), state="pending", problem="Your card was declined."
    )
    stripe.decide(pay_url)
    snapshot = fetched(pay_url)
    assert (snapshot.state, len(snapshot.captures), snapshot.problem) == ("captured", 1, "")


@pytest.mark.payment_case(23)
def test_payment_that_is_processed_is_being_confirmed_until_it_succeeds(stripe: RunningStripe) -> None:
    """Of methods that take their time."""
    pay_url = opened(method="alipay")
    stripe.decide(pay_url, Outcome.PROCESS)
    assert fetched(pay_url) == Snapshot(provider_id=session_of(pay_url), state="confirming")
    stripe.decide(pay_url, Outcome.SUCCEED)
    snapshot = fetched(pay_url)
    assert (snapshot.state, [capture.amount for capture in snapshot.captures]) == (
        "captured",
        [Money(4990, "USD")],
    )


def test_payment_that_fails_in_the_end_is_declined_and_says_why(stripe: RunningStripe) -> None:
    pay_url = opened(method="alipay")
    stripe.decide(pay_url, Outcome.PROCESS)
    stripe.decide(pay_url, Outcome.FAIL)
    assert fetched(pay_url) == Snapshot(
        provider_id=session_of(pay_url), state="declined", problem="The payment failed."
    )


def test_overdue_session_is_expired_and_cannot_be_paid(stripe: RunningStripe) -> None:
    pay_url = opened()
    # The provider is in this process and goes by the same clock.
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=1)):
        stripe.decide(pay_url)
        assert fetched(pay_url) == Snapshot(provider_id=session_of(pay_url), state="expired")


def test_session_that_was_refused_a_card_and_closed_is_cancelled(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url, Outcome.REFUSE_CARD)
    StripeGateway().close(provider_id=session_of(pay_url))
    assert fetched(pay_url).state == "cancelled"


@pytest.mark.payment_case(53)
def test_buyer_who_pays_while_we_close_was_faster(provider: Listener) -> None:
    answering(
        provider,
        a_session(status="open", payment_intent=None, payment_status="unpaid", url=f"{provider.url}/c/pay/1"),
    )
    refusing(provider, 400, 'Only Checkout Sessions with a status in ["open"] can be expired.')
    with pytest.raises(Declined):
        StripeGateway().close(provider_id=SESSION_ID)
    assert [request.path for request in provider.rest()] == [
        f"/v1/checkout/sessions/{SESSION_ID}",
        f"/v1/checkout/sessions/{SESSION_ID}/expire",
    ]


@pytest.mark.payment_case(53)
def test_payment_that_was_closed_too_late_is_captured_all_the_same(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    with pytest.raises(Declined):
        StripeGateway().close(provider_id=session_of(pay_url))
    assert fetched(pay_url).state == "captured"


def test_answer_about_another_session_closes_nothing(provider: Listener) -> None:
    answering(provider, a_session(id="cs_test_other"))
    with pytest.raises(Unavailable):
        StripeGateway().close(provider_id=SESSION_ID)


def test_answer_is_read_to_the_minor_unit_and_in_utc(provider: Listener) -> None:
    charge = a_charge(amount_captured=4990, currency="jpy", created=AT)
    answering(provider, a_session(payment_intent=an_intent(latest_charge=charge)), a_list(), a_list())
    snapshot = fetch()
    assert snapshot
    assert snapshot.captures == (MoneyMoved("ch_3ChargeOfTheTests", Money(4990, "JPY"), NOW),)


@pytest.mark.parametrize(
    ("charge", "captured"),
    [({"captured": False}, False), ({"status": "pending"}, False), ({"status": "failed"}, False), ({}, True)],
    ids=repr,
)
def test_only_what_was_captured_is_money(
    provider: Listener, charge: dict[str, object], captured: bool
) -> None:
    intent = an_intent(status="requires_capture", latest_charge=a_charge(**charge))
    answering(provider, a_session(payment_status="unpaid", payment_intent=intent), a_list(), a_list())
    snapshot = fetch()
    assert snapshot
    assert (snapshot.state, bool(snapshot.captures)) == (
        ("captured", True) if captured else ("confirming", False)
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"object": "event"},
        {"id": "cs_test_other"},
        {"id": "../x"},
        {"id": 5},
        {"client_reference_id": "T-2"},
        {"client_reference_id": None},
        {"client_reference_id": "T-\x00"},
        {"status": "paid"},
        {"status": None},
        {"payment_status": True},
        {"amount_total": "4990"},
        {"amount_total": 49.9},
        {"amount_total": -4990},
        {"amount_total": True},
        {"amount_total": 0},
        {"amount_total": 10**40},
        {"currency": "xxxx"},
        {"currency": "kwd"},
        {"currency": None},
        {"metadata": None},
        {"url": 5},
        {"payment_intent": None},
        {"payment_intent": INTENT_ID},
        {"payment_intent": an_intent(id="../x")},
        {"payment_intent": an_intent(latest_charge="ch_1")},
        {"payment_intent": an_intent(latest_charge=None)},
        {"payment_intent": an_intent(latest_charge=a_charge(amount_captured=49.9))},
        {"payment_intent": an_intent(latest_charge=a_charge(amount_captured=True))},
        {"payment_intent": an_intent(latest_charge=a_charge(amount_captured=0))},
        {"payment_intent": an_intent(latest_charge=a_charge(created="2026-11-23"))},
        {"payment_intent": an_intent(latest_charge=a_charge(created=10**20))},
        {"payment_intent": an_intent(latest_charge=a_charge(created=-1))},
        {"payment_intent": an_intent(latest_charge=a_charge(id="1"))},
        {"payment_intent": an_intent(latest_charge=a_charge(captured="yes"))},
    ],
    ids=lambda changes: repr(changes)[:70],
)
def test_answer_that_makes_no_sense_is_unavailable(provider: Listener, changes: dict[str, object]) -> None:
    # All that would be asked next has an answer.
    answering(provider, a_session(**changes), a_list(), a_list())
    with pytest.raises(Unavailable):
        fetch()
    assert len(provider.rest()) == 1


@pytest.mark.parametrize(
    "refund",
    [
        a_refund(amount=0),
        a_refund(amount="4990"),
        a_refund(amount=-1),
        a_refund(currency=None),
        a_refund(created=None),
        a_refund(id="x"),
        a_refund(status=None),
        a_refund(object="charge"),
        a_refund(metadata=None),
    ],
    ids=lambda refund: repr(refund)[:110],
)
def test_refund_that_makes_no_sense_is_unavailable(provider: Listener, refund: dict[str, object]) -> None:
    answering(provider, a_session(), a_list(refund), a_list())
    with pytest.raises(Unavailable):
        fetch()


@pytest.mark.parametrize(
    "dispute",
    [
        a_dispute(amount=None),
        a_dispute(balance_transactions=None),
        a_dispute(a_line(amount=4990)),
        a_dispute(a_line(reporting_category="dispute_reversal")),
        a_dispute(a_line(amount=-49.9)),
        a_dispute(a_line(id="1")),
        a_dispute(a_line(created=None)),
        a_dispute(a_line(object="charge")),
    ],
    ids=lambda dispute: repr(dispute)[90:250],
)
def test_dispute_that_makes_no_sense_is_unavailable(provider: Listener, dispute: dict[str, object]) -> None:
    answering(provider, a_session(), a_list(), a_list(dispute))
    with pytest.raises(Unavailable):
        fetch()


# --- refunds and disputes ----------------------------------------------------------------------------


@pytest.mark.payment_case(39)
def test_refund_is_asked_for_once_and_bears_our_references(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    for _click in range(2):
        give_back(pay_url, 1000)
    (refund,) = stripe.books()["refunds"]
    assert (refund["amount"], refund["metadata"]) == (1000, {"payment": "T-1", "refund": "R-1"})
    assert [(back.amount, back.reference) for back in fetched(pay_url).refunds] == [
        (Money(1000, "USD"), "R-1")
    ]


@pytest.mark.payment_case(39)
def test_eight_clicks_at_once_are_one_refund(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda _number: give_back(pay_url, 1000), range(8)))
    assert len(stripe.books()["refunds"]) == 1


@pytest.mark.payment_case(39)
def test_refund_is_asked_for_with_its_reference_as_the_key(provider: Listener) -> None:
    answering(provider, a_session(), a_list(), a_refund())
    StripeGateway().give_back(Return("R-1", SESSION_ID, Money(4990, "USD")))
    request = provider.rest()[-1]
    assert (request.method, request.path) == ("POST", "/v1/refunds")
    assert request.headers["idempotency-key"] == "R-1"
    assert dict(parse_qsl(request.body.decode())) == {
        "payment_intent": INTENT_ID,
        "amount": "4990",
        "metadata[payment]": "T-1",
        "metadata[refund]": "R-1",
    }


@pytest.mark.payment_case(39)
def test_refund_is_asked_for_once_after_stripe_has_forgotten_the_key(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    give_back(pay_url, 1000)
    with time_machine.travel(datetime.now(UTC) + timedelta(days=3)):
        give_back(pay_url, 1000)
    assert len(stripe.books()["refunds"]) == 1


@pytest.mark.payment_case(40)
def test_two_refunds_at_once_do_not_exceed_the_capture(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)

    def back(reference: str) -> str:
        try:
            give_back(pay_url, 3000, reference=reference)
        except Declined:
            return "declined"
        return "accepted"

    with ThreadPoolExecutor(2) as pool:
        answers = list(pool.map(back, ["R-1", "R-2"]))
    assert sorted(answers) == ["accepted", "declined"]
    assert [back.amount for back in fetched(pay_url).refunds] == [Money(3000, "USD")]


@pytest.mark.payment_case(41)
def test_refund_that_is_on_its_way_is_in_no_list_until_it_has_arrived(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    stripe.decide(pay_url, Outcome.DELAY_REFUNDS)
    give_back(pay_url)
    before = fetched(pay_url)
    assert (before.refunds, before.refused_returns) == ((), ())
    with pytest.raises(Declined):
        give_back(pay_url, 1, reference="R-2")
    stripe.decide(pay_url, Outcome.COMPLETE_REFUNDS)
    assert [back.reference for back in fetched(pay_url).refunds] == ["R-1"]


@pytest.mark.payment_case(41)
def test_refund_that_fails_in_the_end_is_refused_and_the_money_can_be_given_back_again(
    stripe: RunningStripe,
) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    stripe.decide(pay_url, Outcome.DELAY_REFUNDS)
    give_back(pay_url)
    stripe.decide(pay_url, Outcome.FAIL_REFUNDS)
    snapshot = fetched(pay_url)
    assert snapshot.refunds == ()
    [refused] = snapshot.refused_returns
    assert (refused.reference, refused.problem) == ("R-1", "expired_or_canceled_card")
    assert refused.transaction_id == stripe.books()["refunds"][0]["id"]
    give_back(pay_url, reference="R-2")
    stripe.decide(pay_url, Outcome.COMPLETE_REFUNDS)
    assert [back.reference for back in fetched(pay_url).refunds] == ["R-2"]


def test_failed_refund_of_the_dashboard_bears_no_reference_either(provider: Listener) -> None:
    answering(provider, a_session(), a_list(a_refund(status="failed", metadata={"refund": "R 1"})), a_list())
    snapshot = fetch()
    assert snapshot
    assert snapshot.refunds == ()
    assert snapshot.refused_returns == (RefusedReturn("", "failed", "re_3RefundOfTheTests"),)


@pytest.mark.payment_case(42)
def test_refund_of_the_dashboard_bears_no_reference(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    give_back(pay_url, 1000)
    stripe.decide(pay_url, Outcome.REFUND_HERE)
    assert [(back.amount.minor, back.reference) for back in fetched(pay_url).refunds] == [
        (3990, ""),
        (1000, "R-1"),
    ]


def test_refund_in_another_currency_is_declined_for_stripe_would_take_it_for_the_payments(
    stripe: RunningStripe,
) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    with pytest.raises(Declined, match="currency"):
        StripeGateway().give_back(Return("R-1", session_of(pay_url), Money(4990, "JPY")))
    assert stripe.books()["refunds"] == []


@pytest.mark.parametrize(
    "changes",
    [
        {"payment_intent": "pi_other"},
        {"amount": 4989},
        {"currency": "jpy"},
        {"metadata": {"payment": "T-1", "refund": "R-2"}},
        {"metadata": {}},
    ],
    ids=repr,
)
def test_refund_confirmed_for_something_else_is_unavailable(
    provider: Listener, changes: dict[str, object]
) -> None:
    answering(provider, a_session(), a_list(), a_refund(**changes))
    with pytest.raises(Unavailable):
        StripeGateway().give_back(Return("R-1", SESSION_ID, Money(4990, "USD")))


def test_inquiry_takes_no_money(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    before = fetched(pay_url)
    stripe.decide(pay_url, Outcome.INQUIRE)
    assert fetched(pay_url) == before
    stripe.decide(pay_url, Outcome.WIN)
    assert fetched(pay_url) == before


@pytest.mark.payment_case(44)
def test_chargeback_takes_the_money_and_a_dispute_that_is_won_gives_it_again(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    stripe.decide(pay_url, Outcome.CHARGE_BACK)
    snapshot = fetched(pay_url)
    assert (snapshot.state, snapshot.refunds, snapshot.reversals) == ("captured", (), ())
    assert [taken.amount for taken in snapshot.chargebacks] == [Money(4990, "USD")]
    with pytest.raises(Declined):
        give_back(pay_url)
    stripe.decide(pay_url, Outcome.WIN)
    won = fetched(pay_url)
    assert won.chargebacks == snapshot.chargebacks
    assert [again.amount for again in won.reversals] == [Money(4990, "USD")]
    assert won.reversals[0].transaction_id != won.chargebacks[0].transaction_id


@pytest.mark.payment_case(44)
def test_dispute_that_is_lost_gives_nothing_again(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    stripe.decide(pay_url, Outcome.CHARGE_BACK)
    before = fetched(pay_url)
    stripe.decide(pay_url, Outcome.LOSE)
    assert fetched(pay_url) == before


@pytest.mark.payment_case(45)
def test_dispute_after_a_full_refund_shows_beside_it(stripe: RunningStripe) -> None:
    pay_url = opened()
    stripe.decide(pay_url)
    give_back(pay_url)
    stripe.decide(pay_url, Outcome.CHARGE_BACK)
    snapshot = fetched(pay_url)
    assert [back.amount for back in snapshot.refunds] == [Money(4990, "USD")]
    assert [taken.amount for taken in snapshot.chargebacks] == [Money(4990, "USD")]


@pytest.mark.parametrize(
    ("line", "taken"),
    [
        (a_line(amount=-3000), [Money(3000, "USD")]),
        # Settled in another currency: what counts is what was disputed.
        (a_line(amount=-38_900, currency="hkd"), [Money(4990, "USD")]),
        (a_line(amount=-28_000, currency="myr"), [Money(4990, "USD")]),
        (a_line(amount=0), []),
        (a_line(reporting_category="fee"), []),
    ],
    ids=["part", "in HKD", "in MYR", "nothing", "fee"],
)
def test_chargeback_is_of_what_the_balance_says_in_the_currency_of_the_payment(
    provider: Listener, line: dict[str, object], taken: list[Money]
) -> None:
    answering(provider, a_session(), a_list(), a_list(a_dispute(line)))
    snapshot = fetch()
    assert snapshot
    assert [moved.amount for moved in snapshot.chargebacks] == taken


# --- the books ---------------------------------------------------------------------------------------


def test_books_of_a_day_are_what_the_snapshots_of_its_payments_say(stripe: RunningStripe) -> None:
    with time_machine.travel(NOW):
        paid, disputed, unpaid = opened(), opened(reference="T-2"), opened(reference="T-3")
        stripe.decide(paid)
        give_back(paid, 1000)
        stripe.decide(disputed)
        stripe.decide(disputed, Outcome.CHARGE_BACK)
        stripe.decide(unpaid, Outcome.REFUSE_CARD)
    with time_machine.travel(NOW + timedelta(days=40)):
        stripe.decide(disputed, Outcome.WIN)
        snapshots = [
            StripeGateway().fetch(reference="", provider_id=session_of(pay_url))
            for pay_url in (paid, disputed)
        ]
        booked = {
            day: set(StripeGateway().bookings(day=day))
            for day in (
                date(2026, 11, 22),
                date(2026, 11, 23),
                date(2026, 11, 24),
                date(2027, 1, 2),
            )
        }
    first, second = snapshots
    assert first
    assert second

    def entry(kind: str, moved: MoneyMoved, reference: str) -> Booking:
        return Booking(kind, moved.transaction_id, moved.amount, moved.at, reference)

    assert booked == {
        date(2026, 11, 22): set(),
        date(2026, 11, 23): {
            entry("capture", first.captures[0], "T-1"),
            entry("refund", first.refunds[0], "T-1"),
            entry("capture", second.captures[0], "T-2"),
            entry("chargeback", second.chargebacks[0], "T-2"),
        },
        date(2026, 11, 24): set(),
        date(2027, 1, 2): {entry("reversal", second.reversals[0], "T-2")},
    }


def test_day_of_the_books_begins_and_ends_at_midnight_of_utc(provider: Listener) -> None:
    answering(provider, a_list(), a_list(), a_list())
    assert list(StripeGateway().bookings(day=date(2026, 11, 23))) == []
    midnight = int(datetime(2026, 11, 23, tzinfo=UTC).timestamp())
    queries = [parse_qs(urlsplit(request.path).query) for request in provider.rest()]
    assert [(query["created[gte]"], query["created[lt]"]) for query in queries] == [
        ([str(midnight)], [str(midnight + 86_400)])
    ] * 3


def test_long_books_come_in_pages(stripe: RunningStripe) -> None:
    with time_machine.travel(NOW):
        for number in range(101):
            stripe.decide(opened(reference=f"T-{number}"), Outcome.PAY_UNTOLD)
        booked = list(StripeGateway().bookings(day=date(2026, 11, 23)))
    assert sorted(booking.reference for booking in booked) == sorted(f"T-{number}" for number in range(101))


@pytest.mark.payment_case(42)
def test_refund_of_the_dashboard_is_booked_for_the_payment_that_it_is_of(stripe: RunningStripe) -> None:
    with time_machine.travel(NOW):
        pay_url = opened()
        stripe.decide(pay_url)
        stripe.decide(pay_url, Outcome.REFUND_HERE)
        booked = list(StripeGateway().bookings(day=date(2026, 11, 23)))
    assert [(booking.kind, booking.reference) for booking in booked] == [
        ("capture", "T-1"),
        ("refund", "T-1"),
    ]


def test_refund_that_is_waiting_or_has_failed_is_not_booked(provider: Listener) -> None:
    refunds = [a_refund(status=status) for status in ("pending", "requires_action", "failed", "canceled")]
    answering(provider, a_list(), a_list(*refunds), a_list())
    assert list(StripeGateway().bookings(day=date(2026, 11, 23))) == []


def test_adjustment_that_is_about_no_dispute_is_not_booked(provider: Listener) -> None:
    answering(provider, a_list(), a_list(), a_list(a_line(source=None), a_line(source=a_refund())))
    assert list(StripeGateway().bookings(day=date(2026, 11, 23))) == []


def test_books_that_make_no_sense_are_unavailable(provider: Listener) -> None:
    answering(provider, a_list(a_charge(amount_captured="4990")))
    with pytest.raises(Unavailable):
        list(StripeGateway().bookings(day=date(2026, 11, 23)))


# --- the connection ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b""),
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        Answer(body=b"null"),
        Answer(body=b"{}"),
        Answer(body=b"\xff"),
        Answer(body=b"[" * 100_000),
        Answer(body=b"9" * 10_000),
        Answer(status=404, body=b"<html>"),
        Answer(status=404, body=b'{"error": "gone"}'),
        Answer(status=418),
        Answer(status=429),
        Answer(status=503),
        Answer(status=503, headers={"Stripe-Should-Retry": "true"}),
        Answer(status=301, headers={"Location": "/elsewhere"}),
    ],
    ids=[
        "empty",
        "HTML",
        "list",
        "null",
        "object",
        "no UTF-8",
        "deep",
        "number",
        "404 HTML",
        "404 text",
        "418",
        "429",
        "503",
        "503 retry",
        "301",
    ],
)
def test_answer_that_is_none_is_unavailable_and_asked_for_once(provider: Listener, answer: Answer) -> None:
    provider.answers.put(answer)
    with pytest.raises(Unavailable):
        fetch()
    assert [urlsplit(request.path).path for request in provider.rest()] == [
        f"/v1/checkout/sessions/{SESSION_ID}"
    ]


def test_answer_that_is_too_long_is_unavailable(provider: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "ANSWER_BYTES", 10_000)
    provider.answers.put(Answer(body=json.dumps(a_session()).encode() + b" " * 10_000))
    with pytest.raises(Unavailable, match="too much"):
        fetch()


def test_compressed_answer_is_not_unpacked(provider: Listener) -> None:
    body = gzip.compress(json.dumps(a_session()).encode())
    provider.answers.put(Answer(body=body, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(Unavailable):
        fetch()
    assert provider.next().headers["accept-encoding"] == "identity"


@pytest.mark.payment_case(47)
def test_late_answer_is_unavailable(stripe: RunningStripe, monkeypatch: pytest.MonkeyPatch) -> None:
    stripe.set_faults(delay_seconds=30)
    monkeypatch.setattr(adapter, "WAIT_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="ReadTimeout"):
        opened()


@pytest.mark.payment_case(47)
def test_answer_that_drips_is_given_up(
    provider: Listener, settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "CALL_SECONDS", 1.0)

    def drip(server: socket.socket) -> None:
        connection, _address = server.accept()
        with connection, contextlib.suppress(OSError):  # who has waited enough hangs up
            connection.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
            while True:
                connection.sendall(b" ")
                time.sleep(0.02)

    with socket.create_server(("127.0.0.1", 0)) as server:
        settings.STRIPE_URL = f"http://127.0.0.1:{server.getsockname()[1]}"
        thread = threading.Thread(target=drip, args=(server,))
        thread.start()
        with pytest.raises(Unavailable, match="too slowly"):
            fetch()
        thread.join()


@pytest.mark.payment_case(47)
def test_all_questions_of_one_call_share_its_time(
    provider: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "CALL_SECONDS", 0.0)
    with pytest.raises(Unavailable, match="too slowly"):
        fetch()
    assert provider.rest() == []


@pytest.mark.payment_case(47)
def test_stripe_that_is_down_is_unavailable(settings: Settings, provider: Listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    settings.STRIPE_URL = f"http://127.0.0.1:{port}"
    with pytest.raises(Unavailable, match="ConnectError"):
        fetch()


def test_connection_that_fails_is_tried_once_more(settings: Settings, provider: Listener) -> None:
    connections = []

    def hang_up(server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                connection, address = server.accept()
                connections.append(address)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=(server,))
        thread.start()
        # TLS is part of connecting, and can be made to fail.
        settings.STRIPE_URL = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unavailable, match="ConnectError"):
            fetch()
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(connections) == 2


@pytest.mark.payment_case(54)
def test_no_proxy_of_the_environment_sees_our_key(
    provider: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    with listening() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "")
        answering(provider, a_session(), a_list(), a_list())
        assert fetch()
        assert proxy.rest() == []


@pytest.mark.payment_case(48)
@pytest.mark.parametrize("status", [401, 403])
@pytest.mark.parametrize(
    "body", [b"<html>", b'{"error": {"message": "Invalid API Key provided: sk_test_***"}}']
)
def test_refused_credentials_are_known_as_such_whatever_the_body(
    provider: Listener, status: int, body: bytes
) -> None:
    provider.answers.put(Answer(status=status, body=body))
    with pytest.raises(CredentialsRefused, match=r"^Stripe refuses our credentials\.$"):
        fetch()
    assert len(provider.rest()) == 1


def test_refusal_says_stripes_reason_without_what_could_not_be_stored(provider: Listener) -> None:
    refusing(provider, 400, "No\x00 such\ud800 method.")
    with pytest.raises(Declined, match=r"^Stripe refused: No such method\.$"):
        StripeGateway().open(CHARGE)


@pytest.mark.parametrize("status", [400, 402])
def test_refusal_without_words_names_its_status(provider: Listener, status: int) -> None:
    provider.answers.put(Answer(status=status, body=b'{"error": {}}'))
    with pytest.raises(Declined, match=f"^Stripe refused: status {status}$"):
        StripeGateway().open(CHARGE)


@pytest.mark.payment_case(54)
@pytest.mark.parametrize("path", ["open", "fetch", "give back", "books"])
def test_neither_keys_nor_buyers_are_logged(
    stripe: RunningStripe, shop: Listener, caplog: pytest.LogCaptureFixture, path: str
) -> None:
    with caplog.at_level(logging.DEBUG):
        pay_url = opened()
        stripe.decide(pay_url)
        fetched(pay_url)
        if path == "give back":
            give_back(pay_url)
        if path == "books":
            list(StripeGateway().bookings(day=datetime.now(UTC).date()))
    assert "/v1/checkout/sessions" in caplog.text
    for secret in (
        STRIPE_KEY,
        STRIPE_SECRET,
        STRIPE_SECRET.removeprefix("whsec_"),
        "4242",
        "zoe@example.com",
    ):
        assert secret not in caplog.text


@pytest.mark.payment_case(54)
def test_keys_are_in_no_exception(stripe: RunningStripe, settings: Settings) -> None:
    settings.STRIPE_SECRET_KEY = "sk_test_anotherKeyOfOurs"
    with pytest.raises(CredentialsRefused) as problem:
        opened()
    chain: BaseException | None = problem.value
    while chain:
        assert "anotherKeyOfOurs" not in repr(chain) + str(chain)
        chain = chain.__cause__


# --- the settings ------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["STRIPE_URL", "STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"])
def test_missing_setting_is_named_and_nothing_is_asked(
    provider: Listener, settings: Settings, name: str
) -> None:
    setattr(settings, name, "")
    assert StripeGateway().missing() == [name]
    with pytest.raises(Unavailable, match=name):
        fetch()
    assert provider.rest() == []


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("STRIPE_SECRET_KEY", "pk_test_keyOfTheTests0123456789"),
        ("STRIPE_SECRET_KEY", "sk_test_"),
        ("STRIPE_SECRET_KEY", "sk_test_key Of The Tests"),
        ("STRIPE_SECRET_KEY", "sk_test_keyOfTheTests\r\nX-Y: 1"),
        ("STRIPE_SECRET_KEY", "sk_test_keyÖfTheTests"),
        ("STRIPE_WEBHOOK_SECRET", "whsec_"),
        ("STRIPE_WEBHOOK_SECRET", "secretOfTheStripeTests"),
        ("STRIPE_WEBHOOK_SECRET", f"{STRIPE_SECRET} ?"),
        ("STRIPE_URL", "https://api.stripe.com/ x"),
    ],
)
def test_setting_that_is_malformed_counts_as_missing(
    provider: Listener, settings: Settings, name: str, value: str
) -> None:
    setattr(settings, name, value)
    assert StripeGateway().missing() == [name]


def test_plain_http_is_refused_unless_emulators_are_allowed(provider: Listener, settings: Settings) -> None:
    settings.STRIPE_SECRET_KEY = LIVE_KEY
    settings.ALLOW_EMULATORS = False
    assert StripeGateway().missing() == ["ALLOW_EMULATORS"]
    with pytest.raises(Unavailable, match="ALLOW_EMULATORS"):
        fetch()
    assert provider.rest() == []
    settings.STRIPE_URL = "https://api.stripe.com"
    assert StripeGateway().missing() == []


def test_keys_with_which_nobody_pays_are_refused_unless_emulators_are_allowed(
    provider: Listener, settings: Settings
) -> None:
    settings.STRIPE_URL = "https://api.stripe.com"
    settings.ALLOW_EMULATORS = False
    assert StripeGateway().missing() == ["ALLOW_EMULATORS"]
    settings.STRIPE_SECRET_KEY = LIVE_KEY.replace("sk_", "rk_")
    assert StripeGateway().missing() == []


def test_gateway_that_is_not_configured_misses_its_keys_only(settings: Settings) -> None:
    settings.ALLOW_EMULATORS = False
    settings.STRIPE_URL = "https://api.stripe.com"
    settings.STRIPE_SECRET_KEY = settings.STRIPE_WEBHOOK_SECRET = ""
    assert StripeGateway().missing() == ["STRIPE_SECRET_KEY", "STRIPE_WEBHOOK_SECRET"]
