"""Web announcements: what is told to everybody on the site. The day of publication is the sending date (VIII)."""

import hashlib
import json
import re
from collections.abc import Callable, Mapping
from datetime import datetime

from django.conf import settings
from django.db.models import QuerySet

from notices.kinds import Kind
from notices.models import Announcement
from notices.rendering import write
from notices.wordings import Said

LANGUAGES = tuple(code for code, _ in settings.LANGUAGES)
TITLE_LIMIT = 200
# Nobody sees them, and a feed that has one is no XML.
CONTROL_CHARACTERS = re.compile(r"[\x00-\x08\x0e-\x1f\x7f]")


class Incomplete(Exception):
    """An announcement lacks a title or a text in a language of the site."""


def publish(
    *,
    kind: Kind,
    texts: Mapping[str, Mapping[str, str]],
    key: str,
    now: datetime,
    url: str = "",
    banner_until: datetime | None = None,
    by_id: int | None = None,
    approved_by_id: int | None = None,
) -> Announcement | None:
    """Publish in all languages of the site; None if something was published under this key before.

    `texts` maps a language to its `title` and `body`. What staff have written goes on the site by `broadcasts`, with a second
    person's word; the shop itself announces what its templates say. Call it in the transaction of what is announced. Raises
    Incomplete.
    """
    kept = completed(texts)
    announcement, is_new = Announcement.objects.get_or_create(
        dedupe_key=key,
        defaults={
            "kind": kind.slug,
            "texts": kept,
            "sha256": seal_of(kept),
            "url": url,
            "published_at": now,
            "published_by_id": by_id,
            "approved_by_id": approved_by_id,
            "banner_until": banner_until,
        },
    )
    return announcement if is_new else None


def announce(
    *,
    kind: Kind,
    facts: Callable[[str], Mapping[str, object]],
    key: str,
    now: datetime,
    url: str = "",
    banner_until: datetime | None = None,
) -> Announcement | None:
    """Publish what a kind's templates say about `facts(language)`; see `publish`."""
    said, texts = Said(), {}
    for language in LANGUAGES:
        text = write(kind.slug, facts(language), said=said, language=language)
        texts[language] = {"title": text.subject, "body": text.body}
    return publish(kind=kind, texts=texts, key=key, now=now, url=url, banner_until=banner_until)


def withdraw(*, announcement_id: int, now: datetime) -> bool:
    """Take an announcement off the site; it stays on record. False if it was off already."""
    visible = Announcement.objects.filter(pk=announcement_id, withdrawn_at=None)
    return bool(visible.update(withdrawn_at=now, banner_until=None))


def on_the_site() -> QuerySet[Announcement]:
    """What is published now, newest first."""
    return Announcement.objects.filter(withdrawn_at=None).order_by("-pk")


def banner(*, seen: int, now: datetime) -> Announcement | None:
    """The newest announcement for the top of the pages that a visitor has not closed: `seen` is the last that he has."""
    return on_the_site().filter(banner_until__gt=now, pk__gt=seen).first()


def completed(texts: Mapping[str, Mapping[str, str]]) -> dict[str, dict[str, str]]:
    """The texts in every language of the site, tidied. Raises Incomplete."""
    return {language: _text(language, texts.get(language, {})) for language in LANGUAGES}


def seal_of(texts: Mapping[str, Mapping[str, str]]) -> str:
    """The sha256 of all its words, as canonical JSON."""
    written = json.dumps(texts, ensure_ascii=False, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(written.encode()).hexdigest()


def _text(language: str, said: Mapping[str, str]) -> dict[str, str]:
    title = " ".join(CONTROL_CHARACTERS.sub("", said.get("title", "")).split())
    body = "\n".join(CONTROL_CHARACTERS.sub("", said.get("body", "")).splitlines()).strip()
    if not title or not body or len(title) > TITLE_LIMIT:
        raise Incomplete(f"It has no title of at most {TITLE_LIMIT} characters and no text in {language}.")
    return {"title": title, "body": body}
