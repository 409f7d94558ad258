"""Frames of a lease as lines."""

from __future__ import annotations

import pytest

from rbee.errors import BadInput
from rbee.wire.leases import (
    LINE_MAX,
    Ask,
    Connect,
    End,
    Frame,
    FrameBuffer,
    Granted,
    Refused,
    Wait,
    decode_frame,
    encode_frame,
)

ID = "0" * 31 + "a"
FRAMES = (
    Ask("bee", ID, 60_000, uid=1000),
    Ask("bee", ID, 60_000, key="ab" * 32, address="127.0.0.1", resume="bee-1"),
    Wait("loading bee", 40.5, ID),
    Granted("bee-1", was_cold=True, job_id=ID),
    Refused({"type": "urn:rbee:problem:too-many", "detail": "no memory"}, retry_s=5),
    End(),
    Connect("bee-1"),
)


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: type(frame).__name__)
def test_a_frame_is_one_line_and_comes_back(frame: Frame) -> None:
    line = encode_frame(frame)

    assert line.index(b"\n") == len(line) - 1
    assert decode_frame(line) == frame


@pytest.mark.parametrize(
    ("line", "complaint"),
    [
        (b"{", "not JSON"),
        (b"[" * 60_000, "not JSON"),
        (b"[]\n", "one member"),
        (b'{"wait":{"text":"a"},"ask":{}}\n', "one member"),
        (b'{"howl":{}}\n', "one of ask, wait, granted, refused"),
        (b'{"granted":{"was_cold":true}}\n', "granted.worker is missing"),
        (b'{"refused":{"problem":7}}\n', "refused.problem"),
        (b" " * LINE_MAX + b"{}", "at most"),
    ],
)
def test_a_line_that_is_not_a_frame_is_refused_with_what_is_wrong(line: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        decode_frame(line)


def test_a_frame_that_is_too_long_is_not_sent() -> None:
    with pytest.raises(BadInput, match="at most"):
        encode_frame(Refused({"detail": "x" * LINE_MAX}))


def test_a_frame_comes_in_pieces_and_the_next_after_it() -> None:
    buffer = FrameBuffer()
    for frame in FRAMES:
        line = encode_frame(frame)
        assert [buffer.add(line[:3]), buffer.add(line[3:-1])] == [None, None]
        assert buffer.add(line[-1:]) == frame


@pytest.mark.parametrize(
    ("data", "complaint"),
    [
        (encode_frame(End()) * 2, "one frame at a time"),
        (encode_frame(End()) + b"{", "one frame at a time"),
        (b"hello\n", "not JSON"),
        (b"x" * LINE_MAX, "not JSON"),
        (b"x" * (LINE_MAX + 1), "at most"),
    ],
    ids=["two", "one and a half", "no JSON", "no end", "too long"],
)
def test_what_is_not_one_frame_is_refused(data: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        FrameBuffer().add(data)
