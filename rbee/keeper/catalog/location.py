"""Where the queen's catalog is, and what is said of a catalog that cannot be read or written."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rbee import catalogfile, config
from rbee.files import explained, refused

CATALOG = Path("/var/lib/queen-rbee/catalog.db")
"""Where the catalog is unless Database= says otherwise; StateDirectory= of the queen's unit."""


def own_path() -> Path:
    """The queen's catalog, as she finds it herself."""
    return config.load().queen.database or CATALOG


def is_the_queens(file: str) -> bool:
    """Is it the catalog that a queen may be writing right now?"""
    return os.path.realpath(file) == os.path.realpath(own_path())


@contextmanager
def catalog_explained(path: Path, done: str) -> Iterator[None]:
    """What the operating system or SQLite refuses becomes words with a cure."""
    try:
        with explained(path, done):
            yield
    except sqlite3.Error as error:
        is_full = catalogfile.error_code(error) == sqlite3.SQLITE_FULL
        cause = OSError(errno.ENOSPC if is_full else 0, str(error))
        raise refused(cause, path, done) from error
