"""Models: what is known about their files, and how the queen shows and serves them."""

from __future__ import annotations

from typing import Annotated, Literal, NamedTuple

from rbee.wire.types import Count, Format, Limit, ModelName, Name, Sha256, Text, Word, WordOrEmpty

ModelState = Literal["fetching", "ready", "missing", "failed"]
MODELS_MAX = 1000
"""The most models in a catalog."""
Path = Annotated[str, Limit(1, 4096)]
Url = Annotated[str, Limit(1, 4096)]
CONTEXT_MAX = 16_777_216
Context = Annotated[int, Limit(1, CONTEXT_MAX)]
"""The length of a context, in tokens."""


class Head(NamedTuple):
    """What the header of a model's file says; None for what it does not say.

    `weights_bytes` is the size of all tensors. `kv_bytes_per_token` is that of the key-value cache for one
    token in half precision, None for an architecture without plain attention. `context` is the longest one
    that the model supports, in tokens.
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


class AddModel(NamedTuple):
    """A model to add: either at `path` on the hive `hive`, used in place, or fetched from `url`.

    `head` and `bytes` are what was read at `path`; for a `url` the hive that fetches it reads them.
    `memory_bytes` is what the model needs according to the operator; `context` is in tokens.
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


class Serve(NamedTuple):
    """How a model is to be served. None keeps the former value, or the default.

    A worker without a request for `idle_s` seconds is stopped, unless its model is pinned. A `context` of 0
    and an `engine` of '' undo a former choice.
    """

    context: Annotated[int, Limit(0, CONTEXT_MAX)] | None = None
    idle_s: Annotated[int, Limit(1, 86400 * 365)] | None = None
    is_pinned: bool | None = None
    engine: WordOrEmpty | None = None


class EngineSays(NamedTuple):
    """What an engine itself says that a model needs."""

    engine: Word
    bytes: Count


class ModelView(NamedTuple):
    """A model in the catalog. `source` is its path, or its URL without secrets.

    `learned_bytes` is the most memory that a worker of it has used with this file, None if that is not known.
    `engine_says` is what its engine has answered since the queen started, None if it was not asked or has not
    said. `is_served` is whether a request starts a worker for it. `progress` is that of a fetch, in percent.
    `problem` is why its row could not be read in full.
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
    engine_says: EngineSays | None = None


class Models(NamedTuple):
    """The models in the catalog, by name."""

    models: Annotated[tuple[ModelView, ...], Limit(0, MODELS_MAX)]


class OpenModel(NamedTuple):
    """A model that a client of the gateway may use."""

    name: ModelName
    created_at_ms: Count


class OpenModels(NamedTuple):
    """The models that are served and that a client may use."""

    models: Annotated[tuple[OpenModel, ...], Limit(0, MODELS_MAX)]


# Between the queen and the hive that keeps the files


class Fetch(NamedTuple):
    """A file to fetch into the hive's store; `id` names it (and rbee-fetch@ID.service)."""

    id: Word
    model: ModelName
    url: Url
    sha256: Sha256 | None = None


class FetchView(NamedTuple):
    """A fetch. `serial` grows with each change. A fetch that is done has the file's `path` in the store.

    `bytes` of `total` have arrived; `total` is None if the server does not report it. `reason` is why the
    fetch failed, or what it waits for.
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
