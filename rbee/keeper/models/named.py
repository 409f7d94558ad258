"""Finds the hive, the model or the worker of a typed name, for verbs that take any of them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.errors import UnknownHive
from rbee.keeper.hives import Hives
from rbee.keeper.models.catalog import Models
from rbee.keeper.queen.queen import Queen
from rbee.keeper.typed import did_you_mean

if TYPE_CHECKING:
    from rbee.wire.hives import HiveView
    from rbee.wire.models import ModelView


class Named(NamedTuple):
    """What has a typed name; for a worker's `view` is its model, and `worker` its id."""

    view: HiveView | ModelView
    worker: str | None = None


def named(queen: Queen, name: str) -> Named:
    """The hive of that name, or else the model, or the worker. UnknownHive suggests similar names of all.

    Raises NotRunning if the queen is not awake.
    """
    hives = Hives(queen)
    try:
        return Named(hives.one(name))
    except UnknownHive as error:
        models = Models(queen)
        if (model := models.find(name)) is not None:
            return Named(model)
        names = [one.name for one in models.all_known()]
        if not names:
            raise
        workers = {one.id: one for one in models.workers() if one.id is not None}
        if (worker := workers.get(name)) is not None:
            return Named(models.one(worker.model), worker.id)
        near = did_you_mean(name, [*(hive.id for hive in hives.of_awake()), *names, *workers])
        scope = queen.work.scope
        raise UnknownHive(
            f"no hive, model or worker has the name '{name}'{near}",
            hint="\n".join(map(scope.rbeectl, ("list-hives", "model list", "list-workers"))),
            field="NAME",
        ) from error
