"""Two models of which only one fits: the idle one gives way, and none that is busy."""

from __future__ import annotations

import concurrent.futures
import re

import pytest
from testbed.machine import Machine

from tests.system.commands import add_hive, configure, rbeectl
from tests.system.serve.served import await_worker, chat, serve_rude, succeed, worker, worker_units


@pytest.fixture
def machine(serving: Machine) -> Machine:
    """Two models that need more than half of the machine's memory each, as the operator says."""
    add_hive(serving)
    total = 1024 * int(serving.run("awk", "/MemTotal/ {print $2}", "/proc/meminfo").stdout)
    for name in ("one", "two"):
        serve_rude(serving, name, {"deltas": 60, "pause_s": 0.1}, memory=str(total * 6 // 10))
    return serving


def test_the_idle_one_gives_way(machine: Machine) -> None:
    assert chat(machine, "one").status == 200
    assert chat(machine, "two").status == 200
    assert worker(machine, "one")["state"] == "asleep"
    assert len(worker_units(machine)) == 1


def test_a_busy_one_is_waited_for(machine: Machine) -> None:
    with concurrent.futures.ThreadPoolExecutor(1) as pool:
        first = pool.submit(chat, machine, "one", stream=True)
        await_worker(machine, "one", "busy")
        second = chat(machine, "two")
        assert first.result().body.endswith("[DONE]\n\n")
    assert second.status == 200


def test_with_both_in_use_the_second_is_refused_with_the_arithmetic(machine: Machine) -> None:
    assert chat(machine, "one").status == 200
    configure(machine, "[Gateway]\nHoldSec=1\n")
    machine.run("systemctl", "restart", "rbee-gateway.service")
    with concurrent.futures.ThreadPoolExecutor(2) as pool:
        first = pool.submit(chat, machine, "one", stream=True)
        await_worker(machine, "one", "busy")
        second = pool.submit(chat, machine, "two")
        waiting = await_worker(machine, "two", "waiting")
        assert waiting["reason"].endswith("and one-1 must end first")
        refused = second.result()
        assert refused.status == 503
        assert "Retry-After" in refused.headers or "retry-after" in refused.headers
        arithmetic = (
            r"two needs [\d.]+ GiB \(operator\).*localhost ram has [\d.]+ GiB of [\d.]+ GiB free, "
            r"[\d.]+ GiB and a margin of [\d.]+ GiB are needed, and one-1 must end first"
        )
        assert re.search(arithmetic, refused.json["error"]["message"]), refused.json
        assert first.result().body.endswith("[DONE]\n\n")


def test_a_pinned_one_never_gives_way(machine: Machine) -> None:
    succeed(machine, "serve", "one", "--pin")
    assert chat(machine, "one").status == 200
    refused = rbeectl(machine, "place", "two", "--dry-run")
    assert refused.code != 0
    assert "pinned" in refused.out + refused.err
    assert worker(machine, "one")["state"] == "ready"
