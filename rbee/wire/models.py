"""Models: what is known of their files, and how the queen shows and serves them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from rbee.wire.types import Count, Limit, ModelName, Name, Sha256, Text, Word

Format = Literal["gguf", "safetensors"]
ModelState = Literal["fetching", "ready", "missing", "failed"]
MODELS_MAX = 1000
"""The most models in a catalog."""
Path = Annotated[str, Limit(1, 4096)]
Url = Annotated[str, Limit(1, 4096)]
Context = Annotated[int, Limit(1, 16_777_216)]
"""Tokens of a context."""


@dataclass(frozen=True)
class Head:
    """What the header of a model's file says; None is what it does not say.

    `weights_bytes` is the size of all tensors; `kv_bytes_per_token` of the key and value cache in half
    precision, None if the architecture has another one than plain attention. `context` is the most tokens.
    """

    format: Format
    architecture: Text | None = None
    parameters: Count | None = None
    quantisation: Text | None = None
    context: Count | None = None
    layers: Count | None = None
    weights_bytes: Count | None = None
    kv_bytes_per_token: Count | None = None
    embedding: Count | None = None
    vocabulary: Count | None = None
    feed_forward: Count | None = None


@dataclass(frozen=True)
class AddModel:
    """A model to add: from `path`, used in place on the hive `hive`, or fetched from `url`; one of them.

    `head` and `bytes` are what was read at `path`; the hive that fetches reads those of a `url`.
    `memory_bytes` is what the operator says that it needs; `context` the tokens to serve it with.
    """

    name: ModelName
    path: Path | None = None
    url: Url | None = None
    sha256: Sha256 | None = None
    memory_bytes: Count | None = None
    context: Context | None = None
    head: Head | None = None
    bytes: Count | None = None
    hive: Name | None = None


@dataclass(frozen=True)
class Serve:
    """How a model is to be served. None leaves what was set before, or the default.

    `idle_s` are the seconds without a request after which its worker is stopped; a pinned one never is.
    """

    context: Context | None = None
    idle_s: Annotated[int, Limit(1, 86400 * 365)] | None = None
    is_pinned: bool | None = None
    engine: Word | None = None


@dataclass(frozen=True)
class ModelView:
    """A model in the catalog. `source` is its path, or its URL without a password.

    `learned_bytes` is the most memory that a worker of it has used, None if none has run. `is_served` is
    whether it is woken for a request. `problem` is what could not be read of the row.
    """

    name: ModelName
    source: Text
    hive_id: Name
    state: ModelState
    reason: Text
    since_ms: Count
    path: Text | None
    head: Head | None
    bytes: Count | None
    sha256: Sha256 | None
    memory_bytes: Count | None
    learned_bytes: Count | None
    context: Count | None
    is_served: bool
    is_pinned: bool
    idle_s: Count
    engine: Word | None
    created_at_ms: Count
    progress: Annotated[float, Limit(0, 100)] | None = None
    problem: Text | None = None


@dataclass(frozen=True)
class Models:
    """The models in the catalog, by name."""

    models: Annotated[tuple[ModelView, ...], Limit(0, MODELS_MAX)]


@dataclass(frozen=True)
class OpenModel:
    """A model that a client of the gateway may use."""

    name: ModelName
    created_at_ms: Count


@dataclass(frozen=True)
class OpenModels:
    """The models that are served, of those that a client may use."""

    models: Annotated[tuple[OpenModel, ...], Limit(0, MODELS_MAX)]


# Between the queen and the hive that keeps the files


@dataclass(frozen=True)
class Fetch:
    """A file to fetch into the hive's store; `id` names it (and rbee-fetch@ID.service)."""

    id: Word
    model: ModelName
    url: Url
    sha256: Sha256 | None = None


@dataclass(frozen=True)
class FetchView:
    """A fetch. `serial` grows with each change. Done, it has the file's `path` in the store and its head.

    `bytes` have arrived of `total`, None if the server does not say; `reason` is why it failed, or waits.
    """

    id: Word
    model: ModelName
    state: Literal["fetching", "done", "failed", "cancelled"]
    serial: Count
    reason: Text = ""
    bytes: Count = 0
    total: Count | None = None
    path: Text | None = None
    sha256: Sha256 | None = None
    head: Head | None = None
