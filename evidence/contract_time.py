"""Contract dates: days in Hong Kong, whose law governs the agreement (clause II), whoever reads them where."""

from datetime import date, datetime, time
from zoneinfo import ZoneInfo

from django.conf import settings


def contract_zone() -> ZoneInfo:
    return ZoneInfo(settings.CONTRACT_TIME_ZONE)


def contract_date(moment: datetime) -> date:
    """The contract date on which the aware `moment` falls."""
    return moment.astimezone(contract_zone()).date()


def contract_midnight(day: date) -> datetime:
    """When a contract date begins."""
    return datetime.combine(day, time.min, contract_zone())
