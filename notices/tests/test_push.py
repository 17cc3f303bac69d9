"""Web Push, against a push service that decrypts and verifies by its own code."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
from pytest_django import Settings

from notices.channels.emulators.running import RunningCarrier
from notices.channels.protocol import Gone, Outgoing, Refused, Unavailable, Uncertain
from notices.channels.push import LONGEST_PAYLOAD, Push, may_be_endpoint, payload
from notices.kinds import AGREEMENT_REVISED, ESTIMATE_CHANGED, SECURITY
from notices.tests.carrying import (
    SUBJECT,
    Scripted,
    hand_over,
    nobody_there,
    outgoing,
    running_push,
    scripted,
    subscribe,
)

pytestmark = pytest.mark.clause("VIII")


@pytest.fixture
def push_service(settings: Settings) -> Iterator[RunningCarrier]:
    with running_push(settings) as carrier:
        yield carrier


def to_browser(subscription: dict[str, object], **fields: object) -> Outgoing:
    return outgoing(str(subscription["endpoint"]), details=subscription["keys"], **fields)


def test_a_browser_gets_title_text_and_page_encrypted_for_it_alone(push_service: RunningCarrier) -> None:
    accepted = hand_over(
        Push(), to_browser(subscribe(push_service), body="Thank you. 多谢。", language="zh-hant")
    )
    (message,) = push_service.messages()
    assert (message["title"], message["text"], message["url"]) == (
        SUBJECT,
        "Thank you. 多谢。",
        "/orders/VP-7K2M/",
    )
    assert message["details"]["lang"] == "zh-hant"
    assert accepted.provider_reference == f"{push_service.url}/message/{message['reference']}"


def test_what_cannot_wait_is_said_to_be_urgent_and_a_newer_estimate_takes_the_olders_place(
    push_service: RunningCarrier,
) -> None:
    subscription = subscribe(push_service)
    for kind, thread in (
        (SECURITY, ""),
        (ESTIMATE_CHANGED, "estimate:1"),
        (ESTIMATE_CHANGED, "estimate:1"),
        (ESTIMATE_CHANGED, "estimate:2"),
        (AGREEMENT_REVISED, ""),
    ):
        hand_over(Push(), to_browser(subscription, kind=kind, thread=thread))
    found = [message["details"] for message in push_service.messages()]
    assert [details["urgency"] for details in found] == ["high", "normal", "normal", "normal", "low"]
    topics = [details["topic"] for details in found]
    assert topics[0] == topics[4] == ""
    assert topics[1] == topics[2] != topics[3]
    assert {len(topic) for topic in topics[1:4]} == {32}


@pytest.mark.parametrize("character", ["a", "帧", "\x01", "😀"])
def test_a_long_text_is_cut_to_what_push_services_take(push_service: RunningCarrier, character: str) -> None:
    message = Push().fitted(to_browser(subscribe(push_service), body=character * 5_000))
    assert LONGEST_PAYLOAD - 100 < len(payload(message)) <= LONGEST_PAYLOAD
    hand_over(Push(), message)
    assert push_service.messages()[0]["text"].endswith(f"{character}…")


def test_a_browser_that_has_unsubscribed_is_written_to_no_more(push_service: RunningCarrier) -> None:
    subscription = subscribe(push_service)
    push_service.ask("DELETE", f"/subscriptions/{subscription['endpoint'].rpartition('/')[2]}")
    with pytest.raises(Gone):
        hand_over(Push(), to_browser(subscription))


def test_control_the_push_service_refuses_another_senders_key_and_another_browsers_message(
    push_service: RunningCarrier, settings: Settings
) -> None:
    one, other = subscribe(push_service), subscribe(push_service)
    with pytest.raises(Refused, match="not encrypted for this browser"):
        hand_over(Push(), outgoing(one["endpoint"], details=other["keys"]))
    settings.PUSH_VAPID_PRIVATE_KEY = "x" * 43
    with pytest.raises(Unavailable, match="another sender"):
        hand_over(Push(), to_browser(one))
    assert push_service.messages() == []


@pytest.fixture
def says(settings: Settings, push_service: RunningCarrier) -> Iterator[tuple[Scripted, Outgoing]]:
    """A push service that answers as it is told, and a message to one of its browsers."""
    subscription = subscribe(push_service)
    with scripted() as server:
        settings.PUSH_HOSTS = [server.url]
        yield server, outgoing(f"{server.url}/1", details=subscription["keys"])


@pytest.mark.parametrize(
    ("status", "outcome"),
    [
        (400, Refused),
        (401, Unavailable),
        (404, Gone),
        (410, Gone),
        (413, Refused),
        (500, Uncertain),
        (503, Unavailable),
        (None, Uncertain),
    ],
)
def test_the_answer_decides_what_becomes_of_a_message(
    says: tuple[Scripted, Outgoing], status: int | None, outcome: type[Exception]
) -> None:
    server, message = says
    server.status = status
    with pytest.raises(outcome) as failure:
        hand_over(Push(), message)
    assert type(failure.value) is outcome


@pytest.mark.parametrize(
    ("said", "pause"),
    [
        ("120", timedelta(minutes=2)),
        ("Mon, 23 Nov 2026 04:40:00 GMT", timedelta(minutes=10)),
        ("99999", timedelta(hours=1)),
        ("soon", None),
    ],
)
def test_a_busy_push_service_is_asked_again_when_it_says(
    says: tuple[Scripted, Outgoing], said: str, pause: timedelta | None
) -> None:
    server, message = says
    server.status, server.headers = 429, {"Retry-After": said}
    with pytest.raises(Unavailable) as failure:
        hand_over(Push(), message)
    assert failure.value.retry_after == pause


def test_a_push_service_that_is_down_has_surely_not_taken_the_message(
    settings: Settings, push_service: RunningCarrier
) -> None:
    url = nobody_there()
    settings.PUSH_HOSTS = [url]
    with pytest.raises(Unavailable):
        hand_over(Push(), outgoing(f"{url}/1", details=subscribe(push_service)["keys"]))


@pytest.mark.parametrize(
    "url",
    [
        "http://fcm.googleapis.com/fcm/send/1",
        "https://fcm.googleapis.com:8443/fcm/send/1",
        "https://fcm.googleapis.com@192.0.2.1/1",
        "https://user:password@fcm.googleapis.com/1",
        "https://fcm.googleapis.com.example.com/1",
        "https://evil-notify.windows.com/1",
        "https://127.0.0.1/1",
        "https://[::1]/1",
        "https://169.254.169.254/latest/meta-data/",
        "https://localhost/1",
        "https://fcm.googleapis.com\\@192.0.2.1/",
        "file:///etc/passwd",
        "https://[",
        "",
    ],
)
@pytest.mark.parametrize("emulators", [False, True])
def test_nothing_is_sent_to_an_endpoint_that_is_not_a_push_services(
    settings: Settings, url: str, emulators: bool
) -> None:
    settings.ALLOW_EMULATORS = emulators
    assert not may_be_endpoint(url)


def test_the_push_services_of_browsers_are_known() -> None:
    for url in (
        "https://fcm.googleapis.com/fcm/send/abc:def",
        "https://updates.push.services.mozilla.com/wpush/v2/abc",
        "https://wns2-par02p.notify.windows.com/w/?token=abc",
        "https://web.push.apple.com/abc",
    ):
        assert may_be_endpoint(url)


def test_an_emulator_is_an_endpoint_only_where_there_may_be_one(settings: Settings) -> None:
    settings.PUSH_HOSTS = ["http://127.0.0.1:8002/push"]
    settings.ALLOW_EMULATORS = False
    assert not may_be_endpoint("http://127.0.0.1:8002/push/1")
    settings.ALLOW_EMULATORS = True
    assert may_be_endpoint("http://127.0.0.1:8002/push/1")
    assert not may_be_endpoint("http://127.0.0.1:8002/pushy/1")


def test_push_is_off_until_it_has_a_key_and_an_address_for_complaints(settings: Settings) -> None:
    settings.PUSH_VAPID_PRIVATE_KEY = settings.PUSH_VAPID_SUBJECT = ""
    assert Push().missing() == ["PUSH_VAPID_PRIVATE_KEY", "PUSH_VAPID_SUBJECT"]
