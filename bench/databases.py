"""Databases for measurements: filled once, copied for each."""

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import psycopg

# With all tables and nothing in them; made once, since migrating takes longer than many a measurement.
EMPTY = "bench_empty"


class Failed(Exception):
    """A measurement ended with an error, or found its own result to be wrong."""


class Databases:
    """On the server that `url` names."""

    def __init__(self, url: str) -> None:
        self._url = url
        self._has_tables = False

    def make(self, name: str, step: str, **arguments: Any) -> Any:
        """Make the database `name` and have `step` (module:function) fill it."""
        if not self._has_tables:
            self._create(EMPTY)
            subprocess.run(
                [sys.executable, "manage.py", "migrate", "-v0"], env=self._environment(EMPTY), check=True
            )
            self._has_tables = True
        self._create(name, f'TEMPLATE "{EMPTY}" STRATEGY file_copy')
        return self.run(step, name, **arguments)

    @contextmanager
    def copy_of(self, name: str) -> Iterator[str]:
        copy = f"{name}_copy"
        self._create(copy, f'TEMPLATE "{name}" STRATEGY file_copy')
        # Half-written pages of the copy would otherwise be somebody's to flush while we measure.
        self._execute("CHECKPOINT")
        try:
            yield copy
        finally:
            self._execute(f'DROP DATABASE "{copy}" WITH (FORCE)')

    def run(self, step: str, database: str, **arguments: Any) -> Any:
        """What `step` returns, run on `database` in a process of its own. Raises Failed."""
        return self.result(self.start(step, database, **arguments))

    def start(self, step: str, database: str, **arguments: Any) -> "subprocess.Popen[str]":
        """Begin `step`; `result` waits for it."""
        return subprocess.Popen(
            [sys.executable, "-m", "bench.child", step, json.dumps(arguments)],
            env=self._environment(database),
            stdout=subprocess.PIPE,
            text=True,
        )

    def result(self, process: "subprocess.Popen[str]") -> Any:
        said, _ = process.communicate()
        if process.returncode:
            raise Failed(f"{process.args} ended with {process.returncode}.")
        return json.loads(said.splitlines()[-1])

    def _create(self, name: str, how: str = "") -> None:
        self._execute(f'DROP DATABASE IF EXISTS "{name}" WITH (FORCE)', f'CREATE DATABASE "{name}" {how}')

    def _environment(self, database: str) -> dict[str, str]:
        address = urlunsplit(urlsplit(self._url)._replace(path=f"/{database}"))
        # With DEBUG, Django would keep a log of every query, and we would measure that.
        return {**os.environ, "DATABASE_URL": address, "DEBUG": "0"}

    def _execute(self, *statements: str) -> None:
        with psycopg.connect(
            self._url.replace("postgres://", "postgresql://", 1), autocommit=True
        ) as connection:
            for statement in statements:
                connection.execute(statement.encode())
