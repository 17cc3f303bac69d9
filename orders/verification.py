"""What can be checked about orders (see `evidence.verification`), and telling staff what was found."""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Count, Exists, OuterRef, Q

from agreements.models import Acceptance, Document, Role, Subject
from evidence.verification import checks, verify_evidence
from orders.models import GuardianAnswer, GuardianRequest, Order, ReviewKind
from orders.reviews import open_review_item


def report_broken_evidence(*, now: datetime) -> int:
    """Run every check and put each thing that is wrong before staff, once. Returns how many there are."""
    wrong = [sentence for found in verify_evidence().findings.values() for sentence in found]
    for sentence in wrong:
        open_review_item(kind=ReviewKind.EVIDENCE_BROKEN, key=sentence, order=None, detail=sentence, now=now)
    return len(wrong)


@checks("orders without consent")
def unaccepted_orders() -> Iterator[str]:
    """An order that lacks an acceptance it cannot have been placed without (3.3, preamble)."""
    mine = Acceptance.objects.filter(order_reference=OuterRef("reference"), role=Role.BUYER)
    agreed = mine.filter(subject=Subject.AGREEMENT)
    complete = Q(Exists(mine.filter(subject=Subject.NO_REFUND)))
    for document in Document:
        complete &= Q(Exists(agreed.filter(text__version__document=document)))
    for order in Order.objects.exclude(complete).order_by("pk").iterator(500):
        yield f"Order {order.reference} lacks its buyer's acceptances."


@checks("guardians")
def unconfirmed_minors() -> Iterator[str]:
    """A guardian's confirmation without the acceptances that it consists of."""
    confirmed = GuardianRequest.objects.filter(answer=GuardianAnswer.CONFIRMED)
    for request in confirmed.select_related("order").order_by("pk").iterator(500):
        accepted = Acceptance.objects.filter(
            order_reference=request.order.reference, role=Role.GUARDIAN, subject=Subject.AGREEMENT
        ).aggregate(texts=Count("text__version__document", distinct=True))
        if accepted["texts"] != len(Document):
            yield f"Order {request.order.reference} lacks the acceptances of the guardian who confirmed it."
