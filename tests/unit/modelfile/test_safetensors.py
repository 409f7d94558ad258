"""The headers of safetensors, one file or a folder of them."""

from __future__ import annotations

import io
import json
import struct
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.errors import BadInput, RbeeError
from rbee.modelfile.formats import JSON_MOST
from rbee.modelfile.reader import Cut
from rbee.modelfile.safetensors import INDEX, read_folder, read_safetensors
from rbee.wire.codec import decode, encode
from rbee.wire.models import Head
from tests.model_files import refusal_of, safetensors
from tests.unit.wire_values import ANYTHING

CONFIG = {
    "architectures": ["LlamaForCausalLM"],
    "model_type": "llama",
    "max_position_embeddings": 2048,
    "num_hidden_layers": 2,
    "hidden_size": 64,
    "intermediate_size": 128,
    "vocab_size": 1000,
    "num_attention_heads": 4,
    "num_key_value_heads": 2,
}


def read(content: bytes) -> Head:
    head = read_safetensors(io.BytesIO(content), "a.safetensors", len(content))
    assert decode(Head, encode(head)) == head
    return head


def tensor(**fields: Any) -> dict[str, Any]:
    return {"a": {"dtype": "F32", "shape": [4], "data_offsets": [0, 16]} | fields}


def folder(path: Path, config: Any = CONFIG, **shards: bytes) -> Path:
    (path / "config.json").write_text(json.dumps(config))
    for name, content in (shards or {"model": safetensors()}).items():
        (path / f"{name}.safetensors").write_bytes(content)
    return path


def test_a_file_says_how_much_its_tensors_take() -> None:
    assert read(safetensors()) == Head(
        format="safetensors", parameters=20, quantisation="BF16", weights_bytes=48
    )


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"", "truncated"),
        (struct.pack("<Q", JSON_MOST + 1), f"at most {JSON_MOST}"),
        (struct.pack("<Q", 2**64 - 1), "18446744073709551615 bytes"),
        (struct.pack("<Q", 100) + b"{", "truncated"),
        (safetensors(b"{"), "JSON cannot be read"),
        (safetensors(b"[" * 100_000), "JSON cannot be read"),
        (safetensors(b'{"a": ' * 50_000), "JSON cannot be read"),
        (safetensors(b"\xff\xfe"), "JSON cannot be read"),
        (safetensors(b'{"a": ' + b"9" * 5000 + b"}"), "JSON cannot be read"),
        (safetensors([]), "not an object"),
        (safetensors({"a": 1}), "the tensor a is not an object"),
        (safetensors(tensor(dtype=None)), "no dtype"),
        (safetensors(tensor(dtype="\x1b[2J")), "no dtype"),
        (safetensors(tensor(shape=[-4])), "no valid shape"),
        (safetensors(tensor(shape=[True])), "no valid shape"),
        (safetensors(tensor(shape=[1] * 17)), "no valid shape"),
        (safetensors(tensor(shape=[2**30, 2**30])), "the size of the tensor a"),
        (safetensors(tensor(data_offsets=[16, 0])), "no valid data_offsets"),
        (safetensors(tensor(data_offsets=[0, 16, 32])), "no valid data_offsets"),
        (safetensors(tensor(data_offsets=[0, 2**60])), "no valid data_offsets"),
        (safetensors(tensor(data_offsets=[0, 12])), "12 bytes for 4 elements of F32"),
        (safetensors(tensor(data_offsets=[64, 80])), "its tensors need"),
        (safetensors()[:-1], "its tensors need"),
    ],
)
def test_what_cannot_be_is_refused_with_what_it_is(content: bytes, why: str) -> None:
    with pytest.raises(BadInput, match=why) as refused:
        read(content)
    assert "a.safetensors" in refused.value.message


def test_a_file_that_is_cut_is_refused_wherever_it_is_cut() -> None:
    whole = safetensors()
    for end in range(len(whole)):
        with pytest.raises(BadInput):
            read(whole[:end])
        try:
            read_safetensors(io.BytesIO(whole[:end]), "a", len(whole))
        except Cut:
            assert end < len(whole) - 48


@given(ANYTHING)
def test_any_json_is_a_head_or_refused(value: Any) -> None:
    for header in (value, {"a": value}, tensor(shape=value), tensor(data_offsets=value), tensor(dtype=value)):
        content = json.dumps(header).encode()
        message = refusal_of(partial(read, struct.pack("<Q", len(content)) + content + bytes(16)))
        assert message is None or "a.safetensors" in message


# A folder


def test_a_folder_says_what_its_configuration_does(tmp_path: Path) -> None:
    head, size = read_folder(folder(tmp_path, one=safetensors(), two=safetensors()))

    assert size == 2 * len(safetensors())
    assert head == Head(
        format="safetensors",
        architecture="LlamaForCausalLM",
        parameters=40,
        quantisation="BF16",
        context=2048,
        layers=2,
        weights_bytes=96,
        kv_bytes_per_token=2 * 2 * 2 * 32,
        embedding=64,
        vocabulary=1000,
        feed_forward=128,
    )


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"head_dim": 8}, 2 * 2 * 2 * 16),
        ({"sliding_window": None}, 2 * 2 * 2 * 32),
        ({"sliding_window": 4096, "use_sliding_window": False}, 2 * 2 * 2 * 32),
        ({"layer_types": ["full_attention"] * 2}, 2 * 2 * 2 * 32),
        ({"layer_types": ["full_attention", "linear_attention"]}, None),
        ({"sliding_window": 4096}, None),
        ({"kv_lora_rank": 512}, None),
        ({"mamba_d_state": 16}, None),
        ({"is_encoder_decoder": True}, None),
        ({"num_hidden_layers": 2**53}, None),
    ],
)
def test_the_cache_is_known_for_plain_attention_only(
    tmp_path: Path, change: dict[str, Any], expected: int | None
) -> None:
    head, _ = read_folder(folder(tmp_path, CONFIG | change))
    assert head.kv_bytes_per_token == expected


def test_a_model_of_several_kinds_has_its_numbers_in_the_part_for_text(tmp_path: Path) -> None:
    config = {
        "architectures": ["Seer"],
        "text_config": CONFIG,
        "quantization_config": {"quant_method": "awq"},
    }
    head, _ = read_folder(folder(tmp_path, config))

    assert (head.architecture, head.layers, head.quantisation, head.parameters) == ("Seer", 2, "awq", None)


def test_the_shards_are_those_of_the_index(tmp_path: Path) -> None:
    folder(tmp_path, one=safetensors(), two=safetensors())
    (tmp_path / INDEX).write_text(json.dumps({"weight_map": {"a": "one.safetensors"}}))

    assert read_folder(tmp_path)[1] == len(safetensors())


@pytest.mark.parametrize(
    ("name", "content", "why"),
    [
        ("config.json", None, "config.json cannot be read"),
        ("config.json", "[]", "config.json is not valid: its JSON is not an object"),
        ("config.json", '{"num_hidden_layers": -1}', "num_hidden_layers is not an integer"),
        ("config.json", '{"num_hidden_layers": true}', "num_hidden_layers is not an integer"),
        ("config.json", " " * (2**22 + 1), "more than 4194304 bytes"),
        (INDEX, "{}", "no weight_map"),
        (INDEX, '{"weight_map": {"a": "../one"}}', "which is not in its folder"),
        (INDEX, '{"weight_map": {"a": "gone.safetensors"}}', "gone.safetensors cannot be read"),
        (INDEX, json.dumps({"weight_map": {str(n): str(n) for n in range(1025)}}), "at most 1024"),
        ("model.safetensors", None, r"it has no \*.safetensors"),
        ("model.safetensors", "", "truncated"),
    ],
)
def test_what_is_wrong_with_a_folder_is_named(
    tmp_path: Path, name: str, content: str | None, why: str
) -> None:
    folder(tmp_path)
    if content is None:
        (tmp_path / name).unlink()
    else:
        (tmp_path / name).write_text(content)

    with pytest.raises(RbeeError, match=why) as refused:
        read_folder(tmp_path)
    assert str(tmp_path) in refused.value.message


@given(st.dictionaries(st.sampled_from(sorted(CONFIG)), ANYTHING))
def test_any_configuration_is_a_head_or_refused(tmp_path_factory: Any, config: dict[str, Any]) -> None:
    path = tmp_path_factory.mktemp("model")
    folder(path, CONFIG | config)
    message = refusal_of(lambda: decode(Head, encode(read_folder(path)[0])))

    assert message is None or str(path) in message
