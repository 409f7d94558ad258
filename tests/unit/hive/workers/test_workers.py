"""All workers of a hive: what may be started, and what a new hive adopts."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.errors import (
    BadInput,
    EngineUnusable,
    NoMemory,
    NotPermitted,
    RbeeError,
    TooMany,
    UnknownEngine,
    UnknownWorker,
    WorkerExists,
    WorkerNotReady,
)
from rbee.scope import SYSTEM, user_scope
from rbee.wire.workers import StartWorker
from tests.unit.hive.workers.played import FAILED, JOB, LOADING, READY, START, UNIT, Hive, PlayedUnits
from tests.unit.wait import until

pytestmark = pytest.mark.deadline(10)


async def test_the_order_has_what_the_engine_needs(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        await hive.workers.start(START, JOB)

        text = (hive.folder / "bee-1/environment").read_text()
        assert (
            r'RBEE_ARGV="[\"/bin/engine\", \"/run/rbee-worker/bee-1/model\", '
            r'\"/run/rbee-worker/bee-1/engine.sock\", \"bee\", \"4096\"]"'
        ) in text.splitlines()
        assert f'RBEE_JOB_ID="{JOB}"' in text.splitlines()
        assert r'RBEE_ENVIRONMENT="{\"A\": \"bee\"}"' in text.splitlines()
        view = hive.workers.view(hive.workers.find("bee-1"))
        assert (view.used_bytes, view.peak_bytes, view.claim_bytes) == (1, 2, 2**30)


@pytest.mark.parametrize(
    ("change", "kind", "said"),
    [
        ({"engine": "none"}, UnknownEngine, "this hive has no engine none"),
        ({"engine": "bad"}, UnknownEngine, "this hive has no engine bad: .*bad.conf:1: it is before"),
        ({"format": "safetensors"}, UnknownEngine, "serves gguf, not safetensors"),
        ({"engine": "gone"}, EngineUnusable, "/bin/gone was not found"),
        ({"pool": "gpu7"}, BadInput, "no card gpu7"),
    ],
)
async def test_what_cannot_be_started_is_refused_and_leaves_nothing(
    tmp_path: Path, change: dict[str, str], kind: type[RbeeError], said: str
) -> None:
    async with Hive(tmp_path) as hive:
        engines = tmp_path / "etc/rbee/engines.d"
        (engines / "bad.conf").write_text("Exec=/bin/x\n")
        (engines / "gone.conf").write_text("[Engine]\nExec=/bin/gone\nFormats=gguf\n")
        with pytest.raises(kind, match=said):
            await hive.workers.start(START._replace(**change))  # type: ignore[arg-type]

        assert (hive.workers.all().workers, hive.book.claims, hive.units.asked) == ((), {}, [])
        assert not list(hive.folder.glob("*"))


async def test_without_memory_nothing_is_started(tmp_path: Path) -> None:
    async with Hive(tmp_path) as hive:
        hive.book.refusal = NoMemory("1.0 GiB is claimed, and 0.5 GiB free")
        with pytest.raises(NoMemory):
            await hive.workers.start(START)
        assert (hive.workers.all().workers, hive.units.asked) == ((), [])


async def test_an_id_is_that_of_one_worker(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with Hive(tmp_path) as hive:
        await hive.workers.start(START)
        with pytest.raises(WorkerExists, match="the worker bee-1 already exists and is loading"):
            await hive.workers.start(START)
        monkeypatch.setattr("rbee.hive.workers.workers.WORKERS_MAX", 1)
        with pytest.raises(TooMany, match="this hive has 1 workers"):
            await hive.workers.start(START._replace(id="bee-2"))
        with pytest.raises(UnknownWorker):
            hive.workers.find("bee-2")
        with pytest.raises(WorkerNotReady, match="the worker bee-1 is loading"):
            await hive.workers.connect("bee-1")


async def test_a_user_s_own_rbee_starts_none_and_says_whose_does(tmp_path: Path) -> None:
    async with Hive(tmp_path, scope=user_scope({"HOME": str(tmp_path)})) as hive:
        with pytest.raises(NotPermitted, match="a user's own rbee cannot start workers"):
            await hive.workers.start(START)
        await hive.workers.adopt()
        assert hive.workers.all().workers == ()


# Adoption


async def left(tmp_path: Path, *ids: str) -> list[StartWorker]:
    """What a hive has left that was killed."""
    starts = [START._replace(id=worker_id) for worker_id in ids]
    async with Hive(tmp_path) as hive:
        for start in starts:
            await hive.workers.start(start)
    return starts


async def test_a_new_hive_adopts_what_runs_and_forgets_what_has_ended(tmp_path: Path) -> None:
    await left(tmp_path, "bee-1", "bee-2", "bee-3", "bee-4")
    units = PlayedUnits(
        {
            UNIT: READY,
            UNIT.replace("1", "2"): LOADING,
            UNIT.replace("1", "3"): FAILED,
        }
    )
    async with Hive(tmp_path, units) as hive:
        await hive.workers.adopt()
        assert hive.workers.find("bee-1").state == "ready"
        assert hive.workers.find("bee-1").pid == 7
        await until(lambda: hive.workers.find("bee-3").state == "failed")
        with pytest.raises(UnknownWorker):
            hive.workers.find("bee-4")
        assert sorted(hive.book.claims) == ["bee-1", "bee-2"]
        assert hive.book.loads == {"bee-2"}
        assert (units.asked, hive.changes > 0) == ([], True)
        units.becomes(UNIT.replace("1", "2"), READY)
        await until(lambda: hive.workers.find("bee-2").state == "ready")
        assert sorted(path.name for path in hive.folder.iterdir()) == ["bee-1", "bee-2", "bee-3"]

    assert hive.tape.told[0] == (
        "worker-adopted",
        "bee runs as the worker bee-1, and is adopted",
        {"worker": "bee-1", "model": "bee"},
    )


async def test_an_engine_that_is_given_a_share_of_the_memory_is_reported_also_once_adopted(
    tmp_path: Path,
) -> None:
    share, units = START._replace(engine="share"), PlayedUnits({UNIT: READY})
    async with Hive(tmp_path, units) as hive:
        text = "[Engine]\nExec=/bin/engine %m --share %f\nFormats=gguf\n"
        (tmp_path / "etc/rbee/engines.d/share.conf").write_text(text)
        started = await hive.workers.start(share)
        assert hive.workers.view(started).fills_claim
        other = await hive.workers.start(START._replace(id="bee-2"))
        assert not hive.workers.view(other).fills_claim

    async with Hive(tmp_path, units) as hive:
        await hive.workers.adopt()
        assert hive.workers.view(hive.workers.find("bee-1")).fills_claim


async def test_a_worker_that_nobody_knows_is_stopped(tmp_path: Path) -> None:
    scope = SYSTEM._replace(runtime=tmp_path / "run/rbee")
    (scope.worker_runtime / "lost").mkdir(parents=True)
    async with Hive(tmp_path, scope=scope) as hive:
        await hive.workers.adopt()

    assert hive.units.asked == [("stop", "rbee-worker@lost.service")]


async def test_a_systemd_that_is_silent_costs_no_worker(tmp_path: Path) -> None:
    await left(tmp_path, "bee-1", "bee-2")
    units = PlayedUnits({UNIT: READY, UNIT.replace("1", "2"): READY}, silent=1)
    scope = SYSTEM._replace(runtime=tmp_path / "run/rbee")
    (scope.worker_runtime / "bee-1").mkdir(parents=True)
    async with Hive(tmp_path, units, scope) as hive:
        await hive.workers.adopt()
        assert [view.id for view in hive.workers.all().workers] == ["bee-1", "bee-2"]
        await until(lambda: hive.workers.find("bee-1").state == "ready")
        assert units.asked == []
