"""The fairness ledger: complete, in the order of payment, and nobody can change it unnoticed."""

import json
import subprocess
import sys
from collections.abc import Callable
from datetime import timedelta
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from django.core.management import CommandError, call_command
from django.db import IntegrityError

from inventory.models import Device, DeviceState, Fee, Plan
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import Allocation, Ground, LineState, OrderLine, PublishedHead, QueueEvent, QueueEventKind
from orders.queue import fairness
from orders.queue.fairness import faults_of, head_of, ledger_lines, publish_heads, seal_events
from orders.queue.verify_queue_ledger import check, seal_of
from orders.refunds import approve_refund, request_refund
from orders.replacement import replace_device
from tests.builders import (
    NOW,
    make_attempt,
    make_capture,
    make_devices,
    make_fee,
    make_line,
    make_order,
    make_plan,
    make_user,
)
from tests.racing import in_background
from tests.tampering import behind_the_triggers

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(hours=2)


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture
def fee(plan: Plan) -> Fee:
    return make_fee(plan)


def told(plan: Plan) -> list[tuple[int | None, str, int, int]]:
    """(number, what happened, line, units), in the order of the ledger."""
    events = QueueEvent.objects.filter(plan=plan).order_by("number", "pk")
    return [(event.number, event.kind, event.line_id, event.units) for event in events]


@pytest.mark.clause("1.1", "3.3")
def test_the_ledger_tells_who_joined_and_who_was_served(plan: Plan, fee: Fee) -> None:
    first = make_line(fee, quantity=2, paid_at=EARLIER)
    second = make_line(fee, quantity=3, paid_at=EARLIER + timedelta(seconds=1))
    make_devices(plan, 4)
    allocate_devices(plan_id=plan.pk, now=NOW)

    assert seal_events(plan_id=plan.pk) == 4

    assert told(plan) == [
        (1, "joined", first.pk, 2),
        (2, "joined", second.pk, 3),
        (3, "allocated", first.pk, 2),
        (4, "allocated", second.pk, 2),
    ]
    assert list(faults_of(plan, now=NOW)) == []
    assert seal_events(plan_id=plan.pk) == 0


def test_payment_reported_late_says_how_many_units_it_displaced(plan: Plan, fee: Fee) -> None:
    make_line(fee, quantity=5, paid_at=EARLIER)
    order = make_order([(fee, 2)])
    apply_snapshot(
        attempt_id=make_attempt(order).pk,
        snapshot=Snapshot(
            provider_id="pay_1",
            state="captured",
            captures=(MoneyMoved("cap-1", order.total, EARLIER - timedelta(seconds=1)),),
        ),
        now=NOW,
    )

    event = QueueEvent.objects.get(line=order.lines.get())
    assert (event.kind, event.units, event.behind, event.paid_at) == (
        "joined",
        2,
        5,
        EARLIER - timedelta(seconds=1),
    )


def test_refunded_units_leave(plan: Plan, fee: Fee) -> None:
    order = make_order([(fee, 3)], paid_at=EARLIER)
    make_capture(order)
    line = order.lines.get()
    asked = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="Test",
        units={line.pk: 2},
        requested_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    approve_refund(refund_id=asked.pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)
    seal_events(plan_id=plan.pk)

    assert told(plan) == [(1, "joined", line.pk, 3), (2, "left", line.pk, 2)]
    assert list(faults_of(plan, now=NOW)) == []


def test_every_entry_seals_the_one_before(plan: Plan, fee: Fee) -> None:
    make_line(fee, paid_at=EARLIER)
    make_line(fee, paid_at=EARLIER)
    seal_events(plan_id=plan.pk)
    (one, two) = [line.rstrip("\n").partition(" ") for line in ledger_lines(plan.pk)]

    assert one[0] == seal_of("0" * 64, one[2])
    assert two[0] == seal_of(one[0], two[2])
    assert head_of(plan.pk) == fairness.Head(2, two[0])


def test_what_is_published_names_no_customer(plan: Plan, fee: Fee) -> None:
    customer = make_user("ada@example.com")
    line = make_line(fee, quantity=2, paid_at=EARLIER, customer=customer)
    seal_events(plan_id=plan.pk)

    (entry,) = ledger_lines(plan.pk)
    assert entry.partition(" ")[2] == (
        f'[1,"joined",{line.pk},2,"2026-11-23T02:00:00.000000Z","2026-11-23T04:00:00.000000Z",0,null]\n'
    )


WHEN = "12:00"


def ledger_of(*entries: list[object]) -> list[str]:
    """A well sealed ledger of any entries: [what, line, units, paid at, recorded at, known]. Times are of one day."""
    seal, lines = "0" * 64, []
    for number, (kind, line, units, paid_at, at, seen) in enumerate(entries, 1):
        times = ",".join(f'"2026-11-23T{time}:00.000000Z"' for time in (paid_at, at))
        text = f'[{number},"{kind}",{line},{units},{times},0,{seen}]'
        seal = seal_of(seal, text)
        lines.append(f"{seal} {text}\n")
    return lines


def joined(line: int, paid_at: str, units: int = 1, at: str = WHEN) -> list[object]:
    return ["joined", line, units, paid_at, at, "null"]


def allocated(line: int, paid_at: str, known: object, units: int = 1, at: str = WHEN) -> list[object]:
    return ["allocated", line, units, paid_at, at, known]


def moved(kind: str, line: int, paid_at: str, units: int = 1, at: str = WHEN) -> list[object]:
    return [kind, line, units, paid_at, at, "null"]


SECOND_BEFORE_FIRST = (
    "Entry 3: line 2, paid 2026-11-23 09:00:00, was served before 1, paid 2026-11-23 08:00:00."
)


def test_who_is_served_before_one_who_paid_earlier_is_found() -> None:
    ledger = ledger_of(joined(1, "08:00"), joined(2, "09:00"), allocated(2, "09:00", known=2))

    assert list(check(ledger)) == [SECOND_BEFORE_FIRST]


def test_of_two_paid_in_one_instant_the_lower_number_comes_first() -> None:
    both = (joined(9, "08:00"), joined(10, "08:00"))

    assert list(check(ledger_of(*both, allocated(9, "08:00", known=2)))) == []
    assert list(check(ledger_of(*both, allocated(10, "08:00", known=2)))) == [
        "Entry 3: line 10, paid 2026-11-23 08:00:00, was served before 9, paid 2026-11-23 08:00:00."
    ]


def test_nobody_is_passed_over_who_was_not_known_or_on_hold() -> None:
    late = ledger_of(
        joined(2, "09:00", units=2),
        joined(1, "08:00"),
        allocated(2, "09:00", known=1),
        allocated(1, "08:00", known=3),
        allocated(2, "09:00", known=3),
    )
    held = ledger_of(
        joined(1, "08:00"),
        joined(2, "09:00"),
        moved("held", 1, "08:00"),
        allocated(2, "09:00", known=3),
        moved("released", 1, "08:00"),
        allocated(1, "08:00", known=5),
    )

    assert list(check(late)) == []
    assert list(check(held)) == []


def test_who_was_recorded_long_before_a_device_was_given_is_known_whatever_the_allocation_says() -> None:
    both = (joined(1, "08:00"), joined(2, "09:00"))

    assert list(check(ledger_of(*both, allocated(2, "09:00", known=0, at="12:10")))) == []
    assert list(check(ledger_of(*both, allocated(2, "09:00", known=0, at="12:11")))) == [SECOND_BEFORE_FIRST]


def test_entry_cannot_be_dated_back_to_when_the_first_was_not_known_yet() -> None:
    ledger = ledger_of(
        joined(1, "08:00"), joined(2, "09:00"), joined(3, "10:00", at="18:00"), allocated(2, "09:00", known=0)
    )

    assert list(check(ledger)) == ["Entry 4 is of 2026-11-23 12:00:00, after one of 2026-11-23 18:00:00."]


@pytest.mark.parametrize(
    ("known", "finding"),
    [
        ((1, 0), "Entry 4 knew 0 entries, not 1 to 3."),  # fewer than the one before
        ((1, 4), "Entry 4 knew 4 entries, not 1 to 3."),  # itself, and what comes
        ((1, "null"), "Entry 4 knew None entries, not 1 to 3."),
        ((1, 1), None),
        ((1, 3), None),
    ],
)
def test_allocation_knows_what_was_there_and_no_less_than_those_before(
    known: tuple[object, object], finding: str | None
) -> None:
    ledger = ledger_of(
        joined(1, "08:00"),
        joined(2, "09:00"),
        allocated(1, "08:00", known=known[0]),
        allocated(2, "09:00", known=known[1]),
    )

    assert list(check(ledger)) == ([finding] if finding else [])


@pytest.mark.parametrize(
    ("entries", "line", "what"),
    [
        ([allocated(1, "08:00", known=1, units=3)], 1, "3 units cannot be allocated"),  # of two
        ([moved("left", 1, "08:00", units=3)], 1, "3 units cannot be left"),
        ([moved("returned", 1, "08:00")], 1, "1 units cannot be returned"),  # that nobody had
        ([moved("refunded", 1, "08:00", units=99)], 1, "99 units cannot be refunded"),
        ([joined(1, "08:00")], 1, "1 units cannot be joined"),  # a second time
        ([moved("left", 7, "08:00")], 7, "1 units cannot be left"),  # who never joined
        ([moved("released", 1, "08:00")], 1, "1 units cannot be released"),  # from no hold
        ([moved("held", 1, "08:00"), moved("held", 1, "08:00")], 1, "1 units cannot be held"),
        ([moved("held", 1, "08:00"), allocated(1, "08:00", known=1)], 1, "1 units cannot be allocated"),
    ],
)
def test_what_cannot_have_happened_is_found(entries: list[list[object]], line: int, what: str) -> None:
    number = len(entries) + 1

    assert list(check(ledger_of(joined(1, "08:00", units=2), *entries))) == [
        f"Entry {number}: of line {line}, paid 2026-11-23 08:00:00, {what} after the entries before."
    ]


def test_another_time_of_payment_is_found() -> None:
    ledger = ledger_of(joined(1, "08:00", units=2), moved("left", 1, "07:00"))

    assert list(check(ledger)) == [
        "Entry 2: of line 1, paid 2026-11-23 07:00:00, 1 units cannot be left after the entries before."
    ]


def test_device_that_comes_back_and_is_given_again_is_in_order() -> None:
    ledger = ledger_of(
        joined(1, "08:00", units=2),
        allocated(1, "08:00", known=1, units=2),
        moved("returned", 1, "08:00"),
        moved("refunded", 1, "08:00"),
        allocated(1, "08:00", known=4),
    )

    assert list(check(ledger)) == []


@pytest.mark.parametrize(
    "nonsense",
    [
        "nonsense",
        "0 5",
        "",
        json.dumps(5),
        ledger_of(moved("lost", 1, "08:00"))[0],  # no such kind
        ledger_of(joined(1, "08:00", units=0))[0],
        ledger_of(joined(1, "08:00", units=-3))[0],
        ledger_of(joined(1, "08:00", at="25:00"))[0],
        ledger_of(joined(1, "08:00"))[0].replace("null", '"0"'),
    ],
)
def test_row_that_is_no_entry_is_found(nonsense: str) -> None:
    assert list(check([nonsense])) == ["Entry 1 is missing, or cannot be read."]


def test_entry_that_is_missing_or_altered_is_found() -> None:
    ledger = ledger_of(joined(1, "08:00"), joined(2, "09:00"), joined(3, "10:00"))

    assert list(check([ledger[0], ledger[2]])) == ["Entry 2 is missing, or cannot be read."]
    assert list(check([ledger[0], ledger[1].replace("09:00", "07:00"), ledger[2]])) == [
        "Entry 2 does not fit its seal: it or one before it was altered."
    ]
    assert list(check(ledger, [ledger[1].split()[0]])) == []
    assert list(check(ledger, ["f" * 64])) == [f"The seal {'f' * 64} is not in this ledger."]


def test_anybody_can_check_the_ledger_with_nothing_but_python(tmp_path: Path, plan: Plan, fee: Fee) -> None:
    make_line(fee, paid_at=EARLIER)
    seal_events(plan_id=plan.pk)
    script = Path(fairness.__file__).with_name("verify_queue_ledger.py")
    (tmp_path / "ledger.txt").write_text("".join(ledger_lines(plan.pk)))

    def run(*heads: str) -> tuple[int, str]:
        done = subprocess.run(
            [sys.executable, "-I", script, tmp_path / "ledger.txt", *heads],
            capture_output=True,
            check=False,
            text=True,
        )
        return done.returncode, done.stdout

    assert run(head_of(plan.pk).sha256) == (
        0,
        "Complete, unaltered, and everybody was served in the order of payment.\n",
    )
    assert run("f" * 64) == (1, f"The seal {'f' * 64} is not in this ledger.\n")
    assert len(script.read_text().splitlines()) < 100


def test_head_of_the_day_is_published_once(plan: Plan, fee: Fee) -> None:
    make_plan("V06")  # has no entry: nothing to publish
    make_line(fee, paid_at=EARLIER)
    seal_events(plan_id=plan.pk)

    assert publish_heads(now=NOW) == 1
    make_line(fee, paid_at=NOW)
    seal_events(plan_id=plan.pk)
    assert publish_heads(now=NOW + timedelta(hours=1)) == 0

    head = PublishedHead.objects.get()
    first = QueueEvent.objects.get(number=1)
    assert (head.plan, str(head.day), head.number, head.sha256) == (plan, "2026-11-22", 1, first.sha256)


def test_days_that_the_job_missed_are_published_late_and_say_so(plan: Plan, fee: Fee) -> None:
    lines, heads = [make_line(fee, paid_at=EARLIER) for _ in range(4)], []
    for days, line in enumerate(lines):
        now = NOW + timedelta(days=days)
        if days != 2:  # a day on which nothing happened
            fairness.record(QueueEventKind.LEFT, [(line, 1)], now=now)
        seal_events(plan_id=plan.pk)
        heads.append(head_of(plan.pk))
        if days == 0:
            assert publish_heads(now=NOW + timedelta(days=1)) == 1

    assert publish_heads(now=NOW + timedelta(days=4)) == 3
    assert publish_heads(now=NOW + timedelta(days=4)) == 0

    published = PublishedHead.objects.order_by("day")
    assert [(str(each.day), each.number, each.published_at) for each in published] == [
        ("2026-11-23", heads[0].number, NOW + timedelta(days=1)),
        ("2026-11-24", heads[1].number, NOW + timedelta(days=4)),
        ("2026-11-25", heads[2].number, NOW + timedelta(days=4)),
        ("2026-11-26", heads[3].number, NOW + timedelta(days=4)),
    ]


def verify() -> str:
    """What the command prints; raises CommandError when something is wrong."""
    out, err = StringIO(), StringIO()
    try:
        call_command("verify_queue", stdout=out, stderr=err)
    except CommandError:
        return err.getvalue().strip()
    return out.getvalue().strip()


def test_the_command_says_that_all_is_well(plan: Plan, fee: Fee) -> None:
    make_line(fee, paid_at=EARLIER)

    assert verify() == f"{plan}: 1 entries, 0 wrong, head {head_of(plan.pk).sha256}"


@pytest.mark.parametrize(
    ("tampering", "finding"),
    [
        (
            "UPDATE orders_queueevent SET units = 3",
            "Ledger of {plan}: Entry 1 does not fit its seal: it or one before it was altered.",
        ),
        ("DELETE FROM orders_queueevent", "Ledger of {plan}: it ends at entry 0, its head says 1."),
        (
            "UPDATE orders_queueevent SET number = 2",
            "Ledger of {plan}: it ends at entry 2, its head says 1.",
        ),
        (
            "UPDATE evidence_chainhead SET chain_sha256 = lower('F') || substr(chain_sha256, 2)",
            "Ledger of {plan}: The seal f{seal} is not in this ledger.",
        ),
        (
            "UPDATE orders_orderline SET allocated = 1, state = 'waiting'",
            "Line {line} of {plan} has 1 units allocated, in the ledger 0.",
        ),
        (
            "UPDATE orders_orderline SET allocated = 1, state = 'waiting'",
            "Line {line} of {plan} has 1 units allocated, and 0 of them a device.",
        ),
        (
            "UPDATE orders_orderline SET paid_at = '2026-11-20 00:00:00+00'",
            "Line {line} of {plan} has another time of payment in the ledger.",
        ),
        (
            "UPDATE orders_orderline SET state = 'held'",
            "Line {line} of {plan} is held, in the ledger it was held 0 times.",
        ),
    ],
)
def test_who_goes_round_the_triggers_is_found(plan: Plan, fee: Fee, tampering: str, finding: str) -> None:
    line = make_line(fee, quantity=2, paid_at=EARLIER)
    seal_events(plan_id=plan.pk)
    seal = head_of(plan.pk).sha256[1:]

    with behind_the_triggers(QueueEvent, OrderLine) as cursor:
        cursor.execute(tampering)

    assert finding.format(plan=plan, line=line.pk, seal=seal) in verify().splitlines()


def test_line_that_was_moved_to_another_plan_is_found(plan: Plan, fee: Fee) -> None:
    other = make_plan("V06")
    line = make_line(fee, paid_at=EARLIER)
    seal_events(plan_id=plan.pk)

    with behind_the_triggers(OrderLine) as cursor:
        cursor.execute("UPDATE orders_orderline SET plan_id = %s", [other.pk])

    assert list(faults_of(plan, now=NOW)) == []
    assert list(faults_of(other, now=NOW)) == [f"Line {line.pk} of {other} is in the ledger of another plan."]


@pytest.fixture
def served_and_waiting(plan: Plan, fee: Fee) -> tuple[OrderLine, OrderLine]:
    """A line that has its device, and one behind it that waits."""
    lines = make_line(fee, paid_at=EARLIER), make_line(fee, paid_at=EARLIER + timedelta(seconds=1))
    make_devices(plan, 1)
    seal_events(plan_id=plan.pk)
    allocate_devices(plan_id=plan.pk, now=NOW)
    seal_events(plan_id=plan.pk)
    assert list(faults_of(plan, now=NOW)) == []
    return lines


def test_device_that_was_moved_to_another_line_is_found(
    plan: Plan, served_and_waiting: tuple[OrderLine, OrderLine]
) -> None:
    served, waiting = served_and_waiting

    with behind_the_triggers(Allocation) as cursor:
        cursor.execute("UPDATE orders_allocation SET line_id = %s", [waiting.pk])

    assert list(faults_of(plan, now=NOW)) == [
        f"Line {served.pk} of {plan} has 1 units allocated, and 0 of them a device.",
        f"Line {waiting.pk} of {plan} has 0 units allocated, and 1 of them a device.",
    ]


@pytest.mark.usefixtures("served_and_waiting")
def test_device_that_is_given_and_called_free_is_found(plan: Plan) -> None:
    device = Device.objects.get()
    Device.objects.update(state=DeviceState.FREE)

    assert list(faults_of(plan, now=NOW)) == [
        f"Device {device} of {plan} is free, and its allocations say something else."
    ]


@pytest.mark.usefixtures("served_and_waiting")
def test_device_that_is_called_allocated_and_was_given_to_nobody_is_found(plan: Plan) -> None:
    (device,) = make_devices(plan, 1)
    Device.objects.filter(pk=device.pk).update(state=DeviceState.ALLOCATED)

    assert list(faults_of(plan, now=NOW)) == [
        f"Device {device} of {plan} is allocated, and its allocations say something else."
    ]


def test_device_of_another_plan_is_found(plan: Plan, served_and_waiting: tuple[OrderLine, OrderLine]) -> None:
    served, _waiting = served_and_waiting
    other = make_plan("V06")
    device = Device.objects.get()

    with behind_the_triggers(Device) as cursor:
        cursor.execute("UPDATE inventory_device SET plan_id = %s", [other.pk])

    assert list(faults_of(plan, now=NOW)) == [
        f"Line {served.pk} of {plan} has the device {device}, which is of another plan."
    ]


def test_phones_that_were_replaced_refunded_or_are_over_are_counted_right(plan: Plan, fee: Fee) -> None:
    order = make_order([(fee, 4)], paid_at=EARLIER)
    make_capture(order)
    make_devices(plan, 5)
    seal_events(plan_id=plan.pk)
    allocate_devices(plan_id=plan.pk, now=NOW)
    replaced, waits_again, refunded, over = Allocation.objects.order_by("pk")
    replace_device(allocation_id=replaced.pk, now=NOW)
    replace_device(allocation_id=waits_again.pk, now=NOW)
    asked = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="Test",
        units={},
        phones=[refunded.pk],
        requested_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    approve_refund(refund_id=asked.pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)
    Allocation.objects.filter(pk=over.pk).update(ended_at=over.ends_at)
    Device.objects.filter(pk=over.device_id).update(state=DeviceState.RETIRED)
    seal_events(plan_id=plan.pk)

    line = order.lines.get()
    assert (line.allocated, line.withdrawn, line.waiting_units) == (2, 1, 1)
    assert list(faults_of(plan, now=NOW)) == []


def test_allocation_that_does_not_say_what_was_known_is_refused(plan: Plan, fee: Fee) -> None:
    line = make_line(fee, paid_at=EARLIER)

    with pytest.raises(IntegrityError, match="orders_queueevent_allocation_says_what_was_known"):
        fairness.record(QueueEventKind.ALLOCATED, [(line, 1)], now=NOW)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_ledger_that_grows_while_it_is_looked_at_is_not_accused(monkeypatch: pytest.MonkeyPatch) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_line(fee, paid_at=EARLIER)
    seal_events(plan_id=plan.pk)

    def grow() -> None:
        make_line(fee, paid_at=EARLIER + timedelta(minutes=1))
        make_devices(plan, 1)
        seal_events(plan_id=plan.pk)
        allocate_devices(plan_id=plan.pk, now=NOW)
        seal_events(plan_id=plan.pk)
        publish_heads(now=NOW)

    def growing(step: Callable[..., Any]) -> Callable[..., Any]:
        def looked_at(*args: Any, **kwargs: Any) -> Any:
            in_background(grow).result(60)
            yield from step(*args, **kwargs)
            in_background(grow).result(60)

        return looked_at

    steps = ("check", "_faults_of_lines", "_faults_of_devices")
    for step in steps:
        monkeypatch.setattr(fairness, step, growing(getattr(fairness, step)))
    found = list(faults_of(plan, now=NOW))

    assert found == []
    assert head_of(plan.pk).number > 2 * len(steps)


def test_event_that_nobody_sealed_is_found_after_an_hour(plan: Plan, fee: Fee) -> None:
    make_line(fee, paid_at=EARLIER)
    event = QueueEvent.objects.get()

    assert list(faults_of(plan, now=NOW + timedelta(minutes=59))) == []
    assert list(faults_of(plan, now=NOW + timedelta(minutes=61))) == [
        f"Ledger of {plan}: event {event.pk} of {event.at.isoformat()} was never sealed."
    ]


def test_line_that_never_joined_is_found(plan: Plan, fee: Fee) -> None:
    order = make_order([(fee, 1)])
    OrderLine.objects.filter(order=order).update(state=LineState.WAITING, paid_at=NOW)

    assert list(faults_of(plan, now=NOW)) == [
        f"Line {order.lines.get().pk} of {plan} has 1 units; 0 joined the queue."
    ]


def test_line_on_hold_is_in_the_ledger(plan: Plan, fee: Fee) -> None:
    line = make_line(fee, paid_at=EARLIER)
    OrderLine.objects.filter(pk=line.pk).update(state=LineState.HELD)
    fairness.record(QueueEventKind.HELD, [(line, 1)], now=NOW)
    seal_events(plan_id=plan.pk)

    assert list(faults_of(plan, now=NOW)) == []
