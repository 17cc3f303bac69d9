"""Refunds: one member of staff asks (on the order's page), another decides here."""

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from evidence.admin import RecordAdmin, RecordInline, button, choice_column, column, posted, staff_id
from orders.admin.orders import REFUND_COLOURS, RETURN_COLOURS
from orders.models import MoneyReturn, Refund, RefundLine, RefundState, ReturnState
from orders.refunds import RefundRefused, approve_refund, reject_refund
from orders.returns import CannotReturn, try_again


class RefundLineInline(RecordInline):
    model = RefundLine
    fields = ("plan", "units")
    ordering = ("id",)
    opens = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RefundLine]:
        lines: QuerySet[RefundLine] = super().get_queryset(request).select_related("line__plan")
        return lines

    @column(gettext_lazy("plan"))
    def plan(self, taken: RefundLine) -> str:
        return str(taken.line.plan)


@admin.register(Refund)
class RefundAdmin(RecordAdmin):
    list_display = (
        "reference",
        "order",
        "ground",
        "amount_back",
        "state_label",
        "requested_by",
        "requested_at",
        "decided_by",
    )
    list_filter = ("state", "ground")
    list_select_related = ("order", "requested_by", "decided_by")
    search_fields = ("reference__startswith", "order__customer__email__startswith")
    date_hierarchy = "requested_at"
    ordering = ("-id",)
    inlines = (RefundLineInline,)
    actions_detail = ("approve", "reject", "send_again")
    state_label = choice_column("state", gettext_lazy("state"), REFUND_COLOURS)
    fields = (
        "reference",
        "order",
        "attempt",
        "ground",
        "legal_basis",
        "explanation",
        "amount_back",
        "state_label",
        "requested_by",
        "requested_at",
        "decided_by",
        "decided_at",
        "paid_at",
        "problem",
    )

    def offers(self, record: Refund, button: str) -> bool:
        return record.state == (RefundState.FAILED if button == "send_again" else RefundState.REQUESTED)

    @column(gettext_lazy("amount"), ordering="minor")
    def amount_back(self, refund: Refund) -> str:
        return refund.amount.localised()

    @button(gettext_lazy("Approve"), icon="check")
    def approve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        refund: Refund = self.record(request, object_id)
        return self._decide(
            request,
            refund,
            title=_("Approve refund %(refund)s?") % {"refund": refund},
            done=_("Refund %(refund)s is approved: its units have left the queue, the money is on its way.")
            % {"refund": refund},
            verb=lambda: approve_refund(
                refund_id=refund.pk, approved_by_id=staff_id(request), now=timezone.now()
            ),
        )

    @button(gettext_lazy("Reject"), icon="close", is_danger=True)
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponse:
        refund: Refund = self.record(request, object_id)
        return self._decide(
            request,
            refund,
            title=_("Reject refund %(refund)s?") % {"refund": refund},
            done=_("Refund %(refund)s is rejected: its units stay in the queue.") % {"refund": refund},
            verb=lambda: reject_refund(
                refund_id=refund.pk, rejected_by_id=staff_id(request), now=timezone.now()
            ),
        )

    @button(gettext_lazy("Send again"), icon="replay")
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return ask_to_send_again(self, request, self.record(request, object_id))

    def _decide(
        self, request: HttpRequest, refund: Refund, *, title: str, done: str, verb: Callable[[], Refund]
    ) -> HttpResponse:
        form = Form(posted(request))
        if form.is_valid():
            try:
                verb()
            except RefundRefused as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, refund, done)
                messages.success(request, done)
                return redirect(self.page_of(refund))
        units = sum(taken.units for taken in refund.lines.all())
        return self.ask(
            request,
            title=title,
            intro=ngettext(
                "%(amount)s for %(units)d unit of order %(order)s.\nGround: %(ground)s. %(law)s\n%(explanation)s",
                "%(amount)s for %(units)d units of order %(order)s.\nGround: %(ground)s. %(law)s\n%(explanation)s",
                units,
            )
            % {
                "amount": refund.amount.localised(),
                "units": units,
                "order": refund.order,
                "ground": refund.get_ground_display(),
                "law": refund.legal_basis,
                "explanation": refund.explanation,
            },
            form=form,
            button=_("Confirm"),
            record=refund,
        )


def ask_to_send_again(desk: RecordAdmin, request: HttpRequest, due: Refund | MoneyReturn) -> HttpResponse:
    """The page behind "Send again", of refunds and of returned money alike."""
    form = Form(posted(request))
    if form.is_valid():
        try:
            try_again(due)
        except CannotReturn as no:
            form.add_error(None, str(no))
        else:
            done = _("%(reference)s is sent again.") % {"reference": due}
            desk.log_change(request, due, done)
            messages.success(request, done)
            return redirect(desk.page_of(due))
    return desk.ask(
        request,
        title=_("Send %(reference)s again?") % {"reference": due},
        intro=_(
            "The gateway refused it: %(problem)s\nIt is asked again by the same key, so it cannot pay twice."
        )
        % {"problem": due.problem},
        form=form,
        button=_("Send again"),
        record=due,
    )


@admin.register(MoneyReturn)
class MoneyReturnAdmin(RecordAdmin):
    list_display = (
        "reference",
        "order",
        "reason",
        "amount",
        "state_label",
        "due_at",
        "paid_at",
        "decided_by",
    )
    list_filter = ("state", "reason", "currency")
    list_select_related = ("order", "decided_by")
    search_fields = ("reference__startswith",)
    date_hierarchy = "due_at"
    ordering = ("-id",)
    actions_detail = ("send_again",)
    state_label = choice_column("state", gettext_lazy("state"), RETURN_COLOURS)

    def offers(self, record: MoneyReturn, button: str) -> bool:
        return record.state == ReturnState.FAILED

    @column(gettext_lazy("amount"), ordering="minor")
    def amount(self, back: MoneyReturn) -> str:
        return back.money.localised()

    @button(gettext_lazy("Send again"), icon="replay")
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return ask_to_send_again(self, request, self.record(request, object_id))


@admin.register(RefundLine)
class RefundLineAdmin(RecordAdmin):
    list_display = ("refund", "line", "plan", "units")
    list_filter = ("line__plan", "refund__state")
    list_select_related = ("refund", "line__plan")
    search_fields = ("refund__reference__startswith",)
    ordering = ("-id",)

    @column(gettext_lazy("plan"))
    def plan(self, taken: RefundLine) -> str:
        return str(taken.line.plan)
