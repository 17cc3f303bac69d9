"""The sweep on either database. What only concurrency can show is in tests/test_concurrency.py."""

from datetime import timedelta

import pytest
from django.conf import settings
from pytest_django import DjangoAssertNumQueries

from inventory.models import Device, DeviceState
from notices.models import Notice
from orders import allocation
from orders.allocation import Turn, allocate_devices, plan_of_sweep, plans_to_sweep
from orders.models import Allocation, LineState, OrderLine
from tests.builders import NOW, make_devices, make_fee, make_line, make_order, make_plan

EARLIER = NOW - timedelta(hours=1)

pytestmark = pytest.mark.django_db


def units_of(line: OrderLine) -> list[tuple[int, int]]:
    return list(line.allocations.order_by("unit").values_list("unit", "device_id"))


@pytest.mark.clause("1.1", "3.3")
def test_devices_go_to_lines_in_the_order_of_payment_unit_by_unit() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    devices = make_devices(plan, 4)
    later = make_line(fee, quantity=2, paid_at=EARLIER + timedelta(seconds=1))
    first = make_line(fee, quantity=3, paid_at=EARLIER)

    assert allocate_devices(plan_id=plan.pk, now=NOW) == 4

    assert units_of(first) == [(1, devices[0].pk), (2, devices[1].pk), (3, devices[2].pk)]
    assert units_of(later) == [(1, devices[3].pk)]
    first.refresh_from_db()
    later.refresh_from_db()
    assert (first.state, first.allocated) == (LineState.ALLOCATED, 3)
    assert (later.state, later.allocated) == (LineState.WAITING, 1)
    assert Device.objects.filter(state=DeviceState.ALLOCATED).count() == 4


def test_same_capture_time_is_decided_by_the_line_placed_first() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_devices(plan, 1)
    first, second = make_line(fee, paid_at=EARLIER), make_line(fee, paid_at=EARLIER)

    allocate_devices(plan_id=plan.pk, now=NOW)

    assert (first.allocations.count(), second.allocations.count()) == (1, 0)


def test_rest_of_a_line_comes_first_when_the_next_devices_arrive() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_devices(plan, 3)
    large = make_line(fee, quantity=10, paid_at=EARLIER)
    small = make_line(fee, paid_at=EARLIER + timedelta(seconds=1))
    assert allocate_devices(plan_id=plan.pk, now=NOW) == 3

    make_devices(plan, 8)
    assert allocate_devices(plan_id=plan.pk, now=NOW) == 8

    assert [unit for unit, _ in units_of(large)] == list(range(1, 11))
    assert small.allocations.count() == 1


def test_line_within_the_hold_back_waits_and_devices_stay_free() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_devices(plan, 2)
    old = make_line(fee, paid_at=NOW - settings.ALLOCATION_HOLD_BACK)
    fresh = make_line(fee, paid_at=NOW - settings.ALLOCATION_HOLD_BACK + timedelta(seconds=1))

    assert allocate_devices(plan_id=plan.pk, now=NOW) == 1
    assert (old.allocations.count(), fresh.allocations.count()) == (1, 0)

    assert allocate_devices(plan_id=plan.pk, now=NOW + timedelta(seconds=1)) == 1
    assert fresh.allocations.count() == 1


@pytest.mark.clause("5.1")
def test_service_period_starts_now_and_lasts_the_term_and_its_bonus() -> None:
    plan = make_plan()
    make_devices(plan, 1)
    line = make_line(make_fee(plan, days=90), paid_at=EARLIER)

    allocate_devices(plan_id=plan.pk, now=NOW)

    given = line.allocations.get()
    assert (given.starts_at, given.ends_at) == (NOW, NOW + timedelta(days=91))


@pytest.mark.clause("3.3")
def test_each_line_served_is_told() -> None:
    plan = make_plan()
    make_devices(plan, 2)
    line = make_line(make_fee(plan), quantity=3, paid_at=EARLIER)

    allocate_devices(plan_id=plan.pk, now=NOW)

    notice = Notice.objects.get()
    assert (notice.kind, notice.recipient_id) == ("allocated", line.order.customer_id)
    assert (notice.facts["units"], notice.facts["remaining"]) == (2, 1)


def test_unpaid_lines_and_other_plans_get_nothing() -> None:
    plan, other = make_plan(), make_plan("V06")
    make_devices(plan, 3)
    make_order([(make_fee(plan), 1)])
    elsewhere = make_line(make_fee(other), paid_at=EARLIER)

    assert allocate_devices(plan_id=plan.pk, now=NOW) == 0
    assert elsewhere.allocations.count() == 0
    assert Device.objects.filter(state=DeviceState.FREE).count() == 3


def test_sweep_run_twice_gives_nothing_twice() -> None:
    plan = make_plan()
    make_devices(plan, 5)
    line = make_line(make_fee(plan), quantity=2, paid_at=EARLIER)

    assert [allocate_devices(plan_id=plan.pk, now=NOW) for _ in range(2)] == [2, 0]
    assert line.allocations.count() == 2


def test_quarantined_devices_are_not_handed_out() -> None:
    plan = make_plan()
    bad, good = make_devices(plan, 2)
    Device.objects.filter(pk=bad.pk).update(state=DeviceState.QUARANTINED)
    line = make_line(make_fee(plan), quantity=2, paid_at=EARLIER)

    allocate_devices(plan_id=plan.pk, now=NOW)

    assert units_of(line) == [(1, good.pk)]


def test_chunks_go_on_where_the_last_one_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "CHUNK", 3)
    plan = make_plan()
    fee = make_fee(plan)
    devices = make_devices(plan, 10)
    lines = [make_line(fee, quantity=2, paid_at=EARLIER + timedelta(seconds=n)) for n in range(6)]

    assert allocate_devices(plan_id=plan.pk, now=NOW) == 10

    given = list(
        Allocation.objects.order_by("line__paid_at", "unit").values_list("line_id", "unit", "device_id")
    )
    units = [(line.pk, unit) for line in lines[:5] for unit in (1, 2)]
    assert given == [(*unit, device.pk) for unit, device in zip(units, devices, strict=True)]


def test_chunk_takes_a_fixed_number_of_statements(
    django_assert_max_num_queries: DjangoAssertNumQueries,
) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_devices(plan, 40)
    for n in range(40):
        make_line(fee, paid_at=EARLIER + timedelta(seconds=n))

    # Two chunks (the second finds no device): at most begin, jit, 3 reads, 4 writes, commit and what it costs to look.
    with django_assert_max_num_queries(20):
        assert allocate_devices(plan_id=plan.pk, now=NOW) == 40


def test_only_plans_with_devices_and_a_queue_are_swept() -> None:
    both, only_devices, only_queue = make_plan("A"), make_plan("B"), make_plan("C")
    make_devices(both, 1)
    make_devices(only_devices, 1)
    for plan in (both, only_queue):
        make_line(make_fee(plan), paid_at=EARLIER)

    assert plans_to_sweep() == [both.pk]


def test_dry_run_says_what_the_sweep_then_does_and_changes_nothing() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    codes = [device.code for device in make_devices(plan, 5)]
    large = make_line(fee, quantity=3, paid_at=EARLIER)
    later = make_line(fee, quantity=9, paid_at=EARLIER + timedelta(seconds=1))
    make_line(fee, paid_at=NOW)  # within the hold-back

    planned = plan_of_sweep(plan_id=plan.pk, now=NOW, units=200)

    assert planned == [
        Turn(large.pk, large.order.reference, large.order.customer_id, 3, tuple(codes[:3])),
        Turn(later.pk, later.order.reference, later.order.customer_id, 9, tuple(codes[3:])),
    ]
    assert Device.objects.filter(state=DeviceState.FREE).count() == 5
    assert not Allocation.objects.exists()
    allocate_devices(plan_id=plan.pk, now=NOW)
    for turn in planned:
        given = Allocation.objects.filter(line_id=turn.line_id).order_by("unit")
        assert tuple(given.values_list("device__code", flat=True)) == turn.codes


def test_dry_run_ends_after_the_units_asked_for() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_devices(plan, 5)
    make_line(fee, quantity=2, paid_at=EARLIER)
    make_line(fee, quantity=2, paid_at=EARLIER)
    planned = plan_of_sweep(plan_id=plan.pk, now=NOW, units=3)
    assert [(turn.waiting, len(turn.codes)) for turn in planned] == [(2, 2), (2, 1)]


def test_dry_run_asks_two_queries_however_long_the_queue(
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_devices(plan, 4)
    for _ in range(6):
        make_line(fee, paid_at=EARLIER)
    with django_assert_num_queries(2):
        assert len(plan_of_sweep(plan_id=plan.pk, now=NOW, units=200)) == 4
