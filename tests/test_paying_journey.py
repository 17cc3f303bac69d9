"""Paying in a browser by each method, through its provider's emulator."""

import re

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import NewPerson
from tests.people import SOON, accept_everything, put_into_basket, sign_up
from tests.stack import Stack

pytestmark = pytest.mark.browser


def order_a_phone(page: Page, stack: Stack, *, email: str) -> None:
    """Sign up and order one phone; the page then asks how to pay."""
    page.goto("/accounts/signup/")
    sign_up(page, email)
    put_into_basket(page, stack.other_plan_slug, days=30, quantity="1")
    page.goto("/checkout/")
    accept_everything(page)
    page.get_by_role("button", name="Place the order").click()
    expect(page).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))


def begin(page: Page, method: str) -> None:
    page.get_by_label(method).check()
    page.get_by_role("button", name=re.compile(r"^Pay ")).click()


@pytest.mark.clause("3.1")
def test_paypal_is_left_once_and_then_pays(new_person: NewPerson, stack: Stack) -> None:
    fay = new_person()
    order_a_phone(fay, stack, email="fay@example.com")

    # Left on PayPal's page: nothing is charged, and the order is still there to be paid.
    begin(fay, "PayPal")
    fay.wait_for_url("**/checkoutnow**")
    fay.get_by_role("button", name=re.compile("^Cancel and return")).click()
    expect(fay).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))

    begin(fay, "PayPal")
    fay.get_by_role("button", name="Pay now").click()
    expect(fay.locator("main")).to_contain_text("Payment received", timeout=SOON)
    expect(fay.locator("main")).to_contain_text("PayPal")


@pytest.mark.clause("3.1")
@pytest.mark.parametrize("method", ["Credit or debit card", "Alipay", "WeChat Pay"])
def test_stripe_pays_by_each_of_its_methods(new_person: NewPerson, stack: Stack, method: str) -> None:
    gil = new_person()
    order_a_phone(gil, stack, email=f"{method.split(maxsplit=1)[0].lower()}@example.com")

    begin(gil, method)
    gil.wait_for_url("**/stripe/**")
    gil.get_by_role("button", name="Pay", exact=True).click()

    expect(gil.locator("main")).to_contain_text("Payment received", timeout=SOON)
    expect(gil.locator("main")).to_contain_text(method)


@pytest.mark.clause("3.1")
@pytest.mark.parametrize("method", ["Bitcoin (BTC)", "Ether (ETH)"])
def test_coins_sent_to_the_address_on_our_page_pay(new_person: NewPerson, stack: Stack, method: str) -> None:
    hal = new_person()
    order_a_phone(hal, stack, email=f"{method.split(maxsplit=1)[0].lower()}@example.com")

    # Our page shows where to send how much, and goes on by itself.
    begin(hal, method)
    shown = hal.get_by_role("region", name="Send exactly this amount")
    address = shown.locator(".pay-here__address").inner_text()
    wallet = hal.context.new_page()
    wallet.goto(f"{stack.environment['NOWPAYMENTS_URL']}/")
    wallet.get_by_role("link", name=re.compile(re.escape(hal.url.split("/")[-3]))).click()
    expect(wallet.locator("main")).to_contain_text(address)
    wallet.get_by_role("button", name=re.compile("and confirm$")).click()

    expect(hal.locator("main")).to_contain_text("Payment received", timeout=SOON)
    expect(hal.locator("main")).to_contain_text(method)
