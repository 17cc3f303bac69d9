"""The queue: sweeps, positions and payments at 10,000 and 1,000,000 lines, as ratios within one run."""

import time
from datetime import UTC, datetime

from django.db import connection, transaction

from orders.allocation import allocate_devices

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def sweep(plan_id: int) -> float:
    """Seconds per unit of the public sweep."""
    began = time.perf_counter()
    units = allocate_devices(plan_id=plan_id, now=NOW)
    return (time.perf_counter() - began) / units


WRITE_FLOOR = """
CREATE UNLOGGED TABLE floor AS
WITH served AS (
    SELECT id AS line_id, order_id, paid_at, quantity, row_number() OVER w AS n, sum(quantity) OVER w - quantity AS before
    FROM orders_orderline WHERE plan_id = %(plan)s AND state = 'waiting' WINDOW w AS (ORDER BY paid_at, id)
    LIMIT %(units)s
), units AS (
    SELECT line_id, order_id, paid_at, quantity, unit, before + unit AS n
    FROM served, generate_series(1, quantity) AS unit WHERE before + unit <= %(units)s
), devices AS (
    SELECT id AS device_id, row_number() OVER (ORDER BY id) AS n
    FROM inventory_device WHERE plan_id = %(plan)s AND state = 'free' LIMIT %(units)s
)
SELECT line_id, order_id, units.paid_at, quantity, unit, device_id, customer_id, reference
FROM units JOIN devices USING (n) JOIN orders_order ON orders_order.id = order_id ORDER BY n
"""
FLOOR_STATEMENTS = (
    (
        "INSERT INTO orders_allocation (line_id, unit, device_id, starts_at, ends_at) "
        "SELECT line_id, unit, device_id, %(now)s, %(now)s + interval '31 days' FROM floor"
    ),
    ("UPDATE inventory_device SET state = 'allocated' FROM floor WHERE id = device_id"),
    (
        "UPDATE orders_orderline SET allocated = given.units, "
        "state = CASE WHEN given.units = orders_orderline.quantity THEN 'allocated' ELSE 'waiting' END "
        "FROM (SELECT line_id, count(*) AS units FROM floor GROUP BY line_id) AS given WHERE id = line_id"
    ),
    (
        "INSERT INTO orders_queueevent (plan_id, line_id, kind, units, paid_at, at, behind, seen) "
        "SELECT %(plan)s, line_id, 'allocated', count(*), min(paid_at), %(now)s, 0, 0 FROM floor GROUP BY line_id"
    ),
    (
        "INSERT INTO notices_notice (kind, about, url, facts, to_email, dedupe_key, created_at, is_expanded, recipient_id) "
        "SELECT 'allocated', reference, '/orders/' || reference || '/', "
        "jsonb_build_object('reference', reference, 'plan', 'V08', 'units', count(*), 'remaining', 0, "
        "'starts_at', %(now)s, 'ends_at', %(now)s), '', 'allocated:' || line_id, %(now)s, false, customer_id "
        "FROM floor GROUP BY line_id, reference, customer_id"
    ),
)


def prepare_floor(plan_id: int, units: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute("DROP TABLE IF EXISTS floor")
        cursor.execute(WRITE_FLOOR, {"plan": plan_id, "units": units})
        cursor.execute("ANALYZE floor")


def write_floor(plan_id: int, units: int) -> float:
    """Seconds per unit of the bare writes that a sweep needs, all decided beforehand, in one transaction."""
    began = time.perf_counter()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL jit = off")
        for statement in FLOOR_STATEMENTS:
            cursor.execute(statement, {"plan": plan_id, "now": NOW})
    return (time.perf_counter() - began) / units
