"""The arguments for journalctl(1) that select rbee's entries.

Any process may log a field RBEE_HIVE=, so the unit is matched, too, which journald itself sets.
"""

from __future__ import annotations

import os
from pathlib import Path

from rbee.scope import HIVE_UNIT, QUEEN_UNIT, REDIAL_UNIT, SLICE, SYSTEM, Scope, worker_units
from rbee.wire.types import LOCALHOST

FOLDERS = (Path("var/log/journal"), Path("run/log/journal"))
"""The persistent and the volatile journal (systemd-journald.service(8))."""

WITHOUT_ENGINES = "--priority=info"
"""The option that leaves out what a hive repeats of its engines' output: it has the priority debug."""


def is_readable(root: Path = Path("/")) -> bool:
    """May this process read the journal of the system? True if there is no journal.

    To a user who may not, journalctl shows the user's own entries, with exit status 0.
    """
    files = [file for folder in FOLDERS for file in (root / folder).glob("*/system.journal")]
    return not files or any(os.access(file, os.R_OK) for file in files)


def matches_of_model(model: str) -> list[str]:
    """Arguments for journalctl(1): the entries of a model's workers, also of those that have ended."""
    return ["--unit", worker_units(model)]


def matches(hive_id: str | None = None, job_id: str | None = None, scope: Scope = SYSTEM) -> list[str]:
    """Arguments for journalctl(1): the entries of queen and hives, of one hive, of one job, or of both.

    Only those of a job have the output of engines, too.
    """
    if hive_id is None and job_id is None:
        # With --unit, what systemd logs about the unit is shown, too.
        return [WITHOUT_ENGINES, "--unit", QUEEN_UNIT, "--unit", HIVE_UNIT, "--unit", REDIAL_UNIT]
    fields = [f"RBEE_JOB_ID={job_id}"] if job_id else []
    fields += [f"RBEE_HIVE={hive_id}"] if hive_id else []
    by, of_manager = "_SYSTEMD_UNIT", [f"UNIT={HIVE_UNIT}", "_PID=1"]
    if scope.kind == "user":
        by, of_manager = "_SYSTEMD_USER_UNIT", [f"USER_UNIT={HIVE_UNIT}"]
    terms = [[*fields, f"{by}={QUEEN_UNIT}"], [*fields, f"{by}={HIVE_UNIT}"]]
    if job_id and scope.kind == "system":
        # The gateway, and the worker that a job starts. systemd sets the slice, as it does the unit.
        terms.append([*fields, f"_SYSTEMD_SLICE={SLICE}"])
    if hive_id == LOCALHOST and not job_id:
        # All that the unit writes, tracebacks too, and what systemd logs about it.
        terms[1:] = [[f"{by}={HIVE_UNIT}"], of_manager]
    matched = " + ".join(" ".join(term) for term in terms).split()
    return matched if job_id else [WITHOUT_ENGINES, *matched]
