"""The folder with the results of past runs: a JSON file a run, named by date, commit and suite."""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from testbed.host import CHECKOUT
from testbed.trees import GIT, Trees

from tests.bench.lines import Found

KEPT = 50
"""Runs that are kept; the oldest beyond these are deleted."""


class Kept:
    """Runs of one suite in a folder, which others' runs may be in too."""

    def __init__(self, folder: Path, suite: str) -> None:
        self._folder = folder
        self._suite = suite

    @staticmethod
    def default_folder() -> Path:
        """The folder beside the cached trees."""
        return Trees.default_cache() / "bench"

    def last(self, names: Iterable[str]) -> dict[str, Found]:
        """Return for the name of each line the latest run in which it was measured."""
        wanted = set(names)
        last: dict[str, Found] = {}
        for run in self._newest_first():
            for name in wanted & run.samples.keys() - last.keys():
                last[name] = run
        return last

    def _newest_first(self) -> Iterator[Found]:
        for path in sorted(self._folder.glob(f"*-{self._suite}.json"), reverse=True):
            yield Found(json.loads(path.read_text())["samples"])

    def keep(self, found: Found, about: Mapping[str, Any]) -> Path:
        """Write a run, and return its file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        moment = datetime.now(UTC)
        path = self._folder / f"{moment:%Y%m%dT%H%M%SZ}-{commit()}-{self._suite}.json"
        content = {"suite": self._suite, "date": moment.isoformat(), "commit": commit(), **about}
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**content, "samples": found.samples}, indent=1, ensure_ascii=False))
        part.rename(path)
        for old in sorted(self._folder.glob("*.json"), reverse=True)[KEPT:]:
            old.unlink()
        return path


def commit() -> str:
    """Return the checkout's commit, and whether there is more in it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def about_this_computer() -> dict[str, Any]:
    """Return what the figures depend on, as far as this computer is concerned."""
    kernel = os.uname()
    model = next(
        (
            line.partition(": ")[2]
            for line in Path("/proc/cpuinfo").read_text().splitlines()
            if line.startswith("model name")
        ),
        kernel.machine,
    )
    return {"cpu": model, "cpus": os.cpu_count(), "kernel": kernel.release, "checkout": str(CHECKOUT)}
