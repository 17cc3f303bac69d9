"""The queue at 10,000 and at 1,000,000 lines: sweeps, positions, payments beside them.

The goals are those that a prototype was measured to reach (docs/performance.md).
"""

import time
from collections.abc import Iterator
from typing import Any

from bench.databases import Databases
from bench.figures import Figure, at_least, at_most, interleaved, say

PAYERS = 4
# Until all processes of a measurement are there, and warm.
START_UP = 20.0


def figures(databases: Databases, *, is_small: bool) -> Iterator[Figure]:
    """Everything about queues, one figure after the other."""
    few, many = (2_000, 20_000) if is_small else (10_000, 1_000_000)
    devices, runs = (4_000, 1) if is_small else (100_000, 3)
    say(f"filling queues of {few:,} and {many:,} lines")
    fill = "bench.queue_data:fill"
    databases.make("bench_few", fill, lines=few, devices=min(devices, few))
    databases.make("bench_many", fill, lines=many, devices=devices)

    def on_copy(step: str, database: str = "bench_many", **arguments: Any) -> Any:
        with databases.copy_of(database) as copy:
            return databases.run(f"bench.queue_steps:{step}", copy, **arguments)

    say("sweeps")
    swept, floor, small_sweep, loop = interleaved(
        runs,
        lambda: on_copy("sweep"),
        lambda: on_copy("write_floor"),
        lambda: on_copy("sweep", "bench_few"),
        lambda: on_copy("loop_per_unit", "bench_few"),
    )
    yield Figure("sweep / write floor", floor / swept, at_least(0.60, 0.75), f"{1 / swept:,.0f} units/s")
    yield Figure("sweep / loop per unit", loop / swept, at_least(50, 100))
    yield Figure(f"cost per unit, {many:,} / {few:,} lines", swept / small_sweep, at_most(1.3, 1.1))
    say("positions")
    far, lookup = interleaved(
        runs,
        lambda: databases.run("bench.queue_steps:place", "bench_many"),
        lambda: databases.run("bench.queue_steps:look_up", "bench_many"),
    )
    (near,) = interleaved(runs, lambda: databases.run("bench.queue_steps:place", "bench_few"))
    yield Figure(
        "position and estimate / .get(pk), p50", far / lookup, at_most(2.0, 1.5), f"{far * 1e6:,.0f} µs"
    )
    yield Figure(f"position and estimate, {many:,} / {few:,} lines", far / near, at_most(2.0, 1.5))
    say("positions while others write")
    answers = on_copy("wrong_positions", seconds=2 if is_small else 20)
    yield Figure(
        "wrong positions under concurrent writes",
        answers["wrong"],
        at_most(0, 0),
        f"of {answers['asked']:,} asked",
    )
    say("payments")
    rates = on_copy("pay_with_and_without_counts", slices=4 if is_small else 16, size=24 if is_small else 200)
    yield Figure(
        "payments with / without the queue's counts",
        rates["with"] / rates["without"],
        at_least(0.85, 0.92),
        f"{rates['with']:,.0f}/s by {PAYERS} processes",
    )
    if not is_small:
        say("payments during a sweep")
        offered, completed = _payments_during_a_sweep(databases, seconds=8.0)
        yield Figure(
            "paced payments completed during a sweep / offered",
            completed / offered,
            at_least(0.90, 0.95),
            f"{offered} offered",
        )
        say("a million lines in one go")
        memory = on_copy("sweep_everything")
        yield Figure(
            "memory after 10^6 lines / after the first chunk",
            memory["after"] / memory["before"],
            at_most(1.2, 1.05),
            f"{memory['units']:,} units, {memory['seconds']:,.0f} s",
        )


def _payments_during_a_sweep(databases: Databases, *, seconds: float) -> tuple[int, int]:
    """(offered, completed): payments at a pace that leaves the machine to the sweep for the most part."""
    with databases.copy_of("bench_many") as copy:
        attempts = databases.run("bench.queue_steps:prepare_payments", copy, count=PAYERS * 500)
        begins = time.time() + START_UP
        sweep = databases.start("bench.queue_steps:sweep_at", copy, begins=begins)
        done = _pay(databases, copy, attempts, begins=begins, seconds=seconds, pace=0.25)
        databases.result(sweep)
    return sum(each["offered"] for each in done), sum(each["completed"] for each in done)


def _pay(
    databases: Databases, database: str, attempts: list[int], **arguments: float
) -> list[dict[str, int]]:
    payers = [
        databases.start("bench.queue_steps:pay", database, attempts=attempts[n::PAYERS], **arguments)
        for n in range(PAYERS)
    ]
    return [databases.result(payer) for payer in payers]
