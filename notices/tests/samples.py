"""Customers, notices, and what stands for systems that are not ours."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from django.db import transaction
from django.utils.functional import Promise

from accounts.models import User
from notices.channels.addresses import addresses_of
from notices.channels.protocol import Accepted, Address, Outcome, Outgoing
from notices.kinds import KINDS, PAYMENT_RECEIVED, Form, Kind
from notices.models import Notice
from notices.outbox import Draft, tell
from notices.samples import FACTS

NOW = datetime(2026, 11, 23, 4, 30, tzinfo=UTC)

SAMPLES = [(KINDS[slug], facts) for slug, shapes in FACTS.items() for facts in shapes]


def customer(email: str = "ada@example.com", **fields: str) -> User:
    return User.objects.create_user(email, **fields)


def draft(recipient: User, *, kind: Kind = PAYMENT_RECEIVED, key: str = "payment-received:1") -> Draft:
    return Draft(
        recipient_id=recipient.pk,
        kind=kind,
        about="VP-7K2M",
        url="/orders/VP-7K2M/",
        facts=FACTS[kind.slug][0],
        dedupe_key=key,
    )


def told(
    recipient: User, *, kind: Kind = PAYMENT_RECEIVED, key: str = "payment-received:1", now: datetime = NOW
) -> Notice:
    """A notice that is committed."""
    with transaction.atomic():
        tell([draft(recipient, kind=kind, key=key)], now=now)
    return Notice.objects.get(dedupe_key=key)


class Outside:
    """Stands for a system that is not ours: takes messages, and then answers as it was told to."""

    slug = "email"
    label: str | Promise = "Email"
    is_ours = False
    is_by_hand = False
    is_repeatable = False
    form = Form.FULL
    rings = False
    per_second: float | None = None
    claimed_at_once = 10

    def __init__(self, *answers: Outcome | BaseException) -> None:
        self.taken: list[Outgoing] = []
        self.answers = list(answers)

    def missing(self) -> Sequence[str]:
        return ()

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return {recipient.pk: (Address(recipient.email),) for recipient in recipients}

    def fitted(self, outgoing: Outgoing) -> Outgoing:
        return outgoing

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        self.taken.append(outgoing)
        answer = self.answers.pop(0) if self.answers else Accepted(f"ref-{len(self.taken)}")
        if isinstance(answer, BaseException):
            raise answer
        return answer


class Phones(Outside):
    """The same for text messages: short, they ring, and go to proved numbers."""

    slug = "sms"
    label: str | Promise = "Text message"
    form = Form.SHORT
    rings = True

    def __init__(self) -> None:
        super().__init__()
        self.lacks: Sequence[str] = ()

    def missing(self) -> Sequence[str]:
        return self.lacks

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[Address]]:
        return addresses_of(self.slug, recipients)
