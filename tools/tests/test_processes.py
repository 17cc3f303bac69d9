"""Real processes: a runner is only as good as what the system really does."""

import io
import os
import select
import shutil
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tools.processes import Died, NotReady, Processes, free_port, port_is_free, run

PROJECT = Path(__file__).resolve().parent.parent.parent

# A parent that ends its work in peace, and a child that would say so if it were signalled.
CAREFUL = """
trap 'echo parent was asked; wait $child; echo parent ended; exit 0' TERM
(trap 'echo child was signalled; exit 1' TERM; echo ready; sleep 0.4; echo child finished) &
child=$!
wait $child
"""


@pytest.fixture
def echo() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def processes(echo: io.StringIO) -> Iterator[Processes]:
    with Processes(grace=5, echo=echo) as started:
        yield started


@pytest.fixture
def lifeline(tmp_path: Path) -> Path:
    """A pipe by name: whoever writes to it keeps it open until he ends."""
    path = tmp_path / "lifeline"
    os.mkfifo(path)
    return path


def says(log: Path, words: str) -> bool:
    return log.exists() and words in log.read_text()


def ends_within(seconds: float, lifeline: int) -> bool:
    return bool(select.select([lifeline], [], [], seconds)[0]) and os.read(lifeline, 1) == b""


def test_death_is_reported_with_exit_code_and_last_lines(processes: Processes) -> None:
    processes.start("patient", ["sh", "-c", "echo one; echo two >&2; exit 3"])
    with pytest.raises(Died) as died:
        processes.wait_until(lambda: False, what="nothing")
    assert (died.value.name, died.value.code) == ("patient", 3)
    assert str(died.value) == "patient ended with exit code 3. Its last words:\n  one\n  two"


def test_death_is_reported_from_the_log_and_shows_the_last_lines_only(
    processes: Processes, tmp_path: Path, echo: io.StringIO
) -> None:
    processes.start("patient", ["sh", "-c", "seq 100; kill -KILL $$"], log=tmp_path / "log")
    with pytest.raises(Died, match=r"^patient was ended by SIGKILL\. Its last words:") as died:
        processes.wait_until(lambda: False, what="nothing")
    assert died.value.last_lines == tuple(str(number) for number in range(81, 101))
    assert echo.getvalue() == ""


def test_an_exit_code_of_zero_is_a_death_too(processes: Processes) -> None:
    processes.start("patient", ["true"])
    with pytest.raises(Died, match=r"^patient ended with exit code 0\. Its last words: none$"):
        processes.wait_until(lambda: False, what="nothing")


def test_what_runs_but_is_not_ready_is_named(processes: Processes) -> None:
    processes.start("slow", ["sleep", "60"])
    with pytest.raises(NotReady, match=r"^The shop was not ready after 0 seconds\.$"):
        processes.wait_until(lambda: False, what="The shop", seconds=0.2)


def test_the_stop_signal_reaches_the_parent_only(processes: Processes, tmp_path: Path) -> None:
    log = tmp_path / "log"
    processes.start("careful", ["sh", "-c", CAREFUL], log=log)
    processes.wait_until(lambda: says(log, "ready"), what="the child")
    assert processes.stop() == []
    assert log.read_text().splitlines() == ["ready", "parent was asked", "child finished", "parent ended"]


def test_control_a_signal_to_the_whole_group_does_reach_the_child(
    processes: Processes, tmp_path: Path
) -> None:
    log = tmp_path / "log"
    group = processes.start("careful", ["sh", "-c", CAREFUL], log=log)
    processes.wait_until(lambda: says(log, "ready"), what="the child")
    os.killpg(group, signal.SIGTERM)
    processes.stop()
    assert "child was signalled" in log.read_text()
    assert "child finished" not in log.read_text()


def test_who_outlasts_the_grace_is_killed_with_his_children_and_named(
    echo: io.StringIO, tmp_path: Path, lifeline: Path
) -> None:
    log = tmp_path / "log"
    with Processes(grace=0.7, echo=echo) as processes:
        processes.start(
            "deaf", ["sh", "-c", f"trap '' TERM; sleep 60 >{lifeline} & echo ready; wait"], log=log
        )
        processes.start("polite", ["sleep", "60"], log=log)
        child = os.open(lifeline, os.O_RDONLY)
        processes.wait_until(lambda: says(log, "ready"), what="the child")
        assert processes.stop() == ["deaf"]
        assert ends_within(5, child)
    os.close(child)


def test_what_a_stopped_process_leaves_behind_is_killed(processes: Processes, lifeline: Path) -> None:
    processes.start("careless", ["sh", "-c", f"sleep 60 >{lifeline} & exec sleep 60"])
    child = os.open(lifeline, os.O_RDONLY)
    assert not ends_within(0.1, child)
    assert processes.stop("careless") == []
    assert ends_within(5, child)
    os.close(child)


@pytest.mark.skipif(not shutil.which("setpriv"), reason="needs util-linux")
def test_processes_do_not_outlive_a_runner_that_was_killed(lifeline: Path) -> None:
    program = (
        "import sys, time; from tools.processes import Processes; "
        "Processes().start('orphan', ['sh', '-c', f'exec sleep 60 >{sys.argv[1]}']); time.sleep(60)"
    )
    runner = subprocess.Popen([sys.executable, "-c", program, str(lifeline)], cwd=PROJECT)
    orphan = os.open(lifeline, os.O_RDONLY)
    runner.kill()
    assert runner.wait() == -signal.SIGKILL
    assert ends_within(5, orphan)
    os.close(orphan)


def test_leaving_the_block_stops_everything_even_by_an_error(lifeline: Path) -> None:
    children = []

    def fail() -> None:
        with Processes(grace=5) as processes:
            processes.start("web", ["sh", "-c", f"exec sleep 60 >{lifeline}"])
            children.append(os.open(lifeline, os.O_RDONLY))
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail()
    assert ends_within(5, children[0])
    os.close(children[0])


def test_a_name_is_used_once_at_a_time(processes: Processes) -> None:
    first = processes.start("worker", ["sleep", "60"])
    with pytest.raises(ValueError, match=r"^worker has been started already\.$"):
        processes.start("worker", ["sleep", "60"])
    processes.kill("worker")
    assert processes.start("worker", ["sleep", "60"]) != first
    processes.check()


def test_output_stands_behind_the_name_and_plain_unless_on_a_terminal(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    monkeypatch.delenv("NO_COLOR", raising=False)
    shown = {}
    for echo in (io.StringIO(), Terminal()):
        with Processes(echo=echo) as processes:
            processes.start("web", ["echo", "hello"])
            with pytest.raises(Died):
                processes.wait_until(lambda: False, what="nothing")
        shown[type(echo)] = echo.getvalue()
    assert shown == {io.StringIO: "web      | hello\n", Terminal: "\033[36mweb      | \033[0mhello\n"}


def test_the_environment_is_the_given_one(processes: Processes, echo: io.StringIO) -> None:
    processes.start("shell", ["/bin/sh", "-c", "echo $ONLY$HOME"], {"ONLY": "this"})
    with pytest.raises(Died):
        processes.wait_until(lambda: False, what="nothing")
    assert echo.getvalue() == "shell    | this\n"


def test_a_port_is_free_until_somebody_listens() -> None:
    port = free_port()
    assert port_is_free("127.0.0.1", port)
    with socket.create_server(("127.0.0.1", port)):
        assert not port_is_free("127.0.0.1", port)
        assert not port_is_free("0.0.0.0", port)
    assert port_is_free("127.0.0.1", port)


def test_an_address_of_another_machine_is_an_error_and_not_a_taken_port() -> None:
    with pytest.raises(OSError, match="assign requested address"):
        port_is_free("192.0.2.1", 8000)  # reserved for documentation: nobody has it


def test_a_command_in_the_foreground_gives_its_exit_code() -> None:
    assert run(["sh", "-c", "exit 7"]) == 7
    assert run(["sh", "-c", "kill -KILL $$"]) == 128 + signal.SIGKILL


def test_sigterm_is_passed_on_to_a_command_in_the_foreground() -> None:
    program = "import sys; from tools.processes import run; run(['sh', '-c', sys.argv[1]])"
    command = "trap 'echo asked; exit 0' TERM; echo ready; sleep 9 >/dev/null & wait"
    argv = [sys.executable, "-c", program, command]
    with subprocess.Popen(argv, cwd=PROJECT, stdout=subprocess.PIPE, text=True) as runner:
        assert runner.stdout
        assert runner.stdout.readline() == "ready\n"
        runner.terminate()
        assert runner.stdout.read() == "asked\n"
        assert runner.wait() == 143
