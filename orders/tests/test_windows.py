"""Windows, and what is said of why they changed."""

import itertools
from bisect import bisect_left
from collections.abc import Iterable
from dataclasses import replace
from datetime import date, timedelta
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from orders.lateness import lateness_curve
from orders.models import Basis, Cause
from orders.windows import Arrival, Change, Expected, Outlook, Window, arrival, cause_of, window

TODAY = date(2026, 11, 23)
TEN = (0, 1, 2, 3, 5, 7, 9, 14, 21, 40)


def expected(reference: str, on: date, units: int, *, first_on: date | None = None) -> Expected:
    """A batch that was never put off, unless `first_on` says so."""
    return Expected(reference, on, units, first_on or on, units)


def outlook(
    *,
    free: int = 0,
    expected: tuple[Expected, ...] = (),
    lateness: tuple[int, ...] = (0, 1, 2, 3, 10),
    overdue: tuple[int, ...] = (),
    monthly: tuple[int, ...] = (0, 0, 0),
) -> Outlook:
    return Outlook(
        today=TODAY,
        free=free,
        expected=expected,
        lateness=lateness,
        overdue=overdue,
        lateness_of="plan",
        monthly=monthly,
    )


def dates_of(batch: Expected, *, lateness: tuple[int, ...] = (0, 1, 2, 3, 10)) -> tuple[date, date, date]:
    """Earliest, likely and latest of the last unit of a batch that comes alone."""
    found = window(units=batch.units, outlook=outlook(expected=(batch,), lateness=lateness))
    assert found is not None
    return found.earliest, found.likely, found.latest


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

    assert dates_of(overdue) == (TODAY, TODAY, TODAY + timedelta(days=7))


def test_batch_later_than_anything_on_record_falls_back_on_the_assumption_from_today() -> None:
    lost = expected("A", TODAY - timedelta(days=40), 5)

    assert dates_of(lost) == (TODAY, TODAY + timedelta(days=7), TODAY + timedelta(days=30))


def test_batch_that_was_put_off_is_not_charged_with_its_delay_twice() -> None:
    put_off = expected("A", date(2026, 12, 21), 5, first_on=date(2026, 12, 1))

    # Every past batch came 20 days after the date first said, or 30.
    assert dates_of(put_off, lateness=(20, 20, 20, 20, 30)) == (
        date(2026, 12, 21),
        date(2026, 12, 21),
        date(2026, 12, 31),
    )


def test_batch_that_is_not_here_yet_is_not_judged_by_earlier_ones() -> None:
    soon = expected("A", TODAY + timedelta(days=1), 5)

    assert dates_of(soon, lateness=(-9, -9, -1, 0, 4)) == (
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
        # B may come tomorrow, and by December 24 with a chance of 3/5; A, by then, with 2/3 since December 2.
        Window(date(2026, 11, 24), date(2026, 12, 2), date(2026, 12, 31), Basis.SUPPLY),
        Window(date(2026, 12, 1), date(2026, 12, 25), date(2027, 1, 23), Basis.SUPPLY),
    ]


def test_lost_batch_does_not_keep_those_waiting_who_are_covered_by_a_surer_one() -> None:
    lost, sure = expected("A", TODAY - timedelta(days=40), 5), expected("B", TODAY + timedelta(days=2), 5)
    covered = [window(units=units, outlook=outlook(expected=(lost, sure))) for units in (5, 6)]
    assert [found and found.latest for found in covered] == [
        TODAY + timedelta(days=12),
        TODAY + timedelta(days=30),
    ]


# --- how often a window holds --------------------------------------------------------------------------


def covered_on(units: int, batches: Iterable[tuple[int, date]]) -> date:
    """The day on which batches of (units, day of arrival) have brought so many units."""
    brought = 0
    for size, day in sorted(batches, key=lambda batch: batch[1]):
        brought += size
        if brought >= units:
            return day
    raise AssertionError("They never bring so many.")


def at(found: Arrival, chance: float) -> date:
    """The day of arrival that has this place among all that are possible, from 0 to 1."""
    return found.days[min(bisect_left(found.chances, chance), len(found.days) - 1)]


@pytest.mark.clause("3.3")
@pytest.mark.parametrize("n", [1, 2, 3, 5])
@pytest.mark.parametrize("is_common", [False, True], ids=["each for itself", "all together"])
def test_dates_hold_as_often_as_they_say_however_many_batches_are_needed(n: int, is_common: bool) -> None:
    """The control: the latest of the batches' own dates held in 59 cases of 100 for five batches, not in 90."""
    coming = tuple(expected(str(number), date(2026, 12, 1), 10) for number in range(n))
    promised = window(units=10 * n, outlook=outlook(expected=coming, lateness=TEN))
    assert promised is not None
    alone = window(units=10, outlook=outlook(expected=coming[:1], lateness=TEN))
    assert alone is not None
    random = Random(20261123)
    trials = 20_000
    likely = latest = control = 0
    for _ in range(trials):
        late = [random.choice(TEN)] * n if is_common else random.choices(TEN, k=n)
        day = date(2026, 12, 1) + timedelta(days=max(late))
        likely += day <= promised.likely
        latest += day <= promised.latest
        control += day <= alone.latest

    assert likely / trials > 0.49
    assert latest / trials > 0.89
    assert round(control / trials, 1) == round(0.9 if is_common else 0.9**n, 1)


AN_OUTLOOK = st.builds(
    outlook,
    expected=st.lists(
        st.builds(
            lambda on, units, put_off: Expected(
                f"{on} {units}",
                TODAY + timedelta(days=on),
                units,
                TODAY + timedelta(days=on - put_off),
                units,
            ),
            st.integers(-30, 30),
            st.integers(1, 9),
            st.sampled_from((0, 0, 5, 20)),
        ),
        min_size=1,
        max_size=3,
    ).map(lambda batches: tuple(sorted(batches, key=lambda batch: batch.on))),
    lateness=st.lists(st.integers(-5, 40), min_size=5, max_size=7).map(lambda days: tuple(sorted(days))),
    overdue=st.lists(st.integers(1, 60), max_size=2).map(lambda days: tuple(sorted(days))),
)


@given(AN_OUTLOOK)
@settings(max_examples=60, deadline=None)
def test_every_step_holds_as_often_as_it_says(seen: Outlook) -> None:
    """By going through everything that can happen, and through everything that happens when delays are common."""
    curve = lateness_curve(seen.lateness, seen.overdue)
    sizes = [batch.units for batch in seen.expected]
    arrivals = [arrival(batch, today=TODAY, curve=curve) for batch in seen.expected]
    chances = [
        [
            (day, upto - before)
            for day, upto, before in zip(found.days, found.chances, (0.0, *found.chances), strict=False)
        ]
        for found in arrivals
    ]
    for units, promised in seen.steps[1:]:
        likely = latest = 0.0
        for happened in itertools.product(*chances):
            together = 1.0
            for _, chance in happened:
                together *= chance
            day = covered_on(units, zip(sizes, (day for day, _ in happened), strict=True))
            likely += together * (day <= promised.likely)
            latest += together * (day <= promised.latest)
            assert day >= promised.earliest or not together
        assert likely > 0.5 - 1e-9
        assert latest > 0.9 - 1e-9
        for percent in range(1, 101):
            day = covered_on(units, zip(sizes, (at(found, percent / 100) for found in arrivals), strict=True))
            assert day <= promised.likely or percent > 50
            assert day <= promised.latest or percent > 90


@given(AN_OUTLOOK)
@settings(max_examples=60, deadline=None)
def test_steps_go_up_to_the_last_unit_and_never_back(seen: Outlook) -> None:
    units = [reach for reach, _ in seen.steps]
    assert units == sorted(units)
    assert units[-1] == seen.supply
    for earlier, later in itertools.pairwise(found for _, found in seen.steps):
        assert earlier.earliest <= later.earliest
        assert earlier.likely <= later.likely
        assert earlier.latest <= later.latest
        assert later.earliest <= later.likely <= later.latest


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
