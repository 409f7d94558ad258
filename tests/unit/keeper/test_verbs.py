"""The verbs of an operator's day: what each asks of systemd and of the queen, and what it prints."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest
from starlette.requests import Request

import rbee.keeper.verbs.logs
import rbee.keeper.verbs.status
from rbee import __version__
from rbee.contracts import FeedEvent, FeedEvents, Health, QueenRoutes, Route, encode
from rbee.errors import NotPermitted, UnitFailed, UnknownHive
from rbee.keeper.journal import is_readable, matches
from rbee.scope import HIVE_SOCKET_UNIT, HIVE_UNIT, QUEEN_SOCKET_UNIT, QUEEN_UNIT, REDIAL_UNIT
from rbee.server.app import Handler
from rbee.systemd.unit import UnitState
from tests.unit.keeper.doubles import AT, JOB, LISTENING, Bus, Ran, Rbeectl, WithQueen, listing
from tests.unit.played_systemd import ACTIVE, INACTIVE, NOT_FOUND
from tests.unit.shapes import HIVE_VIEW

FAILED = UnitState("loaded", "failed", "failed", result="start-limit-hit")


# wake


def test_waking_starts_her_unit_and_says_so(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("wake")

    assert bus.asked == [("start", QUEEN_UNIT)]
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Queen is awake")
    assert rbeectl("wake", "--json").json[-1] == {"event": "done", "queen": "awake"}
    assert bus.asked == [("start", QUEEN_UNIT)]  # she was awake by then


def test_waking_without_waiting_only_asks(bus: Bus, rbeectl: Rbeectl) -> None:
    bus.states[QUEEN_UNIT] = FAILED

    ran = rbeectl("wake", "--no-wait")

    assert bus.asked == [("reset-failed", QUEEN_UNIT), ("ask start", QUEEN_UNIT)]
    assert (ran.code, ran.out.splitlines()[-1]) == (0, "Queen is being woken")


# sleep


def test_sleeping_stops_her_and_leaves_her_socket(awake: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("sleep")

    assert awake.asked == [("stop", QUEEN_UNIT)]
    assert ran == Ran(0, "(bee keeper) Sending queen to sleep\nQueen is asleep\n", "")
    assert rbeectl("sleep", "--json").json == [{"event": "done", "queen": "asleep"}]


def test_sleeping_from_off_has_the_sockets_listen(bus: Bus, rbeectl: Rbeectl) -> None:
    bus.states[QUEEN_SOCKET_UNIT] = bus.states[HIVE_SOCKET_UNIT] = INACTIVE

    assert rbeectl("sleep") == Ran(0, "Queen is asleep\n", "")
    assert bus.asked == [("start", QUEEN_SOCKET_UNIT), ("start", HIVE_SOCKET_UNIT)]


def test_a_socket_that_is_not_installed_is_left_alone(bus: Bus, rbeectl: Rbeectl) -> None:
    bus.states[HIVE_SOCKET_UNIT] = UnitState("not-found", "inactive", "dead")

    assert rbeectl("sleep").code == 0
    assert bus.asked == []


def test_a_queen_who_is_woken_again_and_again_is_said_not_to_sleep(awake: Bus, rbeectl: Rbeectl) -> None:
    awake.after_stop[QUEEN_UNIT] = ACTIVE

    ran = rbeectl("sleep")

    assert ran.code == UnitFailed.exit_code
    assert awake.asked == [("stop", QUEEN_UNIT)] * 3
    assert "somebody wakes the queen again and again" in ran.err


def test_sleeping_without_waiting_only_asks(awake: Bus, rbeectl: Rbeectl) -> None:
    assert rbeectl("sleep", "--no-wait").out.endswith("Queen is being stopped\n")
    assert awake.asked == [("ask stop", QUEEN_UNIT)]


@pytest.mark.parametrize(("verb", "asks"), [("wake", "start"), ("sleep", "stop")])
def test_who_may_neither_wake_her_nor_send_her_to_sleep_is_told_why(
    bus: Bus, rbeectl: Rbeectl, verb: str, asks: str
) -> None:
    bus.states[QUEEN_UNIT] = INACTIVE if verb == "wake" else ACTIVE
    bus.refusals[asks, QUEEN_UNIT] = NotPermitted("systemd does not let you do this")

    ran = rbeectl(verb)

    assert ran.code == 77
    assert "try: " in ran.err


# version


def told_by(hive_version: str | None, queen_version: str = __version__) -> dict[Route, Handler]:
    async def health(_request: Request) -> Health:
        return Health("ok", queen_version)

    return {QueenRoutes.HEALTH: health, **listing(replace(HIVE_VIEW, version=hive_version))}


def test_versions_that_fit_have_no_note(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(told_by(__version__), lambda: rbeectl("version"))

    assert ran.code == 0
    assert [line.split() for line in ran.out.splitlines()] == [
        ["PROGRAM", "VERSION", "NOTE"],
        ["rbeectl", __version__],
        ["queen", __version__],
        ["hive", "localhost", __version__],
    ]


def test_a_skew_is_said_with_what_mends_it(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(told_by("0.0.8", "0.0.9"), lambda: rbeectl("version"))

    queen, hive = ran.out.splitlines()[2:]
    assert "0.0.9" in queen
    assert queen.endswith(f"the package has {__version__}: sudo systemctl try-restart queen-rbee.service")
    assert "0.0.8" in hive
    assert hive.endswith(f"the package has {__version__}: sudo systemctl try-restart rbee-hive.service")


@pytest.mark.parametrize(
    ("version", "note"),
    [
        ("0.0.9", ""),
        ("0.0.10", "newer than the queen's 0.0.9: upgrade rbee-queen, on this machine"),
        ("0.0.8", "older than the queen's 0.0.9: upgrade rbee-hive, on gpu1"),
    ],
)
def test_a_skew_with_another_machine_names_the_machine_and_the_package(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, version: str, note: str
) -> None:
    gpu1 = replace(HIVE_VIEW, id="gpu1", is_remote=True, version=version)
    queen = told_by("0.0.9", "0.0.9") | listing(gpu1)

    hive = with_queen(queen, lambda: rbeectl("version")).out.splitlines()[-1]

    assert hive == f"hive gpu1  {version:<7}  {note}".rstrip()


def test_an_asleep_queen_is_not_asked_for_her_version(bus: Bus, rbeectl: Rbeectl) -> None:
    ran = rbeectl("version")

    assert ran.code == 0
    assert ran.out.splitlines()[2].split() == ["queen", "-", "she", "is", "asleep"]
    assert rbeectl("version", "--json").json == [
        {"rbeectl": __version__, "queen": {"state": "asleep", "version": None}, "hives": []}
    ]


def test_a_hive_that_has_not_beaten_has_no_version(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    assert with_queen(told_by(None), lambda: rbeectl("version")).out.endswith(
        "hive localhost  -        it is online\n"
    )
    told = with_queen(told_by(None), lambda: rbeectl("version", "--json")).json[0]
    assert told["hives"] == [{"id": "localhost", "state": "online", "version": None}]


# show


def test_a_hives_properties_are_shown_a_line_each(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost"))

    shown = dict(line.split("=", 1) for line in ran.out.splitlines())
    assert ran.code == 0
    assert shown["Id"] == "localhost"
    assert shown["State"] == "online"
    assert shown["MemoryTotal"] == str(512 * 2**30)
    assert (shown["MemoryAllowed"], shown["CPUsAllowed"]) == ("", "")  # all of it
    assert shown["GPU0Name"] == "NVIDIA GeForce RTX 4090"
    assert shown["GPU0MemoryTotal"] == str(24 * 2**30)
    assert shown["Version"] == ""  # not known
    assert shown["Wanted"] == "yes"


@pytest.mark.parametrize(
    ("arguments", "out"),
    [
        (["-p", "State"], "State=online\n"),
        (["-p", "State", "-p", "Id"], "State=online\nId=localhost\n"),
        (["--property=Id,State"], "Id=localhost\nState=online\n"),
        (["-p", "State", "--value"], "online\n"),
        (["-p", "State,Port", "--json"], '{"State": "online", "Port": "8600"}\n'),
    ],
)
def test_properties_are_chosen_as_systemctl_show_does(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, arguments: list[str], out: str
) -> None:
    assert with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost", *arguments)) == Ran(0, out, "")


@pytest.mark.parametrize("verb", ["show", "status", "list-devices"])
def test_a_hive_is_found_in_any_case_of_its_name(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(verb, "LocalHost", "--json"))

    assert ran.code == 0
    assert '"id": "localhost"' in ran.out


@pytest.mark.parametrize("verb", ["show", "status", "list-devices"])
def test_one_hive_is_asked_for_alone(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any], verb: str
) -> None:
    queen = listing(HIVE_VIEW)
    del queen[QueenRoutes.HIVES]

    assert with_queen(queen, lambda: rbeectl(verb, "localhost")).code == 0


def test_a_queen_who_knows_one_spelling_alone_has_the_hive_found_in_her_list(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    async def unknown(_request: Request) -> Any:
        raise UnknownHive("hive 'LocalHost' is not in the hive catalog")

    queen = {**listing(HIVE_VIEW), QueenRoutes.HIVE: unknown}

    assert with_queen(queen, lambda: rbeectl("show", "LocalHost", "-p", "Id")).out == "Id=localhost\n"


def test_a_property_that_there_is_not_suggests_the_near_one(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost", "-p", "Sate"))

    assert (ran.code, ran.out) == (2, "")
    assert "no property 'Sate'; did you mean State" in ran.err


def test_for_programs_the_whole_hive_is_shown(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("show", "localhost", "--json"))

    assert ran.json == [{**encode(HIVE_VIEW), "sample": None}]


def test_a_hive_whose_devices_are_unknown_has_no_properties_for_them(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen
) -> None:
    hive = replace(HIVE_VIEW, devices=None, last_beat_ms=None)
    ran = with_queen(listing(hive), lambda: rbeectl("show", "localhost"))

    assert "LastHeartbeatTimestamp=\n" in ran.out
    assert "CPU" not in ran.out


@pytest.mark.parametrize("verb", ["show", "status", "list-devices"])
def test_a_mistyped_hive_suggests_the_near_one(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, verb: str
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl(verb, "lcoalhost"))

    assert (ran.code, ran.out) == (4, "")
    assert "hive 'lcoalhost' is not in the hive catalog; did you mean localhost?" in ran.err


# status HIVE


@pytest.fixture
def log(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    asked: list[Any] = []

    def tail(*wanted: str, lines: int) -> list[str]:
        asked.append((list(wanted), lines))
        return ["Nov 23 12:00:00 rbee rbee-hive[7]: hello", "\x1b[2J"]

    monkeypatch.setattr(rbee.keeper.verbs.status, "journal_tail", tail)
    return asked


def test_the_status_of_a_hive_is_like_that_of_a_unit(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any]
) -> None:
    ran = with_queen(listing(replace(HIVE_VIEW, version="7.8")), lambda: rbeectl("status", "localhost"))

    lines = [line.strip() for line in ran.out.splitlines()]
    assert ran.code == 0
    assert lines[0] == "● localhost - bee hive"
    assert lines[1].startswith("State: online since ")
    assert "Reason: its heartbeats come" in lines
    assert "Version: 7.8" in lines
    assert any(line.startswith("gpu0: NVIDIA GeForce RTX 4090, 24.0 GiB") for line in lines)
    assert lines[-2:] == ["Nov 23 12:00:00 rbee rbee-hive[7]: hello", "\\x1b[2J"]
    assert log == [(matches("localhost"), 10)]


def test_the_log_may_be_left_out(awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any]) -> None:
    assert (
        "hello" not in with_queen(listing(HIVE_VIEW), lambda: rbeectl("status", "localhost", "-n", "0")).out
    )
    assert log == []


def test_who_may_not_read_the_journal_sees_what_the_queen_keeps(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.verbs.status, "journal_tail", lambda *matches, lines: [])
    asked: list[dict[str, str]] = []

    async def last_events(request: Request) -> FeedEvents:
        asked.append(dict(request.query_params))
        event = FeedEvent("a" * 16 + "-7", AT, "detected", "bee hive", 5, "Detected\x1b[2J", "localhost")
        return FeedEvents(event.id, (event,))

    queen = {**listing(HIVE_VIEW), QueenRoutes.LAST_EVENTS: last_events}
    ran = with_queen(queen, lambda: rbeectl("status", "localhost", "-n", "2000"))
    for_programs = with_queen(queen, lambda: rbeectl("status", "localhost", "--json"))

    at = datetime.fromisoformat(AT).astimezone()
    assert ran.out.splitlines()[-1] == f"{at:%b %d %H:%M:%S} bee hive: Detected\\x1b[2J"
    assert asked == [{"hive": "localhost", "limit": "1000"}, {"hive": "localhost", "limit": "10"}]
    assert len(for_programs.json[0]["log"]) == 1


@pytest.mark.parametrize("state", ["unknown", "pending", "suspect", "offline"])
def test_a_hive_that_is_not_online_exits_3(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, log: list[Any], state: Any
) -> None:
    hive = replace(HIVE_VIEW, state=state, reason="because")
    ran = with_queen(listing(hive), lambda: rbeectl("status", "localhost", "--json"))

    assert ran.code == 3
    assert ran.json[0]["hive"] == encode(hive)
    assert len(ran.json[0]["log"]) == 2


# logs


@pytest.fixture
def executed(monkeypatch: pytest.MonkeyPatch) -> Callable[[], list[str]]:
    found: list[list[str]] = []
    monkeypatch.setattr(os, "execvp", lambda file, arguments: found.append(arguments))
    return lambda: found.pop()


ALL_UNITS = ["--unit", QUEEN_UNIT, "--unit", HIVE_UNIT, "--unit", REDIAL_UNIT]
UNITS = [f"_SYSTEMD_UNIT={QUEEN_UNIT}", f"_SYSTEMD_UNIT={HIVE_UNIT}"]


@pytest.mark.parametrize(
    ("arguments", "command"),
    [
        ([], [*ALL_UNITS]),
        (["-f", "-n", "5"], ["--follow", "--lines=5", *ALL_UNITS]),
        (["blade", "-x"], ["--catalog", "RBEE_HIVE=blade", UNITS[0], "+", "RBEE_HIVE=blade", UNITS[1]]),
        (
            ["localhost"],
            ["RBEE_HIVE=localhost", UNITS[0], "+", UNITS[1], "+", f"UNIT={HIVE_UNIT}", "_PID=1"],
        ),
        (["--job", JOB], [f"RBEE_JOB_ID={JOB}", UNITS[0], "+", f"RBEE_JOB_ID={JOB}", UNITS[1]]),
        (
            ["blade", "--job", JOB, "--json", "--no-pager"],
            [
                "--output=json", "--no-pager",
                f"RBEE_JOB_ID={JOB}", "RBEE_HIVE=blade", UNITS[0], "+",
                f"RBEE_JOB_ID={JOB}", "RBEE_HIVE=blade", UNITS[1],
            ],
        ),
        (["--", "--since=-1h", "-r"], ["--since=-1h", "-r", *ALL_UNITS]),
    ],
)  # fmt: skip
def test_logs_is_journalctl_with_the_right_matches(
    bus: Bus, rbeectl: Rbeectl, executed: Callable[[], list[str]], arguments: list[str], command: list[str]
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
    bus: Bus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch, arguments: list[str], instead: list[str]
) -> None:
    monkeypatch.setattr(rbee.keeper.verbs.logs, "is_readable", lambda: False)
    monkeypatch.setattr(os, "execvp", lambda file, arguments: pytest.fail("journalctl shows nothing"))

    ran = rbeectl("logs", *arguments)

    assert ran.code == 77
    assert "only root and the groups adm and systemd-journal" in ran.err
    assert [line for line in ran.err.splitlines() if "try: " in line] == [
        f"  try: {line}" for line in instead
    ]


def test_beside_a_hive_alone_nobody_is_pointed_to_monitor(
    bus: Bus, rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rbee.keeper.verbs.logs, "is_readable", lambda: False)
    bus.states |= {QUEEN_UNIT: NOT_FOUND, QUEEN_SOCKET_UNIT: NOT_FOUND}

    assert "monitor" not in rbeectl("logs").err


@pytest.mark.parametrize("folder", ["var/log/journal", "run/log/journal"])
def test_a_journal_is_readable_by_who_may_open_its_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, folder: str
) -> None:
    assert is_readable(tmp_path)  # journalctl says that there is none

    file = tmp_path / folder / "0123" / "system.journal"
    file.parent.mkdir(parents=True)
    file.touch()
    assert is_readable(tmp_path)
    monkeypatch.setattr(os, "access", lambda path, mode: path != file)
    assert not is_readable(tmp_path)


def test_the_log_of_a_hive_that_an_awake_queen_does_not_know_is_refused(
    awake: Bus, rbeectl: Rbeectl, with_queen: WithQueen, executed: Callable[[], list[str]]
) -> None:
    ran = with_queen(listing(HIVE_VIEW), lambda: rbeectl("logs", "nosuch"))

    assert (ran.code, ran.out) == (4, "")
    assert "hive 'nosuch' is not in the hive catalog" in ran.err
    assert with_queen(listing(HIVE_VIEW), lambda: rbeectl("logs", HIVE_VIEW.id.upper())).code == 0
    assert f"RBEE_HIVE={HIVE_VIEW.id}" in executed()


def test_a_machine_without_journalctl_says_so(rbeectl: Rbeectl, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PATH", "/nowhere")

    ran = rbeectl("logs")

    told = "rbeectl: journalctl cannot be run: No such file or directory\n  try: command -v journalctl\n"
    assert (ran.code, ran.err) == (1, told)


def test_a_listening_socket_is_what_asleep_means(bus: Bus, rbeectl: Rbeectl) -> None:
    assert bus.states[QUEEN_SOCKET_UNIT] == LISTENING
    assert "the queen is asleep" in rbeectl("status").out


# metrics


@pytest.mark.parametrize("name", ["-", "device", "folder", "link-to-device", "loop"])
def test_metrics_go_into_a_file_and_replace_nothing_else(
    bus: Bus, rbeectl: Rbeectl, tmp_path: Path, name: str
) -> None:
    os.mkfifo(tmp_path / "device")
    (tmp_path / "folder").mkdir()
    (tmp_path / "link-to-device").symlink_to("device")
    (tmp_path / "loop").symlink_to("loop")
    before = {one.name: one.lstat() for one in tmp_path.iterdir()}

    ran = rbeectl("metrics", "--textfile", name if name == "-" else str(tmp_path / name))

    assert (ran.code, ran.out) == (2, "")
    assert "is no file" in ran.err or "- is none" in ran.err
    assert "try: rbeectl metrics" in ran.err
    assert {one.name: one.lstat().st_ino for one in tmp_path.iterdir()} == {
        one: found.st_ino for one, found in before.items()
    }


def test_metrics_go_beside_what_a_link_leads_to(bus: Bus, rbeectl: Rbeectl, tmp_path: Path) -> None:
    (tmp_path / "there").mkdir()
    (tmp_path / "there/rbee.prom").write_text("old")
    (tmp_path / "rbee.prom").symlink_to("there/rbee.prom")

    assert rbeectl("metrics", "--textfile", str(tmp_path / "rbee.prom")).code == 0

    assert (tmp_path / "rbee.prom").is_symlink()
    assert "rbee_queen_up 0" in (tmp_path / "there/rbee.prom").read_text()
