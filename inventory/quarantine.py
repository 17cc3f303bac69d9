"""Quarantine: what a customer had goes to nobody else before a member of staff has looked at it.

A device comes here when its allocation ends early, and leaves for free stock or for good. Devices are locked in the
order of their ids, after everything else that the caller locks (see docs/architecture.md).
"""

from collections.abc import Iterable
from datetime import datetime

from django.db import transaction
from django.utils.translation import gettext as _

from inventory.models import Device, DeviceState, Quarantine


class QuarantineRefused(Exception):
    """The device cannot be quarantined or released as asked; the message tells staff why."""


def quarantine_devices(device_ids: Iterable[int], *, reason: str, now: datetime) -> None:
    """Take allocated devices out of use, in the transaction in which their allocations end.

    Raises QuarantineRefused, and has changed nothing, unless every one of them is allocated.
    """
    wanted = set(device_ids)
    allocated = Device.objects.filter(pk__in=wanted, state=DeviceState.ALLOCATED).order_by("pk")
    devices = list(allocated.select_for_update(no_key=True).values_list("pk", flat=True))
    if len(devices) != len(wanted):
        raise QuarantineRefused(_("Only devices that are allocated can be taken back."))
    Device.objects.filter(pk__in=devices).update(state=DeviceState.QUARANTINED)
    Quarantine.objects.bulk_create(
        [Quarantine(device_id=device_id, reason=reason, since=now) for device_id in devices]
    )


def end_quarantine(
    *, quarantine_id: int, becomes: DeviceState, note: str, ended_by_id: int, now: datetime
) -> Quarantine:
    """Put a device back into free stock, or retire it, with a note of what was found.

    A device that is free goes to whoever is first in its queue at the next sweep. Raises QuarantineRefused without a
    note, and when somebody else was faster.
    """
    if becomes not in (DeviceState.FREE, DeviceState.RETIRED):
        raise ValueError(f"A quarantine does not end {becomes}.")
    if not note.strip():
        raise QuarantineRefused(_("Say what was found, and what was done."))
    with transaction.atomic(durable=True):
        kept = Quarantine.objects.select_for_update(no_key=True).get(pk=quarantine_id)
        if kept.ended_at is not None:
            raise QuarantineRefused(_("Somebody has ended this quarantine already."))
        Quarantine.objects.filter(pk=kept.pk).update(
            ended_at=now, ended_by_id=ended_by_id, became=becomes, note=note.strip()
        )
        Device.objects.filter(pk=kept.device_id).update(state=becomes)
        kept.refresh_from_db()
    return kept
