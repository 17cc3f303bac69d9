"""Supply batches: announced, changed while they are expected, cancelled. Arrival is in `receiving.py`.

Estimates are made from what stands here, so a batch is changed by one writer at a time: its row is locked.
"""

from collections.abc import Iterable
from datetime import date, datetime, timedelta

from django.db import transaction
from django.db.models import F, Max, Sum
from django.db.models.functions import Greatest
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from evidence.contract_time import contract_date
from inventory.models import BatchState, OversellDecision, Plan, SupplyBatch

# Nobody announces a delivery farther away than that.
FARTHEST = timedelta(days=730)


class SupplyRefused(Exception):
    """The supply cannot be recorded as asked; the message tells staff what to do instead."""


class BatchClosed(SupplyRefused):
    """The batch is received or cancelled: nothing about it changes any more."""


class ReferenceTaken(SupplyRefused):
    """Another batch has the supplier's reference."""


class QuantityRefused(SupplyRefused):
    """The quantity is nothing, or less than has arrived."""


class ReasonMissing(SupplyRefused):
    """A decision that has to be explained is not."""


class DateRefused(SupplyRefused):
    """The batch would be expected on a day that is past."""


def announce_batch(
    *, plan_id: int, reference: str, quantity: int, expected_on: date, now: datetime
) -> SupplyBatch:
    """Announce devices of a plan. What is said of the date here stays as `first_expected_on`.

    `expected_on` is a contract date (Asia/Hong_Kong). Raises ReferenceTaken, QuantityRefused, DateRefused.
    """
    reference = reference.strip()
    _check_quantity(quantity, arrived=0)
    _check_date(expected_on, now=now)
    with transaction.atomic(durable=True):
        batch, is_new = SupplyBatch.objects.get_or_create(
            reference=reference,
            defaults={
                "plan_id": plan_id,
                "quantity": quantity,
                "expected_on": expected_on,
                "first_expected_on": expected_on,
                "announced_at": now,
            },
        )
        if not is_new:
            raise ReferenceTaken(
                _("A batch with the reference %(reference)s is announced already. Change that one instead.")
                % {"reference": reference}
            )
    return batch


def change_batch(
    *, batch_id: int, now: datetime, expected_on: date | None = None, quantity: int | None = None
) -> SupplyBatch:
    """Change the date or the quantity of a batch that is expected; what is left out stays as it is.

    Raises BatchClosed, QuantityRefused (fewer than have arrived already), DateRefused.
    """
    with transaction.atomic(durable=True):
        batch = lock_expected(batch_id)
        if quantity is not None and quantity != batch.quantity:
            _check_quantity(quantity, arrived=batch.received_units)
            _wait_for_checkouts(batch)
            batch.quantity = quantity
        if expected_on is not None and expected_on != batch.expected_on:
            _check_date(expected_on, now=now)
            batch.expected_on = expected_on
        batch.save(update_fields=["quantity", "expected_on"])
    return batch


def cancel_batch(*, batch_id: int) -> SupplyBatch:
    """Cancel what is still to come of a batch. Devices of it that arrived stay in stock. Raises BatchClosed."""
    with transaction.atomic(durable=True):
        batch = lock_expected(batch_id)
        _cancel(batch)
    return batch


def give_up_batch(batch_id: int) -> SupplyBatch:
    """Expect a batch no longer, in the caller's transaction; what is received or cancelled is only locked."""
    batch = SupplyBatch.objects.select_for_update(no_key=True).get(pk=batch_id)
    if batch.state == BatchState.EXPECTED:
        _cancel(batch)
    return batch


def decide_oversell(
    *, plan_id: int, units: int, reason: str, decided_by_id: int, now: datetime
) -> OversellDecision:
    """Allow `units` of a plan to be sold although no announced batch covers them; 0 takes that back.

    Who buys them waits for a batch that nobody has announced: so it takes a reason and a name, which stay on record.
    Raises ReasonMissing.
    """
    if not reason.strip():
        raise ReasonMissing(_("Say why units may be sold that no announced batch covers."))
    decision: OversellDecision = OversellDecision.objects.create(
        plan_id=plan_id,
        units=units,
        reason=reason.strip(),
        decided_by_id=decided_by_id,
        decided_at=now,
    )
    return decision


def announced_by_plan(plan_ids: Iterable[int]) -> dict[int, int]:
    """Units still to come with announced batches, by plan; a plan with none is missing."""
    batches = SupplyBatch.objects.filter(plan_id__in=list(plan_ids), state=BatchState.EXPECTED)
    outstanding = Greatest(F("quantity") - F("received_units"), 0)
    return dict(batches.order_by().values_list("plan_id").annotate(units=Sum(outstanding)))


def oversell_by_plan(plan_ids: Iterable[int]) -> dict[int, int]:
    """Units that may be sold beyond the announced supply, by plan; a plan without a decision is missing."""
    newest = OversellDecision.objects.filter(plan_id__in=list(plan_ids)).order_by().values("plan_id")
    in_force = OversellDecision.objects.filter(pk__in=newest.annotate(newest=Max("pk")).values("newest"))
    return dict(in_force.order_by().values_list("plan_id", "units"))


def lock_expected(batch_id: int) -> SupplyBatch:
    """Lock the row of a batch that is still expected, for whoever changes it. Call inside a transaction.

    Raises BatchClosed.
    """
    batch = SupplyBatch.objects.select_for_update(no_key=True).get(pk=batch_id)
    if batch.state != BatchState.EXPECTED:
        raise BatchClosed(
            _("Batch %(reference)s is %(state)s and does not change any more. Announce a new batch instead.")
            % {"reference": batch.reference, "state": batch.get_state_display()}
        )
    return batch


def _cancel(batch: SupplyBatch) -> None:
    _wait_for_checkouts(batch)
    batch.state = BatchState.CANCELLED
    batch.save(update_fields=["state"])


def _wait_for_checkouts(batch: SupplyBatch) -> None:
    """Nobody sells what this batch covers while it is being cut."""
    Plan.objects.select_for_update(no_key=True).get(pk=batch.plan_id)


def _check_quantity(quantity: int, *, arrived: int) -> None:
    if quantity < 1:
        raise QuantityRefused(_("A batch has at least one device. Cancel it if none will come."))
    if quantity < arrived:
        raise QuantityRefused(
            _("%(arrived)d devices of this batch have arrived already: the quantity cannot be less.")
            % {"arrived": arrived}
        )


def _check_date(expected_on: date, *, now: datetime) -> None:
    today = contract_date(now)
    if expected_on > today + FARTHEST:
        raise DateRefused(
            _("The day %(date)s is more than two years away. Look for a slip in the year.")
            % {"date": date_format(expected_on, "DATE_FORMAT")}
        )
    if expected_on < today:
        raise DateRefused(
            _(
                "Give the day the batch is now expected on: %(date)s is past (today is %(today)s in Hong Kong)."
            )
            % {"date": date_format(expected_on, "DATE_FORMAT"), "today": date_format(today, "DATE_FORMAT")}
        )
