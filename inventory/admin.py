"""The desk of supply: the catalogue is edited in place, fees and batches are announced, devices received."""

import csv
import io
from collections.abc import Callable, Iterable
from typing import Any, ClassVar

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Count, IntegerField, Model, OuterRef, QuerySet, Subquery
from django.db.models.functions import Coalesce
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext
from unfold.admin import TabularInline

from evidence.admin import (
    DeskAdmin,
    RecordAdmin,
    RecordInline,
    button,
    choice_column,
    column,
    posted,
    posted_files,
    staff_id,
)
from evidence.contract_time import contract_date
from inventory.fees import ScheduleRefused, publish_fee_schedule
from inventory.forms import AnnounceBatchForm, AnnounceFeesForm, ChangeBatchForm, OversellForm, ReceiveForm
from inventory.models import (
    BatchState,
    Device,
    DeviceState,
    Fee,
    FeeSchedule,
    OversellDecision,
    Plan,
    SupplyBatch,
    SupplyReceipt,
    Term,
)
from inventory.quarantine import NotInQuarantine, release_device, retire_device
from inventory.receiving import FileRefused, RowProblem, receive_devices
from inventory.supply import SupplyRefused, announce_batch, cancel_batch, change_batch, decide_oversell

PROBLEMS_SHOWN = 200
# A spreadsheet takes a cell that begins so for a formula.
FORMULA = ("=", "+", "-", "@", "\t", "\r")


# --- catalogue -------------------------------------------------------------------------------------------


class TermInline(TabularInline):  # type: ignore[misc]
    """Terms are added, never edited: what was sold for 30 days stays sold for 30 days."""

    model = Term
    extra = 0
    can_delete = False

    def has_change_permission(self, request: HttpRequest, obj: Plan | None = None) -> bool:
        return False


@admin.register(Plan)
class PlanAdmin(DeskAdmin):
    list_display: tuple[str, ...] = (
        "name",
        "android",
        "region",
        "on_sale",
        "presale_cap",
        "devices_free",
        "rank",
    )
    list_filter = ("on_sale", "region", "android")
    search_fields = ("name", "slug")
    ordering = ("rank", "id")
    prepopulated_fields: ClassVar[dict[str, tuple[str, ...]]] = {"slug": ("name", "android", "region")}
    inlines = (TermInline,)
    fieldsets = (
        (None, {"fields": ("name", "slug", "on_sale", "rank")}),
        (
            gettext_lazy("Specification"),
            {"fields": (("android", "region"), ("cpu_cores", "ram_gb"), "storage_gb")},
        ),
        (gettext_lazy("Sale"), {"fields": ("presale_cap", "customer_limit", "presale_bonus_days")}),
    )

    def get_queryset(self, request: HttpRequest) -> QuerySet[Plan]:
        free = Device.objects.filter(plan=OuterRef("pk"), state=DeviceState.FREE).order_by().values("plan")
        devices = Coalesce(Subquery(free.annotate(n=Count("pk")).values("n"), output_field=IntegerField()), 0)
        plans: QuerySet[Plan] = super().get_queryset(request).annotate(devices_free=devices)
        return plans

    @column(gettext_lazy("devices free"), ordering="devices_free")
    def devices_free(self, plan: Plan) -> int:
        free: int = plan.devices_free  # type: ignore[attr-defined]
        return free


@admin.register(Term)
class TermAdmin(RecordAdmin):
    list_display = ("plan", "days")
    list_filter = ("plan",)
    list_select_related = ("plan",)
    search_fields = ("plan__name",)
    ordering = ("plan__rank", "plan_id", "days")


# --- fees ------------------------------------------------------------------------------------------------


class FeeInline(RecordInline):
    model = Fee
    fields = ("plan", "days", "amount")
    opens = False
    per_page = 100

    def get_queryset(self, request: HttpRequest) -> QuerySet[Fee]:
        fees: QuerySet[Fee] = super().get_queryset(request)
        return fees.select_related("schedule", "term__plan").order_by(
            "term__plan__rank", "term__plan", "term__days"
        )

    @column(gettext_lazy("plan"))
    def plan(self, fee: Fee) -> str:
        return str(fee.term.plan)

    @column(gettext_lazy("days"))
    def days(self, fee: Fee) -> int:
        return fee.term.days

    @column(gettext_lazy("fee"))
    def amount(self, fee: Fee) -> str:
        return fee.money.localised()


@admin.register(FeeSchedule)
class FeeScheduleAdmin(RecordAdmin):
    """Schedules are announced on the page behind "add", and final from then on (agreement 3.2)."""

    list_display = ("currency", "effective_at", "announced_at", "fees_count")
    list_display_links = ("currency", "effective_at")
    list_filter = ("currency",)
    date_hierarchy = "effective_at"
    ordering = ("-effective_at", "currency", "id")
    inlines = (FeeInline,)

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("inventory.add_feeschedule")

    def get_queryset(self, request: HttpRequest) -> QuerySet[FeeSchedule]:
        schedules: QuerySet[FeeSchedule] = super().get_queryset(request).annotate(fees_count=Count("fees"))
        return schedules

    @column(gettext_lazy("fees"))
    def fees_count(self, schedule: FeeSchedule) -> int:
        count: int = schedule.fees_count  # type: ignore[attr-defined]
        return count

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        """Announce a schedule of the currency in the address (?currency=USD)."""
        if not self.has_add_permission(request):
            raise PermissionDenied
        currency = request.GET.get("currency", "")
        if currency not in settings.SHOP_CURRENCIES:
            currency = settings.SHOP_CURRENCIES[0]
        now = timezone.now()
        newest = FeeSchedule.objects.filter(currency=currency).order_by("-effective_at").first()
        fees = Fee.objects.in_force(currency=currency, at=max(now, newest.effective_at) if newest else now)
        form = AnnounceFeesForm(
            posted(request),
            currency=currency,
            terms=list(Term.objects.select_related("plan").order_by("plan__rank", "plan", "days")),
            present={term_id: fee.money for term_id, fee in fees.items()},
        )
        if form.is_valid():
            try:
                schedule = publish_fee_schedule(
                    currency=currency,
                    effective_at=form.cleaned_data["effective_at"],
                    announced_at=now,
                    fees=form.fees,
                )
            except ScheduleRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_addition(
                    request,
                    schedule,
                    ngettext("Announced %(fees)d fee.", "Announced %(fees)d fees.", len(form.fees))
                    % {"fees": len(form.fees)},
                )
                messages.success(request, _("The fee schedule is announced: the shop shows it from now on."))
                return redirect(self.page_of(schedule))
        return self.ask(
            request,
            title=_("Announce a fee schedule in %(currency)s") % {"currency": currency},
            intro=_(
                "The amounts are those announced so far. An amount left empty keeps the fee the term has. "
                "Once announced, a schedule is final: a mistake is mended by another one."
            ),
            form=form,
            button=_("Announce"),
            template="admin/inventory/feeschedule/announce.html",
            currencies=settings.SHOP_CURRENCIES,
            currency=currency,
        )


@admin.register(Fee)
class FeeAdmin(RecordAdmin):
    list_display = ("plan", "term", "amount", "schedule")
    list_filter = ("schedule__currency", "term__plan")
    list_select_related = ("schedule", "term__plan")
    search_fields = ("term__plan__name",)
    ordering = ("-schedule__effective_at", "-id")

    @column(gettext_lazy("plan"), ordering="term__plan")
    def plan(self, fee: Fee) -> str:
        return str(fee.term.plan)

    @column(gettext_lazy("fee"))
    def amount(self, fee: Fee) -> str:
        return fee.money.localised()


# --- supply ----------------------------------------------------------------------------------------------


class DueFilter(admin.SimpleListFilter):
    title = gettext_lazy("due")
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("overdue", _("overdue")), ("expected", _("not yet due"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[SupplyBatch]) -> QuerySet[SupplyBatch]:
        today = contract_date(timezone.now())
        if self.value() == "overdue":
            return queryset.filter(state=BatchState.EXPECTED, expected_on__lt=today)
        if self.value() == "expected":
            return queryset.filter(state=BatchState.EXPECTED, expected_on__gte=today)
        return queryset


class ReceiptInline(RecordInline):
    model = SupplyReceipt
    fields = ("file_name", "devices", "received_at", "received_by", "file_sha256")

    def get_queryset(self, request: HttpRequest) -> QuerySet[SupplyReceipt]:
        receipts: QuerySet[SupplyReceipt] = super().get_queryset(request).select_related("received_by")
        return receipts


@admin.register(OversellDecision)
class OversellDecisionAdmin(RecordAdmin):
    list_display = ("plan", "units", "reason", "decided_by", "decided_at")
    list_filter = ("plan",)
    list_select_related = ("plan", "decided_by")
    search_fields = ("plan__name", "reason")
    date_hierarchy = "decided_at"
    ordering = ("-decided_at", "-id")

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("inventory.add_overselldecision")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = OversellForm(posted(request))
        if form.is_valid():
            try:
                decision = decide_oversell(
                    plan_id=form.cleaned_data["plan"].pk,
                    units=form.cleaned_data["units"],
                    reason=form.cleaned_data["reason"],
                    decided_by_id=staff_id(request),
                    now=timezone.now(),
                )
            except SupplyRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_addition(request, decision, _("Decided."))
                messages.success(request, _("The decision is on record and counts from now on."))
                return redirect(self.page_of(decision))
        return self.ask(
            request,
            title=_("Sell beyond the announced supply"),
            intro=_(
                "Customers who buy such units wait for a batch that nobody has announced yet. The decision stays on "
                "record with your name."
            ),
            form=form,
            button=_("Decide"),
        )


@admin.register(SupplyBatch)
class SupplyBatchAdmin(RecordAdmin):
    list_display = (
        "reference",
        "plan",
        "state_label",
        "quantity",
        "received_units",
        "expected_on",
        "first_expected_on",
        "received_at",
    )
    list_filter = (DueFilter, "state", "plan")
    list_select_related = ("plan",)
    search_fields = ("reference", "plan__name")
    date_hierarchy = "expected_on"
    ordering = ("-expected_on", "-id")
    inlines = (ReceiptInline,)
    actions_detail = ("receive", "revise", "cancel")

    state_label = choice_column(
        "state",
        gettext_lazy("state"),
        {BatchState.EXPECTED: "info", BatchState.RECEIVED: "success", BatchState.CANCELLED: "danger"},
    )

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return request.user.has_perm("inventory.add_supplybatch")

    def offers(self, record: SupplyBatch, button: str) -> bool:
        return record.state == BatchState.EXPECTED

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AnnounceBatchForm(posted(request))
        if form.is_valid():
            try:
                batch = announce_batch(
                    plan_id=form.cleaned_data["plan"].pk,
                    reference=form.cleaned_data["reference"],
                    quantity=form.cleaned_data["quantity"],
                    expected_on=form.cleaned_data["expected_on"],
                    now=timezone.now(),
                )
            except SupplyRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_addition(request, batch, _("Announced."))
                messages.success(request, _("Batch %(batch)s is announced.") % {"batch": batch})
                return redirect(self.page_of(batch))
        return self.ask(request, title=_("Announce a supply batch"), form=form, button=_("Announce"))

    @button(gettext_lazy("Receive devices"), icon="download")
    def receive(self, request: HttpRequest, object_id: str) -> HttpResponse:
        batch: SupplyBatch = self.record(request, object_id)
        form = ReceiveForm(posted(request), posted_files(request))
        problems: list[RowProblem] = []
        if form.is_valid():
            file = form.cleaned_data["file"]
            try:
                receipt = receive_devices(
                    batch_id=batch.pk,
                    file_name=file.name,
                    content=file.read(),
                    received_by_id=staff_id(request),
                    is_last=not form.cleaned_data["more_to_come"],
                    now=timezone.now(),
                )
            except FileRefused as refused:
                problems = refused.problems
            else:
                summary = ngettext(
                    "%(devices)d device received from %(file)s.",
                    "%(devices)d devices received from %(file)s.",
                    receipt.devices,
                ) % {"devices": receipt.devices, "file": receipt.file_name}
                self.log_change(request, batch, summary)
                messages.success(request, summary + " " + _("The sweep hands them out within seconds."))
                return redirect(self.page_of(batch))
        return self.ask(
            request,
            title=_("Receive devices of batch %(batch)s") % {"batch": batch},
            intro=_("%(outstanding)d of %(quantity)d devices of “%(plan)s” are outstanding.")
            % {"outstanding": batch.outstanding, "quantity": batch.quantity, "plan": batch.plan.slug},
            form=form,
            button=_("Receive"),
            record=batch,
            template="admin/inventory/supplybatch/receive.html",
            problems=problems[:PROBLEMS_SHOWN],
            problems_count=len(problems),
            problems_csv=_as_csv(problems),
            problems_file=f"{batch.reference}-problems.csv",
        )

    @button(
        gettext_lazy("Change date or quantity"),
        icon="edit_calendar",
    )
    def revise(self, request: HttpRequest, object_id: str) -> HttpResponse:
        batch: SupplyBatch = self.record(request, object_id)
        form = ChangeBatchForm(posted(request), batch=batch)
        if form.is_valid():
            try:
                changed = change_batch(batch_id=batch.pk, now=timezone.now(), **form.cleaned_data)
            except SupplyRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(
                    request,
                    changed,
                    _("%(quantity)d devices on %(date)s (before: %(old_quantity)d on %(old_date)s).")
                    % {
                        "quantity": changed.quantity,
                        "date": changed.expected_on,
                        "old_quantity": batch.quantity,
                        "old_date": batch.expected_on,
                    },
                )
                messages.success(request, _("Batch %(batch)s is changed.") % {"batch": batch})
                return redirect(self.page_of(batch))
        return self.ask(
            request,
            title=_("Change batch %(batch)s") % {"batch": batch},
            form=form,
            button=_("Save"),
            record=batch,
        )

    @button(gettext_lazy("Cancel batch"), icon="cancel", is_danger=True)
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        batch: SupplyBatch = self.record(request, object_id)
        form = Form(posted(request))
        if form.is_valid():
            try:
                cancel_batch(batch_id=batch.pk)
            except SupplyRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, batch, _("Cancelled."))
                messages.success(request, _("Batch %(batch)s is cancelled.") % {"batch": batch})
                return redirect(self.page_of(batch))
        return self.ask(
            request,
            title=_("Cancel batch %(batch)s?") % {"batch": batch},
            intro=_(
                "%(outstanding)d devices of “%(plan)s” will not come; those that arrived stay in stock. "
                "Estimates are made anew, and customers whose estimate changes are told. This is final."
            )
            % {"outstanding": batch.outstanding, "plan": batch.plan},
            form=form,
            button=_("Cancel the batch"),
            record=batch,
        )


def _as_csv(problems: Iterable[RowProblem]) -> str:
    """All problems as a spreadsheet reads them. Codes are a stranger's words: none may be a formula."""
    written = io.StringIO()
    writer = csv.writer(written)
    writer.writerow([_("row"), _("code"), _("problem")])
    for problem in problems:
        code = f"'{problem.code}" if problem.code.startswith(FORMULA) else problem.code
        writer.writerow([problem.row or "", code, problem.message])
    return written.getvalue()


@admin.register(SupplyReceipt)
class SupplyReceiptAdmin(RecordAdmin):
    list_display = ("file_name", "batch", "devices", "received_at", "received_by")
    list_filter = ("batch__plan",)
    list_select_related = ("batch", "received_by")
    search_fields = ("file_name", "batch__reference", "file_sha256")
    date_hierarchy = "received_at"
    ordering = ("-received_at", "-id")


@admin.register(Device)
class DeviceAdmin(RecordAdmin):
    list_display = ("code", "plan", "state_label", "receipt")
    list_filter = ("state", "plan")
    list_select_related = ("plan", "receipt")
    search_fields = ("code__startswith",)
    search_help_text = gettext_lazy("The code, or how it begins")
    ordering = ("-id",)

    state_label = choice_column(
        "state",
        gettext_lazy("state"),
        {
            DeviceState.FREE: "success",
            DeviceState.ALLOCATED: "info",
            DeviceState.QUARANTINED: "warning",
            DeviceState.RETIRED: "danger",
        },
    )
    actions_detail = ("release", "retire")

    def offers(self, record: Device, button: str) -> bool:
        return record.state == DeviceState.QUARANTINED

    @button(gettext_lazy("Put back into stock"), icon="inventory_2")
    def release(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._leave_quarantine(
            request,
            object_id,
            release_device,
            title=_("Put device %(device)s back into stock?"),
            intro=_("It was looked at and works. The next sweep gives it to whoever is first in the queue."),
            done=_("Device %(device)s is in stock again."),
        )

    @button(gettext_lazy("Retire"), icon="delete_forever", is_danger=True)
    def retire(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return self._leave_quarantine(
            request,
            object_id,
            retire_device,
            title=_("Retire device %(device)s?"),
            intro=_("Nobody gets it any more. This cannot be undone."),
            done=_("Device %(device)s is retired."),
        )

    def _leave_quarantine(
        self,
        request: HttpRequest,
        object_id: str,
        verb: Callable[..., Device],
        *,
        title: str,
        intro: str,
        done: str,
    ) -> HttpResponse:
        device: Device = self.record(request, object_id)
        form = Form(posted(request))
        if form.is_valid():
            try:
                verb(device_id=device.pk)
            except NotInQuarantine as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, device, done % {"device": device})
                messages.success(request, done % {"device": device})
                return redirect(self.page_of(device))
        return self.ask(
            request,
            title=title % {"device": device},
            intro=intro,
            form=form,
            button=_("Yes"),
            record=device,
        )
