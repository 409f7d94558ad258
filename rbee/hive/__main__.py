"""rbee-hive: builds every object, serves and beats until systemd says stop."""

from __future__ import annotations

import asyncio
import sys
from pathlib import Path

from rbee import __version__, config
from rbee.client.link import HeartbeatClient, Link
from rbee.hive import app
from rbee.hive.devices import Detector, Sampler
from rbee.hive.heartbeat import Heart
from rbee.narration import CONFIG_WARNING, GOODBYE, HIVE_FAILED, HIVE_STARTED, Journal
from rbee.server import run_daemon, serve, stop_signal
from rbee.server.peer import uid_of
from rbee.systemd import HIVE_UNIT, Bus, Notifier, take_sockets

BEAT_TIMEOUT = 5.0
"""Seconds that a beat may take, its answer included."""


async def run(notifier: Notifier, journal: Journal) -> None:
    told_to_stop = stop_signal()
    settings = config.load()
    for warning in settings.warnings:
        journal.narrate(CONFIG_WARNING, warning, speaker="bee hive")
    sockets = [listener for named in take_sockets().values() for listener in named]
    hive = settings.hive
    link = Link(hive.queen, timeout=BEAT_TIMEOUT)
    detector = Detector(Path("/"), nvml_timeout=hive.nvml_timeout)
    sampler = Sampler(hive.id, detector)
    heart = Heart(
        hive.id,
        HeartbeatClient(link),
        journal,
        status=notifier.status,
        queen_name=str(hive.queen),
        fingerprint=sampler.fingerprint,
    )
    beating: list[asyncio.Task[None]] = []
    queen_uid = uid_of("queen-rbee")

    def started() -> None:
        journal.narrate(HIVE_STARTED, f"rbee-hive {__version__} is awake", hive=hive.id)
        beating.append(asyncio.get_running_loop().create_task(heart.run()))
        # A hive whose heart has stopped is none: systemd starts another.
        beating[0].add_done_callback(lambda _: told_to_stop.set())

    async def stopping() -> None:
        # A beat in flight may wait on a socket that systemd holds back while it stops us.
        for task in beating:
            task.cancel()
        await asyncio.gather(*beating, return_exceptions=True)
        detector.close()
        await sampler.close()
        heart.narrate(GOODBYE, "Received shutdown signal, goodbye")
        await heart.goodbye()

    try:
        await serve(
            app.build(heart, detector.detect, _stop, look=sampler.look),
            sockets,
            notifier,
            told_to_stop,
            status=lambda: f"queen at {hive.queen}, no beat yet",
            started=started,
            stopping=stopping,
            daemons=() if queen_uid is None else (queen_uid,),
        )
    finally:
        await link.close()
    for task in beating:
        if not task.cancelled() and (failure := task.exception()) is not None:
            raise failure


def _stop() -> None:
    with Bus() as bus:
        bus.ask_stop(HIVE_UNIT)


def main() -> int:
    return run_daemon("rbee-hive", HIVE_FAILED, run)


if __name__ == "__main__":
    sys.exit(main())
