"""Showing a text: which one applies, its HTML, its table of contents."""

import functools
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from datetime import date, datetime
from typing import TypeAlias

from django.utils import translation
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from markdown_it import MarkdownIt
from markdown_it.token import Token

from agreements.models import Document, Text, Version
from agreements.rulings import invalid_clauses

# What stands before the first numbered clause.
PREAMBLE = "preamble"
# The number a heading begins with: "II. Applicable Law", "3.3 Pre-sale Special Provisions".
CLAUSE_NUMBER = re.compile(r"([IVXLC]+(?=[.、．])|\d+(?:\.\d+)*)[.、．]?\s")

# A clause with the authority that holds it invalid, the reference and the date of its decision.
Invalid: TypeAlias = tuple[str, str, str, date]

_markdown = MarkdownIt("commonmark", {"html": False}).disable("image")


class NothingInForce(Exception):
    """No version of a document applies at the moment asked for."""


@dataclass(frozen=True, slots=True)
class Heading:
    """One line of the table of contents. `anchor` is empty for a heading that is no clause."""

    anchor: str
    wording: str
    is_important: bool
    is_invalid: bool
    children: tuple["Heading", ...] = ()


def texts_in_force(*, language: str, now: datetime) -> dict[Document, Text]:
    """The text of every document that applies at `now`, in `language` or else the authoritative one.

    Raises NothingInForce when a document has none: no agreement can be made then.
    """
    versions = Version.objects.in_force(now)
    candidates: dict[int, list[Text]] = {}
    for text in Text.objects.filter(version__in=versions.values()).select_related("version"):
        candidates.setdefault(text.version_id, []).append(text)
    found: dict[Document, Text] = {}
    for document in Document:
        version = versions.get(document)
        text = best_text(candidates.get(version.pk, ()), language=language) if version else None
        if text is None:
            raise NothingInForce(
                f"No version of {document.value} is in force at {now}. Run publish_agreements."
            )
        found[document] = text
    return found


def text_in_force(*, document: Document, language: str, now: datetime) -> Text:
    """The text of one document that applies at `now`, in `language` or else the authoritative one."""
    return texts_in_force(language=language, now=now)[document]


def best_text(texts: Iterable[Text], *, language: str) -> Text | None:
    """Of one version's texts, the one in `language`, else the authoritative one."""
    by_preference = sorted(
        texts, key=lambda text: (text.language != language, not text.is_authoritative, text.pk)
    )
    return by_preference[0] if by_preference else None


def render(text: Text, *, id_prefix: str = "") -> SafeString:
    """The HTML of a text, its wording unchanged. Clauses are sections; the heading's number is their id.

    Important clauses are set off, and those that an authority holds invalid are marked (9.3). A page with
    more than one text gives each its own `id_prefix`.
    """
    invalid = tuple(
        (clause, ruling.authority, ruling.reference, ruling.decided_on)
        for clause, ruling in invalid_clauses(text.version).items()
    )
    return _render(text.body, tuple(text.important), invalid, text.language, id_prefix)


def table_of_contents(text: Text) -> tuple[Heading, ...]:
    """The chapters with their clauses, in the order of the text."""
    return _table_of_contents(text.body, tuple(text.important), tuple(invalid_clauses(text.version)))


@dataclass(frozen=True, slots=True)
class Block:
    """A heading, paragraph or item as plain words, and the heading of the clause it belongs to."""

    clause: str
    anchor: str
    words: str


@dataclass(slots=True)
class Section:
    """A heading with what stands below it. `tokens` begin with the heading, save in the preamble."""

    level: int
    wording: str = ""
    tokens: list[Token] = field(default_factory=list)
    inner: list["Section"] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """The clause's number, "preamble", or empty where the heading has no number."""
        if not self.level:
            return PREAMBLE
        number = CLAUSE_NUMBER.match(self.wording)
        return number[1] if number else ""


def anchors(body: str) -> set[str]:
    """The numbers of all clauses of a text, and "preamble" if it has one."""
    title, preamble = outline(body)
    found = {PREAMBLE} if preamble.tokens else set()
    waiting = list(title.inner)
    while waiting:
        section = waiting.pop()
        found.add(section.anchor)
        waiting += section.inner
    return found - {""}


def blocks(body: str) -> list[Block]:
    """All the words of a text in their order, without its marks."""
    title, preamble = outline(body)
    return [
        *_blocks(Section(1, title.wording, title.tokens)),
        *_blocks(preamble),
        *(block for section in title.inner for block in _blocks(section)),
    ]


def invalid_mark(authority: str, reference: str, decided_on: date) -> str:
    """What stands above a clause that is held invalid (9.3), in the active language."""
    said = {"authority": authority, "reference": reference, "date": date_format(decided_on)}
    return (
        gettext(
            "Held invalid by %(authority)s, %(reference)s, %(date)s. The rest of the agreement remains in "
            "force (9.3)."
        )
        % said
    )


# Both are keyed on everything the result is made of, so that an entry can never be stale.
@functools.lru_cache(maxsize=32)
def _render(
    body: str, important: tuple[str, ...], invalid: tuple[Invalid, ...], language: str, id_prefix: str
) -> SafeString:
    with translation.override(language):
        marks = {
            clause: invalid_mark(authority, reference, decided_on)
            for clause, authority, reference, decided_on in invalid
        }
        setting = _Setting(frozenset(important), gettext("Important"), marks, id_prefix)
    title, preamble = outline(body)
    sections = [preamble, *title.inner] if preamble.tokens else title.inner
    html = [_rendered(title.tokens), *(part for section in sections for part in _html(section, setting))]
    return mark_safe("".join(html))  # noqa: S308 (markdown-it escapes, raw HTML is off)


@functools.lru_cache(maxsize=32)
def _table_of_contents(
    body: str, important: tuple[str, ...], invalid: tuple[str, ...]
) -> tuple[Heading, ...]:
    def headings(sections: list[Section]) -> tuple[Heading, ...]:
        return tuple(
            Heading(
                section.anchor,
                section.wording,
                section.anchor in important,
                section.anchor in invalid,
                headings(section.inner),
            )
            for section in sections
        )

    return headings(outline(body)[0].inner)


def outline(body: str) -> tuple[Section, Section]:
    """The title with its chapters, and apart from it the preamble."""
    title, preamble = Section(level=1), Section(level=0)
    path = [title]
    current = preamble
    tokens = _markdown.parse(body)
    for position, token in enumerate(tokens):
        if token.type == "heading_open" and not token.level:  # one in a quotation is no clause
            level, wording = int(token.tag[1:]), tokens[position + 1].content
            if level == 1:
                current = title
            else:
                while path[-1].level >= level:
                    path.pop()
                current = Section(level, wording)
                path[-1].inner.append(current)
                path.append(current)
        current.tokens.append(token)
        if token.type == "heading_close" and current is title:
            current = preamble
    return title, preamble


def _blocks(section: Section) -> Iterator[Block]:
    for token in section.tokens:
        if token.type in ("inline", "code_block", "fence"):
            words = "".join(
                child.content or (" " if child.type.endswith("break") else "")
                for child in token.children or [token]
            )
            yield Block(section.wording, section.anchor, words.strip())
    for inner in section.inner:
        yield from _blocks(inner)


@dataclass(frozen=True, slots=True)
class _Setting:
    """How the clauses of one text are set."""

    important: frozenset[str]
    label: str
    # What stands above each clause that is held invalid.
    invalid: Mapping[str, str]
    id_prefix: str


def _html(section: Section, setting: _Setting) -> Iterator[str]:
    anchor = f"{setting.id_prefix}{section.anchor}"
    if section.anchor in setting.important:
        labelled_by = f"{anchor}-label {anchor}-heading" if section.wording else f"{anchor}-label"
        yield format_html(
            '<section class="clause clause--important" id="{}" aria-labelledby="{}">\n'
            '<p class="clause__label" id="{}-label">{}</p>\n',
            anchor,
            labelled_by,
            anchor,
            setting.label,
        )
        if section.wording:
            section.tokens[0].attrSet("id", f"{anchor}-heading")
    elif section.anchor:
        yield format_html('<section class="clause" id="{}">\n', anchor)
    else:
        yield '<section class="clause">\n'
    if section.anchor in setting.invalid:
        yield format_html('<p class="clause__invalid">{}</p>\n', setting.invalid[section.anchor])
    yield _rendered(section.tokens)
    for inner in section.inner:
        yield from _html(inner, setting)
    yield "</section>\n"


def _rendered(tokens: list[Token]) -> str:
    """The page around a text has the only h1: every heading goes one level down."""
    for token in tokens:
        if token.type in ("heading_open", "heading_close"):
            token.tag = f"h{min(6, int(token.tag[1:]) + 1)}"
    rendered: str = _markdown.renderer.render(tokens, _markdown.options, {})
    return rendered
