"""Exact positions in long queues, on PostgreSQL.

The plain sum of all units ahead costs a millisecond per 10,000 lines. So the queue is cut into segments of about
1,000 lines, and triggers on the order lines keep count of the units that wait in each: whoever pays, refunds or
allocates, by whatever statement. A position is the sum of the counts of the segments before, and of the units in the
line's own segment before it. Both are read by one statement, from one snapshot: exact at every moment.

The end of the queue, where almost every payment joins, is not counted but read: payments write nothing here. What the
counts leave to tidy up (`orders/queue/segments.sql`) is done by the roll-up; until it has run, answers are
as exact, only slower.
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from django.db import OperationalError, connection, connections, transaction

from inventory.models import Plan

# Lines to a segment: 1,000 segments of a million lines cost about as much to add up as half a segment.
SIZE = 1_000
# So much of an uncounted queue is cut per transaction: payments of the plan wait for it.
AT_MOST = 20 * SIZE
LOCK_TIMEOUT_MS = 50
SQL = Path(__file__).with_name("segments.sql")


def install(*, using: str, **_: Any) -> None:
    """Create or replace functions and triggers on the database `using` (a post_migrate receiver)."""
    if connections[using].vendor == "postgresql":
        with connections[using].cursor() as cursor:
            cursor.execute(SQL.read_text())


def roll_up(*, plan_id: int) -> int:
    """Tidy the segments of a plan and cut off new ones; return how many. On SQLite there is nothing to do.

    Safe to run at any time and by several workers. A plan whose units move all the time is left for later: whoever
    pays shall not wait for us.
    """
    total = 0
    if connection.vendor != "postgresql":
        return total
    while cut := _roll_up_once(plan_id):
        total += cut
    return total


def wrong_counts() -> Iterator[str]:
    """Compare every count with the lines it counts, and yield a sentence for each that is wrong."""
    if connection.vendor != "postgresql":
        return
    for plan in Plan.objects.order_by("pk"):
        with connection.cursor() as cursor:
            cursor.execute(
                "SELECT from_paid_at, from_id, counted, waiting FROM orders_wrong_counts(%s)", [plan.pk]
            )
            for paid_at, line_id, counted, waiting in cursor.fetchall():
                yield (
                    f"Queue of {plan}, segment from {paid_at.isoformat()}, line {line_id}: "
                    f"{counted} units counted, {waiting} wait."
                )


def rebuild(*, plan_id: int) -> None:
    """Forget the counts of a plan and count anew, after `wrong_counts` found some wrong. Positions are exact again
    from the first moment: what is not counted is read."""
    with transaction.atomic(durable=True), connection.cursor() as cursor:
        cursor.execute("SELECT pg_advisory_xact_lock(orders_segments_lock_class(), %s)", [plan_id])
        cursor.execute("DELETE FROM orders_segmentcount WHERE plan_id = %s", [plan_id])
    roll_up(plan_id=plan_id)


def _roll_up_once(plan_id: int) -> int:
    try:
        with transaction.atomic(durable=True), connection.cursor() as cursor:
            cursor.execute(f"SET LOCAL lock_timeout = {LOCK_TIMEOUT_MS}")
            cursor.execute("SELECT orders_roll_up(%s, %s, %s)", [plan_id, SIZE, AT_MOST])
            return int(cursor.fetchone()[0])
    except OperationalError as error:
        if getattr(error.__cause__, "sqlstate", "") != "55P03":  # lock_not_available
            raise
        return 0
