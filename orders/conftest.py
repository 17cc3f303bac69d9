"""Fixtures of payment: the sandbox provider over real HTTP, and a shop that only listens."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings
from pytest_django.live_server_helper import LiveServer

from orders.gateways import paypal as paypal_gateway
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_paypal import RunningPayPal
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.tests.backstage_alipay import configured_alipay
from orders.tests.backstage_paypal import configured_paypal
from orders.tests.backstage_stripe import configured_stripe
from orders.tests.gateway_contract import configured_sandbox
from orders.tests.gateway_servers import Listener, listening
from orders.tests.paying import Door


@pytest.fixture
def sandbox(settings: Settings) -> Iterator[RunningSandbox]:
    """The sandbox provider, running, and settings that lead to it. Webhooks go to SITE_URL."""
    with configured_sandbox(settings) as running:
        yield running


@pytest.fixture
def shop(settings: Settings) -> Iterator[Listener]:
    """A server in the shop's place that keeps the webhooks it is sent."""
    with listening() as listener:
        settings.SITE_URL = listener.url
        yield listener


@pytest.fixture
def stripe(shop: Listener, settings: Settings) -> Iterator[RunningStripe]:
    """Stripe's emulator, running, and settings that lead to it. Webhooks go to `shop`."""
    with configured_stripe(settings) as running:
        yield running


@pytest.fixture
def paypal(shop: Listener, settings: Settings) -> Iterator[RunningPayPal]:
    """PayPal's emulator, as above."""
    # Ports come again, and what is remembered of an address with them.
    paypal_gateway._tokens.clear()
    paypal_gateway._certified_key.cache_clear()
    with configured_paypal(settings) as running:
        yield running


@pytest.fixture
def alipay(shop: Listener, settings: Settings) -> Iterator[RunningAlipay]:
    """Alipay's emulator, as above, and the method Alipay by it, without Stripe between."""
    settings.PAYMENT_METHODS = [*settings.PAYMENT_METHODS, "alipay:CNY=alipay"]
    with configured_alipay(settings) as running:
        yield running


@pytest.fixture
def door(live_server: LiveServer) -> Door:
    """The shop's own server."""
    return Door(live_server.url)
