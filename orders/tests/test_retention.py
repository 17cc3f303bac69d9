"""Webhooks name buyers: they do so for a time, and what stays proves what came."""

import hashlib
from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from pytest_django import Settings

from orders import retention
from orders.models import ReviewItem, WebhookEvent
from orders.payments import process_webhooks
from orders.retention import empty_webhooks
from orders.reviews import resolve_review_item
from orders.verification import altered_webhooks
from tests.builders import NOW, make_user, make_webhook

pytestmark = pytest.mark.django_db

BODY = b'{"payer": {"email_address": "zoe@example.com"}}'
LONG_AGO = NOW - timedelta(days=180)


@pytest.mark.payment_case(54)
def test_headers_and_body_are_taken_out_when_they_were_kept_long_enough_and_the_rest_stays() -> None:
    event = make_webhook(
        reference="VM-1-1", body=BODY, headers={"a": "b"}, received_at=LONG_AGO, processed_at=LONG_AGO
    )

    assert [empty_webhooks(now=NOW) for _ in range(2)] == [1, 0]

    event.refresh_from_db()
    assert (bytes(event.body), event.headers, event.emptied_at) == (b"", {}, NOW)
    assert (event.gateway, event.dedupe_key, event.attempt_reference) == ("sandbox", "event-1", "VM-1-1")
    assert (event.received_at, event.processed_at) == (LONG_AGO, LONG_AGO)
    assert event.body_sha256 == hashlib.sha256(BODY).hexdigest()
    assert list(altered_webhooks(NOW)) == []


def test_what_is_newer_or_was_never_processed_is_kept() -> None:
    make_webhook(key="new", body=BODY, received_at=LONG_AGO + timedelta(seconds=1), processed_at=NOW)
    make_webhook(key="stuck", body=BODY, received_at=LONG_AGO - timedelta(days=100))

    assert empty_webhooks(now=NOW) == 0

    assert {bytes(event.body) for event in WebhookEvent.objects.all()} == {BODY}


@pytest.mark.payment_case(7, 54)
def test_what_names_a_payment_that_is_not_ours_is_kept_until_a_person_has_looked_at_it() -> None:
    make_webhook(body=BODY, reference="OTHER-1", received_at=LONG_AGO)
    process_webhooks(now=LONG_AGO)

    assert empty_webhooks(now=NOW) == 0

    resolve_review_item(
        item_id=ReviewItem.objects.get().pk,
        resolution="It belongs to our other shop.",
        resolved_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    assert empty_webhooks(now=NOW) == 1


def test_days_are_a_setting(settings: Settings) -> None:
    settings.WEBHOOK_RETENTION = timedelta(days=1)
    make_webhook(received_at=NOW - timedelta(days=1), processed_at=NOW)

    assert empty_webhooks(now=NOW) == 1


def test_more_than_one_statement_takes_are_all_emptied(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(retention, "CHUNK", 2)
    for number in range(5):
        make_webhook(key=f"event-{number}", received_at=LONG_AGO, processed_at=NOW)

    assert empty_webhooks(now=NOW) == 5


def test_event_that_was_emptied_is_not_taken_a_second_time() -> None:
    make_webhook(received_at=LONG_AGO, processed_at=LONG_AGO)
    empty_webhooks(now=NOW)

    with pytest.raises(IntegrityError), transaction.atomic():
        make_webhook(body=BODY)


def test_somebody_who_alters_a_body_behind_the_triggers_back_is_found() -> None:
    make_webhook(body=BODY)
    WebhookEvent.objects.bulk_create(
        [
            WebhookEvent(
                gateway="sandbox",
                dedupe_key="event-2",
                headers={},
                body=BODY,
                body_sha256=hashlib.sha256(b"another").hexdigest(),
                received_at=NOW,
            )
        ]
    )

    assert list(altered_webhooks(NOW)) == ["The body of webhook sandbox event-2 is not the one that came."]
