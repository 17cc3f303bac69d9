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
        "dedupe_key",
        "withdrawn_at",
    )

    class Meta:
        verbose_name = _("announcement")
        verbose_name_plural = _("announcements")
        ordering = ("-id",)
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
    CANCELLED = "cancelled", _("cancelled")


class Broadcast(WriteOnce):
    """A message that staff have submitted to a segment of the customers; approved, it is made into notices bit by bit.

    `segment` is what `notices.broadcasts` understands, `texts` as in `Announcement`. `recipients` is how many it went
    to when it was submitted. `cursor` is the id of the last customer who was told.
    """

    kind = models.CharField(_("kind"), max_length=40, choices=[(k.slug, k.label) for k in KINDS.values()])
    segment = models.JSONField(_("segment"), default=dict, blank=True)
    texts = models.JSONField(_("texts"))
    is_announced = models.BooleanField(_("also on the site"), default=False)
    state = models.CharField(
        _("state"), max_length=10, choices=BroadcastState.choices, default=BroadcastState.SUBMITTED
    )
    composed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("composed by")
    )
    composed_at = models.DateTimeField(_("composed"))
    recipients = models.PositiveIntegerField(_("recipients"))
    # Whether so many need a second person's word.
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
    cursor = models.PositiveBigIntegerField(_("told up to"), default=0)
    told = models.PositiveIntegerField(_("told"), default=0)
    ended_at = models.DateTimeField(_("ended"), null=True, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "kind",
        "segment",
        "texts",
        "is_announced",
        "composed_by",
        "composed_at",
        "recipients",
        "needs_approval",
        "approved_by",
        "approved_at",
        "ended_at",
    )

    class Meta:
        verbose_name = _("message to many")
        verbose_name_plural = _("messages to many")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="notices_broadcast_second_person",
                condition=Q(needs_approval=False) | Q(approved_by=None) | ~Q(approved_by=F("composed_by")),
                violation_error_message=_("Somebody else has to approve it."),
            ),
            models.CheckConstraint(
                name="notices_broadcast_sent_is_approved",
                condition=Q(state__in=(BroadcastState.SUBMITTED, BroadcastState.CANCELLED))
                | Q(approved_at__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return f"{self.kind} of {self.composed_at:%Y-%m-%d}"
