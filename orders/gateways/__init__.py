"""Payment gateways: one module per provider, chosen by method and currency as the settings say.

A *method* is what the buyer picks, a *gateway* is who processes it. PAYMENT_METHODS is a list of rules: `alipay=stripe`
is for every currency, `alipay:CNY=alipay` for one. It decides where a payment is begun; what becomes of it, and what
goes back of it, is asked of the gateway that it was begun at.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass

from django.conf import settings
from django.core.exceptions import ImproperlyConfigured
from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from orders.gateways.alipay import AlipayGateway
from orders.gateways.btcpay import BtcpayGateway
from orders.gateways.nowpayments import NowpaymentsGateway
from orders.gateways.paypal import PayPalGateway
from orders.gateways.protocol import Gateway
from orders.gateways.sandbox import SandboxGateway
from orders.gateways.stripe import StripeGateway
from orders.gateways.wechat import WechatGateway

GATEWAYS: dict[str, type[Gateway]] = {
    "alipay": AlipayGateway,
    "wechat": WechatGateway,
    "stripe": StripeGateway,
    "paypal": PayPalGateway,
    "nowpayments": NowpaymentsGateway,
    "btcpay": BtcpayGateway,
    "sandbox": SandboxGateway,
}
LABELS: dict[str, str | Promise] = {
    "card": _("Credit or debit card"),
    "alipay": _("Alipay"),
    "wechat": _("WeChat Pay"),
    "paypal": "PayPal",
    "bitcoin": "Bitcoin (BTC)",
    "ethereum": "Ether (ETH)",
    "sandbox": _("Sandbox payment (no real money)"),
}
RULE = re.compile(r"(?P<method>[a-z]+)(:(?P<currency>[A-Z]+))?=(?P<gateway>[a-z]+)")
# Stands for the currencies that no rule of the method names.
ANY = ""


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pay in one currency, as the buyer sees it, and who processes it there."""

    slug: str
    label: str | Promise
    gateway: str


def problems() -> list[str]:
    """What is wrong with PAYMENT_METHODS, in words for whoever wrote it."""
    return list(_problems(settings.PAYMENT_METHODS))


def methods_in(currency: str) -> list[Method]:
    """The methods that have a gateway in `currency`, whether it can be used or not, in the order in which buyers see them.

    Raises ImproperlyConfigured for rules that `problems` finds something wrong with.
    """
    if wrong := problems():
        raise ImproperlyConfigured(" ".join(wrong))
    rules: dict[str, dict[str, str]] = {}
    for rule in settings.PAYMENT_METHODS:
        method, where, gateway = _read(rule)
        rules.setdefault(method, {})[where] = gateway
    chosen = {slug: where.get(currency, where.get(ANY)) for slug, where in rules.items()}
    return [Method(slug, LABELS[slug], gateway) for slug, gateway in chosen.items() if gateway]


def methods_on_offer(currency: str) -> list[Method]:
    """The methods whose gateway has its settings and takes `currency`; `orders.methods` says what the others lack."""
    return [
        method
        for method in methods_in(currency)
        if not gateway_named(method.gateway).missing()
        and currency in gateway_named(method.gateway).currencies
    ]


def gateway_named(slug: str) -> Gateway:
    """The gateway of a payment attempt. Raises KeyError for one that was never there."""
    return GATEWAYS[slug]()


def pay_origins() -> list[str]:
    """Where buyers are led to pay, as sources of a browser's policy.

    Of every gateway that has its settings: an open payment may be at one that no method goes through any more.
    """
    usable = [gateway for gateway in map(gateway_named, GATEWAYS) if not gateway.missing()]
    return sorted({origin for gateway in usable for origin in gateway.pay_origins()})


def _problems(rules: list[str]) -> Iterator[str]:
    known: set[tuple[str, str]] = set()
    for rule in rules:
        said = f"PAYMENT_METHODS says “{rule}”."
        if not RULE.fullmatch(rule):
            yield f"{said} Write method=gateway, or method:CURRENCY=gateway."
            continue
        method, currency, gateway = _read(rule)
        if method not in LABELS:
            yield f"{said} There is no method {method}, only {', '.join(LABELS)}."
        elif gateway not in GATEWAYS:
            yield f"{said} There is no gateway {gateway}, only {', '.join(GATEWAYS)}."
        elif currency and currency not in settings.SHOP_CURRENCIES:
            yield f"{said} The shop has no fees in {currency}, only in {', '.join(settings.SHOP_CURRENCIES)}."
        elif method not in (can := GATEWAYS[gateway].methods):
            yield f"{said} The gateway {gateway} cannot process {method}, only {', '.join(sorted(can))}."
        elif currency and currency not in (takes := GATEWAYS[gateway].currencies):
            yield f"{said} The gateway {gateway} takes no {currency}, only {', '.join(sorted(takes))}."
        if (method, currency) in known:
            yield f"{said} There is another rule for the same before it."
        known.add((method, currency))


def _read(rule: str) -> tuple[str, str, str]:
    """Method, currency and gateway of a well-formed rule."""
    parts = RULE.fullmatch(rule)
    assert parts  # noqa: S101 (checked by `_problems`)
    return parts["method"], parts["currency"] or ANY, parts["gateway"]
