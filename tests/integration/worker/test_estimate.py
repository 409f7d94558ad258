"""The launcher of rbee-estimate.service with real commands: good ones, and those that do what they like."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from rbee.engines.estimate import BadAnswerError, Question
from rbee.worker.estimate import ask, main

pytestmark = pytest.mark.deadline(30)


def sh(script: str, *words: str, deadline: float = 5) -> int:
    return ask(Question(("/bin/sh", "-c", script, "sh", *words)), os.environ, deadline=deadline)


def test_a_command_is_run_without_a_shell_and_its_number_is_the_answer(tmp_path: Path) -> None:
    model = tmp_path / "a b; echo 9.gguf"
    model.write_bytes(b"x" * 700)

    assert ask(Question(("/usr/bin/stat", "-c", "%s", str(model))), os.environ) == 700


def test_it_has_the_engines_variables_and_none_of_the_launchers() -> None:
    environ = {"RBEE_ARGV": "x", "NOTIFY_SOCKET": "/n", "PATH": os.environ["PATH"]}
    script = 'echo "$BEE$RBEE_ARGV$NOTIFY_SOCKET$HOME$(pwd)" >&2; exit 1'

    with pytest.raises(BadAnswerError, match="said 'yes/tmp/'"):
        ask(Question(("/bin/sh", "-c", script), (("BEE", "yes"),)), environ)


def test_standard_input_is_empty() -> None:
    assert sh("cat; echo 7") == 7


@pytest.mark.parametrize(
    ("script", "why"),
    [
        ("yes", "printed more than 64 KiB"),
        ("echo 5 >&2; exit 3", "status 3, and said '5'"),
        ("kill -9 $$", "killed by signal 9"),
        ("printf '\\377'", "not UTF-8"),
        ("echo 1000000000000000000000000000000", "more than"),
        ("echo -- -5", "not a number"),
    ],
)
def test_a_command_that_fails_has_no_answer(script: str, why: str) -> None:
    with pytest.raises(BadAnswerError, match=why):
        sh(script)


HANGS = ["sleep 60", "exec >&- 2>&-; sleep 60", "yes >&2", "trap '' TERM; sleep 60"]


@pytest.mark.parametrize("script", HANGS)
def test_a_command_that_does_not_end_is_killed_at_its_deadline(script: str) -> None:
    began = time.monotonic()

    with pytest.raises(BadAnswerError, match=r"had not ended after 0.3 s"):
        sh(script, deadline=0.3)
    assert time.monotonic() - began < 5


def test_a_child_that_holds_the_pipe_is_not_waited_for_and_ends_with_the_group(tmp_path: Path) -> None:
    pid = tmp_path / "pid"
    began = time.monotonic()

    assert sh(f"sleep 60 & echo $! > {pid}; echo 7", deadline=20) == 7
    assert time.monotonic() - began < 10
    assert not _runs(int(pid.read_text()))


def _runs(pid: int) -> bool:
    """Does a process run? One that was killed may be a zombie for a moment."""
    deadline = time.monotonic() + 5
    while time.monotonic() < deadline:
        try:
            state = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0]
        except OSError:
            return False
        if state == "Z":
            return False
        time.sleep(0.05)
    return True


@pytest.mark.parametrize(
    ("content", "mode", "why"),
    [
        (None, 0, "No such file or directory"),
        ("#!/bin/sh\necho 7\n", 0o644, "Permission denied"),
        ("hello", 0o755, "Exec format error"),
        ("#!/nowhere\n", 0o755, "No such file or directory"),
    ],
)
def test_a_program_that_cannot_be_executed_is_named(
    content: str | None, mode: int, why: str, tmp_path: Path
) -> None:
    program = tmp_path / "program"
    if content is not None:
        program.write_text(content)
        program.chmod(mode)

    with pytest.raises(BadAnswerError, match=rf"cannot be executed \({why}\)"):
        ask(Question((str(program),)), os.environ)


@pytest.mark.parametrize(
    ("script", "status"),
    [("echo 7", "needs 7 bytes"), ("exit 1", "no answer: it exited with status 1, and said nothing")],
)
def test_the_unit_is_ready_with_the_answer_as_its_status(
    script: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = str(tmp_path / "notify")
    monkeypatch.setenv("NOTIFY_SOCKET", path)
    environ = {"RBEE_ARGV": json.dumps(["/bin/sh", "-c", script]), "RBEE_ENVIRONMENT": "{}"}
    waited: list[bool] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        assert main(environ, lambda: waited.append(True)) == 0
        assert systemd.recv(4096).decode() == f"STATUS={status}\nREADY=1"
    assert waited == [True]


def test_it_stays_until_it_is_stopped_and_an_invalid_environment_is_a_fault(tmp_path: Path) -> None:
    code = "import os, sys; from rbee.worker.estimate import main; sys.exit(main(os.environ))"
    command = [sys.executable, "-c", code]
    bad = subprocess.run(command, env={}, capture_output=True, text=True, check=False)
    assert (bad.returncode, "is not valid" in bad.stderr) == (os.EX_CONFIG, True)

    path = str(tmp_path / "n")
    environ = {"RBEE_ARGV": '["/bin/echo", "7"]', "RBEE_ENVIRONMENT": "{}", "NOTIFY_SOCKET": path}
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as systemd:
        systemd.bind(path)
        systemd.settimeout(20)
        with subprocess.Popen(command, env=environ) as launcher:
            try:
                assert systemd.recv(4096) == b"STATUS=needs 7 bytes\nREADY=1"
                assert launcher.poll() is None
            finally:
                launcher.terminate()
        assert launcher.returncode == -15
