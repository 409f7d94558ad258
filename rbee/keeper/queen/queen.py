"""The queen of this machine: its state, waking it, and requests to it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from copy import copy
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
from rbee.wire.routes import Answer, QueenRoutes, Route
from rbee.wire.types import LOCALHOST


class Queen:
    """The queen, for the duration of one verb. Only the methods that say so wake it."""

    def __init__(self, work: Work, client: QueenClient) -> None:
        self.work = work
        self.client = client
        self._is_told_awake = False
        self._is_version_known = False

    # Its state

    def state(self) -> QueenState:
        """As systemd reports it, without waking the queen."""
        return states.queen_state(self.work.bus)

    def present_state(self) -> QueenState:
        """As state(); NotRunning if no queen is installed."""
        return states.present_state(self.work.bus)

    def settled_state(self) -> QueenState:
        """As state(); NotRunning if there is no queen or it has failed, BadConfig if it cannot run."""
        return states.settled_state(self.work.bus, self.work.left)

    def version(self) -> str:
        """The version of the running queen, which may be older than the one that is installed."""
        with self.reached():
            version: str = self.client.ask(QueenRoutes.HEALTH).version
        return version

    # Waking it

    def wake(self) -> None:
        """Wake the queen, and return when it serves; narrates that."""
        if wake.can_be_woken(self.work.bus):
            self.work.teller.narrate(QUEEN_ASLEEP, "queen is asleep, waking queen.")
            wake.have_awake(self.work)
        if not self._is_told_awake:
            self._is_told_awake = True
            self.work.teller.narrate(QUEEN_AWAKE, "queen is awake and healthy.")

    def begin_waking(self) -> None:
        """Have the queen started, if it is not awake, without waiting for it."""
        wake.begin_waking(self.work)

    def await_return(self, lost: Disconnected) -> None:
        """Wait until a queen that died is back; raises `lost` if it was stopped on purpose."""
        wake.await_return(self.work, lost)

    # Requests to it

    def within(self, timeout: float) -> Queen:
        """The same queen, whose answers may take `timeout` seconds."""
        patient = copy(self)
        patient.client = self.client.within(timeout)
        return patient

    def ask(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """The answer of a queen that is awake.

        VersionSkew, before the request is sent, if the queen is older than its route.
        """
        self._check_version(route)
        with self.reached():
            return self.client.ask(route, body, **values)

    def ask_woken(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """As ask(); wakes the queen first, without narrating that."""
        wake.have_awake(self.work)
        return self.ask(route, body, **values)

    def ask_if_awake(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """As ask(); NotRunning if the queen is not awake."""
        states.check_awake(self.work.bus, self.work.left)
        return self.ask(route, body, **values)

    def ask_within(self, within: float, route: Route[Answer], **values: str) -> Answer:
        """As ask_if_awake(), with another timeout, in seconds."""
        states.check_awake(self.work.bus, self.work.left)
        self._check_version(route)
        with self.reached():
            return self.client.within(within).ask(route, **values)

    def fetch(self, route: Route[bytes], *, accept: str | None = None) -> Iterator[bytes]:
        """The file that an awake queen returns, in parts."""
        self._check_version(route)
        with self.reached():
            yield from self.client.fetch(route, accept=accept)

    def fetch_if_awake(self, route: Route[bytes], *, accept: str | None = None) -> Iterator[bytes]:
        """As fetch(); NotRunning if the queen is not awake."""
        states.check_awake(self.work.bus, self.work.left)
        yield from self.fetch(route, accept=accept)

    def tell_story(self, route: Route[Any], body: Any = None, **values: str) -> Iterator[StoryEvent]:
        """The events of a job that an awake queen starts, to its 'done' or 'error'."""
        self._check_version(route)
        with self.reached():
            yield from self.client.tell_story(route, body, **values)

    def check_version(self) -> None:
        """VersionSkew if the queen, which is awake, is older than rbeectl; asks for its version once."""
        if not self._is_version_known:
            check_version(self.version(), self.work.scope)
            self._is_version_known = True

    def _check_version(self, route: Route[Any]) -> None:
        if route.name not in SINCE_EVER:
            self.check_version()

    @contextmanager
    def reached(self) -> Iterator[None]:
        """Give the errors of the queen's socket the hint that fits this user and this machine."""
        scope = self.work.scope
        try:
            with explained(scope):
                yield
        except NotRunning as error:
            # The socket's file was removed; systemd makes it again, and its folder, at its next start.
            again = f"{scope.rbeectl('shutdown')}; {scope.rbeectl(f'add-hive {LOCALHOST}')}"
            message = f"the queen is awake, and {error.message}"
            raise Unreachable(message, hint=f"{again}\n{scope.doctor}") from error
