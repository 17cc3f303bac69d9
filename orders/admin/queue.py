"""The queue of every plan as staff read it, and what was given and promised from it."""

from collections.abc import Iterable
from itertools import groupby
from operator import attrgetter
from typing import Any

from django.contrib import admin
from django.db.models import Case, IntegerField, OuterRef, Q, QuerySet, Subquery, Sum, Value, When
from django.http import HttpRequest
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.views import ChangeList

from evidence.admin import RecordAdmin, RecordInline, choice_column, column
from orders.admin.orders import LINE_COLOURS
from orders.models import Allocation, Estimate, LineState, OrderLine, RefundLine
from orders.models.order import WAITING_UNITS
from orders.queue import units_ahead

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
    """A page of the queue; every waiting line on it gets `ahead`, the units served before it."""

    result_list: list[OrderLine]

    def get_results(self, request: HttpRequest) -> None:
        super().get_results(request)
        lines: list[Any] = list(self.result_list)
        ahead = _units_ahead(line for line in lines if line.state == LineState.WAITING)
        for line in lines:
            line.ahead = ahead.get(line.pk)
        self.result_list = lines


def _units_ahead(lines: Iterable[OrderLine]) -> dict[int, int]:
    """Units ahead of each of the waiting lines, by line id, in two statements for each plan among them.

    The first line's units are counted from the head of the queue, the others' from line to line.
    """
    ahead: dict[int, int] = {}
    in_order = sorted(lines, key=attrgetter("plan_id", "paid_at", "pk"))
    for plan_id, group in groupby(in_order, key=attrgetter("plan_id")):
        first, *others = group
        ahead[first.pk] = units = units_ahead(first)
        if not others:
            continue
        # Every line of the queue up to the last one shown counts towards the next one shown.
        next_shown = Case(
            *(When(_before(line), then=Value(line.pk)) for line in others), output_field=IntegerField()
        )
        between = (
            OrderLine.objects.waiting(plan_id=plan_id)
            .exclude(_before(first))
            .filter(_before(others[-1]))
            .order_by()
            .values(next_shown=next_shown)
            .annotate(units=Sum(WAITING_UNITS))
            .values_list("next_shown", "units")
        )
        steps = dict(between)
        for line in others:
            units += steps.get(line.pk, 0)
            ahead[line.pk] = units
    return ahead


def _before(line: OrderLine) -> Q:
    return Q(paid_at__lt=line.paid_at) | Q(paid_at=line.paid_at, id__lt=line.pk)


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
    fields = ("refund", "units")
    ordering = ("id",)
    opens = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RefundLine]:
        taken: QuerySet[RefundLine] = super().get_queryset(request).select_related("refund")
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

    def get_queryset(self, request: HttpRequest) -> QuerySet[OrderLine]:
        newest = Estimate.objects.filter(line=OuterRef("pk")).order_by("-number")
        lines: QuerySet[OrderLine] = super().get_queryset(request)
        return lines.annotate(
            newest_likely=Subquery(newest.values("likely")[:1]),
            newest_latest=Subquery(newest.values("latest")[:1]),
        )

    @column(gettext_lazy("units ahead"))
    def position(self, line: Any) -> str:
        return UNKNOWN if line.ahead is None else f"{line.ahead:,}"

    @column(gettext_lazy("units ahead"))
    def units_before(self, line: OrderLine) -> str:
        return f"{units_ahead(line):,}" if line.state == LineState.WAITING else UNKNOWN

    @column(gettext_lazy("customer"))
    def customer(self, line: OrderLine) -> str:
        return str(line.order.customer)

    @column(gettext_lazy("units waiting"))
    def units(self, line: OrderLine) -> str:
        waiting = line.waiting_units if line.state == LineState.WAITING else 0
        return _("%(waiting)d of %(quantity)d") % {"waiting": waiting, "quantity": line.quantity}

    @column(gettext_lazy("newest estimate"))
    def newest_estimate(self, line: Any) -> str:
        if line.newest_likely is None:
            return UNKNOWN
        likely = date_format(line.newest_likely, "SHORT_DATE_FORMAT")
        return f"{likely} – {date_format(line.newest_latest, 'SHORT_DATE_FORMAT')}"

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
