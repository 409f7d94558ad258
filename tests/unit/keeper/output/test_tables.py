"""What rbeectl prints for people."""

from __future__ import annotations

import re
import time

import pytest

from rbee.keeper.output.screen import Screen
from rbee.keeper.output.tables import (
    Frame,
    Table,
    ago,
    audit_table,
    devices_table,
    findings,
    hives_table,
    live_table,
    moment,
    table,
)
from rbee.wire.catalog import AuditEntry
from rbee.wire.devices import Cpu, Devices, Finding, Gpu
from rbee.wire.hives import Label
from rbee.wire.samples import GpuSample
from tests.unit.keeper.doubles import SAMPLE
from tests.unit.wire_values import HIVE_VIEW

NOW = 100_000_000


def test_columns_are_as_wide_as_their_widest_cell_and_no_line_ends_in_blanks() -> None:
    assert table(("A", "LONG", "B"), [("1", "2", "3"), ("wide cell", "x", "")]) == (
        "A          LONG  B\n"
        "1          2     3\n"
        "wide cell  x"
    )  # fmt: skip


def test_a_table_without_rows_is_its_header() -> None:
    assert table(("A", "B"), []) == "A  B"


def test_a_table_in_parts_has_one_header_and_no_column_gets_narrower() -> None:
    parts = Table(("A", "LONG", "B"))

    assert parts.part([("wide cell", "x", "")]) == "A          LONG  B\nwide cell  x"
    assert parts.part([("1", "2", "3"), ("4", "longer", "5")]) == "1          2       3\n4          longer  5"
    assert parts.part([("1", "2", "3")]) == "1          2       3"


def test_what_could_steer_a_terminal_is_escaped_before_its_column_is_measured() -> None:
    assert table(("A", "B"), [("\x1b[31m", "x"), ("\n", "y")]) == (
        "A         B\n"
        "\\x1b[31m  x\n"
        "\\n        y"
    )  # fmt: skip


def test_hives_are_listed_with_all_that_is_known_of_their_lives() -> None:
    online = HIVE_VIEW._replace(
        since_ms=NOW - 3_600_000, created_at_ms=NOW - 100_000_000, last_beat_ms=NOW - 4_000,
        version="0.4.0", interval_ms=15_000,
    )  # fmt: skip
    remote = online._replace(
        id="gpu1", host="gpu1", is_remote=True, address="10.1.2.3", interval_ms=22_500,
        labels=(Label("rack", "3"), Label("spare", "")), cordoned="a fan is loud",
        devices=HIVE_VIEW.devices._replace(worker_catalog=("bee-1", "bee-2")),
    )  # fmt: skip
    pending = HIVE_VIEW._replace(
        id="blade-7", host="blade-7.lan", port=8601, state="pending", devices=None,
        last_beat_ms=None, reason="just added", since_ms=NOW, created_at_ms=NOW,
    )  # fmt: skip
    header, *rows = hives_table(NOW)([online, remote, pending]).splitlines()

    columns = ("HIVE", "STATE", "SINCE", "LAST BEAT", "REASON", "DEVICES", "WORKERS", "ADDRESS", "VERSION")
    assert tuple(re.split(" {2,}", header)) == (*columns, "INTERVAL", "AGE", "LABELS")
    assert [re.split(" {2,}", row) for row in rows] == [
        ["localhost", "online", "1h ago", "4s ago", "heartbeats received", "cpu gpu0", "0", "localhost:8600",
         "0.4.0", "15s", "1d 3h", "-"],
        ["gpu1", "online", "1h ago", "4s ago", "cordoned: a fan is loud; heartbeats received", "cpu gpu0",
         "2", "10.1.2.3", "0.4.0", "22.5s", "1d 3h", "rack=3,spare="],
        ["blade-7", "pending", "0s ago", "-", "just added", "-", "-", "blade-7.lan:8601", "-", "-", "0s",
         "-"],
    ]  # fmt: skip


SCREEN = Screen(is_terminal=True, can_redraw=True, has_colour=False, has_unicode=True, columns=80, lines=24)


@pytest.mark.parametrize("name", ["localhost", "blade-" * 20])
def test_on_80_columns_each_line_has_its_state_and_its_reason(name: str) -> None:
    hives = [
        HIVE_VIEW._replace(id=one, labels=(Label("rack", "x" * 60),), since_ms=0, last_beat_ms=1, reason=why)
        for one, why in ((name, "heartbeats received"), ("gpu1", "stopped by an administrator"))
    ]
    header, first, second = hives_table(NOW, Frame(screen=SCREEN))(hives).splitlines()

    assert max(len(line) for line in (header, first, second)) <= 80
    assert header.split()[:6] == ["HIVE", "STATE", "SINCE", "LAST", "BEAT", "REASON"]
    assert first.startswith(name[:7])
    assert "heartbeats received" in first
    assert "stopped by an admin" in second


def test_a_reason_that_is_long_leaves_room_for_the_name() -> None:
    hive = HIVE_VIEW._replace(id="blade-7", reason="r" * 300)

    row = hives_table(NOW, Frame(screen=SCREEN))([hive]).splitlines()[1]

    assert row.startswith("blade-7 ")
    assert "rrrr…" in row


def test_in_a_pager_a_name_gives_way_and_what_is_looked_for_is_whole() -> None:
    hive = HIVE_VIEW._replace(id="blade-" * 20, reason="r" * 300, labels=(Label("rack", "3"),))

    row = hives_table(NOW, Frame(screen=SCREEN, scrolls=True))([hive]).splitlines()[1]

    assert "r" * 300 in row
    assert row.index("rrr") <= 80 - 20
    assert row.endswith("rack=3")


def test_on_80_columns_an_audit_has_who_did_what() -> None:
    entry = AuditEntry(1, 1_769_860_800_000, "hive gpu1 was removed", "gpu1", 0, None, None)

    row = audit_table([entry], Frame(screen=SCREEN)).splitlines()[1]

    assert "uid 0 (root)" in row
    assert "hive gpu1 was" in row


def test_on_80_columns_devices_have_all_that_they_do() -> None:
    uuid = "GPU-" + "a" * 36
    gpus = (Gpu(0, "nvidia", "NVIDIA RTX 6000 Ada Generation", uuid, 2**35, "550.54", "0000:01:00.0"),)
    hive = HIVE_VIEW._replace(id="blade-" * 20, devices=Devices(Cpu("AMD EPYC", 2, 128, 256, 2**39), gpus))

    lines = live_table([hive], {}, Frame(screen=SCREEN)).splitlines()

    assert lines[0].split()[:7] == ["HIVE", "DEVICE", "NAME", "USE", "MEMORY", "TEMP", "POWER"]
    assert "32.0 GiB" in lines[2]


def test_devices_are_listed_one_a_line_and_what_is_not_known_is_said() -> None:
    gpus = (
        Gpu(0, "nvidia", "NVIDIA H100 PCIe", "GPU-a", 80 * 2**30, "550.54", "0000:01:00.0"),
        Gpu(1, "nvidia", None, None, None, None, "0000:02:00.0", "it is gone"),
        Gpu(2, "1af4", None, None, None, None, None),
        Gpu(3, "nvidia", "NVIDIA GB10", None, None, None, None, memory_kind="shared"),
        Gpu(
            4, "amd", "Radeon 8060S", None, 2**29, None, None,
            memory_kind="shared", shared_memory_bytes=96 * 2**30,
        ),
    )  # fmt: skip
    full = HIVE_VIEW._replace(devices=Devices(Cpu("AMD EPYC", 2, 128, 256, 2**39), gpus))
    bare = HIVE_VIEW._replace(id="bare", devices=Devices(Cpu(None, None, None, None, None)))
    small = HIVE_VIEW._replace(id="small", devices=Devices(Cpu("Atom", 1, 1, 1, 2**29)))
    guest = Cpu("AMD EPYC", 2, 128, 256, 2**39, cpus_allowed=1.5, ram_allowed_bytes=2**31)
    limited = HIVE_VIEW._replace(id="guest", devices=Devices(guest))
    unknown = HIVE_VIEW._replace(id="new", devices=None)

    table = devices_table([full, bare, small, limited, unknown])
    lines = [line.split("  ") for line in table.splitlines()]
    cells = [[cell.strip() for cell in line if cell] for line in lines]

    assert cells == [
        ["HIVE", "DEVICE", "NAME", "MEMORY", "DRIVER", "ADDRESS", "UUID"],
        ["localhost", "cpu", "AMD EPYC (2 sockets, 128 cores, 256 threads)", "512.0 GiB", "-", "-", "-"],
        ["localhost", "gpu0", "NVIDIA H100 PCIe", "80.0 GiB", "550.54", "0000:01:00.0", "GPU-a"],
        ["localhost", "gpu1", "nvidia, name unknown [it is gone]", "unknown", "-", "0000:02:00.0", "-"],
        ["localhost", "gpu2", "1af4, name unknown", "unknown", "-", "-", "-"],
        ["localhost", "gpu3", "NVIDIA GB10", "shared", "-", "-", "-"],
        ["localhost", "gpu4", "Radeon 8060S", "96.5 GiB shared", "-", "-", "-"],
        ["bare", "cpu", "model unknown (size unknown)", "unknown", "-", "-", "-"],
        ["small", "cpu", "Atom (1 socket, 1 core, 1 thread)", "0.5 GiB", "-", "-", "-"],
        [
            "guest", "cpu", "AMD EPYC (2 sockets, 128 cores, 256 threads; limited to 1.5)",
            "2.0 of 512.0 GiB", "-", "-", "-",
        ],
        ["new", "-", "not known yet", "-", "-", "-", "-"],
    ]  # fmt: skip


def test_what_kept_detection_from_seeing_all_is_a_line_each() -> None:
    found = Devices(
        Cpu(None, None, None, 1, 1), findings=(Finding("no-access", "may not\x1b open"), Finding("b", "c"))
    )

    assert findings([HIVE_VIEW._replace(devices=found), HIVE_VIEW._replace(devices=None)]) == [
        "localhost: may not\\x1b open (no-access)",
        "localhost: c (b)",
    ]


@pytest.mark.parametrize(
    ("seconds", "told"),
    [
        (0, "0s ago"),
        (-5, "0s ago"),  # a clock that was set back
        (59, "59s ago"),
        (60, "1min ago"),
        (61, "1min 1s ago"),
        (3600, "1h ago"),
        (3661, "1h 1min ago"),
        (86400, "1d ago"),
        (90061, "1d 1h ago"),
        (86461, "1d 1min ago"),
    ],
)
def test_a_span_is_told_in_its_two_largest_units(seconds: int, told: str) -> None:
    assert ago(NOW, NOW + seconds * 1000) == told


def test_a_moment_is_told_as_systemctl_tells_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TZ", "UTC")
    time.tzset()
    monkeypatch.setattr("rbee.keeper.output.tables.time.time_ns", lambda: 1_769_860_807 * 10**9)

    assert moment(1_769_860_800_000_000) == "Sat 2026-01-31 12:00:00 UTC; 7s ago"


def test_the_table_of_devices_has_what_they_do() -> None:
    header, cpu, gpu = live_table([HIVE_VIEW], {"localhost": SAMPLE}).splitlines()

    assert header.split()[3:7] == ["USE", "MEMORY", "TEMP", "POWER"]
    assert "42%  128.0 / 512.0 GiB" in cpu
    assert "97%  22.0 / 24.0 GiB    71 C  312 W" in gpu


def test_what_a_device_does_not_tell_is_a_dash() -> None:
    silent = SAMPLE._replace(
        cpu_percent=None, memory_used_bytes=None,
        gpus=(GpuSample(0, None, None, None, None, None, None, None),),
    )  # fmt: skip
    for samples in ({}, {"localhost": silent}):
        _, cpu, gpu = live_table([HIVE_VIEW], samples).splitlines()
        assert "-    512.0 GiB  -     -" in cpu
        assert "-    24.0 GiB   -     -" in gpu
