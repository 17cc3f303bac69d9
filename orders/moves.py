"""What has moved ahead of a line since its customer last looked."""

from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.contrib.sessions.backends.base import SessionBase
from django.core.cache import cache
from django.db.models import Max, Q, Sum
from django.utils.translation import ngettext

from orders.models import OrderLine, QueueEvent, QueueEventKind

SESSION_KEY = "looked"
# Looking again within this time is the same visit.
SAME_VISIT = timedelta(minutes=1)
# An event bears the time at which its sweep began; a long one writes it so much later.
WRITTEN_WITHIN = timedelta(hours=1)
# Events get their numbers when they are written and are seen when they commit, which may be in another order for so long.
SETTLED_AFTER = timedelta(seconds=10)
KEPT_SECONDS = 24 * 3600
# A unit that is refunded after it was allocated stood in no queue.
KINDS = sorted(set(QueueEventKind) - {QueueEventKind.REFUNDED})


@dataclass(frozen=True, slots=True)
class Look:
    """A line as it stood at a moment: units ahead, and the newest event of all queues."""

    at: datetime
    event_id: int
    ahead: int

    def as_json(self) -> list[float | int]:
        return [self.at.timestamp(), self.event_id, self.ahead]

    @classmethod
    def from_json(cls, stored: Sequence[float | int]) -> "Look":
        at, event_id, ahead = stored
        return cls(datetime.fromtimestamp(at, UTC), int(event_id), int(ahead))


@dataclass(frozen=True, slots=True)
class Moves:
    """Units ahead of a line that went and came since `since`, and the difference that they made.

    What happens while we look, or is put down late, can be missing from the units: `is_complete` tells.
    """

    since: datetime
    allocated: int
    left: int
    held: int
    joined: int
    released: int
    returned: int
    difference: int

    @property
    def is_complete(self) -> bool:
        came = self.joined + self.released + self.returned
        return came - self.allocated - self.left - self.held == self.difference

    def sentences(self) -> Iterator[str]:
        """Each thing that has moved, in words; only the difference where not all of it is known."""
        if not self.is_complete:
            yield from self._sum()
            return
        told = (
            (
                self.allocated,
                ngettext(
                    "%(units)d phone ahead of yours was allocated.",
                    "%(units)d phones ahead of yours were allocated.",
                    self.allocated,
                ),
            ),
            (
                self.left,
                ngettext(
                    "%(units)d ahead of yours was refunded.",
                    "%(units)d ahead of yours were refunded.",
                    self.left,
                ),
            ),
            (
                self.held,
                ngettext(
                    "%(units)d ahead of yours was put on hold, because its payment is disputed.",
                    "%(units)d ahead of yours were put on hold, because their payment is disputed.",
                    self.held,
                ),
            ),
            (
                self.joined,
                ngettext(
                    "%(units)d came in before yours, because its earlier payment was confirmed late.",
                    "%(units)d came in before yours, because their earlier payment was confirmed late.",
                    self.joined,
                ),
            ),
            (
                self.released,
                ngettext(
                    "%(units)d that was on hold is back in its place before yours.",
                    "%(units)d that were on hold are back in their place before yours.",
                    self.released,
                ),
            ),
            (
                self.returned,
                ngettext(
                    "%(units)d before yours waits again, because its device failed.",
                    "%(units)d before yours wait again, because their device failed.",
                    self.returned,
                ),
            ),
        )
        yield from (words % {"units": units} for units, words in told if units)

    def _sum(self) -> Iterator[str]:
        if self.difference < 0:
            words = ngettext(
                "%(units)d phone fewer is ahead of yours.",
                "%(units)d phones fewer are ahead of yours.",
                -self.difference,
            )
            yield words % {"units": -self.difference}
        if self.difference > 0:
            words = ngettext(
                "%(units)d phone more is ahead of yours.",
                "%(units)d phones more are ahead of yours.",
                self.difference,
            )
            yield words % {"units": self.difference}


@dataclass(frozen=True, slots=True)
class _Settled:
    """`units` of each kind of event up to `event_id`, which no transaction adds to any more.

    By `seen_at` the events up to `seen_id` were there; those of smaller numbers may still have been on their way.
    """

    event_id: int
    units: Counter[str]
    seen_id: int
    seen_at: datetime


def moves_since(line: OrderLine, *, ahead: int, before: Look, now: datetime) -> Moves:
    """What went and came ahead of a waiting line that now has `ahead` units before it, by one query.

    An open page asks every few seconds: what has settled is kept, and only later events are read.
    """
    key = f"moves:{line.pk}:{before.event_id}"
    settled: _Settled = cache.get(key) or _Settled(before.event_id, Counter(), before.event_id, before.at)
    smaller_rank = Q(paid_at__lt=line.paid_at) | Q(paid_at=line.paid_at, line_id__lt=line.pk)
    events = QueueEvent.objects.filter(
        smaller_rank, plan_id=line.plan_id, at__gte=before.at - WRITTEN_WITHIN, pk__gt=settled.event_id
    )
    settles = Q(pk__lte=settled.seen_id)
    later = {str(kind): Sum("units", filter=Q(kind=kind), default=0) for kind in KINDS}
    settling = {f"{kind}_settles": Sum("units", filter=settles & Q(kind=kind), default=0) for kind in KINDS}
    found = events.aggregate(**later, **settling, newest=Max("pk"))
    if now - settled.seen_at >= SETTLED_AFTER:
        units = settled.units + Counter({str(kind): found[f"{kind}_settles"] for kind in KINDS})
        newest = max(found["newest"] or 0, settled.seen_id)
        cache.set(key, _Settled(settled.seen_id, units, newest, now), KEPT_SECONDS)
    return Moves(
        since=before.at,
        difference=ahead - before.ahead,
        **{str(kind): settled.units[str(kind)] + found[str(kind)] for kind in KINDS},
    )


class Looks:
    """When the visitor of a session looked at which line, and what he saw."""

    def __init__(self, session: SessionBase) -> None:
        self._session = session

    def before(self, line: OrderLine) -> Look | None:
        """The look of the last visit before this one; None on the first."""
        stored = self._stored().get(str(line.pk))
        return Look.from_json(stored[0]) if stored and stored[0] else None

    def remember(self, line: OrderLine, look: Look) -> None:
        """Keep `look` for the next visit. Within one visit, what it is compared with stays."""
        looked = self._stored()
        before, last = looked.get(str(line.pk), (None, None))
        if last is not None and look.at - Look.from_json(last).at >= SAME_VISIT:
            before = last
        looked[str(line.pk)] = [before, look.as_json()]
        self._session[SESSION_KEY] = looked

    def _stored(self) -> dict[str, list[list[float | int] | None]]:
        stored: dict[str, list[list[float | int] | None]] = self._session.get(SESSION_KEY, {})
        return stored


def newest_event_id() -> int:
    """Of all queues: what is written later has a greater one."""
    return QueueEvent.objects.order_by("-pk").values_list("pk", flat=True).first() or 0
