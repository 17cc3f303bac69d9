"""Applying what a gateway reports. The numbers in names are the cases of the payment design."""

from datetime import date, datetime, timedelta

import pytest

from inventory.money import Money
from notices.models import Notice
from orders.checkout import expire_orders
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.models import (
    AttemptState,
    LedgerEntry,
    LineState,
    Order,
    OrderState,
    PaymentAttempt,
    ReviewItem,
    ReviewKind,
)
from orders.payments import apply_snapshot
from tests.builders import NOW, make_attempt, make_batch, make_fee, make_order, make_plan

pytestmark = pytest.mark.django_db

CAPTURED_AT = NOW - timedelta(minutes=2)


@pytest.fixture
def attempt() -> PaymentAttempt:
    """A payment of an order of 49.90 USD that is open at the gateway."""
    order = make_order([(make_fee(make_plan(cap=5), minor=4_990), 1)], placed_at=NOW - timedelta(minutes=5))
    return make_attempt(order)


def captured(
    minor: int, *, transaction: str = "cap_1", currency: str = "USD", at: datetime = CAPTURED_AT
) -> Snapshot:
    move = MoneyMoved(transaction_id=transaction, amount=Money(minor, currency), at=at)
    return Snapshot(provider_id="pay_1", state="captured", captures=(move,))


def reviews() -> list[str]:
    return list(ReviewItem.objects.order_by("pk").values_list("kind", flat=True))


@pytest.mark.clause("3.3", "3.1")
def test_capture_puts_the_lines_into_their_queue_at_the_capture_time(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)

    order = Order.objects.get()
    assert (order.state, order.paid_at) == (OrderState.PAID, CAPTURED_AT)
    assert list(order.lines.values_list("state", "paid_at")) == [(LineState.WAITING, CAPTURED_AT)]
    entry = LedgerEntry.objects.get()
    assert (entry.minor, entry.currency, entry.occurred_at, entry.recorded_at) == (
        4_990,
        "USD",
        CAPTURED_AT,
        NOW,
    )
    assert list(Notice.objects.order_by("pk").values_list("kind", flat=True)) == [
        "payment-received",
        "estimate-made",
    ]
    assert reviews() == []


def test_01_same_report_again_changes_nothing(attempt: PaymentAttempt) -> None:
    for _ in range(5):
        apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)

    assert LedgerEntry.objects.count() == 1
    assert Notice.objects.filter(kind="payment-received").count() == 1


def test_03_failure_reported_after_the_capture_leaves_it_paid(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    apply_snapshot(attempt_id=attempt.pk, snapshot=Snapshot(provider_id="pay_1", state="expired"), now=NOW)

    attempt.refresh_from_db()
    assert attempt.state == AttemptState.CAPTURED
    assert Order.objects.get().state == OrderState.PAID


def test_older_report_does_not_reopen_a_declined_payment(attempt: PaymentAttempt) -> None:
    for state in ("declined", "pending"):
        apply_snapshot(attempt_id=attempt.pk, snapshot=Snapshot(provider_id="pay_1", state=state), now=NOW)

    attempt.refresh_from_db()
    assert attempt.state == AttemptState.DECLINED


def test_13_one_cent_too_little_is_booked_but_does_not_pay(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_989), now=NOW)

    assert Order.objects.get().state == OrderState.UNPAID
    assert LedgerEntry.objects.get().minor == 4_989
    assert reviews() == [ReviewKind.UNDERPAID]
    assert "0.01 USD are missing" in ReviewItem.objects.get().detail


def test_14_right_number_in_another_currency_never_pays(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, currency="JPY"), now=NOW)

    assert Order.objects.get().state == OrderState.UNPAID
    assert reviews() == [ReviewKind.WRONG_CURRENCY]


def test_15_surplus_pays_and_is_reviewed(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(5_090), now=NOW)

    assert Order.objects.get().state == OrderState.PAID
    assert reviews() == [ReviewKind.SURPLUS]
    assert "1.00 USD more" in ReviewItem.objects.get().detail


def test_two_part_payments_pay_at_the_time_of_the_one_that_covers(attempt: PaymentAttempt) -> None:
    second = make_attempt(attempt.order, number=2)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(3_000), now=NOW)
    at = CAPTURED_AT + timedelta(seconds=30)
    apply_snapshot(attempt_id=second.pk, snapshot=captured(1_990, transaction="cap_2", at=at), now=NOW)

    assert Order.objects.get().paid_at == at


def test_18_captured_in_time_and_reported_within_the_grace_is_in_time(attempt: PaymentAttempt) -> None:
    deadline = attempt.order.pay_until
    reported = deadline + timedelta(minutes=10)
    expire_orders(now=reported)

    apply_snapshot(
        attempt_id=attempt.pk, snapshot=captured(4_990, at=deadline - timedelta(seconds=1)), now=reported
    )

    assert Order.objects.get().paid_at == deadline - timedelta(seconds=1)


def expire(order: Order) -> datetime:
    over = order.pay_until + timedelta(hours=2)
    assert expire_orders(now=over) == 1
    return over


def test_19_late_capture_is_accepted_while_units_are_left(attempt: PaymentAttempt) -> None:
    over = expire(attempt.order)

    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, at=over), now=over)

    order = Order.objects.get()
    assert (order.state, order.paid_at) == (OrderState.PAID, over)


@pytest.mark.clause("3.3")
def test_20_late_capture_without_units_is_kept_out_of_the_queue_for_return(attempt: PaymentAttempt) -> None:
    over = expire(attempt.order)
    make_order([(attempt.order.lines.get().fee, 5)], paid_at=NOW)

    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, at=over), now=over)

    order = Order.objects.get(pk=attempt.order_id)
    assert (order.state, order.lines.get().state) == (OrderState.EXPIRED, LineState.UNPAID)
    assert LedgerEntry.objects.get().minor == 4_990
    assert reviews() == [ReviewKind.LATE_WITHOUT_CAP]


def test_23_capture_that_is_pending_gives_no_place(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=Snapshot(provider_id="pay_1", state="confirming"), now=NOW)

    attempt.refresh_from_db()
    assert attempt.state == AttemptState.CONFIRMING
    assert Order.objects.get().lines.get().state == LineState.UNPAID


def test_26_second_whole_payment_is_a_duplicate(attempt: PaymentAttempt) -> None:
    other = make_attempt(attempt.order, number=2)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    later = CAPTURED_AT + timedelta(seconds=1)
    apply_snapshot(attempt_id=other.pk, snapshot=captured(4_990, transaction="cap_2", at=later), now=NOW)

    assert Order.objects.get().paid_at == CAPTURED_AT
    assert LedgerEntry.objects.count() == 2
    assert reviews() == [ReviewKind.DUPLICATE]


def test_26_two_captures_in_one_report_are_a_duplicate(attempt: PaymentAttempt) -> None:
    moves = tuple(
        MoneyMoved(transaction_id=name, amount=Money(4_990, "USD"), at=CAPTURED_AT)
        for name in ("cap_1", "cap_2")
    )
    apply_snapshot(
        attempt_id=attempt.pk,
        snapshot=Snapshot(provider_id="pay_1", state="captured", captures=moves),
        now=NOW,
    )

    assert Order.objects.get().state == OrderState.PAID
    assert reviews() == [ReviewKind.DUPLICATE]


def test_42_refund_made_at_the_gateways_desk_is_booked_and_reviewed(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    back = MoneyMoved(transaction_id="re_1", amount=Money(990, "USD"), at=NOW)
    snapshot = Snapshot(
        provider_id="pay_1", state="captured", captures=captured(4_990).captures, refunds=(back,)
    )

    for _ in range(2):
        apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=NOW)

    assert list(LedgerEntry.objects.order_by("pk").values_list("minor", flat=True)) == [4_990, -990]
    assert reviews() == [ReviewKind.EXTERNAL_REFUND]


def test_transaction_that_is_booked_for_another_payment_is_reviewed_not_counted(
    attempt: PaymentAttempt,
) -> None:
    other = make_attempt(make_order([(attempt.order.lines.get().fee, 1)], placed_at=NOW), number=1)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)

    apply_snapshot(attempt_id=other.pk, snapshot=captured(4_990), now=NOW)

    assert Order.objects.get(pk=other.order_id).state == OrderState.UNPAID
    assert LedgerEntry.objects.get().attempt_id == attempt.pk
    assert reviews() == [ReviewKind.ALREADY_BOOKED]


def test_place_by_money_that_was_given_back_is_not_kept(attempt: PaymentAttempt) -> None:
    back_at, again_at = CAPTURED_AT + timedelta(seconds=10), CAPTURED_AT + timedelta(seconds=20)
    first = captured(4_990).captures
    back = (MoneyMoved(transaction_id="re_1", amount=Money(4_990, "USD"), at=back_at),)
    again = (MoneyMoved(transaction_id="cap_2", amount=Money(4_990, "USD"), at=again_at),)

    apply_snapshot(
        attempt_id=attempt.pk,
        snapshot=Snapshot(provider_id="pay_1", state="captured", captures=first + again, refunds=back),
        now=NOW,
    )

    assert Order.objects.get().paid_at == again_at


def test_payment_open_elsewhere_is_closed_by_the_poller_once_the_order_is_paid(
    attempt: PaymentAttempt,
) -> None:
    other = make_attempt(attempt.order, number=2)

    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)

    other.refresh_from_db()
    assert other.next_poll_at == NOW


def test_payment_is_booked_even_when_it_cannot_be_estimated(attempt: PaymentAttempt) -> None:
    # Beyond the calendar: nobody can enter it, but whatever is wrong with an estimate, the money comes first.
    make_batch(attempt.order.lines.get().plan, quantity=5, on=date.max)

    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)

    order = Order.objects.get()
    assert (order.state, order.lines.get().state) == (OrderState.PAID, LineState.WAITING)
    assert order.lines.get().estimates.count() == 0
    assert LedgerEntry.objects.count() == 1
