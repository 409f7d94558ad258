"""The queen's catalog, which only root may read: can the queen write to it?"""

from __future__ import annotations

import os
import sqlite3
import stat
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from rbee import catalogfile, config
from rbee.errors import BadConfig, CatalogUnusable
from rbee.files import as_owner_of, remount
from rbee.keeper.doctor.check import Complaint
from rbee.keeper.doctor.owners import access_of, group_name, has_user, user_name
from rbee.keeper.doctor.patient import Patient
from rbee.scope import QUEEN_UNIT, SYSTEM, Scope

LOCK_PATIENCE = 2.0
"""Seconds after which a lock that is still held is a problem.

A backup or a query holds a write lock for milliseconds, and the queen waits 5 s.
"""

ROOM = 1024 * 1024
"""Bytes that have to be free on the catalog's file system: a few transactions."""


def check_catalog(patient: Patient) -> Iterator[Complaint]:
    """Owners and modes of the files, free space, locks of other processes, and the content."""
    root, scope = patient.root, patient.scope
    if not patient.is_root:
        yield Complaint(
            "the catalog is not checked: only root may read it", hint=scope.doctor, is_fault=False
        )
        return
    catalog = root / scope.catalog.relative_to("/")
    directory = catalog.parent
    try:
        database = config.load(root, scope).queen.database
    except BadConfig:
        database = None
    if database is not None:
        catalog = root / database.relative_to("/")
    elif has_user(scope.queen_user):
        yield from complain_of_directory(directory, root, scope)
    files = [path for path in (catalog, *_beside(catalog)) if path.is_file() or path.is_symlink()]
    for path in files:
        yield from complain_of_owner(path, root, scope)
    yield from complain_of_room(catalog.parent, root)
    yield from complain_of_lock(files, root)
    yield from complain_of_content(catalog, root, scope)


def catalog_path(root: Path, scope: Scope) -> Path:
    """The catalog's path below `root`; BadConfig if rbee.conf cannot be used."""
    return root / (config.load(root, scope).queen.database or scope.catalog).relative_to("/")


def complain_of_content(catalog: Path, root: Path, scope: Scope) -> Iterator[Complaint]:
    """Damage, another program's file, a newer version: what keeps a queen from starting."""
    try:
        if os.path.lexists(catalog):
            # SQLite makes files beside a catalog that has a log.
            with as_owner_of(catalog.parent):
                if not os.access(catalog, os.R_OK, effective_ids=True):
                    return  # complain_of_owner() has reported it
                shown, way_out = Path(_shown(catalog, root)), catalogfile.way_out(scope)
                catalogfile.check(catalog, name=shown, way_out=way_out, scope=scope)
    except CatalogUnusable as error:
        yield Complaint(error.message, hint="; ".join((error.hint or "").splitlines()) or None)
    except (sqlite3.Error, OSError) as error:
        yield Complaint(f"{_shown(catalog, root)} could not be read: {error}", is_fault=False)


def _beside(catalog: Path) -> tuple[Path, Path]:
    return Path(f"{catalog}-wal"), Path(f"{catalog}-shm")


def complain_of_directory(directory: Path, root: Path, scope: Scope = SYSTEM) -> Iterator[Complaint]:
    """Another owner or mode of the queen's state directory."""
    if not directory.is_dir():
        return  # StateDirectory= makes it
    found, shown, owner = directory.stat(), _shown(directory, root), _owner(scope)
    if f"{user_name(found.st_uid)}:{group_name(found.st_gid)}" != owner:
        yield Complaint(
            f"{shown} should belong to {owner}, and is {access_of(found)}", (("chown", owner, shown),)
        )
    if stat.S_IMODE(found.st_mode) != 0o700:
        yield Complaint(
            f"{shown} should have mode 0700, and is {access_of(found)}", (("chmod", "0700", shown),)
        )


def complain_of_owner(path: Path, root: Path, scope: Scope = SYSTEM) -> Iterator[Complaint]:
    """A file of the catalog that the queen cannot write, such as a copy that root put there."""
    found, shown, user = path.lstat(), _shown(path, root), scope.queen_user
    if stat.S_ISLNK(found.st_mode):
        yield Complaint(f"{shown} is a symbolic link, and is left alone", hint=f"ls -l {shown}")
        return
    if user_name(found.st_uid) != user and found.st_nlink > 1:
        yield Complaint(
            f"{shown} belongs to {user_name(found.st_uid)}, has another name as well, and is left alone",
            hint=scope.as_root(f"find / -xdev -samefile {shown}"),
        )
        return
    if user_name(found.st_uid) != user:
        # The directory is the queen's: what it can put in place of the file must not become its own.
        yield Complaint(
            f"{shown} should belong to {_owner(scope)}, and is {access_of(found)}",
            (("chown", "--no-dereference", _owner(scope), shown),),
        )
    if found.st_mode & 0o600 != 0o600:
        # As the queen's user, because chmod(1) follows a link that could be put there meanwhile.
        as_queen = ("setpriv", f"--reuid={user}", f"--regid={user}", "--clear-groups", "--")
        mend = (*as_queen, "chmod", "u+rw", shown)
        yield Complaint(f"{shown} should have mode 0600, and is {access_of(found)}", (mend,))


def _owner(scope: Scope) -> str:
    return f"{scope.queen_user}:{scope.queen_user}"


def complain_of_room(directory: Path, root: Path) -> Iterator[Complaint]:
    """A file system that is read-only or full."""
    while not directory.is_dir() and directory != root:
        directory = directory.parent
    shown, found = _shown(directory, root), os.statvfs(directory)
    if found.f_flag & os.ST_RDONLY:
        yield Complaint(
            f"the file system of {shown} is read-only, and nothing can be written to the catalog",
            hint=f"Find out why (sudo dmesg), then: {remount(shown)}",
        )
    elif found.f_bavail * found.f_frsize < ROOM or (found.f_files and not found.f_favail):
        yield Complaint(
            f"the file system of {shown} is full, and nothing can be written to the catalog",
            hint=f"Make room: df -h {shown}; df -i {shown}",
        )


def complain_of_lock(files: Sequence[Path], root: Path) -> Iterator[Complaint]:
    """A process other than the queen that keeps the catalog locked for LOCK_PATIENCE."""
    holders = writers(files, root)
    if holders:
        # No signal comes when another process releases its lock.
        time.sleep(LOCK_PATIENCE)
        holders &= writers(files, root)
    for pid in sorted(holders):
        status = _text(root / "proc" / str(pid) / "status")
        is_stopped = "\nState:\tT" in status or "\nState:\tt" in status
        command = _text(root / "proc" / str(pid) / "cmdline").replace("\0", " ").strip()[:100]
        yield Complaint(
            f"process {pid} ({command or 'unknown'}) holds a lock on the catalog, and until it is released"
            " the queen cannot write; ending the process loses only what it has not committed",
            # SQLite rolls back an unfinished transaction. SIGTERM does not end a process that is stopped.
            (("kill", *(["-KILL"] if is_stopped else []), str(pid)),),
        )


def writers(files: Sequence[Path], root: Path) -> set[int]:
    """The pids of processes other than the queen's that hold a write lock on one of these files.

    From /proc/PID/fdinfo, not /proc/locks: on overlayfs and btrfs the latter has other device
    numbers than stat(2).
    """
    inodes = {(found.st_dev, found.st_ino) for found in map(os.lstat, files)}
    pids = set()
    for process in (root / "proc").glob("[0-9]*"):
        try:
            if f"/{QUEEN_UNIT}" not in (process / "cgroup").read_text() and _has_write_lock(process, inodes):
                pids.add(int(process.name))
        except OSError:
            continue  # it has ended meanwhile
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
