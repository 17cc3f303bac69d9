"""Letters: printed in batches, posted, and sometimes returned."""

from django import forms
from django.contrib import admin, messages
from django.db.models import Count, QuerySet
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminDateWidget, UnfoldAdminTextInputWidget

from evidence.admin import RecordAdmin, RecordInline, button, column, posted, staff_id
from evidence.contract_time import contract_date
from notices.letters import NothingToPrint, NotPosted, mark_posted, mark_returned, print_batch
from notices.models import Delivery, DeliveryState, Letter, LetterBatch


class PostedForm(forms.Form):
    posted_on = forms.DateField(label=gettext_lazy("Posted on"), widget=UnfoldAdminDateWidget)
    receipt = forms.CharField(
        label=gettext_lazy("Receipt of the post"),
        max_length=100,
        required=False,
        widget=UnfoldAdminTextInputWidget,
    )


class ReturnedForm(forms.Form):
    reason = forms.CharField(
        label=gettext_lazy("What the post says"), max_length=200, widget=UnfoldAdminTextInputWidget
    )


class LetterInline(RecordInline):
    model = Letter
    fields = ("delivery", "attempt")


@admin.register(LetterBatch)
class LetterBatchAdmin(RecordAdmin):
    list_display = ("number", "printed_at", "printed_by", "count", "posted_on", "receipt")
    list_display_links = ("number",)
    list_select_related = ("printed_by",)
    ordering = ("-id",)
    fields = ("number", "printed_at", "printed_by", "count", "sha256", "posted_on", "posted_by", "receipt")
    inlines = (LetterInline,)
    actions_list = ("print_letters",)
    actions_detail = ("download", "say_posted")

    def offers(self, record: LetterBatch, button: str) -> bool:
        return button == "download" or record.posted_on is None

    @column(gettext_lazy("batch"), ordering="id")
    def number(self, batch: LetterBatch) -> str:
        return str(batch)

    def get_queryset(self, request: HttpRequest) -> QuerySet[LetterBatch]:
        batches: QuerySet[LetterBatch] = super().get_queryset(request)
        return batches.defer("pdf").annotate(sheets=Count("letters"))

    @column(gettext_lazy("letters"))
    def count(self, batch: LetterBatch) -> int:
        sheets: int = batch.sheets  # type: ignore[attr-defined]
        return sheets

    @button(gettext_lazy("Print what is due"), icon="print")
    def print_letters(self, request: HttpRequest) -> HttpResponse:
        form = forms.Form(posted(request))
        if form.is_valid():
            try:
                batch = print_batch(by_id=staff_id(request), now=timezone.now())
            except NothingToPrint as nothing:
                form.add_error(None, str(nothing))
            else:
                messages.success(
                    request,
                    _("Printed: %(batch)s. Download it, post it, and say so here.") % {"batch": batch},
                )
                return redirect(self.page_of(batch))
        due = Delivery.objects.filter(
            channel="letter", state=DeliveryState.QUEUED, due_at__lte=timezone.now()
        )
        return self.ask(
            request,
            title=_("Print letters"),
            intro=_("%(count)d letters are due.") % {"count": due.count()},
            form=form,
            button=_("Print"),
        )

    @button(gettext_lazy("Download the PDF"), icon="download", permission="view")
    def download(self, request: HttpRequest, object_id: str) -> HttpResponse:
        batch: LetterBatch = self.record(request, object_id)
        return HttpResponse(
            bytes(batch.pdf),
            content_type="application/pdf",
            headers={"Content-Disposition": f'attachment; filename="letters-{batch.pk}.pdf"'},
        )

    @button(gettext_lazy("Mark as posted"), icon="local_post_office")
    def say_posted(self, request: HttpRequest, object_id: str) -> HttpResponse:
        batch: LetterBatch = self.record(request, object_id)
        form = PostedForm(posted(request), initial={"posted_on": contract_date(timezone.now())})
        if form.is_valid():
            try:
                mark_posted(
                    batch_id=batch.pk,
                    posted_on=form.cleaned_data["posted_on"],
                    receipt=form.cleaned_data["receipt"],
                    by_id=staff_id(request),
                    now=timezone.now(),
                )
            except NotPosted as refused:
                form.add_error(None, str(refused))
            else:
                self.log_change(request, batch, _("Marked as posted."))
                messages.success(request, _("The letters count as sent on that day."))
                return redirect(self.page_of(batch))
        return self.ask(
            request,
            title=_("When was %(batch)s posted?") % {"batch": batch},
            intro=_("The day of posting is the sending date of these letters (VIII), a date of Hong Kong."),
            form=form,
            button=_("Mark as posted"),
            record=batch,
        )


@admin.register(Letter)
class LetterAdmin(RecordAdmin):
    list_display = ("id", "delivery", "batch")
    list_select_related = ("delivery", "batch")
    search_fields = ("delivery__address__startswith", "delivery__notice__about__startswith")
    search_help_text = gettext_lazy("The address, or the order's reference")
    ordering = ("-id",)
    actions_detail = ("say_returned",)

    def offers(self, record: Letter, button: str) -> bool:
        return record.delivery.state == DeliveryState.SENT

    @button(gettext_lazy("Came back"), icon="undo", is_danger=True)
    def say_returned(self, request: HttpRequest, object_id: str) -> HttpResponse:
        letter: Letter = self.record(request, object_id)
        form = ReturnedForm(posted(request))
        if form.is_valid():
            mark_returned(
                delivery_id=letter.delivery_id, reason=form.cleaned_data["reason"], now=timezone.now()
            )
            messages.success(request, _("Noted. No more letters go to that address."))
            return redirect(self.page_of(letter))
        return self.ask(
            request,
            title=_("A letter came back"),
            intro=str(letter.delivery),
            form=form,
            button=_("Note it"),
            record=letter,
        )
