from collections.abc import Iterator
from datetime import date, timedelta

import pytest
import time_machine
from django.conf import settings
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from inventory.models import Fee, FeeSchedule, Plan
from orders.views.shop import FeeTable
from tests.builders import NOW, make_batch, make_devices, make_fee, make_line, make_plan

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


def text_of(client: Client, address: str) -> str:
    """The words of a page, with its white space made plain."""
    return " ".join(client.get(address).content.decode().split())


@pytest.mark.clause("3.3")
def test_card_of_a_presale_plan_says_how_many_are_ahead_and_when_a_phone_is_likely_to_come(
    client: Client,
) -> None:
    plan = make_plan("V08", cap=100)
    fee = make_fee(plan)
    make_line(fee, quantity=8, paid_at=NOW - timedelta(days=1))
    make_batch(plan, quantity=20, on=date(2026, 12, 1))

    shop = text_of(client, "/")
    assert "Pre-sale" in shop
    assert "<dt>Ahead of you</dt><dd>8</dd>" in shop
    assert "<dt>Left to sell</dt><dd>92</dd>" in shop
    # No past batch to learn from: the assumption is a week late with one in two, a month with nine in ten.
    assert "Dec. 8, 2026" in shop
    assert "Dec. 1, 2026 at the earliest, Dec. 31, 2026 at the latest" in shop


def test_card_says_when_the_date_is_not_known(client: Client) -> None:
    make_fee(make_plan("V06"))
    assert "Date not known yet" in text_of(client, "/")


def test_card_of_a_plan_with_free_devices_promises_minutes(client: Client) -> None:
    plan = make_plan()
    make_fee(plan)
    make_devices(plan, 3)
    shop = text_of(client, "/")
    assert "Devices free now" in shop
    assert "Yours within minutes" in shop
    assert "<dt>Devices free</dt><dd>3</dd>" in shop


def test_sold_out_plan_stays_in_the_shop_and_offers_no_form(client: Client) -> None:
    plan = make_plan(cap=2)
    make_line(make_fee(plan), quantity=2, paid_at=NOW)
    assert "Sold out" in text_of(client, "/")
    page = text_of(client, f"/plans/{plan.slug}/")
    assert "Sold out" in page
    assert "Add to basket" not in page


def test_shop_without_plans_says_so(client: Client) -> None:
    assert "Nothing is on sale at the moment" in text_of(client, "/")


def test_plan_that_is_not_on_sale_has_no_page(client: Client) -> None:
    plan = make_plan()
    make_fee(plan)
    Plan.objects.filter(pk=plan.pk).update(on_sale=False)
    assert client.get(f"/plans/{plan.slug}/").status_code == 404


@pytest.mark.clause("3.2")
def test_fee_schedule_is_published_with_the_one_that_is_announced(client: Client) -> None:
    fee = make_fee(make_plan(), minor=499)
    coming = FeeSchedule.objects.create(
        currency="USD", announced_at=NOW - timedelta(days=1), effective_at=NOW + timedelta(days=30)
    )
    Fee.objects.create(schedule=coming, term=fee.term, minor=549)
    secret = FeeSchedule.objects.create(
        currency="USD", announced_at=NOW + timedelta(days=1), effective_at=NOW + timedelta(days=60)
    )
    Fee.objects.create(schedule=secret, term=fee.term, minor=999)

    shop = text_of(client, "/")
    assert '<td class="number">$4.99</td>' in shop
    assert "Announced: fees from Dec. 23, 2026" in shop
    assert '<td class="number">$5.49</td>' in shop
    assert "$9.99" not in shop


def test_short_term_cannot_be_chosen_on_presale(client: Client) -> None:
    plan = make_plan()
    week, month = make_fee(plan, days=7, minor=179), make_fee(plan, days=30)
    page = text_of(client, f"/plans/{plan.slug}/")
    assert f'name="term" value="{week.term_id}" disabled>' in page
    assert f'name="term" value="{month.term_id}" checked>' in page


@pytest.mark.clause("3.3")
def test_plan_page_says_what_the_window_rests_on_and_that_there_are_no_refunds(client: Client) -> None:
    plan = make_plan()
    make_fee(plan)
    for late in (0, 1, 2, 9, 20):
        make_batch(plan, quantity=1, on=date(2026, 6, 1), received_late=late)
    make_batch(plan, quantity=30, on=date(2026, 12, 1))

    page = text_of(client, f"/plans/{plan.slug}/")
    assert "For one phone, based on announced supply batches." in page
    assert "<dt>Deliveries on record</dt><dd>5</dd>" in page
    assert "<dt>Half came within</dt><dd>2 days of the date</dd>" in page
    assert "<dt>Nine in ten within</dt><dd>20 days of the date</dd>" in page
    assert "There are no refunds during the pre-sale period" in page


def test_batch_that_is_late_is_called_overdue(client: Client) -> None:
    plan = make_plan()
    make_fee(plan)
    make_batch(plan, on=date(2026, 11, 22))
    assert "overdue" in text_of(client, f"/plans/{plan.slug}/")


def test_batch_that_is_expected_today_is_not_overdue(client: Client) -> None:
    plan = make_plan()
    make_fee(plan)
    make_batch(plan, on=date(2026, 11, 23))
    assert "overdue" not in text_of(client, f"/plans/{plan.slug}/")


def test_fees_are_shown_in_the_chosen_currency(client: Client) -> None:
    plan = make_plan()
    make_fee(plan, minor=499)
    make_fee(plan, minor=760, currency="JPY")
    answer = client.post("/currency/", {"currency": "JPY", "next": f"/plans/{plan.slug}/"})
    assert answer.headers["Location"] == f"/plans/{plan.slug}/"
    page = text_of(client, f"/plans/{plan.slug}/")
    assert "¥760" in page
    assert "$4.99" not in page


def test_unknown_currency_changes_nothing_and_is_told(client: Client) -> None:
    answer = client.post("/currency/", {"currency": "XXX"}, follow=True)
    assert "We do not sell in this currency." in answer.content.decode()
    assert answer.context["currency"] == "USD"


def test_choosing_a_currency_leads_to_no_other_site(client: Client) -> None:
    answer = client.post("/currency/", {"currency": "EUR", "next": "https://example.org/"})
    assert answer.headers["Location"] == "/"


def test_shop_asks_the_same_number_of_queries_for_one_plan_and_for_ten(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(10):
        plan = make_plan(f"Plan {number}")
        make_fee(plan)
        make_batch(plan)
        if number in (0, 9):
            with django_assert_num_queries(17):
                client.get("/")


def test_page_language_is_declared(client: Client) -> None:
    assert '<html lang="en">' in text_of(client, "/")
    client.cookies[settings.LANGUAGE_COOKIE_NAME] = "zh-hans"
    assert '<html lang="zh-hans">' in text_of(client, "/")


def test_pages_hold_no_inline_style_or_script(client: Client) -> None:
    plan = make_plan()
    make_fee(plan)
    make_batch(plan)
    for address in ("/", f"/plans/{plan.slug}/", "/basket/", "/accounts/login/", "/accounts/signup/"):
        page = client.get(address).content.decode()
        assert " style=" not in page
        assert "<style" not in page
        assert "<script>" not in page


def test_unknown_address_is_answered_by_our_own_page(client: Client) -> None:
    answer = client.get("/no-such-page/")
    assert answer.status_code == 404
    assert "There is nothing at this address" in answer.content.decode()


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_every_fee_schedule_stays_on_its_page_announced_in_force_and_past(client: Client) -> None:
    fee, other = make_fee(make_plan(), minor=499), make_fee(make_plan("V06"), minor=799)
    for days, minor in ((-30, 599), (14, 699)):
        schedule = FeeSchedule.objects.create(
            currency="USD",
            announced_at=NOW - timedelta(days=40),
            effective_at=NOW + timedelta(days=days),
        )
        Fee.objects.create(schedule=schedule, term=fee.term, minor=minor)

    answer = client.get("/fees/")

    def shown(table: FeeTable) -> list[str]:
        return [str(each) for row in table.rows for each in row.fees if each]

    assert shown(answer.context["current"]) == ["5.99 USD", "7.99 USD"]
    assert [shown(table) for table in answer.context["announced"]] == [["6.99 USD", "7.99 USD"]]
    assert [shown(table) for table in answer.context["past"]] == [["4.99 USD", "7.99 USD"]]
    html = answer.content.decode()
    for said in (
        "In force since Oct. 24, 2026",
        "Announced: fees from Dec. 7, 2026",
        "Fees from Jan. 1, 2026",
    ):
        assert said in html
    assert other.term.plan.name in html


@pytest.mark.django_db
def test_a_currency_without_fees_says_so(client: Client) -> None:
    assert "No fees are published in this currency yet." in client.get("/fees/").content.decode()
