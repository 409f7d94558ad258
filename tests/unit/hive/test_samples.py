"""What cards do, by the real pynvml over a stub of NVIDIA's library, and what a sample makes of it."""

from __future__ import annotations

import asyncio
import dataclasses
import os
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from rbee.hive.devices import Detector, Sampler
from rbee.hive.devices.sampler import SHARED_FOR
from rbee.wire.codec import decode, encode
from rbee.wire.devices import Cpu, Devices, Gpu, GpuSample, Sample
from tests.nvml import (
    DRIVER_NOT_LOADED,
    GPU_IS_LOST,
    MISMATCH,
    NOT_SUPPORTED,
    UNINITIALIZED,
    UNKNOWN,
    Load,
    StubCard,
    write_cards,
)
from tests.unit.hive.machine import DRIVER, A, B, C, Machine

BUSY = Load(87, 20 * 2**30, 71, 312_500)
IDLE = Load(0, 2**20, 35, 22_000)


def doing(card: StubCard, load: Load) -> StubCard:
    return dataclasses.replace(card, load=load)


def sample_of(index: int, card: StubCard, load: Load | None, problem: str | None = None) -> GpuSample:
    return GpuSample(
        index=index,
        uuid=card.uuid,
        pci_address=card.pci_address,
        utilisation_percent=load.percent if load else None,
        memory_used_bytes=load.used_bytes if load else None,
        memory_total_bytes=card.vram_bytes,
        temperature_celsius=load.celsius if load else None,
        power_watts=load.milliwatts / 1000 if load else None,
        problem=problem,
    )


def cards_of(machine: Machine, script: str = "cards()", **options: Any) -> list[tuple[GpuSample, ...]]:
    """What each cards() of the script told; decode() checks the contract's limits, too."""
    told = [said for said in machine.run(script, **options) if isinstance(said, list)]
    return [tuple(decode(GpuSample, card) for card in said) for said in told]


@pytest.fixture
def later(machine: Machine, tmp_path: Path) -> Callable[..., str]:
    """What the stub shows from then on: a line of a script."""
    count = 0

    def show(*cards: StubCard, driver: str = DRIVER, rules: tuple[str, ...] = ()) -> str:
        nonlocal count
        count += 1
        path = tmp_path / f"later-{count}"
        write_cards(path, cards, driver=driver, rules=rules)
        return f"replace({str(path)!r})"

    return show


# By NVML


def test_cards_tell_what_they_do_in_the_order_of_the_devices(machine: Machine) -> None:
    machine.show(doing(C, IDLE), doing(A, BUSY))

    assert cards_of(machine) == [(sample_of(0, A, BUSY), sample_of(1, C, IDLE))]


def test_what_a_card_has_no_sensor_for_is_not_known_and_no_problem(machine: Machine) -> None:
    rules = [f"fail {call} 1 {NOT_SUPPORTED}" for call in ("DeviceGetPowerUsage", "DeviceGetTemperature")]
    machine.show(doing(A, BUSY), doing(B, BUSY), rules=tuple(rules))

    ((whole, less),) = cards_of(machine)
    assert whole == sample_of(0, A, BUSY)
    assert less == dataclasses.replace(sample_of(1, B, BUSY), power_watts=None, temperature_celsius=None)


def test_a_card_that_only_tells_its_memory_is_no_problem(machine: Machine) -> None:
    machine.show(A)

    assert cards_of(machine) == [(dataclasses.replace(sample_of(0, A, None), memory_used_bytes=0),)]


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
    assert broken == dataclasses.replace(sample_of(0, A, BUSY, problem), **{field: None})
    assert whole == sample_of(1, B, BUSY)


@pytest.mark.parametrize(
    ("load", "problem"),
    [
        (Load(101, 0, 0, 0), "utilisation: 101% cannot be"),
        (Load(0, 2**60, 0, 0), f"memory: {2**60} bytes cannot be"),
        (Load(0, 0, 4294967295, 0), "temperature: 4.29497e+09 °C cannot be"),
        (Load(0, 0, 0, 4294967295), "power: 4.29497e+06 W cannot be"),
    ],
)
def test_what_cannot_be_is_not_passed_on(machine: Machine, load: Load, problem: str) -> None:
    machine.show(doing(A, load))

    (((card,),)) = cards_of(machine)
    assert card.problem == problem


def test_each_look_tells_what_is_so_then(machine: Machine, later: Callable[..., str]) -> None:
    machine.show(doing(A, IDLE))

    script = f"cards()\n{later(doing(A, BUSY))}\ncards()"
    assert cards_of(machine, script) == [(sample_of(0, A, IDLE),), (sample_of(0, A, BUSY),)]


COUNTED = """
import pynvml
calls = []
def counted(name):
    real = getattr(pynvml, name)
    def call(*arguments):
        calls.append(name)
        return real(*arguments)
    setattr(pynvml, name, call)
counted("nvmlInit")
counted("nvmlShutdown")
"""


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


def test_a_detection_sees_what_is_new_though_nvml_was_open(
    machine: Machine, later: Callable[..., str]
) -> None:
    machine.show(doing(A, BUSY))

    script = f"cards()\n{later(doing(A, BUSY), doing(B, IDLE))}\ncards()\ndetect()\ncards()"
    old, still_old, new = cards_of(machine, script)
    assert old == still_old == (sample_of(0, A, BUSY),)
    assert new == (sample_of(0, A, BUSY), sample_of(1, B, IDLE))


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


# Where NVML tells nothing


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
    assert threads == ["MainThread", "nvml"]


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


# The sampler


class Cards(Detector):
    """A detector of which a test says what the cards do."""

    def __init__(self, root: Path) -> None:
        super().__init__(root)
        self._latest = Devices(Cpu(None, None, None, None, None), ())
        self.read: Callable[[], tuple[GpuSample, ...]] = lambda: ()
        self.reads = 0

    def read_cards(self) -> tuple[GpuSample, ...]:
        self.reads += 1
        return self.read()


CARD = sample_of(0, A, BUSY)


@pytest.fixture
def proc(tmp_path: Path) -> Path:
    (tmp_path / "proc").mkdir()
    (tmp_path / "proc/loadavg").write_text("0.50 0.25 0.10 1/1 1\n")
    (tmp_path / "proc/meminfo").write_text("MemTotal: 1000 kB\nMemAvailable: 400 kB\n")
    (tmp_path / "proc/stat").write_text("cpu 0 0 0 0 0 0 0 0\n")
    return tmp_path


def test_a_sample_is_all_of_it_at_one_moment(proc: Path) -> None:
    cards = Cards(proc)
    cards.read = lambda: (CARD,)
    now = 0.0

    async def scenario() -> Sample:
        nonlocal now
        sampler = Sampler("blade-7", cards, proc, clock=lambda: now)
        sampler.fingerprint()  # as a beat does
        now = 15.0
        (proc / "proc/stat").write_text("cpu 30 0 0 70 0 0 0 0\n")
        return await sampler.look()

    sample = asyncio.run(scenario())
    assert sample == Sample(
        "blade-7", sample.at, 0.5, 0.25, 0.1, 30.0, 15.0, 600 * 1024, 1000 * 1024, (CARD,)
    )
    assert decode(Sample, encode(sample)) == sample


def test_many_who_look_at_once_share_one_sample(proc: Path) -> None:
    cards = Cards(proc)
    goes_on = threading.Event()
    cards.read = lambda: (goes_on.wait(5), (CARD,))[1]

    async def scenario() -> list[Sample]:
        sampler = Sampler("blade-7", cards, proc)
        looks = [asyncio.ensure_future(sampler.look()) for _ in range(10)]
        await asyncio.sleep(0.05)
        looks.pop().cancel()  # who goes does not end it for the others
        goes_on.set()
        return await asyncio.gather(*looks)

    samples = asyncio.run(scenario())
    assert len(samples) == 9
    assert len(set(samples)) == 1
    assert cards.reads == 1


def test_a_sample_is_shared_for_a_moment_and_no_longer(proc: Path) -> None:
    cards = Cards(proc)
    now = 0.0

    async def scenario() -> None:
        nonlocal now
        sampler = Sampler("blade-7", cards, proc, clock=lambda: now)
        first = await sampler.look()
        now += SHARED_FOR * 0.9
        assert await sampler.look() is first
        now += SHARED_FOR * 0.2
        assert await sampler.look() is not first

    asyncio.run(scenario())
    assert cards.reads == 2


def test_cards_that_hang_are_left_out_and_asked_once(proc: Path) -> None:
    cards = Cards(proc)
    cards._latest = Devices(Cpu(None, None, None, None, None), (gpu_of(A),))
    goes_on = threading.Event()
    cards.read = lambda: (goes_on.wait(10), (CARD,))[1]

    async def scenario() -> list[Sample]:
        sampler = Sampler("blade-7", cards, proc, cards_timeout=0.2)
        samples = [await sampler.look()]
        for _ in range(2):
            sampler._begun_at = -1.0
            samples.append(await sampler.look())
        reads = cards.reads
        goes_on.set()
        assert sampler._reading is not None
        await sampler._reading
        sampler._begun_at = -1.0
        samples.append(await sampler.look())
        assert (reads, cards.reads) == (1, 2)
        return samples

    *hung, back = asyncio.run(scenario())
    for sample in hung:
        assert (sample.load_1, sample.memory_used_bytes) == (0.5, 600 * 1024)
        problem = "the drivers of the cards have not answered for 0 s"
        assert sample.gpus == (sample_of(0, A, None, problem),)
    assert back.gpus == (CARD,)


def test_cards_that_cannot_be_read_leave_the_rest(proc: Path, caplog: pytest.LogCaptureFixture) -> None:
    cards = Cards(proc)
    cards._latest = Devices(Cpu(None, None, None, None, None), (gpu_of(A),))

    def read() -> tuple[GpuSample, ...]:
        raise ZeroDivisionError("by nought")

    cards.read = read
    sample = asyncio.run(Sampler("blade-7", cards, proc).look())

    assert sample.load_1 == 0.5
    assert sample.gpus == (sample_of(0, A, None, "reading what the cards do failed: by nought"),)
    assert [record.exc_info is not None for record in caplog.records] == [True]


def test_closing_ends_a_sample_that_is_under_way(proc: Path) -> None:
    cards = Cards(proc)
    goes_on = threading.Event()
    cards.read = lambda: (goes_on.wait(10), ())[1]

    async def scenario() -> None:
        sampler = Sampler("blade-7", cards, proc)
        looking = asyncio.ensure_future(sampler.look())
        await asyncio.sleep(0.05)
        await sampler.close()
        with pytest.raises(asyncio.CancelledError):
            await looking
        assert asyncio.all_tasks() == {asyncio.current_task()}

    asyncio.run(scenario())
    goes_on.set()


def gpu_of(card: StubCard) -> Gpu:
    return Gpu(0, "nvidia", card.name, card.uuid, card.vram_bytes, DRIVER, card.pci_address)
