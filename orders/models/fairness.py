"""The fairness ledger: who stood in which queue, in what order he was served, and the seals that prove it."""

from typing import ClassVar

from django.db import models
from django.db.models import Q
from django.utils.translation import gettext_lazy as _

from evidence.models import AppendOnly, WriteOnce
from inventory.models import Plan
from orders.models.order import OrderLine


class QueueEventKind(models.TextChoices):
    JOINED = "joined", _("joined the queue")
    ALLOCATED = "allocated", _("allocated")
    LEFT = "left", _("left the queue")
    HELD = "held", _("put on hold")
    RELEASED = "released", _("released from hold")
    RETURNED = "returned", _("waits again")
    REFUNDED = "refunded", _("refunded after it was allocated")


class QueueEvent(WriteOnce):
    """`units` of a line entered or left the queue of its plan (agreement 1.1, 3.3).

    Written in the transaction of what it records; sealed shortly after by `orders.queue.fairness.seal_events`, in an
    order that everybody who locked the same lines agrees with. Not sealed at once: all payments of a plan would have
    to wait for one another.
    """

    plan = models.ForeignKey(
        Plan, models.PROTECT, related_name="queue_events", db_index=False, verbose_name=_("plan")
    )
    line = models.ForeignKey(
        OrderLine, models.PROTECT, related_name="queue_events", verbose_name=_("order line")
    )
    kind = models.CharField(_("what happened"), max_length=10, choices=QueueEventKind.choices)
    units = models.PositiveIntegerField(_("units"))
    # With the line's number, its rank.
    paid_at = models.DateTimeField(_("paid at"))
    at = models.DateTimeField(_("when"))
    # Of a line that joined: units behind it, which it displaced because its payment was reported late.
    behind = models.PositiveIntegerField(_("units displaced"), default=0)
    # Of an allocation: how many entries of the ledger were sealed before the sweep looked at the queue.
    seen = models.PositiveBigIntegerField(_("entries known"), null=True)
    number = models.PositiveBigIntegerField(_("number in the ledger"), null=True)
    sha256 = models.CharField(_("seal"), max_length=64, null=True)  # noqa: DJ001 (not sealed yet is not "")

    written_once: ClassVar[tuple[str, ...]] = (
        "plan",
        "line",
        "kind",
        "units",
        "paid_at",
        "at",
        "behind",
        "seen",
        "number",
        "sha256",
    )

    class Meta:
        verbose_name = _("entry of the fairness ledger")
        verbose_name_plural = _("fairness ledger")
        ordering = ("-id",)
        constraints = (
            models.UniqueConstraint("plan", "number", name="orders_queueevent_number_unique"),
            models.CheckConstraint(
                name="orders_queueevent_kind_known", condition=Q(kind__in=QueueEventKind.values)
            ),
            models.CheckConstraint(name="orders_queueevent_units_positive", condition=Q(units__gt=0)),
            models.CheckConstraint(
                name="orders_queueevent_allocation_says_what_was_known",
                condition=~Q(kind=QueueEventKind.ALLOCATED) | Q(seen__isnull=False),
            ),
            models.CheckConstraint(
                name="orders_queueevent_sealed_iff_numbered",
                condition=Q(number=None, sha256=None) | Q(number__isnull=False, sha256__isnull=False),
            ),
        )
        indexes = (
            models.Index(fields=["plan", "id"], name="orders_queueevent_unsealed", condition=Q(number=None)),
            # What happened in a queue since somebody last looked, and how much per day.
            models.Index(fields=["plan", "at"], name="orders_queueevent_when"),
        )

    def __str__(self) -> str:
        return f"{self.number or 'not sealed yet'}: {self.kind}"


class PublishedHead(AppendOnly):
    """The last seal of a plan's ledger on a day: published, so that nobody can write the days before anew."""

    plan = models.ForeignKey(
        Plan, models.PROTECT, related_name="published_heads", db_index=False, verbose_name=_("plan")
    )
    # A contract date (Asia/Hong_Kong).
    day = models.DateField(_("day"))
    number = models.PositiveBigIntegerField(_("entries"))
    sha256 = models.CharField(_("seal"), max_length=64)
    published_at = models.DateTimeField(_("published at"))

    class Meta:
        verbose_name = _("published head of a ledger")
        verbose_name_plural = _("published heads of the ledgers")
        ordering = ("-day", "plan")
        constraints = (models.UniqueConstraint("plan", "day", name="orders_publishedhead_once_a_day"),)

    def __str__(self) -> str:
        return f"{self.day} {self.number}"
