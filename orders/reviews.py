"""Review items: what did not fit, until a person has dealt with it."""

import logging
from datetime import datetime

from django.db import transaction
from django.db.models import QuerySet
from django.utils.translation import gettext as _

from orders.models import LedgerEntry, Order, ReviewItem, ReviewKind

logger = logging.getLogger(__name__)


class AlreadyResolved(Exception):
    """Somebody else resolved the item first."""


def open_review_item(
    *,
    kind: ReviewKind,
    key: str,
    order: Order | None,
    detail: str,
    now: datetime,
    entry: LedgerEntry | None = None,
) -> ReviewItem:
    """Open an item, once for its kind and key. Runs in the transaction of what it is about."""
    item, is_new = ReviewItem.objects.get_or_create(
        dedupe_key=f"{kind}:{key}"[:160],
        defaults={"kind": kind, "order": order, "entry": entry, "detail": detail, "opened_at": now},
    )
    if is_new:
        logger.error("For review (%s): %s", kind, detail)
    return item


def resolve_review_item(*, item_id: int, resolution: str, resolved_by_id: int, now: datetime) -> ReviewItem:
    """Note what was done about an item, once. Raises ValueError without a note, AlreadyResolved."""
    if not resolution.strip():
        raise ValueError(_("Say what was done."))
    with transaction.atomic(durable=True):
        if not settle(
            ReviewItem.objects.filter(pk=item_id), resolution, resolved_by_id=resolved_by_id, now=now
        ):
            raise AlreadyResolved(_("Somebody has resolved this item already."))
    return ReviewItem.objects.get(pk=item_id)


def settle(items: QuerySet[ReviewItem], resolution: str, *, resolved_by_id: int, now: datetime) -> int:
    """Note what was done about those of the items that are open, in the transaction in which it is done."""
    return items.filter(resolved_at=None).update(
        resolved_at=now, resolved_by_id=resolved_by_id, resolution=resolution.strip()
    )
