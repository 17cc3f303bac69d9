"""What public pages show of a plan and takes seconds to count in a queue of a million lines.

A job counts it, plan by plan, and puts it down; a page shows what is there, and as of when. However many visitors come at
once, nobody's request counts.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.db.models import Sum
from django.db.models.functions import TruncDate

from evidence.contract_time import contract_date, contract_midnight, contract_zone
from orders.models import PlanFigures, QueueEvent, QueueEventKind
from orders.track_record import TrackRecord, track_record

# Contract days that are shown, today included.
DAYS = 90
LATELY = 30


@dataclass(frozen=True, slots=True)
class Day:
    """Units allocated on a contract day."""

    day: date
    units: int


@dataclass(frozen=True, slots=True)
class Figures:
    """Of one plan, as they were at `counted_at`: allocations by day, the oldest first, and the track record."""

    counted_at: datetime
    days: tuple[Day, ...]
    record: TrackRecord

    @property
    def allocated(self) -> int:
        """Units allocated on all days shown."""
        return sum(day.units for day in self.days)

    @property
    def allocated_lately(self) -> int:
        """Units allocated on the last thirty of them."""
        return sum(day.units for day in self.days[-LATELY:])


def count_figures(*, plan_id: int, now: datetime) -> None:
    """Count, and put down in the place of what was there. Safe to run at any time and twice."""
    PlanFigures.objects.update_or_create(
        plan_id=plan_id,
        defaults={
            "counted_at": now,
            "allocated": [
                [day.day.isoformat(), day.units] for day in _allocated(plan_id, today=contract_date(now))
            ],
            "record": track_record(plan_id, now=now).as_json(),
        },
    )


def figures_by_plan(plan_ids: Iterable[int]) -> dict[int, Figures]:
    """What was counted last, by one query; a plan of which nothing was counted yet is missing."""
    return {
        kept.plan_id: Figures(
            kept.counted_at,
            tuple(Day(date.fromisoformat(day), units) for day, units in kept.allocated),
            TrackRecord.from_json(kept.record),
        )
        for kept in PlanFigures.objects.filter(plan_id__in=list(plan_ids))
    }


def _allocated(plan_id: int, *, today: date) -> list[Day]:
    first = today - timedelta(days=DAYS - 1)
    events = QueueEvent.objects.filter(
        plan_id=plan_id, kind=QueueEventKind.ALLOCATED, at__gte=contract_midnight(first)
    ).annotate(day=TruncDate("at", tzinfo=contract_zone()))
    units = dict(events.order_by().values_list("day").annotate(sum=Sum("units")))
    days = [first + timedelta(days=n) for n in range(DAYS)]
    return [Day(day, units.get(day, 0)) for day in days]
