"""The sockets' files, and whether a process listens on them."""

from __future__ import annotations

import stat
from collections.abc import Iterator, Sequence
from pathlib import Path

from rbee.keeper.doctor.check import Command, Complaint, no_bus, restart
from rbee.keeper.doctor.owners import access_of, group_name, user_name
from rbee.keeper.doctor.patient import Patient, Program
from rbee.keeper.listener import closed_tcp
from rbee.scope import SYSTEM, Scope
from rbee.systemd.bus import Bus


def check_sockets(patient: Patient) -> Iterator[Complaint]:
    """The folder of the sockets, each socket's file, and the queen's TCP port."""
    if not patient.programs:
        return
    listening = [] if patient.bus is None else _listening_units(patient.bus, patient.programs)
    scope = patient.scope
    folder = patient.root / scope.runtime.relative_to("/")
    make: Command = scope.command("systemd-tmpfiles", "--create", "rbee.conf")
    if not folder.is_dir():
        yield Complaint(
            f"{scope.runtime} is gone, and with it the sockets by which queen and hive are reached",
            (make, *([restart(scope)] if listening else [])),
        )
        return
    found = folder.stat()
    if scope.kind == "system" and (found.st_uid, found.st_gid, stat.S_IMODE(found.st_mode)) != (0, 0, 0o755):
        yield Complaint(
            f"{scope.runtime} should be root's with mode 0755, and is {access_of(found)}", (make,)
        )
    if patient.bus is None:
        yield no_bus(patient.scope)
        return
    if patient.is_installed(patient.queen) and (closed := closed_tcp(patient.bus, patient.root)):
        yield Complaint(closed.message, hint="; ".join(closed.hint.splitlines()))
    listened = listening_paths(patient.root)
    for program in listening:
        yield from complain_of_socket(
            program.socket,
            program.path,
            patient.root,
            patient.bus.socket_access(program.socket),
            listened,
            scope,
        )


def _listening_units(bus: Bus, programs: Sequence[Program]) -> list[Program]:
    states = {program: bus.state(program.socket) for program in programs}
    return [program for program, state in states.items() if state.load == "loaded" and state.is_active]


def complain_of_socket(
    unit: str,
    path: Path,
    root: Path,
    access: tuple[str, str, int],
    listened: set[str] | None,
    scope: Scope = SYSTEM,
    *,
    cure: Command | None = None,
) -> Iterator[Complaint]:
    """What is wrong with the file of a socket whose unit is active. Connecting would wake the service.

    `access` is user, group and mode; `listened` are the paths that are listened on, None if unknown; `cure`
    makes the socket anew, which is otherwise a restart of all.
    """
    cure = cure or restart(scope)
    try:
        found = (root / path.relative_to("/")).lstat()
    except FileNotFoundError:
        yield Complaint(f"systemd listens on {path}, and somebody deleted that file", (cure,))
        return
    if not stat.S_ISSOCK(found.st_mode):
        yield Complaint(f"{path} is not a socket", (("rm", "-r", str(path)), cure))
        return
    if listened is not None and str(path) not in listened:
        yield Complaint(f"nobody listens on {path}, although systemd shows {unit} as active", (cure,))
        return
    user, group, mode = access
    owner = f"{user or 'root'}:{group or 'root'}"
    if f"{user_name(found.st_uid)}:{group_name(found.st_gid)}" != owner:
        yield Complaint(
            f"{path} should belong to {owner}, and is {access_of(found)}", (("chown", owner, str(path)),)
        )
    if stat.S_IMODE(found.st_mode) != mode:
        yield Complaint(
            f"{path} should have mode {mode:04o}, and is {access_of(found)}",
            (("chmod", f"{mode:04o}", str(path)),),
        )


def listening_paths(root: Path) -> set[str] | None:
    """Return the paths that Unix sockets listen on, by /proc/net/unix; None where it cannot be read.

    A line is number, references, protocol, flags, type, state, inode, path; the flag 0x10000
    stands for listen(2) (__SO_ACCEPTCON).
    """
    try:
        lines = (root / "proc/net/unix").read_text(errors="replace").splitlines()[1:]
    except OSError:
        return None
    rows = [line.split(maxsplit=7) for line in lines]
    return {row[7] for row in rows if len(row) == 8 and int(row[3], 16) & 0x10000}
