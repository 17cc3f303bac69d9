"""Staff's own words for a kind of notice, in the place of those that ship with the code."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly
from notices.kinds import KINDS, Form


class Wording(AppendOnly):
    """The words of a kind in a language; the newest counts. An empty body goes back to the shipped words."""

    kind = models.CharField(_("kind"), max_length=40, choices=[(k.slug, k.label) for k in KINDS.values()])
    language = models.CharField(_("language"), max_length=10, choices=settings.LANGUAGES)
    form = models.CharField(_("form"), max_length=5, choices=[(form.value, form.label) for form in Form])
    subject = models.CharField(_("subject"), max_length=500, blank=True)
    body = models.TextField(_("text"), blank=True)
    written_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("written by")
    )
    written_at = models.DateTimeField(_("written"))

    class Meta:
        verbose_name = _("wording")
        verbose_name_plural = _("wordings")
        ordering = ("-id",)
        indexes = (models.Index(fields=["kind", "language", "form", "-id"], name="notices_wording_newest"),)

    def __str__(self) -> str:
        return f"{self.kind} in {self.language}, {self.form}"
