from collections.abc import Iterator
from datetime import date, timedelta

import pytest
import time_machine
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from accounts.models import User
from inventory.models import Fee
from orders.allocation import allocate_devices
from orders.estimates import record_first_estimate, refresh_estimates
from orders.models import Ground, Order, OrderState, PaymentAttempt, Refund
from orders.queue.fairness import seal_events
from orders.refunds import approve_refund, reject_refund, request_refund
from orders.tests.shopping import log_in
from tests.builders import (
    NOW,
    make_attempt,
    make_batch,
    make_capture,
    make_devices,
    make_fee,
    make_line,
    make_order,
    make_plan,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def customer(client: Client) -> User:
    customer = make_user("buyer@example.com")
    log_in(client, customer)
    return customer


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan())


@pytest.fixture
def waiting(customer: User, fee: Fee) -> Order:
    """5 phones that wait behind 12 others, with a batch announced for December 1."""
    make_batch(fee.term.plan, quantity=40, on=date(2026, 12, 1))
    make_line(fee, quantity=12, paid_at=NOW - timedelta(hours=3))
    order = make_order([(fee, 5)], customer=customer, paid_at=NOW - timedelta(hours=1))
    record_first_estimate(order.lines.select_related("order", "plan").get(), ahead=12, now=NOW)
    return order


def page_of(client: Client, order: Order) -> str:
    return " ".join(client.get(f"/orders/{order.reference}/").content.decode().split())


@pytest.mark.clause("3.3")
def test_order_page_shows_the_place_and_the_window(client: Client, waiting: Order) -> None:
    page = page_of(client, waiting)
    assert '<p class="figure__number">12</p>' in page
    assert "phones ahead of yours" in page
    for term, day in (
        ("Earliest", "Dec. 1, 2026"),
        ("Likely", "Dec. 8, 2026"),
        ("At the latest", "Dec. 31, 2026"),
    ):
        assert f"<dt>{term}</dt><dd>{day}</dd>" in page
    assert "You hear from us again by Nov. 30, 2026, also if nothing changes." in page
    assert "40 devices expected on Dec. 1, 2026" in page


def test_window_is_drawn_to_scale_without_inline_style(client: Client, waiting: Order) -> None:
    page = page_of(client, waiting)
    # From today, November 23, to December 31 are 38 days; the window begins after 8 of them.
    assert 'x="21.1%" y="2" width="78.9%"' in page
    assert 'cx="39.5%"' in page
    assert " style=" not in page


def test_announced_batches_are_marked_on_the_window(client: Client, waiting: Order, fee: Fee) -> None:
    make_batch(fee.term.plan, quantity=6, on=date(2026, 11, 20))
    make_batch(fee.term.plan, quantity=7, on=date(2027, 2, 1))
    page = page_of(client, waiting)
    # Of the 38 days until December 31; the overdue one is drawn today, the one of February not at all.
    assert 'class="window__mark" x="0.0%"' in page
    assert 'class="window__mark" x="21.1%"' in page
    assert page.count('class="window__mark" x=') == 2
    assert "Announced deliveries: 6 on Nov. 20, 2026 (overdue), 40 on Dec. 1, 2026</p>" in page


@pytest.mark.payment_case(34)
def test_pages_of_an_order_whose_payment_is_being_confirmed_invite_nobody_to_pay_again(
    client: Client, customer: User, fee: Fee
) -> None:
    order = make_order([(fee, 1)], customer=customer, placed_at=NOW)
    attempt = make_attempt(order)
    pay = f'href="/orders/{order.reference}/pay/"'
    inviting = ("/orders/", "/basket/", f"/orders/{order.reference}/")
    assert [address for address in inviting if pay in client.get(address).content.decode()] == [*inviting]

    PaymentAttempt.objects.update(state="confirming", confirming_since=NOW)
    make_attempt(order, number=2)

    page, mine = page_of(client, order), client.get("/orders/").content.decode()
    assert "<strong>Your payment is being confirmed.</strong> Your units are held meanwhile." in page
    assert "Your payment is being confirmed. Please don't pay again." in mine
    basket = client.get("/basket/").content.decode()
    assert [text for text in (pay, "Not paid") if text in page or text in mine or text in basket] == []

    PaymentAttempt.objects.filter(pk=attempt.pk).update(state="declined", confirming_since=None)
    assert [address for address in inviting if pay in client.get(address).content.decode()] == [*inviting]


@pytest.mark.clause("1.1")
def test_timeline_has_what_the_ledger_has(client: Client, waiting: Order, fee: Fee) -> None:
    make_devices(fee.term.plan, 13)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    seal_events(plan_id=fee.term.plan_id)
    answer = client.get(f"/orders/{waiting.reference}/")
    timeline = answer.context["situation"].progress.timeline
    plan = str(fee.term.plan)
    assert [(each.title, each.detail) for each in timeline if "entry" in each.detail] == [
        ("1 phone allocated", f"{plan}, entry 4 of the ledger"),
        ("5 phones joined the queue", f"{plan}, entry 2 of the ledger"),
    ]


def test_first_in_the_queue_is_told_so(client: Client, customer: User, fee: Fee) -> None:
    order = make_order([(fee, 1)], customer=customer, paid_at=NOW)
    assert "you are next" in page_of(client, order)


def test_changed_estimate_shows_the_one_before_and_why(client: Client, waiting: Order, fee: Fee) -> None:
    batch = fee.term.plan.batches.get()
    type(batch).objects.filter(pk=batch.pk).update(expected_on=date(2026, 12, 20))
    refresh_estimates(plan_id=fee.term.plan_id, now=NOW)
    page = page_of(client, waiting)
    assert "Before: likely Dec. 8, 2026, at the latest Dec. 31, 2026." in page
    assert "Changed by supply that comes later than announced." in page


def test_unknown_date_is_said_to_be_unknown(client: Client, customer: User, fee: Fee) -> None:
    order = make_order([(fee, 1)], customer=customer, paid_at=NOW)
    record_first_estimate(order.lines.select_related("order", "plan").get(), ahead=0, now=NOW)
    assert "Not known yet." in page_of(client, order)


@pytest.mark.clause("5.1")
def test_allocated_phones_are_shown_with_the_end_of_their_service(
    client: Client, waiting: Order, fee: Fee
) -> None:
    devices = make_devices(fee.term.plan, 14)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    page = page_of(client, waiting)
    assert "2 of 5 phones are yours" in page
    for device in devices[12:]:
        assert device.code in page
    # 30 days and the bonus day of a pre-sale.
    assert "until Dec. 24, 2026" in page


def test_live_part_changes_only_when_the_order_does(client: Client, waiting: Order, fee: Fee) -> None:
    live = client.get(f"/orders/{waiting.reference}/").context["live"]
    address = f"/orders/{waiting.reference}/live/"
    same = client.get(address, {"seen": live.digest})
    assert (same.status_code, same.content) == (204, b"")

    make_devices(fee.term.plan, 12)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    changed = client.get(address, {"seen": live.digest})
    assert changed.status_code == 200
    assert "you are next" in changed.content.decode()


def test_order_that_is_over_is_not_asked_about_again(client: Client, customer: User, fee: Fee) -> None:
    order = make_order([(fee, 1)], customer=customer)
    live = f'hx-get="/orders/{order.reference}/live/'
    assert live in page_of(client, order)
    Order.objects.update(state=OrderState.EXPIRED)
    page = page_of(client, order)
    assert "This order was not paid in time" in page
    assert live not in page


def test_live_part_of_a_visitor_who_was_logged_out_loads_the_page_anew(
    client: Client, waiting: Order
) -> None:
    client.logout()
    assert client.get(f"/orders/{waiting.reference}/live/").headers["HX-Refresh"] == "true"


@pytest.mark.parametrize("part", ["", "live/", "pay/", "pay/live/", "paid/"])
@pytest.mark.usefixtures("customer")
def test_order_of_somebody_else_is_not_found(client: Client, fee: Fee, part: str) -> None:
    theirs = make_order([(fee, 1)], placed_at=NOW)
    assert client.get(f"/orders/{theirs.reference}/{part}").status_code == 404


@pytest.mark.usefixtures("customer")
def test_order_of_somebody_else_cannot_be_cancelled(client: Client, fee: Fee) -> None:
    theirs = make_order([(fee, 1)], placed_at=NOW)
    assert client.post(f"/orders/{theirs.reference}/cancel/").status_code == 404
    theirs.refresh_from_db()
    assert theirs.state == OrderState.UNPAID


def test_unpaid_order_is_cancelled_by_its_buyer(client: Client, customer: User, fee: Fee) -> None:
    order = make_order([(fee, 1)], customer=customer, placed_at=NOW)
    assert client.get(f"/orders/{order.reference}/cancel/").status_code == 405
    page = client.post(f"/orders/{order.reference}/cancel/", follow=True).content.decode()
    assert "This order was cancelled before it was paid." in page


def test_paid_order_is_not_cancelled_and_it_is_told(client: Client, waiting: Order) -> None:
    page = client.post(f"/orders/{waiting.reference}/cancel/", follow=True).content.decode()
    assert "This order cannot be cancelled any more." in page
    waiting.refresh_from_db()
    assert waiting.state == OrderState.PAID


@pytest.mark.parametrize("address", ["/orders/", "/phones/"])
def test_customers_pages_ask_for_a_login(client: Client, address: str) -> None:
    assert client.get(address).headers["Location"] == f"/accounts/login/?next={address}"


@pytest.mark.usefixtures("customer")
def test_lists_are_empty_with_a_way_on(client: Client) -> None:
    assert "No orders yet" in client.get("/orders/").content.decode()
    assert "No cloud phones yet" in client.get("/phones/").content.decode()


def test_orders_are_paged_newest_first_and_only_ones_own(client: Client, customer: User, fee: Fee) -> None:
    orders = [
        make_order([(fee, 1)], customer=customer, placed_at=NOW - timedelta(hours=hours))
        for hours in range(12)
    ]
    make_order([(fee, 1)])
    first, second = client.get("/orders/").context["page"], client.get("/orders/?page=2").context["page"]
    assert [order.reference for order in first] == [order.reference for order in orders[:10]]
    assert [order.reference for order in second] == [order.reference for order in orders[10:]]
    assert client.get("/orders/?page=abc").context["page"].number == 1
    assert client.get("/orders/?page=99").context["page"].number == 2


def test_phones_are_listed_with_the_days_left(
    client: Client, waiting: Order, fee: Fee, clock: time_machine.Traveller
) -> None:
    make_devices(fee.term.plan, 14)
    allocate_devices(plan_id=fee.term.plan_id, now=NOW)
    clock.move_to(NOW + timedelta(days=1, hours=1))
    answer = client.get("/phones/")
    page = answer.content.decode()
    assert [phone.line.order_id for phone in answer.context["page"]] == [waiting.pk] * 2
    assert "<strong>30</strong>" in page
    assert "3 more are in the queue" in page


def test_order_page_asks_the_same_number_of_queries_for_one_line_and_for_four(
    client: Client, customer: User, waiting: Order, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(28):
        client.get(f"/orders/{waiting.reference}/")
    fees = [make_fee(make_plan(f"Plan {number}")) for number in range(4)]
    larger = make_order([(fee, 1) for fee in fees], customer=customer, paid_at=NOW)
    with django_assert_num_queries(28):
        client.get(f"/orders/{larger.reference}/")


def test_lists_ask_the_same_number_of_queries_for_one_order_and_for_five(
    client: Client,
    waiting: Order,
    customer: User,
    fee: Fee,
    django_assert_num_queries: DjangoAssertNumQueries,
) -> None:
    with django_assert_num_queries(9):
        client.get("/orders/")
    for _ in range(4):
        make_order([(fee, 1), (make_fee(fee.term.plan, days=90), 2)], customer=customer, paid_at=NOW)
    with django_assert_num_queries(9):
        client.get("/orders/")


@pytest.mark.clause("3.3")
@pytest.mark.payment_case(41)
def test_order_page_shows_what_has_become_of_each_refund(client: Client, customer: User, fee: Fee) -> None:
    order = make_order([(fee, 5)], customer=customer, paid_at=NOW)
    make_capture(order)
    line, clerk, approver = order.lines.get(), make_user(is_staff=True), make_user(is_staff=True)
    for number in range(5):
        refund = request_refund(
            order_id=order.pk,
            ground=Ground.UNABLE_TO_SUPPLY,
            explanation="The supplier has given it up.",
            units={line.pk: 1},
            requested_by_id=clerk.pk,
            now=NOW,
        )
        if number < 3:
            approve_refund(refund_id=refund.pk, approved_by_id=approver.pk, now=NOW)
    last = Refund.objects.get(reference__endswith="R5")
    reject_refund(refund_id=last.pk, rejected_by_id=approver.pk, now=NOW)
    Refund.objects.filter(reference__endswith="R2").update(state="failed", problem="Account closed.")
    Refund.objects.filter(reference__endswith="R3").update(state="paid", paid_at=NOW)

    page = client.get(order.get_absolute_url()).content.decode()

    shown = page[page.index("Refunds</h3>") :]
    assert [f"-R{n}</span>" in shown for n in range(1, 6)] == [True, True, True, False, False]
    assert shown.index("On its way") < shown.index("Delayed") < shown.index("Paid back on Nov. 23, 2026")
    # What the gateway said is for staff.
    assert "Account closed." not in page
