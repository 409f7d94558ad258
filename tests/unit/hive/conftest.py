"""The machines that devices are looked for in."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.nvml import compile_stub
from tests.unit.hive.machine import Machine, new_machine


@pytest.fixture(scope="session")
def libraries(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return compile_stub(tmp_path_factory.mktemp("libraries")).parent


@pytest.fixture
def machine(tmp_path: Path, libraries: Path) -> Machine:
    return new_machine(tmp_path, libraries)


@pytest.fixture
def open_machine() -> Iterator[Machine]:
    """A machine whose files any user may read, which pytest's own directories do not let them."""
    with tempfile.TemporaryDirectory() as name:
        directory = Path(name)
        directory.chmod(0o755)
        compile_stub(directory)
        yield new_machine(directory, directory)
