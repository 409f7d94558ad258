"""What cards tell by sysfs: trees as amdgpu, i915 and xe make them."""

from __future__ import annotations

from pathlib import Path

import pytest

from rbee.hive.devices.sensors import Sensors, Signs

CARD = "0000:03:00.0"


class Card:
    """A card's folder in sysfs, and a clock."""

    def __init__(self, root: Path) -> None:
        self.now = 100.0
        self.folder = root / "sys/bus/pci/devices" / CARD
        self.folder.mkdir(parents=True)
        self.sensors = Sensors(root, clock=lambda: self.now)

    def write(self, **files: object) -> None:
        """Files by their path, with two underscores for a slash."""
        for name, content in files.items():
            path = self.folder / name.replace("__", "/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(f"{content}\n")

    def read(self) -> Signs:
        return self.sensors.read(CARD)


@pytest.fixture
def card(tmp_path: Path) -> Card:
    return Card(tmp_path)


def test_an_amd_card_tells_all_of_it(card: Card) -> None:
    card.write(
        gpu_busy_percent=87,
        mem_info_vram_used=3 * 2**30,
        mem_info_vram_total=24 * 2**30,
        hwmon__hwmon4__temp1_input=61000,
        hwmon__hwmon4__temp2_input=75000,
        hwmon__hwmon4__power1_average=170_500_000,
        power__runtime_status="active",
    )

    assert card.read() == Signs(87.0, 3 * 2**30, 24 * 2**30, 61.0, 170.5, None)


def test_a_newer_amd_card_tells_the_power_of_the_moment(card: Card) -> None:
    card.write(hwmon__hwmon0__power1_input=45_250_000)

    assert card.read() == Signs(power_watts=45.25)


def test_a_card_that_shares_the_machines_memory_uses_both_parts_of_it(card: Card) -> None:
    card.write(
        hwmon__hwmon4__in1_label="vddnb",
        mem_info_vram_used=2**28,
        mem_info_vram_total=2**29,
        mem_info_gtt_used=20 * 2**30,
        mem_info_gtt_total=96 * 2**30,
    )

    assert card.read() == Signs(memory_used_bytes=20 * 2**30 + 2**28, memory_total_bytes=96 * 2**30 + 2**29)


def test_a_part_that_is_not_told_leaves_the_whole_unknown(card: Card) -> None:
    card.write(hwmon__hwmon4__in1_label="vddnb", mem_info_vram_used=2**28, mem_info_vram_total=2**29)

    assert card.read() == Signs()


def test_what_a_driver_refuses_is_not_known_and_no_problem(card: Card) -> None:
    card.write(gpu_busy_percent=5)
    for name in ("temp1_input", "power1_average"):
        (card.folder / "hwmon/hwmon0" / name).mkdir(parents=True)  # read(2) fails, as for EBUSY

    assert card.read() == Signs(utilisation_percent=5.0)


@pytest.mark.parametrize("text", ["", "N/A", "-1", "101", "1e3", "9" * 16, "9" * 40, "٣"])
def test_a_utilisation_that_cannot_be_is_not_known(card: Card, text: str) -> None:
    card.write(gpu_busy_percent=text)

    assert card.read() == Signs()


def test_a_card_below_freezing_is_told_as_such(card: Card) -> None:
    card.write(hwmon__hwmon0__temp1_input=-5500)

    assert card.read().temperature_celsius == -5.5


@pytest.mark.parametrize("millidegrees", [-273_001, 1_000_001])
def test_a_temperature_that_cannot_be_is_not_known(card: Card, millidegrees: int) -> None:
    card.write(hwmon__hwmon0__temp1_input=millidegrees)

    assert card.read().temperature_celsius is None


def test_an_intel_card_that_counts_its_energy_tells_the_power_since_the_last_look(card: Card) -> None:
    card.write(hwmon__hwmon2__energy1_input=5_000_000, hwmon__hwmon2__temp2_input=48000)
    assert card.read() == Signs(temperature_celsius=48.0)
    card.now += 2
    card.write(hwmon__hwmon2__energy1_input=65_000_000)
    assert card.read() == Signs(temperature_celsius=48.0, power_watts=30.0)
    card.now += 0.1  # too short to tell
    assert card.read().power_watts is None
    card.now += 1.9
    card.write(hwmon__hwmon2__energy1_input=66_000_000)
    assert card.read().power_watts == 0.5


def test_a_counter_of_a_card_that_has_run_for_years_tells_the_power(card: Card) -> None:
    card.write(hwmon__hwmon2__energy1_input=2**63 - 1 - 60_000_000)
    card.read()
    card.now += 2
    card.write(hwmon__hwmon2__energy1_input=2**63 - 1)
    assert card.read().power_watts == 30.0


def test_a_card_that_counts_only_its_packages_energy_tells_power_by_that(card: Card) -> None:
    card.write(hwmon__hwmon2__energy2_input=1_234_567_890_123_456)
    assert card.read() == Signs()
    card.now += 2
    card.write(hwmon__hwmon2__energy2_input=1_234_567_950_123_456)
    assert card.read() == Signs(power_watts=30.0)


def test_the_cards_and_the_packages_energy_are_not_mixed(card: Card) -> None:
    card.write(hwmon__hwmon2__energy1_input=9_000_000_000, hwmon__hwmon2__energy2_input=5_000_000_000)
    card.read()
    (card.folder / "hwmon/hwmon2/energy2_input").write_text("5090000000")
    (card.folder / "hwmon/hwmon2/energy1_input").write_text("refused")
    card.now += 2
    assert card.read().power_watts is None
    card.now += 2
    card.write(hwmon__hwmon2__energy1_input=9_060_000_000)
    assert card.read().power_watts == 15.0


@pytest.mark.parametrize("used", ["-1", str(2**53 + 1), "1" * 40])
def test_memory_that_cannot_be_is_not_known(card: Card, used: str) -> None:
    card.write(mem_info_vram_used=used, mem_info_vram_total=2**53)

    assert card.read() == Signs(memory_total_bytes=2**53)


def test_an_energy_of_long_ago_or_from_before_a_reset_tells_no_power(card: Card) -> None:
    card.write(hwmon__hwmon2__energy1_input=5_000_000)
    card.read()
    card.now += 3600
    card.write(hwmon__hwmon2__energy1_input=6_000_000)
    assert card.read().power_watts is None
    card.now += 1
    card.write(hwmon__hwmon2__energy1_input=1)
    assert card.read().power_watts is None


@pytest.mark.parametrize("status", ["suspended", "suspending"])
def test_a_card_that_is_asleep_is_not_woken(card: Card, status: str) -> None:
    card.write(power__runtime_status=status, gpu_busy_percent=5, mem_info_vram_used=7)

    assert card.sensors.is_asleep(CARD)
    assert card.read() == Signs(problem="the card is asleep, and is not woken by looking")


def test_a_card_that_was_taken_out_is_gone(card: Card) -> None:
    assert card.sensors.read("0000:04:00.0") == Signs(problem="the card is gone from the PCI bus")
