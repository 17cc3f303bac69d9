"""The database refuses what evidence must not suffer, by raw SQL and on either backend."""

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction

from evidence.models import AppendOnly, RecordIsFinal, WriteOnce
from evidence.triggers import guarded_models, triggers_of
from inventory.models import Fee, Plan, SupplyBatch
from orders.models import Order, OrderLine, WebhookEvent
from tests.builders import NOW, make_batch, make_fee, make_line, make_order, make_plan, make_webhook

pytestmark = pytest.mark.django_db


def refused(sql: str, *params: str | int) -> bool:
    """Whether the database refuses the statement because of a trigger of ours."""
    with transaction.atomic(), connection.cursor() as cursor:
        try:
            with transaction.atomic():
                cursor.execute(sql, params)
        except DatabaseError as error:
            return "refused" in str(error)
        return False


def installed_triggers() -> set[str]:
    with connection.cursor() as cursor:
        if connection.vendor == "postgresql":
            cursor.execute("SELECT tgname FROM pg_trigger WHERE NOT tgisinternal")
        else:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
        return {name for (name,) in cursor.fetchall()}


def test_every_promise_of_every_model_has_its_trigger() -> None:
    promised = {trigger.name for model in guarded_models() for trigger in triggers_of(model)}

    assert promised - installed_triggers() == set()
    # Names as long as PostgreSQL's limit would be cut, and could then be the same.
    assert max(len(name) for name in promised) <= 63


def test_the_tables_of_the_record_are_guarded() -> None:
    labels = {model._meta.label: issubclass(model, AppendOnly) for model in guarded_models()}

    assert {label for label, append_only in labels.items() if append_only} == {
        "agreements.Acceptance",
        "agreements.Answer",
        "agreements.Question",
        "agreements.Ruling",
        "agreements.StatutoryRight",
        "agreements.Text",
        "inventory.Fee",
        "inventory.OversellDecision",
        "inventory.SupplyReceipt",
        "notices.DeliveryEvent",
        "notices.Letter",
        "notices.Message",
        "notices.Wording",
        "orders.CaseMessage",
        "orders.Document",
        "orders.Estimate",
        "orders.EstimateRound",
        "orders.Forecast",
        "orders.LedgerEntry",
        "orders.PublishedHead",
        "orders.RefundLine",
    }


@pytest.mark.clause("3.2")
def test_append_only_row_cannot_be_changed_or_deleted_by_sql() -> None:
    fee = make_fee(make_plan(), minor=499)

    assert refused("UPDATE inventory_fee SET minor = 1 WHERE id = %s", fee.pk)
    assert refused("DELETE FROM inventory_fee WHERE id = %s", fee.pk)
    assert Fee.objects.get(pk=fee.pk).minor == 499


def test_append_only_row_cannot_be_changed_or_deleted_by_the_orm() -> None:
    fee = make_fee(make_plan())

    for attempt in (fee.save, fee.delete, Fee.objects.all().delete, lambda: Fee.objects.update(minor=1)):
        with pytest.raises(RecordIsFinal):
            attempt()


@pytest.mark.clause("3.3")
def test_paid_at_is_set_once_and_never_moved_or_cleared() -> None:
    line = make_line(make_fee(make_plan()), paid_at=NOW)
    unpaid = make_order([(make_fee(make_plan("V06")), 1)])

    for table, pk in (("orders_orderline", line.pk), ("orders_order", line.order_id)):
        assert refused(f"UPDATE {table} SET paid_at = %s WHERE id = %s", "2020-01-01 00:00:00", pk)
        assert refused(f"UPDATE {table} SET paid_at = NULL WHERE id = %s", pk)
    assert OrderLine.objects.filter(order=unpaid).update(paid_at=NOW, state="waiting") == 1


def test_writing_the_same_value_again_is_no_change() -> None:
    line = make_line(make_fee(make_plan()), paid_at=NOW)

    assert OrderLine.objects.filter(pk=line.pk).update(paid_at=NOW, quantity=1) == 1


@pytest.mark.payment_case(17)
def test_what_was_agreed_in_an_order_cannot_be_changed() -> None:
    line = make_line(make_fee(make_plan()), quantity=2, paid_at=NOW)

    for column, value in (("quantity", 3), ("unit_minor", 1), ("plan_id", 999), ("bonus_days", 9)):
        assert refused(f"UPDATE orders_orderline SET {column} = %s WHERE id = %s", value, line.pk), column
    assert refused("UPDATE orders_order SET total_minor = 1 WHERE id = %s", line.order_id)


def test_written_once_rows_cannot_be_deleted() -> None:
    line = make_line(make_fee(make_plan()), paid_at=NOW)

    assert refused("DELETE FROM orders_orderline WHERE id = %s", line.pk)
    assert refused("DELETE FROM orders_order WHERE id = %s", line.order_id)


@pytest.mark.payment_case(54)
def test_what_a_webhook_brought_can_become_empty_for_good_and_nothing_else() -> None:
    event = make_webhook(body=b'{"id": 1}', headers={"webhook-id": "event-1"}, processed_at=NOW)
    sql = "UPDATE orders_webhookevent SET {} WHERE id = %s"
    other = "'\\x7b7d'::bytea" if connection.vendor == "postgresql" else "x'7b7d'"
    empty = "''::bytea" if connection.vendor == "postgresql" else "x''"

    for change in (f"body = {other}", "headers = '[]'", "headers = '{\"a\": 1}'", "body_sha256 = 'x'"):
        assert refused(sql.format(change), event.pk), change
    WebhookEvent.objects.update(headers={}, body=b"", emptied_at=NOW)
    for change in (f"body = {other}", "headers = '{\"a\": 1}'", "emptied_at = NULL", "dedupe_key = 'x'"):
        assert refused(sql.format(change), event.pk), change
    assert refused("DELETE FROM orders_webhookevent WHERE id = %s", event.pk)

    event.refresh_from_db()
    assert (bytes(event.body), event.headers, event.dedupe_key) == (b"", {}, "event-1")
    # Without the time at which it was done, nothing is taken out.
    make_webhook(key="event-2", processed_at=NOW)
    with connection.cursor() as cursor, pytest.raises(IntegrityError, match="empty_iff_emptied"):
        cursor.execute(f"UPDATE orders_webhookevent SET body = {empty} WHERE dedupe_key = 'event-2'")


def test_columns_that_may_change_still_do() -> None:
    batch = make_batch(make_plan(), quantity=5)

    SupplyBatch.objects.filter(pk=batch.pk).update(quantity=6)

    assert SupplyBatch.objects.get(pk=batch.pk).quantity == 6
    assert Plan.objects.update(presale_cap=3) == 1


def test_models_say_which_fields_are_written_once() -> None:
    for model in guarded_models():
        if issubclass(model, WriteOnce):
            fields = {field.name for field in model._meta.get_fields()}
            assert set(model.may_be_emptied) <= set(model.written_once) <= fields, model
            assert model.written_once, model
    assert "paid_at" in Order.written_once
