"""Service periods that end (5.1): the customer hears of it before, and when it has happened."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta

from django.conf import settings
from django.db import transaction
from django.db.models import Count

from notices.kinds import EXPIRED, EXPIRING, Kind
from notices.models import Notice
from notices.outbox import Draft, tell
from orders.models import Allocation, OrderLine
from orders.telling import about_order

# After so long nobody is told any more that a period has ended: we were down, and he has noticed.
TOLD_UNTIL = timedelta(days=3)
# Lines told of in one transaction.
CHUNK = 1_000


def tell_of_ends(*, now: datetime) -> int:
    """Tell of the service periods that end within EXPIRY_NOTICE, and of those that have ended; return how many notices.

    Phones of a line that end at one moment are told of in one notice, once.
    """
    soon = _periods(now, now + settings.EXPIRY_NOTICE)
    over = _periods(now - TOLD_UNTIL, now)
    return _tell(EXPIRING, soon, now=now) + _tell(EXPIRED, over, now=now)


@dataclass(frozen=True, slots=True)
class _Period:
    """Phones of a line whose service ends at one moment."""

    line_id: int
    ends_at: datetime
    phones: int


def _periods(after: datetime, until: datetime) -> Iterator[_Period]:
    """What ends `after` that moment and at the latest at the other."""
    ending = Allocation.objects.filter(ended_at=None, ends_at__gt=after, ends_at__lte=until)
    counted = ending.values_list("line_id", "ends_at").annotate(phones=Count("pk"))
    for line_id, ends_at, phones in counted.order_by("ends_at", "line_id").iterator():
        yield _Period(line_id, ends_at, phones)


def _tell(kind: Kind, periods: Iterator[_Period], *, now: datetime) -> int:
    told = 0
    while some := list(itertools.islice(periods, CHUNK)):
        keyed = {f"{kind.slug}:{each.line_id}:{each.ends_at:%Y%m%d%H%M%S}": each for each in some}
        known = set(Notice.objects.filter(dedupe_key__in=keyed).values_list("dedupe_key", flat=True))
        new = {key: each for key, each in keyed.items() if key not in known}
        lines = OrderLine.objects.select_related("order", "plan").in_bulk(
            [each.line_id for each in new.values()]
        )
        with transaction.atomic(durable=True):
            tell([_draft(kind, key, each, lines[each.line_id]) for key, each in new.items()], now=now)
        told += len(new)
    return told


def _draft(kind: Kind, key: str, period: _Period, line: OrderLine) -> Draft:
    return about_order(
        line.order,
        kind,
        {"plan": str(line.plan), "phones": period.phones, "ends_at": period.ends_at.isoformat()},
        key=key,
    )
