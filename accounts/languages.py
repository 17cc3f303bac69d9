"""The language a customer reads."""

from django.conf import settings
from django.db import transaction

from accounts.models import User


def keep_language(*, user_id: int, language: str) -> None:
    """Write to the customer in `language` from now on. A language the site does not speak changes nothing."""
    if language in dict(settings.LANGUAGES):
        with transaction.atomic(durable=True):
            User.objects.filter(pk=user_id).update(language=language)
