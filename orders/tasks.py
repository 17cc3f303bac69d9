"""The scheduled jobs of the sale: each only calls its verb. The schedule is in `vmos_presale/celery.py`."""

import logging

from celery import shared_task
from django.utils import timezone

from orders import (
    allocation,
    cases,
    checkout,
    documents,
    estimates,
    figures,
    payments,
    reconciliation,
    retention,
    returns,
    revisions,
    shortfalls,
    terms,
    verification,
)
from orders.one_at_a_time import Job, alone
from orders.public_queue import plans_with_a_page
from orders.queue import fairness, plans_with_a_queue, segments

logger = logging.getLogger(__name__)

# Seconds after which a sweep that no worker has taken is dropped: the next tick asks for it again.
SWEEP_EXPIRES = 10


@shared_task(name="orders.sweep_all")
def sweep_all() -> None:
    """Sweep every plan that has work, each in a task of its own: several plans go in parallel.

    A plan may have its sweep still from the tick before; the task finds that out at once, and is over.
    """
    for plan_id in allocation.plans_to_sweep():
        sweep.apply_async(kwargs={"plan_id": plan_id}, expires=SWEEP_EXPIRES)


@shared_task(name="orders.sweep")
def sweep(*, plan_id: int) -> None:
    with alone(Job.SWEEP, plan_id=plan_id) as is_free:
        units = allocation.allocate_devices(plan_id=plan_id, now=timezone.now()) if is_free else 0
    if units:
        logger.info("Plan %d: %d units allocated.", plan_id, units)


@shared_task(name="orders.refresh_estimates")
def refresh_estimates() -> None:
    faults: list[Exception] = []
    for plan in plans_with_a_queue():
        try:
            with alone(Job.ESTIMATES, plan_id=plan.pk) as is_free:
                if is_free:
                    estimates.refresh_estimates(plan_id=plan.pk, now=timezone.now())
        except Exception as fault:  # noqa: BLE001 (raised below; the other plans' customers wait for theirs)
            fault.add_note(f"Plan {plan}")
            faults.append(fault)
    if faults:
        raise ExceptionGroup("Plans that could not be estimated", faults)


@shared_task(name="orders.count_figures")
def count_figures() -> None:
    for plan in plans_with_a_page():
        with alone(Job.FIGURES, plan_id=plan.pk) as is_free:
            if is_free:
                figures.count_figures(plan_id=plan.pk, now=timezone.now())


@shared_task(name="orders.roll_up_queues")
def roll_up_queues() -> None:
    for plan in plans_with_a_queue():
        segments.roll_up(plan_id=plan.pk)


@shared_task(name="orders.seal_queues")
def seal_queues() -> None:
    for plan_id in fairness.plans_to_seal():
        fairness.seal_events(plan_id=plan_id)


@shared_task(name="orders.publish_heads")
def publish_heads() -> None:
    fairness.publish_heads(now=timezone.now())


@shared_task(name="orders.process_webhooks")
def process_webhooks() -> None:
    payments.process_webhooks(now=timezone.now())


@shared_task(name="orders.empty_webhooks")
def empty_webhooks() -> None:
    retention.empty_webhooks(now=timezone.now())


@shared_task(name="orders.poll_payments")
def poll_payments() -> None:
    payments.poll_payments(now=timezone.now())


@shared_task(name="orders.expire_orders")
def expire_orders() -> None:
    checkout.expire_orders(now=timezone.now())


@shared_task(name="orders.announce_revisions")
def announce_revisions() -> None:
    revisions.announce_revisions(now=timezone.now())


@shared_task(name="orders.tell_of_ends")
def tell_of_ends() -> None:
    terms.tell_of_ends(now=timezone.now())


@shared_task(name="orders.reconcile")
def reconcile() -> None:
    reconciliation.reconcile(now=timezone.now())


@shared_task(name="orders.issue_missing_invoices")
def issue_missing_invoices() -> None:
    documents.issue_missing_invoices(now=timezone.now())


@shared_task(name="orders.verify_evidence")
def verify_evidence() -> None:
    verification.report_broken_evidence(now=timezone.now())


@shared_task(name="orders.send_returns")
def send_returns() -> None:
    returns.send_returns(now=timezone.now())


@shared_task(name="orders.work_off_shortfalls")
def work_off_shortfalls() -> None:
    shortfalls.work_off_shortfalls(now=timezone.now())


@shared_task(name="orders.report_closing_windows")
def report_closing_windows() -> None:
    returns.report_closing_windows(now=timezone.now())


@shared_task(name="orders.report_overdue_cases")
def report_overdue_cases() -> None:
    cases.report_overdue_cases(now=timezone.now())
