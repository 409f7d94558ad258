"""Builds an app from handlers of the route table. Only here do our errors become HTTP statuses."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from functools import cache
from typing import Any

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route as StarletteRoute
from starlette.routing import Router
from starlette.types import Receive, Scope, Send

from rbee.errors import NoSuchMethod, NoSuchRoute, RbeeError, Stopping
from rbee.server.requests import any_peer_of
from rbee.server.responses import json_response, problem_response
from rbee.text import printable
from rbee.wire.routes import Route

log = logging.getLogger("rbee")

Handler = Callable[[Request], Awaitable[Any]]


Admit = Callable[[Any, Route[Any]], None]
"""Takes a peer and a route; raises NotPermitted if the peer may not use the route."""


def build_app(
    title: str,
    version: str,
    handlers: Mapping[Route[Any], Handler],
    *,
    admit: Admit = lambda peer, route: None,
) -> Router:
    """Return an app of the route table's handlers; a handler returns a shape, or a Response.

    The OpenAPI document is made from the same table, so that the two cannot differ. The app is only a router
    whose endpoints turn errors into answers: Starlette's middleware for that would load its HTML pages.
    """

    @cache
    def document() -> bytes | memoryview:
        from rbee.wire.openapi import openapi  # loads the shapes of all subjects

        return json_response(openapi(title, version, tuple(handlers))).body

    paths: dict[str, dict[str, tuple[Route[Any], Handler]]] = {}
    for route, handler in handlers.items():
        paths.setdefault(route.path, {})[route.method] = (route, handler)

    return Router(
        [StarletteRoute(path, _Endpoint(methods, document, admit)) for path, methods in paths.items()],
        # No redirect to the path with or without '/', which would not be a problem document.
        redirect_slashes=False,
        default=_refuse_path,
    )


class _Endpoint:
    """The handlers at one path. Not a function, for which Starlette would check the methods itself."""

    def __init__(
        self,
        methods: Mapping[str, tuple[Route[Any], Handler]],
        document: Callable[[], bytes | memoryview],
        admit: Admit,
    ) -> None:
        self._methods = methods
        self._allowed = list(methods)
        if "GET" in methods and methods["GET"][0].answers is not None:  # not for event streams
            self._allowed.append("HEAD")
        self._document = document
        self._admit = admit

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        try:
            response = await self._answer(Request(scope, receive))
        except RbeeError as error:
            response = problem_response(error)
        except Exception:
            log.error("%s %s failed: internal error", scope["method"], printable(scope["path"]))
            failure = RbeeError("internal error", hint="The journal has its traceback.")
            await problem_response(failure)(scope, receive, send)
            raise  # uvicorn logs the traceback
        except asyncio.CancelledError:
            # serve() cancels requests that are in flight when its grace is over; the client gets an answer.
            response = problem_response(Stopping("the daemon is being stopped", hint="Ask again."))
        await response(scope, receive, send)

    async def _answer(self, request: Request) -> Response:
        # HEAD is GET; uvicorn leaves the body out.
        entry = self._methods.get("GET" if request.method == "HEAD" else request.method)
        if entry is None or request.method not in self._allowed:
            allowed = ", ".join(self._allowed)
            return problem_response(
                NoSuchMethod(
                    f"{request.method} is not a method of {request.scope['path']}", hint=f"It has {allowed}."
                ),
                headers={"Allow": allowed},
            )
        route, handler = entry
        self._admit(any_peer_of(request), route)
        if route.answers is dict:
            return Response(self._document(), media_type="application/json")
        answer = await handler(request)
        return answer if isinstance(answer, Response) else json_response(answer, route.success)


async def _refuse_path(scope: Scope, receive: Receive, send: Send) -> None:
    error = NoSuchRoute(f"there is nothing at {scope['path']}", hint="GET /v1/openapi.json")
    await problem_response(error)(scope, receive, send)
