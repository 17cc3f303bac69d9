"""A job that runs for a plan already is not begun a second time, and nobody waits for it."""

from datetime import timedelta

import pytest
from django.db import transaction

from inventory.models import Plan
from orders import tasks
from orders.allocation import allocate_devices
from orders.estimates import refresh_estimates
from orders.models import Allocation, EstimateRound
from orders.one_at_a_time import Job, alone
from tests.builders import NOW, make_devices, make_fee, make_line, make_plan
from tests.racing import in_background, wait_until_blocked

pytestmark = pytest.mark.django_db(transaction=True)


def tried_elsewhere(job: Job, *, plan_id: int) -> bool:
    """What another worker, with a connection of its own, is told meanwhile."""

    def try_it() -> bool:
        with alone(job, plan_id=plan_id) as is_free:
            return is_free

    return bool(in_background(try_it).result(60))


def test_second_worker_finds_that_the_job_runs_until_the_first_is_done() -> None:
    with alone(Job.SWEEP, plan_id=1) as is_free:
        assert is_free
        assert not tried_elsewhere(Job.SWEEP, plan_id=1)
        # That the second gave up has not let go of what the first has.
        assert not tried_elsewhere(Job.SWEEP, plan_id=1)

    assert tried_elsewhere(Job.SWEEP, plan_id=1)


def test_other_plans_and_other_jobs_go_on() -> None:
    with alone(Job.SWEEP, plan_id=1):
        assert tried_elsewhere(Job.SWEEP, plan_id=2)
        assert tried_elsewhere(Job.ESTIMATES, plan_id=1)


def test_job_that_fails_leaves_the_way_free() -> None:
    with pytest.raises(ZeroDivisionError), alone(Job.SWEEP, plan_id=1):
        1 / 0  # noqa: B018

    assert tried_elsewhere(Job.SWEEP, plan_id=1)


@pytest.mark.postgres
def test_worker_that_dies_leaves_the_way_free() -> None:
    job = alone(Job.SWEEP, plan_id=1)

    # Its block never ends: the thread's connection is closed while it still has the lock.
    assert in_background(job.__enter__).result(60)

    assert tried_elsewhere(Job.SWEEP, plan_id=1)


@pytest.fixture
def plan_being_swept() -> Plan:
    plan = make_plan()
    make_devices(plan, 1)
    make_line(make_fee(plan), paid_at=NOW - timedelta(hours=1))
    return plan


@pytest.mark.postgres
def test_sweep_that_is_asked_for_during_another_is_over_at_once(plan_being_swept: Plan) -> None:
    with transaction.atomic():
        Plan.objects.select_for_update().get(pk=plan_being_swept.pk)
        first = in_background(lambda: tasks.sweep(plan_id=plan_being_swept.pk))
        wait_until_blocked()

        in_background(lambda: tasks.sweep(plan_id=plan_being_swept.pk)).result(60)

        assert not first.done()
        assert not Allocation.objects.exists()
    first.result(60)
    assert Allocation.objects.count() == 1


@pytest.mark.postgres
def test_control_without_the_guard_the_second_sweep_waits_for_the_first(plan_being_swept: Plan) -> None:
    with transaction.atomic():
        Plan.objects.select_for_update().get(pk=plan_being_swept.pk)
        sweeps = [
            in_background(lambda: allocate_devices(plan_id=plan_being_swept.pk, now=NOW)) for _ in range(2)
        ]

        wait_until_blocked(sessions=2)
    assert sorted(sweep.result(60) for sweep in sweeps) == [0, 1]


@pytest.fixture
def plan_without_estimates() -> Plan:
    plan = make_plan()
    make_line(make_fee(plan), paid_at=NOW - timedelta(hours=1))
    return plan


@pytest.mark.postgres
def test_round_of_estimates_that_is_asked_for_during_another_is_over_at_once(
    plan_without_estimates: Plan,
) -> None:
    with transaction.atomic():
        Plan.objects.select_for_update().get(pk=plan_without_estimates.pk)
        first = in_background(tasks.refresh_estimates)
        wait_until_blocked()

        in_background(tasks.refresh_estimates).result(60)

        assert not first.done()
    first.result(60)
    assert EstimateRound.objects.count() == 1


@pytest.mark.postgres
def test_control_without_the_guard_the_second_round_waits_for_the_first(plan_without_estimates: Plan) -> None:
    with transaction.atomic():
        Plan.objects.select_for_update().get(pk=plan_without_estimates.pk)
        rounds = [
            in_background(lambda: refresh_estimates(plan_id=plan_without_estimates.pk, now=NOW))
            for _ in range(2)
        ]

        wait_until_blocked(sessions=2)
    assert sorted(each.result(60) for each in rounds) == [0, 1]
