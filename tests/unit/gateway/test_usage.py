"""The tokens that engines report."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.gateway.usage import TAIL_KEPT, Usage

USAGE = {"prompt_tokens": 7, "completion_tokens": 3, "total_tokens": 10}
BOTH = {"prompt": 7, "completion": 3}


def of(*parts: bytes) -> dict[str, int]:
    usage = Usage()
    for part in parts:
        usage.note(part)
    return usage.tokens()


def test_a_stream_reports_them_at_its_end() -> None:
    deltas = [b'data: {"choices":[{"delta":{"content":"x"}}],"usage":null}\n\n'] * 2000

    assert of(*deltas, b"data: %b\n\ndata: [DONE]\n\n" % json.dumps({"usage": USAGE}).encode()) == BOTH


def test_embeddings_report_them_at_the_beginning() -> None:
    answer = json.dumps({"usage": {"prompt_tokens": 7}, "data": [0.123456] * 20_000}).encode()

    assert len(answer) > TAIL_KEPT
    assert of(answer) == {"prompt": 7}


def test_anthropic_s_streams_report_them_in_two_events() -> None:
    begin = b'data: {"type":"message_start","message":{"usage":{"input_tokens":7,"output_tokens":1}}}\n\n'
    end = b'data: {"type":"message_delta","usage":{"output_tokens":3}}\n\n'

    assert of(begin, end) == BOTH


@pytest.mark.parametrize(
    "answer",
    [
        b"",
        b'{"usage":7}',
        b'{"usage":{"prompt_tokens":"7"}}',
        b'{"usage":{"prompt_tokens":',
        b'"usage":{',
        b"\xff",
    ],
)
def test_what_is_not_reported_is_not_counted(answer: bytes) -> None:
    assert of(answer) == {}


@given(st.lists(st.binary(max_size=9000), max_size=12))
def test_what_is_kept_is_bounded(parts: list[bytes]) -> None:
    usage = Usage()
    for part in parts:
        usage.note(part)

    kept = b"".join(usage._tail)
    assert len(kept) <= 2 * TAIL_KEPT
    assert b"".join(parts).endswith(kept)
    usage.tokens()
