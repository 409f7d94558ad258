"""NVML in its thread: calls that do not come back, and cards that change."""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.nvml import DRIVER_NOT_LOADED, GPU_IS_LOST, MISMATCH, UNINITIALIZED, StubCard, write_cards
from tests.unit.hive.devices.cards import BUSY, COUNTED, IDLE, cards_of, codes_of, doing, gpu_of, sample_of
from tests.unit.hive.devices.machine import DRIVER, A, B, C, Machine, answer_of

# Calls that do not come back


@pytest.mark.parametrize(
    "call", ["Init", "SystemGetDriverVersion", "DeviceGetCount", "DeviceGetName", "Shutdown"]
)
def test_a_hanging_call_holds_up_neither_detection_nor_exit(machine: Machine, call: str) -> None:
    machine.show(A, rules=(f"hang {call} *",))
    (answer,) = machine.answers("import pynvml\ndetect()", nvml_timeout=0.5)
    exit_took = time.monotonic() - answer.ended
    assert codes_of(answer.devices) == ["timeout"]
    assert f"nvml{call}" in answer.devices.findings[0].detail
    assert answer.took < 1.5
    assert exit_took < 3


def test_a_hanging_card_leaves_all_others_whole(machine: Machine) -> None:
    for card in (A, B, C):
        machine.plug_nvidia(card.pci_address)
    machine.show(A, B, C, rules=("hang DeviceGetName 1",))
    (answer,) = machine.answers("import pynvml\ndetect()", nvml_timeout=1)
    first, hung, last = answer.devices.gpus
    assert (first, last) == (gpu_of(0, A), gpu_of(2, C))
    assert (hung.uuid, hung.name, hung.pci_address) == (B.uuid, None, B.pci_address)
    assert hung.problem == "NVML did not answer in time"
    assert codes_of(answer.devices) == ["timeout"]
    assert answer.devices.findings[0].detail.endswith(": nvmlDeviceGetName of card 1")


def test_detections_of_a_wedged_driver_do_not_pile_up_threads(machine: Machine) -> None:
    machine.show(A, rules=("hang DeviceGetCount *",))
    script = "for _ in range(4): detect()\ntell(sorted(thread.name for thread in threading.enumerate()))"
    *answers, threads = machine.run(script, nvml_timeout=0.1)
    assert [codes_of(answer_of(said).devices) for said in answers] == [["timeout"]] * 4
    assert threads == ["MainThread", "nvml"]


def test_the_answer_of_a_call_that_comes_back_late_is_used_once(machine: Machine, tmp_path: Path) -> None:
    fifo, later = tmp_path / "fifo", tmp_path / "later"
    os.mkfifo(fifo)
    machine.show(A, rules=(f"hang DeviceGetCount * {fifo}",))
    write_cards(later, [B], driver=DRIVER)
    script = f"""
detect()
os.replace({str(later)!r}, os.environ["RBEE_NVML_STUB"])
open({str(fifo)!r}, "w").close()
detect()
detect()
"""
    late, reused, fresh = machine.answers(script, nvml_timeout=1)
    assert (codes_of(late.devices), late.devices.gpus) == (["timeout"], ())
    assert (codes_of(reused.devices), reused.devices.gpus) == ([], (gpu_of(0, A),))
    assert fresh.devices.gpus == (gpu_of(0, B),)


@pytest.mark.parametrize(("age", "shown"), [(1.0, A), (1.1, B)])
def test_an_answer_that_nobody_waited_for_is_used_while_it_is_young(
    machine: Machine, tmp_path: Path, age: float, shown: StubCard
) -> None:
    fifo, later = tmp_path / "fifo", tmp_path / "later"
    os.mkfifo(fifo)
    machine.show(A, rules=(f"hang DeviceGetCount * {fifo}",))
    write_cards(later, [B], driver=DRIVER)
    script = f"""
from rbee.hive.devices.nvml.nvml import Nvml
now = 0.0
nvml = Nvml(1, clock=lambda: now)
tell(nvml.look().failure.cause)
os.replace({str(later)!r}, os.environ["RBEE_NVML_STUB"])
(thread,) = (thread for thread in threading.enumerate() if thread.name == "nvml")
open({str(fifo)!r}, "w").close()
thread.join()
now = {age}
tell([card.uuid for card in nvml.look().cards])
"""
    assert machine.run(script) == ["timeout", [shown.uuid]]


def test_closing_lets_a_waiting_detection_go(machine: Machine, tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    # The FIFO tells that the detection is inside NVML; then it hangs for good.
    machine.show(A, rules=(f"hang Init * {fifo}", "hang DeviceGetCount *"))
    script = f"""
waiting = threading.Thread(target=detect)
waiting.start()
open({str(fifo)!r}, "w").close()
detector.close()
waiting.join()
detect()
"""
    waiting, after = machine.answers(script, nvml_timeout=3600)
    assert codes_of(waiting.devices) == ["interrupted"]
    assert codes_of(after.devices) == ["interrupted"]


# What NVML shows and the last detection did not tell


CHANGES = "tell({'changes': detector._nvml.changes})"


def changes_of(machine: Machine, script: str, **options: Any) -> list[int]:
    said = machine.run(f"detector._nvml._reopen_after = 0\n{script}", **options)
    return [one["changes"] for one in said if isinstance(one, dict) and "changes" in one]


def test_looks_at_cards_that_stay_the_same_change_nothing(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(A, B)

    looks = (
        f"{CHANGES}\ncards()\n{later(doing(A, BUSY), doing(B, IDLE))}\ncards()\ndetect()\ncards()\n{CHANGES}"
    )
    assert changes_of(machine, f"before = detector.fingerprint()\n{looks}") == [0, 0]


def test_a_card_that_is_new_to_nvml_is_noticed_at_the_next_look(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(A)

    script = f"""
cards()
before = detector.fingerprint()
{later(A, B)}
cards()
{CHANGES}
assert detector.fingerprint() != before
cards()
{CHANGES}
before = detector.fingerprint()
detect()
cards()
{CHANGES}
assert detector.fingerprint() == before
"""
    assert changes_of(machine, script) == [1, 1, 1]


@pytest.mark.parametrize("code", [UNINITIALIZED, DRIVER_NOT_LOADED, GPU_IS_LOST, MISMATCH])
def test_what_nvml_says_of_a_lost_card_or_driver_has_it_looked_at_again(
    machine: Machine, later: Callable[..., str], code: int
) -> None:
    machine.show(A, B)
    fails = later(A, driver="560.10", rules=(f"fail DeviceGetUtilizationRates 1 {code}",))

    script = f"cards()\n{CHANGES}\n{fails}\ncards()\n{CHANGES}"
    assert changes_of(machine, script) == [0, 1]


def test_a_card_that_stays_lost_is_said_to_be_and_noticed_once(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(doing(A, BUSY), doing(B, BUSY))
    rules = tuple(
        f"fail {call} 1 {GPU_IS_LOST}"
        for call in ("DeviceGetHandleByIndex", "DeviceGetUtilizationRates", "DeviceGetMemoryInfo")
    )
    loses = later(doing(A, BUSY), doing(B, BUSY), rules=rules)

    script = f"cards()\n{loses}\ncards()\ncards()\n{CHANGES}\ndetect()\ncards()\n{CHANGES}"
    assert changes_of(machine, script) == [1, 1]
    machine.show(doing(A, BUSY), doing(B, BUSY))
    keeps_open = "detector._nvml._reopen_after = 3600"
    told = cards_of(
        machine, f"{keeps_open}\ncards()\n{later(doing(A, BUSY), doing(B, BUSY), rules=rules)}\ncards()"
    )
    assert told[1] == (sample_of(0, A, BUSY), sample_of(1, B, None, "GPU is lost (NVML error 15)"))


def test_a_card_that_goes_and_comes_is_noticed_each_time(machine: Machine, later: Callable[..., str]) -> None:
    machine.show(A)
    both, one, again = later(A, B), later(A), later(A, B)

    script = f"cards()\n{both}\ncards()\n{CHANGES}\n{one}\ncards()\n{CHANGES}\n{again}\ncards()\n{CHANGES}"
    assert changes_of(machine, script) == [1, 1, 2]


def test_a_lost_card_does_not_have_nvml_opened_at_every_look(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(A)
    loses = later(A, rules=(f"fail DeviceGetUtilizationRates 0 {GPU_IS_LOST}",))

    looks = f"{loses}\ncards(); cards(); cards()\ntell(calls)"
    assert machine.run(f"{COUNTED}\ndetector.detect()\ncalls.clear()\n{looks}")[-1] == ["nvmlInit"]


def test_a_detection_that_came_too_late_is_noticed_when_its_answer_comes(
    machine: Machine, tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    machine.show(A, rules=(f"hang DeviceGetCount * {fifo}",))

    script = f"""
import pynvml
detect()
{CHANGES}
open({str(fifo)!r}, "w").close()
for thread in threading.enumerate():
    if thread.name == "nvml":  # it may have ended by now
        thread.join()
{CHANGES}
detect()
{CHANGES}
"""
    assert changes_of(machine, script, nvml_timeout=1) == [0, 1, 1]
