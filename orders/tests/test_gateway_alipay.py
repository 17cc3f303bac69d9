"""Alipay's gateway against its emulator, against a provider that answers nonsense, and against bad settings."""

import base64
import gzip
import io
import json
import logging
import socket
import time
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta
from urllib.parse import parse_qs, parse_qsl, urlsplit

import pytest
import time_machine
from Cryptodome.PublicKey import RSA
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key
from pytest_django import Settings

from inventory.money import Money
from orders.gateways import alipay as adapter
from orders.gateways.alipay import AlipayGateway
from orders.gateways.emulators.alipay import Outcome
from orders.gateways.emulators.running_alipay import RunningAlipay
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
from orders.tests.backstage_alipay import alipay_keys, alipay_settings, configured_alipay, shop_keys
from orders.tests.gateway_servers import Answer, Listener, listening

TRADE_NO = "2026112322001400000000000001"
QUERY = "alipay_trade_query_response"
PRECREATE = "alipay_trade_precreate_response"
CHARGE = Charge(
    reference="VM-7F3K9Q-1",
    amount=Money(4990, "CNY"),
    description="VIP, 30 days",
    return_url="http://127.0.0.1:8000/orders/VM-1/paid/",
    expires_at=datetime.now(UTC) + timedelta(hours=1),
    language="en",
)


@pytest.fixture
def alipay(settings: Settings, shop: Listener) -> Iterator[RunningAlipay]:
    """Alipay, running, and settings that lead to it."""
    with configured_alipay(settings) as running:
        yield running


@pytest.fixture
def provider(settings: Settings) -> Iterator[Listener]:
    """A provider that answers whatever the test wants."""
    with listening() as listener:
        alipay_settings(settings, f"{listener.url}/gateway.do")
        yield listener


def a_trade(**changes: object) -> dict[str, object]:
    return {
        "code": "10000",
        "msg": "Success",
        "out_trade_no": "VM_7F3K9Q_1",
        "send_pay_date": "2026-11-23 16:00:00",
        "total_amount": "49.90",
        "trade_no": TRADE_NO,
        "trade_status": "TRADE_SUCCESS",
        **changes,
    }


def a_code(**changes: object) -> dict[str, object]:
    return {
        "code": "10000",
        "msg": "Success",
        "out_trade_no": "VM_7F3K9Q_1",
        "qr_code": "https://qr.alipay.com/bax03431ljhokirwl38f00a7",
        **changes,
    }


def a_refund(**changes: object) -> dict[str, object]:
    return {
        "code": "10000",
        "msg": "Success",
        "out_trade_no": "VM_7F3K9Q_1",
        "out_request_no": "VM_7F3K9Q_R1",
        "refund_amount": "10.00",
        "refund_status": "REFUND_SUCCESS",
        "gmt_refund_pay": "2026-11-24 00:30:00",
        "trade_no": TRADE_NO,
        **changes,
    }


def no(sub_code: str, sub_msg: str = "不行", *, code: str = "40004") -> dict[str, object]:
    return {"code": code, "msg": "Business Failed", "sub_code": sub_code, "sub_msg": sub_msg}


def signature_of(said: str, private_key: str) -> str:
    key = load_pem_private_key(private_key.encode(), None)
    assert isinstance(key, rsa.RSAPrivateKey)
    return base64.b64encode(key.sign(said.encode(), padding.PKCS1v15(), SHA256())).decode()


def signed(content: object, name: str = QUERY, *, key: str = "") -> Answer:
    """As Alipay would say it, or somebody with another key."""
    said = json.dumps(content, ensure_ascii=False)
    sign = signature_of(said, key or alipay_keys()[0])
    return Answer(body=f'{{"{name}":{said},"sign":"{sign}"}}'.encode())


def unsigned(content: object, name: str = QUERY) -> Answer:
    return Answer(body=json.dumps({name: content}).encode())


def fetched(*, returns: tuple[str, ...] = (), reference: str = CHARGE.reference) -> Snapshot:
    snapshot = AlipayGateway().fetch(reference=reference, provider_id=reference, returns=returns)
    assert snapshot
    return snapshot


def paid(alipay: RunningAlipay, charge: Charge = CHARGE) -> str:
    """The address of a payment that was opened and paid."""
    pay_url = AlipayGateway().open(charge).pay_url
    alipay.decide(pay_url)
    return pay_url


def give_back(reference: str, minor: int) -> None:
    AlipayGateway().give_back(Return(reference, CHARGE.reference, Money(minor, "CNY")))


# --- opening -----------------------------------------------------------------------------------------


def address(pay_url: str) -> tuple[dict[str, str], dict[str, str]]:
    """The fields of the address, and what it asks."""
    fields = dict(parse_qsl(urlsplit(pay_url).query, strict_parsing=True))
    return fields, json.loads(fields["biz_content"])


def test_computer_gets_a_code_and_the_page_for_computers(alipay: RunningAlipay, settings: Settings) -> None:
    with time_machine.travel(datetime(2026, 11, 23, 17, 30, tzinfo=UTC), tick=False):
        opened = AlipayGateway().open(
            replace(
                CHARGE, expires_at=datetime(2026, 11, 23, 18, 0, tzinfo=UTC), description="2 × VIP / A=B & C"
            )
        )
    assert opened.provider_id == CHARGE.reference
    (code,) = alipay.books()["codes"]
    assert opened.instructions == Instructions(qr=f"{alipay.url}/qr/{code['token']}")
    assert json.loads(code["trade"]) == {
        "out_trade_no": "VM_7F3K9Q_1",
        "product": "alipay.trade.precreate",
        "minor": 4990,
        "subject": "2 × VIP   A B   C",
        "passback_params": "",
        "return_url": "",
        "notify_url": f"{settings.SITE_URL}/webhooks/alipay/",
        "expires_at": "2026-11-23T18:00:00.000000+00:00",
    }
    assert opened.pay_url.startswith(f"{alipay.gateway_url}?")
    fields, asked = address(opened.pay_url)
    # Case 24: both times are Beijing's.
    assert fields["timestamp"] == "2026-11-24 01:30:00"
    assert asked == {
        "subject": "2 × VIP   A B   C",
        "out_trade_no": "VM_7F3K9Q_1",
        "total_amount": "49.90",
        "product_code": "FAST_INSTANT_TRADE_PAY",
        "passback_params": "VM-7F3K9Q-1",
        "time_expire": "2026-11-24 02:00:00",
    }
    assert fields["method"] == "alipay.trade.page.pay"
    assert fields["return_url"] == CHARGE.return_url
    assert fields["notify_url"] == f"{settings.SITE_URL}/webhooks/alipay/"


def test_phone_is_led_to_the_page_for_phones(alipay: RunningAlipay) -> None:
    opened = AlipayGateway().open(replace(CHARGE, is_phone=True))
    assert (opened.instructions, alipay.books()["codes"]) == (None, [])
    fields, asked = address(opened.pay_url)
    assert fields["method"] == "alipay.trade.wap.pay"
    assert (asked["product_code"], asked["quit_url"]) == ("QUICK_WAP_WAY", CHARGE.return_url)


@pytest.mark.parametrize("is_phone", [False, True])
def test_address_is_as_long_as_can_be_stored_at_most(
    settings: Settings, alipay: RunningAlipay, is_phone: bool
) -> None:
    settings.SITE_URL = "https://a-rather-long-name-of-a-shop.example.com"
    charge = replace(
        CHARGE,
        reference="V" * 32,
        description="云手机" * 14,
        return_url=f"{settings.SITE_URL}/zh-hant/orders/VM-7F3K9Q2X/paid/",
        is_phone=is_phone,
    )
    assert len(AlipayGateway().open(charge).pay_url) < 2000


def test_address_of_either_page_is_good_for_alipay(alipay: RunningAlipay) -> None:
    for reference, is_phone in (("T-1", False), ("T-2", True)):
        opened = AlipayGateway().open(replace(CHARGE, reference=reference, is_phone=is_phone))
        assert alipay.arrive(opened.pay_url).status_code == 200
    assert [(trade["out_trade_no"], trade["product"]) for trade in alipay.books()["trades"]] == [
        ("T_1", "alipay.trade.page.pay"),
        ("T_2", "alipay.trade.wap.pay"),
    ]


def test_code_that_is_scanned_pays_like_the_page(alipay: RunningAlipay, shop: Listener) -> None:
    opened = AlipayGateway().open(CHARGE)
    assert opened.instructions
    assert AlipayGateway().fetch(reference=CHARGE.reference, provider_id=opened.provider_id) is None
    alipay.arrive(opened.instructions.qr)
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="pending")
    alipay.decide(opened.instructions.qr)
    assert [capture.amount for capture in fetched().captures] == [CHARGE.amount]
    webhook = shop.next()
    event = AlipayGateway().read_webhook(headers=webhook.headers, body=webhook.body)
    assert event.attempt_reference == CHARGE.reference
    give_back("R-1", 1_000)
    assert [back.amount for back in fetched(returns=("R-1",)).refunds] == [Money(1_000, "CNY")]


@pytest.mark.payment_case(25, 26)
def test_code_and_page_are_one_trade_whichever_is_used_first(alipay: RunningAlipay) -> None:
    for reference, is_code_first in (("T-1", True), ("T-2", False)):
        opened = AlipayGateway().open(replace(CHARGE, reference=reference))
        assert opened.instructions
        ways = [opened.instructions.qr, opened.pay_url]
        first, second = ways if is_code_first else reversed(ways)
        alipay.arrive(first)
        alipay.decide(second)
        alipay.decide(first)
    assert [(trade["out_trade_no"], trade["status"]) for trade in alipay.books()["trades"]] == [
        ("T_1", "TRADE_SUCCESS"),
        ("T_2", "TRADE_SUCCESS"),
    ]


@pytest.mark.payment_case(27)
def test_opening_again_gives_the_same_code(alipay: RunningAlipay) -> None:
    first = AlipayGateway().open(CHARGE).instructions
    assert first
    alipay.arrive(first.qr)
    assert AlipayGateway().open(CHARGE).instructions == first


def test_opening_what_is_paid_asks_for_no_code(alipay: RunningAlipay) -> None:
    paid(alipay)
    assert AlipayGateway().open(CHARGE).instructions is None


@pytest.mark.parametrize(
    "refusal",
    [
        no("ACQ.ACCESS_FORBIDDEN", "无权限使用接口"),
        no("ACQ.PRODUCT_NOT_ALLOWED"),
        no("isv.insufficient-isv-permissions", "ISV权限不足", code="40006"),
    ],
    ids=lambda refusal: str(refusal["sub_code"]),
)
def test_seller_without_the_product_for_codes_has_the_page_alone(
    provider: Listener, refusal: dict[str, object]
) -> None:
    provider.answers.put(signed(no("ACQ.TRADE_NOT_EXIST")))
    provider.answers.put(signed(refusal, PRECREATE))
    opened = AlipayGateway().open(CHARGE)
    assert opened.instructions is None
    assert address(opened.pay_url)[0]["method"] == "alipay.trade.page.pay"


@pytest.mark.parametrize(
    ("answer", "raised"),
    [
        (no("ACQ.TOTAL_FEE_EXCEED", "订单金额超过限额"), Declined),
        (no("ACQ.TRADE_HAS_SUCCESS", "交易已被支付"), Unavailable),
        (no("ACQ.SYSTEM_ERROR"), Unavailable),
        (a_code(qr_code=None), Unavailable),
        (a_code(qr_code="https://qr.alipay.com.example.com/bax1"), Unavailable),
        (a_code(qr_code="http://qr.alipay.com/bax1"), Unavailable),
        (a_code(qr_code="https://qr.alipay.com@example.com/bax1"), Unavailable),
        (a_code(qr_code="javascript:alert(1)"), Unavailable),
        (a_code(out_trade_no="VM_OTHER_1"), Unavailable),
    ],
    ids=repr,
)
def test_code_that_is_refused_or_leads_elsewhere_opens_nothing(
    provider: Listener, answer: dict[str, object], raised: type[Exception]
) -> None:
    provider.answers.put(signed(no("ACQ.TRADE_NOT_EXIST")))
    provider.answers.put(signed(answer, PRECREATE))
    with pytest.raises(raised):
        AlipayGateway().open(CHARGE)


def test_code_of_alipays_own_host_is_shown(provider: Listener) -> None:
    provider.answers.put(signed(no("ACQ.TRADE_NOT_EXIST")))
    provider.answers.put(signed(a_code(), PRECREATE))
    assert AlipayGateway().open(CHARGE).instructions == Instructions(
        qr="https://qr.alipay.com/bax03431ljhokirwl38f00a7"
    )


@pytest.mark.payment_case(14, 16)
@pytest.mark.parametrize("amount", [Money(4990, "USD"), Money(4990, "HKD"), Money(4990, "JPY")], ids=str)
def test_other_currency_than_yuan_is_declined_and_nothing_is_asked(provider: Listener, amount: Money) -> None:
    """4990 yen are never 49.90 yuan."""
    with pytest.raises(Declined):
        AlipayGateway().open(replace(CHARGE, amount=amount))
    with pytest.raises(Declined):
        AlipayGateway().give_back(Return("R-1", CHARGE.reference, amount))
    assert provider.rest() == []


def test_before_the_buyer_comes_alipay_knows_of_no_payment(alipay: RunningAlipay) -> None:
    opened = AlipayGateway().open(CHARGE)
    assert AlipayGateway().fetch(reference=CHARGE.reference, provider_id=opened.provider_id) is None
    alipay.arrive(opened.pay_url)
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="pending")


@pytest.mark.payment_case(25)
def test_opened_twice_is_one_payment_whichever_address_is_used(alipay: RunningAlipay) -> None:
    first = AlipayGateway().open(CHARGE)
    alipay.arrive(first.pay_url)
    second = AlipayGateway().open(replace(CHARGE, is_phone=True, language="zh-hans"))
    alipay.decide(second.pay_url)
    alipay.decide(first.pay_url)
    assert len(alipay.books()["trades"]) == 1
    assert [capture.amount for capture in fetched().captures] == [CHARGE.amount]


@pytest.mark.payment_case(17)
def test_opening_again_for_another_amount_is_declined(alipay: RunningAlipay) -> None:
    alipay.arrive(AlipayGateway().open(CHARGE).pay_url)
    with pytest.raises(Declined, match="another amount"):
        AlipayGateway().open(replace(CHARGE, amount=Money(9980, "CNY")))


def test_opening_what_alipay_has_closed_is_declined(alipay: RunningAlipay) -> None:
    alipay.decide(AlipayGateway().open(CHARGE).pay_url, Outcome.TIME_OUT)
    with pytest.raises(Declined, match="closed"):
        AlipayGateway().open(CHARGE)


@pytest.mark.payment_case(27)
def test_lost_answer_to_opening_leaves_nothing_behind(alipay: RunningAlipay) -> None:
    alipay.set_faults(lost_answers=1)
    with pytest.raises(Unavailable):
        AlipayGateway().open(CHARGE)
    assert alipay.books()["trades"] == []
    paid(alipay)
    assert len(alipay.books()["trades"]) == 1


# --- what became of it -------------------------------------------------------------------------------


@pytest.mark.payment_case(24)
def test_trade_is_read_to_the_fen_and_at_beijings_time(provider: Listener) -> None:
    """Half past midnight in Beijing is the day before in UTC."""
    provider.answers.put(signed(a_trade(total_amount="49.91", send_pay_date="2026-11-24 00:30:05")))
    assert fetched() == Snapshot(
        provider_id=CHARGE.reference,
        state="captured",
        captures=(MoneyMoved(TRADE_NO, Money(4991, "CNY"), datetime(2026, 11, 23, 16, 30, 5, tzinfo=UTC)),),
    )


@pytest.mark.payment_case(24)
def test_request_has_the_time_of_beijing_whatever_the_zone_of_this_machine(
    provider: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    provider.answers.put(signed(a_trade()))
    try:
        with monkeypatch.context() as elsewhere:
            elsewhere.setenv("TZ", "America/New_York")
            time.tzset()
            with time_machine.travel(datetime(2026, 11, 23, 8, 0, tzinfo=UTC), tick=False):
                fetched()
    finally:
        time.tzset()
    assert parse_qs(urlsplit(provider.next().path).query)["timestamp"] == ["2026-11-23 16:00:00"]


@pytest.mark.payment_case(14)
def test_amount_in_another_currency_is_stated_as_such(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(total_amount="4990", trans_currency="JPY")))
    assert [capture.amount for capture in fetched().captures] == [Money(4990, "JPY")]


@pytest.mark.parametrize(
    ("status", "state"),
    [("WAIT_BUYER_PAY", "pending"), ("TRADE_SUCCESS", "captured"), ("TRADE_FINISHED", "captured")],
)
def test_state_of_a_trade(provider: Listener, status: str, state: str) -> None:
    provider.answers.put(signed(a_trade(trade_status=status)))
    snapshot = fetched()
    assert (snapshot.state, bool(snapshot.captures)) == (state, state == "captured")


@pytest.mark.parametrize("paid_at", [{}, {"send_pay_date": ""}])
def test_closed_trade_without_a_refund_was_not_paid(provider: Listener, paid_at: dict[str, str]) -> None:
    trade = {
        name: value for name, value in a_trade(trade_status="TRADE_CLOSED").items() if name != "send_pay_date"
    }
    provider.answers.put(signed({**trade, **paid_at}))
    provider.answers.put(
        signed({"code": "10000", "msg": "Success"}, "alipay_trade_fastpay_refund_query_response")
    )
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="cancelled")


def test_closed_trade_with_a_time_of_payment_but_no_refund_books_nothing(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(trade_status="TRADE_CLOSED")))
    provider.answers.put(
        signed({"code": "10000", "msg": "Success"}, "alipay_trade_fastpay_refund_query_response")
    )
    snapshot = fetched()
    assert (snapshot.state, snapshot.captures, snapshot.refunds) == ("cancelled", (), ())
    assert "outside the shop" in snapshot.problem


@pytest.mark.parametrize(
    "changes",
    [
        {"out_trade_no": "VM_OTHER_1"},
        {"out_trade_no": None},
        {"trade_no": "../x"},
        {"trade_no": 5},
        {"trade_status": "PAID"},
        {"trade_status": None},
        {"total_amount": "49.901"},
        {"total_amount": "-49.90"},
        {"total_amount": "0.00"},
        {"total_amount": "1e3"},
        {"total_amount": "４９.９０"},
        {"trans_currency": "XXXX"},
        {"trans_currency": 5},
        {"send_pay_date": "yesterday"},
        {"send_pay_date": "2026-11-31 16:00:00"},
        {"send_pay_date": "2026-11-23T16:00:00Z"},
        {"send_pay_date": None},
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
        Answer(body=b"[]"),
        Answer(body=b"{}"),
        Answer(body=b"\xff"),
        Answer(body=b"[" * 100_000),
        Answer(body=b'{"alipay_trade_query_response": 5, "sign": "AAAA"}'),
        Answer(status=404),
        Answer(status=401),
        Answer(status=503),
        Answer(status=301, headers={"Location": "/elsewhere"}),
    ],
    ids=["empty", "HTML", "list", "object", "no UTF-8", "deep", "number", "404", "401", "503", "301"],
)
def test_answer_that_is_none_is_unavailable_and_asked_for_once(provider: Listener, answer: Answer) -> None:
    provider.answers.put(answer)
    with pytest.raises(Unavailable):
        fetched()
    assert [urlsplit(request.path).path for request in provider.rest()] == ["/gateway.do"]


@pytest.mark.payment_case(49)
def test_answer_signed_with_another_key_is_none(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(), key=shop_keys()[0]))
    with pytest.raises(Unavailable, match="another key"):
        fetched()


def test_answer_that_was_touched_is_none(provider: Listener) -> None:
    answer = signed(a_trade())
    provider.answers.put(replace(answer, body=answer.body.replace(b"49.90", b"49.91")))
    with pytest.raises(Unavailable, match="another key"):
        fetched()


@pytest.mark.parametrize("signature", ["", "?", "AAAA", "é", "A" * 344, "=" * 4])
def test_answer_with_a_signature_that_is_none_is_no_answer(provider: Listener, signature: str) -> None:
    body = json.dumps({QUERY: a_trade(), "sign": signature}).encode()
    provider.answers.put(Answer(body=body))
    with pytest.raises(Unavailable):
        fetched()


def test_unsigned_answer_is_none(provider: Listener) -> None:
    provider.answers.put(unsigned(a_trade()))
    with pytest.raises(Unavailable, match="not signed"):
        fetched()


def test_unsigned_no_is_no_answer_either(provider: Listener) -> None:
    provider.answers.put(unsigned(no("ACQ.TRADE_NOT_EXIST")))
    with pytest.raises(Unavailable, match="not signed"):
        fetched()


def test_nothing_beside_what_was_signed_is_read(provider: Listener) -> None:
    """A second answer of the same name, where another reader might look."""
    said = json.dumps(a_trade(trade_status="WAIT_BUYER_PAY"))
    sign = signature_of(said, alipay_keys()[0])
    body = f'{{"{QUERY}":{said},"sign":"{sign}","{QUERY}":{json.dumps(a_trade())}}}'
    provider.answers.put(Answer(body=body.encode()))
    assert fetched().state == "pending"


def test_braces_and_escapes_in_an_answer_are_signed_as_they_are_written(provider: Listener) -> None:
    said = json.dumps(a_trade(subject="} { \\ ")).replace("/", "\\/").replace("Success", "Succ\\u0065ss")
    sign = signature_of(said, alipay_keys()[0])
    provider.answers.put(Answer(body=f'{{"sign":"{sign}", "{QUERY}" : {said}}}'.encode()))
    assert fetched().state == "captured"


def test_answer_of_more_than_a_megabyte_is_unavailable(provider: Listener) -> None:
    answer = signed(a_trade())
    provider.answers.put(replace(answer, body=answer.body + b" " * 1_000_000))
    with pytest.raises(Unavailable, match="too much"):
        fetched()


def test_compressed_answer_is_not_unpacked(provider: Listener) -> None:
    body = gzip.compress(signed(a_trade()).body)
    provider.answers.put(Answer(body=body, headers={"Content-Encoding": "gzip"}))
    with pytest.raises(Unavailable):
        fetched()
    assert provider.next().headers["accept-encoding"] == "identity"


@pytest.mark.payment_case(48)
@pytest.mark.parametrize(
    "answer",
    [
        unsigned(no("isv.invalid-app-id", code="40002")),
        unsigned(no("isv.invalid-signature", code="40002"), "error_response"),
        unsigned(no("isv.insufficient-isv-permissions", code="40006")),
        unsigned(no("aop.invalid-auth-token", code="20001")),
    ],
    ids=["app", "signature", "permission", "token"],
)
def test_refused_credentials_are_known_as_such(provider: Listener, answer: Answer) -> None:
    provider.answers.put(answer)
    with pytest.raises(CredentialsRefused, match=r"^Alipay refuses our credentials: "):
        fetched()


@pytest.mark.parametrize(
    ("sub_code", "code"),
    [
        ("ACQ.SYSTEM_ERROR", "40004"),
        ("AQC.SYSTEM_ERROR", "40004"),
        ("aop.ACQ.SYSTEM_ERROR", "40004"),
        ("isp.unknow-error", "20000"),
        ("", "20000"),
        ("app-call-limited", "40005"),
    ],
)
def test_trouble_at_alipay_decides_nothing(provider: Listener, sub_code: str, code: str) -> None:
    provider.answers.put(signed(no(sub_code, code=code)))
    with pytest.raises(Unavailable):
        AlipayGateway().open(CHARGE)


def test_refusal_says_alipays_reason_without_what_could_not_be_stored(provider: Listener) -> None:
    provider.answers.put(signed(no("ACQ.INVALID_PARAMETER", "参数\x00无效\n")))
    with pytest.raises(Declined, match=r"^Alipay refused: 参数无效 \(ACQ\.INVALID_PARAMETER\)$"):
        AlipayGateway().open(CHARGE)


@pytest.mark.payment_case(52)
def test_refused_card_leaves_the_payment_open(alipay: RunningAlipay) -> None:
    opened = AlipayGateway().open(CHARGE)
    alipay.decide(opened.pay_url, Outcome.REFUSE_CARD)
    assert fetched().state == "pending"
    alipay.decide(opened.pay_url)
    assert fetched().state == "captured"


def test_payment_that_is_overdue_is_closed_and_cannot_be_paid(alipay: RunningAlipay) -> None:
    opened = AlipayGateway().open(CHARGE)
    alipay.arrive(opened.pay_url)
    # Alipay is in this process and goes by the same clock.
    with time_machine.travel(CHARGE.expires_at):
        alipay.decide(opened.pay_url)
        assert fetched() == Snapshot(provider_id=CHARGE.reference, state="cancelled")


@pytest.mark.payment_case(21)
def test_address_is_of_no_use_when_its_time_is_over(alipay: RunningAlipay) -> None:
    """Nobody has come, so nothing could be closed; the address itself says until when."""
    opened = AlipayGateway().open(CHARGE)
    with time_machine.travel(CHARGE.expires_at):
        assert alipay.decide(opened.pay_url).status_code == 400
        assert AlipayGateway().fetch(reference=CHARGE.reference, provider_id=CHARGE.reference) is None


@pytest.mark.payment_case(18)
def test_captured_at_the_time_of_paying_not_of_asking(alipay: RunningAlipay) -> None:
    paid_at = datetime(2026, 11, 23, 15, 59, 59, tzinfo=UTC)
    with time_machine.travel(paid_at, tick=False):
        paid(alipay, replace(CHARGE, expires_at=paid_at + timedelta(seconds=1)))
    with time_machine.travel(paid_at + timedelta(minutes=10)):
        assert [capture.at for capture in fetched().captures] == [paid_at]


def test_finished_payment_is_captured(alipay: RunningAlipay) -> None:
    alipay.decide(paid(alipay), Outcome.FINISH)
    assert fetched().state == "captured"
    with pytest.raises(Declined):
        give_back("R-1", 100)


# --- closing -----------------------------------------------------------------------------------------


@pytest.mark.payment_case(53)
def test_closing_before_the_buyer_comes_is_declined_and_he_may_still_pay(alipay: RunningAlipay) -> None:
    """What Alipay says then decides."""
    opened = AlipayGateway().open(CHARGE)
    with pytest.raises(Declined, match="has not come"):
        AlipayGateway().close(provider_id=opened.provider_id)
    alipay.decide(opened.pay_url)
    assert fetched().state == "captured"


def test_closed_payment_is_cancelled_and_cannot_be_paid(alipay: RunningAlipay) -> None:
    opened = AlipayGateway().open(CHARGE)
    alipay.arrive(opened.pay_url)
    AlipayGateway().close(provider_id=opened.provider_id)
    AlipayGateway().close(provider_id=opened.provider_id)
    alipay.decide(opened.pay_url)
    assert fetched() == Snapshot(provider_id=CHARGE.reference, state="cancelled")


@pytest.mark.payment_case(53)
@pytest.mark.parametrize("status", ["TRADE_SUCCESS", "TRADE_FINISHED"])
def test_closing_is_not_even_asked_for_when_it_is_paid(provider: Listener, status: str) -> None:
    provider.answers.put(signed(a_trade(trade_status=status)))
    with pytest.raises(Declined, match="has been paid"):
        AlipayGateway().close(provider_id=CHARGE.reference)
    (request,) = provider.rest()
    assert parse_qs(urlsplit(request.path).query)["method"] == ["alipay.trade.query"]


def test_closing_that_alipay_refuses_is_declined(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(trade_status="WAIT_BUYER_PAY")))
    provider.answers.put(signed(no("ACQ.TRADE_STATUS_ERROR"), "alipay_trade_close_response"))
    with pytest.raises(Declined, match="TRADE_STATUS_ERROR"):
        AlipayGateway().close(provider_id=CHARGE.reference)


def test_another_payments_closing_is_no_answer(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(trade_status="WAIT_BUYER_PAY")))
    provider.answers.put(
        signed({"code": "10000", "out_trade_no": "VM_OTHER_1"}, "alipay_trade_close_response")
    )
    with pytest.raises(Unavailable):
        AlipayGateway().close(provider_id=CHARGE.reference)


# --- refunds -----------------------------------------------------------------------------------------


@pytest.mark.payment_case(40)
def test_refunds_are_those_that_were_asked_for(alipay: RunningAlipay) -> None:
    """Two thirds, one after the other."""
    paid(alipay)
    give_back("R-1", 3000)
    give_back("R-2", 1000)
    snapshot = fetched(returns=("R-1", "R-2", "R-3"))
    (capture,) = snapshot.captures
    assert [(refund.transaction_id, refund.amount, refund.reference) for refund in snapshot.refunds] == [
        (f"{capture.transaction_id}-R_1", Money(3000, "CNY"), "R-1"),
        (f"{capture.transaction_id}-R_2", Money(1000, "CNY"), "R-2"),
    ]
    assert (snapshot.state, snapshot.problem) == ("captured", "")


@pytest.mark.payment_case(24)
def test_refund_is_read_to_the_fen_and_at_beijings_time(provider: Listener) -> None:
    provider.answers.put(signed(a_trade()))
    provider.answers.put(signed(a_refund(), "alipay_trade_fastpay_refund_query_response"))
    assert fetched(returns=("VM-7F3K9Q-R1",)).refunds == (
        MoneyMoved(
            f"{TRADE_NO}-VM_7F3K9Q_R1",
            Money(1000, "CNY"),
            datetime(2026, 11, 23, 16, 30, tzinfo=UTC),
            "VM-7F3K9Q-R1",
        ),
    )
    _trade, refund = provider.rest()
    assert json.loads(parse_qs(refund.body.decode())["biz_content"][0]) == {
        "out_trade_no": "VM_7F3K9Q_1",
        "out_request_no": "VM_7F3K9Q_R1",
        "query_options": ["gmt_refund_pay"],
    }


def test_refund_whose_time_alipay_leaves_out_has_that_of_our_first_sight(provider: Listener) -> None:
    refund = {name: value for name, value in a_refund().items() if name != "gmt_refund_pay"}
    now = datetime(2026, 11, 24, 9, 0, tzinfo=UTC)
    with time_machine.travel(now, tick=False):
        provider.answers.put(signed(a_trade()))
        provider.answers.put(signed(refund, "alipay_trade_fastpay_refund_query_response"))
        assert [back.at for back in fetched(returns=("VM-7F3K9Q-R1",)).refunds] == [now]


@pytest.mark.parametrize(
    "changes",
    [
        {"out_request_no": "VM_7F3K9Q_R2"},
        {"out_trade_no": "VM_OTHER_1"},
        {"trade_no": "2026112322001400000000000002"},
        {"refund_amount": "10.001"},
        {"refund_amount": "0.00"},
        {"refund_amount": "49.91"},
        {"gmt_refund_pay": "soon"},
    ],
    ids=repr,
)
def test_refund_that_makes_no_sense_is_unavailable(provider: Listener, changes: dict[str, object]) -> None:
    provider.answers.put(signed(a_trade()))
    provider.answers.put(signed(a_refund(**changes), "alipay_trade_fastpay_refund_query_response"))
    with pytest.raises(Unavailable):
        fetched(returns=("VM-7F3K9Q-R1",))


@pytest.mark.parametrize("reference", ["", "../x", "R_1", "R" * 33, 'R"1'])
def test_refund_that_cannot_be_ours_is_not_asked_for(provider: Listener, reference: str) -> None:
    provider.answers.put(signed(a_trade()))
    assert fetched(returns=(reference,)).refunds == ()
    assert len(provider.rest()) == 1


@pytest.mark.payment_case(39)
def test_refund_asked_for_twice_is_one(alipay: RunningAlipay) -> None:
    paid(alipay)
    give_back("R-1", 3000)
    give_back("R-1", 3000)
    assert [refund.amount for refund in fetched(returns=("R-1", "R-1")).refunds] == [Money(3000, "CNY")]
    assert len(alipay.books()["refunds"]) == 1


def test_refund_asked_for_again_with_another_amount_is_declined(alipay: RunningAlipay) -> None:
    paid(alipay)
    give_back("R-1", 3000)
    with pytest.raises(Declined, match="DISCORDANT"):
        give_back("R-1", 3001)


@pytest.mark.payment_case(40)
def test_refunds_never_exceed_the_capture(alipay: RunningAlipay) -> None:
    """30.00 and 30.00 of 49.90."""
    paid(alipay)
    give_back("R-1", 3000)
    with pytest.raises(Declined, match="REFUND_FEE"):
        give_back("R-2", 3000)
    assert [refund.reference for refund in fetched(returns=("R-1", "R-2")).refunds] == ["R-1"]


@pytest.mark.payment_case(41)
def test_refund_that_waits_is_in_no_list_until_it_is_made(alipay: RunningAlipay) -> None:
    pay_url = paid(alipay)
    alipay.decide(pay_url, Outcome.DELAY_REFUNDS)
    give_back("R-1", 1000)
    waiting = fetched(returns=("R-1",))
    assert (waiting.state, waiting.refunds, waiting.refused_returns) == ("captured", (), ())
    # What waits is reserved.
    with pytest.raises(Declined):
        give_back("R-2", 4000)
    alipay.decide(pay_url, Outcome.COMPLETE_REFUNDS)
    assert [refund.reference for refund in fetched(returns=("R-1",)).refunds] == ["R-1"]


@pytest.mark.payment_case(41)
def test_refund_that_failed_may_be_asked_for_again_by_the_same_reference(alipay: RunningAlipay) -> None:
    pay_url = paid(alipay)
    alipay.decide(pay_url, Outcome.DELAY_REFUNDS)
    give_back("R-1", 1000)
    alipay.decide(pay_url, Outcome.FAIL_REFUNDS)
    assert fetched(returns=("R-1",)).refunds == ()
    give_back("R-1", 1000)
    assert [refund.amount for refund in fetched(returns=("R-1",)).refunds] == [Money(1000, "CNY")]


def test_refund_out_of_an_empty_account_is_declined(alipay: RunningAlipay) -> None:
    alipay.decide(paid(alipay), Outcome.EMPTY_ACCOUNT)
    with pytest.raises(Declined, match="SELLER_BALANCE_NOT_ENOUGH"):
        give_back("R-1", 1000)
    assert fetched(returns=("R-1",)).refunds == ()


def test_full_refund_closes_the_trade_and_it_stays_captured(alipay: RunningAlipay) -> None:
    paid(alipay)
    give_back("R-1", 4990)
    snapshot = fetched(returns=("R-1",))
    assert (snapshot.state, snapshot.problem) == ("captured", "")
    assert [capture.amount for capture in snapshot.captures] == [Money(4990, "CNY")]
    assert [refund.amount for refund in snapshot.refunds] == [Money(4990, "CNY")]
    assert alipay.books()["trades"][0]["status"] == "TRADE_CLOSED"


@pytest.mark.payment_case(42)
def test_full_refund_at_alipays_desk_appears_as_external(alipay: RunningAlipay) -> None:
    alipay.decide(paid(alipay), Outcome.REFUND_HERE)
    snapshot = fetched()
    (capture,) = snapshot.captures
    assert [(refund.transaction_id, refund.amount, refund.reference) for refund in snapshot.refunds] == [
        (f"{capture.transaction_id}-VM_7F3K9Q_1", Money(4990, "CNY"), "")
    ]


@pytest.mark.payment_case(42)
def test_rest_refunded_at_alipays_desk_appears_as_external(alipay: RunningAlipay) -> None:
    pay_url = paid(alipay)
    give_back("R-1", 1000)
    alipay.decide(pay_url, Outcome.REFUND_HERE)
    assert [(refund.amount.minor, refund.reference) for refund in fetched(returns=("R-1",)).refunds] == [
        (1000, "R-1"),
        (3990, ""),
    ]


@pytest.mark.payment_case(42)
def test_rest_refunded_by_an_unknown_number_is_a_problem_that_is_shown(provider: Listener) -> None:
    provider.answers.put(signed(a_trade(trade_status="TRADE_CLOSED")))
    for content in (a_refund(), {"code": "10000", "msg": "Success"}):
        provider.answers.put(signed(content, "alipay_trade_fastpay_refund_query_response"))
    snapshot = fetched(returns=("VM-7F3K9Q-R1",))
    assert (snapshot.state, len(snapshot.captures), len(snapshot.refunds)) == ("captured", 1, 1)
    assert snapshot.problem == "Alipay has given back all of it, 39.90 CNY outside the shop."


def test_another_payments_refund_is_no_answer(provider: Listener) -> None:
    content = {"code": "10000", "fund_change": "Y", "out_trade_no": "VM_OTHER_1"}
    provider.answers.put(signed(content, "alipay_trade_refund_response"))
    with pytest.raises(Unavailable):
        give_back("R-1", 1000)


def test_trouble_while_refunding_is_unavailable(provider: Listener) -> None:
    provider.answers.put(signed(no("ACQ.SYSTEM_ERROR"), "alipay_trade_refund_response"))
    with pytest.raises(Unavailable):
        give_back("R-1", 1000)


# --- bills -------------------------------------------------------------------------------------------

DAY = date(2026, 11, 23)
AFTER_BOTH = datetime(2026, 11, 25, 4, 0, tzinfo=UTC)


@pytest.mark.payment_case(24)
def test_bookings_of_a_day_of_utc_come_out_of_two_days_of_beijing(alipay: RunningAlipay) -> None:
    """2026-11-23 of UTC is from 8 o'clock in Beijing to 8 o'clock on the day after."""
    moments = {
        "T-BEFORE": datetime(2026, 11, 22, 23, 59, 59, tzinfo=UTC),
        "T-MORNING": datetime(2026, 11, 23, 0, 0, 0, tzinfo=UTC),
        "T-EVENING": datetime(2026, 11, 23, 23, 59, 59, tzinfo=UTC),
        "T-AFTER": datetime(2026, 11, 24, 0, 0, 0, tzinfo=UTC),
    }
    for reference, at in moments.items():
        with time_machine.travel(at, tick=False):
            paid(alipay, replace(CHARGE, reference=reference, expires_at=at + timedelta(minutes=5)))
    refunded_at = datetime(2026, 11, 23, 18, 0, 0, tzinfo=UTC)
    with time_machine.travel(refunded_at, tick=False):
        AlipayGateway().give_back(Return("R-1", "T-BEFORE", Money(1000, "CNY")))
    numbers = {trade["out_trade_no"]: trade["trade_no"] for trade in alipay.books()["trades"]}
    with time_machine.travel(AFTER_BOTH):
        booked = list(AlipayGateway().bookings(day=DAY))
    assert sorted(booked, key=lambda booking: booking.at) == [
        Booking("capture", numbers["T_MORNING"], Money(4990, "CNY"), moments["T-MORNING"], "T-MORNING"),
        Booking("refund", f"{numbers['T_BEFORE']}-R_1", Money(1000, "CNY"), refunded_at, "T-BEFORE"),
        Booking("capture", numbers["T_EVENING"], Money(4990, "CNY"), moments["T-EVENING"], "T-EVENING"),
    ]


@pytest.mark.payment_case(42)
def test_bookings_and_snapshot_call_a_movement_the_same(alipay: RunningAlipay) -> None:
    """A refund at the desk is in the bill, too."""
    with time_machine.travel(datetime(2026, 11, 23, 9, 0, tzinfo=UTC), tick=False):
        charge = replace(CHARGE, expires_at=datetime(2026, 11, 23, 10, 0, tzinfo=UTC))
        pay_url = paid(alipay, charge)
        give_back("R-1", 1000)
        alipay.decide(pay_url, Outcome.REFUND_HERE)
        snapshot = fetched(returns=("R-1",))
    with time_machine.travel(AFTER_BOTH):
        booked = {booking.transaction_id for booking in AlipayGateway().bookings(day=DAY)}
    assert booked == {moved.transaction_id for moved in (*snapshot.captures, *snapshot.refunds)}


@pytest.mark.parametrize(
    "now",
    [
        # Not over in Beijing; over, but not billed: the second of the two days.
        datetime(2026, 11, 24, 15, 59, tzinfo=UTC),
        datetime(2026, 11, 24, 16, 1, tzinfo=UTC),
        datetime(2026, 11, 25, 3, 59, tzinfo=UTC),
    ],
    ids=str,
)
def test_bookings_are_unavailable_before_both_bills_can_be_there(
    alipay: RunningAlipay, now: datetime
) -> None:
    with time_machine.travel(now, tick=False), pytest.raises(Unavailable, match="2026-11-24"):
        list(AlipayGateway().bookings(day=DAY))


def test_day_on_which_nothing_happened_has_no_bookings(alipay: RunningAlipay) -> None:
    with time_machine.travel(AFTER_BOTH, tick=False):
        assert list(AlipayGateway().bookings(day=DAY)) == []


def bill_at(url: object) -> Answer:
    name = "alipay_data_dataservice_bill_downloadurl_query_response"
    return signed({"code": "10000", "msg": "Success", "bill_download_url": url}, name)


@pytest.mark.payment_case(51)
@pytest.mark.parametrize(
    "url",
    [
        "{}:1/downloadBillFile.resource",
        "https://evil.example/bill.zip",
        "https://dwbillcenter.alipay.com.evil.example/bill.zip",
        "https://dwbillcenter.alipay.com@evil.example/bill.zip",
        "https://evil.example#dwbillcenter.alipay.com/",
        "https://dwbillcenter.alipay.com:8443/bill.zip",
        "ftp://dwbillcenter.alipay.com/bill.zip",
        "file:///etc/passwd",
        "//dwbillcenter.alipay.com/bill.zip",
        "http://[",
        "",
        None,
        5,
    ],
)
def test_bill_is_fetched_from_nowhere_but_its_own_host(provider: Listener, url: object) -> None:
    provider.answers.put(bill_at(url.format(provider.url) if isinstance(url, str) else url))
    with time_machine.travel(AFTER_BOTH, tick=False), pytest.raises(Unavailable, match="not its own"):
        list(AlipayGateway().bookings(day=DAY))
    assert [urlsplit(request.path).path for request in provider.rest()] == ["/gateway.do"]


def test_bill_of_the_true_host_is_fetched_by_https(settings: Settings) -> None:
    alipay_settings(settings, "https://openapi.alipay.com/gateway.do")
    settings.ALLOW_EMULATORS = False
    given = "http://dwbillcenter.alipay.com/downloadBillFile.resource?bizType=trade&fileId=%2F1"
    assert adapter._bill_address(given) == given.replace("http:", "https:")
    with pytest.raises(Unavailable):
        adapter._bill_address("http://openapi.alipay.com/bill.zip")


def a_bill(*rows: str, name: str = "1_20261123_业务明细.csv", header: str = "") -> bytes:
    archive = io.BytesIO()
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as files:
        header = header or "支付宝交易号,商户订单号,业务类型,完成时间,订单金额（元）,退款批次号/请求号"
        files.writestr(name, "\r\n".join(["#支付宝业务明细查询", header, *rows, "#完"]).encode("gbk"))
        files.writestr("1_20261123_业务明细(汇总).csv", "#支付宝业务汇总查询".encode("gbk"))
    return archive.getvalue()


def bookings_of(provider: Listener, archive: bytes) -> list[Booking]:
    """Of a day whose first bill is `archive`, and that has no second."""
    provider.answers.put(bill_at(f"{provider.url}/downloadBillFile.resource?fileId=1"))
    provider.answers.put(Answer(body=archive))
    name = "alipay_data_dataservice_bill_downloadurl_query_response"
    provider.answers.put(signed(no("isp.bill_not_exist", "账单不存在"), name))
    with time_machine.travel(AFTER_BOTH, tick=False):
        return list(AlipayGateway().bookings(day=DAY))


LINE = f"{TRADE_NO}\t,VM_1_1\t,交易,2026-11-23 09:00:00,49.90,"


def test_bill_is_read_by_the_names_of_its_columns(provider: Listener) -> None:
    refund = f"{TRADE_NO}\t,VM_1_1\t,退款,2026-11-23 10:00:00,-10.00,DESK.7\t"
    other_shops = f"{TRADE_NO[:-1]}9\t,SHOP-9\t,交易,2026-11-23 11:00:00,1.00,"
    assert bookings_of(provider, a_bill(LINE, refund, other_shops)) == [
        Booking("capture", TRADE_NO, Money(4990, "CNY"), datetime(2026, 11, 23, 1, tzinfo=UTC), "VM-1-1"),
        Booking(
            "refund",
            f"{TRADE_NO}-DESK.7",
            Money(1000, "CNY"),
            datetime(2026, 11, 23, 2, tzinfo=UTC),
            "VM-1-1",
        ),
        Booking("capture", f"{TRADE_NO[:-1]}9", Money(100, "CNY"), datetime(2026, 11, 23, 3, tzinfo=UTC), ""),
    ]


def test_refund_in_a_bill_without_a_number_has_the_trades(provider: Listener) -> None:
    (booked,) = bookings_of(provider, a_bill(f"{TRADE_NO},VM_1_1,退款,2026-11-23 10:00:00,-10.00,"))
    assert booked.transaction_id == f"{TRADE_NO}-VM_1_1"


@pytest.mark.parametrize(
    "archive",
    [
        b"",
        b"no zip",
        a_bill(LINE)[:-10],
        a_bill(LINE, name="else.csv"),
        a_bill(LINE, header="a,b"),
        a_bill(LINE.replace("交易", "充值")),
        a_bill(LINE.replace("49.90", "49.901")),
        a_bill(LINE.replace("49.90", "-49.90")),
        a_bill(LINE.replace("09:00:00", "25:00:00")),
        a_bill(LINE.replace(TRADE_NO, "../x")),
        a_bill(f"{TRADE_NO},VM_1_1"),
        a_bill('"' + LINE),
    ],
    ids=[
        "empty",
        "no zip",
        "cut",
        "other name",
        "columns",
        "kind",
        "digits",
        "minus",
        "time",
        "number",
        "short",
        "quote",
    ],
)
def test_bill_that_makes_no_sense_is_unavailable(provider: Listener, archive: bytes) -> None:
    with pytest.raises(Unavailable):
        bookings_of(provider, archive)


def test_bill_that_unpacks_to_too_much_is_unavailable(
    provider: Listener, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(adapter, "BILL_BYTES", 10_000)
    archive = a_bill(LINE, "#" + " " * 100_000)
    assert len(archive) < 10_000
    with pytest.raises(Unavailable, match="too long"):
        bookings_of(provider, archive)


# --- the connection and the settings -----------------------------------------------------------------


@pytest.mark.payment_case(47)
def test_late_answer_is_unavailable(alipay: RunningAlipay, monkeypatch: pytest.MonkeyPatch) -> None:
    alipay.set_faults(delay_seconds=30)
    monkeypatch.setattr(adapter, "READ_SECONDS", 0.2)
    with pytest.raises(Unavailable, match="ReadTimeout"):
        AlipayGateway().open(CHARGE)


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
    settings.ALIPAY_URL = f"http://127.0.0.1:{port}/gateway.do"
    with pytest.raises(Unavailable, match="ConnectError"):
        AlipayGateway().open(CHARGE)


@pytest.mark.parametrize(
    "name", ["ALIPAY_URL", "ALIPAY_APP_ID", "ALIPAY_SELLER_ID", "ALIPAY_PRIVATE_KEY", "ALIPAY_PUBLIC_KEY"]
)
def test_missing_setting_is_named_and_nothing_is_asked(
    provider: Listener, settings: Settings, name: str
) -> None:
    setattr(settings, name, "")
    assert AlipayGateway().missing() == [name]
    with pytest.raises(Unavailable, match=name):
        AlipayGateway().open(CHARGE)
    assert provider.rest() == []


def bare(pem: str) -> str:
    return "".join(line for line in pem.splitlines() if not line.startswith("-----"))


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("ALIPAY_APP_ID", "my-app"),
        ("ALIPAY_SELLER_ID", "seller@example.com"),
        ("ALIPAY_PRIVATE_KEY", "not a key"),
        ("ALIPAY_PRIVATE_KEY", "QUFBQQ=="),
        ("ALIPAY_PRIVATE_KEY", "-----BEGIN PRIVATE KEY-----"),
        ("ALIPAY_PRIVATE_KEY", "é"),
        ("ALIPAY_URL", "openapi.alipay.com"),
        ("ALIPAY_URL", "https://openapi.alipay.com/gateway.do?x=1"),
    ],
)
def test_setting_that_cannot_be_right_counts_as_missing(
    provider: Listener, settings: Settings, name: str, value: str
) -> None:
    setattr(settings, name, value)
    missing = AlipayGateway().missing()
    assert name in missing
    assert set(missing) <= {name, "ALLOW_EMULATORS"}


def test_key_in_the_wrong_place_counts_as_missing(provider: Listener, settings: Settings) -> None:
    settings.ALIPAY_PRIVATE_KEY = alipay_keys()[1]
    assert AlipayGateway().missing() == ["ALIPAY_PRIVATE_KEY"]
    settings.ALIPAY_PRIVATE_KEY, settings.ALIPAY_PUBLIC_KEY = shop_keys()[0], alipay_keys()[0]
    assert AlipayGateway().missing() == ["ALIPAY_PUBLIC_KEY"]
    # Alipay's pages show our own public key, too.
    for ours in (shop_keys()[1], bare(shop_keys()[1])):
        settings.ALIPAY_PUBLIC_KEY = ours
        assert AlipayGateway().missing() == ["ALIPAY_PUBLIC_KEY"]


def test_key_that_is_too_short_counts_as_missing(provider: Listener, settings: Settings) -> None:
    settings.ALIPAY_PRIVATE_KEY = RSA.generate(1024).export_key().decode()
    assert AlipayGateway().missing() == ["ALIPAY_PRIVATE_KEY"]


def test_keys_may_be_bare_base64_as_alipays_tools_give_them(
    alipay: RunningAlipay, settings: Settings
) -> None:
    settings.ALIPAY_PRIVATE_KEY = bare(shop_keys()[0])
    settings.ALIPAY_PUBLIC_KEY = bare(alipay_keys()[1])
    assert AlipayGateway().missing() == []
    paid(alipay)
    assert fetched().state == "captured"


def test_plain_http_is_refused_unless_emulators_are_allowed(provider: Listener, settings: Settings) -> None:
    settings.ALLOW_EMULATORS = False
    assert AlipayGateway().missing() == ["ALLOW_EMULATORS"]
    with pytest.raises(Unavailable, match="ALLOW_EMULATORS"):
        AlipayGateway().open(CHARGE)
    assert provider.rest() == []
    settings.ALIPAY_URL = "https://openapi.alipay.com/gateway.do"
    assert AlipayGateway().missing() == []


@pytest.mark.payment_case(54)
def test_keys_are_never_logged_nor_told(
    alipay: RunningAlipay, settings: Settings, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        paid(alipay)
        give_back("R-1", 1000)
        fetched(returns=("R-1",))
        settings.ALIPAY_APP_ID = "2021000000000002"
        with pytest.raises(CredentialsRefused) as problem:
            AlipayGateway().open(CHARGE)
        settings.ALIPAY_PRIVATE_KEY += "x"
        with pytest.raises(Unavailable) as unset:
            AlipayGateway().open(CHARGE)
    told = f"{caplog.text}{problem.value}{unset.value!r}{AlipayGateway()!r}"
    assert "/gateway.do" in told
    for line in shop_keys()[0].splitlines()[1:-1]:
        assert line not in told
