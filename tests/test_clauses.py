"""`docs/clauses.md` says of every clause of the agreement what the system does about it. This keeps it true.

To have a test count for a clause, mark it with `@pytest.mark.clause("3.3")`; to show it to a reader, name it in
the table.
"""

import re

import pytest

from tests.tables import NOT_YET, PROJECT, Row, check_code, check_tests, rows_of, unknown_marks

AGREEMENT = PROJECT / "agreements" / "texts" / "prepayment"
HEADING = re.compile(r"^(?P<level>##|###) (?P<number>[IVX]+(?=\.)|\d+\.\d+)", re.MULTILINE)


def rows() -> list[Row]:
    return rows_of(PROJECT / "docs" / "clauses.md", heading="Clause")


def clauses_of_the_agreement() -> set[str]:
    """The preamble, and every numbered heading of the newest version that has no headings below it."""
    newest = max((int(folder.name) for folder in AGREEMENT.iterdir() if folder.is_dir()), default=0)
    text = (AGREEMENT / str(newest) / "en.md").read_text(encoding="utf-8")
    headings = [(match["level"], match["number"]) for match in HEADING.finditer(text)]
    followers = [level for level, _number in headings[1:]] + ["##"]
    return {"preamble"} | {
        number
        for (level, number), follower in zip(headings, followers, strict=True)
        if level == "###" or follower == "##"
    }


def test_every_clause_of_the_agreement_has_a_row() -> None:
    missing = clauses_of_the_agreement() - {row.point for row in rows()}
    assert not missing, f"docs/clauses.md has no row for: {', '.join(sorted(missing))}"


def test_every_row_is_of_a_clause_of_the_agreement() -> None:
    unknown = {row.point for row in rows()} - clauses_of_the_agreement()
    assert not unknown, f"docs/clauses.md has rows for what is no clause: {', '.join(sorted(unknown))}"


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_row_names_code_that_exists(row: Row) -> None:
    if not row.is_open:
        check_code(row)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_row_names_tests_that_exist_and_are_marked_with_its_clause(row: Row) -> None:
    if not row.is_open:
        check_tests(row, mark="clause")
        return
    named = row.references(row.tests)
    assert not named, f"{row.title}: docs/clauses.md names tests, so it cannot be '{row.code}'."


def test_every_mark_names_a_clause_that_is_kept() -> None:
    wrong = unknown_marks({row.point for row in rows() if not row.is_open}, mark="clause")
    assert not wrong, (
        "These tests are marked with what docs/clauses.md does not know as a clause that is kept "
        f"(correct the mark, or the row's '{NOT_YET}'):\n" + "\n".join(wrong)
    )
