"""What customers were told, over which channel, and the evidence of it."""

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse, StreamingHttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin
from unfold.datasets import BaseDataset

from accounts.models import User
from evidence.admin import RecordAdmin, RecordInline, button, choice_column, column, posted
from notices.cancelling import cancel
from notices.deliveries import resend
from notices.exporting import exported
from notices.models import (
    ContactPoint,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    DeliveryStep,
    InboxMessage,
    Message,
    Notice,
)

STATE_COLOURS: dict[str, str] = {
    DeliveryState.LEASED: "info",
    DeliveryState.SENDING: "info",
    DeliveryState.SENT: "success",
    DeliveryState.UNCERTAIN: "warning",
    DeliveryState.DEAD: "danger",
}
STEP_COLOURS: dict[str, str] = {
    DeliveryStep.ACCEPTED: "success",
    DeliveryStep.FAILED: "warning",
    DeliveryStep.UNKNOWN: "warning",
    DeliveryStep.REFUSED: "danger",
    DeliveryStep.RECEIVED: "success",
    DeliveryStep.RETURNED: "danger",
    DeliveryStep.REPEATED: "warning",
    DeliveryStep.RESENT: "info",
    DeliveryStep.CANCELLED: "info",
}


class DeliveryInline(RecordInline):
    model = Delivery
    fields = ("channel", "address", "state_label", "attempts", "due_at", "sent_at", "message", "problem")
    state_label = choice_column("state", gettext_lazy("state"), STATE_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[Delivery]:
        deliveries: QuerySet[Delivery] = super().get_queryset(request).select_related("message")
        return deliveries


class EventInline(RecordInline):
    model = DeliveryEvent
    fields = ("attempt", "step_label", "at", "address", "message", "provider_reference", "detail")
    opens = False
    step_label = choice_column("step", gettext_lazy("step"), STEP_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeliveryEvent]:
        events: QuerySet[DeliveryEvent] = super().get_queryset(request).select_related("message")
        return events


class EventRows(ModelAdmin):  # type: ignore[misc]
    """The events of all deliveries of one notice."""

    list_display = ("at", "channel", "address", "attempt", "step_label", "provider_reference", "detail")
    list_display_links = None
    actions = None
    list_per_page = 25
    ordering = ("id",)
    step_label = choice_column("step", gettext_lazy("step"), STEP_COLOURS)

    def get_queryset(self, request: HttpRequest) -> QuerySet[DeliveryEvent]:
        events: QuerySet[DeliveryEvent] = super().get_queryset(request)
        return events.filter(delivery__notice=self.extra_context["object"]).select_related("delivery")

    @column(gettext_lazy("channel"))
    def channel(self, event: DeliveryEvent) -> str:
        return event.delivery.channel


class EventsOfNotice(BaseDataset):  # type: ignore[misc]
    model = DeliveryEvent
    model_admin = EventRows


@admin.register(Notice)
class NoticeAdmin(RecordAdmin):
    list_display = ("id", "kind", "recipient", "about", "created_at", "is_expanded")
    list_display_links = ("id", "kind")
    list_filter = ("kind", "is_expanded")
    list_select_related = ("recipient",)
    search_fields = ("about__startswith", "recipient__email__startswith")
    search_help_text = gettext_lazy("The order's reference, or the recipient's email address")
    date_hierarchy = "created_at"
    ordering = ("-id",)
    inlines = (DeliveryInline,)
    change_form_datasets = (EventsOfNotice,)
    actions_detail = ("export_log",)

    @button(gettext_lazy("Download the recipient's log"), icon="download", permission="view")
    def export_log(self, request: HttpRequest, object_id: str) -> StreamingHttpResponse:
        """Everything he was told, with the evidence of it: what he himself can download."""
        notice: Notice = self.record(request, object_id)
        return exported(notice.recipient_id, "csv")


@admin.register(Delivery)
class DeliveryAdmin(RecordAdmin):
    list_display = (
        "id",
        "notice",
        "channel",
        "address",
        "state_label",
        "attempts",
        "due_at",
        "sent_at",
        "problem",
    )
    list_filter = ("state", "channel", "notice__kind")
    list_select_related = ("notice",)
    search_fields = ("address__startswith", "notice__about__startswith", "provider_reference__exact")
    search_help_text = gettext_lazy("The address, the order's reference, or the provider's reference")
    ordering = ("-id",)
    inlines = (EventInline,)
    actions_detail = ("send_again", "cancel")
    actions = ("send_all_again",)
    state_label = choice_column("state", gettext_lazy("state"), STATE_COLOURS)

    def offers(self, record: Delivery, button: str) -> bool:
        if button == "cancel":
            return record.state == DeliveryState.QUEUED
        is_over = record.state in (DeliveryState.DEAD, DeliveryState.UNCERTAIN)
        return is_over and record.notice.called_back_at is None

    @button(gettext_lazy("Send again"), icon="send")
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        delivery: Delivery = self.record(request, object_id)
        maybe = delivery.state == DeliveryState.UNCERTAIN
        return self._ask_and_do(
            request,
            delivery,
            title=_("Send it again?"),
            intro=_("Nobody knows whether it arrived: it may come twice.")
            if maybe
            else _("It goes out with the same words. It was refused: %(problem)s")
            % {"problem": delivery.problem},
            button=_("Send again"),
            verb=lambda: resend(delivery_ids=[delivery.pk], by=staff(request), now=timezone.now()),
        )

    @button(gettext_lazy("Cancel"), icon="cancel_schedule_send", is_danger=True)
    def cancel(self, request: HttpRequest, object_id: str) -> HttpResponse:
        delivery: Delivery = self.record(request, object_id)
        return self._ask_and_do(
            request,
            delivery,
            title=_("Do not send it?"),
            intro=_(
                "It stays on record as cancelled by you. Where no other way is left to tell the customer what is owed to him, "
                "it is sent by the next one: by text message, at last by letter."
            ),
            button=_("Do not send it"),
            verb=lambda: cancel(delivery_ids=[delivery.pk], by=staff(request), now=timezone.now()),
        )

    @admin.action(description=gettext_lazy("Send again what was refused or is unknown"), permissions=["act"])
    def send_all_again(self, request: HttpRequest, chosen: QuerySet[Delivery]) -> None:
        count = resend(
            delivery_ids=chosen.values_list("pk", flat=True), by=staff(request), now=timezone.now()
        )
        messages.success(request, _("%(count)d are sent again.") % {"count": count})

    def _ask_and_do(
        self,
        request: HttpRequest,
        delivery: Delivery,
        *,
        title: str,
        intro: str,
        button: str,
        verb: Callable[[], int],
    ) -> HttpResponse:
        form = Form(posted(request))
        if form.is_valid():
            if verb():
                messages.success(request, _("Done: %(what)s") % {"what": button})
            else:
                messages.warning(request, _("It had changed meanwhile; nothing was done."))
            return redirect(self.page_of(delivery))
        return self.ask(request, title=title, intro=intro, form=form, button=button, record=delivery)


@admin.register(DeliveryEvent)
class DeliveryEventAdmin(RecordAdmin):
    list_display = ("at", "delivery", "attempt", "step_label", "provider_reference", "detail")
    list_filter = ("step",)
    list_select_related = ("delivery",)
    search_fields = ("address__startswith", "provider_reference__exact")
    date_hierarchy = "at"
    ordering = ("-id",)
    step_label = choice_column("step", gettext_lazy("step"), STEP_COLOURS)


@admin.register(Message)
class MessageAdmin(RecordAdmin):
    list_display = ("__str__", "language", "sha256")
    list_filter = ("language",)
    search_fields = ("subject", "sha256__startswith")
    ordering = ("-id",)
    fields = ("subject", "language", "sha256", "text")

    @column(gettext_lazy("text"))
    def text(self, message: Message) -> SafeString:
        return format_html('<div class="desk-text">{}</div>', message.body)


@admin.register(InboxMessage)
class InboxMessageAdmin(RecordAdmin):
    list_display = ("id", "recipient", "message", "created_at", "read_at")
    list_filter = (("read_at", admin.EmptyFieldListFilter),)
    list_select_related = ("recipient", "message")
    search_fields = ("recipient__email__startswith",)
    date_hierarchy = "created_at"
    ordering = ("-id",)


@admin.register(ContactPoint)
class ContactPointAdmin(RecordAdmin):
    list_display = (
        "id",
        "customer",
        "channel",
        "address",
        "state_label",
        "created_at",
        "removed_at",
        "removal",
    )
    list_filter = (
        "channel",
        ("verified_at", admin.EmptyFieldListFilter),
        ("removed_at", admin.EmptyFieldListFilter),
    )
    list_select_related = ("customer",)
    search_fields = ("customer__email__startswith", "address__startswith")
    search_help_text = gettext_lazy(
        "The customer's email address, or the beginning of the contact point's own"
    )
    ordering = ("-id",)
    # Without the keys of a browser: they are nobody's to read.
    fields = (
        "customer",
        "channel",
        "address",
        "label",
        "created_at",
        "asked_at",
        "wrong_codes",
        "verified_at",
        "removed_at",
        "removal",
    )

    @column(gettext_lazy("state"))
    def state_label(self, point: ContactPoint) -> str:
        if point.removed_at:
            words, colour = gettext_lazy("removed"), "danger"
        elif point.verified_at:
            words, colour = gettext_lazy("in use"), "success"
        else:
            words, colour = gettext_lazy("to be proved"), "warning"
        return render_to_string("unfold/helpers/label.html", {"text": words, "type": colour})


def staff(request: HttpRequest) -> User:
    """Who is at the desk: nobody gets here without having logged in."""
    assert isinstance(request.user, User)  # noqa: S101 (for the type checker)
    return request.user
