"""Why no worker of a model can be started now, and what to do about it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.errors import ModelNotReady, NoRoom, RbeeError
from rbee.queen.serving.need import size
from rbee.queen.serving.placement import Decision

if TYPE_CHECKING:
    from rbee.queen.hives.hive import Hive
    from rbee.queen.store.models import ModelRow
    from rbee.scope import Scope


def refusal(row: ModelRow, decision: Decision, hive: Hive | None, scope: Scope) -> RbeeError:
    """Return the error for those who wait for the model; `hive` is the one that has its file."""
    reason = decision.placement.reason
    if decision.is_blocked:
        reason = reason if hive is not None else away(row)
        return ModelNotReady(f"{row.name} cannot run now: {reason}", hint=cure(decision, row, hive, scope))
    return NoRoom(
        f"{needs(decision)}; no device has room for it: {reason}",
        hint=scope.rbeectl(f"place {row.name} --dry-run"),
    )


def cure(decision: Decision, row: ModelRow, hive: Hive | None, scope: Scope) -> str | None:
    """Return the command that helps against a refusal for which memory is not the reason, or None."""
    if not decision.is_blocked:
        return None
    if hive is None or not hive.standing.is_online:
        return scope.rbeectl(f"add-hive {row.hive_id}")
    if hive.standing.row.cordoned is not None:
        return scope.rbeectl(f"uncordon {row.hive_id}")
    return scope.rbeectl("list-engines")


def away(row: ModelRow) -> str:
    """Return why a model cannot run whose hive was removed."""
    return f"the beehive {row.hive_id}, which has its file, is not in the hive catalog"


def not_there(row: ModelRow, scope: Scope) -> ModelNotReady | None:
    """Return the error for a model whose file has not arrived; None if it has."""
    # A file that is missing may be back: only a start shows it, as the hive's user may not see it.
    if row.has_arrived and row.path is not None:
        return None
    return ModelNotReady(
        f"the model {row.name} is {row.state}{f': {row.reason}' if row.reason else ''}",
        hint=scope.rbeectl(f"model show {row.name}"),
    )


def needs(decision: Decision) -> str:
    """Return such as 'bee needs 1.2 GiB (estimate)'."""
    placement = decision.placement
    source = f"says {placement.engine}" if placement.source == "engine" else placement.source
    return f"{placement.model} needs {size(placement.need_bytes)} ({source})"
