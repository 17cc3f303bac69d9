"""Printing what somebody wrote: with the shapes our fonts have, and nothing left out."""

import pytest

from evidence.pdf import Unprintable, printable, typeset, unprintable
from tests.builders import NOW


@pytest.mark.parametrize(
    "name",
    [
        "Łukasz Żółć",
        "Ngô Thị Bích",
        "Ολυμπία Ιωάννου",
        "Дмитрий Щукин",
        "陳大文，深水埗邨",
        "王喆（上海）",
        "“€ £ ¥ ₿” – … № → ™",
        "#set text(red) $x^2$ *a* _b_ @ref <label> \\ `raw`",
    ],
)
def test_what_customers_are_called_is_printed_as_it_is(name: str) -> None:
    assert printable(name) == name
    assert unprintable(name) == ""


@pytest.mark.parametrize(
    ("written", "said"),
    [
        ("Hi 😀!", "Hi [U+1F600]!"),
        ("עד", "[U+05E2][U+05D3]"),
        # It would turn around what follows it.
        ("a\u202eb", "a[U+202E]b"),
        ("zero\u200bwidth\u00ad", "zero[U+200B]width[U+00AD]"),
        ("bell\x07", "bell[U+0007]"),
        ("one\r\ntwo\rthree\tfour", "one\ntwo\nthree    four"),
    ],
)
def test_what_has_no_shape_is_printed_as_its_code_point(written: str, said: str) -> None:
    assert printable(written) == said


def test_a_document_that_cannot_be_printed_is_refused_and_the_characters_are_named() -> None:
    with pytest.raises(Unprintable) as refused:
        typeset("agreement", {"agreement": {"title": "Terms 😀", "facts": [("ע", "a\x07")]}}, dated=NOW)
    assert refused.value.characters == "\x07ע😀"
    assert "ע (U+05E2), 😀 (U+1F600)" in str(refused.value)
