"""Facts as `orders` and the others write them: every kind of notice can be looked at, and is tested, with these."""

from collections.abc import Mapping, Sequence
from itertools import cycle

from notices.kinds import JSONValue

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
PHONES: dict[str, JSONValue] = {"reference": "VP-7K2M", "plan": "Pro & Max", "phones": 3}
# Why service is suspended or ended: the ground of 5.3, the use that 4.2 forbids, and what staff say of it.
GROUNDS: list[dict[str, str]] = [
    {"ground": "breach", "use": "", "detail": "The phones were let to others."},
    *({"ground": "illegal-use", "use": use, "detail": ""} for use in "abcdefghij"),
    {"ground": "law", "use": "", "detail": ""},
    {"ground": "force-majeure", "use": "", "detail": ""},
]
LATER = {"previous_likely": "2026-12-09", "previous_latest": "2027-01-10"}

# Every shape the facts of a kind can have.
FACTS: dict[str, Sequence[Mapping[str, JSONValue]]] = {
    "money-returned": [
        {"reference": "VP-7K2M", "amount": TOTAL, "reason": reason}
        for reason in ("late", "duplicate", "surplus", "incomplete", "wrong-currency")
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
            "is_held": False,
        },
        *(
            {
                "reference": "VP-7K2M",
                "plan": "Pro & Max",
                "starts_at": None,
                "ends_at": None,
                "is_held": is_held,
            }
            for is_held in (False, True)
        ),
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
        {"reference": "VP-7K2M", "awaited_guardian": awaited_guardian, "was_short": was_short}
        for awaited_guardian, was_short in ((False, False), (False, True), (True, False))
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
    "money-to-claim": [{"reference": "VP-7K2M", "amount": TOTAL}],
    "refund-came-back": [{"reference": "VP-7K2M", "amount": TOTAL}],
    "case-opened": [
        {
            "reference": "VP-7K2M",
            "case": "CS-3M9Q",
            "matter": matter,
            "subject": "Charged twice",
            "ground": ground,
            "legal_basis": legal_basis,
            "body": "My bank shows two payments.\n\nBoth today.",
            "opened_at": "2026-11-23T04:21:09.120000+00:00",
            "answer_by": "2026-11-28",
        }
        for matter, ground, legal_basis in (
            ("dispute", "", ""),
            ("withdrawal", "", ""),
            ("refund", "law", "Cap. 362, section 7 & 8"),
            ("refund", "unable-to-supply", ""),
        )
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
    "next-in-line": [WINDOW | {"units_ahead": 0}, NO_WINDOW],
    "plan-estimate": [
        {"plan": "Pro & Max", "waiting": 31, **dict.fromkeys(("earliest", "likely", "latest"))},
        {
            "plan": "Pro & Max",
            "waiting": 1,
            "earliest": "2026-12-01",
            "likely": "2026-12-03",
            "latest": "2026-12-20",
        },
    ],
    "delayed": [
        WINDOW | {"promised": "2026-11-10", "choice": "You may end the contract and have your money back."}
    ],
    "expiring": [
        {"reference": "VP-7K2M", "plan": "Pro & Max", "phones": n, "ends_at": "2026-12-23T04:30:00+00:00"}
        for n in (1, 3)
    ],
    "expired": [
        {"reference": "VP-7K2M", "plan": "Pro & Max", "phones": n, "ends_at": "2026-11-23T04:00:00+00:00"}
        for n in (1, 3)
    ],
    "contact-code": [{"code": "••••••"}],
    "contact-test": [{}],
    "suspended": [
        PHONES | ground | {"phones": phones, "since": "2026-11-23T04:21:09+00:00", "until": until}
        for ground, (phones, until) in zip(
            GROUNDS, cycle(((1, None), (3, "2026-12-23T04:30:00+00:00"))), strict=False
        )
    ],
    "resumed": [
        PHONES | {"phones": phones, "at": "2026-11-23T04:21:09+00:00", "ends_at": "2026-12-23T04:30:00+00:00"}
        for phones in (1, 3)
    ],
    "terminated": [
        PHONES | ground | {"phones": phones, "at": "2026-11-23T04:21:09+00:00"}
        for ground, phones in zip(GROUNDS, cycle((1, 3)), strict=False)
    ],
    "account-held": [
        {
            "ground": "unauthorised-use",
            "detail": detail,
            "was_asked_for": was_asked_for,
            "since": "2026-11-23T04:21:09+00:00",
            "until": until,
        }
        for detail, was_asked_for, until in (
            ("", True, None),
            ("Somebody logged in from three countries within an hour.", False, "2026-12-23T04:30:00+00:00"),
        )
    ],
    # What is delayed: allocation, or the service of phones that were allocated.
    "force-majeure": [
        {
            "reference": "VP-7K2M",
            "plan": "Pro & Max",
            "event": event,
            "detail": detail,
            "delayed": delayed,
            "since": "2026-11-20",
            "until": until,
            "next_update_by": "2026-11-30",
        }
        for event, (detail, delayed, until) in zip(
            (
                "natural-disaster",
                "war",
                "terrorism",
                "riot",
                "embargo",
                "authority",
                "fire",
                "flood",
                "accident",
                "strike",
                "shortage",
            ),
            cycle((("", "allocation", None), ("The port is closed.", "service", "2026-12-10"))),
            strict=False,
        )
    ],
    "service-changed": [
        {
            "plan": "Pro & Max",
            "effective_on": "2026-12-01",
            "change": "Android 15 takes the place of Android 14.",
        }
    ],
    "security": [
        {"event": event, "detail": detail, "at": "2026-11-23T04:21:09+00:00", "address": address}
        for event, detail, address in (
            ("password-changed", "", "203.0.113.7"),
            ("email-added", "new@example.com", ""),
            ("email-changed", "new@example.com", "203.0.113.7"),
            ("second-factor-added", "", ""),
            ("second-factor-removed", "", ""),
            ("recovery-codes-made", "", ""),
            ("contact-point-added", "+852 5123 4567", ""),
            ("contact-point-removed", "+852 5123 4567", ""),
            ("email-removed", "old@example.com", ""),
            ("new-browser", "Firefox, Linux", "203.0.113.7"),
        )
    ],
    "fees-announced": [{"currency": "HKD", "effective_on": "2026-12-01"}],
}
