"""A model's file or folder, as a person typed it: is it one, and may a worker read it?"""

from __future__ import annotations

import os
import re
import shlex
import stat
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from rbee.errors import BadInput, NotPermitted
from rbee.files import explained
from rbee.scope import SYSTEM, Scope

if TYPE_CHECKING:
    from rbee.wire.models import Head

SCHEMES = ("https", "http", "file")
"""The schemes of URLs that a hive can fetch."""

HUGGING_FACE = "Name the file: https://huggingface.co/OWNER/NAME/resolve/main/FILE.gguf"
"""The hint for hf://, which other programs accept."""

_KINDS = (
    (stat.S_ISFIFO, "a FIFO"),
    (stat.S_ISSOCK, "a socket"),
    (stat.S_ISBLK, "a block device"),
    (stat.S_ISCHR, "a character device"),
)


class ModelFile(NamedTuple):
    """An absolute path, what the file's header says, and the bytes of all its files."""

    path: Path
    head: Head
    bytes: int


def is_url(source: str) -> bool:
    """Is it a URL, and not a path? BadInput for one with a scheme that cannot be fetched."""
    match = re.match(r"([A-Za-z][A-Za-z0-9+.-]*)://", source)
    if match is None:
        return False
    if match[1].lower() not in SCHEMES:
        schemes = ", ".join(f"{scheme}://" for scheme in SCHEMES)
        what = f"a model can be fetched from {schemes}, and not from {match[0]}"
        raise BadInput(
            what, hint=HUGGING_FACE if match[1].lower() in ("hf", "huggingface") else None, field="SOURCE"
        )
    return True


def read_model(typed: str, scope: Scope = SYSTEM) -> ModelFile:
    """Read the header of a model's file, or of a folder of safetensors; a FIFO is refused, not waited for.

    BadInput if it is not a model; NotPermitted, with the cure, if this person or a worker may not read it.
    """
    path = absolute(typed)
    with explained(path, "read"):
        status = path.stat()
        for is_kind, kind in _KINDS:
            if is_kind(status.st_mode):
                raise BadInput(f"{path} is {kind}, and not a model's file", field="SOURCE")
        files = _safetensors(path) if stat.S_ISDIR(status.st_mode) else [path]
        _check_readable(path, files, scope)
        from rbee.modelfile.head import read_head  # for this verb alone

        head, count = read_head(path)
    return ModelFile(path, head, count)


def absolute(typed: str) -> Path:
    """The absolute path of what was typed; BadInput if it is empty or not UTF-8.

    A link at its end is kept: its target may be replaced later.
    """
    if not typed or "\0" in typed:
        raise BadInput("PATH must not be empty", field="SOURCE")
    try:
        typed.encode()
    except UnicodeEncodeError as error:
        raise BadInput(
            "PATH is not UTF-8", hint="Rename it: its name must be UTF-8.", field="SOURCE"
        ) from error
    folder, name = os.path.split(typed.rstrip("/") or "/")
    if name in ("", ".", ".."):
        return Path(os.path.realpath(typed))
    return Path(os.path.realpath(folder or "."), name)


def _safetensors(folder: Path) -> list[Path]:
    files = sorted(folder.glob("*.safetensors"))
    if not files:
        gguf = next(iter(sorted(folder.glob("*.gguf"))), None)
        raise BadInput(
            f"{folder} is a folder without *.safetensors",
            hint="Name a GGUF file, or a folder with *.safetensors."
            if gguf is None
            else f"Name the file: {shlex.quote(str(gguf))}",
            field="SOURCE",
        )
    return [folder, *files]


def _check_readable(path: Path, files: list[Path], scope: Scope) -> None:
    """NotPermitted unless other users may read the files: a worker has a user of its own.

    Folders above may stay closed, as systemd binds the file for it.
    """
    closed = [file for file in files if not _is_open(file)]
    if not closed:
        return
    is_own = all(file.stat().st_uid == os.geteuid() for file in closed)
    how = ["-R", "o+rX"] if path.is_dir() else ["o+r"]
    command, first = shlex.join(["chmod", *how, str(path)]), closed[0]
    raise NotPermitted(
        f"a worker, which has a user of its own, could not read {first}: "
        f"its mode is {stat.S_IMODE(first.stat().st_mode):04o} (the folders above it may stay closed)",
        hint=command if is_own else scope.as_root(command),
        field="SOURCE",
    )


def _is_open(file: Path) -> bool:
    mode = file.stat().st_mode
    need = stat.S_IROTH | stat.S_IXOTH if stat.S_ISDIR(mode) else stat.S_IROTH
    return mode & need == need


def check_sum(path: Path, expected: str) -> None:
    """BadInput if a file does not have this SHA-256, in hexadecimal digits."""
    import hashlib  # only if --sha256 is given

    with explained(path, "read"):
        if path.is_dir():
            raise BadInput("--sha256 is for a file, and PATH is a folder", field="--sha256")
        with path.open("rb") as file:
            digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != expected:
        raise BadInput(
            f"{path} has another SHA-256: {digest}",
            hint="Get the file again, or correct --sha256.",
            field="--sha256",
        )
