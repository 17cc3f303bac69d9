"""The end of a service period is told before it comes, and when it is there: once each."""

from datetime import datetime, timedelta

import pytest

from notices.models import Notice
from orders.allocation import allocate_devices
from orders.models import Allocation, OrderLine
from orders.terms import tell_of_ends
from tests.builders import NOW, make_devices, make_fee, make_line, make_plan

pytestmark = [pytest.mark.django_db, pytest.mark.clause("5.1")]


def told() -> list[tuple[str, str, int]]:
    found = Notice.objects.filter(kind__in=("expiring", "expired")).order_by("id")
    return [(notice.kind, notice.about, notice.facts["phones"]) for notice in found]


@pytest.fixture
def line() -> OrderLine:
    """Three units of which two have phones."""
    plan = make_plan()
    line = make_line(make_fee(plan, days=30), quantity=3, paid_at=NOW - timedelta(hours=1))
    make_devices(plan, 2)
    assert allocate_devices(plan_id=plan.pk, now=NOW) == 2
    return line


@pytest.fixture
def end(line: OrderLine) -> datetime:
    return Allocation.objects.filter(line=line).first().ends_at  # type: ignore[union-attr]


def test_an_end_is_told_a_week_ahead_once_for_all_phones_of_a_line(line: OrderLine, end: datetime) -> None:
    week = timedelta(days=7)
    assert tell_of_ends(now=end - week - timedelta(seconds=1)) == 0
    assert tell_of_ends(now=end - week) == 1
    assert tell_of_ends(now=end - timedelta(days=1)) == 0
    assert told() == [("expiring", line.order.reference, 2)]
    assert Notice.objects.get(kind="expiring").facts["ends_at"] == end.isoformat()


def test_an_end_that_has_come_is_told_once(line: OrderLine, end: datetime) -> None:
    assert tell_of_ends(now=end) == 1
    assert tell_of_ends(now=end + timedelta(hours=1)) == 0
    assert told() == [("expired", line.order.reference, 2)]


def test_an_end_long_past_is_not_told_any_more(end: datetime) -> None:
    assert tell_of_ends(now=end + timedelta(days=3)) == 0


def test_phones_that_came_at_another_time_are_told_of_apart(line: OrderLine, end: datetime) -> None:
    make_devices(line.plan, 1)
    allocate_devices(plan_id=line.plan_id, now=NOW + timedelta(days=2))
    assert tell_of_ends(now=end - timedelta(days=1)) == 2
    assert [phones for _, _, phones in told()] == [2, 1]


def test_a_phone_that_was_ended_before_is_not_told_of(line: OrderLine, end: datetime) -> None:
    Allocation.objects.filter(line=line).update(ended_at=NOW + timedelta(days=1))
    assert tell_of_ends(now=end) == 0
