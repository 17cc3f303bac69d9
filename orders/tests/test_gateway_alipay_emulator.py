"""What Alipay's emulator refuses, keeps and shows: it is to be as strict as the true one, or stricter."""

import base64
import json
import re
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from urllib.parse import parse_qsl, urlencode, urlsplit

import httpx
import pytest
import time_machine
from Cryptodome.Hash import SHA256
from Cryptodome.PublicKey import RSA
from Cryptodome.Signature import pkcs1_15
from pytest_django import Settings

from emulators.keys import new_keys, public_half
from inventory.money import Money
from orders.gateways.alipay import AlipayGateway
from orders.gateways.emulators.alipay import Outcome
from orders.gateways.emulators.running_alipay import RunningAlipay, running_alipay
from orders.gateways.protocol import Charge
from orders.tests.backstage_alipay import (
    ALIPAY_APP_ID,
    alipay_keys,
    configured_alipay,
    shop_keys,
)
from orders.tests.gateway_servers import Listener

NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)
COMMON = {
    "app_id": ALIPAY_APP_ID,
    "charset": "utf-8",
    "sign_type": "RSA2",
    "version": "1.0",
    # NOW, in Beijing.
    "timestamp": "2026-11-24 00:30:00",
}
PAGE = {
    "subject": "VIP, 30 days",
    "out_trade_no": "T_1",
    "total_amount": "49.90",
    "product_code": "FAST_INSTANT_TRADE_PAY",
    "time_expire": "2026-11-24 01:00:00",
}


@pytest.fixture
def alipay(settings: Settings, shop: Listener) -> Iterator[RunningAlipay]:
    with time_machine.travel(NOW, tick=False), configured_alipay(settings) as running:
        yield running


def signed(fields: Mapping[str, str], key: str = "") -> dict[str, str]:
    said = "&".join(f"{name}={value}" for name, value in sorted(fields.items()))
    sign = pkcs1_15.new(RSA.import_key(key or shop_keys()[0])).sign(SHA256.new(said.encode()))
    return {**fields, "sign": base64.b64encode(sign).decode()}


def a_request(method: str, asked: object, **changes: str) -> dict[str, str]:
    return {**COMMON, "method": method, "biz_content": json.dumps(asked), **changes}


def ask(alipay: RunningAlipay, fields: Mapping[str, str]) -> httpx.Response:
    return httpx.post(alipay.gateway_url, data=dict(fields), trust_env=False)


def said(alipay: RunningAlipay, method: str, asked: object) -> Any:
    """What it answers to the shop."""
    return ask(alipay, signed(a_request(method, asked))).json()[f"{method.replace('.', '_')}_response"]


def page_url(alipay: RunningAlipay, asked: Mapping[str, str] = PAGE, *, key: str = "", **changes: str) -> str:
    addresses = {"return_url": "http://127.0.0.1:8000/paid/", "notify_url": "http://127.0.0.1:8000/webhooks/"}
    fields = a_request("alipay.trade.page.pay", asked, **{**addresses, **changes})
    return f"{alipay.gateway_url}?{urlencode(signed(fields, key))}"


def trades(alipay: RunningAlipay) -> list[tuple[str, str]]:
    return [(trade["out_trade_no"], trade["status"]) for trade in alipay.books()["trades"]]


# --- who is answered ---------------------------------------------------------------------------------


def test_answer_is_signed_over_the_letters_of_what_it_says(alipay: RunningAlipay) -> None:
    alipay.arrive(page_url(alipay))
    text = ask(alipay, signed(a_request("alipay.trade.query", {"out_trade_no": "T_1"}))).text
    match = re.fullmatch(r'\{"alipay_trade_query_response":(\{.*\}),"sign":"([^"]+)"\}', text)
    assert match
    public = RSA.import_key(alipay_keys()[1])
    pkcs1_15.new(public).verify(SHA256.new(match[1].encode()), base64.b64decode(match[2]))
    assert json.loads(match[1])["trade_status"] == "WAIT_BUYER_PAY"


def test_request_signed_with_another_key_is_refused(alipay: RunningAlipay) -> None:
    fields = signed(a_request("alipay.trade.query", {"out_trade_no": "T_1"}), alipay_keys()[0])
    content = ask(alipay, fields).json()["alipay_trade_query_response"]
    assert (content["code"], content["sub_code"]) == ("40002", "isv.invalid-signature")


@pytest.mark.parametrize("name", ["biz_content", "timestamp", "version", "charset", "sign"])
def test_request_that_was_touched_is_refused(alipay: RunningAlipay, name: str) -> None:
    fields = signed(a_request("alipay.trade.query", {"out_trade_no": "T_1"}))
    fields[name] += " "
    content = ask(alipay, fields).json()["alipay_trade_query_response"]
    assert content["code"] == "40002"


@pytest.mark.parametrize(
    ("changes", "sub_code"),
    [
        ({"app_id": "2021000000000002"}, "isv.invalid-app-id"),
        ({"sign_type": "RSA"}, "isv.invalid-signature-type"),
        ({"charset": "gbk"}, "isv.invalid-signature-type"),
        ({"version": "2.0"}, "isv.invalid-parameter"),
        ({"biz_content": "{"}, "isv.invalid-parameter"),
        ({"biz_content": "[]"}, "isv.invalid-parameter"),
        # Case 24: the time of UTC, as a machine in London would send it.
        ({"timestamp": "2026-11-23 16:30:00"}, "isv.invalid-timestamp"),
        ({"timestamp": "2026-11-24 00:41:00"}, "isv.invalid-timestamp"),
        ({"timestamp": "2026-11-24T00:30:00+08:00"}, "isv.invalid-timestamp"),
    ],
)
def test_request_that_is_wrong_in_common_is_refused(
    alipay: RunningAlipay, changes: dict[str, str], sub_code: str
) -> None:
    fields = signed(a_request("alipay.trade.query", {"out_trade_no": "T_1"}, **changes))
    assert ask(alipay, fields).json()["alipay_trade_query_response"]["sub_code"] == sub_code


def test_unknown_application_gets_an_unsigned_answer(alipay: RunningAlipay) -> None:
    fields = signed(a_request("alipay.trade.query", {}, app_id="2021000000000002"))
    assert "sign" not in ask(alipay, fields).json()


def test_unknown_method_is_refused(alipay: RunningAlipay) -> None:
    answer = ask(alipay, signed(a_request("alipay.trade.steal", {}))).json()
    assert answer["error_response"]["sub_code"] == "isv.invalid-method"


def test_key_that_is_none_stops_the_emulator_from_starting() -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the library's words)
        running_alipay(app_id="1", seller_id="2", app_public_key="x", private_key="y").__enter__()


def test_books_and_faults_are_for_testers_only(alipay: RunningAlipay) -> None:
    for path in ("/_books", "/_faults"):
        assert httpx.get(alipay.url + path, trust_env=False).status_code == 401


def test_errors_happen_as_often_as_was_said_and_do_nothing(alipay: RunningAlipay) -> None:
    alipay.decide(page_url(alipay))
    alipay.set_faults(errors=1)
    asked = {"out_trade_no": "T_1", "refund_amount": "1.00", "out_request_no": "R_1"}
    fields = signed(a_request("alipay.trade.refund", asked))
    assert ask(alipay, fields).status_code == 500
    assert alipay.books()["refunds"] == []
    assert ask(alipay, fields).status_code == 200


def test_answer_is_lost_after_the_deed(alipay: RunningAlipay) -> None:
    alipay.decide(page_url(alipay))
    alipay.set_faults(lost_answers=1)
    asked = {"out_trade_no": "T_1", "refund_amount": "1.00", "out_request_no": "R_1"}
    with pytest.raises(httpx.HTTPError):
        ask(alipay, signed(a_request("alipay.trade.refund", asked)))
    assert [refund["out_request_no"] for refund in alipay.books()["refunds"]] == ["R_1"]


# --- the cashier -------------------------------------------------------------------------------------


def test_trade_begins_when_the_buyer_comes_and_not_before(alipay: RunningAlipay) -> None:
    url = page_url(alipay)
    assert said(alipay, "alipay.trade.query", {"out_trade_no": "T_1"})["sub_code"] == "ACQ.TRADE_NOT_EXIST"
    alipay.arrive(url)
    alipay.arrive(url)
    assert trades(alipay) == [("T_1", "WAIT_BUYER_PAY")]


@pytest.mark.payment_case(50)
def test_address_that_was_touched_or_signed_by_another_leads_nowhere(alipay: RunningAlipay) -> None:
    """A buyer who would rather pay less."""
    for url in (page_url(alipay).replace("49.90", "0.01"), page_url(alipay, key=alipay_keys()[0])):
        answer = alipay.decide(url)
        assert answer.status_code == 400
        assert "isv.invalid-signature" in answer.text
    assert trades(alipay) == []


def test_address_for_another_amount_of_the_same_trade_leads_nowhere(alipay: RunningAlipay) -> None:
    alipay.arrive(page_url(alipay))
    answer = alipay.decide(page_url(alipay, {**PAGE, "total_amount": "0.01"}))
    assert (answer.status_code, "CONTEXT_INCONSISTENT" in answer.text) == (400, True)
    assert [trade["minor"] for trade in alipay.books()["trades"]] == [4990]


def test_old_address_is_good_until_its_time_is_over(alipay: RunningAlipay) -> None:
    url = page_url(alipay)
    with time_machine.travel(NOW + timedelta(minutes=29), tick=False):
        assert alipay.arrive(url).status_code == 200
    with time_machine.travel(NOW + timedelta(minutes=30), tick=False):
        alipay.decide(url)
        assert trades(alipay) == [("T_1", "TRADE_CLOSED")]


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": ""},
        {"subject": "a/b"},
        {"subject": "V" * 257},
        {"out_trade_no": "T-1"},
        {"out_trade_no": "T" * 65},
        {"total_amount": "0.00"},
        {"total_amount": "49.9"},
        {"product_code": "QUICK_WAP_WAY"},
        {"time_expire": "30m"},
        {"time_expire": "2026-11-24 00:29:59"},
    ],
    ids=repr,
)
def test_page_with_something_alipay_would_not_take_is_refused(
    alipay: RunningAlipay, changes: dict[str, str]
) -> None:
    answer = alipay.decide(page_url(alipay, {**PAGE, **changes}))
    assert (answer.status_code, "ACQ.INVALID_PARAMETER" in answer.text) == (400, True)
    assert trades(alipay) == []


def test_page_without_a_way_back_is_refused(alipay: RunningAlipay) -> None:
    assert alipay.decide(page_url(alipay, return_url="javascript:alert(1)")).status_code == 400


def test_buyer_goes_back_to_the_shop_with_signed_words(alipay: RunningAlipay) -> None:
    answer = alipay.decide(page_url(alipay, return_url="http://127.0.0.1:8000/paid/?lang=zh"))
    location = answer.headers["location"]
    assert (answer.status_code, location.startswith("http://127.0.0.1:8000/paid/?lang=zh&")) == (303, True)
    fields = dict(parse_qsl(urlsplit(location).query))
    sign = base64.b64decode(fields.pop("sign"))
    del fields["sign_type"], fields["lang"]
    words = "&".join(f"{name}={value}" for name, value in sorted(fields.items()))
    pkcs1_15.new(RSA.import_key(alipay_keys()[1])).verify(SHA256.new(words.encode()), sign)
    assert (fields["out_trade_no"], fields["total_amount"]) == ("T_1", "49.90")


def test_cashier_shows_what_is_paid_for_in_the_buyers_language(alipay: RunningAlipay) -> None:
    url = page_url(alipay, {**PAGE, "subject": "<b>VIP</b>".replace("/", "")})
    answer = httpx.get(url, headers={"Accept-Language": "zh-CN"}, follow_redirects=True, trust_env=False)
    assert '<html lang="zh-hans">' in answer.text
    assert "&lt;b&gt;VIP" in answer.text
    assert "form-action 'self' http://127.0.0.1:8000" in answer.headers["content-security-policy"]


def test_cashier_says_what_became_of_the_trade(alipay: RunningAlipay) -> None:
    url = page_url(alipay)
    cashier = alipay.arrive(url).text
    assert "Pay now" in cashier
    # Case 24.
    assert "2026-11-24 01:00, Beijing" in cashier
    alipay.decide(url, Outcome.REFUSE_CARD)
    assert trades(alipay) == [("T_1", "WAIT_BUYER_PAY")]
    alipay.decide(url)
    assert "This payment has been paid." in alipay.arrive(url).text
    alipay.decide(url, Outcome.REFUND_HERE)
    assert "This payment has been refunded in full." in alipay.arrive(url).text


def test_refused_card_is_said_at_the_cashier(alipay: RunningAlipay) -> None:
    answer = alipay.decide(page_url(alipay), Outcome.REFUSE_CARD)
    assert "This card was refused." in httpx.get(answer.headers["location"], trust_env=False).text


def test_unknown_trade_has_a_page_of_its_own(alipay: RunningAlipay) -> None:
    answer = httpx.get(f"{alipay.url}/cashier/1", trust_env=False)
    assert (answer.status_code, "There is no such payment." in answer.text) == (404, True)
    assert httpx.post(f"{alipay.url}/cashier/1", data={"outcome": "pay"}, trust_env=False).status_code == 400


def test_outcome_that_is_none_or_does_not_fit_changes_nothing(alipay: RunningAlipay) -> None:
    url = page_url(alipay)
    cashier = alipay.arrive(url).url
    assert httpx.post(cashier, data={"outcome": "rob"}, trust_env=False).status_code == 400
    for outcome in (Outcome.FINISH, Outcome.REFUND_HERE, Outcome.DELAY_REFUNDS, Outcome.COMPLETE_REFUNDS):
        alipay.decide(url, outcome)
    assert trades(alipay) == [("T_1", "WAIT_BUYER_PAY")]
    alipay.decide(url)
    alipay.decide(url)
    alipay.decide(url, Outcome.TIME_OUT)
    assert trades(alipay) == [("T_1", "TRADE_SUCCESS")]


# --- codes -------------------------------------------------------------------------------------------

CODE = {name: value for name, value in PAGE.items() if name != "product_code"}
NOTIFY = {"notify_url": "http://127.0.0.1:8000/webhooks/"}


def precreated(alipay: RunningAlipay, **changes: str) -> Any:
    fields = signed(a_request("alipay.trade.precreate", {**CODE, **changes}, **NOTIFY))
    return ask(alipay, fields).json()["alipay_trade_precreate_response"]


def test_code_is_of_a_trade_that_begins_when_it_is_scanned(alipay: RunningAlipay) -> None:
    code = precreated(alipay)["qr_code"]
    assert precreated(alipay)["qr_code"] == code
    assert trades(alipay) == []
    alipay.arrive(code)
    alipay.arrive(code)
    assert trades(alipay) == [("T_1", "WAIT_BUYER_PAY")]
    assert precreated(alipay)["qr_code"] == code
    alipay.decide(code)
    assert trades(alipay) == [("T_1", "TRADE_SUCCESS")]
    assert precreated(alipay)["sub_code"] == "ACQ.TRADE_HAS_SUCCESS"


def test_code_of_another_key_is_not_given(alipay: RunningAlipay) -> None:
    fields = signed(a_request("alipay.trade.precreate", CODE, **NOTIFY), alipay_keys()[0])
    content = ask(alipay, fields).json()["alipay_trade_precreate_response"]
    assert (content["sub_code"], alipay.books()["codes"]) == ("isv.invalid-signature", [])


def test_code_for_another_amount_of_the_same_number_is_refused(alipay: RunningAlipay) -> None:
    precreated(alipay)
    assert precreated(alipay, total_amount="0.01")["sub_code"] == "ACQ.CONTEXT_INCONSISTENT"


@pytest.mark.parametrize(
    "changes",
    [
        {"subject": ""},
        {"subject": "a/b"},
        {"out_trade_no": "T-1"},
        {"total_amount": "0.00"},
        {"total_amount": "49.9"},
        {"time_expire": "30m"},
        {"time_expire": "2026-11-24 00:29:59"},
    ],
    ids=repr,
)
def test_code_for_something_alipay_would_not_take_is_refused(
    alipay: RunningAlipay, changes: dict[str, str]
) -> None:
    assert precreated(alipay, **changes)["sub_code"] == "ACQ.INVALID_PARAMETER"
    assert alipay.books()["codes"] == []


def test_code_is_of_no_use_when_its_time_is_over_or_its_trade_is_closed(alipay: RunningAlipay) -> None:
    code = precreated(alipay)["qr_code"]
    with time_machine.travel(NOW + timedelta(minutes=30), tick=False):
        assert alipay.decide(code).status_code == 400
    assert trades(alipay) == []
    alipay.decide(code, Outcome.TIME_OUT)
    alipay.decide(code)
    assert trades(alipay) == [("T_1", "TRADE_CLOSED")]
    assert precreated(alipay)["sub_code"] == "ACQ.TRADE_HAS_CLOSE"


def test_buyer_who_scanned_stays_on_his_phone(alipay: RunningAlipay) -> None:
    answer = alipay.decide(precreated(alipay)["qr_code"])
    assert answer.headers["location"].startswith(f"{alipay.url}/cashier/")
    cashier = httpx.get(answer.headers["location"], trust_env=False)
    assert "This payment has been paid." in cashier.text
    assert "Back to VMOS Cloud" not in cashier.text
    assert "form-action 'self'" in cashier.headers["content-security-policy"]


def test_phone_shows_the_codes_that_it_might_scan(alipay: RunningAlipay) -> None:
    phone = f"{alipay.url}/"
    assert "Nobody has begun to pay yet." in httpx.get(phone, trust_env=False).text
    code = precreated(alipay)["qr_code"]
    assert f'<a href="{code}">T_1</a>' in httpx.get(phone, trust_env=False).text
    alipay.decide(code)
    assert "<code>TRADE_SUCCESS</code>" in httpx.get(phone, trust_env=False).text


def test_code_that_is_none_has_a_page_of_its_own(alipay: RunningAlipay) -> None:
    answer = httpx.get(f"{alipay.url}/qr/bax1", trust_env=False)
    assert (answer.status_code, "There is no such payment." in answer.text) == (404, True)


# --- the books ---------------------------------------------------------------------------------------


def test_trades_survive_a_restart(settings: Settings, shop: Listener, tmp_path: Path) -> None:
    books = str(tmp_path / "books.sqlite3")
    charge = Charge(
        reference="T-1",
        amount=Money(4990, "CNY"),
        description="VIP, 30 days",
        return_url="http://127.0.0.1:8000/paid/",
        expires_at=datetime.now(UTC) + timedelta(minutes=30),
        language="en",
    )
    with configured_alipay(settings, books=books) as alipay:
        alipay.decide(AlipayGateway().open(charge).pay_url)
    with configured_alipay(settings, books=books) as alipay:
        assert trades(alipay) == [("T_1", "TRADE_SUCCESS")]


# --- refunds and closing -----------------------------------------------------------------------------


def refund(alipay: RunningAlipay, request_no: str, amount: str) -> Any:
    asked = {"out_trade_no": "T_1", "refund_amount": amount, "out_request_no": request_no}
    return said(alipay, "alipay.trade.refund", asked)


def test_refund_says_whether_money_has_moved_by_it(alipay: RunningAlipay) -> None:
    alipay.decide(page_url(alipay))
    first, again, second = (refund(alipay, number, "10.00") for number in ("R_1", "R_1", "R_2"))
    assert [content["fund_change"] for content in (first, again, second)] == ["Y", "N", "Y"]
    assert [content["refund_fee"] for content in (first, again, second)] == ["10.00", "10.00", "20.00"]


@pytest.mark.parametrize("amount", ["0.00", "49.91", "-1.00", "1", "x"])
def test_refund_of_an_amount_that_cannot_be_is_refused(alipay: RunningAlipay, amount: str) -> None:
    alipay.decide(page_url(alipay))
    assert refund(alipay, "R_1", amount)["code"] == "40004"
    assert alipay.books()["refunds"] == []


def test_refund_of_what_was_not_paid_is_refused(alipay: RunningAlipay) -> None:
    alipay.arrive(page_url(alipay))
    assert refund(alipay, "R_1", "10.00")["sub_code"] == "ACQ.TRADE_STATUS_ERROR"


def test_refund_that_waits_and_one_that_never_was_look_alike(alipay: RunningAlipay) -> None:
    alipay.decide(page_url(alipay))
    alipay.decide(page_url(alipay), Outcome.DELAY_REFUNDS)
    assert refund(alipay, "R_1", "10.00")["fund_change"] == "N"
    waiting, unknown = (
        said(
            alipay,
            "alipay.trade.fastpay.refund.query",
            {"out_trade_no": "T_1", "out_request_no": number, "query_options": ["gmt_refund_pay"]},
        )
        for number in ("R_1", "R_2")
    )
    assert waiting == unknown == {"code": "10000", "msg": "Success"}


def test_time_of_a_refund_is_told_to_those_who_ask_for_it(alipay: RunningAlipay) -> None:
    alipay.decide(page_url(alipay))
    refund(alipay, "R_1", "10.00")
    asked: dict[str, object] = {"out_trade_no": "T_1", "out_request_no": "R_1"}
    assert "gmt_refund_pay" not in said(alipay, "alipay.trade.fastpay.refund.query", asked)
    asked["query_options"] = ["gmt_refund_pay"]
    content = said(alipay, "alipay.trade.fastpay.refund.query", asked)
    assert content["gmt_refund_pay"] == "2026-11-24 00:30:00"


@pytest.mark.parametrize("outcome", [Outcome.PAY, Outcome.TIME_OUT])
def test_what_is_paid_or_closed_cannot_be_closed(alipay: RunningAlipay, outcome: Outcome) -> None:
    alipay.decide(page_url(alipay), outcome)
    before = trades(alipay)
    content = said(alipay, "alipay.trade.close", {"out_trade_no": "T_1"})
    assert content["sub_code"] == "ACQ.TRADE_STATUS_ERROR"
    assert trades(alipay) == before


# --- bills -------------------------------------------------------------------------------------------


def bill(alipay: RunningAlipay, day: str, kind: str = "trade") -> Any:
    # Whoever travels in time has the time of his request to change with it.
    at = (datetime.now(UTC) + timedelta(hours=8)).strftime("%Y-%m-%d %H:%M:%S")
    method = "alipay.data.dataservice.bill.downloadurl.query"
    fields = signed(a_request(method, {"bill_type": kind, "bill_date": day}, timestamp=at))
    return ask(alipay, fields).json()[f"{method.replace('.', '_')}_response"]


def test_bill_is_there_in_the_forenoon_after_for_half_a_minute(alipay: RunningAlipay) -> None:
    alipay.decide(page_url(alipay))
    with time_machine.travel(NOW + timedelta(hours=32), tick=False) as clock:
        assert bill(alipay, "2026-11-24")["sub_code"] == "isp.bill_not_exist"
        clock.shift(timedelta(hours=1))
        url = bill(alipay, "2026-11-24")["bill_download_url"]
        assert httpx.get(url, trust_env=False).content[:2] == b"PK"
        clock.shift(timedelta(seconds=31))
        assert httpx.get(url, trust_env=False).status_code == 404


@pytest.mark.parametrize(
    ("day", "kind", "sub_code"),
    [
        ("2026-11-24", "trade", "isv.invalid_arguments"),
        ("2026-11-25", "trade", "isv.invalid_arguments"),
        ("20261101", "signcustomer", "isv.invalid_arguments"),
        ("yesterday", "trade", "isv.invalid_arguments"),
        ("2026-11-01", "trade", "isp.bill_not_exist"),
    ],
)
def test_bill_of_no_day_that_is_over_is_refused(
    alipay: RunningAlipay, day: str, kind: str, sub_code: str
) -> None:
    assert bill(alipay, day, kind)["sub_code"] == sub_code


def test_bill_nobody_asked_for_is_not_there(alipay: RunningAlipay) -> None:
    assert httpx.get(f"{alipay.url}/downloadBillFile.resource?fileId=1", trust_env=False).status_code == 404


def test_new_keys_fit_each_other() -> None:
    private, public = new_keys()
    assert RSA.import_key(private).public_key() == RSA.import_key(public)
    assert public_half(private) == public
