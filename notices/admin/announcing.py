"""Announcements on the site, and staff's own words in three languages."""

import hashlib
import json
from collections.abc import Mapping
from typing import Any

from django import forms
from django.conf import settings
from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone
from django.utils.html import format_html_join
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.widgets import (
    UnfoldAdminIntegerFieldWidget,
    UnfoldAdminSelectWidget,
    UnfoldAdminTextareaWidget,
    UnfoldAdminTextInputWidget,
)

from evidence.admin import RecordAdmin, button, column, posted
from notices.admin.records import staff
from notices.announcements import TITLE_LIMIT, withdraw
from notices.broadcasts import submit
from notices.kinds import KINDS
from notices.models import Announcement, BroadcastRecipient


class WordsForm(forms.Form):
    """A kind that staff write themselves, and its title and text in every language. Sent once to see, then to do it."""

    kind = forms.ChoiceField(
        label=gettext_lazy("Kind"),
        # None is chosen beforehand: nobody shall be told by a slip that his service is suspended.
        choices=[("", "---------"), *((kind.slug, kind.label) for kind in KINDS.values() if kind.composed)],
        widget=UnfoldAdminSelectWidget,
    )
    # The seal of what was shown in the preview.
    seen = forms.CharField(required=False, widget=forms.HiddenInput)

    def __init__(self, *args: Any, **kwargs: Any) -> None:
        super().__init__(*args, **kwargs)
        for language, name in settings.LANGUAGES:
            self.fields[f"title_{language}"] = forms.CharField(
                label=_("Title: %(language)s") % {"language": name},
                max_length=TITLE_LIMIT,
                widget=UnfoldAdminTextInputWidget({"lang": language}),
            )
            self.fields[f"body_{language}"] = forms.CharField(
                label=_("Text: %(language)s") % {"language": name},
                help_text=_("An empty line begins a new paragraph."),
                widget=UnfoldAdminTextareaWidget({"lang": language}),
            )

    def texts(self) -> dict[str, dict[str, str]]:
        """What was written, by language."""
        return {
            language: {part: self.cleaned_data[f"{part}_{language}"] for part in ("title", "body")}
            for language, _name in settings.LANGUAGES
        }

    def seal(self) -> str:
        """Of all that was filled in: what is published is what the preview has shown."""
        return seal_of_fields(self.cleaned_data)

    def is_confirmed(self) -> bool:
        """Whether just this was shown in the preview before."""
        return bool(self.cleaned_data["seen"] == self.seal())

    def to_confirm(self) -> "WordsForm":
        """The same form, to be sent once more."""
        again = type(self)({**{name: self.data.get(name) for name in self.data}, "seen": self.seal()})
        again.is_valid()
        return again

    def preview(self) -> list[tuple[str, Mapping[str, str]]]:
        return list(self.texts().items())


def seal_of_fields(said: Mapping[str, Any]) -> str:
    """The sha256 of what a form says, but for the field that keeps it."""
    plain = {name: str(value) for name, value in said.items() if name != "seen"}
    return hashlib.sha256(json.dumps(plain, sort_keys=True).encode()).hexdigest()


def words_in_every_language(texts: Mapping[str, Mapping[str, str]]) -> SafeString:
    """What staff have written, as it is read."""
    return format_html_join(
        "",
        '<div class="desk-text mb-4" lang="{}"><strong>{}</strong>\n\n{}</div>',
        ((language, said["title"], said["body"]) for language, said in texts.items()),
    )


def banner_days_field() -> forms.IntegerField:
    return forms.IntegerField(
        label=gettext_lazy("Days at the top of every page"),
        help_text=gettext_lazy("Of what is on the site; 0: on the page of the announcements only."),
        required=False,
        min_value=0,
        max_value=60,
        initial=3,
        widget=UnfoldAdminIntegerFieldWidget,
    )


class AnnounceForm(WordsForm):
    banner_days = banner_days_field()


@admin.register(Announcement)
class AnnouncementAdmin(RecordAdmin):
    list_display = (
        "title",
        "kind",
        "published_at",
        "published_by",
        "approved_by",
        "banner_until",
        "withdrawn_at",
    )
    list_display_links = ("title",)
    list_select_related = ("published_by", "approved_by")
    list_filter = ("kind",)
    ordering = ("-id",)
    actions_detail = ("take_down",)
    fields = (
        "kind",
        "words",
        "url",
        "published_at",
        "published_by",
        "approved_by",
        "banner_until",
        "withdrawn_at",
        "sha256",
        "dedupe_key",
    )

    def has_add_permission(self, request: HttpRequest, obj: Any = None) -> bool:
        return request.user.has_perm("notices.add_announcement")

    def offers(self, record: Announcement, button: str) -> bool:
        return record.withdrawn_at is None

    @column(gettext_lazy("title"))
    def title(self, announcement: Announcement) -> str:
        return announcement.words["title"]

    @column(gettext_lazy("texts"))
    def words(self, announcement: Announcement) -> SafeString:
        return words_in_every_language(announcement.texts)

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = AnnounceForm(posted(request))
        if form.is_valid() and form.is_confirmed():
            broadcast = submit(
                kind=KINDS[form.cleaned_data["kind"]],
                segment=None,
                texts=form.texts(),
                is_announced=True,
                banner_days=form.cleaned_data["banner_days"] or 0,
                by_id=staff(request).pk,
                now=timezone.now(),
            )
            self.log_addition(request, broadcast, [{"added": {}}])
            messages.success(request, _("It waits for another person's word."))
            return redirect("admin:notices_broadcast_change", broadcast.pk)
        return self.ask(
            request,
            title=_("Announce on the site"),
            intro=_(
                "Everybody reads it, so somebody else has to approve it. What is published is kept for good; it can be "
                "taken down, not changed."
            ),
            form=form.to_confirm() if form.is_valid() else form,
            button=_("Submit") if form.is_valid() else _("Preview"),
            template="admin/notices/compose.html",
            preview=form.preview() if form.is_valid() else [],
            is_announced=True,
            needs_approval=True,
        )

    @button(gettext_lazy("Take down"), icon="visibility_off", is_danger=True)
    def take_down(self, request: HttpRequest, object_id: str) -> HttpResponse:
        announcement: Announcement = self.record(request, object_id)
        form = forms.Form(posted(request))
        if form.is_valid():
            withdraw(announcement_id=announcement.pk, now=timezone.now())
            messages.success(request, _("It is off the site, and stays on record."))
            return redirect(self.page_of(announcement))
        return self.ask(
            request,
            title=_("Take it down?"),
            intro=announcement.words["title"],
            form=form,
            button=_("Take down"),
            record=announcement,
        )


@admin.register(BroadcastRecipient)
class BroadcastRecipientAdmin(RecordAdmin):
    list_display = ("broadcast", "customer")
    list_select_related = ("broadcast", "customer")
    search_fields = ("customer__email__startswith",)
    search_help_text = gettext_lazy("The customer's email address")
    ordering = ("id",)
