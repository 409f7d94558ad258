"""Whether the hive of this machine is a remote queen's, which it must not be where there is a queen."""

from __future__ import annotations

import json
import re
from dataclasses import dataclass
from pathlib import Path

from rbee.contracts import Host, Name, Port, decode
from rbee.errors import BadInput
from rbee.systemd.unit import UnitState

FOLDER = Path("var/lib/rbee-hive")
MEMBERSHIPS = ("membership", "membership.new", "membership.old")
"""That of now, and those of a hive that was cut off while it joined (rbee.hive.membership)."""

LONGEST = 64 * 1024
"""Characters of a membership's first line, which has the CA's certificate."""

_DIALS = re.compile(r"queen at ([^/\s]+)[,:] ")
"""The unit's status of a hive of a remote queen; for a queen on this machine it has a socket's path."""


@dataclass(frozen=True, slots=True)
class RemoteQueen:
    """`queen` is HOST:PORT; `hive_id` None if this user may not read which hive it is."""

    queen: str
    hive_id: str | None = None

    def __str__(self) -> str:
        hive = f"the hive {self.hive_id}" if self.hive_id else "a hive"
        return f"{hive} of the queen at {self.queen}"


def remote_queen(state: UnitState, root: Path = Path("/")) -> RemoteQueen | None:
    """By its membership, which root alone may read, or by what the running hive says."""
    try:
        with (root / FOLDER / MEMBERSHIPS[0]).open(errors="replace") as file:
            head = json.loads(file.readline(LONGEST).removeprefix("# "))
        host, port = decode(Host, head["host"]), decode(Port, head["port"])
        shown = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
        return RemoteQueen(shown, decode(Name, head["hive_id"]))
    except (OSError, ValueError, KeyError, TypeError, BadInput):
        return queen_dialled(state)


def queen_dialled(state: UnitState) -> RemoteQueen | None:
    """That which a running hive says that it dials."""
    found = _DIALS.match(state.status_text) if state.is_active else None
    return RemoteQueen(found[1]) if found else None
