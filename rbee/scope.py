"""Whom this rbee is for, the whole machine or one user: where it lives, and how a hint for it is typed.

The units have the same names in both: the systemd of each user has names of its own.
"""

from __future__ import annotations

import os
import pwd
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

QUEEN_UNIT = "queen-rbee.service"
QUEEN_SOCKET_UNIT = "queen-rbee.socket"
HIVE_UNIT = "rbee-hive.service"
HIVE_SOCKET_UNIT = "rbee-hive.socket"
TARGET = "rbee.target"
REDIAL_UNIT = "rbee-hive-redial.service"
JOIN_UNIT = "rbee-hive-join.service"
TCP_SOCKET_UNIT = "queen-rbee-tcp.socket"
FORGET_UNIT = "queen-rbee-forget.service"

TCP_SOCKETS = "queen-tcp"
"""FileDescriptorName= of TCP_SOCKET_UNIT."""

QUEEN_PROGRAM = "queen-rbee"
HIVE_PROGRAM = "rbee-hive"
"""What the daemons are called: their state directories, and who they are in the journal."""


@dataclass(frozen=True, slots=True)
class Scope:
    """`runtime` is the folder of the sockets, and `state` has a folder for each daemon.

    `config_folders` are those of rbee.conf, the first before the others, relative to the file system's root.
    """

    kind: Literal["system", "user"]
    """Which systemd, and the bus that it is on."""
    runtime: Path
    state: Path
    config_folders: tuple[Path, ...]
    queen_user: str
    hive_user: str
    dropins: Path
    """Where an administrator's drop-ins for units are."""
    group: str | None
    """Whose members may use the queen; None if nobody but the user may."""

    @property
    def queen_socket(self) -> Path:
        return self.runtime / "queen.sock"

    @property
    def hive_socket(self) -> Path:
        return self.runtime / "hive.sock"

    @property
    def queen_state(self) -> Path:
        return self.state / QUEEN_PROGRAM

    @property
    def hive_state(self) -> Path:
        return self.state / HIVE_PROGRAM

    @property
    def catalog(self) -> Path:
        """The queen's catalog, unless Database= is set."""
        return self.queen_state / "catalog.db"

    # How a hint is typed

    def as_root(self, command: str) -> str:
        """The command line of what the owner of this rbee may do: root, or the user."""
        return f"sudo {command}" if self.kind == "system" else command

    def rbeectl(self, words: str, *, as_root: bool = False) -> str:
        command = f"rbeectl{self._option} {words}"
        return self.as_root(command) if as_root else command

    def systemctl(self, words: str, *, as_root: bool = False) -> str:
        command = f"systemctl{self._option} {words}"
        return self.as_root(command) if as_root else command

    def journalctl(self, words: str) -> str:
        """Reading the journal of the system is root's, and a user's own is the user's."""
        return self.as_root(f"journalctl{self._option} {words}")

    def where_to_look(self, unit: str) -> str:
        """The hint for a unit that has failed: its status and its journal."""
        return f"{self.systemctl(f'status {unit}')}; {self.journalctl(f'-u {unit} -e')}"

    @property
    def doctor(self) -> str:
        """The hint where a look at everything is better advice than any single command."""
        return self.rbeectl("doctor", as_root=True)

    @property
    def rejoin(self) -> str:
        """What a machine joins a queen with, by a token of hers."""
        return self.rbeectl("join QUEEN:8500 --token TOKEN", as_root=True)

    @property
    def _option(self) -> str:
        return "" if self.kind == "system" else " --user"


SYSTEM = Scope(
    kind="system",
    runtime=Path("/run/rbee"),
    state=Path("/var/lib"),
    config_folders=(Path("etc/rbee"), Path("usr/local/lib/rbee"), Path("usr/lib/rbee")),
    queen_user="queen-rbee",
    hive_user="rbee-hive",
    dropins=Path("/etc/systemd/system"),
    group="rbee",
)
"""rbee of the whole machine."""


def user_scope(environ: Mapping[str, str] = os.environ) -> Scope:
    """rbee of the user that this process runs as, in the folders of the XDG base directory specification."""
    account = pwd.getpwuid(os.getuid())
    home = Path(environ.get("HOME") or account.pw_dir)
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Scope(
        kind="user",
        runtime=Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "rbee",
        state=Path(environ.get("XDG_STATE_HOME") or home / ".local/state"),
        # /etc/rbee is about the machine's own queen.
        config_folders=(config.relative_to("/") / "rbee", *SYSTEM.config_folders[1:]),
        queen_user=account.pw_name,
        hive_user=account.pw_name,
        dropins=config / "systemd/user",
        group=None,
    )


def scope_of(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Scope:
    """The scope that a daemon is started for: the user's if its unit says --user, else the machine's."""
    return user_scope(environ) if "--user" in arguments else SYSTEM


def uid_of(user: str) -> int | None:
    """A user's number; None if there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
