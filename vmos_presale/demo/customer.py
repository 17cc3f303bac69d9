"""The demo customer's orders, placed and paid through the shop's own front doors."""

import uuid
from datetime import datetime, timedelta
from random import Random

from django.conf import settings

from accounts.models import User
from agreements.acceptance import Consent, Witness, required_of_buyer
from agreements.rights import right_of
from inventory.models import Fee, Plan, SupplyBatch, Term
from inventory.supply import announce_batch, change_batch
from notices.models import Notice
from notices.outbox import drain
from orders.allocation import allocate_devices
from orders.cases import open_case, write
from orders.checkout import Wish, place_order
from orders.estimates import refresh_estimates
from orders.forms import CheckoutForm
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import AttemptState, Matter, Order, PaymentAttempt, Side
from orders.queue import fairness
from vmos_presale.demo import ledgers
from vmos_presale.demo.catalogue import (
    BROWSERS,
    CUSTOMER,
    CUSTOMERS_DOMAIN,
    IN_STOCK,
    MODELS,
    QUEUED,
    SOON,
    STAFF,
)
from vmos_presale.demo.history import REPORTED_AFTER, Coming, coming_batches
from vmos_presale.demo.mass import new_attempt, new_capture

# Names of what is found again at the next run.
NAMESPACE = uuid.uuid5(uuid.NAMESPACE_DNS, "demo.example.com")
MODEL_OF = {model.slug: model for model in MODELS}
WITNESS = Witness(ip_address="192.0.2.10", user_agent=BROWSERS[2], button=str(CheckoutForm.BUTTON))
# Where the demo's customer lives: in a country whose law gives her something, so that it can be seen.
HOME = "DE"


def is_done() -> bool:
    """Whether the last of the customer's orders is there."""
    return Order.objects.filter(checkout_key=_key("unpaid")).exists()


def follow(*, now: datetime) -> None:
    """One phone in use, two waited for, one not paid yet; and on the way the supplier's dates move."""
    queued = Plan.objects.get(slug=QUEUED)
    first, second = coming_batches(MODEL_OF[QUEUED], now=now)
    batch = _announce(first, queued)
    at = now - timedelta(days=24)
    ledgers.write(until=at)
    _pay(_order("queued", QUEUED, days=30, quantity=2, at=at), at=at + timedelta(minutes=4))
    _send(now=at + timedelta(minutes=5))
    at = now - timedelta(days=20)
    ledgers.write(until=at)
    _pay(_order("in stock", IN_STOCK, days=90, quantity=1, at=at), at=at + timedelta(minutes=2))
    served_at = at + timedelta(minutes=2) + settings.ALLOCATION_HOLD_BACK
    ledgers.write(until=served_at)
    allocate_devices(plan_id=Plan.objects.get(slug=IN_STOCK).pk, now=served_at)
    _send(now=served_at)
    _announce(second, queued)
    if first.moved_at:
        change_batch(batch_id=batch.pk, expected_on=first.now_expected_on, now=first.moved_at)
    ledgers.write(until=now)
    for model in MODELS:
        if model.waiting:
            refresh_estimates(plan_id=Plan.objects.get(slug=model.slug).pk, now=now)
    # The mass hears of it without a thousand mails in the demo's mailbox.
    Notice.objects.filter(is_expanded=False, recipient__email__endswith=f"@{CUSTOMERS_DOMAIN}").update(
        is_expanded=True
    )
    fairness.publish_heads(now=now)
    _talk(now=now - timedelta(days=2))
    _order("unpaid", SOON, days=30, quantity=1, at=now)
    _send(now=now)


def _talk(*, now: datetime) -> None:
    """A case about the order that waits, with the first answer."""
    order = Order.objects.get(checkout_key=_key("queued"))
    case = open_case(
        order_id=order.pk,
        customer_id=order.customer_id,
        matter=Matter.DISPUTE,
        subject="The date has moved twice",
        body="You told me mid-November, then the end of the month. Which date can I rely on?",
        now=now,
    )
    write(
        case_id=case.pk,
        author_id=User.objects.get(email=STAFF).pk,
        side=Side.PLATFORM,
        body="We are sorry. The supplier has moved the batch by a week. Your place does not change: see the order's page "
        "for what is ahead of you and what the new date rests on.",
        now=now + timedelta(hours=5),
    )


def _announce(coming: Coming, plan: Plan) -> SupplyBatch:
    known = SupplyBatch.objects.filter(reference=coming.reference).first()
    return known or announce_batch(
        plan_id=plan.pk,
        reference=coming.reference,
        quantity=coming.quantity,
        expected_on=coming.first_expected_on,
        now=coming.announced_at,
    )


def _order(name: str, slug: str, *, days: int, quantity: int, at: datetime) -> Order:
    customer = User.objects.get(email=CUSTOMER)
    term = Term.objects.get(plan__slug=slug, days=days)
    required = required_of_buyer(now=at, language=customer.language, right=right_of(HOME))
    return place_order(
        customer_id=customer.pk,
        checkout_key=_key(name),
        wishes=[Wish(term.pk, quantity)],
        currency="USD",
        seen_total=Fee.objects.in_force(currency="USD", at=at)[term.pk].money * quantity,
        consents=[
            Consent(each.text.pk, each.subject, each.role, customer.name, customer.email, each.statement)
            for each in required
        ],
        country=HOME,
        witness=WITNESS,
        guardian=None,
        language=customer.language,
        now=at,
    )


def _pay(order: Order, *, at: datetime) -> None:
    """As if the gateway had reported a capture."""
    random = Random(str(order.checkout_key))  # noqa: S311 (the same names every time)
    drawn = new_attempt(order, 1, AttemptState.PENDING, random)
    attempt = PaymentAttempt.objects.filter(reference=drawn.reference).first()
    if attempt is None:
        drawn.save(force_insert=True)
        attempt = drawn
    capture = new_capture(drawn, at=at, random=random)
    moved = MoneyMoved(capture.transaction_id, order.total, at)
    snapshot = Snapshot(attempt.provider_id, AttemptState.CAPTURED, captures=(moved,))
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=at + REPORTED_AFTER)


def _send(*, now: datetime) -> None:
    while drain(now=now):
        pass


def _key(name: str) -> uuid.UUID:
    return uuid.uuid5(NAMESPACE, name)
