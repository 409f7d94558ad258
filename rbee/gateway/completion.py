"""One request to a model: from its body to the end of the engine's answer."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Callable, Coroutine, Iterator
from typing import Any, NamedTuple

from starlette.types import Receive

from rbee.errors import Disconnected, RbeeError, Stopping, Unreachable
from rbee.gateway.activity import Activity
from rbee.gateway.bodies import Bodies, Body, ClientGone
from rbee.gateway.engine import Engine, EngineHead, open_engine
from rbee.gateway.heads import answer_headers, request_head
from rbee.gateway.keys import Keys
from rbee.gateway.lease import Lease, NotGranted, QueenConnections, lease
from rbee.gateway.metrics import CLIENT_GONE, Metrics
from rbee.gateway.peek import peek
from rbee.gateway.reply import Reply
from rbee.gateway.usage import Usage
from rbee.gateway.waiting import Waiting
from rbee.narration import ENGINE_BROKE, Narrator
from rbee.scope import Scope
from rbee.wire.leases import Ask

ERROR_LIMIT = 64 * 1024
"""Most bytes of an engine's error that is sent as an event, as the stream has begun already."""

CUT_TIMEOUT = 0.5
"""Seconds in which a client must take the end of its stream when the gateway stops."""


class Site(NamedTuple):
    """What all requests share. `hold` is the seconds for which a request waits for a worker.

    `queen_run` returns the invocation ID of the queen, None while it sleeps, without waking it.
    """

    queen: QueenConnections
    scope: Scope
    hold: float
    bodies: Bodies
    keys: Keys
    activity: Activity
    metrics: Metrics
    narrator: Narrator
    queen_run: Callable[[], str | None]


class Client(NamedTuple):
    """Who sent a request: a user of this machine by `uid`, or a client at `address` with a key's SHA-256."""

    request_id: str
    uid: int | None
    key: str | None = None
    address: str | None = None

    @property
    def fields(self) -> dict[str, str]:
        """The client as fields for the journal."""
        fields = {"request": self.request_id}
        if self.uid is not None:
            fields["actor_uid"] = str(self.uid)
        if self.address is not None:
            fields["actor_address"] = self.address
        return fields


class Completion:
    """One request, and what is known of it so far."""

    def __init__(self, site: Site, client: Client, reply: Reply, scope: Any) -> None:
        self._site = site
        self._client = client
        self._reply = reply
        self._scope = scope
        self._began = asyncio.get_running_loop().time()
        self._model = ""
        """The model's name, once a worker of it was granted."""
        self._usage = Usage()

    async def answer(self, receive: Receive) -> None:
        """Answer the request. Raises RbeeError for what is wrong with it, or ClientGone."""
        status = CLIENT_GONE
        try:
            with self._site.activity.request(), self._site.bodies.one() as body:
                await body.read(self._scope, receive)
                await self._until_gone(self._pass_on(body), receive)
            status = "broken" if self._reply.is_cut else str(self._reply.status)
        except RbeeError as error:
            status = str(error.status)
            raise
        finally:
            self._site.metrics.request_ended(self._model, status)
            self._site.metrics.tokens_came(self._model, self._usage.tokens())

    async def _until_gone(self, passing: Coroutine[Any, Any, None], receive: Receive) -> None:
        """Pass the request on, until its answer has ended or its client is gone."""
        working = asyncio.ensure_future(passing)
        leaving = asyncio.ensure_future(_left(receive))
        try:
            await asyncio.wait((working, leaving), return_when=asyncio.FIRST_COMPLETED)
            if not working.done():
                raise ClientGone
            await self._report(working)
            if self._reply.is_cut:
                await asyncio.wait((leaving,))  # uvicorn logs an answer without an end as an error
        except asyncio.CancelledError:
            working.cancel()
            await asyncio.gather(working, return_exceptions=True)
            await self._stop(leaving)
        finally:
            working.cancel()
            leaving.cancel()
            await asyncio.gather(working, leaving, return_exceptions=True)

    async def _report(self, working: asyncio.Future[None]) -> None:
        """Send the error, if there is one."""
        failure = working.exception()
        if isinstance(failure, NotGranted):
            await self._reply.fail(failure.error, retry_s=failure.retry_s)
        elif isinstance(failure, RbeeError):
            await self._reply.fail(failure)
        elif failure is not None:
            raise failure

    async def _stop(self, leaving: asyncio.Future[None]) -> None:
        await self._reply.fail(Stopping("the gateway is being stopped", hint="Try again."))
        if self._reply.is_cut:
            await asyncio.wait((leaving,), timeout=CUT_TIMEOUT)
            self._scope["rbee.drop"]()
            await asyncio.wait((leaving,))

    async def _pass_on(self, body: Body) -> None:
        peeked = peek(body.content)
        client, site = self._client, self._site
        ask = Ask(
            peeked.model, client.request_id, round(site.hold * 1000), client.uid, client.key, client.address
        )
        narrator = site.narrator.about(model=peeked.model, **client.fields)
        waiting = Waiting(self._reply, narrator, peeked.model, may_begin=peeked.is_stream)
        async with contextlib.AsyncExitStack() as at_the_end:
            try:
                with site.activity.wait():
                    async with waiting:
                        held = await at_the_end.enter_async_context(
                            lease(site.queen, ask, waiting.note, queen_run=site.queen_run)
                        )
            except NotGranted as refused:
                if refused.error.status == 401:
                    site.keys.forget(client.key)
                waiting.refused(refused.error)
                raise
            self._model = peeked.model
            waiting.granted(held.granted)
            if held.granted.was_cold:
                site.metrics.was_cold(self._model, waiting.seconds)
            await self._ask_engine(held, body, narrator)

    async def _ask_engine(self, held: Lease, body: Body, narrator: Narrator) -> None:
        engine = await open_engine(held.take_engine())
        try:
            with _holding(held, engine):
                target = self._scope["raw_path"]
                if self._scope["query_string"]:
                    target += b"?" + self._scope["query_string"]
                headers = self._scope["headers"]
                method = self._scope["method"]
                await engine.send(request_head(method, target, headers, len(body.content)), body.content)
                body.drop()
                await self._relay(await engine.head(), engine)
        except RbeeError as error:
            text = f"the answer of worker {held.granted.worker} is incomplete: {error.message}"
            fields = {} if held.granted.job_id is None else {"job_id": held.granted.job_id}
            narrator.narrate(ENGINE_BROKE, text, worker=held.granted.worker, **fields)
            hint = f"Try again, or see: {self._site.scope.rbeectl(f'status {self._model}')}"
            raise type(error)(f"{self._model}: {text}", hint=error.hint or hint) from error
        finally:
            engine.close()

    async def _relay(self, head: EngineHead, engine: Engine) -> None:
        reply = self._reply
        if reply.status is not None and (head.status != 200 or not head.is_events):
            await self._refuse_in_stream(engine)
            return
        if reply.status is None:
            await reply.head(head.status, answer_headers(head.headers), is_events=head.is_events)
        part = await engine.part()
        if part is not None and head.status == 200:
            seconds = asyncio.get_running_loop().time() - self._began
            self._site.metrics.first_token_came(self._model, seconds)
        note, send = self._usage.note, reply.part
        while part is not None:
            note(part)
            await send(part)
            part = await engine.part()
        await reply.finish()

    async def _refuse_in_stream(self, engine: Engine) -> None:
        """Send an engine's error as an event, as the head of a stream was sent while the request waited."""
        content = b""
        while (part := await engine.part()) is not None:
            content += part
            if len(content) > ERROR_LIMIT:
                raise Unreachable(f"the engine's answer is not a stream, and larger than {ERROR_LIMIT} bytes")
        await self._reply.cut(content)


@contextlib.contextmanager
def _holding(held: Lease, engine: Engine) -> Iterator[None]:
    """Hold the lease within the context. If the queen ends it, the connection to the engine ends."""

    async def hold() -> None:
        error = await held.hold()
        engine.end(Disconnected(f"the queen ended the request: {error.message}", hint=error.hint))

    holding = asyncio.ensure_future(hold())
    try:
        yield
    finally:
        holding.cancel()


async def _left(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass
