"""Turns the facts of a notice into words: in the recipient's language, at his time of day."""

import hashlib
import logging
import re
import zoneinfo
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from django.conf import settings
from django.db import connection
from django.template import Context, Engine, TemplateDoesNotExist
from django.utils import timezone, translation

from evidence.setwise import given
from notices.kinds import Form
from notices.models import Message, Notice
from notices.wordings import SUBJECT_LIMIT, NotSafe, Said, fill

logger = logging.getLogger(__name__)

BLANK_LINES = re.compile(r"\n\s*\n")


class Unwritable(Exception):
    """The templates and the facts of a notice do not make a message: a mistake of ours."""


@dataclass(frozen=True, slots=True)
class Text:
    """A subject of one line and a plain text of paragraphs, in one language."""

    language: str
    subject: str
    body: str

    @property
    def sha256(self) -> str:
        """What tells this text from every other. The zero bytes keep the parts apart."""
        return hashlib.sha256(f"{self.language}\0{self.subject}\0{self.body}".encode()).hexdigest()


def render(notice: Notice, *, form: Form = Form.FULL) -> Text:
    """Write `notice` for its recipient (loaded); see `write`."""
    reader = notice.recipient
    return write(
        notice.kind,
        notice.facts,
        said=Said(),
        language=reader.language,
        time_zone=reader.time_zone,
        form=form,
    )


def write(
    kind: str,
    facts: Mapping[str, Any],
    *,
    said: Said,
    language: str,
    time_zone: str = "",
    form: Form = Form.FULL,
) -> Text:
    """The words of a kind about `facts`. Times are in the reader's zone, else in the contract's.

    `said` are staff's own words; whoever writes many notices at once gives one for all. Where those do not fit, the shipped
    ones are used, and an error is logged. Facts that name a `broadcast` are
    told as staff have written them. Where there is little room, the text is that of `short.txt` in one paragraph, or the
    subject if the kind has none. Raises Unwritable if there is no subject, no text or a subject that is too long;
    TemplateDoesNotExist, and ValueError for a fact of the wrong kind.
    """
    if "broadcast" in facts:
        return _as_composed(said.texts(facts["broadcast"]), language, form)
    zone = zoneinfo.ZoneInfo(time_zone or settings.CONTRACT_TIME_ZONE)
    with translation.override(language), timezone.override(zone):
        own = said.wording(kind, language, form)
        if own:
            try:
                return _text(
                    kind, language, form, subject=fill(own.subject, facts), body=fill(own.body, facts)
                )
            except (NotSafe, Unwritable):
                logger.exception("Words of staff (%s) do not fit: the shipped ones go out.", own.pk)
        subject = _part(kind, "subject.txt", facts)
        return _text(kind, language, form, subject=subject, body=_body(kind, facts, form, subject))


def _text(kind: str, language: str, form: Form, *, subject: str, body: str) -> Text:
    """These words, tidied. Raises Unwritable."""
    subject = " ".join(subject.split())
    # What somebody typed into a form is among the facts, with line ends of its own.
    body = BLANK_LINES.sub("\n\n", "\n".join(body.splitlines())).strip()
    if form is Form.SHORT:
        body = " ".join(body.split())
    if not subject or not body or len(subject) > SUBJECT_LIMIT:
        raise Unwritable(f"{kind} in {language}: subject {subject!r}, {len(body)} characters of text.")
    return Text(language, subject, body)


def _as_composed(texts: Mapping[str, Mapping[str, str]], language: str, form: Form) -> Text:
    """What staff wrote themselves."""
    words = texts[language]
    return Text(language, words["title"], words["body"] if form is Form.FULL else words["title"])


def keep(text: Text) -> Message:
    """The stored message of `text`. The same words are stored once, whoever stores them first."""
    message, _ = Message.objects.get_or_create(
        sha256=text.sha256,
        defaults={"language": text.language, "subject": text.subject, "body": text.body},
    )
    return message


def keep_all(texts: Sequence[Text]) -> Mapping[str, Message]:
    """The stored messages of many texts, by sha256, in two statements."""
    new = {text.sha256: text for text in texts}
    if not new:
        return {}
    # In one order, whoever writes them: two workers with the same words wait for each other, not in a circle.
    in_order = [new[sha256] for sha256 in sorted(new)]
    table = given(
        ("sha256", "text", [text.sha256 for text in in_order]),
        ("language", "text", [text.language for text in in_order]),
        ("subject", "text", [text.subject for text in in_order]),
        ("body", "text", [text.body for text in in_order]),
    )
    with connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO notices_message (sha256, language, subject, body) SELECT sha256, language, subject, body "  # noqa: S608
            f"FROM {table.sql} WHERE true ORDER BY n ON CONFLICT (sha256) DO NOTHING",
            table.params,
        )
    return {message.sha256: message for message in Message.objects.filter(sha256__in=new)}


def _body(kind: str, facts: Mapping[str, Any], form: Form, subject: str) -> str:
    if form is Form.FULL:
        return _part(kind, "body.txt", facts)
    try:
        return _part(kind, "short.txt", facts)
    except TemplateDoesNotExist:
        return subject


def _part(kind: str, name: str, facts: Mapping[str, Any]) -> str:
    template = Engine.get_default().get_template(f"notices/{kind}/{name}")
    # Plain text: a plan called "A & B" is written so.
    return template.render(Context(dict(facts), autoescape=False))
