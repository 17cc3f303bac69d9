"""An honest window: when the last of some units will be allocated, and why that has changed. All of it pure.

The window of a unit says by when the announced supply covers all units up to it:

- how late a delivery may come is learnt from how late past ones came after the date first said. Those that are overdue
  count as far as they are known, as at least so many days late (`lateness.py`);
- a batch that is overdue is judged only by past batches that were at least as late, and one that was put off comes no
  earlier than the day it was put off to;
- who needs several deliveries needs *all* of them, so their chances are multiplied: *likely* is the first day on which
  enough has come with a chance of one half, *latest* with nine in ten, and *earliest* the first day that is possible;
- beyond the announced supply, the slowest, mean and fastest of the last three months of allocations count
  on; if one of those months allocated nothing, the answer is "not known yet".

The chances are multiplied as if deliveries were late independently of each other. If they are late together, all of them
come in time more often than that, so the dates hold at least as often as they say. That is why nobody's date rests on
one delivery or else another, which would be earlier, and wrong wherever what delays one delays both.

What is learnt from few deliveries is worth as much: the latest of five on record is exceeded by one in six. So it is the
track record (`track_record.py`) that says how good the dates are, and not this.
"""

import math
from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property, lru_cache
from typing import Any

from orders.lateness import ASSUMED_LATENESS, Curve, lateness_curve
from orders.models import Basis, Cause

# Nobody can promise anything that far away.
HORIZON = timedelta(days=730)
MONTH_DAYS = 30
MONTHS = 3
# What "likely" and "at the latest" mean.
LIKELY, LATEST = 0.5, 0.9


@dataclass(frozen=True, slots=True)
class Window:
    """When the last of some units is expected to be allocated. `earliest` ≤ `likely` ≤ `latest`."""

    earliest: date
    likely: date
    latest: date
    basis: Basis


@dataclass(frozen=True, slots=True)
class Expected:
    """`units` still to come, of `quantity`, with one announced batch on the day `on`, first said to be `first_on`."""

    reference: str
    on: date
    units: int
    first_on: date
    quantity: int


@dataclass(frozen=True)
class Outlook:
    """Everything an estimate of one plan is made from.

    `today` is the contract date on which a free device can be allocated; `expected` is in date order;
    `lateness` are the days past batches were late, ascending, and `overdue` the days that others are late at least,
    which are still to come; `monthly` the units allocated in each of the last three periods of 30 days.
    """

    today: date
    free: int
    expected: tuple[Expected, ...]
    lateness: tuple[int, ...]
    overdue: tuple[int, ...]
    lateness_of: str
    monthly: tuple[int, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "today": self.today.isoformat(),
            "free": self.free,
            "expected": [
                [
                    batch.reference,
                    batch.on.isoformat(),
                    batch.units,
                    batch.first_on.isoformat(),
                    batch.quantity,
                ]
                for batch in self.expected
            ],
            "lateness": list(self.lateness),
            "overdue": list(self.overdue),
            "lateness_of": self.lateness_of,
            "monthly": list(self.monthly),
        }

    @classmethod
    def from_json(cls, said: dict[str, Any]) -> "Outlook":
        return cls(
            today=date.fromisoformat(said["today"]),
            free=said["free"],
            expected=tuple(
                Expected(reference, date.fromisoformat(on), units, date.fromisoformat(first_on), quantity)
                for reference, on, units, first_on, quantity in said["expected"]
            ),
            lateness=tuple(said["lateness"]),
            overdue=tuple(said["overdue"]),
            lateness_of=said["lateness_of"],
            monthly=tuple(said["monthly"]),
        )

    @property
    def supply(self) -> int:
        """Units that are free or announced."""
        return self.free + sum(batch.units for batch in self.expected)

    @cached_property
    def steps(self) -> tuple[tuple[int, Window], ...]:
        """How far the free devices reach, and the announced batches: (units covered by then, their window)."""
        free = Window(self.today, self.today, self.today, Basis.FREE)
        announced = _steps(self.today, self.expected, self.lateness, self.overdue)
        return ((self.free, free), *((self.free + reach, found) for reach, found in announced))


@dataclass(frozen=True, slots=True)
class Arrival:
    """When a batch comes, at the earliest on the first of `days` (ascending): `chances[n]` by `days[n]`."""

    days: tuple[date, ...]
    chances: tuple[float, ...]

    def chance_by(self, day: date) -> float:
        n = bisect_right(self.days, day)
        return self.chances[n - 1] if n else 0.0


def arrival(batch: Expected, *, today: date, curve: Curve) -> Arrival:
    """When the batch comes, not before today.

    Past lateness is counted from the date that was said first, and so it is here: a batch that was put off
    has used up some of it. It is not expected before the date it was put off to.
    """
    said = min(batch.first_on, batch.on)
    not_before = max(today, batch.on) if batch.on > batch.first_on else today
    if said + timedelta(days=curve.days[-1]) < not_before:
        # Later than anything on record: what is left is the assumption, counted from there.
        said, curve = not_before, lateness_curve(ASSUMED_LATENESS)
    curve = curve.later_than((today - said).days - 1)
    chances = {
        max(not_before, said + timedelta(days=late)): float(1 - left)
        for late, left in zip(curve.days, curve.open, strict=True)
    }
    return Arrival(tuple(chances), tuple(chances.values()))


@lru_cache(maxsize=256)
def _steps(
    today: date, expected: tuple[Expected, ...], lateness: tuple[int, ...], overdue: tuple[int, ...]
) -> tuple[tuple[int, Window], ...]:
    """How many announced units are covered by when: steps of (units, the window of the last of them).

    The batches that a day can count on are, of all that are announced, the surest ones for that day: together they
    come by then with the product of their chances, however announced. Kept, because every line of a queue is asked.
    """
    curve = lateness_curve(lateness, overdue)
    batches = [(batch.units, arrival(batch, today=today, curve=curve)) for batch in expected]
    reached: dict[float, list[tuple[int, date]]] = {0.0: [], LIKELY: [], LATEST: []}
    for day in sorted({day for _, coming in batches for day in coming.days}):
        chances = sorted(((coming.chance_by(day), units) for units, coming in batches), reverse=True)
        for share, steps in reached.items():
            covered = _covered(chances, share=share)
            # What was sure enough on an earlier day stays so.
            if covered > (steps[-1][0] if steps else 0):
                steps.append((covered, day))
    earliest, likely, latest = reached.values()
    return tuple(
        (
            units,
            Window(_day_of(units, earliest), _day_of(units, likely), _day_of(units, latest), Basis.SUPPLY),
        )
        for units in sorted({units for steps in reached.values() for units, _ in steps})
    )


def _covered(chances: Sequence[tuple[float, int]], *, share: float) -> int:
    """Units of the batches that, surest first, have all come with a chance of `share`, or any chance at all for 0."""
    together, covered = 1.0, 0
    for chance, units in chances:
        together *= chance
        if not together or together < share:
            break
        covered += units
    return covered


def _day_of(units: int, steps: Sequence[tuple[int, date]]) -> date:
    return steps[bisect_left(steps, units, key=lambda step: step[0])][1]


def window(*, units: int, outlook: Outlook) -> Window | None:
    """The window of the unit that has `units` - 1 before it in its plan; None when it is not known."""
    covering = bisect_left(outlook.steps, units, key=lambda step: step[0])
    if covering < len(outlook.steps):
        return outlook.steps[covering][1]
    return beyond(missing=units - outlook.supply, outlook=outlook)


def beyond(*, missing: int, outlook: Outlook) -> Window | None:
    """The window of a unit that is the last of `missing` which the supply does not cover; None when it is not known."""
    if len(outlook.monthly) < MONTHS or not min(outlook.monthly):
        return None
    _reach, last = outlook.steps[-1]

    def days_at(monthly_rate: float) -> timedelta:
        return timedelta(days=min(math.ceil(missing * MONTH_DAYS / monthly_rate), 10_000))

    mean = sum(outlook.monthly) / len(outlook.monthly)
    found = Window(
        last.earliest + days_at(max(outlook.monthly)),
        last.likely + days_at(mean),
        last.latest + days_at(min(outlook.monthly)),
        Basis.RATE,
    )
    return found if found.latest <= outlook.today + HORIZON else None


@dataclass(frozen=True, slots=True)
class Change:
    """What an estimate was made from, and what the next one is: outlooks, units ahead, windows.

    `cut` are references of batches that were cancelled or came short; `is_displaced` says whether units have got
    in before others of the plan since.
    """

    before: Outlook
    after: Outlook
    ahead_before: int
    ahead_after: int
    window_before: Window | None
    window_after: Window | None
    cut: frozenset[str] = frozenset()
    is_displaced: bool = False


def cause_of(change: Change) -> Cause:
    """The main cause of a change, as the customer is told it: of several, the one that moved the window most surely."""
    before = {batch.reference: batch for batch in change.before.expected}
    after = {batch.reference: batch for batch in change.after.expected}
    both = [(before[reference], after[reference]) for reference in before.keys() & after.keys()]
    margin = (change.after.supply - change.ahead_after) - (change.before.supply - change.ahead_before)
    if _is_later(change):
        if any(new.on > old.on or new.on < change.after.today for old, new in both):
            return Cause.SUPPLY_LATE
        if change.cut & before.keys() or any(new.quantity < old.quantity for old, new in both):
            return Cause.SUPPLY_CUT
        if margin < 0:
            return Cause.LATE_PAYMENTS if change.is_displaced else Cause.SUPPLY_CUT
        return Cause.PACE
    if after.keys() - before.keys() or any(
        new.on < old.on or new.quantity > old.quantity for old, new in both
    ):
        return Cause.SUPPLY_MORE
    return Cause.REFUNDS if margin > 0 else Cause.PACE


def _is_later(change: Change) -> bool:
    before, after = change.window_before, change.window_after
    if before is None or after is None:
        return before is not None
    return (after.likely, after.latest) > (before.likely, before.latest)
