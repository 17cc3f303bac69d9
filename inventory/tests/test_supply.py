"""Announcing, changing and cancelling supply."""

from datetime import date

import pytest

from evidence.contract_time import contract_date
from inventory.models import BatchState, SupplyBatch
from inventory.supply import (
    BatchClosed,
    DateRefused,
    QuantityRefused,
    ReferenceTaken,
    announce_batch,
    cancel_batch,
    change_batch,
)
from tests.builders import NOW, make_batch, make_plan

TODAY = contract_date(NOW)


@pytest.mark.django_db
def test_an_announced_batch_is_expected_and_remembers_the_first_date() -> None:
    plan = make_plan()
    batch = announce_batch(
        plan_id=plan.pk, reference=" ACME-7 ", quantity=50, expected_on=date(2026, 12, 1), now=NOW
    )
    batch.refresh_from_db()
    assert (batch.plan, batch.reference, batch.quantity, batch.state) == (
        plan,
        "ACME-7",
        50,
        BatchState.EXPECTED,
    )
    assert (batch.expected_on, batch.first_expected_on) == (date(2026, 12, 1), date(2026, 12, 1))
    assert (batch.announced_at, batch.received_units) == (NOW, 0)


@pytest.mark.django_db
def test_a_reference_is_announced_once() -> None:
    batch = make_batch(make_plan())
    with pytest.raises(ReferenceTaken, match=batch.reference):
        announce_batch(
            plan_id=batch.plan_id, reference=batch.reference, quantity=1, expected_on=TODAY, now=NOW
        )
    assert SupplyBatch.objects.count() == 1


@pytest.mark.django_db
def test_a_batch_is_announced_for_today_in_hong_kong_but_not_for_yesterday_or_the_year_9999() -> None:
    plan = make_plan()
    with pytest.raises(DateRefused):
        announce_batch(plan_id=plan.pk, reference="A", quantity=1, expected_on=date(2026, 11, 22), now=NOW)
    with pytest.raises(DateRefused, match="slip in the year"):
        announce_batch(plan_id=plan.pk, reference="A", quantity=1, expected_on=date(9999, 12, 31), now=NOW)
    assert not SupplyBatch.objects.exists()
    announce_batch(plan_id=plan.pk, reference="A", quantity=1, expected_on=date(2026, 11, 23), now=NOW)
    assert SupplyBatch.objects.get().expected_on == date(2026, 11, 23)


@pytest.mark.django_db
def test_an_empty_batch_is_refused() -> None:
    with pytest.raises(QuantityRefused):
        announce_batch(plan_id=make_plan().pk, reference="A", quantity=0, expected_on=TODAY, now=NOW)
    assert not SupplyBatch.objects.exists()


@pytest.mark.django_db
def test_a_changed_date_leaves_the_first_date_and_the_quantity() -> None:
    batch = make_batch(make_plan(), quantity=10, on=date(2026, 12, 1))
    change_batch(batch_id=batch.pk, expected_on=date(2026, 12, 24), now=NOW)
    batch.refresh_from_db()
    assert (batch.expected_on, batch.first_expected_on, batch.quantity) == (
        date(2026, 12, 24),
        date(2026, 12, 1),
        10,
    )


@pytest.mark.django_db
def test_the_quantity_of_a_late_batch_is_changed_without_naming_a_new_date() -> None:
    batch = make_batch(make_plan(), quantity=10, on=date(2026, 11, 1))
    change_batch(batch_id=batch.pk, expected_on=batch.expected_on, quantity=12, now=NOW)
    batch.refresh_from_db()
    assert (batch.quantity, batch.expected_on) == (12, date(2026, 11, 1))


@pytest.mark.django_db
def test_a_date_is_not_moved_into_the_past() -> None:
    batch = make_batch(make_plan(), on=date(2026, 12, 1))
    with pytest.raises(DateRefused):
        change_batch(batch_id=batch.pk, expected_on=date(2026, 11, 22), now=NOW)
    batch.refresh_from_db()
    assert batch.expected_on == date(2026, 12, 1)


@pytest.mark.parametrize("quantity", [3, 0, -1])
@pytest.mark.django_db
def test_the_quantity_is_never_less_than_what_arrived(quantity: int) -> None:
    batch = make_batch(make_plan(), quantity=10)
    SupplyBatch.objects.filter(pk=batch.pk).update(received_units=4)
    with pytest.raises(QuantityRefused):
        change_batch(batch_id=batch.pk, quantity=quantity, now=NOW)
    change_batch(batch_id=batch.pk, quantity=4, now=NOW)
    batch.refresh_from_db()
    assert batch.quantity == 4


@pytest.mark.django_db
def test_a_cancelled_batch_has_nothing_outstanding_and_changes_no_more() -> None:
    batch = make_batch(make_plan(), quantity=10)
    cancel_batch(batch_id=batch.pk)
    batch.refresh_from_db()
    assert (batch.state, batch.outstanding) == (BatchState.CANCELLED, 0)
    with pytest.raises(BatchClosed, match="Announce a new batch instead"):
        change_batch(batch_id=batch.pk, quantity=11, now=NOW)
    with pytest.raises(BatchClosed):
        cancel_batch(batch_id=batch.pk)
    batch.refresh_from_db()
    assert batch.quantity == 10


@pytest.mark.django_db
def test_a_received_batch_is_not_cancelled() -> None:
    batch = make_batch(make_plan(), received_late=0)
    with pytest.raises(BatchClosed, match="is received"):
        cancel_batch(batch_id=batch.pk)
    batch.refresh_from_db()
    assert batch.state == BatchState.RECEIVED
