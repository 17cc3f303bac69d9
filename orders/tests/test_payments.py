"""Applying what a gateway reports. The numbers in names are the cases of the payment design."""

from dataclasses import replace
from datetime import date, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from inventory.models import Plan
from inventory.money import Money
from notices.models import Notice
from orders.allocation import allocate_devices
from orders.checkout import expire_orders
from orders.gateways.protocol import CoinProgress, MoneyMoved, RefusedReturn, Snapshot
from orders.ledger import apply_snapshot
from orders.models import (
    AttemptState,
    LedgerEntry,
    LineState,
    MoneyReturn,
    Order,
    OrderState,
    PaymentAttempt,
    ReturnReason,
    ReturnState,
    ReviewItem,
    ReviewKind,
)
from orders.offers import stocks
from orders.returns import CannotReturn, free_to_return, give_back, send_returns, try_again
from tests.builders import (
    NOW,
    make_attempt,
    make_batch,
    make_devices,
    make_fee,
    make_order,
    make_plan,
    make_user,
)

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


def returns() -> list[tuple[str, int, str]]:
    return list(MoneyReturn.objects.order_by("pk").values_list("reason", "minor", "state"))


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


@pytest.mark.payment_case(1)
def test_01_same_report_again_changes_nothing(attempt: PaymentAttempt) -> None:
    for _ in range(5):
        apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)

    assert LedgerEntry.objects.count() == 1
    assert Notice.objects.filter(kind="payment-received").count() == 1


@pytest.mark.payment_case(3)
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


@pytest.mark.payment_case(13)
def test_13_one_cent_too_little_is_booked_but_does_not_pay(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_989), now=NOW)

    assert Order.objects.get().state == OrderState.UNPAID
    assert LedgerEntry.objects.get().minor == 4_989
    assert reviews() == [ReviewKind.UNDERPAID]
    assert "0.01 USD are missing" in ReviewItem.objects.get().detail


@pytest.mark.payment_case(14)
def test_14_right_number_in_another_currency_never_pays(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, currency="JPY"), now=NOW)

    assert Order.objects.get().state == OrderState.UNPAID
    assert reviews() == [ReviewKind.WRONG_CURRENCY]


@pytest.mark.payment_case(15)
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


@pytest.mark.payment_case(18)
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


@pytest.mark.payment_case(19)
def test_19_late_capture_is_accepted_while_units_are_left(attempt: PaymentAttempt) -> None:
    over = expire(attempt.order)

    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, at=over), now=over)

    order = Order.objects.get()
    assert (order.state, order.paid_at) == (OrderState.PAID, over)


@pytest.mark.payment_case(20)
@pytest.mark.clause("3.3")
def test_20_late_capture_without_units_goes_back_in_full_and_the_buyer_is_told(
    attempt: PaymentAttempt,
) -> None:
    over = expire(attempt.order)
    make_order([(attempt.order.lines.get().fee, 5)], paid_at=NOW)

    for _ in range(2):
        apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, at=over), now=over)

    order = Order.objects.get(pk=attempt.order_id)
    assert (order.state, order.lines.get().state) == (OrderState.EXPIRED, LineState.UNPAID)
    assert LedgerEntry.objects.get().minor == 4_990
    assert returns() == [(ReturnReason.LATE, 4_990, ReturnState.DUE)]
    assert Notice.objects.get(kind="money-returned").facts["amount"] == {"minor": 4_990, "currency": "USD"}
    assert reviews() == []


@pytest.mark.payment_case(23)
def test_23_capture_that_is_pending_gives_no_place(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=Snapshot(provider_id="pay_1", state="confirming"), now=NOW)

    attempt.refresh_from_db()
    assert attempt.state == AttemptState.CONFIRMING
    assert Order.objects.get().lines.get().state == LineState.UNPAID


@pytest.mark.payment_case(26)
def test_26_second_whole_payment_is_a_duplicate(attempt: PaymentAttempt) -> None:
    other = make_attempt(attempt.order, number=2)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    later = CAPTURED_AT + timedelta(seconds=1)
    apply_snapshot(attempt_id=other.pk, snapshot=captured(4_990, transaction="cap_2", at=later), now=NOW)

    assert Order.objects.get().paid_at == CAPTURED_AT
    assert LedgerEntry.objects.count() == 2
    assert returns() == [(ReturnReason.DUPLICATE, 4_990, ReturnState.DUE)]
    assert MoneyReturn.objects.get().attempt == other
    assert reviews() == []


@pytest.mark.payment_case(26)
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
    assert returns() == [(ReturnReason.DUPLICATE, 4_990, ReturnState.DUE)]
    assert reviews() == []


@pytest.mark.payment_case(42)
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


# --- money that goes back ---


def gone(minor: int, *, reference: str, at: datetime = NOW) -> MoneyMoved:
    return MoneyMoved(
        transaction_id=f"re_{reference}", amount=Money(minor, "USD"), at=at, reference=reference
    )


@pytest.mark.payment_case(15)
def test_15_surplus_goes_back_when_a_person_says_so_and_no_more_than_that(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(5_090), now=NOW)
    staff = make_user(is_staff=True)

    def back(minor: int) -> MoneyReturn:
        return give_back(
            attempt_id=attempt.pk,
            amount=Money(minor, "USD"),
            reason=ReturnReason.SURPLUS,
            decided_by_id=staff.pk,
            now=NOW,
        )

    with pytest.raises(CannotReturn, match=r"\$1.00 belong to no sale"):
        back(101)
    assert back(100).decided_by == staff
    with pytest.raises(CannotReturn, match=r"\$0.00 belong to no sale"):
        back(1)
    assert returns() == [(ReturnReason.SURPLUS, 100, ReturnState.DUE)]


@pytest.mark.payment_case(14)
def test_14_payment_in_another_currency_can_be_given_back_whole(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, currency="JPY"), now=NOW)

    back = give_back(
        attempt_id=attempt.pk,
        amount=Money(4_990, "JPY"),
        reason=ReturnReason.WRONG_CURRENCY,
        decided_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )

    assert back.money == Money(4_990, "JPY")
    assert Order.objects.get().state == OrderState.UNPAID


@pytest.mark.payment_case(13, 14)
def test_return_that_was_refused_is_owed_once_when_the_order_ends(attempt: PaymentAttempt) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, currency="JPY"), now=NOW)
    back = give_back(
        attempt_id=attempt.pk,
        amount=Money(4_000, "JPY"),
        reason=ReturnReason.WRONG_CURRENCY,
        decided_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    refused = Snapshot(
        provider_id="pay_1", state="captured", refused_returns=(RefusedReturn(back.key, "closed account"),)
    )
    apply_snapshot(attempt_id=attempt.pk, snapshot=refused, now=NOW)

    expire(attempt.order)

    assert returns() == [
        (ReturnReason.WRONG_CURRENCY, 4_000, ReturnState.FAILED),
        (ReturnReason.WRONG_CURRENCY, 990, ReturnState.DUE),
    ]


@pytest.mark.payment_case(14)
def test_order_that_ends_gives_back_what_it_holds_of_each_currency(attempt: PaymentAttempt) -> None:
    for each in (captured(4_900), captured(4_990, currency="JPY", transaction="cap_2")):
        apply_snapshot(attempt_id=attempt.pk, snapshot=each, now=NOW)

    expire(attempt.order)

    assert list(MoneyReturn.objects.order_by("pk").values_list("reason", "minor", "currency")) == [
        (ReturnReason.WRONG_CURRENCY, 4_990, "JPY"),
        (ReturnReason.INCOMPLETE, 4_900, "USD"),
    ]


def test_money_on_its_way_back_pays_for_nothing(attempt: PaymentAttempt) -> None:
    """A late payment goes back; another too small one does not make it whole again."""
    over = expire(attempt.order)
    make_order([(attempt.order.lines.get().fee, 5)], paid_at=NOW)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990, at=over), now=over)
    Plan.objects.update(presale_cap=100)
    other = make_attempt(attempt.order, number=2)

    apply_snapshot(attempt_id=other.pk, snapshot=captured(10, transaction="cap_2", at=over), now=over)

    assert Order.objects.get(pk=attempt.order_id).state == OrderState.EXPIRED
    assert reviews() == [ReviewKind.UNDERPAID]


@pytest.mark.payment_case(26)
def test_returned_money_is_closed_by_the_snapshot_that_shows_it_gone(attempt: PaymentAttempt) -> None:
    other = make_attempt(attempt.order, number=2)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    duplicate = captured(4_990, transaction="cap_2")
    apply_snapshot(attempt_id=other.pk, snapshot=duplicate, now=NOW)
    reference = MoneyReturn.objects.get().reference

    back = replace(duplicate, refunds=(gone(4_990, reference=reference),))
    for _ in range(2):
        apply_snapshot(attempt_id=other.pk, snapshot=back, now=NOW)

    assert returns() == [(ReturnReason.DUPLICATE, 4_990, ReturnState.PAID)]
    assert sum(entry.minor for entry in LedgerEntry.objects.all()) == 4_990
    assert Order.objects.get().state == OrderState.PAID
    assert reviews() == []


@pytest.mark.payment_case(41)
def test_41_return_that_the_gateway_refuses_after_all_is_told_and_can_be_sent_again(
    attempt: PaymentAttempt,
) -> None:
    other = make_attempt(attempt.order, number=2)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    duplicate = captured(4_990, transaction="cap_2")
    apply_snapshot(attempt_id=other.pk, snapshot=duplicate, now=NOW)
    back = MoneyReturn.objects.get()

    refused = replace(duplicate, refused_returns=(RefusedReturn(back.reference, "The account is closed."),))
    for _ in range(2):
        apply_snapshot(attempt_id=other.pk, snapshot=refused, now=NOW)

    back.refresh_from_db()
    assert (back.state, back.problem) == (ReturnState.FAILED, "The account is closed.")
    assert reviews() == [ReviewKind.RETURN_FAILED]
    try_again(back)
    assert returns() == [(ReturnReason.DUPLICATE, 4_990, ReturnState.DUE)]
    with pytest.raises(CannotReturn, match="was not refused"):
        try_again(back)


# --- disputes ---


def moved(kind: str, transaction: str) -> tuple[MoneyMoved, ...]:
    return (MoneyMoved(transaction_id=transaction, amount=Money(4_990, "USD"), at=NOW),)


@pytest.mark.payment_case(44)
def test_44_chargeback_puts_the_order_on_hold_and_a_won_dispute_lets_it_back_to_its_place(
    attempt: PaymentAttempt,
) -> None:
    paid = captured(4_990)
    apply_snapshot(attempt_id=attempt.pk, snapshot=paid, now=NOW)
    line = Order.objects.get().lines.get()
    make_devices(line.plan, 1)

    lost = replace(paid, chargebacks=moved("chargeback", "dp_1"))
    for _ in range(2):
        apply_snapshot(attempt_id=attempt.pk, snapshot=lost, now=NOW)
    line.refresh_from_db()
    assert line.state == LineState.HELD
    assert allocate_devices(plan_id=line.plan_id, now=NOW + timedelta(hours=1)) == 0
    assert sum(entry.minor for entry in LedgerEntry.objects.all()) == 0
    assert reviews() == [ReviewKind.CHARGEBACK]
    # Its units are not sold to anybody else meanwhile.
    assert stocks([line.plan])[line.plan_id].held == 1

    won = replace(lost, reversals=moved("reversal", "dp_1"))
    apply_snapshot(attempt_id=attempt.pk, snapshot=won, now=NOW)
    line.refresh_from_db()
    assert (line.state, line.paid_at) == (LineState.WAITING, CAPTURED_AT)
    assert allocate_devices(plan_id=line.plan_id, now=NOW + timedelta(hours=1)) == 1
    told = Notice.objects.filter(kind__in=("payment-disputed", "dispute-ended")).order_by("pk")
    assert list(told.values_list("kind", flat=True)) == ["payment-disputed", "dispute-ended"]


@pytest.mark.payment_case(45)
def test_45_dispute_of_what_was_paid_back_is_flagged(attempt: PaymentAttempt) -> None:
    paid = captured(4_990)
    apply_snapshot(attempt_id=attempt.pk, snapshot=paid, now=NOW)
    back = replace(paid, refunds=(gone(4_990, reference=""),))
    apply_snapshot(attempt_id=attempt.pk, snapshot=back, now=NOW)

    disputed = replace(back, chargebacks=moved("chargeback", "dp_1"))
    apply_snapshot(attempt_id=attempt.pk, snapshot=disputed, now=NOW)

    assert reviews() == [
        ReviewKind.EXTERNAL_REFUND,
        ReviewKind.CHARGEBACK,
        ReviewKind.DISPUTE_AFTER_REFUND,
    ]


@pytest.mark.payment_case(26, 44)
def test_second_payment_that_its_bank_took_back_before_we_heard_of_it_is_not_given_back_as_well(
    attempt: PaymentAttempt,
) -> None:
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    second = make_attempt(attempt.order, number=2)
    lost = replace(captured(4_990, transaction="cap_2"), chargebacks=moved("chargeback", "dp_2"))

    apply_snapshot(attempt_id=second.pk, snapshot=lost, now=NOW)

    assert (returns(), reviews()) == ([], [ReviewKind.CHARGEBACK])
    # The order has its money, and keeps its place.
    line = Order.objects.get().lines.get()
    assert line.state == LineState.WAITING
    assert not Notice.objects.filter(kind="payment-disputed").exists()

    won = replace(lost, reversals=moved("reversal", "dp_2"))
    for _ in range(2):
        apply_snapshot(attempt_id=second.pk, snapshot=won, now=NOW)
    assert (returns(), reviews()) == ([], [ReviewKind.CHARGEBACK, ReviewKind.SURPLUS])
    order = Order.objects.get()
    assert [free_to_return(order, each, currency="USD").minor for each in (attempt, second)] == [4_990, 4_990]
    give_back(
        attempt_id=second.pk,
        amount=Money(4_990, "USD"),
        reason=ReturnReason.DUPLICATE,
        decided_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    assert free_to_return(order, attempt, currency="USD") == Money(0, "USD")


@pytest.mark.payment_case(13, 44)
def test_part_of_an_order_that_has_ended_comes_before_a_person_when_its_dispute_is_won(
    attempt: PaymentAttempt,
) -> None:
    lost = replace(captured(4_989), chargebacks=(MoneyMoved("dp_1", Money(4_989, "USD"), NOW),))
    apply_snapshot(attempt_id=attempt.pk, snapshot=lost, now=NOW)
    over = expire(attempt.order)
    assert returns() == []

    won = replace(lost, reversals=(MoneyMoved("dp_1", Money(4_989, "USD"), over),))
    apply_snapshot(attempt_id=attempt.pk, snapshot=won, now=over)

    assert reviews() == [ReviewKind.UNDERPAID, ReviewKind.CHARGEBACK, ReviewKind.SURPLUS]
    assert free_to_return(Order.objects.get(), attempt, currency="USD") == Money(4_989, "USD")


@pytest.mark.payment_case(26, 44)
@pytest.mark.parametrize(("taken_from", "state"), [(1, LineState.HELD), (2, LineState.WAITING)])
def test_of_two_payments_the_one_that_the_order_needs_is_disputed_when_a_bank_takes_it_back(
    attempt: PaymentAttempt, taken_from: int, state: LineState
) -> None:
    second = make_attempt(attempt.order, number=2)
    told = {
        attempt.pk: captured(4_990),
        second.pk: captured(4_990, transaction="cap_2", at=NOW),
    }
    for pk, snapshot in told.items():
        apply_snapshot(attempt_id=pk, snapshot=snapshot, now=NOW)
    assert returns() == [(ReturnReason.DUPLICATE, 4_990, ReturnState.DUE)]

    pk = (attempt.pk, second.pk)[taken_from - 1]
    lost = replace(told[pk], chargebacks=moved("chargeback", "dp_1"))
    apply_snapshot(attempt_id=pk, snapshot=lost, now=NOW)

    assert Order.objects.get().lines.get().state == state


@pytest.mark.payment_case(26, 44)
def test_return_of_what_a_bank_took_back_meanwhile_is_not_asked_for_and_told_to_staff(
    attempt: PaymentAttempt,
) -> None:
    second = make_attempt(attempt.order, number=2)
    apply_snapshot(attempt_id=attempt.pk, snapshot=captured(4_990), now=NOW)
    twice = captured(4_990, transaction="cap_2")
    apply_snapshot(attempt_id=second.pk, snapshot=twice, now=NOW)
    lost = replace(twice, chargebacks=moved("chargeback", "dp_2"))
    apply_snapshot(attempt_id=second.pk, snapshot=lost, now=NOW)

    assert send_returns(now=NOW) == 0

    assert returns() == [(ReturnReason.DUPLICATE, 4_990, ReturnState.FAILED)]
    assert reviews() == [ReviewKind.CHARGEBACK, ReviewKind.RETURN_FAILED]
    assert MoneyReturn.objects.get().problem == "This payment alone does not hold so much (any more)."
    with pytest.raises(CannotReturn, match=r"only \$0\.00 are left"):
        try_again(MoneyReturn.objects.get())


# --- coins ---


@pytest.mark.payment_case(32)
def test_32_what_is_being_confirmed_is_kept_and_no_second_payment_of_its_kind_is_begun(
    attempt: PaymentAttempt,
) -> None:
    progress = CoinProgress("BTC", due="0.0103", received="0.0100", confirmations=1, needed=3)
    confirming = Snapshot(provider_id="pay_1", state="confirming", progress=progress)

    apply_snapshot(attempt_id=attempt.pk, snapshot=confirming, now=NOW)

    attempt.refresh_from_db()
    assert attempt.state == AttemptState.CONFIRMING
    assert attempt.progress == {
        "coin": "BTC",
        "due": "0.0103",
        "received": "0.0100",
        "confirmations": 1,
        "needed": 3,
        "missing": "",
        "qr": "",
    }
    with pytest.raises(IntegrityError), transaction.atomic():
        PaymentAttempt.objects.create(
            order=attempt.order,
            reference="second",
            method=attempt.method,
            gateway="sandbox",
            amount_minor=1,
            currency="USD",
            created_at=NOW,
            expires_at=NOW,
        )


@pytest.mark.payment_case(35)
def test_35_dropped_coins_leave_the_order_to_be_paid(attempt: PaymentAttempt) -> None:
    for state in ("confirming", "pending"):
        apply_snapshot(attempt_id=attempt.pk, snapshot=Snapshot(provider_id="pay_1", state=state), now=NOW)

    attempt.refresh_from_db()
    assert (attempt.state, Order.objects.get().state) == (AttemptState.PENDING, OrderState.UNPAID)
