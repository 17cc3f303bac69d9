"""What a customer gets for his books: the invoice of an order, and a credit note for what is taken back of it."""

import re
from datetime import date, datetime

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from evidence.models import Chained
from inventory.money import Money
from orders.models.order import Order
from orders.models.payment import LedgerEntry
from orders.models.refund import Refund


class DocumentKind(models.TextChoices):
    # It is the receipt as well: an order is invoiced when it is paid.
    INVOICE = "invoice", _("invoice")
    CREDIT_NOTE = "credit-note", _("credit note")


PREFIXES = {DocumentKind.INVOICE: "INV", DocumentKind.CREDIT_NOTE: "CN"}
KINDS = {prefix: kind for kind, prefix in PREFIXES.items()}
NUMBER = re.compile(rf"({'|'.join(KINDS)})-([0-9]{{4}})-([0-9]{{6,9}})")


def books_date(moment: datetime) -> date:
    """The day in the seller's books on which the aware `moment` falls."""
    return moment.astimezone(settings.SELLER_TIME_ZONE).date()


def numbered(number: str) -> Q:
    """The condition that finds the printed number "INV-2026-000123"; it finds nothing for what is no number."""
    if not (parts := NUMBER.fullmatch(number)):
        return Q(pk__in=())
    prefix, year, serial = parts.groups()
    return Q(kind=KINDS[prefix], year=int(year), serial=int(serial))


class Document(Chained):
    """An invoice or a credit note, numbered from 1 in each year of the seller's zone, without gaps.

    `contents` is all that is printed on it, in the words of the buyer's language when it was issued: later
    names, addresses, settings and translations do not touch it.
    """

    kind = models.CharField(_("kind"), max_length=11, choices=DocumentKind.choices)
    year = models.PositiveSmallIntegerField(_("year"))
    serial = models.PositiveIntegerField(_("number in the year"))
    order = models.ForeignKey(Order, models.PROTECT, related_name="documents", verbose_name=_("order"))
    # The capture by which the order was paid, or the money that went back.
    entry = models.OneToOneField(
        LedgerEntry, models.PROTECT, related_name="document", verbose_name=_("ledger entry")
    )
    # Of a credit note: what it corrects, and the refund that it rests on unless a gateway's desk made it.
    corrects = models.ForeignKey(
        "self", models.PROTECT, null=True, related_name="credit_notes", verbose_name=_("corrects")
    )
    refund = models.OneToOneField(
        Refund, models.PROTECT, null=True, related_name="document", verbose_name=_("refund")
    )
    minor = models.PositiveBigIntegerField(_("amount in minor units"))
    currency = models.CharField(_("currency"), max_length=3)
    issued_at = models.DateTimeField(_("issued at"))
    contents = models.JSONField(_("contents"))

    class Meta:
        verbose_name = _("document")
        verbose_name_plural = _("documents")
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint("kind", "year", "serial", name="orders_document_number"),
            models.UniqueConstraint(
                "order", condition=Q(kind=DocumentKind.INVOICE), name="orders_document_one_invoice"
            ),
            models.CheckConstraint(
                name="orders_document_credit_note_corrects_an_invoice",
                condition=Q(kind=DocumentKind.INVOICE, corrects=None, refund=None)
                | Q(kind=DocumentKind.CREDIT_NOTE, corrects__isnull=False),
            ),
            models.CheckConstraint(name="orders_document_positive", condition=Q(serial__gt=0, minor__gt=0)),
        )

    def __str__(self) -> str:
        return self.number

    @property
    def number(self) -> str:
        """As it is printed: "INV-2026-000123"."""
        return f"{PREFIXES[DocumentKind(self.kind)]}-{self.year}-{self.serial:06d}"

    @property
    def issued_on(self) -> date:
        """The date of issue, as it is printed: in the seller's zone, whoever reads it where."""
        return books_date(self.issued_at)

    @property
    def money(self) -> Money:
        """What is invoiced or credited, positive."""
        return Money(self.minor, self.currency)
