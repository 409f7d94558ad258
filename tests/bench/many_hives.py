"""Plays many hives with the product's own dialler: many_hives.py QUEEN TOKEN COUNT.

For fleet.py and remote.py. It prints a line of JSON for each word on stdin: for 'held' and 'again' the
seconds until every hive has had a heartbeat acknowledged, for 'beats' the number of heartbeats since then.
"""

from __future__ import annotations

import asyncio
import json
import resource
import secrets
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from rbee.client.link import QueenAddress
from rbee.hive import app, membership
from rbee.hive.devices import Detector
from rbee.hive.dial import Dialler
from rbee.hive.heartbeat import Heart
from rbee.hive.join import Guest
from rbee.narration import Narrator
from rbee.uplink.offer import Offer
from rbee.wire.heartbeats import HeartbeatAck

JOINING_AT_ONCE = 8


class Count:
    """The beats of all, and the hives that have beaten: a beat comes while its hive holds its stream."""

    def __init__(self, hives: int) -> None:
        self._hives = hives
        self._are_heard: set[int] = set()
        self.beats = 0
        self.all_held = asyncio.Event()

    def begin(self) -> None:
        self._are_heard.clear()
        self.all_held.clear()
        self.beats = 0

    def note(self, number: int) -> None:
        self.beats += 1
        self._are_heard.add(number)
        if len(self._are_heard) == self._hives:
            self.all_held.set()


class CountedOffer(Offer):
    def __init__(self, queen: QueenAddress, number: int, count: Count) -> None:
        super().__init__(queen)
        self._number = number
        self._count = count

    async def beat(self, *arguments: Any, **options: Any) -> HeartbeatAck:
        ack = await super().beat(*arguments, **options)
        self._count.note(self._number)
        return ack


async def become(folder: Path, queen: str, token: str, number: int) -> membership.Membership:
    home = folder / str(number)
    home.mkdir()
    (home / "machine-id").write_text(secrets.token_hex(16) + "\n")
    invitation = {"host": queen, "port": 8500, "name": f"hive{number}", "token": token}
    (home / "invitation").write_text(json.dumps(invitation))
    joined = await Guest(home, machine_id=home / "machine-id").take_up_invitation()
    assert joined is not None
    return joined


async def main(queen: str, token: str, count: int) -> None:
    resource.setrlimit(resource.RLIMIT_NOFILE, (16384, 16384))
    detector = Detector(Path("/"), nvml_timeout=1.0)
    devices, fingerprint = detector.detect(), detector.fingerprint()

    async def look() -> Any:
        raise RuntimeError("nobody looks")

    with tempfile.TemporaryDirectory() as folder:
        began = time.monotonic()
        gate = asyncio.Semaphore(JOINING_AT_ONCE)

        async def join(number: int) -> membership.Membership:
            async with gate:
                return await become(Path(folder), queen, token, number)

        members = await asyncio.gather(*(join(number) for number in range(count)))
        report(seconds=time.monotonic() - began)
        running = []
        counted = Count(count)
        began = time.monotonic()
        for number, member in enumerate(members):
            address = member.queen()
            offer = CountedOffer(address, number, counted)
            heart = Heart(
                member.hive_id,
                offer,
                Narrator(),
                status=lambda line: None,
                queen_name=queen,
                fingerprint=lambda: fingerprint,
            )
            served = app.build(heart, lambda: devices, lambda: None, look=look)
            dialler = Dialler(heart, served, address, member.queen_to_strangers, offer)
            running.append(asyncio.create_task(dialler.run()))
        lines = asyncio.StreamReader()
        await asyncio.get_running_loop().connect_read_pipe(
            lambda: asyncio.StreamReaderProtocol(lines), sys.stdin
        )
        while word := (await lines.readline()).decode().strip():
            if word == "beats":
                report(beats=counted.beats)
                continue
            if word == "again":
                began = time.monotonic()
                counted.begin()
            await counted.all_held.wait()
            counted.beats = 0
            report(seconds=time.monotonic() - began)


def report(**results: float) -> None:
    print(json.dumps(results), flush=True)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], sys.argv[2], int(sys.argv[3])))
