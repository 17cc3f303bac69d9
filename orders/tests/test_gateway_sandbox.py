"""The sandbox gateway against providers that answer nonsense, late, too much or nothing, and against bad settings."""

import contextlib
import gzip
import json
import logging
import socket
import threading
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import httpx
import pytest
import time_machine
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import sandbox as adapter
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.gateways.protocol import Charge, CredentialsRefused, Declined, MoneyMoved, Return, Unavailable
from orders.gateways.sandbox import SandboxGateway
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Answer, Listener, listening

PAYMENT_ID = "pay_0123456789abcdef01234567"
CHARGE = Charge(
    reference="T-1",
    amount=Money(4990, "USD"),
    description="VIP, 30 days",
    return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
    expires_at=datetime.now(UTC) + timedelta(days=1),
    language="en",
)


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A provider that answers whatever the test wants."""
    with listening() as listener:
        settings.ALLOW_EMULATORS = True
        settings.SANDBOX_GATEWAY_URL = listener.url
        settings.SANDBOX_GATEWAY_KEY = SANDBOX_KEY
        settings.SANDBOX_WEBHOOK_SECRET = SANDBOX_SECRET
        yield listener


def a_payment(provider: Listener, **changes: object) -> dict[str, object]:
    return {
        "id": PAYMENT_ID,
        "reference": "T-1",
        "status": "captured",
        "amount": "49.90",
        "currency": "USD",
        "pay_url": f"{provider.url}/pay/{PAYMENT_ID}",
        "captures": [a_movement()],
        "refunds": [],
        **changes,
    }


def a_movement(**changes: object) -> dict[str, object]:
    return {
        "id": "cap_0123456789abcdef01234567",
        "amount": "49.90",
        "currency": "USD",
        "at": "2026-11-23T08:00:00Z",
        **changes,
    }


def test_answer_is_read_to_the_minor_unit_and_in_utc(provider: Listener) -> None:
    capture = a_movement(amount="4990", currency="JPY", at="2026-11-23T16:00:00+08:00")
    provider.answers.put(Answer(body=json.dumps(a_payment(provider, captures=[capture])).encode()))
    snapshot = SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)
    assert snapshot
    assert snapshot.captures == (
        MoneyMoved("cap_0123456789abcdef01234567", Money(4990, "JPY"), datetime(2026, 11, 23, 8, tzinfo=UTC)),
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"id": "pay_ffffffffffffffffffffffff"},
        {"id": "../x"},
        {"id": 5},
        {"reference": "T-2"},
        {"status": "paid"},
        {"status": None},
        {"amount": "49.901"},
        {"amount": 49.9},
        {"amount": "-49.90"},
        {"amount": "1e3"},
        {"currency": "XXXX"},
        {"captures": None},
        {"captures": [None]},
        {"captures": [a_movement(amount="49.901")]},
        {"captures": [a_movement(at="yesterday")]},
        {"captures": [a_movement(at="2026-11-23T08:00:00")]},
        {"captures": [a_movement(id="1")]},
        {"refunds": {}},
    ],
    ids=repr,
)
def test_answer_that_makes_no_sense_is_unavailable(provider: Listener, changes: dict[str, object]) -> None:
    provider.answers.put(Answer(body=json.dumps(a_payment(provider, **changes)).encode()))
    with pytest.raises(Unavailable):
        SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b""),
        Answer(body=b"<html>"),
        Answer(body=b"[]"),
        Answer(body=b"\xff"),
        Answer(body=b"[" * 100_000),
        Answer(body=b"9" * 10_000),
        Answer(status=404, body=b"<html>"),
        Answer(status=429),
        Answer(status=503),
        Answer(status=301, headers={"Location": "/elsewhere"}),
    ],
    ids=[
        "empty",
        "HTML",
        "list",
        "no UTF-8",
        "deep",
        "number",
        "404 HTML",
        "429",
        "503",
        "301",
    ],
)
def test_answer_that_is_none_is_unavailable_and_asked_for_once(provider: Listener, answer: Answer) -> None:
    provider.answers.put(answer)
    with pytest.raises(Unavailable):
        SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)
    assert [request.path for request in provider.rest()] == [f"/v1/payments/{PAYMENT_ID}"]


def test_answer_of_more_than_a_megabyte_is_unavailable(provider: Listener) -> None:
    provider.answers.put(Answer(body=json.dumps(a_payment(provider)).encode() + b" " * 1_000_000))
    with pytest.raises(Unavailable, match="too much"):
        SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)


def test_compressed_answer_is_not_unpacked(provider: Listener) -> None:
    body = gzip.compress(json.dumps(a_payment(provider)).encode())
    provider.answers.put(Answer(body=body, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(Unavailable):
        SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)
    assert provider.next().headers["accept-encoding"] == "identity"


@pytest.mark.parametrize(
    "pay_url", ["https://evil.example/pay", "javascript:alert(1)", "/pay/1", "{}.evil.example/"]
)
def test_buyer_is_never_sent_to_another_site(provider: Listener, pay_url: str) -> None:
    content = a_payment(provider, status="pending", captures=[], pay_url=pay_url.format(provider.url))
    provider.answers.put(Answer(status=201, body=json.dumps(content).encode()))
    with pytest.raises(Unavailable):
        SandboxGateway().open(CHARGE)


def test_opened_payment_with_another_reference_is_unavailable(provider: Listener) -> None:
    provider.answers.put(Answer(status=201, body=json.dumps(a_payment(provider, reference="T-2")).encode()))
    with pytest.raises(Unavailable):
        SandboxGateway().open(CHARGE)


def test_two_payments_with_one_reference_are_unavailable(provider: Listener) -> None:
    body = json.dumps({"payments": [a_payment(provider), a_payment(provider)]}).encode()
    provider.answers.put(Answer(body=body))
    with pytest.raises(Unavailable):
        SandboxGateway().fetch(reference="T-1", provider_id="")


def test_refund_confirmed_for_another_payment_is_unavailable(provider: Listener) -> None:
    body = json.dumps({"id": "ref_1", "payment": "pay_x", "reference": "R-1"}).encode()
    provider.answers.put(Answer(status=201, body=body))
    with pytest.raises(Unavailable):
        SandboxGateway().give_back(Return("R-1", PAYMENT_ID, Money(1, "USD")))


@pytest.mark.parametrize("status", [401, 403])
def test_refused_credentials_are_known_as_such_whatever_the_body(provider: Listener, status: int) -> None:
    provider.answers.put(Answer(status=status, body=b"<html>"))
    with pytest.raises(CredentialsRefused, match=r"^The sandbox gateway refuses our credentials\.$"):
        SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)


def test_refusal_says_the_providers_reason_without_what_could_not_be_stored(provider: Listener) -> None:
    body = json.dumps({"error": {"code": "invalid", "message": "No\x00 such\ud800 day."}}).encode()
    provider.answers.put(Answer(status=422, body=body))
    with pytest.raises(Declined, match=r"^The sandbox gateway refused: No such day\.$"):
        SandboxGateway().open(CHARGE)


def test_late_answer_is_unavailable(sandbox: RunningSandbox, monkeypatch: pytest.MonkeyPatch) -> None:
    sandbox.set_faults(delay_seconds=30)
    monkeypatch.setattr(adapter, "TIMEOUT", httpx.Timeout(0.2))
    with pytest.raises(Unavailable, match="ReadTimeout"):
        SandboxGateway().open(CHARGE)


def test_answer_that_drips_is_given_up(provider: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(adapter, "ANSWER_SECONDS", 0)
    with pytest.raises(Unavailable, match="too slowly"):
        SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)


def test_provider_that_is_down_is_unavailable(settings: Settings, provider: Listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    settings.SANDBOX_GATEWAY_URL = f"http://127.0.0.1:{port}"
    with pytest.raises(Unavailable, match="ConnectError"):
        SandboxGateway().open(CHARGE)


def test_connection_that_fails_is_tried_once_more(settings: Settings, provider: Listener) -> None:
    connections = []

    def hang_up(server: socket.socket) -> None:
        with contextlib.suppress(OSError):  # the end of the test
            while True:
                connection, address = server.accept()
                connections.append(address)
                connection.close()

    with socket.create_server(("127.0.0.1", 0)) as server:
        thread = threading.Thread(target=hang_up, args=(server,))
        thread.start()
        # TLS is part of connecting, and can be made to fail.
        settings.SANDBOX_GATEWAY_URL = f"https://127.0.0.1:{server.getsockname()[1]}"
        with pytest.raises(Unavailable, match="ConnectError"):
            SandboxGateway().open(CHARGE)
        server.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert len(connections) == 2


def test_webhook_address_is_the_shops_own_and_the_key_stays_in_its_header(
    provider: Listener, settings: Settings
) -> None:
    settings.SITE_URL = "https://shop.example"
    provider.answers.put(Answer(status=500))
    with pytest.raises(Unavailable) as problem:
        SandboxGateway().open(CHARGE)
    request = provider.next()
    assert request.headers["authorization"] == f"Bearer {SANDBOX_KEY}"
    assert request.headers["idempotency-key"] == "T-1"
    assert json.loads(request.body) == {
        "reference": "T-1",
        "amount": "49.90",
        "currency": "USD",
        "description": "VIP, 30 days",
        "return_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
        "webhook_url": "https://shop.example/webhooks/sandbox/",
        "expires_at": CHARGE.expires_at.isoformat(),
        "language": "en",
    }
    assert SANDBOX_KEY not in str(problem.value)


@pytest.mark.parametrize("reference", [None, 5])
def test_refund_that_names_no_request_of_ours_is_one_made_at_the_desk(
    provider: Listener, reference: object
) -> None:
    refund = a_movement(id="ref_0123456789abcdef01234567", reference=reference)
    provider.answers.put(Answer(body=json.dumps(a_payment(provider, refunds=[refund])).encode()))
    snapshot = SandboxGateway().fetch(reference="T-1", provider_id=PAYMENT_ID)
    assert snapshot
    assert [(refund.transaction_id, refund.reference) for refund in snapshot.refunds] == [
        ("ref_0123456789abcdef01234567", "")
    ]


def test_reference_is_escaped_in_the_address(provider: Listener) -> None:
    provider.answers.put(Answer(body=b'{"payments": []}'))
    assert SandboxGateway().fetch(reference="T-1&moved_on=x#y", provider_id="") is None
    assert provider.next().path == "/v1/payments?reference=T-1%26moved_on%3Dx%23y"


def test_key_is_never_logged(
    sandbox: RunningSandbox, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        opened = SandboxGateway().open(CHARGE)
        sandbox.decide(opened.pay_url)
        settings.SANDBOX_GATEWAY_KEY = "another-key-of-ours"
        with pytest.raises(CredentialsRefused) as problem:
            SandboxGateway().open(CHARGE)
    assert "/v1/payments" in caplog.text
    for secret in (SANDBOX_KEY, "another-key-of-ours", SANDBOX_SECRET.removeprefix("whsec_")):
        assert secret not in caplog.text + str(problem.value)


@pytest.mark.parametrize("name", ["SANDBOX_GATEWAY_URL", "SANDBOX_GATEWAY_KEY", "SANDBOX_WEBHOOK_SECRET"])
def test_missing_setting_is_named_and_nothing_is_asked(
    provider: Listener, settings: Settings, name: str
) -> None:
    setattr(settings, name, "")
    assert SandboxGateway().missing() == [name]
    with pytest.raises(Unavailable, match=name):
        SandboxGateway().open(CHARGE)
    assert provider.rest() == []


@pytest.mark.parametrize("secret", ["whsec_", "whsec_?", "whsec_é"])
def test_secret_that_is_none_counts_as_missing(provider: Listener, settings: Settings, secret: str) -> None:
    settings.SANDBOX_WEBHOOK_SECRET = secret
    assert SandboxGateway().missing() == ["SANDBOX_WEBHOOK_SECRET"]


def test_plain_http_is_refused_unless_emulators_are_allowed(provider: Listener, settings: Settings) -> None:
    settings.ALLOW_EMULATORS = False
    assert SandboxGateway().missing() == ["ALLOW_EMULATORS"]
    with pytest.raises(Unavailable, match="ALLOW_EMULATORS"):
        SandboxGateway().open(CHARGE)
    assert provider.rest() == []
    settings.SANDBOX_GATEWAY_URL = "https://sandbox.example"
    assert SandboxGateway().missing() == []


@pytest.mark.parametrize(
    ("outcome", "captured"),
    [
        (Outcome.APPROVE, [Money(4990, "USD")]),
        (Outcome.PAY_LESS, [Money(4989, "USD")]),
        (Outcome.PAY_MORE, [Money(5090, "USD")]),
        (Outcome.PAY_TWICE, [Money(4990, "USD"), Money(4990, "USD")]),
        (Outcome.PAY_OTHER_CURRENCY, [Money(4990, "JPY")]),
        (Outcome.PAY_UNTOLD, [Money(4990, "USD")]),
        (Outcome.PAY_TOLD_TWICE, [Money(4990, "USD")]),
    ],
)
def test_snapshot_states_exactly_what_was_captured(
    sandbox: RunningSandbox, shop: Listener, outcome: Outcome, captured: list[Money]
) -> None:
    opened = SandboxGateway().open(CHARGE)
    sandbox.decide(opened.pay_url, outcome)
    snapshot = SandboxGateway().fetch(reference="T-1", provider_id=opened.provider_id)
    assert snapshot
    assert [capture.amount for capture in snapshot.captures] == captured


def test_yen_are_sent_and_read_without_decimals(sandbox: RunningSandbox) -> None:
    opened = SandboxGateway().open(replace(CHARGE, amount=Money(499, "JPY")))
    sandbox.decide(opened.pay_url, Outcome.PAY_MORE)
    snapshot = SandboxGateway().fetch(reference="T-1", provider_id=opened.provider_id)
    assert snapshot
    assert [capture.amount for capture in snapshot.captures] == [Money(500, "JPY")]


def test_overdue_payment_is_expired_and_cannot_be_paid(sandbox: RunningSandbox) -> None:
    opened = SandboxGateway().open(CHARGE)
    # The provider is in this process and goes by the same clock.
    with time_machine.travel(CHARGE.expires_at):
        sandbox.decide(opened.pay_url)
        snapshot = SandboxGateway().fetch(reference="T-1", provider_id=opened.provider_id)
    assert snapshot
    assert (snapshot.state, snapshot.captures) == ("expired", ())


def test_payment_paid_all_the_same_after_its_time_is_captured(sandbox: RunningSandbox) -> None:
    opened = SandboxGateway().open(CHARGE)
    with time_machine.travel(CHARGE.expires_at):
        sandbox.decide(opened.pay_url, Outcome.PAY_LATE)
        snapshot = SandboxGateway().fetch(reference="T-1", provider_id=opened.provider_id)
    assert snapshot
    assert [capture.amount for capture in snapshot.captures] == [Money(4990, "USD")]
    assert snapshot.captures[0].at >= CHARGE.expires_at


def test_payment_cannot_be_paid_late_while_there_is_time(sandbox: RunningSandbox) -> None:
    opened = SandboxGateway().open(CHARGE)
    sandbox.decide(opened.pay_url, Outcome.PAY_LATE)
    snapshot = SandboxGateway().fetch(reference="T-1", provider_id=opened.provider_id)
    assert snapshot
    assert (snapshot.state, snapshot.captures) == ("pending", ())
