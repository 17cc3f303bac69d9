"""Chains of hashes: each row of a `Chained` table seals its own values and the seal of the row before.

The triggers keep anybody from changing a row by way of the database. Whoever can drop them can change it, but
then has to seal every later row anew, and whoever kept an earlier seal (it is on every evidence document)
can tell.
"""

import hashlib
import json
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime
from ipaddress import ip_address
from typing import Any, TypeVar

from django.db import models, transaction

from evidence.models import Chained, ChainHead

Row = TypeVar("Row", bound=Chained)

# What the first row of a chain has in place of a seal before it.
NOTHING_BEFORE = "0" * 64
READ_AT_ONCE = 2_000
WRITTEN_AT_ONCE = 1_000


def append(rows: Sequence[Row]) -> list[Row]:
    """Add `rows`, all of one model, to the end of its chain, in the transaction of the caller.

    The chain's head is locked until that transaction ends, so take this lock last: rows are sealed in the
    order in which their transactions commit. Raises TransactionManagementError outside a transaction.
    """
    if not rows:
        return []
    model = type(rows[0])
    if not transaction.get_connection().in_atomic_block:
        raise transaction.TransactionManagementError("A chain grows in the transaction of what it records.")
    head = _locked_head(model)
    number, seal = head.chain_number, head.chain_sha256
    for row in rows:
        number += 1
        row.chain_number, row.previous_sha256 = number, seal
        row.chain_sha256 = seal = seal_of(row)
    model.objects.bulk_create(rows, batch_size=WRITTEN_AT_ONCE)
    ChainHead.objects.filter(pk=head.pk).update(chain_number=number, chain_sha256=seal)
    return list(rows)


def lock(model: type[Chained]) -> None:
    """Take the lock under which the chain of `model` grows before `append` does: for rows whose own values hang
    on the rows before them. It is held until the transaction ends, so this, too, comes last.
    """
    _locked_head(model)


def seal_of(row: Chained) -> str:
    """The sha256 over the row's values, its place in the chain and the seal before it.

    Over a JSON list of [column, value] in the order of the columns' names, without the key that the database
    gives and the seal itself; times in UTC as ISO 8601, addresses in full.
    """
    columns = (field for field in row._meta.concrete_fields if not field.primary_key)
    values = sorted(
        (field.attname, _plain(field, getattr(row, field.attname)))
        for field in columns
        if field.attname != "chain_sha256"
    )
    said = json.dumps(values, ensure_ascii=False, separators=(",", ":"), sort_keys=True)
    return hashlib.sha256(said.encode()).hexdigest()


def broken_links(model: type[Chained]) -> Iterator[str]:
    """Read the chain of `model` from its first row to its last, and yield a sentence for all that is wrong."""
    name = model._meta.label
    head = ChainHead.objects.filter(pk=model._meta.label_lower).first()
    number, seal = 0, NOTHING_BEFORE
    rows: Iterator[Any] = model.objects.order_by("chain_number").iterator(READ_AT_ONCE)
    for row in rows:
        missing = row.chain_number - number - 1
        if missing:
            yield f"{name}: {missing} missing before number {row.chain_number}."
        elif row.previous_sha256 != seal:
            yield f"{name} number {row.chain_number} does not follow number {number}."
        if seal_of(row) != row.chain_sha256:
            yield f"{name} number {row.chain_number} (id {row.pk}) was altered."
        number, seal = row.chain_number, row.chain_sha256
    last, last_seal = (head.chain_number, head.chain_sha256) if head else (0, NOTHING_BEFORE)
    if number != last:
        yield f"{name}: the chain ends at number {number}, its head says {last}."
    elif seal != last_seal:
        yield f"{name}: the last row, number {number}, is not the one that its head seals."


def _locked_head(model: type[Chained]) -> ChainHead:
    name = model._meta.label_lower
    heads = ChainHead.objects.select_for_update()
    head = heads.filter(pk=name).first()
    if head is None:
        # Of two that begin the chain at once, the second waits here for the first.
        new = ChainHead(name=name, chain_number=0, chain_sha256=NOTHING_BEFORE)
        ChainHead.objects.bulk_create([new], ignore_conflicts=True)
        head = heads.get(pk=name)
    return head


def _plain(field: "models.Field[Any, Any]", value: Any) -> Any:
    """The value such that the row just made and the row read back from any database give the same."""
    if isinstance(value, datetime):
        return value.astimezone(UTC).isoformat()
    if value and isinstance(field, models.GenericIPAddressField):
        return ip_address(value).exploded
    return value
