"""What NOWPayments' emulator refuses, keeps and shows: it is to be as strict as the true one, or stricter."""

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

from emulators.server import Listening
from emulators.together import Together
from orders.gateways.emulators.chain import Deed
from orders.gateways.emulators.nowpayments import Nowpayments
from orders.gateways.emulators.running_nowpayments import RunningNowpayments, running_nowpayments
from orders.gateways.emulators.sandbox import Sandbox
from orders.tests.backstage_nowpayments import EMAIL, KEY, PASSWORD, SECRET, configured_nowpayments
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET
from orders.tests.gateway_servers import Listener

NOW = datetime(2026, 11, 23, 8, tzinfo=UTC)
PAYMENT: Mapping[str, object] = {
    "price_amount": 49.9,
    "price_currency": "usd",
    "pay_currency": "btc",
    "order_id": "T-1",
    "order_description": "2 × VIP, 30 days",
    "ipn_callback_url": "http://127.0.0.1:9/webhooks/nowpayments/",
}


@pytest.fixture
def provider(shop: Listener, settings: Settings) -> Iterator[RunningNowpayments]:
    with configured_nowpayments(settings) as running:
        yield running


@pytest.fixture
def api(provider: RunningNowpayments) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=provider.url, headers=provider.credentials(), trust_env=False) as client:
        yield client


def opened(api: httpx.Client, **changes: object) -> Any:
    return api.post("/v1/payment", json={**PAYMENT, **changes}).raise_for_status().json()


def status_of(api: httpx.Client, payment_id: str) -> str:
    return str(api.get(f"/v1/payment/{payment_id}").raise_for_status().json()["payment_status"])


def token(api: httpx.Client) -> dict[str, str]:
    """The header that opens the list."""
    answer = api.post("/v1/auth", json={"email": EMAIL, "password": PASSWORD})
    return {"Authorization": f"Bearer {answer.raise_for_status().json()['token']}"}


def page_of(provider: RunningNowpayments, payment_id: str, language: str = "en") -> httpx.Response:
    return httpx.get(
        f"{provider.url}/pay/{payment_id}", headers={"Accept-Language": language}, trust_env=False
    )


# --- who is answered ---------------------------------------------------------------------------------


@pytest.mark.parametrize("key", ["", f"{KEY}x", "é", f"Bearer {KEY}"])
@pytest.mark.parametrize(
    ("method", "path"), [("POST", "/v1/payment"), ("GET", "/v1/payment/1"), ("GET", "/v1/payment/")]
)
def test_nothing_is_answered_without_the_key(
    provider: RunningNowpayments, method: str, path: str, key: str
) -> None:
    answer = httpx.request(method, provider.url + path, headers={b"x-api-key": key.encode()}, trust_env=False)
    assert (answer.status_code, answer.json()["code"]) == (403, "INVALID_API_KEY")
    assert provider.books()["payments"] == []


def test_books_and_faults_are_for_testers_only(provider: RunningNowpayments) -> None:
    for path in ("/_books", "/_faults"):
        assert httpx.get(provider.url + path, trust_env=False).status_code == 403


@pytest.mark.parametrize(
    "login",
    [{"email": EMAIL, "password": "x"}, {"email": "x", "password": PASSWORD}, {"email": EMAIL}, {}],
    ids=repr,
)
def test_token_is_for_who_knows_the_password(api: httpx.Client, login: dict[str, str]) -> None:
    assert api.post("/v1/auth", json=login).status_code == 401


def test_list_wants_a_token_and_tokens_live_for_five_minutes(api: httpx.Client) -> None:
    assert api.get("/v1/payment/").status_code == 401
    assert api.get("/v1/payment/", headers={"Authorization": "Bearer x"}).status_code == 401
    with time_machine.travel(NOW, tick=False) as clock:
        bearer = token(api)
        clock.move_to(NOW + timedelta(seconds=299))
        assert api.get("/v1/payment/", headers=bearer).status_code == 200
        clock.move_to(NOW + timedelta(seconds=300))
        assert api.get("/v1/payment/", headers=bearer).status_code == 401


@pytest.mark.parametrize("missing", ["key", "secret", "email", "password"])
def test_provider_does_not_start_without_its_credentials(missing: str) -> None:
    given = {"key": KEY, "secret": SECRET, "email": EMAIL, "password": PASSWORD, missing: ""}
    with pytest.raises(ValueError, match="wants a key, a secret, an e-mail address and a password"):
        running_nowpayments(
            key=given["key"], secret=given["secret"], email=given["email"], password=given["password"]
        ).__enter__()


# --- payments ----------------------------------------------------------------------------------------


def test_created_payment_has_its_number_in_a_string_and_later_as_a_number(api: httpx.Client) -> None:
    with time_machine.travel(NOW, tick=False):
        payment = opened(api)
    assert payment == {
        "payment_id": payment["payment_id"],
        "parent_payment_id": None,
        "payment_status": "waiting",
        "pay_address": payment["pay_address"],
        "payin_extra_id": None,
        "price_amount": 49.9,
        "price_currency": "usd",
        "pay_amount": 0.00051444,
        "actually_paid": 0,
        "pay_currency": "btc",
        "order_id": "T-1",
        "order_description": "2 × VIP, 30 days",
        "purchase_id": payment["purchase_id"],
        "outcome_amount": 0,
        "outcome_currency": "btc",
        "payment_extra_ids": None,
        "created_at": "2026-11-23T08:00:00.000Z",
        "updated_at": "2026-11-23T08:00:00.000Z",
    }
    shown = api.get(f"/v1/payment/{payment['payment_id']}").json()
    assert shown == {**payment, "payment_id": int(payment["payment_id"])}


def test_each_creation_makes_a_payment(api: httpx.Client) -> None:
    """As the true provider does: there is no idempotency key (cases 27 and 30)."""
    assert opened(api)["payment_id"] != opened(api)["payment_id"]


@pytest.mark.parametrize(
    "changes",
    [
        {"price_amount": "49.90"},
        {"price_amount": -1},
        {"price_amount": 1e300},
        {"price_amount": 49.901},
        {"price_amount": 0.01},
        {"price_amount": None},
        {"price_currency": "dogecoin"},
        {"pay_currency": "usdttrc20"},
        {"order_id": 5},
        {"order_description": None},
        {"ipn_callback_url": "javascript:alert(1)"},
        {"unknown": 1},
    ],
    ids=repr,
)
def test_payment_that_makes_no_sense_is_refused(
    api: httpx.Client, provider: RunningNowpayments, changes: dict[str, object]
) -> None:
    answer = api.post("/v1/payment", json={**PAYMENT, **changes})
    assert (answer.status_code, answer.json()["status"]) == (400, False)
    assert provider.books()["payments"] == []


@pytest.mark.parametrize("body", [b"", b"[]", b"{", b"\xff", b"[" * 20_000])
def test_body_that_is_no_object_is_refused(api: httpx.Client, body: bytes) -> None:
    answer = api.post("/v1/payment", content=body, headers={"Content-Type": "application/json"})
    assert answer.status_code == 400


def test_form_and_long_bodies_are_refused(api: httpx.Client) -> None:
    assert api.post("/v1/payment", data={"price_amount": "49.90"}).status_code == 415
    assert api.post("/v1/payment", json={**PAYMENT, "order_description": "x" * 70_000}).status_code == 413


def test_payments_are_listed_in_pages_and_by_their_day_without_their_times(api: httpx.Client) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        ids = []
        for day in range(3):
            clock.move_to(NOW + timedelta(days=day))
            ids.append(int(opened(api)["payment_id"]))
        bearer = token(api)

        def listed(**query: object) -> list[int]:
            answer = api.get("/v1/payment/", params={**query}, headers=bearer)  # type: ignore[dict-item]
            return [payment["payment_id"] for payment in answer.raise_for_status().json()["data"]]

        assert listed() == ids
        assert listed(orderBy="desc") == ids[::-1]
        assert (listed(limit=2), listed(limit=2, page=1), listed(limit=2, page=2)) == (ids[:2], ids[2:], [])
        assert listed(dateFrom="2026-11-24", dateTo="2026-11-24T23:59:59.000Z") == [ids[1]]
        page = api.get("/v1/payment/", params={"limit": 2}, headers=bearer).json()
    assert {name: page[name] for name in page if name != "data"} == {
        "limit": 2,
        "page": 0,
        "pagesCount": 2,
        "total": 3,
    }
    assert not {"created_at", "updated_at", "payment_extra_ids"} & set(page["data"][0])


@pytest.mark.parametrize("query", [{"limit": "501"}, {"limit": "0"}, {"page": "-1"}, {"dateFrom": "today"}])
def test_list_that_is_out_of_range_is_refused(api: httpx.Client, query: dict[str, str]) -> None:
    assert api.get("/v1/payment/", params=query, headers=token(api)).status_code == 400


def test_what_is_not_there_is_not_found(api: httpx.Client) -> None:
    answer = api.get("/v1/payment/1")
    assert (answer.status_code, answer.json()["code"]) == (404, "PAYMENT_NOT_FOUND")


@pytest.mark.parametrize(
    ("deeds", "statuses"),
    [
        ([Deed.SEND], ["confirming"]),
        ([Deed.PAY], ["finished"]),
        ([Deed.SEND_PART, Deed.CONFIRM], ["partially_paid"]),
        ([Deed.SEND_PART, Deed.CONFIRM, Deed.PAY], ["partially_paid", "finished"]),
        ([Deed.SEND_MORE, Deed.CONFIRM], ["finished"]),
        ([Deed.PAY, Deed.SEND], ["finished", "confirming"]),
        ([Deed.SEND, Deed.DROP], ["waiting"]),
        ([Deed.PAY, Deed.SEND, Deed.DROP], ["finished", "failed"]),
        ([Deed.SEND_WRONG_COIN], ["waiting", "finished"]),
        ([Deed.FAIL], ["failed"]),
        ([Deed.EXPIRE], ["expired"]),
        ([Deed.EXPIRE, Deed.PAY], ["finished"]),
        ([Deed.PAY, Deed.FAIL, Deed.EXPIRE], ["finished"]),
        ([Deed.REFUND], ["waiting"]),
        ([Deed.PAY, Deed.REFUND], ["refunded"]),
    ],
    ids="-".join,
)
def test_first_coins_are_the_payments_and_the_next_are_payments_of_their_own(
    api: httpx.Client, provider: RunningNowpayments, deeds: list[Deed], statuses: list[str]
) -> None:
    payment_id = opened(api)["payment_id"]
    for deed in deeds:
        provider.do(payment_id, deed)
    payments = provider.books()["payments"]
    assert [payment["status"] for payment in payments] == statuses
    assert [payment["parent"] for payment in payments] == [None, payment_id][: len(statuses)]
    children = [int(payment["id"]) for payment in payments[1:]]
    assert api.get(f"/v1/payment/{payment_id}").json()["payment_extra_ids"] == (children or None)


def test_address_waits_for_seven_days(api: httpx.Client) -> None:
    with time_machine.travel(NOW, tick=False) as clock:
        payment_id = opened(api)["payment_id"]
        clock.move_to(NOW + timedelta(days=7) - timedelta(seconds=1))
        assert status_of(api, payment_id) == "waiting"
        clock.move_to(NOW + timedelta(days=7))
        assert status_of(api, payment_id) == "expired"


def test_small_numbers_are_written_as_by_javascript(api: httpx.Client, provider: RunningNowpayments) -> None:
    payment_id = opened(api)["payment_id"]
    provider.do(payment_id, Deed.SEND, "0.00000044")
    assert '"actually_paid":4.4e-7,' in api.get(f"/v1/payment/{payment_id}").text


# --- notifications and faults ------------------------------------------------------------------------


def test_notifications_are_signed_over_their_sorted_letters_and_tell_the_story(
    api: httpx.Client, provider: RunningNowpayments, shop: Listener
) -> None:
    payment_id = opened(api, ipn_callback_url=f"{shop.url}/webhooks/nowpayments/")["payment_id"]
    provider.do(payment_id, Deed.PAY)
    provider.wait_for_webhooks()
    notifications = shop.rest()
    assert sorted(json.loads(each.body)["payment_status"] for each in notifications) == [
        "confirming",
        "finished",
    ]
    for each in notifications:
        # No float among the values of this one loses a digit.
        letters = json.dumps(json.loads(each.body), sort_keys=True, separators=(",", ":"), ensure_ascii=False)
        letters = letters.replace("4.4e-07", "4.4e-7")
        good = hmac.new(SECRET.encode(), letters.encode(), hashlib.sha512).hexdigest()
        assert (each.path, each.headers["x-nowpayments-sig"]) == ("/webhooks/nowpayments/", good)


def test_errors_happen_as_often_as_was_said_and_do_nothing(
    api: httpx.Client, provider: RunningNowpayments
) -> None:
    provider.set_faults(errors=3)
    login = {"email": EMAIL, "password": PASSWORD}
    assert api.post("/v1/auth", json=login).status_code == 500
    assert api.post("/v1/payment", json=PAYMENT).status_code == 500
    assert api.get("/v1/payment/1").status_code == 500
    assert provider.books()["payments"] == []
    assert api.post("/v1/payment", json=PAYMENT).status_code == 201


def test_answer_is_lost_after_the_deed_and_only_of_what_changes_something(
    api: httpx.Client, provider: RunningNowpayments
) -> None:
    provider.set_faults(lost_answers=1)
    assert api.get("/v1/payment/1").status_code == 404
    assert token(api)
    with pytest.raises(httpx.HTTPError):
        api.post("/v1/payment", json=PAYMENT)
    assert len(provider.books()["payments"]) == 1


def test_payments_outlive_a_restart(settings: Settings, shop: Listener, tmp_path: Path) -> None:
    books = str(tmp_path / "books.sqlite3")
    for statuses in (["finished"], ["finished", "finished"]):
        with configured_nowpayments(settings, books=books) as provider:
            headers = provider.credentials()
            with httpx.Client(base_url=provider.url, headers=headers, trust_env=False) as api:
                provider.do(opened(api)["payment_id"], Deed.PAY)
            assert [payment["status"] for payment in provider.books()["payments"]] == statuses


# --- the tester's pages ------------------------------------------------------------------------------


def test_page_shows_what_is_sent_where_and_that_it_is_a_test(
    api: httpx.Client, provider: RunningNowpayments
) -> None:
    payment = opened(api)
    page = page_of(provider, payment["payment_id"]).text
    for words in (
        payment["pay_address"],
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
def test_pages_speak_the_language_of_the_browser(
    api: httpx.Client, provider: RunningNowpayments, accepted: str, language: str
) -> None:
    assert f'<html lang="{language}">' in page_of(provider, opened(api)["payment_id"], accepted).text
    everything = httpx.get(provider.url, headers={"Accept-Language": accepted}, trust_env=False)
    assert f'<html lang="{language}">' in everything.text


def test_what_the_shop_sends_is_shown_as_text(api: httpx.Client, provider: RunningNowpayments) -> None:
    payment = opened(api, order_description="<script>alert(1)</script>", order_id="<i>")
    for page in (page_of(provider, payment["payment_id"]), httpx.get(provider.url, trust_env=False)):
        assert ("<script>" in page.text, "<i>" in page.text, "&lt;i&gt;" in page.text) == (False, False, True)


def test_page_allows_no_script_no_frame_and_no_form_but_to_itself(
    api: httpx.Client, provider: RunningNowpayments
) -> None:
    policy = page_of(provider, opened(api)["payment_id"]).headers["Content-Security-Policy"]
    assert policy == (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; form-action 'self'"
    )


def test_all_payments_are_listed_for_the_tester_and_none_is_no_error(
    api: httpx.Client, provider: RunningNowpayments
) -> None:
    assert "Nobody has begun to pay yet." in httpx.get(provider.url, trust_env=False).text
    payment_id = opened(api)["payment_id"]
    assert f'href="{provider.url}/pay/{payment_id}"' in httpx.get(provider.url, trust_env=False).text


def test_all_addresses_are_below_the_name_that_the_demo_gives_it() -> None:
    root = Sandbox(key=SANDBOX_KEY, secret=SANDBOX_SECRET, books=":memory:")
    below = Nowpayments(key=KEY, secret=SECRET, email=EMAIL, password=PASSWORD, books=":memory:")
    with Listening(Together(root, {"nowpayments": below}), host="127.0.0.1", port=0) as listening:
        base = f"{listening.url}/nowpayments"
        with httpx.Client(base_url=base, headers={"x-api-key": KEY}, trust_env=False) as api:
            page = f"{base}/pay/{opened(api)['payment_id']}"
            assert f'href="{page}"' in api.get("/").text
            assert f'<a href="{base}/">' in api.get(page).text
            assert api.post(page, data={"deed": "pay"}).headers["location"] == page


@pytest.mark.parametrize(
    ("deed", "words"),
    [
        (Deed.SEND, "The coins are on their way: they are not confirmed yet."),
        (Deed.PAY, "This payment has been paid."),
        (Deed.FAIL, "This payment has failed."),
        (Deed.EXPIRE, "The time to pay is over."),
    ],
)
def test_page_says_what_became_of_the_payment(
    api: httpx.Client, provider: RunningNowpayments, deed: Deed, words: str
) -> None:
    payment_id = opened(api)["payment_id"]
    assert "The address waits for coins." in page_of(provider, payment_id).text
    provider.do(payment_id, deed)
    assert words in page_of(provider, payment_id).text


def test_partly_paid_payment_asks_for_the_rest(api: httpx.Client, provider: RunningNowpayments) -> None:
    payment_id = opened(api)["payment_id"]
    provider.do(payment_id, Deed.SEND, "0.0005")
    provider.do(payment_id, Deed.CONFIRM)
    page = page_of(provider, payment_id).text
    assert ("Coins have come, but too few." in page, "Send 0.00001444 BTC and confirm" in page) == (
        True,
        True,
    )


@pytest.mark.parametrize(
    "fields",
    [{"deed": "rob"}, {}] + [{"deed": "send", "coins": coins} for coins in ("-1", "0", "x", "NaN", "1e9")],
    ids=repr,
)
def test_deed_that_cannot_be_changes_nothing(
    api: httpx.Client, provider: RunningNowpayments, fields: dict[str, str]
) -> None:
    payment_id = opened(api)["payment_id"]
    answer = httpx.post(f"{provider.url}/pay/{payment_id}", data=fields, trust_env=False)
    assert (answer.status_code, status_of(api, payment_id)) == (400, "waiting")


def test_unknown_payment_has_a_page_that_says_so(provider: RunningNowpayments) -> None:
    answer = page_of(provider, "1")
    assert (answer.status_code, "There is no such payment." in answer.text) == (404, True)
    assert provider.do("1", Deed.PAY).status_code == 404
