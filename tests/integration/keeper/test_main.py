"""What ends rbeectl, and what is said of that, with a queen that is served."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request
from starlette.responses import Response

from rbee.errors import UnknownHost
from rbee.systemd.daemon import Notifier
from rbee.wire.routes import QueenRoutes
from tests.integration.keeper.hostile_queen import shown_by
from tests.unit.keeper.doubles import FAILED, FAILURE, REPOSITORY, Rbeectl, WithQueen
from tests.unit.played_systemd import PlayedBus

NAMES = ("\x1b[2J", "a\nb", "\u202egnp.exe", "\x9b31m", "\udcff", "\x7f")
"""What would clear a screen, forge a line, turn text around, or is no Unicode."""


@pytest.mark.parametrize("name", NAMES, ids=ascii)
@pytest.mark.parametrize(
    "arguments",
    [
        ["add-hive", "{}"],
        ["add-hive", "localhost", "{}"],
        ["add-hive", "localhost", "--port", "{}"],
        ["add-hive", "localhost", "--{}"],
        ["add-hive", "localhost", "-{}"],
        ["remove-hive", "{}"],
        ["list-devices", "{}"],
        ["{}"],
        ["--{}"],
        ["--debug", "add-hive", "{}"],
        ["--debug", "list-devices", "{}"],
        ["list-hives", "--json={}"],
    ],
    ids=" ".join,
)
def test_a_name_that_could_steer_the_terminal_is_never_shown_raw(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: list[str], name: str
) -> None:
    async def refuse(_request: Request) -> Response:
        raise UnknownHost(f"host '{name}' is not known", hint=name.replace("\n", ""))

    ran = with_queen(
        {QueenRoutes.ADD_HIVE: refuse}, lambda: rbeectl(*(one.format(name) for one in arguments))
    )

    assert ran.code == 2
    assert (ran.out + ran.err).strip()
    assert all(line.isprintable() for line in (ran.out + ran.err).split("\n"))
    # A line that the name would have forged.
    assert not any(line.startswith("b") for line in (ran.out + ran.err).split("\n"))


def test_for_a_program_the_error_is_json_on_stdout(
    awake: PlayedBus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen({QueenRoutes.ADD_HIVE: FAILURE}, lambda: rbeectl("add-hive", "localhost", "--json"))

    assert (ran.code, ran.err) == (1, "")
    assert ran.json[-1] == {"event": "error", **FAILED.to_problem()}


def rbeectl_process(*arguments: str, **options: Any) -> subprocess.CompletedProcess[bytes]:
    return subprocess.run(
        [sys.executable, "-m", "rbee.keeper", *arguments], cwd=REPOSITORY, timeout=20, **options
    )


def test_output_that_nobody_reads_is_no_traceback() -> None:
    reader, writer = os.pipe()
    os.close(reader)
    ran = rbeectl_process("--help", stdout=writer, stderr=subprocess.PIPE)
    os.close(writer)

    assert ran.returncode == 1
    assert ran.stderr == b""


def test_a_terminal_that_does_not_speak_utf_8_gets_escapes_and_no_traceback() -> None:
    ran = rbeectl_process(
        "add-hive", "größe", "--port", "0", capture_output=True,
        env={**os.environ, "PYTHONIOENCODING": "ascii", "PYTHONUTF8": "0", "LC_ALL": "C"},
    )  # fmt: skip

    assert b"Traceback" not in ran.stderr
    assert ran.stderr


OURS = re.compile("\x1b\\[(?:0|1|1;3[0-7]|3[0-7])m|\r(?=\x1b\\[K)|\x1b\\[K|\r?\n|\x1b\\[[0-9]+A\r\x1b\\[J")
"""What rbeectl itself may write to a terminal."""


VERBS = (
    "list-hives", "list-hives --full", "list-devices", "status", "status gpu1", "show gpu1",
    "show gpu1 --value -p GPU0Name", "metrics", "audit", "token list", "token create",
    "token revoke 0123abcd", "tcp status", "version", "catalog check", "add-hive localhost",
    "remove-hive gpu1", "remove-hive gpu1 --debug",
)  # fmt: skip


@pytest.mark.parametrize("verb", VERBS)
def test_nothing_that_others_chose_steers_a_terminal(
    tmp_path: Path, silent_notifier: Notifier, verb: str
) -> None:
    shown = shown_by(tmp_path, silent_notifier, *verb.split())

    assert [one for one in OURS.sub("", shown) if not one.isprintable()] == []
    # It is there all the same, for who reads it.
    assert "owned" in shown


def test_nor_does_it_where_all_of_the_screen_is_drawn(tmp_path: Path, silent_notifier: Notifier) -> None:
    shown = shown_by(tmp_path, silent_notifier, "top", "-n", "1")

    # curses' own sequences are many; none of these is among them.
    assert [one for one in ("\x1b]", "\x07", "\x1b[8m", "\x9b", "\x90", "\u202e") if one in shown] == []
    assert "gpu1" in shown
