from datetime import timedelta

import pytest
from django.contrib.sessions.backends.base import SessionBase

from orders.basket import Basket
from orders.checkout import Wish
from tests.builders import NOW

DAY = timedelta(hours=24)


@pytest.fixture
def session() -> SessionBase:
    return SessionBase()


def test_adding_the_same_term_adds_its_units(session: SessionBase) -> None:
    Basket(session, now=NOW).add(term_id=7, quantity=2)
    Basket(session, now=NOW).add(term_id=9, quantity=1)
    Basket(session, now=NOW).add(term_id=7, quantity=3)

    basket = Basket(session, now=NOW)
    assert basket.wishes == (Wish(7, 5), Wish(9, 1))
    assert basket.units == 6


def test_changing_a_line_leaves_the_others_and_zero_takes_it_out(session: SessionBase) -> None:
    basket = Basket(session, now=NOW)
    basket.add(term_id=7, quantity=2)
    basket.add(term_id=9, quantity=1)
    basket.change(term_id=7, quantity=4)
    assert Basket(session, now=NOW).wishes == (Wish(7, 4), Wish(9, 1))

    basket.change(term_id=7, quantity=0)
    assert Basket(session, now=NOW).wishes == (Wish(9, 1),)


def test_basket_lives_for_a_day_after_it_was_last_touched(session: SessionBase) -> None:
    Basket(session, now=NOW).add(term_id=7, quantity=2)
    Basket(session, now=NOW + DAY).change(term_id=7, quantity=3)

    assert Basket(session, now=NOW + 2 * DAY).wishes == (Wish(7, 3),)
    late = Basket(session, now=NOW + 2 * DAY + timedelta(seconds=1))
    assert (late.is_expired, late.wishes, late.units) == (True, (), 0)


def test_expired_basket_is_remembered_and_can_be_put_back(session: SessionBase) -> None:
    Basket(session, now=NOW).add(term_id=7, quantity=2)
    late = Basket(session, now=NOW + 2 * DAY)
    assert late.remembered == (Wish(7, 2),)

    late.restore()
    restored = Basket(session, now=NOW + 2 * DAY)
    assert (restored.wishes, restored.remembered) == ((Wish(7, 2),), ())


def test_adding_to_an_expired_basket_begins_anew(session: SessionBase) -> None:
    Basket(session, now=NOW).add(term_id=7, quantity=2)
    Basket(session, now=NOW + 2 * DAY).add(term_id=9, quantity=1)
    assert Basket(session, now=NOW + 2 * DAY).wishes == (Wish(9, 1),)


def test_an_empty_basket_never_expires(session: SessionBase) -> None:
    basket = Basket(session, now=NOW)
    basket.add(term_id=7, quantity=2)
    basket.clear()
    late = Basket(session, now=NOW + 2 * DAY)
    assert (late.is_expired, late.remembered) == (False, ())
