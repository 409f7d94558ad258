"""The gateway's routes, its errors in OpenAI's shape, and who may use it."""

from __future__ import annotations

import asyncio
import json
import logging
import secrets
from typing import Any

from starlette.types import Receive, Scope, Send

from rbee import __version__
from rbee.errors import NoSuchMethod, NoSuchRoute, RbeeError, Stopping, UnknownModel
from rbee.gateway.bodies import ClientGone
from rbee.gateway.completion import Client, Completion, Site
from rbee.gateway.keys import key_in
from rbee.gateway.metrics import write
from rbee.gateway.openai import MESSAGES, model_object, models_object
from rbee.gateway.reply import Reply
from rbee.server.peer import AnyPeer, Peer, RemotePeer
from rbee.text import printable

log = logging.getLogger("rbee")

PASSED = frozenset({"/v1/chat/completions", "/v1/completions", "/v1/embeddings", "/v1/responses", MESSAGES})
"""Paths of requests that are passed to an engine."""

MODELS = "/v1/models"


class App:
    """The ASGI app."""

    def __init__(self, site: Site) -> None:
        self._site = site

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        request_id = secrets.token_hex(16)
        reply = Reply(scope, send, request_id)
        try:
            await self._route(scope, receive, reply, request_id)
        except ClientGone:
            pass
        except RbeeError as error:
            headers = [(b"allow", error.allowed.encode())] if isinstance(error, _NoSuchMethod) else []
            await reply.fail(error, headers=headers)
        except asyncio.CancelledError:
            # serve() cancels requests that are in flight when its grace is over; the client gets an answer.
            await reply.fail(Stopping("the gateway is being stopped", hint="Try again."))
        except Exception:
            log.error("%s %s failed: internal error", scope["method"], printable(scope["path"]))
            await reply.fail(RbeeError("internal error", hint="The journal has its traceback."))
            raise  # uvicorn logs the traceback

    async def _route(self, scope: Scope, receive: Receive, reply: Reply, request_id: str) -> None:
        path, method = scope["path"], scope["method"]
        client = await self._admit(scope, request_id)
        if path in PASSED:
            _check_method(path, method, "POST")
            await Completion(self._site, client, reply, scope).answer(receive)
            return
        is_models = path == MODELS or path.startswith(f"{MODELS}/")
        is_local = client.uid is not None and path in ("/health", "/metrics")
        if not is_models and not is_local:
            raise NoSuchRoute(f"there is nothing at {path}", hint=f"GET {MODELS} lists the models.")
        _check_method(path, method, "GET")
        if is_models:
            await self._send_models(path, client, reply)
        elif path == "/health":
            await _send_json(reply, {"status": "ok", "version": __version__})
        else:
            await self._send_metrics(scope, reply)

    async def _admit(self, scope: Scope, request_id: str) -> Client:
        """Return who sent the request. Raises BadKey for one over TCP without a valid key."""
        peer: AnyPeer = scope["rbee.peer"]
        if isinstance(peer, Peer):
            return Client(request_id, peer.uid)
        assert isinstance(peer, RemotePeer)
        key = key_in(scope["headers"], self._site.scope)
        await self._site.keys.admit(key)
        admitted = scope.get("rbee.admitted")
        if admitted is not None:
            admitted()
        return Client(request_id, None, key, peer.address)

    async def _send_models(self, path: str, client: Client, reply: Reply) -> None:
        models = await self._site.keys.models(client.key)
        if path == MODELS:
            await _send_json(reply, models_object(models))
            return
        name = path.removeprefix(f"{MODELS}/")
        model = next((one for one in models.models if one.name == name), None)
        if model is None:
            raise UnknownModel(
                f"the model '{name:.253}' is not served", hint=f"GET {MODELS} lists the models."
            )
        await _send_json(reply, model_object(model.name, model.created_at_ms))

    async def _send_metrics(self, scope: Scope, reply: Reply) -> None:
        accept = dict(scope["headers"]).get(b"accept", b"").decode("latin-1")
        activity = self._site.activity
        content, media_type = await asyncio.to_thread(
            write,
            self._site.metrics,
            in_flight=activity.in_flight,
            waiting=activity.waiting,
            accept=accept,
        )
        await reply.whole(200, content, media_type)


class _NoSuchMethod(NoSuchMethod):
    """`allowed` is the method that the path has."""

    def __init__(self, method: str, path: str, allowed: str) -> None:
        super().__init__(f"{method} is not a method of {path}", hint=f"Use {allowed}.")
        self.allowed = allowed


def _check_method(path: str, method: str, allowed: str) -> None:
    if method != allowed and not (method == "HEAD" and allowed == "GET"):
        raise _NoSuchMethod(method, path, allowed)


async def _send_json(reply: Reply, value: Any) -> None:
    await reply.whole(200, json.dumps(value).encode(), "application/json")
