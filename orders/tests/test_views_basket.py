from collections.abc import Iterator
from datetime import timedelta

import pytest
import time_machine
from django.test import Client

from inventory.models import Fee, Plan
from orders.tests.shopping import basket_of, log_in, put_into_basket
from tests.builders import NOW, make_devices, make_fee, make_line, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def fee() -> Fee:
    """4.99 USD for 30 days of a plan on pre-sale, 50 to an order."""
    return make_fee(make_plan(limit=50))


def test_empty_basket_leads_to_the_plans(client: Client) -> None:
    assert "Your basket is empty" in client.get("/basket/").content.decode()


def test_what_is_added_is_in_the_basket_with_its_total(client: Client, fee: Fee) -> None:
    page = put_into_basket(client, fee, 3).content.decode()
    assert basket_of(client) == {str(fee.term_id): 3}
    assert '<p class="total">$14.97</p>' in page
    assert "Check out" in page


@pytest.mark.parametrize("quantity", ["0", "-1", "51", "1000000000", "9" * 5000, "abc", "1.5", "", "1e9"])
def test_impossible_quantity_is_refused_with_what_is_possible(
    client: Client, fee: Fee, quantity: str
) -> None:
    put_into_basket(client, fee, 2)
    other = make_fee(make_plan("Other", limit=50))
    page = put_into_basket(client, other, quantity)
    assert "Please enter a whole number from 1 to 50." in page.content.decode()
    assert page.context["form"]["quantity"].value() == quantity
    assert basket_of(client) == {str(fee.term_id): 2}


def test_limit_of_an_order_counts_what_is_in_the_basket_already(client: Client, fee: Fee) -> None:
    put_into_basket(client, fee, 48)
    quarter = make_fee(fee.term.plan, days=90, minor=1_399)
    page = put_into_basket(client, quarter, 3).content.decode()
    assert "Please enter a whole number from 1 to 2" in page
    put_into_basket(client, quarter, 2)
    assert basket_of(client) == {str(fee.term_id): 48, str(quarter.term_id): 2}


def test_more_than_is_left_is_refused_with_the_number_left(client: Client) -> None:
    plan = make_plan(cap=10)
    fee = make_fee(plan)
    make_line(fee, quantity=6, paid_at=NOW)
    page = put_into_basket(client, fee, 5).content.decode()
    assert "Only 4 phones of this plan can be ordered at the moment." in page
    assert basket_of(client) == {}


def test_short_term_is_sold_only_as_far_as_devices_are_free(client: Client) -> None:
    plan = make_plan()
    week = make_fee(plan, days=7, minor=179)
    make_devices(plan, 2)
    page = put_into_basket(client, week, 3).content.decode()
    assert "Only 2 phones are free now" in page
    put_into_basket(client, week, 2)
    assert basket_of(client) == {str(week.term_id): 2}


def test_unknown_plan_is_not_found(client: Client, fee: Fee) -> None:
    answer = client.post("/basket/add/", {"plan": "no-such-plan", "term": fee.term_id, "quantity": 1})
    assert answer.status_code == 404


@pytest.mark.parametrize("term", ["0", "999999", "abc", ""])
def test_unknown_term_is_refused_on_the_page_of_the_plan(client: Client, fee: Fee, term: str) -> None:
    answer = client.post("/basket/add/", {"plan": fee.term.plan.slug, "term": term, "quantity": 1})
    assert "Please choose" in answer.content.decode()
    assert basket_of(client) == {}


def test_term_of_another_plan_is_refused(client: Client, fee: Fee) -> None:
    other = make_fee(make_plan("Other"))
    client.post("/basket/add/", {"plan": fee.term.plan.slug, "term": other.term_id, "quantity": 1})
    assert basket_of(client) == {}


def change(client: Client, fee: Fee, **data: str) -> str:
    answer = client.post("/basket/change/", {"term": fee.term_id, **data}, follow=True)
    return answer.content.decode()


def test_quantity_is_changed(client: Client, fee: Fee) -> None:
    put_into_basket(client, fee, 3)
    page = change(client, fee, **{f"term-{fee.term_id}-quantity": "5"})
    assert '<p class="total">$24.95</p>' in page


@pytest.mark.parametrize("quantity", ["0", "-1", "51", "abc", ""])
def test_impossible_change_keeps_the_basket_and_says_what_is_possible(
    client: Client, fee: Fee, quantity: str
) -> None:
    put_into_basket(client, fee, 3)
    page = change(client, fee, **{f"term-{fee.term_id}-quantity": quantity})
    assert "Please enter a whole number from 1 to 50." in page
    assert basket_of(client) == {str(fee.term_id): 3}


def test_line_is_taken_out(client: Client, fee: Fee) -> None:
    put_into_basket(client, fee, 3)
    assert "Your basket is empty" in change(client, fee, remove="")
    assert basket_of(client) == {}


def test_changing_what_is_no_longer_there_is_told(client: Client, fee: Fee) -> None:
    assert "not in your basket any more" in change(client, fee, remove="")


def test_expired_basket_says_so_and_is_put_back_at_a_wish(
    client: Client, fee: Fee, clock: time_machine.Traveller
) -> None:
    put_into_basket(client, fee, 3)
    clock.move_to(NOW + timedelta(hours=24, seconds=1))
    page = client.get("/basket/").content.decode()
    assert "Your basket expired" in page
    assert "3 × " in page
    assert "Check out" not in page
    restored = client.post("/basket/restore/", follow=True).content.decode()
    assert '<p class="total">$14.97</p>' in restored


def test_what_is_not_on_sale_any_more_keeps_the_basket_from_checkout(client: Client, fee: Fee) -> None:
    put_into_basket(client, fee, 1)
    Plan.objects.update(on_sale=False)
    page = client.get("/basket/").content.decode()
    assert "This is not on offer any more" in page
    assert 'href="/checkout/"' not in page


def test_empty_basket_leads_back_to_the_order_that_can_be_paid(client: Client, fee: Fee) -> None:
    customer = make_user()
    order = make_order([(fee, 1)], customer=customer, placed_at=NOW)
    make_order([(fee, 1)], placed_at=NOW)
    log_in(client, customer)
    page = client.get("/basket/").content.decode()
    assert f"/orders/{order.reference}/pay/" in page


@pytest.mark.parametrize("address", ["/basket/restore/", "/currency/"])
def test_changes_are_not_made_by_following_a_link(client: Client, address: str) -> None:
    assert client.get(address).status_code == 405
