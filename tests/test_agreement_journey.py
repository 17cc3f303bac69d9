"""The agreements in a browser: revised while somebody checks out, compared, asked about, accepted anew; a guardian."""

import re

import pytest
from playwright.sync_api import Locator, Page, expect

from tests.conftest import NewPerson
from tests.people import SOON, accept_everything, log_in_as_staff, pay, put_into_basket, sign_up
from tests.stack import Stack

pytestmark = pytest.mark.browser


def revise(page: Page) -> None:
    """Draft the next version of the pre-payment agreement, look at what it changes, and publish it."""
    page.goto("/admin/agreements/draft/add/")
    page.locator("[name=document]").select_option("prepayment")
    page.get_by_role("button", name="Begin").click()
    page.wait_for_url("**/draft/*/change/")
    for number in range(3):
        body = page.locator(f"[name=texts-{number}-body]")
        body.evaluate("field => { field.value += '\\n\\nWe answer every question within a week.\\n' }")
        summary = page.locator(f"[name=texts-{number}-summary]")
        summary.evaluate("field => { field.value = 'Questions are answered within a week.' }")
    page.get_by_role("button", name="Save and continue editing").click()
    page.get_by_role("link", name="See what changes").click()
    expect(page.locator("ins").first).to_have_text("We answer every question within a week.")
    page.get_by_role("link", name="Go back").click()
    page.get_by_role("link", name=re.compile(r"\bPublish$")).click()
    page.get_by_role("button", name="Publish").click()
    expect(page.get_by_text("Customers are being told")).to_be_visible()


def reload_until_there(page: Page, what: Locator) -> None:
    """For pages that do not follow what workers do."""
    for _ in range(SOON // 500):
        if what.count():
            return
        page.wait_for_timeout(500)
        page.reload()
    expect(what.first).to_be_visible()


@pytest.mark.clause("9.1")
def test_a_revision_is_compared_asked_about_and_accepted_anew(new_person: NewPerson, stack: Stack) -> None:
    counsel, cleo = new_person(), new_person()
    log_in_as_staff(counsel, stack)
    cleo.goto("/accounts/signup/")
    sign_up(cleo, "cleo@example.com")

    # 1. An order under the version that applies.
    put_into_basket(cleo, stack.other_plan_slug, days=30, quantity="1")
    cleo.goto("/checkout/")
    accept_everything(cleo)
    cleo.get_by_role("button", name="Place the order").click()
    expect(cleo).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))

    # 2. The agreement is revised between the page and its button: back, with the words that changed.
    put_into_basket(cleo, stack.other_plan_slug, days=90, quantity="1")
    cleo.goto("/checkout/")
    accept_everything(cleo)
    revise(counsel)
    cleo.get_by_role("button", name="Place the order").click()
    expect(cleo.locator("main")).to_contain_text("The agreements have changed")
    expect(cleo.locator("main ins").last).to_have_text("We answer every question within a week.")
    expect(cleo.get_by_label("accept the VMOS Cloud Pre-payment")).not_to_be_checked()
    expect(cleo.get_by_label("I am 18 or older")).to_be_checked()

    # 3. Told of it: on every page, and by a message that leads to it.
    expect(cleo.get_by_role("complementary", name="Announcements", exact=True)).to_contain_text(
        "version 2 has been published"
    )
    cleo.goto("/messages/")
    message = cleo.locator("main").get_by_text("version 2 has been published")
    reload_until_there(cleo, message)

    # 4. Compared, and asked about.
    cleo.goto("/agreements/prepayment/2/")
    cleo.get_by_role("link", name="See what changed, word by word").click()
    expect(cleo.locator(".difference ins")).to_have_text("We answer every question within a week.")
    cleo.get_by_role("link", name="Version 2 in full").click()
    cleo.get_by_label("Your question, comment or suggestion").fill("On Sundays as well?")
    cleo.get_by_role("button", name="Send").click()
    expect(cleo.locator("#questions")).to_contain_text("Not answered yet.")
    counsel.goto("/admin/agreements/question/")
    counsel.get_by_role("link", name="On Sundays as well?").click()
    counsel.get_by_role("link", name=re.compile(r"\bAnswer$")).click()
    counsel.locator("[name=body]").fill("Yes, on Sundays as well.")
    counsel.locator("[name=is_public]").check()
    counsel.get_by_role("button", name="Answer").click()
    stranger = new_person()
    stranger.goto("/agreements/prepayment/2/")
    expect(stranger.locator("#questions")).to_contain_text("Yes, on Sundays as well.")

    # 5. Accepted anew, and both orders keep what was accepted with them.
    cleo.goto("/checkout/")
    accept_everything(cleo)
    cleo.get_by_role("button", name="Place the order").click()
    expect(cleo).to_have_url(re.compile(r"/orders/VM-\w+/pay/"))
    cleo.goto("/orders/")
    cleo.locator("main h2 a").first.click()
    expect(cleo.locator("main")).to_contain_text("Pre-payment Purchase Agreement, version 2.")
    cleo.goto("/orders/")
    cleo.locator("main h2 a").last.click()
    expect(cleo.locator("main")).to_contain_text("Pre-payment Purchase Agreement, version 1.")
    expect(cleo.locator("main")).to_contain_text("This order keeps the version that was accepted with it.")


@pytest.mark.clause("preamble")
def test_a_minor_pays_after_the_guardian_has_confirmed_by_the_link_in_the_mail(
    new_person: NewPerson, stack: Stack
) -> None:
    dan, guardian = new_person(), new_person()
    dan.goto("/accounts/signup/")
    sign_up(dan, "dan@example.com")
    put_into_basket(dan, stack.other_plan_slug, days=30, quantity="1")
    dan.goto("/checkout/")
    accept_everything(dan, age="I am under 18")
    dan.get_by_label("Guardian's name").fill("Eve Lam")
    dan.get_by_label("Guardian's email address").fill("eve@example.com")
    dan.get_by_role("button", name="Place the order").click()
    expect(dan.locator("main")).to_contain_text("Waiting for your guardian")

    guardian.goto("/demo/mail/")
    mail = guardian.get_by_role("article").filter(has_text="eve@example.com")
    reload_until_there(guardian, mail)
    mail.get_by_role("link").first.click()
    guardian.locator("a[href*='/guardian/']").first.click()
    guardian.wait_for_url("**/guardian/**")
    expect(guardian.locator("main")).to_contain_text("is under 18")
    guardian.get_by_label("I have read the VMOS Cloud Pre-payment").check()
    guardian.get_by_label("I have read the VMOS Cloud Purchase").check()
    guardian.get_by_role("button", name="I confirm").click()
    expect(guardian.locator("main")).to_contain_text("can pay it now")

    # The open page of the order notices, and leads on to paying.
    dan.get_by_role("link", name=re.compile(r"^Pay ")).click(timeout=SOON)
    pay(dan)
    expect(dan.locator("main")).to_contain_text("Payment received")
    expect(dan.locator("main")).to_contain_text("eve@example.com (legal guardian)")
