"""Positions, counted in units."""

from datetime import timedelta

import pytest

from orders.models import LineState, OrderLine
from orders.queue import (
    free_devices_by_plan,
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
