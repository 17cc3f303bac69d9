"""Stripe's emulator by itself: its API, its payment page and what it remembers."""

from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
import time_machine
from django.utils.translation import override, pgettext
from pytest_django import Settings

from orders.gateways.emulators.running_stripe import RunningStripe, running_stripe
from orders.gateways.emulators.stripe import Outcome, Stripe
from orders.tests.backstage_stripe import STRIPE_KEY, STRIPE_SECRET, configured_stripe
from orders.tests.gateway_servers import Listener

HEADERS = {"Authorization": f"Bearer {STRIPE_KEY}", "Stripe-Version": "2026-10-28.endive"}


@pytest.fixture
def stripe(shop: Listener, settings: Settings) -> Iterator[RunningStripe]:
    with configured_stripe(settings) as running:
        yield running


@pytest.fixture
def api(stripe: RunningStripe) -> Iterator[httpx.Client]:
    with httpx.Client(base_url=stripe.url, headers=HEADERS, trust_env=False) as client:
        yield client


def asked(**changes: str) -> dict[str, str]:
    return {
        "mode": "payment",
        "client_reference_id": "T-1",
        "success_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
        "cancel_url": "http://127.0.0.1:8000/orders/VM-1/",
        "expires_at": str(int(datetime.now(UTC).timestamp()) + 3600),
        "locale": "en",
        "adaptive_pricing[enabled]": "false",
        "allowed_payment_method_types[0]": "card",
        "line_items[0][quantity]": "1",
        "line_items[0][price_data][currency]": "usd",
        "line_items[0][price_data][unit_amount]": "4990",
        "line_items[0][price_data][product_data][name]": "VIP, 30 days",
        "metadata[payment]": "T-1",
        "payment_intent_data[metadata][payment]": "T-1",
        **changes,
    }


def create(api: httpx.Client, form: Mapping[str, str] | None = None, *, key: str = "k") -> Any:
    answer = api.post("/v1/checkout/sessions", data=form or asked(), headers={"Idempotency-Key": key})
    assert answer.status_code == 200, answer.text
    return answer.json()


def post(api: httpx.Client, path: str, form: Mapping[str, str], *, key: str = "other") -> httpx.Response:
    return api.post(path, data=form, headers={"Idempotency-Key": key})


def error(answer: httpx.Response) -> tuple[int, str, str]:
    content = answer.json()["error"]
    return answer.status_code, content["type"], content.get("code", "")


def paid(api: httpx.Client, stripe: RunningStripe, form: Mapping[str, str] | None = None) -> Any:
    session = create(api, form)
    stripe.decide(session["url"])
    return api.get(f"/v1/checkout/sessions/{session['id']}").json()


INVALID = (400, "invalid_request_error", "")
UNKNOWN = (400, "invalid_request_error", "parameter_unknown")
MISSING = (400, "invalid_request_error", "parameter_missing")
NOT_FOUND = (404, "invalid_request_error", "resource_missing")


# --- the API -----------------------------------------------------------------------------------------


def test_created_session_is_open_and_has_an_address(api: httpx.Client, stripe: RunningStripe) -> None:
    session = create(api)
    assert session["object"] == "checkout.session"
    assert session["id"].startswith("cs_test_")
    assert (session["status"], session["payment_status"], session["payment_intent"]) == (
        "open",
        "unpaid",
        None,
    )
    assert (session["amount_total"], session["currency"]) == (4990, "usd")
    assert session["url"] == f"{stripe.url}/c/pay/{session['id']}"


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/checkout/sessions"),
        ("GET", "/v1/checkout/sessions"),
        ("GET", "/v1/checkout/sessions/cs_test_1"),
        ("POST", "/v1/checkout/sessions/cs_test_1"),
        ("POST", "/v1/checkout/sessions/cs_test_1/expire"),
        ("GET", "/v1/payment_intents/pi_1"),
        ("POST", "/v1/refunds"),
        ("GET", "/v1/refunds"),
        ("GET", "/v1/charges"),
        ("GET", "/v1/disputes"),
        ("GET", "/v1/balance_transactions"),
        ("GET", "/_books"),
        ("POST", "/_faults"),
    ],
)
@pytest.mark.parametrize("authorization", [None, "Bearer sk_test_wrong", "Bearer é", "Basic a2V5OmtleQ=="])
def test_nothing_is_answered_without_the_key(
    stripe: RunningStripe, method: str, path: str, authorization: str | None
) -> None:
    headers = [(b"Stripe-Version", b"2026-10-28.endive")]
    if authorization:
        headers.append((b"Authorization", authorization.encode()))
    assert httpx.request(method, stripe.url + path, headers=headers, trust_env=False).status_code == 401


def test_another_version_of_the_api_is_not_spoken(api: httpx.Client) -> None:
    answer = api.get("/v1/charges", headers={"Stripe-Version": "2024-06-20"})
    assert error(answer) == INVALID


@pytest.mark.parametrize(
    ("changes", "refusal"),
    [
        # The parameter that the API has lost.
        ({"payment_method_types[0]": "card"}, UNKNOWN),
        ({"colour": "red"}, UNKNOWN),
        ({"mode": "subscription"}, INVALID),
        ({"mode": ""}, MISSING),
        ({"client_reference_id": ""}, MISSING),
        ({"client_reference_id": "T" * 201}, INVALID),
        ({"adaptive_pricing[enabled]": "true"}, INVALID),
        ({"allowed_payment_method_types[0]": "cash"}, INVALID),
        ({"allowed_payment_method_types[0]": "wechat_pay"}, INVALID),
        ({"payment_method_options[wechat_pay][client]": "web"}, INVALID),
        ({"line_items[0][quantity]": "2"}, INVALID),
        ({"line_items[0][price_data][currency]": "USD"}, INVALID),
        ({"line_items[0][price_data][currency]": "xxx"}, INVALID),
        (
            {"line_items[0][price_data][unit_amount]": "49.90"},
            (400, "invalid_request_error", "parameter_invalid_integer"),
        ),
        (
            {"line_items[0][price_data][unit_amount]": "-1"},
            (400, "invalid_request_error", "parameter_invalid_integer"),
        ),
        ({"line_items[0][price_data][unit_amount]": "0"}, (400, "invalid_request_error", "amount_too_small")),
        ({"line_items[0][price_data][product_data][name]": ""}, MISSING),
        ({"success_url": "javascript:alert(1)"}, (400, "invalid_request_error", "url_invalid")),
        (
            {"cancel_url": "http://shop.example; script-src *"},
            (400, "invalid_request_error", "url_invalid"),
        ),
    ],
    ids=repr,
)
def test_session_that_makes_no_sense_is_refused(
    api: httpx.Client, stripe: RunningStripe, changes: dict[str, str], refusal: tuple[int, str, str]
) -> None:
    assert error(post(api, "/v1/checkout/sessions", asked(**changes))) == refusal
    assert stripe.books()["sessions"] == []


@pytest.mark.payment_case(21)
@pytest.mark.parametrize(
    ("seconds", "is_taken"), [(1790, False), (1860, True), (86_340, True), (86_500, False)]
)
def test_session_expires_after_half_an_hour_at_the_earliest_and_a_day_at_the_latest(
    api: httpx.Client, seconds: int, is_taken: bool
) -> None:
    expires_at = str(int(datetime.now(UTC).timestamp()) + seconds)
    answer = post(api, "/v1/checkout/sessions", asked(expires_at=expires_at))
    assert answer.is_success == is_taken


def test_repeated_request_gets_the_same_answer_and_another_one_with_its_key_an_error(
    api: httpx.Client, stripe: RunningStripe
) -> None:
    form = asked()
    first = post(api, "/v1/checkout/sessions", form, key="k")
    stripe.decide(first.json()["url"])
    again = post(api, "/v1/checkout/sessions", form, key="k")
    other = post(api, "/v1/checkout/sessions", {**form, "locale": "zh"}, key="k")
    elsewhere = post(api, "/v1/refunds", {}, key="k")
    # What was answered then, not what is true now.
    assert again.json() == first.json()
    assert "Idempotent-Replayed" not in first.headers
    assert again.headers["Idempotent-Replayed"] == "true"
    assert error(other) == error(elsewhere) == (400, "idempotency_error", "")


def test_key_is_forgotten_after_a_day(api: httpx.Client) -> None:
    first = create(api, key="k")
    with time_machine.travel(datetime.now(UTC) + timedelta(days=1, seconds=1)):
        assert create(api, key="k")["id"] != first["id"]


def test_refused_request_does_not_use_its_key_up(api: httpx.Client) -> None:
    assert post(api, "/v1/checkout/sessions", asked(mode="setup"), key="k").status_code == 400
    assert create(api, key="k")["status"] == "open"


def test_eight_repetitions_at_once_are_one_session(api: httpx.Client, stripe: RunningStripe) -> None:
    form = asked()
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda _number: create(api, form)["id"], range(8)))
    assert len(set(answers)) == 1
    assert len(stripe.books()["sessions"]) == 1


def test_metadata_is_added_to_and_nothing_else_can_be_changed(api: httpx.Client) -> None:
    session = create(api)
    path = f"/v1/checkout/sessions/{session['id']}"
    changed = post(api, path, {"metadata[closed_by]": "shop"})
    assert changed.json()["metadata"] == {"payment": "T-1", "closed_by": "shop"}
    assert error(post(api, path, {"success_url": "http://evil.example/"}, key="more")) == UNKNOWN


def test_only_an_open_session_can_be_expired(api: httpx.Client, stripe: RunningStripe) -> None:
    session = create(api)
    path = f"/v1/checkout/sessions/{session['id']}/expire"
    expired = post(api, path, {}).json()
    assert (expired["status"], expired["url"]) == ("expired", None)
    assert error(post(api, path, {}, key="again")) == INVALID
    done = create(api, key="another")
    stripe.decide(done["url"])
    assert error(post(api, f"/v1/checkout/sessions/{done['id']}/expire", {}, key="third")) == INVALID


def test_what_is_not_there_is_not_found(api: httpx.Client) -> None:
    assert error(api.get("/v1/checkout/sessions/cs_test_x")) == NOT_FOUND
    assert error(post(api, "/v1/checkout/sessions/cs_test_x", {}, key="1")) == NOT_FOUND
    assert error(post(api, "/v1/checkout/sessions/cs_test_x/expire", {}, key="2")) == NOT_FOUND
    assert error(api.get("/v1/payment_intents/pi_x")) == NOT_FOUND
    assert error(post(api, "/v1/refunds", {"payment_intent": "pi_x", "amount": "1"}, key="3")) == NOT_FOUND
    assert error(api.get("/v1/refunds", params={"starting_after": "re_x"})) == NOT_FOUND


def test_properties_are_expanded_to_four_levels(api: httpx.Client, stripe: RunningStripe) -> None:
    session = paid(api, stripe)
    assert isinstance(session["payment_intent"], str)
    path = f"/v1/checkout/sessions/{session['id']}"
    whole = api.get(path, params={"expand[0]": "payment_intent.latest_charge"}).json()
    assert whole["payment_intent"]["latest_charge"]["amount_captured"] == 4990
    (listed,) = api.get(
        "/v1/checkout/sessions", params={"expand[0]": "data.payment_intent.latest_charge"}
    ).json()["data"]
    assert listed == whole
    assert error(api.get(path, params={"expand[0]": "colour"})) == INVALID
    assert error(api.get(path, params={"expand[0]": "payment_intent.latest_charge.a.b.c"})) == INVALID


def test_lists_are_newest_first_in_pages_and_by_age(api: httpx.Client) -> None:
    now = datetime.now(UTC)
    ids = []
    for number in range(3):
        with time_machine.travel(now + timedelta(seconds=number), tick=False):
            ids.append(create(api, asked(client_reference_id=f"T-{number}"), key=f"k{number}")["id"])

    def listed(**query: str | int) -> tuple[list[str], bool]:
        with time_machine.travel(now):
            content = api.get("/v1/checkout/sessions", params=query).json()
        return [session["id"] for session in content["data"]], content["has_more"]

    at = int(now.timestamp())
    assert listed() == (ids[::-1], False)
    assert listed(limit=2) == ([ids[2], ids[1]], True)
    assert listed(limit=2, starting_after=ids[1]) == ([ids[0]], False)
    assert listed(**{"created[gte]": at + 1}) == ([ids[2], ids[1]], False)
    assert listed(**{"created[gt]": at, "created[lt]": at + 2}) == ([ids[1]], False)
    for query in ("limit=101", "limit=all", "colour=red", "client_reference_id=T-1"):
        assert api.get(f"/v1/checkout/sessions?{query}").status_code == 400


def test_refund_has_a_payment_and_an_amount_and_does_not_exceed_it(
    api: httpx.Client, stripe: RunningStripe
) -> None:
    intent = paid(api, stripe)["payment_intent"]

    def refund(amount: str, key: str) -> httpx.Response:
        return post(api, "/v1/refunds", {"payment_intent": intent, "amount": amount}, key=key)

    assert error(refund("4991", "1")) == INVALID
    assert error(refund("0", "2")) == INVALID
    assert refund("4000", "3").json()["status"] == "succeeded"
    assert error(refund("991", "4")) == INVALID
    assert refund("990", "5").is_success
    assert error(refund("1", "6")) == (400, "invalid_request_error", "charge_already_refunded")


def test_what_was_never_paid_cannot_be_refunded(api: httpx.Client, stripe: RunningStripe) -> None:
    session = create(api)
    stripe.decide(session["url"], Outcome.REFUSE_CARD)
    intent = api.get(f"/v1/checkout/sessions/{session['id']}").json()["payment_intent"]
    assert error(post(api, "/v1/refunds", {"payment_intent": intent, "amount": "1"})) == INVALID


def test_what_is_charged_back_cannot_be_refunded_as_well(api: httpx.Client, stripe: RunningStripe) -> None:
    session = create(api)
    for outcome in (Outcome.PAY, Outcome.CHARGE_BACK):
        stripe.decide(session["url"], outcome)
    intent = api.get(f"/v1/checkout/sessions/{session['id']}").json()["payment_intent"]
    answer = post(api, "/v1/refunds", {"payment_intent": intent, "amount": "1"})
    assert error(answer) == (400, "invalid_request_error", "charge_disputed")


@pytest.mark.payment_case(44)
def test_balance_says_where_every_cent_went(api: httpx.Client, stripe: RunningStripe) -> None:
    session = create(api)
    for outcome in (Outcome.PAY, Outcome.DELAY_REFUNDS):
        stripe.decide(session["url"], outcome)
    intent = api.get(f"/v1/checkout/sessions/{session['id']}").json()["payment_intent"]
    post(api, "/v1/refunds", {"payment_intent": intent, "amount": "1000"})
    for outcome in (Outcome.FAIL_REFUNDS, Outcome.INQUIRE, Outcome.CHARGE_BACK, Outcome.WIN):
        stripe.decide(session["url"], outcome)
    lines = [(line["reporting_category"], line["amount"]) for line in stripe.books()["balances"]]
    assert lines == [
        ("charge", 4990),
        ("refund", -1000),
        ("refund_failure", 1000),
        ("dispute", -4990),
        ("dispute_reversal", 4990),
    ]
    (dispute,) = api.get("/v1/disputes", params={"payment_intent": intent}).json()["data"]
    assert dispute["status"] == "won"
    assert [line["amount"] for line in dispute["balance_transactions"]] == [-4990, 4990]
    adjustments = api.get("/v1/balance_transactions", params={"type": "adjustment"}).json()["data"]
    assert [line["amount"] for line in adjustments] == [4990, -4990]


def test_body_that_is_no_form_or_too_long_is_refused(api: httpx.Client) -> None:
    assert error(api.post("/v1/refunds", json={"amount": 1}, headers={"Idempotency-Key": "k"})) == INVALID
    long = {"metadata[payment]": "T" * 70_000}
    assert post(api, "/v1/checkout/sessions", long).status_code == 413


def test_session_outlives_a_restart(tmp_path: Path) -> None:
    books = str(tmp_path / "books.sqlite3")
    with (
        running_stripe(key=STRIPE_KEY, secret=STRIPE_SECRET, webhook_url="", books=books) as before,
        httpx.Client(base_url=before.url, headers=HEADERS, trust_env=False) as api,
    ):
        session = create(api)
        before.decide(session["url"])
    with running_stripe(key=STRIPE_KEY, secret=STRIPE_SECRET, webhook_url="", books=books) as after:
        kept = after.books()
    assert [(one["id"], one["status"]) for one in kept["sessions"]] == [(session["id"], "complete")]
    assert [one["status"] for one in kept["charges"]] == ["succeeded"]
    assert kept["deliveries"] == []


def test_live_key_makes_a_live_session() -> None:
    key = STRIPE_KEY.replace("test", "live", 1)
    with (
        running_stripe(key=key, secret=STRIPE_SECRET, webhook_url="") as stripe,
        httpx.Client(base_url=stripe.url, headers=HEADERS, trust_env=False) as api,
    ):
        api.headers["Authorization"] = f"Bearer {key}"
        session = create(api)
    assert session["id"].startswith("cs_live_")
    assert session["livemode"] is True


@pytest.mark.parametrize("secret", ["", "whsec_", "secretOfTheStripeTests", f"{STRIPE_SECRET} ?"])
def test_provider_does_not_start_without_a_webhook_secret(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        Stripe(key=STRIPE_KEY, secret=secret, webhook_url="", books=":memory:")


# --- the payment page --------------------------------------------------------------------------------


def page(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def test_page_shows_what_is_paid_to_whom_and_that_it_is_a_test(api: httpx.Client) -> None:
    session = create(api)
    answer = page(session["url"])
    assert answer.status_code == 200
    for shown in ("VMOS Cloud", "Stripe", "$49.90", "USD", "VIP, 30 days", "T-1", "Card", "Test mode"):
        assert shown in answer.text
    assert '<html lang="en">' in answer.text
    assert f'href="{session["cancel_url"]}"' in answer.text


@pytest.mark.parametrize(("locale", "language"), [("zh", "zh-hans"), ("zh-HK", "zh-hant")])
def test_page_speaks_the_language_of_the_session(api: httpx.Client, locale: str, language: str) -> None:
    answer = page(create(api, asked(locale=locale))["url"])
    assert f'<html lang="{language}">' in answer.text
    assert "US$49.90" in answer.text
    with override(language):
        assert f">{pgettext('payment page', 'For')}<" in answer.text


def test_what_the_shop_sends_is_shown_as_text(api: httpx.Client) -> None:
    form = asked(
        **{"line_items[0][price_data][product_data][name]": "<script>alert(1)</script>\"'&"},
        cancel_url='http://shop.example/?a="><script>alert(2)</script>',
    )
    text = page(create(api, form)["url"]).text
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text


def test_page_allows_no_script_no_frame_and_no_form_but_to_itself_and_the_shop(api: httpx.Client) -> None:
    headers = page(create(api)["url"]).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "form-action 'self' http://127.0.0.1:8000"
    )


def test_unknown_session_has_a_page_that_says_so(stripe: RunningStripe) -> None:
    answer = page(f"{stripe.url}/c/pay/cs_test_x")
    assert (answer.status_code, answer.headers["content-type"]) == (404, "text/html; charset=utf-8")


@pytest.mark.payment_case(52)
def test_paying_leads_back_to_the_shop_and_a_declined_card_back_to_the_page(
    api: httpx.Client, stripe: RunningStripe
) -> None:
    session = create(api, asked(success_url="http://127.0.0.1:8000/paid/?session={CHECKOUT_SESSION_ID}"))
    declined = stripe.decide(session["url"], Outcome.REFUSE_CARD)
    assert (declined.status_code, declined.headers["location"]) == (303, session["url"])
    assert "This was declined. You may try again." in page(session["url"]).text
    done = stripe.decide(session["url"])
    assert done.headers["location"] == f"http://127.0.0.1:8000/paid/?session={session['id']}"
    assert "This payment has been paid." in page(session["url"]).text


def test_second_decision_changes_nothing(api: httpx.Client, stripe: RunningStripe) -> None:
    session = create(api)
    for outcome in (
        Outcome.PAY,
        Outcome.PAY,
        Outcome.REFUSE_CARD,
        Outcome.PAY_MORE,
        Outcome.FAIL,
        Outcome.WIN,
    ):
        assert stripe.decide(session["url"], outcome).status_code == 303
    assert [charge["amount"] for charge in stripe.books()["charges"]] == [4990]


def test_eight_decisions_at_once_charge_once(api: httpx.Client, stripe: RunningStripe) -> None:
    session = create(api)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(stripe.decide, [session["url"]] * 8))
    assert [answer.status_code for answer in answers] == [303] * 8
    assert len(stripe.books()["charges"]) == 1


def test_decision_that_nobody_knows_is_refused(api: httpx.Client) -> None:
    answer = httpx.post(create(api)["url"], data={"outcome": "steal"}, trust_env=False)
    assert answer.status_code == 400


@pytest.mark.parametrize(
    ("decided", "offered"),
    [
        (
            [],
            {
                "pay-less",
                "pay-more",
                "pay-other-currency",
                "pay-untold",
                "pay-told-twice",
                "process",
                "fail",
            },
        ),
        ([Outcome.PROCESS], {"succeed", "fail"}),
        ([Outcome.FAIL], set()),
        ([Outcome.PAY], {"delay-refunds", "refund-here", "inquire", "charge-back"}),
        ([Outcome.PAY, Outcome.DELAY_REFUNDS], {"refund-here", "inquire", "charge-back"}),
        ([Outcome.PAY, Outcome.INQUIRE], {"delay-refunds", "refund-here", "charge-back", "win"}),
        ([Outcome.PAY, Outcome.CHARGE_BACK], {"delay-refunds", "win", "lose"}),
        ([Outcome.PAY, Outcome.CHARGE_BACK, Outcome.WIN], {"delay-refunds", "refund-here"}),
        ([Outcome.PAY, Outcome.CHARGE_BACK, Outcome.LOSE], {"delay-refunds"}),
        (
            [Outcome.PAY, Outcome.REFUND_HERE],
            {"delay-refunds", "bounce-refunds", "inquire", "charge-back"},
        ),
    ],
)
def test_page_offers_what_can_happen_next(
    api: httpx.Client, stripe: RunningStripe, decided: list[Outcome], offered: set[str]
) -> None:
    session = create(api)
    for outcome in decided:
        stripe.decide(session["url"], outcome)
    text = page(session["url"]).text.partition("<details>")[2]
    assert {outcome.value for outcome in Outcome if f'value="{outcome.value}"' in text} == offered


def test_smallest_amount_cannot_be_paid_less(api: httpx.Client) -> None:
    form = asked(**{"line_items[0][price_data][unit_amount]": "1"})
    text = page(create(api, form)["url"]).text
    assert 'value="pay-less"' not in text
    assert 'value="pay-more"' in text
