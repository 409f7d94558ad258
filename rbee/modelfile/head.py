"""The head of a model: what the headers of its file or files say."""

from __future__ import annotations

import os
from pathlib import Path
from typing import BinaryIO

from rbee.modelfile.files import opened
from rbee.modelfile.formats import START, format_of
from rbee.modelfile.gguf import read_gguf
from rbee.wire.models import Head


def read_head(path: Path) -> tuple[Head, int]:
    """Return the head of a model, and the size of its files in bytes.

    `path` is a GGUF or safetensors file, or a folder with config.json and *.safetensors. Raises BadInput,
    which names the file and what is wrong; NotPermitted or RbeeError if it cannot be read.
    """
    if os.path.isdir(path):
        from rbee.modelfile.safetensors import read_folder

        return read_folder(path)
    with opened(path) as (file, size):
        return head_of(file, str(path), size), size


def head_of(file: BinaryIO, name: str, size: int | None) -> Head:
    """Return the head of an open file, whose position it changes. `name` is for messages.

    `size` is its final size in bytes, None if that is not known: the header of a file may be read before the
    rest has arrived. Raises BadInput, and Cut if the header is not complete.
    """
    file.seek(0)
    kind = format_of(file.read(START), name)
    file.seek(0)
    if kind == "gguf":
        return read_gguf(file, name, size)
    from rbee.modelfile.safetensors import read_safetensors

    return read_safetensors(file, name, size)
