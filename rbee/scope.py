"""The scope of an rbee, the whole machine or one user: its paths and accounts, and commands for hints.

Units have the same names in both scopes, as the systemd of each user has its own units.
"""

from __future__ import annotations

import os
import pwd
import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal, NamedTuple

QUEEN_UNIT = "queen-rbee.service"
QUEEN_SOCKET_UNIT = "queen-rbee.socket"
HIVE_UNIT = "rbee-hive.service"
HIVE_SOCKET_UNIT = "rbee-hive.socket"
TARGET = "rbee.target"
SLICE = "rbee.slice"
REDIAL_UNIT = "rbee-hive-redial.service"
JOIN_UNIT = "rbee-hive-join.service"
TCP_RETRY_UNIT = "queen-rbee-tcp-retry.service"
METRICS_UNIT = "rbee-metrics.service"
TCP_SOCKET_UNIT = "queen-rbee-tcp.socket"
FORGET_UNIT = "queen-rbee-forget.service"
CONTROL_SOCKET_UNIT = "queen-rbee-control.socket"
HIVE_CONTROL_SOCKET_UNIT = "rbee-hive-control.socket"
LOGS_SOCKET_UNIT = "queen-rbee-logs.socket"
GATEWAY_UNIT = "rbee-gateway.service"
GATEWAY_SOCKET_UNIT = "rbee-gateway.socket"
GATEWAY_TCP_SOCKET_UNIT = "rbee-gateway-tcp.socket"
ORPHANS_TIMER = "rbee-orphans.timer"
ESTIMATE_UNIT = "rbee-estimate.service"
WORKERS = "rbee-worker@*.service"
FETCHES = "rbee-fetch@*.service"
"""Patterns of the instances, for rbee.systemd.links.running()."""

TCP_SOCKETS = "queen-tcp"
"""FileDescriptorName= of TCP_SOCKET_UNIT."""

GATEWAY_SOCKETS, GATEWAY_TCP_SOCKETS = "gateway", "gateway-tcp"
"""FileDescriptorName= of the gateway's sockets."""

GATEWAY_CREDENTIALS = "rbee.gateway.crt", "rbee.gateway.key"
"""LoadCredential= of the gateway: its certificate chain and the key of it, both in PEM."""

QUEEN_PROGRAM = "queen-rbee"
HIVE_PROGRAM = "rbee-hive"
GATEWAY_PROGRAM = "rbee-gateway"
FETCH_PROGRAM = "rbee-fetch"
WORKER_PROGRAM = "rbee-worker"
"""The daemons' names: of their state directories, and in the journal."""

ENGINE_IDENTIFIER = "rbee-engine"
"""SYSLOG_IDENTIFIER= of the lines of engines that the hive writes again."""


class Scope(NamedTuple):
    """The paths and accounts of an rbee. Long because each has its name here.

    `runtime` has the sockets, `state` a folder for each daemon.

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
    gateway_user: str
    credstore: Path
    """Where an administrator's credentials for units are, see systemd.exec(5)."""

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
    def hive_control_socket(self) -> Path:
        """The Unix socket of HIVE_CONTROL_SOCKET_UNIT, where the hive has systemd start and stop workers."""
        return self.runtime / "hive-control.sock"

    @property
    def logs_socket(self) -> Path:
        """The Unix socket of LOGS_SOCKET_UNIT, where the group reads rbee's part of the journal."""
        return self.runtime / "logs.sock"

    @property
    def gateway_socket(self) -> Path:
        """The gateway's Unix socket, where clients of the OpenAI API connect."""
        return self.runtime / "openai.sock"

    @property
    def worker_runtime(self) -> Path:
        """Where workers have their sockets, a folder each."""
        return self.runtime.parent / "rbee-worker"

    @property
    def models(self) -> Path:
        """The store of the models that were fetched."""
        return self.state / "rbee-models"

    @property
    def worker_specifications(self) -> Path:
        """Where the hive writes what a worker is to be, a folder each."""
        return self.hive_state / "workers"

    @property
    def estimate_runtime(self) -> Path:
        """Where the command of an engine's Estimate= sees the model."""
        return self.runtime.parent / "rbee-estimate"

    @property
    def fetch_requests(self) -> Path:
        """Where the hive writes what is to be fetched, a file each."""
        return self.hive_state / "fetches"

    @property
    def engine_folders(self) -> tuple[Path, ...]:
        """Folders of engines' drop-ins in the order of precedence, relative to the file system's root."""
        return tuple(folder / "engines.d" for folder in self.config_folders)

    @property
    def gateway_is_open(self) -> Path:
        """The condition of GATEWAY_TCP_SOCKET_UNIT, a file of the queen's."""
        return self.queen_state / "gateway-tcp"

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
    gateway_user="rbee-gateway",
    credstore=Path("/etc/credstore"),
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
        gateway_user=account.pw_name,
        credstore=config / "credstore",
    )


def worker_unit(worker_id: str) -> str:
    """Return the unit of a worker."""
    return f"rbee-worker@{worker_id}.service"


def worker_of(unit: str) -> str | None:
    """Return the id of the worker whose unit this is; None for another unit."""
    found = re.fullmatch(r"rbee-worker@(.+)\.service", unit)
    return found[1] if found else None


def program_of(unit: str) -> str:
    """Return the name of a service's program, by which it is known in the journal."""
    return unit.removesuffix(".service")


def package_of(unit: str) -> str:
    """Return the package that has a unit."""
    if unit == TARGET:
        return "python3-rbee"
    if unit.startswith(GATEWAY_PROGRAM):
        return "rbee-gateway"
    return "rbee-queen" if unit.startswith(QUEEN_PROGRAM) or unit == METRICS_UNIT else "rbee-hive"


def worker_units(model: str) -> str:
    """Return the pattern of the units of a model's workers, as the queen names them."""
    return worker_unit(f"{worker_stem(model)}-[0-9]*")


def worker_stem(model: str) -> str:
    """Return the names of a model's workers without their numbers: at most 16 characters."""
    return re.sub("[^a-z0-9]+", "-", model.lower()).strip("-")[:16].strip("-") or "model"


def fetch_unit(fetch_id: str) -> str:
    """Return the unit of a fetch."""
    return f"rbee-fetch@{fetch_id}.service"


def scope_of(arguments: Sequence[str], environ: Mapping[str, str] = os.environ) -> Scope:
    """Return the scope for a daemon's arguments: the user's if they have --user, otherwise the machine's."""
    return user_scope(environ) if "--user" in arguments else SYSTEM


def uid_of(user: str) -> int | None:
    """Return a user's uid; None if there is no such user."""
    try:
        return pwd.getpwnam(user).pw_uid
    except KeyError:
        return None
