"""What the measurements of payments consist of: each function runs in a process of its own, on a database of its own."""

import base64
import hashlib
import io
import json
import os
import time
import uuid
from collections.abc import Iterable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import psycopg
from django.conf import settings
from django.db import connection
from django.db.models import F, Sum

from accounts.models import User
from bench.queue_data import fill
from bench.together import WORKERS, together
from evidence.chain import broken_links
from inventory.models import Fee
from inventory.money import Money
from notices.models import Notice
from orders.gateways.emulators.running import running_sandbox
from orders.gateways.emulators.sandbox import Sandbox
from orders.gateways.protocol import Charge, MoneyMoved, Snapshot
from orders.gateways.sandbox import SandboxGateway
from orders.ledger import apply_snapshot
from orders.models import (
    Document,
    Estimate,
    LedgerEntry,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    QueueEvent,
    QueueEventKind,
    WebhookEvent,
)
from orders.queue import segments
from tests.builders import make_attempt
from vmos_presale.wsgi import application

NOW = datetime(2026, 11, 23, tzinfo=UTC)
KEY = "the key of the bench"
SECRET = "whsec_" + base64.b64encode(b"the secret of the payments bench").decode()

# --- webhooks ----------------------------------------------------------------------------------------


def fill_inbox(*, stored: int) -> None:
    """An inbox in which so many webhooks lie that have been worked off."""
    WebhookEvent.objects.bulk_create(
        (
            WebhookEvent(
                gateway="sandbox",
                dedupe_key=f"msg_{number:024x}",
                attempt_reference=f"VM-OLD{number}-1",
                headers={"webhook-id": f"msg_{number:024x}"},
                body=_body(number),
                body_sha256=hashlib.sha256(_body(number)).hexdigest(),
                received_at=NOW,
                processed_at=NOW,
            )
            for number in range(stored)
        ),
        batch_size=2_000,
    )
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def accept_webhooks(*, count: int) -> float:
    """Seconds per webhook through the WSGI application, all middleware included: verified, stored, answered."""
    _configure("http://127.0.0.1:1")
    webhooks = _webhooks(count)
    there = WebhookEvent.objects.count()

    def accept(number: int) -> None:
        for headers, body in webhooks[number::WORKERS]:
            assert _post(headers, body) == "200 OK"

    took = together(accept)
    _verify_inbox(webhooks, there=there)
    return took / count


def insert_webhooks(*, count: int) -> float:
    """Seconds per webhook for the bare INSERT of the same rows, each committed."""
    webhooks = _webhooks(count)
    there = WebhookEvent.objects.count()
    rows = [
        (
            "sandbox",
            headers["webhook-id"],
            f"VM-{number}-1",
            json.dumps({**headers, "content-type": "application/json"}),
            body,
            hashlib.sha256(body).hexdigest(),
            NOW,
        )
        for number, (headers, body) in enumerate(webhooks)
    ]

    def insert(number: int) -> None:
        with _psycopg(autocommit=True) as raw, raw.cursor() as cursor:
            for row in rows[number::WORKERS]:
                cursor.execute(
                    "INSERT INTO orders_webhookevent (gateway, dedupe_key, attempt_reference, headers, body, "
                    "body_sha256, received_at) VALUES (%s, %s, %s, %s, %s, %s, %s)",
                    row,
                )

    took = together(insert)
    _verify_inbox(webhooks, there=there)
    return took / count


def _webhooks(count: int) -> list[tuple[dict[str, str], bytes]]:
    """Webhooks as the emulator signs them, each of a payment of its own."""
    provider = Sandbox(key=KEY, secret=SECRET, books=":memory:")
    webhooks = []
    for number in range(count):
        body = _body(number)
        webhooks.append((dict(provider.sign(f"msg_new{number:021x}", body.decode(), True)), body))
    return webhooks


def _body(number: int) -> bytes:
    return json.dumps(
        {
            "type": "payment.captured",
            "timestamp": NOW.isoformat(),
            "data": {"payment": f"pay_{number:024x}", "reference": f"VM-{number}-1"},
        }
    ).encode()


def _post(headers: dict[str, str], body: bytes) -> str:
    """The status of the answer to one webhook."""
    statuses: list[str] = []
    environ: dict[str, Any] = {
        "REQUEST_METHOD": "POST",
        "SCRIPT_NAME": "",
        "PATH_INFO": "/webhooks/sandbox/",
        "QUERY_STRING": "",
        "SERVER_NAME": "127.0.0.1",
        "SERVER_PORT": "8000",
        "SERVER_PROTOCOL": "HTTP/1.1",
        "REMOTE_ADDR": "127.0.0.1",
        "CONTENT_TYPE": "application/json",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.url_scheme": "http",
        "wsgi.input": io.BytesIO(body),
        "wsgi.errors": io.StringIO(),
        **{f"HTTP_{name.upper().replace('-', '_')}": value for name, value in headers.items()},
    }
    response = application(environ, lambda status, _headers: statuses.append(status))
    b"".join(response)
    response.close()
    return statuses[0]


def _verify_inbox(webhooks: list[tuple[dict[str, str], bytes]], *, there: int) -> None:
    """Every webhook is in the inbox once, as it came, and waits."""
    waiting = WebhookEvent.objects.filter(processed_at=None)
    stored = {
        key: (reference, bytes(body))
        for key, reference, body in waiting.values_list("dedupe_key", "attempt_reference", "body")
    }
    assert stored == {
        headers["webhook-id"]: (f"VM-{number}-1", body) for number, (headers, body) in enumerate(webhooks)
    }
    assert WebhookEvent.objects.count() == there + len(webhooks)


# --- payments ----------------------------------------------------------------------------------------


def fill_unpaid(*, orders: int, waiting: int) -> None:
    """Orders of one to three units that wait to be paid, behind a queue of `waiting` lines and a few devices."""
    fill(lines=waiting, devices=10)
    fee = Fee.objects.get()
    plan_id = fee.term.plan_id
    buyers = list(User.objects.filter(is_staff=False).order_by("pk")[:1_000])
    placed = Order.objects.bulk_create(
        Order(
            reference=f"U-{number}",
            customer=buyers[number % len(buyers)],
            checkout_key=uuid.uuid4(),
            country="HK",
            currency="USD",
            total_minor=fee.minor * (1 + number % 3),
            placed_at=NOW - timedelta(minutes=20),
            pay_until=NOW + timedelta(minutes=10),
        )
        for number in range(orders)
    )
    OrderLine.objects.bulk_create(
        OrderLine(
            order=order,
            plan_id=plan_id,
            term=fee.term,
            fee=fee,
            unit_minor=fee.minor,
            quantity=order.total_minor // fee.minor,
            is_presale=True,
            bonus_days=1,
            state=LineState.UNPAID,
        )
        for order in placed
    )
    for order in placed:
        make_attempt(order)
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def apply_snapshots() -> float:
    """Seconds per payment: booked, the order paid, its line in the queue and estimated, notices, the invoice."""
    attempts = list(_attempts())
    snapshots = [_snapshot(attempt) for attempt in attempts]

    def apply(number: int) -> None:
        for attempt, snapshot in zip(attempts[number::WORKERS], snapshots[number::WORKERS], strict=True):
            apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=NOW)

    took = together(apply)
    _verify_paid(attempts)
    return took / len(attempts)


# Where the rows of a payment are, and to which order a row belongs.
OF_ORDER = {
    "orders_ledgerentry": "made.order_id",
    "orders_queueevent": "(SELECT order_id FROM orders_orderline WHERE id = made.line_id)",
    "orders_estimate": "(SELECT order_id FROM orders_orderline WHERE id = made.line_id)",
    "notices_notice": "(SELECT id FROM orders_order WHERE reference = made.about)",
    "orders_document": "made.order_id",
}
# Made once and not for each payment: the floor finds them there.
SHARED = "orders_forecast"


def record(*, path: str) -> None:
    """Have everything paid, and keep in files at `path` what was written: the floor writes the same once more."""
    tables = (*OF_ORDER, SHARED)
    with connection.cursor() as cursor:
        last = {}
        for table in tables:
            cursor.execute(f"SELECT coalesce(max(id), 0) FROM {table}")
            last[table] = cursor.fetchone()[0]
    apply_snapshots()
    with _psycopg() as raw, raw.cursor() as cursor:
        for table in tables:
            order = OF_ORDER.get(table, "0")
            made = f"SELECT {order} AS of_order, made.* FROM {table} AS made WHERE id > {last[table]}"
            with cursor.copy(f"COPY ({made}) TO STDOUT") as copied:
                Path(f"{path}.{table}").write_bytes(b"".join(bytes(block) for block in copied))


def write_floor(*, path: str, without_chain_head: bool = False) -> float:
    """Seconds per payment of the bare writes that it needs, all decided beforehand, in one transaction per payment.

    Numbers without gaps need the head of the documents' chain: whoever has written it keeps the others waiting
    until his commit has reached the disk.
    """
    attempts = list(_attempts())
    with _psycopg() as raw, raw.cursor() as cursor:
        inserts = _load(cursor, path)
        cursor.execute("SELECT of_order, chain_number, chain_sha256 FROM floor_orders_document")
        heads = {order: (number, sha256) for order, number, sha256 in cursor.fetchall()}
        cursor.execute(
            "INSERT INTO evidence_chainhead VALUES ('orders.document', 0, '') ON CONFLICT DO NOTHING"
        )

    def write(number: int) -> None:
        with _psycopg(autocommit=True) as raw, raw.cursor() as cursor:
            for attempt in attempts[number::WORKERS]:
                paid_at = _captured_at(attempt)
                order = attempt.order_id
                with raw.transaction():
                    for statement in inserts:
                        cursor.execute(statement, (order,))
                    cursor.execute(
                        "UPDATE orders_paymentattempt SET state = 'captured' WHERE id = %s", (attempt.pk,)
                    )
                    cursor.execute(
                        "UPDATE orders_order SET state = 'paid', paid_at = %s WHERE id = %s", (paid_at, order)
                    )
                    cursor.execute(
                        "UPDATE orders_orderline SET state = 'waiting', paid_at = %s WHERE order_id = %s",
                        (paid_at, order),
                    )
                    if not without_chain_head:
                        cursor.execute(
                            "UPDATE evidence_chainhead SET chain_number = %s, chain_sha256 = %s "
                            "WHERE name = 'orders.document'",
                            heads[order],
                        )

    took = together(write)
    # Written in another order than the rows were made in, the head ends at any of them.
    last = max(heads.values())
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE evidence_chainhead SET chain_number = %s, chain_sha256 = %s WHERE name = 'orders.document'",
            last,
        )
    _verify_paid(attempts)
    return took / len(attempts)


def fetch_snapshots(*, count: int) -> float:
    """Seconds for a gateway to fetch a snapshot from its emulator over HTTP, one after the other."""
    with running_sandbox(key=KEY, secret=SECRET) as sandbox:
        _configure(sandbox.url)
        gateway = SandboxGateway()
        ids = []
        for number in range(count):
            opened = gateway.open(
                Charge(
                    reference=f"F-{number}",
                    amount=Money(499, "USD"),
                    description="One phone",
                    return_url="http://127.0.0.1/",
                    expires_at=datetime.now(UTC) + timedelta(hours=1),
                    language="en",
                )
            )
            ids.append(opened.provider_id)
        began = time.perf_counter()
        for number, provider_id in enumerate(ids):
            snapshot = gateway.fetch(reference=f"F-{number}", provider_id=provider_id)
            assert snapshot
            assert (snapshot.provider_id, snapshot.state) == (provider_id, "pending")
        return (time.perf_counter() - began) / count


def _configure(url: str) -> None:
    settings.ALLOW_EMULATORS = True
    settings.SITE_URL = "http://127.0.0.1:8000"
    settings.SANDBOX_GATEWAY_URL = url
    settings.SANDBOX_GATEWAY_KEY = KEY
    settings.SANDBOX_WEBHOOK_SECRET = SECRET


def _psycopg(*, autocommit: bool = False) -> psycopg.Connection[Any]:
    """A connection without Django between."""
    address = os.environ["DATABASE_URL"].replace("postgres://", "postgresql://", 1)
    return psycopg.connect(address, autocommit=autocommit)


def _attempts() -> Iterable[PaymentAttempt]:
    return PaymentAttempt.objects.filter(order__state=OrderState.UNPAID).order_by("pk")


def _captured_at(attempt: PaymentAttempt) -> datetime:
    """One in twenty is reported late, and gets a place among those that were paid before."""
    late = timedelta(minutes=15) if attempt.pk % 20 == 0 else timedelta(0)
    return NOW - late + timedelta(milliseconds=attempt.pk)


def _snapshot(attempt: PaymentAttempt) -> Snapshot:
    move = MoneyMoved(f"cap-{attempt.pk}", attempt.amount, _captured_at(attempt))
    return Snapshot(attempt.provider_id, "captured", captures=(move,))


def _load(cursor: psycopg.Cursor[Any], path: str) -> list[str]:
    """Put what was recorded into tables of its own; return the statements that insert the rows of one order."""
    statements = []
    for table in (*OF_ORDER, SHARED):
        cursor.execute(f"CREATE UNLOGGED TABLE floor_{table} (of_order bigint, LIKE {table})")
        with cursor.copy(f"COPY floor_{table} FROM STDIN") as copy:
            copy.write(Path(f"{path}.{table}").read_bytes())
        cursor.execute(f"SELECT * FROM {table} LIMIT 0")
        columns = ", ".join(column.name for column in cursor.description or ())
        insert = f"INSERT INTO {table} ({columns}) SELECT {columns} FROM floor_{table}"
        if table == SHARED:
            cursor.execute(insert)
        else:
            cursor.execute(f"CREATE INDEX ON floor_{table} (of_order)")
            cursor.execute(f"ANALYZE floor_{table}")
            statements.append(f"{insert} WHERE of_order = %s")
    return statements


def _verify_paid(attempts: list[PaymentAttempt]) -> None:
    """Each order is paid once and exactly, stands in the queue once, is told and invoiced once."""
    paid = {attempt.order_id: attempt.amount_minor for attempt in attempts}
    orders = Order.objects.filter(pk__in=paid)
    units = OrderLine.objects.filter(order__in=paid).aggregate(units=Sum("quantity"))["units"]
    entries = LedgerEntry.objects.filter(order__in=paid)
    assert dict(entries.values_list("order_id", "minor")) == paid
    assert entries.count() == len(paid)
    assert not orders.exclude(state=OrderState.PAID).exists()
    lines = OrderLine.objects.filter(order__in=paid)
    assert lines.filter(state=LineState.WAITING, paid_at=F("order__paid_at")).count() == len(paid)
    joined = QueueEvent.objects.filter(line__order__in=paid, kind=QueueEventKind.JOINED)
    assert (joined.count(), joined.aggregate(units=Sum("units"))["units"]) == (len(paid), units)
    assert Estimate.objects.filter(line__order__in=paid, number=1).count() == len(paid)
    told = Notice.objects.filter(about__in=orders.values("reference"), kind="payment-received")
    assert told.count() == len(paid)
    serials = Document.objects.filter(order__in=paid).order_by("serial").values_list("serial", flat=True)
    assert list(serials) == list(range(1, len(paid) + 1))
    assert list(broken_links(Document)) == []
    assert list(segments.wrong_counts()) == []
