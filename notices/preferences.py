"""What customers want to hear by which way, and when their phones shall not ring.

What is owed under the agreement reaches the inbox and the mailbox whatever is preferred (`Kind.is_fixed`): clause VIII
counts it as delivered once it is sent, so it is sent. Everything else is the customer's choice.
"""

import functools
import zoneinfo
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, time, timedelta

from django.conf import settings
from django.core.signing import BadSignature
from django.db import transaction
from django.utils.functional import Promise

from accounts.models import User
from notices import links
from notices.channels import CHANNELS
from notices.kinds import KINDS, Kind, Topic, Urgency
from notices.models import Preference, QuietHours


class NotAChoice(Exception):
    """The kind cannot be switched off for that channel, or there is no such kind or channel."""


@dataclass(frozen=True, slots=True)
class Choice:
    """Whether a kind comes by a channel."""

    channel: str
    is_wanted: bool
    is_fixed: bool

    @property
    def label(self) -> str | Promise:
        return CHANNELS[self.channel].label


@dataclass(frozen=True, slots=True)
class Choices:
    """A kind and what is chosen for it, channel by channel."""

    kind: Kind
    by_channel: Sequence[Choice]


def kinds_to_choose() -> Sequence[Kind]:
    """The kinds that customers get by more than one way, or may refuse."""
    return [kind for kind in KINDS.values() if len(kind.channels) > 1]


def channels_of(customer: User) -> Sequence[str]:
    """The channels by which this customer can be reached now, in the order of CHANNELS."""
    return [slug for slug, channel in CHANNELS.items() if channel.addresses_of([customer]).get(customer.pk)]


def choices_of(customer: User) -> Mapping[Topic, Sequence[Choices]]:
    """All choices of a customer, by topic, for the channels that reach him."""
    channels = channels_of(customer)
    said = {
        (preference.kind, preference.channel): preference.is_wanted
        for preference in Preference.objects.filter(customer=customer)
    }
    found: dict[Topic, list[Choices]] = {topic: [] for topic in Topic}
    for kind in kinds_to_choose():
        by_channel = [
            Choice(slug, is_wanted(kind, slug, said=said.get((kind.slug, slug))), kind.is_fixed(slug))
            for slug in channels
        ]
        found[kind.topic].append(Choices(kind, by_channel))
    return {topic: choices for topic, choices in found.items() if choices}


def is_wanted(kind: Kind, channel: str, *, said: bool | None) -> bool:
    """Whether `kind` goes by `channel`; `said` is the customer's own word, None if he has said nothing."""
    if kind.is_fixed(channel):
        return True
    return said if said is not None else channel in kind.channels


def choose(*, customer_id: int, wanted: Mapping[tuple[str, str], bool], now: datetime) -> None:
    """Keep what a customer wants, by (kind, channel). What is fixed stays as it is, whatever `wanted` says.

    Raises NotAChoice for a kind or channel that does not exist; then nothing is kept.
    """
    kept = []
    for (slug, channel), is_on in wanted.items():
        kind = KINDS.get(slug)
        if kind is None or channel not in CHANNELS:
            raise NotAChoice(f"{slug} by {channel}")
        if not kind.is_fixed(channel):
            kept.append(
                Preference(
                    customer_id=customer_id, kind=slug, channel=channel, is_wanted=is_on, changed_at=now
                )
            )
    with transaction.atomic(durable=True):
        said = {
            (preference.kind, preference.channel): preference.is_wanted
            for preference in Preference.objects.filter(customer_id=customer_id).select_for_update()
        }
        # What he never touched follows the kind, also when that changes its mind in a later release.
        changed = [
            new
            for new in kept
            if said.get((new.kind, new.channel), new.channel in KINDS[new.kind].channels) != new.is_wanted
        ]
        Preference.objects.bulk_create(
            changed,
            update_conflicts=True,
            unique_fields=["customer", "kind", "channel"],
            update_fields=["is_wanted", "changed_at"],
        )


def keep_quiet(*, customer_id: int, begin_at: time | None, end_at: time | None) -> None:
    """Set a customer's quiet hours, or with None for both give them up. Raises ValueError for half of it."""
    if (begin_at is None) is not (end_at is None) or (begin_at is not None and begin_at == end_at):
        raise ValueError("Quiet hours have a beginning and another end.")
    with transaction.atomic(durable=True):
        if begin_at is None or end_at is None:
            QuietHours.objects.filter(customer_id=customer_id).delete()
        else:
            QuietHours.objects.update_or_create(
                customer_id=customer_id, defaults={"begin_at": begin_at, "end_at": end_at}
            )


def quiet_hours_of(customer_ids: Iterable[int]) -> Mapping[int, QuietHours]:
    """Those of each who keeps any, by id."""
    return {hours.customer_id: hours for hours in QuietHours.objects.filter(customer__in=customer_ids)}


def end_of_quiet(hours: QuietHours, *, time_zone: str, urgency: Urgency, now: datetime) -> datetime:
    """When something may ring that is due at `now`: then, or at the end of the quiet hours that `now` is in.

    `time_zone` is the customer's, empty for the contract's. Where clocks are changed in between, the end is that of
    his clock.
    """
    if urgency is Urgency.URGENT:
        return now
    zone = _zone(time_zone or settings.CONTRACT_TIME_ZONE)
    here = now.astimezone(zone)
    over_midnight = hours.end_at < hours.begin_at
    clock = here.time()
    if over_midnight:
        is_quiet = clock >= hours.begin_at or clock < hours.end_at
        days = 1 if clock >= hours.begin_at else 0
    else:
        is_quiet = hours.begin_at <= clock < hours.end_at
        days = 0
    if not is_quiet:
        return now
    return datetime.combine(here.date() + timedelta(days=days), hours.end_at, tzinfo=zone).astimezone(
        now.tzinfo
    )


def asked_off(token: str) -> tuple[int, Kind, str]:
    """Whom, which kind and which channel a link in a mail names. Raises NotAChoice: not ours, or not to be switched off."""
    try:
        customer_id, slug, channel = links.read_off(token)
        kind = KINDS[slug]
    except (BadSignature, KeyError):
        raise NotAChoice("The link is not one of ours, or it was shortened.") from None
    if kind.is_fixed(channel):
        raise NotAChoice(f"{slug} is owed under the agreement and comes by {channel}.")
    return customer_id, kind, channel


@functools.cache
def _zone(name: str) -> zoneinfo.ZoneInfo:
    return zoneinfo.ZoneInfo(name)
