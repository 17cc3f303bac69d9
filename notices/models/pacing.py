"""How fast a channel may be used, and whether it is at all."""

from django.conf import settings
from django.db import models
from django.utils.translation import gettext_lazy as _


class ChannelPace(models.Model):
    """A channel's tokens (one for each sending) and its breaker. Whoever claims deliveries locks the row."""

    channel = models.CharField(_("channel"), max_length=20, primary_key=True)
    tokens = models.FloatField(_("tokens"), default=0)
    filled_at = models.DateTimeField(_("filled"), null=True)
    # Failures in a row that say something of the provider, not of one address.
    failures = models.PositiveIntegerField(_("failures in a row"), default=0)
    open_until = models.DateTimeField(_("not tried before"), null=True)
    last_problem = models.CharField(_("last problem"), max_length=300, blank=True)
    paused_at = models.DateTimeField(_("paused"), null=True)
    paused_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("paused by")
    )

    class Meta:
        verbose_name = _("channel")
        verbose_name_plural = _("channels")

    def __str__(self) -> str:
        return self.channel
