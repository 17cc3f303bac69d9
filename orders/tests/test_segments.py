"""Positions are exact at every moment, whatever moves in the queue and whenever it is rolled up."""

import random
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import timedelta

import pytest
from django.db import connection, transaction
from django.db.models import F

from inventory.models import Fee, Plan
from orders.models import LineState, OrderLine, SegmentCount
from orders.queue import Cut, Rank, cuts, segments, standings, units_waiting
from orders.queue.segments import rebuild, roll_up, wrong_counts
from tests.builders import NOW, make_fee, make_line, make_order, make_plan
from tests.racing import failures, in_background, race

postgres = pytest.mark.postgres
transactional = pytest.mark.django_db(transaction=True)


@pytest.fixture(autouse=True)
def short_segments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SIZE", 5)
    monkeypatch.setattr(segments, "AT_MOST", 20)


def queue_of(fee: Fee, lines: int) -> list[OrderLine]:
    """Lines of 1, 2, 3, 1, 2 … units, paid a second apart."""
    return [
        make_line(fee, quantity=1 + n % 3, paid_at=NOW - timedelta(days=1) + timedelta(seconds=n))
        for n in range(lines)
    ]


def all_wrong(plan: Plan) -> list[tuple[int, int, int]]:
    """(line, units ahead as answered, units ahead counted one by one) where the two differ, and the same of the whole."""
    found, before = [], 0
    lines = list(OrderLine.objects.waiting(plan_id=plan.pk))
    places = standings(line.pk for line in lines)
    for line in lines:
        answered = places[line.pk].ahead
        if answered != before:
            found.append((line.pk, answered, before))
        before += line.waiting_units
    if units_waiting(plan_id=plan.pk) != before:
        found.append((0, units_waiting(plan_id=plan.pk), before))
    return found


def wrong_cuts(plan: Plan) -> list[int]:
    """Reaches of which the first line that they do not cover whole is answered otherwise than by counting one by one."""
    expected: list[Cut] = []
    before = 0
    for line in OrderLine.objects.waiting(plan_id=plan.pk):
        if line.paid_at:
            expected += [Cut(Rank(line.paid_at, line.pk), before)] * line.waiting_units
        before += line.waiting_units
    reaches = range(before + 3)
    answered = cuts(reaches, plan_id=plan.pk)
    assert len(answered) == before
    return [reach for reach, found in enumerate(answered) if found != expected[reach]]


def shape(plan: Plan) -> list[tuple[int | None, int | None]]:
    """(lines, units) of each segment, in their order."""
    rows = SegmentCount.objects.filter(plan=plan).order_by("from_paid_at", "from_id")
    return [(row.lines, row.units) for row in rows]


@pytest.mark.django_db
def test_positions_without_any_segment_are_the_plain_sum() -> None:
    plan = make_plan()
    queue_of(make_fee(plan), 7)

    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []
    assert units_waiting(plan_id=plan.pk) == 13


@postgres
@transactional
def test_roll_up_cuts_the_queue_into_counted_segments_and_an_open_tail() -> None:
    plan = make_plan()
    queue_of(make_fee(plan), 23)

    assert roll_up(plan_id=plan.pk) == 3
    assert shape(plan) == [(5, 9), (5, 10), (5, 11), (None, None)]
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []


@postgres
@transactional
def test_long_queue_is_cut_a_bounded_part_at_a_time() -> None:
    plan = make_plan()
    queue_of(make_fee(plan), 52)

    assert segments._roll_up_once(plan.pk) == 3
    assert [lines for lines, _units in shape(plan)] == [5, 5, 5, None]
    assert roll_up(plan_id=plan.pk) == 6
    assert [lines for lines, _units in shape(plan)] == [5] * 9 + [None]
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []


@postgres
@transactional
def test_payment_at_the_end_writes_no_count_and_one_reported_late_writes_one() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    queue_of(fee, 20)
    roll_up(plan_id=plan.pk)
    counts = SegmentCount.objects.count()

    make_line(fee, quantity=4, paid_at=NOW)
    assert SegmentCount.objects.count() == counts

    make_line(fee, quantity=4, paid_at=NOW - timedelta(days=1) + timedelta(seconds=7.5))
    assert SegmentCount.objects.count() == counts + 1
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []


@postgres
@transactional
def test_segment_overfilled_by_late_payments_is_split() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    queue_of(fee, 20)
    roll_up(plan_id=plan.pk)
    for n in range(12):
        make_line(fee, paid_at=NOW - timedelta(days=1) + timedelta(seconds=2.5, milliseconds=n))

    assert sorted(lines for lines, _units in shape(plan) if lines) == [1] * 12 + [5] * 3
    roll_up(plan_id=plan.pk)

    assert [lines for lines, _units in shape(plan)] == [5, 5, 7, 5, 5, None]
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []


@postgres
@transactional
def test_served_segments_disappear_and_the_first_stays() -> None:
    plan = make_plan()
    lines = queue_of(make_fee(plan), 23)
    roll_up(plan_id=plan.pk)
    OrderLine.objects.filter(pk__in=[line.pk for line in lines[:10]]).update(
        allocated=F("quantity"), state=LineState.ALLOCATED
    )
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []

    roll_up(plan_id=plan.pk)

    assert shape(plan) == [(0, 0), (5, 11), (None, None)]
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []


@postgres
@transactional
def test_lines_inserted_at_once_and_deleted_are_counted() -> None:
    plan = make_plan()
    lines = queue_of(make_fee(plan), 20)
    roll_up(plan_id=plan.pk)
    copies = []
    for line in lines[:6]:
        line.pk = None
        line._state.adding = True
        copies.append(line)
    made = OrderLine.objects.bulk_create(copies)
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []

    with connection.cursor() as cursor:
        # No line is ever deleted; if somebody switches that off, the counts hold all the same.
        cursor.execute("ALTER TABLE orders_orderline DISABLE TRIGGER orders_orderline_no_delete")
        cursor.execute("DELETE FROM orders_orderline WHERE id = ANY(%s)", [[line.pk for line in made[:3]]])
        cursor.execute("ALTER TABLE orders_orderline ENABLE TRIGGER orders_orderline_no_delete")
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []
    assert list(wrong_counts()) == []


@postgres
@transactional
def test_counts_are_gone_with_all_lines() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    queue_of(fee, 20)
    roll_up(plan_id=plan.pk)

    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE orders_orderline CASCADE")

    assert units_waiting(plan_id=plan.pk) == 0
    assert list(wrong_counts()) == []
    queue_of(fee, 12)
    roll_up(plan_id=plan.pk)
    assert all_wrong(plan) == []


@postgres
@transactional
@pytest.mark.parametrize("seed", range(4))
def test_positions_are_exact_after_anything_in_any_order(seed: int) -> None:
    dice = random.Random(seed)
    plan, other = make_plan(), make_plan("V06")
    fee, other_fee = make_fee(plan), make_fee(other)
    queue_of(fee, 12)
    clock = NOW

    def pay() -> None:
        nonlocal clock
        clock += timedelta(seconds=1)
        make_order([(fee, dice.randint(1, 4)), (other_fee, 1)], paid_at=clock)

    def pay_late() -> None:
        make_line(
            fee, quantity=dice.randint(1, 4), paid_at=clock - timedelta(seconds=dice.randint(0, 90_000))
        )

    def serve() -> None:
        for line in OrderLine.objects.waiting(plan_id=plan.pk)[: dice.randint(1, 9)]:
            OrderLine.objects.filter(pk=line.pk).update(
                allocated=line.quantity - line.withdrawn, state=LineState.ALLOCATED
            )

    def refund_one() -> None:
        line = dice.choice(list(OrderLine.objects.waiting(plan_id=plan.pk)) or [None])
        if line and line.waiting_units > 1:
            OrderLine.objects.filter(pk=line.pk).update(withdrawn=F("withdrawn") + 1)

    def hold_or_release() -> None:
        held = OrderLine.objects.filter(plan=plan, state=LineState.HELD)
        if held.exists():
            held.update(state=LineState.WAITING)
        else:
            chosen = [line.pk for line in OrderLine.objects.waiting(plan_id=plan.pk) if dice.random() < 0.2]
            OrderLine.objects.filter(pk__in=chosen).update(state=LineState.HELD)

    def tidy() -> None:
        roll_up(plan_id=plan.pk)

    def undone() -> None:
        with transaction.atomic():
            serve()
            transaction.set_rollback(True)

    doings: list[Callable[[], None]] = [
        pay,
        pay,
        pay_late,
        pay_late,
        serve,
        refund_one,
        hold_or_release,
        tidy,
        undone,
    ]
    for _step in range(60):
        dice.choice(doings)()
        assert all_wrong(plan) == []
        assert wrong_cuts(plan) == []
    roll_up(plan_id=plan.pk)
    assert all_wrong(plan) == [] == all_wrong(other)
    assert list(wrong_counts()) == []


@postgres
@transactional
def test_wrong_count_is_found_and_rebuilt() -> None:
    plan = make_plan("V08")
    queue_of(make_fee(plan), 23)
    roll_up(plan_id=plan.pk)
    first = SegmentCount.objects.order_by("from_paid_at").first()
    assert first
    SegmentCount.objects.filter(pk=first.pk).update(units=F("units") + 2)

    assert list(wrong_counts()) == [
        f"Queue of {plan}, segment from 0001-01-01T00:00:00+00:00, line 0: 11 units counted, 9 wait."
    ]
    rebuild(plan_id=plan.pk)
    assert list(wrong_counts()) == []
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []


# --- while others write --------------------------------------------------------------------------------


@contextmanager
def without_locks() -> Iterator[None]:
    """The functions as they would be if nobody kept the boundaries still."""
    unlocked = "\n".join(
        line for line in segments.SQL.read_text().splitlines() if "PERFORM pg_advisory_xact_lock" not in line
    )
    # A loop needs a body.
    unlocked = unlocked.replace("ORDER BY plan_id LOOP", "ORDER BY plan_id LOOP NULL;")
    with connection.cursor() as cursor:
        cursor.execute(unlocked)
    try:
        yield
    finally:
        segments.install(using="default")


def wrong_after_a_payment_was_under_way(plan: Plan, fee: Fee) -> list[str]:
    """Refund in the tail while a roll-up closes it; what `wrong_counts` says in the end."""
    lines = queue_of(fee, 23)
    with transaction.atomic():
        OrderLine.objects.filter(pk=lines[1].pk).update(withdrawn=1)
        in_background(lambda: roll_up(plan_id=plan.pk)).result(30)
    roll_up(plan_id=plan.pk)
    return list(wrong_counts())


@postgres
@transactional
def test_roll_up_leaves_a_queue_alone_whose_units_are_moving() -> None:
    plan = make_plan()

    assert wrong_after_a_payment_was_under_way(plan, make_fee(plan)) == []
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []


@postgres
@transactional
def test_control_without_the_lock_a_movement_is_lost() -> None:
    plan = make_plan()

    with without_locks():
        assert wrong_after_a_payment_was_under_way(plan, make_fee(plan)) == [
            f"Queue of {plan}, segment from 0001-01-01T00:00:00+00:00, line 0: 9 units counted, 8 wait."
        ]


@postgres
@transactional
def test_no_answer_is_wrong_while_eight_write_and_two_roll_up() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    lines = queue_of(fee, 60)
    unpaid = [make_order([(fee, 2)]) for _ in range(40)]

    def pay(share: int) -> None:
        dice = random.Random(share)
        for order in unpaid[share::4]:
            when = NOW - timedelta(seconds=dice.choice((0, 0, 40_000, 86_390)))
            with transaction.atomic():
                OrderLine.objects.filter(order=order).update(state=LineState.WAITING, paid_at=when)

    def serve(share: int) -> None:
        for line in lines[share::4]:
            with transaction.atomic():
                OrderLine.objects.filter(pk=line.pk).update(
                    allocated=F("quantity"), state=LineState.ALLOCATED
                )

    def tidy() -> None:
        for _ in range(40):
            roll_up(plan_id=plan.pk)

    def ask() -> list[tuple[int, int]]:
        wrong = []
        for _ in range(40):
            with connection.cursor() as cursor:
                # Both from one snapshot.
                cursor.execute(
                    "SELECT orders_units_before(plan_id, paid_at, id), coalesce((SELECT sum(quantity - allocated - "
                    "withdrawn) FROM orders_orderline ahead WHERE ahead.plan_id = mine.plan_id AND ahead.state = "
                    "'waiting' AND (ahead.paid_at, ahead.id) < (mine.paid_at, mine.id)), 0) "
                    "FROM orders_orderline mine WHERE state = 'waiting'"
                )
                wrong += [answer for answer in cursor.fetchall() if answer[0] != answer[1]]
        return wrong

    outcomes = race(
        *(lambda n=n: pay(n) for n in range(4)),
        *(lambda n=n: serve(n) for n in range(4)),
        tidy,
        tidy,
        ask,
        ask,
    )

    assert failures(outcomes) == []
    assert outcomes[-2:] == [[], []]
    roll_up(plan_id=plan.pk)
    assert all_wrong(plan) == []
    assert wrong_cuts(plan) == []
    assert list(wrong_counts()) == []
