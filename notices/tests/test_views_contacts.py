"""The page of contact points, and what browsers ask by themselves."""

import json
from collections.abc import Iterator
from datetime import timedelta

import pytest
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from accounts.visitors import browser_name
from notices import codes, contacts, deliveries
from notices.channels import CHANNELS
from notices.channels.emulators.running import RunningCarrier
from notices.channels.protocol import Gone, Refused, Report
from notices.contacts import TESTS_PER_HOUR
from notices.kinds import ALLOCATED
from notices.models import ContactPoint, Delivery, InboxMessage, Message, Notice
from notices.outbox import drain
from notices.tests.carrying import (
    running_app,
    running_push,
    running_twilio,
    running_wechat,
    subscribe,
)
from notices.tests.samples import NOW, Outside, Phones, customer, told

pytestmark = pytest.mark.django_db

PAGE = "/messages/contacts/"
NUMBER = "+85251234567"


@pytest.fixture
def ada() -> User:
    return customer()


@pytest.fixture
def hers(client: Client, ada: User) -> Client:
    client.force_login(ada)
    return client


@pytest.fixture
def texts(settings: Settings) -> Iterator[RunningCarrier]:
    with running_twilio(settings) as carrier:
        yield carrier


@pytest.fixture
def push_service(settings: Settings) -> Iterator[RunningCarrier]:
    with running_push(settings) as carrier:
        yield carrier


def test_only_what_is_configured_is_offered(hers: Client, settings: Settings) -> None:
    words = hers.get(PAGE).content.decode()
    assert "Letters" in words
    for channel in ("Text messages", "Browser notifications", "WeChat", "VMOS Cloud app"):
        assert channel not in words
    with running_twilio(settings), running_push(settings), running_wechat(settings), running_app(settings):
        words = hers.get(PAGE).content.decode()
    for channel in ("Text messages", "Browser notifications", "WeChat", "VMOS Cloud app"):
        assert channel in words


def test_a_phone_is_added_and_proved_on_one_page(hers: Client, texts: RunningCarrier) -> None:
    page = hers.post(reverse("notices:add-phone"), {"number": "+852 5123 4567"}, follow=True)
    assert "Waits for its code" in page.content.decode()
    point = ContactPoint.objects.get()
    wrong = hers.post(reverse("notices:prove", args=[point.pk]), {"code": "no"})
    assert wrong.status_code == 422
    assert "This is not the code." in wrong.content.decode()
    right = {"code": codes.code_of(point)}
    page = hers.post(reverse("notices:prove", args=[point.pk]), right, follow=True)
    assert "The number is yours" in page.content.decode()
    # The second click, and the back button.
    assert hers.post(reverse("notices:prove", args=[point.pk]), right).status_code == 302


def test_a_wrong_number_is_explained_beside_its_field(hers: Client, texts: RunningCarrier) -> None:
    page = hers.post(reverse("notices:add-phone"), {"number": "+852 2123 4567"})
    assert page.status_code == 422
    assert page.content.decode().count("This is a fixed line.") == 2  # above the page and at the field
    assert ContactPoint.objects.count() == 0


def test_too_many_codes_are_refused_in_words(hers: Client, texts: RunningCarrier, ada: User) -> None:
    for _ in range(5):
        hers.post(reverse("notices:add-phone"), {"number": NUMBER})
    page = hers.post(reverse("notices:add-phone"), {"number": NUMBER})
    assert "We have sent enough codes for now." in page.content.decode()
    point = ada.contact_points.get()
    page = hers.post(reverse("notices:send-code", args=[point.pk]), follow=True)
    assert "We have sent enough codes for now." in page.content.decode()
    assert Notice.objects.count() == 5


def test_a_contact_point_is_tried_and_removed_by_its_owner_alone(
    hers: Client, texts: RunningCarrier, ada: User
) -> None:
    point = ContactPoint.objects.create(
        customer=ada, channel="sms", address=NUMBER, created_at=NOW, verified_at=NOW
    )
    stranger = Client()
    stranger.force_login(customer("bo@example.com"))
    for name in ("send-test", "remove-contact", "prove", "send-code"):
        url = reverse(f"notices:{name}", args=[point.pk])
        assert stranger.post(url, {"code": "1"}).status_code == 404
        assert Client().post(url).status_code == 302
    hers.post(reverse("notices:send-test", args=[point.pk]))
    assert Notice.objects.get().to_address == NUMBER
    page = hers.post(reverse("notices:remove-contact", args=[point.pk]), follow=True)
    assert "Removed. We do not write there any more." in page.content.decode()
    assert ada.contact_points.filter(removed_at=None).count() == 0
    hers.post(reverse("notices:remove-contact", args=[point.pk]))
    [told] = Notice.objects.filter(kind="security")
    assert told.facts["event"] == "contact-point-removed"
    assert (told.facts["detail"], told.facts["address"]) == (NUMBER, "127.0.0.1")


def test_who_comes_from_no_known_address_may_remove_a_contact_point_all_the_same(
    hers: Client, ada: User
) -> None:
    point = ContactPoint.objects.create(
        customer=ada, channel="sms", address=NUMBER, created_at=NOW, verified_at=NOW
    )
    # Behind a Unix socket there is none.
    answer = hers.post(reverse("notices:remove-contact", args=[point.pk]), REMOTE_ADDR="")
    assert answer.status_code == 302
    [event] = Notice.objects.filter(kind="security").values_list("facts", flat=True)
    assert (event["event"], event["address"]) == ("contact-point-removed", "")


def test_a_test_mail_goes_to_the_address_of_the_account_and_nowhere_else(
    hers: Client, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    email = Outside()
    monkeypatch.setitem(CHANNELS, "email", email)
    for _ in range(TESTS_PER_HOUR):
        page = hers.post(reverse("notices:send-test-mail"), follow=True)
        assert "A test message is on its way." in page.text
    drain(now=timezone.now())
    assert [outgoing.address for outgoing in email.taken] == ["ada@example.com"] * TESTS_PER_HOUR
    assert not InboxMessage.objects.exists()

    refused = hers.post(reverse("notices:send-test-mail"), follow=True)
    assert "You have tried often enough for now." in refused.text
    assert Notice.objects.count() == TESTS_PER_HOUR


@pytest.mark.parametrize("is_refused_at_once", [True, False])
def test_mail_that_came_back_is_shown_with_what_to_do_until_one_arrives(
    hers: Client, ada: User, monkeypatch: pytest.MonkeyPatch, is_refused_at_once: bool
) -> None:
    email = Outside(Refused("550 no such mailbox")) if is_refused_at_once else Outside()
    monkeypatch.setitem(CHANNELS, "email", email)
    told(ada)
    drain(now=NOW)
    if not is_refused_at_once:
        assert "In use" in hers.get(PAGE).text
        report = Report("ref-1", has_arrived=False, detail="550 no such mailbox")
        assert deliveries.report(channel="email", told=report, now=NOW)

    words = hers.get(PAGE).text
    assert "Mail comes back" in words
    assert "The last mail to this address came back on Nov. 23, 2026." in words
    assert "550 no such mailbox" in words
    assert "Our last mail to you came back" in hers.get("/messages/").text

    hers.post(reverse("notices:send-test-mail"))
    drain(now=timezone.now())
    assert "Mail comes back" not in hers.get(PAGE).text
    assert "Our last mail to you came back" not in hers.get("/messages/").text


def test_mail_that_came_back_from_an_address_of_before_says_nothing_of_the_new_one(
    hers: Client, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside(Refused("550 no such mailbox")))
    told(ada)
    drain(now=NOW)
    User.objects.filter(pk=ada.pk).update(email="new@example.com")
    assert "Mail comes back" not in hers.get(PAGE).text


def test_what_a_provider_has_given_up_is_shown_with_what_to_do_until_something_takes_its_place(
    hers: Client, ada: User, texts: RunningCarrier, monkeypatch: pytest.MonkeyPatch
) -> None:
    double = Phones()
    double.answers = [Gone("30005 unknown destination")]
    monkeypatch.setitem(CHANNELS, "sms", double)
    now = timezone.now()
    added = {"customer": ada, "channel": "sms", "created_at": now, "verified_at": now}
    ContactPoint.objects.create(address=NUMBER, **added)
    mine = ContactPoint.objects.create(address="+85251234568", **added)
    told(ada, kind=ALLOCATED, now=now)
    drain(now=now)
    assert len(double.taken) == 2
    assert [point.address for point in contacts.given_up(ada, now=now)["sms"]] == [NUMBER]
    hers.post(reverse("notices:remove-contact", args=[mine.pk]))

    words = " ".join(hers.get(PAGE).text.split())
    assert '+852 5123 4567 <span class="badge badge--bad">Given up</span>' in words
    assert "<q>30005 unknown destination</q>" in words
    assert "If the number is still yours, give it once more" in words
    # She has removed the other one herself.
    assert "+852 5123 4568" not in words

    assert contacts.given_up(ada, now=now + contacts.SHOWN_FOR + timedelta(hours=1)) == {}
    hers.post(reverse("notices:add-phone"), {"number": NUMBER})
    words = hers.get(PAGE).text
    assert "Given up" not in words
    assert "Waits for its code" in words


@pytest.mark.parametrize(
    ("channel", "address", "label", "name"),
    [
        ("push", "https://push.example/1", "Firefox, Linux", "Firefox, Linux"),
        ("wechat", "openid", "WeChat", "Your WeChat account"),
        ("app", "device", "", "A device"),
        ("letter", "Ada, 1 Old Street, GB", "", "Ada, 1 Old Street, GB"),
    ],
)
def test_each_way_that_is_given_up_stands_where_it_was(
    hers: Client, ada: User, settings: Settings, channel: str, address: str, label: str, name: str
) -> None:
    now = timezone.now()
    point = ContactPoint.objects.create(
        customer=ada, channel=channel, address=address, label=label, created_at=now, verified_at=now
    )
    notice = told(ada, now=now)
    message = Message.objects.create(sha256="0" * 64, language="en", subject="s", body="b")
    delivery = Delivery.objects.create(
        notice=notice,
        channel=channel,
        address=address,
        contact_point=point,
        due_at=now,
        state="sent",
        sent_at=now,
        attempts=1,
        message=message,
    )
    came_back = Report(f"delivery-{delivery.pk}", has_arrived=False, detail="It is gone.")
    assert deliveries.report(channel=channel, told=came_back, now=now)
    with running_push(settings), running_wechat(settings), running_app(settings):
        words = " ".join(hers.get(PAGE).text.split())
    assert f'{name} <span class="badge badge--bad">Given up</span>' in words
    assert "<q>It is gone.</q>" in words


def test_a_postal_address_is_kept_line_by_line(hers: Client, ada: User) -> None:
    said = {"name": "Lin 林", "lines": "1 Sample Road\r\n\r\n  Kowloon ", "country": "HK"}
    page = hers.post(reverse("notices:add-postal-address"), said, follow=True)
    assert "Lin 林<br>1 Sample Road<br>Kowloon<br>Hong Kong SAR China" in page.content.decode()
    for wrong in ({"lines": "1\n2\n3\n4\n5"}, {"lines": "x" * 41}, {"name": "😀"}, {"country": "XX"}):
        assert hers.post(reverse("notices:add-postal-address"), said | wrong).status_code == 422
    assert ada.contact_points.count() == 1


# --- browsers ----------------------------------------------------------------------------------------


def test_a_browser_subscribes_with_the_token_that_it_was_given(
    push_service: RunningCarrier, ada: User
) -> None:
    client = Client(enforce_csrf_checks=True)
    client.force_login(ada)
    url = reverse("notices:browser")
    given = client.get(url).json()
    subscription = push_service.ask("POST", "/subscriptions", json={"applicationServerKey": given["key"]})
    assert client.post(url, subscription, content_type="application/json").status_code == 403
    answer = client.post(
        url,
        subscription,
        content_type="application/json",
        headers={
            "X-CSRFToken": given["token"],
            "User-Agent": "Mozilla/5.0 (Linux; Android 14) Firefox/140.0",
        },
    )
    assert answer.status_code == 201
    point = ada.contact_points.get()
    assert (point.address, point.label) == (subscription["endpoint"], "Firefox, Android")
    assert json.dumps([subscription["endpoint"]]).replace('"', "&quot;") in client.get(PAGE).content.decode()


@pytest.mark.parametrize(
    ("said", "status"),
    [
        ({"endpoint": "https://192.168.0.1/", "keys": {"p256dh": "A", "auth": "B"}}, 422),
        ({"endpoint": 1}, 400),
        ([], 400),
    ],
)
def test_what_is_no_subscription_is_refused(
    hers: Client, push_service: RunningCarrier, said: object, status: int
) -> None:
    answer = hers.post(reverse("notices:browser"), json.dumps(said), content_type="application/json")
    assert answer.status_code == status
    assert hers.post(reverse("notices:browser"), b"\xff{", content_type="application/json").status_code == 400
    assert ContactPoint.objects.count() == 0


def test_a_browser_that_nobody_is_logged_in_on_is_told_nothing(
    client: Client, push_service: RunningCarrier
) -> None:
    assert client.get(reverse("notices:browser")).status_code == 403
    assert (
        client.post(reverse("notices:browser"), subscribe(push_service), "application/json").status_code
        == 403
    )


def test_the_worker_may_act_on_every_page(client: Client) -> None:
    response = client.get("/push-worker.js")
    assert response.headers["Content-Type"] == "text/javascript; charset=utf-8"
    assert response.headers["Service-Worker-Allowed"] == "/"
    assert b"showNotification" in response.content


@pytest.mark.parametrize(
    ("user_agent", "name"),
    [
        ("Mozilla/5.0 (Windows NT 10.0; Win64; x64) Chrome/130.0 Safari/537.36 Edg/130.0", "Edge, Windows"),
        (
            "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) Version/18.0 Safari/604.1",
            "Safari, iPhone",
        ),
        ("curl/8.0", ""),
    ],
)
def test_a_browser_is_called_what_its_owner_would_call_it(user_agent: str, name: str) -> None:
    assert browser_name(user_agent) == name


def test_nothing_is_sent_by_looking(hers: Client, texts: RunningCarrier) -> None:
    hers.get(PAGE)
    assert hers.get(reverse("notices:add-phone")).status_code == 405
    assert Delivery.objects.count() == Notice.objects.count() == 0
