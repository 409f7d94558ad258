"""Sockets handed over, notifications and the watchdog."""

from __future__ import annotations

import os
import socket
from pathlib import Path

import pytest

from rbee.errors import BadConfig
from rbee.systemd.daemon import Notifier, state_directory, take_sockets, watchdog_interval


def test_who_starts_a_daemon_by_hand_is_told_how_to_start_it() -> None:
    environ = {"LISTEN_PID": "1", "LISTEN_FDS": "1", "LISTEN_FDNAMES": "x", "HOME": "/root"}

    with pytest.raises(BadConfig) as caught:
        take_sockets(environ)

    assert "systemctl start" in (caught.value.hint or "")
    assert environ == {"HOME": "/root"}


# sd_notify(3)


def test_ready_is_said_with_the_status_in_one_message(
    notifier: Notifier, systemd_socket: socket.socket
) -> None:
    notifier.ready("hives: 1 online")

    assert systemd_socket.recv(4096) == b"READY=1\nSTATUS=hives: 1 online"


@pytest.mark.parametrize(
    ("status", "heard"),
    [
        ("größer 👑", "STATUS=größer 👑"),
        ("two\nlines\r\n and\ttabs ", "STATUS=two lines and tabs"),
        ("a\nMAINPID=1", "STATUS=a MAINPID=1"),
        ("", "STATUS="),
        ("a\ud800b", "STATUS=a\\ud800b"),
        ("\x1b[2J\u202e\x9b\x00", "STATUS=\\x1b[2J\\u202e\\x9b\\x00"),
    ],
)
def test_a_status_is_one_line_of_utf_8(
    notifier: Notifier, systemd_socket: socket.socket, status: str, heard: str
) -> None:
    notifier.status(status)

    assert systemd_socket.recv(4096).decode() == heard


def test_a_status_is_cut_where_it_gets_too_long_to_read(
    notifier: Notifier, systemd_socket: socket.socket
) -> None:
    notifier.status(f"joining failed: {'ü' * 10_000}; try: this")

    heard = systemd_socket.recv(65536).decode()
    assert len(heard) == len("STATUS=") + 500
    assert heard.startswith("STATUS=joining failed: üü")
    assert heard.endswith("üü; try: this")


def test_a_status_is_sent_once_until_it_is_another(notifier: Notifier, systemd_socket: socket.socket) -> None:
    notifier.ready("no beat yet")
    for status in ("no beat yet", "beats", "beats", "trouble", "beats"):
        notifier.status(status)

    heard = [systemd_socket.recv(4096) for _ in range(4)]
    assert heard == [b"READY=1\nSTATUS=no beat yet", b"STATUS=beats", b"STATUS=trouble", b"STATUS=beats"]
    systemd_socket.setblocking(False)
    with pytest.raises(BlockingIOError):
        systemd_socket.recv(4096)


def test_stopping_and_the_watchdog_are_told(notifier: Notifier, systemd_socket: socket.socket) -> None:
    notifier.stopping("stopping")
    notifier.alive()

    assert systemd_socket.recv(4096) == b"STOPPING=1\nSTATUS=stopping"
    assert systemd_socket.recv(4096) == b"WATCHDOG=1"


def test_outside_systemd_a_notifier_says_nothing(silent_notifier: Notifier) -> None:
    silent_notifier.ready("hello")
    silent_notifier.alive()


@pytest.mark.parametrize(
    ("environ", "seconds"),
    [
        ({}, None),
        ({"WATCHDOG_USEC": "10000000"}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": str(os.getpid())}, 5.0),
        ({"WATCHDOG_USEC": "10000000", "WATCHDOG_PID": "1"}, None),
        ({"WATCHDOG_USEC": ""}, None),
        ({"WATCHDOG_USEC": "soon"}, None),
        ({"WATCHDOG_USEC": "-1"}, None),
        ({"WATCHDOG_USEC": "0"}, None),
    ],
)
def test_the_watchdog_is_fed_at_half_of_its_time(environ: dict[str, str], seconds: float | None) -> None:
    assert watchdog_interval(environ) == seconds


def test_what_outlives_a_daemon_is_where_its_unit_says() -> None:
    default = Path("/var/lib/x")

    assert state_directory(default, {}) == default
    assert state_directory(default, {"STATE_DIRECTORY": "/mnt/x"}) == Path("/mnt/x")
