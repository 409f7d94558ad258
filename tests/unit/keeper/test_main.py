"""What ends rbeectl, and what is said of that: usage, errors, interrupts, outputs that fail."""

from __future__ import annotations

import json

import pytest

import rbee.keeper.__main__
import rbee.keeper.session
from rbee.errors import RbeeError, Unreachable
from rbee.keeper.session import Session
from tests.unit.keeper.doubles import Rbeectl
from tests.unit.played_systemd import PlayedBus


@pytest.mark.parametrize(
    "arguments",
    [
        ["fly"],
        ["/fly"],
        ["--fly"],
        ["add-hive"],
        ["add-hive", "localhost", "too-many"],
        ["add-hive", "localhost", "--port"],
        ["add-hive", "localhost", "--port", "many"],
        ["remove-hive"],
        ["list-hives", "x"],
        ["status", "--yaml"],
    ],
    ids=" ".join,
)
def test_a_usage_error_exits_2_and_says_on_stderr_what_is_wrong(
    bus: PlayedBus, rbeectl: Rbeectl, arguments: list[str]
) -> None:
    ran = rbeectl(*arguments)

    assert (ran.code, ran.out) == (2, "")
    assert "Error: " in ran.err
    assert bus.opened == 0


@pytest.mark.parametrize(
    "arguments",
    [
        ["--json", "fly"],
        ["fly", "--json"],
        ["add-hive", "--json"],
        ["--json", "remove-hive"],
        ["list-hives", "--timeout=soon", "--json"],
        ["status", "--yaml", "--json"],
        ["catalog", "fly", "--json"],
        ["catalog", "backup", "-", "--json"],
    ],
    ids=" ".join,
)
def test_a_program_reads_of_a_usage_error_in_an_event_too(
    bus: PlayedBus, rbeectl: Rbeectl, arguments: list[str]
) -> None:
    ran = rbeectl(*arguments)

    assert (ran.code, ran.err) == (2, "")
    (event,) = ran.json
    assert (event["event"], event["type"]) == ("error", "urn:rbee:problem:bad-input")
    assert event["hint"].startswith("rbeectl ")
    assert event["hint"].endswith(" --help")


def test_behind_two_dashes_nothing_asks_for_json(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("remove-hive", "a", "--", "--json")

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.startswith("Usage: ")


@pytest.mark.parametrize("verb", ["add-hive", "remove-hive", "list-devices"])
def test_a_name_of_64_kilobytes_is_refused_without_being_repeated(
    awake: PlayedBus, rbeectl: Rbeectl, verb: str
) -> None:
    ran = rbeectl(verb, "x" * 65536)

    assert (ran.code, ran.out) == (2, "")
    assert ran.err.endswith("must have 1 to 253 characters, and has 65536\n")
    assert len(ran.err) < 100


def test_ctrl_c_anywhere_else_exits_130_too(
    bus: PlayedBus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(unit: str) -> str:
        raise KeyboardInterrupt

    monkeypatch.setattr(bus, "active_state", interrupted)

    ran = rbeectl("list-hives")

    assert (ran.code, ran.out.strip()) == (130, "")
    assert "Traceback" not in ran.err


def test_a_machine_without_a_bus_says_so(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    bus.refusals["open", ""] = Unreachable("the system bus does not answer", hint="systemctl status dbus")

    ran = rbeectl("status")

    assert (ran.code, ran.out) == (1, "")
    assert ran.err == "rbeectl: the system bus does not answer\n  try: systemctl status dbus\n"


def test_debug_shows_the_traceback_and_its_cause(bus: PlayedBus, rbeectl: Rbeectl) -> None:
    bus.refusals["open", ""] = Unreachable("the system bus does not answer")

    plain, debug = rbeectl("status"), rbeectl("--debug", "status")

    assert "Traceback" not in plain.err
    assert "Traceback" in debug.err
    assert plain.err in debug.err


def test_every_error_reaches_a_person_and_a_program(capfd: pytest.CaptureFixture[str]) -> None:
    kinds = RbeeError.__subclasses__()
    assert len(kinds) > 15
    for kind in kinds:
        assert rbee.keeper.__main__.report(kind("it broke", hint="mend it"), Session()) == kind.exit_code
        assert capfd.readouterr() == ("", "rbeectl: it broke\n  try: mend it\n")
        assert rbee.keeper.__main__.report(kind("it broke"), Session(as_json=True)) == kind.exit_code
        out, err = capfd.readouterr()
        assert (json.loads(out)["detail"], err) == ("it broke", "")
