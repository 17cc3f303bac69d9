"""`manage.py seed_demo`: a shop full of made-up people, plans and orders."""

from argparse import ArgumentParser

from django.conf import settings
from django.core.management.base import BaseCommand, CommandError
from django.utils import timezone

from vmos_presale.demo.books import FILE
from vmos_presale.demo.catalogue import APPROVER, CUSTOMER, PASSWORD, STAFF
from vmos_presale.demo.seeding import seed


class Command(BaseCommand):
    help = "Fills the demo with sample data. Safe to run again: what is there stays as it is."

    def add_arguments(self, parser: ArgumentParser) -> None:
        parser.add_argument(
            "--force",
            action="store_true",
            help="do it although DEMO is not set; it makes staff whose password everybody knows",
        )

    def handle(self, *_args: object, force: bool, **_options: object) -> None:
        if not (settings.DEMO or force):
            raise CommandError(
                "DEMO is not set. The sample data has staff whose password everybody knows: see --force."
            )
        is_new = seed(now=timezone.now(), books=FILE)
        self.stdout.write("The sample data is in." if is_new else "The sample data was there already.")
        for who, email in (("customer", CUSTOMER), ("staff", STAFF), ("second member of staff", APPROVER)):
            self.stdout.write(f"{who}: {email} / {PASSWORD}")
