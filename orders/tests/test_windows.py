"""Windows, and what is said of why they changed."""

from dataclasses import replace
from datetime import date, timedelta

import pytest

from orders.models import Basis, Cause
from orders.windows import Change, Expected, Outlook, Window, arrival, cause_of, nearest_rank, window

TODAY = date(2026, 11, 23)


def expected(reference: str, on: date, units: int, *, first_on: date | None = None) -> Expected:
    """A batch that was never put off, unless `first_on` says so."""
    return Expected(reference, on, units, first_on or on, units)


def outlook(
    *,
    free: int = 0,
    expected: tuple[Expected, ...] = (),
    lateness: tuple[int, ...] = (0, 1, 2, 3, 10),
    monthly: tuple[int, ...] = (0, 0, 0),
) -> Outlook:
    return Outlook(
        today=TODAY, free=free, expected=expected, lateness=lateness, lateness_of="plan", monthly=monthly
    )


def test_nearest_rank_answers_values_that_were_there() -> None:
    assert [nearest_rank((0, 1, 2, 3, 10), share) for share in (0.0, 0.5, 0.9, 1.0)] == [0, 2, 10, 10]


def test_units_covered_by_free_devices_come_today() -> None:
    assert window(units=3, outlook=outlook(free=3)) == Window(TODAY, TODAY, TODAY, Basis.FREE)


@pytest.mark.clause("3.3")
def test_window_is_the_first_batch_that_covers_the_unit_shifted_by_past_lateness() -> None:
    coming = (expected("A", date(2026, 12, 1), 5), expected("B", date(2026, 12, 20), 5))

    assert window(units=6, outlook=outlook(free=1, expected=coming)) == Window(
        date(2026, 12, 1), date(2026, 12, 3), date(2026, 12, 11), Basis.SUPPLY
    )
    assert window(units=7, outlook=outlook(free=1, expected=coming)) == Window(
        date(2026, 12, 20), date(2026, 12, 22), date(2026, 12, 30), Basis.SUPPLY
    )


def test_overdue_batch_is_judged_by_batches_that_were_as_late() -> None:
    overdue = expected("A", TODAY - timedelta(days=3), 5)

    assert arrival(overdue, outlook=outlook()) == (TODAY, TODAY, TODAY + timedelta(days=7))


def test_batch_later_than_anything_on_record_falls_back_on_the_assumption_from_today() -> None:
    lost = expected("A", TODAY - timedelta(days=40), 5)

    assert arrival(lost, outlook=outlook()) == (TODAY, TODAY + timedelta(days=7), TODAY + timedelta(days=30))


def test_batch_that_was_put_off_is_not_charged_with_its_delay_twice() -> None:
    put_off = expected("A", date(2026, 12, 21), 5, first_on=date(2026, 12, 1))

    # Every past batch came 20 days after the date first said, or 30.
    assert arrival(put_off, outlook=outlook(lateness=(20, 20, 20, 20, 30))) == (
        date(2026, 12, 21),
        date(2026, 12, 21),
        date(2026, 12, 31),
    )


def test_batch_that_is_not_here_yet_is_not_judged_by_earlier_ones() -> None:
    soon = expected("A", TODAY + timedelta(days=1), 5)

    assert arrival(soon, outlook=outlook(lateness=(-9, -9, -1, 0, 4))) == (
        TODAY,
        TODAY + timedelta(days=1),
        TODAY + timedelta(days=5),
    )


def test_window_never_shrinks_towards_the_back_of_the_queue() -> None:
    # B is promised before A is likely to come, and does not help those who need both.
    coming = (expected("A", date(2026, 11, 1), 5), expected("B", date(2026, 11, 24), 5))
    found = [
        window(units=units, outlook=outlook(expected=coming, lateness=(0, 5, 30, 31, 60)))
        for units in (5, 10)
    ]

    assert found == [
        Window(date(2026, 12, 1), date(2026, 12, 2), date(2026, 12, 31), Basis.SUPPLY),
        Window(date(2026, 12, 1), date(2026, 12, 24), date(2027, 1, 23), Basis.SUPPLY),
    ]


def test_beyond_the_announced_supply_past_months_count_on() -> None:
    coming = (expected("A", date(2026, 12, 1), 5),)

    # 60 units are missing: at 60, 40 and 20 a month that takes 30, 45 and 90 days more.
    assert window(units=65, outlook=outlook(expected=coming, monthly=(20, 60, 40))) == Window(
        date(2026, 12, 31), date(2027, 1, 17), date(2027, 3, 11), Basis.RATE
    )


def test_a_month_without_allocations_makes_the_rest_unknown() -> None:
    assert window(units=1, outlook=outlook(monthly=(50, 0, 50))) is None


def test_nothing_is_promised_beyond_two_years() -> None:
    assert window(units=10_000, outlook=outlook(monthly=(10, 10, 10))) is None


# --- why a window has changed --------------------------------------------------------------------------

A = expected("A", date(2026, 12, 1), 5)
B = expected("B", date(2026, 12, 20), 5)


def moved(
    before: Outlook,
    after: Outlook,
    *,
    ahead: tuple[int, int] = (0, 0),
    units: int = 1,
    cut: frozenset[str] = frozenset(),
    is_displaced: bool = False,
) -> Change:
    """What a line of so many units sees that had `ahead[0]` units before it, and has `ahead[1]` now."""
    return Change(
        before=before,
        after=after,
        ahead_before=ahead[0],
        ahead_after=ahead[1],
        window_before=window(units=ahead[0] + units, outlook=before),
        window_after=window(units=ahead[1] + units, outlook=after),
        cut=cut,
        is_displaced=is_displaced,
    )


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("change", "cause"),
    [
        pytest.param(
            moved(outlook(expected=(A,)), outlook(expected=(expected("A", date(2026, 12, 9), 5),))),
            Cause.SUPPLY_LATE,
            id="its batch was put off",
        ),
        pytest.param(
            moved(
                replace(outlook(expected=(A,)), today=date(2026, 11, 1)),
                replace(outlook(expected=(A,)), today=date(2026, 12, 20)),
            ),
            Cause.SUPPLY_LATE,
            id="its batch is overdue",
        ),
        pytest.param(
            moved(
                outlook(expected=(A, B)),
                outlook(expected=(B,)),
                ahead=(3, 1),
                cut=frozenset({"A"}),
            ),
            Cause.SUPPLY_CUT,
            id="its batch came with fewer devices",
        ),
        pytest.param(
            moved(
                outlook(expected=(A, B)),
                outlook(expected=(Expected("A", A.on, 2, A.on, 2), B)),
                ahead=(3, 3),
            ),
            Cause.SUPPLY_CUT,
            id="its batch will have fewer devices",
        ),
        pytest.param(
            moved(outlook(expected=(A, B)), outlook(expected=(A, B)), ahead=(4, 5), is_displaced=True),
            Cause.LATE_PAYMENTS,
            id="somebody before it was confirmed late",
        ),
        pytest.param(
            moved(outlook(free=2, expected=(B,)), outlook(expected=(B,)), ahead=(1, 1)),
            Cause.SUPPLY_CUT,
            id="free devices were taken out",
        ),
        pytest.param(
            moved(outlook(monthly=(90, 90, 90)), outlook(monthly=(30, 30, 30)), ahead=(60, 60)),
            Cause.PACE,
            id="devices come more slowly",
        ),
        pytest.param(
            moved(outlook(expected=(B,)), outlook(expected=(A, B))),
            Cause.SUPPLY_MORE,
            id="another batch was announced",
        ),
        pytest.param(
            moved(outlook(expected=(B,)), outlook(expected=(expected("B", date(2026, 12, 5), 5),))),
            Cause.SUPPLY_MORE,
            id="its batch comes earlier",
        ),
        pytest.param(
            moved(outlook(expected=(A, B)), outlook(expected=(A, B)), ahead=(5, 4)),
            Cause.REFUNDS,
            id="units before it were refunded",
        ),
        pytest.param(
            moved(outlook(monthly=(30, 30, 30)), outlook(monthly=(90, 90, 90)), ahead=(60, 60)),
            Cause.PACE,
            id="devices come faster",
        ),
    ],
)
def test_customer_is_told_the_main_cause_of_a_change(change: Change, cause: Cause) -> None:
    assert change.window_before != change.window_after
    assert cause_of(change) == cause
