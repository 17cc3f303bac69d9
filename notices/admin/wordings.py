"""Staff's own words for a kind of notice: written, looked at with samples, and taken back."""

from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone, translation
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import UnfoldAdminSelectWidget, UnfoldAdminTextareaWidget, UnfoldAdminTextInputWidget

from evidence.admin import RecordAdmin, posted
from notices.admin.announcing import seal_of_fields
from notices.admin.records import staff
from notices.kinds import KINDS, Form
from notices.models import Wording
from notices.samples import FACTS
from notices.wordings import NotSafe, change, check


class WordingForm(forms.Form):
    kind = forms.ChoiceField(
        label=gettext_lazy("Kind"),
        choices=[(slug, kind.label) for slug, kind in KINDS.items() if slug in FACTS],
        widget=UnfoldAdminSelectWidget,
    )
    language = forms.ChoiceField(
        label=gettext_lazy("Language"), choices=settings.LANGUAGES, widget=UnfoldAdminSelectWidget
    )
    form = forms.ChoiceField(
        label=gettext_lazy("Form"),
        choices=[(form.value, form.label) for form in Form],
        widget=UnfoldAdminSelectWidget,
    )
    subject = forms.CharField(
        label=gettext_lazy("Subject"), max_length=500, required=False, widget=UnfoldAdminTextInputWidget
    )
    body = forms.CharField(
        label=gettext_lazy("Text"),
        required=False,
        help_text=gettext_lazy(
            "Facts are named in double braces: {{ reference }}, {{ total|money }}, {{ likely|day }}. "
            "Leave subject and text empty to go back to the shipped words."
        ),
        widget=UnfoldAdminTextareaWidget,
    )
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def seal(self) -> str:
        """Of all that was filled in: what is used is what the preview has shown."""
        return seal_of_fields(self.cleaned_data)


@admin.register(Wording)
class WordingAdmin(RecordAdmin):
    list_display = ("kind", "language", "form", "subject", "written_by", "written_at")
    list_filter = ("kind", "language", "form")
    list_select_related = ("written_by",)
    ordering = ("-id",)

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("notices.add_wording")

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = WordingForm(posted(request))
        preview: list[tuple[str, dict[str, str]]] = []
        if form.is_valid():
            said = form.cleaned_data
            try:
                if said["body"].strip():
                    with translation.override(said["language"]):
                        samples = check(kind=said["kind"], subject=said["subject"], body=said["body"])
                    preview = [
                        (said["language"], {"title": subject, "body": body}) for subject, body in samples
                    ]
                if said["seen"] == form.seal() or not preview:
                    wording = change(
                        kind=said["kind"],
                        language=said["language"],
                        form=Form(said["form"]),
                        subject=said["subject"],
                        body=said["body"],
                        by=staff(request),
                        now=timezone.now(),
                    )
                    self.log_addition(request, wording, [{"added": {}}])
                    messages.success(request, _("Notices are written so from now on."))
                    return redirect(self.page_of(wording))
            except NotSafe as refused:
                form.add_error(None, str(refused))
            else:
                form = WordingForm({**{name: form.data.get(name) for name in form.data}, "seen": form.seal()})
        return self.ask(
            request,
            title=_("Other words for a notice"),
            form=form,
            button=_("Use these words") if preview else _("Preview"),
            template="admin/notices/compose.html",
            preview=preview,
        )
