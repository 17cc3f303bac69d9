"""Placing an order: what is fixed by it, and what is refused without a trace."""

import uuid
from collections.abc import Callable, Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.conf import settings
from pytest_django import Settings

from accounts.models import User
from agreements.acceptance import Consent, ConsentMissing, Witness, required_of_buyer
from agreements.models import Acceptance, Role, StatutoryRight, Subject
from agreements.publishing import publish_shipped_texts
from agreements.rights import publish_rights, right_of
from inventory.models import Fee, FeeSchedule, OversellDecision
from inventory.money import Money
from inventory.supply import ReasonMissing, decide_oversell
from notices.models import Notice
from orders.checkout import (
    BasketEmpty,
    CannotCancel,
    CapReached,
    FeeChanged,
    NotOffered,
    Wish,
    cancel_order,
    expire_orders,
    place_order,
)
from orders.guardians import CannotAsk, Guardian
from orders.models import LineState, Order, OrderLine, OrderState
from tests.builders import NOW, make_batch, make_devices, make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db

Place = Callable[..., Order]


@pytest.fixture
def place() -> Place:
    publish_shipped_texts(now=NOW)
    buyer = make_user("buyer@example.com")

    def place_with(
        phones: Iterable[tuple[Fee, int]], *, customer: User = buyer, left_out: str = "", **changes: Any
    ) -> Order:
        asked = list(phones)
        right = right_of(changes.get("country", "HK"))
        consents = [
            Consent(
                text_id=required.text.pk,
                subject=required.subject,
                role=required.role,
                person_name="",
                person_email=customer.email,
                statement=required.statement,
            )
            for required in required_of_buyer(now=NOW, language="en", right=right)
            if required.key != left_out
        ]
        request: dict[str, Any] = {
            "customer_id": customer.pk,
            "checkout_key": uuid.uuid4(),
            "wishes": [Wish(fee.term_id, quantity) for fee, quantity in asked],
            "currency": "USD",
            "seen_total": Money(sum(fee.minor * quantity for fee, quantity in asked), "USD"),
            "consents": consents,
            "witness": Witness(ip_address="203.0.113.7", user_agent="Test"),
            "country": "HK",
            "guardian": None,
            "language": "en",
            "now": NOW,
        } | changes
        return place_order(**request)

    return place_with


def nothing_is_stored() -> bool:
    return not (Order.objects.exists() or OrderLine.objects.exists() or Acceptance.objects.exists())


def test_order_fixes_fees_quantities_and_deadline(place: Place) -> None:
    plan, other = make_plan(), make_plan("V06")

    order = place([(make_fee(plan, minor=499), 2), (make_fee(other, days=90, minor=2_249), 1)])

    assert (order.state, order.total, order.pay_until) == (
        OrderState.UNPAID,
        Money(3_247, "USD"),
        NOW + settings.PAYMENT_WINDOW,
    )
    assert list(
        order.lines.order_by("pk").values_list("plan", "quantity", "unit_minor", "state", "paid_at")
    ) == [
        (plan.pk, 2, 499, LineState.UNPAID, None),
        (other.pk, 1, 2_249, LineState.UNPAID, None),
    ]
    assert Notice.objects.get().kind == "order-placed"


@pytest.mark.clause("3.2")
def test_later_fee_schedule_does_not_change_an_order(place: Place) -> None:
    fee = make_fee(make_plan(), minor=499)
    order = place([(fee, 1)])
    dearer = FeeSchedule.objects.create(
        currency="USD", announced_at=NOW, effective_at=NOW + timedelta(minutes=1)
    )
    Fee.objects.create(schedule=dearer, term=fee.term, minor=999)

    assert Order.objects.get(pk=order.pk).total == Money(499, "USD")
    assert order.lines.get().unit_minor == 499


@pytest.mark.clause("3.2")
def test_fee_that_changed_since_the_page_was_shown_is_not_charged(place: Place) -> None:
    fee = make_fee(make_plan(), minor=499)
    since = FeeSchedule.objects.create(
        currency="USD", announced_at=NOW - timedelta(days=30), effective_at=NOW
    )
    Fee.objects.create(schedule=since, term=fee.term, minor=599)

    with pytest.raises(FeeChanged) as changed:
        place([(fee, 1)])

    assert changed.value.new_total == Money(599, "USD")
    assert nothing_is_stored()


@pytest.mark.clause("preamble", "3.3", "1.2")
def test_order_records_the_acceptance_of_both_agreements_and_of_the_refund_rule(place: Place) -> None:
    order = place([(make_fee(make_plan()), 1)])

    recorded = Acceptance.objects.filter(order_reference=order.reference).order_by("pk")
    assert [(a.text.version.document, a.subject, a.role) for a in recorded] == [
        ("prepayment", Subject.AGREEMENT, Role.BUYER),
        ("purchase", Subject.AGREEMENT, Role.BUYER),
        ("prepayment", Subject.NO_REFUND, Role.BUYER),
    ]
    assert {a.text_sha256 == a.text.sha256 and a.ip_address == "203.0.113.7" for a in recorded} == {True}


@pytest.mark.clause("preamble", "3.3", "1.2")
@pytest.mark.parametrize(
    "left_out", ["prepayment-agreement-buyer", "purchase-agreement-buyer", "prepayment-no-refund-buyer"]
)
def test_no_order_without_every_acceptance(place: Place, left_out: str) -> None:
    with pytest.raises(ConsentMissing):
        place([(make_fee(make_plan()), 1)], left_out=left_out)

    assert nothing_is_stored()


@pytest.mark.clause("preamble")
def test_order_of_a_minor_awaits_the_guardian_and_holds_its_units_meanwhile(place: Place) -> None:
    plan = make_plan(cap=3)

    order = place([(make_fee(plan), 2)], guardian=Guardian(" Ann ", "ann@example.com"))

    assert (order.state, order.pay_until) == (OrderState.AWAITING_GUARDIAN, NOW + settings.GUARDIAN_WINDOW)
    assert not order.is_payable(NOW)
    request = order.guardian_requests.get()
    assert (request.name, request.email, request.answer) == ("Ann", "ann@example.com", None)
    with pytest.raises(CapReached):
        place([(make_fee(plan), 2)])
    notice = Notice.objects.get()
    assert (notice.kind, notice.to_address, notice.url) == (
        "guardian-asked",
        "ann@example.com",
        f"/guardian/{request.pk}/",
    )


@pytest.mark.clause("preamble")
def test_nobody_is_his_own_guardian(place: Place) -> None:
    with pytest.raises(CannotAsk, match="your guardian's own email address"):
        place([(make_fee(make_plan()), 1)], guardian=Guardian("Ann", "Buyer@Example.com"))

    assert nothing_is_stored()


@pytest.fixture
def european_law(settings: Settings, place: Place) -> StatutoryRight:
    settings.STATUTORY_RIGHTS = ["eu"]
    (right,) = publish_rights(now=NOW)
    return right


@pytest.mark.clause("3.3")
def test_law_of_the_buyers_country_is_kept_with_the_order(place: Place, european_law: StatutoryRight) -> None:
    fee = make_fee(make_plan())

    german, chinese = place([(fee, 1)], country="DE"), place([(fee, 1)], country="HK")

    # Ordered on November 23: the 14th day after it is December 7, which ends last at noon of the 8th in UTC.
    assert (german.country, german.right, german.withdraw_until) == (
        "DE",
        european_law,
        datetime(2026, 12, 8, 12, tzinfo=UTC),
    )
    assert (chinese.country, chinese.right, chinese.withdraw_until) == ("HK", None, None)
    waivers = Acceptance.objects.filter(subject=Subject.EARLY_START)
    assert [(each.order_reference, each.statement) for each in waivers] == [
        (german.reference, european_law.waiver["en"])
    ]


@pytest.mark.clause("3.3")
def test_where_the_law_asks_for_an_express_request_there_is_no_order_without_it(
    place: Place, european_law: StatutoryRight
) -> None:
    with pytest.raises(ConsentMissing):
        place([(make_fee(make_plan()), 1)], country="DE", left_out="prepayment-early-start-buyer")

    assert nothing_is_stored()


def test_second_click_answers_the_first_ones_order(place: Place) -> None:
    fee = make_fee(make_plan())
    key = uuid.uuid4()

    assert place([(fee, 1)], checkout_key=key) == place([(fee, 1)], checkout_key=key)
    assert Order.objects.count() == 1


@pytest.mark.parametrize("quantity", [0, -1, 11, 10**9])
def test_quantity_out_of_range_is_refused(place: Place, quantity: int) -> None:
    fee = make_fee(make_plan(limit=10))

    with pytest.raises(NotOffered, match="10 phones"):
        place([(fee, quantity)], seen_total=Money(0, "USD"))

    assert nothing_is_stored()


def test_limit_counts_all_terms_of_a_plan_together(place: Place) -> None:
    plan = make_plan(limit=3)

    with pytest.raises(NotOffered):
        place([(make_fee(plan, days=30), 2), (make_fee(plan, days=90), 2)])

    assert nothing_is_stored()


def test_what_is_not_for_sale_is_refused(place: Place) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    with pytest.raises(BasketEmpty):
        place([])
    with pytest.raises(NotOffered):
        place([], wishes=[Wish(term_id=fee.term_id + 1_000, quantity=1)])
    with pytest.raises(NotOffered):
        place([(fee, 1)], currency="EUR")
    with pytest.raises(NotOffered):
        place([(fee, 1)], currency="XXX")
    type(plan).objects.filter(pk=plan.pk).update(on_sale=False)
    with pytest.raises(NotOffered):
        place([(fee, 1)])

    assert nothing_is_stored()


def test_cap_counts_free_devices_waiting_and_unpaid_units(place: Place) -> None:
    plan = make_plan(cap=5)
    fee = make_fee(plan)
    make_devices(plan, 2)
    make_order([(fee, 3)], paid_at=NOW)
    make_order([(fee, 1)])

    with pytest.raises(CapReached) as reached:
        place([(fee, 4)])
    assert reached.value.units_left == 3

    assert place([(fee, 3)]).state == OrderState.UNPAID


def test_no_more_is_sold_than_announced_batches_cover(place: Place) -> None:
    plan = make_plan(cap=100)
    OversellDecision.objects.create(
        plan=plan, units=0, reason="Back to the supply", decided_by=make_user(is_staff=True), decided_at=NOW
    )
    fee = make_fee(plan)
    with pytest.raises(CapReached) as reached:
        place([(fee, 1)])
    assert reached.value.units_left == 0

    make_batch(plan, quantity=4, on=date(2026, 12, 1))
    make_batch(plan, quantity=50, on=date(2026, 10, 1), received_late=3)
    with pytest.raises(CapReached) as reached:
        place([(fee, 5)])
    assert reached.value.units_left == 4

    assert place([(fee, 4)]).state == OrderState.UNPAID


def test_cap_limits_what_the_supply_would_allow(place: Place) -> None:
    plan = make_plan(cap=3)
    make_batch(plan, quantity=50, on=date(2026, 12, 1))

    with pytest.raises(CapReached) as reached:
        place([(make_fee(plan), 4)])
    assert reached.value.units_left == 3


def test_decision_allows_units_beyond_the_supply_and_the_newest_counts(place: Place) -> None:
    plan = make_plan(cap=100)
    fee = make_fee(plan)
    clerk = make_user(is_staff=True)
    make_batch(plan, quantity=4, on=date(2026, 12, 1))
    for units in (20, 2):
        decide_oversell(
            plan_id=plan.pk,
            units=units,
            reason=" The supplier has promised more. ",
            decided_by_id=clerk.pk,
            now=NOW,
        )

    with pytest.raises(CapReached) as reached:
        place([(fee, 7)])
    assert reached.value.units_left == 6
    decision = OversellDecision.objects.order_by("pk").last()
    assert decision
    assert (decision.units, decision.reason, decision.decided_by) == (
        2,
        "The supplier has promised more.",
        clerk,
    )


def test_decision_without_a_reason_is_refused() -> None:
    plan = make_plan(cap=0)

    with pytest.raises(ReasonMissing):
        decide_oversell(
            plan_id=plan.pk, units=5, reason=" ", decided_by_id=make_user(is_staff=True).pk, now=NOW
        )
    assert OversellDecision.objects.count() == 0


def test_limit_of_a_customer_counts_all_that_is_on_order_for_him(place: Place) -> None:
    buyer = User.objects.get(email="buyer@example.com")
    plan = make_plan(limit=5)
    fee = make_fee(plan)
    make_order([(fee, 2)], customer=buyer, paid_at=NOW)  # waits
    make_order([(fee, 1)], customer=buyer)  # may still be paid
    make_order([(fee, 5)], paid_at=NOW)  # somebody else's
    gone = make_order([(fee, 5)], customer=buyer)
    Order.objects.filter(pk=gone.pk).update(state=OrderState.EXPIRED)

    with pytest.raises(NotOffered, match=r"5 phones of .* at most, and orders at least 1. 3 are on order"):
        place([(fee, 3)])
    assert place([(fee, 2)]).state == OrderState.UNPAID


def test_short_term_is_sold_only_while_devices_are_free(place: Place) -> None:
    plan = make_plan(cap=5, bonus_days=1)
    week = make_fee(plan, days=7)
    make_devices(plan, 2)

    with pytest.raises(NotOffered, match="30 days"):
        place([(week, 3)])
    order = place([(week, 2)])

    assert list(order.lines.values_list("is_presale", "bonus_days")) == [(False, 0)]


def test_presale_line_is_promised_the_plans_bonus(place: Place) -> None:
    order = place([(make_fee(make_plan(bonus_days=2)), 1)])

    assert list(order.lines.values_list("is_presale", "bonus_days")) == [(True, 2)]


def test_unpaid_order_expires_after_deadline_and_grace_and_releases_its_units(place: Place) -> None:
    fee = make_fee(make_plan(cap=1))
    order = place([(fee, 1)])
    over = order.pay_until + settings.PAYMENT_GRACE

    assert expire_orders(now=over - timedelta(seconds=1)) == 0
    assert expire_orders(now=over) == 1
    assert expire_orders(now=over) == 0

    order.refresh_from_db()
    assert order.state == OrderState.EXPIRED
    assert place([(fee, 1)]).state == OrderState.UNPAID
    assert Notice.objects.filter(kind="order-expired").count() == 1


def test_order_with_a_payment_being_confirmed_expires_a_day_later_than_others(place: Place) -> None:
    order = place([(make_fee(make_plan()), 1)])
    order.attempts.create(
        reference="A-1",
        method="sandbox",
        gateway="sandbox",
        state="confirming",
        confirming_since=NOW,
        amount_minor=499,
        currency="USD",
        created_at=NOW,
        expires_at=order.pay_until,
    )

    over = order.pay_until + timedelta(days=1)
    assert expire_orders(now=over - timedelta(seconds=1)) == 0
    assert expire_orders(now=over) == 1


def test_buyer_cancels_an_unpaid_order_but_not_a_paid_one() -> None:
    fee = make_fee(make_plan())
    unpaid, paid = make_order([(fee, 1)]), make_order([(fee, 1)], paid_at=NOW)

    assert cancel_order(order_id=unpaid.pk, now=NOW).state == OrderState.CANCELLED
    assert cancel_order(order_id=unpaid.pk, now=NOW).state == OrderState.CANCELLED
    with pytest.raises(CannotCancel):
        cancel_order(order_id=paid.pk, now=NOW)
