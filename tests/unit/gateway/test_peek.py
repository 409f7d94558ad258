"""What the gateway reads of a body."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.gateway.peek import TOKENS_MAX, Peeked, peek

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
    ],
)
def test_the_refusal_says_why(body: bytes, complaint: str) -> None:
    with pytest.raises(BadInput, match=complaint):
        peek(body)
