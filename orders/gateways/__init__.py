"""Payment gateways: one module per provider, chosen by method as the settings say.

A *method* is what the buyer picks, a *gateway* is who processes it.
"""

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


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pay, as the buyer sees it."""

    slug: str
    label: str | Promise
    gateway: str


def _methods() -> tuple[Method, ...]:
    """Which method goes through which gateway, as PAYMENT_METHODS says."""
    configured: dict[str, str] = settings.PAYMENT_METHODS
    for slug, gateway in configured.items():
        if slug not in LABELS or gateway not in GATEWAYS:
            raise ImproperlyConfigured(
                f"PAYMENT_METHODS says {slug}={gateway}. There are the methods {', '.join(LABELS)} and the "
                f"gateways {', '.join(GATEWAYS)}."
            )
    return tuple(Method(slug, LABELS[slug], gateway) for slug, gateway in configured.items())


METHODS = _methods()


def gateway_named(slug: str) -> Gateway:
    """The gateway of a payment attempt. Raises KeyError for one that was never there."""
    return GATEWAYS[slug]()


def methods_on_offer(currency: str) -> list[Method]:
    """The methods whose gateway is configured and takes `currency`; the admin shows what the others miss."""
    return [
        method
        for method in METHODS
        if not gateway_named(method.gateway).missing()
        and currency in gateway_named(method.gateway).currencies
    ]
