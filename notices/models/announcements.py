"""What is told to everybody on the site, and what staff have sent to many customers at once."""

from collections.abc import Mapping
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils.translation import get_language
from django.utils.translation import gettext_lazy as _

from evidence.models import WriteOnce
from notices.kinds import KINDS


class Announcement(WriteOnce):
    """A web announcement. Its sending date is that of its publication (VIII); taken down, it stays on record.

    `texts` maps a language to its title and body: {"en": {"title": …, "body": …}, …}; all languages of the site.
    """

    kind = models.CharField(_("kind"), max_length=40, choices=[(k.slug, k.label) for k in KINDS.values()])
    texts = models.JSONField(_("texts"))
    sha256 = models.CharField(_("sha256"), max_length=64)
    url = models.CharField(_("page"), max_length=200, blank=True)
    published_at = models.DateTimeField(_("published"))
    # Shown at the top of every page until then, or until whoever reads it closes it.
    banner_until = models.DateTimeField(_("banner until"), null=True, blank=True)
    published_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("by"),
    )
    # What a person has written for everybody, another one has approved. Nobody has, where the shop announces by itself.
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("approved by"),
    )
    # Of two announcements with one key the first is published.
    dedupe_key = models.CharField(_("key"), max_length=120, unique=True)
    withdrawn_at = models.DateTimeField(_("taken down"), null=True, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "kind",
        "texts",
        "sha256",
        "url",
        "published_at",
        "published_by",
        "approved_by",
        "dedupe_key",
        "withdrawn_at",
    )

    class Meta:
        verbose_name = _("announcement")
        verbose_name_plural = _("announcements")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="notices_announcement_second_person",
                condition=Q(published_by=None, approved_by=None)
                | Q(published_by__isnull=False, approved_by__isnull=False)
                & ~Q(approved_by=F("published_by")),
            ),
        )
        indexes = (models.Index(fields=["-published_at"], name="notices_announcement_newest"),)

    def __str__(self) -> str:
        return f"{self.kind} {self.published_at:%Y-%m-%d}"

    def get_absolute_url(self) -> str:
        return reverse("notices:announcement", args=[self.pk])

    @property
    def words(self) -> Mapping[str, str]:
        """Title and body in the language of the page."""
        texts: Mapping[str, Mapping[str, str]] = self.texts
        return texts.get(get_language() or "", texts[settings.LANGUAGE_CODE])


class BroadcastState(models.TextChoices):
    SUBMITTED = "submitted", _("waits for approval")
    SENDING = "sending", _("being sent")
    DONE = "done", _("sent")
    STOPPING = "stopping", _("being stopped")
    CANCELLED = "cancelled", _("cancelled")


class Broadcast(WriteOnce):
    """A message that staff have submitted to a segment of the customers; approved, it is made into notices bit by bit.

    `segment` is what `notices.broadcasts` understands, None for what goes on the site only; `texts` as in `Announcement`.
    Who belonged to the segment when it was submitted are its `BroadcastRecipient`s, and `recipients` is how many.
    """

    kind = models.CharField(_("kind"), max_length=40, choices=[(k.slug, k.label) for k in KINDS.values()])
    segment = models.JSONField(_("segment"), null=True, blank=True)
    texts = models.JSONField(_("texts"))
    is_announced = models.BooleanField(_("on the site"), default=False)
    banner_days = models.PositiveSmallIntegerField(_("days at the top of every page"), default=0)
    state = models.CharField(
        _("state"), max_length=10, choices=BroadcastState.choices, default=BroadcastState.SUBMITTED
    )
    composed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("composed by")
    )
    composed_at = models.DateTimeField(_("composed"))
    recipients = models.PositiveIntegerField(_("recipients"))
    # Whether so many need a second person's word. What stands on the site is for everybody.
    needs_approval = models.BooleanField(_("needs approval"))
    approved_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("approved by"),
    )
    approved_at = models.DateTimeField(_("approved"), null=True, blank=True)
    told = models.PositiveIntegerField(_("told"), default=0)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)
    stopped_by = models.ForeignKey(
        settings.AUTH_USER_MODEL,
        models.PROTECT,
        null=True,
        blank=True,
        related_name="+",
        verbose_name=_("stopped by"),
    )
    stopped_at = models.DateTimeField(_("stopped"), null=True, blank=True)
    # The last notice that was called back after that.
    called_back = models.PositiveBigIntegerField(_("called back up to"), default=0)

    written_once: ClassVar[tuple[str, ...]] = (
        "kind",
        "segment",
        "texts",
        "is_announced",
        "banner_days",
        "composed_by",
        "composed_at",
        "recipients",
        "needs_approval",
        "approved_by",
        "approved_at",
        "ended_at",
        "stopped_by",
        "stopped_at",
    )

    class Meta:
        verbose_name = _("message to many")
        verbose_name_plural = _("messages to many")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="notices_broadcast_second_person",
                condition=Q(needs_approval=False)
                | Q(approved_at=None, approved_by=None)
                | Q(approved_by__isnull=False) & ~Q(approved_by=F("composed_by")),
                violation_error_message=_("Somebody else has to approve it."),
            ),
            models.CheckConstraint(
                name="notices_broadcast_announced_is_approved",
                condition=Q(is_announced=False) | Q(needs_approval=True),
            ),
            models.CheckConstraint(
                name="notices_broadcast_sent_is_approved",
                condition=Q(state=BroadcastState.SUBMITTED)
                | Q(stopped_at__isnull=False)
                | Q(approved_at__isnull=False),
            ),
            models.CheckConstraint(
                name="notices_broadcast_stopped_by_somebody",
                condition=Q(
                    state__in=(BroadcastState.STOPPING, BroadcastState.CANCELLED),
                    stopped_at__isnull=False,
                    stopped_by__isnull=False,
                )
                | Q(stopped_at=None, stopped_by=None)
                & ~Q(state__in=(BroadcastState.STOPPING, BroadcastState.CANCELLED)),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} of {self.composed_at:%Y-%m-%d}"


class BroadcastRecipient(models.Model):
    """Whom a message is still to be told. Written when it is submitted, and gone when he is told, or nobody will be."""

    broadcast = models.ForeignKey(
        Broadcast, models.PROTECT, related_name="left", verbose_name=_("message to many"), db_index=False
    )
    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("customer"), db_index=False
    )

    class Meta:
        verbose_name = _("recipient still to be told")
        verbose_name_plural = _("recipients still to be told")
        constraints = (
            models.UniqueConstraint("broadcast", "customer", name="notices_broadcastrecipient_once"),
        )

    def __str__(self) -> str:
        return f"{self.broadcast_id}: {self.customer_id}"
