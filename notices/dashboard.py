"""How the outbox stands, channel by channel, for staff."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from django.db import connection
from django.utils.functional import Promise

from evidence.setwise import as_written, given
from notices.channels import CHANNELS
from notices.kinds import Urgency
from notices.models import ChannelPace, DeliveryState, DeliveryStep
from notices.pacing import BREAKS_AFTER, paces

LATELY = timedelta(hours=1)
# Nobody counts on: what there is more of is "so many, and more". A million that wait are looked at as quickly as ten.
MOST = 10_000
# Of the last hour the newest entries of the evidence.
MOST_EVENTS = 10_000
FAILURES = (DeliveryStep.FAILED, DeliveryStep.REFUSED, DeliveryStep.UNKNOWN)


@dataclass(frozen=True, slots=True)
class Standing:
    """One channel: what waits and since when, what became of the last hour's attempts, and whether it runs.

    Numbers above MOST are MOST + 1; the last hour is that of the newest MOST_EVENTS entries at the most.
    """

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
    def shown(self) -> Mapping[str, str]:
        """Its numbers as they are read."""
        numbers = {"waiting": self.waiting, "uncertain": self.uncertain, "dead": self.dead}
        return {name: f"{MOST:,}+" if count > MOST else f"{count:,}" for name, count in numbers.items()}

    @property
    def is_broken(self) -> bool:
        return self.pace is not None and self.pace.failures >= BREAKS_AFTER


def standings(*, now: datetime) -> Sequence[Standing]:
    """Every channel, in the order in which workers turn to them."""
    counted = _counted(now)
    lately = _lately(now)
    known = paces()
    found = []
    for slug, channel in CHANNELS.items():
        waiting, uncertain, dead, due_since = counted[slug]
        sent, failed = lately.get(slug, (0, 0))
        found.append(
            Standing(
                slug=slug,
                label=channel.label,
                lacks=channel.missing(),
                pace=known.get(slug),
                waiting=waiting,
                due_since=due_since,
                uncertain=uncertain,
                dead=dead,
                sent_lately=sent,
                failed_lately=failed,
            )
        )
    return found


def _counted(now: datetime) -> Mapping[str, tuple[int, int, int, datetime | None]]:
    """By channel: how many wait, are uncertain and are refused, and since when the longest due has been."""
    channels = given(("channel", "text", list(CHANNELS)))
    urgencies = given(("priority", "integer", [int(urgency) for urgency in Urgency]))

    def some(state: DeliveryState) -> str:
        return (
            "(SELECT count(*) FROM (SELECT 1 FROM notices_delivery AS one WHERE one.channel = channels.channel "  # noqa: S608
            f"AND one.state = '{state}' LIMIT {MOST + 1}) AS few)"
        )

    # The first of each urgency by the index of what is due; the earliest of all would be looked for among all.
    first = (
        "(SELECT min(due_at) FROM (SELECT (SELECT due.due_at FROM notices_delivery AS due WHERE due.channel = "  # noqa: S608
        "channels.channel AND due.state = 'queued' AND due.priority = urgency.priority ORDER BY due.due_at LIMIT 1) "
        f"AS due_at FROM (SELECT priority FROM {urgencies.sql}) AS urgency) AS firsts WHERE due_at <= %s)"
    )
    with connection.cursor() as cursor:
        cursor.execute(
            f"SELECT channel, {some(DeliveryState.QUEUED)}, {some(DeliveryState.UNCERTAIN)}, "  # noqa: S608
            f"{some(DeliveryState.DEAD)}, {first} FROM (SELECT channel FROM {channels.sql}) AS channels",
            [*urgencies.params, as_written(now), *channels.params],
        )
        return {channel: (*numbers, _moment(due)) for channel, *numbers, due in cursor.fetchall()}


def _lately(now: datetime) -> Mapping[str, tuple[int, int]]:
    """By channel: how many attempts of the last hour went well, and how many failed."""
    failures = ", ".join(f"'{step}'" for step in FAILURES)
    with connection.cursor() as cursor:
        cursor.execute(
            # Looked up one by one: joined, the newest entries would be held against every delivery there ever was.
            f"SELECT channel, sum(CASE WHEN step = '{DeliveryStep.ACCEPTED}' THEN 1 ELSE 0 END), "  # noqa: S608
            f"sum(CASE WHEN step IN ({failures}) THEN 1 ELSE 0 END) FROM (SELECT step, (SELECT channel "
            "FROM notices_delivery WHERE notices_delivery.id = newest.delivery_id) AS channel FROM (SELECT delivery_id, step "
            f"FROM notices_deliveryevent WHERE at > %s ORDER BY at DESC LIMIT {MOST_EVENTS}) AS newest) AS found "
            "GROUP BY channel",
            [as_written(now - LATELY)],
        )
        return {channel: (sent, failed) for channel, sent, failed in cursor.fetchall()}


def _moment(written: datetime | str | None) -> datetime | None:
    """SQLite gives times as they are written."""
    return datetime.fromisoformat(written).replace(tzinfo=UTC) if isinstance(written, str) else written
