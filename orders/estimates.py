"""When a phone will be allocated: an honest window, how it was made, and when it is made again.

The window of a unit is where the announced supply first covers all units up to it:

- *earliest*, *likely* and *latest* shift a batch's date by the lowest, the median and the 90th percentile of
  how many days late past batches came (nearest rank, so every figure is one that really happened);
- a batch that is overdue is judged only by past batches that were at least as late, and one that was put
  off comes no earlier than the day it was put off to;
- beyond the announced supply, the slowest, mean and fastest of the last three months of allocations count
  on; if one of those months allocated nothing, the answer is "not known yet".

`window` and what it uses are pure; `record_…` and `refresh_estimates` write append-only rows (clause 3.3).
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count, Max, Q

from evidence.contract_time import contract_date
from inventory.models import BatchState, SupplyBatch
from notices import kinds
from notices.kinds import Kind
from notices.outbox import Draft, JSONValue, tell
from orders.models import Allocation, Basis, Cause, Estimate, OrderLine
from orders.queue import free_devices_by_plan, lock_plans, units_ahead, units_waiting
from orders.telling import about_order

# Fewer past batches than this say nothing: those of all plans are used, then this assumption (in days).
ENOUGH_BATCHES = 5
ASSUMED_LATENESS = (0, 0, 7, 14, 30)
# Nobody can promise anything that far away.
HORIZON = timedelta(days=730)
MONTH_DAYS = 30
MONTHS = 3
CHUNK = 500


@dataclass(frozen=True, slots=True)
class Window:
    """When the last of some units is expected to be allocated. `earliest` ≤ `likely` ≤ `latest`."""

    earliest: date
    likely: date
    latest: date
    basis: Basis


@dataclass(frozen=True, slots=True)
class Expected:
    """`units` still to come with one announced batch on the day `on`, first said to be `first_on`."""

    reference: str
    on: date
    units: int
    first_on: date


@dataclass(frozen=True, slots=True)
class Outlook:
    """Everything an estimate of one plan is made from.

    `today` is the contract date on which a free device can be allocated; `expected` is in date order;
    `lateness` are the days past batches were late, ascending; `monthly` the units allocated in each of
    the last three periods of 30 days.
    """

    today: date
    free: int
    expected: tuple[Expected, ...]
    lateness: tuple[int, ...]
    lateness_of: str
    monthly: tuple[int, ...]

    def as_json(self) -> dict[str, JSONValue]:
        return {
            "today": self.today.isoformat(),
            "free": self.free,
            "expected": [[batch.reference, batch.on.isoformat(), batch.units] for batch in self.expected],
            "lateness": list(self.lateness),
            "lateness_of": self.lateness_of,
            "monthly": list(self.monthly),
        }


def nearest_rank(ascending: Sequence[int], share: float) -> int:
    """The smallest of the values that at least `share` of them do not exceed."""
    return ascending[max(0, math.ceil(share * len(ascending)) - 1)]


def arrival(batch: Expected, *, outlook: Outlook) -> tuple[date, date, date]:
    """When the batch comes, as (earliest, likely, latest), none of them before today.

    Past lateness is counted from the date that was said first, and so it is here: a batch that was put off
    has used up some of it. It is not expected before the date it was put off to.
    """
    said = min(batch.first_on, batch.on)
    not_before = max(outlook.today, batch.on) if batch.on > batch.first_on else outlook.today
    lateness = [days for days in outlook.lateness if said + timedelta(days=days) >= outlook.today]
    if not lateness or said + timedelta(days=lateness[-1]) < not_before:
        # Later than anything on record: what is left is the assumption, counted from there.
        said, lateness = not_before, list(ASSUMED_LATENESS)
    earliest, likely, latest = (
        max(not_before, said + timedelta(days=days))
        for days in (lateness[0], nearest_rank(lateness, 0.5), nearest_rank(lateness, 0.9))
    )
    return earliest, likely, latest


def window(*, units: int, outlook: Outlook) -> Window | None:
    """The window of the unit that has `units` - 1 before it in its plan; None when it is not known."""
    reach = outlook.free
    earliest = likely = latest = outlook.today
    if units <= reach:
        return Window(earliest, likely, latest, Basis.FREE)
    for batch in outlook.expected:
        # Batches can overtake one another on paper; the queue still needs them all.
        arrives = arrival(batch, outlook=outlook)
        earliest, likely, latest = (
            max(pair) for pair in zip((earliest, likely, latest), arrives, strict=True)
        )
        reach += batch.units
        if units <= reach:
            return Window(earliest, likely, latest, Basis.SUPPLY)
    if len(outlook.monthly) < MONTHS or not min(outlook.monthly):
        return None
    missing = units - reach

    def days_at(monthly_rate: float) -> timedelta:
        return timedelta(days=min(math.ceil(missing * MONTH_DAYS / monthly_rate), 10_000))

    mean = sum(outlook.monthly) / len(outlook.monthly)
    beyond = Window(
        earliest + days_at(max(outlook.monthly)),
        likely + days_at(mean),
        latest + days_at(min(outlook.monthly)),
        Basis.RATE,
    )
    return beyond if beyond.latest <= outlook.today + HORIZON else None


def outlooks(plan_ids: Iterable[int], *, now: datetime) -> dict[int, Outlook]:
    """The outlook of each plan, in four queries whatever their number."""
    wanted = list(plan_ids)
    today = contract_date(now + settings.ALLOCATION_HOLD_BACK)
    free = free_devices_by_plan(wanted)
    expected: dict[int, list[Expected]] = {}
    announced = SupplyBatch.objects.filter(plan_id__in=wanted, state=BatchState.EXPECTED)
    for batch in announced.order_by("expected_on", "pk"):
        if batch.outstanding:
            expected.setdefault(batch.plan_id, []).append(
                Expected(batch.reference, batch.expected_on, batch.outstanding, batch.first_expected_on)
            )
    lateness = _lateness()
    monthly = _monthly_allocations(wanted, now=now)
    everywhere = sorted(days for of_plan in lateness.values() for days in of_plan)
    result = {}
    for plan_id in wanted:
        days, of = sorted(lateness.get(plan_id, [])), "plan"
        if len(days) < ENOUGH_BATCHES:
            days, of = everywhere, "all plans"
        if len(days) < ENOUGH_BATCHES:
            days, of = list(ASSUMED_LATENESS), "assumption"
        result[plan_id] = Outlook(
            today=today,
            free=free.get(plan_id, 0),
            expected=tuple(expected.get(plan_id, ())),
            lateness=tuple(days),
            lateness_of=of,
            monthly=monthly[plan_id],
        )
    return result


def quote(*, plan_id: int, units: int, now: datetime) -> Window | None:
    """The window for `units` units of a plan, if they were paid now."""
    outlook = outlooks([plan_id], now=now)[plan_id]
    return window(units=units_waiting(plan_id=plan_id) + units, outlook=outlook)


def record_first_estimate(line: OrderLine, *, now: datetime) -> Estimate:
    """Estimate a line that has just joined its queue, and tell the customer if devices are short.

    Clause 3.3: "if the platform's inventory is insufficient … the platform will promptly notify you of the
    estimated allocation time". Runs in the transaction of the payment. Needs `order` and `plan` loaded.
    """
    ahead = units_ahead(line)
    outlook = outlooks([line.plan_id], now=now)[line.plan_id]
    estimate = _estimate(line, ahead=ahead, outlook=outlook, previous=None, cause=Cause.PAYMENT, now=now)
    estimate.save(force_insert=True)
    if estimate.basis != Basis.FREE:
        tell([_draft(line, estimate, previous=None, kind=kinds.ESTIMATE_MADE)], now=now)
    return estimate


def refresh_estimates(*, plan_id: int, now: datetime) -> int:
    """Estimate every waiting line of the plan anew; record and tell what changed. Return how many.

    Recorded are a first estimate, a change of `settings.ESTIMATE_MATERIAL_DAYS` or more, and the regular
    update that was promised. Safe to run twice at once: an estimate's number is unique for its line.

    One transaction per chunk of the queue, under the plan's lock: a sweep between a look at the devices and
    one at the queue would show devices free that are given away, and promise them again.
    """
    recorded, last = 0, None
    while True:
        made, last = _refresh_chunk(plan_id=plan_id, after=last, now=now)
        recorded += made
        if last is None:
            return recorded


def _refresh_chunk(*, plan_id: int, after: OrderLine | None, now: datetime) -> tuple[int, OrderLine | None]:
    """Refresh the next lines behind `after`; return how many were recorded and the last line, None at the end."""
    with transaction.atomic(durable=True):
        lock_plans([plan_id])
        lines = OrderLine.objects.waiting(plan_id=plan_id).select_related("order", "plan")
        if after is not None:
            lines = lines.filter(Q(paid_at__gt=after.paid_at) | Q(paid_at=after.paid_at, pk__gt=after.pk))
        chunk = list(lines[:CHUNK])
        if not chunk:
            return 0, None
        outlook = outlooks([plan_id], now=now)[plan_id]
        newest = newest_estimates([line.pk for line in chunk])
        ahead_of_next = units_ahead(chunk[0])
        made: list[Estimate] = []
        drafts: list[Draft] = []
        for line in chunk:
            ahead, ahead_of_next = ahead_of_next, ahead_of_next + line.waiting_units
            previous = newest.get(line.pk)
            cause = _cause(previous, ahead=ahead, outlook=outlook)
            estimate = _estimate(line, ahead=ahead, outlook=outlook, previous=previous, cause=cause, now=now)
            kind = _worth_telling(estimate, previous=previous, outlook=outlook)
            if kind is None:
                continue
            if kind is kinds.ESTIMATE_CONFIRMED:
                estimate.cause = Cause.SCHEDULE
            made.append(estimate)
            if estimate.basis != Basis.FREE:
                drafts.append(_draft(line, estimate, previous=previous, kind=kind))
        Estimate.objects.bulk_create(made, ignore_conflicts=True)
        tell(drafts, now=now)
    return len(made), chunk[-1] if len(chunk) == CHUNK else None


def newest_estimates(line_ids: Iterable[int]) -> dict[int, Estimate]:
    """The estimate in force of each line, by line id; a line without one is missing."""
    newest = Estimate.objects.filter(line_id__in=list(line_ids)).values("line_id").annotate(newest=Max("pk"))
    return {
        estimate.line_id: estimate for estimate in Estimate.objects.filter(pk__in=newest.values("newest"))
    }


def _estimate(
    line: OrderLine, *, ahead: int, outlook: Outlook, previous: Estimate | None, cause: Cause, now: datetime
) -> Estimate:
    found = window(units=ahead + line.waiting_units, outlook=outlook)
    return Estimate(
        line=line,
        number=previous.number + 1 if previous else 1,
        made_at=now,
        earliest=found.earliest if found else None,
        likely=found.likely if found else None,
        latest=found.latest if found else None,
        next_update_by=contract_date(now + settings.ESTIMATE_UPDATE_EVERY),
        basis=found.basis if found else Basis.UNKNOWN,
        cause=cause,
        units_ahead=ahead,
        inputs=outlook.as_json(),
    )


def _cause(previous: Estimate | None, *, ahead: int, outlook: Outlook) -> Cause:
    if previous is None:
        return Cause.PAYMENT
    return Cause.QUEUE if ahead > previous.units_ahead else Cause.SUPPLY


def _worth_telling(estimate: Estimate, *, previous: Estimate | None, outlook: Outlook) -> Kind | None:
    if previous is None:
        return kinds.ESTIMATE_MADE
    if _moved(previous.likely, estimate.likely) or _moved(previous.latest, estimate.latest):
        return kinds.ESTIMATE_CHANGED
    if previous.next_update_by <= outlook.today:
        return kinds.ESTIMATE_CONFIRMED
    return None


def _moved(before: date | None, after: date | None) -> bool:
    if before is None or after is None:
        return before is not after
    return abs((after - before).days) >= settings.ESTIMATE_MATERIAL_DAYS


def _draft(line: OrderLine, estimate: Estimate, *, previous: Estimate | None, kind: Kind) -> Draft:
    def iso(day: date | None) -> str | None:
        return day.isoformat() if day else None

    facts: Mapping[str, JSONValue] = {
        "plan": str(line.plan),
        "quantity": line.waiting_units,
        "units_ahead": estimate.units_ahead,
        "earliest": iso(estimate.earliest),
        "likely": iso(estimate.likely),
        "latest": iso(estimate.latest),
        "basis": str(estimate.basis),
        "cause": str(estimate.cause),
        "next_update_by": iso(estimate.next_update_by),
        "previous_likely": iso(previous.likely) if previous else None,
        "previous_latest": iso(previous.latest) if previous else None,
    }
    return about_order(line.order, kind, facts, key=f"estimate:{line.pk}:{estimate.number}")


def _lateness() -> dict[int, list[int]]:
    """Days between the date first said and the receipt of every past batch, by plan."""
    days: dict[int, list[int]] = {}
    for batch in SupplyBatch.objects.filter(state=BatchState.RECEIVED):
        if batch.received_at:
            late = contract_date(batch.received_at) - batch.first_expected_on
            days.setdefault(batch.plan_id, []).append(late.days)
    return days


def _monthly_allocations(plan_ids: Sequence[int], *, now: datetime) -> dict[int, tuple[int, ...]]:
    """Units allocated per plan in each of the last three periods of 30 days, the oldest first."""
    counts: dict[int, list[int]] = {plan_id: [0] * MONTHS for plan_id in plan_ids}
    for month in range(MONTHS):
        since = now - timedelta(days=MONTH_DAYS * (MONTHS - month))
        allocations = Allocation.objects.filter(
            line__plan_id__in=plan_ids, starts_at__gte=since, starts_at__lt=since + timedelta(days=MONTH_DAYS)
        )
        for plan_id, units in allocations.values_list("line__plan_id").annotate(units=Count("pk")):
            counts[plan_id][month] = units
    return {plan_id: tuple(months) for plan_id, months in counts.items()}
