"""Writing money, times and windows for a reader."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

import segno
from django import forms, template
from django.conf import settings
from django.utils import timezone
from django.utils.formats import date_format
from django.utils.translation import gettext as _
from django.utils.translation import ngettext

from evidence.contract_time import contract_date
from inventory.models import SupplyBatch
from inventory.money import Money
from orders.gateways import GATEWAYS, LABELS

register = template.Library()

# A shorter axis would make a day look like a promise to the hour.
SHORTEST_AXIS = timedelta(days=14)


class Dated(Protocol):
    """A quote or an estimate that is known."""

    earliest: date
    likely: date
    latest: date


@dataclass(frozen=True, slots=True)
class Bar:
    """Where a window lies on an axis that begins today, in per cent of its length."""

    begins: str
    length: str
    likely: str


@dataclass(frozen=True, slots=True)
class Mark:
    """Where on the axis a batch is expected."""

    place: str
    batch: SupplyBatch


@register.filter
def money(amount: Money | None) -> str:
    """As a reader of the active language writes it; nothing for no amount."""
    return "" if amount is None else amount.localised()


@register.filter
def days(number: int) -> str:
    """A service period: "30 days"."""
    return ngettext("%(number)d day", "%(number)d days", number) % {"number": number}


@register.filter
def duration(span: timedelta) -> str:
    """A short time: "10 minutes", or "15 seconds" when it is no whole number of minutes."""
    seconds = int(span.total_seconds())
    if seconds % 60:
        return ngettext("%(number)d second", "%(number)d seconds", seconds) % {"number": seconds}
    return ngettext("%(number)d minute", "%(number)d minutes", seconds // 60) % {"number": seconds // 60}


@register.filter
def deadline(moment: datetime) -> str:
    """The time in the reader's zone, with its date unless that is today."""
    local = timezone.localtime(moment)
    clock = date_format(local, "TIME_FORMAT")
    if local.date() == timezone.localdate():
        return clock
    return _("%(time)s on %(date)s") % {"time": clock, "date": date_format(local, "DATE_FORMAT")}


@register.filter
def days_left(ends_at: datetime, now: datetime) -> int:
    """Begun days until `ends_at`, never below 0."""
    return max(0, -((now - ends_at) // timedelta(days=1)))


@register.filter
def method_label(slug: str) -> str:
    """The name of a way to pay, also of one that is not offered any more."""
    return str(LABELS.get(slug, slug))


@register.filter
def gateway_label(slug: str) -> str:
    """The name of who processes a payment, for what bears it already."""
    return str(GATEWAYS[slug].label) if slug in GATEWAYS else slug


@register.simple_tag
def where_to_scan(gateway: str) -> str:
    """In the demo, where the codes and addresses of a gateway are paid: no app and no wallet knows them. Else nothing."""
    pages = {
        "alipay": settings.ALIPAY_URL.removesuffix("gateway.do"),
        "wechat": f"{settings.WECHAT_URL}/",
        "nowpayments": f"{settings.NOWPAYMENTS_URL}/",
    }
    return pages.get(gateway, "") if settings.DEMO else ""


@register.filter
def is_past(day: date) -> bool:
    """Whether a contract date is over."""
    return day < contract_date(timezone.now())


@register.inclusion_tag("orders/window.html")
def window_bar(window: Dated, batches: Iterable[SupplyBatch] = ()) -> dict[str, object]:
    """A window with its three dates, and its place between today and the last of them.

    Of `batches`, those expected by then are marked on it; an overdue one is marked today.
    """
    today = contract_date(timezone.now())
    axis = max(window.latest - today, SHORTEST_AXIS)

    def place(day: date) -> float:
        return max(0.0, (day - today) / axis)

    marks = [
        Mark(f"{place(batch.expected_on) * 100:.1f}%", batch)
        for batch in batches
        if batch.outstanding and place(batch.expected_on) <= 1
    ]

    begins, ends = place(window.earliest) * 100, place(window.latest) * 100
    bar = Bar(f"{begins:.1f}%", f"{max(2.0, ends - begins):.1f}%", f"{place(window.likely) * 100:.1f}%")
    return {"window": window, "bar": bar, "marks": marks}


@dataclass(frozen=True, slots=True)
class Complaint:
    """One error of a form with the field that it is about."""

    anchor: str
    message: str


@register.filter
def complaints(form: forms.BaseForm) -> Iterator[Complaint]:
    """Every error of a form in the order of its fields, those about no field first."""
    for message in form.non_field_errors():
        yield Complaint("", str(message))
    for field in form.visible_fields():
        for message in field.errors:
            yield Complaint(field.auto_id, str(message))
    for field in form.hidden_fields():
        for message in field.errors:
            yield Complaint("", str(message))


@register.filter
def qr_code(text: str) -> str:
    """The address of a picture of the code that holds `text`: dark on light, whatever the page's colours."""
    address: str = segno.make(text, error="m").svg_data_uri(border=3, dark="#000", light="#fff")
    return address
