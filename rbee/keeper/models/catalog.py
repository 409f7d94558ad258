"""Reading the models of the queen's catalog, and their workers."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rbee.errors import NoSuchRoute, UnknownModel
from rbee.keeper.queen.queen import Queen
from rbee.keeper.typed import checked, did_you_mean
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import ModelName, spelled

if TYPE_CHECKING:
    from rbee.wire.engines import FleetEngines
    from rbee.wire.models import ModelView
    from rbee.wire.workers import Placement, WorkerView

PLACEMENT_TIMEOUT = 30.0
"""Seconds for an answer: the queen waits for 13 s for what an engine says, and for 5 s for each hive."""


class Models:
    """Reads models and workers. Methods raise NotRunning if the queen is not awake, and wake nothing."""

    def __init__(self, queen: Queen) -> None:
        self._queen = queen
        self.scope = queen.work.scope

    def all(self) -> tuple[ModelView, ...]:
        """Every model of the catalog, by name."""
        return self._queen.ask_if_awake(QueenRoutes.MODELS).models

    def one(self, name: str) -> ModelView:
        """The model of that name; UnknownModel suggests similar names."""
        with_name = self.named(name)
        model: ModelView = self.asked(name, lambda: self._queen.ask_if_awake(QueenRoutes.MODEL, **with_name))
        return model

    def find(self, name: str) -> ModelView | None:
        """The model of that name; None if the catalog has none, or the queen has no catalog of models."""
        models = self.all_known()
        known = spelled(name, (model.name for model in models))
        return next((model for model in models if model.name == known), None)

    def all_known(self) -> tuple[ModelView, ...]:
        """As all(); none if the queen has no catalog of models."""
        try:
            return self.all()
        except NoSuchRoute:
            return ()

    def workers(self, model: str | None = None) -> tuple[WorkerView, ...]:
        """The workers, and the served models without one; of one model, or of all."""
        about = {} if model is None else {"model": model}
        return self._queen.ask_if_awake(QueenRoutes.WORKERS, **about).workers

    def placement(self, name: str) -> Placement:
        """Where a worker of the model would run now. Raises as one()."""
        with_name, queen = self.named(name), self._queen
        placed: Placement = self.asked(
            name, lambda: queen.ask_within(PLACEMENT_TIMEOUT, QueenRoutes.PLACEMENT, **with_name)
        )
        return placed

    def engines(self) -> FleetEngines:
        """The engines of the hives that are online."""
        return self._queen.ask_if_awake(QueenRoutes.ENGINES)

    @staticmethod
    def named(name: str) -> dict[str, str]:
        """The values of a route with {model}; BadInput if it is not a model's name."""
        return {"model": checked(ModelName, "MODEL", name)}

    def asked(self, name: str, ask: Callable[[], Any]) -> Any:
        """The answer of a request about a model; UnknownModel gets similar names."""
        try:
            return ask()
        except UnknownModel as error:
            raise self.unknown(name) from error

    def unknown(self, name: str) -> UnknownModel:
        """The error for a model that is not in the catalog, for a queen that is awake."""
        return UnknownModel(
            f"model '{name}' is not in the model catalog{self.near(name)}",
            hint=self.scope.rbeectl("model list"),
            field="MODEL",
        )

    def near(self, name: str) -> str:
        """As did_you_mean(), with the names of the models, for a queen that is awake."""
        return did_you_mean(name, (model.name for model in self._queen.ask(QueenRoutes.MODELS).models))
