"""Access to the queen over TCP: whether it is enabled, and the keys that it needs."""

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
from rbee.scope import SYSTEM, Scope
from rbee.server.peer import address_of
from rbee.wire.fleet import Tcp

log = logging.getLogger("rbee")

RENEWAL_INTERVAL = 3600.0
"""Seconds between two checks whether the queen's certificate is due for renewal."""


class TcpAccess:
    """`folder` is the queen's state directory. Without `sockets` the queen does not serve TCP now."""

    def __init__(
        self,
        folder: Path,
        sockets: Sequence[socket.socket],
        narrator: Narrator,
        *,
        find_credentials: Callable[[], Path | None] = credentials_folder,
        scope: Scope = SYSTEM,
    ) -> None:
        self._scope = scope
        self._folder = folder
        self._sockets = sockets
        self._narrator = narrator
        self._find_credentials = find_credentials
        self._mark = BootMarker(folder / "tcp")
        self._authority: Authority | None = None

    async def load(self) -> None:
        """Load the keys if TCP is enabled or has been. Raises BadConfig."""
        if self._sockets or (self._folder / "tls").exists():
            self._authority = await asyncio.to_thread(self._open_authority)

    def _open_authority(self) -> Authority:
        return Authority.open(self._folder / "tls", credentials=self._find_credentials())

    async def set(self, is_open: bool) -> Tcp:
        """Set whether the TCP socket is opened at the queen's next start; the keys are made first.

        Raises BadConfig, or RbeeError if a file cannot be written.
        """
        if is_open and self._authority is None:
            self._authority = await asyncio.to_thread(self._open_authority)
            await asyncio.to_thread(self._authority.context)
        with explained(self._folder / "tcp", "written", RbeeError):
            await asyncio.to_thread(self._mark.set, is_open)
        return await self.view()

    async def view(self) -> Tcp:
        """Return whether TCP is enabled, the addresses listened on, and the state of the keys.

        Raises RbeeError if the queen's certificate cannot be read.
        """
        names = [listener.getsockname() for listener in self._sockets]
        authority = self._authority
        is_made = authority is not None and (self._folder / "tls" / "queen.crt").exists()
        return Tcp(
            is_open=(self._folder / "tcp").exists(),
            listens=tuple(f"{_bracketed(address_of(name))}:{name[1]}" for name in names),
            fingerprint=self.fingerprint,
            expires_ms=round(authority.expires.timestamp() * 1000) if authority and is_made else None,
            problem=await asyncio.to_thread(lambda: authority.fault) if authority else None,
        )

    @property
    def fingerprint(self) -> str | None:
        """The fingerprint of the queen's CA; None if TCP has never been enabled."""
        return None if self._authority is None else self._authority.fingerprint

    @property
    def is_shut_out(self) -> bool:
        """Is TCP enabled, but has systemd handed over no socket?"""
        return not self._sockets and (self._folder / "tcp").exists()

    async def context(self) -> ssl.SSLContext:
        """Return the TLS context for connections over TCP. Raises TcpClosed or BadConfig."""
        return await asyncio.to_thread(self.authority.context)

    @property
    def authority(self) -> Authority:
        """The queen's CA. Raises TcpClosed if TCP has never been enabled."""
        if self._authority is None:
            hint = self._scope.rbeectl("tcp enable")
            raise TcpClosed("the queen is not open to other machines", hint=hint)
        return self._authority

    async def keep_keys(self) -> None:
        """Renew the queen's certificate before it expires, until cancelled."""
        while True:
            try:
                if await asyncio.to_thread(self.authority.renew):
                    self._narrator.narrate(KEYS_RENEWED, "the queen's certificate is renewed")
            except (RbeeError, OSError, ValueError) as error:
                log.error("the queen's certificate could not be renewed, retrying: %s", error)
            await asyncio.sleep(RENEWAL_INTERVAL)


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address
