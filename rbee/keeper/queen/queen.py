"""The queen of this machine: how she is, waking her, and what is asked of her."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from rbee.client.queen import QueenClient, StoryEvent
from rbee.errors import Disconnected, NotRunning, Unreachable
from rbee.keeper.permission import explained
from rbee.keeper.queen import state as states
from rbee.keeper.queen import wake
from rbee.keeper.queen.state import QueenState
from rbee.keeper.queen.version import SINCE_EVER, check_version
from rbee.keeper.work import Work
from rbee.narration import QUEEN_ASLEEP, QUEEN_AWAKE
from rbee.scope import SYSTEM
from rbee.wire.routes import Answer, QueenRoutes, Route


class Queen:
    """For the length of a verb. She is woken by what says so alone."""

    def __init__(self, work: Work, client: QueenClient) -> None:
        self.work = work
        self.client = client
        self._is_told_awake = False
        self._is_version_known = False

    # How she is

    def state(self) -> QueenState:
        """As systemd says it; nobody is woken to tell."""
        return states.queen_state(self.work.bus)

    def present_state(self) -> QueenState:
        """NotRunning where none is installed."""
        return states.present_state(self.work.bus)

    def settled_state(self) -> QueenState:
        """Raises why there is none, or why she cannot run."""
        return states.settled_state(self.work.bus, self.work.left)

    def version(self) -> str:
        """Of the program that runs, whichever is installed."""
        with reached():
            version: str = self.client.ask(QueenRoutes.HEALTH).version
        return version

    # Waking her

    def wake(self) -> None:
        """Returns when she serves; the person is told."""
        if wake.can_be_woken(self.work.bus):
            self.work.teller.narrate(QUEEN_ASLEEP, "queen is asleep, waking queen.")
            wake.have_awake(self.work)
        if not self._is_told_awake:
            self._is_told_awake = True
            self.work.teller.narrate(QUEEN_AWAKE, "queen is awake and healthy.")

    def begin_waking(self) -> None:
        """Have her started, if she is not awake, and wait for nothing."""
        wake.begin_waking(self.work)

    def await_return(self, lost: Disconnected) -> None:
        """Until she is back who died; raises `lost` if she was told to go."""
        wake.await_return(self.work, lost)

    # Asking her

    def ask(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """What a queen answers whom systemd says to be awake.

        VersionSkew, before she is asked, where she is older than what is asked for.
        """
        self._check_version(route)
        with reached():
            return self.client.ask(route, body, **values)

    def ask_woken(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """What the queen answers, who is woken for it; that is no story."""
        wake.have_awake(self.work)
        return self.ask(route, body, **values)

    def ask_if_awake(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """What the queen answers; NotRunning where she is not awake."""
        states.check_awake(self.work.bus, self.work.left)
        return self.ask(route, body, **values)

    def fetch(self, route: Route[bytes], *, accept: str | None = None) -> Iterator[bytes]:
        """The file that an awake queen answers with, in parts."""
        self._check_version(route)
        with reached():
            yield from self.client.fetch(route, accept=accept)

    def fetch_if_awake(self, route: Route[bytes], *, accept: str | None = None) -> Iterator[bytes]:
        """As fetch(); NotRunning where she is not awake."""
        states.check_awake(self.work.bus, self.work.left)
        yield from self.fetch(route, accept=accept)

    def tell_story(self, route: Route[Any], body: Any = None, **values: str) -> Iterator[StoryEvent]:
        """The events of the job that an awake queen does, to its 'done' or 'error'."""
        self._check_version(route)
        with reached():
            yield from self.client.tell_story(route, body, **values)

    def check_version(self) -> None:
        """VersionSkew for an awake queen who is older than rbeectl; she is asked once a verb."""
        if not self._is_version_known:
            check_version(self.version())
            self._is_version_known = True

    def _check_version(self, route: Route[Any]) -> None:
        if route.name not in SINCE_EVER:
            self.check_version()


@contextmanager
def reached() -> Iterator[None]:
    """What her socket refuses, with the cure that fits this user and this machine."""
    try:
        with explained():
            yield
    except NotRunning as error:
        raise Unreachable(
            f"the queen is awake, and {error.message}",
            # Her socket was taken away; systemd makes it again, folder and all, when it next starts it.
            hint=f"rbeectl shutdown; rbeectl add-hive localhost\n{SYSTEM.doctor}",
        ) from error
