"""The story of a cold start, beside the request that waits for it."""

from __future__ import annotations

import json
import threading
from collections.abc import AsyncIterator, Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

import rbee.keeper.verbs.ask
from rbee.client.queen import QueenClient
from rbee.keeper.gateway.story import Story
from rbee.keeper.output.lines import Terminal
from rbee.narration import Teller
from rbee.server.responses import event_stream
from rbee.wire.codec import encode
from rbee.wire.events import FeedEvent
from rbee.wire.lines import Line
from rbee.wire.routes import QueenRoutes
from tests.integration.keeper.played_gateway import DONE, PlayedGateway, chunk, gateway_at
from tests.unit.keeper.doubles import AT, JOB, Ran, Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus


def feed(*lines: tuple[str, str, str | None]) -> Any:
    """A feed with these events, texts and jobs."""

    async def chunks() -> AsyncIterator[bytes]:
        for number, (event, text, job) in enumerate(lines):
            id_ = f"{'a' * 16}-{number}"
            told = FeedEvent(id_, AT, event, "queen bee", 6, text, "localhost", job)
            yield f"id: {id_}\nevent: narrated\ndata: {json.dumps(encode(told))}\n\n".encode()

    async def handler(_request: Request) -> Response:
        return event_stream(chunks())

    return {QueenRoutes.FEED: handler}


STORY = feed(
    ("hive-online", "hive gpu1 is online", None),
    ("worker-placed", "wasp needs 1 GiB: waking it there", "1" * 32),
    ("worker-placed", "bee needs 1 GiB: waking it there", JOB),
    ("worker-loading", "loading \x1b[2J", JOB),
    ("worker-idle", "bee-2 is stopped", None),
    ("worker-awake", "bee is awake", JOB),
    ("worker-ready", "bee is ready in 0.1 s", JOB),
)


class Tape(Teller):
    def __init__(self) -> None:
        self.texts: list[str] = []

    def relay(self, line: Line) -> None:
        self.texts.append(line.text)


@pytest.fixture
def told(with_queen: Callable[..., Any], tmp_path: Path) -> Callable[..., list[str]]:
    def run(handlers: Any) -> list[str]:
        tape = Tape()
        story = Story(QueenClient(tmp_path / "queen.sock"), tape, "bee")

        def work() -> None:
            story.begin()
            story.settle()
            story._thread.join(5)
            story.end()

        with_queen(handlers, work)
        return tape.texts

    return run


def test_only_what_wakes_the_model_is_told(told: Callable[..., list[str]]) -> None:
    assert told(STORY) == [
        "bee needs 1 GiB: waking it there", "loading \x1b[2J", "bee is awake", "bee is ready in 0.1 s",
    ]  # fmt: skip


def test_a_queen_that_cannot_be_followed_is_no_error(told: Callable[..., list[str]], tmp_path: Path) -> None:
    assert told({}) == []
    story = Story(QueenClient(tmp_path / "nobody.sock"), Teller(), "bee")
    story.begin()
    story.settle()
    story.end()


def test_the_story_is_on_stderr_and_the_gateway_repeats_none_of_it(
    awake: PlayedBus,
    rbeectl: Rbeectl,
    with_queen: WithQueen,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    is_ready = threading.Event()

    class Telling(Terminal):
        def relay(self, line: Line) -> None:
            super().relay(line)
            if line.event == "worker-ready":
                is_ready.set()

    def parts() -> Iterator[bytes]:
        assert is_ready.wait(5)
        yield b": bee needs 1 GiB: waking it there\n\n: loading bee 62 %\n\n"
        yield chunk("I am bee.") + DONE

    def work() -> Ran:
        with gateway_at(tmp_path / "openai.sock", PlayedGateway(parts())):
            return rbeectl("ask", "bee", "hello")

    monkeypatch.setattr(rbee.keeper.verbs.ask, "Terminal", Telling)
    assert with_queen(STORY, work) == Ran(
        0,
        "I am bee.\n",
        "(queen bee)  bee needs 1 GiB: waking it there\n(queen bee)  loading \\x1b[2J\n"
        "(queen bee)  bee is awake\n(queen bee)  bee is ready in 0.1 s\nloading bee 62 %\n",
    )
