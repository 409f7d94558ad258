"""Files are whole or not there, and a refusal names the file, the reason and a cure."""

from __future__ import annotations

import errno
import os
import shutil
import stat
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

import rbee.files
from rbee.errors import BadConfig, NotPermitted, RbeeError
from rbee.files import (
    as_owner_of,
    explained,
    hand_to_owner_of,
    make_beside,
    read_regular,
    refused,
    sync_folder,
    temporary_folder,
    unforeseen,
    write_whole,
)


def failing(number: int) -> OSError:
    return OSError(number, os.strerror(number))


def test_a_file_takes_the_place_of_what_was_there_with_its_mode_and_leaves_nothing(tmp_path: Path) -> None:
    path = tmp_path / "key"
    before = os.umask(0)
    try:
        for content in (b"first", b"second"):
            # What a try that was cut off has left behind.
            (tmp_path / ".key.new").write_text("half")
            write_whole(path, content, mode=0o600)
            assert path.read_bytes() == content
            assert stat.S_IMODE(path.stat().st_mode) == 0o600
    finally:
        os.umask(before)
    assert os.listdir(tmp_path) == ["key"]


def test_what_a_killed_program_has_left_beside_a_file_is_removed_by_the_next(tmp_path: Path) -> None:
    path = tmp_path / "catalog.db"
    for name in (".catalog.db.abcdefgh.rbee-new", ".catalog.db.20260101", ".other.abcdefgh.rbee-new"):
        (tmp_path / name).touch()
        os.utime(tmp_path / name, (0, 0))
    (tmp_path / ".catalog.db.ijklmnop.rbee-new").touch()  # of one that runs

    number, beside = make_beside(path)
    os.close(number)

    assert stat.S_IMODE(beside.stat().st_mode) == 0o600
    assert sorted(set(os.listdir(tmp_path)) - {beside.name}) == [
        ".catalog.db.20260101", ".catalog.db.ijklmnop.rbee-new", ".other.abcdefgh.rbee-new",
    ]  # fmt: skip


def test_a_file_that_does_not_reach_the_disk_changes_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "key"
    write_whole(path, b"first", mode=0o600)

    def fail(descriptor: int) -> None:
        raise OSError("the disk is gone")

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="the disk is gone"):
        write_whole(path, b"second", mode=0o600)
    assert path.read_bytes() == b"first"
    assert os.listdir(tmp_path) == ["key"]


def test_a_folder_of_a_file_system_that_syncs_no_folders_is_no_failure() -> None:
    # The kernel's own folders are such: their file systems have no fsync(2) of one.
    number = os.open("/proc", os.O_RDONLY | os.O_DIRECTORY)
    try:
        with pytest.raises(OSError, match=os.strerror(errno.EINVAL)):
            os.fsync(number)
        sync_folder(number)
    finally:
        os.close(number)
    sync_folder(Path("/proc"))


def test_a_folder_that_the_disk_refuses_to_sync_is_a_failure(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def fail(descriptor: int) -> None:
        raise failing(errno.EIO)

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(OSError, match="Input/output error"):
        sync_folder(tmp_path)


@pytest.mark.parametrize(
    ("number", "kind", "said", "cure"),
    [
        (
            errno.EROFS,
            RbeeError,
            "Read-only file system",
            "sudo mount -o remount,rw $(findmnt -n -o TARGET -T {})",
        ),
        (errno.ENOSPC, RbeeError, "No space left on device", "df -h {}"),
        (errno.EDQUOT, RbeeError, "Disk quota exceeded", "df -h {}"),
        (errno.EIO, RbeeError, "Input/output error", "sudo dmesg --level=err,warn"),
        (errno.EMFILE, RbeeError, "Too many open files", "ulimit -n; cat /proc/sys/fs/file-nr"),
        (errno.EACCES, NotPermitted, "Permission denied", "ls -ld {}"),
    ],
)
def test_a_refusal_names_the_file_what_was_to_be_done_the_reason_and_a_command(
    tmp_path: Path, number: int, kind: type[RbeeError], said: str, cure: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: 1000)

    error = refused(failing(number), tmp_path / "a", "written")

    assert type(error) is kind
    assert error.message == f"{tmp_path}/a cannot be written: {said}"
    assert error.hint == cure.format(tmp_path)


@pytest.mark.parametrize(("uid", "by_root"), [(0, True), (1000, True), (1000, False)])
def test_a_folder_that_is_missing_is_made_by_the_command_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, uid: int, by_root: bool
) -> None:
    monkeypatch.setattr(os, "geteuid", lambda: uid)
    monkeypatch.setattr(os, "access", lambda path, mode: uid == 0 or not by_root)
    path = tmp_path / "a folder/b/file"

    with pytest.raises(RbeeError) as caught, explained(path, "written"):
        path.write_text("x")

    assert caught.value.hint == f"{'sudo ' if by_root else ''}mkdir -p '{tmp_path}/a folder/b'"


def test_what_nobody_explained_names_its_file_all_the_same(tmp_path: Path) -> None:
    with pytest.raises(OSError, match="a") as caught:
        (tmp_path / "a").read_text()

    error = unforeseen(caught.value)

    assert error.message == f"{tmp_path}/a: No such file or directory"
    assert "--debug" in (unforeseen(failing(errno.EMFILE)).hint or "")


def test_a_machine_without_a_place_for_temporary_files_is_told_which_and_why(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", None)
    monkeypatch.setattr(tempfile, "_candidate_tempdir_list", lambda: [str(tmp_path / "none")])
    monkeypatch.setenv("TMPDIR", str(tmp_path / "none"))

    with pytest.raises(BadConfig) as caught, temporary_folder("x-", BadConfig):
        pass

    assert caught.value.message == (
        f"there is no room for temporary files: {tmp_path}/none cannot be used: No such file or directory"
    )
    assert caught.value.hint == f"sudo install -d -m 1777 {tmp_path}/none"


def test_a_temporary_folder_is_gone_at_the_end() -> None:
    with temporary_folder("x-") as folder:
        (folder / "file").write_text("x")
    assert not folder.exists()


def test_a_disk_without_inodes_is_looked_at_for_inodes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Full:
        f_files, f_favail, f_bavail = 1000, 0, 1000

    monkeypatch.setattr(rbee.files.os, "statvfs", lambda path: Full)

    assert refused(failing(errno.ENOSPC), tmp_path / "a", "written").hint == f"df -i {tmp_path}"


# In a folder of somebody else

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="only root has rights to give up")

NOBODY = 65534


@pytest.fixture
def foreign() -> Iterator[Path]:
    """A folder of user nobody's."""
    folder = Path(tempfile.mkdtemp(dir="/tmp"))  # pytest's own folders are closed to others
    os.chown(folder, NOBODY, NOBODY)
    try:
        yield folder
    finally:
        shutil.rmtree(folder)


@as_root
def test_in_a_folder_of_somebody_else_root_has_no_more_rights_than_its_owner(foreign: Path) -> None:
    secret = foreign.parent / f"{foreign.name}.roots"
    secret.write_text("root's")
    secret.chmod(0o600)
    (foreign / "planted").symlink_to(secret)
    ids = os.getresuid(), os.getresgid(), os.getgroups()
    try:
        with as_owner_of(foreign):
            write_whole(foreign / "key", b"own", mode=0o600)
            for forbidden in (
                (foreign / "planted").read_text,
                lambda: (foreign / "planted").write_text("overwritten"),
                lambda: (foreign / "planted").chmod(0o666),
            ):
                with pytest.raises(PermissionError):
                    forbidden()
            # Nor can its owner end or trace who acts so.
            assert (os.getresuid()[0], os.getresuid()[2]) == (0, 0)
        assert (os.getresuid(), os.getresgid(), os.getgroups()) == ids
        assert ((foreign / "key").stat().st_uid, (foreign / "key").stat().st_gid) == (NOBODY, NOBODY)
        with pytest.raises(ValueError, match="from inside"), as_owner_of(foreign):
            raise ValueError("from inside")
        assert (os.getresuid(), os.getresgid(), os.getgroups()) == ids
    finally:
        secret.unlink()


@as_root
def test_a_plain_file_that_root_has_put_there_is_given_to_the_folder_s_owner_and_nothing_else_is(
    foreign: Path,
) -> None:
    roots = foreign.parent / f"{foreign.name}.roots"
    roots.write_text("root's")
    (foreign / "planted").symlink_to(roots)
    os.link(roots, foreign / "linked")
    (foreign / "put").write_text("a copy")
    try:
        hand_to_owner_of(foreign, foreign / "put")
        hand_to_owner_of(foreign, foreign / "linked")
        hand_to_owner_of(foreign, foreign / "missing")
        (foreign / "folder").mkdir()
        os.mkfifo(foreign / "fifo")
        for name in ("folder", "fifo"):
            hand_to_owner_of(foreign, foreign / name)
            assert (foreign / name).stat().st_uid == 0
        with pytest.raises(OSError, match="symbolic"):
            hand_to_owner_of(foreign, foreign / "planted")
        assert ((foreign / "put").stat().st_uid, roots.stat().st_uid) == (NOBODY, 0)
    finally:
        roots.unlink()


def test_in_a_folder_of_one_s_own_nothing_changes(tmp_path: Path) -> None:
    ids = os.getresuid(), os.getresgid(), os.getgroups()
    with as_owner_of(tmp_path):
        assert (os.getresuid(), os.getresgid(), os.getgroups()) == ids


def test_what_is_no_plain_file_is_neither_followed_nor_waited_for(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b"12345")
    assert read_regular(tmp_path / "file", 3) == b"123"
    (tmp_path / "link").symlink_to(tmp_path / "file")
    os.mkfifo(tmp_path / "fifo")
    (tmp_path / "folder").mkdir()
    for name in ("link", "fifo", "folder"):
        with pytest.raises(OSError, match=r"regular|symbolic"):
            read_regular(tmp_path / name, 3)
