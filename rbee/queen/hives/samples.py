"""What a hive's machine does right now, asked for whoever looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rbee.client.link import HiveClient
from rbee.errors import HiveFailed, NoSuchRoute, RbeeError, Stopping, TimedOut
from rbee.scope import HIVE_UNIT
from rbee.wire.devices import Sample

SAMPLE_TIMEOUT = 5.0
"""Seconds in which a hive must have reported what its machine does; the drivers of its cards have less."""


class SampleCache:
    """Many who look at one hive at once share one request to it."""

    def __init__(self, hive_id: str, client: Callable[[], HiveClient]) -> None:
        """`client` leads to the hive; it raises what there is to say where nothing does."""
        self._hive_id = hive_id
        self._client = client
        self._asking: asyncio.Task[Sample] | None = None
        self._is_ended = False

    async def sample(self) -> Sample:
        """What the machine does; raises within SAMPLE_TIMEOUT seconds."""
        if self._is_ended:
            raise Stopping("the queen is being stopped", hint="Ask again.")
        if self._asking is None:
            self._asking = asyncio.get_running_loop().create_task(self._ask())
            self._asking.add_done_callback(self._is_over)
        # Who goes does not end it for the others.
        return await asyncio.shield(self._asking)

    def _is_over(self, asking: asyncio.Task[Sample]) -> None:
        self._asking = None
        if not asking.cancelled():
            asking.exception()  # seen, where everybody who looked has gone

    async def end(self) -> None:
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
                f"the beehive {hive_id} did not tell within {SAMPLE_TIMEOUT:g} s what its machine does",
                hint="Ask again.",
            ) from error
        except NoSuchRoute as error:
            raise HiveFailed(
                f"the beehive {hive_id} is of a version that does not tell what its machine does",
                hint=f"Upgrade rbee-hive, then: systemctl restart {HIVE_UNIT}",
            ) from error
        except RbeeError as error:
            raise HiveFailed(
                f"the beehive {hive_id} did not tell what its machine does: {error.message}",
                hint=error.hint or f"systemctl status {HIVE_UNIT}",
            ) from error
