"""What rbeectl cannot print is said to be that, and nothing else is."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[4]

RUN = "import sys; from rbee.keeper.__main__ import main; sys.exit(main())"


def rbeectl(*argv: str, redirect: str = "", before: str = "") -> subprocess.CompletedProcess[str]:
    """In a shell, which redirects; `before` is Python that the process runs first."""
    code = f"{before}\n{RUN}" if before else RUN
    return subprocess.run(
        ["sh", "-c", f'exec "$0" "$@" {redirect}', sys.executable, "-c", code, *argv],
        capture_output=True, text=True, cwd=REPOSITORY, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("argv", [["--help"], ["version", "--json"], ["logs", "--help"]])
def test_a_full_standard_output_is_said_on_standard_error(argv: list[str]) -> None:
    done = rbeectl(*argv, redirect=">/dev/full")

    assert (done.returncode, done.stderr) == (
        1, "rbeectl: the output could not be written: No space left on device\n"
    )  # fmt: skip


def test_a_full_standard_error_takes_nothing_from_the_exit_code() -> None:
    done = rbeectl("catalog", "check", "/nowhere/at/all", redirect="2>/dev/full")

    assert (done.returncode, done.stdout, done.stderr) == (2, "", "")


@pytest.mark.parametrize("argv", [["--help"], ["version", "--json"], ["logs", "--help"]])
def test_a_closed_standard_output_is_an_error_as_a_full_one_is(argv: list[str]) -> None:
    done = rbeectl(*argv, redirect=">&-")

    assert (done.returncode, done.stderr) == (
        1,
        "rbeectl: the output could not be written: Bad file descriptor\n",
    )


def test_a_closed_standard_output_is_not_journalctl_s_to_ignore(tmp_path: Path) -> None:
    journalctl = tmp_path / "journalctl"
    journalctl.write_text("#!/bin/sh\nexit 0\n")
    journalctl.chmod(0o755)
    before = f"import os; os.environ['PATH'] = {str(tmp_path)!r}\nimport rbee.keeper.verbs.logs as logs\n"
    before += "logs.is_readable = lambda: True"

    done = rbeectl("logs", redirect=">&-", before=before)

    assert (done.returncode, done.stderr) == (
        1,
        "rbeectl: the output could not be written: Bad file descriptor\n",
    )
    assert rbeectl("logs", redirect=">/dev/null", before=before).returncode == 0


@pytest.mark.parametrize("redirect", ["<&-", "2>&-", "<&- 2>&-"])
def test_what_else_the_caller_has_closed_is_in_nobody_s_way(redirect: str) -> None:
    assert rbeectl("--help", redirect=redirect).returncode == 0
    assert rbeectl("catalog", "check", "/nowhere/at/all", redirect=redirect).returncode == 2


def test_with_everything_closed_the_exit_code_is_all_that_there_is() -> None:
    assert rbeectl("--help", redirect="<&- >&- 2>&-").returncode == 1
    assert rbeectl("catalog", "check", "/nowhere/at/all", redirect="<&- >&- 2>&-").returncode == 2


OPENING = """
import os
from rbee.keeper.catalog import check
def check_file(*_): os.write(os.open(OPENED, os.O_WRONLY | os.O_CREAT), b"whole"); raise SystemError
check.check_file = check_file
"""


def test_no_message_is_written_to_a_file_that_got_a_closed_descriptor(tmp_path: Path) -> None:
    opened = tmp_path / "opened"

    done = rbeectl(
        "catalog", "check", "x", redirect="<&- >&- 2>&-", before=f"OPENED = {str(opened)!r}{OPENING}"
    )

    assert (done.returncode, opened.read_text()) == (1, "whole")


def test_a_reader_who_has_gone_is_not_complained_of() -> None:
    reading, writing = os.pipe()
    os.close(reading)
    with os.fdopen(writing, "w") as pipe:
        done = subprocess.run(
            [sys.executable, "-c", RUN, "--help"],
            stdout=pipe, stderr=subprocess.PIPE, text=True, cwd=REPOSITORY, check=False,
        )  # fmt: skip

    assert (done.returncode, done.stderr) == (1, "")


BROKEN = """
import os
from rbee.keeper import session
def broken(*_): os.open("/etc/nothing of the kind", os.O_RDONLY)
session.Session.queen = broken
"""


def test_any_other_refusal_of_the_operating_system_names_its_file() -> None:
    done = rbeectl("list-hives", before=BROKEN)

    assert done.returncode == 1
    assert done.stderr == (
        "rbeectl: /etc/nothing of the kind: No such file or directory\n  try: ls -ld /etc\n"
    )


def test_a_program_gets_an_error_event_for_it() -> None:
    done = rbeectl("list-hives", "--json", before=BROKEN)

    told = json.loads(done.stdout)
    assert (done.returncode, done.stderr, told["event"]) == (1, "", "error")
    assert told["detail"] == "/etc/nothing of the kind: No such file or directory"


def test_what_a_terminal_cannot_show_is_escaped() -> None:
    environ = {**os.environ, "PYTHONIOENCODING": "ascii"}
    done = subprocess.run(
        [sys.executable, "-c", RUN, "catalog", "check", "/größer"],
        capture_output=True, text=True, cwd=REPOSITORY, check=False, env=environ,
    )  # fmt: skip

    assert "/gr\\xf6\\xdfer" in done.stderr
