"""What hives do right now, asked for whoever looks."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from rbee.client.link import HiveClient
from rbee.contracts import Sample
from rbee.errors import HiveFailed, NoSuchRoute, RbeeError, Stopping, TimedOut
from rbee.systemd import HIVE_UNIT

SAMPLE_TIMEOUT = 5.0
"""Seconds in which a hive must have told what its machine does; the drivers of its cards have less."""


class Looks:
    """Many who look at a hive at once share one question to it."""

    def __init__(self, client: Callable[[str], HiveClient]) -> None:
        """`client` leads to a hive; it raises what there is to say where nothing does."""
        self._client = client
        self._asking: dict[str, asyncio.Task[Sample]] = {}
        self._is_ended = False

    async def sample(self, hive_id: str) -> Sample:
        """What the machine of a hive that is online does; raises within SAMPLE_TIMEOUT seconds."""
        if self._is_ended:
            raise Stopping("the queen is being stopped", hint="Ask again.")
        asking = self._asking.get(hive_id)
        if asking is None:
            asking = self._asking[hive_id] = asyncio.get_running_loop().create_task(self._ask(hive_id))
            asking.add_done_callback(lambda _: self._asking.pop(hive_id, None))
        # Who goes does not end it for the others.
        return await asyncio.shield(asking)

    async def end(self) -> None:
        self._is_ended = True
        asking = list(self._asking.values())
        for task in asking:
            task.cancel()
        await asyncio.gather(*asking, return_exceptions=True)

    async def _ask(self, hive_id: str) -> Sample:
        try:
            return await self._client(hive_id).sample(timeout=SAMPLE_TIMEOUT)
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
