"""Samples of a hive's machine: load, memory and GPU usage right now."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import TYPE_CHECKING

from rbee.client.link import HiveClient
from rbee.errors import HiveFailed, NoSuchRoute, RbeeError, Stopping, TimedOut
from rbee.scope import HIVE_UNIT, Scope

if TYPE_CHECKING:
    from rbee.wire.samples import Sample

SAMPLE_TIMEOUT = 5.0
"""Seconds for a hive to report a sample; the drivers of its GPUs have less."""


class SampleCache:
    """Lets simultaneous readers of one hive share one request to it."""

    def __init__(self, hive_id: str, client: Callable[[], HiveClient], scope: Scope) -> None:
        """`client` returns a client for the hive, or raises RbeeError; `scope` is that of the hive."""
        self._scope = scope
        self._hive_id = hive_id
        self._client = client
        self._asking: asyncio.Task[Sample] | None = None
        self._is_ended = False

    async def sample(self) -> Sample:
        """Return a sample. Raises TimedOut after SAMPLE_TIMEOUT seconds, HiveFailed, or Stopping."""
        if self._is_ended:
            raise Stopping("the queen is being stopped", hint="Ask again.")
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(self._is_over)
        # A reader that is cancelled does not end the request of the others.
        return await asyncio.shield(self._asking)

    def _is_over(self, asking: asyncio.Task[Sample]) -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # retrieved, in case no reader is left

    async def end(self) -> None:
        """Cancel the request, and refuse further ones with Stopping."""
        self._is_ended = True
        if self._asking is not None:
            self._asking.cancel()
            await asyncio.gather(self._asking, return_exceptions=True)

    async def _ask(self) -> Sample:
        hive_id = self._hive_id
        try:
            return await self._client().sample(timeout=SAMPLE_TIMEOUT)
        except TimedOut as error:
            raise TimedOut(
                f"the beehive {hive_id} did not report a sample of its machine within {SAMPLE_TIMEOUT:g} s",
                hint="Ask again.",
            ) from error
        except NoSuchRoute as error:
            raise HiveFailed(
                f"the beehive {hive_id} has a version that does not report samples",
                hint=f"Upgrade rbee-hive, then: {self._scope.systemctl(f'restart {HIVE_UNIT}')}",
            ) from error
        except RbeeError as error:
            raise HiveFailed(
                f"the beehive {hive_id} did not report a sample of its machine: {error.message}",
                hint=error.hint or self._scope.systemctl(f"status {HIVE_UNIT}"),
            ) from error
