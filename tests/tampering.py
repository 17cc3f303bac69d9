"""Changing what must never change, as somebody could who owns the database."""

from collections.abc import Iterator
from contextlib import contextmanager

from django.db import connection, models
from django.db.backends.utils import CursorWrapper

from evidence.triggers import install_triggers, triggers_of


@contextmanager
def behind_the_triggers(*guarded: type[models.Model]) -> Iterator[CursorWrapper]:
    """A cursor for changing rows of these tables: what guards them is away until the block ends."""
    with connection.cursor() as cursor:
        for model in guarded:
            on = f" ON {model._meta.db_table}" if connection.vendor == "postgresql" else ""
            for trigger in triggers_of(model):
                cursor.execute(f"DROP TRIGGER {trigger.name}{on}")
        try:
            yield cursor
            # No trigger can be made while a foreign key is still to be checked.
            connection.check_constraints()
        finally:
            install_triggers(using="default")
