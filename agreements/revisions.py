"""What was revised since an order accepted its agreements, and what that means for it (9.1)."""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime

from django.db.models import Q

from agreements.models import Acceptance, Manner, Subject, Text, Version
from agreements.texts import best_text


@dataclass(frozen=True, slots=True)
class Revision:
    """A later version of a document that an order accepted as `accepted`.

    `deemed` is its customer's acceptance by continued use, if there is one.
    """

    text: Text
    accepted: Version
    deemed: Acceptance | None

    @property
    def applies(self) -> bool:
        """Whether it applies to the order although the order is older."""
        return self.text.version.is_retroactive


def revisions_since(
    acceptances: Iterable[Acceptance], *, customer_id: int, language: str, now: datetime
) -> list[Revision]:
    """The versions published since the express `acceptances` of one order of a customer, oldest first.

    The acceptances need `text__version` loaded. Three queries, or none when the order accepted nothing.
    """
    accepted = {
        acceptance.text.version.document: acceptance.text.version
        for acceptance in acceptances
        if acceptance.subject == Subject.AGREEMENT and acceptance.manner == Manner.EXPRESS
    }
    if not accepted:
        return []
    later = Q()
    for version in accepted.values():
        later |= Q(document=version.document, number__gt=version.number)
    found = Version.objects.filter(later, published_at__lte=now).order_by("published_at", "pk")
    deemed = {
        acceptance.text_id: acceptance
        for acceptance in Acceptance.objects.filter(customer_id=customer_id, manner=Manner.DEEMED)
    }
    revisions = []
    for version in found.prefetch_related("texts"):
        text = best_text(version.texts.all(), language=language)
        if text is None:
            continue
        text.version = version
        by_use = next((deemed[each.pk] for each in version.texts.all() if each.pk in deemed), None)
        revisions.append(Revision(text, accepted[version.document], by_use))
    return revisions
