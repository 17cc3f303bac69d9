"""PayPal's emulator by itself: tokens, orders, keys, signatures, its books and its approval page."""

import base64
import json
import zlib
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from Cryptodome.Hash import SHA256
from Cryptodome.PublicKey import RSA
from Cryptodome.Signature import pkcs1_15
from django.utils.translation import override, pgettext
from pytest_django import Settings

from orders.gateways.emulators.paypal import Outcome
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.tests.backstage_paypal import (
    PAYPAL_CLIENT_ID,
    PAYPAL_CLIENT_SECRET,
    PAYPAL_WEBHOOK_ID,
    configured_paypal,
)
from orders.tests.gateway_servers import Listener

RETURN_URL = "http://127.0.0.1:8000/orders/VM-1/paid/"


@pytest.fixture
def paypal(shop: Listener, settings: Settings) -> Iterator[RunningPayPal]:
    with configured_paypal(settings) as running:
        yield running


def token_of(paypal: RunningPayPal, **changes: Any) -> httpx.Response:
    arguments: dict[str, Any] = {
        "auth": (PAYPAL_CLIENT_ID, PAYPAL_CLIENT_SECRET),
        "data": {"grant_type": "client_credentials"},
        **changes,
    }
    return httpx.post(f"{paypal.url}/v1/oauth2/token", trust_env=False, **arguments)


@pytest.fixture
def api(paypal: RunningPayPal) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {token_of(paypal).json()['access_token']}"}
    with httpx.Client(base_url=paypal.url, headers=headers, trust_env=False) as client:
        yield client


def asked(
    *,
    unit: Mapping[str, object] | None = None,
    context: Mapping[str, object] | None = None,
    **changes: object,
) -> dict[str, object]:
    return {
        "intent": "CAPTURE",
        "purchase_units": [
            {
                "reference_id": "T-1",
                "custom_id": "T-1",
                "invoice_id": "T-1",
                "description": "VIP, 30 days",
                "amount": {"currency_code": "USD", "value": "49.90"},
                **(unit or {}),
            }
        ],
        "payment_source": {
            "paypal": {
                "experience_context": {
                    "brand_name": "VMOS Cloud",
                    "locale": "en-US",
                    "return_url": RETURN_URL,
                    "cancel_url": "http://127.0.0.1:8000/orders/VM-1/",
                    "user_action": "PAY_NOW",
                    "shipping_preference": "NO_SHIPPING",
                    **(context or {}),
                }
            }
        },
        **changes,
    }


def keyed(key: str) -> dict[str, str]:
    return {"PayPal-Request-Id": key}


def create(api: httpx.Client, key: str = "k", **changes: Any) -> Any:
    answer = api.post("/v2/checkout/orders", json=asked(**changes), headers=keyed(key))
    assert answer.status_code == 201, answer.text
    return answer.json()


def page_of(order: Any) -> str:
    (url,) = (link["href"] for link in order["links"] if link["rel"] == "payer-action")
    return str(url)


def capture(api: httpx.Client, order: Any) -> httpx.Response:
    return api.post(f"/v2/checkout/orders/{order['id']}/capture", json={}, headers=keyed("c"))


def paid(api: httpx.Client, paypal: RunningPayPal, **changes: Any) -> tuple[str, str]:
    """The address of the page and the id of the capture of an order that is paid."""
    order = create(api, **changes)
    paypal.decide(page_of(order))
    content = capture(api, order).json()
    return page_of(order), content["purchase_units"][0]["payments"]["captures"][0]["id"]


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["details"][0]["issue"]


# --- tokens ------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "auth", [None, ("x", PAYPAL_CLIENT_SECRET), (PAYPAL_CLIENT_ID, "x"), (PAYPAL_CLIENT_ID, "")]
)
def test_strangers_get_no_token(paypal: RunningPayPal, auth: tuple[str, str] | None) -> None:
    answer = token_of(paypal, auth=auth)
    assert (answer.status_code, answer.json()["error"]) == (401, "invalid_client")


def test_token_is_not_given_with_the_key_of_another_request(paypal: RunningPayPal) -> None:
    assert token_of(paypal, headers=keyed("T-1:create")).status_code == 400


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v2/checkout/orders"),
        ("GET", "/v2/checkout/orders/X"),
        ("PATCH", "/v2/checkout/orders/X"),
        ("POST", "/v2/checkout/orders/X/capture"),
        ("GET", "/v2/payments/captures/X"),
        ("POST", "/v2/payments/captures/X/refund"),
        ("GET", "/v1/customer/disputes"),
        ("GET", "/v1/customer/disputes/X"),
        ("GET", "/v1/reporting/transactions"),
        ("POST", "/v1/notifications/verify-webhook-signature"),
    ],
)
@pytest.mark.parametrize(
    "authorization", [None, "Bearer wrong", f"Bearer {PAYPAL_CLIENT_SECRET}", "Basic YTpi"]
)
def test_nothing_is_answered_without_a_token(
    paypal: RunningPayPal, method: str, path: str, authorization: str | None
) -> None:
    headers = {"Authorization": authorization} if authorization else {}
    assert error(httpx.request(method, paypal.url + path, headers=headers, trust_env=False)) == (
        401,
        "invalid_token",
    )


def test_token_has_its_time_and_can_be_taken_back(api: httpx.Client, paypal: RunningPayPal) -> None:
    assert api.get("/v1/customer/disputes").status_code == 200
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=9, seconds=1)):
        assert api.get("/v1/customer/disputes").status_code == 401
    paypal.take_tokens_back()
    assert api.get("/v1/customer/disputes").status_code == 401


@pytest.mark.parametrize(
    ("method", "path"), [("GET", "/_books"), ("POST", "/_faults"), ("DELETE", "/_tokens")]
)
def test_knobs_want_the_secret_and_no_token(api: httpx.Client, method: str, path: str) -> None:
    assert api.request(method, path).status_code == 401


# --- orders ------------------------------------------------------------------------------------------


def test_created_order_waits_for_its_buyer(api: httpx.Client, paypal: RunningPayPal) -> None:
    order = create(api)
    assert (order["status"], order["intent"]) == ("PAYER_ACTION_REQUIRED", "CAPTURE")
    assert order["purchase_units"] == [
        {
            "reference_id": "T-1",
            "amount": {"currency_code": "USD", "value": "49.90"},
            "description": "VIP, 30 days",
            "custom_id": "T-1",
            "invoice_id": "T-1",
        }
    ]
    assert page_of(order) == f"{paypal.url}/checkoutnow?token={order['id']}"


def test_key_answers_what_it_made_for_six_hours_whatever_is_asked_with_it(api: httpx.Client) -> None:
    order = create(api)
    again = api.post("/v2/checkout/orders", json={}, headers=keyed("k"))
    assert (again.status_code, again.json()) == (200, order)
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=6, seconds=1)):
        assert create(api)["id"] != order["id"]


def test_eight_creations_at_once_with_one_key_are_one_order(api: httpx.Client, paypal: RunningPayPal) -> None:
    def ask(_number: int) -> int:
        return api.post("/v2/checkout/orders", json=asked(), headers=keyed("k")).status_code

    with ThreadPoolExecutor(8) as pool:
        assert sorted(pool.map(ask, range(8))) == [200] * 7 + [201]
    assert len(paypal.books()["orders"]) == 1


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        ({"intent": "SALE"}, (400, "MISSING_REQUIRED_PARAMETER")),
        ({"purchase_units": []}, (400, "MISSING_REQUIRED_PARAMETER")),
        ({"payment_source": {}}, (400, "MISSING_REQUIRED_PARAMETER")),
        (
            {"unit": {"amount": {"currency_code": "USD", "value": 49.9}}},
            (400, "MISSING_REQUIRED_PARAMETER"),
        ),
        ({"unit": {"amount": {"currency_code": "USD", "value": "49.999"}}}, (422, "DECIMAL_PRECISION")),
        ({"unit": {"amount": {"currency_code": "JPY", "value": "499.00"}}}, (422, "DECIMALS_NOT_SUPPORTED")),
        (
            {"unit": {"amount": {"currency_code": "USD", "value": "0.00"}}},
            (422, "CANNOT_BE_ZERO_OR_NEGATIVE"),
        ),
        ({"unit": {"amount": {"currency_code": "CNY", "value": "1.00"}}}, (422, "CURRENCY_NOT_SUPPORTED")),
        ({"unit": {"description": "x" * 128}}, (400, "INVALID_STRING_LENGTH")),
        ({"unit": {"invoice_id": ""}}, (400, "INVALID_PARAMETER_SYNTAX")),
        ({"context": {"return_url": "javascript:alert(1)"}}, (400, "INVALID_PARAMETER_SYNTAX")),
        ({"context": {"cancel_url": "http://shop.example; script-src *"}}, (400, "INVALID_PARAMETER_SYNTAX")),
    ],
    ids=repr,
)
def test_order_that_makes_no_sense_is_refused(
    api: httpx.Client, paypal: RunningPayPal, changes: dict[str, Any], refusal: tuple[int, str]
) -> None:
    answer = api.post("/v2/checkout/orders", json=asked(**changes), headers=keyed("k"))
    assert error(answer) == refusal
    assert paypal.books()["orders"] == []


def test_request_needs_a_key_and_json(api: httpx.Client) -> None:
    assert error(api.post("/v2/checkout/orders", json=asked())) == (400, "PAYPAL_REQUEST_ID_REQUIRED")
    assert error(api.post("/v2/checkout/orders", content=b"{", headers=keyed("k")))[0] == 415
    headers = {**keyed("k"), "Content-Type": "application/json"}
    for body in (b"{", b"\xff", b"[" * 50_000):
        answer = api.post("/v2/checkout/orders", content=body, headers=headers)
        assert error(answer) == (400, "MALFORMED_REQUEST_JSON")


def test_order_is_captured_once_and_only_when_it_is_approved(
    api: httpx.Client, paypal: RunningPayPal
) -> None:
    order = create(api)
    assert error(capture(api, order)) == (422, "ORDER_NOT_APPROVED")
    paypal.decide(page_of(order))
    assert capture(api, order).status_code == 201
    assert error(capture(api, order)) == (422, "ORDER_ALREADY_CAPTURED")


def test_order_whose_intent_was_changed_is_not_captured(api: httpx.Client, paypal: RunningPayPal) -> None:
    order = create(api)
    paypal.decide(page_of(order))
    patch = [{"op": "replace", "path": "/intent", "value": "AUTHORIZE"}]
    assert api.patch(f"/v2/checkout/orders/{order['id']}", json=patch).status_code == 204
    assert error(capture(api, order)) == (422, "ACTION_DOES_NOT_MATCH_INTENT")


def test_completed_order_cannot_be_changed_and_the_amount_never(
    api: httpx.Client, paypal: RunningPayPal
) -> None:
    order = create(api)
    path = f"/v2/checkout/orders/{order['id']}"
    assert error(api.patch(path, json=[{"op": "replace", "path": "/status", "value": "COMPLETED"}])) == (
        422,
        "NOT_PATCHABLE",
    )
    paypal.decide(page_of(order))
    capture(api, order)
    patch = [{"op": "replace", "path": "/intent", "value": "AUTHORIZE"}]
    assert error(api.patch(path, json=patch)) == (422, "ORDER_ALREADY_COMPLETED")


def test_unknown_things_are_not_found(api: httpx.Client) -> None:
    for path in ("/v2/checkout/orders/X", "/v2/payments/captures/X", "/v1/customer/disputes/X"):
        assert error(api.get(path)) == (404, "INVALID_RESOURCE_ID")


# --- refunds -----------------------------------------------------------------------------------------


def refund(
    api: httpx.Client, capture_id: str, value: str, key: str = "R-1", **changes: object
) -> httpx.Response:
    body = {
        "amount": {"currency_code": "USD", "value": value},
        "invoice_id": key,
        "custom_id": "T-1",
        **changes,
    }
    return api.post(f"/v2/payments/captures/{capture_id}/refund", json=body, headers=keyed(key))


def test_refunds_take_what_is_left_and_no_more(api: httpx.Client, paypal: RunningPayPal) -> None:
    _page, capture_id = paid(api, paypal)
    statuses = []
    assert error(refund(api, capture_id, "49.91")) == (422, "REFUND_AMOUNT_EXCEEDED")
    for value, key in (("20.00", "R-1"), ("29.90", "R-2")):
        assert refund(api, capture_id, value, key).status_code == 201
        statuses.append(api.get(f"/v2/payments/captures/{capture_id}").json()["status"])
    assert statuses == ["PARTIALLY_REFUNDED", "REFUNDED"]
    assert error(refund(api, capture_id, "0.01", "R-3")) == (422, "CAPTURE_FULLY_REFUNDED")


def test_refund_asked_for_again_is_the_same_for_45_days(api: httpx.Client, paypal: RunningPayPal) -> None:
    _page, capture_id = paid(api, paypal)
    first = refund(api, capture_id, "10.00")
    again = refund(api, capture_id, "20.00")
    assert (again.status_code, again.json()) == (200, first.json())
    with time_machine.travel(datetime.now(UTC) + timedelta(days=45, seconds=1)):
        api.headers["Authorization"] = f"Bearer {token_of(paypal).json()['access_token']}"
        assert refund(api, capture_id, "20.00").status_code == 201


def test_refund_in_another_currency_or_of_what_is_held_is_refused(
    api: httpx.Client, paypal: RunningPayPal
) -> None:
    _page, capture_id = paid(api, paypal)
    in_yen = {"currency_code": "JPY", "value": "1"}
    assert error(refund(api, capture_id, "1.00", amount=in_yen)) == (422, "REFUND_CAPTURE_CURRENCY_MISMATCH")
    order = create(api, "k2")
    paypal.decide(page_of(order), Outcome.HOLD)
    held = capture(api, order).json()["purchase_units"][0]["payments"]["captures"][0]
    assert held["status"] == "PENDING"
    assert error(refund(api, held["id"], "1.00")) == (422, "INVALID_RESOURCE_STATE")


def test_refund_that_failed_can_be_made_again(api: httpx.Client, paypal: RunningPayPal) -> None:
    url, capture_id = paid(api, paypal)
    paypal.decide(url, Outcome.DELAY_REFUNDS)
    assert refund(api, capture_id, "49.90").json()["status"] == "PENDING"
    assert error(refund(api, capture_id, "0.01", "R-2")) == (422, "CAPTURE_FULLY_REFUNDED")
    paypal.decide(url, Outcome.FAIL_REFUNDS)
    assert refund(api, capture_id, "49.90", "R-2").status_code == 201


# --- signatures --------------------------------------------------------------------------------------


def verification(shop: Listener, **changes: object) -> tuple[dict[str, object], bytes]:
    """What a shop asks about the next webhook, and the webhook's bytes."""
    webhook = shop.next()
    parts = {
        "auth_algo": webhook.headers["paypal-auth-algo"],
        "cert_url": webhook.headers["paypal-cert-url"],
        "transmission_id": webhook.headers["paypal-transmission-id"],
        "transmission_sig": webhook.headers["paypal-transmission-sig"],
        "transmission_time": webhook.headers["paypal-transmission-time"],
        "webhook_id": PAYPAL_WEBHOOK_ID,
        **changes,
    }
    return parts, webhook.body


def verify(api: httpx.Client, parts: Mapping[str, object], event: bytes) -> object:
    content = json.dumps(parts)[:-1].encode() + b', "webhook_event": ' + event + b"}"
    headers = {"Content-Type": "application/json"}
    answer = api.post("/v1/notifications/verify-webhook-signature", content=content, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json()["verification_status"]


def test_webhook_is_signed_as_paypal_does(api: httpx.Client, paypal: RunningPayPal, shop: Listener) -> None:
    paypal.decide(page_of(create(api)))
    parts, body = verification(shop)
    certificate = httpx.get(str(parts["cert_url"]), trust_env=False).content
    signed = f"{parts['transmission_id']}|{parts['transmission_time']}|{PAYPAL_WEBHOOK_ID}|{zlib.crc32(body)}"
    pkcs1_15.new(RSA.import_key(certificate)).verify(
        SHA256.new(signed.encode()), base64.b64decode(str(parts["transmission_sig"]))
    )


def test_own_webhook_is_confirmed_by_its_bytes_only(
    api: httpx.Client, paypal: RunningPayPal, shop: Listener
) -> None:
    paypal.decide(page_of(create(api)))
    parts, body = verification(shop)
    assert verify(api, parts, body) == "SUCCESS"
    assert verify(api, parts, json.dumps(json.loads(body)).encode()) == "FAILURE"
    assert verify(api, parts, body.replace(b"T-1", b"T-2")) == "FAILURE"


@pytest.mark.parametrize(
    "changes",
    [
        {"webhook_id": "0WEBHOOK0OF0OTHERS"},
        {"cert_url": "https://evil.example/cert"},
        {"transmission_id": "69cd13f0-d67a-11e5-baa3-778b53f4ae55"},
        {"transmission_time": "2026-11-23T08:00:00Z"},
        {"transmission_sig": "?"},
        {"transmission_sig": base64.b64encode(b"\0" * 256).decode()},
    ],
    ids=repr,
)
def test_webhook_of_others_is_not_confirmed(
    api: httpx.Client, paypal: RunningPayPal, shop: Listener, changes: dict[str, object]
) -> None:
    paypal.decide(page_of(create(api)))
    parts, body = verification(shop, **changes)
    assert verify(api, parts, body) == "FAILURE"


def test_wrong_key_signs_what_is_not_confirmed(
    api: httpx.Client, paypal: RunningPayPal, shop: Listener
) -> None:
    paypal.set_faults(wrong_key=1)
    paypal.decide(page_of(create(api)))
    assert verify(api, *verification(shop)) == "FAILURE"


def test_question_about_a_webhook_must_be_whole(api: httpx.Client) -> None:
    answer = api.post("/v1/notifications/verify-webhook-signature", json={"webhook_event": {}})
    assert error(answer) == (400, "VALIDATION_ERROR")


def test_unknown_certificate_is_not_found(paypal: RunningPayPal) -> None:
    answer = httpx.get(f"{paypal.url}/v1/notifications/certs/CERT-1", trust_env=False)
    assert answer.status_code == 404


# --- the books ---------------------------------------------------------------------------------------


def lines(api: httpx.Client, **query: str) -> Any:
    now = datetime.now(UTC)
    period = {
        "start_date": (now - timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
        "end_date": (now + timedelta(days=1)).strftime("%Y-%m-%dT%H:%M:%SZ"),
    }
    return api.get("/v1/reporting/transactions", params={**period, **query})


def test_transactions_are_listed_with_codes_and_signs(api: httpx.Client, paypal: RunningPayPal) -> None:
    url, capture_id = paid(api, paypal)
    refund(api, capture_id, "10.00")
    paypal.decide(url, Outcome.CHARGE_BACK)
    paypal.decide(url, Outcome.WIN)
    found = [line["transaction_info"] for line in lines(api).json()["transaction_details"]]
    assert sorted(
        (info["transaction_event_code"], info["transaction_amount"]["value"], info["transaction_status"])
        for info in found
    ) == [
        ("T0006", "49.90", "S"),
        ("T1107", "-10.00", "S"),
        ("T1201", "-49.90", "S"),
        ("T1202", "49.90", "S"),
    ]
    assert {info["custom_field"] for info in found} == {"T-1"}


def test_transactions_come_in_pages_and_for_31_days_at_most(api: httpx.Client, paypal: RunningPayPal) -> None:
    for number in range(3):
        paid(api, paypal, key=f"k{number}")
    second = lines(api, page="2", page_size="2").json()
    assert (len(second["transaction_details"]), second["total_pages"], second["total_items"]) == (1, 2, 3)
    assert error(lines(api, start_date="2020-01-01T00:00:00Z")) == (400, "INVALID_REQUEST")
    assert error(lines(api, start_date="yesterday")) == (400, "INVALID_REQUEST")


def test_disputes_are_found_by_their_capture_and_their_outcome_is_in_the_details(
    api: httpx.Client, paypal: RunningPayPal
) -> None:
    url, capture_id = paid(api, paypal)
    paypal.decide(url, Outcome.INQUIRE)
    paypal.decide(url, Outcome.LOSE)
    (summary,) = api.get("/v1/customer/disputes", params={"disputed_transaction_id": capture_id}).json()[
        "items"
    ]
    assert (summary["status"], summary["dispute_life_cycle_stage"]) == ("RESOLVED", "INQUIRY")
    assert "dispute_outcome" not in summary
    details = api.get(f"/v1/customer/disputes/{summary['dispute_id']}").json()
    assert details["dispute_outcome"] == {"outcome_code": "RESOLVED_BUYER_FAVOUR"}
    assert api.get("/v1/customer/disputes", params={"disputed_transaction_id": "X"}).json()["items"] == []


def test_orders_and_tokens_outlive_a_restart(shop: Listener, settings: Settings, tmp_path: Path) -> None:
    books = str(tmp_path / "books.sqlite3")
    with configured_paypal(settings, books=books) as before:
        headers = {"Authorization": f"Bearer {token_of(before).json()['access_token']}"}
        with httpx.Client(base_url=before.url, headers=headers, trust_env=False) as api:
            _page, capture_id = paid(api, before)
    with configured_paypal(settings, books=books) as after:
        kept = httpx.get(
            f"{after.url}/v2/payments/captures/{capture_id}", headers=headers, trust_env=False
        ).json()
    assert (kept["id"], kept["status"]) == (capture_id, "COMPLETED")


def test_errors_come_as_often_as_set_and_lost_answers_only_where_something_was_done(
    api: httpx.Client, paypal: RunningPayPal
) -> None:
    order = create(api)
    paypal.set_faults(errors=1, lost_answers=1)
    path = f"/v2/checkout/orders/{order['id']}"
    assert [api.get(path).status_code for _time in range(3)] == [500, 200, 200]
    with pytest.raises(httpx.RemoteProtocolError):
        api.post("/v2/checkout/orders", json=asked(), headers=keyed("k2"))
    assert len(paypal.books()["orders"]) == 2


# --- the approval page -------------------------------------------------------------------------------


def page(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def test_page_shows_what_is_paid_to_whom_and_that_it_is_a_test(api: httpx.Client) -> None:
    order = create(api)
    answer = page(page_of(order))
    assert answer.status_code == 200
    for shown in ("VMOS Cloud", "$49.90", "VIP, 30 days", "T-1", order["id"], "Test mode", "Pay now"):
        assert shown in answer.text
    assert '<html lang="en">' in answer.text


@pytest.mark.parametrize(
    ("locale", "language"), [("zh-CN", "zh-hans"), ("zh-HK", "zh-hant"), ("fr-FR", "en")]
)
def test_page_speaks_the_language_of_the_order(api: httpx.Client, locale: str, language: str) -> None:
    answer = page(page_of(create(api, context={"locale": locale})))
    assert f'<html lang="{language}">' in answer.text
    with override(language):
        assert f">{pgettext('payment page', 'Pay now')}</button>" in answer.text


def test_what_the_shop_sends_is_shown_as_text(api: httpx.Client) -> None:
    attack = "<script>alert(1)</script>\"'&"
    text = page(page_of(create(api, unit={"description": attack}))).text
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text


def test_page_allows_no_script_no_frame_and_no_form_but_to_itself_and_the_shop(api: httpx.Client) -> None:
    headers = page(page_of(create(api))).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "form-action 'self' http://127.0.0.1:8000"
    )


@pytest.mark.parametrize(
    ("outcome", "address"),
    [
        (Outcome.APPROVE, RETURN_URL),
        (Outcome.HOLD, RETURN_URL),
        (Outcome.CANCEL, "http://127.0.0.1:8000/orders/VM-1/"),
    ],
)
def test_decision_leads_back_to_the_shop_with_the_order(
    api: httpx.Client, paypal: RunningPayPal, outcome: Outcome, address: str
) -> None:
    order = create(api)
    answer = paypal.decide(page_of(order), outcome)
    assert (answer.status_code, answer.headers["location"]) == (303, f"{address}?token={order['id']}")


def test_who_approves_and_leaves_stays_on_the_page(api: httpx.Client, paypal: RunningPayPal) -> None:
    order = create(api)
    answer = paypal.decide(page_of(order), Outcome.APPROVE_AND_LEAVE)
    assert answer.headers["location"] == page_of(order)
    text = page(page_of(order)).text
    assert "The shop has not collected it yet." in text
    assert "<button" not in text


def test_second_decision_changes_nothing(api: httpx.Client, paypal: RunningPayPal, shop: Listener) -> None:
    order = create(api)
    for outcome in (Outcome.APPROVE, Outcome.APPROVE, Outcome.DECLINE, Outcome.CANCEL, Outcome.WIN):
        assert paypal.decide(page_of(order), outcome).status_code == 303
    assert capture(api, order).json()["purchase_units"][0]["payments"]["captures"][0]["status"] == "COMPLETED"
    assert len(paypal.books()["deliveries"]) == 2


@pytest.mark.parametrize(
    ("outcome", "words", "next_outcomes"),
    [
        (Outcome.APPROVE, "has been paid", ["delay-refunds", "refund-here", "inquire", "charge-back"]),
        (Outcome.DECLINE, "has been declined", []),
        (Outcome.HOLD, "is held for a review", ["release", "deny"]),
        (Outcome.REFUSE_CARD, "Pay now", ["approve-and-leave", "refuse-card", "decline", "hold"]),
    ],
)
def test_collected_payment_shows_what_became_of_it_and_what_can_come(
    api: httpx.Client, paypal: RunningPayPal, outcome: Outcome, words: str, next_outcomes: list[str]
) -> None:
    order = create(api)
    paypal.decide(page_of(order), outcome)
    capture(api, order)
    text = page(page_of(order)).text
    assert words in text
    _buyers, _details, testers = text.partition("<details>")
    assert [part.split('"')[0] for part in testers.split('value="')[1:]] == next_outcomes


def test_approval_is_taken_back_after_three_hours_and_told(
    api: httpx.Client, paypal: RunningPayPal, shop: Listener
) -> None:
    order = create(api)
    paypal.decide(page_of(order))
    with time_machine.travel(datetime.now(UTC) + timedelta(hours=3, seconds=1)):
        assert "The time to pay is over." in page(page_of(order)).text
        assert error(capture(api, order)) == (422, "ORDER_NOT_APPROVED")
    paypal.wait_for_webhooks()
    assert [json.loads(request.body)["event_type"] for request in shop.rest()] == [
        "CHECKOUT.ORDER.APPROVED",
        "CHECKOUT.PAYMENT-APPROVAL.REVERSED",
    ]


def test_decision_that_does_not_exist_and_order_that_does_not_exist(
    api: httpx.Client, paypal: RunningPayPal
) -> None:
    order = create(api)
    assert httpx.post(page_of(order), data={"outcome": "steal"}, trust_env=False).status_code == 400
    assert paypal.decide(f"{paypal.url}/checkoutnow?token=X").status_code == 404
    unknown = page(f"{paypal.url}/checkoutnow?token=X")
    assert unknown.status_code == 404
    assert "There is no such payment." in unknown.text
