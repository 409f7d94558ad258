"""Who is at the other end of a Unix socket."""

from __future__ import annotations

import pwd
import socket
import struct
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Peer:
    """The process that connected, as the kernel says (SO_PEERCRED of unix(7)); pid 0 is out of sight."""

    pid: int
    uid: int
    gid: int


def peer_at(channel: socket.socket) -> Peer:
    credentials = channel.getsockopt(socket.SOL_SOCKET, socket.SO_PEERCRED, struct.calcsize("3i"))
    return Peer(*struct.unpack("3i", credentials))


def uid_of(user: str) -> int | None:
    """A user's number; None where there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
