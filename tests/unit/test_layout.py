"""Each module has its tests in a file by its name, and each file of unit tests has its module.

The tests of rbee/a/b.py are in tests/unit/a/test_b.py; those that need a server, or a process of their own,
are in tests/integration/a/test_b.py. Those of packaging/testbed are in the folder testbed of both.
"""

from __future__ import annotations

import ast
import tomllib
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
TESTS = REPOSITORY / "tests"

OF_THE_TREE = {
    "test_any_input.py": "what comes from outside, for all the modules that read it",
    "test_bench.py": "the tables of tests/bench",
    "test_deb.py": "packaging/deb and packaging/need.sh",
    "test_handing_out.py": "tests/handing_out.py",
    "test_imports.py": "what may import what",
    "test_layout.py": "this file",
    "test_manual.py": "packaging/man and the completions",
    "test_scopes.py": "who may name the system's scope, and how hints are typed",
    "test_sizes.py": "how large modules and functions may be",
}
"""Files of unit tests that are about more than one module, and what they are about."""

SHAPES = "shapes without behaviour: tests/unit/wire/test_codec.py and test_openapi.py go through all of them"

UNTESTED = {
    "keeper/doctor/check.py": "shapes, with which tests/unit/keeper/doctor/test_doctor.py works",
    "fetch/errors.py": "classes, which tests/unit/fetch/test_work.py and test_transfer.py expect",
    "fetch/source.py": "shapes, with which tests/unit/fetch/test_transfer.py works",
    "queen/serving/parts.py": "a tuple of the queen's parts",
    "wire/catalog.py": SHAPES,
    "wire/daemon.py": SHAPES,
    "wire/engines.py": SHAPES,
    "wire/events.py": SHAPES,
    "wire/heartbeats.py": SHAPES,
    "wire/hives.py": SHAPES,
    "wire/jobs.py": SHAPES,
    "wire/keys.py": SHAPES,
    "wire/lines.py": SHAPES,
    "wire/logs.py": SHAPES,
    "wire/models.py": SHAPES,
    "wire/samples.py": SHAPES,
}
"""Modules without a file of tests by their name, and why."""


def modules(root: Path) -> set[str]:
    """Paths below `root` of all modules that are more than a package's first lines."""
    return {str(path.relative_to(root)) for path in root.rglob("*.py") if path.name != "__init__.py"}


RBEE = modules(REPOSITORY / "rbee")
TESTBED = {f"testbed/{path}" for path in modules(REPOSITORY / "packaging/testbed")}


def place_of(module: str) -> str:
    """Where the tests of a module are, below tests/unit or tests/integration."""
    path = Path(module)
    return str(path.with_name(f"test_{path.stem.strip('_')}.py"))


def files_of(kind: str) -> set[str]:
    return {str(path.relative_to(TESTS / kind)) for path in (TESTS / kind).rglob("test_*.py")}


UNIT, INTEGRATION = files_of("unit"), files_of("integration")


def test_each_module_has_its_tests() -> None:
    missing = {module for module in RBEE if place_of(module) not in UNIT | INTEGRATION}

    assert missing == set(UNTESTED)


def test_each_file_of_unit_tests_has_its_module_or_is_about_the_whole_tree() -> None:
    assert UNIT - {place_of(module) for module in RBEE | TESTBED} == set(OF_THE_TREE)


def test_each_folder_of_integration_tests_has_its_modules() -> None:
    # At the top there are stories of several daemons.
    in_folders = {path for path in INTEGRATION if "/" in path}

    assert in_folders - {place_of(module) for module in RBEE | TESTBED} == set()


def test_each_package_is_installed() -> None:
    folders = {path.parent for path in (REPOSITORY / "rbee").rglob("__init__.py")}
    named = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]

    assert set(named) == {".".join(folder.relative_to(REPOSITORY).parts) for folder in folders}


def imported(tree: ast.Module) -> set[str]:
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            names.add(node.module or "")
    return names


def methods_called(tree: ast.Module) -> set[str]:
    calls = (node.func for node in ast.walk(tree) if isinstance(node, ast.Call))
    return {function.attr for function in calls if isinstance(function, ast.Attribute)}


@pytest.mark.parametrize("path", sorted(UNIT - set(OF_THE_TREE)))
def test_a_unit_test_starts_neither_a_server_nor_a_process(path: str) -> None:
    tree = ast.parse((TESTS / "unit" / path).read_text())

    of_servers = {name for name in imported(tree) if name.startswith(("subprocess", "tests.integration"))}
    assert of_servers == set()
    assert methods_called(tree) & {"listen", "create_server", "start_server", "start_unix_server"} == set()
