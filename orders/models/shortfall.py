"""Supply that will not come: what the platform cannot deliver, and what it gives back for it (agreement 3.3)."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from evidence.models import WriteOnce
from inventory.models import Plan, SupplyBatch
from orders.models.order import OrderLine
from orders.models.refund import Refund


class ShortfallState(models.TextChoices):
    DECLARED = "declared", _("awaiting approval")
    REJECTED = "rejected", _("rejected")
    APPROVED = "approved", _("approved")


class Shortfall(WriteOnce):
    """The platform is unable to supply a plan, or a batch of it, and refunds the units that wait for it.

    Which units is written down when it is declared (`ShortfallLine`), before the second person decides.
    """

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="shortfalls", verbose_name=_("plan"))
    # Empty: all that waits, whatever is announced.
    batch = models.ForeignKey(
        SupplyBatch, models.PROTECT, null=True, related_name="shortfalls", verbose_name=_("supply batch")
    )
    reason = models.TextField(_("reason"))
    state = models.CharField(
        _("state"), max_length=10, choices=ShortfallState.choices, default=ShortfallState.DECLARED
    )
    declared_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("declared by")
    )
    declared_at = models.DateTimeField(_("declared at"))
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("decided by")
    )
    decided_at = models.DateTimeField(_("decided at"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "plan",
        "batch",
        "reason",
        "declared_by",
        "declared_at",
        "decided_by",
        "decided_at",
    )

    class Meta:
        verbose_name = _("shortfall")
        verbose_name_plural = _("shortfalls")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="orders_shortfall_state_known", condition=Q(state__in=ShortfallState.values)
            ),
            models.CheckConstraint(name="orders_shortfall_explained", condition=~Q(reason="")),
            models.CheckConstraint(
                name="orders_shortfall_decided_by_a_second_person",
                condition=Q(decided_by=None, decided_at=None, state=ShortfallState.DECLARED)
                | Q(decided_by__isnull=False, decided_at__isnull=False)
                & ~Q(decided_by=F("declared_by"))
                & ~Q(state=ShortfallState.DECLARED),
            ),
        )

    def __str__(self) -> str:
        return f"{self.declared_at:%Y-%m-%d}"


class ShortfallLineState(models.TextChoices):
    PENDING = "pending", _("to be refunded")
    REFUNDED = "refunded", _("refunded")
    SERVED = "served", _("does not wait any more")
    FAILED = "failed", _("failed")


class ShortfallLine(WriteOnce):
    """Units of one line that a shortfall is to refund, and what has become of that.

    `refund` may be over fewer units: some were served, or refunded otherwise, meanwhile.
    """

    shortfall = models.ForeignKey(
        Shortfall, models.PROTECT, related_name="lines", verbose_name=_("shortfall")
    )
    line = models.ForeignKey(
        OrderLine, models.PROTECT, related_name="shortfall_lines", verbose_name=_("order line")
    )
    units = models.PositiveIntegerField(_("units"))
    state = models.CharField(
        _("state"), max_length=10, choices=ShortfallLineState.choices, default=ShortfallLineState.PENDING
    )
    refund = models.ForeignKey(
        Refund, models.PROTECT, null=True, related_name="shortfall_lines", verbose_name=_("refund")
    )
    problem = models.CharField(_("problem"), max_length=300, blank=True)

    written_once: ClassVar[tuple[str, ...]] = ("shortfall", "line", "units", "refund")

    class Meta:
        verbose_name = _("line of a shortfall")
        verbose_name_plural = _("lines of shortfalls")
        ordering = ("id",)
        constraints = (
            models.UniqueConstraint("shortfall", "line", name="orders_shortfallline_unique"),
            models.CheckConstraint(name="orders_shortfallline_units_positive", condition=Q(units__gt=0)),
            models.CheckConstraint(
                name="orders_shortfallline_state_known", condition=Q(state__in=ShortfallLineState.values)
            ),
            models.CheckConstraint(
                name="orders_shortfallline_refunded_by_a_refund",
                condition=Q(state=ShortfallLineState.REFUNDED, refund__isnull=False)
                | ~Q(state=ShortfallLineState.REFUNDED) & Q(refund=None),
            ),
            models.CheckConstraint(
                name="orders_shortfallline_failed_with_a_reason",
                condition=Q(state=ShortfallLineState.FAILED) & ~Q(problem="")
                | ~Q(state=ShortfallLineState.FAILED) & Q(problem=""),
            ),
        )
        indexes = (
            models.Index(
                fields=["shortfall", "id"],
                name="orders_shortfallline_to_do",
                condition=Q(state=ShortfallLineState.PENDING),
            ),
        )

    def __str__(self) -> str:
        return f"line {self.line_id}"
