"""What engines themselves say that a model needs (Estimate= in rbee.engine(5)), asked once and kept.

The command runs in rbee-estimate.service, one at a time: this hive's own sandbox executes only what is below
/usr, sees no model in a folder of somebody's, and may reach the hive's sockets and credentials.
"""

from __future__ import annotations

import asyncio
import logging
import math
import os
import shlex
import shutil
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import NamedTuple, TypeAlias

from rbee.engines.dropins import load
from rbee.engines.engine import Engine
from rbee.engines.estimate import BadAnswerError, Question, read_status_text
from rbee.errors import TEXT_LIMIT, RbeeError, TimedOut
from rbee.files import explained, write_whole
from rbee.hive.threads import in_daemonic_thread
from rbee.hive.units import Units
from rbee.hive.workers.place import Detector, place_of
from rbee.narration import ESTIMATE_FAILED, Narrator
from rbee.scope import ESTIMATE_UNIT, Scope
from rbee.text import printable, shortened
from rbee.wire.workers import AskEstimate, Estimate

log = logging.getLogger("rbee")

ASK_AGAIN = 600.0
"""Seconds after which a command that gave no answer is run again, and one whose model the hive cannot see."""

TRY_AGAIN = 30.0
"""Seconds after which a unit that did not run the command is started again."""

RUN_TIMEOUT = 25.0
"""Seconds for the unit to start and answer: more than its TimeoutStartSec= and TimeoutStopSec= together."""

KEPT_MAX = 1024
"""Answers that are kept; the oldest makes room."""

WAITING_MAX = 32
"""Commands that may wait for their turn; further ones are refused."""

COMMAND_SHOWN = 500
"""The most characters of a command in a message."""

FILES_MAX = 1000
"""The most files of a model's folder that are compared."""

LOOK_TIMEOUT = 5.0
"""Seconds for the file system of a model to answer."""

LOOKS_MAX = 8
"""Models that may be looked at, each in a thread, which one on a file system that hangs never leaves."""

Identity: TypeAlias = tuple[object, ...] | None
"""What is different once a file has changed; None for one that the hive's user cannot see."""


class _Case(NamedTuple):
    """What an answer depends on. A change of anything here makes another case, which is asked anew."""

    engine: Engine
    question: Question
    program: Identity
    path: str
    size: int
    file: Identity


class _Problem(NamedTuple):
    """Why there is no answer; `is_passing` if the command was not run."""

    text: str
    is_passing: bool = False


_Outcome: TypeAlias = "int | _Problem"
"""Bytes, or why there are none."""


class _Kept(NamedTuple):
    """An outcome, which is valid until this time of the monotonic clock."""

    outcome: _Outcome
    until: float


class Estimates:
    """Asks engines, and keeps their answers until the hive ends; `folder` is for the question under way."""

    def __init__(
        self,
        scope: Scope,
        folder: Path,
        units: Units,
        narrator: Narrator,
        detector: Detector,
        root: Path = Path("/"),
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._scope = scope
        self._folder = folder
        self._units = units
        self._narrator = narrator
        self._detector = detector
        self._root = root
        self._clock = clock
        self._turn = asyncio.Lock()
        self._kept: dict[_Case, _Kept] = {}
        self._running: dict[_Case, asyncio.Task[_Outcome]] = {}
        self._looks: dict[str, asyncio.Task[Identity]] = {}
        """The looks under way, by the model's path."""
        self._narrated: dict[tuple[str, str], str] = {}
        """The last failure by engine and path: one that lasts is narrated once."""

    async def estimate(self, asked: AskEstimate) -> Estimate:
        """Return what the engine that would serve a model says; a command that fails is its problem."""
        if self._scope.kind == "user":  # it has no workers either
            return Estimate()
        engine = await in_daemonic_thread(lambda: self._engine(asked))
        if engine is None:
            return Estimate()
        found: dict[str, int] = {}
        problems: list[_Problem] = []
        for kind in dict.fromkeys(asked.kinds):
            outcome = await self._answer(engine, asked, kind)
            if isinstance(outcome, int):
                found[kind] = outcome
            elif outcome is not None:
                problems.append(outcome)
        # One of the command itself says more.
        problem = min(problems, key=lambda one: one.is_passing, default=_Problem(""))
        return Estimate(
            engine.name, found.get("ram"), found.get("gpu"), problem.text or None, problem.is_passing
        )

    def _engine(self, asked: AskEstimate) -> Engine | None:
        """Return the engine that a placement takes (rbee.queen.serving.placement), if it can be asked."""
        usable = (
            engine
            for engine in load(self._scope, self._root).engines.values()
            if asked.engine in (None, engine.name)
            and asked.format in engine.formats
            and engine.problem(self._root) is None
        )
        engine = next(usable, None)
        return engine if engine is not None and engine.estimate else None

    async def _answer(self, engine: Engine, asked: AskEstimate, kind: str) -> _Outcome | None:
        """Return the outcome, or None if the machine has no pool of this kind."""
        place = await place_of("ram", self._detector)
        devices = self._detector.latest
        if kind == "gpu" and not (devices and devices.gpus):
            return None
        model = self._scope.estimate_runtime / "model"
        question = engine.question(
            model, asked.model, asked.context, threads=place.threads, kind="gpu" if kind == "gpu" else "ram"
        )
        program = self._root / engine.estimate[0].removeprefix("/")
        of_program = await in_daemonic_thread(lambda: identity(program))
        try:
            of_model = await self._look(asked.path)
        except TimedOut as error:
            return _Problem(error.message, is_passing=True)
        case = _Case(engine, question, of_program, asked.path, asked.bytes, of_model)
        kept = self._kept.get(case)
        if kept is not None and self._clock() < kept.until:
            return kept.outcome
        running = self._running.get(case)
        if running is None:
            if len(self._running) >= WAITING_MAX:
                text = f"{WAITING_MAX} commands of engines (Estimate=) are waiting for their turn"
                return _Problem(text, is_passing=True)
            running = self._running[case] = asyncio.ensure_future(self._ask(case, asked.model))
            running.add_done_callback(lambda _task: self._running.pop(case, None))
        # Shielded: the queen does not wait for ever, and asks again for what is then known.
        return await asyncio.shield(running)

    async def _look(self, path: str) -> Identity:
        """Return what a model is identified by. Raises TimedOut if its file system does not answer."""
        look = self._looks.get(path)
        if look is None:
            if len(self._looks) >= LOOKS_MAX:
                raise TimedOut(f"the disks of {LOOKS_MAX} other models have not answered yet")
            look = asyncio.ensure_future(in_daemonic_thread(lambda: identity(Path(path))))
            self._looks[path] = look
            look.add_done_callback(lambda _look: self._looks.pop(path, None))
        try:
            async with asyncio.timeout(LOOK_TIMEOUT):
                return await asyncio.shield(look)
        except TimeoutError as error:
            text = f"the disk or the network file system of {path} did not answer within {LOOK_TIMEOUT:g} s"
            raise TimedOut(text) from error

    async def _ask(self, case: _Case, model: str) -> _Outcome:
        """Run the command, and keep the outcome."""
        outcome: _Outcome
        seconds = ASK_AGAIN
        try:
            async with self._turn:
                outcome = await self._run(case)
        except BadAnswerError as error:
            outcome = _Problem(self._failed(case, model, str(error)))
        except RbeeError as error:
            where = self._scope.journalctl(f"-u {ESTIMATE_UNIT} -e")
            why = f"{ESTIMATE_UNIT} did not run it: {error.message}; see: {where}"
            outcome, seconds = _Problem(self._failed(case, model, why), is_passing=True), TRY_AGAIN
        except Exception as error:
            log.exception("asking %s what %s needs failed", case.engine.name, model)
            why = f"internal error: {error!r}"
            outcome, seconds = _Problem(self._failed(case, model, why), is_passing=True), TRY_AGAIN
        else:
            self._narrated.pop((case.engine.name, case.path), None)
            if case.file is not None:
                seconds = math.inf
        self._kept.pop(case, None)
        self._kept[case] = _Kept(outcome, self._clock() + seconds)
        if len(self._kept) > KEPT_MAX:
            del self._kept[next(iter(self._kept))]
        return outcome

    def _failed(self, case: _Case, model: str, why: str) -> str:
        """Return why there is no answer, and narrate it if it is not what was narrated last."""
        command = shortened(printable(shlex.join(case.question.argv)), COMMAND_SHOWN)
        problem = shortened(f"{case.engine.estimate_file}: Estimate={command}: {why}", TEXT_LIMIT)
        about = case.engine.name, case.path
        if self._narrated.get(about) != problem:
            if len(self._narrated) >= KEPT_MAX:
                self._narrated.clear()
            self._narrated[about] = problem
            text = f"{case.engine.name} does not say what memory {model} needs: {problem}"
            self._narrator.narrate(ESTIMATE_FAILED, text, model=model)
        return problem

    async def _run(self, case: _Case) -> int:
        """Have the unit run the command. Raises BadAnswerError, or RbeeError if it could not be run."""
        units = self._units
        units.follow(ESTIMATE_UNIT)
        try:
            # One that an earlier hive process has left would still have its former answer.
            if not (await units.state(ESTIMATE_UNIT)).is_stopped:
                await units.stop(ESTIMATE_UNIT)
            await in_daemonic_thread(lambda: self._write(case))
            try:
                async with asyncio.timeout(RUN_TIMEOUT):  # the end of its job is lost with the bus
                    await units.start(ESTIMATE_UNIT)
                    state = await units.state(ESTIMATE_UNIT)
            except TimeoutError as error:
                await self._stop()
                raise TimedOut(f"it has not answered within {RUN_TIMEOUT:g} s") from error
            except RbeeError:
                await self._stop()
                raise
            # Not in a finally clause: a hive that stops does not wait for it, and the unit ends by itself.
            await self._stop()
        finally:
            units.unfollow(ESTIMATE_UNIT)
        return read_status_text(state.status_text)

    async def _stop(self) -> None:
        """Stop the unit; if that fails, RuntimeMaxSec= ends it soon."""
        try:
            await self._units.stop(ESTIMATE_UNIT)
        except RbeeError as error:
            log.warning("%s could not be stopped: %s", ESTIMATE_UNIT, error.message)
        await in_daemonic_thread(lambda: shutil.rmtree(self._folder, ignore_errors=True))

    def _write(self, case: _Case) -> None:
        """Write the question, and the link to the model that the unit binds. Raises RbeeError."""
        with explained(self._folder, "written"):
            self._folder.mkdir(mode=0o700, exist_ok=True)
            link = self._folder / "model"
            with suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(case.path)
            # Last, as AssertPathExists= of the unit checks it.
            write_whole(self._folder / "environment", case.question.content(), mode=0o600)

    async def close(self) -> None:
        """Wait for no command any more; the unit of one that runs ends by itself (RuntimeMaxSec=)."""
        running = [*self._running.values(), *self._looks.values()]
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)


def identity(path: Path) -> Identity:
    """Return what a file or folder is identified by: inode, size and time, of a folder's files as well."""
    try:
        status = path.stat()
        found = (status.st_dev, status.st_ino, status.st_size, status.st_mtime_ns)
        if not path.is_dir():
            return found
        with os.scandir(path) as entries:
            names = sorted(entry.name for entry, _ in zip(entries, range(FILES_MAX), strict=False))
        return (*found, *((name, identity(path / name)) for name in names if not (path / name).is_dir()))
    except OSError:
        return None
