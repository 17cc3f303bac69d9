"""A revision in the making, and its publication."""

from datetime import UTC, date, datetime, timedelta

import pytest

from accounts.models import User
from agreements.drafts import NotReady, begin_draft, preview, publish_draft
from agreements.models import Document, Draft, DraftText, Text, Version
from agreements.publishing import digest
from agreements.tests.editions import NOW
from evidence.models import RecordIsFinal
from tests.racing import failures, race

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("published")]


@pytest.fixture
def staff(db: None) -> User:
    return User.objects.create_user("counsel@example.com", is_staff=True)


@pytest.fixture
def draft(staff: User) -> Draft:
    """A draft of the pre-payment agreement in which clause 3.3 says something else, in both languages."""
    draft = begin_draft(document=Document.PREPAYMENT, created_by_id=staff.pk, now=NOW)
    for text in draft.texts.all():
        text.body = text.body.replace("No refunds.", "Refunds within a day.").replace(
            "不予退款", "一日内可退款"
        )
        text.summary = "Refunds."
        text.save()
    return draft


def publish(draft: Draft, staff: User) -> Version:
    return publish_draft(draft_id=draft.pk, published_by_id=staff.pk, now=NOW)


def reasons(draft: Draft, staff: User) -> list[str]:
    with pytest.raises(NotReady) as not_ready:
        publish(draft, staff)
    assert Version.objects.filter(document=Document.PREPAYMENT).count() == 1
    return not_ready.value.reasons


def test_a_draft_begins_with_the_wording_that_applies_in_every_language(staff: User) -> None:
    draft = begin_draft(document=Document.PREPAYMENT, created_by_id=staff.pk, now=NOW)

    published = Text.objects.filter(version__document=Document.PREPAYMENT).order_by("language")
    assert [(text.language, text.body) for text in draft.texts.order_by("language")] == [
        (text.language, text.body) for text in published
    ]
    assert (draft.authoritative, draft.important) == ("en", "II, 3.3")


@pytest.mark.clause("9.1")
def test_publishing_makes_the_next_version_which_takes_effect_at_once(draft: Draft, staff: User) -> None:
    version = publish(draft, staff)

    assert (version.number, version.published_at, version.effective_at) == (2, NOW, NOW)
    assert (version.published_by, version.announced_at) == (staff, None)
    assert Version.objects.in_force(NOW)[Document.PREPAYMENT] == version
    english = version.texts.get(language="en")
    assert "Refunds within a day." in english.body
    assert english.sha256 == digest(english.body)
    assert (english.is_authoritative, english.important, english.summary) == (True, ["II", "3.3"], "Refunds.")
    draft.refresh_from_db()
    assert draft.version == version


@pytest.mark.clause("9.1")
def test_a_scheduled_version_takes_effect_on_its_day_in_hong_kong(draft: Draft, staff: User) -> None:
    Draft.objects.filter(pk=draft.pk).update(effective_on=date(2026, 12, 1))

    version = publish(draft, staff)

    assert version.effective_at == datetime(2026, 11, 30, 16, tzinfo=UTC)
    before, after = version.effective_at - timedelta(seconds=1), version.effective_at
    assert Version.objects.in_force(before)[Document.PREPAYMENT].number == 1
    assert Version.objects.in_force(after)[Document.PREPAYMENT] == version


@pytest.mark.clause("9.5")
def test_a_published_text_cannot_be_changed(draft: Draft, staff: User) -> None:
    text = publish(draft, staff).texts.get(language="en")

    text.body = "Nothing."
    with pytest.raises(RecordIsFinal):
        text.save()


def test_the_second_click_finds_the_version_of_the_first(draft: Draft, staff: User) -> None:
    assert publish(draft, staff) == publish(draft, staff)
    assert Version.objects.filter(document=Document.PREPAYMENT).count() == 2


def test_a_language_cannot_get_lost(draft: Draft, staff: User) -> None:
    draft.texts.filter(language="zh-hans").delete()

    assert reasons(draft, staff) == ["There is no text in Simplified Chinese."]


def test_what_changes_must_be_said_and_must_be_something(draft: Draft, staff: User) -> None:
    before = Text.objects.get(version__document=Document.PREPAYMENT, language="en")
    draft.texts.filter(language="en").update(summary=" ", body=before.body.replace("\n", "\r\n"))

    assert reasons(draft, staff) == [
        "English: say in the summary what changes.",
        "English: the text is the one that applies now.",
    ]


@pytest.mark.clause("preamble")
def test_an_important_clause_must_be_there_in_every_language(draft: Draft, staff: User) -> None:
    Draft.objects.filter(pk=draft.pk).update(important="II, 3.3，9.9")

    assert reasons(draft, staff) == [
        "English: the text has no clause 9.9, which is marked as important.",
        "Simplified Chinese: the text has no clause 9.9, which is marked as important.",
    ]


def test_what_cannot_be_printed_is_not_published(draft: Draft, staff: User) -> None:
    text = draft.texts.get(language="en")
    DraftText.objects.filter(pk=text.pk).update(body=text.body + "\nThank you \N{GRINNING FACE}\n")

    assert reasons(draft, staff) == ["English: our fonts cannot print \N{GRINNING FACE}."]


@pytest.mark.clause("9.1")
def test_a_retroactive_version_says_what_changes_for_earlier_orders(draft: Draft, staff: User) -> None:
    Draft.objects.filter(pk=draft.pk).update(is_retroactive=True)
    draft.texts.filter(language="en").update(retroactive_effect="You may withdraw.")

    assert reasons(draft, staff) == ["Simplified Chinese: say what changes for earlier orders."]

    draft.texts.filter(language="zh-hans").update(retroactive_effect="您可以撤回。")
    version = publish(draft, staff)
    assert version.is_retroactive
    assert version.texts.get(language="en").retroactive_effect == "You may withdraw."


def test_it_cannot_take_effect_in_the_past_or_before_the_version_it_follows(
    draft: Draft, staff: User
) -> None:
    Draft.objects.filter(pk=draft.pk).update(effective_on=date(2024, 1, 1))

    assert reasons(draft, staff) == [
        "It cannot take effect on a day that is over. Leave the day empty for: at once.",
        "It would take effect before the version that it follows.",
    ]


def test_lines_from_a_browser_end_as_they_were_written(draft: Draft, staff: User) -> None:
    text = draft.texts.get(language="en")
    DraftText.objects.filter(pk=text.pk).update(body=text.body.replace("\n", "\r\n"))

    assert publish(draft, staff).texts.get(language="en").body == text.body


def test_a_preview_is_the_text_to_be_and_in_no_database(draft: Draft) -> None:
    text = preview(draft, draft.texts.get(language="en"))

    assert text._state.adding
    assert text.version._state.adding
    assert text.version.number == 2
    assert "Refunds within a day." in text.body


@pytest.mark.postgres
def test_of_two_drafts_published_at_once_the_second_gets_the_next_number(draft: Draft, staff: User) -> None:
    other = begin_draft(document=Document.PREPAYMENT, created_by_id=staff.pk, now=NOW)
    for text in other.texts.all():
        text.body += "\nThe end.\n"
        text.summary = "An end."
        text.save()

    outcomes = race(lambda: publish(draft, staff), lambda: publish(other, staff))

    assert failures(outcomes) == []
    assert sorted(version.number for version in outcomes) == [2, 3]
