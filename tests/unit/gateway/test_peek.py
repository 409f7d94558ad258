"""What the gateway reads of a body."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.gateway.peek import MEMBERS_MAX, TOKENS_MAX, Peeked, peek

ANY_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda children: st.lists(children, max_size=4) | st.dictionaries(st.text(), children, max_size=4),
    max_leaves=20,
)
MODEL = st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=60)


@given(
    st.dictionaries(st.text(), ANY_JSON, max_size=6),
    MODEL,
    ANY_JSON,
    st.booleans(),
    st.sampled_from([None, 1]),
)
def test_it_is_what_json_says(
    others: dict[str, Any], model: str, stream: Any, escaped: bool, indent: int | None
) -> None:
    body = {**others, "model": model, "stream": stream}
    content = json.dumps(body, ensure_ascii=escaped, indent=indent).encode("utf-8", "surrogatepass")

    assert peek(content) == Peeked(model, stream is True)


@given(st.text('\\\\"{}[],: a'), st.integers(1, 3))
def test_json_in_strings_in_strings_is_skipped(text: str, depth: int) -> None:
    for _ in range(depth):
        text = json.dumps(text)
    body = {"a": text, "b": [{"c": text}, text], text: 1, "model": "bee", "stream": True}

    assert peek(json.dumps(body).encode()) == Peeked("bee", True)


@contextmanager
def calls_counted() -> Iterator[list[int]]:
    """The number of calls within the context, of functions in Python and in C."""
    calls = [0]

    def count(_frame: object, event: str, _argument: object) -> None:
        calls[0] += event in ("call", "c_call")

    before = sys.getprofile()
    sys.setprofile(count)
    try:
        yield calls
    finally:
        sys.setprofile(before)


@pytest.mark.parametrize("escape", ['\\"', "\\\\", "\\n"])
@pytest.mark.parametrize("end", ['"', ""])
def test_a_string_is_skipped_at_once_however_many_escapes_it_has(escape: str, end: str) -> None:
    body = f'{{"model": "bee", "result": ["{escape * 100_000}{end}]}}'.encode()

    with calls_counted() as calls:
        try:
            peek(body)
        except BadInput:
            assert not end

    assert calls[0] < 200


@given(st.binary(max_size=60) | st.text('{}[]":,\\ am1', max_size=60).map(str.encode))
def test_anything_else_is_read_or_refused(content: bytes) -> None:
    try:
        peek(content)
    except BadInput:
        return


@given(st.integers(0, 70))
def test_a_body_that_is_cut_is_refused(end: int) -> None:
    body = json.dumps({"a": ["b\\", {"c": '\\"'}], "model": "bee", "stream": True, "last": "lasts"}).encode()

    with pytest.raises(BadInput):
        peek(body[:end])


def test_the_last_of_two_counts_and_escapes_are_read() -> None:
    assert peek(b'{"model":"a","mod\\u0065l":"b\\u0065e"}') == Peeked("bee", False)


@pytest.mark.parametrize("size", [4094, 4095, 5000, 1_000_000])
def test_a_member_with_a_long_name_is_skipped(size: int) -> None:
    body = json.dumps({"a" * size: {"model": "wasp"}, "model": "bee", "stream": True}).encode()

    assert peek(body) == Peeked("bee", True)


@pytest.mark.parametrize(
    ("body", "complaint"),
    [
        (b"[]", "not an object"),
        (b"{}", "model is missing"),
        (b'{"model":7}', "must be a model's name"),
        (b'{"model":""}', "must be a model's name"),
        (b'{"model":"%b"}' % (b"x" * 254), "at most 253"),
        (b'{"model":"%b"}' % (b"x" * 5000), "must be a model's name"),
        (b'{"model" "bee"}', "':' is missing"),
        (b'{"model":"bee" "a":1}', "',' is missing"),
        (b'{"a":,"model":"bee"}', "a value is missing"),
        (b'{"model":"\xff"}', "not valid JSON"),
        (b"[" * 1_000_000, "not an object"),
        (b'{"a":' + b"[" * (TOKENS_MAX + 1), "strings and brackets"),
        (b'{"model":"bee"%b}' % (b',"a":1' * MEMBERS_MAX), "more than 10000 members"),
    ],
)
def test_the_refusal_says_why(body: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        peek(body)
