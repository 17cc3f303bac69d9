"""Webhooks of the sandbox: signatures made here by hand, read by the gateway; and their delivery."""

import base64
import hmac
import json
import time
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.running import RunningSandbox, running_sandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.gateways.protocol import BadSignature, Charge, Event
from orders.gateways.sandbox import SandboxGateway
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Answer, Listener, Request

OLD_SECRET = "whsec_" + base64.b64encode(b"the secret that was before this").decode()
BODY = b'{"type": "payment.captured", "data": {"payment": "pay_1", "reference": "T-1"}}'


@pytest.fixture
def gateway(settings: Settings) -> SandboxGateway:
    settings.SANDBOX_WEBHOOK_SECRET = SANDBOX_SECRET
    return SandboxGateway()


def signature(secret: str, signed: bytes) -> str:
    key = base64.b64decode(secret.removeprefix("whsec_"))
    return "v1," + base64.b64encode(hmac.digest(key, signed, "sha256")).decode()


def signed_headers(
    body: bytes, *, secret: str = SANDBOX_SECRET, seconds: float = 0, webhook_id: str = "msg_1"
) -> dict[str, str]:
    """Headers made `seconds` from now."""
    timestamp = str(int(time.time() + seconds))
    return {
        "webhook-id": webhook_id,
        "webhook-timestamp": timestamp,
        "webhook-signature": signature(secret, f"{webhook_id}.{timestamp}.".encode() + body),
    }


def test_signed_webhook_is_an_event_with_its_id_as_the_key(gateway: SandboxGateway) -> None:
    event = gateway.read_webhook(headers=signed_headers(BODY), body=BODY)
    assert event == Event(dedupe_key="msg_1", attempt_reference="T-1")


@pytest.mark.parametrize("seconds", [-290, 290])
def test_webhook_of_the_last_or_next_five_minutes_is_read(gateway: SandboxGateway, seconds: float) -> None:
    event = gateway.read_webhook(headers=signed_headers(BODY, seconds=seconds), body=BODY)
    assert event.attempt_reference == "T-1"


@pytest.mark.parametrize("seconds", [-310, 310])
def test_webhook_older_or_newer_than_five_minutes_is_refused(gateway: SandboxGateway, seconds: float) -> None:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=signed_headers(BODY, seconds=seconds), body=BODY)


def test_webhook_signed_with_another_secret_is_refused(gateway: SandboxGateway) -> None:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=signed_headers(BODY, secret=OLD_SECRET), body=BODY)


@pytest.mark.parametrize("name", ["webhook-id", "webhook-timestamp", "webhook-signature"])
def test_webhook_without_one_of_its_headers_is_refused(gateway: SandboxGateway, name: str) -> None:
    headers = signed_headers(BODY)
    del headers[name]
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=headers, body=BODY)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("webhook-id", "msg_2"),
        ("webhook-timestamp", "now"),
        ("webhook-timestamp", "NaN"),
        ("webhook-timestamp", "9" * 40),
        ("webhook-timestamp", "１７００００００００"),
        ("webhook-signature", "v1"),
        ("webhook-signature", "v1,"),
        ("webhook-signature", "v1,?"),
        ("webhook-signature", "v1,é"),
        ("webhook-signature", "v1,a,b"),
        ("webhook-signature", " "),
        ("webhook-signature", "v1a,AAAA"),
    ],
)
def test_webhook_with_a_changed_or_malformed_header_is_refused(
    gateway: SandboxGateway, name: str, value: str
) -> None:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers={**signed_headers(BODY), name: value}, body=BODY)


def test_time_is_part_of_what_is_signed(gateway: SandboxGateway) -> None:
    headers = signed_headers(BODY)
    headers["webhook-timestamp"] = str(int(headers["webhook-timestamp"]) - 7)
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=headers, body=BODY)


def test_time_in_another_notation_is_refused(gateway: SandboxGateway) -> None:
    headers = signed_headers(BODY)
    headers["webhook-timestamp"] += ".0"
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=headers, body=BODY)


def test_one_good_signature_among_several_is_enough(gateway: SandboxGateway) -> None:
    headers, others = signed_headers(BODY), signed_headers(BODY, secret=OLD_SECRET)
    headers["webhook-signature"] = f"v2,AAAA {others['webhook-signature']} {headers['webhook-signature']}"
    assert gateway.read_webhook(headers=headers, body=BODY).attempt_reference == "T-1"


def test_while_the_secret_is_being_changed_both_are_good(gateway: SandboxGateway, settings: Settings) -> None:
    settings.SANDBOX_WEBHOOK_SECRET = f"{SANDBOX_SECRET} {OLD_SECRET}"
    for secret in (SANDBOX_SECRET, OLD_SECRET):
        assert (
            gateway.read_webhook(headers=signed_headers(BODY, secret=secret), body=BODY).dedupe_key == "msg_1"
        )


def test_without_a_secret_nothing_is_good(gateway: SandboxGateway, settings: Settings) -> None:
    settings.SANDBOX_WEBHOOK_SECRET = ""
    headers = signed_headers(BODY)
    timestamp = headers["webhook-timestamp"]
    headers["webhook-signature"] = signature("whsec_", f"msg_1.{timestamp}.".encode() + BODY)
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=headers, body=BODY)


@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"data": null}',
        b'{"data": {"reference": 5}}',
        b'{"data": {"reference": "T-\\u0000"}}',
        b'{"data": {"reference": "' + b"T" * 33 + b'"}}',
        BODY + b" " * 2_000_000,
    ],
    ids=[
        "empty",
        "no UTF-8",
        "broken",
        "list",
        "object",
        "deep",
        "null",
        "number",
        "NUL",
        "33 letters",
        "2 MB",
    ],
)
def test_body_that_is_no_event_is_refused_however_well_signed(gateway: SandboxGateway, body: bytes) -> None:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=signed_headers(body), body=body)


@pytest.mark.parametrize("webhook_id", ["", "a" * 101, "msg.1", "msg_é", "msg_1\n"])
def test_id_that_could_not_be_stored_or_told_from_another_is_refused(
    gateway: SandboxGateway, webhook_id: str
) -> None:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=signed_headers(BODY, webhook_id=webhook_id), body=BODY)


# --- delivery ----------------------------------------------------------------------------------------


def opened(reference: str = "T-1") -> str:
    """Where a new payment is paid."""
    charge = Charge(
        reference=reference,
        amount=Money(4990, "USD"),
        description="VIP, 30 days",
        return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        language="en",
    )
    return SandboxGateway().open(charge).pay_url


def read(request: Request) -> Event:
    return SandboxGateway().read_webhook(headers=request.headers, body=request.body)


def test_webhook_says_what_happened_to_which_payment_and_no_amount(
    sandbox: RunningSandbox, shop: Listener
) -> None:
    sandbox.decide(opened())
    request = shop.next()
    (payment,) = sandbox.books()["payments"]
    content = json.loads(request.body)
    assert content["type"] == "payment.captured"
    assert content["data"] == {"payment": payment["id"], "reference": "T-1"}
    assert request.headers["content-type"] == "application/json"


def test_webhook_comes_again_with_the_same_id_until_it_is_accepted(
    sandbox: RunningSandbox, shop: Listener
) -> None:
    for status in (500, 302):
        shop.answers.put(Answer(status=status, headers={"Location": "/elsewhere"}))
    sandbox.decide(opened())
    sandbox.wait_for_webhooks()
    requests = shop.rest()
    assert [request.path for request in requests] == ["/webhooks/sandbox/"] * 3
    assert len({read(request).dedupe_key for request in requests}) == 1
    (delivery,) = sandbox.books()["deliveries"]
    assert (delivery["state"], delivery["tries"], delivery["last_answer"]) == ("delivered", 3, "200")


def test_webhook_that_is_never_accepted_is_abandoned(sandbox: RunningSandbox, shop: Listener) -> None:
    for _try in range(10):
        shop.answers.put(Answer(status=400))
    sandbox.decide(opened())
    sandbox.wait_for_webhooks()
    assert len(shop.rest()) == 4
    (delivery,) = sandbox.books()["deliveries"]
    assert (delivery["state"], delivery["last_answer"]) == ("abandoned", "400")


@pytest.mark.parametrize(("outcome", "copies"), [(Outcome.PAY_UNTOLD, 0), (Outcome.PAY_TOLD_TWICE, 2)])
def test_event_is_told_as_often_as_the_tester_chose(
    sandbox: RunningSandbox, shop: Listener, outcome: Outcome, copies: int
) -> None:
    sandbox.decide(opened(), outcome)
    sandbox.wait_for_webhooks()
    assert [read(request).dedupe_key for request in shop.rest()] == [
        delivery["webhook_id"] for delivery in sandbox.books()["deliveries"][:1] * copies
    ]


def test_two_captures_are_two_events(sandbox: RunningSandbox, shop: Listener) -> None:
    sandbox.decide(opened(), Outcome.PAY_TWICE)
    sandbox.wait_for_webhooks()
    assert len({read(request).dedupe_key for request in shop.rest()}) == 2


def test_dropped_webhook_never_comes(sandbox: RunningSandbox, shop: Listener) -> None:
    sandbox.set_faults(drop=1)
    sandbox.decide(opened("T-1"))
    sandbox.decide(opened("T-2"))
    sandbox.wait_for_webhooks()
    assert [read(request).attempt_reference for request in shop.rest()] == ["T-2"]


def test_duplicate_webhook_comes_twice_with_one_id(sandbox: RunningSandbox, shop: Listener) -> None:
    sandbox.set_faults(duplicate=1)
    sandbox.decide(opened("T-1"))
    sandbox.decide(opened("T-2"))
    sandbox.wait_for_webhooks()
    events = [read(request) for request in shop.rest()]
    assert [event.attempt_reference for event in events] == ["T-1", "T-1", "T-2"]
    assert events[0] == events[1]


def test_reordered_webhook_comes_after_the_next_one(sandbox: RunningSandbox, shop: Listener) -> None:
    sandbox.set_faults(reorder=1)
    sandbox.decide(opened("T-1"))
    sandbox.decide(opened("T-2"))
    sandbox.wait_for_webhooks()
    assert [read(request).attempt_reference for request in shop.rest()] == ["T-2", "T-1"]


def test_wrongly_signed_webhook_is_refused_by_the_gateway_and_signed_well_the_next_time(
    sandbox: RunningSandbox, shop: Listener
) -> None:
    sandbox.set_faults(wrong_key=1)
    shop.answers.put(Answer(status=400))
    sandbox.decide(opened())
    sandbox.wait_for_webhooks()
    first, second = shop.rest()
    with pytest.raises(BadSignature):
        read(first)
    assert read(second).attempt_reference == "T-1"


def test_webhook_that_was_not_accepted_before_a_restart_comes_after_it(
    settings: Settings, shop: Listener, tmp_path: Path
) -> None:
    settings.ALLOW_EMULATORS = True
    settings.SANDBOX_GATEWAY_KEY, settings.SANDBOX_WEBHOOK_SECRET = SANDBOX_KEY, SANDBOX_SECRET
    books = str(tmp_path / "books.sqlite3")
    shop.answers.put(Answer(status=503))
    with running_sandbox(key=SANDBOX_KEY, secret=SANDBOX_SECRET, books=books, backoff=(1,)) as sandbox:
        settings.SANDBOX_GATEWAY_URL = sandbox.url
        sandbox.decide(opened())
        refused = shop.next()
    with running_sandbox(key=SANDBOX_KEY, secret=SANDBOX_SECRET, books=books):
        assert read(shop.next()) == read(refused)


def test_both_secrets_sign_while_the_secret_is_being_changed(settings: Settings, shop: Listener) -> None:
    settings.ALLOW_EMULATORS = True
    settings.SANDBOX_GATEWAY_KEY = SANDBOX_KEY
    with running_sandbox(key=SANDBOX_KEY, secret=f"{OLD_SECRET} {SANDBOX_SECRET}") as sandbox:
        settings.SANDBOX_GATEWAY_URL = sandbox.url
        for known_to_the_shop in (SANDBOX_SECRET, OLD_SECRET):
            settings.SANDBOX_WEBHOOK_SECRET = known_to_the_shop
            reference = f"T-{known_to_the_shop[-3]}"
            sandbox.decide(opened(reference))
            assert read(shop.next()).attempt_reference == reference
