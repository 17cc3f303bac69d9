"""What became of the dates that were given. Today is November 23, 2026."""

import json
from collections.abc import Sequence
from datetime import date, datetime, timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from evidence.contract_time import contract_midnight
from inventory.models import Fee, Plan
from orders.allocation import allocate_devices
from orders.models import (
    Basis,
    Cause,
    Estimate,
    Forecast,
    Ground,
    LineState,
    OrderLine,
    QueueEventKind,
)
from orders.queue.fairness import record
from orders.refunds import approve_refund, request_refund
from orders.track_record import Score, TrackRecord, track_record, track_records
from tests.builders import NOW, make_capture, make_devices, make_fee, make_line, make_plan, make_user

pytestmark = pytest.mark.django_db

LIKELY, LATEST = date(2026, 11, 1), date(2026, 11, 10)
PAID = datetime.fromisoformat("2026-09-01T00:00:00+00:00")


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture
def fee(plan: Plan) -> Fee:
    return make_fee(plan)


def promise(
    line: OrderLine,
    *,
    likely: date | None = LIKELY,
    latest: date | None = LATEST,
    number: int = 1,
    basis: Basis = Basis.SUPPLY,
) -> None:
    Estimate.objects.create(
        line=line,
        number=number,
        made_at=PAID,
        earliest=likely,
        likely=likely,
        latest=latest,
        next_update_by=LATEST,
        basis=basis,
        cause=Cause.PAYMENT,
        units_ahead=0,
        forecast=Forecast.objects.create(plan=line.plan, made_at=PAID, inputs={}),
    )


def serve(line: OrderLine, *, on: date, units: int | None = None) -> None:
    """Hand out devices for (all units of) the line, at noon of a contract day."""
    make_devices(line.plan, line.quantity if units is None else units)
    allocate_devices(plan_id=line.plan_id, now=contract_midnight(on) + timedelta(hours=12))


def promised_line(fee: Fee, *, quantity: int = 1) -> OrderLine:
    line = make_line(fee, quantity=quantity, paid_at=PAID)
    promise(line)
    return line


def months_of(record: TrackRecord) -> dict[str, Score]:
    """The months in which anything fell due."""
    return {f"{month.first_day:%Y-%m}": month.score for month in record.months if month.score.judged}


def total(plan: Plan, *, now: datetime = NOW) -> Score:
    return track_record(plan.pk, now=now).total


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("served_on", "expected"),
    [
        (date(2026, 10, 28), Score(1, 1, -4)),
        (date(2026, 11, 10), Score(1, 1, 9)),
        (date(2026, 11, 11), Score(1, 0, 10)),
    ],
)
def test_date_is_held_by_the_day_on_which_the_line_is_complete(
    plan: Plan, fee: Fee, served_on: date, expected: Score
) -> None:
    serve(promised_line(fee), on=served_on)
    assert total(plan) == expected


def test_last_unit_counts(plan: Plan, fee: Fee) -> None:
    line = promised_line(fee, quantity=3)
    serve(line, on=date(2026, 11, 2), units=2)
    serve(line, on=date(2026, 11, 12), units=1)
    assert total(plan) == Score(1, 0, 11)


def test_a_day_is_a_day_in_hong_kong(plan: Plan, fee: Fee) -> None:
    line = promised_line(fee)
    make_devices(plan, 1)
    # Five minutes before the end of November 10 there, in UTC an afternoon.
    allocate_devices(plan_id=plan.pk, now=contract_midnight(date(2026, 11, 11)) - timedelta(minutes=5))
    line.refresh_from_db()
    assert line.state == LineState.ALLOCATED
    assert total(plan) == Score(1, 1, 9)


def test_who_still_waits_after_the_latest_date_was_let_down(plan: Plan, fee: Fee) -> None:
    line = promised_line(fee, quantity=2)
    serve(line, on=date(2026, 11, 2), units=1)
    # From November 1 to today, so far.
    assert total(plan) == Score(1, 0, 22)


def test_nothing_is_judged_before_its_latest_date_is_over(plan: Plan, fee: Fee) -> None:
    serve(promised_line(fee), on=date(2026, 11, 2))
    last_moment = contract_midnight(date(2026, 11, 11)) - timedelta(seconds=1)
    assert total(plan, now=last_moment) == Score(0, 0, None)
    assert total(plan, now=last_moment + timedelta(seconds=1)) == Score(1, 1, 1)


def test_first_date_counts_and_no_later_one(plan: Plan, fee: Fee) -> None:
    line = promised_line(fee)
    promise(line, number=2, likely=date(2026, 11, 15), latest=date(2026, 11, 20))
    serve(line, on=date(2026, 11, 16))
    assert total(plan) == Score(1, 0, 15)


def test_estimates_without_a_date_are_passed_over_for_the_first_with_one(plan: Plan, fee: Fee) -> None:
    line = make_line(fee, paid_at=PAID)
    promise(line, basis=Basis.UNKNOWN, likely=None, latest=None)
    promise(line, number=2, basis=Basis.RATE)
    serve(line, on=date(2026, 11, 2))
    at_once = make_line(fee, paid_at=PAID)
    promise(at_once, basis=Basis.FREE)
    assert total(plan) == Score(1, 1, 1)


def refund(
    line: OrderLine,
    *,
    on: date,
    units: int = 0,
    phones: Sequence[int] = (),
    ground: Ground = Ground.LAW,
    is_approved: bool = True,
) -> None:
    """Take back units that wait, or phones, at noon of a contract day."""
    if not line.order.ledger.exists():
        make_capture(line.order)
    noon = contract_midnight(on) + timedelta(hours=12)
    asked = request_refund(
        order_id=line.order_id,
        ground=ground,
        legal_basis="A law" if ground == Ground.LAW else "",
        explanation="Why",
        units={line.pk: units},
        phones=phones,
        requested_by_id=make_user(is_staff=True).pk,
        now=noon,
    )
    if is_approved:
        approve_refund(refund_id=asked.pk, approved_by_id=make_user(is_staff=True).pk, now=noon)


def test_who_left_for_another_reason_before_that_date_is_left_out(plan: Plan, fee: Fee) -> None:
    refund(promised_line(fee, quantity=2), on=LATEST, units=2)
    assert total(plan) == Score(0, 0, None)


def test_who_left_after_that_date_was_let_down_whatever_the_ground(plan: Plan, fee: Fee) -> None:
    refund(promised_line(fee, quantity=2), on=LATEST + timedelta(days=1), units=2)
    # As if he were served today.
    assert total(plan) == Score(1, 0, 22)


@pytest.mark.clause("3.3")
def test_who_is_refunded_because_we_could_not_supply_was_let_down_whenever_that_was(
    plan: Plan, fee: Fee
) -> None:
    refund(promised_line(fee), on=date(2026, 9, 2), units=1, ground=Ground.UNABLE_TO_SUPPLY)
    assert total(plan) == Score(1, 0, 22)


def test_unit_that_could_not_be_supplied_breaks_the_promise_to_the_rest(plan: Plan, fee: Fee) -> None:
    line = promised_line(fee, quantity=3)
    serve(line, on=date(2026, 10, 2), units=2)
    refund(line, on=date(2026, 10, 3), units=1, ground=Ground.UNABLE_TO_SUPPLY)
    line.refresh_from_db()
    assert (line.state, total(plan)) == (LineState.ALLOCATED, Score(1, 0, 22))


def test_units_that_stay_are_judged_without_those_that_left_before(plan: Plan, fee: Fee) -> None:
    in_time, late = promised_line(fee, quantity=2), promised_line(fee, quantity=2)
    for line in (in_time, late):
        refund(line, on=date(2026, 10, 1), units=1)
    serve(in_time, on=date(2026, 11, 1), units=1)
    serve(late, on=date(2026, 11, 12), units=1)
    assert total(plan) == Score(2, 1, 0)


def test_phone_that_came_in_time_and_is_refunded_later_was_in_time(plan: Plan, fee: Fee) -> None:
    line = promised_line(fee)
    serve(line, on=date(2026, 11, 2))
    phones = [line.allocations.get().pk]
    refund(line, on=date(2026, 11, 20), phones=phones, ground=Ground.UNABLE_TO_SUPPLY)
    line.refresh_from_db()
    assert (line.state, total(plan)) == (LineState.WITHDRAWN, Score(1, 1, 1))


def test_refund_that_is_only_asked_for_changes_nothing(plan: Plan, fee: Fee) -> None:
    line = promised_line(fee, quantity=2)
    refund(line, on=date(2026, 10, 1), units=1, ground=Ground.UNABLE_TO_SUPPLY, is_approved=False)
    serve(line, on=date(2026, 11, 2))
    assert total(plan) == Score(1, 1, 1)


def put_on_hold(line: OrderLine, *, on: date) -> None:
    OrderLine.objects.filter(pk=line.pk).update(state=LineState.HELD)
    record(QueueEventKind.HELD, [(line, line.quantity)], now=contract_midnight(on))


def test_payment_disputed_by_that_date_leaves_a_line_out(plan: Plan, fee: Fee) -> None:
    put_on_hold(promised_line(fee), on=LATEST)
    assert total(plan) == Score(0, 0, None)


def test_payment_disputed_after_that_date_does_not_undo_a_broken_promise(plan: Plan, fee: Fee) -> None:
    put_on_hold(promised_line(fee), on=LATEST + timedelta(days=1))
    assert total(plan) == Score(1, 0, 22)


def test_months_are_those_of_the_latest_date_and_add_up(plan: Plan, fee: Fee) -> None:
    for likely, latest in (
        (date(2025, 11, 1), date(2025, 11, 30)),  # thirteen months ago: forgotten
        (date(2025, 11, 1), date(2025, 12, 1)),
        (date(2026, 10, 1), date(2026, 10, 31)),
        (date(2026, 10, 11), date(2026, 10, 31)),
    ):
        promise(make_line(fee, paid_at=PAID), likely=likely, latest=latest)
    make_devices(plan, 4)
    allocate_devices(plan_id=plan.pk, now=contract_midnight(date(2026, 10, 21)))

    record = track_record(plan.pk, now=NOW)

    assert [month.first_day for month in record.months][::11] == [date(2025, 12, 1), date(2026, 11, 1)]
    assert months_of(record) == {"2025-12": Score(1, 0, 354), "2026-10": Score(2, 2, 10)}
    assert record.total == Score(3, 2, 20)


@pytest.mark.parametrize(("days", "middle"), [([1], 1), ([1, 2], 1), ([-3, 5, 9], 5), ([0, 0, 1, 9], 0)])
def test_median_is_a_figure_that_happened(plan: Plan, fee: Fee, days: list[int], middle: int) -> None:
    for late in days:
        promise(make_line(fee, paid_at=PAID), likely=date(2026, 11, 2) - timedelta(days=late))
    make_devices(plan, len(days))
    allocate_devices(plan_id=plan.pk, now=contract_midnight(date(2026, 11, 2)))
    assert total(plan) == Score(len(days), len(days), middle)


def test_share_is_of_those_judged() -> None:
    assert Score(4, 3, 0).share == 0.75
    assert Score(0, 0, None).share is None


def test_one_query_for_all_plans_however_many_lines(
    fee: Fee, plan: Plan, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    other = make_plan("V06")
    for _ in range(3):
        promised_line(fee)
        promised_line(make_fee(other))
    with django_assert_num_queries(1):
        records = track_records([plan.pk, other.pk], now=NOW)
    assert [records[each.pk].total.judged for each in (plan, other)] == [3, 3]


def test_record_is_kept_as_it_is(fee: Fee, plan: Plan) -> None:
    promised_line(fee)
    record = track_record(plan.pk, now=NOW)
    assert TrackRecord.from_json(json.loads(json.dumps(record.as_json()))) == record
