"""What a model needs, by where that is known from."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from rbee.queen.serving.need import CONTEXT, context_of, estimate, kind_of, need_of, size
from rbee.queen.store.models import ModelRow
from rbee.wire.models import EngineSays, Head

GIB, MIB = 2**30, 2**20
HEAD = Head(
    "gguf", "llama", 8_000_000_000, "Q4_K_M", 131072, 32, weights_bytes=4_600_000_000,
    kv_bytes_per_token=131072, embedding=4096,
)  # fmt: skip
TINY = Head(
    "gguf", "llama", 200_000, "F16", 256, 2, weights_bytes=780_000, kv_bytes_per_token=512, embedding=64
)
ROW = ModelRow(
    name="bee", hive_id="localhost", source="/m/bee.gguf", fetch=None, state="ready", reason="", since_ms=1,
    path="/m/bee.gguf", head=HEAD, bytes=4_650_000_000, sha256=None, memory_bytes=None, context=None,
    is_served=True, is_pinned=False, idle_s=300, engine=None, created_at_ms=1,
)  # fmt: skip


SAYS = EngineSays("vllm", 3 * GIB)


def test_the_operator_counts_first_then_what_was_learned_then_the_engine_then_the_header() -> None:
    assert need_of(ROW._replace(memory_bytes=GIB), 2 * GIB, "gpu", SAYS) == (GIB, "operator", None)
    assert need_of(ROW, 2 * GIB, "gpu", SAYS) == (2 * GIB, "learned", None)
    assert need_of(ROW, None, "ram", SAYS) == (3 * GIB, "engine", "vllm")
    assert need_of(ROW._replace(head=None), None, "ram", SAYS) == (3 * GIB, "engine", "vllm")
    assert need_of(ROW, None, "ram").source == "estimate"
    assert need_of(ROW._replace(head=None), None, "ram").source == "guess"


def test_the_header_gives_weights_cache_and_a_little_more() -> None:
    need = need_of(ROW._replace(context=8192), None, "ram")

    exact = 4_600_000_000 + 8192 * 131072
    assert exact < need.bytes < exact * 1.1


def test_a_tiny_model_needs_little() -> None:
    assert need_of(ROW._replace(head=TINY, bytes=793_000), None, "ram").bytes < 40 * MIB


@pytest.mark.parametrize(
    "head",
    [
        HEAD._replace(kv_bytes_per_token=None),
        HEAD._replace(weights_bytes=None),
        HEAD._replace(embedding=None),
        HEAD._replace(format="safetensors"),
    ],
    ids=["another attention", "unknown tensors", "no width", "of another engine"],
)
def test_a_header_that_does_not_say_enough_gives_a_guess_of_the_file(head: Head) -> None:
    need = need_of(ROW._replace(head=head, bytes=10 * GIB), None, "ram")

    assert estimate(head, 4096) is None
    assert (need.bytes, need.source) == (14 * GIB, "guess")


def test_the_context_is_the_one_set_or_a_usual_one_that_the_model_has() -> None:
    assert context_of(ROW) == CONTEXT
    assert context_of(ROW._replace(context=1024)) == 1024
    assert context_of(ROW._replace(head=TINY)) == 256
    assert context_of(ROW._replace(head=None)) == CONTEXT


def test_what_is_learned_on_a_card_says_nothing_about_ram() -> None:
    assert [kind_of(pool) for pool in ("ram", "gpu0", "gpu12")] == ["ram", "gpu", "gpu"]


def test_sizes_are_shown_in_a_unit_that_fits() -> None:
    assert [size(count) for count in (35 * MIB, GIB, 5_500_000_000)] == ["35 MiB", "1.0 GiB", "5.1 GiB"]


WEIGHTS = 4_600_000_000
ESTIMATE = need_of(ROW._replace(context=65536), None, "ram").bytes


@pytest.mark.parametrize(
    ("learned", "bytes_needed"),
    [
        (ESTIMATE + 1, ESTIMATE + 1),
        # A cache of 8 GiB makes the peak larger than the weights, although it lacks these.
        (65536 * 131072 + 30 * MIB, 65536 * 131072 + 30 * MIB + WEIGHTS),
        (65536 * 131072 + WEIGHTS // 2, ESTIMATE),
        (30 * MIB, 30 * MIB + WEIGHTS),
    ],
    ids=["all of it", "without the weights", "with half of the weights", "hardly anything"],
)
def test_what_was_learned_in_ram_may_lack_the_weights(learned: int, bytes_needed: int) -> None:
    row = ROW._replace(context=65536)
    assert need_of(row, learned, "ram") == (bytes_needed, "learned", None)
    assert need_of(row, learned, "gpu") == (learned, "learned", None)


@given(st.integers(0, 64 * GIB), st.integers(0, 64 * GIB), st.floats(0, 1))
def test_the_need_in_ram_has_the_weights_wherever_their_pages_are_charged(
    anonymous: int, weights: int, elsewhere: float
) -> None:
    """Given an estimate that is no less than what is used."""
    head = HEAD._replace(weights_bytes=weights, kv_bytes_per_token=anonymous // 8192)
    row = ROW._replace(head=head, context=8192)
    learned = anonymous + weights - int(weights * elsewhere)

    need = need_of(row, learned, "ram").bytes
    assert anonymous + weights <= need <= max(learned, need_of(row, None, "ram").bytes)


@given(st.integers(0, 64 * GIB))
def test_without_an_estimate_no_more_than_the_weights_are_added(learned: int) -> None:
    row = ROW._replace(head=None, bytes=GIB)

    assert need_of(row, learned, "ram").bytes == min(learned + GIB, max(learned, int(GIB * 1.2) + 2 * GIB))
