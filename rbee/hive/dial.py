"""A hive's way to a queen on another machine: it dials, always, and dials again.

What it does over the connection is in rbee.uplink; here is when it is dialled again, and what it means that
it was not to be had.
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
    JoinedAnew,
    NotPermitted,
    RbeeError,
    UnknownHive,
    VersionSkew,
    WrongQueen,
)
from rbee.hive.heartbeat import Heart
from rbee.uplink.offer import Offer
from rbee.wire.routes import FleetRoutes

TIMEOUT = 5.0
"""Seconds for the question for her CA."""

FIRST_WAIT = 0.05
"""Seconds, twice as many after each failure in a row, less a random part, before the hive dials again."""

LONGEST_WAIT = 2.0
"""Seconds of such a wait at the most, for as long as a queen who is restarted is away."""

PATIENT_AFTER = 60.0
"""Seconds without the queen after which the hive dials every PATIENT_WAIT seconds only."""

PATIENT_WAIT = 15.0

REFUSED_WAIT = 60.0
"""Seconds until the next try where she has answered, and does not want this hive."""

DOUBT_AFTER = 3
"""Connections in a row that break before they are there, after which the certificate is in doubt."""

DOUBT_SURE = 4
"""Times that she has to speak to a stranger and break off at the certificate: of many hives behind one
address that come at once she breaks off some, whoever they are."""

SUCCESSION_WAIT = 3.0
"""Seconds for whoever has this machine join anew to restart the hive, before it ends by itself."""

REFUSALS = (ClonedHive, NotPermitted, UnknownHive, VersionSkew, WrongQueen)


class Dialler:
    """`offer` is dialled for and `app` is what it offers; `queen` is where she is, and `stranger` says
    where for who shows no certificate. `is_succeeded` is whether this machine has joined anew.
    """

    def __init__(
        self,
        heart: Heart,
        app: ASGIApp,
        queen: QueenAddress,
        stranger: Callable[[], QueenAddress],
        offer: Offer,
        *,
        is_succeeded: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._heart = heart
        self._app = app
        self._queen = queen
        self._stranger = stranger
        self._offer = offer
        self._is_succeeded = is_succeeded
        self._clock = clock
        self._open_since: float | None = None

    async def run(self) -> None:
        """Hold a connection, and beat while it is there, until cancelled.

        Raises JoinedAnew where the queen refuses this hive, and a membership is left that replaces it.
        """
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
            if isinstance(trouble, REFUSALS) and self._is_succeeded():
                # Whoever had it join was interrupted, or was killed, and will not restart the hive.
                await asyncio.sleep(SUCCESSION_WAIT)
                raise JoinedAnew("this machine has joined anew; the hive starts again as what it is now")
            await asyncio.sleep(self._wait(wait, alone_since, trouble))
            wait = min(2 * wait, LONGEST_WAIT)

    async def _is_certificate_refused(self) -> RbeeError | None:
        """Does the queen speak to a stranger, where she breaks off at this hive's certificate?

        TLS has an alert for it, which does not arrive where the connection is cut off right behind it.
        """
        for _ in range(DOUBT_SURE):
            if await self._ask_ca(self._stranger()) is not None:
                return None
            # Again, as she may have been away the times before, and back only now.
            if not isinstance(await self._ask_ca(self._queen), Disconnected):
                return None
        return WrongQueen(
            f"the queen at {self._queen} does not know this hive's certificate",
            hint="To join: sudo rbeectl join QUEEN:8500 --token TOKEN",
        )

    async def _ask_ca(self, queen: QueenAddress) -> RbeeError | None:
        """What keeps her from telling her CA."""
        link = Link(queen, timeout=TIMEOUT)
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
        # Half of it at random: a queen who comes back meets no herd.
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
