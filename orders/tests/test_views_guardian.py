"""The page behind the link in the guardian's mail, and what the buyer sees meanwhile."""

from collections.abc import Iterator
from datetime import datetime, timedelta
from pathlib import Path

import pytest
import time_machine
from django.test import Client

from accounts.models import User
from agreements.models import Acceptance, Role
from agreements.tests.editions import publish_both
from inventory.models import Fee
from notices.links import signed
from orders.checkout import cancel_order, expire_orders
from orders.guardians import Guardian, ask_again
from orders.models import Order, OrderState
from orders.tests.minors import MEI, make_minor, place, say_yes
from orders.tests.shopping import log_in
from tests.builders import NOW, make_fee, make_plan, make_user

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.clause("preamble")]


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def buyer() -> User:
    return make_minor()


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan())


@pytest.fixture
def order(tmp_path: Path, buyer: User, fee: Fee) -> Order:
    """Two phones, ordered by a minor whose guardian is Mei."""
    publish_both(tmp_path)
    return place(buyer, fee)


def link_of(order: Order) -> str:
    """What the newest mail leads to."""
    return signed(f"/guardian/{order.guardian_requests.latest('pk').pk}/")


def read(client: Client, address: str, **data: str) -> str:
    """The page, or with `data` the page that sending them leads to, without its line breaks."""
    answer = client.post(address, data, follow=True) if data else client.get(address)
    return " ".join(answer.content.decode().split())


def everything_ticked(client: Client, link: str) -> dict[str, str]:
    """What the browser of a guardian who confirms everything would send."""
    form = client.get(link).context["form"]
    return {"name": "Mei Lin"} | {control.box.html_name: "on" for control in form.controls()}


def state_of(order: Order) -> str:
    return Order.objects.values_list("state", flat=True).get(pk=order.pk)


# --- who may see it --------------------------------------------------------------------------------------


@pytest.mark.parametrize("query", ["", "?proof=", "?proof=abc", "?proof=%00", "?proof=%FF", "?proof=a:b"])
def test_without_the_proof_there_is_no_such_page(client: Client, order: Order, query: str) -> None:
    path = link_of(order).partition("?")[0]

    assert client.get(path + query).status_code == 404
    assert client.post(path + query, {"refuse": "1"}).status_code == 404
    assert state_of(order) == OrderState.AWAITING_GUARDIAN


def test_the_proof_of_one_link_does_not_open_another(client: Client, order: Order) -> None:
    proof = link_of(order).partition("?")[2]
    other = ask_again(order_id=order.pk, guardian=MEI, language="en", now=NOW)

    assert client.get(f"/guardian/{other.pk}/?{proof}").status_code == 404
    assert client.get(f"/guardian/{other.pk}/").status_code == 404
    assert client.get(signed(f"/guardian/{other.pk + 1}/")).status_code == 404


def test_the_page_is_kept_by_nobody_and_its_address_is_told_to_nobody(client: Client, order: Order) -> None:
    answer = client.get(link_of(order))

    assert '<meta name="robots" content="noindex">' in answer.content.decode()
    assert "no-store" in answer.headers["Cache-Control"]
    assert answer.headers["Referrer-Policy"] == "same-origin"


# --- what it says ------------------------------------------------------------------------------------------


def test_the_page_shows_who_ordered_what_and_both_agreements_and_has_nothing_ticked(
    client: Client, order: Order
) -> None:
    page = read(client, link_of(order))

    assert "Lin (buyer@example.com) is under 18" in page
    assert order.reference in page
    assert "2 × V08" in page
    assert "$9.98" in page
    assert "There are no refunds." in page
    assert "Phones in the order of payment." in page
    for title in ("prepayment (en)", "purchase (en)"):
        words = f"I am the buyer&#x27;s legal guardian, I have read the {title}, version 1, and I confirm it."
        assert words in page
    assert " checked" not in page
    assert 'value="Mei"' in page


def test_opening_the_page_answers_nothing(client: Client, order: Order) -> None:
    for _ in range(3):
        assert client.get(link_of(order)).status_code == 200

    assert state_of(order) == OrderState.AWAITING_GUARDIAN
    assert order.guardian_requests.get().answer is None


@pytest.mark.parametrize(
    ("zone", "until"),
    [
        ("", "Nov. 26, 2026, noon (HKT)"),
        ("Nowhere/Land", "Nov. 26, 2026, noon (HKT)"),
        ("Europe/Berlin", "Nov. 26, 2026, 5 a.m. (CET)"),
    ],
)
def test_times_are_the_readers_and_of_one_who_has_no_zone_the_contracts(
    client: Client, order: Order, zone: str, until: str
) -> None:
    client.cookies["time_zone"] = zone

    assert f"The order waits for you until {until}." in read(client, link_of(order))


def test_the_page_speaks_the_language_in_which_the_guardian_was_asked(client: Client, order: Order) -> None:
    ask_again(order_id=order.pk, guardian=MEI, language="zh-hans", now=NOW)

    answer = client.get(link_of(order), headers={"accept-language": "en"})

    assert '<html lang="zh-hans">' in answer.content.decode()
    assert answer.headers["Content-Language"] == "zh-hans"


def test_a_guardian_who_switches_the_language_comes_back_to_the_page_in_it(
    client: Client, order: Order
) -> None:
    ask_again(order_id=order.pk, guardian=MEI, language="zh-hans", now=NOW)
    link = link_of(order)
    assert f'name="next" value="{link}"' in read(client, link)

    page = read(client, "/account/language/", language="en", next=link)

    assert '<html lang="en">' in page
    assert "Confirm as a guardian" in page


# --- answering ----------------------------------------------------------------------------------------------


def test_the_guardian_confirms_on_the_page_once(client: Client, order: Order) -> None:
    link = link_of(order)
    data = everything_ticked(client, link)

    answer = client.post(link, data)
    assert (answer.status_code, answer.headers["Location"]) == (302, link)
    assert state_of(order) == OrderState.UNPAID

    said = f"You confirmed order {order.reference} on Nov. 23, 2026, noon (HKT)."
    assert said in read(client, link)
    assert said in read(client, link, **data)
    assert said in read(client, link, refuse="1")
    assert state_of(order) == OrderState.UNPAID
    rows = Acceptance.objects.filter(role=Role.GUARDIAN)
    assert list(rows.values_list("person_name", "person_email")) == [("Mei Lin", "mei@example.com")] * 2


def test_the_link_still_says_that_it_was_answered_when_the_order_has_gone_on(
    client: Client, order: Order, clock: time_machine.Traveller
) -> None:
    say_yes(order.guardian_requests.get())
    clock.shift(timedelta(days=3))
    expire_orders(now=NOW + timedelta(days=3))

    assert "You confirmed order" in read(client, link_of(order))


def test_an_unticked_box_or_a_missing_name_is_told(client: Client, order: Order) -> None:
    answer = client.post(link_of(order), {"name": " ", "prepayment-agreement-guardian": "on"})

    assert answer.status_code == 422
    page = answer.content.decode()
    assert "Please enter your name." in page
    assert "Please confirm the purchase (en)." in page
    assert "Please confirm the prepayment (en)." not in page
    assert state_of(order) == OrderState.AWAITING_GUARDIAN


def test_the_guardian_refuses_on_the_page(client: Client, order: Order) -> None:
    link = link_of(order)
    data = everything_ticked(client, link)

    said = f"You did not agree to order {order.reference} on Nov. 23, 2026, noon (HKT)."
    assert said in read(client, link, name="", refuse="1")
    assert said in read(client, link)
    assert said in read(client, link, **data)

    assert state_of(order) == OrderState.CANCELLED
    assert not Acceptance.objects.filter(role=Role.GUARDIAN).exists()


def test_the_old_link_leads_to_the_newer_mail(client: Client, order: Order) -> None:
    link = link_of(order)
    data = everything_ticked(client, link)
    ask_again(order_id=order.pk, guardian=MEI, language="en", now=NOW)

    for answer in (client.get(link), client.post(link, data), client.post(link, {"refuse": "1"})):
        assert answer.status_code == 410
        assert "A newer mail was sent for this order." in answer.content.decode()
    assert state_of(order) == OrderState.AWAITING_GUARDIAN


def test_a_link_to_an_order_that_has_ended_says_so(client: Client, order: Order) -> None:
    link = link_of(order)
    data = everything_ticked(client, link)
    cancel_order(order_id=order.pk, now=NOW)

    for answer in (client.get(link), client.post(link, data), client.post(link, {"refuse": "1"})):
        assert answer.status_code == 410
        assert "This order does not wait for your confirmation any more." in answer.content.decode()
    assert state_of(order) == OrderState.CANCELLED


def test_a_link_whose_time_is_over_says_so(
    client: Client, order: Order, clock: time_machine.Traveller
) -> None:
    link = link_of(order)
    data = everything_ticked(client, link)
    clock.move_to(order.pay_until)

    for answer in (client.get(link), client.post(link, data), client.post(link, {"refuse": "1"})):
        assert answer.status_code == 410
        assert "The time to confirm this order is over." in answer.content.decode()
    assert state_of(order) == OrderState.AWAITING_GUARDIAN


# --- the buyer's side --------------------------------------------------------------------------------------


def test_the_buyer_sees_what_the_order_waits_for(client: Client, order: Order, buyer: User) -> None:
    log_in(client, buyer)

    page = read(client, order.get_absolute_url())
    assert "<strong>Waiting for your guardian.</strong> We wrote to mei@example.com." in page
    assert "Your units are held until 4 a.m. on Nov. 26, 2026 (your time)" in page
    assert 'value="mei@example.com"' in page
    assert f'action="/orders/{order.reference}/cancel/"' in page
    assert "/pay/" not in page

    page = read(client, "/orders/")
    assert "Waiting for your guardian" in page
    said = "We wrote to mei@example.com. Your guardian can confirm until 4 a.m. on Nov. 26, 2026 (your time)."
    assert said in page


@pytest.mark.parametrize("data", [{}, {"method": "sandbox"}])
def test_the_pay_page_leads_back_to_an_order_that_waits(
    client: Client, order: Order, buyer: User, data: dict[str, str]
) -> None:
    log_in(client, buyer)
    address = f"/orders/{order.reference}/pay/"

    answer = client.post(address, data) if data else client.get(address)

    assert answer.headers["Location"] == order.get_absolute_url()
    assert not order.attempts.exists()


def test_the_buyer_has_the_mail_sent_again_to_another_address(
    client: Client, order: Order, buyer: User
) -> None:
    log_in(client, buyer)

    page = read(client, f"/orders/{order.reference}/guardian/", name="Wai", email="wai@example.com")

    assert "A new mail is on its way to wai@example.com." in page
    assert "We wrote to wai@example.com." in page
    assert order.guardian_requests.count() == 2


def test_the_sixth_mail_is_refused_with_the_reason(client: Client, order: Order, buyer: User) -> None:
    log_in(client, buyer)
    address = f"/orders/{order.reference}/guardian/"
    for _ in range(4):
        assert "A new mail is on its way" in read(client, address, name="Mei", email="mei@example.com")

    page = read(client, address, name="Mei", email="mei@example.com")

    assert "The guardian of this order has been asked 5 times. Please write to us." in page
    assert order.guardian_requests.count() == 5


@pytest.mark.parametrize("email", ["", "nobody", "buyer@example.com", "BUYER@example.com"])
def test_an_address_that_cannot_be_the_guardians_is_refused(
    client: Client, order: Order, buyer: User, email: str
) -> None:
    log_in(client, buyer)

    page = read(client, f"/orders/{order.reference}/guardian/", name="Wai", email=email)

    assert "Please enter" in page
    assert order.guardian_requests.count() == 1


def test_somebody_elses_order_is_none(client: Client, order: Order) -> None:
    address = f"/orders/{order.reference}/guardian/"
    data = {"name": "Wai", "email": "wai@example.com"}
    assert client.post(address, data).headers["Location"].startswith("/accounts/login/")
    log_in(client, make_user())

    assert client.post(address, data).status_code == 404
    assert client.get(address).status_code == 405
    assert order.guardian_requests.count() == 1


def test_the_buyer_cancels_an_order_that_waits(client: Client, order: Order, buyer: User) -> None:
    log_in(client, buyer)

    page = read(client, f"/orders/{order.reference}/cancel/", yes="1")

    assert "This order was cancelled before it was paid." in page
    assert "Your guardian has no mail from us?" not in page
    assert state_of(order) == OrderState.CANCELLED


def test_the_open_order_page_is_loaded_anew_when_the_guardian_has_confirmed(
    client: Client, order: Order, buyer: User
) -> None:
    log_in(client, buyer)
    assert f'hx-get="/orders/{order.reference}/live/?state=guardian' in read(client, order.get_absolute_url())
    live = f"/orders/{order.reference}/live/"
    assert "HX-Refresh" not in client.get(live, {"state": "guardian"}).headers

    say_yes(order.guardian_requests.get(), now=NOW)

    assert client.get(live, {"state": "guardian"}).headers["HX-Refresh"] == "true"
    page = read(client, order.get_absolute_url())
    assert f"/orders/{order.reference}/pay/" in page
    assert "Guardian has confirmed" in page
    assert client.get(f"/orders/{order.reference}/pay/").status_code == 200


def test_a_refused_order_says_that_it_was_the_guardian(client: Client, order: Order, buyer: User) -> None:
    client.post(link_of(order), {"refuse": "1"})
    log_in(client, buyer)

    page = read(client, order.get_absolute_url())

    assert "Your guardian did not agree to this order. It is cancelled, and nothing was charged." in page


@pytest.mark.parametrize(
    ("after", "said"),
    [
        (timedelta(0), "<strong>Your guardian has not confirmed in time.</strong>"),
        (
            timedelta(minutes=15),
            "Your guardian has not confirmed this order in time, and its units went back",
        ),
    ],
)
def test_an_order_whose_guardian_did_not_come_says_so(
    client: Client,
    order: Order,
    buyer: User,
    clock: time_machine.Traveller,
    after: timedelta,
    said: str,
) -> None:
    over: datetime = order.pay_until + after
    clock.move_to(over)
    expire_orders(now=over)
    log_in(client, buyer)

    page = read(client, order.get_absolute_url())

    assert said in page
    assert "Your guardian has no mail from us?" not in page
    assert "We wrote to" not in read(client, "/orders/")


def test_another_guardian_sees_his_own_name(client: Client, order: Order) -> None:
    ask_again(order_id=order.pk, guardian=Guardian("Wai", "wai@example.com"), language="en", now=NOW)

    assert 'value="Wai"' in read(client, link_of(order))
