"""The fairness ledgers of the mass of orders, as the shop would have written and sealed them."""

from collections import Counter
from collections.abc import Mapping
from datetime import datetime
from typing import Any

from django.db import transaction

from orders.models import Allocation, OrderLine, QueueEvent, QueueEventKind
from orders.queue import fairness
from vmos_presale.demo.catalogue import CUSTOMERS_DOMAIN
from vmos_presale.demo.history import REPORTED_AFTER

MASS = f"@{CUSTOMERS_DOMAIN}"


def write(*, until: datetime) -> None:
    """Write what happened to the mass until then and is not written yet, and seal all there is.

    A ledger is written in the order in which things happen: so does the demo customer's part of it come between.
    """
    with transaction.atomic(durable=True):
        lines = OrderLine.objects.filter(
            order__customer__email__endswith=MASS, paid_at__isnull=False
        ).in_bulk()
        # (Picked out here: the database knows nothing of tables that were filled a moment ago, and may join them by loops.)
        written = QueueEvent.objects.values_list("line_id", "at")
        since = max((at for line_id, at in written if line_id in lines), default=None)
        events = sorted(
            (event for event in _events(lines) if (since is None or event.at > since) and event.at <= until),
            key=lambda event: (event.at, event.paid_at, event.line_id),
        )
        heads = fairness.heads_of({event.plan_id for event in events})
        known = Counter({plan_id: head.number for plan_id, head in heads.items()})
        for event in events:
            if event.kind == QueueEventKind.ALLOCATED:
                event.seen = known[event.plan_id]
            known[event.plan_id] += 1
        QueueEvent.objects.bulk_create(events, batch_size=1000)
    for plan_id in fairness.plans_to_seal():
        fairness.seal_events(plan_id=plan_id)


def _events(lines: Mapping[int, OrderLine]) -> list[QueueEvent]:
    """All that ever happened to the lines of the mass: they were paid for, and got their phones."""
    units = Counter(Allocation.objects.values_list("line_id", "starts_at"))
    joined = [
        _event(line, QueueEventKind.JOINED, line.quantity, at=line.paid_at + REPORTED_AFTER)
        for line in lines.values()
        if line.paid_at
    ]
    allocated = [
        _event(lines[line_id], QueueEventKind.ALLOCATED, count, at=at)
        for (line_id, at), count in units.items()
        if line_id in lines
    ]
    return joined + allocated


def _event(line: OrderLine, kind: QueueEventKind, units: int, *, at: datetime) -> QueueEvent:
    rank: dict[str, Any] = {"plan_id": line.plan_id, "line": line, "paid_at": line.paid_at}
    return QueueEvent(**rank, kind=kind, units=units, at=at)
