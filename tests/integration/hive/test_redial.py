"""After a shutdown, the wait for the queen's return: real sockets, and pauses that are played."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

import rbee.hive.redial
from rbee import tls
from rbee.errors import BadConfig
from rbee.hive.membership import Membership, keep
from rbee.hive.redial import GOING, WAIT
from rbee.narration import Event, Journal
from rbee.queen.authority import Authority
from rbee.systemd.daemon import Notifier
from tests.integration.remote_queen import GPU1, HERE


class Place:
    """The queen's address: open() and close() are what systemd does to her TCP socket."""

    def __init__(self) -> None:
        # Bound and not listening: the port is nobody else's meanwhile.
        self._bound = socket.socket()
        self._bound.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._bound.bind((HERE, 0))
        self.port = int(self._bound.getsockname()[1])
        self._listener: socket.socket | None = None

    def open(self) -> None:
        self._listener = socket.create_server((HERE, self.port))

    def close(self) -> None:
        if self._listener is not None:
            self._listener.close()
        self._listener = None

    def said(self) -> bytes:
        """What the first who connected has said until it went."""
        assert self._listener is not None
        channel, _ = self._listener.accept()
        with channel:
            channel.settimeout(5)
            try:
                return channel.recv(1000)
            except ConnectionResetError:
                return b""

    def give_up(self) -> None:
        self.close()
        self._bound.close()


@pytest.fixture
def place() -> Iterator[Place]:
    place = Place()
    yield place
    place.give_up()


class Times:
    """asyncio as rbee.hive.redial sees it: at each pause the next thing happens, and its time has passed."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, *happens: Callable[[], None]) -> None:
        self.pauses: list[float] = []
        self.now = 1000.0
        self._happens = list(happens)
        monkeypatch.setattr(rbee.hive.redial, "asyncio", self)
        monkeypatch.setattr(rbee.hive.redial, "random", SimpleNamespace(uniform=lambda least, most: most))

    def __getattr__(self, name: str) -> Any:
        return getattr(asyncio, name)

    def get_running_loop(self) -> Any:
        return SimpleNamespace(time=lambda: self.now)

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)  # a transport closes its socket in the loop's next round
        assert self._happens, "it waits for longer than it should"
        self._happens.pop(0)()


def nothing() -> None:
    pass


async def wait_for_return(port: int, *, host: str = HERE) -> None:
    queen = Membership("gpu1", host, port, "", Path("/nowhere"))

    await asyncio.wait_for(rbee.hive.redial._await_return(queen), 10)


async def test_it_waits_until_she_has_gone_and_is_there_again(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.open()
    times = Times(monkeypatch, nothing, nothing, place.close, nothing, place.open)

    await wait_for_return(place.port)

    # Often while she is going, which takes a moment; seldom once she is gone, which may take for ever.
    assert times.pauses == [WAIT / 5, WAIT / 5, WAIT / 5, WAIT, WAIT]


async def test_who_has_gone_already_is_waited_for(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    times = Times(monkeypatch, nothing, nothing, place.open)

    await wait_for_return(place.port)

    assert times.pauses == [WAIT] * 3


async def test_a_queen_who_does_not_go_is_joined_again_after_a_while(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    place.open()
    times = Times(monkeypatch, *[nothing] * 100)

    await wait_for_return(place.port)

    assert sum(times.pauses) == pytest.approx(GOING, abs=WAIT / 5 + 0.001)


async def test_nothing_is_said_to_her(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    place.open()
    said: list[bytes] = []

    def look() -> None:
        said.append(place.said())
        place.close()

    Times(monkeypatch, look, place.open)
    await wait_for_return(place.port)

    assert [*said, place.said()] == [b"", b""]


async def test_a_name_that_nobody_knows_is_a_queen_who_is_not_there(
    place: Place, monkeypatch: pytest.MonkeyPatch
) -> None:
    known: list[bool] = []
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, *arguments: Any, **options: Any) -> Any:
        if host == "queen.example" and not known:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(HERE if host == "queen.example" else host, *arguments, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    place.open()
    times = Times(monkeypatch, nothing, lambda: known.append(True))

    await wait_for_return(place.port, host="queen.example")

    assert times.pauses == [WAIT] * 2


async def test_hives_of_one_queen_do_not_come_in_step(place: Place, monkeypatch: pytest.MonkeyPatch) -> None:
    chance = rbee.hive.redial.random
    times = Times(monkeypatch, *[nothing] * 40, place.open)
    monkeypatch.setattr(rbee.hive.redial, "random", chance)

    await wait_for_return(place.port)

    assert all(WAIT / 2 <= pause <= WAIT for pause in times.pauses)
    assert len(set(times.pauses)) > 20


# The program


class Tape(Journal):
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        self._log.append(f"{event.name} {fields['hive']}")


class PlayedNotifier(Notifier):
    def __init__(self, log: list[str]) -> None:
        self._log = log

    def status(self, status: str) -> None:
        self._log.append(status.partition(" at ")[0])


async def test_it_ends_when_she_is_back_and_not_before(
    place: Place, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    authority, key = Authority.open(tmp_path / "keys"), tls.new_key()
    membership = Membership("gpu1", HERE, place.port, authority.ca, tmp_path / "membership")
    keep(membership, key, authority.sign(tls.request_for(key), GPU1))
    log: list[str] = []

    def come_back() -> None:
        log.append("she is back")
        place.open()

    Times(monkeypatch, nothing, come_back)
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))

    await rbee.hive.redial.run(PlayedNotifier(log), Tape(log))

    assert log == ["waits for the queen", "she is back", "waking-hive gpu1"]


async def test_a_machine_that_is_no_hive_of_a_queen_elsewhere_has_nobody_to_wait_for(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("STATE_DIRECTORY", str(tmp_path))
    log: list[str] = []

    with pytest.raises(BadConfig) as caught:
        await rbee.hive.redial.run(PlayedNotifier(log), Tape(log))

    assert "rbeectl join" in (caught.value.hint or "")
    assert log == []
