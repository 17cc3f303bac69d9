"""What customers are told of when their phones will come: recorded for good, and told anew when it changes.

`outlooks.py` reads what there is to go by, `windows.py` computes a window from it; here estimates are recorded as
append-only rows, and whatever has changed materially is told (clause 3.3).
"""

import itertools
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from typing import NamedTuple

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Max, Min, OuterRef, Q, QuerySet
from django.urls import reverse

from agreements.rights import in_language
from evidence.contract_time import contract_date
from inventory.models import BatchState, Plan, SupplyBatch
from notices import kinds
from notices.announcements import announce
from notices.kinds import JSONValue, Kind
from notices.outbox import Draft, tell
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
from orders.models.order import WAITING_UNITS
from orders.outlooks import first_day, outlooks
from orders.queue import (
    Cut,
    Rank,
    cuts,
    lock_plans,
    standings,
    units_before,
    units_waiting,
)
from orders.stretches import Beyond, Stretch, differences, stretches, window_at
from orders.telling import about_order
from orders.windows import (
    Change,
    Outlook,
    Window,
    beyond,
    cause_of,
    window,
)

CHUNK = 2_000
# A transaction that was under way while the last round looked has ended by now.
OVERLAP = timedelta(minutes=2)
CAME = (QueueEventKind.JOINED, QueueEventKind.RELEASED, QueueEventKind.RETURNED)
NOT_ESTIMATED = Q(kind=QueueEventKind.JOINED) & ~Exists(Estimate.objects.filter(line=OuterRef("line")))
# Who has got in before others, and who has got out from before them.
DISPLACED = Q(kind=QueueEventKind.JOINED, behind__gt=0) | Q(kind__in=CAME[1:])
MOVED_UP = Q(kind__in=(QueueEventKind.LEFT, QueueEventKind.HELD))
SERVED = Q(kind=QueueEventKind.ALLOCATED)


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

    Recorded are a first estimate, a change of `settings.ESTIMATE_MATERIAL_DAYS` or more, and the regular update that was
    promised. The first round of a contract day goes through the whole queue, which finds the updates that are due. The
    others read the stretches in which the window is not what it was in the round before (`stretches.py`), the line at the
    head, and lines that have come (back) in.

    Lines are read a chunk at a time, each a transaction under the plan's lock, so that none is served meanwhile; their
    windows are those of the moment at which the round began, when devices and places were looked at under that lock
    together. Safe to run twice at once: an estimate's number is unique for its line.
    """
    last = EstimateRound.objects.filter(plan_id=plan_id).select_related("forecast").first()
    if last is None or last.forecast.inputs["today"] != first_day(now).isoformat():
        return refresh_all_estimates(plan_id=plan_id, now=now)
    since = last.began_at - OVERLAP
    look = _look(plan_id, now=now)
    events = QueueEvent.objects.filter(plan_id=plan_id, at__gte=since)
    moved = list(
        differences(stretches(Outlook.from_json(last.forecast.inputs), _cuts_of(last)), look.stretches)
    )
    rest = look.stretches[-1].window
    if isinstance(rest, Beyond):
        # Whoever gets in or out there changes what is missing up to all behind him.
        first = (
            events.filter(MOVED_UP | DISPLACED | SERVED)
            .filter(
                Q(paid_at__gt=rest.start.paid_at)
                | Q(paid_at=rest.start.paid_at, line_id__gte=rest.start.line_id)
            )
            .order_by("paid_at", "line_id")
            .first()
        )
        if first:
            moved.append((Rank(first.paid_at, first.line_id), None))
    came = events.filter(DISPLACED | NOT_ESTIMATED)
    if moved or look.forecast != last.forecast or events.filter(MOVED_UP | DISPLACED).exists():
        # Who has paid meanwhile was estimated by what was known then.
        came = events.filter(kind__in=CAME)
    walk = _Walk(look, now=now, is_displaced=events.filter(DISPLACED).exists())
    singles = list(came.order_by().values_list("line_id", flat=True).distinct())
    for start, end in moved:
        walk.through(start, end)
    walk.at([*singles, *_head(plan_id)])
    if moved or singles or walk.recorded:
        walk.end()
    return walk.recorded


def refresh_all_estimates(*, plan_id: int, now: datetime) -> int:
    """The same for every line of the queue, whether it may have moved or not."""
    last = EstimateRound.objects.filter(plan_id=plan_id).first()
    events = QueueEvent.objects.filter(DISPLACED, plan_id=plan_id)
    if last:
        events = events.filter(at__gte=last.began_at - OVERLAP)
    walk = _Walk(_look(plan_id, now=now), now=now, is_displaced=events.exists())
    walk.through(None, None)
    walk.end()
    return walk.recorded


@dataclass(frozen=True, slots=True)
class _Look:
    """Devices and places of a plan at one moment."""

    plan_id: int
    outlook: Outlook
    forecast: Forecast
    cuts: Sequence[Cut]
    stretches: Sequence[Stretch]


def _look(plan_id: int, *, now: datetime) -> _Look:
    """Under the plan's lock: between a look at the devices and one at the queue, a sweep would give devices away that
    the one promises and the other does not know of."""
    with transaction.atomic(durable=True):
        lock_plans([plan_id])
        outlook = outlooks([plan_id], now=now)[plan_id]
        found = cuts([reach for reach, _ in outlook.steps], plan_id=plan_id)
        forecast = _forecast(plan_id, outlook, now=now)
    return _Look(plan_id, outlook, forecast, found, stretches(outlook, found))


def _cuts_of(of: EstimateRound) -> list[Cut]:
    return [
        Cut(Rank(datetime.fromisoformat(paid_at), line_id), before) for paid_at, line_id, before in of.cuts
    ]


def _head(plan_id: int) -> list[int]:
    return list(OrderLine.objects.waiting(plan_id=plan_id).values_list("pk", flat=True)[:1])


class _Waiting(NamedTuple):
    """A line of the queue, as much of it as its window needs: most have no news, and are read for nothing."""

    paid_at: datetime
    line_id: int
    units: int

    @property
    def rank(self) -> Rank:
        return Rank(self.paid_at, self.line_id)


def _read(queue: QuerySet[OrderLine]) -> list[_Waiting]:
    return [_Waiting(*row) for row in queue.values_list("paid_at", "pk", WAITING_UNITS)]


class _Told(NamedTuple):
    """Of the estimate of a line that is in force, what a new one is compared with."""

    line_id: int
    number: int
    made_at: datetime
    earliest: date | None
    likely: date | None
    latest: date | None
    basis: str
    next_update_by: date
    units_ahead: int
    forecast_id: int

    @property
    def window(self) -> Window | None:
        """None where none could be promised."""
        if self.earliest is None or self.likely is None or self.latest is None:
            return None
        return Window(self.earliest, self.likely, self.latest, Basis(self.basis))


def _told(line_ids: Sequence[int]) -> dict[int, _Told]:
    """By line id; a line without an estimate is missing."""
    newest = (
        Estimate.objects.filter(line_id__in=line_ids).order_by().values("line_id").annotate(newest=Max("pk"))
    )
    rows = Estimate.objects.filter(pk__in=newest.values("newest")).order_by().values_list(*_Told._fields)
    return {told.line_id: told for told in map(_Told._make, rows)}


@dataclass(frozen=True, slots=True)
class _News:
    """What is to be recorded of a line, and told."""

    line_id: int
    ahead: int
    window: Window | None
    previous: _Told | None
    kind: Kind


@dataclass(slots=True)
class _Walk:
    """One round through a queue, or parts of it."""

    look: _Look
    now: datetime
    is_displaced: bool
    recorded: int = 0
    has_news: bool = False
    _outlooks: dict[int, Outlook] = field(default_factory=dict)
    _cut: dict[int, frozenset[str]] = field(default_factory=dict)

    def through(self, start: Rank | None, end: Rank | None) -> None:
        """Look at all lines from `start` to before `end`."""
        is_over = False
        while not is_over:
            with transaction.atomic(durable=True):
                lock_plans([self.look.plan_id])
                queue = OrderLine.objects.waiting(plan_id=self.look.plan_id)
                queue = queue.filter(start.and_behind()) if start else queue
                queue = queue.filter(end.before()) if end else queue
                lines = _read(queue[: CHUNK + 1])
                is_over = len(lines) <= CHUNK
                if lines:
                    start = lines[-1].rank
                    before = units_before(lines[0].rank, plan_id=self.look.plan_id)
                    ahead = itertools.accumulate((line.units for line in lines), initial=before)
                    self._look_at(lines[:CHUNK], list(ahead))

    def at(self, line_ids: Sequence[int]) -> None:
        """Look at single lines, as far as they wait."""
        for n in range(0, len(line_ids), CHUNK):
            with transaction.atomic(durable=True):
                lock_plans([self.look.plan_id])
                queue = OrderLine.objects.waiting(plan_id=self.look.plan_id)
                lines = _read(queue.filter(pk__in=line_ids[n : n + CHUNK]))
                standing = standings([line.line_id for line in lines])
                self._look_at(lines, [standing[line.line_id].ahead for line in lines])

    def end(self) -> None:
        """Tell everybody what those who wait were told, and put down what the next round is compared with."""
        if self.has_news:
            _announce(self.look.plan_id, now=self.now)
        EstimateRound.objects.create(
            plan_id=self.look.plan_id,
            forecast=self.look.forecast,
            began_at=self.now,
            recorded=self.recorded,
            cuts=[[cut.rank.paid_at.isoformat(), cut.rank.line_id, cut.before] for cut in self.look.cuts],
        )

    def _look_at(self, lines: Sequence[_Waiting], ahead: Sequence[int]) -> None:
        """Record and tell what is new of lines, with as many units ahead of each; in the caller's transaction."""
        newest = _told([line.line_id for line in lines])
        rest = self.look.stretches[-1].window
        before_rest = units_before(rest.start, plan_id=self.look.plan_id) if isinstance(rest, Beyond) else 0
        news = []
        for line, units in zip(lines, ahead, strict=False):
            found = window_at(line.rank, self.look.stretches)
            if isinstance(found, Beyond):
                missing = units + line.units - before_rest - found.spare
                found = beyond(missing=missing, outlook=self.look.outlook)
            previous = newest.get(line.line_id)
            kind = _worth_telling(found, ahead=units, previous=previous, outlook=self.look.outlook)
            if kind:
                news.append(_News(line.line_id, units, found, previous, kind))
        if news:
            self._record(news)

    def _record(self, news: Sequence[_News]) -> None:
        lines = OrderLine.objects.select_related("order__right", "order__customer", "plan").in_bulk(
            [each.line_id for each in news]
        )
        promised = _first_promises(lines.values())
        made: list[Estimate] = []
        drafts: list[Draft] = []
        for each in news:
            line, previous, kind = lines[each.line_id], each.previous, each.kind
            estimate = _estimate(
                line,
                each.window,
                ahead=each.ahead,
                forecast=self.look.forecast,
                cause=self._cause(each),
                now=self.now,
                previous=previous,
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

    def _cause(self, news: _News) -> Cause:
        if news.previous is None:
            return Cause.PAYMENT
        if news.kind is kinds.ESTIMATE_CONFIRMED:
            return Cause.SCHEDULE
        if news.kind is kinds.NEXT_IN_LINE:
            return Cause.TURN
        return cause_of(
            Change(
                before=self._outlook_of(news.previous.forecast_id),
                after=self.look.outlook,
                ahead_before=news.previous.units_ahead,
                ahead_after=news.ahead,
                window_before=news.previous.window,
                window_after=news.window,
                cut=self._cut_since(news.previous.forecast_id),
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
    previous: _Told | None = None,
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
    found: Window | None, *, ahead: int, previous: _Told | None, outlook: Outlook
) -> Kind | None:
    if previous is None:
        return kinds.ESTIMATE_MADE
    before = previous.window
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


def _draft(line: OrderLine, estimate: Estimate, *, previous: _Told | None, kind: Kind) -> Draft:
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


def _first_promises(lines: Iterable[OrderLine]) -> dict[int, date]:
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
    line: OrderLine, estimate: Estimate, *, previous: _Told, promised: date
) -> Draft | None:
    """What a customer is told whom the law lets choose after so long a delay, when it comes to that.

    Where no date can be named any more, the delay counts until today.
    """
    right = line.order.right
    if right is None or right.delay_days is None:
        return None
    last = promised + timedelta(days=right.delay_days)

    before = previous.likely or contract_date(previous.made_at)
    if before > last or (estimate.likely or contract_date(estimate.made_at)) <= last:
        return None
    draft = _draft(line, estimate, previous=previous, kind=kinds.DELAYED)
    choice = in_language(right.delay, line.order.customer.language)
    # In no thread: the next change of the dates makes older dates not worth sending, but never the choice.
    return replace(
        draft, facts={**draft.facts, "promised": promised.isoformat(), "choice": choice}, thread=""
    )
