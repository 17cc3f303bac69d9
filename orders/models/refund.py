"""Money given back, on a ground the agreement knows and with a second person's approval."""

from datetime import datetime
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import F, Q
from django.utils.translation import gettext_lazy as _

from agreements.models import StatutoryRight
from evidence.models import AppendOnly, WriteOnce
from inventory.money import Money
from orders.models.order import Order, OrderLine
from orders.models.payment import LedgerEntry, PaymentAttempt
from orders.models.queue import Allocation


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

    @classmethod
    def granted(cls) -> tuple["RefundState", ...]:
        """States in which the customer is owed the money, or has it."""
        return (cls.APPROVED, cls.PAID, cls.FAILED)


class SentBack(WriteOnce):
    """Money on its way back: under a key of its own for each time that it is sent.

    A gateway answers a key that it knows with the return that it has, the failed one included.
    """

    reference = models.CharField(_("reference"), max_length=28, unique=True)
    tries = models.PositiveSmallIntegerField(_("times sent"), default=1)
    # Where the customer takes it up, while it waits for him. Whoever has the address can: it is his alone to see.
    claim_url = models.URLField(_("where it is claimed"), max_length=500, blank=True)
    # While it is on its way: whoever moves it asks the gateway (`orders.unanswered`); empty before the first try.
    next_try_at = models.DateTimeField(_("next try"), null=True)

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
    """Units of one order that are taken back, and the money for them.

    With `entry` the money went back at the gateway's own desk, before or instead of being sent by us.
    """

    order = models.ForeignKey(Order, models.PROTECT, related_name="refunds", verbose_name=_("order"))
    attempt = models.ForeignKey(
        PaymentAttempt, models.PROTECT, related_name="refunds", verbose_name=_("paid by")
    )
    entry = models.ForeignKey(
        LedgerEntry,
        models.PROTECT,
        null=True,
        related_name="refunds",
        verbose_name=_("made at the gateway's desk"),
    )
    # Where the customer withdrew, or asked for it.
    case = models.ForeignKey(
        "Case", models.PROTECT, null=True, related_name="refunds", verbose_name=_("requested in case")
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
    # It can come back, and be paid again: the ledger has each time.
    paid_at = models.DateTimeField(_("paid back at"), null=True)
    problem = models.CharField(_("problem"), max_length=300, blank=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "order",
        "attempt",
        "entry",
        "case",
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
            models.UniqueConstraint(
                "entry", condition=~Q(state=RefundState.REJECTED), name="orders_refund_entry_once"
            ),
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

    @property
    def owed_since(self) -> datetime:
        """When it was decided."""
        assert self.decided_at is not None  # noqa: S101 (what is not decided is not owed)
        return self.decided_at


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

    @property
    def owed_since(self) -> datetime:
        return self.due_at


class RefundLine(AppendOnly):
    """How many waiting units of one line a refund takes back, or, with `allocation`, one phone of it."""

    refund = models.ForeignKey(Refund, models.PROTECT, related_name="lines", verbose_name=_("refund"))
    line = models.ForeignKey(
        OrderLine, models.PROTECT, related_name="refund_lines", verbose_name=_("order line")
    )
    allocation = models.ForeignKey(
        Allocation, models.PROTECT, null=True, related_name="refund_lines", verbose_name=_("phone")
    )
    units = models.PositiveIntegerField(_("units"))

    class Meta:
        verbose_name = _("refunded line")
        verbose_name_plural = _("refunded lines")
        constraints = (
            models.UniqueConstraint(
                "refund", "line", condition=Q(allocation=None), name="orders_refundline_unique"
            ),
            models.UniqueConstraint("refund", "allocation", name="orders_refundline_phone_unique"),
            models.CheckConstraint(
                name="orders_refundline_phone_is_one_unit", condition=Q(allocation=None) | Q(units=1)
            ),
            models.CheckConstraint(name="orders_refundline_units_positive", condition=Q(units__gt=0)),
        )

    def __str__(self) -> str:
        return f"{self.units} units"


class Payout(WriteOnce):
    """Money that a gateway would not give back, sent by other means: one person records it, another confirms."""

    refund = models.ForeignKey(
        Refund, models.PROTECT, null=True, related_name="payouts", verbose_name=_("refund")
    )
    money_return = models.ForeignKey(
        MoneyReturn, models.PROTECT, null=True, related_name="payouts", verbose_name=_("returned money")
    )
    means = models.CharField(_("sent by"), max_length=100)
    reference = models.CharField(_("reference of the transfer"), max_length=60)
    paid_on = models.DateField(_("sent on"))
    recorded_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("recorded by")
    )
    recorded_at = models.DateTimeField(_("recorded at"))
    is_confirmed = models.BooleanField(_("confirmed"), null=True)
    decided_by = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, null=True, related_name="+", verbose_name=_("decided by")
    )
    decided_at = models.DateTimeField(_("decided at"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "refund",
        "money_return",
        "means",
        "reference",
        "paid_on",
        "recorded_by",
        "recorded_at",
        "is_confirmed",
        "decided_by",
        "decided_at",
    )

    class Meta:
        verbose_name = _("payout by hand")
        verbose_name_plural = _("payouts by hand")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="orders_payout_of_one_thing",
                condition=Q(refund=None, money_return__isnull=False)
                | Q(refund__isnull=False, money_return=None),
            ),
            models.CheckConstraint(name="orders_payout_says_how", condition=~Q(means="") & ~Q(reference="")),
            models.CheckConstraint(
                name="orders_payout_decided_by_a_second_person",
                condition=Q(is_confirmed=None, decided_by=None, decided_at=None)
                | Q(is_confirmed__isnull=False, decided_by__isnull=False, decided_at__isnull=False)
                & ~Q(decided_by=F("recorded_by")),
            ),
            # One that was not confirmed makes room for another.
            models.UniqueConstraint(
                "refund",
                condition=Q(is_confirmed=None) | Q(is_confirmed=True),
                name="orders_payout_refund_once",
            ),
            models.UniqueConstraint(
                "money_return",
                condition=Q(is_confirmed=None) | Q(is_confirmed=True),
                name="orders_payout_return_once",
            ),
        )

    def __str__(self) -> str:
        return self.reference

    @property
    def due(self) -> Refund | MoneyReturn:
        """What was paid by it. Needs `refund` and `money_return` loaded."""
        due = self.refund or self.money_return
        assert due is not None  # noqa: S101 (a constraint: it is the one or the other)
        return due
