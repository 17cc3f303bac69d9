"""Run a command against a PostgreSQL and a Redis of its own: `python -m tools.services -- COMMAND ...`

Both are started from the programs on this machine, listen on sockets in a temporary folder only, and are
gone with the command. DATABASE_URL, REDIS_URL and BROKER_URL that are set already are used as they are. With DURABLE
set, every commit waits for the disk, as in production.
"""

import contextlib
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path

from tools.processes import Died, NotReady, Processes, run

# Servers that have nothing to lose need not wait for the disk; race tests open connections by the dozen.
OPTIONS = ("fsync=off", "synchronous_commit=off", "full_page_writes=off", "max_connections=300")
# What is measured is measured as it would run: every commit reaches the disk.
DURABLE_OPTIONS = ("shared_buffers=1GB", "max_wal_size=8GB", "max_connections=100")
# The longest path of a socket (108 bytes) leaves little room for temporary folders with long names.
LONGEST_FOLDER = 60


class Missing(Exception):
    """A server's program is not on this machine."""


@contextlib.contextmanager
def services(environment: Mapping[str, str]) -> Iterator[dict[str, str]]:
    """Start what `environment` does not name; yield it completed by the addresses.

    Raises Missing, Died or NotReady if one cannot be started.
    """
    with (
        tempfile.TemporaryDirectory(prefix="vmos-", dir=_short_temporary_folder()) as name,
        Processes() as processes,
    ):
        folder = Path(name)
        addresses = dict(environment)
        if "DATABASE_URL" not in addresses:
            addresses["DATABASE_URL"] = _start_postgresql(processes, folder, environment)
        if "REDIS_URL" not in addresses:
            addresses["REDIS_URL"] = _start_redis(processes, folder)
        # Celery and redis-py spell a socket differently.
        addresses.setdefault("BROKER_URL", addresses["REDIS_URL"].replace("unix://", "redis+socket://", 1))
        yield addresses


def _start_postgresql(processes: Processes, folder: Path, environment: Mapping[str, str]) -> str:
    programs = _postgresql_programs()
    user = _unprivileged_user()
    data, sockets = folder / "postgresql", folder / "sockets"
    if user:
        folder.chmod(0o711)
    for own in (data, sockets):
        own.mkdir(mode=0o700)
        if user:
            shutil.chown(own, user, pwd.getpwnam(user).pw_gid)
    locale = ("-E", "UTF8", "--locale=C.UTF-8")
    subprocess.run(
        (str(programs / "initdb"), "-D", str(data), "-U", "vmos", "-A", "trust", "--no-sync", *locale),
        check=True,
        stdout=subprocess.DEVNULL,
        cwd=folder,
        user=user,
        group=pwd.getpwnam(user).pw_gid if user else None,
        extra_groups=[] if user else None,
    )
    chosen = DURABLE_OPTIONS if environment.get("DURABLE") else OPTIONS
    options = [word for option in chosen for word in ("-c", option)]
    processes.start(
        "postgresql",
        [programs / "postgres", "-D", data, "-k", sockets, "-c", "listen_addresses=", *options],
        log=folder / "postgresql.log",
        cwd=folder,
        user=user,
        stop_signal=signal.SIGINT,  # SIGTERM would wait for its clients
    )
    ask = (str(programs / "pg_isready"), "-q", "-h", str(sockets))
    processes.wait_until(lambda: subprocess.run(ask, check=False).returncode == 0, what="PostgreSQL")
    return f"postgres://vmos@/postgres?host={sockets}"


def _start_redis(processes: Processes, folder: Path) -> str:
    program = shutil.which("redis-server") or shutil.which("valkey-server")
    if not program:
        raise Missing("redis-server is not on this machine. `make test` installs it, or says how.")
    path = folder / "redis.sock"
    listening = ("--port", "0", "--unixsocket", str(path), "--unixsocketperm", "700")
    forgetful = ("--save", "", "--appendonly", "no")
    processes.start("redis", (program, *listening, *forgetful), log=folder / "redis.log", cwd=folder)

    def answers() -> bool:
        with socket.socket(socket.AF_UNIX) as probe:
            return probe.connect_ex(str(path)) == 0

    processes.wait_until(answers, what="Redis")
    return f"unix://{path}"


def _postgresql_programs() -> Path:
    # Debian keeps the servers of several versions side by side, out of PATH: take the newest.
    beside = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"), key=lambda path: float(path.parts[4]))
    found = beside[-1] if beside else shutil.which("initdb")
    if not found:
        raise Missing("PostgreSQL's server is not on this machine. `make test` installs it, or says how.")
    return Path(found).parent


def _unprivileged_user() -> str | None:
    """Whom to run PostgreSQL as: it refuses root."""
    if os.geteuid() != 0:
        return None
    known = {entry.pw_name for entry in pwd.getpwall()}
    return "postgres" if "postgres" in known else "nobody"


def _short_temporary_folder() -> str:
    folder = tempfile.gettempdir()
    return folder if len(folder) < LONGEST_FOLDER else "/tmp"  # noqa: S108 (the folder made in it is private)


def main() -> int:
    """Run the command after `--`; its exit code is ours."""
    if len(sys.argv) < 3 or sys.argv[1] != "--":
        print(__doc__, file=sys.stderr)
        return 2
    # So that the servers are stopped and the folder is removed, whenever it comes.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
    try:
        with services(os.environ) as environment:
            return run(sys.argv[2:], env=environment)
    except (Missing, Died, NotReady, subprocess.CalledProcessError) as problem:
        print(problem, file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130


if __name__ == "__main__":
    sys.exit(main())
