"""How the outbox stands, channel by channel, for staff."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any

from django.db.models import Count, Min, Q
from django.utils.functional import Promise

from notices.channels import CHANNELS
from notices.models import ChannelPace, Delivery, DeliveryEvent, DeliveryState, DeliveryStep
from notices.pacing import BREAKS_AFTER, paces

LATELY = timedelta(hours=1)


@dataclass(frozen=True, slots=True)
class Standing:
    """One channel: what waits and since when, what became of the last hour's attempts, and whether it runs."""

    slug: str
    label: str | Promise
    lacks: Sequence[str]
    pace: ChannelPace | None
    waiting: int
    due_since: datetime | None
    uncertain: int
    dead: int
    sent_lately: int
    failed_lately: int

    @property
    def failure_rate(self) -> int | None:
        """How many of a hundred attempts failed in the last hour; None without any."""
        tried = self.sent_lately + self.failed_lately
        return round(100 * self.failed_lately / tried) if tried else None

    @property
    def is_broken(self) -> bool:
        return self.pace is not None and self.pace.failures >= BREAKS_AFTER


def standings(*, now: datetime) -> Sequence[Standing]:
    """Every channel, in the order in which workers turn to them."""
    counted = {
        row["channel"]: row
        for row in Delivery.objects.exclude(state=DeliveryState.SENT)
        .values("channel")
        .annotate(
            waiting=Count("pk", filter=Q(state=DeliveryState.QUEUED)),
            due_since=Min("due_at", filter=Q(state=DeliveryState.QUEUED, due_at__lte=now)),
            uncertain=Count("pk", filter=Q(state=DeliveryState.UNCERTAIN)),
            dead=Count("pk", filter=Q(state=DeliveryState.DEAD)),
        )
    }
    lately = {
        row["delivery__channel"]: row
        for row in DeliveryEvent.objects.filter(at__gt=now - LATELY)
        .values("delivery__channel")
        .annotate(
            sent=Count("pk", filter=Q(step=DeliveryStep.ACCEPTED)),
            failed=Count(
                "pk", filter=Q(step__in=(DeliveryStep.FAILED, DeliveryStep.REFUSED, DeliveryStep.UNKNOWN))
            ),
        )
    }
    known = paces()
    found = []
    for slug, channel in CHANNELS.items():
        count: Mapping[str, Any] = counted.get(slug, {})
        recent: Mapping[str, Any] = lately.get(slug, {})
        found.append(
            Standing(
                slug=slug,
                label=channel.label,
                lacks=channel.missing(),
                pace=known.get(slug),
                waiting=count.get("waiting", 0),
                due_since=count.get("due_since"),
                uncertain=count.get("uncertain", 0),
                dead=count.get("dead", 0),
                sent_lately=recent.get("sent", 0),
                failed_lately=recent.get("failed", 0),
            )
        )
    return found
