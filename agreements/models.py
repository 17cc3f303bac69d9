"""The texts of the agreements, by version and language, and the acceptances of them."""

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly, WriteOnce


class Document(models.TextChoices):
    """The two documents that together are the complete terms (agreement 1.2)."""

    PREPAYMENT = "prepayment", _("Pre-payment Purchase Agreement")
    PURCHASE = "purchase", _("Purchase Agreement")


class VersionQuerySet(models.QuerySet["Version"]):
    def in_force(self, at: datetime) -> dict[str, "Version"]:
        """The version of each document that applies at the moment `at`, by document."""
        versions = self.filter(published_at__lte=at, effective_at__lte=at).order_by("effective_at", "number")
        return {version.document: version for version in versions}


class Version(WriteOnce):
    """One published edition of a document, the same in all its languages."""

    document = models.CharField(_("document"), max_length=20, choices=Document.choices)
    number = models.PositiveIntegerField(_("version"))
    published_at = models.DateTimeField(_("published"))
    effective_at = models.DateTimeField(_("takes effect"))

    written_once: ClassVar[tuple[str, ...]] = ("document", "number", "published_at", "effective_at")

    objects = VersionQuerySet.as_manager()

    class Meta:
        verbose_name = _("agreement version")
        verbose_name_plural = _("agreement versions")
        ordering = ("document", "-number")
        constraints = (
            models.UniqueConstraint("document", "number", name="agreements_version_unique"),
            models.CheckConstraint(
                name="agreements_version_document_known", condition=Q(document__in=Document.values)
            ),
        )

    def __str__(self) -> str:
        return f"{self.get_document_display()}, version {self.number}"

    def get_absolute_url(self) -> str:
        return reverse("agreements:version", args=[self.document, self.number])


class Text(AppendOnly):
    """The exact wording of a version in one language."""

    version = models.ForeignKey(Version, models.PROTECT, related_name="texts", verbose_name=_("version"))
    language = models.CharField(_("language"), max_length=10, choices=settings.LANGUAGES)
    is_authoritative = models.BooleanField(_("authoritative"))
    title = models.CharField(_("title"), max_length=200)
    summary = models.TextField(_("summary of changes"))
    # Numbers of the clauses that are set off, as they stand in the headings: ["II", "3.3", …].
    important = models.JSONField(_("important clauses"))
    # What matters most, a sentence each.
    matters_most = models.JSONField(_("what matters most"))
    body = models.TextField(_("text"))
    sha256 = models.CharField(_("sha256"), max_length=64)

    class Meta:
        verbose_name = _("agreement text")
        verbose_name_plural = _("agreement texts")
        constraints = (
            models.UniqueConstraint("version", "language", name="agreements_text_unique"),
            models.UniqueConstraint(
                "version", condition=Q(is_authoritative=True), name="agreements_text_one_authoritative"
            ),
        )

    def __str__(self) -> str:
        return f"{self.title} ({self.language})"


class Role(models.TextChoices):
    BUYER = "buyer", _("buyer")
    GUARDIAN = "guardian", _("legal guardian")


class Subject(models.TextChoices):
    """What was accepted: the whole text, or one rule of it that is accepted apart."""

    AGREEMENT = "agreement", _("agreement")
    NO_REFUND = "no-refund", _("no refunds during the pre-sale period (3.3)")


class Acceptance(AppendOnly):
    """Who agreed to which text, when and by which control."""

    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="acceptances", verbose_name=_("customer")
    )
    order_reference = models.CharField(_("order"), max_length=20, db_index=True)
    text = models.ForeignKey(Text, models.PROTECT, related_name="acceptances", verbose_name=_("text"))
    text_sha256 = models.CharField(_("sha256 of the text"), max_length=64)
    subject = models.CharField(_("subject"), max_length=12, choices=Subject.choices)
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    person_name = models.CharField(_("person"), max_length=150, blank=True)
    person_email = models.EmailField(_("email"))
    # The words beside the control that was ticked.
    statement = models.TextField(_("statement"))
    accepted_at = models.DateTimeField(_("accepted at"))
    ip_address = models.GenericIPAddressField(_("IP address"), null=True)
    user_agent = models.CharField(_("browser"), max_length=400, blank=True)

    class Meta:
        verbose_name = _("acceptance")
        verbose_name_plural = _("acceptances")
        ordering = ("-accepted_at", "-id")
        constraints = (
            models.UniqueConstraint(
                "order_reference", "text", "subject", "role", name="agreements_acceptance_unique"
            ),
        )

    def __str__(self) -> str:
        return f"{self.person_email}, {self.order_reference}"
