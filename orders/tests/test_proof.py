"""The evidence of an order on paper: complete, checkable, and safe from what people write."""

import hashlib
from collections.abc import Iterator
from datetime import datetime, timedelta

import pytest
import time_machine
from django.contrib.auth.models import Permission
from django.db import connection, transaction
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import translation

from accounts.models import User
from agreements.acceptance import Consent, Witness, record_acceptances, required_of_buyer
from agreements.models import Acceptance, Manner, Role, StatutoryRight, Subject, Text
from agreements.publishing import publish_shipped_texts
from evidence import chain
from evidence.models import ChainHead
from notices import kinds
from notices.models import Delivery
from notices.outbox import drain, tell
from orders.cases import open_case, write
from orders.models import (
    CaseMessage,
    Ground,
    GuardianRequest,
    Matter,
    Order,
    OrderState,
    Refund,
    RefundState,
    Side,
)
from orders.proof import proof_of_order
from orders.telling import about_order
from orders.tests.shopping import log_in
from tests.builders import NOW, make_capture, make_fee, make_order, make_plan, make_user
from tests.pdfs import around, attached, printed, squeezed

pytestmark = pytest.mark.django_db(transaction=True)

WITNESS = Witness("203.0.113.9", "Mozilla/5.0 (X11) Firefox/145.0", "Place the order")


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def buyer() -> User:
    user = make_user("buyer@example.com")
    User.objects.filter(pk=user.pk).update(name="Łukasz 陳大文")
    user.refresh_from_db()
    return user


@pytest.fixture
def order(buyer: User) -> Order:
    """2 phones, ordered an hour ago and paid half an hour ago, under the agreements that ship."""
    publish_shipped_texts(now=NOW)
    order = make_order(
        [(make_fee(make_plan()), 2)],
        customer=buyer,
        placed_at=NOW - timedelta(hours=1),
        paid_at=NOW - timedelta(minutes=30),
    )
    make_capture(order)
    accept(order)
    return order


@pytest.fixture
def staff() -> User:
    return make_user("staff@example.com", is_staff=True)


def accept(order: Order, *, language: str = "en") -> None:
    required = required_of_buyer(now=NOW, language=language, right=order.right)
    with transaction.atomic():
        record_acceptances(
            customer_id=order.customer_id,
            order_reference=order.reference,
            required=required,
            consents=[
                Consent(
                    each.text.pk,
                    each.subject,
                    each.role,
                    order.customer.name,
                    order.customer.email,
                    each.statement,
                )
                for each in required
            ],
            witness=WITNESS,
            now=order.placed_at,
        )


def proof(order: Order) -> str:
    return printed(proof_of_order(order, now=NOW))


def seal(row: Acceptance | CaseMessage) -> str:
    return f"{row._meta.label_lower}:{row.chain_number}:{row.chain_sha256}"


def test_order_is_told_with_its_lines_and_its_customer(order: Order) -> None:
    words = proof(order)
    for said in (
        f"Reference {order.reference}",
        "Name Łukasz 陳大文",
        "Email address buyer@example.com",
        "Country of residence Hong Kong SAR China",
        "State paid",
        "Total $9.98",
        "Placed at 2026-11-23 03:00:00 UTC, 2026-11-23 11:00:00 in Hong Kong",
        "Paid at 2026-11-23 03:30:00 UTC, 2026-11-23 11:30:00 in Hong Kong",
        "V08 · Android 13 · HK 30 days and 1 day on top $4.99 2 $9.98",
        "Made at 2026-11-23 04:00:00 UTC",
    ):
        assert squeezed(said) in words, said


@pytest.mark.clause("9.5")
def test_every_acceptance_is_told_with_its_circumstances_and_seals(order: Order) -> None:
    words = proof(order)
    accepted = list(Acceptance.objects.order_by("chain_number"))
    assert len(accepted) == 3
    for acceptance in accepted:
        assert squeezed(acceptance.statement + "Manner expressly") in words
        assert squeezed(f"Control {acceptance.control}") in words
        assert f"Seal{seal(acceptance)}" in words
    assert words.count(squeezed("Accepted at 2026-11-23 03:00:00 UTC, 2026-11-23 11:00:00 in Hong Kong")) == 3
    assert words.count(squeezed("IP address 203.0.113.9 Browser Mozilla/5.0 (X11) Firefox/145.0")) == 3
    assert words.count(squeezed("Role buyer Person Łukasz 陳大文 Email buyer@example.com")) == 3
    assert words.count(squeezed("Text VMOS Cloud Pre-payment Purchase Agreement, version 1 (English)")) == 2
    assert "Sealbeforeitnone" in words
    assert f"Sealbeforeitagreements.acceptance:1:{accepted[0].chain_sha256}" in words


@pytest.mark.clause("9.5")
def test_both_agreements_are_annexed_and_attached_as_they_were_accepted(order: Order) -> None:
    pdf = proof_of_order(order, now=NOW)
    words, files = printed(pdf), attached(pdf)
    assert sorted(files) == ["prepayment-1-en.md", "purchase-1-en.md"]
    for text in Text.objects.filter(language="en"):
        digest = hashlib.sha256(files[f"{text.version.document}-1-en.md"]).hexdigest()
        assert (digest, text.sha256 in words) == (text.sha256, True)
    assert squeezed("supersedes all prior agreements, understandings, or negotiations") in words


def test_annexes_are_in_the_language_that_was_accepted_and_the_rest_in_that_of_the_page(buyer: User) -> None:
    publish_shipped_texts(now=NOW)
    order = make_order([(make_fee(make_plan()), 1)], customer=buyer)
    accept(order, language="zh-hans")
    with translation.override("en"):
        pdf = proof_of_order(order, now=NOW)
    assert sorted(attached(pdf)) == ["prepayment-1-zh-hans.md", "purchase-1-zh-hans.md"]
    assert squeezed("What was accepted with the order") in printed(pdf)
    assert squeezed("Annex 1: VMOS Cloud 预付款购买协议, version 1 (简体中文)") in printed(pdf)


def test_payments_are_told_as_the_provider_stated_them(order: Order) -> None:
    entry = order.ledger.get()
    words = proof(order)
    assert squeezed("capture: $9.98") in words
    assert squeezed(f"Gateway sandbox Gateway's transaction {entry.transaction_id}") in words
    assert squeezed("Occurred at 2026-11-23 03:30:00 UTC") in words


def test_notices_are_told_with_address_and_fingerprint(order: Order) -> None:
    with transaction.atomic():
        tell([about_order(order, kinds.ORDER_EXPIRED, {})], now=NOW)
    drain(now=NOW)
    words = proof(order)
    deliveries = Delivery.objects.exclude(sent_at=None).select_related("message")
    assert {delivery.channel for delivery in deliveries} == {"in-site", "email"}
    for delivery in deliveries:
        assert delivery.message is not None
        assert squeezed(f"Channel {delivery.channel}") in words
        assert f"sha256{delivery.message.sha256}" in words
    assert squeezed("Channel email Address buyer@example.com Sent at 2026-11-23 04:00:00 UTC") in words


def test_cases_are_told_with_every_message_and_its_seal(order: Order, staff: User) -> None:
    case = open_case(
        order_id=order.pk,
        customer_id=order.customer_id,
        matter=Matter.DISPUTE,
        subject="Where are my phones?",
        body="Please tell me.\nI have waited.",
        now=NOW,
    )
    write(case_id=case.pk, author_id=staff.pk, side=Side.PLATFORM, body="They come on Monday.", now=NOW)
    words = proof(order)
    assert squeezed(f"{case.reference}: Where are my phones?") in words
    assert squeezed("First answer due by the end of 2026-11-28 in Hong Kong") in words
    first, second = CaseMessage.objects.order_by("pk")
    assert squeezed(f"{case.reference}, message of the customer") in words
    assert squeezed(f"Seal {seal(first)} Seal before it none Please tell me. I have waited.") in words
    assert squeezed(f"Seal {seal(second)} Seal before it {seal(first)} They come on Monday.") in words
    # Which of them wrote it is the platform's own affair.
    assert "staff@example.com" not in words


def test_guardian_right_and_refund_are_told(buyer: User, staff: User) -> None:
    right = StatutoryRight.objects.create(
        key="eu",
        edition=1,
        countries=["DE"],
        law="Directive 2011/83/EU",
        withdrawal_days=14,
        title={"en": "Right of withdrawal"},
        explanation={"en": "You may withdraw within 14 days."},
        waiver={},
        published_at=NOW,
    )
    paid = make_order([(make_fee(make_plan()), 1)], customer=buyer, paid_at=NOW)
    Order.objects.filter(pk=paid.pk).update(right=right, withdraw_until=NOW + timedelta(days=14))
    GuardianRequest.objects.create(
        order=paid,
        name="Wai",
        email="guardian@example.com",
        language="en",
        asked_at=NOW,
        answer="confirmed",
        answered_at=NOW + timedelta(hours=1),
    )
    for state, reference in ((RefundState.APPROVED, "R-1"), (RefundState.REQUESTED, "R-2")):
        Refund.objects.create(
            order=paid,
            attempt=make_capture(paid).attempt if reference == "R-1" else paid.attempts.get(),
            reference=reference,
            ground=Ground.LAW,
            legal_basis="Directive 2011/83/EU",
            explanation="Between us: he shouted.",
            state=state,
            minor=499,
            requested_by=staff,
            requested_at=NOW,
            decided_by=make_user("second@example.com", is_staff=True)
            if state == RefundState.APPROVED
            else None,
        )
    words = proof(Order.objects.get(pk=paid.pk))
    assert squeezed("Right of withdrawal Law Directive 2011/83/EU") in words
    assert squeezed("May withdraw until 2026-12-07 04:00:00 UTC, 2026-12-07 12:00:00 in Hong Kong") in words
    assert squeezed("You may withdraw within 14 days.") in words
    assert squeezed("Wai <guardian@example.com>") in words
    assert squeezed("Answer confirmed Answered at 2026-11-23 05:00:00 UTC") in words
    assert squeezed("R-1: $4.99 Ground required by law (3.3) Legal basis Directive 2011/83/EU") in words
    for hidden in ("R-2", "shouted", "staff@example.com", "second@example.com"):
        assert hidden not in words


@pytest.mark.clause("9.1")
def test_acceptance_by_continued_use_since_the_order_is_told(order: Order) -> None:
    text = Text.objects.get(version__document="prepayment", language="en")
    for days in (-1, 1):
        with transaction.atomic():
            chain.append(
                [deemed(order, text if days > 0 else other(text), at=order.placed_at + timedelta(days=days))]
            )
    words = proof(order)
    assert squeezed("Used the service. Manner by continued use (9.1)") in words
    assert words.count(squeezed("Used the service.")) == 1
    assert squeezed("Accepted at 2026-11-24 03:00:00 UTC") in words


def deemed(order: Order, text: Text, *, at: datetime) -> Acceptance:
    return Acceptance(
        customer=order.customer,
        manner=Manner.DEEMED,
        text=text,
        text_sha256=text.sha256,
        subject=Subject.AGREEMENT,
        role=Role.BUYER,
        person_email=order.customer.email,
        statement="Used the service.",
        control="page GET /orders/",
        accepted_at=at,
    )


def other(text: Text) -> Text:
    found: Text = Text.objects.exclude(pk=text.pk)[0]
    return found


@pytest.mark.clause("9.5")
def test_heads_of_the_chains_are_printed_as_the_check_takes_them(order: Order) -> None:
    head = ChainHead.objects.get(name="agreements.acceptance")
    words = proof(order)
    assert f"Sealagreements.acceptance:3:{head.chain_sha256}" in words
    assert squeezed("manage.py verify_evidence --seal") in words


def test_nothing_on_record_is_said(buyer: User) -> None:
    words = proof(make_order([(make_fee(make_plan()), 1)], customer=buyer))
    for title in (
        "accepted with the order",
        "Payments",
        "Refunds",
        "Invoices and credit notes",
        "Notices sent",
        "Cases",
    ):
        assert squeezed(title) in words
    assert words.count(squeezed("None on record.")) == 9


def test_what_people_write_is_printed_whatever_it_says(order: Order) -> None:
    name = '#panic("x") $x^2$ *a* @b <c> \\ `d` 😀 \u202eevil'
    User.objects.filter(pk=order.customer_id).update(name=name)
    body = "]#pagebreak() = Heading\n" + "W" * 2_000 + "\n" + "😀" * 100 + " שלום " + "长" * 2_000
    open_case(
        order_id=order.pk,
        customer_id=order.customer_id,
        matter=Matter.DISPUTE,
        subject="#x",
        body=body,
        now=NOW,
    )
    words = proof(Order.objects.get(pk=order.pk))
    assert squeezed(name.replace("😀", "[U+1F600]").replace("\u202e", "[U+202E]")) in words
    assert "]#pagebreak()=Heading" + "W" * 2_000 + "[U+1F600]" * 100 + "[U+05E9][U+05DC]" in words
    assert "长" * 2_000 in words


def test_same_order_at_the_same_moment_gives_the_same_bytes(order: Order) -> None:
    assert proof_of_order(order, now=NOW) == proof_of_order(Order.objects.get(pk=order.pk), now=NOW)


def test_pages_say_what_they_belong_to(order: Order) -> None:
    said = around(proof_of_order(order, now=NOW), page=3)
    assert squeezed(f"Evidence of order {order.reference}") in said
    assert squeezed("Made at 2026-11-23 04:00:00 UTC") in said
    assert "Page3of" in said


def test_number_of_queries_does_not_grow_with_the_record(order: Order, staff: User) -> None:
    def queries() -> int:
        fresh = Order.objects.get(pk=order.pk)
        with CaptureQueriesContext(connection) as asked:
            proof_of_order(fresh, now=NOW)
        return len(asked)

    def add(number: int) -> None:
        case = open_case(
            order_id=order.pk,
            customer_id=order.customer_id,
            matter=Matter.DISPUTE,
            subject=f"Number {number}",
            body="Hello?",
            now=NOW,
        )
        write(case_id=case.pk, author_id=staff.pk, side=Side.PLATFORM, body="Hello.", now=NOW)
        drain(now=NOW)

    add(1)
    before = queries()
    add(2)
    add(3)
    assert (before, queries()) == (13, 13)


def test_customer_gets_the_evidence_of_his_own_order_in_the_browser(client: Client, order: Order) -> None:
    log_in(client, order.customer)
    response = client.get(f"/orders/{order.reference}/evidence.pdf")
    assert response.status_code == 200
    assert response.content == proof_of_order(order, now=NOW)
    assert response.headers["Content-Type"] == "application/pdf"
    assert response.headers["Content-Disposition"] == f'inline; filename="evidence-{order.reference}.pdf"'
    assert "no-store" in response.headers["Cache-Control"]


def test_order_page_leads_to_the_evidence(client: Client, order: Order) -> None:
    log_in(client, order.customer)
    page = client.get(f"/orders/{order.reference}/").content.decode()
    assert f'href="/orders/{order.reference}/evidence.pdf"' in page


def test_evidence_is_nobody_elses(client: Client, order: Order) -> None:
    address = f"/orders/{order.reference}/evidence.pdf"
    assert client.get(address).status_code == 302
    log_in(client, make_user())
    assert client.get(address).status_code == 404


def test_staff_who_may_see_orders_get_it_behind_the_orders_page(client: Client, order: Order) -> None:
    address = reverse("admin:orders_order_print_evidence", args=[order.pk])
    clerk = make_user("clerk@example.com")
    User.objects.filter(pk=clerk.pk).update(is_staff=True)
    log_in(client, clerk)
    assert client.get(address).status_code == 403

    clerk.user_permissions.add(Permission.objects.get(codename="view_order"))
    assert client.get(address).content == proof_of_order(order, now=NOW)
    page = client.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()
    assert f'href="{address}"' in page


def test_staff_get_the_evidence_of_an_unpaid_order_but_no_button_to_refund_it(
    client: Client, order: Order, staff: User
) -> None:
    unpaid = make_order([(make_fee(make_plan()), 1)], customer=order.customer)
    assert unpaid.state == OrderState.UNPAID
    log_in(client, staff)
    page = client.get(reverse("admin:orders_order_change", args=[unpaid.pk])).content.decode()
    assert reverse("admin:orders_order_print_evidence", args=[unpaid.pk]) in page
    assert reverse("admin:orders_order_request_refund", args=[unpaid.pk]) not in page
