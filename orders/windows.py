"""An honest window: when the last of some units will be allocated, and why that has changed. All of it pure.

The window of a unit is where the announced supply first covers all units up to it:

- *earliest*, *likely* and *latest* shift a batch's date by the lowest, the median and the 90th percentile of
  how many days late past batches came (nearest rank, so every figure is one that really happened);
- a batch that is overdue is judged only by past batches that were at least as late, and one that was put
  off comes no earlier than the day it was put off to;
- beyond the announced supply, the slowest, mean and fastest of the last three months of allocations count
  on; if one of those months allocated nothing, the answer is "not known yet".
"""

import math
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import date, timedelta
from functools import cached_property
from typing import Any

from orders.models import Basis, Cause

# Fewer past batches than this say nothing: those of all plans are used, then this assumption (in days).
ENOUGH_BATCHES = 5
ASSUMED_LATENESS = (0, 0, 7, 14, 30)
# Nobody can promise anything that far away.
HORIZON = timedelta(days=730)
MONTH_DAYS = 30
MONTHS = 3


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
    `lateness` are the days past batches were late, ascending; `monthly` the units allocated in each of
    the last three periods of 30 days.
    """

    today: date
    free: int
    expected: tuple[Expected, ...]
    lateness: tuple[int, ...]
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
            lateness_of=said["lateness_of"],
            monthly=tuple(said["monthly"]),
        )

    @property
    def supply(self) -> int:
        """Units that are free or announced."""
        return self.free + sum(batch.units for batch in self.expected)

    @cached_property
    def steps(self) -> tuple[tuple[int, Window], ...]:
        """How far the free devices reach, and each announced batch: (units covered by then, their window)."""
        reach, days = self.free, (self.today, self.today, self.today)
        steps = [(reach, Window(*days, Basis.FREE))]
        for batch in self.expected:
            # Batches can overtake one another on paper; the queue still needs them all.
            earliest, likely, latest = arrival(batch, outlook=self)
            days = (max(days[0], earliest), max(days[1], likely), max(days[2], latest))
            reach += batch.units
            steps.append((reach, Window(*days, Basis.SUPPLY)))
        return tuple(steps)


def nearest_rank(ascending: Sequence[int], share: float) -> int:
    """The smallest of the values that at least `share` of them do not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def arrival(batch: Expected, *, outlook: Outlook) -> tuple[date, date, date]:
    """When the batch comes, as (earliest, likely, latest), none of them before today.

    Past lateness is counted from the date that was said first, and so it is here: a batch that was put off
    has used up some of it. It is not expected before the date it was put off to.
    """
    said = min(batch.first_on, batch.on)
    not_before = max(outlook.today, batch.on) if batch.on > batch.first_on else outlook.today
    lateness = [days for days in outlook.lateness if said + timedelta(days=days) >= outlook.today]
    if not lateness or said + timedelta(days=lateness[-1]) < not_before:
        # Later than anything on record: what is left is the assumption, counted from there.
        said, lateness = not_before, list(ASSUMED_LATENESS)
    earliest, likely, latest = (
        max(not_before, said + timedelta(days=days))
        for days in (lateness[0], nearest_rank(lateness, 0.5), nearest_rank(lateness, 0.9))
    )
    return earliest, likely, latest


def window(*, units: int, outlook: Outlook) -> Window | None:
    """The window of the unit that has `units` - 1 before it in its plan; None when it is not known."""
    covering = bisect_left(outlook.steps, units, key=lambda step: step[0])
    if covering < len(outlook.steps):
        return outlook.steps[covering][1]
    if len(outlook.monthly) < MONTHS or not min(outlook.monthly):
        return None
    reach, last = outlook.steps[-1]
    missing = units - reach

    def days_at(monthly_rate: float) -> timedelta:
        return timedelta(days=min(math.ceil(missing * MONTH_DAYS / monthly_rate), 10_000))

    mean = sum(outlook.monthly) / len(outlook.monthly)
    beyond = Window(
        last.earliest + days_at(max(outlook.monthly)),
        last.likely + days_at(mean),
        last.latest + days_at(min(outlook.monthly)),
        Basis.RATE,
    )
    return beyond if beyond.latest <= outlook.today + HORIZON else None


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
