"""What rbeectl does: one function a verb. Each returns its result; cli.py prints it."""

from __future__ import annotations

import sys
import threading
import time
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from rbee.client.queen import QueenClient, StoryEvent
from rbee.contracts import (
    EVENTS_MAX,
    LOCALHOST,
    AddHive,
    Answer,
    CatalogReport,
    Done,
    FeedEvent,
    HiveView,
    JobStarted,
    Line,
    Name,
    QueenRoutes,
    Route,
    Sample,
    Shape,
    Tcp,
    decode,
    is_same_name,
    spelled,
)
from rbee.errors import (
    BadConfig,
    BadInput,
    Disconnected,
    Interrupted,
    NoSuchRoute,
    NotPermitted,
    NotRunning,
    RbeeError,
    TimedOut,
    UnitFailed,
    UnknownHive,
    Unreachable,
    from_problem,
    with_packages,
)
from rbee.keeper.listener import ClosedTcp, closed_tcp
from rbee.keeper.lone import LoneHive, no_queen
from rbee.keeper.permission import explain
from rbee.narration import (
    LOOKING_AT_HOST,
    QUEEN_ASLEEP,
    QUEEN_AWAKE,
    QUEEN_LOST,
    QUEEN_RETURNED,
    REQUESTING,
    SENDING_TO_SLEEP,
    SHUTTING_DOWN_QUEEN,
    Teller,
)
from rbee.scope import (
    FORGET_UNIT,
    HIVE_SOCKET_UNIT,
    HIVE_UNIT,
    QUEEN_SOCKET_UNIT,
    QUEEN_UNIT,
    SYSTEM,
    TARGET,
    TCP_SOCKET_UNIT,
)
from rbee.systemd.bus import Bus
from rbee.systemd.journal import journal_tail
from rbee.systemd.unit import UnitState, said_by, unusable

if TYPE_CHECKING:
    from rbee.keeper.monitor import Told

START_TIMEOUT = 35.0
"""Seconds for the queen's start job; her TimeoutStartSec= is 30 s, so that systemd's word comes first."""

RETURN_TIMEOUT = 2.0
"""Seconds in which systemd must have brought a queen back who died while she was asked."""

STOP_TIMEOUT = 20.0
"""Seconds for the whole cascade; two services with TimeoutStopSec=5s each fit into it."""

STOP_TRIES = 3
"""Times that everything is told to stop: who adds a hive meanwhile may have woken it again."""

SAMPLE_WAIT = 2.0
"""Seconds that a hive has to tell what its machine does, before its figures are shown as not known."""

SAMPLES_AT_ONCE = 16
"""Hives that are asked at the same time."""

SHUTDOWN_ANSWER = 2.0
"""Seconds that a queen has to take a shutdown, before systemd stops her without her word."""

NEAR_MAX = 5
"""Names that are suggested for one that was mistyped."""

UNITS = (HIVE_UNIT, QUEEN_UNIT, HIVE_SOCKET_UNIT, QUEEN_SOCKET_UNIT, TCP_SOCKET_UNIT)

QueenState = Literal["absent", "off", "asleep", "waking", "awake", "stopping", "failed"]
"""'absent' is one that is not installed on this machine."""


@dataclass(frozen=True, slots=True)
class Overview:
    """What `rbeectl status` shows; `hives` is None where the queen is not awake to tell, or refused.

    `lone` is for a machine that has no queen.
    """

    queen_state: QueenState
    queen: UnitState
    hive: UnitState
    hives: tuple[HiveView, ...] | None
    refused: NotPermitted | None = None
    tcp: ClosedTcp | None = None
    lone: LoneHive | None = None

    @property
    def is_up(self) -> bool:
        return self.lone.is_connected if self.lone is not None else self.queen_state == "awake"


@dataclass(frozen=True, slots=True)
class Versions:
    """What queen and hives say they are; `queen` is None where she is not awake to tell.

    `lone` is for a machine that has no queen.
    """

    queen_state: QueenState
    queen: str | None
    hives: tuple[HiveView, ...]
    lone: LoneHive | None = None


class Deadline:
    """What the person allows a verb to take in all, in seconds; None is any time."""

    def __init__(self, seconds: float | None) -> None:
        self._seconds = seconds
        self._ends = None if seconds is None else time.monotonic() + seconds

    def left(self, most: float) -> float:
        """As many seconds as a wait may take, `most` at the most; TimedOut where none are left."""
        if self._ends is None:
            return most
        left = self._ends - time.monotonic()
        if left <= 0:
            raise TimedOut(f"it was not done within the {self._seconds:g} s of --timeout")
        return min(most, left)


class Keeper:
    """The keeper at work: with a bus to systemd, a client to the queen and somebody who listens."""

    def __init__(
        self, bus: Bus, queen: QueenClient, teller: Teller, deadline: Deadline | None = None
    ) -> None:
        self._bus = bus
        self._queen = queen
        self._teller = teller
        self._left = (deadline or Deadline(None)).left
        self._is_told_awake = False

    # Verbs that wake

    def bring_host(
        self,
        host: str,
        *,
        user: str | None,
        queen: str | None,
        package: str | None,
        port: int | None,
        is_refused: bool = False,
    ) -> bool:
        """Where a host is another machine, see to it by ssh that its hive has joined and runs.

        `is_refused` says that the queen does not take its credential. False where ssh was not needed.
        """
        if is_same_name(LOCALHOST, host):
            return False
        from rbee.keeper.fleet import is_this_machine
        from rbee.keeper.remote.here import is_here

        if is_here(host):
            raise is_this_machine(host, port)
        checked(Name, "HOST", host)
        self._wake()
        there = _named(host, self._hives())
        is_up = there is not None and there.last_beat_ms is not None
        is_up = is_up and there is not None and there.state not in ("offline", "unknown")
        from pathlib import Path

        from rbee.keeper.remote.bring import Request, bring, not_installed_again

        if is_up and queen is None:  # it beats: whatever is wrong with it, ssh is no help
            if package is not None:
                self._teller.narrate(LOOKING_AT_HOST, not_installed_again(host))
            return False

        path = Path(package) if package else None
        request = Request(host, user, queen, path, there is not None, is_up, is_refused, port)
        bring(self._ask_awake, self._teller, self._left, request)
        return True

    def bring_and_add(
        self, host: str, port: int | None, *, user: str | None, queen: str | None, package: str | None
    ) -> HiveView:
        """As bring_host() and add_hive(); a hive whose credential the queen refuses joins her anew."""
        is_brought = self.bring_host(host, user=user, queen=queen, package=package, port=port)
        try:
            return self.add_hive(host, port)
        except UnknownHive:
            if not is_brought:
                raise
        self.bring_host(host, user=user, queen=queen, package=package, port=port, is_refused=True)
        return self.add_hive(host, port)

    def add_hive(self, host: str, port: int | None) -> HiveView:
        """Add a hive and see it online."""
        hive = self._ask(QueenRoutes.ADD_HIVE, self._about_to_add(host, port)).hive
        if hive is None or hive.state != "online":
            raise UnitFailed(f"the queen ended the story, and {host} is not online", hint="rbeectl status")
        return hive

    def begin_add_hive(self, host: str, port: int | None) -> JobStarted:
        """As add_hive(), but return when the queen has taken the job."""
        return self._begin(QueenRoutes.ADD_HIVE, self._about_to_add(host, port))

    def remove_hive(self, hive_id: str, *, is_forced: bool) -> bool:
        """Stop a hive and forget it; False where it was not in the catalog."""
        self._about_to_remove(hive_id)
        force = str(int(is_forced))
        return self._ask(QueenRoutes.REMOVE_HIVE, hive_id=hive_id, force=force).was_there

    def begin_remove_hive(self, hive_id: str, *, is_forced: bool) -> JobStarted:
        """As remove_hive(), but return when the queen has taken the job."""
        self._about_to_remove(hive_id)
        return self._begin(QueenRoutes.REMOVE_HIVE, hive_id=hive_id, force=str(int(is_forced)))

    # The fleet

    def set_tcp(self, *, is_open: bool, listen: str | None = None) -> Tcp:
        """Open the queen to other machines, or close her."""
        from rbee.keeper import fleet

        address = None if listen is None else fleet.check_listen(listen)
        self._wake()
        with _explained():
            return fleet.set_tcp(
                self._bus, self._ask_awake, self._teller, self._left, is_open=is_open, address=address
            )

    def ask_woken(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """What the queen answers, who is woken for it; that is no story."""
        self._have_awake()
        return self._ask_awake(route, body, **values)

    def ask_if_awake(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """What the queen answers; NotRunning where she is not awake."""
        self._check_awake()
        return self._ask_awake(route, body, **values)

    def join(self, address: str, *, token: str | None, name: str | None) -> dict[str, Any]:
        """Have this machine's hive join a queen on another."""
        from rbee.keeper import fleet

        queen = fleet.check_join(address, token)
        with _explained():
            return fleet.join(self._bus, self._teller, self._left, queen, token=token, name=name)

    def _about_to_add(self, host: str, port: int | None) -> AddHive:
        request = decode(AddHive, {"host": host, "port": port})
        self._wake()
        self._teller.narrate(REQUESTING, f"Requesting queen to add {host} to hive catalog")
        return request

    def _about_to_remove(self, hive_id: str) -> None:
        # What no hive can have for a name is not worth waking the queen for.
        checked(Name, "HIVE", hive_id)
        self._wake()
        self._teller.narrate(REQUESTING, f"Requesting queen to remove {hive_id} from hive catalog")

    def wake(self, *, waits: bool = True) -> None:
        """Have the queen awake; returns when she serves, if it `waits`."""
        if waits:
            self._wake()
        elif self._can_be_woken():
            self._teller.narrate(QUEEN_ASLEEP, "queen is asleep, waking queen.")
            with _explained():
                self._reset_failed()
                self._bus.ask_start(QUEEN_UNIT)

    # Verbs that never do

    def list_hives(self) -> tuple[HiveView, ...]:
        """All hives; NotRunning where the queen is not awake to tell."""
        self._check_awake()
        return self._hives()

    def hive(self, hive_id: str) -> HiveView:
        checked(Name, "HIVE", hive_id)
        hives = self.list_hives()
        if found := _named(hive_id, hives):
            return found
        raise UnknownHive(
            f"hive '{hive_id}' is not in the hive catalog{did_you_mean(hive_id, (one.id for one in hives))}",
            hint="rbeectl list-hives",
            field="HIVE",
        )

    def near(self, hive_id: str) -> str:
        """As did_you_mean(), among the hives of an awake queen."""
        return did_you_mean(hive_id, (hive.id for hive in self._hives()))

    def samples(self, hives: Sequence[HiveView]) -> dict[str, Sample]:
        """What the machines of those that are online do right now, asked at once.

        Who has not told within SAMPLE_WAIT seconds is left out.
        """
        awake = [hive.id for hive in hives if hive.state == "online"]
        if len(awake) < 2:
            found = [self._sample(hive_id) for hive_id in awake]
        else:
            from concurrent.futures import ThreadPoolExecutor  # a fleet only

            with ThreadPoolExecutor(min(len(awake), SAMPLES_AT_ONCE), "sample") as threads:
                found = list(threads.map(self._sample, awake))
        return {sample.hive_id: sample for sample in found if sample is not None}

    def _sample(self, hive_id: str) -> Sample | None:
        try:
            sample = self._queen.within(SAMPLE_WAIT).ask(QueenRoutes.SAMPLE, hive_id=hive_id)
        except RbeeError:
            return None  # it went meanwhile, is of an older version, or hangs: its figures are not known
        return sample

    def metrics(self, *, accept: str | None = None) -> Iterator[bytes]:
        """What Prometheus would scrape, in parts; NotRunning where the queen is not awake to tell."""
        self._check_awake()
        with _explained():
            yield from self._queen.fetch(QueenRoutes.METRICS, accept=accept)

    def versions(self) -> Versions:
        """What runs here, as far as somebody is awake to tell."""
        state = self.queen_state()
        if state != "awake":
            return Versions(state, None, (), self._lone(state))
        return Versions(state, self._ask_awake(QueenRoutes.HEALTH).version, self._hives())

    def last_events(self, hive: str, count: int) -> tuple[FeedEvent, ...]:
        """What an awake queen narrated last of a hive, oldest first; an older one has kept nothing."""
        try:
            last = self._ask_awake(QueenRoutes.LAST_EVENTS, hive=hive, limit=str(min(count, EVENTS_MAX)))
        except NoSuchRoute:
            return ()
        return last.events

    def monitor(self, hive: str | None, *, lines: int, since_ms: int | None) -> Iterator[Told]:
        """What happens, for ever; see rbee.keeper.monitor.Monitor."""
        from rbee.keeper.monitor import Monitor  # which nobody else needs

        if self.queen_state() == "absent":
            raise no_queen(self._bus)
        with _explained():
            yield from Monitor(
                self._bus,
                self._queen,
                left=self._left,
                hive=hive,
                lines=lines,
                since_ms=since_ms,
                output=sys.stdout.fileno(),
            ).events()

    def backup_catalog(self, file: str, *, is_forced: bool) -> CatalogReport | None:
        """Copy the awake queen's catalog to a file; NotRunning where she is not awake."""
        from rbee.keeper.catalog import backup  # with sqlite3, which only this needs

        return backup(self._queen, self._settled_state(), file, is_forced=is_forced)

    def check_catalog(self) -> CatalogReport:
        """Is the queen's catalog sound?"""
        from rbee.keeper.catalog import check

        if self.queen_state() == "absent":
            raise no_queen(self._bus)
        return check(self._queen, self.queen_state(), None)

    def status(self) -> Overview:
        """The queen, the local hive's unit, and all hives if she is awake."""
        state = self.queen_state()
        hives, refused = None, None
        if state == "awake":
            try:
                hives = self._hives()
            except NotPermitted as error:
                refused = error  # the units are anybody's to see, the hives are not
        queen, hive = self._bus.state(QUEEN_UNIT), self._bus.state(HIVE_UNIT)
        tcp = self.closed_tcp() if state == "awake" else None
        return Overview(state, queen, hive, hives, refused, tcp, self._lone(state))

    def closed_tcp(self) -> ClosedTcp | None:
        """Why no hive on another machine can reach an awake queen who is open to them; None if one can."""
        return closed_tcp(self._bus)

    def _lone(self, state: QueenState) -> LoneHive | None:
        return LoneHive.find(self._bus) if state == "absent" else None

    def sleep(self, *, waits: bool = True) -> None:
        """Stop the queen, and the local hive with her, and leave their sockets listening."""
        state = self.queen_state()
        if state == "absent":
            raise no_queen(self._bus)
        with _explained():
            if state not in ("asleep", "off"):
                self._teller.narrate(SENDING_TO_SLEEP, "Sending queen to sleep")
                if not waits:
                    self._bus.ask_stop(QUEEN_UNIT)
                    return
                self._stop_queen()
            for unit in (QUEEN_SOCKET_UNIT, HIVE_SOCKET_UNIT):
                # After a shutdown, or a burst of deaths, nobody listens for who would wake her.
                unit_state = self._bus.state(unit)
                if unit_state.load == "loaded" and not unit_state.is_active:
                    self._reset_failed()
                    self._bus.start(unit, timeout=self._left(STOP_TIMEOUT))

    def _stop_queen(self) -> None:
        """Stop her, again if somebody woke her meanwhile."""
        for _ in range(STOP_TRIES):
            self._bus.stop(QUEEN_UNIT, timeout=self._left(STOP_TIMEOUT))
            if self.queen_state() in ("asleep", "off", "failed"):
                return
        raise UnitFailed(
            f"somebody wakes the queen again and again: {QUEEN_UNIT} is {self.queen_state()}",
            hint="sudo rbeectl logs -n 20",
        )

    def shutdown(self, *, waits: bool = True) -> None:
        """Stop everything, hives first; returns when units and sockets are stopped, if it `waits`."""
        if not waits:
            if self.queen_state() == "awake":
                with suppress(RbeeError):  # systemd stops her all the same
                    self._queen.within(SHUTDOWN_ANSWER).ask(QueenRoutes.SHUTDOWN)
            with _explained():
                self._bus.ask_stop(TARGET)
            return
        telling: threading.Thread | None = None
        if self.queen_state() == "awake":
            self._teller.narrate(SHUTTING_DOWN_QUEEN, "Shutting down queen")
            telling = self._tell_shutdown()
        with _explained():
            up = self._stop_everything()
        if telling is not None:
            telling.join(self._left(SHUTDOWN_ANSWER))
        for unit, state in up.items():
            raise UnitFailed(f"{unit} is still {state}", hint=f"systemctl status {unit}")
        if self._bus.state(FORGET_UNIT).load == "loaded":
            # A queen who crashed before left word that she is to be woken at the next boot.
            self._bus.start(FORGET_UNIT, timeout=self._left(STOP_TIMEOUT))

    def _stop_everything(self) -> dict[str, str]:
        """Stop the target, again if somebody woke a unit meanwhile; what still runs, with its state."""
        up: dict[str, str] = {}
        for _ in range(STOP_TRIES):
            self._bus.stop(TARGET, timeout=self._left(STOP_TIMEOUT))
            states = {unit: self._bus.active_state(unit) for unit in UNITS}
            up = {unit: state for unit, state in states.items() if state not in ("inactive", "failed")}
            if not up:
                break
        return up

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
        taken.wait(self._left(SHUTDOWN_ANSWER))
        return telling

    # The steps

    def _wake(self) -> None:
        if self._can_be_woken():
            self._teller.narrate(QUEEN_ASLEEP, "queen is asleep, waking queen.")
            self._have_awake()
        if not self._is_told_awake:
            self._is_told_awake = True
            self._teller.narrate(QUEEN_AWAKE, "queen is awake and healthy.")

    def _can_be_woken(self) -> bool:
        """False for a queen who is awake; NotRunning where none is installed."""
        state = self.queen_state()
        if state == "absent":
            raise no_queen(self._bus)
        return state != "awake"

    def _have_awake(self) -> None:
        if self._can_be_woken():
            try:
                self._start_queen(timeout=START_TIMEOUT)
            except UnitFailed as error:
                self._wake_again(error)

    def _start_queen(self, *, timeout: float, undo_stop: bool = True) -> None:
        with _explained():
            self._reset_failed()
            self._bus.start(QUEEN_UNIT, timeout=self._left(timeout), undo_stop=undo_stop)

    def _reset_failed(self) -> None:
        """A burst of deaths ends in start-limit-hit, for the service and for who listens for it."""
        for unit in UNITS:
            if self._bus.active_state(unit) == "failed":
                self._bus.reset_failed(unit)

    def _wake_again(self, failed: UnitFailed) -> None:
        """One who died on the way is started anew by systemd; raises `failed` if that did not help either.

        So is one who cannot run at all, by whoever waits at her sockets: she says why at each end.
        """
        if failed.exit_status != BadConfig.exit_code and self.queen_state() == "waking":
            ended = self._bus.await_state(QUEEN_UNIT, _has_ended, timeout=self._left(RETURN_TIMEOUT))
            if ended.exit_status == BadConfig.exit_code:
                message, hint = _why_failed(ended)
                raise BadConfig(message, hint=hint) from failed
            self._teller.narrate(QUEEN_LOST, "the queen died, waiting for systemd to bring her back.")
            try:
                return self._start_queen(timeout=RETURN_TIMEOUT, undo_stop=False)
            except (UnitFailed, TimedOut):
                pass  # what she died of at first says more
        failure = unusable(failed)
        for line in journal_tail("--unit", QUEEN_UNIT):
            failure.add_note(line)
        raise failure from failed

    def queen_state(self) -> QueenState:
        """How she is, as systemd says it; nobody is woken to tell."""
        return queen_state(self._bus)

    def _check_awake(self) -> None:
        state = self._settled_state()
        if state != "awake":
            raise NotRunning(f"the queen is {state}; looking does not wake her", hint=_HINTS[state])

    def _settled_state(self) -> QueenState:
        """As queen_state(), but why there is no queen, or why she cannot run, is raised.

        One who cannot run may be started again and again by whoever waits at her sockets: she says why at
        each end.
        """
        state = self.queen_state()
        if state == "absent":
            raise no_queen(self._bus)
        if state not in ("failed", "waking"):
            return state
        ended = self._bus.await_state(QUEEN_UNIT, _has_ended, timeout=self._left(RETURN_TIMEOUT))
        message, hint = _why_failed(ended)
        if ended.exit_status == BadConfig.exit_code:
            raise BadConfig(message, hint=hint)
        if state == "failed":
            raise NotRunning(f"{message}; looking does not wake her", hint=_HINTS["failed"])
        return self.queen_state()

    def _hives(self) -> tuple[HiveView, ...]:
        return self._ask_awake(QueenRoutes.HIVES).hives

    def _ask_awake(self, route: Route[Answer], body: Any = None, **values: str) -> Answer:
        """What a queen answers whom systemd says to be awake."""
        with _explained():
            return self._queen.ask(route, body, **values)

    def _ask(self, route: Route[JobStarted], body: Any = None, **values: str) -> Done:
        """Have the queen do a job, and relay its story; once more if she dies in the middle of it.

        All that is asked so may be asked twice: it goes on from wherever it is.
        """
        try:
            return self._follow(self._queen.tell_story(route, body, **values))
        except Disconnected as error:
            self._await_return(error)
            return self._follow(self._queen.tell_story(route, body, **values))

    def _begin(self, route: Route[JobStarted], body: Any = None, **values: str) -> JobStarted:
        """Have the queen begin a job, and return at once."""
        return self._ask_awake(route, body, **values)

    def _await_return(self, lost: Disconnected) -> None:
        """Wait until systemd has brought a queen back who died; raises `lost` if she was told to go."""
        if self.queen_state() in ("asleep", "off"):
            raise lost
        self._teller.narrate(QUEEN_LOST, "the queen died, waiting for systemd to bring her back.")
        try:
            self._start_queen(timeout=RETURN_TIMEOUT, undo_stop=False)
        except RbeeError as error:
            raise Unreachable(
                f"the queen died, and was not back within {RETURN_TIMEOUT:g} s: {error.message}",
                hint=f"systemctl status {QUEEN_UNIT}",
            ) from error
        self._teller.narrate(QUEEN_RETURNED, "the queen is back, asking her again.")

    def _follow(self, story: Iterator[StoryEvent]) -> Done:
        """Relay a story to its explicit end; its error becomes ours."""
        job_id = None
        end: RbeeError | None = None
        try:
            with _explained():
                for event in story:
                    if event.kind == "job":
                        job = _agreed(JobStarted, event.data)
                        job_id = job.job_id
                        self._teller.begin(job)
                    elif event.kind == "done":
                        return _agreed(Done, event.data)
                    elif event.kind == "error":
                        end = from_problem(event.data)
                        break
                    else:
                        self._relay(event)
        except KeyboardInterrupt as error:
            if job_id is None:
                raise Interrupted("interrupted before the queen answered", hint="rbeectl status") from error
            raise Interrupted(
                f"interrupted; job {job_id} goes on", hint=f"sudo rbeectl logs -f --job {job_id}"
            ) from error
        except TimedOut as error:
            if job_id is not None:
                raise TimedOut(
                    f"{error.message}; job {job_id} goes on", hint=f"sudo rbeectl logs -f --job {job_id}"
                ) from error
            raise
        if end is not None:
            raise end  # the queen's own, not this user's
        raise AssertionError("tell_story() ends with 'done', 'error' or an error of its own")

    def _relay(self, event: StoryEvent) -> None:
        if event.kind == "line":
            self._teller.relay(_agreed(Line, event.data))


_HINTS: dict[QueenState, str] = {
    "absent": with_packages("rbee"),
    "off": "rbeectl wake",
    "asleep": "rbeectl wake",
    "waking": "Ask again in a moment.",
    "stopping": "rbeectl wake, once she has stopped",
    "failed": SYSTEM.doctor,
}


def queen_state(bus: Bus) -> QueenState:
    """What the queen is, as systemd says."""
    active = bus.active_state(QUEEN_UNIT)
    if active == "inactive":
        if bus.active_state(QUEEN_SOCKET_UNIT) == "active":
            return "asleep"
        return "absent" if bus.state(QUEEN_UNIT).load == "not-found" else "off"
    names: dict[str, QueenState] = {
        "activating": "waking",
        "deactivating": "stopping",
        "failed": "failed",
    }
    return names.get(active, "awake")


def _has_ended(state: UnitState) -> bool:
    """Is she up, or is known how she ended? Of one who starts anew it is not, until she has ended again."""
    return state.is_active or state.exit_status != 0 or state.is_stopped


def _why_failed(state: UnitState) -> tuple[str, str]:
    """What a queen said of her end, and what helps."""
    said, *cures = said_by(state)
    return f"the queen has failed: {said or state.result}", "\n".join(cures) or _HINTS["failed"]


@contextmanager
def _explained() -> Iterator[None]:
    """What systemd or the socket refuses, with the cure that fits this user and this machine."""
    try:
        yield
    except NotPermitted as error:
        raise explain(error) from error
    except NotRunning as error:
        raise _without_socket(error) from error


def _named(name: str, hives: Sequence[HiveView]) -> HiveView | None:
    id_ = spelled(name, (hive.id for hive in hives))
    return next((hive for hive in hives if hive.id == id_), None)


def did_you_mean(typed: str, names: Iterable[str]) -> str:
    """A sentence's end with the names that are near to what was typed; '' where none is.

    Those that begin with it, or have it as one of their words, are meant before those that look like it.
    """
    known = list(names)
    near = [name for name in known if typed and (name.startswith(typed) or typed in name.split("-"))]
    if not near:
        import difflib  # only for who mistyped

        near = difflib.get_close_matches(typed, known, n=3)
    return f"; did you mean {' or '.join(near[:NEAR_MAX])}?" if near else ""


def _without_socket(error: NotRunning) -> Unreachable:
    return Unreachable(
        f"the queen is awake, and {error.message}",
        # Her socket was taken away; systemd makes it again, folder and all, when it next starts it.
        hint=f"rbeectl shutdown; rbeectl add-hive localhost\n{SYSTEM.doctor}",
    )


def _agreed(kind: type[Shape], data: Any) -> Shape:
    """The data of an event; what is not as agreed is the queen's fault, not the user's."""
    try:
        return decode(kind, data)
    except BadInput as error:
        raise Unreachable(f"an event of the story is not as agreed: {error.message}") from error


def checked(kind: Any, field: str, text: str) -> str:
    """The text that was typed for `field`; BadInput, which does not repeat it, where it is no such thing."""
    try:
        found: str = decode(kind, text)
    except BadInput as error:
        raise BadInput(f"{field} {error.message.removeprefix('the body ')}", field=field) from error
    return found
