"""Engines that misbehave: what a client gets, what is reported, and that nothing is left."""

from __future__ import annotations

import json
import re
from itertools import pairwise
from typing import Any

import pytest
from testbed.machine import Machine
from testbed.tiny_model import says

from rbee.narration import ENGINE_STARTING
from tests.system.commands import GATEWAY, HIVE, QUEEN, add_hive, main_pid, override, put, rbeectl, unit
from tests.system.serve.served import (
    assert_nothing_is_left,
    await_worker,
    begin_chat,
    chat,
    serve_model,
    serve_rude,
    succeed,
    told,
    worker,
    worker_processes,
    worker_units,
)

ON_TCP = """
[Engine]
Socket=tcp
Exec=/usr/local/bin/rude-engine -m %m --host 127.0.0.1 --port %p --alias %a
"""


@pytest.fixture
def machine(serving: Machine) -> Machine:
    add_hive(serving)
    return serving


def view(machine: Machine, name: str) -> Any:
    """The model as `rbeectl model show` has it."""
    return succeed(machine, "model", "show", name, "--json").json


def starts(machine: Machine) -> list[float]:
    """The seconds at which the launcher has executed an engine."""
    command = ("journalctl", "--output=json", f"MESSAGE_ID={ENGINE_STARTING.message_id}")
    lines = machine.run(*command).stdout.splitlines()
    return [int(json.loads(line)["__REALTIME_TIMESTAMP"]) / 1e6 for line in lines]


def status(machine: Machine) -> str:
    return rbeectl(machine, "status", "rude").out


def test_a_slow_load_says_how_far_it_is_and_is_waited_for(machine: Machine) -> None:
    serve_rude(machine, "rude", {"load_s": 4})
    loading = "until rbeectl status rude | grep -o 'loading [0-9]*%'; do sleep 0.1; done"
    with machine.popen("sh", "-c", loading, user="ada") as looking:
        answer = chat(machine, "rude", stream=True)
        assert re.fullmatch(r"loading \d+%", looking.communicate(timeout=20)[0].strip())
    assert answer.text == "word0 word1 word2 "
    assert ": " in answer.body.partition("data:")[0], "comments keep a stream alive"
    assert "rude is awake: rude-1 on localhost ram, after 4" in told(machine, "rude")


@pytest.mark.parametrize(
    ("behaviour", "why", "starts_most"),
    [
        ({"exits": 3}, "status 3", 4),
        ({"aborts": True}, "ABRT", 2),
        ({"exits": 0, "garbage": True}, "exit status 0", 2),
    ],
)
def test_an_engine_that_dies_while_it_loads(
    machine: Machine, behaviour: dict[str, Any], why: str, starts_most: int
) -> None:
    if starts_most != 4:  # as the unit has it: that takes 14 s
        override(machine, "rbee-worker@.service", f"[Unit]\nStartLimitBurst={starts_most}\n")
    serve_rude(machine, "rude", behaviour)
    answer = chat(machine, "rude", seconds=90)
    assert answer.status == 502, answer
    assert why in answer.json["error"]["message"], answer.json
    failed = await_worker(machine, "rude", "failed", seconds=60)
    assert why in failed["reason"]
    assert why in status(machine)
    why_not = f"waking rude failed: rude could not be started on localhost ram: {failed['reason']}"
    assert why_not in told(machine, "rude")
    assert_nothing_is_left(machine)
    times = starts(machine)
    waits = [after - before for before, after in pairwise(times)]
    assert len(times) == starts_most
    assert all(wait >= least for wait, least in zip(waits, (2, 4, 8), strict=False)), times


def test_a_file_that_is_gone_is_missing_until_it_is_back(machine: Machine) -> None:
    serve_model(machine, "bee", says("I am bee one."))
    path = view(machine, "bee")["path"]
    machine.run("mv", path, f"{path}.away")

    assert "is gone" in chat(machine, "bee").json["error"]["message"]
    assert view(machine, "bee")["state"] == "missing"
    assert re.search(r"(?m)^bee\s.*missing", succeed(machine, "model", "list").out)
    doctor = rbeectl(machine, "doctor", user=None)
    assert f"the file of model bee is gone: {path} on localhost" in doctor.out
    assert worker_processes(machine) == []

    machine.run("mv", f"{path}.away", path)
    assert chat(machine, "bee").text == "I am bee one."
    assert view(machine, "bee")["state"] == "ready"


def test_an_engine_that_hangs_while_it_loads_is_ended(machine: Machine) -> None:
    override(machine, "rbee-worker@.service", "[Unit]\nStartLimitBurst=1\n[Service]\nTimeoutStartSec=2s\n")
    serve_rude(machine, "rude", {"hangs": True})
    answer = chat(machine, "rude", seconds=90)
    assert answer.status == 502, answer
    assert "it did not become ready in time" in answer.json["error"]["message"]
    failed = await_worker(machine, "rude", "failed", seconds=60)
    assert "it did not become ready in time" in failed["reason"]
    assert failed["reason"] in status(machine)
    assert failed["reason"] in told(machine, "rude")
    assert_nothing_is_left(machine)


def test_an_engine_that_dies_with_a_stream_open(machine: Machine) -> None:
    serve_rude(machine, "rude", {"deltas": 5, "dies_after": 2, "pause_s": 0.1})
    answer = chat(machine, "rude", stream=True)
    assert answer.status == 200
    assert answer.text == "word0 word1 "
    assert "error" in answer.events[-1], answer.body
    assert "[DONE]" not in answer.body
    assert "the answer of worker rude-1 is incomplete" in told(machine, "rude")
    assert re.search("ended by SIGKILL; it is started again in 2 s|ready", status(machine))
    assert chat(machine, "rude", stream=True, seconds=60).text == "word0 word1 ", "it is started again"
    assert "rude has ended: the engine rude ended by SIGKILL; it is started" in told(machine, "rude")
    succeed(machine, "unserve", "rude")
    assert_nothing_is_left(machine)


def test_an_engine_that_ignores_sigterm_and_leaves_children(machine: Machine) -> None:
    serve_rude(machine, "rude", {"stubborn": True, "children": 3})
    assert chat(machine, "rude").status == 200
    assert len(worker_processes(machine)) >= 4
    assert "ready" in status(machine)
    succeed(machine, "unserve", "rude")
    assert "rude is not served any more; 1 worker has ended" in told(machine, "rude")
    assert_nothing_is_left(machine)
    assert machine.run("systemctl", "--failed", "--no-legend").stdout == ""


def test_a_stream_is_cut_before_its_engine_which_ignores_sigterm_is_killed(machine: Machine) -> None:
    override(machine, "rbee-worker@.service", "[Service]\nTimeoutStopSec=2s\n")
    serve_rude(machine, "rude", {"stubborn": True, "deltas": 1000, "pause_s": 0.1})
    stream = begin_chat(machine, "rude", stream=True)
    assert stream.stdout is not None
    while "word3 " not in stream.stdout.readline():
        pass
    [unit_name] = worker_units(machine)
    with machine.popen("rbeectl", "unserve", "rude", user="ada") as unserving:
        rest = stream.communicate(timeout=10)[0]
        assert worker_units(machine) == [unit_name]
        unserving.communicate(timeout=20)
    assert unserving.returncode == 0
    assert "the model rude is not served any more" in rest
    assert "[DONE]" not in rest
    assert_nothing_is_left(machine)


def test_an_engine_that_prints_no_text_while_it_answers(machine: Machine) -> None:
    serve_rude(machine, "rude", {"garbage": True})
    assert chat(machine, "rude").text == "word0 word1 word2"
    assert chat(machine, "rude", stream=True).text == "word0 word1 word2 "
    # As journalctl shows such a line, and in full where it is asked to.
    shown = succeed(machine, "logs", "rude", user=None).out
    assert shown.count("[15B blob data]") == 2, shown
    assert succeed(machine, "logs", "rude", "--", "--all", user=None).out.count(" answering ") == 2
    assert "the engine" not in told(machine, "rude")
    assert worker(machine, "rude")["state"] == "ready"
    for daemon in (QUEEN, HIVE, GATEWAY):
        assert unit(machine, daemon, "NRestarts")["NRestarts"] == "0"


def test_an_engine_that_answers_500_passes_it_on(machine: Machine) -> None:
    serve_rude(machine, "rude", {"status": 500})
    answer = chat(machine, "rude")
    assert (answer.status, answer.json["error"]["message"]) == (500, "the engine is rude")
    assert worker(machine, "rude")["state"] == "ready"
    assert "ready" in status(machine)
    assert "the engine is rude" not in told(machine, "rude"), "an engine's own answer is no fault of rbee's"
    succeed(machine, "unserve", "rude")
    assert_nothing_is_left(machine)


def test_an_engine_on_a_port_is_reached_by_its_hive_and_by_nobody_else(machine: Machine) -> None:
    put(machine, "/etc/rbee/engines.d/rude.conf.d/tcp.conf", ON_TCP)
    serve_rude(machine, "rude", {"deltas": 3, "load_s": 1})
    assert chat(machine, "rude", stream=True).text == "word0 word1 word2 "
    assert chat(machine, "rude").text == "word0 word1 word2"
    [unit_name] = worker_units(machine)
    running = machine.run("systemctl", "status", "--no-pager", unit_name).stdout
    assert "systemd-socket-proxyd" in running
    assert "rude-engine" in machine.run("ps", "-o", "args=", "-p", str(main_pid(machine, unit_name))).stdout
    refused = machine.run("curl", "--silent", "http://127.0.0.1:8080/health", check=False)
    assert refused.returncode == 7, "a worker has a loopback of its own"
    logged = machine.run("journalctl", "--quiet", "--output=cat", f"--unit={unit_name}").stdout
    assert "Failed to connect" not in logged, logged
    succeed(machine, "unserve", "rude")
    assert_nothing_is_left(machine)
    assert "socket-proxyd" not in machine.run("ps", "-eo", "args=").stdout
