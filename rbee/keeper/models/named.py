"""Finds the hive or the model of a typed name, for verbs that take either."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.errors import UnknownHive
from rbee.keeper.hives import Hives
from rbee.keeper.models.catalog import Models
from rbee.keeper.queen.queen import Queen
from rbee.keeper.typed import did_you_mean

if TYPE_CHECKING:
    from rbee.wire.hives import HiveView
    from rbee.wire.models import ModelView


def hive_or_model(queen: Queen, name: str) -> HiveView | ModelView:
    """The hive of that name, or else the model. UnknownHive suggests similar names of both.

    Raises NotRunning if the queen is not awake.
    """
    hives = Hives(queen)
    try:
        return hives.one(name)
    except UnknownHive as error:
        models = Models(queen)
        if (model := models.find(name)) is not None:
            return model
        names = [one.name for one in models.all_known()]
        if not names:
            raise
        near = did_you_mean(name, [*(hive.id for hive in hives.of_awake()), *names])
        scope = queen.work.scope
        raise UnknownHive(
            f"neither a hive nor a model has the name '{name}'{near}",
            hint=f"{scope.rbeectl('list-hives')}; {scope.rbeectl('model list')}",
            field="NAME",
        ) from error
