"""Any of our programs may die at any time: no worker is lost, and the next request works."""

from __future__ import annotations

import pytest
from testbed.machine import Machine
from testbed.tiny_model import says

from tests.system.commands import (
    HIVE,
    QUEEN,
    active,
    add_hive,
    await_stopped,
    main_pid,
    override,
    rbeectl,
    unit,
)
from tests.system.serve.served import (
    assert_nothing_is_left,
    await_worker,
    chat,
    post,
    question,
    serve_model,
    serve_rude,
    succeed,
    worker_processes,
    worker_units,
    workers,
)

DAEMONS = ("queen-rbee.service", "rbee-hive.service", "rbee-gateway.service")

ORPHANS = "rbee-orphans.timer"

STEPS = (
    "request-held", "worker-placed", "worker-loading", "engine-starting", "worker-ready", "worker-awake",
    "request-woke",
)  # fmt: skip
"""The lines of a cold start, by gateway, queen, hive and launcher, in their order."""


def assert_the_book_has_all(machine: Machine) -> None:
    """Each unit of a worker is in the list, and each worker that runs has its unit."""
    listed = {f"rbee-worker@{one['id']}.service" for one in workers(machine) if one["id"] is not None}
    assert set(worker_units(machine)) <= listed
    if not worker_units(machine):
        assert worker_processes(machine) == []


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
    stream = serving.popen(
        "curl", "--silent", "--no-buffer", "--unix-socket", "/run/rbee/openai.sock", "--data-binary",
        question("rude", stream=True), "http://rbee/v1/chat/completions", user="ada",
    )  # fmt: skip
    assert stream.stdout is not None
    while "word3 " not in stream.stdout.readline():
        pass
    serving.run("systemctl", "restart", daemon)
    rest = stream.communicate(timeout=30)[0]
    assert ("[DONE]" in rest) == (daemon != "rbee-gateway.service"), rest[-500:]
    assert unit(serving, unit_name)["MainPID"] == before
    assert chat(serving, "rude").status == 200
    assert_the_book_has_all(serving)


def kill_in_a_cold_start(machine: Machine, step: str, victim: str) -> None:
    """Ask a sleeping model, and kill the main process of a unit as soon as this line is in the journal."""
    since = machine.run("date", "+@%s.%6N").stdout.strip()
    first = machine.popen(
        "curl", "--silent", "--unix-socket", "/run/rbee/openai.sock", "--max-time", "60", "--data-binary",
        question("rude"), "http://rbee/v1/chat/completions", user="ada",
    )  # fmt: skip
    told = f"journalctl --quiet --output=cat --since={since} RBEE_EVENT={step} | grep -q ."
    pid = f"pid=$(systemctl show -P MainPID '{victim}' | grep -vx 0)"
    machine.run("sh", "-c", f"until {told}; do sleep 0.02; done; until {pid}; do :; done; kill -KILL $pid")
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
