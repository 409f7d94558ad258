"""Finds the engines in the folders of a scope, with the precedence of systemd's own files (rbee.engine(5)).

NAME.conf is read from the first folder that has one: the administrator's overrides the package's, and one
that is empty or a link to /dev/null masks the engine. The drop-ins NAME.conf.d/*.conf of all folders are read
after it, sorted by file name; of two with the same name the one in the earlier folder counts.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import NamedTuple

from rbee.engines.engine import Engine
from rbee.engines.syntax import BadLineError, parse
from rbee.scope import SYSTEM, Scope
from rbee.text import NotUtf8, decoded, printable

ENGINES_MAX = 64
"""The most engines that are read; each further one is reported as a problem."""

SIZE_MAX = 64 * 1024
"""The most bytes of a file."""


class Found(NamedTuple):
    """The engines by name, and the problems of those that were refused: FILE:LINE: REASON."""

    engines: dict[str, Engine]
    problems: tuple[str, ...]


class _RefusedError(Exception):
    pass


def load(scope: Scope = SYSTEM, root: Path = Path("/")) -> Found:
    """Return the engines whose files are below `root`. Raises nothing: what is not valid is a problem."""
    folders = [root / folder for folder in scope.engine_folders]
    engines: dict[str, Engine] = {}
    problems = []
    for name, path in sorted(_named(folders).items()):
        if _is_masked(path):
            continue
        if len(engines) >= ENGINES_MAX:
            problems.append(f"{path}: not read, as there are more than {ENGINES_MAX} engines")
            continue
        try:
            engines[name] = _read(name, path, _additions(folders, name))
        except _RefusedError as error:
            problems.append(printable(str(error)))
    return Found(engines, tuple(problems[:ENGINES_MAX]))


def _named(folders: list[Path]) -> dict[str, Path]:
    """Return the file NAME.conf of each name, from the first folder that has it."""
    found: dict[str, Path] = {}
    for folder in folders:
        for path in _listed(folder):
            found.setdefault(path.name.removesuffix(".conf"), path)
    return found


def _additions(folders: list[Path], name: str) -> Iterator[Path]:
    found: dict[str, Path] = {}
    for folder in folders:
        for path in _listed(folder / f"{name}.conf.d"):
            found.setdefault(path.name, path)
    return (found[one] for one in sorted(found) if not _is_masked(found[one]))


def _listed(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if path.name.endswith(".conf") and not path.is_dir())
    except OSError:
        return []  # the folder does not exist, or may not be read


def _is_masked(path: Path) -> bool:
    try:
        # A FIFO or a device, which could be read for ever, has no size either.
        return os.path.realpath(path) == os.devnull or path.stat().st_size == 0
    except OSError:
        return False  # what is wrong with it is reported when it is read


def _read(name: str, path: Path, additions: Iterator[Path]) -> Engine:
    if not re.fullmatch("[a-z0-9-]{1,64}", name):
        raise _RefusedError(
            f"{path}: an engine's name has 1 to 64 lowercase letters a to z, digits and '-', not '{name:.64}'"
        )
    engine = Engine(name, path)
    for one in (path, *additions):
        engine = _apply(engine, one)
    if not engine.command:
        raise _RefusedError(f"{path}: it has no Exec=")
    if not engine.formats:
        raise _RefusedError(f"{path}: it has no Formats=")
    if engine.socket == "tcp" and not engine.uses("p"):
        raise _RefusedError(f"{path}: with Socket=tcp, Exec= or Environment= must have the port, %p")
    return engine


def _apply(engine: Engine, path: Path) -> Engine:
    try:
        with path.open("rb") as file:
            content = file.read(SIZE_MAX + 1)
        if len(content) > SIZE_MAX:
            raise _RefusedError(f"{path}: it has more than {SIZE_MAX} bytes")
        assignments = parse(decoded(content))
    except OSError as error:
        raise _RefusedError(f"{path}: it cannot be read ({error.strerror})") from error
    except NotUtf8 as error:
        raise _RefusedError(f"{path}: {error}") from error
    except BadLineError as error:
        raise _RefusedError(f"{path}:{error.line}: {error.reason}") from error
    for line, section, key, value in assignments:
        if section != "Engine":
            raise _RefusedError(f"{path}:{line}: unknown section [{section:.64}]; the only one is [Engine]")
        try:
            engine = engine.assign(key, value)
        except ValueError as error:
            raise _RefusedError(f"{path}:{line}: {key:.64}= {error}") from error
        if key == "Estimate":
            engine = replace(engine, estimate_file=path)
    return engine
