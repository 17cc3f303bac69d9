"""What the shop asks of a payment gateway, in the shop's words.

An adapter translates between these dataclasses and one provider's API and holds no state. It fails in
exactly two ways, because they ask for different behaviour: `Unavailable` and `Declined`.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol

from django.utils.functional import Promise

from inventory.money import Money


class Unavailable(Exception):
    """The outcome is unknown (timeout, 5xx, an answer that makes no sense): ask again with the same key."""


class CredentialsRefused(Unavailable):
    """The gateway does not know us: nothing is decided, and nothing will be until a person mends the settings."""


class Declined(Exception):
    """The gateway said no, for good. The message may be shown to staff; it holds no secrets."""


class BadSignature(Exception):
    """A webhook that did not prove where it comes from: answer 400 and store nothing."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A payment to be opened at the gateway. `reference` is the idempotency key."""

    reference: str
    amount: Money
    description: str
    return_url: str
    expires_at: datetime
    language: str


@dataclass(frozen=True, slots=True)
class Opened:
    """A payment that is open at the gateway: where the buyer goes to pay."""

    provider_id: str
    pay_url: str


@dataclass(frozen=True, slots=True)
class MoneyMoved:
    """A capture or a refund as the gateway states it. `amount` is positive in both; times are aware.

    `reference` is ours, of a refund that we asked for; empty for one made at the gateway's own desk.
    """

    transaction_id: str
    amount: Money
    at: datetime
    reference: str = ""


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All the gateway knows of one payment at one moment. `state` is one of AttemptState's values."""

    provider_id: str
    state: str
    captures: tuple[MoneyMoved, ...] = ()
    refunds: tuple[MoneyMoved, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Event:
    """A webhook whose signature is good. It says only which payment to fetch, never what happened to it."""

    dedupe_key: str
    attempt_reference: str


@dataclass(frozen=True, slots=True)
class Return:
    """Money to be given back out of one payment. `reference` is the idempotency key."""

    reference: str
    provider_id: str
    amount: Money


class Gateway(Protocol):
    """One provider. Methods that go over the network raise Unavailable or Declined, and take 15 s at most."""

    slug: str
    label: str | Promise

    def missing(self) -> list[str]:
        """Names of the settings without which this gateway cannot be offered."""
        ...

    def open(self, charge: Charge) -> Opened:
        """Open a payment. Called again with the same reference it answers the payment that is there."""
        ...

    def fetch(self, *, reference: str, provider_id: str) -> Snapshot | None:
        """Ask what became of a payment, by our reference where `provider_id` is empty. None: it has no such payment."""
        ...

    def close(self, *, provider_id: str) -> None:
        """Ask that the payment can no longer be paid. The next fetch tells whether the buyer was faster."""
        ...

    def give_back(self, refund: Return) -> None:
        """Ask for money to be returned. The refund shows in a later snapshot."""
        ...

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        """Verify a webhook and say which payment it is about. Header names are lower case.

        Raises BadSignature for anything that is not surely the gateway's, malformed bodies included.
        """
        ...
