"""An agreement on paper: its wording unchanged, with all that has to be known of it."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from django.conf import settings
from django.utils import translation
from django.utils.formats import date_format
from django.utils.translation import get_language_info, gettext
from markdown_it.token import Token
from markdown_it.tree import SyntaxTreeNode

from agreements.models import Document, Text
from agreements.rulings import invalid_clauses
from agreements.texts import Section, invalid_mark, outline
from evidence.contract_time import contract_date
from evidence.pdf import typeset


@dataclass(frozen=True, slots=True)
class Node:
    """A piece of the wording. `kind` is markdown-it's word for it; `of` are the pieces that it is made of.

    `words` are what it says itself, or the number that a list begins with; `target` is where a link leads.
    """

    kind: str
    words: str
    target: str
    of: tuple["Node", ...]


@dataclass(frozen=True, slots=True)
class Clause:
    """A heading, empty for the preamble, with what stands below it. `ruling` is empty for a valid clause."""

    heading: tuple[Node, ...]
    is_important: bool
    ruling: str
    blocks: tuple[Node, ...]
    inner: tuple["Clause", ...]


@dataclass(frozen=True, slots=True)
class Agreement:
    """All that a document says of a text, in the language of the text. `source` is what its sha256 is of."""

    language: str
    title: str
    edition: str
    facts: tuple[tuple[str, str], ...]
    statements: tuple[str, ...]
    changes: tuple[str, ...]
    matters_most: tuple[str, ...]
    heading: tuple[Node, ...]
    clauses: tuple[Clause, ...]
    labels: dict[str, str]
    source: str
    file_name: str
    sha256: str


def agreement_pdf(text: Text) -> bytes:
    """The text as a PDF, dated when it was published or the last ruling on one of its clauses was recorded.

    Raises Unprintable. Reads the texts and rulings of the version, unless they were fetched with it.
    """
    rulings = invalid_clauses(text.version).values()
    dated = max([text.version.published_at, *(ruling.recorded_at for ruling in rulings)])
    return typeset("agreement", {"agreement": agreement_of(text)}, dated=dated)


def agreement_of(text: Text) -> Agreement:
    """What the documents that hold the text say of it."""
    title, preamble = outline(text.body)
    sections = [preamble, *title.inner] if preamble.tokens else title.inner
    with translation.override(text.language):
        return Agreement(
            language=text.language,
            title=text.title,
            edition=gettext("Version %(number)d") % {"number": text.version.number},
            facts=_facts(text),
            statements=_statements(text),
            changes=_changes(text),
            matters_most=tuple(text.matters_most),
            heading=_words_of_heading(_nodes(title.tokens)),
            clauses=_clauses(text, sections),
            labels=_labels(),
            source=text.body,
            file_name=f"{file_stem(text)}.md",
            sha256=text.sha256,
        )


def file_stem(text: Text) -> str:
    """A name for files that hold the text: "prepayment-1-en"."""
    return f"{text.version.document}-{text.version.number}-{text.language}"


def _facts(text: Text) -> tuple[tuple[str, str], ...]:
    version = text.version
    return (
        (gettext("Version"), str(version.number)),
        (gettext("Published"), _contract_day(version.published_at)),
        (gettext("Takes effect"), _contract_day(version.effective_at)),
        (gettext("Language"), get_language_info(text.language)["name_local"]),
        (gettext("Fingerprint (sha256)"), text.sha256),
    )


def _statements(text: Text) -> tuple[str, ...]:
    """Which of the version's languages counts, and which of the two documents comes first."""
    authoritative = next((each for each in text.version.texts.all() if each.is_authoritative), text)
    return (
        gettext("This is the authoritative text; the others are translations of it.")
        if authoritative.language == text.language
        else gettext(
            "This is a translation. If the two differ, the text in %(language)s is the one that counts."
        )
        % {"language": get_language_info(authoritative.language)["name_translated"]},
        gettext(
            "The Pre-payment Purchase Agreement and the Purchase Agreement together are the complete terms. "
            "Where they differ, this document comes first (clause 1.2)."
        )
        if text.version.document == Document.PREPAYMENT
        else gettext(
            "The Pre-payment Purchase Agreement and the Purchase Agreement together are the complete terms. "
            "Where they differ, the Pre-payment Purchase Agreement comes first (its clause 1.2)."
        ),
    )


def _changes(text: Text) -> tuple[str, ...]:
    if text.version.number == 1:
        return ()
    if not text.version.is_retroactive:
        kept = gettext(
            "Orders that were placed before it took effect keep the version that was accepted with them."
        )
        return (text.summary, kept)
    applies = gettext(
        "It also applies to orders that were placed before it took effect (9.1). For them this changes:"
    )
    return (text.summary, applies, text.retroactive_effect)


def _labels() -> dict[str, str]:
    place = settings.PLATFORM_LOCATION
    return {
        "important": gettext("Important"),
        "changes": gettext("What this version changes"),
        "matters_most": gettext("What matters most"),
        "matters_most_note": gettext("A summary to help you read. The text below is the agreement."),
        "contents": gettext("Contents"),
        "page_of": gettext("Page {page} of {pages}"),
        "sha256": "sha256",
        "place": gettext("Signed at the location of the platform: %(place)s (9.2).") % {"place": place}
        if place
        else gettext("Signed at the location of the VMOS Cloud platform (9.2)."),
        "fingerprint": gettext("Fingerprint of this text (sha256); every acceptance records it:"),
        "attached": gettext(
            "The text is attached to this PDF as a file, and its fingerprint can be made anew from that file."
        ),
    }


def _clauses(text: Text, sections: Sequence[Section]) -> tuple[Clause, ...]:
    important = frozenset(text.important)
    rulings = {
        clause: invalid_mark(ruling.authority, ruling.reference, ruling.decided_on)
        for clause, ruling in invalid_clauses(text.version).items()
    }

    def clause(section: Section) -> Clause:
        nodes = _nodes(section.tokens)
        heading, blocks = (nodes[:1], nodes[1:]) if section.level else ((), nodes)
        return Clause(
            heading=_words_of_heading(heading),
            is_important=section.anchor in important,
            ruling=rulings.get(section.anchor, ""),
            blocks=blocks,
            inner=tuple(clause(inner) for inner in section.inner),
        )

    return tuple(clause(section) for section in sections)


def _words_of_heading(nodes: tuple[Node, ...]) -> tuple[Node, ...]:
    """What stands in a heading; nothing where there is none."""
    return nodes[0].of if nodes else ()


def _nodes(tokens: list[Token]) -> tuple[Node, ...]:
    return tuple(map(_node, SyntaxTreeNode(tokens).children))


def _node(piece: SyntaxTreeNode) -> Node:
    words = piece.token.content if piece.token and not piece.children else ""
    return Node(
        kind=piece.type,
        words=str(piece.attrs.get("start", 1)) if piece.type == "ordered_list" else words,
        target=str(piece.attrs.get("href", "")),
        of=tuple(map(_node, piece.children)),
    )


def _contract_day(moment: datetime) -> str:
    return date_format(contract_date(moment), "DATE_FORMAT")
