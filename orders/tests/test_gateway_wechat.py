"""WeChat Pay's gateway against its emulator, against a provider that answers nonsense, and against bad settings."""

import base64
import gzip
import hashlib
import json
import logging
import secrets
import socket
import time
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import urlsplit

import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    load_pem_private_key,
)
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import wechat as adapter
from orders.gateways.emulators.running_wechat import RunningWechat
from orders.gateways.emulators.wechat import Outcome
from orders.gateways.protocol import (
    Booking,
    Charge,
    CredentialsRefused,
    Declined,
    Instructions,
    MoneyMoved,
    Return,
    Snapshot,
    Unavailable,
)
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
from orders.tests.gateway_servers import Answer, Listener, listening

TRANSACTION = "4200002202611230000000000001"
REFUND_ID = "50300000002026112400000000001"
CODE = "weixin://wxpay/bizpayurl/up?pr=NwY5Mz9&groupid=00"
CHARGE = Charge(
    reference="VM-7F3K9Q-1",
    amount=Money(4990, "CNY"),
    description="VIP, 30 days",
    return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
    expires_at=datetime.now(UTC) + timedelta(hours=1),
    language="en",
)
ON_A_PHONE = replace(CHARGE, is_phone=True, payer_address="2001:db8::1")


@pytest.fixture
def wechat(settings: Settings, shop: Listener) -> Iterator[RunningWechat]:
    """WeChat Pay, running, and settings that lead to it."""
    with configured_wechat(settings) as running:
        yield running


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A provider that answers whatever the test wants."""
    with listening() as listener:
        wechat_settings(settings, listener.url)
        yield listener


def a_trade(**changes: object) -> dict[str, object]:
    return {
        "amount": {"currency": "CNY", "payer_currency": "CNY", "payer_total": 4990, "total": 4990},
        "appid": WECHAT_APP_ID,
        "mchid": WECHAT_MERCHANT_ID,
        "out_trade_no": CHARGE.reference,
        "success_time": "2026-11-23T16:00:00+08:00",
        "trade_state": "SUCCESS",
        "trade_type": "NATIVE",
        "transaction_id": TRANSACTION,
        **changes,
    }


def a_refund(**changes: object) -> dict[str, object]:
    return {
        "amount": {"currency": "CNY", "payer_refund": 1000, "refund": 1000, "total": 4990},
        "create_time": "2026-11-24T00:30:00+08:00",
        "out_refund_no": "VM-7F3K9Q-R1",
        "out_trade_no": CHARGE.reference,
        "refund_id": REFUND_ID,
        "status": "SUCCESS",
        "success_time": "2026-11-26T09:00:00+08:00",
        "transaction_id": TRANSACTION,
        **changes,
    }


def signature_of(said: str, private_key: str) -> str:
    key = load_pem_private_key(private_key.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return base64.b64encode(key.sign(said.encode(), padding.PKCS1v15(), SHA256())).decode()


def signed(
    content: object, *, status: int = 200, key: str = "", headers: Mapping[str, str] | None = None
) -> Answer:
    """As WeChat Pay would say it, or somebody with another key. `headers` are changed, without their beginning."""
    body = json.dumps(content, ensure_ascii=False) if content is not None else ""
    at, nonce = str(int(time.time())), secrets.token_hex(16)
    proof = {
        "timestamp": at,
        "nonce": nonce,
        "serial": WECHAT_PUBLIC_KEY_ID,
        "signature": signature_of(f"{at}\n{nonce}\n{body}\n", key or wechat_keys()[0]),
        "signature-type": "WECHATPAY2-SHA256-RSA2048",
        **(headers or {}),
    }
    sent = {f"Wechatpay-{name}": value for name, value in proof.items() if value}
    return Answer(status, body.encode(), {"Content-Type": "application/json; charset=utf-8", **sent})


def no(code: str, message: str = "不行", *, status: int = 400) -> Answer:
    return signed({"code": code, "message": message}, status=status)


def unsigned(content: object, *, status: int = 200) -> Answer:
    return Answer(status, json.dumps(content).encode())


def fetched(*, returns: tuple[str, ...] = (), reference: str = CHARGE.reference) -> Snapshot:
    snapshot = WechatGateway().fetch(reference=reference, provider_id=reference, returns=returns)
    assert snapshot
    return snapshot


def paid(wechat: RunningWechat, charge: Charge = CHARGE) -> None:
    WechatGateway().open(charge)
    wechat.decide(charge.reference)


def give_back(reference: str, minor: int) -> None:
    WechatGateway().give_back(Return(reference, CHARGE.reference, Money(minor, "CNY")))


# --- opening -----------------------------------------------------------------------------------------


def test_computer_is_shown_a_code_to_scan(provider: Listener, settings: Settings) -> None:
    provider.answers.put(signed({"code_url": CODE}))
    opened = WechatGateway().open(
        replace(
            CHARGE, expires_at=datetime(2026, 11, 23, 18, 0, 5, 9, tzinfo=UTC), description="2 × VIP\x00`"
        )
    )
    assert (opened.provider_id, opened.pay_url) == (CHARGE.reference, "")
    assert opened.instructions == Instructions(qr=CODE)
    request = provider.next()
    assert (request.method, request.path) == ("POST", "/v3/pay/transactions/native")
    assert json.loads(request.body) == {
        "appid": WECHAT_APP_ID,
        "mchid": WECHAT_MERCHANT_ID,
        "description": "2 × VIP",
        "out_trade_no": "VM-7F3K9Q-1",
        "notify_url": f"{settings.SITE_URL}/webhooks/wechat/",
        # Case 24: a time with its zone.
        "time_expire": "2026-11-24T02:00:05+08:00",
        "amount": {"total": 4990, "currency": "CNY"},
    }


def test_phone_is_led_to_the_page_and_back_to_the_shop(provider: Listener) -> None:
    url = "https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx2026&package=1"
    provider.answers.put(signed({"h5_url": url}))
    opened = WechatGateway().open(ON_A_PHONE)
    assert opened.instructions is None
    assert opened.pay_url == (f"{url}&redirect_url=http%3A%2F%2F127.0.0.1%3A8000%2Forders%2FVM-1%2Fpaid%2F")
    request = provider.next()
    assert request.path == "/v3/pay/transactions/h5"
    assert json.loads(request.body)["scene_info"] == {
        "payer_client_ip": "2001:db8::1",
        "h5_info": {"type": "Wap"},
    }


@pytest.mark.parametrize("address", [None, "", "unknown"])
def test_phone_without_an_address_is_shown_the_code(provider: Listener, address: str | None) -> None:
    provider.answers.put(signed({"code_url": CODE}))
    opened = WechatGateway().open(replace(ON_A_PHONE, payer_address=address))
    assert opened.instructions == Instructions(qr=CODE)
    assert provider.next().path == "/v3/pay/transactions/native"


def test_phone_pays_and_is_back_in_the_shop(wechat: RunningWechat) -> None:
    opened = WechatGateway().open(ON_A_PHONE)
    assert wechat.arrive(opened.pay_url).status_code == 200
    answer = wechat.decide(CHARGE.reference)
    assert (answer.status_code, answer.headers["location"]) == (303, CHARGE.return_url)
    assert fetched().state == "captured"


@pytest.mark.payment_case(51)
@pytest.mark.parametrize(
    "url",
    [
        "https://evil.example/pay?a=b",
        "http://wx.tenpay.com/pay?a=b",
        "https://wx.tenpay.com.evil.example/pay?a=b",
        "https://wx.tenpay.com@evil.example/pay?a=b",
        "https://wx.tenpay.com/pay",
        "https://wx.tenpay.com/pay?a=b#c",
        "https://[/pay?a=b",
        "javascript:alert(1)//?a=b",
        f"{CODE}",
        "",
    ],
)
def test_buyer_is_led_to_wechats_own_page_only(provider: Listener, url: str) -> None:
    provider.answers.put(signed({"h5_url": url}))
    with pytest.raises(Unavailable):
        WechatGateway().open(ON_A_PHONE)


@pytest.mark.parametrize(
    "content",
    [
        {},
        [],
        None,
        {"code_url": 5},
        {"code_url": "https://evil.example"},
        {"code_url": "weixin://" + "a" * 501},
        {"code_url": "weixin://é"},
        {"h5_url": "https://wx.tenpay.com/pay?a=b"},
    ],
    ids=repr,
)
def test_code_that_is_none_is_unavailable(provider: Listener, content: object) -> None:
    provider.answers.put(signed(content))
    with pytest.raises(Unavailable):
        WechatGateway().open(CHARGE)


@pytest.mark.payment_case(14, 16)
@pytest.mark.parametrize("amount", [Money(4990, "USD"), Money(4990, "HKD"), Money(4990, "JPY")], ids=str)
def test_other_currency_than_yuan_is_declined_and_nothing_is_asked(provider: Listener, amount: Money) -> None:
    """4990 yen are never 49.90 yuan."""
    with pytest.raises(Declined):
        WechatGateway().open(replace(CHARGE, amount=amount))
    with pytest.raises(Declined):
        WechatGateway().give_back(Return("R-1", CHARGE.reference, amount))
    assert provider.rest() == []


@pytest.mark.parametrize("reference", ["", "VM-1A", "V" * 33, "VM 7F3K9Q", "VM/7F3K9Q", "VM-7F3K9Ä"])
def test_number_that_wechat_cannot_take_is_declined_and_nothing_is_asked(
    provider: Listener, reference: str
) -> None:
    """It wants 6 to 32 characters."""
    with pytest.raises(Declined):
        WechatGateway().open(replace(CHARGE, reference=reference))
    assert provider.rest() == []


@pytest.mark.parametrize("reference", ["V" * 6, "V" * 32])
def test_shortest_and_longest_number_are_taken(wechat: RunningWechat, reference: str) -> None:
    WechatGateway().open(replace(CHARGE, reference=reference))
    assert fetched(reference=reference).state == "pending"


def test_opened_payment_is_pending(wechat: RunningWechat) -> None:
    WechatGateway().open(CHARGE)
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="pending")


@pytest.mark.payment_case(25)
def test_opened_twice_is_one_payment_with_one_code(wechat: RunningWechat) -> None:
    first = WechatGateway().open(CHARGE)
    assert WechatGateway().open(replace(CHARGE, language="zh-hans", return_url="http://x.example/")) == first
    assert len(wechat.books()["trades"]) == 1


@pytest.mark.payment_case(17)
def test_opening_again_for_another_amount_is_declined(wechat: RunningWechat) -> None:
    WechatGateway().open(CHARGE)
    with pytest.raises(Declined, match="INVALID_REQUEST"):
        WechatGateway().open(replace(CHARGE, amount=Money(9980, "CNY")))


def test_opening_what_is_closed_is_declined(wechat: RunningWechat) -> None:
    WechatGateway().open(CHARGE)
    WechatGateway().close(provider_id=CHARGE.reference)
    with pytest.raises(Declined, match="ORDER_CLOSED"):
        WechatGateway().open(CHARGE)


def test_opening_what_is_paid_decides_nothing(wechat: RunningWechat) -> None:
    """Declined would be the end of a payment whose money is there."""
    paid(wechat)
    with pytest.raises(Unavailable, match="paid"):
        WechatGateway().open(CHARGE)


@pytest.mark.payment_case(27)
def test_lost_answer_to_opening_leaves_one_payment_that_is_opened_again(wechat: RunningWechat) -> None:
    wechat.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        WechatGateway().open(CHARGE)
    paid(wechat)
    assert len(wechat.books()["trades"]) == 1


# --- what became of it -------------------------------------------------------------------------------


@pytest.mark.payment_case(24)
@pytest.mark.parametrize(
    ("written", "at"),
    [
        ("2026-11-24T00:30:05+08:00", datetime(2026, 11, 23, 16, 30, 5, tzinfo=UTC)),
        ("2026-11-23T11:30:05-05:00", datetime(2026, 11, 23, 16, 30, 5, tzinfo=UTC)),
    ],
)
def test_payment_is_read_to_the_fen_and_at_the_time_of_its_zone(
    provider: Listener, written: str, at: datetime
) -> None:
    amount = {"total": 4991, "currency": "CNY", "payer_total": 4000}
    provider.answers.put(signed(a_trade(amount=amount, success_time=written)))
    assert fetched() == Snapshot(
        provider_id=CHARGE.reference,
        state="captured",
        captures=(MoneyMoved(TRANSACTION, Money(4991, "CNY"), at),),
    )
    assert provider.next().path == (
        f"/v3/pay/transactions/out-trade-no/{CHARGE.reference}?mchid={WECHAT_MERCHANT_ID}"
    )


@pytest.mark.payment_case(14)
def test_amount_in_another_currency_is_stated_as_such(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(amount={"total": 4990, "currency": "JPY"})))
    assert [capture.amount for capture in fetched().captures] == [Money(4990, "JPY")]


@pytest.mark.parametrize(
    ("word", "state"),
    [
        ("NOTPAY", "pending"),
        ("USERPAYING", "pending"),
        ("SUCCESS", "captured"),
        ("REFUND", "captured"),
        ("CLOSED", "cancelled"),
        ("REVOKED", "cancelled"),
        ("PAYERROR", "declined"),
    ],
)
def test_state_of_a_payment(provider: Listener, word: str, state: str) -> None:
    provider.answers.put(signed(a_trade(trade_state=word)))
    snapshot = fetched()
    assert (snapshot.state, bool(snapshot.captures)) == (state, state == "captured")


def test_open_payment_needs_to_say_nothing_of_money(provider: Listener) -> None:
    content = {
        "mchid": WECHAT_MERCHANT_ID,
        "out_trade_no": CHARGE.reference,
        "trade_state": "NOTPAY",
        "trade_state_desc": "订单未支付",
    }
    provider.answers.put(signed(content))
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="pending")


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": "VM-OTHER-1"},
        {"out_trade_no": None},
        {"mchid": "1900000002"},
        {"mchid": None},
        {"appid": "wx0000000000000002"},
        {"transaction_id": "../x"},
        {"transaction_id": 5},
        {"trade_state": "ACCEPT"},
        {"trade_state": None},
        {"amount": None},
        {"amount": 4990},
        {"amount": {"total": "4990", "currency": "CNY"}},
        {"amount": {"total": 49.9, "currency": "CNY"}},
        {"amount": {"total": 4990.0, "currency": "CNY"}},
        {"amount": {"total": 0, "currency": "CNY"}},
        {"amount": {"total": -4990, "currency": "CNY"}},
        {"amount": {"total": 10**15, "currency": "CNY"}},
        {"amount": {"total": True, "currency": "CNY"}},
        {"amount": {"total": 4990, "currency": "XXXX"}},
        {"amount": {"total": 4990, "currency": None}},
        {"amount": {"currency": "CNY"}},
        {"success_time": "yesterday"},
        {"success_time": "2026-11-31T16:00:00+08:00"},
        {"success_time": "2026-11-23T16:00:00"},
        {"success_time": "2026-11-23 16:00:00"},
        {"success_time": None},
    ],
    ids=repr,
)
def test_answer_that_makes_no_sense_is_unavailable(provider: Listener, changes: dict[str, object]) -> None:
    provider.answers.put(signed(a_trade(**changes)))
    with pytest.raises(Unavailable):
        fetched()


@pytest.mark.parametrize(
    "answer",
    [
        Answer(body=b""),
        Answer(body=b"<html>"),
        Answer(body=b"\xff"),
        Answer(status=204, body=b""),
        Answer(status=404, body=b""),
        Answer(status=404, body=b"<html>"),
        Answer(status=404, body=b"\xff"),
        Answer(status=404, body=b"[" * 100_000),
        Answer(status=404),
        Answer(status=401, body=b""),
        Answer(status=503, body=b""),
        Answer(status=301, body=b"", headers={"Location": "/elsewhere"}),
    ],
    ids=[
        "empty",
        "HTML",
        "no UTF-8",
        "204",
        "404 empty",
        "404 HTML",
        "404 no UTF-8",
        "404 deep",
        "404 object",
        "401",
        "503",
        "301",
    ],
)
def test_answer_that_is_none_is_unavailable_and_asked_for_once(provider: Listener, answer: Answer) -> None:
    provider.answers.put(answer)
    with pytest.raises(Unavailable):
        fetched()
    assert len(provider.rest()) == 1


@pytest.mark.payment_case(49)
@pytest.mark.parametrize("status", [200, 404])
def test_answer_signed_with_another_key_is_none(provider: Listener, status: int) -> None:
    """A refusal neither: it would be the end of the payment."""
    content = a_trade() if status == 200 else {"code": "ORDER_NOT_EXIST", "message": "订单不存在"}
    provider.answers.put(signed(content, status=status, key=merchant_keys()[0]))
    with pytest.raises(Unavailable, match="another key"):
        fetched()


@pytest.mark.payment_case(51)
@pytest.mark.parametrize(
    "serial", ["PUB_KEY_ID_0114232134912410000000000001", "5157F09EFDC096DE15EBE81A47057A72"]
)
def test_answer_of_a_foreign_serial_is_none_and_no_certificate_is_fetched(
    provider: Listener, serial: str
) -> None:
    """The SDK would ask for all certificates there are."""
    provider.answers.put(signed(a_trade(), headers={"serial": serial}))
    with pytest.raises(Unavailable, match="not ours to know"):
        fetched()
    assert len(provider.rest()) == 1


def test_answer_that_was_touched_is_none(provider: Listener) -> None:
    answer = signed(a_trade())
    provider.answers.put(replace(answer, body=answer.body.replace(b"4990", b"4991")))
    with pytest.raises(Unavailable, match="another key"):
        fetched()


@pytest.mark.parametrize("seconds", [-301, 301])
def test_answer_of_another_time_is_none(provider: Listener, seconds: int) -> None:
    with time_machine.travel(datetime.now(UTC) + timedelta(seconds=seconds), tick=False):
        provider.answers.put(signed(a_trade()))
    with pytest.raises(Unavailable, match="too old"):
        fetched()


@pytest.mark.parametrize(
    "changes",
    [
        {"signature": ""},
        {"signature": "?"},
        {"signature": "AAAA"},
        {"signature": "A" * 344},
        {"signature": "A" * 5},
        {"signature-type": ""},
        {"signature-type": "WECHATPAY2-SM2-WITH-SM3"},
        {"timestamp": ""},
        {"timestamp": "1e9"},
        {"timestamp": "9999999999"},
        {"nonce": ""},
        {"nonce": "a b"},
        {"serial": ""},
    ],
    ids=repr,
)
def test_answer_whose_proof_is_none_is_no_answer(provider: Listener, changes: dict[str, str]) -> None:
    """The SDK raises for another type, and lets errors of base64 and of whole numbers out."""
    provider.answers.put(signed(a_trade(), headers=changes))
    with pytest.raises(Unavailable, match="proves nothing"):
        fetched()


def test_unsigned_grant_is_none_and_unsigned_refusal_is_one(provider: Listener) -> None:
    provider.answers.put(unsigned(a_trade()))
    with pytest.raises(Unavailable, match="not signed"):
        fetched()
    provider.answers.put(unsigned({"code": "ORDER_NOT_EXIST", "message": "订单不存在"}, status=404))
    assert WechatGateway().fetch(reference=CHARGE.reference, provider_id="") is None


@pytest.mark.parametrize("code", ["ORDER_NOT_EXIST", "ORDERNOTEXIST", "RESOURCE_NOT_EXISTS"])
def test_payment_that_wechat_does_not_have_is_none(provider: Listener, code: str) -> None:
    provider.answers.put(no(code, status=404))
    assert WechatGateway().fetch(reference=CHARGE.reference, provider_id="") is None


def test_answer_of_more_than_a_megabyte_is_unavailable(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(attach="a" * 1_000_000)))
    with pytest.raises(Unavailable, match="too much"):
        fetched()


def test_compressed_answer_is_not_unpacked(provider: Listener) -> None:
    answer = signed(a_trade())
    headers = {**answer.headers, "Content-Encoding": "gzip"}
    provider.answers.put(replace(answer, body=gzip.compress(answer.body), headers=headers))
    with pytest.raises(Unavailable):
        fetched()
    assert provider.next().headers["accept-encoding"] == "identity"


@pytest.mark.payment_case(48)
@pytest.mark.parametrize(
    "answer",
    [
        unsigned({"code": "SIGN_ERROR", "message": "错误的签名"}, status=401),
        unsigned({"code": "ELSE", "message": "?"}, status=401),
        unsigned({"code": "NO_AUTH", "message": "商户无权限"}, status=403),
        unsigned({"code": "MCH_NOT_EXISTS", "message": "商户号不存在"}, status=400),
        unsigned({"code": "APPID_MCHID_NOT_MATCH", "message": "不匹配"}, status=400),
    ],
    ids=["signature", "401", "permission", "merchant", "application"],
)
def test_refused_credentials_are_known_as_such(provider: Listener, answer: Answer) -> None:
    provider.answers.put(answer)
    with pytest.raises(CredentialsRefused, match=r"^WeChat Pay refuses our credentials: "):
        fetched()


@pytest.mark.parametrize(
    ("code", "status"),
    [
        ("SYSTEM_ERROR", 500),
        ("SYSTEM_ERROR", 400),
        ("BANK_ERROR", 400),
        ("FREQUENCY_LIMITED", 429),
        ("RATELIMIT_EXCEEDED", 403),
        ("ELSE", 429),
        ("ELSE", 502),
        ("ORDER_NOT_EXIST", 503),
    ],
)
def test_trouble_at_wechat_decides_nothing(provider: Listener, code: str, status: int) -> None:
    provider.answers.put(no(code, status=status))
    with pytest.raises(Unavailable):
        WechatGateway().open(CHARGE)


def test_refusal_says_wechats_reason_without_what_could_not_be_stored(provider: Listener) -> None:
    provider.answers.put(no("PARAM_ERROR", "参数\x00错误\n"))
    with pytest.raises(Declined, match=r"^WeChat Pay refused: 参数错误 \(PARAM_ERROR\)$"):
        WechatGateway().open(CHARGE)


@pytest.mark.payment_case(52)
def test_failed_payment_is_declined_and_another_may_be_opened(wechat: RunningWechat) -> None:
    WechatGateway().open(CHARGE)
    wechat.decide(CHARGE.reference, Outcome.DECLINE)
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="declined")
    second = replace(CHARGE, reference="VM-7F3K9Q-2")
    paid(wechat, second)
    assert fetched(reference=second.reference).state == "captured"


@pytest.mark.payment_case(21)
def test_payment_that_is_overdue_cannot_be_paid_and_is_open_until_we_close_it(wechat: RunningWechat) -> None:
    WechatGateway().open(CHARGE)
    # WeChat Pay is in this process and goes by the same clock.
    with time_machine.travel(CHARGE.expires_at):
        wechat.decide(CHARGE.reference)
        assert fetched().state == "pending"
        WechatGateway().close(provider_id=CHARGE.reference)
        assert fetched() == Snapshot(provider_id=CHARGE.reference, state="cancelled")


@pytest.mark.payment_case(18)
def test_captured_at_the_time_of_paying_not_of_asking(wechat: RunningWechat) -> None:
    paid_at = datetime(2026, 11, 23, 15, 59, 59, tzinfo=UTC)
    with time_machine.travel(paid_at, tick=False):
        paid(wechat, replace(CHARGE, expires_at=paid_at + timedelta(minutes=2)))
    with time_machine.travel(paid_at + timedelta(minutes=10)):
        assert [capture.at for capture in fetched().captures] == [paid_at]


# --- closing -----------------------------------------------------------------------------------------


def test_closed_payment_is_cancelled_and_cannot_be_paid(wechat: RunningWechat) -> None:
    WechatGateway().open(CHARGE)
    WechatGateway().close(provider_id=CHARGE.reference)
    WechatGateway().close(provider_id=CHARGE.reference)
    wechat.decide(CHARGE.reference)
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="cancelled")


@pytest.mark.payment_case(53)
def test_closing_what_is_paid_is_declined(wechat: RunningWechat) -> None:
    paid(wechat)
    with pytest.raises(Declined, match="ORDERPAID"):
        WechatGateway().close(provider_id=CHARGE.reference)
    assert fetched().state == "captured"


def test_closing_is_granted_by_an_empty_answer_that_is_signed(provider: Listener) -> None:
    provider.answers.put(signed(None, status=204))
    WechatGateway().close(provider_id=CHARGE.reference)
    request = provider.next()
    assert request.path == f"/v3/pay/transactions/out-trade-no/{CHARGE.reference}/close"
    assert json.loads(request.body) == {"mchid": WECHAT_MERCHANT_ID}
    provider.answers.put(Answer(status=204, body=b""))
    with pytest.raises(Unavailable):
        WechatGateway().close(provider_id=CHARGE.reference)


# --- refunds -----------------------------------------------------------------------------------------


@pytest.mark.payment_case(40)
def test_refunds_are_those_that_were_asked_for(wechat: RunningWechat) -> None:
    """Two of them, one after the other."""
    paid(wechat)
    give_back("R-1", 3000)
    give_back("R-2", 1000)
    snapshot = fetched(returns=("R-1", "R-2", "R-3"))
    made = {refund["out_refund_no"]: refund["refund_id"] for refund in wechat.books()["refunds"]}
    assert [(refund.transaction_id, refund.amount, refund.reference) for refund in snapshot.refunds] == [
        (made["R-1"], Money(3000, "CNY"), "R-1"),
        (made["R-2"], Money(1000, "CNY"), "R-2"),
    ]
    assert (snapshot.state, snapshot.refused_returns, snapshot.problem) == ("captured", (), "")


def test_refund_says_what_the_whole_payment_was(provider: Listener, settings: Settings) -> None:
    provider.answers.put(signed(a_trade()))
    provider.answers.put(signed(a_refund(status="PROCESSING")))
    give_back("VM-7F3K9Q-R1", 1000)
    _query, request = provider.rest()
    assert (request.method, request.path) == ("POST", "/v3/refund/domestic/refunds")
    assert json.loads(request.body) == {
        "out_trade_no": CHARGE.reference,
        "out_refund_no": "VM-7F3K9Q-R1",
        "notify_url": f"{settings.SITE_URL}/webhooks/wechat/",
        "amount": {"refund": 1000, "total": 4990, "currency": "CNY"},
    }


@pytest.mark.payment_case(24)
def test_refund_is_read_to_the_fen_and_at_the_time_when_it_left_the_seller(provider: Listener) -> None:
    """It was accepted half past midnight in Beijing, and the buyer's bank had it two days later."""
    provider.answers.put(signed(a_trade(trade_state="REFUND")))
    provider.answers.put(signed(a_refund()))
    assert fetched(returns=("VM-7F3K9Q-R1",)).refunds == (
        MoneyMoved(REFUND_ID, Money(1000, "CNY"), datetime(2026, 11, 23, 16, 30, tzinfo=UTC), "VM-7F3K9Q-R1"),
    )
    assert provider.rest()[1].path == "/v3/refund/domestic/refunds/VM-7F3K9Q-R1"


@pytest.mark.parametrize(
    "changes",
    [
        {"out_refund_no": "VM-7F3K9Q-R2"},
        {"out_trade_no": "VM-OTHER-1"},
        {"transaction_id": TRANSACTION[:-1] + "2"},
        {"refund_id": "../x"},
        {"status": "DONE"},
        {"amount": {"refund": "10.00", "currency": "CNY"}},
        {"amount": {"refund": 0, "currency": "CNY"}},
        {"amount": {"refund": 4991, "currency": "CNY"}},
        {"create_time": "soon"},
    ],
    ids=repr,
)
def test_refund_that_makes_no_sense_is_unavailable(provider: Listener, changes: dict[str, object]) -> None:
    provider.answers.put(signed(a_trade()))
    provider.answers.put(signed(a_refund(**changes)))
    with pytest.raises(Unavailable):
        fetched(returns=("VM-7F3K9Q-R1",))


@pytest.mark.parametrize("reference", ["", "../x", "R_1", "R" * 65, 'R"1', "R?1"])
def test_refund_that_cannot_be_ours_is_not_asked_for(provider: Listener, reference: str) -> None:
    provider.answers.put(signed(a_trade()))
    assert fetched(returns=(reference,)).refunds == ()
    assert len(provider.rest()) == 1


@pytest.mark.payment_case(39)
def test_refund_asked_for_twice_is_one(wechat: RunningWechat) -> None:
    paid(wechat)
    give_back("R-1", 3000)
    give_back("R-1", 3000)
    assert [refund.amount for refund in fetched(returns=("R-1", "R-1")).refunds] == [Money(3000, "CNY")]
    assert len(wechat.books()["refunds"]) == 1


def test_refund_asked_for_again_with_another_amount_is_declined(wechat: RunningWechat) -> None:
    paid(wechat)
    give_back("R-1", 3000)
    with pytest.raises(Declined, match="INVALID_REQUEST"):
        give_back("R-1", 3001)


@pytest.mark.payment_case(40)
def test_refunds_never_exceed_the_capture(wechat: RunningWechat) -> None:
    """30.00 and 30.00 of 49.90."""
    paid(wechat)
    give_back("R-1", 3000)
    with pytest.raises(Declined, match="INVALID_REQUEST"):
        give_back("R-2", 3000)
    assert [refund.reference for refund in fetched(returns=("R-1", "R-2")).refunds] == ["R-1"]


@pytest.mark.payment_case(41)
def test_refund_that_is_only_accepted_is_in_no_list_until_it_is_made(wechat: RunningWechat) -> None:
    paid(wechat)
    wechat.decide(CHARGE.reference, Outcome.DELAY_REFUNDS)
    give_back("R-1", 1000)
    waiting = fetched(returns=("R-1",))
    assert (waiting.state, waiting.refunds, waiting.refused_returns, waiting.problem) == (
        "captured",
        (),
        (),
        "",
    )
    # What waits is reserved.
    with pytest.raises(Declined):
        give_back("R-2", 4000)
    wechat.decide(CHARGE.reference, Outcome.COMPLETE_REFUNDS)
    assert [refund.reference for refund in fetched(returns=("R-1",)).refunds] == ["R-1"]


@pytest.mark.payment_case(41)
def test_refund_that_the_bank_refuses_has_failed_until_it_is_settled_at_wechats_desk(
    wechat: RunningWechat,
) -> None:
    paid(wechat)
    wechat.decide(CHARGE.reference, Outcome.DELAY_REFUNDS)
    give_back("R-1", 1000)
    wechat.decide(CHARGE.reference, Outcome.FAIL_REFUNDS)
    failed = fetched(returns=("R-1",))
    assert failed.refunds == ()
    [refused] = failed.refused_returns
    assert (refused.reference, refused.problem) == (
        "R-1",
        "The buyer's bank does not take it. It has to be settled at WeChat Pay's own desk.",
    )
    assert refused.transaction_id
    with pytest.raises(Declined, match="desk"):
        give_back("R-1", 1000)
    wechat.decide(CHARGE.reference, Outcome.COMPLETE_REFUNDS)
    settled = fetched(returns=("R-1",))
    assert ([refund.reference for refund in settled.refunds], settled.refused_returns) == (["R-1"], ())


@pytest.mark.payment_case(41)
def test_refund_that_wechat_closes_has_failed_and_frees_what_it_kept(wechat: RunningWechat) -> None:
    paid(wechat)
    wechat.decide(CHARGE.reference, Outcome.DELAY_REFUNDS)
    give_back("R-1", 4990)
    wechat.decide(CHARGE.reference, Outcome.CLOSE_REFUNDS)
    failed = fetched(returns=("R-1",))
    assert (failed.refunds, [refused.reference for refused in failed.refused_returns]) == ((), ["R-1"])
    with pytest.raises(Declined, match="closed"):
        give_back("R-1", 4990)
    give_back("R-2", 4990)
    assert [refund.reference for refund in fetched(returns=("R-1", "R-2")).refunds] == ["R-2"]


def test_refund_out_of_an_empty_account_is_declined_and_may_be_asked_for_again(wechat: RunningWechat) -> None:
    paid(wechat)
    wechat.decide(CHARGE.reference, Outcome.EMPTY_ACCOUNT)
    with pytest.raises(Declined, match="NOT_ENOUGH"):
        give_back("R-1", 1000)
    assert fetched(returns=("R-1",)).refunds == ()
    wechat.decide(CHARGE.reference, Outcome.FILL_ACCOUNT)
    give_back("R-1", 1000)
    assert [refund.reference for refund in fetched(returns=("R-1",)).refunds] == ["R-1"]


@pytest.mark.payment_case(43)
def test_refund_is_declined_when_its_year_is_over(wechat: RunningWechat) -> None:
    assert WechatGateway().refundable_for("wechat") == timedelta(days=365)
    paid(wechat)
    year_is_over = datetime.now(UTC) + timedelta(days=365)
    with time_machine.travel(year_is_over - timedelta(minutes=1)):
        give_back("R-1", 1000)
    with time_machine.travel(year_is_over + timedelta(minutes=1)), pytest.raises(Declined):
        give_back("R-2", 1000)


@pytest.mark.payment_case(42)
def test_refund_at_wechats_desk_is_a_problem_that_is_shown(wechat: RunningWechat) -> None:
    """Nobody can ask for its number: it is found in the bill."""
    paid(wechat)
    wechat.decide(CHARGE.reference, Outcome.REFUND_HERE)
    snapshot = fetched(returns=("R-1",))
    assert (snapshot.state, snapshot.refunds) == ("captured", ())
    assert snapshot.problem == "WeChat Pay has given back some of it, or all, outside the shop."


@pytest.mark.parametrize("state", ["NOTPAY", "CLOSED", "PAYERROR"])
def test_what_was_not_paid_is_not_given_back(provider: Listener, state: str) -> None:
    provider.answers.put(signed(a_trade(trade_state=state)))
    with pytest.raises(Declined, match="no such payment that was paid"):
        give_back("R-1", 1000)
    assert len(provider.rest()) == 1


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": "VM-OTHER-1"},
        {"out_refund_no": "R-1"},
        {"amount": {"refund": 1001, "currency": "CNY"}},
        {"amount": {"refund": 1000, "currency": "JPY"}},
    ],
    ids=repr,
)
def test_another_refund_is_no_answer(provider: Listener, changes: dict[str, object]) -> None:
    provider.answers.put(signed(a_trade()))
    provider.answers.put(signed(a_refund(**changes)))
    with pytest.raises(Unavailable):
        give_back("VM-7F3K9Q-R1", 1000)


def test_trouble_while_refunding_is_unavailable(provider: Listener) -> None:
    provider.answers.put(signed(a_trade()))
    provider.answers.put(no("SYSTEM_ERROR", status=500))
    with pytest.raises(Unavailable):
        give_back("R-1", 1000)


# --- bills -------------------------------------------------------------------------------------------

DAY = date(2026, 11, 23)
AFTER_BOTH = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)


@pytest.mark.payment_case(24)
def test_bookings_of_a_day_of_utc_come_out_of_two_days_of_beijing(wechat: RunningWechat) -> None:
    """2026-11-23 of UTC is from 8 o'clock in Beijing to 8 o'clock on the day after."""
    moments = {
        "T-BEFORE": datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC),
        "T-MORNING": datetime(2026, 11, 23, 0, 0, 0, tzinfo=UTC),
        "T-EVENING": datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC),
        "T-AFTER": datetime(2026, 11, 24, 0, 0, 0, tzinfo=UTC),
    }
    for reference, at in moments.items():
        with time_machine.travel(at, tick=False):
            paid(wechat, replace(CHARGE, reference=reference, expires_at=at + timedelta(minutes=5)))
    refunded_at = datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)
    with time_machine.travel(refunded_at, tick=False):
        WechatGateway().give_back(Return("R-1", "T-BEFORE", Money(1000, "CNY")))
    books = wechat.books()
    numbers = {trade["out_trade_no"]: trade["transaction_id"] for trade in books["trades"]}
    (refund,) = books["refunds"]
    with time_machine.travel(AFTER_BOTH):
        booked = list(WechatGateway().bookings(day=DAY))
    assert sorted(booked, key=lambda booking: booking.at) == [
        Booking("capture", numbers["T-MORNING"], Money(4990, "CNY"), moments["T-MORNING"], "T-MORNING"),
        Booking("refund", refund["refund_id"], Money(1000, "CNY"), refunded_at, "T-BEFORE"),
        Booking("capture", numbers["T-EVENING"], Money(4990, "CNY"), moments["T-EVENING"], "T-EVENING"),
    ]


@pytest.mark.payment_case(42)
def test_bookings_and_snapshot_call_a_movement_the_same_and_the_desks_refund_is_in_them(
    wechat: RunningWechat,
) -> None:
    with time_machine.travel(datetime(2026, 11, 23, 9, 0, tzinfo=UTC), tick=False):
        paid(wechat, replace(CHARGE, expires_at=datetime(2026, 11, 23, 10, 0, tzinfo=UTC)))
        give_back("R-1", 1000)
        wechat.decide(CHARGE.reference, Outcome.REFUND_HERE)
        snapshot = fetched(returns=("R-1",))
    with time_machine.travel(AFTER_BOTH):
        booked = {
            booking.transaction_id: (booking.kind, booking.amount)
            for booking in WechatGateway().bookings(day=DAY)
        }
    (refund,) = snapshot.refunds
    (capture,) = snapshot.captures
    assert booked.pop(refund.transaction_id) == ("refund", refund.amount)
    assert booked.pop(capture.transaction_id) == ("capture", capture.amount)
    assert list(booked.values()) == [("refund", Money(3990, "CNY"))]


@pytest.mark.payment_case(41)
def test_refund_that_was_under_way_when_its_bill_was_made_is_booked_once_the_buyer_has_it(
    wechat: RunningWechat,
) -> None:
    """On the day when it was accepted, as in the snapshot. The bill never says what became of it."""
    accepted_at = datetime(2026, 11, 23, 9, 0, tzinfo=UTC)
    with time_machine.travel(accepted_at, tick=False):
        paid(wechat, replace(CHARGE, expires_at=datetime(2026, 11, 23, 10, 0, tzinfo=UTC)))
        wechat.decide(CHARGE.reference, Outcome.DELAY_REFUNDS)
        give_back("R-1", 1000)
    with time_machine.travel(AFTER_BOTH, tick=False) as clock:
        assert [booking.kind for booking in WechatGateway().bookings(day=DAY)] == ["capture"]
        wechat.decide(CHARGE.reference, Outcome.COMPLETE_REFUNDS)
        clock.shift(timedelta(hours=1))
        _capture, refund = WechatGateway().bookings(day=DAY)
        assert (refund.kind, refund.at, refund.amount) == ("refund", accepted_at, Money(1000, "CNY"))
        assert [moved.at for moved in fetched(returns=("R-1",)).refunds] == [accepted_at]


@pytest.mark.parametrize(
    "now",
    [
        # Not over in Beijing; over, but not billed: the second of the two days.
        datetime(2026, 11, 24, 15, 59, tzinfo=UTC),
        datetime(2026, 11, 24, 16, 1, tzinfo=UTC),
        datetime(2026, 11, 25, 1, 59, tzinfo=UTC),
        datetime(2026, 11, 25, 3, 59, tzinfo=UTC),
    ],
    ids=str,
)
def test_bookings_are_unavailable_before_both_bills_can_be_there(
    wechat: RunningWechat, now: datetime
) -> None:
    with time_machine.travel(now, tick=False), pytest.raises(Unavailable, match="2026-11-24"):
        list(WechatGateway().bookings(day=DAY))


def test_day_on_which_nothing_happened_has_no_bookings(wechat: RunningWechat) -> None:
    with time_machine.travel(AFTER_BOTH, tick=False):
        assert list(WechatGateway().bookings(day=DAY)) == []


COLUMNS = "交易时间,商户号,微信订单号,商户订单号,交易状态,货币种类,微信退款单号,商户退款单号,退款状态,订单金额,申请退款金额"
SUMS = "总交易单数,应结订单总金额\r\n`1,`49.90"
LINE = (
    f"`2026-11-23 09:00:00,`{WECHAT_MERCHANT_ID},`{TRANSACTION},`VM-1-1AB,`SUCCESS,`CNY,`0,`0,`,`49.90,`0.00"
)
BACK = (
    f"`2026-11-23 10:00:00,`{WECHAT_MERCHANT_ID},`{TRANSACTION},`VM-1-1AB,`REFUND,`CNY,`{REFUND_ID},`DESK|7*,"
    "`SUCCESS,`0.00,`10.00"
)


def a_bill(*lines: str, columns: str = COLUMNS, sums: str = SUMS) -> bytes:
    return ("\ufeff" + "\r\n".join([columns, *lines, sums]) + "\r\n").encode()


def bookings_of(
    provider: Listener,
    bill: bytes,
    *more: Answer,
    packed: bytes = b"",
    promise: Mapping[str, object] | None = None,
) -> list[Booking]:
    """Of a day whose first bill is `bill`, and that has no second. `more` is answered in between."""
    provider.answers.put(
        signed(
            {
                "download_url": f"{provider.url}/v3/billdownload/file?token=a-b_c%3D",
                "hash_type": "SHA1",
                "hash_value": hashlib.sha1(bill, usedforsecurity=False).hexdigest(),
                **(promise or {}),
            }
        )
    )
    provider.answers.put(Answer(body=packed or gzip.compress(bill)))
    for answer in (*more, no("NO_STATEMENT_EXIST", "账单文件不存在")):
        provider.answers.put(answer)
    return list(WechatGateway().bookings(day=DAY))


@pytest.fixture
def _after_both() -> Iterator[None]:
    with time_machine.travel(AFTER_BOTH, tick=False):
        yield


@pytest.mark.usefixtures("_after_both")
def test_bill_is_read_by_the_names_of_its_columns(provider: Listener) -> None:
    till = LINE.replace("SUCCESS", "REVOKED")
    other_shops = LINE.replace(TRANSACTION, TRANSACTION[:-1] + "9").replace("VM-1-1AB", "SHOP_9")
    assert bookings_of(provider, a_bill(LINE, BACK, till, other_shops)) == [
        Booking(
            "capture", TRANSACTION, Money(4990, "CNY"), datetime(2026, 11, 23, 1, tzinfo=UTC), "VM-1-1AB"
        ),
        Booking("refund", REFUND_ID, Money(1000, "CNY"), datetime(2026, 11, 23, 2, tzinfo=UTC), "VM-1-1AB"),
        Booking(
            "capture", TRANSACTION[:-1] + "9", Money(4990, "CNY"), datetime(2026, 11, 23, 1, tzinfo=UTC), ""
        ),
    ]
    asked, download, second = provider.rest()
    assert asked.path == "/v3/bill/tradebill?bill_date=2026-11-23&bill_type=ALL&tar_type=GZIP"
    assert download.path == "/v3/billdownload/file?token=a-b_c%3D"
    assert download.headers["authorization"].startswith("WECHATPAY2-SHA256-RSA2048 ")
    assert "bill_date=2026-11-24" in second.path


@pytest.mark.usefixtures("_after_both")
@pytest.mark.parametrize("status", ["SUCCESS", "PROCESSING", "ABNORMAL", "CLOSED"])
def test_what_became_of_a_refund_that_the_bill_calls_unfinished_is_asked_for(
    provider: Listener, status: str
) -> None:
    now = a_refund(status=status, out_refund_no="DESK|7*", out_trade_no="VM-1-1AB")
    bill = a_bill(BACK.replace("`SUCCESS", "`PROCESSING"))
    booked = bookings_of(provider, bill, signed(now))
    assert [booking.transaction_id for booking in booked] == ([REFUND_ID] if status == "SUCCESS" else [])
    assert provider.rest()[2].path == "/v3/refund/domestic/refunds/DESK%7C7%2A"


@pytest.mark.usefixtures("_after_both")
@pytest.mark.parametrize(
    "bill",
    [
        b"",
        a_bill(LINE, sums=""),
        a_bill(LINE, columns="a,b"),
        a_bill(LINE.replace("SUCCESS", "ACCEPT")),
        a_bill(LINE.replace("49.90", "49.901")),
        a_bill(LINE.replace("49.90", "-49.90")),
        a_bill(LINE.replace("49.90", "0.00")),
        a_bill(LINE.replace("CNY", "XXXX")),
        a_bill(LINE.replace("09:00:00", "25:00:00")),
        a_bill(LINE.replace(TRANSACTION, "../x")),
        a_bill(LINE.replace(WECHAT_MERCHANT_ID, "1900000002")),
        a_bill(LINE + ",`x"),
        a_bill(BACK.replace(REFUND_ID, "0")),
        a_bill(BACK.replace("DESK|7*", "../x")),
        b"\xff" + a_bill(LINE),
    ],
    ids=[
        "empty",
        "no end",
        "columns",
        "state",
        "digits",
        "minus",
        "nothing",
        "currency",
        "time",
        "number",
        "merchant",
        "cells",
        "refund",
        "refund number",
        "no UTF-8",
    ],
)
def test_bill_that_makes_no_sense_is_unavailable(provider: Listener, bill: bytes) -> None:
    with pytest.raises(Unavailable):
        bookings_of(provider, bill)


@pytest.mark.usefixtures("_after_both")
@pytest.mark.parametrize(
    "packed",
    [b"no gzip", gzip.compress(a_bill(LINE))[:-10], gzip.compress(a_bill(LINE)) + b"x", a_bill(LINE)],
    ids=["no gzip", "cut", "more", "not packed"],
)
def test_bill_that_cannot_be_unpacked_is_unavailable(provider: Listener, packed: bytes) -> None:
    with pytest.raises(Unavailable, match="unpacked"):
        bookings_of(provider, a_bill(LINE), packed=packed)


@pytest.mark.usefixtures("_after_both")
def test_bill_that_is_not_the_one_promised_is_unavailable(provider: Listener) -> None:
    """It is not signed: its digest came with the signed promise."""
    with pytest.raises(Unavailable, match="promised"):
        bookings_of(provider, a_bill(LINE), packed=gzip.compress(a_bill(LINE.replace("49.90", "49.91"))))


@pytest.mark.usefixtures("_after_both")
def test_bill_that_unpacks_to_too_much_is_unavailable(
    provider: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "BILL_BYTES", 10_000)
    with pytest.raises(Unavailable, match="too long"):
        bookings_of(provider, a_bill(LINE, " " * 100_000))


@pytest.mark.usefixtures("_after_both")
@pytest.mark.payment_case(51)
@pytest.mark.parametrize(
    "promise",
    [
        {"download_url": "https://evil.example/v3/billdownload/file?token=a"},
        {"download_url": "https://api.mch.weixin.qq.com.evil.example/v3/billdownload/file?token=a"},
        {"download_url": "/v3/billdownload/file?token=a"},
        {"download_url": ""},
        {"download_url": None},
        {"hash_type": "MD5"},
        {"hash_value": None},
    ],
    ids=repr,
)
def test_bill_is_fetched_from_nowhere_but_its_own_place(
    provider: Listener, promise: dict[str, object]
) -> None:
    """The request for it is signed with our key."""
    with pytest.raises(Unavailable):
        bookings_of(provider, a_bill(LINE), promise=promise)
    assert len(provider.rest()) == 1


@pytest.mark.usefixtures("_after_both")
def test_bill_below_the_address_of_another_is_not_fetched(provider: Listener) -> None:
    for url in (f"{provider.url}.evil.example", f"{provider.url}/x", f"{provider.url}@evil.example"):
        with pytest.raises(Unavailable, match="not its own"):
            bookings_of(
                provider,
                a_bill(LINE),
                promise={"download_url": f"{url}/v3/billdownload/file?token=a"},
            )
        while not provider.answers.empty():
            provider.answers.get()


@pytest.mark.usefixtures("_after_both")
def test_bill_that_is_still_being_made_is_unavailable_at_any_hour(provider: Listener) -> None:
    provider.answers.put(no("STATEMENT_CREATING", "账单生成中"))
    with pytest.raises(Unavailable, match="no bill of 2026-11-23 yet"):
        list(WechatGateway().bookings(day=DAY))


# --- the connection and the settings -----------------------------------------------------------------


@pytest.mark.payment_case(47)
def test_late_answer_is_unavailable(wechat: RunningWechat, monkeypatch: pytest.MonkeyPatch) -> None:
    wechat.set_faults(delay_seconds=30)
    monkeypatch.setattr(adapter, "READ_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="ReadTimeout"):
        WechatGateway().open(CHARGE)


@pytest.mark.payment_case(47)
def test_all_that_a_call_asks_shares_its_time(provider: Listener, monkeypatch: pytest.MonkeyPatch) -> None:
    """A payment of many refunds takes no longer."""
    monkeypatch.setattr(adapter, "CALL_SECONDS", 0)
    provider.answers.put(signed(a_trade()))
    with pytest.raises(Unavailable, match="too slowly"):
        fetched()
    assert provider.rest() == []


@pytest.mark.payment_case(47)
def test_provider_that_is_down_is_unavailable(settings: Settings, provider: Listener) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed_soon:
        port = closed_soon.getsockname()[1]
    settings.WECHAT_URL = f"http://127.0.0.1:{port}"
    with pytest.raises(Unavailable, match="ConnectError"):
        WechatGateway().open(CHARGE)


NAMES = [
    "WECHAT_URL",
    "WECHAT_MERCHANT_ID",
    "WECHAT_APP_ID",
    "WECHAT_PRIVATE_KEY",
    "WECHAT_CERTIFICATE_SERIAL",
    "WECHAT_API_V3_KEY",
    "WECHAT_PUBLIC_KEY",
    "WECHAT_PUBLIC_KEY_ID",
]


@pytest.mark.parametrize("name", NAMES)
def test_missing_setting_is_named_and_nothing_is_asked(
    provider: Listener, settings: Settings, name: str
) -> None:
    setattr(settings, name, "")
    assert WechatGateway().missing() == [name]
    with pytest.raises(Unavailable, match=name):
        WechatGateway().open(CHARGE)
    assert provider.rest() == []


def bare(pem: str) -> str:
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("WECHAT_MERCHANT_ID", "my-shop"),
        ("WECHAT_MERCHANT_ID", "1900000001 "),
        ("WECHAT_APP_ID", "1900000001"),
        ("WECHAT_CERTIFICATE_SERIAL", "1D:DE:55"),
        ("WECHAT_API_V3_KEY", "a" * 31),
        ("WECHAT_API_V3_KEY", "ä" * 32),
        ("WECHAT_PUBLIC_KEY_ID", "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"),
        ("WECHAT_PRIVATE_KEY", "not a key"),
        ("WECHAT_PRIVATE_KEY", "QUFBQQ=="),
        ("WECHAT_PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----"),
        ("WECHAT_PRIVATE_KEY", "é"),
        ("WECHAT_PUBLIC_KEY", "not a key"),
        ("WECHAT_URL", "api.mch.weixin.qq.com"),
        ("WECHAT_URL", "https://api.mch.weixin.qq.com/?x=1"),
        ("WECHAT_URL", "https://api.mch.weixin.qq.com/"),
    ],
)
def test_setting_that_cannot_be_right_counts_as_missing(
    provider: Listener, settings: Settings, name: str, value: str
) -> None:
    setattr(settings, name, value)
    missing = WechatGateway().missing()
    assert name in missing
    assert set(missing) <= {name, "ALLOW_EMULATORS"}


def test_key_in_the_wrong_place_counts_as_missing(provider: Listener, settings: Settings) -> None:
    settings.WECHAT_PRIVATE_KEY = wechat_keys()[1]
    assert WechatGateway().missing() == ["WECHAT_PRIVATE_KEY"]
    settings.WECHAT_PRIVATE_KEY, settings.WECHAT_PUBLIC_KEY = merchant_keys()[0], wechat_keys()[0]
    assert WechatGateway().missing() == ["WECHAT_PUBLIC_KEY"]
    # That of our own certificate proves nothing of WeChat Pay.
    for ours in (merchant_keys()[1], bare(merchant_keys()[1])):
        settings.WECHAT_PUBLIC_KEY = ours
        assert WechatGateway().missing() == ["WECHAT_PUBLIC_KEY"]


def test_key_that_is_too_short_counts_as_missing(provider: Listener, settings: Settings) -> None:
    short = rsa.generate_private_key(public_exponent=65537, key_size=1024)
    settings.WECHAT_PRIVATE_KEY = short.private_bytes(
        Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()
    ).decode()
    assert WechatGateway().missing() == ["WECHAT_PRIVATE_KEY"]


def test_keys_may_be_bare_base64(wechat: RunningWechat, settings: Settings) -> None:
    settings.WECHAT_PRIVATE_KEY = bare(merchant_keys()[0])
    settings.WECHAT_PUBLIC_KEY = bare(wechat_keys()[1])
    assert WechatGateway().missing() == []
    paid(wechat)
    assert fetched().state == "captured"


def test_private_key_may_be_written_as_openssl_did(wechat: RunningWechat, settings: Settings) -> None:
    """The SDK takes PKCS #8 only."""
    key = load_pem_private_key(merchant_keys()[0].encode(), None)
    settings.WECHAT_PRIVATE_KEY = key.private_bytes(
        Encoding.PEM, PrivateFormat.TraditionalOpenSSL, NoEncryption()
    ).decode()
    WechatGateway().open(CHARGE)
    assert fetched().state == "pending"


def test_plain_http_is_refused_unless_emulators_are_allowed(provider: Listener, settings: Settings) -> None:
    settings.ALLOW_EMULATORS = False
    assert WechatGateway().missing() == ["ALLOW_EMULATORS"]
    with pytest.raises(Unavailable, match="ALLOW_EMULATORS"):
        WechatGateway().open(CHARGE)
    assert provider.rest() == []
    settings.WECHAT_URL = "https://api.mch.weixin.qq.com"
    assert WechatGateway().missing() == []


def test_page_of_an_emulator_is_none_where_emulators_are_not_allowed(settings: Settings) -> None:
    wechat_settings(settings, "https://emulator.example")
    assert adapter._is_pay_page("https://emulator.example/pay?a=b")
    settings.ALLOW_EMULATORS = False
    assert not adapter._is_pay_page("https://emulator.example/pay?a=b")
    assert adapter._is_pay_page("https://wx.tenpay.com/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=wx1")


@pytest.mark.payment_case(54)
def test_keys_are_never_logged_nor_told(
    wechat: RunningWechat, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        paid(wechat)
        give_back("R-1", 1000)
        fetched(returns=("R-1",))
        settings.WECHAT_MERCHANT_ID = "1900000002"
        with pytest.raises(CredentialsRefused) as problem:
            WechatGateway().open(CHARGE)
        settings.WECHAT_PRIVATE_KEY += "x"
        settings.WECHAT_API_V3_KEY += "x"
        with pytest.raises(Unavailable) as unset:
            WechatGateway().open(CHARGE)
    told = f"{caplog.text}{problem.value}{unset.value!r}{WechatGateway()!r}"
    assert urlsplit(settings.WECHAT_URL).netloc in told
    for secret in (*merchant_keys()[0].splitlines()[1:-1], WECHAT_API_V3_KEY, "signature=", "Authorization"):
        assert secret not in told
