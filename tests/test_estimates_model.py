"""Whatever happens to a queue: a round of estimates that reads only what may have changed leaves nothing for one that reads all."""

from datetime import date, timedelta
from typing import Any

import pytest
from django.db import transaction
from hypothesis import HealthCheck
from hypothesis import settings as how_often
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    precondition,
    rule,
    run_state_machine_as_test,
)
from pytest_django import Settings

from evidence.contract_time import contract_date
from inventory.models import BatchState, Device, DeviceState, SupplyBatch
from inventory.supply import cancel_batch, change_batch
from orders import estimates
from orders.allocation import allocate_devices
from orders.estimates import record_first_estimate, refresh_all_estimates, refresh_estimates
from orders.models import Allocation, Ground, LineState, OrderLine, QueueEventKind
from orders.queue import fairness, segments, units_ahead
from orders.queue.segments import roll_up
from orders.refunds import approve_refund, request_refund
from orders.replacement import replace_device
from tests.builders import (
    NOW,
    make_batch,
    make_capture,
    make_devices,
    make_fee,
    make_line,
    make_plan,
    make_user,
)


class EstimatesMachine(RuleBasedStateMachine):
    """Rounds and whatever else may happen, in any order: whenever all is read, nothing is left to tell."""

    @initialize(monthly=st.sampled_from([0, 3]))
    def begin(self, monthly: int) -> None:
        self.now = NOW
        self.plan = make_plan()
        self.fee = make_fee(self.plan)
        self.clerk, self.approver = make_user(is_staff=True), make_user(is_staff=True)
        for months_ago in range(1, 4 if monthly else 1):
            # A past that says how fast it goes beyond the supply.
            line = make_line(self.fee, quantity=monthly, paid_at=NOW - timedelta(days=150))
            OrderLine.objects.filter(pk=line.pk).update(state=LineState.ALLOCATED, allocated=monthly)
            at = NOW - timedelta(days=30 * months_ago - 15)
            fairness.record(QueueEventKind.ALLOCATED, [(line, monthly)], now=at, seen=0)

    def lines(self, *states: LineState) -> list[OrderLine]:
        return list(OrderLine.objects.filter(plan=self.plan, state__in=states).order_by("pk"))

    def batches(self) -> list[SupplyBatch]:
        return list(SupplyBatch.objects.filter(plan=self.plan, state=BatchState.EXPECTED).order_by("pk"))

    def some_day(self, days: int) -> date:
        return contract_date(self.now) + timedelta(days=days)

    @rule(minutes=st.sampled_from([1, 5, 30, 24 * 60, 8 * 24 * 60]))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(units=st.integers(1, 4), late=st.sampled_from([0, 0, 0, 1, 20, 90]), is_estimated=st.booleans())
    def pay(self, units: int, late: int, is_estimated: bool) -> None:
        paid_at = self.now - timedelta(minutes=late)
        line = make_line(self.fee, quantity=units, paid_at=paid_at, known_at=self.now)
        if is_estimated:
            with transaction.atomic():
                record_first_estimate(line, ahead=units_ahead(line), now=self.now)

    @rule(units=st.integers(1, 6), days=st.integers(0, 40))
    def announce(self, units: int, days: int) -> None:
        make_batch(self.plan, quantity=units, on=self.some_day(days))

    @precondition(lambda self: self.batches())
    @rule(data=st.data(), days=st.integers(0, 40), units=st.integers(1, 6))
    def change(self, data: Any, days: int, units: int) -> None:
        batch = data.draw(st.sampled_from(self.batches()))
        change_batch(batch_id=batch.pk, expected_on=self.some_day(days), quantity=units, now=self.now)

    @precondition(lambda self: self.batches())
    @rule(data=st.data())
    def cancel(self, data: Any) -> None:
        cancel_batch(batch_id=data.draw(st.sampled_from(self.batches())).pk)

    @precondition(lambda self: self.batches())
    @rule(data=st.data())
    def receive_batch(self, data: Any) -> None:
        batch = data.draw(st.sampled_from(self.batches()))
        make_devices(self.plan, batch.quantity)
        SupplyBatch.objects.filter(pk=batch.pk).update(
            state=BatchState.RECEIVED, received_units=batch.quantity, received_at=self.now
        )

    @rule(count=st.integers(1, 4), is_swept=st.booleans())
    def find_devices(self, count: int, is_swept: bool) -> None:
        make_devices(self.plan, count)
        if is_swept:
            self.sweep()

    @rule()
    def lose_a_device(self) -> None:
        free = Device.objects.filter(plan=self.plan, state=DeviceState.FREE).order_by("pk")
        Device.objects.filter(pk__in=list(free.values_list("pk", flat=True)[:1])).update(
            state=DeviceState.RETIRED
        )

    @rule()
    def sweep(self) -> None:
        allocate_devices(plan_id=self.plan.pk, now=self.now)

    @precondition(lambda self: self.lines(LineState.WAITING))
    @rule(data=st.data())
    def refund(self, data: Any) -> None:
        line = data.draw(st.sampled_from(self.lines(LineState.WAITING)))
        if not line.order.ledger.exists():
            make_capture(line.order)
        asked = request_refund(
            order_id=line.order_id,
            ground=Ground.UNABLE_TO_SUPPLY,
            explanation="Test",
            units={line.pk: data.draw(st.integers(1, line.waiting_units))},
            requested_by_id=self.clerk.pk,
            now=self.now,
        )
        approve_refund(refund_id=asked.pk, approved_by_id=self.approver.pk, now=self.now)

    @precondition(lambda self: self.lines(LineState.WAITING, LineState.HELD))
    @rule(data=st.data())
    def dispute_or_settle(self, data: Any) -> None:
        line = data.draw(st.sampled_from(self.lines(LineState.WAITING, LineState.HELD)))
        is_held = line.state == LineState.HELD
        OrderLine.objects.filter(pk=line.pk).update(state=LineState.WAITING if is_held else LineState.HELD)
        fairness.record(
            QueueEventKind.RELEASED if is_held else QueueEventKind.HELD,
            [(line, line.waiting_units)],
            now=self.now,
        )

    @precondition(lambda self: Allocation.objects.filter(line__plan=self.plan, ended_at=None).exists())
    @rule()
    def fail(self) -> None:
        given = Allocation.objects.filter(line__plan=self.plan, ended_at=None).order_by("pk")
        replace_device(allocation_id=given[0].pk, now=self.now)

    @rule()
    def tidy(self) -> None:
        roll_up(plan_id=self.plan.pk)

    @rule()
    def go_round(self) -> None:
        refresh_estimates(plan_id=self.plan.pk, now=self.now)

    @rule()
    def read_all(self) -> None:
        refresh_estimates(plan_id=self.plan.pk, now=self.now)
        assert refresh_all_estimates(plan_id=self.plan.pk, now=self.now) == 0

    def teardown(self) -> None:
        if hasattr(self, "plan"):
            self.read_all()


@pytest.mark.clause("3.3")
@pytest.mark.django_db(transaction=True)
def test_round_of_what_may_have_changed_leaves_nothing_to_tell(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    settings.ESTIMATE_MATERIAL_DAYS = 1
    monkeypatch.setattr(estimates, "CHUNK", 3)
    monkeypatch.setattr("orders.allocation.SQLITE_PAUSE_SECONDS", 0)
    monkeypatch.setattr(segments, "SIZE", 3)
    monkeypatch.setattr(segments, "AT_MOST", 12)
    run_state_machine_as_test(
        EstimatesMachine,
        settings=how_often(
            max_examples=25, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
