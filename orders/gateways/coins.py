"""Coins: their amounts, what they are worth at a quote, and the texts that a wallet scans.

A quote is a price in money and the coins due for it, as the provider locked them when the payment was opened.
What has come is worth its part of that price, whatever the coin costs by then.
"""

import re
from collections.abc import Iterable
from dataclasses import dataclass
from decimal import ROUND_HALF_EVEN, Context, Decimal, localcontext

from django.conf import settings

from inventory.money import Money

# Enough for the product of any two amounts that `read_coins` lets in.
EXACT = Context(prec=100)
WRITTEN = re.compile(r"[0-9]{1,12}(\.[0-9]{1,40})?([eE]-[0-9]{1,2})?")


@dataclass(frozen=True, slots=True)
class Coin:
    """`places` is how many digits its chain keeps after the point."""

    code: str
    places: int
    address: re.Pattern[str]
    # Of chains without value, which only the demo and the tests are paid on.
    test_address: re.Pattern[str] | None = None

    def is_address(self, written: str) -> bool:
        if settings.ALLOW_EMULATORS and self.test_address and self.test_address.fullmatch(written):
            return True
        return bool(self.address.fullmatch(written))

    def read(self, written: str) -> Decimal:
        """An amount as a provider writes it. Raises ValueError for what is none.

        Digits beyond those of the chain are noise of a provider that counts in floats (0.010299999999999999),
        and are rounded off.
        """
        if not WRITTEN.fullmatch(written):
            raise ValueError(f"{written!r} is not an amount of coins.")
        with localcontext(EXACT):
            return Decimal(written).quantize(Decimal(1).scaleb(-self.places), ROUND_HALF_EVEN)


BITCOIN = Coin(
    "BTC",
    8,
    re.compile(r"bc1[02-9ac-hj-np-z]{11,71}|[13][1-9A-HJ-NP-Za-km-z]{25,34}"),
    re.compile(r"(tb1|bcrt1)[02-9ac-hj-np-z]{11,71}|[2mn][1-9A-HJ-NP-Za-km-z]{25,34}"),
)
ETHER = Coin("ETH", 18, re.compile(r"0x[0-9a-fA-F]{40}"))


def written(coins: Decimal) -> str:
    """The decimal string in whole coins, with no more digits than it needs: "0.0103"."""
    digits = f"{coins:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def payment_uri(coin: Coin, address: str, coins: Decimal) -> str:
    """What a wallet scans to send `coins`: BIP 21 for bitcoin, EIP-681 (in wei, on the main chain) for ether."""
    if coin is BITCOIN:
        return f"bitcoin:{address}?amount={written(coins)}"
    with localcontext(EXACT):
        return f"ethereum:{address}@1?value={int(coins.scaleb(coin.places))}"


def worth(coins: Decimal, *, price: Money, due: Decimal) -> Money:
    """The money that `coins` are at the quote of `due` coins for `price`, rounded down to minor units.

    The product is exact, and so is what `//` leaves of the quotient: exactly `due` coins are exactly `price`.
    """
    with localcontext(EXACT):
        return Money(int(price.minor * coins // due), price.currency)


def worth_each(deposits: Iterable[Decimal], *, price: Money, due: Decimal) -> list[Money]:
    """The money that each deposit adds to those before it: rounding never makes parts of the price less than it."""
    so_far, before = Decimal(0), Money(0, price.currency)
    parts = []
    for coins in deposits:
        so_far += coins
        total = worth(so_far, price=price, due=due)
        parts.append(total - before)
        before = total
    return parts
