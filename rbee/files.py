"""Files: written whole or not at all, and what the operating system refuses in plain words.

A refusal names the file, what was to be done with it, the reason and a command that helps.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rbee.errors import BadInput, NotPermitted, RbeeError

FORBIDDEN = (errno.EACCES, errno.EPERM)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""What fsync(2) of a directory fails with where the file system has none, such as CIFS."""

Refusal = Callable[..., RbeeError]
"""Makes an error of a message and a hint: one of the classes in rbee.errors."""


# On the disk


def sync_folder(folder: Path | int) -> None:
    """Bring a folder's names to the disk, where its file system and this user can. Raises OSError.

    What is in the folder has been written and synced before: a file system that has no fsync(2) of
    directories keeps it as well as it can, and that is no failure.
    """
    if isinstance(folder, int):
        _sync(folder)
        return
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a folder that one may write to and not read
    try:
        _sync(number)
    finally:
        os.close(number)


def _sync(number: int) -> None:
    try:
        os.fsync(number)
    except OSError as error:
        if error.errno not in _NO_FOLDER_SYNC:
            raise


def write_whole(path: Path, content: bytes, *, mode: int) -> None:
    """Put a file in place of the one before: whole or not at all, and on the disk. Raises OSError."""
    aside = write_aside(path, content, mode=mode)
    try:
        aside.rename(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    sync_folder(path.parent)


def write_aside(path: Path, content: bytes, *, mode: int) -> Path:
    """Write what shall be `path` under a hidden name beside it, which is returned. Raises OSError."""
    aside = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        aside.unlink()
    # A name or a link that is there is an error.
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC
    with os.fdopen(os.open(aside, flags, 0o600), "wb") as file:
        try:
            file.write(content)
            file.flush()
            os.fchmod(file.fileno(), mode)
            os.fsync(file.fileno())
        except BaseException:
            with suppress(OSError):
                aside.unlink()
            raise
    return aside


# In a folder of somebody else


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Have root act with no more rights than the folder's owner has; for anybody else nothing changes.

    With root's own rights it would follow a link that the owner puts in a file's place at the last
    moment. Only the effective ids are changed: the owner can neither end nor trace this process.
    Raises OSError.
    """
    found = os.stat(folder)
    if os.geteuid() != 0 or found.st_uid in (0, os.getresuid()[1]):
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    try:
        os.setegid(found.st_gid)
        os.seteuid(found.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def hand_to_owner_of(folder: Path, path: Path) -> None:
    """Give a regular file in a folder to whoever the folder is, as root, where it is another's; else nothing.

    A file that root has put there: its owner could neither read nor link it. Not one that a link leads to,
    or that has another name somewhere else, which its owner may have given it. Raises OSError.
    """
    if os.geteuid() != 0:
        return
    found = os.stat(folder)
    with suppress(FileNotFoundError), _opened(path) as number:
        there = os.fstat(number)
        if stat.S_ISREG(there.st_mode) and there.st_nlink == 1 and there.st_uid != found.st_uid:
            os.fchown(number, found.st_uid, found.st_gid)


def read_regular(path: Path, limit: int) -> bytes:
    """At most `limit` bytes of a file that its owner may have replaced by anything. Raises OSError.

    A symbolic link is not followed, and a FIFO is not waited for.
    """
    with _opened(path) as number:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        with open(number, "rb", closefd=False) as file:
            return file.read(limit)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """A descriptor of what may be anything: no link is followed, no FIFO waited for, a folder opened too."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


def end_of(target: str, *, field: str, hint: str) -> Path:
    """Where a file goes that somebody wants written as `target`: beside what a symlink leads to.

    Renaming over the link would leave it leading nowhere. BadInput where something is there that is no
    regular file, such as a device: it would be gone. Raises OSError.
    """
    path = Path(os.path.realpath(target))
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise BadInput(f"{target} is no file", hint=hint, field=field)
    return path


# In plain words


@contextmanager
def explained(path: Path, done: str, kind: Refusal | None = None) -> Iterator[None]:
    """Turn an OSError into refused(); what else is raised passes."""
    try:
        yield
    except OSError as error:
        raise refused(error, path, done, kind) from error


def refused(error: OSError, path: Path, done: str, kind: Refusal | None = None) -> RbeeError:
    """'PATH cannot be DONE: REASON', and a cure. Without a kind it is NotPermitted or RbeeError."""
    if kind is None:
        kind = NotPermitted if error.errno in FORBIDDEN else RbeeError
    return kind(f"{path} cannot be {done}: {reason(error)}", hint=cure(error, path))


def unforeseen(error: OSError) -> RbeeError:
    """For an OSError that nobody explained where it was raised: at least which file, and why."""
    if not isinstance(error.filename, str | bytes):
        return RbeeError(
            f"the operating system refused what was asked of it: {reason(error)}",
            hint="Again with --debug, which shows where.",
        )
    path = Path(os.fsdecode(error.filename))
    kind = NotPermitted if error.errno in FORBIDDEN else RbeeError
    return kind(f"{path}: {reason(error)}", hint=cure(error, path))


def reason(error: OSError) -> str:
    return error.strerror or str(error) or type(error).__name__


def cure(error: OSError, path: Path) -> str:
    """What to type about it: on the machine of the file, whoever one is."""
    folder = path.parent
    is_there = os.path.isdir(folder)
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    shown = shlex.quote(str(folder))
    if error.errno in NO_ROOM:
        return f"df -i {shown}" if _has_no_inodes(folder) else f"df -h {shown}"
    if error.errno == errno.EROFS:
        return f"sudo mount -o remount,rw $(findmnt -n -o TARGET -T {shown})"
    if error.errno == errno.ENOENT and not is_there:
        return f"sudo mkdir -p {shlex.quote(str(path.parent))}"
    if error.errno in FORBIDDEN:
        # Where not even root may, a file attribute forbids it.
        return f"lsattr -d {shown}" if os.geteuid() == 0 else f"ls -ld {shown}"
    if error.errno == errno.EIO:
        return "sudo dmesg --level=err,warn"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "ulimit -n; cat /proc/sys/fs/file-nr"
    return f"ls -ld {shlex.quote(str(path)) if os.path.lexists(path) else shown}"


def _has_no_inodes(folder: Path) -> bool:
    with suppress(OSError):
        found = os.statvfs(folder)
        return found.f_files > 0 and found.f_favail == 0 and found.f_bavail > 0
    return False


# For a while


@contextmanager
def temporary_folder(prefix: str, kind: Refusal = RbeeError) -> Iterator[Path]:
    """A folder that is gone at the end; `kind` of error where there is no place for one."""
    import shutil

    folder = make_temporary_folder(prefix, kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_temporary_folder(prefix: str, kind: Refusal = RbeeError) -> Path:
    """As temporary_folder(), for who takes it away."""
    import tempfile

    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise no_temporary_folder(error, kind) from error


def no_temporary_folder(error: OSError, kind: Refusal = RbeeError) -> RbeeError:
    """Which folder was tried first, and what is wrong with it: tempfile says of none why it is unusable."""
    import tempfile

    if tempfile.tempdir is not None:
        folder, found = Path(tempfile.tempdir), error
    else:
        names = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
        folder = Path(next((name for name in names if name), "/tmp"))  # noqa: S108  # what tempfile looks at
        found = trouble(folder) or error
    cures = cure(found, folder / "x")
    if found.errno == errno.ENOENT:
        cures = f"sudo install -d -m 1777 {shlex.quote(str(folder))}"
    return kind(f"there is no room for temporary files: {folder} cannot be used: {reason(found)}", hint=cures)


def trouble(folder: Path) -> OSError | None:
    """What the operating system says to a small file in the folder; None if nothing is wrong."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(65536))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error
    return None
