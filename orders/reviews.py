"""Review items: what did not fit, until a person has dealt with it."""

import logging
from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext as _

from orders.models import Order, ReviewItem, ReviewKind

logger = logging.getLogger(__name__)


class AlreadyResolved(Exception):
    """Somebody else resolved the item first."""


def open_review_item(
    *, kind: ReviewKind, key: str, order: Order | None, detail: str, now: datetime
) -> ReviewItem:
    """Open an item, once for its kind and key. Runs in the transaction of what it is about."""
    item, is_new = ReviewItem.objects.get_or_create(
        dedupe_key=f"{kind}:{key}"[:160],
        defaults={"kind": kind, "order": order, "detail": detail, "opened_at": now},
    )
    if is_new:
        logger.error("For review (%s): %s", kind, detail)
    return item


def resolve_review_item(*, item_id: int, resolution: str, resolved_by_id: int, now: datetime) -> ReviewItem:
    """Note what was done about an item, once. Raises ValueError without a note, AlreadyResolved."""
    if not resolution.strip():
        raise ValueError(_("Say what was done."))
    with transaction.atomic(durable=True):
        item = ReviewItem.objects.select_for_update(no_key=True).get(pk=item_id)
        if item.resolved_at is not None:
            raise AlreadyResolved(_("Somebody has resolved this item already."))
        ReviewItem.objects.filter(pk=item.pk).update(
            resolved_at=now, resolved_by_id=resolved_by_id, resolution=resolution.strip()
        )
        item.refresh_from_db()
    return item
