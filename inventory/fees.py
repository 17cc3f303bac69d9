"""Fee schedules: announced before they take effect, and final once they are (agreement 3.2)."""

from collections.abc import Iterable
from datetime import datetime

from django.conf import settings
from django.db import transaction
from django.urls import reverse
from django.utils.formats import date_format
from django.utils.translation import gettext as _

from evidence.contract_time import contract_zone
from inventory.models import Fee, FeeSchedule, Term
from notices.announcements import announce
from notices.kinds import FEES_ANNOUNCED


class ScheduleRefused(Exception):
    """The fee schedule cannot be published as asked; the message tells staff why."""


def publish_fee_schedule(
    *, currency: str, effective_at: datetime, announced_at: datetime, fees: Iterable[tuple[Term, int]]
) -> FeeSchedule:
    """Publish the fees of `currency` that apply from `effective_at`: pairs of term and minor units.

    A term that is left out keeps the fee it has. Orders placed before keep theirs in any case. A change is
    announced FEE_NOTICE ahead; the first schedule of a currency changes nothing. Raises ScheduleRefused.
    """
    amounts = list(fees)
    if currency not in settings.SHOP_CURRENCIES:
        raise ScheduleRefused(_("The shop does not sell in %(currency)s.") % {"currency": currency})
    if effective_at < announced_at:
        raise ScheduleRefused(
            _("A fee schedule is announced before it takes effect (agreement 3.2): give a later time.")
        )
    if not amounts:
        raise ScheduleRefused(_("Give the fee of at least one term."))
    if len({term.pk for term, _minor in amounts}) < len(amounts):
        raise ScheduleRefused(_("A term has two fees: give it one."))
    if min(minor for _term, minor in amounts) < 1:
        raise ScheduleRefused(_("A fee is more than nothing."))
    earliest = announced_at + settings.FEE_NOTICE
    with transaction.atomic(durable=True):
        changes = FeeSchedule.objects.filter(currency=currency, effective_at__lte=effective_at).exists()
        if changes and effective_at < earliest:
            raise ScheduleRefused(
                _("A change of fees is announced %(days)d days ahead: it can take effect on %(earliest)s.")
                % {
                    "days": settings.FEE_NOTICE.days,
                    "earliest": date_format(earliest.astimezone(contract_zone()), "DATETIME_FORMAT"),
                }
            )
        schedule, is_new = FeeSchedule.objects.get_or_create(
            currency=currency, effective_at=effective_at, defaults={"announced_at": announced_at}
        )
        if not is_new:
            raise ScheduleRefused(
                _("Another schedule of %(currency)s takes effect at that very moment: give another time.")
                % {"currency": currency}
            )
        Fee.objects.bulk_create([Fee(schedule=schedule, term=term, minor=minor) for term, minor in amounts])
        if changes:
            _announce(schedule)
    return schedule


def _announce(schedule: FeeSchedule) -> None:
    """On the site, at the top of every page until the fees apply: "announced in advance on the relevant pages" (3.2)."""
    effective_on = schedule.effective_at.astimezone(contract_zone()).date().isoformat()
    announce(
        kind=FEES_ANNOUNCED,
        facts=lambda _language: {"currency": schedule.currency, "effective_on": effective_on},
        key=f"{FEES_ANNOUNCED.slug}:{schedule.pk}",
        now=schedule.announced_at,
        url=reverse("orders:fees"),
        banner_until=schedule.effective_at,
    )
