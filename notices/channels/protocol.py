"""What the outbox asks of a channel, in our words.

A channel translates between these dataclasses and one way of reaching a person, and holds no state. An
attempt ends in one of four ways, because each asks for different behaviour:

- it returns `Accepted`: a system that is not ours has taken the message. That is the sending date (VIII).
- `Unavailable`: it has surely not been taken (connection refused, 4xx, 429). The same message is sent
  again later; nobody can get it twice.
- `Refused`: it has surely not been taken and never will be (no such mailbox). Trying again is useless.
- `Uncertain`: the message went out and no answer came back. Sending it again could tell a customer the
  same thing twice, giving up could tell him nothing: neither is for a program to choose, so it is kept
  for a person or for a provider's later receipt.

Gateways know only two failures, for a payment can be asked for again with the same key. Few channels have
such keys, so a channel must say what it knows. Whatever else it raises counts as `Uncertain`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Protocol, TypeAlias

from accounts.models import User
from notices.kinds import Kind


class Unavailable(Exception):
    """Surely not handed over: try again later."""


class Refused(Exception):
    """Surely not handed over, and final."""


class Uncertain(Exception):
    """Nobody knows whether it was handed over."""


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way to one address. `url` is a path of our site, or empty."""

    delivery_id: int
    message_id: int
    recipient_id: int
    address: str
    kind: Kind
    language: str
    subject: str
    body: str
    url: str

    @property
    def reference(self) -> str:
        """The same at every attempt: an idempotency key for providers that know such a thing."""
        return f"delivery-{self.delivery_id}"


@dataclass(frozen=True, slots=True)
class Accepted:
    """Taken. `provider_reference` is what the message is found by at the provider, or empty."""

    provider_reference: str = ""


# How an attempt ended.
Outcome: TypeAlias = Accepted | Unavailable | Refused | Uncertain


class Channel(Protocol):
    """One way of reaching a person.

    `claimed_at_once` is how many deliveries a worker takes before it asks again for what is due.

    `is_ours` says that sending means writing to our own database: it is then called inside the
    transaction that records it, and happens exactly once. Any other channel is never called inside
    one, and must answer within `deliveries.SILENCE`: after that the outcome is recorded as uncertain.
    """

    slug: str
    is_ours: bool
    claimed_at_once: int

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[str]]:
        """Where each of them is reached, by id. Who is missing cannot be reached by this channel."""
        ...

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        """Hand over one message. Raises Unavailable, Refused or Uncertain."""
        ...
