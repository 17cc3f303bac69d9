"""Orders: read whole, with everything that happened to them; a refund is asked for from here."""

from django.contrib import admin, messages
from django.db.models import Exists, IntegerField, OuterRef, Q, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin
from unfold.datasets import BaseDataset

from accounts.models import User
from evidence.admin import (
    RecordAdmin,
    RecordInline,
    button,
    choice_column,
    column,
    posted,
    staff_id,
)
from orders.admin.documents import DocumentInline
from orders.admin.forms import RequestRefundForm
from orders.admin.guardians import GuardianInline
from orders.models import (
    Allocation,
    AttemptState,
    Case,
    EntryKind,
    Ground,
    LedgerEntry,
    LineState,
    Matter,
    MoneyReturn,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    Refund,
    RefundState,
    ReturnState,
    ReviewItem,
)
from orders.models.order import WAITING_UNITS
from orders.refunds import RefundRefused, request_refund
from orders.returns import WINDOW_WARNING
from orders.views.proof import proof_response

ORDER_COLOURS: dict[str, str] = {
    OrderState.AWAITING_GUARDIAN: "warning",
    OrderState.UNPAID: "warning",
    OrderState.PAID: "success",
    OrderState.CANCELLED: "danger",
    OrderState.EXPIRED: "danger",
}
LINE_COLOURS: dict[str, str] = {
    LineState.UNPAID: "warning",
    LineState.WAITING: "info",
    LineState.HELD: "danger",
    LineState.ALLOCATED: "success",
    LineState.WITHDRAWN: "danger",
}
ATTEMPT_COLOURS: dict[str, str] = {
    AttemptState.PENDING: "info",
    AttemptState.CONFIRMING: "info",
    AttemptState.CAPTURED: "success",
    AttemptState.DECLINED: "danger",
}
REFUND_COLOURS: dict[str, str] = {
    RefundState.REQUESTED: "warning",
    RefundState.APPROVED: "info",
    RefundState.PAID: "success",
    RefundState.REJECTED: "danger",
    RefundState.FAILED: "danger",
}


RETURN_COLOURS: dict[str, str] = {
    ReturnState.DUE: "info",
    ReturnState.PAID: "success",
    ReturnState.FAILED: "danger",
}


class LineInline(RecordInline):
    model = OrderLine
    tab = True
    fields = ("plan", "term", "unit", "quantity", "allocated", "withdrawn", "state_label", "paid_at")
    state_label = choice_column("state", gettext_lazy("state"), LINE_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[OrderLine]:
        lines: QuerySet[OrderLine] = super().get_queryset(request).select_related("order", "plan", "term")
        return lines

    @column(gettext_lazy("fee"))
    def unit(self, line: OrderLine) -> str:
        return line.unit_fee.localised()


class AttemptInline(RecordInline):
    model = PaymentAttempt
    tab = True
    fields = ("reference", "method", "gateway", "amount_paid", "state_label", "created_at", "problem")
    state_label = choice_column("state", gettext_lazy("state"), ATTEMPT_COLOURS)

    @column(gettext_lazy("amount"))
    def amount_paid(self, attempt: PaymentAttempt) -> str:
        return attempt.amount.localised()


class LedgerInline(RecordInline):
    model = LedgerEntry
    tab = True
    fields = (
        "kind_label",
        "amount",
        "gateway",
        "transaction_id",
        "occurred_at",
        "recorded_at",
        "refundable_until",
    )
    kind_label = choice_column(
        "kind", gettext_lazy("kind"), {EntryKind.CAPTURE: "success", EntryKind.CHARGEBACK: "danger"}
    )

    @column(gettext_lazy("amount"))
    def amount(self, entry: LedgerEntry) -> str:
        return entry.money.localised()


class RefundInline(RecordInline):
    model = Refund
    tab = True
    fields = (
        "reference",
        "ground",
        "amount_back",
        "state_label",
        "requested_by",
        "requested_at",
        "decided_by",
    )
    state_label = choice_column("state", gettext_lazy("state"), REFUND_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Refund]:
        refunds: QuerySet[Refund] = super().get_queryset(request)
        return refunds.select_related("order", "requested_by", "decided_by")

    @column(gettext_lazy("amount"))
    def amount_back(self, refund: Refund) -> str:
        return refund.amount.localised()


class ReturnInline(RecordInline):
    model = MoneyReturn
    tab = True
    fields = ("reference", "reason", "amount_back", "state_label", "due_at", "paid_at", "problem")
    state_label = choice_column("state", gettext_lazy("state"), RETURN_COLOURS)

    @column(gettext_lazy("amount"))
    def amount_back(self, back: MoneyReturn) -> str:
        return back.money.localised()


class ReviewInline(RecordInline):
    model = ReviewItem
    tab = True
    fields = ("kind", "detail", "opened_at", "resolved_at", "resolution")


class RefundWindowFilter(admin.SimpleListFilter):
    """Orders that wait, by how long their payment's gateway still gives money back."""

    title = gettext_lazy("refund by the gateway")
    parameter_name = "refund_window"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [
            ("closing", _("possible for 14 days at most")),
            ("closed", _("possible no more")),
        ]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Order]) -> QuerySet[Order]:
        now = timezone.now()
        captures = LedgerEntry.objects.filter(order=OuterRef("pk"), kind=EntryKind.CAPTURE)
        closing = captures.filter(refundable_until__gt=now, refundable_until__lte=now + WINDOW_WARNING)
        closed = captures.filter(refundable_until__lte=now)
        if self.value() not in ("closing", "closed"):
            return queryset
        waits = OrderLine.objects.in_queue().filter(order=OuterRef("pk"))
        return queryset.filter(Exists(waits), Exists(closing if self.value() == "closing" else closed))


class PhoneRows(ModelAdmin):  # type: ignore[misc]
    """The allocations of one order, which are rows of its lines: an inline cannot show them."""

    list_display = ("device", "plan", "unit", "starts_at", "ends_at", "ended_at")
    list_display_links = None
    actions = None
    list_per_page = 25

    def get_queryset(self, request: HttpRequest) -> QuerySet[Allocation]:
        allocations: QuerySet[Allocation] = super().get_queryset(request)
        return allocations.filter(line__order=self.extra_context["object"]).select_related(
            "device", "line__plan"
        )

    @column(gettext_lazy("plan"))
    def plan(self, allocation: Allocation) -> str:
        return str(allocation.line.plan)


class PhonesOfOrder(BaseDataset):  # type: ignore[misc]
    model = Allocation
    model_admin = PhoneRows
    tab = True


@admin.register(Order)
class OrderAdmin(RecordAdmin):
    list_display = ("reference", "customer", "state_label", "total_shown", "placed_at", "paid_at", "waiting")
    list_filter = ("state", RefundWindowFilter, "currency", "lines__plan")
    list_select_related = ("customer",)
    search_fields = ("reference",)
    search_help_text = gettext_lazy("Reference, the customer's email address, or a device's code")
    date_hierarchy = "placed_at"
    ordering = ("-placed_at", "-id")
    view_on_site = False
    fieldsets = (
        (
            None,
            {
                "fields": (
                    ("reference", "state_label"),
                    ("customer", "total_shown"),
                    ("placed_at", "paid_at"),
                    "pay_until",
                    ("country", "right"),
                    "withdraw_until",
                    ("acceptances", "notices"),
                )
            },
        ),
    )
    inlines = (
        LineInline,
        AttemptInline,
        LedgerInline,
        DocumentInline,
        RefundInline,
        ReturnInline,
        GuardianInline,
        ReviewInline,
    )
    change_form_datasets = (PhonesOfOrder,)
    actions_detail = ("print_evidence", "request_refund")
    state_label = choice_column("state", gettext_lazy("state"), ORDER_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Order]:
        waiting = OrderLine.objects.filter(order=OuterRef("pk"), state=LineState.WAITING).order_by()
        units = waiting.values("order").annotate(units=Sum(WAITING_UNITS)).values("units")
        orders: QuerySet[Order] = super().get_queryset(request)
        return orders.annotate(waiting=Coalesce(Subquery(units, output_field=IntegerField()), 0))

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[Order], search_term: str
    ) -> tuple[QuerySet[Order], bool]:
        """Find by what people read out, each by an index; joining all tables to search them would not be."""
        if not (term := search_term.strip()):
            return queryset, False
        customers = User.objects.filter(email__startswith=term.lower()).values("pk")
        given = Allocation.objects.filter(device__code=term).values("line__order")
        found = Q(reference__startswith=term.upper()) | Q(customer__in=customers) | Q(pk__in=given)
        return queryset.filter(found), False

    def has_refund_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("orders.add_refund")

    def offers(self, record: Order, button: str) -> bool:
        return button == "print_evidence" or record.state == OrderState.PAID

    @column(gettext_lazy("total"), ordering="total_minor")
    def total_shown(self, order: Order) -> str:
        return order.total.localised()

    @column(gettext_lazy("units waiting"), ordering="waiting")
    def waiting(self, order: Order) -> int:
        units: int = order.waiting  # type: ignore[attr-defined]
        return units

    @column(gettext_lazy("agreements"))
    def acceptances(self, order: Order) -> SafeString:
        return _list_link("agreements_acceptance", _("What was accepted"), q=order.reference)

    @column(gettext_lazy("notices"))
    def notices(self, order: Order) -> SafeString:
        return _list_link("notices_notice", _("What was told"), q=order.reference)

    @button(gettext_lazy("Evidence (PDF)"), icon="picture_as_pdf", permission="view")
    def print_evidence(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return proof_response(self.record(request, object_id))

    @button(gettext_lazy("Request refund"), icon="undo", permission="refund")
    def request_refund(self, request: HttpRequest, object_id: str) -> HttpResponse:
        order: Order = self.record(request, object_id)
        case = _case_that_asks(request, order)
        form = RequestRefundForm(
            posted(request),
            right=order.right,
            lines=order.lines.in_queue().select_related("plan", "term"),
            phones=phones_in_use(order),
            case=case,
        )
        if form.is_valid():
            try:
                refund = request_refund(
                    order_id=order.pk,
                    ground=Ground(form.cleaned_data["ground"]),
                    legal_basis=form.legal_basis(),
                    right_id=form.right_id(),
                    explanation=form.cleaned_data["explanation"],
                    units=form.units(),
                    phones=form.phone_ids(),
                    case_id=case.pk if case else None,
                    requested_by_id=staff_id(request),
                    now=timezone.now(),
                )
            except RefundRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, order, _("Requested refund %(refund)s.") % {"refund": refund})
                messages.success(
                    request, _("Refund %(refund)s waits for a second member of staff.") % {"refund": refund}
                )
                return redirect("admin:orders_refund_change", refund.pk)
        return self.ask(
            request,
            title=_("Request a refund of order %(order)s") % {"order": order},
            intro=_(
                "In the pre-sale period there are two grounds for a refund, and no third (agreement 3.3). "
                "A second member of staff decides; until then nothing leaves the queue, and every phone works."
            ),
            form=form,
            button=_("Request the refund"),
            record=order,
        )


def _case_that_asks(request: HttpRequest, order: Order) -> Case | None:
    """The withdrawal or the request of the customer that has led to the page."""
    written = request.GET.get("case", "")
    asks = order.cases.filter(matter__in=(Matter.WITHDRAWAL, Matter.REFUND))
    return asks.filter(pk=written).first() if written.isdecimal() and len(written) < 19 else None


def phones_in_use(order: Order) -> QuerySet[Allocation]:
    live = Allocation.objects.filter(line__order=order, ended_at=None)
    return live.select_related("device", "line__plan").order_by("line", "unit")


def _list_link(name: str, words: str, **query: str) -> SafeString:
    address = f"{reverse(f'admin:{name}_changelist')}?{urlencode(query)}"
    return format_html('<a class="text-link" href="{}">{}</a>', address, words)
