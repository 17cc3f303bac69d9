"""Customers, notices, and facts of every kind as `orders` writes them."""

from collections.abc import Mapping, Sequence
from datetime import UTC, datetime

from django.db import transaction

from accounts.models import User
from notices.channels.protocol import Accepted, Outcome, Outgoing
from notices.kinds import KINDS, PAYMENT_RECEIVED, Kind
from notices.models import Notice
from notices.outbox import Draft, JSONValue, tell

NOW = datetime(2026, 11, 23, 4, 30, tzinfo=UTC)

TOTAL: JSONValue = {"minor": 14970, "currency": "USD"}
WINDOW: dict[str, JSONValue] = {
    "reference": "VP-7K2M",
    "plan": "Pro & Max",
    "quantity": 3,
    "units_ahead": 1,
    "earliest": "2026-12-01",
    "likely": "2026-12-03",
    "latest": "2026-12-20",
    "basis": "supply",
    "cause": "late",
    "next_update_by": "2026-11-30",
    "previous_likely": None,
    "previous_latest": None,
}
NO_WINDOW = WINDOW | {"earliest": None, "likely": None, "latest": None, "basis": "unknown", "units_ahead": 0}
EARLIER = {"previous_likely": "2026-11-28", "previous_latest": "2026-12-10"}
LATER = {"previous_likely": "2026-12-09", "previous_latest": "2027-01-10"}

# Every shape the facts of a kind can have.
FACTS: dict[str, Sequence[Mapping[str, JSONValue]]] = {
    "money-returned": [
        {"reference": "VP-7K2M", "amount": TOTAL, "reason": reason}
        for reason in ("late", "duplicate", "surplus")
    ],
    "payment-disputed": [{"reference": "VP-7K2M"}],
    "dispute-ended": [{"reference": "VP-7K2M"}],
    "guardian-asked": [
        {
            "reference": "VP-7K2M",
            "guardian": "Mei Lin",
            "buyer": "Lin (lin@example.com)",
            "units": units,
            "total": TOTAL,
            "until": "2026-11-26T05:00:00+00:00",
        }
        for units in (1, 3)
    ],
    "guardian-confirmed": [
        {"reference": "VP-7K2M", "guardian": "Mei Lin", "pay_until": "2026-11-26T05:00:00+00:00"}
    ],
    "guardian-refused": [{"reference": "VP-7K2M", "guardian": "Mei Lin"}],
    "agreement-revised": [
        {
            "title": "Purchase Agreement",
            "number": 2,
            "summary": "Delivery within three days.",
            "effective_on": "2026-12-01",
            "questions_until": "2026-11-26",
            "retroactive_effect": retroactive_effect,
        }
        for retroactive_effect in ("", "Waiting orders are delivered sooner.")
    ],
    "question-answered": [
        {
            "title": "Purchase Agreement",
            "number": 2,
            "question": "Does this concern me?",
            "answer": "No.\n\nIt does not.",
        }
    ],
    "order-placed": [{"reference": "VP-7K2M", "total": TOTAL, "pay_until": "2026-11-23T05:00:00+00:00"}],
    "payment-received": [
        {"reference": "VP-7K2M", "total": TOTAL, "paid_at": "2026-11-23T04:21:09.120000+00:00"}
    ],
    "estimate-made": [
        WINDOW,
        NO_WINDOW,
        WINDOW | {"basis": "free", "earliest": "2026-12-20", "likely": "2026-12-20"},
    ],
    "estimate-changed": [
        WINDOW | EARLIER,
        WINDOW | LATER,
        WINDOW | {"previous_likely": "2026-12-03", "previous_latest": "2026-12-10", "cause": "payments"},
        WINDOW,
        NO_WINDOW | LATER,
        NO_WINDOW,
    ],
    "estimate-confirmed": [
        WINDOW | {"cause": "schedule", "basis": "rate"},
        NO_WINDOW | {"cause": "schedule"},
    ],
    "device-replaced": [
        {
            "reference": "VP-7K2M",
            "plan": "Pro & Max",
            "starts_at": "2026-11-23T04:00:00+00:00",
            "ends_at": "2026-12-24T04:00:00+00:00",
        },
        {"reference": "VP-7K2M", "plan": "Pro & Max", "starts_at": None, "ends_at": None},
    ],
    "allocated": [
        {
            "reference": "VP-7K2M",
            "plan": "Pro & Max",
            "units": units,
            "remaining": remaining,
            "starts_at": "2026-11-23T04:30:00+00:00",
            "ends_at": "2026-12-23T04:30:00+00:00",
        }
        for units, remaining in ((1, 0), (3, 1), (3, 7))
    ],
    "order-expired": [
        {"reference": "VP-7K2M", "awaited_guardian": awaited_guardian} for awaited_guardian in (False, True)
    ],
    "refund-approved": [
        {
            "reference": "VP-7K2M",
            "refund": "RF-0001",
            "amount": TOTAL,
            "ground": ground,
            "phones": phones,
            "is_gone": is_gone,
        }
        for ground, phones, is_gone in (
            ("law", 0, False),
            ("unable-to-supply", 1, False),
            ("unable-to-supply", 7, True),
        )
    ],
    "refund-paid": [
        {"reference": "VP-7K2M", "refund": "RF-0001", "amount": TOTAL, "ground": "law", "means": means}
        for means in ("", "bank transfer")
    ],
    "case-opened": [
        {
            "reference": "VP-7K2M",
            "case": "CS-3M9Q",
            "matter": matter,
            "subject": "Charged twice",
            "body": "My bank shows two payments.\n\nBoth today.",
            "opened_at": "2026-11-23T04:21:09.120000+00:00",
            "answer_by": "2026-11-28",
        }
        for matter in ("dispute", "withdrawal")
    ],
    "case-answered": [{"reference": "VP-7K2M", "case": "CS-3M9Q", "body": "One was returned."}],
    "case-closed": [
        {
            "reference": "VP-7K2M",
            "case": "CS-3M9Q",
            "subject": "Charged twice",
            "outcome": outcome,
            "side": side,
            "body": "Thank you.",
        }
        for outcome, side in (
            ("settled", "platform"),
            ("settled", "customer"),
            ("not-settled", "platform"),
            ("dropped", "customer"),
        )
    ],
}
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
    is_ours = False
    claimed_at_once = 10

    def __init__(self, *answers: Outcome | BaseException) -> None:
        self.taken: list[Outgoing] = []
        self._answers = list(answers)

    def addresses_of(self, recipients: Sequence[User]) -> Mapping[int, Sequence[str]]:
        return {recipient.pk: (recipient.email,) for recipient in recipients}

    def send(self, outgoing: Outgoing, *, now: datetime) -> Accepted:
        self.taken.append(outgoing)
        answer = self._answers.pop(0) if self._answers else Accepted(f"ref-{len(self.taken)}")
        if isinstance(answer, BaseException):
            raise answer
        return answer
