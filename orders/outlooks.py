"""What an estimate rests on: what is free, what is announced, how late past batches were, how fast phones go out."""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db.models import Max, Q, Sum

from evidence.contract_time import contract_date, contract_midnight
from inventory.models import BatchState, SupplyBatch
from orders.lateness import ASSUMED_LATENESS, ENOUGH_BATCHES
from orders.models import Forecast, QueueEvent, QueueEventKind
from orders.queue import free_devices_by_plan
from orders.windows import MONTH_DAYS, MONTHS, Expected, Outlook


def outlooks(plan_ids: Iterable[int], *, now: datetime) -> dict[int, Outlook]:
    """The outlook of each plan, in a fixed number of queries."""
    wanted = list(plan_ids)
    today = first_day(now)
    free = free_devices_by_plan(wanted)
    expected: dict[int, list[Expected]] = {}
    announced = SupplyBatch.objects.filter(plan_id__in=wanted, state=BatchState.EXPECTED)
    for batch in announced.order_by("expected_on", "pk"):
        if batch.outstanding:
            expected.setdefault(batch.plan_id, []).append(
                Expected(
                    batch.reference,
                    batch.expected_on,
                    batch.outstanding,
                    batch.first_expected_on,
                    batch.quantity,
                )
            )
    lateness, overdue = _lateness(today)
    monthly = _monthly_allocations(wanted, today=today)
    result = {}
    for plan_id in wanted:
        came, waits, of = lateness.get(plan_id, []), overdue.get(plan_id, []), "plan"
        if len(came) < ENOUGH_BATCHES:
            came, waits, of = _of_all(lateness), _of_all(overdue), "all plans"
        if len(came) < ENOUGH_BATCHES:
            came, waits, of = list(ASSUMED_LATENESS), [], "assumption"
        result[plan_id] = Outlook(
            today=today,
            free=free.get(plan_id, 0),
            expected=tuple(expected.get(plan_id, ())),
            lateness=tuple(sorted(came)),
            overdue=tuple(sorted(waits)),
            lateness_of=of,
            monthly=monthly[plan_id],
        )
    return result


def first_day(now: datetime) -> date:
    """The contract date on which a device that is free now can be allocated."""
    return contract_date(now + settings.ALLOCATION_HOLD_BACK)


def _lateness(today: date) -> tuple[dict[int, list[int]], dict[int, list[int]]]:
    """Days between the date first said and the receipt of every past batch, by plan; and the same of those that are
    still to come and known to be late: days so far, or until the day they were put off to."""
    came: dict[int, list[int]] = {}
    overdue: dict[int, list[int]] = {}
    for batch in SupplyBatch.objects.exclude(state=BatchState.CANCELLED):
        if batch.received_at:
            late = contract_date(batch.received_at) - batch.first_expected_on
            came.setdefault(batch.plan_id, []).append(late.days)
        elif batch.outstanding:
            late = max(today, batch.expected_on) - batch.first_expected_on
            if late.days > 0:
                overdue.setdefault(batch.plan_id, []).append(late.days)
    return came, overdue


def _of_all(by_plan: Mapping[int, list[int]]) -> list[int]:
    return [days for of_plan in by_plan.values() for days in of_plan]


def _monthly_allocations(plan_ids: Sequence[int], *, today: date) -> dict[int, tuple[int, ...]]:
    """Units allocated per plan in each of the last three periods of 30 whole contract days, the oldest first.

    They stay the same all day, so the day's first forecast is asked before the ledger is.
    """
    newest = Forecast.objects.filter(plan_id__in=plan_ids).order_by().values("plan_id")
    said = {
        forecast.plan_id: tuple(forecast.inputs["monthly"])
        for forecast in Forecast.objects.filter(pk__in=newest.annotate(newest=Max("pk")).values("newest"))
        if forecast.inputs["today"] == today.isoformat()
    }
    unsaid = set(plan_ids) - said.keys()
    begins = [contract_midnight(today - timedelta(days=MONTH_DAYS * ago)) for ago in range(MONTHS, -1, -1)]
    allocated = QueueEvent.objects.filter(
        kind=QueueEventKind.ALLOCATED, plan_id__in=unsaid, at__gte=begins[0], at__lt=begins[-1]
    )
    sums = {
        f"month_{n}": Sum("units", filter=Q(at__gte=since, at__lt=until), default=0)
        for n, (since, until) in enumerate(itertools.pairwise(begins))
    }
    counts = allocated.order_by().values_list("plan_id").annotate(**sums) if unsaid else ()
    months = {plan_id: tuple(units) for plan_id, *units in counts}
    return {plan_id: said.get(plan_id) or months.get(plan_id, (0,) * MONTHS) for plan_id in plan_ids}
