"""Any of our programs may die at any time: no worker is lost, and the next request works."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
from testbed.machine import Machine
from testbed.tiny_model import says

from tests.system.commands import (
    HIVE,
    QUEEN,
    active,
    add_hive,
    await_state,
    await_stopped,
    main_pid,
    override,
    rbeectl,
    unit,
)
from tests.system.serve.served import (
    assert_nothing_is_left,
    await_worker,
    begin_chat,
    chat,
    memory_book,
    post,
    question,
    serve_model,
    serve_rude,
    succeed,
    worker_processes,
    worker_units,
    workers,
)
from tests.system.serve.workers import processes

DAEMONS = ("queen-rbee.service", "rbee-hive.service", "rbee-gateway.service")

ORPHANS = "rbee-orphans.timer"

STEPS = (
    "request-held", "worker-placed", "worker-loading", "engine-starting", "worker-ready", "worker-awake",
    "request-woke",
)  # fmt: skip
"""The lines of a cold start, by gateway, queen, hive and launcher, in their order."""


IN_A_STOP = ("rbee-gateway.service", HIVE, "rbee-worker@*", QUEEN)
"""What may die while an engine is being stopped. For 5 s a queen who has just begun stops no other one."""

ENGINE = "/usr/local/bin/rude-engine"

LAUNCHER = "/usr/lib/python3/dist-packages/rbee/worker/__pycache__/__main__.*.pyc"
"""A part of the launcher that nobody else opens."""

HOLD = """
import fcntl, glob, os, signal, sys
[path] = glob.glob(sys.argv[1])
file = os.open(path, os.O_RDONLY)
signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGIO])
fcntl.fcntl(file, fcntl.F_SETLEASE, fcntl.F_WRLCK)
print("held", flush=True)
signal.sigwait([signal.SIGIO])
print("opened", flush=True)
sys.stdin.read()
"""


def assert_the_book_has_all(machine: Machine) -> None:
    """Each unit of a worker is in the list, each worker that runs has its unit, and no other has memory."""
    listed = [one for one in workers(machine) if one["id"] is not None]
    assert set(worker_units(machine)) <= {f"rbee-worker@{one['id']}.service" for one in listed}
    if not worker_units(machine):
        assert worker_processes(machine) == []
    for pool in memory_book(machine):
        there = [one for one in listed if one["pool"] == pool["id"] and one["state"] != "failed"]
        assert {one["name"] for one in pool["holders"] if one["kind"] == "worker"} <= {
            one["id"] for one in there
        }
        claims = sum(max(0, one["claim_bytes"] - (one["used_bytes"] or 0)) for one in there)
        assert pool["claimed_bytes"] == claims, (pool, there)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_that_is_killed_costs_no_worker(serving: Machine, daemon: str) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").status == 200
    [unit_name] = worker_units(serving)
    before = unit(serving, unit_name)["MainPID"]
    serving.run("kill", "-KILL", str(main_pid(serving, daemon)))
    assert chat(serving, "bee").text == "I am bee one."
    assert unit(serving, unit_name)["MainPID"] == before
    assert_the_book_has_all(serving)


@pytest.mark.parametrize("daemon", DAEMONS)
def test_a_daemon_that_restarts_costs_no_worker_and_no_stream_but_its_own(
    serving: Machine, daemon: str
) -> None:
    add_hive(serving)
    serve_rude(serving, "rude", {"deltas": 40, "pause_s": 0.1})
    assert chat(serving, "rude", stream=True).status == 200
    [unit_name] = worker_units(serving)
    before = unit(serving, unit_name)["MainPID"]
    stream = begin_chat(serving, "rude", stream=True)
    assert stream.stdout is not None
    while "word3 " not in stream.stdout.readline():
        pass
    serving.run("systemctl", "restart", daemon)
    rest = stream.communicate(timeout=30)[0]
    assert ("[DONE]" in rest) == (daemon != "rbee-gateway.service"), rest[-500:]
    assert unit(serving, unit_name)["MainPID"] == before
    assert chat(serving, "rude").status == 200
    assert_the_book_has_all(serving)


def now(machine: Machine) -> str:
    """The time, as journalctl takes it."""
    return machine.run("date", "+@%s.%6N").stdout.strip()


def kill_at(machine: Machine, step: str, victim: str, since: str) -> None:
    """Kill the main process of a unit as soon as this line is in the journal."""
    told = f"journalctl --quiet --output=cat --since={since} RBEE_EVENT={step} | grep -q ."
    pid = f"pid=$(systemctl show -P MainPID '{victim}' | grep -vx 0)"
    machine.run("sh", "-c", f"until {told}; do sleep 0.02; done; until {pid}; do :; done; kill -KILL $pid")


def kill_in_a_cold_start(machine: Machine, step: str, victim: str) -> None:
    """Ask a sleeping model, and kill the main process of a unit at this line."""
    since = now(machine)
    first = begin_chat(machine, "rude")
    kill_at(machine, step, victim, since)
    first.communicate(timeout=70)


@pytest.mark.parametrize("victim", [*DAEMONS, "rbee-worker@*"])
def test_what_is_killed_at_any_step_of_a_cold_start(serving: Machine, victim: str) -> None:
    add_hive(serving)
    serve_rude(serving, "rude", {"load_s": 0.5})
    # A worker has a process from there on: the launcher, which becomes the engine.
    for step in STEPS if victim in DAEMONS else STEPS[STEPS.index("engine-starting") :]:
        post(serving, "/v1/chat/completions", question("nobody"))  # all are awake
        kill_in_a_cold_start(serving, step, victim)
        assert chat(serving, "rude", seconds=60).text == "word0 word1 word2", step
        assert len(worker_units(serving)) == 1, step
        assert_the_book_has_all(serving)
        succeed(serving, "unserve", "rude")
        assert_nothing_is_left(serving)
        succeed(serving, "serve", "rude")


@contextmanager
def held(machine: Machine, path: str) -> Iterator[Callable[[], None]]:
    """Whoever opens this file waits for the end of the context, see F_SETLEASE in fcntl(2).

    The value waits until somebody does.
    """
    with machine.popen("python3", "-c", HOLD, path, reads_input=True) as holder:
        assert holder.stdout is not None
        assert holder.stdin is not None
        assert holder.stdout.readline() == "held\n"

        def opened() -> None:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "opened\n"

        yield opened
        holder.stdin.close()


@pytest.mark.parametrize(
    ("path", "of_launcher"),
    [(LAUNCHER, True), (ENGINE, True), (ENGINE, False)],
    ids=["launcher-begins", "launcher-becomes-engine", "watcher"],
)
def test_a_launcher_or_a_watcher_that_is_killed_is_followed_by_another_start(
    serving: Machine, path: str, *, of_launcher: bool
) -> None:
    add_hive(serving)
    override(serving, "rbee-worker@.service", "[Service]\nRestartSec=500ms\nTimeoutStartSec=4s\n")
    serve_rude(serving, "rude", {"load_s": 0.5})
    with held(serving, path) as opened:
        first = begin_chat(serving, "rude")
        opened()
        [unit_name] = worker_units(serving)
        launcher = str(main_pid(serving, unit_name))
        assert "rbee-worker rude" in serving.run("ps", "-o", "args=", "-p", launcher).stdout
        [*watcher] = [pid for pid in processes(serving, unit_name) if pid != launcher]
        assert len(watcher) == (path == ENGINE)
        serving.run("kill", "-KILL", *([launcher] if of_launcher else watcher))
    assert "word0 word1 word2" in first.communicate(timeout=70)[0]
    assert processes(serving, unit_name) == [str(main_pid(serving, unit_name))]
    assert unit(serving, unit_name, "NRestarts")["NRestarts"] == "1"
    assert_the_book_has_all(serving)


@pytest.mark.parametrize(
    ("step", "victims"), [("worker-removed", IN_A_STOP), ("worker-stopped", (HIVE, QUEEN))]
)
def test_what_is_killed_at_any_step_of_a_stop(serving: Machine, step: str, victims: tuple[str, ...]) -> None:
    add_hive(serving)
    override(serving, "rbee-worker@.service", "[Service]\nTimeoutStopSec=500ms\n")
    serve_rude(serving, "rude", {"stubborn": True})
    for victim in victims:
        assert chat(serving, "rude", seconds=60).status == 200, victim
        [unit_name] = worker_units(serving)
        since = now(serving)
        with serving.popen("rbeectl", "unserve", "rude", user="ada") as stop:
            kill_at(serving, step, victim, since)
            stop.communicate(timeout=60)
        await_stopped(serving, unit_name)
        succeed(serving, "unserve", "rude")
        await_state(serving, "online")
        assert_nothing_is_left(serving)
        succeed(serving, "serve", "rude")
    assert chat(serving, "rude", seconds=60).status == 200
    assert_the_book_has_all(serving)


@pytest.mark.parametrize(
    ("step", "victims"), [("worker-gives-way", IN_A_STOP), ("worker-stopped", (HIVE, QUEEN))]
)
def test_what_is_killed_while_a_worker_gives_way(
    serving: Machine, step: str, victims: tuple[str, ...]
) -> None:
    add_hive(serving)
    override(serving, "rbee-worker@.service", "[Service]\nTimeoutStopSec=500ms\n")
    total = 1024 * int(serving.run("awk", "/MemTotal/ {print $2}", "/proc/meminfo").stdout)
    for name in ("one", "two"):
        serve_rude(serving, name, {"stubborn": True}, memory=str(total * 6 // 10))
    assert chat(serving, "one").status == 200
    for number, victim in enumerate(victims):
        next_one = ("two", "one")[number % 2]
        since = now(serving)
        first = begin_chat(serving, next_one)
        kill_at(serving, step, victim, since)
        first.communicate(timeout=70)
        assert chat(serving, next_one, seconds=60).status == 200, victim
        assert len(worker_units(serving)) == 1, victim
        assert_the_book_has_all(serving)


def test_an_engine_that_is_killed_is_started_again(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").status == 200
    [unit_name] = worker_units(serving)
    serving.run("systemctl", "kill", "--signal=KILL", unit_name)
    assert chat(serving, "bee", seconds=60).text == "I am bee one."
    assert_the_book_has_all(serving)


def test_workers_without_a_hive_are_ended(serving: Machine) -> None:
    add_hive(serving)
    override(serving, "rbee-orphans.timer", "[Timer]\nOnActiveSec=\nOnActiveSec=2s\nAccuracySec=100ms\n")
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").status == 200
    [unit_name] = worker_units(serving)
    succeed(serving, "sleep")
    await_stopped(serving, unit_name, seconds=20)
    assert worker_processes(serving) == []
    assert chat(serving, "bee").text == "I am bee one."
    await_worker(serving, "bee", "ready")


def test_a_hive_that_is_back_keeps_its_workers_however_it_was_started(serving: Machine) -> None:
    """The queen has it started in the job mode `fail`, a person and systemd's own restart in `replace`."""
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").status == 200
    [unit_name] = worker_units(serving)
    before = unit(serving, unit_name)["MainPID"]

    def wait_for_the_timer() -> None:
        awaited = f"until systemctl is-active --quiet {ORPHANS}; do sleep 0.02; done"
        serving.run("sh", "-c", awaited, timeout=10)

    for end in (
        ["systemctl", "kill", "--signal=KILL", QUEEN],
        ["rbeectl", "sleep"],
        ["systemctl", "stop", HIVE],
    ):
        serving.run(*end)
        wait_for_the_timer()
        succeed(serving, "add-hive", "localhost")
        assert active(serving, HIVE, ORPHANS, unit_name) == ["active", "inactive", "active"], end
    assert unit(serving, unit_name)["MainPID"] == before
    serving.run("systemctl", "stop", HIVE)
    wait_for_the_timer()
    serving.run("systemctl", "restart", "rbee.target")
    serving.run("systemctl", "stop", "rbee.target")
    assert active(serving, ORPHANS) == ["inactive"]


def test_the_doctor_mends_deleted_sockets_and_takes_no_worker_for_an_orphan(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").status == 200
    for name, cure in (("openai", "rbee-gateway.socket"), ("queen", "rbee.target")):
        serving.run("rm", f"/run/rbee/{name}.sock")
        found = rbeectl(serving, "doctor", user=None)
        assert (found.code, f"try: systemctl restart {cure}" in found.out + found.err) == (1, True), found
        mended = rbeectl(serving, "doctor", "--fix", user=None, timeout=120)
        assert (mended.code, "no hive claims it" in mended.out) == (0, False), mended
        assert chat(serving, "bee").text == "I am bee one."
