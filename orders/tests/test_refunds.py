"""Refunds of the sale: grounds, the second person, and units that leave the queue."""

from collections.abc import Collection
from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from pytest_django import Settings

from agreements.models import StatutoryRight
from agreements.rights import publish_rights
from inventory.models import Device, Quarantine
from inventory.money import Money
from notices.models import Notice
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import (
    Allocation,
    Ground,
    LedgerEntry,
    LineState,
    Order,
    OrderLine,
    PaymentAttempt,
    Refund,
    RefundState,
    ReturnReason,
    ReviewItem,
    ReviewKind,
)
from orders.queue import fairness, units_ahead, units_waiting
from orders.refunds import (
    RefundRefused,
    approve_refund,
    reject_refund,
    request_refund,
    settle_failed_refund,
)
from orders.returns import give_back, left_in
from orders.reviews import open_review_item, resolve_review_item
from orders.tests.test_cases import asked_for_refund, opened
from tests.builders import (
    NOW,
    make_capture,
    make_devices,
    make_fee,
    make_line,
    make_order,
    make_plan,
    make_user,
)

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(hours=1)


LAW = "Consumer law of the buyer's country, section 1"


def request(
    line: OrderLine,
    *,
    units: int = 1,
    by: int | None = None,
    ground: Ground = Ground.LAW,
    phones: Collection[int] = (),
    entry_id: int | None = None,
    case_id: int | None = None,
) -> Refund:
    return request_refund(
        order_id=line.order_id,
        ground=ground,
        legal_basis=LAW if ground == Ground.LAW else "",
        explanation="He withdrew in time.",
        units={line.pk: units},
        phones=phones,
        entry_id=entry_id,
        case_id=case_id,
        requested_by_id=by or make_user(is_staff=True).pk,
        now=NOW,
    )


def approve(refund: Refund) -> Refund:
    return approve_refund(refund_id=refund.pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)


def served(line: OrderLine, units: int) -> list[Allocation]:
    """Give devices to the first units of the line; return the allocations in the order of the units."""
    make_devices(line.plan, units)
    allocate_devices(plan_id=line.plan_id, now=NOW)
    return list(line.allocations.order_by("unit"))


def counted(line: OrderLine) -> tuple[str, int, int, int]:
    line.refresh_from_db()
    return line.state, line.allocated, line.withdrawn, line.waiting_units


@pytest.fixture
def line() -> OrderLine:
    """Three units at 4.99 USD that wait, paid for."""
    order = make_order([(make_fee(make_plan(), minor=499), 3)], paid_at=EARLIER)
    make_capture(order)
    return order.lines.get()


@pytest.mark.clause("3.3")
def test_request_alone_changes_nothing_in_the_queue(line: OrderLine) -> None:
    refund = request(line, units=2)

    assert (refund.state, refund.minor) == (RefundState.REQUESTED, 998)
    assert units_waiting(plan_id=line.plan_id) == 3


@pytest.mark.clause("3.3")
def test_approved_units_leave_the_queue_and_the_customer_is_told(line: OrderLine) -> None:
    behind = make_line(line.fee, paid_at=EARLIER + timedelta(minutes=1))
    approver = make_user(is_staff=True)

    refund = approve_refund(refund_id=request(line, units=2).pk, approved_by_id=approver.pk, now=NOW)

    assert (refund.state, refund.decided_by_id, refund.decided_at) == (RefundState.APPROVED, approver.pk, NOW)
    line.refresh_from_db()
    assert (line.state, line.withdrawn, line.waiting_units) == (LineState.WAITING, 2, 1)
    assert units_ahead(behind) == 1
    assert Notice.objects.get().kind == "refund-approved"


def test_line_with_all_units_refunded_is_withdrawn_and_gets_no_device(line: OrderLine) -> None:
    make_devices(line.plan, 3)
    approve_refund(refund_id=request(line, units=3).pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)

    assert allocate_devices(plan_id=line.plan_id, now=NOW) == 0
    line.refresh_from_db()
    assert (line.state, line.allocated) == (LineState.WITHDRAWN, 0)


def test_line_whose_last_waiting_unit_is_refunded_counts_as_allocated(line: OrderLine) -> None:
    make_devices(line.plan, 2)
    allocate_devices(plan_id=line.plan_id, now=NOW)

    approve_refund(refund_id=request(line).pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)

    line.refresh_from_db()
    assert (line.state, line.allocated, line.withdrawn) == (LineState.ALLOCATED, 2, 1)


@pytest.mark.clause("3.3")
def test_nobody_approves_his_own_request(line: OrderLine) -> None:
    clerk = make_user(is_staff=True)
    refund = request(line, by=clerk.pk)

    with pytest.raises(RefundRefused, match="second member of staff"):
        approve_refund(refund_id=refund.pk, approved_by_id=clerk.pk, now=NOW)
    with pytest.raises(IntegrityError), transaction.atomic():
        Refund.objects.filter(pk=refund.pk).update(state="approved", decided_by=clerk, decided_at=NOW)

    line.refresh_from_db()
    assert line.withdrawn == 0


@pytest.mark.clause("3.3")
def test_database_knows_only_the_grounds_of_the_agreement(line: OrderLine) -> None:
    refund = request(line)

    with pytest.raises(IntegrityError), transaction.atomic():
        Refund.objects.create(
            order=refund.order,
            attempt=refund.attempt,
            reference="R-2",
            ground="goodwill",
            explanation="He asked nicely.",
            minor=1,
            requested_by=refund.requested_by,
            requested_at=NOW,
        )


@pytest.mark.payment_case(40)
def test_more_units_than_wait_cannot_be_asked_for_in_one_request_or_several(line: OrderLine) -> None:
    with pytest.raises(RefundRefused):
        request(line, units=4)
    request(line, units=2)
    with pytest.raises(RefundRefused):
        request(line, units=2)
    with pytest.raises(RefundRefused):
        request(line, units=0)
    with pytest.raises(RefundRefused):
        request(line, units=-1)


def test_unit_allocated_since_the_request_is_not_refunded(line: OrderLine) -> None:
    refund = request(line, units=3)
    make_devices(line.plan, 1)
    allocate_devices(plan_id=line.plan_id, now=NOW)

    with pytest.raises(RefundRefused, match="allocated since"):
        approve_refund(refund_id=refund.pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)

    line.refresh_from_db()
    assert (line.allocated, line.withdrawn) == (1, 0)


@pytest.mark.payment_case(39)
def test_refund_is_decided_once(line: OrderLine) -> None:
    refund = request(line)
    approver = make_user(is_staff=True)
    reject_refund(refund_id=refund.pk, rejected_by_id=approver.pk, now=NOW)

    with pytest.raises(RefundRefused, match="already"):
        approve_refund(refund_id=refund.pk, approved_by_id=approver.pk, now=NOW)

    line.refresh_from_db()
    assert line.withdrawn == 0


def test_unpaid_order_has_nothing_to_refund() -> None:
    unpaid = make_order([(make_fee(make_plan()), 1)])

    with pytest.raises(RefundRefused, match="not paid"):
        request(unpaid.lines.get())


def test_refund_comes_of_no_case_in_which_none_was_asked_for(line: OrderLine) -> None:
    other = asked_for_refund(make_order([(line.fee, 1)], paid_at=NOW))
    for case in (opened(line.order), other):
        with pytest.raises(RefundRefused, match="no refund of the order was asked for"):
            request(line, case_id=case.pk)
    assert request(line, case_id=asked_for_refund(line.order).pk).case_id


def test_explanation_is_required(line: OrderLine) -> None:
    with pytest.raises(RefundRefused, match="Explain"):
        request_refund(
            order_id=line.order_id,
            ground=Ground.LAW,
            legal_basis=LAW,
            explanation=" ",
            units={line.pk: 1},
            requested_by_id=make_user(is_staff=True).pk,
            now=NOW,
        )


@pytest.mark.clause("3.3")
def test_refund_by_the_right_of_the_order_names_it(line: OrderLine, settings: Settings) -> None:
    settings.STATUTORY_RIGHTS = ["eu", "uk"]
    european, british = publish_rights(now=NOW)
    Order.objects.filter(pk=line.order_id).update(right=european, withdraw_until=NOW)

    def ask(right: StatutoryRight, *, ground: Ground = Ground.LAW, law: str = LAW) -> Refund:
        return request_refund(
            order_id=line.order_id,
            ground=ground,
            legal_basis=law,
            right_id=right.pk,
            explanation="He withdrew in time.",
            units={line.pk: 1},
            requested_by_id=make_user(is_staff=True).pk,
            now=NOW,
        )

    with pytest.raises(RefundRefused, match="not placed under this right"):
        ask(british)
    with pytest.raises(RefundRefused, match="and to no other"):
        ask(european, ground=Ground.UNABLE_TO_SUPPLY, law="")
    assert not Refund.objects.exists()
    refund = ask(european, law=european.law)
    assert (refund.legal_basis, refund.right) == ("Directive 2011/83/EU, articles 9 to 16", european)


@pytest.mark.clause("3.3")
def test_refund_that_the_law_requires_names_the_rule_and_no_other_does(line: OrderLine) -> None:
    def ask(ground: Ground, **rule: Any) -> Refund:
        return request_refund(
            order_id=line.order_id,
            ground=ground,
            explanation="He withdrew in time.",
            units={line.pk: 1},
            requested_by_id=make_user(is_staff=True).pk,
            now=NOW,
            **rule,
        )

    with pytest.raises(RefundRefused, match="Name the rule"):
        ask(Ground.LAW, legal_basis=" ")
    with pytest.raises(RefundRefused, match="and to no other"):
        ask(Ground.UNABLE_TO_SUPPLY, legal_basis=LAW)
    with pytest.raises(RefundRefused, match="not placed under this right"):
        ask(Ground.LAW, legal_basis=LAW, right_id=1)
    assert ask(Ground.LAW, legal_basis=f" {LAW}").legal_basis == LAW
    with pytest.raises(IntegrityError), transaction.atomic(), connection.cursor() as cursor:
        cursor.execute(
            "INSERT INTO orders_refund (order_id, attempt_id, reference, ground, legal_basis, explanation, state, minor,"
            " requested_by_id, requested_at, problem)"
            " SELECT order_id, attempt_id, 'R-9', ground, '', explanation, state, minor, requested_by_id, requested_at,"
            " problem FROM orders_refund"
        )


# --- units that have their phone ------------------------------------------------------------------------


@pytest.mark.clause("3.3", "5.1")
def test_refunded_phone_goes_into_quarantine_and_its_service_ends(line: OrderLine) -> None:
    kept, gone = served(line, 2)
    refund = request(line, units=0, phones=[gone.pk])
    assert (refund.minor, Quarantine.objects.count(), Allocation.objects.exclude(ended_at=None).count()) == (
        499,
        0,
        0,
    )

    approve(refund)

    assert counted(line) == (LineState.WAITING, 1, 1, 1)
    # What was given stays on record.
    assert list(line.allocations.order_by("unit").values_list("device", "ended_at")) == [
        (kept.device_id, None),
        (gone.device_id, NOW),
    ]
    assert list(Device.objects.order_by("pk").values_list("pk", "state")) == [
        (kept.device_id, "allocated"),
        (gone.device_id, "quarantined"),
    ]
    quarantine = Quarantine.objects.get()
    assert (quarantine.device_id, quarantine.reason) == (gone.device_id, f"Refund {refund.reference}")
    told = Notice.objects.get(kind="refund-approved")
    assert (told.facts["phones"], told.facts["amount"]) == (1, {"minor": 499, "currency": "USD"})


@pytest.mark.clause("1.1")
def test_quarantined_device_is_given_to_nobody(line: OrderLine) -> None:
    [phone] = served(line, 1)
    approve(request(line, units=0, phones=[phone.pk]))

    assert allocate_devices(plan_id=line.plan_id, now=NOW) == 0
    assert counted(line) == (LineState.WAITING, 0, 1, 2)


@pytest.mark.clause("1.1")
def test_units_behind_a_refunded_phone_are_served_and_told_as_ever(line: OrderLine) -> None:
    [phone] = served(line, 1)
    approve(request(line, units=0, phones=[phone.pk]))

    make_devices(line.plan, 2)
    assert allocate_devices(plan_id=line.plan_id, now=NOW) == 2

    assert counted(line) == (LineState.ALLOCATED, 2, 1, 0)
    assert list(line.allocations.order_by("unit").values_list("unit", "ended_at")) == [
        (1, NOW),
        (2, None),
        (3, None),
    ]
    assert [told.facts["units"] for told in Notice.objects.filter(kind="allocated").order_by("pk")] == [1, 2]


def test_line_whose_phones_are_all_refunded_is_withdrawn(line: OrderLine) -> None:
    phones = served(line, 3)

    approve(request(line, units=0, phones=[phone.pk for phone in phones]))

    assert counted(line) == (LineState.WITHDRAWN, 0, 3, 0)
    assert set(Device.objects.values_list("state", flat=True)) == {"quarantined"}


def test_one_refund_takes_waiting_units_and_phones(line: OrderLine) -> None:
    [phone] = served(line, 1)

    refund = approve(request(line, units=2, phones=[phone.pk]))

    assert refund.minor == 3 * 499
    assert counted(line) == (LineState.WITHDRAWN, 0, 3, 0)
    assert sorted(refund.lines.values_list("units", "allocation")) == [(1, phone.pk), (2, None)]


@pytest.mark.clause("1.1")
def test_fairness_ledger_tells_of_refunded_phones_and_agrees_with_the_tables(line: OrderLine) -> None:
    behind = make_line(line.fee, paid_at=EARLIER + timedelta(minutes=1))
    [phone, _other] = served(line, 2)
    approve(request(line, units=1, phones=[phone.pk]))
    served(behind, 1)
    fairness.seal_events(plan_id=line.plan_id)

    events = line.queue_events.order_by("number").values_list("kind", "units")
    assert list(events) == [("joined", 3), ("allocated", 2), ("left", 1), ("refunded", 1)]
    assert list(fairness.faults_of(line.plan, now=NOW)) == []


def test_phone_is_refunded_once_and_only_of_its_own_order(line: OrderLine) -> None:
    phones = served(line, 2)
    stranger = make_order([(line.fee, 1)], paid_at=EARLIER - timedelta(hours=1)).lines.get()
    [strange] = served(stranger, 1)
    asked = request(line, units=0, phones=[phones[0].pk])

    for wrong in (phones[0].pk, strange.pk):
        with pytest.raises(RefundRefused, match="not in use any more, or"):
            request(line, units=0, phones=[wrong])
    approve(asked)
    with pytest.raises(RefundRefused, match="not in use any more, or"):
        request(line, units=0, phones=[phones[0].pk])
    reject = request(line, units=0, phones=[phones[1].pk])
    reject_refund(refund_id=reject.pk, rejected_by_id=make_user(is_staff=True).pk, now=NOW)
    assert request(line, units=0, phones=[phones[1].pk]).minor == 499


def test_phone_that_has_gone_since_the_request_is_not_refunded(line: OrderLine) -> None:
    [phone] = served(line, 1)
    refund = request(line, units=1, phones=[phone.pk])
    Allocation.objects.filter(pk=phone.pk).update(ended_at=NOW)

    with pytest.raises(RefundRefused, match="not in use any more"):
        approve(refund)

    assert counted(line) == (LineState.WAITING, 1, 0, 2)


# --- made at the gateway's own desk -----------------------------------------------------------------------


def given_back_outside(line: OrderLine, *, minor: int) -> LedgerEntry:
    """A refund of which the gateway reports that somebody made it at its own desk."""
    attempt = PaymentAttempt.objects.get(order_id=line.order_id)
    move = MoneyMoved(f"re_{minor}", Money(minor, "USD"), NOW)
    snapshot = Snapshot(provider_id=attempt.provider_id, state="captured", refunds=(move,))
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=NOW)
    entry: LedgerEntry = LedgerEntry.objects.get(transaction_id=move.transaction_id)
    return entry


def open_items() -> list[str]:
    return list(ReviewItem.objects.filter(resolved_at=None).values_list("kind", flat=True))


@pytest.mark.payment_case(42)
@pytest.mark.clause("3.3")
def test_units_that_were_refunded_outside_leave_by_two_people_and_no_money_moves(line: OrderLine) -> None:
    [phone] = served(line, 1)
    entry = given_back_outside(line, minor=998)
    refund = request(line, units=1, phones=[phone.pk], entry_id=entry.pk)
    assert (counted(line)[3], open_items()) == (2, ["external-refund"])

    refund = approve(refund)

    assert (refund.state, refund.minor, refund.paid_at) == (RefundState.PAID, 998, NOW)
    assert counted(line) == (LineState.WAITING, 0, 2, 1)
    assert Device.objects.get().state == "quarantined"
    assert list(LedgerEntry.objects.order_by("pk").values_list("kind", "minor")) == [
        ("capture", 3 * 499),
        ("refund", -998),
    ]
    item = ReviewItem.objects.get()
    assert (open_items(), item.resolution, item.resolved_by) == (
        [],
        f"It was for refund {refund.reference}.",
        refund.decided_by,
    )
    assert Notice.objects.get(kind="refund-approved").facts["is_gone"] is True


@pytest.mark.payment_case(42)
def test_refund_outside_is_for_units_of_its_worth_at_most_and_once(line: OrderLine) -> None:
    entry = given_back_outside(line, minor=998)

    with pytest.raises(RefundRefused, match=r"9\.98 have gone back"):
        request(line, units=3, entry_id=entry.pk)
    rejected = request(line, units=2, entry_id=entry.pk)
    with pytest.raises(RefundRefused, match="said already"):
        request(line, units=1, entry_id=entry.pk)
    reject_refund(refund_id=rejected.pk, rejected_by_id=make_user(is_staff=True).pk, now=NOW)
    assert request(line, units=1, entry_id=entry.pk).minor == 998


@pytest.mark.payment_case(42)
def test_goodwill_outside_takes_nothing_and_is_no_refund_of_units(line: OrderLine) -> None:
    entry = given_back_outside(line, minor=100)
    resolve_review_item(
        item_id=ReviewItem.objects.get().pk,
        resolution="Goodwill",
        resolved_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )

    with pytest.raises(RefundRefused, match="said already"):
        request(line, units=1, entry_id=entry.pk)
    assert counted(line) == (LineState.WAITING, 0, 0, 3)


@pytest.mark.payment_case(42)
def test_refund_that_failed_is_paid_by_the_one_made_outside(line: OrderLine) -> None:
    refund = approve(request(line, units=2))
    Refund.objects.filter(pk=refund.pk).update(state=RefundState.FAILED, problem="No.")
    open_review_item(
        kind=ReviewKind.REFUND_FAILED, key=refund.key, order=line.order, detail="It was refused.", now=NOW
    )
    wrong, entry = given_back_outside(line, minor=997), given_back_outside(line, minor=998)
    clerk = make_user(is_staff=True)

    with pytest.raises(RefundRefused, match="not the money"):
        settle_failed_refund(refund_id=refund.pk, entry_id=wrong.pk, settled_by_id=clerk.pk, now=NOW)
    settled = settle_failed_refund(refund_id=refund.pk, entry_id=entry.pk, settled_by_id=clerk.pk, now=NOW)

    assert (settled.state, settled.entry, settled.problem) == (RefundState.PAID, entry, "")
    assert open_items() == ["external-refund"]
    assert counted(line) == (LineState.WAITING, 0, 2, 1)
    assert Notice.objects.filter(kind="refund-paid").count() == 1


# --- what is left ---------------------------------------------------------------------------------------


@pytest.mark.payment_case(40)
def test_what_is_on_its_way_back_is_not_left_in_a_payment(line: OrderLine) -> None:
    attempt = PaymentAttempt.objects.get()
    LedgerEntry.objects.create(
        order=line.order,
        attempt=attempt,
        gateway="sandbox",
        kind="capture",
        transaction_id="surplus",
        minor=100,
        currency="USD",
        occurred_at=NOW,
        recorded_at=NOW,
    )
    give_back(
        attempt_id=attempt.pk,
        amount=Money(100, "USD"),
        reason=ReturnReason.SURPLUS,
        decided_by_id=make_user(is_staff=True).pk,
        now=NOW,
    )
    asked = request(line)
    approve(request(line))

    assert left_in(attempt, currency="USD") == Money(499, "USD")
    reject_refund(refund_id=asked.pk, rejected_by_id=make_user(is_staff=True).pk, now=NOW)
    assert left_in(attempt, currency="USD") == Money(998, "USD")
