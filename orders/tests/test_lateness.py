"""How late deliveries are, as far as it is known."""

from fractions import Fraction

import pytest

from orders.lateness import Curve, lateness_curve


def chances(curve: Curve) -> dict[int, str]:
    """The chance that a delivery has come, by days."""
    return {day: str(1 - left) for day, left in zip(curve.days, curve.open, strict=True)}


def test_without_anything_overdue_it_is_what_happened() -> None:
    curve = lateness_curve((0, 2, 2, 9))
    assert chances(curve) == {0: "1/4", 2: "3/4", 9: "1"}
    assert [curve.open_after(day) for day in (-1, 0, 8, 9)] == [1, Fraction(3, 4), Fraction(1, 4), 0]


@pytest.mark.clause("3.3")
def test_overdue_delivery_counts_with_those_that_came_later_than_it_is_now() -> None:
    # One of five is still to come, as late as one of the two that took more than three days: half of it goes to each.
    assert chances(lateness_curve((0, 0, 5, 9), overdue=(3,))) == {0: "2/5", 5: "7/10", 9: "1"}


def test_delivery_overdue_for_longer_than_any_has_taken_may_take_as_much_again_as_is_assumed() -> None:
    assert chances(lateness_curve((0, 1, 2), overdue=(40,))) == {
        0: "1/4",
        1: "1/2",
        2: "3/4",
        40: "17/20",
        47: "9/10",
        54: "19/20",
        70: "1",
    }


def test_what_is_overdue_makes_nothing_look_earlier() -> None:
    came = (-2, 0, 3, 3, 10, 12)
    for days in range(1, 20):
        known = lateness_curve(came)
        feared = lateness_curve(came, overdue=(days,))
        assert all(feared.open_after(day) >= known.open_after(day) for day in range(-3, 60))


@pytest.mark.parametrize(("share", "day"), [(0.1, 0), (0.5, 4), (0.9, 8), (0.91, 9), (1.0, 9)])
def test_day_of_a_share_is_one_that_happened(share: float, day: int) -> None:
    assert lateness_curve(range(10)).day_of(share) == day


def test_of_those_that_come_later_the_earlier_ones_do_not_count() -> None:
    assert chances(lateness_curve((0, 2, 4, 9)).later_than(1)) == {2: "1/3", 4: "2/3", 9: "1"}
    assert chances(lateness_curve((0, 2, 4, 9)).later_than(-1)) == chances(lateness_curve((0, 2, 4, 9)))
