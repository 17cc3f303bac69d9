"""Messages of staff to many customers: written and looked at, sent to a segment, approved where they are many."""

from collections.abc import Callable
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminIntegerFieldWidget, UnfoldAdminSelectWidget, UnfoldBooleanWidget

from evidence.admin import RecordAdmin, button, choice_column, column, posted, staff_id
from inventory.models import Plan
from notices.admin.announcing import WordsForm, banner_days_field, words_in_every_language
from notices.admin.records import staff
from notices.broadcasts import (
    NotAllowed,
    approve,
    can_be_stopped,
    cancel,
    needs_approval,
    recipients,
    submit,
)
from notices.kinds import KINDS
from notices.models import Broadcast, BroadcastState
from orders.models import OrderState

ANYBODY = ("", gettext_lazy("all"))


class BroadcastForm(WordsForm):
    plan = forms.ModelChoiceField(
        Plan.objects.all(),
        label=gettext_lazy("Who wait for the plan"),
        required=False,
        widget=UnfoldAdminSelectWidget,
    )
    first = forms.IntegerField(
        label=gettext_lazy("From place"), required=False, min_value=1, widget=UnfoldAdminIntegerFieldWidget
    )
    last = forms.IntegerField(
        label=gettext_lazy("Up to place"), required=False, min_value=1, widget=UnfoldAdminIntegerFieldWidget
    )
    language = forms.ChoiceField(
        label=gettext_lazy("Who read"),
        required=False,
        choices=[ANYBODY, *settings.LANGUAGES],
        widget=UnfoldAdminSelectWidget,
    )
    order_state = forms.ChoiceField(
        label=gettext_lazy("Who have an order that is"),
        required=False,
        choices=[ANYBODY, *OrderState.choices],
        widget=UnfoldAdminSelectWidget,
    )
    is_announced = forms.BooleanField(
        label=gettext_lazy("Also on the site"),
        help_text=gettext_lazy(
            "For everybody to read: somebody else has to approve it, however few it is sent to."
        ),
        required=False,
        widget=UnfoldBooleanWidget,
    )
    banner_days = banner_days_field()

    def clean(self) -> dict[str, Any]:
        said: dict[str, Any] = super().clean() or {}
        if (said.get("first") or said.get("last")) and not said.get("plan"):
            self.add_error("plan", _("Places are those of a plan's queue: choose the plan."))
        if said.get("first") and said.get("last") and said["first"] > said["last"]:
            self.add_error("last", _("The last place comes before the first."))
        return said

    def segment(self) -> dict[str, Any]:
        """Whom it is for, as `notices.broadcasts` understands it."""
        said = {name: self.cleaned_data[name] for name in ("first", "last", "language", "order_state")}
        plan = self.cleaned_data["plan"]
        said["plan"] = plan.pk if plan else None
        return {name: value for name, value in said.items() if value}


@admin.register(Broadcast)
class BroadcastAdmin(RecordAdmin):
    list_display = ("title", "kind", "state_label", "progress", "composed_by", "approved_by", "composed_at")
    list_display_links = ("title",)
    list_select_related = ("composed_by", "approved_by")
    list_filter = ("state", "kind")
    ordering = ("-id",)
    actions_detail = ("approve", "stop")
    fields = (
        "kind",
        "words",
        "goes_to",
        "is_announced",
        "banner_days",
        "state_label",
        "progress",
        "composed_by",
        "composed_at",
        "needs_approval",
        "approved_by",
        "approved_at",
        "ended_at",
        "stopped_by",
        "stopped_at",
    )
    state_label = choice_column(
        "state",
        gettext_lazy("state"),
        {
            BroadcastState.SUBMITTED: "warning",
            BroadcastState.SENDING: "info",
            BroadcastState.DONE: "success",
            BroadcastState.STOPPING: "warning",
            BroadcastState.CANCELLED: "danger",
        },
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("notices.add_broadcast")

    def offers(self, record: Broadcast, button: str) -> bool:
        if button == "approve":
            return record.state == BroadcastState.SUBMITTED
        return can_be_stopped(record)

    @column(gettext_lazy("title"))
    def title(self, broadcast: Broadcast) -> str:
        return str(broadcast.texts[settings.LANGUAGE_CODE]["title"])

    @column(gettext_lazy("texts"))
    def words(self, broadcast: Broadcast) -> SafeString:
        return words_in_every_language(broadcast.texts)

    @column(gettext_lazy("segment"))
    def goes_to(self, broadcast: Broadcast) -> str:
        if broadcast.segment is None:
            return _("on the site only")
        asked = broadcast.segment
        if asked.get("plan"):
            asked = {**asked, "plan": Plan.objects.get(pk=asked["plan"])}
        labels = {name: field.label for name, field in BroadcastForm.base_fields.items()}
        return ", ".join(f"{labels[name]}: {value}" for name, value in asked.items()) or _("all")

    @column(gettext_lazy("told"))
    def progress(self, broadcast: Broadcast) -> SafeString | str:
        if broadcast.segment is None:
            return _("on the site only")
        return format_html(
            '<progress max="{}" value="{}"></progress> {} / {}',
            broadcast.recipients,
            min(broadcast.told, broadcast.recipients),
            f"{broadcast.told:,}",
            f"{broadcast.recipients:,}",
        )

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = BroadcastForm(posted(request))
        if form.is_valid() and form.is_confirmed():
            try:
                broadcast = submit(
                    kind=KINDS[form.cleaned_data["kind"]],
                    segment=form.segment(),
                    texts=form.texts(),
                    is_announced=form.cleaned_data["is_announced"],
                    banner_days=form.cleaned_data["banner_days"] or 0,
                    by_id=staff_id(request),
                    now=timezone.now(),
                )
            except NotAllowed as refused:
                form.add_error(None, str(refused))
            else:
                self.log_addition(request, broadcast, [{"added": {}}])
                messages.success(
                    request,
                    _("It waits for another person's word.")
                    if broadcast.needs_approval
                    else _("It is on its way."),
                )
                return redirect(self.page_of(broadcast))
        count = recipients(form.segment()).count() if form.is_valid() else None
        return self.ask(
            request,
            title=_("Write to customers"),
            form=form.to_confirm() if form.is_valid() else form,
            button=_("Send") if form.is_valid() else _("Preview"),
            template="admin/notices/compose.html",
            preview=form.preview() if form.is_valid() else [],
            recipients=count,
            is_announced=form.is_valid() and form.cleaned_data["is_announced"],
            needs_approval=count is not None
            and needs_approval(count, is_announced=form.cleaned_data["is_announced"]),
        )

    @button(gettext_lazy("Approve"), icon="thumb_up")
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        broadcast: Broadcast = self.record(request, object_id)
        return self._ask_and_do(
            request,
            broadcast,
            title=_("Publish it?") if broadcast.segment is None else _("Send it?"),
            button=_("Publish") if broadcast.segment is None else _("Send"),
            done=_("It is on the site.") if broadcast.segment is None else _("It is on its way."),
            verb=lambda: approve(broadcast_id=broadcast.pk, by_id=staff_id(request), now=timezone.now()),
        )

    @button(gettext_lazy("Stop"), icon="block", is_danger=True)
    def stop(self, request: HttpRequest, object_id: str) -> HttpResponse:
        broadcast: Broadcast = self.record(request, object_id)
        return self._ask_and_do(
            request,
            broadcast,
            title=_("Send it to nobody else?"),
            intro=_(
                "What waits to be sent is cancelled, and it comes off the site. Whoever was told stays told."
            ),
            button=_("Stop"),
            done=_("Stopped."),
            verb=lambda: cancel(broadcast_id=broadcast.pk, by=staff(request), now=timezone.now()),
        )

    def _ask_and_do(
        self,
        request: HttpRequest,
        broadcast: Broadcast,
        *,
        title: str,
        intro: str = "",
        button: str,
        done: str,
        verb: Callable[[], None],
    ) -> HttpResponse:
        form = forms.Form(posted(request))
        if form.is_valid():
            try:
                verb()
            except NotAllowed as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, broadcast, done)
                messages.success(request, done)
                return redirect(self.page_of(broadcast))
        return self.ask(
            request,
            title=title,
            intro=intro,
            form=form,
            button=button,
            record=broadcast,
            template="admin/notices/compose.html",
            preview=list(broadcast.texts.items()),
            recipients=None if broadcast.segment is None else broadcast.recipients,
            is_announced=broadcast.is_announced,
        )
