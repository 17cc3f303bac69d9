"""Being told, in a browser: staff announce, everybody sees it; a customer chooses what he hears, and reads his messages."""

import re

import pytest
from playwright.sync_api import expect

from tests.conftest import NewPerson
from tests.people import SOON, log_in_as_staff, sign_up
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.clause("VIII")]


def test_staff_announce_and_write_and_a_customer_reads_chooses_and_is_left_alone(
    new_person: NewPerson, stack: Stack
) -> None:
    dora = new_person()
    dora.goto("/accounts/signup/")
    sign_up(dora, "dora@example.com")

    staff = new_person()
    log_in_as_staff(staff, stack)
    staff.goto("/admin/notices/announcement/add/")
    staff.get_by_label("Kind").select_option("force-majeure")
    for language, title in (
        ("English", "A typhoon"),
        ("Simplified Chinese", "台风"),
        ("Traditional Chinese", "颱風"),
    ):
        staff.get_by_label(f"Title: {language}").fill(title)
        staff.get_by_label(f"Text: {language}").fill(f"{title}.\n\nBack on Monday.")
    staff.get_by_role("button", name="Preview").click()
    expect(staff.get_by_text("Back on Monday.").first).to_be_visible()
    staff.get_by_role("button", name="Submit").click()
    expect(staff.get_by_text("It waits for another person's word.")).to_be_visible()

    # It is for everybody, so somebody else has to approve it.
    second = new_person()
    log_in_as_staff(second, stack, email=stack.second_staff_email)
    second.goto(staff.url)
    second.get_by_role("link", name="Approve").click()
    expect(second.get_by_text("Back on Monday.").first).to_be_visible()
    second.get_by_role("button", name="Publish").click()
    expect(second.get_by_text("It is on the site.")).to_be_visible()

    # Everybody sees it, in his language, until he closes it; it stays on its page.
    visitor = new_person()
    visitor.goto("/")
    expect(visitor.get_by_role("link", name="A typhoon")).to_be_visible()
    visitor.get_by_role("button", name="Close the announcement").click()
    expect(visitor.get_by_role("link", name="A typhoon")).to_have_count(0)
    visitor.goto("/messages/announcements/")
    visitor.get_by_role("link", name="A typhoon").click()
    expect(visitor.get_by_role("heading", name="A typhoon")).to_be_visible()
    expect(visitor.get_by_text("Back on Monday.")).to_be_visible()

    # A message to customers reaches her inbox; the number in the header of her open page says so.
    dora.goto("/messages/")
    expect(dora.get_by_role("heading", name="No messages yet")).to_be_visible()
    staff.goto("/admin/notices/broadcast/add/")
    staff.get_by_label("Kind").select_option("news")
    for language in ("English", "Simplified Chinese", "Traditional Chinese"):
        staff.get_by_label(f"Title: {language}").fill("New phones in spring")
        staff.get_by_label(f"Text: {language}").fill("They are faster.")
    staff.get_by_role("button", name="Preview").click()
    expect(staff.get_by_text(re.compile(r"It goes to \d+ customers?\."))).to_be_visible()
    staff.get_by_role("button", name="Send").click()
    expect(staff.get_by_text("It is on its way.")).to_be_visible()
    unread = dora.get_by_role("banner").get_by_role("link", name="1 unread")
    expect(unread).to_be_visible(timeout=SOON)
    expect(dora.get_by_role("heading", name="No messages yet")).to_be_visible()  # it is still the same page
    unread.click()
    expect(dora.get_by_role("heading", name="New phones in spring")).to_be_visible()

    # What is owed cannot be switched off, the rest can.
    dora.goto("/messages/preferences/")
    news = dora.get_by_role("group", name="News and offers")
    expect(dora.get_by_role("group", name="Payment received").get_by_label("Email")).to_be_disabled()
    news.get_by_label("Email").uncheck()
    dora.get_by_label("From").fill("22:00")
    dora.get_by_label("Until").fill("07:00")
    dora.get_by_role("button", name="Save").click()
    expect(dora.get_by_text("Your choice is saved.")).to_be_visible()
    expect(news.get_by_label("Email")).not_to_be_checked()
    expect(dora.get_by_label("From")).to_have_value("22:00")

    # All of it is on record for her.
    dora.goto("/messages/log/")
    expect(dora.get_by_text("deemed delivered on").first).to_be_visible()
    with dora.expect_download() as download:
        dora.get_by_role("link", name="CSV").click()
    assert "New phones in spring" in download.value.path().read_text(encoding="utf-8-sig")
