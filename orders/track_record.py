"""How good our estimates were: of every plan, what became of the dates that those who waited were told first.

Judged is the first estimate of a line that named dates from announced supply or from past allocations, once its latest
date is over, and not before: those served early would otherwise be counted, and those who wait beside them not.
It *held* if the last unit of the line was allocated on or before that date. It is *broken* by whoever still waits, by
units refunded because we could not supply them, whenever that was said, and by units that left the queue for whatever
reason after that date. Units that left before it for another reason do not count, and a line without others is left out;
so is one whose payment was disputed by that date. A promise belongs to the month of its latest date.
"""

from collections import Counter
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import date, datetime
from typing import Any

from django.db.models import BooleanField, Case, Count, Exists, F, OuterRef, Q, Subquery, When
from django.db.models.functions import TruncDate

from evidence.contract_time import contract_date, contract_zone
from orders.models import (
    Basis,
    Estimate,
    Ground,
    LineState,
    OrderLine,
    QueueEvent,
    QueueEventKind,
    RefundLine,
    RefundState,
)

MONTHS = 12
NAMES_DATES = (Basis.SUPPLY, Basis.RATE)
# Units that waited and that we gave up to supply.
NOT_SUPPLIED = RefundLine.objects.filter(
    allocation=None, refund__ground=Ground.UNABLE_TO_SUPPLY, refund__state__in=RefundState.granted()
)


@dataclass(frozen=True, slots=True)
class Score:
    """Of `judged` lines' promises `held` were kept.

    `bias` is the median of the days from the likely date to the allocation of the last unit, below 0 when it came
    earlier; whoever still waits, or had to leave, is counted as if served today. None when nothing was judged.
    """

    judged: int
    held: int
    bias: int | None

    @property
    def share(self) -> float | None:
        """Held of those judged, from 0 to 1; None when nothing was judged."""
        return self.held / self.judged if self.judged else None

    def as_json(self) -> list[int | None]:
        return [self.judged, self.held, self.bias]

    @property
    def days_off(self) -> int:
        """The bias without its sign."""
        return abs(self.bias or 0)


@dataclass(frozen=True, slots=True)
class Month:
    """What fell due in the month that begins with `first_day`."""

    first_day: date
    score: Score


@dataclass(frozen=True, slots=True)
class TrackRecord:
    """The last twelve months, the oldest first and the running one included, and their sum."""

    total: Score
    months: tuple[Month, ...]

    def as_json(self) -> dict[str, Any]:
        return {
            "total": self.total.as_json(),
            "months": [[month.first_day.isoformat(), month.score.as_json()] for month in self.months],
        }

    @classmethod
    def from_json(cls, kept: dict[str, Any]) -> "TrackRecord":
        months = (Month(date.fromisoformat(first_day), Score(*score)) for first_day, score in kept["months"])
        return cls(Score(*kept["total"]), tuple(months))


@dataclass(slots=True)
class _Tally:
    """Lines by days from the likely date, and how many of them were in time."""

    held: int
    days: Counter[int]

    @classmethod
    def empty(cls) -> "_Tally":
        return cls(0, Counter())

    def add(self, *, lines: int, days: int, is_held: bool) -> None:
        self.days[days] += lines
        self.held += lines if is_held else 0

    def score(self) -> Score:
        return Score(self.days.total(), self.held, _median(self.days))


def track_record(plan_id: int, *, now: datetime) -> TrackRecord:
    return track_records([plan_id], now=now)[plan_id]


def track_records(plan_ids: Iterable[int], *, now: datetime) -> dict[int, TrackRecord]:
    """The record of each plan, by one query, whose answer has a row for each combination of dates."""
    wanted = list(plan_ids)
    today = contract_date(now)
    months = _months_up_to(today)
    tallies = {plan_id: {month: _Tally.empty() for month in months} for plan_id in wanted}
    totals = {plan_id: _Tally.empty() for plan_id in wanted}
    dated = Estimate.objects.filter(line=OuterRef("pk"), basis__in=NAMES_DATES).order_by("number")
    paid = OrderLine.objects.filter(plan_id__in=wanted, paid_at__isnull=False)
    first = paid.annotate(first=Subquery(dated.values("pk")[:1])).values("first")
    due = Estimate.objects.filter(pk__in=first, latest__gte=months[0], latest__lt=today).alias(
        served=_day_of(QueueEventKind.ALLOCATED, "-at"),
        left=Case(When(line__withdrawn__gt=0, then=_day_of(QueueEventKind.LEFT, "-at"))),
        disputed=_day_of(QueueEventKind.HELD, "at"),
        is_refused=Exists(NOT_SUPPLIED.filter(line=OuterRef("line"))),
    )
    due = due.alias(
        is_broken=Case(
            When(line__state__in=(LineState.WAITING, LineState.HELD), then=True),
            When(is_refused=True, then=True),
            When(left__gt=F("latest"), then=True),
            default=False,
            output_field=BooleanField(),
        )
    )
    judged = due.filter(Q(disputed=None) | Q(disputed__gt=F("latest"))).exclude(is_broken=False, served=None)
    judged = judged.annotate(served_on=Case(When(is_broken=False, then=F("served"))))
    groups = judged.order_by().values_list("line__plan_id", "likely", "latest", "served_on")
    for plan_id, likely, latest, served_on, lines in groups.annotate(lines=Count("pk")):
        is_held = served_on is not None and served_on <= latest
        days = ((served_on or today) - likely).days
        for tally in (totals[plan_id], tallies[plan_id][latest.replace(day=1)]):
            tally.add(lines=lines, days=days, is_held=is_held)
    return {
        plan_id: TrackRecord(
            totals[plan_id].score(),
            tuple(Month(month, tally.score()) for month, tally in tallies[plan_id].items()),
        )
        for plan_id in wanted
    }


def _day_of(kind: QueueEventKind, order: str) -> Subquery:
    """The contract day on which that happened to the line of an estimate: last by "-at", first by "at"; None if never."""
    events = QueueEvent.objects.filter(line=OuterRef("line"), kind=kind).order_by(order)
    return Subquery(events.values(day=TruncDate("at", tzinfo=contract_zone()))[:1])


def _months_up_to(today: date) -> list[date]:
    """The first days of twelve months, the oldest first."""
    last = today.year * 12 + today.month - 1
    return [date(month // 12, month % 12 + 1, 1) for month in range(last - MONTHS + 1, last + 1)]


def _median(days: Mapping[int, int]) -> int | None:
    """Of two in the middle the smaller, so that the figure is one that really happened."""
    half = sum(days.values()) / 2
    counted = 0
    for value in sorted(days):
        counted += days[value]
        if counted >= half:
            return value
    return None
