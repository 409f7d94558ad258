"""Names that could steer a terminal: by keyboard, by socket, from a hive and from its devices; never raw."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from testbed.machine import Machine

from tests.nvml import CONFIG_IN_MACHINE, StubCard, write_cards
from tests.system.commands import HIVE, QUEEN, add_hive, job_of, override, put, rbeectl, rows

CLEAR = "\x1b[2J\x1b]0;owned\x07"
CLEAR_LINE = "\x1b[K"
"""What rbeectl itself writes as it draws a line anew."""
TURNED = "\u202egnp.exe\u2066\u200f"
FORGED = "x\r\n(queen bee)  all is well\n<0>x\x00\x9b31m\x7f"
NAMES = (CLEAR, TURNED, "x\n(queen bee)  all is well\x9b31m\x7f", "y" * 65536)
"""For the keyboard, where an argument has no NUL and 128 KiB at the most."""

STEERING = {*map(chr, range(0x20)), *map(chr, range(0x7F, 0xA0)), *"\u061c\u200e\u200f\u2028\u2029"}
STEERING |= {*map(chr, range(0x202A, 0x202F)), *map(chr, range(0x2066, 0x206A))}
"""Controls, and the marks that turn the direction of text around."""


def raw(text: str) -> set[str]:
    """What in the text could steer whoever shows it; a line's end is one."""
    return STEERING & set(text.replace("\n", ""))


def is_clean(machine: Machine) -> None:
    """Nothing raw in what the journal and systemctl show of both, and no value that is taken for bytes."""
    units = (f"--unit={QUEEN}", f"--unit={HIVE}")
    entries = machine.journal(*units)
    assert entries
    for entry in entries:
        assert all(isinstance(value, str) for value in entry.values()), entry
        # What was logged, and what systemd knows of who did.
        assert not any(STEERING & set(value) for value in entry.values()), entry
    shown = machine.run("journalctl", "--output=cat", "--no-pager", *units).stdout
    # Each a line, and no line beside them; there may be more of them by now.
    assert shown.split("\n")[: len(entries)] == [entry["MESSAGE"] for entry in entries]
    for command in (
        ("journalctl", "--output=cat", "--no-pager", "--all", *units),
        ("journalctl", "--output=short", "--no-pager", *units),
        ("journalctl", "--output=verbose", "--no-pager", *units),
        ("systemctl", "status", "--no-pager", "--full", QUEEN, HIVE),
        ("systemctl", "show", "--property=StatusText", QUEEN, HIVE),
    ):
        told = machine.run(*command, check=False).stdout
        assert told
        assert not raw(told), command
        assert "blob data" not in told, command


def ask(machine: Machine, method: str, path: str, body: Any = None) -> tuple[int, str]:
    """Status and the text as it came of a request by ada, as curl would show it to her."""
    done = machine.run(
        "curl", "--silent", "--unix-socket", "/run/rbee/queen.sock", "--max-time", "20", "--request", method,
        "--write-out", "\n%{http_code}", *(("--data-binary", "@-") if body is not None else ()),
        f"http://localhost{path}", input=json.dumps(body), user=None if "heartbeat" in path else "ada",
    )  # fmt: skip
    content, _, status = done.stdout.rpartition("\n")
    return int(status), content


def test_names_from_the_keyboard_are_refused_and_shown_escaped(machine: Machine) -> None:
    add_hive(machine)
    before = rows(machine)
    for name in NAMES:
        for argv in (
            ("add-hive", name),
            ("add-hive", name, "--json"),
            ("--debug", "add-hive", name),
            ("remove-hive", name),
            ("list-devices", name),
            (name,),
            (f"--{name}",),
            ("add-hive", "localhost", "--port", name),
        ):
            answer = rbeectl(machine, *argv)
            said = answer.out + answer.err
            assert answer.code == 2, (argv, answer)
            assert not raw(said), argv
            assert "\n(queen bee)" not in said, "a line was forged"
            # What a usage error repeats was typed here, and goes no further.
            assert len(said) < 5000 or "Usage: " in said, "64 KB are not repeated"
    # On a terminal and by bytes that are no Unicode; script(1) shows all that comes.
    for verb, name in (
        ("add-hive", r"\e[2J"),
        ("remove-hive", r"\xff\xe2\x80\xae"),
        ("list-devices", r"a\x9bb"),
    ):
        shell = f"rbeectl --no-color {verb} $'{name}'"
        shown = machine.run(
            "script", "--quiet", "--return", "--command", f"bash -c {json.dumps(shell)}", "/dev/null",
            user="ada", env={"TERM": "xterm"}, check=False,
        )  # fmt: skip
        assert shown.returncode == 2, shown
        told = shown.stdout.replace("\r\n", "\n").replace(CLEAR_LINE, "")
        assert not raw(told), (shell, shown)
    assert rows(machine) == before
    is_clean(machine)


def test_names_over_the_socket_are_refused_or_escaped(machine: Machine) -> None:
    add_hive(machine)
    before = rows(machine)
    for name in (CLEAR, TURNED, FORGED, "y" * 65536, "\ud800", "", "ü"):
        status, text = ask(machine, "POST", "/add-hive", {"host": name})
        assert status in (400, 422)
        assert json.loads(text)["field"] == "host"
        assert not raw(text)
        assert len(text) < 2500, "64 KB are not repeated"
    for path in ("%1B%5B2J", "%E2%80%AE", "a%0Ab", "%C2%9B31m", "%00", "%FF", "y" * 20_000):
        for method, at in (
            ("GET", "/v1/hives/"),
            ("DELETE", "/v1/hives/"),
            ("GET", "/v1/jobs/"),
            ("GET", "/"),
        ):
            status, text = ask(machine, method, at + path)
            assert status in (400, 404), (method, at + path)
            assert json.loads(text)["type"].startswith("urn:rbee:problem:")
            assert not raw(text)
            assert len(text) < 5000
    assert rows(machine) == before
    is_clean(machine)


def test_what_a_hive_says_cannot_steer_who_reads_its_story(machine: Machine) -> None:
    # A hive that is being woken, so that its story is still open.
    override(
        machine, HIVE, "[Service]\nExecStartPre=/bin/sh -c 'until test -e /run/go; do sleep 0.02; done'\n"
    )
    adding = machine.popen("rbeectl", "add-hive", "localhost", user="ada")
    assert adding.stdout
    told = ""
    while "waking up the bee hive" not in told:
        told += (line := adding.stdout.readline())
        assert line, told
    forged = {"speaker": "queen bee", "event": "add-failed", "at": "2026-01-31T12:00:00Z"}
    beat = {
        "hive_id": "localhost", "timestamp": "2026-01-31T12:00:00Z", "workers": [], "instance": "0" * 32,
        "state": "starting", "job_id": job_of(machine), "version": CLEAR + TURNED,
        "lines": [{**forged, "text": text} for text in (CLEAR, TURNED, FORGED, "z" * 2000)],
    }  # fmt: skip
    assert ask(machine, "POST", "/heartbeat", beat)[0] == 200
    status, text = ask(machine, "POST", "/heartbeat", {**beat, "lines": [{**forged, "text": "z" * 65536}]})
    assert (status, json.loads(text)["field"]) == (400, "lines[0].text")
    for wrong in ({"event": CLEAR}, {"speaker": TURNED}, {"at": FORGED}):
        status, text = ask(
            machine, "POST", "/heartbeat", {**beat, "lines": [{**forged, "text": "", **wrong}]}
        )
        assert (status, json.loads(text)["field"]) == (400, f"lines[0].{next(iter(wrong))}")
        assert not raw(text)
    machine.run("touch", "/run/go")
    rest, said = adding.communicate(timeout=20)
    assert adding.returncode == 0, said
    story = told + rest
    assert not raw(story)
    # All of it was told, each as a line of the hive's own.
    lines = story.splitlines()
    assert r"(bee hive)   \x1b[2J\x1b]0;owned\x07" in lines
    assert r"(bee hive)   \u202egnp.exe\u2066\u200f" in lines
    assert r"(bee hive)   x\r\n(queen bee)  all is well\n<0>x\x00\x9b31m\x7f" in lines
    assert f"(bee hive)   {'z' * 2000}" in lines
    assert not raw(ask(machine, "GET", f"/v1/jobs/{job_of(machine)}/events")[1])
    is_clean(machine)


NAIVE = """#!/usr/bin/python3 -I
# rbee-hive without what makes names fit to be shown: another maker's hive need not have it.
import sys
sys.path.insert(0, "/usr/share/rbee-hive")
from rbee.hive.devices import cards, cpu, detector, pci
from rbee.hive.devices.nvml import answers, library

def naive(raw, most=0):
    return raw.decode(errors="replace") if isinstance(raw, bytes) else raw

for module in (cards, cpu, detector, pci, answers, library):
    module.printable = naive
from rbee.hive.__main__ import main

sys.exit(main())
"""


@pytest.mark.parametrize("is_naive", [False, True], ids=["a-hive-of-ours", "a-hive-that-passes-on-anything"])
def test_names_of_devices_cannot_steer_who_lists_them(
    machine: Machine, library: Path, tmp_path: Path, is_naive: bool
) -> None:
    names = [f"Card {CLEAR}", f"Card {TURNED}", "Card \r(queen bee)  all is well\x9b31m\x7f\u2028x"]
    cards = [StubCard(f"0000:0{n}:00.0", 2**30, f"GPU-{n}{CLEAR}", name) for n, name in enumerate(names, 1)]
    config = tmp_path / "nvml-stub.conf"
    write_cards(config, cards, driver=f"1{TURNED}")
    config.chmod(0o644)
    machine.copy_in(config, CONFIG_IN_MACHINE)
    machine.copy_in(library, "/usr/lib/x86_64-linux-gnu/libnvidia-ml.so.1")
    machine.run("ldconfig")
    if is_naive:
        put(machine, "/usr/local/lib/naive-hive", NAIVE)
        machine.run("chmod", "+x", "/usr/local/lib/naive-hive")
        override(machine, HIVE, "[Service]\nExecStart=\nExecStart=/usr/local/lib/naive-hive\n")

    adding = add_hive(machine)
    told = json.loads(rows(machine)[0]["devices"])
    assert [gpu["name"] for gpu in told["gpus"]] != [], told
    # The names did come as far as the catalog, or were made fit by the hive.
    assert bool(STEERING & set("".join(gpu["name"] for gpu in told["gpus"]))) == is_naive
    table = rbeectl(machine, "list-devices")
    assert len(table.lines) == 1 + 1 + len(cards)
    shown = r"Card \x1b[2J\x1b]0;owned\x07" if is_naive else "Card [2J ]0;owned"
    assert shown in table.out
    assert shown in adding.out
    for verb in (
        ["list-devices"],
        ["list-devices", "--json"],
        ["list-hives"],
        ["status"],
        ["status", "--json"],
    ):
        assert not raw(rbeectl(machine, *verb).out), verb
    assert not raw(adding.out + adding.err)
    for path in ("/v1/hives", "/v1/hives/localhost", f"/v1/jobs/{job_of(machine)}/events"):
        assert not raw(ask(machine, "GET", path)[1]), path
    is_clean(machine)
