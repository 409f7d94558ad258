"""The catalog's files, their file system, and who holds a lock."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace

import pytest

import rbee.keeper.doctor.catalog
from rbee.keeper.doctor.catalog import (
    check_catalog,
    complain_of_directory,
    complain_of_lock,
    complain_of_owner,
    complain_of_room,
)
from tests.unit.keeper.doctor.doubles import asked

AS_QUEEN = ("setpriv", "--reuid=queen-rbee", "--regid=queen-rbee", "--clear-groups", "--")

WRITE = "lock:\t1: POSIX  ADVISORY  WRITE 12 00:28:82 120 120\n"

READ = "lock:\t1: POSIX  ADVISORY  READ 12 00:28:82 124 124\n"


def process(
    root: Path, pid: int, path: Path, lock: str, *, cgroup: str = "user.slice", state: str = "S"
) -> None:
    """A process that has the file open, as /proc shows it."""
    place = root / f"proc/{pid}"
    for folder in ("fd", "fdinfo"):
        (place / folder).mkdir(parents=True, exist_ok=True)
    (place / "fd/3").symlink_to(path)
    (place / "fdinfo/3").write_text(f"pos:\t0\n{lock}")
    (place / "cgroup").write_text(f"0::/{cgroup}\n")
    (place / "status").write_text(f"Name:\tsqlite3\nState:\t{state} (so)\n")
    (place / "cmdline").write_text("sqlite3\0catalog.db\0")


def test_the_catalog_is_root_s_to_look_at(root: Path) -> None:
    (note,) = asked(check_catalog, None, root)

    assert (note.is_fault, note.hint) == (False, "sudo rbeectl doctor")


def test_a_catalog_that_is_not_the_queen_s_is_given_to_her_and_a_link_is_left_alone(root: Path) -> None:
    directory = root / "var/lib/queen-rbee"
    directory.mkdir(parents=True, mode=0o755)
    directory.chmod(0o755)
    assert [c.cures for c in complain_of_directory(directory, root)] == [
        (("chown", "queen-rbee:queen-rbee", "/var/lib/queen-rbee"),),
        (("chmod", "0700", "/var/lib/queen-rbee"),),
    ]
    catalog = directory / "catalog.db"
    catalog.touch()
    catalog.chmod(0o400)
    assert [c.cures for c in complain_of_owner(catalog, root)] == [
        (("chown", "--no-dereference", "queen-rbee:queen-rbee", "/var/lib/queen-rbee/catalog.db"),),
        ((*AS_QUEEN, "chmod", "u+rw", "/var/lib/queen-rbee/catalog.db"),),
    ]
    # What she can link to, and may not have.
    other = root / "other"
    os.link(catalog, other)
    (complaint,) = complain_of_owner(catalog, root)
    assert complaint.cures == ()
    assert "has another name as well, and is left alone" in complaint.text
    catalog.unlink()
    catalog.symlink_to("/etc/shadow")
    (complaint,) = complain_of_owner(catalog, root)
    assert complaint.cures == ()


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"f_bavail": 1}, "is full"),
        ({"f_favail": 0}, "is full"),
        ({"f_flag": os.ST_RDONLY}, "is read-only"),
        ({}, None),
        ({"f_files": 0, "f_favail": 0}, None),  # btrfs does not count inodes
    ],
)
def test_a_file_system_without_room_is_explained(
    root: Path, monkeypatch: pytest.MonkeyPatch, changed: dict[str, int], said: str | None
) -> None:
    @dataclass
    class Room:
        f_flag: int = 0
        f_bavail: int = 1_000_000
        f_frsize: int = 4096
        f_files: int = 1000
        f_favail: int = 900

    monkeypatch.setattr(os, "statvfs", lambda path: Room(**changed))

    complaints = list(complain_of_room(root / "var/lib/queen-rbee", root))

    assert [complaint.cures for complaint in complaints] == ([()] if said else [])
    assert said is None or said in complaints[0].text


def test_a_file_system_that_is_read_only_is_asked_for_by_findmnt_which_knows_bind_mounts(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = root / "var/lib/queen-rbee"
    folder.mkdir(parents=True, exist_ok=True)
    monkeypatch.setattr(os, "statvfs", lambda path: SimpleNamespace(f_flag=os.ST_RDONLY))

    (complaint,) = complain_of_room(folder, root)

    assert complaint.hint is not None
    assert complaint.hint.endswith(
        ": sudo mount -o remount,rw $(findmnt -n -o TARGET -T /var/lib/queen-rbee)"
    )


def test_who_holds_a_lock_to_write_is_ended_and_nobody_else(
    root: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.doctor.catalog, "LOCK_PATIENCE", 0.01)
    shm, other = root / "catalog.db-shm", root / "other"
    shm.touch()
    other.touch()
    process(root, 12, shm, WRITE)
    process(root, 13, shm, READ)
    process(root, 14, other, WRITE)
    process(root, 15, shm, WRITE, cgroup="rbee.slice/queen-rbee.service")
    process(root, 16, shm, WRITE, state="T")
    (root / "proc/17").mkdir()  # gone while we look

    hung, stopped = complain_of_lock([shm], root)

    assert "process 12 (sqlite3 catalog.db) holds a lock" in hung.text
    assert hung.cures == (("kill", "12"),)
    assert stopped.cures == (("kill", "-KILL", "16"),)


def test_a_lock_that_is_let_go_of_is_nobody_s_fault(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shm = root / "catalog.db-shm"
    shm.touch()
    process(root, 12, shm, WRITE)
    monkeypatch.setattr(
        rbee.keeper.doctor.catalog.time,
        "sleep",
        lambda seconds: (root / "proc/12/fdinfo/3").write_text("pos:\t0\n"),
    )

    assert list(complain_of_lock([shm], root)) == []
