"""Writes files completely or not at all, and explains the errors of the operating system.

An explained error names the file, what was to be done with it, the reason and a command that helps.
"""

from __future__ import annotations

import errno
import os
import shlex
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from rbee.errors import BadInput, NotPermitted, RbeeError

FORBIDDEN = (errno.EACCES, errno.EPERM)

NO_ROOM = (errno.ENOSPC, errno.EDQUOT)

_NO_FOLDER_SYNC = (errno.EINVAL, errno.ENOSYS, errno.ENOTSUP, errno.EOPNOTSUPP)
"""The errors of fsync(2) for a directory on a file system without it, such as CIFS."""

BESIDE = ".rbee-new"
"""The end of the names of make_beside()."""

LEFT_AFTER = 3600.0
"""Seconds without a write after which such a file counts as left."""

Refusal = Callable[..., RbeeError]
"""Makes an error from a message and a hint: one of the classes in rbee.errors."""


# On the disk


def sync_folder(folder: Path | int) -> None:
    """Sync a folder's entries (not its files) to the disk. Raises OSError.

    No error if the file system has no fsync(2) for directories, or if this user may not read the folder.
    """
    if isinstance(folder, int):
        _sync(folder)
        return
    try:
        number = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    except PermissionError:
        return  # a folder may be writable but not readable
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
    """Replace a file atomically; on return it has reached the disk. Raises OSError."""
    aside = write_aside(path, content, mode=mode)
    try:
        aside.rename(path)
    except BaseException:
        with suppress(OSError):
            aside.unlink()
        raise
    sync_folder(path.parent)


def write_aside(path: Path, content: bytes, *, mode: int) -> Path:
    """Write a file that is to become `path`, and return its hidden name beside it. Raises OSError."""
    aside = path.with_name(f".{path.name}.new")
    with suppress(FileNotFoundError):
        aside.unlink()
    # An existing file or link is an error.
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


def make_beside(path: Path) -> tuple[int, Path]:
    """Make a file that is to become `path`, private and beside it; return its descriptor and hidden name.

    Its name is its own, as another program may be doing the same. Files that were left by programs that were
    killed are removed. Raises OSError.
    """
    import tempfile

    prefix = f".{path.name}."
    with suppress(OSError):
        for name in os.listdir(path.parent):
            if name.startswith(prefix) and name.endswith(BESIDE):
                _remove_left(path.with_name(name))
    number, beside = tempfile.mkstemp(dir=path.parent, prefix=prefix, suffix=BESIDE)
    return number, Path(beside)


def _remove_left(beside: Path) -> None:
    with suppress(OSError):
        status = beside.lstat()
        if stat.S_ISREG(status.st_mode) and time.time() - status.st_mtime > LEFT_AFTER:
            beside.unlink()


# In another user's folder


@contextmanager
def as_owner_of(folder: Path) -> Iterator[None]:
    """Run the context with the rights of the folder's owner, if this process is root; otherwise as it is.

    With root's rights it would follow a link that the owner puts in a file's place at the last moment.
    Only the effective ids are changed: the owner can neither kill nor trace this process. Raises OSError.
    """
    status = os.stat(folder)
    if os.geteuid() != 0 or status.st_uid in (0, os.getresuid()[1]):
        yield
        return
    groups, group = os.getgroups(), os.getegid()
    os.setgroups([])
    try:
        os.setegid(status.st_gid)
        os.seteuid(status.st_uid)
        yield
    finally:
        os.seteuid(0)
        os.setegid(group)
        os.setgroups(groups)


def hand_to_owner_of(folder: Path, path: Path) -> None:
    """Change a file's owner to that of its folder, if this process is root; otherwise do nothing.

    Only a regular file, not one behind a link or with another hard link, which the folder's owner may have
    made. Raises OSError.
    """
    if os.geteuid() != 0:
        return
    owner = os.stat(folder)
    with suppress(FileNotFoundError), _opened(path) as number:
        status = os.fstat(number)
        if stat.S_ISREG(status.st_mode) and status.st_nlink == 1 and status.st_uid != owner.st_uid:
            os.fchown(number, owner.st_uid, owner.st_gid)


def read_regular(path: Path, limit: int) -> bytes:
    """Return at most `limit` bytes of a file that its owner may have replaced by anything. Raises OSError.

    A symbolic link is not followed, and a FIFO is not waited for.
    """
    with _opened(path) as number:
        if not stat.S_ISREG(os.fstat(number).st_mode):
            raise OSError(errno.EINVAL, "it is not a regular file", os.fspath(path))
        with open(number, "rb", closefd=False) as file:
            return file.read(limit)


@contextmanager
def _opened(path: Path) -> Iterator[int]:
    """Open a file of any type, a folder too: no link is followed, no FIFO waited for."""
    number = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
    try:
        yield number
    finally:
        os.close(number)


def end_of(target: str, *, field: str, hint: str) -> Path:
    """Return the path to write for `target`, with symbolic links resolved: renaming would replace a link.

    Raises BadInput if something exists there that is not a regular file, such as a device, and OSError.
    """
    path = Path(os.path.realpath(target))
    if os.path.lexists(path) and not stat.S_ISREG(path.lstat().st_mode):
        raise BadInput(f"{target} is not a regular file", hint=hint, field=field)
    return path


# Explaining errors


@contextmanager
def explained(path: Path, done: str, kind: Refusal | None = None) -> Iterator[None]:
    """Turn an OSError in the context into refused(); `done` is a participle, such as 'written'."""
    try:
        yield
    except OSError as error:
        raise refused(error, path, done, kind) from error


def refused(error: OSError, path: Path, done: str, kind: Refusal | None = None) -> RbeeError:
    """Return the error 'PATH cannot be DONE: REASON' with a cure; by default NotPermitted or RbeeError."""
    if kind is None:
        kind = NotPermitted if error.errno in FORBIDDEN else RbeeError
    return kind(f"{path} cannot be {done}: {reason(error)}", hint=cure(error, path))


def unforeseen(error: OSError) -> RbeeError:
    """Return the error for an OSError that was not explained where it was raised, with file and reason."""
    if not isinstance(error.filename, str | bytes):
        return RbeeError(
            f"the operating system refused a request: {reason(error)}",
            hint="Run it again with --debug, which shows where.",
        )
    path = Path(os.fsdecode(error.filename))
    kind = NotPermitted if error.errno in FORBIDDEN else RbeeError
    return kind(f"{path}: {reason(error)}", hint=cure(error, path))


def reason(error: OSError) -> str:
    """Return the reason in an error, such as 'No space left on device'."""
    return error.strerror or str(error) or type(error).__name__


def remount(folder: Path | str) -> str:
    """Return the command that makes the file system of a folder writable.

    The operator's shell resolves the mount point: in a service's mount namespace each writable folder is one.
    findmnt also finds a bind mount, which stat(2) does not tell from what is around it.
    """
    return f"sudo mount -o remount,rw $(findmnt -n -o TARGET -T {shlex.quote(str(folder))})"


def cure(error: OSError, path: Path) -> str:
    """Return the command to type about an error, on the machine of the file, for any user."""
    folder = path.parent
    has_folder = os.path.isdir(folder)
    while not os.path.isdir(folder) and folder != folder.parent:
        folder = folder.parent
    shown = shlex.quote(str(folder))
    if error.errno in NO_ROOM:
        return f"df -i {shown}" if _has_no_inodes(folder) else f"df -h {shown}"
    if error.errno == errno.EROFS:
        return remount(folder)
    if error.errno == errno.ENOENT and not has_folder:
        missing = shlex.quote(str(path.parent))
        if os.geteuid() != 0 and os.access(folder, os.W_OK):
            return f"mkdir -p {missing}"  # with sudo it would belong to root, in the user's own folder
        return f"sudo mkdir -p {missing}"
    if error.errno in FORBIDDEN:
        # If not even root may, a file attribute forbids it.
        return f"lsattr -d {shown}" if os.geteuid() == 0 else f"ls -ld {shown}"
    if error.errno == errno.EIO:
        return "sudo dmesg --level=err,warn"
    if error.errno in (errno.EMFILE, errno.ENFILE):
        return "ulimit -n; cat /proc/sys/fs/file-nr"
    return f"ls -ld {shlex.quote(str(path)) if os.path.lexists(path) else shown}"


def _has_no_inodes(folder: Path) -> bool:
    with suppress(OSError):
        space = os.statvfs(folder)
        return space.f_files > 0 and space.f_favail == 0 and space.f_bavail > 0
    return False


# Temporary folders


@contextmanager
def temporary_folder(prefix: str, kind: Refusal = RbeeError) -> Iterator[Path]:
    """Make a folder that is deleted at the end of the context; raises `kind` if there is no room for one."""
    import shutil

    folder = make_temporary_folder(prefix, kind)
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def make_temporary_folder(prefix: str, kind: Refusal = RbeeError) -> Path:
    """As temporary_folder(), but the caller deletes it."""
    import tempfile

    try:
        return Path(tempfile.mkdtemp(prefix=prefix))
    except OSError as error:
        raise no_temporary_folder(error, kind) from error


def no_temporary_folder(error: OSError, kind: Refusal = RbeeError) -> RbeeError:
    """Return the error with the first folder that was tried and its fault, which tempfile omits."""
    import tempfile

    if tempfile.tempdir is not None:
        folder, cause = Path(tempfile.tempdir), error
    else:
        names = (os.environ.get(name) for name in ("TMPDIR", "TEMP", "TMP"))
        folder = Path(next((name for name in names if name), "/tmp"))  # noqa: S108  # what tempfile looks at
        cause = trouble(folder) or error
    hint = cure(cause, folder / "x")
    if cause.errno == errno.ENOENT:
        hint = f"sudo install -d -m 1777 {shlex.quote(str(folder))}"
    return kind(f"there is no room for temporary files: {folder} cannot be used: {reason(cause)}", hint=hint)


def trouble(folder: Path) -> OSError | None:
    """Try to write a small file in the folder, and return the error; None if it works."""
    import tempfile

    try:
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(bytes(65536))
            probe.flush()
            os.fsync(probe.fileno())
    except OSError as error:
        return error
    return None
