"""Fee schedules: announced in advance, final, and effective from their time on (agreement 3.2)."""

from collections.abc import Callable
from datetime import timedelta

import pytest

from inventory.fees import ScheduleRefused, publish_fee_schedule
from inventory.models import Fee, FeeSchedule, Term
from notices.models import Announcement
from tests.builders import NOW, make_fee, make_plan

NEXT_WEEK = NOW + timedelta(days=7)


def fee_at(term: Term, moment: object) -> int:
    return Fee.objects.in_force(currency="USD", at=moment)[term.pk].minor


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_a_fee_announced_today_applies_from_its_time_on_and_not_before() -> None:
    term = make_fee(make_plan(), minor=499).term
    schedule = publish_fee_schedule(
        currency="USD", effective_at=NEXT_WEEK, announced_at=NOW, fees=[(term, 599)]
    )
    assert (schedule.announced_at, schedule.effective_at) == (NOW, NEXT_WEEK)
    assert fee_at(term, NEXT_WEEK - timedelta(microseconds=1)) == 499
    assert fee_at(term, NEXT_WEEK) == 599


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_a_change_of_fees_is_announced_on_the_site_until_it_applies() -> None:
    term = make_fee(make_plan()).term
    assert not Announcement.objects.exists()  # the first schedule changes nothing
    publish_fee_schedule(currency="USD", effective_at=NEXT_WEEK, announced_at=NOW, fees=[(term, 599)])
    [announced] = Announcement.objects.all()
    assert (announced.kind, announced.published_at, announced.banner_until, announced.url) == (
        "fees-announced",
        NOW,
        NEXT_WEEK,
        "/fees/",
    )
    assert announced.texts["en"]["title"] == "New fees from Nov. 30, 2026 (USD)"


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_a_term_that_a_schedule_leaves_out_keeps_its_fee() -> None:
    plan = make_plan()
    kept, changed = make_fee(plan, days=30, minor=499).term, make_fee(plan, days=90, minor=1399).term
    publish_fee_schedule(currency="USD", effective_at=NEXT_WEEK, announced_at=NOW, fees=[(changed, 1499)])
    assert (fee_at(kept, NEXT_WEEK), fee_at(changed, NEXT_WEEK)) == (499, 1499)


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_a_schedule_that_would_apply_before_it_is_announced_is_refused() -> None:
    term = make_fee(make_plan()).term
    with pytest.raises(ScheduleRefused, match=r"agreement 3\.2"):
        publish_fee_schedule(
            currency="USD", effective_at=NOW - timedelta(seconds=1), announced_at=NOW, fees=[(term, 599)]
        )
    assert (FeeSchedule.objects.count(), fee_at(term, NOW)) == (1, 499)


@pytest.mark.parametrize(
    ("currency", "fees", "message"),
    [
        ("XTS", lambda term: [(term, 1)], "The shop does not sell in XTS."),
        ("USD", lambda _term: [], "Give the fee of at least one term."),
        ("USD", lambda term: [(term, 1), (term, 2)], "A term has two fees: give it one."),
        ("USD", lambda term: [(term, 0)], "A fee is more than nothing."),
    ],
)
@pytest.mark.django_db
def test_a_schedule_that_makes_no_sense_is_refused(
    currency: str, fees: Callable[[Term], list[tuple[Term, int]]], message: str
) -> None:
    term = make_fee(make_plan()).term
    with pytest.raises(ScheduleRefused, match=message):
        publish_fee_schedule(currency=currency, effective_at=NEXT_WEEK, announced_at=NOW, fees=fees(term))
    assert (FeeSchedule.objects.count(), Fee.objects.count()) == (1, 1)


@pytest.mark.django_db
def test_two_schedules_of_a_currency_do_not_take_effect_at_one_moment() -> None:
    term = make_fee(make_plan()).term
    publish_fee_schedule(currency="USD", effective_at=NEXT_WEEK, announced_at=NOW, fees=[(term, 599)])
    with pytest.raises(ScheduleRefused, match="give another time"):
        publish_fee_schedule(currency="USD", effective_at=NEXT_WEEK, announced_at=NOW, fees=[(term, 699)])
    publish_fee_schedule(currency="EUR", effective_at=NEXT_WEEK, announced_at=NOW, fees=[(term, 549)])
    assert fee_at(term, NEXT_WEEK) == 599


@pytest.mark.clause("3.2")
@pytest.mark.django_db
def test_a_change_is_announced_a_week_ahead_and_not_a_second_less() -> None:
    term = make_fee(make_plan()).term
    with pytest.raises(ScheduleRefused, match=r"7 days ahead: it can take effect on Nov\. 30, 2026, noon"):
        publish_fee_schedule(
            currency="USD",
            effective_at=NEXT_WEEK - timedelta(seconds=1),
            announced_at=NOW,
            fees=[(term, 599)],
        )
    assert FeeSchedule.objects.count() == 1


@pytest.mark.django_db
def test_the_first_fees_of_a_currency_apply_at_once() -> None:
    term = make_fee(make_plan()).term
    publish_fee_schedule(currency="EUR", effective_at=NOW, announced_at=NOW, fees=[(term, 549)])
    assert Fee.objects.in_force(currency="EUR", at=NOW)[term.pk].minor == 549
