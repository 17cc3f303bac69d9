"""Four months of a plan played through: orders come in, batches arrive, devices go to whoever paid first.

Nothing here touches the database: `play` deals the devices by the shop's own rule (`orders.fifo`) and estimates
by its own arithmetic (`orders.windows`), so that what it makes up is what the shop would have done.
"""

import heapq
import itertools
from bisect import bisect_left
from collections import deque
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date, datetime, time, timedelta
from random import Random

from django.conf import settings

from evidence.contract_time import contract_date, contract_zone
from orders.fifo import Claim, hand_out
from orders.lateness import ASSUMED_LATENESS, ENOUGH_BATCHES
from orders.windows import (
    MONTH_DAYS,
    MONTHS,
    Expected,
    Outlook,
    Window,
    window,
)
from vmos_presale.demo.catalogue import Model, PastBatch

# The oldest order was paid so many days ago, the newest two hours.
DAYS = 116
HOLD_BACK = timedelta(minutes=10)
# From a capture to our knowing of it.
REPORTED_AFTER = timedelta(seconds=3)
SUPPLIER_ANNOUNCES = timedelta(days=35)
QUANTITIES = {1: 60, 2: 18, 3: 8, 5: 8, 10: 5, 20: 1}
DAYS_OF_TERMS = {7: 8, 30: 45, 90: 27, 180: 12, 365: 8}


@dataclass(frozen=True, slots=True)
class Arrival:
    """A past batch with the moments of its announcement and its receipt."""

    batch: PastBatch
    reference: str
    announced_at: datetime
    expected_on: date
    received_at: datetime


@dataclass(frozen=True, slots=True)
class Coming:
    """An announced batch, with the dates given for it."""

    reference: str
    quantity: int
    announced_at: datetime
    first_expected_on: date
    moved_at: datetime | None
    now_expected_on: date

    def expected_on(self, at: datetime) -> date:
        return self.now_expected_on if self.moved_at and self.moved_at <= at else self.first_expected_on


@dataclass(frozen=True, slots=True)
class Gotten:
    """Device number `device` of its plan (from 0, in the order of receipt), for unit `unit` of a line."""

    unit: int
    device: int
    at: datetime


@dataclass(slots=True)
class Sale:
    """A line. When it was paid, `units_ahead`, `outlook` and `promised` made its first estimate."""

    placed_at: datetime
    paid_at: datetime
    quantity: int
    days: int = 0
    is_presale: bool = False
    units_ahead: int = 0
    outlook: Outlook | None = None
    promised: Window | None = None
    gotten: list[Gotten] = field(default_factory=list)

    @property
    def waiting(self) -> int:
        return self.quantity - len(self.gotten)


@dataclass(frozen=True, slots=True)
class History:
    """How a plan came to its present state. Sales are in the order of payment, arrivals in that of receipt."""

    arrivals: tuple[Arrival, ...]
    coming: tuple[Coming, ...]
    sales: tuple[Sale, ...]


def play(model: Model, *, now: datetime, random: Random) -> History:
    """Play the plan from its first order to `now`, such that exactly `model.waiting` units wait and `model.free` are free."""
    arrivals = tuple(sorted(_arrivals(model, now=now), key=lambda arrival: arrival.received_at))
    coming = coming_batches(model, now=now)
    received = sum(arrival.batch.quantity for arrival in arrivals)
    sales = _sales(received + model.waiting - model.free, now=now, random=random)
    _deal(model, arrivals, coming, sales, random=random)
    return History(arrivals, coming, tuple(sales))


def contract_day(now: datetime, days: int) -> date:
    """The day `days` after today, in Hong Kong."""
    return contract_date(now) + timedelta(days=days)


def office_hour(now: datetime, days: int) -> datetime:
    """Eleven in the morning of that day, in Hong Kong."""
    return datetime.combine(contract_day(now, days), time(11), contract_zone())


def _arrivals(model: Model, *, now: datetime) -> Iterator[Arrival]:
    for number, batch in enumerate(model.past, start=1):
        expected_on = contract_day(now, batch.expected)
        yield Arrival(
            batch=batch,
            reference=_reference(model, number),
            announced_at=office_hour(now, batch.expected) - SUPPLIER_ANNOUNCES,
            expected_on=expected_on,
            received_at=office_hour(now, batch.expected + batch.late),
        )


def coming_batches(model: Model, *, now: datetime) -> tuple[Coming, ...]:
    """The batches on their way, in the order of their announcement."""
    return tuple(
        Coming(
            reference=_reference(model, number),
            quantity=batch.quantity,
            announced_at=office_hour(now, batch.announced),
            first_expected_on=contract_day(now, batch.first_expected),
            moved_at=office_hour(now, batch.moved) if batch.moved else None,
            now_expected_on=contract_day(now, batch.expected),
        )
        for number, batch in enumerate(model.coming, start=len(model.past) + 1)
    )


def _reference(model: Model, number: int) -> str:
    """The supplier's name for the plan's batch: "V08-ANDROID-13-HONG-KONG-07"."""
    return f"{model.slug.upper()}-{number:02}"


def _sales(units: int, *, now: datetime, random: Random) -> list[Sale]:
    """Sales of exactly `units` units, by the time of payment."""
    quantities = []
    while units:
        (quantity,) = random.choices(list(QUANTITIES), list(QUANTITIES.values()))
        quantities.append(min(quantity, units))
        units -= quantities[-1]
    newest = now - timedelta(hours=2)
    span = timedelta(days=DAYS).total_seconds()
    moments = sorted(newest - timedelta(seconds=random.uniform(0, span)) for _ in quantities)
    return [
        Sale(paid_at - timedelta(seconds=random.randint(45, 1500)), paid_at, quantity)
        for paid_at, quantity in zip(moments, quantities, strict=True)
    ]


def _deal(
    model: Model,
    arrivals: Sequence[Arrival],
    coming: Sequence[Coming],
    sales: Sequence[Sale],
    *,
    random: Random,
) -> None:
    """Let time pass: a payment joins the queue, is served 10 minutes later at the earliest, a batch fills the shelf."""
    shelf: deque[int] = deque()
    queue: deque[Sale] = deque()
    allocated_at: list[datetime] = []
    devices = 0
    events: list[tuple[datetime, int, Sale | Arrival]] = []
    for number, sale in enumerate(sales):
        events.append((sale.paid_at, 2 * number, sale))
        events.append((sale.paid_at + HOLD_BACK, 2 * number + 1, sale))
    events += [(arrival.received_at, -number, arrival) for number, arrival in enumerate(arrivals, start=1)]
    heapq.heapify(events)
    while events:
        moment, number, subject = heapq.heappop(events)
        if isinstance(subject, Arrival):
            shelf.extend(range(devices, devices + subject.batch.quantity))
            devices += subject.batch.quantity
        elif number % 2 == 0:
            queue.append(subject)
            ahead = sum(sale.waiting for sale in queue) - subject.quantity
            subject.is_presale = len(shelf) < ahead + subject.quantity
            subject.days = _term(model, is_presale=subject.is_presale, random=random)
            subject.units_ahead = ahead
            subject.outlook = _outlook(arrivals, coming, allocated_at, free=len(shelf), at=moment)
            subject.promised = window(units=ahead + subject.quantity, outlook=subject.outlook)
            continue
        _serve(shelf, queue, allocated_at, at=moment)


def _serve(shelf: deque[int], queue: deque[Sale], allocated_at: list[datetime], *, at: datetime) -> None:
    if not shelf:
        return
    eligible = [sale for sale in queue if sale.paid_at <= at - HOLD_BACK]
    claims = [Claim(number, sale.waiting, len(sale.gotten) + 1) for number, sale in enumerate(eligible)]
    for gift in hand_out(devices=list(shelf), claims=claims):
        eligible[gift.line_id].gotten.append(Gotten(gift.unit, shelf.popleft(), at))
        allocated_at.append(at)
    while queue and not queue[0].waiting:
        queue.popleft()


def _term(model: Model, *, is_presale: bool, random: Random) -> int:
    offered = [days for days in model.usd if days >= settings.PRESALE_MINIMUM_DAYS or not is_presale]
    (chosen,) = random.choices(offered, [DAYS_OF_TERMS[days] for days in offered])
    return chosen


def _outlook(
    arrivals: Sequence[Arrival],
    coming: Sequence[Coming],
    allocated_at: Sequence[datetime],
    *,
    free: int,
    at: datetime,
) -> Outlook:
    """What was known of the plan at the moment `at`."""
    to_come = [
        Expected(
            arrival.reference,
            arrival.expected_on,
            arrival.batch.quantity,
            arrival.expected_on,
            arrival.batch.quantity,
        )
        for arrival in arrivals
        if arrival.announced_at <= at < arrival.received_at
    ]
    to_come += [
        Expected(
            batch.reference,
            batch.expected_on(at),
            batch.quantity,
            batch.first_expected_on,
            batch.quantity,
        )
        for batch in coming
        if batch.announced_at <= at
    ]
    lateness = sorted(arrival.batch.late for arrival in arrivals if arrival.received_at <= at)
    enough = len(lateness) >= ENOUGH_BATCHES
    today = contract_day(at + HOLD_BACK, 0)
    overdue = [(max(today, batch.on) - batch.first_on).days for batch in to_come]
    months = [at - timedelta(days=MONTH_DAYS * ago) for ago in range(MONTHS, -1, -1)]
    counts = [bisect_left(allocated_at, moment) for moment in months]
    return Outlook(
        today=today,
        free=free,
        expected=tuple(sorted(to_come, key=lambda expected: expected.on)),
        lateness=tuple(lateness if enough else ASSUMED_LATENESS),
        overdue=tuple(sorted(days for days in overdue if days > 0)) if enough else (),
        lateness_of="plan" if enough else "assumption",
        monthly=tuple(later - earlier for earlier, later in itertools.pairwise(counts)),
    )
