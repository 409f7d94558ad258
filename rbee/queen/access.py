"""Whether the queen is open to other machines, and the keys that she then has."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import Callable, Sequence
from pathlib import Path

from rbee.errors import RbeeError, TcpClosed
from rbee.files import explained
from rbee.narration import KEYS_RENEWED, Narrator
from rbee.queen.authority import Authority, credentials_folder
from rbee.queen.boot_marker import BootMarker
from rbee.server.peer import address_of
from rbee.wire.fleet import Tcp

log = logging.getLogger("rbee")

LOOK_AT_KEYS = 3600.0
"""Seconds between two looks at whether the queen's certificate is to be renewed."""


class TcpAccess:
    """`folder` is the queen's state directory. Without `sockets` nobody comes over TCP now."""

    def __init__(
        self,
        folder: Path,
        sockets: Sequence[socket.socket],
        narrator: Narrator,
        *,
        find_credentials: Callable[[], Path | None] = credentials_folder,
    ) -> None:
        self._folder = folder
        self._sockets = sockets
        self._narrator = narrator
        self._find_credentials = find_credentials
        self._mark = BootMarker(folder / "tcp")
        self._authority: Authority | None = None

    async def load(self) -> None:
        """Take up the keys where the queen is open or has been."""
        if self._sockets or (self._folder / "tls").exists():
            self._authority = await asyncio.to_thread(self._open_authority)

    def _open_authority(self) -> Authority:
        return Authority.open(self._folder / "tls", credentials=self._find_credentials())

    async def set(self, is_open: bool) -> Tcp:
        """Whether the socket is opened when the queen next starts; the keys are made first."""
        if is_open and self._authority is None:
            self._authority = await asyncio.to_thread(self._open_authority)
            await asyncio.to_thread(self._authority.context)
        with explained(self._folder / "tcp", "written", RbeeError):
            await asyncio.to_thread(self._mark.set, is_open)
        return await self.view()

    async def view(self) -> Tcp:
        """Whether the queen is open, where she listens, and how her keys are."""
        names = [listener.getsockname() for listener in self._sockets]
        authority = self._authority
        is_made = authority is not None and (self._folder / "tls" / "queen.crt").exists()
        return Tcp(
            is_open=(self._folder / "tcp").exists(),
            listens=tuple(f"{_bracketed(address_of(name))}:{name[1]}" for name in names),
            fingerprint=authority.fingerprint if authority is not None else None,
            expires_ms=round(authority.expires.timestamp() * 1000) if authority and is_made else None,
            problem=await asyncio.to_thread(lambda: authority.fault) if authority else None,
        )

    @property
    def is_shut_out(self) -> bool:
        """Is the queen to be reached by hives on other machines, and has systemd handed her no socket?"""
        return not self._sockets and (self._folder / "tcp").exists()

    async def context(self) -> ssl.SSLContext:
        """For those who come over TCP."""
        return await asyncio.to_thread(self.authority.context)

    @property
    def authority(self) -> Authority:
        if self._authority is None:
            raise TcpClosed("the queen is not open to other machines", hint="rbeectl tcp enable")
        return self._authority

    async def keep_keys(self) -> None:
        """Renew the queen's certificate early, for ever."""
        while True:
            try:
                if await asyncio.to_thread(self.authority.renew):
                    self._narrator.narrate(KEYS_RENEWED, "the queen's certificate is renewed")
            except (RbeeError, OSError, ValueError) as error:
                log.error("the queen's certificate could not be renewed, retrying: %s", error)
            await asyncio.sleep(LOOK_AT_KEYS)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
