"""What can be checked about orders (see `evidence.verification`), and telling staff what was found."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

from django.db.models import BigIntegerField, Count, Exists, F, Max, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce

from agreements.models import Acceptance, Role, Subject
from agreements.models import Document as Agreement
from evidence.contract_time import contract_date
from evidence.verification import checks, verify_evidence
from inventory.models import Plan
from inventory.money import Money
from orders.documents import uninvoiced
from orders.models import (
    Document,
    DocumentKind,
    EntryKind,
    Estimate,
    GuardianAnswer,
    GuardianRequest,
    LedgerEntry,
    LineState,
    Order,
    ReviewKind,
    WebhookEvent,
)
from orders.queue import fairness, segments
from orders.reviews import open_review_item


def report_broken_evidence(*, now: datetime) -> int:
    """Run every check and put each thing that is wrong before staff, once. Returns how many there are."""
    wrong = [sentence for found in verify_evidence(now=now).findings.values() for sentence in found]
    for sentence in wrong:
        open_review_item(kind=ReviewKind.EVIDENCE_BROKEN, key=sentence, order=None, detail=sentence, now=now)
    return len(wrong)


@checks("orders without consent")
def unaccepted_orders(_now: datetime) -> Iterator[str]:
    """An order that lacks an acceptance it cannot have been placed without (3.3, preamble)."""
    mine = Acceptance.objects.filter(order_reference=OuterRef("reference"), role=Role.BUYER)
    agreed = mine.filter(subject=Subject.AGREEMENT)
    complete = Q(Exists(mine.filter(subject=Subject.NO_REFUND)))
    for agreement in Agreement:
        complete &= Q(Exists(agreed.filter(text__version__document=agreement)))
    for order in Order.objects.exclude(complete).order_by("pk").iterator(500):
        yield f"Order {order.reference} lacks its buyer's acceptances."


@checks("fairness ledger")
def queues(now: datetime) -> Iterator[str]:
    """Whoever was served out of turn, and whatever the ledger and the tables tell differently (1.1, 3.3)."""
    for plan in Plan.objects.order_by("pk"):
        yield from fairness.faults_of(plan, now=now)


@checks("positions")
def positions(_now: datetime) -> Iterator[str]:
    """Counts of units that are not what waits."""
    yield from segments.wrong_counts()


@checks("promised updates")
def broken_promises(now: datetime) -> Iterator[str]:
    """Who waits, and did not hear by the day by which he was promised to (3.3)."""
    yesterday = contract_date(now) - timedelta(days=1)
    newest = Estimate.objects.filter(line=OuterRef("line")).order_by("-number").values("pk")[:1]
    overdue = Estimate.objects.filter(
        line__state=LineState.WAITING, next_update_by__lt=yesterday, pk=Subquery(newest)
    )
    for estimate in overdue.select_related("line__order").order_by("pk").iterator(500):
        yield f"Order {estimate.line.order.reference} was promised an update by {estimate.next_update_by}."


@checks("guardians")
def unconfirmed_minors(_now: datetime) -> Iterator[str]:
    """A guardian's confirmation without the acceptances that it consists of."""
    confirmed = GuardianRequest.objects.filter(answer=GuardianAnswer.CONFIRMED)
    for request in confirmed.select_related("order").order_by("pk").iterator(500):
        accepted = Acceptance.objects.filter(
            order_reference=request.order.reference, role=Role.GUARDIAN, subject=Subject.AGREEMENT
        ).aggregate(texts=Count("text__version__document", distinct=True))
        if accepted["texts"] != len(Agreement):
            yield f"Order {request.order.reference} lacks the acceptances of the guardian who confirmed it."


@checks("webhooks")
def altered_webhooks(_now: datetime) -> Iterator[str]:
    """Bodies of webhooks that are not what came."""
    for event in WebhookEvent.objects.filter(emptied_at=None).defer("headers").order_by("pk").iterator(500):
        if hashlib.sha256(bytes(event.body)).hexdigest() != event.body_sha256:
            yield f"The body of webhook {event} is not the one that came."


@checks("numbers of documents")
def gaps_in_numbers(_now: datetime) -> Iterator[str]:
    """Invoices and credit notes that are missing between the first and the last of a year."""
    counted = Document.objects.values("kind", "year").annotate(last=Max("serial"), there=Count("pk"))
    for each in counted.order_by("kind", "year"):
        if each["last"] != each["there"]:
            kind = DocumentKind(each["kind"])
            yield f"Of the {each['last']} documents of kind {kind.label} of {each['year']} {each['there']} are there."


@checks("invoices")
def orders_and_their_documents(_now: datetime) -> Iterator[str]:
    """Orders that are paid without an invoice, and money that has left a sale without a credit note."""
    invoices = Document.objects.filter(kind=DocumentKind.INVOICE)
    for order in uninvoiced().order_by("pk").iterator(500):
        yield f"Order {order.reference} is paid and has no invoice."
    moved = LedgerEntry.objects.filter(
        order=OuterRef("order"), currency=OuterRef("currency"), kind__in=EntryKind.of_the_sale()
    )
    credited = Document.objects.filter(corrects=OuterRef("pk"))
    wrong = invoices.annotate(
        credited=_sum(credited.values("corrects")), held=_sum(moved.values("order"))
    ).exclude(credited__lte=F("minor"), held__gte=F("minor") - F("credited"))
    for invoice in wrong.order_by("pk").iterator(500):
        held, credited_money = (
            Money(invoice.held, invoice.currency),
            Money(invoice.credited, invoice.currency),
        )
        yield f"Of invoice {invoice} over {invoice.money} {credited_money} are credited, and {held} of its money is there."


def _sum(rows: "QuerySet[Any, dict[str, Any]]") -> Coalesce:
    """The minor units of `rows`, 0 for none."""
    summed = rows.order_by().annotate(minor_sum=Sum("minor")).values("minor_sum")
    return Coalesce(Subquery(summed, output_field=BigIntegerField()), 0)
