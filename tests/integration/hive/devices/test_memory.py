"""Whose memory a card computes in."""

from __future__ import annotations

import pytest

from rbee.hive.devices.sensors import Sensors
from tests.unit.hive.devices.machine import Machine


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


def test_an_mi300a_for_which_nothing_is_set_aside_shares_the_machines_memory(machine: Machine) -> None:
    # What the kernel's amdgpu makes of one: no vddnb, which other APUs have, no edge temperature, no VRAM.
    machine.plug(
        "0000:01:00.0",
        "1002",
        "74a0",
        code="0x120000",
        driver="amdgpu",
        mem_info_vram_total="0",
        mem_info_vram_used="0",
        mem_info_gtt_total=str(126 * 2**30),
        mem_info_gtt_used=str(3 * 2**30),
        hwmon__hwmon5__temp2_input="41000",
    )
    (gpu,) = machine.detect().gpus
    assert (gpu.memory_kind, gpu.vram_bytes, gpu.shared_memory_bytes) == ("shared", None, 126 * 2**30)
    assert (gpu.memory_bytes, gpu.problem) == (126 * 2**30, None)
    sample = Sensors(machine.root).read("0000:01:00.0")
    assert (sample.memory_used_bytes, sample.memory_total_bytes) == (3 * 2**30, 126 * 2**30)
    assert sample.temperature_celsius == 41.0


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
