"""What each card does, by NVML or by sysfs, and why it is not known."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from rbee.wire.codec import decode
from rbee.wire.samples import GpuSample
from tests.unit.hive.devices.cards import BUSY, IDLE, cards_of, doing, sample_of
from tests.unit.hive.devices.machine import A, B, Machine


def test_a_wedged_driver_holds_up_a_look_only_for_so_long_and_the_next_not_at_all(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(doing(A, BUSY), doing(B, BUSY))
    hangs = later(doing(A, BUSY), doing(B, BUSY), rules=("hang DeviceGetTemperature 1",))

    script = f"""
detect()
{hangs}
from rbee.hive.devices.nvml import nvml
nvml.READ_TIMEOUT = 3
for look in range(3):
    began = time.monotonic()
    cards()
    tell(time.monotonic() - began)
tell(sorted(thread.name for thread in threading.enumerate()))
"""
    _, *looks, threads = machine.run(script)
    for told in looks[::2]:
        first, hung = (decode(GpuSample, card) for card in told)  # type: ignore[union-attr]
        assert first == sample_of(0, A, BUSY)
        assert (hung.utilisation_percent, hung.memory_used_bytes) == (BUSY.percent, BUSY.used_bytes)
        assert (hung.temperature_celsius, hung.problem) == (None, "NVML did not answer in time")
    assert looks[3] < 2  # type: ignore[operator]
    assert looks[5] < 2  # type: ignore[operator]
    # The three looks share one query, and whichever of its threads took the card hangs in it.
    assert threads in (["MainThread", "nvml"], ["MainThread", "nvml", "nvml-card"])


def test_a_driver_that_is_wedged_from_the_start_says_what_it_was_asked(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(doing(A, BUSY))
    hangs = later(doing(A, BUSY), rules=("hang Init *",))

    ((card,),) = cards_of(machine, f"import pynvml\ndetect()\n{hangs}\ncards()", nvml_timeout=0.5)
    assert card == sample_of(0, A, None, "NVML did not answer within 0.5 s: nvmlInit")


def test_a_driver_that_comes_back_is_looked_at_again(
    machine: Machine, later: Callable[..., str], tmp_path: Path
) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    machine.show(doing(A, BUSY))
    hangs = later(doing(A, BUSY), rules=(f"hang DeviceGetPowerUsage 0 {fifo}",))
    script = f"""
detect()
{hangs}
cards()
{later(doing(A, IDLE))}
open({str(fifo)!r}, "w").close()
while detector._nvml._running:
    time.sleep(0.01)
time.sleep(0.6)
cards()
"""
    late, fresh = cards_of(machine, script, nvml_timeout=0.5)
    assert late[0].problem == "NVML did not answer in time"
    assert fresh == (sample_of(0, A, IDLE),)


def test_closing_lets_a_waiting_look_go(machine: Machine, later: Callable[..., str], tmp_path: Path) -> None:
    fifo = tmp_path / "fifo"
    os.mkfifo(fifo)
    machine.show(doing(A, BUSY))
    rules = (f"hang DeviceGetUtilizationRates 0 {fifo}", "hang DeviceGetMemoryInfo *")
    script = f"""
detect()
{later(doing(A, BUSY), rules=rules)}
from rbee.hive.devices.nvml import nvml
nvml.READ_TIMEOUT = 3600
waiting = threading.Thread(target=cards)
waiting.start()
open({str(fifo)!r}, "w").close()
detector.close()
waiting.join()
cards()
"""
    waiting, after = cards_of(machine, script, nvml_timeout=3600)
    assert waiting[0].problem == "NVML did not answer in time"
    assert after[0].problem == "the hive is stopping"


@pytest.mark.parametrize("kernel_driver", [None, "nvidia"])
def test_a_card_without_nvidias_driver_says_so_at_each_look(
    machine: Machine, kernel_driver: str | None
) -> None:
    machine.plug_nvidia(A.pci_address, driver=kernel_driver)

    ((card,),) = cards_of(machine)
    assert card.problem == "the NVIDIA driver is not loaded"
    assert (card.pci_address, card.utilisation_percent) == (A.pci_address, None)


def test_a_card_of_nouveaus_tells_what_nouveau_knows(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address, driver="nouveau")
    machine.write(f"sys/bus/pci/devices/{A.pci_address}/hwmon/hwmon1/temp1_input", "44000\n")

    ((card,),) = cards_of(machine)
    assert (card.temperature_celsius, card.utilisation_percent) == (44.0, None)
    assert card.problem == "NVML does not see a card that another kernel driver has"


def test_a_card_that_nvml_has_lost_sight_of_says_so(machine: Machine, later: Callable[..., str]) -> None:
    machine.show(doing(A, BUSY), doing(B, BUSY))

    ((first, missing),) = cards_of(machine, f"detect()\n{later(doing(A, BUSY))}\ncards()")
    assert first == sample_of(0, A, BUSY)
    assert missing == sample_of(1, B, None, "NVML does not show this card")


def test_a_missing_module_is_said_at_each_look(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)

    ((card,),) = cards_of(machine, "sys.modules['pynvml'] = None\ncards()")
    assert card.problem == "the Python module pynvml is missing"
