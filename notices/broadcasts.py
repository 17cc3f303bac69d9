"""Messages of staff to many customers, on the site or both: submitted, approved by a second person, sent bit by bit."""

from collections.abc import Callable, Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from django.conf import settings
from django.db import connection, transaction
from django.db.models import QuerySet
from django.db.models.functions import Coalesce
from django.utils.translation import gettext as _

from accounts.models import User
from evidence.setwise import given
from notices import announcements
from notices.cancelling import TO_COME, call_back
from notices.kinds import KINDS, Kind
from notices.models import Announcement, Broadcast, BroadcastState, Delivery, Notice
from notices.outbox import Draft, tell

# Customers told, or left alone again, in one transaction.
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


def needs_approval(count: int, *, is_announced: bool) -> bool:
    """Whether a second person has to approve what goes to so many customers. The site is read by everybody."""
    return is_announced or count > settings.BROADCAST_ALONE


def submit(
    *,
    kind: Kind,
    segment: Segment | None,
    texts: Mapping[str, Mapping[str, str]],
    is_announced: bool,
    banner_days: int = 0,
    by_id: int,
    now: datetime,
) -> Broadcast:
    """Have a message sent to a segment, put on the site, or both: at once if few read it, else when somebody else approves.

    It goes to those who belong to the segment now, whatever changes until it is approved and sent. Without a segment it
    is for the site only. Raises NotAllowed for a kind that staff do not write or a segment that is empty,
    announcements.Incomplete for words that are missing.
    """
    if not kind.composed:
        raise NotAllowed(_("Messages of this kind are not written by staff."))
    whole = announcements.completed(texts)
    chosen = [] if segment is None else list(recipients(segment).values_list("pk", flat=True))
    if segment is not None and not chosen:
        raise NotAllowed(_("Nobody belongs to this segment."))
    with transaction.atomic(durable=True):
        broadcast: Broadcast = Broadcast.objects.create(
            kind=kind.slug,
            segment=segment if segment is None else dict(segment),
            texts=whole,
            is_announced=is_announced,
            banner_days=banner_days if is_announced else 0,
            composed_by_id=by_id,
            composed_at=now,
            recipients=len(chosen),
            needs_approval=needs_approval(len(chosen), is_announced=is_announced),
        )
        _keep(broadcast, chosen)
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


def cancel(*, broadcast_id: int, by: User, now: datetime) -> None:
    """Send it to nobody else, and take it off the site. Whoever was told stays told.

    What waits to be sent is cancelled as well: here if it is little, else by `go_on`. Raises NotAllowed when nothing
    is left to stop.
    """
    with transaction.atomic(durable=True):
        broadcast = _locked(
            broadcast_id, BroadcastState.SUBMITTED, BroadcastState.SENDING, BroadcastState.DONE
        )
        if not can_be_stopped(broadcast):
            raise NotAllowed(_("It has been sent to everybody already."))
        broadcast.left.all().delete()
        Broadcast.objects.filter(pk=broadcast.pk).update(
            state=BroadcastState.STOPPING,
            stopped_by=by,
            stopped_at=now,
            ended_at=Coalesce("ended_at", now),
        )
        for announced in Announcement.objects.filter(dedupe_key=_key(broadcast)):
            announcements.withdraw(announcement_id=announced.pk, now=now)
        broadcast.stopped_by = by
        _call_some_back(broadcast, now=now)


def can_be_stopped(broadcast: Broadcast) -> bool:
    """Whether anything of it is still to come."""
    if broadcast.state != BroadcastState.DONE:
        return broadcast.state in (BroadcastState.SUBMITTED, BroadcastState.SENDING)
    if _notices(broadcast).filter(is_expanded=False).exists():
        return True
    theirs = Delivery.objects.filter(notice__in=_notices(broadcast))
    # Each by an index of its own: of a million that were sent none is read.
    return any(theirs.filter(some).exists() for some in TO_COME)


def go_on(*, now: datetime) -> int:
    """Tell the next customers of each message that is being sent, and call back what was stopped; return how many.

    The notices and how far it has come are one transaction: a worker that dies has told a chunk, or not.
    """
    under_way = Broadcast.objects.filter(state__in=(BroadcastState.SENDING, BroadcastState.STOPPING))
    return sum(_go_on(broadcast_id, now=now) for broadcast_id in under_way.values_list("pk", flat=True))


def _go_on(broadcast_id: int, *, now: datetime) -> int:
    with transaction.atomic(durable=True):
        broadcast = Broadcast.objects.select_for_update(skip_locked=True).filter(pk=broadcast_id).first()
        if broadcast and broadcast.state == BroadcastState.SENDING:
            return _tell_some(broadcast, now=now)
        if broadcast and broadcast.state == BroadcastState.STOPPING:
            return _call_some_back(broadcast, now=now)
    return 0


def _tell_some(broadcast: Broadcast, *, now: datetime) -> int:
    some = list(broadcast.left.order_by("customer").values_list("customer", flat=True)[:CHUNK])
    kind = KINDS[broadcast.kind]
    tell(
        (
            Draft(
                recipient_id=customer,
                kind=kind,
                about="",
                url="",
                facts={"broadcast": broadcast.pk},
                dedupe_key=f"{_key(broadcast)}:{customer}",
            )
            for customer in some
        ),
        now=now,
    )
    changed: dict[str, object] = {"told": broadcast.told + len(some)}
    if some:
        broadcast.left.filter(customer__lte=some[-1]).delete()
    if len(some) < CHUNK:
        changed |= {"state": BroadcastState.DONE, "ended_at": now}
    Broadcast.objects.filter(pk=broadcast.pk).update(**changed)
    return len(some)


def _call_some_back(broadcast: Broadcast, *, now: datetime) -> int:
    later = _notices(broadcast).filter(pk__gt=broadcast.called_back)
    some = list(later.order_by("pk").values_list("pk", flat=True)[:CHUNK])
    call_back(some, reason=f"Stopped by {broadcast.stopped_by}.", now=now)
    changed: dict[str, object] = {"called_back": some[-1]} if some else {}
    if len(some) < CHUNK:
        changed["state"] = BroadcastState.CANCELLED
    Broadcast.objects.filter(pk=broadcast.pk).update(**changed)
    return len(some)


def _start(broadcast: Broadcast, *, approved_by_id: int | None, now: datetime) -> None:
    Broadcast.objects.filter(pk=broadcast.pk).update(
        state=BroadcastState.SENDING, approved_by=approved_by_id, approved_at=now
    )
    if broadcast.is_announced:
        days = broadcast.banner_days
        announcements.publish(
            kind=KINDS[broadcast.kind],
            texts=broadcast.texts,
            key=_key(broadcast),
            now=now,
            banner_until=now + timedelta(days=days) if days else None,
            by_id=broadcast.composed_by_id,
            approved_by_id=approved_by_id,
        )


def _keep(broadcast: Broadcast, chosen: Sequence[int]) -> None:
    table = given(("customer_id", "bigint", chosen))
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO notices_broadcastrecipient (broadcast_id, customer_id) "  # noqa: S608
            f"SELECT %s, customer_id FROM {table.sql} WHERE true",
            [broadcast.pk, *table.params],
        )


def _key(broadcast: Broadcast) -> str:
    """What its announcement is kept under, and its notices, with their customer."""
    return f"broadcast:{broadcast.pk}"


def _notices(broadcast: Broadcast) -> QuerySet[Notice]:
    return Notice.objects.filter(dedupe_key__startswith=f"{_key(broadcast)}:")


def _locked(broadcast_id: int, *states: BroadcastState) -> Broadcast:
    broadcast: Broadcast = Broadcast.objects.select_for_update().get(pk=broadcast_id)
    if broadcast.state not in states:
        raise NotAllowed(_("It is over, or under way: %(state)s.") % {"state": broadcast.get_state_display()})
    return broadcast
