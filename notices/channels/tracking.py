"""What providers of mail report of what they have taken: Anymail reads all their ways of saying it.

Their webhooks come in below `callbacks/email/`, proved as Anymail and the provider have it (its documents say which of
ANYMAIL's settings that is). Many are sent again and again; what is known already changes nothing.
"""

import logging
from typing import Any

from anymail.signals import AnymailTrackingEvent, EventType, tracking
from django.dispatch import receiver
from django.utils import timezone

from notices import deliveries
from notices.channels.email import Email
from notices.channels.protocol import Report
from notices.kinds import KINDS
from notices.models import Delivery
from notices.preferences import choose

logger = logging.getLogger(__name__)

ARRIVED = frozenset({EventType.DELIVERED})
RETURNED = frozenset({EventType.BOUNCED, EventType.REJECTED, EventType.FAILED})
UNWANTED = frozenset({EventType.COMPLAINED, EventType.UNSUBSCRIBED})


@receiver(tracking, dispatch_uid="notices.channels.tracking")
def mail_reported(event: AnymailTrackingEvent, esp_name: str, **_: Any) -> None:
    """Put on record what became of a mail; who says that he does not want it gets no more of what is optional."""
    if not event.message_id:
        logger.warning("%s reports %s of a mail that it does not name.", esp_name, event.event_type)
        return
    now = timezone.now()
    if event.event_type in UNWANTED:
        _switch_off(event.message_id)
    elif event.event_type in ARRIVED | RETURNED:
        detail = event.mta_response or event.description or event.reject_reason or ""
        told = Report(event.message_id, event.event_type in ARRIVED, detail)
        if not deliveries.report(channel=Email.slug, told=told, now=now):
            logger.warning("%s reports a mail that we do not know: %s", esp_name, event.message_id)


def _switch_off(message_id: str) -> None:
    delivery = (
        Delivery.objects.filter(channel=Email.slug, provider_reference=message_id)
        .select_related("notice")
        .first()
    )
    kind = KINDS.get(delivery.notice.kind) if delivery else None
    if delivery and kind and not kind.contractual:
        choose(
            customer_id=delivery.notice.recipient_id,
            wanted={(kind.slug, Email.slug): False},
            now=timezone.now(),
        )
