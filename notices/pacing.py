"""How fast a channel may go, and whether it should be used at all just now.

Each channel outside has a bucket of tokens in its row, one for each sending, that fills at the rate its provider
allows; all workers draw from it. Failures in a row open a breaker: nobody claims anything until a pause is over, then
one delivery is tried. Neither touches the deliveries, which stay queued.
"""

import math
from collections.abc import Mapping
from datetime import datetime, timedelta

from django.db.models import F

from notices.channels.protocol import Channel
from notices.models import ChannelPace

# So many failures in a row say that it is the provider.
BREAKS_AFTER = 5
FIRST_PAUSE = timedelta(seconds=10)
LONGEST_PAUSE = timedelta(minutes=15)


def allowance(channel: Channel, *, most: int, now: datetime) -> int:
    """How many deliveries may be claimed now, `most` at the most. Locks the channel until the transaction ends.

    Call `spend` in the same transaction for what is claimed.
    """
    pace = _locked(channel.slug)
    if pace.paused_at or (pace.open_until and now < pace.open_until):
        return 0
    if pace.failures >= BREAKS_AFTER:
        most = 1  # the pause is over: one goes ahead to see
    if channel.per_second is None:
        return most
    return min(most, math.floor(_tokens(pace, channel.per_second, now=now)))


def spend(channel: Channel, count: int, *, now: datetime) -> None:
    """Take the tokens of deliveries that were claimed, under the lock of `allowance`.

    Where one goes ahead to see, the others wait for what becomes of it.
    """
    pace = ChannelPace.objects.get(channel=channel.slug)
    changed: dict[str, object] = {"filled_at": now}
    if channel.per_second is not None:
        changed["tokens"] = _tokens(pace, channel.per_second, now=now) - count
    if count and pace.failures >= BREAKS_AFTER:
        changed["open_until"] = now + _pause_after(pace.failures)
    ChannelPace.objects.filter(channel=channel.slug).update(**changed)


def went_well(slug: str) -> None:
    """The provider took something: whatever was wrong is over."""
    ChannelPace.objects.filter(channel=slug, failures__gt=0).update(
        failures=0, open_until=None, last_problem=""
    )


def went_wrong(slug: str, *, problem: str, now: datetime) -> None:
    """The provider could not take something."""
    ChannelPace.objects.filter(channel=slug).update(failures=F("failures") + 1, last_problem=problem[:300])
    pace = ChannelPace.objects.filter(channel=slug).first()
    if pace and pace.failures >= BREAKS_AFTER:
        ChannelPace.objects.filter(channel=slug).update(open_until=now + _pause_after(pace.failures))


def pause(slug: str, *, by_id: int, now: datetime) -> None:
    """Stop a channel by a person's word; what is due waits."""
    _exists(slug)
    ChannelPace.objects.filter(channel=slug, paused_at=None).update(paused_at=now, paused_by=by_id)


def resume(slug: str) -> None:
    """Let a channel go on, with a breaker that is closed."""
    ChannelPace.objects.filter(channel=slug).update(
        paused_at=None, paused_by=None, failures=0, open_until=None, last_problem=""
    )


def paces() -> Mapping[str, ChannelPace]:
    """All that were used or stopped so far, by channel."""
    return {pace.channel: pace for pace in ChannelPace.objects.select_related("paused_by")}


def _locked(slug: str) -> ChannelPace:
    _exists(slug)
    pace: ChannelPace = ChannelPace.objects.select_for_update(no_key=True).get(channel=slug)
    return pace


def _exists(slug: str) -> None:
    ChannelPace.objects.bulk_create([ChannelPace(channel=slug)], ignore_conflicts=True)


def _tokens(pace: ChannelPace, per_second: float, *, now: datetime) -> float:
    """What is in the bucket: a second's worth at the most, and one at least in a slow one."""
    full = max(per_second, 1.0)
    if pace.filled_at is None:
        return full
    elapsed = max(0.0, (now - pace.filled_at).total_seconds())
    return min(full, pace.tokens + elapsed * per_second)


def _pause_after(failures: int) -> timedelta:
    return min(FIRST_PAUSE * (1 << min(failures - BREAKS_AFTER, 16)), LONGEST_PAUSE)
