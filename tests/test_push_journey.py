"""A notification in a real browser: our worker shows it, and a click on the page's button asks for permission.

No push service of a browser's maker can be reached from a test. The browser is handed the message where it would
come out of one, already decrypted; `notices/tests/test_push.py` has the way until there.
"""

import json

import pytest
from playwright.sync_api import Page, expect

from tests.conftest import NewPerson
from tests.people import sign_up
from tests.stack import Stack

pytestmark = [pytest.mark.browser, pytest.mark.clause("VIII")]

MESSAGE = {
    "title": "Payment received for order VP-7K2M",
    "body": "多谢。",
    "url": "/orders/VP-7K2M/",
    "tag": "thread-1",
    "lang": "zh-hans",
}
SHOWN = """async () => {
  const registration = await navigator.serviceWorker.ready;
  const all = await registration.getNotifications();
  return all.map(({title, body, tag, lang, data}) => ({title, body, tag, lang, url: data.url}));
}"""


def test_the_worker_shows_what_is_pushed_and_a_newer_one_takes_its_place(
    new_person: NewPerson, stack: Stack
) -> None:
    page = new_person()
    page.context.grant_permissions(["notifications"])
    page.goto("/")
    browser = page.context.new_cdp_session(page)
    registrations: list[str] = []
    browser.on(
        "ServiceWorker.workerRegistrationUpdated",
        lambda event: registrations.extend(each["registrationId"] for each in event["registrations"]),
    )
    browser.send("ServiceWorker.enable")
    page.evaluate(
        "navigator.serviceWorker.register('/push-worker.js').then(() => navigator.serviceWorker.ready)"
    )

    while not registrations:
        page.wait_for_timeout(20)

    for message in (MESSAGE, {**MESSAGE, "body": "已收到。"}, {**MESSAGE, "tag": "thread-2", "url": ""}):
        browser.send(
            "ServiceWorker.deliverPushMessage",
            {"origin": stack.url, "registrationId": registrations[0], "data": json.dumps(message)},
        )
    # Each is shown by its own run of the handler.
    page.wait_for_function(
        f"async () => (await ({SHOWN})()).map(({{body}}) => body).sort().join() === '多谢。,已收到。'.split(',').sort().join()"
    )
    shown = sorted(page.evaluate(SHOWN), key=lambda notification: str(notification["tag"]))
    assert shown == [
        {**MESSAGE, "body": "已收到。"},
        {**MESSAGE, "tag": "thread-2", "url": "/messages/"},
    ]


def test_the_page_says_what_this_browser_can_do_and_asks_only_when_it_is_told_to(
    new_person: NewPerson, stack: Stack
) -> None:
    page = new_person()
    page.goto("/accounts/signup/")
    sign_up(page, "push@example.com")
    page.goto("/messages/contacts/")
    button = page.get_by_role("button", name="Notify me in this browser")
    expect(button).to_be_visible()
    assert page.evaluate("Notification.permission") == "default"
    assert workers(page) == 0

    # No push service answers here: the page says so, and nobody is told that it works.
    page.context.grant_permissions(["notifications"])
    button.click()
    expect(page.get_by_text("That did not work")).to_be_visible()
    assert workers(page) == 1
    page.reload()
    expect(button).to_be_visible()


def workers(page: Page) -> int:
    found: int = page.evaluate("navigator.serviceWorker.getRegistrations().then((all) => all.length)")
    return found
