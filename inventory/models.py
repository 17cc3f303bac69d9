"""Plans and their fees; the supply that is expected and the devices that arrived."""

from typing import Any, ClassVar

from django.conf import settings
from django.core.validators import MaxValueValidator, MinValueValidator
from django.db import models
from django.db.models import F, Q
from django.urls import reverse
from django.utils import timezone
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly, AppendOnlyQuerySet, WriteOnce
from inventory.money import Money


class Region(models.TextChoices):
    """Where a phone runs (ISO 3166-1)."""

    HONG_KONG = "HK", _("Hong Kong")
    SINGAPORE = "SG", _("Singapore")
    UNITED_STATES = "US", _("United States")
    GERMANY = "DE", _("Germany")


class Plan(models.Model):
    """A cloud phone model on sale."""

    name = models.CharField(_("name"), max_length=80)
    slug = models.SlugField(_("address in the shop"), unique=True)
    android = models.PositiveSmallIntegerField(_("Android version"))
    cpu_cores = models.PositiveSmallIntegerField(_("CPU cores"))
    ram_gb = models.PositiveSmallIntegerField(_("RAM, GB"))
    storage_gb = models.PositiveSmallIntegerField(_("storage, GB"))
    region = models.CharField(_("region"), max_length=2, choices=Region.choices)
    on_sale = models.BooleanField(_("on sale"), default=True)
    presale_cap = models.PositiveIntegerField(
        _("pre-sale cap"),
        default=0,
        help_text=_(
            "Units that may be sold beyond the devices that are free, as far as announced batches cover them. "
            "0: no pre-sale."
        ),
    )
    customer_limit = models.PositiveIntegerField(
        _("units per customer"),
        default=50,
        validators=[MinValueValidator(1), MaxValueValidator(10_000)],
        help_text=_("Units that one customer may have on order, paid or not, and not allocated yet."),
    )
    presale_bonus_days = models.PositiveSmallIntegerField(
        _("bonus days"),
        default=1,
        help_text=_("Days added to the service period of a phone bought on pre-sale."),
    )
    rank = models.PositiveSmallIntegerField(_("place in the shop"), default=0)

    class Meta:
        verbose_name = _("plan")
        verbose_name_plural = _("plans")
        ordering = ("rank", "id")

    def __str__(self) -> str:
        return f"{self.name} · Android {self.android} · {self.region}"

    def get_absolute_url(self) -> str:
        return reverse("orders:plan", args=[self.slug])


class Term(models.Model):
    """A service period of a plan."""

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="terms", verbose_name=_("plan"))
    days = models.PositiveSmallIntegerField(_("days"), validators=[MinValueValidator(1)])

    class Meta:
        verbose_name = _("term")
        verbose_name_plural = _("terms")
        ordering = ("plan", "days")
        constraints = (
            models.UniqueConstraint("plan", "days", name="inventory_term_unique"),
            models.CheckConstraint(name="inventory_term_days_positive", condition=Q(days__gt=0)),
        )

    def __str__(self) -> str:
        return f"{self.days} d"

    def is_offered_on_presale(self) -> bool:
        """Short terms are sold only while devices are free."""
        return self.days >= settings.PRESALE_MINIMUM_DAYS


class FeeSchedule(WriteOnce):
    """A dated price list of one currency, announced before it takes effect (agreement 3.2)."""

    currency = models.CharField(
        _("currency"), max_length=3, choices=[(c, c) for c in settings.SHOP_CURRENCIES]
    )
    announced_at = models.DateTimeField(_("announced"), default=timezone.now)
    effective_at = models.DateTimeField(_("takes effect"))

    written_once: ClassVar[tuple[str, ...]] = ("currency", "announced_at", "effective_at")

    class Meta:
        verbose_name = _("fee schedule")
        verbose_name_plural = _("fee schedules")
        ordering = ("-effective_at", "currency")
        constraints = (
            models.UniqueConstraint("currency", "effective_at", name="inventory_feeschedule_unique"),
            models.CheckConstraint(
                name="inventory_feeschedule_announced_first", condition=Q(announced_at__lte=F("effective_at"))
            ),
        )

    def __str__(self) -> str:
        return f"{self.currency}, {self.effective_at:%Y-%m-%d}"


class FeeQuerySet(AppendOnlyQuerySet):
    def in_force(self, *, currency: str, at: Any) -> dict[int, "Fee"]:
        """The fee of every term at the moment `at`, by term id: the latest effective schedule wins."""
        fees = self.filter(schedule__currency=currency, schedule__effective_at__lte=at).select_related(
            "schedule"
        )
        return {fee.term_id: fee for fee in fees.order_by("schedule__effective_at", "id")}


class Fee(AppendOnly):
    """What one phone costs for one term under one schedule."""

    schedule = models.ForeignKey(
        FeeSchedule, models.PROTECT, related_name="fees", verbose_name=_("fee schedule")
    )
    term = models.ForeignKey(Term, models.PROTECT, related_name="fees", verbose_name=_("term"))
    minor = models.PositiveBigIntegerField(_("amount in minor units"))

    objects: ClassVar[FeeQuerySet] = FeeQuerySet.as_manager()  # type: ignore[assignment]

    class Meta:
        verbose_name = _("fee")
        verbose_name_plural = _("fees")
        constraints = (
            models.UniqueConstraint("schedule", "term", name="inventory_fee_unique"),
            models.CheckConstraint(name="inventory_fee_positive", condition=Q(minor__gt=0)),
        )

    def __str__(self) -> str:
        return f"fee {self.pk}"

    @property
    def money(self) -> Money:
        return Money(self.minor, self.schedule.currency)


class BatchState(models.TextChoices):
    EXPECTED = "expected", _("expected")
    RECEIVED = "received", _("received")
    CANCELLED = "cancelled", _("cancelled")


class SupplyBatch(WriteOnce):
    """Devices of one plan expected on a date, later received.

    `first_expected_on` keeps what was said first: how late past batches came is measured from it.
    """

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="batches", verbose_name=_("plan"))
    reference = models.CharField(_("supplier's reference"), max_length=60, unique=True)
    quantity = models.PositiveIntegerField(_("quantity"), validators=[MinValueValidator(1)])
    expected_on = models.DateField(_("expected on"))
    first_expected_on = models.DateField(_("first expected on"), editable=False)
    state = models.CharField(
        _("state"), max_length=10, choices=BatchState.choices, default=BatchState.EXPECTED, editable=False
    )
    received_units = models.PositiveIntegerField(_("received"), default=0, editable=False)
    received_at = models.DateTimeField(_("received at"), null=True, editable=False)
    announced_at = models.DateTimeField(_("announced"), default=timezone.now, editable=False)

    written_once: ClassVar[tuple[str, ...]] = ("plan", "first_expected_on", "received_at", "announced_at")

    class Meta:
        verbose_name = _("supply batch")
        verbose_name_plural = _("supply batches")
        ordering = ("expected_on", "id")
        constraints = (
            models.CheckConstraint(
                name="inventory_supplybatch_state_known", condition=Q(state__in=BatchState.values)
            ),
            models.CheckConstraint(
                name="inventory_supplybatch_quantity_positive", condition=Q(quantity__gt=0)
            ),
            models.CheckConstraint(
                name="inventory_supplybatch_received_iff_dated",
                condition=Q(state=BatchState.RECEIVED, received_at__isnull=False)
                | ~Q(state=BatchState.RECEIVED) & Q(received_at=None),
            ),
        )

    def __str__(self) -> str:
        return self.reference

    @property
    def outstanding(self) -> int:
        """Units still to come."""
        return max(0, self.quantity - self.received_units) if self.state == BatchState.EXPECTED else 0


class OversellDecision(AppendOnly):
    """How many units of a plan may be sold although no announced batch covers them; the newest decision counts."""

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="oversell_decisions", verbose_name=_("plan"))
    units = models.PositiveIntegerField(_("units beyond the supply"))
    reason = models.CharField(_("reason"), max_length=500)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("decided by")
    )
    decided_at = models.DateTimeField(_("decided at"))

    class Meta:
        verbose_name = _("decision to sell beyond the supply")
        verbose_name_plural = _("decisions to sell beyond the supply")
        ordering = ("-id",)

    def __str__(self) -> str:
        return f"{self.units}, {self.decided_at:%Y-%m-%d}"


class SupplyReceipt(AppendOnly):
    """One CSV file of device codes that was taken in, whole."""

    batch = models.ForeignKey(
        SupplyBatch, models.PROTECT, related_name="receipts", verbose_name=_("supply batch")
    )
    file_name = models.CharField(_("file"), max_length=200)
    file_sha256 = models.CharField(_("sha256 of the file"), max_length=64)
    devices = models.PositiveIntegerField(_("devices"))
    received_at = models.DateTimeField(_("received at"))
    received_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("received by")
    )

    class Meta:
        verbose_name = _("supply receipt")
        verbose_name_plural = _("supply receipts")
        ordering = ("-received_at", "-id")

    def __str__(self) -> str:
        return f"{self.file_name}, {self.received_at:%Y-%m-%d}"


class DeviceState(models.TextChoices):
    FREE = "free", _("free")
    ALLOCATED = "allocated", _("allocated")
    QUARANTINED = "quarantined", _("quarantined")
    RETIRED = "retired", _("retired")


class Device(WriteOnce):
    """One cloud phone that can be given to a customer."""

    plan = models.ForeignKey(Plan, models.PROTECT, related_name="devices", verbose_name=_("plan"))
    code = models.CharField(_("code"), max_length=40, unique=True)
    state = models.CharField(
        _("state"), max_length=12, choices=DeviceState.choices, default=DeviceState.FREE, editable=False
    )
    receipt = models.ForeignKey(
        SupplyReceipt, models.PROTECT, related_name="received_devices", verbose_name=_("supply receipt")
    )

    written_once: ClassVar[tuple[str, ...]] = ("plan", "code", "receipt")

    class Meta:
        verbose_name = _("device")
        verbose_name_plural = _("devices")
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                name="inventory_device_state_known", condition=Q(state__in=DeviceState.values)
            ),
        )
        indexes = (
            # The sweep takes free devices of a plan in id order.
            models.Index(
                fields=["plan", "id"], name="inventory_device_free", condition=Q(state=DeviceState.FREE)
            ),
        )

    def __str__(self) -> str:
        return self.code


class Quarantine(WriteOnce):
    """A device that a customer had, out of use until a member of staff has looked at it."""

    device = models.ForeignKey(Device, models.PROTECT, related_name="quarantines", verbose_name=_("device"))
    reason = models.CharField(_("reason"), max_length=300)
    since = models.DateTimeField(_("since"))
    ended_at = models.DateTimeField(_("ended"), null=True)
    ended_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("ended by")
    )
    became = models.CharField(
        _("then"),
        max_length=12,
        choices=[(state.value, state.label) for state in (DeviceState.FREE, DeviceState.RETIRED)],
        blank=True,
    )
    note = models.TextField(_("what was found"), blank=True)

    written_once: ClassVar[tuple[str, ...]] = ("device", "reason", "since", "ended_at", "ended_by")

    class Meta:
        verbose_name = _("quarantine")
        verbose_name_plural = _("quarantines")
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint(
                "device", condition=Q(ended_at=None), name="inventory_quarantine_one_at_a_time"
            ),
            models.CheckConstraint(
                name="inventory_quarantine_ended_by_somebody",
                condition=Q(ended_at=None, ended_by=None, became="")
                | Q(
                    ended_at__isnull=False,
                    ended_by__isnull=False,
                    became__in=(DeviceState.FREE, DeviceState.RETIRED),
                )
                & ~Q(note=""),
            ),
        )

    def __str__(self) -> str:
        return f"{self.since:%Y-%m-%d}"
