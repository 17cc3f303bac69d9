"""The triggers that keep the promises of `models.py`, for PostgreSQL and SQLite.

They are derived from the models and installed again after every `migrate`: SQLite rebuilds a table to
alter it and drops its triggers on the way. A data migration that must change such a row has to drop the
trigger by name, in the open.
"""

from collections.abc import Iterator
from typing import Any

from django.apps import apps
from django.db import connections, models
from django.db.backends.base.base import BaseDatabaseWrapper

from evidence.models import AppendOnly, WriteOnce

PG_FUNCTION = """
CREATE OR REPLACE FUNCTION evidence_refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
    RAISE EXCEPTION '% on % refused: %', TG_OP, TG_TABLE_NAME, TG_ARGV[0] USING ERRCODE = 'integrity_constraint_violation';
END $$
"""
APPEND_ONLY = "the table is append-only"
NEVER_DELETED = "its rows are never deleted"


def guarded_models() -> list[type[models.Model]]:
    """Every concrete model that makes one of the promises, in a stable order."""
    return sorted(
        (
            model
            for model in apps.get_models()
            if issubclass(model, AppendOnly | WriteOnce) and model._meta.managed and not model._meta.proxy
        ),
        key=lambda model: model._meta.label,
    )


def triggers_of(model: type[models.Model]) -> Iterator[tuple[str, str, str, str]]:
    """Yield (trigger name, event, column whose change is refused or "", reason) for `model`."""
    table = model._meta.db_table
    if issubclass(model, AppendOnly):
        yield f"{table}_no_update", "UPDATE", "", APPEND_ONLY
        yield f"{table}_no_delete", "DELETE", "", APPEND_ONLY
        return
    yield f"{table}_no_delete", "DELETE", "", NEVER_DELETED
    assert issubclass(model, WriteOnce)  # noqa: S101 (for the type checker: guarded_models() yields no other)
    for name in model.written_once:
        field = model._meta.get_field(name)
        assert isinstance(field, models.Field)  # noqa: S101 (relations back have no column)
        column = str(field.column)
        yield f"{table}_{column}_once", "UPDATE", column, f"{column} is written once"


def missing_triggers(connection: BaseDatabaseWrapper) -> list[str]:
    """Names of the triggers that should be on the database and are not, or are switched off."""
    # (`tgenabled` is O for a trigger that fires; somebody may have said DISABLE TRIGGER.)
    present = {
        "postgresql": "SELECT tgname FROM pg_trigger WHERE tgenabled = 'O'",
        "sqlite": "SELECT name FROM sqlite_master WHERE type = 'trigger'",
    }
    with connection.cursor() as cursor:
        cursor.execute(present[connection.vendor])
        names = {name for (name,) in cursor.fetchall()}
    wanted = [name for model in guarded_models() for name, *_rest in triggers_of(model)]
    return [name for name in wanted if name not in names]


def install_triggers(*, using: str, **_: Any) -> None:
    """Create or replace every trigger on the database `using` (a post_migrate receiver)."""
    connection = connections[using]
    present = set(connection.introspection.table_names())
    postgres = connection.vendor == "postgresql"
    with connection.cursor() as cursor:
        if postgres:
            cursor.execute(PG_FUNCTION)
        for model in guarded_models():
            if model._meta.db_table not in present:
                continue
            for name, event, column, reason in triggers_of(model):
                for statement in (_postgres if postgres else _sqlite)(
                    connection, model._meta.db_table, name, event, column, reason
                ):
                    cursor.execute(statement)


def _postgres(
    connection: BaseDatabaseWrapper, table: str, name: str, event: str, column: str, reason: str
) -> Iterator[str]:
    quote = connection.ops.quote_name
    of_column = f" OF {quote(column)}" if column else ""
    when = (
        f"WHEN (OLD.{quote(column)} IS NOT NULL AND NEW.{quote(column)} IS DISTINCT FROM OLD.{quote(column)}) "
        if column
        else ""
    )
    yield (
        f"CREATE OR REPLACE TRIGGER {quote(name)} BEFORE {event}{of_column} ON {quote(table)} "
        f"FOR EACH ROW {when}EXECUTE FUNCTION evidence_refuse('{reason}')"
    )


def _sqlite(
    connection: BaseDatabaseWrapper, table: str, name: str, event: str, column: str, reason: str
) -> Iterator[str]:
    quote = connection.ops.quote_name
    of_column = f" OF {quote(column)}" if column else ""
    when = (
        f"WHEN OLD.{quote(column)} IS NOT NULL AND NEW.{quote(column)} IS NOT OLD.{quote(column)} "
        if column
        else ""
    )
    yield f"DROP TRIGGER IF EXISTS {quote(name)}"
    yield (
        f"CREATE TRIGGER {quote(name)} BEFORE {event}{of_column} ON {quote(table)} "
        f"{when}BEGIN SELECT RAISE(ABORT, '{event} on {table} refused: {reason}'); END"
    )
