"""Letters: printed once, sent on the day they are posted, given up when they come back."""

import io
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta

import pypdf
import pytest
from django.db import DatabaseError, transaction
from pytest_django import Settings

from accounts.models import User
from notices.broadcasts import go_on, submit
from notices.kinds import ALLOCATED, TERMINATED
from notices.letters import NothingToPrint, NotPosted, mark_posted, mark_returned, print_batch
from notices.models import ContactPoint, Delivery, LetterBatch, Preference
from notices.outbox import drain, tell
from notices.tests.samples import customer, draft, told

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

# Half past twelve at noon of the 23rd in Hong Kong.
NOW = datetime(2026, 11, 23, 4, 30, tzinfo=UTC)
TODAY = date(2026, 11, 23)


@pytest.fixture(autouse=True)
def ours(settings: Settings) -> None:
    settings.SELLER_NAME = "VMOS Cloud Ltd"
    settings.SELLER_ADDRESS = "1 Harbour Road\nHong Kong"


@pytest.fixture
def staff() -> User:
    return customer("staff@example.com")


def writes_to(
    reader: User, *, name: str = "Ada Lovelace", lines: tuple[str, ...] = ("12 St James's Square", "London")
) -> ContactPoint:
    """A customer who wants letters of what is allocated to him."""
    Preference.objects.create(
        customer=reader, kind=ALLOCATED.slug, channel="letter", is_wanted=True, changed_at=NOW
    )
    point: ContactPoint = ContactPoint.objects.create(
        customer=reader,
        channel="letter",
        address=", ".join((name, *lines)),
        details={"name": name, "lines": list(lines), "country": "GB"},
        created_at=NOW,
        verified_at=NOW,
    )
    return point


def letter(reader: User, *, key: str = "allocated:1") -> Delivery:
    """A letter to him that is due."""
    told(reader, kind=ALLOCATED, key=key, now=NOW)
    drain(now=NOW)
    delivery: Delivery = Delivery.objects.get(channel="letter", notice__dedupe_key=key)
    return delivery


def pages(batch: LetterBatch) -> list[str]:
    return [page.extract_text() for page in pypdf.PdfReader(io.BytesIO(batch.pdf)).pages]


def test_no_worker_takes_a_letter(staff: User) -> None:
    ada = customer()
    writes_to(ada)
    assert letter(ada).state == "queued"


def test_letters_that_are_due_are_printed_in_one_file_each_on_a_page_of_its_own(staff: User) -> None:
    ada, lin = customer(), customer("lin@example.com", language="zh-hans")
    writes_to(ada)
    writes_to(lin, name="林美", lines=("深圳市福田区深南大道1号",))
    to_ada, to_lin = letter(ada), letter(lin, key="allocated:2")

    batch = print_batch(by_id=staff.pk, now=NOW)

    first, second = pages(batch)
    for words in (
        "VMOS Cloud Ltd · 1 Harbour Road",
        "Ada Lovelace",
        "UNITED KINGDOM",
        "Nov. 23, 2026",
        "Order VP-7K2M: your cloud phone is ready",
        f"delivery-{to_ada.pk}",
    ):
        assert words in first
    for words in ("林美", "深圳市福田区深南大道1号", "2026年11月23日", f"delivery-{to_lin.pk}"):
        # Reading a PDF puts blanks between the scripts.
        assert words in second.replace(" ", "")
    assert set(Delivery.objects.filter(channel="letter").values_list("state", "attempts")) == {("sending", 1)}
    # Lying on a desk is no silence.
    drain(now=NOW + timedelta(days=2))
    assert set(Delivery.objects.filter(channel="letter").values_list("state", flat=True)) == {"sending"}
    with pytest.raises(NothingToPrint):
        print_batch(by_id=staff.pk, now=NOW)


def test_the_day_of_posting_is_the_sending_date(staff: User) -> None:
    ada = customer()
    writes_to(ada)
    delivery = letter(ada)
    batch = print_batch(by_id=staff.pk, now=NOW)
    wednesday = NOW + timedelta(days=2)

    mark_posted(
        batch_id=batch.pk,
        posted_on=date(2026, 11, 24),
        receipt="RR123456785HK",
        by_id=staff.pk,
        now=wednesday,
    )

    delivery.refresh_from_db()
    # Noon in Hong Kong: nobody noted the hour.
    assert (delivery.state, delivery.sent_at) == ("sent", datetime(2026, 11, 24, 4, tzinfo=UTC))
    assert delivery.provider_reference == "RR123456785HK"
    assert [event.step for event in delivery.events.all()] == ["begun", "accepted"]


@pytest.mark.parametrize("posted_on", [date(2026, 11, 22), date(2026, 11, 24)])
def test_a_batch_is_not_posted_before_it_is_printed_nor_tomorrow(staff: User, posted_on: date) -> None:
    ada = customer()
    writes_to(ada)
    letter(ada)
    batch = print_batch(by_id=staff.pk, now=NOW)
    with pytest.raises(NotPosted, match="between the day it was printed and today"):
        mark_posted(batch_id=batch.pk, posted_on=posted_on, receipt="", by_id=staff.pk, now=NOW)
    assert Delivery.objects.get(channel="letter").state == "sending"


def test_a_batch_is_posted_once_and_what_was_printed_stays(staff: User) -> None:
    ada = customer()
    writes_to(ada)
    letter(ada)
    batch = print_batch(by_id=staff.pk, now=NOW)
    mark_posted(batch_id=batch.pk, posted_on=TODAY, receipt="", by_id=staff.pk, now=NOW)
    with pytest.raises(NotPosted, match=r"It was posted on Nov\. 23, 2026 already"):
        mark_posted(batch_id=batch.pk, posted_on=TODAY, receipt="", by_id=staff.pk, now=NOW)
    with pytest.raises(DatabaseError), transaction.atomic():
        LetterBatch.objects.filter(pk=batch.pk).update(pdf=b"another")


def test_a_letter_that_no_font_can_print_is_not_printed_and_staff_see_why(staff: User) -> None:
    ada, lin = customer(), customer("lin@example.com")
    writes_to(ada, name="Ada \U0001f4ee")
    writes_to(lin)
    odd, plain = letter(ada), letter(lin, key="allocated:2")
    batch = print_batch(by_id=staff.pk, now=NOW)
    odd.refresh_from_db()
    assert (odd.state, odd.problem) == ("dead", "No font of ours can print: \U0001f4ee")
    assert [each.delivery for each in batch.letters.all()] == [plain]


def test_a_letter_that_comes_back_gives_its_address_up(staff: User) -> None:
    ada = customer()
    point = writes_to(ada)
    delivery = letter(ada)
    batch = print_batch(by_id=staff.pk, now=NOW)
    assert not mark_returned(delivery_id=delivery.pk, reason="moved", now=NOW)
    mark_posted(batch_id=batch.pk, posted_on=TODAY, receipt="", by_id=staff.pk, now=NOW)

    later = NOW + timedelta(days=9)
    assert mark_returned(delivery_id=delivery.pk, reason="moved", now=later)

    point.refresh_from_db()
    assert (point.removed_at, point.removal) == (later, "moved")
    assert delivery.events.filter(step="returned").exists()
    # It was sent all the same.
    delivery.refresh_from_db()
    assert delivery.state == "sent"


def test_without_our_own_address_no_letter_is_made(settings: Settings, staff: User) -> None:
    settings.SELLER_ADDRESS = ""
    ada = customer()
    writes_to(ada)
    told(ada, kind=ALLOCATED, key="allocated:1", now=NOW)
    drain(now=NOW)
    assert not Delivery.objects.filter(channel="letter").exists()
    assert "letter" in TERMINATED.channels


def test_a_letter_that_cannot_be_written_keeps_no_other_from_being_printed(
    staff: User, caplog: pytest.LogCaptureFixture
) -> None:
    ada, lin = customer(), customer("lin@example.com")
    writes_to(ada)
    writes_to(lin)
    with transaction.atomic():
        tell([replace(draft(ada, kind=ALLOCATED, key="odd"), facts={"reference": "VP-7K2M"})], now=NOW)
    plain = letter(lin, key="allocated:2")

    batch = print_batch(by_id=staff.pk, now=NOW)

    assert [each.delivery for each in batch.letters.all()] == [plain]
    odd = Delivery.objects.get(channel="letter", notice__dedupe_key="odd")
    assert (odd.state, odd.attempts, odd.due_at > NOW) == ("queued", 1, True)
    assert "It cannot be written" in odd.problem
    assert "cannot be written" in caplog.text


def test_a_letter_to_an_address_that_was_replaced_in_between_goes_nowhere(staff: User) -> None:
    ada, lin = customer(), customer("lin@example.com")
    writes_to(ada)
    writes_to(lin)
    old = replace(draft(ada, key="old"), to_channel="letter", to_address="1 Old Street")
    with transaction.atomic():
        tell([old], now=NOW)
    plain = letter(lin, key="allocated:2")

    batch = print_batch(by_id=staff.pk, now=NOW)

    assert [each.delivery for each in batch.letters.all()] == [plain]
    refused = Delivery.objects.get(channel="letter", notice__dedupe_key="old")
    assert (refused.state, refused.problem) == ("dead", "It has no postal address.")


def test_nothing_counts_as_posted_before_it_was_printed(staff: User) -> None:
    afternoon = NOW + timedelta(hours=4)
    ada = customer()
    writes_to(ada)
    delivery = letter(ada)
    batch = print_batch(by_id=staff.pk, now=afternoon)
    tomorrow = NOW + timedelta(days=1)
    mark_posted(batch_id=batch.pk, posted_on=TODAY, receipt="", by_id=staff.pk, now=tomorrow)
    delivery.refresh_from_db()
    assert delivery.sent_at == afternoon


def test_what_staff_typed_into_a_form_keeps_its_paragraphs(staff: User) -> None:
    ada = customer()
    writes_to(ada)
    said = {"title": "The end", "body": "It is over.\r\n\r\nWe are sorry,\r\nall of us.\v"}
    texts = dict.fromkeys(("en", "zh-hans", "zh-hant"), said)
    submit(kind=TERMINATED, segment={}, texts=texts, is_announced=False, by_id=staff.pk, now=NOW)
    go_on(now=NOW)
    drain(now=NOW)
    [delivery] = Delivery.objects.filter(channel="letter", notice__recipient=ada)
    print_batch(by_id=staff.pk, now=NOW)
    delivery.refresh_from_db()
    assert delivery.message
    assert delivery.message.body == "It is over.\n\nWe are sorry,\nall of us."
