"""A device that fails: the customer gets the next one, and keeps his place if there is none.

The failed device goes into quarantine, where staff look at it; only from there does it come back into stock.
"""

from datetime import datetime

from django.db import transaction
from django.db.models import F
from django.utils.translation import gettext as _

from inventory.models import Device, DeviceState
from inventory.quarantine import quarantine_devices
from notices import kinds
from notices.outbox import tell
from orders.ledger import is_disputed
from orders.models import Allocation, LineState, OrderLine, QueueEventKind
from orders.queue import fairness, lock_plans
from orders.telling import about_order


class CannotReplace(Exception):
    """The device is not in use; the message tells staff why."""


def replace_device(*, allocation_id: int, now: datetime) -> Allocation | None:
    """Give another device to the unit whose device has failed; None if none is free.

    The next free device comes before everybody who waits: the unit was served already, and its rank is before theirs.
    Its service period begins anew. Without a free device the unit waits again, at the place of its payment; while that
    payment is disputed it is on hold there, whatever is free. Locks the plan, then the line, as the sweep does. Raises
    CannotReplace.
    """
    with transaction.atomic(durable=True):
        failed = Allocation.objects.select_related("line__order", "line__plan", "line__term").get(
            pk=allocation_id
        )
        lock_plans([failed.line.plan_id])
        line = OrderLine.objects.select_for_update(no_key=True).get(pk=failed.line_id)
        ended = Allocation.objects.filter(pk=failed.pk, ended_at=None).update(ended_at=now)
        if not ended:
            raise CannotReplace(
                _("This device is not in use any more: it was replaced, or its period is over.")
            )
        quarantine_devices([failed.device_id], reason=f"Failed in use by order {failed.line.order}", now=now)
        held = line.state == LineState.HELD or is_disputed(failed.line.order)
        free = Device.objects.filter(plan_id=line.plan_id, state=DeviceState.FREE).order_by("pk").first()
        if free and not held:
            Device.objects.filter(pk=free.pk).update(state=DeviceState.ALLOCATED)
            given: Allocation | None = Allocation.objects.create(
                line=line,
                unit=failed.unit,
                device=free,
                starts_at=now,
                ends_at=now + (failed.ends_at - failed.starts_at),
            )
        else:
            given = None
            OrderLine.objects.filter(pk=line.pk).update(
                allocated=F("allocated") - 1,
                returned=F("returned") + 1,
                state=LineState.HELD if held else LineState.WAITING,
            )
            fairness.record(QueueEventKind.RETURNED, [(line, 1)], now=now)
            if held and line.state != LineState.HELD:
                fairness.record(QueueEventKind.HELD, [(line, 1)], now=now)
        facts = {
            "plan": str(failed.line.plan),
            "starts_at": given.starts_at.isoformat() if given else None,
            "ends_at": given.ends_at.isoformat() if given else None,
            "is_held": held,
        }
        key = f"{kinds.DEVICE_REPLACED.slug}:{failed.pk}"
        tell([about_order(failed.line.order, kinds.DEVICE_REPLACED, facts, key=key)], now=now)
    return given
