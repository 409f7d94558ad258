"""Whatever comes in from outside gives what was asked for or an error of ours, and never another."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import tempfile
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st
from pystemd.dbuslib import path_decode, path_encode

from rbee import config, text
from rbee.client.answers import read_answer, refusal
from rbee.client.queen import StoryEvent, _Answer, _events
from rbee.config import Config, GatewayConfig, HiveConfig, QueenConfig
from rbee.errors import PROBLEM_PREFIX, BadConfig, RbeeError, Unreachable, from_problem
from rbee.scope import SYSTEM
from rbee.systemd.connection import unit_path
from rbee.systemd.daemon import take_sockets, watchdog_interval
from rbee.text import parse_span
from rbee.wire.routes import FleetRoutes, HiveRoutes, QueenRoutes
from tests.unit.wire_values import ANYTHING

# rbee.conf


def read(text: bytes) -> Config | BadConfig:
    """What a file with these bytes makes of the configuration."""
    with tempfile.TemporaryDirectory() as root:
        path = Path(root, "etc/rbee/rbee.conf")
        path.parent.mkdir(parents=True)
        path.write_bytes(text)
        try:
            return config.load(Path(root))
        except BadConfig as error:
            refused = error
        assert str(path) in refused.message
        assert str(path) in (refused.hint or "")
        return refused


KEYS = [
    (section, field.metadata["key"], field.name)
    for section, kind in config.SECTIONS.items()
    for field in dataclasses.fields(kind)
]
SPANS = st.lists(
    st.tuples(
        st.integers(0, 10**6) | st.floats(0, 10**6).map(lambda number: f"{number:.3f}"),
        st.sampled_from(["", " "]),
        st.sampled_from(["", *text._UNITS]),
    ).map(lambda parts: "".join(map(str, parts))),
    min_size=1,
    max_size=3,
).map(" ".join)
VALUES = st.one_of(
    st.text(max_size=30),
    SPANS,
    st.integers().map(str),
    st.sampled_from(["", "9" * 400, "1e999", "nan", "inf", "/a\0b", "/srv/x", "٣", "x" * 2000, "\x1b[2J"]),
)


@given(st.binary(max_size=200) | st.text().map(lambda text: text.encode(errors="surrogatepass")))
@example(b"\xef\xbb\xbf[Queen]\n")
@example(b"[Queen]\n JobsMax\n")
@example(b" x\n[Queen]\n")
@example(b"[]\nJobsMax=3\n")
@example(b"[Queen]\nJobsMax=3\n 4\n")
def test_any_file_is_a_configuration_or_refused_by_its_name(text: bytes) -> None:
    read(text)


@given(st.sampled_from(KEYS), VALUES)
def test_any_value_of_a_key_is_within_its_bounds_or_refused_by_the_key(
    key: tuple[str, str, str], value: str
) -> None:
    section, name, attribute = key
    outcome = read(f"[{section}]\n{name}={value}\n".encode())

    if isinstance(outcome, BadConfig):
        # Two that do not go together are refused by either, with both in the message.
        assert outcome.field in (name, None) or f"{name}=" in outcome.message
        assert len(outcome.message) < 1400
        return
    taken = getattr(getattr(outcome, section.lower()), attribute)
    if isinstance(taken, float):
        assert 0.1 <= taken <= (86400 * 365 if name == "IdleExitSec" else 3600)
    elif isinstance(taken, int):
        assert 1 <= taken <= 10_000
    elif isinstance(taken, Path):
        assert taken.is_absolute()
        assert "\0" not in str(taken)
    defaults = {"Queen": QueenConfig(), "Hive": HiveConfig(), "Gateway": GatewayConfig()}
    for other_section, _, other in KEYS:
        if (other_section, other) != (section, attribute):
            assert getattr(getattr(outcome, other_section.lower()), other) == getattr(
                defaults[other_section], other
            )


@given(st.text(max_size=30) | SPANS)
def test_any_text_is_a_time_span_or_no_value(text: str) -> None:
    with contextlib.suppress(ValueError):
        assert parse_span(text) >= 0


# Answers of a queen who is none


class Channel:
    """A connection on which these parts come, and then its end."""

    def __init__(self, parts: list[bytes]) -> None:
        self._parts = [part for part in parts if part]

    def settimeout(self, seconds: float) -> None:
        pass

    def recv(self, size: int) -> bytes:
        part = self._parts.pop(0) if self._parts else b""
        assert len(part) <= size
        return part


def events_in(parts: list[bytes]) -> list[StoryEvent]:
    answer = _Answer(Channel(parts), 1.0, lambda most: most, SYSTEM)  # type: ignore[arg-type]
    answer.await_status()
    return list(_events(answer))


def as_answer(body: bytes) -> bytes:
    return b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)


def split(content: bytes, places: list[int]) -> list[bytes]:
    marks = [0, *sorted(place % (len(content) + 1) for place in places), len(content)]
    return [content[a:b] for a, b in pairwise(marks)]


CUTS = st.lists(st.integers(0, 10_000), max_size=8)
OBJECTS = st.dictionaries(st.text(max_size=5), st.text() | st.integers() | st.none(), max_size=3)
LINES = st.lists(
    st.one_of(
        st.builds(b"%s: %s".__mod__, st.tuples(st.sampled_from([b"id", b"event", b"data"]), st.binary())),
        st.sampled_from(
            [b"", b"data: {}", b"data: [", b"event: done", b"id: 9" + b"9" * 5000, b":", b"\xff"]
        ),
        OBJECTS.map(lambda value: b"data: " + json.dumps(value).encode()),
    )
)


@given(st.lists(st.tuples(st.sampled_from(["job", "line", "new"]), OBJECTS)), CUTS)
def test_a_story_is_heard_as_it_was_told_however_it_is_cut(
    told: list[tuple[str, dict[str, Any]]], cuts: list[int]
) -> None:
    story = [*told, ("done", {"hive": None})]
    body = "".join(
        f"id: {number}\nevent: {kind}\ndata: {json.dumps(data)}\n\n"
        for number, (kind, data) in enumerate(story)
    )

    heard = events_in(split(as_answer(body.encode()), cuts))

    assert [(event.kind, event.data) for event in heard] == story
    assert [event.id for event in heard] == list(range(len(story)))


@given(st.binary() | LINES.map(lambda lines: as_answer(b"\n".join(lines))) | LINES.map(b"\n".join), CUTS)
@example(b"HTTP/1.1 101 Switching\r\nUpgrade: x\r\nConnection: upgrade\r\n\r\n", [])
@example(as_answer(b"data: " + b"[" * 50_000 + b"\n\n"), [])
def test_whatever_comes_for_a_story_is_events_or_the_queens_fault(content: bytes, cuts: list[int]) -> None:
    try:
        heard = events_in(split(content, cuts))
    except Unreachable:
        return
    assert heard[-1].kind in ("done", "error")


BODIES = st.one_of(
    st.binary(),
    ANYTHING.map(lambda value: json.dumps(value).encode()),
    st.sampled_from([b"", b"[" * 50_000, b"9" * 5000, b'"\\ud800"', b"\xff\xfe", b"{}" * 2]),
)
ROUTES = [
    route
    for route in (*QueenRoutes.ALL, *FleetRoutes.ALL, *HiveRoutes.ALL)
    if route.answer not in (None, bytes)  # a story, or a file: neither is read as JSON
]


@given(st.sampled_from(ROUTES), BODIES, st.integers(100, 599))
def test_whatever_comes_for_an_answer_is_its_shape_or_the_other_sides_fault(
    route: Any, body: bytes, status: int
) -> None:
    try:
        answer = read_answer(route, body, status)
    except Unreachable:
        return
    assert route.answer is dict or isinstance(answer, route.answer)


@given(BODIES, st.integers(400, 599))
def test_whatever_comes_for_a_refusal_is_an_error_of_ours(body: bytes, status: int) -> None:
    try:
        error = refusal(body, status)
    except Unreachable:
        return
    assert isinstance(error, RbeeError)


MEMBERS = st.sampled_from(["type", "title", "status", "detail", "field", "hint"])


@given(st.dictionaries(MEMBERS, ANYTHING | st.just(f"{PROBLEM_PREFIX}unknown-hive")))
def test_any_problem_is_an_error_that_can_be_told_on(problem: dict[str, Any]) -> None:
    error = from_problem(problem)

    assert isinstance(error.message, str)
    assert error.message
    assert from_problem(error.to_problem()).message == error.message[:2000]


# What systemd hands over


@given(st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), min_size=1))
def test_the_object_path_of_any_name_is_the_one_that_sd_bus_makes(name: str) -> None:
    path = unit_path(name)

    assert path == path_encode(b"/org/freedesktop/systemd1/unit", name.encode())
    assert path_decode(path, b"/org/freedesktop/systemd1/unit") == name.encode()


WORDS = st.text(max_size=20) | st.sampled_from(["0", "-1", "+1", " 1", "1.0", "²", "1\n", "", "9" * 5000])


@given(st.dictionaries(st.sampled_from(["LISTEN_PID", "LISTEN_FDS", "LISTEN_FDNAMES"]), WORDS))
def test_variables_that_name_no_socket_of_ours_are_refused_and_taken_away(environ: dict[str, str]) -> None:
    # Sockets that really are handed over would be this test's own descriptors.
    if environ.get("LISTEN_PID") == str(os.getpid()):
        return

    with pytest.raises(BadConfig, match="systemd handed over no socket"):
        take_sockets(environ)
    assert environ == {}


@given(WORDS)
@example("٣")
def test_a_number_of_sockets_that_is_none_is_refused(count: str) -> None:
    environ = {"LISTEN_PID": str(os.getpid()), "LISTEN_FDS": count}
    if count.isascii() and count.isdecimal() and len(count) < 10 and int(count) > 0:
        return

    with pytest.raises(BadConfig, match="systemd handed over no socket"):
        take_sockets(environ)


@given(WORDS | st.integers(0, 10**30).map(str), WORDS | st.just(str(os.getpid())))
def test_any_watchdog_is_a_time_or_none(usec: str, pid: str) -> None:
    interval = watchdog_interval({"WATCHDOG_USEC": usec, "WATCHDOG_PID": pid})

    assert interval is None or interval > 0
