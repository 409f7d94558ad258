"""sd_notify(3) of the launcher."""

from __future__ import annotations

import socket

import pytest

from rbee.worker.notify import notify


def test_systemd_hears_it(systemd_socket: socket.socket) -> None:
    notify("READY=1\nSTATUS=bärig")
    assert systemd_socket.recv(4096).decode() == "READY=1\nSTATUS=bärig"


def test_without_systemd_nobody_minds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("NOTIFY_SOCKET", raising=False)
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "/nowhere/notify")
    notify("READY=1")
    monkeypatch.setenv("NOTIFY_SOCKET", "@nobody-listens-here")
    notify("READY=1")
