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
    {"scope", "text"},
    {"errors"},
    {"files", "wire"},
    {"contracts", "rows"},
    {"catalogfile", "config", "hivestatus", "narration", "systemd", "tls"},
    {"client", "server"},
    {"keeper", "queen", "hive"},
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


def imports(file: str) -> Iterator[tuple[int, str]]:
    """Line and module below rbee of each import in the file, those in functions too."""
    here = ["rbee", *Path(file).parent.parts]
    for node in ast.walk(ast.parse((PACKAGE / file).read_text())):
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom):
            base = ".".join(here[: len(here) - node.level + 1]) if node.level else ""
            module = ".".join(part for part in (base, node.module) if part)
            names = [f"rbee.{alias.name}" for alias in node.names] if module == "rbee" else [module]
        else:
            continue
        for name in names:
            if name.split(".")[0] == "rbee":
                yield node.lineno, (*name.split("."), "")[1]


@pytest.mark.parametrize("file", FILES)
def test_a_module_imports_strictly_lower_steps_or_its_own_room(file: str) -> None:
    module = module_of(file)
    assert module == "" or module in STEP_OF, f"{file} stands on no step; DESIGN.md says which there are"
    for line, imported in imports(file):
        if imported in ("", "__version__") or imported == module:
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


def test_the_rule_is_about_all_there_is() -> None:
    assert {module_of(file) for file in FILES} - {""} == set(STEP_OF)


def test_rbeectl_starts_without_what_only_the_daemons_need() -> None:
    code = "import sys, rbee.keeper.cli; print(*sys.modules)"
    run = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, cwd=PACKAGE.parent
    )

    assert set(run.stdout.split()) & EXPENSIVE == set()
