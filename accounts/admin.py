"""People: customers and staff, what staff may do, and what staff have done."""

from typing import Any

from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.admin.models import ADDITION, CHANGE, DELETION, LogEntry
from django.contrib.auth.admin import GroupAdmin as DjangoGroupAdmin
from django.contrib.auth.admin import UserAdmin as DjangoUserAdmin
from django.contrib.auth.models import Group
from django.http import HttpRequest
from django.utils.translation import gettext_lazy
from unfold.forms import AdminPasswordChangeForm, UserChangeForm, UserCreationForm

from accounts.models import KnownBrowser, User
from evidence.admin import DeskAdmin, RecordAdmin, choice_column, column

admin.site.unregister((Group, EmailAddress, Authenticator))

# Whoever may set these may do everything.
POWERS = ("is_staff", "is_superuser", "groups", "user_permissions")


class NewUserForm(UserCreationForm):  # type: ignore[misc]
    class Meta:
        model = User
        fields = ("email", "name", "language", "time_zone")

    def clean_email(self) -> str:
        """One mailbox is one account, however its address is written."""
        email: str = self.cleaned_data["email"].lower()
        return email


class UserForm(UserChangeForm):  # type: ignore[misc]
    class Meta:
        model = User
        fields = "__all__"

    def clean_email(self) -> str:
        """One mailbox is one account, however its address is written."""
        email: str = self.cleaned_data["email"].lower()
        return email


@admin.register(User)
class UserAdmin(DjangoUserAdmin, DeskAdmin):  # type: ignore[misc, type-arg]
    """Staff look after customers; only superusers look after staff."""

    form = UserForm
    add_form = NewUserForm
    change_password_form = AdminPasswordChangeForm
    list_display = ("email", "name", "language", "is_active", "is_staff", "date_joined")
    list_filter = ("is_active", "is_staff", "is_superuser", "language", "groups")
    search_fields = ("email", "name")
    date_hierarchy = "date_joined"
    ordering = ("-date_joined", "-id")
    filter_horizontal = ("groups", "user_permissions")
    readonly_fields = ("last_login", "date_joined")
    fieldsets = (
        (None, {"fields": ("email", "password")}),
        (gettext_lazy("Person"), {"fields": ("name", "language", "time_zone")}),
        (gettext_lazy("Rights"), {"fields": ("is_active", *POWERS)}),
        (gettext_lazy("Dates"), {"fields": ("last_login", "date_joined")}),
    )
    add_fieldsets = (
        (
            None,
            {
                "fields": (
                    "email",
                    "name",
                    "language",
                    "time_zone",
                    "usable_password",
                    "password1",
                    "password2",
                )
            },
        ),
    )

    def get_readonly_fields(self, request: HttpRequest, obj: User | None = None) -> Any:
        plain = super().get_readonly_fields(request, obj)
        return plain if request.user.is_superuser else (*plain, *POWERS)

    def has_change_permission(self, request: HttpRequest, obj: User | None = None) -> bool:
        if isinstance(obj, User) and (obj.is_staff or obj.is_superuser) and not request.user.is_superuser:
            return False
        may: bool = super().has_change_permission(request, obj)
        return may


@admin.register(Group)
class GroupAdmin(DjangoGroupAdmin, DeskAdmin):  # type: ignore[misc]
    list_display = ("name",)
    search_fields = ("name",)
    ordering = ("name",)


@admin.register(EmailAddress)
class EmailAddressAdmin(RecordAdmin):
    list_display = ("email", "user", "primary", "verified")
    list_filter = ("primary", "verified")
    list_select_related = ("user",)
    search_fields = ("email__startswith", "user__email__startswith")
    ordering = ("-id",)


@admin.register(Authenticator)
class AuthenticatorAdmin(RecordAdmin):
    """Who has a second factor. Its secrets are shown to nobody."""

    list_display = ("user", "type", "created_at", "last_used_at")
    list_filter = ("type",)
    list_select_related = ("user",)
    search_fields = ("user__email__startswith",)
    ordering = ("-id",)
    fields = ("user", "type", "created_at", "last_used_at")


@admin.register(LogEntry)
class LogEntryAdmin(RecordAdmin):
    """What staff did in the admin."""

    list_display = ("action_time", "user", "action_label", "content_type", "object_repr", "message")
    list_filter = ("action_flag", "content_type")
    list_select_related = ("user", "content_type")
    search_fields = ("object_repr", "user__email__startswith")
    date_hierarchy = "action_time"
    ordering = ("-action_time", "-id")
    action_label = choice_column(
        "action_flag", gettext_lazy("action"), {ADDITION: "success", CHANGE: "info", DELETION: "danger"}
    )

    @column(gettext_lazy("what was done"))
    def message(self, entry: LogEntry) -> str:
        return entry.get_change_message()


@admin.register(KnownBrowser)
class KnownBrowserAdmin(RecordAdmin):
    list_display = ("label", "user", "first_at", "last_at")
    list_select_related = ("user",)
    search_fields = ("user__email__startswith",)
    search_help_text = gettext_lazy("The user's email address")
    ordering = ("-id",)
    # Without what it is recognised by.
    fields = ("user", "label", "first_at", "last_at")
