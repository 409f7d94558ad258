"""The memory that a token takes in the key-value cache, for plain attention."""

from __future__ import annotations

from collections.abc import Sequence

HALF = 2
"""Bytes of a half-precision number."""


def kv_bytes_per_token(
    *,
    layers: int | None,
    heads: int | None,
    kv_heads: int | Sequence[int] | None,
    embedding: int | None,
    key_length: int | None = None,
    value_length: int | None = None,
) -> int | None:
    """Return the bytes of keys and values for one token in half precision; None if they are not known.

    `kv_heads` has a number for each layer, or is one number for all; it defaults to `heads`.
    """
    if not layers or not heads:
        return None
    if kv_heads is None:
        kv_heads = heads
    in_all = layers * kv_heads if isinstance(kv_heads, int) else sum(kv_heads)
    if not isinstance(kv_heads, int) and len(kv_heads) != layers:
        return None
    a_head = embedding // heads if embedding and embedding % heads == 0 else None
    key = a_head if key_length is None else key_length
    value = a_head if value_length is None else value_length
    if not key or not value or not in_all:
        return None
    return HALF * in_all * (key + value)
