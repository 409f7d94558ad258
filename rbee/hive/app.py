"""The hive's routes: what the queen asks of it."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import threading
from collections.abc import Callable
from typing import TypeVar

from starlette.applications import Starlette
from starlette.requests import Request

from rbee import __version__
from rbee.contracts import JOB_HEADER, Accepted, Devices, Health, HiveRoutes, JobId, Route, decode
from rbee.errors import BadInput, HiveFailed
from rbee.hive.heartbeat import Heart
from rbee.narration import DETECT_FAILED, DETECTED
from rbee.server import Handler, build_app

log = logging.getLogger("rbee")

Result = TypeVar("Result")


def build(heart: Heart, detect: Callable[[], Devices], stop: Callable[[], None]) -> Starlette:
    """The hive's app. `detect` may block; `stop` asks systemd to stop this hive's unit."""
    detecting = asyncio.Lock()

    async def health(_request: Request) -> Health:
        return Health("ok", __version__)

    async def devices(request: Request) -> Devices:
        about = {"job_id": found} if (found := job_id(request)) else {}
        async with detecting:
            try:
                answer = await in_daemonic_thread(detect)
            except Exception as error:
                log.exception("detecting the devices failed")
                heart.narrate(DETECT_FAILED, f"detecting the devices failed: {error}", **about)
                await heart.beat()
                raise HiveFailed(
                    f"detecting the devices failed: {error}", hint="sudo journalctl -u rbee-hive -e"
                ) from error
        heart.narrate(DETECTED, "Detected CPU and GPUs, responding to queen", **about)
        # The line goes up before the answer, so that the story is told in its order.
        await heart.beat()
        return answer

    async def shutdown(_request: Request) -> Accepted:
        await in_daemonic_thread(stop)
        return Accepted("stopping")

    handlers: dict[Route, Handler] = {
        HiveRoutes.HEALTH: health,
        HiveRoutes.DEVICES: devices,
        HiveRoutes.SHUTDOWN: shutdown,
        HiveRoutes.OPENAPI: health,  # answered from the route table
    }
    return build_app("rbee hive", __version__, handlers)


def job_id(request: Request) -> str | None:
    """The job that the request is made for, if it says."""
    text = request.headers.get(JOB_HEADER)
    if text is None:
        return None
    try:
        return decode(JobId, text)
    except BadInput as error:
        raise BadInput(f"{JOB_HEADER} must be 32 hexadecimal digits", field=JOB_HEADER) from error


async def in_daemonic_thread(work: Callable[[], Result]) -> Result:
    """The result of blocking work, done in a thread that a wedged driver cannot keep the exit waiting with.

    An executor's threads are joined at exit; a daemonic one is left where it hangs.
    """
    loop = asyncio.get_running_loop()
    outcome: asyncio.Future[Result] = loop.create_future()

    def settle(result: Result | None, error: Exception | None) -> None:
        if outcome.done():
            return
        if error is not None:
            outcome.set_exception(error)
        else:
            outcome.set_result(result)  # type: ignore[arg-type]  # None is a result where Result says so

    def run() -> None:
        try:
            result, error = work(), None
        except Exception as caught:
            result, error = None, caught
        # The loop may be gone by the time a wedged driver lets go.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="devices", daemon=True).start()
    return await outcome
