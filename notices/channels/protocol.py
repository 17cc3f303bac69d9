"""What the outbox asks of a channel, in our words.

A channel translates between these dataclasses and one way of reaching a person, and holds no state. An
attempt ends in one of four ways, because each asks for different behaviour:

- it returns `Accepted`: a system that is not ours has taken the message. That is the sending date (VIII).
- `Unavailable`: it has surely not been taken (connection refused, 4xx, 429). The same message is sent
  again later; nobody can get it twice.
- `Refused`: it has surely not been taken and never will be (no such mailbox). Trying again is useless.
  `Gone` says so of the address itself: it is written to no more.
- `Uncertain`: the message went out and no answer came back. Sending it again could tell a customer the
  same thing twice, giving up could tell him nothing. So a provider's later receipt is waited for, for a set time; then
  it is sent once more, and it stands on record that it may arrive twice. What ends so again is for the fallbacks, and
  for a person.

Gateways know only two failures, for a payment can be asked for again with the same key. Few channels have
such keys (`is_repeatable`), so a channel must say what it knows. Whatever else it raises counts as `Uncertain`.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Protocol, TypeAlias

from django.utils.functional import Promise

from accounts.models import User
from notices.kinds import Form, Kind


class Unavailable(Exception):
    """Surely not handed over: try again later, and not before `retry_after` where the provider says so."""

    def __init__(self, problem: str, *, retry_after: timedelta | None = None) -> None:
        super().__init__(problem)
        self.retry_after = retry_after


class Deferred(Unavailable):
    """The same, said of this address alone: greylisted, a mailbox that is full, enough messages for a number today.

    It says that the provider is well.
    """


class Refused(Exception):
    """Surely not handed over, and final."""


class Gone(Refused):
    """There is no such address any more (an uninstalled app, a number given up)."""


class Uncertain(Exception):
    """Nobody knows whether it was handed over."""


class NotProven(Exception):
    """What came to our door is not surely the provider's."""


@dataclass(frozen=True, slots=True)
class Address:
    """Where a message goes by a channel: as the channel writes it, and the contact point it is of, if of one."""

    address: str
    contact_point_id: int | None = None


@dataclass(frozen=True, slots=True)
class Outgoing:
    """One message on its way to one address.

    `body` is in the channel's form. `url` is a path of our site, or empty; `about` the reference of its subject, or
    empty; `details` those of the contact point (see `ContactPoint`), or empty. Of the messages of one `thread` to one
    recipient the newest replaces the others; empty: each stands. As long as its words are being fitted to the channel, it has
    no `message_id` yet (0).
    """

    delivery_id: int
    message_id: int
    recipient_id: int
    address: str
    details: Mapping[str, Any]
    about: str
    kind: Kind
    language: str
    subject: str
    body: str
    url: str
    thread: str = ""

    @property
    def reference(self) -> str:
        """The same at every attempt: an idempotency key for providers that know such a thing."""
        return f"delivery-{self.delivery_id}"


def text_beside_title(outgoing: Outgoing) -> str:
    """What is said below the subject where both are shown: nothing, where the short text only repeats it."""
    return outgoing.body if outgoing.body != outgoing.subject else ""


@dataclass(frozen=True, slots=True)
class Accepted:
    """Taken. `provider_reference` is what the message is found by at the provider, or empty."""

    provider_reference: str = ""


@dataclass(frozen=True, slots=True)
class Report:
    """What a provider tells later of a message that it had taken.

    `has_arrived` says whether the recipient's own system has it now, or it came back; `is_gone`, of what came back,
    that there is no such address any more. `our_reference` is what the message was called by us, where the provider tells
    that too: he may report before we know his own.
    """

    provider_reference: str
    has_arrived: bool
    detail: str = ""
    is_gone: bool = True
    our_reference: str = ""


# How an attempt ended.
Outcome: TypeAlias = Accepted | Unavailable | Refused | Uncertain


class Channel(Protocol):
    """One way of reaching a person.

    `form` is how much room it has. `rings` says that it may wake somebody: what is not urgent waits for the end of
    his quiet hours. `per_second` is how many messages may go out in a second, all workers together; None: as many
    as can. `claimed_at_once` is how many deliveries a worker takes before it asks again for what is due.

    `is_ours` says that sending means writing to our own database: it is then called inside the
    transaction that records it, and happens exactly once. Any other channel is never called inside
    one, and must answer within `deliveries.SILENCE`: after that the outcome is recorded as uncertain.

    `is_repeatable` says that the provider knows a message again by our key (`Outgoing.reference`), so that nobody gets
    it twice: what nobody knows the end of is sent again without waiting.

    `is_by_hand` says that people do it: no worker takes its deliveries, they wait for staff.
    """

    slug: str
    label: str | Promise
    is_ours: bool
    is_by_hand: bool
    is_repeatable: bool
    form: Form
    rings: bool
    per_second: float | None
    claimed_at_once: int

    def missing(self) -> Sequence[str]:
        """The settings without which it cannot be used; nothing is sent by it until they are there."""
        ...

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        """Where each of them is reached, by id. Who is missing cannot be reached by this channel."""
        ...

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        """The same with the words that go over the wire, all of them and no others: shortened, set in fields, with a link.

        They are kept as evidence, so `send` changes nothing in them; it only puts a code into its place.
        """
        ...

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        """Hand over one message, whose words are fitted. Raises Unavailable, Refused or Uncertain."""
        ...
