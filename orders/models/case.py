"""What a customer and the platform talk about before anybody goes to court (agreement, clause II)."""

from datetime import date, datetime, timedelta
from typing import ClassVar

from django.conf import settings
from django.db import models
from django.db.models import Q
from django.urls import reverse
from django.utils.translation import gettext_lazy as _

from evidence.contract_time import contract_date
from evidence.models import Chained, WriteOnce
from orders.models.order import Order
from orders.models.refund import Ground


class Matter(models.TextChoices):
    """What a case is for."""

    DISPUTE = "dispute", _("disagreement (II)")
    WITHDRAWAL = "withdrawal", _("withdrawal")
    REFUND = "refund", _("request for a refund (3.3)")


class CaseState(models.TextChoices):
    OPEN = "open", _("waiting for the platform")
    ANSWERED = "answered", _("waiting for the customer")
    CLOSED = "closed", _("closed")


class Outcome(models.TextChoices):
    SETTLED = "settled", _("settled")
    NOT_SETTLED = "not-settled", _("not settled: either party may go to court")
    DROPPED = "dropped", _("dropped by the customer")


class CaseQuerySet(models.QuerySet["Case"]):
    def overdue(self, at: datetime) -> "CaseQuerySet":
        """Cases that nobody has answered yet, although it was promised."""
        return self.filter(state=CaseState.OPEN, first_answered_at=None, answer_due_at__lte=at)


class Case(WriteOnce):
    """A consultation about one order. `answer_due_at` is when its first answer was promised for.

    Who asks for a refund names one of the agreement's grounds, and of the law the rule: what he says, not what is so.
    """

    reference = models.CharField(_("reference"), max_length=20, unique=True)
    order = models.ForeignKey(Order, models.PROTECT, related_name="cases", verbose_name=_("order"))
    matter = models.CharField(_("matter"), max_length=12, choices=Matter.choices)
    subject = models.CharField(_("subject"), max_length=150)
    ground = models.CharField(_("ground"), max_length=20, choices=Ground.choices, null=True)  # noqa: DJ001 (as `Refund.ground`)
    legal_basis = models.CharField(_("legal basis"), max_length=200, blank=True)
    state = models.CharField(_("state"), max_length=10, choices=CaseState.choices, default=CaseState.OPEN)
    opened_at = models.DateTimeField(_("opened at"))
    answer_due_at = models.DateTimeField(_("first answer due"))
    first_answered_at = models.DateTimeField(_("first answered at"), null=True)
    outcome = models.CharField(_("outcome"), max_length=12, choices=Outcome.choices, null=True)  # noqa: DJ001 (written once)
    closed_at = models.DateTimeField(_("closed at"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "reference",
        "order",
        "matter",
        "subject",
        "ground",
        "legal_basis",
        "opened_at",
        "answer_due_at",
        "first_answered_at",
        "outcome",
        "closed_at",
    )

    objects = CaseQuerySet.as_manager()

    class Meta:
        verbose_name = _("case")
        verbose_name_plural = _("cases")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(name="orders_case_state_known", condition=Q(state__in=CaseState.values)),
            models.CheckConstraint(name="orders_case_matter_known", condition=Q(matter__in=Matter.values)),
            models.CheckConstraint(
                name="orders_case_refund_on_a_ground",
                # (What compares NULL with something lets it pass.)
                condition=Q(matter=Matter.REFUND, ground__isnull=False, ground=Ground.LAW)
                & ~Q(legal_basis="")
                | Q(
                    matter=Matter.REFUND,
                    ground__isnull=False,
                    ground=Ground.UNABLE_TO_SUPPLY,
                    legal_basis="",
                )
                | ~Q(matter=Matter.REFUND) & Q(ground=None, legal_basis=""),
            ),
            models.CheckConstraint(
                name="orders_case_closed_with_an_outcome",
                condition=Q(state=CaseState.CLOSED, outcome__in=Outcome.values, closed_at__isnull=False)
                | ~Q(state=CaseState.CLOSED) & Q(outcome=None, closed_at=None),
            ),
        )
        indexes = (
            models.Index(
                fields=["answer_due_at"],
                name="orders_case_to_answer",
                condition=Q(state=CaseState.OPEN),
            ),
        )

    def __str__(self) -> str:
        return self.reference

    def get_absolute_url(self) -> str:
        return reverse("orders:case", args=[self.reference])

    @property
    def last_day_to_answer(self) -> date:
        """The contract day by whose end the first answer was promised."""
        return contract_date(self.answer_due_at) - timedelta(days=1)

    def is_overdue(self, at: datetime) -> bool:
        """Whether its first answer is missing, although it was promised."""
        return self.state == CaseState.OPEN and self.first_answered_at is None and self.answer_due_at <= at


class Side(models.TextChoices):
    CUSTOMER = "customer", _("customer")
    PLATFORM = "platform", _("platform")


class CaseMessage(Chained):
    """What one side wrote. Sealed in a chain, like the acceptances."""

    case = models.ForeignKey(Case, models.PROTECT, related_name="messages", verbose_name=_("case"))
    side = models.CharField(_("side"), max_length=10, choices=Side.choices)
    author = models.ForeignKey(
        settings.AUTH_USER_MODEL, models.PROTECT, related_name="+", verbose_name=_("author")
    )
    body = models.TextField(_("message"))
    written_at = models.DateTimeField(_("written at"))

    class Meta:
        verbose_name = _("message of a case")
        verbose_name_plural = _("messages of cases")
        ordering = ("id",)

    def __str__(self) -> str:
        return f"message {self.pk}"
