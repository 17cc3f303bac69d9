"""Cases 39 to 46 of docs/payment-cases.md: money that goes back, by us, behind our back, or against our will."""

import threading
from collections.abc import Mapping
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from django.db import IntegrityError
from django.test import Client
from django.urls import reverse

from emulators.running import Running
from evidence.contract_time import contract_date
from inventory.models import Plan
from inventory.money import Money
from notices.models import Notice
from orders import refunds
from orders.allocation import allocate_devices
from orders.gateways.emulators import paypal as paypals
from orders.gateways.emulators import stripe as stripes
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot, missing_of
from orders.models import Document, Ground, LedgerEntry, Order, Refund, ReviewItem
from orders.payments import poll_payments
from orders.reconciliation import reconcile
from orders.refunds import RefundRefused, approve_refund, request_refund
from orders.returns import confirm_payout, free_to_return, record_payout, send_returns, try_again
from orders.tests.gateway_servers import Listener
from orders.tests.paying import PAID, UNPAID, Door, Standing, begin, hand_on, standing_of
from orders.tests.shopping import log_in
from orders.verification import orders_and_their_documents
from tests.builders import make_attempt, make_devices, make_fee, make_order, make_plan, make_user
from tests.racing import failures, race

pytestmark = pytest.mark.django_db(transaction=True)

METHOD_BY = {"sandbox": "sandbox", "stripe": "card", "paypal": "paypal"}
REFUNDED = replace(
    PAID,
    lines=("withdrawn",),
    ledger=(("capture", 4_990, "USD"), ("refund", -4_990, "USD")),
    refunds=((4_990, "paid"),),
    told=(*PAID.told, "refund-approved", "refund-paid"),
)


@pytest.fixture
def now() -> datetime:
    """The providers live in real time, so these tests do."""
    return datetime.now(UTC)


@pytest.fixture
def order(now: datetime) -> Order:
    return make_order([(make_fee(make_plan(), minor=4_990), 1)], placed_at=now)


def pay(provider: Any, order: Order, shop: Listener, door: Door, *, method: str, now: datetime) -> str:
    """Have `order` paid; return the address of the payment's page."""
    pay_url: str = begin(order, now=now, method=method).pay_url
    provider.decide(pay_url)
    hand_all_on(provider, shop, door, now=now)
    assert standing_of(order).state == "paid"
    return pay_url


def hand_all_on(provider: Running, shop: Listener, door: Door, *, now: datetime) -> None:
    """Also what the provider tells of what we do while we work its events off."""
    for _round in range(2):
        hand_on(provider, shop, door, now=now)


def requested(order: Order, units: Mapping[int, int], *, now: datetime) -> Refund:
    return request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="The supplier has given up this model.",
        units=units,
        requested_by_id=make_user(is_staff=True).pk,
        now=now,
    )


def approved(order: Order, *, now: datetime) -> Refund:
    """A refund of the one unit of `order`."""
    refund = requested(order, {order.lines.get().pk: 1}, now=now)
    return approve_refund(refund_id=refund.pk, approved_by_id=make_user(is_staff=True).pk, now=now)


def refunds_at(gateway: str, provider: Running) -> list[object]:
    """The amounts that the provider has given back, as it writes them."""
    books = provider.books()
    match gateway:
        case "sandbox":
            return [back["amount"] for payment in books["payments"] for back in payment["refunds"]]
        case "stripe":
            return [back["amount"] for back in books["refunds"]]
    units = [order["purchase_units"][0] for order in books["orders"]]
    return [back["amount"]["value"] for unit in units for back in unit["payments"].get("refunds", [])]


# --- 39: one refund ---------------------------------------------------------------------------------------


@pytest.mark.payment_case(39)
@pytest.mark.parametrize(
    ("gateway", "written"), [("sandbox", "49.90"), ("stripe", 4_990), ("paypal", "49.90")]
)
def test_refund_clicked_twice_at_every_step_is_one_refund(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    written: object,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)
    clerk, approver = Client(), Client()
    for desk in (clerk, approver):
        log_in(desk, make_user(is_staff=True))
    line = order.lines.get()

    for _click in range(2):
        clerk.post(
            reverse("admin:orders_order_request_refund", args=[order.pk]),
            {
                "ground": Ground.UNABLE_TO_SUPPLY,
                "explanation": "The supplier has given up this model.",
                f"units_{line.pk}": 1,
            },
        )
    refund = Refund.objects.get()
    for _click in range(2):
        approver.post(reverse("admin:orders_refund_approve", args=[refund.pk]), {"confirmed": "yes"})
    assert [send_returns(now=at) for at in (now, now + timedelta(minutes=1))] == [1, 1]
    hand_all_on(provider, shop, door, now=now)

    assert standing_of(order) == REFUNDED
    assert refunds_at(gateway, provider) == [written]
    assert send_returns(now=now) == 0


@pytest.mark.postgres
@pytest.mark.payment_case(39)
def test_refund_approved_and_sent_by_several_at_once_is_one_refund(
    stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    pay(stripe, order, shop, door, method="card", now=now)
    refund = requested(order, {order.lines.get().pk: 1}, now=now)
    approvers = [make_user(is_staff=True).pk for _ in range(4)]

    outcomes = race(
        *[lambda pk=pk: approve_refund(refund_id=refund.pk, approved_by_id=pk, now=now) for pk in approvers]
    )
    assert [type(failure) for failure in failures(outcomes)] == [RefundRefused] * 3
    assert failures(race(*[lambda: send_returns(now=now)] * 4)) == []
    hand_all_on(stripe, shop, door, now=now)

    assert (standing_of(order), refunds_at("stripe", stripe)) == (REFUNDED, [4_990])


# --- 40: never more than came ------------------------------------------------------------------------------


@pytest.mark.payment_case(40)
def test_partial_refunds_end_where_the_capture_does(
    stripe: RunningStripe, shop: Listener, door: Door, now: datetime
) -> None:
    dear, cheap = make_fee(make_plan(), minor=3_000), make_fee(make_plan("V06"), minor=1_990)
    order = make_order([(dear, 1), (cheap, 1)], placed_at=now)
    pay(stripe, order, shop, door, method="card", now=now)
    lines = [line.pk for line in order.lines.order_by("pk")]

    for line in lines:
        refund = requested(order, {line: 1}, now=now)
        approve_refund(refund_id=refund.pk, approved_by_id=make_user(is_staff=True).pk, now=now)
        send_returns(now=now)
        hand_all_on(stripe, shop, door, now=now)
        with pytest.raises(RefundRefused):
            requested(order, {line: 1}, now=now)

    assert standing_of(order) == Standing(
        state="paid",
        lines=("withdrawn", "withdrawn"),
        ledger=(("capture", 4_990, "USD"), ("refund", -3_000, "USD"), ("refund", -1_990, "USD")),
        refunds=((3_000, "paid"), (1_990, "paid")),
        told=(
            "payment-received",
            "estimate-made",
            "estimate-made",
            *("refund-approved", "refund-paid"),
            *("refund-approved", "refund-paid"),
        ),
    )
    assert {*refunds_at("stripe", stripe)} == {3_000, 1_990}


@pytest.mark.payment_case(40)
def test_refund_of_what_the_providers_desk_gave_back_already_is_refused_there_and_told_to_staff(
    stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    pay_url = pay(stripe, order, shop, door, method="card", now=now)
    approved(order, now=now)
    stripe.decide(pay_url, stripes.Outcome.REFUND_HERE)

    assert send_returns(now=now) == 0
    hand_all_on(stripe, shop, door, now=now)

    assert standing_of(order) == replace(
        REFUNDED,
        refunds=((4_990, "failed"),),
        reviews=("refund-failed", "external-refund"),
        told=(*PAID.told, "refund-approved"),
    )


def order_of_two_at_30_paid_by_two(now: datetime) -> Order:
    """The first was short: no payment holds both units' money."""
    order = make_order([(make_fee(make_plan(), minor=3_000), 2)], placed_at=now)
    for number, minor in ((1, 4_990), (2, 1_010)):
        attempt = make_attempt(order, number=number)
        move = MoneyMoved(transaction_id=f"cap_{number}", amount=Money(minor, "USD"), at=now)
        snapshot = Snapshot(provider_id=attempt.provider_id, state="captured", captures=(move,))
        apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=now)
    assert standing_of(order).state == "paid"
    return order


def order_of_two_at_30_that_has_49_90_left(now: datetime) -> Order:
    """Of the rest the bank has taken back."""
    order = order_of_two_at_30_paid_by_two(now)
    attempt = order.attempts.get(provider_id="pay_2")
    taken = MoneyMoved("dp_2", Money(1_010, "USD"), now)
    snapshot = Snapshot(attempt.provider_id, "captured", chargebacks=(taken,))
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=now)
    return order


@pytest.mark.payment_case(13, 40)
@pytest.mark.clause("3.3")
def test_unit_that_no_payment_holds_alone_is_refunded_by_hand(now: datetime) -> None:
    order = order_of_two_at_30_paid_by_two(now)
    line, clerk, second = order.lines.get().pk, make_user(is_staff=True).pk, make_user(is_staff=True).pk
    first, other = (
        approve_refund(refund_id=requested(order, {line: 1}, now=now).pk, approved_by_id=second, now=now)
        for _ in range(2)
    )
    Refund.objects.filter(pk=first.pk).update(next_try_at=now + timedelta(hours=1))  # it is on its way

    assert send_returns(now=now) == 0

    assert standing_of(order).refunds == ((3_000, "approved"), (3_000, "failed"))
    assert standing_of(order).reviews == ("underpaid", "refund-failed")
    payout = record_payout(
        due=other,
        means="bank transfer",
        reference="SEPA-1",
        paid_on=contract_date(now),
        recorded_by_id=clerk,
        now=now,
    )
    confirm_payout(payout_id=payout.pk, confirmed_by_id=second, now=now)
    assert standing_of(order).refunds == ((3_000, "approved"), (3_000, "paid"))
    assert sum(minor for _kind, minor, _currency in standing_of(order).ledger) == 3_000
    paid = Order.objects.get(pk=order.pk)
    assert [free_to_return(paid, each, currency="USD").minor for each in paid.attempts.all()] == [0, 0]


def refund_both_units_at_once(order: Order, *, now: datetime) -> list[Exception]:
    line = order.lines.get().pk
    return failures(race(*[lambda: requested(order, {line: 1}, now=now)] * 2))


@pytest.mark.payment_case(40, 44)
def test_refund_whose_money_was_charged_back_before_it_was_approved_is_not_approved(
    stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    pay_url = pay(stripe, order, shop, door, method="card", now=now)
    refund = requested(order, {order.lines.get().pk: 1}, now=now)
    stripe.decide(pay_url, stripes.Outcome.CHARGE_BACK)
    hand_all_on(stripe, shop, door, now=now)
    approver = make_user(is_staff=True).pk

    with pytest.raises(RefundRefused, match=r"does not hold \$49\.90 any more"):
        approve_refund(refund_id=refund.pk, approved_by_id=approver, now=now)

    standing = standing_of(order)
    assert (standing.lines, standing.refunds) == (("held",), ((4_990, "requested"),))
    stripe.decide(pay_url, stripes.Outcome.WIN)
    hand_all_on(stripe, shop, door, now=now)
    approve_refund(refund_id=refund.pk, approved_by_id=approver, now=now)
    assert standing_of(order).refunds == ((4_990, "approved"),)


@pytest.mark.payment_case(40)
def test_of_two_refunds_one_is_approved_when_money_for_one_is_left(now: datetime) -> None:
    order = make_order([(make_fee(make_plan(), minor=3_000), 2)], placed_at=now)
    attempt = make_attempt(order)
    captured = MoneyMoved("cap_1", order.total, now)
    apply_snapshot(
        attempt_id=attempt.pk,
        snapshot=Snapshot(attempt.provider_id, "captured", captures=(captured,)),
        now=now,
    )
    line = order.lines.get().pk
    first, second = (requested(order, {line: 1}, now=now) for _ in range(2))
    taken = MoneyMoved("dp_1", Money(3_000, "USD"), now)
    apply_snapshot(
        attempt_id=attempt.pk,
        snapshot=Snapshot(attempt.provider_id, "captured", chargebacks=(taken,)),
        now=now,
    )
    approver = make_user(is_staff=True).pk

    approve_refund(refund_id=first.pk, approved_by_id=approver, now=now)
    with pytest.raises(RefundRefused, match="any more"):
        approve_refund(refund_id=second.pk, approved_by_id=approver, now=now)

    assert standing_of(order).refunds == ((3_000, "approved"), (3_000, "requested"))


@pytest.mark.postgres
@pytest.mark.payment_case(40)
def test_two_refunds_of_30_at_once_out_of_49_90_are_one(now: datetime) -> None:
    order = order_of_two_at_30_that_has_49_90_left(now)

    [failure] = refund_both_units_at_once(order, now=now)

    assert isinstance(failure, RefundRefused)
    assert str(failure) == "No single payment of this order holds $30.00 any more."
    assert standing_of(order).refunds == ((3_000, "requested"),)


@pytest.mark.postgres
def test_control_without_the_orders_lock_both_refunds_find_the_money(
    now: datetime, monkeypatch: pytest.MonkeyPatch
) -> None:
    both_have_looked, look = threading.Barrier(2), refunds._attempt_that_holds
    found = []

    def look_together(*what: Any) -> Any:
        found.append(look(*what))
        both_have_looked.wait(60)
        return found[-1]

    monkeypatch.setattr("django.db.models.query.QuerySet.select_for_update", lambda rows, **_: rows)
    monkeypatch.setattr(refunds, "_attempt_that_holds", look_together)
    order = order_of_two_at_30_that_has_49_90_left(now)

    [failure] = refund_both_units_at_once(order, now=now)

    # Only that both take the same reference keeps the second from being stored.
    assert (len(found), type(failure)) == (2, IntegrityError)


# --- 41: not yet, or after all not ---------------------------------------------------------------------------

ON_ITS_WAY = replace(
    REFUNDED,
    ledger=(("capture", 4_990, "USD"),),
    refunds=((4_990, "approved"),),
    told=(*PAID.told, "refund-approved"),
)


@pytest.mark.payment_case(41)
@pytest.mark.parametrize(("gateway", "outcomes"), [("stripe", stripes.Outcome), ("paypal", paypals.Outcome)])
def test_refund_that_is_accepted_and_not_done_is_on_its_way_and_its_money_reserved_until_it_is(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    outcomes: Any,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay_url = pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)
    provider.decide(pay_url, outcomes.DELAY_REFUNDS)
    refund = approved(order, now=now)
    assert send_returns(now=now) == 1
    hand_all_on(provider, shop, door, now=now)

    assert standing_of(order) == ON_ITS_WAY
    paid = Order.objects.get(pk=order.pk)
    assert free_to_return(paid, paid.attempts.get(), currency="USD") == Money(0, "USD")
    with pytest.raises(RefundRefused, match="No single payment"):
        refunds._attempt_that_holds(order, Money(1, "USD"))

    provider.decide(pay_url, outcomes.COMPLETE_REFUNDS)
    hand_all_on(provider, shop, door, now=now)
    assert standing_of(order) == REFUNDED
    refund.refresh_from_db()
    assert refund.paid_at == LedgerEntry.objects.get(kind="refund").occurred_at


@pytest.mark.payment_case(41)
@pytest.mark.parametrize(("gateway", "outcomes"), [("stripe", stripes.Outcome), ("paypal", paypals.Outcome)])
def test_refund_that_fails_after_it_was_accepted_frees_its_money_and_is_told_to_staff_once(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    outcomes: Any,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay_url = pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)
    provider.decide(pay_url, outcomes.DELAY_REFUNDS)
    refund = approved(order, now=now)
    send_returns(now=now)
    hand_all_on(provider, shop, door, now=now)

    provider.decide(pay_url, outcomes.FAIL_REFUNDS)
    for _run in range(2):
        hand_all_on(provider, shop, door, now=now)
        poll_payments(now=now)

    failed = replace(ON_ITS_WAY, refunds=((4_990, "failed"),), reviews=("refund-failed",))
    assert (standing_of(order), send_returns(now=now)) == (failed, 0)
    assert refund.reference in ReviewItem.objects.get().detail
    assert refunds._attempt_that_holds(order, Money(4_990, "USD")) == order.attempts.get()


@pytest.mark.payment_case(41)
@pytest.mark.parametrize(("gateway", "outcomes"), [("stripe", stripes.Outcome), ("paypal", paypals.Outcome)])
def test_refund_that_failed_is_sent_again_by_a_new_key_and_arrives(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    outcomes: Any,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay_url = pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)
    provider.decide(pay_url, outcomes.DELAY_REFUNDS)
    refund = approved(order, now=now)
    send_returns(now=now)
    hand_all_on(provider, shop, door, now=now)
    provider.decide(pay_url, outcomes.FAIL_REFUNDS)
    hand_all_on(provider, shop, door, now=now)

    try_again(refund)
    assert send_returns(now=now) == 1
    hand_all_on(provider, shop, door, now=now)
    poll_payments(now=now)
    provider.decide(pay_url, outcomes.COMPLETE_REFUNDS)
    hand_all_on(provider, shop, door, now=now)

    assert standing_of(order) == replace(REFUNDED, reviews=("refund-failed",))
    refund.refresh_from_db()
    assert (refund.tries, refund.key) == (2, f"{refund.reference}-2")


@pytest.fixture
def came_back(stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime) -> Refund:
    """A refund that Stripe had reported as made, and whose money the buyer's bank has sent back since."""
    pay_url = pay(stripe, order, shop, door, method="card", now=now)
    refund = approved(order, now=now)
    send_returns(now=now)
    hand_all_on(stripe, shop, door, now=now)
    assert standing_of(order) == REFUNDED

    stripe.decide(pay_url, stripes.Outcome.BOUNCE_REFUNDS)
    for _run in range(2):
        hand_all_on(stripe, shop, door, now=now)
        poll_payments(now=now)
    return Refund.objects.get(pk=refund.pk)


CAME_BACK = replace(
    REFUNDED,
    ledger=(*REFUNDED.ledger, ("bounce", 4_990, "USD")),
    refunds=((4_990, "failed"),),
    reviews=("refund-failed",),
    told=(*REFUNDED.told, "refund-came-back"),
)


@pytest.mark.payment_case(41)
@pytest.mark.clause("3.3")
def test_refund_that_comes_back_after_it_was_made_is_booked_and_told_once_and_owed_again(
    came_back: Refund, order: Order
) -> None:
    assert standing_of(order) == CAME_BACK
    assert (came_back.paid_at, came_back.problem) == (None, "expired_or_canceled_card")
    assert ReviewItem.objects.get().detail == (
        f"{came_back.reference} was refused by the gateway after it had been made: expired_or_canceled_card"
    )
    refund, bounce = LedgerEntry.objects.exclude(kind="capture").order_by("pk")
    assert (bounce.transaction_id, bounce.attempt_id) == (refund.transaction_id, refund.attempt_id)
    # The money is with us, and not free for anything else.
    paid = Order.objects.get(pk=order.pk)
    assert free_to_return(paid, came_back.attempt, currency="USD") == Money(0, "USD")
    assert reconcile(now=bounce.recorded_at + timedelta(days=1)) == 0


@pytest.mark.payment_case(41)
def test_refund_that_came_back_is_sent_again_and_told_again_and_credited_once(
    came_back: Refund, stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    note = Document.objects.get(kind="credit-note")
    try_again(came_back)
    assert send_returns(now=now) == 1
    for _run in range(2):
        hand_all_on(stripe, shop, door, now=now)
        poll_payments(now=now)

    assert standing_of(order) == replace(
        CAME_BACK,
        ledger=(*CAME_BACK.ledger, ("refund", -4_990, "USD")),
        refunds=((4_990, "paid"),),
        told=(*CAME_BACK.told, "refund-paid"),
    )
    assert Document.objects.get(kind="credit-note") == note
    assert list(orders_and_their_documents(now)) == []


@pytest.mark.payment_case(41)
def test_refund_that_came_back_is_paid_by_hand_and_credited_once(
    came_back: Refund, order: Order, now: datetime
) -> None:
    payout = record_payout(
        due=came_back,
        means="bank transfer",
        reference="SEPA-1",
        paid_on=contract_date(now),
        recorded_by_id=make_user(is_staff=True).pk,
        now=now,
    )
    confirm_payout(payout_id=payout.pk, confirmed_by_id=make_user(is_staff=True).pk, now=now)

    assert standing_of(order).ledger == (*CAME_BACK.ledger, ("refund", -4_990, "USD"))
    assert standing_of(order).refunds == ((4_990, "paid"),)
    assert standing_of(order).told == (*CAME_BACK.told, "refund-paid")
    assert Document.objects.filter(kind="credit-note").count() == 1
    assert not ReviewItem.objects.filter(resolved_at=None).exists()


@pytest.mark.payment_case(41, 42)
def test_refund_of_the_providers_desk_that_comes_back_is_told_and_cannot_be_settled_with_any_more(
    stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    pay_url = pay(stripe, order, shop, door, method="card", now=now)
    stripe.decide(pay_url, stripes.Outcome.REFUND_HERE)
    hand_all_on(stripe, shop, door, now=now)
    entry = LedgerEntry.objects.get(kind="refund")

    stripe.decide(pay_url, stripes.Outcome.BOUNCE_REFUNDS)
    hand_all_on(stripe, shop, door, now=now)

    assert standing_of(order) == replace(
        PAID,
        ledger=(("capture", 4_990, "USD"), ("refund", -4_990, "USD"), ("bounce", 4_990, "USD")),
        reviews=("external-refund", "refund-failed"),
        told=(*PAID.told, "refund-came-back"),
    )
    with pytest.raises(RefundRefused, match="has come back"):
        request_refund(
            order_id=order.pk,
            ground=Ground.UNABLE_TO_SUPPLY,
            explanation="The supplier has given up this model.",
            units={order.lines.get().pk: 1},
            requested_by_id=make_user(is_staff=True).pk,
            entry_id=entry.pk,
            now=now,
        )
    # The sale was credited when it went; the refund that is made in its place credits nothing more.
    approved(order, now=now)
    send_returns(now=now)
    hand_all_on(stripe, shop, door, now=now)
    assert standing_of(order).refunds == ((4_990, "paid"),)
    assert list(Document.objects.filter(kind="credit-note").values_list("minor", flat=True)) == [4_990]


@pytest.mark.payment_case(41, 42)
def test_refund_of_units_by_the_providers_desk_that_comes_back_is_sent_again_and_credited_once(
    stripe: RunningStripe, shop: Listener, door: Door, now: datetime
) -> None:
    order = make_order([(make_fee(make_plan(), minor=2_495), 2)], placed_at=now)
    pay_url = pay(stripe, order, shop, door, method="card", now=now)
    stripe.decide(pay_url, stripes.Outcome.REFUND_HERE)
    hand_all_on(stripe, shop, door, now=now)
    desks = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="The supplier has given up this model.",
        units={order.lines.get().pk: 2},
        requested_by_id=make_user(is_staff=True).pk,
        entry_id=LedgerEntry.objects.get(kind="refund").pk,
        now=now,
    )
    approve_refund(refund_id=desks.pk, approved_by_id=make_user(is_staff=True).pk, now=now)
    stripe.decide(pay_url, stripes.Outcome.BOUNCE_REFUNDS)
    hand_all_on(stripe, shop, door, now=now)
    assert standing_of(order).refunds == ((4_990, "failed"),)

    try_again(Refund.objects.get())
    send_returns(now=now)
    hand_all_on(stripe, shop, door, now=now)

    assert standing_of(order).refunds == ((4_990, "paid"),)
    assert sum(minor for _kind, minor, _currency in standing_of(order).ledger) == 0
    assert list(Document.objects.filter(kind="credit-note").values_list("minor", flat=True)) == [4_990]
    assert list(orders_and_their_documents(now)) == []


@pytest.mark.payment_case(26, 41)
def test_second_payment_that_comes_back_is_owed_again_and_covers_nothing(
    stripe: RunningStripe, sandbox: RunningSandbox, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    paid_url = begin(order, now=now).pay_url
    pay_url = begin(order, now=now, method="card").pay_url
    sandbox.decide(paid_url)
    hand_all_on(sandbox, shop, door, now=now)
    stripe.decide(pay_url)
    hand_all_on(stripe, shop, door, now=now)
    send_returns(now=now)
    hand_all_on(stripe, shop, door, now=now)
    assert standing_of(order).returns == (("duplicate", 4_990, "paid"),)

    stripe.decide(pay_url, stripes.Outcome.BOUNCE_REFUNDS)
    hand_all_on(stripe, shop, door, now=now)

    standing = standing_of(order)
    assert standing.returns == (("duplicate", 4_990, "failed"),)
    assert standing.reviews == ("return-failed",)
    assert standing.told == (*PAID.told, "money-returned", "refund-came-back")
    assert missing_of(order) == Money(0, "USD")


# --- 42: behind our back ----------------------------------------------------------------------------------


@pytest.mark.payment_case(42)
@pytest.mark.parametrize(
    ("gateway", "outcome"),
    [("stripe", stripes.Outcome.REFUND_HERE), ("paypal", paypals.Outcome.REFUND_HERE)],
)
def test_refund_made_at_the_providers_desk_is_booked_and_comes_up_as_external(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    outcome: Any,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay_url = pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)

    provider.decide(pay_url, outcome)
    for _run in range(2):
        hand_on(provider, shop, door, now=now)
        poll_payments(now=now)

    assert standing_of(order) == replace(
        PAID,
        ledger=(("capture", 4_990, "USD"), ("refund", -4_990, "USD")),
        reviews=("external-refund",),
    )
    entry = LedgerEntry.objects.get(kind="refund")
    assert (
        ReviewItem.objects.get().detail
        == f"49.90 USD were given back as {entry.transaction_id}, outside the shop."
    )


# --- 44, 45: against our will -------------------------------------------------------------------------------


@pytest.mark.payment_case(44)
@pytest.mark.parametrize(("gateway", "outcomes"), [("stripe", stripes.Outcome), ("paypal", paypals.Outcome)])
def test_chargeback_blocks_allocation_until_the_dispute_is_won(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    outcomes: Any,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay_url = pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)
    line = order.lines.get()
    make_devices(line.plan, 1)
    later = now + timedelta(hours=1)

    provider.decide(pay_url, outcomes.CHARGE_BACK)
    hand_all_on(provider, shop, door, now=now)
    disputed = replace(
        PAID,
        lines=("held",),
        ledger=(("capture", 4_990, "USD"), ("chargeback", -4_990, "USD")),
        reviews=("chargeback",),
        told=(*PAID.told, "payment-disputed"),
    )
    assert (standing_of(order), allocate_devices(plan_id=line.plan_id, now=later)) == (disputed, 0)

    provider.decide(pay_url, outcomes.WIN)
    hand_all_on(provider, shop, door, now=now)
    assert standing_of(order) == replace(
        disputed,
        lines=("waiting",),
        ledger=(*disputed.ledger, ("reversal", 4_990, "USD")),
        told=(*disputed.told, "dispute-ended"),
    )
    # At the place that it had.
    assert order.lines.get().paid_at == line.paid_at
    assert allocate_devices(plan_id=line.plan_id, now=later) == 1


@pytest.mark.payment_case(44)
def test_chargeback_that_is_lost_blocks_for_good(
    stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    pay_url = pay(stripe, order, shop, door, method="card", now=now)
    line = order.lines.get()
    make_devices(line.plan, 1)

    for outcome in (stripes.Outcome.CHARGE_BACK, stripes.Outcome.LOSE):
        stripe.decide(pay_url, outcome)
        hand_all_on(stripe, shop, door, now=now)

    assert standing_of(order).lines == ("held",)
    assert standing_of(order).ledger == (("capture", 4_990, "USD"), ("chargeback", -4_990, "USD"))
    assert allocate_devices(plan_id=line.plan_id, now=now + timedelta(hours=1)) == 0


@pytest.fixture
def taken_back_unseen(stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime) -> str:
    """The address of a payment whose capture we hear of only when the bank has taken the money back already."""
    pay_url = begin(order, now=now, method="card").pay_url
    stripe.decide(pay_url, stripes.Outcome.PAY_UNTOLD)
    stripe.decide(pay_url, stripes.Outcome.CHARGE_BACK)
    hand_all_on(stripe, shop, door, now=now)
    assert standing_of(order) == replace(
        UNPAID,
        ledger=(("capture", 4_990, "USD"), ("chargeback", -4_990, "USD")),
        reviews=("underpaid", "chargeback"),
        told=("payment-disputed",),
    )
    return pay_url


@pytest.mark.payment_case(44)
def test_dispute_that_is_won_pays_the_order_that_it_had_kept_from_being_paid(
    taken_back_unseen: str, stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    stripe.decide(taken_back_unseen, stripes.Outcome.WIN)
    for _run in range(2):
        hand_all_on(stripe, shop, door, now=now)

    standing = standing_of(order)
    assert (standing.state, standing.lines) == ("paid", ("waiting",))
    assert [kind for kind, _minor, _currency in standing.ledger] == ["capture", "chargeback", "reversal"]
    assert standing.returns == ()
    assert standing.told == ("payment-disputed", "payment-received", "estimate-made", "dispute-ended")
    # Since when the money is there without a break.
    paid = Order.objects.get(pk=order.pk)
    assert paid.paid_at == LedgerEntry.objects.get(kind="reversal").occurred_at
    assert Document.objects.get().kind == "invoice"


@pytest.mark.payment_case(20, 44)
def test_dispute_that_is_won_when_the_units_are_sold_gives_the_money_back(
    taken_back_unseen: str, stripe: RunningStripe, shop: Listener, order: Order, door: Door, now: datetime
) -> None:
    Order.objects.filter(pk=order.pk).update(state="expired")
    Plan.objects.update(presale_cap=0)

    stripe.decide(taken_back_unseen, stripes.Outcome.WIN)
    hand_all_on(stripe, shop, door, now=now)

    standing = standing_of(order)
    assert (standing.state, standing.returns) == ("expired", (("late", 4_990, "due"),))
    assert standing.told == ("payment-disputed", "money-returned", "dispute-ended")


@pytest.mark.payment_case(45)
@pytest.mark.parametrize(("gateway", "outcomes"), [("stripe", stripes.Outcome), ("paypal", paypals.Outcome)])
def test_dispute_of_what_was_refunded_in_full_is_flagged(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
    outcomes: Any,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay_url = pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)
    approved(order, now=now)
    send_returns(now=now)
    hand_all_on(provider, shop, door, now=now)
    assert standing_of(order) == REFUNDED

    provider.decide(pay_url, outcomes.CHARGE_BACK)
    hand_all_on(provider, shop, door, now=now)

    assert standing_of(order) == replace(
        REFUNDED,
        ledger=(*REFUNDED.ledger, ("chargeback", -4_990, "USD")),
        reviews=("chargeback", "disputed-refund"),
        told=(*REFUNDED.told, "payment-disputed"),
    )


# --- 46: the webhook is faster than our answer ---------------------------------------------------------------


@pytest.mark.payment_case(46)
@pytest.mark.parametrize("gateway", ["sandbox", "stripe", "paypal"])
def test_refund_that_is_reported_before_our_request_is_answered_is_one_row(
    request: pytest.FixtureRequest,
    shop: Listener,
    order: Order,
    door: Door,
    now: datetime,
    gateway: str,
) -> None:
    provider = request.getfixturevalue(gateway)
    pay(provider, order, shop, door, method=METHOD_BY[gateway], now=now)
    refund = approved(order, now=now)
    provider.set_faults(lost_answers=1)
    assert send_returns(now=now) == 0
    refund.refresh_from_db()
    assert refund.state == "approved"

    hand_all_on(provider, shop, door, now=now)

    assert standing_of(order) == REFUNDED
    assert send_returns(now=now) == 0
    assert len(refunds_at(gateway, provider)) == 1
    assert Notice.objects.filter(kind="refund-paid").count() == 1
