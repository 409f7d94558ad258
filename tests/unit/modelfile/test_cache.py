"""The cache of keys and values for a token."""

from __future__ import annotations

import pytest

from rbee.modelfile.cache import kv_bytes_per_token


def test_all_layers_count_with_keys_and_values_in_half_precision() -> None:
    found = kv_bytes_per_token(layers=32, heads=32, kv_heads=8, embedding=4096)

    assert found == 2 * 32 * 8 * (128 + 128)


def test_without_other_numbers_there_are_as_many_key_heads_as_heads() -> None:
    assert kv_bytes_per_token(layers=2, heads=4, kv_heads=None, embedding=64) == 2 * 2 * 4 * 32


def test_layers_may_differ() -> None:
    assert kv_bytes_per_token(layers=3, heads=4, kv_heads=[2, 0, 4], embedding=64) == 2 * 6 * 32


@pytest.mark.parametrize(
    ("layers", "heads", "kv_heads", "embedding"),
    [
        (None, 4, 4, 64),
        (2, None, 4, 64),
        (2, 0, 4, 64),
        (0, 4, 4, 64),
        (2, 4, 4, None),
        (2, 4, 4, 63),
        (2, 4, 0, 64),
        (2, 4, [4], 64),
        (2, 4, [0, 0], 64),
    ],
)
def test_what_does_not_add_up_is_not_known(
    layers: int | None, heads: int | None, kv_heads: int | list[int] | None, embedding: int | None
) -> None:
    assert kv_bytes_per_token(layers=layers, heads=heads, kv_heads=kv_heads, embedding=embedding) is None
