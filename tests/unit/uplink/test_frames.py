"""The frames on a control connection: a line each, read in whatever pieces they come."""

from __future__ import annotations

import json

import pytest

from rbee.errors import BadInput, NotPermitted, RbeeError
from rbee.uplink.frames import (
    FRAME_LIMIT,
    KINDS,
    Dial,
    Frame,
    Frames,
    Goodbye,
    UplinkRoutes,
    hello,
    read_frame,
    refusal_of,
    write_frame,
)
from rbee.wire.heartbeats import Heartbeat, HeartbeatAck
from tests.unit.played_hive import Pipe

BEAT = Heartbeat("gpu1", "2026-01-31T12:00:00Z", (), "1" * 32)
FRAMES: dict[str, Frame] = {
    "beat": BEAT,
    "ack": HeartbeatAck("ok", 15_000),
    "refusal": refusal_of(NotPermitted("not you", hint="ask")),
    "dial": Dial("7" * 32),
    "goodbye": Goodbye(),
}


class End(Frames):
    """One end, with what it has received, and by what the other side has broken the protocol."""

    def __init__(self) -> None:
        super().__init__()
        self.read: list[Frame] = []
        self.breaches: list[BadInput] = []

    def received(self, frame: Frame) -> None:
        self.read.append(frame)

    def broken(self, error: BadInput) -> None:
        self.breaches.append(error)


def test_there_is_an_example_of_each_kind() -> None:
    assert set(FRAMES) == set(KINDS)


@pytest.mark.parametrize("kind", KINDS)
def test_a_frame_is_a_line_and_comes_back_as_it_went(kind: str) -> None:
    line = write_frame(FRAMES[kind])

    assert line.endswith(b"\n")
    assert line.count(b"\n") == 1
    assert list(json.loads(line)) == [kind]
    assert read_frame(line.rstrip(b"\n")) == FRAMES[kind]


@pytest.mark.parametrize(
    ("line", "said"),
    [
        (b"", "the frame is not JSON"),
        (b'{"goodbye": {}', "the frame is not JSON"),
        (b"\xff", "the frame is not JSON"),
        (b"[" * 100_000, "the frame is not JSON"),
        (b"[]", "a frame must be a JSON object with one member"),
        (b"{}", "a frame must be a JSON object with one member"),
        (b'{"goodbye": {}, "dial": {}}', "a frame must be a JSON object with one member"),
        (b'{"hello": {}}', "there is no frame of the kind 'hello'"),
        (b'{"dial": {"id": "none"}}', r"dial\.id must "),
        (b'{"beat": {}}', r"beat\.hive_id"),
    ],
)
def test_what_is_no_frame_is_refused_by_its_part(line: bytes, said: str) -> None:
    with pytest.raises(BadInput, match=said):
        read_frame(line)


def test_a_newer_side_may_say_more() -> None:
    assert read_frame(b'{"goodbye": {"until": "tomorrow"}}') == Goodbye()


def test_an_error_goes_as_a_problem_document() -> None:
    problem = refusal_of(NotPermitted("not you", hint="ask"))

    assert (problem.detail, problem.hint, problem.status) == ("not you", "ask", NotPermitted.status)


@pytest.mark.parametrize("size", [1, 7, 1000])
def test_frames_are_read_in_whatever_pieces_they_come(size: int) -> None:
    end, sent = End(), b"".join(map(write_frame, FRAMES.values()))
    for at in range(0, len(sent), size):
        end.data_received(sent[at : at + size])

    assert (end.read, end.breaches) == (list(FRAMES.values()), [])


def test_a_frame_without_an_end_is_a_breach_once_it_is_too_large() -> None:
    end = End()
    end.data_received(b"x" * FRAME_LIMIT)
    assert end.breaches == []
    end.data_received(b"x")

    assert [error.message for error in end.breaches] == [f"a frame is larger than {FRAME_LIMIT} bytes"]


def test_what_comes_before_a_breach_is_read() -> None:
    end = End()
    end.data_received(write_frame(BEAT) + b"[]\n" + write_frame(Goodbye()))

    assert end.read == [BEAT]
    assert len(end.breaches) == 1


async def test_what_is_sent_to_a_closed_connection_is_dropped() -> None:
    end, sent = End(), bytearray()
    end.send(Goodbye())
    end.connection_made(Pipe(end, sent.extend))
    end.send(Goodbye())

    assert bytes(sent) == write_frame(Goodbye())


def test_a_connection_begins_with_a_request_to_change_the_protocol() -> None:
    lines = hello(UplinkRoutes.CARRIER, "queen", {"X-Of": "gpu1"}, dial_id="7" * 32).decode().split("\r\n")

    assert lines == [
        f"GET /v1/uplink/{'7' * 32} HTTP/1.1",
        "Host: queen",
        "Connection: Upgrade",
        "Upgrade: rbee-hive/1",
        "X-Of: gpu1",
        "",
        "",
    ]


def test_any_error_of_ours_can_be_a_refusal() -> None:
    for kind in RbeeError.__subclasses__():
        assert refusal_of(kind("x" * 5000)).title
