"""Routes for jobs and their stories."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from rbee.queen.api.asked import job_id, last_event_id
from rbee.queen.jobs import Job, Jobs, job_event
from rbee.server.app import Handler
from rbee.server.requests import peer_of
from rbee.server.responses import event_stream
from rbee.wire.jobs import Jobs as JobList
from rbee.wire.jobs import JobStarted, JobView
from rbee.wire.routes import QueenRoutes, Route


def routes(jobs: Jobs) -> dict[Route[Any], Handler]:
    """Return the handlers of these routes."""

    async def list_all(_request: Request) -> JobList:
        return JobList(tuple(job.view() for job in jobs.all()))

    async def show(request: Request) -> JobView:
        return jobs.job(job_id(request)).view()

    async def events(request: Request) -> Response:
        return event_stream(jobs.stream(jobs.job(job_id(request)), last_event_id(request), peer_of(request)))

    return {QueenRoutes.JOBS: list_all, QueenRoutes.JOB: show, QueenRoutes.EVENTS: events}


def begin(
    jobs: Jobs, request: Request, ask: Callable[[], Job], *, is_always: bool = False
) -> JobStarted | Response:
    """Begin a job and return where to follow it, or its event stream if the client accepts one.

    One that may begin `is_always`, however many stories are being read.
    """
    if "text/event-stream" not in request.headers.get("accept", ""):
        return ask().started()
    if is_always:
        job = ask()
        return event_stream(job.follow(0, first=job_event(job)))
    jobs.check_place(peer_of(request))  # before the job begins, which could not be followed otherwise
    job = ask()
    return event_stream(jobs.stream(job, 0, peer_of(request), first=job_event(job)))
