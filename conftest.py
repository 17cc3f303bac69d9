"""What every test shares: settings of the test run, and a flush that respects the evidence triggers."""

import os

# Read by the settings before pytest-django loads them.
os.environ.setdefault("SECRET_KEY", "tests")
os.environ.setdefault("STATICFILES_BACKEND", "django.contrib.staticfiles.storage.StaticFilesStorage")
os.environ.setdefault("EMAIL_URL", "dummymail://")
os.environ.setdefault("DJANGO_ALLOW_ASYNC_UNSAFE", "true")  # Playwright's event loop runs in the same thread

from collections.abc import Iterator, Sequence
from typing import Any

import pytest
from django.conf import settings
from django.db import connection


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--stack",
        choices=("servers", "embedded"),
        default="servers",
        help="what the browser tests run on: PostgreSQL and Redis, or SQLite and a folder",
    )


def pytest_configure() -> None:
    # Passwords are made slow to guess, which every test that makes a user would pay for.
    settings.PASSWORD_HASHERS = ["django.contrib.auth.hashers.MD5PasswordHasher"]


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
