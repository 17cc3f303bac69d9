"""The transactional outbox: a notice commits with its cause, and workers send it afterwards.

Whoever changes something that a customer must hear of calls `tell` in the same transaction. A worker calls
`drain` until nothing is due; any number of workers may.
"""

import itertools
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, TypeAlias

from django.db import connection, transaction

from evidence.setwise import as_written, given
from notices import deliveries, pacing
from notices.channels import CHANNELS
from notices.channels.in_site import InSite
from notices.channels.protocol import (
    Accepted,
    Channel,
    Deferred,
    Outcome,
    Outgoing,
    Refused,
    Unavailable,
    Uncertain,
)
from notices.deliveries import Claimed, Place
from notices.expansion import expand
from notices.kinds import KINDS, JSONValue, Kind
from notices.links import signed
from notices.models import ContactPoint, Message
from notices.rendering import Text, keep, keep_all, write
from notices.wordings import Said

logger = logging.getLogger(__name__)

# What the time is: asked again at every step, for a worker may wait minutes for a slow server.
Clock: TypeAlias = Callable[[], datetime]

# So long a channel outside may begin to send what was claimed for it, before the others have their turn.
TURN = timedelta(seconds=5)
# Notices written by one statement.
TOLD_AT_ONCE = 2_000


@dataclass(frozen=True, slots=True)
class Draft:
    """Something to tell. The templates of `kind` decide which `facts` there must be.

    `about` is the reference of its subject (an order's), `url` the path of the page that shows it. Of two
    drafts with one `dedupe_key` the first is told; of those with one `thread`, a newer one makes the older ones not
    worth sending. With `to_address` it goes there only, by `to_channel`.
    """

    recipient_id: int
    kind: Kind
    about: str
    url: str
    facts: Mapping[str, JSONValue]
    dedupe_key: str
    thread: str = ""
    to_channel: str = ""
    to_address: str = ""


def tell(drafts: Iterable[Draft], *, now: datetime) -> None:
    """Write notices into the outbox, in the transaction of what they tell. Nothing is sent here.

    Raises TransactionManagementError outside a transaction.
    """
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError(
            "A notice commits with its cause: call tell() in a transaction."
        )
    to_tell = iter(drafts)
    while some := list(itertools.islice(to_tell, TOLD_AT_ONCE)):
        table = given(
            ("recipient_id", "bigint", [draft.recipient_id for draft in some]),
            ("kind", "text", [draft.kind.slug for draft in some]),
            ("about", "text", [draft.about for draft in some]),
            ("url", "text", [draft.url for draft in some]),
            ("facts", "jsonb", [draft.facts for draft in some]),
            ("thread", "text", [draft.thread for draft in some]),
            ("to_channel", "text", [draft.to_channel for draft in some]),
            ("to_address", "text", [draft.to_address for draft in some]),
            ("dedupe_key", "text", [draft.dedupe_key for draft in some]),
        )
        with connection.cursor() as cursor:
            cursor.execute(
                "INSERT INTO notices_notice (recipient_id, kind, about, url, facts, thread, to_channel, to_address, dedupe_key, "  # noqa: S608
                "created_at, is_expanded) SELECT recipient_id, kind, about, url, facts, thread, to_channel, to_address, dedupe_key, "
                f"%s, %s FROM {table.sql} WHERE true ORDER BY n ON CONFLICT (dedupe_key) DO NOTHING",
                [as_written(now), False, *table.params],
            )


def drain(*, now: datetime, places: dict[str, Place] | None = None) -> int:
    """Hand over some of what is due, and return how much was found; 0 says that nothing is, or that nothing may go now.

    Whoever calls it again and again for a while gives the same `places`, by channel, in which it notes how far it has come.

    A moment within the call, the sending date above all, is `now` plus the time since it began. Raises
    RuntimeError inside a transaction: what is sent cannot be rolled back.
    """
    started = time.monotonic()

    def clock() -> datetime:
        return now + timedelta(seconds=time.monotonic() - started)

    with transaction.atomic(durable=True):
        deliveries.recover(now=now)
    found = expand(now=now)
    places = {} if places is None else places
    for channel in CHANNELS.values():
        place = places.setdefault(channel.slug, Place())
        if isinstance(channel, InSite):
            found += _write(channel, place, clock=clock)
        elif not channel.is_by_hand and not channel.missing():
            found += _send(channel, place, clock=clock)
    return found


def _write(channel: InSite, place: Place, *, clock: Clock) -> int:
    """Write what is due into our own tables, all in one transaction: it happens exactly once."""
    said = Said()
    with transaction.atomic(durable=True):
        claimed = deliveries.claim(
            channel=channel.slug, limit=channel.claimed_at_once, now=clock(), place=place
        )
        written = [
            (delivery, words)
            for delivery in deliveries.newest(claimed)
            if (words := words_of(delivery, said, channel, clock=clock))
        ]
        messages = keep_all([words for _, words in written if isinstance(words, Text)])
        ready = [
            (delivery, words if isinstance(words, Message) else messages[words.sha256])
            for delivery, words in written
        ]
        deliveries.record_all(ready, now=clock())
        channel.send_all([_outgoing(delivery, message) for delivery, message in ready], now=clock())
    return len(claimed)


def _send(channel: Channel, place: Place, *, clock: Clock) -> int:
    """Hand what is due, and what the channel's pace allows, to a system that is not ours, one after the other."""
    with transaction.atomic(durable=True):
        claimed, awake = [], []
        allowed = pacing.allowance(channel, most=channel.claimed_at_once, now=clock())
        if allowed:
            claimed = deliveries.claim(channel=channel.slug, limit=allowed, now=clock(), place=place)
            reached = deliveries.still_reached(claimed, now=clock())
            awake = deliveries.wait_for_morning(reached, now=clock()) if channel.rings else reached
        if awake:
            pacing.spend(channel, len(awake), now=clock())
    said, ends = Said(), clock() + TURN
    for number, delivery in enumerate(awake):
        if number and clock() > ends:
            deliveries.release(awake[number:])
            break
        words = words_of(delivery, said, channel, clock=clock)
        if words:
            _send_one(delivery, words, channel=channel, clock=clock)
    return len(claimed)


def words_of(delivery: Claimed, said: Said, channel: Channel, *, clock: Clock) -> Message | Text | None:
    """The words of the first attempt, or new ones, as they go over the wire; None for a delivery that was put off because it has none."""
    if delivery.message_id:
        return Message.objects.get(pk=delivery.message_id)
    try:
        text = write(
            delivery.kind,
            delivery.read_facts(),
            said=said,
            language=delivery.language,
            time_zone=delivery.time_zone,
            form=channel.form,
        )
        sent = channel.fitted(_unsent(delivery, text))
        return Text(text.language, sent.subject, sent.body)
    except Exception as mistake:  # whatever is wrong with one template or fact, the others go out
        logger.exception("Notice %s cannot be written.", delivery.notice_id)
        with transaction.atomic():
            deliveries.put_off(delivery, reason=f"It cannot be written: {mistake!r}", now=clock())
        return None


def _send_one(delivery: Claimed, words: Message | Text, *, channel: Channel, clock: Clock) -> None:
    """Each step in a transaction of its own: a worker that dies leaves on record how far it came."""
    with transaction.atomic(durable=True):
        attempt = deliveries.begin(delivery, message=kept(words), now=clock())
    if attempt is None:
        return
    outcome = _hand_over(_outgoing(delivery, attempt.message), channel=channel, clock=clock)
    with transaction.atomic(durable=True):
        deliveries.record(attempt, outcome, now=clock())
        match outcome:
            case Accepted() | Refused() | Deferred():  # it answered, and knew what to say
                pacing.went_well(channel.slug)
            case Unavailable() | Uncertain():
                pacing.went_wrong(channel.slug, problem=str(outcome), now=clock())


def _hand_over(outgoing: Outgoing, *, channel: Channel, clock: Clock) -> Outcome:
    try:
        return channel.send(outgoing, now=clock())
    except (Unavailable, Refused, Uncertain) as failure:
        return failure
    except Exception as surprise:  # raised before or after the wire? Nobody knows, and the others wait
        logger.exception("Channel %s failed in a way it does not know.", channel.slug)
        return Unavailable(repr(surprise)) if channel.is_repeatable else Uncertain(repr(surprise))


def kept(words: Message | Text) -> Message:
    """The stored message of what `words_of` gives."""
    return words if isinstance(words, Message) else keep(words)


def _outgoing(delivery: Claimed, message: Message) -> Outgoing:
    """What goes out: with what the channel needs beside the address, and with the proof that a link may have."""
    unsent = _unsent(delivery, message)
    details: Mapping[str, Any] = {}
    if delivery.contact_point_id:
        details = ContactPoint.objects.values_list("details", flat=True).get(pk=delivery.contact_point_id)
    url = signed(delivery.url) if unsent.kind.signs_link else delivery.url
    return replace(unsent, message_id=message.pk, details=details, url=url)


def _unsent(delivery: Claimed, words: Text | Message) -> Outgoing:
    return Outgoing(
        delivery_id=delivery.id,
        message_id=0,
        recipient_id=delivery.recipient_id,
        address=delivery.address,
        details={},
        about=delivery.about,
        kind=KINDS[delivery.kind],
        language=words.language,
        subject=words.subject,
        body=words.body,
        url=delivery.url,
        thread=delivery.thread,
    )
