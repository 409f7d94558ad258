"""Where to find in the journal what rbee told.

Anybody may log a field RBEE_HIVE=; what systemd itself sets, a unit's name, nobody can forge.
"""

from __future__ import annotations

from rbee.contracts import LOCALHOST
from rbee.systemd import HIVE_UNIT, QUEEN_UNIT


def matches(hive_id: str | None = None, job_id: str | None = None) -> list[str]:
    """Arguments for journalctl(1): the entries of queen and hives, of one hive, of one job, or of both."""
    if hive_id is None and job_id is None:
        # As a unit's own, with what systemd says of it.
        return ["--unit", QUEEN_UNIT, "--unit", HIVE_UNIT]
    fields = [f"RBEE_JOB_ID={job_id}"] if job_id else []
    fields += [f"RBEE_HIVE={hive_id}"] if hive_id else []
    terms = [[*fields, f"_SYSTEMD_UNIT={QUEEN_UNIT}"], [*fields, f"_SYSTEMD_UNIT={HIVE_UNIT}"]]
    if hive_id == LOCALHOST and not job_id:
        # All that its unit says, tracebacks too, and what systemd says of the unit.
        terms[1:] = [[f"_SYSTEMD_UNIT={HIVE_UNIT}"], [f"UNIT={HIVE_UNIT}", "_PID=1"]]
    return " + ".join(" ".join(term) for term in terms).split()
