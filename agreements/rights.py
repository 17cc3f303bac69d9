"""What the law of a buyer's country gives him, whatever the agreement says.

None applies by default. A right is a file `law/<key>.toml`; the setting STATUTORY_RIGHTS names those that
apply, and `manage.py publish_agreements` puts them on record, each changed one as a new edition.
"""

import tomllib
from collections.abc import Mapping
from datetime import UTC, datetime, time, timedelta, timezone
from pathlib import Path
from typing import Any

from django.conf import settings
from django.db import transaction

from agreements.models import StatutoryRight

SHIPPED = Path(__file__).parent / "law"
# Where a day begins first on earth.
EARLIEST_ZONE = timezone(timedelta(hours=14))
CONTENT = ("countries", "law", "withdrawal_days", "title", "explanation", "waiver", "delay_days", "delay")
# What a law may be silent about.
OPTIONAL: Mapping[str, Any] = {"waiver": {}, "delay_days": None, "delay": {}}


class UnknownRight(Exception):
    """STATUTORY_RIGHTS names a right that has no file, or a file lacks something."""


def publish_rights(*, now: datetime, folder: Path = SHIPPED) -> list[StatutoryRight]:
    """Put the rights that apply on record and return those that are new or have changed. Raises UnknownRight."""
    added: list[StatutoryRight] = []
    with transaction.atomic(durable=True):
        for key in settings.STATUTORY_RIGHTS:
            content = _read(folder / f"{key}.toml")
            newest = StatutoryRight.objects.filter(key=key).order_by("-edition").first()
            if newest is None or any(getattr(newest, name) != content[name] for name in CONTENT):
                edition = newest.edition + 1 if newest else 1
                added.append(StatutoryRight(key=key, edition=edition, published_at=now, **content))
        StatutoryRight.objects.bulk_create(added)
    return added


def right_of(country: str) -> StatutoryRight | None:
    """What applies to a buyer who lives in `country`: of the rights in the setting the first that names it."""
    editions = StatutoryRight.objects.filter(key__in=settings.STATUTORY_RIGHTS).order_by("edition")
    newest: dict[str, StatutoryRight] = {right.key: right for right in editions}
    for key in settings.STATUTORY_RIGHTS:
        if key in newest and country in newest[key].countries:
            return newest[key]
    return None


def withdrawal_ends(right: StatutoryRight, *, ordered_at: datetime) -> datetime:
    """The end of the last day for withdrawal, wherever on earth the customer is: never too early.

    The day of the order does not count (Regulation 1182/71, article 3). It is the day where days begin first
    (UTC+14), and the last day is over where days end last (UTC-12).
    """
    last = ordered_at.astimezone(EARLIEST_ZONE).date() + timedelta(days=right.withdrawal_days)
    return datetime.combine(last + timedelta(days=1), time(12), UTC)


def in_language(said: Mapping[str, str], language: str) -> str:
    """What is said in `language`, else in the shop's own."""
    return said.get(language) or said.get(settings.LANGUAGE_CODE, "")


def _read(file: Path) -> dict[str, Any]:
    if not file.is_file():
        raise UnknownRight(f"STATUTORY_RIGHTS names {file.stem}, but there is no {file}.")
    said = tomllib.loads(file.read_text(encoding="utf-8"))
    missing = [name for name in CONTENT if name not in said and name not in OPTIONAL]
    if ("delay" in said) != ("delay_days" in said):
        missing.append("both delay and delay_days, or neither")
    if missing:
        raise UnknownRight(f"{file.name} does not say: {', '.join(missing)}.")
    return {**OPTIONAL, **{name: said[name] for name in CONTENT if name in said}}
