"""The desk of supply: what its pages show, and that they change things through the verbs, on record."""

import csv
import io
from datetime import date, timedelta

import pytest
from django.contrib.admin.models import ADDITION, CHANGE, LogEntry
from django.contrib.auth.models import Permission
from django.core.files.uploadedfile import SimpleUploadedFile
from django.test import Client
from django.urls import reverse
from django.utils import timezone

from accounts.models import User
from evidence.contract_time import contract_date
from inventory.models import (
    BatchState,
    Device,
    DeviceState,
    Fee,
    FeeSchedule,
    Plan,
    SupplyBatch,
    SupplyReceipt,
    Term,
)
from tests.builders import make_batch, make_devices, make_fee, make_plan, make_user


@pytest.fixture
def staff() -> User:
    return make_user("staff@example.com", is_staff=True)


@pytest.fixture
def desk(client: Client, staff: User) -> Client:
    client.force_login(staff)
    return client


def in_days(days: int) -> date:
    return contract_date(timezone.now()) + timedelta(days=days)


def batch_page(batch: SupplyBatch, name: str) -> str:
    return reverse(f"admin:inventory_supplybatch_{name}", args=[batch.pk])


def upload(text: str) -> SimpleUploadedFile:
    return SimpleUploadedFile("devices.csv", text.encode(), content_type="text/csv")


def logged() -> list[tuple[str, int, str]]:
    return [(e.object_repr, e.action_flag, e.get_change_message()) for e in LogEntry.objects.order_by("pk")]


@pytest.mark.django_db
def test_a_batch_is_announced_from_the_list(desk: Client) -> None:
    plan = make_plan()
    answer = desk.post(
        reverse("admin:inventory_supplybatch_add"),
        {"plan": plan.pk, "reference": "ACME-7", "quantity": 50, "expected_on": in_days(9).isoformat()},
    )
    batch = SupplyBatch.objects.get()
    assert answer["Location"] == batch_page(batch, "change")
    assert (batch.reference, batch.quantity, batch.expected_on, batch.first_expected_on) == (
        "ACME-7",
        50,
        in_days(9),
        in_days(9),
    )
    assert logged() == [("ACME-7", ADDITION, "Announced.")]


@pytest.mark.django_db
def test_what_the_verb_refuses_is_told_on_the_page(desk: Client) -> None:
    batch = make_batch(make_plan(), on=in_days(9))
    answer = desk.post(
        reverse("admin:inventory_supplybatch_add"),
        {
            "plan": batch.plan_id,
            "reference": batch.reference,
            "quantity": 50,
            "expected_on": in_days(9).isoformat(),
        },
    )
    assert "is announced already. Change that one instead." in answer.content.decode()
    assert (SupplyBatch.objects.count(), logged()) == (1, [])


@pytest.mark.django_db
def test_a_batch_is_changed_on_its_own_page_and_the_change_is_logged(desk: Client) -> None:
    batch = make_batch(make_plan(), quantity=10, on=in_days(9))
    answer = desk.post(batch_page(batch, "revise"), {"quantity": 12, "expected_on": in_days(20).isoformat()})
    assert answer.status_code == 302
    batch.refresh_from_db()
    assert (batch.quantity, batch.expected_on, batch.first_expected_on) == (12, in_days(20), in_days(9))
    assert logged() == [
        (batch.reference, CHANGE, f"12 devices on {in_days(20)} (before: 10 on {in_days(9)}).")
    ]


@pytest.mark.django_db
def test_cancelling_asks_first(desk: Client) -> None:
    batch = make_batch(make_plan(), on=in_days(9))
    desk.get(batch_page(batch, "cancel"))
    batch.refresh_from_db()
    assert batch.state == BatchState.EXPECTED
    desk.post(batch_page(batch, "cancel"), {"confirmed": "yes"})
    batch.refresh_from_db()
    assert batch.state == BatchState.CANCELLED
    assert logged() == [(batch.reference, CHANGE, "Cancelled.")]


@pytest.mark.django_db
def test_a_closed_batch_offers_no_buttons_and_its_pages_change_nothing(desk: Client) -> None:
    plan = make_plan()
    batch = make_batch(plan, received_late=0)
    assert desk.get(batch_page(batch, "change")).context["actions_detail"] == []
    answer = desk.post(batch_page(batch, "receive"), {"file": upload(f"code,plan\nAC-0001,{plan.slug}\n")})
    assert answer.context["problems_count"] == 1
    desk.post(batch_page(batch, "cancel"), {"confirmed": "yes"})
    batch.refresh_from_db()
    assert (batch.state, Device.objects.count(), logged()) == (BatchState.RECEIVED, 0, [])


@pytest.mark.clause("1.1")
@pytest.mark.django_db
def test_a_good_file_is_received_and_summed_up(desk: Client, staff: User) -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=2, on=in_days(9))
    answer = desk.post(
        batch_page(batch, "receive"),
        {"file": upload(f"code,plan\nAC-0001,{plan.slug}\nAC-0002,{plan.slug}\n")},
        follow=True,
    )
    assert [str(message) for message in answer.context["messages"]] == [
        "2 devices received from devices.csv. The sweep hands them out within seconds."
    ]
    assert list(Device.objects.order_by("pk").values_list("code", "state")) == [
        ("AC-0001", DeviceState.FREE),
        ("AC-0002", DeviceState.FREE),
    ]
    assert SupplyReceipt.objects.get().received_by == staff
    batch.refresh_from_db()
    assert batch.state == BatchState.RECEIVED
    assert logged() == [(batch.reference, CHANGE, "2 devices received from devices.csv.")]


@pytest.mark.django_db
def test_the_batch_stays_open_when_more_is_to_come(desk: Client) -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=2, on=in_days(9))
    desk.post(
        batch_page(batch, "receive"),
        {"file": upload(f"code,plan\nAC-0001,{plan.slug}\n"), "more_to_come": "on"},
    )
    batch.refresh_from_db()
    assert (batch.state, batch.outstanding) == (BatchState.EXPECTED, 1)


@pytest.mark.django_db
def test_the_page_shows_two_hundred_problems_and_holds_all_of_them_as_csv(desk: Client) -> None:
    plan = make_plan()
    batch = make_batch(plan, quantity=300, on=in_days(9))
    rows = [f"=A{number},{plan.slug}" for number in range(250)]
    answer = desk.post(batch_page(batch, "receive"), {"file": upload("\n".join(["code,plan", *rows]))})
    assert (len(answer.context["problems"]), answer.context["problems_count"]) == (200, 250)
    page = answer.content.decode()
    assert "The file has 250 problems. Nothing was received." in page
    assert "The first 200 are shown." in page
    table = list(csv.reader(io.StringIO(answer.context["problems_csv"])))
    assert table[0] == ["row", "code", "problem"]
    assert [row[:2] for row in (table[1], table[-1])] == [["2", "'=A0"], ["251", "'=A249"]]
    assert (Device.objects.count(), logged()) == (0, [])


@pytest.mark.django_db
def test_a_code_with_markup_is_only_text(desk: Client) -> None:
    batch = make_batch(make_plan(), on=in_days(9))
    answer = desk.post(batch_page(batch, "receive"), {"file": upload("code,plan\n<b>x</b>,</textarea>\n")})
    page = answer.content.decode()
    assert "<b>x</b>" not in page
    assert "&lt;b&gt;x&lt;/b&gt;" in page


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_a_fee_schedule_is_announced_with_the_amounts_as_written(desk: Client) -> None:
    plan = make_plan()
    month, quarter = make_fee(plan, minor=499).term, make_fee(plan, days=90, minor=1399).term
    add = reverse("admin:inventory_feeschedule_add")
    form = desk.get(add, {"currency": "USD"}).context["form"]
    assert [form[f"fee_{term.pk}"].initial for term in (month, quarter)] == ["4.99", "13.99"]
    effective_at = (timezone.now() + timedelta(days=8)).replace(second=0, microsecond=0)
    answer = desk.post(
        f"{add}?currency=USD",
        {
            "effective_at": f"{effective_at:%Y-%m-%dT%H:%M}",
            f"fee_{month.pk}": "5.49",
            f"fee_{quarter.pk}": "",
        },
    )
    schedule = FeeSchedule.objects.latest("pk")
    assert answer["Location"] == reverse("admin:inventory_feeschedule_change", args=[schedule.pk])
    assert (schedule.currency, schedule.effective_at) == ("USD", effective_at)
    assert list(schedule.fees.values_list("term", "minor")) == [(month.pk, 549)]
    assert logged() == [(str(schedule), ADDITION, "Announced 1 fee.")]


@pytest.mark.parametrize(
    ("currency", "written", "problem"),
    [
        ("USD", "5.499", "Write an amount in USD, like 4.99."),
        ("USD", "five", "Write an amount in USD, like 4.99."),
        ("JPY", "5.49", "Write an amount in JPY, like 499."),
        ("USD", "-5", "Write an amount in USD, like 4.99."),
    ],
)
@pytest.mark.django_db
def test_an_amount_that_is_none_in_the_currency_is_refused(
    desk: Client, currency: str, written: str, problem: str
) -> None:
    term = Term.objects.create(plan=make_plan(), days=30)
    answer = desk.post(
        f"{reverse('admin:inventory_feeschedule_add')}?currency={currency}",
        {"effective_at": f"{timezone.now() + timedelta(days=8):%Y-%m-%dT%H:%M}", f"fee_{term.pk}": written},
    )
    assert answer.context["form"].errors == {f"fee_{term.pk}": [problem]}
    assert not Fee.objects.exists()


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_a_fee_schedule_is_not_announced_for_a_time_that_is_past(desk: Client) -> None:
    term = Term.objects.create(plan=make_plan(), days=30)
    answer = desk.post(
        f"{reverse('admin:inventory_feeschedule_add')}?currency=USD",
        {"effective_at": f"{timezone.now() - timedelta(days=1):%Y-%m-%dT%H:%M}", f"fee_{term.pk}": "4.99"},
    )
    assert list(answer.context["form"].errors) == ["effective_at"]
    assert not FeeSchedule.objects.exists()


@pytest.mark.django_db
def test_a_plan_is_edited_in_place_and_its_terms_are_only_added(desk: Client) -> None:
    plan = make_plan()
    term = make_fee(plan, days=30).term
    address = reverse("admin:inventory_plan_change", args=[plan.pk])
    fields = ("name", "slug", "rank", "android", "region", "cpu_cores", "ram_gb", "storage_gb")
    answer = desk.post(
        address,
        {
            **{name: getattr(plan, name) for name in fields},
            "on_sale": "on",
            "presale_cap": 77,
            "customer_limit": 5,
            "presale_bonus_days": 2,
            "terms-TOTAL_FORMS": 2,
            "terms-INITIAL_FORMS": 1,
            "terms-0-id": term.pk,
            "terms-0-plan": plan.pk,
            "terms-0-days": 31,
            "terms-1-plan": plan.pk,
            "terms-1-days": 180,
        },
    )
    assert answer.status_code == 302, answer.context["errors"]
    assert Plan.objects.get().presale_cap == 77
    assert sorted(plan.terms.values_list("days", flat=True)) == [30, 180]


@pytest.mark.django_db
def test_devices_are_found_by_the_beginning_of_their_code_and_by_state(desk: Client) -> None:
    device = make_devices(make_plan(), 3)[1]
    address = reverse("admin:inventory_device_changelist")
    found = desk.get(address, {"q": device.code, "state__exact": DeviceState.FREE}).context["cl"].result_list
    assert list(found) == [device]
    none = (
        desk.get(address, {"q": device.code, "state__exact": DeviceState.RETIRED}).context["cl"].result_list
    )
    assert list(none) == []


@pytest.mark.django_db
def test_overdue_batches_are_filtered(desk: Client) -> None:
    plan = make_plan()
    late = make_batch(plan, on=in_days(-1))
    make_batch(plan, on=in_days(0))
    make_batch(plan, on=in_days(-1), received_late=0)
    answer = desk.get(reverse("admin:inventory_supplybatch_changelist"), {"due": "overdue"})
    assert list(answer.context["cl"].result_list) == [late]


@pytest.mark.django_db
def test_staff_who_may_only_view_batches_cannot_press_their_buttons(client: Client) -> None:
    viewer = make_user("viewer@example.com")
    User.objects.filter(pk=viewer.pk).update(is_staff=True)
    viewer.user_permissions.add(Permission.objects.get(codename="view_supplybatch"))
    client.force_login(viewer)
    batch = make_batch(make_plan(), on=in_days(9))
    assert client.get(batch_page(batch, "change")).context["actions_detail"] == []
    pages = [batch_page(batch, name) for name in ("receive", "revise", "cancel")]
    pages.append(reverse("admin:inventory_supplybatch_add"))
    assert [client.post(page, {"confirmed": "yes"}).status_code for page in pages] == [403] * 4
    batch.refresh_from_db()
    assert batch.state == BatchState.EXPECTED
