"""Several processes that live and die together, for whoever starts them: the demo, the tests, the test servers.

    with Processes() as processes:
        processes.start("web", ["gunicorn", ...])
        processes.start("worker", ["celery", ...], env=environment, log=folder / "worker.log")
        processes.wait_until(lambda: answers("http://127.0.0.1:8000/health"), what="the web server")
        while not stopping.wait(0.3):
            processes.check()

Leaving the block stops them all, whatever the reason for leaving.
"""

import contextlib
import errno
import functools
import os
import pwd
import shutil
import signal
import socket
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import FrameType
from typing import Self, TextIO

LAST_LINES = 20
COLOURS = (36, 33, 35, 32, 34, 31)


class Died(Exception):
    """A process that should be running is not. `last_lines` is what it said at the end."""

    def __init__(self, name: str, code: int, last_lines: Sequence[str]) -> None:
        ending = f"was ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
        super().__init__(f"{name} {ending}.")
        self.name = name
        self.code = code
        self.last_lines = tuple(last_lines)

    def __str__(self) -> str:
        said = "".join(f"\n  {line}" for line in self.last_lines) or " none"
        return f"{self.args[0]} Its last words:{said}"


class NotReady(Exception):
    """Everything runs, but what was waited for did not come in time."""


@dataclass(eq=False, slots=True)
class _Process:
    name: str
    popen: subprocess.Popen[bytes]
    stop_signal: signal.Signals
    log: Path | None
    reader: threading.Thread | None = None
    heard: deque[str] = field(default_factory=lambda: deque(maxlen=LAST_LINES))

    def last_lines(self) -> list[str]:
        if self.log:
            with self.log.open("rb") as log:
                log.seek(max(0, log.seek(0, os.SEEK_END) - 16_384))
                return log.read().decode(errors="replace").splitlines()[-LAST_LINES:]
        if self.reader:
            # What was written just before the end is still in the pipe. A surviving child of the process
            # may hold the other end open, so this waits for the reader, but not for ever.
            self.reader.join(timeout=1)
        return list(self.heard)


class Processes:
    """Named processes, each leading a session of its own.

    A signal meant for us (Ctrl-C above all) therefore does not reach them, and one that we send reaches
    the process itself, not its children: Celery must end the tasks in its children before the children.
    `grace` is how many seconds all of them together get for that; then their groups are killed.

    Should we be killed ourselves, Linux sends them their stop signal (where util-linux' setpriv is). It does
    so when the *thread* that started them ends: start them from one that lives as long as they should.
    """

    def __init__(self, *, grace: float = 20.0, echo: TextIO | None = None) -> None:
        self._grace = grace
        self._echo = echo or sys.stdout
        self._echo_lock = threading.Lock()
        self._coloured = self._echo.isatty() and "NO_COLOR" not in os.environ
        self._started = 0
        self._processes: dict[str, _Process] = {}

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def start(
        self,
        name: str,
        argv: Sequence[str | Path],
        env: Mapping[str, str] | None = None,
        *,
        log: Path | None = None,
        cwd: Path | None = None,
        user: str | None = None,
        stop_signal: signal.Signals = signal.SIGTERM,
    ) -> int:
        """Start `argv` and return its process id.

        Its output is appended to `log`, or shown line by line behind its name. `env` is the whole
        environment, ours if None. `user` is whom to run it as (needs root). A name can be started again
        after stop() or kill(); ValueError if it is in use.
        """
        if name in self._processes:
            raise ValueError(f"{name} has been started already.")
        if setpriv := _setpriv():
            # Not by preexec_fn: Python code between fork and exec can lock up where there are threads.
            argv = (setpriv, "--pdeathsig", stop_signal.name.removeprefix("SIG"), "--", *argv)
        output = log.open("ab") if log else None
        try:
            popen = subprocess.Popen(
                argv,
                env=env,
                cwd=cwd,
                stdin=subprocess.DEVNULL,
                stdout=output or subprocess.PIPE,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                user=user,
                group=pwd.getpwnam(user).pw_gid if user else None,
                extra_groups=[] if user else None,
            )
        finally:
            if output:
                output.close()
        process = self._processes[name] = _Process(name, popen, stop_signal, log)
        if not log:
            prefix = f"{name:<8} | "
            if self._coloured:
                prefix = f"\033[{COLOURS[self._started % len(COLOURS)]}m{prefix}\033[0m"
            process.reader = threading.Thread(target=self._show, args=(process, prefix), daemon=True)
            process.reader.start()
        self._started += 1
        return popen.pid

    def check(self) -> None:
        """Raise Died if a process has ended by itself, with whatever exit code."""
        for process in self._processes.values():
            code = process.popen.poll()
            if code is not None:
                raise Died(process.name, code, process.last_lines())

    def wait_until(self, ready: Callable[[], bool], *, what: str, seconds: float = 30.0) -> None:
        """Ask `ready` ten times a second until it says True.

        Raises Died as soon as a process has ended, NotReady (naming `what`) after `seconds`.
        """
        deadline = time.monotonic() + seconds
        while True:
            self.check()  # first: on a port that was taken, somebody else may answer
            if ready():
                return
            if time.monotonic() > deadline:
                raise NotReady(f"{what} was not ready after {seconds:.0f} seconds.")
            time.sleep(0.1)

    def stop(self, *names: str) -> list[str]:
        """Stop the named processes, or all; return the names of those that had to be killed.

        What a process leaves behind in its group is killed as well: nothing may outlive its parent.
        """
        stopping = [self._processes[name] for name in names or self._processes]
        for process in stopping:
            process.popen.send_signal(process.stop_signal)
        deadline = time.monotonic() + self._grace
        killed = []
        for process in stopping:
            try:
                process.popen.wait(max(0.0, deadline - time.monotonic()))
            except subprocess.TimeoutExpired:
                killed.append(process.name)
            self.kill(process.name)
        return killed

    def kill(self, name: str) -> None:
        """End a process and its children at once, as a power cut would."""
        process = self._processes[name]
        with contextlib.suppress(ProcessLookupError, PermissionError):  # the group is empty (Linux, macOS)
            os.killpg(process.popen.pid, signal.SIGKILL)
        process.popen.wait()
        if process.reader:
            process.reader.join(timeout=1)
        del self._processes[name]

    def _show(self, process: _Process, prefix: str) -> None:
        assert process.popen.stdout  # noqa: S101 (for the type checker: started with a pipe)
        with process.popen.stdout as pipe:
            for raw in pipe:
                line = raw.decode(errors="replace").rstrip()
                process.heard.append(line)
                # A terminal that is gone, or a closed pipe, is no reason to stop reading: the process would
                # block as soon as its own pipe is full.
                with self._echo_lock, contextlib.suppress(OSError, ValueError):
                    print(f"{prefix}{line}", file=self._echo, flush=True)


def run(argv: Sequence[str | Path], *, env: Mapping[str, str] | None = None) -> int:
    """Run one command in the foreground, without input, and return its exit code.

    Ctrl-C reaches the command anyway, being of our group; SIGTERM is passed on. Either is answered when
    the command has ended: by KeyboardInterrupt or SystemExit(143). Call it from the main thread.
    """
    command: subprocess.Popen[bytes] | None = None
    received: set[int] = set()

    def pass_on(number: int, _: FrameType | None) -> None:
        received.add(number)
        if command and number == signal.SIGTERM:
            command.terminate()

    # Before the command starts: a signal that comes in between must neither end us alone nor be lost.
    before = {number: signal.signal(number, pass_on) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        command = subprocess.Popen(argv, env=env, stdin=subprocess.DEVNULL)
        if signal.SIGTERM in received:
            command.terminate()
        code = command.wait()
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
    if signal.SIGTERM in received:
        raise SystemExit(143)
    if signal.SIGINT in received:
        raise KeyboardInterrupt
    return code if code >= 0 else 128 - code


def port_is_free(host: str, port: int) -> bool:
    """Whether a server could listen there now. Raises OSError where none ever could (no such address, no right)."""
    family, kind, protocol, _, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
    with socket.socket(family, kind, protocol) as probe:
        # As servers do: connections of an earlier server, still in TIME_WAIT, do not make a port taken.
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(address)
            probe.listen()
        except OSError as refused:
            if refused.errno == errno.EADDRINUSE:
                return False
            raise
    return True


def free_port(host: str = "127.0.0.1") -> int:
    """A port nobody listens on, chosen by the system. Nothing reserves it: use it soon."""
    with socket.socket() as probe:
        probe.bind((host, 0))
        port: int = probe.getsockname()[1]
        return port


@functools.cache
def _setpriv() -> str | None:
    """The program that asks Linux to signal a process when its parent is gone (not every setpriv can)."""
    program = shutil.which("setpriv")
    if program and subprocess.run([program, "--pdeathsig", "TERM", "true"], check=False).returncode == 0:
        return program
    return None
