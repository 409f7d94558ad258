"""The folder with the results of past runs: one JSON file for each, named by date, commit and suite."""

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

from tests.bench.lines import Results

RUNS_MAX = 50
"""How many runs are kept; older ones are deleted."""


class PastRuns:
    """The runs of one suite, in a folder that other suites may share."""

    def __init__(self, folder: Path, suite: str) -> None:
        self._folder = folder
        self._suite = suite

    @staticmethod
    def default_folder() -> Path:
        """Return the folder beside the cached trees."""
        return Trees.default_cache() / "bench"

    def last(self, names: Iterable[str]) -> dict[str, Results]:
        """Return, by the name of each line, the latest run that measured it, if any did."""
        wanted = set(names)
        last: dict[str, Results] = {}
        for run in self._newest_first():
            for name in wanted & run.samples.keys() - last.keys():
                last[name] = run
        return last

    def _newest_first(self) -> Iterator[Results]:
        for path in sorted(self._folder.glob(f"*-{self._suite}.json"), reverse=True):
            yield Results(json.loads(path.read_text())["samples"])

    def keep(self, results: Results, about: Mapping[str, Any]) -> Path:
        """Write a run and `about`, what it depends on, and return the path of its file."""
        self._folder.mkdir(parents=True, exist_ok=True)
        moment = datetime.now(UTC)
        path = self._folder / f"{moment:%Y%m%dT%H%M%SZ}-{commit()}-{self._suite}.json"
        content = {"suite": self._suite, "date": moment.isoformat(), "commit": commit(), **about}
        part = path.with_suffix(".part")
        part.write_text(json.dumps({**content, "samples": results.samples}, indent=1, ensure_ascii=False))
        part.rename(path)
        for old in sorted(self._folder.glob("*.json"), reverse=True)[RUNS_MAX:]:
            old.unlink()
        return path


def commit() -> str:
    """Return the checkout's commit in 12 digits, with a + behind it if files differ from it."""
    head = _git("rev-parse", "--short=12", "HEAD")
    return f"{head}+" if _git("status", "--porcelain", "--untracked-files=no") else head


def _git(*arguments: str) -> str:
    return subprocess.run([*GIT, *arguments], stdout=subprocess.PIPE, text=True, check=True).stdout.strip()


def about_this_computer() -> dict[str, Any]:
    """Return what of this computer the results depend on: CPU, number of CPUs, kernel, and the checkout."""
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
