"""Celery: which jobs run, and how often.

Every job may run twice, late, or die in the middle: the intent lives in the database, and the next run
finds what is left. The schedule is therefore code: a lost tick costs nothing but time.
"""

import os

from celery import Celery

from vmos_presale import folder_broker

os.environ.setdefault("DJANGO_SETTINGS_MODULE", "vmos_presale.settings")

folder_broker.register()
app = Celery("vmos_presale")
app.config_from_object("django.conf:settings", namespace="CELERY")
app.autodiscover_tasks()

# Task name → seconds between its runs.
SCHEDULE = {
    "orders.sweep_all": 5.0,
    "notices.drain": 1.0,
    "notices.broadcast": 5.0,
    "orders.refresh_estimates": 60.0,
    "orders.count_figures": 300.0,
    "orders.roll_up_queues": 30.0,
    "orders.seal_queues": 5.0,
    "orders.publish_heads": 600.0,
    "orders.process_webhooks": 5.0,
    "orders.empty_webhooks": 24 * 3600.0,
    "orders.poll_payments": 15.0,
    "orders.send_returns": 60.0,
    "orders.work_off_shortfalls": 10.0,
    "orders.report_closing_windows": 24 * 3600.0,
    "orders.expire_orders": 60.0,
    "orders.announce_revisions": 10.0,
    "orders.tell_of_ends": 6 * 3600.0,
    "orders.issue_missing_invoices": 3600.0,
    "orders.verify_evidence": 24 * 3600.0,
    "orders.reconcile": 24 * 3600.0,
    "orders.report_overdue_cases": 3600.0,
}
# A tick that waited longer than its own interval is stale: the next one does its work.
app.conf.beat_schedule = {
    task: {"task": task, "schedule": seconds, "options": {"expires": max(10.0, seconds)}}
    for task, seconds in SCHEDULE.items()
}
