"""Where invoices and credit notes are got: on the order's page, and at the desk."""

from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse

from accounts.models import User
from orders.documents import document_pdf, issue_credit_note, issue_invoice
from orders.models import Document, EntryKind, LedgerEntry, Order
from orders.tests.shopping import log_in
from tests.builders import NOW, make_capture, make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db

LIST = reverse("admin:orders_document_changelist")


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def invoice() -> Document:
    return invoiced(make_user("buyer@example.com"))


@pytest.fixture
def desk(client: Client) -> Client:
    client.force_login(make_user("staff@example.com", is_staff=True))
    return client


def invoiced(customer: User) -> Document:
    """The invoice of an order of 9.98 USD."""
    order = make_order([(make_fee(make_plan()), 2)], customer=customer, paid_at=NOW)
    make_capture(order)
    document = issue_invoice(order, now=NOW)
    assert document
    return document


def credited(order: Order) -> Document:
    """The credit note for 4.99 USD that went back two days later."""
    entry = LedgerEntry.objects.create(
        order=order,
        attempt=order.attempts.get(),
        gateway="sandbox",
        kind=EntryKind.REFUND,
        transaction_id=f"re-{order.pk}",
        minor=-499,
        currency="USD",
        occurred_at=NOW,
        recorded_at=NOW,
    )
    note = issue_credit_note(order, entry=entry, refund=None, now=NOW + timedelta(days=2))
    assert note
    return note


def address(document: Document) -> str:
    return f"/orders/{document.order.reference}/{document.number}.pdf"


def page_of(client: Client, order: Order) -> str:
    return " ".join(client.get(f"/orders/{order.reference}/").content.decode().split())


# --- the customer --------------------------------------------------------------------------------------


def test_customer_gets_his_invoice_in_the_browser(client: Client, invoice: Document) -> None:
    log_in(client, invoice.order.customer)
    response = client.get(address(invoice))

    assert response.status_code == 200
    assert response.content == document_pdf(invoice)
    assert response.headers["Content-Type"] == "application/pdf"
    assert response.headers["Content-Disposition"] == 'inline; filename="INV-2026-000001.pdf"'
    assert "no-store" in response.headers["Cache-Control"]


def test_invoice_keeps_the_language_it_was_issued_in(client: Client, invoice: Document) -> None:
    log_in(client, invoice.order.customer)
    response = client.get(address(invoice), headers={"accept-language": "zh-hans"})
    assert response.content == document_pdf(invoice)


def test_order_page_leads_to_the_invoice_and_to_every_credit_note(client: Client, invoice: Document) -> None:
    note = credited(invoice.order)
    log_in(client, invoice.order.customer)
    page = page_of(client, invoice.order)

    assert page.count(f'href="{address(invoice)}"') == 1
    assert page.count(f'href="{address(note)}"') == 1
    assert 'Invoice and receipt<br><span class="small muted">$9.98, Nov. 23, 2026</span>' in page
    assert 'Credit note<br><span class="small muted">$4.99, Nov. 25, 2026</span>' in page


def test_order_that_is_not_paid_shows_no_documents(client: Client, invoice: Document) -> None:
    unpaid = make_order([(make_fee(make_plan()), 1)], customer=invoice.order.customer)
    log_in(client, unpaid.customer)
    page = page_of(client, unpaid)
    assert "Documents</h3>" not in page
    assert "INV-" not in page


def test_documents_are_nobody_elses(client: Client, invoice: Document) -> None:
    response = client.get(address(invoice))
    assert (response.status_code, response["Location"].split("?")[0]) == (302, reverse("account_login"))

    log_in(client, make_user())
    assert client.get(address(invoice)).status_code == 404


def test_another_customers_number_is_not_found_below_an_order_of_ones_own(
    client: Client, invoice: Document
) -> None:
    mine = invoiced(make_user("other@example.com"))
    log_in(client, mine.order.customer)
    assert client.get(address(mine)).status_code == 200
    assert client.get(f"/orders/{mine.order.reference}/{invoice.number}.pdf").status_code == 404


@pytest.mark.parametrize("number", ["INV-2026-000002", "CN-2026-000001", "INV-2026-1", "x"])
def test_a_number_that_is_none_is_not_found(client: Client, invoice: Document, number: str) -> None:
    log_in(client, invoice.order.customer)
    assert client.get(f"/orders/{invoice.order.reference}/{number}.pdf").status_code == 404


def test_documents_are_only_read(client: Client, invoice: Document) -> None:
    log_in(client, invoice.order.customer)
    assert client.post(address(invoice)).status_code == 405


# --- the desk ------------------------------------------------------------------------------------------


def listed(desk: Client, **query: str) -> list[str]:
    return [document.number for document in desk.get(LIST, query).context["cl"].result_list]


@pytest.mark.parametrize(
    "term", ["INV-2026-000001", " inv-2026-000001 ", "BUYER@example", "{reference}", "{lower}"]
)
def test_a_document_is_found_by_what_people_read_out(desk: Client, invoice: Document, term: str) -> None:
    invoiced(make_user("other@example.com"))
    reference = invoice.order.reference
    term = term.format(reference=reference, lower=reference.lower())
    assert listed(desk, q=term) == ["INV-2026-000001"]


def test_documents_are_filtered_by_kind_year_currency_and_day(desk: Client, invoice: Document) -> None:
    credited(invoice.order)
    assert listed(desk) == ["CN-2026-000001", "INV-2026-000001"]
    assert listed(desk, kind__exact="credit-note") == ["CN-2026-000001"]
    assert listed(desk, year="2026", currency="USD", kind__exact="invoice") == ["INV-2026-000001"]
    assert listed(desk, year="2025") == []
    day = {"issued_at__year": "2026", "issued_at__month": "11", "issued_at__day": "25"}
    assert listed(desk, **day) == ["CN-2026-000001"]


def test_staff_who_may_see_documents_print_them_as_the_customer_has_them(
    client: Client, invoice: Document
) -> None:
    printed_at = reverse("admin:orders_document_print_document", args=[invoice.pk])
    clerk = make_user("clerk@example.com")
    User.objects.filter(pk=clerk.pk).update(is_staff=True)
    log_in(client, clerk)
    assert client.get(printed_at).status_code == 403

    clerk.user_permissions.add(Permission.objects.get(codename="view_document"))
    assert client.get(printed_at).content == document_pdf(invoice)
    page = client.get(reverse("admin:orders_document_change", args=[invoice.pk])).content.decode()
    assert f'href="{printed_at}"' in page


def test_the_orders_page_at_the_desk_names_its_documents(desk: Client, invoice: Document) -> None:
    note = credited(invoice.order)
    page = desk.get(reverse("admin:orders_order_change", args=[invoice.order_id])).content.decode()
    for document in (invoice, note):
        assert document.number in page
        assert reverse("admin:orders_document_change", args=[document.pk]) in page
