"""The texts of the agreements by version and language, what became of them, and who accepted them."""

from datetime import date, datetime, timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from evidence.contract_time import contract_date
from evidence.models import AppendOnly, Chained, WriteOnce


class Document(models.TextChoices):
    """The two documents that together are the complete terms (agreement 1.2)."""

    PREPAYMENT = "prepayment", _("Pre-payment Purchase Agreement")
    PURCHASE = "purchase", _("Purchase Agreement")


class VersionQuerySet(models.QuerySet["Version"]):
    def in_force(self, at: datetime) -> dict[str, "Version"]:
        """The version of each document that applies at the moment `at`, by document."""
        versions = self.filter(published_at__lte=at, effective_at__lte=at).order_by("effective_at", "number")
        return {version.document: version for version in versions}

    def revisions(self, at: datetime) -> "VersionQuerySet":
        """Published versions that are not the first of their document, newest first."""
        return self.filter(published_at__lte=at, number__gt=1).order_by("-published_at", "-pk")


class Version(WriteOnce):
    """One published edition of a document, the same in all its languages.

    It is scheduled until `effective_at`, then in force until a later one is: its state is a question of the
    time, and no column. What is not published yet is a `Draft`.
    """

    document = models.CharField(_("document"), max_length=20, choices=Document.choices)
    number = models.PositiveIntegerField(_("version"))
    published_at = models.DateTimeField(_("published"))
    effective_at = models.DateTimeField(_("takes effect"))
    # Whether it also applies to what was done before it took effect (9.1).
    is_retroactive = models.BooleanField(_("applies to earlier orders"), default=False)
    # Empty for what ships with the code.
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("published by")
    )
    # When everybody it concerns had been told; empty while that goes on, and for a first version.
    announced_at = models.DateTimeField(_("announced to customers"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "document",
        "number",
        "published_at",
        "effective_at",
        "is_retroactive",
        "published_by",
        "announced_at",
    )

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

    @property
    def last_day_of_questions(self) -> date:
        """The last contract day for questions; the day of publication does not count (9.1)."""
        return contract_date(self.published_at) + timedelta(days=settings.QUESTION_PERIOD_DAYS)

    def takes_questions(self, at: datetime) -> bool:
        """Whether it revises something, and its period for questions runs."""
        return (
            self.number > 1
            and contract_date(self.published_at) <= contract_date(at) <= self.last_day_of_questions
        )


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
    # What a retroactive version changes for orders that were placed before; empty for any other.
    retroactive_effect = models.TextField(_("what changes for earlier orders"), blank=True, default="")
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


class Draft(models.Model):
    """A version in the making. It binds nobody, and may be changed until it is published."""

    document = models.CharField(_("document"), max_length=20, choices=Document.choices)
    effective_on = models.DateField(
        _("takes effect on"),
        null=True,
        blank=True,
        help_text=_("A day in Hong Kong. Empty: at the moment of publication (9.1)."),
    )
    is_retroactive = models.BooleanField(
        _("applies to earlier orders"),
        default=False,
        help_text=_("Say in every language what changes for them; their customers are shown it."),
    )
    authoritative = models.CharField(_("authoritative language"), max_length=10, choices=settings.LANGUAGES)
    important = models.CharField(
        _("important clauses"),
        max_length=200,
        blank=True,
        help_text=_("Their numbers as in the headings, with commas: II, 3.3, VII."),
    )
    created_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("drafted by")
    )
    created_at = models.DateTimeField(_("created"))
    version = models.OneToOneField(
        Version, models.PROTECT, null=True, related_name="draft", verbose_name=_("published as")
    )

    class Meta:
        verbose_name = _("draft")
        verbose_name_plural = _("drafts")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.get_document_display()}, draft {self.pk}"


class DraftText(models.Model):
    """The wording of a draft in one language."""

    draft = models.ForeignKey(Draft, models.CASCADE, related_name="texts", verbose_name=_("draft"))
    language = models.CharField(_("language"), max_length=10, choices=settings.LANGUAGES)
    title = models.CharField(_("title"), max_length=200)
    summary = models.TextField(_("summary of changes"), blank=True)
    matters_most = models.TextField(
        _("what matters most"), blank=True, help_text=_("A sentence on each line.")
    )
    retroactive_effect = models.TextField(_("what changes for earlier orders"), blank=True)
    body = models.TextField(
        _("text"), help_text=_("Markdown. Clauses are headings that begin with their number.")
    )

    class Meta:
        verbose_name = _("draft text")
        verbose_name_plural = _("draft texts")
        ordering = ("id",)
        constraints = (models.UniqueConstraint("draft", "language", name="agreements_drafttext_unique"),)

    def __str__(self) -> str:
        return f"{self.title} ({self.language})"


class Finding(models.TextChoices):
    """What an authority said of a clause (9.3)."""

    INVALID = "invalid", _("held invalid")
    VALID = "valid", _("valid again")


class Ruling(AppendOnly):
    """An authority's word on one clause of one version. The latest on a clause counts; the text stays as it is."""

    version = models.ForeignKey(Version, models.PROTECT, related_name="rulings", verbose_name=_("version"))
    # As it stands in the heading.
    clause = models.CharField(_("clause"), max_length=20)
    finding = models.CharField(_("finding"), max_length=10, choices=Finding.choices)
    authority = models.CharField(_("authority"), max_length=200)
    reference = models.CharField(_("reference"), max_length=200)
    decided_on = models.DateField(_("decided on"))
    recorded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("recorded by")
    )
    recorded_at = models.DateTimeField(_("recorded at"))

    class Meta:
        verbose_name = _("ruling on a clause")
        verbose_name_plural = _("rulings on clauses")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="agreements_ruling_finding_known", condition=Q(finding__in=Finding.values)
            ),
        )

    def __str__(self) -> str:
        return f"{self.clause}: {self.get_finding_display()}"


class Question(AppendOnly):
    """A customer's question, comment or suggestion about a revision, raised in its period for them (9.1)."""

    version = models.ForeignKey(Version, models.PROTECT, related_name="questions", verbose_name=_("version"))
    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        related_name="agreement_questions",
        verbose_name=_("customer"),
    )
    language = models.CharField(_("language"), max_length=10)
    body = models.TextField(_("question"))
    asked_at = models.DateTimeField(_("asked at"))

    class Meta:
        verbose_name = _("question")
        verbose_name_plural = _("questions")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"question {self.pk}"


class Answer(AppendOnly):
    """What the platform says to a question: to everybody on the version's page, or to the customer alone."""

    question = models.OneToOneField(
        Question, models.PROTECT, related_name="answer", verbose_name=_("question")
    )
    body = models.TextField(_("answer"))
    is_public = models.BooleanField(_("public"))
    answered_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("answered by")
    )
    answered_at = models.DateTimeField(_("answered at"))

    class Meta:
        verbose_name = _("answer")
        verbose_name_plural = _("answers")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"answer {self.pk}"


class StatutoryRight(AppendOnly):
    """What the law of some countries gives a customer, whatever the agreement says.

    Editions of one `key` follow each other; an order keeps the edition it was placed under.
    """

    key = models.CharField(_("key"), max_length=40)
    edition = models.PositiveIntegerField(_("edition"))
    # ISO 3166-1 alpha-2 codes.
    countries = models.JSONField(_("countries"))
    law = models.CharField(_("law"), max_length=200)
    # Counted from the day after the order, to the end of the last day.
    withdrawal_days = models.PositiveSmallIntegerField(_("days for withdrawal"))
    # By language.
    title = models.JSONField(_("title"))
    explanation = models.JSONField(_("explanation"))
    # What the buyer must expressly ask for and acknowledge, so that the service may begin before the
    # withdrawal period is over. Empty where the law asks for no such thing.
    waiver = models.JSONField(_("express request"))
    # How many days behind the latest date that was promised first the customer has a choice, and, by language, which.
    # Empty where the law gives none.
    delay_days = models.PositiveSmallIntegerField(_("days of delay"), null=True)
    delay = models.JSONField(_("choice after a delay"), default=dict)
    published_at = models.DateTimeField(_("published"))

    class Meta:
        verbose_name = _("statutory right")
        verbose_name_plural = _("statutory rights")
        ordering = ("key", "-edition")
        constraints = (models.UniqueConstraint("key", "edition", name="agreements_statutoryright_unique"),)

    def __str__(self) -> str:
        return f"{self.law} ({self.key} {self.edition})"


class Role(models.TextChoices):
    BUYER = "buyer", _("buyer")
    GUARDIAN = "guardian", _("legal guardian")


class Subject(models.TextChoices):
    """What was accepted: the whole text, or one rule that is accepted apart."""

    AGREEMENT = "agreement", _("agreement")
    NO_REFUND = "no-refund", _("no refunds during the pre-sale period (3.3)")
    EARLY_START = "early-start", _("service before the end of the withdrawal period")


class Manner(models.TextChoices):
    """How something was accepted."""

    EXPRESS = "express", _("expressly")
    DEEMED = "deemed", _("by continued use (9.1)")


class Acceptance(Chained):
    """Who agreed to which text, when and by which control.

    An express acceptance belongs to an order; a deemed one to the customer, once for each version.
    """

    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="acceptances", verbose_name=_("customer")
    )
    order_reference = models.CharField(_("order"), max_length=20, blank=True, db_index=True)
    manner = models.CharField(_("manner"), max_length=10, choices=Manner.choices)
    text = models.ForeignKey(Text, models.PROTECT, related_name="acceptances", verbose_name=_("text"))
    text_sha256 = models.CharField(_("sha256 of the text"), max_length=64)
    subject = models.CharField(_("subject"), max_length=12, choices=Subject.choices)
    role = models.CharField(_("role"), max_length=10, choices=Role.choices)
    person_name = models.CharField(_("person"), max_length=150, blank=True)
    person_email = models.EmailField(_("email"))
    # The words beside the control, and the control: which box was ticked and which button pressed, or which
    # page was used.
    statement = models.TextField(_("statement"))
    control = models.CharField(_("control"), max_length=200)
    accepted_at = models.DateTimeField(_("accepted at"))
    ip_address = models.GenericIPAddressField(_("IP address"), null=True)
    user_agent = models.CharField(_("browser"), max_length=400, blank=True)

    class Meta:
        verbose_name = _("acceptance")
        verbose_name_plural = _("acceptances")
        ordering = ("-accepted_at", "-id")
        constraints = (
            models.UniqueConstraint(
                "order_reference",
                "text",
                "subject",
                "role",
                condition=Q(manner=Manner.EXPRESS),
                name="agreements_acceptance_unique",
            ),
            models.UniqueConstraint(
                "customer",
                "text",
                condition=Q(manner=Manner.DEEMED),
                name="agreements_acceptance_deemed_once",
            ),
            models.CheckConstraint(
                name="agreements_acceptance_express_of_an_order",
                condition=Q(manner=Manner.EXPRESS) & ~Q(order_reference="")
                | Q(manner=Manner.DEEMED, order_reference="", subject=Subject.AGREEMENT, role=Role.BUYER),
            ),
        )

    def __str__(self) -> str:
        return f"{self.person_email}, {self.order_reference or self.get_manner_display()}"
