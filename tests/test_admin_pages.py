"""Every list and page of the admin: it opens, is read-only where it must be, and costs the same for many rows."""

import hashlib
from datetime import time, timedelta

import pytest
from allauth.account.models import EmailAddress
from allauth.mfa.models import Authenticator
from django.contrib import admin
from django.contrib.admin.models import CHANGE, LogEntry
from django.contrib.auth.models import Group
from django.db import connection, models
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.urls import reverse
from django.utils import timezone
from unfold.admin import ModelAdmin

from accounts.models import KnownBrowser, User
from agreements.models import (
    Acceptance,
    Answer,
    Document,
    Draft,
    DraftText,
    Finding,
    Manner,
    Question,
    Role,
    Ruling,
    StatutoryRight,
    Subject,
    Text,
    Version,
)
from evidence import chain
from evidence.models import AppendOnly, WriteOnce
from inventory.models import Fee, FeeSchedule, Plan, Quarantine, Term
from notices import kinds
from notices.models import (
    Announcement,
    Broadcast,
    BroadcastRecipient,
    ChannelPace,
    ContactPoint,
    Delivery,
    DeliveryEvent,
    DeliveryState,
    DeliveryStep,
    InboxMessage,
    Letter,
    LetterBatch,
    Message,
    Notice,
    Preference,
    QuietHours,
    Wording,
)
from orders.cases import open_case
from orders.models import (
    Allocation,
    Basis,
    Cause,
    DocumentKind,
    EntryKind,
    Estimate,
    EstimateRound,
    Forecast,
    Ground,
    GuardianRequest,
    LedgerEntry,
    Matter,
    MoneyReturn,
    PaymentAttempt,
    Payout,
    PlanFigures,
    PublishedHead,
    Refund,
    RefundLine,
    ReturnReason,
    ReviewItem,
    ReviewKind,
    SegmentCount,
    Shortfall,
    ShortfallLine,
)
from orders.models import Document as IssuedDocument
from tests.builders import NOW, make_devices, make_line, make_plan, make_user, make_webhook

REGISTERED = sorted(admin.site._registry, key=lambda model: model._meta.label)
# What a member of staff edits in place; everything else changes through a verb.
EDITED_IN_PLACE = {"inventory.Plan", "accounts.User", "auth.Group", "agreements.Draft"}
ADDED_ON_A_PAGE = {
    "notices.Announcement",
    "notices.Broadcast",
    "notices.Wording",
    "inventory.SupplyBatch",
    "inventory.FeeSchedule",
    "inventory.OversellDecision",
    "orders.Shortfall",
}


def make_everything(number: int) -> None:
    """One more row of every table, all belonging to one order: the lines of all of them stand in one queue."""
    staff, second = make_user(is_staff=True), make_user(is_staff=True)
    make_plan()
    plan = Plan.objects.order_by("pk")[0]
    schedule = FeeSchedule.objects.create(
        currency="USD", announced_at=NOW, effective_at=NOW + timedelta(seconds=number)
    )
    term = Term.objects.create(plan=plan, days=29 + number)
    fee = Fee.objects.create(schedule=schedule, term=term, minor=499)
    line = make_line(fee, quantity=5, paid_at=NOW + timedelta(seconds=number))
    order, customer = line.order, line.order.customer
    [device] = make_devices(plan, 1)
    allocation = Allocation.objects.create(
        line=line, unit=1, device=device, starts_at=NOW, ends_at=NOW + timedelta(days=30)
    )
    Quarantine.objects.create(
        device=device,
        reason=f"Refund {number}",
        since=NOW,
        ended_at=NOW,
        ended_by=staff,
        became="free",
        note="Wiped.",
    )
    PublishedHead.objects.create(
        plan=plan, day=NOW.date() + timedelta(days=number), number=1, sha256="0" * 64, published_at=NOW
    )
    counted = make_plan(f"V{number}") if hasattr(plan, "figures") else plan
    PlanFigures.objects.create(plan=counted, counted_at=NOW, allocated=[], record={})
    SegmentCount.objects.create(plan=plan, from_paid_at=NOW + timedelta(seconds=number), from_id=number)
    day = NOW.date()
    forecast = Forecast.objects.create(plan=plan, made_at=NOW, inputs={})
    EstimateRound.objects.create(plan=plan, forecast=forecast, began_at=NOW, recorded=1)
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
        units_ahead=3,
        forecast=forecast,
    )
    attempt = PaymentAttempt.objects.create(
        order=order,
        reference=f"{order.reference}-1",
        method="card",
        gateway="sandbox",
        amount_minor=order.total_minor,
        currency="USD",
        created_at=NOW,
        expires_at=NOW,
    )
    entry = LedgerEntry.objects.create(
        order=order,
        attempt=attempt,
        gateway="sandbox",
        kind=EntryKind.CAPTURE,
        transaction_id=f"T{number}",
        minor=order.total_minor,
        currency="USD",
        occurred_at=NOW,
        recorded_at=NOW,
    )
    invoice = IssuedDocument(
        kind=DocumentKind.INVOICE,
        year=2026,
        serial=number,
        order=order,
        entry=entry,
        minor=order.total_minor,
        currency="USD",
        issued_at=NOW,
        contents={"title": "Invoice"},
    )
    chain.append([invoice])
    make_webhook(
        key=f"event-{number}",
        reference=attempt.reference,
        headers={"webhook-id": f"event-{number}"},
        body=b'{"note": "\xff<b>"}',
    )
    refund = Refund.objects.create(
        order=order,
        attempt=attempt,
        reference=f"{order.reference}-R1",
        ground=Ground.LAW,
        legal_basis=f"HCA {number}/2026",
        explanation="A court says so.",
        minor=499,
        requested_by=staff,
        requested_at=NOW,
    )
    RefundLine.objects.create(refund=refund, line=line, allocation=allocation, units=1)
    shortfall = Shortfall.objects.create(
        plan=plan, batch=device.receipt.batch, reason="Given up.", declared_by=staff, declared_at=NOW
    )
    ShortfallLine.objects.create(shortfall=shortfall, line=line, units=1, state="refunded", refund=refund)
    Payout.objects.create(
        refund=refund,
        means="bank transfer",
        reference=f"SEPA-{number}",
        paid_on=NOW.date(),
        recorded_by=staff,
        recorded_at=NOW,
    )
    MoneyReturn.objects.create(
        order=order,
        attempt=attempt,
        reference=f"{order.reference}-B1",
        reason=ReturnReason.DUPLICATE,
        minor=499,
        currency="USD",
        due_at=NOW,
    )
    ReviewItem.objects.create(
        kind=ReviewKind.SURPLUS,
        dedupe_key=f"surplus:{number}",
        order=order,
        detail="5.00 USD more than the order costs",
        opened_at=NOW,
        resolved_at=NOW,
        resolved_by=second,
        resolution="Returned.",
    )
    open_case(
        order_id=order.pk,
        customer_id=customer.pk,
        matter=Matter.DISPUTE,
        subject="Phones",
        body="Where are they?",
        now=timezone.now(),  # so that it is not overdue, whenever the test runs
    )
    body = f"# Agreement {number}\n\n## 1. Scope\n\nWords.\n"
    version = Version.objects.create(
        document=Document.PREPAYMENT, number=number, published_at=NOW, effective_at=NOW
    )
    digest = hashlib.sha256(body.encode()).hexdigest()
    text = Text.objects.create(
        version=version,
        language="en",
        is_authoritative=True,
        title="Agreement",
        summary="",
        important=["1"],
        matters_most=[],
        body=body,
        sha256=digest,
    )
    acceptance = Acceptance(
        customer=customer,
        order_reference=order.reference,
        manner=Manner.EXPRESS,
        text=text,
        text_sha256=digest,
        subject=Subject.AGREEMENT,
        role=Role.BUYER,
        person_email=customer.email,
        statement="I agree",
        accepted_at=NOW,
    )
    chain.append([acceptance])
    GuardianRequest.objects.create(
        order=order, name="Mei", email="mei@example.com", language="en", asked_at=NOW
    )
    Ruling.objects.create(
        version=version,
        clause="1",
        finding=Finding.INVALID,
        authority="Court",
        reference=f"HCA {number}",
        decided_on=day,
        recorded_by=staff,
        recorded_at=NOW,
    )
    question = Question.objects.create(
        version=version, customer=customer, language="en", body="Why?", asked_at=NOW
    )
    Answer.objects.create(
        question=question, body="Because.", is_public=True, answered_by=staff, answered_at=NOW
    )
    draft = Draft.objects.create(
        document=Document.PREPAYMENT, authoritative="en", created_by=staff, created_at=NOW
    )
    DraftText.objects.create(draft=draft, language="en", title="Draft", body=body)
    StatutoryRight.objects.create(
        key="eu",
        edition=number,
        countries=["DE"],
        law="Directive 1",
        withdrawal_days=14,
        title={},
        explanation={},
        waiver={},
        published_at=NOW,
    )
    notice = Notice.objects.create(
        recipient=customer,
        kind=kinds.ALLOCATED.slug,
        about=order.reference,
        facts={},
        dedupe_key=f"notice-{number}",
        created_at=NOW,
    )
    message = Message.objects.create(sha256=f"{number:064d}", language="en", subject="Hello", body="Words")
    delivery = Delivery.objects.create(
        notice=notice,
        channel="in-site",
        address=str(customer.pk),
        state=DeliveryState.SENT,
        due_at=NOW,
        message=message,
        sent_at=NOW,
    )
    DeliveryEvent.objects.create(
        delivery=delivery, attempt=1, step=DeliveryStep.ACCEPTED, at=NOW, address="1", message=message
    )
    InboxMessage.objects.create(recipient=customer, delivery=delivery, message=message, created_at=NOW)
    ContactPoint.objects.create(
        customer=customer,
        channel="push",
        address=f"https://push.example/{number}",
        details={"auth": "do not show"},
        created_at=NOW,
    )
    words = {language: {"title": "Title", "body": "Words."} for language in ("en", "zh-hans", "zh-hant")}
    Announcement.objects.create(
        kind="news", texts=words, sha256="x", published_at=NOW, dedupe_key=f"announcement-{number}"
    )
    broadcast = Broadcast.objects.create(
        kind="news", texts=words, composed_by=staff, composed_at=NOW, recipients=9, needs_approval=True
    )
    BroadcastRecipient.objects.create(broadcast=broadcast, customer=customer)
    ChannelPace.objects.create(channel=f"channel-{number}")
    Preference.objects.create(
        customer=customer, kind="news", channel="email", is_wanted=False, changed_at=NOW
    )
    QuietHours.objects.create(customer=customer, begin_at=time(22), end_at=time(7))
    Wording.objects.create(
        kind="allocated",
        language="en",
        form="full",
        subject="Here",
        body="Yours.",
        written_by=staff,
        written_at=NOW,
    )
    batch_of_letters = LetterBatch.objects.create(pdf=b"%PDF", sha256="x", printed_at=NOW, printed_by=staff)
    Letter.objects.create(delivery=delivery, batch=batch_of_letters, attempt=1)
    Group.objects.create(name=f"Group {number}")
    EmailAddress.objects.create(user=customer, email=customer.email, verified=True, primary=True)
    Authenticator.objects.create(user=staff, type=Authenticator.Type.TOTP, data={"secret": "do not show"})
    KnownBrowser.objects.create(
        user=customer, token_sha256=f"{number:064}", label="Firefox, Linux", first_at=NOW, last_at=NOW
    )
    LogEntry.objects.log_actions(staff.pk, [order], CHANGE, change_message="Looked", single_object=True)


@pytest.fixture
def desk(client: Client) -> Client:
    client.force_login(make_user("root@example.com", is_staff=True))
    return client


def page(model: type[models.Model], name: str, *args: object) -> str:
    return reverse(f"admin:{model._meta.app_label}_{model._meta.model_name}_{name}", args=args)


def queries_of(desk: Client, address: str) -> int:
    with CaptureQueriesContext(connection) as queries:
        assert desk.get(address).status_code == 200
    return len(queries)


def test_every_table_of_ours_has_its_place_in_the_admin() -> None:
    ours = {"accounts", "agreements", "inventory", "notices", "orders"}
    tables = {model for model in models_of_the_project() if model._meta.app_label in ours}
    assert tables - set(REGISTERED) == set()


def models_of_the_project() -> set[type[models.Model]]:
    return {model for app in admin.site._registry for model in app._meta.apps.get_models()}


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model._meta.label)
def test_every_table_is_shown_by_the_theme_and_nothing_is_deleted(model: type[models.Model], rf) -> None:  # type: ignore[no-untyped-def]
    shown = admin.site._registry[model]
    request = rf.get("/")
    request.user = User(is_superuser=True, is_staff=True)
    label = model._meta.label
    assert isinstance(shown, ModelAdmin)
    assert not shown.has_delete_permission(request)
    assert shown.has_change_permission(request) == (label in EDITED_IN_PLACE)
    assert shown.has_add_permission(request) == (label in EDITED_IN_PLACE | ADDED_ON_A_PAGE)
    if issubclass(model, AppendOnly | WriteOnce):
        assert label not in EDITED_IN_PLACE


@pytest.mark.django_db
def test_a_list_of_twenty_costs_as_many_queries_as_a_list_of_two(desk: Client) -> None:
    def costs() -> dict[str, int]:
        return {model._meta.label: queries_of(desk, page(model, "changelist")) for model in REGISTERED}

    for number in (1, 2):
        make_everything(number)
    costs()  # content types are read once in a process
    of_two = costs()
    for number in range(3, 21):
        make_everything(number)
    assert costs() == of_two


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model._meta.label)
@pytest.mark.django_db
def test_every_record_has_a_page(desk: Client, model: type[models.Model]) -> None:
    make_everything(1)
    record = model._default_manager.order_by("pk").last()
    assert record is not None
    answer = desk.get(page(model, "change", record.pk))
    assert answer.status_code == 200
    assert b"do not show" not in answer.content


@pytest.mark.parametrize("model", REGISTERED, ids=lambda model: model._meta.label)
@pytest.mark.django_db
def test_every_list_can_be_searched(desk: Client, model: type[models.Model]) -> None:
    make_everything(1)
    assert desk.get(page(model, "changelist"), {"q": "VM-1"}).status_code == 200


@pytest.mark.django_db
def test_the_first_page_shows_what_waits(desk: Client) -> None:
    make_everything(1)
    answer = desk.get(reverse("admin:index"))
    numbers = {str(tile.title): tile.number for tile in answer.context["tiles"]}
    assert numbers == {
        "Open review items": 0,
        "Refunds awaiting approval": 1,
        "Shortfalls awaiting approval": 1,
        "Payouts to confirm": 1,
        # No gateway has its settings.
        "Payment methods on offer": 0,
        "Cases waiting for an answer": 1,
        "Overdue cases": 0,
        "Overdue batches": 0,
        "Devices in quarantine": 0,
        # The allocation's, and the acknowledgement of the case.
        "Notices not yet handed out": 2,
        "Deliveries in the outbox": 0,
        "Deliveries refused or uncertain": 0,
    }
    assert [(row.waiting, row.free) for row in answer.context["plans"]] == [(5, 1)]
    links = [tile.link for tile in answer.context["tiles"]]
    links += [link for row in answer.context["plans"] for link in (row.waiting_link, row.free_link)]
    assert [desk.get(link).status_code for link in links] == [200] * 14


@pytest.mark.django_db
def test_staff_see_only_what_they_may_view(client: Client) -> None:
    make_everything(1)
    clerk = make_user("clerk@example.com")
    User.objects.filter(pk=clerk.pk).update(is_staff=True)
    client.force_login(clerk)
    answer = client.get(reverse("admin:index"))
    assert (answer.context["tiles"], answer.context["plans"]) == ([], [])
    assert [section["items"][0]["title"] for section in answer.context["sidebar_navigation"]] == ["Overview"]
    assert client.get(page(ReviewItem, "changelist")).status_code == 403


@pytest.mark.django_db
def test_customers_do_not_get_in(client: Client) -> None:
    client.force_login(make_user())
    answer = client.get(reverse("admin:index"))
    assert (answer.status_code, answer["Location"].split("?")[0]) == (302, reverse("admin:login"))
