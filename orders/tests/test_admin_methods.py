"""The desk's page of payment methods: what is on offer in which currency, or why it is not."""

from datetime import timedelta

import pytest
from django.contrib.auth.models import Permission
from django.test import Client
from django.urls import reverse
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import User
from orders.gateways.emulators.running import RunningSandbox
from orders.gateways.emulators.running_alipay import RunningAlipay
from orders.gateways.emulators.running_stripe import RunningStripe
from orders.methods import overview
from orders.models import ReviewItem, ReviewKind
from orders.reviews import open_review_item, resolve_review_item
from tests.builders import NOW, make_user

pytestmark = pytest.mark.django_db

PAGE = "/admin/orders/paymentattempt/methods/"


@pytest.fixture
def staff() -> User:
    return make_user("root@example.com", is_staff=True)


@pytest.fixture
def desk(client: Client, staff: User) -> Client:
    client.force_login(staff)
    return client


def on_offer() -> dict[str, list[str]]:
    """By the method's name, the currencies in which it is on offer."""
    return {
        str(row.label): [cell.currency for cell in row.cells if cell.is_on_offer] for row in overview().rows
    }


def test_page_says_by_currency_which_gateway_a_method_goes_through(
    desk: Client, stripe: RunningStripe, alipay: RunningAlipay, settings: Settings
) -> None:
    settings.PAYMENT_METHODS = ["alipay=stripe", "alipay:CNY=alipay"]
    (row, *others) = overview().rows
    assert [(cell.currency, str(cell.gateway.label)) for cell in row.cells if cell.gateway] == [
        ("USD", "Stripe"),
        ("HKD", "Stripe"),
        ("CNY", "Alipay"),
        ("EUR", "Stripe"),
        ("JPY", "Stripe"),
    ]
    assert [str(each.label) for each in others if each.is_on_offer] == []
    assert on_offer()["Alipay"] == ["USD", "HKD", "CNY", "EUR", "JPY"]
    assert reverse("admin:orders_paymentattempt_methods") == PAGE
    assert desk.get(PAGE).status_code == 200


def test_gateway_that_does_not_take_the_currency_is_said_to_be_why(desk: Client, settings: Settings) -> None:
    settings.PAYMENT_METHODS = ["paypal=paypal"]
    settings.PAYPAL_CLIENT_ID, settings.PAYPAL_CLIENT_SECRET = "id-of-the-shop", "secret-of-the-shop"
    settings.PAYPAL_WEBHOOK_ID = "5A12"
    assert on_offer()["PayPal"] == ["USD", "HKD", "EUR", "JPY"]
    page = desk.get(PAGE).text
    assert "takes no CNY" in page
    assert "Nothing is on offer in CNY: orders in it cannot be paid." in page


def test_missing_settings_are_named_and_no_value_is_shown(desk: Client, settings: Settings) -> None:
    settings.PAYMENT_METHODS = ["card=stripe"]
    settings.STRIPE_SECRET_KEY = "sk_live_neverToBeShown1234"
    page = desk.get(PAGE).text
    assert "STRIPE_WEBHOOK_SECRET" in page
    assert "ALIPAY_APP_ID, ALIPAY_SELLER_ID, ALIPAY_PRIVATE_KEY, ALIPAY_PUBLIC_KEY" in page
    assert "neverToBeShown" not in page
    assert on_offer()["Credit or debit card"] == []


@pytest.mark.payment_case(48)
def test_refused_credentials_are_told_until_somebody_has_resolved_it(
    desk: Client, staff: User, sandbox: RunningSandbox, settings: Settings
) -> None:
    settings.PAYMENT_METHODS = ["sandbox=sandbox"]
    assert (overview().on_offer, overview().is_urgent) == (1, False)
    for day in (0, 1):
        open_review_item(
            kind=ReviewKind.GATEWAY_REFUSES_US,
            key=f"sandbox:{NOW + timedelta(days=day):%Y-%m-%d}",
            order=None,
            detail="It does not know us.",
            now=NOW + timedelta(days=day),
        )
    newest = ReviewItem.objects.get(opened_at=NOW + timedelta(days=1))
    page = desk.get(PAGE).text
    assert page.count("refuses our credentials") == 6  # the five currencies, and the gateway
    assert f'href="/admin/orders/reviewitem/{newest.pk}/change/"' in page
    assert (overview().on_offer, overview().is_urgent) == (1, True)

    resolve_review_item(
        item_id=newest.pk, resolution="The key is right again.", resolved_by_id=staff.pk, now=NOW
    )
    assert overview().is_urgent
    (older,) = ReviewItem.objects.filter(resolved_at=None)
    resolve_review_item(item_id=older.pk, resolution="The same.", resolved_by_id=staff.pk, now=NOW)
    assert not overview().is_urgent


def test_rules_that_cannot_be_followed_are_told_on_the_page_and_break_no_other(
    desk: Client, settings: Settings
) -> None:
    settings.PAYMENT_METHODS = ["card=strip"]
    page = desk.get(PAGE).text
    assert "PAYMENT_METHODS says “card=strip”. There is no gateway strip" in page
    assert "Nothing is on offer in" not in page
    tiles = {tile.title: (tile.number, tile.is_urgent) for tile in desk.get("/admin/").context["tiles"]}
    assert tiles["Payment methods on offer"] == (0, True)


def test_page_costs_the_same_however_often_gateways_have_refused_us(
    desk: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for day in range(20):
        with django_assert_num_queries(3):  # session, user, refusals
            assert desk.get(PAGE).status_code == 200
        open_review_item(
            kind=ReviewKind.GATEWAY_REFUSES_US,
            key=f"{('stripe', 'paypal')[day % 2]}:{day}",
            order=None,
            detail="It does not know us.",
            now=NOW,
        )


def test_sidebar_and_first_page_lead_there_for_who_may_see_payments(client: Client) -> None:
    clerk = make_user("clerk@example.com")
    User.objects.filter(pk=clerk.pk).update(is_staff=True)
    client.force_login(clerk)
    assert client.get(PAGE).status_code == 403
    assert f'href="{PAGE}"' not in client.get("/admin/").text

    clerk.user_permissions.add(Permission.objects.get(codename="view_paymentattempt"))
    first_page = client.get("/admin/")
    assert [(tile.title, tile.link) for tile in first_page.context["tiles"]] == [
        ("Payment methods on offer", PAGE)
    ]
    (start, money) = client.get(PAGE).context["sidebar_navigation"]
    assert [(item["title"], item["active"]) for item in (*start["items"], *money["items"])] == [
        ("Overview", False),
        ("Payment methods", True),
        ("Payment attempts", False),
    ]
