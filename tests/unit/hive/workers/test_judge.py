"""What a unit's state means for its worker, and how each end is explained."""

from __future__ import annotations

import re

import pytest

from rbee.hive.workers.judge import Verdict, judge
from rbee.scope import SYSTEM
from rbee.systemd.unit import UnitState
from rbee.wire.workers import StartWorker

START = StartWorker("bee-1", "bee", "test", "/srv/bee.gguf", "gguf", 4096, "ram", 2**30)
LOADING = UnitState("loaded", "activating", "start", result="success", status_text="loading 62 %", main_pid=7)
FAILED = UnitState("loaded", "failed", "failed", result="exit-code", exit_status=1)


def of(state: UnitState, last_end: str = "") -> Verdict | None:
    return judge(state, START, last_end, SYSTEM)


@pytest.mark.parametrize(
    ("state", "verdict"),
    [
        (LOADING, Verdict("loading", percent=62, pid=7)),
        (LOADING._replace(status_text="loading"), Verdict("loading", pid=7)),
        (LOADING._replace(status_text="loading 999 %"), Verdict("loading", percent=100, pid=7)),
        (LOADING._replace(active="active", sub="running"), Verdict("ready", pid=7)),
        (LOADING._replace(active="deactivating", sub="stop-sigterm"), Verdict("stopping", pid=7)),
        (LOADING._replace(active="deactivating", sub="stop-sigterm", result="signal"), None),
        (LOADING._replace(active="inactive", sub="dead", main_pid=0), Verdict("stopped")),
        (
            FAILED._replace(active="activating", sub="auto-restart", restarts=1),
            Verdict("loading", "the engine test ended with exit status 1; it is started again in 4 s"),
        ),
        (
            FAILED._replace(active="activating", sub="auto-restart", restarts=3),
            Verdict(
                "loading",
                "the engine test ended with exit status 1; it is started again in 16 s, "
                "unless it was started 4 times in the last half hour",
            ),
        ),
        (
            FAILED._replace(active="activating", sub="auto-restart", result="success", exit_status=0),
            Verdict("loading", "the engine test ended with exit status 0; it is started again in 2 s"),
        ),
        (
            FAILED._replace(active="activating", sub="auto-restart", result="success", exit_status=15),
            Verdict("loading", "the engine test ended by SIGTERM; it is started again in 2 s"),
        ),
    ],
)
def test_a_unit_s_state_is_the_worker_s(state: UnitState, verdict: Verdict | None) -> None:
    assert of(state) == verdict


def test_a_start_after_an_end_says_which_and_why() -> None:
    verdict = of(LOADING._replace(restarts=2), "the engine test ended by SIGKILL")

    assert verdict is not None
    assert verdict.reason == "start 3: the engine test ended by SIGKILL"


@pytest.mark.parametrize(
    ("state", "reason"),
    [
        (FAILED, "the engine test ended with exit status 1"),
        (
            FAILED._replace(restarts=3),
            "given up after several starts: the engine test ended with exit status 1",
        ),
        (FAILED._replace(result="start-limit-hit", restarts=3), "given up after several starts: it ended"),
        (FAILED._replace(result="signal", exit_status=11), "the engine test ended by SIGSEGV"),
        (FAILED._replace(result="core-dump", exit_status=99), "the engine test ended by signal 99"),
        (
            FAILED._replace(result="oom-kill", exit_status=9),
            "out of memory: the kernel killed it; see rbeectl place bee --dry-run",
        ),
        (
            FAILED._replace(result="timeout", exit_status=15),
            "it did not become ready in time: it neither read nor computed",
        ),
        (
            FAILED._replace(result="resources", exit_status=0),
            "systemd could not start it; see on its hive's machine: "
            "sudo journalctl -u rbee-worker@bee-1.service -e",
        ),
        (
            FAILED._replace(exit_status=226),
            "the model's file /srv/bee.gguf is gone, or on a disk that is not mounted; "
            "see rbeectl model show bee",
        ),
        (
            FAILED._replace(exit_status=203),
            "the program rbee-worker is missing; run on its hive's machine: sudo rbeectl doctor",
        ),
        (
            FAILED._replace(exit_status=243),
            "systemd could not set up its credentials; run on its hive's machine: sudo rbeectl doctor",
        ),
        (
            FAILED._replace(exit_status=78, status_text="the file may not be read; try: sudo chmod o+r x"),
            "the file may not be read; try: sudo chmod o+r x",
        ),
        (FAILED._replace(exit_status=78), "the engine test ended with exit status 78"),
        (FAILED._replace(exit_status=0), "the engine test ended with exit status 0"),
    ],
)
def test_each_end_is_explained_with_its_cure(state: UnitState, reason: str) -> None:
    before_exec = re.search("is gone|systemd could not|rbee-worker is missing", reason)
    verdict = Verdict(
        "failed", reason,
        is_file_missing="file /srv/bee.gguf is gone" in reason, is_file_found=before_exec is None,
    )  # fmt: skip
    assert of(state, "it ended") == verdict
