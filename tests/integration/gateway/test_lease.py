"""Leases over restarts of the queen."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from rbee.client.handovers import KEPT
from rbee.config import GatewayConfig
from rbee.errors import Stopping
from rbee.gateway import lease as module
from rbee.wire.leases import Ask, Frame, Granted, Wait
from tests.integration.gateway.stage import (
    CHAT,
    CHUNKED,
    STREAMED,
    LeaseEnd,
    Queen,
    Request,
    Stage,
    ask,
    chunk,
    client_of,
    error_in,
    event,
    loading,
    refusal,
    run,
)
from tests.integration.house import until


def cut(queen: Queen) -> None:
    """As when the queen is killed."""
    for lease in list(queen.held):
        lease.channel.shutdown(2)


def test_a_stream_goes_on_while_the_queen_restarts_and_its_lease_is_announced_again(tmp_path: Path) -> None:
    may_go_on = asyncio.Event()

    async def act(stage: Stage) -> None:
        async def play(_request: Request, _reader: object, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("one")))
            await may_go_on.wait()
            writer.write(chunk(event("two")) + b"0\r\n\r\n")

        async def resumes(ask: Ask, lease: LeaseEnd) -> None:
            if ask.resume is None:
                await lease.grant()
            else:
                await lease.send(Granted(ask.resume, was_cold=False))

        stage.engine.play, stage.queen.play = play, resumes
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            assert await client.chunk() == event("one")
            for times in (1, 2):
                cut(stage.queen)
                await until(lambda times=times: len(stage.queen.asks) == 1 + times)  # type: ignore[misc]
            await until(lambda: len(stage.queen.held) == 1)
            assert stage.queen.asks[1:] == [stage.queen.asks[0]._replace(resume="bee-1")] * 2
            may_go_on.set()
            assert await client.chunk() == event("two")
            assert await client.chunk() == b""
        await until(lambda: not stage.queen.held)

    run(tmp_path, act)


def test_a_stream_does_not_wake_a_queen_who_was_sent_to_sleep(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("one")))
            await reader.read()

        async def resumes(ask: Ask, lease: LeaseEnd) -> None:
            if ask.resume is None:
                await lease.grant()
            else:
                await lease.send(Granted(ask.resume, was_cold=False))

        stage.engine.play, stage.queen.play = play, resumes
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            await client.chunk()
            # She stops, sleeps, and is there again.
            stage.queen.runs = ["one", "one", "one", None, None, "two"]
            cut(stage.queen)
            await until(lambda: stage.queen.runs == ["two"])
            await until(lambda: len(stage.queen.asks) == 2)
            assert stage.queen.runs == ["two"]

    run(tmp_path, act)


def test_a_lease_that_the_next_queen_does_not_resume_ends_the_stream(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_request: Request, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(CHUNKED + chunk(event("one")))
            await reader.read()

        async def refuses(ask: Ask, lease: LeaseEnd) -> None:
            if ask.resume is None:
                await lease.grant()
            else:
                await lease.send(refusal(Stopping("bee-1 is being stopped")))

        stage.engine.play, stage.queen.play = play, refuses
        async with client_of(stage) as client:
            await client.send("POST", CHAT, STREAMED)
            await client.head()
            await client.chunk()
            cut(stage.queen)
            assert b"bee-1 is being stopped" in await client.chunk()

    run(tmp_path, act)


def test_a_queen_that_restarts_while_a_request_waits_is_asked_again(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(ask: Ask, lease: LeaseEnd) -> None:
            if len(stage.queen.asks) == 1:
                await lease.send(loading(10))
                lease.channel.shutdown(2)
            else:
                await lease.grant(was_cold=True)

        stage.queen.play = play
        assert (await ask(stage))[0] == 200
        assert len(stage.queen.asks) == 2

    run(tmp_path, act)


def test_a_queen_that_is_off_is_an_error_with_its_cure(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        stage.queen.path.unlink()
        status, headers, content = await ask(stage)
        assert status == 503
        assert headers["retry-after"] == "5"
        assert "systemctl status queen-rbee.socket" in error_in(content)["message"]

    run(tmp_path, act)


def test_a_queen_that_does_not_decide_is_not_waited_for_for_ever(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "LATE", 0.1)

    async def act(stage: Stage) -> None:
        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await lease.send(Wait("loading bee", 62.0))

        stage.queen.play = play
        status, _, content = await ask(stage)
        assert status == 503
        assert "loading bee, 62 %" in error_in(content)["message"]

    run(tmp_path, act, config=GatewayConfig(hold=0.2))


def test_a_granted_lease_without_a_connection_is_an_error(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        async def play(_ask: Ask, lease: LeaseEnd) -> None:
            await lease.send(Granted("bee-1", was_cold=False))

        stage.queen.play = play
        status, _, content = await ask(stage)
        assert status == 502
        assert "sent none" in error_in(content)["message"]

    run(tmp_path, act)


def leases_asked_for(stage: Stage) -> int:
    """Connections for leases that were opened."""
    return sum(target.startswith("GET /v1/lease ") for target in stage.queen.targets)


def test_requests_one_after_the_other_take_one_connection_to_the_queen(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        for _ in range(5):
            status, _, _ = await ask(stage)
            assert status == 200
            await until(lambda: not stage.queen.held)
            await until(lambda: bool(stage.gateway._site.queen._kept))
        assert len(stage.queen.asks) == 5
        assert leases_asked_for(stage) == 1

    run(tmp_path, act)


@pytest.mark.parametrize(
    "confirms",
    [None, refusal(Stopping("the model bee is not served any more"))],
    ids=["it closes", "it has refused at the same time"],
)
def test_a_connection_whose_end_was_not_confirmed_is_not_used_again(
    tmp_path: Path, confirms: Frame | None
) -> None:
    async def act(stage: Stage) -> None:
        stage.queen.confirms = confirms
        for _ in range(3):
            status, _, content = await ask(stage)
            assert status == 200, content
            await until(lambda: not stage.gateway._site.queen._ending)
        assert leases_asked_for(stage) == 3

    run(tmp_path, act)


def test_a_kept_connection_of_a_queen_that_has_gone_is_not_used(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        await ask(stage)
        kept = stage.gateway._site.queen._kept
        await until(lambda: len(kept) == 1)
        stage.queen.drop()
        await until(lambda: not kept[0].is_quiet)
        status, _, _ = await ask(stage)
        assert status == 200
        assert leases_asked_for(stage) == 2

    run(tmp_path, act)


def test_only_so_many_connections_are_kept(tmp_path: Path) -> None:
    async def act(stage: Stage) -> None:
        answers = await asyncio.gather(*(ask(stage) for _ in range(KEPT + 4)))
        assert [status for status, _, _ in answers] == [200] * (KEPT + 4)
        queen = stage.gateway._site.queen
        await until(lambda: not queen._ending)
        assert 1 <= len(queen._kept) <= KEPT

    run(tmp_path, act)
