"""The scope of an rbee, the whole machine or one user: its paths and accounts, and commands for hints.

Units have the same names in both scopes, as the systemd of each user has its own units.
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
CONTROL_SOCKET_UNIT = "queen-rbee-control.socket"

TCP_SOCKETS = "queen-tcp"
"""FileDescriptorName= of TCP_SOCKET_UNIT."""

QUEEN_PROGRAM = "queen-rbee"
HIVE_PROGRAM = "rbee-hive"
"""The daemons' names: of their state directories, and in the journal."""


@dataclass(frozen=True, slots=True)
class Scope:
    """The paths and accounts of an rbee. `runtime` has the sockets, `state` a folder for each daemon.

    `config_folders` are those of rbee.conf in the order of precedence, relative to the file system's root.
    """

    kind: Literal["system", "user"]
    """Which systemd manager, and so which bus."""
    runtime: Path
    state: Path
    config_folders: tuple[Path, ...]
    queen_user: str
    hive_user: str
    dropins: Path
    """Where an administrator's drop-ins for units are."""
    group: str | None
    """The group whose members may use the queen; None if only the user may."""

    @property
    def queen_socket(self) -> Path:
        """The queen's Unix socket."""
        return self.runtime / "queen.sock"

    @property
    def hive_socket(self) -> Path:
        """The hive's Unix socket."""
        return self.runtime / "hive.sock"

    @property
    def control_socket(self) -> Path:
        """The Unix socket of CONTROL_SOCKET_UNIT, where the queen has systemd start and stop units."""
        return self.runtime / "control.sock"

    @property
    def runtime_units(self) -> Path:
        """Where units are that are masked until the next boot."""
        return self.runtime.parent / "systemd" / self.kind

    @property
    def credentials(self) -> Path:
        """Where systemd keeps the credentials of running units, a folder each."""
        return self.runtime.parent / "credentials"

    @property
    def queen_state(self) -> Path:
        """The queen's state directory."""
        return self.state / QUEEN_PROGRAM

    @property
    def hive_state(self) -> Path:
        """The hive's state directory."""
        return self.state / HIVE_PROGRAM

    @property
    def catalog(self) -> Path:
        """The queen's catalog, unless Database= is set."""
        return self.queen_state / "catalog.db"

    def is_owner(self) -> bool:
        """Does this process have the rights of this rbee's owner: root's, or the user's?"""
        return self.kind == "user" or os.geteuid() == 0

    # Commands in hints

    def as_root(self, command: str) -> str:
        """Return a command line for the owner of this rbee: root, with sudo, or the user."""
        return f"sudo {command}" if self.kind == "system" else command

    def command(self, program: str, *arguments: str) -> tuple[str, ...]:
        """Return the words of a command of rbee or systemd, with the option that selects this scope."""
        return (program, *(["--user"] if self.kind == "user" else []), *arguments)

    def rbeectl(self, arguments: str, *, as_root: bool = False) -> str:
        """Return the command line of rbeectl with these arguments."""
        return self._line("rbeectl", arguments, as_root=as_root)

    def systemctl(self, arguments: str, *, as_root: bool = False) -> str:
        """Return the command line of systemctl with these arguments."""
        return self._line("systemctl", arguments, as_root=as_root)

    def journalctl(self, arguments: str, *, as_root: bool = True) -> str:
        """Return the command line of journalctl; only root may read all of the system's journal."""
        return self._line("journalctl", arguments, as_root=as_root)

    def _line(self, program: str, arguments: str, *, as_root: bool) -> str:
        line = " ".join(self.command(program, arguments))
        return self.as_root(line) if as_root else line

    def where_to_look(self, unit: str) -> str:
        """The hint for a unit that has failed: its status and its journal."""
        return f"{self.systemctl(f'status {unit}')}; {self.journalctl(f'-u {unit} -e')}"

    @property
    def doctor(self) -> str:
        """The hint to use if no single command is the right one."""
        return self.rbeectl("doctor", as_root=True)

    @property
    def rejoin(self) -> str:
        """The command with which a machine joins a queen."""
        return self.rbeectl("join QUEEN:8500 --token TOKEN", as_root=True)


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
"""The rbee of the whole machine."""

REMOTE = SYSTEM
"""The rbee of another machine: ssh, packages and tokens set up that of the whole machine, never a user's."""


def user_scope(environ: Mapping[str, str] = os.environ) -> Scope:
    """Return the scope of this process's user, in the folders of the XDG base directory specification."""
    account = pwd.getpwuid(os.getuid())
    home = Path(environ.get("HOME") or account.pw_dir)
    config = Path(environ.get("XDG_CONFIG_HOME") or home / ".config")
    return Scope(
        kind="user",
        runtime=Path(environ.get("XDG_RUNTIME_DIR") or f"/run/user/{os.getuid()}") / "rbee",
        state=Path(environ.get("XDG_STATE_HOME") or home / ".local/state"),
        # Without /etc/rbee, which configures the machine's own queen.
        config_folders=(config.relative_to("/") / "rbee", *SYSTEM.config_folders[1:]),
        queen_user=account.pw_name,
        hive_user=account.pw_name,
        dropins=config / "systemd/user",
        group=None,
    )


def scope_of(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Scope:
    """Return the scope for a daemon's arguments: the user's if they have --user, otherwise the machine's."""
    return user_scope(environ) if "--user" in arguments else SYSTEM


def uid_of(user: str) -> int | None:
    """Return a user's uid; None if there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
