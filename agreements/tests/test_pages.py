"""The agreements on the site, open to everybody."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import time_machine
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import User
from agreements.models import Answer, Question, Text, Version
from agreements.publishing import publish_shipped_texts
from agreements.tests.editions import NOW, PREPAYMENT_BODY, write_edition

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _today() -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


def page(client: Client, path: str, *, status: int = 200, accept_language: str = "en") -> str:
    response = client.get(path, headers={"accept-language": accept_language})
    assert response.status_code == status
    return response.content.decode()


@pytest.mark.clause("1.2")
def test_index_shows_both_documents_and_which_comes_first(client: Client, published: Path) -> None:
    html = page(client, "/agreements/")

    assert 'href="/agreements/prepayment/1/"' in html
    assert 'href="/agreements/purchase/1/"' in html
    assert "the Pre-payment Purchase Agreement comes first (clause 1.2)" in html
    assert html.count("in force since March 21, 2025") == 2


@pytest.mark.clause("9.1")
def test_index_announces_a_coming_version_and_hides_one_not_yet_published(
    client: Client, published: Path
) -> None:
    write_edition(published, number=2, on=date(2026, 11, 20), effective_on=date(2026, 12, 1))
    write_edition(published, number=3, on=date(2026, 12, 24))
    publish_shipped_texts(now=NOW, folder=published)

    html = page(client, "/agreements/")

    assert "Dec. 1, 2026" in html
    assert 'href="/agreements/prepayment/2/"' in html
    assert 'href="/agreements/prepayment/3/"' not in html
    assert page(client, "/agreements/prepayment/3/", status=404)


@pytest.mark.clause("preamble")
def test_version_shows_the_whole_text_with_what_matters_set_off(client: Client, published: Path) -> None:
    html = page(client, "/agreements/prepayment/1/")

    text = Text.objects.get(version__document="prepayment", language="en")
    assert '<section class="clause clause--important" id="3.3"' in html
    assert 'href="#3.3"' in html
    assert "There are no refunds." in html
    assert text.sha256 in html
    assert "This is the authoritative text" in html


def test_version_can_be_read_in_its_other_language(client: Client, published: Path) -> None:
    html = page(client, "/agreements/prepayment/1/?language=zh-hans")

    assert "不予退款" in html
    assert 'lang="zh-hans"' in html
    assert "the text in English is the one that counts" in html


def test_version_is_shown_in_the_language_of_the_reader(client: Client, published: Path) -> None:
    assert "不予退款" in page(client, "/agreements/prepayment/1/", accept_language="zh-CN")


def test_unknown_language_gets_the_authoritative_text(client: Client, published: Path) -> None:
    assert "No refunds." in page(client, "/agreements/prepayment/1/?language=%00xx")


@pytest.mark.clause("9.1")
def test_superseded_version_stays_readable_and_points_to_the_newer(client: Client, published: Path) -> None:
    write_edition(published, number=2, on=date(2026, 11, 20))
    publish_shipped_texts(now=NOW, folder=published)

    html = page(client, "/agreements/prepayment/1/")

    assert "superseded" in html
    assert 'href="/agreements/prepayment/2/"' in html
    assert "No refunds." in html


@pytest.mark.parametrize("path", ["prepayment/2/", "nothing/1/", "prepayment/0/"])
def test_version_that_does_not_exist_is_not_found(client: Client, published: Path, path: str) -> None:
    page(client, f"/agreements/{path}", status=404)


def test_pages_cost_the_same_whatever_is_published(
    client: Client, published: Path, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in (2, 3):
        write_edition(published, number=number, on=date(2026, 11, 20))
    publish_shipped_texts(now=NOW, folder=published)

    # Three of them ask for what is announced on every page.
    with django_assert_num_queries(6):
        page(client, "/agreements/")
    with django_assert_num_queries(8):
        page(client, "/agreements/prepayment/1/")


# --- revisions ---


def revise(folder: Path, *, on: date = date(2026, 11, 23)) -> None:
    """Publish version 2, which says more of refunds."""
    body = PREPAYMENT_BODY.replace("No refunds.", "No refunds on Sundays.")
    write_edition(folder, number=2, on=on, bodies={"en": body, "zh-hans": body.replace("on Sundays", "周日")})
    publish_shipped_texts(now=NOW, folder=folder)


@pytest.mark.clause("9.1")
def test_changes_are_shown_word_by_word_between_any_two_versions(client: Client, published: Path) -> None:
    revise(published)

    html = page(client, "/agreements/prepayment/changes/")
    assert "<p>No refunds<ins> on Sundays</ins>.</p>" in html

    back = page(client, "/agreements/prepayment/changes/?from=2&to=1")
    assert "<p>No refunds<del> on Sundays</del>.</p>" in back
    same = page(client, "/agreements/prepayment/changes/?from=2&to=2")
    assert "The wording is the same." in same


@pytest.mark.parametrize("query", ["?from=9&to=x", "?from=&to=", "?from=1&to=1&language=fr"])
def test_a_comparison_that_makes_no_sense_is_a_page_all_the_same(
    client: Client, published: Path, query: str
) -> None:
    revise(published)

    page(client, f"/agreements/prepayment/changes/{query}")


def test_there_is_nothing_to_compare_with_one_version(client: Client, published: Path) -> None:
    assert "There is only one version so far." in page(client, "/agreements/prepayment/changes/")
    page(client, "/agreements/nothing/changes/", status=404)


@pytest.mark.clause("9.1")
def test_a_customer_asks_on_the_page_of_the_version(client: Client, published: Path, customer: User) -> None:
    revise(published)
    assert "Log in to ask" in page(client, "/agreements/prepayment/2/")
    client.force_login(customer, backend="django.contrib.auth.backends.ModelBackend")

    response = client.post("/agreements/prepayment/2/questions/", {"body": "Why <b>so</b>?"})

    assert (response.status_code, response.headers["Location"]) == (
        302,
        "/agreements/prepayment/2/#questions",
    )
    html = page(client, "/agreements/prepayment/2/")
    assert "What you asked" in html
    assert "<p>Why &lt;b&gt;so&lt;/b&gt;?</p>" in html
    assert "Not answered yet." in html
    client.logout()
    assert "Why" not in page(client, "/agreements/prepayment/2/")


def test_an_empty_question_comes_back_with_what_to_do(
    client: Client, published: Path, customer: User
) -> None:
    revise(published)
    client.force_login(customer, backend="django.contrib.auth.backends.ModelBackend")

    response = client.post("/agreements/prepayment/2/questions/", {"body": ""})

    assert response.status_code == 422
    assert "Please write your question." in response.content.decode()


@pytest.mark.clause("9.1")
def test_a_public_answer_is_for_everybody_and_names_nobody(
    client: Client, published: Path, customer: User
) -> None:
    revise(published)
    version = Version.objects.get(document="prepayment", number=2)
    for number, is_public in enumerate((True, False)):
        question = Question.objects.create(
            version=version, customer=customer, language="en", body=f"Why {number}?", asked_at=NOW
        )
        Answer.objects.create(
            question=question, body="Because.", is_public=is_public, answered_by=customer, answered_at=NOW
        )

    html = page(client, "/agreements/prepayment/2/")

    assert "Answered for everybody" in html
    assert "Why 0?" in html
    assert "Why 1?" not in html
    assert customer.email not in html


@pytest.mark.clause("9.1")
def test_after_three_days_the_page_says_that_the_time_is_over(client: Client, published: Path) -> None:
    revise(published, on=date(2026, 11, 19))

    html = page(client, "/agreements/prepayment/2/")

    assert "The time for questions about this version ended on Nov. 22, 2026 (9.1)." in html
    assert "Log in to ask" not in html


@pytest.mark.clause("9.2")
def test_place_of_signing_is_on_the_page(client: Client, published: Path, settings: Settings) -> None:
    assert "Signed at the location of the VMOS Cloud platform (9.2)." in page(
        client, "/agreements/prepayment/1/"
    )
    settings.PLATFORM_LOCATION = "Kowloon, Hong Kong"
    assert "Signed at the location of the platform: Kowloon, Hong Kong (9.2)." in page(
        client, "/agreements/prepayment/1/"
    )


@pytest.mark.clause("1.2")
def test_each_document_says_which_of_the_two_comes_first(client: Client, published: Path) -> None:
    assert "this document comes first (clause 1.2)" in page(client, "/agreements/prepayment/1/")
    assert "the Pre-payment Purchase Agreement comes first (its clause 1.2)" in page(
        client, "/agreements/purchase/1/"
    )
