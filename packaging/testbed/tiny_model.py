"""Writes tiny GGUF models that any llama.cpp loads, the same bytes for the same arguments.

A model that `says` a sentence answers it to any prompt, and then ends, so that a test sees which model has
answered: the embedding of each token is an axis of its own, attention and feed-forward are zero, and the
output matrix maps each word to the next. One that `babbles` has weights from a seeded generator: gibberish
that depends on the prompt, as long as it is asked for.
"""

from __future__ import annotations

import array
import random
import re
import struct
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

_F32, _F16 = 0, 1
_U32, _I32, _FLOAT, _BOOL, _STRING, _ARRAY = 4, 5, 6, 7, 8, 9
_NORMAL, _UNKNOWN, _CONTROL, _BYTE = 1, 2, 3, 6
_NUMBERS = {_U32: "<I", _I32: "<i", _FLOAT: "<f", _BOOL: "<?"}

_TEMPLATE = (
    "{% for m in messages %}{{ '<|' + m['role'] + '|>' + m['content'] + '\\n' }}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<|assistant|>' }}{% endif %}"
)
_ROLES = ("<|system|>", "<|user|>", "<|assistant|>")
_EOS = 2
_ALIGNMENT = 32


class _Tensor(NamedTuple):
    """`shape` has the fastest dimension first."""

    name: str
    shape: tuple[int, ...]
    kind: int
    content: bytes


class _Size(NamedTuple):
    """A llama's dimensions."""

    embedding: int
    layers: int
    heads: int
    kv_heads: int
    feed_forward: int
    context: int


def says(sentence: str, *, name: str = "tiny", context: int = 2048) -> bytes:
    """Return a model that answers this sentence; ValueError if a word is in it twice."""
    words = [word.replace(" ", "\u2581") for word in re.findall(r" ?[^ ]+", sentence)]
    if len(set(words)) != len(words):
        raise ValueError(f"each word may be there once: {sentence!r}")
    tokens, kinds = _vocabulary(words)
    first = len(tokens) - len(words)
    # Whatever a prompt ends with, the first word follows.
    follows = dict.fromkeys(range(len(tokens)), first)
    follows |= {first + number: first + number + 1 for number in range(len(words) - 1)}
    follows[len(tokens) - 1] = _EOS
    size = _Size(-(-len(tokens) // 32) * 32, 1, 4, 1, 32, context)
    axes, output = (bytearray(2 * size.embedding * len(tokens)) for _ in range(2))
    for token, after in follows.items():
        struct.pack_into("<e", axes, 2 * (token * size.embedding + token), 1.0)
        struct.pack_into("<e", output, 2 * (after * size.embedding + token), 2.0)
    return _model(name, tokens, kinds, size, bytes(axes), bytes(output), lambda count: bytes(2 * count))


def babbles(seed: int, *, name: str = "tiny", context: int = 2048, layers: int = 2, width: int = 64) -> bytes:
    """Return a model of random weights, of `layers` layers and the embedding length `width`."""
    syllables = [one + vowel for one in "bdfgklmnprstvz" for vowel in "aeiou"]
    tokens, kinds = _vocabulary([*syllables, *("\u2581" + one for one in syllables)])
    size = _Size(width, layers, 4, 2, 2 * width, context)
    source = random.Random(seed)

    def fill(count: int) -> bytes:
        drawn = min(count, 1 << 16)
        chunk = struct.pack(f"<{drawn}e", *(source.uniform(-0.5, 0.5) for _ in range(drawn)))
        return (chunk * (count // drawn + 1))[: 2 * count]

    # Bytes at random are no UTF-8, which llama.cpp's server answers with a 500: it only says syllables.
    mute = len(tokens) - 2 * len(syllables)
    output = bytes(2 * width * mute) + fill(width * 2 * len(syllables))
    return _model(name, tokens, kinds, size, fill(width * len(tokens)), output, fill)


def write(path: Path, model: bytes) -> None:
    """Write a model, readable for all."""
    path.write_bytes(model)
    path.chmod(0o644)


def _vocabulary(words: list[str]) -> tuple[list[str], list[int]]:
    """SentencePiece's, with the 256 bytes, the roles of a chat, and these words at its end."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), *_ROLES, *words]
    kinds = [_UNKNOWN, _CONTROL, _CONTROL] + [_BYTE] * 256 + [_CONTROL] * len(_ROLES) + [_NORMAL] * len(words)
    return tokens, kinds


def _model(
    name: str,
    tokens: list[str],
    kinds: list[int],
    size: _Size,
    embeddings: bytes,
    output: bytes,
    fill: Callable[[int], bytes],
) -> bytes:
    shape = (size.embedding, len(tokens))
    tensors = [_Tensor("token_embd.weight", shape, _F16, embeddings)]
    for number in range(size.layers):
        tensors += _layer(number, size, fill)
    tensors.append(_Tensor("output_norm.weight", (size.embedding,), _F32, _ones(size.embedding)))
    tensors.append(_Tensor("output.weight", shape, _F16, output))
    pairs = list(_metadata(name, tokens, kinds, size))
    infos, offset = b"", 0
    for tensor in tensors:
        dimensions = struct.pack(f"<I{len(tensor.shape)}Q", len(tensor.shape), *tensor.shape)
        infos += _text(tensor.name) + dimensions + struct.pack("<IQ", tensor.kind, offset)
        offset += len(_padded(tensor.content))
    head = struct.pack("<4sIQQ", b"GGUF", 3, len(tensors), len(pairs)) + b"".join(pairs) + infos
    return _padded(head) + b"".join(_padded(tensor.content) for tensor in tensors)


def _layer(number: int, size: _Size, fill: Callable[[int], bytes]) -> Iterator[_Tensor]:
    width, kv, inner = size.embedding, size.embedding // size.heads * size.kv_heads, size.feed_forward
    shapes = {
        "attn_q": (width, width), "attn_k": (width, kv), "attn_v": (width, kv), "attn_output": (width, width),
        "ffn_gate": (width, inner), "ffn_up": (width, inner), "ffn_down": (inner, width),
    }  # fmt: skip
    for name in ("attn_norm", "ffn_norm"):
        yield _Tensor(f"blk.{number}.{name}.weight", (width,), _F32, _ones(width))
    for name, shape in shapes.items():
        yield _Tensor(f"blk.{number}.{name}.weight", shape, _F16, fill(shape[0] * shape[1]))


def _metadata(name: str, tokens: list[str], kinds: list[int], size: _Size) -> Iterator[bytes]:
    yield _pair("general.architecture", _STRING, "llama")
    yield _pair("general.name", _STRING, name)
    yield _pair("general.file_type", _U32, 1)
    numbers = {
        "context_length": size.context, "embedding_length": size.embedding, "block_count": size.layers,
        "feed_forward_length": size.feed_forward, "attention.head_count": size.heads,
        "attention.head_count_kv": size.kv_heads, "rope.dimension_count": size.embedding // size.heads,
        "vocab_size": len(tokens),
    }  # fmt: skip
    for key, number in numbers.items():
        yield _pair(f"llama.{key}", _U32, number)
    yield _pair("llama.attention.layer_norm_rms_epsilon", _FLOAT, 1e-5)
    yield _pair("tokenizer.ggml.model", _STRING, "llama")
    yield _pair("tokenizer.ggml.tokens", _STRING, tokens)
    yield _pair("tokenizer.ggml.scores", _FLOAT, [0.0] * len(tokens))
    yield _pair("tokenizer.ggml.token_type", _I32, kinds)
    for number, role in enumerate(("unknown", "bos", "eos")):
        yield _pair(f"tokenizer.ggml.{role}_token_id", _U32, number)
    yield _pair("tokenizer.ggml.add_bos_token", _BOOL, True)
    yield _pair("tokenizer.ggml.add_space_prefix", _BOOL, False)
    yield _pair("tokenizer.chat_template", _STRING, _TEMPLATE)


def _pair(key: str, kind: int, value: Any) -> bytes:
    if isinstance(value, list):
        items = b"".join(_value(kind, one) for one in value)
        return _text(key) + struct.pack("<IIQ", _ARRAY, kind, len(value)) + items
    return _text(key) + struct.pack("<I", kind) + _value(kind, value)


def _value(kind: int, value: Any) -> bytes:
    return _text(value) if kind == _STRING else struct.pack(_NUMBERS[kind], value)


def _text(text: str) -> bytes:
    content = text.encode()
    return struct.pack("<Q", len(content)) + content


def _ones(count: int) -> bytes:
    return array.array("f", [1.0] * count).tobytes()


def _padded(content: bytes) -> bytes:
    return content + bytes(-len(content) % _ALIGNMENT)
