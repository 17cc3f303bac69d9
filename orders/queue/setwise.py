"""Many rows in one statement: a table made of parameters, for PostgreSQL and SQLite."""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper


class OutOfStep(Exception):
    """The tables changed under locks that nothing is allowed to go round. The transaction is rolled back."""


@dataclass(frozen=True, slots=True)
class Given:
    """A table `given` made of parameters, for the FROM of one statement."""

    sql: str
    params: list[Any]


def given(*columns: tuple[str, str, Sequence[Any]]) -> Given:
    """Columns as (name, PostgreSQL type, values), all of one length."""
    if connection.vendor == "postgresql":
        arrays = ", ".join(f"%s::{kind}[]" for _, kind, _ in columns)
        names = ", ".join(name for name, _, _ in columns)
        return Given(f"unnest({arrays}) AS given ({names})", [list(values) for _, _, values in columns])
    cells = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, (name, _, _) in enumerate(columns))
    rows = list(zip(*(values for _, _, values in columns), strict=True))
    return Given(f"(SELECT {cells} FROM json_each(%s)) AS given", [json.dumps(rows)])  # noqa: S608


def write(cursor: CursorWrapper, sql: str, params: list[Any], *, rows: int) -> None:
    """Execute a statement that has to touch exactly so many rows. Raises OutOfStep."""
    cursor.execute(sql, params)
    if cursor.rowcount != rows:
        raise OutOfStep(f"Expected {rows} rows, wrote {cursor.rowcount}: {sql}")
