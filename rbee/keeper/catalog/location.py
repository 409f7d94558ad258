"""Where the queen's catalog is, and the errors for one that cannot be read or written."""

from __future__ import annotations

import errno
import os
import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from rbee import catalogfile, config
from rbee.files import explained, refused
from rbee.scope import Scope


def own_path(scope: Scope) -> Path:
    """The path of the queen's catalog."""
    return config.load(scope=scope).queen.database or scope.catalog


def is_the_queens(file: str, scope: Scope) -> bool:
    """Is it the queen's own catalog, which the queen may be writing?"""
    return os.path.realpath(file) == os.path.realpath(own_path(scope))


@contextmanager
def catalog_explained(path: Path, done: str) -> Iterator[None]:
    """Give an error of the operating system or SQLite a hint; `done` is 'read' or 'written'."""
    try:
        with explained(path, done):
            yield
    except sqlite3.Error as error:
        is_full = catalogfile.error_code(error) == sqlite3.SQLITE_FULL
        cause = OSError(errno.ENOSPC if is_full else 0, str(error))
        raise refused(cause, path, done) from error
