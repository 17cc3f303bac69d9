"""What every page says of revisions while they are new."""

from datetime import timedelta

from django.conf import settings
from django.http import HttpRequest
from django.utils import timezone, translation
from django.utils.functional import SimpleLazyObject

from agreements.models import Text, Version
from agreements.texts import best_text


def revisions(request: HttpRequest) -> dict[str, object]:
    """`agreement_revisions`: texts of the versions that may be asked about or do not apply yet.

    Asks the database only where a template uses it.
    """
    return {"agreement_revisions": SimpleLazyObject(_new_texts)}


def _new_texts() -> list[Text]:
    now = timezone.now()
    period = timedelta(days=settings.QUESTION_PERIOD_DAYS + 1)
    recent = Version.objects.revisions(now).filter(published_at__gt=now - period)
    coming = Version.objects.revisions(now).filter(effective_at__gt=now)
    found = []
    for version in (recent | coming).prefetch_related("texts"):
        text = best_text(version.texts.all(), language=translation.get_language())
        if text:
            text.version = version
            found.append(text)
    return found
