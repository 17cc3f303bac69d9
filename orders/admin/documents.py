"""Invoices and credit notes: found by what people read out, and printed as the customer has them."""

from django.contrib import admin
from django.db.models import Q, QuerySet
from django.http import HttpRequest, HttpResponse
from django.utils.translation import gettext_lazy

from accounts.models import User
from evidence.admin import RecordAdmin, RecordInline, button, choice_column, column
from orders.models import Document, DocumentKind, Order
from orders.models.document import numbered
from orders.views.documents import document_response

KIND_COLOURS: dict[str, str] = {DocumentKind.INVOICE: "success", DocumentKind.CREDIT_NOTE: "warning"}


class DocumentInline(RecordInline):
    model = Document
    tab = True
    fields = ("number_shown", "kind_label", "amount", "issued_at")
    ordering = ("id",)
    kind_label = choice_column("kind", gettext_lazy("kind"), KIND_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Document]:
        documents: QuerySet[Document] = super().get_queryset(request).defer("contents")
        return documents

    @column(gettext_lazy("number"))
    def number_shown(self, document: Document) -> str:
        return document.number

    @column(gettext_lazy("amount"))
    def amount(self, document: Document) -> str:
        return document.money.localised()


@admin.register(Document)
class DocumentAdmin(RecordAdmin):
    list_display = ("number_shown", "kind_label", "amount", "order", "corrects", "issued_at")
    list_filter = ("kind", "year", "currency")
    list_select_related = ("order", "corrects")
    search_fields = ("serial",)
    search_help_text = gettext_lazy("Number, the order's reference, or the customer's email address")
    date_hierarchy = "issued_at"
    ordering = ("-id",)
    fields = (
        "number_shown",
        "kind_label",
        "amount",
        "order",
        "entry",
        "corrects",
        "refund",
        "issued_at",
        "chain_number",
        "chain_sha256",
    )
    actions_detail = ("print_document",)
    kind_label = choice_column("kind", gettext_lazy("kind"), KIND_COLOURS)

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Document], search_term: str
    ) -> tuple[QuerySet[Document], bool]:
        """Each by an index of its own, as orders are found."""
        if not (term := search_term.strip()):
            return queryset, False
        customers = User.objects.filter(email__startswith=term.lower()).values("pk")
        orders = Order.objects.filter(Q(reference__startswith=term.upper()) | Q(customer__in=customers))
        return queryset.filter(numbered(term.upper()) | Q(order__in=orders.values("pk"))), False

    @column(gettext_lazy("number"), ordering="id")
    def number_shown(self, document: Document) -> str:
        return document.number

    @column(gettext_lazy("amount"), ordering="minor")
    def amount(self, document: Document) -> str:
        return document.money.localised()

    @button(gettext_lazy("Print (PDF)"), icon="picture_as_pdf", permission="view")
    def print_document(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return document_response(self.record(request, object_id))
