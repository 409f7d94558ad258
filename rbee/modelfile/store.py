"""The store of fetched models: rbee-fetch@.service writes it, every user may read it.

A complete file is at SHA256/model.FORMAT, with meta.json beside it. The folder `fetches` has, by the fetch's
id, what has arrived of a file (ID.part), which version of the source that is (ID.version), and the outcome of
the fetch (ID.result), which is kept for as long as the file is.
"""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any, Literal, NamedTuple

from rbee.errors import BadInput
from rbee.files import read_regular
from rbee.wire.codec import Shape, decode, encode
from rbee.wire.models import Fetch, Head
from rbee.wire.types import Count, Format, JobId, ModelName, Sha256, Text, Word

FORMATS: tuple[Format, ...] = ("gguf", "safetensors")

META_MOST = 64 * 1024
"""The most bytes of a meta.json, a result, a version or a request."""

PART, VERSION, RESULT = ".part", ".version", ".result"


class StoreRequest(NamedTuple):
    """What rbee-fetch@ID.service is to do, from its credential `request`: `fetch`, `forget` or `remove`.

    `forget` is the id of a fetch to delete all traces of, except the file that it fetched; `remove` is the
    SHA-256 of a file to delete, with the results of its fetches.
    """

    fetch: Fetch | None = None
    forget: Word | None = None
    remove: Sha256 | None = None
    job_id: JobId | None = None


class FetchResult(NamedTuple):
    """The outcome of a fetch; `bytes` is how many have arrived."""

    model: ModelName
    state: Literal["done", "failed"]
    reason: Text = ""
    bytes: Count = 0
    sha256: Sha256 | None = None


class Meta(NamedTuple):
    """What is known about a file in the store."""

    sha256: Sha256
    bytes: Count
    head: Head


class Store:
    """The paths of the store, and the content of its small files."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.fetches = folder / "fetches"

    def part(self, fetch_id: str) -> Path:
        """Return the path of what has arrived of a file."""
        return self.fetches / f"{fetch_id}{PART}"

    def version(self, fetch_id: str) -> Path:
        """Return the path of the note which version of the source the part is."""
        return self.fetches / f"{fetch_id}{VERSION}"

    def result(self, fetch_id: str) -> Path:
        """Return the path of the outcome of a fetch."""
        return self.fetches / f"{fetch_id}{RESULT}"

    def meta(self, sha256: str) -> Path:
        """Return the path of what is known about a file."""
        return self.folder / sha256 / "meta.json"

    def new_file(self, sha256: str, kind: Format) -> Path:
        """Return the path at which a file is to be stored."""
        return self.folder / sha256 / f"model.{kind}"

    def file(self, sha256: str) -> Path | None:
        """Return the path of a file; None if it is not in the store."""
        paths = (self.new_file(sha256, kind) for kind in FORMATS)
        return next((path for path in paths if os.path.isfile(path)), None)

    def read_meta(self, sha256: str) -> Meta | None:
        """Return what is known about a file; None if that cannot be read."""
        return read_small(self.meta(sha256), Meta)

    def read_result(self, fetch_id: str) -> FetchResult | None:
        """Return the outcome of a fetch; None if that cannot be read."""
        return read_small(self.result(fetch_id), FetchResult)

    def ids(self, suffix: str) -> list[str]:
        """Return the ids of the fetches that have a file with this suffix: PART, VERSION or RESULT."""
        try:
            names = os.listdir(self.fetches)
        except OSError:
            return []
        return sorted(name.removesuffix(suffix) for name in names if name.endswith(suffix) and name[0] != ".")


def read_small(path: Path, kind: type[Shape]) -> Shape | None:
    """Return the shape in a JSON file; None if the file cannot be read or is not valid."""
    try:
        return decode(kind, json.loads(read_regular(path, META_MOST)))
    except (OSError, ValueError, RecursionError, BadInput):
        return None


def small(shape: Any) -> bytes:
    """Return a shape as the content of a JSON file, for read_small()."""
    return json.dumps(encode(shape)).encode() + b"\n"
