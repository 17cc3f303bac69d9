"""Guardians who were asked, and what they said: read only, the buyer asks and the guardian answers."""

from django.contrib import admin
from django.utils.translation import gettext_lazy

from evidence.admin import RecordAdmin, RecordInline, choice_column
from orders.models import GuardianAnswer, GuardianRequest

COLOURS: dict[str, str] = {GuardianAnswer.CONFIRMED: "success", GuardianAnswer.REFUSED: "danger"}


class GuardianInline(RecordInline):
    model = GuardianRequest
    tab = True
    fields = ("name", "email", "asked_at", "answer_label", "answered_at")
    answer_label = choice_column("answer", gettext_lazy("answer"), COLOURS)


@admin.register(GuardianRequest)
class GuardianRequestAdmin(RecordAdmin):
    list_display = ("order", "name", "email", "asked_at", "answer_label", "answered_at")
    list_filter = ("answer", "language")
    list_select_related = ("order",)
    search_fields = ("order__reference__startswith", "email__startswith", "name")
    date_hierarchy = "asked_at"
    ordering = ("-id",)
    answer_label = choice_column("answer", gettext_lazy("answer"), COLOURS)
