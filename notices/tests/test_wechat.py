"""The WeChat Official Account, against an account that keeps WeChat's rules and encrypts by its own code."""

import hashlib
import threading
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
from django.test import Client
from django.urls import reverse
from pytest_django import Settings

from accounts.models import User
from notices.channels.emulators.running import RunningCarrier
from notices.channels.emulators.wechat import PERSON
from notices.channels.protocol import Gone, Refused, Unavailable, Uncertain
from notices.channels.wechat import Wechat, access_token, authorize_url, fields_of, openid_of
from notices.models import ContactPoint, Delivery, DeliveryState
from notices.outbox import drain
from notices.tests.carrying import Listener, hand_over, listening, outgoing, running_wechat, scripted
from notices.tests.samples import NOW, customer, told
from notices.views_contacts import binding_token

pytestmark = pytest.mark.clause("VIII")


@pytest.fixture
def shop() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def wechat(settings: Settings, shop: Listener) -> Iterator[RunningCarrier]:
    settings.SITE_URL = shop.url
    with running_wechat(settings, shop=shop.url) as carrier:
        yield carrier


@pytest.fixture
def follower(wechat: RunningCarrier, settings: Settings) -> str:
    """Somebody whom the account knows: he came back from its OAuth once."""
    url = authorize_url(back_to=f"{settings.SITE_URL}/", state="s" * 32)
    came_back = httpx.get(url, follow_redirects=False, trust_env=False).headers["Location"]
    return openid_of(came_back.partition("code=")[2].partition("&")[0])


# --- messages ----------------------------------------------------------------------------------------


def test_a_message_has_fields_of_twenty_characters_in_one_line_and_leads_to_the_page(
    wechat: RunningCarrier, follower: str, shop: Listener
) -> None:
    text = "订单 VP-7K2M 的三台云手机\n已经分配,现在就可以使用。"
    accepted = hand_over(Wechat(), outgoing(follower, body=text))
    (message,) = wechat.messages()
    assert message["details"]["fields"] == {
        "thing1": "Payment received",
        "thing2": "订单 VP-7K2M 的三台云手机 已…",
        "character_string3": "VP-7K2M",
    }
    assert [len(value) <= 20 for value in message["details"]["fields"].values()] == [True] * 3
    assert message["url"] == f"{shop.url}/orders/VP-7K2M/"
    assert accepted.provider_reference.isdecimal()


def test_a_message_about_nothing_in_particular_has_all_its_fields() -> None:
    message = Wechat().fitted(outgoing("openid", about="", subject="Hi", body="Hi"))
    assert fields_of(message)["character_string3"] == "-"


def test_one_token_serves_many_messages_and_all_workers(wechat: RunningCarrier, follower: str) -> None:
    found: list[str] = []
    workers = [threading.Thread(target=lambda: found.append(access_token())) for _ in range(8)]
    for worker in workers:
        worker.start()
    for worker in workers:
        worker.join()
    for number in range(3):
        hand_over(Wechat(), outgoing(follower, delivery_id=number))
    assert len(set(found)) == 1
    assert wechat.books()["token_calls"] == 1


def test_a_token_that_is_taken_back_is_fetched_anew_once(wechat: RunningCarrier, follower: str) -> None:
    hand_over(Wechat(), outgoing(follower))
    wechat.ask("DELETE", "/_tokens")
    hand_over(Wechat(), outgoing(follower, delivery_id=18))
    assert (len(wechat.messages()), wechat.books()["token_calls"]) == (2, 2)
    for _ in range(2):
        wechat.ask("POST", "/_refusals", json={"errcode": 40001})
    with pytest.raises(Unavailable, match="40001"):
        hand_over(Wechat(), outgoing(follower, delivery_id=19))
    assert wechat.books()["token_calls"] == 3


def test_control_the_account_refuses_fields_that_are_too_long(
    wechat: RunningCarrier, follower: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("notices.channels.wechat.FIELD_LENGTH", 21)
    with pytest.raises(Refused, match="47003"):
        hand_over(Wechat(), outgoing(follower, body="帧" * 30))


@pytest.mark.parametrize(
    ("code", "outcome", "pause"),
    [
        (43004, Gone, None),
        (40003, Gone, None),
        (43101, Refused, None),
        (47003, Refused, None),
        (40037, Unavailable, None),
        # 12:30 in Beijing: until midnight.
        (45009, Unavailable, timedelta(hours=11, minutes=30)),
        (45011, Unavailable, timedelta(minutes=1)),
        (-1, Unavailable, None),
    ],
)
def test_wechats_word_decides_what_becomes_of_a_message(
    wechat: RunningCarrier, follower: str, code: int, outcome: type[Exception], pause: timedelta | None
) -> None:
    wechat.ask("POST", "/_refusals", json={"errcode": code})
    with pytest.raises(outcome, match=str(code)) as failure:
        hand_over(Wechat(), outgoing(follower))
    assert type(failure.value) is outcome
    assert getattr(failure.value, "retry_after", None) == pause
    assert wechat.messages() == []


def test_silence_after_a_message_is_uncertain(wechat: RunningCarrier, settings: Settings) -> None:
    access_token()
    with scripted() as server:
        settings.WECHAT_OA_URL, server.status = server.url, None
        with pytest.raises(Uncertain):
            hand_over(Wechat(), outgoing("openid"))


def test_without_a_token_surely_nothing_was_sent(wechat: RunningCarrier, settings: Settings) -> None:
    settings.WECHAT_OA_SECRET = "another"
    with pytest.raises(Unavailable, match="40125"):
        hand_over(Wechat(), outgoing("openid"))


# --- binding -----------------------------------------------------------------------------------------


@pytest.fixture
def ada(db: None) -> User:
    return customer()


def scan(client: Client, owner: User) -> str:
    """Open in WeChat what the code on her page says; returns where WeChat then leads back to."""
    token = binding_token(channel="wechat", customer_id=owner.pk)
    page = client.get(reverse("notices:bind-wechat", args=[token]))
    assert owner.email in page.content.decode()
    assert ContactPoint.objects.count() == 0
    return str(httpx.get(page.context["url"], follow_redirects=False, trust_env=False).headers["Location"])


def test_a_customer_binds_her_wechat_account_on_a_phone_where_she_is_not_logged_in(
    wechat: RunningCarrier, shop: Listener, ada: User, client: Client
) -> None:
    back = scan(client, ada)
    assert client.get(back.removeprefix(shop.url)).status_code == 200
    point = ContactPoint.objects.get()
    assert (point.customer_id, point.channel, point.address) == (ada.pk, "wechat", PERSON)
    # The way back is gone once, and from her own phone only.
    assert client.get(back.removeprefix(shop.url)).status_code == 410


def test_a_way_back_that_another_phone_was_given_binds_nothing(
    wechat: RunningCarrier, shop: Listener, ada: User, client: Client
) -> None:
    back = scan(Client(), ada)
    assert client.get(back.removeprefix(shop.url)).status_code == 410
    assert ContactPoint.objects.count() == 0


def test_a_code_that_is_too_old_or_somebody_elses_invention_binds_nothing(ada: User, client: Client) -> None:
    token = binding_token(channel="app", customer_id=ada.pk)
    for wrong in (token, token[:-1], "x"):
        assert client.get(reverse("notices:bind-wechat", args=[wrong])).status_code == 410


# --- what WeChat tells -------------------------------------------------------------------------------


@pytest.fixture
def sent(wechat: RunningCarrier, follower: str, ada: User) -> Delivery:
    """A notice that WeChat has taken for her."""
    ContactPoint.objects.create(
        customer=ada, channel="wechat", address=follower, created_at=NOW, verified_at=NOW
    )
    told(ada)
    drain(now=NOW)
    delivery: Delivery = Delivery.objects.get(channel="wechat")
    assert delivery.state == DeliveryState.SENT
    return delivery


def test_that_a_message_arrived_is_its_evidence(sent: Delivery, shop: Listener, client: Client) -> None:
    event = shop.told.get(timeout=5)
    for _ in range(2):
        assert event.to(client).content == b"success"
    assert list(sent.events.values_list("step", flat=True)) == ["begun", "accepted", "received"]


def test_what_is_told_before_we_know_the_message_is_told_again(
    sent: Delivery, shop: Listener, client: Client
) -> None:
    Delivery.objects.update(provider_reference="")
    assert shop.told.get(timeout=5).to(client).status_code == 503


def test_who_follows_no_more_is_written_to_no_more(
    wechat: RunningCarrier, sent: Delivery, shop: Listener, client: Client
) -> None:
    httpx.post(f"{wechat.url}/unfollow", trust_env=False)
    shop.told.get(timeout=5)
    assert shop.told.get(timeout=5).to(client).content == b"success"
    assert ContactPoint.objects.get().removal == "He does not follow the account any more."
    with pytest.raises(Gone):
        hand_over(Wechat(), outgoing(sent.address))


@pytest.mark.parametrize("spoilt", ["msg_signature", "body"])
def test_what_is_not_surely_wechats_is_not_believed(
    sent: Delivery, shop: Listener, client: Client, spoilt: str
) -> None:
    event = shop.told.get(timeout=5)
    if spoilt == "body":
        event = event._replace(body=event.body.replace(b"<Encrypt><![CDATA[", b"<Encrypt><![CDATA[AAAA"))
    else:
        event = event._replace(path=event.path.replace("msg_signature=", "msg_signature=0"))
    assert event.to(client).status_code == 403
    assert "received" not in sent.events.values_list("step", flat=True)


def test_xml_that_declares_entities_is_not_even_read(wechat: RunningCarrier, client: Client) -> None:
    body = '<!DOCTYPE x [<!ENTITY a "b">]><xml><Encrypt>&a;</Encrypt></xml>'
    response = client.post(reverse("notices:wechat-events"), body, content_type="text/xml")
    assert response.status_code == 403


def test_the_message_server_answers_wechats_question_and_nobody_elses(
    wechat: RunningCarrier, client: Client
) -> None:
    url = reverse("notices:wechat-events")
    query = {"timestamp": "1700000000", "nonce": "n1", "echostr": "42"}
    signature = hashlib.sha1(b"1700000000n1token").hexdigest()
    assert client.get(url, {**query, "signature": signature}).content == b"42"
    assert client.get(url, {**query, "signature": "0" * 40}).status_code == 403
