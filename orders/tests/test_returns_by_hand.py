"""Money that a gateway will not give back: sent again, or paid by hand by two people; and the warning before."""

from datetime import date, datetime, timedelta

import pytest
from django.db import IntegrityError, transaction

from accounts.models import User
from inventory.money import Money
from notices.models import Notice
from orders.gateways.protocol import MoneyMoved, RefusedReturn, Snapshot
from orders.ledger import apply_snapshot
from orders.models import (
    Document,
    Ground,
    LedgerEntry,
    LineState,
    MoneyReturn,
    Order,
    OrderLine,
    PaymentAttempt,
    Payout,
    Refund,
    RefundState,
    ReturnReason,
    ReturnState,
    ReviewItem,
)
from orders.refunds import approve_refund, request_refund
from orders.returns import (
    CannotReturn,
    confirm_payout,
    left_in,
    record_payout,
    reject_payout,
    report_closing_windows,
    try_again,
)
from tests.builders import NOW, make_attempt, make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db

TODAY = date(2026, 11, 23)


def snapshot_of(attempt: PaymentAttempt, **moves: object) -> Snapshot:
    return Snapshot(provider_id=attempt.provider_id, state="captured", **moves)  # type: ignore[arg-type]


@pytest.fixture
def order() -> Order:
    """Two units at 4.99 USD, paid by the sandbox an hour ago."""
    order = make_order([(make_fee(make_plan(), minor=499), 2)])
    attempt = make_attempt(order)
    move = MoneyMoved("cap-1", order.total, NOW - timedelta(hours=1))
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, captures=(move,)), now=NOW)
    return Order.objects.get(pk=order.pk)


@pytest.fixture
def clerk() -> User:
    return make_user(is_staff=True)


@pytest.fixture
def second() -> User:
    return make_user(is_staff=True)


def approved(order: Order, clerk: User, second: User, *, units: int = 1) -> Refund:
    refund = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="The supplier has given it up.",
        units={order.lines.get().pk: units},
        requested_by_id=clerk.pk,
        now=NOW,
    )
    return approve_refund(refund_id=refund.pk, approved_by_id=second.pk, now=NOW)


@pytest.fixture
def failed(order: Order, clerk: User, second: User) -> Refund:
    """A refund of one unit that the gateway had accepted and then refused."""
    refund = approved(order, clerk, second)
    attempt = order.attempts.get()
    refused = (RefusedReturn(refund.reference, "The account is closed."),)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, refused_returns=refused), now=NOW)
    refund.refresh_from_db()
    assert refund.state == RefundState.FAILED
    return refund


def recorded(due: Refund | MoneyReturn, clerk: User, *, reference: str = "SEPA-1") -> Payout:
    return record_payout(
        due=due,
        means="bank transfer",
        reference=reference,
        paid_on=TODAY,
        recorded_by_id=clerk.pk,
        now=NOW,
    )


def booked() -> list[tuple[str, str, int]]:
    return list(LedgerEntry.objects.order_by("pk").values_list("gateway", "kind", "minor"))


@pytest.mark.payment_case(41)
def test_refund_that_failed_finds_its_money_again_or_is_not_sent_again(
    order: Order, failed: Refund, clerk: User, second: User
) -> None:
    attempt = order.attempts.get()
    assert left_in(attempt, currency="USD") == Money(998, "USD")
    outside = (MoneyMoved("re-1", Money(600, "USD"), NOW),)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, refunds=outside), now=NOW)

    with pytest.raises(CannotReturn, match=r"only \$3\.98 are left"):
        try_again(failed)
    failed.refresh_from_db()
    assert failed.state == RefundState.FAILED


@pytest.mark.payment_case(41)
def test_refund_that_is_sent_again_is_reserved_again(order: Order, failed: Refund) -> None:
    try_again(failed)

    failed.refresh_from_db()
    assert (failed.state, failed.problem) == (RefundState.APPROVED, "")
    assert left_in(order.attempts.get(), currency="USD") == Money(499, "USD")
    with pytest.raises(CannotReturn, match="was not refused"):
        try_again(failed)


@pytest.mark.payment_case(41)
@pytest.mark.clause("3.3")
def test_what_the_gateway_refused_is_paid_by_hand_by_two_people(
    order: Order, failed: Refund, clerk: User, second: User
) -> None:
    payout = recorded(failed, clerk)
    assert booked() == [("sandbox", "capture", 998)]

    with pytest.raises(CannotReturn, match="second member of staff"):
        confirm_payout(payout_id=payout.pk, confirmed_by_id=clerk.pk, now=NOW)
    payout = confirm_payout(payout_id=payout.pk, confirmed_by_id=second.pk, now=NOW)

    failed.refresh_from_db()
    assert (payout.is_confirmed, payout.decided_by) == (True, second)
    assert (failed.state, failed.paid_at, failed.problem) == (RefundState.PAID, NOW, "")
    assert booked() == [("sandbox", "capture", 998), ("by-hand", "refund", -499)]
    assert LedgerEntry.objects.get(gateway="by-hand").transaction_id == f"{failed.reference}:SEPA-1"
    assert Notice.objects.get(kind="refund-paid").facts["means"] == "bank transfer"
    note = Document.objects.get(kind="credit-note")
    assert (note.minor, note.refund) == (499, failed)
    assert note.contents["moved"]["rows"] == [["Nov. 23, 2026", "bank transfer", "SEPA-1", "$4.99"]]


@pytest.mark.payment_case(41)
def test_payout_closes_every_report_of_the_refusal_and_no_other(
    order: Order, failed: Refund, clerk: User, second: User
) -> None:
    try_again(failed)
    failed.refresh_from_db()
    attempt, refused = order.attempts.get(), RefusedReturn(failed.key, "It is still closed.")
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, refused_returns=(refused,)), now=NOW)
    other = approved(order, clerk, second)
    refused = RefusedReturn(other.reference, "So is this one.")
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, refused_returns=(refused,)), now=NOW)
    payout = recorded(failed, clerk)
    assert ReviewItem.objects.filter(resolved_at=None).count() == 3

    confirm_payout(payout_id=payout.pk, confirmed_by_id=second.pk, now=NOW)

    assert ReviewItem.objects.get(resolved_at=None).detail.startswith(other.reference)
    closed = ReviewItem.objects.exclude(resolved_at=None)
    assert set(closed.values_list("resolution", "resolved_by", "resolved_at")) == {
        ("It was paid by bank transfer, SEPA-1.", second.pk, NOW)
    }


def test_payout_is_decided_once(failed: Refund, clerk: User, second: User) -> None:
    payout = recorded(failed, clerk)
    confirm_payout(payout_id=payout.pk, confirmed_by_id=second.pk, now=NOW)

    with pytest.raises(CannotReturn, match="decided"):
        confirm_payout(payout_id=payout.pk, confirmed_by_id=second.pk, now=NOW)
    with pytest.raises(CannotReturn, match="decided"):
        reject_payout(payout_id=payout.pk, rejected_by_id=second.pk, now=NOW)
    assert booked() == [("sandbox", "capture", 998), ("by-hand", "refund", -499)]


def test_payout_that_was_never_made_leaves_the_refund_to_be_sent(
    failed: Refund, clerk: User, second: User
) -> None:
    payout = recorded(failed, clerk)
    with pytest.raises(CannotReturn, match="waits for a second member"):
        try_again(failed)
    with pytest.raises(CannotReturn, match="waits for a second member"):
        recorded(failed, clerk)

    reject_payout(payout_id=payout.pk, rejected_by_id=second.pk, now=NOW)

    assert booked() == [("sandbox", "capture", 998)]
    assert recorded(failed, clerk, reference="SEPA-2").is_confirmed is None


def test_payout_says_how_and_when_and_only_of_what_was_refused(
    order: Order, failed: Refund, clerk: User, second: User
) -> None:
    def record(due: Refund, *, means: str = "wire", reference: str = "X", paid_on: date = TODAY) -> None:
        record_payout(
            due=due, means=means, reference=reference, paid_on=paid_on, recorded_by_id=clerk.pk, now=NOW
        )

    with pytest.raises(CannotReturn, match="Say how"):
        record(failed, means=" ")
    with pytest.raises(CannotReturn, match="Say how"):
        record(failed, reference=" ")
    for day in (TODAY - timedelta(days=1), TODAY + timedelta(days=1)):
        with pytest.raises(CannotReturn, match="between"):
            record(failed, paid_on=day)
    with pytest.raises(CannotReturn, match="was not refused"):
        record(approved(order, clerk, second))
    assert not Payout.objects.exists()


def test_database_knows_no_payout_by_one_person_alone(failed: Refund, clerk: User) -> None:
    payout = recorded(failed, clerk)

    with pytest.raises(IntegrityError), transaction.atomic():
        Payout.objects.filter(pk=payout.pk).update(is_confirmed=True, decided_by=clerk, decided_at=NOW)


@pytest.mark.payment_case(46)
def test_refund_that_the_gateway_makes_after_all_is_not_confirmed_as_paid_by_hand(
    order: Order, failed: Refund, clerk: User, second: User
) -> None:
    payout, attempt = recorded(failed, clerk), order.attempts.get()
    late = (MoneyMoved("re-1", Money(499, "USD"), NOW, failed.reference),)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, refunds=late), now=NOW)

    with pytest.raises(CannotReturn, match="after all"):
        confirm_payout(payout_id=payout.pk, confirmed_by_id=second.pk, now=NOW)
    reject_payout(payout_id=payout.pk, rejected_by_id=second.pk, now=NOW)
    assert booked() == [("sandbox", "capture", 998), ("sandbox", "refund", -499)]


def test_refund_that_the_gateway_makes_after_it_was_paid_by_hand_is_reviewed(
    order: Order, failed: Refund, clerk: User, second: User
) -> None:
    confirm_payout(payout_id=recorded(failed, clerk).pk, confirmed_by_id=second.pk, now=NOW)
    attempt = order.attempts.get()
    late = (MoneyMoved("re-1", Money(499, "USD"), NOW, failed.reference),)
    for _report in range(2):
        apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, refunds=late), now=NOW)

    assert list(ReviewItem.objects.order_by("pk").values_list("kind", flat=True)) == [
        "refund-failed",
        "external-refund",
    ]
    assert "which was paid before" in ReviewItem.objects.get(kind="external-refund").detail
    assert Notice.objects.filter(kind="refund-paid").count() == 1


def test_money_that_belongs_to_no_sale_is_paid_by_hand_too(order: Order, clerk: User, second: User) -> None:
    attempt = order.attempts.get()
    move = MoneyMoved("cap-2", order.total, NOW)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, captures=(move,)), now=NOW)
    back = MoneyReturn.objects.get(reason=ReturnReason.DUPLICATE)
    refused = (RefusedReturn(back.reference, "No."),)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, refused_returns=refused), now=NOW)
    back.refresh_from_db()
    assert back.state == ReturnState.FAILED

    confirm_payout(payout_id=recorded(back, clerk).pk, confirmed_by_id=second.pk, now=NOW)

    back.refresh_from_db()
    assert (back.state, back.paid_at, back.problem) == (ReturnState.PAID, NOW, "")
    assert booked()[-1] == ("by-hand", "refund", -998)
    assert ReviewItem.objects.get(kind="return-failed").resolved_by == second
    # It was never invoiced.
    assert not Document.objects.filter(kind="credit-note").exists()


# --- the gateway's time ------------------------------------------------------------------------------------


def paid_through(gateway: str, *, at: datetime, method: str = "") -> OrderLine:
    order = make_order([(make_fee(make_plan(), minor=499), 1)], pay_until=NOW)
    attempt = make_attempt(order, gateway=gateway, method=method)
    move = MoneyMoved(f"cap-{order.pk}", order.total, at)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot_of(attempt, captures=(move,)), now=at)
    return order.lines.get()


@pytest.mark.payment_case(43)
@pytest.mark.parametrize(
    ("gateway", "method", "until"),
    [
        ("paypal", "paypal", NOW + timedelta(days=180)),
        ("alipay", "alipay", NOW + timedelta(days=365)),
        ("nowpayments", "bitcoin", NOW),
        ("stripe", "card", None),
        ("stripe", "alipay", NOW + timedelta(days=90)),
        ("stripe", "wechat", NOW + timedelta(days=180)),
        ("sandbox", "sandbox", None),
    ],
)
def test_capture_says_until_when_its_gateway_gives_it_back(
    gateway: str, method: str, until: datetime | None
) -> None:
    paid_through(gateway, at=NOW, method=method)

    assert LedgerEntry.objects.get().refundable_until == until


@pytest.mark.payment_case(43)
def test_staff_hear_once_14_days_before_that_a_gateway_soon_gives_nothing_back() -> None:
    line = paid_through("paypal", at=NOW)
    paid_through("sandbox", at=NOW)
    paid_through("nowpayments", at=NOW)
    warned = NOW + timedelta(days=166)

    assert report_closing_windows(now=warned - timedelta(seconds=1)) == 0
    assert [report_closing_windows(now=warned), report_closing_windows(now=warned)] == [1, 0]

    item = ReviewItem.objects.get()
    assert (item.kind, item.order_id, item.entry) == (
        "refund-window",
        line.order_id,
        LedgerEntry.objects.get(gateway="paypal"),
    )
    assert "only until 2027-05-22 04:00 UTC" in item.detail


@pytest.mark.payment_case(43)
@pytest.mark.parametrize(
    ("state", "warnings"), [(LineState.HELD, 1), (LineState.ALLOCATED, 0), (LineState.WITHDRAWN, 0)]
)
def test_who_waits_for_nothing_any_more_is_no_warning(state: LineState, warnings: int) -> None:
    line = paid_through("paypal", at=NOW)
    OrderLine.objects.filter(pk=line.pk).update(
        state=state, allocated=int(state == LineState.ALLOCATED), withdrawn=int(state == LineState.WITHDRAWN)
    )

    # Also when nobody looked for a year.
    assert report_closing_windows(now=NOW + timedelta(days=400)) == warnings
