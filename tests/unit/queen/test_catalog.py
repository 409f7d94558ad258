"""The hive catalog: real SQLite files, whole, broken, foreign and full."""

from __future__ import annotations

import asyncio
import errno
import json
import os
import re
import shutil
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Awaitable, Iterator
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any, TypeVar

import pytest

from rbee.catalogfile import APPLICATION_ID, VERSION, WAY_OUT, WAY_OUT_AWAKE, Lock
from rbee.contracts import Cpu, Devices, Gpu, TokenView, encode
from rbee.errors import CatalogFailed, CatalogInUse, CatalogUnusable, TimedOut, TooMany
from rbee.narration import CATALOG_CHANGED, Event, Narrator
from rbee.queen.catalog import COPIES_MAX, MIGRATIONS, Catalog, Row
from tests.unit.serving import until

REPOSITORY = Path(__file__).parents[3]

DEVICES = Devices(
    Cpu("größe cpu", 1, 2, 4, 8 * 2**30),
    (Gpu(0, "nvidia", "A", "GPU-a", 24 * 2**30, "550.54", "0000:01:00.0"),),
)

Result = TypeVar("Result")


@pytest.fixture
def path(tmp_path: Path) -> Path:
    """Where the catalog is, in a folder of its own."""
    (tmp_path / "state").mkdir()
    return tmp_path / "state/catalog.db"


@pytest.fixture
def catalog(path: Path) -> Iterator[Catalog]:
    catalog = Catalog.open(path)
    yield catalog
    catalog.close()


def run(work: Awaitable[Result]) -> Result:
    async def scenario() -> Result:
        return await work

    return asyncio.run(scenario())


def stored(path: Path, statement: str = "SELECT * FROM hives ORDER BY id") -> list[tuple[Any, ...]]:
    """What another process reads in the file."""
    with closing(sqlite3.connect(path)) as connection:
        return connection.execute(statement).fetchall()


def contents(folder: Path) -> dict[str, bytes]:
    # SQLite's shared memory is no part of what is stored.
    return {
        one.name: one.read_bytes()
        for one in folder.iterdir()
        if one.is_file() and not one.name.endswith("-shm")
    }


# The table


def test_the_table_has_the_seed_s_columns_and_whether_the_hive_is_wanted(
    catalog: Catalog, path: Path
) -> None:
    columns = stored(path, "SELECT name, type, \"notnull\", pk FROM pragma_table_info('hives')")

    assert columns == [
        ("id", "TEXT", 1, 1),
        ("host", "TEXT", 1, 0),
        ("port", "INTEGER", 1, 0),
        ("status", "TEXT", 1, 0),
        ("devices", "TEXT", 0, 0),
        ("created_at_ms", "INTEGER", 1, 0),
        ("updated_at_ms", "INTEGER", 1, 0),
        ("wanted", "INTEGER", 1, 0),
        # Of hives on other machines.
        ("machine", "TEXT", 0, 0),
        ("credential", "TEXT", 0, 0),
        ("address", "TEXT", 0, 0),
        ("labels", "TEXT", 1, 0),
        ("cordoned", "TEXT", 0, 0),
    ]


def test_the_file_says_whose_it_is_and_which_version(catalog: Catalog, path: Path) -> None:
    assert stored(path, "PRAGMA application_id") == [(int.from_bytes(b"rbee", "big"),)]
    assert stored(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert stored(path, "PRAGMA journal_mode") == [("wal",)]


def test_an_acknowledged_write_is_on_the_disk(catalog: Catalog) -> None:
    assert catalog._connection.execute("PRAGMA synchronous").fetchone() == (2,)  # FULL


def test_a_catalog_that_is_closed_is_one_file_and_opens_again(path: Path) -> None:
    first = Catalog.open(path)
    row = run(first.add("localhost", "localhost", 8600))
    first.close()
    assert list(contents(path.parent)) == ["catalog.db"]

    second = Catalog.open(path)
    rows = run(second.hives())
    second.close()

    assert rows == [row]


def test_a_queen_that_was_killed_loses_nothing(catalog: Catalog, path: Path, tmp_path: Path) -> None:
    row = run(catalog.add("localhost", "localhost", 8600))
    # What a kill leaves behind: the file and its log, neither of them closed.
    shutil.copytree(path.parent, tmp_path / "after")

    again = Catalog.open(tmp_path / "after/catalog.db")
    rows = run(again.hives())
    again.close()

    assert rows == [row]


# Rows


def test_a_hive_is_added_as_pending_and_wanted(catalog: Catalog, path: Path) -> None:
    row = run(catalog.add("localhost", "localhost", 8600))

    assert row == Row(
        "localhost", "localhost", 8600, "pending", None, row.created_at_ms, row.created_at_ms, True
    )
    of_others = (None, None, None, "{}", None)
    assert stored(path) == [
        ("localhost", "localhost", 8600, "pending", None, row.created_at_ms, row.created_at_ms, 1, *of_others)
    ]
    assert row.created_at_ms > 1_700_000_000_000


def test_adding_twice_keeps_one_row_its_devices_and_when_it_was_made(
    catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.queen.catalog.now_ms", lambda: 1)
    run(catalog.add("localhost", "localhost", 8600))
    monkeypatch.setattr("rbee.queen.catalog.now_ms", lambda: 2)
    run(catalog.set_online("localhost", DEVICES))
    monkeypatch.setattr("rbee.queen.catalog.now_ms", lambda: 3)

    row = run(catalog.add("localhost", "localhost", 8600))

    assert row == Row("localhost", "localhost", 8600, "online", DEVICES, 1, 2, True)
    assert len(stored(path)) == 1


def test_adding_again_takes_the_new_port_and_wants_the_hive(
    catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.queen.catalog.now_ms", lambda: 1)
    run(catalog.add("localhost", "localhost", 8600))
    run(catalog.set_status("localhost", "offline", wanted=False))
    monkeypatch.setattr("rbee.queen.catalog.now_ms", lambda: 2)

    row = run(catalog.add("localhost", "localhost", 8601))

    assert row == Row("localhost", "localhost", 8601, "offline", None, 1, 2, True)


def test_going_online_stores_status_and_devices_together(catalog: Catalog, path: Path) -> None:
    run(catalog.add("localhost", "localhost", 8600))

    run(catalog.set_online("localhost", DEVICES))

    row = run(catalog.hive("localhost"))
    assert row is not None
    assert (row.status, row.devices) == ("online", DEVICES)
    ((status, devices),) = stored(path, "SELECT status, devices FROM hives")
    assert status == "online"
    assert json.loads(devices)["cpu"]["model"] == "größe cpu"


def test_a_change_of_status_is_written_once(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    run(catalog.add("localhost", "localhost", 8600))
    run(catalog.set_online("localhost", DEVICES))
    for now in (5, 6):
        monkeypatch.setattr("rbee.queen.catalog.now_ms", lambda now=now: now)
        run(catalog.set_status("localhost", "offline"))

    row = run(catalog.hive("localhost"))

    assert row is not None
    assert (row.status, row.wanted, row.devices, row.updated_at_ms) == ("offline", True, DEVICES, 5)


def test_other_devices_are_stored_and_nothing_else_is_touched(
    catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run(catalog.add("localhost", "localhost", 8600))
    run(catalog.set_online("localhost", DEVICES))
    run(catalog.set_status("localhost", "offline", wanted=False))
    fewer = replace(DEVICES, gpus=())
    for now in (5, 6):
        monkeypatch.setattr("rbee.queen.catalog.now_ms", lambda now=now: now)
        run(catalog.set_devices("localhost", fewer))

    row = run(catalog.hive("localhost"))

    assert row is not None
    assert (row.devices, row.status, row.wanted, row.updated_at_ms) == (fewer, "offline", False, 5)


def test_what_is_not_there_is_not_there(catalog: Catalog) -> None:
    assert run(catalog.hive("nobody")) is None
    assert run(catalog.remove("nobody")) is False
    run(catalog.set_status("nobody", "offline"))
    run(catalog.set_online("nobody", DEVICES))
    run(catalog.set_devices("nobody", DEVICES))
    assert run(catalog.hives()) == []


def test_a_hive_is_removed_once(catalog: Catalog) -> None:
    run(catalog.add("localhost", "localhost", 8600))

    assert [run(catalog.remove("localhost")) for _ in range(2)] == [True, False]
    assert run(catalog.hives()) == []


class Audit(Narrator):
    """What the journal would get."""

    def __init__(self) -> None:
        self.told: list[tuple[str, dict[str, str]]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        assert event is CATALOG_CHANGED
        self.told.append((text, fields))


BY = {"actor_uid": "1000", "actor_pid": "42", "job_id": "7" * 32}


@pytest.fixture
def audit() -> Audit:
    return Audit()


@pytest.fixture
def audited(path: Path, audit: Audit) -> Iterator[Catalog]:
    catalog = Catalog.open(path, audit)
    yield catalog
    catalog.close()


def test_each_change_is_told_once_with_who_asked_for_it(audited: Catalog, audit: Audit) -> None:
    async def scenario() -> None:
        await audited.add("a", "a", None, by=BY)
        await audited.set_online("a", DEVICES, by=BY)
        await audited.set_devices("a", replace(DEVICES, gpus=()), by=BY)
        await audited.set_status("a", "offline", wanted=False, by=BY)
        await audited.add("a", "a", 1, by=BY)
        await audited.remove("a", by=BY)

    run(scenario())

    assert [text for text, _ in audit.told] == [
        "hive a (host a) is wanted in the hive catalog",
        "hive a is online in the hive catalog, with its devices",
        "hive a has other devices in the hive catalog",
        "hive a is offline and not wanted in the hive catalog",
        "hive a (host a, port 1) is wanted in the hive catalog",
        "hive a is removed from the hive catalog",
    ]
    assert all(fields == {"hive": "a", **BY} for _, fields in audit.told)


def test_what_nobody_asked_for_is_the_queens_own(audited: Catalog, audit: Audit) -> None:
    run(audited.add("a", "a", None))

    ((_, fields),) = audit.told
    assert fields == {"hive": "a", "actor_uid": str(os.geteuid()), "actor_pid": str(os.getpid())}


def test_a_write_that_changes_nothing_is_not_told(audited: Catalog, audit: Audit) -> None:
    async def scenario() -> None:
        await audited.add("a", "a", 1, by=BY)
        audit.told.clear()
        await audited.add("a", "a", 1, by=BY)
        await audited.set_status("a", "pending", by=BY)
        await audited.set_status("b", "offline", by=BY)
        await audited.set_online("b", DEVICES, by=BY)
        await audited.remove("b", by=BY)

    run(scenario())

    assert audit.told == []


def test_a_write_that_fails_is_not_told(audited: Catalog, audit: Audit) -> None:
    async def scenario() -> None:
        await audited.add("a", "a", 1, by=BY)
        audit.told.clear()
        audited._connection.execute("PRAGMA query_only = 1")
        for work in (
            audited.add("b", "b", 1, by=BY),
            audited.set_online("a", DEVICES, by=BY),
            audited.set_status("a", "offline", by=BY),
            audited.remove("a", by=BY),
        ):
            with pytest.raises(CatalogFailed):
                await work

    run(scenario())

    assert audit.told == []


def test_a_write_is_told_also_when_nobody_waits_for_it_any_more(
    audited: Catalog, audit: Audit, path: Path
) -> None:
    async def scenario() -> None:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            adding = asyncio.ensure_future(audited.add("a", "a", 1, by=BY))
            await asyncio.sleep(0)
            # In the writer's thread, which waits for the other process.
            await until(lambda: audited._thread._work_queue.empty())
            adding.cancel()
            with pytest.raises(asyncio.CancelledError):
                await adding
            assert audit.told == []

    run(scenario())
    audited._thread.shutdown()

    assert stored(path, "SELECT id FROM hives") == [("a",)]
    assert [fields for _, fields in audit.told] == [{"hive": "a", **BY}]


def test_hives_come_in_the_order_of_their_ids(catalog: Catalog) -> None:
    for name in ("c", "a", "b"):
        run(catalog.add(name, name, 1))

    assert [row.id for row in run(catalog.hives())] == ["a", "b", "c"]


@pytest.mark.parametrize("text", ["{", "null", "[]", '{"cpu": {"colour": "red"}}'])
def test_devices_that_another_version_wrote_are_unknown_not_made_up(
    catalog: Catalog, path: Path, text: str
) -> None:
    run(catalog.add("localhost", "localhost", 8600))
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE hives SET devices = ?", (text,))

    row = run(catalog.hive("localhost"))

    assert row is not None
    assert row.devices is None


def spoil(path: Path, *statements: str) -> None:
    """As another program, or a queen before this one, may have left it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as connection:
        connection.execute("PRAGMA ignore_check_constraints = ON")
        for statement in statements:
            connection.execute(statement)


@pytest.mark.parametrize(
    ("column", "value", "complaint"),
    [
        ("id", "'no name!'", "id must be made of"),
        ("host", "''", "host must have 1 to 253 characters"),
        ("port", "0", "port must be from 1 to 65535"),
        ("status", "'asleep'", "status must be one of"),
        ("devices", "'{}'", "devices.cpu is missing"),
        ("devices", "'{'", "devices must be JSON"),
        ("created_at_ms", "-1", "created_at_ms must be from 0"),
        ("updated_at_ms", "1 << 62", "updated_at_ms must be from 0"),
        ("address", "printf('%.3000c', 'x')", "address must have 0 to 2000 characters"),
        ("labels", '\'{"no key!": "b"}\'', "labels[0].key must be made of"),
        ("labels", "'[1]'", "labels[0] must be a JSON object"),
        ("labels", "'{'", "labels must be a JSON array"),
        ("cordoned", "printf('%.3000c', 'x')", "cordoned must have 0 to 2000 characters"),
    ],
)
def test_a_bad_row_of_the_hives_is_shown_with_what_is_wrong_and_hides_no_other(
    catalog: Catalog, path: Path, column: str, value: str, complaint: str
) -> None:
    for hive_id in ("a", "b"):
        run(catalog.add(hive_id, hive_id, None))
        run(catalog.set_online(hive_id, DEVICES))

    spoil(path, f"UPDATE hives SET {column} = {value} WHERE id = 'a'")

    bad, good = sorted(run(catalog.hives()), key=lambda row: row.id == "b")
    assert bad.problem is not None
    assert complaint in bad.problem
    assert (good.id, good.problem, good.devices) == ("b", None, DEVICES)


def test_text_that_is_no_unicode_hides_no_other_row(catalog: Catalog, path: Path) -> None:
    run(catalog.add("a", "a", None))
    run(catalog.set_cordon("a", "x", by=BY))

    spoil(
        path,
        "UPDATE hives SET cordoned = CAST(x'ff41' AS TEXT)",
        "UPDATE audit SET text = CAST(x'ff' AS TEXT)",
    )

    (row,) = run(catalog.hives())
    assert row.cordoned == "\\xffA"
    assert {entry.text for entry in run(catalog.audit(10, None))} == {"\\xff"}


def test_the_audit_has_a_high_uid_as_a_queen_before_this_one_stored_it(catalog: Catalog, path: Path) -> None:
    run(catalog.add("a", "a", None, by={"actor_uid": "3420080244", "actor_pid": "1"}))
    run(catalog.add("b", "b", None, by={"actor_uid": "-874887052", "actor_pid": "1"}))

    entries = run(catalog.audit(10, None))

    assert [(entry.actor_uid, entry.problem) for entry in entries] == [(3420080244, None)] * 2


def test_a_bad_entry_of_the_audit_and_a_bad_token_hide_no_other(catalog: Catalog, path: Path) -> None:
    for hive_id in ("a", "b"):
        run(catalog.add(hive_id, hive_id, None, by=BY))
    for token_id in ("0123abcd", "4567abcd"):
        run(catalog.add_token(TokenView(token_id, None, 1, 1_000, 2_000, is_revoked=False), "hash", by=BY))

    spoil(
        path,
        "UPDATE audit SET actor_uid = -1 << 40, job_id = 'x' WHERE hive = 'a'",
        "UPDATE tokens SET uses_left = -3 WHERE id = '0123abcd'",
    )

    bad, good = run(catalog.audit(10, None))[:2]
    assert bad.text == "hive a (host a) is wanted in the hive catalog"
    assert (bad.actor_uid, bad.job_id) == (None, None)
    assert bad.problem is not None
    assert "actor_uid must be from 0 to" in bad.problem
    assert "job_id must have 32 characters, and has 1" in bad.problem
    assert good.problem is None
    assert [(token.id, token.problem) for token in run(catalog.tokens())] == [
        ("0123abcd", f"uses_left must be from 0 to {2**53}, and is -3"),
        ("4567abcd", None),
    ]


def test_writes_at_once_all_arrive(catalog: Catalog, path: Path) -> None:
    async def scenario() -> None:
        await asyncio.gather(*(catalog.add(f"hive{n % 40}", f"hive{n % 40}", 1 + n) for n in range(200)))
        await asyncio.gather(
            *(catalog.set_online(f"hive{n}", DEVICES) for n in range(40)),
            *(catalog.set_status(f"hive{n}", "offline") for n in range(40)),
        )

    asyncio.run(scenario())

    assert len(stored(path)) == 40
    assert {(status, devices is None) for _, _, _, status, devices, *_ in stored(path)} == {
        ("offline", False)
    }
    assert {port for _, _, port, *_ in stored(path)} == set(range(161, 201))


def test_the_event_loop_goes_on_while_the_catalog_waits_for_another_process(
    catalog: Catalog, path: Path
) -> None:
    async def scenario() -> Row:
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            adding = asyncio.ensure_future(catalog.add("localhost", "localhost", 8600))
            done, _ = await asyncio.wait({adding}, timeout=0.05)
            assert not done
            other.execute("COMMIT")
        return await asyncio.wait_for(adding, 5)

    assert asyncio.run(scenario()).id == "localhost"


def test_a_catalog_that_another_process_holds_for_too_long_fails_with_the_cause(
    catalog: Catalog, path: Path
) -> None:
    catalog._connection.execute("PRAGMA busy_timeout = 1")
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(CatalogFailed, match="database is locked") as caught:
            run(catalog.add("localhost", "localhost", 8600))

    assert caught.value.hint
    assert run(catalog.add("localhost", "localhost", 8600)).id == "localhost"


# A full disk


def test_a_full_catalog_fails_with_the_cure_and_writes_nothing_half(catalog: Catalog, path: Path) -> None:
    run(catalog.add("localhost", "localhost", 8600))
    before = stored(path)
    (pages,) = catalog._connection.execute("PRAGMA page_count").fetchone()
    catalog._connection.execute(f"PRAGMA max_page_count = {pages}")
    large = Devices(DEVICES.cpu, tuple(Gpu(n, "amd", "x" * 2000, None, None, None, None) for n in range(64)))

    with pytest.raises(CatalogFailed, match="full") as caught:
        run(catalog.set_online("localhost", large))

    assert caught.value.hint == f"df -h {path.parent}"
    assert stored(path) == before

    catalog._connection.execute("PRAGMA max_page_count = 1000000")
    run(catalog.set_online("localhost", large))
    row = run(catalog.hive("localhost"))
    assert row is not None
    assert row.devices == large


LIMITED = """
import asyncio, json, resource, signal, sys
from pathlib import Path
from rbee.contracts import Cpu, Devices, Gpu
from rbee.errors import RbeeError
from rbee.queen.catalog import Catalog
path, limit, when = Path(sys.argv[1]), int(sys.argv[2]), sys.argv[3]
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
def full():
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, resource.RLIM_INFINITY))
def room():
    resource.setrlimit(resource.RLIMIT_FSIZE, (resource.RLIM_INFINITY, resource.RLIM_INFINITY))
large = Devices(
    Cpu(None, None, None, None, None),
    tuple(Gpu(n, "amd", "x" * 2000, None, None, None, None) for n in range(64)),
)
async def main(catalog):
    await catalog.add("localhost", "localhost", 8600)
    full()
    try:
        await catalog.set_online("localhost", large)
    finally:
        room()
try:
    if when == "open":
        full()
    catalog = Catalog.open(path)
    asyncio.run(main(catalog))
except RbeeError as error:
    room()
    print(json.dumps([type(error).__name__, error.message, error.hint]))
else:
    print("null")
"""


def limited(path: Path, limit: int, when: str) -> list[str]:
    ran = subprocess.run(
        [sys.executable, "-c", LIMITED, str(path), str(limit), when],
        capture_output=True, text=True, check=True, cwd=REPOSITORY,
    )  # fmt: skip
    told: list[str] = json.loads(ran.stdout)
    return told


def test_a_disk_that_fills_up_while_writing_leaves_the_row_as_it_was(path: Path) -> None:
    kind, message, hint = limited(path, 60_000, "write")

    assert kind == "CatalogFailed"
    assert message == f"{path} cannot be used: File too large"
    assert f"df -h {path.parent}" in hint
    catalog = Catalog.open(path)
    (row,) = run(catalog.hives())
    catalog.close()
    assert (row.status, row.devices) == ("pending", None)
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]


@pytest.mark.parametrize("limit", [0, 100, 5000])
def test_a_disk_that_is_full_when_the_catalog_is_made_is_told_with_the_cure(path: Path, limit: int) -> None:
    kind, message, hint = limited(path, limit, "open")

    assert kind == "CatalogUnusable"
    assert str(path) in message
    assert f"df -h {path.parent}" in hint
    assert list(path.parent.iterdir()) == []
    # And once there is room, it works.
    catalog = Catalog.open(path)
    assert run(catalog.hives()) == []
    catalog.close()


# What must not be touched


def a_catalog(path: Path) -> None:
    catalog = Catalog.open(path)
    for n in range(200):
        run(catalog.add(f"hive{n}", f"hive{n}", 8600))
    run(catalog.set_online("hive7", DEVICES))
    catalog.close()


def refused(path: Path) -> CatalogUnusable:
    """The refusal, after which everything is byte for byte as it was."""
    before = contents(path.parent)
    with pytest.raises(CatalogUnusable) as caught:
        Catalog.open(path)
    assert contents(path.parent) == before
    assert str(path) in caught.value.message
    assert caught.value.exit_code == 78
    return caught.value


def test_a_file_of_another_program_is_refused_and_left_alone(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE bookmarks (url TEXT)")

    error = refused(path)

    assert "another program" in error.message
    assert error.hint == WAY_OUT


def test_a_file_of_another_program_that_also_has_hives_is_refused(path: Path) -> None:
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("CREATE TABLE hives (id TEXT, honey REAL)")
        connection.execute("PRAGMA user_version = 1")

    assert "another program" in refused(path).message


@pytest.mark.parametrize("journal_mode", ["wal", "delete"])
def test_a_newer_catalog_is_refused_and_left_alone(path: Path, journal_mode: str) -> None:
    a_catalog(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute(f"PRAGMA journal_mode = {journal_mode}")
        connection.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")

    error = refused(path)

    assert re.search(rf"has version {len(MIGRATIONS) + 1}, .* knows {len(MIGRATIONS)} at most", error.message)
    assert (error.hint or "").splitlines() == [
        "With the newer packages in this folder: sudo apt install --only-upgrade ./*.deb",
        *WAY_OUT.splitlines(),
    ]


@pytest.mark.parametrize("application_id", [APPLICATION_ID, 7], ids=["newer", "foreign"])
def test_a_file_with_a_log_that_was_never_closed_is_refused_and_left_alone(
    path: Path, tmp_path: Path, application_id: int
) -> None:
    with closing(sqlite3.connect(tmp_path / "alive.db", isolation_level=None)) as alive:
        alive.execute("PRAGMA journal_mode = WAL")
        alive.execute("CREATE TABLE hives (id TEXT)")
        alive.execute(f"PRAGMA application_id = {application_id}")
        alive.execute(f"PRAGMA user_version = {len(MIGRATIONS) + 1}")
        # As a kill leaves it; the shared memory is no part of it.
        for suffix in ("", "-wal"):
            shutil.copy(tmp_path / f"alive.db{suffix}", f"{path}{suffix}")

    refused(path)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"garbage",
        b"\x00" * 4096,
        b"SQLite format 3\x00",
        b"SQLite format 3\x00" + b"\xff" * 8176,
        b"\x7fELF" * 5000,
    ],
    ids=["empty", "short", "zeroes", "only a head", "a broken head", "a program"],
)
def test_a_file_that_is_no_database_is_refused_and_left_alone(path: Path, content: bytes) -> None:
    path.write_bytes(content)

    assert refused(path).hint == WAY_OUT


@pytest.mark.parametrize("part", [0.05, 0.2, 0.5, 0.9, 0.99])
def test_a_file_that_was_cut_short_is_refused_and_left_alone(path: Path, part: float) -> None:
    a_catalog(path)
    whole = path.read_bytes()
    path.write_bytes(whole[: int(len(whole) * part)])

    error = refused(path)

    assert "damaged" in error.message
    assert error.hint == WAY_OUT


@pytest.mark.parametrize("page", [1, 2, 3])
def test_a_page_that_was_overwritten_is_found(path: Path, page: int) -> None:
    a_catalog(path)
    content = bytearray(path.read_bytes())
    content[page * 4096 : page * 4096 + 512] = b"\xa5" * 512
    path.write_bytes(content)

    assert "damaged" in refused(path).message


def test_a_folder_that_is_missing_is_told(tmp_path: Path) -> None:
    with pytest.raises(CatalogUnusable, match="there is no folder") as caught:
        Catalog.open(tmp_path / "missing/catalog.db")

    assert (caught.value.hint or "").endswith(f" -m 0700 {tmp_path / 'missing'}")


def test_a_folder_in_the_file_s_place_is_told(path: Path) -> None:
    path.mkdir()

    assert "is no file" in refused(path).message


def test_a_catalog_that_another_process_holds_is_not_called_damaged(
    path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    a_catalog(path)
    monkeypatch.setattr("rbee.catalogfile.BUSY_TIMEOUT", 0.01)
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA locking_mode = EXCLUSIVE")
        other.execute("BEGIN EXCLUSIVE")
        with pytest.raises(CatalogUnusable, match="locked") as caught:
            Catalog.open(path)

    assert "damaged" not in caught.value.message
    assert caught.value.hint == "sudo rbeectl doctor"


def test_a_refused_file_is_not_kept_open(path: Path) -> None:
    path.write_bytes(b"garbage" * 1000)
    refused(path)

    assert str(path) not in {str(one.resolve()) for one in Path("/proc/self/fd").iterdir()}


def test_a_log_without_its_catalog_is_never_taken_for_a_new_one_s(path: Path) -> None:
    a_catalog(path)
    with closing(sqlite3.connect(path, isolation_level=None)) as alive:
        alive.execute("UPDATE hives SET port = 1")
        log = Path(f"{path}-wal").read_bytes()
    path.unlink()
    Path(f"{path}-wal").write_bytes(log)

    error = refused(path)

    assert f"{path} is missing, and its log {path}-wal is there" in error.message


def test_an_unfinished_restore_is_refused_and_left_alone(path: Path) -> None:
    Path(f"{path}.restoring").write_bytes(b"whatever")

    error = refused(path)

    assert error.message == f"the restore of {path} was cut off in its middle"
    assert error.hint == WAY_OUT


def test_text_that_is_no_unicode_is_damage_and_found_before_the_queen_serves(path: Path) -> None:
    a_catalog(path)
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("UPDATE hives SET host = CAST(x'ff' AS TEXT) WHERE id = 'hive7'")

    assert "damaged" in refused(path).message


# Who has it


def test_a_second_queen_waits_and_is_then_refused_with_who_has_the_catalog(
    catalog: Catalog, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rbee.catalogfile.LOCK_TIMEOUT", 0.05)
    before = contents(path.parent)

    with pytest.raises(CatalogInUse, match="is in use") as caught:
        Catalog.open(path)

    assert str(path) in caught.value.message
    assert caught.value.hint == "rbeectl shutdown"
    assert contents(path.parent) == before


def test_a_queen_starts_as_soon_as_a_restore_lets_go(path: Path) -> None:
    restoring = Lock.take(path)
    timer = threading.Timer(0.1, restoring.close)
    timer.start()
    catalog = Catalog.open(path)
    timer.join()
    catalog.close()


@pytest.mark.parametrize("path_is_bad", [False, True])
def test_the_lock_goes_with_the_queen_whether_she_started_or_not(path: Path, path_is_bad: bool) -> None:
    if path_is_bad:
        path.write_bytes(b"garbage")
        with pytest.raises(CatalogUnusable):
            Catalog.open(path)
    else:
        Catalog.open(path).close()

    Lock.take(path).close()


# All of it


def test_a_check_reports_version_hives_and_size(catalog: Catalog, path: Path) -> None:
    run(catalog.add("localhost", "localhost", 8600))

    report = run(catalog.check())

    size = sum(one.stat().st_size for one in (path, Path(f"{path}-wal")))
    assert (report.path, report.version, report.hives, report.size_bytes) == (str(path), VERSION, 1, size)


def test_the_version_that_the_keeper_knows_is_the_last_migration_s() -> None:
    assert len(MIGRATIONS) == VERSION


def test_a_copy_has_every_row_is_one_file_and_stays_as_it_was(catalog: Catalog, tmp_path: Path) -> None:
    async def scenario() -> bytes:
        await asyncio.gather(*(catalog.add(f"hive{n}", f"hive{n}", 1 + n) for n in range(100)))
        with await catalog.copy() as copy:
            await catalog.remove("hive7")
            return copy.read()

    (tmp_path / "copy").mkdir()
    copy = tmp_path / "copy/catalog.db"
    copy.write_bytes(asyncio.run(scenario()))

    assert len(stored(copy)) == 100
    assert stored(copy, "PRAGMA journal_mode") == [("delete",)]
    assert stored(copy, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert list(contents(copy.parent)) == ["catalog.db"]


def test_copies_made_while_others_write_are_sound(catalog: Catalog, tmp_path: Path) -> None:
    async def scenario() -> list[bytes]:
        async def write(n: int) -> None:
            await catalog.add(f"hive{n}", f"hive{n}", 1 + n)
            await catalog.set_online(f"hive{n}", DEVICES)

        async def copy() -> bytes:
            with await catalog.copy() as file:
                return file.read()

        done = await asyncio.gather(copy(), *(write(n) for n in range(200)), copy())
        return [content for content in done if content is not None]

    for number, content in enumerate(asyncio.run(scenario())):
        path = tmp_path / f"{number}.db"
        path.write_bytes(content)
        assert stored(path, "PRAGMA integrity_check") == [("ok",)]


def test_more_copies_than_are_allowed_are_refused_until_one_is_closed(catalog: Catalog) -> None:
    async def scenario() -> None:
        copies = [await catalog.copy() for _ in range(COPIES_MAX)]
        with pytest.raises(TooMany, match="no more at once"):
            await catalog.copy()
        copies.pop().close()
        copies.append(await catalog.copy())
        for copy in copies:
            copy.close()

    asyncio.run(scenario())


def garble(path: Path) -> None:
    """Garbage in the table's root page, and a commit of somebody's, so that no cache hides it."""
    with closing(sqlite3.connect(path, isolation_level=None)) as other:
        other.execute("PRAGMA wal_checkpoint(TRUNCATE)")
        with path.open("r+b") as file:
            file.seek(4096)
            file.write(b"\xa5" * 4096)
        other.execute(f"PRAGMA user_version = {VERSION}")


def test_damage_that_shows_later_is_told_with_the_way_out(catalog: Catalog, path: Path) -> None:
    for n in range(200):
        run(catalog.add(f"hive{n}", f"hive{n}", 8600))
    garble(path)

    with pytest.raises(CatalogFailed, match="is damaged") as caught:
        run(catalog.hives())
    assert caught.value.hint == WAY_OUT_AWAKE
    for reads_all in (catalog.check, catalog.copy):
        with pytest.raises(CatalogUnusable, match="is damaged") as shown:
            run(reads_all())
        assert shown.value.hint == WAY_OUT_AWAKE
        assert str(path) in shown.value.message


def test_reading_all_of_it_ends_in_time(catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    for n in range(50):
        run(catalog.add(f"hive{n}", f"hive{n}", 8600))
        run(catalog.set_online(f"hive{n}", DEVICES))
    monkeypatch.setattr("rbee.queen.catalog.READ_TIMEOUT", -1)

    for reads_all in (catalog.check, catalog.copy):
        with pytest.raises(TimedOut, match="took longer"):
            run(reads_all())


def test_what_no_queen_wrote_is_unknown_and_keeps_nobody_from_the_rest(path: Path) -> None:
    a_catalog(path)
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("UPDATE hives SET labels = '{', devices = '{'")
        connection.commit()

    catalog = Catalog.open(path)
    rows = run(catalog.hives())
    catalog.close()
    assert rows
    assert all((row.labels, row.devices) == ({}, None) for row in rows)


# Migrations


V1 = """
    CREATE TABLE hives (
        id TEXT PRIMARY KEY,
        host TEXT NOT NULL,
        port INTEGER NOT NULL CHECK (port BETWEEN 1 AND 65535),
        status TEXT NOT NULL CHECK (status IN ('pending', 'online', 'offline')),
        devices TEXT,
        created_at_ms INTEGER NOT NULL,
        updated_at_ms INTEGER NOT NULL,
        wanted INTEGER NOT NULL CHECK (wanted IN (0, 1))
    ) STRICT;
    PRAGMA application_id = 1919051109;
    PRAGMA user_version = 1;
    """
"""As the releases before 0.4.0 made it. Not by our own MIGRATIONS, which somebody may change."""

EVERYTHING = "SELECT type, name, tbl_name, sql FROM sqlite_schema ORDER BY name"


@pytest.fixture
def v1(path: Path) -> list[tuple[Any, ...]]:
    """A catalog as the release before left it, with its rows."""
    before = [
        ("gone", "gone", 8601, "offline", None, 3, 4, 0),
        ("localhost", "localhost", 8600, "online", json.dumps(encode(DEVICES)), 1, 2, 1),
        *((f"pending{n}", "localhost", 8600, "pending", None, 5, 6, n % 2) for n in range(200)),
    ]
    with closing(sqlite3.connect(path)) as connection, connection:
        connection.execute("PRAGMA journal_mode = WAL")
        connection.executescript(V1)
        connection.executemany("INSERT INTO hives VALUES (?, ?, ?, ?, ?, ?, ?, ?)", before)
    assert len(stored(path)) == len(before)
    return stored(path)


def test_an_older_catalog_is_brought_up_with_its_rows_and_a_copy_of_it_is_kept(
    path: Path, v1: list[tuple[Any, ...]]
) -> None:
    told: list[bool] = []
    catalog = Catalog.open(path, wanted=told.append)
    rows = run(catalog.hives())
    catalog.close()

    assert rows[:2] == [
        Row("gone", "gone", 8601, "offline", None, 3, 4, False),
        Row("localhost", "localhost", 8600, "online", DEVICES, 1, 2, True),
    ]
    assert not any(row.is_remote for row in rows)
    assert told == [True]
    assert stored(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert [row[:8] for row in stored(path)] == v1
    assert {row[8:] for row in stored(path)} == {(None, None, None, "{}", None)}
    # For who goes back to the release before.
    copy = path.with_name("catalog-1.db")
    assert stored(copy, "PRAGMA user_version") == [(1,)]
    assert stored(copy, "PRAGMA application_id") == stored(path, "PRAGMA application_id")
    assert stored(copy) == v1
    assert sorted(contents(path.parent)) == ["catalog-1.db", "catalog.db"]


def test_an_older_catalog_is_the_same_as_a_new_one_once_it_is_brought_up(
    path: Path, v1: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    (tmp_path / "new").mkdir()
    new = tmp_path / "new/catalog.db"
    for one in (path, new):
        Catalog.open(one).close()

    for pragma in ("application_id", "user_version", "journal_mode"):
        assert stored(path, f"PRAGMA {pragma}") == stored(new, f"PRAGMA {pragma}")
    columns = "SELECT m.name, i.* FROM sqlite_schema m, pragma_table_info(m.name) i ORDER BY m.name, i.cid"
    for question in ("SELECT type, name, tbl_name FROM sqlite_schema ORDER BY name", columns):
        assert stored(path, question) == stored(new, question)


def test_an_older_catalog_of_a_queen_that_was_killed_is_brought_up_with_what_is_in_its_log(
    path: Path, v1: list[tuple[Any, ...]], tmp_path: Path
) -> None:
    with closing(sqlite3.connect(path, isolation_level=None)) as alive:
        alive.execute("UPDATE hives SET status = 'offline' WHERE id = 'localhost'")
        shutil.copytree(path.parent, tmp_path / "after")
    assert (tmp_path / "after/catalog.db-wal").stat().st_size

    catalog = Catalog.open(tmp_path / "after/catalog.db")
    row = run(catalog.hive("localhost"))
    catalog.close()

    assert row is not None
    assert (row.status, row.devices) == ("offline", DEVICES)
    assert stored(tmp_path / "after/catalog-1.db") == stored(path)


FAILING = "ALTER TABLE nothing ADD COLUMN x TEXT"


@pytest.mark.parametrize("number", range(len(MIGRATIONS[1]) + 1))
def test_a_migration_that_fails_in_its_middle_leaves_the_catalog_at_its_version(
    path: Path, v1: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch, number: int
) -> None:
    before = stored(path, EVERYTHING)
    broken = (*MIGRATIONS[1][:number], FAILING, *MIGRATIONS[1][number:])
    with monkeypatch.context() as now:
        now.setattr("rbee.queen.catalog.MIGRATIONS", (MIGRATIONS[0], broken))
        with pytest.raises(CatalogUnusable):
            Catalog.open(path)

    assert stored(path, "PRAGMA user_version") == [(1,)]
    assert stored(path, "PRAGMA application_id") == [(APPLICATION_ID,)]
    assert stored(path) == v1
    assert stored(path, EVERYTHING) == before
    assert stored(path, "PRAGMA integrity_check") == [("ok",)]
    # Once that is mended, it goes on.
    catalog = Catalog.open(path)
    assert len(run(catalog.hives())) == len(v1)
    catalog.close()


def test_a_later_migration_that_fails_leaves_what_the_one_before_it_made(
    path: Path, v1: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(
        "rbee.queen.catalog.MIGRATIONS",
        (*MIGRATIONS, ("ALTER TABLE hives ADD COLUMN colour TEXT", FAILING)),
    )

    with pytest.raises(CatalogUnusable):
        Catalog.open(path)

    assert stored(path, "PRAGMA user_version") == [(len(MIGRATIONS),)]
    assert [row[:8] for row in stored(path)] == v1
    assert not [
        name for (name,) in stored(path, "SELECT name FROM pragma_table_info('hives')") if name == "colour"
    ]


def test_a_copy_that_cannot_be_kept_leaves_the_catalog_as_it_was(
    path: Path, v1: list[tuple[Any, ...]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(descriptor: int) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as now:
        now.setattr(os, "fsync", full)
        with pytest.raises(CatalogUnusable):
            Catalog.open(path)

    assert stored(path, "PRAGMA user_version") == [(1,)]
    assert list(contents(path.parent)) == ["catalog.db"]
