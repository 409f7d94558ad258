"""The memory of cards and the processes that hold it, by NVML or by sysfs."""

from __future__ import annotations

import os
from typing import Any

from tests.nvml import NOT_SUPPORTED, UNKNOWN
from tests.unit.hive.devices.cards import BUSY, doing
from tests.unit.hive.devices.machine import A, B, Machine

GIB = 2**30
HELD = "tell([card._asdict() for card in detector.read_held()])"


def held(machine: Machine, script: str = HELD, **options: Any) -> list[dict[str, Any]]:
    (cards,) = machine.run(script, **options)
    assert isinstance(cards, list)
    return cards


def test_a_card_s_memory_is_told_with_the_processes_that_hold_it(machine: Machine) -> None:
    here = os.getpid()
    rules = (f"process 0 {here} {5 * GIB}", f"drawing 0 1 {GIB}", f"process 1 {here} -1")
    machine.show(doing(A, BUSY), B, rules=rules)

    first, second = held(machine)
    assert (first["index"], first["name"], first["problem"]) == (0, A.name, None)
    assert (first["total"], first["used"]) == (A.vram_bytes, BUSY.used_bytes + 6 * GIB)
    assert first["processes"] == [[here, 5 * GIB], [1, GIB]]
    assert (second["used"], second["processes"]) == (0, [[here, None]])


def test_a_process_that_computes_and_draws_is_listed_once(machine: Machine) -> None:
    machine.show(A, rules=("process 0 1 4096", "drawing 0 1 4096"))

    (card,) = held(machine)
    assert card["processes"] == [[1, 4096]]


def test_a_process_that_has_ended_holds_nothing_unless_it_is_stuck_in_the_driver(machine: Machine) -> None:
    gone = 2**22 - 7  # more than there can be
    machine.show(A, rules=(f"process 0 {gone} 4096",))
    assert held(machine)[0]["used"] == 0

    machine.show(A, rules=(f"stuck 0 {gone} 4096",))
    (card,) = held(machine)
    assert (card["used"], card["processes"]) == (4096, [[gone, 4096]])


def test_a_driver_that_lists_no_processes_still_tells_the_memory(machine: Machine) -> None:
    machine.show(doing(A, BUSY), rules=(f"fail DeviceGetComputeRunningProcesses * {NOT_SUPPORTED}",))

    (card,) = held(machine)
    assert (card["used"], card["processes"], card["problem"]) == (BUSY.used_bytes, None, None)


def test_a_list_of_processes_that_fails_is_a_problem_of_that_card(machine: Machine) -> None:
    machine.show(doing(A, BUSY), B, rules=(f"fail DeviceGetComputeRunningProcesses 0 {UNKNOWN}",))

    first, second = held(machine)
    assert (first["used"], first["processes"]) == (BUSY.used_bytes, None)
    assert first["problem"] == "processes: Unknown Error (NVML error 999)"
    assert (second["processes"], second["problem"]) == ([], None)


def test_a_driver_that_hangs_is_unknown_and_no_hang(machine: Machine) -> None:
    machine.show(doing(A, BUSY), B, rules=("hang DeviceGetMemoryInfo 0",))

    script = f"from rbee.hive.devices.nvml import nvml\nnvml.READ_TIMEOUT = 1\n{HELD}"
    first, second = held(machine, script, nvml_timeout=0.5)
    assert (first["used"], first["processes"]) == (None, None)
    assert "did not answer" in first["problem"]
    assert second["problem"] is not None or second["used"] == 0


def test_an_amd_card_tells_its_memory_and_no_processes(machine: Machine) -> None:
    files = {"mem_info_vram_total": str(16 * GIB), "mem_info_vram_used": str(GIB)}
    machine.plug("0000:03:00.0", "1002", "744c", driver="amdgpu", **files)

    (card,) = held(machine)
    assert (card["total"], card["used"], card["processes"]) == (16 * GIB, GIB, None)
    assert (card["is_shared"], card["problem"]) == (False, None)


def test_only_nvidia_s_cards_have_a_uuid(machine: Machine) -> None:
    machine.show(A)
    machine.plug("0000:83:00.0", "1002", "744c", driver="amdgpu")

    assert sorted((card["name"] == A.name, card["has_uuid"]) for card in held(machine)) == [
        (False, False),
        (True, True),
    ]


def test_a_card_that_is_asleep_is_not_woken_and_nobody_holds_it(machine: Machine) -> None:
    files = {"mem_info_vram_total": str(16 * GIB), "mem_info_vram_used": str(GIB)}
    machine.plug("0000:03:00.0", "1002", "744c", driver="amdgpu", power__runtime_status="suspended", **files)

    (card,) = held(machine)
    assert (card["total"], card["used"], card["processes"]) == (16 * GIB, 0, [])


def test_an_intel_card_that_tells_nothing_is_unknown(machine: Machine) -> None:
    machine.plug("0000:00:02.0", "8086", "46a6", driver="i915")

    (card,) = held(machine)
    assert (card["is_shared"], card["total"], card["used"]) == (True, None, None)
