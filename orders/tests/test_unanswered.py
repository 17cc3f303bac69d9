"""What a gateway does not answer keeps nobody else waiting, is asked again, and comes before a person in time."""

import json
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from inventory.money import Money
from orders import payments
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.models import MoneyReturn, Order, PaymentAttempt, ReturnReason, ReviewItem, WebhookEvent
from orders.payments import poll_payments, process_webhooks
from orders.returns import send_returns
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Answer, Listener, listening
from orders.tests.paying import PAID, UNPAID, Door, begin, standing_of, told_by
from tests.builders import NOW, make_attempt, make_fee, make_order, make_plan, make_webhook
from tests.racing import race

pytestmark = pytest.mark.django_db(transaction=True)

A_MINUTE = timedelta(minutes=1)


@pytest.fixture
def now() -> datetime:
    """The sandbox lives in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def orders(now: datetime) -> list[Order]:
    fee = make_fee(make_plan(), minor=4_990)
    return [make_order([(fee, 1)], placed_at=now) for _ in range(2)]


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A server in the sandbox's place that answers what it is told to."""
    with listening() as listener:
        settings.SANDBOX_GATEWAY_URL = listener.url
        settings.SANDBOX_GATEWAY_KEY = SANDBOX_KEY
        settings.SANDBOX_WEBHOOK_SECRET = SANDBOX_SECRET
        settings.ALLOW_EMULATORS = True
        yield listener


def paid_by_one_that_is_unreadable_and_a_good_one(
    sandbox: RunningSandbox, orders: list[Order], now: datetime, *, outcome: Outcome
) -> PaymentAttempt:
    """Both have been paid; asked about the first, the gateway answers with another payment. Returns the first."""
    unreadable, good = (begin(order, now=now) for order in orders)
    for attempt in (unreadable, good):
        sandbox.decide(attempt.pay_url, outcome)
    PaymentAttempt.objects.filter(pk=unreadable.pk).update(provider_id=good.provider_id)
    return unreadable


@pytest.mark.payment_case(47)
def test_webhook_of_a_payment_that_cannot_be_read_keeps_no_other_of_its_gateway_waiting(
    sandbox: RunningSandbox, shop: Listener, orders: list[Order], door: Door, now: datetime
) -> None:
    unreadable = paid_by_one_that_is_unreadable_and_a_good_one(sandbox, orders, now, outcome=Outcome.APPROVE)
    assert door.deliver(*told_by(sandbox, shop)) == [200, 200]

    assert process_webhooks(now=now) == 1

    assert [standing_of(order) for order in orders] == [UNPAID, PAID]
    assert WebhookEvent.objects.get(processed_at=None).attempt_reference == unreadable.reference


@pytest.mark.payment_case(47)
def test_webhook_that_gets_no_answer_is_tried_ever_more_rarely_and_comes_before_a_person_after_an_hour(
    sandbox: RunningSandbox, shop: Listener, orders: list[Order], door: Door, now: datetime
) -> None:
    unreadable = paid_by_one_that_is_unreadable_and_a_good_one(sandbox, orders, now, outcome=Outcome.APPROVE)
    door.deliver(*told_by(sandbox, shop))
    received_at = WebhookEvent.objects.order_by("pk")[0].received_at

    tries = []
    for minutes in range(300):
        process_webhooks(now=received_at + minutes * A_MINUTE)
        [event] = WebhookEvent.objects.filter(processed_at=None)
        if event.next_try_at not in tries:
            tries.append(event.next_try_at)
            if minutes < 60:
                assert not ReviewItem.objects.exists()

    # It is tried at 0, 1, 2, 4 … minutes, at 64 for the first time after an hour, and from then on hourly.
    waits = [(at - received_at) / A_MINUTE for at in tries if at]
    assert waits == [0.5, 2, 4, 8, 16, 32, 64, 124, 184, 244, 304]
    item = ReviewItem.objects.get()
    assert (item.kind, item.order_id) == ("no-answer", orders[0].pk)
    assert unreadable.reference in item.detail
    assert "another payment than was asked for" in item.detail


@pytest.mark.payment_case(47)
def test_gateway_that_is_down_for_an_hour_comes_before_a_person_once_a_day(
    sandbox: RunningSandbox, shop: Listener, orders: list[Order], door: Door, now: datetime
) -> None:
    for order in orders:
        sandbox.decide(begin(order, now=now).pay_url)
    door.deliver(*told_by(sandbox, shop))
    sandbox.set_faults(errors=1_000)
    noon = now.replace(hour=12, minute=0)
    WebhookEvent.objects.update(next_try_at=None)

    for minutes in range(0, 240, 5):
        assert process_webhooks(now=noon + timedelta(days=1) + minutes * A_MINUTE) == 0

    assert [item.kind for item in ReviewItem.objects.all()] == ["no-answer"]
    assert ReviewItem.objects.get().order is None
    sandbox.set_faults(errors=0)
    assert process_webhooks(now=noon + timedelta(days=2)) == 2


def attempt_at_the_sandbox(order: Order, *, number: int) -> PaymentAttempt:
    attempt = make_attempt(order, number=number)
    PaymentAttempt.objects.filter(pk=attempt.pk).update(provider_id=f"pay_{number:024x}")
    return PaymentAttempt.objects.get(pk=attempt.pk)


def runs_at_once(provider: Listener, order: Order, now: datetime) -> int:
    """Work off at once, four times, an event that is never answered; return how often the gateway was asked."""
    make_webhook(reference=attempt_at_the_sandbox(order, number=1).reference, received_at=now)
    for _ in range(4):
        provider.answers.put(Answer(body=b"[]"))
    assert race(*[lambda: process_webhooks(now=now)] * 4) == [0, 0, 0, 0]
    return len(provider.rest())


@pytest.mark.postgres
def test_runs_at_once_ask_about_an_event_once(provider: Listener, orders: list[Order], now: datetime) -> None:
    assert runs_at_once(provider, orders[0], now) == 1


@pytest.mark.postgres
def test_control_without_the_claim_every_run_asks(
    provider: Listener, orders: list[Order], now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(payments, "next_try", lambda **_: None)
    assert runs_at_once(provider, orders[0], now) == 4


@pytest.mark.payment_case(2)
@pytest.mark.parametrize(("answer", "done"), [(Answer(status=404), 3), (Answer(body=b"[]"), 0)])
def test_payment_that_several_events_name_is_asked_about_once_a_run(
    provider: Listener, orders: list[Order], now: datetime, answer: Answer, done: int
) -> None:
    reference = attempt_at_the_sandbox(orders[0], number=1).reference
    for number in range(3):
        make_webhook(key=f"event-{number}", reference=reference, received_at=now)
    provider.answers.put(answer)

    assert [process_webhooks(now=now) for _run in range(2)] == [done, 0]
    assert len(provider.rest()) == 1


@pytest.mark.payment_case(47)
def test_payment_that_cannot_be_read_keeps_no_other_from_being_asked_about(
    sandbox: RunningSandbox, shop: Listener, orders: list[Order], now: datetime
) -> None:
    paid_by_one_that_is_unreadable_and_a_good_one(sandbox, orders, now, outcome=Outcome.PAY_UNTOLD)

    assert poll_payments(now=now + A_MINUTE) == 2
    assert [standing_of(order) for order in orders] == [UNPAID, PAID]

    poll_payments(now=now + timedelta(hours=2))
    assert [item.kind for item in ReviewItem.objects.all()] == ["no-answer"]


def due_return(order: Order, *, number: int) -> MoneyReturn:
    attempt = attempt_at_the_sandbox(order, number=number)
    order.ledger.create(
        attempt=attempt,
        gateway="sandbox",
        kind="capture",
        transaction_id=f"cap_{number}",
        minor=4_990,
        currency="USD",
        occurred_at=NOW,
        recorded_at=NOW,
    )
    return MoneyReturn.objects.create(
        order=order,
        attempt=attempt,
        reference=f"{order.reference}-B{number}",
        reason=ReturnReason.LATE,
        minor=4_990,
        currency="USD",
        due_at=NOW,
    )


@pytest.mark.payment_case(47)
def test_return_without_an_answer_that_makes_sense_keeps_no_other_waiting_and_comes_before_a_person(
    provider: Listener, orders: list[Order]
) -> None:
    unanswered, good = (due_return(order, number=number) for number, order in enumerate(orders, 1))
    granted = {"reference": good.key, "payment": good.attempt.provider_id}

    for at in (NOW, NOW + timedelta(hours=2)):
        provider.answers.put(Answer(body=b"[]"))
        provider.answers.put(Answer(status=201, body=json.dumps(granted).encode()))
        assert send_returns(now=at) == 1
        # And neither is asked for again at once.
        assert send_returns(now=at) == 0
        asked = [json.loads(request.body) for request in provider.rest()]
        assert [(each["reference"], each["amount"]) for each in asked] == [
            (back.key, Money(4_990, "USD").written()) for back in (unanswered, good)
        ]

    item = ReviewItem.objects.get()
    assert (item.kind, item.order_id) == ("no-answer", orders[0].pk)
    assert unanswered.reference in item.detail
