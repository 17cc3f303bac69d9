"""Where and when customers want to be reached, beside their inbox and the email address of their account."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from evidence.models import WriteOnce
from notices.kinds import KINDS


class ContactPoint(WriteOnce):
    """One address of a customer at a channel. Only a verified one that was not removed is written to.

    `details` is what the channel needs beside the address: the keys of a browser's subscription, the lines of a
    postal address. A row stays when the address is given up: what was sent there refers to it.
    """

    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="contact_points", verbose_name=_("customer")
    )
    channel = models.CharField(_("channel"), max_length=20)
    # A phone number as in E.164, the endpoint of a subscription, an openid, a postal address in one line.
    address = models.CharField(_("address"), max_length=500)
    details = models.JSONField(_("details"), default=dict, blank=True)
    label = models.CharField(_("name"), max_length=100, blank=True)
    created_at = models.DateTimeField(_("created"))
    # When the code was last sent that proves the address, and how many wrong ones have come since.
    asked_at = models.DateTimeField(_("code sent"), null=True, blank=True)
    wrong_codes = models.PositiveSmallIntegerField(_("wrong codes"), default=0)
    verified_at = models.DateTimeField(_("verified"), null=True, blank=True)
    removed_at = models.DateTimeField(_("removed"), null=True, blank=True)
    removal = models.CharField(_("reason of removal"), max_length=200, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "customer",
        "channel",
        "address",
        "details",
        "created_at",
        "verified_at",
        "removed_at",
    )

    class Meta:
        verbose_name = _("contact point")
        verbose_name_plural = _("contact points")
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint(
                "customer",
                "channel",
                "address",
                name="notices_contactpoint_once",
                condition=Q(removed_at=None),
            ),
        )
        indexes = (
            models.Index(fields=["channel", "address"], name="notices_contactpoint_address"),
            models.Index(
                fields=["customer", "channel"],
                name="notices_contactpoint_in_use",
                condition=Q(verified_at__isnull=False, removed_at=None),
            ),
        )

    def __str__(self) -> str:
        return self.label or self.address


class Preference(models.Model):
    """A customer's word on whether a kind of notice shall come by a channel. Without one, the kind decides."""

    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="preferences", verbose_name=_("customer")
    )
    kind = models.CharField(_("kind"), max_length=40, choices=[(k.slug, k.label) for k in KINDS.values()])
    channel = models.CharField(_("channel"), max_length=20)
    is_wanted = models.BooleanField(_("wanted"))
    changed_at = models.DateTimeField(_("changed"))

    class Meta:
        verbose_name = _("preference")
        verbose_name_plural = _("preferences")
        constraints = (
            models.UniqueConstraint("customer", "kind", "channel", name="notices_preference_once"),
        )

    def __str__(self) -> str:
        return f"{self.kind} by {self.channel}: {self.is_wanted}"


class QuietHours(models.Model):
    """When a customer's phone shall not ring for what can wait, at his own time of day; over midnight if it ends earlier."""

    customer = models.OneToOneField(
        settings.AUTH_USER_MODEL, models.CASCADE, related_name="quiet_hours", verbose_name=_("customer")
    )
    begin_at = models.TimeField(_("from"))
    end_at = models.TimeField(_("until"))

    class Meta:
        verbose_name = _("quiet hours")
        verbose_name_plural = _("quiet hours")
        constraints = (
            models.CheckConstraint(
                name="notices_quiethours_some",
                condition=~Q(begin_at=F("end_at")),
                violation_error_message=_("The quiet hours begin and end at the same time."),
            ),
        )

    def __str__(self) -> str:
        return f"{self.begin_at:%H:%M} to {self.end_at:%H:%M}"
