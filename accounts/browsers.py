"""The browsers with which people log in: one that is new to somebody may be another's."""

import hashlib
from datetime import datetime

from django.db import transaction

from accounts.models import KnownBrowser


def remember(*, user_id: int, token: str, label: str, now: datetime) -> bool:
    """Remember a login; return whether the user is known by other browsers only. `token` is the secret in its cookie."""
    with transaction.atomic():
        is_known_by_others = KnownBrowser.objects.filter(user=user_id).exists()
        browser, is_new = KnownBrowser.objects.get_or_create(
            user_id=user_id,
            token_sha256=hashlib.sha256(token.encode()).hexdigest(),
            defaults={"label": label[:100], "first_at": now, "last_at": now},
        )
        if not is_new:
            KnownBrowser.objects.filter(pk=browser.pk).update(last_at=now, label=label[:100])
    return is_new and is_known_by_others
