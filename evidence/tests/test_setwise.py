"""A table made of parameters says what it was given, whatever that is."""

from datetime import UTC, datetime
from typing import Any

import pytest
from django.db import connection

from evidence.setwise import Given, OutOfStep, given, write

pytestmark = pytest.mark.django_db


def rows_of(table: Given, columns: str) -> list[tuple[Any, ...]]:
    with connection.cursor() as cursor:
        cursor.execute(f"SELECT {columns} FROM {table.sql} ORDER BY n", table.params)
        return list(cursor.fetchall())


def test_numbers_and_texts_come_as_they_are_and_are_counted() -> None:
    texts = ["", "plain", '"quoted", and {more}', "back\\slash\\", "NULL", "%s", "多云手机\n", "\x1f", "'"]
    table = given(("id", "bigint", range(len(texts))), ("words", "text", texts))

    assert rows_of(table, "n, id, words") == [(n + 1, n, text) for n, text in enumerate(texts)]


def test_times_are_times() -> None:
    moment = datetime(2026, 11, 23, 4, 0, 0, 5, tzinfo=UTC)
    table = given(("at", "timestamptz", [moment, moment.replace(microsecond=0)]))

    written = [str(at).removesuffix("+00:00") for (at,) in rows_of(table, "at")]
    assert written == ["2026-11-23 04:00:00.000005", "2026-11-23 04:00:00"]


def test_whatever_json_has_can_stand_between_others() -> None:
    facts = [{"plan": 'V08 "plus" \\', "units": 2, "ends_at": None, "of": ["多", True]}, {}]
    table = given(("id", "bigint", [7, 8]), ("facts", "jsonb", facts), ("kind", "text", ["a", "b"]))

    found = rows_of(table, "id, facts, kind")

    assert [(number, kind) for number, _facts, kind in found] == [(7, "a"), (8, "b")]
    with connection.cursor() as cursor:
        unit = "facts->>'units'" if connection.vendor == "postgresql" else "json_extract(facts, '$.units')"
        plan = "facts->>'plan'" if connection.vendor == "postgresql" else "json_extract(facts, '$.plan')"
        cursor.execute(f"SELECT {unit}, {plan} FROM {table.sql} ORDER BY n", table.params)
        (units, name), nothing = cursor.fetchall()
    assert (str(units), name, nothing) == ("2", 'V08 "plus" \\', (None, None))


def test_nothing_is_an_empty_table() -> None:
    assert rows_of(given(("id", "bigint", []), ("words", "text", [])), "id, words") == []


@pytest.mark.postgres
def test_text_that_the_database_cannot_hold_is_refused() -> None:
    with pytest.raises(ValueError, match="NUL"):
        given(("words", "text", ["one\0two", "three"]))


def test_statement_that_touches_other_rows_than_expected_is_refused() -> None:
    with connection.cursor() as cursor, pytest.raises(OutOfStep, match="Expected 1 rows, wrote 0"):
        write(cursor, "UPDATE accounts_user SET name = %s", ["Ada"], rows=1)
