"""The two promises a model can make about its rows. `triggers.py` makes the database keep them."""

from typing import Any, ClassVar, NoReturn

from django.db import models


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

    class Meta:
        abstract = True
