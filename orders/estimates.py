"""What customers are told of when their phones will come: recorded for good, and told anew when it changes.

`windows.py` computes a window from an outlook; here the outlook is read, estimates are recorded as append-only
rows, and whatever has changed materially is told (clause 3.3).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Max, Min, OuterRef, Q, Sum
from django.urls import reverse

from agreements.rights import in_language
from evidence.contract_time import contract_date, contract_midnight
from inventory.models import BatchState, Plan, SupplyBatch
from notices import kinds
from notices.announcements import announce
from notices.kinds import JSONValue, Kind
from notices.outbox import Draft, tell
from orders.lateness import ASSUMED_LATENESS, ENOUGH_BATCHES
from orders.models import (
    Basis,
    Cause,
    Estimate,
    EstimateRound,
    Forecast,
    OrderLine,
    QueueEvent,
    QueueEventKind,
)
from orders.queue import free_devices_by_plan, lock_plans, units_ahead, units_waiting
from orders.telling import about_order
from orders.windows import (
    MONTH_DAYS,
    MONTHS,
    Change,
    Expected,
    Outlook,
    Window,
    cause_of,
    window,
)

CHUNK = 2_000
# A transaction that was under way while the last round looked has ended by now.
OVERLAP = timedelta(minutes=2)
DISPLACED = Q(kind=QueueEventKind.JOINED, behind__gt=0) | Q(
    kind__in=(QueueEventKind.RELEASED, QueueEventKind.RETURNED)
)
MOVED_UP = Q(kind__in=(QueueEventKind.LEFT, QueueEventKind.HELD))


def outlooks(plan_ids: Iterable[int], *, now: datetime) -> dict[int, Outlook]:
    """The outlook of each plan, in a fixed number of queries."""
    wanted = list(plan_ids)
    today = contract_date(now + settings.ALLOCATION_HOLD_BACK)
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


def quote(*, plan_id: int, units: int, now: datetime) -> Window | None:
    """The window for `units` units of a plan, if they were paid now."""
    outlook = outlooks([plan_id], now=now)[plan_id]
    return window(units=units_waiting(plan_id=plan_id) + units, outlook=outlook)


def record_first_estimate(line: OrderLine, *, ahead: int, now: datetime) -> Estimate:
    """Estimate a line that has just joined its queue behind `ahead` units; tell the customer if devices are short.

    Clause 3.3: "if the platform's inventory is insufficient … the platform will promptly notify you of the
    estimated allocation time". Runs in the transaction of the payment. Needs `order` and `plan` loaded.
    """
    outlook = outlooks([line.plan_id], now=now)[line.plan_id]
    forecast = _forecast(line.plan_id, outlook, now=now)
    found = window(units=ahead + line.waiting_units, outlook=outlook)
    estimate = _estimate(line, found, ahead=ahead, forecast=forecast, cause=Cause.PAYMENT, now=now)
    estimate.save(force_insert=True)
    if estimate.basis != Basis.FREE:
        tell([_draft(line, estimate, previous=None, kind=kinds.ESTIMATE_MADE)], now=now)
    return estimate


def refresh_estimates(*, plan_id: int, now: datetime) -> int:
    """Estimate anew every waiting line that may have moved; record and tell what changed. Return how many.

    Recorded are a first estimate, a change of `settings.ESTIMATE_MATERIAL_DAYS` or more, and the regular
    update that was promised. A round goes through the whole queue when its outlook has changed, which it does at least
    once a day; from the first place where units got in or out when only that has happened; and not at all when nothing has.
    Safe to run twice at once: an estimate's number is unique for its line.

    One transaction per chunk of the queue, under the plan's lock: a sweep between a look at the devices and
    one at the queue would show devices free that are given away, and promise them again.
    """
    last_round = EstimateRound.objects.filter(plan_id=plan_id).select_related("forecast").first()
    since = last_round.began_at - OVERLAP if last_round else None
    outlook = outlooks([plan_id], now=now)[plan_id]
    if last_round is None or last_round.forecast.inputs != outlook.as_json():
        start: _Rank | None = _Rank.of_the_head()
    else:
        start = _first_move(plan_id, since=since)
    if start is None:
        return 0
    walk = _Walk(plan_id=plan_id, now=now, is_displaced=_has_moved(plan_id, DISPLACED, since=since))
    while start is not None:
        start = walk.go_on(start)
    if walk.has_news:
        _announce(plan_id, now=now)
    if walk.forecast:
        EstimateRound.objects.create(
            plan_id=plan_id, forecast=walk.forecast, began_at=now, recorded=walk.recorded
        )
    return walk.recorded


@dataclass(frozen=True, slots=True)
class _Rank:
    """A place in a queue: behind everything before (`paid_at`, `line_id`)."""

    paid_at: datetime | None
    line_id: int

    @classmethod
    def of_the_head(cls) -> "_Rank":
        return cls(None, 0)

    def and_behind(self) -> Q:
        if self.paid_at is None:
            return Q()
        return Q(paid_at__gt=self.paid_at) | Q(paid_at=self.paid_at, pk__gte=self.line_id)


@dataclass(slots=True)
class _Walk:
    """One round through a queue. `forecast` is the one it began with."""

    plan_id: int
    now: datetime
    is_displaced: bool
    forecast: Forecast | None = None
    recorded: int = 0
    has_news: bool = False
    _outlooks: dict[int, Outlook] = field(default_factory=dict)
    _cut: dict[int, frozenset[str]] = field(default_factory=dict)

    def go_on(self, start: _Rank) -> _Rank | None:
        """Look at the next lines from `start`, and record; return where to go on, None at the end."""
        with transaction.atomic(durable=True):
            lock_plans([self.plan_id])
            queue = OrderLine.objects.waiting(plan_id=self.plan_id).filter(start.and_behind())
            lines = list(queue.select_related("order__right", "order__customer", "plan")[: CHUNK + 1])
            lines, more = lines[:CHUNK], lines[CHUNK:]
            if lines:
                self._estimate_all(lines)
        return _Rank(more[0].paid_at, more[0].pk) if more else None

    def _estimate_all(self, lines: Sequence[OrderLine]) -> None:
        outlook = outlooks([self.plan_id], now=self.now)[self.plan_id]
        forecast = _forecast(self.plan_id, outlook, now=self.now)
        self.forecast = self.forecast or forecast
        newest = newest_estimates([line.pk for line in lines])
        promised = _first_promises(lines)
        ahead_of_next = units_ahead(lines[0])
        made: list[Estimate] = []
        drafts: list[Draft] = []
        for line in lines:
            ahead, ahead_of_next = ahead_of_next, ahead_of_next + line.waiting_units
            previous = newest.get(line.pk)
            found = window(units=ahead + line.waiting_units, outlook=outlook)
            kind = _worth_telling(found, ahead=ahead, previous=previous, outlook=outlook)
            if kind is None:
                continue
            cause = Cause.PAYMENT
            if kind is kinds.ESTIMATE_CONFIRMED:
                cause = Cause.SCHEDULE
            elif kind is kinds.NEXT_IN_LINE:
                cause = Cause.TURN
            elif previous is not None:
                cause = self._cause(previous, found, ahead=ahead, outlook=outlook)
            estimate = _estimate(
                line, found, ahead=ahead, forecast=forecast, cause=cause, now=self.now, previous=previous
            )
            if previous and kind is kinds.NEXT_IN_LINE:
                # Whoever has switched it off hears nothing of it, and is still owed the update.
                estimate.next_update_by = previous.next_update_by
            made.append(estimate)
            if estimate.basis == Basis.FREE:
                continue
            self.has_news = self.has_news or kind is kinds.ESTIMATE_CHANGED
            choice = None
            if kind is kinds.ESTIMATE_CHANGED and previous and line.pk in promised:
                choice = _choice_after_delay(line, estimate, previous=previous, promised=promised[line.pk])
            drafts.append(choice or _draft(line, estimate, previous=previous, kind=kind))
        Estimate.objects.bulk_create(made, ignore_conflicts=True)
        tell(drafts, now=self.now)
        self.recorded += len(made)

    def _cause(self, previous: Estimate, found: Window | None, *, ahead: int, outlook: Outlook) -> Cause:
        before = self._outlook_of(previous.forecast_id)
        return cause_of(
            Change(
                before=before,
                after=outlook,
                ahead_before=previous.units_ahead,
                ahead_after=ahead,
                window_before=window_of(previous),
                window_after=found,
                cut=self._cut_since(previous.forecast_id),
                is_displaced=self.is_displaced,
            )
        )

    def _outlook_of(self, forecast_id: int) -> Outlook:
        if forecast_id not in self._outlooks:
            self._outlooks[forecast_id] = Outlook.from_json(Forecast.objects.get(pk=forecast_id).inputs)
        return self._outlooks[forecast_id]

    def _cut_since(self, forecast_id: int) -> frozenset[str]:
        """Batches of a forecast that were cancelled since, or came with fewer devices."""
        if forecast_id not in self._cut:
            quantities = {batch.reference: batch.quantity for batch in self._outlook_of(forecast_id).expected}
            batches = SupplyBatch.objects.filter(reference__in=quantities).exclude(state=BatchState.EXPECTED)
            self._cut[forecast_id] = frozenset(
                batch.reference for batch in batches if batch.received_units < quantities[batch.reference]
            )
        return self._cut[forecast_id]


def _announce(plan_id: int, *, now: datetime) -> None:
    """Tell on the site, once a day, that the estimates of a plan have changed (3.3: "through web announcements")."""
    plan = Plan.objects.get(pk=plan_id)
    found = quote(plan_id=plan_id, units=1, now=now)
    facts = {
        "plan": str(plan),
        "waiting": units_waiting(plan_id=plan_id),
        "earliest": _iso(found.earliest if found else None),
        "likely": _iso(found.likely if found else None),
        "latest": _iso(found.latest if found else None),
    }
    announce(
        kind=kinds.PLAN_ESTIMATE,
        facts=lambda _language: facts,
        key=f"{kinds.PLAN_ESTIMATE.slug}:{plan_id}:{contract_date(now).isoformat()}",
        now=now,
        url=reverse("orders:queue", args=[plan.slug]),
    )


def newest_estimates(line_ids: Iterable[int]) -> dict[int, Estimate]:
    """The estimate in force of each line, by line id; a line without one is missing."""
    newest = Estimate.objects.filter(line_id__in=list(line_ids)).values("line_id").annotate(newest=Max("pk"))
    return {
        estimate.line_id: estimate for estimate in Estimate.objects.filter(pk__in=newest.values("newest"))
    }


def window_of(estimate: Estimate) -> Window | None:
    """The window that was promised; None where none could be."""
    if estimate.earliest is None or estimate.likely is None or estimate.latest is None:
        return None
    return Window(estimate.earliest, estimate.likely, estimate.latest, Basis(estimate.basis))


def _first_move(plan_id: int, *, since: datetime | None) -> _Rank | None:
    """The first place in the queue where units got in or out since, or stand without an estimate."""
    unestimated = Q(kind=QueueEventKind.JOINED) & ~Exists(Estimate.objects.filter(line=OuterRef("line")))
    moves = QueueEvent.objects.filter(DISPLACED | MOVED_UP | unestimated, plan_id=plan_id)
    first = (moves.filter(at__gte=since) if since else moves).order_by("paid_at", "line_id").first()
    return _Rank(first.paid_at, first.line_id) if first else None


def _has_moved(plan_id: int, how: Q, *, since: datetime | None) -> bool:
    moves = QueueEvent.objects.filter(how, plan_id=plan_id)
    return (moves.filter(at__gte=since) if since else moves).exists()


def _forecast(plan_id: int, outlook: Outlook, *, now: datetime) -> Forecast:
    """The row of an outlook: the newest one if it says the same."""
    inputs = outlook.as_json()
    newest: Forecast | None = Forecast.objects.filter(plan_id=plan_id).first()
    if newest and newest.inputs == inputs:
        return newest
    made: Forecast = Forecast.objects.create(plan_id=plan_id, made_at=now, inputs=inputs)
    return made


def _estimate(
    line: OrderLine,
    found: Window | None,
    *,
    ahead: int,
    forecast: Forecast,
    cause: Cause,
    now: datetime,
    previous: Estimate | None = None,
) -> Estimate:
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
        forecast=forecast,
    )


def _worth_telling(
    found: Window | None, *, ahead: int, previous: Estimate | None, outlook: Outlook
) -> Kind | None:
    if previous is None:
        return kinds.ESTIMATE_MADE
    before = window_of(previous)
    if before is None or found is None:
        has_changed = before is not found
    else:
        has_changed = _moved(before.likely, found.likely) or _moved(before.latest, found.latest)
    if has_changed:
        return kinds.ESTIMATE_CHANGED
    # Before what a customer may have switched off: the update is promised to everybody.
    if previous.next_update_by <= outlook.today:
        return kinds.ESTIMATE_CONFIRMED
    if ahead == 0 < previous.units_ahead:
        return kinds.NEXT_IN_LINE
    return None


def _moved(before: date, after: date) -> bool:
    return abs((after - before).days) >= settings.ESTIMATE_MATERIAL_DAYS


def _iso(day: date | None) -> str | None:
    return day.isoformat() if day else None


def _draft(line: OrderLine, estimate: Estimate, *, previous: Estimate | None, kind: Kind) -> Draft:
    facts: Mapping[str, JSONValue] = {
        "plan": str(line.plan),
        "quantity": line.waiting_units,
        "units_ahead": estimate.units_ahead,
        "earliest": _iso(estimate.earliest),
        "likely": _iso(estimate.likely),
        "latest": _iso(estimate.latest),
        "basis": str(estimate.basis),
        "cause": str(estimate.cause),
        "next_update_by": _iso(estimate.next_update_by),
        "previous_likely": _iso(previous.likely) if previous else None,
        "previous_latest": _iso(previous.latest) if previous else None,
    }
    # A customer wants to know when, not when we thought so last week.
    return about_order(
        line.order, kind, facts, key=f"estimate:{line.pk}:{estimate.number}", thread=f"estimate:{line.pk}"
    )


def _first_promises(lines: Sequence[OrderLine]) -> dict[int, date]:
    """The latest date that was promised first, by line id, of those whose customers the law lets choose after a delay."""
    asked = [line.pk for line in lines if line.order.right and line.order.right.delay_days is not None]
    if not asked:
        return {}
    dated = Estimate.objects.filter(line_id__in=asked, latest__isnull=False)
    first = dated.values("line_id").annotate(first=Min("pk")).values("first")
    return {
        estimate.line_id: estimate.latest
        for estimate in Estimate.objects.filter(pk__in=first)
        if estimate.latest  # for the type checker
    }


def _choice_after_delay(
    line: OrderLine, estimate: Estimate, *, previous: Estimate, promised: date
) -> Draft | None:
    """What a customer is told whom the law lets choose after so long a delay, when it comes to that.

    Where no date can be named any more, the delay counts until today.
    """
    right = line.order.right
    if right is None or right.delay_days is None:
        return None
    last = promised + timedelta(days=right.delay_days)

    def is_too_late(made: Estimate) -> bool:
        return (made.likely or contract_date(made.made_at)) > last

    if not is_too_late(estimate) or is_too_late(previous):
        return None
    draft = _draft(line, estimate, previous=previous, kind=kinds.DELAYED)
    choice = in_language(right.delay, line.order.customer.language)
    # In no thread: the next change of the dates makes older dates not worth sending, but never the choice.
    return replace(
        draft, facts={**draft.facts, "promised": promised.isoformat(), "choice": choice}, thread=""
    )


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
