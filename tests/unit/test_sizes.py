"""What is too large for one glance is two things, unless its docstring says why not."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).parents[2]
FILES = sorted(
    path.relative_to(REPOSITORY).as_posix()
    for folder in ("rbee", "packaging")
    for path in (REPOSITORY / folder).rglob("*.py")
)

FILE_LINES = 450
CLASS_LINES, CLASS_METHODS = 300, 20
FUNCTION_LINES = 40

Function = ast.FunctionDef | ast.AsyncFunctionDef


def too_large(source: str) -> Iterator[str]:
    """The classes and functions that are, and give no reason: 'Long because …' in their docstrings."""
    for node in ast.walk(ast.parse(source)):
        if not isinstance(node, ast.ClassDef | Function):
            continue
        assert node.end_lineno is not None
        lines = node.end_lineno - node.lineno + 1
        if isinstance(node, ast.ClassDef):
            methods = sum(isinstance(one, Function) for one in node.body)
            is_large = lines > CLASS_LINES or methods > CLASS_METHODS
        else:
            is_large = lines > FUNCTION_LINES
        if is_large and "Long because" not in (ast.get_docstring(node) or ""):
            yield f"{node.name}: {lines} lines"


@pytest.mark.parametrize("file", FILES)
def test_a_file_and_what_is_in_it_can_be_taken_in(file: str) -> None:
    source = (REPOSITORY / file).read_text()

    assert len(source.splitlines()) <= FILE_LINES
    assert list(too_large(source)) == []


def test_what_is_too_large_is_found_whatever_it_is() -> None:
    long = "\n".join(["def long():", *["    pass"] * 50])
    reasoned = long.replace("():", '():\n    """Long because of a list."""')
    full = "\n".join(["class Full:", *[f"    def m{n}(self): ..." for n in range(30)]])

    assert list(too_large(f"{long}\n{full}")) == ["long: 51 lines", "Full: 31 lines"]
    assert list(too_large(reasoned)) == []
