"""What a program has notified systemd of."""

from __future__ import annotations

import contextlib
import socket


def heard(receiver: socket.socket) -> list[bytes]:
    """What systemd has been told so far."""
    receiver.setblocking(False)
    messages = []
    with contextlib.suppress(BlockingIOError):
        while True:
            messages.append(receiver.recv(4096))
    return messages
