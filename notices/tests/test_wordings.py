"""Staff's own words: they replace the shipped ones, fit every shape of the facts, and run no code."""

import pytest
from django.db import transaction

from notices.kinds import CONTACT_CODE, PAYMENT_RECEIVED, Form
from notices.models import Wording
from notices.rendering import render
from notices.samples import FACTS
from notices.tests.samples import NOW, customer, told
from notices.wordings import NotSafe, change, check

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

SUBJECT = "Thanks for {{ reference }}"
BODY = "{{ total|money }} came in.{% if paid_at %} That was {{ paid_at|moment }}.{% endif %}"


def reworded(*, body: str = BODY, language: str = "en", form: Form = Form.FULL) -> None:
    change(
        kind=PAYMENT_RECEIVED.slug,
        language=language,
        form=form,
        subject=SUBJECT if body else "",
        body=body,
        by=customer("staff@example.com"),
        now=NOW,
    )


def test_a_notice_is_written_in_staffs_words_and_again_in_the_shipped_ones() -> None:
    notice = told(customer())
    shipped = render(notice)
    reworded()
    text = render(notice)
    assert (text.subject, text.body) == (
        "Thanks for VP-7K2M",
        "$149.70 came in. That was Nov. 23, 2026, 12:21 p.m. (HKT).",
    )
    change(
        kind=PAYMENT_RECEIVED.slug,
        language="en",
        form=Form.FULL,
        subject="",
        body="",
        by=customer("other@example.com"),
        now=NOW,
    )
    assert render(notice) == shipped


def test_what_was_rolled_back_is_not_remembered() -> None:
    notice = told(customer())
    shipped = render(notice)
    staff = customer("staff@example.com")
    form = Form.FULL.value
    with transaction.atomic():
        Wording.objects.create(
            kind=notice.kind,
            language="en",
            form=form,
            subject="x",
            body="y",
            written_by=staff,
            written_at=NOW,
        )
        assert render(notice).subject == "x"
        transaction.set_rollback(True)
    assert render(notice) == shipped


def test_they_count_for_their_language_and_form_only() -> None:
    reworded()
    assert (
        render(told(customer("lin@example.com", language="zh-hans"), key="zh")).subject
        != "Thanks for VP-7K2M"
    )
    assert (
        render(told(customer("ben@example.com"), key="short"), form=Form.SHORT).subject
        != "Thanks for VP-7K2M"
    )


@pytest.mark.parametrize(
    "body",
    [
        "{% load static %}",
        "{% include 'notices/window.txt' %}",
        "{% extends 'base.html' %}",
        "{% for a in facts %}{{ a }}{% endfor %}",
        "{% debug %}",
        "{% now 'Y' %}",
        "{% url 'admin:index' %}",
        "{% csrf_token %}",
        "{{ reference.__class__ }}",
        "{{ reference|safe }}",
        "{{ reference|add:'x' }}",
        "{% if reference|length %}x{% endif %}",
        "{% if %}",
        "{{ reference",
        "{% %}",
    ],
)
def test_nothing_that_could_do_more_than_name_facts_is_let_in(body: str) -> None:
    try:
        written = check(kind=PAYMENT_RECEIVED.slug, subject="x", body=f"{body} words")
    except NotSafe:
        return
    # What is no tag at all is plain text.
    assert written == [("x", "{{ reference words")]


def test_a_fact_that_is_not_always_there_is_refused_by_name() -> None:
    with pytest.raises(NotSafe, match="refund"):
        check(kind=PAYMENT_RECEIVED.slug, subject="x", body="About {{ refund }}.")


def test_words_of_which_nothing_would_be_left_for_some_notices_are_refused() -> None:
    with pytest.raises(NotSafe, match="nothing would be left"):
        check(kind="refund-paid", subject="x", body="{% if means %}By {{ means }}.{% endif %}")


@pytest.mark.parametrize("subject", ["x" * 201, "{{ reference }}" + "x" * 194])
def test_a_subject_is_refused_that_no_notice_could_have(subject: str) -> None:
    with pytest.raises(NotSafe, match="more than 200 characters"):
        change(
            kind=PAYMENT_RECEIVED.slug,
            language="en",
            form=Form.FULL,
            subject=subject,
            body="ok",
            by=customer(),
            now=NOW,
        )
    assert check(kind=PAYMENT_RECEIVED.slug, subject="{{ reference }}" + "x" * 193, body="ok")


@pytest.mark.parametrize(
    ("subject", "body"),
    [("x" * 250, "ok"), ("ok", "{{ reference|day }}"), ("ok", "Not {{ gone }}."), ("{% if %}", "ok")],
)
def test_words_that_do_not_fit_give_way_to_the_shipped_ones(
    subject: str, body: str, caplog: pytest.LogCaptureFixture
) -> None:
    """However they came there: the samples of the day on which they were checked were shorter, or had other facts."""
    notice = told(customer())
    shipped = render(notice)
    Wording.objects.create(
        kind=notice.kind,
        language="en",
        form=Form.FULL.value,
        subject=subject,
        body=body,
        written_by=customer("staff@example.com"),
        written_at=NOW,
    )
    assert render(notice) == shipped
    assert "the shipped ones go out" in caplog.text


def test_every_sample_is_shown() -> None:
    written = check(kind="refund-paid", subject="{{ refund }}", body="{{ amount|money }}")
    assert len(written) == len(FACTS["refund-paid"])


def test_kinds_that_staff_write_for_each_message_have_no_wording() -> None:
    with pytest.raises(NotSafe):
        check(kind="news", subject="x", body="y")


@pytest.mark.parametrize(
    "body", ["Your code is on its way.", "Dear customer of the best platform of all, here is {{ code }}"]
)
def test_a_message_that_brings_a_code_has_it_where_nothing_is_cut_off(body: str) -> None:
    with pytest.raises(NotSafe, match="among the first 50 characters"):
        check(kind=CONTACT_CODE.slug, subject="Your code", body=body)
    assert check(kind=CONTACT_CODE.slug, subject="Your code", body="{{ code }} is your code.") == [
        ("Your code", "•••••• is your code.")
    ]
