"""Receiving devices: whole files or nothing, with everything that is wrong told at once."""

import io
import zipfile
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from datetime import timedelta
from threading import Barrier

import pytest
from django.db import connection

from inventory.models import BatchState, Device, DeviceState, Plan, SupplyBatch, SupplyReceipt
from inventory.receiving import MAX_BYTES, WHOLE_FILE, FileRefused, receive_devices
from inventory.supply import cancel_batch
from tests.builders import NOW, make_batch, make_devices, make_plan, make_user


def csv_of(rows: Sequence[tuple[str, str]], header: str = "code,plan") -> bytes:
    return "\r\n".join([header, *(f"{code},{plan}" for code, plan in rows), ""]).encode()


def codes(count: int, start: int = 1) -> list[str]:
    return [f"AC-{number:08d}" for number in range(start, start + count)]


def rows_of(plan: Plan, count: int) -> list[tuple[str, str]]:
    return [(code, plan.slug) for code in codes(count)]


def receive(
    batch: SupplyBatch, content: bytes, *, is_last: bool = True, name: str = "devices.csv"
) -> SupplyReceipt:
    return receive_devices(
        batch_id=batch.pk,
        file_name=name,
        content=content,
        received_by_id=make_user(is_staff=True).pk,
        is_last=is_last,
        now=NOW,
    )


def problems_of(batch: SupplyBatch, content: bytes) -> list[tuple[int, str, str]]:
    """What is wrong with the file; it must be refused, and nothing of it taken in."""
    before = Device.objects.count(), SupplyReceipt.objects.count()
    with pytest.raises(FileRefused) as refused:
        receive(batch, content)
    assert (Device.objects.count(), SupplyReceipt.objects.count()) == before
    batch.refresh_from_db()
    assert batch.received_units == 0
    return [(problem.row, problem.code, problem.message) for problem in refused.value.problems]


@pytest.mark.clause("1.1")
@pytest.mark.django_db
def test_devices_of_a_file_are_free_in_the_order_of_the_file_and_close_the_batch() -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=3)
    receipt = receive(batch, csv_of([("ZZ-0001", plan.slug), ("AA-0001", plan.slug), ("MM-0001", plan.slug)]))
    devices = Device.objects.order_by("pk")
    assert [(d.code, d.plan, d.state, d.receipt) for d in devices] == [
        (code, plan, DeviceState.FREE, receipt) for code in ("ZZ-0001", "AA-0001", "MM-0001")
    ]
    batch.refresh_from_db()
    assert (batch.state, batch.received_units, batch.received_at, batch.outstanding) == (
        BatchState.RECEIVED,
        3,
        NOW,
        0,
    )
    assert (receipt.file_name, receipt.devices, receipt.received_at) == ("devices.csv", 3, NOW)


@pytest.mark.django_db
def test_fewer_devices_than_announced_close_the_batch_when_no_more_come() -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=10)
    receive(batch, csv_of(rows_of(plan, 4)))
    batch.refresh_from_db()
    assert (batch.state, batch.received_units, batch.quantity) == (BatchState.RECEIVED, 4, 10)


@pytest.mark.django_db
def test_a_batch_stays_expected_while_more_of_it_is_to_come() -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=10)
    receive(batch, csv_of([(code, plan.slug) for code in codes(4)]), is_last=False)
    batch.refresh_from_db()
    assert (batch.state, batch.received_at, batch.outstanding) == (BatchState.EXPECTED, None, 6)
    receive(batch, csv_of([(code, plan.slug) for code in codes(6, start=5)]))
    batch.refresh_from_db()
    assert (batch.state, batch.received_units, batch.receipts.count()) == (BatchState.RECEIVED, 10, 2)


@pytest.mark.parametrize(
    "content",
    [
        "code,plan\nAC-0001,{plan}\n",
        "\ufeffcode,plan\r\nAC-0001,{plan}\r\n",
        "Plan;Code\n{plan};AC-0001",
        "plan,weight,code\n{plan},9,AC-0001\n",
        '"code","plan"\n" AC-0001 ","{plan}"\n',
        "code,plan\n\n,\nAC-0001,{plan}\n ,  \n",
        "code;plan;remark\nAC-0001;{plan};one, two",
    ],
)
@pytest.mark.django_db
def test_columns_in_any_order_delimiter_and_quoting_are_understood(content: str) -> None:
    plan = make_plan()
    receive(make_batch(plan), content.format(plan=plan.slug).encode())
    assert list(Device.objects.values_list("code", flat=True)) == ["AC-0001"]


@pytest.mark.django_db
def test_every_problem_is_told_with_the_row_a_spreadsheet_shows() -> None:
    plan, other = make_plan(), make_plan("V06")
    stocked = make_devices(plan, 1)[0].code
    batch = make_batch(plan)
    content = "\n".join(
        [
            "code,plan,remark",
            f"AC-0001,{plan.slug},",
            f"AC-0001,{plan.slug},again",
            "",
            f"{stocked},{plan.slug},",
            f"AC-0002,{other.slug},",
            f"AC_3,{other.slug},",
            f"AC-0004,{plan.slug}",
            f'AC-0005,{plan.slug},"two\nlines"',
            f",{plan.slug},",
        ]
    )
    assert problems_of(batch, content.encode()) == [
        (3, "AC-0001", "The code is in row 2 too."),
        (5, stocked, "A device with this code is in stock already."),
        (6, "AC-0002", f"The plan is “{other.slug}”, but the batch is of “{plan.slug}”."),
        (7, "AC_3", "A code has 4 to 40 letters (A to Z), digits and hyphens."),
        (7, "AC_3", f"The plan is “{other.slug}”, but the batch is of “{plan.slug}”."),
        (8, "", "The row has 2 cells, the header 3."),
        (10, "", "A code has 4 to 40 letters (A to Z), digits and hyphens."),
    ]


@pytest.mark.clause("1.1")
@pytest.mark.django_db
def test_three_bad_rows_of_ten_thousand_refuse_the_file_and_the_mended_file_is_taken_whole() -> None:
    plan, other = make_plan(), make_plan("V06")
    batch = make_batch(plan, quantity=10_000)
    rows = rows_of(plan, 10_000)
    bad = list(rows)
    bad[99] = bad[0]
    bad[4_999] = ("A#", plan.slug)
    bad[9_999] = (bad[9_999][0], other.slug)
    assert problems_of(batch, csv_of(bad)) == [
        (101, "AC-00000001", "The code is in row 2 too."),
        (5_001, "A#", "A code has 4 to 40 letters (A to Z), digits and hyphens."),
        (10_001, "AC-00010000", f"The plan is “{other.slug}”, but the batch is of “{plan.slug}”."),
    ]
    receive(batch, csv_of(rows))
    batch.refresh_from_db()
    assert Device.objects.filter(plan=plan, state=DeviceState.FREE).count() == 10_000
    assert (batch.state, batch.received_units) == (BatchState.RECEIVED, 10_000)


@pytest.mark.parametrize(
    ("content", "row", "message"),
    [
        (b"", WHOLE_FILE, "The file is empty."),
        (b" \r\n", WHOLE_FILE, "The file is empty."),
        ("code,plan\n".encode("utf-16"), WHOLE_FILE, "The file is in UTF-16. Save it as CSV in UTF-8."),
        (b"code,plan\n\x00\x01,v08\n", WHOLE_FILE, "The file is not text. Save the sheet as CSV in UTF-8."),
        (
            "code,plan,remark\nAC-1,v,\nAC-2,v,café\n".encode("latin-1"),
            3,
            "The file is not in UTF-8. Save it as CSV in UTF-8.",
        ),
        (
            b"code\nAC-0001\n",
            WHOLE_FILE,
            "Row 1 must name the columns code and plan, each once; look at: plan.",
        ),
        (
            b"AC-0001,v08\n",
            WHOLE_FILE,
            "Row 1 must name the columns code and plan, each once; look at: code, plan.",
        ),
        (
            b"code,plan,code\n",
            WHOLE_FILE,
            "Row 1 must name the columns code and plan, each once; look at: code.",
        ),
        (b"code,plan\n", WHOLE_FILE, "The file has no devices: below the header, every row is one device."),
        (
            b'code,plan\nAC-0001,v08\n"AC-0002,v08\n',
            3,
            "The file cannot be read from here on (unexpected end of data). Look for a stray quotation mark.",
        ),
    ],
)
@pytest.mark.django_db
def test_a_file_that_cannot_be_read_is_refused_with_what_to_do(
    content: bytes, row: int, message: str
) -> None:
    assert problems_of(make_batch(make_plan()), content) == [(row, "", message)]


@pytest.mark.django_db
def test_a_workbook_is_refused_with_what_to_do() -> None:
    workbook = io.BytesIO()
    with zipfile.ZipFile(workbook, "w") as archive:
        archive.writestr("xl/workbook.xml", "<workbook/>")
    assert problems_of(make_batch(make_plan()), workbook.getvalue()) == [
        (WHOLE_FILE, "", "The file is a workbook or an archive. Save the sheet as CSV in UTF-8.")
    ]


@pytest.mark.django_db
def test_a_file_too_large_is_refused_before_it_is_read() -> None:
    assert problems_of(make_batch(make_plan()), b"x" * (MAX_BYTES + 1)) == [
        (WHOLE_FILE, "", "The file has more than 5 MB. Split it, and say that more is to come.")
    ]


@pytest.mark.django_db
def test_a_file_with_too_many_rows_is_refused() -> None:
    content = "code,plan\n" + "".join(f"A{number:06d},v08\n" for number in range(100_001))
    assert problems_of(make_batch(make_plan()), content.encode()) == [
        (WHOLE_FILE, "", "The file has more than 100000 rows. Split it, and say that more is to come.")
    ]


@pytest.mark.django_db
def test_more_devices_than_are_outstanding_are_refused() -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=2)
    assert problems_of(batch, csv_of(rows_of(plan, 3))) == [
        (
            WHOLE_FILE,
            "",
            (
                "The file has 3 devices, but 2 of this batch are outstanding. "
                "If the supplier sent more, change the batch's quantity first."
            ),
        )
    ]


@pytest.mark.django_db
def test_the_same_file_is_not_received_twice() -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=4)
    content = csv_of(rows_of(plan, 2))
    receive(batch, content, is_last=False, name="monday.csv")
    with pytest.raises(FileRefused) as refused:
        receive(batch, content, is_last=False, name="tuesday.csv")
    assert [(problem.row, problem.message) for problem in refused.value.problems] == [
        (WHOLE_FILE, "This file was received for the batch already, as monday.csv with 2 devices."),
        (2, "A device with this code is in stock already."),
        (3, "A device with this code is in stock already."),
    ]
    assert Device.objects.count() == 2


@pytest.mark.django_db
def test_nothing_is_received_for_a_cancelled_batch() -> None:
    plan = make_plan()
    batch = make_batch(plan)
    cancel_batch(batch_id=batch.pk)
    assert problems_of(batch, csv_of(rows_of(plan, 1))) == [
        (
            WHOLE_FILE,
            "",
            f"Batch {batch.reference} is cancelled and does not change any more. Announce a new batch instead.",
        )
    ]


@pytest.mark.django_db
def test_a_refusal_in_one_sentence_tells_the_first_problem_and_how_many_more() -> None:
    plan = make_plan()
    with pytest.raises(FileRefused) as refused:
        receive(make_batch(plan), csv_of([("A", plan.slug), ("B", plan.slug)]))
    assert str(refused.value) == (
        "Row 2: A code has 4 to 40 letters (A to Z), digits and hyphens. (and 1 more problem)"
    )


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_the_same_file_received_twice_at_once_is_taken_in_once() -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=500, on=NOW.date() + timedelta(days=1))
    content = csv_of(rows_of(plan, 200))
    staff = make_user(is_staff=True)
    both_ready = Barrier(2)

    def received(name: str) -> bool:
        both_ready.wait()
        try:
            receive_devices(
                batch_id=batch.pk,
                file_name=name,
                content=content,
                received_by_id=staff.pk,
                is_last=False,
                now=NOW,
            )
        except FileRefused:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(received, ["one.csv", "two.csv"]))
    batch.refresh_from_db()
    assert sorted(outcomes) == [False, True]
    assert (Device.objects.count(), SupplyReceipt.objects.count(), batch.received_units) == (200, 1, 200)
    assert SupplyReceipt.objects.get().file_name == ["one.csv", "two.csv"][outcomes.index(True)]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_the_same_devices_received_for_two_batches_at_once_are_taken_in_once() -> None:
    plan = make_plan()
    batches = [make_batch(plan, quantity=500) for _ in range(2)]
    content = csv_of(rows_of(plan, 200))
    staff = make_user(is_staff=True)
    both_ready = Barrier(2)

    def received(batch: SupplyBatch) -> bool:
        both_ready.wait()
        try:
            receive_devices(
                batch_id=batch.pk,
                file_name="devices.csv",
                content=content,
                received_by_id=staff.pk,
                is_last=True,
                now=NOW,
            )
        except FileRefused:
            return False
        finally:
            connection.close()
        return True

    with ThreadPoolExecutor(2) as pool:
        outcomes = list(pool.map(received, batches))
    assert sorted(outcomes) == [False, True]
    assert Device.objects.count() == 200
    states = sorted(SupplyBatch.objects.values_list("state", flat=True))
    assert states == [BatchState.EXPECTED, BatchState.RECEIVED]


@pytest.mark.django_db
def test_batch_that_is_complete_is_closed_whatever_was_said() -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=4)

    receive(batch, csv_of([(code, plan.slug) for code in codes(4)]), is_last=False)

    batch.refresh_from_db()
    assert (batch.state, batch.received_at) == (BatchState.RECEIVED, NOW)
