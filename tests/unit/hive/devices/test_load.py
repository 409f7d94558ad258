"""How busy the machine is, by what /proc says at two moments."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from rbee.hive.devices.load import READINGS_MAX, CpuMeter, load_averages, memory


class Proc:
    """A /proc under a root, and a clock."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.now = 100.0
        (root / "proc").mkdir()
        self.meter = CpuMeter(root, clock=lambda: self.now)

    def write(self, name: str, text: str) -> None:
        (self.root / "proc" / name).write_text(text)

    def ticks(self, busy: int, idle: int) -> None:
        """Two thirds of the busy ticks as the user's, the rest as interrupts; idle with some iowait."""
        user, waiting = busy * 2 // 3, idle // 10
        numbers = (user, 0, 0, idle - waiting, waiting, 0, busy - user, 0, user, 0)
        self.write("stat", f"cpu  {' '.join(map(str, numbers))}\ncpu0 1 2 3 4\nintr 99 0\n")


@pytest.fixture
def proc(tmp_path: Path) -> Proc:
    return Proc(tmp_path)


def test_load_averages_are_the_kernels(proc: Proc) -> None:
    proc.write("loadavg", "12.50 3.25 0.00 7/1234 99999\n")

    assert load_averages(proc.root) == (12.5, 3.25, 0.0)


@pytest.mark.parametrize("text", ["", "nan -1 many 1/2 3\n", "inf -inf x\n", "1e10 1e300 1e999\n"])
def test_a_load_that_is_no_number_is_not_known(proc: Proc, text: str) -> None:
    proc.write("loadavg", text)

    assert load_averages(proc.root) == (None, None, None)


def test_used_memory_is_what_no_program_could_have(proc: Proc) -> None:
    proc.write("meminfo", "MemTotal:  1000 kB\nMemFree:  100 kB\nMemAvailable:  300 kB\nHugePages_Total: 0\n")

    assert memory(proc.root) == (700 * 1024, 1000 * 1024)


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("MemTotal: 1000 kB\nMemFree: 100 kB\n", (None, 1000 * 1024)),
        ("MemAvailable: 1000 kB\n", (None, None)),
        ("MemTotal: 10 kB\nMemAvailable: 11 kB\n", (0, 10 * 1024)),
        ("MemTotal: 99999999999999 kB\n", (None, None)),
        ("", (None, None)),
    ],
)
def test_memory_that_the_kernel_does_not_tell_is_not_known(
    proc: Proc, text: str, told: tuple[int | None, int | None]
) -> None:
    proc.write("meminfo", text)

    assert memory(proc.root) == told


@pytest.mark.parametrize("digits", [20, 5000])
def test_ticks_that_no_kernel_counts_are_not_known(proc: Proc, digits: int) -> None:
    proc.write("stat", f"cpu  {' '.join(['9' * digits] * 8)}\n")

    proc.meter.note()
    proc.now += 1

    assert proc.meter.look() == (None, None)


def test_a_machine_without_proc_tells_nothing(tmp_path: Path) -> None:
    meter = CpuMeter(tmp_path)
    meter.note()

    assert load_averages(tmp_path) == (None, None, None)
    assert memory(tmp_path) == (None, None)
    assert meter.look() == (None, None)


def test_this_machine_tells_all_of_it() -> None:
    root, now = Path("/"), 0.0
    meter = CpuMeter(root, clock=lambda: now)
    meter.note()
    before = os.times()
    while sum(os.times()[:2]) - sum(before[:2]) < 0.1:
        sum(range(10_000))
    now = 1.0
    percent, span = meter.look()

    assert percent is not None
    assert 0 < percent <= 100
    assert span == 1.0
    assert None not in load_averages(root)
    used, total = memory(root)
    assert used is not None
    assert total is not None
    assert 0 < used < total


def test_the_share_is_that_of_all_cpus_between_two_readings(proc: Proc) -> None:
    proc.ticks(busy=1000, idle=9000)
    proc.meter.note()
    proc.now += 15
    proc.ticks(busy=1000 + 300, idle=9000 + 900)

    assert proc.meter.look() == (25.0, 15.0)


def test_guests_are_not_counted_twice(proc: Proc) -> None:
    proc.write("stat", "cpu 0 0 0 0 0 0 0 0 0 0\n")
    proc.meter.note()
    proc.now += 1
    proc.write("stat", "cpu 50 0 0 50 0 0 0 0 50 0\n")

    assert proc.meter.look() == (50.0, 1.0)


def test_the_first_look_of_all_has_nothing_to_compare_with(proc: Proc) -> None:
    proc.ticks(busy=10, idle=10)

    assert proc.meter.look() == (None, None)


def test_a_look_compares_with_the_youngest_reading_that_is_old_enough(proc: Proc) -> None:
    for at, busy in ((0.0, 0), (10.0, 100), (10.4, 180)):
        proc.now = 100 + at
        proc.ticks(busy, idle=round(100 * at))
        proc.meter.note()
    proc.now = 110.75
    proc.ticks(busy=180, idle=1075)

    assert proc.meter.look() == (round(100 * 80 / (80 + 75), 1), 0.75)


def test_looks_are_compared_with_each_other(proc: Proc) -> None:
    proc.ticks(busy=0, idle=0)
    proc.meter.look()
    proc.now += 2
    proc.ticks(busy=200, idle=0)
    assert proc.meter.look() == (100.0, 2.0)
    proc.now += 2
    proc.ticks(busy=200, idle=200)
    assert proc.meter.look() == (0.0, 2.0)


def test_who_looks_all_the_time_still_has_something_to_compare_with(proc: Proc) -> None:
    proc.ticks(busy=0, idle=0)
    proc.meter.note()
    for hundredth in range(1, 500):
        proc.now = 100 + hundredth / 100
        proc.ticks(busy=hundredth, idle=0)
        percent, span = proc.meter.look()
        if hundredth > 50:
            assert percent == 100.0
            assert span is not None
            assert 0.5 <= span < 1
    assert len(proc.meter._kept) <= READINGS_MAX


def test_counters_that_run_backwards_give_no_share_that_cannot_be(proc: Proc) -> None:
    proc.write("stat", "cpu 100 0 0 100 100 0 0 0\n")
    proc.meter.note()
    proc.now += 1
    proc.write("stat", "cpu 200 0 0 100 90 0 0 0\n")
    assert proc.meter.look() == (100.0, 1.0)
    proc.now += 1
    proc.write("stat", "cpu 1 0 0 1 1 0 0 0\n")
    assert proc.meter.look() == (None, None)
