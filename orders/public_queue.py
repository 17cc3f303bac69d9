"""What everybody may know of a plan's queue: how long it is, what is expected, how it moves, and how we kept our word.

Nothing here tells who a customer is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import date, datetime, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet, Sum
from django.db.models.functions import TruncDate

from evidence.contract_time import contract_date, contract_midnight, contract_zone
from inventory.models import BatchState, Plan, SupplyBatch
from orders.models import PublishedHead, QueueEvent, QueueEventKind
from orders.queue import units_waiting_by_plan
from orders.queue.fairness import NOTHING_SEALED, Head, heads_of
from orders.track_record import Score, TrackRecord, kept_track_records

# Contract days that are shown, today included.
DAYS = 90
LATELY = 30
HEADS = 30


@dataclass(frozen=True, slots=True)
class Day:
    """Units allocated on a contract day."""

    day: date
    units: int


@dataclass(frozen=True, slots=True)
class PublicQueue:
    """A plan's queue at one moment. `batches` and `days` are in the order of time, `published` the newest first."""

    plan: Plan
    units_waiting: int
    batches: tuple[SupplyBatch, ...]
    days: tuple[Day, ...]
    record: TrackRecord
    head: Head
    published: tuple[PublishedHead, ...]

    @property
    def units_expected(self) -> int:
        """Units that are announced and still to come."""
        return sum(batch.outstanding for batch in self.batches)

    @property
    def allocated(self) -> int:
        """Units allocated on all days shown."""
        return sum(day.units for day in self.days)

    @property
    def allocated_lately(self) -> int:
        """Units allocated on the last thirty of them."""
        return sum(day.units for day in self.days[-LATELY:])


def plans_with_a_page() -> QuerySet[Plan]:
    """Plans on sale, and those that somebody has ever queued for: their ledger stays public."""
    queued = Exists(QueueEvent.objects.filter(plan=OuterRef("pk")))
    return Plan.objects.filter(Q(on_sale=True) | queued)


def public_queues(plans: Iterable[Plan], *, now: datetime) -> list[PublicQueue]:
    """The queues of `plans`, in their order, by six queries."""
    wanted = list(plans)
    ids = [plan.pk for plan in wanted]
    today = contract_date(now)
    waiting = units_waiting_by_plan(ids)
    batches: dict[int, list[SupplyBatch]] = {}
    for batch in SupplyBatch.objects.filter(plan_id__in=ids, state=BatchState.EXPECTED):
        if batch.outstanding:
            batches.setdefault(batch.plan_id, []).append(batch)
    allocated = _allocated_by_day(ids, today=today)
    records = kept_track_records(ids, now=now)
    heads = heads_of(ids)
    published: dict[int, list[PublishedHead]] = {}
    since = today - timedelta(days=HEADS)
    for head in PublishedHead.objects.filter(plan_id__in=ids, day__gte=since).order_by("-day"):
        published.setdefault(head.plan_id, []).append(head)
    days = [today - timedelta(days=ago) for ago in range(DAYS - 1, -1, -1)]
    return [
        PublicQueue(
            plan=plan,
            units_waiting=waiting.get(plan.pk, 0),
            batches=tuple(batches.get(plan.pk, ())),
            days=tuple(Day(day, allocated.get((plan.pk, day), 0)) for day in days),
            record=records[plan.pk],
            head=heads.get(plan.pk, NOTHING_SEALED),
            published=tuple(published.get(plan.pk, ())),
        )
        for plan in wanted
    ]


def as_json(queue: PublicQueue, *, now: datetime) -> dict[str, object]:
    """The figures as they are published. Days are contract days (Asia/Hong_Kong); the names say the units."""
    return {
        "plan": queue.plan.slug,
        "as_of": now.isoformat(),
        "units_waiting": queue.units_waiting,
        "hold_back_seconds": int(settings.ALLOCATION_HOLD_BACK.total_seconds()),
        "expected_batches": [
            {
                "expected_on": batch.expected_on.isoformat(),
                "first_expected_on": batch.first_expected_on.isoformat(),
                "units": batch.outstanding,
            }
            for batch in queue.batches
        ],
        "allocated_units_by_day": [{"day": day.day.isoformat(), "units": day.units} for day in queue.days],
        "track_record": {
            **_score_as_json(queue.record.total),
            "months": [
                {"month": month.first_day.strftime("%Y-%m"), **_score_as_json(month.score)}
                for month in queue.record.months
            ],
        },
        "ledger": {
            "entries": queue.head.number,
            "head_sha256": queue.head.sha256,
            "published_heads": [
                {"day": head.day.isoformat(), "entries": head.number, "sha256": head.sha256}
                for head in queue.published
            ],
        },
    }


def _score_as_json(score: Score) -> dict[str, object]:
    return {
        "judged_lines": score.judged,
        "held_lines": score.held,
        "held_share": None if score.share is None else round(score.share, 4),
        "median_days_after_likely": score.bias,
    }


def _allocated_by_day(plan_ids: list[int], *, today: date) -> dict[tuple[int, date], int]:
    since = contract_midnight(today - timedelta(days=DAYS - 1))
    events = QueueEvent.objects.filter(
        plan_id__in=plan_ids, kind=QueueEventKind.ALLOCATED, at__gte=since
    ).annotate(day=TruncDate("at", tzinfo=contract_zone()))
    counts = events.order_by().values_list("plan_id", "day").annotate(sum=Sum("units"))
    return {(plan_id, day): units for plan_id, day, units in counts}
