"""The promises a model can make about its rows. `triggers.py` makes the database keep the first two,
`chain.py` keeps the third and finds where it was broken.
"""

from typing import Any, ClassVar, NoReturn

from django.db import models
from django.utils.translation import gettext_lazy as _


class RecordIsFinal(Exception):
    """Somebody tried to change or delete a row that is kept as evidence."""


class AppendOnlyQuerySet(models.QuerySet[Any]):
    """Reads and inserts; refuses the rest here, with a better message than the database's."""

    def update(self, **kwargs: Any) -> NoReturn:
        raise RecordIsFinal(f"{self.model.__name__} rows are evidence and cannot be changed.")

    def delete(self) -> NoReturn:
        raise RecordIsFinal(f"{self.model.__name__} rows are evidence and cannot be deleted.")


class AppendOnly(models.Model):
    """A table that only grows: no row is ever updated or deleted."""

    objects: ClassVar[models.Manager[Any]] = AppendOnlyQuerySet.as_manager()

    class Meta:
        abstract = True

    def save(self, *args: Any, **kwargs: Any) -> None:
        if not self._state.adding:
            raise RecordIsFinal(f"{type(self).__name__} {self.pk} is evidence and cannot be changed.")
        super().save(*args, **kwargs)

    def delete(self, *args: Any, **kwargs: Any) -> NoReturn:
        raise RecordIsFinal(f"{type(self).__name__} {self.pk} is evidence and cannot be deleted.")


class WriteOnce(models.Model):
    """A table with columns that, once they hold a value, keep it; and whose rows are never deleted."""

    # Names of the model's fields that are written once. NULL may become a value, never the reverse.
    written_once: ClassVar[tuple[str, ...]] = ()
    # Those of them that may become empty, for good, when they have been kept long enough: bytes, and JSON objects.
    may_be_emptied: ClassVar[tuple[str, ...]] = ()

    class Meta:
        abstract = True


class Chained(AppendOnly):
    """An append-only table in which every row seals the one before it: a row that is taken out, put in or
    altered behind the triggers' back is found by `verify_evidence`.

    Rows are written by `chain.append` only, which fills in these columns.
    """

    # From 1, without gaps.
    chain_number = models.PositiveBigIntegerField(_("number in the chain"), unique=True, editable=False)
    previous_sha256 = models.CharField(_("seal of the row before"), max_length=64, editable=False)
    chain_sha256 = models.CharField(_("seal"), max_length=64, editable=False)

    class Meta:
        abstract = True


class ChainHead(models.Model):
    """The last seal of each chain. Its row is the lock under which a chain grows."""

    name = models.CharField(_("chain"), max_length=100, primary_key=True)
    chain_number = models.PositiveBigIntegerField(_("number in the chain"))
    chain_sha256 = models.CharField(_("seal"), max_length=64)

    class Meta:
        verbose_name = _("head of a chain")
        verbose_name_plural = _("heads of the chains")

    def __str__(self) -> str:
        return f"{self.name} {self.chain_number}"
