"""Who gets which device: first paid, first served, unit by unit. Pure; the sweep gives it the rows."""

from collections.abc import Iterable, Sequence
from typing import NamedTuple


class Claim(NamedTuple):
    """A waiting line: `units` it waits for, the first of which has number `next_unit`."""

    line_id: int
    units: int
    next_unit: int


class Gift(NamedTuple):
    """Device `device_id` for unit `unit` of line `line_id`."""

    line_id: int
    unit: int
    device_id: int


def hand_out(*, devices: Sequence[int], claims: Iterable[Claim]) -> list[Gift]:
    """Give the devices, in their order, to the claims, in theirs, until one of the two runs out.

    A claim of 10 that meets 3 devices gets 3: the rest stays at the head of the queue.
    """
    gifts: list[Gift] = []
    for claim in claims:
        taken = len(gifts)
        if taken == len(devices):
            break
        gifts.extend(
            Gift(claim.line_id, claim.next_unit + offset, device_id)
            for offset, device_id in enumerate(devices[taken : taken + claim.units])
        )
    return gifts
