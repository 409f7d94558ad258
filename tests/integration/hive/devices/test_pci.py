"""Cards of the PCI bus, as sysfs describes them."""

from __future__ import annotations

import shutil

import pytest

from rbee.wire.devices import Gpu
from tests.nvml import StubCard
from tests.unit.hive.devices.cards import codes_of, gpu_of
from tests.unit.hive.devices.machine import A, C, Machine

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
    assert machine.detect().gpus == (gpu_of(0, A),)


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
    assert codes_of(machine.detect()) == ["pci-unreadable"]


def test_more_cards_than_a_list_holds_are_cut_and_told(machine: Machine) -> None:
    machine.show(
        *(StubCard(f"{n // 256:04x}:{n % 256:02x}:00.0", 2**30, f"GPU-{n}", f"card {n}") for n in range(256))
    )
    machine.plug("0001:00:00.0", "8086", "56a0")
    devices = machine.detect()
    assert [gpu.vendor for gpu in devices.gpus] == ["nvidia"] * 256
    assert codes_of(devices) == ["too-many-gpus"]


def test_a_count_that_a_broken_driver_makes_up_is_bounded(machine: Machine) -> None:
    machine.show(
        *(StubCard(f"0000:{n % 256:02x}:{n // 256:02x}.0", 1, f"GPU-{n}", "card") for n in range(300))
    )
    devices = machine.detect()
    assert len(devices.gpus) == 256
    assert codes_of(devices) == ["nvml-failed"]
    assert "300" in devices.findings[0].detail
