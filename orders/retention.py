"""What is not kept for ever: the headers and bodies of webhooks, which hold names and addresses of buyers."""

from datetime import datetime

from django.conf import settings
from django.db.models import Exists, OuterRef, Value
from django.db.models.functions import Concat

from orders.models import ReviewItem, ReviewKind, WebhookEvent

# So many are emptied in one statement: nobody waits for long behind it.
CHUNK = 1_000


def empty_webhooks(*, now: datetime) -> int:
    """Take out the headers and the body of what was received longer than WEBHOOK_RETENTION ago, for good.

    What has not been processed is kept until it is, and what names a payment that is not ours until a person has
    looked at it. Return how many were emptied.
    """
    key = Concat(
        Value(f"{ReviewKind.UNKNOWN_REFERENCE}:"), OuterRef("gateway"), Value(":"), OuterRef("dedupe_key")
    )
    to_look_at = ReviewItem.objects.filter(dedupe_key=key, resolved_at=None)
    old = WebhookEvent.objects.filter(
        ~Exists(to_look_at),
        emptied_at=None,
        processed_at__isnull=False,
        received_at__lte=now - settings.WEBHOOK_RETENTION,
    ).order_by("received_at")
    emptied = 0
    while chunk := list(old.values_list("pk", flat=True)[:CHUNK]):
        emptied += WebhookEvent.objects.filter(pk__in=chunk, emptied_at=None).update(
            headers={}, body=b"", emptied_at=now
        )
    return emptied
