"""Who got which device, and what those who wait were told."""

from typing import ClassVar

from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly, WriteOnce
from inventory.models import Device, Plan
from orders.models.order import OrderLine


class Allocation(WriteOnce):
    """One device given to one unit of a line, with its service period (agreement 5.1).

    `unit` counts the units of a line that were given devices, from 1; a device that replaces another bears its
    number. `ended_at` marks an allocation that is over: the device was replaced, or the period is past.
    """

    line = models.ForeignKey(
        OrderLine, models.PROTECT, related_name="allocations", verbose_name=_("order line")
    )
    unit = models.PositiveIntegerField(_("unit"))
    device = models.ForeignKey(Device, models.PROTECT, related_name="allocations", verbose_name=_("device"))
    starts_at = models.DateTimeField(_("service starts"))
    ends_at = models.DateTimeField(_("service ends"))
    ended_at = models.DateTimeField(_("ended"), null=True)

    written_once: ClassVar[tuple[str, ...]] = ("line", "unit", "device", "starts_at", "ended_at")

    class Meta:
        verbose_name = _("allocation")
        verbose_name_plural = _("allocations")
        ordering = ("-starts_at", "-id")
        constraints = (
            models.UniqueConstraint(
                "device", condition=Q(ended_at=None), name="orders_allocation_device_once"
            ),
            models.UniqueConstraint(
                "line", "unit", condition=Q(ended_at=None), name="orders_allocation_unit_once"
            ),
            models.CheckConstraint(name="orders_allocation_period", condition=Q(ends_at__gt=F("starts_at"))),
            models.CheckConstraint(name="orders_allocation_unit_counted_from_1", condition=Q(unit__gt=0)),
        )
        # How many were allocated lately: estimates beyond the announced supply rest on it.
        indexes = (models.Index(fields=["starts_at"], name="orders_allocation_when"),)

    def __str__(self) -> str:
        return f"allocation {self.pk}"


class Basis(models.TextChoices):
    """What an estimate is based on."""

    FREE = "free", _("devices that are free")
    SUPPLY = "supply", _("announced supply batches")
    RATE = "rate", _("allocations of the last three months")
    UNKNOWN = "unknown", _("not known yet")


class Cause(models.TextChoices):
    """Why an estimate was made."""

    PAYMENT = "payment", _("your payment")
    SUPPLY_LATE = "late", _("supply that comes later than announced")
    SUPPLY_CUT = "cut", _("fewer devices than announced")
    SUPPLY_MORE = "more", _("supply that comes earlier, or more of it")
    LATE_PAYMENTS = "payments", _("payments before yours that were confirmed late")
    REFUNDS = "refunds", _("refunds ahead of you")
    TURN = "turn", _("those ahead of you got their phones")
    PACE = "pace", _("how fast devices have been coming lately")
    SCHEDULE = "schedule", _("the promised regular update")


class Forecast(AppendOnly):
    """What all estimates of a plan were computed from, for as long as it stayed the same (see `windows.Outlook`)."""

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="forecasts", verbose_name=_("plan"))
    made_at = models.DateTimeField(_("made at"))
    inputs = models.JSONField(_("computed from"))

    class Meta:
        verbose_name = _("forecast")
        verbose_name_plural = _("forecasts")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.made_at:%Y-%m-%d %H:%M}"


class EstimateRound(AppendOnly):
    """The estimates of a queue were looked at, as far as they may have changed since the round before.

    `cuts` are where the steps of the forecast cut the queue (see `stretches.py`): [time, line, units before it] each.
    """

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="estimate_rounds", verbose_name=_("plan"))
    forecast = models.ForeignKey(Forecast, models.PROTECT, related_name="rounds", verbose_name=_("forecast"))
    began_at = models.DateTimeField(_("began"))
    cuts = models.JSONField(_("where the supply ends"), default=list)
    recorded = models.PositiveIntegerField(_("estimates recorded"))

    class Meta:
        verbose_name = _("round of estimates")
        verbose_name_plural = _("rounds of estimates")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.began_at:%Y-%m-%d %H:%M}"


class Estimate(AppendOnly):
    """The window in which the last unit of a line is expected to be allocated (agreement 3.3).

    Dates are contract dates (Asia/Hong_Kong). `likely` should hold in one of two cases, `latest` in nine of ten
    (how, says `windows.py`). All three are empty when the basis is UNKNOWN.
    """

    line = models.ForeignKey(
        OrderLine, models.PROTECT, related_name="estimates", verbose_name=_("order line")
    )
    # Counts the estimates of a line from 1: two jobs at once make the same next one, and one of them wins.
    number = models.PositiveIntegerField(_("number"))
    made_at = models.DateTimeField(_("made at"))
    earliest = models.DateField(_("earliest"), null=True)
    likely = models.DateField(_("likely"), null=True)
    latest = models.DateField(_("latest"), null=True)
    next_update_by = models.DateField(_("next update by"))
    basis = models.CharField(_("based on"), max_length=10, choices=Basis.choices)
    cause = models.CharField(_("cause"), max_length=10, choices=Cause.choices)
    units_ahead = models.PositiveIntegerField(_("units ahead"))
    forecast = models.ForeignKey(
        Forecast, models.PROTECT, related_name="estimates", verbose_name=_("computed from")
    )

    class Meta:
        verbose_name = _("estimate")
        verbose_name_plural = _("estimates")
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint("line", "number", name="orders_estimate_unique"),
            models.CheckConstraint(
                name="orders_estimate_window_in_order",
                condition=Q(earliest__isnull=False, likely__gte=F("earliest"), latest__gte=F("likely"))
                & ~Q(basis=Basis.UNKNOWN)
                | Q(basis=Basis.UNKNOWN, earliest=None, likely=None, latest=None),
            ),
        )

    def __str__(self) -> str:
        return f"{self.likely or self.basis}"
