"""A request over a Unix socket, after which its connection continues with another protocol."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

from rbee.errors import BadInput
from rbee.server.upgrade import Upgraded, upgrade_to
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import LeaseRoutes
from tests.integration.server.example import app
from tests.integration.unix_http import TIMEOUT, raw, request, served

pytestmark = pytest.mark.deadline(20)

ECHO = "echo/1"
ASKED = request("GET", "/v1/lease", Connection="Upgrade", Upgrade=ECHO)


class Echo(Upgraded):
    """Sends back what it gets."""

    def __init__(self) -> None:
        super().__init__()
        self.is_over = asyncio.Event()

    def data_received(self, data: bytes) -> None:
        assert self.transport is not None
        self.transport.write(data)

    def connection_lost(self, exc: Exception | None) -> None:
        super().connection_lost(exc)
        self.is_over.set()


async def test_its_connection_continues_with_the_protocol_and_gives_its_place_back(
    tmp_path: Path, notifier: Notifier
) -> None:
    echo = Echo()

    async def lease(_request: Request) -> Any:
        return upgrade_to(echo)

    async with served(app({LeaseRoutes.LEASE: lease}), tmp_path / "s", notifier, upgrades=(ECHO,)):
        reader, writer = await asyncio.open_unix_connection(tmp_path / "s")
        writer.write(ASKED)
        head = await asyncio.wait_for(reader.readuntil(b"\r\n\r\n"), TIMEOUT)
        writer.write(b"hello")
        answer = await asyncio.wait_for(reader.readexactly(5), TIMEOUT)
        writer.close()
        await asyncio.wait_for(echo.is_over.wait(), TIMEOUT)

    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"\r\nupgrade: echo/1\r\n" in head
    assert answer == b"hello"


async def test_a_refusal_is_an_answer_as_any_other(tmp_path: Path, notifier: Notifier) -> None:
    async def lease(_request: Request) -> Any:
        raise BadInput("not today")

    async with served(app({LeaseRoutes.LEASE: lease}), tmp_path / "s", notifier, upgrades=(ECHO,)):
        answer = await raw(tmp_path / "s", ASKED)

    assert (answer.status, answer.json["detail"]) == (400, "not today")


@pytest.mark.parametrize(
    "asked",
    [request("GET", "/v1/lease", Connection="Upgrade", Upgrade="other/1"), ASKED + b"more"],
    ids=["another protocol", "data before the answer"],
)
async def test_nothing_else_is_upgraded(tmp_path: Path, notifier: Notifier, asked: bytes) -> None:
    async def lease(_request: Request) -> Any:
        return upgrade_to(Echo())

    async with served(app({LeaseRoutes.LEASE: lease}), tmp_path / "s", notifier, upgrades=(ECHO,)):
        answer = await raw(tmp_path / "s", asked)

    assert answer.status == 400
