"""Invoices and credit notes: what they say, when there is one, and numbers without a gap."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any
from zoneinfo import ZoneInfo

import pytest
from django.db import IntegrityError, connection, transaction
from django.test.utils import CaptureQueriesContext
from pytest_django import Settings

from accounts.models import User
from evidence import chain
from evidence.contract_time import contract_date
from evidence.models import ChainHead
from evidence.triggers import install_triggers
from evidence.verification import verify_evidence
from inventory.money import Money
from orders import ledger
from orders.documents import document_pdf, issue_credit_note, issue_invoice, issue_missing_invoices
from orders.gateways.protocol import MoneyMoved, RefusedReturn, Snapshot
from orders.ledger import apply_snapshot
from orders.models import (
    Allocation,
    Document,
    DocumentKind,
    Ground,
    LedgerEntry,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    Refund,
    RefundLine,
    RefundState,
    ReturnReason,
    ReviewItem,
)
from orders.models.document import numbered
from orders.proof import proof_of_order
from orders.refunds import approve_refund, request_refund
from orders.returns import confirm_payout, give_back, record_payout
from orders.verification import gaps_in_numbers, orders_and_their_documents
from tests.builders import (
    NOW,
    make_attempt,
    make_capture,
    make_devices,
    make_fee,
    make_order,
    make_plan,
    make_user,
)
from tests.pdfs import around, printed, squeezed
from tests.racing import failures, race

pytestmark = pytest.mark.django_db

CAPTURED_AT = NOW - timedelta(minutes=2)
PAID_IN_ADVANCE = "Paid in advance: the service period of each phone begins when it is allocated and activated for you (5.1)."


@pytest.fixture(autouse=True)
def seller(settings: Settings) -> Settings:
    settings.SELLER_NAME = "Sample Phones Limited"
    settings.SELLER_ADDRESS = "12/F, Sample Tower\nHong Kong"
    settings.SELLER_TAX_ID = "BR 123"
    settings.SELLER_TIME_ZONE = ZoneInfo("Asia/Hong_Kong")
    return settings


@pytest.fixture
def buyer() -> User:
    user = make_user("buyer@example.com")
    User.objects.filter(pk=user.pk).update(name="Łukasz 陳大文")
    user.refresh_from_db()
    return user


@pytest.fixture
def order(buyer: User) -> Order:
    """3 phones at 49.90 USD, not paid yet."""
    return make_order([(make_fee(make_plan(), minor=4_990), 3)], customer=buyer)


@pytest.fixture
def paid(order: Order) -> Order:
    pay(order)
    return order


def in_language(customer: User, language: str) -> None:
    User.objects.filter(pk=customer.pk).update(language=language)


def attempt_of(order: Order) -> PaymentAttempt:
    return order.attempts.order_by("pk").first() or make_attempt(order)


def report(order: Order, *, now: datetime = NOW, **moves: tuple[MoneyMoved | RefusedReturn, ...]) -> None:
    """Have the gateway of the order's payment report money."""
    attempt = attempt_of(order)
    apply_snapshot(attempt_id=attempt.pk, snapshot=Snapshot("pay_1", "captured", **moves), now=now)  # type: ignore[arg-type]


def money(order: Order, minor: int, name: str, *, reference: str = "") -> MoneyMoved:
    return MoneyMoved(f"{order.reference}-{name}", Money(minor, order.currency), CAPTURED_AT, reference)


def pay(order: Order, minor: int = 0, *, name: str = "cap", now: datetime = NOW) -> None:
    report(order, captures=(money(order, minor or order.total_minor, name),), now=now)


def refunded(order: Order, minor: int, name: str = "re", *, reference: str = "", now: datetime = NOW) -> None:
    report(order, refunds=(money(order, minor, name, reference=reference),), now=now)


def approved(order: Order, units: int, *, ground: Ground = Ground.UNABLE_TO_SUPPLY, law: str = "") -> Refund:
    asked = request_refund(
        order_id=order.pk,
        ground=ground,
        legal_basis=law,
        explanation="Known to staff only.",
        units={order.lines.get().pk: units},
        requested_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    return approve_refund(refund_id=asked.pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)


def issued() -> list[tuple[str, int]]:
    return [(document.number, document.minor) for document in Document.objects.order_by("pk")]


def words_of(document: Document) -> str:
    return printed(document_pdf(document))


class GoneWrong(Exception):
    """Something fails after the document was issued."""


def issue_in_a_transaction(order: Order, *, fails: bool) -> str:
    with transaction.atomic():
        invoice = issue_invoice(order, now=NOW)
        if fails:
            raise GoneWrong
    assert invoice
    return invoice.number


# --- what an invoice says ------------------------------------------------------------------------------


def test_an_order_that_becomes_paid_has_its_invoice_with_all_that_is_printed(paid: Order) -> None:
    invoice = Document.objects.get()

    assert (invoice.kind, invoice.number, invoice.order) == ("invoice", "INV-2026-000001", paid)
    assert (invoice.minor, invoice.currency, invoice.issued_at) == (14_970, "USD", NOW)
    assert (invoice.entry, invoice.corrects, invoice.refund) == (LedgerEntry.objects.get(), None, None)
    assert invoice.contents == {
        "language": "en",
        "title": "Prepayment invoice and receipt",
        "number": "INV-2026-000001",
        "seller": {
            "role": "Seller",
            "name": "Sample Phones Limited",
            "words": "12/F, Sample Tower\nHong Kong",
            "facts": [["Tax number", "BR 123"]],
        },
        "buyer": {
            "role": "Buyer",
            "name": "Łukasz 陳大文",
            "words": "Hong Kong SAR China",
            "facts": [["Email address", "buyer@example.com"]],
        },
        "facts": [
            ["Date of issue", "Nov. 23, 2026"],
            ["Order", f"{paid.reference} of Nov. 22, 2026"],
            ["Paid on", "Nov. 23, 2026"],
            ["Currency", "USD"],
        ],
        "lines_title": "What was bought",
        "lines": {
            "head": ["Plan", "Service period", "Fee", "Quantity", "Sum"],
            "rows": [["V08 · Android 13 · HK", "30 days and 1 day on top", "$49.90", "3", "$149.70"]],
            "total": ["Total", "$149.70"],
        },
        "moved_title": "How it was paid",
        "moved": {
            "head": ["Date", "Payment method", "Transaction", "Amount"],
            "rows": [["Nov. 23, 2026", "sandbox1", f"{paid.reference}-cap", "$149.70"]],
            "total": ["Paid for this order", "$149.70"],
        },
        "notes": [
            "Paid in full: nothing is due.",
            PAID_IN_ADVANCE,
        ],
        "labels": {"seal": "Seal", "page_of": "Page {page} of {pages}"},
    }


def test_invoice_on_paper_says_all_of_it_and_its_seal(paid: Order) -> None:
    invoice = Document.objects.get()
    words = words_of(invoice)

    for said in (
        "Prepayment invoice and receipt INV-2026-000001",
        "Seller Sample Phones Limited 12/F, Sample Tower Hong Kong Tax number BR 123",
        "Buyer Łukasz 陳大文 Hong Kong SAR China Email address buyer@example.com",
        f"Date of issue Nov. 23, 2026 Order {paid.reference} of Nov. 22, 2026 Paid on Nov. 23, 2026 Currency USD",
        "V08 · Android 13 · HK 30 days and 1 day on top $49.90 3 $149.70 Total $149.70",
        f"Nov. 23, 2026 sandbox1 {paid.reference}-cap $149.70 Paid for this order $149.70",
        "Paid in full: nothing is due. Paid in advance",
    ):
        assert squeezed(said) in words, said
    assert f"orders.document:1:{invoice.chain_sha256}" in around(document_pdf(invoice), page=1)


def test_phones_that_are_in_stock_are_not_paid_in_advance(order: Order) -> None:
    fee = make_fee(make_plan("V06"))
    bought = make_order([(fee, 1)])
    with _past_the_triggers("orders_orderline_is_presale_once", "orders_orderline"):
        OrderLine.objects.filter(order=bought).update(is_presale=False)
    pay(bought)

    contents = Document.objects.get().contents
    assert (contents["title"], contents["notes"]) == (
        "Invoice and receipt",
        ["Paid in full: nothing is due."],
    )


def test_yen_have_no_decimals(buyer: User) -> None:
    order = make_order([(make_fee(make_plan(), minor=750, currency="JPY"), 2)], customer=buyer)
    pay(order)

    invoice = Document.objects.get()
    assert (invoice.minor, invoice.currency) == (1_500, "JPY")
    assert invoice.contents["lines"]["rows"][0][2:] == ["¥750", "2", "¥1,500"]
    assert squeezed("Total ¥1,500") in words_of(invoice)


@pytest.mark.parametrize(
    ("language", "day", "amount", "country"),
    [
        ("zh-hans", "2026年11月23日", "US$149.70", "中国香港特别行政区"),
        ("zh-hant", "2026年11月23日", "US$149.70", "中國香港特別行政區"),
    ],
)
def test_invoice_is_in_the_language_of_its_buyer(
    order: Order, language: str, day: str, amount: str, country: str
) -> None:
    in_language(order.customer, language)
    pay(order)

    invoice = Document.objects.get()
    assert invoice.contents["language"] == language
    assert squeezed(invoice.contents["facts"][0][1]) == day
    assert invoice.contents["lines"]["total"][1] == amount
    assert invoice.contents["buyer"]["words"] == country
    for said in (day, amount, country, "Łukasz陳大文"):
        assert said in words_of(invoice)


def test_seller_without_address_and_tax_number_prints_none(order: Order, seller: Settings) -> None:
    seller.SELLER_ADDRESS = seller.SELLER_TAX_ID = ""
    pay(order)

    assert squeezed("Seller Sample Phones Limited Buyer") in words_of(Document.objects.get())


def test_what_is_printed_never_changes(paid: Order, seller: Settings) -> None:
    before = document_pdf(Document.objects.get())
    User.objects.filter(pk=paid.customer_id).update(name="Eve", email="eve@example.com", language="zh-hans")
    type(paid.lines.get().plan).objects.update(name="V99")
    seller.SELLER_NAME = "Somebody else"

    assert document_pdf(Document.objects.get()) == before


def test_names_that_no_font_has_are_printed_as_code_points(order: Order) -> None:
    User.objects.filter(pk=order.customer_id).update(name='#panic("x") 😀\x07')
    pay(order)

    assert squeezed('#panic("x") [U+1F600][U+0007]') in words_of(Document.objects.get())


# --- when there is an invoice --------------------------------------------------------------------------


def test_the_same_report_again_issues_no_second_invoice(paid: Order) -> None:
    for _ in range(3):
        pay(paid)

    assert issued() == [("INV-2026-000001", 14_970)]


def test_part_of_the_money_is_not_invoiced_and_the_whole_is_once_with_both_parts(order: Order) -> None:
    pay(order, 10_000, name="first")
    assert issued() == []

    pay(order, 4_970, name="second")

    invoice = Document.objects.get()
    assert invoice.entry.transaction_id == f"{order.reference}-second"
    assert [row[3] for row in invoice.contents["moved"]["rows"]] == ["$100.00", "$49.70"]


def test_a_surplus_is_shown_as_paid_and_not_as_part_of_the_price(order: Order) -> None:
    pay(order, 20_000)

    contents = Document.objects.get().contents
    assert [row[3] for row in contents["moved"]["rows"]] == ["$200.00"]
    assert contents["moved"]["total"] == ["Paid for this order", "$149.70"]


def test_a_late_payment_that_goes_back_is_not_invoiced(order: Order) -> None:
    Order.objects.filter(pk=order.pk).update(state=OrderState.EXPIRED)
    type(order.lines.get().plan).objects.update(presale_cap=0)
    pay(order)

    assert order.money_returns.get().reason == ReturnReason.LATE
    assert issued() == []


def test_an_invoice_that_fails_never_vetoes_money_and_is_missed(
    order: Order, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    with monkeypatch.context() as broken:
        broken.setattr("orders.documents.lines_of", lambda *_, **__: 1 / 0)
        pay(order)

    order.refresh_from_db()
    assert (order.state, issued()) == (OrderState.PAID, [])
    assert f"No document was issued for order {order.reference}." in caplog.messages
    assert list(orders_and_their_documents(NOW)) == [f"Order {order.reference} is paid and has no invoice."]


@pytest.mark.django_db(transaction=True)
def test_an_invoice_that_is_missed_is_written_later_and_once() -> None:
    order = make_paid_order(make_fee(make_plan()))
    make_order([(make_fee(make_plan()), 1)])

    assert (issue_missing_invoices(now=NOW), issue_missing_invoices(now=NOW)) == (1, 0)
    assert Document.objects.get().order == order
    assert list(orders_and_their_documents(NOW)) == []


# --- numbers -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("zone", "last_second"),
    [
        ("Asia/Hong_Kong", datetime(2026, 12, 31, 15, 59, 59, tzinfo=UTC)),
        ("America/New_York", datetime(2027, 1, 1, 4, 59, 59, tzinfo=UTC)),
    ],
)
def test_numbers_begin_anew_with_the_sellers_year_at_the_second(
    seller: Settings, zone: str, last_second: datetime
) -> None:
    seller.SELLER_TIME_ZONE = ZoneInfo(zone)
    fee = make_fee(make_plan())
    for number in range(4):
        moment = last_second + timedelta(seconds=number // 2)
        pay(make_order([(fee, 1)]), now=moment)

    assert [number for number, _minor in issued()] == [
        "INV-2026-000001",
        "INV-2026-000002",
        "INV-2027-000001",
        "INV-2027-000002",
    ]
    dates = [document.contents["facts"][0][1] for document in Document.objects.order_by("pk")]
    assert dates == ["Dec. 31, 2026"] * 2 + ["Jan. 1, 2027"] * 2


def test_a_transaction_that_is_rolled_back_leaves_no_gap() -> None:
    fee = make_fee(make_plan())
    first, lost, second = (make_paid_order(fee) for _ in range(3))
    issue_in_a_transaction(first, fails=False)
    with pytest.raises(GoneWrong):
        issue_in_a_transaction(lost, fails=True)
    issue_in_a_transaction(second, fails=False)

    assert list(Document.objects.order_by("pk").values_list("order", "serial")) == [
        (first.pk, 1),
        (second.pk, 2),
    ]


@pytest.mark.parametrize(
    "number", ["INV-2026-1", "CN-2026-000001", "INV-2026-000002", "INV-2026-000001 ", "inv-2026-000001", ""]
)
def test_only_the_printed_number_finds_the_document(paid: Order, number: str) -> None:
    assert Document.objects.get(numbered("INV-2026-000001")).order == paid
    assert not Document.objects.filter(numbered(number)).exists()


def test_the_database_lets_no_order_have_two_invoices_and_no_number_two_owners(paid: Order) -> None:
    fee = make_fee(make_plan("V06"))
    other = make_paid_order(fee)
    capture = LedgerEntry.objects.get(order=other)

    def again(**changes: Any) -> Document:
        columns = {"kind": DocumentKind.INVOICE, "year": 2026, "serial": 2, "order": other, "entry": capture}
        return Document(
            **{**columns, **changes}, minor=1, currency="USD", issued_at=NOW, contents={"title": "Invoice"}
        )

    for wrong in (
        again(serial=1),
        again(order=paid),
        again(entry=LedgerEntry.objects.get(order=paid)),
        again(kind=DocumentKind.CREDIT_NOTE),
        again(corrects=Document.objects.get()),
    ):
        with pytest.raises(IntegrityError), transaction.atomic():
            chain.append([wrong])
    chain.append([again()])


# --- credit notes --------------------------------------------------------------------------------------


def test_money_that_has_gone_back_is_credited_with_the_units_and_the_ground(paid: Order) -> None:
    refund = approved(paid, 2, ground=Ground.LAW, law="Directive 2011/83/EU, article 9")
    assert issued() == [("INV-2026-000001", 14_970)]
    refunded(paid, 9_980, reference=refund.reference, now=NOW + timedelta(days=1))

    note = Document.objects.get(kind=DocumentKind.CREDIT_NOTE)
    assert (note.number, note.minor, note.currency) == ("CN-2026-000001", 9_980, "USD")
    assert (note.refund, note.entry.minor) == (refund, -9_980)
    assert note.corrects == Document.objects.get(kind=DocumentKind.INVOICE)
    assert note.contents["title"] == "Credit note"
    assert note.contents["facts"] == [
        ["Date of issue", "Nov. 24, 2026"],
        ["Corrects invoice", "INV-2026-000001 of Nov. 23, 2026"],
        ["Order", f"{paid.reference} of Nov. 22, 2026"],
        ["Ground", "required by law (3.3)"],
        ["Legal basis", "Directive 2011/83/EU, article 9"],
        ["Currency", "USD"],
    ]
    assert note.contents["lines"]["rows"] == [
        ["V08 · Android 13 · HK", "30 days and 1 day on top", "$49.90", "2", "$99.80"]
    ]
    assert note.contents["lines"]["total"] == ["Total", "$99.80"]
    assert note.contents["moved"]["rows"] == [["Nov. 23, 2026", "sandbox1", f"{paid.reference}-re", "$99.80"]]
    words = words_of(note)
    assert squeezed("Credit note CN-2026-000001") in words
    assert squeezed("Corrects invoice INV-2026-000001 of Nov. 23, 2026") in words
    assert squeezed("which has been given back: nothing is due.") in words
    assert squeezed("Known to staff only") not in words


def test_the_same_refund_reported_again_is_credited_once(paid: Order) -> None:
    refund = approved(paid, 1)
    for _ in range(3):
        refunded(paid, 4_990, reference=refund.reference)

    assert issued() == [("INV-2026-000001", 14_970), ("CN-2026-000001", 4_990)]


def test_each_refund_of_an_order_has_its_own_credit_note(paid: Order) -> None:
    for number in (1, 2):
        refund = approved(paid, number)
        refunded(paid, 4_990 * number, f"re{number}", reference=refund.reference)

    assert issued()[1:] == [("CN-2026-000001", 4_990), ("CN-2026-000002", 9_980)]
    assert list(orders_and_their_documents(NOW)) == []


def test_a_refund_at_the_gateways_own_desk_is_credited(paid: Order) -> None:
    refunded(paid, 5_000)

    note = Document.objects.get(kind=DocumentKind.CREDIT_NOTE)
    assert (note.minor, note.refund) == (5_000, None)
    assert ["Ground", "given back by the payment provider"] in note.contents["facts"]
    assert note.contents["lines"]["rows"] == [["Part of the price", "–", "–", "–", "$50.00"]]
    assert squeezed("Part of the price – – – $50.00 Total $50.00") in words_of(note)


def test_money_is_credited_once_whoever_asks_for_the_note_again(paid: Order) -> None:
    refunded(paid, 5_000)
    note = Document.objects.get(kind=DocumentKind.CREDIT_NOTE)

    assert issue_credit_note(paid, entry=note.entry, refund=approved(paid, 1), now=NOW) == note
    assert len(issued()) == 2


def test_money_that_staff_sent_by_hand_is_credited_with_its_way(paid: Order) -> None:
    refund = approved(paid, 1)
    report(paid, refused_returns=(RefusedReturn(refund.reference, "Account closed."),))
    payout = record_payout(
        due=refund,
        means="Bank transfer",
        reference="FPS 77",
        paid_on=contract_date(NOW),
        recorded_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    assert len(issued()) == 1
    confirm_payout(payout_id=payout.pk, confirmed_by_id=make_user(is_staff=True).pk, now=NOW)

    note = Document.objects.get(kind=DocumentKind.CREDIT_NOTE)
    assert (note.minor, note.refund) == (4_990, refund)
    assert note.contents["moved"]["rows"] == [["Nov. 23, 2026", "Bank transfer", "FPS 77", "$49.90"]]
    assert list(orders_and_their_documents(NOW)) == []


def test_phones_of_one_line_are_credited_together(paid: Order) -> None:
    line = paid.lines.get()
    refund = Refund.objects.create(
        order=paid,
        attempt=attempt_of(paid),
        reference=f"{paid.reference}-R1",
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="They do not start.",
        state=RefundState.APPROVED,
        minor=9_980,
        requested_by=make_user(),
        requested_at=NOW,
        decided_by=make_user(),
        decided_at=NOW,
    )
    for unit, device in enumerate(make_devices(line.plan, 2), start=1):
        phone = Allocation.objects.create(
            line=line, unit=unit, device=device, starts_at=NOW, ends_at=NOW + timedelta(days=31)
        )
        RefundLine.objects.create(refund=refund, line=line, allocation=phone, units=1)
    refunded(paid, 9_980, reference=refund.reference)

    lines = Document.objects.get(kind=DocumentKind.CREDIT_NOTE).contents["lines"]
    assert [row[3:] for row in lines["rows"]] == [["2", "$99.80"]]
    assert lines["total"] == ["Total", "$99.80"]


def test_a_surplus_given_back_at_the_gateways_desk_is_credited_only_beyond_it(order: Order) -> None:
    pay(order, 15_970)
    refunded(order, 600, "first")
    assert issued() == [("INV-2026-000001", 14_970)]
    # 4.00 of the surplus are left, so one dollar of these five comes out of the sale.
    refunded(order, 500, "second")

    assert issued()[1:] == [("CN-2026-000001", 100)]
    assert list(orders_and_their_documents(NOW)) == []


def test_a_refund_of_ours_beside_a_surplus_is_credited_whole(order: Order) -> None:
    pay(order, 15_970)
    refund = approved(order, 3)
    refunded(order, 14_970, reference=refund.reference)

    assert issued()[1:] == [("CN-2026-000001", 14_970)]
    assert list(orders_and_their_documents(NOW)) == []


def test_money_that_belonged_to_no_sale_goes_back_without_a_credit_note(paid: Order) -> None:
    pay(paid, name="again")
    back = paid.money_returns.get()
    refunded(paid, 14_970, reference=back.reference)

    assert (back.reason, issued()) == (ReturnReason.DUPLICATE, [("INV-2026-000001", 14_970)])
    assert list(orders_and_their_documents(NOW)) == []


def test_a_surplus_given_back_by_staff_has_no_credit_note(order: Order) -> None:
    pay(order, 15_970)
    back = give_back(
        attempt_id=attempt_of(order).pk,
        amount=Money(1_000, "USD"),
        reason=ReturnReason.SURPLUS,
        decided_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    refunded(order, 1_000, reference=back.reference)

    assert issued() == [("INV-2026-000001", 14_970)]


def test_a_chargeback_has_no_credit_note_whoever_wins(paid: Order) -> None:
    report(paid, chargebacks=(money(paid, 14_970, "dispute"),))
    assert issued() == [("INV-2026-000001", 14_970)]

    report(paid, reversals=(money(paid, 14_970, "won"),))

    assert issued() == [("INV-2026-000001", 14_970)]
    assert list(orders_and_their_documents(NOW)) == []


def test_money_given_back_before_the_order_was_paid_is_not_credited(order: Order) -> None:
    pay(order, 10_000, name="first")
    refunded(order, 10_000)
    pay(order, name="second")

    assert issued() == [("INV-2026-000001", 14_970)]
    moved = Document.objects.get().contents["moved"]
    assert [row[3] for row in moved["rows"]] == ["$100.00", "-$100.00", "$149.70"]


# --- evidence ------------------------------------------------------------------------------------------


@contextmanager
def _past_the_triggers(trigger: str, table: str = "orders_document") -> Iterator[None]:
    """As somebody who owns the database would go about it."""
    with connection.cursor() as cursor:
        cursor.execute(
            f"DROP TRIGGER {trigger}" + (f" ON {table}" if connection.vendor == "postgresql" else "")
        )
        yield
    install_triggers(using="default")


def execute(sql: str, *parameters: int) -> None:
    with connection.cursor() as cursor:
        cursor.execute(sql, parameters)


def test_nothing_is_wrong_with_documents_as_they_are_issued(paid: Order) -> None:
    refund = approved(paid, 1)
    refunded(paid, 4_990, reference=refund.reference)

    findings = verify_evidence(now=NOW).findings
    assert (findings["chains"], findings["invoices"], findings["numbers of documents"]) == ((), (), ())


def test_an_altered_document_is_found(paid: Order) -> None:
    invoice = Document.objects.get()
    with _past_the_triggers("orders_document_no_update"):
        execute("UPDATE orders_document SET minor = 1 WHERE id = %s", invoice.pk)

    assert verify_evidence(now=NOW).findings["chains"] == (
        f"orders.Document number 1 (id {invoice.pk}) was altered.",
    )


def test_altered_words_of_a_document_are_found(paid: Order) -> None:
    invoice = Document.objects.get()
    cast = "::jsonb" if connection.vendor == "postgresql" else ""
    with _past_the_triggers("orders_document_no_update"):
        execute(f"UPDATE orders_document SET contents = '{{}}'{cast} WHERE id = %s", invoice.pk)

    assert verify_evidence(now=NOW).findings["chains"] == (
        f"orders.Document number 1 (id {invoice.pk}) was altered.",
    )


def test_a_gap_in_the_numbers_is_found(paid: Order) -> None:
    fee = make_fee(make_plan("V06"))
    for _ in range(2):
        pay(make_order([(fee, 1)]))
    with _past_the_triggers("orders_document_no_delete"):
        execute("DELETE FROM orders_document WHERE serial = 2")

    assert list(gaps_in_numbers(NOW)) == ["Of the 3 documents of kind invoice of 2026 2 are there."]


def test_money_that_left_a_sale_without_a_credit_note_is_found(
    paid: Order, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(ledger, "issue_credit_note", lambda *_, **__: 1 / 0)
    refunded(paid, 5_000)

    assert list(orders_and_their_documents(NOW)) == [
        "Of invoice INV-2026-000001 over 149.70 USD 0.00 USD are credited, and 99.70 USD of its money is there."
    ]
    assert ReviewItem.objects.get().kind == "external-refund"


def test_evidence_of_the_order_names_its_documents_and_their_seals(paid: Order) -> None:
    invoice = Document.objects.get()
    words = printed(proof_of_order(Order.objects.get(pk=paid.pk), now=NOW))

    assert squeezed("INV-2026-000001: $149.70 Kind invoice Issued at 2026-11-23 04:00:00 UTC") in words
    assert f"Sealorders.document:1:{invoice.chain_sha256}" in words


# --- how much is asked ---------------------------------------------------------------------------------


def queries_of(work: Callable[[], object]) -> int:
    with CaptureQueriesContext(connection) as asked:
        work()
    return len(asked)


def make_paid_order(*fees: Any) -> Order:
    order = make_order([(fee, 1) for fee in fees], paid_at=CAPTURED_AT)
    make_capture(order)
    return order


def test_an_invoice_of_ten_lines_asks_as_many_queries_as_one_of_one() -> None:
    fees = [make_fee(make_plan(f"Plan {number}")) for number in range(10)]
    issue_invoice(make_paid_order(fees[0]), now=NOW)
    small, large = make_paid_order(fees[0]), make_paid_order(*fees)

    def asked(order: Order) -> int:
        return queries_of(lambda: issue_invoice(order, now=NOW))

    assert (asked(small), asked(large)) == (9, 9)
    # The order, and the invoice that is there.
    assert asked(large) == 2


def test_the_nightly_checks_ask_three_queries_however_many_documents_there_are() -> None:
    fee = make_fee(make_plan())

    def checks() -> int:
        return queries_of(lambda: [*gaps_in_numbers(NOW), *orders_and_their_documents(NOW)])

    issue_invoice(make_paid_order(fee), now=NOW)
    assert checks() == 3
    for _ in range(5):
        issue_invoice(make_paid_order(fee), now=NOW)
    assert checks() == 3


# --- at once -------------------------------------------------------------------------------------------


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_sixteen_at_once_of_whom_some_fail_leave_no_gap_in_the_numbers() -> None:
    fee = make_fee(make_plan())
    orders = [[make_paid_order(fee) for _ in range(3)] for _ in range(16)]

    def issue_three(mine: list[Order], *, place: int) -> list[str]:
        done = []
        for number, order in enumerate(mine):
            try:
                done.append(issue_in_a_transaction(order, fails=(number + place) % 3 == 0))
            except GoneWrong:
                continue
        return done

    outcomes = race(
        *(lambda mine=mine, place=place: issue_three(mine, place=place) for place, mine in enumerate(orders))
    )

    assert failures(outcomes) == []
    assert sorted(number for done in outcomes for number in done) == [
        f"INV-2026-{serial:06d}" for serial in range(1, 33)
    ]
    assert list(Document.objects.order_by("serial").values_list("serial", flat=True)) == list(range(1, 33))
    findings = verify_evidence(now=NOW).findings
    assert (findings["chains"], findings["numbers of documents"]) == ((), ())
    # The control: a sequence of the database, which the ids are drawn from, has lost the numbers of those
    # that failed.
    ids = sorted(Document.objects.values_list("pk", flat=True))
    assert ids[-1] - ids[0] + 1 > len(ids)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_control_without_the_lock_two_draw_the_same_number(monkeypatch: pytest.MonkeyPatch) -> None:
    fee = make_fee(make_plan())
    issue_in_a_transaction(make_paid_order(fee), fails=False)
    both_have_looked = threading.Barrier(2)

    def look(model: type[Document]) -> ChainHead:
        both_have_looked.wait(60)
        return ChainHead.objects.get(pk=model._meta.label_lower)

    monkeypatch.setattr(chain, "_locked_head", look)
    first, second = make_paid_order(fee), make_paid_order(fee)

    outcomes = race(
        lambda: issue_in_a_transaction(first, fails=False),
        lambda: issue_in_a_transaction(second, fails=False),
    )

    # The database is the last witness: the second one fails instead of getting the number of the first.
    assert [type(failure) for failure in failures(outcomes)] == [IntegrityError]
    assert sorted(Document.objects.values_list("serial", flat=True)) == [1, 2]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_sixteen_payments_at_once_are_sixteen_invoices_in_a_row() -> None:
    fee = make_fee(make_plan())
    orders = [make_order([(fee, 1)]) for _ in range(16)]
    for order in orders:
        make_attempt(order)

    assert failures(race(*(lambda order=order: pay(order) for order in orders))) == []

    assert sorted(Document.objects.values_list("serial", flat=True)) == list(range(1, 17))
    assert verify_evidence(now=NOW).findings["chains"] == ()
