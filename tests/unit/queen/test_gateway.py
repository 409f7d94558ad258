"""Whether the gateway may listen on TCP."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import CatalogFailed, RbeeError
from rbee.queen.gateway import GatewayAccess
from rbee.scope import GATEWAY_TCP_SOCKET_UNIT
from rbee.systemd.aio import AsyncBus
from rbee.wire.keys import Gateway
from tests.unit.played_systemd import LISTENING, PlayedBus, PlayedSystemd
from tests.unit.queens import a_queen

BY = {"actor_uid": "1000"}


async def test_its_socket_may_be_opened_when_its_file_is_there(tmp_path: Path) -> None:
    async with a_queen(tmp_path / "state") as queen:
        gateway, marker = queen.library.gateway, tmp_path / "state/gateway-tcp"

        assert await gateway.view() == Gateway(is_open=False)
        for is_open in (True, True, False, False):
            assert await gateway.set(is_open, BY) == Gateway(is_open=is_open)
            assert marker.exists() == is_open
        assert [entry.text for entry in await queen.catalog.audit.last(9, None)] == [
            "the gateway's TCP socket may be opened",
            "the gateway's TCP socket may not be opened",
        ]


async def test_it_is_shown_where_systemd_listens(tmp_path: Path) -> None:
    bus = PlayedBus(address="127.0.0.1:8510")
    bus.states[GATEWAY_TCP_SOCKET_UNIT] = LISTENING
    systemd = PlayedSystemd()
    async_bus = AsyncBus(bus, systemd, lost=lambda error: None)  # type: ignore[arg-type]
    async_bus._pump = lambda: None  # type: ignore[method-assign]
    async with a_queen(tmp_path / "state") as queen:
        gateway = GatewayAccess(tmp_path / "gateway-tcp", async_bus, queen.catalog)
        assert await gateway.view() == Gateway(is_open=False, listens=("127.0.0.1:8510",))
    await systemd.close()


async def test_what_cannot_be_audited_is_left_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def fail(_write: object) -> None:
        raise CatalogFailed("the disk is full")

    async with a_queen(tmp_path / "state") as queen:
        gateway, marker = queen.library.gateway, tmp_path / "state/gateway-tcp"
        await gateway.set(True, BY)
        monkeypatch.setattr(queen.catalog.writer, "write", fail)
        with pytest.raises(CatalogFailed):
            await gateway.set(False, BY)
        assert marker.exists()


async def test_a_file_that_cannot_be_written_is_an_error(tmp_path: Path) -> None:
    async with a_queen(tmp_path / "state") as queen:
        gateway = GatewayAccess(tmp_path / "none/gateway-tcp", queen.bus, queen.catalog)
        with pytest.raises(RbeeError, match=r"none/gateway-tcp cannot be written"):
            await gateway.set(True, BY)
