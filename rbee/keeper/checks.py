"""What may keep rbee from working on a machine: each check looks and complains, in an order that matters.

Looking changes nothing and wakes nobody. A complaint's cures are command lines, to be typed
by a person or run by `rbeectl doctor --fix`.
"""

from __future__ import annotations

import grp
import os
import pwd
import shlex
import sqlite3
import stat
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

from rbee import catalogfile, config
from rbee.contracts import LOCALHOST
from rbee.errors import BadConfig, CatalogUnusable, RbeeError, TimedOut, with_packages
from rbee.files import as_owner_of, read_regular
from rbee.keeper import permission
from rbee.keeper.listener import closed_tcp
from rbee.keeper.local_hive import FOLDER, MEMBERSHIPS, RemoteQueen, remote_queen
from rbee.keeper.lone import LoneHive
from rbee.scope import HIVE_SOCKET_UNIT, HIVE_UNIT, JOIN_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT, TARGET
from rbee.systemd.bus import Bus
from rbee.systemd.daemon import NO_SOCKET
from rbee.systemd.exitstatus import SETUPS, cure_for_exit, describe_exit
from rbee.systemd.unit import UnitState, said_by

Command = tuple[str, ...]

LOCK_PATIENCE = 2.0
"""Seconds after which a lock on the catalog that is still held is somebody who hangs.

An honest backup or a query holds a lock to write for milliseconds, and the queen waits 5 s.
"""

FAILING_TIMEOUT = 1.0
"""Seconds for a service that is just being restarted to fail again, which is when systemd knows why."""

BACK_TIMEOUT = 3.0
"""Seconds that a unit has, which is being restarted, to be back before that is a problem."""

ROOM = 1024 * 1024
"""Bytes that the catalog's file system has to have free: a few transactions."""

METRICS_UNIT = "rbee-metrics.service"
POLKIT = "polkit.service"
POLKIT_NAME = "org.freedesktop.PolicyKit1"
RULES = Path("usr/share/polkit-1/rules.d/50-rbee.rules")
STATE_DIRECTORY = Path("var/lib/queen-rbee")
KEYS = STATE_DIRECTORY / "tls"
KEYS_LIMIT = 65536
"""Bytes of a certificate's file that are read."""

CREDENTIALS = Path("run/credentials") / QUEEN_UNIT
MEMBERSHIP = FOLDER / MEMBERSHIPS[0]
RESTART = ("systemctl", "restart", TARGET)
"""Services and sockets in one transaction (PartOf=); by itself a socket cannot start while its service runs.

Who was awake is awake again afterwards, who was asleep stays asleep.
"""


@dataclass(frozen=True, slots=True)
class Complaint:
    """What is wrong, in a sentence. `hint` is for what no command of ours can mend, or tells more.

    A complaint that is no fault is worth knowing, and changes no exit status.
    """

    text: str
    cures: tuple[Command, ...] = ()
    hint: str | None = None
    is_fault: bool = True


@dataclass(frozen=True, slots=True)
class Program:
    user: str
    package: str
    launcher: Path
    service: str
    socket: str
    path: Path


QUEEN = Program(
    "queen-rbee", "rbee-queen", Path("usr/libexec/rbee/queen-rbee"),
    QUEEN_UNIT, QUEEN_SOCKET_UNIT, config.QUEEN_SOCKET,
)  # fmt: skip
HIVE = Program(
    "rbee-hive", "rbee-hive", Path("usr/libexec/rbee/rbee-hive"),
    HIVE_UNIT, HIVE_SOCKET_UNIT, config.HIVE_SOCKET,
)  # fmt: skip


@dataclass(frozen=True)
class Patient:
    """The machine that is looked at: its file system, its bus, and who asks.

    `bus` is None where the system bus does not answer; `sudo_user` is whom root acts for.
    """

    bus: Bus | None
    root: Path
    is_root: bool
    sudo_user: str | None

    @property
    def programs(self) -> list[Program]:
        """Which of the two are installed here."""
        return [program for program in (QUEEN, HIVE) if (self.root / program.launcher).exists()]

    def is_installed(self, program: Program) -> bool:
        return program in self.programs


# The system bus


def complain_of_bus(error: RbeeError, root: Path) -> Complaint:
    """Why nobody reaches systemd. Nothing but the file system can be asked now."""
    if not (root / "run/systemd/system").is_dir():
        return Complaint("systemd does not run this machine, and rbee is made of units of systemd")
    if isinstance(error, TimedOut):
        return Complaint(
            f"the system bus is there and does not answer ({error.message})",
            # Does nothing to one that is not stopped; by PID 1's own socket, so that it works now.
            (("systemctl", "kill", "--signal=CONT", "dbus.service"),),
            hint="sudo systemctl status dbus",
        )
    units = ("dbus.socket", "dbus.service")
    cures = [
        ("systemctl", "unmask", *flag, unit)
        for unit in units
        for flag, folder in (((), "etc"), (("--runtime",), "run"))
        if is_masking(root / folder / "systemd/system" / unit)
    ]
    masked = " and masked" if cures else ""
    return Complaint(
        f"D-Bus is stopped{masked}: without it nobody can ask systemd to wake the queen or her hive",
        (*cures, ("systemctl", "start", *units)),
    )


def is_masking(path: Path) -> bool:
    return path.is_symlink() and os.readlink(path) == os.devnull


# polkit, which lets those start units who are not root


def check_polkit(patient: Patient) -> Iterator[Complaint]:
    if patient.bus is None:
        yield _NO_BUS
        return
    state = patient.bus.state(POLKIT)
    file_state, _ = patient.bus.file_state(POLKIT)
    broken = complain_of_polkit(state, file_state)
    if broken is None:
        try:
            patient.bus.ping(POLKIT_NAME)
        except RbeeError as error:
            broken = Complaint(
                f"polkit does not answer ({error.message}), so that only root can turn rbee on and off",
                (("systemctl", "restart", POLKIT),),
                hint=f"sudo journalctl -u {POLKIT} -e",
            )
    if broken is not None:
        yield broken
    if is_missing(patient.root / RULES):
        yield Complaint(
            f"/{RULES} is missing, by which group {permission.GROUP} may turn rbee on and off",
            hint="Install the package python3-rbee again: sudo apt install --reinstall ./python3-rbee_*.deb",
        )


def is_missing(path: Path) -> bool:
    """Debian 12 shows the folder of the rules to root and polkit only: who may not look cannot say so."""
    try:
        return not path.is_file()
    except PermissionError:
        return False


def complain_of_polkit(state: UnitState, file_state: str) -> Complaint | None:
    only_root = "so that only root can turn rbee on and off"
    if state.load == "masked":
        return Complaint(f"{POLKIT} is masked, {only_root}", (unmask(POLKIT, file_state),))
    if state.load == "not-found":
        install = ("apt-get", "install", "--yes", "polkitd")
        return Complaint(f"polkit is not installed, {only_root}", (install,))
    if state.active == "failed":
        return Complaint(
            f"{POLKIT} has failed ({reason_of(state)}), {only_root}",
            (("systemctl", "reset-failed", POLKIT), ("systemctl", "start", POLKIT)),
            hint=f"sudo journalctl -u {POLKIT} -e",
        )
    return None


def unmask(unit: str, file_state: str) -> Command:
    # Without --runtime systemctl looks into /etc only, and says nothing where it finds nothing.
    return ("systemctl", "unmask", *(["--runtime"] if file_state == "masked-runtime" else []), unit)


# Users and groups


def check_group(patient: Patient) -> Iterator[Complaint]:
    for program in patient.programs:
        missing = [] if has_user(program.user) else [f"the user {program.user}"]
        if program is QUEEN and not has_group(permission.GROUP):
            missing.append(f"the group {permission.GROUP}")
        if missing:
            verb = "are" if missing[1:] else "is"
            yield Complaint(
                f"{' and '.join(missing)} {verb} missing, which the package {program.package} makes",
                (("systemd-sysusers", f"{program.package}.conf"),),
            )
    if not patient.is_installed(QUEEN) or not has_group(permission.GROUP):
        return
    if patient.is_root and (patient.sudo_user in (None, "root") or not has_user(patient.sudo_user)):
        return
    user = (patient.sudo_user if patient.is_root else None) or permission.user_name()
    standing = permission.standing(user if patient.is_root else None)
    if standing == "out":
        yield Complaint(
            f"{user} is not in group {permission.GROUP}, and only its members and root may use rbee",
            (("adduser", user, permission.GROUP),),
            hint=permission.LOG_IN,
        )
    elif standing == "not-yet":
        yield Complaint(
            f"{user} is in group {permission.GROUP}, and this login does not know it yet",
            hint=permission.NEW_LOGIN,
            is_fault=False,
        )


def has_user(name: str) -> bool:
    try:
        pwd.getpwnam(name)
    except KeyError:
        return False
    return True


def has_group(name: str) -> bool:
    try:
        grp.getgrnam(name)
    except KeyError:
        return False
    return True


# The units


def check_units(patient: Patient) -> Iterator[Complaint]:
    if patient.bus is None:
        yield _NO_BUS
        return
    if not patient.programs:
        yield Complaint("neither the queen nor a hive is installed here", hint=with_packages("rbee"))
    for program in patient.programs:
        states = {unit: patient.bus.state(unit) for unit in (program.service, program.socket)}
        if states[program.service].is_restarting:
            states[program.service] = state_after_restart(patient.bus, program.service)
        for unit, state in states.items():
            yield from complain_of_file(unit, state, *patient.bus.file_state(unit))
        # A unit that cannot be started at all need not be told to have failed, too.
        if all(state.load == "loaded" for state in states.values()):
            yield from complain_of_failure(program, *states.values())
    yield from complain_of_metrics(patient.bus)
    if patient.is_installed(HIVE):
        yield from complain_of_join(patient.bus.state(JOIN_UNIT))
    yield from complain_of_file(TARGET, patient.bus.state(TARGET), *patient.bus.file_state(TARGET))


def state_after_restart(bus: Bus, unit: str) -> UnitState:
    """What becomes of a unit that is being restarted: it is back in a moment, has failed, or is restarted on.

    After a fault that was just mended, such as a stopped bus, it mostly is the first.
    """
    state = bus.await_state(
        unit, lambda one: one.active == "active" or not one.is_restarting, timeout=BACK_TIMEOUT
    )
    if state.is_restarting and not state.has_reason:
        state = bus.failing_state(unit, timeout=FAILING_TIMEOUT)
    return state


def complain_of_file(unit: str, state: UnitState, file_state: str, needs_reload: bool) -> Iterator[Complaint]:
    """What is wrong with a unit before it is even started."""
    if state.load == "masked":
        cures: tuple[Command, ...] = (unmask(unit, file_state),)
        if unit.endswith(".socket") and state.is_active:
            # systemd closed the descriptor as it masked the unit, and leaves the unit active.
            cures = (*cures, RESTART)
        yield Complaint(f"{unit} is masked: systemd refuses to start it and all that needs it", cures)
    elif state.load == "not-found":
        yield Complaint(
            f"the file of {unit} is gone, though its program is installed",
            hint=f"Install the package again: sudo apt install --reinstall ./{_package_of(unit)}_*.deb",
        )
    elif state.load != "loaded":
        yield Complaint(
            f"systemd cannot use the file of {unit} ({state.load})", hint=f"systemd-analyze verify {unit}"
        )
    elif needs_reload:
        yield Complaint(
            f"the file of {unit} or a drop-in was changed, and systemd still goes by the old one",
            (("systemctl", "daemon-reload"),),
        )


def _package_of(unit: str) -> str:
    if unit == TARGET:
        return "python3-rbee"
    return QUEEN.package if unit in (QUEEN.service, QUEEN.socket) else HIVE.package


def complain_of_failure(program: Program, service: UnitState, socket: UnitState) -> Iterator[Complaint]:
    """Whether service or socket have failed, told as one story: the one is mostly why the other did."""
    service_failed, socket_failed = service.active == "failed", socket.active == "failed"
    if service.is_restarting:
        yield complain_of_restarts(program, service)
    if not service_failed and not socket_failed:
        return
    has_no_socket = service_failed and NO_SOCKET in service.status_text
    if service_failed and service.exit_status == BadConfig.exit_code and not has_no_socket:
        yield Complaint(
            f"{program.service} cannot run: {service.status_text or reason_of(service)}",
            hint="Mend that; then wake it with: rbeectl add-hive localhost",
        )
        return
    causes = []
    if socket_failed:
        causes.append(f"{program.socket} has failed and listens no more: {reason_of(socket)}")
    if service_failed:
        said = f"; it said: {service.status_text}" if service.status_text else ""
        causes.append(f"{program.service} has failed: {reason_of(service)}{said}")
    # reset-failed also lets go of the start limit, which would refuse the next start.
    cures: list[Command] = [("systemctl", "reset-failed", program.service, program.socket)]
    if service_failed and service.exit_status in SETUPS:
        # Forgetting is no cure: the next start fails as this one did.
        commands = [*cures, *([("systemctl", "start", program.socket)] if socket_failed else [])]
        afterwards = "; ".join(f"sudo {' '.join(command)}" for command in commands)
        hint = f"{where_to_look(program.service, service)}\nWhen that is mended: {afterwards}"
        yield Complaint("; ".join(causes), hint=hint)
        return
    if has_no_socket or (socket_failed and not service.is_stopped):
        cures.append(RESTART)
    elif socket_failed:
        cures.append(("systemctl", "start", program.socket))
    yield Complaint("; ".join(causes), tuple(cures), hint=where_to_look(program.service, service))


def complain_of_metrics(bus: Bus) -> Iterator[Complaint]:
    """Whether Prometheus gets the queen's metrics where somebody wants that: nobody watches a timer."""
    state = bus.state(METRICS_UNIT)
    if state.active == "failed":
        yield Complaint(
            f"{METRICS_UNIT} has failed, and Prometheus gets no metrics of the queen: {reason_of(state)}",
            hint=where_to_look(METRICS_UNIT, state),
        )


def complain_of_restarts(program: Program, service: UnitState) -> Complaint:
    """A service that fails at each start. It is 'activating', and never 'failed', while systemd tries on."""
    count = (
        f" again and again, {service.restarts} time{'s' if service.restarts != 1 else ''} so far"
        if service.restarts
        else ""
    )
    return Complaint(
        f"{program.service} fails and is restarted{count}: {reason_of(service)}",
        hint=where_to_look(program.service, service),
    )


def where_to_look(unit: str, state: UnitState) -> str:
    return cure_for_exit(state.exit_status, unit) or f"sudo journalctl -u {unit} -e"


def complain_of_join(state: UnitState) -> Iterator[Complaint]:
    """An invitation that was left, and came to nothing; the hive is what it was before."""
    if state.active == "failed":
        told = said_by(state)[0] or reason_of(state)
        yield Complaint(
            f"{JOIN_UNIT} has failed: {told}",
            (("systemctl", "reset-failed", JOIN_UNIT),),
            hint="To join a queen: sudo rbeectl join QUEEN:8500 --token TOKEN",
        )


def reason_of(state: UnitState) -> str:
    """Why a unit failed: systemd's Result, explained."""
    if state.result == "exit-code":
        return f"it ended with {describe_exit(state.exit_status)}"
    if state.result in ("signal", "core-dump"):
        return f"it was ended by signal {state.exit_status}"
    last = f"; at last it ended with {state.end}" if state.end else ""
    if state.result in ("", "success"):
        return f"its last run is over{last}"
    return _RESULTS.get(state.result, f"its result is '{state.result}'") + last


_RESULTS = {
    "start-limit-hit": "it was started too often in a row (start-limit-hit)",
    "service-start-limit-hit": "its service was woken again and again and could not start"
    " (service-start-limit-hit)",
    "trigger-limit-hit": "its service was woken too often in a short time (trigger-limit-hit)",
    "timeout": "it did not start or stop in time (timeout)",
    "watchdog": "it was stuck, and the watchdog ended it (watchdog)",
    "oom-kill": "the machine ran out of memory (oom-kill)",
    "resources": "systemd could not set up what it needs, such as its socket's file (resources)",
    "protocol": "it did not say that it was ready (protocol)",
}


# The sockets' files


def check_sockets(patient: Patient) -> Iterator[Complaint]:
    if not patient.programs:
        return
    listening = [] if patient.bus is None else _listening_units(patient.bus, patient.programs)
    place = patient.root / "run/rbee"
    if not place.is_dir():
        make: list[Command] = [("systemd-tmpfiles", "--create", "rbee.conf")]
        yield Complaint(
            "/run/rbee is gone, and with it the sockets by which queen and hive are reached",
            (*make, *([RESTART] if listening else [])),
        )
        return
    found = place.stat()
    if (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (0, 0, 0o755):
        yield Complaint(
            f"/run/rbee should be root's with mode 0755, and is {_looks(found)}",
            (("systemd-tmpfiles", "--create", "rbee.conf"),),
        )
    if patient.bus is None:
        yield _NO_BUS
        return
    if patient.is_installed(QUEEN) and (closed := closed_tcp(patient.bus, patient.root)):
        yield Complaint(closed.message, hint="; ".join(closed.hint.splitlines()))
    heard = _listening_paths(patient.root)
    for program in listening:
        yield from complain_of_socket(
            program.socket, program.path, patient.root, patient.bus.socket_access(program.socket), heard
        )


def _listening_units(bus: Bus, programs: Sequence[Program]) -> list[Program]:
    states = {program: bus.state(program.socket) for program in programs}
    return [program for program, state in states.items() if state.load == "loaded" and state.is_active]


def complain_of_socket(
    unit: str, path: Path, root: Path, access: tuple[str, str, int], heard: set[str] | None
) -> Iterator[Complaint]:
    """What is wrong with the file of a socket whose unit is active.

    Connecting would tell more, and would wake the queen.
    """
    try:
        found = (root / path.relative_to("/")).lstat()
    except FileNotFoundError:
        yield Complaint(f"systemd listens on {path}, and somebody deleted that file", (RESTART,))
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Complaint(f"{path} is no socket", (("rm", "-r", str(path)), RESTART))
        return
    if heard is not None and str(path) not in heard:
        yield Complaint(f"nobody listens on {path}, though systemd takes {unit} for active", (RESTART,))
        return
    user, group, mode = access
    wanted = f"{user or 'root'}:{group or 'root'}"
    if f"{_user(found.st_uid)}:{_group(found.st_gid)}" != wanted:
        yield Complaint(
            f"{path} should belong to {wanted}, and is {_looks(found)}", (("chown", wanted, str(path)),)
        )
    if stat.S_IMODE(found.st_mode) != mode:
        yield Complaint(
            f"{path} should have mode {mode:04o}, and is {_looks(found)}",
            (("chmod", f"{mode:04o}", str(path)),),
        )


def _listening_paths(root: Path) -> set[str] | None:
    """The paths that Unix sockets listen on, by /proc/net/unix; None where it cannot be read.

    A line is number, references, protocol, flags, type, state, inode, path; the flag 0x10000
    stands for listen(2) (__SO_ACCEPTCON).
    """
    try:
        lines = (root / "proc/net/unix").read_text(errors="replace").splitlines()[1:]
    except OSError:
        return None
    found = [line.split(maxsplit=7) for line in lines]
    return {words[7] for words in found if len(words) == 8 and int(words[3], 16) & 0x10000}


def _looks(found: os.stat_result) -> str:
    return f"{_user(found.st_uid)}:{_group(found.st_gid)} with mode {stat.S_IMODE(found.st_mode):04o}"


def _user(uid: int) -> str:
    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return str(uid)


def _group(gid: int) -> str:
    try:
        return grp.getgrgid(gid).gr_name
    except KeyError:
        return str(gid)


# The configuration


def check_configuration(patient: Patient) -> Iterator[Complaint]:
    try:
        settings = config.load(patient.root)
    except BadConfig as error:
        yield Complaint(error.message, hint=error.hint)
        return
    for warning in settings.warnings:
        yield Complaint(warning, is_fault=False)
    yield from complain_of_id(patient, settings.hive.id)


def complain_of_id(patient: Patient, hive_id: str) -> Iterator[Complaint]:
    """A name for the local hive that its queen does not know. Of one that has joined it does not count."""
    is_both = patient.is_installed(QUEEN) and patient.is_installed(HIVE)
    if not is_both or hive_id == LOCALHOST:
        return
    place = config.where_set("Hive", "Id", patient.root)
    yield Complaint(
        f"the hive on this machine calls itself {hive_id}, by [Hive] Id= in {place}: its queen knows it as "
        f"{LOCALHOST} only, and takes no heartbeat of it",
        hint=f"Delete the line Id={hive_id} in {place}; then: sudo systemctl restart {HIVE_UNIT}",
    )


# One queen, who is on this machine or on another


def check_queens(patient: Patient) -> Iterator[Complaint]:
    if patient.bus is None:
        yield _NO_BUS
        return
    if not (patient.is_installed(QUEEN) and patient.is_installed(HIVE)):
        return
    remote = remote_queen(patient.bus.state(HIVE_UNIT), patient.root)
    if remote is not None:
        yield complain_of_two_queens(remote, patient.root, is_root=patient.is_root)


def complain_of_two_queens(remote: RemoteQueen, root: Path, *, is_root: bool) -> Complaint:
    """A machine with a queen whose hive has joined another: no queen gets its heartbeats.

    It is mended where somebody has added localhost to the queen here, who is the one that is wanted then.
    Nothing is lost: what it has joined is put aside.
    """
    text = f"this machine has a queen of its own, and its hive is {remote}: neither gets its heartbeats"
    leave = "To leave the hive with the other queen: sudo apt remove rbee-queen"
    there = [name for name in MEMBERSHIPS if (root / FOLDER / name).exists()] if is_root else []
    put_aside: tuple[Command, ...] = tuple(
        ("runuser", "-u", HIVE.user, "--", "mv", "-T", f"/{FOLDER}/{name}", f"/{FOLDER}/{name}.aside")
        for name in there
    )
    if put_aside and _is_wanted(root):
        return Complaint(text, (*put_aside, ("systemctl", "try-restart", HIVE_UNIT)), hint=leave)
    return Complaint(
        text,
        hint=f"{leave}\nTo make it the hive of the queen here: rbeectl add-hive {LOCALHOST}; "
        "sudo rbeectl doctor --fix",
    )


def _is_wanted(root: Path) -> bool:
    """Has somebody added this machine to the queen here?"""
    try:
        catalog = _catalog(root)
        return catalog.exists() and catalogfile.has_hive(catalog, LOCALHOST)
    except (BadConfig, sqlite3.Error):
        return False


# The catalog, which root alone may look at


def check_catalog(patient: Patient) -> Iterator[Complaint]:
    if not patient.is_installed(QUEEN):
        return
    if not patient.is_root:
        yield Complaint(
            "the catalog is not looked at: that takes root", hint="sudo rbeectl doctor", is_fault=False
        )
        return
    directory, catalog = patient.root / STATE_DIRECTORY, patient.root / STATE_DIRECTORY / "catalog.db"
    try:
        database = config.load(patient.root).queen.database
    except BadConfig:
        database = None
    if database is not None:
        catalog = patient.root / database.relative_to("/")
    elif has_user(QUEEN.user):
        yield from complain_of_directory(directory, patient.root)
    files = [path for path in (catalog, *_beside(catalog)) if path.is_file() or path.is_symlink()]
    for path in files:
        yield from complain_of_owner(path, patient.root)
    yield from complain_of_room(catalog.parent, patient.root)
    yield from complain_of_lock(files, patient.root)
    yield from complain_of_content(catalog, patient.root)


def complain_of_content(catalog: Path, root: Path) -> Iterator[Complaint]:
    """Damage, another program's file, a newer version: what a queen who starts would refuse."""
    try:
        if os.path.lexists(catalog):
            # SQLite makes files beside a catalog that has a log.
            with as_owner_of(catalog.parent):
                if not os.access(catalog, os.R_OK, effective_ids=True):
                    return  # whose it is has been told
                catalogfile.check(catalog, name=Path(_shown(catalog, root)), way_out=catalogfile.WAY_OUT)
    except CatalogUnusable as error:
        yield Complaint(error.message, hint="; ".join((error.hint or "").splitlines()) or None)
    except (sqlite3.Error, OSError) as error:
        yield Complaint(f"{_shown(catalog, root)} could not be read: {error}", is_fault=False)


def _beside(catalog: Path) -> tuple[Path, Path]:
    return Path(f"{catalog}-wal"), Path(f"{catalog}-shm")


def complain_of_directory(directory: Path, root: Path) -> Iterator[Complaint]:
    if not directory.is_dir():
        return  # StateDirectory= makes it
    found, shown = directory.stat(), _shown(directory, root)
    if f"{_user(found.st_uid)}:{_group(found.st_gid)}" != _OWNER:
        yield Complaint(
            f"{shown} should belong to {_OWNER}, and is {_looks(found)}", (("chown", _OWNER, shown),)
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        yield Complaint(f"{shown} should have mode 0700, and is {_looks(found)}", (("chmod", "0700", shown),))


def complain_of_owner(path: Path, root: Path) -> Iterator[Complaint]:
    """A file of the catalog that its queen cannot write, such as a copy that root put there."""
    found, shown = path.lstat(), _shown(path, root)
    if stat.S_ISLNK(found.st_mode):
        yield Complaint(f"{shown} is a symbolic link, and is left alone", hint=f"ls -l {shown}")
        return
    if _user(found.st_uid) != QUEEN.user and found.st_nlink > 1:
        yield Complaint(
            f"{shown} belongs to {_user(found.st_uid)}, has a name elsewhere, too, and is left alone",
            hint=f"sudo find / -xdev -samefile {shown}",
        )
        return
    if _user(found.st_uid) != QUEEN.user:
        # The directory is the queen's: what she can put in place of the file must not become hers.
        yield Complaint(
            f"{shown} should belong to {_OWNER}, and is {_looks(found)}",
            (("chown", "--no-dereference", _OWNER, shown),),
        )
    if found.st_mode & 0o600 != 0o600:
        # By herself, as chmod(1) follows a link that she puts there meanwhile.
        mend = (*_AS_QUEEN, "chmod", "u+rw", shown)
        yield Complaint(f"{shown} should have mode 0600, and is {_looks(found)}", (mend,))


def complain_of_room(directory: Path, root: Path) -> Iterator[Complaint]:
    while not directory.is_dir() and directory != root:
        directory = directory.parent
    shown, found = _shown(directory, root), os.statvfs(directory)
    if found.f_flag & os.ST_RDONLY:
        yield Complaint(
            f"the file system of {shown} is read-only, and nothing can be written to the catalog",
            # findmnt knows of a bind mount, too, which looks like its surroundings to stat(2).
            hint="Find out why (sudo dmesg), then: "
            f"sudo mount -o remount,rw $(findmnt -n -o TARGET -T {shlex.quote(shown)})",
        )
    elif found.f_bavail * found.f_frsize < ROOM or (found.f_files and not found.f_favail):
        yield Complaint(
            f"the file system of {shown} is full, and nothing can be written to the catalog",
            hint=f"Make room: df -h {shown}; df -i {shown}",
        )


def complain_of_lock(files: Sequence[Path], root: Path) -> Iterator[Complaint]:
    holders = writers(files, root)
    if holders:
        # Nothing tells when somebody else's lock is let go of.
        time.sleep(LOCK_PATIENCE)
        holders &= writers(files, root)
    for pid in sorted(holders):
        status = _text(root / "proc" / str(pid) / "status")
        is_stopped = "\nState:\tT" in status or "\nState:\tt" in status
        command = _text(root / "proc" / str(pid) / "cmdline").replace("\0", " ").strip()[:100]
        yield Complaint(
            f"process {pid} ({command or 'unknown'}) holds a lock on the catalog, and as long as it does"
            " the queen cannot write; ended, it loses only what it has not committed",
            # SQLite rolls back what it left half-done, however it ends. SIGTERM does not end who is stopped.
            (("kill", *(["-KILL"] if is_stopped else []), str(pid)),),
        )


def writers(files: Sequence[Path], root: Path) -> set[int]:
    """The processes but the queen's that hold a lock to write on one of these files.

    By /proc/PID/fdinfo, not /proc/locks: on overlayfs and btrfs that one shows other device
    numbers than stat(2).
    """
    inodes = {(found.st_dev, found.st_ino) for found in map(os.lstat, files)}
    pids = set()
    for process in (root / "proc").glob("[0-9]*"):
        try:
            if f"/{QUEEN_UNIT}" not in (process / "cgroup").read_text() and _has_write_lock(process, inodes):
                pids.add(int(process.name))
        except OSError:
            continue  # it ended while we looked
    return pids - {os.getpid()}


def _has_write_lock(process: Path, inodes: set[tuple[int, int]]) -> bool:
    for link in (process / "fd").iterdir():
        try:
            found = link.stat()
        except OSError:
            continue
        if (found.st_dev, found.st_ino) in inodes:
            lines = (process / "fdinfo" / link.name).read_text().splitlines()
            if any(line.startswith("lock:") and " WRITE " in line for line in lines):
                return True
    return False


def _text(path: Path) -> str:
    try:
        return path.read_text(errors="replace")
    except OSError:
        return ""


def _shown(path: Path, root: Path) -> str:
    return f"/{path.relative_to(root)}"


# Keys and certificates, which root alone may look at


def check_keys(patient: Patient) -> Iterator[Complaint]:
    if not patient.is_root:
        if patient.programs:
            yield Complaint(
                "the keys are not looked at: that takes root", hint="sudo rbeectl doctor", is_fault=False
            )
        return
    yield from complain_of_queens_keys(patient.root)
    yield from complain_of_membership(patient.root / MEMBERSHIP)


def complain_of_queens_keys(root: Path) -> Iterator[Complaint]:
    """A CA that was made while the clock was ahead: the queen runs on, and nobody can join."""
    given = root / CREDENTIALS / "rbee.ca.crt"
    ca = given if given.exists() else root / KEYS / "ca.crt"
    if (fault := _fault_of(ca)) is not None:
        yield _of_ca(fault, root, is_given=ca == given)
    elif (fault := _fault_of(root / KEYS / "queen.crt")) is not None:
        yield Complaint(
            f"the queen's certificate {fault}; she makes another when she starts",
            (("systemctl", "try-restart", QUEEN_UNIT),),
        )


def _of_ca(fault: str, root: Path, *, is_given: bool) -> Complaint:
    told = f"the certificate of the queen's CA {fault}; until then no hive can join her or connect"
    if is_given:
        return Complaint(told, hint="It is the administrator's own: man queen-rbee.service, KEYS")
    make_anew: tuple[Command, ...] = (
        ("rm", "-r", f"/{KEYS}"),
        ("systemctl", "try-restart", QUEEN_UNIT),
    )
    members = _members(root)
    if members == 0:
        return Complaint(f"{told}. Nobody has joined: new keys cost the tokens that were made", make_anew)
    if members is None:
        joined = "it is not known which hives have joined"
    else:
        joined = "1 has joined" if members == 1 else f"{members} have joined"
    commands = "; ".join(f"sudo {' '.join(command)}" for command in make_anew)
    return Complaint(
        f"{told}. Of its hives {joined}, and with new keys each has to join again",
        hint=f"Set the clock right (timedatectl), or: {commands}; then on each hive: "
        "sudo rbeectl join QUEEN:8500 --token TOKEN",
    )


def complain_of_membership(membership: Path) -> Iterator[Complaint]:
    if (fault := _fault_of(membership)) is not None:
        yield Complaint(
            f"the certificate of this hive {fault}: its queen does not take it",
            hint="Set the clock right (timedatectl); or, when the queen's is: "
            "sudo rbeectl join QUEEN:8500 --token TOKEN",
        )


def _fault_of(path: Path) -> str | None:
    """Of a certificate, below whatever else is in its file; what cannot be read is not judged here."""
    try:
        content = read_regular(path, KEYS_LIMIT).decode()
    except (OSError, ValueError):
        return None
    from rbee import tls  # with cryptography, which no other check needs

    try:
        # Not in a line: a membership's first has the CA's, too.
        return tls.fault_of(content[f"\n{content}".index("\n-----BEGIN CERTIFICATE") :])
    except ValueError:
        return None


def _members(root: Path) -> int | None:
    """How many hives have joined with these keys; None where the catalog does not tell."""
    try:
        catalog = _catalog(root)
        if not catalog.exists():
            return 0
        with as_owner_of(catalog.parent):
            return catalogfile.members(catalog)
    except (BadConfig, sqlite3.Error, OSError):
        return None


def _catalog(root: Path) -> Path:
    database = config.load(root).queen.database
    return root / (STATE_DIRECTORY / "catalog.db" if database is None else database.relative_to("/"))


_OWNER = f"{QUEEN.user}:{QUEEN.user}"
_AS_QUEEN = ("setpriv", f"--reuid={QUEEN.user}", f"--regid={QUEEN.user}", "--clear-groups", "--")
_NO_BUS = Complaint("not looked at: the system bus does not answer", is_fault=False)


# A hive alone, and its queen


def check_link(patient: Patient) -> Iterator[Complaint]:
    """Of a hive whose queen is on another machine: are they connected?"""
    if patient.bus is None:
        yield _NO_BUS
        return
    lone = LoneHive.find(patient.bus)
    if lone.is_connected or lone.hive.load != "loaded" or lone.hive.active == "failed":
        return  # what is wrong with the unit is said of the unit
    yield Complaint(
        f"this hive {lone.describe()}",
        hint="; ".join((lone.hint() or "").splitlines()) or None,
        # One who waits, or was never asked to join, is as somebody wanted it.
        is_fault=lone.hive.is_active and lone.link is not None,
    )


def is_of_use(check: str, patient: Patient) -> bool:
    """Has this machine what the check of that name looks at? The catalog is the queen's."""
    if check == "catalog":
        return patient.is_installed(QUEEN)
    if check == "link":
        return patient.is_installed(HIVE) and not patient.is_installed(QUEEN)
    return True


Check = Callable[[Patient], Iterator[Complaint]]

CHECKS: tuple[tuple[str, str, Check], ...] = (
    ("polkit", "polkit answers", check_polkit),
    ("group", "users and groups are as they should be", check_group),
    ("units", "the units are there, and none has failed", check_units),
    ("sockets", "what should listen listens", check_sockets),
    ("configuration", "the configuration can be used", check_configuration),
    ("queens", "the hive of this machine has one queen", check_queens),
    ("catalog", "the queen can write her catalog", check_catalog),
    ("keys", "keys and certificates are valid by this clock", check_keys),
    ("link", "this hive is connected to its queen", check_link),
)
"""Name, what is true if all is well, and who looks; after the bus, in an order in which no check is blamed
for what an earlier one found."""
