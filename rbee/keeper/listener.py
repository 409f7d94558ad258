"""Why the queen's TCP socket could not be opened: which process has its port."""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple

from rbee.scope import QUEEN_UNIT, TCP_SOCKET_UNIT
from rbee.systemd.bus import Bus
from rbee.text import printable

LISTENING = "0A"
"""TCP_LISTEN of the kernel's net/tcp_states.h, as /proc/net/tcp writes it."""


class ClosedTcp(NamedTuple):
    """Why hives on other machines cannot reach the queen, in one sentence, and the cure."""

    message: str
    hint: str


class Listener(NamedTuple):
    """A process that listens on a port; `pid` is None if this user may not see which one it is."""

    uid: int
    pid: int | None
    command: str

    def __str__(self) -> str:
        try:
            user = pwd.getpwuid(self.uid).pw_name
        except KeyError:
            user = str(self.uid)
        if self.pid is None:
            return f"a process of user {user}"
        return f"process {self.pid} ({printable(self.command) or 'unknown'}) of user {user}"


def closed_tcp(bus: Bus, root: Path = Path("/")) -> ClosedTcp | None:
    """None unless the queen is open to other machines and systemd could not open its TCP socket.

    Waking the queen resets a unit that has failed. So a socket that is not active although the queen is awake
    and the socket's condition held (that it is open) counts as failed, too.
    """
    state = bus.active_state(TCP_SOCKET_UNIT)
    if state == "active" or (state != "failed" and not _is_missing(bus)):
        return None
    addresses, holders = port_holders(bus, TCP_SOCKET_UNIT, root)
    closed = f"no hive on another machine can reach the queen: {TCP_SOCKET_UNIT} could not be opened"
    if not holders:
        return ClosedTcp(
            f"{closed} at {' and '.join(addresses)} ({bus.state(TCP_SOCKET_UNIT).result})",
            bus.scope.where_to_look(TCP_SOCKET_UNIT),
        )
    return ClosedTcp(
        f"{closed}: {'; '.join(holders)}",
        "End that process: the queen opens the port within seconds\n"
        f"Or on another port: {bus.scope.rbeectl('tcp enable --listen ADDRESS:PORT', as_root=True)}",
    )


def port_holders(bus: Bus, unit: str, root: Path = Path("/")) -> tuple[list[str], list[str]]:
    """A TCP socket unit's addresses, and the holders of their ports: 'process 7 (nc) … has port 80'."""
    addresses = [address for kind, address in bus.listen_addresses(unit) if kind == "Stream"]
    ports = {int(port) for address in addresses if (port := address.rpartition(":")[2]).isdecimal()}
    return addresses, [
        f"{holder} has port {port}" for port in sorted(ports) for holder in listeners(port, root)
    ]


def _is_missing(bus: Bus) -> bool:
    return bus.active_state(QUEEN_UNIT) == "active" and bus.state(TCP_SOCKET_UNIT).condition_held


def listeners(port: int, root: Path = Path("/")) -> list[Listener]:
    """The processes that listen on a TCP port of this machine, by tcp and tcp6 of proc_pid_net(5)."""
    owners: dict[str, int] = {}
    for name in ("tcp", "tcp6"):
        for fields in _rows(root / "proc/net" / name):
            if fields[3] == LISTENING and int(fields[1].rpartition(":")[2], 16) == port:
                owners[fields[9]] = int(fields[7])
    processes = dict(_holders(root, set(owners)))
    return [Listener(uid, *processes.get(inode, (None, ""))) for inode, uid in owners.items()]


def _rows(path: Path) -> Iterator[list[str]]:
    """sl, local address, remote address, state, queues, timers, retransmits, uid, timeout, inode, …"""
    for line in _read(path).splitlines()[1:]:
        fields = line.split()
        if len(fields) >= 10:
            yield fields


def _holders(root: Path, inodes: set[str]) -> Iterator[tuple[str, tuple[int, str]]]:
    """Inode, pid and command of a process that has each of these sockets open, if this user may see it."""
    for process in sorted((root / "proc").glob("[0-9]*"), key=lambda process: int(process.name)):
        for inode in _sockets_of(process) & inodes:
            yield inode, (int(process.name), _read(process / "comm").strip())


def _sockets_of(process: Path) -> set[str]:
    """The inodes of its sockets; empty for another user's process, and for one that has ended meanwhile."""
    links = []
    with suppress(OSError):
        for descriptor in os.listdir(process / "fd"):
            with suppress(OSError):  # closed meanwhile
                links.append(os.readlink(process / "fd" / descriptor))
    return {match[1] for link in links if (match := re.fullmatch(r"socket:\[(\d+)\]", link))}


def _read(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""
