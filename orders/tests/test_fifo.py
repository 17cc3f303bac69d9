"""The core of the sweep, against what the agreement says: in the order of payment, unit by unit."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from orders.fifo import Claim, Gift, hand_out


@pytest.mark.clause("1.1")
def test_first_claim_is_filled_before_the_second_gets_anything() -> None:
    gifts = hand_out(
        devices=[7, 8, 9], claims=[Claim(1, units=2, next_unit=1), Claim(2, units=2, next_unit=1)]
    )

    assert gifts == [Gift(1, 1, 7), Gift(1, 2, 8), Gift(2, 1, 9)]


def test_large_claim_takes_what_is_there_and_goes_on_from_its_next_unit() -> None:
    assert hand_out(devices=[7, 8, 9], claims=[Claim(1, units=10, next_unit=4)]) == [
        Gift(1, 4, 7),
        Gift(1, 5, 8),
        Gift(1, 6, 9),
    ]


def test_devices_nobody_waits_for_stay() -> None:
    assert hand_out(devices=[7, 8, 9], claims=[Claim(1, units=1, next_unit=1)]) == [Gift(1, 1, 7)]


def test_nothing_comes_of_nothing() -> None:
    assert hand_out(devices=[], claims=[Claim(1, units=1, next_unit=1)]) == []
    assert hand_out(devices=[1], claims=[]) == []


@given(
    devices=st.lists(st.integers(1, 10_000), unique=True, max_size=60),
    units=st.lists(st.integers(1, 12), max_size=20),
)
def test_gifts_are_the_units_in_order_paired_with_the_devices_in_order(
    devices: list[int], units: list[int]
) -> None:
    claims = [Claim(line_id, units=count, next_unit=1) for line_id, count in enumerate(units, start=1)]
    every_unit = [(claim.line_id, unit) for claim in claims for unit in range(1, claim.units + 1)]

    gifts = hand_out(devices=devices, claims=claims)

    assert [((gift.line_id, gift.unit), gift.device_id) for gift in gifts] == list(
        zip(every_unit, devices, strict=False)
    )
