"""How staff see what is on record: they read all of it, and change nothing in place.

What they may do to a record they do on a page of its own, behind a button: the page asks (`ask`), and its
view calls the verb that everybody else calls.
"""

from collections.abc import Callable, Mapping
from typing import Any, TypeVar

from django.contrib.admin.utils import flatten_fieldsets, unquote
from django.db.models import BinaryField, Model
from django.forms import Form
from django.http import Http404, HttpRequest, QueryDict
from django.template.loader import render_to_string
from django.template.response import TemplateResponse
from django.urls import reverse
from django.utils.datastructures import MultiValueDict
from django.utils.functional import Promise
from django.utils.html import format_html
from django.utils.safestring import SafeString
from django.utils.translation import gettext as _
from django.utils.translation import gettext_lazy
from unfold.admin import ModelAdmin, TabularInline
from unfold.dataclasses import UnfoldAction
from unfold.decorators import action, display
from unfold.enums import ActionVariant

View = TypeVar("View", bound=Callable[..., Any])


class ReadOnly:
    """Nothing is added, changed or deleted here; every column is shown."""

    def has_add_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_change_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False


class DeskAdmin(ModelAdmin):  # type: ignore[misc]
    """What every list and page of the admin has in common: no deletion, and pages that ask."""

    actions: tuple[str, ...] | None = None
    list_per_page = 50
    # Counting a million rows again to say "of 1,000,000" helps nobody.
    show_full_result_count = False
    list_filter_submit = False

    def has_delete_permission(self, request: HttpRequest, obj: Model | None = None) -> bool:
        return False

    def has_act_permission(self, request: HttpRequest, object_id: str | None = None) -> bool:
        """Whether a member of staff may press this table's buttons: who may "change" it may."""
        may: bool = request.user.has_perm(f"{self.opts.app_label}.change_{self.opts.model_name}")
        return may

    def offers(self, record: Any, button: str) -> bool:
        """Whether the button named so makes sense for the record as it is. The verb decides again."""
        return True

    def get_actions_detail(self, request: HttpRequest, object_id: str) -> list[UnfoldAction]:
        buttons: list[UnfoldAction] = super().get_actions_detail(request, object_id)
        record = self.get_object(request, unquote(object_id)) if buttons else None
        return [button for button in buttons if record is not None and self.offers(record, button.path)]

    def record(self, request: HttpRequest, object_id: str) -> Any:
        """The record a button's page is about. Raises Http404."""
        record = self.get_object(request, unquote(object_id))
        if record is None:
            raise Http404
        return record

    def page_of(self, record: Model) -> str:
        """The address of the record's page in the admin."""
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change"
        return reverse(name, args=[record.pk])

    def ask(
        self,
        request: HttpRequest,
        *,
        title: str,
        form: Form,
        button: str,
        record: Model | None = None,
        intro: str = "",
        template: str = "admin/ask.html",
        **context: object,
    ) -> TemplateResponse:
        """A page with a form. Without `record` it leads back to the list."""
        list_name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_changelist"
        return self.show(
            request,
            title=title,
            record=record,
            template=template,
            form=form,
            button=button,
            intro=intro,
            back=reverse(list_name) if record is None else self.page_of(record),
            media=self.media + form.media,
            **context,
        )

    def show(
        self, request: HttpRequest, *, title: str, record: Model | None, template: str, **context: object
    ) -> TemplateResponse:
        """A page to read."""
        shared = self.admin_site.each_context(request)
        return TemplateResponse(
            request, template, {**shared, "opts": self.opts, "original": record, "title": title, **context}
        )


class RecordAdmin(ReadOnly, DeskAdmin):
    """A table that staff read. Evidence and state change through verbs only."""

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        if self.fieldsets:
            return list(flatten_fieldsets(self.fieldsets))
        if self.fields:
            return list(self.fields)
        columns = self.opts.concrete_fields
        return [f.name for f in columns if not (f.primary_key or isinstance(f, BinaryField))]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return self.get_fields(request, obj)


class RecordInline(ReadOnly, TabularInline):  # type: ignore[misc]
    """Rows that belong to a record, on its page. Each links to its own page, unless `opens` says it does not."""

    extra = 0
    per_page = 25
    opens = True
    # The theme's title of a row has a link as well, but only under a mouse.
    hide_title = True
    show_count = True

    def get_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return [*(self.fields or ()), *(["page"] if self.opens else [])]

    def get_readonly_fields(self, request: HttpRequest, obj: Model | None = None) -> list[str]:
        return self.get_fields(request, obj)

    @display(description=gettext_lazy("page"))  # type: ignore[untyped-decorator]
    def page(self, row: Model) -> SafeString:
        name = f"{self.admin_site.name}:{self.opts.app_label}_{self.opts.model_name}_change"
        return format_html('<a class="text-link" href="{}">{}</a>', reverse(name, args=[row.pk]), _("Open"))


def posted(request: HttpRequest) -> QueryDict | None:
    """The data of a form that was sent, None when the page is only opened."""
    return request.POST if request.method == "POST" else None


def posted_files(request: HttpRequest) -> "MultiValueDict[str, Any] | None":
    """The files of a form that was sent, None when the page is only opened."""
    return request.FILES if request.method == "POST" else None


def staff_id(request: HttpRequest) -> int:
    """Who is at the desk: nobody gets here without having logged in."""
    user_id: int = request.user.pk  # type: ignore[assignment]
    return user_id


def button(
    description: str | Promise, *, icon: str, permission: str = "act", is_danger: bool = False
) -> Callable[[View], View]:
    """Make a method of a DeskAdmin the page behind a button, for whom `has_<permission>_permission` lets in.

    (The theme takes names of Django's permissions as well, but asks the database for them at every system
    check, which an installation that is not migrated yet does not survive.)
    """

    def decorate(view: View) -> View:
        made: View = action(
            description=description,
            permissions=[permission],
            icon=icon,
            variant=ActionVariant.DANGER if is_danger else ActionVariant.DEFAULT,
        )(view)
        return made

    return decorate


def column(description: str | Promise, *, ordering: str | None = None) -> Callable[[View], View]:
    """Make a method a column, of a list or of a record's page."""

    def decorate(method: View) -> View:
        made: View = display(description=description, ordering=ordering)(method)
        return made

    return decorate


def choice_column(
    field: str, description: str | Promise, colours: Mapping[Any, str]
) -> Callable[[object, Model], str]:
    """A column of a field with choices: its words as a label, in the colour of its value.

    Colours are the theme's: info, success, warning, danger.
    """

    @column(description, ordering=field)
    def shown(_admin: object, record: Model) -> str:
        words = getattr(record, f"get_{field}_display")()
        return render_to_string(
            "unfold/helpers/label.html", {"text": words, "type": colours.get(getattr(record, field))}
        )

    return shown
