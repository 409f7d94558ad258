"""Where to find in the journal what rbee told.

Anybody may log a field RBEE_HIVE=; what systemd itself sets, a unit's name, nobody can forge.
"""

from __future__ import annotations

import os
from pathlib import Path

from rbee.scope import HIVE_UNIT, QUEEN_UNIT, REDIAL_UNIT
from rbee.wire.types import LOCALHOST

FOLDERS = (Path("var/log/journal"), Path("run/log/journal"))
"""Where journald keeps what survives a boot, and what does not (systemd-journald.service(8))."""


def is_readable(root: Path = Path("/")) -> bool:
    """May this process read what the system's units wrote? True where there is no journal to look at.

    journalctl itself shows a user who may not what is the user's own, and calls that a success.
    """
    files = [file for folder in FOLDERS for file in (root / folder).glob("*/system.journal")]
    return not files or any(os.access(file, os.R_OK) for file in files)


def matches(hive_id: str | None = None, job_id: str | None = None) -> list[str]:
    """Arguments for journalctl(1): the entries of queen and hives, of one hive, of one job, or of both."""
    if hive_id is None and job_id is None:
        # As a unit's own, with what systemd says of it.
        return ["--unit", QUEEN_UNIT, "--unit", HIVE_UNIT, "--unit", REDIAL_UNIT]
    fields = [f"RBEE_JOB_ID={job_id}"] if job_id else []
    fields += [f"RBEE_HIVE={hive_id}"] if hive_id else []
    terms = [[*fields, f"_SYSTEMD_UNIT={QUEEN_UNIT}"], [*fields, f"_SYSTEMD_UNIT={HIVE_UNIT}"]]
    if hive_id == LOCALHOST and not job_id:
        # All that its unit says, tracebacks too, and what systemd says of the unit.
        terms[1:] = [[f"_SYSTEMD_UNIT={HIVE_UNIT}"], [f"UNIT={HIVE_UNIT}", "_PID=1"]]
    return " + ".join(" ".join(term) for term in terms).split()
