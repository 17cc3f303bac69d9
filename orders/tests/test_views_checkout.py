from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from ipaddress import ip_address
from pathlib import Path

import pytest
import time_machine
from django.test import Client
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import User
from agreements.models import Acceptance, Document, Role, StatutoryRight, Subject
from agreements.publishing import publish_shipped_texts
from agreements.rights import SHIPPED, publish_rights
from agreements.tests.editions import PREPAYMENT_BODY, publish_both, write_edition
from evidence.chain import broken_links
from inventory.models import Fee, FeeSchedule
from orders.models import AttemptState, LineState, Order, OrderState, PaymentAttempt
from orders.tests.shopping import (
    as_minor,
    basket_of,
    log_in,
    open_checkout,
    put_into_basket,
    tick_again,
)
from tests.builders import (
    NOW,
    make_attempt,
    make_batch,
    make_devices,
    make_fee,
    make_line,
    make_order,
    make_plan,
    make_user,
)

pytestmark = pytest.mark.django_db


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture(autouse=True)
def texts(tmp_path: Path) -> Path:
    """The folder of the agreements in force, version 1 of both."""
    publish_both(tmp_path)
    return tmp_path


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan(cap=100, limit=50))


@pytest.fixture
def buyer(client: Client, fee: Fee) -> User:
    """A customer with 3 phones in the basket, 14.97 USD."""
    customer = make_user("buyer@example.com")
    log_in(client, customer)
    put_into_basket(client, fee, 3)
    return customer


def test_checkout_asks_for_a_login_and_comes_back(client: Client, fee: Fee) -> None:
    put_into_basket(client, fee, 1)
    answer = client.get("/checkout/")
    assert answer.headers["Location"] == "/accounts/login/?next=/checkout/"
    assert basket_of(client) == {str(fee.term_id): 1}


@pytest.mark.usefixtures("buyer")
def test_nothing_is_ticked_or_chosen_beforehand(client: Client) -> None:
    assert " checked" not in client.get("/checkout/").content.decode()


@pytest.mark.usefixtures("buyer")
def test_whole_texts_and_what_matters_most_are_on_the_page(client: Client) -> None:
    page = client.get("/checkout/").content.decode()
    assert "<li>There are no refunds.</li>" in page
    assert "Phones in the order of payment." in page
    assert "clause--important" in page


@pytest.mark.clause("3.1", "3.3")
def test_order_is_placed_with_the_fee_that_was_shown_and_leads_to_payment(
    client: Client, buyer: User, fee: Fee
) -> None:
    answer = client.post("/checkout/", open_checkout(client))
    order = Order.objects.get(customer=buyer)
    assert answer.headers["Location"] == f"/orders/{order.reference}/pay/"
    line = order.lines.get()
    assert (order.total_minor, order.currency, order.state) == (1_497, "USD", OrderState.UNPAID)
    assert (line.term_id, line.quantity, line.state) == (fee.term_id, 3, LineState.UNPAID)
    assert basket_of(client) == {}


def test_acceptances_are_on_record_with_the_words_that_were_ticked(client: Client, buyer: User) -> None:
    client.post("/checkout/", open_checkout(client), headers={"user-agent": "Browser/1"})
    acceptances = Acceptance.objects.filter(customer=buyer).order_by("pk")
    assert [(a.text.version.document, a.subject, a.role) for a in acceptances] == [
        (Document.PREPAYMENT, Subject.AGREEMENT, Role.BUYER),
        (Document.PURCHASE, Subject.AGREEMENT, Role.BUYER),
        (Document.PREPAYMENT, Subject.NO_REFUND, Role.BUYER),
    ]
    assert acceptances[0].statement == "I have read and accept the prepayment (en), version 1."
    assert (acceptances[0].person_email, acceptances[0].user_agent) == ("buyer@example.com", "Browser/1")
    assert acceptances[0].ip_address == "127.0.0.1"


@pytest.mark.parametrize(
    ("forwarded", "recorded"),
    [
        ("198.51.100.9, 203.0.113.7", "203.0.113.7"),
        ("2001:db8::1", "2001:db8::1"),
        ("::ffff:192.0.2.1", "::ffff:192.0.2.1"),
        ("fe80::1%eth0", "fe80::1"),
        ("'; --", None),
        ("", None),
    ],
)
def test_behind_the_proxy_the_address_it_saw_is_on_record(
    client: Client, buyer: User, settings: Settings, forwarded: str, recorded: str | None
) -> None:
    settings.SECURE_PROXY_SSL_HEADER = ("HTTP_X_FORWARDED_PROTO", "https")
    client.post("/checkout/", open_checkout(client), headers={"x-forwarded-for": forwarded})
    acceptances = Acceptance.objects.filter(customer=buyer)
    written = {ip_address(found) if (found := each.ip_address) else None for each in acceptances}
    assert written == {ip_address(recorded) if recorded else None}
    # However the database writes an address, the chain holds.
    assert list(broken_links(Acceptance)) == []


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("box", "message"),
    [
        ("prepayment-agreement-buyer", "Please accept the prepayment (en)."),
        ("purchase-agreement-buyer", "Please accept the purchase (en)."),
        ("prepayment-no-refund-buyer", "Please confirm that you understand the rule on refunds."),
        ("age", "Please say whether you are 18 or older."),
    ],
)
@pytest.mark.usefixtures("buyer")
def test_what_is_missing_is_told_with_a_link_and_everything_else_is_kept(
    client: Client, box: str, message: str
) -> None:
    data = open_checkout(client)
    del data[box]
    answer = client.post("/checkout/", data)
    page = answer.content.decode()
    assert f'<a href="#id_{box}">{message}</a>' in page
    form = answer.context["form"]
    kept = {name: form[name].value() for name in data if name != box}
    assert {name: "on" if value is True else value for name, value in kept.items()} == {
        name: value for name, value in data.items() if name != box
    }
    assert not Order.objects.exists()


@pytest.mark.clause("preamble")
@pytest.mark.usefixtures("buyer")
def test_minor_names_a_guardian(client: Client) -> None:
    page = client.post("/checkout/", {**open_checkout(client), "age": "minor"}).content.decode()
    assert "Please enter the name of your legal guardian." in page
    assert "Please enter the email address of your legal guardian." in page
    assert not Order.objects.exists()


@pytest.mark.clause("preamble")
def test_minor_is_led_to_the_order_which_waits_for_the_guardian(client: Client, buyer: User) -> None:
    data = as_minor(open_checkout(client))
    answer = client.post("/checkout/", data)
    order = Order.objects.get(customer=buyer)
    assert answer.headers["Location"] == f"/orders/{order.reference}/"
    assert order.state == OrderState.AWAITING_GUARDIAN
    request = order.guardian_requests.get()
    assert (request.name, request.email) == ("Wai Guardian", "guardian@example.com")
    # The second click leads there as well.
    assert client.post("/checkout/", data).headers["Location"] == f"/orders/{order.reference}/"
    assert Order.objects.filter(customer=buyer).count() == 1


@pytest.mark.clause("preamble")
@pytest.mark.usefixtures("buyer")
def test_minor_is_not_his_own_guardian(client: Client) -> None:
    data = as_minor(open_checkout(client)) | {"guardian_email": "Buyer@example.com"}
    page = client.post("/checkout/", data).content.decode()
    assert "yours cannot confirm your own order" in page
    assert not Order.objects.exists()


def test_adult_needs_no_guardian_even_where_one_was_filled_in(client: Client, buyer: User) -> None:
    client.post("/checkout/", {**as_minor(open_checkout(client)), "age": "adult"})
    order = Order.objects.get(customer=buyer)
    assert (order.state, order.guardian_requests.count()) == (OrderState.UNPAID, 0)


# --- where the buyer lives ---


@pytest.fixture
def european_law(settings: Settings) -> StatutoryRight:
    settings.STATUTORY_RIGHTS = ["eu"]
    (right,) = publish_rights(now=NOW)
    return right


@pytest.mark.usefixtures("buyer")
def test_country_is_asked_for_by_name_and_none_is_chosen_the_first_time(client: Client) -> None:
    page = client.get("/checkout/").content.decode()
    assert '<option value="" selected>Please choose</option>' in page
    assert '<option value="DE">Germany</option>' in page
    for code in ("EU", "UN", "ZZ", "001"):
        assert f'value="{code}"' not in page
    chinese = client.get("/checkout/", headers={"accept-language": "zh-CN"}).content.decode()
    assert '<option value="DE">德国</option>' in chinese


def test_country_of_the_order_before_is_chosen(client: Client, buyer: User, fee: Fee) -> None:
    make_order([(fee, 1)], customer=buyer)
    assert '<option value="HK" selected>' in client.get("/checkout/").content.decode()


@pytest.mark.parametrize(
    ("country", "message"),
    [("", "Please choose the country or region"), ("ZZ", "Please choose a country or region of the list")],
)
@pytest.mark.usefixtures("buyer")
def test_order_needs_a_country(client: Client, country: str, message: str) -> None:
    page = client.post("/checkout/", open_checkout(client) | {"country": country}).content.decode()
    assert message in page
    assert not Order.objects.exists()


@pytest.mark.clause("3.3")
@pytest.mark.usefixtures("buyer", "european_law")
def test_law_of_the_country_shows_when_it_is_chosen(client: Client) -> None:
    german = client.get("/checkout/law/", {"country": "DE"}).content.decode()
    assert "Right of withdrawal for consumers in the European Union" in german
    assert 'type="checkbox" name="prepayment-early-start-buyer"' in german
    assert "checked" not in german
    assert "checkbox" not in client.get("/checkout/law/", {"country": "HK"}).content.decode()


@pytest.mark.clause("3.3")
def test_german_buyer_asks_for_early_service_or_does_not_order(
    client: Client, buyer: User, european_law: StatutoryRight
) -> None:
    # Without JavaScript the box is not on the page that is sent.
    data = open_checkout(client, country="HK") | {"country": "DE"}
    answer = client.post("/checkout/", data)
    page = answer.content.decode()
    assert "The law of your country asks for this request" in page
    assert european_law.waiver["en"] in page
    assert answer.context["form"]["prepayment-agreement-buyer"].value()
    assert not answer.context["form"]["prepayment-early-start-buyer"].value()
    assert not Order.objects.exists()

    client.post("/checkout/", tick_again(answer))
    order = Order.objects.get(customer=buyer)
    assert (order.country, order.right) == ("DE", european_law)
    assert Acceptance.objects.get(subject=Subject.EARLY_START).statement == european_law.waiver["en"]


@pytest.mark.clause("3.3")
def test_request_worded_by_the_law_of_another_country_is_to_be_made_anew(
    client: Client, buyer: User, settings: Settings
) -> None:
    settings.STATUTORY_RIGHTS = ["eu", "uk"]
    european, british = publish_rights(now=NOW)
    # Without JavaScript the European words stay on the page when the country is changed.
    answer = client.post("/checkout/", open_checkout(client, country="DE") | {"country": "GB"})
    page = answer.content.decode()
    assert "The law of your country asks for this request" in page
    assert (european.waiver["en"] in page, british.waiver["en"] in page) == (False, True)
    assert not answer.context["form"]["prepayment-early-start-buyer"].value()
    assert answer.context["form"]["prepayment-agreement-buyer"].value()
    assert not Order.objects.exists()

    client.post("/checkout/", tick_again(answer))
    assert Order.objects.get(customer=buyer).right == british
    assert Acceptance.objects.get(subject=Subject.EARLY_START).statement == british.waiver["en"]


@pytest.mark.clause("3.3")
def test_request_worded_by_an_earlier_edition_of_the_law_is_to_be_made_anew(
    client: Client, buyer: User, european_law: StatutoryRight, tmp_path: Path
) -> None:
    data = open_checkout(client, country="DE")
    law = (SHIPPED / "eu.toml").read_text(encoding="utf-8")
    (tmp_path / "eu.toml").write_text(law.replace("I ask that", "I expressly ask that"), encoding="utf-8")
    (changed,) = publish_rights(now=NOW, folder=tmp_path)

    answer = client.post("/checkout/", data)
    assert changed.waiver["en"] in answer.content.decode()
    assert not Order.objects.exists()
    client.post("/checkout/", tick_again(answer))
    assert Order.objects.get(customer=buyer).right == changed
    assert Acceptance.objects.get(subject=Subject.EARLY_START).statement == changed.waiver["en"]


@pytest.mark.usefixtures("buyer", "european_law")
def test_buyer_whose_country_is_changed_to_one_without_a_law_is_asked_for_nothing(client: Client) -> None:
    client.post("/checkout/", open_checkout(client, country="DE") | {"country": "HK"})
    order = Order.objects.get()
    assert (order.country, order.right) == ("HK", None)
    assert not Acceptance.objects.filter(subject=Subject.EARLY_START).exists()


def test_choosing_a_country_after_the_login_has_ended_leads_to_the_login(client: Client) -> None:
    answer = client.get("/checkout/law/", {"country": "DE"})
    assert (answer.headers["HX-Refresh"], answer.content) == ("true", b"")


def test_record_says_which_button_was_pressed(client: Client, buyer: User) -> None:
    page = client.get("/checkout/").content.decode()
    client.post("/checkout/", open_checkout(client))
    control = Acceptance.objects.earliest("chain_number").control
    assert control == "checkbox prepayment-agreement-buyer, button 'Place the order'"
    assert ">Place the order</button>" in page


def test_second_click_leads_to_the_same_order(client: Client, buyer: User) -> None:
    data = open_checkout(client)
    first = client.post("/checkout/", data)
    second = client.post("/checkout/", data)
    assert first.headers["Location"] == second.headers["Location"]
    assert Order.objects.filter(customer=buyer).count() == 1


def test_old_page_sent_again_does_not_touch_a_new_basket(client: Client, buyer: User, fee: Fee) -> None:
    data = open_checkout(client)
    client.post("/checkout/", data)
    put_into_basket(client, fee, 2)
    client.post("/checkout/", data)
    assert Order.objects.filter(customer=buyer).count() == 1
    assert basket_of(client) == {str(fee.term_id): 2}


def test_key_of_somebody_elses_checkout_gives_no_way_to_his_order(
    client: Client, buyer: User, fee: Fee
) -> None:
    theirs = make_order([(fee, 1)], placed_at=NOW)
    answer = client.post("/checkout/", {**open_checkout(client), "checkout_key": "not-a-key"})
    assert "The page was not sent completely" in answer.content.decode()
    answer = client.get(f"/orders/{theirs.reference}/pay/")
    assert answer.status_code == 404


@pytest.mark.clause("3.2")
def test_changed_fee_is_told_and_nothing_is_ticked_on_the_new_page(
    client: Client, buyer: User, fee: Fee, clock: time_machine.Traveller
) -> None:
    data = open_checkout(client)
    schedule = FeeSchedule.objects.create(
        currency="USD", announced_at=NOW, effective_at=NOW + timedelta(minutes=5)
    )
    Fee.objects.create(schedule=schedule, term=fee.term, minor=600)
    clock.move_to(NOW + timedelta(minutes=6))

    answer = client.post("/checkout/", data)
    page = answer.content.decode()
    assert "The total is now $18.00." in page
    assert answer.context["form"]["seen_total"].value() == "18.00 USD"
    boxes = [control.box.value() for control in answer.context["form"].agreement_controls()]
    assert boxes == [None, None, None]
    assert not Order.objects.exists()
    client.post("/checkout/", open_checkout(client))
    assert Order.objects.get(customer=buyer).total_minor == 1_800


@pytest.mark.clause("9.1")
@pytest.mark.usefixtures("buyer")
def test_superseded_text_is_shown_anew_and_to_be_accepted_again(client: Client, texts: Path) -> None:
    data = open_checkout(client)
    body = PREPAYMENT_BODY.replace("No refunds.", "No refunds at all.")
    write_edition(texts, number=2, on=date(2026, 11, 23), bodies={"en": body})
    publish_shipped_texts(now=NOW, folder=texts)

    answer = client.post("/checkout/", data)
    page = answer.content.decode()
    assert "The agreements have changed" in page
    assert "prepayment (en): what changed from version 1 to version 2" in page
    assert "<p>No refunds<ins> at all</ins>.</p>" in page
    # Only of the document that changed.
    assert page.count("difference__clause") == 1
    assert answer.context["form"]["prepayment-agreement-buyer"].value() is None
    assert not Order.objects.exists()


@pytest.mark.clause("9.1")
@pytest.mark.usefixtures("buyer")
def test_superseded_text_is_not_compared_with_one_in_another_language(client: Client, texts: Path) -> None:
    data = open_checkout(client)
    bodies = {"zh-hans": PREPAYMENT_BODY}
    write_edition(texts, number=2, on=date(2026, 11, 23), bodies=bodies, authoritative="zh-hans")
    publish_shipped_texts(now=NOW, folder=texts)

    answer = client.post("/checkout/", data)
    assert "or are now shown in another language" in answer.content.decode()
    assert answer.context["differences"] == []
    assert not Order.objects.exists()


@pytest.mark.usefixtures("buyer")
def test_cap_reached_meanwhile_is_told_with_what_is_left(client: Client, fee: Fee) -> None:
    data = open_checkout(client)
    make_line(fee, quantity=98, paid_at=NOW)
    answer = client.post("/checkout/", data, follow=True)
    assert "Only 2 phones of" in answer.content.decode()
    assert not Order.objects.filter(customer__email="buyer@example.com").exists()
    assert basket_of(client) == {str(fee.term_id): 3}


@pytest.mark.parametrize("forged", ["0.01 USD", "14.97 EUR", "abc", "", "1497", "14.97"])
@pytest.mark.usefixtures("buyer")
def test_forged_total_buys_nothing(client: Client, forged: str) -> None:
    answer = client.post("/checkout/", {**open_checkout(client), "seen_total": forged})
    assert "The total is now $14.97." in answer.content.decode()
    assert not Order.objects.exists()


@pytest.mark.parametrize("forged", ["0", "-1", "abc", "", "9" * 40, "１"])
@pytest.mark.usefixtures("buyer")
def test_forged_text_is_not_accepted(client: Client, forged: str) -> None:
    answer = client.post("/checkout/", {**open_checkout(client), "text-purchase-agreement-buyer": forged})
    assert "The agreements have changed" in answer.content.decode()
    assert not Order.objects.exists()


@pytest.mark.usefixtures("buyer")
def test_checkout_without_a_basket_leads_to_the_basket(client: Client) -> None:
    client.session.flush()
    log_in(client, make_user())
    answer = client.get("/checkout/", follow=True)
    assert answer.redirect_chain[-1][0] == "/basket/"
    assert "Your basket is empty" in answer.content.decode()


@pytest.mark.usefixtures("buyer")
def test_checkout_asks_the_same_number_of_queries_whatever_is_in_the_basket(
    client: Client, fee: Fee, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(24):
        client.get("/checkout/")
    put_into_basket(client, make_fee(fee.term.plan, days=90, minor=1_399), 2)
    with django_assert_num_queries(24):
        client.get("/checkout/")


# --- paying ------------------------------------------------------------------------------------------


@pytest.fixture
def order(buyer: User, fee: Fee) -> Order:
    """An unpaid order of 4.99 USD."""
    return make_order([(fee, 1)], customer=buyer, placed_at=NOW)


def test_pay_page_says_what_is_due_until_when_and_what_comes_next(client: Client, order: Order) -> None:
    client.cookies["time_zone"] = "Asia/Tokyo"
    page = client.get(f"/orders/{order.reference}/pay/").content.decode()
    assert "Pay $4.99" in page
    assert "<strong>1:30 p.m.</strong> (your time)" in page
    assert "What happens next" in page


@pytest.mark.clause("3.3")
def test_before_the_button_both_pages_say_what_paying_now_would_mean(
    client: Client, order: Order, fee: Fee
) -> None:
    make_line(fee, quantity=12, paid_at=NOW - timedelta(hours=1))
    # 12 that wait and 1 that is held, 3 in the basket: at the pay page the second batch is not needed.
    make_batch(fee.term.plan, quantity=13, on=date(2026, 12, 1))
    make_batch(fee.term.plan, quantity=20, on=date(2027, 1, 2))
    ahead = (
        "If you pay now, 12 phones are ahead of yours. 33 devices are announced, the next for Dec. 1, 2026."
    )
    for address, window in (
        (f"/orders/{order.reference}/pay/", ("Dec. 1, 2026", "Dec. 8, 2026", "Dec. 31, 2026")),
        ("/checkout/", ("Jan. 2, 2027", "Jan. 9, 2027", "Feb. 1, 2027")),
    ):
        page = " ".join(client.get(address).content.decode().split())
        earliest, likely, latest = window
        assert ahead in page
        assert f"Earliest {earliest}, likely <strong>{likely}</strong>, at the latest {latest}." in page


def test_pay_page_of_phones_that_are_there_promises_minutes(client: Client, order: Order, fee: Fee) -> None:
    make_devices(fee.term.plan, 1)
    page = client.get(f"/orders/{order.reference}/pay/").content.decode()
    assert "If you pay now, they are allocated within minutes." in page


def test_pay_page_does_not_hide_that_no_date_is_known(client: Client, order: Order) -> None:
    page = client.get(f"/orders/{order.reference}/pay/").content.decode()
    assert "No delivery is announced at the moment." in page
    assert "The date is not known yet." in page


def test_pay_page_asks_the_same_number_of_queries_for_one_plan_and_for_three(
    client: Client, buyer: User, order: Order, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    larger = make_order(
        [(make_fee(make_plan(name)), 1) for name in ("A", "B", "C")], customer=buyer, placed_at=NOW
    )
    for each in (order, larger):
        with django_assert_num_queries(21):
            client.get(f"/orders/{each.reference}/pay/")


def test_without_a_gateway_the_pay_page_says_so(client: Client, order: Order, settings: Settings) -> None:
    settings.SANDBOX_GATEWAY_URL = ""
    page = client.get(f"/orders/{order.reference}/pay/").content.decode()
    assert "No way to pay is available at the moment." in page


def test_unknown_method_is_refused(client: Client, order: Order) -> None:
    page = client.post(f"/orders/{order.reference}/pay/", {"method": "shells"}).content.decode()
    assert "This way to pay is not available." in page
    assert not PaymentAttempt.objects.exists()


@pytest.mark.payment_case(47)
def test_gateway_that_cannot_be_reached_costs_nothing_and_the_form_stays(
    client: Client, order: Order, settings: Settings
) -> None:
    offer_unreachable_gateway(settings)
    answer = client.post(f"/orders/{order.reference}/pay/", {"method": "sandbox"})
    assert "The payment page cannot be reached at the moment. Nothing was charged." in answer.content.decode()
    assert PaymentAttempt.objects.get().state == "created"


def offer_unreachable_gateway(settings: Settings) -> None:
    settings.ALLOW_EMULATORS = True
    settings.SANDBOX_GATEWAY_URL = "http://127.0.0.1:9"  # the discard port: nobody listens
    settings.SANDBOX_GATEWAY_KEY = "key"
    settings.SANDBOX_WEBHOOK_SECRET = "whsec_MDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDAwMDA="


def attempt_of(order: Order, state: str) -> PaymentAttempt:
    return PaymentAttempt.objects.create(
        order=order,
        reference=f"{order.reference}-1",
        method="sandbox",
        gateway="sandbox",
        state=state,
        amount_minor=order.total_minor,
        currency=order.currency,
        created_at=NOW,
        expires_at=order.pay_until,
    )


@pytest.mark.payment_case(52)
def test_declined_payment_is_told_and_the_methods_are_offered_again(
    client: Client, order: Order, settings: Settings
) -> None:
    offer_unreachable_gateway(settings)
    attempt_of(order, "declined")
    page = client.get(f"/orders/{order.reference}/pay/").content.decode()
    assert "The payment was declined." in page
    assert 'name="method"' in page


def test_return_without_an_answer_of_the_gateway_goes_on_asking(
    client: Client, order: Order, settings: Settings
) -> None:
    offer_unreachable_gateway(settings)
    attempt_of(order, "pending")
    answer = client.get(f"/orders/{order.reference}/paid/", follow=True)
    assert answer.redirect_chain[-1][0] == f"/orders/{order.reference}/pay/"
    page = answer.content.decode()
    assert "We are asking for the result of your payment." in page
    assert f'hx-get="/orders/{order.reference}/pay/live/' in page


def test_waiting_pay_page_is_left_alone_while_nothing_changes(client: Client, order: Order) -> None:
    attempt = attempt_of(order, "pending")
    live = f"/orders/{order.reference}/pay/live/"
    shown = {"seen": f"{attempt.reference}:pending", "offered": "4.99 USD"}
    assert client.get(live, shown).status_code == 204
    PaymentAttempt.objects.update(state="declined")
    assert "The payment was declined." in client.get(live, shown).content.decode()


def confirm(attempt: PaymentAttempt) -> None:
    """Let its money be seen on its way."""
    PaymentAttempt.objects.filter(pk=attempt.pk).update(state="confirming", confirming_since=NOW)


@pytest.mark.payment_case(34)
def test_open_pay_page_asks_for_itself_anew_when_the_ways_to_pay_go_and_when_they_come_back(
    client: Client, order: Order, settings: Settings
) -> None:
    offer_unreachable_gateway(settings)
    page, live = f"/orders/{order.reference}/pay/", f"/orders/{order.reference}/pay/live/"
    attempt = attempt_of(order, "pending")
    pending = client.get(page).content.decode()
    assert f'hx-get="{live}?offered=4.99%20USD&amp;seen={attempt.reference}%3Apending"' in pending

    confirm(attempt)
    answer = client.get(live, {"offered": "4.99 USD", "seen": attempt.seen_as})
    assert answer.headers["HX-Redirect"] == page
    confirming = client.get(page).content.decode()
    assert f'hx-get="{live}?offered=&amp;seen={attempt.reference}%3Aconfirming"' in confirming
    assert 'name="method"' not in confirming

    PaymentAttempt.objects.update(state="declined", confirming_since=None)
    answer = client.get(live, {"offered": "", "seen": f"{attempt.reference}:confirming"})
    assert answer.headers["HX-Redirect"] == page
    assert 'name="method"' in client.get(page).content.decode()


@pytest.mark.payment_case(34)
def test_of_several_payments_the_one_that_is_being_confirmed_is_shown(client: Client, order: Order) -> None:
    confirming = make_attempt(order)
    confirm(confirming)
    make_attempt(order, number=2, state=AttemptState.DECLINED)

    page = client.get(f"/orders/{order.reference}/pay/").content.decode()

    assert "Your payment is being confirmed." in page
    assert "$4.99 on their way" in page
    inviting = ("The payment was declined.", "Pay $4.99", "Cancel this order", "You pay on the page")
    assert [words for words in inviting if words in page] == []


@pytest.mark.payment_case(34)
def test_old_tab_cannot_pay_a_second_time_while_a_payment_is_being_confirmed(
    client: Client, order: Order, settings: Settings
) -> None:
    offer_unreachable_gateway(settings)
    confirm(make_attempt(order))

    page = client.post(f"/orders/{order.reference}/pay/", {"method": "sandbox"}).content.decode()

    assert (
        "A payment of this order is being confirmed. Please don&#x27;t pay again; we will write to you."
        in page
    )
    assert 'name="method"' not in page
    assert PaymentAttempt.objects.count() == 1


def test_waiting_pay_page_moves_on_when_the_order_is_paid(client: Client, order: Order, fee: Fee) -> None:
    paid = make_order([(fee, 1)], customer=order.customer, paid_at=NOW)
    answer = client.get(f"/orders/{paid.reference}/pay/live/")
    assert answer.headers["HX-Redirect"] == f"/orders/{paid.reference}/"


def test_paid_order_has_no_pay_page(client: Client, buyer: User, fee: Fee) -> None:
    paid = make_order([(fee, 1)], customer=buyer, paid_at=NOW)
    assert client.get(f"/orders/{paid.reference}/pay/").headers["Location"] == f"/orders/{paid.reference}/"


def test_order_past_its_deadline_has_no_pay_page(
    client: Client, order: Order, clock: time_machine.Traveller
) -> None:
    clock.move_to(order.pay_until)
    answer = client.get(f"/orders/{order.reference}/pay/", follow=True)
    assert answer.redirect_chain[-1][0] == f"/orders/{order.reference}/"
    assert "The time to pay is over" in answer.content.decode()


def test_deadline_on_another_day_is_told_with_its_date(client: Client, buyer: User, fee: Fee) -> None:
    late = make_order(
        [(fee, 1)], customer=buyer, placed_at=NOW, pay_until=datetime(2026, 11, 24, 1, 5, tzinfo=UTC)
    )
    page = client.get(f"/orders/{late.reference}/pay/").content.decode()
    assert "<strong>1:05 a.m. on Nov. 24, 2026</strong>" in page
