"""Fixtures of payment: the sandbox provider over real HTTP, and a shop that only listens."""

from collections.abc import Iterator

import pytest
from pytest_django import Settings

from orders.gateways.emulators.running import RunningSandbox
from orders.tests.gateway_contract import configured_sandbox
from orders.tests.gateway_servers import Listener, listening


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
