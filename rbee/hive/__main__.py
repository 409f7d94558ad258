"""rbee-hive: builds every object, serves and beats until systemd says stop."""

from __future__ import annotations

import asyncio
import logging
import sys
from collections.abc import Callable, Coroutine
from functools import partial
from pathlib import Path
from typing import Any

from rbee import __version__, config, hivestatus
from rbee.client.link import Afar, HeartbeatClient, Link
from rbee.errors import BadConfig, RbeeError
from rbee.files import explained
from rbee.hive import app
from rbee.hive.devices import Detector, Sampler
from rbee.hive.heartbeat import Beats, Heart
from rbee.hive.membership import Membership, Memberships
from rbee.hive.threads import DaemonicExecutor
from rbee.narration import CONFIG_WARNING, GOODBYE, HIVE_FAILED, HIVE_STARTED, MEMBERSHIP_RESTORED, Journal
from rbee.scope import HIVE_PROGRAM, Scope, scope_of, uid_of
from rbee.server.daemon import run_daemon, stop_signal
from rbee.server.uvicorn import serve
from rbee.systemd.bus import Bus
from rbee.systemd.daemon import Notifier, invocation_id, state_directory, take_sockets
from rbee.wire.hives import MachineEnd

log = logging.getLogger("rbee")

BEAT_TIMEOUT = 5.0
"""Seconds that a beat may take, its answer included."""

SHUT_DOWN_BY_QUEEN = 75
"""The exit status upon which rbee-hive.service starts rbee-hive-redial.service, to wait for the queen.

Not StartUnit, for which the hive's user would need leave: and that is leave to start it in any mode.
"""


async def run(notifier: Notifier, journal: Journal, scope: Scope) -> int:
    told_to_stop = stop_signal()
    exit_status = 0
    asyncio.get_running_loop().set_default_executor(DaemonicExecutor())
    settings = config.load(scope=scope)
    for warning in settings.warnings:
        journal.narrate(CONFIG_WARNING, warning, speaker="bee hive")
    sockets = [listener for named in take_sockets().values() for listener in named]
    hive = settings.hive
    state = state_directory(scope.hive_state)
    memberships = Memberships(state, scope)
    membership = _membership(memberships, state, journal)
    hive_id = hive.id if membership is None else membership.hive_id
    afar = None if membership is None else membership.queen()
    queen = afar or hive.queen
    detector = Detector(Path("/"), nvml_timeout=hive.nvml_timeout)
    sampler = Sampler(hive_id, detector)
    offer, link = None, None
    if afar is None:
        link = Link(hive.queen, timeout=BEAT_TIMEOUT, scope=scope)
        beats: Beats = HeartbeatClient(link)
    else:
        from rbee.uplink.offer import Offer  # which the local hive does not need

        beats = offer = Offer(afar)
    heart = Heart(
        hive_id,
        beats,
        journal,
        status=notifier.status,
        queen_name=str(queen),
        fingerprint=sampler.fingerprint,
        # Which rbee-hive-join knows, too, and shows to be of the same machine.
        instance=invocation_id(),
    )
    if membership is None or afar is None or offer is None:
        served = app.build(heart, detector.detect, told_to_stop.set, look=sampler.look, scope=scope)
        works: list[Callable[[], Coroutine[Any, Any, None]]] = [heart.run]
    else:
        from rbee.hive.dial import Dialler  # which the local hive does not need

        loop = asyncio.get_running_loop()

        def leave() -> None:
            memberships.forget()
            loop.call_soon_threadsafe(told_to_stop.set)

        def stop_until_queen() -> None:
            nonlocal exit_status
            exit_status = SHUT_DOWN_BY_QUEEN
            told_to_stop.set()

        served = app.build(
            heart, detector.detect, stop_until_queen, look=sampler.look, leave=leave, scope=scope
        )
        dialler = Dialler(
            heart, served, afar, membership.queen_to_strangers, offer, is_succeeded=memberships.has_new
        )
        works = [dialler.run, _Certificate(memberships, membership, afar).run]
    working: list[asyncio.Task[None]] = []
    ended_early: list[asyncio.Task[None]] = []
    queen_uid = uid_of(scope.queen_user)

    def work_ended(task: asyncio.Task[None]) -> None:
        if not told_to_stop.is_set():
            ended_early.append(task)
        told_to_stop.set()

    def started() -> None:
        journal.narrate(HIVE_STARTED, f"{HIVE_PROGRAM} {__version__} is awake", hive=hive_id)
        try:
            memberships.confirm()
        except OSError as error:
            log.error("the membership of before could not be removed, and may come back: %s", error)
        for work in works:
            working.append(asyncio.get_running_loop().create_task(work()))
            # A hive whose heart has stopped is none: systemd starts another.
            working[-1].add_done_callback(work_ended)

    async def stopping() -> None:
        # A beat in flight may wait on a socket that systemd holds back while it stops us.
        heart.narrate(GOODBYE, "Received shutdown signal, goodbye")
        if offer is not None:
            await offer.settle()
        if membership is not None and membership.path.exists():  # or its queen has removed it
            await heart.goodbye(lambda: _machine_end(scope))  # while the dialler holds its connection
        for task in working:
            task.cancel()
        await asyncio.gather(*working, return_exceptions=True)
        detector.close()
        await sampler.close()
        if membership is None:
            await heart.goodbye(lambda: _machine_end(scope))

    try:
        await serve(
            served,
            sockets,
            notifier,
            told_to_stop,
            status=lambda: hivestatus.no_beat_yet(queen),
            started=started,
            stopping=stopping,
            daemons=() if queen_uid is None else (queen_uid,),
        )
    finally:
        if link is not None:
            await link.close()
    for task in working:
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure
    if ended_early:
        raise RuntimeError("what the hive has to do for ever has ended")
    return exit_status


def _membership(memberships: Memberships, state: Path, journal: Journal) -> Membership | None:
    """Whose hive this is, if its queen is on another machine: of one that was joined meanwhile, or before."""
    with explained(state / "membership", "written", BadConfig):
        is_back = memberships.adopt()
    membership = memberships.load()
    if is_back and membership is not None:
        told = (
            f"the hive did not become ready with what it had joined; it is again the hive "
            f"{membership.hive_id} of the queen at {membership.queen()}"
        )
        journal.narrate(MEMBERSHIP_RESTORED, told, hive=membership.hive_id)
    return membership


class _Certificate:
    """The hive's own, renewed early. The connections that there are stay; the next takes the new one."""

    LOOK = 3600.0
    """Seconds between two looks at whether it is time, and between tries."""

    def __init__(self, memberships: Memberships, membership: Membership, queen: Afar) -> None:
        self._memberships = memberships
        self._membership = membership
        self._queen = queen

    async def run(self) -> None:
        while True:
            try:
                if self._membership.is_to_be_renewed():
                    await self._memberships.renew(self._membership)
                    self._membership.show(self._queen)
            except (RbeeError, OSError) as error:
                log.warning("the certificate could not be renewed, and that is tried on: %s", error)
            await asyncio.sleep(self.LOOK)


def _machine_end(scope: Scope) -> MachineEnd | None:
    """What the machine does; None for one that runs on, and where systemd does not say so."""
    try:
        with Bus(scope) as bus:
            return bus.machine_end()
    except RbeeError:
        return None


def main() -> int:
    return run_daemon(HIVE_PROGRAM, HIVE_FAILED, partial(run, scope=scope_of(sys.argv[1:])))


if __name__ == "__main__":
    sys.exit(main())
