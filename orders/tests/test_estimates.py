"""Windows: what they are made from, and when a new one is recorded and told."""

from datetime import date, timedelta

import pytest
from pytest_django import Settings

from agreements.models import StatutoryRight
from inventory.models import BatchState, SupplyBatch
from notices.expansion import expand
from notices.models import Announcement, Delivery, DeliveryState, Notice
from orders import estimates
from orders.allocation import allocate_devices
from orders.estimates import quote, record_first_estimate, refresh_estimates
from orders.models import Basis, Cause, Estimate, Order, OrderLine
from orders.outlooks import outlooks
from orders.queue import units_ahead
from orders.windows import Expected, Outlook
from tests.builders import NOW, make_batch, make_devices, make_fee, make_line, make_plan

TODAY = date(2026, 11, 23)


@pytest.mark.django_db
def test_outlook_reads_supply_lateness_and_rate() -> None:
    plan = make_plan()
    for late in (0, 2, 4, 4, 9):
        make_batch(plan, on=date(2026, 9, 1), received_late=late)
    batch = make_batch(plan, quantity=7, on=date(2026, 12, 5))

    assert outlooks([plan.pk], now=NOW)[plan.pk] == Outlook(
        today=TODAY,
        free=0,
        expected=(Expected(batch.reference, date(2026, 12, 5), 7, date(2026, 12, 5), 7),),
        lateness=(0, 2, 4, 4, 9),
        overdue=(),
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


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_deliveries_that_are_overdue_or_put_off_count_as_late_as_they_are_known_to_be() -> None:
    plan = make_plan()
    for late in (0, 2, 4, 4, 9):
        make_batch(plan, on=date(2026, 9, 1), received_late=late)
    make_batch(plan, on=TODAY - timedelta(days=6))
    make_batch(plan, on=TODAY)
    make_batch(plan, on=TODAY + timedelta(days=9))
    cancelled, put_off, arrived = (make_batch(plan, on=TODAY - timedelta(days=days)) for days in (3, 1, 2))
    SupplyBatch.objects.filter(pk=cancelled.pk).update(state=BatchState.CANCELLED)
    SupplyBatch.objects.filter(pk=put_off.pk).update(expected_on=TODAY + timedelta(days=20))
    SupplyBatch.objects.filter(pk=arrived.pk).update(received_units=arrived.quantity)

    assert outlooks([plan.pk], now=NOW)[plan.pk].overdue == (6, 21)

    young = make_plan("V06")
    assert outlooks([young.pk], now=NOW)[young.pk].overdue == (6, 21)


@pytest.mark.django_db
def test_where_too_little_is_known_the_assumption_allows_for_delays() -> None:
    plan = make_plan()
    make_batch(plan, on=TODAY - timedelta(days=6))
    assert outlooks([plan.pk], now=NOW)[plan.pk].overdue == ()


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

    estimate = record_first_estimate(line, ahead=units_ahead(line), now=NOW)

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

    estimate = record_first_estimate(make_line(make_fee(plan), paid_at=NOW), ahead=0, now=NOW)

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
        Cause.SUPPLY_LATE,
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

    assert (newest(line).cause, newest(line).units_ahead) == (Cause.LATE_PAYMENTS, 1)


@pytest.mark.django_db
def test_unknown_window_is_recorded_as_unknown() -> None:
    line = make_line(make_fee(make_plan()), paid_at=NOW)

    estimate = record_first_estimate(line, ahead=units_ahead(line), now=NOW)

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


# --- a long delay, and being next ------------------------------------------------------------------------


def waiting_under(*, delay_days: int | None) -> OrderLine:
    """A line of a buyer whose law lets him choose after so many days of delay, with its first estimate."""
    plan = make_plan()
    make_batch(plan, quantity=5, on=date(2026, 12, 1))
    line = make_line(make_fee(plan), quantity=2, paid_at=NOW)
    right = StatutoryRight.objects.create(
        key="eu",
        edition=1,
        countries=["DE"],
        law="Directive (EU) 2019/770",
        withdrawal_days=14,
        title={"en": "Rights"},
        explanation={"en": "You have rights."},
        waiver={},
        delay_days=delay_days,
        delay={"en": "You may end the contract.", "zh-hans": "您可以终止合同。"},
        published_at=NOW,
    )
    Order.objects.filter(pk=line.order_id).update(right=right, withdraw_until=NOW)
    refresh_estimates(plan_id=plan.pk, now=NOW)
    return line


def supply_comes(line: OrderLine, day: date) -> None:
    SupplyBatch.objects.filter(plan=line.plan).update(expected_on=day)
    refresh_estimates(plan_id=line.plan_id, now=NOW)


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_customer_whom_the_law_lets_choose_after_a_delay_is_told_his_choice_once() -> None:
    line = waiting_under(delay_days=30)
    promised = newest(line).latest
    assert promised is not None
    likely_after = (newest(line).likely or promised) - date(2026, 12, 1)

    supply_comes(line, promised + timedelta(days=30) - likely_after)
    assert estimate_notices() == ["estimate-made", "estimate-changed"]
    supply_comes(line, promised + timedelta(days=33) - likely_after)
    supply_comes(line, promised + timedelta(days=60))

    told = Notice.objects.get(kind="delayed")
    assert (told.facts["promised"], told.facts["choice"]) == (
        promised.isoformat(),
        "You may end the contract.",
    )
    assert estimate_notices() == ["estimate-made", "estimate-changed", "estimate-changed"]


@pytest.mark.django_db
def test_delay_counts_until_today_where_no_date_can_be_named_any_more() -> None:
    line = waiting_under(delay_days=30)
    promised = newest(line).latest
    assert promised is not None
    later = NOW + timedelta(days=90)
    assert promised + timedelta(days=30) < later.date()

    SupplyBatch.objects.filter(plan=line.plan).update(state=BatchState.CANCELLED)
    refresh_estimates(plan_id=line.plan_id, now=later)

    assert Notice.objects.filter(kind="delayed").count() == 1


@pytest.mark.django_db
def test_where_the_law_gives_no_choice_a_long_delay_is_a_change_like_others() -> None:
    line = waiting_under(delay_days=None)
    supply_comes(line, date(2027, 6, 1))
    assert estimate_notices() == ["estimate-made", "estimate-changed"]
    assert not Notice.objects.filter(kind="delayed").exists()


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_customer_who_has_come_to_the_head_of_the_queue_hears_that_he_is_next() -> None:
    plan = make_plan()
    fee = make_fee(plan)
    make_batch(plan, quantity=50, on=date(2026, 12, 1))
    first = make_line(fee, quantity=2, paid_at=NOW - timedelta(hours=2))
    second = make_line(fee, quantity=2, paid_at=NOW - timedelta(hours=1))
    refresh_estimates(plan_id=plan.pk, now=NOW)
    make_devices(plan, 2)
    allocate_devices(plan_id=plan.pk, now=NOW)

    refresh_estimates(plan_id=plan.pk, now=NOW + timedelta(days=1))

    told = Notice.objects.get(kind="next-in-line")
    assert (told.recipient, told.about) == (second.order.customer, second.order.reference)
    assert (newest(second).cause, newest(second).units_ahead) == (Cause.TURN, 0)
    assert newest(first).number == 1


@pytest.fixture
def second_of_two() -> OrderLine:
    """A line that was behind another of two units when it was estimated, and is at the head now."""
    plan = make_plan()
    fee = make_fee(plan)
    make_batch(plan, quantity=50, on=date(2027, 2, 1))
    make_line(fee, quantity=2, paid_at=NOW - timedelta(hours=2))
    second = make_line(fee, quantity=2, paid_at=NOW - timedelta(hours=1))
    refresh_estimates(plan_id=plan.pk, now=NOW)
    make_devices(plan, 2)
    allocate_devices(plan_id=plan.pk, now=NOW)
    return second


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_being_next_puts_off_no_promised_update(second_of_two: OrderLine) -> None:
    refresh_estimates(plan_id=second_of_two.plan_id, now=NOW + timedelta(days=1))
    assert (newest(second_of_two).cause, newest(second_of_two).next_update_by) == (
        Cause.TURN,
        TODAY + timedelta(days=7),
    )

    refresh_estimates(plan_id=second_of_two.plan_id, now=NOW + timedelta(days=7))
    assert newest(second_of_two).cause == Cause.SCHEDULE
    assert Notice.objects.filter(
        kind="estimate-confirmed", recipient=second_of_two.order.customer_id
    ).exists()


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_update_that_is_due_comes_before_the_word_that_can_be_switched_off(second_of_two: OrderLine) -> None:
    refresh_estimates(plan_id=second_of_two.plan_id, now=NOW + timedelta(days=7))

    assert (newest(second_of_two).cause, newest(second_of_two).units_ahead) == (Cause.SCHEDULE, 0)
    assert not Notice.objects.filter(kind="next-in-line").exists()


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_choice_after_a_delay_is_sent_however_often_the_dates_change_in_the_backlog() -> None:
    line = waiting_under(delay_days=30)
    for days in (60, 150, 240):  # a change, the choice, another change
        supply_comes(line, date(2026, 11, 1) + timedelta(days=days))
    assert list(
        Notice.objects.filter(recipient=line.order.customer_id).order_by("pk").values_list("kind", "thread")
    ) == [
        ("estimate-made", f"estimate:{line.pk}"),
        ("estimate-changed", f"estimate:{line.pk}"),
        ("delayed", ""),
        ("estimate-changed", f"estimate:{line.pk}"),
    ]

    expand(now=NOW)

    mails = Delivery.objects.filter(notice__recipient=line.order.customer_id, channel="email")
    assert list(mails.order_by("notice_id").values_list("notice__kind", "state")) == [
        ("estimate-made", DeliveryState.SUPERSEDED),
        ("estimate-changed", DeliveryState.SUPERSEDED),
        ("delayed", DeliveryState.QUEUED),
        ("estimate-changed", DeliveryState.QUEUED),
    ]


@pytest.mark.clause("3.3")
@pytest.mark.django_db
def test_estimates_that_have_changed_are_announced_on_the_site_once_a_day() -> None:
    line = waiting_under(delay_days=None)
    assert not Announcement.objects.exists()

    supply_comes(line, date(2027, 1, 20))
    supply_comes(line, date(2027, 2, 20))
    [announced] = Announcement.objects.all()
    assert (announced.kind, announced.url) == ("plan-estimate", f"/queue/{line.plan.slug}/")
    assert "2 phones are owed to customers who wait." in announced.texts["en"]["body"]

    SupplyBatch.objects.filter(plan=line.plan).update(expected_on=date(2027, 3, 20))
    refresh_estimates(plan_id=line.plan_id, now=NOW + timedelta(days=1))
    assert Announcement.objects.count() == 2
