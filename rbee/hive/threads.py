"""Blocking work that may never return, in threads that no exit waits for."""

from __future__ import annotations

import asyncio
import contextlib
import threading
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, TypeVar

Result = TypeVar("Result")


class DaemonicExecutor(ThreadPoolExecutor):
    """An executor for the loop's name lookups: as with in_daemonic_thread(), no exit waits for it.

    If the resolver does not answer, getaddrinfo(3) blocks for 10 s and more.
    """

    def submit(self, work: Callable[..., Result], /, *args: Any, **options: Any) -> Future[Result]:
        future: Future[Result] = Future()

        def run() -> None:
            if not future.set_running_or_notify_cancel():
                return
            try:
                future.set_result(work(*args, **options))
            except BaseException as error:
                future.set_exception(error)

        threading.Thread(target=run, name="lookup", daemon=True).start()
        return future


async def in_daemonic_thread(work: Callable[[], Result]) -> Result:
    """Return the result of blocking work in a thread of its own, or raise its error; no exit waits for it.

    Python joins an executor's threads at exit, but not a daemonic thread.
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
        # The loop may be closed by the time a hung driver returns.
        with contextlib.suppress(RuntimeError):
            loop.call_soon_threadsafe(settle, result, error)

    threading.Thread(target=run, name="devices", daemon=True).start()
    return await outcome
