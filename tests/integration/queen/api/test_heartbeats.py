"""The quick answer to a heartbeat that changes nothing, and which heartbeats do not get it."""

from __future__ import annotations

import json

from rbee.queen.api.admission import Admission
from rbee.queen.api.heartbeats import quick
from rbee.server.peer import Peer
from rbee.wire.codec import encode
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from rbee.wire.routes import QueenRoutes
from tests.integration.house import House, until

HIVE_UID = 4711


async def test_only_a_beat_of_the_hive_itself_that_changes_nothing_is_answered_quickly(house: House) -> None:
    queen = await house.added(heartbeat_interval=0.1)
    hive = queen.hives.hive("localhost")
    taken: list[Heartbeat] = []
    real = hive.take_plain

    def take_plain(beat: Heartbeat) -> HeartbeatAck | None:
        taken.append(beat)
        return real(beat)

    hive.take_plain = take_plain
    await until(lambda: len(taken) > 0)
    await house.hive.kill()
    await house.is_in("offline")
    standing = hive.standing
    standing.set("online", "")
    answer = quick(queen.hives, queen.fleet, Admission(HIVE_UID))[QueenRoutes.HEARTBEAT]

    def sent(beat: Heartbeat, uid: int) -> bool:
        taken.clear()
        is_answered = answer(Peer(1, uid, 0), json.dumps(encode(beat)).encode()) is not None
        assert is_answered or uid == HIVE_UID or not taken
        return is_answered

    beat = taken[0]._replace(lines=())
    standing.life.instance = beat.instance
    assert sent(beat, HIVE_UID)
    assert not sent(beat, HIVE_UID + 1)
    assert not sent(beat._replace(instance="9" * 32), HIVE_UID)
    assert not sent(beat._replace(hive_id="gpu1"), HIVE_UID)
    assert not sent(beat._replace(state="stopping"), HIVE_UID)
    assert not sent(beat._replace(fingerprint="other"), HIVE_UID)
    standing.set("suspect", "late")
    assert not sent(beat, HIVE_UID)
