"""Receiving devices: a CSV file of codes is taken in whole, or refused with everything that is wrong in it."""

import csv
import hashlib
import io
import json
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

from django.db import IntegrityError, connection, transaction
from django.db.models.expressions import RawSQL
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from inventory.models import BatchState, Device, SupplyBatch, SupplyReceipt
from inventory.supply import BatchClosed, lock_expected

MAX_BYTES = 5_000_000
MAX_ROWS = 100_000
CHUNK = 5_000
COLUMNS = ("code", "plan")
DELIMITERS = (",", ";")
# Row number of a problem with the file as a whole.
WHOLE_FILE = 0

CODE = re.compile(r"[A-Za-z0-9-]{4,40}")
UTF_16 = (b"\xff\xfe", b"\xfe\xff")
ZIP = b"PK\x03\x04"  # what .xlsx and .ods files begin with


@dataclass(frozen=True, slots=True)
class RowProblem:
    """What is wrong with one row. Rows are counted as in a spreadsheet: the header is row 1.

    `row` is WHOLE_FILE, and `code` empty, where the file as a whole is refused.
    """

    row: int
    code: str
    message: str


class FileRefused(Exception):
    """Nothing of the file was taken in. `problems` has everything that is wrong with it, in row order."""

    def __init__(self, problems: Sequence[RowProblem]) -> None:
        super().__init__(problems)
        self.problems = sorted(problems, key=lambda problem: problem.row)

    def __str__(self) -> str:
        first = self.problems[0]
        row = _("Row %(row)d: ") % {"row": first.row} if first.row != WHOLE_FILE else ""
        more = len(self.problems) - 1
        rest = ngettext(" (and %(more)d more problem)", " (and %(more)d more problems)", more) % {
            "more": more
        }
        return row + first.message + (rest if more else "")


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the file whose cells are where they belong."""

    number: int
    code: str
    plan: str


def receive_devices(
    *, batch_id: int, file_name: str, content: bytes, received_by_id: int, is_last: bool, now: datetime
) -> SupplyReceipt:
    """Take the devices of a CSV file into stock, free to be allocated, in the order of the file.

    The file is UTF-8 with a header row and the columns `code` and `plan` (the plan's address in the shop), in
    any order, separated by commas or semicolons; other columns and empty rows are ignored. `is_last` closes
    the batch as received, even when fewer devices came than were announced. Raises FileRefused.
    """
    rows, problems = _read(content)
    digest = hashlib.sha256(content).hexdigest()
    with transaction.atomic(durable=True):
        try:
            batch = lock_expected(batch_id)
        except BatchClosed as closed:
            raise FileRefused([_of_file(str(closed))]) from closed
        problems += _problems_of_receipt(batch, digest)
        if not problems or rows:
            problems += _problems_of_rows(batch, rows)
        if problems:
            raise FileRefused(problems)
        receipt = SupplyReceipt.objects.create(
            batch=batch,
            file_name=file_name[-200:],
            file_sha256=digest,
            devices=len(rows),
            received_at=now,
            received_by_id=received_by_id,
        )
        try:
            for start in range(0, len(rows), CHUNK):
                Device.objects.bulk_create(
                    [
                        Device(plan_id=batch.plan_id, code=row.code, receipt=receipt)
                        for row in rows[start : start + CHUNK]
                    ]
                )
        except IntegrityError as duplicate:
            # Only another file with the same codes, received for another batch since we looked.
            raise FileRefused(
                [_of_file(_("Devices of this file were received with another one just now. Try again."))]
            ) from duplicate
        batch.received_units += len(rows)
        if is_last or batch.received_units == batch.quantity:
            batch.state = BatchState.RECEIVED
            batch.received_at = now
        batch.save(update_fields=["received_units", "state", "received_at"])
    return receipt


def _problems_of_receipt(batch: SupplyBatch, digest: str) -> list[RowProblem]:
    earlier = batch.receipts.filter(file_sha256=digest).first()
    if earlier is None:
        return []
    message = _("This file was received for the batch already, as %(file)s with %(devices)d devices.")
    return [_of_file(message % {"file": earlier.file_name, "devices": earlier.devices})]


def _problems_of_rows(batch: SupplyBatch, rows: Sequence[_Row]) -> list[RowProblem]:
    """Everything about the rows that only the database knows."""
    problems: list[RowProblem] = []
    if not rows:
        problems.append(_of_file(_("The file has no devices: below the header, every row is one device.")))
    if len(rows) > batch.outstanding:
        message = ngettext(
            "The file has %(devices)d device, but %(outstanding)d of this batch are outstanding. "
            "If the supplier sent more, change the batch's quantity first.",
            "The file has %(devices)d devices, but %(outstanding)d of this batch are outstanding. "
            "If the supplier sent more, change the batch's quantity first.",
            len(rows),
        )
        problems.append(_of_file(message % {"devices": len(rows), "outstanding": batch.outstanding}))
    in_stock = _in_stock([row.code for row in rows])
    for row in rows:
        if row.plan != batch.plan.slug:
            message = _("The plan is “%(plan)s”, but the batch is of “%(expected)s”.")
            problems.append(
                RowProblem(row.number, row.code, message % {"plan": row.plan, "expected": batch.plan.slug})
            )
        if row.code in in_stock:
            problems.append(
                RowProblem(row.number, row.code, _("A device with this code is in stock already."))
            )
    return problems


def _in_stock(codes: list[str]) -> frozenset[str]:
    """Those of the codes that are devices already, in one statement however many there are."""
    if connection.vendor == "postgresql":
        given = RawSQL("SELECT unnest(%s::text[])", [codes])
    else:
        given = RawSQL("SELECT value FROM json_each(%s)", [json.dumps(codes)])
    return frozenset(Device.objects.filter(code__in=given).values_list("code", flat=True))


def _read(content: bytes) -> tuple[list[_Row], list[RowProblem]]:
    """The rows of a file that have a code and a plan, and what is wrong with the others.

    Raises FileRefused where the file cannot be read at all.
    """
    text = _decoded(content)
    records = _records(csv.reader(io.StringIO(text, newline=""), delimiter=_delimiter(text), strict=True))
    _number, header = next(records, (1, []))
    names = [cell.strip().lower() for cell in header]
    missing = [column for column in COLUMNS if names.count(column) != 1]
    if missing:
        raise FileRefused(
            [
                _of_file(
                    _("Row 1 must name the columns code and plan, each once; look at: %(columns)s.")
                    % {"columns": ", ".join(missing)}
                )
            ]
        )
    rows: list[_Row] = []
    problems: list[RowProblem] = []
    first_rows: dict[str, int] = {}
    count = 0
    for number, cells in records:
        if not any(cell.strip() for cell in cells):
            continue
        count += 1
        if count > MAX_ROWS:
            message = _("The file has more than %(rows)d rows. Split it, and say that more is to come.")
            raise FileRefused([_of_file(message % {"rows": MAX_ROWS})])
        if len(cells) != len(names):
            message = _("The row has %(cells)d cells, the header %(columns)d.")
            problems.append(RowProblem(number, "", message % {"cells": len(cells), "columns": len(names)}))
            continue
        row = _Row(number, cells[names.index("code")].strip(), cells[names.index("plan")].strip())
        if not CODE.fullmatch(row.code):
            message = _("A code has 4 to 40 letters (A to Z), digits and hyphens.")
            problems.append(RowProblem(number, row.code, message))
        elif row.code in first_rows:
            message = _("The code is in row %(row)d too.") % {"row": first_rows[row.code]}
            problems.append(RowProblem(number, row.code, message))
        else:
            first_rows[row.code] = number
        rows.append(row)
    return rows, problems


def _records(reader: Iterator[list[str]]) -> Iterator[tuple[int, list[str]]]:
    """Number the records as a spreadsheet does: a line break inside quotes does not count."""
    number = 0
    while True:
        number += 1
        try:
            cells = next(reader)
        except StopIteration:
            return
        except csv.Error as error:
            message = _(
                "The file cannot be read from here on (%(problem)s). Look for a stray quotation mark."
            )
            raise FileRefused([RowProblem(number, "", message % {"problem": error})]) from error
        yield number, cells


def _decoded(content: bytes) -> str:
    if not content.strip():
        raise FileRefused([_of_file(_("The file is empty."))])
    if len(content) > MAX_BYTES:
        message = _("The file has more than %(megabytes)d MB. Split it, and say that more is to come.")
        raise FileRefused([_of_file(message % {"megabytes": MAX_BYTES // 1_000_000})])
    if content.startswith(UTF_16):
        raise FileRefused([_of_file(_("The file is in UTF-16. Save it as CSV in UTF-8."))])
    if content.startswith(ZIP):
        raise FileRefused(
            [_of_file(_("The file is a workbook or an archive. Save the sheet as CSV in UTF-8."))]
        )
    if b"\0" in content:
        raise FileRefused([_of_file(_("The file is not text. Save the sheet as CSV in UTF-8."))])
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        row = content.count(b"\n", 0, error.start) + 1
        message = _("The file is not in UTF-8. Save it as CSV in UTF-8.")
        raise FileRefused([RowProblem(row, "", message)]) from error


def _delimiter(text: str) -> str:
    """The one that makes the most columns of the header."""
    header = text.split("\n", 1)[0]
    return max(DELIMITERS, key=header.count)


def _of_file(message: str) -> RowProblem:
    return RowProblem(WHOLE_FILE, "", message)
