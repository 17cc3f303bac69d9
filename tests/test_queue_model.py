"""Anything may happen to a queue, in any order: the shop and a naive model of it always agree.

The model serves unit by unit, by a loop that anybody can check at a glance. The shop does the same set by set, with locks,
segments and a ledger, and is killed half way now and then.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from hypothesis import HealthCheck
from hypothesis import settings as how_often
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)

from inventory.models import Device, DeviceState
from notices import outbox
from orders import allocation
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import Allocation, Ground, OrderLine
from orders.queue import segments, units_ahead, units_waiting
from orders.queue.fairness import faults_of, seal_events
from orders.queue.segments import roll_up
from orders.refunds import approve_refund, request_refund
from tests.builders import NOW, make_attempt, make_devices, make_fee, make_order, make_plan, make_user


@dataclass
class Line:
    """A line of the naive model."""

    paid_at: datetime
    pk: int
    waiting: int
    devices: list[int] = field(default_factory=list)


class Killed(Exception):
    """The worker was killed here."""


class QueueMachine(RuleBasedStateMachine):
    @initialize()
    def begin(self) -> None:
        self.now = NOW
        self.plan = make_plan()
        self.fee = make_fee(self.plan)
        self.clerk, self.approver = make_user(is_staff=True), make_user(is_staff=True)
        self.lines: list[Line] = []
        self.free: list[int] = []

    def queue(self) -> list[Line]:
        return sorted((line for line in self.lines if line.waiting), key=lambda line: (line.paid_at, line.pk))

    def serve(self, at_most: int | None = None) -> None:
        """One device after the other goes to whoever paid first of those who paid a hold-back ago."""
        served = 0
        while self.free and (at_most is None or served < at_most):
            due = [line for line in self.queue() if line.paid_at <= self.now - settings.ALLOCATION_HOLD_BACK]
            if not due:
                return
            due[0].devices.append(self.free.pop(0))
            due[0].waiting -= 1
            served += 1

    @rule(minutes=st.integers(1, 30))
    def wait(self, minutes: int) -> None:
        self.now += timedelta(minutes=minutes)

    @rule(units=st.integers(1, 5), late=st.sampled_from([0, 0, 0, 1, 20, 90]))
    def pay(self, units: int, late: int) -> None:
        paid_at = self.now - timedelta(minutes=late)
        order = make_order([(self.fee, units)], placed_at=paid_at - timedelta(minutes=5))
        capture = MoneyMoved(f"cap-{order.pk}", order.total, paid_at)
        apply_snapshot(
            attempt_id=make_attempt(order).pk,
            snapshot=Snapshot(provider_id="pay_1", state="captured", captures=(capture,)),
            now=self.now,
        )
        self.lines.append(Line(paid_at, order.lines.get().pk, units))

    @rule(count=st.integers(1, 6))
    def receive(self, count: int) -> None:
        self.free += [device.pk for device in make_devices(self.plan, count)]

    @precondition(lambda self: any(line.waiting for line in self.lines))
    @rule(data=st.data())
    def refund(self, data: Any) -> None:
        line = data.draw(st.sampled_from(self.queue()))
        units = data.draw(st.integers(1, line.waiting))
        asked = request_refund(
            order_id=OrderLine.objects.get(pk=line.pk).order_id,
            ground=Ground.UNABLE_TO_SUPPLY,
            explanation="Test",
            units={line.pk: units},
            requested_by_id=self.clerk.pk,
            now=self.now,
        )
        approve_refund(refund_id=asked.pk, approved_by_id=self.approver.pk, now=self.now)
        line.waiting -= units

    @rule()
    def sweep(self) -> None:
        allocate_devices(plan_id=self.plan.pk, now=self.now)
        self.serve()

    @rule(chunks=st.integers(0, 2))
    def sweep_and_be_killed(self, chunks: int) -> None:
        """Killed in the chunk after so many whole ones: those stay, and nothing of it."""
        due = sum(
            line.waiting for line in self.queue() if line.paid_at <= self.now - settings.ALLOCATION_HOLD_BACK
        )
        with killed_after(chunks):
            try:
                allocate_devices(plan_id=self.plan.pk, now=self.now)
            except Killed:
                assert min(due, len(self.free)) > chunks * allocation.CHUNK
        self.serve(at_most=chunks * allocation.CHUNK)

    @rule()
    def tidy(self) -> None:
        roll_up(plan_id=self.plan.pk)

    @rule()
    def seal(self) -> None:
        seal_events(plan_id=self.plan.pk)

    @invariant()
    def positions_agree(self) -> None:
        if not hasattr(self, "plan"):
            return
        ahead = 0
        rows = OrderLine.objects.in_bulk([line.pk for line in self.lines])
        for line in self.queue():
            assert units_ahead(rows[line.pk]) == ahead
            ahead += line.waiting
        assert units_waiting(plan_id=self.plan.pk) == ahead

    @invariant()
    def devices_agree(self) -> None:
        if not hasattr(self, "plan"):
            return
        given: dict[int, list[int]] = {}
        for line_id, device_id in (
            Allocation.objects.filter(line__plan=self.plan).order_by("pk").values_list("line_id", "device_id")
        ):
            given.setdefault(line_id, []).append(device_id)
        assert given == {line.pk: line.devices for line in self.lines if line.devices}
        free = Device.objects.filter(plan=self.plan, state=DeviceState.FREE)
        assert list(free.order_by("pk").values_list("pk", flat=True)) == self.free

    def teardown(self) -> None:
        if hasattr(self, "plan"):
            seal_events(plan_id=self.plan.pk)
            assert list(faults_of(self.plan, now=self.now)) == []
            assert list(segments.wrong_counts()) == []


@contextmanager
def killed_after(chunks: int) -> Iterator[None]:
    """The sweep dies when it has written all of its next chunk but the notices, and not committed."""
    told = outbox.tell
    count = 0

    def tell_or_die(*args: Any, **kwargs: Any) -> None:
        nonlocal count
        count += 1
        if count > chunks:
            raise Killed
        told(*args, **kwargs)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(allocation, "tell", tell_or_die)
        yield


@pytest.mark.clause("1.1", "3.3")
@pytest.mark.django_db(transaction=True)
def test_the_shop_and_the_naive_model_agree(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(allocation, "CHUNK", 3)
    monkeypatch.setattr(allocation, "SQLITE_PAUSE_SECONDS", 0)
    monkeypatch.setattr(segments, "SIZE", 3)
    monkeypatch.setattr(segments, "AT_MOST", 12)
    run_state_machine_as_test(
        QueueMachine,
        settings=how_often(
            max_examples=12, stateful_step_count=30, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
