"""Removes files and what is left of fetches from the store, by requests to rbee-fetch@.service."""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from rbee.errors import HiveFailed, TimedOut
from rbee.hive.models.unit import FetchUnits
from rbee.modelfile.store import Store, StoreRequest
from rbee.scope import Scope, fetch_unit

TIMEOUT = 30.0
"""Seconds for a removal, including the stop of the fetch."""


class Removals:
    """Writes a request before it stops anything: if this hive process ends, the next one resumes."""

    def __init__(self, scope: Scope, store: Store, units: FetchUnits) -> None:
        self._scope = scope
        self._store = store
        self._units = units

    async def forget(self, fetch_id: str) -> None:
        """Stop a fetch, and remove what is left of it, but not its file. Raises RbeeError."""
        async with self._in_time(f"cancelling the fetch {fetch_id}", fetch_id):
            await self._units.write(fetch_id, StoreRequest(forget=fetch_id))
            await self._units.stop(fetch_id)
            await self._run(fetch_id)

    async def remove(self, sha256: str) -> bool:
        """Remove a file; return False if the store did not have it. Raises RbeeError."""
        if not self._has(sha256):
            return False
        removal = f"remove-{sha256[:48]}"
        async with self._in_time(f"removing the file {sha256}", removal):
            await self._units.write(removal, StoreRequest(remove=sha256))
            await self._run(removal)
        if self._has(sha256):
            raise HiveFailed(f"the file {sha256} was not removed", hint=self._where_to_look(removal))
        return True

    async def carry_out(self, removal: str) -> None:
        """Carry out a request that an earlier hive process has written. Raises RbeeError."""
        async with self._in_time(f"carrying out {removal}", removal):
            await self._run(removal)

    async def _run(self, request: str) -> None:
        state = await self._units.run(request)
        if state.active == "failed":
            raise HiveFailed(
                f"the store of models could not be changed: {state.status_text or state.result}",
                hint=self._where_to_look(request),
            )
        self._units.drop(request)

    def _has(self, sha256: str) -> bool:
        return os.path.lexists(self._store.folder / sha256)

    def _where_to_look(self, request: str) -> str:
        return self._scope.where_to_look(fetch_unit(request))

    @asynccontextmanager
    async def _in_time(self, doing: str, request: str) -> AsyncIterator[None]:
        try:
            async with asyncio.timeout(TIMEOUT):
                yield
        except TimeoutError as error:
            hint = self._scope.systemctl(f"status {fetch_unit(request)}")
            raise TimedOut(f"{doing} was not done after {TIMEOUT:g} s", hint=hint) from error
