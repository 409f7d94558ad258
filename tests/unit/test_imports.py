"""The import rule of the house, and what rbeectl must not pay for."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

PACKAGE = Path(__file__).parents[2] / "rbee"

STEPS = (
    {"later", "leave", "scope", "signals", "text"},
    {"errors"},
    {"files", "wire"},
    {"catalogfile", "config", "engines", "hivestatus", "narration", "systemd", "tls"},
    {"client", "modelfile", "server"},
    {"journal", "uplink"},
    {"fetch", "gateway", "hive", "keeper", "queen", "worker"},
)
STEP_OF = {name: number for number, names in enumerate(STEPS) for name in names}

EXPENSIVE = {
    "asyncio", "httpcore", "httpx", "lxml", "pynvml", "pystemd", "rbee.wire.openapi", "sqlite3", "starlette",
    "uvicorn",
}  # fmt: skip

FILES = sorted(path.relative_to(PACKAGE).as_posix() for path in PACKAGE.rglob("*.py"))


def module_of(file: str) -> str:
    """The step's name that a file of the package belongs to; '' for rbee/__init__.py."""
    first = Path(file).parts[0].removesuffix(".py")
    return "" if first == "__init__" else first


def module_path(file: str) -> str:
    """rbee/keeper/session.py is rbee.keeper.session, and a room's __init__.py the room."""
    return ".".join(("rbee", *Path(file).with_suffix("").parts)).removesuffix(".__init__")


MODULES = {module_path(file): file for file in FILES}


def imports(file: str) -> Iterator[tuple[int, str]]:
    """Line and module of each import of rbee's in the file, those in functions and for types too."""
    here = ["rbee", *Path(file).parent.parts]
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            inner = [f"{module}.{alias.name}" for alias in node.names]
            names = [name if name in MODULES else module for name in inner]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "rbee":
                yield node.lineno, name


def room_of(module: str) -> str:
    """rbee.keeper.session stands in keeper; '' is the package's own file."""
    return (*module.split("."), "")[1]


@pytest.mark.parametrize("file", FILES)
def test_a_module_imports_strictly_lower_steps_or_its_own_room(file: str) -> None:
    module = module_of(file)
    assert module == "" or module in STEP_OF, f"{file} stands on no step; DESIGN.md says which there are"
    for line, name in imports(file):
        imported = room_of(name)
        if imported in ("", module):
            continue
        assert module, f"rbee/{file}:{line}: the package's own file imports {imported}"
        assert STEP_OF[imported] < STEP_OF[module], f"rbee/{file}:{line}: {module} imports {imported}"


ROOMS = ("rbee/server", "rbee/systemd", "packaging/demonstration", "packaging/testbed")


@pytest.mark.parametrize("room", ROOMS)
def test_no_module_of_a_room_imports_itself_by_way_of_others(room: str) -> None:
    folder = PACKAGE.parent / room
    name = ".".join(
        folder.relative_to(PACKAGE.parent / "packaging" if "packaging" in room else PACKAGE.parent).parts
    )
    needs = {
        path.stem: {
            node.module.removeprefix(f"{name}.").split(".")[0]
            for node in ast.walk(ast.parse(path.read_text()))
            if isinstance(node, ast.ImportFrom) and node.module and node.module.startswith(f"{name}.")
        }
        for path in folder.glob("*.py")
    }
    while ready := [module for module, needed in needs.items() if not needed & needs.keys()]:
        for module in ready:
            del needs[module]
    assert needs == {}, "each of these imports another of them"


def circles() -> set[frozenset[str]]:
    """The modules that import each other, whoever is between them (Tarjan's algorithm)."""
    graph = {module: {name for _, name in imports(file)} - {module} for module, file in MODULES.items()}
    order: dict[str, int] = {}
    lowest: dict[str, int] = {}
    path: list[str] = []
    found: set[frozenset[str]] = set()

    def visit(module: str) -> None:
        order[module] = lowest[module] = len(order)
        path.append(module)
        for other in graph[module] & graph.keys():
            if other not in order:
                visit(other)
            if other in path:
                lowest[module] = min(lowest[module], lowest[other])
        if lowest[module] == order[module]:
            members = path[path.index(module) :]
            del path[path.index(module) :]
            if members[1:]:
                found.add(frozenset(members))

    for module in graph:
        if module not in order:
            visit(module)
    return found


def test_no_modules_import_each_other() -> None:
    """Not in functions either, where a circle is hidden and not gone."""
    assert circles() == set()


def test_the_rule_is_about_all_there_is() -> None:
    assert {module_of(file) for file in FILES} - {""} == set(STEP_OF)


def test_rbeectl_starts_without_what_only_the_daemons_need() -> None:
    code = "import sys, rbee.keeper.cli; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )

    assert set(run.stdout.split()) & EXPENSIVE == set()
