"""Severability (9.3): what an authority said of single clauses. The text stays, the mark shows wherever it is shown."""

from datetime import date, datetime

from django.db import transaction
from django.utils.translation import gettext as _

from agreements.models import Finding, Ruling, Version
from evidence.contract_time import contract_date


class CannotRule(Exception):
    """The ruling cannot be recorded as it was entered; the message says why."""


def invalid_clauses(version: Version) -> dict[str, Ruling]:
    """The clauses of a version that are held invalid, by number, each with the latest ruling on it.

    A version that is not published has none. Takes rulings that were fetched with the version.
    """
    if version._state.adding:
        return {}
    latest = {ruling.clause: ruling for ruling in sorted(version.rulings.all(), key=lambda ruling: ruling.pk)}
    return {clause: ruling for clause, ruling in latest.items() if ruling.finding == Finding.INVALID}


def record_ruling(
    *,
    version_id: int,
    clause: str,
    finding: Finding,
    authority: str,
    reference: str,
    decided_on: date,
    recorded_by_id: int,
    now: datetime,
) -> Ruling:
    """Mark a clause as held invalid, or as valid again. Raises CannotRule."""
    if not (clause and authority.strip() and reference.strip()):
        raise CannotRule(_("Say which clause, which authority, and under which reference."))
    if decided_on > contract_date(now):
        raise CannotRule(_("The decision cannot be of a day to come."))
    with transaction.atomic(durable=True):
        version = Version.objects.select_for_update().get(pk=version_id)
        is_invalid = clause in invalid_clauses(version)
        if is_invalid == (finding == Finding.INVALID):
            raise CannotRule(
                _("Clause %(clause)s is held invalid already.") % {"clause": clause}
                if is_invalid
                else _("Clause %(clause)s is not held invalid.") % {"clause": clause}
            )
        ruling: Ruling = Ruling.objects.create(
            version=version,
            clause=clause,
            finding=finding,
            authority=authority.strip(),
            reference=reference.strip(),
            decided_on=decided_on,
            recorded_by_id=recorded_by_id,
            recorded_at=now,
        )
    return ruling
