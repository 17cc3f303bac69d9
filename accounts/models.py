"""The user: customers and staff alike, known by their email address."""

import functools
import zoneinfo
from typing import Any, ClassVar

from django.conf import settings
from django.contrib.auth.models import AbstractUser, BaseUserManager
from django.core.exceptions import ValidationError
from django.db import models
from django.db.models.functions import Lower
from django.utils.translation import gettext_lazy as _


@functools.cache
def known_time_zones() -> frozenset[str]:
    """The IANA names this machine knows, read once (the library walks the disk at every call)."""
    return frozenset(zoneinfo.available_timezones())


def validate_time_zone(name: str) -> None:
    """Raise ValidationError unless `name` is an IANA time zone this machine knows."""
    if name not in known_time_zones():
        raise ValidationError(_("%(name)s is not a known time zone."), params={"name": name})


class UserManager(BaseUserManager["User"]):
    """Creates users by email; `createsuperuser` needs both methods."""

    def create_user(self, email: str, password: str | None = None, **fields: Any) -> "User":
        user = self.model(email=self.normalize_email(email).lower(), **fields)
        user.set_password(password)
        user.save(using=self._db)
        return user

    def create_superuser(self, email: str, password: str | None = None, **fields: Any) -> "User":
        return self.create_user(email, password, **{**fields, "is_staff": True, "is_superuser": True})


class User(AbstractUser):
    """One person with one email address, the language he reads and the zone he lives in."""

    username = None  # type: ignore[assignment]
    first_name = None  # type: ignore[assignment]
    last_name = None  # type: ignore[assignment]
    # Kept in lower case, so that one mailbox is one account.
    email = models.EmailField(_("email address"), unique=True)
    name = models.CharField(_("name"), max_length=150, blank=True)
    language = models.CharField(
        _("language"), max_length=10, choices=settings.LANGUAGES, default=settings.LANGUAGE_CODE
    )
    time_zone = models.CharField(
        _("time zone"),
        max_length=64,
        blank=True,
        validators=[validate_time_zone],
        help_text=_("Empty: the browser's."),
    )

    USERNAME_FIELD = "email"
    EMAIL_FIELD = "email"
    REQUIRED_FIELDS: ClassVar[list[str]] = []

    objects = UserManager()  # type: ignore[misc,assignment]

    class Meta:
        verbose_name = _("user")
        verbose_name_plural = _("users")
        constraints = (
            models.CheckConstraint(
                name="accounts_user_email_in_lower_case",
                condition=models.Q(email=Lower("email")),
                violation_error_message=_("Write the email address in lower case."),
            ),
        )

    def __str__(self) -> str:
        return self.email

    def get_full_name(self) -> str:
        return self.name or self.email

    def get_short_name(self) -> str:
        return self.name or self.email.split("@")[0]


class KnownBrowser(models.Model):
    """A browser with which somebody has logged in. It keeps a secret in a cookie, we only the secret's hash."""

    user = models.ForeignKey(User, models.CASCADE, related_name="browsers", verbose_name=_("user"))
    token_sha256 = models.CharField(_("sha256 of its secret"), max_length=64)
    label = models.CharField(_("name"), max_length=100, blank=True)
    first_at = models.DateTimeField(_("first login"))
    last_at = models.DateTimeField(_("last login"))

    class Meta:
        verbose_name = _("known browser")
        verbose_name_plural = _("known browsers")
        ordering = ("-id",)
        constraints = (models.UniqueConstraint("user", "token_sha256", name="accounts_knownbrowser_once"),)

    def __str__(self) -> str:
        return self.label
