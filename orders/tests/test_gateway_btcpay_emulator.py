"""What BTCPay Server's emulator refuses, keeps and shows: it is to be as strict as the true one, or stricter."""

import hashlib
import hmac
import json
from collections.abc import Iterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from pytest_django import Settings

from orders.gateways.emulators.chain import Deed
from orders.gateways.emulators.running_btcpay import RunningBtcpay, running_btcpay
from orders.tests.backstage_btcpay import KEY, SECRET, STORE_ID, configured_btcpay
from orders.tests.gateway_servers import Listener

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
# At 97 000 USD for a bitcoin, 49.90 USD are so many.
IN_BITCOIN = "0.00051444"
CHECKOUT: Mapping[str, object] = {
    "speedPolicy": "MediumSpeed",
    "paymentMethods": ["BTC-CHAIN"],
    "expirationMinutes": 30,
    "monitoringMinutes": 60,
    "paymentTolerance": 0,
    "redirectURL": "http://127.0.0.1:8000/paid/",
}
INVOICE: Mapping[str, object] = {
    "amount": "49.90",
    "currency": "USD",
    "metadata": {"orderId": "T-1", "itemDesc": "2 × VIP, 30 days"},
    "checkout": CHECKOUT,
}
CLAIM: Mapping[str, object] = {
    "name": "Refund 1 R-1",
    "payoutMethodId": "BTC-CHAIN",
    "refundVariant": "Custom",
    "customAmount": "10.00",
    "customCurrency": "USD",
}


@pytest.fixture
def server(shop: Listener, settings: Settings) -> Iterator[RunningBtcpay]:
    with configured_btcpay(settings) as running:
        yield running


@pytest.fixture
def api(server: RunningBtcpay) -> Iterator[httpx.Client]:
    """The API of our store, with our key."""
    base = f"{server.url}/api/v1/stores/{STORE_ID}"
    with httpx.Client(base_url=base, headers=server.credentials(), trust_env=False) as client:
        yield client


def opened(api: httpx.Client, **changes: object) -> Any:
    return api.post("/invoices", json={**INVOICE, **changes}).raise_for_status().json()


def state_of(api: httpx.Client, invoice_id: str) -> tuple[str, str]:
    invoice = api.get(f"/invoices/{invoice_id}").raise_for_status().json()
    return invoice["status"], invoice["additionalStatus"]


def page_of(server: RunningBtcpay, invoice_id: str, language: str = "en") -> httpx.Response:
    return httpx.get(f"{server.url}/i/{invoice_id}", headers={"Accept-Language": language}, trust_env=False)


# --- who is answered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("credentials", ["", f"token {KEY}x", f"Bearer {KEY}", "token é", KEY])
@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/invoices"),
        ("GET", "/invoices"),
        ("GET", "/invoices/1"),
        ("GET", "/invoices/1/payment-methods"),
        ("POST", "/invoices/1/status"),
        ("POST", "/invoices/1/refund"),
        ("GET", "/pull-payments"),
    ],
)
def test_nothing_is_answered_without_the_key(
    server: RunningBtcpay, method: str, path: str, credentials: str
) -> None:
    answer = httpx.request(
        method,
        f"{server.url}/api/v1/stores/{STORE_ID}{path}",
        headers={b"Authorization": credentials.encode()},
        trust_env=False,
    )
    assert (answer.status_code, answer.json()["code"]) == (401, "unauthenticated")
    assert server.books()["invoices"] == []


def test_books_faults_and_payouts_want_the_key_too(server: RunningBtcpay) -> None:
    for path in ("/_books", "/_faults", "/api/v1/pull-payments/1/payouts"):
        assert httpx.get(server.url + path, trust_env=False).status_code == 401


def test_key_opens_its_own_store_only(server: RunningBtcpay) -> None:
    answer = httpx.get(
        f"{server.url}/api/v1/stores/another/invoices", headers=server.credentials(), trust_env=False
    )
    assert (answer.status_code, answer.json()["code"]) == (403, "missing-permission")


@pytest.mark.parametrize("missing", ["key", "store_id", "secret"])
def test_server_does_not_start_without_its_credentials(missing: str) -> None:
    given = {"key": KEY, "store_id": STORE_ID, "secret": SECRET, missing: ""}
    with pytest.raises(ValueError, match="wants a key, a store and a secret"):
        running_btcpay(
            key=given["key"], store_id=given["store_id"], secret=given["secret"], webhook_url="http://x/"
        ).__enter__()


# --- invoices ----------------------------------------------------------------------------------------


def test_created_invoice_is_answered_whole(api: httpx.Client, server: RunningBtcpay) -> None:
    with time_machine.travel(NOW, tick=False):
        invoice = opened(api)
    assert invoice == {
        "id": invoice["id"],
        "storeId": STORE_ID,
        "amount": "49.90",
        "currency": "USD",
        "type": "Standard",
        "checkoutLink": f"{server.url}/i/{invoice['id']}",
        "createdTime": NOW.timestamp(),
        "expirationTime": (NOW + timedelta(minutes=30)).timestamp(),
        "monitoringExpiration": (NOW + timedelta(minutes=90)).timestamp(),
        "status": "New",
        "additionalStatus": "None",
        "archived": False,
        "metadata": INVOICE["metadata"],
    }


def test_each_creation_makes_an_invoice(api: httpx.Client) -> None:
    """As the true server does: there is no idempotency key (cases 27 and 30)."""
    assert opened(api)["id"] != opened(api)["id"]


@pytest.mark.parametrize(
    "changes",
    [
        {"amount": 49.9},
        {"amount": "-1"},
        {"amount": "1e3"},
        {"currency": None},
        {"currency": "USDT"},
        {"amount": "49.901"},
        {"metadata": []},
        {"checkout": {**CHECKOUT, "speedPolicy": "Warp"}},
        {"checkout": {**CHECKOUT, "paymentMethods": ["BTC-LN"]}},
        {"checkout": {**CHECKOUT, "expirationMinutes": 0}},
        {"checkout": {**CHECKOUT, "monitoringMinutes": "60"}},
        {"checkout": {**CHECKOUT, "paymentTolerance": 1}},
        {"checkout": {**CHECKOUT, "redirectURL": "javascript:alert(1)"}},
        {"checkout": {**CHECKOUT, "unknown": 1}},
        {"unknown": 1},
    ],
    ids=repr,
)
def test_invoice_that_makes_no_sense_is_refused(
    api: httpx.Client, server: RunningBtcpay, changes: dict[str, object]
) -> None:
    answer = api.post("/invoices", json={**INVOICE, **changes})
    assert (answer.status_code, list(answer.json()[0])) == (422, ["path", "message"])
    assert server.books()["invoices"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 20_000])
def test_body_that_is_no_object_is_refused(api: httpx.Client, body: bytes) -> None:
    answer = api.post("/invoices", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_form_and_long_bodies_are_refused(api: httpx.Client) -> None:
    assert api.post("/invoices", data={"amount": "49.90"}).status_code == 415
    assert api.post("/invoices", json={**INVOICE, "unknown": "x" * 70_000}).status_code == 413


def test_invoices_are_listed_newest_first_in_pages_and_by_order(api: httpx.Client) -> None:
    ids = [opened(api, metadata={"orderId": f"T-{number}"})["id"] for number in (1, 2, 1)]

    def listed(**query: object) -> list[str]:
        answer = api.get("/invoices", params={name: str(value) for name, value in query.items()})
        return [invoice["id"] for invoice in answer.raise_for_status().json()]

    assert listed() == ids[::-1]
    assert listed(orderId="T-1") == [ids[2], ids[0]]
    assert listed(skip=1, take=1) == [ids[1]]
    assert listed(orderId="T-3") == []
    assert listed(endDate=int(datetime.now(UTC).timestamp()) - 60) == []


def test_what_is_not_there_is_not_found(api: httpx.Client) -> None:
    for path in ("/invoices/1", "/invoices/1/payment-methods"):
        assert api.get(path).json()["code"] == "invoice-not-found"
    assert api.post("/invoices/1/status", json={"status": "Invalid"}).status_code == 404
    assert api.post("/invoices/1/refund", json=CLAIM).status_code == 404
    assert api.get(f"{str(api.base_url).partition('/stores')[0]}/pull-payments/1/payouts").status_code == 404


@pytest.mark.parametrize(
    ("deeds", "state"),
    [
        ([Deed.SEND], ("Processing", "None")),
        ([Deed.SEND_PART], ("New", "PaidPartial")),
        ([Deed.SEND_PART, Deed.CONFIRM, Deed.EXPIRE], ("Expired", "PaidPartial")),
        ([Deed.SEND_PART, Deed.SEND], ("Processing", "None")),
        ([Deed.SEND_MORE], ("Processing", "PaidOver")),
        ([Deed.PAY], ("Settled", "None")),
        ([Deed.PAY, Deed.SEND], ("Settled", "PaidOver")),
        ([Deed.SEND, Deed.DROP], ("Processing", "None")),
        ([Deed.EXPIRE], ("Expired", "None")),
        ([Deed.EXPIRE, Deed.PAY], ("Expired", "PaidLate")),
        ([Deed.SEND, Deed.EXPIRE], ("Processing", "None")),
        ([Deed.FAIL], ("Invalid", "None")),
        ([Deed.PAY, Deed.FAIL], ("Settled", "None")),
        ([Deed.FAIL, Deed.PAY], ("Invalid", "None")),
    ],
    ids="-".join,
)
def test_invoice_is_in_the_state_of_the_true_server(
    api: httpx.Client, server: RunningBtcpay, deeds: list[Deed], state: tuple[str, str]
) -> None:
    invoice_id = opened(api)["id"]
    for deed in deeds:
        server.do(invoice_id, deed)
    assert state_of(api, invoice_id) == state


def test_time_ends_what_nobody_paid_or_no_block_took_up(api: httpx.Client, server: RunningBtcpay) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        new, processing = opened(api)["id"], opened(api)["id"]
        server.do(processing, Deed.SEND)
        clock.move_to(NOW + timedelta(minutes=30))
        assert (state_of(api, new), state_of(api, processing)) == (
            ("Expired", "None"),
            ("Processing", "None"),
        )
        clock.move_to(NOW + timedelta(minutes=90))
        assert state_of(api, processing) == ("Invalid", "None")


def test_invoice_is_marked_by_hand_within_certain_conditions(
    api: httpx.Client, server: RunningBtcpay
) -> None:
    invoice_id = opened(api)["id"]
    path = f"/invoices/{invoice_id}/status"
    assert api.post(path, json={"status": "New"}).status_code == 422
    assert api.post(path, json={"status": "Invalid"}).json()["additionalStatus"] == "Marked"
    assert api.post(path, json={"status": "Invalid"}).status_code == 422
    assert api.post(path, json={"status": "Settled"}).json()["status"] == "Settled"
    paid = opened(api)["id"]
    server.do(paid, Deed.PAY)
    assert api.post(f"/invoices/{paid}/status", json={"status": "Invalid"}).status_code == 422


def test_payment_method_says_what_came_and_what_is_due(api: httpx.Client, server: RunningBtcpay) -> None:
    invoice = opened(api)
    server.do(invoice["id"], Deed.SEND, "0.0005")
    (method,) = api.get(f"/invoices/{invoice['id']}/payment-methods").json()
    assert (method["amount"], method["totalPaid"], method["due"]) == (IN_BITCOIN, "0.0005", "0.00001444")
    assert method["paymentLink"] == f"bitcoin:{method['destination']}?amount=0.00001444"
    (payment,) = method["payments"]
    assert (payment["value"], payment["fee"], payment["status"]) == ("0.0005", "0", "Processing")
    server.do(invoice["id"], Deed.DROP)
    (method,) = api.get(f"/invoices/{invoice['id']}/payment-methods").json()
    assert (method["payments"], method["due"]) == ([], IN_BITCOIN)


# --- refunds -----------------------------------------------------------------------------------------


def test_each_refund_is_a_claim_of_its_own(api: httpx.Client, server: RunningBtcpay) -> None:
    """As the true server does, more than was paid included: whoever asks has to take care (case 40)."""
    invoice_id = opened(api)["id"]
    server.do(invoice_id, Deed.PAY)
    first, second = (
        api.post(f"/invoices/{invoice_id}/refund", json={**CLAIM, "customAmount": "40.00"}).json()
        for _time in range(2)
    )
    assert (first["id"] != second["id"], first["viewLink"]) == (
        True,
        f"{server.url}/pull-payments/{first['id']}",
    )
    assert [claim["id"] for claim in api.get("/pull-payments").json()] == [first["id"], second["id"]]


def test_what_was_never_paid_cannot_be_refunded(api: httpx.Client, server: RunningBtcpay) -> None:
    invoice_id = opened(api)["id"]
    assert api.post(f"/invoices/{invoice_id}/refund", json=CLAIM).json()["code"] == "non-refundable"
    server.do(invoice_id, Deed.EXPIRE)
    assert api.post(f"/invoices/{invoice_id}/refund", json=CLAIM).status_code == 400
    server.do(invoice_id, Deed.SEND)
    assert api.post(f"/invoices/{invoice_id}/refund", json=CLAIM).status_code == 200


@pytest.mark.parametrize(
    "changes",
    [
        {"name": ""},
        {"name": "x" * 101},
        {"payoutMethodId": "BTC-LN"},
        {"refundVariant": "RateThen"},
        {"customAmount": 10},
        {"customAmount": "0"},
        {"customAmount": "-1"},
        {"unknown": 1},
    ],
    ids=repr,
)
def test_refund_that_makes_no_sense_is_refused(
    api: httpx.Client, server: RunningBtcpay, changes: dict[str, object]
) -> None:
    invoice_id = opened(api)["id"]
    server.do(invoice_id, Deed.PAY)
    assert api.post(f"/invoices/{invoice_id}/refund", json={**CLAIM, **changes}).status_code == 422
    assert server.books()["pull_payments"] == []


def test_claim_is_taken_up_once_and_paid_cancelled_or_withdrawn(
    api: httpx.Client, server: RunningBtcpay
) -> None:
    invoice_id = opened(api)["id"]
    server.do(invoice_id, Deed.PAY)
    claim = api.post(f"/invoices/{invoice_id}/refund", json=CLAIM).json()["id"]
    url = f"{server.url}/pull-payments/{claim}"
    assert "Claim the money" in httpx.get(url, trust_env=False).text
    server.decide_claim(claim, "pay")
    assert server.books()["payouts"] == []
    for _time in range(2):
        server.decide_claim(claim, "claim")
    assert [payout["state"] for payout in server.books()["payouts"]] == ["AwaitingApproval"]
    server.decide_claim(claim, "pay")
    server.decide_claim(claim, "cancel")
    assert [payout["state"] for payout in server.books()["payouts"]] == ["Completed"]
    server.decide_claim(claim, "archive")
    assert "This claim was withdrawn." in httpx.get(url, trust_env=False).text
    assert api.get("/pull-payments").json() == []
    assert len(api.get("/pull-payments", params={"includeArchived": "true"}).json()) == 1
    assert httpx.get(f"{server.url}/pull-payments/1", trust_env=False).status_code == 404


# --- webhooks and faults -----------------------------------------------------------------------------


def test_webhooks_are_signed_over_their_bytes_and_tell_the_story(
    api: httpx.Client, server: RunningBtcpay, shop: Listener
) -> None:
    invoice_id = opened(api)["id"]
    server.do(invoice_id, Deed.PAY)
    server.wait_for_webhooks()
    webhooks = shop.rest()
    assert sorted(json.loads(webhook.body)["type"] for webhook in webhooks) == [
        "InvoiceCreated",
        "InvoicePaymentSettled",
        "InvoiceProcessing",
        "InvoiceReceivedPayment",
        "InvoiceSettled",
    ]
    for webhook in webhooks:
        good = hmac.new(SECRET.encode(), webhook.body, hashlib.sha256).hexdigest()
        assert webhook.headers["btcpay-sig"] == f"sha256={good}"
        assert (webhook.path, json.loads(webhook.body)["invoiceId"]) == ("/webhooks/btcpay/", invoice_id)


def test_errors_happen_as_often_as_was_said_and_do_nothing(api: httpx.Client, server: RunningBtcpay) -> None:
    server.set_faults(errors=2)
    assert [api.post("/invoices", json=INVOICE).status_code, api.get("/invoices").status_code] == [500, 500]
    assert server.books()["invoices"] == []
    assert api.post("/invoices", json=INVOICE).status_code == 200


def test_answer_is_lost_after_the_deed_and_only_of_what_changes_something(
    api: httpx.Client, server: RunningBtcpay
) -> None:
    server.set_faults(lost_answers=1)
    assert api.get("/invoices").status_code == 200
    with pytest.raises(httpx.HTTPError):
        api.post("/invoices", json=INVOICE)
    assert len(api.get("/invoices").json()) == 1


def test_invoices_outlive_a_restart(settings: Settings, shop: Listener, tmp_path: Path) -> None:
    books = str(tmp_path / "books.sqlite3")
    for states in (["Settled"], ["Settled", "Settled"]):
        with configured_btcpay(settings, books=books) as server:
            base = f"{server.url}/api/v1/stores/{STORE_ID}"
            with httpx.Client(base_url=base, headers=server.credentials(), trust_env=False) as api:
                server.do(opened(api)["id"], Deed.PAY)
            assert [invoice["status"] for invoice in server.books()["invoices"]] == states


# --- the checkout page -------------------------------------------------------------------------------


def test_page_shows_what_is_sent_where_and_that_it_is_a_test(
    api: httpx.Client, server: RunningBtcpay
) -> None:
    invoice = opened(api)
    (method,) = api.get(f"/invoices/{invoice['id']}/payment-methods").json()
    page = page_of(server, invoice["id"]).text
    for words in (
        method["destination"],
        "0.00051444",
        "$49.90",
        "2 × VIP, 30 days",
        "T-1",
        "Test mode",
        "<svg",
    ):
        assert words in page


@pytest.mark.parametrize(
    ("accepted", "language"),
    [("zh-CN,en;q=0.5", "zh-hans"), ("zh-HK", "zh-hant"), ("de,en;q=0.5", "en"), ("", "en")],
)
def test_page_speaks_the_language_of_the_browser(
    api: httpx.Client, server: RunningBtcpay, accepted: str, language: str
) -> None:
    assert f'<html lang="{language}">' in page_of(server, opened(api)["id"], accepted).text


def test_what_the_shop_sends_is_shown_as_text(api: httpx.Client, server: RunningBtcpay) -> None:
    invoice = opened(api, metadata={"orderId": "T-1", "itemDesc": "<script>alert(1)</script>"})
    assert "&lt;script&gt;" in page_of(server, invoice["id"]).text


def test_page_allows_no_script_no_frame_and_no_form_but_to_itself_and_the_shop(
    api: httpx.Client, server: RunningBtcpay
) -> None:
    policy = page_of(server, opened(api)["id"]).headers["Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "form-action 'self' http://127.0.0.1:8000"
    )


def test_paying_leads_back_to_the_shop_and_everything_else_to_the_page(
    api: httpx.Client, server: RunningBtcpay
) -> None:
    invoice_id = opened(api)["id"]
    assert server.do(invoice_id, Deed.SEND_PART).headers["location"] == f"{server.url}/i/{invoice_id}"
    assert server.do(invoice_id, Deed.PAY).headers["location"] == "http://127.0.0.1:8000/paid/"


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (Deed.PAY, "This payment has been paid."),
        (Deed.SEND, "The coins are on their way: they are not confirmed yet."),
        (Deed.EXPIRE, "The time to pay is over."),
        (Deed.FAIL, "This payment has failed."),
    ],
)
def test_decided_invoice_offers_no_decision_any_more(
    api: httpx.Client, server: RunningBtcpay, deed: Deed, words: str
) -> None:
    invoice_id = opened(api)["id"]
    server.do(invoice_id, deed)
    page = page_of(server, invoice_id).text
    assert (words in page, 'value="pay"' in page) == (True, False)


def test_partly_paid_invoice_asks_for_the_rest(api: httpx.Client, server: RunningBtcpay) -> None:
    invoice_id = opened(api)["id"]
    server.do(invoice_id, Deed.SEND, "0.0005")
    assert "Send 0.00001444 BTC and confirm" in page_of(server, invoice_id).text


@pytest.mark.parametrize(
    "fields",
    [{"deed": "rob"}, {}, {"deed": "send-wrong-coin"}, {"deed": "refund"}]
    + [{"deed": "send", "coins": coins} for coins in ("-1", "0", "x", "NaN", "1e9")],
    ids=repr,
)
def test_deed_that_cannot_be_changes_nothing(
    api: httpx.Client, server: RunningBtcpay, fields: dict[str, str]
) -> None:
    invoice_id = opened(api)["id"]
    answer = httpx.post(f"{server.url}/i/{invoice_id}", data=fields, trust_env=False)
    assert (answer.status_code, state_of(api, invoice_id)) == (400, ("New", "None"))
    assert server.books()["deposits"] == []


def test_unknown_invoice_has_a_page_that_says_so(server: RunningBtcpay) -> None:
    answer = page_of(server, "1")
    assert (answer.status_code, "There is no such payment." in answer.text) == (404, True)
    assert server.do("1", Deed.PAY).status_code == 404
