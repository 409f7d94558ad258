"""What NVML answers of what the cards do."""

from __future__ import annotations

from collections.abc import Callable

import pytest

from tests.nvml import NOT_SUPPORTED, UNKNOWN
from tests.unit.hive.devices.cards import BUSY, COUNTED, IDLE, cards_of, doing, sample_of
from tests.unit.hive.devices.machine import A, B, C, Machine


def test_cards_tell_what_they_do_in_the_order_of_the_devices(machine: Machine) -> None:
    machine.show(doing(C, IDLE), doing(A, BUSY))

    assert cards_of(machine) == [(sample_of(0, A, BUSY), sample_of(1, C, IDLE))]


def test_what_a_card_has_no_sensor_for_is_not_known_and_no_problem(machine: Machine) -> None:
    rules = [f"fail {call} 1 {NOT_SUPPORTED}" for call in ("DeviceGetPowerUsage", "DeviceGetTemperature")]
    machine.show(doing(A, BUSY), doing(B, BUSY), rules=tuple(rules))

    ((whole, less),) = cards_of(machine)
    assert whole == sample_of(0, A, BUSY)
    assert less == sample_of(1, B, BUSY)._replace(power_watts=None, temperature_celsius=None)


def test_a_card_that_only_tells_its_memory_is_no_problem(machine: Machine) -> None:
    machine.show(A)

    assert cards_of(machine) == [(sample_of(0, A, None)._replace(memory_used_bytes=0),)]


@pytest.mark.parametrize(
    ("call", "field", "what"),
    [
        ("DeviceGetUtilizationRates", "utilisation_percent", "utilisation"),
        ("DeviceGetMemoryInfo", "memory_used_bytes", "memory"),
        ("DeviceGetTemperature", "temperature_celsius", "temperature"),
        ("DeviceGetPowerUsage", "power_watts", "power"),
    ],
)
def test_a_sensor_that_fails_takes_only_its_own_field(
    machine: Machine, later: Callable[..., str], call: str, field: str, what: str
) -> None:
    machine.show(doing(A, BUSY), doing(B, BUSY))
    fails = later(doing(A, BUSY), doing(B, BUSY), rules=(f"fail {call} 0 {UNKNOWN}",))

    ((broken, whole),) = cards_of(machine, f"detect()\n{fails}\ncards()")
    problem = f"{what}: Unknown Error (NVML error 999)"
    assert broken == sample_of(0, A, BUSY, problem)._replace(**{field: None})
    assert whole == sample_of(1, B, BUSY)


def test_a_hanging_card_leaves_the_others_whole(machine: Machine, later: Callable[..., str]) -> None:
    machine.show(doing(A, BUSY), doing(B, BUSY))
    hangs = later(doing(A, BUSY), doing(B, BUSY), rules=("hang DeviceGetPowerUsage 0",))

    ((hung, whole),) = cards_of(machine, f"detect()\n{hangs}\ncards()", nvml_timeout=1)
    late = "NVML did not answer in time"
    assert hung == sample_of(0, A, BUSY, late)._replace(power_watts=None)
    assert whole == sample_of(1, B, BUSY)


def test_each_look_tells_what_is_so_then(machine: Machine, later: Callable[..., str]) -> None:
    machine.show(doing(A, IDLE))

    script = f"cards()\n{later(doing(A, BUSY))}\ncards()"
    assert cards_of(machine, script) == [(sample_of(0, A, IDLE),), (sample_of(0, A, BUSY),)]


def test_nvml_is_opened_at_the_first_look_and_stays_open_for_the_next(machine: Machine) -> None:
    machine.show(doing(A, BUSY))

    script = (
        f"{COUNTED}\ndetector.detect()\ncalls.clear()\ncards(); cards(); cards()\ntell({{'calls': calls}})"
    )
    assert machine.run(script)[-1] == {"calls": ["nvmlInit"]}


def test_nvml_is_closed_when_nobody_has_looked_for_a_while(machine: Machine) -> None:
    machine.show(doing(A, BUSY))

    script = f"""{COUNTED}
from rbee.hive.devices.nvml.nvml import Nvml
nvml = Nvml(30, keep_open=0.2)
for look in range(2):
    assert nvml.read().cards
    (thread,) = (thread for thread in threading.enumerate() if thread.name == "nvml")
    thread.join()
tell(calls)
"""
    assert machine.run(script) == [["nvmlInit", "nvmlShutdown"] * 2]


def test_who_looks_keeps_nvml_open_longer(machine: Machine) -> None:
    machine.show(doing(A, BUSY))

    script = f"""{COUNTED}
from rbee.hive.devices.nvml.nvml import Nvml
now = 0.0
nvml = Nvml(30, keep_open=0.2, clock=lambda: now)
nvml.read()
now = 0.15
nvml.read()
now = 0.3
time.sleep(0.5)
tell(calls)
(thread,) = (thread for thread in threading.enumerate() if thread.name == "nvml")
now = 0.4
thread.join()
tell(calls)
"""
    assert machine.run(script) == [["nvmlInit"], ["nvmlInit", "nvmlShutdown"]]


def test_a_machine_without_nvidia_does_not_load_nvml_to_look(machine: Machine) -> None:
    machine.plug("0000:03:00.0", "1002", "744c", driver="amdgpu", gpu_busy_percent="12")
    script = "detect()\nread = detector._nvml.read\ndetector._nvml.read = None\ncards()"

    ((card,),) = cards_of(machine, script)
    assert (card.utilisation_percent, card.problem) == (12.0, None)


def test_a_card_that_is_asleep_does_not_have_nvml_opened(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.write(f"sys/bus/pci/devices/{A.pci_address}/power/runtime_status", "suspended\n")
    machine.show(doing(A, BUSY))

    ((card,),) = cards_of(machine, "detect()\ndetector._nvml.read = None\ncards()")
    assert card == sample_of(0, A, None, "the card is asleep, and is not woken by looking")
