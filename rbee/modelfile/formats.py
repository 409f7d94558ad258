"""Tells the format of a file by its first bytes: a model's, or that of something mistaken for a model."""

from __future__ import annotations

import re

from rbee.errors import BadInput
from rbee.modelfile.reader import Cut
from rbee.wire.types import Format

START = 512
"""Bytes at the start of a file that are enough to know its format."""

JSON_MOST = 16 * 2**20
"""The most bytes of the JSON at the beginning of a safetensors file."""

_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)

_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.",
        "it is a Git LFS pointer, not the file itself",
        "git lfs pull",
    ),
    (
        b"PK\x03\x04",
        "it is a zip archive, such as a PyTorch checkpoint, which can run arbitrary code",
        "Get it as GGUF or safetensors.",
    ),
    (b"\x80", "it is a Python pickle, which can run arbitrary code", "Get it as GGUF or safetensors."),
    (b"FUGG", "it is a big-endian GGUF", "Get it for little-endian machines."),
    (b"lmgg", "it is in a format older than GGUF", "Get it as GGUF."),
    (b"fmgg", "it is in a format older than GGUF", "Get it as GGUF."),
    (b"tjgg", "it is in a format older than GGUF", "Get it as GGUF."),
    (b"\x1f\x8b", "it is compressed with gzip", "Unpack it with gunzip."),
    (b"\x28\xb5\x2f\xfd", "it is compressed with zstd", "Unpack it with unzstd."),
    (b"\xfd7zXZ\x00", "it is compressed with xz", "Unpack it with unxz."),
)


def format_of(start: bytes, name: str) -> Format:
    """Return the format of a file by `start`, its first START bytes, or all if it has fewer.

    `name` is for messages. Raises BadInput, which says what the file is instead if that is known, and Cut if
    there are too few bytes.
    """
    if start.startswith(b"GGUF"):
        return "gguf"
    if not start:
        raise Cut(f"{name} is empty", hint="Get the file again.")
    if _HTML.match(start):
        raise BadInput(
            f"{name} is not a model: it is a web page",
            hint="Open the link in a browser: it may need a login, or lead to a page about the file.",
        )
    for mark, meaning, cure in _OTHERS:
        if start.startswith(mark):
            raise BadInput(f"{name} is not a model: {meaning}", hint=cure)
    if len(start) < 9:
        raise Cut(f"{name} is not a model: it has only {len(start)} bytes", hint="Get the file again.")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= JSON_MOST:
        return "safetensors"
    raise BadInput(
        f"{name} is not a model: it is neither GGUF nor safetensors",
        hint="Get the model in one of these two formats.",
    )
