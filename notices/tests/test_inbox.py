"""The inbox on the site: the customer's own messages, and what of them is unread."""

from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries

from accounts.models import User
from notices.inbox import mark_all_read, mark_read, unread_count
from notices.models import InboxMessage
from notices.outbox import drain
from notices.tests.samples import NOW, customer, told

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

INBOX = "/messages/"
LATER = NOW + timedelta(hours=1)


def messages_for(recipient: User, count: int) -> list[InboxMessage]:
    """So many unread messages, oldest first."""
    for number in range(count):
        told(recipient, key=f"{recipient.pk}-{number}")
    while drain(now=NOW):
        pass
    return list(InboxMessage.objects.filter(recipient=recipient).order_by("id"))


@pytest.fixture
def ada() -> User:
    return customer("ada@example.com")


@pytest.fixture
def hers(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


def test_a_visitor_is_asked_to_log_in(client: Client) -> None:
    for response in (client.get(INBOX), client.post("/messages/read/"), client.post("/messages/1/open/")):
        assert response.status_code == 302
        assert response["Location"].startswith(reverse("account_login"))


def test_an_empty_inbox_says_so(hers: Client) -> None:
    response = hers.get(INBOX)
    assert response.status_code == 200
    assert "No messages yet" in response.text


def test_the_inbox_shows_the_words_and_what_is_new(hers: Client, ada: User) -> None:
    messages_for(ada, 2)
    text = hers.get(INBOX).text
    assert text.count("Your payment of $149.70 for order VP-7K2M has arrived.") == 2
    assert text.count(">New</span>") == 2
    assert "Mark all as read" in text


def test_nobody_sees_or_opens_the_message_of_another(hers: Client) -> None:
    (other,) = messages_for(customer("bob@example.com"), 1)
    assert "VP-7K2M" not in hers.get(INBOX).text
    assert hers.post(f"/messages/{other.pk}/open/").status_code == 404
    hers.post("/messages/read/", {"newest": other.pk})
    other.refresh_from_db()
    assert other.read_at is None


def test_opening_a_message_marks_it_read_and_leads_to_its_page(hers: Client, ada: User) -> None:
    older, newer = messages_for(ada, 2)
    response = hers.post(f"/messages/{older.pk}/open/")
    assert (response.status_code, response["Location"]) == (302, "/orders/VP-7K2M/")
    older.refresh_from_db()
    newer.refresh_from_db()
    assert older.read_at is not None
    assert newer.read_at is None
    assert hers.get(INBOX).text.count(">New</span>") == 1


def test_looking_changes_nothing(hers: Client, ada: User) -> None:
    (message,) = messages_for(ada, 1)
    assert hers.get(f"/messages/{message.pk}/open/").status_code == 405
    assert hers.get("/messages/read/").status_code == 405
    hers.get(INBOX)
    assert unread_count(ada.pk) == 1


def test_the_first_reading_is_the_one_on_record(ada: User) -> None:
    (message,) = messages_for(ada, 1)
    for now in (NOW, LATER):
        mark_read(recipient_id=ada.pk, message_id=message.pk, now=now)
    message.refresh_from_db()
    assert message.read_at == NOW


def test_all_are_marked_read_that_the_page_showed_and_none_that_came_after(hers: Client, ada: User) -> None:
    _, second, third = messages_for(ada, 3)
    response = hers.post("/messages/read/", {"newest": second.pk})
    assert (response.status_code, response["Location"]) == (302, INBOX)
    assert list(InboxMessage.objects.filter(read_at=None)) == [third]
    assert mark_all_read(recipient_id=ada.pk, up_to=third.pk, now=NOW) == 1


@pytest.mark.parametrize("newest", ["", "all", "-1", "1e3"])
def test_a_forged_form_marks_nothing(hers: Client, ada: User, newest: str) -> None:
    messages_for(ada, 1)
    assert hers.post("/messages/read/", {"newest": newest}).status_code == 302
    assert unread_count(ada.pk) == 1


def test_the_inbox_has_pages(hers: Client, ada: User) -> None:
    messages_for(ada, 21)
    assert hers.get(INBOX).text.count("<article") == 20
    assert hers.get(INBOX, {"page": 2}).text.count("<article") == 1
    assert hers.get(INBOX, {"page": "x"}).text.count("<article") == 20


def test_the_inbox_asks_as_much_for_twenty_messages_as_for_one(
    hers: Client, ada: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    # Session, user, count, page, newest, unread, revisions, announcement.
    messages_for(ada, 1)
    with django_assert_num_queries(9):
        hers.get(INBOX)
    messages_for(ada, 20)
    with django_assert_num_queries(9):
        hers.get(INBOX)


# --- the number in the header ------------------------------------------------------------------------


def test_the_badge_counts_what_is_unread(hers: Client, ada: User) -> None:
    messages_for(ada, 2)
    response = hers.get("/messages/badge/")
    assert response.status_code == 200
    assert 'class="count"' in response.text
    assert ">2<span" in response.text
    assert response["Cache-Control"] == "private, no-cache"


def test_the_badge_is_sent_again_only_when_it_has_changed(hers: Client, ada: User) -> None:
    (message,) = messages_for(ada, 1)
    etag = hers.get("/messages/badge/")["ETag"]
    unchanged = hers.get("/messages/badge/", headers={"If-None-Match": etag})
    assert (unchanged.status_code, unchanged.content) == (304, b"")
    mark_read(recipient_id=ada.pk, message_id=message.pk, now=NOW)
    changed = hers.get("/messages/badge/", headers={"If-None-Match": etag})
    assert changed.status_code == 200
    assert "count" not in changed.text


def test_polling_ends_with_the_session(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(0):
        response = client.get("/messages/badge/")
    assert (response.status_code, response.content) == (286, b"")
