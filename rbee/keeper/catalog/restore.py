"""Put another catalog in the place of the queen's: as root, under the lock that an awake queen holds."""

from __future__ import annotations

import os
import shlex
import shutil
import sqlite3
import time
from collections.abc import Iterator
from contextlib import ExitStack, closing, contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, NamedTuple

from rbee import catalogfile
from rbee.catalogfile import LOGS, Lock, log_of, unfinished_restore
from rbee.errors import BadInput, NotPermitted, NotRunning, with_packages
from rbee.files import as_owner_of, explained, hand_to_owner_of, temporary_folder
from rbee.keeper.catalog import location
from rbee.keeper.catalog.check import check_file, copy_aside
from rbee.keeper.catalog.location import catalog_explained
from rbee.narration import CATALOG_CHANGED, Narrator
from rbee.scope import SYSTEM, Scope
from rbee.signals import ending_put_off

if TYPE_CHECKING:
    from rbee.wire.catalog import CatalogReport

RESTORED = "the hive catalog is restored from a backup, whose tokens are revoked"


class Restored(NamedTuple):
    """`report` is about the new catalog, None if there is none; `old` is where the previous one is kept.

    `keeps_revoked` is whether the keys that were revoked in the previous one still are: it could be read.
    """

    path: Path
    report: CatalogReport | None
    old: Path | None
    keeps_revoked: bool


def restore(
    file: str | None, scope: Scope = SYSTEM, *, path: Path | None = None, journal: Narrator | None = None
) -> Restored:
    """Put a file in the catalog's place, or with None no file; the previous catalog is kept beside it.

    After each step the old catalog is whole, or unfinished_restore() keeps the queen from starting. Raises
    NotPermitted, BadInput, CatalogUnusable, CatalogInUse or NotRunning, and RbeeError if writing fails.
    """
    if not scope.is_owner():
        raise _only_root("--empty" if file is None else shlex.quote(file), scope)
    target = path or location.own_path(scope)
    source = Path(file) if file is not None else None
    if source is not None:
        check_file(source, scope)  # it is sound, or this raises
    with ExitStack() as swap, catalog_explained(target, "written"), ExitStack() as end:
        revoked = _revoked_keys(target)
        whole = end.enter_context(_single_file(source, revoked or [])) if source else None
        _make_folder(target.parent, scope)
        if target.is_symlink():
            raise BadInput(f"{target} is a symbolic link", hint=f"ls -ld {target}", field="Database")
        for suffix in ("", *LOGS):
            hand_to_owner_of(target.parent, log_of(target, suffix))
        # From here on with the rights of the queen's user, as the folder belongs to it.
        end.enter_context(as_owner_of(target.parent))
        with Lock.take(target, scope=scope) as lock:
            new = Path(f"{target}.new")
            try:
                report = _prepare(whole, source, new, lock, scope)
                # Ctrl-C leaves the old catalog up to here; from here on it waits until the new one is there.
                swap.enter_context(ending_put_off())
                # Replaces an earlier unfinished restore in one step.
                os.rename(new, unfinished_restore(target))
                lock.sync()
            except BaseException:
                new.unlink(missing_ok=True)
                raise
            old = _swap(source, target, lock)
        end.close()
        _narrate(journal, target, file, old)
    return Restored(target, report, old, revoked is not None)


def _swap(source: Path | None, target: Path, lock: Lock) -> Path | None:
    """Put what was prepared in the catalog's place; return where the old one is, None if there was none."""
    try:
        # First, as a log must never be beside another catalog.
        old = _set_aside(target, lock)
        if source is not None:
            os.rename(unfinished_restore(target), target)
    except OSError:
        _take_back(target, lock)
        raise
    if source is None:
        target.unlink(missing_ok=True)
        lock.sync()
        unfinished_restore(target).unlink()
    log_of(target, "-shm").unlink(missing_ok=True)
    lock.sync()
    return old


def _only_root(argument: str, scope: Scope) -> NotPermitted:
    hint = scope.rbeectl(f"catalog restore {argument}", as_root=True)
    return NotPermitted("only root may restore the catalog", hint=hint)


def _narrate(journal: Narrator | None, target: Path, file: str | None, old: Path | None) -> None:
    if journal is None:
        return
    what = f"is restored from {file}" if file is not None else "is set aside, to begin anew"
    # Under sudo(8) the actor is the user who called it.
    asker = os.environ.get("SUDO_UID", str(os.geteuid()))
    journal.narrate(
        CATALOG_CHANGED,
        f"the hive catalog {target} {what}" + (f"; the one before is {old}" if old else ""),
        speaker="bee keeper",
        actor_uid=asker,
        actor_pid=str(os.getpid()),
    )


def _make_folder(folder: Path, scope: Scope) -> None:
    """Make the state directory of a queen that was never started, as systemd would make it."""
    if folder.is_dir():
        return
    import pwd

    try:
        user = pwd.getpwnam(scope.queen_user)
    except KeyError:
        raise NotRunning(f"there is no user {scope.queen_user}", hint=with_packages("rbee-queen")) from None
    folder.mkdir(mode=0o700)
    os.chown(folder, user.pw_uid, user.pw_gid)


def _prepare(
    whole: BinaryIO | None, source: Path | None, new: Path, lock: Lock, scope: Scope
) -> CatalogReport | None:
    """Write the new catalog to the disk, and check it."""
    new.unlink(missing_ok=True)
    owner = os.fstat(lock.folder)
    # A file or a link that already has the name is an error.
    number = os.open(new, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with os.fdopen(number, "wb") as copy:
        if whole is not None:
            shutil.copyfileobj(whole, copy)
        copy.flush()
        os.fchown(copy.fileno(), owner.st_uid, owner.st_gid)
        os.fsync(copy.fileno())
    if source is None:
        return None
    return catalogfile.check(new, name=source, is_thorough=True, reads_rows=True, scope=scope)


def _revoked_keys(target: Path) -> list[str] | None:
    """The hashes of the keys that are revoked in the catalog that is replaced; None if it cannot be read.

    A restore that continues an interrupted one finds them in what that one has prepared.
    """
    revoked: list[str] = []
    for catalog in (target, unfinished_restore(target)):
        if not catalog.is_file():
            continue
        with temporary_folder("catalog-") as folder:
            flat = _copy_with_log(catalog, folder)
            try:
                with closing(sqlite3.connect(flat)) as connection:
                    if connection.execute("SELECT 1 FROM sqlite_master WHERE name = 'keys'").fetchone():
                        rows = connection.execute("SELECT hash FROM keys WHERE is_revoked")
                        revoked += [digest for (digest,) in rows]
            except sqlite3.Error as error:
                if not catalogfile.is_damage(error):
                    raise
                return None
    return revoked


def _copy_with_log(source: Path, folder: Path) -> Path:
    flat = folder / "catalog.db"
    copy_aside(source, flat)
    if log_of(source).exists():
        copy_aside(log_of(source), log_of(flat))
    return flat


@contextmanager
def _single_file(source: Path, revoked: list[str]) -> Iterator[BinaryIO]:
    """A copy of a catalog into which its log is merged, and in which keys with these hashes are revoked."""
    with temporary_folder("catalog-") as folder:
        with explained(source, "read"):
            flat = _copy_with_log(source, folder)
        with catalog_explained(folder, "written"):
            with closing(sqlite3.connect(flat, isolation_level=None)) as connection:
                connection.execute("PRAGMA journal_mode = DELETE")
                # Tokens that were spent since would be valid again. If it is damaged, check() says more;
                # before version 2 there are no tokens.
                with _unless_damaged():
                    connection.execute("UPDATE tokens SET is_revoked = 1 WHERE NOT is_revoked")
                    connection.execute(
                        "INSERT INTO audit (at_ms, text, actor_uid) VALUES (?, ?, ?)",
                        (time.time_ns() // 1_000_000, RESTORED, os.getuid()),
                    )
                with _unless_damaged():
                    connection.executemany(
                        "UPDATE keys SET is_revoked = 1 WHERE hash = ?", [(digest,) for digest in revoked]
                    )
            whole = flat.open("rb")
        with whole:
            yield whole


@contextmanager
def _unless_damaged() -> Iterator[None]:
    try:
        yield
    except sqlite3.Error as error:
        if not catalogfile.is_damage(error):
            raise


def _set_aside(target: Path, lock: Lock) -> Path | None:
    """Give the catalog a second name, which is returned, and move its logs there; None if there is none.

    A hard link, not a rename: by it a restore that continues an interrupted one finds where the log
    is, or belongs.
    """
    old = _linked_name(target)
    if old is None:
        old = _free_name(target)
        if target.is_dir():
            os.rename(target, old)  # a folder cannot be linked, and has no log
        elif target.exists():
            os.link(target, old)
    for suffix in LOGS:
        if os.path.lexists(log_of(target, suffix)):
            os.rename(log_of(target, suffix), log_of(old, suffix))
    # Before the new one is there: it must never be beside the old log, whatever reaches the disk first.
    lock.sync()
    kept = [log_of(old, suffix) for suffix in ("", *LOGS) if os.path.lexists(log_of(old, suffix))]
    return kept[0] if kept else None


def _take_back(target: Path, lock: Lock) -> None:
    """Undo a restore that failed; if that fails too, the restore is unfinished and has to be repeated."""
    with suppress(OSError):
        if not target.is_file():
            return
        old = _linked_name(target)
        if old is not None:
            for suffix in LOGS:
                if os.path.lexists(log_of(old, suffix)):
                    os.rename(log_of(old, suffix), log_of(target, suffix))
            lock.sync()
            old.unlink()
        unfinished_restore(target).unlink(missing_ok=True)
        lock.sync()


def _linked_name(target: Path) -> Path | None:
    """The second name that an interrupted restore has given the file in place; None if there is none."""
    if not target.exists():
        return None
    kept = (one for one in target.parent.iterdir() if one.name.startswith(f"{target.name}."))
    return next((one for one in kept if one.name.endswith(".old") and one.samefile(target)), None)


def _free_name(target: Path) -> Path:
    moment = time.strftime("%Y%m%dT%H%M%SZ", time.gmtime())
    number = 0
    while True:
        old = Path(f"{target}.{moment}{f'-{number}' if number else ''}.old")
        if not any(os.path.lexists(log_of(old, suffix)) for suffix in ("", *LOGS)):
            return old
        number += 1
