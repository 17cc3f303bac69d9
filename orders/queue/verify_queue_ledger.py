#!/usr/bin/env python3
"""Check a queue's public ledger: python3 verify_queue_ledger.py LEDGER [HEAD …]

Needs nothing but Python 3.9 or later. LEDGER is the file that you downloaded; each HEAD is a seal that you know from
elsewhere (your receipt, the public page of any day, a friend): it has to be in the ledger.

A line of the ledger is a seal, a space, and a list: number, what happened, order line, units, time of payment, when
it was recorded, units displaced, entries known. Its seal is the sha256 of the seal before it and of the list.

The rule that is checked: of the units that wait, each device goes to the line that was paid first, and of those paid in the
same instant to the lower number. A line may be passed over only while it is on hold, or if it was recorded after the
entries that were known when the device was given.
"""

import hashlib
import heapq
import json
import sys
from collections.abc import Iterable, Iterator

Rank = tuple[str, int]


def seal_of(before: str, text: str) -> str:
    return hashlib.sha256((before + text).encode()).hexdigest()


def check(ledger: Iterable[str], heads: Iterable[str] = ()) -> Iterator[str]:
    """Yield a sentence for everything that is wrong with the lines of `ledger`."""
    before, missing = "0" * 64, set(heads)
    waiting: dict[int, int] = {}  # order line → units that wait
    since: dict[int, int] = {}  # order line → number of the entry since which it waits without a break
    ranks: dict[int, Rank] = {}  # order line → (time of payment, order line)
    held: set[int] = set()
    queue: list[Rank] = []  # a heap of the ranks of all lines that wait, and of some that do no longer
    for count, row in enumerate(ledger, 1):
        seal, _, text = row.rstrip("\n").partition(" ")
        try:
            number, kind, line, units, paid_at, _at, _displaced, seen = json.loads(text)
        except ValueError:
            yield f"Entry {count} cannot be read."
            return
        if number != count:
            yield f"Entry {count} has the number {number}: entries are missing or repeated."
            return
        if seal_of(before, text) != seal:
            yield f"Entry {number} does not fit its seal: it or one before it was altered."
        before = seal
        missing.discard(seal)
        rank = (paid_at, line)
        if ranks.setdefault(line, rank) != rank:
            yield f"Entry {number}: line {line} has another time of payment than before."
        left = waiting.get(line, 0)
        if kind == "joined" and line in waiting:
            yield f"Entry {number}: line {line} joins a second time."
        if kind == "allocated" and left and line not in held:
            yield from (
                f"Entry {number}: line {line}, paid {paid_at}, was served before line {passed[1]}, paid {passed[0]}."
                for passed in passed_over(rank, seen, queue, waiting, since, held)
            )
        if kind in ("joined", "returned", "released"):
            since[line] = since[line] if kind == "returned" and left else number
            heapq.heappush(queue, rank)
        if kind in ("held", "released"):
            (held.add if kind == "held" else held.discard)(line)
        elif kind in ("joined", "returned"):
            waiting[line] = left + units
        elif kind != "refunded" and (units > left or (kind == "allocated" and line in held)):
            yield f"Entry {number}: {units} units of line {line} are {kind}, but {left} wait."
        elif kind != "refunded":  # it had its device, and waits for none
            waiting[line] = left - units
    yield from (f"The seal {head} is not in this ledger." for head in sorted(missing))


def passed_over(
    rank: Rank, seen: int, queue: list[Rank], waiting: dict[int, int], since: dict[int, int], held: set[int]
) -> Iterator[Rank]:
    """The first line before `rank` that was known to wait when the device was given, if there is one."""
    exempt = []
    while queue and queue[0] < rank:
        first = queue[0]
        if waiting[first[1]] and first[1] not in held:
            if since[first[1]] <= seen:
                yield first
                break
            exempt.append(first)
        heapq.heappop(queue)
    for each in exempt:
        heapq.heappush(queue, each)


if __name__ == "__main__":
    with open(sys.argv[1], encoding="utf-8") as file:
        faults = list(check(file, sys.argv[2:]))
    print(
        "\n".join(faults)
        or "The ledger is complete, unaltered, and everybody was served in the order of payment."
    )
    sys.exit(1 if faults else 0)
