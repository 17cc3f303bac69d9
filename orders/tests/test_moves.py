"""What has moved ahead of a line since its customer last looked."""

import re
from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries

from accounts.models import User
from inventory.models import Fee
from orders.allocation import allocate_devices
from orders.models import LineState, Order, OrderLine, QueueEvent, QueueEventKind
from orders.moves import Look, Moves, moves_since, newest_event_id
from orders.queue import units_ahead
from orders.queue.fairness import record
from orders.tests.shopping import log_in
from tests.builders import NOW, make_devices, make_fee, make_line, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(hours=3)


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan())


@pytest.fixture
def ahead(fee: Fee) -> list[OrderLine]:
    """Four lines of five units."""
    return [make_line(fee, quantity=5, paid_at=EARLIER + timedelta(minutes=n)) for n in range(4)]


@pytest.fixture
def customer(client: Client) -> User:
    customer = make_user("buyer@example.com")
    log_in(client, customer)
    return customer


@pytest.fixture
def order(customer: User, fee: Fee, ahead: list[OrderLine]) -> Order:
    return make_order([(fee, 2)], customer=customer, paid_at=EARLIER + timedelta(hours=1))


def look_at(line: OrderLine) -> Look:
    return Look(NOW, newest_event_id(), units_ahead(line))


def happen(line: OrderLine, kind: QueueEventKind, units: int, **columns: object) -> None:
    """What a verb would do to the line, with its event."""
    OrderLine.objects.filter(pk=line.pk).update(**columns)
    record(kind, [(line, units)], now=NOW)


def moves(order: Order, before: Look) -> Moves:
    line = order.lines.get()
    return moves_since(line, ahead=units_ahead(line), before=before, now=timezone.now())


def test_everything_that_moved_ahead_is_summed_by_one_query(
    order: Order, fee: Fee, ahead: list[OrderLine], django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    before = look_at(order.lines.get())
    make_devices(fee.term.plan, 7)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    happen(ahead[1], QueueEventKind.RETURNED, 1, allocated=1)
    happen(ahead[2], QueueEventKind.LEFT, 2, withdrawn=2)
    happen(ahead[3], QueueEventKind.HELD, 5, state=LineState.HELD)
    make_line(fee, quantity=3, paid_at=EARLIER - timedelta(hours=1))
    make_line(fee, quantity=9, paid_at=NOW)  # behind

    line = order.lines.get()
    now_ahead = units_ahead(line)
    with django_assert_num_queries(1):
        found = moves_since(line, ahead=now_ahead, before=before, now=NOW)

    assert found == Moves(
        since=NOW, allocated=7, left=2, held=5, joined=3, released=0, returned=1, difference=-10
    )
    assert list(found.sentences()) == [
        "7 phones ahead of yours were allocated.",
        "2 ahead of yours were refunded.",
        "5 ahead of yours were put on hold, because their payment is disputed.",
        "3 came in before yours, because their earlier payment was confirmed late.",
        "1 before yours waits again, because its device failed.",
    ]


def test_of_two_paid_at_once_the_one_placed_first_is_ahead(order: Order, fee: Fee) -> None:
    line = order.lines.get()
    before = look_at(line)
    make_line(fee, quantity=4, paid_at=line.paid_at or NOW)
    assert moves(order, before).joined == 0


def test_own_units_and_other_queues_move_nothing(order: Order, fee: Fee) -> None:
    make_devices(fee.term.plan, 20)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    before = look_at(order.lines.get())
    make_devices(fee.term.plan, 1)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    make_line(make_fee(make_plan("V06")), paid_at=EARLIER)
    assert moves(order, before) == Moves(NOW, 0, 0, 0, 0, 0, 0, difference=0)
    assert list(moves(order, before).sentences()) == []


def test_where_not_all_is_known_only_the_difference_is_said(order: Order) -> None:
    known = moves(order, look_at(order.lines.get()))
    fewer = Moves(known.since, 3, 0, 0, 0, 0, 0, difference=-5)
    more = Moves(known.since, 3, 0, 0, 0, 0, 0, difference=1)
    assert list(fewer.sentences()) == ["5 phones fewer are ahead of yours."]
    assert list(more.sentences()) == ["1 phone more is ahead of yours."]


def test_open_page_reads_what_has_settled_only_once(
    order: Order, ahead: list[OrderLine], clock: time_machine.Traveller
) -> None:
    before = look_at(order.lines.get())
    read_from = [before.event_id]
    for withdrawn in range(1, 5):
        happen(ahead[0], QueueEventKind.LEFT, 1, withdrawn=withdrawn)
        read_from.append(newest_event_id())
        clock.shift(timedelta(seconds=10))
        with CaptureQueriesContext(connection) as asked:
            assert moves(order, before).left == withdrawn
        # What was there ten seconds before has settled, and what came since is read again the next time.
        settled = read_from[max(0, withdrawn - 2)]
        assert re.findall(r'"id" > (\d+)', asked[-1]["sql"]) == [str(settled)]


def test_event_that_is_seen_after_one_with_a_greater_number_is_not_lost(
    order: Order, fee: Fee, ahead: list[OrderLine], clock: time_machine.Traveller
) -> None:
    before = look_at(order.lines.get())
    happen(ahead[0], QueueEventKind.LEFT, 1, withdrawn=1)
    early = QueueEvent.objects.latest("pk")
    QueueEvent.objects.create(
        pk=early.pk + 2,
        plan=early.plan,
        line=ahead[1],
        kind=QueueEventKind.LEFT,
        units=1,
        paid_at=early.paid_at,
        at=NOW,
    )
    OrderLine.objects.filter(pk=ahead[1].pk).update(withdrawn=1)
    clock.shift(timedelta(seconds=10))
    assert moves(order, before).left == 2

    # The one between them commits only now.
    QueueEvent.objects.create(
        pk=early.pk + 1,
        plan=early.plan,
        line=ahead[2],
        kind=QueueEventKind.LEFT,
        units=1,
        paid_at=early.paid_at,
        at=NOW,
    )
    OrderLine.objects.filter(pk=ahead[2].pk).update(withdrawn=1)
    for _ in range(3):
        clock.shift(timedelta(seconds=10))
        assert moves(order, before).left == 3


def said(client: Client, order: Order, *, live: bool = False) -> list[str] | None:
    """What a visit says of the moves; None when it says nothing of them."""
    answer = client.get(f"/orders/{order.reference}/" + ("live/" if live else ""))
    (standing,) = answer.context["situation"].standings
    if standing.moves is None:
        assert "Since your last visit" not in answer.content.decode()
        return None
    assert "Since your last visit" in answer.content.decode()
    return list(standing.moves.sentences())


def test_first_visit_says_nothing_and_the_next_what_moved_since(
    client: Client, order: Order, fee: Fee, clock: time_machine.Traveller
) -> None:
    assert said(client, order) is None
    make_devices(fee.term.plan, 6)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    assert said(client, order, live=True) is None

    clock.move_to(NOW + timedelta(hours=1))
    six = ["6 phones ahead of yours were allocated."]
    assert said(client, order) == six
    # Neither loading the page again nor what asks by itself takes it away.
    assert said(client, order) == six
    assert said(client, order, live=True) == six

    make_devices(fee.term.plan, 1)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    assert said(client, order, live=True) == ["7 phones ahead of yours were allocated."]

    clock.move_to(NOW + timedelta(hours=2))
    assert said(client, order) == ["1 phone ahead of yours was allocated."]
    clock.move_to(NOW + timedelta(hours=3))
    assert said(client, order) == []


def test_order_that_is_complete_says_nothing_of_moves(
    client: Client, order: Order, fee: Fee, clock: time_machine.Traveller
) -> None:
    said(client, order)
    make_devices(fee.term.plan, 22)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    clock.move_to(NOW + timedelta(hours=1))
    assert said(client, order) is None
