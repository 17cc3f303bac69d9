"""Money given back, on a ground the agreement knows and with a second person's approval."""

from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from agreements.models import StatutoryRight
from evidence.models import AppendOnly, WriteOnce
from inventory.money import Money
from orders.models.order import Order, OrderLine
from orders.models.payment import PaymentAttempt


class Ground(models.TextChoices):
    """Why a sale is refunded in the pre-sale period (agreement 3.3); there is no third ground."""

    LAW = "law", _("required by law (3.3)")
    UNABLE_TO_SUPPLY = "unable-to-supply", _("the platform is unable to supply (3.3)")


class RefundState(models.TextChoices):
    REQUESTED = "requested", _("awaiting approval")
    REJECTED = "rejected", _("rejected")
    APPROVED = "approved", _("approved, money on its way")
    PAID = "paid", _("paid back")
    FAILED = "failed", _("refused by the gateway")


class SentBack(WriteOnce):
    """Money on its way back: under a key of its own for each time that it is sent.

    A gateway answers a key that it knows with the return that it has, the failed one included.
    """

    reference = models.CharField(_("reference"), max_length=28, unique=True)
    tries = models.PositiveSmallIntegerField(_("times sent"), default=1)

    class Meta:
        abstract = True

    @property
    def keys(self) -> list[str]:
        """Every key that it was sent by, the newest last."""
        return [self.reference if n == 1 else f"{self.reference}-{n}" for n in range(1, self.tries + 1)]

    @property
    def key(self) -> str:
        return self.keys[-1]


class Refund(SentBack):
    """Units of one order that are taken back, and the money for them."""

    order = models.ForeignKey(Order, models.PROTECT, related_name="refunds", verbose_name=_("order"))
    attempt = models.ForeignKey(
        PaymentAttempt, models.PROTECT, related_name="refunds", verbose_name=_("paid by")
    )
    ground = models.CharField(_("ground"), max_length=20, choices=Ground.choices)
    # The rule that requires it, and the right it comes from if that is one of ours; for LAW only.
    legal_basis = models.CharField(_("legal basis"), max_length=200, blank=True)
    right = models.ForeignKey(
        StatutoryRight, models.PROTECT, null=True, related_name="+", verbose_name=_("statutory right")
    )
    explanation = models.TextField(_("explanation"))
    state = models.CharField(
        _("state"), max_length=10, choices=RefundState.choices, default=RefundState.REQUESTED
    )
    minor = models.PositiveBigIntegerField(_("amount in minor units"))
    requested_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("requested by")
    )
    requested_at = models.DateTimeField(_("requested at"))
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("decided by")
    )
    decided_at = models.DateTimeField(_("decided at"), null=True)
    paid_at = models.DateTimeField(_("paid back at"), null=True)
    problem = models.CharField(_("problem"), max_length=300, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "order",
        "attempt",
        "reference",
        "ground",
        "legal_basis",
        "right",
        "explanation",
        "minor",
        "requested_by",
        "requested_at",
        "decided_by",
        "decided_at",
        "paid_at",
    )

    class Meta:
        verbose_name = _("refund")
        verbose_name_plural = _("refunds")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="orders_refund_state_known", condition=Q(state__in=RefundState.values)
            ),
            models.CheckConstraint(name="orders_refund_ground_known", condition=Q(ground__in=Ground.values)),
            models.CheckConstraint(
                name="orders_refund_by_law_names_the_rule",
                condition=Q(ground=Ground.LAW) & ~Q(legal_basis="")
                | ~Q(ground=Ground.LAW) & Q(legal_basis="", right=None),
            ),
            models.CheckConstraint(name="orders_refund_explained", condition=~Q(explanation="")),
            models.CheckConstraint(
                name="orders_refund_decided_by_a_second_person",
                condition=Q(decided_by=None, state=RefundState.REQUESTED)
                | Q(decided_by__isnull=False)
                & ~Q(decided_by=F("requested_by"))
                & ~Q(state=RefundState.REQUESTED),
            ),
        )
        indexes = (
            models.Index(
                fields=["id"], name="orders_refund_to_send", condition=Q(state=RefundState.APPROVED)
            ),
        )

    def __str__(self) -> str:
        return self.reference

    @property
    def amount(self) -> Money:
        """Needs `order` loaded."""
        return Money(self.minor, self.order.currency)


class ReturnReason(models.TextChoices):
    """Why money belongs to no sale."""

    LATE = "late", _("it came after the order had ended")
    DUPLICATE = "duplicate", _("the order was paid already")
    SURPLUS = "surplus", _("it was more than the order costs")
    WRONG_CURRENCY = "wrong-currency", _("it came in another currency")
    INCOMPLETE = "incomplete", _("it never covered the order")


class ReturnState(models.TextChoices):
    DUE = "due", _("on its way")
    PAID = "paid", _("given back")
    FAILED = "failed", _("refused by the gateway")


class MoneyReturn(SentBack):
    """Money that was paid for nothing and goes back the way it came. No sale is refunded by it."""

    order = models.ForeignKey(Order, models.PROTECT, related_name="money_returns", verbose_name=_("order"))
    attempt = models.ForeignKey(
        PaymentAttempt, models.PROTECT, related_name="money_returns", verbose_name=_("paid by")
    )
    reason = models.CharField(_("reason"), max_length=20, choices=ReturnReason.choices)
    minor = models.PositiveBigIntegerField(_("amount in minor units"))
    currency = models.CharField(_("currency"), max_length=3)
    state = models.CharField(_("state"), max_length=10, choices=ReturnState.choices, default=ReturnState.DUE)
    due_at = models.DateTimeField(_("due since"))
    # Empty where the shop decided by itself: late and duplicate money always goes back.
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("decided by")
    )
    paid_at = models.DateTimeField(_("given back at"), null=True)
    problem = models.CharField(_("problem"), max_length=300, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "order",
        "attempt",
        "reference",
        "reason",
        "minor",
        "currency",
        "due_at",
        "decided_by",
        "paid_at",
    )

    class Meta:
        verbose_name = _("returned money")
        verbose_name_plural = _("returned money")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="orders_moneyreturn_state_known", condition=Q(state__in=ReturnState.values)
            ),
            models.CheckConstraint(
                name="orders_moneyreturn_reason_known", condition=Q(reason__in=ReturnReason.values)
            ),
            models.CheckConstraint(name="orders_moneyreturn_positive", condition=Q(minor__gt=0)),
        )
        indexes = (
            models.Index(fields=["id"], name="orders_return_to_send", condition=Q(state=ReturnState.DUE)),
        )

    def __str__(self) -> str:
        return self.reference

    @property
    def money(self) -> Money:
        return Money(self.minor, self.currency)


class RefundLine(AppendOnly):
    """How many units of one line a refund takes back."""

    refund = models.ForeignKey(Refund, models.PROTECT, related_name="lines", verbose_name=_("refund"))
    line = models.ForeignKey(
        OrderLine, models.PROTECT, related_name="refund_lines", verbose_name=_("order line")
    )
    units = models.PositiveIntegerField(_("units"))

    class Meta:
        verbose_name = _("refunded line")
        verbose_name_plural = _("refunded lines")
        constraints = (
            models.UniqueConstraint("refund", "line", name="orders_refundline_unique"),
            models.CheckConstraint(name="orders_refundline_units_positive", condition=Q(units__gt=0)),
        )

    def __str__(self) -> str:
        return f"{self.units} units"
