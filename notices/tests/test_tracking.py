"""What a provider of mail reports, by its own webhook, over Anymail."""

import hashlib
import hmac
import json
from collections.abc import Mapping

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from notices.channels import CHANNELS
from notices.channels.protocol import Accepted, Uncertain
from notices.kinds import GUARDIAN_CONFIRMED, NEXT_IN_LINE, Kind
from notices.models import Delivery, Preference
from notices.outbox import drain
from notices.tests.samples import NOW, Outside, customer, told

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

KEY = "a webhook signing key"
MESSAGE_ID = "<20261123.1@mg.example.com>"


@pytest.fixture(autouse=True)
def _mailgun(settings: Settings) -> None:
    settings.ANYMAIL = {"MAILGUN_WEBHOOK_SIGNING_KEY": KEY}
    settings.ROOT_URLCONF = "notices.tests.tracking_urls"


def sent(monkeypatch: pytest.MonkeyPatch, kind: Kind = GUARDIAN_CONFIRMED) -> User:
    ada = customer()
    monkeypatch.setitem(CHANNELS, "email", Outside(Accepted(MESSAGE_ID)))
    told(ada, kind=kind, key="one")
    drain(now=NOW)
    return ada


def mailgun(
    client: Client,
    event: str,
    *,
    key: str = KEY,
    event_id: str = "e1",
    data: Mapping[str, object] | None = None,
) -> int:
    """Post what Mailgun posts (its documents: "Webhooks", payload of events)."""
    timestamp, token = "1795400000", "t" * 50
    signature = hmac.new(key.encode(), f"{timestamp}{token}".encode(), hashlib.sha256).hexdigest()
    body = {
        "signature": {"timestamp": timestamp, "token": token, "signature": signature},
        "event-data": {
            "event": event,
            "id": event_id,
            "timestamp": 1795400000.1,
            "message": {"headers": {"message-id": MESSAGE_ID.strip("<>")}},
            "recipient": "ada@example.com",
            **(data or {}),
        },
    }
    answer = client.post("/messages/callbacks/email/mailgun/tracking/", json.dumps(body), "application/json")
    return answer.status_code


def steps() -> list[str]:
    return [event.step for event in Delivery.objects.get(channel="email").events.all()]


def test_what_the_recipients_server_took_is_written_down_once(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(monkeypatch)
    assert [mailgun(client, "delivered", event_id=f"e{number}") for number in range(2)] == [200, 200]
    assert steps() == ["begun", "accepted", "received"]


def test_what_bounced_is_written_down_with_the_servers_words(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(monkeypatch)
    status = {"code": 550, "message": "5.1.1 no such user", "description": ""}
    data = {"severity": "permanent", "reason": "bounce", "delivery-status": status}
    mailgun(client, "failed", data=data)
    event = Delivery.objects.get(channel="email").events.get(step="returned")
    assert "no such user" in event.detail


def test_what_nobody_knew_of_was_sent_after_all(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    ada = customer()
    monkeypatch.setitem(CHANNELS, "email", Outside(Uncertain("no answer")))
    told(ada, key="one")
    drain(now=NOW)
    delivery = Delivery.objects.get(channel="email")
    headers = {"headers": {"message-id": f"delivery-{delivery.pk}@127.0.0.1"}}
    assert mailgun(client, "delivered", data={"message": headers}) == 200
    delivery.refresh_from_db()
    assert delivery.state == "sent"


@pytest.mark.parametrize(("kind", "is_off"), [(NEXT_IN_LINE, True), (GUARDIAN_CONFIRMED, False)])
def test_a_complaint_switches_off_what_is_optional_and_nothing_else(
    client: Client, monkeypatch: pytest.MonkeyPatch, kind: Kind, is_off: bool
) -> None:
    ada = sent(monkeypatch, kind)
    assert mailgun(client, "complained") == 200
    assert Preference.objects.filter(customer=ada, kind=kind.slug, is_wanted=False).exists() == is_off


def test_a_report_that_is_not_the_providers_is_refused(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent(monkeypatch)
    assert mailgun(client, "delivered", key="another") == 400
    assert steps() == ["begun", "accepted"]


def test_a_report_of_a_mail_that_is_not_ours_changes_nothing(client: Client) -> None:
    assert mailgun(client, "delivered") == 200
