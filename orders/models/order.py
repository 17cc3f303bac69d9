"""What one customer buys."""

import secrets
from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q, Sum
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from agreements.models import StatutoryRight
from evidence.models import WriteOnce
from inventory.models import Fee, Plan, Term
from inventory.money import Money

# Crockford's base 32 without letters that are read wrongly over the telephone.
REFERENCE_ALPHABET = "0123456789ABCDEFGHJKMNPQRSTVWXYZ"


def new_reference(prefix: str) -> str:
    """A reference a person can read out: `prefix` and 8 random characters (10^12 of them)."""
    return f"{prefix}-" + "".join(secrets.choice(REFERENCE_ALPHABET) for _ in range(8))


class OrderState(models.TextChoices):
    AWAITING_GUARDIAN = "guardian", _("awaiting the guardian's confirmation")
    UNPAID = "unpaid", _("awaiting payment")
    PAID = "paid", _("paid")
    EXPIRED = "expired", _("expired unpaid")
    CANCELLED = "cancelled", _("cancelled before payment")

    @classmethod
    def open(cls) -> tuple["OrderState", ...]:
        """States in which an order may still be paid one day, and keeps its units until then."""
        return (cls.AWAITING_GUARDIAN, cls.UNPAID)


class Order(WriteOnce):
    """Lines at a fixed fee, accepted agreements and a deadline.

    The deadline `pay_until` is for the payment; of an order that awaits its buyer's guardian, for the
    guardian, and confirming sets a new one. `paid_at` is the provider's capture time and is set once; so is
    everything that was agreed.
    """

    reference = models.CharField(_("reference"), max_length=20, unique=True)
    customer = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="orders", verbose_name=_("customer")
    )
    # One checkout page places one order, however often its button is pressed.
    checkout_key = models.UUIDField(_("checkout"), unique=True)
    state = models.CharField(_("state"), max_length=10, choices=OrderState.choices, default=OrderState.UNPAID)
    # Where the buyer lives (ISO 3166-1 alpha-2), and what the law there gave him when he ordered.
    country = models.CharField(_("country of residence"), max_length=2)
    right = models.ForeignKey(
        StatutoryRight, models.PROTECT, null=True, related_name="orders", verbose_name=_("statutory right")
    )
    withdraw_until = models.DateTimeField(_("may withdraw until"), null=True)
    currency = models.CharField(_("currency"), max_length=3)
    total_minor = models.PositiveBigIntegerField(_("total in minor units"))
    placed_at = models.DateTimeField(_("placed at"))
    pay_until = models.DateTimeField(_("to be paid until"))
    paid_at = models.DateTimeField(_("paid at"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "reference",
        "customer",
        "checkout_key",
        "country",
        "right",
        "withdraw_until",
        "currency",
        "total_minor",
        "placed_at",
        "paid_at",
    )

    class Meta:
        verbose_name = _("order")
        verbose_name_plural = _("orders")
        ordering = ("-placed_at", "-id")
        constraints = (
            models.CheckConstraint(name="orders_order_state_known", condition=Q(state__in=OrderState.values)),
            models.CheckConstraint(
                name="orders_order_paid_at_iff_paid",
                condition=Q(state=OrderState.PAID, paid_at__isnull=False)
                | ~Q(state=OrderState.PAID) & Q(paid_at=None),
            ),
            models.CheckConstraint(
                name="orders_order_withdrawal_by_a_right",
                condition=Q(right=None, withdraw_until=None)
                | Q(right__isnull=False, withdraw_until__isnull=False),
            ),
            models.CheckConstraint(name="orders_order_total_positive", condition=Q(total_minor__gt=0)),
        )
        indexes = (
            models.Index(fields=["customer", "-placed_at"], name="orders_order_of_customer"),
            models.Index(
                fields=["pay_until"],
                name="orders_order_open",
                condition=Q(state__in=(OrderState.AWAITING_GUARDIAN, OrderState.UNPAID)),
            ),
        )

    def __str__(self) -> str:
        return self.reference

    def get_absolute_url(self) -> str:
        return reverse("orders:order", args=[self.reference])

    @property
    def total(self) -> Money:
        return Money(self.total_minor, self.currency)

    def is_payable(self, now: datetime) -> bool:
        """Whether a payment may be begun at `now`."""
        return self.state == OrderState.UNPAID and now < self.pay_until

    def awaits_guardian(self, now: datetime) -> bool:
        """Whether a guardian can confirm or refuse at `now`."""
        return self.state == OrderState.AWAITING_GUARDIAN and now < self.pay_until

    def can_be_withdrawn_from(self, now: datetime) -> bool:
        """Whether the law gives the customer a right to withdraw at `now`, and there is something to leave."""
        return (
            self.state in (OrderState.UNPAID, OrderState.PAID)
            and self.withdraw_until is not None
            and now < self.withdraw_until
        )


class LineState(models.TextChoices):
    UNPAID = "unpaid", _("awaiting payment")
    WAITING = "waiting", _("in the queue")
    HELD = "held", _("on hold: its payment is disputed")
    ALLOCATED = "allocated", _("allocated")
    WITHDRAWN = "withdrawn", _("refunded")


# Units of a line that still wait for a device.
WAITING_UNITS = F("quantity") - F("allocated") - F("withdrawn")


class LineQuerySet(models.QuerySet["OrderLine"]):
    def waiting(self, *, plan_id: int) -> "LineQuerySet":
        """The queue of a plan: first served first."""
        return self.filter(plan_id=plan_id, state=LineState.WAITING).order_by("paid_at", "id")

    def in_queue(self) -> "LineQuerySet":
        """Lines with a place in a queue, on hold or not."""
        return self.filter(state__in=(LineState.WAITING, LineState.HELD))

    def units(self) -> int:
        """Units of these lines that wait, or would wait once paid."""
        return self.aggregate(units=Sum(WAITING_UNITS))["units"] or 0


class OrderLine(WriteOnce):
    """One plan for one term, in a quantity. Paid, it stands in the queue of its plan by (`paid_at`, id)."""

    order = models.ForeignKey(Order, models.PROTECT, related_name="lines", verbose_name=_("order"))
    plan = models.ForeignKey(Plan, models.PROTECT, related_name="lines", verbose_name=_("plan"))
    term = models.ForeignKey(Term, models.PROTECT, related_name="lines", verbose_name=_("term"))
    fee = models.ForeignKey(Fee, models.PROTECT, related_name="lines", verbose_name=_("fee"))
    unit_minor = models.PositiveBigIntegerField(_("fee in minor units"))
    quantity = models.PositiveIntegerField(_("quantity"))
    # Fixed when the order is placed, with the fee: what the customer was promised.
    is_presale = models.BooleanField(_("bought on pre-sale"))
    bonus_days = models.PositiveSmallIntegerField(_("bonus days"), default=0)
    state = models.CharField(_("state"), max_length=10, choices=LineState.choices, default=LineState.UNPAID)
    paid_at = models.DateTimeField(_("paid at"), null=True)
    allocated = models.PositiveIntegerField(_("units allocated"), default=0)
    withdrawn = models.PositiveIntegerField(_("units refunded"), default=0)
    # Units whose device failed when no other was free: they wait again, at the line's old place.
    returned = models.PositiveIntegerField(_("units that waited again"), default=0)

    written_once: ClassVar[tuple[str, ...]] = (
        "order",
        "plan",
        "term",
        "fee",
        "unit_minor",
        "quantity",
        "is_presale",
        "bonus_days",
        "paid_at",
    )

    objects = LineQuerySet.as_manager()

    class Meta:
        verbose_name = _("order line")
        verbose_name_plural = _("order lines")
        ordering = ("id",)
        constraints = (
            models.CheckConstraint(
                name="orders_orderline_state_known", condition=Q(state__in=LineState.values)
            ),
            models.CheckConstraint(name="orders_orderline_quantity_positive", condition=Q(quantity__gt=0)),
            models.CheckConstraint(
                name="orders_orderline_units_within_quantity",
                condition=Q(quantity__gte=F("allocated") + F("withdrawn")),
            ),
            models.CheckConstraint(
                name="orders_orderline_unpaid_iff_no_paid_at",
                condition=Q(state=LineState.UNPAID, paid_at=None, allocated=0, withdrawn=0)
                | ~Q(state=LineState.UNPAID) & Q(paid_at__isnull=False),
            ),
            models.CheckConstraint(
                name="orders_orderline_waiting_iff_units_wait",
                condition=Q(
                    state__in=(LineState.WAITING, LineState.HELD),
                    quantity__gt=F("allocated") + F("withdrawn"),
                )
                | Q(state=LineState.UNPAID)
                | Q(state=LineState.ALLOCATED, quantity=F("allocated") + F("withdrawn"), allocated__gt=0)
                | Q(state=LineState.WITHDRAWN, quantity=F("withdrawn"), allocated=0),
            ),
        )
        indexes = (
            models.Index(
                fields=["plan", "paid_at", "id"],
                name="orders_orderline_queue",
                condition=Q(state=LineState.WAITING),
                include=("quantity", "allocated", "withdrawn"),
            ),
        )

    def __str__(self) -> str:
        return f"line {self.pk}"

    @property
    def unit_fee(self) -> Money:
        """Needs `order` loaded."""
        return Money(self.unit_minor, self.order.currency)

    @property
    def total(self) -> Money:
        """Needs `order` loaded."""
        return self.unit_fee * self.quantity

    @property
    def waiting_units(self) -> int:
        return self.quantity - self.allocated - self.withdrawn
