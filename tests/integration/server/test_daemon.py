"""A daemon from its first line to its exit status."""

from __future__ import annotations

import os
import socket
import subprocess
import sys
from pathlib import Path

from tests.unit.notified import heard

DAEMON = """
import asyncio, os, sys
from rbee.errors import BadConfig, CatalogUnusable
from rbee.narration import QUEEN_FAILED
from rbee.server.daemon import run_daemon, stop_signal

async def run(notifier, journal):
    {body}

sys.exit(run_daemon("queen-rbee", QUEEN_FAILED, run))
"""


def run_as_daemon(systemd_socket: socket.socket, body: str) -> tuple[int, str, list[bytes]]:
    run = subprocess.run(
        [sys.executable, "-c", DAEMON.format(body=body)],
        capture_output=True,
        text=True,
        cwd=Path(__file__).parents[3],
        env=dict(os.environ),
        timeout=30,
    )
    return run.returncode, run.stderr, heard(systemd_socket)


def test_a_daemon_that_ends_well_exits_0(systemd_socket: socket.socket) -> None:
    assert run_as_daemon(systemd_socket, "notifier.status('done')") == (0, "", [b"STATUS=done"])


def test_a_daemon_says_in_its_status_and_its_log_why_it_cannot_run(systemd_socket: socket.socket) -> None:
    code, log, told = run_as_daemon(systemd_socket, "raise CatalogUnusable('it is damaged', hint='mv it')")

    assert code == 78
    assert told == [b"STATUS=it is damaged; try: mv it"]
    # To stderr only where there is no journal.
    assert log in ("", "<3>queen-rbee cannot run: it is damaged; try: mv it\n")


def test_an_internal_error_keeps_its_traceback(systemd_socket: socket.socket) -> None:
    code, log, told = run_as_daemon(systemd_socket, "1 / 0")

    assert code == 1
    assert told == [b"STATUS=internal error: ZeroDivisionError('division by zero')"]
    assert "Traceback" in log


def test_sigterm_is_heard(systemd_socket: socket.socket) -> None:
    body = "stop = stop_signal(); os.kill(os.getpid(), 15); await asyncio.wait_for(stop.wait(), 5)"

    assert run_as_daemon(systemd_socket, body)[0] == 0


def test_each_line_of_the_log_has_its_level(systemd_socket: socket.socket) -> None:
    body = "import logging; logging.getLogger('rbee').error('one\\ntwo'); logging.getLogger('x').warning('w')"

    assert run_as_daemon(systemd_socket, body)[1] == "<3>one\n<3>two\n<4>w\n"


def test_what_the_log_repeats_of_a_request_is_escaped(systemd_socket: socket.socket) -> None:
    body = r"import logging; logging.getLogger('rbee').error('at /\x1b[2J\x9b\u202e\n/\ud800')"

    assert run_as_daemon(systemd_socket, body)[1] == "<3>at /\\x1b[2J\\x9b\\u202e\n<3>/\\ud800\n"
