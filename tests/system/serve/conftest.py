"""Machines that serve models."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from testbed.machine import Machine
from testbed.trees import Trees

from tests.system.serve.served import serving_machine


@pytest.fixture
def serving(suite: str, trees: Trees, debs: list[Path]) -> Iterator[Machine]:
    """Fresh from boot, with rbee and llama-server installed, and the tests' own engine beside it."""
    with serving_machine(trees.installed(suite, debs), trees.engine()) as machine:
        yield machine
