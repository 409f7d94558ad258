"""The verb monitor: what it prints of what happens, and how it is asked and ended."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from datetime import datetime
from typing import Any

import click
import pytest

import rbee.keeper.verbs.monitor
from rbee.errors import BadInput, NotPermitted
from rbee.keeper.monitor import Event, QueenIs
from rbee.keeper.output.screen import Screen
from rbee.keeper.queen.queen import Queen
from rbee.keeper.session import Session
from rbee.keeper.verbs.monitor import AsLines, moment_ms
from rbee.wire.events import FeedEvent, Gap
from tests.unit.keeper.doubles import JOB, Ran, Rbeectl
from tests.unit.played_systemd import PlayedBus


def at(text: str) -> str:
    """A moment of this day's local time, as the feed has it."""
    return f"{datetime.now():%Y-%m-%d}T{text}{datetime.now().astimezone():%z}"


def event(text: str, priority: int = 6, **more: Any) -> FeedEvent:
    fields = {"at": at("12:00:01.234"), "hive": "localhost"} | more
    return FeedEvent(
        id="a" * 16 + "-1", event="hive-online", speaker="queen bee", priority=priority, text=text, **fields
    )


Asked = list[tuple[tuple[Any, ...], dict[str, Any]]]


@pytest.fixture
def happens(bus: PlayedBus, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Asked]:
    """Has these things happen, and then what ends it; gives what the keeper is asked."""

    def prepare(*told: Event, ends: BaseException | None = None) -> Asked:
        asked: Asked = []

        def happening(_queen: Queen, *arguments: Any, **options: Any) -> Iterator[Event]:
            asked.append((arguments, options))
            yield from told
            raise ends or KeyboardInterrupt

        monkeypatch.setattr(rbee.keeper.verbs.monitor, "happening", happening)
        return asked

    return prepare


Happens = Callable[..., Asked]


def test_a_line_an_event_with_time_hive_and_kind(happens: Happens, rbeectl: Rbeectl) -> None:
    happens(
        QueenIs("asleep", "queen is asleep, waiting until she wakes."),
        event("it is online"),
        event("queen-rbee is awake", hive=None),
        Gap("a-1", "b-1"),
    )

    ran = rbeectl("monitor")

    assert ran.out.splitlines() == [
        "-- queen is asleep, waiting until she wakes. --",
        "12:00:01 localhost hive-online       it is online",
        "12:00:01 -         hive-online       queen-rbee is awake",
        "-- Some events are missing here: the queen does not have them any more. --",
    ]


def test_ctrl_c_ends_it_quietly_as_it_ends_journalctl(happens: Happens, rbeectl: Rbeectl) -> None:
    happens()

    assert rbeectl("monitor") == Ran(130, "", "")


def test_what_ends_it_is_said(happens: Happens, rbeectl: Rbeectl) -> None:
    happens(ends=NotPermitted("not you"))

    ran = rbeectl("monitor")

    assert (ran.code, ran.out) == (77, "")
    assert "not you" in ran.err


def test_events_of_another_day_stand_under_their_date(happens: Happens, rbeectl: Rbeectl) -> None:
    happens(event("then", at="2020-01-31T12:00:00.000Z"), event("again", at="2020-01-31T12:00:00.000Z"))

    ran = rbeectl("monitor")

    day = datetime.fromisoformat("2020-01-31T12:00:00Z").astimezone().date()
    assert [line[:16] for line in ran.out.splitlines()].count(f"-- {day} --"[:16]) == 1
    assert ran.out.startswith(f"-- {day} --\n")


def test_for_programs_each_is_a_json_object_on_a_line(happens: Happens, rbeectl: Rbeectl) -> None:
    happens(
        QueenIs("off", "queen is off"),
        event("it is online", 5, job_id=JOB, actor_uid=1000),
        Gap("a-1", "b-1"),
    )

    ran = rbeectl("monitor", "--json")

    assert ran.json == [
        {"event": "queen", "state": "off", "text": "queen is off"},
        {
            "event": "narrated", "kind": "hive-online", "id": "a" * 16 + "-1", "at": at("12:00:01.234"),
            "speaker": "queen bee", "priority": 5, "text": "it is online", "hive": "localhost",
            "job_id": JOB, "actor_uid": 1000, "problem": None,
        },
        {"event": "gap", "after": "a-1", "first": "b-1"},
    ]  # fmt: skip


def test_quiet_leaves_out_what_only_the_keeper_says(happens: Happens, rbeectl: Rbeectl) -> None:
    happens(QueenIs("asleep", "queen is asleep"), event("it is online"))

    assert rbeectl("monitor", "-q").out.splitlines() == ["12:00:01 localhost hive-online       it is online"]


def test_what_could_steer_a_terminal_is_escaped(happens: Happens, rbeectl: Rbeectl) -> None:
    happens(event("a\x1b[2Jb\nc", hive="x\x1b"), QueenIs("failed", "it said \x1b[2J"))

    ran = rbeectl("monitor")

    assert "\x1b" not in ran.out
    assert len(ran.out.splitlines()) == 2
    assert json.loads(rbeectl("monitor", "--json").out.splitlines()[0])["text"] == "a\x1b[2Jb\nc"


@pytest.mark.parametrize(("priority", "code"), [(3, "1;31"), (4, "1;33"), (5, "1"), (6, ""), (7, "")])
def test_priorities_have_journalctls_colours(
    monkeypatch: pytest.MonkeyPatch, priority: int, code: str
) -> None:
    said: list[str] = []
    monkeypatch.setattr(click, "echo", said.append)  # which takes colours away where there is no terminal
    session = Session()
    session.screen = Screen(True, True, True, True, 80, 24)

    AsLines(session).show(event("text", priority))

    assert said[0].endswith(f" \033[{code}mtext\033[0m" if code else " text")


@pytest.mark.parametrize(
    ("arguments", "hive", "options"),
    [
        ([], None, {"lines": 10, "since_ms": None}),
        (["localhost"], "localhost", {"lines": 10, "since_ms": None}),
        (["-n", "0"], None, {"lines": 0, "since_ms": None}),
        (["--lines=1000"], None, {"lines": 1000, "since_ms": None}),
        (["--since", "all", "localhost"], "localhost", {"lines": 10, "since_ms": 0}),
    ],
    ids=str,
)
def test_what_is_asked_for(
    happens: Happens, rbeectl: Rbeectl, arguments: list[str], hive: str | None, options: dict[str, Any]
) -> None:
    asked = happens()

    rbeectl("monitor", *arguments)

    assert asked == [((hive,), options)]


@pytest.mark.parametrize(
    "arguments",
    [["-n", "-1"], ["-n", "1001"], ["-n", "x"], ["--since", "soon"], ["-n", "1", "--since", "all"], ["a/b"]],
    ids=" ".join,
)
def test_what_cannot_be_is_a_usage_error_before_anybody_is_asked(
    happens: Happens, bus: PlayedBus, rbeectl: Rbeectl, arguments: list[str]
) -> None:
    happens()

    ran = rbeectl("monitor", *arguments)

    assert (ran.code, ran.out, bus.opened) == (2, "", 0)
    assert ran.err


def test_a_time_is_what_journalctl_takes_for_one(monkeypatch: pytest.MonkeyPatch) -> None:
    now = datetime(2026, 1, 31, 12, 0, 0).timestamp()
    monkeypatch.setattr(time, "time", lambda: now)

    assert moment_ms("all") == 0
    assert moment_ms("-10min") == moment_ms("10min ago") == round((now - 600) * 1000)
    assert moment_ms("-1h 30s") == round((now - 3630) * 1000)
    assert moment_ms("2026-01-31 11:59:59.5") == round((now - 0.5) * 1000)
    assert moment_ms("2026-01-31") == round((now - 12 * 3600) * 1000)
    assert moment_ms("2026-01-31T11:00:00+00:00") == 1769857200000
    assert moment_ms("-99999d") == 0
    assert datetime.fromtimestamp(moment_ms("today") / 1000).time().isoformat() == "00:00:00"


@pytest.mark.parametrize(
    "text", ["", "soon", "10min", "-", " ago", "- ago", "2026-13-01", "-1e999d", "9" * 400 + "d ago"]
)
def test_what_is_no_time_is_refused(text: str) -> None:
    with pytest.raises(BadInput, match="--since must be a time such as") as caught:
        moment_ms(text)

    assert caught.value.field == "--since"
