"""The desk of refunds: phones that are taken back, supply that does not come, the gateway's own desk, payouts."""

from collections.abc import Iterator
from datetime import date, timedelta

import pytest
import time_machine
from django.test import Client
from django.urls import reverse

from accounts.models import User
from inventory.models import Device, SupplyBatch
from inventory.money import Money
from orders.allocation import allocate_devices
from orders.gateways.protocol import MoneyMoved, Snapshot
from orders.ledger import apply_snapshot
from orders.models import (
    Ground,
    LedgerEntry,
    Order,
    Payout,
    Refund,
    RefundState,
    ReviewItem,
    Shortfall,
)
from orders.refunds import approve_refund, request_refund
from orders.shortfalls import work_off_shortfalls
from tests.builders import (
    NOW,
    make_batch,
    make_capture,
    make_devices,
    make_fee,
    make_order,
    make_plan,
    make_user,
)

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(hours=1)


@pytest.fixture(autouse=True)
def _clock() -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def clerk() -> User:
    return make_user("clerk@example.com", is_staff=True)


@pytest.fixture
def desk(client: Client, clerk: User) -> Client:
    client.force_login(clerk)
    return client


@pytest.fixture
def second_desk() -> Client:
    client = Client()
    client.force_login(make_user("second@example.com", is_staff=True))
    return client


@pytest.fixture
def order() -> Order:
    """Three units at 4.99, one of which has its phone."""
    order = make_order([(make_fee(make_plan(), minor=499), 3)], paid_at=EARLIER)
    make_capture(order)
    plan = order.lines.get().plan
    make_devices(plan, 1)
    allocate_devices(plan_id=plan.pk, now=NOW)
    return order


def counted(order: Order) -> tuple[str, int, int]:
    line = order.lines.get()
    return line.state, line.allocated, line.withdrawn


def page(desk: Client, address: str) -> str:
    return desk.get(address).content.decode()


def failed_refund(order: Order, clerk: User) -> Refund:
    refund = request_refund(
        order_id=order.pk,
        ground=Ground.UNABLE_TO_SUPPLY,
        explanation="Given up.",
        units={order.lines.get().pk: 1},
        requested_by_id=clerk.pk,
        now=NOW,
    )
    approve_refund(refund_id=refund.pk, approved_by_id=make_user(is_staff=True).pk, now=NOW)
    Refund.objects.filter(pk=refund.pk).update(state=RefundState.FAILED, problem="Account closed.")
    return refund


# --- phones ----------------------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
def test_phone_is_picked_by_its_code_and_goes_when_a_second_person_approves(
    desk: Client, second_desk: Client, order: Order
) -> None:
    device, address = Device.objects.get(), reverse("admin:orders_order_request_refund", args=[order.pk])
    assert device.code in page(desk, address)

    desk.post(
        address,
        {
            "ground": Ground.UNABLE_TO_SUPPLY,
            "explanation": "Its server is gone.",
            f"units_{order.lines.get().pk}": 0,
            "phones": [order.lines.get().allocations.get().pk],
        },
    )
    refund = Refund.objects.get()
    assert device.code in page(desk, reverse("admin:orders_refund_change", args=[refund.pk]))
    approve = reverse("admin:orders_refund_approve", args=[refund.pk])
    assert "its device goes into quarantine" in page(second_desk, approve)
    second_desk.post(approve, {"confirmed": "yes"})

    device.refresh_from_db()
    assert (device.state, counted(order)) == ("quarantined", ("waiting", 0, 1))
    assert f"Refund {refund.reference}" in page(
        desk, reverse("admin:inventory_device_change", args=[device.pk])
    )


def test_phone_of_another_order_cannot_be_picked(desk: Client, order: Order) -> None:
    other = make_order([(make_fee(make_plan("V06")), 1)], paid_at=EARLIER)
    make_capture(other)

    answer = desk.post(
        reverse("admin:orders_order_request_refund", args=[other.pk]),
        {
            "ground": Ground.UNABLE_TO_SUPPLY,
            "explanation": "x",
            f"units_{other.lines.get().pk}": 1,
            "phones": [order.lines.get().allocations.get().pk],
        },
    )

    # The field is not even there: nothing of it is taken, and the rest is as asked.
    assert answer.status_code == 302
    taken = Refund.objects.get().lines.get()
    assert (taken.units, taken.allocation) == (1, None)


# --- unable to supply ------------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
def test_plan_is_declared_on_a_page_that_lists_who_waits_and_what_it_costs(
    desk: Client, second_desk: Client, order: Order
) -> None:
    plan = order.lines.get().plan
    answer = desk.get(reverse("admin:inventory_plan_declare_shortfall", args=[plan.pk]))
    address = answer["Location"]
    shown = page(desk, address)
    assert order.reference in shown
    assert all(words in shown for words in ("2 units", "1 order", "$9.98"))
    assert not Shortfall.objects.exists()

    desk.post(address, {"reason": "The supplier has given it up."})
    shortfall = Shortfall.objects.get()
    detail = reverse("admin:orders_shortfall_change", args=[shortfall.pk])
    assert "To be refunded: 1 order, 2 units" in page(desk, detail)
    approve = reverse("admin:orders_shortfall_approve", args=[shortfall.pk])
    assert "second member of staff" in desk.post(approve, {"confirmed": "yes"}).content.decode()
    second_desk.post(approve, {"confirmed": "yes"})
    work_off_shortfalls(now=NOW)

    assert counted(order) == ("allocated", 1, 2)
    shown = page(desk, detail)
    assert "Refunded: 1 order, 2 units" in shown
    assert Refund.objects.get().reference in shown


@pytest.mark.clause("3.3")
def test_batch_is_declared_from_its_page_while_something_of_it_is_missing(desk: Client, order: Order) -> None:
    plan = order.lines.get().plan
    batch, whole = make_batch(plan, quantity=1), SupplyBatch.objects.get(received_at__isnull=False)
    button = reverse("admin:inventory_supplybatch_declare_shortfall", args=[batch.pk])
    assert button in page(desk, reverse("admin:inventory_supplybatch_change", args=[batch.pk]))
    assert "declare_shortfall" not in page(
        desk, reverse("admin:inventory_supplybatch_change", args=[whole.pk])
    )

    address = desk.get(button)["Location"]
    assert "1 unit" in page(desk, address)
    desk.post(address, {"reason": "Lost at sea."})

    batch.refresh_from_db()
    shortfall = Shortfall.objects.get()
    assert (batch.state, shortfall.batch, list(shortfall.lines.values_list("units"))) == (
        "cancelled",
        batch,
        [(1,)],
    )


def test_who_comes_without_a_plan_picks_one_first(desk: Client, order: Order) -> None:
    plan, address = order.lines.get().plan, reverse("admin:orders_shortfall_add")
    batch = make_batch(plan, on=date(2026, 12, 24))
    assert f'value="batch={batch.pk}"' in page(desk, address)

    assert desk.post(address, {"what": f"plan={plan.pk}"})["Location"] == f"{address}?plan={plan.pk}"
    assert [desk.get(f"{address}?{wrong}").status_code for wrong in ("plan=x", "plan=999", "batch=999")] == [
        404
    ] * 3


def test_plan_for_which_nobody_waits_says_so(desk: Client) -> None:
    plan = make_plan()

    assert "Nobody waits for it" in page(desk, f"{reverse('admin:orders_shortfall_add')}?plan={plan.pk}")


def test_failed_refunds_of_a_shortfall_are_tried_again_from_its_page(
    desk: Client, second_desk: Client, order: Order
) -> None:
    address = f"{reverse('admin:orders_shortfall_add')}?plan={order.lines.get().plan_id}"
    desk.post(address, {"reason": "Given up."})
    shortfall = Shortfall.objects.get()
    retry = reverse("admin:orders_shortfall_retry", args=[shortfall.pk])
    second_desk.post(reverse("admin:orders_shortfall_approve", args=[shortfall.pk]), {"confirmed": "yes"})
    work_off_shortfalls(now=NOW)
    detail = reverse("admin:orders_shortfall_change", args=[shortfall.pk])
    assert retry not in page(desk, detail)
    Refund.objects.update(state=RefundState.FAILED, problem="No.")
    assert retry in page(desk, detail)

    desk.post(retry, {"confirmed": "yes"})

    assert Refund.objects.get().state == RefundState.APPROVED


# --- the gateway's own desk ------------------------------------------------------------------------------------


def external(order: Order, *, minor: int) -> ReviewItem:
    attempt = order.attempts.get()
    move = MoneyMoved("re-1", Money(minor, "USD"), NOW)
    snapshot = Snapshot(provider_id=attempt.provider_id, state="captured", refunds=(move,))
    apply_snapshot(attempt_id=attempt.pk, snapshot=snapshot, now=NOW)
    item: ReviewItem = ReviewItem.objects.get(kind="external-refund")
    return item


@pytest.mark.payment_case(42)
def test_staff_say_which_units_a_refund_outside_was_for(
    desk: Client, second_desk: Client, order: Order
) -> None:
    item = external(order, minor=499)
    address = reverse("admin:orders_reviewitem_say_what_for", args=[item.pk])
    assert address in page(desk, reverse("admin:orders_reviewitem_change", args=[item.pk]))
    assert "4.99 USD were given back as re-1" in page(desk, address)

    desk.post(
        address,
        {
            "purpose": "units",
            "ground": Ground.UNABLE_TO_SUPPLY,
            "explanation": "Promised on the telephone.",
            f"units_{order.lines.get().pk}": 1,
        },
    )
    refund = Refund.objects.get()
    second_desk.post(reverse("admin:orders_refund_approve", args=[refund.pk]), {"confirmed": "yes"})

    item.refresh_from_db()
    refund.refresh_from_db()
    assert (refund.state, counted(order)) == ("paid", ("waiting", 1, 1))
    assert item.resolution == f"It was for refund {refund.reference}."
    assert LedgerEntry.objects.filter(kind="refund").count() == 1


@pytest.mark.payment_case(42)
def test_refund_outside_can_be_goodwill_or_for_a_refund_that_failed(
    desk: Client, order: Order, clerk: User
) -> None:
    failed = failed_refund(order, clerk)
    item = external(order, minor=499)
    address = reverse("admin:orders_reviewitem_say_what_for", args=[item.pk])
    form = {
        "ground": Ground.UNABLE_TO_SUPPLY,
        "explanation": "Seen.",
        f"units_{order.lines.get().pk}": 0,
    }

    desk.post(address, {**form, "purpose": str(failed.pk)})
    failed.refresh_from_db()
    assert (failed.state, failed.entry) == ("paid", item.entry)
    # Said once, it is said.
    assert "already" in desk.post(address, {**form, "purpose": "goodwill"}).content.decode()


@pytest.mark.payment_case(42)
def test_goodwill_keeps_every_unit_where_it_is(desk: Client, order: Order, clerk: User) -> None:
    item = external(order, minor=100)

    desk.post(
        reverse("admin:orders_reviewitem_say_what_for", args=[item.pk]),
        {
            "purpose": "goodwill",
            "ground": Ground.UNABLE_TO_SUPPLY,
            "explanation": "He waited long.",
            f"units_{order.lines.get().pk}": 0,
        },
    )

    item.refresh_from_db()
    assert (item.resolution, item.resolved_by) == ("Goodwill, for no unit: He waited long.", clerk)
    assert (counted(order), Refund.objects.count()) == (("waiting", 1, 0), 0)


# --- by hand ---------------------------------------------------------------------------------------------------


@pytest.mark.payment_case(41)
def test_payout_by_hand_is_recorded_by_one_and_confirmed_by_another(
    desk: Client, second_desk: Client, order: Order, clerk: User
) -> None:
    refund = failed_refund(order, clerk)
    detail = reverse("admin:orders_refund_change", args=[refund.pk])
    address = reverse("admin:orders_refund_pay_by_hand", args=[refund.pk])
    assert address in page(desk, detail)

    desk.post(address, {"means": "bank transfer", "reference": "SEPA-7", "paid_on": "2026-11-23"})
    payout = Payout.objects.get()
    confirm = reverse("admin:orders_payout_confirm", args=[payout.pk])
    assert "clerk@example.com says that $4.99 were sent" in page(second_desk, confirm)
    assert "second member of staff" in desk.post(confirm, {"confirmed": "yes"}).content.decode()
    second_desk.post(confirm, {"confirmed": "yes"})

    refund.refresh_from_db()
    assert refund.state == "paid"
    assert LedgerEntry.objects.get(gateway="by-hand").minor == -499
    assert "SEPA-7" in page(desk, detail)
    assert address not in page(desk, detail)


# --- the gateway's time ------------------------------------------------------------------------------------------


@pytest.mark.payment_case(43)
def test_orders_are_filtered_by_how_long_their_gateway_still_gives_money_back(desk: Client) -> None:
    fee = make_fee(make_plan(), minor=499)
    orders = []
    for days in (-1, 13, 15, None):
        order = make_order([(fee, 1)], paid_at=EARLIER)
        entry = make_capture(order)
        # (Evidence cannot be changed; another capture says until when.)
        LedgerEntry.objects.create(
            order=order,
            attempt=entry.attempt,
            gateway="paypal",
            kind="capture",
            transaction_id=f"{order.pk}",
            minor=1,
            currency="USD",
            occurred_at=EARLIER,
            recorded_at=EARLIER,
            refundable_until=None if days is None else NOW + timedelta(days=days),
        )
        orders.append(order)

    def shown(window: str) -> list[Order]:
        answer = desk.get(reverse("admin:orders_order_changelist"), {"refund_window": window})
        return list(answer.context["cl"].result_list)

    assert (shown("closed"), shown("closing")) == ([orders[0]], [orders[1]])
