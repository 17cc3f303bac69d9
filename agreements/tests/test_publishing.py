"""Published once, kept for good: the wording of the files is the wording of the database."""

import hashlib
from datetime import UTC, date, datetime
from pathlib import Path

import pytest
from django.core.management import call_command
from django.core.management.base import CommandError
from django.db import DatabaseError, connection, transaction

from accounts.models import User
from agreements.acceptance import Consent, Witness, record_acceptances, required_of_buyer
from agreements.models import Acceptance, Document, Text, Version
from agreements.publishing import (
    SHIPPED,
    NotPublishable,
    TextDiffers,
    publish_shipped_texts,
    shipped_versions,
)
from agreements.tests.editions import NOW, PREPAYMENT_BODY, write_edition

pytestmark = pytest.mark.django_db


def contents() -> tuple[list[object], list[object]]:
    """Every column of every row, to compare before and after."""
    return list(Version.objects.order_by("pk").values()), list(Text.objects.order_by("pk").values())


def test_shipped_texts_are_stored_byte_for_byte() -> None:
    publish_shipped_texts(now=NOW)

    files = sorted(SHIPPED.glob("*/*/*.md"))
    assert {file.parts[-3] for file in files} == set(Document.values)
    for file in files:
        text = Text.objects.get(
            version__document=file.parts[-3], version__number=int(file.parts[-2]), language=file.stem
        )
        assert text.body.encode() == file.read_bytes()
        assert text.sha256 == hashlib.sha256(file.read_bytes()).hexdigest()
    assert Text.objects.count() == len(files)


def test_line_ends_and_surrounding_blanks_are_part_of_the_wording(tmp_path: Path) -> None:
    body = "\r\n # Title\r\n\r\nOne.\n\u3000Two. \n\n"
    write_edition(tmp_path, bodies={"en": body})

    publish_shipped_texts(now=NOW, folder=tmp_path)

    assert Text.objects.get().body == body
    assert Text.objects.get().sha256 == hashlib.sha256(body.encode()).hexdigest()


def test_dates_are_midnights_in_hong_kong(tmp_path: Path) -> None:
    write_edition(tmp_path, on=date(2025, 3, 21), effective_on=date(2025, 4, 1))

    publish_shipped_texts(now=NOW, folder=tmp_path)

    version = Version.objects.get()
    assert version.published_at == datetime(2025, 3, 20, 16, tzinfo=UTC)
    assert version.effective_at == datetime(2025, 3, 31, 16, tzinfo=UTC)


def test_publishing_again_changes_nothing(published: Path) -> None:
    before = contents()

    publication = publish_shipped_texts(now=NOW, folder=published)

    assert publication.added == ()
    assert contents() == before


@pytest.mark.clause("9.1")
def test_new_version_is_added_beside_the_old_and_binds_from_its_date(published: Path) -> None:
    write_edition(published, number=2, on=date(2026, 12, 1))

    publication = publish_shipped_texts(now=NOW, folder=published)

    assert [(text.version.number, text.language) for text in publication.added] == [(2, "en"), (2, "zh-hans")]
    assert publication.in_force[Document.PREPAYMENT].number == 1
    midnight = datetime(2026, 11, 30, 16, tzinfo=UTC)
    assert Version.objects.in_force(midnight)[Document.PREPAYMENT].number == 2


def test_language_added_to_a_published_version_leaves_its_other_texts_alone(tmp_path: Path) -> None:
    edition = write_edition(tmp_path, bodies={"en": PREPAYMENT_BODY})
    publish_shipped_texts(now=NOW, folder=tmp_path)
    english = Text.objects.values().get()
    for file in edition.iterdir():
        file.unlink()
    edition.rmdir()
    write_edition(tmp_path)

    publication = publish_shipped_texts(now=NOW, folder=tmp_path)

    assert [text.language for text in publication.added] == ["zh-hans"]
    assert Text.objects.filter(language="en").values().get() == english


@pytest.mark.clause("9.1")
def test_changed_file_is_refused_and_nothing_is_published(published: Path) -> None:
    before = contents()
    (published / "prepayment/1/en.md").write_text(
        PREPAYMENT_BODY.replace("No refunds", "Refunds"), encoding="utf-8"
    )
    write_edition(published, number=2, on=date(2026, 12, 1))

    with pytest.raises(TextDiffers) as refusal:
        publish_shipped_texts(now=NOW, folder=published)

    assert len(refusal.value.differences) == 1
    assert refusal.value.differences[0].startswith("prepayment 1, en: the body that was published")
    assert contents() == before


def test_changed_date_title_or_important_clauses_are_each_named(published: Path) -> None:
    facts = published / "prepayment/1/version.toml"
    facts.write_text(
        facts.read_text(encoding="utf-8")
        .replace("effective_on = 2025-03-21", "effective_on = 2025-03-22")
        .replace("prepayment (en)", "Another title")
        .replace('["II", "3.3"]', '["II"]'),
        encoding="utf-8",
    )

    with pytest.raises(TextDiffers) as refusal:
        publish_shipped_texts(now=NOW, folder=published)

    assert refusal.value.differences == [
        "prepayment 1: effective_at is 2025-03-20 16:00 UTC in the database, but 2025-03-22 00:00 HKT ships.",
        "prepayment 1, en: title is not what was published.",
        "prepayment 1, en: important is not what was published.",
        "prepayment 1, zh-hans: important is not what was published.",
    ]


def test_text_tampered_with_behind_the_trigger_is_detected(published: Path) -> None:
    drop = "DROP TRIGGER agreements_text_no_update"
    with connection.cursor() as cursor:
        cursor.execute(drop if connection.vendor == "sqlite" else f"{drop} ON agreements_text")
        cursor.execute("UPDATE agreements_text SET body = body || 'x' WHERE language = 'en'")

    with pytest.raises(TextDiffers, match=r"prepayment 1, en: .* was tampered with"):
        publish_shipped_texts(now=NOW, folder=published)


@pytest.mark.parametrize(
    ("line", "instead", "complaint"),
    [
        ("number = 1", "number = 2", "calls itself number 2"),
        ("number = 1", "", "does not say: number"),
        ('authoritative = "en"', 'authoritative = "de"', "no text in its authoritative language, de"),
        ("effective_on = 2025-03-21", "effective_on = 2025-03-20", "takes effect before it is published"),
        ('en = "prepayment (en)"', "", "no title in: en"),
    ],
)
def test_incomplete_version_is_refused(tmp_path: Path, line: str, instead: str, complaint: str) -> None:
    facts = write_edition(tmp_path) / "version.toml"
    facts.write_text(facts.read_text(encoding="utf-8").replace(line, instead), encoding="utf-8")

    with pytest.raises(NotPublishable, match=complaint):
        publish_shipped_texts(now=NOW, folder=tmp_path)

    assert not Version.objects.exists()


def test_text_in_an_unknown_language_is_refused(tmp_path: Path) -> None:
    write_edition(tmp_path, bodies={"en": "# A\n", "xx": "# B\n"})

    with pytest.raises(NotPublishable, match="languages the shop does not speak: xx"):
        publish_shipped_texts(now=NOW, folder=tmp_path)


def test_versions_are_read_in_the_order_of_their_numbers(tmp_path: Path) -> None:
    for number in (10, 2, 1):
        write_edition(tmp_path, number=number)

    assert [version.number for version in shipped_versions(tmp_path)] == [1, 2, 10]


def test_command_says_what_it_published(capsys: pytest.CaptureFixture[str]) -> None:
    call_command("publish_agreements")
    first = capsys.readouterr().out
    call_command("publish_agreements")
    second = capsys.readouterr().out

    shipped = [(version, text) for version in shipped_versions() for text in version.texts]
    for version, text in shipped:
        assert f"published {version}, {text.language}: {text.sha256}\n" in first
    assert second.startswith("nothing new to publish\nin force: prepayment ")


def test_command_fails_on_a_text_that_differs() -> None:
    elsewhere = Version.objects.create(
        document=Document.PREPAYMENT, number=1, published_at=NOW, effective_at=NOW
    )

    with pytest.raises(
        CommandError, match=r"Not everything was published\.\nprepayment 1: published_at is 2026-11-23"
    ):
        call_command("publish_agreements")

    assert Version.objects.get() == elsewhere
    assert not Text.objects.exists()


@pytest.mark.clause("9.5")
@pytest.mark.parametrize(
    "statement",
    [
        "UPDATE agreements_text SET body = 'Refunds for everybody.'",
        "UPDATE agreements_text SET sha256 = ''",
        "DELETE FROM agreements_text",
        "UPDATE agreements_version SET effective_at = '2020-01-01 00:00:00+00:00'",
        "UPDATE agreements_version SET number = 9",
        "DELETE FROM agreements_version",
        "UPDATE agreements_acceptance SET text_sha256 = ''",
        "UPDATE agreements_acceptance SET accepted_at = '2020-01-01 00:00:00+00:00'",
        "DELETE FROM agreements_acceptance",
    ],
)
def test_database_refuses_to_change_what_was_agreed(published: Path, customer: User, statement: str) -> None:
    required = required_of_buyer(now=NOW, language="en", right=None)
    record_acceptances(
        customer_id=customer.pk,
        order_reference="O-1",
        required=required,
        consents=[
            Consent(each.text.pk, each.subject, each.role, customer.name, customer.email, each.statement)
            for each in required
        ],
        witness=Witness(ip_address=None, user_agent=""),
        now=NOW,
    )
    acceptances = list(Acceptance.objects.order_by("pk").values())
    before = contents()

    with pytest.raises(DatabaseError, match="refused"), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(statement)

    assert contents() == before
    assert list(Acceptance.objects.order_by("pk").values()) == acceptances
