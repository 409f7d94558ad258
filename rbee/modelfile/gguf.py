"""The header of a GGUF file (ggml/docs/gguf.md), versions 2 and 3.

Every length is checked before that many bytes are read. Long arrays are skipped and only counted.
"""

from __future__ import annotations

import re
import struct
from typing import Any, BinaryIO, NamedTuple

from rbee.errors import BadInput
from rbee.modelfile.cache import kv_bytes_per_token
from rbee.modelfile.gguf_types import BLOCKS, FILE_TYPES, KIND_NAMES
from rbee.modelfile.reader import Reader, bounded
from rbee.wire.models import Head

PAIRS_MOST, TENSORS_MOST = 4096, 65536
TEXT_MOST, KEY_MOST, TENSOR_NAME_MOST = 2**20, 65535, 1024
ARRAY_MOST = 2**22
"""The most elements of an array."""
KEPT_MOST = 1024
"""The longest array of numbers that is kept: the useful ones have a number for each layer."""
DIMENSIONS_MOST = 4

_SCALARS = {
    0: "<B",
    1: "<b",
    2: "<H",
    3: "<h",
    4: "<I",
    5: "<i",
    6: "<f",
    7: "<B",
    10: "<Q",
    11: "<q",
    12: "<d",
}
_STRING, _ARRAY = 8, 9
_LENGTH = struct.Struct("<Q")

_ODD = re.compile(
    r"attention\.(sliding_window.*|kv_lora_rank|.*_mla|shared_kv_layers|chunk.*|indexer\..*|recurrent.*)"
    r"|ssm\..*|wkv\..*|shortconv\..*|full_attention_interval|decoder_.*|nextn_predict_layers"
)
"""Keys of architectures whose cache is not that of plain attention: sliding windows, MLA, Mamba, RWKV, T5."""


class Tensor(NamedTuple):
    """A tensor in the header's table; `bytes` is None for an unknown type."""

    kind: int
    elements: int
    offset: int
    bytes: int | None


def read_gguf(file: BinaryIO, name: str, size: int | None) -> Head:
    """Return the head of a GGUF file of `size` bytes, None if that is not known yet.

    Raises BadInput, which names the file and what is wrong, and Cut if the header does not end.
    """
    return _Gguf(Reader(file, name, size)).head()


class _Gguf:
    def __init__(self, reader: Reader) -> None:
        self._reader = reader
        if reader.take_bytes(4) != b"GGUF":
            reader.refuse("it does not begin with GGUF")
        version = reader.take("<I")
        if version not in (2, 3):
            reader.refuse(f"its GGUF version is {version}; rbee reads 2 and 3")
        tensors, pairs = reader.take("<Q"), reader.take("<Q")
        if tensors > TENSORS_MOST:
            reader.refuse(f"it has {tensors} tensors, and at most {TENSORS_MOST} are read")
        if pairs > PAIRS_MOST:
            reader.refuse(f"it has {pairs} keys, and at most {PAIRS_MOST} are read")
        self._values: dict[str, Any] = {}
        self._lengths: dict[str, int] = {}
        for _ in range(pairs):
            self._take_pair()
        self._tensors = [self._take_tensor() for _ in range(tensors)]

    # The table

    def _take_pair(self) -> None:
        key = self._take_text(KEY_MOST, "a key")
        if key in self._values:
            self._reader.refuse(f"it has the key {key[:100]} twice")
        self._values[key] = self._take_value(key, self._reader.take("<I"))

    def _take_text(self, most: int, what: str) -> str:
        length = self._reader.take("<Q")
        if length > most:
            self._reader.refuse(f"{what} has {length} bytes, and at most {most} are read")
        return self._reader.take_bytes(length).decode(errors="replace")

    def _take_value(self, key: str, kind: int) -> Any:
        if kind in _SCALARS:
            return self._reader.take(_SCALARS[kind])
        if kind == _STRING:
            return self._take_text(TEXT_MOST, f"the text of {key[:100]}")
        if kind != _ARRAY:
            self._reader.refuse(f"{key[:100]} has the unknown type {kind}")
        return self._take_array(key)

    def _take_array(self, key: str) -> list[Any] | None:
        kind, count = self._reader.take("<I"), self._reader.take("<Q")
        if count > ARRAY_MOST:
            self._reader.refuse(f"{key[:100]} has {count} elements, and at most {ARRAY_MOST} are read")
        self._lengths[key] = count
        if kind == _STRING:
            self._skip_texts(key, count)
            return None
        if kind not in _SCALARS:
            self._reader.refuse(f"{key[:100]} is an array of the unsupported type {kind}")
        if count <= KEPT_MOST:
            return [self._reader.take(_SCALARS[kind]) for _ in range(count)]
        length = count * struct.calcsize(_SCALARS[kind])
        self._reader.need(length)
        self._reader.at += length
        return None

    def _skip_texts(self, key: str, count: int) -> None:
        """Skip the texts of an array: a vocabulary has hundreds of thousands."""
        reader, unpack = self._reader, _LENGTH.unpack_from
        while count:
            data, at, end = reader.data, reader.at, len(reader.data)
            while count and at + 8 <= end and (after := at + 8 + unpack(data, at)[0]) <= end:
                at, count = after, count - 1
            reader.at = at
            if count:
                reader.need(8)
                (length,) = unpack(reader.data, at)
                if length > TEXT_MOST:
                    reader.refuse(
                        f"a text of {key[:100]} has {length} bytes, and at most {TEXT_MOST} are read"
                    )
                reader.need(8 + length)

    def _take_tensor(self) -> Tensor:
        reader = self._reader
        name = self._take_text(TENSOR_NAME_MOST, "a tensor's name")
        dimensions = reader.take("<I")
        if not 0 < dimensions <= DIMENSIONS_MOST:
            reader.refuse(f"the tensor {name[:100]} has {dimensions} dimensions, not 1 to {DIMENSIONS_MOST}")
        lengths = [reader.take("<Q") for _ in range(dimensions)]
        elements = 1
        for length in lengths:
            elements = bounded(reader, elements * length, f"the size of the tensor {name[:100]}")
        kind, offset = reader.take("<I"), reader.take("<Q")
        if kind not in BLOCKS:
            return Tensor(kind, elements, offset, None)
        in_block, block = BLOCKS[kind]
        if lengths[0] % in_block:
            reader.refuse(
                f"a row of the tensor {name[:100]} has {lengths[0]} elements, not a multiple of {in_block}"
            )
        return Tensor(kind, elements, offset, elements // in_block * block)

    # What it says

    def head(self) -> Head:
        architecture = self._values.get("general.architecture")
        if not isinstance(architecture, str) or not re.fullmatch("[A-Za-z0-9._-]{1,64}", architecture):
            self._reader.refuse("it does not name its architecture")
        self._refuse_part()
        weights = self._weights()
        vocabulary = self._lengths.get("tokenizer.ggml.tokens")
        if vocabulary is None:
            vocabulary = self._count(f"{architecture}.vocab_size")
        parameters = sum(tensor.elements for tensor in self._tensors)
        return Head(
            format="gguf",
            architecture=architecture,
            parameters=bounded(self._reader, parameters, "the number of its parameters"),
            quantisation=self._quantisation(),
            context=self._count(f"{architecture}.context_length"),
            layers=self._count(f"{architecture}.block_count"),
            weights_bytes=weights,
            kv_bytes_per_token=self._kv_bytes(architecture),
            embedding=self._count(f"{architecture}.embedding_length"),
            vocabulary=vocabulary,
            feed_forward=self._feed_forward(architecture),
        )

    def _refuse_part(self) -> None:
        parts = self._values.get("split.count")
        if isinstance(parts, int) and parts > 1:
            raise BadInput(
                f"{self._reader.name} is one of {parts} parts of a model",
                hint="Merge them: llama-gguf-split --merge FIRST-PART MODEL.gguf",
            )

    def _weights(self) -> int | None:
        """Return the bytes of all tensors; None if they are not known."""
        reader = self._reader
        alignment = self._count("general.alignment") or 32
        if alignment > 2**20:
            reader.refuse(f"its alignment is {alignment}, more than 1 MiB")
        begin = reader.at + -reader.at % alignment
        end = max((tensor.offset + (tensor.bytes or 0) for tensor in self._tensors), default=0)
        bounded(reader, end, "the end of its tensors")
        if reader.size is not None and begin + end > reader.size:
            reader.refuse_short(f"its tensors need {begin + end}")
        sizes = [tensor.bytes for tensor in self._tensors]
        if None in sizes:
            return None if reader.size is None else max(reader.size - begin, 0)
        return bounded(reader, sum(size or 0 for size in sizes), "the size of its tensors")

    def _quantisation(self) -> str | None:
        kind = self._values.get("general.file_type")
        if isinstance(kind, int) and kind in FILE_TYPES:
            return FILE_TYPES[kind]
        by_kind: dict[int, int] = {}
        for tensor in self._tensors:
            by_kind[tensor.kind] = by_kind.get(tensor.kind, 0) + tensor.elements
        return KIND_NAMES.get(max(by_kind, key=lambda one: by_kind[one])) if by_kind else None

    def _kv_bytes(self, architecture: str) -> int | None:
        prefix = f"{architecture}."
        own = {
            key.removeprefix(prefix): value for key, value in self._values.items() if key.startswith(prefix)
        }
        if any(value != 0 and _ODD.fullmatch(key) for key, value in own.items()):
            return None
        if own.get("attention.causal", 1) == 0:
            return None
        found = kv_bytes_per_token(
            layers=self._count(f"{prefix}block_count"),
            heads=self._first(f"{prefix}attention.head_count"),
            kv_heads=self._each(f"{prefix}attention.head_count_kv"),
            embedding=self._count(f"{prefix}embedding_length"),
            key_length=self._count(f"{prefix}attention.key_length"),
            value_length=self._count(f"{prefix}attention.value_length"),
        )
        return None if found is None else bounded(self._reader, found, "its cache for a token")

    def _feed_forward(self, architecture: str) -> int | None:
        value = self._each(f"{architecture}.feed_forward_length")
        return max(value, default=None) if isinstance(value, list) else value

    def _count(self, key: str) -> int | None:
        """Return the number of a key; None if the header does not have the key."""
        value = self._values.get(key)
        if value is None:
            return None
        if not isinstance(value, int):
            self._reader.refuse(f"{key} is not a number")
        return bounded(self._reader, value, key)

    def _each(self, key: str) -> int | list[int] | None:
        """Return the number of a key, or its numbers by layer; None if the header does not have the key."""
        value = self._values.get(key)
        if not isinstance(value, list):
            return None if key in self._lengths else self._count(key)
        if not all(isinstance(one, int) for one in value):
            self._reader.refuse(f"{key} is not a list of integers")
        return [bounded(self._reader, one, key) for one in value]

    def _first(self, key: str) -> int | None:
        """Return the number of a key if it is the same for all layers, None if not."""
        value = self._each(key)
        if not isinstance(value, list):
            return value
        return value[0] if len(set(value)) == 1 else None
