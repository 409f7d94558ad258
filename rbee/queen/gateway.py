"""Whether the gateway may listen on TCP: a file, the condition of its socket unit."""

from __future__ import annotations

import asyncio
from pathlib import Path

from rbee.errors import RbeeError
from rbee.files import explained
from rbee.queen.boot_marker import BootMarker
from rbee.queen.store.records import Actor
from rbee.queen.store.store import Store
from rbee.scope import GATEWAY_TCP_SOCKET_UNIT
from rbee.systemd.aio import AsyncBus
from rbee.wire.keys import Gateway


class GatewayAccess:
    """`marker` is Scope.gateway_is_open; the caller of set() also starts or stops the socket's unit."""

    def __init__(self, marker: Path, bus: AsyncBus, catalog: Store) -> None:
        self._marker = marker
        self._bus = bus
        self._catalog = catalog

    async def set(self, is_open: bool, by: Actor) -> Gateway:
        """Set whether the socket may be opened; RbeeError if the file, or the audit, cannot be written."""
        if is_open != self._marker.exists():
            text = f"the gateway's TCP socket may {'' if is_open else 'not '}be opened"
            with explained(self._marker, "written", RbeeError):
                await asyncio.to_thread(BootMarker(self._marker).set, is_open)
            try:
                await self._catalog.writer.write(lambda transaction: transaction.note(None, text, by))
            except BaseException:
                BootMarker(self._marker).set(not is_open)  # what is not in the audit is not in force
                raise
        return await self.view()

    async def view(self) -> Gateway:
        """Return whether the socket may be opened, and the addresses that systemd listens on now."""
        listens: list[str] = []
        if (await self._bus.state(GATEWAY_TCP_SOCKET_UNIT)).is_active:
            addresses = await self._bus.listen_addresses(GATEWAY_TCP_SOCKET_UNIT)
            listens = [address for kind, address in addresses if kind == "Stream"]
        return Gateway(self._marker.exists(), tuple(listens))
