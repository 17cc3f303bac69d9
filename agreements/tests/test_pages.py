"""The agreements on the site, open to everybody."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path

import pytest
import time_machine
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from agreements.models import Text
from agreements.publishing import publish_shipped_texts
from agreements.tests.editions import NOW, write_edition

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

    with django_assert_num_queries(3):
        page(client, "/agreements/")
    with django_assert_num_queries(4):
        page(client, "/agreements/prepayment/1/")
