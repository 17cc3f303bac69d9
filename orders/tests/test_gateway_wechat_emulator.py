"""What WeChat Pay's emulator refuses, keeps and shows: it is to be as strict as the true one, or stricter."""

import base64
import gzip
import hashlib
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
import time_machine
from cryptography.hazmat.primitives.asymmetric import padding, rsa
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.serialization import load_pem_private_key, load_pem_public_key
from pytest_django import Settings

from emulators.server import Listening
from emulators.together import Together
from orders.gateways.emulators.running_wechat import RunningWechat, running_wechat
from orders.gateways.emulators.wechat import Outcome, Wechat
from orders.tests.backstage_wechat import (
    WECHAT_API_V3_KEY,
    WECHAT_APP_ID,
    WECHAT_CERTIFICATE_SERIAL,
    WECHAT_MERCHANT_ID,
    WECHAT_PUBLIC_KEY_ID,
    configured_wechat,
    merchant_keys,
    wechat_keys,
)
from orders.tests.gateway_servers import Listener

NOW = datetime(2026, 11, 23, 16, 30, tzinfo=UTC)
ORDER = {
    "appid": WECHAT_APP_ID,
    "mchid": WECHAT_MERCHANT_ID,
    "description": "VIP, 30 days",
    "out_trade_no": "T-0001",
    "notify_url": "http://127.0.0.1:8000/webhooks/wechat/",
    # Half an hour after NOW.
    "time_expire": "2026-11-24T01:00:00+08:00",
    "amount": {"total": 4990, "currency": "CNY"},
}
SCENE = {"payer_client_ip": "192.0.2.1", "h5_info": {"type": "Wap"}}
NATIVE, H5 = "/v3/pay/transactions/native", "/v3/pay/transactions/h5"
QUERY = f"/v3/pay/transactions/out-trade-no/T-0001?mchid={WECHAT_MERCHANT_ID}"
REFUNDS = "/v3/refund/domestic/refunds"
CLOSE = "/v3/pay/transactions/out-trade-no/T-0001/close"


@pytest.fixture
def wechat(settings: Settings, shop: Listener) -> Iterator[RunningWechat]:
    with time_machine.travel(NOW, tick=False), configured_wechat(settings) as running:
        yield running


def authorization(
    method: str, path: str, body: str, *, key: str = "", changes: Mapping[str, str] | None = None
) -> str:
    at, nonce = str(int(datetime.now(UTC).timestamp())), "593BEC0C930BF1AFEB40B4A08C8FB242"
    given = {"mchid": WECHAT_MERCHANT_ID, "nonce_str": nonce, "timestamp": at, **(changes or {})}
    private = load_pem_private_key((key or merchant_keys()[0]).encode(), None)
    assert isinstance(private, rsa.RSAPrivateKey)
    said = f"{method}\n{path}\n{given['timestamp']}\n{given['nonce_str']}\n{body}\n"
    signature = base64.b64encode(private.sign(said.encode(), padding.PKCS1v15(), SHA256())).decode()
    given = {"serial_no": WECHAT_CERTIFICATE_SERIAL, "signature": signature, **given}
    return "WECHATPAY2-SHA256-RSA2048 " + ",".join(f'{name}="{value}"' for name, value in given.items())


def ask(
    wechat: RunningWechat,
    path: str,
    asked: object = None,
    *,
    headers: Mapping[str, str] | None = None,
    key: str = "",
    changes: Mapping[str, str] | None = None,
) -> httpx.Response:
    """A request of the merchant's, or of somebody with another key or `changes` in what proves him."""
    method = "GET" if asked is None else "POST"
    body = "" if asked is None else asked if isinstance(asked, str) else json.dumps(asked)
    return httpx.request(
        method,
        wechat.url + path,
        content=body or None,
        headers={
            "Accept": "application/json",
            "Authorization": authorization(method, path, body, key=key, changes=changes),
            "Wechatpay-Serial": WECHAT_PUBLIC_KEY_ID,
            **({"Content-Type": "application/json"} if body else {}),
            **(headers or {}),
        },
        trust_env=False,
    )


def refusal(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["code"]


def trades(wechat: RunningWechat) -> list[tuple[str, str]]:
    return [(trade["out_trade_no"], trade["state"]) for trade in wechat.books()["trades"]]


def page_of(wechat: RunningWechat, reference: str = "T-0001") -> str:
    (token,) = (trade["token"] for trade in wechat.books()["trades"] if trade["out_trade_no"] == reference)
    return f"{wechat.url}/pay/{token}"


# --- who is answered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("path", [QUERY, QUERY.replace("T-0001", "T-0002")])
def test_grant_and_refusal_are_signed_over_the_letters_of_what_they_say(
    wechat: RunningWechat, path: str
) -> None:
    ask(wechat, NATIVE, ORDER)
    answer = ask(wechat, path)
    public = load_pem_public_key(wechat_keys()[1].encode())
    assert isinstance(public, rsa.RSAPublicKey)
    headers = answer.headers
    said = f"{headers['Wechatpay-Timestamp']}\n{headers['Wechatpay-Nonce']}\n{answer.text}\n"
    signature = base64.b64decode(headers["Wechatpay-Signature"])
    public.verify(signature, said.encode(), padding.PKCS1v15(), SHA256())
    assert headers["Wechatpay-Serial"] == WECHAT_PUBLIC_KEY_ID
    assert headers["Wechatpay-Timestamp"] == str(int(NOW.timestamp()))


@pytest.mark.parametrize(
    "changes",
    [
        {"mchid": "1900000002"},
        {"serial_no": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"},
        {"signature": "AAAA"},
        {"signature": "?"},
        {"timestamp": "x"},
        {"nonce_str": ""},
        {"timestamp": str(int(NOW.timestamp()) - 301)},
        {"timestamp": str(int(NOW.timestamp()) + 301)},
    ],
    ids=repr,
)
def test_request_that_proves_nothing_is_refused(wechat: RunningWechat, changes: dict[str, str]) -> None:
    assert refusal(ask(wechat, NATIVE, ORDER, changes=changes)) == (401, "SIGN_ERROR")
    assert trades(wechat) == []


def test_request_signed_with_another_key_is_refused_and_not_signed(wechat: RunningWechat) -> None:
    answer = ask(wechat, NATIVE, ORDER, key=wechat_keys()[0])
    assert refusal(answer) == (401, "SIGN_ERROR")
    assert "wechatpay-signature" not in answer.headers


def test_request_signed_for_another_method_path_or_body_is_refused(wechat: RunningWechat) -> None:
    for method, path, body in (
        ("GET", NATIVE, json.dumps(ORDER)),
        ("POST", H5, json.dumps(ORDER)),
        ("POST", NATIVE + "?a=b", json.dumps(ORDER)),
        ("POST", NATIVE, json.dumps({**ORDER, "amount": {"total": 1, "currency": "CNY"}})),
    ):
        headers = {"Authorization": authorization(method, path, body)}
        assert refusal(ask(wechat, NATIVE, ORDER, headers=headers)) == (401, "SIGN_ERROR")
    for bad in ("", "Bearer x", "WECHATPAY2-SHA256-RSA2048"):
        assert refusal(ask(wechat, NATIVE, ORDER, headers={"Authorization": bad})) == (401, "SIGN_ERROR")


@pytest.mark.parametrize(
    "headers",
    [
        {"Wechatpay-Serial": "5157F09EFDC096DE15EBE81A47057A7232F1B8E1"},
        {"Accept": "text/html"},
        {"User-Agent": ""},
        {"Content-Type": "text/plain"},
    ],
    ids=repr,
)
def test_request_without_the_headers_that_belong_to_it_is_refused(
    wechat: RunningWechat, headers: dict[str, str]
) -> None:
    assert refusal(ask(wechat, NATIVE, ORDER, headers=headers)) == (400, "PARAM_ERROR")


@pytest.mark.parametrize("body", ["{", "[]", "null", "[" * 50_000])
def test_body_that_is_no_object_is_refused(wechat: RunningWechat, body: str) -> None:
    assert refusal(ask(wechat, NATIVE, body)) == (400, "PARAM_ERROR")


def test_path_is_signed_as_it_is_written(wechat: RunningWechat) -> None:
    """With its escapes, and a bill's link with its query."""
    assert refusal(ask(wechat, f"{REFUNDS}/DESK%7C7%2A")) == (404, "RESOURCE_NOT_EXISTS")


def test_below_another_address_the_path_is_signed_without_it(
    settings: Settings, shop: Listener, tmp_path: Path
) -> None:
    def emulator() -> Wechat:
        return Wechat(
            key="k",
            merchant_id=WECHAT_MERCHANT_ID,
            app_id=WECHAT_APP_ID,
            certificate_serial=WECHAT_CERTIFICATE_SERIAL,
            merchant_public_key=merchant_keys()[1],
            api_v3_key=WECHAT_API_V3_KEY,
            private_key=wechat_keys()[0],
            public_key_id=WECHAT_PUBLIC_KEY_ID,
            books=":memory:",
        )

    below = emulator()
    with (
        time_machine.travel(NOW, tick=False),
        Listening(Together(emulator(), {"wechat": below}), host="127.0.0.1", port=0) as listening,
    ):
        running = RunningWechat(f"{listening.url}/wechat", "k", below)
        url = ask(running, H5, {**ORDER, "scene_info": SCENE}).json()["h5_url"]
        assert url.startswith(f"{listening.url}/wechat/cgi-bin/mmpayweb-bin/checkmweb?prepay_id=")
        assert running.arrive(url).status_code == 200


@pytest.mark.parametrize(
    ("merchant", "ours"),
    [("x", wechat_keys()[0]), (merchant_keys()[1], "x"), (merchant_keys()[1], wechat_keys()[1])],
    ids=["merchant's", "WeChat Pay's", "public"],
)
def test_key_that_is_none_stops_the_emulator_from_starting(merchant: str, ours: str) -> None:
    with pytest.raises(ValueError):  # noqa: PT011 (the library's words)
        running_wechat(
            merchant_id="1",
            app_id="2",
            certificate_serial="3",
            merchant_public_key=merchant,
            api_v3_key=WECHAT_API_V3_KEY,
            private_key=ours,
            public_key_id="4",
        ).__enter__()


def test_books_and_faults_are_for_testers_only(wechat: RunningWechat) -> None:
    for path in ("/_books", "/_faults"):
        assert httpx.get(wechat.url + path, trust_env=False).status_code == 401


def test_errors_happen_as_often_as_was_said_and_do_nothing(wechat: RunningWechat) -> None:
    wechat.set_faults(errors=1)
    assert refusal(ask(wechat, NATIVE, ORDER)) == (500, "SYSTEM_ERROR")
    assert trades(wechat) == []
    assert ask(wechat, NATIVE, ORDER).status_code == 200


def test_answer_is_lost_after_the_deed(wechat: RunningWechat) -> None:
    wechat.set_faults(lost_answers=1)
    with pytest.raises(httpx.HTTPError):
        ask(wechat, NATIVE, ORDER)
    assert trades(wechat) == [("T-0001", "NOTPAY")]


# --- opening and asking ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("changes", "code"),
    [
        ({"appid": "wx0000000000000002"}, "APPID_MCHID_NOT_MATCH"),
        ({"mchid": "1900000002"}, "PARAM_ERROR"),
        ({"description": ""}, "PARAM_ERROR"),
        ({"description": "V" * 128}, "PARAM_ERROR"),
        ({"out_trade_no": "T-001"}, "PARAM_ERROR"),
        ({"out_trade_no": "T" * 33}, "PARAM_ERROR"),
        ({"out_trade_no": "T/0001"}, "PARAM_ERROR"),
        ({"notify_url": "http://127.0.0.1:8000/?a=b"}, "PARAM_ERROR"),
        ({"notify_url": "javascript:alert(1)"}, "PARAM_ERROR"),
        ({"time_expire": "2026-11-24 01:00:00"}, "PARAM_ERROR"),
        # Case 24: a time needs its zone.
        ({"time_expire": "2026-11-24T01:00:00"}, "PARAM_ERROR"),
        ({"time_expire": "2026-11-31T01:00:00+08:00"}, "PARAM_ERROR"),
        ({"amount": {"total": 0, "currency": "CNY"}}, "PARAM_ERROR"),
        ({"amount": {"total": 49.9, "currency": "CNY"}}, "PARAM_ERROR"),
        ({"amount": {"total": "4990", "currency": "CNY"}}, "PARAM_ERROR"),
        ({"amount": {"total": 4990, "currency": "USD"}}, "PARAM_ERROR"),
    ],
)
def test_order_with_something_wechat_would_not_take_is_refused(
    wechat: RunningWechat, changes: dict[str, object], code: str
) -> None:
    assert refusal(ask(wechat, NATIVE, {**ORDER, **changes})) == (400, code)
    assert trades(wechat) == []


@pytest.mark.parametrize(
    "scene",
    [None, {}, {"payer_client_ip": "192.0.2.1"}, {**SCENE, "payer_client_ip": "here"}],
    ids=repr,
)
def test_h5_wants_to_know_where_the_buyer_is(wechat: RunningWechat, scene: object) -> None:
    assert refusal(ask(wechat, H5, {**ORDER, "scene_info": scene})) == (400, "PARAM_ERROR")


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": {"total": 4991, "currency": "CNY"}},
        {"description": "云手机"},
        {"time_expire": "2026-11-24T01:00:01+08:00"},
        {"notify_url": "http://127.0.0.1:8000/else/"},
    ],
    ids=repr,
)
def test_order_is_opened_again_by_the_very_same_words_only(
    wechat: RunningWechat, changes: dict[str, object]
) -> None:
    first = ask(wechat, NATIVE, ORDER).json()
    assert ask(wechat, NATIVE, ORDER).json() == first
    assert refusal(ask(wechat, NATIVE, {**ORDER, **changes})) == (400, "INVALID_REQUEST")
    assert refusal(ask(wechat, H5, {**ORDER, "scene_info": SCENE})) == (400, "INVALID_REQUEST")


def test_order_that_is_paid_or_closed_is_not_opened_again(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    wechat.decide("T-0001")
    assert refusal(ask(wechat, NATIVE, ORDER)) == (400, "ORDERPAID")
    other = {**ORDER, "out_trade_no": "T-0002"}
    ask(wechat, NATIVE, other)
    ask(wechat, CLOSE.replace("0001", "0002"), {"mchid": WECHAT_MERCHANT_ID})
    assert refusal(ask(wechat, NATIVE, other)) == (400, "ORDER_CLOSED")


def test_shortest_time_to_pay_is_a_minute(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, {**ORDER, "time_expire": "2026-11-24T00:30:00+08:00"})
    with time_machine.travel(NOW + timedelta(seconds=59), tick=False):
        wechat.decide("T-0001")
    assert trades(wechat) == [("T-0001", "SUCCESS")]


def test_order_stays_open_and_unpayable_when_its_time_is_over(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    with time_machine.travel(NOW + timedelta(minutes=30), tick=False):
        wechat.decide("T-0001")
        assert ask(wechat, QUERY).json()["trade_state"] == "NOTPAY"
        assert refusal(ask(wechat, NATIVE, ORDER)) == (400, "INVALID_REQUEST")


def test_times_are_beijings_and_say_so(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    assert "success_time" not in ask(wechat, QUERY).json()
    wechat.decide("T-0001")
    assert ask(wechat, QUERY).json()["success_time"] == "2026-11-24T00:30:00+08:00"


def test_order_of_another_merchant_or_number_is_not_told_of(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    assert refusal(ask(wechat, QUERY.replace(WECHAT_MERCHANT_ID, "1900000002"))) == (400, "PARAM_ERROR")
    assert refusal(ask(wechat, QUERY.replace("T-0001", "T-0002"))) == (404, "ORDER_NOT_EXIST")


def test_closing_is_granted_without_words_and_once(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    answer = ask(wechat, CLOSE, {"mchid": WECHAT_MERCHANT_ID})
    assert (answer.status_code, answer.content) == (204, b"")
    assert "wechatpay-signature" in answer.headers
    assert refusal(ask(wechat, CLOSE, {"mchid": WECHAT_MERCHANT_ID})) == (400, "ORDER_CLOSED")
    assert trades(wechat) == [("T-0001", "CLOSED")]


# --- the pages ---------------------------------------------------------------------------------------


def h5_url(wechat: RunningWechat, back: str = "") -> str:
    url = str(ask(wechat, H5, {**ORDER, "scene_info": SCENE}).json()["h5_url"])
    return f"{url}&redirect_url={back}" if back else url


def test_address_of_a_phone_is_good_for_five_minutes_and_may_be_asked_for_anew(wechat: RunningWechat) -> None:
    url = h5_url(wechat)
    with time_machine.travel(NOW + timedelta(minutes=5), tick=False):
        assert wechat.arrive(url).status_code == 200
    with time_machine.travel(NOW + timedelta(minutes=5, seconds=1), tick=False):
        assert wechat.arrive(url).status_code == 404
        assert wechat.arrive(h5_url(wechat)).status_code == 200


def test_phone_goes_back_to_the_shop_that_gets_the_notices(wechat: RunningWechat) -> None:
    back = "http%3A%2F%2F127.0.0.1%3A8000%2Fpaid%2F"
    page = wechat.arrive(h5_url(wechat, back))
    assert "form-action 'self' http://127.0.0.1:8000" in page.headers["content-security-policy"]
    assert wechat.decide("T-0001").headers["location"] == "http://127.0.0.1:8000/paid/"


@pytest.mark.parametrize("back", ["https%3A%2F%2Fevil.example%2F", "javascript%3Aalert(1)", "%2Fpaid"])
def test_phone_is_led_to_no_other_place(wechat: RunningWechat, back: str) -> None:
    page = wechat.arrive(h5_url(wechat, back))
    assert page.status_code == 200
    assert wechat.decide("T-0001").headers["location"] == page_of(wechat)


def test_code_leads_to_no_page_and_the_phone_lists_what_it_might_scan(wechat: RunningWechat) -> None:
    phone = httpx.get(f"{wechat.url}/", trust_env=False)
    assert "Nobody has begun to pay yet." in phone.text
    code = ask(wechat, NATIVE, ORDER).json()["code_url"]
    (token,) = parse_qs(urlsplit(code).query)["pr"]
    assert code == f"weixin://wxpay/bizpayurl?pr={token}"
    assert page_of(wechat) in httpx.get(f"{wechat.url}/", trust_env=False).text
    arrive = f"{wechat.url}/cgi-bin/mmpayweb-bin/checkmweb?prepay_id={token}"
    assert wechat.arrive(arrive).status_code == 404


def test_page_shows_what_is_paid_for_in_the_buyers_language(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, {**ORDER, "description": "<b>VIP"})
    answer = httpx.get(page_of(wechat), headers={"Accept-Language": "zh-CN"}, trust_env=False)
    assert '<html lang="zh-hans">' in answer.text
    assert "&lt;b&gt;VIP" in answer.text


@pytest.mark.parametrize(
    ("outcomes", "words"),
    [
        ([], "Pay now"),
        ([Outcome.PAY], "This payment has been paid."),
        ([Outcome.DECLINE], "This payment has failed."),
        ([Outcome.TIME_OUT], "The time to pay is over."),
        ([Outcome.PAY, Outcome.REFUND_HERE], "Refunded or on its way back"),
    ],
)
def test_page_says_what_became_of_the_payment(
    wechat: RunningWechat, outcomes: list[Outcome], words: str
) -> None:
    ask(wechat, NATIVE, ORDER)
    for outcome in outcomes:
        wechat.decide("T-0001", outcome)
    page = httpx.get(page_of(wechat), trust_env=False).text
    assert words in page
    # Case 24.
    assert ("2026-11-24 01:00, Beijing" in page) is (not outcomes)


def test_unknown_payment_has_a_page_of_its_own(wechat: RunningWechat) -> None:
    answer = httpx.get(f"{wechat.url}/pay/x", trust_env=False)
    assert (answer.status_code, "There is no such payment" in answer.text) == (404, True)
    assert httpx.post(f"{wechat.url}/pay/x", data={"outcome": "pay"}, trust_env=False).status_code == 400


def test_outcome_that_is_none_or_does_not_fit_changes_nothing(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    page = page_of(wechat)
    assert httpx.post(page, data={"outcome": "rob"}, trust_env=False).status_code == 400
    for outcome in (Outcome.REFUND_HERE, Outcome.DELAY_REFUNDS, Outcome.COMPLETE_REFUNDS):
        wechat.decide("T-0001", outcome)
    assert trades(wechat) == [("T-0001", "NOTPAY")]
    for outcome in (Outcome.PAY, Outcome.PAY, Outcome.TIME_OUT, Outcome.DECLINE):
        wechat.decide("T-0001", outcome)
    assert trades(wechat) == [("T-0001", "SUCCESS")]


def test_payments_survive_a_restart(settings: Settings, shop: Listener, tmp_path: Path) -> None:
    books = str(tmp_path / "books.sqlite3")
    with time_machine.travel(NOW, tick=False):
        with configured_wechat(settings, books=books) as wechat:
            ask(wechat, NATIVE, ORDER)
        with configured_wechat(settings, books=books) as wechat:
            assert trades(wechat) == [("T-0001", "NOTPAY")]


# --- refunds -----------------------------------------------------------------------------------------


def refund(wechat: RunningWechat, number: str, minor: object, **changes: object) -> httpx.Response:
    asked = {
        "out_trade_no": "T-0001",
        "out_refund_no": number,
        "amount": {"refund": minor, "total": 4990, "currency": "CNY"},
        **changes,
    }
    return ask(wechat, REFUNDS, asked)


def paid(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    wechat.decide("T-0001")


def test_refund_is_only_accepted_and_made_afterwards(wechat: RunningWechat) -> None:
    paid(wechat)
    answer = refund(wechat, "R-1", 1000).json()
    assert (answer["status"], "success_time" in answer) == ("PROCESSING", False)
    made = ask(wechat, f"{REFUNDS}/R-1").json()
    assert (made["status"], made["success_time"]) == ("SUCCESS", "2026-11-24T00:30:00+08:00")
    assert ask(wechat, QUERY).json()["trade_state"] == "REFUND"


def test_refund_by_the_same_number_is_the_one_that_is_there(wechat: RunningWechat) -> None:
    paid(wechat)
    first = refund(wechat, "R-1", 1000).json()
    again = refund(wechat, "R-1", 1000).json()
    assert (again["refund_id"], again["status"]) == (first["refund_id"], "SUCCESS")
    assert refusal(refund(wechat, "R-1", 1001)) == (400, "INVALID_REQUEST")
    assert len(wechat.books()["refunds"]) == 1


@pytest.mark.parametrize(
    ("minor", "changes", "refused"),
    [
        (0, {}, (400, "PARAM_ERROR")),
        (-1, {}, (400, "PARAM_ERROR")),
        ("10", {}, (400, "PARAM_ERROR")),
        (4991, {}, (400, "INVALID_REQUEST")),
        (1000, {"out_refund_no": "R/1"}, (400, "PARAM_ERROR")),
        (1000, {"out_trade_no": "T-0002"}, (404, "RESOURCE_NOT_EXISTS")),
        (1000, {"amount": {"refund": 1000, "currency": "CNY"}}, (400, "PARAM_ERROR")),
        (1000, {"amount": {"refund": 1000, "total": 4991, "currency": "CNY"}}, (400, "INVALID_REQUEST")),
        (1000, {"amount": {"refund": 1000, "total": 4990, "currency": "USD"}}, (400, "PARAM_ERROR")),
    ],
)
def test_refund_that_cannot_be_is_refused(
    wechat: RunningWechat, minor: object, changes: dict[str, object], refused: tuple[int, str]
) -> None:
    paid(wechat)
    assert refusal(refund(wechat, "R-1", minor, **changes)) == refused
    assert wechat.books()["refunds"] == []


def test_refund_of_what_was_not_paid_is_refused(wechat: RunningWechat) -> None:
    ask(wechat, NATIVE, ORDER)
    assert refusal(refund(wechat, "R-1", 1000)) == (400, "INVALID_REQUEST")


def test_payment_has_fifty_refunds_at_most(wechat: RunningWechat) -> None:
    paid(wechat)
    for number in range(50):
        assert refund(wechat, f"R-{number}", 1).status_code == 200
    assert refusal(refund(wechat, "R-50", 1)) == (400, "INVALID_REQUEST")


@pytest.mark.parametrize("state", ["SUCCESS", "REFUND"])
def test_what_is_paid_cannot_be_closed(wechat: RunningWechat, state: str) -> None:
    paid(wechat)
    if state == "REFUND":
        refund(wechat, "R-1", 1000)
    assert refusal(ask(wechat, CLOSE, {"mchid": WECHAT_MERCHANT_ID})) == (400, "ORDERPAID")
    assert trades(wechat) == [("T-0001", state)]


# --- bills -------------------------------------------------------------------------------------------


def bill(wechat: RunningWechat, day: str, query: str = "bill_type=ALL&tar_type=GZIP") -> httpx.Response:
    return ask(wechat, f"/v3/bill/tradebill?bill_date={day}&{query}")


def download(wechat: RunningWechat, url: str) -> httpx.Response:
    return ask(wechat, url.removeprefix(wechat.url))


def test_bill_is_there_in_the_forenoon_after_for_five_minutes(wechat: RunningWechat) -> None:
    paid(wechat)
    with time_machine.travel(NOW + timedelta(hours=33), tick=False) as clock:
        assert refusal(bill(wechat, "2026-11-24")) == (400, "STATEMENT_CREATING")
        clock.shift(timedelta(hours=1))
        promise = bill(wechat, "2026-11-24").json()
        packed = download(wechat, promise["download_url"])
        assert "wechatpay-signature" not in packed.headers
        raw = gzip.decompress(packed.content)
        # The digest is of what was not packed yet.
        assert (promise["hash_type"], promise["hash_value"]) == (
            "SHA1",
            hashlib.sha1(raw, usedforsecurity=False).hexdigest(),
        )
        assert httpx.get(promise["download_url"], trust_env=False).status_code == 401
        clock.shift(timedelta(minutes=5))
        assert refusal(download(wechat, promise["download_url"])) == (400, "INVALID_REQUEST")


def test_bill_has_a_line_for_each_movement_and_sums(wechat: RunningWechat) -> None:
    paid(wechat)
    refund(wechat, "R-1", 1000)
    wechat.decide("T-0001", Outcome.DELAY_REFUNDS)
    refund(wechat, "R-2", 2000)
    with time_machine.travel(NOW + timedelta(hours=35), tick=False):
        wechat.decide("T-0001", Outcome.COMPLETE_REFUNDS)
        url = bill(wechat, "2026-11-24").json()["download_url"]
        text = gzip.decompress(download(wechat, url).content).decode("utf-8-sig")
    header, *lines, sums, totals = text.splitlines()
    # Nothing is quoted: the title of this payment has a comma in it.
    rows = [dict(zip(header.split(","), line[1:].split(",`"), strict=True)) for line in lines]
    names = ("交易时间", "交易状态", "商户退款单号", "退款状态", "订单金额", "申请退款金额")
    # The second was under way when the bill was made, and is so for ever.
    assert [tuple(row[name] for name in names) for row in rows] == [
        ("2026-11-24 00:30:00", "SUCCESS", "0", "", "49.90", "0.00"),
        ("2026-11-24 00:30:00", "REFUND", "R-1", "SUCCESS", "0.00", "10.00"),
        ("2026-11-24 00:30:00", "REFUND", "R-2", "PROCESSING", "0.00", "20.00"),
    ]
    assert sums.startswith("总交易单数,")
    assert totals == "`3,`49.90,`30.00,`0.00,`0.00000,`49.90,`30.00"


@pytest.mark.parametrize(
    ("day", "query", "code"),
    [
        ("2026-11-24", "bill_type=ALL&tar_type=GZIP", "INVALID_REQUEST"),
        ("2026-11-25", "bill_type=ALL&tar_type=GZIP", "INVALID_REQUEST"),
        ("2026-08-01", "bill_type=ALL&tar_type=GZIP", "INVALID_REQUEST"),
        ("yesterday", "bill_type=ALL&tar_type=GZIP", "PARAM_ERROR"),
        ("2026-11-01", "bill_type=ELSE&tar_type=GZIP", "INVALID_REQUEST"),
        ("2026-11-01", "bill_type=ALL", "PARAM_ERROR"),
        ("2026-11-01", "bill_type=ALL&tar_type=GZIP", "NO_STATEMENT_EXIST"),
    ],
)
def test_bill_of_no_day_that_is_over_is_refused(
    wechat: RunningWechat, day: str, query: str, code: str
) -> None:
    assert refusal(bill(wechat, day, query)) == (400, code)


def test_bill_nobody_asked_for_is_not_there(wechat: RunningWechat) -> None:
    assert refusal(ask(wechat, "/v3/billdownload/file?token=x")) == (400, "INVALID_REQUEST")
