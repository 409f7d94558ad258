"""An app of two routes, for the tests of what serves it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from starlette.requests import Request
from starlette.routing import Router

from rbee.server.app import Handler, build_app
from rbee.server.requests import peer_of, read_shape
from rbee.systemd.daemon import Notifier
from rbee.wire.daemon import Health
from rbee.wire.hives import AddHive
from rbee.wire.jobs import JobStarted
from rbee.wire.routes import QueenRoutes, Route
from tests.integration.unix_http import raw, served

PROBLEM = "application/problem+json"
JOB = "7" * 32


async def health(request: Request) -> Health:
    peer = peer_of(request)
    return Health("ok", f"{peer.pid} {peer.uid} {peer.gid}")


async def add_hive(request: Request) -> JobStarted:
    asked = await read_shape(request, AddHive)
    return JobStarted(asked.host, JOB, f"/at/{asked.port}")


def app(handlers: dict[Route, Handler] | None = None, **options: Any) -> Router:
    routes: dict[Route, Handler] = {
        QueenRoutes.HEALTH: health,
        QueenRoutes.ADD_HIVE: add_hive,
        QueenRoutes.OPENAPI: health,
    }
    return build_app("a test", "1", routes | (handlers or {}), **options)


async def ask(tmp_path: Path, notifier: Notifier, *asked: bytes, **options: Any) -> list[Any]:
    """What the app answers to each of these requests."""
    async with served(app(**options), tmp_path / "s", notifier):
        return [await raw(tmp_path / "s", one) for one in asked]
