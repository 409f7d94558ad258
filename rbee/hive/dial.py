"""A hive's way to a queen on another machine: it dials, always, and dials again.

Over one connection it holds a stream on which her requests come down; over another go beats and
answers. Requests are put to the app that also serves the hive's own socket.
"""

from __future__ import annotations

import asyncio
import json
import logging
import random
import time
from collections.abc import AsyncIterator, Callable

from starlette.types import ASGIApp, Message

from rbee import __version__
from rbee.client.link import Afar, Link
from rbee.contracts import (
    INSTANCE_HEADER,
    JOB_HEADER,
    STATUS_HEADER,
    VERSION_HEADER,
    Asked,
    FleetRoutes,
    decode,
)
from rbee.errors import (
    BadInput,
    ClonedHive,
    Disconnected,
    JoinedAnew,
    NotPermitted,
    RbeeError,
    UnknownHive,
    VersionSkew,
    WrongQueen,
)
from rbee.hive.heartbeat import UNHEARD, Heart
from rbee.server.peer import Peer

log = logging.getLogger("rbee")

TIMEOUT = 5.0
"""Seconds for a connection, and for each beat and answer."""

SILENCE = 25.0
"""Seconds without a byte after which the stream counts as broken; the queen sends some every 10."""

BEAT_AGAIN = 1.0
"""Seconds until a beat that did not arrive is tried again: only an answer shows that the line has healed."""

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
"""Connections in a row that break before the stream is there, after which the certificate is in doubt."""

ANSWER_TRIES = 3
"""How often the hive tries to give an answer, TIMEOUT each."""

SETTLE_TIMEOUT = 1.0
"""Seconds that answers have before the hive stops."""

EVENT_LIMIT = 64 * 1024
"""Bytes of one event of the stream."""

SUCCESSION_WAIT = 3.0
"""Seconds for whoever has this machine join anew to restart the hive, before it ends by itself."""

REFUSALS = (ClonedHive, NotPermitted, UnknownHive, VersionSkew, WrongQueen)


class Dialler:
    """`app` answers what is asked, `answers` carries that up; `queen` is where she is, and `stranger`
    says where for who shows no certificate. `is_succeeded` is whether this machine has joined anew.
    """

    def __init__(
        self,
        heart: Heart,
        app: ASGIApp,
        queen: Afar,
        stranger: Callable[[], Afar],
        answers: Link,
        *,
        is_succeeded: Callable[[], bool] = lambda: False,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._heart = heart
        self._app = app
        self._queen = queen
        self._stranger = stranger
        self._answers = answers
        self._is_succeeded = is_succeeded
        self._clock = clock
        self._answering: set[asyncio.Task[None]] = set()
        self._open_since: float | None = None

    async def run(self) -> None:
        """Hold the stream, and beat while it is there, until cancelled.

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

        TLS has an alert for it, which asyncio's server does not send.
        """
        if await self._ask_ca(self._stranger()) is not None:
            return None
        # Again, as she may have been away the times before, and back only now.
        if not isinstance(await self._ask_ca(self._queen), Disconnected):
            return None
        return WrongQueen(
            f"the queen at {self._queen} does not know this hive's certificate",
            hint="To join: sudo rbeectl join QUEEN:8500 --token TOKEN",
        )

    async def _ask_ca(self, queen: Afar) -> RbeeError | None:
        """What keeps her from telling her CA."""
        link = Link(queen, timeout=TIMEOUT)
        try:
            await link.ask(FleetRoutes.CA)
        except RbeeError as error:
            return error
        finally:
            await link.close()
        return None

    async def settle(self) -> None:
        """Let answers that are on their way arrive, that to being told to stop for one."""
        if self._answering:
            await asyncio.wait(self._answering, timeout=SETTLE_TIMEOUT)

    def _wait(self, wait: float, alone_since: float, trouble: RbeeError | None) -> float:
        if isinstance(trouble, REFUSALS):
            wait = REFUSED_WAIT
        elif self._clock() - alone_since > PATIENT_AFTER:
            wait = PATIENT_WAIT
        # Half of it at random: a queen who comes back meets no herd.
        return wait * random.uniform(0.5, 1)

    async def _hold(self) -> None:
        link = Link(self._queen, timeout=TIMEOUT)
        working: set[asyncio.Task[None]] = set()
        try:
            headers = {INSTANCE_HEADER: self._heart.instance, VERSION_HEADER: __version__}
            async with link.stream(FleetRoutes.REQUESTS, headers=headers, silence=SILENCE) as parts:
                self._open_since = self._clock()
                loop = asyncio.get_running_loop()
                working = {
                    loop.create_task(self._read(parts)),
                    loop.create_task(self._heart.run(retry=BEAT_AGAIN)),
                }
                done, _ = await asyncio.wait(working, return_when=asyncio.FIRST_COMPLETED)
                for task in done:
                    task.result()
        finally:
            working |= self._answering
            for task in working:
                task.cancel()
            await asyncio.gather(*working, return_exceptions=True)
            await link.close()

    async def _read(self, parts: AsyncIterator[bytes]) -> None:
        async for event in _events(parts):
            self._answer(event)

    def _answer(self, event: bytes) -> None:
        try:
            asked = decode(Asked, json.loads(event))
        except (ValueError, BadInput) as error:
            log.warning("a request of the queen's is not as agreed, and passed over: %s", error)
            return
        task = asyncio.get_running_loop().create_task(self._answer_one(asked))
        self._answering.add(task)
        task.add_done_callback(self._answering.discard)

    async def _answer_one(self, asked: Asked) -> None:
        status, content = await put_to(self._app, asked)
        task = asyncio.current_task()
        if task is not None and task.cancelling():
            return  # the app has made a refusal of it, for which nobody waits any more
        headers = {STATUS_HEADER: str(status), "request_id": asked.id}
        for left in reversed(range(ANSWER_TRIES)):
            try:
                await self._answers.ask(FleetRoutes.ANSWER, content, headers=headers)
                return
            except RbeeError as error:
                if left and isinstance(error, UNHEARD):
                    continue  # over another connection; an answer that comes twice is one
                told = "the answer to %s %s could not be given: %s"
                log.warning(told, asked.method, asked.path, error.message)
                return


async def _events(parts: AsyncIterator[bytes]) -> AsyncIterator[bytes]:
    """The data of each event 'request'."""
    waiting = b""
    async for part in parts:
        *blocks, waiting = (waiting + part).split(b"\n\n")
        if len(waiting) > EVENT_LIMIT:
            raise BadInput(f"an event of the queen's stream is larger than {EVENT_LIMIT} bytes")
        for block in blocks:
            fields = dict(line.split(b": ", 1) for line in block.splitlines() if b": " in line)
            if fields.get(b"event") == b"request" and b"data" in fields:
                yield fields[b"data"]


async def put_to(app: ASGIApp, asked: Asked) -> tuple[int, bytes]:
    """What the app answers to a request, as if it had come over the hive's own socket from the queen."""
    status, content = 500, b""
    headers = [(JOB_HEADER.lower().encode(), asked.job_id.encode())] if asked.job_id else []
    scope = {
        "type": "http", "asgi": {"version": "3.0"}, "http_version": "1.1", "method": asked.method,
        "scheme": "http", "path": asked.path, "raw_path": asked.path.encode(), "root_path": "",
        "query_string": b"", "headers": headers, "client": None, "server": None,
        "rbee.peer": Peer(0, 0, 0), "rbee.drop": lambda: None,
    }  # fmt: skip

    async def receive() -> Message:
        return {"type": "http.request", "body": b"", "more_body": False}

    async def send(message: Message) -> None:
        nonlocal status, content
        if message["type"] == "http.response.start":
            status = message["status"]
        elif message["type"] == "http.response.body":
            content += message.get("body", b"")

    try:
        await app(scope, receive, send)
    except Exception:
        # Starlette raises on what nobody foresaw, once it has answered 500.
        log.exception("%s %s failed", asked.method, asked.path)
    return status, content
