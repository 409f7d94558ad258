"""rbeectl as a person or a program meets it: words, streams and exit codes.

systemd is played at the edge; the queen answers on a real socket with the product's own server.
"""

from __future__ import annotations

from collections.abc import Iterator

import click
import pytest

import rbee.keeper.changes
import rbee.keeper.cli
import rbee.keeper.queen.queen
import rbee.keeper.queen.shutdown
import rbee.keeper.queen.sleep
import rbee.keeper.queen.wake
from rbee import __version__
from rbee.keeper.cli import cli
from rbee.narration import Event
from tests.unit.keeper.doubles import Ran, Rbeectl
from tests.unit.played_systemd import PlayedBus


def test_help_and_version_need_neither_systemd_nor_a_queen(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    assert rbeectl("--version") == Ran(0, f"rbeectl {__version__}\n", "")
    for arguments in (["--help"], ["-h"], ["add-hive", "--help"], ["status", "-h"]):
        ran = rbeectl(*arguments)
        assert ran.code == 0
        assert ran.out.startswith("Usage: rbeectl")
    assert bus.opened == 0


@pytest.mark.parametrize(
    ("typed", "meant"),
    [
        ("list-hvies", "list-hives"),
        ("listhives", "list-hives"),
        ("shutdwon", "shutdown"),
        ("Doctor", "doctor"),
        ("list", "list-hives or list-devices or list-workers or list-engines?"),
        ("hive", "add-hive or remove-hive?"),
        ("devices", "list-devices?"),
        ("stat", "status?"),
    ],
)
def test_a_verb_that_was_mistyped_suggests_the_near_one(rbeectl: Rbeectl, typed: str, meant: str) -> None:
    ran = rbeectl(typed)

    assert ran.code == 2
    assert f"No such command '{typed}'; did you mean {meant}" in ran.err


def test_a_verb_of_a_group_that_was_mistyped_suggests_the_near_one(rbeectl: Rbeectl) -> None:
    ran = rbeectl("catalog", "chekc")

    assert ran.code == 2
    assert "No such command 'chekc'; did you mean check?" in ran.err


def test_a_verb_like_no_other_suggests_none(rbeectl: Rbeectl) -> None:
    assert "did you mean" not in rbeectl("xyzzy").err


def verbs_below(group: click.Group, path: str = "") -> Iterator[tuple[str, click.Command]]:
    context = click.Context(group)
    for name in group.list_commands(context):
        command = group.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            yield from verbs_below(command, f"{name} ")
        else:
            yield path + name, command


VERBS = dict(verbs_below(cli))


@pytest.mark.parametrize("path", VERBS)
def test_each_verb_has_help_and_takes_json(path: str) -> None:
    verb = VERBS[path]
    options = {name for option in verb.params for name in option.opts}

    assert path.endswith(verb.name or "?")
    assert verb.help
    assert {"--json", "--quiet", "--debug", "--no-color"} <= options


def test_the_keeper_s_own_lines_have_names_that_programs_can_find() -> None:
    keeper = rbee.keeper
    modules = (
        keeper.changes,
        keeper.queen.queen,
        keeper.queen.shutdown,
        keeper.queen.sleep,
        keeper.queen.wake,
    )
    told = [value for module in modules for value in vars(module).values() if isinstance(value, Event)]

    assert {event.speaker for event in told} == {"bee keeper"}


@pytest.mark.parametrize(
    ("arguments", "named"),
    [
        (("label", "gpu 1", "a=b"), "HIVE"),
        (("label", "gpu1", "a b=1"), "KEY"),
        (("label", "gpu1", "a=b c"), "VALUE"),
        (("label", "gpu1", "x"), "KEY"),
        (("cordon", "gpu 1", "why"), "HIVE"),
        (("cordon", "gpu1", "\t"), "REASON"),
        (("uncordon", "gpu 1"), "HIVE"),
        (("audit", "gpu 1"), "HIVE"),
        (("token", "create", "--ttl", "31d"), "--ttl"),
        (("token", "create", "--hive", "gpu 1"), "--hive"),
        (("token", "revoke", "0123"), "TOKEN"),
        (("join", "queen:0"), "QUEEN"),
        (("join", "queen", "--name", "gpu 1"), "--name"),
        (("join", "queen", "--token", "secret"), "token"),
        (("tcp", "enable", "--listen", "queen"), "--listen"),
        (("remove-hive", "gpu 1", "--force"), "HIVE"),
        (("list-hives", "-l", "a b"), "-l"),
        (("list-devices", "-l", ""), "-l"),
    ],
    ids=lambda value: " ".join(value) if type(value) is tuple else value,
)
def test_a_program_reads_which_input_was_wrong_and_nobody_is_woken(
    bus: PlayedBus, rbeectl: Rbeectl, arguments: tuple[str, ...], named: str
) -> None:
    ran = rbeectl("--json", *arguments)

    (told,) = ran.json
    assert (ran.code, told["event"], told["status"], told["field"]) == (2, "error", 400, named)
    assert "secret" not in ran.out + ran.err
    assert bus.asked == []


@pytest.mark.parametrize(
    "arguments",
    [("audit",), ("token", "list"), ("tcp", "status"), ("list-hives", "-l", "rack")],
    ids=" ".join,
)
def test_looking_wakes_nobody(bus: PlayedBus, rbeectl: Rbeectl, arguments: tuple[str, ...]) -> None:
    ran = rbeectl(*arguments)

    assert (ran.code, ran.out) == (3, "")
    assert ran.err == "rbeectl: the queen is asleep; this command does not wake it\n  try: rbeectl wake\n"
    assert bus.asked == []
