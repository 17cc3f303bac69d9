"""Deemed acceptance: whoever goes on using the service after a revision was published has accepted it (9.1).

It is recorded apart from express acceptances, at a customer's first use after he was told of the revision,
with the page that he used. Reading the agreements, asking about them or opening a case is no use.
"""

from collections.abc import Callable
from datetime import datetime
from functools import wraps
from typing import Any

from django.db import transaction
from django.http import HttpRequest, HttpResponse
from django.utils import timezone, translation
from django.utils.translation import gettext

from accounts.models import User
from agreements.acceptance import CONTROL_LENGTH, USER_AGENT_LENGTH, Witness
from agreements.models import Acceptance, Manner, Role, Subject, Version
from agreements.texts import best_text
from agreements.witness import witness_of
from evidence import chain

View = Callable[..., HttpResponse]

# Keeps the newest announced version whose acceptance is settled for this customer.
SESSION_KEY = "agreements_used"


def counts_as_use(view: View) -> View:
    """Mark a view of the service: opening its page after a revision is continued use (9.1).

    The view stays as it is; whoever is not logged in uses nothing yet.
    """

    @wraps(view)
    def wrapped(request: HttpRequest, *args: Any, **kwargs: Any) -> HttpResponse:
        response = view(request, *args, **kwargs)
        if request.user.is_authenticated and response.status_code < 400:
            _notice_use(request, request.user)
        return response

    return wrapped


def record_continued_use(
    *, customer: User, page: str, language: str, witness: Witness, now: datetime
) -> list[Acceptance]:
    """Record that a customer goes on, for every announced revision of a document he once accepted.

    A version that he has accepted, expressly or so, or one that is older than what he accepted last, is left
    out. Doing it again records nothing. Returns what is new.
    """
    with transaction.atomic(durable=True):
        # Of two pages opened at once the second waits, and finds what the first recorded.
        User.objects.select_for_update(no_key=True).get(pk=customer.pk)
        accepted: dict[str, int] = {}
        for document, number in Acceptance.objects.filter(
            customer=customer, subject=Subject.AGREEMENT, role=Role.BUYER
        ).values_list("text__version__document", "text__version__number"):
            accepted[document] = max(number, accepted.get(document, 0))
        revisions = Version.objects.revisions(now).filter(announced_at__lte=now, document__in=accepted)
        deemed = []
        for version in revisions.order_by("pk").prefetch_related("texts"):
            text = best_text(version.texts.all(), language=language)
            if version.number <= accepted[version.document] or text is None:
                continue
            with translation.override(text.language):
                statement = gettext(
                    "Used the service after version %(number)d of the %(title)s was published, which is deemed "
                    "acceptance (9.1)."
                ) % {"number": version.number, "title": text.title}
            deemed.append(
                Acceptance(
                    customer=customer,
                    manner=Manner.DEEMED,
                    text=text,
                    text_sha256=text.sha256,
                    subject=Subject.AGREEMENT,
                    role=Role.BUYER,
                    person_name=customer.name,
                    person_email=customer.email,
                    statement=statement,
                    control=f"page {page}"[:CONTROL_LENGTH],
                    accepted_at=now,
                    ip_address=witness.ip_address,
                    user_agent=witness.user_agent[:USER_AGENT_LENGTH],
                )
            )
        return chain.append(deemed)


def _notice_use(request: HttpRequest, customer: User) -> None:
    """Ask the database for revisions, and only when there is a new one for what the customer has accepted."""
    now = timezone.now()
    announced = Version.objects.revisions(now).filter(announced_at__lte=now)
    newest = announced.order_by("-announced_at", "-pk").values_list("pk", flat=True).first()
    if newest is None or request.session.get(SESSION_KEY) == newest:
        return
    record_continued_use(
        customer=customer,
        page=f"{request.method} {request.path}",
        language=translation.get_language() or customer.language,
        witness=witness_of(request),
        now=now,
    )
    request.session[SESSION_KEY] = newest
