"""Cases: customers write on the site, staff answer and close here."""

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.template.loader import render_to_string
from django.urls import reverse
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evidence.admin import RecordAdmin, RecordInline, button, choice_column, column, posted, staff_id
from orders.admin.forms import AnswerForm, CloseCaseForm
from orders.admin.orders import RefundInline
from orders.cases import CaseRefused, close_case, write
from orders.models import Case, CaseMessage, CaseState, Matter, OrderState, Outcome, Side

CASE_COLOURS: dict[str, str] = {CaseState.OPEN: "warning", CaseState.ANSWERED: "info"}


class DueFilter(admin.SimpleListFilter):
    title = gettext_lazy("first answer")
    parameter_name = "due"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("overdue", _("overdue"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Case]) -> QuerySet[Case]:
        if self.value() == "overdue":
            return queryset.filter(pk__in=Case.objects.overdue(timezone.now()))
        return queryset


class MessageInline(RecordInline):
    model = CaseMessage
    fields = ("written_at", "side", "author", "words")
    ordering = ("id",)
    opens = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[CaseMessage]:
        written: QuerySet[CaseMessage] = super().get_queryset(request).select_related("author")
        return written

    @column(gettext_lazy("message"))
    def words(self, message: CaseMessage) -> SafeString:
        return _as_written(message)


class RefundsOfCase(RefundInline):
    """What has come of a request or a withdrawal."""

    tab = False


@admin.register(Case)
class CaseAdmin(RecordAdmin):
    list_display = (
        "reference",
        "due",
        "state_label",
        "matter",
        "order",
        "customer",
        "subject",
    )
    list_filter = (DueFilter, "state", "matter", "ground", "outcome")
    list_select_related = ("order__customer",)
    search_fields = (
        "reference__istartswith",
        "order__reference__istartswith",
        "order__customer__email__istartswith",
    )
    search_help_text = gettext_lazy("Reference of the case or the order, or the customer's email address")
    date_hierarchy = "opened_at"
    ordering = ("-id",)
    view_on_site = False  # the page on the site is its customer's alone
    inlines = (MessageInline, RefundsOfCase)
    actions_detail = ("answer", "close")
    state_label = choice_column("state", gettext_lazy("state"), CASE_COLOURS)
    fields = (
        "reference",
        "order",
        "customer",
        "language",
        "matter",
        "ground",
        "legal_basis",
        "subject",
        "state_label",
        "opened_at",
        "due",
        "first_answered_at",
        "outcome",
        "closed_at",
        "refund",
    )

    def offers(self, record: Case, button: str) -> bool:
        return record.state != CaseState.CLOSED

    @column(gettext_lazy("customer"), ordering="order__customer")
    def customer(self, case: Case) -> str:
        return str(case.order.customer)

    @column(gettext_lazy("customer's language"))
    def language(self, case: Case) -> str:
        return case.order.customer.get_language_display()

    @column(gettext_lazy("first answer due"), ordering="answer_due_at")
    def due(self, case: Case) -> str:
        day = date_format(case.last_day_to_answer)
        if case.is_overdue(timezone.now()):
            words = _("overdue: %(day)s") % {"day": day}
            return render_to_string("unfold/helpers/label.html", {"text": words, "type": "danger"})
        return day

    @column(gettext_lazy("refund"))
    def refund(self, case: Case) -> str:
        """The way on for a withdrawal and for who asks for a refund: the page that requests it, filled in (3.3)."""
        if case.matter == Matter.DISPUTE or case.order.state != OrderState.PAID:
            return "–"
        address = reverse(f"{self.admin_site.name}:orders_order_request_refund", args=[case.order_id])
        return format_html(
            '<a class="text-link" href="{}?case={}">{}</a>', address, case.pk, _("Request a refund")
        )

    @button(gettext_lazy("Answer"), icon="reply")
    def answer(self, request: HttpRequest, object_id: str) -> HttpResponse:
        case: Case = self.record(request, object_id)
        form = AnswerForm(posted(request))
        return self._say(
            request,
            case,
            form,
            title=_("Answer in case %(case)s") % {"case": case},
            done=_("Answered in case %(case)s.") % {"case": case},
            button=_("Send the answer"),
            verb=lambda: write(
                case_id=case.pk,
                author_id=staff_id(request),
                side=Side.PLATFORM,
                body=form.cleaned_data["body"],
                now=timezone.now(),
            ),
        )

    @button(gettext_lazy("Close"), icon="task_alt")
    def close(self, request: HttpRequest, object_id: str) -> HttpResponse:
        case: Case = self.record(request, object_id)
        form = CloseCaseForm(posted(request))
        return self._say(
            request,
            case,
            form,
            title=_("Close case %(case)s") % {"case": case},
            done=_("Closed case %(case)s.") % {"case": case},
            button=_("Close the case"),
            verb=lambda: close_case(
                case_id=case.pk,
                author_id=staff_id(request),
                side=Side.PLATFORM,
                outcome=Outcome(form.cleaned_data["outcome"]),
                body=form.cleaned_data["body"],
                now=timezone.now(),
            ),
        )

    def _say(
        self,
        request: HttpRequest,
        case: Case,
        form: Form,
        *,
        title: str,
        done: str,
        button: str,
        verb: Callable[[], Case | CaseMessage],
    ) -> HttpResponse:
        if form.is_valid():
            try:
                verb()
            except CaseRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, case, done)
                messages.success(request, done)
                return redirect(self.page_of(case))
        last = case.messages.order_by("-pk")[0]
        intro = _(
            "Order %(order)s, %(customer)s, who reads %(language)s: %(subject)s\n\n"
            "Written last, by the %(side)s:\n%(words)s"
        ) % {
            "order": case.order,
            "customer": case.order.customer,
            "language": case.order.customer.get_language_display(),
            "subject": case.subject,
            "side": last.get_side_display(),
            "words": last.body,
        }
        return self.ask(request, title=title, intro=intro, form=form, button=button, record=case)


@admin.register(CaseMessage)
class CaseMessageAdmin(RecordAdmin):
    list_display = ("case", "side", "author", "written_at", "chain_number")
    list_filter = ("side",)
    list_select_related = ("case", "author")
    search_fields = ("case__reference__istartswith",)
    ordering = ("-id",)
    fields = (
        "case",
        "side",
        "author",
        "words",
        "written_at",
        "chain_number",
        "previous_sha256",
        "chain_sha256",
    )

    @column(gettext_lazy("message"))
    def words(self, message: CaseMessage) -> SafeString:
        return _as_written(message)


def _as_written(message: CaseMessage) -> SafeString:
    return format_html('<div class="desk-text">{}</div>', message.body)
