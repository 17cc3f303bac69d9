"""Unable to supply: declared by one member of staff, approved by another, and how far its refunds are."""

from collections.abc import Callable
from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, IntegerField, Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms import Form
from django.http import Http404, HttpRequest, HttpResponse, QueryDict
from django.shortcuts import get_object_or_404, redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html, format_html_join
from django.utils.http import urlencode
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from evidence.admin import RecordAdmin, RecordInline, button, choice_column, column, posted, staff_id
from inventory.models import BatchState, Plan, SupplyBatch
from orders.admin.forms import DeclareShortfallForm, WhatIsMissingForm
from orders.models import (
    Shortfall,
    ShortfallLine,
    ShortfallLineState,
    ShortfallState,
)
from orders.shortfalls import (
    ShortfallRefused,
    affected_by,
    approve_shortfall,
    declare_shortfall,
    progress_of,
    reject_shortfall,
    retry_shortfall,
    sums_of,
)

LINES_SHOWN = 100
SHORTFALL_COLOURS: dict[str, str] = {
    ShortfallState.DECLARED: "warning",
    ShortfallState.APPROVED: "success",
    ShortfallState.REJECTED: "danger",
}
LINE_COLOURS: dict[str, str] = {
    ShortfallLineState.PENDING: "info",
    ShortfallLineState.REFUNDED: "success",
    ShortfallLineState.FAILED: "danger",
}


class ShortfallLineInline(RecordInline):
    model = ShortfallLine
    fields = ("order", "customer", "units", "money", "state_label", "refund", "problem")
    ordering = ("id",)
    opens = False
    state_label = choice_column("state", gettext_lazy("state"), LINE_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[ShortfallLine]:
        lines: QuerySet[ShortfallLine] = super().get_queryset(request)
        return lines.select_related("line__order__customer", "refund")

    @column(gettext_lazy("order"))
    def order(self, listed: ShortfallLine) -> SafeString:
        address = reverse("admin:orders_order_change", args=[listed.line.order_id])
        return format_html('<a class="text-link" href="{}">{}</a>', address, listed.line.order)

    @column(gettext_lazy("customer"))
    def customer(self, listed: ShortfallLine) -> str:
        return str(listed.line.order.customer)

    @column(gettext_lazy("amount"))
    def money(self, listed: ShortfallLine) -> str:
        return (listed.line.unit_fee * listed.units).localised()


@admin.register(Shortfall)
class ShortfallAdmin(RecordAdmin):
    list_display = (
        "declared_at",
        "plan",
        "batch",
        "state_label",
        "lines_done",
        "declared_by",
        "decided_by",
    )
    list_filter = ("state", "plan")
    list_select_related = ("plan", "batch", "declared_by", "decided_by")
    search_fields = ("reason", "batch__reference", "plan__name")
    date_hierarchy = "declared_at"
    ordering = ("-id",)
    inlines = (ShortfallLineInline,)
    actions_detail = ("approve", "reject", "retry")
    state_label = choice_column("state", gettext_lazy("state"), SHORTFALL_COLOURS)
    fields = (
        "plan",
        "batch",
        "reason",
        "state_label",
        "declared_by",
        "declared_at",
        "decided_by",
        "decided_at",
        "progress",
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Shortfall]:
        shortfalls: QuerySet[Shortfall] = super().get_queryset(request)
        of_it = ShortfallLine.objects.filter(shortfall=OuterRef("pk")).order_by().values("shortfall")
        to_do = of_it.filter(state=ShortfallLineState.PENDING)
        return shortfalls.annotate(listed=_count(of_it), to_do=_count(to_do))

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("orders.add_shortfall")

    def offers(self, record: Shortfall, button: str) -> bool:
        if button == "retry":
            return progress_of(record).failed > 0
        return record.state == ShortfallState.DECLARED

    @column(gettext_lazy("lines worked off"))
    def lines_done(self, shortfall: Any) -> str:
        return _("%(done)d of %(all)d") % {
            "done": shortfall.listed - shortfall.to_do,
            "all": shortfall.listed,
        }

    @column(gettext_lazy("progress"))
    def progress(self, shortfall: Shortfall) -> SafeString:
        return format_html_join("", "<p>{}: {}</p>", progress_of(shortfall).rows)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Declare what the address names (?plan=1 or ?batch=1), once it is known."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        plan, batch = _named(request.GET)
        if plan is None:
            return self._ask_what(request)
        form = DeclareShortfallForm(posted(request))
        if form.is_valid():
            try:
                shortfall = declare_shortfall(
                    plan_id=plan.pk,
                    batch_id=batch.pk if batch else None,
                    reason=form.cleaned_data["reason"],
                    declared_by_id=staff_id(request),
                    now=timezone.now(),
                )
            except ShortfallRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_addition(request, shortfall, _("Declared."))
                messages.success(
                    request, _("Declared. A second member of staff decides whether these units are refunded.")
                )
                return redirect(self.page_of(shortfall))
        affected = affected_by(plan_id=plan.pk, batch_id=batch.pk if batch else None)
        return self.ask(
            request,
            title=_("Unable to supply %(what)s?") % {"what": f"{batch}, {plan}" if batch else plan},
            intro=(
                _(
                    "Once this is declared, the batch is no longer expected. The units below are the last of the "
                    "queue, which free devices and the other announced batches do not cover any more."
                )
                if batch
                else _(
                    "Once this is declared, the plan is not sold any more. All units that wait for it are below."
                )
            )
            + "\n"
            + _(
                "When a second person approves, they leave the queue and are paid back in full (3.3); each customer "
                "is told once. Units on hold are left out: their bank has the money."
            ),
            form=form,
            button=_("Declare"),
            template="admin/orders/shortfall/declare.html",
            affected=affected[:LINES_SHOWN],
            lines=len(affected),
            units=sum(each.units for each in affected),
            orders=len({each.line.order_id for each in affected}),
            sums=[money.localised() for money in sums_of(affected)],
        )

    @button(gettext_lazy("Approve"), icon="check")
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        shortfall: Shortfall = self.record(request, object_id)
        return self._decide(
            request,
            shortfall,
            title=_("Approve these refunds?"),
            done=_("Approved. The refunds begin within seconds; this page shows how far they are."),
            verb=lambda: approve_shortfall(
                shortfall_id=shortfall.pk, approved_by_id=staff_id(request), now=timezone.now()
            ),
        )

    @button(gettext_lazy("Reject"), icon="close", is_danger=True)
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponse:
        shortfall: Shortfall = self.record(request, object_id)
        return self._decide(
            request,
            shortfall,
            title=_("Reject these refunds?"),
            done=_(
                "Rejected: every unit keeps its place. Put the plan on sale, or announce supply, by hand."
            ),
            verb=lambda: reject_shortfall(
                shortfall_id=shortfall.pk, rejected_by_id=staff_id(request), now=timezone.now()
            ),
        )

    @button(gettext_lazy("Try failed ones again"), icon="replay")
    def retry(self, request: HttpRequest, object_id: str) -> HttpResponse:
        shortfall: Shortfall = self.record(request, object_id)
        form = Form(posted(request))
        if form.is_valid():
            orders = retry_shortfall(shortfall_id=shortfall.pk)
            done = ngettext(
                "The refund of %(orders)d order is tried again.",
                "The refunds of %(orders)d orders are tried again.",
                orders,
            ) % {"orders": orders}
            self.log_change(request, shortfall, done)
            messages.success(request, done)
            return redirect(self.page_of(shortfall))
        return self.ask(
            request,
            title=_("Try again what failed?"),
            intro=_("What a gateway refused for good is asked for again by a new key."),
            form=form,
            button=_("Try again"),
            record=shortfall,
        )

    def _ask_what(self, request: HttpRequest) -> HttpResponse:
        batches = SupplyBatch.objects.filter(state=BatchState.EXPECTED).select_related("plan")
        form = WhatIsMissingForm(posted(request), plans=Plan.objects.all(), batches=batches)
        if form.is_valid():
            return redirect(f"{request.path}?{form.cleaned_data['what']}")
        return self.ask(
            request,
            title=_("Unable to supply"),
            intro=_("Pick a plan or a batch: the next page lists who waits for it, before anything happens."),
            form=form,
            button=_("Go on"),
        )

    def _decide(
        self,
        request: HttpRequest,
        shortfall: Shortfall,
        *,
        title: str,
        done: str,
        verb: Callable[[], Shortfall],
    ) -> HttpResponse:
        form = Form(posted(request))
        if form.is_valid():
            try:
                verb()
            except ShortfallRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, shortfall, done)
                messages.success(request, done)
                return redirect(self.page_of(shortfall))
        what = f"{shortfall.batch}, {shortfall.plan}" if shortfall.batch else str(shortfall.plan)
        lines = [f"{label}: {words}" for label, words in progress_of(shortfall).rows]
        return self.ask(
            request,
            title=title,
            intro="\n".join([what, shortfall.reason, *lines]),
            form=form,
            button=_("Confirm"),
            record=shortfall,
        )


@admin.register(ShortfallLine)
class ShortfallLineAdmin(RecordAdmin):
    list_display = ("line", "order", "shortfall", "units", "state_label", "refund", "problem")
    list_filter = ("state",)
    list_select_related = ("line__order", "shortfall", "refund")
    search_fields = ("line__order__reference__startswith",)
    ordering = ("-id",)
    state_label = choice_column("state", gettext_lazy("state"), LINE_COLOURS)

    @column(gettext_lazy("order"))
    def order(self, listed: ShortfallLine) -> str:
        return str(listed.line.order)


def declare_address(**what: int) -> str:
    """The page on which staff declare that a plan, or a batch, is not supplied."""
    return f"{reverse('admin:orders_shortfall_add')}?{urlencode(what)}"


def _named(query: QueryDict) -> tuple[Plan | None, SupplyBatch | None]:
    """The plan and the batch that an address names; neither, if it names none. Raises Http404."""
    plan, batch = query.get("plan", ""), query.get("batch", "")
    if not (plan or batch):
        return None, None
    if not (plan or batch).isdecimal():
        raise Http404
    if plan:
        return get_object_or_404(Plan, pk=plan), None
    found = get_object_or_404(SupplyBatch.objects.select_related("plan"), pk=batch)
    return found.plan, found


def _count(rows: "QuerySet[ShortfallLine, Any]") -> Coalesce:
    return Coalesce(Subquery(rows.annotate(n=Count("pk")).values("n"), output_field=IntegerField()), 0)
