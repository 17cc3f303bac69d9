"""Everything that must hold before a change is accepted: what `make test` runs.

`python -m tools.check [STEP ...] [-- ARGUMENT ...]` takes every step, or the named ones; the arguments are
pytest's. A step that fails does not keep the others from running: one run tells all there is to tell.
"""

import enum
import json
import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from tools.processes import run

PROJECT = Path(__file__).resolve().parent.parent
PROGRAMS = Path(sys.executable).parent
# Two workers: what the smallest machine of a continuous integration service has.
PARALLEL = ("-n", "2")
# How pip-audit's last words read when it is the network that failed.
UNREACHABLE = ("ConnectionError", "ProxyError", "SSLError", "HTTPError", "Timeout")


class Outcome(enum.StrEnum):
    PASSED = "ok"
    FAILED = "FAILED"
    UNKNOWN = "NOT CHECKED"


@dataclass(frozen=True, slots=True)
class Step:
    """One check. `decide` says how it went; what there is to read, it prints."""

    name: str
    decide: Callable[[], Outcome]


def steps(*, var: Path, for_pytest: Sequence[str]) -> list[Step]:
    """Every step, in order: the quick ones first. They write to `var` only."""
    plain = {
        **os.environ,
        "SECRET_KEY": secrets.token_urlsafe(50),
        "DEBUG": "0",
        "DEMO": "0",
        "VAR_DIR": str(var),
    }
    # Named, not left out: a developer's `.env` must not decide what is tested.
    embedded = {
        **plain,
        "DATABASE_URL": f"sqlite:///{var}/db.sqlite3",
        "BROKER_URL": "filesystem://",
        "REDIS_URL": "",
    }
    production = {**embedded, "ALLOWED_HOSTS": "example.com", "SITE_URL": "https://example.com"}

    def program(
        name: str, *arguments: str, environment: Mapping[str, str] = embedded
    ) -> Callable[[], Outcome]:
        return lambda: _command((str(PROGRAMS / name), *arguments), environment)

    def manage(*arguments: str, environment: Mapping[str, str] = embedded) -> Callable[[], Outcome]:
        return lambda: _command((sys.executable, "manage.py", *arguments), environment)

    def pytest(*arguments: str) -> Callable[[], Outcome]:
        return program("pytest", *arguments, *for_pytest)

    def pytest_on_postgresql(*arguments: str) -> Callable[[], Outcome]:
        command = (str(PROGRAMS / "pytest"), *arguments, *for_pytest)
        return lambda: _command((sys.executable, "-m", "tools.services", "--", *command), plain)

    return [
        Step("ruff", program("ruff", "check")),
        Step("format", program("ruff", "format", "--check")),
        Step("mypy", program("mypy")),
        Step("imports", program("lint-imports", "--no-logo")),
        Step("templates", program("djlint", "templates", "--lint", "--profile=django")),
        Step("migrations", manage("makemigrations", "--check", "--dry-run")),
        Step("deploy", manage("check", "--deploy", "--fail-level", "WARNING", environment=production)),
        Step("audit", _audit),
        Step("messages", lambda: _messages(embedded)),
        Step("postgresql", pytest_on_postgresql(*PARALLEL, "-m", "not browser")),
        # One browser at a time: it already shares the cores with the processes that it looks at.
        Step("browser", pytest_on_postgresql("-m", "browser")),
        Step("embedded", pytest(*PARALLEL, "--with-database", "-m", "not postgres and not browser")),
        # The main job; the other journeys look at the same pages on whatever services.
        Step("embedded-browser", pytest("--stack=embedded", "-m", "browser", "tests/test_journey.py")),
    ]


def _command(argv: Sequence[str], environment: Mapping[str, str]) -> Outcome:
    return Outcome.FAILED if run(argv, env=environment) else Outcome.PASSED


def _audit() -> Outcome:
    """Look up what we ship in the database of known vulnerabilities.

    pip-audit answers "none found" also when the service knew none of the packages, as a private package
    index may: what was not looked at is therefore counted here, and named.
    """
    lock = ("-r", "requirements.txt", "--require-hashes", "--disable-pip")
    audit = subprocess.run(
        [PROGRAMS / "pip-audit", *lock, "--format", "json", "--progress-spinner", "off"],
        check=False,
        capture_output=True,
        stdin=subprocess.DEVNULL,
        text=True,
    )
    if not audit.stdout.strip():
        error = (audit.stderr.strip().splitlines() or ["no answer"])[-1]
        if not any(sign in error for sign in UNREACHABLE):
            print(audit.stderr)
            return Outcome.FAILED
        print(f"The vulnerability service could not be reached; no package was looked up.\n  {error[:300]}")
        return Outcome.UNKNOWN
    packages = json.loads(audit.stdout)["dependencies"]
    unknown = [package for package in packages if "skip_reason" in package]
    vulnerable = [package for package in packages if package.get("vulns")]
    print(f"The vulnerability service knows {len(packages) - len(unknown)} of {len(packages)} packages.")
    for package in vulnerable:
        for found in package["vulns"]:
            remedy = ", ".join(found["fix_versions"]) or "no release yet"
            print(f"{package['name']} {package['version']}: {found['id']}, fixed in: {remedy}")
    if unknown:
        named = ", ".join(package["name"] for package in unknown[:5]) + (", …" if unknown[5:] else "")
        print(f"Not checked, because it does not know them: {named}")
    if vulnerable:
        return Outcome.FAILED
    return Outcome.UNKNOWN if unknown else Outcome.PASSED


def _messages(environment: Mapping[str, str]) -> Outcome:
    """Collect every text of the source, in a copy of it: none may lack a translation, or have one only guessed at.

    And every catalogue must be compiled as it is: gettext compiles the same to the same, byte by byte.
    """
    outcome = Outcome.PASSED
    for source in sorted(PROJECT.glob("locale/*/LC_MESSAGES/*.po")):
        _, compiled = _compile(source)
        committed = source.with_suffix(".mo")
        if not committed.exists() or committed.read_bytes() != compiled:
            print(f"{committed.relative_to(PROJECT)} is not what its .po compiles to: run `make messages`.")
            outcome = Outcome.FAILED
    with tempfile.TemporaryDirectory(prefix="vmos-messages-") as copy:
        shutil.copytree(PROJECT, copy, dirs_exist_ok=True, ignore=shutil.ignore_patterns(".*", "var*"))
        collect = (sys.executable, "manage.py", "makemessages", "--all", "--no-obsolete", "-v0")
        subprocess.run(collect, check=True, cwd=copy, env=environment)
        for source in sorted(Path(copy).glob("locale/*/LC_MESSAGES/*.po")):
            said, _ = _compile(source)
            print(f"{source.parts[-3]}: {said}")
            if "untranslated" in said or "fuzzy" in said:
                print("Run `make messages` and translate what is new.")
                outcome = Outcome.FAILED
    return outcome


def _compile(source: Path) -> tuple[str, bytes]:
    """What gettext says of a catalogue, and what it makes of it."""
    compiled = subprocess.run(
        ("msgfmt", "--check-format", "--statistics", "-o", "-", source),
        check=True,
        capture_output=True,
        env={**os.environ, "LC_ALL": "C"},
    )
    return compiled.stderr.decode().strip(), compiled.stdout


def main() -> int:
    """Take the steps, print how each went and how long it took. The exit code is 1 if one failed."""
    os.chdir(PROJECT)
    end = sys.argv.index("--") if "--" in sys.argv else len(sys.argv)
    wanted = sys.argv[1:end]
    with tempfile.TemporaryDirectory(prefix="vmos-var-") as var:
        every = steps(var=Path(var), for_pytest=sys.argv[end + 1 :])
        names = [step.name for step in every]
        if unknown := [name for name in wanted if name not in names]:
            print(f"There is no step {', '.join(unknown)}, only {', '.join(names)}.", file=sys.stderr)
            return 2
        taken: list[tuple[Step, Outcome, float]] = []
        for step in every:
            if wanted and step.name not in wanted:
                continue
            print(f"\n── {step.name} ".ljust(80, "─"), flush=True)
            began = time.monotonic()
            try:
                outcome = step.decide()
            except (OSError, subprocess.CalledProcessError) as cannot_run:
                print(cannot_run)
                outcome = Outcome.FAILED
            taken.append((step, outcome, time.monotonic() - began))
            print(f"{step.name}: {outcome} ({taken[-1][2]:.1f} s)", flush=True)
    print("\n── summary ".ljust(80, "─"))
    for step, outcome, seconds in taken:
        print(f"{step.name:<18}{outcome:<12}{seconds:>7.1f} s")
    failed = [step.name for step, outcome, _ in taken if outcome is Outcome.FAILED]
    total = sum(seconds for _, _, seconds in taken)
    print(f"\n{'FAILED: ' + ', '.join(failed) if failed else 'No step failed.'} {total:.0f} s in all.")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
