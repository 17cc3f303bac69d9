"""What the contract test needs of each provider besides its gateway: somebody who acts behind the scenes.

A new gateway adds its emulator's `Backstage` to `test_gateway_contract`, and the contract holds for it, or does
not.
"""

import base64
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Protocol

from pytest_django import Settings

from inventory.money import Money
from orders.gateways.emulators.running import RunningSandbox, running_sandbox
from orders.gateways.emulators.sandbox import Outcome
from orders.models import AttemptState

SANDBOX_KEY = "sandbox-key-of-the-tests"
SANDBOX_SECRET = "whsec_" + base64.b64encode(b"the secret of the sandbox tests!").decode()


class Backstage(Protocol):
    """The provider's side of one test. Webhooks go to SITE_URL."""

    # In what the provider takes: not all take all.
    amount: Money
    # Of the shape of its ids, but nobody's.
    unknown_id: str
    # Of a payment whose card was refused: with some providers the buyer may go on and take another one.
    state_of_declined: str = AttemptState.DECLINED

    def arrive(self, pay_url: str) -> None:
        """Be the buyer who comes to the page and decides nothing yet: some providers know of no payment before."""
        return

    def pay(self, pay_url: str) -> None:
        """Be the buyer who pays."""

    def decline(self, pay_url: str) -> None:
        """Be the buyer whose card is refused."""

    def payments(self) -> int:
        """How many payments the provider has."""

    def fail_next(self, times: int) -> None:
        """Let the next answers be errors of the provider, with nothing done."""

    def lose_next_answer(self) -> None:
        """Let the next request be fulfilled, and its answer be lost."""

    def refuse_us(self) -> None:
        """Let our credentials be wrong from now on."""


class SandboxBackstage(Backstage):
    amount = Money(4990, "USD")
    unknown_id = "pay_000000000000000000000000"

    def __init__(self, sandbox: RunningSandbox, settings: Settings) -> None:
        self._sandbox = sandbox
        self._settings = settings

    def pay(self, pay_url: str) -> None:
        self._sandbox.decide(pay_url, Outcome.APPROVE)

    def decline(self, pay_url: str) -> None:
        self._sandbox.decide(pay_url, Outcome.DECLINE)

    def payments(self) -> int:
        return len(self._sandbox.books()["payments"])

    def fail_next(self, times: int) -> None:
        self._sandbox.set_faults(errors=times)

    def lose_next_answer(self) -> None:
        self._sandbox.set_faults(lost_answers=1)

    def refuse_us(self) -> None:
        self._settings.SANDBOX_GATEWAY_KEY = "not-the-key"


@contextmanager
def configured_sandbox(settings: Settings, *, books: str = ":memory:") -> Iterator[RunningSandbox]:
    """A running sandbox, and settings that lead to it."""
    with running_sandbox(key=SANDBOX_KEY, secret=SANDBOX_SECRET, books=books) as sandbox:
        settings.ALLOW_EMULATORS = True
        settings.SANDBOX_GATEWAY_URL = sandbox.url
        settings.SANDBOX_GATEWAY_KEY = SANDBOX_KEY
        settings.SANDBOX_WEBHOOK_SECRET = SANDBOX_SECRET
        yield sandbox


@contextmanager
def sandbox_backstage(settings: Settings) -> Iterator[Backstage]:
    with configured_sandbox(settings) as sandbox:
        yield SandboxBackstage(sandbox, settings)
