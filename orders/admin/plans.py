"""Plans and batches again: with the queue, a sweep at the press of a button, and what cannot be supplied."""

from typing import Any

from django.conf import settings
from django.contrib import admin, messages
from django.db.models import IntegerField, OuterRef, QuerySet, Subquery, Sum
from django.db.models.functions import Coalesce
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import reverse
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from kombu.exceptions import OperationalError

from accounts.models import User
from evidence.admin import button, column, posted
from inventory.admin import PlanAdmin, SupplyBatchAdmin
from inventory.models import Plan, SupplyBatch
from orders.admin.shortfalls import declare_address
from orders.allocation import plan_of_sweep
from orders.models import LineState, OrderLine
from orders.models.order import WAITING_UNITS
from orders.queue import free_devices_by_plan
from orders.tasks import sweep
from orders.track_record import track_record

# Units of a dry run.
UNITS_SHOWN = 200

# Stock knows nothing of orders, so it is here that its pages learn of the queue.
admin.site.unregister((Plan, SupplyBatch))


@admin.register(Plan)
class PlanWithQueueAdmin(PlanAdmin):
    list_display = (*PlanAdmin.list_display[:-1], "queue", "rank")
    actions_detail = ("track_record", "dry_run", "run_sweep", "declare_shortfall")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        waiting = OrderLine.objects.filter(plan=OuterRef("pk"), state=LineState.WAITING).order_by()
        units = waiting.values("plan").annotate(units=Sum(WAITING_UNITS)).values("units")
        plans = super().get_queryset(request)
        return plans.annotate(waiting=Coalesce(Subquery(units, output_field=IntegerField()), 0))

    @column(gettext_lazy("units waiting"), ordering="waiting")
    def queue(self, plan: Any) -> SafeString:
        address = f"{reverse('admin:orders_orderline_changelist')}?plan__id__exact={plan.pk}"
        return format_html('<a class="text-link" href="{}">{}</a>', address, f"{plan.waiting:,}")

    @button(gettext_lazy("Track record"), icon="query_stats", permission="view")
    def track_record(self, request: HttpRequest, object_id: str) -> HttpResponse:
        plan: Plan = self.record(request, object_id)
        return self.show(
            request,
            title=_("Track record of %(plan)s") % {"plan": plan},
            record=plan,
            template="admin/inventory/plan/track_record.html",
            record_of_plan=track_record(plan.pk, now=timezone.now()),
            back=self.page_of(plan),
        )

    @button(gettext_lazy("Dry run"), icon="preview", permission="view")
    def dry_run(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Who would get what if the sweep ran now."""
        plan: Plan = self.record(request, object_id)
        turns = plan_of_sweep(plan_id=plan.pk, now=timezone.now(), units=UNITS_SHOWN)
        customers = User.objects.in_bulk([turn.customer_id for turn in turns])
        return self.show(
            request,
            title=_("Who would get what: %(plan)s") % {"plan": plan},
            record=plan,
            template="admin/inventory/plan/dry_run.html",
            rows=[(turn, customers[turn.customer_id]) for turn in turns],
            units=sum(len(turn.codes) for turn in turns),
            units_shown=UNITS_SHOWN,
            back=self.page_of(plan),
        )

    def has_declare_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("orders.add_shortfall")

    @button(
        gettext_lazy("Unable to supply"),
        icon="production_quantity_limits",
        permission="declare",
        is_danger=True,
    )
    def declare_shortfall(self, request: HttpRequest, object_id: str) -> HttpResponse:
        plan: Plan = self.record(request, object_id)
        return redirect(declare_address(plan=plan.pk))

    @button(gettext_lazy("Run sweep now"), icon="cached")
    def run_sweep(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """Ask the workers for a sweep, which they run every few seconds anyway."""
        plan: Plan = self.record(request, object_id)
        form = Form(posted(request))
        if form.is_valid():
            try:
                sweep.delay(plan_id=plan.pk)
            except OperationalError:
                form.add_error(None, _("The workers cannot be reached just now; they sweep by themselves."))
            else:
                self.log_change(request, plan, _("Asked for a sweep."))
                messages.success(request, _("The sweep is on its way; look at the queue in a few seconds."))
                return redirect(self.page_of(plan))
        queue = OrderLine.objects.waiting(plan_id=plan.pk)
        served_from = timezone.now() - settings.ALLOCATION_HOLD_BACK
        return self.ask(
            request,
            title=_("Run a sweep of %(plan)s?") % {"plan": plan},
            intro=_(
                "%(free)d devices are free, %(waiting)d units wait. %(held)d of them were paid less than "
                "%(minutes)d minutes ago and are held back, so that a payment reported late keeps its place. "
                "Sweeps run every few seconds by themselves."
            )
            % {
                "free": free_devices_by_plan([plan.pk]).get(plan.pk, 0),
                "waiting": queue.units(),
                "held": queue.filter(paid_at__gt=served_from).units(),
                "minutes": settings.ALLOCATION_HOLD_BACK.total_seconds() // 60,
            },
            form=form,
            button=_("Run the sweep"),
            record=plan,
        )


@admin.register(SupplyBatch)
class SupplyBatchWithQueueAdmin(SupplyBatchAdmin):
    actions_detail = (*SupplyBatchAdmin.actions_detail, "declare_shortfall")

    def has_declare_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("orders.add_shortfall")

    def offers(self, record: SupplyBatch, button: str) -> bool:
        if button == "declare_shortfall":
            return record.received_units < record.quantity
        return super().offers(record, button)

    @button(
        gettext_lazy("Unable to supply"),
        icon="production_quantity_limits",
        permission="declare",
        is_danger=True,
    )
    def declare_shortfall(self, request: HttpRequest, object_id: str) -> HttpResponse:
        batch: SupplyBatch = self.record(request, object_id)
        return redirect(declare_address(batch=batch.pk))
