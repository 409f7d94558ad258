"""packaging/deb, where what a build needs is not there."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
from pathlib import Path

import pytest

CHECKOUT = Path(__file__).parents[2]
TOOLS = ("bash", "dirname", "mktemp", "sed", "tr", "rm")


def needed() -> set[str]:
    """What debian/control asks for; debhelper is who provides debhelper-compat."""
    control = (CHECKOUT / "debian/control").read_text()
    found = re.search(r"(?ms)^Build-Depends:(.*?)^\S", control)
    assert found
    names = {re.split(r"[\s(|]", one.strip())[0] for one in found[1].split(",")}
    return {"debhelper" if name == "debhelper-compat" else name for name in names}


@pytest.fixture
def bare(tmp_path: Path) -> Path:
    """A PATH with the shell's own tools, no apt-get, and a dpkg-query that knows of nothing but dh-python."""
    for tool in TOOLS:
        found = shutil.which(tool)
        assert found, tool
        (tmp_path / tool).symlink_to(found)
    query = tmp_path / "dpkg-query"
    query.write_text('#!/bin/bash\n[ "${@: -1}" = dh-python ] && printf installed\n')
    query.chmod(0o755)
    return tmp_path


def test_all_that_is_missing_is_named_in_one_go(bare: Path, tmp_path: Path) -> None:
    ran = subprocess.run(
        [CHECKOUT / "packaging/deb", tmp_path / "dist"],
        env={"PATH": str(bare), "TMPDIR": os.fspath(tmp_path)}, capture_output=True, text=True,
    )  # fmt: skip

    assert (ran.returncode, ran.stdout) == (1, "")
    (line,) = ran.stderr.splitlines()
    found = re.fullmatch(r"Missing here: (.*)\. Install with: sudo apt-get install (.*)", line)
    assert found, line
    assert found[1] == found[2]
    named = set(found[1].split())
    assert named >= needed() - {"dh-python"} | {"build-essential", "dpkg-dev", "python3-pip"}
    assert "dh-python" not in named
