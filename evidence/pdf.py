"""Documents that people keep: set by typst from our own templates in our own fonts, the same bytes every time.

Nothing else knows typst. What a document says is data: a template never reads it as markup, whoever wrote
it. The PDFs are PDF/A-3a and PDF/UA-1: they hold all they need to be read, and a screen reader can read them.
"""

import functools
import json
from collections.abc import Iterator, Mapping
from dataclasses import asdict, is_dataclass
from datetime import datetime
from pathlib import Path

import typst
from django.conf import settings
from fontTools.ttLib import TTFont

FONTS = Path(__file__).parent / "fonts"
TEMPLATES = Path(settings.BASE_DIR) / "templates" / "pdf"
STANDARDS: list["typst.PDFStandard"] = ["a-3a", "ua-1"]
# They separate what is printed, and are not printed themselves.
WHITE = frozenset("\n\r\t")


class Unprintable(Exception):
    """A document says something that none of our fonts has a shape for; `characters` says what."""

    def __init__(self, characters: str) -> None:
        named = ", ".join(f"{character} ({_code_point(character)})" for character in characters)
        super().__init__(f"No font has a shape for: {named}")
        self.characters = characters


def typeset(template: str, data: Mapping[str, object], *, dated: datetime) -> bytes:
    """The PDF that `templates/pdf/<template>.typ` makes of `data`: strings, numbers, lists and dataclasses.

    The same data and date give the same bytes. Raises Unprintable, rather than leave out what has no shape.
    """
    plain = _plain(data)
    missing = unprintable("".join(_strings(plain)))
    if missing:
        raise Unprintable(missing)
    return typst.compile(
        TEMPLATES / f"{template}.typ",
        root=TEMPLATES,
        font_paths=_fonts(),
        ignore_system_fonts=True,
        format="pdf",
        sys_inputs={"data": json.dumps(plain, ensure_ascii=False)},
        pdf_standards=STANDARDS,
        timestamp=int(dated.timestamp()),
    )


def unprintable(words: str) -> str:
    """The characters that `typeset` would refuse, each once, in order."""
    return "".join(sorted(set(words) - WHITE - _shapes()))


def printable(words: str) -> str:
    """What somebody wrote, with the code point in place of each character that has no shape: "[U+1F600]".

    For what must be printed whatever it says. Nothing is left out, and nothing that is invisible or turns
    the direction of writing comes through.
    """
    lines = "\n".join(words.splitlines()).replace("\t", "    ")
    shapes = _shapes()
    return "".join(each if each in shapes or each in WHITE else f"[{_code_point(each)}]" for each in lines)


@functools.cache
def _fonts() -> typst.Fonts:
    return typst.Fonts(include_system_fonts=False, include_embedded_fonts=False, font_paths=[FONTS])


@functools.cache
def _shapes() -> frozenset[str]:
    """Every character that one of our fonts can print. typst goes on to the next font for what one lacks."""
    shapes: set[str] = set()
    for file in FONTS.glob("*.ttf"):
        with TTFont(file, lazy=True) as font:
            shapes.update(map(chr, font.getBestCmap()))
    return frozenset(shapes)


def _plain(data: object) -> object:
    """`data` as JSON knows it."""
    if is_dataclass(data) and not isinstance(data, type):
        return asdict(data)
    if isinstance(data, Mapping):
        return {key: _plain(value) for key, value in data.items()}
    if isinstance(data, list | tuple):
        return [_plain(each) for each in data]
    return data


def _strings(plain: object) -> Iterator[str]:
    if isinstance(plain, str):
        yield plain
    elif isinstance(plain, dict):
        for value in plain.values():
            yield from _strings(value)
    elif isinstance(plain, list | tuple):
        for each in plain:
            yield from _strings(each)


def _code_point(character: str) -> str:
    return f"U+{ord(character):04X}"
