"""Small agreements written into a folder, as they would ship."""

import json
from collections.abc import Iterator, Mapping
from datetime import UTC, date, datetime
from pathlib import Path

from agreements.models import Document
from agreements.publishing import publish_shipped_texts

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)

PREPAYMENT_BODY = """\
# Pre-payment Purchase Agreement

Read it with your *guardian* if you are under 18.

## I. Definitions

### 1.1 Service Scope

Phones in the order of payment.

### 1.2 This Agreement

It comes first.

## II. Law

Hong Kong.

## III. Payment

### 3.3 Special Provisions

No refunds.
"""

PURCHASE_BODY = "# Purchase Agreement\n\n## I. Scope\n\nCloud phones.\n"


def write_edition(
    folder: Path,
    *,
    document: Document = Document.PREPAYMENT,
    number: int = 1,
    bodies: dict[str, str] | None = None,
    authoritative: str = "en",
    on: date = date(2025, 3, 21),
    effective_on: date | None = None,
    important: tuple[str, ...] = ("II", "3.3"),
) -> Path:
    """Write `<folder>/<document>/<number>/` and return it."""
    edition = folder / document.value / str(number)
    edition.mkdir(parents=True)
    if bodies is None:
        body = PREPAYMENT_BODY if document == Document.PREPAYMENT else PURCHASE_BODY
        bodies = {"en": body, "zh-hans": body.replace("No refunds", "不予退款")}
    for language, body in bodies.items():
        (edition / f"{language}.md").write_bytes(body.encode())
    said = [
        f"number = {number}",
        f"published_on = {on}",
        f"effective_on = {effective_on or on}",
        f"authoritative = {json.dumps(authoritative)}",
        f"important = {json.dumps(important)}",
        *_table("title", {language: f"{document.value} ({language})" for language in bodies}),
        *_table("summary", dict.fromkeys(bodies, f"Version {number}.")),
        *_table("matters_most", {language: ["There are no refunds."] for language in bodies}),
    ]
    (edition / "version.toml").write_text("\n".join(said), encoding="utf-8")
    return edition


def publish_both(folder: Path, *, now: datetime = NOW) -> None:
    """Publish version 1 of both documents, in both languages."""
    for document in Document:
        write_edition(folder, document=document)
    publish_shipped_texts(now=now, folder=folder)


def _table(name: str, by_language: Mapping[str, str | list[str]]) -> Iterator[str]:
    """A table of TOML, whose strings and lists are written as in JSON."""
    yield f"[{name}]"
    for language, said in by_language.items():
        yield f"{language} = {json.dumps(said, ensure_ascii=False)}"
