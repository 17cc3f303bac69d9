"""Stock that does not add up is found, by whatever means it came to be."""

from datetime import timedelta

import pytest

from evidence.verification import verify_evidence
from inventory.models import Device, DeviceState, Plan, Quarantine, SupplyBatch, SupplyReceipt
from inventory.quarantine import end_quarantine, quarantine_devices
from inventory.receiving import receive_devices
from tests.builders import NOW, make_batch, make_plan, make_user
from tests.tampering import behind_the_triggers

pytestmark = pytest.mark.django_db


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture
def receipt(plan: Plan) -> SupplyReceipt:
    """Four devices of a batch of ten."""
    content = "\n".join(["code,plan", *(f"AC-{n:04d},{plan.slug}" for n in range(4))])
    return receive_devices(
        batch_id=make_batch(plan).pk,
        file_name="devices.csv",
        content=content.encode(),
        received_by_id=make_user(is_staff=True).pk,
        is_last=False,
        now=NOW,
    )


def found() -> list[str]:
    findings = verify_evidence(now=NOW).findings
    return [*findings["stock"], *findings["quarantine"]]


@pytest.mark.usefixtures("receipt")
def test_devices_in_every_state_add_up() -> None:
    free, retired, kept, _allocated = Device.objects.order_by("pk")
    Device.objects.exclude(pk=free.pk).update(state=DeviceState.ALLOCATED)
    quarantine_devices([retired.pk, kept.pk], reason="Test", now=NOW)
    end_quarantine(
        quarantine_id=Quarantine.objects.get(device=retired).pk,
        becomes=DeviceState.RETIRED,
        note="Broken.",
        ended_by_id=make_user(is_staff=True).pk,
        now=NOW + timedelta(hours=1),
    )

    assert sorted(Device.objects.values_list("state", flat=True)) == sorted(DeviceState.values)
    assert found() == []


def test_device_that_is_gone_is_found(receipt: SupplyReceipt) -> None:
    with behind_the_triggers(Device) as cursor:
        cursor.execute("DELETE FROM inventory_device WHERE code = 'AC-0002'")

    assert found() == [f"Of the 4 devices of {receipt} for batch {receipt.batch} 3 are there."]


def test_device_that_nobody_received_is_found(plan: Plan, receipt: SupplyReceipt) -> None:
    Device.objects.create(plan=plan, code="AC-9999", receipt=receipt)

    assert found() == [f"Of the 4 devices of {receipt} for batch {receipt.batch} 5 are there."]


def test_receipt_that_was_altered_is_found(receipt: SupplyReceipt) -> None:
    with behind_the_triggers(SupplyReceipt) as cursor:
        cursor.execute("UPDATE inventory_supplyreceipt SET devices = 3")

    receipt.refresh_from_db()
    assert found() == [
        f"Of the 3 devices of {receipt} for batch {receipt.batch} 4 are there.",
        f"Batch {receipt.batch} has 4 devices received, its receipts have 3.",
    ]


def test_batch_that_counts_what_did_not_come_is_found(receipt: SupplyReceipt) -> None:
    SupplyBatch.objects.update(received_units=7)

    assert found() == [f"Batch {receipt.batch} has 7 devices received, its receipts have 4."]


@pytest.mark.usefixtures("receipt")
def test_device_that_was_moved_to_another_plan_is_found() -> None:
    other = make_plan("V06")
    with behind_the_triggers(Device) as cursor:
        cursor.execute("UPDATE inventory_device SET plan_id = %s WHERE code = 'AC-0002'", [other.pk])

    assert found() == ["Device AC-0002 was received for another plan than its own."]


@pytest.mark.usefixtures("receipt")
def test_device_that_leaves_quarantine_unseen_is_found() -> None:
    device = Device.objects.get(code="AC-0002")
    Device.objects.filter(pk=device.pk).update(state=DeviceState.ALLOCATED)
    quarantine_devices([device.pk], reason="Test", now=NOW)
    Device.objects.filter(pk=device.pk).update(state=DeviceState.FREE)
    Device.objects.filter(code="AC-0003").update(state=DeviceState.QUARANTINED)

    assert found() == [
        "Device AC-0002 is free, and its quarantines say something else.",
        "Device AC-0003 is quarantined, and its quarantines say something else.",
    ]
