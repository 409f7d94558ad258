"""The machine that a benchmark or a soak runs in: booted, with the packages that its starter has built."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from testbed.machine import Machine
from testbed.trees import Trees


@contextmanager
def booted(suite: str) -> Iterator[Machine]:
    debs = sorted(Path("dist").glob("*.deb"))
    with (
        Trees(Trees.default_cache(), say=lambda line: print(line, file=sys.stderr)) as trees,
        Machine(trees.installed(suite, debs)) as machine,
    ):
        yield machine
