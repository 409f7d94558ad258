"""What has changed about a hive's devices, as a person is told."""

from __future__ import annotations

from typing import Any

import pytest

from rbee.queen.hives.describe import CHANGES_MAX, describe, differences
from rbee.wire.devices import Cpu, Devices, Finding, Gpu

CPU = Cpu("Testchip 9", 1, 4, 8, 16 * 2**30)
A6000 = Gpu(0, "nvidia", "NVIDIA RTX A6000", "GPU-a", 48 * 2**30, "550.54", "0000:01:00.0")
T4 = Gpu(1, "nvidia", "Tesla T4", "GPU-t", 15 * 2**30, "550.54", "0000:02:00.0")
NAVI = Gpu(2, "amd", None, None, None, "amdgpu", "0000:03:00.0", "it is asleep")
DEVICES = Devices(CPU, (A6000, T4, NAVI))


def with_gpus(*gpus: Gpu, **changes: Any) -> Devices:
    numbered = tuple(gpu._replace(index=index) for index, gpu in enumerate(gpus))
    return DEVICES._replace(gpus=numbered, **changes)


@pytest.mark.parametrize(
    ("new", "said"),
    [
        (DEVICES, []),
        (with_gpus(T4, NAVI), ["gpu0 (NVIDIA RTX A6000, 48.0 GiB) is gone"]),
        (with_gpus(A6000, T4), ["gpu2 (0000:03:00.0) is gone"]),
        (
            with_gpus(A6000, T4._replace(uuid="GPU-u", pci_address="0000:01:01.0"), T4, NAVI),
            ["gpu1 (Tesla T4, 15.0 GiB) is new"],
        ),
        (
            with_gpus(A6000._replace(uuid="GPU-b"), T4, NAVI),
            ["gpu0 (NVIDIA RTX A6000, 48.0 GiB) is gone", "gpu0 (NVIDIA RTX A6000, 48.0 GiB) is new"],
        ),
        (
            with_gpus(T4, A6000._replace(pci_address="0000:09:00.0"), NAVI),
            ["gpu1: address 0000:01:00.0 -> 0000:09:00.0"],
        ),
        (
            with_gpus(A6000._replace(driver="560.10"), T4._replace(driver="560.10"), NAVI),
            ["driver 550.54 -> 560.10"],
        ),
        (
            with_gpus(A6000._replace(driver="560.10"), T4._replace(driver=None), NAVI),
            ["gpu0: driver 550.54 -> 560.10", "gpu1: driver 550.54 -> unknown"],
        ),
        (
            with_gpus(A6000, T4, NAVI._replace(name="Navi 31", vram_bytes=24 * 2**30, problem=None)),
            [
                "gpu2: name unknown -> Navi 31",
                "gpu2: memory unknown -> 24.0 GiB",
                "gpu2: its problem is over",
            ],
        ),
        # What a hive of an older version has not told is no change, once a newer one does.
        (with_gpus(A6000._replace(memory_kind="dedicated"), T4, NAVI), []),
        (
            with_gpus(A6000, T4, NAVI._replace(memory_kind="shared", shared_memory_bytes=2**34)),
            ["gpu2: memory unknown -> 16.0 GiB shared"],
        ),
        (
            with_gpus(A6000._replace(uuid=None, problem="uuid: GPU is lost (NVML error 15)"), T4, NAVI),
            ["gpu0: uuid: GPU is lost (NVML error 15)"],
        ),
        (
            DEVICES._replace(cpu=CPU._replace(threads=6, ram_bytes=8 * 2**30)),
            ["threads 8 -> 6", "RAM 16.0 GiB -> 8.0 GiB"],
        ),
        (DEVICES._replace(cpu=CPU._replace(ram_bytes=16 * 2**30 + 4096)), []),
        (
            DEVICES._replace(cpu=CPU._replace(cpus_allowed=1.5, ram_allowed_bytes=2**31)),
            ["limit of CPUs none -> 1.5", "limit of RAM none -> 2.0 GiB"],
        ),
        (
            DEVICES._replace(findings=(Finding("no-driver", "2 NVIDIA card(s), and no driver"),)),
            ["no-driver: 2 NVIDIA card(s), and no driver"],
        ),
        (DEVICES._replace(model_catalog=("llama",)), ["models 0 -> 1"]),
    ],
)
def test_what_is_different_is_said(new: Devices, said: list[str]) -> None:
    assert differences(DEVICES, new) == said


def test_a_finding_that_is_over_is_said() -> None:
    old = DEVICES._replace(findings=(Finding("timeout", "NVML did not answer"),))

    assert differences(old, DEVICES) == ["timeout is over"]


def test_cards_that_tell_neither_uuid_nor_place_are_told_apart_by_their_number() -> None:
    gpu = Gpu(0, "nvidia", None, None, None, None, None, "card: GPU is lost")

    assert differences(with_gpus(gpu, gpu), with_gpus(gpu, gpu)) == []
    assert differences(with_gpus(gpu, gpu), with_gpus(gpu)) == ["gpu1 (nvidia) is gone"]


def test_more_changes_than_a_line_holds_are_counted() -> None:
    old = with_gpus(*(T4._replace(uuid=f"GPU-{n}") for n in range(20)))

    said = differences(old, with_gpus())
    assert len(said) == CHANGES_MAX
    assert said[-1] == "and 13 more changes"


@pytest.mark.parametrize(
    ("gpu", "said"),
    [
        (A6000, "gpu0 (NVIDIA RTX A6000, 48.0 GiB VRAM)"),
        (A6000._replace(vram_bytes=None), "gpu0 (NVIDIA RTX A6000)"),
        (A6000._replace(vram_bytes=None, memory_kind="shared"), "gpu0 (NVIDIA RTX A6000, shared memory)"),
        (
            A6000._replace(vram_bytes=2**29, memory_kind="shared", shared_memory_bytes=96 * 2**30),
            "gpu0 (NVIDIA RTX A6000, 96.5 GiB shared memory)",
        ),
    ],
)
def test_a_cards_memory_is_described_as_its_own_or_the_machines(gpu: Gpu, said: str) -> None:
    assert said in describe("localhost", Devices(CPU, (gpu,)))


@pytest.mark.parametrize(
    ("devices", "parts"),
    [
        (Devices(Cpu("a cpu", 1, 2, 4, 8 * 2**30)), "a cpu (a cpu, 4 threads, 8.0 GiB RAM)"),
        (Devices(Cpu(None, None, None, None, None)), "a cpu (model unknown)"),
        (Devices(Cpu(None, None, None, 4, None)), "a cpu (model unknown, 4 threads)"),
        (
            Devices(Cpu("a cpu", 1, 2, 4, 2**33, cpus_allowed=1.5, ram_allowed_bytes=2**31)),
            "a cpu (a cpu, 4 threads, 8.0 GiB RAM, limited to 1.5 CPUs and 2.0 GiB)",
        ),
        (
            Devices(Cpu("a cpu", 1, 2, 4, 2**33, cpus_allowed=1)),
            "a cpu (a cpu, 4 threads, 8.0 GiB RAM, limited to 1 CPU)",
        ),
        (
            Devices(
                Cpu("a cpu", 1, 2, 4, 2**30),
                (
                    Gpu(0, "nvidia", "A", "u", 2**30 * 3 // 2, "d", "0000:01:00.0"),
                    Gpu(1, "amd", "B", None, None, None, "0000:02:00.0"),
                    Gpu(2, "amd", None, None, None, None, "0000:03:00.0"),
                    Gpu(3, "1af4", None, None, None, None, None),
                ),
            ),
            "a cpu (a cpu, 4 threads, 1.0 GiB RAM), gpu0 (A, 1.5 GiB VRAM), gpu1 (B), gpu2 (0000:03:00.0), "
            "gpu3 (1af4)",
        ),
    ],
)
def test_the_sentence_tells_what_is_known_and_makes_nothing_up(devices: Devices, parts: str) -> None:
    assert describe("x", devices) == (
        f"the beehive x has {parts} and model catalog has 0 models and 0 workers available"
    )


def test_the_sentence_counts_models_and_workers() -> None:
    devices = Devices(Cpu("c", 1, 1, 1, 0), model_catalog=("a", "b"), worker_catalog=("c",))

    assert describe("x", devices).endswith("model catalog has 2 models and 1 workers available")
