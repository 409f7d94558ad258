"""The arguments for journalctl(1) that select rbee's entries.

Any process may log a field RBEE_HIVE=, so the unit is matched, too, which journald itself sets.
"""

from __future__ import annotations

from rbee.scope import HIVE_UNIT, QUEEN_UNIT, REDIAL_UNIT, SLICE, SYSTEM, Scope, worker_unit, worker_units
from rbee.wire.logs import LogQuery
from rbee.wire.types import LOCALHOST

WITHOUT_ENGINES = "--priority=info"
"""The option that leaves out what a hive repeats of its engines' output: it has the priority debug."""


def command(query: LogQuery, scope: Scope = SYSTEM) -> tuple[str, ...]:
    """The words of the command of journalctl(1) for a query. Its own options may change the priority."""
    level = () if query.job or query.model or query.worker else (WITHOUT_ENGINES,)
    return scope.command("journalctl", *level, *query.options, *matches(query, scope))


def matches(query: LogQuery, scope: Scope = SYSTEM) -> list[str]:
    """The arguments that select the entries of a query."""
    if query.model is not None:
        # Also of workers that have ended. With --unit, what systemd logs about a unit is shown, too.
        return [*query.fields, "--unit", worker_units(query.model)]
    if query.worker is not None:
        return [*query.fields, "--unit", worker_unit(query.worker)]
    if query.hive is None and query.job is None:
        return [*query.fields, "--unit", QUEEN_UNIT, "--unit", HIVE_UNIT, "--unit", REDIAL_UNIT]
    fields = [*query.fields, *([f"RBEE_JOB_ID={query.job}"] if query.job else [])]
    fields += [f"RBEE_HIVE={query.hive}"] if query.hive else []
    by, of_manager = "_SYSTEMD_UNIT", [f"UNIT={HIVE_UNIT}", "_PID=1"]
    if scope.kind == "user":
        by, of_manager = "_SYSTEMD_USER_UNIT", [f"USER_UNIT={HIVE_UNIT}"]
    terms = [[*fields, f"{by}={QUEEN_UNIT}"], [*fields, f"{by}={HIVE_UNIT}"]]
    if query.job and scope.kind == "system":
        # The gateway, and the worker that a job starts. systemd sets the slice, as it does the unit.
        terms.append([*fields, f"_SYSTEMD_SLICE={SLICE}"])
    if query.hive == LOCALHOST and not query.job:
        # All that the unit writes, tracebacks too, and what systemd logs about it.
        terms[1:] = [[*query.fields, f"{by}={HIVE_UNIT}"], [*query.fields, *of_manager]]
    first, *others = terms
    return [*first, *(word for term in others for word in ("+", *term))]
