"""Detection, on fake filesystem roots, with the real pynvml over a stub of NVIDIA's library."""

from __future__ import annotations

import ctypes
import os
import random
import shutil
import time
from pathlib import Path

import pytest

from rbee.hive.devices.text import printable
from rbee.wire.devices import Devices, Gpu
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
from tests.unit.hive.machine import DRIVER, A, B, C, Machine, answer_of


def _gpu(index: int, card: StubCard) -> Gpu:
    return Gpu(
        index=index,
        vendor="nvidia",
        name=card.name,
        uuid=card.uuid,
        vram_bytes=card.vram_bytes,
        driver=DRIVER,
        pci_address=card.pci_address,
        memory_kind="dedicated",
    )


def _codes(devices: Devices) -> list[str]:
    return [finding.code for finding in devices.findings]


# NVIDIA's cards


def test_a_driver_without_cards_shows_none(machine: Machine) -> None:
    machine.show()
    devices = machine.detect()
    assert devices.gpus == ()
    assert devices.findings == ()


def test_one_card_is_shown_whole(machine: Machine) -> None:
    machine.show(A)
    devices = machine.detect()
    assert devices.gpus == (_gpu(0, A),)
    assert devices.findings == ()


def test_cards_are_numbered_by_pci_address_and_not_by_nvml(machine: Machine) -> None:
    machine.show(C, A)
    assert machine.detect().gpus == (_gpu(0, A), _gpu(1, C))


@pytest.mark.parametrize("seed", range(3))
def test_cards_drawn_at_random_are_shown_exactly(machine: Machine, seed: int) -> None:
    cards = random_cards(random.Random(seed))
    machine.show(*cards)
    assert machine.detect().gpus == tuple(_gpu(index, card) for index, card in enumerate(cards))


def test_a_card_seen_by_nvml_and_sysfs_is_listed_once(machine: Machine) -> None:
    machine.load_nvidia_driver()
    machine.plug_nvidia(A.pci_address)
    machine.plug_nvidia(B.pci_address)
    machine.show(A, B)
    assert machine.detect().gpus == (_gpu(0, A), _gpu(1, B))


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
    assert machine.detect().gpus == (_gpu(0, A),)


def test_each_look_asks_nvml_anew(machine: Machine, tmp_path: Path) -> None:
    later = tmp_path / "later"
    machine.show(A)
    write_cards(later, [B], driver=DRIVER)
    replace = f"os.replace({str(later)!r}, os.environ['RBEE_NVML_STUB'])"
    first, second = machine.answers(f"detect()\n{replace}\ndetect()")
    assert first.devices.gpus == (_gpu(0, A),)
    assert second.devices.gpus == (_gpu(0, B),)


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
    assert (good, other) == (_gpu(0, A), _gpu(2, C))
    assert (broken.pci_address, broken.uuid, broken.vram_bytes) == (B.pci_address, None, None)
    assert broken.problem == "card: GPU is lost (NVML error 15)"


def test_a_card_that_cannot_be_opened_is_counted_where_sysfs_shows_nothing(machine: Machine) -> None:
    machine.show(A, B, rules=(f"fail DeviceGetHandleByIndex 0 {NO_PERMISSION}",))
    good, broken = machine.detect().gpus
    assert good == _gpu(0, B)
    assert (broken.index, broken.pci_address, broken.name) == (1, None, None)
    assert broken.problem == "card: Insufficient Permissions (NVML error 4)"


def test_the_one_card_without_address_is_the_one_left_on_the_bus(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.plug_nvidia(B.pci_address)
    machine.show(A, B, rules=(f"fail DeviceGetPciInfo 1 {UNKNOWN}",))
    good, placed = machine.detect().gpus
    assert good == _gpu(0, A)
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
    assert good == _gpu(1, B)


def test_vram_beyond_reason_is_not_passed_on(machine: Machine) -> None:
    machine.show(StubCard(A.pci_address, 2**64 - 1, A.uuid, A.name))
    (gpu,) = machine.detect().gpus
    assert gpu.vram_bytes is None
    assert gpu.problem == f"VRAM: {2**64 - 1} bytes cannot be"


def test_text_is_one_line_of_bounded_length_whether_bytes_or_str() -> None:
    assert printable(b" Tesla\tT4\x00\n") == "Tesla T4"
    assert printable("x" * 1000) == "x" * 256
    assert printable(b"\xff\x07") == "\N{REPLACEMENT CHARACTER}"
    assert printable(b"\x07 ") is None


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
    assert _codes(devices) == ["no-driver"]
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
    assert _codes(machine.detect()) == []
    machine.plug_nvidia(A.pci_address)
    assert _codes(machine.detect()) == ["no-driver"]
    machine.load_nvidia_driver()
    devices = machine.detect()
    assert _codes(devices) == ["library-missing"]
    assert LIBRARY in devices.findings[0].detail
    assert [(gpu.pci_address, gpu.driver) for gpu in devices.gpus] == [(A.pci_address, DRIVER)]


def test_a_missing_module_is_never_taken_for_a_missing_driver(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.show(A)
    devices = machine.detect("sys.modules['pynvml'] = None")
    assert _codes(devices) == ["module-missing"]
    assert [gpu.pci_address for gpu in devices.gpus] == [A.pci_address]
    assert devices.gpus[0].problem == "the Python module pynvml is missing"


@pytest.mark.parametrize("code", [DRIVER_NOT_LOADED, UNKNOWN])
def test_a_loaded_driver_without_its_nodes_is_no_access(machine: Machine, code: int) -> None:
    machine.load_nvidia_driver()
    machine.plug_nvidia(A.pci_address)
    machine.show(A, rules=(f"fail Init * {code}",))
    devices = machine.detect()
    assert _codes(devices) == ["no-access"]
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
    assert _codes(devices) == ["no-access"]
    assert "may not open /dev/nvidia0 (" in devices.findings[0].detail


@pytest.mark.parametrize("node", ["dev/dxg", "dev/nvmap", "dev/nvhost-ctrl-gpu", "dev/nvgpu/igpu0/ctrl"])
def test_a_node_of_wsl2s_or_a_jetsons_that_a_cgroup_denies_is_named(open_machine: Machine, node: str) -> None:
    open_machine.write(node, "")
    (open_machine.root / node).chmod(0)
    open_machine.show(A, rules=(f"fail Init * {OPERATING_SYSTEM}",))
    drop_root = "import pynvml\nif os.geteuid() == 0: os.setresuid(65534, 65534, 65534)"
    devices = open_machine.detect(drop_root)
    assert _codes(devices) == ["no-access"]
    assert devices.findings[0].detail.endswith(f"this user or unit may not open /{node}")


def test_a_driver_that_fails_though_its_nodes_are_open_is_not_no_access(machine: Machine) -> None:
    machine.load_nvidia_driver()
    machine.write("dev/nvidiactl", "")
    assert _codes(machine.detect()) == ["nvml-failed"]


def test_a_refusal_of_nvml_is_no_access(machine: Machine) -> None:
    machine.show(A, rules=(f"fail Init * {NO_PERMISSION}",))
    assert _codes(machine.detect()) == ["no-access"]


@pytest.mark.parametrize("code", [MISMATCH, FUNCTION_NOT_FOUND])
def test_a_driver_that_does_not_match_its_library_is_told_with_its_version(
    machine: Machine, code: int
) -> None:
    machine.load_nvidia_driver("535.161.08")
    machine.plug_nvidia(A.pci_address)
    machine.show(A, rules=(f"fail Init * {code}",))
    devices = machine.detect()
    assert _codes(devices) == ["driver-mismatch"]
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
    assert devices.gpus == (_gpu(0, A),)
    assert devices.findings == ()


def test_a_card_of_another_kernel_driver_says_why_nvml_does_not_show_it(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    machine.plug_nvidia(B.pci_address, driver="vfio-pci")
    machine.show(A)
    shown, passed_through = machine.detect().gpus
    assert shown == _gpu(0, A)
    assert (passed_through.pci_address, passed_through.driver) == (B.pci_address, "vfio-pci")
    assert "another kernel driver" in (passed_through.problem or "")


# Calls that do not come back


@pytest.mark.parametrize(
    "call", ["Init", "SystemGetDriverVersion", "DeviceGetCount", "DeviceGetName", "Shutdown"]
)
def test_a_hanging_call_holds_up_neither_detection_nor_exit(machine: Machine, call: str) -> None:
    machine.show(A, rules=(f"hang {call} *",))
    (answer,) = machine.answers("import pynvml\ndetect()", nvml_timeout=0.5)
    exit_took = time.monotonic() - answer.ended
    assert _codes(answer.devices) == ["timeout"]
    assert f"nvml{call}" in answer.devices.findings[0].detail
    assert answer.took < 1.5
    assert exit_took < 3


def test_a_hanging_card_leaves_the_ones_before_it_whole(machine: Machine) -> None:
    for card in (A, B, C):
        machine.plug_nvidia(card.pci_address)
    machine.show(A, B, C, rules=("hang DeviceGetName 1",))
    (answer,) = machine.answers("import pynvml\ndetect()", nvml_timeout=1)
    first, hung, unasked = answer.devices.gpus
    assert first == _gpu(0, A)
    assert (hung.uuid, hung.name, hung.pci_address) == (B.uuid, None, B.pci_address)
    assert hung.problem == "NVML did not answer in time"
    assert (unasked.pci_address, unasked.uuid) == (C.pci_address, None)
    assert unasked.problem == "NVML did not answer in time"
    assert _codes(answer.devices) == ["timeout"]


def test_detections_of_a_wedged_driver_do_not_pile_up_threads(machine: Machine) -> None:
    machine.show(A, rules=("hang DeviceGetCount *",))
    script = "for _ in range(4): detect()\ntell(sorted(thread.name for thread in threading.enumerate()))"
    *answers, threads = machine.run(script, nvml_timeout=0.1)
    assert [_codes(answer_of(said).devices) for said in answers] == [["timeout"]] * 4
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
    assert (_codes(late.devices), late.devices.gpus) == (["timeout"], ())
    assert (_codes(reused.devices), reused.devices.gpus) == ([], (_gpu(0, A),))
    assert fresh.devices.gpus == (_gpu(0, B),)


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
    assert _codes(waiting.devices) == ["interrupted"]
    assert _codes(after.devices) == ["interrupted"]


# Other cards


PCI_IDS = """\
# a comment
1002  Advanced Micro Devices, Inc. [AMD/ATI]
\t744c  Navi 31 [Radeon RX 7900 XT/7900 XTX]
\t\t1002 0e3b  RX 7900 GRE
10de  NVIDIA Corporation
\t2684  AD102 [GeForce RTX 4090]
8086  Intel Corporation
\t56a0  DG2 [Arc A770]
C 03  Display controller
\t00  VGA compatible controller
"""


def test_an_amd_card_is_named_and_measured_from_sysfs(machine: Machine) -> None:
    machine.plug(
        "0000:03:00.0",
        "1002",
        "740f",
        code="0x038000",
        driver="amdgpu",
        product_name="AMD Instinct MI210",
        mem_info_vram_total="68702699520",
    )
    assert machine.detect().gpus == (
        Gpu(0, "amd", "AMD Instinct MI210", None, 68702699520, "amdgpu", "0000:03:00.0", None, "dedicated"),
    )


def test_a_card_that_is_built_into_a_processor_says_what_it_may_use_of_the_machines_memory(
    machine: Machine,
) -> None:
    # A Strix Halo with 128 GiB, 512 MiB of it set aside by the firmware.
    machine.plug(
        "0000:c3:00.0",
        "1002",
        "1586",
        code="0x038000",
        driver="amdgpu",
        product_name="Radeon 8060S Graphics",
        mem_info_vram_total=str(512 * 2**20),
        mem_info_gtt_total=str(96 * 2**30),
        hwmon__hwmon5__in1_label="vddnb",
    )
    (gpu,) = machine.detect().gpus
    assert (gpu.memory_kind, gpu.vram_bytes, gpu.shared_memory_bytes) == ("shared", 2**29, 96 * 2**30)
    assert gpu.memory_bytes == 96 * 2**30 + 2**29
    assert gpu.problem is None


def test_the_gtt_of_a_card_with_memory_of_its_own_is_not_its_memory(machine: Machine) -> None:
    machine.plug(
        "0000:03:00.0",
        "1002",
        "744c",
        driver="amdgpu",
        mem_info_vram_total=str(24 * 2**30),
        mem_info_gtt_total=str(64 * 2**30),
        hwmon__hwmon5__in0_label="vddgfx",
    )
    (gpu,) = machine.detect().gpus
    assert (gpu.memory_kind, gpu.shared_memory_bytes, gpu.memory_bytes) == ("dedicated", None, 24 * 2**30)


@pytest.mark.parametrize(
    ("address", "driver", "files", "kind"),
    [
        ("0000:00:02.0", "i915", {}, "shared"),
        ("0000:00:02.0", "xe", {}, "shared"),
        ("0000:03:00.0", "xe", {"hwmon__hwmon2__energy1_input": "1"}, "dedicated"),
        ("0000:03:00.0", "i915", {}, None),  # before 6.2 there are no sensors
        ("0000:00:02.0", "vfio-pci", {}, None),
    ],
)
def test_intels_cards_have_no_problem_and_say_whose_memory_they_have(
    machine: Machine, address: str, driver: str, files: dict[str, str], kind: str | None
) -> None:
    machine.plug(address, "8086", "56a0", driver=driver, **files)
    (gpu,) = machine.detect().gpus
    assert (gpu.memory_kind, gpu.vram_bytes, gpu.problem) == (kind, None, None)


def test_a_card_that_no_driver_has_taken_says_so(machine: Machine) -> None:
    machine.plug("0000:03:00.0", "1002", "744c")
    (gpu,) = machine.detect().gpus
    assert (gpu.driver, gpu.problem) == (None, "no kernel driver is bound to it")


@pytest.mark.parametrize("place", ["usr/share/misc/pci.ids", "usr/share/hwdata/pci.ids"])
def test_cards_that_do_not_name_themselves_are_named_by_pci_ids(machine: Machine, place: str) -> None:
    machine.write(place, PCI_IDS)
    machine.plug("0000:00:02.0", "8086", "56a0", driver="i915")
    machine.plug("0000:03:00.0", "1002", "744c", driver="amdgpu", label="slot 3")
    machine.plug_nvidia("0000:04:00.0", driver=None)
    assert [(gpu.vendor, gpu.name) for gpu in machine.detect().gpus] == [
        ("intel", "DG2 [Arc A770]"),
        ("amd", "Navi 31 [Radeon RX 7900 XT/7900 XTX]"),
        ("nvidia", "AD102 [GeForce RTX 4090]"),
    ]


@pytest.mark.parametrize("between", ["# a comment", "", " ", "#\t744c  Not this one"])
def test_a_comment_or_an_empty_line_does_not_end_a_vendors_block(machine: Machine, between: str) -> None:
    machine.write("usr/share/misc/pci.ids", f"1002  AMD\n{between}\n\t744c  Navi 31\n")
    machine.plug("0000:03:00.0", "1002", "744c", driver="amdgpu")
    (gpu,) = machine.detect().gpus
    assert gpu.name == "Navi 31"


def test_a_name_that_one_pci_ids_lacks_is_looked_up_in_the_other(machine: Machine) -> None:
    machine.write("usr/share/misc/pci.ids", "1002  AMD\n\t740f  Aldebaran\n")
    machine.write("usr/share/hwdata/pci.ids", "1002  AMD\n\t740f  Not this one\n\t744c  Navi 31\n")
    machine.plug("0000:03:00.0", "1002", "740f", driver="amdgpu")
    machine.plug("0000:04:00.0", "1002", "744c", driver="amdgpu")
    assert [gpu.name for gpu in machine.detect().gpus] == ["Aldebaran", "Navi 31"]


def test_a_card_that_nothing_names_has_its_firmwares_label_or_no_name(machine: Machine) -> None:
    machine.plug("0000:00:02.0", "8086", "56a0", driver="i915", label="Onboard IGD")
    machine.plug("10000:05:00.0", "1ed5", "0101")
    labelled, unknown = machine.detect().gpus
    assert (labelled.name, labelled.problem) == ("Onboard IGD", None)
    assert unknown == Gpu(
        1, "1ed5", None, None, None, None, "10000:05:00.0", "no kernel driver is bound to it"
    )


def test_only_what_can_compute_is_listed(machine: Machine) -> None:
    machine.plug("0000:00:01.0", "1234", "1111", driver="bochs-drm")
    machine.plug("0000:00:02.0", "1af4", "1050", driver="virtio-pci")
    machine.plug("0000:00:03.0", "1a03", "2000", driver="ast")
    machine.plug("0000:00:04.0", "15ad", "0405", driver="vmwgfx")
    machine.plug("0000:00:05.0", "1b36", "0100", driver="qxl")
    machine.plug("0000:00:06.0", "1002", "515e")
    machine.plug("0000:00:07.0", "8086", "15b8", code="0x020000", driver="e1000e")
    machine.plug("0000:00:08.0", "1da3", "1000", code="0x120000", driver="habanalabs")
    machine.plug("0000:00:09.0", "1002", "74a1", code="0x120000", driver="amdgpu")
    machine.plug("0000:00:0a.0", "8086", "56c0", driver="i915", physfn="")
    assert [gpu.pci_address for gpu in machine.detect().gpus] == ["0000:00:09.0"]


GHOSTS = {
    "WSL2's, beside the real card": ("1414", "008e", "0x030200", "dxgkrnl"),
    "bhyve's": ("fb5d", "40fb", "0x030000", None),
    "Loongson's display controller": ("0014", "7a36", "0x030000", None),
    "Phytium's display controller": ("1db7", "dc3e", "0x038000", None),
    "a server's Rage XL": ("1002", "4752", "0x030000", None),
}


@pytest.mark.parametrize("ghost", GHOSTS.values(), ids=GHOSTS)
def test_what_only_shows_a_picture_is_no_gpu_beside_a_real_one(
    machine: Machine, ghost: tuple[str, str, str, str | None]
) -> None:
    vendor, device, code, driver = ghost
    machine.plug("0000:00:06.1", vendor, device, code=code, driver=driver)
    machine.show(A)  # which WSL2's PCI bus does not have
    assert machine.detect().gpus == (_gpu(0, A),)


@pytest.mark.parametrize("vendor", ["cafe", "1002", "8086"])
@pytest.mark.parametrize(
    ("nodes", "is_listed"),
    [
        (("drm/card0", "drm/card0-HDMI-A-1"), False),  # loongson, phytium-dc, ast, gma500: modes and no more
        (("graphics/fb0",), False),  # atyfb
        (("drm/card0", "drm/renderD128"), True),
        (("drm/card0", "drm/renderD128", "graphics/fb0"), True),
        (("drm/renderD128",), True),  # a driver that is about to add its card
        ((), True),  # and one that has not begun; or one of a maker's that is not of the kernel's DRM
    ],
)
def test_a_driver_that_only_displays_makes_no_gpu(
    machine: Machine, vendor: str, nodes: tuple[str, ...], is_listed: bool
) -> None:
    address = "0000:07:00.0"
    machine.plug(address, vendor, "beef", driver="some-driver")
    for node in nodes:
        (machine.root / "sys/bus/pci/devices" / address / node).mkdir(parents=True)
    assert [gpu.pci_address for gpu in machine.detect().gpus] == [address] * is_listed


def test_a_real_card_is_listed_before_its_driver_is_loaded(machine: Machine) -> None:
    machine.plug_nvidia("0000:01:00.0", driver=None)
    machine.plug("0000:03:00.0", "1002", "744c")
    machine.plug("0000:04:00.0", "1ed5", "0200")
    assert [gpu.driver for gpu in machine.detect().gpus] == [None] * 3


def test_nvidias_card_is_listed_although_its_driver_has_no_render_node(machine: Machine) -> None:
    machine.plug_nvidia(A.pci_address)
    (machine.root / "sys/bus/pci/devices" / A.pci_address / "drm/card0").mkdir(parents=True)
    machine.show()
    assert [gpu.pci_address for gpu in machine.detect().gpus] == [A.pci_address]


def test_cards_of_all_makers_share_one_numbering(machine: Machine) -> None:
    machine.plug("0000:00:02.0", "8086", "56a0", driver="i915")
    machine.plug("0000:41:00.0", "1002", "744c", driver="amdgpu")
    machine.plug_nvidia(A.pci_address)
    machine.show(A, C)
    gpus = machine.detect().gpus
    assert [gpu.index for gpu in gpus] == [0, 1, 2, 3]
    assert [gpu.vendor for gpu in gpus] == ["intel", "nvidia", "amd", "nvidia"]


def test_a_damaged_function_in_sysfs_is_passed_over(machine: Machine) -> None:
    machine.plug("0000:00:02.0", "8086", "56a0", driver="i915", mem_info_vram_total="lots")
    machine.plug("0000:00:03.0", "not hex", "56a0")
    devices = machine.root / "sys/bus/pci/devices"
    shutil.copytree(devices / "0000:00:02.0", devices / "not-an-address", symlinks=True)
    (gpu,) = machine.detect().gpus
    assert (gpu.pci_address, gpu.vram_bytes) == ("0000:00:02.0", None)


def test_a_bus_that_may_not_be_read_is_a_finding(machine: Machine) -> None:
    machine.write("sys/bus/pci/devices", "not a directory")
    assert _codes(machine.detect()) == ["pci-unreadable"]


def test_more_cards_than_a_list_holds_are_cut_and_told(machine: Machine) -> None:
    machine.show(
        *(StubCard(f"{n // 256:04x}:{n % 256:02x}:00.0", 2**30, f"GPU-{n}", f"card {n}") for n in range(256))
    )
    machine.plug("0001:00:00.0", "8086", "56a0")
    devices = machine.detect()
    assert [gpu.vendor for gpu in devices.gpus] == ["nvidia"] * 256
    assert _codes(devices) == ["too-many-gpus"]


def test_a_count_that_a_broken_driver_makes_up_is_bounded(machine: Machine) -> None:
    machine.show(
        *(StubCard(f"0000:{n % 256:02x}:{n // 256:02x}.0", 1, f"GPU-{n}", "card") for n in range(300))
    )
    devices = machine.detect()
    assert len(devices.gpus) == 256
    assert _codes(devices) == ["nvml-failed"]
    assert "300" in devices.findings[0].detail
