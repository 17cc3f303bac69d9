"""What the measurements of the outbox consist of: each function runs in a process of its own, on a database of its own."""

import time
from datetime import UTC, datetime, timedelta

from django.db import connection, transaction

from notices import deliveries
from notices.channels import CHANNELS
from notices.expansion import expand
from notices.models import Delivery, DeliveryEvent, InboxMessage, Message, Notice
from notices.outbox import drain as drain_outbox
from notices.rendering import Text, keep

NOW = datetime(2026, 11, 23, tzinfo=UTC)
CUSTOMERS = 10_000
# Deliveries in one transaction.
BATCH = 500


def fill(*, pending: int, notices: int) -> None:
    """So many mails that wait, and so many notices that were not handed to the channels yet."""
    keep(Text("en", "Subject", "Words."))
    with connection.cursor() as cursor:
        cursor.execute("SET synchronous_commit = off")
        cursor.execute(
            "INSERT INTO accounts_user (password, is_superuser, is_staff, is_active, date_joined, email, name, "
            "language, time_zone) SELECT '!', false, false, true, now(), 'reader' || n || '@example.com', '', 'en', "
            "'UTC' FROM generate_series(1, %s) AS n",
            [CUSTOMERS],
        )
        cursor.execute(
            "WITH readers AS (SELECT array_agg(id) AS ids FROM accounts_user) INSERT INTO notices_notice "
            "(recipient_id, kind, about, url, facts, thread, to_channel, to_address, dedupe_key, created_at, is_expanded) "
            "SELECT ids[1 + n %% array_length(ids, 1)], 'payment-received', 'VM-' || n, '/orders/VM-' || n || '/', "
            "jsonb_build_object('reference', 'VM-' || n, 'total', jsonb_build_object('minor', 499, 'currency', 'USD'), "
            "'paid_at', '2026-11-23T00:00:00+00:00'), '', '', '', 'bench:' || n, %(now)s, n <= %(pending)s "
            "FROM readers, generate_series(1, %(all)s) AS n",
            {"now": NOW, "pending": pending, "all": pending + notices},
        )
        cursor.execute(
            "INSERT INTO notices_delivery (notice_id, channel, address, priority, due_at, state, attempts, "
            "provider_reference, problem) SELECT notices_notice.id, 'email', email, 5, %s, 'queued', 0, '', '' "
            "FROM notices_notice JOIN accounts_user ON accounts_user.id = recipient_id WHERE is_expanded",
            [NOW],
        )
        cursor.execute("RESET synchronous_commit")
    with connection.cursor() as cursor:
        cursor.execute("VACUUM ANALYZE")


def raw_drain(*, count: int) -> float:
    """Seconds per delivery of the two statements, each batch committed."""
    began = time.perf_counter()
    with connection.cursor() as cursor:
        for _ in range(count // BATCH):
            with transaction.atomic():
                cursor.execute(
                    "SELECT id FROM notices_delivery WHERE channel = 'email' AND state = 'queued' AND due_at <= %s "
                    f"ORDER BY priority, due_at, id LIMIT {BATCH} FOR UPDATE SKIP LOCKED",
                    [NOW],
                )
                ids = [row[0] for row in cursor.fetchall()]
                cursor.execute(
                    "UPDATE notices_delivery SET state = 'leased', lease_until = %s WHERE id = ANY(%s)",
                    [NOW + deliveries.LEASE, ids],
                )
    took = time.perf_counter() - began
    assert Delivery.objects.filter(state="leased").count() == count
    return took / count


def claims(*, count: int) -> float:
    """Seconds per delivery to claim it, with all that is needed to write and send it."""
    place = deliveries.Place()
    began = time.perf_counter()
    for _ in range(count // BATCH):
        _claim(place)
    took = time.perf_counter() - began
    assert Delivery.objects.filter(state="leased").count() == count
    return took / count


def drain(*, count: int) -> float:
    """The same, recorded as sent in the transaction of the claim."""
    message, place = Message.objects.get(), deliveries.Place()
    began = time.perf_counter()
    for _ in range(count // BATCH):
        with transaction.atomic():
            claimed = deliveries.claim(channel="email", limit=BATCH, now=NOW, place=place)
            deliveries.record_all([(delivery, message) for delivery in claimed], now=NOW)
    took = time.perf_counter() - began
    assert Delivery.objects.filter(state="sent", message=message, attempts=1).count() == count
    assert DeliveryEvent.objects.count() == 2 * count
    return took / count


def growth() -> float:
    """How many times as long the last tenth of the whole backlog takes to claim as the first."""
    tenth = Delivery.objects.count() // 10 // BATCH
    times, place = [], deliveries.Place()
    for _ in range(10):
        began = time.perf_counter()
        for _ in range(tenth):
            _claim(place)
        times.append(time.perf_counter() - began)
    assert not Delivery.objects.filter(state="queued").exists()
    return times[-1] / times[0]


def fan_out() -> float:
    """Seconds per delivery that a notice is made into."""
    before = Delivery.objects.count()
    began = time.perf_counter()
    notices = 0
    while found := expand(now=NOW):
        notices += found
    took = time.perf_counter() - began
    made = Delivery.objects.count() - before
    assert made == 2 * notices
    assert not Notice.objects.filter(is_expanded=False).exists()
    return took / made


def insert_deliveries() -> float:
    """Seconds per delivery of bare inserts of the same rows, a thousand notices in a transaction."""
    ids = list(Notice.objects.filter(is_expanded=False).order_by("id").values_list("id", flat=True))
    began = time.perf_counter()
    with connection.cursor() as cursor:
        for start in range(0, len(ids), 1_000):
            with transaction.atomic():
                cursor.execute(
                    "INSERT INTO notices_delivery (notice_id, channel, address, priority, due_at, state, attempts, "
                    "provider_reference, problem) SELECT notices_notice.id, channel, "
                    "CASE channel WHEN 'email' THEN email ELSE accounts_user.id::text END, 5, %s, 'queued', 0, '', '' "
                    "FROM notices_notice JOIN accounts_user ON accounts_user.id = recipient_id, "
                    "unnest(ARRAY['in-site', 'email']) AS channel WHERE notices_notice.id = ANY(%s)",
                    [NOW, ids[start : start + 1_000]],
                )
                cursor.execute(
                    "UPDATE notices_notice SET is_expanded = true WHERE id = ANY(%s)",
                    [ids[start : start + 1_000]],
                )
    return (time.perf_counter() - began) / (2 * len(ids))


def write_inbox() -> float:
    """Seconds per message in the inbox of somebody: claimed, rendered, written and recorded."""
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notices_delivery SET due_at = due_at + interval '1 day' WHERE channel = 'email'"
        )
    while expand(now=NOW):
        pass
    waiting = Delivery.objects.filter(channel="in-site", state="queued").count()
    in_site = {"in-site": CHANNELS["in-site"]}
    CHANNELS.clear()
    CHANNELS.update(in_site)
    places: dict[str, deliveries.Place] = {}
    began = time.perf_counter()
    while drain_outbox(now=NOW + timedelta(seconds=1), places=places):
        pass
    took = time.perf_counter() - began
    assert InboxMessage.objects.count() == waiting
    return took / waiting


def _claim(place: deliveries.Place) -> None:
    with transaction.atomic():
        assert len(deliveries.claim(channel="email", limit=BATCH, now=NOW, place=place)) == BATCH
