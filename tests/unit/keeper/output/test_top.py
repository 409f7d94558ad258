"""A frame of top."""

from __future__ import annotations

from dataclasses import replace

import pytest

from rbee.keeper.output.screen import Screen, width
from rbee.keeper.output.top import Moment, frame
from rbee.wire.hives import HiveView
from rbee.wire.samples import Sample
from rbee.wire.workers import Holder, Memory, Pool
from tests.unit.keeper.doubles import SAMPLE
from tests.unit.wire_values import HIVE_VIEW

PLAIN = Screen(is_terminal=True, can_redraw=True, has_colour=False, has_unicode=True, columns=130, lines=30)


def text(moment: Moment, screen: Screen = PLAIN) -> list[str]:
    return ["".join(text for text, _ in row) for row in frame(moment, screen)]


def at(*hives: HiveView, samples: dict[str, Sample] | None = None) -> Moment:
    known = {"localhost": SAMPLE} if samples is None else samples
    return Moment("12:00:00", 10_000, "awake", hives, known)


def test_a_frame_has_a_line_a_device() -> None:
    head, blank, header, cpu, gpu = text(at(HIVE_VIEW))

    assert head == "rbee - 12:00:00, the queen is awake, hives: 1 online"
    assert blank == ""
    assert header.split() == ["HIVE", "DEVICE", "USE", "MEMORY", "TEMP", "POWER", "NAME"]
    assert cpu.split() == [
        "localhost", "cpu", "████░░░░░░", "42%", "load", "1.25", "██░░░░░░░░", "128.0", "/", "512.0", "GiB",
        "AMD", "EPYC", "7763",
    ]  # fmt: skip
    assert gpu.split()[:4] == ["gpu0", "██████████", "97%", "█████████░"]
    assert "71 C  312 W" in gpu
    assert gpu.endswith("NVIDIA GeForce RTX 4090")


def test_a_frame_has_the_holders_of_memory_below_each_device_if_asked() -> None:
    pools = (
        Pool("ram", "RAM", 2**36, 2**35, 0, (Holder("worker", 2**33, "bee-1"),)),
        Pool("gpu0", "a card", 2**36, 2**35, 2**30, (Holder("process", 2**33, "x.service", None, 7),)),
    )
    moment = replace(at(HIVE_VIEW), memories={"localhost": Memory(pools)})

    _, _, _, cpu, of_ram, gpu, *of_gpu = text(moment)
    assert (cpu.split()[1], of_ram) == ("cpu", "    8.0 GiB  worker bee-1")
    assert gpu.split()[0] == "gpu0"
    assert of_gpu == ["    8.0 GiB  x.service, pid 7", "    1.0 GiB  claimed"]


def test_a_gpu_that_computes_in_the_machines_memory_says_so() -> None:
    assert HIVE_VIEW.devices is not None
    gpus = tuple(gpu._replace(vram_bytes=None, memory_kind="shared") for gpu in HIVE_VIEW.devices.gpus)
    cards = tuple(gpu._replace(memory_used_bytes=None, memory_total_bytes=None) for gpu in SAMPLE.gpus)
    hive = HIVE_VIEW._replace(devices=HIVE_VIEW.devices._replace(gpus=gpus))

    *_, gpu = text(at(hive, samples={hive.id: SAMPLE._replace(gpus=cards)}))

    assert gpu.split()[:4] == ["gpu0", "██████████", "97%", "shared"]


def test_how_full_something_is_has_a_colour() -> None:
    rows = frame(at(HIVE_VIEW), PLAIN)

    tones = {text.strip(): tone for row in rows for text, tone in row if "%" in text}
    assert tones == {"42%": "good", "97%": "bad"}


def test_a_hive_that_is_not_online_says_why() -> None:
    away = HIVE_VIEW._replace(id="blade", state="offline", reason="its process ended\x1b[2J", since_ms=4_000)

    *_, line = text(at(HIVE_VIEW, away))

    assert line == "blade  offline 6s ago: its process ended\\x1b[2J"


def test_a_hive_that_does_not_tell_says_so() -> None:
    *_, line = text(at(HIVE_VIEW, samples={}))

    assert line == "localhost  online, but sends no figures"


@pytest.mark.parametrize("queen", ["asleep", "off", "failed"])
def test_a_queen_who_went_is_said_to_have_gone(queen: str) -> None:
    *_, line = text(Moment("12:00:00", 0, queen, None, {}))

    assert line == f"The queen is {queen}: nothing is known until it wakes."


def test_an_empty_catalog_says_how_to_begin() -> None:
    assert "rbeectl add-hive localhost" in text(at())[-1]


@pytest.mark.parametrize(
    ("columns", "header"),
    [
        (130, ["HIVE", "DEVICE", "USE", "MEMORY", "TEMP", "POWER", "NAME"]),
        (100, ["HIVE", "DEVICE", "USE", "MEMORY", "TEMP", "POWER"]),
        (80, ["HIVE", "DEVICE", "USE", "MEMORY"]),
        (60, ["HIVE", "DEVICE", "USE", "MEMORY"]),
    ],
)
def test_a_narrow_terminal_gets_fewer_columns(columns: int, header: list[str]) -> None:
    shown = text(at(HIVE_VIEW), PLAIN._replace(columns=columns))

    assert shown[2].split() == header
    assert ("█" in shown[3]) == (columns >= 80)
    assert "42%" in shown[3]
    assert "128.0 / 512.0 GiB" in shown[3]


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 24])
@pytest.mark.parametrize("columns", [1, 2, 5, 20, 40, 79, 80, 81, 200])
def test_no_frame_is_larger_than_the_terminal(columns: int, lines: int) -> None:
    hives = [HIVE_VIEW._replace(id="蜜蜂" * 20), HIVE_VIEW, HIVE_VIEW._replace(state="suspect")]

    rows = frame(at(*hives), PLAIN._replace(columns=columns, lines=lines))

    assert len(rows) <= lines
    assert all(sum(width(text) for text, _ in row) <= columns for row in rows)


def test_without_unicode_bars_are_ascii() -> None:
    shown = "\n".join(text(at(HIVE_VIEW), PLAIN._replace(has_unicode=False)))

    assert "####......  42%" in shown
    assert shown.isascii()
