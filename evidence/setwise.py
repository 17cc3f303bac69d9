"""Many rows in one statement: a table made of parameters, for PostgreSQL and SQLite.

A sweep writes thousands of rows while others wait for its locks. Model instances cost more than the database does.
"""

import json
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

from django.db import connection
from django.db.backends.utils import CursorWrapper


class OutOfStep(Exception):
    """The tables changed under locks that nothing is allowed to go round. The transaction is rolled back."""


NUL = "\0"


@dataclass(frozen=True, slots=True)
class Given:
    """A table `given` made of parameters, for the FROM of one statement."""

    sql: str
    params: list[str]


def given(*columns: tuple[str, str, Sequence[Any]]) -> Given:
    """Columns as (name, PostgreSQL type, values), all of one length: numbers, texts, times, and jsonb of whatever JSON has.

    The column `n` counts the rows from 1.
    """
    if connection.vendor == "postgresql":
        # One text for all values of a column: a literal, since the driver would convert value by value.
        plain = [column for column in columns if column[1] != "jsonb"]
        nested = [column for column in columns if column[1] == "jsonb"]
        rows_from = [
            f"unnest({', '.join(f'%s::{kind}[]' for _, kind, _ in plain)})",
            *("jsonb_array_elements(%s)" for _ in nested),
        ]
        names = ", ".join(name for name, _, _ in (*plain, *nested))
        return Given(
            f"ROWS FROM ({', '.join(rows_from)}) WITH ORDINALITY AS given ({names}, n)",
            [
                *(_array(kind, values) for _, kind, values in plain),
                *(json.dumps(values) for _, _, values in nested),
            ],
        )
    cells = ", ".join(f"json_extract(value, '$[{n}]') AS {name}" for n, (name, _, _) in enumerate(columns))
    texts = (map(json.dumps, values) if kind == "jsonb" else values for _, kind, values in columns)
    rows = list(zip(*texts, strict=True))
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


def _array(kind: str, values: Sequence[Any]) -> str:
    """The literal of an array."""
    if kind in ("bigint", "integer"):
        return "{" + ",".join(map(str, values)) + "}"
    texts = [value.isoformat() if isinstance(value, datetime) else value for value in values]
    # All values are escaped at once, joined by what no text can contain.
    joined = NUL.join(texts)
    if joined.count(NUL) >= max(len(texts), 1):
        raise ValueError("A text cannot contain NUL.")
    escaped = joined.replace("\\", "\\\\").replace('"', '\\"').replace(NUL, '","')
    return f'{{"{escaped}"}}' if texts else "{}"
