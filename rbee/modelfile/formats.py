"""What a file is by its first bytes: a model of a format that rbee knows, or what people mistake for one."""

from __future__ import annotations

import re

from rbee.errors import BadInput
from rbee.modelfile.reader import Cut
from rbee.wire.models import Format

START = 512
"""Bytes of a file from which its format is known."""

JSON_MOST = 16 * 2**20
"""The most bytes of the JSON at the beginning of a safetensors file."""

_HTML = re.compile(rb"\s*(?:\xef\xbb\xbf)?\s*<(?:!doctype|html|head|body|\?xml|!--)", re.IGNORECASE)

_OTHERS: tuple[tuple[bytes, str, str], ...] = (
    (
        b"version https://git-lfs.",
        "it is a pointer of Git LFS, and not the file itself",
        "git lfs pull",
    ),
    (
        b"PK\x03\x04",
        "it is a zip archive, such as a checkpoint of PyTorch, which can run any code",
        "Get it as GGUF or safetensors.",
    ),
    (b"\x80", "it is a pickle of Python, which can run any code", "Get it as GGUF or safetensors."),
    (b"FUGG", "it is a big-endian GGUF", "Get it for little-endian machines."),
    (b"lmgg", "it is of a format before GGUF", "Get it as GGUF."),
    (b"fmgg", "it is of a format before GGUF", "Get it as GGUF."),
    (b"tjgg", "it is of a format before GGUF", "Get it as GGUF."),
    (b"\x1f\x8b", "it is compressed by gzip", "Unpack it with gunzip."),
    (b"\x28\xb5\x2f\xfd", "it is compressed by zstd", "Unpack it with unzstd."),
    (b"\xfd7zXZ\x00", "it is compressed by xz", "Unpack it with unxz."),
)


def format_of(start: bytes, name: str) -> Format:
    """Return the format of a file that begins with `start`, START bytes of it or all.

    Raises BadInput for any other, with what it is if that is known, and Cut if there are too few bytes.
    """
    if start.startswith(b"GGUF"):
        return "gguf"
    if not start:
        raise Cut(f"{name} is empty", hint="Get the file again.")
    if _HTML.match(start):
        raise BadInput(
            f"{name} is not a model: it is a web page",
            hint="Open the link in a browser: it may need a login, or be that of the page about the file.",
        )
    for mark, meaning, cure in _OTHERS:
        if start.startswith(mark):
            raise BadInput(f"{name} is not a model: {meaning}", hint=cure)
    if len(start) < 9:
        raise Cut(f"{name} is not a model: it has only {len(start)} bytes", hint="Get the file again.")
    if start[8:9] == b"{" and int.from_bytes(start[:8], "little") <= JSON_MOST:
        return "safetensors"
    raise BadInput(
        f"{name} is not a model: it begins neither as GGUF nor as safetensors does",
        hint="rbee serves files of these two formats.",
    )
