"""The hive catalog: what survives a reboot. SQLite, one writer thread, off the event loop.

An acknowledged write has reached the disk: WAL with synchronous=FULL has fdatasync(2)
return for the log at each commit. NORMAL leaves that to the next checkpoint: its catalog is
whole after a power loss, too, but without the last commits
(https://sqlite.org/pragma.html#pragma_synchronous).

Each write that changes something is one line in the journal, CATALOG_CHANGED: what, and by whom.
"""

from __future__ import annotations

import asyncio
import errno
import hmac
import json
import logging
import os
import sqlite3
import tempfile
import time
from collections.abc import Callable, Collection, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, closing, contextmanager, suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Annotated, Any, BinaryIO, Literal, TypeVar

from rbee import catalogfile
from rbee.catalogfile import APPLICATION_ID, LOGS, WAY_OUT, WAY_OUT_AWAKE, Lock, log_of
from rbee.contracts import (
    DEFAULT_PORT,
    LABELS_MAX,
    AuditEntry,
    CatalogReport,
    Count,
    Devices,
    Label,
    Limit,
    Name,
    Port,
    Status,
    Text,
    TokenView,
    decode,
    encode,
    is_same_name,
)
from rbee.errors import (
    TEXT_LIMIT,
    BadInput,
    BadToken,
    CatalogFailed,
    CatalogUnusable,
    NameTaken,
    RbeeError,
    TimedOut,
    TooMany,
    UnknownHive,
    UnknownToken,
)
from rbee.files import no_temporary_folder, temporary_folder, trouble
from rbee.narration import CATALOG_CHANGED, Narrator
from rbee.queen.metrics import Metrics
from rbee.rows import read_row

log = logging.getLogger("rbee")

Result = TypeVar("Result")

Actor = Mapping[str, str]
"""Who asked for a write, as fields for the journal: actor_uid, actor_pid, and job_id where there is one."""

MIGRATIONS: tuple[tuple[str, ...], ...] = (
    (
        """
    CREATE TABLE hives (
        id TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
        status TEXT NOT NULL CHECK (status IN ('pending', 'online', 'offline')),
        devices TEXT,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        wanted INTEGER NOT NULL CHECK (wanted IN (0, 1))
    ) STRICT
    """,
    ),
    (
        # Of hives on other machines: `machine` is derived from the machine-id, `credential` names the
        # certificate. `labels` is a JSON object, `cordoned` the reason.
        "ALTER TABLE hives ADD COLUMN machine TEXT",
        "ALTER TABLE hives ADD COLUMN credential TEXT",
        "ALTER TABLE hives ADD COLUMN address TEXT",
        "ALTER TABLE hives ADD COLUMN labels TEXT NOT NULL DEFAULT '{}'",
        "ALTER TABLE hives ADD COLUMN cordoned TEXT",
        "CREATE UNIQUE INDEX hives_by_machine ON hives (machine)",
        "CREATE UNIQUE INDEX hives_by_credential ON hives (credential)",
        """
        CREATE TABLE tokens (
            id TEXT PRIMARY KEY,
            hash TEXT NOT NULL,
            hive TEXT,
            uses_left INTEGER NOT NULL CHECK (uses_left >= 0),
            created_at_ms INTEGER NOT NULL,
            expires_at_ms INTEGER NOT NULL,
            is_revoked INTEGER NOT NULL DEFAULT 0 CHECK (is_revoked IN (0, 1))
        ) STRICT
        """,
        """
        CREATE TABLE audit (
            id INTEGER PRIMARY KEY AUTOINCREMENT,
            at_ms INTEGER NOT NULL,
            text TEXT NOT NULL,
            hive TEXT,
            actor_uid INTEGER,
            actor_credential TEXT,
            job_id TEXT
        ) STRICT
        """,
    ),
)
"""Number n brings a catalog from version n to n + 1; PRAGMA user_version says where it is."""

AUDIT_KEPT = 10_000
"""Entries of the audit that are operators'; the oldest give way, to operators' alone."""

AUDIT_KEPT_MACHINES = 10_000
"""The same of what hives and the queen herself did, each of them with as many as the next."""

AUDIT_KEPT_A_HIVE = 200
"""Of these what one hive may have: no other's give way to it."""

ANOTHER = "On the queen's machine: rbeectl token create"

TOKENS_MAX = 1000
"""Tokens that are kept; of those that nobody can join with any more, the oldest give way."""

BUSY_TIMEOUT = catalogfile.BUSY_TIMEOUT
"""Seconds that a write waits for another process that keeps the catalog locked (an sqlite3 shell, say)."""

READ_TIMEOUT = 8.0
"""Seconds in which a check or a copy of the whole catalog must be done; the keeper waits a little longer."""

COPIES_MAX = 4
"""Copies of the catalog that are made or sent at once; whoever asks for more is told to ask again."""


@dataclass(frozen=True, slots=True)
class Row:
    """A hive as it stands in the table. Times are milliseconds since the epoch.

    Only one on another machine has `machine`, `credential` and, once it was heard of, `address`.
    """

    id: str
    host: str
    port: int
    status: Status
    devices: Devices | None
    created_at_ms: int
    updated_at_ms: int
    wanted: bool
    machine: str | None = None
    credential: str | None = None
    address: str | None = None
    labels: Mapping[str, str] = field(default_factory=dict)
    cordoned: str | None = None
    problem: str | None = None
    """What of it could not be read, and stands here as if it were not there."""

    @property
    def is_remote(self) -> bool:
        return self.credential is not None


@dataclass(frozen=True, slots=True)
class Joining:
    """A machine that would become a hive, and the token that it shows for it."""

    hive_id: str
    machine: str
    credential: str
    address: str
    token_id: str
    token_hash: str


def now_ms() -> int:
    return time.time_ns() // 1_000_000


class Catalog:
    """All calls but open() and close() are awaited; writes run one after the other in one thread.

    `by` says who asked for a write; what nobody asked for is the queen's own doing.
    """

    def __init__(
        self,
        connection: sqlite3.Connection,
        path: Path,
        lock: Lock,
        journal: Narrator,
        wanted: Callable[[bool], None],
        metrics: Metrics,
        find_daemons: Callable[[], Collection[int]],
    ) -> None:
        self._connection = connection
        self._path = path
        self._journal = journal
        self._wanted = wanted
        self._metrics = metrics
        self._find_daemons = find_daemons
        self._lock = lock
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog")
        # Who reads all of it has a connection of his own, and no write waits for him.
        self._reading = ThreadPoolExecutor(max_workers=1, thread_name_prefix="catalog-reading")
        self._copying = 0
        self._copies: list[BinaryIO] = []
        self._is_closing = False

    @classmethod
    def open(
        cls,
        path: Path,
        journal: Narrator | None = None,
        *,
        wanted: Callable[[bool], None] = lambda is_wanted: None,
        metrics: Metrics | None = None,
        find_daemons: Callable[[], Collection[int]] = lambda: (),
    ) -> Catalog:
        """Open or make the catalog and bring it to this version; CatalogUnusable leaves it as it was.

        After each write, in the catalog's thread, `journal` is told what has changed, and
        `wanted` whether any hive is. What the users of `find_daemons` did of their own is no operator's.
        """
        with ExitStack() as if_it_fails:
            try:
                lock = if_it_fails.enter_context(Lock.take(path, timeout=catalogfile.LOCK_TIMEOUT))
                if _is_there(path):
                    catalogfile.check(
                        path, newest=len(MIGRATIONS), busy_timeout=BUSY_TIMEOUT, way_out=WAY_OUT
                    )
                else:
                    _make(path, lock)
                connection = sqlite3.connect(
                    path, timeout=BUSY_TIMEOUT, isolation_level=None, check_same_thread=False
                )
                if_it_fails.callback(connection.close)
                connection.text_factory = _text
                connection.execute("PRAGMA journal_mode = WAL")
                connection.execute("PRAGMA synchronous = FULL")
                _keep_copy(connection, path, lock)
                _migrate(connection)
            except (sqlite3.Error, OSError) as error:
                raise failure(CatalogUnusable, path, error, way_out=WAY_OUT) from error
            if_it_fails.pop_all()
        metrics = metrics or Metrics()
        catalog = cls(connection, path, lock, journal or Narrator(), wanted, metrics, find_daemons)
        catalog._tell_wanted()
        return catalog

    def close(self) -> None:
        self._is_closing = True
        self._reading.shutdown(cancel_futures=True)
        self._thread.shutdown()
        self._connection.close()
        self._lock.close()

    async def hives(self) -> list[Row]:
        return await self._run(
            lambda: [_row(found) for found in self._connection.execute(_SELECT + " ORDER BY id")], "read"
        )

    async def hive(self, hive_id: str) -> Row | None:
        return await self._run(lambda: self._find(hive_id), "read")

    async def add(self, hive_id: str, host: str, port: int | None, *, by: Actor | None = None) -> Row:
        """Make the hive wanted: a new row is 'pending', a row that is there keeps its status and devices."""
        now = now_ms()
        at = f"host {host}" if port is None else f"host {host}, port {port}"
        await self._write(
            """
            INSERT INTO hives (id, host, port, status, devices, created_at_ms, updated_at_ms, wanted)
            VALUES (?1, ?2, coalesce(?3, ?5), 'pending', NULL, ?4, ?4, 1)
            ON CONFLICT (id) DO UPDATE
            SET host = ?2, port = coalesce(?3, port), wanted = 1, updated_at_ms = ?4
            WHERE (host, port, wanted) IS NOT (?2, coalesce(?3, port), 1)
            """,
            (hive_id, host, port, now, DEFAULT_PORT),
            _Change(hive_id, f"hive {hive_id} ({at}) is wanted in the hive catalog", by),
        )
        row = await self.hive(hive_id)
        if row is None:
            raise CatalogFailed(f"hive {hive_id} was removed while it was added", hint="Add it again.")
        return row

    async def set_online(self, hive_id: str, devices: Devices, *, by: Actor | None = None) -> None:
        """Store the devices and the status 'online', in one transaction; who came online is wanted."""
        stored = json.dumps(encode(devices), ensure_ascii=False)
        await self._write(
            """
            UPDATE hives SET devices = ?1, status = 'online', wanted = 1, updated_at_ms = ?2
            WHERE id = ?3 AND (devices, status, wanted) IS NOT (?1, 'online', 1)
            """,
            (stored, now_ms(), hive_id),
            _Change(hive_id, f"hive {hive_id} is online in the hive catalog, with its devices", by),
        )

    async def set_devices(self, hive_id: str, devices: Devices, *, by: Actor | None = None) -> None:
        """Store the devices of a hive that goes on as it is; nothing is written where they are the same."""
        stored = json.dumps(encode(devices), ensure_ascii=False)
        await self._write(
            """
            UPDATE hives SET devices = ?1, updated_at_ms = ?2
            WHERE id = ?3 AND devices IS NOT ?1
            """,
            (stored, now_ms(), hive_id),
            _Change(hive_id, f"hive {hive_id} has other devices in the hive catalog", by),
        )

    async def set_status(
        self, hive_id: str, status: Status, *, wanted: bool | None = None, by: Actor | None = None
    ) -> None:
        """Store a change of status; nothing is written where there is none."""
        wish = {None: "", True: " and wanted", False: " and not wanted"}[wanted]
        await self._write(
            """
            UPDATE hives SET status = ?1, wanted = coalesce(?2, wanted), updated_at_ms = ?3
            WHERE id = ?4 AND (status, wanted) IS NOT (?1, coalesce(?2, wanted))
            """,
            (status, wanted, now_ms(), hive_id),
            # Who comes and goes is no deed, and would push out what people did.
            _Change(
                hive_id,
                f"hive {hive_id} is {status}{wish} in the hive catalog",
                by,
                is_audited=wanted is not None,
            ),
        )

    async def touch(self, hive_id: str) -> None:
        """Write of a hive that it was looked at: CatalogFailed where nothing can be written now."""

        def write() -> None:
            with self._transaction():
                self._connection.execute(
                    "UPDATE hives SET updated_at_ms = ? WHERE id = ?", (now_ms(), hive_id)
                )

        await self._run(write, "write")

    async def remove(self, hive_id: str, *, by: Actor | None = None) -> bool:
        """Was there such a hive?"""
        change = _Change(hive_id, f"hive {hive_id} is removed from the hive catalog", by)
        return await self._write("DELETE FROM hives WHERE id = ?", (hive_id,), change) > 0

    # Hives on other machines

    async def join(self, asked: Joining, *, by: Actor) -> Row:
        """Take a token's use and make the row, or give the one of this machine another credential, in one.

        BadToken, or NameTaken where the name is another machine's, or the machine has another name.
        """
        now = now_ms()
        changes: list[_Change] = []

        def write() -> Row:
            with self._transaction():
                self._check_token(asked, now)
                self._check_name(asked)
                spend = "UPDATE tokens SET uses_left = uses_left - 1 WHERE id = ?"
                self._connection.execute(spend, (asked.token_id,))
                self._connection.execute(
                    """
                    INSERT INTO hives (id, host, port, status, devices, created_at_ms, updated_at_ms, wanted,
                                       machine, credential, address)
                    VALUES (?1, ?1, ?2, 'pending', NULL, ?3, ?3, 1, ?4, ?5, ?6)
                    ON CONFLICT (id) DO UPDATE
                    SET credential = ?5, address = ?6, wanted = 1, updated_at_ms = ?3
                    """,
                    (asked.hive_id, DEFAULT_PORT, now, asked.machine, asked.credential, asked.address),
                )
                told = f"hive {asked.hive_id} joined from {asked.address} with token {asked.token_id}"
                changes.append(_Change(asked.hive_id, f"{told}, as credential {asked.credential}", by))
                self._note(changes[0])
            self._tell(changes[0])
            self._tell_wanted()
            row = self._find(asked.hive_id)
            assert row is not None
            return row

        return await self._run(write, "write")

    async def check_join(self, asked: Joining) -> None:
        """As join() begins, with nothing taken: BadToken or NameTaken."""

        def look() -> None:
            self._check_token(asked, now_ms())
            self._check_name(asked)

        await self._run(look, "read")

    def _check_token(self, asked: Joining, now: int) -> None:
        query = "SELECT hash, hive, uses_left, expires_at_ms, is_revoked FROM tokens WHERE id = ?"
        found = self._connection.execute(query, (asked.token_id,)).fetchone()
        if found is None or not hmac.compare_digest(found[0], asked.token_hash):
            raise BadToken("the token is not one of this queen's", hint=ANOTHER)
        _, hive, uses_left, expires_at_ms, is_revoked = found
        fault = None
        if is_revoked:
            fault = "has been revoked"
        elif not uses_left:
            fault = "is spent"
        elif expires_at_ms <= now:
            fault = "has expired"
        elif hive is not None and not is_same_name(hive, asked.hive_id):
            fault = f"is for the hive {hive}"
        if fault is not None:
            raise BadToken(f"token {asked.token_id} {fault}", hint=ANOTHER)

    def _check_name(self, asked: Joining) -> None:
        # Its own row before another's, should there be two from before 0.5.0 that differ by case alone.
        found = self._connection.execute(
            _SELECT + " WHERE id = ?1 COLLATE NOCASE ORDER BY id = ?1 DESC LIMIT 1", (asked.hive_id,)
        ).fetchone()
        there = _row(found) if found else None
        if there is not None and there.machine != asked.machine:
            raise NameTaken(
                f"the name {there.id} is taken: it is that of the hive at {there.address or there.host}",
                hint=f"Join under another name, or on the queen's machine: rbeectl remove-hive {there.id}",
                field="name",
            )
        found = self._connection.execute(
            "SELECT id, address FROM hives WHERE machine = ? AND id <> ?", (asked.machine, asked.hive_id)
        ).fetchone()
        if found is not None:
            raise NameTaken(
                f"this machine is the hive {found[0]} already, last heard of from {found[1]}: "
                "or both were made from one image",
                hint=f"On the queen's machine: rbeectl remove-hive {found[0]}\nOf a cloned image, on the "
                "clone: sudo sh -c 'rm /etc/machine-id && systemd-machine-id-setup'; then boot it again",
                field="name",
            )

    async def set_address(self, hive_id: str, address: str, *, by: Actor) -> None:
        await self._write(
            "UPDATE hives SET address = ?1, updated_at_ms = ?2 WHERE id = ?3 AND address IS NOT ?1",
            (address, now_ms(), hive_id),
            _Change(hive_id, f"hive {hive_id} is at {address}", by),
        )

    async def set_labels(
        self, hive_id: str, labels: Mapping[str, str], remove: Collection[str], *, by: Actor
    ) -> Row:
        """Set some and take some away; UnknownHive, or BadInput for more than LABELS_MAX."""

        def write() -> Row:
            with self._transaction():
                row = self._find(hive_id)
                if row is None:
                    raise UnknownHive(f"hive '{hive_id}' is not in the hive catalog", field="hive_id")
                kept = {key: value for key, value in row.labels.items() if key not in remove}
                changed = kept | dict(labels)
                if len(changed) > LABELS_MAX:
                    raise BadInput(f"a hive may have {LABELS_MAX} labels at most", field="set")
                told = ", ".join(f"{key}={value}" for key, value in sorted(changed.items())) or "none"
                change = _Change(hive_id, f"the labels of hive {hive_id} are {told}", by)
                is_other = changed != row.labels
                if is_other:
                    self._connection.execute(
                        "UPDATE hives SET labels = ?, updated_at_ms = ? WHERE id = ?",
                        (json.dumps(changed, sort_keys=True), now_ms(), hive_id),
                    )
                    self._note(change)
            if is_other:
                self._tell(change)
            return replace(row, labels=changed)

        return await self._run(write, "write")

    async def set_cordon(self, hive_id: str, reason: str | None, *, by: Actor) -> None:
        told = f"hive {hive_id} is not cordoned any more" if reason is None else None
        await self._write(
            "UPDATE hives SET cordoned = ?1, updated_at_ms = ?2 WHERE id = ?3 AND cordoned IS NOT ?1",
            (reason, now_ms(), hive_id),
            _Change(hive_id, told or f"hive {hive_id} is cordoned: {reason}", by),
        )

    # Tokens

    async def add_token(self, token: TokenView, token_hash: str, *, by: Actor) -> None:
        """TooMany where TOKENS_MAX can still be used."""
        bound_to = f" for the hive {token.hive}" if token.hive else ""
        uses = "1 use" if token.uses_left == 1 else f"{token.uses_left} uses"
        change = _Change(token.hive, f"token {token.id}{bound_to} was made, for {uses}", by)

        def write() -> None:
            with self._transaction():
                self._connection.execute(
                    """
                    DELETE FROM tokens WHERE id IN (
                        SELECT id FROM tokens WHERE is_revoked OR uses_left = 0 OR expires_at_ms <= ?1
                        ORDER BY created_at_ms LIMIT max(0, (SELECT count(*) FROM tokens) - ?2 + 1)
                    )
                    """,
                    (token.created_at_ms, TOKENS_MAX),
                )
                (count,) = self._connection.execute("SELECT count(*) FROM tokens").fetchone()
                if count >= TOKENS_MAX:
                    raise TooMany(f"there are {count} tokens", hint="rbeectl token revoke")
                self._connection.execute(
                    """
                    INSERT INTO tokens (id, hash, hive, uses_left, created_at_ms, expires_at_ms)
                    VALUES (?, ?, ?, ?, ?, ?)
                    """,
                    (
                        token.id, token_hash, token.hive, token.uses_left, token.created_at_ms,
                        token.expires_at_ms,
                    ),
                )  # fmt: skip
                self._note(change)
            self._tell(change)

        await self._run(write, "write")

    async def tokens(self) -> list[TokenView]:
        """All that are kept, the newest last."""
        query = _SELECT_TOKENS + " ORDER BY created_at_ms"
        return await self._run(lambda: [_token(found) for found in self._connection.execute(query)], "read")

    async def revoke_token(self, token_id: str, *, by: Actor) -> TokenView:
        """UnknownToken where there is none; one that is revoked already stays so."""
        await self._write(
            "UPDATE tokens SET is_revoked = 1 WHERE id = ? AND NOT is_revoked",
            (token_id,),
            _Change(None, f"token {token_id} is revoked", by),
        )
        found = await self._run(
            lambda: self._connection.execute(_SELECT_TOKENS + " WHERE id = ?", (token_id,)).fetchone(), "read"
        )
        if found is None:
            raise UnknownToken(f"there is no token {token_id}", hint="rbeectl token list", field="token_id")
        return _token(found)

    async def audit(self, limit: int, hive_id: str | None) -> list[AuditEntry]:
        """The last entries, the newest last; of one hive, or of all."""
        query = """
            SELECT id, at_ms, text, hive, actor_uid, actor_credential, job_id FROM audit
            WHERE ?1 IS NULL OR hive = ?1 COLLATE NOCASE ORDER BY id DESC LIMIT ?2
            """
        found = await self._run(lambda: self._connection.execute(query, (hive_id, limit)).fetchall(), "read")
        return [_entry(entry) for entry in reversed(found)]

    # All of it

    async def check(self) -> CatalogReport:
        """Read it all, as another process would; CatalogUnusable if that shows damage."""
        return await self._read(self._check)

    async def copy(self) -> BinaryIO:
        """A sound copy of it, of one moment: an open file without a name, for the caller to close."""
        self._copies = [copy for copy in self._copies if not copy.closed]
        if self._copying + len(self._copies) >= COPIES_MAX:
            raise TooMany(
                f"{COPIES_MAX} copies of the hive catalog are being made or sent, and no more at once",
                hint="Ask again when one is done.",
            )
        self._copying += 1
        try:
            copy = await self._read(self._copy)
        finally:
            self._copying -= 1
        self._copies.append(copy)
        return copy

    def _check(self, goes_on: Callable[[], bool]) -> CatalogReport:
        return catalogfile.check(
            self._path,
            newest=len(MIGRATIONS),
            is_thorough=True,
            reads_rows=True,
            busy_timeout=BUSY_TIMEOUT,
            way_out=WAY_OUT_AWAKE,
            goes_on=goes_on,
        )

    def _copy(self, goes_on: Callable[[], bool]) -> BinaryIO:
        def progress(_status: int, _left: int, _all: int) -> None:
            if not goes_on():
                raise TimeoutError

        uri = f"{self._path.absolute().as_uri()}?mode=ro"
        try:
            with (
                temporary_folder("catalog-", CatalogFailed) as folder,
                closing(sqlite3.connect(uri, uri=True, timeout=BUSY_TIMEOUT, isolation_level=None)) as source,
            ):
                copy = folder / "catalog.db"
                # One transaction, or each write meanwhile would begin the copy anew.
                source.execute("BEGIN")
                source.execute("SELECT count(*) FROM sqlite_schema").fetchone()
                with closing(sqlite3.connect(copy, isolation_level=None)) as target:
                    target.execute("PRAGMA synchronous = OFF")
                    source.backup(target, pages=256, progress=progress)
                    # A single file: no log has to travel with it.
                    target.execute("PRAGMA journal_mode = DELETE")
                catalogfile.check(
                    copy,
                    name=self._path,
                    newest=len(MIGRATIONS),
                    is_thorough=True,
                    way_out=WAY_OUT_AWAKE,
                    goes_on=goes_on,
                )
                return copy.open("rb")
        except (sqlite3.Error, OSError) as error:
            if isinstance(error, TimeoutError) or catalogfile.is_damage(error):
                raise
            found = trouble(Path(tempfile.gettempdir()))
            if found is None:
                raise
            raise no_temporary_folder(found, CatalogFailed) from error

    async def _read(self, work: Callable[[Callable[[], bool]], Result]) -> Result:
        """Have the reading thread do it; what takes too long, or until after the queen's end, is cut off."""
        deadline = time.monotonic() + READ_TIMEOUT

        def goes_on() -> bool:
            return not self._is_closing and time.monotonic() < deadline

        def read() -> Result:
            try:
                return work(goes_on)
            except (sqlite3.Error, OSError) as error:
                if (
                    isinstance(error, TimeoutError)
                    or catalogfile.error_code(error) == sqlite3.SQLITE_INTERRUPT
                ):
                    raise TimedOut(
                        f"reading all of {self._path} took longer than {READ_TIMEOUT:g} s", hint="Ask again."
                    ) from error
                raise failure(CatalogFailed, self._path, error, way_out=WAY_OUT_AWAKE) from error

        return await asyncio.get_running_loop().run_in_executor(self._reading, read)

    # In the thread

    async def _write(self, statement: str, values: tuple[object, ...], change: _Change) -> int:
        """The number of rows that were written; where it is not 0, the journal is told."""

        def write() -> int:
            with self._transaction():
                count = self._connection.execute(statement, values).rowcount
                if count > 0:
                    self._note(change)
            # In this thread: who waits for the write may be cancelled, and it is made all the same.
            if count > 0:
                self._tell(change)
            self._tell_wanted()
            return count

        return await self._run(write, "write")

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        self._connection.execute("BEGIN IMMEDIATE")
        try:
            yield
            self._connection.execute("COMMIT")
        except BaseException:
            if self._connection.in_transaction:  # SQLite itself ends it where the disk is full
                self._connection.execute("ROLLBACK")
            raise

    def _note(self, change: _Change) -> None:
        """The audit is written with what it is about, or neither is."""
        if change.is_audited:
            actor = change.actor()
            self._connection.execute(
                """
                INSERT INTO audit (at_ms, text, hive, actor_uid, actor_credential, job_id)
                VALUES (?, ?, ?, ?, ?, ?)
                """,
                (
                    now_ms(),
                    change.text[:TEXT_LIMIT],  # the journal has all of it
                    change.hive_id,
                    int(actor["actor_uid"]) if "actor_uid" in actor else None,
                    actor.get("actor_credential"),
                    actor.get("job_id"),
                ),
            )
            self._make_room(change, actor)

    def _make_room(self, change: _Change, actor: Actor) -> None:
        """Drop the oldest entries of that sort: what an operator did never gives way to machines."""
        daemons = list(self._find_daemons())
        uid = int(actor["actor_uid"]) if "actor_uid" in actor else None
        is_machine = uid is None or ("job_id" not in actor and uid in daemons)
        kept = AUDIT_KEPT_MACHINES if is_machine else AUDIT_KEPT
        self._connection.execute(_DROP_OLDEST, (json.dumps(daemons), is_machine, None, kept))
        if is_machine and change.hive_id is not None:
            about = (json.dumps(daemons), is_machine, change.hive_id, AUDIT_KEPT_A_HIVE)
            self._connection.execute(_DROP_OLDEST, about)

    def _tell(self, change: _Change) -> None:
        about = {} if change.hive_id is None else {"hive": change.hive_id}
        self._journal.narrate(CATALOG_CHANGED, change.text, **about, **change.actor())

    def _tell_wanted(self) -> None:
        found = self._connection.execute("SELECT EXISTS (SELECT 1 FROM hives WHERE wanted)")
        (is_wanted,) = found.fetchone()
        try:
            self._wanted(bool(is_wanted))
        except OSError as error:
            # The row counts, and is written; what is lost is that the next boot wakes the queen.
            log.warning("the next boot may not do as the hive catalog says: %s", error)

    async def _run(self, work: Callable[[], Result], operation: Literal["read", "write"]) -> Result:
        def run() -> Result:
            try:
                with self._metrics.catalog_timed(operation):
                    return work()
            except sqlite3.Error as error:
                raise failure(CatalogFailed, self._path, error, way_out=WAY_OUT_AWAKE) from error

        return await asyncio.get_running_loop().run_in_executor(self._thread, run)

    def _find(self, hive_id: str) -> Row | None:
        found = self._connection.execute(_SELECT + " WHERE id = ?", (hive_id,)).fetchone()
        return _row(found) if found else None


@dataclass(frozen=True, slots=True)
class _Change:
    """What a write means, as the journal tells it once the write is made."""

    hive_id: str | None
    text: str
    by: Actor | None
    is_audited: bool = True

    def actor(self) -> Actor:
        return self.by or {"actor_uid": str(os.geteuid()), "actor_pid": str(os.getpid())}


def _text(stored: bytes) -> str:
    """SQLite checks no text; of one that is no UTF-8 Python would raise an error for the whole query."""
    return stored.decode(errors="backslashreplace")


_SELECT = """
    SELECT id, host, port, status, devices, created_at_ms, updated_at_ms, wanted, machine, credential,
           address, labels, cordoned
    FROM hives"""


@dataclass(frozen=True)
class _Stored:
    """A row of the table hives as a queen writes it."""

    id: Name
    host: Name
    port: Port
    status: Status
    created_at_ms: Count
    updated_at_ms: Count
    wanted: bool
    machine: Text | None
    credential: Text | None
    address: Text | None
    labels: Annotated[tuple[Label, ...], Limit(0, LABELS_MAX)]
    cordoned: Text | None
    problem: Text | None = None


def _row(found: tuple[Any, ...]) -> Row:
    hive_id, host, port, status, devices, created_at_ms, updated_at_ms, wanted, *rest = found
    machine, credential, address, labels, cordoned = rest
    stored = read_row(
        _Stored,
        {
            "id": hive_id,
            "host": host,
            "port": port,
            "status": status,
            "created_at_ms": created_at_ms,
            "updated_at_ms": updated_at_ms,
            "wanted": bool(wanted),
            "machine": machine,
            "credential": credential,
            "address": address,
            "labels": _labels(labels),
            "cordoned": cordoned,
        },
    )
    known, problem = _devices(devices)
    return Row(
        stored.id, stored.host, stored.port, stored.status, known, stored.created_at_ms, stored.updated_at_ms,
        stored.wanted, stored.machine, stored.credential, stored.address,
        {label.key: label.value for label in stored.labels}, stored.cordoned,
        "; ".join(filter(None, [stored.problem, problem]))[:TEXT_LIMIT] or None,
    )  # fmt: skip


def _devices(stored: str | None) -> tuple[Devices | None, str | None]:
    """The devices, or what is wrong with them; the hive is asked for them anew at its next start."""
    if stored is None:
        return None, None
    try:
        return decode(Devices, json.loads(stored), "devices"), None
    except ValueError:
        return None, "devices must be JSON"
    except BadInput as error:
        return None, error.message


def _labels(stored: str) -> Any:
    """As a shape's labels are; what is not a JSON object is passed on, to be found wrong."""
    try:
        labels = json.loads(stored)
    except ValueError:
        return stored
    return (
        [{"key": key, "value": value} for key, value in labels.items()]
        if isinstance(labels, dict)
        else labels
    )


_DROP_OLDEST = """
    DELETE FROM audit WHERE id IN (
        SELECT id FROM audit
        WHERE (actor_uid IS NULL
               OR (job_id IS NULL AND actor_uid IN (SELECT value FROM json_each(?1)))) = ?2
            AND (?3 IS NULL OR hive = ?3)
        ORDER BY id DESC LIMIT -1 OFFSET ?4
    )"""
"""Of machines (?2 is 1: by no user, or by a daemon's of its own) or of operators; of one hive, or of all."""

_SELECT_TOKENS = "SELECT id, hive, uses_left, created_at_ms, expires_at_ms, is_revoked FROM tokens"


def _token(found: tuple[Any, ...]) -> TokenView:
    names = ("id", "hive", "uses_left", "created_at_ms", "expires_at_ms", "is_revoked")
    return read_row(TokenView, dict(zip(names, (*found[:-1], bool(found[-1])), strict=True)))


def _entry(found: tuple[Any, ...]) -> AuditEntry:
    names = ("id", "at_ms", "text", "hive", "actor_uid", "actor_credential", "job_id")
    entry = dict(zip(names, found, strict=True))
    # 0.4.0 took a uid for a number with a sign, and stored those from 2**31 on as negative ones.
    if entry["actor_uid"] is not None and -(2**31) <= entry["actor_uid"] < 0:
        entry["actor_uid"] += 2**32
    return read_row(AuditEntry, entry)


def _is_there(path: Path) -> bool:
    """Is there a catalog? CatalogUnusable where only parts of one are."""
    if catalogfile.unfinished_restore(path).exists():
        raise CatalogUnusable(f"the restore of {path} was cut off in its middle", hint=WAY_OUT)
    if os.path.lexists(path):
        return True
    for log in (log_of(path, suffix) for suffix in LOGS):
        if log.exists() and log.stat().st_size:
            # SQLite would take it for the log of the new catalog.
            raise CatalogUnusable(f"{path} is missing, and its log {log} is there", hint=WAY_OUT)
        log.unlink(missing_ok=True)
    return False


def _make(path: Path, lock: Lock) -> None:
    """Make an empty catalog aside and then move it there: it is whole, or it is not."""
    new = Path(f"{path}.creating")
    new.unlink(missing_ok=True)
    try:
        with closing(sqlite3.connect(new, isolation_level=None)) as connection:
            # Nobody needs what is half-made.
            connection.execute("PRAGMA journal_mode = MEMORY")
            connection.execute("PRAGMA synchronous = OFF")
            _migrate(connection)
        with new.open("rb") as made:
            os.fsync(made.fileno())
        new.rename(path)
        lock.sync()
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _keep_copy(connection: sqlite3.Connection, path: Path, lock: Lock) -> None:
    """Before a migration, for who goes back to the release before: she refuses what a newer one wrote."""
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    if version in (0, len(MIGRATIONS)):
        return
    copy = path.with_name(f"{path.stem}-{version}{path.suffix}")
    new = copy.with_name(f"{copy.name}.new")
    new.unlink(missing_ok=True)
    try:
        connection.execute("VACUUM INTO ?", (os.fspath(new),))
        with new.open("rb") as made:
            os.fsync(made.fileno())
        new.rename(copy)
        lock.sync()
    finally:
        with suppress(OSError):
            new.unlink(missing_ok=True)


def _migrate(connection: sqlite3.Connection) -> None:
    (version,) = connection.execute("PRAGMA user_version").fetchone()
    for number, statements in enumerate(MIGRATIONS[version:], start=version + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in statements:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {number}")
        connection.execute("COMMIT")


# What is wrong, and the cure


def failure(
    kind: type[CatalogFailed] | type[CatalogUnusable],
    path: Path,
    error: sqlite3.Error | OSError,
    *,
    way_out: str | None = None,
) -> RbeeError:
    """What keeps the catalog from being used, in words. It may write a small file to find out."""
    if catalogfile.is_damage(error):
        return kind(f"{path} is damaged or no hive catalog: {error}", hint=way_out)
    if catalogfile.error_code(error) in (sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED):
        if (lack := _lack_of(path.parent)) is not None:
            return catalogfile.no_place(kind, path, lack)
        return kind(f"{path} is kept locked by another process ({error})", hint="sudo rbeectl doctor")
    folder = path.parent
    if catalogfile.error_code(error) == sqlite3.SQLITE_FULL:
        cause: OSError | None = OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    else:
        # SQLite itself says no more than 'disk I/O error' or 'unable to open database file'.
        cause = trouble(folder)
    number = cause.errno if cause is not None else 0
    if number in (errno.ENOSPC, errno.EDQUOT):
        return kind(
            f"the disk is full, and {path} cannot be written: make room, then ask again",
            hint=f"df -h {folder}",
        )
    if number == errno.EROFS:
        return kind(
            f"{path} cannot be written: {folder} is read-only", hint=_cure_for_read_only(folder, os.environ)
        )
    if number in (errno.ENOENT, errno.ENOTDIR):
        return kind(
            f"{path} cannot be made: there is no folder {folder}",
            hint=f"sudo install -d -o queen-rbee -g queen-rbee -m 0700 {folder}",
        )
    for one in (folder, path, *(log_of(path, suffix) for suffix in (*LOGS, "-shm"))):
        if one.exists() and not os.access(one, os.R_OK | os.W_OK):
            mode = "0700" if one is folder else "0600"
            return kind(
                f"{path} cannot be used: {one} is not open to the queen",
                hint=f"sudo chown queen-rbee: {one}\nsudo chmod {mode} {one}",
            )
    if cause is None and (lack := _lack_of(folder)) is not None:
        return catalogfile.no_place(kind, path, lack)
    said = error if cause is None else cause.strerror
    return kind(f"{path} cannot be used: {said}", hint=f"sudo ls -la {folder}\ndf -h {folder}")


def _lack_of(folder: Path) -> str | None:
    try:
        return catalogfile.lack_of(folder)
    except OSError:
        return None


def _cure_for_read_only(folder: Path, environ: Mapping[str, str]) -> str:
    if environ.get("STATE_DIRECTORY", str(folder)) != str(folder):
        return "man rbee.conf"  # Database= says which folders the service may write to
    # The mount as a person sees it: in the service's own view each folder it may write to is one.
    return f"sudo mount -o remount,rw $(findmnt -n -o TARGET -T {folder})"
