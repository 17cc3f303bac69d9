"""The fairness ledger: complete, in the order of payment, and nobody can change it unnoticed."""

import subprocess
import sys
from datetime import timedelta
from io import StringIO
from pathlib import Path

import pytest
from django.core.management import CommandError, call_command
from django.db import connection

from evidence.triggers import install_triggers
from inventory.models import Fee, Plan
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import Ground, LineState, OrderLine, PublishedHead, QueueEvent, QueueEventKind
from orders.queue import fairness
from orders.queue.fairness import faults_of, head_of, ledger_lines, publish_heads, seal_events
from orders.queue.verify_queue_ledger import check, seal_of
from orders.refunds import approve_refund, request_refund
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
        f'[1,"joined",{line.pk},2,"2026-11-23T02:00:00.000000Z","2026-11-23T04:00:00.000000Z",0,0]\n'
    )


def ledger_of(*entries: list[object]) -> list[str]:
    """A well sealed ledger of any entries: [what, line, units, paid at, displaced, known]."""
    seal, lines = "0" * 64, []
    for number, (kind, line, units, paid_at, behind, seen) in enumerate(entries, 1):
        text = (
            f'[{number},"{kind}",{line},{units},"2026-11-23T{paid_at}Z","2026-11-23T12:00Z",{behind},{seen}]'
        )
        seal = seal_of(seal, text)
        lines.append(f"{seal} {text}\n")
    return lines


def test_who_is_served_before_one_who_paid_earlier_is_found() -> None:
    ledger = ledger_of(
        ["joined", 1, 1, "08:00", 0, 0], ["joined", 2, 1, "09:00", 0, 0], ["allocated", 2, 1, "09:00", 0, 2]
    )

    assert list(check(ledger)) == [
        "Entry 3: line 2, paid 2026-11-23T09:00Z, was served before line 1, paid 2026-11-23T08:00Z."
    ]


def test_of_two_paid_in_one_instant_the_lower_number_comes_first() -> None:
    joined = (["joined", 9, 1, "08:00", 0, 0], ["joined", 10, 1, "08:00", 0, 0])

    assert list(check(ledger_of(*joined, ["allocated", 9, 1, "08:00", 0, 2]))) == []
    assert list(check(ledger_of(*joined, ["allocated", 10, 1, "08:00", 0, 2]))) == [
        "Entry 3: line 10, paid 2026-11-23T08:00Z, was served before line 9, paid 2026-11-23T08:00Z."
    ]


def test_nobody_is_passed_over_who_was_not_known_or_on_hold() -> None:
    late = ledger_of(
        ["joined", 2, 2, "09:00", 0, 0],
        ["joined", 1, 1, "08:00", 2, 0],
        ["allocated", 2, 1, "09:00", 0, 1],
        ["allocated", 1, 1, "08:00", 0, 3],
        ["allocated", 2, 1, "09:00", 0, 3],
    )
    held = ledger_of(
        ["joined", 1, 1, "08:00", 0, 0],
        ["joined", 2, 1, "09:00", 0, 0],
        ["held", 1, 1, "08:00", 0, 0],
        ["allocated", 2, 1, "09:00", 0, 3],
        ["released", 1, 1, "08:00", 0, 0],
        ["allocated", 1, 1, "08:00", 0, 5],
    )

    assert list(check(late)) == []
    assert list(check(held)) == []


def test_more_units_than_wait_are_found() -> None:
    ledger = ledger_of(["joined", 1, 1, "08:00", 0, 0], ["allocated", 1, 2, "08:00", 0, 1])

    assert list(check(ledger)) == ["Entry 2: 2 units of line 1 are allocated, but 1 wait."]


def test_entry_that_is_missing_altered_or_unreadable_is_found() -> None:
    ledger = ledger_of(
        ["joined", 1, 1, "08:00", 0, 0], ["joined", 2, 1, "09:00", 0, 0], ["joined", 3, 1, "10:00", 0, 0]
    )

    assert list(check([ledger[0], ledger[2]])) == [
        "Entry 2 has the number 3: entries are missing or repeated."
    ]
    assert list(check([ledger[0], ledger[1].replace("09:00", "07:00"), ledger[2]])) == [
        "Entry 2 does not fit its seal: it or one before it was altered."
    ]
    assert list(check([ledger[0], "nonsense\n"])) == ["Entry 2 cannot be read."]
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
        "The ledger is complete, unaltered, and everybody was served in the order of payment.\n",
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
            "UPDATE orders_orderline SET allocated = 1, state = 'waiting'",
            "Line {line} of {plan} has 1 units allocated, in the ledger 0.",
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
    with connection.cursor() as cursor:
        for table, name in (
            ("orders_queueevent", "units_once"),
            ("orders_queueevent", "no_delete"),
            ("orders_orderline", "paid_at_once"),
        ):
            on = f" ON {table}" if connection.vendor == "postgresql" else ""
            cursor.execute(f"DROP TRIGGER {table}_{name}{on}")
        cursor.execute(tampering)
    try:
        assert finding.format(plan=plan, line=line.pk) in verify().splitlines()
    finally:
        install_triggers(using="default")


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
