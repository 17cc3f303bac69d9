"""Many rows in one statement: a table made of parameters, for PostgreSQL and SQLite.

A sweep writes thousands of rows while others wait for its locks. Model instances cost more than the database does.
"""

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper


class OutOfStep(Exception):
    """The tables changed under locks that nothing is allowed to go round. The transaction is rolled back."""


@dataclass(frozen=True, slots=True)
class Given:
    """A table `given` made of parameters, for the FROM of one statement."""

    sql: str
    params: list[str]


def given(*columns: tuple[str, str, Sequence[Any]]) -> Given:
    """Columns as (name, PostgreSQL type, values), all of one length: numbers, texts and times.

    The column `n` counts the rows from 1.
    """
    if connection.vendor == "postgresql":
        arrays = ", ".join(f"%s::{kind}[]" for _, kind, _ in columns)
        names = ", ".join(name for name, _, _ in columns)
        return Given(
            f"unnest({arrays}) WITH ORDINALITY AS given ({names}, n)",
            [_array(kind, values) for _, kind, values in columns],
        )
    cells = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, (name, _, _) in enumerate(columns))
    rows = list(zip(*(values for _, _, values in columns), strict=True))
    return Given(
        f"(SELECT {cells}, key + 1 AS n FROM json_each(%s)) AS given",  # noqa: S608
        [json.dumps(rows, default=as_written)],
    )


def as_written(moment: datetime) -> str:
    """A time as the database takes it."""
    return str(connection.ops.adapt_datetimefield_value(moment))


def write(cursor: CursorWrapper, sql: str, params: list[Any], *, rows: int) -> None:
    """Execute a statement that has to touch exactly so many rows. Raises OutOfStep."""
    cursor.execute(sql, params)
    if cursor.rowcount != rows:
        raise OutOfStep(f"Expected {rows} rows, wrote {cursor.rowcount}: {sql}")


def _array(kind: str, values: Iterable[Any]) -> str:
    """A literal: the driver would convert value by value."""
    if kind in ("bigint", "integer"):
        return "{" + ",".join(map(str, values)) + "}"
    return "{" + ",".join(map(_element, values)) + "}"


def _element(value: str | datetime) -> str:
    if isinstance(value, datetime):
        return f'"{value.isoformat()}"'
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'
