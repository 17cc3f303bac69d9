"""From a notice to its deliveries: which channels, which addresses, and from when on.

A fixed number of statements for a chunk of notices, however many: one sweep may tell a million customers.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction
from django.db.models import Q

from accounts.models import User
from evidence.setwise import given
from notices.channels import CHANNELS
from notices.channels.in_site import InSite
from notices.channels.protocol import Address
from notices.kinds import KINDS, Kind
from notices.models import ContactPoint, Delivery, DeliveryState, DeliveryStep, Notice, Preference, QuietHours
from notices.preferences import end_of_quiet, is_wanted, quiet_hours_of

logger = logging.getLogger(__name__)

# Notices handed to the channels in one transaction.
CHUNK = 1_000


@dataclass(frozen=True, slots=True)
class _Route:
    """One delivery to be."""

    notice: Notice
    channel: str
    to: Address
    due_at: datetime


def expand(*, now: datetime) -> int:
    """Make a delivery for each channel and address of the oldest new notices; return how many notices.

    Of a thread, what was not sent yet by a channel is superseded by what is newer there.
    """
    with transaction.atomic(durable=True):
        notices = list(
            Notice.objects.filter(is_expanded=False)
            .select_related("recipient")
            .defer("facts")
            .select_for_update(skip_locked=True, of=("self",))
            .order_by("id")[:CHUNK]
        )
        if notices:
            routes = list(_routes(notices, now=now))
            _insert(routes)
            _supersede(routes)
            Notice.objects.filter(pk__in=[notice.pk for notice in notices]).update(is_expanded=True)
    return len(notices)


def fall_back(notice_ids: Iterable[int], *, now: datetime) -> None:
    """Have each of these notices that no way is left for go by the next fallback of its kind that reaches its reader.

    To be called in the transaction in which a delivery of theirs was lost. Nothing happens to a notice that was sent,
    or may still be, by a way that leaves our site, nor to one that something newer tells better or that was called back. Where the last
    fallback is lost too, an error in the log says so.
    """
    # Of two who lose the last two deliveries of one notice at once, each would see hope in the other's.
    notices = list(
        Notice.objects.filter(pk__in=list(notice_ids), called_back_at=None)
        .select_related("recipient")
        .defer("facts")
        .select_for_update(no_key=True, of=("self",))
        .order_by("id")
    )
    # Of what nobody knows the end of, and which was sent once more, there is none.
    over = Q(state__in=(DeliveryState.DEAD, DeliveryState.CANCELLED)) | Q(
        state=DeliveryState.UNCERTAIN, lease_until=None
    )
    hopes = Delivery.objects.filter(notice__in=notices).exclude(channel=InSite.slug).exclude(over)
    hopeful = set(hopes.exclude(events__step=DeliveryStep.RETURNED).values_list("notice", flat=True))
    lost = [
        notice
        for notice in notices
        if notice.pk not in hopeful and notice.kind in KINDS and KINDS[notice.kind].fallbacks
    ]
    if not lost:
        return
    tried = set(Delivery.objects.filter(notice__in=lost).values_list("notice", "channel", "address"))
    ways = _Ways.of(lost)
    routes: list[_Route] = []
    for notice in lost:
        kind = KINDS[notice.kind]
        for slug in kind.fallbacks:
            left = [
                route
                for route in ways.routes(notice, kind, slug, now=now)
                if (notice.pk, slug, route.to.address) not in tried
            ]
            if left:
                routes += left
                break
        else:
            logger.error("Notice %s reaches %s by no way that is left.", notice.pk, notice.recipient)
    _insert(routes)


def redirect(deliveries: Sequence[Delivery], *, to: ContactPoint) -> None:
    """Have the notices of deliveries that were given up go to another contact point of the same channel, at their time."""
    notices = Notice.objects.select_related("recipient").in_bulk([each.notice_id for each in deliveries])
    address = Address(to.address, to.pk)
    _insert([_Route(notices[each.notice_id], to.channel, address, each.due_at) for each in deliveries])


@dataclass(frozen=True, slots=True)
class _Ways:
    """How the recipients of some notices can be reached: their addresses by usable channel, and what they prefer."""

    addresses: Mapping[str, Mapping[int, Sequence[Address]]]
    said: Mapping[tuple[int, str, str], bool]
    quiet: Mapping[int, QuietHours]

    @classmethod
    def of(cls, notices: Sequence[Notice]) -> "_Ways":
        recipients = list({notice.recipient_id: notice.recipient for notice in notices}.values())
        return cls(
            addresses={
                slug: channel.addresses_of(recipients)
                for slug, channel in CHANNELS.items()
                if not channel.missing()
            },
            said=_said_by(recipients),
            quiet=quiet_hours_of([recipient.pk for recipient in recipients]),
        )

    def routes(self, notice: Notice, kind: Kind, slug: str, *, now: datetime) -> Iterator[_Route]:
        """Where a notice goes by one channel: nowhere if that cannot be used, or does not reach its reader."""
        if slug not in self.addresses or notice.to_channel not in ("", slug):
            return
        due_at = now
        if CHANNELS[slug].rings and notice.recipient_id in self.quiet:
            due_at = end_of_quiet(
                self.quiet[notice.recipient_id],
                time_zone=notice.recipient.time_zone,
                urgency=kind.urgency,
                now=now,
            )
        for to in _addresses_for(notice, self.addresses[slug].get(notice.recipient_id, ())):
            yield _Route(notice, slug, to, due_at)


def _routes(notices: Sequence[Notice], *, now: datetime) -> Iterator[_Route]:
    """Where notices go by all channels that their kinds and recipients want."""
    ways = _Ways.of(notices)
    for notice in notices:
        kind = KINDS.get(notice.kind)
        if kind is None:
            logger.error("Notice %s is of the unknown kind %r and goes to nobody.", notice.pk, notice.kind)
            continue
        for slug in ways.addresses:
            said = ways.said.get((notice.recipient_id, kind.slug, slug))
            if notice.to_channel or is_wanted(kind, slug, said=said):
                yield from ways.routes(notice, kind, slug, now=now)


def _said_by(recipients: Sequence[User]) -> Mapping[tuple[int, str, str], bool]:
    """What they prefer, by customer, kind and channel."""
    preferences = Preference.objects.filter(customer__in=recipients)
    return {
        (customer, kind, channel): wanted
        for customer, kind, channel, wanted in preferences.values_list(
            "customer_id", "kind", "channel", "is_wanted"
        )
    }


def _addresses_for(notice: Notice, own: Sequence[Address]) -> Sequence[Address]:
    """The recipient's own, or the one that the notice names."""
    if not notice.to_address:
        return own
    # One of his own has what the channel needs beside the address.
    return [to for to in own if to.address == notice.to_address] or (Address(notice.to_address),)


def _insert(routes: Sequence[_Route]) -> None:
    """Make the deliveries that are not there yet."""
    if not routes:
        return
    table = given(
        ("notice_id", "bigint", [route.notice.pk for route in routes]),
        ("channel", "text", [route.channel for route in routes]),
        ("address", "text", [route.to.address for route in routes]),
        ("contact_point_id", "bigint", [route.to.contact_point_id or 0 for route in routes]),
        ("priority", "integer", [int(KINDS[route.notice.kind].urgency) for route in routes]),
        ("due_at", "timestamptz", [route.due_at for route in routes]),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO notices_delivery (notice_id, channel, address, contact_point_id, priority, due_at, state, "  # noqa: S608
            "attempts, provider_reference, problem) SELECT notice_id, channel, address, nullif(contact_point_id, 0), "
            f"priority, due_at, 'queued', 0, '', '' FROM {table.sql} WHERE true ORDER BY n ON CONFLICT DO NOTHING",
            table.params,
        )


def _supersede(routes: Iterable[_Route]) -> None:
    """Let what waits in the same thread, for the same recipient and by the same channel, be replaced by what is newer."""
    threaded = [route for route in routes if route.notice.thread]
    if not threaded:
        return
    # The newest of each thread and channel: an earlier one of this very chunk is replaced as well.
    newest = {
        key: max(route.notice.pk for route in group)
        for key, group in itertools.groupby(sorted(threaded, key=_thread_of), key=_thread_of)
    }
    table = given(
        ("recipient_id", "bigint", [recipient for recipient, _, _ in newest]),
        ("thread", "text", [thread for _, thread, _ in newest]),
        ("channel", "text", [channel for _, _, channel in newest]),
        ("newest", "bigint", list(newest.values())),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "UPDATE notices_delivery SET state = 'superseded' WHERE id IN (SELECT older.id FROM "  # noqa: S608
            f"{table.sql} JOIN notices_notice ON notices_notice.recipient_id = given.recipient_id "
            "AND notices_notice.thread = given.thread AND notices_notice.thread <> '' "
            "AND notices_notice.id < given.newest JOIN notices_delivery AS older "
            "ON older.notice_id = notices_notice.id AND older.channel = given.channel AND older.state = 'queued') "
            "AND state = 'queued'",
            table.params,
        )


def _thread_of(route: _Route) -> tuple[int, str, str]:
    return route.notice.recipient_id, route.notice.thread, route.channel
