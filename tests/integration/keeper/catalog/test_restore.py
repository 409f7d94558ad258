"""Another catalog in the place of the queen's, by processes that end in the middle of it."""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from rbee.errors import CatalogUnusable
from rbee.queen.store.store import Store
from tests.unit.keeper.catalog.doubles import listing, make, make_killed, names_in, run

REPOSITORY = Path(__file__).parents[4]

CUT = """
import os, sys
from pathlib import Path
import rbee.keeper.catalog.restore as catalog

left = int(sys.argv[1])


def cut(call):
    def counted(*arguments, **named):
        global left
        if left == 0:
            os._exit(9)
        left -= 1
        return call(*arguments, **named)
    return counted

for name in ("rename", "fsync", "fchown", "link", "unlink"):
    setattr(os, name, cut(getattr(os, name)))
os.geteuid = lambda: 0
catalog.restore(sys.argv[3] or None, path=Path(sys.argv[2]))
"""


@pytest.mark.parametrize("is_empty", [False, True], ids=["a backup", "nothing"])
def test_a_restore_that_is_cut_off_anywhere_loses_nothing_and_is_finished_by_another(
    tmp_path: Path, is_empty: bool
) -> None:
    steps = 0
    ends = set()
    wanted = [] if is_empty else ["restored"]
    while True:
        path = make_killed(tmp_path / str(steps) / "state/catalog.db", "acknowledged")
        source = "" if is_empty else str(make(tmp_path / str(steps) / "media/backup.db", "restored"))

        def restored(after: int, path: Path = path, source: str = source) -> int:
            command = [sys.executable, "-c", CUT, str(after), str(path), source]
            return subprocess.run(command, cwd=REPOSITORY, timeout=60).returncode

        ended = restored(steps)
        ends.add(how_the_queen_starts(path))
        assert restored(-1) == 0
        assert how_the_queen_starts(path) == " ".join(wanted)
        kept = [one for one in path.parent.glob("*.old") if "acknowledged" in names_in(one)]
        assert len(kept) == 1, f"cut off after {steps} steps: {listing(path.parent)}"
        if ended == 0:
            break
        assert ended == 9
        steps += 1
    # All of the one or all of the other, and never the new one with the old one's log.
    assert ends == {"acknowledged before", "it was interrupted", " ".join(wanted)}
    assert steps >= 6


def how_the_queen_starts(path: Path) -> str:
    """The hives that she finds; looking at a copy, or she would write the log back."""
    with tempfile.TemporaryDirectory() as folder:
        shutil.copytree(path.parent, folder, dirs_exist_ok=True)
        try:
            catalog = Store.open(Path(folder) / path.name)
        except CatalogUnusable as error:
            return f"it {error.message.partition(' was ')[1].strip()} {error.message.partition(' was ')[2]}"
        names = [row.id for row in run(catalog.hives.all())]
        catalog.close()
        return " ".join(names)
