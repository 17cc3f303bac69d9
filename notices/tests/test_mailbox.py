"""The demo's mailbox: every mail becomes a file and a page."""

from pathlib import Path

import pytest
from django.core import mail
from django.test import Client
from pytest_django import Settings

from notices.channels.email import Email
from notices.channels.protocol import Outgoing
from notices.kinds import PAYMENT_RECEIVED
from notices.tests.samples import NOW

pytestmark = [pytest.mark.django_db, pytest.mark.urls("notices.tests.demo_urls")]


@pytest.fixture(autouse=True)
def folder(settings: Settings, tmp_path: Path) -> Path:
    settings.EMAIL_BACKEND = "vmos_presale.demo.mailbox.MailboxBackend"
    settings.MAILBOX_DIR = tmp_path / "mail"
    (tmp_path / "secret.eml").write_text("Subject: not a mail of the demo\n\n")
    return tmp_path / "mail"


def send(subject: str) -> None:
    mail.send_mail(
        subject, "See https://example.com/orders/VP-7K2M/\nand <b>be well</b>.", None, ["ada@example.com"]
    )


def test_an_empty_mailbox_says_so(client: Client) -> None:
    assert "No mail yet" in client.get("/demo/mail/").text


def test_mails_are_shown_newest_first_and_never_half_written(client: Client, folder: Path) -> None:
    for subject in ("first", "second", "third"):
        send(subject)
    (folder / "20991231-000000-000000-ffffffff.part").write_text("Subject: half written")
    text = client.get("/demo/mail/").text
    assert text.index("third") < text.index("second") < text.index("first")
    assert "half written" not in text
    assert "ada@example.com" in text


def test_a_mail_can_be_read_and_its_links_followed(client: Client, folder: Path) -> None:
    send("Réservation 预售")
    (path,) = folder.iterdir()
    text = client.get(f"/demo/mail/{path.stem}/").text
    assert "Réservation 预售" in text
    assert '<a href="https://example.com/orders/VP-7K2M/"' in text
    assert "&lt;b&gt;be well&lt;/b&gt;" in text


def test_a_notice_arrives_as_it_was_written(client: Client, folder: Path) -> None:
    Email().send(
        Outgoing(
            delivery_id=17,
            message_id=1,
            recipient_id=1,
            address="ada@example.com",
            details={},
            about="x",
            kind=PAYMENT_RECEIVED,
            language="en",
            subject="Payment received",
            body="Thank you!",
            url="/orders/x/",
        ),
        now=NOW,
    )
    (path,) = folder.iterdir()
    text = client.get(f"/demo/mail/{path.stem}/").text
    assert "Thank you!" in text
    assert "&lt;delivery-17@" in text


def test_the_mailbox_has_pages(client: Client) -> None:
    for number in range(21):
        send(f"mail {number}")
    assert client.get("/demo/mail/").text.count("<article") == 20
    assert client.get("/demo/mail/?page=2").text.count("<article") == 1


@pytest.mark.parametrize(
    "name", ["../secret", "..%2Fsecret", "%2e%2e/secret", "..\\secret", "/secret", "none", "a.b", "%00"]
)
def test_no_name_leads_out_of_the_folder(client: Client, name: str) -> None:
    send("a mail")
    assert client.get(f"/demo/mail/{name}/").status_code == 404
