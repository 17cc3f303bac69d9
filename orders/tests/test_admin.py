"""The desk of the sale: the queue as it is served, and decisions about money by two people."""

from collections.abc import Iterator
from datetime import timedelta
from html import unescape
from typing import Any

import pytest
from django.contrib.admin.models import LogEntry
from django.contrib.auth.models import Permission
from django.test import Client, override_settings
from django.urls import reverse
from django.utils import timezone
from pytest_django import Settings

from accounts.models import User
from agreements.rights import publish_rights
from orders.admin.redaction import body_shown
from orders.models import (
    Allocation,
    Basis,
    Cause,
    EntryKind,
    Estimate,
    Forecast,
    Ground,
    LedgerEntry,
    LineState,
    MoneyReturn,
    Order,
    OrderLine,
    PaymentAttempt,
    Refund,
    RefundState,
    ReturnReason,
    ReturnState,
    ReviewItem,
    ReviewKind,
)
from orders.queue import units_ahead
from orders.tasks import sweep
from tests.builders import (
    NOW,
    make_devices,
    make_fee,
    make_line,
    make_order,
    make_plan,
    make_user,
    make_webhook,
)

QUEUE = reverse("admin:orders_orderline_changelist")


@pytest.fixture
def staff() -> User:
    return make_user("staff@example.com", is_staff=True)


@pytest.fixture
def desk(client: Client, staff: User) -> Client:
    client.force_login(staff)
    return client


@pytest.fixture
def second_desk() -> Client:
    client = Client()
    client.force_login(make_user("second@example.com", is_staff=True))
    return client


@pytest.fixture
def _eager_jobs() -> Iterator[None]:
    sweep.app.conf.task_always_eager = True
    yield
    sweep.app.conf.task_always_eager = False


def paid_order(quantity: int = 3) -> Order:
    order = make_order([(make_fee(make_plan()), quantity)], paid_at=NOW)
    attempt = PaymentAttempt.objects.create(
        order=order,
        reference=f"{order.reference}-1",
        method="card",
        gateway="sandbox",
        amount_minor=order.total_minor,
        currency=order.currency,
        created_at=NOW,
        expires_at=NOW,
    )
    LedgerEntry.objects.create(
        order=order,
        attempt=attempt,
        gateway="sandbox",
        kind=EntryKind.CAPTURE,
        transaction_id=f"T-{order.reference}",
        minor=order.total_minor,
        currency=order.currency,
        occurred_at=NOW,
        recorded_at=NOW,
    )
    return order


def requested_refund(desk: Client) -> Refund:
    order = paid_order()
    line = order.lines.get()
    desk.post(
        reverse("admin:orders_order_request_refund", args=[order.pk]),
        {
            "ground": Ground.LAW,
            "rule": "other",
            "other_law": "Consumer Act, section 7",
            "explanation": "Consumer law, 14 days.",
            f"units_{line.pk}": 2,
        },
    )
    return Refund.objects.get()


def ahead(line: Any) -> Any:
    """What the list shows of it."""
    return line.standing.ahead if line.standing else None


def lines_of(desk: Client, **query: str) -> list[OrderLine]:
    return list(desk.get(QUEUE, query).context["cl"].result_list)


# --- queue -----------------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_the_queue_lists_waiting_lines_in_the_order_of_payment_with_the_units_ahead(desk: Client) -> None:
    fee = make_fee(make_plan())
    late = make_line(fee, quantity=4, paid_at=NOW + timedelta(minutes=2))
    first = make_line(fee, quantity=2, paid_at=NOW)
    same_moment = make_line(fee, quantity=1, paid_at=NOW)
    make_order([(fee, 9)])
    lines = lines_of(desk)
    assert [(line.pk, ahead(line)) for line in lines] == [
        (first.pk, 0),
        (same_moment.pk, 2),
        (late.pk, 3),
    ]


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_the_units_ahead_are_those_of_the_whole_queue_whatever_is_searched_for(desk: Client) -> None:
    one, other = make_fee(make_plan()), make_fee(make_plan("V06"))
    seeker = make_user("seeker@example.com")
    for number in range(12):
        fee = one if number % 2 else other
        customer = seeker if number in (3, 6, 7, 11) else None
        make_line(fee, quantity=1 + number, paid_at=NOW + timedelta(minutes=number), customer=customer)
    shown = lines_of(desk, q="seeker@")
    assert len(shown) == 4
    assert {line.pk: ahead(line) for line in shown} == {line.pk: units_ahead(line) for line in shown}
    assert sorted(ahead(line) for line in shown) == [2, 9, 12, 30]


@pytest.mark.django_db
def test_lines_that_do_not_wait_are_shown_only_when_asked_for_and_without_a_place(desk: Client) -> None:
    fee = make_fee(make_plan())
    waiting = make_line(fee, paid_at=NOW)
    unpaid = make_order([(fee, 1)]).lines.get()
    assert lines_of(desk) == [waiting]
    assert lines_of(desk, state=LineState.UNPAID) == [unpaid]
    assert {line.pk: ahead(line) for line in lines_of(desk, state="all")} == {waiting.pk: 0, unpaid.pk: None}


@pytest.mark.django_db
def test_the_queue_shows_the_newest_estimate(desk: Client) -> None:
    line = make_line(make_fee(make_plan()), paid_at=NOW)
    forecast = Forecast.objects.create(plan=line.plan, made_at=NOW, inputs={})
    for number, days in enumerate((10, 20), start=1):
        day = NOW.date() + timedelta(days=days)
        Estimate.objects.create(
            line=line,
            number=number,
            made_at=NOW,
            earliest=day,
            likely=day,
            latest=day + timedelta(days=5),
            next_update_by=day,
            basis=Basis.SUPPLY,
            cause=Cause.PAYMENT,
            units_ahead=0,
            forecast=forecast,
        )
    assert "12/13/2026 – 12/18/2026" in desk.get(QUEUE).content.decode()


@pytest.mark.clause("1.1")
@pytest.mark.usefixtures("_eager_jobs")
@pytest.mark.django_db
def test_a_sweep_is_run_from_the_page_of_a_plan(desk: Client) -> None:
    plan = make_plan()
    line = make_line(make_fee(plan), quantity=2, paid_at=NOW - timedelta(days=1))
    devices = make_devices(plan, 1)
    address = reverse("admin:inventory_plan_run_sweep", args=[plan.pk])
    desk.get(address)
    assert not Allocation.objects.exists()
    desk.post(address, {"confirmed": "yes"})
    assert [(a.line, a.device) for a in Allocation.objects.all()] == [(line, devices[0])]


@pytest.mark.django_db
@override_settings(ALLOCATION_HOLD_BACK=timedelta(minutes=10))
def test_the_page_of_a_sweep_tells_what_is_held_back(desk: Client) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_line(fee, quantity=2, paid_at=timezone.now() - timedelta(minutes=30))
    make_line(fee, quantity=5, paid_at=timezone.now() - timedelta(minutes=1))
    make_devices(plan, 1)
    page = desk.get(reverse("admin:inventory_plan_run_sweep", args=[plan.pk]))
    assert page.context["intro"].startswith(
        "1 devices are free, 7 units wait. 5 of them were paid less than 10 minutes ago"
    )


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_a_dry_run_shows_who_would_get_what(desk: Client) -> None:
    plan = make_plan()
    line = make_line(
        make_fee(plan), quantity=3, paid_at=NOW - timedelta(days=1), customer=make_user("first@example.com")
    )
    codes = [device.code for device in make_devices(plan, 2)]
    answer = desk.get(reverse("admin:inventory_plan_dry_run", args=[plan.pk]))
    page = " ".join(answer.content.decode().split())
    assert "If the sweep ran now, 2 devices would be allocated, in this order." in page
    for said in (str(line.pk), line.order.reference, "first@example.com", "2 of 3", ", ".join(codes)):
        assert said in page
    assert not Allocation.objects.exists()


@pytest.mark.django_db
def test_a_dry_run_with_nothing_to_do_says_so(desk: Client) -> None:
    page = desk.get(reverse("admin:inventory_plan_dry_run", args=[make_plan().pk])).content.decode()
    assert "nothing would be allocated" in page


@pytest.mark.django_db
def test_staff_see_how_the_dates_of_a_plan_have_held(desk: Client) -> None:
    plan = make_plan()
    address = reverse("admin:inventory_plan_track_record", args=[plan.pk])
    assert "There is nothing to judge yet." in desk.get(address).content.decode()
    line = make_line(make_fee(plan), paid_at=NOW)
    day = (timezone.now() - timedelta(days=5)).date()
    Estimate.objects.create(
        line=line,
        number=1,
        made_at=NOW,
        earliest=day,
        likely=day,
        latest=day,
        next_update_by=day,
        basis=Basis.SUPPLY,
        cause=Cause.PAYMENT,
        units_ahead=0,
        forecast=Forecast.objects.create(plan=plan, made_at=NOW, inputs={}),
    )
    page = " ".join(desk.get(address).content.decode().split())
    assert "0 of 1 order was complete" in page


@pytest.mark.parametrize("page", ["dry_run", "track_record"])
@pytest.mark.django_db
def test_pages_about_a_plan_are_for_staff_who_may_view_plans(client: Client, page: str) -> None:
    clerk = User.objects.create_user("clerk@example.com", "a long pass phrase", is_staff=True)
    client.force_login(clerk)
    address = reverse(f"admin:inventory_plan_{page}", args=[make_plan().pk])
    assert client.get(address).status_code == 403
    clerk.user_permissions.add(Permission.objects.get(codename="view_plan"))
    assert client.get(address).status_code == 200


# --- orders ----------------------------------------------------------------------------------------------


@pytest.mark.parametrize("by", ["reference", "email", "device"])
@pytest.mark.django_db
def test_an_order_is_found_by_what_people_read_out(desk: Client, by: str) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    buyer = make_user("buyer@example.com")
    order = make_order([(fee, 1)], paid_at=NOW, customer=buyer)
    make_order([(fee, 1)], paid_at=NOW)
    device = make_devices(plan, 1)[0]
    Allocation.objects.create(
        line=order.lines.get(), unit=1, device=device, starts_at=NOW, ends_at=NOW + timedelta(days=30)
    )
    term = {"reference": order.reference.lower(), "email": "Buyer@", "device": device.code}[by]
    answer = desk.get(reverse("admin:orders_order_changelist"), {"q": f" {term} "})
    assert list(answer.context["cl"].result_list) == [order]


@pytest.mark.django_db
def test_the_list_of_orders_shows_totals_in_their_currency_and_the_units_that_wait(desk: Client) -> None:
    order = make_order([(make_fee(make_plan(), minor=1234), 2)], paid_at=NOW)
    make_line(order.lines.get().fee, quantity=7, paid_at=NOW)
    answer = desk.get(reverse("admin:orders_order_changelist"), {"q": order.reference})
    assert answer.context["cl"].result_list[0].waiting == 2
    assert "$24.68" in answer.content.decode()


@pytest.mark.django_db
def test_the_page_of_an_order_shows_its_phones_and_not_those_of_others(desk: Client) -> None:
    plan = make_plan()
    fee = make_fee(plan)
    own, others = make_devices(plan, 2)
    order = make_order([(fee, 1)], paid_at=NOW)
    for line, device in ((order.lines.get(), own), (make_line(fee, paid_at=NOW), others)):
        Allocation.objects.create(
            line=line, unit=1, device=device, starts_at=NOW, ends_at=NOW + timedelta(days=30)
        )
    page = desk.get(reverse("admin:orders_order_change", args=[order.pk])).content.decode()
    assert own.code in page
    assert others.code not in page


# --- money -----------------------------------------------------------------------------------------------


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_a_refund_is_asked_for_on_a_ground_of_the_agreement_and_nothing_leaves_the_queue(
    desk: Client, staff: User
) -> None:
    refund = requested_refund(desk)
    line = refund.order.lines.get()
    assert (refund.ground, refund.explanation, refund.requested_by) == (
        Ground.LAW,
        "Consumer law, 14 days.",
        staff,
    )
    assert (refund.state, refund.minor, line.waiting_units) == (RefundState.REQUESTED, 998, 3)
    assert LogEntry.objects.get().get_change_message() == f"Requested refund {refund}."


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_the_right_of_an_order_is_offered_as_the_rule_and_who_decides_reads_it(
    desk: Client, second_desk: Client, settings: Settings
) -> None:
    settings.STATUTORY_RIGHTS = ["eu"]
    (right,) = publish_rights(now=NOW)
    order = paid_order()
    Order.objects.filter(pk=order.pk).update(right=right, withdraw_until=NOW)
    address = reverse("admin:orders_order_request_refund", args=[order.pk])
    assert desk.get(address).context["form"].fields["rule"].choices == [
        ("", "none"),
        ("right", "Directive 2011/83/EU, articles 9 to 16"),
        ("other", "another law, named below"),
    ]
    data = {"ground": Ground.LAW, "rule": "right", "explanation": "He withdrew on day 3."}
    desk.post(address, data | {f"units_{order.lines.get().pk}": 1})
    refund = Refund.objects.get()
    assert (refund.legal_basis, refund.right) == (right.law, right)
    for page in ("approve", "reject", "change"):
        shown = second_desk.get(reverse(f"admin:orders_refund_{page}", args=[refund.pk])).content.decode()
        assert "Directive 2011/83/EU, articles 9 to 16" in shown


@pytest.mark.clause("3.3")
@pytest.mark.parametrize(
    "change",
    [
        {"ground": "changed-mind"},
        {"rule": ""},
        {"rule": "right"},
        {"other_law": " "},
        {"ground": Ground.UNABLE_TO_SUPPLY},
        {"explanation": " "},
        {"units": 4},
        {"units": 0},
        {"units": -1},
    ],
)
@pytest.mark.django_db
def test_a_refund_without_ground_explanation_or_waiting_units_is_refused(
    desk: Client, change: dict[str, object]
) -> None:
    order = paid_order(quantity=3)
    data = {
        "ground": Ground.LAW,
        "rule": "other",
        "other_law": "Consumer Act, section 7",
        "explanation": "Consumer law, 14 days.",
        "units": 2,
        **change,
    }
    data[f"units_{order.lines.get().pk}"] = data.pop("units")
    answer = desk.post(reverse("admin:orders_order_request_refund", args=[order.pk]), data)
    assert answer.context["form"].errors
    assert not Refund.objects.exists()


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_who_asked_for_a_refund_does_not_approve_it(desk: Client, second_desk: Client) -> None:
    refund = requested_refund(desk)
    address = reverse("admin:orders_refund_approve", args=[refund.pk])
    answer = desk.post(address, {"confirmed": "yes"})
    assert "A second member of staff has to decide" in answer.content.decode()
    refund.refresh_from_db()
    assert refund.state == RefundState.REQUESTED
    second_desk.post(address, {"confirmed": "yes"})
    refund.refresh_from_db()
    assert (refund.state, refund.decided_by) == (
        RefundState.APPROVED,
        User.objects.get(email="second@example.com"),
    )
    assert refund.order.lines.get().waiting_units == 1


@pytest.mark.django_db
def test_a_rejected_refund_leaves_the_queue_as_it_was(desk: Client, second_desk: Client) -> None:
    refund = requested_refund(desk)
    second_desk.post(reverse("admin:orders_refund_reject", args=[refund.pk]), {"confirmed": "yes"})
    refund.refresh_from_db()
    assert (refund.state, refund.order.lines.get().waiting_units) == (RefundState.REJECTED, 3)
    page = second_desk.get(reverse("admin:orders_refund_change", args=[refund.pk]))
    assert page.context["actions_detail"] == []


@pytest.mark.django_db
def test_an_unpaid_order_offers_no_refund(desk: Client) -> None:
    order = make_order([(make_fee(make_plan()), 1)])
    page = desk.get(reverse("admin:orders_order_change", args=[order.pk]))
    assert [str(action["title"]) for action in page.context["actions_detail"]] == ["Evidence (PDF)"]


@pytest.mark.django_db
def test_staff_give_back_what_belongs_to_no_sale_and_no_more(desk: Client, staff: User) -> None:
    order = paid_order()
    attempt = order.attempts.get()
    path = reverse("admin:orders_paymentattempt_give_money_back", args=[attempt.pk])
    # All of it is needed: there is nothing to give back.
    assert desk.get(path).status_code == 302
    LedgerEntry.objects.create(
        order=order,
        attempt=attempt,
        gateway="sandbox",
        kind=EntryKind.CAPTURE,
        transaction_id="surplus",
        minor=100,
        currency="USD",
        occurred_at=NOW,
        recorded_at=NOW,
    )

    for amount, said in (("1.01", "belong to no sale"), ("x", "as in 4.99"), ("0", "belong to no sale")):
        answer = desk.post(path, {"reason": ReturnReason.SURPLUS, "amount": amount})
        assert said in answer.content.decode()
    desk.post(path, {"reason": ReturnReason.SURPLUS, "amount": "1.00"})

    back = MoneyReturn.objects.get()
    assert (back.minor, back.state, back.decided_by) == (100, ReturnState.DUE, staff)


@pytest.mark.django_db
def test_a_return_that_was_refused_is_sent_again_from_its_page(desk: Client) -> None:
    order = paid_order()
    back = MoneyReturn.objects.create(
        order=order,
        attempt=order.attempts.get(),
        reference=f"{order.reference}-B1",
        reason=ReturnReason.DUPLICATE,
        minor=499,
        currency="USD",
        state=ReturnState.FAILED,
        problem="No funds",
        due_at=NOW,
    )
    path = reverse("admin:orders_moneyreturn_send_again", args=[back.pk])
    assert "No funds" in desk.get(path).content.decode()

    desk.post(path)

    back.refresh_from_db()
    assert (back.state, back.problem) == (ReturnState.DUE, "")
    assert "was not refused by the gateway" in desk.post(path).content.decode()


@pytest.mark.django_db
def test_a_review_item_is_resolved_once_with_a_note_and_a_name(desk: Client, staff: User) -> None:
    item = ReviewItem.objects.create(
        kind=ReviewKind.SURPLUS, dedupe_key="surplus:1", detail="5.00 USD too much", opened_at=NOW
    )
    address = reverse("admin:orders_reviewitem_resolve", args=[item.pk])
    desk.post(address, {"resolution": ""})
    item.refresh_from_db()
    assert item.resolved_at is None
    desk.post(address, {"resolution": "Returned at the gateway's desk."})
    desk.post(address, {"resolution": "Returned again."})
    item.refresh_from_db()
    assert (item.resolution, item.resolved_by) == ("Returned at the gateway's desk.", staff)


@pytest.mark.payment_case(54)
@pytest.mark.django_db
def test_webhook_is_shown_without_what_names_the_buyer_and_without_signatures(desk: Client) -> None:
    event = make_webhook(
        headers={"webhook-id": "event-1", "webhook-signature": "v1,c2lnbmVk"},
        body=b'{"type": "charge.refunded", "amount": 4990, "buyer": {"name": "<b>Zo\xc3\xab</b>", "last4": "4242"}}',
    )
    address = reverse("admin:orders_webhookevent_change", args=[event.pk])

    page = unescape(desk.get(address).content.decode())

    assert "webhook-id: event-1\nwebhook-signature: …</pre>" in page
    assert (
        '{\n  "type": "charge.refunded",\n  "amount": 4990,\n  "buyer": {\n    "name": "…",\n    "last4": "…"\n  }\n}'
        in page
    )
    assert event.body_sha256 in page


@pytest.mark.payment_case(54)
@pytest.mark.parametrize(
    ("body", "shown"),
    [
        (
            b'{"id": "evt_1", "status": "paid", "payer": {"payer_id": "Z0E"}}',
            ("evt_1", "paid", '"payer_id": "…"'),
        ),
        (
            b"trade_status=TRADE_SUCCESS&gmt_payment=2026-11-29+09:06:51&buyer_id=2088",
            ("2026-11-29 09:06:51",),
        ),
        (b'[{"id": "zoe@example.com"}]', ('"id": "…"',)),
        (b'{"zoe@example.com": {"id": "evt_1"}}', ('"…": {', "evt_1")),
        (b'{"reason": "Zoe Miller asked for it"}', ('"reason": "…"',)),
        (b'{"livemode": false, "charge": null}', ('"livemode": false', '"charge": null')),
        (b"\xff", ("…",)),
        (b"no form", ("…",)),
        (b"{" * 3, ("…",)),
        (b"[" * 100_000, ("…",)),
    ],
)
def test_of_a_body_only_what_is_known_to_be_harmless_is_shown(body: bytes, shown: tuple[str, ...]) -> None:
    text = body_shown(body)

    assert [words for words in shown if words not in text] == []
    assert [words for words in ("Z0E", "2088", "zoe@", "Zoe") if words in text] == []


@pytest.mark.parametrize(
    ("view", "codename"),
    [("order", "request_refund"), ("refund", "approve"), ("refund", "reject"), ("reviewitem", "resolve")],
)
@pytest.mark.django_db
def test_staff_who_may_only_view_do_not_press_buttons(
    client: Client, desk: Client, view: str, codename: str
) -> None:
    refund = requested_refund(desk)
    item = ReviewItem.objects.create(kind=ReviewKind.SURPLUS, dedupe_key="1", detail="x", opened_at=NOW)
    record = {"order": refund.order, "refund": refund, "reviewitem": item}[view]
    viewer = make_user("viewer@example.com")
    User.objects.filter(pk=viewer.pk).update(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename=f"view_{view}"))
    client.force_login(viewer)
    answer = client.post(reverse(f"admin:orders_{view}_{codename}", args=[record.pk]), {"confirmed": "yes"})
    assert answer.status_code == 403
    refund.refresh_from_db()
    assert (refund.state, Refund.objects.count()) == (RefundState.REQUESTED, 1)
