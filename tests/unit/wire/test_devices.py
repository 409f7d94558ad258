"""The shapes of devices."""

from __future__ import annotations

import pytest

from rbee.wire.codec import decode, encode
from rbee.wire.devices import Gpu, MemoryKind


def test_a_card_of_an_older_hive_or_catalog_says_nothing_of_whose_memory_it_has() -> None:
    told = encode(Gpu(0, "nvidia", "NVIDIA GB10", None, None, None, None, memory_kind="shared"))
    before = {key: value for key, value in told.items() if key not in ("memory_kind", "shared_memory_bytes")}

    card = decode(Gpu, before)

    assert (card.memory_kind, card.shared_memory_bytes, card.memory_bytes) == (None, None, None)
    assert decode(Gpu, told).memory_kind == "shared"


@pytest.mark.parametrize(
    ("kind", "vram", "shared", "memory"),
    [
        ("dedicated", 24, None, 24),
        ("dedicated", 24, 64, 24),
        (None, 24, None, 24),
        ("shared", 1, 96, 97),
        ("shared", None, 96, 96),
        ("shared", 1, None, None),
        (None, None, None, None),
    ],
)
def test_a_card_s_memory_is_what_it_may_use_in_all(
    kind: MemoryKind | None, vram: int | None, shared: int | None, memory: int | None
) -> None:
    card = Gpu(0, "amd", None, None, vram, None, None, memory_kind=kind, shared_memory_bytes=shared)

    assert card.memory_bytes == memory
