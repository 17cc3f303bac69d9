"""What people do in a browser, for the tests that drive one."""

import re

from playwright.sync_api import Page

from tests.stack import Stack

PASSWORD = "correct horse battery"
SOON = 30_000  # milliseconds within which worker and beat must have done their part


def sign_up(page: Page, email: str) -> None:
    """Create an account and open the link of the mail, which the demo mailbox shows."""
    page.get_by_label("Email").fill(email)
    page.get_by_label("Password", exact=False).first.fill(PASSWORD)
    page.get_by_role("button", name="Create an account").click()
    mailbox = page.context.new_page()
    mailbox.goto("/demo/mail/")
    mailbox.get_by_role("article").filter(has_text=email).get_by_role("link").first.click()
    with mailbox.expect_navigation():
        mailbox.locator("a[href*='confirm-email']").first.click()
    mailbox.get_by_role("button", name=re.compile("confirm", re.IGNORECASE)).click()
    # Left open: closing a page while it navigates can hang in Playwright.
    mailbox.wait_for_load_state()


def put_into_basket(page: Page, plan_slug: str, *, days: int, quantity: str) -> None:
    page.goto(f"/plans/{plan_slug}/")
    page.get_by_role("radio", name=re.compile(rf"^{days} days")).check()
    page.get_by_label("Quantity").fill(quantity)
    page.get_by_role("button", name="Add to basket").click()


def accept_everything(page: Page, *, age: str = "I am 18 or older") -> None:
    """Tick what every buyer must, for somebody who lives in Hong Kong."""
    page.get_by_label("Country or region where you live").select_option("HK")
    for statement in (
        "accept the VMOS Cloud Pre-payment",
        "accept the VMOS Cloud Purchase",
        "there are no refunds",
    ):
        page.get_by_label(statement).check()
    page.get_by_label(age).check()


def pay(page: Page, *, outcome: str = "Approve") -> None:
    page.get_by_label("Sandbox payment").check()
    page.get_by_role("button", name=re.compile(r"^Pay ")).click()
    page.get_by_role("button", name=outcome, exact=True).click()


def log_in_as_staff(page: Page, stack: Stack, *, email: str = "") -> None:
    page.goto("/admin/")
    page.get_by_label("Email").fill(email or stack.staff_email)
    page.get_by_label("Password").fill(stack.staff_password)
    page.get_by_role("button", name="Log in").click()
    page.wait_for_url("**/admin/")
