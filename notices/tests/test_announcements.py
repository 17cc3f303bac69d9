"""Web announcements: published once, in every language, kept for good."""

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from xml.etree import ElementTree as ET

import pytest
from django.db import DatabaseError, transaction
from django.test import Client
from pytest_django import Settings

from notices.announcements import Incomplete, banner, on_the_site, publish, seal_of, withdraw
from notices.feeds import AnnouncementFeed
from notices.kinds import FORCE_MAJEURE
from notices.models import Announcement

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

ATOM = "{http://www.w3.org/2005/Atom}"

# In Hong Kong it is the next day.
NOW = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)
LATER = NOW + timedelta(days=1)
TEXTS: Mapping[str, Mapping[str, str]] = {
    "en": {"title": "A typhoon", "body": "The data centre is closed.\n\nWe are sorry."},
    "zh-hans": {"title": "台风", "body": "数据中心关闭。"},
    "zh-hant": {"title": "颱風", "body": "數據中心關閉。"},
}


def announced(key: str = "typhoon", *, banner_until: datetime | None = None) -> Announcement:
    made = publish(
        kind=FORCE_MAJEURE, texts=TEXTS, key=key, now=NOW, url="/queue/", banner_until=banner_until
    )
    assert made
    return made


def atom(client: Client, language: str) -> ET.Element:
    feed = client.get(f"/messages/announcements/{language}.atom")
    assert feed.headers["Content-Type"].startswith("application/atom+xml")
    return ET.fromstring(feed.content)


def language_of(feed: ET.Element) -> str:
    return feed.attrib["{http://www.w3.org/XML/1998/namespace}lang"]


def test_an_announcement_is_published_once_with_a_seal_of_all_its_words() -> None:
    made = announced()
    assert publish(kind=FORCE_MAJEURE, texts=TEXTS, key="typhoon", now=LATER) is None
    assert (made.published_at, made.sha256) == (NOW, seal_of(TEXTS))
    assert len({seal_of(TEXTS), seal_of({**TEXTS, "en": {"title": "A typhoon", "body": "Closed."}})}) == 2


@pytest.mark.parametrize(
    "spoilt",
    [{"title": "", "body": "Words."}, {"title": "T", "body": " "}, {"title": "T" * 201, "body": "W"}, {}],
)
def test_what_is_not_whole_in_every_language_is_not_published(spoilt: Mapping[str, str]) -> None:
    with pytest.raises(Incomplete, match="in zh-hant"):
        publish(kind=FORCE_MAJEURE, texts={**TEXTS, "zh-hant": spoilt}, key="spoilt", now=NOW)
    assert not Announcement.objects.exists()


@pytest.mark.parametrize(
    "change", [{"texts": {}}, {"sha256": "0"}, {"published_at": LATER}, {"kind": "news"}]
)
def test_the_database_refuses_to_change_what_was_announced(change: Mapping[str, object]) -> None:
    made = announced()
    with pytest.raises(DatabaseError), transaction.atomic():
        Announcement.objects.filter(pk=made.pk).update(**change)


def test_what_is_taken_down_is_off_the_site_and_on_record(client: Client) -> None:
    made = announced(banner_until=LATER)
    assert [withdraw(announcement_id=made.pk, now=LATER) for _ in range(2)] == [True, False]
    assert not on_the_site().exists()
    assert client.get(made.get_absolute_url()).status_code == 404
    assert Announcement.objects.get().withdrawn_at == LATER


def test_the_banner_is_the_newest_that_was_not_closed_until_its_time_is_over() -> None:
    first, second = announced("a", banner_until=LATER), announced("b", banner_until=LATER)
    announced("c")
    assert banner(seen=0, now=NOW) == second
    assert banner(seen=second.pk, now=NOW) is None
    assert banner(seen=first.pk, now=LATER) is None


def test_a_visitor_closes_the_banner_and_comes_back_to_his_page(client: Client) -> None:
    made = announced(banner_until=datetime(2099, 1, 1, tzinfo=UTC))
    assert "A typhoon" in client.get("/queue/").text

    closed = client.post("/messages/announcements/close/", {"seen": made.pk, "next": "/queue/"})

    assert (closed.status_code, closed.headers["Location"]) == (302, "/queue/")
    assert "A typhoon" not in client.get("/queue/").text


def test_closing_leads_to_no_other_site(client: Client) -> None:
    closed = client.post("/messages/announcements/close/", {"seen": "1", "next": "https://evil.example/"})
    assert closed.headers["Location"] == "/"


def test_the_page_shows_them_in_the_readers_language_with_their_day_in_hong_kong(client: Client) -> None:
    made = announced()
    assert "Nov. 24, 2026" in client.get("/messages/announcements/").text
    page = client.get(made.get_absolute_url(), headers={"Accept-Language": "zh-hans"})
    assert "数据中心关闭。" in page.text
    assert "2026年11月24日" in page.text


def test_where_nothing_was_announced_the_page_says_so(client: Client) -> None:
    assert "Nothing has been announced yet" in client.get("/messages/announcements/").text


@pytest.mark.parametrize(
    ("language", "title"), [("en", "A typhoon"), ("zh-hans", "台风"), ("zh-hant", "颱風")]
)
def test_the_feed_has_them_in_its_language(client: Client, language: str, title: str) -> None:
    made = announced()
    root = atom(client, language)
    assert language_of(root) == language
    [entry] = root.findall(f"{ATOM}entry")
    assert entry.findtext(f"{ATOM}title") == title
    assert entry.findtext(f"{ATOM}id", "").endswith(made.get_absolute_url())
    assert entry.findtext(f"{ATOM}published") == "2026-11-23T20:30:00+00:00"


def test_the_feed_is_what_the_standard_asks_for(client: Client, settings: Settings) -> None:
    """RFC 4287, 4.1.1 and 4.1.2: what a feed and its entries must have, each once."""
    for key in ("a", "b"):
        announced(key)
    feeds = [atom(client, language) for language in ("en", "zh-hans")]
    for feed in feeds:
        for name in ("id", "title", "updated", "author"):
            assert len(feed.findall(f"{ATOM}{name}")) == 1, name
        assert feed.findtext(f"{ATOM}author/{ATOM}name") == settings.SELLER_NAME
        [itself] = feed.findall(f"{ATOM}link[@rel='self']")
        assert itself.attrib["href"].endswith(".atom")
        entries = feed.findall(f"{ATOM}entry")
        assert len({entry.findtext(f"{ATOM}id") for entry in entries}) == 2
        for entry in entries:
            for name in ("id", "title", "updated", "published", "summary"):
                assert len(entry.findall(f"{ATOM}{name}")) == 1, name
            assert len(entry.findall(f"{ATOM}link[@rel='alternate']")) == 1
    assert len({feed.findtext(f"{ATOM}id") for feed in feeds}) == 2


def test_what_staff_have_typed_is_text_in_the_feed_and_keeps_its_paragraphs(client: Client) -> None:
    body = "x <img src=x onerror=alert(1)> & y\n\nsecond"
    texts = {language: {"title": "A & <b>B</b>", "body": body} for language in TEXTS}
    publish(kind=FORCE_MAJEURE, texts=texts, key="markup", now=NOW)
    [entry] = atom(client, "en").findall(f"{ATOM}entry")
    assert entry.findtext(f"{ATOM}title") == "A & <b>B</b>"
    [summary] = entry.findall(f"{ATOM}summary")
    assert summary.attrib["type"] == "html"
    assert summary.text == "<p>x &lt;img src=x onerror=alert(1)&gt; &amp; y</p>\n\n<p>second</p>"


def test_feeds_that_are_read_at_once_keep_their_languages(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    """While one reader's feed is being made, another asks for his in another language."""
    announced()
    of_announcements = AnnouncementFeed.items

    def items(feed: AnnouncementFeed, language: str) -> list[Announcement]:
        if language == "en":
            assert language_of(atom(client, "zh-hans")) == "zh-hans"
        return of_announcements(feed, language)

    monkeypatch.setattr(AnnouncementFeed, "items", items)
    assert language_of(atom(client, "en")) == "en"


def test_there_is_no_feed_in_another_language(client: Client) -> None:
    assert client.get("/messages/announcements/de.atom").status_code == 404
