"""Detection, on fake filesystem roots, with the real pynvml over a stub of NVIDIA's library."""

from __future__ import annotations

import ctypes
import random
from pathlib import Path

import pytest

from rbee.wire.devices import Gpu
from tests.nvml import (
    DRIVER_NOT_LOADED,
    FUNCTION_NOT_FOUND,
    GB10,
    GB10_RULES,
    GPU_IS_LOST,
    LIBRARY,
    MISMATCH,
    NO_PERMISSION,
    OPERATING_SYSTEM,
    ORIN,
    ORIN_RULES,
    UNKNOWN,
    StubCard,
    random_cards,
    unsupported,
    write_cards,
)
from tests.unit.hive.devices.cards import codes_of, gpu_of
from tests.unit.hive.devices.machine import DRIVER, A, B, C, Machine, answer_of

# NVIDIA's cards


def test_a_driver_without_cards_shows_none(machine: Machine) -> None:
    machine.show()
    devices = machine.detect()
    assert devices.gpus == ()
    assert devices.findings == ()


def test_one_card_is_shown_whole(machine: Machine) -> None:
    machine.show(A)
    devices = machine.detect()
    assert devices.gpus == (gpu_of(0, A),)
    assert devices.findings == ()


def test_cards_are_numbered_by_pci_address_and_not_by_nvml(machine: Machine) -> None:
    machine.show(C, A)
    assert machine.detect().gpus == (gpu_of(0, A), gpu_of(1, C))


@pytest.mark.parametrize("seed", range(3))
def test_cards_drawn_at_random_are_shown_exactly(machine: Machine, seed: int) -> None:
    cards = random_cards(random.Random(seed))
    machine.show(*cards)
    assert machine.detect().gpus == tuple(gpu_of(index, card) for index, card in enumerate(cards))


def test_a_card_seen_by_nvml_and_sysfs_is_listed_once(machine: Machine) -> None:
    machine.load_nvidia_driver()
    machine.plug_nvidia(A.pci_address)
    machine.plug_nvidia(B.pci_address)
    machine.show(A, B)
    assert machine.detect().gpus == (gpu_of(0, A), gpu_of(1, B))


@pytest.mark.parametrize("rules", [GB10_RULES, ()], ids=["not supported", "0 of 0"])
def test_a_card_without_memory_of_its_own_shares_the_machines_and_has_no_problem(
    machine: Machine, rules: tuple[str, ...]
) -> None:
    machine.load_nvidia_driver()
    machine.plug_nvidia(GB10.pci_address)
    machine.show(GB10, rules=rules)
    devices = machine.detect()
    assert devices.gpus == (
        Gpu(0, "nvidia", GB10.name, GB10.uuid, None, DRIVER, GB10.pci_address, None, "shared"),
    )
    assert devices.findings == ()


def test_a_jetson_that_has_no_pci_address_has_no_problem(machine: Machine) -> None:
    machine.show(ORIN, rules=ORIN_RULES)
    devices = machine.detect()
    assert devices.gpus == (Gpu(0, "nvidia", ORIN.name, ORIN.uuid, None, DRIVER, None, None, "shared"),)
    assert devices.findings == ()


@pytest.mark.parametrize(
    ("function", "field"),
    [("DeviceGetName", "name"), ("DeviceGetUUID", "uuid"), ("SystemGetDriverVersion", "driver")],
)
def test_what_a_kind_of_card_does_not_support_is_no_problem(
    machine: Machine, function: str, field: str
) -> None:
    rules = (
        (*unsupported(function), "fail SystemGetDriverVersion * 3")
        if field == "driver"
        else unsupported(function)
    )
    machine.show(A, rules=rules)
    (gpu,) = machine.detect().gpus
    assert (getattr(gpu, field), gpu.problem) == (None, None)


def test_a_card_whose_address_nvml_does_not_support_is_the_one_that_is_on_the_bus(machine: Machine) -> None:
    machine.load_nvidia_driver()
    machine.plug_nvidia(A.pci_address)
    machine.show(A, rules=unsupported("DeviceGetPciInfo"))
    assert machine.detect().gpus == (gpu_of(0, A),)


def test_each_look_asks_nvml_anew(machine: Machine, tmp_path: Path) -> None:
    later = tmp_path / "later"
    machine.show(A)
    write_cards(later, [B], driver=DRIVER)
    replace = f"os.replace({str(later)!r}, os.environ['RBEE_NVML_STUB'])"
    first, second = machine.answers(f"detect()\n{replace}\ndetect()")
    assert first.devices.gpus == (gpu_of(0, A),)
    assert second.devices.gpus == (gpu_of(0, B),)


@pytest.mark.parametrize(
    ("call", "field", "problem"),
    [
        ("DeviceGetPciInfo", "pci_address", "PCI address: GPU is lost (NVML error 15)"),
        ("DeviceGetUUID", "uuid", "uuid: GPU is lost (NVML error 15)"),
        ("DeviceGetName", "name", "name: GPU is lost (NVML error 15)"),
        ("DeviceGetMemoryInfo", "vram_bytes", "VRAM: GPU is lost (NVML error 15)"),
    ],
)
def test_a_call_that_fails_leaves_its_field_out_and_the_rest_whole(
    machine: Machine, call: str, field: str, problem: str
) -> None:
    machine.show(A, B, C, rules=(f"fail {call} 1 {GPU_IS_LOST}",))
    devices = machine.detect()
    gpus = {gpu.uuid or gpu.pci_address: gpu for gpu in devices.gpus}
    assert len(gpus) == 3
    broken = gpus.pop(B.pci_address if field == "uuid" else B.uuid)
    assert broken.problem == problem
    lost = {name for name in ("pci_address", "uuid", "name", "vram_bytes") if getattr(broken, name) is None}
    assert lost == {field}
    assert all(gpu.problem is None and gpu.driver == DRIVER for gpu in gpus.values())
    assert [gpu.name for gpu in gpus.values()] == [A.name, C.name]
    assert devices.findings == ()


def test_a_card_that_cannot_be_opened_is_listed_by_its_place_on_the_bus(machine: Machine) -> None:
    for card in (A, B, C):
        machine.plug_nvidia(card.pci_address)
    machine.show(A, B, C, rules=(f"fail DeviceGetHandleByIndex 1 {GPU_IS_LOST}",))
    good, broken, other = machine.detect().gpus
    assert (good, other) == (gpu_of(0, A), gpu_of(2, C))
    assert (broken.pci_address, broken.uuid, broken.vram_bytes) == (B.pci_address, None, None)
    assert broken.problem == "card: GPU is lost (NVML error 15)"


def test_a_card_that_cannot_be_opened_is_counted_where_sysfs_shows_nothing(machine: Machine) -> None:
    machine.show(A, B, rules=(f"fail DeviceGetHandleByIndex 0 {NO_PERMISSION}",))
    good, broken = machine.detect().gpus
    assert good == gpu_of(0, B)
    assert (broken.index, broken.pci_address, broken.name) == (1, None, None)
    assert broken.problem == "card: Insufficient Permissions (NVML error 4)"


def test_the_one_card_without_address_is_the_one_left_on_the_bus(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.plug_nvidia(B.pci_address)
    machine.show(A, B, rules=(f"fail DeviceGetPciInfo 1 {UNKNOWN}",))
    good, placed = machine.detect().gpus
    assert good == gpu_of(0, A)
    assert (placed.uuid, placed.pci_address) == (B.uuid, B.pci_address)
    assert placed.problem is not None
    assert placed.problem.endswith("PCI address taken from sysfs")


def test_cards_that_cannot_be_told_apart_are_neither_placed_nor_listed_twice(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.plug_nvidia(B.pci_address)
    machine.show(A, B, rules=(f"fail DeviceGetPciInfo * {UNKNOWN}",))
    gpus = machine.detect().gpus
    assert [(gpu.uuid, gpu.pci_address) for gpu in gpus] == [(A.uuid, None), (B.uuid, None)]
    assert all("one of 0000:01:00.0, 0000:02:00.0" in (gpu.problem or "") for gpu in gpus)


def test_a_lost_driver_version_is_taken_from_the_kernel(machine: Machine) -> None:
    machine.load_nvidia_driver("535.161.08")
    machine.show(A, rules=(f"fail SystemGetDriverVersion * {UNKNOWN}",))
    (gpu,) = machine.detect().gpus
    assert (gpu.driver, gpu.vram_bytes) == ("535.161.08", A.vram_bytes)
    assert gpu.problem == "driver version: Unknown Error (NVML error 999)"


def test_what_a_driver_says_cannot_steer_a_terminal(machine: Machine) -> None:
    name = "NVIDIA\x1b[31m Evil\u202e " + "x" * 30
    machine.show(StubCard(A.pci_address, A.vram_bytes, A.uuid, name))
    (gpu,) = machine.detect().gpus
    assert gpu.name == "NVIDIA [31m Evil " + "x" * 30


def test_a_name_that_is_not_text_is_a_problem_of_that_card_alone(machine: Machine) -> None:
    machine.show(StubCard(A.pci_address, A.vram_bytes, A.uuid, "caf\udce9"), B)
    broken, good = machine.detect().gpus
    assert (broken.name, broken.uuid) == (None, A.uuid)
    assert broken.problem == "name: the driver's answer is not text"
    assert good == gpu_of(1, B)


def test_vram_beyond_reason_is_not_passed_on(machine: Machine) -> None:
    machine.show(StubCard(A.pci_address, 2**64 - 1, A.uuid, A.name))
    (gpu,) = machine.detect().gpus
    assert gpu.vram_bytes is None
    assert gpu.problem == f"VRAM: {2**64 - 1} bytes is not a possible value"


# No cards from NVML, and why


def test_a_machine_without_nvidia_has_nothing_to_report(machine: Machine) -> None:
    devices = machine.detect()
    assert devices.gpus == ()
    assert devices.findings == ()


@pytest.mark.parametrize("kernel_driver", [None, "nouveau"])
def test_a_card_without_nvidias_driver_is_listed_and_no_driver_is_said(
    machine: Machine, kernel_driver: str | None
) -> None:
    machine.plug_nvidia(A.pci_address, driver=kernel_driver)
    devices = machine.detect()
    assert codes_of(devices) == ["no-driver"]
    (gpu,) = devices.gpus
    assert (gpu.pci_address, gpu.vendor, gpu.driver) == (A.pci_address, "nvidia", kernel_driver)
    assert (gpu.uuid, gpu.vram_bytes) == (None, None)
    assert gpu.problem is not None


def _library_is_installed() -> bool:
    try:
        ctypes.CDLL(LIBRARY)
    except OSError:
        return False
    return True


def _lose_library(machine: Machine, directory: Path, how: str) -> Machine:
    if how == "missing" and _library_is_installed():
        pytest.skip(f"this computer has a {LIBRARY} of its own")
    directory.mkdir()
    if how == "damaged":
        (directory / LIBRARY).write_bytes(b"no library")
    return Machine(machine.root, directory, machine.config)


@pytest.mark.parametrize("how", ["missing", "damaged"])
def test_a_lost_library_is_told_from_a_lost_driver(machine: Machine, tmp_path: Path, how: str) -> None:
    machine = _lose_library(machine, tmp_path / "empty", how)
    # Without the library its Python module, which takes long to import, is of no use.
    answer, imported = machine.run("detect()\ntell('pynvml' in sys.modules)")
    assert (codes_of(answer_of(answer).devices), imported) == ([], False)
    machine.plug_nvidia(A.pci_address)
    assert codes_of(machine.detect()) == ["no-driver"]
    machine.load_nvidia_driver()
    devices = machine.detect()
    assert codes_of(devices) == ["library-missing"]
    assert LIBRARY in devices.findings[0].detail
    assert [(gpu.pci_address, gpu.driver) for gpu in devices.gpus] == [(A.pci_address, DRIVER)]


def test_a_missing_module_is_never_taken_for_a_missing_driver(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.show(A)
    devices = machine.detect("sys.modules['pynvml'] = None")
    assert codes_of(devices) == ["module-missing"]
    assert [gpu.pci_address for gpu in devices.gpus] == [A.pci_address]
    assert devices.gpus[0].problem == "the Python module pynvml is missing"


@pytest.mark.parametrize("code", [DRIVER_NOT_LOADED, UNKNOWN])
def test_a_loaded_driver_without_its_nodes_is_no_access(machine: Machine, code: int) -> None:
    machine.load_nvidia_driver()
    machine.plug_nvidia(A.pci_address)
    machine.show(A, rules=(f"fail Init * {code}",))
    devices = machine.detect()
    assert codes_of(devices) == ["no-access"]
    assert "no /dev/nvidiactl" in devices.findings[0].detail
    assert [(gpu.pci_address, gpu.driver) for gpu in devices.gpus] == [(A.pci_address, DRIVER)]


def test_a_node_that_may_not_be_opened_is_no_access_and_named(open_machine: Machine) -> None:
    open_machine.load_nvidia_driver()
    for node, mode in (("dev/nvidiactl", 0o666), ("dev/nvidia0", 0)):
        open_machine.write(node, "")
        (open_machine.root / node).chmod(mode)
    open_machine.show(A, rules=(f"fail Init * {DRIVER_NOT_LOADED}",))
    drop_root = "import pynvml\nif os.geteuid() == 0: os.setresuid(65534, 65534, 65534)"
    devices = open_machine.detect(drop_root)
    assert codes_of(devices) == ["no-access"]
    assert "may not open /dev/nvidia0 (" in devices.findings[0].detail


@pytest.mark.parametrize("node", ["dev/dxg", "dev/nvmap", "dev/nvhost-ctrl-gpu", "dev/nvgpu/igpu0/ctrl"])
def test_a_node_of_wsl2s_or_a_jetsons_that_a_cgroup_denies_is_named(open_machine: Machine, node: str) -> None:
    open_machine.write(node, "")
    (open_machine.root / node).chmod(0)
    open_machine.show(A, rules=(f"fail Init * {OPERATING_SYSTEM}",))
    drop_root = "import pynvml\nif os.geteuid() == 0: os.setresuid(65534, 65534, 65534)"
    devices = open_machine.detect(drop_root)
    assert codes_of(devices) == ["no-access"]
    assert devices.findings[0].detail.endswith(f"this user or unit may not open /{node}")


def test_a_driver_that_fails_though_its_nodes_are_open_is_not_no_access(machine: Machine) -> None:
    machine.load_nvidia_driver()
    machine.write("dev/nvidiactl", "")
    assert codes_of(machine.detect()) == ["nvml-failed"]


def test_a_refusal_of_nvml_is_no_access(machine: Machine) -> None:
    machine.show(A, rules=(f"fail Init * {NO_PERMISSION}",))
    assert codes_of(machine.detect()) == ["no-access"]


@pytest.mark.parametrize("code", [MISMATCH, FUNCTION_NOT_FOUND])
def test_a_driver_that_does_not_match_its_library_is_told_with_its_version(
    machine: Machine, code: int
) -> None:
    machine.load_nvidia_driver("535.161.08")
    machine.plug_nvidia(A.pci_address)
    machine.show(A, rules=(f"fail Init * {code}",))
    devices = machine.detect()
    assert codes_of(devices) == ["driver-mismatch"]
    assert "535.161.08" in devices.findings[0].detail
    assert devices.gpus[0].problem == "NVIDIA's driver and library do not match"


@pytest.mark.parametrize("call", ["Init", "DeviceGetCount"])
def test_a_failure_without_a_name_of_ours_keeps_nvmls_words(machine: Machine, call: str) -> None:
    machine.show(A, rules=(f"fail {call} * {GPU_IS_LOST}",))
    (finding,) = machine.detect().findings
    assert finding.code == "nvml-failed"
    assert finding.detail == f"NVML failed: nvml{call}: GPU is lost (NVML error 15)"


def test_a_failing_shutdown_takes_nothing_from_what_was_read(machine: Machine) -> None:
    machine.show(A, rules=(f"fail Shutdown * {UNKNOWN}",))
    devices = machine.detect()
    assert devices.gpus == (gpu_of(0, A),)
    assert devices.findings == ()


def test_a_card_of_another_kernel_driver_says_why_nvml_does_not_show_it(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.plug_nvidia(B.pci_address, driver="vfio-pci")
    machine.show(A)
    shown, passed_through = machine.detect().gpus
    assert shown == gpu_of(0, A)
    assert (passed_through.pci_address, passed_through.driver) == (B.pci_address, "vfio-pci")
    assert "another kernel driver" in (passed_through.problem or "")
