"""Unable to supply (3.3): who is affected, two people, and refunds worked off order by order."""

from datetime import date, timedelta

import pytest
from django.db import IntegrityError, transaction

from accounts.models import User
from inventory.models import BatchState, Fee, Plan, SupplyBatch
from inventory.money import Money
from notices.models import Notice
from orders import shortfalls
from orders.allocation import allocate_devices
from orders.models import (
    Ground,
    LineState,
    Order,
    OrderLine,
    Refund,
    RefundState,
    Shortfall,
    ShortfallLine,
    ShortfallState,
)
from orders.queue import units_waiting
from orders.refunds import approve_refund, refund_shortfall, request_refund
from orders.shortfalls import (
    ShortfallRefused,
    affected_by,
    approve_shortfall,
    declare_shortfall,
    progress_of,
    reject_shortfall,
    retry_shortfall,
    sums_of,
    work_off_shortfalls,
)
from tests.builders import (
    NOW,
    make_batch,
    make_capture,
    make_devices,
    make_fee,
    make_order,
    make_plan,
    make_user,
)

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(hours=1)
WHY = "The supplier has given up this model."


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture
def fee(plan: Plan) -> Fee:
    return make_fee(plan, minor=500)


@pytest.fixture
def clerk() -> User:
    return make_user(is_staff=True)


@pytest.fixture
def second() -> User:
    return make_user(is_staff=True)


def paid(*fees: tuple[Fee, int], after: int) -> Order:
    """An order paid `after` minutes, and the capture that paid it."""
    order = make_order(fees, paid_at=EARLIER + timedelta(minutes=after))
    make_capture(order)
    return order


@pytest.fixture
def queue(fee: Fee) -> list[Order]:
    """Orders of 2, 3 and 4 units, in the order in which they were paid."""
    return [paid((fee, units), after=minute) for minute, units in enumerate((2, 3, 4))]


def declared(plan: Plan, clerk: User, batch: SupplyBatch | None = None) -> Shortfall:
    return declare_shortfall(
        plan_id=plan.pk,
        batch_id=batch.pk if batch else None,
        reason=WHY,
        declared_by_id=clerk.pk,
        now=NOW,
    )


def approved(plan: Plan, clerk: User, second: User, batch: SupplyBatch | None = None) -> Shortfall:
    shortfall = declared(plan, clerk, batch)
    return approve_shortfall(shortfall_id=shortfall.pk, approved_by_id=second.pk, now=NOW)


def listed(shortfall: Shortfall) -> list[tuple[int, int, str]]:
    lines = shortfall.lines.order_by("pk")
    return list(lines.values_list("line__order_id", "units", "state"))


def withdrawn(orders: list[Order]) -> list[tuple[str, int]]:
    lines = OrderLine.objects.filter(order__in=orders).order_by("order_id", "pk")
    return list(lines.values_list("state", "withdrawn"))


# --- who is affected -----------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
def test_of_a_plan_all_that_waits_is_affected_and_no_device_is(
    plan: Plan, queue: list[Order], fee: Fee
) -> None:
    make_devices(plan, 3)
    allocate_devices(plan_id=plan.pk, now=NOW)
    make_order([(fee, 9)])  # not paid

    affected = affected_by(plan_id=plan.pk)

    assert [(each.line.order, each.units) for each in affected] == [(queue[1], 2), (queue[2], 4)]
    assert sums_of(affected) == [Money(3_000, "USD")]


def test_sums_are_per_currency(plan: Plan, queue: list[Order]) -> None:
    paid((make_fee(plan, minor=3_900, currency="HKD"), 2), after=9)

    assert sums_of(affected_by(plan_id=plan.pk)) == [Money(7_800, "HKD"), Money(4_500, "USD")]


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("free", "other", "missing", "units"),
    [
        (0, 4, 5, [1, 4]),  # 9 wait, 4 are covered
        (0, 6, 5, [3]),  # the last line is served in part
        (2, 4, 5, [3]),  # free devices serve as well
        (0, 0, 5, [1, 4]),  # never more than the batch would have served
        (0, 9, 5, []),  # the others cover all
        (0, 20, 5, []),
    ],
)
def test_of_a_batch_the_last_units_are_affected_that_nothing_else_covers(
    plan: Plan, queue: list[Order], free: int, other: int, missing: int, units: list[int]
) -> None:
    batch = make_batch(plan, quantity=missing)
    if other:
        make_batch(plan, quantity=other, on=date(2027, 1, 1))
    if free:
        make_devices(plan, free)

    affected = affected_by(plan_id=plan.pk, batch_id=batch.pk)

    assert [each.units for each in affected] == units
    assert [each.line.order for each in affected] == queue[len(queue) - len(units) :]


def test_of_a_batch_that_came_short_only_what_did_not_come_is_missing(plan: Plan, queue: list[Order]) -> None:
    batch = make_batch(plan, quantity=9, received_late=0)
    SupplyBatch.objects.filter(pk=batch.pk).update(received_units=7)

    assert [each.units for each in affected_by(plan_id=plan.pk, batch_id=batch.pk)] == [2]


# --- two people ----------------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
def test_declaring_lists_the_units_and_refunds_nothing(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = declared(plan, clerk)

    assert listed(shortfall) == [
        (order.pk, units, "pending") for order, units in zip(queue, (2, 3, 4), strict=True)
    ]
    assert work_off_shortfalls(now=NOW) == 0
    assert units_waiting(plan_id=plan.pk) == 9


@pytest.mark.clause("3.3")
def test_plan_that_cannot_be_supplied_is_sold_no_more(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = declared(plan, clerk)
    reject_shortfall(shortfall_id=shortfall.pk, rejected_by_id=second.pk, now=NOW)

    plan.refresh_from_db()
    assert plan.on_sale is False


def test_batch_that_will_not_come_is_expected_no_more_and_the_plan_stays_on_sale(
    plan: Plan, queue: list[Order], clerk: User
) -> None:
    batch = make_batch(plan, quantity=5)

    shortfall = declared(plan, clerk, batch)

    batch.refresh_from_db()
    plan.refresh_from_db()
    assert (batch.state, plan.on_sale) == (BatchState.CANCELLED, True)
    assert listed(shortfall) == [(queue[1].pk, 1, "pending"), (queue[2].pk, 4, "pending")]


def test_reason_is_required_and_a_batch_must_lack_something(plan: Plan, clerk: User) -> None:
    whole = make_batch(plan, quantity=3, received_late=0)

    with pytest.raises(ShortfallRefused, match="has come"):
        declared(plan, clerk, whole)
    with pytest.raises(ShortfallRefused, match="Say why"):
        declare_shortfall(plan_id=plan.pk, reason=" ", declared_by_id=clerk.pk, now=NOW)
    plan.refresh_from_db()
    assert (Shortfall.objects.count(), plan.on_sale) == (0, True)


def test_one_shortfall_of_a_plan_is_worked_off_before_another_begins(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = declared(plan, clerk)
    with pytest.raises(ShortfallRefused, match="not worked off yet"):
        declared(plan, clerk)
    approve_shortfall(shortfall_id=shortfall.pk, approved_by_id=second.pk, now=NOW)
    with pytest.raises(ShortfallRefused, match="not worked off yet"):
        declared(plan, clerk)

    work_off_shortfalls(now=NOW)
    assert listed(declared(plan, clerk)) == []


@pytest.mark.clause("3.3")
def test_who_declared_it_does_not_decide_and_it_is_decided_once(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = declared(plan, clerk)
    with pytest.raises(ShortfallRefused, match="second member of staff"):
        approve_shortfall(shortfall_id=shortfall.pk, approved_by_id=clerk.pk, now=NOW)
    with pytest.raises(ShortfallRefused, match="second member of staff"):
        reject_shortfall(shortfall_id=shortfall.pk, rejected_by_id=clerk.pk, now=NOW)
    with pytest.raises(IntegrityError), transaction.atomic():
        Shortfall.objects.update(state=ShortfallState.APPROVED, decided_by=clerk, decided_at=NOW)

    reject_shortfall(shortfall_id=shortfall.pk, rejected_by_id=second.pk, now=NOW)
    with pytest.raises(ShortfallRefused, match="already"):
        approve_shortfall(shortfall_id=shortfall.pk, approved_by_id=second.pk, now=NOW)
    assert work_off_shortfalls(now=NOW) == 0


# --- worked off ----------------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
def test_every_order_is_refunded_in_full_and_its_customer_told_once(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = approved(plan, clerk, second)

    assert [work_off_shortfalls(now=NOW) for _run in range(2)] == [3, 0]

    assert withdrawn(queue) == [("withdrawn", 2), ("withdrawn", 3), ("withdrawn", 4)]
    refunds = Refund.objects.order_by("pk")
    assert [(refund.order, refund.minor, refund.state) for refund in refunds] == [
        (order, units * 500, "approved") for order, units in zip(queue, (2, 3, 4), strict=True)
    ]
    assert {(refund.ground, refund.explanation) for refund in refunds} == {(Ground.UNABLE_TO_SUPPLY, WHY)}
    assert {(refund.requested_by, refund.decided_by) for refund in refunds} == {(clerk, second)}
    told = Notice.objects.order_by("pk").values_list("kind", "recipient_id")
    assert list(told) == [("refund-approved", order.customer_id) for order in queue]
    assert [state for _order, _units, state in listed(shortfall)] == ["refunded"] * 3


@pytest.mark.clause("3.3")
def test_two_lines_of_an_order_are_one_refund(plan: Plan, fee: Fee, clerk: User, second: User) -> None:
    yearly = make_fee(plan, days=365, minor=4_000)
    other = make_fee(make_plan("V06"), minor=700)
    order = paid((fee, 2), (yearly, 1), (other, 1), after=0)

    approved(plan, clerk, second)
    work_off_shortfalls(now=NOW)

    refund = Refund.objects.get()
    assert (refund.minor, Notice.objects.count()) == (5_000, 1)
    assert withdrawn([order]) == [("withdrawn", 2), ("withdrawn", 1), ("waiting", 0)]


def test_units_that_got_a_device_meanwhile_keep_it(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = approved(plan, clerk, second)
    make_devices(plan, 3)
    allocate_devices(plan_id=plan.pk, now=NOW)

    work_off_shortfalls(now=NOW)

    assert withdrawn(queue) == [("allocated", 0), ("allocated", 2), ("withdrawn", 4)]
    assert [state for _order, _units, state in listed(shortfall)] == ["served", "refunded", "refunded"]
    assert list(Refund.objects.order_by("pk").values_list("minor", flat=True)) == [1_000, 2_000]


def test_units_that_were_not_listed_are_not_refunded(
    plan: Plan, queue: list[Order], fee: Fee, clerk: User, second: User
) -> None:
    approved(plan, clerk, second, make_batch(plan, quantity=5))
    late = paid((fee, 1), after=30)

    work_off_shortfalls(now=NOW)

    assert withdrawn([*queue, late]) == [("waiting", 0), ("waiting", 1), ("withdrawn", 4), ("waiting", 0)]


def test_a_run_that_dies_leaves_whole_orders_and_the_next_goes_on(
    plan: Plan, queue: list[Order], clerk: User, second: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved(plan, clerk, second)
    done: list[Order] = []

    def die_at_the_second(order: Order, **how: object) -> Refund:
        made = refund_shortfall(order, **how)  # type: ignore[arg-type]
        done.append(order)
        if len(done) == 2:
            raise KeyboardInterrupt
        return made

    monkeypatch.setattr(shortfalls, "refund_shortfall", die_at_the_second)
    with pytest.raises(KeyboardInterrupt):
        work_off_shortfalls(now=NOW)
    assert withdrawn(queue) == [("withdrawn", 2), ("waiting", 0), ("waiting", 0)]
    assert (Refund.objects.count(), Notice.objects.count()) == (1, 1)

    monkeypatch.undo()
    assert work_off_shortfalls(now=NOW) == 2
    assert withdrawn(queue) == [("withdrawn", 2), ("withdrawn", 3), ("withdrawn", 4)]
    assert (Refund.objects.count(), Notice.objects.count()) == (3, 3)


def test_fault_with_one_order_keeps_no_other_waiting(
    plan: Plan, queue: list[Order], clerk: User, second: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    approved(plan, clerk, second)

    def fail_at_the_first(order: Order, **how: object) -> Refund:
        if order == queue[0]:
            raise RuntimeError("Broken.")
        return refund_shortfall(order, **how)  # type: ignore[arg-type]

    monkeypatch.setattr(shortfalls, "refund_shortfall", fail_at_the_first)
    with pytest.raises(ExceptionGroup):
        work_off_shortfalls(now=NOW)

    assert withdrawn(queue) == [("waiting", 0), ("withdrawn", 3), ("withdrawn", 4)]


def test_a_run_works_off_some_and_the_next_the_rest(
    plan: Plan, queue: list[Order], clerk: User, second: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shortfalls, "CHUNK", 2)
    approved(plan, clerk, second)

    assert [work_off_shortfalls(now=NOW) for _run in range(3)] == [2, 1, 0]
    assert units_waiting(plan_id=plan.pk) == 0


def test_what_fails_says_why_and_is_tried_again(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    asked = request_refund(
        order_id=queue[1].pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="Before",
        units={queue[1].lines.get().pk: 1},
        requested_by_id=clerk.pk,
        now=NOW,
    )
    shortfall = approved(plan, clerk, second)
    work_off_shortfalls(now=NOW)

    failed = ShortfallLine.objects.get(state="failed")
    assert (failed.line.order, failed.problem) == (
        queue[1],
        "Fewer than 3 units of this line are waiting and not asked for yet.",
    )
    assert progress_of(shortfall).failed == 1
    assert (work_off_shortfalls(now=NOW), Notice.objects.count()) == (0, 2)

    approve_refund(refund_id=asked.pk, approved_by_id=second.pk, now=NOW)
    assert retry_shortfall(shortfall_id=shortfall.pk) == 1
    assert work_off_shortfalls(now=NOW) == 1
    assert withdrawn(queue) == [("withdrawn", 2), ("withdrawn", 3), ("withdrawn", 4)]
    assert Refund.objects.get(shortfall_lines=failed).minor == 1_000
    assert progress_of(shortfall).failed == 0


def test_what_the_gateway_refused_is_sent_again_with_the_rest(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = approved(plan, clerk, second)
    work_off_shortfalls(now=NOW)
    first, other, _third = Refund.objects.order_by("pk")
    Refund.objects.filter(pk=first.pk).update(state=RefundState.PAID, paid_at=NOW)
    Refund.objects.filter(pk=other.pk).update(state=RefundState.FAILED, problem="No.")

    assert progress_of(shortfall).failed == 1
    assert retry_shortfall(shortfall_id=shortfall.pk) == 1
    assert list(Refund.objects.order_by("pk").values_list("state", flat=True)) == [
        "paid",
        "approved",
        "approved",
    ]


def test_disputed_order_fails_until_its_dispute_is_over(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    approved(plan, clerk, second)
    entry = queue[0].ledger.get()
    queue[0].ledger.create(
        attempt=entry.attempt,
        gateway="sandbox",
        kind="chargeback",
        transaction_id="cb-1",
        minor=-entry.minor,
        currency="USD",
        occurred_at=NOW,
        recorded_at=NOW,
    )
    OrderLine.objects.filter(order=queue[0]).update(state=LineState.HELD)

    work_off_shortfalls(now=NOW)

    assert "No single payment" in ShortfallLine.objects.get(state="failed").problem
    assert withdrawn(queue)[0] == ("held", 0)


def test_progress_counts_orders_units_money_and_refunds(
    plan: Plan, queue: list[Order], clerk: User, second: User
) -> None:
    shortfall = approved(plan, clerk, second)
    make_devices(plan, 2)
    allocate_devices(plan_id=plan.pk, now=NOW)
    work_off_shortfalls(now=NOW)
    Refund.objects.filter(order=queue[1]).update(state=RefundState.PAID, paid_at=NOW)

    assert progress_of(shortfall).rows == (
        ("All", "$45.00"),
        ("Refunded", "2 orders, 7 units"),
        ("Does not wait any more", "1 order, 2 units"),
        ("Refunds, approved, money on its way", "1"),
        ("Refunds, paid back", "1"),
    )
