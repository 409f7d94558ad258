"""A model and its workers, as rbeectl status shows them."""

from __future__ import annotations

from typing import TYPE_CHECKING, NamedTuple

from rbee.journal.reader import tail
from rbee.keeper.models.catalog import Models
from rbee.keeper.output import models as drawn
from rbee.keeper.output import tables
from rbee.keeper.output.screen import dot
from rbee.text import printable
from rbee.wire.codec import encode
from rbee.wire.logs import LogQuery

if TYPE_CHECKING:
    from collections.abc import Mapping

    from rbee.keeper.output.screen import Screen
    from rbee.keeper.queen.queen import Queen
    from rbee.keeper.session import Session
    from rbee.wire.models import ModelView
    from rbee.wire.workers import WorkerState, WorkerView

DOTS: Mapping[WorkerState, str] = {
    "ready": "active", "busy": "active", "loading": "waiting", "waiting": "waiting", "stopping": "waiting",
    "failed": "failed",
}  # fmt: skip
"""The state of a unit whose dot a worker's state gets; all others get that of inactive."""


class ModelStatus(NamedTuple):
    """A model, its workers, and the last lines of their log."""

    model: ModelView
    workers: tuple[WorkerView, ...]
    log: tuple[str, ...]

    @classmethod
    def find(cls, queen: Queen, model: ModelView, lines: int) -> ModelStatus:
        """Ask an awake queen for the workers, and the journal for at most `lines` lines."""
        workers = Models(queen).workers(model.name)
        return cls(model, workers, tuple(_log(queen, model, workers, lines)))

    @property
    def is_up(self) -> bool:
        """Does it answer requests, or will it when one comes?"""
        has_failed = bool(self.workers) and all(worker.state == "failed" for worker in self.workers)
        return self.model.is_served and self.model.state == "ready" and not has_failed

    def show(self, session: Session) -> None:
        """Print it."""
        if session.as_json:
            session.tell_json(
                {"model": encode(self.model), "workers": encode(self.workers), "log": list(self.log)}
            )
            return
        session.show(lambda frame: "\n".join(self._lines(session.screen, frame)))

    def _lines(self, screen: Screen, frame: tables.Frame) -> list[str]:
        model = self.model
        states = [DOTS.get(worker.state, "inactive") for worker in self.workers]
        mark = next((one for one in ("active", "waiting", "failed") if one in states), "inactive")
        rows = [
            ("State", f"{drawn.model_state(model)} since {tables.moment(model.since_ms * 1000)}"),
            ("Reason", model.reason),
            ("Problem", model.problem or ""),
            ("Served", f"yes; {drawn.idle(model)}" if model.is_served else "no"),
            ("File", f"{model.path or model.source} on {model.hive_id}, {drawn.size(model.bytes)}"),
            ("Kind", drawn.kind(model.head) if model.head else ""),
            ("Memory", drawn.needs(model)),
        ]
        lines = [f"{dot(mark, screen)} {printable(model.name)} - model", *_fitted(rows, frame)]
        for worker in self.workers:
            lines += ["", *_fitted(worker_rows(worker), frame)]
        if self.log:
            lines += ["", *map(printable, self.log)]
        return lines


def worker_rows(worker: WorkerView) -> list[tuple[str, str]]:
    """The lines about one worker, or about a served model that has none."""
    rows = [
        ("Worker", worker.id or "none"),
        ("State", f"{drawn.worker_state(worker)} since {tables.moment(worker.since_ms * 1000)}"),
        ("Reason", worker.reason),
    ]
    if worker.id is None:
        return rows
    used = worker.last_used_ms
    return [
        *rows,
        ("Device", f"{worker.hive_id or '-'} {worker.pool or '-'}"),
        ("Memory", drawn.memory(worker)),
        ("Peak", "" if worker.peak_bytes is None else drawn.size(worker.peak_bytes)),
        ("Requests", f"{worker.in_flight} in flight"),
        ("Last used", "" if used is None else tables.ago(used, tables.now_ms())),
        ("Engine", worker.engine or ""),
        ("Context", "" if worker.context is None else f"{worker.context} tokens"),
        ("Main PID", "" if worker.pid is None else str(worker.pid)),
    ]


def _fitted(rows: list[tuple[str, str]], frame: tables.Frame) -> list[str]:
    return [frame.fit(f"{name:>11}: {printable(text)}") for name, text in rows if text]


def _log(queen: Queen, model: ModelView, workers: tuple[WorkerView, ...], lines: int) -> list[str]:
    """The journal's lines, if this user may read them; else those that a failed engine printed last."""
    if not lines:
        return []
    shown = tail(LogQuery(model=model.name), lines, queen.work.scope)
    return shown or [line for worker in workers for line in worker.log][-lines:]
