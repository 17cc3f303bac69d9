"""The main job in a browser, with every process running: customers prepay, devices arrive, phones are theirs."""

import re
from datetime import timedelta

import pytest
from django.utils import timezone
from playwright.sync_api import Page, expect

from tests.conftest import NewPerson
from tests.people import SOON, accept_everything, log_in_as_staff, pay, put_into_basket, sign_up
from tests.stack import Stack

pytestmark = pytest.mark.browser


def announce_batch(page: Page, stack: Stack, *, reference: str, quantity: int) -> None:
    page.goto("/admin/inventory/supplybatch/add/")
    page.locator("[name=plan]").select_option(index=1)
    page.locator("[name=reference]").fill(reference)
    page.locator("[name=quantity]").fill(str(quantity))
    page.locator("[name=expected_on]").fill((timezone.now() + timedelta(days=1)).strftime("%Y-%m-%d"))
    page.get_by_role("button", name="Announce").click()
    expect(page.get_by_text(f"Batch {reference} is announced.")).to_be_visible()


def receive(page: Page, *, reference: str, csv: str) -> None:
    page.goto("/admin/inventory/supplybatch/")
    page.get_by_role("link", name=reference).click()
    page.get_by_role("link", name="Receive devices").click()
    page.locator("input[type=file]").set_input_files(
        {"name": f"{reference}.csv", "mimeType": "text/csv", "buffer": csv.encode()}
    )
    page.locator("form button[type=submit]").last.click()


@pytest.mark.clause("1.1", "3.1", "3.3", "5.1", "VIII")
def test_customers_prepay_wait_and_get_their_phones_in_the_order_of_payment(
    new_person: NewPerson, stack: Stack
) -> None:
    clerk, ada, ben = new_person(), new_person(), new_person()
    log_in_as_staff(clerk, stack)

    # 1. A visitor sees a plan on pre-sale, and that nobody knows a date yet.
    ada.goto("/")
    card = ada.locator(".plan").filter(has_text=stack.plan_name)
    expect(card).to_contain_text("Pre-sale")
    expect(card).to_contain_text("Date not known yet")
    announce_batch(clerk, stack, reference="BATCH-1", quantity=2)
    ada.reload()
    expect(card).to_contain_text("If you pay now, likely")

    # 2. Basket, sign-up, checkout. What cannot be is said, and nothing is lost.
    put_into_basket(ada, stack.plan_slug, days=30, quantity="0")
    expect(ada.locator("main")).to_contain_text("from 1 to 10")
    put_into_basket(ada, stack.plan_slug, days=30, quantity="2")
    put_into_basket(ada, stack.plan_slug, days=90, quantity="1")
    ada.goto("/checkout/")
    ada.get_by_role("link", name=re.compile("sign up|create an account", re.IGNORECASE)).first.click()
    sign_up(ada, "ada@example.com")
    ada.goto("/checkout/")
    ada.get_by_role("button", name="Place the order").click()
    expect(ada.get_by_label("there are no refunds")).not_to_be_checked()
    expect(ada.locator("main")).to_contain_text("Please")
    accept_everything(ada)
    ada.get_by_role("button", name="Place the order").click()

    # 3. Declined first; the order can still be paid.
    expect(ada).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))
    expect(ada.locator("main")).to_contain_text("$23.97")
    pay(ada, outcome="Decline")
    expect(ada.locator("main")).to_contain_text("declined")
    pay(ada)

    # 4. Paid: a place, a window, a timeline, and messages.
    expect(ada).to_have_url(re.compile(r"/orders/VM-\w+/$"))
    expect(ada.locator("main")).to_contain_text("Payment received")
    ada_line = ada.locator(".ticket").first
    expect(ada_line).to_contain_text(re.compile(r"\b0\b|next", re.IGNORECASE))

    ben.goto("/accounts/signup/")
    sign_up(ben, "ben@example.com")
    put_into_basket(ben, stack.plan_slug, days=30, quantity="1")
    ben.goto("/checkout/")
    accept_everything(ben)
    ben.get_by_role("button", name="Place the order").click()
    pay(ben)
    expect(ben).to_have_url(re.compile(r"/orders/VM-\w+/$"))
    ben_ahead = ben.locator(".figure__number").first
    expect(ben_ahead).to_have_text("3")

    # 5. Devices arrive. A bad file is refused row by row; a good one is handed out within seconds.
    receive(
        clerk,
        reference="BATCH-1",
        csv=f"code,plan\nAC0001,{stack.plan_slug}\nAC0001,{stack.plan_slug}\n?,other\n",
    )
    expect(clerk.locator("#content-main")).to_contain_text("Nothing was received")
    expect(clerk.get_by_role("cell", name="3", exact=True)).to_be_visible()
    receive(
        clerk, reference="BATCH-1", csv=f"code,plan\nAC0001,{stack.plan_slug}\nAC0002,{stack.plan_slug}\n"
    )
    expect(ben_ahead).to_have_text("1", timeout=SOON)
    ada.goto("/phones/")
    expect(ada.get_by_role("row").filter(has_text="AC000")).to_have_count(2)
    ben.goto("/phones/")
    expect(ben.locator("main")).not_to_contain_text("AC0")

    # 6. The next batch: the rest of the first order before the second one.
    announce_batch(clerk, stack, reference="BATCH-2", quantity=2)
    receive(
        clerk, reference="BATCH-2", csv=f"code,plan\nAC0003,{stack.plan_slug}\nAC0004,{stack.plan_slug}\n"
    )
    for page, codes in ((ada, ["AC0001", "AC0002", "AC0003"]), (ben, ["AC0004"])):
        page.goto("/orders/")
        page.locator("main a[href^='/orders/VM-']").first.click()
        for code in codes:
            expect(page.locator("main")).to_contain_text(code, timeout=SOON)
        page.goto("/phones/")
        rows = page.get_by_role("row").filter(has_text="AC000")
        expect(rows).to_have_count(len(codes))
        for code in codes:
            expect(rows.filter(has_text=code)).to_have_count(1)

    # Both have been told, on the site and by email.
    for page, email in ((ada, "ada@example.com"), (ben, "ben@example.com")):
        page.goto("/messages/")
        expect(page.locator("main")).to_contain_text(
            re.compile("payment received|received your payment", re.IGNORECASE)
        )
        expect(page.locator("main")).to_contain_text(re.compile("allocated|ready", re.IGNORECASE))
        page.goto("/demo/mail/")
        expect(page.get_by_role("article").filter(has_text=email).first).to_be_visible(timeout=SOON)
