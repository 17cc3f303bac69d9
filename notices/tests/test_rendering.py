"""Every notice in every language: right words, right day, right hour, nothing left out."""

from collections.abc import Mapping
from copy import deepcopy

import pytest
from django.conf import settings as django_settings
from django.db import transaction
from django.utils import translation
from pytest_django import Settings

from accounts.models import User
from notices.channels import CHANNELS
from notices.kinds import (
    ALLOCATED,
    DELAYED,
    ESTIMATE_CHANGED,
    ESTIMATE_MADE,
    FORCE_MAJEURE,
    GUARDIAN_ASKED,
    KINDS,
    MESSAGE,
    NEWS,
    ORDER_EXPIRED,
    PAYMENT_RECEIVED,
    SUSPENDED,
    Form,
    JSONValue,
    Kind,
)
from notices.models import Broadcast, Delivery, Message, Notice
from notices.outbox import drain
from notices.rendering import Text, Unwritable, keep, render
from notices.samples import FACTS, NO_WINDOW, WINDOW
from notices.templatetags.notice_format import day, moment, money
from notices.tests.samples import NOW, SAMPLES, Outside, customer, told

# Staff may have given words of their own, which is looked up.
pytestmark = pytest.mark.django_db

LANGUAGES = [code for code, _ in django_settings.LANGUAGES]


def written(
    kind: Kind,
    facts: Mapping[str, JSONValue],
    *,
    language: str = "en",
    time_zone: str = "",
    form: Form = Form.FULL,
) -> Text:
    reader = User(language=language, time_zone=time_zone)
    return render(Notice(recipient=reader, kind=kind.slug, facts=facts), form=form)


@pytest.fixture
def strict_templates(settings: Settings) -> None:
    """A variable that is not there is written as such instead of as nothing."""
    templates = deepcopy(settings.TEMPLATES)
    templates[0]["OPTIONS"]["string_if_invalid"] = "MISSING(%s)"
    settings.TEMPLATES = templates


def test_there_are_facts_for_every_kind_but_the_two_that_only_staff_write() -> None:
    assert set(FACTS) == set(KINDS) - {MESSAGE.slug, NEWS.slug}


@pytest.mark.clause("3.3")
@pytest.mark.usefixtures("strict_templates")
@pytest.mark.parametrize("form", Form)
@pytest.mark.parametrize("language", LANGUAGES)
@pytest.mark.parametrize(("kind", "facts"), SAMPLES)
def test_every_kind_is_written_in_every_language_and_form(
    kind: Kind, facts: Mapping[str, JSONValue], language: str, form: Form
) -> None:
    text = written(kind, facts, language=language, form=form)
    assert text.language == language
    assert "\n" not in text.subject
    for part in (text.subject, text.body):
        for left_over in ("MISSING", "{", "}", "%(", "None", "&amp;", "  "):
            assert left_over not in part
    assert "\n\n\n" not in text.body
    # Kinds about an order, that is all but those about an agreement, name it.
    if "reference" in facts:
        assert str(facts["reference"]) in text.subject + text.body
    if "plan" in facts and form is Form.FULL:
        assert "Pro & Max" in text.body
    if form is Form.SHORT:
        assert "\n" not in text.body


@pytest.mark.usefixtures("strict_templates")
def test_a_missing_fact_is_noticed_by_these_tests() -> None:
    assert written(ORDER_EXPIRED, {}).subject == "Order MISSING(reference) has expired"


def test_a_payment_is_told_with_its_moment_in_the_customers_zone() -> None:
    facts = FACTS["payment-received"][0]
    assert (
        "It succeeded on Nov. 23, 2026, 5:21 a.m. (CET)."
        in written(PAYMENT_RECEIVED, facts, time_zone="Europe/Berlin").body
    )
    # Who has not chosen a zone reads the contract's.
    assert "It succeeded on Nov. 23, 2026, 12:21 p.m. (HKT)." in written(PAYMENT_RECEIVED, facts).body
    assert "Your payment of $149.70 for order VP-7K2M has arrived." in written(PAYMENT_RECEIVED, facts).body


@pytest.mark.clause("3.3")
def test_an_estimate_says_the_window_what_it_rests_on_and_when_the_next_one_comes() -> None:
    text = written(ESTIMATE_MADE, WINDOW)
    assert text.subject == "Order VP-7K2M: cloud phones expected by Dec. 3, 2026"
    assert text.body == (
        "You are waiting for 3 cloud phones Pro & Max in order VP-7K2M.\n\n"
        "We expect to allocate and activate all of them between Dec. 1, 2026 and Dec. 20, 2026. "
        "Dec. 3, 2026 is as likely to be too early as too late; Dec. 20, 2026 should hold in nine cases out of ten.\n\n"
        "1 phone is owed to customers who paid before you. The estimate is based on the supply batches that have "
        "been announced, and on how punctual earlier ones were.\n\n"
        "This is an estimate and may change. You hear from us as soon as it does, and by Nov. 30, 2026 in any case. "
        "Dates are Hong Kong dates."
    )


@pytest.mark.clause("3.3")
def test_where_no_date_is_known_the_notice_says_so_and_names_the_next_update() -> None:
    text = written(ESTIMATE_MADE, NO_WINDOW)
    assert text.subject == "Order VP-7K2M: no date is known yet"
    assert "We do not know yet when that will be" in text.body
    assert "by Nov. 30, 2026 in any case" in text.body
    assert "Nobody is ahead of you in the queue." in text.body


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("previous", "likely", "said"),
    [
        ("2026-11-28", "2026-12-03", "It is later than we told you, and we are sorry. Until now we expected"),
        ("2026-12-09", "2026-12-03", "It is earlier than we told you. Until now we expected"),
        ("2026-12-03", "2026-12-03", "Until now we expected to be done by Dec. 3, 2026"),
        (None, "2026-12-03", "Until now we could not name a date."),
        ("2026-11-28", None, "We had told you Nov. 28, 2026. What that date rested on no longer holds"),
    ],
)
def test_a_changed_estimate_says_how_it_changed(previous: str | None, likely: str | None, said: str) -> None:
    facts = (WINDOW if likely else NO_WINDOW) | {"previous_likely": previous, "previous_latest": previous}
    text = written(ESTIMATE_CHANGED, facts)
    assert said in text.body
    assert "The reason: devices come later than they were announced." in text.body


@pytest.mark.parametrize("kind", [kind for kind in KINDS.values() if kind.slug in FACTS and kind.composed])
def test_what_staff_may_write_is_also_told_by_the_shop(kind: Kind, monkeypatch: pytest.MonkeyPatch) -> None:
    email = Outside()
    monkeypatch.setitem(CHANNELS, "email", email)
    told(customer(), kind=kind)
    drain(now=NOW)
    assert [outgoing.kind for outgoing in email.taken] == [kind]
    assert set(Delivery.objects.values_list("state", flat=True)) == {"sent"}


@pytest.mark.clause("VIII")
def test_a_suspension_says_why_how_long_and_whom_to_ask() -> None:
    facts = {**FACTS["suspended"][0], "ground": "illegal-use", "use": "g", "until": None}
    assert written(SUSPENDED, facts).body == (
        "The service of 1 cloud phone Pro & Max of your order VP-7K2M has been suspended since "
        "Nov. 23, 2026, 12:21 p.m. (HKT). While that lasts it cannot be used.\n\n"
        "The ground is that the service was used illegally (clause 5.3 b). "
        "Clause 4.2 (g) forbids it: promoting obscenity, pornography, gambling or violence, or inciting crime.\n\n"
        "The phones were let to others.\n\n"
        "It lasts as long as its ground does. We tell you as soon as you can use the service again.\n\n"
        "If you think that this is wrong, or have a question, open a case on the page of the order: "
        "a member of staff answers it."
    )


@pytest.mark.clause("VIII")
def test_force_majeure_says_what_is_delayed_and_when_the_next_word_comes() -> None:
    text = written(FORCE_MAJEURE, FACTS["force-majeure"][0])
    assert text.subject == "Order VP-7K2M: delayed by force majeure"
    assert "What has happened: a natural disaster." in text.body
    assert "from allocating the cloud phones Pro & Max" in text.body
    assert "Your place in the queue is kept." in text.body
    assert "You hear from us again by Nov. 30, 2026, also if nothing has changed." in text.body


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (
            DELAYED,
            (
                "Order VP-7K2M comes later than Nov. 10, 2026, which we had promised. You may end the contract and "
                "have your money back. You choose on the order's page. To go on waiting you need do nothing."
            ),
        ),
        (
            ALLOCATED,
            (
                "Order VP-7K2M: 1 cloud phone Pro & Max is activated. "
                "Its service period ends on Dec. 23, 2026, 12:30 p.m. (HKT)."
            ),
        ),
        (
            ESTIMATE_CHANGED,
            "Order VP-7K2M: now expected by Dec. 3, 2026, by Dec. 20, 2026 at the latest. Until now: Nov. 28, 2026.",
        ),
        (
            SUSPENDED,
            "Order VP-7K2M: service suspended. The ground is that the agreement was not kept (clause 5.3 a).",
        ),
    ],
)
def test_what_matters_stands_in_a_text_message_also_where_it_has_no_link(kind: Kind, said: str) -> None:
    assert written(kind, FACTS[kind.slug][0], form=Form.SHORT).body == said


def test_a_fact_of_the_wrong_kind_is_no_notice() -> None:
    with pytest.raises(ValueError, match="isoformat"):
        written(ESTIMATE_MADE, WINDOW | {"likely": "soon"})


def test_a_subject_that_is_too_long_is_no_notice() -> None:
    with pytest.raises(Unwritable):
        written(ORDER_EXPIRED, {"reference": "V" * 200})


@pytest.mark.clause("preamble")
@pytest.mark.parametrize("language", LANGUAGES)
def test_a_guardian_is_asked_also_by_a_buyer_whose_name_is_very_long(language: str) -> None:
    buyer = f"{'L' * 150} ({'l' * 242}@example.com)"
    text = written(GUARDIAN_ASKED, {**FACTS["guardian-asked"][0], "buyer": buyer}, language=language)
    assert buyer in text.body


def test_the_same_words_are_kept_once() -> None:
    text = Text("en", "Subject", "Body")
    assert keep(text) == keep(Text("en", "Subject", "Body"))
    assert keep(Text("zh-hans", "Subject", "Body")) != keep(text)
    assert Message.objects.count() == 2


@pytest.mark.parametrize(
    ("minor", "currency", "language", "expected"),
    [
        (4990, "USD", "en", "$49.90"),
        (4990, "USD", "zh-hans", "US$49.90"),
        (4990, "JPY", "en", "¥4,990"),
        (4990, "CNY", "zh-hans", "¥49.90"),
        (4990, "HKD", "en", "HK$49.90"),
    ],
)
def test_money_is_written_with_the_digits_its_currency_has(
    minor: int, currency: str, language: str, expected: str
) -> None:
    with translation.override(language):
        assert money({"minor": minor, "currency": currency}) == expected


def test_days_and_moments_are_written_in_the_language() -> None:
    with translation.override("zh-hans"):
        assert day("2026-12-03") == "2026年12月3日"
        assert moment("2026-12-03T04:05:00+00:00") == "2026年12月3日 04:05 (UTC)"


def test_a_moment_without_an_offset_is_refused() -> None:
    with pytest.raises(ValueError, match="naive"):
        moment("2026-12-03T04:05:00")


def test_a_zone_without_a_name_is_written_as_its_distance() -> None:
    facts = FACTS["payment-received"][0]
    assert "1:21 a.m. (UTC-03)" in written(PAYMENT_RECEIVED, facts, time_zone="America/Sao_Paulo").body


def test_what_staff_have_written_is_that_of_the_row_and_not_of_one_that_was_rolled_back() -> None:
    author = User.objects.create_user("staff@example.com")

    def subject_of_first(title: str) -> str:
        texts = {language: {"title": title, "body": "Words."} for language in LANGUAGES}
        Broadcast.objects.create(
            pk=1,
            kind=MESSAGE.slug,
            texts=texts,
            composed_by=author,
            composed_at=NOW,
            recipients=1,
            needs_approval=False,
        )
        return written(MESSAGE, {"broadcast": 1}).subject

    with transaction.atomic():
        assert subject_of_first("Never said") == "Never said"
        transaction.set_rollback(True)
    assert subject_of_first("Said") == "Said"
