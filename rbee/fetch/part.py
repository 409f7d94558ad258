"""The part of a file that has arrived: hashed as it is written, and usable after a crash of the machine."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Annotated, BinaryIO, NamedTuple

from rbee.fetch.source import BLOCK
from rbee.files import sync_folder, write_whole
from rbee.modelfile.store import Store, read_small, small
from rbee.wire.types import Count, Limit, Sha256, Text

SYNC_BYTES = 64 * 2**20
"""Bytes after which the part is synced to the disk."""


class _Version(NamedTuple):
    """The source of a part, and the source's version.

    `synced` bytes are on the disk. If the machine has booted since, which `boot` shows, or if `boot` is not
    known, no more are kept: after a crash the file may be longer than what was written to the disk.
    """

    source: Sha256
    version: Annotated[str, Limit(0, 600)] | None
    synced: Count
    boot: Text


class Part:
    """The part of a fetch; a context manager that opens the file. The methods raise OSError."""

    def __init__(self, store: Store, fetch_id: str, url: str, *, boot_id: str) -> None:
        self.path = store.part(fetch_id)
        self._version_path = store.version(fetch_id)
        self._source = hashlib.sha256(url.encode()).hexdigest()
        self._boot_id = boot_id
        self._sum = hashlib.sha256()
        self.size = 0
        self.synced = 0
        self.version: str | None = None

    def __enter__(self) -> Part:
        flags = os.O_RDWR | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC
        self._file = open(os.open(self.path, flags, 0o600), "r+b", buffering=0)
        return self

    def __exit__(self, *_error: object) -> None:
        self._file.close()

    def resume(self, progress: Callable[[int], None]) -> None:
        """Hash what has arrived earlier, or drop it if it is of another source.

        `progress` is called with the bytes hashed so far.
        """
        known = read_small(self._version_path, _Version)
        if known is None or known.source != self._source:
            self.restart()
            return
        is_same_boot = known.boot == self._boot_id != ""
        if not is_same_boot and os.fstat(self._file.fileno()).st_size > known.synced:
            self._file.truncate(known.synced)
        self.version, self.synced = known.version, known.synced
        self._file.seek(0)
        while block := self._file.read(BLOCK):
            self._sum.update(block)
            self.size += len(block)
            progress(self.size)

    def restart(self) -> None:
        """Drop what has arrived."""
        self._file.seek(0)
        self._file.truncate(0)
        self._sum = hashlib.sha256()
        self.size = self.synced = 0
        self.version = None
        with suppress(FileNotFoundError):
            self._version_path.unlink()

    def begin(self, version: str | None) -> None:
        """Note the version of the bytes that follow."""
        if version != self.version or not self._version_path.exists():
            self.version = version
            self._note()

    def write(self, block: bytes) -> None:
        """Add bytes at the end."""
        self._sum.update(block)
        rest = memoryview(block)
        while rest:
            written = self._file.write(rest)
            self.size += written
            rest = rest[written:]
        if self.size - self.synced >= SYNC_BYTES:
            self.sync()

    def sync(self) -> None:
        """Sync what was written to the disk, and note how much that is."""
        os.fsync(self._file.fileno())
        self.synced = self.size
        self._note()

    def _note(self) -> None:
        version = _Version(self._source, self.version, self.synced, self._boot_id)
        write_whole(self._version_path, small(version), mode=0o644)

    @property
    def sha256(self) -> str:
        """The SHA-256 of all bytes so far."""
        return self._sum.hexdigest()

    def reader(self) -> BinaryIO:
        """Open the part for reading."""
        return open(self.path, "rb")

    def keep_as(self, path: Path) -> None:
        """Move the complete part to a path in the store."""
        os.fchmod(self._file.fileno(), 0o444)
        os.fsync(self._file.fileno())
        self.path.rename(path)
        sync_folder(path.parent)
        self.remove()

    def remove(self) -> None:
        """Remove what has arrived."""
        for path in (self.path, self._version_path):
            with suppress(FileNotFoundError):
                path.unlink()
        sync_folder(self.path.parent)
