"""Devices that change while a hive runs, and what they do right now, in a real machine."""

from __future__ import annotations

import json
import signal
import subprocess
from pathlib import Path
from typing import Any

import pytest
from testbed.machine import Machine

from rbee.hive.devices.load import LEAST_SPAN
from tests.nvml import GPU_IS_LOST, Load, StubCard
from tests.system.cards import (
    DRIVER,
    findings,
    gpus,
    install_library,
    load_driver,
    play_bus,
    plug,
    show,
    unload_driver,
    unplug,
)
from tests.system.commands import (
    HIVE,
    active,
    add_hive,
    await_state,
    await_told,
    configure,
    curl,
    rbeectl,
    rows,
    unit,
)

A = StubCard("0000:01:00.0", 48 * 2**30, "GPU-aaaaaaaa", "NVIDIA RTX A6000", Load(7, 2**30, 41, 65_000))
B = StubCard("0000:41:00.0", 15 * 2**30, "GPU-bbbbbbbb", "Tesla T4", Load(93, 14 * 2**30, 78, 69_500))

INTERVAL = 1

HELD = 4 * 2**30
"""Bytes that a test's process takes; others on this computer come and go with less than half of it."""


@pytest.fixture
def with_cards(machine: Machine, library: Path, tmp_path: Path) -> Machine:
    """A machine with one card, of which the hive beats every second."""
    configure(machine, f"[Queen]\nHeartbeatIntervalSec={INTERVAL}s\n")
    play_bus(machine)
    install_library(machine, library)
    show(machine, tmp_path, [A])
    plug(machine, A)
    load_driver(machine)
    add_hive(machine)
    assert [gpu["uuid"] for gpu in gpus(machine)] == [A.uuid]
    return machine


def sample(machine: Machine) -> dict[str, Any]:
    status, told = curl(machine, "/v1/hives/localhost/sample")
    assert status == 200, told
    assert isinstance(told, dict)
    return told


# Devices that change


def test_a_card_that_comes_and_goes_is_in_the_list_within_a_beat_and_in_the_journal(
    with_cards: Machine, tmp_path: Path
) -> None:
    machine = with_cards
    show(machine, tmp_path, [A, B])
    plug(machine, B)
    said = "the devices of the beehive localhost have changed"
    assert await_told(machine, "devices-changed") == f"{said}: gpu1 (Tesla T4, 15.0 GiB) is new"
    assert [(gpu["index"], gpu["uuid"], gpu["problem"]) for gpu in gpus(machine)] == [
        (0, A.uuid, None),
        (1, B.uuid, None),
    ]
    assert B.uuid in rbeectl(machine, "list-devices").out

    show(machine, tmp_path, [B])
    unplug(machine, A)
    gone = "gpu0 (NVIDIA RTX A6000, 48.0 GiB) is gone"
    assert await_told(machine, "devices-changed", 2) == f"{said}: {gone}"
    assert [(gpu["index"], gpu["uuid"]) for gpu in gpus(machine)] == [(0, B.uuid)]

    (first, second) = machine.journal("RBEE_EVENT=devices-changed")
    assert first["RBEE_HIVE"] == "localhost"
    explained = machine.run("journalctl", "-x", "--output=short", "RBEE_EVENT=devices-changed").stdout
    assert "Subject: The devices of hive localhost have changed" in explained
    changes = machine.journal("RBEE_EVENT=catalog-changed")
    assert [entry["MESSAGE"] for entry in changes[-2:]] == [
        "hive localhost has other devices in the hive catalog"
    ] * 2
    asked = json.loads(rows(machine)[0]["devices"])
    assert [gpu["uuid"] for gpu in asked["gpus"]] == [B.uuid]
    assert (second["PRIORITY"], unit(machine, HIVE, "NRestarts")["NRestarts"]) == ("5", "0")


def test_a_driver_that_is_reloaded_in_another_version_is_noticed_and_told(
    with_cards: Machine, tmp_path: Path
) -> None:
    machine = with_cards
    sample(machine)  # NVML is open now, and the cards are looked for all the same
    show(machine, tmp_path, [A], driver="580.10")
    load_driver(machine, "580.10")

    told = await_told(machine, "devices-changed")
    assert told == f"the devices of the beehive localhost have changed: driver {DRIVER} -> 580.10"
    assert [gpu["driver"] for gpu in gpus(machine)] == ["580.10"]


def test_a_driver_that_is_unloaded_is_told_and_so_is_its_return(with_cards: Machine, tmp_path: Path) -> None:
    machine = with_cards
    show(machine, tmp_path, [A], ("fail Init * 9",))
    unload_driver(machine)
    assert "no-driver: 1 NVIDIA card(s)" in await_told(machine, "devices-changed")
    assert findings(machine) == ["no-driver"]

    show(machine, tmp_path, [A])
    load_driver(machine)
    back = await_told(machine, "devices-changed", 2)
    assert "no-driver is over" in back
    assert (gpus(machine)[0]["uuid"], findings(machine)) == (A.uuid, [])


def test_a_card_that_nvml_loses_is_noticed_when_somebody_looks(with_cards: Machine, tmp_path: Path) -> None:
    machine = with_cards
    sample(machine)
    rules = tuple(
        f"fail {call} 0 {GPU_IS_LOST}"
        for call in ("DeviceGetHandleByIndex", "DeviceGetUtilizationRates", "DeviceGetUUID")
    )
    show(machine, tmp_path, [A], rules)

    looking = "until journalctl -q -o cat RBEE_EVENT=devices-changed | grep .; do rbee_look; sleep 1; done"
    look = "curl -sS --unix-socket /run/rbee/queen.sock http://localhost/v1/hives/localhost/sample"
    machine.run("sh", "-c", looking.replace("rbee_look", look), timeout=30)

    assert "GPU is lost (NVML error 15)" in await_told(machine, "devices-changed")
    (gpu,) = gpus(machine)
    assert (gpu["pci_address"], gpu["uuid"]) == (A.pci_address, None)


# What they do


def test_a_load_that_is_made_shows_in_the_sample(machine: Machine) -> None:
    add_hive(machine)
    idle = sample(machine)
    assert idle["hive_id"] == "localhost"
    assert idle["gpus"] == []
    threads = int(machine.run("nproc", "--all").stdout)
    hold = f"import time; held = b'x' * {HELD}; print('held', flush=True); time.sleep(600)"
    with machine.popen("python3", "-c", hold) as holder:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "held\n"
        # Whatever else this computer does, one CPU has no time to spare.
        with machine.popen("sh", "-c", "while :; do :; done") as load:
            machine.run("sleep", "3")
            busy = sample(machine)
            end(machine, load)
        end(machine, holder)
    after = sample_without_the_last(machine)
    for _ in range(10):  # others on this computer take memory meanwhile, and give it back
        if busy["memory_used_bytes"] - after["memory_used_bytes"] > HELD / 2:
            break
        after = sample_without_the_last(machine)

    assert busy["cpu_percent"] >= 90 / threads
    # A beat that falls into the load shortens what the share is taken over.
    assert busy["cpu_span_seconds"] >= LEAST_SPAN
    assert busy["memory_used_bytes"] - idle["memory_used_bytes"] > HELD / 2
    assert busy["memory_used_bytes"] - after["memory_used_bytes"] > HELD / 2
    assert busy["memory_used_bytes"] < busy["memory_total_bytes"] == idle["memory_total_bytes"]
    assert {key for key in busy if key.startswith("load_") and busy[key] is None} == set()


def end(machine: Machine, process: subprocess.Popen[str]) -> None:
    machine.signal(process, signal.SIGKILL)
    process.wait(10)


def sample_without_the_last(machine: Machine) -> dict[str, Any]:
    machine.run("sleep", "0.6")  # a sample is shared for half a second
    return sample(machine)


def test_what_the_cards_do_shows_in_the_sample_and_follows_them(with_cards: Machine, tmp_path: Path) -> None:
    machine = with_cards
    (told,) = sample(machine)["gpus"]
    assert told == {
        "index": 0,
        "uuid": A.uuid,
        "pci_address": A.pci_address,
        "utilisation_percent": 7.0,
        "memory_used_bytes": 2**30,
        "memory_total_bytes": 48 * 2**30,
        "temperature_celsius": 41.0,
        "power_watts": 65.0,
        "problem": None,
    }
    quiet = StubCard(A.pci_address, A.vram_bytes, A.uuid, A.name)
    show(machine, tmp_path, [quiet])  # which has no sensors
    (told,) = sample_without_the_last(machine)["gpus"]
    assert (told["utilisation_percent"], told["temperature_celsius"], told["power_watts"]) == (None,) * 3
    assert (told["memory_used_bytes"], told["problem"]) == (0, None)


def test_a_wedged_driver_takes_nothing_but_its_own_from_a_sample_nor_from_the_hive(
    with_cards: Machine, tmp_path: Path
) -> None:
    machine = with_cards
    show(machine, tmp_path, [A], ("hang DeviceGetTemperature *",))
    for _ in range(3):
        wedged = sample_without_the_last(machine)
        (gpu,) = wedged["gpus"]
        assert (gpu["utilisation_percent"], gpu["temperature_celsius"]) == (7.0, None)
        assert gpu["problem"] == "NVML did not answer in time"
        assert wedged["load_1"] is not None
        assert wedged["memory_used_bytes"] > 0
    machine.run("sleep", str(3 * INTERVAL))
    assert await_state(machine, "online")["devices"]["gpus"][0]["uuid"] == A.uuid
    assert machine.journal("RBEE_EVENT=hive-suspect") == []
    machine.run("systemctl", "stop", HIVE, timeout=4)
    assert unit(machine, HIVE)["Result"] == "success"


def test_who_looks_wakes_nobody(machine: Machine) -> None:
    add_hive(machine)
    sample(machine)
    machine.run("systemctl", "stop", HIVE)
    for _ in range(3):
        status, problem = curl(machine, "/v1/hives/localhost/sample")
        assert (status, problem["type"]) == (409, "urn:rbee:problem:hive-not-online")
        assert problem["hint"] == "rbeectl add-hive localhost"
    assert active(machine, HIVE) == ["inactive"]
    assert curl(machine, "/v1/hives/nowhere/sample")[0] == 404


def test_nobody_but_the_queen_asks_the_hive(machine: Machine) -> None:
    add_hive(machine)
    command = ("curl", "-sS", "--unix-socket", "/run/rbee/hive.sock", "http://localhost/v1/sample")
    for user in ("ada", "mallory"):
        refused = machine.run(*command, user=user, check=False)
        assert (refused.returncode, refused.stdout) == (7, "")
    assert json.loads(machine.run(*command, user="queen-rbee").stdout)["hive_id"] == "localhost"
