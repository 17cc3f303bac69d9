"""Invoices and credit notes: written when money has come or gone back, for ever as they were written.

An order has one invoice, issued when it becomes paid and therefore its receipt as well. What goes back of the
sale has one credit note each. Money that belonged to no sale (`MoneyReturn`) was never invoiced, so nothing is
credited for it. A chargeback has no credit note either: the bank holds the money until the dispute is decided,
and the sale stands meanwhile; lost, it is a debt of the customer and no reduction of the price. A refund that
comes back leaves its credit note as it is: the sale stays reduced, the money is still owed, and when it is sent
again, nothing more is credited.

Numbers are drawn under the lock of the documents' chain, which also makes the counter: whoever holds it sees
the last number that was committed, and a transaction that is rolled back takes its number with it.
"""

from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.db.models import Exists, Max, OuterRef, Q, QuerySet, Sum
from django.utils import translation
from django.utils.formats import date_format
from django.utils.translation import gettext

from accounts.countries import country_name
from evidence import chain
from evidence.pdf import printable, typeset
from inventory.money import Money
from orders.models import (
    BY_HAND,
    Document,
    DocumentKind,
    EntryKind,
    LedgerEntry,
    Order,
    OrderLine,
    OrderState,
    Payout,
    Refund,
    ReturnState,
)
from orders.models.document import books_date
from orders.proof import Facts, Lines, bought, lines_of
from orders.templatetags.shop import method_label


@dataclass(frozen=True, slots=True)
class Party:
    """Who sells or buys. `words` are an address, or empty."""

    role: str
    name: str
    words: str
    facts: Facts


@dataclass(frozen=True, slots=True)
class Contents:
    """All that is printed, in the words of `language`. The number is put in last."""

    language: str
    title: str
    number: str
    seller: Party
    buyer: Party
    facts: Facts
    lines_title: str
    lines: Lines
    moved_title: str
    moved: Lines
    notes: tuple[str, ...]
    labels: Mapping[str, str]


def issue_invoice(order: Order, *, now: datetime) -> Document | None:
    """Write the invoice of an order that is paid; None for one that is not, the one that is there if there is.

    Belongs to the transaction in which the order becomes paid, and comes last in it: it locks the chain of
    documents, for which everybody waits who issues one. The order must be locked.
    """
    order = Order.objects.select_related("customer").get(pk=order.pk)
    if order.state != OrderState.PAID:
        return None
    there: Document | None = order.documents.filter(kind=DocumentKind.INVOICE).first()
    if there:
        return there
    entries = list(order.ledger.filter(currency=order.currency).select_related("attempt").order_by("pk"))
    with translation.override(order.customer.language):
        contents = _invoice(order, entries, now=now)
    return _issue(
        Document(
            kind=DocumentKind.INVOICE,
            order=order,
            entry=next(entry for entry in reversed(entries) if entry.kind == EntryKind.CAPTURE),
            minor=order.total_minor,
            currency=order.currency,
            issued_at=now,
        ),
        contents,
    )


def issue_credit_note(
    order: Order, *, entry: LedgerEntry, refund: Refund | None, now: datetime
) -> Document | None:
    """Write the credit note for money that has gone back; None if it took nothing from what was invoiced, the
    one that is there if there is, for this money or for the refund that it pays.

    `refund` is ours that `entry` completes. What went back at a gateway's own desk has none: of it is credited
    what the sale now lacks, for a surplus goes back there as well. Locks as `issue_invoice` does.
    """
    order = Order.objects.select_related("customer").get(pk=order.pk)
    of_this = Q(entry=entry)
    if refund:
        # (What it is told to have paid at the gateway's desk was credited when it was seen there.)
        of_this |= Q(refund=refund) | Q(entry=refund.entry)
    there: Document | None = order.documents.filter(of_this).first()
    if there:
        return there
    invoice = order.documents.filter(kind=DocumentKind.INVOICE).first()
    if invoice is None or entry.currency != order.currency:
        return None
    credited = invoice.credit_notes.aggregate(minor=Sum("minor"))["minor"] or 0
    sale = Money(invoice.minor - credited, order.currency)
    amount = Money(-entry.minor, entry.currency) if refund else _lacking(order, entry, sale=sale)
    # (What came back from a gateway's desk is credited already, whatever it was for.)
    amount = min(amount, sale)
    if not amount:
        return None
    with translation.override(order.customer.language):
        contents = _credit_note(order, invoice, entry, refund, amount, now=now)
    return _issue(
        Document(
            kind=DocumentKind.CREDIT_NOTE,
            order=order,
            entry=entry,
            corrects=invoice,
            refund=refund,
            minor=amount.minor,
            currency=amount.currency,
            issued_at=now,
        ),
        contents,
    )


def issue_missing_invoices(*, now: datetime) -> int:
    """Write the invoices that could not be written with their payments; return how many."""
    issued = 0
    for order_id in uninvoiced().values_list("pk", flat=True).order_by("paid_at", "pk"):
        with transaction.atomic(durable=True):
            order = Order.objects.select_for_update(no_key=True).get(pk=order_id)
            issued += issue_invoice(order, now=now) is not None
    return issued


def uninvoiced() -> QuerySet[Order]:
    """Orders that are paid and have no invoice: none, unless something went wrong."""
    invoices = Document.objects.filter(kind=DocumentKind.INVOICE, order=OuterRef("pk"))
    return Order.objects.filter(state=OrderState.PAID).exclude(Exists(invoices))


def document_pdf(document: Document) -> bytes:
    """The document on paper, from its contents alone: the same bytes whenever it is asked for."""
    seal = f"{document._meta.label_lower}:{document.chain_number}:{document.chain_sha256}"
    data = {"document": document.contents, "seal": seal}
    return typeset("document", data, dated=document.issued_at)


def _issue(document: Document, contents: Contents) -> Document:
    chain.lock(Document)
    document.year = document.issued_on.year
    numbers = Document.objects.filter(kind=document.kind, year=document.year)
    document.serial = (numbers.aggregate(last=Max("serial"))["last"] or 0) + 1
    document.contents = asdict(replace(contents, number=document.number))
    return chain.append([document])[0]


def _lacking(order: Order, entry: LedgerEntry, *, sale: Money) -> Money:
    """How much of the money of `entry` the sale, as far as it is not credited, lacks now that it is gone."""
    moved = order.ledger.filter(currency=order.currency, kind__in=EntryKind.of_the_sale(), pk__lte=entry.pk)
    due = order.money_returns.filter(currency=order.currency, state=ReturnState.DUE)
    held = (moved.aggregate(minor=Sum("minor"))["minor"] or 0) - (
        due.aggregate(minor=Sum("minor"))["minor"] or 0
    )
    return Money(max(0, min(-entry.minor, sale.minor - held)), order.currency)


def _invoice(order: Order, entries: Iterable[LedgerEntry], *, now: datetime) -> Contents:
    lines = list(bought(order))
    is_prepaid = any(line.is_presale for line, _count in lines)
    notes = [gettext("Paid in full: nothing is due.")]
    if is_prepaid:
        notes.append(
            gettext(
                "Paid in advance: the service period of each phone begins when it is allocated and activated "
                "for you (5.1)."
            )
        )
    assert order.paid_at is not None  # noqa: S101 (a constraint: it is paid)
    return Contents(
        language=translation.get_language() or "en",
        title=gettext("Prepayment invoice and receipt") if is_prepaid else gettext("Invoice and receipt"),
        number="",
        seller=_seller(),
        buyer=_buyer(order),
        facts=(
            (gettext("Date of issue"), _written(now)),
            (gettext("Order"), _of_day(order.reference, order.placed_at)),
            (gettext("Paid on"), _written(order.paid_at)),
            (gettext("Currency"), order.currency),
        ),
        lines_title=gettext("What was bought"),
        lines=lines_of(lines, total=order.total),
        moved_title=gettext("How it was paid"),
        moved=_moved(
            [(entry, entry.money) for entry in entries],
            total=(gettext("Paid for this order"), order.total.localised()),
        ),
        notes=tuple(notes),
        labels=_labels(),
    )


def _credit_note(
    order: Order,
    invoice: Document,
    entry: LedgerEntry,
    refund: Refund | None,
    amount: Money,
    *,
    now: datetime,
) -> Contents:
    if refund:
        grounds = [(gettext("Ground"), refund.get_ground_display())]
        if refund.legal_basis:
            grounds.append((gettext("Legal basis"), printable(refund.legal_basis)))
        units: dict[OrderLine, int] = {}
        for taken in refund.lines.select_related("line__order", "line__plan", "line__term").order_by("pk"):
            units[taken.line] = units.get(taken.line, 0) + taken.units
        lines = lines_of(units.items(), total=amount)
    else:
        grounds = [(gettext("Ground"), gettext("given back by the payment provider"))]
        part = (gettext("Part of the price"), "–", "–", "–", amount.localised())
        lines = replace(lines_of([], total=amount), rows=(part,))
    return Contents(
        language=translation.get_language() or "en",
        title=gettext("Credit note"),
        number="",
        seller=_seller(),
        buyer=_buyer(order),
        facts=(
            (gettext("Date of issue"), _written(now)),
            (gettext("Corrects invoice"), _of_day(invoice.number, invoice.issued_at)),
            (gettext("Order"), _of_day(order.reference, order.placed_at)),
            *grounds,
            (gettext("Currency"), order.currency),
        ),
        lines_title=gettext("What is credited"),
        lines=lines,
        moved_title=gettext("How it was given back"),
        moved=_moved(
            [(entry, Money(-entry.minor, entry.currency))],
            total=(gettext("Credited"), amount.localised()),
            payout=refund.payouts.filter(is_confirmed=True).first() if refund else None,
        ),
        notes=(gettext("The invoice is reduced by this amount, which has been given back: nothing is due."),),
        labels=_labels(),
    )


def _moved(
    entries: Iterable[tuple[LedgerEntry, Money]], *, total: tuple[str, str], payout: Payout | None = None
) -> Lines:
    """Money that came and went, with what proves it. `payout` says how it was sent if staff did that by hand.

    Disputes are no matter of these papers.
    """

    def way(entry: LedgerEntry) -> tuple[str, str]:
        if entry.gateway != BY_HAND:
            return str(method_label(entry.attempt.method)), entry.transaction_id
        return (payout.means, payout.reference) if payout else (gettext("Sent by hand"), entry.transaction_id)

    head = (gettext("Date"), gettext("Payment method"), gettext("Transaction"), gettext("Amount"))
    rows = (
        (_written(entry.occurred_at), *way(entry), amount.localised())
        for entry, amount in entries
        if entry.kind in EntryKind.of_the_sale()
    )
    return Lines(head, tuple(tuple(map(printable, row)) for row in rows), total)


def _seller() -> Party:
    tax_id = settings.SELLER_TAX_ID
    return Party(
        role=gettext("Seller"),
        name=printable(settings.SELLER_NAME),
        words=printable(settings.SELLER_ADDRESS),
        facts=((gettext("Tax number"), printable(tax_id)),) if tax_id else (),
    )


def _buyer(order: Order) -> Party:
    buyer = order.customer
    return Party(
        role=gettext("Buyer"),
        name=printable(buyer.name or buyer.email),
        words=printable(country_name(order.country, translation.get_language() or "en")),
        facts=((gettext("Email address"), printable(buyer.email)),),
    )


def _labels() -> dict[str, str]:
    return {"seal": gettext("Seal"), "page_of": gettext("Page {page} of {pages}")}


def _of_day(number: str, moment: datetime) -> str:
    return gettext("%(number)s of %(date)s") % {"number": number, "date": _written(moment)}


def _written(moment: datetime) -> str:
    return date_format(books_date(moment), "DATE_FORMAT")
