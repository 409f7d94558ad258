"""How much memory a worker of a model needs, and where that number comes from."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.wire.models import EngineSays, Head
from rbee.wire.workers import Kind, Source

if TYPE_CHECKING:
    from rbee.queen.store.models import ModelRow

CONTEXT = 8192
"""Tokens of a context that nobody has set, or fewer if the model has fewer."""

PROCESS = 30 * 2**20
"""Bytes of an engine's process beside its buffers: 10 to 30 MiB were measured."""

UNCERTAINTY = 0.05
"""The fraction of an estimate that is added to it."""

GUESSED_FACTOR, GUESSED_MORE = 1.2, 2 * 2**30
"""For a guess: the size of the file times this factor, and this many bytes."""

BATCH = 512
"""Tokens that llama.cpp computes at once."""

CELLS = 256
"""Tokens by which llama.cpp's cache grows."""


class Need(NamedTuple):
    """The bytes that a worker needs in its pool, and where the number comes from.

    `engine` is the one that has said so, if that is the source.
    """

    bytes: int
    source: Source
    engine: str | None = None


def context_of(model: ModelRow) -> int:
    """Return the tokens of the context that the model is served with."""
    if model.context is not None:
        return model.context
    most = model.head.context if model.head is not None else None
    return min(most or CONTEXT, CONTEXT)


def need_of(model: ModelRow, learned: int | None, kind: Kind, said: EngineSays | None = None) -> Need:
    """Return what a worker needs; `learned` is the peak in bytes with this context in this kind of pool.

    `said` is what the engine that serves it says, with the same context and kind.
    """
    if model.memory_bytes is not None:
        return Need(model.memory_bytes, "operator")
    if learned is not None:
        return Need(_in_ram(model, learned) if kind == "ram" else learned, "learned")
    if said is not None:
        return Need(said.bytes, "engine", said.engine)
    return _by_file(model)


def _in_ram(model: ModelRow, learned: int) -> int:
    """Return what a worker whose peak in RAM is known needs.

    The kernel charges the pages of a mapped file to the cgroup that read them first, of a fetch for example:
    the peak may lack some of the weights or all, and does not show how many, as a large cache may hide it.
    What is estimated is taken if it is more, but never more than the peak and all of the weights.
    """
    weights = (model.head.weights_bytes if model.head is not None else None) or model.bytes or 0
    return min(learned + weights, max(learned, _by_file(model).bytes))


def _by_file(model: ModelRow) -> Need:
    """Return the estimate by the file's header, or the guess by its size."""
    estimated = None if model.head is None else estimate(model.head, context_of(model))
    if estimated is not None:
        return Need(estimated, "estimate")
    return Need(int((model.bytes or 0) * GUESSED_FACTOR) + GUESSED_MORE, "guess")


def estimate(head: Head, context: int) -> int | None:
    """Return the bytes that a GGUF's header gives, None if it lacks something.

    Weights and the cache of plain attention are exact. The compute buffer was fitted to three llamas, with
    the widest feed-forward layer that is common, as the head does not have its width.
    """
    weights, cache = head.weights_bytes, head.kv_bytes_per_token
    if head.format != "gguf" or weights is None or cache is None or head.embedding is None:
        return None
    cells = -(-context // CELLS) * CELLS
    compute = 4 * BATCH * 16 * head.embedding + 2 * BATCH * context + 1_200_000
    return int((weights + cells * cache + compute) * (1 + UNCERTAINTY)) + PROCESS


def kind_of(pool: str) -> Kind:
    """Return the kind of a pool: what is learned on a card says nothing about RAM."""
    return "ram" if pool == "ram" else "gpu"


def size(count: int) -> str:
    """Return a number of bytes as text, such as '5.1 GiB' or '35 MiB'."""
    return f"{count / 2**30:.1f} GiB" if count >= 2**30 else f"{count / 2**20:.0f} MiB"
