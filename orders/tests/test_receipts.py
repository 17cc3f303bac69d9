"""A customer's proof of his place."""

import json
from datetime import timedelta

import pytest
from django.test import Client
from pytest_django import Settings

from accounts.models import User
from inventory.models import Fee
from orders.allocation import allocate_devices
from orders.models import Order, QueueEventKind
from orders.queue import fairness
from orders.queue.fairness import head_of, ledger_lines, seal_events
from orders.queue.verify_queue_ledger import check
from orders.receipts import receipt_of
from orders.tests.shopping import log_in
from tests.builders import NOW, make_devices, make_fee, make_line, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(hours=1)


@pytest.fixture
def customer() -> User:
    return make_user("buyer@example.com")


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan())


@pytest.fixture
def order(customer: User, fee: Fee) -> Order:
    """2 phones, paid after those of another customer, one of them allocated; nothing is sealed yet."""
    make_line(fee, quantity=1, paid_at=EARLIER - timedelta(minutes=1))
    order = make_order([(fee, 2)], customer=customer, paid_at=EARLIER)
    make_devices(fee.term.plan, 2)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    return order


def page_of(client: Client, order: Order) -> str:
    return " ".join(client.get(f"/orders/{order.reference}/").content.decode().split())


@pytest.mark.clause("1.1", "3.3")
def test_receipt_names_every_entry_and_how_to_check_it(order: Order, fee: Fee, settings: Settings) -> None:
    settings.SITE_URL = "https://shop.example"
    plan = fee.term.plan
    seal_events(plan_id=plan.pk)
    ledger = list(ledger_lines(plan.pk))

    receipt = receipt_of(order, now=NOW)

    assert (receipt["order"], receipt["made_at"]) == (order.reference, "2026-11-23T04:00:00+00:00")
    # By way of JSON, so that what cannot be written is found here.
    (line,) = json.loads(json.dumps(receipt))["lines"]
    assert (line["line"], line["plan"], line["units"]) == (order.lines.get().pk, plan.slug, 2)
    assert line["paid_at"] == "2026-11-23T03:00:00+00:00"
    assert [(entry["number"], entry["what"], entry["units"]) for entry in line["entries"]] == [
        (2, "joined", 2),
        (4, "allocated", 1),
    ]
    assert [f"{entry['in_ledger']}\n" for entry in line["entries"]] == [ledger[1], ledger[3]]
    assert line["all_sealed"] is True
    assert line["ledger_now"] == {"entries": 4, "head_sha256": head_of(plan.pk).sha256}
    seals = [entry["seal"] for entry in line["entries"]]
    fetch, verify = line["how_to_check"]
    assert fetch == (
        "curl -sO https://shop.example/queue/verify_queue_ledger.py "
        f"-o ledger-{plan.slug}.txt https://shop.example/queue/{plan.slug}/ledger.txt"
    )
    assert verify == f"python3 verify_queue_ledger.py ledger-{plan.slug}.txt {seals[0]} {seals[1]}"
    assert list(check(ledger, seals)) == []


def test_receipt_says_what_is_not_sealed_yet(order: Order) -> None:
    (line,) = json.loads(json.dumps(receipt_of(order, now=NOW)))["lines"]
    assert [(entry["number"], entry["seal"], entry["in_ledger"]) for entry in line["entries"]] == [
        (None, None, None),
        (None, None, None),
    ]
    assert line["all_sealed"] is False
    assert line["ledger_now"]["entries"] == 0


def test_order_that_is_not_paid_has_an_empty_receipt(fee: Fee) -> None:
    assert receipt_of(make_order([(fee, 1)]), now=NOW)["lines"] == []


def test_order_page_shows_the_entries_and_leads_to_the_receipt(
    client: Client, customer: User, order: Order, fee: Fee
) -> None:
    log_in(client, customer)
    page = page_of(client, order)
    assert "not sealed yet" in page
    assert "What has just happened is sealed within a minute or so." in page

    seal_events(plan_id=fee.term.plan_id)
    page = page_of(client, order)
    for event in order.lines.get().queue_events.all():
        assert f'<code class="seal">{event.sha256}</code>' in page
    assert "not sealed yet" not in page
    assert f'href="/orders/{order.reference}/receipt.json"' in page
    assert f'href="/queue/{fee.term.plan.slug}/#ledger"' in page


def test_receipt_is_for_the_customer_and_for_staff_and_for_nobody_else(
    client: Client, customer: User, order: Order
) -> None:
    address = f"/orders/{order.reference}/receipt.json"
    assert client.get(address).headers["Location"].startswith("/accounts/login/")
    for user, status in (
        (customer, 200),
        (make_user(is_staff=True), 200),
        (make_user(), 404),
        (User.objects.create_user("clerk@example.com", "a long pass phrase", is_staff=True), 404),
    ):
        log_in(client, user)
        answer = client.get(address)
        assert answer.status_code == status
        if status == 200:
            assert answer.json()["order"] == order.reference
            assert (
                answer.headers["Content-Disposition"]
                == f'attachment; filename="receipt-{order.reference}.json"'
            )


@pytest.mark.parametrize("kind", QueueEventKind)
def test_order_page_has_words_for_whatever_is_in_the_ledger(
    client: Client, customer: User, order: Order, kind: QueueEventKind
) -> None:
    log_in(client, customer)
    fairness.record(kind, [(order.lines.get(), 2)], now=NOW, seen=0)

    answer = client.get(f"/orders/{order.reference}/")

    assert answer.status_code == 200
