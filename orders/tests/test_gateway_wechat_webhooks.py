"""What WeChat Pay's gateway accepts as a notification, and how the emulator sends them."""

import base64
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA1, SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.running_wechat import RunningWechat
from orders.gateways.emulators.wechat import Outcome
from orders.gateways.protocol import BadSignature, Charge, Event, Return
from orders.gateways.wechat import WechatGateway
from orders.tests.backstage_wechat import (
    WECHAT_API_V3_KEY,
    WECHAT_APP_ID,
    WECHAT_MERCHANT_ID,
    WECHAT_PUBLIC_KEY_ID,
    configured_wechat,
    merchant_keys,
    wechat_keys,
    wechat_settings,
)
from orders.tests.gateway_servers import Answer, Listener, Request

NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)
PAID = {
    "amount": {"currency": "CNY", "payer_currency": "CNY", "payer_total": 4990, "total": 4990},
    "appid": WECHAT_APP_ID,
    "mchid": WECHAT_MERCHANT_ID,
    "out_trade_no": "VM-7F3K9Q-1",
    "success_time": "2026-11-24T00:30:00+08:00",
    "trade_state": "SUCCESS",
    "transaction_id": "4200002202611230000000000001",
}
REFUNDED = {
    "amount": {"payer_refund": 1000, "payer_total": 4990, "refund": 1000, "total": 4990},
    "mchid": WECHAT_MERCHANT_ID,
    "out_refund_no": "VM-7F3K9Q-R1",
    "out_trade_no": "VM-7F3K9Q-1",
    "refund_status": "SUCCESS",
}
EVENT = Event(dedupe_key="ea5e2c7d-7d1b-5c5f-8d55-6d9a1b6f3a01", attempt_reference="VM-7F3K9Q-1")


@pytest.fixture
def gateway(settings: Settings) -> WechatGateway:
    wechat_settings(settings, "https://api.mch.weixin.qq.com")
    return WechatGateway()


@pytest.fixture
def wechat(settings: Settings, shop: Listener) -> Iterator[RunningWechat]:
    with configured_wechat(settings) as running:
        yield running


@pytest.fixture(autouse=True)
def _now(request: pytest.FixtureRequest) -> Iterator[None]:
    if "wechat" in request.fixturenames:
        yield
        return
    with time_machine.travel(NOW, tick=False):
        yield


def encrypted(resource: object, *, key: str = WECHAT_API_V3_KEY, **changes: object) -> dict[str, object]:
    said = resource if isinstance(resource, bytes) else json.dumps(resource).encode()
    ciphertext = AESGCM(key.encode()).encrypt(b"fdasflkja484", said, b"transaction")
    return {
        "original_type": "transaction",
        "algorithm": "AEAD_AES_256_GCM",
        "ciphertext": base64.b64encode(ciphertext).decode(),
        "associated_data": "transaction",
        "nonce": "fdasflkja484",
        **changes,
    }


def notice(said: object = PAID, /, **changes: object) -> bytes:
    content = {
        "id": EVENT.dedupe_key,
        "create_time": "2026-11-24T00:30:00+08:00",
        "event_type": "TRANSACTION.SUCCESS",
        "resource_type": "encrypt-resource",
        "summary": "支付成功",
        "resource": encrypted(said),
        **changes,
    }
    return json.dumps(content, ensure_ascii=False).encode()


def proof(
    body: bytes, *, key: str = "", digest: SHA1 | SHA256 | None = None, at: datetime = NOW, **changes: str
) -> dict[str, str]:
    """The headers by which WeChat Pay proves a body. `changes` are headers without their beginning."""
    private = load_pem_private_key((key or wechat_keys()[0]).encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    seconds, nonce = str(int(at.timestamp())), "593BEC0C930BF1AFEB40B4A08C8FB242"
    said = f"{seconds}\n{nonce}\n".encode() + body + b"\n"
    signature = private.sign(said, padding.PKCS1v15(), digest or SHA256())
    values = {
        "timestamp": seconds,
        "nonce": nonce,
        "serial": WECHAT_PUBLIC_KEY_ID,
        "signature": base64.b64encode(signature).decode(),
        "signature-type": "WECHATPAY2-SHA256-RSA2048",
        **changes,
    }
    return {f"wechatpay-{name}": value for name, value in values.items()}


def refused(gateway: WechatGateway, body: bytes, headers: Mapping[str, str] | None = None) -> bool:
    with pytest.raises(BadSignature):
        gateway.read_webhook(headers=proof(body) if headers is None else headers, body=body)
    return True


# --- reading -----------------------------------------------------------------------------------------


def test_signed_notification_is_an_event_with_its_id_as_the_key(gateway: WechatGateway) -> None:
    body = notice()
    assert gateway.read_webhook(headers=proof(body), body=body) == EVENT


@pytest.mark.payment_case(46)
@pytest.mark.parametrize("event", ["REFUND.SUCCESS", "REFUND.ABNORMAL", "REFUND.CLOSED"])
def test_notification_of_a_refund_names_the_payment_it_is_out_of(gateway: WechatGateway, event: str) -> None:
    """It says neither application nor currency."""
    body = notice(REFUNDED, event_type=event)
    assert gateway.read_webhook(headers=proof(body), body=body) == EVENT
    assert refused(gateway, notice(REFUNDED))


def test_answer_is_200_and_empty(gateway: WechatGateway) -> None:
    answer = gateway.webhook_answer
    assert (answer.status, answer.body) == (200, b"")


def test_headers_that_prove_it_are_kept(gateway: WechatGateway) -> None:
    assert all(name.startswith(gateway.kept_headers) for name in proof(b""))


@pytest.mark.payment_case(6)
def test_notification_signed_with_another_key_is_refused(gateway: WechatGateway) -> None:
    body = notice()
    assert refused(gateway, body, proof(body, key=merchant_keys()[0]))
    assert refused(gateway, body, proof(body, digest=SHA1()))


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("name", ["timestamp", "nonce", "serial", "signature", "signature-type"])
def test_notification_without_one_of_the_headers_or_with_another_is_refused(
    gateway: WechatGateway, name: str
) -> None:
    body = notice()
    headers = proof(body)
    assert refused(gateway, body, {key: value for key, value in headers.items() if not key.endswith(name)})
    for value in ("", "1", headers[f"wechatpay-{name}"] + "1"):
        assert refused(gateway, body, {**headers, f"wechatpay-{name}": value})


@pytest.mark.payment_case(6)
def test_notification_that_was_touched_is_refused(gateway: WechatGateway) -> None:
    body = notice()
    headers = proof(body)
    for other in (body + b" ", body.replace(b"SUCCESS", b"CLOSED "), body.replace(b"\xe6", b"\xe5")):
        assert other != body
        assert refused(gateway, other, headers)


def test_probe_that_wechat_signs_wrongly_on_purpose_is_refused(gateway: WechatGateway) -> None:
    """To see whether a shop looks at the signature at all."""
    body = notice()
    assert refused(gateway, body, proof(body, signature="WECHATPAY/SIGNTEST/" + "A" * 325))


@pytest.mark.parametrize("signature", ["?", "A", "AAAA", "A" * 345, "é", " ", "=", "A" * 2000])
def test_signature_that_is_none_is_refused(gateway: WechatGateway, signature: str) -> None:
    body = notice()
    assert refused(gateway, body, proof(body, signature=signature))


def test_signature_in_another_notation_is_refused(gateway: WechatGateway) -> None:
    body = notice()
    signature = proof(body)["wechatpay-signature"]
    for other in (signature.rstrip("="), signature[:76] + "\n" + signature[76:], f" {signature}"):
        assert refused(gateway, body, proof(body, signature=other))


@pytest.mark.payment_case(51)
@pytest.mark.parametrize("serial", ["5157F09EFDC096DE15EBE81A47057A7232F1B8E1", "PUB_KEY_ID_0", "zz"])
def test_foreign_serial_is_refused_and_nobody_is_asked(
    gateway: WechatGateway, settings: Settings, shop: Listener, serial: str
) -> None:
    """The SDK would fetch all certificates for it, or fail to read it as a number."""
    settings.WECHAT_URL = shop.url
    body = notice()
    assert refused(gateway, body, proof(body, serial=serial))
    assert shop.rest() == []


@pytest.mark.payment_case(24)
@pytest.mark.parametrize("seconds", [-299, 299])
def test_notification_of_the_last_or_next_five_minutes_is_read(gateway: WechatGateway, seconds: int) -> None:
    body = notice()
    headers = proof(body, at=NOW + timedelta(seconds=seconds))
    assert gateway.read_webhook(headers=headers, body=body) == EVENT


@pytest.mark.payment_case(6)
@pytest.mark.parametrize("seconds", [-301, 301, 8 * 3600, -8 * 3600])
def test_notification_older_or_newer_than_five_minutes_is_refused(
    gateway: WechatGateway, seconds: int
) -> None:
    body = notice()
    assert refused(gateway, body, proof(body, at=NOW + timedelta(seconds=seconds)))


@pytest.mark.payment_case(11)
@pytest.mark.parametrize(
    "changes",
    [
        {"mchid": "1900000002"},
        {"mchid": None},
        {"appid": "wx0000000000000002"},
        {"appid": None},
        {"amount": {"total": 4990, "currency": "JPY"}},
        {"amount": {"total": 4990}},
    ],
    ids=repr,
)
def test_notification_for_another_merchant_application_or_currency_is_refused(
    gateway: WechatGateway, changes: dict[str, object]
) -> None:
    assert refused(gateway, notice({**PAID, **changes}))


@pytest.mark.payment_case(11)
def test_refund_of_another_merchant_or_application_is_refused(gateway: WechatGateway) -> None:
    for changes in ({"mchid": "1900000002"}, {"appid": "wx0000000000000002"}):
        assert refused(gateway, notice({**REFUNDED, **changes}, event_type="REFUND.SUCCESS"))


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": ""},
        {"out_trade_no": "VM-1A"},
        {"out_trade_no": "V" * 33},
        {"out_trade_no": "../../xx"},
        {"out_trade_no": "VM-7F3K\u0000"},
        {"out_trade_no": 5},
        {"amount": {"total": 0, "currency": "CNY"}},
        {"amount": {"total": -1, "currency": "CNY"}},
        {"amount": {"total": 49.9, "currency": "CNY"}},
        {"amount": {"total": "4990", "currency": "CNY"}},
        {"amount": 4990},
    ],
    ids=repr,
)
def test_what_could_not_be_stored_is_refused(gateway: WechatGateway, changes: dict[str, object]) -> None:
    assert refused(gateway, notice({**PAID, **changes}))


@pytest.mark.parametrize("notification_id", ["", "a" * 65, "a.b", "é", 5, None])
def test_id_that_is_none_is_refused(gateway: WechatGateway, notification_id: object) -> None:
    assert refused(gateway, notice(id=notification_id))


@pytest.mark.parametrize(
    "resource",
    [
        encrypted(PAID, key="a" * 32),
        encrypted(PAID, associated_data="refund"),
        encrypted(PAID, associated_data=None),
        encrypted(PAID, nonce="fdasflkja485"),
        encrypted(PAID, nonce=""),
        encrypted(PAID, nonce="a"),
        encrypted(PAID, nonce=5),
        encrypted(PAID, ciphertext=""),
        encrypted(PAID, ciphertext="A"),
        encrypted(PAID, ciphertext="AAAA"),
        encrypted(PAID, ciphertext="é"),
        encrypted(PAID, ciphertext=5),
        encrypted(PAID, algorithm="AEAD_AES_128_GCM"),
        encrypted(b""),
        encrypted(b"\xff"),
        encrypted(b"{"),
        encrypted(b"null"),
        encrypted(b"[]"),
        encrypted(b"[" * 20_000),
        {},
        [],
        "x",
        None,
        PAID,
    ],
)
def test_resource_that_cannot_be_decrypted_or_says_nothing_is_refused(
    gateway: WechatGateway, resource: object
) -> None:
    """Well signed, all of them: the SDK raises half a dozen errors for them."""
    assert refused(gateway, notice(resource=resource))


@pytest.mark.parametrize("changes", [{"resource_type": "plain"}, {"event_type": None}], ids=repr)
def test_notification_of_another_kind_is_refused(gateway: WechatGateway, changes: dict[str, object]) -> None:
    assert refused(gateway, notice(**changes))


@pytest.mark.payment_case(10)
@pytest.mark.parametrize(
    "body",
    [
        b"",
        b"null",
        b"[]",
        b"{}",
        b"{",
        b"\xff\xfe",
        b"[" * 50_000,
        b'"' + b"a" * 2_000_000 + b'"',
        notice()[:-1],
    ],
    ids=["empty", "null", "list", "object", "broken", "no UTF-8", "deep", "2 MB", "cut"],
)
def test_body_that_is_no_notification_is_refused_though_it_is_signed(
    gateway: WechatGateway, body: bytes
) -> None:
    assert refused(gateway, body)
    assert refused(gateway, body, {})


def test_without_a_key_nothing_is_good(gateway: WechatGateway, settings: Settings) -> None:
    body = notice()
    for name in ("WECHAT_PUBLIC_KEY", "WECHAT_API_V3_KEY"):
        setattr(settings, name, "")
        assert refused(gateway, body)


# --- delivery ----------------------------------------------------------------------------------------


def pay(wechat: RunningWechat, reference: str = "T-0001", outcome: Outcome = Outcome.PAY) -> None:
    """Open a payment and decide on it."""
    charge = Charge(
        reference=reference,
        amount=Money(4990, "CNY"),
        description="VIP, 30 days",
        return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        language="en",
    )
    WechatGateway().open(charge)
    wechat.decide(reference, outcome)


def read(request: Request) -> Event:
    return WechatGateway().read_webhook(headers=request.headers, body=request.body)


def decrypted(request: Request) -> Any:
    resource = json.loads(request.body)["resource"]
    said = AESGCM(WECHAT_API_V3_KEY.encode()).decrypt(
        resource["nonce"].encode(),
        base64.b64decode(resource["ciphertext"]),
        resource["associated_data"].encode(),
    )
    return json.loads(said)


def test_notification_hides_what_it_is_about(wechat: RunningWechat, shop: Listener) -> None:
    pay(wechat)
    request = shop.next()
    assert (request.method, request.path) == ("POST", "/webhooks/wechat/")
    content = json.loads(request.body)
    assert (content["event_type"], content["resource"]["original_type"]) == (
        "TRANSACTION.SUCCESS",
        "transaction",
    )
    assert b"T-0001" not in request.body
    (trade,) = wechat.books()["trades"]
    said = decrypted(request)
    assert (said["transaction_id"], said["amount"]["total"], said["trade_type"]) == (
        trade["transaction_id"],
        4990,
        "NATIVE",
    )
    assert read(request).attempt_reference == "T-0001"


def test_notification_comes_again_until_it_is_answered_well(wechat: RunningWechat, shop: Listener) -> None:
    for answer in (Answer(status=500), Answer(status=400)):
        shop.answers.put(answer)
    pay(wechat)
    wechat.wait_for_webhooks()
    requests = shop.rest()
    assert len(requests) == 3
    assert len({read(request).dedupe_key for request in requests}) == 1
    (delivery,) = wechat.books()["deliveries"]
    assert (delivery["state"], delivery["tries"]) == ("delivered", 3)


def test_every_sending_is_signed_anew(wechat: RunningWechat, shop: Listener) -> None:
    shop.answers.put(Answer(status=503))
    with time_machine.travel(NOW, tick=False) as clock:
        pay(wechat)
        first = shop.next()
        while not wechat.books()["deliveries"][0]["tries"]:
            pass
        clock.shift(timedelta(hours=1))
        second = shop.next()
        assert read(second).attempt_reference == "T-0001"
        with pytest.raises(BadSignature):
            read(first)


@pytest.mark.payment_case(41, 46)
def test_what_becomes_of_refunds_is_told_too(wechat: RunningWechat, shop: Listener) -> None:
    """And no failure of a payment, nor its end."""
    pay(wechat)
    WechatGateway().give_back(Return("R-1", "T-0001", Money(1000, "CNY")))
    wechat.decide("T-0001", Outcome.DELAY_REFUNDS)
    for reference, outcome in (("R-2", Outcome.FAIL_REFUNDS), ("R-3", Outcome.CLOSE_REFUNDS)):
        WechatGateway().give_back(Return(reference, "T-0001", Money(1000, "CNY")))
        wechat.decide("T-0001", outcome)
    pay(wechat, "T-0002", Outcome.DECLINE)
    pay(wechat, "T-0003", Outcome.TIME_OUT)
    wechat.wait_for_webhooks()
    requests = shop.rest()
    assert [read(request).attempt_reference for request in requests] == ["T-0001"] * 4
    assert len({read(request).dedupe_key for request in requests}) == 4
    assert [json.loads(request.body)["event_type"] for request in requests] == [
        "TRANSACTION.SUCCESS",
        "REFUND.SUCCESS",
        "REFUND.ABNORMAL",
        "REFUND.CLOSED",
    ]
    assert [
        (told["out_refund_no"], told["refund_status"], told["amount"]["refund"])
        for told in map(decrypted, requests[1:])
    ] == [("R-1", "SUCCESS", 1000), ("R-2", "ABNORMAL", 1000), ("R-3", "CLOSED", 1000)]


@pytest.mark.payment_case(1, 5)
@pytest.mark.parametrize(("outcome", "copies"), [(Outcome.PAY_UNTOLD, 0), (Outcome.PAY_TOLD_TWICE, 2)])
def test_payment_is_told_as_often_as_the_tester_chose(
    wechat: RunningWechat, shop: Listener, outcome: Outcome, copies: int
) -> None:
    pay(wechat, outcome=outcome)
    wechat.wait_for_webhooks()
    keys = [read(request).dedupe_key for request in shop.rest()]
    assert (len(keys), len(set(keys))) == (copies, min(copies, 1))


def test_notifications_can_be_dropped_doubled_and_swapped(wechat: RunningWechat, shop: Listener) -> None:
    for fault, first, told in (("drop", 1, [2]), ("duplicate", 3, [3, 3, 4]), ("reorder", 5, [6, 5])):
        wechat.set_faults(**{fault: 1})
        pay(wechat, f"T-000{first}")
        pay(wechat, f"T-000{first + 1}")
        wechat.wait_for_webhooks()
        assert [read(request).attempt_reference for request in shop.rest()] == [
            f"T-000{number}" for number in told
        ]


@pytest.mark.payment_case(6)
def test_wrongly_signed_notification_is_refused_and_signed_well_the_next_time(
    wechat: RunningWechat, shop: Listener
) -> None:
    wechat.set_faults(wrong_key=1)
    shop.answers.put(Answer(status=400))
    pay(wechat)
    wechat.wait_for_webhooks()
    first, second = shop.rest()
    with pytest.raises(BadSignature, match="another key"):
        read(first)
    assert read(second).attempt_reference == "T-0001"
