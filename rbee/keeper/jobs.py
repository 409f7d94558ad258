"""Jobs of the queen: starting one, and following its story to the explicit end."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from rbee.client.queen import StoryEvent
from rbee.errors import BadInput, Disconnected, Interrupted, RbeeError, TimedOut, Unreachable, from_problem
from rbee.keeper.queen.queen import Queen
from rbee.keeper.work import Work
from rbee.narration import Teller
from rbee.scope import Scope
from rbee.wire.codec import Shape, decode
from rbee.wire.jobs import Done, JobStarted
from rbee.wire.lines import Line
from rbee.wire.routes import Route


def begin(queen: Queen, route: Route[JobStarted], body: Any = None, **values: str) -> JobStarted:
    """Have the queen start a job, and return at once."""
    return queen.ask(route, body, **values)


def do(queen: Queen, route: Route[JobStarted], body: Any = None, **values: str) -> Done:
    """Have the queen do a job, and relay its story; once more if the queen dies meanwhile.

    For requests that may be repeated: the second one finishes what the first has left undone.
    """
    try:
        return follow(queen.work, queen.tell_story(route, body, **values))
    except Disconnected as error:
        queen.await_return(error)
        return follow(queen.work, queen.tell_story(route, body, **values))


def follow(work: Work, story: Iterator[StoryEvent]) -> Done:
    """Relay a story to its end, and return its result or raise its error.

    An interrupt or the end of --timeout does not end the job; the error that is raised then has its id.
    """
    teller, scope = work.teller, work.scope
    job_id = None
    end: RbeeError | None = None
    try:
        for event in story:
            if event.kind == "job":
                job = _agreed(JobStarted, event.data)
                job_id = job.job_id
                teller.begin(job)
            elif event.kind == "done":
                return _agreed(Done, event.data)
            elif event.kind == "error":
                end = from_problem(event.data)
                break
            else:
                relay(teller, event)
    except KeyboardInterrupt as error:
        if job_id is None:
            raise Interrupted(
                "interrupted before the queen answered", hint=scope.rbeectl("status")
            ) from error
        raise Interrupted(f"interrupted; job {job_id} continues", hint=log_of(job_id, scope)) from error
    except TimedOut as error:
        if job_id is None:
            raise
        raise TimedOut(f"{error.message}; job {job_id} continues", hint=log_of(job_id, scope)) from error
    if end is not None:
        raise end
    raise AssertionError("tell_story() ends with 'done', 'error' or an error of its own")


def relay(teller: Teller, event: StoryEvent) -> None:
    """Narrate an event that is a line; ignore any other."""
    if event.kind == "line":
        teller.relay(_agreed(Line, event.data))


def log_of(job_id: str, scope: Scope) -> str:
    """The command that follows the log of a job."""
    return scope.rbeectl(f"logs -f --job {job_id}")


def _agreed(kind: type[Shape], data: Any) -> Shape:
    """Decode the data of an event. If it is not valid, that is the queen's fault and not the user's."""
    try:
        return decode(kind, data)
    except BadInput as error:
        raise Unreachable(f"an event of the job's story is not valid: {error.message}") from error
