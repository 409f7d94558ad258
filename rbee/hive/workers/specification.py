"""The specification of a worker, in files: for systemd, for the launcher, and for the hive that adopts it."""

from __future__ import annotations

import json
import logging
import os
import shutil
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

from rbee.engines.order import Order, waiting
from rbee.errors import BadInput, RbeeError
from rbee.files import explained, write_whole
from rbee.wire.codec import decode, encode
from rbee.wire.types import WorkerId
from rbee.wire.workers import StartWorker

log = logging.getLogger("rbee")

SPECIFICATION = "worker.json"
ENVIRONMENT = "environment"
WAIT = "wait"
MODEL = "model"
"""The files in a worker's folder: the StartWorker for the next hive process, the Order for systemd and the
launcher (EnvironmentFile=), how long that waits before a restart, and a link to the model
(BindReadOnlyPaths=)."""

SIZE_MAX = 64 * 1024
"""The most bytes of a specification that are read."""


class Specifications:
    """The folders of the workers, mode 0700, in the hive's state directory."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def write(self, start: StartWorker, order: Order) -> None:
        """Write a worker's specification, in place of an earlier one. Raises RbeeError."""
        folder = self.folder / start.id
        with explained(folder, "written"):
            folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            content = json.dumps(encode(start), indent=1).encode()
            write_whole(folder / SPECIFICATION, content, mode=0o600)
            link = folder / f".{MODEL}.new"
            with suppress(FileNotFoundError):
                link.unlink()
            link.symlink_to(start.path)
            link.rename(folder / MODEL)
            (folder / WAIT).unlink(missing_ok=True)
            # Last, as AssertPathExists= of the unit checks it.
            write_whole(folder / ENVIRONMENT, order.content(), mode=0o600)

    def set_wait(self, worker_id: str, seconds: int) -> None:
        """Have the launcher wait for `seconds` before the next start. A failure is only logged."""
        path = self.folder / worker_id / WAIT
        try:
            with explained(path, "written"):
                write_whole(path, waiting(seconds), mode=0o600)
        except RbeeError as error:
            log.error("the worker %s is started again without a further wait: %s", worker_id, error)

    def remove(self, worker_id: str) -> None:
        """Remove a worker's folder; a failure is logged, and the next hive process tries again."""
        try:
            shutil.rmtree(self.folder / worker_id)
        except FileNotFoundError:
            pass
        except OSError as error:
            log.error("the specification of the worker %s could not be removed: %s", worker_id, error)

    def read(self) -> Iterator[StartWorker]:
        """Yield all specifications; a folder without a valid one is removed."""
        for name in self._names():
            try:
                yield self._read(name)
            except (OSError, ValueError, RbeeError) as error:
                log.warning("the specification of the worker %s is not valid and is removed: %s", name, error)
                self.remove(name)

    def _names(self) -> list[str]:
        try:
            return sorted(os.listdir(self.folder))
        except OSError:
            return []

    def _read(self, name: str) -> StartWorker:
        decode(WorkerId, name)
        with (self.folder / name / SPECIFICATION).open("rb") as file:
            start = decode(StartWorker, json.loads(file.read(SIZE_MAX)))
        if start.id != name:
            raise BadInput(f"it is that of the worker {start.id}")
        return start
