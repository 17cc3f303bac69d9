"""How late deliveries are: what is learnt from past ones, those included that have not come yet. All of it pure."""

from bisect import bisect_left, bisect_right
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

# Fewer past batches than this say nothing: those of all plans are used, then this assumption (in days).
ENOUGH_BATCHES = 5
ASSUMED_LATENESS = (0, 0, 7, 14, 30)


@dataclass(frozen=True, slots=True)
class Curve:
    """How late deliveries are: by `days[n]` (ascending), all but the share `open[n]` of them have come."""

    days: tuple[int, ...]
    open: tuple[Fraction, ...]

    def open_after(self, day: int) -> Fraction:
        """The share of deliveries that come later than `day` days late."""
        n = bisect_right(self.days, day)
        return self.open[n - 1] if n else Fraction(1)

    def later_than(self, day: int) -> "Curve":
        """Of those deliveries that come later than that; there must be some."""
        known, n = self.open_after(day), bisect_right(self.days, day)
        return Curve(self.days[n:], tuple(share / known for share in self.open[n:]))

    def day_of(self, share: float) -> int:
        """The day by which at least `share` of them have come."""
        return next(day for day, left in zip(self.days, self.open, strict=True) if float(1 - left) >= share)


def lateness_curve(lateness: Sequence[int], overdue: Sequence[int] = ()) -> Curve:
    """What past deliveries say, those included that are still to come: the estimator of Kaplan and Meier.

    Each delivery counts among those that might have come on a day as long as it is known not to have come before, so an
    overdue one adds to all who came later than it is now. Later than anything that has come, the assumption counts on.
    """
    came = sorted(lateness)
    waits = sorted(overdue)
    days, open_shares, left = [], [], Fraction(1)
    for day in sorted(set(came)):
        at_risk = len(came) - bisect_left(came, day) + len(waits) - bisect_left(waits, day)
        left *= 1 - Fraction(came.count(day), at_risk)
        days.append(day)
        open_shares.append(left)
    if left:
        # Somebody is overdue for longer than anybody was who has come.
        since = max(waits[-1], days[-1] if days else waits[-1])
        beyond = lateness_curve([since + late for late in ASSUMED_LATENESS])
        for day, share in zip(beyond.days, beyond.open, strict=True):
            days.append(day)
            open_shares.append(left * share)
    return Curve(tuple(days), tuple(open_shares))
