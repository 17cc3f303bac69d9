"""Money: attempts, webhooks, the ledger, and what did not fit and waits for a person."""

from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import Http404, HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.urls import URLPattern, path
from django.utils import timezone
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy

from evidence.admin import RecordAdmin, button, choice_column, column, posted, staff_id
from inventory.money import Money
from orders.admin.forms import GOODWILL, UNITS, ExternalRefundForm, GiveBackForm, ResolveForm
from orders.admin.orders import ATTEMPT_COLOURS, LedgerInline, phones_in_use
from orders.admin.redaction import body_shown, headers_shown
from orders.methods import overview
from orders.models import (
    EntryKind,
    Ground,
    LedgerEntry,
    Order,
    PaymentAttempt,
    RefundState,
    ReturnReason,
    ReviewItem,
    ReviewKind,
    WebhookEvent,
)
from orders.refunds import RefundRefused, request_refund, settle_failed_refund
from orders.returns import CannotReturn, free_to_return, give_back
from orders.reviews import AlreadyResolved, resolve_review_item


@admin.register(PaymentAttempt)
class PaymentAttemptAdmin(RecordAdmin):
    list_display = (
        "reference",
        "order",
        "method",
        "gateway",
        "amount_paid",
        "state_label",
        "created_at",
        "problem",
    )
    list_filter = ("state", "method", "gateway", "currency")
    list_select_related = ("order",)
    search_fields = ("reference__startswith", "provider_id__exact")
    search_help_text = gettext_lazy("Our reference, or the gateway's id")
    date_hierarchy = "created_at"
    ordering = ("-id",)
    inlines = (LedgerInline,)
    actions_detail = ("give_money_back",)
    state_label = choice_column("state", gettext_lazy("state"), ATTEMPT_COLOURS)
    # The address of the payment's page is the buyer's: it opens without asking who comes.
    fields = (
        "order",
        "reference",
        "method",
        "gateway",
        "provider_id",
        "amount_paid",
        "state_label",
        "instructions",
        "progress",
        "problem",
        "created_at",
        "expires_at",
        "confirming_since",
        "next_poll_at",
        "polls",
    )

    def get_urls(self) -> list[URLPattern]:
        urls: list[URLPattern] = super().get_urls()
        view = self.admin_site.admin_view(self.show_methods)
        return [path("methods/", view, name="orders_paymentattempt_methods"), *urls]

    def show_methods(self, request: HttpRequest) -> HttpResponse:
        """By which gateway each method is on offer in each currency, or why it is not."""
        if not self.has_view_permission(request):
            raise PermissionDenied
        return self.show(
            request,
            title=_("Payment methods"),
            record=None,
            template="admin/orders/paymentattempt/methods.html",
            overview=overview(),
            currencies=settings.SHOP_CURRENCIES,
            may_review=request.user.has_perm("orders.view_reviewitem"),
        )

    def has_act_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("orders.add_moneyreturn")

    def offers(self, record: PaymentAttempt, button: str) -> bool:
        return bool(_free_money(record))

    @column(gettext_lazy("amount"), ordering="amount_minor")
    def amount_paid(self, attempt: PaymentAttempt) -> str:
        return attempt.amount.localised()

    @button(gettext_lazy("Give money back"), icon="currency_exchange")
    def give_money_back(self, request: HttpRequest, object_id: str) -> HttpResponse:
        attempt: PaymentAttempt = self.record(request, object_id)
        free = _free_money(attempt)
        if free is None:
            messages.error(request, _("All money of this payment belongs to the order."))
            return redirect(self.page_of(attempt))
        form = GiveBackForm(posted(request), free=free)
        if form.is_valid():
            try:
                back = give_back(
                    attempt_id=attempt.pk,
                    amount=form.cleaned_data["amount"],
                    reason=ReturnReason(form.cleaned_data["reason"]),
                    decided_by_id=staff_id(request),
                    now=timezone.now(),
                )
            except CannotReturn as no:
                form.add_error(None, str(no))
            else:
                done = _("%(reference)s is on its way, and the buyer is told.") % {"reference": back}
                self.log_change(request, attempt, done)
                messages.success(request, done)
                return redirect("admin:orders_moneyreturn_change", back.pk)
        return self.ask(
            request,
            title=_("Give money of payment %(attempt)s back?") % {"attempt": attempt},
            intro=_(
                "Only what belongs to no sale: more than the order costs, too little for it, or another currency. "
                "A sale is refunded on the order's page."
            ),
            form=form,
            button=_("Give it back"),
            record=attempt,
        )


def _free_money(attempt: PaymentAttempt) -> Money | None:
    """What can be given back of a payment, in one of the currencies it came in; None if nothing can."""
    currencies = sorted(set(attempt.ledger.values_list("currency", flat=True)))
    free = (free_to_return(attempt.order, attempt, currency=currency) for currency in currencies)
    return next((money for money in free if money.minor), None)


@admin.register(WebhookEvent)
class WebhookEventAdmin(RecordAdmin):
    list_display = ("dedupe_key", "gateway", "attempt_reference", "received_at", "processed_at", "emptied_at")
    list_filter = ("gateway", ("processed_at", admin.EmptyFieldListFilter))
    search_fields = ("dedupe_key__startswith", "attempt_reference__startswith")
    date_hierarchy = "received_at"
    ordering = ("-id",)
    fields = (
        "gateway",
        "dedupe_key",
        "attempt_reference",
        "received_at",
        "next_try_at",
        "processed_at",
        "body_sha256",
        "emptied_at",
        "headers_without_secrets",
        "body_without_buyer",
    )

    @column(gettext_lazy("headers, without signatures"))
    def headers_without_secrets(self, event: WebhookEvent) -> SafeString | str:
        return _as_text(headers_shown(event.headers))

    @column(gettext_lazy("body, without what names the buyer"))
    def body_without_buyer(self, event: WebhookEvent) -> SafeString | str:
        return _as_text(body_shown(bytes(event.body)) if event.emptied_at is None else "")


def _as_text(text: str) -> SafeString | str:
    return format_html('<pre class="desk-text">{}</pre>', text) if text else "–"


@admin.register(LedgerEntry)
class LedgerEntryAdmin(RecordAdmin):
    list_display = (
        "transaction_id",
        "kind_label",
        "amount",
        "order",
        "gateway",
        "occurred_at",
        "recorded_at",
        "refundable_until",
    )
    list_filter = ("kind", "gateway", "currency")
    list_select_related = ("order",)
    search_fields = ("transaction_id__exact", "order__reference__startswith")
    search_help_text = gettext_lazy("The gateway's transaction, or the order's reference")
    date_hierarchy = "occurred_at"
    ordering = ("-occurred_at", "-id")
    kind_label = choice_column(
        "kind",
        gettext_lazy("kind"),
        {EntryKind.CAPTURE: "success", EntryKind.REFUND: "warning", EntryKind.CHARGEBACK: "danger"},
    )

    @column(gettext_lazy("amount"), ordering="minor")
    def amount(self, entry: LedgerEntry) -> str:
        return entry.money.localised()


@admin.register(ReviewItem)
class ReviewItemAdmin(RecordAdmin):
    list_display = ("kind", "order", "detail", "opened_at", "resolved_at", "resolved_by")
    list_filter = (("resolved_at", admin.EmptyFieldListFilter), "kind")
    list_select_related = ("order", "resolved_by")
    search_fields = ("order__reference__startswith", "detail")
    date_hierarchy = "opened_at"
    ordering = ("-id",)
    actions_detail = ("say_what_for", "resolve")

    def offers(self, record: ReviewItem, button: str) -> bool:
        is_external = record.kind == ReviewKind.EXTERNAL_REFUND and record.entry_id is not None
        return record.resolved_at is None and (button == "say_what_for") == is_external

    @button(gettext_lazy("Say what it was for"), icon="undo")
    def say_what_for(self, request: HttpRequest, object_id: str) -> HttpResponse:
        """A refund at the gateway's own desk: the units it was for leave the queue, and no money moves again."""
        item: ReviewItem = self.record(request, object_id)
        order, entry = item.order, item.entry
        if order is None or entry is None:
            raise Http404
        form = ExternalRefundForm(
            posted(request),
            right=order.right,
            lines=order.lines.in_queue().select_related("plan", "term"),
            phones=phones_in_use(order),
            failed=order.refunds.filter(state=RefundState.FAILED, minor=-entry.minor, entry=None),
        )
        if form.is_valid():
            try:
                done = self._settle(request, item, order, entry, form)
            except (RefundRefused, AlreadyResolved) as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, item, done)
                messages.success(request, done)
                return redirect(self.page_of(item))
        return self.ask(
            request,
            title=_("What was this refund for?"),
            intro=_("Order %(order)s: %(detail)s") % {"order": order, "detail": item.detail},
            form=form,
            button=_("Save"),
            record=item,
        )

    def _settle(
        self,
        request: HttpRequest,
        item: ReviewItem,
        order: Order,
        entry: LedgerEntry,
        form: ExternalRefundForm,
    ) -> str:
        """Do what the form says, and say what was done."""
        now, purpose = timezone.now(), form.cleaned_data["purpose"]
        if purpose == GOODWILL:
            note = _("Goodwill, for no unit: %(note)s") % {"note": form.cleaned_data["explanation"]}
            resolve_review_item(item_id=item.pk, resolution=note, resolved_by_id=staff_id(request), now=now)
            return _("The item is resolved: it was goodwill, and every unit keeps its place.")
        if purpose != UNITS:
            settled = settle_failed_refund(
                refund_id=int(purpose), entry_id=entry.pk, settled_by_id=staff_id(request), now=now
            )
            return _("Refund %(refund)s is paid by it.") % {"refund": settled}
        refund = request_refund(
            order_id=order.pk,
            ground=Ground(form.cleaned_data["ground"]),
            legal_basis=form.legal_basis(),
            right_id=form.right_id(),
            explanation=form.cleaned_data["explanation"],
            units=form.units(),
            phones=form.phone_ids(),
            entry_id=entry.pk,
            requested_by_id=staff_id(request),
            now=now,
        )
        return _("Refund %(refund)s waits for a second member of staff.") % {"refund": refund}

    @button(gettext_lazy("Resolve"), icon="task_alt")
    def resolve(self, request: HttpRequest, object_id: str) -> HttpResponse:
        item: ReviewItem = self.record(request, object_id)
        form = ResolveForm(posted(request))
        if form.is_valid():
            try:
                resolve_review_item(
                    item_id=item.pk,
                    resolution=form.cleaned_data["resolution"],
                    resolved_by_id=staff_id(request),
                    now=timezone.now(),
                )
            except AlreadyResolved as resolved:
                form.add_error(None, str(resolved))
            else:
                self.log_change(request, item, _("Resolved."))
                messages.success(request, _("The item is resolved."))
                return redirect(self.page_of(item))
        return self.ask(
            request,
            title=_("Resolve: %(kind)s") % {"kind": item.get_kind_display()},
            intro=item.detail,
            form=form,
            button=_("Resolve"),
            record=item,
        )
