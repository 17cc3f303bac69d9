"""Client push to the platform's own app, against its server, which verifies our signature by its own code."""

import json
from collections.abc import Iterator
from datetime import timedelta

import httpx
import pytest
import time_machine
from django.test import Client
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from notices.channels.app import App
from notices.channels.emulators.app import PHONE_NAME
from notices.channels.emulators.running import RunningCarrier
from notices.channels.protocol import Gone, Refused, Unavailable
from notices.models import ContactPoint
from notices.tests.carrying import (
    SUBJECT,
    Listener,
    hand_over,
    listening,
    nobody_there,
    outgoing,
    running_app,
    scripted,
)
from notices.tests.samples import customer
from notices.views_contacts import binding_token

pytestmark = pytest.mark.clause("VIII")


@pytest.fixture
def shop() -> Iterator[Listener]:
    with listening() as listener:
        yield listener


@pytest.fixture
def app(settings: Settings, shop: Listener) -> Iterator[RunningCarrier]:
    settings.SITE_URL = "https://shop.example"
    with running_app(settings, shop=shop.url) as carrier:
        yield carrier


@pytest.fixture
def ada(db: None) -> User:
    return customer()


def bind(app: RunningCarrier, token: str) -> None:
    """Press the app's button."""
    httpx.post(f"{app.url}/bind", data={"token": token}, trust_env=False)


@pytest.fixture
def device(app: RunningCarrier, shop: Listener) -> str:
    bind(app, "whatever")
    return str(json.loads(shop.told.get(timeout=5).body)["device"])


def test_a_device_gets_a_message_once_however_often_it_is_sent(app: RunningCarrier, device: str) -> None:
    for _ in range(2):
        accepted = hand_over(App(), outgoing(device))
        assert accepted.provider_reference == "app-delivery-17"
    (message,) = app.messages()
    assert (message["title"], message["url"]) == (SUBJECT, "https://shop.example/orders/VP-7K2M/")
    assert message["details"] == {"kind": "payment-received", "about": "VP-7K2M", "language": "en"}


def test_silence_is_no_doubt_for_asking_again_does_no_harm(
    app: RunningCarrier, device: str, settings: Settings
) -> None:
    app.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        hand_over(App(), outgoing(device))
    hand_over(App(), outgoing(device))
    assert len(app.messages()) == 1
    with scripted() as server:
        settings.APP_PUSH_URL, server.status = server.url, None
        with pytest.raises(Unavailable):
            hand_over(App(), outgoing(device))
    settings.APP_PUSH_URL = nobody_there()
    with pytest.raises(Unavailable):
        hand_over(App(), outgoing(device))


@pytest.mark.parametrize(
    ("status", "outcome"),
    [(400, Refused), (401, Unavailable), (410, Gone), (429, Unavailable), (500, Unavailable)],
)
def test_the_answer_decides_what_becomes_of_a_message(
    app: RunningCarrier, settings: Settings, status: int, outcome: type[Exception]
) -> None:
    with scripted() as server:
        settings.APP_PUSH_URL, server.status = server.url, status
        with pytest.raises(outcome) as failure:
            hand_over(App(), outgoing("device-1"))
    assert type(failure.value) is outcome


def test_control_the_apps_server_refuses_another_secret(
    app: RunningCarrier, device: str, settings: Settings
) -> None:
    settings.APP_PUSH_SECRET = "whsec_" + "A" * 32
    with pytest.raises(Unavailable, match="signature is not the shop's"):
        hand_over(App(), outgoing(device))


# --- binding -----------------------------------------------------------------------------------------


def test_the_app_binds_its_device_to_whom_the_code_names_and_lets_it_go(
    app: RunningCarrier, shop: Listener, ada: User, client: Client
) -> None:
    bind(app, binding_token(channel="app", customer_id=ada.pk))
    told = shop.told.get(timeout=5)
    for _ in range(2):
        assert told.to(client).status_code == 204
    point = ContactPoint.objects.get()
    assert (point.customer_id, point.channel, point.label) == (ada.pk, "app", PHONE_NAME)
    hand_over(App(), outgoing(point.address))
    assert app.messages()[0]["recipient"] == point.address


def test_a_binding_that_is_not_signed_by_the_apps_server_is_not_believed(
    app: RunningCarrier, shop: Listener, ada: User, client: Client
) -> None:
    app.set_faults(wrong_key=1)
    bind(app, binding_token(channel="app", customer_id=ada.pk))
    assert shop.told.get(timeout=5).to(client).status_code == 403
    unsigned = client.post(reverse("notices:app-devices"), {"device": "1"}, content_type="application/json")
    assert unsigned.status_code == 403
    assert ContactPoint.objects.count() == 0


def test_a_code_binds_nothing_after_ten_minutes_and_a_code_for_wechat_never(
    app: RunningCarrier, shop: Listener, ada: User, client: Client
) -> None:
    with time_machine.travel(timezone.now() - timedelta(minutes=11)):
        old = binding_token(channel="app", customer_id=ada.pk)
    for token in (old, binding_token(channel="wechat", customer_id=ada.pk)):
        bind(app, token)
        assert shop.told.get(timeout=5).to(client).status_code == 410
    assert ContactPoint.objects.count() == 0
