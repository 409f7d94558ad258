"""Asks the hives of models what their engines say that they need, before a placement."""

from __future__ import annotations

import logging

from rbee.errors import NoSuchRoute, RbeeError
from rbee.queen.hives.hives import Hives
from rbee.queen.models.model import Answer
from rbee.queen.models.models import Models
from rbee.queen.serving.need import context_of
from rbee.wire.workers import AskEstimate, Estimate, Kind

log = logging.getLogger("rbee")

TIMEOUT = 13.0
"""Seconds for a hive's answer: the engine's command may run for 5 s, once for RAM and once for cards."""

KINDS: tuple[Kind, ...] = ("ram", "gpu")


class Estimates:
    """Asks before each placement. The hive runs the command only for what it has not answered yet."""

    def __init__(self, hives: Hives, models: Models) -> None:
        self._hives = hives
        self._models = models

    async def ask(self, name: str) -> None:
        """Have a model's answer (Model.answer) up to date; without a better source only. Raises nothing.

        A hive that is offline, or does not answer, leaves it as it was.
        """
        model = self._models.find(name)
        if model is None or model.row.path is None or not model.row.has_arrived:
            return
        row, context = model.row, context_of(model.row)
        kinds = tuple(kind for kind in KINDS if self._models.learned(name, context, kind, row.engine) is None)
        hive = self._hives.find(row.hive_id)
        if row.memory_bytes is not None or not kinds or hive is None or not hive.standing.is_online:
            return
        assert row.path is not None
        form = row.head.format if row.head is not None else "gguf"
        asked = AskEstimate(name, row.path, form, context, kinds, row.engine, row.bytes or 0)
        try:
            estimate = await (await hive.reach()).estimate(asked, timeout=TIMEOUT)
        except NoSuchRoute:
            estimate = Estimate()  # a hive of an earlier release
        except RbeeError as error:
            log.warning("what the engine of %s says that it needs is not known: %s", name, error.message)
            return
        model.answer = self._merged(model.answer, Answer(row.path, context, estimate))

    @staticmethod
    def _merged(former: Answer | None, answer: Answer) -> Answer:
        """Return the answer, with the former numbers if the command was not run this time."""
        estimate = answer.estimate
        if former is None or not estimate.is_passing:
            return answer
        before = former.estimate
        if (former.path, former.context, before.engine) != (answer.path, answer.context, estimate.engine):
            return answer
        ram = before.ram_bytes if estimate.ram_bytes is None else estimate.ram_bytes
        gpu = before.gpu_bytes if estimate.gpu_bytes is None else estimate.gpu_bytes
        return answer._replace(estimate=estimate._replace(ram_bytes=ram, gpu_bytes=gpu))

    def note(self, name: str) -> str | None:
        """Return why the engine of a model, which has a command for it, did not say what the model needs."""
        model = self._models.find(name)
        return None if model is None or model.answer is None else model.answer.estimate.problem
