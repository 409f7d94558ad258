"""The verb logs."""

from __future__ import annotations

import os
from collections.abc import Callable

import pytest

import rbee.keeper.verbs.logs
from rbee.errors import NotPermitted, NotRunning
from rbee.journal.reader import Outputs
from rbee.scope import HIVE_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT, REDIAL_UNIT, Scope
from rbee.wire.logs import LogQuery
from tests.unit.keeper.doubles import JOB, Rbeectl
from tests.unit.played_systemd import NOT_FOUND, PlayedBus

ALL_UNITS = ["--unit", QUEEN_UNIT, "--unit", HIVE_UNIT, "--unit", REDIAL_UNIT]

UNITS = [f"_SYSTEMD_UNIT={QUEEN_UNIT}", f"_SYSTEMD_UNIT={HIVE_UNIT}"]

LEVEL = "--priority=info"
"""Leaves out what hives repeat of the output of engines."""

OF_JOB = " + ".join(f"RBEE_JOB_ID={JOB} {match}" for match in (*UNITS, "_SYSTEMD_SLICE=rbee.slice")).split()
"""Gateway and workers, too, whose units are in the slice."""


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], [LEVEL, *ALL_UNITS]),
        (["-f", "-n", "5"], [LEVEL, "--follow", "--lines=5", *ALL_UNITS]),
        (
            ["blade", "-x"],
            [LEVEL, "--catalog", "RBEE_HIVE=blade", UNITS[0], "+", "RBEE_HIVE=blade", UNITS[1]],
        ),
        (
            ["localhost"],
            [LEVEL, "RBEE_HIVE=localhost", UNITS[0], "+", UNITS[1], "+", f"UNIT={HIVE_UNIT}", "_PID=1"],
        ),
        (["--job", JOB], OF_JOB),
        (
            ["blade", "--job", JOB, "--json", "--no-pager"],
            [
                "--output=json", "--no-pager",
                f"RBEE_JOB_ID={JOB}", "RBEE_HIVE=blade", UNITS[0], "+",
                f"RBEE_JOB_ID={JOB}", "RBEE_HIVE=blade", UNITS[1], "+",
                f"RBEE_JOB_ID={JOB}", "RBEE_HIVE=blade", "_SYSTEMD_SLICE=rbee.slice",
            ],
        ),
        (["--", "--since=-1h", "-p", "debug"], [LEVEL, "--since=-1h", "-p", "debug", *ALL_UNITS]),
    ],
)  # fmt: skip
def test_logs_is_journalctl_with_the_right_matches(
    bus: PlayedBus,
    rbeectl: Rbeectl,
    executed: Callable[[], list[str]],
    arguments: list[str],
    command: list[str],
) -> None:
    assert rbeectl("logs", *arguments).code == 0
    assert executed() == ["journalctl", *command]


@pytest.mark.parametrize(
    "arguments", [["a b"], ["--job", "7"], ["--job", "x" * 32], ["-n", "-1"], ["a", "b"]]
)
def test_what_cannot_be_in_the_journal_is_refused(
    rbeectl: Rbeectl, executed: Callable[[], list[str]], arguments: list[str]
) -> None:
    ran = rbeectl("logs", *arguments)

    assert (ran.code, ran.out) == (2, "")


def no_door(monkeypatch: pytest.MonkeyPatch) -> None:
    """A user who may not read the journal, on a machine where nobody shows it a part."""

    def ask_door(*_arguments: object) -> int:
        raise NotRunning("nobody listens")

    monkeypatch.setattr(rbee.keeper.verbs.logs, "is_readable", lambda: False)
    monkeypatch.setattr(rbee.keeper.verbs.logs, "ask_door", ask_door)


def test_the_group_s_door_shows_the_journal_to_who_may_not_read_it(
    bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    asked: list[LogQuery] = []

    def ask_door(query: LogQuery, outputs: Outputs, scope: Scope) -> int:
        asked.append(query)
        os.write(outputs.output, b"shown\n")
        return 3

    monkeypatch.setattr(rbee.keeper.verbs.logs, "is_readable", lambda: False)
    monkeypatch.setattr(rbee.keeper.verbs.logs, "ask_door", ask_door)

    ran = rbeectl("logs", "blade", "--job", JOB, "-f", "--no-pager", "--", "-o", "cat")

    assert (ran.code, ran.out, ran.err) == (3, "shown\n", "")
    assert asked == [LogQuery(hive="blade", job=JOB, options=("--follow", "--no-pager", "-o", "cat"))]


def test_a_door_that_is_not_open_to_a_user_says_which_group_is_missing(
    bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def ask_door(*_arguments: object) -> int:
        raise NotPermitted("the socket is not open to you")

    monkeypatch.setattr(rbee.keeper.verbs.logs, "is_readable", lambda: False)
    monkeypatch.setattr(rbee.keeper.verbs.logs, "ask_door", ask_door)

    ran = rbeectl("logs")

    assert (ran.code, "group rbee" in ran.err) == (77, True)


@pytest.mark.parametrize(
    ("arguments", "instead"),
    [
        ([], ["rbeectl monitor", "sudo rbeectl logs"]),
        (["-f", "blade"], ["rbeectl monitor blade", "sudo rbeectl logs -f blade"]),
        (["--", "-o", "a b"], ["rbeectl monitor", "sudo rbeectl logs -- -o 'a b'"]),
    ],
    ids=" ".join,
)
def test_who_may_not_read_the_journal_is_pointed_to_monitor(
    bus: PlayedBus,
    rbeectl: Rbeectl,
    monkeypatch: pytest.MonkeyPatch,
    arguments: list[str],
    instead: list[str],
) -> None:
    no_door(monkeypatch)
    monkeypatch.setattr(os, "execvp", lambda file, arguments: pytest.fail("journalctl shows nothing"))

    ran = rbeectl("logs", *arguments)

    assert ran.code == 77
    assert "only root and the groups adm and systemd-journal" in ran.err
    assert [line for line in ran.err.splitlines() if "try: " in line] == [
        f"  try: {line}" for line in instead
    ]


def test_beside_a_hive_alone_nobody_is_pointed_to_monitor(
    bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    no_door(monkeypatch)
    bus.states |= {QUEEN_UNIT: NOT_FOUND, QUEEN_SOCKET_UNIT: NOT_FOUND}

    assert "monitor" not in rbeectl("logs").err


def test_a_machine_without_journalctl_says_so(rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    ran = rbeectl("logs")

    told = "rbeectl: journalctl cannot be run: No such file or directory\n  try: command -v journalctl\n"
    assert (ran.code, ran.err) == (1, told)
