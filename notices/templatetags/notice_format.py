"""Writes the facts of a notice, which are JSON, as a reader of the active language and zone would."""

from collections.abc import Mapping
from datetime import date, datetime
from decimal import Decimal

import moneyed
from django import template
from django.utils import formats, timezone
from django.utils.translation import get_language, to_locale
from moneyed.l10n import format_money

register = template.Library()


@register.filter
def day(value: str) -> str:
    """`"2026-11-23"` → "Nov. 23, 2026". Raises ValueError for anything but an ISO date."""
    return formats.date_format(date.fromisoformat(value), "DATE_FORMAT")


@register.filter
def moment(value: str) -> str:
    """`"2026-11-23T06:30:00+00:00"` → "Nov. 23, 2026, 2:30 p.m. (HKT)", in the active zone.

    Raises ValueError for anything but an ISO time with an offset.
    """
    local = timezone.localtime(datetime.fromisoformat(value))
    zone = local.tzname() or ""
    if zone.startswith(("+", "-")):  # a zone without a name of its own
        zone = f"UTC{zone}"
    return f"{formats.date_format(local, 'DATETIME_FORMAT')} ({zone})"


@register.filter
def money(value: Mapping[str, int | str]) -> str:
    """`{"minor": 4990, "currency": "USD"}` → "$49.90", with as many digits as the currency has."""
    currency = moneyed.get_currency(str(value["currency"]))
    amount = Decimal(int(value["minor"])).scaleb(1 - len(str(currency.sub_unit)))
    return format_money(moneyed.Money(amount, currency), locale=to_locale(get_language() or "en"))
