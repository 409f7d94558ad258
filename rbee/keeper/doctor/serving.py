"""Models, workers and engines, as an awake queen reports them, and the workers that nobody claims."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import TYPE_CHECKING, Literal

from rbee.client.queen import QueenClient
from rbee.errors import NoSuchRoute, NotPermitted, RbeeError
from rbee.keeper.doctor.check import Complaint, no_bus
from rbee.keeper.doctor.patient import Patient
from rbee.keeper.queen.state import queen_state
from rbee.scope import HIVE_UNIT, WORKERS, Scope, worker_unit
from rbee.systemd.links import running
from rbee.text import printable
from rbee.wire.routes import QueenRoutes
from rbee.wire.types import LOCALHOST

if TYPE_CHECKING:
    from rbee.wire.engines import HiveEngines
    from rbee.wire.models import ModelView
    from rbee.wire.workers import WorkerView

Look = Literal["there", "gone", "silent", "unseen"]

LOOK_TIMEOUT = 2.0
"""Seconds for a file system to say whether the models' files are there."""

CLAIM_TIMEOUT, CLAIM_INTERVAL = 5.0, 0.25
"""Seconds for the hive to claim the workers that run, and between two looks whether it has."""

ASK_TIMEOUT = 8.0
"""Seconds for the queen to answer one request; for the engines it asks the hives, which have 5."""


def has_queen_awake(patient: Patient) -> bool:
    """Is there a queen to ask? To ask one that is asleep would wake it. Unknown without a bus: True."""
    if not patient.is_installed(patient.queen):
        return False
    try:
        return patient.bus is None or queen_state(patient.bus) == "awake"
    except RbeeError:
        return True  # the check itself reports it


def check_serving(patient: Patient) -> Iterator[Complaint]:
    """Are models' files there, is there an engine for them, do workers run, is each one claimed?"""
    if patient.bus is None:
        yield no_bus(patient.scope)
        return
    if queen_state(patient.bus) != "awake":
        return  # it was stopped meanwhile
    path = patient.root / patient.scope.queen_socket.relative_to("/")
    client = QueenClient(path, timeout=ASK_TIMEOUT, scope=patient.scope)
    try:
        models = client.ask(QueenRoutes.MODELS).models
        workers = client.ask(QueenRoutes.WORKERS).workers
        engines = client.ask(QueenRoutes.ENGINES).hives
    except NotPermitted:
        yield Complaint(
            "not checked: the queen is not open to you", hint=patient.scope.doctor, is_fault=False
        )
        return
    except NoSuchRoute:
        return  # it is of an older version, without models: rbeectl version shows that
    except RbeeError as error:
        yield Complaint(f"the queen does not report its models: {error.message}", hint=error.hint)
        return
    yield from complain_of_models(models, patient.scope, patient.root)
    yield from complain_of_engines(models, engines, patient.scope)
    yield from complain_of_workers(workers, patient.scope)
    if patient.bus.active_state(HIVE_UNIT) == "active":
        yield from complain_of_orphans(*_settled(client, patient, workers), patient.scope)


def complain_of_models(
    models: tuple[ModelView, ...], scope: Scope, root: Path = Path("/")
) -> Iterator[Complaint]:
    """Models whose file is gone, as this user or the last start found, or that could not be fetched."""
    looks = _look(models, root)
    for model in models:
        name = printable(model.name)
        if model.problem:
            yield Complaint(f"the row of model {name} cannot be read: {model.problem}")
        if model.state == "missing" and looks.get(model.name) == "there":
            yield Complaint(
                f"the last start did not find the file of model {name}, which is there now: {model.path}; "
                "the next start looks again",
                is_fault=False,
            )
        elif model.state == "missing" or looks.get(model.name) == "gone":
            where = f"{model.path or model.source} on {model.hive_id}"
            reason = f" ({model.reason})" if model.state == "missing" and model.reason else ""
            yield Complaint(
                f"the file of model {name} is gone: {where}{reason}",
                hint=f"Put it back; or: {scope.rbeectl(f'model remove {model.name}')}",
            )
        elif looks.get(model.name) == "silent":
            yield Complaint(
                f"the file system of model {name} does not answer: {model.path}",
                hint=f"findmnt --target {model.path}",
            )
        elif model.state == "failed":
            yield Complaint(
                f"model {name} could not be added: {model.reason}",
                hint=f"{scope.rbeectl(f'model add {model.name} PATH|URL')}\n"
                f"Or: {scope.rbeectl(f'model remove {model.name}')}",
            )


def _look(models: tuple[ModelView, ...], root: Path) -> dict[str, Look]:
    """Return, by model, how the files are that should be on this machine: 'silent' without an answer.

    It is 'unseen' if this user may not look at it. The folders are looked at side by side: a network
    file system whose server is away does not answer for as long as that takes.
    """
    paths = {
        model.name: root / model.path.lstrip("/")
        for model in models
        if model.state in ("ready", "missing") and model.hive_id == LOCALHOST and model.path is not None
    }
    looks: dict[str, Look] = dict.fromkeys(paths, "silent")

    def look(folder: Path) -> None:
        for name, path in paths.items():
            if path.parent == folder:
                looks[name] = _look_at(path)

    threads = [
        Thread(target=look, args=(one,), daemon=True) for one in {one.parent for one in paths.values()}
    ]
    for looking in threads:
        looking.start()
    deadline = time.monotonic() + LOOK_TIMEOUT
    for looking in threads:
        looking.join(max(0.0, deadline - time.monotonic()))
    return dict(looks)


def _look_at(path: Path) -> Look:
    try:
        path.stat()
    except (FileNotFoundError, NotADirectoryError):
        return "gone"
    except OSError:
        return "unseen"
    return "there"


def complain_of_engines(
    models: tuple[ModelView, ...], hives: tuple[HiveEngines, ...], scope: Scope
) -> Iterator[Complaint]:
    """Drop-ins that were refused, and served models that their hive cannot start, or has no engine for.

    What each engine of a hive with models lacks is a note.
    """
    for hive in hives:
        for problem in hive.problems:
            yield Complaint(f"an engine's drop-in on {hive.hive_id} is refused: {problem}")
        served = [model for model in models if model.is_served and model.hive_id == hive.hive_id]
        if any(model.hive_id == hive.hive_id for model in models) and hive.engines:
            yield Complaint(f"engines of {hive.hive_id}: {_shown(hive)}", is_fault=False)
        if served and hive.reason is not None:
            verb = "add-hive" if "is offline" in hive.reason else "status"
            yield Complaint(
                f"no model can be started on {hive.hive_id}: {hive.reason}",
                hint=scope.rbeectl(f"{verb} {hive.hive_id}"),
                is_fault=False,
            )
            continue
        for model in served:
            fitting = [
                engine
                for engine in hive.engines
                if model.head is not None
                and model.head.format in engine.formats
                and model.engine in (None, engine.name)
            ]
            if model.head is not None and all(engine.problem for engine in fitting):
                whys = "; ".join(f"{engine.name}: {engine.problem}" for engine in fitting)
                kind = model.engine or model.head.format
                yield Complaint(
                    f"{hive.hive_id} has no engine for model {printable(model.name)} ({kind}): "
                    f"{whys or 'no drop-in is for it'}",
                    hint=scope.rbeectl("list-engines"),
                )


def _shown(hive: HiveEngines) -> str:
    return "; ".join(f"{one.name}: {one.problem or 'can be used'}" for one in hive.engines)


def complain_of_workers(workers: tuple[WorkerView, ...], scope: Scope) -> Iterator[Complaint]:
    """Workers that have failed."""
    for worker in workers:
        if worker.state == "failed":
            subject = f"worker {worker.id} of model" if worker.id else "model"
            yield Complaint(
                f"{subject} {printable(worker.model)} has failed: {worker.reason}",
                hint=f"{scope.rbeectl(f'status {worker.model}')}\n{scope.rbeectl(f'logs {worker.model}')}",
            )


def _settled(
    client: QueenClient, patient: Patient, workers: tuple[WorkerView, ...]
) -> tuple[list[str], tuple[WorkerView, ...]]:
    """Return the units that run, and the queen's workers, once all are claimed, or after CLAIM_TIMEOUT.

    A hive that has just started, for example by a cure, claims them a moment later.
    """
    deadline = time.monotonic() + CLAIM_TIMEOUT
    while True:
        units = running(WORKERS, patient.root, patient.scope)
        if not _unclaimed(units, workers) or time.monotonic() >= deadline:
            return units, workers
        time.sleep(CLAIM_INTERVAL)
        try:
            workers = client.ask(QueenRoutes.WORKERS).workers
        except RbeeError:
            return [], workers  # it is stopped meanwhile, or dies, which its own checks find


def complain_of_orphans(
    units: list[str], workers: tuple[WorkerView, ...], scope: Scope
) -> Iterator[Complaint]:
    """Workers that run on this machine, and of which its hive does not know."""
    for unit in _unclaimed(units, workers):
        yield Complaint(
            f"{unit} runs, and no hive claims it: no model can use its memory",
            (scope.command("systemctl", "stop", unit),),
        )


def _unclaimed(units: list[str], workers: tuple[WorkerView, ...]) -> list[str]:
    claimed = {
        worker_unit(worker.id)
        for worker in workers
        if worker.id is not None and worker.hive_id in (LOCALHOST, None)
    }
    return [unit for unit in units if unit not in claimed]
