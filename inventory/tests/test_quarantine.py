"""Quarantine: a device that a customer had goes to nobody before somebody has looked at it."""

from datetime import timedelta

import pytest
from django.db import IntegrityError, transaction
from django.test import Client
from django.urls import reverse

from inventory.models import Device, DeviceState, Quarantine
from inventory.quarantine import QuarantineRefused, end_quarantine, quarantine_devices
from tests.builders import NOW, make_devices, make_plan, make_user

pytestmark = pytest.mark.django_db

LATER = NOW + timedelta(hours=1)


@pytest.fixture
def allocated() -> list[Device]:
    devices = make_devices(make_plan(), 2)
    Device.objects.update(state=DeviceState.ALLOCATED)
    return devices


def states() -> list[str]:
    return list(Device.objects.order_by("pk").values_list("state", flat=True))


def quarantined(device: Device) -> Quarantine:
    quarantine_devices([device.pk], reason="Refund VM-1-R1", now=NOW)
    kept: Quarantine = Quarantine.objects.get(device=device)
    return kept


def test_device_that_is_taken_back_is_quarantined_with_the_reason(allocated: list[Device]) -> None:
    kept = quarantined(allocated[0])

    assert states() == ["quarantined", "allocated"]
    assert (kept.reason, kept.since, kept.ended_at) == ("Refund VM-1-R1", NOW, None)


def test_only_what_is_allocated_can_be_taken_back_and_then_all_of_it(allocated: list[Device]) -> None:
    Device.objects.filter(pk=allocated[1].pk).update(state=DeviceState.FREE)

    with pytest.raises(QuarantineRefused, match="allocated"):
        quarantine_devices([device.pk for device in allocated], reason="Test", now=NOW)

    assert (states(), Quarantine.objects.count()) == (["allocated", "free"], 0)


@pytest.mark.parametrize("becomes", [DeviceState.FREE, DeviceState.RETIRED])
def test_quarantine_ends_in_free_stock_or_for_good_with_a_note_and_a_name(
    allocated: list[Device], becomes: DeviceState
) -> None:
    kept, clerk = quarantined(allocated[0]), make_user(is_staff=True)

    ended = end_quarantine(
        quarantine_id=kept.pk, becomes=becomes, note=" Wiped. ", ended_by_id=clerk.pk, now=LATER
    )

    assert states() == [becomes, "allocated"]
    assert (ended.ended_at, ended.ended_by, ended.became, ended.note) == (LATER, clerk, becomes, "Wiped.")


def test_quarantine_ends_once_and_not_without_a_note(allocated: list[Device]) -> None:
    kept, clerk = quarantined(allocated[0]), make_user(is_staff=True)

    def end(becomes: DeviceState, note: str) -> None:
        end_quarantine(quarantine_id=kept.pk, becomes=becomes, note=note, ended_by_id=clerk.pk, now=LATER)

    with pytest.raises(QuarantineRefused, match="Say what was found"):
        end(DeviceState.FREE, " ")
    with pytest.raises(ValueError, match="allocated"):
        end(DeviceState.ALLOCATED, "Wiped.")
    end(DeviceState.RETIRED, "Its screen is dark.")
    with pytest.raises(QuarantineRefused, match="already"):
        end(DeviceState.FREE, "Wiped.")
    assert states() == ["retired", "allocated"]


def test_database_keeps_one_quarantine_of_a_device_open(allocated: list[Device]) -> None:
    quarantined(allocated[0])

    with pytest.raises(IntegrityError), transaction.atomic():
        Quarantine.objects.create(device=allocated[0], reason="Test", since=NOW)


def test_staff_end_a_quarantine_in_the_admin(allocated: list[Device], client: Client) -> None:
    kept = quarantined(allocated[0])
    client.force_login(make_user(is_staff=True))
    address = reverse("admin:inventory_quarantine_end_quarantine", args=[kept.pk])
    assert "Refund VM-1-R1" in client.get(address).content.decode()

    client.post(address, {"becomes": "free", "note": ""})
    assert states() == ["quarantined", "allocated"]
    client.post(address, {"becomes": "free", "note": "Wiped."})
    assert states() == ["free", "allocated"]
    # Nothing is left to press, and pressing it all the same says why not.
    assert "already" in client.post(address, {"becomes": "retired", "note": "x"}).content.decode()
