"""What can be checked about stock (see `evidence.verification`): nothing that was received is lost or invented."""

from collections.abc import Iterator
from datetime import datetime

from django.db.models import Count, Exists, F, OuterRef, Q, Sum
from django.db.models.functions import Coalesce

from evidence.verification import checks
from inventory.models import Device, DeviceState, Quarantine, SupplyBatch, SupplyReceipt


@checks("stock")
def stock(_now: datetime) -> Iterator[str]:
    """What came is there: received = free + allocated + quarantined + retired, of every receipt and of every batch.

    Each question is one statement, so that it does no harm what is received or moved meanwhile.
    """
    there = Count("received_devices", filter=Q(received_devices__state__in=DeviceState.values))
    receipts = SupplyReceipt.objects.select_related("batch").annotate(there=there)
    for receipt in receipts.exclude(there=F("devices")).order_by("pk"):
        yield f"Of the {receipt.devices} devices of {receipt} for batch {receipt.batch} {receipt.there} are there."
    batches = SupplyBatch.objects.annotate(came=Coalesce(Sum("receipts__devices"), 0))
    for batch in batches.exclude(came=F("received_units")).order_by("pk"):
        yield f"Batch {batch} has {batch.received_units} devices received, its receipts have {batch.came}."
    for device in Device.objects.exclude(receipt__batch__plan=F("plan")).order_by("pk").iterator(500):
        yield f"Device {device} was received for another plan than its own."


@checks("quarantine")
def quarantined(_now: datetime) -> Iterator[str]:
    """A device is quarantined exactly as long as somebody has still to look at it."""
    is_kept = Exists(Quarantine.objects.filter(device=OuterRef("pk"), ended_at=None))
    is_called = Q(state=DeviceState.QUARANTINED)
    wrong = Device.objects.filter(is_called & ~Q(is_kept) | ~is_called & Q(is_kept))
    for device in wrong.order_by("pk").iterator(500):
        yield f"Device {device} is {device.state}, and its quarantines say something else."
