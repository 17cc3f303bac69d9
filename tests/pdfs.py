"""What a PDF says, for tests. Words are squeezed, for a line may be broken anywhere."""

import re
from collections.abc import Iterator
from io import BytesIO

from pypdf import PageObject, PdfReader

# Where the body of a page is, between header and footer, in points from the bottom.
BODY = range(60, 776)


def printed(pdf: bytes, *, from_page: int = 1) -> str:
    """All words of the pages' bodies."""
    found = (
        words
        for page in PdfReader(BytesIO(pdf)).pages[from_page - 1 :]
        for height, words in _words(page)
        if height in BODY
    )
    return squeezed("".join(found))


def around(pdf: bytes, *, page: int) -> str:
    """The header and the footer of a page."""
    found = _words(PdfReader(BytesIO(pdf)).pages[page - 1])
    return squeezed("".join(words for height, words in found if height not in BODY))


def attached(pdf: bytes) -> dict[str, bytes]:
    """The files that the PDF carries, by name."""
    return {name: versions[0] for name, versions in PdfReader(BytesIO(pdf)).attachments.items()}


def squeezed(words: str) -> str:
    """Without white space, the invisible kind included that lets a long word break."""
    return re.sub(r"[\s\u200b]+", "", words)


def _words(page: PageObject) -> Iterator[tuple[int, str]]:
    """The words of a page, each with its height above the bottom."""
    found: list[tuple[int, str]] = []

    def visit(words: str, cm: list[float], tm: list[float], _font: object, _size: float) -> None:
        found.append((round(cm[1] * tm[4] + cm[3] * tm[5] + cm[5]), words))

    page.extract_text(visitor_text=visit)
    yield from found
