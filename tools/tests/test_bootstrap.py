"""bootstrap.sh on machines that lack something, made of a PATH that holds only what each test puts there."""

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = Path(__file__).resolve().parent.parent / "bootstrap.sh"
MISSING = "redis-server chromium gettext poppler-utils"


class Machine:
    """A folder of programs. Nothing outside it is found, except by full path."""

    def __init__(self, programs: Path, *, user: int) -> None:
        self.programs = programs
        for name in ("cat", "cmp", "dirname", "env", "mktemp", "rm", "sh", "tail", "true"):
            (programs / name).symlink_to(f"/usr/bin/{name}")
        (programs / "python3").symlink_to(sys.executable)
        self.has("id", f"echo {user}")
        self.has("initdb")

    def has(self, name: str, script: str = "") -> None:
        path = self.programs / name
        path.write_text(f"#!/bin/sh\n{script}\n")
        path.chmod(0o755)

    def bootstrap(self) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["/bin/sh", SCRIPT, "test"],
            check=False,
            capture_output=True,
            env={"PATH": str(self.programs)},
            stdin=subprocess.DEVNULL,
            text=True,
        )


@pytest.fixture
def programs(tmp_path: Path) -> Path:
    path = tmp_path / "bin"
    path.mkdir()
    return path


def test_who_may_not_install_is_given_the_exact_command(programs: Path) -> None:
    machine = Machine(programs, user=1000)
    machine.has("apt-get", "echo apt-get was called; exit 1")
    done = machine.bootstrap()
    assert done.returncode == 1
    assert done.stdout == ""
    assert done.stderr == (
        f"Missing: {MISSING}\n"
        "Only root can install them. As root, run this, then try again:\n"
        "\n"
        f"  apt-get update && apt-get install -y --no-install-recommends {MISSING}\n"
    )


def test_a_sudo_that_would_ask_for_a_password_is_not_waited_for(programs: Path) -> None:
    machine = Machine(programs, user=1000)
    machine.has("apt-get", "echo apt-get was called; exit 1")
    machine.has("sudo", '[ "$1" = -n ] || sleep 60; echo "sudo: a password is required" >&2; exit 1')
    done = machine.bootstrap()
    assert done.returncode == 1
    assert f"apt-get install -y --no-install-recommends {MISSING}\n" in done.stderr


def test_a_machine_without_apt_is_told_what_it_lacks(programs: Path) -> None:
    done = Machine(programs, user=0).bootstrap()
    assert done.returncode == 1
    assert done.stderr.splitlines()[0] == f"Missing, by their Debian names: {MISSING}"


def test_root_installs_what_is_missing_and_nothing_else(programs: Path, tmp_path: Path) -> None:
    machine = Machine(programs, user=0)
    machine.has("apt-get", f'echo "$@" >>{tmp_path}/calls')
    done = machine.bootstrap()
    options = "-o DPkg::Lock::Timeout=300 -q"
    assert (tmp_path / "calls").read_text().splitlines() == [
        "update -q",
        f"{options} install -y --no-install-recommends {MISSING}",
    ]
    # This apt-get installs nothing, and success is not taken at its word.
    assert done.returncode == 1
    assert done.stderr == f"Installed, but still not usable: {MISSING}\n"


def test_a_failing_installation_shows_what_apt_said(programs: Path) -> None:
    machine = Machine(programs, user=0)
    machine.has("apt-get", 'echo "E: Unable to locate package"; exit 100')
    done = machine.bootstrap()
    assert done.returncode == 1
    assert done.stderr == (
        "E: Unable to locate package\nE: Unable to locate package\n"
        "\n"
        f"apt could not install what is missing: {MISSING}\n"
    )


def test_an_old_python_is_named(programs: Path) -> None:
    machine = Machine(programs, user=0)
    for name in MISSING.split():
        machine.has({"gettext": "msgfmt", "poppler-utils": "pdftotext"}.get(name, name))
    machine.has("apt-get")
    (programs / "python3").unlink()
    machine.has("python3", 'case $1 in -c) exit 1;; -V) echo "Python 3.9.2";; esac')
    done = machine.bootstrap()
    assert done.returncode == 1
    assert done.stderr == (
        "Installed, but still not usable: python3 python3-venv\n"
        "Python 3.11 or newer is needed; python3 is Python 3.9.2. Try: make test PYTHON=python3.12\n"
    )
