"""A queen on another machine: the hive dials, and keeps its certificate valid."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress

from starlette.types import ASGIApp

from rbee.errors import JoinedAnew, RbeeError
from rbee.hive.dial import Dialler
from rbee.hive.heartbeat import Heart
from rbee.hive.membership import Membership, Memberships
from rbee.hive.queen import FindMachineEnd, Queen
from rbee.scope import Scope
from rbee.uplink.offer import Offer

log = logging.getLogger("rbee")

SHUT_DOWN_BY_QUEEN = 75
"""The exit status upon which rbee-hive.service starts rbee-hive-redial.service, to wait for the queen.

Not StartUnit: the hive's user would need permission for it, which includes starting it in any mode.
"""

SUCCESSION_LOOK = 1.0
"""Seconds between two looks for a newer membership, which may be written at any time."""

SUCCESSION_WAIT = 3.0
"""Seconds in which the program that made this machine join again should restart the hive; then it ends."""

RENEWAL_INTERVAL = 3600.0
"""Seconds between two checks whether the certificate is to be renewed, and between retries."""

GOODBYE_TIMEOUT = 1.5
"""Seconds that the last beat may take: without it the queen reports a loss, and a machine that goes down is
busy. No queen of another machine waits for the hive, so that it may be longer than to the local one."""

FAREWELL_TIMEOUT = 2.5
"""Seconds for all of the farewell: answers in progress, the beat before, and the last one.

It overruns by MACHINE_END_TIMEOUT at most, for which the event loop is blocked. With both, and GRACE for the
requests in flight, the hive ends before TimeoutStopSec= of its unit.
"""


class RemoteQueen(Queen):
    """The queen of a membership."""

    status_after_shutdown = SHUT_DOWN_BY_QUEEN

    def __init__(self, memberships: Memberships, membership: Membership, scope: Scope) -> None:
        self._scope = scope
        self._memberships = memberships
        self._membership = membership
        self._address = membership.queen()
        self._offer = Offer(self._address, scope)
        self.forget = memberships.forget
        super().__init__(membership.hive_id, str(self._address), self._offer)

    async def work(self, heart: Heart, app: ASGIApp) -> None:
        """Hold a connection, beat and serve `app` over it, and renew the certificate, until cancelled.

        Raises JoinedAnew if there is a newer membership.
        """
        dialler = Dialler(
            heart,
            app,
            self._address,
            self._membership.queen_to_strangers,
            self._offer,
            scope=self._scope,
        )
        works = dialler.run(), self._keep_certificate(), self._await_succession()
        working = {asyncio.ensure_future(work) for work in works}
        try:
            done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                task.result()
        finally:
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)

    @asynccontextmanager
    async def farewell(self, heart: Heart, find_machine_end: FindMachineEnd) -> AsyncIterator[None]:
        # Before: while the dialler holds its connection.
        with suppress(TimeoutError):
            async with asyncio.timeout(FAREWELL_TIMEOUT):
                await self._offer.settle()
                if self._membership.path.exists():  # or the queen has removed this hive
                    await heart.goodbye(find_machine_end, timeout=GOODBYE_TIMEOUT)
        yield

    async def close(self) -> None:
        """Nothing is left to close."""

    async def _await_succession(self) -> None:
        """Raise JoinedAnew if this machine has joined again, and nothing restarts the hive.

        Then a rbeectl join was interrupted or killed. The queen accepts this membership until the new one
        is used.
        """
        while not self._memberships.has_new():  # noqa: ASYNC110  # another process writes it
            await asyncio.sleep(SUCCESSION_LOOK)
        await asyncio.sleep(SUCCESSION_WAIT)
        raise JoinedAnew("this machine has joined again; the hive restarts with its new membership")

    async def _keep_certificate(self) -> None:
        """Renew it early. Open connections stay; the next one uses the new certificate."""
        while True:
            try:
                if self._membership.is_to_be_renewed():
                    await self._memberships.renew(self._membership)
                    self._membership.show(self._address)
            except (RbeeError, OSError) as error:
                log.warning("the certificate could not be renewed, retrying later: %s", error)
            await asyncio.sleep(RENEWAL_INTERVAL)
