"""Publishing: the texts that ship with the code become rows that nobody can change.

A version is a folder `texts/<document>/<number>/` with one `<language>.md` per language and a
`version.toml` that says the rest.
"""

import hashlib
import tomllib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path

from django.conf import settings
from django.db import transaction

from agreements.models import Document, Text, Version
from evidence.contract_time import contract_midnight
from evidence.pdf import unprintable

SHIPPED = Path(__file__).parent / "texts"


class NotPublishable(Exception):
    """A shipped version is incomplete, or says something that cannot be."""


class TextDiffers(Exception):
    """What was published is not what ships now. `differences` holds a sentence for each."""

    def __init__(self, differences: list[str]) -> None:
        super().__init__("\n".join(differences))
        self.differences = differences


@dataclass(frozen=True, slots=True)
class ShippedText:
    """One language of a version, with the exact body of its file."""

    language: str
    is_authoritative: bool
    title: str
    summary: str
    important: list[str]
    matters_most: list[str]
    body: str
    sha256: str


@dataclass(frozen=True, slots=True)
class ShippedVersion:
    document: Document
    number: int
    published_at: datetime
    effective_at: datetime
    texts: tuple[ShippedText, ...]

    def __str__(self) -> str:
        return f"{self.document.value} {self.number}"


@dataclass(frozen=True, slots=True)
class Publication:
    """`added`: the texts that are new in the database. `in_force`: what applies now, by document."""

    added: tuple[Text, ...]
    in_force: dict[str, Version]


def publish_shipped_texts(*, now: datetime, folder: Path = SHIPPED) -> Publication:
    """Add the versions and texts that are not in the database yet, all or none.

    A version may be added before its date: it is shown from `published_at` and binds from `effective_at`.
    Raises TextDiffers, and adds nothing, when a published row says something else than its file: a change
    of wording needs a new version. Raises NotPublishable for a folder that is not a whole version.
    """
    shipped = tuple(shipped_versions(folder))
    with transaction.atomic(durable=True):
        known = {
            (version.document, version.number): version
            for version in Version.objects.select_for_update().prefetch_related("texts")
        }
        differences: list[str] = []
        added: list[Text] = []
        for edition in shipped:
            version = known.get((edition.document, edition.number))
            if version is None:
                version = Version.objects.create(
                    document=edition.document,
                    number=edition.number,
                    published_at=edition.published_at,
                    effective_at=edition.effective_at,
                )
            else:
                differences += _date_differences(version, edition)
            published = {text.language: text for text in version.texts.all()}
            for shipped_text in edition.texts:
                if shipped_text.language in published:
                    differences += _differences(edition, published[shipped_text.language], shipped_text)
                else:
                    added.append(_row(version, shipped_text))
        if differences:
            raise TextDiffers(differences)
        Text.objects.bulk_create(added)
    return Publication(added=tuple(added), in_force=Version.objects.in_force(now))


def shipped_versions(folder: Path = SHIPPED) -> Iterator[ShippedVersion]:
    """Read every version below `folder`, oldest first within a document."""
    for document in Document:
        found = (path.parent for path in (folder / document.value).glob("*/version.toml"))
        for version_folder in sorted(found, key=lambda path: (len(path.name), path.name)):
            yield _read(document, version_folder)


def digest(body: str) -> str:
    """The sha256 that stands for a text: of its exact UTF-8 bytes."""
    return hashlib.sha256(body.encode()).hexdigest()


def _read(document: Document, folder: Path) -> ShippedVersion:
    where = f"{document.value}/{folder.name}"
    said = tomllib.loads((folder / "version.toml").read_text(encoding="utf-8"))
    # Bytes, because reading as text would turn foreign line ends into ours.
    bodies = {path.stem: path.read_bytes().decode() for path in sorted(folder.glob("*.md"))}
    missing = {"number", "published_on", "effective_on", "authoritative", "important", "title"} - said.keys()
    if missing:
        raise NotPublishable(f"{where}/version.toml does not say: {', '.join(sorted(missing))}.")
    if str(said["number"]) != folder.name:
        raise NotPublishable(f"{where} calls itself number {said['number']}.")
    if said["authoritative"] not in bodies:
        raise NotPublishable(f"{where} has no text in its authoritative language, {said['authoritative']}.")
    unknown = bodies.keys() - dict(settings.LANGUAGES).keys()
    if unknown:
        raise NotPublishable(
            f"{where} has texts in languages the shop does not speak: {', '.join(sorted(unknown))}."
        )
    untitled = bodies.keys() - said["title"].keys()
    if untitled:
        raise NotPublishable(f"{where}/version.toml has no title in: {', '.join(sorted(untitled))}.")
    for language, body in bodies.items():
        if blank := unprintable(said["title"][language] + body):
            raise NotPublishable(f"{where}, {language}: our fonts cannot print {' '.join(blank)}.")
    if said["effective_on"] < said["published_on"]:
        raise NotPublishable(f"{where} takes effect before it is published.")
    return ShippedVersion(
        document=document,
        number=said["number"],
        published_at=contract_midnight(said["published_on"]),
        effective_at=contract_midnight(said["effective_on"]),
        texts=tuple(
            ShippedText(
                language=language,
                is_authoritative=language == said["authoritative"],
                title=said["title"][language],
                summary=said.get("summary", {}).get(language, ""),
                important=said["important"],
                matters_most=said.get("matters_most", {}).get(language, []),
                body=body,
                sha256=digest(body),
            )
            for language, body in bodies.items()
        ),
    )


def _row(version: Version, text: ShippedText) -> Text:
    return Text(
        version=version,
        language=text.language,
        is_authoritative=text.is_authoritative,
        title=text.title,
        summary=text.summary,
        important=text.important,
        matters_most=text.matters_most,
        body=text.body,
        sha256=text.sha256,
    )


def _date_differences(published: Version, shipped: ShippedVersion) -> Iterator[str]:
    for name in ("published_at", "effective_at"):
        was, ships = getattr(published, name), getattr(shipped, name)
        if was != ships:
            yield f"{shipped}: {name} is {was:%Y-%m-%d %H:%M %Z} in the database, but {ships:%Y-%m-%d %H:%M %Z} ships."


def _differences(version: ShippedVersion, published: Text, shipped: ShippedText) -> Iterator[str]:
    where = f"{version}, {shipped.language}"
    if digest(published.body) != published.sha256:
        yield f"{where}: the body in the database does not have the sha256 recorded with it; it was tampered with."
    if published.body != shipped.body:
        yield f"{where}: the body that was published (sha256 {published.sha256}) is not the file's ({shipped.sha256})."
    for name in ("is_authoritative", "title", "summary", "important", "matters_most"):
        if getattr(published, name) != getattr(shipped, name):
            yield f"{where}: {name} is not what was published."
