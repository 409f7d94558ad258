"""A job and its story: every line is kept, whether anybody reads it or not.

Limits: `jobs_max` jobs and a shutdown, where the oldest finished one makes room for a new one; STORY_LIMIT
lines and STORY_SIZE characters a story, whose last event is never dropped; STREAMS readers at once.
"""

from __future__ import annotations

import json
import secrets
import time
from collections import Counter
from collections.abc import Callable, Collection, Iterator
from typing import Any, Literal

from rbee.errors import RbeeError, Stopping, TooMany, UnknownJob
from rbee.narration import STORY_FULL, Event, Narrator, line_of
from rbee.queen.metrics import Metrics
from rbee.queen.store.records import now_ms
from rbee.scope import SYSTEM, Scope
from rbee.server.limits import Bound, Limits
from rbee.server.peer import Peer
from rbee.server.streams import Growth, Reading
from rbee.wire import sse
from rbee.wire.codec import encode
from rbee.wire.jobs import Done, JobKind, JobStarted, JobView
from rbee.wire.lines import Line
from rbee.wire.routes import QueenRoutes

STORY_LIMIT = 1000
"""Lines of a story; a last line reports that there were more."""

STORY_SIZE = 256 * 1024
"""Characters in all lines of a story together."""

STREAMS = Bound(total=256, kept=32, a_user=192, a_process=64)


class Job:
    """One operation that was requested, and its story. `journalctl RBEE_JOB_ID=` takes its id."""

    def __init__(
        self, kind: JobKind, hive_id: str | None, metrics: Metrics | None = None, scope: Scope = SYSTEM
    ) -> None:
        self._metrics = metrics or Metrics()
        self._scope = scope
        self._began = time.monotonic()
        self.id = secrets.token_hex(16)
        self.kind = kind
        self.hive_id = hive_id
        self.state: Literal["running", "done", "error"] = "running"
        self._started_at_ms = now_ms()
        self._ended_at_ms: int | None = None
        self._entries: list[tuple[str, Any]] = []
        self._size = 0
        self._is_full = False
        self._growth = Growth()

    def view(self) -> JobView:
        """Return the job as clients see it."""
        return JobView(
            self.id, self.kind, self.hive_id, self.state, self._started_at_ms, self._ended_at_ms,
            sum(kind == "line" for kind, _ in self._entries), self._events_path(),
        )  # fmt: skip

    def started(self) -> JobStarted:
        """Return the answer to the request that began it."""
        return JobStarted(self.hive_id, self.id, self._events_path())

    def add(self, line: Line) -> None:
        """Append a line to the story; dropped if the job has ended or the story is full."""
        if self.state != "running" or self._is_full:
            return
        self._size += len(line.text)
        self._is_full = len(self._entries) >= STORY_LIMIT or self._size > STORY_SIZE
        if self._is_full:
            log = self._scope.journalctl(f"RBEE_JOB_ID={self.id}", as_root=False)
            line = line_of(STORY_FULL, f"The story is too long to continue here: {log}")
        self._append("line", encode(line))

    def add_once(self, line: Line) -> None:
        """As add(), unless the story has this line: a beat whose answer was late is sent again."""
        if ("line", encode(line)) not in self._entries:
            self.add(line)

    def done(self, result: Done) -> None:
        """End the job with a result, unless it has ended."""
        self._end("done", encode(result))

    def failed(self, error: RbeeError) -> None:
        """End the job with an error, unless it has ended."""
        self._end("error", error.to_problem())

    def follow(self, after: int, *, first: bytes = b"", release: Callable[[], None] | None = None) -> Reading:
        """Return the story's server-sent events from number `after` + 1 on, as they come, to its end.

        If `after` is the last event, that is sent again: each stream ends with 'done' or 'error'.
        """
        number = after

        def unread() -> Iterator[bytes]:
            nonlocal number
            if self._is_ended():
                number = min(number, len(self._entries) - 1)
            for kind, data in self._entries[number:]:
                number += 1
                yield _event(number, kind, data)

        return Reading(self._growth, unread, self._is_ended, first=first, release=release)

    def _is_ended(self) -> bool:
        return self.state != "running"

    def _end(self, state: Literal["done", "error"], data: Any) -> None:
        if self.state == "running":
            self.state = state
            self._ended_at_ms = now_ms()
            self._metrics.job_ended(self.kind, state, time.monotonic() - self._began)
            self._append(state, data)

    def _append(self, kind: str, data: Any) -> None:
        self._entries.append((kind, data))
        self._growth.announce()

    def _events_path(self) -> str:
        return QueenRoutes.EVENTS.url(job_id=self.id)


class Jobs:
    """The kept jobs. Places for readers are reserved for the uids in `daemons`."""

    def __init__(
        self,
        jobs_max: int,
        metrics: Metrics | None = None,
        *,
        daemons: Collection[int] = (),
        scope: Scope = SYSTEM,
    ) -> None:
        self._scope = scope
        self._jobs_max = jobs_max
        self._metrics = metrics or Metrics()
        self._jobs: dict[str, Job] = {}
        self._limits = Limits("stories are being read", STREAMS, daemons)
        self._is_closed = False

    def open(self, kind: JobKind, hive_id: str | None) -> Job:
        """Create a job before any of its work starts.

        Raises TooMany if `jobs_max` jobs are running, unless it is a shutdown; Stopping once closed.
        """
        if self._is_closed:
            raise _stopping()
        ended = iter([job for job in self._jobs.values() if job.state != "running"])
        while len(self._jobs) >= self._jobs_max:
            oldest = next(ended, None)
            if oldest is not None:
                del self._jobs[oldest.id]
            elif kind == "shutdown":
                break  # it ends the others
            else:
                raise TooMany(
                    f"{self._jobs_max} jobs are running", hint="Wait for one to end, or raise JobsMax=."
                )
        job = Job(kind, hive_id, self._metrics, self._scope)
        self._jobs[job.id] = job
        return job

    def find(self, job_id: str | None) -> Job | None:
        """Return the job, or None if there is none with this id."""
        return self._jobs.get(job_id or "")

    def job(self, job_id: str) -> Job:
        """As find(); raises UnknownJob."""
        job = self.find(job_id)
        if job is None:
            hint = f"Only the last {self._jobs_max} jobs are kept; the journal has all of them."
            raise UnknownJob(f"there is no job {job_id}", hint=hint)
        return job

    def all(self) -> list[Job]:
        """Return the kept jobs, newest first."""
        return list(reversed(self._jobs.values()))

    def running_by_kind(self) -> Counter[str]:
        """Return the number of running jobs of each kind."""
        return Counter(job.kind for job in self._jobs.values() if job.state == "running")

    def running(self, kind: JobKind) -> Job | None:
        """Return the newest running job of a kind, or None."""
        return next((job for job in self.all() if job.kind == kind and job.state == "running"), None)

    def check_place(self, reader: Peer) -> None:
        """Raise TooMany if this client may not open another stream."""
        self._limits.check(reader)

    def stream(self, job: Job, after: int, reader: Peer, *, first: bytes = b"") -> Reading:
        """Return the job's story as server-sent events; TooMany beyond STREAMS."""
        self._limits.take(reader)
        return job.follow(after, first=first, release=lambda: self._limits.give_back(reader))

    def close(self) -> None:
        """End every job: a shutdown is done once the queen stops, any other job has failed."""
        self._is_closed = True
        for job in self._jobs.values():
            if job.kind == "shutdown":
                job.done(Done(None))
            else:
                job.failed(_stopping())


def _stopping() -> Stopping:
    return Stopping("the queen is being stopped", hint="Ask again: the work continues where it stopped.")


class Stories(Narrator):
    """Adds each line to the story of the job that it is about."""

    def __init__(self, jobs: Jobs) -> None:
        self._jobs = jobs

    def narrate(self, event: Event, text: str, **fields: str) -> None:
        job = self._jobs.find(fields.get("job_id"))
        if job is not None:
            job.add(line_of(event, text))


def job_event(job: Job) -> bytes:
    """Return the first event of the stream that answers a request which began a job."""
    return _event(0, "job", encode(job.started()))


def _event(number: int, kind: str, data: Any) -> bytes:
    return sse.event(number, kind, json.dumps(data).encode())
