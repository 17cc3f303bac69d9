"""Re-play the fairness ledger of every plan, or of one, and say what is wrong (exit code 1)."""

from typing import Any

from django.core.management.base import BaseCommand, CommandError, CommandParser
from django.utils import timezone

from inventory.models import Plan
from orders.queue import fairness, segments


class Command(BaseCommand):
    help = "Re-play the fairness ledgers against the tables: order of payment, seals, gaps, counts."

    def add_arguments(self, parser: CommandParser) -> None:
        parser.add_argument("--plan", help="only this plan (its address in the shop)")
        parser.add_argument(
            "--rebuild",
            action="store_true",
            help="count the segments of the queues anew (nobody has to wait for it)",
        )

    def handle(self, *args: Any, **options: Any) -> None:
        plans = Plan.objects.order_by("pk")
        if options["plan"]:
            plans = plans.filter(slug=options["plan"])
            if not plans:
                raise CommandError(f"There is no plan {options['plan']!r}.")
        wrong = []
        for plan in plans:
            fairness.seal_events(plan_id=plan.pk)
            found = list(fairness.faults_of(plan, now=timezone.now()))
            head = fairness.head_of(plan.pk)
            self.stdout.write(f"{plan}: {head.number} entries, {len(found)} wrong, head {head.sha256}")
            wrong += found
            if options["rebuild"]:
                segments.rebuild(plan_id=plan.pk)
        wrong += segments.wrong_counts()
        for sentence in wrong:
            self.stderr.write(sentence)
        if wrong:
            raise CommandError(f"{len(wrong)} things are wrong.")
