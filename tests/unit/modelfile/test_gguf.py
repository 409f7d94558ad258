"""The headers of GGUF files: what they say, and what is refused."""

from __future__ import annotations

import io
import struct
from functools import partial
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput
from rbee.modelfile.gguf import PAIRS_MOST, TENSORS_MOST, read_gguf
from rbee.modelfile.reader import COUNT_MOST, Cut
from rbee.wire.codec import decode, encode
from rbee.wire.models import Head
from tests.model_files import ARRAY, F32, I32, STRING, U32, U64, gguf, pair, refusal_of, text


def read(content: bytes, size: int | None = -1) -> Head:
    head = read_gguf(io.BytesIO(content), "a.gguf", len(content) if size == -1 else size)
    assert decode(Head, encode(head)) == head  # within the bounds of the wire
    return head


def refusal(content: bytes) -> str:
    with pytest.raises(BadInput) as refused:
        read(content)
    assert "a.gguf" in refused.value.message
    assert refused.value.hint
    return refused.value.message


def started(tensors: int, pairs: int, rest: bytes = b"", version: int = 3) -> bytes:
    return struct.pack("<4sIQQ", b"GGUF", version, tensors, pairs) + rest


def test_a_llama_says_all_that_a_head_has() -> None:
    assert read(gguf()) == Head(
        format="gguf",
        architecture="llama",
        parameters=64 * 4 + 64,
        quantisation="F16",
        context=2048,
        layers=2,
        weights_bytes=64 * 4 * 2 + 64 * 4,
        kv_bytes_per_token=2 * 2 * 2 * (16 + 16),
        embedding=64,
        vocabulary=4,
        feed_forward=128,
    )


def test_version_two_is_read_and_others_are_refused() -> None:
    assert read(gguf(version=2)) == read(gguf())
    assert "version is 1" in refusal(gguf(version=1))
    assert "version is 50331648" in refusal(gguf(version=3 << 24))


def test_keys_that_are_missing_are_unknown() -> None:
    head = read(gguf({"llama.context_length": None, "llama.block_count": None, "general.file_type": None}))  # type: ignore[dict-item]

    assert (head.context, head.layers, head.kv_bytes_per_token, head.quantisation) == (
        None,
        None,
        None,
        "F16",
    )


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"llama.attention.key_length": (U32, 10), "llama.attention.value_length": (U32, 6)}, 2 * 2 * 2 * 16),
        ({"llama.attention.head_count_kv": None}, 2 * 2 * 4 * 32),
        ({"llama.attention.head_count_kv": (I32, [1, 3])}, 2 * 4 * 32),
        ({"llama.attention.head_count": (I32, [4, 4])}, 2 * 2 * 2 * 32),
        ({"llama.expert_count": (U32, 8)}, 2 * 2 * 2 * 32),
        ({"llama.attention.sliding_window": (U32, 0)}, 2 * 2 * 2 * 32),
        ({"llama.attention.head_count_kv": (I32, [1, 3, 5])}, None),
        ({"llama.attention.head_count": (I32, [4, 8])}, None),
        ({"llama.attention.sliding_window": (U32, 4096)}, None),
        ({"llama.attention.kv_lora_rank": (U32, 512)}, None),
        ({"llama.ssm.state_size": (U32, 16)}, None),
        ({"llama.attention.causal": (U32, 0)}, None),
    ],
)
def test_the_cache_is_known_for_plain_attention_only(keys: dict[str, Any], expected: int | None) -> None:
    assert read(gguf(keys)).kv_bytes_per_token == expected


def test_a_tensor_of_an_unknown_type_leaves_what_the_file_has_as_weights() -> None:
    content = gguf(tensors=())
    table = text("x") + struct.pack("<IQIQ", 1, 64, 200, 0)
    content = content.replace(
        struct.pack("<4sIQ", b"GGUF", 3, 0), struct.pack("<4sIQ", b"GGUF", 3, 1)
    ).rstrip(b"\0")

    head = read(content + table + bytes(1000))

    assert head.weights_bytes is not None
    assert 960 <= head.weights_bytes <= 1000
    assert head.parameters == 64


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (started(10**9, 0), "1000000000 tensors"),
        (started(TENSORS_MOST + 1, 0), "at most 65536"),
        (started(2**64 - 1, 0), "18446744073709551615 tensors"),
        (started(0, PAIRS_MOST + 1), "4097 keys"),
        (started(0, 1, struct.pack("<Q", 2**63)), "a key has 9223372036854775808 bytes"),
        (
            started(0, 1, text("k") + struct.pack("<IQ", STRING, 2**40)),
            "the text of k has 1099511627776 bytes",
        ),
        (started(0, 1, text("k") + struct.pack("<I", 77)), "k has the unknown type 77"),
        (
            started(0, 1, text("k") + struct.pack("<IIQ", ARRAY, U32, 2**50)),
            "k has 1125899906842624 elements",
        ),
        (
            started(0, 1, text("k") + struct.pack("<IIQ", ARRAY, ARRAY, 1)),
            "an array of the unsupported type 9",
        ),
        (started(0, 1, text("k") + struct.pack("<IIQ", ARRAY, 66, 1)), "an array of the unsupported type 66"),
        (started(0, 1, text("k") + struct.pack("<IIQQ", ARRAY, STRING, 1, 2**62)), "a text of k has"),
        (started(0, 2, pair("k", U32, 1) * 2), "the key k twice"),
        (started(1, 0, text("t") + struct.pack("<I", 0)), "0 dimensions"),
        (started(1, 0, text("t") + struct.pack("<I", 2**32 - 1)), "4294967295 dimensions"),
        (started(1, 0, text("t") + struct.pack("<IQQ", 2, 2**40, 2**40)), "the size of the tensor t"),
        (started(1, 0, text("t") + struct.pack("<IQIQ", 1, 33, 2, 0)), "not a multiple of 32"),
        (started(0, 0, bytes(64)), "does not name its architecture"),
        (gguf({"general.architecture": (STRING, "a\x1b[2J")}), "does not name its architecture"),
        (gguf({"llama.context_length": (U64, 2**63)}), "llama.context_length is 9223372036854775808"),
        (gguf({"llama.context_length": (I32, -1)}), "llama.context_length is -1"),
        (gguf({"llama.context_length": (F32, 1.5)}), "llama.context_length is not a number"),
        (gguf({"llama.attention.head_count_kv": (F32, [1.5, 2.5])}), "is not a list of integers"),
        (gguf({"llama.attention.head_count_kv": (I32, [1, -2])}), "head_count_kv is -2"),
        (gguf({"llama.block_count": (U64, COUNT_MOST)}), "its cache for a token"),
        (gguf({"general.alignment": (U32, 2**31)}), "alignment"),
        (gguf({"split.count": (U32, 3)}), "one of 3 parts"),
        (b"GGML" + bytes(100), "does not begin with GGUF"),
    ],
)
def test_what_cannot_be_is_refused_with_what_it_is(content: bytes, why: str) -> None:
    assert why in refusal(content)


def test_a_file_that_is_cut_is_refused_wherever_it_is_cut() -> None:
    whole = gguf()
    for end in range(len(whole)):
        assert "truncated" in refusal(whole[:end]), end
    read(whole)


def test_a_file_that_arrives_lacks_its_header_until_it_is_there() -> None:
    whole = gguf()
    heads = []
    for end in range(4, len(whole)):
        try:
            heads.append(read(whole[:end], size=len(whole)))
        except Cut:
            assert not heads
    assert set(heads) == {read(whole)}
    # One that promises fewer bytes than its tensors need is refused as soon as its header is there.
    with pytest.raises(BadInput) as refused:
        read(whole[:-100], size=len(whole) - 1)
    assert not isinstance(refused.value, Cut)


def test_a_large_vocabulary_is_passed_over() -> None:
    words = [f"word{number}" for number in range(200_000)]
    content = gguf({"tokenizer.ggml.tokens": (STRING, words), "tokenizer.ggml.scores": (F32, [0.0] * 2000)})

    assert read(content).vocabulary == 200_000


@given(st.binary(max_size=300))
def test_any_bytes_are_a_head_or_refused(rest: bytes) -> None:
    for content in (rest, b"GGUF" + rest, started(1, 1, rest), started(0, 3, rest)):
        for size in (len(content), None, 10**12):
            message = refusal_of(partial(read, content, size))
            assert message is None or "a.gguf" in message


@given(st.data())
def test_a_header_with_any_bytes_changed_is_a_head_or_refused(data: st.DataObject) -> None:
    content = bytearray(gguf())
    for _ in range(data.draw(st.integers(1, 8))):
        at = data.draw(st.integers(0, len(content) - 9))
        change = data.draw(
            st.binary(min_size=1, max_size=8) | st.sampled_from([b"\xff" * 8, bytes(8), b"\x80"])
        )
        content[at : at + len(change)] = change
    message = refusal_of(lambda: read(bytes(content)))

    assert message is None or "a.gguf" in message
