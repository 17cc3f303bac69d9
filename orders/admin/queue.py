"""The queue of every plan as staff read it, and what was given and promised from it."""

from typing import Any

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.views import ChangeList

from evidence.admin import RecordAdmin, RecordInline, button, choice_column, column, posted
from orders.admin.orders import LINE_COLOURS
from orders.models import (
    Allocation,
    Estimate,
    EstimateRound,
    Forecast,
    LineState,
    OrderLine,
    PlanFigures,
    PublishedHead,
    QueueEvent,
    RefundLine,
    SegmentCount,
)
from orders.queue import standings
from orders.replacement import CannotReplace, replace_device

UNKNOWN = "—"


class LineStateFilter(admin.SimpleListFilter):
    """Shows the queue unless something else is asked for."""

    title = gettext_lazy("state")
    parameter_name = "state"
    everything = "all"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, Any]]:
        others = [choice for choice in LineState.choices if choice[0] != LineState.WAITING]
        return [*others, (self.everything, _("all"))]

    def choices(self, changelist: Any) -> Any:
        for choice in super().choices(changelist):
            if choice["query_string"] == changelist.get_query_string(remove=[self.parameter_name]):
                choice["display"] = LineState.WAITING.label
            yield choice

    def queryset(self, request: HttpRequest, queryset: QuerySet[OrderLine]) -> QuerySet[OrderLine]:
        if self.value() == self.everything:
            return queryset
        return queryset.filter(state=self.value() or LineState.WAITING)


class QueueList(ChangeList):  # type: ignore[misc]
    """A page of the queue; every line on it gets its `standing`, None unless it waits."""

    result_list: list[OrderLine]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        lines: list[Any] = list(self.result_list)
        found = standings(line.pk for line in lines)
        for line in lines:
            line.standing = found.get(line.pk)
        self.result_list = lines


class AllocationInline(RecordInline):
    model = Allocation
    tab = True
    fields = ("unit", "device", "starts_at", "ends_at", "ended_at")
    ordering = ("unit", "id")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Allocation]:
        allocations: QuerySet[Allocation] = super().get_queryset(request).select_related("device")
        return allocations


class EstimateInline(RecordInline):
    model = Estimate
    tab = True
    fields = ("number", "made_at", "earliest", "likely", "latest", "basis", "cause", "units_ahead")


class RefundedInline(RecordInline):
    model = RefundLine
    tab = True
    fields = ("refund", "units", "phone")
    ordering = ("id",)
    opens = False

    @column(gettext_lazy("phone"))
    def phone(self, taken: RefundLine) -> str:
        return str(taken.allocation.device) if taken.allocation else UNKNOWN

    def get_queryset(self, request: HttpRequest) -> QuerySet[RefundLine]:
        taken: QuerySet[RefundLine] = (
            super().get_queryset(request).select_related("refund", "allocation__device")
        )
        return taken


@admin.register(OrderLine)
class OrderLineAdmin(RecordAdmin):
    list_display = (
        "position",
        "order",
        "customer",
        "units",
        "paid_at",
        "newest_estimate",
        "plan",
        "state_label",
    )
    list_display_links = ("position", "order")
    list_filter = (LineStateFilter, "plan", "is_presale")
    list_select_related = ("order__customer", "plan")
    search_fields = ("order__reference__startswith", "order__customer__email__startswith")
    search_help_text = gettext_lazy("The order's reference, or the customer's email address")
    ordering = ("plan_id", "paid_at", "id")
    sortable_by = ()
    inlines = (AllocationInline, EstimateInline, RefundedInline)
    state_label = choice_column("state", gettext_lazy("state"), LINE_COLOURS)
    fields = (
        "order",
        "plan",
        "term",
        "fee",
        "unit_shown",
        "quantity",
        "allocated",
        "withdrawn",
        "is_presale",
        "bonus_days",
        "state_label",
        "paid_at",
        "units_before",
    )

    def get_changelist(self, request: HttpRequest, **kwargs: Any) -> type[QueueList]:
        return QueueList

    @column(gettext_lazy("units ahead"))
    def position(self, line: Any) -> str:
        return f"{line.standing.ahead:,}" if line.standing else UNKNOWN

    @column(gettext_lazy("units ahead"))
    def units_before(self, line: OrderLine) -> str:
        place = standings([line.pk]).get(line.pk)
        return f"{place.ahead:,}" if place else UNKNOWN

    @column(gettext_lazy("customer"))
    def customer(self, line: OrderLine) -> str:
        return str(line.order.customer)

    @column(gettext_lazy("units waiting"))
    def units(self, line: OrderLine) -> str:
        waiting = line.waiting_units if line.state == LineState.WAITING else 0
        return _("%(waiting)d of %(quantity)d") % {"waiting": waiting, "quantity": line.quantity}

    @column(gettext_lazy("newest estimate"))
    def newest_estimate(self, line: Any) -> str:
        estimate = line.standing.estimate if line.standing else None
        if estimate is None or estimate.likely is None:
            return UNKNOWN
        likely = date_format(estimate.likely, "SHORT_DATE_FORMAT")
        return f"{likely} – {date_format(estimate.latest, 'SHORT_DATE_FORMAT')}"

    @column(gettext_lazy("fee"))
    def unit_shown(self, line: OrderLine) -> str:
        return line.unit_fee.localised()


@admin.register(Allocation)
class AllocationAdmin(RecordAdmin):
    list_display = ("device", "order", "plan", "unit", "starts_at", "ends_at", "ended_at")
    list_filter = (("ended_at", admin.EmptyFieldListFilter), "line__plan")
    list_select_related = ("device", "line__order", "line__plan")
    search_fields = ("device__code__startswith", "line__order__reference__startswith")
    search_help_text = gettext_lazy("A device's code, or the order's reference")
    date_hierarchy = "starts_at"
    ordering = ("-starts_at", "-id")

    actions_detail = ("replace",)

    def offers(self, record: Allocation, button: str) -> bool:
        return record.ended_at is None

    @button(gettext_lazy("Device failed: replace it"), icon="swap_horiz", is_danger=True)
    def replace(self, request: HttpRequest, object_id: str) -> HttpResponse:
        allocation: Allocation = self.record(request, object_id)
        form = Form(posted(request))
        if form.is_valid():
            try:
                given = replace_device(allocation_id=allocation.pk, now=timezone.now())
            except CannotReplace as refused:
                form.add_error(None, str(refused))
            else:
                done = (
                    _("Device %(device)s takes its place.") % {"device": given.device}
                    if given
                    else _(
                        "The unit waits again, at its old place: no device is free, or its payment is disputed."
                    )
                )
                self.log_change(request, allocation, done)
                messages.success(request, done)
                return redirect(self.page_of(given or allocation))
        return self.ask(
            request,
            title=_("Replace device %(device)s?") % {"device": allocation.device},
            intro=_(
                "The device goes into quarantine. The customer gets the next free one, before everybody who waits, or "
                "waits again at his old place; he is told, and the service period begins anew."
            ),
            form=form,
            button=_("Replace it"),
            record=allocation,
        )

    @column(gettext_lazy("order"))
    def order(self, allocation: Allocation) -> str:
        return str(allocation.line.order)

    @column(gettext_lazy("plan"))
    def plan(self, allocation: Allocation) -> str:
        return str(allocation.line.plan)


@admin.register(Estimate)
class EstimateAdmin(RecordAdmin):
    list_display = ("order", "plan", "number", "made_at", "earliest", "likely", "latest", "basis", "cause")
    list_filter = ("basis", "cause", "line__plan")
    list_select_related = ("line__order", "line__plan")
    search_fields = ("line__order__reference__startswith",)
    date_hierarchy = "made_at"
    ordering = ("-id",)

    @column(gettext_lazy("order"))
    def order(self, estimate: Estimate) -> str:
        return str(estimate.line.order)

    @column(gettext_lazy("plan"))
    def plan(self, estimate: Estimate) -> str:
        return str(estimate.line.plan)


@admin.register(QueueEvent)
class QueueEventAdmin(RecordAdmin):
    list_display = ("number", "plan", "kind", "order", "units", "paid_at", "at", "behind")
    list_display_links = ("number", "kind")
    list_filter = ("kind", "plan", ("number", admin.EmptyFieldListFilter))
    list_select_related = ("plan", "line__order")
    search_fields = ("line__order__reference__startswith", "sha256__startswith")
    search_help_text = gettext_lazy("The order's reference, or the beginning of a seal")
    ordering = ("-id",)

    @column(gettext_lazy("order"))
    def order(self, event: QueueEvent) -> str:
        return str(event.line.order)


@admin.register(PublishedHead)
class PublishedHeadAdmin(RecordAdmin):
    list_display = ("day", "plan", "number", "sha256", "published_at")
    list_filter = ("plan",)
    list_select_related = ("plan",)
    search_fields = ("sha256__startswith",)
    ordering = ("-day", "plan_id")


@admin.register(Forecast)
class ForecastAdmin(RecordAdmin):
    list_display = ("made_at", "plan")
    list_filter = ("plan",)
    list_select_related = ("plan",)
    search_fields = ("plan__name",)
    ordering = ("-id",)


@admin.register(EstimateRound)
class EstimateRoundAdmin(RecordAdmin):
    list_display = ("began_at", "plan", "recorded", "forecast")
    list_filter = ("plan",)
    list_select_related = ("plan", "forecast")
    search_fields = ("plan__name",)
    ordering = ("-id",)


@admin.register(PlanFigures)
class PlanFiguresAdmin(RecordAdmin):
    list_display = ("plan", "counted_at")
    list_filter = ("counted_at",)
    list_select_related = ("plan",)
    search_fields = ("plan__name",)
    ordering = ("plan_id",)


@admin.register(SegmentCount)
class SegmentCountAdmin(RecordAdmin):
    list_display = ("from_paid_at", "from_id", "plan", "units", "lines")
    list_filter = ("plan",)
    list_select_related = ("plan",)
    search_fields = ("plan__name",)
    ordering = ("plan_id", "from_paid_at", "from_id", "id")
