"""Rows that tests start from. Each builder needs only what its test is about."""

import hashlib
import itertools
import uuid
from collections.abc import Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from types import MappingProxyType

from django.utils.text import slugify

from accounts.models import User
from inventory.models import (
    BatchState,
    Device,
    Fee,
    FeeSchedule,
    OversellDecision,
    Plan,
    Region,
    SupplyBatch,
    SupplyReceipt,
    Term,
)
from orders.models import (
    AttemptState,
    EntryKind,
    LedgerEntry,
    LineState,
    Order,
    OrderLine,
    OrderState,
    PaymentAttempt,
    QueueEventKind,
    WebhookEvent,
    new_reference,
)
from orders.queue import fairness, place_of

NOW = datetime(2026, 11, 23, 4, 0, tzinfo=UTC)  # noon in Hong Kong
_numbers = itertools.count(1)


def make_user(email: str = "", *, is_staff: bool = False) -> User:
    email = email or f"user{next(_numbers)}@example.com"
    return User.objects.create_user(email, "a long pass phrase", is_staff=is_staff, is_superuser=is_staff)


def make_plan(name: str = "V08", *, cap: int = 1_000, limit: int = 100, bonus_days: int = 1) -> Plan:
    plan = Plan.objects.create(
        name=name,
        slug=f"{slugify(name)}-{next(_numbers)}",
        android=13,
        cpu_cores=4,
        ram_gb=4,
        storage_gb=32,
        region=Region.HONG_KONG,
        presale_cap=cap,
        customer_limit=limit,
        presale_bonus_days=bonus_days,
    )
    if cap:
        # So that it is the cap which limits what is sold, unless a test announces supply.
        OversellDecision.objects.create(
            plan=plan, units=cap, reason="Test", decided_by=make_user(is_staff=True), decided_at=NOW
        )
    return plan


def make_fee(plan: Plan, *, days: int = 30, minor: int = 499, currency: str = "USD") -> Fee:
    """The fee of a term of `plan`, in force since 2026-01-01; the term is made if it is not there."""
    since = datetime(2026, 1, 1, tzinfo=UTC)
    schedule, _ = FeeSchedule.objects.get_or_create(
        currency=currency, effective_at=since, defaults={"announced_at": since}
    )
    term, _ = Term.objects.get_or_create(plan=plan, days=days)
    fee: Fee = Fee.objects.get_or_create(schedule=schedule, term=term, defaults={"minor": minor})[0]
    return fee


def make_batch(
    plan: Plan, *, quantity: int = 10, on: date = date(2026, 12, 1), received_late: int | None = None
) -> SupplyBatch:
    """A batch that is expected on `on`, or was received `received_late` days after it."""
    received_at = None
    if received_late is not None:
        received_at = datetime(on.year, on.month, on.day, 4, tzinfo=UTC) + timedelta(days=received_late)
    return SupplyBatch.objects.create(
        plan=plan,
        reference=f"B-{next(_numbers)}",
        quantity=quantity,
        expected_on=on,
        first_expected_on=on,
        state=BatchState.EXPECTED if received_at is None else BatchState.RECEIVED,
        received_units=0 if received_at is None else quantity,
        received_at=received_at,
    )


def make_devices(plan: Plan, count: int) -> list[Device]:
    """Free devices of `plan`, in the order in which the sweep takes them."""
    batch = make_batch(plan, quantity=count, received_late=0)
    number = next(_numbers)
    receipt = SupplyReceipt.objects.create(
        batch=batch,
        file_name=f"{number}.csv",
        file_sha256=f"{number:064d}",
        devices=count,
        received_at=NOW,
        received_by=make_user(is_staff=True),
    )
    return Device.objects.bulk_create(
        [Device(plan=plan, code=f"AC{number:04d}{n:06d}", receipt=receipt) for n in range(count)]
    )


def make_order(
    fees: Sequence[tuple[Fee, int]],
    *,
    customer: User | None = None,
    paid_at: datetime | None = None,
    placed_at: datetime = NOW - timedelta(days=1),
    pay_until: datetime | None = None,
    known_at: datetime = NOW,
) -> Order:
    """An order of (fee, quantity) lines: unpaid, or standing in the queues since `paid_at`, as we know since `known_at`."""
    total = sum(fee.minor * quantity for fee, quantity in fees)
    order = Order.objects.create(
        reference=new_reference("VM"),
        customer=customer or make_user(),
        checkout_key=uuid.uuid4(),
        state=OrderState.PAID if paid_at else OrderState.UNPAID,
        country="HK",
        currency=fees[0][0].schedule.currency,
        total_minor=total,
        placed_at=placed_at,
        pay_until=pay_until or placed_at + timedelta(minutes=30),
        paid_at=paid_at,
    )
    for fee, quantity in fees:
        line = OrderLine.objects.create(
            order=order,
            plan=fee.term.plan,
            term=fee.term,
            fee=fee,
            unit_minor=fee.minor,
            quantity=quantity,
            is_presale=True,
            bonus_days=1,
            state=LineState.WAITING if paid_at else LineState.UNPAID,
            paid_at=paid_at,
        )
        if paid_at:
            fairness.record(
                QueueEventKind.JOINED, [(line, quantity)], now=known_at, behind=place_of(line).behind
            )
    return order


def make_line(
    fee: Fee,
    *,
    quantity: int = 1,
    paid_at: datetime,
    customer: User | None = None,
    known_at: datetime = NOW,
) -> OrderLine:
    """A line of its own order, waiting since `paid_at`."""
    order = make_order([(fee, quantity)], paid_at=paid_at, customer=customer, known_at=known_at)
    return order.lines.get()


def make_attempt(
    order: Order,
    *,
    number: int = 1,
    state: AttemptState = AttemptState.PENDING,
    gateway: str = "sandbox",
    method: str = "",
) -> PaymentAttempt:
    """A payment of the whole order that is open at the gateway as `pay_<number>`."""
    return PaymentAttempt.objects.create(
        order=order,
        reference=f"{order.reference}-{number}",
        method=method or f"sandbox{number}",
        gateway=gateway,
        state=state,
        amount_minor=order.total_minor,
        currency=order.currency,
        provider_id=f"pay_{number}",
        created_at=order.placed_at,
        expires_at=order.pay_until,
    )


def make_webhook(
    *,
    key: str = "event-1",
    reference: str = "",
    gateway: str = "sandbox",
    body: bytes = b"{}",
    headers: Mapping[str, str] = MappingProxyType({}),
    received_at: datetime = NOW,
    processed_at: datetime | None = None,
) -> WebhookEvent:
    return WebhookEvent.objects.create(
        gateway=gateway,
        dedupe_key=key,
        attempt_reference=reference,
        headers=dict(headers),
        body=body,
        body_sha256=hashlib.sha256(body).hexdigest(),
        received_at=received_at,
        processed_at=processed_at,
    )


def make_capture(order: Order) -> LedgerEntry:
    """The payment that an order made as paid was paid by."""
    paid_at = order.paid_at or order.placed_at
    entry: LedgerEntry = LedgerEntry.objects.create(
        order=order,
        attempt=make_attempt(order, state=AttemptState.CAPTURED),
        gateway="sandbox",
        kind=EntryKind.CAPTURE,
        transaction_id=f"paid-{order.pk}",
        minor=order.total_minor,
        currency=order.currency,
        occurred_at=paid_at,
        recorded_at=paid_at,
    )
    return entry
