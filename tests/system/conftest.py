"""Real machines for the system tests: Debian 12 and 13 with the built packages installed."""

import os
import signal
import subprocess
import sys
from collections.abc import Generator, Iterable, Iterator
from pathlib import Path
from types import FrameType
from typing import NoReturn

import pytest
from testbed.debian import ARCHIVE_INSIDE
from testbed.host import MachineError, why_not
from testbed.leftovers import left_behind, sweep
from testbed.machine import Machine
from testbed.trees import NoHistory, Trees

from tests.handing_out import name_groups
from tests.nvml import compile_stub
from tests.system.fleet.fleet import Fleet

HERE = Path(__file__).resolve().parent
CHECKOUT = HERE.parents[1]


def pytest_configure(config: pytest.Config) -> None:
    # By default SIGTERM would leave no time to end the machines.
    def interrupt(number: int, frame: FrameType | None) -> NoReturn:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """The quick tests first; those that share machines to one process."""
    items.sort(key=lambda item: HERE in item.path.parents)
    if hasattr(config, "workerinput") and config.getvalue("loadgroup"):
        name_groups(item for item in items if HERE in item.path.parents)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    """What the machines wrote down belongs to a failure."""
    report = yield
    if report.when != "call" or not report.failed:
        return report
    for machine in dict.fromkeys(_machines(getattr(item, "funcargs", {}).values())):
        try:
            told = machine.run("journalctl", "--boot", "--no-pager", "--lines=120", "--output=short-precise")
            report.sections.append((f"The journal of {machine.hostname}", told.stdout))
        except MachineError as error:
            report.sections.append((f"The journal of {machine.hostname}", str(error)))
    return report


def _machines(arguments: Iterable[object]) -> Iterator[Machine]:
    """Those that run, alone or in a fleet."""
    for argument in arguments:
        several = (argument.queen, *argument.hives.values()) if isinstance(argument, Fleet) else (argument,)
        yield from (one for one in several if isinstance(one, Machine) and one.leader)


@pytest.fixture(scope="session", autouse=True)
def nothing_left_behind() -> Iterator[None]:
    sweep()
    yield
    assert left_behind(os.getpid()) == []


@pytest.fixture(scope="session", params=os.environ.get("RBEE_SUITES", "bookworm trixie").split())
def suite(request: pytest.FixtureRequest) -> str:
    """Each system test runs on each of these; tests/run --suite chooses."""
    return str(request.param)


@pytest.fixture(scope="session")
def trees() -> Iterator[Trees]:
    if reason := why_not():
        pytest.fail(reason, pytrace=False)
    with Trees(Trees.default_cache(), say=lambda line: print(line, file=sys.__stderr__)) as trees:
        yield trees


@pytest.fixture(scope="session")
def debs(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    """The packages of this checkout: those that tests/run has built, or built now."""
    directory = Path(os.environ.get("RBEE_DEBS") or tmp_path_factory.mktemp("debs"))
    if "RBEE_DEBS" not in os.environ:
        subprocess.run([CHECKOUT / "packaging/deb", directory], check=True)
    return sorted(directory.glob("*.deb"))


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A libnvidia-ml.so.1 of the tests' own."""
    return compile_stub(tmp_path_factory.mktemp("nvml"))


@pytest.fixture
def machine(suite: str, trees: Trees, debs: list[Path]) -> Iterator[Machine]:
    """Fresh from boot, with rbee installed; ada is in group rbee, mallory is not. It has the archive, too."""
    archive = f"{trees.archive(suite)}:{ARCHIVE_INSIDE}"
    with Machine(trees.installed(suite, debs), bind_ro=[archive]) as machine:
        yield machine


@pytest.fixture(scope="session")
def previous_debs(trees: Trees) -> list[Path]:
    """The packages of the release before this one, built from this checkout's history."""
    try:
        return trees.previous_debs()
    except NoHistory as error:
        pytest.skip(str(error))


@pytest.fixture
def previous_machine(suite: str, trees: Trees, previous_debs: list[Path]) -> Iterator[Machine]:
    """As machine, with the release before this one installed."""
    with Machine(trees.previous(suite)) as machine:
        yield machine


@pytest.fixture
def bare_machine(suite: str, trees: Trees) -> Iterator[Machine]:
    """Fresh from boot, with all that rbee depends on, but not rbee; only root is there."""
    with Machine(trees.base(suite)) as machine:
        yield machine
