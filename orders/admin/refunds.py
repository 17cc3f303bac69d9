"""Refunds: one member of staff asks (on the order's page), another decides here. What a gateway refuses is sent again
from here, or paid by hand.
"""

from collections.abc import Callable

from django.contrib import admin, messages
from django.db.models import QuerySet
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy, ngettext

from evidence.admin import RecordAdmin, RecordInline, button, choice_column, column, posted, staff_id
from evidence.contract_time import contract_date
from orders.admin.forms import PayoutForm
from orders.admin.orders import REFUND_COLOURS, RETURN_COLOURS
from orders.models import MoneyReturn, Payout, Refund, RefundLine, RefundState, ReturnState
from orders.refunds import RefundRefused, approve_refund, reject_refund
from orders.returns import (
    CannotReturn,
    confirm_payout,
    money_of,
    record_payout,
    reject_payout,
    try_again,
)


@column(gettext_lazy("claim"))
def claim_column(_desk: object, due: Refund | MoneyReturn) -> str:
    """That the customer has to take it up, and not where: whoever has the address can."""
    return _("waits for the customer, who finds the link on the order's page") if due.claim_url else "–"


class RefundLineInline(RecordInline):
    model = RefundLine
    fields = ("plan", "units", "phone")
    ordering = ("id",)
    opens = False

    def get_queryset(self, request: HttpRequest) -> QuerySet[RefundLine]:
        lines: QuerySet[RefundLine] = super().get_queryset(request)
        return lines.select_related("line__plan", "allocation__device")

    @column(gettext_lazy("phone"))
    def phone(self, taken: RefundLine) -> str:
        return str(taken.allocation.device) if taken.allocation else _("waits")

    @column(gettext_lazy("plan"))
    def plan(self, taken: RefundLine) -> str:
        return str(taken.line.plan)


class PayoutInline(RecordInline):
    model = Payout
    fields = ("means", "reference", "paid_on", "recorded_by", "decided_by", "is_confirmed")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Payout]:
        payouts: QuerySet[Payout] = super().get_queryset(request)
        return payouts.select_related("recorded_by", "decided_by")


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
    inlines = (RefundLineInline, PayoutInline)
    actions_detail = ("approve", "reject", "send_again", "pay_by_hand")
    state_label = choice_column("state", gettext_lazy("state"), REFUND_COLOURS)
    fields = (
        "reference",
        "order",
        "case",
        "attempt",
        "entry",
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
        "claim",
        "problem",
    )
    claim = claim_column

    def offers(self, record: Refund, button: str) -> bool:
        if button in ("send_again", "pay_by_hand"):
            return can_be_sent(record)
        return record.state == RefundState.REQUESTED

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
            done=(
                _("Refund %(refund)s is approved: its units are taken back, and its money has gone already.")
                if refund.entry_id
                else _("Refund %(refund)s is approved: its units are taken back, the money is on its way.")
            )
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
            done=_("Refund %(refund)s is rejected: its units stay as they are.") % {"refund": refund},
            verb=lambda: reject_refund(
                refund_id=refund.pk, rejected_by_id=staff_id(request), now=timezone.now()
            ),
        )

    @button(gettext_lazy("Send again"), icon="replay")
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return ask_to_send_again(self, request, self.record(request, object_id))

    @button(gettext_lazy("Paid by hand"), icon="payments")
    def pay_by_hand(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return ask_how_it_was_paid(self, request, self.record(request, object_id))

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
        taken = list(refund.lines.all())
        units, phones = sum(each.units for each in taken), sum(bool(each.allocation_id) for each in taken)
        notes = [refund.explanation]
        if phones:
            notes.append(
                ngettext(
                    "The service of %(phones)d phone ends, and its device goes into quarantine.",
                    "The service of %(phones)d phones ends, and their devices go into quarantine.",
                    phones,
                )
                % {"phones": phones}
            )
        if refund.entry_id:
            notes.append(_("The gateway's own desk has given the money back already. None moves any more."))
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
                "explanation": "\n".join(notes),
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
            "The gateway refused it: %(problem)s\nIt is asked again by a new key, once it is sure that the money is still there."
        )
        % {"problem": due.problem},
        form=form,
        button=_("Send again"),
        record=due,
    )


def ask_how_it_was_paid(desk: RecordAdmin, request: HttpRequest, due: Refund | MoneyReturn) -> HttpResponse:
    """The page behind "Paid by hand", of refunds and of returned money alike."""
    now = timezone.now()
    form = PayoutForm(posted(request), initial={"paid_on": contract_date(now)})
    if form.is_valid():
        try:
            payout = record_payout(due=due, recorded_by_id=staff_id(request), now=now, **form.cleaned_data)
        except CannotReturn as no:
            form.add_error(None, str(no))
        else:
            done = _("The payout waits for a second member of staff, who confirms it.")
            desk.log_change(request, due, done)
            messages.success(request, done)
            return redirect("admin:orders_payout_change", payout.pk)
    return desk.ask(
        request,
        title=_("How was %(reference)s paid?") % {"reference": due},
        intro=_(
            "The gateway refused it: %(problem)s\nSend %(amount)s to the customer by other means first, then record "
            "here how. Nothing is booked before a second person has confirmed it."
        )
        % {"problem": due.problem, "amount": money_of(due, due.order).localised()},
        form=form,
        button=_("Record the payout"),
        record=due,
    )


def can_be_sent(due: Refund | MoneyReturn) -> bool:
    """Whether a return that failed can be sent again, or by hand: nobody has recorded that he did."""
    failed = due.state in (RefundState.FAILED, ReturnState.FAILED)
    return failed and not due.payouts.filter(is_confirmed=None).exists()


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
    inlines = (PayoutInline,)
    actions_detail = ("send_again", "pay_by_hand")
    state_label = choice_column("state", gettext_lazy("state"), RETURN_COLOURS)
    fields = (
        "reference",
        "order",
        "attempt",
        "reason",
        "amount",
        "state_label",
        "due_at",
        "decided_by",
        "tries",
        "next_try_at",
        "paid_at",
        "claim",
        "problem",
    )
    claim = claim_column

    def offers(self, record: MoneyReturn, button: str) -> bool:
        return can_be_sent(record)

    @column(gettext_lazy("amount"), ordering="minor")
    def amount(self, back: MoneyReturn) -> str:
        return back.money.localised()

    @button(gettext_lazy("Send again"), icon="replay")
    def send_again(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return ask_to_send_again(self, request, self.record(request, object_id))

    @button(gettext_lazy("Paid by hand"), icon="payments")
    def pay_by_hand(self, request: HttpRequest, object_id: str) -> HttpResponse:
        return ask_how_it_was_paid(self, request, self.record(request, object_id))


@admin.register(Payout)
class PayoutAdmin(RecordAdmin):
    """Money that one member of staff says he has sent by hand; another confirms it here."""

    list_display = (
        "reference",
        "means",
        "paid_for",
        "amount",
        "paid_on",
        "recorded_by",
        "decided_by",
        "is_confirmed",
    )
    list_filter = (("is_confirmed", admin.EmptyFieldListFilter), "is_confirmed")
    list_select_related = ("refund__order", "money_return", "recorded_by", "decided_by")
    search_fields = ("reference", "refund__reference__startswith", "money_return__reference__startswith")
    date_hierarchy = "paid_on"
    ordering = ("-id",)
    actions_detail = ("confirm", "reject")

    def offers(self, record: Payout, button: str) -> bool:
        return record.is_confirmed is None

    @column(gettext_lazy("for"))
    def paid_for(self, payout: Payout) -> str:
        return str(payout.due)

    @column(gettext_lazy("amount"))
    def amount(self, payout: Payout) -> str:
        return money_of(payout.due, payout.due.order).localised()

    @button(gettext_lazy("Confirm"), icon="check")
    def confirm(self, request: HttpRequest, object_id: str) -> HttpResponse:
        payout: Payout = self.record(request, object_id)
        return self._decide(
            request,
            payout,
            title=_("Confirm this payout?"),
            done=_("The payout is booked, and %(due)s is paid.") % {"due": payout.due},
            verb=lambda: confirm_payout(
                payout_id=payout.pk, confirmed_by_id=staff_id(request), now=timezone.now()
            ),
        )

    @button(gettext_lazy("Reject"), icon="close", is_danger=True)
    def reject(self, request: HttpRequest, object_id: str) -> HttpResponse:
        payout: Payout = self.record(request, object_id)
        return self._decide(
            request,
            payout,
            title=_("No such payout was made?"),
            done=_("The payout is rejected: %(due)s is still to be paid.") % {"due": payout.due},
            verb=lambda: reject_payout(
                payout_id=payout.pk, rejected_by_id=staff_id(request), now=timezone.now()
            ),
        )

    def _decide(
        self, request: HttpRequest, payout: Payout, *, title: str, done: str, verb: Callable[[], Payout]
    ) -> HttpResponse:
        form = Form(posted(request))
        if form.is_valid():
            try:
                verb()
            except CannotReturn as no:
                form.add_error(None, str(no))
            else:
                self.log_change(request, payout, done)
                messages.success(request, done)
                return redirect(self.page_of(payout))
        return self.ask(
            request,
            title=title,
            intro=_(
                "%(who)s says that %(amount)s were sent on %(day)s for %(due)s: %(means)s, %(reference)s.\n"
                "Look at the statement of the account first."
            )
            % {
                "who": payout.recorded_by,
                "amount": self.amount(payout),
                "day": date_format(payout.paid_on, "DATE_FORMAT"),
                "due": payout.due,
                "means": payout.means,
                "reference": payout.reference,
            },
            form=form,
            button=_("Confirm"),
            record=payout,
        )


@admin.register(RefundLine)
class RefundLineAdmin(RecordAdmin):
    list_display = ("refund", "line", "plan", "units", "allocation")
    list_filter = ("line__plan", "refund__state")
    list_select_related = ("refund", "line__plan", "allocation")
    search_fields = ("refund__reference__startswith",)
    ordering = ("-id",)

    @column(gettext_lazy("plan"))
    def plan(self, taken: RefundLine) -> str:
        return str(taken.line.plan)
