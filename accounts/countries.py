"""The countries a buyer can live in, by their names in his language."""

import re
import unicodedata
from collections.abc import Mapping
from functools import cache

from babel import Locale
from django.utils.translation import to_locale

CODE = re.compile(r"[A-Z]{2}")
# What the list of names has besides the countries of ISO 3166-1.
NO_COUNTRIES = frozenset(
    ("AC", "CP", "CQ", "DG", "EA", "EU", "EZ", "IC", "QO", "TA", "UN", "XA", "XB", "XK", "ZZ")
)
# Encodings that were laid out by reading order: by pinyin, by strokes.
CHINESE_ORDER = {"zh-hans": "gb18030", "zh-hant": "big5hkscs"}


@cache
def countries(language: str) -> tuple[tuple[str, str], ...]:
    """(ISO 3166-1 alpha-2 code, name) of every country, in the order in which a reader of `language` looks."""
    names: Mapping[str, str] = Locale.parse(to_locale(language)).territories
    found = [
        (code, name) for code, name in names.items() if CODE.fullmatch(code) and code not in NO_COUNTRIES
    ]
    return tuple(sorted(found, key=lambda country: _place(country[1], language)))


def country_name(code: str, language: str) -> str:
    """The name of a country; the code itself where it is none."""
    return dict(countries(language)).get(code, code)


def _place(name: str, language: str) -> bytes:
    if encoding := CHINESE_ORDER.get(language):
        return name.encode(encoding, errors="replace")
    return unicodedata.normalize("NFKD", name).encode("ascii", errors="ignore").lower()
