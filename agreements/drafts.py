"""A revision in the making: begun from what applies now, published when it is whole (9.1)."""

from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _

from agreements.models import Document, Draft, DraftText, Text, Version
from agreements.publishing import digest
from agreements.texts import anchors
from evidence.contract_time import contract_date, contract_midnight
from evidence.pdf import unprintable


class NotReady(Exception):
    """The draft cannot be published as it is. `reasons` holds a sentence for each thing to mend."""

    def __init__(self, reasons: list[str]) -> None:
        super().__init__("\n".join(reasons))
        self.reasons = reasons


def begin_draft(*, document: Document, created_by_id: int, now: datetime) -> Draft:
    """Make a draft with the wording of the newest version, in all its languages, to be revised."""
    with transaction.atomic(durable=True):
        newest = _newest(document)
        texts: list[Text] = list(newest.texts.all()) if newest else []
        authoritative = next((text for text in texts if text.is_authoritative), None)
        draft = Draft.objects.create(
            document=document,
            authoritative=authoritative.language if authoritative else settings.LANGUAGE_CODE,
            important=", ".join(authoritative.important) if authoritative else "",
            created_by_id=created_by_id,
            created_at=now,
        )
        DraftText.objects.bulk_create(
            DraftText(
                draft=draft,
                language=text.language,
                title=text.title,
                matters_most="\n".join(text.matters_most),
                body=text.body,
            )
            for text in texts
        )
    return draft


def publish_draft(*, draft_id: int, published_by_id: int, now: datetime) -> Version:
    """Make the draft the next version of its document. Its words can never change again.

    It takes effect now, or at the beginning of its day in Hong Kong. Customers are told by
    `orders.revisions.announce_revisions`. Publishing again answers the version that is there. Raises NotReady.
    """
    with transaction.atomic(durable=True):
        draft = Draft.objects.select_for_update(of=("self",)).select_related("version").get(pk=draft_id)
        if draft.version:
            return draft.version
        newest = _newest(Document(draft.document))
        texts = list(draft.texts.all())
        effective_at = contract_midnight(draft.effective_on) if draft.effective_on else now
        if reasons := _reasons(draft, texts, newest=newest, effective_at=effective_at, now=now):
            raise NotReady(reasons)
        version = Version.objects.create(
            document=draft.document,
            number=newest.number + 1 if newest else 1,
            published_at=now,
            effective_at=effective_at,
            is_retroactive=draft.is_retroactive,
            published_by_id=published_by_id,
        )
        Text.objects.bulk_create(
            Text(
                version=version,
                language=text.language,
                is_authoritative=text.language == draft.authoritative,
                title=text.title.strip(),
                summary=text.summary.strip(),
                important=important_clauses(draft),
                matters_most=[line.strip() for line in text.matters_most.splitlines() if line.strip()],
                retroactive_effect=text.retroactive_effect.strip() if draft.is_retroactive else "",
                body=_one_kind_of_line_end(text.body),
                sha256=digest(_one_kind_of_line_end(text.body)),
            )
            for text in texts
        )
        Draft.objects.filter(pk=draft.pk).update(version=version)
    return version


def important_clauses(draft: Draft) -> list[str]:
    """The numbers of the clauses to be set off, as staff have written them."""
    return [number.strip() for number in draft.important.replace("，", ",").split(",") if number.strip()]


def preview(draft: Draft, text: DraftText) -> Text:
    """The text as it would be published, in no database. Its version has the number it would get."""
    newest = _newest(Document(draft.document))
    version = Version(document=draft.document, number=newest.number + 1 if newest else 1)
    return Text(
        version=version,
        language=text.language,
        title=text.title,
        important=important_clauses(draft),
        matters_most=text.matters_most.splitlines(),
        body=_one_kind_of_line_end(text.body),
    )


def _newest(document: Document) -> Version | None:
    """The version published last. In a transaction its document is locked: nobody else publishes meanwhile."""
    versions = Version.objects.filter(document=document).order_by("-number")
    if transaction.get_connection().in_atomic_block:
        # Whoever waited here for another's publication asks again, and finds it.
        list(versions.select_for_update().values_list("pk"))
    return versions.first()


def _reasons(
    draft: Draft, texts: list[DraftText], *, newest: Version | None, effective_at: datetime, now: datetime
) -> list[str]:
    languages = dict(settings.LANGUAGES)
    before: dict[str, Text] = {text.language: text for text in newest.texts.all()} if newest else {}
    missing = sorted({draft.authoritative, *before} - {text.language for text in texts})
    reasons = [
        _("There is no text in %(language)s.") % {"language": languages.get(language, language)}
        for language in missing
    ]
    if draft.effective_on and draft.effective_on < contract_date(now):
        reasons.append(_("It cannot take effect on a day that is over. Leave the day empty for: at once."))
    if newest and effective_at < newest.effective_at:
        reasons.append(_("It would take effect before the version that it follows."))
    important = important_clauses(draft)
    for text in texts:
        where = languages.get(text.language, text.language)
        if not text.title.strip() or not text.body.strip():
            reasons.append(_("%(language)s: the title or the text is empty.") % {"language": where})
        if newest and not text.summary.strip():
            reasons.append(_("%(language)s: say in the summary what changes.") % {"language": where})
        if draft.is_retroactive and not text.retroactive_effect.strip():
            reasons.append(_("%(language)s: say what changes for earlier orders.") % {"language": where})
        said = f"{text.title}{text.summary}{text.matters_most}{text.retroactive_effect}{text.body}"
        if blank := unprintable(said):
            reasons.append(
                _("%(language)s: our fonts cannot print %(characters)s.")
                % {"language": where, "characters": " ".join(blank)}
            )
        if unknown := [number for number in important if number not in anchors(text.body)]:
            reasons.append(
                _("%(language)s: the text has no clause %(clauses)s, which is marked as important.")
                % {"language": where, "clauses": ", ".join(unknown)}
            )
        if text.language in before and before[text.language].body == _one_kind_of_line_end(text.body):
            reasons.append(_("%(language)s: the text is the one that applies now.") % {"language": where})
    return reasons


def _one_kind_of_line_end(body: str) -> str:
    """A browser sends a text area with carriage returns; the hash is of what was written."""
    return body.replace("\r\n", "\n")
