"""Messages of staff to many customers: submitted, approved by a second person where they are many, sent bit by bit."""

from collections.abc import Callable, Mapping
from datetime import datetime
from typing import Any, TypeAlias

from django.conf import settings
from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from accounts.models import User
from notices import announcements
from notices.kinds import KINDS, Kind
from notices.models import Broadcast, BroadcastState
from notices.outbox import Draft, tell

# Customers told in one transaction.
CHUNK = 2_000

# What a segment says: {"language": "en", "plan": 3, …}; what it does not name does not narrow it.
Segment: TypeAlias = Mapping[str, Any]
Narrowing: TypeAlias = Callable[[QuerySet[User], Segment], QuerySet[User]]
_narrowings: list[Narrowing] = []


class NotAllowed(Exception):
    """A message cannot be submitted, approved or cancelled so; the message tells staff why."""


def narrows(narrowing: Narrowing) -> Narrowing:
    """Have a function narrow every segment by what it understands of it; for apps above this one."""
    _narrowings.append(narrowing)
    return narrowing


@narrows
def by_language(users: QuerySet[User], segment: Segment) -> QuerySet[User]:
    return users.filter(language=segment["language"]) if segment.get("language") else users


def recipients(segment: Segment) -> QuerySet[User]:
    """The customers of a segment, staff left out, by id."""
    users = User.objects.filter(is_active=True, is_staff=False)
    for narrowing in _narrowings:
        users = narrowing(users, segment)
    return users.order_by("pk")


def submit(
    *,
    kind: Kind,
    segment: Segment,
    texts: Mapping[str, Mapping[str, str]],
    is_announced: bool,
    by_id: int,
    now: datetime,
) -> Broadcast:
    """Have a message sent to a segment: at once if it is small, else when somebody else has approved it.

    Raises NotAllowed for a kind that staff do not write or a segment that is empty, announcements.Incomplete for
    words that are missing.
    """
    if not kind.composed:
        raise NotAllowed(_("Messages of this kind are not written by staff."))
    whole = announcements.completed(texts)
    count = recipients(segment).count()
    if count == 0:
        raise NotAllowed(_("Nobody belongs to this segment."))
    with transaction.atomic(durable=True):
        broadcast: Broadcast = Broadcast.objects.create(
            kind=kind.slug,
            segment=dict(segment),
            texts=whole,
            is_announced=is_announced,
            composed_by_id=by_id,
            composed_at=now,
            recipients=count,
            needs_approval=count > settings.BROADCAST_ALONE,
        )
        if not broadcast.needs_approval:
            _start(broadcast, approved_by_id=None, now=now)
    return broadcast


def approve(*, broadcast_id: int, by_id: int, now: datetime) -> None:
    """Have it sent. Raises NotAllowed for whoever has written it, and for what does not wait for approval."""
    with transaction.atomic(durable=True):
        broadcast = _locked(broadcast_id, BroadcastState.SUBMITTED)
        if broadcast.composed_by_id == by_id:
            raise NotAllowed(_("Somebody else has to approve it."))
        _start(broadcast, approved_by_id=by_id, now=now)


def cancel(*, broadcast_id: int, now: datetime) -> None:
    """Send it to nobody else. Whoever was told stays told. Raises NotAllowed when it is over."""
    with transaction.atomic(durable=True):
        broadcast = _locked(broadcast_id, BroadcastState.SUBMITTED, BroadcastState.SENDING)
        Broadcast.objects.filter(pk=broadcast.pk).update(state=BroadcastState.CANCELLED, ended_at=now)


def go_on(*, now: datetime) -> int:
    """Tell the next customers of each message that is being sent; return how many.

    The notices and how far it has come are one transaction: a worker that dies has told a chunk, or not.
    """
    told = 0
    for broadcast_id in Broadcast.objects.filter(state=BroadcastState.SENDING).values_list("pk", flat=True):
        told += _tell_some(broadcast_id, now=now)
    return told


def _tell_some(broadcast_id: int, *, now: datetime) -> int:
    with transaction.atomic(durable=True):
        broadcast = (
            Broadcast.objects.select_for_update(skip_locked=True)
            .filter(pk=broadcast_id, state=BroadcastState.SENDING)
            .first()
        )
        if broadcast is None:
            return 0
        some = list(
            recipients(broadcast.segment).filter(pk__gt=broadcast.cursor).values_list("pk", flat=True)[:CHUNK]
        )
        kind = KINDS[broadcast.kind]
        tell(
            (
                Draft(
                    recipient_id=customer,
                    kind=kind,
                    about="",
                    url="",
                    facts={"broadcast": broadcast.pk},
                    dedupe_key=f"broadcast:{broadcast.pk}:{customer}",
                )
                for customer in some
            ),
            now=now,
        )
        changed: dict[str, object] = {"told": broadcast.told + len(some)}
        if some:
            changed["cursor"] = some[-1]
        if len(some) < CHUNK:
            changed |= {"state": BroadcastState.DONE, "ended_at": now}
        Broadcast.objects.filter(pk=broadcast.pk).update(**changed)
    return len(some)


def _start(broadcast: Broadcast, *, approved_by_id: int | None, now: datetime) -> None:
    Broadcast.objects.filter(pk=broadcast.pk).update(
        state=BroadcastState.SENDING, approved_by=approved_by_id, approved_at=now
    )
    if broadcast.is_announced:
        announcements.publish(
            kind=KINDS[broadcast.kind], texts=broadcast.texts, key=f"broadcast:{broadcast.pk}", now=now
        )


def _locked(broadcast_id: int, *states: BroadcastState) -> Broadcast:
    broadcast: Broadcast = Broadcast.objects.select_for_update().get(pk=broadcast_id)
    if broadcast.state not in states:
        raise NotAllowed(_("It is over, or under way: %(state)s.") % {"state": broadcast.get_state_display()})
    return broadcast
