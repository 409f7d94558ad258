"""What rbeectl does: one function a verb. Each returns its result; cli.py prints it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

from rbee.client.queen import QueenClient, StoryEvent
from rbee.contracts import AddHive, Done, Hives, HiveView, Line, Name, QueenRoutes, decode
from rbee.errors import (
    BadInput,
    Interrupted,
    NotPermitted,
    NotRunning,
    RbeeError,
    UnitFailed,
    UnknownHive,
    from_problem,
)
from rbee.keeper.permission import explain
from rbee.narration import QUEEN_ASLEEP, QUEEN_AWAKE, REQUESTING, SHUTTING_DOWN_QUEEN, Teller
from rbee.systemd import (
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    TARGET,
    Bus,
    UnitState,
    journal_tail,
)

START_TIMEOUT = 35.0
"""Seconds for the queen's start job; her TimeoutStartSec= is 30 s, so that systemd's word comes first."""

STOP_TIMEOUT = 20.0
"""Seconds for the whole cascade; two services with TimeoutStopSec=5s each fit into it."""

SHUTDOWN_ANSWER = 2.0
"""Seconds that a queen has to take a shutdown, before systemd stops her without her word."""

QueenState = Literal["off", "asleep", "waking", "awake", "stopping", "failed"]


@dataclass(frozen=True, slots=True)
class Overview:
    """What `rbeectl status` shows; `hives` is None where the queen is not awake to tell."""

    queen_state: QueenState
    queen: UnitState
    hive: UnitState
    hives: tuple[HiveView, ...] | None


class Keeper:
    """The keeper at work: with a bus to systemd, a client to the queen and somebody who listens."""

    def __init__(self, bus: Bus, queen: QueenClient, teller: Teller) -> None:
        self._bus = bus
        self._queen = queen
        self._teller = teller

    # Verbs that wake

    def add_hive(self, host: str, port: int) -> HiveView:
        """Add a hive and see it online."""
        request = decode(AddHive, {"host": host, "port": port})
        self._wake()
        self._teller.narrate(REQUESTING, f"Requesting queen to add {host} to hive catalog")
        hive = self._follow(self._queen.tell_story(QueenRoutes.ADD_HIVE, request)).hive
        if hive is None or hive.state != "online":
            raise UnitFailed(f"the queen ended the story, and {host} is not online", hint="rbeectl status")
        return hive

    def remove_hive(self, hive_id: str) -> None:
        """Stop a hive and forget it."""
        _check_name(hive_id)
        self._wake()
        self._teller.narrate(REQUESTING, f"Requesting queen to remove {hive_id} from hive catalog")
        self._follow(self._queen.tell_story(QueenRoutes.REMOVE_HIVE, hive_id=hive_id))

    # Verbs that never do

    def list_hives(self) -> tuple[HiveView, ...]:
        """All hives; NotRunning where the queen is not awake to tell."""
        state = self._queen_state()
        if state != "awake":
            raise NotRunning(
                f"the queen is {state}; looking does not wake her", hint="rbeectl add-hive localhost"
            )
        return self._hives()

    def hive(self, hive_id: str) -> HiveView:
        for hive in self.list_hives():
            if hive.id == hive_id:
                return hive
        raise UnknownHive(
            f"hive '{hive_id}' is not in the hive catalog", hint="rbeectl list-hives", field="HIVE"
        )

    def status(self) -> Overview:
        """The queen, the local hive's unit, and all hives if she is awake."""
        state = self._queen_state()
        hives = self._hives() if state == "awake" else None
        return Overview(state, self._bus.state(QUEEN_UNIT), self._bus.state(HIVE_UNIT), hives)

    def shutdown(self) -> None:
        """Stop everything, hives first; returns when units and sockets are stopped."""
        telling: threading.Thread | None = None
        if self._queen_state() == "awake":
            self._teller.narrate(SHUTTING_DOWN_QUEEN, "Shutting down queen")
            telling = self._tell_shutdown()
        try:
            self._bus.stop(TARGET, timeout=STOP_TIMEOUT)
        except NotPermitted as error:
            raise explain(error) from error
        if telling is not None:
            telling.join(SHUTDOWN_ANSWER)
        for unit in (HIVE_UNIT, QUEEN_UNIT, HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT):
            state = self._bus.state(unit)
            if not state.is_stopped:
                raise UnitFailed(f"{unit} is still {state.active}", hint=f"systemctl status {unit}")

    def _tell_shutdown(self) -> threading.Thread:
        """Ask the queen and tell her story beside the main thread, which waits for systemd.

        A queen that hangs does not answer; then there is no story, and systemd stops her all the same.
        """
        taken = threading.Event()

        def tell() -> None:
            try:
                for event in self._queen.tell_story(QueenRoutes.SHUTDOWN):
                    taken.set()
                    self._relay(event)
            except RbeeError:
                # Her end may cut the story short; systemd's word on the units is what counts.
                pass
            finally:
                taken.set()

        telling = threading.Thread(target=tell, name="story", daemon=True)
        telling.start()
        taken.wait(SHUTDOWN_ANSWER)
        return telling

    # The steps

    def _wake(self) -> None:
        if self._queen_state() != "awake":
            self._teller.narrate(QUEEN_ASLEEP, "queen is asleep, waking queen.")
            try:
                self._bus.start(QUEEN_UNIT, timeout=START_TIMEOUT)
            except NotPermitted as error:
                raise explain(error) from error
            except UnitFailed as error:
                for line in journal_tail(QUEEN_UNIT):
                    error.add_note(line)
                raise
        self._teller.narrate(QUEEN_AWAKE, "queen is awake and healthy.")

    def _queen_state(self) -> QueenState:
        active = self._bus.active_state(QUEEN_UNIT)
        if active == "inactive":
            listening = self._bus.active_state(QUEEN_SOCKET_UNIT) == "active"
            return "asleep" if listening else "off"
        names: dict[str, QueenState] = {
            "activating": "waking",
            "deactivating": "stopping",
            "failed": "failed",
        }
        return names.get(active, "awake")

    def _hives(self) -> tuple[HiveView, ...]:
        try:
            hives: Hives = self._queen.ask(QueenRoutes.HIVES)
        except NotPermitted as error:
            raise explain(error) from error
        return hives.hives

    def _follow(self, story: Iterator[StoryEvent]) -> Done:
        """Relay a story to its explicit end; its error becomes ours."""
        job_id = None
        end: RbeeError | None = None
        try:
            for event in story:
                if event.kind == "job":
                    job_id = event.data["job_id"]
                elif event.kind == "done":
                    return decode(Done, event.data)
                elif event.kind == "error":
                    end = from_problem(event.data)
                    break
                else:
                    self._relay(event)
        except KeyboardInterrupt as error:
            if job_id is None:
                raise Interrupted("interrupted before the queen answered", hint="rbeectl status") from error
            raise Interrupted(
                f"interrupted; job {job_id} goes on", hint=f"sudo journalctl -f RBEE_JOB_ID={job_id}"
            ) from error
        except NotPermitted as error:
            raise explain(error) from error
        if end is not None:
            raise end  # the queen's own, not this user's
        raise AssertionError("tell_story() ends with 'done', 'error' or an error of its own")

    def _relay(self, event: StoryEvent) -> None:
        if event.kind == "line":
            self._teller.relay(decode(Line, event.data))


def _check_name(hive_id: str) -> None:
    """A name that no hive can have is not worth waking the queen for."""
    try:
        decode(Name, hive_id)
    except BadInput as error:
        raise BadInput(f"HIVE {error.message.removeprefix('the body ')}", field="HIVE") from error
