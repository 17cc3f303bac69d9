"""Letters: printed in batches, and posted by people."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly, WriteOnce
from notices.models.outbox import Delivery


class LetterBatch(WriteOnce):
    """Letters that were printed together. The day on which they were posted is their sending date (VIII)."""

    pdf = models.BinaryField(_("PDF"))
    sha256 = models.CharField(_("sha256"), max_length=64)
    printed_at = models.DateTimeField(_("printed"))
    printed_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("printed by")
    )
    posted_on = models.DateField(_("posted on"), null=True)
    posted_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("posted by")
    )
    # What the post gave for them.
    receipt = models.CharField(_("receipt"), max_length=100, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "pdf",
        "sha256",
        "printed_at",
        "printed_by",
        "posted_on",
        "posted_by",
    )

    class Meta:
        verbose_name = _("batch of letters")
        verbose_name_plural = _("batches of letters")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="notices_letterbatch_posted_by_somebody",
                condition=Q(posted_on=None, posted_by=None)
                | Q(posted_on__isnull=False, posted_by__isnull=False),
            ),
        )

    def __str__(self) -> str:
        return _("batch %(number)s") % {"number": self.pk}


class Letter(AppendOnly):
    """A delivery that is on paper, in a batch."""

    delivery = models.OneToOneField(
        Delivery, models.PROTECT, related_name="letter", verbose_name=_("delivery")
    )
    batch = models.ForeignKey(
        LetterBatch, models.PROTECT, related_name="letters", verbose_name=_("batch of letters")
    )
    # Of the attempt at the delivery that it is.
    attempt = models.PositiveSmallIntegerField(_("attempt"))

    class Meta:
        verbose_name = _("letter")
        verbose_name_plural = _("letters")
        ordering = ("id",)

    def __str__(self) -> str:
        return str(self.delivery)
