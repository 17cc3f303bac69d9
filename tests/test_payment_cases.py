"""`docs/payment-cases.md` says of every case of a payment what must follow. This keeps it true and complete.

To have a test count for a case, mark it with `@pytest.mark.payment_case(13)`; to show it to a reader, name it in
the table.
"""

import pytest

from tests.tables import PROJECT, Row, check_code, check_tests, marks, rows_of, unknown_marks

CASES = [str(number) for number in range(1, 55)]


def rows() -> list[Row]:
    return rows_of(PROJECT / "docs" / "payment-cases.md", heading="Case")


def test_every_case_has_one_row_and_they_are_in_order() -> None:
    assert [row.point for row in rows()] == CASES


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_row_names_code_that_exists(row: Row) -> None:
    check_code(row)


@pytest.mark.parametrize("row", rows(), ids=lambda row: row.title)
def test_row_names_tests_that_exist_and_are_marked_with_its_case(row: Row) -> None:
    check_tests(row, mark="payment_case")


@pytest.mark.parametrize("case", CASES)
def test_some_test_is_marked_with_every_case(case: str) -> None:
    assert any(case in cases for cases in marks("payment_case").values())


def test_every_mark_names_a_case() -> None:
    wrong = unknown_marks(set(CASES), mark="payment_case")
    assert not wrong, "These tests are marked with what is no case of a payment:\n" + "\n".join(wrong)
