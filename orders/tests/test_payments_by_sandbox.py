"""From the button to the ledger over real HTTP: begin, webhook, poll, refund."""

from datetime import UTC, datetime, timedelta

import pytest
from pytest_django import Settings

from orders.checkout import cancel_order, expire_orders
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.gateways.protocol import BadSignature, Unavailable
from orders.models import (
    AttemptState,
    EntryKind,
    Ground,
    LedgerEntry,
    Order,
    OrderState,
    PaymentAttempt,
    Refund,
    RefundState,
    ReviewItem,
    ReviewKind,
    WebhookEvent,
)
from orders.payments import (
    NotPayable,
    Payer,
    begin_payment,
    poll_payments,
    process_webhooks,
    receive_webhook,
    refresh_attempt,
)
from orders.refunds import approve_refund, request_refund
from orders.returns import send_returns
from orders.tests.gateway_servers import Listener, Request
from tests.builders import make_attempt, make_fee, make_order, make_plan, make_user, make_webhook

pytestmark = pytest.mark.django_db(transaction=True)


@pytest.fixture
def now() -> datetime:
    """The gateway lives in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def order(now: datetime) -> Order:
    """An order of 49.90 USD that may be paid for half an hour."""
    return make_order([(make_fee(make_plan(), minor=4_990), 1)], placed_at=now)


def begin(order: Order, now: datetime, *, method: str = "sandbox") -> PaymentAttempt:
    payer = Payer(return_url="http://127.0.0.1/back", language="en")
    return begin_payment(order_id=order.pk, method=method, payer=payer, now=now)


def state_of(order: Order) -> str:
    return Order.objects.values_list("state", flat=True).get(pk=order.pk)


def approved_refund(sandbox: RunningSandbox, order: Order, now: datetime) -> Refund:
    """A refund of the whole order, which has been paid."""
    attempt = begin(order, now)
    sandbox.decide(attempt.pay_url)
    refresh_attempt(attempt_id=attempt.pk, now=now)
    refund = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="The supplier has given up this model.",
        units={order.lines.get().pk: 1},
        requested_by_id=make_user(is_staff=True).pk,
        now=now,
    )
    return approve_refund(refund_id=refund.pk, approved_by_id=make_user(is_staff=True).pk, now=now)


def deliver(requests: list[Request], *, now: datetime) -> None:
    """Hand webhooks that a listener has kept to the shop's inbox."""
    for request in requests:
        receive_webhook(gateway="sandbox", headers=request.headers, body=request.body, now=now)


@pytest.mark.clause("3.1")
def test_buyer_pays_and_the_webhook_marks_the_order_paid(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    attempt = begin(order, now)
    assert (attempt.state, attempt.amount_minor) == (AttemptState.PENDING, 4_990)

    sandbox.decide(attempt.pay_url)
    sandbox.wait_for_webhooks()
    deliver(shop.rest(), now=now)
    assert state_of(order) == OrderState.UNPAID  # the webhook itself says nothing

    assert process_webhooks(now=now) == 1
    assert process_webhooks(now=now) == 0

    assert state_of(order) == OrderState.PAID
    entry = LedgerEntry.objects.get()
    assert (entry.minor, entry.transaction_id) == (4_990, sandbox.books()["payments"][0]["captures"][0]["id"])


@pytest.mark.payment_case(5)
def test_05_lost_webhook_is_made_up_for_by_the_poller(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    sandbox.decide(begin(order, now).pay_url, Outcome.PAY_UNTOLD)
    sandbox.wait_for_webhooks()
    assert shop.rest() == []

    assert poll_payments(now=now + timedelta(seconds=29)) == 0
    assert poll_payments(now=now + timedelta(seconds=30)) == 1

    assert state_of(order) == OrderState.PAID
    assert poll_payments(now=now + timedelta(hours=1)) == 0


def test_poller_asks_less_and_less_often_and_gives_up_a_day_after_expiry(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    begin(order, now)
    moments = [timedelta(seconds=30), timedelta(minutes=2), timedelta(minutes=5), timedelta(minutes=15)]
    moments += [timedelta(hours=hours) for hours in range(1, 25)]

    for moment in moments:
        assert poll_payments(now=now + moment - timedelta(seconds=1)) == 0, moment
        assert poll_payments(now=now + moment) == 1, moment
    assert poll_payments(now=now + timedelta(days=9)) == 0


@pytest.mark.payment_case(25)
def test_25_double_click_on_pay_makes_one_payment(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    first, second = begin(order, now), begin(order, now)

    assert first == second
    assert len(sandbox.books()["payments"]) == 1


@pytest.mark.payment_case(27)
def test_27_lost_answer_to_create_leaves_one_payment_at_the_gateway(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    sandbox.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        begin(order, now)

    attempt = begin(order, now)

    assert attempt.state == AttemptState.PENDING
    assert [payment["id"] for payment in sandbox.books()["payments"]] == [attempt.provider_id]


@pytest.mark.payment_case(4)
def test_04_webhook_before_our_create_call_is_answered_finds_its_payment(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    sandbox.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        begin(order, now)
    sandbox.decide(sandbox.books()["payments"][0]["pay_url"])
    sandbox.wait_for_webhooks()

    deliver(shop.rest(), now=now)
    process_webhooks(now=now)

    assert state_of(order) == OrderState.PAID


@pytest.mark.payment_case(4)
def test_payment_the_poller_found_first_can_still_be_paid(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    sandbox.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        begin(order, now)
    assert poll_payments(now=now + timedelta(seconds=30)) == 1

    attempt = begin(order, now + timedelta(seconds=31))

    assert attempt.state == AttemptState.PENDING
    assert attempt.pay_url == sandbox.books()["payments"][0]["pay_url"]


@pytest.mark.payment_case(48)
def test_48_refused_credentials_lose_nothing_and_are_reviewed_once_a_day(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime, settings: Settings
) -> None:
    sandbox.decide(begin(order, now).pay_url)
    sandbox.wait_for_webhooks()
    deliver(shop.rest(), now=now)
    key, settings.SANDBOX_GATEWAY_KEY = settings.SANDBOX_GATEWAY_KEY, "wrong"

    a_minute = timedelta(minutes=1)
    assert [process_webhooks(now=now + a_minute * n) for n in range(2)] == [0, 0]
    assert list(ReviewItem.objects.values_list("kind", flat=True)) == [ReviewKind.GATEWAY_REFUSES_US]

    settings.SANDBOX_GATEWAY_KEY = key
    assert process_webhooks(now=now + timedelta(hours=1)) == 1
    assert state_of(order) == OrderState.PAID


@pytest.mark.payment_case(52)
def test_52_declined_payment_leaves_the_order_payable(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    first = begin(order, now)
    sandbox.decide(first.pay_url, Outcome.DECLINE)
    assert refresh_attempt(attempt_id=first.pk, now=now).state == AttemptState.DECLINED

    second = begin(order, now)
    sandbox.decide(second.pay_url)
    refresh_attempt(attempt_id=second.pk, now=now)

    assert (second.reference, state_of(order)) == (f"{order.reference}-2", OrderState.PAID)
    with pytest.raises(NotPayable):
        begin(order, now)


def test_order_past_its_deadline_cannot_be_begun(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    with pytest.raises(NotPayable, match="order again"):
        begin(order, order.pay_until)
    with pytest.raises(NotPayable, match="another one"):
        begin(order, now, method="barter")

    assert sandbox.books()["payments"] == []


@pytest.mark.payment_case(1)
def test_01_webhook_sent_five_times_is_one_event(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    sandbox.decide(begin(order, now).pay_url)
    sandbox.wait_for_webhooks()
    [request] = shop.rest()

    deliver([request] * 5, now=now)

    assert bytes(WebhookEvent.objects.get().body) == request.body


@pytest.mark.payment_case(6)
def test_06_tampered_webhook_is_refused_and_not_stored(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    sandbox.decide(begin(order, now).pay_url)
    sandbox.wait_for_webhooks()
    [request] = shop.rest()

    with pytest.raises(BadSignature):
        receive_webhook(gateway="sandbox", headers=request.headers, body=request.body + b" ", now=now)

    assert WebhookEvent.objects.count() == 0


@pytest.mark.payment_case(7)
def test_07_webhook_for_an_unknown_payment_is_reviewed(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    attempt = begin(order, now)
    sandbox.decide(attempt.pay_url)
    sandbox.wait_for_webhooks()
    deliver(shop.rest(), now=now)
    PaymentAttempt.objects.filter(pk=attempt.pk).update(state="cancelled")
    make_webhook(reference="VM-NOBODY-1")

    assert process_webhooks(now=now) == 2
    assert list(ReviewItem.objects.values_list("kind", flat=True)) == [ReviewKind.UNKNOWN_REFERENCE]


@pytest.mark.payment_case(8)
def test_08_webhook_waits_in_the_inbox_while_the_gateway_is_down(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    sandbox.decide(begin(order, now).pay_url)
    sandbox.wait_for_webhooks()
    deliver(shop.rest(), now=now)
    sandbox.set_faults(errors=1)

    assert process_webhooks(now=now) == 0
    assert process_webhooks(now=now + timedelta(minutes=1)) == 1
    assert state_of(order) == OrderState.PAID


@pytest.mark.payment_case(53)
def test_cancelled_and_paid_at_once_the_gateways_answer_wins(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    attempt = begin(order, now)
    sandbox.decide(attempt.pay_url, Outcome.PAY_UNTOLD)
    expire_orders(now=now + timedelta(hours=3))
    assert state_of(order) == OrderState.EXPIRED

    refresh_attempt(attempt_id=attempt.pk, now=now + timedelta(hours=3))

    assert state_of(order) == OrderState.PAID


@pytest.mark.payment_case(17, 53)
def test_cancelled_order_can_no_longer_be_paid_by_an_old_tab(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    attempt = begin(order, now)
    cancel_order(order_id=order.pk, now=now)

    assert poll_payments(now=now) == 1

    attempt.refresh_from_db()
    assert attempt.state == AttemptState.CANCELLED
    assert [payment["status"] for payment in sandbox.books()["payments"]] == ["cancelled"]


@pytest.mark.payment_case(8)
def test_what_goes_wrong_with_one_webhook_does_not_hold_up_the_others(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    attempt = begin(order, now)
    # A payment by a gateway that was taken out of the table: nothing can be asked about it.
    broken = make_attempt(make_order([(order.lines.get().fee, 1)], placed_at=now), gateway="gone")
    for each in (broken, attempt):
        make_webhook(gateway=each.gateway, key=each.reference, reference=each.reference)
    sandbox.decide(attempt.pay_url, Outcome.PAY_UNTOLD)

    with pytest.raises(ExceptionGroup) as faults:
        process_webhooks(now=now)

    assert [type(fault) for fault in faults.value.exceptions] == [KeyError]
    assert state_of(order) == OrderState.PAID
    assert list(WebhookEvent.objects.filter(processed_at=None).values_list("gateway", flat=True)) == ["gone"]


@pytest.mark.payment_case(48)
def test_refund_waits_while_our_credentials_are_refused(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime, settings: Settings
) -> None:
    refund = approved_refund(sandbox, order, now)
    key, settings.SANDBOX_GATEWAY_KEY = settings.SANDBOX_GATEWAY_KEY, "wrong"
    assert send_returns(now=now) == 0
    refund.refresh_from_db()
    assert refund.state == RefundState.APPROVED

    settings.SANDBOX_GATEWAY_KEY = key
    assert send_returns(now=now + timedelta(minutes=1)) == 1


@pytest.mark.payment_case(46)
def test_refund_that_was_refused_but_paid_all_the_same_is_paid(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    refund = approved_refund(sandbox, order, now)
    sandbox.set_faults(lost_answers=1)
    send_returns(now=now)
    Refund.objects.filter(pk=refund.pk).update(state=RefundState.FAILED)

    refresh_attempt(attempt_id=refund.attempt_id, now=now)

    refund.refresh_from_db()
    assert refund.state == RefundState.PAID


@pytest.mark.payment_case(39, 46)
@pytest.mark.clause("3.3")
def test_approved_refund_is_paid_back_once_and_closed_by_the_snapshot(
    shop: Listener, sandbox: RunningSandbox, order: Order, now: datetime
) -> None:
    refund = approved_refund(sandbox, order, now)

    # The answer is lost, so it is asked for twice, by one key.
    sandbox.set_faults(lost_answers=1)
    assert [send_returns(now=at) for at in (now, now + timedelta(minutes=1))] == [0, 1]
    poll_payments(now=now + timedelta(minutes=1))

    refund.refresh_from_db()
    assert refund.state == RefundState.PAID
    assert len(sandbox.books()["payments"][0]["refunds"]) == 1
    assert list(LedgerEntry.objects.order_by("pk").values_list("kind", "minor")) == [
        (EntryKind.CAPTURE, 4_990),
        (EntryKind.REFUND, -4_990),
    ]
    assert ReviewItem.objects.count() == 0
