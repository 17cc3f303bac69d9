"""The email channel, against a mail server and a provider's API that answer as real ones do."""

import email
import json
import socket
import threading
from collections.abc import Iterator
from email import policy
from email.message import EmailMessage
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import Any, ClassVar

import pytest
from aiosmtpd.controller import Controller
from aiosmtpd.smtp import SMTP, Envelope, Session
from pytest_django import Settings

from notices.channels.email import Email, compose
from notices.channels.protocol import Deferred, Outgoing, Refused, Unavailable, Uncertain
from notices.kinds import GUARDIAN_ASKED, GUARDIAN_CONFIRMED, PAYMENT_RECEIVED, Kind
from notices.models import Delivery, DeliveryState
from notices.outbox import drain
from notices.tests.samples import NOW, customer, told

pytestmark = pytest.mark.clause("VIII")


def outgoing(address: str = "ada@example.com", **fields: Any) -> Outgoing:
    return Outgoing(
        **{
            "delivery_id": 17,
            "message_id": 1,
            "recipient_id": 1,
            "address": address,
            "details": {},
            "about": "VP-7K2M",
            "kind": PAYMENT_RECEIVED,
            "language": "en",
            "subject": "Payment received for order VP-7K2M",
            "body": "Thank you!\n\nThree phones <Pro & Max> are on order.",
            "url": "/orders/VP-7K2M/",
            **fields,
        }
    )


class Answers:
    """A mail server's words: an address that begins with a code is answered by it."""

    def __init__(self) -> None:
        self.taken: list[tuple[str, EmailMessage]] = []

    async def handle_RCPT(  # noqa: N802 (aiosmtpd's name)
        self, server: SMTP, session: Session, envelope: Envelope, address: str, options: list[str]
    ) -> str:
        if address[:3].isdecimal():
            return f"{address.partition('@')[0].replace('_', ' ')} no"
        envelope.rcpt_tos.append(address)
        return "250 OK"

    async def handle_DATA(self, server: SMTP, session: Session, envelope: Envelope) -> str:  # noqa: N802
        (address,) = envelope.rcpt_tos
        if address.startswith("data-"):
            return f"{address[5:8]} no"
        assert isinstance(envelope.content, bytes)
        self.taken.append(
            (address, email.message_from_bytes(envelope.content, _class=EmailMessage, policy=policy.default))
        )
        if address.startswith("hang-up"):
            assert server.transport
            server.transport.close()
        return "250 2.0.0 queued as 4F1A2"


@pytest.fixture
def server(settings: Settings) -> Iterator[Answers]:
    answers = Answers()
    controller = Controller(answers, hostname="127.0.0.1", port=free_port())
    controller.start()
    settings.EMAIL_BACKEND = "notices.channels.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = controller.hostname, controller.port
    settings.EMAIL_USE_TLS = settings.EMAIL_USE_SSL = False
    yield answers
    controller.stop()


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


# --- what goes out -----------------------------------------------------------------------------------


def test_a_mail_has_the_words_twice_and_a_link_to_the_page(settings: Settings) -> None:
    settings.SITE_URL, settings.SITE_HOST = "https://shop.example", "shop.example"
    message = compose(outgoing())
    assert message.to == ["ada@example.com"]
    assert message.from_email == settings.DEFAULT_FROM_EMAIL
    assert message.extra_headers == {
        "Message-ID": "<delivery-17@shop.example>",
        "Auto-Submitted": "auto-generated",
    }
    assert message.body == (
        "Thank you!\n\n"
        "Three phones <Pro & Max> are on order.\n\n"
        "See it on the site: https://shop.example/orders/VP-7K2M/\n\n"
        "-- \n"
        "VMOS Cloud sends you this notice under clause 3.3 of the Pre-payment Purchase Agreement. "
        "It is part of your contract and cannot be switched off.\n"
        "https://shop.example\n"
    )
    ((html, kind),) = message.alternatives
    assert kind == "text/html"
    assert isinstance(html, str)
    assert "<p>Three phones &lt;Pro &amp; Max&gt; are on order.</p>" in html
    assert '<a class="button" href="https://shop.example/orders/VP-7K2M/">See it on the site</a>' in html


@pytest.mark.clause("preamble")
@pytest.mark.parametrize(
    ("kind", "said"),
    [
        (GUARDIAN_ASKED, "only because a customer named you as legal guardian. This is no advertisement."),
        (GUARDIAN_CONFIRMED, "under the preamble of the Pre-payment Purchase Agreement. It is part of"),
        (PAYMENT_RECEIVED, "under clause 3.3 of the Pre-payment Purchase Agreement. It is part of"),
    ],
)
def test_the_footer_says_why_the_mail_was_sent_to_this_reader(kind: Kind, said: str) -> None:
    message = compose(outgoing(kind=kind))
    html, _ = message.alternatives[0]
    for part in (message.body, html):
        assert said in str(part)
        assert str(part).count("VMOS Cloud sends") + str(part).count("VMOS Cloud writes") == 1


def test_without_a_page_there_is_no_link() -> None:
    message = compose(outgoing(url=""))
    assert "See it on the site" not in message.body
    assert "button" not in str(message.alternatives[0][0]).split("</style>")[1]


# --- SMTP --------------------------------------------------------------------------------------------


def test_a_server_takes_a_mail_and_its_word_with_its_number_is_kept(
    server: Answers, settings: Settings
) -> None:
    accepted = Email().send(outgoing(), now=NOW)
    ((address, message),) = server.taken
    assert address == "ada@example.com"
    assert accepted.provider_reference == "250 2.0.0 queued as 4F1A2"
    assert message["Message-ID"] == f"<delivery-17@{settings.SITE_HOST}>"
    assert message["Subject"] == "Payment received for order VP-7K2M"
    assert [part.get_content_type() for part in message.iter_parts()] == ["text/plain", "text/html"]


@pytest.mark.parametrize(
    ("address", "outcome"),
    [
        ("550@example.com", Refused),
        ("451@example.com", Deferred),
        ("450_4.2.0@example.com", Deferred),
        ("450_4.3.2@example.com", Unavailable),
        ("421@example.com", Unavailable),
        ("data-554@example.com", Refused),
        ("data-452@example.com", Unavailable),
        ("hang-up@example.com", Uncertain),
        ("two\nlines@example.com", Refused),
        ("not an address", Refused),
    ],
)
def test_a_servers_answer_decides_what_becomes_of_a_mail(
    server: Answers, address: str, outcome: type[Exception]
) -> None:
    with pytest.raises(outcome) as failure:
        Email().send(outgoing(address), now=NOW)
    assert type(failure.value) is outcome


def test_a_server_that_is_down_has_surely_not_taken_the_mail(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "notices.channels.smtp.EmailBackend"
    settings.EMAIL_HOST, settings.EMAIL_PORT = "127.0.0.1", free_port()
    with pytest.raises(Unavailable):
        Email().send(outgoing(), now=NOW)


def test_a_server_that_goes_silent_while_it_greets_has_surely_not_taken_the_mail(
    settings: Settings,
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as silent:
        settings.EMAIL_BACKEND = "notices.channels.smtp.EmailBackend"
        settings.EMAIL_HOST, settings.EMAIL_PORT = silent.getsockname()
        settings.EMAIL_TIMEOUT = 0.2
        with pytest.raises(Unavailable):
            Email().send(outgoing(), now=NOW)


@pytest.mark.clause("3.3")
@pytest.mark.django_db(transaction=True)
def test_of_three_customers_one_is_sent_one_waits_and_one_is_refused(server: Answers) -> None:
    for address in ("550@example.com", "451@example.com", "ada@example.com"):
        told(customer(address), key=address)
    drain(now=NOW)
    found = Delivery.objects.filter(channel="email").order_by("address")
    assert [(delivery.address, delivery.state, delivery.problem) for delivery in found] == [
        ("451@example.com", DeliveryState.QUEUED, "451 no"),
        ("550@example.com", DeliveryState.DEAD, "550 no"),
        ("ada@example.com", DeliveryState.SENT, ""),
    ]
    assert [address for address, _ in server.taken] == ["ada@example.com"]


# --- a provider's API --------------------------------------------------------------------------------


OK = b'{"ErrorCode": 0, "Message": "OK", "MessageID": "pm-1", "To": "ada@200.example.com"}'
PROVIDER_SAYS = {
    "nonsense": (200, b"<html>"),
    # It has the mail, and its answer cannot be read.
    "odd-address": (200, b'{"ErrorCode": 0, "Message": "OK", "MessageID": "pm-1", "To": "x"}'),
    "inactive": (
        422,
        b'{"ErrorCode": 406, "Message": "Found inactive addresses: ada@inactive.example.com. Inactive recipients"}',
    ),
    "unknown": (422, b'{"ErrorCode": 406, "Message": "Something new."}'),
}


class Provider(BaseHTTPRequestHandler):
    """Postmark's API, as far as Anymail uses it. The first label of the recipient's domain says what to answer."""

    asked: ClassVar[list[dict[str, Any]]] = []

    def do_POST(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"])).decode()
        self.asked.append(json.loads(body))
        said = body.split("ada@", 1)[1].split(".", 1)[0]
        if said == "hang-up":
            return
        status, answer = PROVIDER_SAYS.get(said) or (int(said), OK)
        self.send_response(status)
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def provider(settings: Settings) -> Iterator[None]:
    with HTTPServer(("127.0.0.1", 0), Provider) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        settings.EMAIL_BACKEND = "anymail.backends.postmark.EmailBackend"
        settings.ANYMAIL = {
            "POSTMARK_SERVER_TOKEN": "token",
            "POSTMARK_API_URL": f"http://127.0.0.1:{server.server_port}/",
        }
        yield
        server.shutdown()
        thread.join()


def test_a_provider_takes_a_mail_and_gives_its_own_reference(provider: None) -> None:
    assert Email().send(outgoing("ada@200.example.com"), now=NOW).provider_reference == "pm-1"
    assert Provider.asked[-1]["Metadata"] == {"delivery": "delivery-17"}


def test_a_provider_that_carries_nothing_of_ours_is_given_nothing_to_carry(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.postal.EmailBackend"
    assert not hasattr(compose(outgoing()), "metadata")


@pytest.mark.parametrize(
    ("said", "outcome"),
    [
        ("401", Unavailable),
        ("429", Unavailable),
        ("503", Unavailable),
        ("inactive", Refused),
        ("413", Refused),
        ("500", Uncertain),
        ("502", Uncertain),
        ("nonsense", Uncertain),
        ("odd-address", Uncertain),
        ("unknown", Uncertain),
        ("hang-up", Uncertain),
    ],
)
def test_a_providers_answer_decides_what_becomes_of_a_mail(
    provider: None, said: str, outcome: type[Exception]
) -> None:
    with pytest.raises(outcome):
        Email().send(outgoing(f"ada@{said}.example.com"), now=NOW)


def test_a_provider_that_is_down_has_surely_not_taken_the_mail(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.postmark.EmailBackend"
    settings.ANYMAIL = {
        "POSTMARK_SERVER_TOKEN": "token",
        "POSTMARK_API_URL": f"http://127.0.0.1:{free_port()}/",
    }
    with pytest.raises(Unavailable):
        Email().send(outgoing(), now=NOW)


def test_a_backend_without_its_keys_has_surely_not_sent_the_mail(settings: Settings) -> None:
    settings.EMAIL_BACKEND = "anymail.backends.postmark.EmailBackend"
    settings.ANYMAIL = {}
    with pytest.raises(Unavailable):
        Email().send(outgoing(), now=NOW)
