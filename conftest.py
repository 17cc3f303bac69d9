"""What every test shares: which services a browser test runs on, and a flush that respects the evidence."""

import os
from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.core.cache import cache
from django.db import connection
from django.utils import translation

# Playwright's event loop runs in the thread of the tests, where Django would refuse to ask the database.
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=("servers", "embedded"),
        default="servers",
        help="what the browser tests run on: PostgreSQL and Redis, or SQLite and a folder",
    )
    parser.addoption(
        "--with-database",
        action="store_true",
        help="only tests that use a database: the others say the same on every kind of it",
    )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    if not config.getoption("--with-database"):
        return
    using, others = [], []
    for item in items:
        fixtures = set(getattr(item, "fixturenames", ()))
        uses_one = item.get_closest_marker("django_db") or fixtures & {
            "db",
            "transactional_db",
            "live_server",
        }
        (using if uses_one else others).append(item)
    items[:] = using
    config.hook.pytest_deselected(items=others)


@pytest.fixture(autouse=True, scope="session")
def _flush_past_the_triggers() -> Iterator[None]:
    """Let the flush between tests empty append-only tables on SQLite.

    PostgreSQL flushes by TRUNCATE, which row triggers do not see; SQLite by DELETE, which they refuse. The
    triggers are dropped before it and come back with the post_migrate signal that every flush ends with.
    """
    if connection.vendor != "sqlite":
        yield
        return
    operations = type(connection.ops)
    plain = operations.sql_flush

    def sql_flush(self: Any, style: Any, tables: Sequence[str], **kwargs: Any) -> list[str]:
        with connection.cursor() as cursor:
            cursor.execute("SELECT name FROM sqlite_master WHERE type = 'trigger'")
            drops = [f'DROP TRIGGER "{name}"' for (name,) in cursor.fetchall()]
        return drops + plain(self, style, tables, **kwargs)

    operations.sql_flush = sql_flush  # type: ignore[method-assign]
    yield
    operations.sql_flush = plain  # type: ignore[method-assign]


@pytest.fixture(autouse=True)
def _in_english() -> Iterator[None]:
    """Begin every test in English: a page asked for in Chinese leaves its thread speaking Chinese."""
    with translation.override("en"):
        yield


@pytest.fixture(autouse=True)
def _nothing_cached() -> None:
    """Begin every test with an empty cache: on SQLite, the next test's rows have the numbers of the last one's."""
    cache.clear()
