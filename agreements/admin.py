"""The agreements: drafts are written here and published, questions answered, rulings recorded.

What was published or accepted is only read.
"""

from typing import Any

from django.contrib import admin, messages
from django.core.exceptions import PermissionDenied
from django.db.models import Model, OuterRef, QuerySet, Subquery
from django.forms import Form
from django.http import HttpRequest, HttpResponse
from django.shortcuts import redirect
from django.utils import timezone, translation
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.admin import StackedInline
from unfold.widgets import PROSE_CLASSES

from agreements.diff import difference
from agreements.drafts import NotReady, begin_draft, preview, publish_draft
from agreements.forms import AnswerForm, BeginDraftForm, RulingForm
from agreements.models import (
    Acceptance,
    Answer,
    Document,
    Draft,
    DraftText,
    Finding,
    Manner,
    Question,
    Role,
    Ruling,
    StatutoryRight,
    Text,
    Version,
)
from agreements.questions import CannotAnswer, answer
from agreements.rulings import CannotRule, record_ruling
from agreements.texts import best_text, render, table_of_contents
from evidence.admin import (
    DeskAdmin,
    RecordAdmin,
    RecordInline,
    button,
    choice_column,
    column,
    posted,
    staff_id,
)


class TextInline(RecordInline):
    model = Text
    fields = ("language", "is_authoritative", "title", "sha256")
    ordering = ("-is_authoritative", "language")


class RulingInline(RecordInline):
    model = Ruling
    fields = ("clause", "finding", "authority", "reference", "decided_on", "recorded_by")
    ordering = ("-id",)
    opens = False


@admin.register(Version)
class VersionAdmin(RecordAdmin):
    list_display = (
        "document",
        "number",
        "state",
        "published_at",
        "effective_at",
        "is_retroactive",
        "announced_at",
    )
    list_display_links = ("document", "number")
    list_filter = ("document", "is_retroactive")
    date_hierarchy = "effective_at"
    ordering = ("document", "-number")
    fields = (
        "document",
        "number",
        "state",
        "published_at",
        "published_by",
        "effective_at",
        "is_retroactive",
        "announced_at",
    )
    inlines = (TextInline, RulingInline)
    actions_detail = ("record_ruling",)

    def has_act_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("agreements.add_ruling")

    def get_queryset(self, request: HttpRequest) -> QuerySet[Version]:
        applying = Version.objects.filter(document=OuterRef("document"), effective_at__lte=timezone.now())
        newest = applying.order_by("-effective_at", "-number").values("pk")[:1]
        versions: QuerySet[Version] = super().get_queryset(request).annotate(in_force=Subquery(newest))
        return versions

    @column(gettext_lazy("state"))
    def state(self, version: Version) -> str:
        if version.effective_at > timezone.now():
            return _("scheduled")
        is_in_force = version.pk == version.in_force  # type: ignore[attr-defined]
        return _("in force") if is_in_force else _("superseded")

    @button(gettext_lazy("Record a ruling"), icon="gavel")
    def record_ruling(self, request: HttpRequest, object_id: str) -> HttpResponse:
        version: Version = self.record(request, object_id)
        text = best_text(version.texts.all(), language=translation.get_language())
        form = RulingForm(posted(request), contents=table_of_contents(text) if text else ())
        if form.is_valid():
            try:
                ruling = record_ruling(
                    version_id=version.pk,
                    clause=form.cleaned_data["clause"],
                    finding=Finding(form.cleaned_data["finding"]),
                    authority=form.cleaned_data["authority"],
                    reference=form.cleaned_data["reference"],
                    decided_on=form.cleaned_data["decided_on"],
                    recorded_by_id=staff_id(request),
                    now=timezone.now(),
                )
            except CannotRule as no:
                form.add_error(None, str(no))
            else:
                done = _("Recorded: %(ruling)s. The mark shows wherever the text is shown.") % {
                    "ruling": ruling
                }
                self.log_change(request, version, done)
                messages.success(request, done)
                return redirect(self.page_of(version))
        return self.ask(
            request,
            title=_("Record a ruling on a clause of %(version)s") % {"version": version},
            intro=_(
                "The text stays as it is, and the rest of the agreement remains in force (9.3). A ruling cannot be "
                "deleted; one that is overturned is followed by another."
            ),
            form=form,
            button=_("Record"),
            record=version,
        )


@admin.register(Ruling)
class RulingAdmin(RecordAdmin):
    list_display = ("version", "clause", "finding", "authority", "reference", "decided_on")
    list_filter = ("finding", "version__document")
    list_select_related = ("version",)
    search_fields = ("authority", "reference")
    ordering = ("-id",)


class DraftTextInline(StackedInline):  # type: ignore[misc]
    model = DraftText
    extra = 0
    tab = True
    fields = ("language", "title", "summary", "retroactive_effect", "matters_most", "body")

    def has_change_permission(self, request: HttpRequest, obj: Draft | None = None) -> bool:
        return (obj is None or obj.version_id is None) and super().has_change_permission(request, obj)

    def has_add_permission(self, request: HttpRequest, obj: Draft | None = None) -> bool:
        return (obj is None or obj.version_id is None) and super().has_add_permission(request, obj)

    def has_delete_permission(self, request: HttpRequest, obj: Draft | None = None) -> bool:
        return (obj is None or obj.version_id is None) and super().has_delete_permission(request, obj)


@admin.register(Draft)
class DraftAdmin(DeskAdmin):
    """Whoever may change drafts writes them; publishing needs the right to add versions."""

    list_display = ("__str__", "effective_on", "is_retroactive", "created_by", "created_at", "version")
    list_filter = ("document",)
    list_select_related = ("created_by", "version")
    ordering = ("-id",)
    fields = (
        "document",
        "authoritative",
        "important",
        "effective_on",
        "is_retroactive",
        "created_by",
        "created_at",
        "version",
    )
    readonly_fields = ("document", "created_by", "created_at", "version")
    inlines = (DraftTextInline,)
    actions_detail = ("compare", "publish")

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        is_open = not isinstance(obj, Draft) or obj.version_id is None
        return is_open and super().has_change_permission(request, obj)

    def has_publish_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("agreements.add_version")

    def offers(self, record: Draft, button: str) -> bool:
        return record.version_id is None

    def add_view(self, request: HttpRequest, form_url: str = "", extra_context: Any = None) -> HttpResponse:
        if not self.has_add_permission(request):
            raise PermissionDenied
        form = BeginDraftForm(posted(request))
        if form.is_valid():
            draft = begin_draft(
                document=Document(form.cleaned_data["document"]),
                created_by_id=staff_id(request),
                now=timezone.now(),
            )
            self.log_addition(request, draft, [{"added": {}}])
            return redirect(self.page_of(draft))
        return self.ask(request, title=_("Begin a draft"), form=form, button=_("Begin"))

    @button(gettext_lazy("See what changes"), icon="difference")
    def compare(self, request: HttpRequest, object_id: str) -> HttpResponse:
        draft: Draft = self.record(request, object_id)
        newest = Version.objects.filter(document=draft.document).order_by("-number").first()
        published = {text.language: text for text in newest.texts.all()} if newest else {}
        changes = [
            difference(published[text.language], preview(draft, text))
            for text in draft.texts.all()
            if text.language in published
        ]
        return self.ask(
            request,
            title=_("What %(draft)s changes") % {"draft": draft},
            form=Form(),
            button="",
            record=draft,
            template="admin/agreements/draft/compare.html",
            changes=changes,
        )

    @button(gettext_lazy("Publish"), icon="publish", permission="publish")
    def publish(self, request: HttpRequest, object_id: str) -> HttpResponse:
        draft: Draft = self.record(request, object_id)
        form = Form(posted(request))
        if form.is_valid():
            try:
                version = publish_draft(
                    draft_id=draft.pk, published_by_id=staff_id(request), now=timezone.now()
                )
            except NotReady as no:
                for reason in no.reasons:
                    form.add_error(None, reason)
            else:
                done = _("Published: %(version)s. Customers are being told.") % {"version": version}
                self.log_change(request, draft, done)
                messages.success(request, done)
                return redirect(self.page_of(draft))
        return self.ask(
            request,
            title=_("Publish %(draft)s?") % {"draft": draft},
            intro=_(
                "Its words can never be changed again. Every customer with an open order or a running service is "
                "told, and questions are taken for three days (9.1)."
            ),
            form=form,
            button=_("Publish"),
            record=draft,
        )


class AnsweredFilter(admin.SimpleListFilter):
    title = gettext_lazy("answered")
    parameter_name = "answered"

    def lookups(self, request: HttpRequest, model_admin: object) -> list[tuple[str, str]]:
        return [("no", _("not yet")), ("yes", _("answered"))]

    def queryset(self, request: HttpRequest, queryset: QuerySet[Question]) -> QuerySet[Question]:
        match self.value():
            case "no":
                return queryset.filter(answer=None)
            case "yes":
                return queryset.exclude(answer=None)
            case _:
                return queryset


class AnswerInline(RecordInline):
    model = Answer
    fields = ("body", "is_public", "answered_by", "answered_at")
    opens = False


@admin.register(Question)
class QuestionAdmin(RecordAdmin):
    list_display = ("version", "customer", "beginning", "asked_at", "is_answered")
    list_display_links = ("version", "beginning")
    list_filter = (AnsweredFilter, "version__document", "language")
    list_select_related = ("version", "customer", "answer")
    search_fields = ("customer__email__startswith", "body")
    date_hierarchy = "asked_at"
    ordering = ("-id",)
    inlines = (AnswerInline,)
    actions_detail = ("give_answer",)

    def has_act_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        return request.user.has_perm("agreements.add_answer")

    def offers(self, record: Question, button: str) -> bool:
        return not Answer.objects.filter(question=record).exists()

    @column(gettext_lazy("question"))
    def beginning(self, question: Question) -> str:
        return question.body if len(question.body) <= 80 else f"{question.body[:79]}…"

    @admin.display(description=gettext_lazy("answered"), boolean=True)
    def is_answered(self, question: Question) -> bool:
        return hasattr(question, "answer")

    @button(gettext_lazy("Answer"), icon="reply")
    def give_answer(self, request: HttpRequest, object_id: str) -> HttpResponse:
        question: Question = self.record(request, object_id)
        form = AnswerForm(posted(request))
        if form.is_valid():
            try:
                answer(
                    question_id=question.pk,
                    body=form.cleaned_data["body"],
                    is_public=form.cleaned_data["is_public"],
                    answered_by_id=staff_id(request),
                    now=timezone.now(),
                )
            except CannotAnswer as no:
                form.add_error(None, str(no))
            else:
                done = _("The question is answered, and the customer is told.")
                self.log_change(request, question, done)
                messages.success(request, done)
                return redirect(self.page_of(question))
        return self.ask(
            request,
            title=_("Answer a question about %(version)s") % {"version": question.version},
            intro=question.body,
            form=form,
            button=_("Answer"),
            record=question,
        )


@admin.register(Answer)
class AnswerAdmin(RecordAdmin):
    list_display = ("question", "is_public", "answered_by", "answered_at")
    list_filter = ("is_public",)
    list_select_related = ("question", "answered_by")
    search_fields = ("body",)
    ordering = ("-id",)


@admin.register(DraftText)
class DraftTextAdmin(RecordAdmin):
    """Read here; written on the page of the draft."""

    list_display = ("title", "draft", "language")
    list_filter = ("language",)
    list_select_related = ("draft",)
    search_fields = ("title",)
    ordering = ("-id",)


@admin.register(StatutoryRight)
class StatutoryRightAdmin(RecordAdmin):
    list_display = ("key", "edition", "law", "withdrawal_days", "published_at")
    list_display_links = ("key", "edition")
    search_fields = ("key", "law")
    ordering = ("key", "-edition")


@admin.register(Text)
class TextAdmin(RecordAdmin):
    list_display = ("title", "version", "language", "is_authoritative", "sha256")
    list_filter = ("version__document", "language", "is_authoritative")
    list_select_related = ("version",)
    search_fields = ("title", "sha256__startswith")
    ordering = ("version__document", "-version__number", "language")
    fields = (
        "version",
        "language",
        "is_authoritative",
        "title",
        "summary",
        "retroactive_effect",
        "set_off",
        "sha256",
        "wording",
    )

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
    list_display = (
        "chain_number",
        "order_reference",
        "person_email",
        "manner_label",
        "role_label",
        "subject",
        "text",
        "accepted_at",
    )
    list_filter = ("manner", "text__version__document", "subject", "role", "text__language")
    list_select_related = ("text",)
    search_fields = ("order_reference__startswith", "person_email__startswith", "person_name")
    search_help_text = gettext_lazy("The order's reference, or the person's name or email address")
    date_hierarchy = "accepted_at"
    ordering = ("-accepted_at", "-id")
    role_label = choice_column("role", gettext_lazy("role"), {Role.GUARDIAN: "warning"})
    manner_label = choice_column("manner", gettext_lazy("manner"), {Manner.DEEMED: "info"})
    fields = (
        "order_reference",
        "customer",
        "manner_label",
        "text",
        "text_sha256",
        "subject",
        "role",
        "person_name",
        "person_email",
        "statement",
        "control",
        "accepted_at",
        "ip_address",
        "user_agent",
        "chain_number",
        "previous_sha256",
        "chain_sha256",
    )
