"""The machine that a benchmark or a soak runs in: booted, with the packages that its starter has built."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager

from testbed.machine import Machine
from testbed.trees import Trees

from tests.bench.subject import built


@contextmanager
def booted(suite: str) -> Iterator[Machine]:
    with (
        Trees(Trees.default_cache(), say=lambda line: print(line, file=sys.stderr)) as trees,
        Machine(trees.installed(suite, built())) as machine,
    ):
        yield machine
