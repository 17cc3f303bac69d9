"""Chains without value for the emulators that take coins: what coins cost here, addresses without a key, and deeds.

A deed is what a tester has happen on the chain or at the provider's desk: by a button of the payment page, or by
posting `deed` (and `coins`, to send another amount than the one that is due) to the page's address.
"""

import enum
import secrets
from decimal import ROUND_UP, Decimal

import segno
from django.utils.functional import Promise
from django.utils.safestring import SafeString, mark_safe
from django.utils.translation import gettext_lazy as _
from werkzeug.exceptions import BadRequest
from werkzeug.wrappers import Request

from inventory.money import Money

COIN_PRICES = {"BTC": Decimal(97_000), "ETH": Decimal(3_400)}
# What a US dollar is.
EXCHANGE_RATES = {
    "USD": Decimal(1),
    "HKD": Decimal("7.8"),
    "CNY": Decimal("7.2"),
    "EUR": Decimal("0.92"),
    "JPY": Decimal(150),
}
SATOSHI = Decimal("0.00000001")
BECH32 = "qpzry9x8gf2tvdw0s3jn54khce6mua7l"


class Deed(enum.StrEnum):
    PAY = "pay"
    SEND = "send"
    SEND_PART = "send-part"
    SEND_MORE = "send-more"
    SEND_WRONG_COIN = "send-wrong-coin"
    CONFIRM = "confirm"
    DROP = "drop"
    FAIL = "fail"
    EXPIRE = "expire"
    REFUND = "refund"
    PAY_UNTOLD = "pay-untold"
    PAY_TOLD_TWICE = "pay-told-twice"

    def copies(self) -> int:
        """How often the shop is told of it."""
        return {Deed.PAY_UNTOLD: 0, Deed.PAY_TOLD_TWICE: 2}.get(self, 1)

    def sends(self, missing: Decimal) -> Decimal:
        """How much comes by it, where so much is missing; 0 for a deed that sends nothing."""
        if self in (Deed.PAY, Deed.SEND, Deed.PAY_UNTOLD, Deed.PAY_TOLD_TWICE, Deed.SEND_WRONG_COIN):
            return missing
        if self is Deed.SEND_PART:
            return (missing * 6 / 10).quantize(SATOSHI)
        if self is Deed.SEND_MORE:
            return (missing * 11 / 10).quantize(SATOSHI)
        return Decimal(0)

    def confirms(self) -> bool:
        return self in (Deed.PAY, Deed.CONFIRM, Deed.PAY_UNTOLD, Deed.PAY_TOLD_TWICE)


LABELS: dict[Deed, str | Promise] = {
    Deed.PAY: _("Send the coins and confirm them"),
    Deed.SEND: _("Send what is missing, unconfirmed"),
    Deed.SEND_PART: _("Send six tenths of what is missing, unconfirmed"),
    Deed.SEND_MORE: _("Send 10 % too much, unconfirmed"),
    Deed.SEND_WRONG_COIN: _("Send a wrong coin"),
    Deed.CONFIRM: _("Confirm what was sent (a block is found)"),
    Deed.DROP: _("Drop what is unconfirmed (spent elsewhere)"),
    Deed.FAIL: _("Let the payment fail"),
    Deed.EXPIRE: _("Let the time to pay be over"),
    Deed.REFUND: _("Send the coins back at the provider's desk"),
    Deed.PAY_UNTOLD: _("Pay, but lose the webhooks"),
    Deed.PAY_TOLD_TWICE: _("Pay and send each webhook twice"),
}


def price_of(coin: str, currency: str) -> Decimal:
    """What one coin costs. Raises KeyError for what is not traded here."""
    return COIN_PRICES[coin] * EXCHANGE_RATES[currency]


def coins_for(price: Money, coin: str) -> Decimal:
    """The coins that are asked for a price, to the satoshi and never less."""
    return (Decimal(price.written()) / price_of(coin, price.currency)).quantize(SATOSHI, ROUND_UP)


def new_address(coin: str) -> str:
    """Of regtest for bitcoin; for ether, which has but one kind, one that begins as no wallet's does."""
    if coin == "BTC":
        return "bcrt1q" + "".join(secrets.choice(BECH32) for _letter in range(38))
    return "0x" + "0" * 12 + secrets.token_hex(14)


def shown(coins: Decimal) -> str:
    digits = f"{coins:f}"
    return digits.rstrip("0").rstrip(".") if "." in digits else digits


def code_of(text: str) -> SafeString:
    """A QR code as SVG, black on white whatever the page's colours."""
    svg = segno.make_qr(text).svg_inline(scale=5, border=2, dark="#000", light="#fff")
    return mark_safe(svg)  # noqa: S308 (made here, and without the text)


def deed_of(request: Request) -> tuple[Deed, Decimal | None]:
    """What is to happen, and how many coins are sent if the tester says so."""
    try:
        deed = Deed(request.form.get("deed", ""))
        coins = Decimal(request.form["coins"]) if request.form.get("coins") else None
    except (ValueError, ArithmeticError):
        raise BadRequest from None
    if coins is not None and not (coins.is_finite() and 0 < coins < 1_000_000):
        raise BadRequest
    return deed, coins


def language_of(request: Request) -> str:
    """The best of ours for this browser: the providers here are not told the buyer's language."""
    for tag, _quality in request.accept_languages:
        lowered = str(tag).lower()
        if lowered.startswith("zh"):
            return "zh-hant" if any(place in lowered for place in ("hant", "hk", "tw", "mo")) else "zh-hans"
        if lowered.startswith("en"):
            return "en"
    return "en"
