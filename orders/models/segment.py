"""Counts that are kept because they take long: what makes a position quick to find, and what public pages show."""

from django.db import models
from django.utils.translation import gettext_lazy as _

from inventory.models import Plan


class SegmentCount(models.Model):
    """So many waiting units and lines more, or less, in the segment of a queue that begins at (`from_paid_at`, `from_id`).

    Written by the triggers of `orders/queue/segments.sql` only, and on PostgreSQL only. The one row without a
    count is the open tail of its plan.
    """

    plan = models.ForeignKey(
        Plan,
        models.DO_NOTHING,
        related_name="+",
        db_index=False,
        # The lines that are counted have theirs; checking it again would cost every late payment.
        db_constraint=False,
        verbose_name=_("plan"),
    )
    from_paid_at = models.DateTimeField(_("from paid at"))
    from_id = models.BigIntegerField(_("from line"))
    units = models.BigIntegerField(_("units"), null=True)
    lines = models.BigIntegerField(_("lines"), null=True)

    class Meta:
        verbose_name = _("count of a segment")
        verbose_name_plural = _("counts of segments")
        indexes = (
            models.Index(
                fields=["plan", "from_paid_at", "from_id"],
                name="orders_segmentcount_read",
                include=("units", "lines"),
            ),
        )

    def __str__(self) -> str:
        return f"segment {self.plan_id} from {self.from_paid_at} {self.from_id}"


class PlanFigures(models.Model):
    """What public pages show of a plan and takes seconds to count in a long queue (see `orders/figures.py`)."""

    plan = models.OneToOneField(
        Plan, models.CASCADE, related_name="figures", primary_key=True, verbose_name=_("plan")
    )
    counted_at = models.DateTimeField(_("counted at"))
    # [contract day, units] of each of the last days, and the track record as `TrackRecord.as_json` writes it.
    allocated = models.JSONField(_("allocated per day"))
    record = models.JSONField(_("track record"))

    class Meta:
        verbose_name = _("figures of a plan")
        verbose_name_plural = _("figures of the plans")

    def __str__(self) -> str:
        return f"{self.counted_at:%Y-%m-%d %H:%M}"
