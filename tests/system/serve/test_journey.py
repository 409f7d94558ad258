"""A person's first model: add, serve, ask, look, and turn it all off."""

from __future__ import annotations

import concurrent.futures
import time
from datetime import UTC, datetime
from typing import Any

import pytest
from testbed.machine import Machine
from testbed.tiny_model import babbles, says

from rbee.text import printable
from tests.system.commands import active, add_hive, override, rbeectl, unit
from tests.system.serve.served import (
    OPENAI,
    assert_no_worker_runs,
    assert_nothing_is_left,
    await_worker,
    begin_chat,
    chat,
    post,
    question,
    serve_model,
    serve_rude,
    succeed,
    worker,
    worker_processes,
    worker_units,
    write_model,
)
from tests.system.serve.workers import hive

WOKEN = "ActiveEnterTimestampMonotonic"
ALL = ("queen-rbee.service", "rbee-hive.service", "rbee-gateway.service")


def test_a_person_types_three_commands_and_any_client_works(serving: Machine) -> None:
    """On a fresh machine, whose hive is in no catalog yet."""
    write_model(serving, "/home/ada/bee.gguf", says("I am bee one."))
    added = serving.run(
        "sh", "-c", "cd; rbeectl model add bee ./bee.gguf && rbeectl serve bee", user="ada", check=False
    )
    assert added.returncode == 0, added
    assert worker(serving, "bee")["state"] == "asleep"
    asked = succeed(serving, "ask", "bee", "who are you?")
    assert asked.out.strip() == "I am bee one."
    assert "bee is ready in" in asked.err, asked.err
    assert chat(serving, "bee").text == "I am bee one."
    assert chat(serving, "bee", stream=True).text == "I am bee one."
    assert await_worker(serving, "bee", "ready")["hive_id"] == "localhost"
    [unit_name] = worker_units(serving)
    assert unit(serving, unit_name)["ActiveState"] == "active"
    status = succeed(serving, "status", "bee").out
    assert "ready" in status
    assert "localhost" in status
    placed = succeed(serving, "place", "bee", "--dry-run").out
    assert "ram" in placed
    assert (
        "model catalog has 1 models and 1 workers available" in rbeectl(serving, "add-hive", "localhost").out
    )
    [listed] = succeed(serving, "list-hives", "--json").json["hives"]
    assert (listed["devices"]["model_catalog"], listed["devices"]["worker_catalog"]) == (["bee"], ["bee-1"])
    _, devices = hive(serving, "GET", "/v1/devices")
    assert (devices["model_catalog"], devices["worker_catalog"]) == (["bee"], ["bee-1"])
    succeed(serving, "unserve", "bee")
    assert_nothing_is_left(serving)
    succeed(serving, "model", "remove", "bee")
    assert succeed(serving, "model", "list", "--json").json["models"] == []
    write_model(serving, "/srv/two.gguf", says("I am bee two."))
    succeed(serving, "model", "add", "two", "file:///srv/two.gguf")
    serving.run("rm", "/srv/two.gguf")  # what is served is the copy
    succeed(serving, "serve", "two")
    assert succeed(serving, "ask", "two", "who are you?").out.strip() == "I am bee two."
    succeed(serving, "shutdown")
    assert active(serving, *ALL) == ["inactive"] * 3


def test_the_first_request_wakes_everything(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    succeed(serving, "sleep")
    serving.run("systemctl", "stop", "rbee-gateway.service")
    assert active(serving, *ALL) == ["inactive"] * 3
    answered = chat(serving, "bee")
    assert (answered.status, answered.text) == (200, "I am bee one.")
    assert active(serving, *ALL) == ["active"] * 3
    order = ("rbee-gateway.service", "queen-rbee.service", "rbee-hive.service", *worker_units(serving))
    since = [int(serving.run("systemctl", "show", "-P", WOKEN, name).stdout) for name in order]
    assert since == sorted(since), "each by the one before"


def test_one_job_id_has_the_lines_of_a_cold_start(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").status == 200
    ready = serving.journal("RBEE_EVENT=worker-ready")[-1]
    job = f"RBEE_JOB_ID={ready['RBEE_JOB_ID']}"
    [unit_name] = worker_units(serving)
    repeated = await_repeated(serving, job, 1)

    of_job = serving.journal(job)
    programs = {str(line["SYSLOG_IDENTIFIER"]) for line in of_job}
    assert programs == {"rbee-gateway", "queen-rbee", "rbee-hive", "rbee-worker", "rbee-engine"}
    assert {str(line.get("RBEE_EVENT")) for line in of_job} >= {
        "request-woke", "worker-placed", "worker-loading", "engine-starting", "engine-said", "worker-ready",
    }  # fmt: skip

    # As llama-server printed them, each once and in order, up to its last word before it was ready.
    printed = printed_by(serving, unit_name)
    assert as_printed(repeated) == [as_repeated(line) for line in printed][: len(repeated)]
    before = [line for line in printed if stamp(line) <= stamp(ready)]
    assert len(repeated) >= len(before) > 5
    [line] = [str(line["MESSAGE"]) for line in repeated if "listening on" in str(line["MESSAGE"])]
    for one in repeated:
        about = one["RBEE_WORKER"], one["RBEE_HIVE"], one["RBEE_INVOCATION"], one["_SYSTEMD_UNIT"]
        assert about == (
            unit_name.removeprefix("rbee-worker@").removesuffix(".service"), "localhost",
            unit(serving, unit_name, "InvocationID")["InvocationID"], "rbee-hive.service",
        )  # fmt: skip

    shown = succeed(serving, "logs", "--job", str(ready["RBEE_JOB_ID"]), user=None).out
    assert "rbee-worker" in shown, shown
    assert shown.count(line) == 1, shown
    assert succeed(serving, "logs", "bee", user=None).out.count(line) == 1

    # Where all is about the hive itself, they would be in the way.
    for verb in (("status", "localhost"), ("logs", "localhost"), ("logs",)):
        own = succeed(serving, *verb, user=None).out
        assert "bee is ready in" in own, own
        assert "rbee-engine" not in own, own
    assert line in succeed(serving, "logs", "--", "--priority=debug", user=None).out


def test_the_job_of_an_engine_that_fails_has_what_each_start_printed(serving: Machine) -> None:
    add_hive(serving)
    override(serving, "rbee-worker@.service", "[Unit]\nStartLimitBurst=3\n")
    serve_rude(serving, "rude", {"exits": 3})
    assert chat(serving, "rude", seconds=90).status == 502
    failed = serving.journal("RBEE_EVENT=worker-failed")[-1]
    repeated = await_repeated(serving, f"RBEE_JOB_ID={failed['RBEE_JOB_ID']}", 3)

    printed = printed_by(serving, f"rbee-worker@{failed['RBEE_WORKER']}.service")
    assert as_printed(repeated) == [as_repeated(line) for line in printed]
    runs = dict.fromkeys(str(line["RBEE_INVOCATION"]) for line in repeated)
    assert len(runs) == 3
    assert list(runs) == list(
        dict.fromkeys(
            str(line["_SYSTEMD_INVOCATION_ID"]) for line in printed if "_SYSTEMD_INVOCATION_ID" in line
        )
    )


def await_repeated(machine: Machine, job: str, starts: int) -> list[dict[str, Any]]:
    """What the hive repeats of the engine's lines, once it has those of so many starts."""
    deadline = time.monotonic() + 20
    while True:
        repeated = machine.journal(job, "RBEE_EVENT=engine-said")
        if len({str(line["RBEE_INVOCATION"]) for line in repeated}) >= starts:
            time.sleep(0.5)  # they are written one after the other
            return machine.journal(job, "RBEE_EVENT=engine-said")
        assert time.monotonic() < deadline, repeated
        time.sleep(0.2)


def printed_by(machine: Machine, unit_name: str) -> list[dict[str, Any]]:
    """What the engine of a worker has printed, in its unit's journal."""
    return machine.journal("--unit", unit_name, "_TRANSPORT=stdout")


def stamp(line: dict[str, Any]) -> int:
    """When journald received a line, in microseconds since 1970."""
    return int(line["__REALTIME_TIMESTAMP"])


def as_printed(lines: list[dict[str, Any]]) -> list[tuple[str, str]]:
    """Text and time of lines that were repeated."""
    return [(line["MESSAGE"], line["RBEE_PRINTED_AT"]) for line in lines]


def as_repeated(line: dict[str, Any]) -> tuple[str, str]:
    """Text and time of a line of an engine, as the hive has to repeat it."""
    at = datetime.fromtimestamp(stamp(line) // 10**6, UTC)
    return printable(line["MESSAGE"]), f"{at:%Y-%m-%dT%H:%M:%S}.{stamp(line) % 10**6:06}Z"


def test_fifty_clients_of_a_cold_model_cause_one_start(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    with concurrent.futures.ThreadPoolExecutor(50) as pool:
        answers = list(pool.map(lambda _: chat(serving, "bee", seconds=60), range(50)))
    assert [answer.status for answer in answers] == [200] * 50
    assert {answer.text for answer in answers} == {"I am bee one."}
    assert len(serving.journal("RBEE_EVENT=worker-ready")) == 1
    assert len(worker_units(serving)) == 1


def test_a_worker_that_nobody_asks_is_stopped(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."), "--idle", "1s")
    assert chat(serving, "bee").status == 200
    await_worker(serving, "bee", "asleep")
    assert_nothing_is_left(serving)
    assert chat(serving, "bee").text == "I am bee one."


def test_a_shutdown_ends_workers_and_a_sleep_leaves_them(serving: Machine) -> None:
    add_hive(serving)
    serve_model(serving, "bee", says("I am bee one."))
    assert chat(serving, "bee").status == 200
    [unit_name] = worker_units(serving)
    before = unit(serving, unit_name)["MainPID"]
    succeed(serving, "sleep")
    assert unit(serving, unit_name)["MainPID"] == before
    assert chat(serving, "bee").text == "I am bee one."
    assert unit(serving, unit_name)["MainPID"] == before
    succeed(serving, "shutdown")
    assert_no_worker_runs(serving)
    assert serving.run("test", "-e", OPENAI, check=False).returncode != 0


def test_a_model_that_is_not_there_is_refused_as_openai_does(serving: Machine) -> None:
    add_hive(serving)
    answer = post(serving, "/v1/chat/completions", question("nobody"))
    assert answer.status == 404
    assert answer.json["error"]["code"] == "model_not_found"
    assert "rbeectl" in answer.json["error"]["message"]
    assert worker_processes(serving) == []


@pytest.mark.parametrize("verb", [("unserve", "bee"), ("shutdown",)])
def test_an_open_stream_is_cut_before_llama_server_is_stopped(
    serving: Machine, verb: tuple[str, ...]
) -> None:
    """llama-server does not end on SIGTERM while it streams an answer."""
    add_hive(serving)
    serve_model(serving, "bee", babbles(1, layers=8, width=512))
    asked = question("bee", stream=True).replace('"max_tokens": 64', '"max_tokens": 2000')
    stream = serving.popen(
        "curl", "--silent", "--no-buffer", "--unix-socket", OPENAI, "--data-binary", asked,
        "http://rbee/v1/chat/completions", user="ada",
    )  # fmt: skip
    assert stream.stdout is not None
    while '"content"' not in stream.stdout.readline():
        pass
    succeed(serving, *verb)
    rest, _ = stream.communicate(timeout=10)

    assert '"error"' in rest
    assert "[DONE]" not in rest
    assert_no_worker_runs(serving)
    told = serving.run("journalctl", "--no-pager", "-u", "rbee-worker@*").stdout
    assert "timed out" not in told
    assert "SIGKILL" not in told


def test_a_stream_outlives_a_sleep_and_does_not_wake_the_queen(serving: Machine) -> None:
    add_hive(serving)
    serve_rude(serving, "rude", {"deltas": 80, "pause_s": 0.1})
    stream = begin_chat(serving, "rude", stream=True)
    assert stream.stdout is not None
    while "word3 " not in stream.stdout.readline():
        pass
    succeed(serving, "sleep")
    rest = stream.communicate(timeout=30)[0]
    assert "[DONE]" in rest
    assert active(serving, *ALL) == ["inactive", "inactive", "active"]
