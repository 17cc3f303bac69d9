"""A guardian who is asked to confirm what a buyer under 18 has ordered."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from evidence.models import WriteOnce
from orders.models.order import Order


class GuardianAnswer(models.TextChoices):
    CONFIRMED = "confirmed", _("confirmed")
    REFUSED = "refused", _("refused")


class GuardianRequest(WriteOnce):
    """One mail with one link to one guardian. Of several for an order only the newest can be answered, once."""

    order = models.ForeignKey(
        Order, models.PROTECT, related_name="guardian_requests", verbose_name=_("order")
    )
    name = models.CharField(_("guardian's name"), max_length=150)
    email = models.EmailField(_("guardian's email address"))
    language = models.CharField(_("language"), max_length=10)
    asked_at = models.DateTimeField(_("asked at"))
    answer = models.CharField(_("answer"), max_length=10, choices=GuardianAnswer.choices, null=True)  # noqa: DJ001 (written once)
    answered_at = models.DateTimeField(_("answered at"), null=True)

    written_once: ClassVar[tuple[str, ...]] = (
        "order",
        "name",
        "email",
        "language",
        "asked_at",
        "answer",
        "answered_at",
    )

    class Meta:
        verbose_name = _("guardian's confirmation")
        verbose_name_plural = _("guardians' confirmations")
        ordering = ("-id",)
        constraints = (
            models.CheckConstraint(
                name="orders_guardianrequest_answer_dated",
                condition=Q(answer=None, answered_at=None)
                | Q(answer__in=GuardianAnswer.values, answered_at__isnull=False),
            ),
            models.UniqueConstraint(
                "order", condition=Q(answer__isnull=False), name="orders_guardianrequest_one_answer"
            ),
        )

    def __str__(self) -> str:
        return f"{self.name} <{self.email}>"
