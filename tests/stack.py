"""The whole shop as real processes, for the browser tests: what `make run` starts, on either kind of services.

`servers`: PostgreSQL and Redis, as DATABASE_URL and BROKER_URL name them, in a database of its own.
`embedded`: SQLite and a folder for a broker.
"""

import json
import os
import socket
import subprocess
import sys
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import psycopg

from tools.demo import Address, demo_environment, is_healthy, is_listening, start_all
from tools.processes import Processes

PROJECT = Path(__file__).resolve().parent.parent
# Long enough that a payment is seen to wait, short enough to wait for.
HOLD_BACK_SECONDS = 2
# How often a page asks for the number of unread messages.
INBOX_POLL_SECONDS = 1


@dataclass(frozen=True)
class Stack:
    """The shop at `url`, and what `tests/journey_data.py` put into it."""

    url: str
    environment: dict[str, str]
    plan_name: str
    plan_slug: str
    other_plan_slug: str
    staff_email: str
    second_staff_email: str
    staff_password: str


@contextmanager
def running_stack(kind: str, *, var: Path) -> Iterator[Stack]:
    """Start everything and stop it; pytest shows what the processes say when a test fails.

    Raises tools.processes.Died or NotReady.
    """
    shop, gateway, phone = (Address("127.0.0.1", _free_port()) for _ in range(3))
    made = demo_environment(dict(os.environ), var=var, shop=shop, gateway=gateway, phone=phone)
    environment = made | {
        "DJANGO_SETTINGS_MODULE": "vmos_presale.settings",  # not those of the test run
        "ALLOCATION_HOLD_BACK_SECONDS": str(HOLD_BACK_SECONDS),
        "INBOX_POLL_SECONDS": str(INBOX_POLL_SECONDS),
        "STATICFILES_BACKEND": "django.contrib.staticfiles.storage.StaticFilesStorage",
    }
    manage = [sys.executable, "manage.py"]
    with _services(kind) as services:
        environment |= services
        for command in (["migrate", "-v0"], ["collectstatic", "--noinput", "-v0"], ["publish_agreements"]):
            _run([*manage, *command], environment)
        data = json.loads(
            _run([*manage, "shell", "--no-imports", "-c", "import tests.journey_data"], environment)
        )
        with Processes() as processes:
            start_all(processes, environment, var=var, shop=shop, gateway=gateway, phone=phone)
            processes.wait_until(
                lambda: is_healthy(shop, host=str(shop)) and is_listening(gateway) and is_listening(phone),
                what="The shop",
                seconds=60,
            )
            yield Stack(url=environment["SITE_URL"], environment=environment, **data)
            processes.check()


@contextmanager
def _services(kind: str) -> Iterator[dict[str, str]]:
    if kind == "embedded":
        yield {}
        return
    server, name = os.environ["DATABASE_URL"], f"journey_{uuid.uuid4().hex[:12]}"
    with psycopg.connect(_for_psycopg(server), autocommit=True) as connection:
        connection.execute(f'CREATE DATABASE "{name}"')
        try:
            yield {
                "DATABASE_URL": urlunsplit(urlsplit(server)._replace(path=f"/{name}")),
                "BROKER_URL": os.environ["BROKER_URL"],
                "REDIS_URL": os.environ.get("REDIS_URL", ""),
            }
        finally:
            connection.execute(f'DROP DATABASE "{name}" WITH (FORCE)')


def _for_psycopg(url: str) -> str:
    return url.replace("postgres://", "postgresql://", 1)


def _run(argv: list[str], environment: dict[str, str]) -> str:
    done = subprocess.run(argv, cwd=PROJECT, env=environment, check=False, capture_output=True, text=True)
    if done.returncode:
        raise RuntimeError(f"{' '.join(argv)} ended with {done.returncode}:\n{done.stdout}\n{done.stderr}")
    return done.stdout


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port
