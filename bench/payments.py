"""Webhooks at the door, and the money they tell of: both against the bare writes they cannot do without.

Four processes do each. No provider takes part: the webhooks go into the WSGI application itself, and what is applied
are snapshots as a gateway's `fetch` answers them. What fetching costs is measured apart, from the sandbox's emulator
over HTTP.
"""

import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from bench.databases import Databases
from bench.figures import Figure, interleaved, say


def figures(databases: Databases, *, is_small: bool) -> Iterator[Figure]:
    """Everything about payments, one figure after the other."""
    webhooks, orders, waiting, fetches = (800, 240, 2_000, 60) if is_small else (20_000, 4_000, 100_000, 500)
    runs = 1 if is_small else 3

    def on_copy(database: str, step: str, **arguments: Any) -> Any:
        with databases.copy_of(database) as copy:
            return databases.run(f"bench.payments_steps:{step}", copy, **arguments)

    say("webhooks")
    stored = 2_000 if is_small else 200_000
    databases.make("bench_inbox", "bench.payments_steps:fill_inbox", stored=stored)
    accepted, inserted = interleaved(
        runs,
        lambda: on_copy("bench_inbox", "accept_webhooks", count=webhooks),
        lambda: on_copy("bench_inbox", "insert_webhooks", count=webhooks),
    )
    yield Figure("webhooks accepted / bare inserts", inserted / accepted, detail=f"{1 / accepted:,.0f}/s")

    say("payments")
    databases.make("bench_unpaid", "bench.payments_steps:fill_unpaid", orders=orders, waiting=waiting)
    with tempfile.TemporaryDirectory(prefix="vmos-bench-") as folder:
        written = str(Path(folder) / "written")
        on_copy("bench_unpaid", "record", path=written)
        applied, floor, unnumbered = interleaved(
            runs,
            lambda: on_copy("bench_unpaid", "apply_snapshots"),
            lambda: on_copy("bench_unpaid", "write_floor", path=written),
            lambda: on_copy("bench_unpaid", "write_floor", path=written, without_chain_head=True),
        )
    yield Figure("payments applied / write floor", floor / applied, detail=f"{1 / applied:,.0f}/s")
    yield Figure("write floor without / with the documents' numbers", floor / unnumbered)
    fetched = on_copy("bench_unpaid", "fetch_snapshots", count=fetches)
    yield Figure("fetching a snapshot / applying it", fetched / applied, detail=f"{1 / fetched:,.0f}/s")
