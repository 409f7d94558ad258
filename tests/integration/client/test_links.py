"""Several requests to one daemon at once, over connections that are kept."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest

from rbee.client import links as links_module
from rbee.client.links import Links
from rbee.errors import NotRunning, UnknownModel
from rbee.server.app import build_app
from rbee.systemd.daemon import Notifier
from rbee.wire.models import FetchView
from rbee.wire.routes import HiveRoutes
from tests.integration.unix_http import served

pytestmark = pytest.mark.deadline(10)


async def test_requests_do_not_wait_for_each_other_and_their_connections_are_kept(
    tmp_path: Path, silent_notifier: Notifier, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(links_module, "KEPT", 2)
    arrived: list[tuple[str, dict[str, str]]] = []
    all_here = asyncio.Event()

    async def state(request: Any) -> FetchView:
        arrived.append((request.path_params["fetch_id"], dict(request.query_params)))
        if len(arrived) == 3:
            all_here.set()
        await all_here.wait()
        if request.path_params["fetch_id"] == "b":
            raise UnknownModel("no")
        return FetchView(request.path_params["fetch_id"], "bee", "fetching", 1)

    links = Links(tmp_path / "hive.sock", timeout=5)
    async with served(
        build_app("hive", "1", {HiveRoutes.FETCH_STATE: state}), tmp_path / "hive.sock", silent_notifier
    ):
        asked = [
            links.ask(HiveRoutes.FETCH_STATE, headers={"fetch_id": one, "after": "7", "wait": "20"})
            for one in "abc"
        ]
        answers = await asyncio.gather(*asked, return_exceptions=True)
        again = await links.ask(HiveRoutes.FETCH_STATE, headers={"fetch_id": "d"})
        assert len(links._idle) == 2
        await links.close()

    assert sorted(arrived[:3]) == [(one, {"after": "7", "wait": "20"}) for one in "abc"]
    assert arrived[3:] == [("d", {})]
    assert [type(answer) for answer in answers] == [FetchView, UnknownModel, FetchView]
    assert again.id == "d"
    assert links._idle == []


async def test_who_is_not_there_is_reported(tmp_path: Path) -> None:
    links = Links(tmp_path / "hive.sock", timeout=1)
    with pytest.raises(NotRunning):
        await links.ask(HiveRoutes.HEALTH)
    await links.close()
