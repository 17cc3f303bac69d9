"""The log of what a customer was told: whole, exact, and his own only."""

import csv
import io
import json
from datetime import UTC, datetime, timedelta

import pytest
from django.test import Client

from accounts.models import User
from notices import deliveries
from notices.channels import CHANNELS
from notices.channels.protocol import Accepted, Report, Uncertain
from notices.evidence import COLUMNS, proofs
from notices.models import Delivery
from notices.outbox import drain
from notices.tests.samples import Outside, customer, told

pytestmark = [pytest.mark.django_db, pytest.mark.clause("VIII")]

# In Hong Kong it is the next day already.
EVENING = datetime(2026, 11, 23, 20, 30, tzinfo=UTC)


@pytest.fixture
def ada(monkeypatch: pytest.MonkeyPatch) -> User:
    """She was told of two orders; the first mail has arrived."""
    monkeypatch.setitem(CHANNELS, "email", Outside(Accepted("ref-1")))
    ada = customer()
    told(ada, now=EVENING)
    drain(now=EVENING)
    deliveries.report(channel="email", told=Report("ref-1", has_arrived=True), now=EVENING)
    told(customer("ben@example.com"), key="another's", now=EVENING)
    drain(now=EVENING)
    return ada


def mail(ada: User) -> Delivery:
    delivery: Delivery = Delivery.objects.get(channel="email", notice__recipient=ada)
    return delivery


def test_everything_on_record_of_a_delivery_is_shown(ada: User) -> None:
    in_site, by_mail = (proof.as_row() for proof in proofs(ada.pk))
    delivery, message = mail(ada), mail(ada).message
    assert message
    assert delivery.sent_at
    assert by_mail == {
        "number": str(delivery.pk),
        "kind": "payment-received",
        "clause": "3.3",
        "about": "VP-7K2M",
        "channel": "email",
        "address": "ada@example.com",
        "language": "en",
        "subject": "Payment received for order VP-7K2M",
        "text": message.body,
        "sha256": message.sha256,
        "state": "sent",
        "begun_at": delivery.events.get(step="begun").at.isoformat(),
        "sent_again_at": "",
        "sent_at": delivery.sent_at.isoformat(),
        "deemed_delivered_on": "2026-11-24",
        "received_at": EVENING.isoformat(),
        "returned_at": "",
        "provider_reference": "ref-1",
    }
    assert (in_site["channel"], in_site["text"], in_site["received_at"]) == ("in-site", message.body, "")


def test_the_page_shows_a_customers_own_only(client: Client, ada: User) -> None:
    client.force_login(ada)
    page = client.get("/messages/log/").text
    assert "Email: ada@example.com" in page
    assert "deemed delivered on Nov. 24, 2026" in page
    assert "ben@example.com" not in page
    assert "Only what is about VP-XXXX" in client.get("/messages/log/?about=VP-XXXX").text
    assert "Nothing was sent yet" in client.get("/messages/log/?about=VP-XXXX").text


def test_what_was_sent_once_more_is_said_to_have_come_perhaps_twice(
    client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    reader = customer("lin@example.com")
    monkeypatch.setitem(CHANNELS, "email", Outside(Uncertain("no answer")))
    told(reader, key="lin", now=EVENING)
    drain(now=EVENING)
    drain(now=EVENING + timedelta(hours=2))
    [mail] = [proof for proof in proofs(reader.pk) if proof.delivery.channel == "email"]
    again = mail.delivery.events.get(step="begun", attempt=2)
    assert (mail.delivery.state, mail.sent_again_at) == ("sent", again.at)
    assert mail.as_row()["sent_again_at"] == again.at.isoformat()
    client.force_login(reader)
    assert client.get("/messages/log/").text.count("it may have come twice") == 1


def test_it_can_be_taken_away_as_a_table_or_as_json(client: Client, ada: User) -> None:
    client.force_login(ada)
    table = client.get("/messages/log.csv").getvalue().decode("utf-8-sig")
    read = list(csv.DictReader(io.StringIO(table)))
    listed = json.loads(client.get("/messages/log.json").getvalue())
    assert tuple(read[0]) == COLUMNS
    assert read == listed == [dict(proof.as_row()) for proof in proofs(ada.pk)]


def test_no_cell_of_the_table_is_a_formula(
    client: Client, ada: User, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(CHANNELS, "email", Outside(Accepted('=HYPERLINK("https://evil.example")')))
    told(ada, key="second", now=EVENING)
    drain(now=EVENING)
    client.force_login(ada)
    table = client.get("/messages/log.csv").getvalue().decode("utf-8-sig")
    references = [row["provider_reference"] for row in csv.DictReader(io.StringIO(table))]
    assert '\'=HYPERLINK("https://evil.example")' in references


def test_an_empty_log_is_a_file_too(client: Client) -> None:
    client.force_login(customer())
    assert json.loads(client.get("/messages/log.json").getvalue()) == []
    assert "Nothing was sent yet" in client.get("/messages/log/").text


@pytest.mark.parametrize("path", ["/messages/log/", "/messages/log.csv"])
def test_the_log_is_for_customers_only(client: Client, path: str) -> None:
    assert client.get(path).status_code == 302
