"""The queen's routes: each takes a request apart, asks the rules, and answers with a shape."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response

from rbee import __version__
from rbee.contracts import (
    EVENT_HEADER,
    LOCALHOST,
    AddHive,
    Audit,
    CatalogReport,
    CreatedToken,
    CreateToken,
    FeedEvents,
    FeedId,
    Health,
    Heartbeat,
    HeartbeatAck,
    Hives,
    HiveView,
    JobId,
    Jobs,
    JobStarted,
    JobView,
    Name,
    QueenRoutes,
    Route,
    Sample,
    SetCordon,
    SetLabels,
    SetTcp,
    Tcp,
    TokenId,
    Tokens,
    TokenView,
    decode,
)
from rbee.errors import BadInput, NotPermitted, UnknownJob
from rbee.queen import hives as rules
from rbee.queen import jobs as stories
from rbee.queen.feed import Feed
from rbee.queen.fleet import Fleet
from rbee.queen.metrics import Metrics, Moment, write
from rbee.server import Handler, build_app, event_stream, file_answer, peer_of, read_query, read_shape
from rbee.server.peer import Peer


class Admission:
    """Who may use which route. Reaching the socket makes no operator of the hive's user.

    `hive_uid` is None on a machine without that user; then nobody but root may send heartbeats.
    `find_hive_uid` is asked again while there is none: the package rbee-hive may bring the user
    while the queen is awake, and it is no operator from its first moment on.
    """

    def __init__(self, hive_uid: int | None, find_hive_uid: Callable[[], int | None] = lambda: None) -> None:
        self._hive_uid = hive_uid
        self._find_hive_uid = find_hive_uid

    def __call__(self, peer: Peer, route: Route[Any]) -> None:
        if self._hive_uid is None:
            self._hive_uid = self._find_hive_uid()
        is_hive = peer.uid == self._hive_uid
        if route is QueenRoutes.HEARTBEAT and not is_hive and peer.uid != 0:
            raise NotPermitted("heartbeats are taken from the user rbee-hive only")
        if is_hive and route is not QueenRoutes.HEARTBEAT:
            raise NotPermitted("the user rbee-hive may send heartbeats only")


def build(
    hives: rules.Hives,
    jobs: stories.Jobs,
    feed: Feed,
    admission: Admission,
    fleet: Fleet,
    metrics: Metrics | None = None,
) -> Starlette:
    """The queen's app on her Unix socket. `metrics` is what her other rooms count in."""
    counted = metrics or Metrics()
    scraping = asyncio.Lock()

    def hive_of(request: Request) -> str:
        return hives.spelled(hive_id(request))

    async def health(_request: Request) -> Health:
        return Health("ok", __version__)

    async def add_hive(request: Request) -> Any:
        wanted = await read_shape(request, AddHive)
        return begin(request, lambda: hives.add(wanted, actor(request)))

    async def heartbeat(request: Request) -> HeartbeatAck:
        beat = await read_shape(request, Heartbeat)
        if beat.hive_id != LOCALHOST and fleet.is_member(beat.hive_id):
            raise NotPermitted(f"the hive {beat.hive_id} is on another machine, and beats over TCP")
        return await hives.heartbeat(beat, actor(request))

    async def shutdown(request: Request) -> Any:
        return begin(request, lambda: hives.shut_down(actor(request)))

    async def list_hives(_request: Request) -> Hives:
        return Hives(tuple(await hives.views()))

    async def show_hive(request: Request) -> HiveView:
        return await hives.view(hive_of(request))

    async def sample(request: Request) -> Sample:
        return await hives.sample(hive_of(request))

    async def remove_hive(request: Request) -> Any:
        wanted = hive_of(request)
        is_forced = bool(read_query(request, QueenRoutes.REMOVE_HIVE).get("force", 0))
        return begin(request, lambda: hives.remove(wanted, actor(request), is_forced=is_forced))

    async def set_labels(request: Request) -> HiveView:
        return await fleet.set_labels(hive_of(request), await read_shape(request, SetLabels), actor(request))

    async def set_cordon(request: Request) -> HiveView:
        return await fleet.set_cordon(hive_of(request), await read_shape(request, SetCordon), actor(request))

    async def tcp(_request: Request) -> Tcp:
        return await fleet.tcp()

    async def set_tcp(request: Request) -> Tcp:
        asked = await read_shape(request, SetTcp)
        return await fleet.set_tcp(asked.is_open)

    async def list_tokens(_request: Request) -> Tokens:
        return Tokens(tuple(await hives.catalog.tokens.all()))

    async def create_token(request: Request) -> CreatedToken:
        return await fleet.create_token(await read_shape(request, CreateToken), actor(request))

    async def revoke_token(request: Request) -> TokenView:
        return await hives.catalog.tokens.revoke(token_id(request), by=actor(request))

    async def audit(request: Request) -> Audit:
        asked = read_query(request, QueenRoutes.AUDIT)
        return Audit(tuple(await hives.catalog.audit.last(asked.get("limit", 100), asked.get("hive"))))

    async def list_jobs(_request: Request) -> Jobs:
        return Jobs(tuple(job.view() for job in jobs.all()))

    async def show_job(request: Request) -> JobView:
        return jobs.job(job_id(request)).view()

    async def events(request: Request) -> Response:
        return event_stream(jobs.stream(jobs.job(job_id(request)), last_event_id(request), peer_of(request)))

    async def watch(request: Request) -> Response:
        since_ms = read_query(request, QueenRoutes.FEED).get("since_ms")
        return event_stream(feed.stream(peer_of(request), after=feed_id(request), since_ms=since_ms))

    async def last_events(request: Request) -> FeedEvents:
        asked = read_query(request, QueenRoutes.LAST_EVENTS)
        return feed.last(asked.get("limit", 10), asked.get("hive"))

    async def catalog(_request: Request) -> Response:
        return file_answer(await hives.catalog.copy(), QueenRoutes.CATALOG.media_type)

    async def check_catalog(_request: Request) -> CatalogReport:
        return await hives.catalog.check()

    async def tell_metrics(request: Request) -> Response:
        async with scraping:  # one after the other, however many ask: a page is made in a thread
            moment = Moment(await hives.views(), jobs.running_by_kind())
            accept = request.headers.get("accept", "")
            content, media_type = await asyncio.to_thread(write, counted, moment, accept)
        return Response(content, headers={"Content-Type": media_type})

    def begin(request: Request, ask: Callable[[], stories.Job]) -> JobStarted | Response:
        """Begin a job, and say where to follow it; or tell its story at once, to who asks for a stream."""
        if "text/event-stream" not in request.headers.get("accept", ""):
            return ask().started()
        jobs.check_place(peer_of(request))  # before there is a job that its asker would not hear of
        job = ask()
        return event_stream(jobs.stream(job, 0, peer_of(request), first=stories.job_event(job)))

    handlers: dict[Route[Any], Handler] = {
        QueenRoutes.HEALTH: health,
        QueenRoutes.ADD_HIVE: add_hive,
        QueenRoutes.HEARTBEAT: heartbeat,
        QueenRoutes.SHUTDOWN: shutdown,
        QueenRoutes.HIVES: list_hives,
        QueenRoutes.HIVE: show_hive,
        QueenRoutes.SAMPLE: sample,
        QueenRoutes.REMOVE_HIVE: remove_hive,
        QueenRoutes.SET_LABELS: set_labels,
        QueenRoutes.SET_CORDON: set_cordon,
        QueenRoutes.JOBS: list_jobs,
        QueenRoutes.JOB: show_job,
        QueenRoutes.EVENTS: events,
        QueenRoutes.FEED: watch,
        QueenRoutes.LAST_EVENTS: last_events,
        QueenRoutes.CATALOG: catalog,
        QueenRoutes.CHECK_CATALOG: check_catalog,
        QueenRoutes.METRICS: tell_metrics,
        QueenRoutes.TCP: tcp,
        QueenRoutes.SET_TCP: set_tcp,
        QueenRoutes.TOKENS: list_tokens,
        QueenRoutes.CREATE_TOKEN: create_token,
        QueenRoutes.REVOKE_TOKEN: revoke_token,
        QueenRoutes.AUDIT: audit,
        QueenRoutes.OPENAPI: health,  # answered from the route table
    }
    return build_app("rbee queen", __version__, handlers, admit=admission)


def actor(request: Request) -> dict[str, str]:
    """Who asked, as fields for the journal."""
    return peer_of(request).fields


def hive_id(request: Request) -> str:
    try:
        return decode(Name, request.path_params["hive_id"])
    except BadInput as error:
        raise BadInput(f"hive_id {error.message.removeprefix('the body ')}", field="hive_id") from error


def token_id(request: Request) -> str:
    try:
        return decode(TokenId, request.path_params["token_id"])
    except BadInput as error:
        raise BadInput(f"token_id {error.message.removeprefix('the body ')}", field="token_id") from error


def job_id(request: Request) -> str:
    try:
        return decode(JobId, request.path_params["job_id"])
    except BadInput as error:
        raise UnknownJob("job_id must be 32 hexadecimal digits", field="job_id") from error


def last_event_id(request: Request) -> int:
    text = request.headers.get(EVENT_HEADER, "0")
    if not (text.isascii() and text.isdecimal() and len(text) <= 9):
        raise BadInput(f"{EVENT_HEADER} must be the number of an event of this story", field=EVENT_HEADER)
    return int(text)


def feed_id(request: Request) -> str | None:
    """The event of the feed that the reader has seen last, if he says."""
    text = request.headers.get(EVENT_HEADER)
    if text is None:
        return None
    try:
        return decode(FeedId, text)
    except BadInput as error:
        raise BadInput(f"{EVENT_HEADER} must be the id of an event", field=EVENT_HEADER) from error
