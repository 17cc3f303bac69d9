"""The outbox with a backlog of a million deliveries, against the bare statements it cannot do without.

The drain is the outbox's own work on a delivery that goes out: claimed under a lease, with the notice, its recipient
and his contact point, and recorded as sent with its two entries of evidence. Rendering the words and carrying them
are left out: they are the channel's. The raw drain claims the same rows and marks them in two statements, and keeps
no evidence at all.
"""

from collections.abc import Iterator
from statistics import median
from typing import Any

from bench.databases import Databases
from bench.figures import Figure, at_least, at_most, interleaved, say


def figures(databases: Databases, *, is_small: bool) -> Iterator[Figure]:
    """Everything about the outbox, one figure after the other."""
    pending, drained, notices, runs = (
        (20_000, 10_000, 4_000, 1) if is_small else (1_000_000, 200_000, 100_000, 3)
    )

    def on_copy(database: str, step: str, **arguments: Any) -> Any:
        with databases.copy_of(database) as copy:
            return databases.run(f"bench.outbox_steps:{step}", copy, **arguments)

    say(f"filling an outbox of {pending:,} deliveries")
    databases.make("bench_outbox", "bench.outbox_steps:fill", pending=pending, notices=notices)

    say("drains")
    raw, drain, claims = interleaved(
        runs,
        lambda: on_copy("bench_outbox", "raw_drain", count=drained),
        lambda: on_copy("bench_outbox", "drain", count=drained),
        lambda: on_copy("bench_outbox", "claims", count=drained),
    )
    yield Figure(
        "outbox drain / raw two-statement drain", raw / claims, at_least(0.45, 0.8), f"{1 / claims:,.0f}/s"
    )
    yield Figure("the same, recorded as sent with evidence", raw / drain, detail=f"{1 / drain:,.0f}/s")
    grown = median(on_copy("bench_outbox", "growth") for _ in range(runs))
    yield Figure("outbox, last decile / first decile", grown, at_most(1.5, 1.3))

    say("fan-out, and the inbox")
    expanded, inserted = interleaved(
        runs,
        lambda: on_copy("bench_outbox", "fan_out"),
        lambda: on_copy("bench_outbox", "insert_deliveries"),
    )
    yield Figure("fan-out to deliveries / bare inserts", inserted / expanded, detail=f"{1 / expanded:,.0f}/s")
    written = on_copy("bench_outbox", "write_inbox")
    yield Figure(
        "in-site messages, rendered and with evidence / raw drain",
        raw / written,
        detail=f"{1 / written:,.0f}/s",
    )
