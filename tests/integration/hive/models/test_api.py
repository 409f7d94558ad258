"""The hive's routes about fetches and files."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from rbee.hive.models.api import has_parts, routes
from rbee.hive.models.fetches import Fetches
from rbee.server.app import build_app
from rbee.systemd.daemon import Notifier
from tests.integration.unix_http import Answer, raw, request, served
from tests.unit.hive.models.played import SUM, URL, Played, Tape, scope_in

BODY = json.dumps({"id": "one", "model": "bee", "url": URL}).encode()


class Hive:
    def __init__(self, path: Path, played: Played) -> None:
        self.path, self.played = path, played

    async def ask(self, method: str, path: str, body: bytes | None = None, **headers: str) -> Answer:
        return await raw(self.path, request(method, path, body, **headers))


@pytest.fixture
@asynccontextmanager
async def hive(tmp_path: Path, silent_notifier: Notifier) -> AsyncIterator[Hive]:
    played = Played(scope_in(tmp_path))
    async with Fetches.open(played.scope, played, played, Tape()) as fetches:
        app = build_app("hive", "1", routes(lambda: fetches))
        async with served(app, tmp_path / "hive.sock", silent_notifier):
            yield Hive(tmp_path / "hive.sock", played)
    await played.close()


async def test_a_fetch_is_begun_awaited_and_its_file_removed(hive: Hive) -> None:
    begun = await hive.ask("POST", "/v1/fetches", BODY)
    assert (begun.status, begun.json["state"]) == (202, "fetching")
    serial = begun.json["serial"]
    while (answer := await hive.ask("GET", f"/v1/fetches/one?after={serial}&wait=5")).json["state"] != "done":
        serial = answer.json["serial"]
    assert answer.json["sha256"] == SUM
    assert answer.json["head"]["format"] == "gguf"
    assert "secret" not in json.dumps(answer.json)

    for _ in range(2):
        removed = await hive.ask("DELETE", f"/v1/files/{SUM}")
        assert (removed.status, removed.json) == (202, {"status": "removed"})


async def test_a_fetch_is_cancelled(hive: Hive) -> None:
    hive.played.program = hive.played.waits
    await hive.ask("POST", "/v1/fetches", BODY)

    answer = await hive.ask("DELETE", "/v1/fetches/one")
    assert (answer.status, answer.json["state"]) == (200, "cancelled")
    assert not has_parts(hive.played.scope)


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("GET", "/v1/fetches/none", None, 404),
        ("DELETE", "/v1/fetches/none", None, 404),
        ("GET", "/v1/fetches/UPPER", None, 400),
        ("GET", "/v1/fetches/one?wait=21", None, 400),
        ("GET", "/v1/fetches/one?after=x", None, 400),
        ("DELETE", "/v1/files/abc", None, 400),
        ("POST", "/v1/fetches", b"{}", 400),
        ("POST", "/v1/fetches", BODY.replace(b"one", b"../x"), 400),
        ("POST", "/v1/fetches", BODY.replace(b"https", b"http"), 400),
    ],
)
async def test_what_is_not_valid_is_refused(
    hive: Hive, method: str, path: str, body: bytes | None, status: int
) -> None:
    answer = await hive.ask(method, path, body)

    assert answer.status == status
    assert "secret" not in json.dumps(answer.json)


def test_parts_are_seen(tmp_path: Path) -> None:
    scope = scope_in(tmp_path)
    assert not has_parts(scope)
    (scope.models / "fetches").mkdir()
    (scope.models / "fetches/one.result").touch()
    assert not has_parts(scope)
    (scope.models / "fetches/one.part").touch()
    assert has_parts(scope)
