import pytest
from django.test import Client
from pytest_django import Settings

from orders.models import WebhookEvent
from orders.tests.gateway_contract import SANDBOX_SECRET
from orders.tests.test_gateway_sandbox_webhooks import BODY, signed_headers

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _secret(settings: Settings) -> None:
    settings.SANDBOX_WEBHOOK_SECRET = SANDBOX_SECRET


@pytest.fixture
def client() -> Client:
    """A provider: it has no session and no token of a form."""
    return Client(enforce_csrf_checks=True)


def send(client: Client, body: bytes, gateway: str = "sandbox", **headers: str) -> int:
    answer = client.post(f"/webhooks/{gateway}/", body, content_type="application/json", headers=headers)
    return answer.status_code


@pytest.mark.payment_case(1)
def test_signed_webhook_is_stored_as_it_came_and_only_once(client: Client) -> None:
    headers = signed_headers(BODY)
    assert [send(client, BODY, **headers) for _ in range(2)] == [200, 200]
    event = WebhookEvent.objects.get()
    assert (event.gateway, event.attempt_reference, bytes(event.body)) == ("sandbox", "T-1", BODY)
    assert event.processed_at is None


def test_webhook_of_a_gateway_that_is_not_ours_is_not_found(client: Client) -> None:
    assert send(client, BODY, gateway="nobody", **signed_headers(BODY)) == 404


@pytest.mark.payment_case(6, 10)
@pytest.mark.parametrize("body", [b"", b"{}", b"\xff\xfe", b"null", b"[" * 10_000])
def test_webhook_without_a_good_signature_is_refused_and_not_stored(client: Client, body: bytes) -> None:
    assert send(client, body) == 400
    assert send(client, body, **signed_headers(BODY)) == 400
    assert not WebhookEvent.objects.exists()


@pytest.mark.payment_case(10)
@pytest.mark.parametrize("length", ["1048577", "-1", "many", "9" * 40])
def test_webhook_that_announces_more_than_a_megabyte_is_refused_unread(client: Client, length: str) -> None:
    answer = client.post(
        "/webhooks/sandbox/",
        BODY,
        content_type="application/json",
        headers=signed_headers(BODY),
        CONTENT_LENGTH=length,  # the test client raises if more is read than there is
    )
    assert answer.status_code == 400
    assert not WebhookEvent.objects.exists()


def test_webhooks_are_posted(client: Client) -> None:
    assert client.get("/webhooks/sandbox/").status_code == 405
