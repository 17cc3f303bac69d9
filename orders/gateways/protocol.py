"""What the shop asks of a payment gateway, in the shop's words.

An adapter translates between these dataclasses and one provider's API and holds no state. It fails in
exactly two ways, because they ask for different behaviour: `Unavailable` and `Declined`. Where it is the gateway
itself that does not answer, and not only to this question, `Unavailable` is `Unreachable`.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, timedelta
from typing import Protocol

from django.utils.functional import Promise

from inventory.money import Money


class Unavailable(Exception):
    """The outcome is unknown (timeout, 5xx, an answer that makes no sense): ask again with the same key."""


class Unreachable(Unavailable):
    """It is the gateway itself that does not answer, whatever it is asked: leave it alone for now."""


class CredentialsRefused(Unreachable):
    """The gateway does not know us: nothing is decided, and nothing will be until a person mends the settings."""


class Declined(Exception):
    """The gateway said no, for good. The message may be shown to staff; it holds no secrets."""


class BadSignature(Exception):
    """A webhook that did not prove where it comes from: answer 400 and store nothing."""


@dataclass(frozen=True, slots=True)
class Charge:
    """A payment to be opened at the gateway. `reference` is the idempotency key.

    `begun_at` is since when it may have been asked for. `method` is what the buyer picked (a slug of
    `orders.gateways.LABELS`); a gateway of several methods offers no other. `is_phone` says that he sits at a phone,
    and `payer_address` from which IP address he came: some providers ask.
    """

    reference: str
    amount: Money
    description: str
    return_url: str
    expires_at: datetime
    language: str
    begun_at: datetime | None = None
    method: str = ""
    is_phone: bool = False
    payer_address: str | None = None


@dataclass(frozen=True, slots=True)
class Instructions:
    """How to pay without leaving our page: a code to scan, and for a coin what to send where.

    `qr` is the text that the code holds. `coin_amount` is the exact amount as a decimal string in whole coins.
    """

    qr: str
    coin: str = ""
    coin_amount: str = ""
    address: str = ""


@dataclass(frozen=True, slots=True)
class Opened:
    """A payment that is open at the gateway: where the buyer goes to pay, or what our page shows him, or both.

    Then he stays on our page, with the other beside what it shows.
    """

    provider_id: str
    pay_url: str = ""
    instructions: Instructions | None = None


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
class RefusedReturn:
    """A refund that the gateway had accepted and that failed in the end: it may have been reported as made before.

    `reference` is ours, empty for one made at the gateway's own desk; `transaction_id` is empty where it has none.
    """

    reference: str
    problem: str
    transaction_id: str = ""


@dataclass(frozen=True, slots=True)
class Claim:
    """A return that waits for the buyer to take it up at `link`. Whoever has the link can; `reference` is the return's."""

    reference: str
    link: str


@dataclass(frozen=True, slots=True)
class CoinProgress:
    """How far a payment in coins is: decimal strings in whole coins, confirmations of those that are needed.

    `needed` is 0 where the provider does not say how many it wants. `missing` is what still has to be sent and
    `qr` the text of the code for it, both empty when nothing is missing.
    """

    coin: str
    due: str
    received: str
    confirmations: int = 0
    needed: int = 0
    missing: str = ""
    qr: str = ""


@dataclass(frozen=True, slots=True)
class Stray:
    """Something that came to a payment and can never count for it, as a wrong coin: a person must see to it."""

    transaction_id: str
    detail: str


@dataclass(frozen=True, slots=True)
class Snapshot:
    """All the gateway knows of one payment at one moment. `state` is one of AttemptState's values.

    `chargebacks` took money back against our will, `reversals` gave it to us again (a dispute that we won).
    A refund that is still on its way is in no list.
    """

    provider_id: str
    state: str
    captures: tuple[MoneyMoved, ...] = ()
    refunds: tuple[MoneyMoved, ...] = ()
    chargebacks: tuple[MoneyMoved, ...] = ()
    reversals: tuple[MoneyMoved, ...] = ()
    refused_returns: tuple[RefusedReturn, ...] = ()
    claims: tuple[Claim, ...] = ()
    progress: CoinProgress | None = None
    strays: tuple[Stray, ...] = ()
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Booking:
    """A line of the provider's own books, for the nightly comparison with our ledger.

    `kind` is one of EntryKind's values; `reference` is our payment's, empty where the provider does not say.
    """

    kind: str
    transaction_id: str
    amount: Money
    at: datetime
    reference: str = ""


@dataclass(frozen=True, slots=True)
class WebhookAnswer:
    """What a provider wants to hear when a webhook has been stored."""

    status: int = 200
    content_type: str = "text/plain"
    body: bytes = b""


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
    """One provider. Methods that go over the network raise Unavailable or Declined, and take 15 s at most.

    `methods` are those it can process, of `orders.gateways.LABELS`; which of them it does, the settings say.
    `currencies` are those it takes, of SHOP_CURRENCIES. `kept_headers` are the beginnings of the names of the
    webhook headers that are kept as evidence: what the signature rests on. `late_for` is how long after its expiry a
    payment may still be paid whatever has become of it: an address takes coins whenever they are sent.
    """

    slug: str
    label: str | Promise
    methods: frozenset[str]
    currencies: frozenset[str]
    webhook_answer: WebhookAnswer
    kept_headers: tuple[str, ...]
    late_for: timedelta

    def missing(self) -> list[str]:
        """Names of the settings without which this gateway cannot be offered."""
        ...

    def pay_origins(self) -> tuple[str, ...]:
        """Where `Opened.pay_url` may lead, and where that page leads on by itself, as sources of a browser's policy."""
        ...

    def refundable_for(self, method: str) -> timedelta | None:
        """How long after a capture what was paid by `method` is given back; None means for ever."""
        ...

    def open(self, charge: Charge) -> Opened:
        """Open a payment. Called again with the same reference it answers the payment that is there."""
        ...

    def fetch(self, *, reference: str, provider_id: str, returns: Sequence[str] = ()) -> Snapshot | None:
        """Ask what became of a payment, by our reference where `provider_id` is empty. None: it has no such payment.

        `returns` are the references of all we have asked to be given back out of it, for providers that list
        none.
        """
        ...

    def close(self, *, provider_id: str) -> None:
        """Ask that the payment can no longer be paid. The next fetch tells whether the buyer was faster."""
        ...

    def give_back(self, refund: Return) -> None:
        """Ask for money to be returned. The refund shows in a later snapshot."""
        ...

    def bookings(self, *, day: date) -> Iterator[Booking]:
        """All money that moved on a day of UTC by the provider's own books, in any order."""
        ...

    def read_webhook(self, *, headers: Mapping[str, str], body: bytes) -> Event:
        """Verify a webhook and say which payment it is about. Header names are lower case.

        Raises BadSignature for anything that is not surely the gateway's, malformed bodies included.
        """
        ...
