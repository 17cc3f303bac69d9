"""A device that fails: replaced at once or at the old place, and seen again only through quarantine."""

from datetime import datetime, timedelta

import pytest
from django.test import Client
from django.urls import reverse

from inventory.models import Device, DeviceState, Fee, Plan, Quarantine
from inventory.money import Money
from inventory.quarantine import end_quarantine
from notices.models import Notice
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import Allocation, LineState, OrderLine
from orders.queue import units_ahead
from orders.queue.fairness import faults_of, seal_events
from orders.replacement import CannotReplace, replace_device
from tests.builders import NOW, make_capture, make_devices, make_fee, make_line, make_plan, make_user
from tests.racing import failures, race

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(hours=2)
LATER = NOW + timedelta(days=2)


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture
def fee(plan: Plan) -> Fee:
    return make_fee(plan, days=30)


def live(line: OrderLine) -> list[tuple[int, int]]:
    """(unit, device) of what the customer uses."""
    return list(line.allocations.filter(ended_at=None).order_by("unit").values_list("unit", "device_id"))


def served(fee: Fee, *, quantity: int, devices: int) -> tuple[OrderLine, list[Device]]:
    """A line with devices for its first units."""
    line = make_line(fee, quantity=quantity, paid_at=EARLIER)
    made = make_devices(line.plan, devices)
    allocate_devices(plan_id=line.plan_id, now=NOW)
    return line, made


def states(*devices: Device) -> list[str]:
    return [Device.objects.get(pk=device.pk).state for device in devices]


@pytest.mark.clause("5.1")
def test_next_free_device_replaces_one_that_failed_and_the_period_begins_anew(plan: Plan, fee: Fee) -> None:
    line, (one, two) = served(fee, quantity=2, devices=2)
    (spare,) = make_devices(plan, 1)
    failed = line.allocations.get(unit=1)

    given = replace_device(allocation_id=failed.pk, now=LATER)

    assert given
    assert (given.unit, given.device, given.starts_at, given.ends_at) == (
        1,
        spare,
        LATER,
        LATER + timedelta(days=31),
    )
    assert live(line) == [(1, spare.pk), (2, two.pk)]
    assert states(one, two, spare) == [DeviceState.QUARANTINED, DeviceState.ALLOCATED, DeviceState.ALLOCATED]
    failed.refresh_from_db()
    assert failed.ended_at == LATER
    notice = Notice.objects.get(kind="device-replaced")
    assert (notice.about, notice.facts["starts_at"]) == (line.order.reference, LATER.isoformat())


@pytest.mark.clause("1.1")
def test_without_a_free_device_the_unit_waits_at_its_old_place(plan: Plan, fee: Fee) -> None:
    line, (one, _two) = served(fee, quantity=2, devices=2)
    behind = make_line(fee, paid_at=EARLIER + timedelta(minutes=1))

    assert replace_device(allocation_id=line.allocations.get(unit=1).pk, now=LATER) is None

    line.refresh_from_db()
    assert (line.state, line.allocated, line.waiting_units) == (LineState.WAITING, 1, 1)
    assert (units_ahead(line), units_ahead(behind)) == (0, 1)
    assert Notice.objects.get(kind="device-replaced").facts["starts_at"] is None

    (spare,) = make_devices(plan, 1)
    allocate_devices(plan_id=plan.pk, now=LATER)
    assert [device for _unit, device in live(line)][-1] == spare.pk
    assert live(behind) == []
    assert states(one) == [DeviceState.QUARANTINED]
    seal_events(plan_id=plan.pk)
    assert list(faults_of(plan, now=LATER)) == []


def test_units_still_to_come_keep_numbers_of_their_own(plan: Plan, fee: Fee) -> None:
    line, _devices = served(fee, quantity=4, devices=2)
    replace_device(allocation_id=line.allocations.get(unit=1).pk, now=LATER)
    make_devices(plan, 3)
    allocate_devices(plan_id=plan.pk, now=LATER)

    line.refresh_from_db()
    assert (line.state, line.allocated, len(live(line))) == (LineState.ALLOCATED, 4, 4)


def test_unit_on_hold_stays_on_hold(fee: Fee) -> None:
    line, _devices = served(fee, quantity=2, devices=1)
    OrderLine.objects.filter(pk=line.pk).update(state=LineState.HELD)

    replace_device(allocation_id=line.allocations.get().pk, now=LATER)

    line.refresh_from_db()
    assert (line.state, line.waiting_units) == (LineState.HELD, 2)


@pytest.fixture
def disputed(plan: Plan, fee: Fee) -> OrderLine:
    """A line that had its phone when its payment was charged back."""
    line, _devices = served(fee, quantity=1, devices=1)
    report(line, chargebacks=(TAKEN,))
    line.refresh_from_db()
    assert line.state == LineState.ALLOCATED
    return line


TAKEN = MoneyMoved("dp-1", Money(499, "USD"), NOW)


def report(
    line: OrderLine,
    *,
    chargebacks: tuple[MoneyMoved, ...],
    reversals: tuple[MoneyMoved, ...] = (),
    now: datetime = NOW,
) -> None:
    attempt = line.order.attempts.first() or make_capture(line.order).attempt
    snapshot = Snapshot(attempt.provider_id, "captured", chargebacks=chargebacks, reversals=reversals)
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=now)


@pytest.mark.django_db(transaction=True)
@pytest.mark.payment_case(44)
@pytest.mark.parametrize("spares", [0, 1])
def test_unit_whose_payment_is_disputed_is_on_hold_when_its_phone_fails_whatever_is_free(
    plan: Plan, disputed: OrderLine, spares: int
) -> None:
    if spares:
        make_devices(plan, spares)

    assert replace_device(allocation_id=disputed.allocations.get().pk, now=LATER) is None

    disputed.refresh_from_db()
    assert (disputed.state, disputed.waiting_units) == (LineState.HELD, 1)
    assert Notice.objects.get(kind="device-replaced").facts["is_held"] is True
    assert allocate_devices(plan_id=plan.pk, now=LATER) == 0
    seal_events(plan_id=plan.pk)
    assert list(faults_of(plan, now=LATER)) == []


@pytest.mark.django_db(transaction=True)
@pytest.mark.payment_case(44)
def test_unit_on_hold_for_its_failed_phone_is_served_at_its_place_when_the_dispute_is_won(
    plan: Plan, fee: Fee, disputed: OrderLine
) -> None:
    behind = make_line(fee, paid_at=EARLIER + timedelta(minutes=1))
    replace_device(allocation_id=disputed.allocations.get().pk, now=LATER)

    report(disputed, chargebacks=(TAKEN,), reversals=(TAKEN,), now=LATER)
    make_devices(plan, 1)

    assert allocate_devices(plan_id=plan.pk, now=LATER) == 1
    assert (len(live(disputed)), live(behind)) == (1, [])
    seal_events(plan_id=plan.pk)
    assert list(faults_of(plan, now=LATER)) == []


def test_second_click_changes_nothing(plan: Plan, fee: Fee) -> None:
    line, _devices = served(fee, quantity=1, devices=1)
    make_devices(plan, 2)
    failed = line.allocations.get()
    replace_device(allocation_id=failed.pk, now=LATER)

    with pytest.raises(CannotReplace):
        replace_device(allocation_id=failed.pk, now=LATER)
    assert Allocation.objects.count() == 2
    assert Device.objects.filter(state=DeviceState.FREE).count() == 1


def test_device_in_quarantine_is_given_to_nobody_until_it_is_released(plan: Plan, fee: Fee) -> None:
    line, (one,) = served(fee, quantity=1, devices=1)
    replace_device(allocation_id=line.allocations.get().pk, now=LATER)
    assert allocate_devices(plan_id=plan.pk, now=LATER) == 0
    kept = Quarantine.objects.get()
    assert (kept.device, kept.reason) == (one, f"Failed in use by order {line.order}")

    end_quarantine(
        quarantine_id=kept.pk,
        becomes=DeviceState.FREE,
        note="Works again.",
        ended_by_id=make_user(is_staff=True).pk,
        now=LATER,
    )

    assert allocate_devices(plan_id=plan.pk, now=LATER) == 1
    assert [device for _unit, device in live(line)] == [one.pk]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_last_free_device_goes_to_the_sweep_or_to_the_replacement_and_never_to_both() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    line, _devices = served(fee, quantity=1, devices=1)
    make_line(fee, quantity=1, paid_at=EARLIER + timedelta(minutes=1))
    make_devices(plan, 1)
    failed = line.allocations.get()

    outcomes = race(
        lambda: replace_device(allocation_id=failed.pk, now=LATER),
        *[lambda: allocate_devices(plan_id=plan.pk, now=LATER)] * 3,
    )

    assert failures(outcomes) == []
    assert Allocation.objects.filter(ended_at=None).count() == 1
    assert OrderLine.objects.waiting(plan_id=plan.pk).units() == 1
    seal_events(plan_id=plan.pk)
    assert list(faults_of(plan, now=LATER)) == []


def test_staff_replace_and_release_from_the_admin(client: Client, plan: Plan, fee: Fee) -> None:
    client.force_login(make_user("staff@example.com", is_staff=True))
    line, (one,) = served(fee, quantity=1, devices=1)
    make_devices(plan, 1)
    allocation = line.allocations.get()

    asked = client.get(reverse("admin:orders_allocation_replace", args=[allocation.pk]))
    assert f"Replace device {one}?" in asked.content.decode()
    client.post(reverse("admin:orders_allocation_replace", args=[allocation.pk]))
    assert states(one) == [DeviceState.QUARANTINED]
