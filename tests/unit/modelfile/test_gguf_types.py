"""The tables of GGUF's types."""

from __future__ import annotations

from rbee.modelfile.gguf_types import BLOCKS, FILE_TYPES, KIND_NAMES


def test_each_type_whose_size_is_known_has_a_name() -> None:
    assert BLOCKS.keys() - KIND_NAMES.keys() == set()


def test_quantised_weights_take_less_than_single_precision() -> None:
    assert {kind for kind, (elements, size) in BLOCKS.items() if size > 8 * elements} == set()
    assert BLOCKS[12] == (256, 144)  # Q4_K: 4.5 bits


def test_names_are_words_for_tables() -> None:
    assert all(name.isidentifier() for name in (*KIND_NAMES.values(), *FILE_TYPES.values()))
