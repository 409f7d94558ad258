"""A hive from its parts to its exit status: whose it is, and what ends it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest
from starlette.types import ASGIApp

from rbee.config import Config, HiveConfig
from rbee.errors import BadConfig
from rbee.hive.hive import Hive, Site
from rbee.hive.membership import Membership, keep
from rbee.hive.queen import LocalQueen
from rbee.hive.remote import SHUT_DOWN_BY_QUEEN, RemoteQueen
from rbee.narration import Event, Narrator
from rbee.queen.authority import Authority
from rbee.scope import SYSTEM
from rbee.systemd.daemon import Notifier
from tests.integration.listening import listen
from tests.integration.remote_queen import HERE, credential, unheard_port
from tests.integration.unix_http import TIMEOUT, Answer, raw, request


class Tape(Narrator):
    def __init__(self) -> None:
        self.told: list[tuple[str, str]] = []

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self.told.append((event.name, text))


class Place:
    """A state directory and sockets of a hive's, with nobody at the queen's."""

    def __init__(self, folder: Path, notifier: Notifier) -> None:
        self.folder = folder
        self.notifier = notifier
        self.journal = Tape()
        self.state = folder / "state"
        self.state.mkdir()

    def join(self, port: int, *, file: str = "membership") -> Path:
        """Leave a membership of a remote queen."""
        authority = Authority.open(self.folder)
        content = credential(authority, self.folder / "gpu1").read_text()
        key, _, certificate = content.partition("-----BEGIN CERTIFICATE")
        path = self.state / file
        keep(Membership("gpu1", HERE, port, authority.ca, path), key, f"-----BEGIN CERTIFICATE{certificate}")
        return path

    @asynccontextmanager
    async def open(self, kind: type[Hive] = Hive, **settings: Any) -> AsyncIterator[Hive]:
        config = Config(hive=HiveConfig(queen=self.folder / "queen.sock"), **settings)
        with listen(self.folder / "hive.sock") as listener:
            listener.setblocking(False)
            site = Site(SYSTEM, self.state, [listener])
            async with kind.open(config, site, self.notifier, self.journal) as hive:
                yield hive

    async def ask(self, path: str) -> Answer:
        return await raw(self.folder / "hive.sock", request("POST", path, b""))


@pytest.fixture
def place(tmp_path: Path, silent_notifier: Notifier) -> Place:
    return Place(tmp_path, silent_notifier)


async def ended(server_task: asyncio.Task[int]) -> int:
    return await asyncio.wait_for(asyncio.shield(server_task), TIMEOUT)


async def test_without_a_membership_its_queen_is_on_this_machine(place: Place) -> None:
    async with place.open(warnings=("[Hive] Colour= is not known",)) as hive:
        assert isinstance(hive.queen, LocalQueen)
        assert (hive.queen.hive_id, hive.queen.name) == ("localhost", str(place.folder / "queen.sock"))
    assert place.journal.told == [("config-warning", "[Hive] Colour= is not known")]


async def test_with_a_membership_its_queen_is_where_that_says(place: Place) -> None:
    place.join(8500)
    async with place.open() as hive:
        assert isinstance(hive.queen, RemoteQueen)
        assert (hive.queen.hive_id, hive.queen.name) == ("gpu1", f"{HERE}:8500")


async def test_a_membership_that_it_did_not_become_ready_with_gives_way_to_the_old_one(place: Place) -> None:
    place.join(8501, file="membership.old")
    place.join(8502)
    async with place.open() as hive:
        assert hive.queen.name == f"{HERE}:8501"
    ((event, text),) = place.journal.told
    assert event == "membership-restored"
    assert f"it is again the hive gpu1 of the queen at {HERE}:8501" in text


async def test_a_membership_that_cannot_be_read_keeps_it_from_starting(place: Place) -> None:
    (place.state / "membership").write_text("nonsense")
    with pytest.raises(BadConfig):
        async with place.open():
            raise AssertionError("it was opened")


@pytest.mark.parametrize("is_remote", [False, True])
async def test_its_exit_status_after_a_shutdown_has_it_wait_for_a_remote_queen(
    place: Place, is_remote: bool
) -> None:
    with unheard_port() as port:
        if is_remote:
            place.join(port)
        async with place.open() as hive:
            server_task = asyncio.create_task(hive.serve(asyncio.Event()))
            assert (await place.ask("/shutdown")).status == 202
            assert await ended(server_task) == (SHUT_DOWN_BY_QUEEN if is_remote else 0)
    assert ("goodbye", "Received shutdown signal, goodbye") in place.journal.told


async def test_a_hive_that_is_removed_forgets_its_queen_and_ends_for_good(place: Place) -> None:
    with unheard_port() as port:
        path = place.join(port)
        async with place.open() as hive:
            server_task = asyncio.create_task(hive.serve(asyncio.Event()))
            assert (await place.ask("/v1/leave")).status == 202
            assert await ended(server_task) == 0
    assert not path.exists()


class Broken(Hive):
    """Its work ends by what the test says, or by nothing."""

    error: Exception | None = None

    async def work(self, served: ASGIApp) -> None:
        if self.error is not None:
            raise self.error


@pytest.mark.parametrize("error", [None, ValueError("its heart has stopped")])
async def test_a_hive_whose_work_ends_is_none(place: Place, error: Exception | None) -> None:
    async with place.open(Broken) as hive:
        assert isinstance(hive, Broken)
        hive.error = error
        with pytest.raises(RuntimeError if error is None else ValueError):
            await ended(asyncio.create_task(hive.serve(asyncio.Event())))
