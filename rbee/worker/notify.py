"""sd_notify(3) in a few lines: a library would cost each start of a worker its import."""

from __future__ import annotations

import os
import socket
from contextlib import suppress


def notify(text: str) -> None:
    """Send a message to systemd; do nothing without $NOTIFY_SOCKET, or if sending fails."""
    path = os.environ.get("NOTIFY_SOCKET", "")
    if not path:
        return
    with suppress(OSError), socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as channel:
        channel.sendto(text.encode(), f"\0{path[1:]}" if path.startswith("@") else path)
