"""Windows: what they are made from, and when a new one is recorded and told."""

from datetime import date, timedelta

import pytest
from pytest_django import Settings

from notices.models import Notice
from orders import estimates
from orders.estimates import (
    Expected,
    Outlook,
    Window,
    arrival,
    nearest_rank,
    outlooks,
    quote,
    record_first_estimate,
    refresh_estimates,
    window,
)
from orders.models import Basis, Cause, Estimate, OrderLine
from tests.builders import NOW, make_batch, make_devices, make_fee, make_line, make_plan

TODAY = date(2026, 11, 23)


def expected(reference: str, on: date, units: int, *, first_on: date | None = None) -> Expected:
    """A batch that was never put off, unless `first_on` says so."""
    return Expected(reference, on, units, first_on or on)


def outlook(
    *,
    free: int = 0,
    expected: tuple[Expected, ...] = (),
    lateness: tuple[int, ...] = (0, 1, 2, 3, 10),
    monthly: tuple[int, ...] = (0, 0, 0),
) -> Outlook:
    return Outlook(
        today=TODAY, free=free, expected=expected, lateness=lateness, lateness_of="plan", monthly=monthly
    )


def test_nearest_rank_answers_values_that_were_there() -> None:
    assert [nearest_rank((0, 1, 2, 3, 10), share) for share in (0.0, 0.5, 0.9, 1.0)] == [0, 2, 10, 10]


def test_units_covered_by_free_devices_come_today() -> None:
    assert window(units=3, outlook=outlook(free=3)) == Window(TODAY, TODAY, TODAY, Basis.FREE)


@pytest.mark.clause("3.3")
def test_window_is_the_first_batch_that_covers_the_unit_shifted_by_past_lateness() -> None:
    coming = (expected("A", date(2026, 12, 1), 5), expected("B", date(2026, 12, 20), 5))

    assert window(units=6, outlook=outlook(free=1, expected=coming)) == Window(
        date(2026, 12, 1), date(2026, 12, 3), date(2026, 12, 11), Basis.SUPPLY
    )
    assert window(units=7, outlook=outlook(free=1, expected=coming)) == Window(
        date(2026, 12, 20), date(2026, 12, 22), date(2026, 12, 30), Basis.SUPPLY
    )


def test_overdue_batch_is_judged_by_batches_that_were_as_late() -> None:
    overdue = expected("A", TODAY - timedelta(days=3), 5)

    assert arrival(overdue, outlook=outlook()) == (TODAY, TODAY, TODAY + timedelta(days=7))


def test_batch_later_than_anything_on_record_falls_back_on_the_assumption_from_today() -> None:
    lost = expected("A", TODAY - timedelta(days=40), 5)

    assert arrival(lost, outlook=outlook()) == (TODAY, TODAY + timedelta(days=7), TODAY + timedelta(days=30))


def test_batch_that_was_put_off_is_not_charged_with_its_delay_twice() -> None:
    put_off = expected("A", date(2026, 12, 21), 5, first_on=date(2026, 12, 1))

    # Every past batch came 20 days after the date first said, or 30.
    assert arrival(put_off, outlook=outlook(lateness=(20, 20, 20, 20, 30))) == (
        date(2026, 12, 21),
        date(2026, 12, 21),
        date(2026, 12, 31),
    )


def test_batch_that_is_not_here_yet_is_not_judged_by_earlier_ones() -> None:
    soon = expected("A", TODAY + timedelta(days=1), 5)

    assert arrival(soon, outlook=outlook(lateness=(-9, -9, -1, 0, 4))) == (
        TODAY,
        TODAY + timedelta(days=1),
        TODAY + timedelta(days=5),
    )


def test_window_never_shrinks_towards_the_back_of_the_queue() -> None:
    # B is promised before A is likely to come, and does not help those who need both.
    coming = (expected("A", date(2026, 11, 1), 5), expected("B", date(2026, 11, 24), 5))
    found = [
        window(units=units, outlook=outlook(expected=coming, lateness=(0, 5, 30, 31, 60)))
        for units in (5, 10)
    ]

    assert found == [
        Window(date(2026, 12, 1), date(2026, 12, 2), date(2026, 12, 31), Basis.SUPPLY),
        Window(date(2026, 12, 1), date(2026, 12, 24), date(2027, 1, 23), Basis.SUPPLY),
    ]


def test_beyond_the_announced_supply_past_months_count_on() -> None:
    coming = (expected("A", date(2026, 12, 1), 5),)

    # 60 units are missing: at 60, 40 and 20 a month that takes 30, 45 and 90 days more.
    assert window(units=65, outlook=outlook(expected=coming, monthly=(20, 60, 40))) == Window(
        date(2026, 12, 31), date(2027, 1, 17), date(2027, 3, 11), Basis.RATE
    )


def test_a_month_without_allocations_makes_the_rest_unknown() -> None:
    assert window(units=1, outlook=outlook(monthly=(50, 0, 50))) is None


def test_nothing_is_promised_beyond_two_years() -> None:
    assert window(units=10_000, outlook=outlook(monthly=(10, 10, 10))) is None


@pytest.mark.django_db
def test_outlook_reads_supply_lateness_and_rate() -> None:
    plan = make_plan()
    for late in (0, 2, 4, 4, 9):
        make_batch(plan, on=date(2026, 9, 1), received_late=late)
    batch = make_batch(plan, quantity=7, on=date(2026, 12, 5))

    assert outlooks([plan.pk], now=NOW)[plan.pk] == Outlook(
        today=TODAY,
        free=0,
        expected=(expected(batch.reference, date(2026, 12, 5), 7),),
        lateness=(0, 2, 4, 4, 9),
        lateness_of="plan",
        monthly=(0, 0, 0),
    )


@pytest.mark.django_db
def test_plan_with_few_batches_learns_from_all_and_without_any_from_the_assumption() -> None:
    plan, other = make_plan(), make_plan("V06")
    assert outlooks([plan.pk], now=NOW)[plan.pk].lateness_of == "assumption"

    for late in (1, 1, 1, 1, 8):
        make_batch(other, on=date(2026, 9, 1), received_late=late)

    found = outlooks([plan.pk], now=NOW)[plan.pk]
    assert (found.lateness_of, found.lateness) == ("all plans", (1, 1, 1, 1, 8))


@pytest.mark.django_db
def test_quote_counts_the_units_that_wait() -> None:
    plan = make_plan()
    make_line(make_fee(plan), quantity=5, paid_at=NOW)
    make_batch(plan, quantity=5, on=date(2026, 12, 1))
    make_batch(plan, quantity=5, on=date(2027, 1, 1))

    found = quote(plan_id=plan.pk, units=1, now=NOW)

    assert found is not None
    assert found.earliest == date(2027, 1, 1)


def newest(line: OrderLine) -> Estimate:
    estimate: Estimate = line.estimates.order_by("-number")[0]
    return estimate


def estimate_notices() -> list[str]:
    return list(
        Notice.objects.filter(kind__startswith="estimate").order_by("pk").values_list("kind", flat=True)
    )


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_first_estimate_is_told_when_devices_are_short() -> None:
    plan = make_plan()
    make_batch(plan, quantity=5, on=date(2026, 12, 1))
    line = make_line(make_fee(plan), quantity=2, paid_at=NOW)

    estimate = record_first_estimate(line, now=NOW)

    assert (estimate.number, estimate.cause, estimate.units_ahead) == (1, Cause.PAYMENT, 0)
    assert (estimate.earliest, estimate.likely, estimate.latest) == (
        date(2026, 12, 1),
        date(2026, 12, 8),
        date(2026, 12, 31),
    )
    assert estimate.next_update_by == date(2026, 11, 30)
    notice = Notice.objects.get()
    assert notice.kind == "estimate-made"
    assert notice.recipient_id == line.order.customer_id
    assert notice.facts["likely"] == "2026-12-08"


@pytest.mark.django_db
def test_customer_whose_device_is_there_is_not_told_an_estimate() -> None:
    plan = make_plan()
    make_devices(plan, 1)

    estimate = record_first_estimate(make_line(make_fee(plan), paid_at=NOW), now=NOW)

    assert estimate.basis == Basis.FREE
    assert estimate_notices() == []


@pytest.mark.django_db
def test_refresh_records_and_tells_only_material_changes(settings: Settings) -> None:
    settings.ESTIMATE_MATERIAL_DAYS = 2
    plan = make_plan()
    batch = make_batch(plan, quantity=5, on=date(2026, 12, 1))
    line = make_line(make_fee(plan), paid_at=NOW)
    assert refresh_estimates(plan_id=plan.pk, now=NOW) == 1
    assert refresh_estimates(plan_id=plan.pk, now=NOW) == 0

    type(batch).objects.filter(pk=batch.pk).update(expected_on=date(2026, 12, 2))
    assert refresh_estimates(plan_id=plan.pk, now=NOW) == 0

    type(batch).objects.filter(pk=batch.pk).update(expected_on=date(2026, 12, 11))
    assert refresh_estimates(plan_id=plan.pk, now=NOW) == 1

    assert (newest(line).number, newest(line).cause, newest(line).earliest) == (
        2,
        Cause.SUPPLY,
        date(2026, 12, 11),
    )
    assert estimate_notices() == ["estimate-made", "estimate-changed"]


@pytest.mark.django_db
def test_estimate_that_did_not_change_is_confirmed_on_the_promised_day() -> None:
    plan = make_plan()
    make_batch(plan, quantity=5, on=date(2027, 2, 1))
    line = make_line(make_fee(plan), paid_at=NOW)
    refresh_estimates(plan_id=plan.pk, now=NOW)

    assert refresh_estimates(plan_id=plan.pk, now=NOW + timedelta(days=6)) == 0
    assert refresh_estimates(plan_id=plan.pk, now=NOW + timedelta(days=7)) == 1

    assert (newest(line).cause, newest(line).next_update_by) == (Cause.SCHEDULE, date(2026, 12, 7))
    assert estimate_notices() == ["estimate-made", "estimate-confirmed"]


@pytest.mark.django_db
def test_line_pushed_back_by_a_payment_known_late_is_told_so() -> None:
    plan = make_plan()
    make_batch(plan, quantity=1, on=date(2026, 12, 1))
    make_batch(plan, quantity=9, on=date(2027, 1, 1))
    fee = make_fee(plan)
    line = make_line(fee, paid_at=NOW)
    refresh_estimates(plan_id=plan.pk, now=NOW)

    make_line(fee, paid_at=NOW - timedelta(minutes=1))
    refresh_estimates(plan_id=plan.pk, now=NOW)

    assert (newest(line).cause, newest(line).units_ahead) == (Cause.QUEUE, 1)


@pytest.mark.django_db
def test_unknown_window_is_recorded_as_unknown() -> None:
    line = make_line(make_fee(make_plan()), paid_at=NOW)

    estimate = record_first_estimate(line, now=NOW)

    assert (estimate.basis, estimate.earliest, estimate.likely, estimate.latest) == (
        Basis.UNKNOWN,
        None,
        None,
        None,
    )
    assert Notice.objects.get().facts["likely"] is None


@pytest.mark.django_db
def test_refresh_goes_through_the_queue_chunk_by_chunk(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(estimates, "CHUNK", 2)
    fee = make_fee(make_plan())
    # Two lines share a second: the chunk's end must fall between them and lose neither.
    lines = [make_line(fee, quantity=3, paid_at=NOW + timedelta(seconds=n)) for n in (0, 1, 1, 2)]

    assert refresh_estimates(plan_id=fee.term.plan_id, now=NOW) == 4
    assert [newest(line).units_ahead for line in lines] == [0, 3, 6, 9]
