"""Notifications of Alipay: which ones the gateway believes, and how the emulator sends them."""

import base64
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from urllib.parse import parse_qsl, quote, urlencode

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pytest_django import Settings

from inventory.money import Money
from orders.gateways.alipay import AlipayGateway
from orders.gateways.emulators.alipay import Outcome
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.protocol import BadSignature, Charge, Event, Return
from orders.tests.backstage_alipay import (
    ALIPAY_APP_ID,
    ALIPAY_SELLER_ID,
    alipay_keys,
    alipay_settings,
    configured_alipay,
    shop_keys,
)
from orders.tests.gateway_servers import Answer, Listener, Request

NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)
FIELDS = {
    "app_id": ALIPAY_APP_ID,
    "seller_id": ALIPAY_SELLER_ID,
    # Case 24: half past midnight in Beijing, which is NOW.
    "notify_time": "2026-11-24 00:30:00",
    "notify_id": "2026112400222003000000000000000001",
    "notify_type": "trade_status_sync",
    "charset": "utf-8",
    "out_trade_no": "VM_7F3K9Q_1",
    "passback_params": "VM-7F3K9Q-1",
    "subject": "云手机 + VIP & 30%",
    "total_amount": "49.90",
    "trade_no": "2026112322001400000000000001",
    "trade_status": "TRADE_SUCCESS",
    "version": "1.0",
}
EVENT = Event(dedupe_key="2026112400222003000000000000000001", attempt_reference="VM-7F3K9Q-1")


@pytest.fixture
def gateway(settings: Settings) -> AlipayGateway:
    alipay_settings(settings, "https://openapi.alipay.com/gateway.do")
    return AlipayGateway()


@pytest.fixture
def alipay(settings: Settings, shop: Listener) -> Iterator[RunningAlipay]:
    with configured_alipay(settings) as running:
        yield running


def signature_of(fields: dict[str, str], *, key: str = "", digest: SHA1 | SHA256 | None = None) -> str:
    private = load_pem_private_key((key or alipay_keys()[0]).encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    said = "&".join(f"{name}={value}" for name, value in sorted(fields.items()))
    return base64.b64encode(private.sign(said.encode(), padding.PKCS1v15(), digest or SHA256())).decode()


def notice(**changes: str) -> bytes:
    """The form of a notification that Alipay has signed."""
    fields = {**FIELDS, **changes}
    return urlencode({**fields, "sign": signature_of(fields), "sign_type": "RSA2"}).encode()


@pytest.fixture(autouse=True)
def _now(request: pytest.FixtureRequest) -> Iterator[None]:
    if "alipay" in request.fixturenames:
        yield
        return
    with time_machine.travel(NOW, tick=False):
        yield


def refused(gateway: AlipayGateway, body: bytes) -> bool:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers={"content-type": "application/x-www-form-urlencoded"}, body=body)
    return True


# --- reading -----------------------------------------------------------------------------------------


def test_signed_notification_is_an_event_with_its_id_as_the_key(gateway: AlipayGateway) -> None:
    assert gateway.read_webhook(headers={}, body=notice()) == EVENT


def test_answer_is_success_to_the_letter(gateway: AlipayGateway) -> None:
    answer = gateway.webhook_answer
    assert (answer.status, answer.body) == (200, b"success")


def test_order_and_escapes_of_the_fields_do_not_matter(gateway: AlipayGateway) -> None:
    pairs = [*FIELDS.items(), ("sign_type", "RSA2"), ("sign", signature_of(FIELDS))]
    body = "&".join(f"{name}={quote(value, safe='')}" for name, value in reversed(pairs))
    assert gateway.read_webhook(headers={}, body=body.encode()) == EVENT


def test_notification_of_another_system_of_the_seller_may_lack_what_we_pass(gateway: AlipayGateway) -> None:
    fields = {name: value for name, value in FIELDS.items() if name != "passback_params"}
    body = urlencode({**fields, "sign": signature_of(fields), "sign_type": "RSA2"}).encode()
    assert gateway.read_webhook(headers={}, body=body) == EVENT


@pytest.mark.payment_case(6)
def test_notification_signed_with_another_key_is_refused(gateway: AlipayGateway) -> None:
    sign = signature_of(FIELDS, key=shop_keys()[0])
    assert refused(gateway, urlencode({**FIELDS, "sign": sign, "sign_type": "RSA2"}).encode())


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("name", [*FIELDS, "sign", "sign_type"])
def test_notification_without_one_of_its_fields_is_refused(gateway: AlipayGateway, name: str) -> None:
    """All are signed. Without the type of the signature nobody could say how it was made."""
    pairs = [pair for pair in parse_qsl(notice().decode()) if pair[0] != name]
    if name == "sign_type":
        assert gateway.read_webhook(headers={}, body=urlencode(pairs).encode()) == EVENT
    else:
        assert refused(gateway, urlencode(pairs).encode())


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("name", [*FIELDS, "sign"])
def test_notification_that_was_touched_is_refused(gateway: AlipayGateway, name: str) -> None:
    fields = dict(parse_qsl(notice().decode()))
    fields[name] += "1"
    assert refused(gateway, urlencode(fields).encode())


def test_field_that_was_added_is_refused(gateway: AlipayGateway) -> None:
    assert refused(gateway, notice() + b"&refund_fee=49.90")
    # The last word would be another's, or the first.
    assert refused(gateway, notice() + b"&out_trade_no=VM_OTHER_1")
    assert refused(gateway, b"out_trade_no=VM_OTHER_1&" + notice())


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("sign_type", ["RSA", "rsa2", "", "MD5"])
def test_other_type_of_signature_is_refused(gateway: AlipayGateway, sign_type: str) -> None:
    """The SDK raises for it. RSA is SHA-1."""
    sign = signature_of(FIELDS, digest=SHA1())
    assert refused(gateway, urlencode({**FIELDS, "sign": sign, "sign_type": sign_type}).encode())


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("sign", ["", "?", "A", "AAAA", "A" * 345, "é", " ", "=", "A" * 2000])
def test_signature_that_is_none_is_refused(gateway: AlipayGateway, sign: str) -> None:
    """The SDK lets binascii.Error out for bad base64."""
    assert refused(gateway, urlencode({**FIELDS, "sign": sign, "sign_type": "RSA2"}).encode())


def test_signature_in_another_notation_is_refused(gateway: AlipayGateway) -> None:
    sign = signature_of(FIELDS)
    for other in (sign.rstrip("="), sign[:76] + "\n" + sign[76:], f" {sign}", sign + "===="):
        assert refused(gateway, urlencode({**FIELDS, "sign": other, "sign_type": "RSA2"}).encode())


@pytest.mark.payment_case(11)
@pytest.mark.parametrize("name", ["app_id", "seller_id"])
def test_notification_for_another_application_or_seller_is_refused(gateway: AlipayGateway, name: str) -> None:
    assert refused(gateway, notice(**{name: "2088000000000002"}))


@pytest.mark.payment_case(11)
@pytest.mark.parametrize("amount", ["", "49.901", "-49.90", "0.00", "1e3", "49,90", "NaN"])
def test_amount_that_cannot_be_read_is_refused(gateway: AlipayGateway, amount: str) -> None:
    assert refused(gateway, notice(total_amount=amount))


@pytest.mark.payment_case(24)
@pytest.mark.parametrize("seconds", [-299, 299])
def test_notification_of_the_last_or_next_five_minutes_is_read(gateway: AlipayGateway, seconds: int) -> None:
    """Its time is Beijing's."""
    with time_machine.travel(NOW + timedelta(seconds=seconds), tick=False):
        assert gateway.read_webhook(headers={}, body=notice()) == EVENT


@pytest.mark.payment_case(6, 24)
@pytest.mark.parametrize("seconds", [-301, 301, 8 * 3600, -8 * 3600])
def test_notification_older_or_newer_than_five_minutes_is_refused(
    gateway: AlipayGateway, seconds: int
) -> None:
    with time_machine.travel(NOW + timedelta(seconds=seconds), tick=False):
        assert refused(gateway, notice())


@pytest.mark.parametrize("written", ["", "now", "2026-11-24T00:30:00Z", "1795451400", "2026-11-31 00:30:00"])
def test_time_in_another_notation_is_refused(gateway: AlipayGateway, written: str) -> None:
    assert refused(gateway, notice(notify_time=written))


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": ""},
        {"out_trade_no": "VM-7F3K9Q-1"},
        {"out_trade_no": "../x"},
        {"out_trade_no": "V" * 33, "passback_params": "V" * 33},
        {"out_trade_no": "VM_\u0000"},
        {"out_trade_no": "VM_7F3K9Q_2"},
        {"notify_id": ""},
        {"notify_id": "a" * 101},
        {"notify_id": "a.b"},
        {"notify_id": "é"},
    ],
    ids=repr,
)
def test_what_could_not_be_stored_or_contradicts_itself_is_refused(
    gateway: AlipayGateway, changes: dict[str, str]
) -> None:
    assert refused(gateway, notice(**changes))


@pytest.mark.payment_case(10)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"&",
        b"sign",
        b"null",
        b"{}",
        b"\xff\xfe",
        b"sign=%ff",
        b"=",
        b"[" * 100_000,
        b"a=b&" * 1000,
        b"a=" + b"b" * 2_000_000,
    ],
    ids=[
        "empty",
        "ampersand",
        "bare",
        "null",
        "object",
        "no ASCII",
        "no UTF-8",
        "sign",
        "long",
        "many",
        "2 MB",
    ],
)
def test_body_that_is_no_form_is_refused(gateway: AlipayGateway, body: bytes) -> None:
    assert refused(gateway, body)


@pytest.mark.parametrize("more", [b" ", b"\n", b"&", b"%00", b"%"])
def test_body_with_something_behind_it_is_refused(gateway: AlipayGateway, more: bytes) -> None:
    assert refused(gateway, notice() + more)


def test_without_a_key_nothing_is_good(gateway: AlipayGateway, settings: Settings) -> None:
    settings.ALIPAY_PUBLIC_KEY = ""
    assert refused(gateway, notice())


# --- delivery ----------------------------------------------------------------------------------------


def pay(alipay: RunningAlipay, reference: str = "T-1", outcome: Outcome = Outcome.PAY) -> str:
    """Open a payment and decide on it; where it was."""
    charge = Charge(
        reference=reference,
        amount=Money(4990, "CNY"),
        description="VIP, 30 days",
        return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        language="en",
    )
    pay_url = AlipayGateway().open(charge).pay_url
    alipay.decide(pay_url, outcome)
    return pay_url


def read(request: Request) -> Event:
    return AlipayGateway().read_webhook(headers=request.headers, body=request.body)


def fields_of(request: Request) -> dict[str, str]:
    return dict(parse_qsl(request.body.decode(), strict_parsing=True))


def accept(shop: Listener, times: int = 1) -> None:
    for _time in range(times):
        shop.answers.put(Answer(body=b"success"))


def test_notification_is_a_form_about_the_trade(alipay: RunningAlipay, shop: Listener) -> None:
    accept(shop)
    pay(alipay)
    request = shop.next()
    assert (request.method, request.path) == ("POST", "/webhooks/alipay/")
    assert request.headers["content-type"] == "application/x-www-form-urlencoded; charset=utf-8"
    (trade,) = alipay.books()["trades"]
    fields = fields_of(request)
    assert (fields["trade_no"], fields["trade_status"]) == (trade["trade_no"], "TRADE_SUCCESS")
    assert (fields["out_trade_no"], fields["passback_params"], fields["total_amount"]) == (
        "T_1",
        "T-1",
        "49.90",
    )
    assert read(request).attempt_reference == "T-1"


def test_notification_comes_again_until_the_answer_is_success_to_the_letter(
    alipay: RunningAlipay, shop: Listener
) -> None:
    for answer in (Answer(status=500), Answer(body=b"success\n")):
        shop.answers.put(answer)
    accept(shop)
    pay(alipay)
    alipay.wait_for_webhooks()
    requests = shop.rest()
    assert len(requests) == 3
    assert len({read(request).dedupe_key for request in requests}) == 1
    (delivery,) = alipay.books()["deliveries"]
    assert (delivery["state"], delivery["tries"]) == ("delivered", 3)


def test_every_sending_has_its_own_time(alipay: RunningAlipay, shop: Listener) -> None:
    shop.answers.put(Answer(status=503))
    accept(shop)
    with time_machine.travel(NOW, tick=False) as clock:
        pay(alipay)
        first = shop.next()
        while not alipay.books()["deliveries"][0]["tries"]:
            pass
        clock.shift(timedelta(hours=1))
        second = shop.next()
        assert read(second).attempt_reference == "T-1"
        with pytest.raises(BadSignature):
            read(first)


def test_refunds_and_the_end_of_time_are_told_too(alipay: RunningAlipay, shop: Listener) -> None:
    accept(shop, 5)
    pay(alipay)
    for reference, minor in (("R-1", 1000), ("R-2", 3990)):
        AlipayGateway().give_back(Return(reference, "T-1", Money(minor, "CNY")))
    pay(alipay, "T-2", Outcome.TIME_OUT)
    alipay.wait_for_webhooks()
    requests = shop.rest()
    assert [read(request).attempt_reference for request in requests] == ["T-1", "T-1", "T-1", "T-2"]
    assert len({read(request).dedupe_key for request in requests}) == 4
    assert [
        (told["trade_status"], told.get("refund_fee"), told.get("out_biz_no"))
        for told in map(fields_of, requests)
    ] == [
        ("TRADE_SUCCESS", None, None),
        ("TRADE_SUCCESS", "10.00", "R_1"),
        ("TRADE_CLOSED", "49.90", "R_2"),
        ("TRADE_CLOSED", None, None),
    ]


@pytest.mark.payment_case(1, 5)
@pytest.mark.parametrize(("outcome", "copies"), [(Outcome.PAY_UNTOLD, 0), (Outcome.PAY_TOLD_TWICE, 2)])
def test_payment_is_told_as_often_as_the_tester_chose(
    alipay: RunningAlipay, shop: Listener, outcome: Outcome, copies: int
) -> None:
    accept(shop, 2)
    pay(alipay, outcome=outcome)
    alipay.wait_for_webhooks()
    keys = [read(request).dedupe_key for request in shop.rest()]
    assert (len(keys), len(set(keys))) == (copies, min(copies, 1))


def test_notifications_can_be_dropped_doubled_and_swapped(alipay: RunningAlipay, shop: Listener) -> None:
    accept(shop, 10)
    for fault, told in (("drop", ["T-2"]), ("duplicate", ["T-3", "T-3", "T-4"]), ("reorder", ["T-6", "T-5"])):
        alipay.set_faults(**{fault: 1})
        first = {"drop": 1, "duplicate": 3, "reorder": 5}[fault]
        pay(alipay, f"T-{first}")
        pay(alipay, f"T-{first + 1}")
        alipay.wait_for_webhooks()
        assert [read(request).attempt_reference for request in shop.rest()] == told


def test_wrongly_signed_notification_is_refused_and_signed_well_the_next_time(
    alipay: RunningAlipay, shop: Listener
) -> None:
    alipay.set_faults(wrong_key=1)
    shop.answers.put(Answer(status=400))
    accept(shop)
    pay(alipay)
    alipay.wait_for_webhooks()
    first, second = shop.rest()
    with pytest.raises(BadSignature):
        read(first)
    assert read(second).attempt_reference == "T-1"
