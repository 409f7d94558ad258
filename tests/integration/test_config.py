"""rbee.conf, with what other programs and another user make of it."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from rbee.config import load
from rbee.errors import BadConfig

REPOSITORY = Path(__file__).parents[2]


def test_a_file_in_utf_16_is_named_with_a_command_that_makes_it_utf_8(tmp_path: Path) -> None:
    path = tmp_path / "etc/rbee/rbee.conf"
    path.parent.mkdir(parents=True)
    path.write_text("[Queen]\r\nJobsMax=7\r\n", encoding="utf-16")

    with pytest.raises(BadConfig) as caught:
        load(tmp_path)

    assert caught.value.message == f"{path}: it is text in UTF-16, and must be UTF-8"
    assert caught.value.hint is not None
    subprocess.run(["sh", "-c", caught.value.hint.replace("sudo ", "")], check=True)
    assert load(tmp_path).queen.jobs_max == 7


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can become somebody else")
def test_a_folder_that_the_daemon_may_not_enter_is_named() -> None:
    code = """
import os, sys, tempfile
from pathlib import Path
import rbee.config
from rbee.errors import BadConfig
with tempfile.TemporaryDirectory() as folder:
    os.chmod(folder, 0o755)
    Path(folder, "etc/rbee").mkdir(parents=True)
    Path(folder, "etc/rbee/rbee.conf").write_text("[Queen]\\nJobsMax=3\\n")
    os.chmod(Path(folder, "etc/rbee"), 0o700)
    os.seteuid(65534)
    try:
        rbee.config.load(Path(folder))
    except BadConfig as error:
        print(error.message)
    finally:
        os.seteuid(0)
"""
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=REPOSITORY)

    assert "Traceback" not in run.stderr
    assert "etc/rbee" in run.stdout
