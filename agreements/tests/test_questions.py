"""Questions about a revision: three days for asking, an answer for everybody or for one."""

from datetime import UTC, date, datetime, timedelta
from pathlib import Path

import pytest

from accounts.models import User
from agreements.models import Answer, Document, Question, Version
from agreements.publishing import publish_shipped_texts
from agreements.questions import MOST_QUESTIONS, CannotAnswer, CannotAsk, answer, ask
from agreements.tests.editions import PREPAYMENT_BODY, write_edition
from notices.models import Notice

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("9.1")]

# Published at the beginning of November 20 in Hong Kong: questions until the end of the 23rd.
PUBLISHED_ON = date(2026, 11, 20)
LAST_MOMENT = datetime(2026, 11, 23, 15, 59, 59, tzinfo=UTC)


@pytest.fixture
def revision(published: Path) -> Version:
    write_edition(
        published,
        number=2,
        on=PUBLISHED_ON,
        bodies={"en": PREPAYMENT_BODY + "\nMore.\n", "zh-hans": PREPAYMENT_BODY + "\n更多。\n"},
    )
    publish_shipped_texts(now=LAST_MOMENT, folder=published)
    return Version.objects.get(document=Document.PREPAYMENT, number=2)


def put(revision: Version, customer: User, body: str = "Why?", *, now: datetime = LAST_MOMENT) -> Question:
    return ask(version_id=revision.pk, customer_id=customer.pk, body=body, language="en", now=now)


def test_a_question_is_taken_until_the_end_of_the_third_day(revision: Version, customer: User) -> None:
    question = put(revision, customer, " Why?\n")

    assert (question.body, question.asked_at) == ("Why?", LAST_MOMENT)
    with pytest.raises(CannotAsk, match="taken for 3 days after its publication"):
        put(revision, customer, "And now?", now=LAST_MOMENT + timedelta(seconds=1))
    assert Question.objects.count() == 1


def test_a_first_version_revises_nothing_and_takes_no_questions(revision: Version, customer: User) -> None:
    first = Version.objects.get(document=Document.PREPAYMENT, number=1)

    with pytest.raises(CannotAsk):
        put(first, customer, now=first.published_at)


def test_the_same_question_again_is_one_question(revision: Version, customer: User) -> None:
    assert put(revision, customer) == put(revision, customer, now=LAST_MOMENT + timedelta(days=9))
    assert Question.objects.count() == 1


@pytest.mark.parametrize("body", ["", " \n", "x" * 4_001])
def test_a_question_has_words_and_not_too_many(revision: Version, customer: User, body: str) -> None:
    with pytest.raises(CannotAsk):
        put(revision, customer, body)
    assert not Question.objects.exists()


def test_nobody_asks_without_end(revision: Version, customer: User) -> None:
    for number in range(MOST_QUESTIONS):
        put(revision, customer, f"Why {number}?")

    with pytest.raises(CannotAsk, match="10 questions"):
        put(revision, customer, "Why not?")


def test_an_answer_reaches_the_customer_with_the_question(revision: Version, customer: User) -> None:
    staff = User.objects.create_user("counsel@example.com")
    question = put(revision, customer)

    given = answer(
        question_id=question.pk, body="Because.", is_public=False, answered_by_id=staff.pk, now=LAST_MOMENT
    )

    assert (given.question, given.body, given.is_public) == (question, "Because.", False)
    notice = Notice.objects.get()
    assert (notice.recipient, notice.kind, notice.url) == (
        customer,
        "question-answered",
        "/agreements/prepayment/2/",
    )
    assert notice.facts == {
        "title": "prepayment (en)",
        "number": 2,
        "question": "Why?",
        "answer": "Because.",
    }


def test_a_question_is_answered_once_and_with_words(revision: Version, customer: User) -> None:
    question = put(revision, customer)

    def say(body: str) -> Answer:
        return answer(
            question_id=question.pk, body=body, is_public=True, answered_by_id=customer.pk, now=LAST_MOMENT
        )

    with pytest.raises(CannotAnswer, match="write the answer"):
        say(" ")
    say("Because.")
    with pytest.raises(CannotAnswer, match="answered already"):
        say("No.")
    assert [given.body for given in Answer.objects.all()] == ["Because."]
    assert Notice.objects.count() == 1
