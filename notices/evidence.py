"""What one customer was told, by which way and when: for himself, and for staff who are asked to prove it."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import date, datetime

from django.db.models import Prefetch, Q, QuerySet

from evidence.contract_time import contract_date
from notices.kinds import KINDS
from notices.models import Delivery, DeliveryEvent, DeliveryState, DeliveryStep

COLUMNS = (
    "number",
    "kind",
    "clause",
    "about",
    "channel",
    "address",
    "language",
    "subject",
    "text",
    "sha256",
    "state",
    "begun_at",
    "sent_again_at",
    "sent_at",
    "deemed_delivered_on",
    "received_at",
    "returned_at",
    "provider_reference",
)


@dataclass(frozen=True, slots=True)
class Proof:
    """One delivery as it is on record. `begun_at` is when its last attempt began, `sent_at` when it was taken.

    `sent_again_at` is when it was sent once more although the attempt before may have arrived: it may have come twice.

    It is deemed delivered on the sending date (VIII), in the contract's time zone, whether or not it was received.
    """

    delivery: Delivery
    begun_at: datetime | None
    sent_again_at: datetime | None
    received_at: datetime | None
    returned_at: datetime | None

    @property
    def deemed_delivered_on(self) -> date | None:
        return contract_date(self.delivery.sent_at) if self.delivery.sent_at else None

    def as_row(self) -> Mapping[str, str]:
        """All of it as text, by the names in COLUMNS; times in UTC, empty for what has not happened."""
        delivery, message = self.delivery, self.delivery.message
        kind = KINDS.get(delivery.notice.kind)
        return {
            "number": str(delivery.pk),
            "kind": delivery.notice.kind,
            "clause": kind.clause if kind else "",
            "about": delivery.notice.about,
            "channel": delivery.channel,
            "address": delivery.address,
            "language": message.language if message else "",
            "subject": message.subject if message else "",
            "text": message.body if message else "",
            "sha256": message.sha256 if message else "",
            "state": delivery.state,
            "begun_at": _written(self.begun_at),
            "sent_again_at": _written(self.sent_again_at),
            "sent_at": _written(delivery.sent_at),
            "deemed_delivered_on": _written(self.deemed_delivered_on),
            "received_at": _written(self.received_at),
            "returned_at": _written(self.returned_at),
            "provider_reference": delivery.provider_reference,
        }


def deliveries_to(customer_id: int, *, about: str = "") -> QuerySet[Delivery]:
    """Everything sent or to be sent to a customer, newest first; of one subject if `about` is given.

    What went to somebody else's address in his matter (his guardian's) is among it.
    """
    never_begun = Q(state=DeliveryState.SUPERSEDED, message=None)
    found = Delivery.objects.filter(notice__recipient=customer_id).exclude(never_begun)
    if about:
        found = found.filter(notice__about=about)
    return (
        found.select_related("notice", "message")
        .prefetch_related(Prefetch("events", DeliveryEvent.objects.order_by("id")))
        .order_by("-notice_id", "id")
    )


def prove(delivery: Delivery) -> Proof:
    """What is on record of a delivery whose events are loaded."""
    at: dict[str, datetime] = {}
    sent_again_at: datetime | None = None
    may_have_arrived = False
    for event in delivery.events.all():
        at[event.step] = event.at
        if event.step in (DeliveryStep.REPEATED, DeliveryStep.RESENT):
            may_have_arrived = DeliveryStep.UNKNOWN in at
        elif event.step == DeliveryStep.BEGUN and may_have_arrived:
            sent_again_at = event.at
    return Proof(
        delivery,
        begun_at=at.get(DeliveryStep.BEGUN),
        sent_again_at=sent_again_at,
        received_at=at.get(DeliveryStep.RECEIVED),
        returned_at=at.get(DeliveryStep.RETURNED),
    )


def proofs(customer_id: int, *, about: str = "") -> Iterator[Proof]:
    """All of them, a few hundred at a time."""
    for delivery in deliveries_to(customer_id, about=about).iterator(chunk_size=500):
        yield prove(delivery)


def _written(moment: date | datetime | None) -> str:
    return moment.isoformat() if moment else ""
