"""Friendly consultation (II): what either side wrote, when it was answered, and how it ended."""

from collections.abc import Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest
from django.db import DatabaseError, IntegrityError, connection, transaction
from django.db.models import F, QuerySet
from pytest_django import Settings

from accounts.models import User
from agreements.models import StatutoryRight
from evidence.models import ChainHead
from evidence.triggers import install_triggers
from evidence.verification import verify_evidence
from inventory.models import Fee
from notices.models import Notice
from notices.rendering import render
from orders.cases import LONGEST, CaseRefused, close_case, open_case, report_overdue_cases, write
from orders.models import (
    Case,
    CaseMessage,
    CaseState,
    Ground,
    Matter,
    Order,
    OrderState,
    Outcome,
    ReviewItem,
    ReviewKind,
    Side,
)
from orders.tasks import report_overdue_cases as report_overdue_cases_job
from tests.builders import NOW, make_fee, make_order, make_plan, make_user
from tests.racing import failures, in_background, race, wait_until_blocked

LATER = NOW + timedelta(hours=1)
CHAIN = "orders.casemessage"


@pytest.fixture
def fee(db: None) -> Fee:
    return make_fee(make_plan())


@pytest.fixture
def order(fee: Fee) -> Order:
    return make_order([(fee, 1)], paid_at=NOW - timedelta(hours=1))


@pytest.fixture
def staff(db: None) -> User:
    return make_user("staff@example.com", is_staff=True)


def with_right(order: Order, *, until: datetime = NOW + timedelta(days=14)) -> Order:
    """The order with what the law of its buyer's country gives him."""
    right = StatutoryRight.objects.create(
        key="eu",
        edition=StatutoryRight.objects.count() + 1,
        countries=["DE"],
        law="Directive 2011/83/EU",
        withdrawal_days=14,
        title={"en": "Right of withdrawal"},
        explanation={"en": "You can leave within 14 days."},
        waiver={},
        published_at=NOW,
    )
    Order.objects.filter(pk=order.pk).update(right=right, withdraw_until=until)
    order.refresh_from_db()
    return order


def opened(
    order: Order,
    *,
    matter: Matter = Matter.DISPUTE,
    subject: str = "Charged twice",
    body: str = "My bank shows two payments.",
    now: datetime = NOW,
) -> Case:
    return open_case(
        order_id=order.pk,
        customer_id=order.customer_id,
        matter=matter,
        subject=subject,
        body=body,
        now=now,
    )


def asked_for_refund(
    order: Order, ground: Ground = Ground.LAW, legal_basis: str = "Cap. 362, s. 7", body: str = "It applies."
) -> Case:
    return open_case(
        order_id=order.pk,
        customer_id=order.customer_id,
        matter=Matter.REFUND,
        subject="Refund",
        ground=ground,
        legal_basis=legal_basis,
        body=body,
        now=NOW,
    )


def customer_writes(case: Case, body: str, *, now: datetime = LATER) -> CaseMessage:
    return write(case_id=case.pk, author_id=case.order.customer_id, side=Side.CUSTOMER, body=body, now=now)


def staff_writes(case: Case, staff: User, body: str, *, now: datetime = LATER) -> CaseMessage:
    return write(case_id=case.pk, author_id=staff.pk, side=Side.PLATFORM, body=body, now=now)


def staff_closes(case: Case, staff: User, outcome: Outcome, body: str = "Thank you.") -> Case:
    return close_case(
        case_id=case.pk, author_id=staff.pk, side=Side.PLATFORM, outcome=outcome, body=body, now=LATER
    )


def customer_closes(case: Case, outcome: Outcome, body: str = "Never mind.") -> Case:
    return close_case(
        case_id=case.pk,
        author_id=case.order.customer_id,
        side=Side.CUSTOMER,
        outcome=outcome,
        body=body,
        now=LATER,
    )


def said(case: Case) -> list[tuple[str, str]]:
    return list(case.messages.order_by("pk").values_list("side", "body"))


def told(kind: str) -> list[str]:
    """The bodies of the notices of a kind, as the customer reads them."""
    return [render(notice).body for notice in Notice.objects.filter(kind=kind).order_by("pk")]


# --- opening -------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_an_open_case_waits_for_the_platform_and_keeps_the_customers_words(order: Order) -> None:
    case = opened(order, subject=" Charged twice ", body=" First line.\r\n\r\nSecond line. ")
    assert (case.order, case.matter, case.subject, case.state) == (
        order,
        Matter.DISPUTE,
        "Charged twice",
        CaseState.OPEN,
    )
    assert (case.opened_at, case.first_answered_at, case.outcome, case.closed_at) == (NOW, None, None, None)
    assert said(case) == [(Side.CUSTOMER, "First line.\n\nSecond line.")]
    message = case.messages.get()
    assert (message.author, message.written_at, message.chain_number) == (order.customer, NOW, 1)


@pytest.mark.clause("II")
def test_an_opened_case_is_acknowledged_with_the_customers_own_words(order: Order) -> None:
    case = opened(order, body="My bank shows two payments.\nBoth <b>today</b> & yesterday.")
    notice = Notice.objects.get()
    assert (notice.recipient, notice.about, notice.url) == (
        order.customer,
        order.reference,
        f"/cases/{case.reference}/",
    )
    text = render(notice)
    assert text.subject == f"Order {order.reference}: we have received your message"
    assert text.body == (
        f"On Nov. 23, 2026, noon (HKT) we received your message about order {order.reference}: Charged twice\n\n"
        "Your words:\n\n"
        "My bank shows two payments.\nBoth <b>today</b> & yesterday.\n\n"
        "A member of staff answers by the end of Nov. 28, 2026 (Hong Kong). "
        f"The reference of your case is {case.reference}."
    )


@pytest.mark.clause("II")
@pytest.mark.parametrize(
    ("opened_at", "last_day", "due"),
    [
        # A minute before midnight in Hong Kong, and midnight itself.
        (
            datetime(2026, 11, 23, 15, 59, tzinfo=UTC),
            date(2026, 11, 28),
            datetime(2026, 11, 28, 16, tzinfo=UTC),
        ),
        (
            datetime(2026, 11, 23, 16, 0, tzinfo=UTC),
            date(2026, 11, 29),
            datetime(2026, 11, 29, 16, tzinfo=UTC),
        ),
    ],
)
def test_the_first_answer_is_due_at_the_end_of_a_hong_kong_day(
    order: Order, settings: Settings, opened_at: datetime, last_day: date, due: datetime
) -> None:
    settings.CASE_ANSWER_DAYS = 5
    case = opened(order, now=opened_at)
    assert (case.last_day_to_answer, case.answer_due_at) == (last_day, due)


def test_the_same_words_again_are_the_same_case(order: Order) -> None:
    first = opened(order)
    assert opened(order, now=LATER) == first
    assert (Case.objects.count(), CaseMessage.objects.count(), Notice.objects.count()) == (1, 1, 1)


def test_the_same_words_after_the_case_was_closed_are_a_new_case(order: Order) -> None:
    first = opened(order)
    customer_closes(first, Outcome.DROPPED)
    assert opened(order) != first


def test_a_fourth_open_case_about_an_order_is_refused_until_one_is_closed(order: Order) -> None:
    cases = [opened(order, subject=f"Matter {number}") for number in range(3)]
    with pytest.raises(CaseRefused, match=r"^3 cases about this order are open already"):
        opened(order, subject="Matter 4")
    customer_closes(cases[0], Outcome.DROPPED)
    assert opened(order, subject="Matter 4").state == CaseState.OPEN
    assert Case.objects.count() == 4


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"body": " \r\n "}, "Please write a message."),
        ({"subject": "  "}, "Please say what it is about."),
        ({"body": "x" * (LONGEST + 1)}, "Please keep it to 8000 characters; this has 8001."),
    ],
)
def test_a_case_without_words_or_with_too_many_is_refused(
    order: Order, change: dict[str, str], message: str
) -> None:
    with pytest.raises(CaseRefused) as refused:
        opened(order, **change)  # type: ignore[arg-type]
    assert str(refused.value) == message
    assert (Case.objects.count(), Notice.objects.count()) == (0, 0)


def test_an_order_of_somebody_else_cannot_be_argued_about(order: Order) -> None:
    with pytest.raises(Order.DoesNotExist):
        open_case(
            order_id=order.pk,
            customer_id=make_user().pk,
            matter=Matter.DISPUTE,
            subject="Mine",
            body="Mine",
            now=NOW,
        )
    assert not Case.objects.exists()


# --- withdrawal ----------------------------------------------------------------------------------------


@pytest.mark.clause("3.3", "II")
def test_a_withdrawal_is_acknowledged_with_its_words_and_its_time(order: Order) -> None:
    case = opened(with_right(order), matter=Matter.WITHDRAWAL, subject="Withdrawal", body="I withdraw.")
    text = render(Notice.objects.get())
    assert text.subject == f"Order {order.reference}: we have received your withdrawal"
    assert text.body == (
        f"On Nov. 23, 2026, noon (HKT) we received your statement of withdrawal from order {order.reference}. "
        "This message acknowledges its receipt; please keep it.\n\n"
        "Your words:\n\nI withdraw.\n\n"
        "A member of staff answers by the end of Nov. 28, 2026 (Hong Kong). "
        f"The reference of your case is {case.reference}."
    )


def test_an_order_that_is_not_paid_yet_can_be_withdrawn_from(fee: Fee) -> None:
    order = with_right(make_order([(fee, 1)], placed_at=NOW))
    assert opened(order, matter=Matter.WITHDRAWAL).state == CaseState.OPEN


@pytest.mark.clause("3.3")
def test_without_a_right_nobody_withdraws(order: Order) -> None:
    with pytest.raises(CaseRefused, match=r"^This order cannot be withdrawn from"):
        opened(order, matter=Matter.WITHDRAWAL)


@pytest.mark.clause("3.3")
def test_a_right_ends_at_its_moment(order: Order) -> None:
    with_right(order, until=LATER)
    with pytest.raises(CaseRefused):
        opened(order, matter=Matter.WITHDRAWAL, now=LATER)
    assert opened(order, matter=Matter.WITHDRAWAL, now=LATER - timedelta(microseconds=1)).order == order


def test_an_order_that_expired_unpaid_is_not_withdrawn_from(fee: Fee) -> None:
    order = with_right(make_order([(fee, 1)], placed_at=NOW))
    Order.objects.update(state=OrderState.EXPIRED)
    with pytest.raises(CaseRefused):
        opened(order, matter=Matter.WITHDRAWAL)


def test_nobody_withdraws_twice_and_the_first_case_is_named(order: Order) -> None:
    first = opened(with_right(order), matter=Matter.WITHDRAWAL, body="I withdraw.")
    with pytest.raises(CaseRefused) as refused:
        opened(order, matter=Matter.WITHDRAWAL, body="I withdraw, really.")
    assert str(refused.value) == f"You have withdrawn from this order already, in case {first}."


def test_open_disagreements_do_not_keep_anybody_from_withdrawing(order: Order) -> None:
    for number in range(3):
        opened(order, subject=f"Matter {number}")
    assert opened(with_right(order), matter=Matter.WITHDRAWAL).matter == Matter.WITHDRAWAL


# --- asking for a refund -------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("ground", "legal_basis", "said"),
    [
        (
            Ground.LAW,
            "Cap. 362, s. 7",
            "The ground you name is that a law requires it (clause 3.3): Cap. 362, s. 7",
        ),
        (
            Ground.UNABLE_TO_SUPPLY,
            "",
            "The ground you name is that the platform is unable to supply (clause 3.3).",
        ),
    ],
)
def test_request_for_a_refund_names_its_ground_and_is_acknowledged_with_it(
    order: Order, ground: Ground, legal_basis: str, said: str
) -> None:
    case = asked_for_refund(order, ground, legal_basis)

    assert (case.matter, case.ground, case.legal_basis) == (Matter.REFUND, ground, legal_basis)
    text = render(Notice.objects.get())
    assert text.subject == f"Order {order.reference}: we have received your request for a refund"
    assert text.body.startswith(
        f"On Nov. 23, 2026, noon (HKT) we received your request for a refund of order {order.reference}. {said}"
    )
    # It is asked for, and nothing has moved.
    assert (order.refunds.count(), order.lines.get().state) == (0, "waiting")


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    ("matter", "ground", "legal_basis"),
    [
        (Matter.REFUND, None, ""),
        (Matter.REFUND, Ground.LAW, " "),
        (Matter.REFUND, Ground.UNABLE_TO_SUPPLY, "Cap. 362, s. 7"),
        (Matter.DISPUTE, Ground.LAW, "Cap. 362, s. 7"),
    ],
)
def test_only_a_request_for_a_refund_has_a_ground_and_only_the_law_a_rule(
    order: Order, matter: Matter, ground: Ground | None, legal_basis: str
) -> None:
    with pytest.raises(CaseRefused):
        open_case(
            order_id=order.pk,
            customer_id=order.customer_id,
            matter=matter,
            subject="Refund",
            ground=ground,
            legal_basis=legal_basis,
            body="Please.",
            now=NOW,
        )
    with pytest.raises(IntegrityError, match="refund_on_a_ground"), transaction.atomic():
        Case.objects.create(
            reference="CS-1",
            order=order,
            matter=matter,
            subject="Refund",
            ground=ground,
            legal_basis=legal_basis.strip(),
            opened_at=NOW,
            answer_due_at=LATER,
        )


@pytest.mark.clause("3.3")
def test_refund_is_asked_for_once_at_a_time(order: Order, staff: User) -> None:
    first = asked_for_refund(order)
    assert asked_for_refund(order) == first
    with pytest.raises(CaseRefused, match=f"already, in case {first.reference}"):
        asked_for_refund(order, body="And another reason.")
    staff_closes(first, staff, Outcome.NOT_SETTLED)
    assert asked_for_refund(order, body="And another reason.") != first


@pytest.mark.clause("3.3")
def test_no_refund_is_asked_for_of_what_is_not_paid_or_refunded_already(order: Order) -> None:
    unpaid = make_order([(order.lines.get().fee, 1)], placed_at=NOW)
    with pytest.raises(CaseRefused, match="paid and not refunded"):
        asked_for_refund(unpaid)
    order.lines.update(state="withdrawn", withdrawn=F("quantity"))
    with pytest.raises(CaseRefused, match="paid and not refunded"):
        asked_for_refund(order)


# --- writing -------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_whoever_has_not_written_last_is_waited_for(order: Order, staff: User) -> None:
    case = opened(order)
    states = []
    for step, word in enumerate((staff_writes, customer_writes, staff_writes), start=1):
        now = NOW + timedelta(hours=step)
        if word is staff_writes:
            staff_writes(case, staff, f"Word {step}", now=now)
        else:
            customer_writes(case, f"Word {step}", now=now)
        case.refresh_from_db()
        states.append((case.state, case.first_answered_at))
    first_answer = NOW + timedelta(hours=1)
    assert states == [
        (CaseState.ANSWERED, first_answer),
        (CaseState.OPEN, first_answer),
        (CaseState.ANSWERED, first_answer),
    ]
    assert said(case) == [
        (Side.CUSTOMER, "My bank shows two payments."),
        (Side.PLATFORM, "Word 1"),
        (Side.CUSTOMER, "Word 2"),
        (Side.PLATFORM, "Word 3"),
    ]


@pytest.mark.clause("II")
def test_the_customer_is_told_of_every_answer_and_not_of_his_own_words(order: Order, staff: User) -> None:
    case = opened(order)
    staff_writes(case, staff, "We look into it.")
    customer_writes(case, "Thanks.")
    staff_writes(case, staff, "One of them was returned.")
    start = f"We have answered in your case {case.reference} about order {order.reference}:\n\n"
    end = "\n\nWrite back on the page of the case: what is sent in reply to this message does not reach it."
    assert told("case-answered") == [
        f"{start}We look into it.{end}",
        f"{start}One of them was returned.{end}",
    ]


@pytest.mark.parametrize("side", Side)
def test_a_second_click_does_not_say_it_twice(order: Order, staff: User, side: Side) -> None:
    case = opened(order)
    author = staff.pk if side == Side.PLATFORM else order.customer_id
    first, second = (
        write(case_id=case.pk, author_id=author, side=side, body="Once.", now=LATER) for _click in range(2)
    )
    assert first == second
    assert said(case) == [(Side.CUSTOMER, "My bank shows two payments."), (side, "Once.")]
    assert len(told("case-answered")) == (1 if side == Side.PLATFORM else 0)


def test_the_same_words_count_again_when_the_other_side_has_written_between(
    order: Order, staff: User
) -> None:
    case = opened(order)
    customer_writes(case, "And now?")
    staff_writes(case, staff, "Soon.")
    customer_writes(case, "And now?")
    assert [body for _side, body in said(case)[1:]] == ["And now?", "Soon.", "And now?"]


def test_a_customer_writes_in_his_own_cases_only(order: Order) -> None:
    case = opened(order)
    with pytest.raises(Case.DoesNotExist):
        write(case_id=case.pk, author_id=make_user().pk, side=Side.CUSTOMER, body="Hello", now=NOW)
    assert len(said(case)) == 1


def test_a_message_without_words_is_refused(order: Order, staff: User) -> None:
    case = opened(order)
    with pytest.raises(CaseRefused, match=r"^Please write a message"):
        staff_writes(case, staff, " \n ")
    case.refresh_from_db()
    assert (case.state, len(said(case))) == (CaseState.OPEN, 1)


# --- closing -------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
@pytest.mark.parametrize(
    ("outcome", "began", "ended"),
    [
        (Outcome.SETTLED, "is closed as settled: Charged twice", "Thank you."),
        (
            Outcome.NOT_SETTLED,
            "is closed without a settlement: Charged twice",
            (
                "Thank you.\n\nEither party may now submit the dispute to the courts with jurisdiction in the "
                "Hong Kong Special Administrative Region for litigation (clause II of the agreement)."
            ),
        ),
    ],
)
def test_staff_close_a_case_as_settled_or_not_and_the_customer_is_told(
    order: Order, staff: User, outcome: Outcome, began: str, ended: str
) -> None:
    case = staff_closes(opened(order), staff, outcome)
    assert (case.state, case.outcome, case.closed_at) == (CaseState.CLOSED, outcome, LATER)
    assert said(case)[1:] == [(Side.PLATFORM, "Thank you.")]
    assert told("case-closed") == [
        f"Your case {case.reference} about order {order.reference} {began}\n\nOur last words:\n\n{ended}"
    ]


def test_the_platforms_last_word_is_its_first_answer_if_there_was_none(order: Order, staff: User) -> None:
    assert staff_closes(opened(order), staff, Outcome.SETTLED).first_answered_at == LATER
    assert customer_closes(opened(order), Outcome.SETTLED).first_answered_at is None


@pytest.mark.parametrize(
    ("outcome", "began"),
    [
        (Outcome.SETTLED, "Your case {case} about order {order} is closed as settled: Charged twice"),
        (Outcome.DROPPED, "You have dropped your case {case} about order {order}: Charged twice"),
    ],
)
def test_a_customer_agrees_or_drops_his_case_and_gets_it_in_writing(
    order: Order, outcome: Outcome, began: str
) -> None:
    case = customer_closes(opened(order), outcome)
    assert (case.state, case.outcome, case.closed_at) == (CaseState.CLOSED, outcome, LATER)
    assert said(case)[1:] == [(Side.CUSTOMER, "Never mind.")]
    began = began.format(case=case.reference, order=order.reference)
    assert told("case-closed") == [f"{began}\n\nYour last words:\n\nNever mind."]


def test_neither_side_ends_a_case_in_the_others_name(order: Order, staff: User) -> None:
    case = opened(order)
    with pytest.raises(CaseRefused, match=r"^A case cannot be closed like this"):
        customer_closes(case, Outcome.NOT_SETTLED)
    with pytest.raises(CaseRefused, match=r"^A case cannot be closed like this"):
        staff_closes(case, staff, Outcome.DROPPED)
    case.refresh_from_db()
    assert (case.state, len(said(case))) == (CaseState.OPEN, 1)


@pytest.mark.clause("II")
def test_a_closed_case_takes_no_more_words(order: Order, staff: User) -> None:
    case = staff_closes(opened(order), staff, Outcome.SETTLED)
    with pytest.raises(CaseRefused, match=r"^This case is closed\."):
        customer_writes(case, "But!")
    with pytest.raises(CaseRefused, match=r"^This case is closed\."):
        staff_writes(case, staff, "And!")
    with pytest.raises(CaseRefused, match=r"^This case is closed already: settled"):
        customer_closes(case, Outcome.DROPPED)
    case.refresh_from_db()
    assert (case.state, case.outcome, len(said(case))) == (CaseState.CLOSED, Outcome.SETTLED, 2)


def test_a_case_closed_by_two_clicks_is_closed_once(order: Order, staff: User) -> None:
    case = opened(order)
    assert staff_closes(case, staff, Outcome.SETTLED) == staff_closes(case, staff, Outcome.SETTLED)
    assert (len(said(case)), len(told("case-closed"))) == (2, 1)


# --- cases that wait too long --------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_a_late_first_answer_is_put_before_staff_once(order: Order) -> None:
    case = opened(order)
    due = case.answer_due_at
    assert report_overdue_cases(now=due - timedelta(microseconds=1)) == 0
    assert not ReviewItem.objects.exists()
    for hours in range(3):
        assert report_overdue_cases(now=due + timedelta(hours=hours)) == 1
    item = ReviewItem.objects.get()
    assert (item.kind, item.order, item.opened_at) == (ReviewKind.CASE_OVERDUE, order, due)
    assert item.detail == f"Case {case.reference} was to be answered by 2026-11-28: Charged twice"


def test_answered_and_closed_cases_are_not_late(order: Order, staff: User) -> None:
    answered = opened(order, subject="Answered")
    staff_writes(answered, staff, "Yes.")
    customer_writes(answered, "No.")
    customer_closes(opened(order, subject="Closed"), Outcome.DROPPED)
    assert report_overdue_cases(now=answered.answer_due_at) == 0


def test_the_job_reports_cases(order: Order) -> None:
    opened(order, now=datetime(2020, 1, 1, tzinfo=UTC))
    report_overdue_cases_job()
    assert ReviewItem.objects.count() == 1


# --- evidence ------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
def test_no_message_and_no_outcome_is_changed_or_deleted_by_sql(order: Order, staff: User) -> None:
    case = staff_closes(opened(order), staff, Outcome.SETTLED)
    for sql in (
        "UPDATE orders_casemessage SET body = 'Nothing happened.'",
        "DELETE FROM orders_casemessage",
        "UPDATE orders_case SET outcome = 'dropped'",
        "UPDATE orders_case SET first_answered_at = answer_due_at",
        "DELETE FROM orders_case",
    ):
        with (
            pytest.raises(DatabaseError, match="refused"),
            transaction.atomic(),
            connection.cursor() as cursor,
        ):
            cursor.execute(sql)
    assert said(case) == [
        (Side.CUSTOMER, "My bank shows two payments."),
        (Side.PLATFORM, "Thank you."),
    ]


@pytest.fixture
def _without_triggers(transactional_db: None) -> Iterator[None]:
    """What somebody who owns the database can do: drop the trigger, and put it back when he is done."""
    with connection.cursor() as cursor:
        on_table = " ON orders_casemessage" if connection.vendor == "postgresql" else ""
        cursor.execute(f"DROP TRIGGER orders_casemessage_no_update{on_table}")
    yield
    install_triggers(using="default")


@pytest.mark.clause("II")
@pytest.mark.usefixtures("_without_triggers")
def test_a_message_altered_behind_the_triggers_back_is_found(order: Order, staff: User) -> None:
    case = opened(order)
    answer = staff_writes(case, staff, "You get it back.")
    customer_writes(case, "Thanks.")
    with connection.cursor() as cursor:
        cursor.execute("UPDATE orders_casemessage SET body = 'No.' WHERE id = %s", [answer.pk])
    install_triggers(using="default")
    findings = verify_evidence(now=NOW).findings
    assert findings["triggers"] == ()
    assert findings["chains"] == (f"orders.CaseMessage number 2 (id {answer.pk}) was altered.",)


# --- at once -------------------------------------------------------------------------------------------


@pytest.mark.clause("II")
@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_both_sides_writing_at_once_are_both_on_record_one_after_the_other() -> None:
    order = make_order([(make_fee(make_plan()), 1)], paid_at=NOW)
    staff = make_user(is_staff=True)
    case = opened(order)
    outcomes = race(
        *(lambda n=n: customer_writes(case, f"Customer {n}") for n in range(4)),
        *(lambda n=n: staff_writes(case, staff, f"Staff {n}") for n in range(4)),
    )
    assert failures(outcomes) == []
    case.refresh_from_db()
    words = said(case)
    assert sorted(body for _side, body in words[1:]) == [
        *(f"Customer {n}" for n in range(4)),
        *(f"Staff {n}" for n in range(4)),
    ]
    # The state is that of the last word, and the chain is in the order of the thread.
    waits_for = CaseState.ANSWERED if words[-1][0] == Side.PLATFORM else CaseState.OPEN
    assert case.state == waits_for
    assert list(case.messages.order_by("pk").values_list("chain_number", flat=True)) == list(range(1, 10))
    assert verify_evidence(now=NOW).findings["chains"] == ()


def write_while_it_is_being_closed() -> Any:
    """Start to write, from the other side, while a case is closed but the closing is not committed yet."""
    order = make_order([(make_fee(make_plan()), 1)], paid_at=NOW)
    case = opened(order)
    with transaction.atomic():
        Case.objects.select_for_update(no_key=True).get(pk=case.pk)
        Case.objects.filter(pk=case.pk).update(
            state=CaseState.CLOSED, outcome=Outcome.SETTLED, closed_at=LATER
        )
        late = in_background(lambda: customer_writes(case, "One more thing."))
        wait_until_blocked()
    return late.exception(60)


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_a_word_that_comes_while_the_case_is_closed_is_refused() -> None:
    refused = write_while_it_is_being_closed()
    assert isinstance(refused, CaseRefused)
    assert Case.objects.get().state == CaseState.CLOSED
    assert CaseMessage.objects.count() == 1


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_control_without_the_cases_lock_only_the_database_keeps_it_closed(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(QuerySet, "select_for_update", lambda rows, **_: rows)
    assert isinstance(write_while_it_is_being_closed(), IntegrityError)


def click_twice_at_once() -> list[Any]:
    """Two clicks on one button that both have looked for the case before either has written it."""
    fee = make_fee(make_plan())
    opened(make_order([(fee, 1)], paid_at=NOW))  # the chain has begun
    order = make_order([(fee, 1)], paid_at=NOW)
    with transaction.atomic():
        # As the head of the chain would be held by somebody else's message.
        list(ChainHead.objects.filter(pk=CHAIN).select_for_update())
        clicks = [in_background(lambda: opened(order)) for _ in range(2)]
        wait_until_blocked(2)
    return [click.result(60) for click in clicks]


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_two_clicks_at_once_open_one_case() -> None:
    first, second = click_twice_at_once()
    assert first == second
    assert Case.objects.count() == 2


@pytest.mark.postgres
@pytest.mark.django_db(transaction=True)
def test_control_without_the_orders_lock_two_clicks_open_two_cases(monkeypatch: pytest.MonkeyPatch) -> None:
    locked = QuerySet.select_for_update
    monkeypatch.setattr(
        QuerySet,
        "select_for_update",
        lambda rows, **how: rows if rows.model is Order else locked(rows, **how),
    )
    first, second = click_twice_at_once()
    assert first != second
    assert Case.objects.count() == 3
