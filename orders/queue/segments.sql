-- Exact positions in a queue of a million lines (see segments.py for the idea).
--
-- A queue is cut into segments by (paid_at, id). All but the last are closed, and counted: the rows of
-- orders_segmentcount with the same beginning add up to the units that wait in that segment and the lines that
-- hold them. The last, the open tail, has one row without a count and is read directly.

-- What keeps the boundaries still: shared by whoever moves units of a plan, exclusive for the roll-up.
CREATE OR REPLACE FUNCTION orders_segments_lock_class() RETURNS integer
LANGUAGE sql IMMUTABLE PARALLEL SAFE AS 'SELECT 20261123';

-- The units that wait before the key (paid_at, id) in the queue of the plan.
CREATE OR REPLACE FUNCTION orders_units_before(of_plan bigint, key_paid_at timestamptz, key_id bigint)
RETURNS bigint LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    lo_paid_at timestamptz;
    lo_id bigint;
    counted bigint := 0;
    read bigint;
BEGIN
    SELECT from_paid_at, from_id INTO lo_paid_at, lo_id
    FROM orders_segmentcount
    WHERE plan_id = of_plan AND (from_paid_at, from_id) <= (key_paid_at, key_id)
    ORDER BY from_paid_at DESC, from_id DESC LIMIT 1;
    IF FOUND THEN
        SELECT coalesce(sum(units), 0) INTO counted
        FROM orders_segmentcount
        WHERE plan_id = of_plan AND (from_paid_at, from_id) < (lo_paid_at, lo_id);
    ELSE
        lo_paid_at := '-infinity';
        lo_id := 0;
    END IF;
    SELECT coalesce(sum(quantity - allocated - withdrawn), 0) INTO read
    FROM orders_orderline
    WHERE plan_id = of_plan AND state = 'waiting'
      AND (paid_at, id) >= (lo_paid_at, lo_id) AND (paid_at, id) < (key_paid_at, key_id);
    RETURN counted + read;
END $$;

-- The first line of the queue of the plan that its first `reach` units do not cover whole, with the units before it;
-- no row where they cover all.
CREATE OR REPLACE FUNCTION orders_first_beyond(of_plan bigint, reach bigint)
RETURNS TABLE (line_paid_at timestamptz, line_id bigint, units_before bigint)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    lo_paid_at timestamptz;
    lo_id bigint;
    counted bigint;
BEGIN
    -- The last segment that begins within reach: the line is in it.
    SELECT segment.from_paid_at, segment.from_id, segment.before INTO lo_paid_at, lo_id, counted
    FROM (
        SELECT from_paid_at, from_id,
               coalesce(sum(sum(units)) OVER (
                   ORDER BY from_paid_at, from_id ROWS BETWEEN UNBOUNDED PRECEDING AND 1 PRECEDING
               ), 0) AS before
        FROM orders_segmentcount WHERE plan_id = of_plan GROUP BY from_paid_at, from_id
    ) AS segment
    WHERE segment.before <= reach
    ORDER BY segment.from_paid_at DESC, segment.from_id DESC LIMIT 1;
    IF NOT FOUND THEN
        lo_paid_at := '-infinity';
        lo_id := 0;
        counted := 0;
    END IF;
    RETURN QUERY
        SELECT line.paid_at, line.id, counted + line.upto - line.units
        FROM (
            SELECT paid_at, id, quantity - allocated - withdrawn AS units,
                   sum(quantity - allocated - withdrawn) OVER (
                       ORDER BY paid_at, id ROWS UNBOUNDED PRECEDING
                   ) AS upto
            FROM orders_orderline
            WHERE plan_id = of_plan AND state = 'waiting' AND (paid_at, id) >= (lo_paid_at, lo_id)
        ) AS line
        WHERE counted + line.upto > reach
        ORDER BY line.paid_at, line.id LIMIT 1;
END $$;

-- All units that wait in the queue of the plan.
CREATE OR REPLACE FUNCTION orders_units_waiting(of_plan bigint)
RETURNS bigint LANGUAGE sql STABLE PARALLEL SAFE AS
    'SELECT orders_units_before(of_plan, ''infinity'', 0)';

-- Where lines stand and what their customers were promised last; who does not wait is missing. (A loop of short
-- statements whose plans are kept: planning the one statement would take longer than all of it.)
CREATE OR REPLACE FUNCTION orders_standings(of_lines bigint[])
RETURNS TABLE (waiting_line bigint, ahead bigint, estimate orders_estimate)
LANGUAGE plpgsql STABLE PARALLEL SAFE AS $$
DECLARE
    one bigint;
    line record;
BEGIN
    FOREACH one IN ARRAY of_lines LOOP
        SELECT plan_id, paid_at INTO line FROM orders_orderline WHERE id = one AND state = 'waiting';
        CONTINUE WHEN NOT FOUND;
        waiting_line := one;
        ahead := orders_units_before(line.plan_id, line.paid_at, one);
        SELECT newest.* INTO estimate FROM orders_estimate AS newest WHERE line_id = one ORDER BY number DESC LIMIT 1;
        RETURN NEXT;
    END LOOP;
END $$;

-- A line that has begun or ceased to wait, or waits for another number of units.
DO $$ BEGIN
    CREATE TYPE orders_moved AS (plan_id bigint, paid_at timestamptz, line_id bigint, units bigint, lines bigint);
EXCEPTION WHEN duplicate_object THEN NULL;
END $$;

-- Adds what a statement has moved to the counts of the closed segments. Nothing is ever updated here, so writers
-- never wait for one another; the roll-up folds the rows of a segment into one.
CREATE OR REPLACE FUNCTION orders_count_moved() RETURNS trigger LANGUAGE plpgsql AS $$
DECLARE
    moved orders_moved[];
    plan bigint;
BEGIN
    IF TG_OP = 'INSERT' THEN
        SELECT array_agg((plan_id, paid_at, id, quantity - allocated - withdrawn, 1)::orders_moved)
        INTO moved FROM after WHERE state = 'waiting';
    ELSIF TG_OP = 'DELETE' THEN
        SELECT array_agg((plan_id, paid_at, id, -(quantity - allocated - withdrawn), -1)::orders_moved)
        INTO moved FROM before WHERE state = 'waiting';
    ELSE
        SELECT array_agg((plan_id, paid_at, id, units, lines)::orders_moved) INTO moved
        FROM (
            SELECT plan_id, paid_at, id, sum(units) AS units, sum(lines) AS lines
            FROM (
                SELECT plan_id, paid_at, id, quantity - allocated - withdrawn AS units, 1 AS lines
                FROM after WHERE state = 'waiting'
                UNION ALL
                SELECT plan_id, paid_at, id, -(quantity - allocated - withdrawn), -1
                FROM before WHERE state = 'waiting'
            ) AS both_sides
            GROUP BY plan_id, paid_at, id
            HAVING sum(units) <> 0 OR sum(lines) <> 0
        ) AS changes;
    END IF;
    FOR plan IN SELECT DISTINCT plan_id FROM unnest(moved) ORDER BY plan_id LOOP
        PERFORM pg_advisory_xact_lock_shared(orders_segments_lock_class(), plan::integer);
    END LOOP;
    -- (Under READ COMMITTED this statement sees every roll-up that the lock has waited for.)
    INSERT INTO orders_segmentcount (plan_id, from_paid_at, from_id, units, lines)
    SELECT moves.plan_id, segment.from_paid_at, segment.from_id, sum(moves.units), sum(moves.lines)
    FROM unnest(moved) AS moves
    CROSS JOIN LATERAL (
        SELECT counts.from_paid_at, counts.from_id, counts.units
        FROM orders_segmentcount AS counts
        WHERE counts.plan_id = moves.plan_id
          AND (counts.from_paid_at, counts.from_id) <= (moves.paid_at, moves.line_id)
        ORDER BY counts.from_paid_at DESC, counts.from_id DESC LIMIT 1
    ) AS segment
    WHERE segment.units IS NOT NULL
    GROUP BY moves.plan_id, segment.from_paid_at, segment.from_id
    HAVING sum(moves.units) <> 0 OR sum(moves.lines) <> 0;
    RETURN NULL;
END $$;

CREATE OR REPLACE TRIGGER orders_count_inserted AFTER INSERT ON orders_orderline
    REFERENCING NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orders_count_moved();
CREATE OR REPLACE TRIGGER orders_count_updated AFTER UPDATE ON orders_orderline
    REFERENCING OLD TABLE AS before NEW TABLE AS after FOR EACH STATEMENT EXECUTE FUNCTION orders_count_moved();
CREATE OR REPLACE TRIGGER orders_count_deleted AFTER DELETE ON orders_orderline
    REFERENCING OLD TABLE AS before FOR EACH STATEMENT EXECUTE FUNCTION orders_count_moved();

-- Without any lines there is nothing to count.
CREATE OR REPLACE FUNCTION orders_count_nothing() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    DELETE FROM orders_segmentcount;
    RETURN NULL;
END $$;
CREATE OR REPLACE TRIGGER orders_count_truncated AFTER TRUNCATE ON orders_orderline
    FOR EACH STATEMENT EXECUTE FUNCTION orders_count_nothing();

-- Tidies the segments of a plan: one row each, none of them empty, none much longer than `size` lines. Returns how
-- many it has cut off; of the tail it reads `at_most` lines. Waits for whoever moves units of the plan just now.
CREATE OR REPLACE FUNCTION orders_roll_up(of_plan bigint, size integer, at_most integer)
RETURNS integer LANGUAGE plpgsql AS $$
DECLARE
    old record;
    cut integer := 0;
    pieces integer;
BEGIN
    PERFORM pg_advisory_xact_lock(orders_segments_lock_class(), of_plan::integer);

    -- In the beginning the whole queue is the open tail.
    INSERT INTO orders_segmentcount (plan_id, from_paid_at, from_id)
    SELECT of_plan, '0001-01-01 00:00+00', 0
    WHERE NOT EXISTS (SELECT FROM orders_segmentcount WHERE plan_id = of_plan);

    -- One row per segment.
    WITH several AS (
        SELECT from_paid_at, from_id FROM orders_segmentcount
        WHERE plan_id = of_plan GROUP BY from_paid_at, from_id HAVING count(*) > 1
    ), folded AS (
        DELETE FROM orders_segmentcount
        WHERE plan_id = of_plan AND (from_paid_at, from_id) IN (SELECT from_paid_at, from_id FROM several)
        RETURNING from_paid_at, from_id, units, lines
    )
    INSERT INTO orders_segmentcount (plan_id, from_paid_at, from_id, units, lines)
    SELECT of_plan, from_paid_at, from_id, sum(units), sum(lines) FROM folded GROUP BY from_paid_at, from_id;

    -- Nothing waits in it: the segment before it takes its place. The first has none before it.
    DELETE FROM orders_segmentcount
    WHERE plan_id = of_plan AND lines = 0 AND units = 0 AND from_paid_at > '0001-01-01 00:00+00';

    -- Too long: the tail, by payments at the end; any other, by payments that were reported late.
    FOR old IN
        SELECT id, from_paid_at, from_id, units IS NULL AS is_tail,
               lead(from_paid_at, 1, 'infinity') OVER (ORDER BY from_paid_at, from_id) AS to_paid_at,
               lead(from_id, 1, 0::bigint) OVER (ORDER BY from_paid_at, from_id) AS to_id,
               lines
        FROM orders_segmentcount WHERE plan_id = of_plan
    LOOP
        CONTINUE WHEN old.lines < 2 * size;
        WITH waiting AS MATERIALIZED (
            SELECT paid_at, id, quantity - allocated - withdrawn AS units,
                   row_number() OVER (ORDER BY paid_at, id) - 1 AS n
            FROM orders_orderline
            WHERE plan_id = of_plan AND state = 'waiting'
              AND (paid_at, id) >= (old.from_paid_at, old.from_id)
              AND (paid_at, id) < (old.to_paid_at, old.to_id)
            ORDER BY paid_at, id
            LIMIT CASE WHEN old.is_tail THEN at_most END
        ), last AS (
            -- Between `size` and twice as many stay in the last piece.
            SELECT greatest(count(*) / size - 1, 0) AS piece FROM waiting
        ), cuts AS (
            SELECT least(n / size, piece) AS piece, sum(units) AS units, count(*) AS lines,
                   max(paid_at) FILTER (WHERE n = least(n / size, piece) * size) AS from_paid_at,
                   max(id) FILTER (WHERE n = least(n / size, piece) * size) AS from_id
            FROM waiting, last GROUP BY 1
        ), counted AS (
            UPDATE orders_segmentcount SET units = cuts.units, lines = cuts.lines
            FROM cuts, last
            WHERE orders_segmentcount.id = old.id AND cuts.piece = 0 AND last.piece > 0
        )
        INSERT INTO orders_segmentcount (plan_id, from_paid_at, from_id, units, lines)
        SELECT of_plan, cuts.from_paid_at, cuts.from_id,
               CASE WHEN old.is_tail AND cuts.piece = last.piece THEN NULL ELSE cuts.units END,
               CASE WHEN old.is_tail AND cuts.piece = last.piece THEN NULL ELSE cuts.lines END
        FROM cuts, last WHERE cuts.piece > 0;
        GET DIAGNOSTICS pieces = ROW_COUNT;
        cut := cut + pieces;
    END LOOP;
    RETURN cut;
END $$;

-- Counts that are not what waits: beginning, units counted, units that wait. None, unless somebody went round the
-- triggers.
CREATE OR REPLACE FUNCTION orders_wrong_counts(of_plan bigint)
RETURNS TABLE (from_paid_at timestamptz, from_id bigint, counted bigint, waiting bigint)
LANGUAGE sql STABLE AS $$
    WITH segments AS (
        SELECT from_paid_at, from_id, sum(units) AS units, sum(lines) AS lines,
               lead(from_paid_at, 1, 'infinity') OVER (ORDER BY from_paid_at, from_id) AS to_paid_at,
               lead(from_id, 1, 0::bigint) OVER (ORDER BY from_paid_at, from_id) AS to_id
        FROM orders_segmentcount WHERE plan_id = of_plan GROUP BY from_paid_at, from_id
    )
    SELECT segments.from_paid_at, segments.from_id, segments.units, really.units
    FROM segments CROSS JOIN LATERAL (
        SELECT coalesce(sum(quantity - allocated - withdrawn), 0) AS units, count(*) AS lines
        FROM orders_orderline
        WHERE plan_id = of_plan AND state = 'waiting'
          AND (paid_at, id) >= (segments.from_paid_at, segments.from_id)
          AND (paid_at, id) < (segments.to_paid_at, segments.to_id)
    ) AS really
    WHERE segments.units <> really.units OR segments.lines <> really.lines
    ORDER BY 1, 2
$$;
