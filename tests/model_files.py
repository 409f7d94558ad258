"""Small files of models for tests: real headers, and weights that are zeros."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable
from typing import Any

from rbee.errors import BadInput

U8, I8, U32, I32, F32, BOOL, STRING, ARRAY, U64 = 0, 1, 4, 5, 6, 7, 8, 9, 10
_FORMS = {U8: "<B", I8: "<b", U32: "<I", I32: "<i", F32: "<f", BOOL: "<?", U64: "<Q"}

LLAMA: dict[str, tuple[int, Any]] = {
    "general.architecture": (STRING, "llama"),
    "general.file_type": (U32, 1),
    "llama.context_length": (U32, 2048),
    "llama.embedding_length": (U32, 64),
    "llama.block_count": (U32, 2),
    "llama.feed_forward_length": (U32, 128),
    "llama.attention.head_count": (U32, 4),
    "llama.attention.head_count_kv": (U32, 2),
    "tokenizer.ggml.tokens": (STRING, ["<unk>", "<s>", "</s>", "bee"]),
    "tokenizer.ggml.scores": (F32, [0.0, 1.0, 2.0, 3.0]),
}
TENSORS = (("token_embd.weight", (64, 4), 1), ("output_norm.weight", (64,), 0))
"""Name, dimensions and type: of 512 and of 256 bytes."""

SIZES = {0: 4, 1: 2}


def refusal_of(read: Callable[[], object]) -> str | None:
    """The message with which something is refused; None if it is not."""
    try:
        read()
    except BadInput as error:
        return error.message
    return None


def text(value: str) -> bytes:
    content = value.encode()
    return struct.pack("<Q", len(content)) + content


def _value(kind: int, value: Any) -> bytes:
    return text(value) if kind == STRING else struct.pack(_FORMS[kind], value)


def pair(key: str, kind: int, value: Any) -> bytes:
    if isinstance(value, list):
        items = b"".join(_value(kind, one) for one in value)
        return text(key) + struct.pack("<IIQ", ARRAY, kind, len(value)) + items
    return text(key) + struct.pack("<I", kind) + _value(kind, value)


def gguf(
    pairs: dict[str, tuple[int, Any]] | None = None, *, tensors: Any = TENSORS, version: int = 3
) -> bytes:
    """A GGUF with these keys beside, or instead of, those of a small llama; None takes a key away."""
    keys = {key: value for key, value in (LLAMA | (pairs or {})).items() if value is not None}
    head = b"".join(pair(key, *value) for key, value in keys.items())
    table, data = b"", b""
    for name, dimensions, kind in tensors:
        table += text(name) + struct.pack(
            f"<I{len(dimensions)}QIQ", len(dimensions), *dimensions, kind, len(data)
        )
        elements = 1
        for one in dimensions:
            elements *= one
        data += bytes(elements * SIZES[kind])
    start = struct.pack("<4sIQQ", b"GGUF", version, len(tensors), len(keys)) + head + table
    return start + bytes(-len(start) % 32) + data


def safetensors(header: Any = None, *, data: int = 48) -> bytes:
    """A safetensors file with this JSON, or with two tensors of 32 and 16 bytes."""
    if header is None:
        header = {
            "__metadata__": {"format": "pt"},
            "a": {"dtype": "BF16", "shape": [4, 4], "data_offsets": [0, 32]},
            "b": {"dtype": "F32", "shape": [4], "data_offsets": [32, 48]},
        }
    content = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(content)) + content + bytes(data)
