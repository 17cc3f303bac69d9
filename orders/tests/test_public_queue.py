"""The queues as everybody sees them. Today is November 23, 2026, noon in Hong Kong."""

import json
import subprocess
import sys
from collections.abc import Iterator
from datetime import date, timedelta
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
import time_machine
from django.test import Client
from pytest_django import DjangoAssertNumQueries

from evidence.contract_time import contract_midnight
from inventory.models import Fee, Plan
from orders import tasks
from orders.allocation import allocate_devices
from orders.figures import Day, count_figures
from orders.public_queue import plans_with_a_page, public_queues
from orders.queue import verify_queue_ledger
from orders.queue.fairness import publish_heads, seal_events
from tests.builders import (
    NOW,
    make_batch,
    make_devices,
    make_fee,
    make_line,
    make_order,
    make_plan,
    make_user,
)

if TYPE_CHECKING:
    from django.test.client import _MonkeyPatchedWSGIResponse as Answer

pytestmark = pytest.mark.django_db

EARLIER = NOW - timedelta(days=100)


@pytest.fixture(autouse=True)
def _now() -> Iterator[None]:
    with time_machine.travel(NOW, tick=False):
        yield


@pytest.fixture
def plan() -> Plan:
    return make_plan()


@pytest.fixture
def fee(plan: Plan) -> Fee:
    return make_fee(plan)


def words(answer: "Answer") -> str:
    return " ".join(answer.content.decode().split())


def served(plan: Plan, fee: Fee, *, units: int, on: date) -> None:
    make_line(fee, quantity=units, paid_at=EARLIER)
    make_devices(plan, units)
    allocate_devices(plan_id=plan.pk, now=contract_midnight(on))


def test_queue_tells_who_waits_what_comes_and_what_was_given_per_day(plan: Plan, fee: Fee) -> None:
    served(plan, fee, units=3, on=date(2026, 8, 25))  # 90 days ago and a day: not shown any more
    served(plan, fee, units=4, on=date(2026, 8, 26))
    served(plan, fee, units=5, on=date(2026, 11, 23))
    make_line(fee, quantity=7, paid_at=NOW)
    batches = [
        make_batch(plan, quantity=8, on=date(2026, 12, 1)),
        make_batch(plan, quantity=9, on=date(2026, 11, 30)),
    ]

    count_figures(plan_id=plan.pk, now=NOW)

    (queue,) = public_queues([plan], now=NOW)

    assert (queue.units_waiting, queue.units_expected) == (7, 17)
    assert queue.batches == (batches[1], batches[0])
    figures = queue.figures
    assert figures is not None
    assert len(figures.days) == 90
    assert [day for day in figures.days if day.units] == [
        Day(date(2026, 8, 26), 4),
        Day(date(2026, 11, 23), 5),
    ]
    assert (figures.allocated, figures.allocated_lately) == (9, 5)


def test_what_takes_long_to_count_is_shown_as_it_was_counted_last(
    client: Client, plan: Plan, fee: Fee
) -> None:
    served(plan, fee, units=3, on=date(2026, 11, 2))
    before = client.get(f"/queue/{plan.slug}.json").json()
    assert [before[name] for name in ("counted_at", "allocated_units_by_day", "track_record")] == [None] * 3
    assert words(client.get(f"/queue/{plan.slug}/")).count("for the first time now") == 2
    assert "for the first time now" in words(client.get(f"/plans/{plan.slug}/"))

    tasks.count_figures()
    served(plan, fee, units=4, on=date(2026, 11, 3))

    (queue,) = public_queues([plan], now=NOW + timedelta(hours=1))
    assert queue.figures
    assert (queue.figures.counted_at, queue.figures.allocated) == (NOW, 3)
    assert words(client.get(f"/queue/{plan.slug}/")).count("As of Nov. 23, 2026, ") == 2

    tasks.count_figures()
    assert public_queues([plan], now=NOW)[0].figures != queue.figures


def test_plan_has_a_page_while_it_is_on_sale_and_as_long_as_it_has_a_ledger(plan: Plan) -> None:
    hidden = make_plan("Hidden")
    over = make_plan("Over")
    make_line(make_fee(over), paid_at=NOW)
    Plan.objects.filter(pk__in=[hidden.pk, over.pk]).update(on_sale=False)
    assert set(plans_with_a_page()) == {plan, over}


@pytest.mark.parametrize("part", ["{}/", "{}.json", "{}/ledger.txt"])
def test_plan_that_was_never_sold_is_not_found(client: Client, plan: Plan, part: str) -> None:
    Plan.objects.update(on_sale=False)
    assert client.get("/queue/" + part.format(plan.slug)).status_code == 404


@pytest.mark.clause("1.1", "3.3")
def test_page_shows_figures_rule_and_ledger(client: Client, plan: Plan, fee: Fee) -> None:
    served(plan, fee, units=5, on=date(2026, 11, 2))
    make_line(fee, quantity=1_200, paid_at=NOW)
    make_batch(plan, quantity=8, on=date(2026, 11, 20))
    seal_events(plan_id=plan.pk)
    publish_heads(now=NOW)
    count_figures(plan_id=plan.pk, now=NOW)

    answer = client.get(f"/queue/{plan.slug}/")
    page, queue = words(answer), answer.context["queue"]

    assert "<dt>phones wait</dt><dd>1,200</dd>" in page
    assert "<dt>allocated in 30 days</dt><dd>5</dd>" in page
    assert "5 phones in 90 days, at most 5 in one." in page
    assert '<td>Nov. 20, 2026 <span class="badge badge--warn">overdue</span></td>' in page
    assert "A device goes out for a payment 10 minutes after its capture at the earliest" in page
    assert "3 entries are sealed." in page
    assert queue.head.sha256 in page
    assert queue.published[0].day == date(2026, 11, 22)
    assert " style=" not in page
    assert "<script>" not in page


def test_page_of_a_plan_without_a_past_says_so(client: Client, plan: Plan) -> None:
    count_figures(plan_id=plan.pk, now=NOW)
    page = words(client.get(f"/queue/{plan.slug}/"))
    for said in (
        "Nothing was allocated in the last 90 days.",
        "There is nothing to judge yet.",
        "No delivery of this plan is announced at the moment.",
        "The ledger has no entries yet: it begins with the first payment.",
    ):
        assert said in page


def test_list_shows_every_queue_and_leads_to_it(client: Client, plan: Plan, fee: Fee) -> None:
    make_line(fee, quantity=7, paid_at=NOW)
    make_batch(plan, quantity=8, on=date(2026, 12, 1))
    count_figures(plan_id=plan.pk, now=NOW)
    page = words(client.get("/queue/"))
    assert f'<a href="/queue/{plan.slug}/">V08</a>' in page
    assert '<td class="number" data-label="Phones waiting">7</td>' in page
    assert '<td data-label="Next delivery">Dec. 1, 2026</td>' in page
    assert "none due yet" in page


def test_list_without_plans_says_so(client: Client) -> None:
    assert "There is no queue yet" in words(client.get("/queue/"))


def test_list_asks_the_same_number_of_queries_for_one_queue_and_for_five(
    client: Client, django_assert_num_queries: DjangoAssertNumQueries
) -> None:
    for number in range(5):
        plan = make_plan(f"Plan {number}")
        served(plan, make_fee(plan), units=2, on=date(2026, 11, 2))
        make_line(make_fee(plan), paid_at=NOW)
        make_batch(plan)
        seal_events(plan_id=plan.pk)
        publish_heads(now=NOW)
        if number in (0, 4):
            with django_assert_num_queries(8):
                client.get("/queue/")


def test_json_has_the_same_figures_for_other_sites_to_keep_for_a_minute(
    client: Client, plan: Plan, fee: Fee
) -> None:
    served(plan, fee, units=5, on=date(2026, 11, 2))
    make_line(fee, quantity=7, paid_at=NOW)
    make_batch(plan, quantity=8, on=date(2026, 12, 1))
    seal_events(plan_id=plan.pk)
    publish_heads(now=NOW)
    count_figures(plan_id=plan.pk, now=NOW)

    answer = client.get(f"/queue/{plan.slug}.json")
    figures = answer.json()

    assert answer.headers["Access-Control-Allow-Origin"] == "*"
    assert answer.headers["Cache-Control"] == "public, max-age=60"
    assert figures["as_of"] == figures["counted_at"] == "2026-11-23T04:00:00+00:00"
    assert (figures["plan"], figures["units_waiting"], figures["hold_back_seconds"]) == (plan.slug, 7, 600)
    assert figures["expected_batches"] == [
        {"expected_on": "2026-12-01", "first_expected_on": "2026-12-01", "units": 8}
    ]
    assert [day for day in figures["allocated_units_by_day"] if day["units"]] == [
        {"day": "2026-11-02", "units": 5}
    ]
    assert len(figures["allocated_units_by_day"]) == 90
    assert {name: figures["track_record"][name] for name in ("judged_lines", "held_lines", "held_share")} == {
        "judged_lines": 0,
        "held_lines": 0,
        "held_share": None,
    }
    assert [month["month"] for month in figures["track_record"]["months"]][::11] == ["2025-12", "2026-11"]
    assert figures["ledger"]["entries"] == 3
    assert figures["ledger"]["published_heads"] == [
        {"day": "2026-11-22", "entries": 3, "sha256": figures["ledger"]["head_sha256"]}
    ]


def test_ledger_and_script_are_downloaded_and_check_out(
    client: Client, plan: Plan, fee: Fee, tmp_path: Path
) -> None:
    served(plan, fee, units=5, on=date(2026, 11, 24))
    seal_events(plan_id=plan.pk)
    ledger = client.get(f"/queue/{plan.slug}/ledger.txt")
    script = client.get("/queue/verify_queue_ledger.py")
    assert ledger.headers["Content-Disposition"] == f'attachment; filename="ledger-{plan.slug}.txt"'
    assert ledger.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert script.headers["Content-Type"] == "text/x-python"
    assert script.headers["Content-Disposition"] == 'attachment; filename="verify_queue_ledger.py"'
    assert ledger.streaming
    (tmp_path / "ledger.txt").write_bytes(b"".join(ledger))
    (tmp_path / "check.py").write_bytes(b"".join(script))
    head = client.get(f"/queue/{plan.slug}.json").json()["ledger"]["head_sha256"]

    checked = subprocess.run(
        [sys.executable, "check.py", "ledger.txt", head],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=False,
    )

    assert (checked.returncode, checked.stderr) == (0, "")
    assert (tmp_path / "check.py").read_text() == Path(verify_queue_ledger.__file__).read_text()


def test_nothing_in_public_tells_who_a_customer_is(client: Client, plan: Plan, fee: Fee) -> None:
    customer = make_user("secret.buyer@example.com")
    order = make_order([(fee, 2)], customer=customer, paid_at=EARLIER)
    make_devices(plan, 1)
    allocate_devices(plan_id=plan.pk, now=NOW)
    seal_events(plan_id=plan.pk)
    ledger = client.get(f"/queue/{plan.slug}/ledger.txt")
    said = b"".join(ledger).decode()
    said += words(client.get("/queue/")) + words(client.get(f"/queue/{plan.slug}/"))
    said += json.dumps(client.get(f"/queue/{plan.slug}.json").json())
    assert "secret.buyer" not in said
    assert order.reference not in said
    assert plan.devices.get().code not in said


@pytest.mark.parametrize("page", ["/", "/plans/{}/"])
def test_queues_are_linked(client: Client, plan: Plan, fee: Fee, page: str) -> None:
    said = words(client.get(page.format(plan.slug)))
    assert 'href="/queue/"' in said
    if "plans" in page:
        assert f'href="/queue/{plan.slug}/"' in said
