"""Showing a text: which one applies, its HTML, its table of contents."""

import functools
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from datetime import datetime

from django.utils import translation
from django.utils.html import format_html
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext
from markdown_it import MarkdownIt
from markdown_it.token import Token

from agreements.models import Document, Text, Version

# What stands before the first numbered clause.
PREAMBLE = "preamble"
# The number a heading begins with: "II. Applicable Law", "3.3 Pre-sale Special Provisions".
CLAUSE_NUMBER = re.compile(r"([IVXLC]+(?=[.、．])|\d+(?:\.\d+)*)[.、．]?\s")

_markdown = MarkdownIt("commonmark", {"html": False}).disable("image")


class NothingInForce(Exception):
    """No version of a document applies at the moment asked for."""


@dataclass(frozen=True, slots=True)
class Heading:
    """One line of the table of contents. `anchor` is empty for a heading that is no clause."""

    anchor: str
    wording: str
    is_important: bool
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

    A page with more than one text gives each its own `id_prefix`.
    """
    return _render(text.body, tuple(text.important), text.language, id_prefix)


def table_of_contents(text: Text) -> tuple[Heading, ...]:
    """The chapters with their clauses, in the order of the text."""
    return _table_of_contents(text.body, tuple(text.important))


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


# Both are keyed on everything the result is made of, so that an entry can never be stale.
@functools.lru_cache(maxsize=32)
def _render(body: str, important: tuple[str, ...], language: str, id_prefix: str) -> SafeString:
    with translation.override(language):
        setting = _Setting(frozenset(important), gettext("Important"), id_prefix)
    title, preamble = _outline(body)
    sections = [preamble, *title.inner] if preamble.tokens else title.inner
    html = [_rendered(title.tokens), *(part for section in sections for part in _html(section, setting))]
    return mark_safe("".join(html))  # noqa: S308 (markdown-it escapes, raw HTML is off)


@functools.lru_cache(maxsize=32)
def _table_of_contents(body: str, important: tuple[str, ...]) -> tuple[Heading, ...]:
    def headings(sections: list[Section]) -> tuple[Heading, ...]:
        return tuple(
            Heading(section.anchor, section.wording, section.anchor in important, headings(section.inner))
            for section in sections
        )

    return headings(_outline(body)[0].inner)


def _outline(body: str) -> tuple[Section, Section]:
    """The title with its chapters, and apart from it the preamble."""
    title, preamble = Section(level=1), Section(level=0)
    path = [title]
    current = preamble
    tokens = _markdown.parse(body)
    for position, token in enumerate(tokens):
        if token.type == "heading_open":
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


@dataclass(frozen=True, slots=True)
class _Setting:
    """How the clauses of one text are set."""

    important: frozenset[str]
    label: str
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
