"""Errors and models in the OpenAI API's shape."""

from __future__ import annotations

import json
from typing import Any

from rbee.errors import RbeeError
from rbee.wire.models import OpenModels

RETRY_S = 5
"""Retry-After of a 503 in seconds, unless the queen gives another."""

MESSAGES = "/v1/messages"
"""The path whose clients expect one more member in an error."""

_CODES = {"unknown-model": "model_not_found", "bad-key": "invalid_api_key"}


def error_object(error: RbeeError) -> dict[str, Any]:
    """Return an error as OpenAI's clients read it; its message ends with what to do.

    `detail` and `hint` are the two parts of that message, as in the problem documents of RFC 9457.
    """
    shown: dict[str, Any] = {
        "message": _with_cure(error),
        "type": _type_of(error.status),
        "code": _CODES.get(error.slug, error.slug.replace("-", "_")),
        "param": error.field,
    }
    if error.hint:
        shown |= {"detail": error.message, "hint": error.hint}
    return {"error": shown}


def _with_cure(error: RbeeError) -> str:
    """Return the message with what to do, which is a sentence or a command."""
    hint = error.hint
    if not hint:
        return error.message
    return f"{error.message}. {hint}" if hint[0].isupper() else f"{error.message}; try: {hint}"


def error_content(error: RbeeError, path: str = "") -> bytes:
    """Return an error as JSON, in one line. For MESSAGES it has Anthropic's `type`, too."""
    shape = error_object(error)
    return json.dumps({"type": "error", **shape} if path == MESSAGES else shape).encode()


def event_of(content: bytes, path: str = "") -> bytes:
    """Return an error's JSON as the last server-sent event of a stream."""
    name = b"event: error\n" if path == MESSAGES else b""
    return name + b"data: " + b" ".join(content.split(b"\n")) + b"\n\n"


def models_object(models: OpenModels) -> dict[str, Any]:
    """Return the models as /v1/models has them."""
    return {"object": "list", "data": [model_object(one.name, one.created_at_ms) for one in models.models]}


def model_object(name: str, created_at_ms: int) -> dict[str, Any]:
    """Return a model as /v1/models/NAME has it."""
    return {"id": name, "object": "model", "created": created_at_ms // 1000, "owned_by": "rbee"}


def _type_of(status: int) -> str:
    if status == 401:
        return "authentication_error"
    if status == 403:
        return "permission_error"
    return "invalid_request_error" if status < 500 else "server_error"
