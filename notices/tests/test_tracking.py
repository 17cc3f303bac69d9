"""What a provider of mail reports, by its own webhook, over Anymail."""

import base64
import hashlib
import hmac
import json
import time
from collections.abc import Mapping
from datetime import datetime

import pytest
from django.core.management import call_command
from django.core.management.base import SystemCheckError
from django.test import Client
from django.urls import include, path
from pytest_django import Settings

from accounts.models import User
from notices.channels import CHANNELS, tracking
from notices.channels.protocol import Accepted, Outgoing, Uncertain
from notices.kinds import GUARDIAN_CONFIRMED, NEXT_IN_LINE, Kind
from notices.models import Delivery, Preference
from notices.outbox import drain
from notices.tests.samples import NOW, Outside, customer, told

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

KEY = "a webhook signing key"
MESSAGE_ID = "<20261123.1@mg.example.com>"


def sends_by(provider: str, settings: Settings, **anymail: str) -> None:
    """A shop that has started with these settings."""
    # Loaded before they are made: its addresses are those of the settings that it was loaded with.
    site = include("vmos_presale.urls")
    settings.EMAIL_BACKEND = f"anymail.backends.{provider}.EmailBackend"
    settings.ANYMAIL = anymail
    reports = path("messages/callbacks/email/", include(list(tracking.addresses())))
    settings.ROOT_URLCONF = (reports, path("", site))


@pytest.fixture(autouse=True)
def _mailgun(settings: Settings) -> None:
    sends_by("mailgun", settings, MAILGUN_WEBHOOK_SIGNING_KEY=KEY)


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


def test_a_mail_that_the_provider_has_named_himself_is_known_by_what_it_carries(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    ada = customer()
    monkeypatch.setitem(CHANNELS, "email", Outside(Uncertain("no answer")))
    told(ada, key="one")
    drain(now=NOW)
    delivery = Delivery.objects.get(channel="email")
    carried = {"user-variables": {"delivery": f"delivery-{delivery.pk}"}}
    assert mailgun(client, "delivered", data=carried) == 200
    delivery.refresh_from_db()
    assert (delivery.state, delivery.provider_reference) == ("sent", MESSAGE_ID)


def test_a_report_that_comes_before_we_have_written_down_the_providers_name_is_not_lost(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    answers: list[int] = []

    class ReportsFirst(Outside):
        def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
            carried = {"user-variables": {"delivery": outgoing.reference}}
            answers.append(mailgun(client, "delivered", data=carried))
            return Accepted(MESSAGE_ID)

    monkeypatch.setitem(CHANNELS, "email", ReportsFirst())
    told(customer(), key="one")
    drain(now=NOW)
    assert (answers, steps()) == ([200], ["begun", "received", "accepted"])
    assert Delivery.objects.get(channel="email").state == "sent"


@pytest.mark.parametrize(("age", "answer"), [(10, 503), (10_000, 200)])
def test_a_provider_that_carries_nothing_of_ours_is_asked_to_tell_again_what_is_not_known_yet(
    client: Client, monkeypatch: pytest.MonkeyPatch, settings: Settings, age: int, answer: int
) -> None:
    monkeypatch.setattr(tracking, "CARRY_NOTHING", {settings.EMAIL_BACKEND})
    data = {"timestamp": time.time() - age}
    assert mailgun(client, "delivered", data=data) == answer
    sent(monkeypatch)
    assert mailgun(client, "delivered", data=data) == 200
    assert steps() == ["begun", "accepted", "received"]


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


def bounced(client: Client, provider: str, **headers: str) -> int:
    """Post what Postmark posts of a mail that came back, to the address of `provider`."""
    body = {
        "RecordType": "Bounce",
        "Type": "HardBounce",
        "TypeCode": 1,
        "MessageID": f"delivery-{Delivery.objects.get(channel='email').pk}",
        "Email": "ada@example.com",
        "BouncedAt": "2026-11-23T04:31:00Z",
        "Description": "forged",
    }
    answer = client.post(
        f"/messages/callbacks/email/{provider}/tracking/",
        json.dumps(body),
        "application/json",
        headers=headers,
    )
    return answer.status_code


def test_a_report_that_nobody_signed_is_refused(client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    sent(monkeypatch)
    assert bounced(client, "mailgun") == 400
    assert steps() == ["begun", "accepted"]


@pytest.mark.parametrize("provider", ["postmark", "sendgrid", "amazon_ses", "brevo", "mailjet", "sparkpost"])
def test_nobody_reports_in_the_name_of_a_provider_that_does_not_send_our_mail(
    client: Client, monkeypatch: pytest.MonkeyPatch, provider: str
) -> None:
    sent(monkeypatch)
    assert bounced(client, provider) == 404
    assert steps() == ["begun", "accepted"]


@pytest.mark.parametrize(
    ("told", "status", "last"),
    [("reports:secret", 200, "returned"), ("reports:guessed", 400, "accepted"), ("", 400, "accepted")],
)
def test_a_provider_that_does_not_sign_has_to_know_the_password(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    told: str,
    status: int,
    last: str,
) -> None:
    sends_by("postmark", settings, WEBHOOK_SECRET="reports:secret")
    sent(monkeypatch)
    proof = {"authorization": f"Basic {base64.b64encode(told.encode()).decode()}"} if told else {}
    assert bounced(client, "postmark", **proof) == status
    assert steps()[-1] == last


@pytest.mark.parametrize(
    ("provider", "anymail", "says"),
    [
        ("postmark", {}, "Put WEBHOOK_SECRET into ANYMAIL"),
        (
            "mailgun",
            {"MAILGUN_API_KEY": "k"},
            "Put MAILGUN_WEBHOOK_SIGNING_KEY into ANYMAIL",
        ),
        # The password alone is of no use where Anymail looks for a signature.
        ("mailersend", {"WEBHOOK_SECRET": "user:password"}, "Put MAILERSEND_SIGNING_SECRET into ANYMAIL"),
        ("sendgrid", {"WEBHOOK_SECRET": ""}, "Put SENDGRID_TRACKING_WEBHOOK_VERIFICATION_KEY or"),
    ],
)
def test_a_shop_does_not_start_that_would_believe_anybody(
    client: Client,
    monkeypatch: pytest.MonkeyPatch,
    settings: Settings,
    provider: str,
    anymail: Mapping[str, str],
    says: str,
) -> None:
    sends_by(provider, settings, **anymail)
    with pytest.raises(SystemCheckError, match=f"notices.E001.*\n.*{says}"):
        call_command("check")
    # Web servers and workers run no checks: the site has no such address then.
    sent(monkeypatch)
    assert bounced(client, provider) == 404


@pytest.mark.parametrize(
    ("provider", "anymail"),
    [
        ("mailgun", {"MAILGUN_WEBHOOK_SIGNING_KEY": "k"}),
        ("mandrill", {"MANDRILL_WEBHOOK_KEY": "k"}),
        ("sendgrid", {"WEBHOOK_SECRET": "user:password"}),
        ("amazon_ses", {"WEBHOOK_SECRET": "user:password"}),
    ],
)
def test_a_shop_starts_that_can_tell_its_providers_reports(
    settings: Settings, provider: str, anymail: Mapping[str, str]
) -> None:
    sends_by(provider, settings, **anymail)
    assert tracking.reports_are_proved() == ()
    assert tracking.addresses()


@pytest.mark.parametrize(
    "backend", ["django.core.mail.backends.smtp.EmailBackend", "anymail.backends.console.EmailBackend"]
)
def test_nothing_is_asked_of_a_backend_that_nobody_reports_for(settings: Settings, backend: str) -> None:
    settings.EMAIL_BACKEND, settings.ANYMAIL = backend, {}
    assert tracking.reports_are_proved() == ()
    assert tracking.addresses() == ()


def test_a_report_of_a_mail_that_is_not_ours_changes_nothing(client: Client) -> None:
    assert mailgun(client, "delivered") == 200
