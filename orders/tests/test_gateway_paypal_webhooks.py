"""Webhooks of PayPal: signatures made here by hand, read by the gateway; and their delivery by the emulator."""

import base64
import json
import socket
import zlib
from collections.abc import Callable, Iterator
from datetime import UTC, datetime, timedelta
from functools import cache

import pytest
from cryptography import x509
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import Encoding
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import paypal as adapter
from orders.gateways.emulators.paypal import Outcome
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.gateways.paypal import PayPalGateway
from orders.gateways.protocol import BadSignature, Charge, CredentialsRefused, Event, Return, Unavailable
from orders.tests.backstage_paypal import (
    PAYPAL_CLIENT_ID,
    PAYPAL_CLIENT_SECRET,
    PAYPAL_WEBHOOK_ID,
    configured_paypal,
)
from orders.tests.gateway_servers import Answer, Listener, Request, listening

BODY = '{"id": "WH-1-2", "resource":  {"custom_id": "T-1", "payer": "Zoë"}}'.encode()
TOKEN = Answer(
    body=b'{"access_token": "A21.token-of-the-tests", "token_type": "Bearer", "expires_in": 32400}'
)
CONFIRMED = Answer(body=b'{"verification_status": "SUCCESS"}')
CAPTURE_ID = "3C679366HH908993F"


@cache
def signer(bits: int) -> tuple[rsa.RSAPrivateKey, bytes]:
    """A key and its certificate."""
    key = rsa.generate_private_key(public_exponent=65537, key_size=bits)
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "certs.paypal.test")])
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(1)
        .not_valid_before(datetime(2026, 1, 1, tzinfo=UTC))
        .not_valid_after(datetime(2099, 1, 1, tzinfo=UTC))
        .sign(key, SHA256())
    )
    return key, certificate.public_bytes(Encoding.PEM)


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A PayPal that answers whatever the test wants."""
    with listening() as listener:
        settings.ALLOW_EMULATORS = True
        settings.PAYPAL_URL = listener.url
        settings.PAYPAL_CLIENT_ID = PAYPAL_CLIENT_ID
        settings.PAYPAL_CLIENT_SECRET = PAYPAL_CLIENT_SECRET
        settings.PAYPAL_WEBHOOK_ID = PAYPAL_WEBHOOK_ID
        # Ports come again, and what is remembered of an address with them.
        adapter._tokens.clear()
        adapter._certified_key.cache_clear()
        yield listener


def answers(provider: Listener, *those: Answer) -> None:
    """The certificate, a token, and then those."""
    for answer in (Answer(body=signer(2048)[1]), TOKEN, *those):
        provider.answers.put(answer)


def signed_headers(
    provider: Listener,
    body: bytes = BODY,
    *,
    webhook_id: str = PAYPAL_WEBHOOK_ID,
    seconds: float = 0,
    bits: int = 2048,
) -> dict[str, str]:
    """Headers made `seconds` from now."""
    at = (datetime.now(UTC) + timedelta(seconds=seconds)).strftime("%Y-%m-%dT%H:%M:%SZ")
    transmission_id = "69cd13f0-d67a-11e5-baa3-778b53f4ae55"
    signed = f"{transmission_id}|{at}|{webhook_id}|{zlib.crc32(body)}".encode()
    signature = signer(bits)[0].sign(signed, padding.PKCS1v15(), SHA256())
    return {
        "paypal-auth-algo": "SHA256withRSA",
        "paypal-cert-url": f"{provider.url}/v1/notifications/certs/CERT-360caa42",
        "paypal-transmission-id": transmission_id,
        "paypal-transmission-sig": base64.b64encode(signature).decode(),
        "paypal-transmission-time": at,
    }


def read(headers: dict[str, str], body: bytes = BODY) -> Event:
    return PayPalGateway().read_webhook(headers=headers, body=body)


def test_signed_webhook_that_paypal_confirms_is_an_event_with_its_id_as_the_key(provider: Listener) -> None:
    answers(provider, CONFIRMED)
    assert read(signed_headers(provider)) == Event(dedupe_key="WH-1-2", attempt_reference="T-1")


def test_paypal_is_asked_about_the_very_bytes_that_came(provider: Listener) -> None:
    answers(provider, CONFIRMED)
    headers = signed_headers(provider)
    read(headers)
    request = provider.rest()[-1]
    assert request.path == "/v1/notifications/verify-webhook-signature"
    assert request.body.endswith(b', "webhook_event": ' + BODY + b"}")
    assert json.loads(request.body) == {
        "auth_algo": "SHA256withRSA",
        "cert_url": headers["paypal-cert-url"],
        "transmission_id": headers["paypal-transmission-id"],
        "transmission_sig": headers["paypal-transmission-sig"],
        "transmission_time": headers["paypal-transmission-time"],
        "webhook_id": PAYPAL_WEBHOOK_ID,
        "webhook_event": json.loads(BODY),
    }


def test_certificate_is_asked_for_once_and_without_our_token(provider: Listener) -> None:
    answers(provider, CONFIRMED, CONFIRMED)
    read(signed_headers(provider))
    read(signed_headers(provider))
    certificates = [request for request in provider.rest() if "/certs/" in request.path]
    assert len(certificates) == 1
    assert "authorization" not in certificates[0].headers


@pytest.mark.payment_case(12)
def test_webhook_names_its_certificate_so_that_a_new_one_is_good_beside_the_old_one(
    provider: Listener,
) -> None:
    answers(provider, CONFIRMED)
    assert read(signed_headers(provider)).attempt_reference == "T-1"

    provider.answers.put(Answer(body=signer(3072)[1]))
    for _either in range(2):
        provider.answers.put(CONFIRMED)
    new = {"paypal-cert-url": f"{provider.url}/v1/notifications/certs/CERT-7e21bb03"}
    assert read(signed_headers(provider, bits=3072) | new).attempt_reference == "T-1"
    assert read(signed_headers(provider)).attempt_reference == "T-1"


@pytest.mark.parametrize("seconds", [-290, 290])
def test_webhook_of_the_last_or_next_five_minutes_is_read(provider: Listener, seconds: float) -> None:
    answers(provider, CONFIRMED)
    assert read(signed_headers(provider, seconds=seconds)).attempt_reference == "T-1"


def refused_unasked(provider: Listener, headers: dict[str, str], body: bytes = BODY) -> None:
    """Assert that it is refused and that nobody is asked about it."""
    with pytest.raises(BadSignature):
        read(headers, body)
    assert provider.rest() == []


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("seconds", [-310, 310])
def test_webhook_older_or_newer_than_five_minutes_is_refused(provider: Listener, seconds: float) -> None:
    refused_unasked(provider, signed_headers(provider, seconds=seconds))


@pytest.mark.payment_case(6)
@pytest.mark.parametrize(
    "name",
    [
        "paypal-auth-algo",
        "paypal-cert-url",
        "paypal-transmission-id",
        "paypal-transmission-sig",
        "paypal-transmission-time",
    ],
)
def test_webhook_without_one_of_its_headers_is_refused(provider: Listener, name: str) -> None:
    answers(provider, CONFIRMED)
    headers = signed_headers(provider)
    del headers[name]
    with pytest.raises(BadSignature):
        read(headers)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("paypal-auth-algo", "SHA1withRSA"),
        ("paypal-auth-algo", "sha256withrsa"),
        ("paypal-transmission-id", "a|b"),
        ("paypal-transmission-id", "a" * 101),
        ("paypal-transmission-time", "now"),
        ("paypal-transmission-time", "2026-13-45T00:00:00Z"),
        ("paypal-transmission-time", "２０２６-11-23T08:00:00Z"),
        ("paypal-transmission-sig", "?"),
        ("paypal-transmission-sig", "é"),
    ],
)
def test_webhook_with_a_malformed_header_is_refused_unasked(
    provider: Listener, name: str, value: str
) -> None:
    refused_unasked(provider, {**signed_headers(provider), name: value})


@pytest.mark.payment_case(51)
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/v1/notifications/certs/CERT-360caa42",
        "{}.evil.example/v1/notifications/certs/CERT-360caa42",
        "{}@evil.example/v1/notifications/certs/CERT-360caa42",
        "{}/v1/notifications/certs/../../../_books",
        "{}/v1/notifications/certs/CERT-1?x=y",
        "{}/v1/notifications/certs/CERT-1\r\nHost: x",
        "{}/checkoutnow",
        "{}",
        "",
        "file:///etc/passwd",
    ],
)
def test_certificate_of_a_foreign_address_is_never_asked_for(
    provider: Listener, shop: Listener, url: str
) -> None:
    refused_unasked(provider, {**signed_headers(provider), "paypal-cert-url": url.format(provider.url)})


@pytest.mark.payment_case(11)
def test_live_shop_takes_no_certificate_of_the_sandbox(provider: Listener, settings: Settings) -> None:
    """Wrong mode."""
    settings.PAYPAL_URL = "https://api-m.paypal.com"
    headers = signed_headers(provider)
    for host in ("api.sandbox.paypal.com", "api-m.sandbox.paypal.com"):
        headers["paypal-cert-url"] = f"https://{host}/v1/notifications/certs/CERT-360caa42"
        with pytest.raises(BadSignature, match="certificate"):
            read(headers)


@pytest.mark.payment_case(6)
@pytest.mark.parametrize(
    "spoil",
    [
        lambda headers: headers.update({"paypal-transmission-id": "69cd13f0-d67a-11e5-baa3-778b53f4ae56"}),
        lambda headers: headers.update({"paypal-transmission-sig": base64.b64encode(b"\0" * 256).decode()}),
        lambda headers: headers.update({"paypal-transmission-sig": base64.b64encode(b"").decode() + "AAAA"}),
    ],
    ids=["id", "signature", "short signature"],
)
def test_webhook_whose_signature_is_not_good_is_not_even_asked_about(
    provider: Listener, spoil: Callable[[dict[str, str]], None]
) -> None:
    answers(provider, CONFIRMED)
    headers = signed_headers(provider)
    spoil(headers)
    with pytest.raises(BadSignature):
        read(headers)
    assert [request.path for request in provider.rest()] == ["/v1/notifications/certs/CERT-360caa42"]


@pytest.mark.payment_case(11)
def test_webhook_of_another_application_is_refused(provider: Listener) -> None:
    answers(provider, CONFIRMED)
    with pytest.raises(BadSignature):
        read(signed_headers(provider, webhook_id="0WEBHOOK0OF0OTHERS"))


@pytest.mark.payment_case(10)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"\xff\xfe",
        b"{",
        b"[]",
        b"{}",
        b"[" * 100_000,
        b'{"id": "WH-1", "resource": null}',
        b'{"id": 5, "resource": {}}',
        b'{"id": "WH-1\\u0000", "resource": {}}',
        b'{"id": "' + b"W" * 101 + b'", "resource": {}}',
        BODY + b" " * 2_000_000,
    ],
    ids=["empty", "no UTF-8", "broken", "list", "object", "deep", "null", "number", "NUL", "long id", "2 MB"],
)
def test_body_that_is_no_event_is_refused_however_well_signed(provider: Listener, body: bytes) -> None:
    answers(provider, CONFIRMED)
    with pytest.raises(BadSignature):
        read(signed_headers(provider, body), body)
    assert "/v1/notifications/verify-webhook-signature" not in [request.path for request in provider.rest()]


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b'{"verification_status": "FAILURE"}'),
        Answer(status=400, body=b'{"name": "VALIDATION_ERROR", "message": "Invalid request"}'),
    ],
)
def test_webhook_that_paypal_does_not_confirm_is_refused(provider: Listener, answer: Answer) -> None:
    answers(provider, answer)
    with pytest.raises(BadSignature):
        read(signed_headers(provider))


@pytest.mark.parametrize(
    "answer",
    [Answer(status=500), Answer(), Answer(body=b"<html>"), Answer(body=b'{"verification_status": 1}')],
)
def test_webhook_that_paypal_says_nothing_about_is_to_come_again(provider: Listener, answer: Answer) -> None:
    answers(provider, answer)
    with pytest.raises(Unavailable):
        read(signed_headers(provider))


def test_webhook_comes_again_while_our_credentials_are_refused(provider: Listener) -> None:
    for answer in (Answer(body=signer(2048)[1]), Answer(status=401), Answer(status=401)):
        provider.answers.put(answer)
    with pytest.raises(CredentialsRefused):
        read(signed_headers(provider))


def test_webhook_is_to_come_again_when_paypal_is_down(provider: Listener, settings: Settings) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    settings.PAYPAL_URL = f"http://127.0.0.1:{port}"
    headers = signed_headers(provider)
    headers["paypal-cert-url"] = f"{settings.PAYPAL_URL}/v1/notifications/certs/CERT-360caa42"
    with pytest.raises(Unavailable, match="ConnectionError"):
        read(headers)


@pytest.mark.parametrize(
    ("answer", "failure"),
    [
        (Answer(status=404), BadSignature),
        (Answer(status=503), Unavailable),
        (Answer(status=302, headers={"Location": "/elsewhere"}), Unavailable),
        (Answer(body=b"-----BEGIN CERTIFICATE-----\nAAAA\n-----END CERTIFICATE-----"), Unavailable),
        (Answer(body=b""), Unavailable),
    ],
    ids=["404", "503", "302", "nonsense", "empty"],
)
def test_certificate_that_is_none_proves_nothing_and_is_asked_for_anew(
    provider: Listener, answer: Answer, failure: type[Exception]
) -> None:
    provider.answers.put(answer)
    headers = signed_headers(provider)
    with pytest.raises(failure):
        read(headers)
    assert len(provider.rest()) == 1
    answers(provider, CONFIRMED)
    assert read(headers).dedupe_key == "WH-1-2"


def test_certificate_with_a_short_key_proves_nothing(provider: Listener) -> None:
    provider.answers.put(Answer(body=signer(1024)[1]))
    with pytest.raises(Unavailable, match="too short"):
        read(signed_headers(provider, bits=1024))


def test_without_settings_nothing_is_good(provider: Listener, settings: Settings) -> None:
    settings.PAYPAL_WEBHOOK_ID = ""
    refused_unasked(provider, signed_headers(provider, webhook_id=""))


# --- which payment it is about -----------------------------------------------------------------------

REFUND = {
    "id": "1JU08902781691411",
    "links": [
        {"rel": "self", "href": "https://x.example/v2/payments/refunds/1JU08902781691411"},
        {"rel": "up", "href": f"https://x.example/v2/payments/captures/{CAPTURE_ID}"},
    ],
}
DISPUTE = {"dispute_id": "PP-D-1", "disputed_transactions": [{"seller_transaction_id": CAPTURE_ID}]}


def event_about(provider: Listener, resource: object, *more: Answer) -> Event:
    body = json.dumps({"id": "WH-1", "resource": resource}).encode()
    answers(provider, CONFIRMED, *more)
    return read(signed_headers(provider, body), body)


@pytest.mark.payment_case(7)
@pytest.mark.parametrize(
    ("resource", "reference"),
    [
        ({"custom_id": "T-1"}, "T-1"),
        ({"purchase_units": [{"custom_id": "T-1"}]}, "T-1"),
        ({"custom_id": "somebody else's"}, ""),
        ({"custom_id": "T" * 33}, ""),
        ({}, ""),
        ({"disputed_transactions": []}, ""),
        ({"links": [{"rel": "up", "href": "https://x.example/v2/checkout/orders/1"}]}, ""),
        ({"links": [{"rel": "up", "href": "https://x.example/v2/payments/captures/../../x"}]}, ""),
    ],
)
def test_event_names_its_payment_or_none_of_ours(
    provider: Listener, resource: object, reference: str
) -> None:
    assert event_about(provider, resource) == Event(dedupe_key="WH-1", attempt_reference=reference)
    assert provider.rest()[-1].path == "/v1/notifications/verify-webhook-signature"


@pytest.mark.parametrize("resource", [REFUND, DISPUTE])
def test_event_that_names_only_a_capture_is_about_the_payment_of_that(
    provider: Listener, resource: object
) -> None:
    event = event_about(provider, resource, Answer(body=b'{"id": "3C679366HH908993F", "custom_id": "T-1"}'))
    assert event.attempt_reference == "T-1"
    assert provider.rest()[-1].path == f"/v2/payments/captures/{CAPTURE_ID}"


@pytest.mark.parametrize(
    "answer",
    [Answer(status=404, body=b'{"name": "RESOURCE_NOT_FOUND"}'), Answer(body=b'{"custom_id": "not ours!"}')],
)
def test_event_about_a_capture_that_is_not_ours_names_no_payment(provider: Listener, answer: Answer) -> None:
    assert event_about(provider, REFUND, answer).attempt_reference == ""


# --- delivery ----------------------------------------------------------------------------------------


@pytest.fixture
def paypal(shop: Listener, settings: Settings) -> Iterator[RunningPayPal]:
    with configured_paypal(settings) as running:
        yield running


def opened(reference: str = "T-1") -> str:
    """Where a new payment is approved."""
    charge = Charge(
        reference=reference,
        amount=Money(4990, "USD"),
        description="VIP, 30 days",
        return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        language="en",
    )
    return PayPalGateway().open(charge).pay_url


def collected(pay_url: str) -> str:
    """The order, after the shop has collected its money."""
    provider_id = pay_url.rpartition("token=")[2]
    PayPalGateway().fetch(reference="", provider_id=provider_id)
    return provider_id


def told(request: Request) -> tuple[str, str]:
    """What a webhook is about, for people, and which payment the gateway reads in it."""
    event = PayPalGateway().read_webhook(headers=request.headers, body=request.body)
    return json.loads(request.body)["event_type"], event.attempt_reference


def test_every_turn_of_a_payment_is_told_and_names_the_payment(paypal: RunningPayPal, shop: Listener) -> None:
    pay_url = opened()
    paypal.decide(pay_url, Outcome.HOLD)
    provider_id = collected(pay_url)
    paypal.decide(pay_url, Outcome.RELEASE)
    PayPalGateway().give_back(Return("R-1", provider_id, Money(1000, "USD")))
    for outcome in (Outcome.REFUND_HERE, Outcome.INQUIRE, Outcome.CHARGE_BACK, Outcome.WIN):
        paypal.decide(pay_url, outcome)
    paypal.wait_for_webhooks()
    assert [told(request) for request in shop.rest()] == [
        (event, "T-1")
        for event in (
            "CHECKOUT.ORDER.APPROVED",
            "PAYMENT.CAPTURE.PENDING",
            "PAYMENT.CAPTURE.COMPLETED",
            "PAYMENT.CAPTURE.REFUNDED",
            "PAYMENT.CAPTURE.REFUNDED",
            "CUSTOMER.DISPUTE.CREATED",
            "CUSTOMER.DISPUTE.UPDATED",
            "CUSTOMER.DISPUTE.RESOLVED",
        )
    ]


@pytest.mark.payment_case(41)
def test_refund_that_fails_is_told(paypal: RunningPayPal, shop: Listener) -> None:
    pay_url = opened()
    paypal.decide(pay_url)
    provider_id = collected(pay_url)
    paypal.decide(pay_url, Outcome.DELAY_REFUNDS)
    PayPalGateway().give_back(Return("R-1", provider_id, Money(1000, "USD")))
    paypal.decide(pay_url, Outcome.FAIL_REFUNDS)
    paypal.wait_for_webhooks()
    assert [told(request) for request in shop.rest()][-2:] == [
        ("PAYMENT.REFUND.PENDING", "T-1"),
        ("PAYMENT.REFUND.FAILED", "T-1"),
    ]


@pytest.mark.payment_case(1, 9)
def test_webhook_comes_again_with_the_same_key_until_it_is_accepted(
    paypal: RunningPayPal, shop: Listener
) -> None:
    for status in (503, 500):
        shop.answers.put(Answer(status=status))
    paypal.decide(opened())
    paypal.wait_for_webhooks()
    requests = shop.rest()
    assert [request.path for request in requests] == ["/webhooks/paypal/"] * 3
    gateway = PayPalGateway()
    assert len({gateway.read_webhook(headers=r.headers, body=r.body) for r in requests}) == 1


@pytest.mark.payment_case(2)
def test_two_events_about_one_payment_have_two_keys(paypal: RunningPayPal, shop: Listener) -> None:
    pay_url = opened()
    paypal.decide(pay_url)
    collected(pay_url)
    paypal.wait_for_webhooks()
    gateway = PayPalGateway()
    events = [gateway.read_webhook(headers=r.headers, body=r.body) for r in shop.rest()]
    assert len({event.dedupe_key for event in events}) == 2
    assert {event.attempt_reference for event in events} == {"T-1"}


@pytest.mark.payment_case(49)
def test_wrongly_signed_webhook_is_refused_and_signed_well_the_next_time(
    paypal: RunningPayPal, shop: Listener
) -> None:
    paypal.set_faults(wrong_key=1)
    shop.answers.put(Answer(status=400))
    paypal.decide(opened())
    paypal.wait_for_webhooks()
    first, second = shop.rest()
    with pytest.raises(BadSignature):
        told(first)
    assert told(second) == ("CHECKOUT.ORDER.APPROVED", "T-1")


@pytest.mark.payment_case(5)
def test_lost_webhook_costs_nothing_as_asking_collects_the_money(
    paypal: RunningPayPal, shop: Listener
) -> None:
    paypal.set_faults(drop=10)
    pay_url = opened()
    paypal.decide(pay_url, Outcome.APPROVE_AND_LEAVE)
    snapshot = PayPalGateway().fetch(reference="T-1", provider_id=pay_url.rpartition("token=")[2])
    assert snapshot
    assert snapshot.state == "captured"
    paypal.wait_for_webhooks()
    assert shop.rest() == []
