"""Money never rounds, never mixes, never floats."""

import operator

import pytest
from django.utils import translation
from hypothesis import given
from hypothesis import strategies as st

from inventory.money import CurrencyMismatch, Money, exponent_of

CURRENCIES = st.sampled_from(["USD", "HKD", "CNY", "EUR", "JPY", "BHD"])


def test_exponents_are_those_of_iso_4217() -> None:
    assert {currency: exponent_of(currency) for currency in ("USD", "JPY", "BHD")} == {
        "USD": 2,
        "JPY": 0,
        "BHD": 3,
    }
    with pytest.raises(ValueError, match="ISO 4217"):
        exponent_of("XYZ1")


@given(minor=st.integers(0, 10**12), currency=CURRENCIES)
def test_written_amount_is_read_back_exactly(minor: int, currency: str) -> None:
    money = Money(minor, currency)

    assert Money.parse(money.written(), currency) == money


def test_16_yen_have_no_decimals() -> None:
    assert Money.parse("499", "JPY") == Money(499, "JPY")
    assert Money(499, "JPY").written() == "499"
    with pytest.raises(ValueError, match="more digits"):
        Money.parse("4.99", "JPY")


@pytest.mark.parametrize("written", ["", "-1", "1,00", "1e3", "NaN", "1.", ".5", " 1", "1.00000", "٤"])
def test_what_is_no_amount_is_refused(written: str) -> None:
    with pytest.raises(ValueError, match=r"amount|digits"):
        Money.parse(written, "USD")


def test_currencies_do_not_mix() -> None:
    for operate in (operator.add, operator.sub, operator.lt, operator.le):
        with pytest.raises(CurrencyMismatch):
            operate(Money(1, "USD"), Money(1, "EUR"))


def test_floats_are_refused() -> None:
    with pytest.raises(TypeError):
        Money(4.99, "USD")  # type: ignore[arg-type]


def test_amounts_are_written_as_their_reader_writes_them() -> None:
    assert Money(123_456, "USD").localised() == "$1,234.56"
    assert Money(1_234, "JPY").localised() == "¥1,234"
    with translation.override("zh-hans"):
        assert Money(123_456, "CNY").localised() == "¥1,234.56"
        assert Money(123_456, "USD").localised() == "US$1,234.56"
