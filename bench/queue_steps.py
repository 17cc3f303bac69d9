"""What the queue's measurements consist of: each function runs in a process of its own, on a database of its own."""

import random
import resource
import threading
import time
import uuid
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from statistics import median
from typing import Any

from django.db import connection, transaction
from django.db.models import F, Sum
from django.urls import reverse

from bench.together import WORKERS, together
from inventory.models import Device, DeviceState, Plan
from inventory.money import Money
from notices import kinds
from notices.models import Notice
from orders import allocation
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import Allocation, LineState, OrderLine, QueueEvent, QueueEventKind
from orders.queue import segments, standings

NOW = datetime(2026, 11, 23, tzinfo=UTC)


def sweep() -> float:
    """Seconds per unit of the public sweep, by a worker that has swept before."""
    plan = _plan()
    reverse("orders:order", args=["REFERENCE"])
    began = time.perf_counter()
    units = allocate_devices(plan_id=plan.pk, now=NOW)
    took = time.perf_counter() - began
    _verify(plan, units=units)
    return took / units


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
        "INSERT INTO notices_notice (kind, about, url, facts, thread, to_channel, to_address, dedupe_key, created_at, is_expanded, recipient_id) "
        "SELECT 'allocated', reference, '/orders/' || reference || '/', "
        "jsonb_build_object('reference', reference, 'plan', 'V08', 'units', count(*), 'remaining', 0, "
        "'starts_at', %(now)s, 'ends_at', %(now)s), '', '', '', 'allocated:' || line_id, %(now)s, false, customer_id "
        "FROM floor GROUP BY line_id, reference, customer_id"
    ),
)


def write_floor() -> float:
    """Seconds per unit of the bare writes that a sweep needs, all decided beforehand, in one transaction."""
    plan = _plan()
    units = Device.objects.filter(plan=plan, state=DeviceState.FREE).count()
    with connection.cursor() as cursor:
        cursor.execute(WRITE_FLOOR, {"plan": plan.pk, "units": units})
        cursor.execute("ANALYZE floor")
    began = time.perf_counter()
    with transaction.atomic(), connection.cursor() as cursor:
        cursor.execute("SET LOCAL jit = off")
        for statement in FLOOR_STATEMENTS:
            cursor.execute(statement, {"plan": plan.pk, "now": NOW})
    took = time.perf_counter() - began
    _verify(plan, units=units)
    return took / units


def loop_per_unit() -> float:
    """Seconds per unit of what shops usually do: device by device, row by row, each saved."""
    plan = _plan()
    reverse("orders:order", args=["REFERENCE"])
    devices = list(Device.objects.filter(plan=plan, state=DeviceState.FREE).order_by("pk")[:300])
    began = time.perf_counter()
    for device in devices:
        with transaction.atomic():
            line = (
                OrderLine.objects.waiting(plan_id=plan.pk)
                .select_related("order", "term")
                .select_for_update(no_key=True, of=("self",))[0]
            )
            Allocation.objects.create(
                line=line,
                unit=line.allocated + 1,
                device=device,
                starts_at=NOW,
                ends_at=NOW + timedelta(days=31),
            )
            device.state = DeviceState.ALLOCATED
            device.save()
            line.allocated += 1
            line.state = LineState.WAITING if line.waiting_units else LineState.ALLOCATED
            line.save()
            QueueEvent.objects.create(
                plan=plan,
                line=line,
                kind=QueueEventKind.ALLOCATED,
                units=1,
                paid_at=line.paid_at,
                at=NOW,
                seen=0,
            )
            Notice.objects.create(
                recipient_id=line.order.customer_id,
                kind=kinds.ALLOCATED.slug,
                about=line.order.reference,
                url=reverse("orders:order", args=[line.order.reference]),
                facts={
                    "reference": line.order.reference,
                    "plan": str(plan),
                    "units": 1,
                    "remaining": line.waiting_units,
                    "starts_at": NOW.isoformat(),
                    "ends_at": (NOW + timedelta(days=31)).isoformat(),
                },
                dedupe_key=f"allocated:{line.pk}:{line.allocated}",
                created_at=NOW,
            )
    took = time.perf_counter() - began
    _verify(plan, units=len(devices))
    return took / len(devices)


def place() -> float:
    """Median seconds for the place and the estimate of a line anywhere in the queue."""
    return _median_of(lambda line: standings([line.pk])[line.pk])


def look_up() -> float:
    """Median seconds for Django to get the same lines by their primary keys."""
    return _median_of(lambda line: OrderLine.objects.get(pk=line.pk))


# The units between one asked line and the next, each line of the queue read once: added up, they are the plain sums.
PLAIN_SUMS = """
WITH asked AS (
    SELECT id, plan_id, paid_at, lag(paid_at, 1, '-infinity') OVER w AS from_paid_at, lag(id, 1, 0::bigint) OVER w AS from_id
    FROM orders_orderline WHERE id = ANY(%s) AND state = 'waiting' WINDOW w AS (ORDER BY paid_at, id)
)
SELECT id, sum(units) OVER (ORDER BY paid_at, id)
FROM asked CROSS JOIN LATERAL (
    SELECT coalesce(sum(quantity - allocated - withdrawn), 0) AS units FROM orders_orderline AS line
    WHERE line.plan_id = asked.plan_id AND line.state = 'waiting'
      AND (line.paid_at, line.id) >= (from_paid_at, from_id) AND (line.paid_at, line.id) < (asked.paid_at, asked.id)
) AS between_them
"""
ASKED_AT_ONCE = 50


def wrong_positions(*, seconds: float) -> dict[str, int]:
    """Ask for positions, and compare them with the plain sums of the same snapshot, while others pay, refund, sweep, roll up."""
    plan = _plan()
    over = threading.Event()
    writers = [
        threading.Thread(target=_until(over, work))
        for work in (
            lambda: segments.roll_up(plan_id=plan.pk),
            lambda: _join_late(plan),
            lambda: _withdraw_somewhere(plan),
            lambda: allocate_devices(plan_id=plan.pk, now=NOW),
        )
    ]
    for writer in writers:
        writer.start()
    asked, wrong = 0, []
    dice = random.Random(1)
    newest = OrderLine.objects.order_by("-pk").values_list("pk", flat=True)[0]
    ends = time.monotonic() + seconds
    while time.monotonic() < ends:
        wanted = [dice.randint(1, newest) for _ in range(ASKED_AT_ONCE)]
        with transaction.atomic(), connection.cursor() as cursor:
            cursor.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            answered = {line_id: standing.ahead for line_id, standing in standings(wanted).items()}
            cursor.execute(PLAIN_SUMS, [wanted])
            counted = dict(cursor.fetchall())
        asked += len(answered)
        if answered != counted:
            wrong.append((answered, counted))
    over.set()
    for writer in writers:
        writer.join()
    assert list(segments.wrong_counts()) == []
    assert not wrong, wrong
    return {"asked": asked, "wrong": len(wrong)}


def prepare_payments(*, count: int, without_devices: bool = False) -> list[int]:
    """So many orders that wait to be paid; the ids of their payments."""
    plan = _plan()
    with connection.cursor() as cursor:
        if without_devices:
            # Where a queue waits, no device is free.
            Device.objects.filter(plan=plan, state=DeviceState.FREE).update(state=DeviceState.RETIRED)
        attempts = _unpaid(plan, count=count)
        cursor.execute("VACUUM ANALYZE")
    return attempts


def pay_with_and_without_counts(*, slices: int, size: int) -> dict[str, float]:
    """Payments per second of several processes, with the queue's counts and without.

    Slices of `size` payments take turns on one database; the first, which warms up, does not count.
    """
    attempts = prepare_payments(count=(slices + 1) * size, without_devices=True)
    rates: dict[bool, list[float]] = {True: [], False: []}
    for number in range(slices + 1):
        is_counted = number % 4 in (0, 3)
        with connection.cursor() as cursor:
            action = "ENABLE" if is_counted else "DISABLE"
            cursor.execute(f"ALTER TABLE orders_orderline {action} TRIGGER orders_count_updated")
        rates[is_counted].append(size / together(_payer(attempts[number * size : (number + 1) * size])))
    return {"with": median(rates[True][1:]), "without": median(rates[False])}


def _payer(attempts: list[int]) -> Callable[[int], None]:
    def work(number: int) -> None:
        dice = random.Random(number)
        for attempt in attempts[number::WORKERS]:
            _apply(attempt, dice)

    return work


def pay(*, attempts: list[int], begins: float, seconds: float, pace: float = 0.0) -> dict[str, int]:
    """Pay for so long, one payment each `pace` seconds at most; one in twenty is reported late.

    Offered are those whose time had come, completed those that were done within a second of it. Before that, one warms up.
    """
    dice = random.Random(attempts[0])
    _apply(attempts.pop(), dice)
    offered = completed = 0
    time.sleep(max(0.0, begins - time.time()))
    while time.time() < begins + seconds and offered < len(attempts):
        due = begins + offered * pace if pace else time.time()
        time.sleep(max(0.0, due - time.time()))
        _apply(attempts[offered], dice)
        offered += 1
        completed += time.time() - due < 1.0
    if pace:
        # What was still to be offered when the time was over.
        offered = max(offered, int(seconds / pace))
    return {"offered": offered, "completed": completed}


def sweep_at(*, begins: float) -> float:
    """The sweep, at a time agreed upon; the seconds that it took."""
    plan = _plan()
    time.sleep(max(0.0, begins - time.time()))
    began = time.perf_counter()
    allocate_devices(plan_id=plan.pk, now=NOW)
    return time.perf_counter() - began


def sweep_everything() -> dict[str, float]:
    """Devices for every unit of the queue, swept in one call; the process's memory in KiB."""
    plan = _plan()
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO inventory_device (plan_id, code, state, receipt_id) SELECT %s, 'E' || n, 'free', "
            "(SELECT min(id) FROM inventory_supplyreceipt WHERE batch_id IN (SELECT id FROM inventory_supplybatch WHERE "
            "plan_id = %s)) FROM generate_series(1, %s) AS n",
            [plan.pk, plan.pk, OrderLine.objects.filter(plan=plan).aggregate(n=Sum("quantity"))["n"]],
        )
    before, first = 0, True
    chunk = allocation._allocate_chunk

    def watched(**arguments: Any) -> int:
        nonlocal before, first
        units = chunk(**arguments)
        if first:
            before, first = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss, False
        return units

    allocation._allocate_chunk = watched
    began = time.perf_counter()
    units = allocate_devices(plan_id=plan.pk, now=NOW)
    took = time.perf_counter() - began
    assert not OrderLine.objects.filter(plan=plan, state=LineState.WAITING).exists()
    _verify(plan, units=units)
    return {
        "before": before,
        "after": resource.getrusage(resource.RUSAGE_SELF).ru_maxrss,
        "units": units,
        "seconds": took,
    }


def _plan() -> Plan:
    """The plan of the queue: `queue_data` makes but one."""
    return Plan.objects.get()


def _verify(plan: Plan, *, units: int) -> None:
    """All tables tell the same, and nobody who waits stands before somebody who was served."""
    lines = OrderLine.objects.filter(plan=plan)
    told = lines.aggregate(units=Sum("allocated"))["units"]
    given = Allocation.objects.filter(line__plan=plan).count()
    gone = Device.objects.filter(plan=plan, state=DeviceState.ALLOCATED).count()
    recorded = QueueEvent.objects.filter(plan=plan, kind=QueueEventKind.ALLOCATED).aggregate(
        units=Sum("units")
    )["units"]
    assert (told, given, gone, recorded) == (units, units, units, units), (told, given, gone, recorded, units)
    served = lines.filter(state=LineState.ALLOCATED).order_by("paid_at", "pk").last()
    waiting = OrderLine.objects.waiting(plan_id=plan.pk).first()
    if served and waiting:
        assert (served.paid_at, served.pk) < (waiting.paid_at, waiting.pk)
    assert not lines.filter(quantity__lt=F("allocated") + F("withdrawn")).exists()


def _median_of(question: Any) -> float:
    lines = list(OrderLine.objects.waiting(plan_id=_plan().pk).values_list("pk", flat=True))
    chosen = list(OrderLine.objects.filter(pk__in=random.Random(1).sample(lines, min(1_000, len(lines)))))
    for line in chosen[:100]:
        question(line)
    took = []
    for line in chosen:
        began = time.perf_counter()
        question(line)
        took.append(time.perf_counter() - began)
    return median(took)


def _until(over: threading.Event, work: Any) -> Any:
    def run() -> None:
        while not over.is_set():
            work()
        connection.close()

    return run


def _join_late(plan: Plan) -> None:
    line = OrderLine.objects.filter(plan=plan).order_by("pk").first()
    assert line
    order = line.order
    order.pk, order.reference, order.checkout_key = None, f"L-{random.getrandbits(48)}", uuid.uuid4()
    order.save(force_insert=True)
    when = NOW - timedelta(days=random.randint(300, 330), seconds=random.randint(0, 86_400))
    OrderLine.objects.create(
        order=order,
        plan=plan,
        term_id=line.term_id,
        fee_id=line.fee_id,
        unit_minor=499,
        quantity=3,
        is_presale=True,
        state=LineState.WAITING,
        paid_at=when,
    )


def _withdraw_somewhere(plan: Plan) -> None:
    newest = OrderLine.objects.order_by("-pk").values_list("pk", flat=True)[0]
    with transaction.atomic():
        line = (
            OrderLine.objects.filter(plan=plan, state=LineState.WAITING, pk__gt=random.randint(1, newest))
            .filter(quantity__gt=F("allocated") + F("withdrawn") + 1)
            .select_for_update(no_key=True)
            .order_by("pk")
            .first()
        )
        if line:
            OrderLine.objects.filter(pk=line.pk).update(withdrawn=F("withdrawn") + 1)


def _unpaid(plan: Plan, *, count: int) -> list[int]:
    """Attempts at unpaid orders of one line each."""
    line = OrderLine.objects.filter(plan=plan).order_by("pk").first()
    assert line
    with connection.cursor() as cursor:
        cursor.execute(
            "WITH buyers AS (SELECT array_agg(id) AS ids FROM accounts_user WHERE email LIKE 'buyer%%'), placed AS ("
            "  INSERT INTO orders_order (reference, checkout_key, state, country, currency, total_minor, placed_at, "
            "    pay_until, customer_id) SELECT 'U-' || n, gen_random_uuid(), 'unpaid', 'HK', 'USD', 499, %(now)s, "
            "    %(now)s + interval '1 hour', ids[1 + n %% array_length(ids, 1)] FROM buyers, "
            "    generate_series(1, %(count)s) AS n RETURNING id, reference"
            "), lines AS (INSERT INTO orders_orderline (unit_minor, quantity, is_presale, bonus_days, state, allocated, "
            "    withdrawn, returned, fee_id, order_id, plan_id, term_id) SELECT 499, 1, true, 1, 'unpaid', 0, 0, 0, %(fee)s, id, "
            "    %(plan)s, %(term)s FROM placed"
            ") INSERT INTO orders_paymentattempt (order_id, reference, method, gateway, state, amount_minor, currency, "
            "  provider_id, pay_url, problem, created_at, expires_at, polls) SELECT id, reference || '-1', 'sandbox', "
            "  'sandbox', 'pending', 499, 'USD', 'pay_' || id, '', '', %(now)s, %(now)s, 0 FROM placed RETURNING id",
            {"now": NOW, "count": count, "fee": line.fee_id, "plan": plan.pk, "term": line.term_id},
        )
        return [row[0] for row in cursor.fetchall()]


def _apply(attempt: int, dice: random.Random) -> None:
    late = timedelta(minutes=30) if dice.random() < 0.05 else timedelta(0)
    move = MoneyMoved(f"cap-{attempt}", Money(499, "USD"), NOW - late)
    apply_snapshot(
        attempt_id=attempt, snapshot=Snapshot(f"pay_{attempt}", "captured", captures=(move,)), now=NOW
    )
