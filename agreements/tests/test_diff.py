"""The difference between two versions, as words taken out and put in."""

from agreements.diff import Piece, difference
from agreements.models import Text, Version

OLD = """# Agreement

Please read it.

## I. Delivery

### 1.1 Time

We deliver within two days.

### 1.2 Place

We deliver to your account.
"""


def changes(old: str, new: str) -> list[tuple[str, list[tuple[Piece, ...]]]]:
    version = Version(document="prepayment", number=1)
    found = difference(Text(version=version, body=old), Text(version=version, body=new))
    return [(clause.anchor, list(clause.blocks)) for clause in found.clauses]


def test_a_changed_word_is_shown_in_its_sentence_and_nothing_else_is() -> None:
    assert changes(OLD, OLD.replace("two days", "three weeks")) == [
        (
            "1.1",
            [
                (
                    Piece("", "We deliver within "),
                    Piece("del", "two days"),
                    Piece("ins", "three weeks"),
                    Piece("", "."),
                )
            ],
        )
    ]


def test_the_same_text_has_no_changes() -> None:
    assert changes(OLD, OLD) == []


def test_added_paragraph_is_all_new_and_removed_one_all_gone() -> None:
    new = OLD.replace("Please read it.\n\n", "").replace(
        "to your account.\n", "to your account.\n\nNo deliveries on Sunday.\n"
    )
    assert changes(OLD, new) == [
        ("preamble", [(Piece("del", "Please read it."),)]),
        ("1.2", [(Piece("ins", "No deliveries on Sunday."),)]),
    ]


def test_a_clause_that_only_moves_on_by_a_number_keeps_its_text() -> None:
    new = OLD.replace("### 1.2 Place", "### 1.2 Language\n\nEnglish counts.\n\n### 1.3 Place")
    assert changes(OLD, new) == [
        ("1.2", [(Piece("ins", "1.2 Language"),), (Piece("ins", "English counts."),)]),
        ("1.3", [(Piece("", "1."), Piece("del", "2"), Piece("ins", "3"), Piece("", " Place"))]),
    ]


def test_chinese_is_compared_character_by_character() -> None:
    old, new = "# 协议\n\n我们在两日内交付。\n", "# 协议\n\n我们在三周内交付。\n"
    assert changes(old, new) == [
        (
            "preamble",
            [
                (
                    Piece("", "我们在"),
                    Piece("del", "两日"),
                    Piece("ins", "三周"),
                    Piece("", "内交付。"),
                )
            ],
        )
    ]


def test_marks_are_no_words() -> None:
    assert changes("# A\n\nNo *refunds*.\n", "# A\n\nNo **refunds**.\n") == []
