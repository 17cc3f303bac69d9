"""Paying in a browser by each method, through its provider's emulator."""

import re

import pytest
from playwright.sync_api import expect

from tests.conftest import NewPerson
from tests.people import SOON, accept_everything, put_into_basket, sign_up
from tests.stack import Stack

pytestmark = pytest.mark.browser


@pytest.mark.clause("3.1")
def test_paypal_is_declined_once_and_then_pays(new_person: NewPerson, stack: Stack) -> None:
    fay = new_person()
    fay.goto("/accounts/signup/")
    sign_up(fay, "fay@example.com")
    put_into_basket(fay, stack.other_plan_slug, days=30, quantity="1")
    fay.goto("/checkout/")
    accept_everything(fay)
    fay.get_by_role("button", name="Place the order").click()
    expect(fay).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))

    # Cancelled on PayPal's page: nothing is charged, and the order is still there to be paid.
    fay.get_by_label("PayPal").check()
    fay.get_by_role("button", name=re.compile(r"^Pay ")).click()
    fay.wait_for_url("**/checkoutnow**")
    fay.get_by_role("button", name=re.compile("^Cancel and return")).click()
    expect(fay).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))

    fay.get_by_label("PayPal").check()
    fay.get_by_role("button", name=re.compile(r"^Pay ")).click()
    fay.get_by_role("button", name="Pay now").click()
    expect(fay.locator("main")).to_contain_text("Payment received", timeout=SOON)
    expect(fay.locator("main")).to_contain_text("PayPal")
