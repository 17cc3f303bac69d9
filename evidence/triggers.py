"""The triggers that keep the promises of `models.py`, for PostgreSQL and SQLite.

They are derived from the models and installed again after every `migrate`: SQLite rebuilds a table to
alter it and drops its triggers on the way. A data migration that must change such a row has to drop the
trigger by name, in the open.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
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
# How nothing is written, by the kind of the column.
NOTHING: Mapping[str, Mapping[str, str]] = {
    "BinaryField": {"postgresql": "''::bytea", "sqlite": "x''"},
    "JSONField": {"postgresql": "'{}'::jsonb", "sqlite": "'{}'"},
}


@dataclass(frozen=True, slots=True)
class Trigger:
    """What refuses `event`; with a `column` only a change of that, and with `nothing` (by vendor, as the database
    writes it) not the change to just that.
    """

    name: str
    event: str
    reason: str
    column: str = ""
    nothing: Mapping[str, str] | None = None


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


def triggers_of(model: type[models.Model]) -> Iterator[Trigger]:
    table = model._meta.db_table
    if issubclass(model, AppendOnly):
        yield Trigger(f"{table}_no_update", "UPDATE", APPEND_ONLY)
        yield Trigger(f"{table}_no_delete", "DELETE", APPEND_ONLY)
        return
    yield Trigger(f"{table}_no_delete", "DELETE", NEVER_DELETED)
    assert issubclass(model, WriteOnce)  # noqa: S101 (for the type checker: guarded_models() yields no other)
    for name in model.written_once:
        field = model._meta.get_field(name)
        assert isinstance(field, models.Field)  # noqa: S101 (relations back have no column)
        column = str(field.column)
        nothing = NOTHING[field.get_internal_type()] if name in model.may_be_emptied else None
        yield Trigger(f"{table}_{column}_once", "UPDATE", f"{column} is written once", column, nothing)


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
    wanted = [trigger.name for model in guarded_models() for trigger in triggers_of(model)]
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
            for trigger in triggers_of(model):
                for statement in (_postgres if postgres else _sqlite)(
                    connection, model._meta.db_table, trigger
                ):
                    cursor.execute(statement)


def _postgres(connection: BaseDatabaseWrapper, table: str, trigger: Trigger) -> Iterator[str]:
    quote = connection.ops.quote_name
    of_column, when = "", ""
    if trigger.column:
        column = quote(trigger.column)
        of_column = f" OF {column}"
        when = f"OLD.{column} IS NOT NULL AND NEW.{column} IS DISTINCT FROM OLD.{column}"
        if trigger.nothing:
            when += f" AND NEW.{column} IS DISTINCT FROM {trigger.nothing['postgresql']}"
        when = f"WHEN ({when}) "
    yield (
        f"CREATE OR REPLACE TRIGGER {quote(trigger.name)} BEFORE {trigger.event}{of_column} ON {quote(table)} "
        f"FOR EACH ROW {when}EXECUTE FUNCTION evidence_refuse('{trigger.reason}')"
    )


def _sqlite(connection: BaseDatabaseWrapper, table: str, trigger: Trigger) -> Iterator[str]:
    quote = connection.ops.quote_name
    of_column, when = "", ""
    if trigger.column:
        column = quote(trigger.column)
        of_column = f" OF {column}"
        when = f"WHEN OLD.{column} IS NOT NULL AND NEW.{column} IS NOT OLD.{column} "
        if trigger.nothing:
            when += f"AND NEW.{column} IS NOT {trigger.nothing['sqlite']} "
    yield f"DROP TRIGGER IF EXISTS {quote(trigger.name)}"
    yield (
        f"CREATE TRIGGER {quote(trigger.name)} BEFORE {trigger.event}{of_column} ON {quote(table)} "
        f"{when}BEGIN SELECT RAISE(ABORT, '{trigger.event} on {table} refused: {trigger.reason}'); END"
    )
