"""A plan with a long queue: made by set-based statements, always the same."""

import json
from datetime import UTC, datetime, timedelta

from django.db import connection

from orders.queue.segments import roll_up
from tests.builders import make_fee, make_plan, make_user

# The head of the queue was paid then, the tail so many seconds later as there are lines.
BEGAN = datetime(2026, 1, 1, tzinfo=UTC)
CUSTOMERS = 1_000
# One line in fifty was reported late: its place is before lines that have smaller numbers.
LATE = timedelta(hours=2)


def fill(*, lines: int, devices: int) -> int:
    """`lines` paid lines of 1 to 4 units (2.05 on average) in the queue of one new plan, and free devices. Returns the units."""
    plan = make_plan(cap=0)
    fee = make_fee(plan)
    staff = make_user(is_staff=True)
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(
            "INSERT INTO accounts_user (password, is_superuser, is_staff, is_active, date_joined, email, name, "
            "language, time_zone) SELECT '!', false, false, true, now(), 'buyer' || n || '@example.com', '', 'en', "
            "'UTC' FROM generate_series(1, %s) AS n ON CONFLICT DO NOTHING",
            [CUSTOMERS],
        )
        cursor.execute(
            "WITH buyers AS (SELECT array_agg(id) AS ids FROM accounts_user WHERE email LIKE 'buyer%%'), placed AS ("
            "  INSERT INTO orders_order (reference, checkout_key, state, country, currency, total_minor, placed_at, "
            "    pay_until, paid_at, customer_id)"
            "  SELECT 'B-' || n, gen_random_uuid(), 'paid', 'HK', 'USD', 499, paid_at, paid_at, paid_at,"
            "    ids[1 + n %% array_length(ids, 1)]"
            "  FROM buyers, generate_series(1, %(lines)s) AS n, LATERAL (SELECT %(began)s + n * interval '1 second'"
            "    - CASE WHEN n %% 50 = 0 THEN %(late)s ELSE interval '0' END AS paid_at) AS at RETURNING id, paid_at"
            ") INSERT INTO orders_orderline (unit_minor, quantity, is_presale, bonus_days, state, paid_at, allocated, "
            "  withdrawn, returned, fee_id, order_id, plan_id, term_id)"
            "  SELECT 499, (ARRAY[1, 1, 1, 1, 2, 2, 2, 3, 3, 4])[1 + id %% 10] + (id %% 20 = 0)::int, true, 1, 'waiting', paid_at, 0, 0, 0,"
            "  %(fee)s, id, %(plan)s, %(term)s FROM placed",
            {
                "lines": lines,
                "began": BEGAN,
                "late": LATE,
                "fee": fee.pk,
                "plan": plan.pk,
                "term": fee.term_id,
            },
        )
        cursor.execute(
            "INSERT INTO orders_queueevent (plan_id, line_id, kind, units, paid_at, at, behind, seen) "
            "SELECT plan_id, id, 'joined', quantity, paid_at, paid_at, 0, 0 FROM orders_orderline WHERE plan_id = %s",
            [plan.pk],
        )
        cursor.execute(
            "WITH batch AS (INSERT INTO inventory_supplybatch (plan_id, reference, quantity, expected_on, "
            "  first_expected_on, state, received_units, received_at, announced_at) "
            "  SELECT %(plan)s, 'BENCH-' || %(plan)s, %(devices)s, now(), now(), 'received', %(devices)s, now(), now() "
            "  RETURNING id"
            "), receipt AS (INSERT INTO inventory_supplyreceipt (batch_id, file_name, file_sha256, devices, received_at, "
            "  received_by_id) SELECT id, 'bench.csv', 'x', %(devices)s, now(), %(staff)s FROM batch RETURNING id"
            ") INSERT INTO inventory_device (plan_id, code, state, receipt_id) "
            "SELECT %(plan)s, 'D' || %(plan)s || '-' || n, 'free', receipt.id "
            "FROM receipt, generate_series(1, %(devices)s) AS n",
            {"plan": plan.pk, "devices": devices, "staff": staff.pk},
        )
        cursor.execute("SELECT sum(quantity) FROM orders_orderline WHERE plan_id = %s", [plan.pk])
        units = int(cursor.fetchone()[0])
        cursor.execute("RESET synchronous_commit")
        cursor.execute(
            "WITH said AS (INSERT INTO orders_forecast (plan_id, made_at, inputs) VALUES (%(plan)s, %(now)s, %(inputs)s) RETURNING id) "
            "INSERT INTO orders_estimate (line_id, number, made_at, next_update_by, basis, cause, units_ahead, forecast_id) "
            "SELECT line.id, 1, %(now)s, '2026-12-01', 'unknown', 'payment', 0, said.id FROM said, orders_orderline AS line "
            "WHERE plan_id = %(plan)s",
            {"plan": plan.pk, "now": BEGAN, "inputs": json.dumps({"today": "2026-01-01"})},
        )
    roll_up(plan_id=plan.pk)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")
    return units
