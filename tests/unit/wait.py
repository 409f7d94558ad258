"""Waiting for what sends no signal when it changes."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable


async def until(question: Callable[[], bool] | Callable[[], Awaitable[bool]]) -> None:
    """Let the loop go on until the answer is yes, for what tells nobody that it changed."""
    async with asyncio.timeout(3):
        while True:
            answer = question()
            if answer if isinstance(answer, bool) else await answer:
                return
            await asyncio.sleep(0.005)
