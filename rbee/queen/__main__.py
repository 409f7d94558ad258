"""queen-rbee: builds every object, serves until systemd says stop."""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import socket
import sys
from pathlib import Path

from rbee import __version__, config
from rbee.client.link import HiveClient, Link
from rbee.errors import BadConfig, RbeeError, Unreachable
from rbee.narration import (
    CONFIG_WARNING,
    QUEEN_FAILED,
    QUEEN_STARTED,
    QUEEN_STOPPING,
    TCP_CLOSED,
    Chorus,
    Event,
    Journal,
    Narrator,
)
from rbee.queen import app
from rbee.queen import remote as remote_app
from rbee.queen.feed import WATCHERS, Feed, FeedFile
from rbee.queen.fleet import Fleet
from rbee.queen.hives import TELL_TIMEOUT, Hives
from rbee.queen.jobs import STREAMS, Jobs, Stories
from rbee.queen.looks import SAMPLE_TIMEOUT
from rbee.queen.mark import Mark
from rbee.queen.metrics import Metrics
from rbee.queen.registry import Registry
from rbee.queen.store.store import Store
from rbee.queen.units import AsyncBus
from rbee.server import Remote, run_daemon, serve, stop_signal
from rbee.server.peer import uid_of
from rbee.server.places import Places
from rbee.systemd import TCP_SOCKET_UNIT, Bus, Notifier, take_sockets

TCP_SOCKETS = "queen-tcp"
"""FileDescriptorName= of queen-rbee-tcp.socket."""


class StatusLine(Narrator):
    """The line in `systemctl status queen-rbee`: who is alive, and what goes on right now."""

    def __init__(self, notifier: Notifier, registry: Registry, jobs: Jobs) -> None:
        self._notifier = notifier
        self._registry = registry
        self._jobs = jobs
        self.trouble = ""
        """What keeps hives from reaching the queen at all; '' if nothing does."""

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        is_going_on = any(job.state == "running" for job in self._jobs.all())
        self._notifier.status(f"{self.counts()}; {text}" if is_going_on else self.counts())

    def update(self) -> None:
        self._notifier.status(self.counts())

    def counts(self) -> str:
        counts = self._registry.counts()
        told = [f"{counts[state]} {state}" for state in ("online", "suspect", "offline")]
        told += [f"{counts[state]} {state}" for state in ("pending", "unknown") if counts[state]]
        return f"hives: {', '.join(told)}" + (f"; {self.trouble}" if self.trouble else "")


async def run(notifier: Notifier, journal: Journal) -> None:
    told_to_stop = stop_signal()
    settings = config.load()
    hive_uid = uid_of("rbee-hive")
    daemons = () if hive_uid is None else (hive_uid,)
    watchers = Places("streams of events are being read", WATCHERS, daemons)
    feed = Feed(FeedFile(_feed_path()), journal, watchers)
    narrator: Narrator = Chorus(journal, feed)
    for warning in settings.warnings:
        narrator.narrate(CONFIG_WARNING, warning)
    sockets, remote_sockets = _sockets()
    queen = settings.queen
    state = _state_directory()
    metrics = Metrics()
    catalog = Store.open(
        queen.database or state / "catalog.db",
        narrator,
        wanted=Mark(state / "wanted").set,
        metrics=metrics,
        find_daemons=lambda: {os.geteuid(), uid_of("rbee-hive") or os.geteuid()},
    )
    registry = Registry(interval=queen.heartbeat_interval, grace=queen.heartbeat_grace)
    jobs = Jobs(queen.jobs_max, Places("stories are being read", STREAMS, daemons), metrics)
    status = StatusLine(notifier, registry, jobs)
    failures: list[RbeeError] = []

    def bus_is_lost(error: RbeeError) -> None:
        # A queen that hears nothing of her hive is none: systemd starts another, with a new bus.
        failures.append(Unreachable(f"the system bus is gone: {error.message}", hint="systemctl status dbus"))
        told_to_stop.set()

    async with contextlib.AsyncExitStack() as at_the_end:
        at_the_end.push_async_callback(feed.end)
        at_the_end.callback(catalog.close)
        units = AsyncBus(at_the_end.enter_context(Bus()), lost=bus_is_lost)
        link = Link(config.HIVE_SOCKET, timeout=queen.detect_timeout)
        at_the_end.push_async_callback(link.close)
        looks = Link(config.HIVE_SOCKET, timeout=SAMPLE_TIMEOUT)
        at_the_end.push_async_callback(looks.close)
        hives = Hives(
            queen,
            catalog,
            registry,
            jobs,
            units,
            HiveClient(link, looks=looks),
            Chorus(narrator, Stories(jobs), status),
            changed=status.update,
            passed_on=feed.relay,
            metrics=metrics,
        )
        fleet = Fleet(state, remote_sockets, catalog, hives, narrator)
        await hives.load()
        await fleet.load()
        if fleet.is_shut_out:
            status.trouble = f"{TCP_SOCKET_UNIT} is closed"
        remote = None
        keeping_keys: list[asyncio.Task[None]] = []
        if remote_sockets:
            remote = Remote(remote_app.build(fleet, hives), remote_sockets, await fleet.context())
        units.attach()
        at_the_end.callback(units.detach)

        def started() -> None:
            narrator.narrate(QUEEN_STARTED, f"queen-rbee {__version__} is awake")
            if fleet.is_shut_out:
                told = f"no hive on another machine can reach the queen: {TCP_SOCKET_UNIT} is closed"
                narrator.narrate(TCP_CLOSED, f"{told}; it is tried again until its port is free")
            hives.begin()
            if remote is not None:
                keeping_keys.append(asyncio.get_running_loop().create_task(fleet.keep_keys()))
            # What lives now lives for good; without it a collection with many connections stalls the loop.
            gc.freeze()

        async def stopping() -> None:
            narrator.narrate(QUEEN_STOPPING, "queen-rbee is going to sleep")
            for task in keeping_keys:
                task.cancel()
            if hives.is_telling:
                # systemd counts TimeoutStopSec= from the stop, and hives elsewhere are told first.
                notifier.extend(TELL_TIMEOUT + 1)
            await hives.end()
            jobs.close()
            feed.close()

        await serve(
            app.build(
                hives, jobs, feed, app.Admission(hive_uid, lambda: uid_of("rbee-hive")), fleet, metrics
            ),
            sockets,
            notifier,
            told_to_stop,
            status=status.counts,
            started=started,
            stopping=stopping,
            daemons=daemons,
            remote=remote,
        )
    if failures:
        raise failures[0]


def _sockets() -> tuple[list[socket.socket], list[socket.socket]]:
    """Her Unix sockets, and those of queen-rbee-tcp.socket, by the names that systemd hands over.

    Not by their order, which differs from start to start where two units feed one service.
    """
    handed_over = take_sockets()
    remote = handed_over.pop(TCP_SOCKETS, [])
    local = [listener for named in handed_over.values() for listener in named]
    if any(listener.family != socket.AF_UNIX for listener in local):
        raise BadConfig(
            "TCP needs TLS and a credential, and queen-rbee.socket knows neither",
            hint="Take every ListenStream= but /run/rbee/queen.sock out of queen-rbee.socket, "
            "then: rbeectl tcp enable",
        )
    if any(listener.family == socket.AF_UNIX for listener in remote):
        raise BadConfig(
            "queen-rbee-tcp.socket has a Unix socket",
            hint="Take every ListenStream= that is a path out of queen-rbee-tcp.socket.",
        )
    return local, remote


def _feed_path() -> Path | None:
    """Not under systemd there is no place for it, and it is kept in RAM."""
    runtime = os.environ.get("RUNTIME_DIRECTORY")
    return Path(runtime) / "events" if runtime else None


def _state_directory() -> Path:
    # Several StateDirectory= would be separated by colons; the unit has one.
    return Path(os.environ.get("STATE_DIRECTORY", "/var/lib/queen-rbee"))


def main() -> int:
    return run_daemon("queen-rbee", QUEEN_FAILED, run)


if __name__ == "__main__":
    sys.exit(main())
