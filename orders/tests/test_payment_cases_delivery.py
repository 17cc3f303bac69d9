"""Cases 1 to 12 of docs/payment-cases.md: how what a provider reports reaches the order.

Over real HTTP both ways: the provider sends to a listener, and what that kept is handed to the shop's own
server as often, as late and as spoilt as a test wants.
"""

import base64
import hmac
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
import time_machine
from django.db import connection, connections
from pytest_django import Settings

from emulators.keys import new_keys
from orders.gateways.emulators import stripe as stripes
from orders.gateways.emulators.running import RunningSandbox, running_sandbox
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.emulators.sandbox import Outcome
from orders.gateways.protocol import Charge, Unavailable
from orders.gateways.sandbox import SandboxGateway
from orders.models import Order, ReviewItem, WebhookEvent
from orders.payments import poll_payments, process_webhooks, refresh_attempt
from orders.tests.backstage_stripe import STRIPE_SECRET
from orders.tests.backstage_wechat import configured_wechat
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Answer, Listener, Request
from orders.tests.paying import PAID, UNPAID, Door, begin, hand_on, standing_of, told_by
from orders.tests.test_gateway_sandbox_webhooks import signed_headers
from tests.builders import make_fee, make_order, make_plan
from tests.racing import failures, race

pytestmark = pytest.mark.django_db(transaction=True)

PROJECT = Path(__file__).resolve().parents[2]
DEADLINE_SECONDS = 60


@pytest.fixture
def now() -> datetime:
    """The providers live in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def order(now: datetime) -> Order:
    return make_order([(make_fee(make_plan(), minor=4_990), 1)], placed_at=now)


@pytest.fixture
def paid_for(shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime) -> Request:
    """The webhook of a payment of `order` that the buyer has paid; nobody has handed it on yet."""
    sandbox.decide(begin(order, now=now).pay_url)
    [webhook] = told_by(sandbox, shop)
    return webhook


METHOD_BY = {"sandbox": "sandbox", "stripe": "card", "paypal": "paypal", "alipay": "alipay"}


def order_by(gateway: str, now: datetime) -> Order:
    """An order of 49.90 in the currency of a gateway."""
    fee = make_fee(make_plan(), minor=4_990, currency="CNY" if gateway == "alipay" else "USD")
    return make_order([(fee, 1)], placed_at=now)


def inbox() -> int:
    return WebhookEvent.objects.count()


# --- 1, 2: the same thing several times --------------------------------------------------------------


@pytest.mark.payment_case(1)
def test_event_delivered_five_times_is_answered_each_time_and_booked_and_told_once(
    paid_for: Request, order: Order, door: Door, now: datetime
) -> None:
    assert door.deliver(*[paid_for] * 5) == [200] * 5
    assert process_webhooks(now=now) == 1
    # Once more when all is done.
    assert door.deliver(paid_for) == [200]
    assert process_webhooks(now=now) == 0

    assert (inbox(), standing_of(order)) == (1, PAID)


@pytest.mark.postgres
@pytest.mark.payment_case(1)
def test_event_delivered_ten_times_at_once_is_booked_and_told_once(
    paid_for: Request, order: Order, door: Door, now: datetime
) -> None:
    assert race(*[lambda: door.deliver(paid_for)] * 10) == [[200]] * 10
    assert inbox() == 1

    # Ten workers find it in the inbox at once, too.
    assert failures(race(*[lambda: process_webhooks(now=now)] * 10)) == []
    assert standing_of(order) == PAID


@pytest.mark.payment_case(2)
def test_two_events_about_one_capture_book_it_once(
    paypal: RunningPayPal, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    attempt = begin(order, now=now, method="paypal")
    paypal.decide(attempt.pay_url)
    approved = told_by(paypal, shop)
    refresh_attempt(attempt_id=attempt.pk, now=now)
    completed = told_by(paypal, shop)
    events = [*approved, *completed]
    assert [json.loads(event.body)["event_type"] for event in events] == [
        "CHECKOUT.ORDER.APPROVED",
        "PAYMENT.CAPTURE.COMPLETED",
    ]

    assert door.deliver(*events) == [200, 200]
    assert process_webhooks(now=now) == 2

    assert (inbox(), standing_of(order)) == (2, PAID)


# --- 3, 4, 5: in another order, too early, never -------------------------------------------------------


@pytest.mark.payment_case(3)
def test_failure_that_is_reported_after_the_capture_leaves_the_order_paid(
    stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    failing = begin(order, now=now, method="card")
    stripe.decide(failing.pay_url, stripes.Outcome.FAIL)
    refresh_attempt(attempt_id=failing.pk, now=now)
    failed = told_by(stripe, shop)
    stripe.decide(begin(order, now=now, method="card").pay_url)
    hand_on(stripe, shop, door, now=now)
    assert standing_of(order) == PAID

    assert [json.loads(event.body)["type"] for event in failed] == [
        "checkout.session.completed",
        "checkout.session.async_payment_failed",
    ]
    assert door.deliver(*failed) == [200, 200]
    assert process_webhooks(now=now) == 2

    assert standing_of(order) == PAID
    assert list(order.attempts.order_by("pk").values_list("state", flat=True)) == ["declined", "captured"]


@pytest.mark.payment_case(3)
def test_expiry_that_is_reported_after_the_capture_leaves_the_order_paid(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    attempt = begin(order, now=now)
    with time_machine.travel(order.pay_until, tick=False):
        # The buyer's money was under way when the time ran out.
        assert sandbox.books()["payments"][0]["status"] == "expired"
        sandbox.set_faults(drop=1)
        sandbox.decide(attempt.pay_url, Outcome.PAY_LATE)
        [expired] = told_by(sandbox, shop)
        refresh_attempt(attempt_id=attempt.pk, now=order.pay_until)
        assert standing_of(order) == PAID

        assert json.loads(expired.body)["type"] == "payment.expired"
        assert door.deliver(expired) == [200]
        assert process_webhooks(now=order.pay_until) == 1

    assert standing_of(order) == PAID
    assert order.attempts.get().state == "captured"


@pytest.mark.payment_case(4)
def test_webhook_that_comes_before_our_create_call_is_answered_finds_its_order(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    sandbox.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        begin(order, now=now)
    assert order.attempts.get().provider_id == ""
    sandbox.decide(sandbox.books()["payments"][0]["pay_url"])

    hand_on(sandbox, shop, door, now=now)

    assert standing_of(order) == PAID
    assert order.attempts.get().provider_id == sandbox.books()["payments"][0]["id"]


@pytest.mark.payment_case(4)
def test_buyer_who_returns_after_the_webhook_finds_his_order_paid(
    paid_for: Request, order: Order, door: Door, now: datetime
) -> None:
    door.deliver(paid_for)
    process_webhooks(now=now)

    with door.browser_of(order) as browser:
        back = browser.get(f"/orders/{order.reference}/paid/")

    assert (back.status_code, back.headers["Location"]) == (302, f"/orders/{order.reference}/")
    assert standing_of(order) == PAID


@pytest.mark.payment_case(5)
def test_webhook_that_is_lost_is_made_up_for_by_the_poller(
    sandbox: RunningSandbox, shop: Listener, order: Order, now: datetime
) -> None:
    attempt = begin(order, now=now)
    sandbox.set_faults(drop=1)
    sandbox.decide(attempt.pay_url)
    assert told_by(sandbox, shop) == []

    assert poll_payments(now=now + timedelta(seconds=29)) == 0
    assert standing_of(order) == UNPAID
    assert poll_payments(now=now + timedelta(seconds=30)) == 1

    assert standing_of(order) == PAID
    assert poll_payments(now=now + timedelta(days=1)) == 0


# --- 6, 7: not from whom it says, or about what we do not know -----------------------------------------


def without(name: str, webhook: Request) -> Request:
    return replace(webhook, headers={key: value for key, value in webhook.headers.items() if key != name})


@pytest.mark.payment_case(6)
def test_bad_signature_is_refused_and_nothing_stored(
    sandbox: RunningSandbox, paid_for: Request, order: Order, door: Door, now: datetime
) -> None:
    other = signed_headers(paid_for.body, secret="whsec_" + base64.b64encode(b"not the secret").decode())

    refused = [
        replace(paid_for, body=paid_for.body + b" "),
        replace(paid_for, headers={**paid_for.headers, **other}),
        replace(paid_for, headers={**paid_for.headers, "webhook-id": "msg_another"}),
        without("webhook-signature", paid_for),
        without("webhook-timestamp", paid_for),
        without("webhook-id", paid_for),
    ]

    assert door.deliver(*refused) == [400] * 6
    assert (inbox(), process_webhooks(now=now), standing_of(order)) == (0, 0, UNPAID)


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("seconds", [-310, 310])
def test_signature_of_more_than_five_minutes_ago_or_ahead_is_refused_and_nothing_stored(
    paid_for: Request, order: Order, door: Door, now: datetime, seconds: int
) -> None:
    timed = replace(paid_for, headers={**paid_for.headers, **signed_headers(paid_for.body, seconds=seconds)})

    assert door.deliver(timed) == [400]
    assert (inbox(), process_webhooks(now=now), standing_of(order)) == (0, 0, UNPAID)


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("gateway", ["sandbox", "stripe", "paypal", "alipay"])
def test_webhook_that_any_provider_signs_with_the_wrong_key_is_refused_and_nothing_stored(
    request: pytest.FixtureRequest, shop: Listener, door: Door, now: datetime, gateway: str
) -> None:
    provider = request.getfixturevalue(gateway)
    order = order_by(gateway, now)
    attempt = begin(order, now=now, method=METHOD_BY[gateway])
    shop.answers.put(Answer(body=b"success"))
    provider.set_faults(wrong_key=1)
    provider.decide(attempt.pay_url)
    webhooks = told_by(provider, shop)

    assert door.deliver(*webhooks) == [400]
    assert (inbox(), process_webhooks(now=now), standing_of(order)) == (0, 0, UNPAID)


@pytest.mark.payment_case(7)
def test_genuine_webhook_about_an_unknown_payment_is_taken_and_reviewed_once(
    sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    # Opened at our account by another program than the shop.
    stranger = SandboxGateway().open(
        Charge(
            reference="VM-NOBODY-1",
            amount=order.total,
            description="Something else",
            return_url="http://127.0.0.1/back",
            expires_at=order.pay_until,
            language="en",
        )
    )
    sandbox.decide(stranger.pay_url)
    [webhook] = told_by(sandbox, shop)

    assert door.deliver(webhook, webhook) == [200, 200]
    assert [process_webhooks(now=now) for _ in range(2)] == [1, 0]

    assert standing_of(order) == replace(UNPAID, reviews=("unknown-reference",))
    item = ReviewItem.objects.get()
    assert (item.order, item.detail) == (
        None,
        "A webhook of sandbox names the payment 'VM-NOBODY-1', which is not ours.",
    )


# --- 8, 9: when we fail -------------------------------------------------------------------------------


@pytest.mark.postgres
@pytest.mark.payment_case(8)
def test_worker_killed_after_the_inbox_was_written_leaves_its_work_to_the_next_run(
    paid_for: Request, order: Order, door: Door, now: datetime
) -> None:
    assert door.deliver(paid_for) == [200]
    with socket.create_server(("127.0.0.1", 0)) as silent:
        silent.settimeout(DEADLINE_SECONDS)
        worker = subprocess.Popen(
            [
                sys.executable,
                "manage.py",
                "shell",
                "--no-imports",
                "-c",
                "from orders.tasks import process_webhooks; process_webhooks()",
            ],
            cwd=PROJECT,
            env=os.environ
            | {
                "DATABASE_URL": address_of_this_database(),
                "SANDBOX_GATEWAY_URL": f"http://127.0.0.1:{silent.getsockname()[1]}",
                "SANDBOX_GATEWAY_KEY": SANDBOX_KEY,
                "SANDBOX_WEBHOOK_SECRET": SANDBOX_SECRET,
                "ALLOW_EMULATORS": "true",
            },
        )
        try:
            # It has read the inbox, and asks a provider that never answers.
            with silent.accept()[0]:
                worker.kill()
                assert worker.wait(DEADLINE_SECONDS) == -signal.SIGKILL
        finally:
            worker.kill()
            worker.wait()
    assert (inbox(), standing_of(order)) == (1, UNPAID)

    # Its claim is over by then.
    assert process_webhooks(now=now + timedelta(minutes=2)) == 1

    assert standing_of(order) == PAID


def address_of_this_database() -> str:
    """Of the test's own, for another process."""
    server = urlsplit(os.environ["DATABASE_URL"])
    return urlunsplit(server._replace(path=f"/{connection.settings_dict['NAME']}"))


@pytest.mark.postgres
@pytest.mark.payment_case(9)
def test_webhook_is_answered_with_5xx_while_the_database_is_down_and_taken_when_it_comes_again(
    paid_for: Request, order: Order, door: Door, now: datetime, caplog: pytest.LogCaptureFixture
) -> None:
    with database_down():
        assert door.deliver(paid_for) == [500]
    assert "OperationalError" in caplog.text
    assert (inbox(), standing_of(order)) == (0, UNPAID)

    assert door.deliver(paid_for) == [200]
    process_webhooks(now=now)

    assert standing_of(order) == PAID


@contextmanager
def database_down() -> Iterator[None]:
    """New connections, which every request of the shop's server makes for itself, lead to where nobody listens."""
    settings = connections.settings["default"]
    there = {name: settings[name] for name in ("HOST", "PORT")}
    with socket.create_server(("127.0.0.1", 0)) as taken:
        free = taken.getsockname()[1]
    settings.update(HOST="127.0.0.1", PORT=str(free))
    try:
        yield
    finally:
        settings.update(there)


# --- 10, 11, 12: what is no webhook, whose it is, and changing the secret ---------------------------------


NO_EVENTS = {
    "over a megabyte": b"x" * (1024 * 1024 + 1),
    "no UTF-8": b"\xff\xfe\x00",
    "no JSON": b"no json",
    "no fields": b"{}",
    "nested without end": b"[" * 10_000,
    "nothing": b"",
}


@pytest.mark.payment_case(10)
@pytest.mark.parametrize("gateway", ["sandbox", "stripe", "paypal", "alipay"])
def test_body_that_is_no_event_is_refused_with_400_by_every_gateway(
    request: pytest.FixtureRequest, door: Door, gateway: str
) -> None:
    request.getfixturevalue(gateway)

    # Where a signature is a header that can be made by hand, it is good.
    answers = {
        name: door.send(f"/webhooks/{gateway}/", {**signed_headers(body), **signed_for_stripe(body)}, body)
        for name, body in NO_EVENTS.items()
    }

    assert {name: answer.status_code for name, answer in answers.items()} == dict.fromkeys(NO_EVENTS, 400)
    assert inbox() == 0


def signed_for_stripe(body: bytes) -> dict[str, str]:
    at = f"{int(time.time())}"
    signature = hmac.new(STRIPE_SECRET.encode(), f"{at}.".encode() + body, "sha256").hexdigest()
    return {"stripe-signature": f"t={at},v1={signature}", "content-type": "application/json"}


@pytest.mark.payment_case(11)
@pytest.mark.parametrize(
    ("gateway", "ours"),
    [
        ("stripe", {"STRIPE_SECRET_KEY": "sk_live_keyOfAnotherMode0123456789"}),
        ("paypal", {"PAYPAL_WEBHOOK_ID": "0WEBHOOK0OF0ANOTHER"}),
        ("alipay", {"ALIPAY_APP_ID": "2021000000000009"}),
        ("alipay", {"ALIPAY_SELLER_ID": "2088000000000009"}),
    ],
    ids=["mode of Stripe", "webhook of PayPal", "application of Alipay", "seller of Alipay"],
)
def test_genuine_webhook_for_another_merchant_application_or_mode_is_refused(
    request: pytest.FixtureRequest,
    shop: Listener,
    door: Door,
    now: datetime,
    settings: Settings,
    gateway: str,
    ours: dict[str, str],
) -> None:
    provider = request.getfixturevalue(gateway)
    order = order_by(gateway, now)
    shop.answers.put(Answer(body=b"success"))
    provider.decide(begin(order, now=now, method=METHOD_BY[gateway]).pay_url)
    [webhook] = told_by(provider, shop)
    theirs = {name: getattr(settings, name) for name in ours}
    for name, value in ours.items():
        setattr(settings, name, value)

    assert door.deliver(webhook) == [400]
    assert (inbox(), standing_of(order)) == (0, UNPAID)

    # It is the settings and nothing else that it fails on.
    for name, value in theirs.items():
        setattr(settings, name, value)
    assert door.deliver(webhook) == [200]


@pytest.mark.payment_case(12)
def test_both_secrets_are_good_while_the_secret_is_being_changed(
    shop: Listener, door: Door, now: datetime, settings: Settings, tmp_path: Path
) -> None:
    old, new = SANDBOX_SECRET, "whsec_" + base64.b64encode(b"the secret that comes after this").decode()
    fee = make_fee(make_plan(), minor=4_990)
    orders = [make_order([(fee, 1)], placed_at=now) for _ in range(3)]
    webhooks: list[Request] = []
    for order, secret in zip(orders, (old, new, old), strict=True):
        with running_sandbox(key=SANDBOX_KEY, secret=secret, books=str(tmp_path / "books")) as sandbox:
            settings.ALLOW_EMULATORS = True
            settings.SANDBOX_GATEWAY_URL = sandbox.url
            settings.SANDBOX_GATEWAY_KEY = SANDBOX_KEY
            settings.SANDBOX_WEBHOOK_SECRET = old
            sandbox.decide(begin(order, now=now).pay_url)
            webhooks += told_by(sandbox, shop)
    with running_sandbox(key=SANDBOX_KEY, secret=new, books=str(tmp_path / "books")) as sandbox:
        settings.SANDBOX_GATEWAY_URL = sandbox.url

        settings.SANDBOX_WEBHOOK_SECRET = f"{new} {old}"
        assert door.deliver(*webhooks[:2]) == [200, 200]
        settings.SANDBOX_WEBHOOK_SECRET = new
        assert door.deliver(webhooks[2]) == [400]
        assert process_webhooks(now=now) == 2

        assert [standing_of(order) for order in orders] == [PAID, PAID, UNPAID]


@pytest.mark.payment_case(12)
@pytest.mark.parametrize("method", ["alipay", "wechat"])
def test_provider_that_has_one_key_at_a_time_sends_again_what_came_before_the_new_one_was_set(
    alipay: RunningAlipay,
    shop: Listener,
    door: Door,
    now: datetime,
    settings: Settings,
    method: str,
) -> None:
    """The keys of Alipay and WeChat Pay are theirs: there is no time in which both sign."""
    settings.PAYMENT_METHODS = ["alipay=alipay", "wechat=wechat"]
    with configured_wechat(settings) as wechat:
        order = make_order([(make_fee(make_plan(), minor=4_990, currency="CNY"), 1)], placed_at=now)
        attempt = begin(order, now=now, method=method)
        shop.answers.put(Answer(body=b"success"))
        if method == "alipay":
            alipay.decide(attempt.pay_url)
        else:
            wechat.decide(attempt.reference)
        [webhook] = told_by(alipay if method == "alipay" else wechat, shop)
        setting = f"{method.upper()}_PUBLIC_KEY"
        new = getattr(settings, setting)
        setattr(settings, setting, new_keys()[1])

        assert (door.deliver(webhook), WebhookEvent.objects.count()) == ([400], 0)

        setattr(settings, setting, new)
        assert door.deliver(webhook) == [200]
        process_webhooks(now=now)
        assert standing_of(order) == replace(PAID, ledger=(("capture", 4_990, "CNY"),))
