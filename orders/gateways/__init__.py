"""Payment gateways: one module per provider, chosen by method in this table.

A *method* is what the buyer picks, a *gateway* is who processes it.
"""

from dataclasses import dataclass

from django.utils.functional import Promise
from django.utils.translation import gettext_lazy as _

from orders.gateways.paypal import PayPalGateway
from orders.gateways.protocol import Gateway
from orders.gateways.sandbox import SandboxGateway

GATEWAYS: dict[str, type[Gateway]] = {"paypal": PayPalGateway, "sandbox": SandboxGateway}


@dataclass(frozen=True, slots=True)
class Method:
    """A way to pay, as the buyer sees it."""

    slug: str
    label: str | Promise
    gateway: str


METHODS = (
    Method("paypal", "PayPal", gateway="paypal"),
    Method("sandbox", _("Sandbox payment (no real money)"), gateway="sandbox"),
)


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
