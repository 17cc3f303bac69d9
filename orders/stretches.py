"""The stretches of a queue that have one window each, so that only lines are read whose window has changed.

A window is a matter of how many units are before a line, and that changes with every device that goes out. But the supply
shrinks by as much: a place in the queue, by time of payment, stays in the same stretch. What moves the ends of the
stretches are changes of the supply, and units that get in or out before them, and then only lines between an old end
and the new one have another window.
"""

from bisect import bisect_right
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from orders.queue import Cut, Rank
from orders.windows import MONTHS, Outlook, Window


@dataclass(frozen=True, slots=True)
class Beyond:
    """What the announced supply does not cover: each line has a window of its own, by what is missing up to it.

    From `start` on; of the supply, `spare` units are left there. `last` and `monthly` are what the windows are made from.
    """

    start: Rank
    spare: int
    last: Window
    monthly: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Stretch:
    """Lines before `end`, or all that are left where there is none, with their window: None where it is not known."""

    end: Rank | None
    window: Window | Beyond | None


def stretches(outlook: Outlook, cuts: Sequence[Cut]) -> tuple[Stretch, ...]:
    """The stretches of a queue that the steps of `outlook` cut so."""
    covered = [
        Stretch(cuts[n].rank if n < len(cuts) else None, window)
        for n, (_reach, window) in enumerate(outlook.steps[: len(cuts) + 1])
    ]
    if len(cuts) < len(outlook.steps):
        return tuple(covered)
    rest = Stretch(None, None)
    if len(outlook.monthly) == MONTHS and min(outlook.monthly):
        start, last = cuts[-1], outlook.steps[-1][1]
        rest = Stretch(None, Beyond(start.rank, outlook.supply - start.before, last, outlook.monthly))
    return (*covered, rest)


def window_at(rank: Rank | None, among: Sequence[Stretch]) -> Window | Beyond | None:
    """What a line at that place has; without one, at the very beginning."""
    if rank is None:
        return among[0].window
    n = bisect_right(among, rank, hi=len(among) - 1, key=lambda stretch: stretch.end or rank)
    return among[n].window


def differences(
    before: Sequence[Stretch], after: Sequence[Stretch]
) -> Iterator[tuple[Rank | None, Rank | None]]:
    """From where to before where the window is another one than it was. None are the two ends of the queue."""
    ends = sorted({stretch.end for stretch in (*before, *after) if stretch.end})
    for start, end in zip([None, *ends], [*ends, None], strict=True):
        if window_at(start, before) != window_at(start, after):
            yield start, end
