"""What everybody may know of a plan's queue: how long it is, what is expected, how it moves, and how we kept our word.

Nothing here tells who a customer is.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db.models import Exists, OuterRef, Q, QuerySet

from evidence.contract_time import contract_date
from inventory.models import BatchState, Plan, SupplyBatch
from orders.figures import Figures, figures_by_plan
from orders.models import PublishedHead, QueueEvent
from orders.queue import units_waiting_by_plan
from orders.queue.fairness import NOTHING_SEALED, Head, heads_of
from orders.track_record import Score

# Days of which the last seal is shown.
HEADS = 30


@dataclass(frozen=True, slots=True)
class PublicQueue:
    """A plan's queue at one moment. `batches` are in the order of time, `published` the newest first.

    `figures` are as of a while ago, and None until they are counted for the first time.
    """

    plan: Plan
    units_waiting: int
    batches: tuple[SupplyBatch, ...]
    figures: Figures | None
    head: Head
    published: tuple[PublishedHead, ...]

    @property
    def units_expected(self) -> int:
        """Units that are announced and still to come."""
        return sum(batch.outstanding for batch in self.batches)


def plans_with_a_page() -> QuerySet[Plan]:
    """Plans on sale, and those that somebody has ever queued for: their ledger stays public."""
    queued = Exists(QueueEvent.objects.filter(plan=OuterRef("pk")))
    return Plan.objects.filter(Q(on_sale=True) | queued)


def public_queues(plans: Iterable[Plan], *, now: datetime) -> list[PublicQueue]:
    """The queues of `plans`, in their order, by five queries."""
    wanted = list(plans)
    ids = [plan.pk for plan in wanted]
    today = contract_date(now)
    waiting = units_waiting_by_plan(ids)
    batches: dict[int, list[SupplyBatch]] = {}
    for batch in SupplyBatch.objects.filter(plan_id__in=ids, state=BatchState.EXPECTED):
        if batch.outstanding:
            batches.setdefault(batch.plan_id, []).append(batch)
    figures = figures_by_plan(ids)
    heads = heads_of(ids)
    published: dict[int, list[PublishedHead]] = {}
    since = today - timedelta(days=HEADS)
    for head in PublishedHead.objects.filter(plan_id__in=ids, day__gte=since).order_by("-day"):
        published.setdefault(head.plan_id, []).append(head)
    return [
        PublicQueue(
            plan=plan,
            units_waiting=waiting.get(plan.pk, 0),
            batches=tuple(batches.get(plan.pk, ())),
            figures=figures.get(plan.pk),
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
        **_figures_as_json(queue.figures),
        "ledger": {
            "entries": queue.head.number,
            "head_sha256": queue.head.sha256,
            "published_heads": [
                {"day": head.day.isoformat(), "entries": head.number, "sha256": head.sha256}
                for head in queue.published
            ],
        },
    }


def _figures_as_json(figures: Figures | None) -> dict[str, object]:
    if figures is None:
        return {"counted_at": None, "allocated_units_by_day": None, "track_record": None}
    return {
        "counted_at": figures.counted_at.isoformat(),
        "allocated_units_by_day": [{"day": day.day.isoformat(), "units": day.units} for day in figures.days],
        "track_record": {
            **_score_as_json(figures.record.total),
            "months": [
                {"month": month.first_day.strftime("%Y-%m"), **_score_as_json(month.score)}
                for month in figures.record.months
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
