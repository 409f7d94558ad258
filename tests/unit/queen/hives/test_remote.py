"""A remote hive: how it is waited for, what the end of its connection means, and how it is removed."""

from __future__ import annotations

import asyncio
import json

import pytest

import rbee.queen.hives.remote
from rbee import __version__
from rbee.errors import UnknownHive, VersionSkew
from rbee.server.peer import RemotePeer
from rbee.wire.hives import AddHive
from rbee.wire.hives import Hives as Views
from rbee.wire.routes import QueenRoutes
from tests.unit.queen.joined import (
    INSTANCE,
    OPERATOR,
    Queen,
    add_fails,
    answering,
    as_the_keeper_reads,
    beat,
    dials,
    state_is,
)
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_a_hive_that_cannot_be_told_is_removed_only_by_force(queen: Queen) -> None:
    await queen.member()
    job = queen.work.remove("gpu1", OPERATOR)
    await until(lambda: job.view().state != "running")
    assert job.view().state == "error"
    assert [row.id for row in await queen.catalog.hives.all()] == ["gpu1"]


async def test_the_end_of_a_stream_is_the_end_of_its_hive_and_a_goodbye_says_why(queen: Queen) -> None:
    peer = await queen.member()
    for states, reason in (
        (("ready",), "its connection closed"),
        (("ready", "stopping"), "stopped by an administrator"),
    ):
        stream = await queen.fleet.connect(peer, INSTANCE, __version__)
        holding = answering(stream)
        for state in states:
            await queen.hives.heartbeat(beat(state), peer.fields)
        await until(lambda: state_is(queen, "online"))
        holding.go()
        await until(lambda: state_is(queen, "offline"))
        assert queen.hives.view("gpu1").reason == reason


async def test_a_hive_whose_connection_broke_is_asked_again_only_if_it_is_another_process(
    queen: Queen,
) -> None:
    peer = await queen.member()

    async def comes_and_goes(instance: str) -> None:
        lines = len(queen.tape.of("hive-online"))
        holding = answering(await queen.fleet.connect(peer, instance, __version__))
        await queen.hives.heartbeat(beat("ready", fingerprint="f1", instance=instance), peer.fields)
        # The state is online before that is stored, and narrated after it.
        await until(lambda: len(queen.tape.of("hive-online")) > lines)
        holding.go()
        await until(lambda: state_is(queen, "offline"))

    for instance, times in ((INSTANCE, 1), (INSTANCE, 1), ("2" * 32, 2), ("2" * 32, 2)):
        await comes_and_goes(instance)
        assert len(queen.tape.of("first-heartbeat")) == times
    assert len(queen.tape.of("hive-online")) == 4


async def test_a_hive_that_went_before_it_was_asked_is_offline_and_stays_so(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.hives.remote, "CONNECT_TIMEOUT", 0.05)

    peer = await queen.member()
    for _ in range(2):  # with the question to the first still under way
        stream = await queen.fleet.connect(peer, INSTANCE, __version__)
        await queen.hives.heartbeat(beat("ready"), peer.fields)
        await asyncio.sleep(0)  # the queen begins to ask
        stream.abort()
    await until(lambda: bool(queen.tape.of("add-failed")))
    view = queen.hives.view("gpu1")
    assert (view.state, view.reason) == ("offline", "its connection closed")


async def test_a_hive_of_a_long_version_or_problem_does_not_break_the_list_of_all(queen: Queen) -> None:
    peer = await queen.member()
    with pytest.raises(VersionSkew):
        await queen.fleet.connect(peer, INSTANCE, "9" * 2000)
    as_the_keeper_reads(QueenRoutes.HIVES, Views(tuple(map(queen.hives.view, queen.hives.names))))

    stream = await queen.fleet.connect(peer, INSTANCE, __version__)
    problem = json.dumps({"detail": "y" * 100_000}).encode()
    lying = answering(stream, status=502, content=problem)
    await queen.hives.heartbeat(beat("ready"), peer.fields)
    await until(lambda: bool(queen.tape.of("add-failed")))
    as_the_keeper_reads(QueenRoutes.HIVES, Views(tuple(map(queen.hives.view, queen.hives.names))))
    lying.go()


async def test_a_version_too_far_off_ends_the_wait_for_a_hive(queen: Queen) -> None:
    peer = await queen.member()
    adding = asyncio.create_task(add_fails(queen))
    await until(lambda: queen.hives.hive("gpu1").arrival is not None)
    await dials(queen, peer, "0.1.0")

    error = await adding
    assert isinstance(error, VersionSkew)
    assert "the beehive gpu1 has version 0.1.0" in error.message
    assert (error.hint or "").startswith("On gpu1: ")


async def test_a_credential_that_is_not_in_the_catalog_ends_the_wait_and_is_the_reason(queen: Queen) -> None:
    await queen.member()
    adding = asyncio.create_task(add_fails(queen))
    await until(lambda: queen.hives.hive("gpu1").arrival is not None)
    await dials(queen, RemotePeer("10.0.0.1", "of before", "gpu1"))

    error = await adding
    assert isinstance(error, UnknownHive)
    assert "gpu1 comes from 10.0.0.1 with a credential that is not in the hive catalog" in error.message
    assert error.hint == "rbeectl add-hive gpu1"
    view = queen.hives.view("gpu1")
    assert (view.state, view.reason) == ("offline", error.message)


async def test_another_s_credential_changes_nothing_about_a_hive_that_is_connected(queen: Queen) -> None:
    peer = await queen.member()
    await queen.fleet.connect(peer, INSTANCE, __version__)
    before = queen.hives.view("gpu1")
    await dials(queen, RemotePeer("10.0.0.9", "of before", "gpu1"))
    assert queen.hives.view("gpu1") == before
    # Nor is a name made known that the catalog does not have.
    await dials(queen, RemotePeer("10.0.0.9", "of before", "gpu9"))
    assert queen.hives.names == ["gpu1"]


async def test_a_refusal_of_before_ends_the_wait_soon_and_not_at_once(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.hives.remote, "REFUSED_TIMEOUT", 0.05)
    peer = await queen.member()
    await dials(queen, peer, "0.1.0")
    assert isinstance(await add_fails(queen), VersionSkew)
    # It may have been mended meanwhile, and comes.
    monkeypatch.setattr(rbee.queen.hives.remote, "REFUSED_TIMEOUT", 5)
    job = queen.work.add(AddHive("gpu1", None), OPERATOR)
    await until(lambda: queen.hives.hive("gpu1").arrival is not None)
    await queen.fleet.connect(peer, INSTANCE, __version__)
    await asyncio.sleep(0.1)
    assert job.state == "running"


async def test_a_hive_that_does_not_dial_is_said_not_to(
    queen: Queen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.queen.hives.remote, "DIAL_TIMEOUT", 0.05)
    await queen.member()
    error = await add_fails(queen)
    assert error.message == "the beehive gpu1 has not connected within 0.05 s"
