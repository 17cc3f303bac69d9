"""What proves a customer's place: his entries in the public ledger, and how to check them."""

from collections.abc import Sequence
from datetime import UTC, datetime

from django.conf import settings
from django.urls import reverse

from inventory.models import Plan
from orders.models import Order, OrderLine, QueueEvent
from orders.queue.fairness import NOTHING_SEALED, Head, entry_text, heads_of


def ledger_entries(line_ids: Sequence[int]) -> dict[int, list[QueueEvent]]:
    """What the ledgers say of each line, in the order in which it happened; what is not sealed yet has no number."""
    entries: dict[int, list[QueueEvent]] = {line_id: [] for line_id in line_ids}
    for event in QueueEvent.objects.filter(line_id__in=line_ids).order_by("pk"):
        entries[event.line_id].append(event)
    return entries


def receipt_of(order: Order, *, now: datetime) -> dict[str, object]:
    """The receipt as it is downloaded: for every paid line its entries, the head of the ledger now, and how to check.

    `in_ledger` is the line of the downloaded ledger, to the letter: its seal, and what was sealed.
    """
    lines = list(order.lines.filter(paid_at__isnull=False).select_related("plan"))
    entries = ledger_entries([line.pk for line in lines])
    heads = heads_of({line.plan_id for line in lines})
    return {
        "order": order.reference,
        "made_at": _iso(now),
        "lines": [
            _line_as_json(line, entries[line.pk], heads.get(line.plan_id, NOTHING_SEALED)) for line in lines
        ],
    }


def commands(plan: Plan, *, seals: Sequence[str]) -> list[str]:
    """What to type to fetch the ledger of a plan, and to check that it is in order and holds these seals."""
    site, file = settings.SITE_URL, f"ledger-{plan.slug}.txt"
    script, ledger = reverse("orders:queue-script"), reverse("orders:queue-ledger", args=[plan.slug])
    return [
        f"curl -sO {site}{script} -o {file} {site}{ledger}",
        " ".join(["python3 verify_queue_ledger.py", file, *seals]),
    ]


def _line_as_json(line: OrderLine, entries: Sequence[QueueEvent], head: Head) -> dict[str, object]:
    return {
        "line": line.pk,
        "plan": line.plan.slug,
        "units": line.quantity,
        "paid_at": _iso(line.paid_at) if line.paid_at else None,
        "entries": [
            {
                "number": event.number,
                "what": event.kind,
                "units": event.units,
                "at": _iso(event.at),
                "seal": event.sha256,
                "in_ledger": f"{event.sha256} {entry_text(event)}" if event.sha256 else None,
            }
            for event in entries
        ],
        "all_sealed": all(event.sha256 for event in entries),
        "ledger_now": {"entries": head.number, "head_sha256": head.sha256},
        "how_to_check": commands(line.plan, seals=[event.sha256 for event in entries if event.sha256]),
    }


def _iso(moment: datetime) -> str:
    return moment.astimezone(UTC).isoformat()
