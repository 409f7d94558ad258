"""Adding, serving and removing models; verbs that only read do not load this."""

from __future__ import annotations

from typing import TYPE_CHECKING

from rbee.keeper import jobs
from rbee.keeper.models.catalog import Models
from rbee.keeper.queen.queen import Queen
from rbee.narration import REQUESTING
from rbee.wire.routes import QueenRoutes, Route

if TYPE_CHECKING:
    from rbee.wire.jobs import Done, JobStarted
    from rbee.wire.models import AddModel, ModelView, Serve


class ModelChanges:
    """Each method wakes the queen first. The begin_… methods return as soon as it has accepted the job."""

    def __init__(self, queen: Queen) -> None:
        self._queen = queen

    def add(self, model: AddModel) -> ModelView | None:
        """Add a model, and wait until it is ready."""
        self._about_to(f"add {model.name} to model catalog")
        return jobs.do(self._queen, QueenRoutes.ADD_MODEL, model).model

    def begin_adding(self, model: AddModel) -> JobStarted:
        """As add(), without waiting."""
        self._about_to(f"add {model.name} to model catalog")
        return jobs.begin(self._queen, QueenRoutes.ADD_MODEL, model)

    def remove(self, name: str) -> Done:
        """Stop a model's workers and remove it; `was_there` is False if it was not in the catalog."""
        return self._do(QueenRoutes.REMOVE_MODEL, name, f"remove {name} from model catalog")

    def begin_removing(self, name: str) -> JobStarted:
        """As remove(), without waiting."""
        return self._begin(QueenRoutes.REMOVE_MODEL, name, f"remove {name} from model catalog")

    def unserve(self, name: str) -> Done:
        """Stop a model's workers, and start none for it from now on."""
        return self._do(QueenRoutes.UNSERVE, name, f"stop serving {name}")

    def begin_unserving(self, name: str) -> JobStarted:
        """As unserve(), without waiting."""
        return self._begin(QueenRoutes.UNSERVE, name, f"stop serving {name}")

    def serve(self, name: str, how: Serve) -> ModelView:
        """Have requests wake the model from now on; UnknownModel suggests similar names."""
        values = Models.named(name)
        self._queen.wake()
        models = Models(self._queen)
        served: ModelView = models.asked(name, lambda: self._queen.ask(QueenRoutes.SERVE, how, **values))
        return served

    def _do(self, route: Route[JobStarted], name: str, what: str) -> Done:
        values = Models.named(name)
        self._about_to(what)
        done: Done = Models(self._queen).asked(name, lambda: jobs.do(self._queen, route, **values))
        return done

    def _begin(self, route: Route[JobStarted], name: str, what: str) -> JobStarted:
        values = Models.named(name)
        self._about_to(what)
        started: JobStarted = Models(self._queen).asked(
            name, lambda: jobs.begin(self._queen, route, **values)
        )
        return started

    def _about_to(self, what: str) -> None:
        self._queen.wake()
        self._queen.work.teller.narrate(REQUESTING, f"Requesting queen to {what}")
