"""The engines that a hive reports."""

from __future__ import annotations

from pathlib import Path

from rbee.hive.engines import engines_here
from rbee.scope import SYSTEM


async def test_engines_are_reported_with_what_is_wrong(tmp_path: Path) -> None:
    folder = tmp_path / "etc/rbee/engines.d"
    folder.mkdir(parents=True)
    (folder / "test.conf").write_text("[Engine]\nExec=/bin/engine %m %s\nFormats=gguf\n")
    (folder / "bad.conf").write_text("x\n")

    engines = await engines_here(SYSTEM, tmp_path)

    (engine,) = engines.engines
    assert (engine.name, engine.problem) == ("test", "/bin/engine was not found (No such file or directory)")
    (problem,) = engines.problems
    assert problem.endswith("bad.conf:1: it is neither [Section] nor Key=value")
