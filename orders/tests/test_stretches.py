"""Which stretches of a queue have which window, and where it has become another one."""

from dataclasses import replace
from datetime import date, timedelta

from orders.models import Basis
from orders.queue import Cut, Rank
from orders.stretches import Beyond, Stretch, differences, stretches, window_at
from orders.windows import Expected, Outlook, Window
from tests.builders import NOW

TODAY = date(2026, 11, 23)
SOON, LATER = date(2026, 12, 1), date(2027, 1, 1)
ON_TIME = (0, 0, 0, 0, 0)


def coming(*batches: tuple[date, int]) -> tuple[Expected, ...]:
    return tuple(Expected(str(on), on, units, on, units) for on, units in batches)


def outlook(*, free: int = 2, monthly: tuple[int, ...] = (0, 0, 0), late: int = 0) -> Outlook:
    return Outlook(
        today=TODAY,
        free=free,
        expected=coming((SOON, 3), (LATER + timedelta(days=late), 5)),
        lateness=ON_TIME,
        overdue=(),
        lateness_of="plan",
        monthly=monthly,
    )


def place(number: int) -> Rank:
    """Of the line that joined as the `number`th."""
    return Rank(NOW + timedelta(seconds=number), number)


def cut(number: int, before: int) -> Cut:
    return Cut(place(number), before)


def window(day: date, basis: Basis = Basis.SUPPLY) -> Window:
    return Window(day, day, day, basis)


FREE = window(TODAY, Basis.FREE)


def test_each_step_of_the_supply_ends_at_the_first_line_that_it_does_not_cover_whole() -> None:
    found = stretches(outlook(), [cut(3, 2), cut(5, 4), cut(9, 10)])

    assert found == (
        Stretch(place(3), FREE),
        Stretch(place(5), window(SOON)),
        Stretch(place(9), window(LATER)),
        Stretch(None, None),
    )
    assert [window_at(place(n), found) for n in (2, 3, 4, 5, 8, 9, 99)] == [
        FREE,
        *[window(SOON)] * 2,
        *[window(LATER)] * 2,
        None,
        None,
    ]


def test_supply_that_covers_the_whole_queue_has_no_end() -> None:
    found = stretches(outlook(), [cut(3, 2)])
    assert found == (Stretch(place(3), FREE), Stretch(None, window(SOON)))
    assert stretches(outlook(), []) == (Stretch(None, FREE),)


def test_what_the_supply_does_not_cover_goes_by_past_months() -> None:
    found = stretches(outlook(monthly=(30, 30, 30)), [cut(3, 2), cut(5, 4), cut(9, 8)])
    assert found[-1] == Stretch(None, Beyond(place(9), 2, window(LATER), (30, 30, 30)))


def test_devices_that_go_to_those_at_the_head_change_nobodys_window() -> None:
    before = stretches(outlook(free=2), [cut(3, 2), cut(5, 4), cut(9, 8)])
    after = stretches(outlook(free=0), [cut(3, 0), cut(5, 2), cut(9, 6)])
    # Those at the very head had a free device, and are gone.
    assert list(differences(before, after)) == []


def test_lines_between_an_old_end_and_the_new_one_have_another_window() -> None:
    before = stretches(outlook(), [cut(3, 2), cut(5, 4), cut(9, 8)])
    assert list(differences(before, before)) == []
    # Units left the queue before the fifth, and a later batch became smaller.
    after = stretches(outlook(), [cut(3, 2), cut(6, 4), cut(8, 8)])
    assert list(differences(before, after)) == [(place(5), place(6)), (place(8), place(9))]


def test_batch_that_is_put_off_changes_its_own_stretch_only() -> None:
    ends = [cut(3, 2), cut(5, 4), cut(9, 8)]
    assert list(differences(stretches(outlook(), ends), stretches(outlook(late=3), ends))) == [
        (place(5), place(9))
    ]


def test_what_is_missing_is_another_for_all_behind_when_the_end_moves_within_a_line() -> None:
    pace = outlook(monthly=(30, 30, 30))
    before = stretches(pace, [cut(3, 2), cut(5, 4), cut(9, 8)])
    after = stretches(pace, [cut(3, 2), cut(5, 4), cut(9, 7)])
    assert list(differences(before, after)) == [(place(9), None)]
    faster = stretches(replace(pace, monthly=(60, 60, 60)), [cut(3, 2), cut(5, 4), cut(9, 8)])
    assert list(differences(before, faster)) == [(place(9), None)]


def test_queue_that_grows_beyond_the_supply_has_a_new_stretch_at_its_end() -> None:
    before = stretches(outlook(), [cut(3, 2), cut(5, 4)])
    after = stretches(outlook(), [cut(3, 2), cut(5, 4), cut(12, 10)])
    assert list(differences(before, after)) == [(place(12), None)]
