"""Devices that failed, or came back: looked at by staff before anybody gets them again."""

from django.db import transaction
from django.utils.translation import gettext as _

from inventory.models import Device, DeviceState, Plan


class NotInQuarantine(Exception):
    """The device is in use, in stock or retired; the message tells staff."""


def release_device(*, device_id: int) -> Device:
    """Put a device that was looked at back into stock. Raises NotInQuarantine."""
    return _leave(device_id, DeviceState.FREE)


def retire_device(*, device_id: int) -> Device:
    """Take a device out of service for good. Raises NotInQuarantine."""
    return _leave(device_id, DeviceState.RETIRED)


def _leave(device_id: int, state: DeviceState) -> Device:
    with transaction.atomic(durable=True):
        device = Device.objects.get(pk=device_id)
        # Whoever makes a device free, or takes a free one, holds the plan's lock, as the sweep does.
        Plan.objects.select_for_update(no_key=True).get(pk=device.plan_id)
        if not Device.objects.filter(pk=device_id, state=DeviceState.QUARANTINED).update(state=state):
            raise NotInQuarantine(_("Device %(device)s is not in quarantine.") % {"device": device})
    device.refresh_from_db()
    return device
