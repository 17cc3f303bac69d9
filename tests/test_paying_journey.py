"""Paying in a browser by each method, through its provider's emulator."""

import re
from collections.abc import Iterator

import pytest
from playwright.sync_api import Browser, Page, expect

from tests.conftest import LOCALE, ZONE, watched
from tests.people import SOON, accept_everything, put_into_basket, sign_up
from tests.stack import Stack

pytestmark = pytest.mark.browser

PHONE = "Mozilla/5.0 (iPhone; CPU iPhone OS 18_0 like Mac OS X) AppleWebKit/605.1.15 Mobile/15E148"


@pytest.fixture(scope="module")
def buyer(browser: Browser, stack: Stack) -> Iterator[Page]:
    """One customer for all of these tests, in one browser: what is new in each is how he pays."""
    context = browser.new_context(base_url=stack.url, locale=LOCALE, timezone_id=ZONE)
    page = watched(context.new_page())
    page.goto("/accounts/signup/")
    sign_up(page, "fay@example.com")
    yield page
    context.close()


def order_a_phone(page: Page, stack: Stack, *, currency: str = "USD") -> None:
    """Order one phone; the page then asks how to pay."""
    page.goto(f"/plans/{stack.other_plan_slug}/")
    if page.locator("header .settings summary").nth(1).inner_text() != f"Currency: {currency}":
        page.locator("header .settings summary").nth(1).click()
        page.get_by_role("button", name=currency).click()
    put_into_basket(page, stack.other_plan_slug, days=30, quantity="1")
    page.goto("/checkout/")
    accept_everything(page)
    page.get_by_role("button", name="Place the order").click()
    expect(page).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))


def begin(page: Page, method: str) -> None:
    page.get_by_label(method).check()
    page.get_by_role("button", name=re.compile(r"^Pay ")).click()


def expect_paid(page: Page, method: str) -> None:
    """The page goes on by itself."""
    expect(page.locator("main")).to_contain_text("Payment received", timeout=SOON)
    expect(page.locator("main")).to_contain_text(method)


@pytest.mark.clause("3.1")
def test_paypal_is_left_once_and_then_pays(buyer: Page, stack: Stack) -> None:
    order_a_phone(buyer, stack)

    # Left on PayPal's page: nothing is charged, and the order is still there to be paid.
    begin(buyer, "PayPal")
    buyer.wait_for_url("**/checkoutnow**")
    buyer.get_by_role("button", name=re.compile("^Cancel and return")).click()
    expect(buyer).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))

    begin(buyer, "PayPal")
    buyer.get_by_role("button", name="Pay now").click()
    expect_paid(buyer, "PayPal")


@pytest.mark.clause("3.1")
@pytest.mark.parametrize("method", ["Credit or debit card", "Alipay", "WeChat Pay"])
def test_stripe_pays_by_each_of_its_methods(buyer: Page, stack: Stack, method: str) -> None:
    order_a_phone(buyer, stack)
    begin(buyer, method)
    buyer.wait_for_url("**/stripe/**")
    buyer.get_by_role("button", name="Pay", exact=True).click()
    expect_paid(buyer, method)


@pytest.mark.clause("3.1")
@pytest.mark.parametrize("method", ["Alipay", "WeChat Pay"])
def test_code_on_our_page_is_scanned_and_pays_in_yuan(buyer: Page, stack: Stack, method: str) -> None:
    order_a_phone(buyer, stack, currency="CNY")
    begin(buyer, method)
    shown = buyer.get_by_role("region", name="Scan this code to pay")
    expect(shown.get_by_role("img", name="Code to scan")).to_be_visible()

    # The demo's link leads to the phone that scans it.
    with buyer.expect_popup() as opened:
        shown.get_by_role("link", name="In this demonstration").click()
    phone = opened.value
    reference = buyer.url.split("/")[-3]
    phone.get_by_role("link", name=re.compile(reference.replace("-", "[-_]"))).click()
    phone.get_by_role("button", name="Pay now").click()
    expect(phone.locator("main")).to_contain_text("This payment has been paid.")
    expect_paid(buyer, method)


@pytest.mark.clause("3.1")
@pytest.mark.parametrize("method", ["Alipay", "WeChat Pay"])
def test_phone_is_led_to_the_providers_own_page_and_pays_there(
    buyer: Page, stack: Stack, method: str
) -> None:
    order_a_phone(buyer, stack, currency="CNY")
    buyer.set_extra_http_headers({"User-Agent": PHONE})
    try:
        begin(buyer, method)
        buyer.get_by_role("button", name="Pay now").click()
        expect_paid(buyer, method)
    finally:
        buyer.set_extra_http_headers({})


@pytest.mark.clause("3.1")
@pytest.mark.parametrize("method", ["Bitcoin (BTC)", "Ether (ETH)"])
def test_coins_sent_to_the_address_on_our_page_pay(buyer: Page, stack: Stack, method: str) -> None:
    order_a_phone(buyer, stack)

    # Our page shows where to send how much, and goes on by itself.
    begin(buyer, method)
    shown = buyer.get_by_role("region", name="Send exactly this amount")
    address = shown.locator(".pay-here__address").inner_text()
    with buyer.expect_popup() as opened:
        shown.get_by_role("link", name="In this demonstration").click()
    wallet = opened.value
    wallet.get_by_role("link", name=re.compile(re.escape(buyer.url.split("/")[-3]))).click()
    expect(wallet.locator("main")).to_contain_text(address)
    wallet.get_by_role("button", name=re.compile("and confirm$")).click()
    expect_paid(buyer, method)
