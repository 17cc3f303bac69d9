"""Whom a revision of an agreement concerns, and telling them (9.1)."""

from datetime import datetime

from django.db import transaction
from django.db.models import Exists, OuterRef, QuerySet

from accounts.models import User
from agreements.models import Text, Version
from agreements.texts import best_text
from evidence.contract_time import contract_date
from notices import kinds
from notices.announcements import announce
from notices.kinds import JSONValue
from notices.outbox import Draft, tell
from orders.models import Allocation, LineState, Order, OrderLine, OrderState

# Customers told in one transaction.
CHUNK = 1_000


def announce_revisions(*, now: datetime) -> int:
    """Tell every customer with an open order or a live service of each revision published since the last run.

    Returns how many notices were written. A run that dies in the middle is taken up by the next one: nobody is
    told twice of a version. A first version revises nothing.
    """
    told = 0
    for version in Version.objects.revisions(now).filter(announced_at=None).order_by("published_at", "pk"):
        told += _announce(version, now=now)
        Version.objects.filter(pk=version.pk, announced_at=None).update(announced_at=now)
    return told


def announce_to(customer: User, *, now: datetime) -> None:
    """Tell a customer who orders of the revisions that do not apply yet, in the transaction of the order.

    They were announced to others before he was one of those whom they concern.
    """
    scheduled = Version.objects.revisions(now).filter(effective_at__gt=now)
    letters = [_letter(version, list(version.texts.all()), customer) for version in scheduled]
    if letters:
        tell(letters, now=now)


def concerned(*, now: datetime) -> QuerySet[User]:
    """Customers with an order that may still be paid, units that wait, or a service period that runs."""
    mine = OuterRef("pk")
    unpaid = Order.objects.filter(customer=mine, state__in=OrderState.open())
    waiting = OrderLine.objects.filter(order__customer=mine, state=LineState.WAITING)
    live = Allocation.objects.filter(line__order__customer=mine, ended_at=None, ends_at__gt=now)
    return User.objects.filter(Exists(unpaid) | Exists(waiting) | Exists(live))


def _announce(version: Version, *, now: datetime) -> int:
    texts = list(version.texts.all())
    announce(
        kind=kinds.AGREEMENT_REVISED,
        facts=lambda language: _facts(version, texts, language),
        key=f"{kinds.AGREEMENT_REVISED.slug}:{version.pk}",
        now=now,
        url=version.get_absolute_url(),
    )
    told, last = 0, 0
    while True:
        with transaction.atomic(durable=True):
            customers = list(concerned(now=now).filter(pk__gt=last).order_by("pk")[:CHUNK])
            tell([_letter(version, texts, customer) for customer in customers], now=now)
        told += len(customers)
        if len(customers) < CHUNK:
            return told
        last = customers[-1].pk


def _letter(version: Version, texts: list[Text], customer: User) -> Draft:
    return Draft(
        recipient_id=customer.pk,
        kind=kinds.AGREEMENT_REVISED,
        about=f"{version.document}-{version.number}",
        url=version.get_absolute_url(),
        facts=_facts(version, texts, customer.language),
        dedupe_key=f"{kinds.AGREEMENT_REVISED.slug}:{version.pk}:{customer.pk}",
    )


def _facts(version: Version, texts: list[Text], language: str) -> dict[str, JSONValue]:
    text = best_text(texts, language=language)
    if text is None:
        raise ValueError(f"{version} has no text.")
    return {
        "title": text.title,
        "number": version.number,
        "summary": text.summary,
        "effective_on": contract_date(version.effective_at).isoformat(),
        "questions_until": version.last_day_of_questions.isoformat(),
        "retroactive_effect": text.retroactive_effect,
    }
