"""A customer's cases on the site: opening, withdrawing, writing and closing (agreement II, 9.2)."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import time_machine
from django.test import Client
from django.utils import timezone
from pytest_django import DjangoAssertNumQueries, Settings

from accounts.models import User
from agreements.acceptance import Consent, Witness, record_acceptances, required_of_buyer
from agreements.tests.editions import publish_both
from inventory.models import Fee
from orders.models import Case, CaseMessage, CaseState, Ground, Matter, Order, OrderState, Outcome, Side
from orders.refunds import approve_refund, request_refund
from orders.tests.shopping import log_in
from orders.tests.test_cases import (
    customer_closes,
    opened,
    said,
    staff_closes,
    staff_writes,
    with_right,
)
from tests.builders import NOW, make_capture, make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db

LAW = "The laws of the Hong Kong Special Administrative Region (II)."
COURTS = (
    "First friendly consultation, here. If it leads to no settlement, either party may go to the courts with "
    "jurisdiction in the Hong Kong Special Administrative Region (II)."
)
WORDS = {"subject": "Charged twice", "body": "My bank shows two payments."}


@pytest.fixture(autouse=True)
def clock() -> Iterator[time_machine.Traveller]:
    with time_machine.travel(NOW, tick=False) as traveller:
        yield traveller


@pytest.fixture
def customer(client: Client) -> User:
    customer = make_user("buyer@example.com")
    log_in(client, customer)
    return customer


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan())


@pytest.fixture
def order(customer: User, fee: Fee) -> Order:
    return make_order([(fee, 1)], customer=customer, paid_at=NOW - timedelta(hours=1))


@pytest.fixture
def case(order: Order) -> Case:
    return opened(order)


@pytest.fixture
def staff() -> User:
    return make_user("staff@example.com", is_staff=True)


def page_of(client: Client, address: str) -> str:
    answer = client.get(address)
    assert answer.status_code == 200
    return " ".join(answer.content.decode().split())


def errors_of(answer: Any, form: str = "form") -> dict[str, list[str]]:
    errors: dict[str, list[str]] = answer.context[form].errors
    return errors


# --- opening -------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_case_is_opened_from_the_page_of_its_order(client: Client, order: Order) -> None:
    address = f"/orders/{order.reference}/case/"
    assert f'href="{address}"' in page_of(client, f"/orders/{order.reference}/")
    answer = client.post(address, WORDS)
    case = Case.objects.get()
    assert (answer.status_code, answer.headers["Location"]) == (302, f"/cases/{case.reference}/")
    assert (case.order, case.matter, case.subject) == (order, Matter.DISPUTE, "Charged twice")
    assert said(case) == [(Side.CUSTOMER, "My bank shows two payments.")]


def test_second_click_leads_to_the_case_that_the_first_one_opened(client: Client, order: Order) -> None:
    address = f"/orders/{order.reference}/case/"
    first, second = client.post(address, WORDS), client.post(address, WORDS)
    assert first.headers["Location"] == second.headers["Location"]
    assert (Case.objects.count(), CaseMessage.objects.count()) == (1, 1)


@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"body": " "}, {"body": ["Please write a message."]}),
        ({"subject": ""}, {"subject": ["Please say what it is about."]}),
        (
            {"subject": "x" * 151},
            {"subject": ["Ensure this value has at most 150 characters (it has 151)."]},
        ),
        ({"body": "x" * 8001}, {"__all__": ["Please keep it to 8000 characters; this has 8001."]}),
    ],
)
def test_refused_case_comes_back_as_it_was_filled_in(
    client: Client, order: Order, change: dict[str, str], errors: dict[str, list[str]]
) -> None:
    answer = client.post(f"/orders/{order.reference}/case/", WORDS | change)
    assert (answer.status_code, errors_of(answer)) == (200, errors)
    assert answer.context["form"]["subject"].value() == (WORDS | change)["subject"]
    assert not Case.objects.exists()


def test_fourth_case_is_refused_on_the_page(client: Client, order: Order) -> None:
    for number in range(3):
        opened(order, subject=f"Matter {number}")
    answer = client.post(f"/orders/{order.reference}/case/", WORDS)
    assert errors_of(answer) == {
        "__all__": ["3 cases about this order are open already. Please write in one of them."]
    }


@pytest.mark.parametrize("page", ["case", "withdraw", "refund"])
@pytest.mark.usefixtures("customer")
def test_order_of_somebody_else_is_not_found(client: Client, fee: Fee, page: str) -> None:
    theirs = with_right(make_order([(fee, 1)], paid_at=NOW))
    address = f"/orders/{theirs.reference}/{page}/"
    assert (client.get(address).status_code, client.post(address, WORDS).status_code) == (404, 404)
    assert not Case.objects.exists()


def test_pages_ask_for_a_login(client: Client, case: Case) -> None:
    client.logout()
    reference = case.order.reference
    for address in (
        "/cases/",
        case.get_absolute_url(),
        f"{case.get_absolute_url()}close/",
        f"/orders/{reference}/case/",
        f"/orders/{reference}/withdraw/",
    ):
        assert client.get(address).headers["Location"] == f"/accounts/login/?next={address}"


# --- withdrawal ----------------------------------------------------------------------------------------


@pytest.mark.clause("3.3", "II")
def test_withdrawal_is_one_button_below_a_statement_that_is_written_already(
    client: Client, order: Order
) -> None:
    with_right(order)
    address = f"/orders/{order.reference}/withdraw/"
    assert f'<a class="button button--quiet" href="{address}">Withdraw from the contract here</a>' in page_of(
        client, f"/orders/{order.reference}/"
    )
    page = page_of(client, address)
    for words in (
        "Right of withdrawal",
        "You can leave within 14 days.",
        "Directive 2011/83/EU",
        "You can do so until <strong>4 a.m. on Dec. 7, 2026</strong> (your time)",
        "Two people approve the money's way back, and it goes back the way you paid.",
        "Confirm withdrawal",
        LAW,
    ):
        assert words in page
    statement = client.get(address).context["form"]["body"].value()
    assert statement == (
        f"I hereby withdraw from my order {order.reference}, placed on Nov. 22, 2026.\n\nbuyer@example.com"
    )
    answer = client.post(address, {"body": statement.replace("\n", "\r\n")})
    case = Case.objects.get()
    assert answer.headers["Location"] == case.get_absolute_url()
    assert (case.matter, case.subject, case.opened_at) == (
        Matter.WITHDRAWAL,
        f"Withdrawal from order {order.reference}",
        NOW,
    )
    assert said(case) == [(Side.CUSTOMER, statement)]


def test_whoever_has_withdrawn_is_led_to_his_case(client: Client, order: Order) -> None:
    case = opened(with_right(order), matter=Matter.WITHDRAWAL)
    address = f"/orders/{order.reference}/withdraw/"
    assert client.get(address).headers["Location"] == case.get_absolute_url()
    answer = client.post(address, {"body": "Once more, in other words."})
    assert errors_of(answer) == {"__all__": [f"You have withdrawn from this order already, in case {case}."]}
    assert Case.objects.count() == 1


def test_second_click_withdraws_once(client: Client, order: Order) -> None:
    with_right(order)
    for _click in range(2):
        answer = client.post(f"/orders/{order.reference}/withdraw/", {"body": "I withdraw."})
        assert answer.headers["Location"] == Case.objects.get().get_absolute_url()


def test_unpaid_order_is_withdrawn_from_without_talk_of_money(
    client: Client, customer: User, fee: Fee
) -> None:
    order = with_right(make_order([(fee, 1)], customer=customer, placed_at=NOW))
    page = page_of(client, f"/orders/{order.reference}/withdraw/")
    assert "Nothing has been paid, so there is nothing to give back." in page
    assert "Two people" not in page


@pytest.mark.clause("3.3")
def test_order_without_a_right_offers_no_withdrawal(client: Client, order: Order) -> None:
    address = f"/orders/{order.reference}/withdraw/"
    assert address not in page_of(client, f"/orders/{order.reference}/")
    answer = client.get(address, follow=True)
    assert answer.redirect_chain == [(f"/orders/{order.reference}/", 302)]
    assert "This order cannot be withdrawn from (any more)." in answer.content.decode()


def test_right_that_ends_while_the_page_is_open_is_refused_on_it(
    client: Client, order: Order, clock: time_machine.Traveller
) -> None:
    with_right(order, until=NOW + timedelta(hours=1))
    address = f"/orders/{order.reference}/withdraw/"
    assert client.get(address).status_code == 200
    clock.move_to(NOW + timedelta(hours=1))
    answer = client.post(address, {"body": "I withdraw."})
    assert errors_of(answer) == {"__all__": ["This order cannot be withdrawn from (any more)."]}
    assert not Case.objects.exists()


def test_expired_order_offers_no_withdrawal(client: Client, customer: User, fee: Fee) -> None:
    order = with_right(make_order([(fee, 1)], customer=customer))
    Order.objects.update(state=OrderState.EXPIRED)
    assert client.get(f"/orders/{order.reference}/withdraw/").headers["Location"] == order.get_absolute_url()


# --- asking for a refund -------------------------------------------------------------------------------

REFUND = {"ground": "law", "legal_basis": "Cap. 362, s. 7", "body": "The plan was described wrongly."}


@pytest.mark.clause("3.3")
def test_who_asks_for_a_refund_reads_the_rule_and_its_two_exceptions_first(
    client: Client, order: Order
) -> None:
    address = f"/orders/{order.reference}/refund/"
    assert f'href="{address}"' in page_of(client, f"/orders/{order.reference}/")
    page = page_of(client, address)
    said = (
        "The rule: no refunds during the pre-sale period",
        "a law requires the refund;",
        "the platform is unable to provide the service to you, for reasons of its own.",
        '<input type="radio" name="ground" value="law"',
        '<input type="radio" name="ground" value="unable-to-supply"',
        "Send the request",
    )
    places = [page.index(words) for words in said]
    assert places == sorted(places)
    assert " checked" not in page


@pytest.mark.clause("3.3")
def test_request_for_a_refund_is_a_case_whose_page_shows_what_comes_of_it(
    client: Client, order: Order, staff: User
) -> None:
    address = f"/orders/{order.reference}/refund/"
    first, second = client.post(address, REFUND), client.post(address, REFUND)
    case = Case.objects.get()
    assert [answer.headers["Location"] for answer in (first, second)] == [case.get_absolute_url()] * 2
    assert (case.matter, case.ground, case.legal_basis) == (Matter.REFUND, "law", "Cap. 362, s. 7")
    assert said(case) == [(Side.CUSTOMER, "The plan was described wrongly.")]
    assert client.get(address).headers["Location"] == case.get_absolute_url()

    page = page_of(client, case.get_absolute_url())
    assert "<dt>Your ground</dt><dd>required by law (3.3)</dd>" in page
    assert "<dt>The rule you name</dt><dd>Cap. 362, s. 7</dd>" in page
    assert "Nothing is decided yet." in page
    make_capture(order)
    refund = request_refund(
        order_id=order.pk,
        ground=Ground.LAW,
        legal_basis="Cap. 362, s. 7",
        explanation="He is right.",
        units={order.lines.get().pk: 1},
        requested_by_id=make_user(is_staff=True).pk,
        case_id=case.pk,
        now=NOW,
    )
    assert "Being checked by a second person" in page_of(client, case.get_absolute_url())
    approve_refund(refund_id=refund.pk, approved_by_id=staff.pk, now=NOW)
    page = page_of(client, case.get_absolute_url())
    assert "On its way" in page
    assert refund.reference in page
    assert f'href="{address}"' not in page_of(client, f"/orders/{order.reference}/")


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("change", "errors"),
    [
        ({"ground": ""}, {"ground": ["Please choose one of the two grounds."]}),
        (
            {"ground": "regret"},
            {"ground": ["Select a valid choice. regret is not one of the available choices."]},
        ),
        ({"legal_basis": " "}, {"legal_basis": ["Please name the rule of the law that requires a refund."]}),
        ({"body": ""}, {"body": ["Please write a message."]}),
    ],
)
def test_request_for_a_refund_without_a_ground_comes_back(
    client: Client, order: Order, change: dict[str, str], errors: dict[str, list[str]]
) -> None:
    answer = client.post(f"/orders/{order.reference}/refund/", REFUND | change)
    assert (answer.status_code, errors_of(answer)) == (200, errors)
    assert not Case.objects.exists()


@pytest.mark.clause("3.3")
def test_rule_that_was_written_before_the_other_ground_was_chosen_is_dropped(
    client: Client, order: Order
) -> None:
    client.post(f"/orders/{order.reference}/refund/", REFUND | {"ground": "unable-to-supply"})
    case = Case.objects.get()
    assert (case.ground, case.legal_basis) == ("unable-to-supply", "")


@pytest.mark.clause("3.3")
def test_who_may_still_withdraw_is_told_that_he_needs_no_ground(client: Client, order: Order) -> None:
    page = page_of(client, f"/orders/{with_right(order).reference}/refund/")
    assert "you need no ground: you may withdraw." in page
    assert 'value="Directive 2011/83/EU"' in page


def test_unpaid_order_offers_no_refund(client: Client, customer: User, fee: Fee) -> None:
    unpaid = make_order([(fee, 1)], customer=customer, placed_at=NOW)
    address = f"/orders/{unpaid.reference}/refund/"
    assert f'href="{address}"' not in page_of(client, f"/orders/{unpaid.reference}/")
    answer = client.get(address, follow=True)
    assert answer.redirect_chain[-1][0] == f"/orders/{unpaid.reference}/"
    assert "Nothing of this order is paid and not refunded yet." in answer.content.decode()


# --- a case --------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_case_shows_what_both_sides_wrote_and_when_it_is_answered(
    client: Client, case: Case, staff: User
) -> None:
    page = page_of(client, case.get_absolute_url())
    assert "Waiting for our answer" in page
    assert "by the end of Nov. 28, 2026 (Hong Kong)" in page
    staff_writes(case, staff, "One of them\nwas returned.")
    page = page_of(client, case.get_absolute_url())
    assert "We have answered" in page
    assert "<p>My bank shows two payments.</p>" in page
    assert "<strong>VMOS Cloud</strong>" in page
    assert "<p>One of them<br>was returned.</p>" in page
    # Who of the staff wrote it is on record, and not for the customer.
    assert staff.email not in page
    assert "First answer due" not in page


def test_words_are_shown_as_they_were_written_and_never_as_markup(client: Client, order: Order) -> None:
    case = opened(order, subject="<i>Hi</i>", body="See https://example.com/\n<script>alert(1)</script>")
    page = page_of(client, case.get_absolute_url())
    assert "<p>See https://example.com/<br>&lt;script&gt;alert(1)&lt;/script&gt;</p>" in page
    assert "<h1>&lt;i&gt;Hi&lt;/i&gt;</h1>" in page


@pytest.mark.clause("II")
def test_late_first_answer_is_admitted(client: Client, case: Case, clock: time_machine.Traveller) -> None:
    late = "Our first answer is late."
    assert late not in page_of(client, case.get_absolute_url())
    clock.move_to(case.answer_due_at)
    log_in(client, case.order.customer)
    assert late in page_of(client, case.get_absolute_url())
    assert "was due by the end of Nov. 28, 2026 (Hong Kong)" in page_of(client, "/cases/")


@pytest.mark.clause("II", "9.2")
@pytest.mark.usefixtures("case")
def test_every_page_states_law_courts_and_place_of_signing(
    client: Client, order: Order, settings: Settings
) -> None:
    settings.PLATFORM_LOCATION = "Kowloon, Hong Kong"
    with_right(order)
    for address in (
        "/cases/",
        Case.objects.get().get_absolute_url(),
        f"/orders/{order.reference}/case/",
        f"/orders/{order.reference}/withdraw/",
    ):
        page = page_of(client, address)
        for words in (LAW, COURTS, "The location of the VMOS Cloud platform (9.2). Kowloon, Hong Kong"):
            assert words in page


@pytest.mark.clause("II", "9.2")
def test_clauses_are_read_in_the_version_that_the_order_accepted(
    client: Client, customer: User, case: Case, tmp_path: Path
) -> None:
    publish_both(tmp_path)
    required = required_of_buyer(now=timezone.now(), language="zh-hans", right=None)
    record_acceptances(
        customer_id=customer.pk,
        order_reference=case.order.reference,
        required=required,
        consents=[
            Consent(each.text.pk, each.subject, each.role, "", customer.email, each.statement)
            for each in required
        ],
        witness=Witness("192.0.2.1", "Firefox"),
        now=NOW,
    )
    page = page_of(client, case.get_absolute_url())
    clause = "/agreements/prepayment/1/?language=zh-hans#II"
    assert f'href="{clause}"' in page
    assert f'href="{clause.replace("II", "9.2")}"' in page
    assert 'id="II"' in page_of(client, clause)


@pytest.mark.clause("II")
def test_case_that_was_not_settled_says_what_the_agreement_says_then(
    client: Client, case: Case, staff: User
) -> None:
    staff_closes(case, staff, Outcome.NOT_SETTLED)
    page = page_of(client, case.get_absolute_url())
    assert "Not settled" in page
    assert (
        "either party may submit the dispute to the courts with jurisdiction in the Hong Kong Special "
        "Administrative Region for litigation."
    ) in page
    assert "<textarea" not in page


def test_reply_is_added_once(client: Client, case: Case, staff: User) -> None:
    staff_writes(case, staff, "Which bank?")
    for _click in range(2):
        answer = client.post(case.get_absolute_url(), {"body": "The one\r\nin Mainz."})
        assert (answer.status_code, answer.headers["Location"]) == (302, case.get_absolute_url())
    case.refresh_from_db()
    assert case.state == CaseState.OPEN
    assert said(case)[1:] == [(Side.PLATFORM, "Which bank?"), (Side.CUSTOMER, "The one\nin Mainz.")]


def test_reply_to_a_case_that_was_closed_meanwhile_is_refused_on_its_page(
    client: Client, case: Case, staff: User
) -> None:
    staff_closes(case, staff, Outcome.SETTLED)
    answer = client.post(case.get_absolute_url(), {"body": "But!"}, follow=True)
    assert errors_of(answer) == {
        "body": ["This case is closed. Please open a new one if there is more to say."]
    }
    page = answer.content.decode()
    assert "This case is closed. Please open a new one if there is more to say." in page
    # His words are not lost.
    assert ">\nBut!</textarea>" in page
    assert len(said(case)) == 2


def test_empty_reply_is_refused(client: Client, case: Case) -> None:
    answer = client.post(case.get_absolute_url(), {"body": " "})
    assert errors_of(answer) == {"body": ["Please write a message."]}
    assert len(said(case)) == 1


@pytest.mark.parametrize(
    ("outcome", "last_words", "on_record", "shown"),
    [
        ("settled", "", "This is settled.", "Settled"),
        ("dropped", "", "I drop this case.", "Dropped by you"),
        ("dropped", "I found the second payment.", "I found the second payment.", "Dropped by you"),
    ],
)
def test_customer_closes_his_case_in_words_that_are_on_record(
    client: Client, case: Case, outcome: str, last_words: str, on_record: str, shown: str
) -> None:
    address = f"{case.get_absolute_url()}close/"
    answer = client.post(address, {"outcome": outcome, "last_words": last_words})
    assert answer.headers["Location"] == case.get_absolute_url()
    case.refresh_from_db()
    assert (case.state, case.outcome) == (CaseState.CLOSED, outcome)
    assert said(case)[1:] == [(Side.CUSTOMER, on_record)]
    assert shown in page_of(client, case.get_absolute_url())


@pytest.mark.parametrize("outcome", ["", "not-settled", "won"])
def test_customer_has_to_choose_one_of_his_outcomes(client: Client, case: Case, outcome: str) -> None:
    answer = client.post(f"{case.get_absolute_url()}close/", {"outcome": outcome})
    assert answer.status_code == 200
    assert list(errors_of(answer, "close_form")) == ["outcome"]
    assert '<details class="disclosure" open>' in answer.content.decode()
    case.refresh_from_db()
    assert case.state == CaseState.OPEN


def test_case_that_was_closed_otherwise_meanwhile_says_so(client: Client, case: Case, staff: User) -> None:
    staff_closes(case, staff, Outcome.SETTLED)
    answer = client.post(f"{case.get_absolute_url()}close/", {"outcome": "dropped"})
    assert errors_of(answer, "close_form") == {"__all__": ["This case is closed already: settled."]}
    assert "This case is closed already: settled." in answer.content.decode()


def test_address_of_a_refused_form_leads_back_to_the_case(client: Client, case: Case) -> None:
    answer = client.get(f"{case.get_absolute_url()}close/")
    assert answer.headers["Location"] == case.get_absolute_url()


@pytest.mark.usefixtures("customer")
def test_case_of_somebody_else_is_not_found(client: Client, fee: Fee) -> None:
    theirs = opened(make_order([(fee, 1)], paid_at=NOW))
    address = theirs.get_absolute_url()
    assert client.get(address).status_code == 404
    assert client.post(address, {"body": "Hello"}).status_code == 404
    assert client.post(f"{address}close/", {"outcome": "dropped"}).status_code == 404
    theirs.refresh_from_db()
    assert (theirs.state, len(said(theirs))) == (CaseState.OPEN, 1)


# --- lists ---------------------------------------------------------------------------------------------


@pytest.mark.usefixtures("customer")
def test_list_is_empty_with_a_way_on(client: Client) -> None:
    page = page_of(client, "/cases/")
    assert "<h2>No cases</h2>" in page
    assert '<a class="button" href="/orders/">See my orders</a>' in page


def test_cases_are_paged_newest_first_and_only_ones_own(client: Client, order: Order, fee: Fee) -> None:
    opened(make_order([(fee, 1)], paid_at=NOW))
    cases = []
    for number in range(12):
        cases.append(opened(order, subject=f"Matter {number}"))
        customer_closes(cases[-1], Outcome.DROPPED)
    first, second = client.get("/cases/").context["page"], client.get("/cases/?page=2").context["page"]
    assert list(first) == cases[:1:-1]
    assert list(second) == cases[1::-1]


def test_order_lists_its_cases(client: Client, case: Case, fee: Fee) -> None:
    other = opened(make_order([(fee, 1)], customer=case.order.customer, paid_at=NOW), subject="Another")
    page = page_of(client, case.order.get_absolute_url())
    assert f'<a href="{case.get_absolute_url()}">Charged twice</a>' in page
    assert other.reference not in page


def test_pages_ask_the_same_number_of_queries_for_one_case_and_for_five(
    client: Client, case: Case, staff: User, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    with django_assert_num_queries(LIST_QUERIES):
        client.get("/cases/")
    with django_assert_num_queries(CASE_QUERIES):
        client.get(case.get_absolute_url())
    for number in range(4):
        fee = make_fee(make_plan(f"Plan {number}"))
        opened(make_order([(fee, 1)], customer=case.order.customer, paid_at=NOW))
        staff_writes(case, staff, f"Answer {number}")
    with django_assert_num_queries(LIST_QUERIES):
        client.get("/cases/")
    with django_assert_num_queries(CASE_QUERIES):
        client.get(case.get_absolute_url())


# Session and user, unread messages, revisions, the rows and what they belong to, the agreement.
LIST_QUERIES = 8
CASE_QUERIES = 9
