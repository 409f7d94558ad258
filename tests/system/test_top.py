"""What the machine does right now, in a booted one: top follows a load that the test makes."""

from __future__ import annotations

import base64
import json
import shlex
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pyte
import pytest
from testbed.machine import Machine

from tests.system.commands import QUEEN, SOCKETS, STORY, active, add_hive, rbeectl, unit

GIB = 2**30


def look(machine: Machine) -> Any:
    """The sample of localhost in a frame of top: in the second, as the first may have what others saw."""
    frames = rbeectl(machine, "top", "-n", "2", "-d", "1s", "--json").lines
    (hive,) = json.loads(frames[-1])["hives"]
    return hive["sample"]


@contextmanager
def busy(machine: Machine, program: str) -> Iterator[None]:
    """A Python program that says 'busy' when it is; it ends with the file /run/busy."""
    machine.run("touch", "/run/busy")
    process = machine.popen("python3", "-u", "-c", f"{program}\n{UNTIL_IT_ENDS}")
    assert process.stdout
    try:
        assert process.stdout.readline() == "busy\n"
        yield
    finally:
        machine.run("rm", "/run/busy")
        process.communicate(timeout=20)


UNTIL_IT_ENDS = """
import os, time
print("busy")
while os.path.exists("/run/busy"): time.sleep(0.05)
"""

ALL_CPUS = """
import multiprocessing, os
def work():
    while True: pass
workers = [multiprocessing.Process(target=work, daemon=True) for _ in range(os.cpu_count())]
for worker in workers: worker.start()
"""

FOUR_GIB = """
held = bytearray(4 * 2**30)
held[::4096] = b"x" * (len(held) // 4096)
"""


def test_top_follows_the_load_of_the_processors(machine: Machine) -> None:
    add_hive(machine)
    with busy(machine, ALL_CPUS):
        frames = rbeectl(machine, "top", "-n", "4", "-d", "1s", "--json").lines
    last = json.loads(frames[-1])["hives"][0]["sample"]
    assert last["cpu_percent"] > 80
    assert 0 < last["cpu_span_seconds"] < 5
    assert last["load_1"] > 0


def test_top_follows_the_memory(machine: Machine) -> None:
    add_hive(machine)
    before = look(machine)
    with busy(machine, FOUR_GIB):
        during = look(machine)
    after = look(machine)

    assert during["memory_used_bytes"] - before["memory_used_bytes"] > 2 * GIB
    assert during["memory_used_bytes"] - after["memory_used_bytes"] > 2 * GIB
    assert before["memory_total_bytes"] == after["memory_total_bytes"] > during["memory_used_bytes"]


def screen_of(
    machine: Machine, command: str, *, columns: int, lines: int, keys: str = "", term: str = "xterm"
) -> tuple[list[str], str]:
    """What a terminal of this size shows before it is restored, and all that was written to it."""
    sized = shlex.quote(f"stty columns {columns} rows {lines}; export TERM={term}; {command}")
    # base64, as a carriage return is a line's end to whoever reads text.
    recorded = f"script -qec {sized} /dev/null | base64 -w 0"
    done = machine.run("sh", "-c", recorded, input=keys, user="ada")
    written = base64.b64decode(done.stdout).decode()
    screen = pyte.Screen(columns, lines)
    pyte.Stream(screen).feed(written.partition("\x1b[?1049l")[0])
    return [line.rstrip() for line in screen.display], written


@pytest.mark.parametrize(("columns", "lines"), [(120, 20), (80, 24), (40, 10), (20, 5)])
def test_a_terminal_shows_a_frame_that_fits_and_is_restored(
    machine: Machine, columns: int, lines: int
) -> None:
    add_hive(machine)

    shown, written = screen_of(machine, "rbeectl top", columns=columns, lines=lines, keys="q")

    assert shown[0].startswith("rbee - ")
    assert any("localhost" in line for line in shown)
    assert any("░" in line or "█" in line for line in shown) == (columns >= 80)
    assert written.rindex("\x1b[?1049l") > written.index("\x1b[?1049h")


@pytest.mark.parametrize("number", ["TERM", "INT"])
def test_a_terminal_is_restored_whatever_ends_it(machine: Machine, number: str) -> None:
    add_hive(machine)

    _, written = screen_of(machine, f"timeout --foreground -s {number} 2 rbeectl top", columns=80, lines=24)

    assert written.rindex("\x1b[?1049l") > written.rindex("\x1b[?1049h")
    assert "Traceback" not in written


def test_a_dumb_terminal_gets_frames_one_after_the_other(machine: Machine) -> None:
    add_hive(machine)

    _, written = screen_of(machine, "rbeectl top -n 2 -d 100ms", columns=80, lines=24, term="dumb")

    assert written.count("the queen is awake") == 2
    assert "\x1b" not in written


def test_looking_at_what_machines_do_wakes_nobody(machine: Machine) -> None:
    for verb in (["top"], ["list-devices"], ["show", "localhost"]):
        assert rbeectl(machine, *verb).code == 3
    assert active(machine, QUEEN) == ["inactive"]
    assert [unit(machine, one, "NAccepted")["NAccepted"] for one in SOCKETS] == ["0", "0"]


def test_the_story_on_a_terminal_collapses_to_what_a_pipe_gets(machine: Machine) -> None:
    screen, written = screen_of(machine, "rbeectl add-hive localhost", columns=200, lines=40)

    shown = [line for line in screen if line]
    assert not any("✓" in line for line in shown)
    assert written.count("✓") == len(STORY) + 1
    assert shown[: len(STORY)] == STORY
