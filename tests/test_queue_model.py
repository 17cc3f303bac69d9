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

from inventory.models import Device, DeviceState, Quarantine
from inventory.quarantine import end_quarantine
from notices import outbox
from orders import allocation
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import Allocation, Ground, OrderLine, PaymentAttempt
from orders.queue import segments, standings, units_waiting
from orders.queue.fairness import faults_of, ledger_lines, seal_events
from orders.queue.segments import roll_up
from orders.queue.verify_queue_ledger import check
from orders.refunds import approve_refund, request_refund
from orders.replacement import replace_device
from tests.builders import NOW, make_attempt, make_devices, make_fee, make_order, make_plan, make_user


@dataclass
class Line:
    """A line of the naive model. `devices` are all that it was ever given, `in_use` those that it has."""

    paid_at: datetime
    pk: int
    attempt: PaymentAttempt
    capture: MoneyMoved
    waiting: int
    is_held: bool = False
    disputes: int = 0
    devices: list[int] = field(default_factory=list)
    in_use: list[int] = field(default_factory=list)

    def give(self, device: int) -> None:
        self.devices.append(device)
        self.in_use.append(device)


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
        self.quarantined: list[int] = []

    def queue(self) -> list[Line]:
        waiting = (line for line in self.lines if line.waiting and not line.is_held)
        return sorted(waiting, key=lambda line: (line.paid_at, line.pk))

    def serve(self, at_most: int | None = None) -> None:
        """One device after the other goes to whoever paid first of those who paid a hold-back ago."""
        served = 0
        while self.free and (at_most is None or served < at_most):
            due = [line for line in self.queue() if line.paid_at <= self.now - settings.ALLOCATION_HOLD_BACK]
            if not due:
                return
            due[0].give(self.free.pop(0))
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
        line = Line(paid_at, order.lines.get().pk, make_attempt(order), capture, units)
        self.report(line)
        self.lines.append(line)

    def report(self, line: Line, *, disputed: int = 0, returned: int = 0) -> None:
        """The gateway tells of the payment, of so many disputes, and that so many were won."""

        def taken(kind: str, count: int) -> tuple[MoneyMoved, ...]:
            return tuple(
                MoneyMoved(f"{kind}-{number}-{line.pk}", line.capture.amount, self.now)
                for number in range(1, count + 1)
            )

        snapshot = Snapshot(
            provider_id="pay_1",
            state="captured",
            captures=(line.capture,),
            chargebacks=taken("cb", disputed),
            reversals=taken("rv", returned),
        )
        apply_snapshot(attempt_id=line.attempt.pk, snapshot=snapshot, now=self.now)

    @rule(count=st.integers(1, 6))
    def receive(self, count: int) -> None:
        self.free += [device.pk for device in make_devices(self.plan, count)]

    @precondition(lambda self: any(line.in_use for line in self.lines))
    @rule(data=st.data())
    def replace(self, data: Any) -> None:
        """A device fails: its line gets the next one, before everybody who waits, or waits again; or aside, if held."""
        line = data.draw(st.sampled_from([line for line in self.lines if line.in_use]))
        failed = data.draw(st.sampled_from(line.in_use))
        allocation = Allocation.objects.get(device_id=failed, ended_at=None)
        replace_device(allocation_id=allocation.pk, now=self.now)
        line.in_use.remove(failed)
        self.quarantined.append(failed)
        if self.free and not line.is_held:
            line.give(self.free.pop(0))
        else:
            line.waiting += 1

    @precondition(lambda self: self.quarantined)
    @rule(data=st.data(), becomes=st.sampled_from([DeviceState.FREE, DeviceState.RETIRED]))
    def look_at_device(self, data: Any, becomes: DeviceState) -> None:
        device = data.draw(st.sampled_from(self.quarantined))
        end_quarantine(
            quarantine_id=Quarantine.objects.get(device_id=device, ended_at=None).pk,
            becomes=becomes,
            note="Test",
            ended_by_id=self.clerk.pk,
            now=self.now,
        )
        self.quarantined.remove(device)
        if becomes == DeviceState.FREE:
            self.free = sorted([*self.free, device])

    @precondition(lambda self: self.queue())
    @rule(data=st.data())
    def dispute(self, data: Any) -> None:
        """The bank takes the money back: the line's units wait aside."""
        line = data.draw(st.sampled_from(self.queue()))
        line.disputes += 1
        self.report(line, disputed=line.disputes, returned=line.disputes - 1)
        line.is_held = True

    @precondition(lambda self: any(line.is_held for line in self.lines))
    @rule(data=st.data())
    def win_dispute(self, data: Any) -> None:
        line = data.draw(st.sampled_from([line for line in self.lines if line.is_held]))
        self.report(line, disputed=line.disputes, returned=line.disputes)
        line.is_held = False

    @precondition(lambda self: self.queue())
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
        ahead, expected = 0, {}
        for line in self.queue():
            expected[line.pk] = ahead
            ahead += line.waiting
        found = standings(line.pk for line in self.lines)
        assert {line_id: standing.ahead for line_id, standing in found.items()} == expected
        assert units_waiting(plan_id=self.plan.pk) == ahead

    @invariant()
    def ledger_is_in_order(self) -> None:
        if hasattr(self, "plan"):
            assert list(check(ledger_lines(self.plan.pk))) == []

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
        used = Device.objects.filter(plan=self.plan, state=DeviceState.ALLOCATED).values_list("pk", flat=True)
        assert sorted(used) == sorted(device for line in self.lines for device in line.in_use)

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
            max_examples=30, stateful_step_count=50, deadline=None, suppress_health_check=list(HealthCheck)
        ),
    )
