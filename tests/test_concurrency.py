"""What must hold when many act at once, on PostgreSQL with real connections.

Every protection has a control: the same race with the protection taken out, which must go wrong. A test whose
control stays green would prove nothing.
"""

import random
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError, transaction
from django.db.models import F, Sum
from pytest_django import Settings

from agreements.acceptance import Consent, Witness, required_of_buyer
from agreements.publishing import publish_shipped_texts
from evidence.clock import ticking
from evidence.setwise import OutOfStep
from inventory.models import Device, DeviceState, OversellDecision, Plan, SupplyBatch
from inventory.money import Money
from inventory.supply import change_batch
from notices.models import Notice
from notices.outbox import tell
from orders import allocation, checkout, ledger, refunds
from orders.allocation import allocate_devices
from orders.checkout import CapReached, NotOffered, Wish, place_order
from orders.fifo import hand_out
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import (
    Allocation,
    AttemptState,
    Ground,
    LedgerEntry,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    QueueEvent,
    QueueEventKind,
    Refund,
    RefundLine,
)
from orders.models.order import LineQuerySet
from orders.offers import stocks
from orders.queue import fairness, lock_plans
from orders.refunds import RefundRefused, approve_refund, request_refund
from orders.shortfalls import approve_shortfall, declare_shortfall, work_off_shortfalls
from tests.builders import (
    NOW,
    make_attempt,
    make_batch,
    make_capture,
    make_devices,
    make_fee,
    make_line,
    make_order,
    make_plan,
    make_user,
)
from tests.racing import failures, in_background, race, wait_until_blocked

pytestmark = [pytest.mark.postgres, pytest.mark.django_db(transaction=True)]

EARLIER = NOW - timedelta(hours=1)


def captured(attempt: PaymentAttempt, *, at: datetime, minor: int = 0, transaction_id: str = "") -> Snapshot:
    amount = Money(minor or attempt.amount_minor, attempt.currency)
    move = MoneyMoved(transaction_id=transaction_id or f"cap-{attempt.pk}", amount=amount, at=at)
    return Snapshot(provider_id=attempt.provider_id, state="captured", captures=(move,))


# --- the order of payment ------------------------------------------------------------------------------


@dataclass(frozen=True)
class Overtaken:
    """A unit of `passed` waited, paid earlier and known to be paid, when `served` got a device."""

    passed: int
    served: int


@dataclass
class Acknowledgements:
    """When each payer saw his payment committed, by line id; lines paid from the start are at the epoch."""

    at: dict[int, datetime] = field(default_factory=dict)

    def of(self, line_id: int) -> datetime:
        return self.at.get(line_id, datetime.min.replace(tzinfo=UTC))


def overtaken(plan: Plan, known: Acknowledgements) -> list[Overtaken]:
    """The oracle: every case in which a sweep passed over a line it had to serve first.

    Allocations of a plan are numbered in the order in which they were made; `starts_at` is when their chunk
    of the sweep began, before it took its lock. A line acknowledged before that, paid before the line served, and
    with a unit that got its device later (or none, while it still waits), was overtaken.
    """
    lines = {line.pk: line for line in OrderLine.objects.filter(plan=plan, paid_at__isnull=False)}
    made = list(Allocation.objects.filter(line__plan=plan).order_by("pk"))
    last_served = {given.line_id: given.pk for given in made}
    still_waiting = {pk for pk, line in lines.items() if line.state == LineState.WAITING}
    found = []
    for given in made:
        served = lines[given.line_id]
        for line in lines.values():
            paid_before = (line.paid_at, line.pk) < (served.paid_at, served.pk)
            served_later = line.pk in still_waiting or last_served.get(line.pk, 0) > given.pk
            if paid_before and served_later and known.of(line.pk) < given.starts_at:
                found.append(Overtaken(passed=line.pk, served=served.pk))
    return found


def everything_adds_up(plan: Plan) -> bool:
    """Allocations, devices and lines tell the same story."""
    made = Allocation.objects.filter(line__plan=plan)
    lines = OrderLine.objects.filter(plan=plan)
    devices = Device.objects.filter(plan=plan, state=DeviceState.ALLOCATED)
    counted = lines.aggregate(units=Sum("allocated"))["units"] or 0
    per_line = all(line.allocated == line.allocations.count() for line in lines)
    refunded = lines.aggregate(units=Sum("withdrawn"))["units"] or 0
    approved = RefundLine.objects.filter(line__plan=plan, refund__state="approved")
    return (
        made.count() == devices.count() == counted == made.values("device").distinct().count()
        and per_line
        and refunded == (approved.aggregate(units=Sum("units"))["units"] or 0)
        and not lines.filter(quantity__lt=F("allocated") + F("withdrawn")).exists()
    )


@pytest.mark.clause("1.1", "3.3")
def test_eight_sweeps_eight_payers_and_refunds_at_the_head_overtake_nobody(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    settings.ALLOCATION_HOLD_BACK = timedelta(0)
    monkeypatch.setattr(allocation, "CHUNK", 7)
    plan = make_plan()
    fee = make_fee(plan)
    dice = random.Random(1)
    clock = ticking(NOW)
    began = clock()
    queue = [
        make_order([(fee, dice.randint(1, 3))], paid_at=began - timedelta(seconds=300 - n))
        for n in range(120)
    ]
    for order in queue:
        make_capture(order)
    unpaid = [make_order([(fee, dice.randint(1, 3))], placed_at=began) for _ in range(80)]
    attempts = [make_attempt(order) for order in unpaid]
    clerk, approver = make_user(is_staff=True), make_user(is_staff=True)
    known, over = Acknowledgements(), threading.Event()

    def sweep() -> int:
        units = 0
        while not over.is_set():
            units += allocate_devices(plan_id=plan.pk, now=clock())
        return units

    def pay(share: list[PaymentAttempt]) -> None:
        for attempt in share:
            # One in five is reported late: its place is before lines that are paid already.
            late = timedelta(seconds=dice.choice((0, 0, 0, 0, 200)))
            now = clock()
            apply_snapshot(attempt_id=attempt.pk, snapshot=captured(attempt, at=now - late), now=now)
            known.at[attempt.order.lines.get().pk] = clock()

    def refund() -> int:
        approved = 0
        for order in queue[::3]:
            line = order.lines.get()
            try:
                asked = request_refund(
                    order_id=order.pk,
                    ground=Ground.UNABLE_TO_SUPPLY,
                    explanation="Test",
                    units={line.pk: 1},
                    requested_by_id=clerk.pk,
                    now=clock(),
                )
                approve_refund(refund_id=asked.pk, approved_by_id=approver.pk, now=clock())
                approved += 1
            except RefundRefused:
                continue
        return approved

    def supply() -> None:
        for _ in range(30):
            make_devices(plan, 6)
            time.sleep(0.02)

    def direct() -> None:
        """Ends the sweeps when everybody else is done and what is there has been handed out."""
        try:
            outcomes = [future.result(60) for future in [in_background(work) for work in others]]
            assert outcomes[-2] > 0, "No refund won its race: the test shows nothing."
            allocate_devices(plan_id=plan.pk, now=clock())
        finally:
            over.set()

    others: list[Any] = [*(lambda n=n: pay(attempts[n::8]) for n in range(8)), refund, supply]
    outcomes = race(*[sweep] * 8, direct)

    assert failures(outcomes) == []
    assert Allocation.objects.count() == min(
        180, OrderLine.objects.aggregate(n=Sum(F("quantity") - F("withdrawn")))["n"]
    )
    assert everything_adds_up(plan)
    assert overtaken(plan, known) == []
    fairness.seal_events(plan_id=plan.pk)
    assert list(fairness.faults_of(plan, now=clock())) == []
    assert Order.objects.filter(state=OrderState.PAID).count() == 200


def sweep_as_queues_usually_are(plan: Plan) -> None:
    """The control: no lock on the plan, SKIP LOCKED on devices and lines. What every queue article advises."""
    with transaction.atomic(durable=True):
        free = Device.objects.filter(plan=plan, state=DeviceState.FREE).order_by("pk")
        devices = [device.pk for device in free.select_for_update(skip_locked=True)[:1]]
        queue = OrderLine.objects.waiting(plan_id=plan.pk)
        lines = allocation._read(queue.select_for_update(of=("self",), skip_locked=True)[:1])
        gifts = hand_out(devices=devices, claims=[line.claim for line in lines])
        seen = fairness.head_of(plan.pk).number
        allocation._record(plan=plan, lines=lines, gifts=gifts, seen=seen, now=NOW)


@pytest.fixture
def head_and_second() -> tuple[OrderLine, OrderLine]:
    """Two lines that wait, known to the ledger, and one device."""
    plan = make_plan()
    fee = make_fee(plan)
    make_devices(plan, 1)
    lines = make_line(fee, paid_at=EARLIER), make_line(fee, paid_at=EARLIER + timedelta(seconds=1))
    fairness.seal_events(plan_id=plan.pk)
    return lines


def test_sweep_waits_for_whoever_holds_the_head_of_the_queue(
    head_and_second: tuple[OrderLine, OrderLine],
) -> None:
    head, second = head_and_second
    with transaction.atomic():
        OrderLine.objects.select_for_update().get(pk=head.pk)
        sweep = in_background(lambda: allocate_devices(plan_id=head.plan_id, now=NOW))
        wait_until_blocked()

    assert sweep.result(60) == 1
    assert (head.allocations.count(), second.allocations.count()) == (1, 0)
    assert overtaken(head.plan, Acknowledgements()) == []


def test_control_skip_locked_overtakes_the_head_and_both_oracle_and_ledger_show_it(
    head_and_second: tuple[OrderLine, OrderLine],
) -> None:
    head, second = head_and_second
    with transaction.atomic():
        OrderLine.objects.select_for_update().get(pk=head.pk)
        in_background(lambda: sweep_as_queues_usually_are(head.plan)).result(60)

    assert overtaken(head.plan, Acknowledgements()) == [Overtaken(passed=head.pk, served=second.pk)]
    fairness.seal_events(plan_id=head.plan_id)
    (fault,) = fairness.faults_of(head.plan, now=NOW)
    assert fault.startswith(f"Ledger of {head.plan}: Entry 3: line {second.pk}, paid ")
    assert f"was served before {head.pk}, paid " in fault


@pytest.mark.clause("1.1")
def test_last_device_goes_to_exactly_one_of_eight_sweeps() -> None:
    plan = make_plan()
    make_devices(plan, 1)
    line = make_line(make_fee(plan), quantity=8, paid_at=EARLIER)

    outcomes = race(*[lambda: allocate_devices(plan_id=plan.pk, now=NOW)] * 8)

    assert sorted(outcomes) == [0, 0, 0, 0, 0, 0, 0, 1]
    line.refresh_from_db()
    assert (line.allocated, line.allocations.count()) == (1, 1)


def test_control_without_the_plans_lock_sweeps_run_into_each_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both_have_looked = threading.Barrier(2)

    def look(**chunk: Any) -> list[Any]:
        both_have_looked.wait(60)
        return hand_out(**chunk)

    monkeypatch.setattr(allocation, "lock_plans", lambda ids: Plan.objects.in_bulk(list(ids)))
    monkeypatch.setattr(LineQuerySet, "select_for_update", lambda lines, **_: lines)
    monkeypatch.setattr(allocation, "hand_out", look)
    plan = make_plan()
    make_devices(plan, 1)
    make_line(make_fee(plan), quantity=8, paid_at=EARLIER)

    outcomes = race(*[lambda: allocation._allocate_chunk(plan_id=plan.pk, now=NOW)] * 2)

    # The database is the last witness: the second one fails instead of giving the device away twice.
    assert [type(failure) for failure in failures(outcomes)] == [IntegrityError]
    assert Allocation.objects.count() == 1


# --- refunds against the sweep -------------------------------------------------------------------------


@pytest.fixture
def refund_in_flight(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OrderLine, Any]]:
    """A line of ten with ten devices, and a refund of all ten that stops just before its commit."""
    plan = make_plan()
    make_devices(plan, 10)
    order = make_order([(make_fee(plan), 10)], paid_at=EARLIER)
    make_capture(order)
    line = order.lines.get()
    refund = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="Test",
        units={line.pk: 10},
        requested_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    approver = make_user(is_staff=True)
    withdrawn, go_on = threading.Event(), threading.Event()

    def approve() -> None:
        with transaction.atomic():
            # The verb's own durable block cannot be nested; its body, in its order, can.
            OrderLine.objects.select_for_update(no_key=True).get(pk=line.pk)
            OrderLine.objects.filter(pk=line.pk).update(withdrawn=10, state=LineState.WITHDRAWN)
            type(refund).objects.filter(pk=refund.pk).update(
                state="approved", decided_by=approver, decided_at=NOW
            )
            withdrawn.set()
            assert go_on.wait(60)

    approval = in_background(approve)
    assert withdrawn.wait(60)

    def finish() -> None:
        go_on.set()
        approval.result(60)

    yield line, finish
    finish()


def test_refund_in_flight_is_waited_for_and_its_units_get_no_device(
    refund_in_flight: tuple[OrderLine, Any],
) -> None:
    line, finish = refund_in_flight
    sweep = in_background(lambda: allocate_devices(plan_id=line.plan_id, now=NOW))
    wait_until_blocked()
    finish()

    assert sweep.result(60) == 0
    line.refresh_from_db()
    assert (line.state, line.allocated, line.withdrawn) == (LineState.WITHDRAWN, 0, 10)


def test_control_without_line_locks_the_sweep_serves_the_refunded_line(
    refund_in_flight: tuple[OrderLine, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, finish = refund_in_flight
    monkeypatch.setattr(LineQuerySet, "select_for_update", lambda lines, **_: lines)
    sweep = in_background(lambda: allocate_devices(plan_id=line.plan_id, now=NOW))
    wait_until_blocked()  # on writing the line, when the devices are given away already
    finish()

    # Only the sweep's own count of rows, the last witness, keeps the ten devices from being lost.
    with pytest.raises(OutOfStep):
        sweep.result(60)


@pytest.fixture
def refund_of_phone_in_flight(monkeypatch: pytest.MonkeyPatch) -> Iterator[tuple[OrderLine, Any]]:
    """A line of three with one phone, two free devices, and a refund of all three that stops before its commit."""
    plan = make_plan()
    order = make_order([(make_fee(plan), 3)], paid_at=EARLIER)
    make_capture(order)
    line = order.lines.get()
    make_devices(plan, 1)
    assert allocate_devices(plan_id=plan.pk, now=NOW) == 1
    make_devices(plan, 2)
    refund = refund_of(line, units=2, phones=[line.allocations.get().pk])
    approver = make_user(is_staff=True)
    taken, go_on = threading.Event(), threading.Event()

    def tell_when_told(*what: Any, **how: Any) -> None:
        taken.set()
        assert go_on.wait(60)
        tell(*what, **how)

    monkeypatch.setattr(refunds, "tell", tell_when_told)
    approval = in_background(lambda: approve_refund(refund_id=refund.pk, approved_by_id=approver.pk, now=NOW))
    assert taken.wait(60)

    def finish() -> None:
        go_on.set()
        approval.result(60)

    yield line, finish
    finish()


def refund_of(line: OrderLine, *, units: int, phones: Sequence[int]) -> Refund:
    return request_refund(
        order_id=line.order_id,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="Test",
        units={line.pk: units},
        phones=phones,
        requested_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )


@pytest.mark.clause("1.1", "3.3")
def test_refund_of_a_phone_and_of_units_behind_it_is_waited_for(
    refund_of_phone_in_flight: tuple[OrderLine, Any],
) -> None:
    line, finish = refund_of_phone_in_flight
    sweep = in_background(lambda: allocate_devices(plan_id=line.plan_id, now=NOW))
    wait_until_blocked()
    finish()

    assert sweep.result(60) == 0
    line.refresh_from_db()
    assert (line.state, line.allocated, line.withdrawn) == (LineState.WITHDRAWN, 0, 3)
    assert sorted(Device.objects.values_list("state", flat=True)) == ["free", "free", "quarantined"]
    assert not Allocation.objects.filter(ended_at=None).exists()


def test_control_without_line_locks_the_sweep_serves_units_beside_the_refunded_phone(
    refund_of_phone_in_flight: tuple[OrderLine, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    line, finish = refund_of_phone_in_flight
    monkeypatch.setattr(LineQuerySet, "select_for_update", lambda lines, **_: lines)
    sweep = in_background(lambda: allocate_devices(plan_id=line.plan_id, now=NOW))
    wait_until_blocked()  # on writing the line, when the two devices are given away already
    finish()

    with pytest.raises(OutOfStep):
        sweep.result(60)


@pytest.mark.clause("1.1", "3.3")
def test_refunds_of_phones_and_sweeps_at_once_leave_every_device_in_one_place(settings: Settings) -> None:
    settings.ALLOCATION_HOLD_BACK = timedelta(0)
    plan = make_plan()
    fee = make_fee(plan)
    orders = [make_order([(fee, 3)], paid_at=EARLIER + timedelta(seconds=n)) for n in range(8)]
    for order in orders:
        make_capture(order)
    make_devices(plan, 12)
    allocate_devices(plan_id=plan.pk, now=NOW)
    approver = make_user(is_staff=True)
    lines = [order.lines.get() for order in orders]
    asked = [
        refund_of(line, units=line.waiting_units, phones=[*line.allocations.values_list("pk", flat=True)[:1]])
        for line in lines
    ]
    make_devices(plan, 6)

    outcomes = race(
        *[
            lambda pk=refund.pk: approve_refund(refund_id=pk, approved_by_id=approver.pk, now=NOW)
            for refund in asked
        ],
        *[lambda: allocate_devices(plan_id=plan.pk, now=NOW)] * 4,
    )
    allocate_devices(plan_id=plan.pk, now=NOW)

    assert {type(failure) for failure in failures(outcomes)} <= {RefundRefused}
    live, over = Allocation.objects.filter(ended_at=None), Allocation.objects.exclude(ended_at=None)
    of_devices = {
        state: set(Device.objects.filter(state=state).values_list("pk", flat=True)) for state in DeviceState
    }
    assert of_devices[DeviceState.ALLOCATED] == set(live.values_list("device", flat=True))
    assert of_devices[DeviceState.QUARANTINED] == set(over.values_list("device", flat=True))
    for line in lines:
        line.refresh_from_db()
        approved = RefundLine.objects.filter(line=line, refund__state="approved")
        assert line.allocated == live.filter(line=line).count()
        assert line.withdrawn == (approved.aggregate(units=Sum("units"))["units"] or 0)
    # The first four had all they bought: nothing of theirs depends on who was faster.
    assert [line.withdrawn for line in lines[:4]] == [1] * 4
    fairness.seal_events(plan_id=plan.pk)
    assert list(fairness.faults_of(plan, now=NOW)) == []


@pytest.mark.clause("3.3")
def test_shortfall_that_several_work_off_at_once_refunds_every_order_once(settings: Settings) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    for n in range(20):
        make_capture(make_order([(fee, 2)], paid_at=EARLIER + timedelta(seconds=n)))
    make_devices(plan, 10)
    shortfall = declare_shortfall(
        plan_id=plan.pk, reason="Test", declared_by_id=make_user(is_staff=True).pk, now=NOW
    )
    approve_shortfall(shortfall_id=shortfall.pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)

    outcomes = race(
        *[lambda: work_off_shortfalls(now=NOW)] * 4, lambda: allocate_devices(plan_id=plan.pk, now=NOW)
    )

    assert failures(outcomes) == []
    assert OrderLine.objects.waiting(plan_id=plan.pk).units() == 0
    given = Allocation.objects.count()
    counted = OrderLine.objects.aggregate(given=Sum("allocated"), back=Sum("withdrawn"))
    assert (counted["given"], counted["given"] + counted["back"]) == (given, 40)
    refunded = Refund.objects.filter(state="approved")
    assert (refunded.aggregate(minor=Sum("minor"))["minor"] or 0) == counted["back"] * fee.minor
    assert refunded.count() == refunded.values("order").distinct().count()
    assert Notice.objects.filter(kind="refund-approved").count() == refunded.count()


# --- disputes against the sweep ------------------------------------------------------------------------


@pytest.fixture
def dispute_meets_sweep(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], OrderLine]:
    """Have a payment charged back while a sweep, about to commit, gives its line the one device that there is."""
    given, go_on = threading.Event(), threading.Event()

    def tell_when_told(*what: Any, **how: Any) -> None:
        given.set()
        assert go_on.wait(60)
        tell(*what, **how)

    monkeypatch.setattr(allocation, "tell", tell_when_told)

    def meet(units: int) -> OrderLine:
        plan = make_plan()
        order = make_order([(make_fee(plan), units)], paid_at=EARLIER)
        attempt = make_capture(order).attempt
        make_devices(plan, 1)
        taken = MoneyMoved(transaction_id="dp-1", amount=order.total, at=NOW)
        disputed = Snapshot(provider_id=attempt.provider_id, state="captured", chargebacks=(taken,))
        sweep = in_background(lambda: allocate_devices(plan_id=plan.pk, now=NOW))
        assert given.wait(60)
        dispute = in_background(lambda: apply_snapshot(attempt_id=attempt.pk, snapshot=disputed, now=NOW))
        try:
            wait_until_blocked()
        finally:
            go_on.set()
        assert sweep.result(60) == 1
        dispute.result(60)
        return order.lines.get()

    return meet


def held(line: OrderLine) -> list[int]:
    events = QueueEvent.objects.filter(line=line, kind=QueueEventKind.HELD)
    return list(events.values_list("units", flat=True))


@pytest.mark.payment_case(44)
@pytest.mark.clause("1.1")
@pytest.mark.parametrize(
    ("units", "state", "of_ledger"), [(1, LineState.ALLOCATED, []), (2, LineState.HELD, [1])]
)
def test_chargeback_holds_what_the_sweep_has_left_waiting_and_nothing_else(
    dispute_meets_sweep: Callable[[int], OrderLine], units: int, state: LineState, of_ledger: list[int]
) -> None:
    line = dispute_meets_sweep(units)

    assert (line.state, line.allocated, held(line)) == (state, 1, of_ledger)
    assert LedgerEntry.objects.filter(kind="chargeback").count() == 1
    fairness.seal_events(plan_id=line.plan_id)
    assert list(fairness.faults_of(line.plan, now=NOW)) == []


def lines_as_they_are(order: Order) -> list[OrderLine]:
    return list(order.lines.all())


def test_control_without_the_lines_locks_the_chargeback_of_an_allocated_unit_is_lost(
    dispute_meets_sweep: Callable[[int], OrderLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "lock_lines", lines_as_they_are)

    with pytest.raises(IntegrityError, match="orders_orderline_waiting_iff_units_wait"):
        dispute_meets_sweep(1)
    assert not LedgerEntry.objects.filter(kind="chargeback").exists()


def test_control_without_the_lines_locks_more_is_held_than_waits(
    dispute_meets_sweep: Callable[[int], OrderLine], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "lock_lines", lines_as_they_are)

    line = dispute_meets_sweep(2)

    assert (line.waiting_units, held(line)) == (1, [2])


# --- checkout ------------------------------------------------------------------------------------------


def place(plan: Plan, customer_id: int, *, key: uuid.UUID | None = None) -> Order:
    fee = make_fee(plan)
    return place_order(
        customer_id=customer_id,
        checkout_key=key or uuid.uuid4(),
        wishes=[Wish(fee.term_id, 1)],
        currency="USD",
        seen_total=Money(fee.minor, "USD"),
        consents=[
            Consent(each.text.pk, each.subject, each.role, "", "buyer@example.com", each.statement)
            for each in required_of_buyer(now=NOW, language="en", right=None)
        ],
        country="HK",
        witness=Witness(ip_address=None, user_agent=""),
        guardian=None,
        language="en",
        now=NOW,
    )


@pytest.fixture
def plan_with_one_unit_left() -> Plan:
    publish_shipped_texts(now=NOW)
    plan = make_plan(cap=1)
    make_fee(plan)
    return plan


def test_last_unit_is_sold_to_exactly_one_of_eight_checkouts(plan_with_one_unit_left: Plan) -> None:
    buyers = [make_user().pk for _ in range(8)]

    outcomes = race(*[lambda buyer=buyer: place(plan_with_one_unit_left, buyer) for buyer in buyers])

    assert [type(failure) for failure in failures(outcomes)] == [CapReached] * 7
    assert Order.objects.count() == 1


def test_control_without_the_plans_lock_the_last_unit_is_sold_twice(
    plan_with_one_unit_left: Plan, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_looked = threading.Barrier(2)

    def look(plans: Any) -> Any:
        stock = stocks(plans)
        both_have_looked.wait(60)
        return stock

    monkeypatch.setattr(checkout, "lock_plans", lambda ids: Plan.objects.in_bulk(list(ids)))
    monkeypatch.setattr(checkout, "stocks", look)
    buyers = [make_user().pk for _ in range(2)]

    outcomes = race(*[lambda buyer=buyer: place(plan_with_one_unit_left, buyer) for buyer in buyers])

    assert failures(outcomes) == []
    assert Order.objects.count() == 2


def test_two_checkouts_of_one_customer_do_not_pass_his_limit(plan_with_one_unit_left: Plan) -> None:
    Plan.objects.update(presale_cap=10, customer_limit=1)
    OversellDecision.objects.create(
        plan=plan_with_one_unit_left,
        units=10,
        reason="Test",
        decided_by=make_user(is_staff=True),
        decided_at=NOW,
    )
    buyer = make_user().pk

    outcomes = race(*[lambda: place(plan_with_one_unit_left, buyer)] * 4)

    assert [type(failure) for failure in failures(outcomes)] == [NotOffered] * 3
    assert Order.objects.count() == 1


def test_batch_is_not_cut_while_its_units_are_being_sold(plan_with_one_unit_left: Plan) -> None:
    plan = plan_with_one_unit_left
    batch = make_batch(plan, quantity=5)
    with transaction.atomic():
        lock_plans([plan.pk])
        cut = in_background(lambda: change_batch(batch_id=batch.pk, quantity=1, now=NOW))
        wait_until_blocked()
        assert SupplyBatch.objects.get().quantity == 5

    assert cut.result(60).quantity == 1


def test_eight_clicks_on_order_place_one_order(plan_with_one_unit_left: Plan) -> None:
    buyer, key = make_user().pk, uuid.uuid4()

    outcomes = race(*[lambda: place(plan_with_one_unit_left, buyer, key=key)] * 8)

    assert failures(outcomes) == []
    assert len({order.pk for order in outcomes}) == 1


# --- money ---------------------------------------------------------------------------------------------


@pytest.mark.payment_case(1)
def test_01_ten_reports_of_one_capture_at_once_book_it_once() -> None:
    attempt = make_attempt(make_order([(make_fee(make_plan()), 2)]))
    snapshot = captured(attempt, at=NOW)

    outcomes = race(*[lambda: apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=NOW)] * 10)

    assert failures(outcomes) == []
    assert LedgerEntry.objects.count() == 1
    assert Notice.objects.filter(kind="payment-received").count() == 1


def pay_halves_at_once() -> Order:
    order = make_order([(make_fee(make_plan(), minor=4_990), 1)])
    # (What is pending would be looked at by the other, which would wait for it even without the order's lock.)
    first, second = (make_attempt(order, number=number, state=AttemptState.CREATED) for number in (1, 2))
    outcomes = race(
        lambda: apply_snapshot(attempt_id=first.pk, snapshot=captured(first, at=NOW, minor=3_000), now=NOW),
        lambda: apply_snapshot(attempt_id=second.pk, snapshot=captured(second, at=NOW, minor=1_990), now=NOW),
    )
    assert failures(outcomes) == []
    order.refresh_from_db()
    return order


def test_two_part_payments_at_once_pay_the_order() -> None:
    assert pay_halves_at_once().state == OrderState.PAID


def test_control_without_the_orders_lock_neither_part_sees_the_other(monkeypatch: pytest.MonkeyPatch) -> None:
    both_have_booked, settle = threading.Barrier(2), ledger._settle

    def book_both_first(order: Order, **what: Any) -> None:
        both_have_booked.wait(60)
        settle(order, **what)

    monkeypatch.setattr(ledger, "_settle", book_both_first)
    monkeypatch.setattr("django.db.models.query.QuerySet.select_for_update", lambda rows, **_: rows)

    assert pay_halves_at_once().state == OrderState.UNPAID
