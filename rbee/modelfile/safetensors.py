"""The headers of safetensors: a file that begins with JSON, or a folder of such files and config.json.

Source: https://huggingface.co/docs/safetensors. The JSON is bounded, and each offset is checked.
"""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, BinaryIO, TypeGuard

from rbee.errors import BadInput
from rbee.files import explained
from rbee.modelfile.cache import kv_bytes_per_token
from rbee.modelfile.files import opened, read_bounded
from rbee.modelfile.formats import JSON_MOST
from rbee.modelfile.reader import COUNT_MOST, Reader, bounded
from rbee.wire.models import Head

SHARDS_MOST = 1024
"""The most files of a model."""

CONFIG_MOST = 4 * 2**20
"""The most bytes of config.json, and of the index of the shards."""

INDEX = "model.safetensors.index.json"

_BITS: Mapping[str, int] = {
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8, "I16": 16, "U16": 16, "F16": 16,
    "BF16": 16, "I32": 32, "U32": 32, "F32": 32, "F64": 64, "I64": 64, "U64": 64, "F4": 4,
}  # fmt: skip

_ODD = re.compile(
    r"kv_lora_rank|sliding_window|attention_chunk_size|state_size|full_attention_interval"
    r"|num_kv_shared_layers|(ssm|mamba|rwkv|conv|linear|attn_layer|hybrid)_.*"
)
"""Keys of config.json that only architectures have whose cache is not that of plain attention."""


@dataclass
class _Tensors:
    """The totals of a model's tensors; `by_type` has the bytes of each type."""

    bytes: int = 0
    elements: int = 0
    by_type: dict[str, int] = field(default_factory=dict)


def read_safetensors(file: BinaryIO, name: str, size: int | None) -> Head:
    """Return the head of a safetensors file of `size` bytes, None if that is not known yet.

    Raises BadInput, which names the file and what is wrong, and Cut if the header does not end.
    """
    tensors = _Tensors()
    _add_tensors(tensors, Reader(file, name, size))
    return _head_of(tensors)


def read_folder(folder: Path) -> tuple[Head, int]:
    """Return the head of a folder with config.json and *.safetensors, and the size of the latter in bytes.

    Raises BadInput, which names the file and what is wrong, Cut if a header does not end, and as explained()
    if a file cannot be read.
    """
    config = _json_of(folder / "config.json")
    tensors, total = _Tensors(), 0
    for path in _shards(folder):
        with opened(path) as (file, size):
            _add_tensors(tensors, Reader(file, str(path), size))
        total += size
    return _described(_head_of(tensors), config, str(folder / "config.json")), total


# The files


def _shards(folder: Path) -> list[Path]:
    if os.path.lexists(folder / INDEX):
        weight_map = _json_of(folder / INDEX).get("weight_map")
        if not isinstance(weight_map, dict) or not weight_map:
            raise BadInput(f"{folder / INDEX} has no weight_map", hint="Get the folder again.")
        names = sorted({str(name) for name in weight_map.values()})
    else:
        with explained(folder, "read"):
            names = sorted(name for name in os.listdir(folder) if name.endswith(".safetensors"))
    if not names:
        raise BadInput(
            f"{folder} is not a model: it has no *.safetensors",
            hint=f"ls {folder}; for a GGUF model give the path of its file.",
        )
    if len(names) > SHARDS_MOST:
        raise BadInput(f"{folder} has {len(names)} files, and at most {SHARDS_MOST} are read")
    if strange := [name for name in names if "/" in name or name in (".", "..") or "\0" in name]:
        raise BadInput(f"{folder / INDEX} names {strange[0][:100]!r}, which is not in its folder")
    return [folder / name for name in names]


def _json_of(path: Path) -> dict[str, Any]:
    return _parsed(read_bounded(path, CONFIG_MOST), str(path))


def _parsed(content: bytes, name: str) -> dict[str, Any]:
    try:
        value = json.loads(content)
    except (ValueError, RecursionError) as error:
        raise BadInput(f"{name} is not valid: its JSON cannot be read: {error}"[:500]) from error
    if not isinstance(value, dict):
        raise BadInput(f"{name} is not valid: its JSON is not an object")
    return value


# The tensors


def _add_tensors(tensors: _Tensors, reader: Reader) -> None:
    length = reader.take("<Q")
    if length > JSON_MOST:
        reader.refuse(f"its header has {length} bytes, and at most {JSON_MOST} are read")
    header = _parsed(reader.take_bytes(length), reader.name)
    begin, last = reader.at, 0
    for name, tensor in header.items():
        if name != "__metadata__":
            last = max(last, _add_tensor(tensors, reader, name, tensor))
    if reader.size is not None and begin + last > reader.size:
        reader.refuse_short(f"its tensors need {begin + last}")


def _add_tensor(tensors: _Tensors, reader: Reader, name: str, tensor: Any) -> int:
    """Add a tensor, and return its end: an offset from the end of the header."""
    shown = f"the tensor {name[:100]}"
    if not isinstance(tensor, dict):
        reader.refuse(f"{shown} is not an object")
    kind, shape, offsets = (tensor.get(key) for key in ("dtype", "shape", "data_offsets"))
    if not isinstance(kind, str) or not re.fullmatch("[A-Za-z0-9_]{1,32}", kind):
        reader.refuse(f"{shown} has no dtype")
    if not _are_counts(shape) or len(shape) > 16:
        reader.refuse(f"{shown} has no valid shape")
    if not _are_counts(offsets) or len(offsets) != 2 or offsets[0] > offsets[1]:
        reader.refuse(f"{shown} has no valid data_offsets")
    size = offsets[1] - offsets[0]
    elements = bounded(reader, math.prod(shape), f"the size of {shown}")
    if kind in _BITS and elements * _BITS[kind] != size * 8:
        reader.refuse(f"{shown} has {size} bytes for {elements} elements of {kind}")
    tensors.bytes = bounded(reader, tensors.bytes + size, "the size of the tensors")
    tensors.elements = bounded(reader, tensors.elements + elements, "the number of parameters")
    tensors.by_type[kind] = tensors.by_type.get(kind, 0) + size
    return offsets[1]


def _are_counts(values: Any) -> TypeGuard[list[int]]:
    return isinstance(values, list) and all(type(one) is int and 0 <= one <= COUNT_MOST for one in values)


def _head_of(tensors: _Tensors) -> Head:
    by_type = tensors.by_type
    return Head(
        format="safetensors",
        parameters=tensors.elements,
        quantisation=max(by_type, key=lambda kind: by_type[kind]) if by_type else None,
        weights_bytes=tensors.bytes,
    )


# config.json


def _described(head: Head, config: dict[str, Any], name: str) -> Head:
    """Return the head completed by what config.json says."""
    text = config["text_config"] if isinstance(config.get("text_config"), dict) else config
    architectures = config.get("architectures")
    kind = architectures[0] if isinstance(architectures, list) and architectures else config.get("model_type")

    def count(key: str) -> int | None:
        value = text.get(key)
        if value is None:
            return None
        if type(value) is not int or not 0 <= value <= COUNT_MOST:
            raise BadInput(f"{name} is not valid: {key} is not an integer from 0 to 2**53")
        return value

    quantised = config.get("quantization_config")
    method = quantised.get("quant_method") if isinstance(quantised, dict) else None
    return head._replace(
        architecture=kind if isinstance(kind, str) and re.fullmatch("[A-Za-z0-9._-]{1,64}", kind) else None,
        # Quantised weights are packed, several to an element: the elements do not count them.
        parameters=head.parameters if quantised is None else None,
        quantisation=method[:64] if isinstance(method, str) else head.quantisation,
        context=count("max_position_embeddings"),
        layers=count("num_hidden_layers"),
        embedding=count("hidden_size"),
        vocabulary=count("vocab_size"),
        feed_forward=count("intermediate_size"),
        kv_bytes_per_token=None
        if _is_odd(text)
        else _within_bounds(
            kv_bytes_per_token(
                layers=count("num_hidden_layers"),
                heads=count("num_attention_heads"),
                kv_heads=count("num_key_value_heads"),
                embedding=count("hidden_size"),
                key_length=count("head_dim"),
                value_length=count("head_dim"),
            )
        ),
    )


def _within_bounds(value: int | None) -> int | None:
    return value if value is not None and value <= COUNT_MOST else None


def _is_odd(config: dict[str, Any]) -> bool:
    """Return whether the architecture has another cache than that of plain attention."""
    kinds = config.get("layer_types")
    if isinstance(kinds, list) and any(kind != "full_attention" for kind in kinds):
        return True
    if config.get("is_encoder_decoder"):
        return True
    windows_are_off = config.get("use_sliding_window") is False
    return any(
        bool(value) and _ODD.fullmatch(key) and not (key == "sliding_window" and windows_are_off)
        for key, value in config.items()
    )
