"""Who changed the catalog."""

from __future__ import annotations

import pytest

from rbee.errors import NotPermitted
from rbee.scope import HIVE_UNIT
from tests.integration.queen.hives.local_hive import (
    ACTOR,
    HERSELF,
    HIVE,
    LOCALHOST,
    MakeQueen,
    error_of,
    told,
)

pytestmark = pytest.mark.deadline(10)


WANTED = "hive localhost (host localhost, port 8600) should be online"
ONLINE = "hive localhost is online in the hive catalog, with its devices"


async def test_what_somebody_asked_for_is_told_with_who_and_which_job(queen: MakeQueen) -> None:
    async with queen() as q:
        adding = q.work.add(LOCALHOST, ACTOR)
        await told(adding)
        await told(q.work.add(LOCALHOST, ACTOR))  # changes nothing
        removing = q.work.remove("localhost", ACTOR)
        await told(removing)
        await told(q.work.remove("localhost", ACTOR))

        about = {"hive": "localhost", **ACTOR}
        assert q.audit.told == [
            ("catalog-changed", WANTED, {**about, "job_id": adding.id}),
            ("catalog-changed", ONLINE, {**about, "job_id": adding.id}),
            (
                "catalog-changed",
                "hive localhost is removed from the hive catalog",
                {**about, "job_id": removing.id},
            ),
        ]
        assert "catalog-changed" not in q.tape.names(), "the story is told without it"


async def test_a_hive_that_could_not_be_woken_is_offline_in_the_name_of_who_asked(queen: MakeQueen) -> None:
    async with queen() as q:
        q.systemd.refusal = NotPermitted("systemd refused to start rbee-hive.service")
        job = q.work.add(LOCALHOST, ACTOR)
        error_of(await told(job))

        assert [text for _, text, _ in q.audit.told] == [
            WANTED,
            "hive localhost is offline in the hive catalog",
        ]
        assert {frozenset(fields.items()) for _, _, fields in q.audit.told} == {
            frozenset({"hive": "localhost", "job_id": job.id, **ACTOR}.items())
        }


async def test_what_systemd_tells_is_the_queen_s_own_and_a_new_process_the_hive_s(queen: MakeQueen) -> None:
    async with queen() as q:
        await q.add()
        q.audit.told.clear()
        await q.systemd.stop_by_hand(HIVE_UNIT)
        await q.audit.until("catalog-changed", "is offline")
        await q.systemd.start_by_hand(HIVE_UNIT)
        await q.audit.until("catalog-changed", "is online")

        assert q.audit.told == [
            (
                "catalog-changed",
                "hive localhost is offline, and should stay offline",
                {"hive": "localhost", **HERSELF},
            ),
            ("catalog-changed", ONLINE, {"hive": "localhost", **HIVE}),
        ]


async def test_silence_is_the_queen_s_own_verdict_and_the_beat_after_it_the_hive_s(queen: MakeQueen) -> None:
    async with queen(interval=0.1, grace=0.05) as q:
        await q.add()
        q.audit.told.clear()
        q.hive.wire.is_cut = True
        await q.audit.until("catalog-changed", "is offline")
        q.hive.wire.is_cut = False
        await q.audit.until("catalog-changed", "is online")

        assert [(text, fields["actor_pid"]) for _, text, fields in q.audit.told] == [
            ("hive localhost is offline in the hive catalog", HERSELF["actor_pid"]),
            ("hive localhost is online in the hive catalog", HIVE["actor_pid"]),
        ]
