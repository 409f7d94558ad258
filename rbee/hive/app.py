"""The hive's routes: what the queen asks of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeAlias

from starlette.requests import Request
from starlette.routing import Router

from rbee import __version__
from rbee.errors import BadInput, HiveFailed, NotPermitted
from rbee.hive.heartbeat import Heart
from rbee.hive.threads import in_daemonic_thread
from rbee.narration import DETECT_FAILED, DETECTED, TOLD_TO_LEAVE
from rbee.scope import HIVE_PROGRAM, SYSTEM, Scope
from rbee.server.app import Handler, build_app
from rbee.wire.codec import decode
from rbee.wire.daemon import Accepted
from rbee.wire.heartbeats import HiveHealth
from rbee.wire.routes import JOB_HEADER, HiveRoutes, Route
from rbee.wire.types import JobId

if TYPE_CHECKING:
    from rbee.wire.devices import Devices
    from rbee.wire.samples import Sample

log = logging.getLogger("rbee")

Holdings: TypeAlias = tuple[tuple[str, ...], tuple[str, ...]]
"""The names of models, and the ids of workers."""


def build(
    heart: Heart,
    detect: Callable[[], Devices],
    stop: Callable[[], None],
    *,
    look: Callable[[], Awaitable[Sample]],
    leave: Callable[[], None] | None = None,
    holdings: Callable[[], Holdings] = lambda: ((), ()),
    scope: Scope = SYSTEM,
    more: Mapping[Route[Any], Handler] | None = None,
) -> Router:
    """Return the hive's app. `detect` and `leave` may block; `stop` returns, and this process then ends.

    `holdings` returns the names of the models that run here, and the ids of their workers.

    `leave` forgets a remote queen and then stops likewise; None for the local one. `more` are the routes of
    other parts.
    """

    async def health(_request: Request) -> HiveHealth:
        return HiveHealth("ok", __version__, heart.hive_id, heart.queen_name, leave is not None)

    async def sample(_request: Request) -> Sample:
        return await look()

    async def shutdown(_request: Request) -> Accepted:
        stop()
        return Accepted("stopping")

    handlers: dict[Route[Any], Handler] = {
        HiveRoutes.HEALTH: health,
        HiveRoutes.DEVICES: _Detection(heart, detect, holdings, scope).answer,
        HiveRoutes.SAMPLE: sample,
        HiveRoutes.SHUTDOWN: shutdown,
        HiveRoutes.LEAVE: _leaving(heart, leave),
        **(more or {}),
        HiveRoutes.OPENAPI: health,  # answered from the route table
    }
    return build_app("rbee hive", __version__, handlers)


def _leaving(heart: Heart, leave: Callable[[], None] | None) -> Handler:
    async def leave_queen(_request: Request) -> Accepted:
        if leave is None:
            raise NotPermitted("this hive's queen is on its own machine")
        heart.narrate(TOLD_TO_LEAVE, "the queen has removed this hive; it forgets her and stops")
        await in_daemonic_thread(leave)
        return Accepted("stopping")

    return leave_queen


class _Detection:
    """Detects the devices for one request at a time, and narrates it in the story of the request's job."""

    def __init__(
        self, heart: Heart, detect: Callable[[], Devices], holdings: Callable[[], Holdings], scope: Scope
    ) -> None:
        self._heart = heart
        self._detect = detect
        self._holdings = holdings
        self._scope = scope
        self._turn = asyncio.Lock()

    async def answer(self, request: Request) -> Devices:
        about = {"job_id": name} if (name := job_id(request)) else {}
        async with self._turn:
            try:
                devices = await in_daemonic_thread(self._detect)
            except Exception as error:
                log.exception("detecting the devices failed")
                text = f"detecting the devices failed: {error}"
                self._heart.narrate(DETECT_FAILED, text, **about)
                await self._heart.beat()
                hint = self._scope.journalctl(f"-u {HIVE_PROGRAM} -e")
                raise HiveFailed(text, hint=hint) from error
        self._heart.narrate(DETECTED, "Detected CPU and GPUs, responding to queen", **about)
        # The line is sent before the answer, so that the story is in order.
        await self._heart.beat()
        models, workers = self._holdings()
        return devices._replace(model_catalog=models, worker_catalog=workers)


def job_id(request: Request) -> str | None:
    """Return the id of the job that the request is made for, or None. Raises BadInput if it is not valid."""
    text = request.headers.get(JOB_HEADER)
    if text is None:
        return None
    try:
        return decode(JobId, text)
    except BadInput as error:
        raise BadInput(f"{JOB_HEADER} must be 32 hexadecimal digits", field=JOB_HEADER) from error
