"""The agreements as they were published, and who accepted them. Nothing here is written by hand."""

from django.contrib import admin
from django.db.models import QuerySet
from django.http import HttpRequest
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext_lazy
from unfold.widgets import PROSE_CLASSES

from agreements.models import Acceptance, Role, Text, Version
from agreements.texts import render
from evidence.admin import RecordAdmin, RecordInline, choice_column, column


class TextInline(RecordInline):
    model = Text
    fields = ("language", "is_authoritative", "title", "sha256")
    ordering = ("-is_authoritative", "language")


@admin.register(Version)
class VersionAdmin(RecordAdmin):
    list_display = ("document", "number", "published_at", "effective_at")
    list_display_links = ("document", "number")
    list_filter = ("document",)
    date_hierarchy = "effective_at"
    ordering = ("document", "-number")
    inlines = (TextInline,)


@admin.register(Text)
class TextAdmin(RecordAdmin):
    list_display = ("title", "version", "language", "is_authoritative", "sha256")
    list_filter = ("version__document", "language", "is_authoritative")
    list_select_related = ("version",)
    search_fields = ("title", "sha256__startswith")
    ordering = ("version__document", "-version__number", "language")
    fields = ("version", "language", "is_authoritative", "title", "summary", "set_off", "sha256", "wording")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Text]:
        texts: QuerySet[Text] = super().get_queryset(request)
        # The wording is long, and a list shows none of it.
        return texts.defer("body", "matters_most", "summary")

    @column(gettext_lazy("important clauses"))
    def set_off(self, text: Text) -> str:
        return ", ".join(text.important)

    @column(gettext_lazy("text"))
    def wording(self, text: Text) -> SafeString:
        return format_html('<div class="desk-prose {}">{}</div>', " ".join(PROSE_CLASSES), render(text))


@admin.register(Acceptance)
class AcceptanceAdmin(RecordAdmin):
    list_display = ("order_reference", "person_email", "role_label", "subject", "text", "accepted_at")
    list_filter = ("text__version__document", "subject", "role", "text__language")
    list_select_related = ("text",)
    search_fields = ("order_reference__startswith", "person_email__startswith", "person_name")
    search_help_text = gettext_lazy("The order's reference, or the person's name or email address")
    date_hierarchy = "accepted_at"
    ordering = ("-accepted_at", "-id")
    role_label = choice_column("role", gettext_lazy("role"), {Role.GUARDIAN: "warning"})
    fields = (
        "order_reference",
        "customer",
        "text",
        "text_sha256",
        "subject",
        "role",
        "person_name",
        "person_email",
        "statement",
        "accepted_at",
        "ip_address",
        "user_agent",
    )
