"""The outbox at a glance, channels that are stopped and let go on, and deliveries that are sent again."""

from typing import Any

from django.contrib import admin, messages
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path, reverse
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evidence.admin import RecordAdmin, posted, staff_id
from notices import pacing
from notices.channels import CHANNELS
from notices.dashboard import standings
from notices.models import ChannelPace, Preference, QuietHours


@admin.register(ChannelPace)
class ChannelPaceAdmin(RecordAdmin):
    """Its list is the dashboard: every channel there is, used or not."""

    list_display = ("channel", "failures", "open_until", "last_problem", "paused_at", "paused_by")
    list_select_related = ("paused_by",)
    ordering = ("channel",)

    def get_urls(self) -> list[URLPattern]:
        own = [
            path(
                f"<slug:slug>/{name}/",
                self.admin_site.admin_view(view),
                name=f"notices_channelpace_{name}",
            )
            for name, view in (("pause", self.pause), ("resume", self.resume))
        ]
        urls: list[URLPattern] = super().get_urls()
        return own + urls

    def changelist_view(
        self, request: HttpRequest, extra_context: dict[str, Any] | None = None
    ) -> HttpResponse:
        if not self.has_view_permission(request):
            response: HttpResponse = super().changelist_view(request, extra_context)
            return response
        return self.show(
            request,
            title=_("Outbox"),
            record=None,
            template="admin/notices/outbox.html",
            standings=standings(now=timezone.now()),
            deliveries=reverse("admin:notices_delivery_changelist"),
            may_act=self.has_act_permission(request),
        )

    def pause(self, request: HttpRequest, slug: str) -> HttpResponse:
        """Stop a channel by a person's word."""
        return self._ask_and_do(
            request,
            slug,
            title=_("Pause the channel %(channel)s?"),
            intro=_(
                "Nothing is sent by it until somebody lets it go on. What is due waits, and nothing is lost."
            ),
            button=_("Pause"),
            verb=lambda: pacing.pause(slug, by_id=staff_id(request), now=timezone.now()),
        )

    def resume(self, request: HttpRequest, slug: str) -> HttpResponse:
        """Let a channel go on, also one that was left alone because it failed."""
        return self._ask_and_do(
            request,
            slug,
            title=_("Let the channel %(channel)s go on?"),
            intro=_("What waits is sent at the channel's pace, the urgent first."),
            button=_("Go on"),
            verb=lambda: pacing.resume(slug),
        )

    def _ask_and_do(
        self, request: HttpRequest, slug: str, *, title: str, intro: str, button: str, verb: Any
    ) -> HttpResponse:
        if slug not in CHANNELS or not self.has_act_permission(request):
            return redirect("admin:notices_channelpace_changelist")
        asked = title % {"channel": CHANNELS[slug].label}
        form = Form(posted(request))
        if form.is_valid():
            verb()
            messages.success(request, _("Done: %(what)s") % {"what": f"{button}, {CHANNELS[slug].label}"})
            return redirect("admin:notices_channelpace_changelist")
        return self.ask(request, title=asked, intro=intro, form=form, button=button)


@admin.register(Preference)
class PreferenceAdmin(RecordAdmin):
    list_display = ("customer", "kind", "channel", "is_wanted", "changed_at")
    list_filter = ("kind", "is_wanted")
    list_select_related = ("customer",)
    search_fields = ("customer__email__startswith",)
    search_help_text = gettext_lazy("The customer's email address")
    ordering = ("-changed_at",)


@admin.register(QuietHours)
class QuietHoursAdmin(RecordAdmin):
    list_display = ("customer", "begin_at", "end_at")
    list_select_related = ("customer",)
    search_fields = ("customer__email__startswith",)
    search_help_text = gettext_lazy("The customer's email address")
    ordering = ("customer",)
