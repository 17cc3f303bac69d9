"""Regular mail: staff print what is due, post it, and say so. The day of posting is the sending date (VIII)."""

import hashlib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time

from django.conf import settings
from django.db import transaction
from django.utils import translation
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from accounts.countries import country_name
from evidence.contract_time import contract_date, contract_zone
from evidence.pdf import typeset, unprintable
from notices import deliveries
from notices.channels.letter import Letter as LetterChannel
from notices.channels.protocol import Accepted, Refused, Report
from notices.deliveries import Attempt, Claimed
from notices.models import ContactPoint, Delivery, DeliveryState, Letter, LetterBatch, Message
from notices.outbox import kept, words_of
from notices.wordings import Said

# Letters in one PDF: as many as one person folds in an hour.
MOST = 200


class NothingToPrint(Exception):
    """No letter is due, or none that is can be printed."""


class NotPosted(Exception):
    """A batch cannot be marked as posted so; the message tells staff why."""


@dataclass(frozen=True, slots=True)
class Sheet:
    """What one letter says, as `templates/pdf/letter.typ` sets it; all of it in the recipient's language."""

    language: str
    sender: str
    address: Sequence[str]
    place_and_day: str
    subject: str
    body: Sequence[str]
    reference: str
    closing: Sequence[str]


def print_batch(*, by_id: int, now: datetime) -> LetterBatch:
    """Set the letters that are due in one PDF and keep it; they are not sent before `mark_posted`.

    A letter that has characters no font of ours can print, or no postal address, is refused, and reported to staff
    as any delivery that cannot be made. Raises NothingToPrint.
    """
    channel, said = LetterChannel(), Said()
    with transaction.atomic(durable=True):
        attempts: list[tuple[Attempt, Sheet]] = []
        for delivery in deliveries.claim(channel=channel.slug, limit=MOST, now=now):
            words = words_of(delivery, said, channel, clock=lambda: now)
            attempt = deliveries.begin(delivery, message=kept(words), now=now) if words else None
            if attempt is None:
                continue
            try:
                attempts.append((attempt, _sheet(delivery, attempt.message, now=now)))
            except Refused as refused:
                deliveries.record(attempt, refused, now=now)
        # It lies on a desk until it is posted: nobody may take that for silence.
        ids = [attempt.delivery_id for attempt, _sheet in attempts]
        Delivery.objects.filter(pk__in=ids).update(lease_until=None)
        batch = _kept([sheet for _attempt, sheet in attempts], by_id=by_id, now=now) if attempts else None
        if batch:
            Letter.objects.bulk_create(
                Letter(delivery_id=attempt.delivery_id, batch=batch, attempt=attempt.number)
                for attempt, _sheet in attempts
            )
    if batch is None:
        raise NothingToPrint(_("No letter is due that could be printed."))
    return batch


def mark_posted(*, batch_id: int, posted_on: date, receipt: str, by_id: int, now: datetime) -> LetterBatch:
    """Say that the letters of a batch were posted on a day, a contract date. Raises NotPosted."""
    with transaction.atomic(durable=True):
        batch: LetterBatch = LetterBatch.objects.select_for_update().get(pk=batch_id)
        if batch.posted_on:
            raise NotPosted(_("It was posted on %(day)s already.") % {"day": date_format(batch.posted_on)})
        if not contract_date(batch.printed_at) <= posted_on <= contract_date(now):
            raise NotPosted(_("A batch is posted between the day it was printed and today."))
        LetterBatch.objects.filter(pk=batch.pk).update(
            posted_on=posted_on, posted_by=by_id, receipt=receipt[:100]
        )
        # In the middle of an earlier day: nobody noted the hour. But nothing is sent before it is printed.
        noon = datetime.combine(posted_on, time(12), tzinfo=contract_zone())
        sent_at = now if posted_on == contract_date(now) else max(noon, batch.printed_at)
        for letter in batch.letters.select_related("delivery__message"):
            delivery = letter.delivery
            if delivery.message:
                attempt = Attempt(delivery.pk, letter.attempt, delivery.address, delivery.message)
                deliveries.record(attempt, Accepted(receipt[:100]), now=sent_at)
    batch.refresh_from_db()
    return batch


def mark_returned(*, delivery_id: int, reason: str, now: datetime) -> bool:
    """Say that a posted letter came back: its address is given up. False if it was not posted."""
    if not Delivery.objects.filter(
        pk=delivery_id, channel=LetterChannel.slug, state=DeliveryState.SENT
    ).exists():
        return False
    told = Report(f"delivery-{delivery_id}", has_arrived=False, detail=reason)
    return deliveries.report(channel=LetterChannel.slug, told=told, now=now)


def _sheet(delivery: Claimed, message: Message, *, now: datetime) -> Sheet:
    """Raises Refused for what cannot be printed, or has nowhere to go."""
    point = ContactPoint.objects.filter(deliveries=delivery.id).first()
    if point is None:
        raise Refused("It has no postal address.")
    with translation.override(message.language):
        sheet = Sheet(
            language=message.language,
            sender=" · ".join([settings.SELLER_NAME, *settings.SELLER_ADDRESS.splitlines()]),
            address=[
                str(point.details["name"]),
                *point.details["lines"],
                # The post of the country of sending reads it.
                country_name(str(point.details["country"]), "en").upper(),
            ],
            place_and_day=date_format(contract_date(now)),
            subject=message.subject,
            body=[paragraph for paragraph in message.body.split("\n\n") if paragraph],
            reference=_("Reference: %(reference)s") % {"reference": f"delivery-{delivery.id}"},
            closing=[
                _("This notice is sent under clause VIII of the Pre-payment Purchase Agreement."),
                settings.SITE_URL,
            ],
        )
    if odd := unprintable("".join((sheet.subject, *sheet.body, *sheet.address))):
        raise Refused(f"No font of ours can print: {odd}")
    return sheet


def _kept(sheets: Iterable[Sheet], *, by_id: int, now: datetime) -> LetterBatch:
    pdf = typeset("letter", {"letters": list(sheets)}, dated=now)
    batch: LetterBatch = LetterBatch.objects.create(
        pdf=pdf, sha256=hashlib.sha256(pdf).hexdigest(), printed_at=now, printed_by_id=by_id
    )
    return batch
