"""The routes for the whole catalog and its audit."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from rbee.wire.catalog import Audit, CatalogReport
from rbee.wire.codec import decode
from tests.integration.queen.served_queen import Served
from tests.integration.unix_http import request

pytestmark = pytest.mark.deadline(10)


async def test_a_copy_is_a_catalog_of_its_own(queen: Served, tmp_path: Path) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    answer = await queen.ask(request("GET", "/v1/catalog"))
    (tmp_path / "copy.db").write_bytes(answer.content)

    assert (answer.status, answer.headers["content-type"]) == (200, "application/vnd.sqlite3")
    with closing(sqlite3.connect(tmp_path / "copy.db")) as copy:
        assert copy.execute("SELECT id FROM hives").fetchall() == [("localhost",)]


async def test_a_check_reports_what_there_is(queen: Served, tmp_path: Path) -> None:
    await queen.catalog.hives.add("localhost", "localhost", 8600)
    report = decode(CatalogReport, (await queen.ask(request("GET", "/v1/catalog/check"))).json)

    assert (report.path, report.hives) == (str(tmp_path / "catalog.db"), 1)
    assert report.size_bytes > 0


async def test_the_audit_is_the_last_changes_of_all_or_of_one_hive(queen: Served) -> None:
    for name, uid in (("localhost", "1000"), ("gpu1", "1001")):
        await queen.catalog.hives.add(name, name, 8600, by={"actor_uid": uid})
        await queen.catalog.hives.set_cordon(name, "why", by={"actor_uid": uid})

    async def told(query: str) -> list[tuple[str | None, int | None]]:
        answer = await queen.ask(request("GET", f"/v1/audit{query}"))
        return [(entry.hive, entry.actor_uid) for entry in decode(Audit, answer.json).entries]

    assert await told("?hive=localhost") == [("localhost", 1000)] * 2
    assert await told("") == [("localhost", 1000)] * 2 + [("gpu1", 1001)] * 2
    assert await told("?limit=1") == [("gpu1", 1001)]
    assert await told("?limit=0") == []


@pytest.mark.parametrize("query", ["limit=-1", "limit=x", "limit=1001", "hive=a%20b"])
async def test_a_query_that_is_wrong_is_named(queen: Served, query: str) -> None:
    answer = await queen.ask(request("GET", f"/v1/audit?{query}"))

    assert (answer.status, answer.json["field"]) == (400, query.split("=")[0])
