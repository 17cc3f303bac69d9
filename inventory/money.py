"""Money: an integer of minor units and an ISO 4217 currency. Nothing passes through float."""

import re
from dataclasses import dataclass
from decimal import Decimal

import moneyed
from django.conf import settings
from django.utils.translation import get_language, to_locale
from moneyed.l10n import format_money

WRITTEN_AMOUNT = re.compile(r"[0-9]{1,18}(\.[0-9]{1,4})?")


class CurrencyMismatch(ValueError):
    """Two amounts of different currencies were added or compared."""


@dataclass(frozen=True, slots=True)
class Money:
    """`minor` hundredths (or units, or thousandths: the currency knows) of `currency`."""

    minor: int
    currency: str

    def __post_init__(self) -> None:
        if type(self.minor) is not int:
            raise TypeError(f"Minor units are whole numbers, not {self.minor!r}.")
        exponent_of(self.currency)

    @classmethod
    def parse(cls, written: str, currency: str) -> "Money":
        """Read a provider's decimal ("49.90", "499"). Raises ValueError on more digits than the currency has."""
        if not WRITTEN_AMOUNT.fullmatch(written):
            raise ValueError(f"{written!r} is not an amount.")
        minor = Decimal(written).scaleb(exponent_of(currency))
        if minor != int(minor):
            raise ValueError(f"{written!r} has more digits than {currency} has.")
        return cls(int(minor), currency)

    def written(self) -> str:
        """The decimal a provider's API expects: "49.90" for USD, "499" for JPY."""
        exponent = exponent_of(self.currency)
        return f"{Decimal(self.minor).scaleb(-exponent):.{exponent}f}"

    def localised(self) -> str:
        """As a reader of the active language writes it, currency included: "$49.90"."""
        locale = to_locale(get_language() or settings.LANGUAGE_CODE)
        return format_money(moneyed.Money(self.written(), self.currency), locale=locale)

    def __add__(self, other: "Money") -> "Money":
        return Money(self.minor + self._same(other), self.currency)

    def __sub__(self, other: "Money") -> "Money":
        return Money(self.minor - self._same(other), self.currency)

    def __mul__(self, times: int) -> "Money":
        return Money(self.minor * times, self.currency)

    def __lt__(self, other: "Money") -> bool:
        return self.minor < self._same(other)

    def __le__(self, other: "Money") -> bool:
        return self.minor <= self._same(other)

    def __bool__(self) -> bool:
        return self.minor != 0

    def __str__(self) -> str:
        return f"{self.written()} {self.currency}"

    def _same(self, other: "Money") -> int:
        if self.currency != other.currency:
            raise CurrencyMismatch(f"{self.currency} and {other.currency} do not mix.")
        return other.minor


def exponent_of(currency: str) -> int:
    """Digits after the point: 2 for USD, 0 for JPY. Raises ValueError for an unknown currency."""
    try:
        sub_unit = moneyed.get_currency(currency).sub_unit
    except moneyed.CurrencyDoesNotExist:
        raise ValueError(f"{currency!r} is not an ISO 4217 currency.") from None
    return len(str(sub_unit)) - 1
