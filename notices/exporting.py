"""A customer's log of notices as a file."""

import csv
import json
from collections.abc import Iterator, Mapping

from django.http import StreamingHttpResponse

from notices.evidence import COLUMNS, proofs


class _Line:
    """What `csv` writes to: it hands back the line."""

    def write(self, line: str) -> str:
        return line


def exported(customer_id: int, form: str, *, about: str = "") -> StreamingHttpResponse:
    """Everything sent to a customer, written while it is read: `form` is "csv" or "json"."""
    rows = (proof.as_row() for proof in proofs(customer_id, about=about))
    content = _as_csv(rows) if form == "csv" else _as_json(rows)
    kind = "text/csv; charset=utf-8" if form == "csv" else "application/json"
    return StreamingHttpResponse(
        content,
        content_type=kind,
        headers={"Content-Disposition": f'attachment; filename="notices.{form}"'},
    )


def _as_csv(rows: Iterator[Mapping[str, str]]) -> Iterator[str]:
    # Spreadsheets take a file without a mark for something older than UTF-8.
    yield "\ufeff"
    writer = csv.DictWriter(_Line(), COLUMNS)
    yield writer.writeheader()
    for row in rows:
        yield writer.writerow({name: _inert(value) for name, value in row.items()})


def _inert(value: str) -> str:
    """A cell that no spreadsheet takes for a formula."""
    return f"'{value}" if value[:1] in ("=", "+", "-", "@", "\t", "\r") else value


def _as_json(rows: Iterator[Mapping[str, str]]) -> Iterator[str]:
    yield "["
    for number, row in enumerate(rows):
        yield ("" if number == 0 else ",") + "\n" + json.dumps(row, ensure_ascii=False)
    yield "\n]\n"
