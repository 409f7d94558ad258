"""What the machines do right now: the table of devices, and the frames of top."""

from __future__ import annotations

import json
from dataclasses import replace
from typing import Any

import pytest
from starlette.requests import Request

from rbee.contracts import GpuSample, HiveView, QueenRoutes, Route, Sample, encode
from rbee.errors import HiveFailed
from rbee.keeper.output.screen import Screen, width
from rbee.keeper.output.tables import live_table
from rbee.keeper.output.top import Moment, frame
from rbee.scope import QUEEN_UNIT
from rbee.server.app import Handler
from tests.unit.keeper.doubles import Bus, Rbeectl, WithQueen, listing
from tests.unit.played_systemd import INACTIVE
from tests.unit.shapes import HIVE_VIEW

GIB = 2**30
SAMPLE = Sample(
    "localhost", "2026-01-31T12:00:00.000Z", 1.25, 1.0, 0.5, 42.4, 2.0, 128 * GIB, 512 * GIB,
    (GpuSample(0, "GPU-a", "0000:01:00.0", 97.0, 22 * GIB, 24 * GIB, 71.0, 312.4),),
)  # fmt: skip
HOT = replace(HIVE_VIEW, id="localhost")
PLAIN = Screen(is_terminal=True, can_redraw=True, has_colour=False, has_unicode=True, columns=130, lines=30)


def text(moment: Moment, screen: Screen = PLAIN) -> list[str]:
    return ["".join(text for text, _ in row) for row in frame(moment, screen)]


def at(*hives: HiveView, samples: dict[str, Sample] | None = None) -> Moment:
    known = {"localhost": SAMPLE} if samples is None else samples
    return Moment("12:00:00", 10_000, "awake", hives, known)


# list-devices


def test_the_table_of_devices_has_what_they_do() -> None:
    header, cpu, gpu = live_table([HIVE_VIEW], {"localhost": SAMPLE}).splitlines()

    assert header.split()[3:7] == ["USE", "MEMORY", "TEMP", "POWER"]
    assert "42%  128.0 / 512.0 GiB" in cpu
    assert "97%  22.0 / 24.0 GiB    71 C  312 W" in gpu


def test_what_a_device_does_not_tell_is_a_dash() -> None:
    silent = replace(
        SAMPLE, cpu_percent=None, memory_used_bytes=None,
        gpus=(GpuSample(0, None, None, None, None, None, None, None),),
    )  # fmt: skip
    for samples in ({}, {"localhost": silent}):
        _, cpu, gpu = live_table([HIVE_VIEW], samples).splitlines()
        assert "-    512.0 GiB  -     -" in cpu
        assert "-    24.0 GiB   -     -" in gpu


def sampling(answer: Any) -> dict[Route, Handler]:
    async def handler(_request: Request) -> Any:
        if isinstance(answer, Exception):
            raise answer
        return answer

    return {QueenRoutes.SAMPLE: handler}


def test_list_devices_asks_what_they_do(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = listing(HIVE_VIEW) | sampling(SAMPLE)

    told = with_queen(queen, lambda: rbeectl("list-devices"))
    for_programs = with_queen(queen, lambda: rbeectl("list-devices", "--json"))
    shown = with_queen(
        queen, lambda: rbeectl("show", "localhost", "-p", "CPUPercent,GPU0MemoryUsed,MemoryUsed")
    )

    assert "42%" in told.out
    assert for_programs.json[0]["hives"][0]["sample"] == encode(SAMPLE)
    assert shown.out == f"CPUPercent=42.4\nGPU0MemoryUsed={22 * GIB}\nMemoryUsed={128 * GIB}\n"


def test_a_hive_that_does_not_tell_is_listed_all_the_same(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    queen = listing(HIVE_VIEW) | sampling(HiveFailed("it hangs"))

    ran = with_queen(queen, lambda: rbeectl("list-devices", "--json"))

    assert ran.code == 0
    assert ran.json[0]["hives"][0]["sample"] is None


def test_the_hives_of_a_fleet_are_asked_at_once(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    async def handler(request: Request) -> Sample:
        return replace(SAMPLE, hive_id=request.path_params["hive_id"])

    hives = [replace(HIVE_VIEW, id=f"blade{number}") for number in range(40)]
    queen = listing(*hives, replace(HIVE_VIEW, id="away", state="offline")) | {QueenRoutes.SAMPLE: handler}

    told = with_queen(queen, lambda: rbeectl("list-devices", "--json")).json[0]["hives"]

    assert [hive["sample"] is not None for hive in told] == [True] * 40 + [False]


# Frames


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


def test_a_gpu_that_computes_in_the_machines_memory_says_so() -> None:
    assert HIVE_VIEW.devices is not None
    gpus = tuple(replace(gpu, vram_bytes=None, memory_kind="shared") for gpu in HIVE_VIEW.devices.gpus)
    cards = tuple(replace(gpu, memory_used_bytes=None, memory_total_bytes=None) for gpu in SAMPLE.gpus)
    hive = replace(HIVE_VIEW, devices=replace(HIVE_VIEW.devices, gpus=gpus))

    *_, gpu = text(at(hive, samples={hive.id: replace(SAMPLE, gpus=cards)}))

    assert gpu.split()[:4] == ["gpu0", "██████████", "97%", "shared"]


def test_how_full_something_is_has_a_colour() -> None:
    rows = frame(at(HIVE_VIEW), PLAIN)

    tones = {text.strip(): tone for row in rows for text, tone in row if "%" in text}
    assert tones == {"42%": "good", "97%": "bad"}


def test_a_hive_that_is_not_online_says_why() -> None:
    away = replace(HIVE_VIEW, id="blade", state="offline", reason="its process ended\x1b[2J", since_ms=4_000)

    *_, line = text(at(HIVE_VIEW, away))

    assert line == "blade  offline 6s ago: its process ended\\x1b[2J"


def test_a_hive_that_does_not_tell_says_so() -> None:
    *_, line = text(at(HIVE_VIEW, samples={}))

    assert line == "localhost  online, and does not tell what its machine does"


@pytest.mark.parametrize("queen", ["asleep", "off", "failed"])
def test_a_queen_who_went_is_said_to_have_gone(queen: str) -> None:
    *_, line = text(Moment("12:00:00", 0, queen, None, {}))

    assert line == f"The queen is {queen}: nobody is asked until she wakes."


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
    shown = text(at(HIVE_VIEW), replace(PLAIN, columns=columns))

    assert shown[2].split() == header
    assert ("█" in shown[3]) == (columns >= 80)
    assert "42%" in shown[3]
    assert "128.0 / 512.0 GiB" in shown[3]


@pytest.mark.parametrize("lines", [1, 2, 3, 5, 24])
@pytest.mark.parametrize("columns", [1, 2, 5, 20, 40, 79, 80, 81, 200])
def test_no_frame_is_larger_than_the_terminal(columns: int, lines: int) -> None:
    hives = [replace(HIVE_VIEW, id="蜜蜂" * 20), HIVE_VIEW, replace(HIVE_VIEW, state="suspect")]

    rows = frame(at(*hives), replace(PLAIN, columns=columns, lines=lines))

    assert len(rows) <= lines
    assert all(sum(width(text) for text, _ in row) <= columns for row in rows)


def test_without_unicode_bars_are_ascii() -> None:
    shown = "\n".join(text(at(HIVE_VIEW), replace(PLAIN, has_unicode=False)))

    assert "####......  42%" in shown
    assert shown.isascii()


# The verb


def test_without_a_terminal_one_frame_comes_after_the_other(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW) | sampling(SAMPLE), lambda: rbeectl("top", "-n", "2", "-d", "10ms"))

    assert ran.code == 0
    assert ran.out.count("the queen is awake") == 2
    assert ran.out.count("42%") == 2
    assert "\x1b" not in ran.out


def test_for_programs_a_frame_is_a_line(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    queen = listing(HIVE_VIEW) | sampling(SAMPLE)
    ran = with_queen(queen, lambda: rbeectl("top", "-n", "3", "-d", "10ms", "--json"))

    assert len(ran.json) == 3
    for told in ran.json:
        assert told["queen"] == "awake"
        assert told["hives"] == [{**encode(HIVE_VIEW), "sample": encode(SAMPLE)}]


def test_top_wakes_nobody(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("top")

    assert (ran.code, ran.out) == (3, "")
    assert bus.asked == []


def test_a_queen_who_goes_meanwhile_is_not_asked_on(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        awake.states[QUEEN_UNIT] = INACTIVE

    monkeypatch.setattr("rbee.keeper.verbs.top.time.sleep", sleep)
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("top", "-n", "2", "--json"))

    first, second = (json.loads(line) for line in ran.out.splitlines())
    assert (first["queen"], second["queen"], second["hives"]) == ("awake", "asleep", None)
    assert slept == [2.0]


@pytest.mark.parametrize("arguments", [["-d", "0"], ["-d", "soon"], ["-n", "0"], ["localhost"]], ids=" ".join)
def test_a_usage_error_exits_2(bus: Bus, rbeectl: Rbeectl, arguments: list[str]) -> None:
    assert rbeectl("top", *arguments).code == 2
