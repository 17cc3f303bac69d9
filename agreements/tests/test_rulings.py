"""A clause that an authority holds invalid: the text stays, the mark shows, the rest remains in force."""

from datetime import date
from pathlib import Path

import pytest

from accounts.models import User
from agreements.models import Document, Finding, Ruling, Version
from agreements.rulings import CannotRule, invalid_clauses, record_ruling
from agreements.tests.editions import NOW, PREPAYMENT_BODY
from agreements.texts import render, table_of_contents

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("9.3")]


@pytest.fixture
def version(published: Path) -> Version:
    return Version.objects.get(document=Document.PREPAYMENT)


def rule(
    version: Version,
    staff: User,
    *,
    clause: str = "3.3",
    finding: Finding = Finding.INVALID,
    authority: str = "High Court",
    on: date = date(2026, 11, 20),
) -> Ruling:
    return record_ruling(
        version_id=version.pk,
        clause=clause,
        finding=finding,
        authority=authority,
        reference="HCA 1/2026",
        decided_on=on,
        recorded_by_id=staff.pk,
        now=NOW,
    )


def test_the_clause_is_marked_and_the_text_is_unchanged(version: Version, customer: User) -> None:
    rule(version, customer)

    text = version.texts.get(language="en")
    assert text.body == PREPAYMENT_BODY
    html = render(text)
    assert (
        '<p class="clause__invalid">Held invalid by High Court, HCA 1/2026, Nov. 20, 2026. The rest of the '
        "agreement remains in force (9.3).</p>\n<h4" in html
    )
    assert html.count("clause__invalid") == 1
    chapters = table_of_contents(text)
    assert [
        heading.anchor
        for chapter in chapters
        for heading in (chapter, *chapter.children)
        if heading.is_invalid
    ] == ["3.3"]
    assert Version.objects.in_force(NOW)[Document.PREPAYMENT] == version


def test_it_is_marked_in_every_language_and_every_copy_on_a_page(version: Version, customer: User) -> None:
    rule(version, customer)

    assert render(version.texts.get(language="zh-hans")).count("clause__invalid") == 1
    assert render(version.texts.get(language="en"), id_prefix="x-").count("clause__invalid") == 1


def test_an_authority_cannot_put_markup_onto_the_page(version: Version, customer: User) -> None:
    rule(version, customer, authority="<img src=x>")

    assert "Held invalid by &lt;img src=x&gt;, " in render(version.texts.get(language="en"))


def test_a_ruling_that_is_overturned_is_followed_by_another_and_stays(
    version: Version, customer: User
) -> None:
    rule(version, customer)
    rule(version, customer, finding=Finding.VALID, authority="Court of Appeal")

    assert invalid_clauses(version) == {}
    assert "clause__invalid" not in render(version.texts.get(language="en"))
    assert Ruling.objects.count() == 2


def test_saying_the_same_again_is_refused(version: Version, customer: User) -> None:
    with pytest.raises(CannotRule, match=r"Clause 3\.3 is not held invalid"):
        rule(version, customer, finding=Finding.VALID)
    rule(version, customer)
    with pytest.raises(CannotRule, match=r"Clause 3\.3 is held invalid already"):
        rule(version, customer)
    assert Ruling.objects.count() == 1


def test_a_ruling_names_its_authority_and_is_of_no_day_to_come(version: Version, customer: User) -> None:
    with pytest.raises(CannotRule, match="which authority"):
        rule(version, customer, authority=" ")
    with pytest.raises(CannotRule, match="a day to come"):
        rule(version, customer, on=date(2026, 11, 24))
    assert rule(version, customer, on=date(2026, 11, 23)).pk
