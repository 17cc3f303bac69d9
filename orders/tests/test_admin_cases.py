"""The desk of the cases: staff read all of it, answer and close, and see what is late."""

from datetime import timedelta

import pytest
import time_machine
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse

from accounts.models import User
from inventory.models import Fee
from orders.models import Case, CaseState, Ground, Matter, Order, Outcome, Refund, Side
from orders.tests.test_cases import asked_for_refund, opened, said, staff_closes, staff_writes, with_right
from tests.builders import NOW, make_capture, make_fee, make_order, make_plan, make_user

pytestmark = pytest.mark.django_db

LIST = reverse("admin:orders_case_changelist")


@pytest.fixture
def staff() -> User:
    return make_user("staff@example.com", is_staff=True)


@pytest.fixture
def desk(client: Client, staff: User) -> Client:
    client.force_login(staff)
    return client


@pytest.fixture
def fee() -> Fee:
    return make_fee(make_plan())


@pytest.fixture
def order(fee: Fee) -> Order:
    return make_order([(fee, 1)], paid_at=NOW, customer=make_user("buyer@example.com"))


def page(case: Case, name: str) -> str:
    return reverse(f"admin:orders_case_{name}", args=[case.pk])


def listed(desk: Client, **query: str) -> list[Case]:
    return list(desk.get(LIST, query).context["cl"].result_list)


# --- the list ------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_late_cases_are_marked_and_found_by_a_filter(desk: Client, order: Order, staff: User) -> None:
    late = opened(order, subject="Late")
    on_time = opened(order, subject="On time", now=NOW + timedelta(days=1))
    answered = opened(order, subject="Answered")
    staff_writes(answered, staff, "Yes.")
    with time_machine.travel(late.answer_due_at, tick=False):
        desk.force_login(staff)
        assert listed(desk, due="overdue") == [late]
        assert listed(desk) == [answered, on_time, late]
        assert desk.get(LIST).content.decode().count("overdue: Nov. 28, 2026") == 1


def test_cases_are_filtered_by_state_and_matter(desk: Client, order: Order, staff: User) -> None:
    withdrawal = opened(with_right(order), matter=Matter.WITHDRAWAL)
    dispute = staff_closes(opened(order), staff, Outcome.SETTLED)
    assert listed(desk, state__exact="open") == [withdrawal]
    assert listed(desk, matter__exact="dispute") == [dispute]
    assert listed(desk, outcome__exact="settled") == [dispute]


@pytest.mark.parametrize("by", ["case", "order", "customer"])
def test_a_case_is_found_by_what_people_read_out(desk: Client, order: Order, fee: Fee, by: str) -> None:
    case = opened(order)
    opened(make_order([(fee, 1)], paid_at=NOW))
    term = {"case": case.reference.lower(), "order": order.reference.lower(), "customer": "Buyer@"}[by]
    assert listed(desk, q=term) == [case]


def test_a_list_of_twelve_costs_as_many_queries_as_a_list_of_two(desk: Client, fee: Fee) -> None:
    def cost() -> int:
        with CaptureQueriesContext(connection) as queries:
            assert desk.get(LIST).status_code == 200
        return len(queries)

    for _ in range(2):
        opened(make_order([(fee, 1)], paid_at=NOW))
    cost()  # content types are read once in a process
    of_two = cost()
    for _ in range(10):
        opened(make_order([(fee, 1)], paid_at=NOW))
    assert cost() == of_two


# --- the page ------------------------------------------------------------------------------------------


def test_the_page_shows_what_both_sides_wrote_and_never_as_markup(
    desk: Client, order: Order, staff: User
) -> None:
    case = opened(order, body="Hello\n<script>alert(1)</script>")
    staff_writes(case, staff, "Good day.")
    content = desk.get(page(case, "change")).content.decode()
    assert "Hello\n&lt;script&gt;alert(1)&lt;/script&gt;" in content
    assert "Good day." in content
    assert "buyer@example.com" in content


@pytest.mark.clause("3.3")
def test_the_page_of_a_withdrawal_leads_to_a_refund_of_its_order(
    desk: Client, order: Order, fee: Fee
) -> None:
    refund = reverse("admin:orders_order_request_refund", args=[order.pk])
    withdrawal = opened(with_right(order), matter=Matter.WITHDRAWAL)
    assert refund in desk.get(page(withdrawal, "change")).content.decode()
    assert desk.get(refund).status_code == 200
    assert refund not in desk.get(page(opened(order), "change")).content.decode()
    unpaid = with_right(make_order([(fee, 1)], placed_at=NOW))
    not_paid = opened(unpaid, matter=Matter.WITHDRAWAL)
    assert "Request a refund" not in desk.get(page(not_paid, "change")).content.decode()


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("ground", "legal_basis", "filled_in"),
    [
        (Ground.LAW, "Cap. 362, s. 7", ("law", "other", "Cap. 362, s. 7")),
        (Ground.LAW, "Directive 2011/83/EU", ("law", "right", "")),
        (Ground.UNABLE_TO_SUPPLY, "", ("unable-to-supply", "", "")),
    ],
)
def test_page_of_who_asks_for_a_refund_leads_to_its_request_filled_in_and_to_what_has_come_of_it(
    desk: Client, order: Order, ground: Ground, legal_basis: str, filled_in: tuple[str, str, str]
) -> None:
    make_capture(order)
    case = asked_for_refund(with_right(order), ground, legal_basis)
    address = f"{reverse('admin:orders_order_request_refund', args=[order.pk])}?case={case.pk}"
    shown = desk.get(page(case, "change")).content.decode()
    assert f'href="{address}"' in shown
    assert case.get_ground_display() in shown

    form = desk.get(address).context["form"]

    assert tuple(form[name].value() for name in ("ground", "rule", "other_law")) == filled_in
    assert form["explanation"].value() == f"As asked in case {case.reference}: Refund"
    line = order.lines.get()
    assert form[f"units_{line.pk}"].value() == line.waiting_units
    desk.post(address, {name: form[name].value() for name in form.fields if name != "phones"})
    refund = Refund.objects.get()
    assert (refund.case, refund.ground, refund.legal_basis) == (case, ground, legal_basis)
    assert refund.reference in desk.get(page(case, "change")).content.decode()
    assert (
        case.reference in desk.get(reverse("admin:orders_refund_change", args=[refund.pk])).content.decode()
    )


@pytest.mark.parametrize("written", ["", "x", "9" * 30, "-1", "{other}", "{dispute}"])
def test_case_that_asks_for_nothing_fills_in_nothing(
    desk: Client, order: Order, fee: Fee, written: str
) -> None:
    other = asked_for_refund(make_order([(fee, 1)], paid_at=NOW))
    query = written.format(other=other.pk, dispute=opened(order).pk)
    address = reverse("admin:orders_order_request_refund", args=[order.pk])
    form = desk.get(address, {"case": query}).context["form"]
    assert (form["ground"].value(), form["explanation"].value()) == (None, None)


@pytest.mark.clause("II")
def test_staff_answer_a_case_behind_a_button(desk: Client, order: Order, staff: User) -> None:
    case = opened(order)
    address = page(case, "answer")
    assert "My bank shows two payments." in desk.get(address).content.decode()
    for _click in range(2):
        answer = desk.post(address, {"body": "One of them was returned."})
        assert answer.headers["Location"] == page(case, "change")
    case.refresh_from_db()
    assert case.state == CaseState.ANSWERED
    assert said(case)[1:] == [(Side.PLATFORM, "One of them was returned.")]
    assert case.messages.get(side=Side.PLATFORM).author == staff
    assert LogEntry.objects.first().get_change_message() == f"Answered in case {case}."  # type: ignore[union-attr]


@pytest.mark.clause("II")
@pytest.mark.parametrize("outcome", ["settled", "not-settled"])
def test_staff_close_a_case_with_a_last_word(desk: Client, order: Order, staff: User, outcome: str) -> None:
    case = opened(order)
    desk.post(page(case, "close"), {"outcome": outcome, "body": "Thank you."})
    case.refresh_from_db()
    assert (case.state, case.outcome) == (CaseState.CLOSED, outcome)
    assert said(case)[1:] == [(Side.PLATFORM, "Thank you.")]
    assert desk.get(page(case, "change")).context["actions_detail"] == []


@pytest.mark.parametrize(
    ("button", "data"),
    [
        ("answer", {"body": " "}),
        ("answer", {"body": "x" * 8001}),
        ("close", {"outcome": "dropped", "body": "The customer does not write any more."}),
        ("close", {"outcome": "settled", "body": ""}),
    ],
)
def test_what_staff_cannot_say_changes_nothing(
    desk: Client, order: Order, button: str, data: dict[str, str]
) -> None:
    case = opened(order)
    assert desk.post(page(case, button), data).context["form"].errors
    case.refresh_from_db()
    assert (case.state, len(said(case))) == (CaseState.OPEN, 1)


def test_an_answer_to_a_case_that_was_closed_meanwhile_is_refused(
    desk: Client, order: Order, staff: User
) -> None:
    case = staff_closes(opened(order), staff, Outcome.SETTLED)
    answer = desk.post(page(case, "answer"), {"body": "One more thing."})
    assert answer.context["form"].errors == {
        "__all__": ["This case is closed. Please open a new one if there is more to say."]
    }
    assert len(said(case)) == 2


@pytest.mark.parametrize("button", ["answer", "close"])
def test_staff_who_may_only_view_neither_answer_nor_close(client: Client, order: Order, button: str) -> None:
    case = opened(order)
    viewer = make_user("viewer@example.com")
    User.objects.filter(pk=viewer.pk).update(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_case"))
    client.force_login(viewer)
    assert client.get(page(case, "change")).status_code == 200
    answer = client.post(page(case, button), {"outcome": "settled", "body": "Thank you."})
    assert answer.status_code == 403
    case.refresh_from_db()
    assert (case.state, len(said(case))) == (CaseState.OPEN, 1)


# --- the first page ------------------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_the_first_page_counts_the_cases_that_wait_and_those_that_are_late(
    desk: Client, order: Order, staff: User
) -> None:
    late = opened(order, subject="Late")
    opened(order, subject="On time", now=NOW + timedelta(days=1))
    staff_writes(opened(order, subject="Answered"), staff, "Yes.")
    with time_machine.travel(late.answer_due_at, tick=False):
        desk.force_login(staff)
        tiles = {str(tile.title): tile for tile in desk.get(reverse("admin:index")).context["tiles"]}
        waiting, overdue = tiles["Cases waiting for an answer"], tiles["Overdue cases"]
        assert [(tile.number, tile.is_urgent) for tile in (waiting, overdue)] == [(2, True), (1, True)]
        assert len(desk.get(waiting.link).context["cl"].result_list) == 2
        assert list(desk.get(overdue.link).context["cl"].result_list) == [late]
