#!/usr/bin/env python3
"""Check a queue's public ledger with nothing but Python 3.9: python3 verify_queue_ledger.py LEDGER [HEAD …]

LEDGER is the file that you downloaded; each HEAD is a seal that you know from elsewhere (your receipt, the public page
of any day): it has to be in the ledger. An entry is a seal, a space, and a list: number, what happened, order line, units,
time of payment, when it was recorded, units displaced, and of an allocation how many entries were known. Its seal is
the sha256 of the seal before it and of the list.

The rule that is checked: of the units that wait, each device goes to the line that was paid first, and of those paid in
the same instant to the lower number. A line may be passed over only while it is on hold, or if its entry is not among
those that were known when the device was given and was recorded no longer than GRACE before.
"""

import hashlib
import heapq
import re
import sys
from collections.abc import Iterable, Iterator
from datetime import datetime, timedelta

# Whatever is recorded is in the tables within this time, and no entry is recorded longer before one that precedes it.
GRACE = timedelta(minutes=10)
# What happened → what it adds to the units of the line that wait, and to those that have a device.
MOVES = {"joined": (1, 0), "allocated": (-1, 1), "left": (-1, 0), "returned": (1, -1), "refunded": (0, -1)}
MOVES.update(held=(0, 0), released=(0, 0))
WHEN, COUNT = '"([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9:]{8}[.][0-9]{6})Z"', "([0-9]+)"
LIST = rf'\[{COUNT},"({"|".join(MOVES)})",{COUNT},([1-9][0-9]*),{WHEN},{WHEN},{COUNT},(?:{COUNT}|null)\]'
ENTRY = re.compile(f"([0-9a-f]{{64}}) ({LIST})\n?")
Rank = tuple[datetime, int]


class Line:
    def __init__(self, rank: Rank) -> None:
        self.rank, self.waiting, self.served, self.is_held = rank, 0, 0, False
        self.waits_since = (0, rank[0])  # the entry since which it waits without a break, and its time


def seal_of(before: str, text: str) -> str:
    return hashlib.sha256((before + text).encode()).hexdigest()


def check(ledger: Iterable[str], heads: Iterable[str] = ()) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with the lines of `ledger`."""
    before, missing, known, latest = "0" * 64, set(heads), 0, datetime.min  # noqa: DTZ901 (all are UTC)
    lines: dict[int, Line] = {}
    queue: list[Rank] = []  # a heap of the ranks of all lines that wait, and of some that do no longer
    for count, row in enumerate(ledger, 1):
        try:
            found = ENTRY.fullmatch(row)
            parts = found.groups() if found and found[3] == str(count) else ()
            seal, text, _, kind, name, units, paid_at, at, _, seen = parts
            rank, moved = (datetime.fromisoformat(paid_at), int(name)), int(units)
            recorded, knew = datetime.fromisoformat(at), int(seen or -1)
        except ValueError:
            yield f"Entry {count} is missing, or cannot be read."
            return
        if seal_of(before, text) != seal:
            yield f"Entry {count} does not fit its seal: it or one before it was altered."
        missing.discard(before := seal)
        if recorded < (latest := max(latest, recorded)) - GRACE:
            yield f"Entry {count} is of {recorded}, after one of {latest}."
        is_new, line = rank[1] not in lines, lines.setdefault(rank[1], Line(rank))
        waiting, served = line.waiting + moved * MOVES[kind][0], line.served + moved * MOVES[kind][1]
        fits = is_new == (kind == "joined") and line.rank == rank and min(waiting, served) >= 0
        if not fits or (kind in ("allocated", "held", "released") and line.is_held != (kind == "released")):
            yield f"Entry {count}: of line {name}, paid {rank[0]}, {units} units cannot be {kind} after the entries before."
        if kind == "allocated":
            if not known <= knew < count:
                yield f"Entry {count} knew {seen} entries, not {known} to {count - 1}."
            known = max(known, knew)
            for passed in passed_over(rank, knew, recorded, queue, lines):
                yield f"Entry {count}: line {name}, paid {rank[0]}, was served before {passed[1]}, paid {passed[0]}."
        if kind in ("joined", "released", "returned"):
            line.waits_since = line.waits_since if kind == "returned" and line.waiting else (count, recorded)
            heapq.heappush(queue, rank)
        line.waiting, line.served = waiting, served
        line.is_held = kind == "held" or (line.is_held and kind != "released")
    yield from (f"The seal {head} is not in this ledger." for head in sorted(missing))


def passed_over(rank: Rank, knew: int, at: datetime, queue: list[Rank], lines: dict[int, Line]) -> list[Rank]:
    """The first rank before `rank` that had to be served by then, in a list; an empty one if there is none."""
    waiting, passed = list[Rank](), list[Rank]()
    while queue and queue[0] < rank and not passed:
        first = lines[heapq.heappop(queue)[1]]
        if first.waiting > 0 and not first.is_held:
            waiting.append(first.rank)
            if first.waits_since[0] <= knew or first.waits_since[1] < at - GRACE:
                passed.append(first.rank)
    for each in waiting:
        heapq.heappush(queue, each)
    return passed


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        faults = list(check(file, sys.argv[2:]))
    print("\n".join(faults) or "Complete, unaltered, and everybody was served in the order of payment.")
    sys.exit(1 if faults else 0)
