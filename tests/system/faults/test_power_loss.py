"""The power goes: what was acknowledged is on the disk, and was there before it was acknowledged."""

from __future__ import annotations

import re
import signal

import pytest
from testbed.machine import Machine

from tests.system.commands import CATALOG, QUEEN, add_hive, main_pid, rbeectl, rows


def without_time(row: dict[str, object]) -> dict[str, object]:
    # A hive that is brought back at boot stores its status once more.
    return {name: value for name, value in row.items() if name != "updated_at_ms"}


def test_an_acknowledged_hive_is_there_after_the_power_was_cut(machine: Machine) -> None:
    add_hive(machine)
    before = rows(machine)
    assert len(before) == 1
    pid = machine.leader
    machine.cut_power()
    assert machine.leader != pid
    # No goodbye was said, and nothing was closed.
    assert machine.run("test", "-s", f"{CATALOG}-wal", check=False).returncode == 0
    after = rows(machine)
    assert [without_time(row) for row in after] == [without_time(row) for row in before]
    add_hive(machine)
    assert [row["created_at_ms"] for row in rows(machine)] == [row["created_at_ms"] for row in before]
    removed = rbeectl(machine, "remove-hive", "localhost")
    assert removed.code == 0, removed
    machine.cut_power()
    assert rows(machine) == []


TRACED = "pwrite64,fdatasync,fsync,sendto,write,writev,sendmsg"


@pytest.mark.parametrize("verb", ["add-hive", "remove-hive"])
def test_the_log_is_on_the_disk_before_the_story_says_done(machine: Machine, verb: str) -> None:
    add_hive(machine)
    if verb == "add-hive":
        assert rbeectl(machine, "remove-hive", "localhost").code == 0
    pid = main_pid(machine, QUEEN)
    tracer = machine.popen(
        "strace", "-f", "-y", "-s", "4096", "-e", f"trace={TRACED}", "-o", "/run/traced", "-p", str(pid)
    )
    assert tracer.stderr is not None
    assert f"Process {pid} attached" in tracer.stderr.readline()
    answer = rbeectl(machine, verb, "localhost")
    assert answer.code == 0, answer
    machine.signal(tracer, signal.SIGINT)
    tracer.wait(10)
    calls = machine.run("cat", "/run/traced").stdout.splitlines()
    log = re.escape(f"{CATALOG}-wal")
    said = [n for n, call in enumerate(calls) if re.search(r"(sendto|write|sendmsg)\(.*event: done", call)]
    assert len(said) == 1, calls
    wrote = [n for n, call in enumerate(calls) if re.search(rf"pwrite64\(\d+<{log}>", call)]
    # A call that another thread interrupts is told in two lines; the second has its result.
    synced = [n for n, call in enumerate(calls) if _is_synced(call, calls, n, log)]
    # Something was written for this story, and after the last of it the disk said that it has it,
    # and after that the story ended.
    assert wrote, calls
    before = [n for n in wrote if n < said[0]]
    assert before, calls
    assert [n for n in synced if before[-1] < n < said[0]], calls[before[-1] : said[0] + 1]


def _is_synced(call: str, calls: list[str], number: int, log: str) -> bool:
    """Is it the line with the result 0 of an fdatasync of the log?"""
    if re.search(rf"fdatasync\(\d+<{log}>\)\s+= 0$", call):
        return True
    if not re.search(r"<\.\.\. fdatasync resumed>\)\s+= 0$", call):
        return False
    thread = call.split()[0]
    asked = [one for one in calls[:number] if one.split()[0] == thread and "fdatasync(" in one]
    return bool(asked and re.search(rf"fdatasync\(\d+<{log}>", asked[-1]))
