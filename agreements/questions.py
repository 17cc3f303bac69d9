"""Questions, comments and suggestions about a revision, within three days of its publication (9.1)."""

from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from agreements.models import Answer, Question, Version
from agreements.texts import best_text
from notices import kinds
from notices.outbox import Draft, tell

MOST_QUESTIONS = 10
LONGEST = 4_000


class CannotAsk(Exception):
    """The question is not taken; the message tells the customer why."""


class CannotAnswer(Exception):
    """The answer is not taken; the message tells staff why."""


def ask(*, version_id: int, customer_id: int, body: str, language: str, now: datetime) -> Question:
    """Put a customer's question on record. The same words again are the same question. Raises CannotAsk."""
    words = body.strip()
    if not words:
        raise CannotAsk(_("Please write your question."))
    if len(words) > LONGEST:
        raise CannotAsk(
            _("Please keep it to %(limit)d characters; this has %(length)d.")
            % {"limit": LONGEST, "length": len(words)}
        )
    with transaction.atomic(durable=True):
        version = Version.objects.select_for_update().get(pk=version_id)
        asked = Question.objects.filter(version=version, customer_id=customer_id)
        known: Question | None = asked.filter(body=words).first()
        if known:
            return known
        if not version.takes_questions(now):
            raise CannotAsk(
                ngettext(
                    "The time for questions about this version is over: they are taken for %(days)d day after "
                    "its publication (9.1).",
                    "The time for questions about this version is over: they are taken for %(days)d days after "
                    "its publication (9.1).",
                    settings.QUESTION_PERIOD_DAYS,
                )
                % {"days": settings.QUESTION_PERIOD_DAYS}
            )
        if asked.count() >= MOST_QUESTIONS:
            raise CannotAsk(
                _("You have asked %(count)d questions about this version already.")
                % {"count": MOST_QUESTIONS}
            )
        question: Question = Question.objects.create(
            version=version, customer_id=customer_id, language=language, body=words, asked_at=now
        )
    return question


def answer(*, question_id: int, body: str, is_public: bool, answered_by_id: int, now: datetime) -> Answer:
    """Answer a question, once, and tell the customer. Raises CannotAnswer.

    A public answer is shown with the question, but not with the customer's name, on the version's page.
    """
    words = body.strip()
    if not words:
        raise CannotAnswer(_("Please write the answer."))
    with transaction.atomic(durable=True):
        question = (
            Question.objects.select_related("version", "customer")
            .select_for_update(of=("self",))
            .get(pk=question_id)
        )
        if Answer.objects.filter(question=question).exists():
            raise CannotAnswer(_("This question is answered already."))
        given: Answer = Answer.objects.create(
            question=question, body=words, is_public=is_public, answered_by_id=answered_by_id, answered_at=now
        )
        text = best_text(question.version.texts.all(), language=question.customer.language)
        letter = Draft(
            recipient_id=question.customer_id,
            kind=kinds.QUESTION_ANSWERED,
            about=f"{question.version.document}-{question.version.number}",
            url=question.version.get_absolute_url(),
            facts={
                "title": text.title if text else str(question.version),
                "number": question.version.number,
                "question": question.body,
                "answer": words,
            },
            dedupe_key=f"{kinds.QUESTION_ANSWERED.slug}:{question.pk}",
        )
        tell([letter], now=now)
    return given
