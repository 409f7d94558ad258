"""When a hive dials its queen on another machine again, and what a failed connection means.

What goes over the connection is in rbee.uplink.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import Callable

from starlette.types import ASGIApp

from rbee.client.link import Link, QueenAddress
from rbee.errors import (
    ClonedHive,
    Disconnected,
    NotPermitted,
    RbeeError,
    UnknownHive,
    VersionSkew,
    WrongQueen,
)
from rbee.hive.heartbeat import Heart
from rbee.scope import SYSTEM, Scope
from rbee.uplink.offer import Offer
from rbee.wire.routes import FleetRoutes

TIMEOUT = 5.0
"""Seconds in which the queen must answer with its CA certificate."""

FIRST_WAIT = 0.05
"""Seconds before the hive dials again, doubled after each failure in a row, less a random part."""

LONGEST_WAIT = 2.0
"""Seconds of such a wait at most: no longer than a queen takes to restart."""

PATIENT_AFTER = 60.0
"""Seconds without the queen after which the hive dials only every PATIENT_WAIT seconds."""

PATIENT_WAIT = 15.0

REFUSED_WAIT = 60.0
"""Seconds until the next try after the queen has answered with a refusal."""

DOUBT_AFTER = 3
"""Connections in a row that broke in their handshake, after which the certificate is checked."""

DOUBT_SURE = 4
"""Times in a row that the queen must answer without the certificate and break off with it: if many hives
behind one address dial at once, it breaks off some of them, whatever their certificate."""

REFUSALS = (ClonedHive, NotPermitted, UnknownHive, VersionSkew, WrongQueen)


class Dialler:
    """Keeps the connection of `offer`, over which the queen sends requests to `app`.

    `find_queen_to_strangers` returns the queen's address without this hive's certificate.
    """

    def __init__(
        self,
        heart: Heart,
        app: ASGIApp,
        queen: QueenAddress,
        find_queen_to_strangers: Callable[[], QueenAddress],
        offer: Offer,
        *,
        clock: Callable[[], float] = time.monotonic,
        scope: Scope = SYSTEM,
    ) -> None:
        self._heart = heart
        self._app = app
        self._queen = queen
        self._find_queen_to_strangers = find_queen_to_strangers
        self._scope = scope
        self._offer = offer
        self._clock = clock
        self._open_since: float | None = None

    async def run(self) -> None:
        """Hold a connection, and beat while it is there, until cancelled."""
        wait, alone_since, broken = FIRST_WAIT, self._clock(), 0
        while True:
            trouble: RbeeError | None = None
            self._open_since = None
            try:
                await self._hold()
            except RbeeError as error:
                trouble = error
            if self._open_since is not None:
                alone_since, broken = self._clock(), 0
                if self._clock() - self._open_since > LONGEST_WAIT:  # it held for a while
                    wait = FIRST_WAIT
            elif isinstance(trouble, Disconnected):
                broken += 1
                if broken % DOUBT_AFTER == 0:
                    trouble = await self._is_certificate_refused() or trouble
            if trouble is not None:
                self._heart.tell_trouble(trouble)
            await asyncio.sleep(self._wait(wait, alone_since, trouble))
            wait = min(2 * wait, LONGEST_WAIT)

    async def _is_certificate_refused(self) -> RbeeError | None:
        """Return WrongQueen if the queen answers without this hive's certificate, but breaks off with it.

        TLS has an alert for it, which does not arrive if the connection is closed right after it.
        """
        for _ in range(DOUBT_SURE):
            if await self._ask_ca(self._find_queen_to_strangers()) is not None:
                return None
            # Again, because the queen may have come back only now.
            if not isinstance(await self._ask_ca(self._queen), Disconnected):
                return None
        return WrongQueen(
            f"the queen at {self._queen} does not know this hive's certificate",
            hint=f"To join: {self._scope.rejoin}",
        )

    async def _ask_ca(self, queen: QueenAddress) -> RbeeError | None:
        """Ask for the CA certificate; return the error, or None if the queen answered."""
        link = Link(queen, timeout=TIMEOUT, scope=self._scope)
        try:
            await link.ask(FleetRoutes.CA)
        except RbeeError as error:
            return error
        finally:
            await link.close()
        return None

    def _wait(self, wait: float, alone_since: float, trouble: RbeeError | None) -> float:
        if isinstance(trouble, REFUSALS):
            wait = REFUSED_WAIT
        elif self._clock() - alone_since > PATIENT_AFTER:
            wait = PATIENT_WAIT
        # Half of it at random, so that the hives of a queen that comes back do not all dial at once.
        return wait * random.uniform(0.5, 1)

    async def _hold(self) -> None:
        async with self._offer.hold(self._heart.instance, self._app) as ended:
            self._open_since = self._clock()
            beating = asyncio.get_running_loop().create_task(self._heart.run(is_patient=False))
            try:
                done, _ = await asyncio.wait({ended, beating}, return_when=asyncio.FIRST_COMPLETED)
                for one in done:
                    one.result()
            finally:
                beating.cancel()
                await asyncio.gather(beating, return_exceptions=True)
