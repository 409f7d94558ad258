"""The machines that devices are looked for in."""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.nvml import StubCard, compile_stub, write_cards
from tests.unit.hive.devices.machine import DRIVER, Machine, new_machine


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


@pytest.fixture
def later(machine: Machine, tmp_path: Path) -> Callable[..., str]:
    """What the stub shows from then on: a line of a script."""
    count = 0

    def show(*cards: StubCard, driver: str = DRIVER, rules: tuple[str, ...] = ()) -> str:
        nonlocal count
        count += 1
        path = tmp_path / f"later-{count}"
        write_cards(path, cards, driver=driver, rules=rules)
        return f"replace({str(path)!r})"

    return show
