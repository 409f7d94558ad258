"""The memory book of a hive in a real machine: who holds the cards, as systemd's units have it."""

from __future__ import annotations

import json
import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
from testbed.commands import Runs
from testbed.emulated import UserModeMachine
from testbed.machine import Machine
from testbed.trees import Trees

from tests.nvml import StubCard
from tests.system.cards import install_library, load_driver, play_bus, plug, show
from tests.system.commands import HIVE, add_hive, main_pid, override, put, rbeectl, unit
from tests.system.serve.served import chat, rude, rude_files, serve_rude, succeed, worker, worker_processes

GIB = 2**30
MIB = 2**20
A = StubCard("0000:01:00.0", 48 * GIB, "GPU-aaaaaaaa", "NVIDIA RTX A6000")
B = StubCard("0000:41:00.0", 15 * GIB, "GPU-bbbbbbbb", "Tesla T4")
WORKER = "rbee-worker@bee-1.service"


def pools(machine: Runs) -> dict[str, dict[str, Any]]:
    """The book, as root asks the hive for it."""
    url = "http://localhost/v1/memory"
    answer = machine.run("curl", "-sS", "--max-time", "20", "--unix-socket", "/run/rbee/hive.sock", url)
    return {pool["id"]: pool for pool in json.loads(answer.stdout)["pools"]}


def holder(
    name: str | None, count: int, pid: int | None, kind: str = "process", user: str | None = None
) -> Any:
    return {"kind": kind, "bytes": count, "name": name, "user": user, "pid": pid}


def hold(machine: Runs, name: str, script: str, *options: str) -> int:
    """The main process of a unit that holds memory from now on."""
    machine.run("systemd-run", "--quiet", f"--unit={name}", *options, "python3", "-c", script)
    return int(unit(machine, name)["MainPID"])


def hold_as_worker(machine: Runs, worker_id: str, script: str) -> int:
    """As hold(), in the unit of a worker: a file of the instance counts before the template's."""
    name = f"rbee-worker@{worker_id}.service"
    put(machine, f"/srv/{worker_id}.py", script)
    service = f"[Service]\nSlice=rbee.slice\nExecStart=python3 /srv/{worker_id}.py\n"
    put(machine, f"/run/systemd/system/{name}", service)
    machine.run("systemctl", "daemon-reload")
    machine.run("systemctl", "start", name)
    return int(unit(machine, name)["MainPID"])


@pytest.fixture
def with_cards(machine: Machine, library: Path, tmp_path: Path) -> Machine:
    return with_two_cards(machine, library, tmp_path)


def with_two_cards(machine: Machine, library: Path, tmp_path: Path) -> Machine:
    play_bus(machine)
    install_library(machine, library)
    show(machine, tmp_path, [A, B])
    for card in (A, B):
        plug(machine, card)
    load_driver(machine)
    add_hive(machine)
    return machine


SLEEP = "import time; time.sleep(600)"


@contextmanager
def of_ada(machine: Machine) -> Iterator[int]:
    """A process in a session of ada's, as of somebody who is logged in."""
    uid = machine.run("id", "-u", "ada").stdout.strip()
    name = f"run-{uid}.scope"
    machine.run(
        *("systemd-run", "--quiet", f"--unit={name.removesuffix('.scope')}", f"--slice=user-{uid}.slice"),
        *("--uid=ada", "sleep", "600"),
    )
    try:
        yield main_pid(machine, f"run-{uid}.service")
    finally:
        machine.run("systemctl", "stop", f"run-{uid}.service")


def test_a_card_s_memory_is_told_by_worker_unit_and_user_until_they_end(
    with_cards: Machine, tmp_path: Path
) -> None:
    machine = with_cards
    worker = hold_as_worker(machine, "bee-1", SLEEP)
    trainer = hold(machine, "trainer.service", SLEEP)
    with of_ada(machine) as ada:
        stuck = 4_000_000
        rules = (
            f"process 0 {worker} {20 * GIB}", f"process 0 {trainer} {10 * GIB}",
            f"drawing 0 {ada} {2 * GIB}", f"stuck 1 {stuck} {GIB}",
        )  # fmt: skip
        show(machine, tmp_path, [A, B], rules)

        book = pools(machine)
        assert list(book) == ["ram", "gpu0", "gpu1"]
        first, second = book["gpu0"], book["gpu1"]
        assert (first["total_bytes"], first["free_bytes"], first["claimed_bytes"]) == (48 * GIB, 16 * GIB, 0)
        name = unit(machine, "trainer.service", "Id")["Id"]
        assert first["holders"] == [
            holder("bee-1", 20 * GIB, None, "worker"),
            holder(name, 10 * GIB, trainer),
            holder(next(one["name"] for one in first["holders"] if one["user"]), 2 * GIB, ada, user="ada"),
        ]
        assert second["holders"] == [holder(None, GIB, stuck)]
        assert second["free_bytes"] == 14 * GIB

        machine.run("systemctl", "stop", WORKER)
        first = pools(machine)["gpu0"]
        assert first["free_bytes"] == 36 * GIB
        assert [one["pid"] for one in first["holders"]] == [trainer, ada]


def test_a_model_is_served_on_a_card_which_is_proven_free_or_whose_holder_is_named(
    serving: Machine, library: Path, tmp_path: Path
) -> None:
    machine = with_two_cards(serving, library, tmp_path)
    dropin = "/etc/rbee/engines.d/rude.conf.d/card.conf"
    put(machine, dropin, "[Engine]\nEnvironment=CUDA_VISIBLE_DEVICES=%u\n")
    serve_rude(machine, "rude", {"load_s": 0.5}, memory=str(10 * GIB))
    placed = succeed(machine, "place", "rude", "--json").json
    assert [(one["pool"], one["fits"], one["is_chosen"]) for one in placed["candidates"]] == [
        ("gpu1", True, True), ("ram", True, False), ("gpu0", True, False),
    ]  # fmt: skip

    assert chat(machine, "rude").status == 200
    assert worker(machine, "rude")["pool"] == "gpu1"
    pid = main_pid(machine, "rbee-worker@rude-1.service")
    environment = machine.run("cat", f"/proc/{pid}/environ").stdout.split("\0")
    assert f"CUDA_VISIBLE_DEVICES={B.uuid}" in environment
    assert pools(machine)["gpu1"]["claimed_bytes"] == 10 * GIB
    show(machine, tmp_path, [A, B], (f"process 1 {pid} {9 * GIB}",))
    card = pools(machine)["gpu1"]
    assert (card["claimed_bytes"], card["free_bytes"]) == (GIB, 5 * GIB)
    assert card["holders"] == [holder("rude-1", 9 * GIB, None, "worker")]
    succeed(machine, "unserve", "rude")
    assert pools(machine)["gpu1"]["free_bytes"] == 15 * GIB
    assert succeed(machine, "model", "show", "rude", "--json").json["learned_bytes"] == 9 * GIB

    succeed(machine, "serve", "rude")
    assert chat(machine, "rude").status == 200
    pid = main_pid(machine, "rbee-worker@rude-2.service")
    show(machine, tmp_path, [A, B], (f"stuck 1 {pid} {GIB}",))
    succeed(machine, "unserve", "rude")
    lines = "\n".join(str(one["MESSAGE"]) for one in machine.journal("RBEE_MODEL=rude"))
    assert "rude has ended, but 1.0 GiB of gpu1 is still held by" in lines
    assert str(pid) in lines


def test_a_driver_that_hangs_makes_its_card_unknown_and_the_hive_stays_well(
    with_cards: Machine, tmp_path: Path
) -> None:
    machine = with_cards
    assert pools(machine)["gpu0"]["free_bytes"] == 48 * GIB
    show(machine, tmp_path, [A, B], ("hang DeviceGetMemoryInfo 0",))
    for _ in range(2):
        began = time.monotonic()
        book = pools(machine)
        assert time.monotonic() - began < 6
        assert book["ram"]["free_bytes"] > 0
        assert book["gpu0"]["free_bytes"] is None
        assert "did not answer" in book["gpu0"]["problem"]
    assert unit(machine, HIVE, "NRestarts")["NRestarts"] == "0"
    machine.run("curl", "-sSf", "--unix-socket", "/run/rbee/hive.sock", "http://localhost/health")


def test_ram_has_its_sums_and_a_guest_without_a_memory_controller_says_no_holders(machine: Machine) -> None:
    add_hive(machine)
    ram = pools(machine)["ram"]
    whole = int(re.findall(r"MemTotal: +(\d+) kB", machine.run("cat", "/proc/meminfo").stdout)[0]) * 1024
    assert ram["total_bytes"] <= whole
    held = sum(one["bytes"] for one in ram["holders"])
    assert held + ram["free_bytes"] + ram["claimed_bytes"] == ram["total_bytes"]


# RAM by unit, which takes a kernel with the memory controller of version 2


@pytest.fixture
def emulated(suite: str, trees: Trees, debs: list[Path]) -> Iterator[UserModeMachine]:
    files = {
        **rude_files(),
        "srv/rude.gguf": rude({"eats": 600 * MIB}),
        "srv/large.gguf": rude({"eats": 64 * MIB}),
    }
    with UserModeMachine(trees.installed(suite, debs), files=files) as machine:
        yield machine


def test_ram_is_told_by_holder_and_who_takes_more_than_there_is_is_ended(
    emulated: UserModeMachine,
) -> None:
    machine = emulated
    add_hive(machine)
    total = pools(machine)["ram"]["total_bytes"]
    size = total // 8
    fill = f"held = b'x' * {size}; {SLEEP}"
    hold_as_worker(machine, "bee-1", fill)
    hold(machine, "trainer.service", fill)
    for name in (WORKER, "trainer.service"):
        machine.run(
            "sh", "-c", f"until [ $(systemctl show -P MemoryCurrent {name}) -ge {size} ]; do sleep 0.1; done"
        )

    ram = pools(machine)["ram"]
    first, *others = ram["holders"]
    assert (first["kind"], first["name"]) == ("worker", "bee-1")
    assert size <= first["bytes"] < size + 32 * MIB
    (trainer,) = (one for one in others if one["name"] == "trainer.service")
    assert size <= trainer["bytes"] < size + 32 * MIB
    held = sum(one["bytes"] for one in ram["holders"])
    assert held + ram["free_bytes"] + ram["claimed_bytes"] == ram["total_bytes"] == total

    machine.run("systemctl", "set-property", "--runtime", "rbee.slice", "MemoryMax=512M")
    limited = pools(machine)["ram"]
    assert limited["total_bytes"] == 512 * MIB < total
    assert limited["free_bytes"] <= 512 * MIB - first["bytes"] + MIB

    # An engine that takes more than its claim, and more than there is, is ended by the kernel, and it alone.
    machine.run("systemctl", "stop", WORKER, "trainer.service")
    override(machine, "rbee-worker@.service", "[Unit]\nStartLimitBurst=1\n")
    succeed(machine, "model", "add", "rude", "/srv/rude.gguf")
    succeed(machine, "serve", "rude", "--engine", "rude")
    refused = chat(machine, "rude", seconds=60)
    assert refused.status == 502, refused
    assert "out of memory: the kernel killed it" in refused.json["error"]["message"]
    assert "out of memory" in worker(machine, "rude")["reason"]
    assert worker_processes(machine) == []
    after = pools(machine)["ram"]
    assert after["claimed_bytes"] == 0
    assert after["free_bytes"] > 256 * MIB
    assert unit(machine, HIVE, "NRestarts")["NRestarts"] == "0"
    assert "out of memory: the kernel killed it" in rbeectl(machine, "status", "rude").out
    told = machine.run("journalctl", "--no-pager", "RBEE_MODEL=rude", f"_SYSTEMD_UNIT={HIVE}").stdout
    assert "out of memory: the kernel killed it" in told

    # What a worker has used counts for the next one.
    succeed(machine, "model", "add", "large", "/srv/large.gguf")
    succeed(machine, "serve", "large", "--engine", "rude")
    assert chat(machine, "large", seconds=60).status == 200
    succeed(machine, "unserve", "large")
    learned = succeed(machine, "model", "show", "large", "--json").json["learned_bytes"]
    assert 64 * MIB <= learned < 160 * MIB
    succeed(machine, "serve", "large")
    assert "(learned)" in succeed(machine, "place", "large").out
