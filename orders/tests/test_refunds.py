"""Refunds of the sale: grounds, the second person, and units that leave the queue."""

from datetime import timedelta
from typing import Any

import pytest
from django.db import IntegrityError, connection, transaction
from pytest_django import Settings

from agreements.models import StatutoryRight
from agreements.rights import publish_rights
from notices.models import Notice
from orders.allocation import allocate_devices
from orders.models import (
    Ground,
    LineState,
    Order,
    OrderLine,
    Refund,
    RefundState,
)
from orders.queue import units_ahead, units_waiting
from orders.refunds import RefundRefused, approve_refund, reject_refund, request_refund
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


def request(line: OrderLine, *, units: int = 1, by: int | None = None, ground: Ground = Ground.LAW) -> Refund:
    return request_refund(
        order_id=line.order_id,
        ground=ground,
        legal_basis=LAW if ground == Ground.LAW else "",
        explanation="He withdrew in time.",
        units={line.pk: units},
        requested_by_id=by or make_user(is_staff=True).pk,
        now=NOW,
    )


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
