"""The sandbox's provider by itself: its API, its payment page, its knobs and the command that runs it."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import httpx
import pytest
from django.conf import settings as django_settings
from django.utils.translation import override, pgettext

from emulators.server import is_loopback
from orders.gateways.emulators.running import RunningSandbox, running_sandbox
from orders.gateways.emulators.sandbox import Outcome, Sandbox
from orders.tests.gateway_contract import SANDBOX_KEY, SANDBOX_SECRET

MANAGE = Path(django_settings.BASE_DIR) / "manage.py"


@pytest.fixture
def api(sandbox: RunningSandbox) -> Iterator[httpx.Client]:
    headers = {"Authorization": f"Bearer {SANDBOX_KEY}"}
    with httpx.Client(base_url=sandbox.url, headers=headers, trust_env=False) as client:
        yield client


def asked(**changes: object) -> dict[str, object]:
    return {
        "reference": "T-1",
        "amount": "49.90",
        "currency": "USD",
        "description": "VIP, 30 days",
        "return_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
        "expires_at": (datetime.now(UTC) + timedelta(minutes=30)).isoformat(),
        "language": "en",
        **changes,
    }


def create(api: httpx.Client, **changes: object) -> Any:
    payment = asked(**changes)
    answer = api.post("/v1/payments", json=payment, headers={"Idempotency-Key": str(payment["reference"])})
    assert answer.status_code == 201, answer.text
    return answer.json()


def error(answer: httpx.Response) -> tuple[int, str]:
    return answer.status_code, answer.json()["error"]["code"]


# --- the API -----------------------------------------------------------------------------------------


def test_created_payment_is_answered_whole(api: httpx.Client, sandbox: RunningSandbox) -> None:
    payment = create(api, expires_at="2099-01-01T08:00:00+08:00")
    created_at = payment.pop("created_at")
    assert datetime.fromisoformat(created_at).utcoffset() == timedelta(0)
    assert payment == {
        "id": payment["id"],
        "reference": "T-1",
        "status": "pending",
        "amount": "49.90",
        "currency": "USD",
        "description": "VIP, 30 days",
        "language": "en",
        "return_url": "http://127.0.0.1:8000/orders/VM-1/paid/",
        "pay_url": f"{sandbox.url}/pay/{payment['id']}",
        "expires_at": "2099-01-01T00:00:00.000000Z",
        "captures": [],
        "refunds": [],
    }


def test_repeated_request_gets_the_same_payment_and_another_one_with_its_key_a_conflict(
    api: httpx.Client,
) -> None:
    payment, key = asked(), {"Idempotency-Key": "k"}
    first = api.post("/v1/payments", json=payment, headers=key)
    again = api.post("/v1/payments", json=dict(reversed(payment.items())), headers=key)
    other = api.post("/v1/payments", json={**payment, "amount": "49.91"}, headers=key)
    assert (first.status_code, again.status_code) == (201, 200)
    assert again.json() == first.json()
    assert error(other) == (409, "idempotency_conflict")


def test_eight_repetitions_at_once_are_one_payment(api: httpx.Client, sandbox: RunningSandbox) -> None:
    payment, key = asked(), {"Idempotency-Key": "k"}

    def ask(_number: int) -> httpx.Response:
        return api.post("/v1/payments", json=payment, headers=key)

    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(ask, range(8)))
    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [201]
    assert len({answer.json()["id"] for answer in answers}) == 1


def test_reference_is_taken_once(api: httpx.Client) -> None:
    create(api)
    assert error(api.post("/v1/payments", json=asked(), headers={"Idempotency-Key": "k"})) == (
        409,
        "reference_taken",
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"reference": ""},
        {"reference": "T" * 33},
        {"reference": "T/1"},
        {"amount": 49.9},
        {"amount": "0.00"},
        {"amount": "-1.00"},
        {"amount": "49.999"},
        {"amount": "1.5", "currency": "JPY"},
        {"currency": "XXXX"},
        {"description": ""},
        {"description": "x" * 201},
        {"return_url": "javascript:alert(1)"},
        {"return_url": "//evil.example"},
        {"return_url": "http://shop.example; script-src *"},
        {"return_url": "http://user@shop.example/"},
        {"webhook_url": "file:///etc/passwd"},
        {"webhook_url": 5},
        {"expires_at": "tomorrow"},
        {"expires_at": "2099-01-01T00:00:00"},
        {"expires_at": "2026-01-01T00:00:00Z"},
        {"colour": "red"},
        {"language": None},
    ],
    ids=repr,
)
def test_payment_that_makes_no_sense_is_refused(
    api: httpx.Client, sandbox: RunningSandbox, changes: dict[str, object]
) -> None:
    answer = api.post("/v1/payments", json=asked(**changes), headers={"Idempotency-Key": "k"})
    assert error(answer) == (422, "invalid")
    assert sandbox.books()["payments"] == []


def test_request_needs_a_key_for_repeating_it(api: httpx.Client) -> None:
    assert error(api.post("/v1/payments", json=asked())) == (400, "idempotency_key_missing")


@pytest.mark.parametrize("body", [b"", b"{", b"[]", b"\xff", b"[" * 50_000])
def test_body_that_is_no_object_is_refused(api: httpx.Client, body: bytes) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    assert error(api.post("/v1/payments", content=body, headers=headers)) == (400, "malformed")


def test_form_and_long_bodies_are_refused(api: httpx.Client) -> None:
    headers = {"Idempotency-Key": "k", "Content-Type": "application/json"}
    assert (
        api.post("/v1/payments", data={"reference": "T-1"}, headers={"Idempotency-Key": "k"}).status_code
        == 415
    )
    assert api.post("/v1/payments", content=b" " * 70_000, headers=headers).status_code == 413


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/v1/payments"),
        ("GET", "/v1/payments"),
        ("GET", "/v1/payments/pay_1"),
        ("POST", "/v1/payments/pay_1/cancel"),
        ("POST", "/v1/refunds"),
        ("GET", "/_books"),
        ("GET", "/_faults"),
        ("POST", "/_faults"),
    ],
)
@pytest.mark.parametrize("authorization", [None, "Bearer wrong", "Bearer é", "Basic a2V5OmtleQ=="])
def test_nothing_is_answered_without_the_key(
    sandbox: RunningSandbox, method: str, path: str, authorization: str | None
) -> None:
    headers = [(b"Authorization", authorization.encode())] if authorization else []
    answer = httpx.request(method, sandbox.url + path, headers=headers, trust_env=False)
    assert error(answer) == (401, "unauthorized")


def test_cancelled_payment_stays_cancelled_and_a_paid_one_cannot_be_cancelled(
    api: httpx.Client, sandbox: RunningSandbox
) -> None:
    first, second = create(api), create(api, reference="T-2")
    for _time in range(2):
        assert api.post(f"/v1/payments/{first['id']}/cancel").json()["status"] == "cancelled"
    sandbox.decide(second["pay_url"])
    assert error(api.post(f"/v1/payments/{second['id']}/cancel")) == (409, "already_captured")
    assert error(api.post("/v1/payments/pay_x/cancel")) == (404, "not_found")


def test_refund_in_a_currency_that_was_not_captured_is_refused(
    api: httpx.Client, sandbox: RunningSandbox
) -> None:
    payment = create(api)
    sandbox.decide(payment["pay_url"])
    refund = {"payment": payment["id"], "reference": "R-1", "amount": "1", "currency": "JPY"}
    answer = api.post("/v1/refunds", json=refund, headers={"Idempotency-Key": "R-1"})
    assert error(answer) == (422, "exceeds_captured")


def test_another_refund_with_the_same_key_is_a_conflict(api: httpx.Client, sandbox: RunningSandbox) -> None:
    payment = create(api)
    sandbox.decide(payment["pay_url"])
    refund = {"payment": payment["id"], "reference": "R-1", "amount": "1.00", "currency": "USD"}
    assert api.post("/v1/refunds", json=refund, headers={"Idempotency-Key": "R-1"}).status_code == 201
    other = api.post("/v1/refunds", json={**refund, "amount": "2.00"}, headers={"Idempotency-Key": "R-1"})
    assert error(other) == (409, "idempotency_conflict")


def test_captures_of_a_day_are_listed_by_utc(api: httpx.Client, sandbox: RunningSandbox) -> None:
    paid, _unpaid = create(api), create(api, reference="T-2")
    sandbox.decide(paid["pay_url"])
    at = datetime.fromisoformat(api.get(f"/v1/payments/{paid['id']}").json()["captures"][0]["at"])
    listed = api.get("/v1/payments", params={"moved_on": f"{at:%Y-%m-%d}"}).json()
    assert [payment["reference"] for payment in listed["payments"]] == ["T-1"]
    for day in (at - timedelta(days=1), at + timedelta(days=1)):
        assert api.get("/v1/payments", params={"moved_on": f"{day:%Y-%m-%d}"}).json()["payments"] == []
    assert error(api.get("/v1/payments", params={"moved_on": "today"})) == (422, "invalid")


def test_long_list_comes_in_pages(api: httpx.Client) -> None:
    for number in range(101):
        create(api, reference=f"T-{number}")
    first = api.get("/v1/payments").json()
    second = api.get("/v1/payments", params={"after": first["next"]}).json()
    assert (len(first["payments"]), second["next"]) == (100, None)
    assert [payment["reference"] for payment in second["payments"]] == ["T-100"]


def test_payments_outlive_a_restart(tmp_path: Path) -> None:
    books = str(tmp_path / "books.sqlite3")
    headers = {"Authorization": f"Bearer {SANDBOX_KEY}"}
    with (
        running_sandbox(key=SANDBOX_KEY, secret=SANDBOX_SECRET, books=books) as before,
        httpx.Client(base_url=before.url, headers=headers, trust_env=False) as api,
    ):
        payment = create(api)
        before.decide(payment["pay_url"])
    with running_sandbox(key=SANDBOX_KEY, secret=SANDBOX_SECRET, books=books) as after:
        (kept,) = after.books()["payments"]
    assert (kept["id"], kept["status"], len(kept["captures"])) == (payment["id"], "captured", 1)


@pytest.mark.parametrize("secret", ["", "whsec_", "secret", "whsec_?", "whsec_c2VjcmV0 x"])
def test_provider_does_not_start_without_a_webhook_secret(secret: str) -> None:
    with pytest.raises(ValueError, match="whsec_"):
        Sandbox(key=SANDBOX_KEY, secret=secret, books=":memory:")


# --- the payment page --------------------------------------------------------------------------------


def page(url: str) -> httpx.Response:
    return httpx.get(url, trust_env=False)


def test_page_shows_what_is_paid_to_whom_and_that_it_is_a_test(api: httpx.Client) -> None:
    payment = create(api)
    answer = page(payment["pay_url"])
    assert answer.status_code == 200
    for shown in ("VMOS Cloud", "$49.90", "USD", "VIP, 30 days", "T-1", "Test mode", "Approve", "Decline"):
        assert shown in answer.text
    assert '<html lang="en">' in answer.text
    assert f'href="{payment["return_url"]}"' in answer.text


@pytest.mark.parametrize("language", ["zh-hans", "zh-hant"])
def test_page_speaks_the_language_of_the_payment(api: httpx.Client, language: str) -> None:
    answer = page(create(api, language=language)["pay_url"])
    assert f'<html lang="{language}">' in answer.text
    assert "US$49.90" in answer.text
    with override(language):
        assert f">{pgettext('payment page', 'Approve')}</button>" in answer.text


def test_what_the_shop_sends_is_shown_as_text(api: httpx.Client) -> None:
    attack = "<script>alert(1)</script>\"'&"
    payment = create(api, description=attack, return_url='http://shop.example/?a="><script>alert(2)</script>')
    text = page(payment["pay_url"]).text
    assert "<script" not in text
    assert "&lt;script&gt;alert(1)&lt;/script&gt;&quot;&#x27;&amp;" in text


def test_page_allows_no_script_no_frame_and_no_form_but_to_itself_and_the_shop(api: httpx.Client) -> None:
    headers = page(create(api)["pay_url"]).headers
    assert headers["content-security-policy"] == (
        "default-src 'none'; style-src 'self'; base-uri 'none'; frame-ancestors 'none'; "
        "form-action 'self' http://127.0.0.1:8000"
    )
    assert headers["cache-control"] == "no-store"
    assert headers["referrer-policy"] == "no-referrer"
    assert headers["x-content-type-options"] == "nosniff"


def test_style_of_the_page_is_served(sandbox: RunningSandbox) -> None:
    answer = page(f"{sandbox.url}/page.css")
    assert (answer.status_code, answer.headers["content-type"]) == (200, "text/css; charset=utf-8")


def test_decision_leads_back_to_the_shop(api: httpx.Client, sandbox: RunningSandbox) -> None:
    for outcome, reference in ((Outcome.APPROVE, "T-1"), (Outcome.DECLINE, "T-2")):
        payment = create(api, reference=reference)
        answer = sandbox.decide(payment["pay_url"], outcome)
        assert (answer.status_code, answer.headers["location"]) == (303, payment["return_url"])


def test_second_decision_changes_nothing(api: httpx.Client, sandbox: RunningSandbox) -> None:
    payment = create(api)
    for outcome in (Outcome.APPROVE, Outcome.APPROVE, Outcome.DECLINE, Outcome.PAY_TWICE, Outcome.PAY_LATE):
        assert sandbox.decide(payment["pay_url"], outcome).status_code == 303
    kept = api.get(f"/v1/payments/{payment['id']}").json()
    assert (kept["status"], len(kept["captures"])) == ("captured", 1)


def test_eight_decisions_at_once_capture_once(api: httpx.Client, sandbox: RunningSandbox) -> None:
    payment = create(api)
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(sandbox.decide, [payment["pay_url"]] * 8))
    assert [answer.status_code for answer in answers] == [303] * 8
    assert len(api.get(f"/v1/payments/{payment['id']}").json()["captures"]) == 1


def test_declined_payment_cannot_be_approved(api: httpx.Client, sandbox: RunningSandbox) -> None:
    payment = create(api)
    sandbox.decide(payment["pay_url"], Outcome.DECLINE)
    sandbox.decide(payment["pay_url"], Outcome.APPROVE)
    kept = api.get(f"/v1/payments/{payment['id']}").json()
    assert (kept["status"], kept["captures"]) == ("declined", [])


def test_looking_and_leaving_decides_nothing(api: httpx.Client, sandbox: RunningSandbox) -> None:
    payment = create(api, webhook_url="http://127.0.0.1:9/")
    page(payment["pay_url"])
    assert api.get(f"/v1/payments/{payment['id']}").json()["status"] == "pending"
    assert sandbox.books()["deliveries"] == []


@pytest.mark.parametrize(
    ("outcome", "words"),
    [(Outcome.APPROVE, "has been paid"), (Outcome.DECLINE, "has been declined")],
)
def test_decided_payment_offers_no_decision_any_more(
    api: httpx.Client, sandbox: RunningSandbox, outcome: Outcome, words: str
) -> None:
    payment = create(api)
    sandbox.decide(payment["pay_url"], outcome)
    text = page(payment["pay_url"]).text
    assert words in text
    assert "<button" not in text


def test_cancelled_payment_offers_only_to_be_paid_all_the_same(
    api: httpx.Client, sandbox: RunningSandbox
) -> None:
    payment = create(api)
    api.post(f"/v1/payments/{payment['id']}/cancel")
    text = page(payment["pay_url"]).text
    assert text.count("<button") == 1
    assert 'value="pay-late"' in text
    sandbox.decide(payment["pay_url"], Outcome.PAY_LATE)
    assert api.get(f"/v1/payments/{payment['id']}").json()["status"] == "captured"


def test_smallest_amount_cannot_be_paid_with_less(api: httpx.Client) -> None:
    assert "pay-less" not in page(create(api, amount="1", currency="JPY")["pay_url"]).text


def test_decision_that_does_not_exist_and_payment_that_does_not_exist(
    api: httpx.Client, sandbox: RunningSandbox
) -> None:
    payment = create(api)
    assert httpx.post(payment["pay_url"], data={"outcome": "steal"}, trust_env=False).status_code == 400
    assert sandbox.decide(f"{sandbox.url}/pay/pay_x").status_code == 404
    unknown = page(f"{sandbox.url}/pay/pay_x")
    assert (unknown.status_code, unknown.headers["content-type"]) == (404, "text/html; charset=utf-8")
    assert "There is no such payment." in unknown.text


# --- the knobs ---------------------------------------------------------------------------------------


def test_errors_come_as_often_as_set_and_do_nothing(api: httpx.Client, sandbox: RunningSandbox) -> None:
    sandbox.set_faults(errors=2)
    answers = [api.post("/v1/payments", json=asked(), headers={"Idempotency-Key": "k"}) for _time in range(3)]
    assert [answer.status_code for answer in answers] == [500, 500, 201]


def test_lost_answer_closes_the_connection_when_all_is_done(
    api: httpx.Client, sandbox: RunningSandbox
) -> None:
    sandbox.set_faults(lost_answers=1)
    with pytest.raises(httpx.RemoteProtocolError):
        api.post("/v1/payments", json=asked(), headers={"Idempotency-Key": "k"})
    assert len(sandbox.books()["payments"]) == 1


def test_faults_add_up_and_are_shown(api: httpx.Client) -> None:
    api.post("/_faults", json={"drop": 2})
    none: Mapping[str, object] = {
        "errors": 0,
        "lost_answers": 0,
        "delay_seconds": 0,
        "wrong_key": 0,
        "drop": 0,
        "duplicate": 0,
        "reorder": 0,
    }
    assert api.post("/_faults", json={"delay_seconds": 0.1}).json() == {
        **none,
        "drop": 2,
        "delay_seconds": 0.1,
    }
    assert api.post("/_faults", json={"drop": 0, "delay_seconds": 0}).json() == none
    assert api.get("/_faults").json() == none


@pytest.mark.parametrize(
    "faults",
    [{"explode": 1}, {"errors": -1}, {"errors": 1.5}, {"errors": True}, {"delay_seconds": 61}, {"drop": "1"}],
)
def test_fault_that_cannot_be_changes_nothing(api: httpx.Client, faults: dict[str, object]) -> None:
    assert error(api.post("/_faults", json={"duplicate": 1, **faults})) == (422, "invalid")
    assert api.get("/_faults").json()["duplicate"] == 0


# --- the command -------------------------------------------------------------------------------------


def command(tmp_path: Path, *arguments: str, **environment: str) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, MANAGE, "gateway_emulators", "--books", str(tmp_path / "books.sqlite3"), *arguments],
        env={
            **os.environ,
            "VAR_DIR": str(tmp_path),
            "ALLOW_EMULATORS": "1",
            "SANDBOX_GATEWAY_URL": "http://sandbox.example:8001",
            "SANDBOX_GATEWAY_KEY": SANDBOX_KEY,
            "SANDBOX_WEBHOOK_SECRET": SANDBOX_SECRET,
            **environment,
        },
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


@pytest.mark.parametrize("stop", [signal.SIGTERM, signal.SIGINT])
def test_command_serves_until_it_is_told_to_stop(tmp_path: Path, stop: signal.Signals) -> None:
    with command(tmp_path, "--port", "0") as process:
        assert process.stdout
        first_line = process.stdout.readline()
        url = first_line.split(" on ")[1].split(" and ")[0]
        with httpx.Client(
            base_url=url, headers={"Authorization": f"Bearer {SANDBOX_KEY}"}, trust_env=False
        ) as api:
            pay_url = create(api)["pay_url"]
        process.send_signal(stop)
        output, errors = process.communicate(timeout=30)
    assert pay_url.startswith("http://sandbox.example:8001/pay/pay_")
    assert process.returncode == 0
    assert output == "The sandbox gateway has stopped.\n"
    assert "Traceback" not in errors


def failure(process: subprocess.Popen[str]) -> str:
    """What a command that does not start says."""
    output, errors = process.communicate(timeout=30)
    assert (process.returncode, output) == (1, "")
    return errors.strip()


def test_command_says_that_the_port_is_taken(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        said = failure(command(tmp_path, "--port", str(port)))
    assert said.startswith(f"CommandError: Cannot listen on 127.0.0.1, port {port}: ")
    assert "Address already in use" in said


def test_command_says_that_it_cannot_keep_books(tmp_path: Path) -> None:
    said = failure(command(tmp_path / "nowhere", "--port", "0", VAR_DIR=str(tmp_path)))
    assert said == (
        f"CommandError: Cannot keep books in {tmp_path}/nowhere/books.sqlite3: unable to open database file."
    )


def test_command_names_missing_settings(tmp_path: Path) -> None:
    said = failure(command(tmp_path, SANDBOX_GATEWAY_KEY="", SANDBOX_WEBHOOK_SECRET=""))
    assert said == (
        "CommandError: These settings are missing or of no use: SANDBOX_GATEWAY_KEY, SANDBOX_WEBHOOK_SECRET."
    )


def test_command_listens_to_other_machines_only_when_told_to(tmp_path: Path) -> None:
    said = failure(command(tmp_path, "--host", "0.0.0.0"))
    assert (
        said == "CommandError: 0.0.0.0 can be reached from other machines. If that is wanted, say --any-host."
    )


@pytest.mark.parametrize("host", ["127.0.0.1", "127.8.8.8", "::1", "localhost"])
def test_loopback_hosts(host: str) -> None:
    assert is_loopback(host)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "10.0.0.1", "localhost.example", ""])
def test_hosts_that_are_not_loopback(host: str) -> None:
    assert not is_loopback(host)
