"""Cases 47 to 54 of docs/payment-cases.md: trouble, strangers, and what nobody is to see."""

import logging
from collections.abc import Callable, Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from html import unescape

import pytest
from django.contrib import admin
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from emulators.keys import new_keys
from emulators.running import Running
from orders import gateways
from orders.checkout import CannotCancel, cancel_order
from orders.forms import PayForm
from orders.gateways import paypal as paypal_gateway
from orders.gateways.emulators import stripe as stripes
from orders.gateways.emulators.alipay import BUYER as ALIPAY_BUYER
from orders.gateways.emulators.chain import Deed
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.emulators.sandbox import Outcome
from orders.gateways.emulators.wechat import BUYER as WECHAT_BUYER
from orders.gateways.protocol import CredentialsRefused
from orders.models import Ground, Order, PaymentAttempt, ReviewItem, WebhookEvent
from orders.payments import poll_payments, process_webhooks, refresh_attempt
from orders.refunds import approve_refund, request_refund
from orders.returns import send_returns
from orders.tests import backstage_btcpay as btcpays
from orders.tests import backstage_nowpayments as nowpayments
from orders.tests.backstage_alipay import shop_keys
from orders.tests.backstage_paypal import PAYPAL_CLIENT_SECRET
from orders.tests.backstage_stripe import STRIPE_KEY, STRIPE_SECRET
from orders.tests.backstage_wechat import WECHAT_API_V3_KEY, configured_wechat, merchant_keys
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Answer, Listener, listening
from orders.tests.paying import PAID, UNPAID, Door, begin, hand_on, standing_of, told_by
from orders.tests.shopping import log_in
from tests.builders import make_fee, make_order, make_plan, make_user
from tests.racing import failures, race

pytestmark = pytest.mark.django_db(transaction=True)

CANCELLED = replace(UNPAID, state="cancelled")


@pytest.fixture
def now() -> datetime:
    """The providers live in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def order(now: datetime) -> Order:
    """The only unit that there is."""
    return make_order([(make_fee(make_plan(cap=1), minor=4_990), 1)], placed_at=now)


# --- 47, 48, 49: the provider is down, refuses us, is somebody else ------------------------------------------


@pytest.mark.payment_case(47)
def test_buyer_chooses_another_method_while_a_provider_is_down(
    sandbox: RunningSandbox,
    stripe: RunningStripe,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
) -> None:
    sandbox.set_faults(errors=1_000)
    pay = f"/orders/{order.reference}/pay/"
    with door.browser_of(order) as browser:
        page = browser.post(pay, data={"method": "sandbox"})
        assert page.status_code == 200
        assert "The payment page cannot be reached at the moment. Nothing was charged." in page.text
        assert 'value="card"' in page.text

        led_away = browser.post(pay, data={"method": "card"})

    [session] = stripe.books()["sessions"]
    assert (led_away.status_code, led_away.headers["Location"]) == (302, session["url"])
    stripe.decide(session["url"])
    hand_on(stripe, shop, door, now=now)
    assert standing_of(order) == PAID


@pytest.mark.payment_case(47)
def test_provider_that_is_down_is_asked_once_a_run_and_keeps_no_other_waiting(
    sandbox: RunningSandbox,
    stripe: RunningStripe,
    shop: Listener,
    order: Order,
    now: datetime,
    caplog: pytest.LogCaptureFixture,
) -> None:
    fee = order.lines.get().fee
    stuck = [make_order([(fee, 1)], placed_at=now) for _ in range(3)]
    for each in stuck:
        sandbox.decide(begin(each, now=now).pay_url, Outcome.PAY_UNTOLD)
    stripe.decide(begin(order, now=now, method="card").pay_url, stripes.Outcome.PAY_UNTOLD)
    sandbox.set_faults(errors=1_000)

    for minutes in (1, 3, 6, 10):
        poll_payments(now=now + timedelta(minutes=minutes))

    assert standing_of(order) == PAID
    assert [standing_of(each) for each in stuck] == [UNPAID] * 3
    unanswered = [record for record in caplog.records if "was not answered for" in record.message]
    assert len(unanswered) == 4

    sandbox.set_faults(errors=0)
    poll_payments(now=now + timedelta(minutes=20))
    assert [standing_of(each) for each in stuck] == [PAID] * 3


@pytest.mark.payment_case(48)
def test_refused_credentials_are_told_to_staff_once_a_day_and_lose_nothing(
    paypal: RunningPayPal, shop: Listener, order: Order, door: Door, now: datetime, settings: Settings
) -> None:
    attempt = begin(order, now=now, method="paypal")
    paypal.decide(attempt.pay_url)
    assert door.deliver(*told_by(paypal, shop)) == [200]
    secret, settings.PAYPAL_CLIENT_SECRET = settings.PAYPAL_CLIENT_SECRET, "not-the-secret"

    a_minute = timedelta(minutes=1)
    assert [process_webhooks(now=now + a_minute * n) for n in range(3)] == [0, 0, 0]

    assert standing_of(order) == replace(UNPAID, reviews=("gateway-refuses-us",))
    assert attempt.reference in ReviewItem.objects.get().detail
    assert "not-the-secret" not in ReviewItem.objects.get().detail
    settings.PAYPAL_CLIENT_SECRET = secret
    assert process_webhooks(now=now + timedelta(hours=1)) == 1
    assert standing_of(order) == replace(PAID, reviews=("gateway-refuses-us",))


@pytest.mark.payment_case(48)
def test_refused_credentials_show_the_buyer_another_way_and_are_told_to_staff(
    paypal: RunningPayPal, order: Order, door: Door, settings: Settings
) -> None:
    settings.PAYPAL_CLIENT_SECRET = "not-the-secret"

    with door.browser_of(order) as browser:
        page = browser.post(f"/orders/{order.reference}/pay/", data={"method": "paypal"})

    assert "The payment page cannot be reached at the moment. Nothing was charged." in page.text
    assert standing_of(order) == replace(UNPAID, reviews=("gateway-refuses-us",))


@pytest.mark.payment_case(48)
def test_token_that_was_taken_back_is_replaced_at_the_second_try_and_alarms_nobody(
    paypal: RunningPayPal, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    paypal.decide(begin(order, now=now, method="paypal").pay_url)
    door.deliver(*told_by(paypal, shop))
    paypal.take_tokens_back()

    assert process_webhooks(now=now) == 1

    assert standing_of(order) == PAID


@pytest.mark.payment_case(49)
def test_answer_that_is_signed_by_another_key_is_none_and_the_order_waits_for_a_good_one(
    alipay: RunningAlipay, shop: Listener, door: Door, now: datetime, settings: Settings
) -> None:
    order = make_order([(make_fee(make_plan(), minor=4_990, currency="CNY"), 1)], placed_at=now)
    attempt = begin(order, now=now, method="alipay")
    shop.answers.put(Answer(body=b"success"))
    alipay.decide(attempt.pay_url)
    assert door.deliver(*told_by(alipay, shop)) == [200]
    # From here on whoever answers does not have the key that we know as Alipay's.
    theirs, settings.ALIPAY_PUBLIC_KEY = settings.ALIPAY_PUBLIC_KEY, new_keys()[1]

    assert process_webhooks(now=now) == 0
    assert poll_payments(now=now + timedelta(hours=1)) == 1

    assert (standing_of(order), PaymentAttempt.objects.get().state) == (UNPAID, "pending")
    settings.ALIPAY_PUBLIC_KEY = theirs
    assert process_webhooks(now=now + timedelta(hours=1)) == 1
    assert standing_of(order) == replace(PAID, ledger=(("capture", 4_990, "CNY"),))


# --- 50, 51: strangers' addresses ---------------------------------------------------------------------------


@pytest.mark.payment_case(50)
@pytest.mark.parametrize(
    "query",
    [
        "?status=captured&paid=1&redirect_status=succeeded",
        "?session_id=cs_test_1&payment_status=paid",
        "?trade_status=TRADE_SUCCESS&total_amount=49.90&out_trade_no=VM-1",
        "?token={other}&PayerID=ABC",
    ],
)
def test_edited_return_address_pays_nothing(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime, query: str
) -> None:
    other = make_order([(order.lines.get().fee, 1)], placed_at=now)
    paid = begin(other, now=now)
    sandbox.decide(paid.pay_url, Outcome.PAY_UNTOLD)
    begin(order, now=now)

    with door.browser_of(order) as browser:
        back = browser.get(f"/orders/{order.reference}/paid/{query.format(other=paid.provider_id)}")

    assert (back.status_code, back.headers["Location"]) == (302, f"/orders/{order.reference}/pay/")
    assert (standing_of(order), standing_of(other)) == (UNPAID, UNPAID)


@pytest.mark.payment_case(50)
def test_return_address_of_somebody_elses_order_is_not_there(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    other = make_order([(order.lines.get().fee, 1)], placed_at=now)
    sandbox.decide(begin(other, now=now).pay_url, Outcome.PAY_UNTOLD)

    with door.browser_of(order) as browser:
        assert browser.get(f"/orders/{other.reference}/paid/").status_code == 404

    assert standing_of(other) == UNPAID


@pytest.mark.payment_case(51)
@pytest.mark.parametrize(
    "address",
    [
        "http://{elsewhere}/v1/notifications/certs/CERT-1",
        "{paypal}@{elsewhere}/v1/notifications/certs/CERT-1",
    ],
    ids=["host", "host behind a name"],
)
def test_webhook_with_a_certificate_of_a_foreign_address_makes_us_ask_nobody(
    paypal: RunningPayPal,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    settings: Settings,
    address: str,
) -> None:
    paypal.decide(begin(order, now=now, method="paypal").pay_url)
    [webhook] = told_by(paypal, shop)
    with listening() as elsewhere, listening() as in_its_place:
        foreign = address.format(elsewhere=elsewhere.url.removeprefix("http://"), paypal=in_its_place.url)
        settings.PAYPAL_URL = in_its_place.url

        assert door.deliver(replace(webhook, headers={**webhook.headers, "paypal-cert-url": foreign})) == [
            400
        ]

        assert (elsewhere.rest(), in_its_place.rest()) == ([], [])
    assert (WebhookEvent.objects.count(), standing_of(order)) == (0, UNPAID)
    settings.PAYPAL_URL = paypal.url
    assert door.deliver(webhook) == [200]


# --- 52, 53: the buyer changes his mind -----------------------------------------------------------------------


@pytest.mark.payment_case(52)
def test_order_is_still_payable_after_a_card_was_declined_for_good(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url, Outcome.DECLINE)
    hand_on(sandbox, shop, door, now=now)
    assert standing_of(order) == UNPAID

    with door.browser_of(order) as browser:
        page = browser.get(f"/orders/{order.reference}/pay/")
        assert "The payment was declined." in page.text
        again = browser.post(f"/orders/{order.reference}/pay/", data={"method": "sandbox"})
    sandbox.decide(again.headers["Location"])
    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == PAID
    assert list(order.attempts.order_by("pk").values_list("state", flat=True)) == ["declined", "captured"]


@pytest.mark.payment_case(52)
def test_other_card_at_the_same_session_pays_after_the_first_was_refused(
    stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    attempt = begin(order, now=now, method="card")
    stripe.decide(attempt.pay_url, stripes.Outcome.REFUSE_CARD)
    refresh_attempt(attempt_id=attempt.pk, now=now)
    attempt.refresh_from_db()
    assert (standing_of(order), attempt.state) == (UNPAID, "pending")

    assert begin(order, now=now, method="card") == attempt
    stripe.decide(attempt.pay_url)
    hand_on(stripe, shop, door, now=now)

    assert (standing_of(order), order.attempts.count()) == (PAID, 1)


@pytest.mark.payment_case(53)
def test_order_cancelled_when_the_provider_had_the_money_is_paid(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url)
    with door.browser_of(order) as browser:
        assert browser.post(f"/orders/{order.reference}/cancel/").status_code == 302
    assert standing_of(order) == CANCELLED

    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == PAID
    with pytest.raises(CannotCancel):
        cancel_order(order_id=order.pk, now=now)


@pytest.mark.payment_case(53)
def test_order_cancelled_when_the_provider_had_the_money_and_sold_again_gives_it_back(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url)
    cancel_order(order_id=order.pk, now=now)
    make_order([(order.lines.get().fee, 1)], paid_at=now)

    hand_on(sandbox, shop, door, now=now)
    assert send_returns(now=now) == 1
    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == replace(
        CANCELLED,
        ledger=(("capture", 4_990, "USD"), ("refund", -4_990, "USD")),
        returns=(("late", 4_990, "paid"),),
        told=("money-returned",),
    )


@pytest.mark.postgres
@pytest.mark.payment_case(53)
def test_cancelling_and_reporting_at_the_same_moment_ends_paid_whoever_is_first(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.decide(begin(order, now=now).pay_url)
    door.deliver(*told_by(sandbox, shop))

    cancelled, processed = race(
        lambda: cancel_order(order_id=order.pk, now=now), lambda: process_webhooks(now=now)
    )

    assert processed == 1
    assert isinstance(cancelled, Order | CannotCancel)
    assert standing_of(order) == PAID


@pytest.mark.postgres
@pytest.mark.payment_case(53)
def test_paying_while_we_close_ends_as_the_provider_says(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    attempt = begin(order, now=now)
    cancel_order(order_id=order.pk, now=now)

    assert failures(race(lambda: poll_payments(now=now), lambda: sandbox.decide(attempt.pay_url))) == []
    hand_on(sandbox, shop, door, now=now)

    [payment] = sandbox.books()["payments"]
    ends = {"captured": (PAID, "captured"), "cancelled": (CANCELLED, "cancelled")}
    attempt.refresh_from_db()
    assert (standing_of(order), attempt.state) == ends[payment["status"]]


# --- 54: what nobody is to see ------------------------------------------------------------------------------------


# What the emulators tell of a buyer: his name, his addresses, his ids, the digits of his card.
OF_THE_BUYER = ("Zoë", "zoe@example.com", '"4242"', "visa", ALIPAY_BUYER, "lin***@example.com", WECHAT_BUYER)
KEYS = (
    *(SANDBOX_KEY, SANDBOX_SECRET, STRIPE_KEY, STRIPE_SECRET, PAYPAL_CLIENT_SECRET, WECHAT_API_V3_KEY),
    *(btcpays.KEY, btcpays.SECRET, nowpayments.KEY, nowpayments.SECRET, nowpayments.PASSWORD),
)


def refund_all(order: Order, *, now: datetime) -> None:
    [line] = order.lines.all()
    asking, deciding = make_user(is_staff=True), make_user(is_staff=True)
    refund = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="None will come.",
        units={line.pk: 1},
        requested_by_id=asking.pk,
        now=now,
    )
    approve_refund(refund_id=refund.pk, approved_by_id=deciding.pk, now=now)


@pytest.mark.payment_case(54)
def test_no_key_no_token_and_nothing_of_the_buyer_is_in_the_logs_or_in_the_admin(
    sandbox: RunningSandbox,
    stripe: RunningStripe,
    paypal: RunningPayPal,
    alipay: RunningAlipay,
    shop: Listener,
    door: Door,
    now: datetime,
    settings: Settings,
    caplog: pytest.LogCaptureFixture,
) -> None:
    plan = make_plan()
    desk = Client()
    log_in(desk, make_user(is_staff=True))
    with (
        configured_wechat(settings) as wechat,
        btcpays.configured_btcpay(settings) as btcpay,
        nowpayments.configured_nowpayments(settings) as coins,
        caplog.at_level(logging.DEBUG),
    ):
        settings.PAYMENT_METHODS = [
            *("sandbox=sandbox", "card=stripe", "paypal=paypal", "alipay=alipay", "wechat=wechat"),
            *("bitcoin=btcpay", "ethereum=nowpayments"),
        ]
        pay: Mapping[str, tuple[Running, str, Callable[[PaymentAttempt], object]]] = {
            "sandbox": (sandbox, "USD", lambda attempt: sandbox.decide(attempt.pay_url)),
            "card": (stripe, "USD", lambda attempt: stripe.decide(attempt.pay_url)),
            "paypal": (paypal, "USD", lambda attempt: paypal.decide(attempt.pay_url)),
            "alipay": (alipay, "CNY", lambda attempt: alipay.decide(attempt.pay_url)),
            "wechat": (wechat, "CNY", lambda attempt: wechat.decide(attempt.reference)),
            "bitcoin": (btcpay, "USD", lambda attempt: btcpay.do(attempt.provider_id, Deed.PAY)),
            "ethereum": (coins, "USD", lambda attempt: coins.do(attempt.provider_id, Deed.PAY)),
        }
        for method, (provider, currency, pays) in pay.items():
            order = make_order([(make_fee(plan, minor=4_990, currency=currency), 1)], placed_at=now)
            attempt = begin(order, now=now, method=method)
            pays(attempt)
            for _answer in range(4):
                shop.answers.put(Answer(body=b"success"))
            hand_on(provider, shop, door, now=now)
            assert standing_of(order).state == "paid"
            refund_all(order, now=now)
            send_returns(now=now)
            hand_on(provider, shop, door, now=now)
        settings.STRIPE_SECRET_KEY = "sk_test_refusedKeyOfTheTests"
        with pytest.raises(CredentialsRefused):
            begin(make_order([(make_fee(plan), 1)], placed_at=now), now=now, method="card")
        pages = [
            unescape(desk.get(address).content.decode())
            for model in admin.site._registry
            if model._meta.app_label == "orders"
            for address in (
                reverse(f"admin:orders_{model._meta.model_name}_changelist"),
                *(
                    reverse(f"admin:orders_{model._meta.model_name}_change", args=[pk])
                    for pk in model._default_manager.values_list("pk", flat=True)
                ),
            )
        ]
    assert set(WebhookEvent.objects.values_list("gateway", flat=True)) == {*gateways.GATEWAYS}
    stored = "".join(bytes(event.body).decode() for event in WebhookEvent.objects.all())
    assert [
        words for words in ("Zoë", "zoe@example.com", '"4242"', ALIPAY_BUYER) if words not in stored
    ] == []

    (token,) = [token for (url, *_), (token, _at) in paypal_gateway._tokens.items() if url == paypal.url]
    secrets = [
        *KEYS,
        *OF_THE_BUYER,
        "sk_test_refusedKeyOfTheTests",
        token["access_token"],  # type: ignore[index]
        *(line for key in (shop_keys()[0], merchant_keys()[0]) for line in key.splitlines()[1:-1]),
        "BEGIN PRIVATE KEY",
        *(
            value
            for event in WebhookEvent.objects.all()
            for name, value in event.headers.items()
            if name.endswith(("sig", "signature"))
        ),
    ]
    shown = caplog.text + "".join(pages)
    assert [secret for secret in secrets if secret in shown] == []


@pytest.mark.payment_case(54)
def test_card_is_never_asked_for_by_the_shop() -> None:
    assert list(PayForm(methods=[]).fields) == ["method"]
