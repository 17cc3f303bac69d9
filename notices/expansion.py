"""From a notice to its deliveries: which channels, which addresses, and from when on.

A fixed number of statements for a chunk of notices, however many: one sweep may tell a million customers.
"""

import itertools
import logging
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import connection, transaction

from accounts.models import User
from evidence.setwise import given
from notices.channels import CHANNELS
from notices.channels.in_site import InSite
from notices.channels.protocol import Address
from notices.kinds import KINDS, Kind
from notices.models import Delivery, DeliveryState, DeliveryStep, Notice, Preference, QuietHours
from notices.preferences import end_of_quiet, is_wanted

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


def fall_back(notice: Notice, *, now: datetime) -> int:
    """Have a notice go by the fallbacks of its kind, in the transaction in which its last hope was lost.

    Nothing happens as long as it is sent, or may still be, by any way that leaves our site. Returns how many
    deliveries were made; where there are none, an error in the log says so.
    """
    kind = KINDS.get(notice.kind)
    if kind is None or not kind.fallbacks:
        return 0
    over = (DeliveryState.DEAD, DeliveryState.CANCELLED, DeliveryState.SUPERSEDED)
    hopes = Delivery.objects.filter(notice=notice).exclude(channel=InSite.slug).exclude(state__in=over)
    if hopes.exclude(events__step=DeliveryStep.RETURNED).exists():
        return 0
    routes = list(_routes([notice], now=now, channels=kind.fallbacks))
    made = _insert(routes)
    if not made:
        logger.error("Notice %s reaches %s by no way that is left.", notice.pk, notice.recipient)
    return made


def _routes(
    notices: Sequence[Notice], *, now: datetime, channels: Sequence[str] | None = None
) -> Iterator[_Route]:
    """Where notices go: by the channels that are given, else by those that their kinds and recipients want."""
    recipients = list({notice.recipient_id: notice.recipient for notice in notices}.values())
    usable = {slug: channel for slug, channel in CHANNELS.items() if not channel.missing()}
    addresses = {slug: channel.addresses_of(recipients) for slug, channel in usable.items()}
    said = _said_by(recipients)
    quiet = {hours.customer_id: hours for hours in QuietHours.objects.filter(customer__in=recipients)}
    for notice in notices:
        kind = KINDS.get(notice.kind)
        if kind is None:
            logger.error("Notice %s is of the unknown kind %r and goes to nobody.", notice.pk, notice.kind)
            continue
        for slug, channel in usable.items():
            if not _goes_by(slug, notice, kind, said=said, channels=channels):
                continue
            due_at = now
            if channel.rings and notice.recipient_id in quiet:
                due_at = end_of_quiet(
                    quiet[notice.recipient_id],
                    time_zone=notice.recipient.time_zone,
                    urgency=kind.urgency,
                    now=now,
                )
            for to in _addresses_for(notice, addresses[slug].get(notice.recipient_id, ())):
                yield _Route(notice, slug, to, due_at)


def _said_by(recipients: Sequence[User]) -> Mapping[tuple[int, str, str], bool]:
    """What they prefer, by customer, kind and channel."""
    preferences = Preference.objects.filter(customer__in=recipients)
    return {
        (customer, kind, channel): wanted
        for customer, kind, channel, wanted in preferences.values_list(
            "customer_id", "kind", "channel", "is_wanted"
        )
    }


def _goes_by(
    channel: str,
    notice: Notice,
    kind: Kind,
    *,
    said: Mapping[tuple[int, str, str], bool],
    channels: Sequence[str] | None,
) -> bool:
    if notice.to_channel:
        return channel == notice.to_channel
    if channels is not None:
        return channel in channels
    return is_wanted(kind, channel, said=said.get((notice.recipient_id, kind.slug, channel)))


def _addresses_for(notice: Notice, own: Sequence[Address]) -> Sequence[Address]:
    """The recipient's own, or the one that the notice names."""
    if not notice.to_address:
        return own
    # One of his own has what the channel needs beside the address.
    return [to for to in own if to.address == notice.to_address] or (Address(notice.to_address),)


def _insert(routes: Iterable[_Route]) -> int:
    """Make the deliveries that are not there yet; return how many."""
    routes = list(routes)
    if not routes:
        return 0
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
        return int(cursor.rowcount)


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
