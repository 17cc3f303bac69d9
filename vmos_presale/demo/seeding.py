"""Filling the demo: run again, it finds its rows and changes nothing."""

from datetime import datetime
from pathlib import Path
from random import Random

from django.db import connection, transaction

from agreements.publishing import publish_shipped_texts
from agreements.rights import publish_rights
from inventory.models import Plan
from orders.figures import count_figures
from orders.public_queue import plans_with_a_page
from vmos_presale.demo import customer, mass
from vmos_presale.demo.books import enter_payments
from vmos_presale.demo.catalogue import QUEUED

SEED = 20250321


def seed(*, now: datetime, books: Path) -> bool:
    """Fill an empty shop; return whether there was anything to do. `books` are the sandbox gateway's.

    The people, the catalogue and the mass of orders come in one transaction, the demo customer's orders after
    it, each in its own. A run that died goes on where it stopped.
    """
    publish_shipped_texts(now=now)
    publish_rights(now=now)
    with transaction.atomic(durable=True):
        is_new = not Plan.objects.filter(slug=QUEUED).exists()
        if is_new:
            mass.fill(now=now, random=Random(SEED))  # noqa: S311 (the same shop every time)
            with connection.cursor() as cursor:
                # Thousands of rows have come that the database plans without, until it has looked.
                cursor.execute("ANALYZE")
    if customer.is_done():
        return False
    customer.follow(now=now)
    enter_payments(books)
    for plan in plans_with_a_page():
        count_figures(plan_id=plan.pk, now=now)
    return True
