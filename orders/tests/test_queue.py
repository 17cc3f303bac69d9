"""Positions, counted in units."""

from datetime import date, timedelta

import pytest
from pytest_django import DjangoAssertNumQueries

from orders.models import Basis, Cause, Estimate, Forecast, LineState, OrderLine
from orders.queue import (
    Standing,
    free_devices_by_plan,
    standings,
    units_ahead,
    units_held_by_plan,
    units_waiting,
    units_waiting_by_plan,
)
from tests.builders import NOW, make_devices, make_fee, make_line, make_order, make_plan

pytestmark = pytest.mark.django_db


@pytest.mark.clause("1.1")
def test_units_ahead_are_those_paid_before() -> None:
    fee = make_fee(make_plan())
    last = make_line(fee, quantity=1, paid_at=NOW)
    first = make_line(fee, quantity=5, paid_at=NOW - timedelta(seconds=2))
    tie = make_line(fee, quantity=7, paid_at=NOW)

    assert [units_ahead(line) for line in (first, last, tie)] == [0, 5, 6]


def test_units_allocated_and_refunded_are_not_ahead_of_anybody() -> None:
    fee = make_fee(make_plan())
    first = make_line(fee, quantity=5, paid_at=NOW - timedelta(seconds=1))
    OrderLine.objects.filter(pk=first.pk).update(allocated=2, withdrawn=1)

    assert units_ahead(make_line(fee, paid_at=NOW)) == 2


def test_queues_of_plans_are_apart() -> None:
    plan, other = make_plan(), make_plan("V06")
    make_line(make_fee(other), quantity=9, paid_at=NOW - timedelta(seconds=1))

    line = make_line(make_fee(plan), quantity=4, paid_at=NOW)

    assert units_ahead(line) == 0
    assert units_waiting(plan_id=plan.pk) == 4
    assert units_waiting_by_plan([plan.pk, other.pk]) == {plan.pk: 4, other.pk: 9}


def test_standing_is_the_place_and_the_newest_estimate_of_each_line_that_waits(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_line(fee, quantity=5, paid_at=NOW - timedelta(seconds=1))
    promised, told_nothing = make_line(fee, quantity=2, paid_at=NOW), make_line(fee, paid_at=NOW)
    unpaid = make_order([(fee, 1)]).lines.get()
    forecast = Forecast.objects.create(plan=plan, made_at=NOW, inputs={})
    old, new = (
        Estimate.objects.create(
            line=promised,
            number=number,
            made_at=NOW,
            earliest=date(2026, 12, number),
            likely=date(2026, 12, number),
            latest=date(2026, 12, 20),
            next_update_by=date(2026, 12, 1),
            basis=Basis.SUPPLY,
            cause=Cause.PAYMENT,
            units_ahead=5,
            forecast=forecast,
        )
        for number in (1, 2)
    )

    with django_assert_num_queries(1):
        found = standings([told_nothing.pk, promised.pk, unpaid.pk, 0])
        assert found == {promised.pk: Standing(5, new), told_nothing.pk: Standing(7, None)}
        assert found[promised.pk].estimate != old
        estimate = found[promised.pk].estimate
        assert estimate is not None
        assert (estimate.likely, estimate.made_at, estimate.line_id) == (date(2026, 12, 2), NOW, promised.pk)


def test_unpaid_units_are_held_until_the_order_ends() -> None:
    plan = make_plan()
    order = make_order([(make_fee(plan), 3)])
    assert units_held_by_plan([plan.pk]) == {plan.pk: 3}
    assert units_waiting(plan_id=plan.pk) == 0
    assert order.lines.get().state == LineState.UNPAID

    type(order).objects.filter(pk=order.pk).update(state="expired")
    assert units_held_by_plan([plan.pk]) == {}


def test_free_devices_are_counted_by_plan() -> None:
    plan, other = make_plan(), make_plan("V06")
    make_devices(plan, 3)

    assert free_devices_by_plan([plan.pk, other.pk]) == {plan.pk: 3}
